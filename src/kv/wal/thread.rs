//! The log thread: takes what is pending, seals it, makes it durable, tells who waits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::format::{HEADER, Header, padded, uuid_low};
use super::log::{commit_max, record_max};
use super::pending::{Pending, Segment};
use super::ticket::{Lock, Ticket, Waiting};
use super::{Lsn, Mark, WalConfig, WalStart, WalStats};
use crate::base::clock::now_ns;
use crate::base::crc::crc32c;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::bugs::{self, Bug};
use crate::kv::disk::{Blocks, Disk};
use crate::kv::sync::atomic::AtomicU64;
use crate::kv::sync::{Condvar, Mutex, RwLock};
use crate::metrics::Histogram;

type Pressure = Arc<dyn Fn() + Send + Sync>;

/// What committers and the log thread share.
pub(super) struct Core {
    disk: Arc<dyn Disk>,
    pub(super) config: WalConfig,
    pub(super) commit_max: usize,
    pub(super) record_max: usize,
    /// The commit lock.
    pub(super) state: Mutex<State>,
    /// The log thread sleeps here.
    pub(super) work: Condvar,
    /// Committers without room sleep here.
    pub(super) room: Condvar,
    pub(super) ticket: Ticket<AtomicU64, Lock<Waiting>>,
    pub(super) appended: AtomicU64,
    pub(super) pressure: RwLock<Option<Pressure>>,
    pub(super) sync: Histogram,
}

/// What the commit lock guards.
pub(super) struct State {
    pub(super) pending: Pending,
    pub(super) stats: WalStats,
    /// Boundaries by the record before; where the log goes on there, once that is known.
    pub(super) marks: BTreeMap<Lsn, Option<WalStart>>,
    /// The log thread sleeps, and whoever clears this wakes it.
    pub(super) asleep: bool,
    pub(super) failed: bool,
    stop: bool,
    /// A batch with records is being written.
    writing: bool,
    /// Where the log goes on after what is written.
    end: WalStart,
    /// When the last batch with records became durable, until an empty one follows.
    quiet_since: Option<Instant>,
}

/// A batch on its way to the disk.
struct Job {
    memory: Blocks,
    len: usize,
    records: u32,
    commits: u32,
    has_data: bool,
    /// Where it goes; `first_lsn` is `at.next_lsn`.
    at: WalStart,
}

impl State {
    pub(super) fn mark(&mut self) -> Mark {
        self.pending.close();
        let lsn = self.pending.next_lsn - 1;
        let known = self.pending.is_empty() && !self.writing;
        self.marks.insert(lsn, known.then_some(self.end));
        Mark { lsn }
    }

    /// Takes what comes next, or an empty batch.
    fn take(&mut self, empty: Option<Blocks>) -> Option<Job> {
        if let Some((segment, position)) = self.pending.take(self.end.position) {
            let Segment {
                memory,
                len,
                records,
                commits,
                has_data,
                first_lsn,
            } = segment;
            debug_assert_eq!(first_lsn, self.end.next_lsn);
            self.writing = true;
            return Some(Job {
                memory,
                len,
                records,
                commits,
                has_data,
                at: WalStart {
                    position,
                    ..self.end
                },
            });
        }
        let memory = empty?;
        let position = self.pending.take_empty();
        Some(Job {
            memory,
            len: 0,
            records: 0,
            commits: 0,
            has_data: false,
            at: WalStart {
                position,
                ..self.end
            },
        })
    }
}

