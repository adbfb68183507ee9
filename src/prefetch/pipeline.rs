//! The pipeline: single requests in, a bounded number under way, each answered once.
//!
//! Up to two batches are with the engine at a time. Requests that come meanwhile wait in a queue a
//! file; the next batch takes one turn of each file, round and round, so that no file waits for
//! all the work of another. A turn joins requests that continue each other in the file, and those
//! that continue each other in memory too become one transfer. When such a transfer fails its
//! requests are tried one by one, so that each has its own result.
//!
//! One thread, "gds-pipeline", takes what is over and calls back. It sleeps until a transfer ends.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Wake, Waker};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::requests::{Done, Group, Queues, Request, Taken};
use crate::base::limits;
use crate::engine::{Completion, Context, Options, Ticket};
use crate::error::{Error, ErrorKind, Result};

/// Batches with the engine at a time: one ends while the other goes on.
const BATCHES: usize = 2;
/// Bytes after which a batch takes no further turn.
const BATCH_BYTES: u64 = 64 << 20;

/// How a pipeline works.
#[derive(Debug, Clone, Default)]
pub struct PipelineConfig {
    /// Requests that may be under way at once, at most 4096; 0 is the context's
    /// `max_outstanding_io`.
    pub max_outstanding: u32,
    /// Bytes of requests that are joined at most; 0 is the context's `buffer_size`, 1 joins none.
    /// Requests with a checksum of their own are never joined.
    pub coalesce_bytes: u64,
    /// How each transfer is carried out; the stream must be left out. A deadline counts from when
    /// a request is handed to the engine.
    pub options: Options,
}

/// What a pipeline has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PipelineInfo {
    /// Requests taken.
    pub submitted: u64,
    /// Requests that are over, well or not, callbacks included.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests under way.
    pub outstanding: u64,
    /// Batches handed to the engine.
    pub batches: u64,
    /// Transfers in them.
    pub transfers: u64,
    /// Requests that shared their transfer with others.
    pub coalesced: u64,
    /// Callbacks that panicked.
    pub callback_panics: u64,
}

/// Moves requests between files and memory, a bounded number at a time. Usable from many threads
/// at once. Requests have no order among themselves: wait for one before submitting what depends
/// on it. Dropping the pipeline stops what has not started, which ends as `Cancelled`, and waits
/// for what has; every callback is called.
pub struct Pipeline {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    context: Context,
    max_outstanding: u64,
    coalesce_bytes: u64,
    options: Options,
    state: Mutex<State>,
    /// A request is over.
    finished: Condvar,
    signal: Arc<Signal>,
    waker: Waker,
}

/// Wakes the pipeline's thread. Holds nothing else, since transfer threads hold it.
#[derive(Default)]
struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queues: Queues,
    batches: Vec<Batch>,
    /// Requests that could not be handed over.
    refused: Vec<(Taken, Error)>,
    results: VecDeque<Done>,
    /// Requests that count against the bound.
    outstanding: u64,
    /// Requests that nobody has been told of.
    unfinished: u64,
    /// Those of them that `wait_one` will tell.
    untold: u64,
    thread: Option<ThreadId>,
    closing: bool,
    info: PipelineInfo,
}

struct Batch {
    ticket: Ticket,
    groups: Vec<Group>,
}

