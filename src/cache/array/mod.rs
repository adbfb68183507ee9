//! Files as arrays that kernels read and write (`include/gds_rs.cuh`).
//!
//! The page table is in device memory and belongs to the kernels: they find pages, claim frames by
//! the clock, and ask for what is missing through rings in pinned memory. This side lays the table
//! out, serves the rings from a thread each (`service`), and writes dirty frames back while no
//! kernel runs (`flush`). Between `acquire` and `release` the table is the kernels' alone.
//!
//! Invariants: a slot is reused only after its completion was seen; a dirty frame is cleared only
//! after its bytes are in the file; what fails is told by `release`, and nothing waits for a
//! service that has died. Guarded by `tests/cache_array*.rs` and `cuda_tests/cache_test.cu`.

mod ask;
mod flush;
mod layout;
pub mod ring;
mod service;

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

pub use ask::{Asked, ask};
pub use layout::{COUNT_HITS, View, WRITABLE};

use crate::base::limits;
use crate::engine::{Buffer, Context, File, MemoryKind, Stream};
use crate::error::{Error, ErrorKind, Result};
use flush::Table;
use layout::{Layout, SLOTS_MAX, control};
use service::{STATUS_IO, Service};

/// Staging memory that is aimed at, and how many slots a kernel should have at least.
const STAGING_BYTES: u64 = 64 << 20;
const SLOTS_LEAST: u64 = 64;
const SLOTS_MOST: u64 = 4096;

/// How an array is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayConfig {
    /// Bytes of a page: a power of two, 4 KiB to 2 MiB.
    pub page_bytes: u32,
    /// Device memory for pages, bytes; at least one page.
    pub device_bytes: u64,
    /// Threads that serve kernels, at most 16. 0 picks half the processors, at most 8.
    pub service_threads: u32,
    /// Pages that may be on their way at once, at most 65536 a thread. 0 picks 64 MiB worth.
    pub slots: u32,
    /// How long a warp waits while all frames are pinned, at most an hour.
    pub wait: Duration,
    /// Whether kernels may write. The file must be open for it.
    pub writable: bool,
    /// Whether kernels count hits, at the price of an atomic operation each.
    pub count_hits: bool,
}

impl Default for ArrayConfig {
    fn default() -> Self {
        Self {
            page_bytes: 4096,
            device_bytes: 64 << 20,
            service_threads: 0,
            slots: 0,
            wait: Duration::from_secs(30),
            writable: false,
            count_hits: false,
        }
    }
}

impl ArrayConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// `InvalidConfig` with the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        let broken = |field: &str, value: u64, rule: &str| {
            let text = format!("{field} is {value}; it must {rule}");
            Err(Error::new(ErrorKind::InvalidConfig, text))
        };
        let page = u64::from(self.page_bytes);
        if !page.is_power_of_two() || !(4096..=2 << 20).contains(&page) {
            return broken("page_bytes", page, "be a power of two from 4096 to 2097152");
        }
        if self.device_bytes < page || self.device_bytes / page > u64::from(u32::MAX) {
            let rule = "hold at least one page, and fewer than 2^32";
            return broken("device_bytes", self.device_bytes, rule);
        }
        if self.service_threads > layout::RINGS_MAX {
            let threads = u64::from(self.service_threads);
            return broken("service_threads", threads, "be at most 16");
        }
        if self.slots > SLOTS_MAX {
            return broken("slots", u64::from(self.slots), "be at most 65536");
        }
        if self.wait > Duration::from_secs(3600) {
            let wait = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
            return broken("wait_ms", wait, "be at most 3600000");
        }
        Ok(())
    }

    fn layout(&self, size_bytes: u64) -> Result<Layout> {
        let page_shift = self.page_bytes.trailing_zeros();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let rings = match self.service_threads {
            0 => (processors / 2).clamp(1, 8),
            given => given,
        };
        let slots = match u64::from(self.slots) {
            0 => (STAGING_BYTES >> page_shift).clamp(SLOTS_LEAST, SLOTS_MOST),
            given => given,
        };
        let each = slots.div_ceil(u64::from(rings)).next_power_of_two();
        Layout {
            size_bytes,
            pages: size_bytes.div_ceil(1 << page_shift),
            page_shift,
            frames: (self.device_bytes >> page_shift) as u32,
            rings,
            ring_shift: each.min(u64::from(SLOTS_MAX)).trailing_zeros(),
        }
        .check()
    }
}