impl Core {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        config: WalConfig,
        start: WalStart,
        tail: u64,
    ) -> Result<Self> {
        config.check_start(&*disk, &start)?;
        if tail > start.position || start.position - tail > config.size {
            let message = format!(
                "start a log of {} bytes at position {} that keeps what is from {tail} on: it \
                 cannot",
                config.size, start.position
            );
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
        let commit_max = commit_max(&config);
        let pending = Pending::new(
            config.size,
            config.max_batch_bytes,
            config.pending_bytes,
            start.position,
            tail,
            start.next_lsn,
        );
        let durable = start.next_lsn - 1;
        Ok(Self {
            commit_max,
            record_max: record_max(&config, commit_max),
            state: Mutex::new(State {
                pending,
                stats: WalStats::default(),
                marks: BTreeMap::new(),
                asleep: false,
                failed: false,
                stop: false,
                writing: false,
                end: start,
                quiet_since: None,
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            ticket: Ticket::new(AtomicU64::new(durable), Lock::default()),
            appended: AtomicU64::new(durable),
            pressure: RwLock::new(None),
            sync: Histogram::default(),
            disk,
            config,
        })
    }

    /// The log thread.
    pub(super) fn run(&self) {
        let watch = Watch(self);
        while let Some(mut job) = self.next() {
            let last = (job.at.next_lsn + u64::from(job.records)) - 1;
            self.ticket.take(last);
            if bugs::is_on(Bug::AckBeforePrefix) {
                self.ticket.publish();
            }
            let started = now_ns();
            match self.write(&mut job) {
                Ok(next) => {
                    self.sync.record(now_ns() - started);
                    let used = self.done(job, next);
                    self.ticket.publish();
                    if used > self.config.size / 2 {
                        self.press();
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    break;
                }
            }
        }
        std::mem::forget(watch);
        // Whoever ended it by a failure says so, if not yet then soon.
        if self.state.lock().failed {
            return;
        }
        let closed = "wait for a record that was never appended: the log was closed";
        self.ticket.fail(&Error::new(ErrorKind::Cancelled, closed));
    }

    /// Sleeps until there is something to write; `None` when there never will be.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.failed {
                return None;
            }
            if let Some(job) = state.take(None) {
                return Some(job);
            }
            let Some(since) = state.quiet_since else {
                if state.stop {
                    return None;
                }
                state.asleep = true;
                self.work.wait(&mut state);
                state.asleep = false;
                continue;
            };
            let until = since + self.config.idle;
            if state.stop || Instant::now() >= until {
                state.quiet_since = None;
                match Blocks::new(HEADER) {
                    Ok(memory) => return state.take(Some(memory)),
                    // An empty batch is a help, not a duty.
                    Err(_) => continue,
                }
            }
            state.asleep = true;
            self.work.wait_until(&mut state, until);
            state.asleep = false;
        }
    }

    /// Seals a batch and makes it durable. Where the log goes on.
    fn write(&self, job: &mut Job) -> Result<WalStart> {
        let Job {
            memory,
            len,
            records,
            at,
            ..
        } = job;
        let size = padded(*len) as usize;
        memory[HEADER + *len..size].fill(0);
        let ring_offset = at.position % self.config.size;
        let header = Header {
            epoch: at.epoch,
            uuid_low: uuid_low(at),
            batch_no: at.batch_no,
            first_lsn: at.next_lsn,
            // One batch is under way at a time.
            durable_upto: at.batch_no - 1,
            prev_crc: at.prev_crc,
            records: *records,
            body_len: *len as u32,
            body_crc: crc32c(0, &memory[HEADER..HEADER + *len]),
            place: (ring_offset / crate::kv::BLOCK as u64) as u32,
        };
        let prev_crc = header.encode(memory);
        if job.has_data && !bugs::is_on(Bug::SkippedFlush) {
            // The batch may be written as a forced write, which makes nothing durable but itself.
            self.disk.flush()?;
        }
        self.disk
            .write_durable(self.config.offset + ring_offset, &job.memory[..size])?;
        Ok(WalStart {
            position: at.position + size as u64,
            batch_no: at.batch_no + 1,
            prev_crc,
            next_lsn: at.next_lsn + u64::from(*records),
            ..*at
        })
    }

    /// Books a batch that is durable. Bytes of the ring in use.
    fn done(&self, job: Job, next: WalStart) -> u64 {
        let mut state = self.state.lock();
        state.end = next;
        state.writing = false;
        if let Some(start) = state.marks.get_mut(&(next.next_lsn - 1)) {
            start.get_or_insert(next);
        }
        let stats = &mut state.stats;
        stats.batches += 1;
        stats.written_bytes += padded(job.len);
        stats.data_flushes += u64::from(job.has_data);
        stats.commits_per_batch_max = stats.commits_per_batch_max.max(job.commits.into());
        if job.records > 0 {
            state.quiet_since = Some(Instant::now());
            state.pending.recycle(job.memory);
        } else {
            stats.trailers += 1;
        }
        let used = state.pending.used();
        drop(state);
        self.room.notify_all();
        used
    }

    /// Ends the log.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.state.lock();
        state.failed = true;
        drop(state);
        let message = format!(
            "use the log: an earlier failure ended it ({}); what was not durable by then may be \
             lost, open the store again",
            error.message()
        );
        let mut poisoned = Error::new(ErrorKind::Poisoned, message).with_errno(error.errno());
        if let Some(offset) = error.offset() {
            poisoned = poisoned.with_offset(offset);
        }
        self.ticket.fail(&poisoned);
        self.room.notify_all();
        self.work.notify_all();
    }

    /// What ended the log.
    pub(super) fn failure(&self) -> Error {
        self.ticket.failure().unwrap_or_else(|| {
            Error::new(
                ErrorKind::Poisoned,
                "use the log: an earlier failure ended it",
            )
        })
    }

    /// Lets the log thread end when all is written.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_all();
    }

    pub(super) fn press(&self) {
        let call = self.pressure.read().clone();
        if let Some(call) = call {
            call();
        }
    }
}

/// Ends the log when its thread ends by a panic: nobody may wait for ever.
struct Watch<'a>(&'a Core);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let message = "write the log: a fault inside the library ended its thread";
        self.0.fail(&Error::new(ErrorKind::Internal, message));
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