impl Pipeline {
    /// Starts a pipeline.
    ///
    /// # Errors
    /// `InvalidConfig`, `OutOfHostMemory` when its thread cannot start.
    pub fn open(context: &Context, config: &PipelineConfig) -> Result<Self> {
        let broken = |text| Err(Error::new(ErrorKind::InvalidConfig, text));
        if config.max_outstanding > limits::OUTSTANDING_IO_MAX {
            return broken(format!(
                "max_outstanding is {}; it must be at most {}",
                config.max_outstanding,
                limits::OUTSTANDING_IO_MAX
            ));
        }
        if config.options.stream.is_some() {
            return broken("options of a pipeline have no stream; use a ticket there".to_owned());
        }
        let defaults = context.config();
        let most = match config.max_outstanding {
            0 => defaults.max_outstanding_io,
            most => most,
        };
        let checked = config.options.checksum.unwrap_or(defaults.checksum);
        let coalesce_bytes = match config.coalesce_bytes {
            _ if checked => 0,
            0 => defaults.buffer_size,
            bytes => bytes,
        };
        let signal = Arc::new(Signal::default());
        let shared = Arc::new(Shared {
            context: context.clone(),
            max_outstanding: u64::from(most),
            coalesce_bytes,
            options: config.options.clone(),
            state: Mutex::default(),
            finished: Condvar::new(),
            waker: Waker::from(signal.clone()),
            signal,
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("gds-pipeline".to_owned())
            .spawn(move || of_thread.run())
            .map_err(|e| {
                let text = format!("start the thread of a pipeline: {e}; close some threads");
                Error::new(ErrorKind::OutOfHostMemory, text)
            })?;
        shared.state.lock().thread = Some(thread.thread().id());
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Takes a request, and answers its id. While the pipeline is full it waits until a request
    /// is over, at most `timeout`; in a callback it does not wait.
    ///
    /// # Errors
    /// `Pending` when the pipeline stayed full or too many results wait to be taken,
    /// `OutOfRange`. The request was not taken then, and its callback is not called.
    pub fn submit(&self, request: Request, timeout: Option<Duration>) -> Result<u64> {
        request.check()?;
        let shared = &self.shared;
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = shared.state.lock();
        let may_wait = !state.is_own_thread();
        while state.outstanding >= shared.max_outstanding {
            if !may_wait || !shared.wait(&mut state, until) {
                let text = format!(
                    "{} requests are under way, no more are taken; wait for one",
                    state.outstanding
                );
                return Err(Error::new(ErrorKind::Pending, text));
            }
        }
        if request.callback.is_none() && state.results.len() >= limits::PIPELINE_RESULTS_MAX {
            let text = format!(
                "{} results wait to be taken; take them by wait_one or drain",
                state.results.len()
            );
            return Err(Error::new(ErrorKind::Pending, text));
        }
        state.info.submitted += 1;
        let id = state.info.submitted;
        state.outstanding += 1;
        state.unfinished += 1;
        state.untold += u64::from(request.callback.is_none());
        state.queues.push(Taken {
            id,
            request,
            alone: false,
        });
        shared.hand_over(&mut state);
        Ok(id)
    }

    /// As `submit`, and never waits.
    ///
    /// # Errors
    /// As `submit`.
    pub fn try_submit(&self, request: Request) -> Result<u64> {
        self.submit(request, Some(Duration::ZERO))
    }

    /// The result of a request without a callback, in the order in which they end. None when no
    /// such request is left. Waits at most `timeout`; in a callback it does not wait.
    ///
    /// # Errors
    /// `Pending` when `timeout` passed. How the request went is in the answer.
    pub fn wait_one(&self, timeout: Option<Duration>) -> Result<Option<Done>> {
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.shared.state.lock();
        let may_wait = !state.is_own_thread();
        loop {
            if let Some(done) = state.results.pop_front() {
                return Ok(Some(done));
            }
            if state.untold == 0 {
                return Ok(None);
            }
            if !may_wait || !self.shared.wait(&mut state, until) {
                let text = "no request is over yet; wait again";
                return Err(Error::new(ErrorKind::Pending, text));
            }
        }
    }

    /// Waits as `wait_all`, and gives the results that nobody has taken.
    ///
    /// # Errors
    /// As `wait_all`.
    pub fn drain(&self) -> Result<Vec<Done>> {
        self.wait_all()?;
        Ok(std::mem::take(&mut self.shared.state.lock().results).into())
    }

    /// Waits until every request is over and every callback has returned. Requests that other
    /// threads submit meanwhile are waited for too.
    ///
    /// # Errors
    /// `Pending` in a callback, which cannot wait for itself.
    pub fn wait_all(&self) -> Result<()> {
        let mut state = self.shared.state.lock();
        if state.is_own_thread() {
            let text = "a callback cannot wait for the pipeline that calls it";
            return Err(Error::new(ErrorKind::Pending, text));
        }
        while state.unfinished > 0 {
            self.shared.wait(&mut state, None);
        }
        Ok(())
    }

    /// What it has done so far.
    #[must_use]
    pub fn info(&self) -> PipelineInfo {
        let state = self.shared.state.lock();
        PipelineInfo {
            outstanding: state.outstanding,
            ..state.info
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let (tickets, own) = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            let tickets = state.batches.iter().map(|b| b.ticket.clone());
            (tickets.collect::<Vec<_>>(), state.is_own_thread())
        };
        for ticket in &tickets {
            ticket.cancel();
        }
        drop(tickets);
        self.shared.signal.raise();
        // A callback that drops its pipeline runs on the thread that ends after it.
        if let Some(thread) = self.thread.take().filter(|_| !own) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({:?})", self.info())
    }
}

impl Signal {
    fn raise(&self) {
        *self.raised.lock() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut raised = self.raised.lock();
        while !*raised {
            self.changed.wait(&mut raised);
        }
        *raised = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise();
    }
}

impl State {
    fn is_own_thread(&self) -> bool {
        self.thread == Some(std::thread::current().id())
    }
}

impl Shared {
    /// Waits until a request is over; false when that took too long.
    fn wait(&self, state: &mut MutexGuard<'_, State>, until: Option<Instant>) -> bool {
        match until {
            None => {
                self.finished.wait(state);
                true
            }
            Some(at) => !self.finished.wait_until(state, at).timed_out(),
        }
    }

    /// Hands batches to the engine while it has room for them.
    fn hand_over(&self, state: &mut State) {
        while state.batches.len() < BATCHES && !state.queues.is_empty() && !state.closing {
            let most = self.max_outstanding.div_ceil(BATCHES as u64) as usize;
            let (mut count, mut bytes) = (0, 0);
            let mut groups = Vec::new();
            while count < most && bytes < BATCH_BYTES && !state.queues.is_empty() {
                for group in state.queues.turn(self.coalesce_bytes) {
                    count += group.0.len();
                    bytes += group.size();
                    groups.push(group);
                }
            }
            self.submit(state, groups);
        }
    }

    /// Submits a batch. One that is refused is submitted request by request, so that each gets
    /// its own answer.
    fn submit(&self, state: &mut State, groups: Vec<Group>) {
        match self.start(&groups) {
            Ok(ticket) => self.note_batch(state, ticket, groups),
            Err(_) if groups.len() > 1 || groups.iter().any(|g| g.0.len() > 1) => {
                for taken in groups.into_iter().flat_map(|g| g.0) {
                    self.submit(state, vec![Group(vec![taken])]);
                }
            }
            Err(error) => {
                let all = groups.into_iter().flat_map(|g| g.0);
                state
                    .refused
                    .extend(all.map(|taken| (taken, error.clone())));
                self.signal.raise();
            }
        }
    }

    fn start(&self, groups: &[Group]) -> Result<Ticket> {
        let transfers = groups.iter().filter_map(Group::transfer).collect();
        self.context.submit(transfers, &self.options)
    }

    fn note_batch(&self, state: &mut State, mut ticket: Ticket, groups: Vec<Group>) {
        state.info.batches += 1;
        state.info.transfers += groups.len() as u64;
        for group in groups.iter().filter(|g| g.0.len() > 1) {
            state.info.coalesced += group.0.len() as u64;
        }
        // Asks to be woken at the end, which may have come already.
        let mut task = TaskContext::from_waker(&self.waker);
        if Future::poll(Pin::new(&mut ticket), &mut task).is_ready() {
            self.signal.raise();
        }
        state.batches.push(Batch { ticket, groups });
    }

    /// The pipeline's thread.
    fn run(&self) {
        loop {
            let mut state = self.state.lock();
            let mut over: Vec<Told> = Vec::new();
            let (done, going): (Vec<Batch>, Vec<Batch>) = std::mem::take(&mut state.batches)
                .into_iter()
                .partition(|batch| batch.ticket.is_done());
            state.batches = going;
            let refused = std::mem::take(&mut state.refused);
            over.extend(
                refused
                    .into_iter()
                    .map(|(taken, error)| (taken, Err(error))),
            );
            let closing = state.closing;
            if closing {
                let left = state.queues.take_all();
                over.extend(left.into_iter().map(|taken| (taken, Err(closed()))));
            }
            // The engine goes on while results are told.
            self.hand_over(&mut state);
            let idle = state.batches.is_empty();
            drop(state);
            for batch in done {
                over.extend(self.settle(batch, closing));
            }
            if over.is_empty() {
                if closing && idle {
                    return;
                }
                self.signal.wait();
                continue;
            }
            for (taken, result) in over {
                self.tell(taken, result);
            }
        }
    }

    /// The results of a batch that is over. Joined requests that failed are tried again one by
    /// one, and have no result yet.
    fn settle(&self, batch: Batch, closing: bool) -> Vec<Told> {
        let mut told = Vec::new();
        let mut again = Vec::new();
        for (index, group) in batch.groups.into_iter().enumerate() {
            match batch.ticket.result(index).unwrap_or_else(|| Err(lost())) {
                Ok(completion) => told.extend(share(completion, group)),
                Err(_) if group.0.len() > 1 && !closing => again.extend(group.0),
                Err(error) => {
                    let all = group.0.into_iter();
                    told.extend(all.map(|taken| (taken, Err(error.clone()))));
                }
            }
        }
        if !again.is_empty() {
            let mut state = self.state.lock();
            for taken in again {
                let alone = true;
                state.queues.push(Taken { alone, ..taken });
            }
            self.hand_over(&mut state);
            if state.closing {
                self.signal.raise();
            }
        }
        told
    }

    /// Ends a request. Its room in the pipeline is free before its callback runs, which may submit
    /// the next one.
    fn tell(&self, taken: Taken, result: Result<Completion>) {
        let Taken { id, request, .. } = taken;
        let Request { callback, .. } = request;
        {
            let mut state = self.state.lock();
            state.outstanding -= 1;
            state.info.failed += u64::from(result.is_err());
        }
        self.finished.notify_all();
        let mut panicked = false;
        let done = match callback {
            None => Some(Done { id, result }),
            Some(callback) => {
                let call = AssertUnwindSafe(|| callback(id, &result));
                if let Err(payload) = catch_unwind(call) {
                    panicked = true;
                    // A payload may panic when it is dropped.
                    std::mem::forget(payload);
                }
                None
            }
        };
        let mut state = self.state.lock();
        state.untold -= u64::from(done.is_some());
        state.results.extend(done);
        state.unfinished -= 1;
        state.info.completed += 1;
        state.info.callback_panics += u64::from(panicked);
        drop(state);
        self.finished.notify_all();
    }
}

/// A request with its result.
type Told = (Taken, Result<Completion>);

/// The results of a transfer that went well: the first requests got their bytes, the last what
/// was left.
fn share(completion: Completion, group: Group) -> impl Iterator<Item = Told> {
    let mut left = completion.bytes;
    group.0.into_iter().map(move |taken| {
        let bytes = left.min(taken.request.size);
        left -= bytes;
        (
            taken,
            Ok(Completion {
                bytes,
                ..completion
            }),
        )
    })
}

fn closed() -> Error {
    let text = "the pipeline was closed before this request had its turn";
    Error::new(ErrorKind::Cancelled, text)
}

fn lost() -> Error {
    let text = "a batch that is over left no result; please report this";
    Error::new(ErrorKind::Internal, text)
}
