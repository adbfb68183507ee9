//! The log as committers see it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Instant;

use super::pending::{Fit, Pending, Undo, record_size};
use super::thread::{Core, State};
use super::ticket::Call;
use super::{Lsn, WalConfig, WalStart, WalStats};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::Disk;
use crate::kv::sync::{Mutex, MutexGuard, thread};
use crate::metrics::Latency;

/// The log. Any thread may use it. Dropping it writes what is pending and ends its thread.
pub struct Wal {
    core: Arc<Core>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// A boundary between batches: everything appended before it is before it, whole commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The last record before it; 0 when there is none.
    pub lsn: Lsn,
}

/// A commit in the making. Holds the commit lock until it is finished; dropped, nothing of it was
/// appended.
pub struct Append<'a> {
    core: &'a Core,
    /// `None` only when it is over.
    state: Option<MutexGuard<'a, State>>,
    undo: Undo,
    /// Bytes that may still be pushed.
    left: usize,
    records: u64,
    has_data: bool,
}

impl Wal {
    /// Starts the log where recovery ended; the ring before `start.position` is free. For a ring
    /// with batches that are not checkpointed use [`Wal::start_from`].
    ///
    /// # Errors
    /// As [`Wal::start_from`].
    pub fn start(disk: Arc<dyn Disk>, config: WalConfig, start: WalStart) -> Result<Arc<Self>> {
        Self::start_from(disk, config, start, start.position)
    }

