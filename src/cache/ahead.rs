//! Pages read before anybody waits for them: in batches, ended by one thread of the cache.

use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Wake, Waker};

use parking_lot::{Condvar, Mutex};

use super::core::{Coming, Core};
use super::fill::{Fill, Outcome};
use super::key::Key;
use super::policy::Insert;
use super::shard::Terms;
use super::stats::count;
use super::word::PREFETCHED;
use crate::engine::{File, Operation, Options, Ticket, Transfer};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of one batch: enough to keep a disk busy, few enough to be there soon.
const BATCH_BYTES: u64 = 2 << 20;
/// Pages of one batch at most.
const BATCH_PAGES: usize = 64;
/// Pages that find no room before a call gives up on the rest.
const REFUSED_MAX: u32 = 8;

/// Batches under way, and the thread's bell.
#[derive(Default)]
pub(super) struct Arrivals {
    state: Mutex<State>,
    ring: Condvar,
}

#[derive(Default)]
struct State {
    new: Vec<Batch>,
    /// Batches that may be done, by number.
    done: VecDeque<u64>,
    stop: bool,
}

struct Batch {
    /// What the caller wants dropped when the batch is over.
    _token: Option<Token>,
    ticket: Ticket,
    pages: Vec<Coming>,
    flags: u64,
}

/// Something of a caller's that is kept while its pages are under way.
pub(super) type Token = Arc<dyn Any + Send + Sync>;

/// Rings when a batch is done. Called on transfer threads: holds nothing of the cache but the
/// bell.
struct Bell {
    arrivals: Arc<Arrivals>,
    number: u64,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.arrivals.state.lock().done.push_back(self.number);
        self.arrivals.ring.notify_one();
    }
}

impl Arrivals {
    fn add(&self, batch: Batch) {
        self.state.lock().new.push(batch);
        self.ring.notify_one();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.ring.notify_one();
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrivals({} new)", self.state.lock().new.len())
    }
}

/// The body of the thread. When the cache goes, what has not started is cancelled.
pub(super) fn run(core: &Arc<Core>) {
    let arrivals = &core.arrivals;
    let mut under_way: HashMap<u64, Batch> = HashMap::new();
    let mut next = 0;
    loop {
        let (new, done, stop) = {
            let mut state = arrivals.state.lock();
            while state.new.is_empty() && state.done.is_empty() && !state.stop {
                arrivals.ring.wait(&mut state);
            }
            let new = std::mem::take(&mut state.new);
            (new, std::mem::take(&mut state.done), state.stop)
        };
        for batch in new {
            under_way.insert(next, batch);
            look(core, &mut under_way, next);
            next += 1;
        }
        for number in done {
            look(core, &mut under_way, number);
        }
        if stop {
            for batch in under_way.values() {
                batch.ticket.cancel();
            }
            for (_, batch) in under_way.drain() {
                let _ = batch.ticket.wait(None);
                core.end_batch(batch);
            }
            return;
        }
    }
}

/// Ends a batch if it is done, or has it ring when it is.
fn look(core: &Core, under_way: &mut HashMap<u64, Batch>, number: u64) {
    let Some(batch) = under_way.get_mut(&number) else {
        return;
    };
    let waker = Waker::from(Arc::new(Bell {
        arrivals: core.arrivals.clone(),
        number,
    }));
    let mut task = TaskContext::from_waker(&waker);
    if Pin::new(&mut batch.ticket).poll(&mut task).is_ready()
        && let Some(batch) = under_way.remove(&number)
    {
        core.end_batch(batch);
    }
}

