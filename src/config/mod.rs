//! How a context is set up: fields, rules, profiles and environment variables.
//!
//! Every field has a rule, and `Config::validate` names the field, its value and the rule that it
//! breaks. Nothing here touches a device or a file. Guarded by `tests/config_rules.rs`.

#![forbid(unsafe_code)]

mod env;

use crate::base::limits;
use crate::error::{Error, ErrorKind, Result};

pub use env::{VARIABLES, parse_device, parse_path, parse_size};

/// Which device: plain host memory, no GPU needed.
pub const DEVICE_HOST: i32 = -1;
/// Which device: CUDA device 0 when it works, else the host.
pub const DEVICE_AUTO: i32 = -2;

/// A starting point for tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Smallest buffers and queues: the first byte soon.
    LowLatency,
    /// Largest buffers and queues: the most bytes a second.
    HighThroughput,
    /// In between; the default.
    Balanced,
}

/// Which way bytes may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathPolicy {
    /// The engine chooses, and falls back where a path refuses.
    Auto,
    /// cuFile for every transfer between a file and device memory.
    CuFile,
    /// O_DIRECT through pinned staging memory, page cache untouched.
    Direct,
    /// Buffered reads and writes through the page cache.
    Buffered,
}

/// How a context is set up. `Config::default()` is the balanced profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Pinned staging memory of each transfer thread, bytes: a power of two, 64 KiB to 1 GiB.
    pub buffer_size: u64,
    /// Least alignment of direct I/O, bytes: a power of two, 512 to 2 MiB. A file may need more.
    pub alignment: u64,
    /// Chunks read ahead at once by a prefetcher, 1 to 1024.
    pub prefetch_slots: u32,
    /// Operations in flight on each transfer thread's queue, 1 to 4096.
    pub max_outstanding_io: u32,
    /// Whether a thread reads the next piece while the last one is copied to the device.
    pub double_buffering: bool,
    /// How far ahead a prefetcher reads, bytes: a multiple of `buffer_size`, at most 1 TiB.
    pub prefetch_distance: u64,
    /// CUDA device ordinal, `DEVICE_HOST` or `DEVICE_AUTO`.
    pub gpu_device: i32,
    /// Whether operations are handed to the kernel together rather than one by one.
    pub batch_mode: bool,
    /// Operations in one submission to the kernel, 1 to `max_outstanding_io`.
    pub max_batch_size: u32,
    /// How long a waiting thread looks before it sleeps, microseconds, at most 1,000,000.
    pub poll_interval_us: u64,
    /// Whether a transfer that its path refuses may go another way.
    pub mmap_fallback: bool,
    /// Transfer threads, 0 to 128. 0 picks the number of processors, at most 8.
    pub io_threads: u32,
    /// Further tries after a transient error, at most 16.
    pub max_retries: u32,
    /// Pause before the first retry, milliseconds, doubled for each further one; at most 10,000.
    pub backoff_ms: u32,
    /// How long the CUDA driver may take to answer at open, milliseconds, 1 to 600,000.
    pub probe_timeout_ms: u32,
    /// Which way bytes may take.
    pub path: PathPolicy,
    /// Whether every transfer computes a CRC32C of what moved.
    pub checksum: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::profile(Profile::Balanced)
    }
}

impl Config {
    /// The settings of a tuning profile (specification, section 10).
    #[must_use]
    pub fn profile(profile: Profile) -> Self {
        let balanced = Self {
            buffer_size: 16 << 20,
            alignment: 4096,
            prefetch_slots: 8,
            max_outstanding_io: 32,
            double_buffering: true,
            prefetch_distance: 64 << 20,
            gpu_device: DEVICE_AUTO,
            batch_mode: true,
            max_batch_size: 16,
            poll_interval_us: 10,
            mmap_fallback: true,
            io_threads: 0,
            max_retries: 3,
            backoff_ms: 10,
            probe_timeout_ms: 20_000,
            path: PathPolicy::Auto,
            checksum: false,
        };
        match profile {
            Profile::Balanced => balanced,
            Profile::LowLatency => Self {
                buffer_size: 64 << 10,
                prefetch_slots: 2,
                max_outstanding_io: 4,
                double_buffering: false,
                prefetch_distance: 256 << 10,
                batch_mode: false,
                max_batch_size: 1,
                ..balanced
            },
            Profile::HighThroughput => Self {
                buffer_size: 64 << 20,
                prefetch_slots: 16,
                max_outstanding_io: 64,
                prefetch_distance: 256 << 20,
                max_batch_size: 32,
                ..balanced
            },
        }
    }