    /// Starts the log at `start`; the ring from position `tail` on is kept until it is released.
    ///
    /// # Errors
    /// `InvalidConfig`; `Corrupted` for a start that cannot be; `Io` when no thread can be made.
    pub fn start_from(
        disk: Arc<dyn Disk>,
        config: WalConfig,
        start: WalStart,
        tail: u64,
    ) -> Result<Arc<Self>> {
        let core = Arc::new(Core::new(disk, config, start, tail)?);
        let shared = Arc::clone(&core);
        let thread = thread::Builder::new()
            .name("gds-kv-log".to_owned())
            .spawn(move || shared.run())
            .map_err(|e| Error::os(e.raw_os_error().unwrap_or(libc::EAGAIN), "start the log"))?;
        Ok(Arc::new(Self {
            core,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Takes the commit lock, for records of `bytes` in all (the sum of [`super::record_bytes`]).
    /// Sleeps while there is no room for them, `stall` at most; none, which need no room, never
    /// wait for it. Do not wait for a record or a callback while holding the result.
    ///
    /// # Errors
    /// `OutOfRange` for more than [`Wal::commit_bytes_max`]; `TimedOut` when no room came;
    /// `Poisoned`.
    pub fn begin(&self, bytes: usize) -> Result<Append<'_>> {
        let core = &*self.core;
        if bytes > core.commit_max {
            let message = format!(
                "commit records of {bytes} bytes: the log takes {} at once; split the commit, or \
                 make the store with larger wal_bytes",
                core.commit_max
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        let mut state = core.state.lock();
        let mut deadline = None;
        loop {
            if state.failed {
                drop(state);
                return Err(core.failure());
            }
            let fit = state.pending.fits(bytes);
            if fit == Fit::Yes {
                break;
            }
            let until = match deadline {
                Some(until) => until,
                None => {
                    state.stats.stalls += 1;
                    Instant::now() + core.config.stall
                }
            };
            if deadline.is_none() && fit == Fit::Ring {
                MutexGuard::unlocked(&mut state, || core.press());
                deadline = Some(until);
                continue;
            }
            deadline = Some(until);
            if core.room.wait_until(&mut state, until).timed_out()
                && state.pending.fits(bytes) != Fit::Yes
            {
                return Err(stalled(core, &state, bytes, fit));
            }
        }
        let undo = state.pending.begin(bytes);
        Ok(Append {
            core,
            state: Some(state),
            undo,
            left: bytes,
            records: 0,
            has_data: false,
        })
    }

    /// Largest `bytes` that [`Wal::begin`] takes.
    #[must_use]
    pub fn commit_bytes_max(&self) -> usize {
        self.core.commit_max
    }

    /// Largest payload of one record, bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.core.record_max - record_size(0)
    }

    /// The last record that is durable; 0 before the first.
    #[inline]
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.core.ticket.durable()
    }

    /// The last record that was appended; 0 before the first.
    #[inline]
    #[must_use]
    pub fn appended_lsn(&self) -> Lsn {
        self.core.appended.load(Acquire)
    }

    /// Sleeps until `lsn` is durable, or the deadline.
    ///
    /// # Errors
    /// `OutOfRange` for a record that was not appended; `TimedOut`; `Poisoned` when the log failed
    /// before it was durable.
    pub fn wait(&self, lsn: Lsn, deadline: Option<Instant>) -> Result<()> {
        let appended = self.appended_lsn();
        if lsn > appended {
            let message = format!(
                "wait for record {lsn} of the log: the last that was appended is {appended}"
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        self.core.ticket.wait(lsn, deadline)
    }

    /// Calls back, once, when `lsn` is durable, with the last durable record; or with the error
    /// after which it never will be. Runs on the log thread, without a lock, and must be short;
    /// where the outcome is known already, on this thread before this returns. Records come in
    /// order. When the log is dropped, calls for records that were never appended get
    /// `Cancelled`.
    pub fn on_durable(&self, lsn: Lsn, call: Call) {
        self.core.ticket.call(lsn, call);
    }

    /// A boundary after everything that was appended so far.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn seal_mark(&self) -> Result<Mark> {
        let mut state = self.core.state.lock();
        if state.failed {
            drop(state);
            return Err(self.core.failure());
        }
        Ok(state.mark())
    }

    /// Sleeps until everything before the mark is durable; where recovery may start after it.
    ///
    /// # Errors
    /// As [`Wal::wait`]; `InvalidArgument` for a mark of another log, or one before what was
    /// released.
    pub fn start_after(&self, mark: &Mark, deadline: Option<Instant>) -> Result<WalStart> {
        self.wait(mark.lsn, deadline)?;
        let state = self.core.state.lock();
        state
            .marks
            .get(&mark.lsn)
            .copied()
            .flatten()
            .ok_or_else(|| {
                let message = format!("start after record {}: there is no such mark", mark.lsn);
                Error::new(ErrorKind::InvalidArgument, message)
            })
    }

    /// The ring before `start` may be written over: a durable superblock says that recovery
    /// starts there, or later.
    pub fn release(&self, start: &WalStart) {
        let mut state = self.core.state.lock();
        state.pending.tail = state.pending.tail.max(start.position);
        let kept = state.marks.split_off(&start.next_lsn);
        state.marks = kept;
        drop(state);
        self.core.room.notify_all();
    }

    /// Bytes of the ring in use, those of pending records included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.core.state.lock().pending.used()
    }

    /// Whether a failure ended it.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.core.state.lock().failed
    }

    /// Ends it as a failed write would: nothing more becomes durable, and all who wait, now and
    /// later, get `Poisoned` with this reason.
    pub fn poison(&self, error: &Error) {
        self.core.fail(error);
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        let state = self.core.state.lock();
        WalStats {
            used_bytes: state.pending.used(),
            ring_bytes: self.core.config.size,
            pending_bytes: state.pending.bytes as u64,
            ..state.stats
        }
    }

    /// How long durable writes took, with the flushes before them.
    #[must_use]
    pub fn sync_latency(&self) -> Latency {
        self.core.sync.summary()
    }

    /// Sets what is called, from any thread and without a lock, when more than half of the ring
    /// is used after a batch, and when a committer waits for the ring. It must be short, and not
    /// wait for the log.
    pub fn on_pressure(&self, call: Box<dyn Fn() + Send + Sync>) {
        *self.core.pressure.write() = Some(Arc::from(call));
    }
}

fn stalled(core: &Core, state: &State, bytes: usize, fit: Fit) -> Error {
    let message = match fit {
        Fit::Ring => format!(
            "commit {bytes} bytes: {} of the log's {} bytes are in use and no checkpoint freed \
             any in {:?}; make the store with larger wal_bytes, or look at what holds the \
             checkpoint up",
            state.pending.used(),
            core.config.size,
            core.config.stall
        ),
        _ => format!(
            "commit {bytes} bytes: {} bytes wait for the disk and it took none in {:?}; it is \
             slow or stuck, look at the kernel's log",
            state.pending.bytes, core.config.stall
        ),
    };
    Error::new(ErrorKind::TimedOut, message)
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.core.stop();
        let thread = self.thread.lock().take();
        // A callback may hold the last reference: the log thread then ends by itself.
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("durable_lsn", &self.durable_lsn())
            .field("appended_lsn", &self.appended_lsn())
            .field("config", &self.core.config)
            .finish_non_exhaustive()
    }
}

impl Append<'_> {
    /// Adds a record whose payload is these parts joined; its number.
    ///
    /// # Errors
    /// `OutOfRange` past what [`Wal::begin`] was told, or past [`Wal::payload_bytes_max`];
    /// `OutOfHostMemory`. Nothing was added then.
    pub fn push(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Lsn> {
        let size = record_size(parts.iter().map(|p| p.len()).sum());
        if size > self.left || size > self.core.record_max {
            let message = format!(
                "append a record of {size} bytes: {} are left of this commit, and a record has {} \
                 at most",
                self.left, self.core.record_max
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        let Some(state) = &mut self.state else {
            return Err(Error::new(
                ErrorKind::Internal,
                "append to a commit that is over",
            ));
        };
        let lsn = state.pending.push(kind, parts, size)?;
        self.left -= size;
        self.records += 1;
        Ok(lsn)
    }

    /// The number that the next record gets.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.state.as_ref().map_or(0, |s| s.pending.next_lsn)
    }

    /// Records of this commit name data that was written to the disk and not flushed: the log
    /// thread flushes before it writes them.
    pub fn set_has_data(&mut self) {
        self.has_data = true;
    }

    /// A boundary before this commit, to be asked for before the first [`Append::push`]. The
    /// commit may then be dropped.
    ///
    /// # Errors
    /// `InvalidArgument` after a push.
    pub fn mark(&mut self) -> Result<Mark> {
        match &mut self.state {
            Some(state) if self.records == 0 => {
                let mark = state.mark();
                self.undo = state.pending.undo();
                Ok(mark)
            }
            _ => {
                let message = "mark a boundary inside a commit: mark before its first record";
                Err(Error::new(ErrorKind::InvalidArgument, message))
            }
        }
    }

    /// Ends the commit: the number of its last record, which is what to wait for. Without
    /// records: the last one that was appended before.
    pub fn finish(mut self) -> Lsn {
        let Some(mut state) = self.state.take() else {
            return 0;
        };
        let last = state.pending.next_lsn - 1;
        if self.records == 0 {
            return last;
        }
        state.pending.finish(&self.undo, self.has_data);
        state.stats.commits += 1;
        state.stats.records += self.records;
        state.stats.record_bytes += (state.pending.bytes - self.undo.bytes()) as u64;
        self.core.appended.store(last, Release);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.core.work.notify_one();
        }
        last
    }
}

impl Drop for Append<'_> {
    fn drop(&mut self) {
        if let Some(state) = &mut self.state {
            state.pending.roll_back(&self.undo);
        }
    }
}

impl fmt::Debug for Append<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("records", &self.records)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Largest record that a log with this configuration takes.
pub(super) fn record_max(config: &WalConfig, commit_max: usize) -> usize {
    (config.max_batch_bytes - super::format::HEADER).min(commit_max)
}

/// Largest commit that a log with this configuration takes.
pub(super) fn commit_max(config: &WalConfig) -> usize {
    Pending::commit_max(config.size, config.max_batch_bytes, config.pending_bytes)
}
