//! A double that tears, shortens, delays and fails what passes through it, from a seed.
//!
//! It wraps a real way of doing I/O, so that what is not hit is real. It counts what it did, so
//! that a test can tell that its fault struck. Guarded by `tests/io_faults.rs`.

mod journal;
mod plan;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

use self::journal::Journal;
use self::plan::{Dice, Verdict};
use super::{Completion, Io, Operation, Queue, Request};

pub use plan::{FaultCounts, FaultPlan};

/// What a cut read leaves behind the bytes that it answers.
const POISON: u8 = 0xa5;

/// Wraps a way of doing I/O and breaks it as its plan says. Threads share it freely.
#[derive(Debug)]
pub struct Fault {
    inner: Arc<dyn Io>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    dice: Dice,
    journal: Journal,
}

/// One operation that runs.
#[derive(Debug, Clone, Copy)]
struct Running {
    size: usize,
    report: usize,
    /// Its entry in the journal.
    write: Option<u64>,
}

impl State {
    /// What becomes of an operation, and the journal's entry of a write that runs.
    fn begin(
        &mut self,
        operation: Operation,
        fd: RawFd,
        offset: u64,
        size: usize,
    ) -> std::result::Result<Running, i32> {
        let (size, report) = match self.dice.judge(operation, fd, offset, size) {
            Verdict::Fail(errno) => return Err(errno),
            Verdict::Run { size, report } => (size, report),
        };
        let plan = &self.dice.plan;
        let remember = operation == Operation::Write && (plan.undo || plan.lost_sync) && size > 0;
        let write = match remember {
            true => Some(self.journal.before_write(fd, offset, size)?),
            false => None,
        };
        Ok(Running {
            size,
            report,
            write,
        })
    }

    /// What an operation that ran answers.
    ///
    /// # Safety
    /// A read's `pointer` is valid for the `result` bytes that it got.
    unsafe fn end(&mut self, running: Running, pointer: Option<*mut u8>, result: i64) -> i64 {
        if let Some(id) = running.write {
            self.journal.after_write(id);
        }
        let Ok(got) = usize::try_from(result) else {
            return result;
        };
        if let Some(pointer) = pointer.filter(|_| got > running.report) {
            // SAFETY: the kernel has just written `got` bytes there.
            unsafe {
                pointer
                    .add(running.report)
                    .write_bytes(POISON, got - running.report)
            };
        }
        got.min(running.report) as i64
    }
}

impl Fault {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Io>, plan: FaultPlan) -> Self {
        let state = State {
            dice: Dice::new(plan),
            journal: Journal::default(),
        };
        Self {
            inner,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Changes the plan from the next operation on. Counts, and what a crash would lose, stay.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state.lock().dice.plan = plan;
    }

    /// How often each fault has struck.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.state.lock().dice.counts
    }

    /// Writes that a crash would lose: those since the last sync that was really done. Always 0
    /// without `undo` or `lost_sync` in the plan.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.state.lock().journal.len()
    }

    /// Does to the files what a power failure may do at worst: every write that is not durable
    /// is undone, newest first, and sizes are what they were. Answers how many were undone.
    ///
    /// No operation may be in flight. Of writes that overlapped while both were in flight, or of
    /// which one was in flight during a sync, the outcome is one that no disk need give. Sizes
    /// that were changed past this object (`set_size`) go back to what they were at the last sync
    /// too, if the file was written since.
    ///
    /// # Errors
    /// `Io` when the old bytes cannot be written back.
    pub fn crash(&self) -> Result<usize> {
        let mut state = self.state.lock();
        state.dice.restart();
        state.journal.crash().map_err(|e| {
            let message = format!("undo the writes since the last sync: {e}");
            Error::new(ErrorKind::Io, message).with_errno(e.raw_os_error().unwrap_or(0))
        })
    }

    fn delay(&self) {
        pause(self.state.lock().dice.plan.delay);
    }
}

fn pause(delay: Option<Duration>) {
    if let Some(delay) = delay {
        std::thread::sleep(delay);
    }
}

