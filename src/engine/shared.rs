//! What callers and transfer threads share: the device, the queue of jobs, and who is awake.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Options;
use super::choice;
use super::job::{Gate, Job, Terms};
use super::kernel_slot::KernelPool;
use super::plan::Piece;
use super::staging::InlinePool;
use super::stream::RingPool;
use super::trial::Trials;
use crate::base::clock::now_ns;
use crate::base::limits;
use crate::config::Config;
use crate::device::{Device, Stream};
use crate::error::{Error, Result};
use crate::io::Io;
use crate::metrics::Metrics;

/// Transfers up to this many bytes share a staging slot and one copy kernel.
pub(super) const SMALL_SIZE: u64 = 64 << 10;
/// Most transfers in one staging slot.
pub(super) const GROUP_MAX: usize = 256;
/// Threads that keep large direct I/O under way at once. Two keep a disk busy; more make its
/// requests come out of order, which cost a tenth of its speed. A device that completes requests
/// while they are submitted is limited by processors: there all threads submit.
const SUBMITTERS_MAX: usize = 2;
/// How long a thread without a rank sleeps before it looks for work that needs none.
const RANKLESS_PAUSE: Duration = Duration::from_millis(1);
/// Largest staging slot, bytes.
const SLOT_MAX: u64 = 4 << 20;
/// Largest piece for host memory, bytes.
const HOST_PIECE_MAX: u64 = 1 << 20;
/// Jobs of a sequence are cut as if they had this many bytes at least.
const SEQUENCE_TOTAL: u64 = 64 << 20;
/// Smallest piece that a large transfer is cut into, bytes.
const PIECE_MIN: u64 = 256 << 10;

/// What callers and transfer threads share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) thread_count: usize,
    pub(super) device: Arc<dyn Device>,
    pub(super) io: Arc<dyn Io>,
    pub(super) metrics: Metrics,
    pub(super) inline: InlinePool,
    pub(super) kernels: KernelPool,
    pub(super) rings: Arc<RingPool>,
    pub(super) trials: Trials,
    queue: Mutex<Queue>,
    work: Condvar,
    ready: Condvar,
    stopping: AtomicBool,
    /// Transfer threads that still work; fewer than configured when some could not start.
    pub(super) threads: AtomicUsize,
    /// Threads that have large direct I/O under way which does not complete when it is submitted.
    submitters: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Arc<Job>>,
    /// Jobs that were ever queued.
    pushed: u64,
    /// Why no transfer thread can go on.
    dead: Option<Error>,
    /// Threads that have their memory, or never will.
    prepared: usize,
    /// A thread looks again and again for open gates and passed deadlines.
    looked_after: bool,
}

impl Queue {
    /// The job whose turn it is. The turn of one in a sequence goes to the oldest of that which
    /// has something to claim.
    fn turn(&mut self) -> Option<Arc<Job>> {
        let job = self.jobs.pop_front()?;
        self.jobs.push_back(job.clone());
        if job.terms.sequence.is_none() {
            return Some(job);
        }
        let mates = self.jobs.iter().filter(|j| {
            j.terms.sequence == job.terms.sequence && j.unclaimed() > 0 && j.gate_has_passed()
        });
        let oldest = mates.min_by_key(|j| j.place.load(Relaxed));
        Some(oldest.cloned().unwrap_or(job))
    }
}

/// Bytes of a staging slot. The device's copy engine needs about 3 us between copies of different
/// threads, so slots are as large as four to a thread allow, up to 4 MiB.
fn slot_size(config: &Config) -> u64 {
    (config.buffer_size / 4)
        .clamp(limits::BUFFER_SIZE_MIN, SLOT_MAX)
        .max(config.alignment)
}

/// Staging slots of a transfer thread.
fn slot_count(config: &Config) -> usize {
    let fit = (config.buffer_size / slot_size(config)) as usize;
    fit.clamp(1, config.max_outstanding_io as usize)
}

/// Whether a piece is for ranked threads alone if it goes around the page cache.
fn may_need_rank(job: &Job, piece: Piece) -> bool {
    piece.size > SMALL_SIZE && !job.entries[piece.entry].host_memory
}

/// Pieces that a transfer thread has claimed, all of one job and one operation.
pub(super) struct Run {
    pub(super) job: Arc<Job>,
    pub(super) pieces: Vec<Piece>,
}

impl Shared {
    pub(super) fn new(config: Config, device: Arc<dyn Device>, io: Arc<dyn Io>) -> Self {
        // Asking the system how many processors there are reads a file: once is enough.
        let thread_count = config.thread_count();
        Self {
            thread_count,
            rings: RingPool::new(&device, thread_count * slot_count(&config)),
            config,
            device,
            io,
            metrics: Metrics::default(),
            inline: InlinePool::default(),
            kernels: KernelPool::default(),
            trials: Trials::default(),
            queue: Mutex::default(),
            work: Condvar::new(),
            ready: Condvar::new(),
            stopping: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            submitters: AtomicUsize::new(0),
        }
    }