/// What an array has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArrayStats {
    /// Look-ups that found their page, when they are counted.
    pub hits: u64,
    /// Pages that were asked for from the host.
    pub misses: u64,
    /// Look-ups that found another warp bringing their page.
    pub waits: u64,
    /// Pages that made room.
    pub evictions: u64,
    /// Dirty pages that kernels had written to make room.
    pub write_backs: u64,
    /// Frames.
    pub frames: u64,
    /// Frames that differ from the file.
    pub dirty: u64,
    /// Device memory of the page table, bytes.
    pub table_bytes: u64,
    /// Pinned memory, bytes.
    pub pinned_bytes: u64,
}

/// A file as an array in device memory. May be used from many threads; closing it writes dirty
/// pages, but only `flush` tells how that went.
pub struct Array {
    config: ArrayConfig,
    layout: Layout,
    table: Table,
    frames: Buffer,
    pinned: Buffer,
    file: File,
    /// Replaced when it died. The lock also keeps looks at the table apart.
    service: Mutex<Service>,
}

impl Array {
    /// Opens the file, as long as it is now, as an array.
    ///
    /// # Errors
    /// `InvalidConfig`, `ReadOnly`, `OutOfDeviceMemory`, `OutOfHostMemory`, `OutOfRange`.
    pub fn open(file: &File, config: ArrayConfig) -> Result<Self> {
        config.validate()?;
        let (mode, path) = (file.mode(), file.path().display());
        if !mode.read || (config.writable && !mode.write) {
            let text = format!(
                "{path} is open for {} alone, and the array needs more; open it to read{}",
                if mode.read { "reading" } else { "writing" },
                if config.writable { " and write" } else { "" }
            );
            return Err(Error::new(ErrorKind::ReadOnly, text).with_path(file.path()));
        }
        let size = file.size()?;
        if size > limits::TRANSFER_SIZE_MAX {
            let text = format!("{path} has {size} bytes, more than can be addressed");
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let layout = config.layout(size)?;
        let context = file.context();
        let table = Table::new(&context, layout)?;
        let frames = context.alloc(MemoryKind::Device, layout.frames_bytes())?;
        let pinned = context.alloc(MemoryKind::Pinned, layout.pinned_bytes())?;
        let service = Service::start(file, &pinned, layout)?;
        Ok(Self {
            config,
            layout,
            table,
            frames,
            pinned,
            file: file.clone(),
            service: Mutex::new(service),
        })
    }

    /// How it was set up.
    #[must_use]
    pub fn config(&self) -> &ArrayConfig {
        &self.config
    }

    /// The context that it belongs to.
    #[must_use]
    pub fn context(&self) -> Context {
        self.file.context()
    }

    /// Bytes of the array.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layout.size_bytes
    }

    /// Begins a session: kernels may use the view until `release`. Threads of the library look
    /// for requests during that time.
    ///
    /// # Errors
    /// What could not be written back or started again after a service thread had died.
    pub fn acquire(&self) -> Result<View> {
        let mut service = self.service.lock();
        if service.is_dead() && service.sessions() == 0 {
            self.start_again(&mut service)?;
        }
        service.begin();
        let view = self.layout.view(
            self.table.address(),
            self.frames.address(),
            self.pinned.address(),
        );
        let writable = if self.config.writable { WRITABLE } else { 0 };
        let counting = if self.config.count_hits {
            COUNT_HITS
        } else {
            0
        };
        Ok(View {
            wait_ns: u64::try_from(self.config.wait.as_nanos()).unwrap_or(u64::MAX),
            flags: writable | counting,
            ..view
        })
    }

