//! Counters and latency histograms of one context, and the check against the targets.
//!
//! Recording is a handful of relaxed atomic additions: no lock, no allocation. A snapshot is not
//! a single instant; each number in it is right by itself.

#![forbid(unsafe_code)]

mod histogram;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::base::clock::now_ns;
pub use histogram::{Histogram, Latency};

/// Sustained read target, bytes a second (specification, overview).
pub const TARGET_READ_BYTES_PER_SECOND: f64 = 4e9;
/// Sustained write target, bytes a second (specification, overview).
pub const TARGET_WRITE_BYTES_PER_SECOND: f64 = 2e9;
/// Latency target of a 4 KiB aligned read, microseconds (specification, overview).
pub const TARGET_LATENCY_US: f64 = 100.0;

/// Counters of one direction, on a cache line of their own. Operations are what the histogram
/// counts.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Direction {
    bytes: AtomicU64,
    errors: AtomicU64,
    latency: Histogram,
}

/// Everything that a context counts.
#[derive(Debug)]
pub struct Metrics {
    start_ns: u64,
    /// Reads: file to memory.
    pub read: Direction,
    /// Writes: memory to file.
    pub write: Direction,
    /// Times a transfer thread had work but no free staging slot.
    pub buffer_waits: AtomicU64,
    /// Staging slots in use now.
    pub active_buffers: AtomicU64,
    /// Retries after transient errors.
    pub retries: AtomicU64,
    /// Pieces that went another way after their path refused.
    pub fallbacks: AtomicU64,
    /// Bytes by path, indexed by `engine::Path as usize`.
    pub path_bytes: [AtomicU64; PATHS],
}

/// Number of paths that are counted apart.
pub const PATHS: usize = 6;

impl Default for Metrics {
    fn default() -> Self {
        Self {
            start_ns: now_ns(),
            read: Direction::default(),
            write: Direction::default(),
            buffer_waits: AtomicU64::new(0),
            active_buffers: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            path_bytes: Default::default(),
        }
    }
}

impl Direction {
    /// Counts one finished operation.
    #[inline]
    pub fn record(&self, bytes: u64, latency_ns: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.latency.record(latency_ns);
    }

    /// Counts `operations` finished together, each with the latency of the whole.
    pub fn record_many(&self, operations: u64, bytes: u64, latency_ns: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.latency.record_many(latency_ns, operations);
    }

    /// Counts one failed operation.
    pub fn record_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    fn snapshot(&self) -> DirectionSnapshot {
        let (operations, latency) = self.latency.counted();
        DirectionSnapshot {
            bytes: self.bytes.load(Relaxed),
            operations,
            errors: self.errors.load(Relaxed),
            latency,
        }
    }
}

/// The counters of one direction, read once.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirectionSnapshot {
    /// Bytes moved.
    pub bytes: u64,
    /// Operations that ended well.
    pub operations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Latency of the operations that ended well.
    pub latency: Latency,
}

/// All counters, read once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Snapshot {
    /// Nanoseconds since the context was opened.
    pub elapsed_ns: u64,
    /// Reads.
    pub read: DirectionSnapshot,
    /// Writes.
    pub write: DirectionSnapshot,
    /// Times work waited for a staging slot.
    pub buffer_waits: u64,
    /// Staging slots in use now.
    pub active_buffers: u64,
    /// Retries after transient errors.
    pub retries: u64,
    /// Pieces that fell back to another path.
    pub fallbacks: u64,
    /// Bytes by path.
    pub path_bytes: [u64; PATHS],
}

/// Measured figures beside the targets of the specification.
#[derive(Debug, Clone, Copy)]
pub struct PerformanceStatus {
    /// Bytes read a second over the life of the context.
    pub read_bytes_per_second: f64,
    /// Bytes written a second over the life of the context.
    pub write_bytes_per_second: f64,
    /// Mean read latency, microseconds.
    pub read_latency_us: f64,
    /// Whether `TARGET_READ_BYTES_PER_SECOND` is met.
    pub read_target_met: bool,
    /// Whether `TARGET_WRITE_BYTES_PER_SECOND` is met.
    pub write_target_met: bool,
    /// Whether reads happened and stayed within `TARGET_LATENCY_US` on average.
    pub latency_target_met: bool,
}

impl Metrics {
    /// Reads all counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut path_bytes = [0; PATHS];
        for (to, from) in path_bytes.iter_mut().zip(&self.path_bytes) {
            *to = from.load(Relaxed);
        }
        Snapshot {
            elapsed_ns: now_ns() - self.start_ns,
            read: self.read.snapshot(),
            write: self.write.snapshot(),
            buffer_waits: self.buffer_waits.load(Relaxed),
            active_buffers: self.active_buffers.load(Relaxed),
            retries: self.retries.load(Relaxed),
            fallbacks: self.fallbacks.load(Relaxed),
            path_bytes,
        }
    }
}

impl Snapshot {
    /// The figures since the context was opened, beside the targets.
    #[must_use]
    pub fn performance(&self) -> PerformanceStatus {
        let seconds = (self.elapsed_ns as f64 / 1e9).max(1e-9);
        let read = self.read.bytes as f64 / seconds;
        let write = self.write.bytes as f64 / seconds;
        let latency = self.read.latency.mean_ns as f64 / 1e3;
        PerformanceStatus {
            read_bytes_per_second: read,
            write_bytes_per_second: write,
            read_latency_us: latency,
            read_target_met: read >= TARGET_READ_BYTES_PER_SECOND,
            write_target_met: write >= TARGET_WRITE_BYTES_PER_SECOND,
            latency_target_met: self.read.operations > 0 && latency <= TARGET_LATENCY_US,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_context_meets_no_target() {
        let status = Metrics::default().snapshot().performance();
        assert!(!status.read_target_met && !status.write_target_met && !status.latency_target_met);
    }

    #[test]
    fn targets_follow_the_counters() {
        let mut s = Snapshot {
            elapsed_ns: 1_000_000_000,
            ..Snapshot::default()
        };
        s.read.bytes = 4_000_000_000;
        s.read.operations = 1;
        s.read.latency.mean_ns = 100_001;
        s.write.bytes = 1_999_999_999;
        let p = s.performance();
        assert!(p.read_target_met && !p.write_target_met && !p.latency_target_met);
    }
}