    /// Queues a job; `several` wakes all threads for it.
    ///
    /// # Errors
    /// Why no transfer thread can go on.
    pub(super) fn push(&self, job: &Arc<Job>, several: bool) -> Result<()> {
        let mut queue = self.queue.lock();
        if let Some(error) = &queue.dead {
            return Err(error.clone());
        }
        queue.pushed += 1;
        job.place.store(queue.pushed, Relaxed);
        queue.jobs.push_back(job.clone());
        drop(queue);
        if several {
            self.work.notify_all();
        } else {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Sends the transfer threads home once nothing is left to do.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        // A thread that has just found nothing to do sleeps before the lock can be had.
        drop(self.queue.lock());
        self.work.notify_all();
    }

    /// How long to wait before the next try after a transient error, and counts the try. An
    /// interrupted call is tried again at once.
    pub(super) fn back_off(&self, attempts: &mut u32, errno: i32) -> Duration {
        let base = if errno == libc::EINTR {
            0
        } else {
            self.config.backoff_ms
        };
        let pause = Duration::from_millis(u64::from(base) << (*attempts).min(16));
        *attempts += 1;
        self.metrics.retries.fetch_add(1, Relaxed);
        pause
    }

    /// Bytes of a staging slot.
    pub(super) fn slot_size(&self) -> u64 {
        slot_size(&self.config)
    }

    /// Staging slots of a transfer thread.
    pub(super) fn slot_count(&self) -> usize {
        slot_count(&self.config)
    }

    /// Bytes of a piece of a job of `total` bytes: several for each thread, within a slot. Host
    /// memory is scattered over small pages, of which a disk takes few in one request: pieces for
    /// it are smaller, and all threads ask. Jobs of a sequence keep threads busy together.
    pub(super) fn piece_size(&self, total: u64, host_memory: bool, in_sequence: bool) -> u64 {
        let total = if in_sequence {
            total.max(SEQUENCE_TOTAL)
        } else {
            total
        };
        let share = total / (4 * self.thread_count as u64);
        let slot = self.slot_size();
        let most = if host_memory {
            slot.min(HOST_PIECE_MAX)
        } else {
            slot
        };
        let most = most.max(self.config.alignment);
        let least = PIECE_MIN.max(self.config.alignment).min(most);
        share.clamp(least, most).next_power_of_two().min(most)
    }

    pub(super) fn terms(&self, options: &Options) -> Terms {
        let deadline_ns = options.deadline.map_or(0, |d| {
            now_ns()
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
                .max(1)
        });
        Terms {
            policy: options.path.unwrap_or(self.config.path),
            fallback: options.fallback.unwrap_or(self.config.mmap_fallback),
            checksum: options.checksum.unwrap_or(self.config.checksum),
            deadline_ns,
            sequence: options.sequence,
        }
    }

    /// The place of a job in the caller's stream.
    pub(super) fn gate(&self, stream: Stream) -> Result<Gate> {
        let mut ring = self.rings.take()?;
        let before = self.device.event_create()?;
        let launched = self
            .device
            .event_record(before, stream)
            .and_then(|()| ring.launch(stream));
        if let Err(error) = launched {
            // SAFETY: just made, and given to nobody.
            unsafe { self.device.event_destroy(before) };
            return Err(error);
        }
        Ok(Gate::new(before, ring))
    }

    /// Makes a thread one of the few that keep large direct I/O under way, if there is room.
    pub(super) fn take_rank(&self) -> bool {
        let more = |ranked: usize| (ranked < SUBMITTERS_MAX).then_some(ranked + 1);
        self.submitters.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Gives the rank back, and wakes a thread that may take it.
    pub(super) fn give_rank(&self) {
        self.submitters.fetch_sub(1, Relaxed);
        // A thread that has just found nothing to do sleeps before the lock can be had.
        drop(self.queue.lock());
        self.work.notify_one();
    }

    /// Whether a thread without a rank has to leave large direct I/O to others.
    pub(super) fn ranks_are_taken(&self) -> bool {
        self.submitters.load(Relaxed) >= SUBMITTERS_MAX
    }

    /// Claims work for a transfer thread: one piece, or small ones that share a slot.
    /// Jobs take turns. Nothing is finished or dropped under the queue's lock: that may run the
    /// caller's code or close the context.
    ///
    /// `ranked` threads take anything, others no large piece that goes around the page cache.
    pub(super) fn take(&self, ranked: bool) -> Option<Run> {
        let mut tries = self.queue.lock().jobs.len();
        while tries > 0 {
            tries -= 1;
            let job = self.queue.lock().turn()?;
            job.check_deadline();
            let run = if job.gate_is_open() {
                self.claim(&job, ranked)
            } else {
                None
            };
            if job.unclaimed() == 0 {
                self.forget(&job);
            }
            if run.is_some() {
                return run;
            }
        }
        None
    }

    /// Takes a job that has nothing left to claim out of the queue.
    pub(super) fn forget(&self, job: &Arc<Job>) {
        let mut queue = self.queue.lock();
        queue.jobs.retain(|j| !Arc::ptr_eq(j, job));
    }

    fn claim(&self, job: &Arc<Job>, ranked: bool) -> Option<Run> {
        while let Some(first) = job.peek(0) {
            if !ranked && may_need_rank(job, first) && choice::goes_direct(job, first) {
                return None;
            }
            let mut pieces = vec![first];
            if first.size <= SMALL_SIZE {
                self.group(job, first, &mut pieces);
            }
            if job.claim(first, pieces.len() as u64) {
                return Some(Run {
                    job: job.clone(),
                    pieces,
                });
            }
        }
        None
    }

    /// Adds small pieces that fit into the same slot, leaving a share for each thread.
    fn group(&self, job: &Job, first: Piece, pieces: &mut Vec<Piece>) {
        let share = job.unclaimed().div_ceil(self.thread_count as u64);
        let most = (share as usize).clamp(1, GROUP_MAX);
        let operation = job.entries[first.entry].operation;
        let mut room = self.slot_size().saturating_sub(self.room_of(job, first));
        while pieces.len() < most {
            let Some(next) = job.peek(pieces.len() as u64) else {
                break;
            };
            let needs = self.room_of(job, next);
            let alike = job.entries[next.entry].operation == operation;
            if next.size > SMALL_SIZE || needs > room || !alike {
                break;
            }
            room -= needs;
            pieces.push(next);
        }
    }

    /// Bytes of a slot that a small piece takes, with the aligned range around it.
    fn room_of(&self, job: &Job, piece: Piece) -> u64 {
        let alignment = job.entries[piece.entry].file.alignment();
        piece.size.next_multiple_of(alignment) + alignment
    }

    /// Sleeps until there may be work for a thread without a rank. False when the context is
    /// closing and nothing is left.
    pub(super) fn wait_for_work(&self) -> bool {
        let rankless = self.ranks_are_taken();
        let mut queue = self.queue.lock();
        let may = |j: &Arc<Job>| {
            let next = j.peek(0);
            next.is_some_and(|p| !rankless || !may_need_rank(j, p)) && j.gate_has_passed()
        };
        if queue.jobs.iter().any(may) {
            return true;
        }
        if rankless && !queue.jobs.is_empty() {
            self.work.wait_for(&mut queue, RANKLESS_PAUSE);
            return true;
        }
        if self.stopping.load(Relaxed) && queue.jobs.is_empty() {
            return false;
        }
        // Nobody signals an open gate or a passed deadline: one thread looks for all.
        if !queue.jobs.is_empty() && !queue.looked_after {
            queue.looked_after = true;
            let pause = Duration::from_micros(self.config.poll_interval_us.max(1));
            self.work.wait_for(&mut queue, pause);
            queue.looked_after = false;
            if queue.jobs.iter().any(|j| j.gate_has_passed()) {
                // This thread is about to work: the others work too, or one of them looks.
                self.work.notify_all();
            }
        } else {
            self.work.wait(&mut queue);
        }
        true
    }

    /// Whether jobs are waiting for threads.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.lock().jobs.is_empty()
    }

    /// Takes note that a thread has its memory.
    pub(super) fn note_prepared(&self) {
        self.queue.lock().prepared += 1;
        self.ready.notify_all();
    }

    /// Waits until every thread has its memory, or cannot have it.
    ///
    /// # Errors
    /// Why no thread could start.
    pub(super) fn wait_until_prepared(&self) -> Result<()> {
        let mut queue = self.queue.lock();
        while queue.prepared < self.thread_count && queue.dead.is_none() {
            self.ready.wait(&mut queue);
        }
        queue.dead.clone().map_or(Ok(()), Err)
    }

    /// Takes note that a thread could not start. The last one ends all jobs.
    pub(super) fn lose_thread(&self, error: &Error) {
        if self.threads.fetch_sub(1, Relaxed) == 1 {
            self.die(error);
        }
        self.note_prepared();
        self.work.notify_all();
    }

    /// Ends every job: the transfer threads cannot go on.
    pub(super) fn die(&self, error: &Error) {
        let jobs = {
            let mut queue = self.queue.lock();
            queue.dead.get_or_insert_with(|| error.clone());
            self.ready.notify_all();
            std::mem::take(&mut queue.jobs)
        };
        for job in jobs {
            job.kill(error);
        }
    }
}
