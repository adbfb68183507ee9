//! The threads that serve kernels: each takes the requests of one ring and answers them.
//!
//! A thread sleeps while no kernel can ask. Few requests are read by the thread itself, which is
//! soonest; many go to the engine together. A thread that dies says so in the word that every
//! waiting warp looks at, so that kernels end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::layout::Layout;
use super::ring::{Pinned, Request, Server, Words, zero};
use crate::engine::{Buffer, Completion, File, Operation, Options, Ticket, Transfer};
use crate::error::{Error, ErrorKind, Result};

/// Requests that go to the engine together.
const BATCH_MAX: usize = 128;
/// Batches that a thread has under way.
const BATCHES_MAX: usize = 4;
/// Up to this many requests are served in this thread, and any number while each takes no longer
/// than `QUICK`: from a device in memory, or out of the page cache, handing over costs more.
const HERE_MAX: usize = 2;
const QUICK: Duration = Duration::from_micros(8);
/// Every so many hand-overs one is served here, to see whether it is quick by now.
const TRY_EVERY: u32 = 64;
/// Rounds without work before a thread yields, and before it sleeps for a moment.
const LOOKS: u32 = 200;
const YIELDS: u32 = 400;
const PAUSE: Duration = Duration::from_micros(20);

/// Statuses that travel to kernels: numbers of the C interface.
pub(super) const STATUS_IO: u16 = 20;
pub(super) const STATUS_FILE_CHANGED: u16 = 26;
pub(super) const STATUS_POISONED: u16 = 84;

/// What the threads share with the array.
pub(super) struct Shared {
    file: File,
    pinned: Buffer,
    layout: Layout,
    requests: Vec<Pinned>,
    completions: Vec<Pinned>,
    host: Pinned,
    state: Mutex<State>,
    wake: Condvar,
    /// A thread has died: nothing is served any more.
    dead: AtomicBool,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct State {
    sessions: u32,
    stopping: bool,
}

impl State {
    /// Whether kernels may ask. An array that is closed while it is acquired has none that do.
    fn is_active(&self) -> bool {
        self.sessions > 0 && !self.stopping
    }
}

/// What could not be served since this was last asked for.
#[derive(Default)]
pub(super) struct Failures {
    pub(super) first: Option<Error>,
    /// Pages whose words say that they failed.
    pub(super) pages: Vec<u64>,
}

/// The threads of an array. They end when it drops.
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts the threads over pinned memory that is all zero before its staging pages.
    pub(super) fn start(file: &File, pinned: &Buffer, layout: Layout) -> Result<Self> {
        let ring = |offset: u64, index: u32| {
            let count = 1 << layout.ring_shift;
            Pinned::new(pinned, offset + u64::from(index) * count * 8, count)
        };
        let rings = |offset| {
            (0..layout.rings)
                .map(|i| ring(offset, i))
                .collect::<Option<_>>()
        };
        let parts = (
            rings(0),
            rings(layout.completions_offset()),
            Pinned::new(pinned, layout.host_offset(), 1),
        );
        let (Some(requests), Some(completions), Some(host)) = parts else {
            return Err(Error::new(
                ErrorKind::Internal,
                "the pinned memory of an array is too small; please report this",
            ));
        };
        let shared = Arc::new(Shared {
            file: file.clone(),
            pinned: pinned.clone(),
            layout,
            requests,
            completions,
            host,
            state: Mutex::default(),
            wake: Condvar::new(),
            dead: AtomicBool::new(false),
            failures: Mutex::default(),
        });
        let mut service = Self {
            shared,
            threads: Vec::new(),
        };
        for index in 0..layout.rings as usize {
            let shared = service.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("gds-array-{index}"))
                .spawn(move || Thread::new(shared, index).run())
                .map_err(|e| {
                    let text = format!("start a thread that serves kernels: {e}; lower ulimit use");
                    Error::new(ErrorKind::OutOfHostMemory, text)
                })?;
            service.threads.push(thread);
        }
        Ok(service)
    }

    /// Lets kernels ask, until `end` was called as often.
    pub(super) fn begin(&self) {
        self.shared.state.lock().sessions += 1;
        self.shared.wake.notify_all();
    }

    /// Sessions that are still open after this one has ended. None: there was none.
    pub(super) fn end(&self) -> Option<u32> {
        let mut state = self.shared.state.lock();
        state.sessions = state.sessions.checked_sub(1)?;
        Some(state.sessions)
    }

    pub(super) fn sessions(&self) -> u32 {
        self.shared.state.lock().sessions
    }

    pub(super) fn is_dead(&self) -> bool {
        self.shared.dead.load(Relaxed)
    }

    pub(super) fn take_failures(&self) -> Failures {
        std::mem::take(&mut *self.shared.failures.lock())
    }

    /// Puts pages back whose words could not be cleared yet.
    pub(super) fn keep_failed(&self, pages: Vec<u64>) {
        self.shared.failures.lock().pages.extend(pages);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was told to kernels already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Sleeps while no kernel can ask. False when the array closes.
    fn wait_for_session(&self) -> bool {
        let mut state = self.state.lock();
        while state.sessions == 0 && !state.stopping {
            self.wake.wait(&mut state);
        }
        state.is_active()
    }

    fn is_active(&self) -> bool {
        self.state.lock().is_active()
    }

    fn record(&self, request: Request, error: Error) {
        let mut failures = self.failures.lock();
        failures.first.get_or_insert(error);
        if !request.write {
            failures.pages.push(request.page);
        }
    }
}

/// Requests that are under way in the engine.
struct Batch {
    ticket: Ticket,
    requests: Vec<Request>,
}

