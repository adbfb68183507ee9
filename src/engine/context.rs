//! The context: a device, a way to do I/O, transfer threads, and what they share.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::RawFd;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::choice::Trials;
use super::explain::{self, Explanation};
use super::job::{Gate, Job, Terms};
use super::plan::{Entry, Piece};
use super::staging::{InlinePool, WordPool};
use super::{Buffer, File, Options, Ticket, Transfer, choice, worker};
use crate::base::clock::now_ns;
use crate::base::limits;
use crate::config::Config;
use crate::device::{self, Device, MemoryKind, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{self, FileDescriptors, Io, OpenMode};
use crate::metrics::{Metrics, Snapshot};

/// Threads that copy out of the page cache at once; more of them only fight for memory.
const WARM_THREADS: u32 = 8;
/// Transfers up to this many bytes share a staging slot and one copy kernel.
pub(super) const SMALL_SIZE: u64 = 64 << 10;
/// Most transfers in one staging slot.
pub(super) const GROUP_MAX: usize = 256;

/// Opens files, allocates memory and moves bytes. Cheap to clone, usable from many threads.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What callers and transfer threads share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) device: Arc<dyn Device>,
    pub(super) io: Arc<dyn Io>,
    pub(super) metrics: Metrics,
    pub(super) inline: InlinePool,
    pub(super) words: Arc<WordPool>,
    pub(super) trials: Trials,
    queue: Mutex<Queue>,
    work: Condvar,
    ready: Condvar,
    stopping: AtomicBool,
    /// Jobs in the queue, to look at without its lock.
    queued: AtomicUsize,
    /// Transfer threads that still work; fewer than configured when some could not start.
    threads: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Arc<Job>>,
    /// Why no transfer thread can go on.
    dead: Option<Error>,
    /// Threads are to pin their memory before there is work.
    prepare: bool,
    /// Threads that have, or never will.
    prepared: usize,
}

/// Pieces that a transfer thread has claimed, all of one job and one operation.
pub(super) struct Run {
    pub(super) job: Arc<Job>,
    pub(super) pieces: Vec<Piece>,
}

