//! What a store tells about itself.

use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use crate::error::Error;
use crate::metrics::Latency;

/// Counters since the store was opened, and sizes now. Each number is right by itself.
#[derive(Debug, Clone, Default)]
pub struct KvStats {
    /// Keys that have a value.
    pub keys: u64,
    /// Memory of keys and references, bytes; small values that no checkpoint stored are included.
    pub index_bytes: u64,
    /// Small values and changes that only memory and the log hold, bytes.
    pub memtable_bytes: u64,
    /// Snapshots held.
    pub snapshots: u64,
    /// The last record that is durable.
    pub durable_lsn: u64,
    /// The last record that was appended.
    pub appended_lsn: u64,

    /// Size of a segment, bytes.
    pub segment_bytes: u64,
    /// Segments in all.
    pub segments: u64,
    /// Segments that are free.
    pub segments_free: u64,
    /// Segments of the durable index.
    pub segments_meta: u64,
    /// Bytes of values and pages that are alive.
    pub live_bytes: u64,
    /// Size of the whole store, bytes.
    pub size_bytes: u64,
    /// Pieces that readers hold against reuse.
    pub pins: u64,

    /// Bytes of keys and values that commits brought.
    pub user_bytes: u64,
    /// Bytes that were written to the disk, the log included.
    pub written_bytes: u64,
    /// `written_bytes` for each of `user_bytes`.
    pub write_amplification: f64,
    /// Bytes that were read from the disk.
    pub read_bytes: u64,
    /// Reads of the disk.
    pub reads: u64,
    /// Writes to the disk, those of the log not included.
    pub writes: u64,
    /// Durable writes: those of the log.
    pub durable_writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Rounds of cleaning.
    pub gc_rounds: u64,
    /// Bytes that cleaning moved.
    pub gc_bytes: u64,
    /// Pages found in the cache.
    pub cache_hits: u64,
    /// Pages read.
    pub cache_misses: u64,
    /// Bytes of pages in the cache.
    pub cache_bytes: u64,

    /// Reads of several pieces that were handed over at once: those of values above 1 MiB and of
    /// values in several places (DiskStats). Each piece is one of `reads`.
    pub vectored_reads: u64,
    /// Gathered writes (DiskStats): none. What is small is copied together, for it is summed up
    /// whole, and `coalesced_writes` counts it; what is large is written from where it lies.
    pub vectored_writes: u64,
    /// Pages that were joined with others into one write (DiskStats).
    pub coalesced_writes: u64,
    /// Operations through io_uring (DiskStats): the pieces of `vectored_reads`, where the system
    /// has it. All others are calls that block.
    pub io_uring_ops: u64,
    /// Checksums of values and pages by the processor's instruction (DiskStats).
    pub hardware_crc_ops: u64,
    /// Operations of the disk (DiskStats).
    pub total_iops: u64,
    /// Operations in the last second.
    pub iops: u64,
    /// Operations in the best second (DiskStats).
    pub peak_iops: u64,
    /// Batches of the log: each gathers the records of many commits into one write (WALStats).
    pub wal_vectored_writes: u64,
    /// Checksums of the log by the processor's instruction: two a batch (WALStats).
    pub wal_hardware_crc_ops: u64,
    /// Loops that verified several chunks, and log batches summed whole (WALStats).
    pub batched_checksums: u64,

    /// Records of the log.
    pub wal_records: u64,
    /// Commits.
    pub wal_commits: u64,
    /// Batches of the log.
    pub wal_batches: u64,
    /// Most commits of one batch.
    pub wal_commits_per_batch_max: u64,
    /// Times that a commit waited for room in the log.
    pub wal_stalls: u64,
    /// Bytes of the log's ring in use.
    pub wal_used_bytes: u64,
    /// Size of the ring, bytes.
    pub wal_ring_bytes: u64,