struct Thread {
    shared: Arc<Shared>,
    index: usize,
    server: Server,
    batches: Vec<Batch>,
    taken: Vec<Request>,
    /// Requests that were served here took no longer than `QUICK`.
    is_quick: bool,
    handed_over: u32,
    finished: bool,
}

impl Thread {
    fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            server: Server::new(shared.layout.ring_shift),
            shared,
            index,
            batches: Vec::new(),
            taken: Vec::with_capacity(BATCH_MAX),
            is_quick: true,
            handed_over: 0,
            finished: false,
        }
    }

    fn run(mut self) {
        while self.shared.wait_for_session() {
            let mut idle = 0;
            while self.shared.is_active() || !self.batches.is_empty() {
                let progress = self.finish_batches() | self.take_requests();
                idle = if progress { 0 } else { idle + 1 };
                match idle {
                    0 => {}
                    1..LOOKS => std::hint::spin_loop(),
                    LOOKS..YIELDS => std::thread::yield_now(),
                    _ => std::thread::sleep(PAUSE),
                }
            }
        }
        self.finished = true;
    }

    fn take_requests(&mut self) -> bool {
        if self.batches.len() >= BATCHES_MAX {
            return false;
        }
        while self.taken.len() < BATCH_MAX {
            let Some(request) = self.server.take(&self.shared.requests[self.index]) else {
                break;
            };
            self.taken.push(request);
        }
        let requests = std::mem::take(&mut self.taken);
        if requests.is_empty() {
            self.taken = requests;
            return false;
        }
        self.handed_over = self.handed_over.wrapping_add(1);
        let here = self.is_quick || self.handed_over.is_multiple_of(TRY_EVERY);
        if requests.len() > HERE_MAX && !here {
            self.submit(requests);
        } else {
            self.serve_here(&requests);
        }
        true
    }

    fn serve_here(&mut self, requests: &[Request]) {
        let start = Instant::now();
        for request in requests {
            let result = self.serve(*request);
            self.answer(*request, result);
        }
        self.is_quick = start.elapsed() <= QUICK * requests.len() as u32;
    }

    fn serve(&self, request: Request) -> Result<Completion> {
        let t = self.transfer(request);
        match t.operation {
            Operation::Read => t
                .file
                .read(t.file_offset, &t.buffer, t.buffer_offset, t.size),
            Operation::Write => t
                .file
                .write(t.file_offset, &t.buffer, t.buffer_offset, t.size),
        }
    }

    fn submit(&mut self, requests: Vec<Request>) {
        let transfers = requests.iter().map(|r| self.transfer(*r)).collect();
        let submitted = self
            .shared
            .file
            .context()
            .submit(transfers, &Options::default());
        match submitted {
            Ok(ticket) => self.batches.push(Batch { ticket, requests }),
            Err(error) => {
                for request in requests {
                    self.answer(request, Err(error.clone()));
                }
            }
        }
    }

    fn finish_batches(&mut self) -> bool {
        let mut progress = false;
        while let Some(at) = self.batches.iter().position(|b| b.ticket.is_done()) {
            let batch = self.batches.swap_remove(at);
            for (index, request) in batch.requests.into_iter().enumerate() {
                let lost = || Err(Error::new(ErrorKind::Internal, "a transfer has no result"));
                let result = batch.ticket.result(index).unwrap_or_else(lost);
                self.answer(request, result);
            }
            progress = true;
        }
        progress
    }

    fn slot_offset(&self, slot: u64) -> u64 {
        let layout = &self.shared.layout;
        let slot = ((self.index as u64) << layout.ring_shift) + slot;
        layout.staging_offset() + (slot << layout.page_shift)
    }

    fn transfer(&self, request: Request) -> Transfer {
        let layout = &self.shared.layout;
        Transfer {
            operation: match request.write {
                true => Operation::Write,
                false => Operation::Read,
            },
            file: self.shared.file.clone(),
            file_offset: request.page << layout.page_shift,
            buffer: self.shared.pinned.clone(),
            buffer_offset: self.slot_offset(request.slot),
            size: layout.bytes_of(request.page),
        }
    }

    fn answer(&mut self, request: Request, result: Result<Completion>) {
        let layout = self.shared.layout;
        let wanted = layout.bytes_of(request.page);
        let status = match result {
            Ok(done) if done.bytes == wanted => {
                let rest = layout.page_bytes() - wanted;
                if rest > 0 && !request.write {
                    zero(
                        &self.shared.pinned,
                        self.slot_offset(request.slot) + wanted,
                        rest,
                    );
                }
                0
            }
            Ok(done) => {
                self.shared
                    .record(request, self.shortened(request, done.bytes));
                STATUS_FILE_CHANGED
            }
            Err(error) => {
                self.shared.record(request, error);
                STATUS_IO
            }
        };
        let completions = &self.shared.completions[self.index];
        self.server.complete(completions, request.slot, status);
    }

    fn shortened(&self, request: Request, bytes: u64) -> Error {
        let offset = (request.page << self.shared.layout.page_shift) + bytes;
        let path = self.shared.file.path();
        let text = format!(
            "{} ended at {offset} while kernels used it as an array of {} bytes; open the array \
             again",
            path.display(),
            self.shared.layout.size_bytes
        );
        Error::new(ErrorKind::FileChanged, text)
            .with_path(path)
            .with_offset(offset)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // However this thread ends while kernels may ask: they must not wait for it.
        if !self.finished {
            self.shared.dead.store(true, Relaxed);
            self.shared.host.store(0, u64::from(STATUS_POISONED));
        }
    }
}