impl Context {
    /// Opens a context on the device that the configuration names.
    ///
    /// # Errors
    /// `InvalidConfig`, and why the device cannot be used: `NoDevice`, `DriverMissing`,
    /// `DriverTooOld`, `DriverTimeout`, `Cuda`.
    pub fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let probe = Duration::from_millis(u64::from(config.probe_timeout_ms));
        let device = device::open(config.gpu_device, probe)?;
        Self::with_parts(config, device, io::best())
    }

    /// Opens a context over a given device and way to do I/O.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn with_parts(config: Config, device: Arc<dyn Device>, io: Arc<dyn Io>) -> Result<Self> {
        config.validate()?;
        let words = WordPool::new(&device);
        let shared = Arc::new(Shared {
            config,
            device,
            io,
            metrics: Metrics::default(),
            inline: InlinePool::default(),
            words,
            trials: Trials::default(),
            queue: Mutex::default(),
            work: Condvar::new(),
            ready: Condvar::new(),
            stopping: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            threads: AtomicUsize::new(0),
        });
        Ok(Self(Arc::new(Inner {
            shared,
            threads: Mutex::default(),
        })))
    }

    pub(super) fn from_inner(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// How it was configured.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.shared.config
    }

    /// Its device.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.0.shared.device
    }

    /// How it does file I/O: "io_uring" or "posix".
    #[must_use]
    pub fn io_name(&self) -> &'static str {
        self.0.shared.io.name()
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        self.0.shared.metrics.snapshot()
    }

    /// Opens a regular file or block device.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `UnsupportedFile`, `Io`.
    pub fn open_file(&self, path: &FilePath, mode: OpenMode) -> Result<File> {
        Ok(File::new(&self.0, FileDescriptors::open(path, mode)?))
    }

    /// Takes a duplicate of the caller's descriptor, which stays the caller's.
    ///
    /// # Errors
    /// `InvalidArgument` for a closed descriptor, `UnsupportedFile`.
    pub fn file_from_fd(&self, fd: RawFd) -> Result<File> {
        Ok(File::new(&self.0, FileDescriptors::from_fd(fd)?))
    }

    /// Allocates device or pinned memory.
    ///
    /// # Errors
    /// `OutOfDeviceMemory`, `OutOfHostMemory`, `InvalidArgument`.
    pub fn alloc(&self, kind: MemoryKind, size: u64) -> Result<Buffer> {
        Buffer::alloc(&self.0, kind, size)
    }

    /// Takes the caller's memory as a buffer: device, pinned, managed or ordinary memory.
    ///
    /// # Safety
    /// The memory stays valid until the last clone of the buffer is gone.
    ///
    /// # Errors
    /// `InvalidPointer` when it is not memory that this context can use, `OutOfRange`.
    pub unsafe fn wrap(&self, address: u64, size: u64) -> Result<Buffer> {
        Buffer::wrap(&self.0, address, size)
    }

    /// As `wrap`, and pins ordinary host memory, so that the device copies it without staging.
    ///
    /// # Safety
    /// As `wrap`.
    ///
    /// # Errors
    /// As `wrap`, and `Cuda` or `OutOfHostMemory` when the driver cannot pin it.
    pub unsafe fn register(&self, address: u64, size: u64) -> Result<Buffer> {
        // SAFETY: the caller keeps the memory valid.
        unsafe { Buffer::register(&self.0, address, size) }
    }

    /// Starts transfers. Their memory must stay valid until the ticket is done.
    ///
    /// # Errors
    /// What can be known before a byte moves: `OutOfRange`, `InvalidArgument`, `ReadOnly`,
    /// `FallbackForbidden`, `Poisoned`. Nothing has started then.
    pub fn submit(&self, transfers: Vec<Transfer>, options: &Options) -> Result<Ticket> {
        Ok(Ticket::new(self.0.start(transfers, options)?))
    }

    /// Says which way a large read of this file would take, and why not a better one.
    ///
    /// # Errors
    /// As `open_file`.
    pub fn explain(&self, path: &FilePath) -> Result<Explanation> {
        let file = self.open_file(path, OpenMode::read_only())?;
        Ok(explain::explain(&self.0.shared, &file.0))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Context({}, {})",
            self.0.shared.device.info().name,
            self.io_name()
        )
    }
}