    /// Reads of the disk.
    pub read_latency: Latency,
    /// Writes to the disk.
    pub write_latency: Latency,
    /// Durable writes.
    pub durable_latency: Latency,
    /// Flushes.
    pub flush_latency: Latency,
    /// Batches of the log: the flush that their data needs and the durable write.
    pub wal_sync_latency: Latency,
    /// Gets into host memory, but those of snapshots and scans; about one in 64 is measured.
    pub get_latency: Latency,
    /// Puts until they are durable: `put`. All are measured.
    pub put_latency: Latency,
    /// Puts until they are visible: `put_async`; about one in 64 is measured.
    pub put_async_latency: Latency,
    /// Nanoseconds since the store was opened.
    pub elapsed_ns: u64,
    /// Whether the store refuses writes since a failure.
    pub poisoned: bool,
    /// The first failure of the background thread.
    pub last_error: Option<Error>,
}

/// Whether checksums use an instruction of the processor.
fn has_crc_instruction() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("sse4.2")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("crc")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

impl Shared {
    pub fn stats(&self) -> KvStats {
        let c = &self.counters;
        let wal = self.wal.stats();
        let (segments_free, segments) = self.space.free_and_all();
        let [read_latency, write_latency, durable_latency, flush_latency] = self.disk.latencies();
        let (total_iops, iops, peak_iops) = self.disk.operations();
        let hardware = u64::from(has_crc_instruction());
        let user_bytes = c.user_bytes.get();
        let written = self.disk.written_bytes.load(Relaxed) + self.disk.durable_bytes.load(Relaxed);
        KvStats {
            keys: self.index.keys(),
            index_bytes: self.index.bytes(),
            memtable_bytes: self.memtable_bytes(),
            snapshots: self.snapshots.all().len() as u64,
            durable_lsn: self.wal.durable_lsn(),
            appended_lsn: self.wal.appended_lsn(),
            segment_bytes: self.space.segment_bytes(),
            segments,
            segments_free,
            segments_meta: self.space.meta_segments().len() as u64,
            live_bytes: self.space.live(),
            size_bytes: self.space.segment_start(segments as u32),
            pins: self.space.pins(),
            user_bytes,
            written_bytes: written,
            write_amplification: if user_bytes == 0 {
                0.0
            } else {
                written as f64 / user_bytes as f64
            },
            read_bytes: self.disk.read_bytes.load(Relaxed),
            reads: self.disk.reads.load(Relaxed),
            writes: self.disk.writes.load(Relaxed),
            durable_writes: self.disk.durable_writes.load(Relaxed),
            flushes: self.disk.flushes.load(Relaxed),
            checkpoints: c.checkpoints.load(Relaxed),
            gc_rounds: c.gc_rounds.load(Relaxed),
            gc_bytes: c.gc_bytes.load(Relaxed),
            cache_hits: c.cache_hits.load(Relaxed),
            cache_misses: c.cache_misses.load(Relaxed),
            cache_bytes: self.cache.weight(),
            vectored_reads: self.disk.vectored_reads.load(Relaxed),
            vectored_writes: 0,
            coalesced_writes: c.coalesced.load(Relaxed),
            io_uring_ops: self.disk.uring_reads.load(Relaxed),
            hardware_crc_ops: c.checksums.load(Relaxed) * hardware,
            total_iops,
            iops,
            peak_iops,
            wal_vectored_writes: wal.batches,
            wal_hardware_crc_ops: 2 * wal.batches * hardware,
            batched_checksums: c.checksum_batches.load(Relaxed) + wal.batches,
            wal_records: wal.records,
            wal_commits: wal.commits,
            wal_batches: wal.batches,
            wal_commits_per_batch_max: wal.commits_per_batch_max,
            wal_stalls: wal.stalls,
            wal_used_bytes: wal.used_bytes,
            wal_ring_bytes: wal.ring_bytes,
            read_latency,
            write_latency,
            durable_latency,
            flush_latency,
            wal_sync_latency: self.wal.sync_latency(),
            get_latency: c.get.summary(),
            put_latency: c.put.summary(),
            put_async_latency: c.put_async.summary(),
            elapsed_ns: self.disk.elapsed_ns(),
            poisoned: self.root.is_broken() || self.wal.is_poisoned(),
            last_error: self.last_error.lock().clone(),
        }
    }
}