impl Io for Fault {
    fn name(&self) -> &'static str {
        "fault"
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn Queue>> {
        Ok(Box::new(FaultQueue {
            inner: self.inner.queue(depth)?,
            state: Arc::clone(&self.state),
            running: HashMap::new(),
            next: 0,
            refused: Vec::new(),
            finished: Vec::new(),
        }))
    }

    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        self.delay();
        let begun = self.state.lock().begin(Operation::Read, fd, offset, size);
        let running = match begun {
            Ok(running) => running,
            Err(errno) => return -i64::from(errno),
        };
        // SAFETY: the same promise, for no more bytes.
        let result = unsafe { self.inner.read_at(fd, pointer, running.size, offset) };
        // SAFETY: the read got `result` bytes there.
        unsafe { self.state.lock().end(running, Some(pointer), result) }
    }

    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        self.delay();
        let begun = self.state.lock().begin(Operation::Write, fd, offset, size);
        let running = match begun {
            Ok(running) => running,
            Err(errno) => return -i64::from(errno),
        };
        // SAFETY: the same promise, for no more bytes.
        let result = unsafe { self.inner.write_at(fd, pointer, running.size, offset) };
        // SAFETY: a write has no bytes to spoil.
        unsafe { self.state.lock().end(running, None, result) }
    }

    fn sync(&self, fd: RawFd) -> i64 {
        self.delay();
        let mut state = self.state.lock();
        let (errno, real) = state.dice.judge_sync();
        if errno != 0 || !real {
            return -i64::from(errno);
        }
        let syncing = state.journal.before_sync(fd);
        drop(state);
        let result = self.inner.sync(fd);
        if let Some(syncing) = syncing.filter(|_| result == 0) {
            self.state.lock().journal.after_sync(&syncing);
        }
        result
    }
}

/// A queue whose operations meet the plan when they are pushed.
struct FaultQueue {
    inner: Box<dyn Queue>,
    state: Arc<Mutex<State>>,
    /// By the token that the inner queue knows: callers may use a token twice.
    running: HashMap<u64, (Running, Request)>,
    next: u64,
    /// Failed without running.
    refused: Vec<Completion>,
    /// The inner queue's completions, here only to keep the allocation.
    finished: Vec<Completion>,
}

impl fmt::Debug for FaultQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultQueue")
            .field("inner", &self.inner)
            .field("refused", &self.refused.len())
            .finish()
    }
}

impl Queue for FaultQueue {
    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.refused.len()
    }

    unsafe fn register_memory(&mut self, pointer: *mut u8, size: usize) -> bool {
        // SAFETY: the same promise.
        unsafe { self.inner.register_memory(pointer, size) }
    }

    unsafe fn push(&mut self, request: Request) -> bool {
        if self.in_flight() >= self.depth() {
            return false;
        }
        let Request {
            operation,
            fd,
            offset,
            token,
            ..
        } = request;
        let begun = self
            .state
            .lock()
            .begin(operation, fd, offset, request.size as usize);
        match begun {
            Err(errno) => self.refused.push(Completion {
                token,
                result: -errno,
            }),
            Ok(running) => {
                self.next += 1;
                let size = u32::try_from(running.size).unwrap_or(request.size);
                let inner = Request {
                    size,
                    token: self.next,
                    ..request
                };
                // SAFETY: the same promise, for no more bytes.
                if !unsafe { self.inner.push(inner) } {
                    return false;
                }
                self.running.insert(self.next, (running, request));
            }
        }
        true
    }

    fn submit(&mut self) -> Result<()> {
        self.inner.submit()
    }

    fn wait(&mut self, minimum: usize, done: &mut Vec<Completion>) -> Result<()> {
        let delay = self
            .state
            .lock()
            .dice
            .plan
            .delay
            .filter(|_| self.in_flight() > 0);
        pause(delay);
        let missing = minimum
            .min(self.in_flight())
            .saturating_sub(self.refused.len());
        let outcome = self.inner.wait(missing, &mut self.finished);
        done.append(&mut self.refused);
        let mut state = self.state.lock();
        for completion in self.finished.drain(..) {
            let Some((running, request)) = self.running.remove(&completion.token) else {
                continue;
            };
            let pointer = (request.operation == Operation::Read).then_some(request.pointer);
            // SAFETY: the read got that many bytes there, and the caller leaves the memory
            // alone until it reaps this completion.
            let result = unsafe { state.end(running, pointer, completion.result.into()) };
            let result = i32::try_from(result).unwrap_or(i32::MAX);
            done.push(Completion {
                token: request.token,
                result,
            });
        }
        outcome
    }
}