impl Inner {
    fn start(self: &Arc<Self>, transfers: Vec<Transfer>, options: &Options) -> Result<Arc<Job>> {
        let shared = &self.shared;
        if transfers.is_empty() || transfers.len() as u64 > limits::BATCH_ENTRIES_MAX {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} transfers given, 1 to {} allowed",
                    transfers.len(),
                    limits::BATCH_ENTRIES_MAX
                ),
            ));
        }
        let mut terms = shared.terms(options);
        let mut fallbacks = 0;
        choice::settle_policy(shared, &transfers, &mut terms, &mut fallbacks)?;
        let piece_size = shared.piece_size();
        let mut entries = Vec::with_capacity(transfers.len());
        for (index, transfer) in transfers.into_iter().enumerate() {
            if !Arc::ptr_eq(&transfer.file.0.context, self) {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("transfer {index} belongs to another context"),
                ));
            }
            let size = piece_size.max(transfer.file.0.alignment());
            choice::reserve(&transfer)?;
            entries.push(Entry::new(transfer, size, terms.checksum)?);
        }
        if options.stream.is_some() {
            self.start_threads()?;
            shared.prepare_threads();
        }
        let gate = options.stream.map(|s| shared.gate(s)).transpose()?;
        let job = Job::new(shared.clone(), entries, terms, gate);
        job.fallbacks.store(fallbacks, Relaxed);
        shared
            .metrics
            .fallbacks
            .fetch_add(u64::from(fallbacks), Relaxed);
        // The stream waits only for a job that is sure to be worked on.
        self.enqueue(&job)?;
        if let (Some(stream), Some(gate)) = (options.stream, &job.gate) {
            // SAFETY: the word is the job's, lives in a page of the pool, and is stored at the
            // latest when the job is dropped.
            let waits = unsafe {
                shared
                    .device
                    .stream_wait_word(stream, gate.word.pointer(), gate.word.value())
            };
            if let Err(error) = waits {
                job.kill(&error);
                job.wait(None);
                return Err(error);
            }
        }
        Ok(job)
    }

    fn enqueue(self: &Arc<Self>, job: &Arc<Job>) -> Result<()> {
        let pieces = job.piece_total();
        if pieces == 0 {
            job.finish_empty();
            return Ok(());
        }
        self.start_threads()?;
        let mut queue = self.shared.queue.lock();
        if let Some(error) = &queue.dead {
            return Err(error.clone());
        }
        queue.jobs.push_back(job.clone());
        self.shared.queued.store(queue.jobs.len(), Relaxed);
        drop(queue);
        if pieces == 1 {
            self.shared.work.notify_one();
        } else {
            self.shared.work.notify_all();
        }
        Ok(())
    }

    /// Starts the transfer threads at the first job: many contexts never need them.
    fn start_threads(&self) -> Result<()> {
        let mut threads = self.threads.lock();
        if !threads.is_empty() {
            return Ok(());
        }
        let count = self.shared.config.thread_count();
        self.shared.threads.store(count, Relaxed);
        for index in 0..count {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("gds-transfer-{index}"))
                .spawn(move || worker::run(&shared, index))
                .map_err(|e| {
                    Error::new(
                        ErrorKind::OutOfHostMemory,
                        format!("start transfer thread {index}: {e}; lower io_threads"),
                    )
                });
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) if index > 0 => self.shared.lose_thread(&error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Relaxed);
        drop(self.shared.queue.lock());
        self.shared.work.notify_all();
        // The last owner may be a transfer thread that has just ended the last job: it cannot wait
        // for itself, and the others need nobody to wait for them.
        let mine = worker::shared_of_this_thread() == Arc::as_ptr(&self.shared) as usize;
        for thread in self.threads.lock().drain(..).filter(|_| !mine) {
            let _ = thread.join();
        }
    }
}

impl Shared {
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

    /// Bytes of a piece and of a staging slot.
    pub(super) fn piece_size(&self) -> u64 {
        let part = self.config.buffer_size / 16;
        part.clamp(limits::BUFFER_SIZE_MIN, 1 << 20)
            .max(self.config.alignment)
    }