    /// Ends a session: waits until `stream` has done what is in it, then tells the first thing
    /// that went wrong in kernels since the last time. None is for work that is over.
    ///
    /// # Errors
    /// `OutOfRange` for an index past the end, `AllPinned`, `ReadOnly`, `Poisoned` when a service
    /// thread has died, `FileChanged`, `Io`, each with the offset; `InvalidArgument` when there
    /// was no session; `Cuda` when the caller's work failed.
    pub fn release(&self, stream: Option<Stream>) -> Result<()> {
        if let Some(stream) = stream {
            let mark = self.context().mark()?;
            mark.set(stream)?;
            mark.wait()?;
        }
        let service = self.service.lock();
        let Some(left) = service.end() else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the array is not acquired; every release ends one acquire",
            ));
        };
        let failures = service.take_failures();
        let (status, offset) = self.table.take_error()?;
        if left == 0 {
            self.table.forget(&failures.pages)?;
        } else {
            service.keep_failed(failures.pages);
        }
        match (status, failures.first) {
            (0, None) => Ok(()),
            (0, Some(error)) => Err(error),
            (status, Some(error)) if status <= u32::from(STATUS_IO) + 19 && status >= 20 => {
                Err(error)
            }
            (status, _) => Err(self.kernel_error(status, offset)),
        }
    }

    /// What a kernel found wrong by itself.
    fn kernel_error(&self, status: u32, offset: u64) -> Error {
        let size = self.layout.size_bytes;
        let (kind, text) = match status {
            4 => (
                ErrorKind::OutOfRange,
                format!("a kernel asked for offset {offset} of an array of {size} bytes"),
            ),
            27 => (
                ErrorKind::ReadOnly,
                format!("a kernel wrote at offset {offset}; open the array as writable"),
            ),
            87 => (
                ErrorKind::AllPinned,
                format!(
                    "a kernel wanted the page at {offset} while all {} frames were pinned for \
                     {:?}; give the array more device_bytes or pin fewer pages at once",
                    self.layout.frames, self.config.wait
                ),
            ),
            84 => (
                ErrorKind::Poisoned,
                "a thread that serves kernels has died; acquire the array again".to_owned(),
            ),
            other => (
                ErrorKind::Internal,
                format!("a kernel left status {other} at offset {offset}; please report this"),
            ),
        };
        let error = Error::new(kind, text).with_path(self.file.path());
        if offset == u64::MAX {
            return error;
        }
        error.with_offset(offset)
    }

    /// Writes what kernels have changed to the file, in order. Not durable before `File::sync`.
    /// No kernel may use the array meanwhile.
    ///
    /// # Errors
    /// `InvalidArgument` between `acquire` and `release`; what writing says: the pages stay dirty
    /// then.
    pub fn flush(&self) -> Result<u64> {
        let service = self.service.lock();
        check_idle(&service, "flushed")?;
        self.write_dirty()
    }

    /// Flushes, then forgets every page: kernels read the file anew.
    ///
    /// # Errors
    /// As `flush`.
    pub fn invalidate(&self) -> Result<()> {
        let mut service = self.service.lock();
        check_idle(&service, "invalidated")?;
        self.start_again(&mut service)
    }

    /// Writes dirty pages, empties the table, and replaces the threads: rings, their two sides
    /// and the table begin together.
    fn start_again(&self, service: &mut Service) -> Result<()> {
        self.write_dirty()?;
        self.table.clear()?;
        // New threads sleep until a session begins; old ones end with what they have under way.
        let fresh = Service::start(&self.file, &self.pinned, self.layout)?;
        drop(std::mem::replace(service, fresh));
        ring::zero(&self.pinned, 0, self.layout.staging_offset());
        Ok(())
    }

    fn write_dirty(&self) -> Result<u64> {
        self.table.write_dirty(&self.file, &self.frames)
    }

    /// Its counters. Exact while no kernel runs.
    ///
    /// # Errors
    /// `Cuda`.
    pub fn stats(&self) -> Result<ArrayStats> {
        let _service = self.service.lock();
        let words = self.table.control()?;
        Ok(ArrayStats {
            hits: words[control::HITS],
            misses: words[control::MISSES],
            waits: words[control::WAITS],
            evictions: words[control::EVICTIONS],
            write_backs: words[control::WRITE_BACKS],
            frames: u64::from(self.layout.frames),
            dirty: self.table.dirty_frames()?.len() as u64,
            table_bytes: self.layout.table_bytes(),
            pinned_bytes: self.layout.pinned_bytes(),
        })
    }
}

fn check_idle(service: &Service, what: &str) -> Result<()> {
    if service.sessions() == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("the array is acquired and cannot be {what}; release it first"),
    ))
}

impl Drop for Array {
    fn drop(&mut self) {
        // What can fail has its own call; this is for those who did not make it.
        let _ = self.write_dirty();
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Array({}, {:?})",
            self.file.path().display(),
            self.layout
        )
    }
}
