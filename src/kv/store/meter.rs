//! What the disk was asked to do, counted where it is asked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::base::clock::now_ns;
use crate::error::Result;
use crate::io::{FilePiece, WrittenPiece};
use crate::kv::disk::{Disk, ReadAndWritten};
use crate::metrics::{Histogram, Latency};

/// A disk that counts.
#[derive(Debug)]
pub(crate) struct Meter {
    disk: Arc<dyn Disk>,
    pub reads: AtomicU64,
    pub read_bytes: AtomicU64,
    pub writes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub durable_writes: AtomicU64,
    pub durable_bytes: AtomicU64,
    pub flushes: AtomicU64,
    /// Reads of several pieces at once, and the pieces that io_uring read.
    pub vectored_reads: AtomicU64,
    pub uring_reads: AtomicU64,
    read: Histogram,
    write: Histogram,
    durable: Histogram,
    flush: Histogram,
    /// The second that is counted now (upper half) and its operations (lower half).
    second: AtomicU64,
    peak: AtomicU64,
    start_ns: u64,
}

impl Meter {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            durable_writes: AtomicU64::new(0),
            durable_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            vectored_reads: AtomicU64::new(0),
            uring_reads: AtomicU64::new(0),
            read: Histogram::default(),
            write: Histogram::default(),
            durable: Histogram::default(),
            flush: Histogram::default(),
            second: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            start_ns: now_ns(),
        }
    }

    /// Latency of reads, writes, durable writes and flushes.
    pub fn latencies(&self) -> [Latency; 4] {
        [&self.read, &self.write, &self.durable, &self.flush].map(Histogram::summary)
    }

    /// Operations in all, in the last whole or running second, and in the best second.
    pub fn operations(&self) -> (u64, u64, u64) {
        let all = [
            &self.reads,
            &self.writes,
            &self.durable_writes,
            &self.flushes,
        ];
        let total = all.map(|n| n.load(Relaxed)).iter().sum();
        let packed = self.second.load(Relaxed);
        let age = (now_ns() / 1_000_000_000).saturating_sub(packed >> 32);
        let now = if age <= 1 { packed & 0xFFFF_FFFF } else { 0 };
        (total, now, self.peak.load(Relaxed))
    }

    /// Nanoseconds since the store was opened.
    pub fn elapsed_ns(&self) -> u64 {
        now_ns() - self.start_ns
    }

    fn timed<R>(&self, into: &Histogram, run: impl FnOnce() -> Result<R>) -> Result<R> {
        let start = now_ns();
        let result = run();
        let end = now_ns();
        into.record(end - start);
        self.count_now(end, 1);
        result
    }

    /// Counts operations of this second.
    fn count_now(&self, now: u64, operations: u64) {
        let second = now / 1_000_000_000;
        let next = |packed: u64| {
            let same = packed >> 32 == second & 0xFFFF_FFFF;
            Some(if same { packed } else { second << 32 } + operations)
        };
        let before = self.second.fetch_update(Relaxed, Relaxed, next);
        let count = before.ok().and_then(next).unwrap_or(0) & 0xFFFF_FFFF;
        if count > self.peak.load(Relaxed) {
            self.peak.fetch_max(count, Relaxed);
        }
    }

    /// Counts reads that went to the disk by another way.
    pub fn add_reads(&self, operations: u64, bytes: u64) {
        self.reads.fetch_add(operations, Relaxed);
        self.read_bytes.fetch_add(bytes, Relaxed);
        self.count_now(now_ns(), operations);
    }

    /// As `add_reads`, for a write.
    pub fn add_write(&self, bytes: u64) {
        self.writes.fetch_add(1, Relaxed);
        self.written_bytes.fetch_add(bytes, Relaxed);
        self.count_now(now_ns(), 1);
    }
}

impl Disk for Meter {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.disk.resize(size)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Relaxed);
        self.read_bytes.fetch_add(into.len() as u64, Relaxed);
        self.timed(&self.read, || self.disk.read(offset, into))
    }

    fn read_again(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Relaxed);
        self.read_bytes.fetch_add(into.len() as u64, Relaxed);
        self.timed(&self.read, || self.disk.read_again(offset, into))
    }

    fn read_many(&self, pieces: &mut [FilePiece<'_>]) -> Result<u64> {
        if let [(offset, into)] = pieces {
            self.read(*offset, into)?;
            return Ok(0);
        }
        let bytes: usize = pieces.iter().map(|(_, into)| into.len()).sum();
        self.reads.fetch_add(pieces.len() as u64, Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Relaxed);
        self.vectored_reads.fetch_add(1, Relaxed);
        let by_uring = self.timed(&self.read, || self.disk.read_many(pieces))?;
        self.uring_reads.fetch_add(by_uring, Relaxed);
        Ok(by_uring)
    }

    /// Timed as one operation: a write, where there is one.
    fn read_and_write(
        &self,
        reads: &mut [FilePiece<'_>],
        writes: &[WrittenPiece<'_>],
    ) -> ReadAndWritten {
        let read: usize = reads.iter().map(|(_, into)| into.len()).sum();
        let written: usize = writes.iter().map(|(_, from)| from.len()).sum();
        self.reads.fetch_add(reads.len() as u64, Relaxed);
        self.read_bytes.fetch_add(read as u64, Relaxed);
        self.writes.fetch_add(writes.len() as u64, Relaxed);
        self.written_bytes.fetch_add(written as u64, Relaxed);
        let vectored = u64::from(reads.len() > 1);
        self.vectored_reads.fetch_add(vectored, Relaxed);
        let into = if writes.is_empty() {
            &self.read
        } else {
            &self.write
        };
        let start = now_ns();
        let done = self.disk.read_and_write(reads, writes);
        let end = now_ns();
        into.record(end - start);
        self.count_now(end, (reads.len() + writes.len()) as u64);
        self.uring_reads.fetch_add(done.by_uring, Relaxed);
        done
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.writes.fetch_add(1, Relaxed);
        self.written_bytes.fetch_add(from.len() as u64, Relaxed);
        self.timed(&self.write, || self.disk.write(offset, from))
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.durable_writes.fetch_add(1, Relaxed);
        self.durable_bytes.fetch_add(from.len() as u64, Relaxed);
        self.timed(&self.durable, || self.disk.write_durable(offset, from))
    }

    fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, Relaxed);
        self.timed(&self.flush, || self.disk.flush())
    }

    fn sync_name(&self) -> Result<()> {
        self.disk.sync_name()
    }

    fn discard(&self, offset: u64, size: u64) -> Result<()> {
        self.disk.discard(offset, size)
    }

    fn path(&self) -> Option<&Path> {
        self.disk.path()
    }
}