    /// Threads that may copy out of the page cache at once.
    pub(super) fn thread_limit_warm(&self) -> u32 {
        WARM_THREADS.min(self.config.thread_count() as u32)
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
        }
    }

    fn gate(&self, stream: Stream) -> Result<Gate> {
        let word = self.words.take()?;
        let start = self.device.event_create()?;
        let gate = Gate::new(start, word);
        self.device.event_record(start, stream)?;
        Ok(gate)
    }

    /// Claims work for transfer thread `index`: one piece, or small ones that share a slot.
    /// Jobs take turns. Nothing is finished or dropped under the queue's lock: that may run the
    /// caller's code or close the context.
    pub(super) fn take(&self, index: usize) -> Option<Run> {
        let mut tries = self.queue.lock().jobs.len();
        while tries > 0 {
            tries -= 1;
            let job = {
                let mut queue = self.queue.lock();
                let job = queue.jobs.pop_front()?;
                queue.jobs.push_back(job.clone());
                job
            };
            job.check_deadline();
            let mine = self.takes_part(&job, index);
            let run = if mine && job.gate_is_open() {
                self.claim(&job)
            } else {
                None
            };
            if job.unclaimed() == 0 {
                let mut queue = self.queue.lock();
                queue.jobs.retain(|j| !Arc::ptr_eq(j, &job));
                self.queued.store(queue.jobs.len(), Relaxed);
            }
            if run.is_some() {
                return run;
            }
        }
        None
    }

    fn claim(&self, job: &Arc<Job>) -> Option<Run> {
        while let Some(first) = job.peek(0) {
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
        let share = job.unclaimed().div_ceil(self.config.thread_count() as u64);
        let most = (share as usize).clamp(1, GROUP_MAX);
        let operation = job.entries[first.entry].operation;
        let mut room = self.piece_size().saturating_sub(self.room_of(job, first));
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

    /// Sleeps until there may be work, or until a thread that is not `made` yet must be. False
    /// when the context is closing and nothing is left.
    pub(super) fn wait_for_work(&self, index: usize, made: bool) -> bool {
        let mut queue = self.queue.lock();
        if queue.prepare && !made {
            return true;
        }
        if queue.jobs.iter().any(|j| self.may_take(j, index)) {
            return true;
        }
        if self.stopping.load(Relaxed) && queue.jobs.is_empty() {
            return false;
        }
        // Nobody signals an open gate or a passed deadline: one thread looks for all.
        let looks = index == 0 && !queue.jobs.is_empty();
        if looks {
            let pause = Duration::from_micros(self.config.poll_interval_us.max(1));
            self.work.wait_for(&mut queue, pause);
            if queue.jobs.iter().any(|j| j.gate_has_passed()) {
                self.work.notify_all();
            }
        } else {
            self.work.wait(&mut queue);
        }
        true
    }

    fn may_take(&self, job: &Job, index: usize) -> bool {
        self.takes_part(job, index) && job.unclaimed() > 0 && job.gate_has_passed()
    }

    /// Whether a thread may work on a job: all may where some threads are missing.
    fn takes_part(&self, job: &Job, index: usize) -> bool {
        (index as u32) < job.thread_limit.load(Relaxed)
            || self.threads.load(Relaxed) < self.config.thread_count()
    }

    /// Whether jobs are waiting for threads.
    pub(super) fn has_work(&self) -> bool {
        self.queued.load(Relaxed) > 0
    }

    /// Takes note that a thread has its memory.
    pub(super) fn note_prepared(&self) {
        self.queue.lock().prepared += 1;
        self.ready.notify_all();
    }

    /// Waits until every thread has its memory. Once a caller's stream waits for this library,
    /// the driver may refuse to pin memory or load code before that stream goes on.
    fn prepare_threads(&self) {
        let mut queue = self.queue.lock();
        queue.prepare = true;
        self.work.notify_all();
        while queue.prepared < self.config.thread_count() && queue.dead.is_none() {
            self.ready.wait(&mut queue);
        }
    }

    /// Takes note that a thread could not start. The last one ends all jobs.
    pub(super) fn lose_thread(&self, error: &Error) {
        self.note_prepared();
        if self.threads.fetch_sub(1, Relaxed) == 1 {
            self.die(error);
        }
        self.work.notify_all();
    }

    /// Lets more or fewer threads take part in a job.
    pub(super) fn set_thread_limit(&self, job: &Job, limit: u32) {
        if job.thread_limit.swap(limit, Relaxed) < limit {
            // A thread that has just found nothing to do sleeps before the lock can be had.
            drop(self.queue.lock());
            self.work.notify_all();
        }
    }

    /// Ends every job: the transfer threads cannot go on.
    pub(super) fn die(&self, error: &Error) {
        let jobs = {
            let mut queue = self.queue.lock();
            queue.dead.get_or_insert_with(|| error.clone());
            self.ready.notify_all();
            self.queued.store(0, Relaxed);
            std::mem::take(&mut queue.jobs)
        };
        for job in jobs {
            job.kill(error);
        }
    }
}
