//! The context: what a caller opens, and the threads behind it.

use std::fmt;
use std::os::fd::RawFd;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::explain::{self, Explanation};
use super::job::Job;
use super::plan::Entry;
use super::shared::Shared;
use super::{Buffer, File, Options, Ticket, Transfer, choice, worker};
use crate::base::limits;
use crate::config::Config;
use crate::device::{self, Device, MemoryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{self, FileDescriptors, Io, OpenMode};
use crate::metrics::Snapshot;

/// Opens files, allocates memory and moves bytes. Cheap to clone, usable from many threads.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
        let inner = Inner {
            shared: Arc::new(Shared::new(config, device, io)),
            threads: Mutex::default(),
        };
        if !inner.shared.device.is_host() {
            inner.prepare()?;
        }
        Ok(Self(Arc::new(inner)))
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0
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
        let total = transfers
            .iter()
            .fold(0u64, |sum, t| sum.saturating_add(t.size));
        let host_memory = transfers.iter().all(|t| t.buffer.is_host_memory());
        let piece_size = shared.piece_size(total, host_memory, options.sequence.is_some());
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
        let on_host = options.stream.is_some() && shared.device.is_host();
        let stream = options.stream.filter(|_| !on_host);
        let gate = stream.map(|s| shared.gate(s)).transpose()?;
        let job = Job::new(shared.clone(), entries, terms, gate);
        job.fallbacks.store(fallbacks, Relaxed);
        shared
            .metrics
            .fallbacks
            .fetch_add(u64::from(fallbacks), Relaxed);
        self.enqueue(&job)?;
        if on_host {
            // A stream of the host device is the calling thread.
            job.wait(None);
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
        self.shared.push(job, pieces > 1)
    }

    /// Pins memory and loads code before anything runs on the device. Later the driver may make
    /// that wait for the work of the caller's streams, which may be waiting for this library.
    fn prepare(&self) -> Result<()> {
        self.start_threads()?;
        let shared = &self.shared;
        shared.rings.prime()?;
        shared.inline.give(shared.inline.take(&shared.device)?);
        shared.wait_until_prepared()
    }

    /// Starts the transfer threads: on the host at the first job, since many contexts never need
    /// them.
    fn start_threads(&self) -> Result<()> {
        let mut threads = self.threads.lock();
        if !threads.is_empty() {
            return Ok(());
        }
        let count = self.shared.thread_count;
        self.shared.threads.store(count, Relaxed);
        for index in 0..count {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("gds-transfer-{index}"))
                .spawn(move || worker::run(&shared))
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
        self.shared.stop();
        // The last owner may be a transfer thread that has just ended the last job: it cannot wait
        // for itself, and the others need nobody to wait for them.
        let mine = worker::shared_of_this_thread() == Arc::as_ptr(&self.shared) as usize;
        for thread in self.threads.lock().drain(..).filter(|_| !mine) {
            let _ = thread.join();
        }
    }
}