/// What one call reads ahead.
pub(super) struct Ahead<'a> {
    pub(super) core: &'a Core,
    pub(super) file: &'a File,
    /// Somebody waits for the pages and hears of errors.
    pub(super) watched: bool,
    /// Pages to start at most.
    pub(super) limit: u64,
    /// Frames of pages that the call has brought in: those stay.
    mine: HashSet<u32>,
    batch: Vec<Coming>,
    pub(super) started: u64,
    /// The pages' ways, where watched.
    pub(super) fills: VecDeque<Arc<Fill>>,
    refused: u32,
    /// Dropped, by whatever thread, when the last page is there or has failed.
    pub(super) token: Option<Token>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(core: &'a Core, file: &'a File, watched: bool, limit: u64) -> Self {
        Self {
            core,
            file,
            watched,
            limit,
            mine: HashSet::new(),
            batch: Vec::new(),
            started: 0,
            fills: VecDeque::new(),
            refused: 0,
            token: None,
        }
    }

    /// Whether there is no use in going on.
    pub(super) fn is_full(&self) -> bool {
        self.started >= self.limit || self.refused >= REFUSED_MAX
    }

    /// Starts the reads of those pages that are absent.
    ///
    /// # Errors
    /// What can be known before a byte moves; those reads are taken back.
    pub(super) fn start(&mut self, pages: Range<u64>) -> Result<()> {
        for page in pages {
            if self.is_full() {
                break;
            }
            let key = self.core.stretches.key(self.file, page)?;
            match self.take(key) {
                Ok(Some(coming)) => self.add(coming)?,
                Ok(None) => {}
                Err(_) => self.refused += 1,
            }
        }
        self.submit()
    }

    /// Gives an absent page a frame.
    fn take(&self, key: Key) -> Result<Option<Coming>> {
        let core = self.core;
        let number = core.shard_of(key);
        let mut guard = core.shard(number).lock();
        loop {
            let in_host = || core.host.as_ref().is_some_and(|host| host.contains(key));
            if core.table.find(key.name).is_some() || in_host() {
                return Ok(None);
            }
            let mut terms = Terms {
                keep: Some(&self.mine),
                ..Terms::default()
            };
            let (local, unlocked) = core.take_frame(number, &mut guard, &mut terms)?;
            if unlocked {
                guard.free.push(local);
                continue;
            }
            let Some(state) = core.files.enter(self.file, core.file_limit()) else {
                guard.free.push(local);
                return Err(Error::new(ErrorKind::AllPinned, "the file has its limit"));
            };
            let how = match self.watched {
                true => Insert::Demand,
                false => Insert::Prefetch,
            };
            return core.link(&mut guard, key, local, state, how).map(Some);
        }
    }

    fn add(&mut self, coming: Coming) -> Result<()> {
        let core = self.core;
        self.mine.insert(core.global(coming.shard, coming.local));
        self.started += 1;
        if self.watched {
            coming.fill.watch();
            self.fills.push_back(coming.fill.clone());
        }
        self.batch.push(coming);
        let bytes = self.batch.len() as u64 * core.page_size();
        if self.batch.len() >= BATCH_PAGES || bytes >= BATCH_BYTES {
            return self.submit();
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        let pages = std::mem::take(&mut self.batch);
        if pages.is_empty() {
            return Ok(());
        }
        let core = self.core;
        let transfers = pages.iter().map(|coming| Transfer {
            operation: Operation::Read,
            file: self.file.clone(),
            file_offset: coming.key.page << core.shift,
            buffer: core.memory.clone(),
            buffer_offset: core.place(core.global(coming.shard, coming.local)),
            size: core.page_size(),
        });
        match core
            .context
            .submit(transfers.collect(), &Options::default())
        {
            Ok(ticket) => {
                let flags = if self.watched { 0 } else { PREFETCHED };
                if !self.watched {
                    let count = pages.len() as u64;
                    core.counters.prefetched.fetch_add(count, Relaxed);
                }
                core.arrivals.add(Batch {
                    _token: self.token.clone(),
                    ticket,
                    pages,
                    flags,
                });
                Ok(())
            }
            Err(error) => {
                self.started -= pages.len() as u64;
                for coming in &pages {
                    let _ = core.settle(coming, Err(error.clone()), 0, 0);
                }
                Err(error)
            }
        }
    }

    /// Waits for watched pages until at most `left` are under way.
    ///
    /// # Errors
    /// What the first page says that could not be read.
    pub(super) fn wait(&mut self, left: usize) -> Result<()> {
        while self.fills.len() > left {
            if let Some(fill) = self.fills.pop_front()
                && let Outcome::Failed(error) = fill.wait()
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Ahead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ahead({} started)", self.started)
    }
}

impl Core {
    /// Publishes the pages of a batch that is done.
    fn end_batch(&self, batch: Batch) {
        let whole = batch.ticket.completion();
        for (index, coming) in batch.pages.iter().enumerate() {
            let done = match (batch.ticket.result(index), &whole) {
                (Some(result), _) => result.map(|done| done.bytes),
                (None, Some(Err(error))) => Err(error.clone()),
                (None, _) => {
                    let text = "a finished read left no result";
                    Err(Error::new(ErrorKind::Internal, text))
                }
            };
            let outcome = done.and_then(|bytes| {
                let valid = u32::try_from(bytes).unwrap_or(self.config.page_size);
                self.zero_tail(self.global(coming.shard, coming.local), valid)?;
                Ok(valid)
            });
            if let Err(error) = self.settle(coming, outcome, 0, batch.flags) {
                count(&self.counters.read_errors);
                if coming.fill.is_unheard() {
                    self.files.set_error(&coming.file, error);
                }
            }
        }
    }
}