    /// Checks every field; the error names the first that breaks its rule.
    ///
    /// # Errors
    /// `InvalidConfig` with the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        power_of_two(
            "buffer_size",
            self.buffer_size,
            limits::BUFFER_SIZE_MIN,
            limits::BUFFER_SIZE_MAX,
        )?;
        power_of_two(
            "alignment",
            self.alignment,
            limits::ALIGNMENT_MIN,
            limits::ALIGNMENT_MAX,
        )?;
        if self.alignment > self.buffer_size {
            return Err(broken(
                "alignment",
                self.alignment,
                "be at most buffer_size",
            ));
        }
        range(
            "prefetch_slots",
            self.prefetch_slots,
            1,
            limits::PREFETCH_SLOTS_MAX,
        )?;
        range(
            "max_outstanding_io",
            self.max_outstanding_io,
            1,
            limits::OUTSTANDING_IO_MAX,
        )?;
        range(
            "prefetch_distance",
            self.prefetch_distance,
            0,
            limits::PREFETCH_DISTANCE_MAX,
        )?;
        if !self.prefetch_distance.is_multiple_of(self.buffer_size) {
            return Err(broken(
                "prefetch_distance",
                self.prefetch_distance,
                &format!("be a multiple of buffer_size ({})", self.buffer_size),
            ));
        }
        if self.gpu_device < DEVICE_AUTO || self.gpu_device > limits::DEVICE_ORDINAL_MAX {
            return Err(broken(
                "gpu_device",
                self.gpu_device,
                "be a CUDA ordinal, -1 (host) or -2 (auto)",
            ));
        }
        range(
            "max_batch_size",
            self.max_batch_size,
            1,
            limits::BATCH_SIZE_MAX,
        )?;
        if self.max_batch_size > self.max_outstanding_io {
            return Err(broken(
                "max_batch_size",
                self.max_batch_size,
                &format!(
                    "be at most max_outstanding_io ({})",
                    self.max_outstanding_io
                ),
            ));
        }
        range(
            "poll_interval_us",
            self.poll_interval_us,
            0,
            limits::POLL_INTERVAL_US_MAX,
        )?;
        range("io_threads", self.io_threads, 0, limits::IO_THREADS_MAX)?;
        range("max_retries", self.max_retries, 0, limits::RETRIES_MAX)?;
        range("backoff_ms", self.backoff_ms, 0, limits::BACKOFF_MS_MAX)?;
        range(
            "probe_timeout_ms",
            self.probe_timeout_ms,
            1,
            limits::PROBE_TIMEOUT_MS_MAX,
        )
    }

    /// Buffers that a double-buffered reader uses: 2, or 1 without double buffering.
    #[must_use]
    pub fn buffer_count(&self) -> u64 {
        if self.double_buffering { 2 } else { 1 }
    }

    /// Device memory that readers and prefetch slots of this configuration take, bytes.
    #[must_use]
    pub fn total_gpu_memory(&self) -> u64 {
        self.buffer_size
            .saturating_mul(self.buffer_count())
            .saturating_mul(u64::from(self.prefetch_slots))
    }

    /// Transfer threads that `io_threads` comes to on this machine.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        if self.io_threads > 0 {
            return self.io_threads as usize;
        }
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8)
    }
}

fn broken(field: &str, value: impl std::fmt::Display, rule: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("{field} is {value}; it must {rule}"),
    )
}

fn power_of_two(field: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if value.is_power_of_two() && (min..=max).contains(&value) {
        return Ok(());
    }
    Err(broken(
        field,
        value,
        &format!("be a power of two from {min} to {max}"),
    ))
}

fn range<T: PartialOrd + std::fmt::Display>(field: &str, value: T, min: T, max: T) -> Result<()> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(broken(field, value, &format!("be from {min} to {max}")))
}
