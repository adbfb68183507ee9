//! The statistics of a store as the header shows them.

use core::ffi::c_char;

use super::gds_kv_latency_t;

/// Counters of a store since it was opened, and sizes now; each right by itself. Start from
/// GDS_KV_STATS_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_stats_t {
    /// sizeof(gds_kv_stats_t) as the caller compiled it.
    pub struct_size: u32,
    /// 1 when the store refuses changes since a failure.
    pub poisoned: u32,
    /// The first failure of the background thread, a gds_status_t; GDS_STATUS_OK: none.
    pub background_status: i32,
    /// Zero.
    pub reserved: u32,
    /// Keys that have a value.
    pub keys: u64,
    /// Memory of keys and references, bytes; small values that no checkpoint stored are
    /// included.
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
    /// written_bytes for each of user_bytes.
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
    /// Reads of several pieces that were handed over at once: those of values above 1 MiB
    /// and of values in several places. Each piece is one of `reads`.
    pub vectored_reads: u64,
    /// Gathered writes: none. What is small is copied together, and coalesced_writes counts
    /// it; what is large is written from where it lies.
    pub vectored_writes: u64,
    /// Pages that were joined with others into one write.
    pub coalesced_writes: u64,
    /// Operations through io_uring: the pieces of vectored_reads, where the system has it.
    /// All others are calls that block.
    pub io_uring_ops: u64,
    /// Checksums of values and pages by the processor's instruction.
    pub hardware_crc_ops: u64,
    /// Operations of the disk.
    pub total_iops: u64,
    /// Operations in the last second.
    pub iops: u64,
    /// Operations in the best second.
    pub peak_iops: u64,
    /// Batches of the log: each gathers the records of many commits into one write.
    pub wal_vectored_writes: u64,
    /// Checksums of the log by the processor's instruction: two a batch.
    pub wal_hardware_crc_ops: u64,
    /// Loops that verified several chunks, and log batches summed whole.
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
    /// Reads of the disk: how long they took.
    pub read_latency: gds_kv_latency_t,
    /// Writes to the disk: how long they took.
    pub write_latency: gds_kv_latency_t,
    /// Durable writes: how long they took.
    pub durable_latency: gds_kv_latency_t,
    /// Flushes: how long they took.
    pub flush_latency: gds_kv_latency_t,
    /// Batches of the log, with the flush that their data needs: how long they took.
    pub wal_sync_latency: gds_kv_latency_t,
    /// Nanoseconds since the store was opened.
    pub elapsed_ns: u64,
    /// What that failure had to say, cut to fit; "" if there was none.
    pub background_error: [c_char; 256],
    /// Gets into host memory, but not of snapshots and scans: how long they took; about one
    /// in 64 is measured.
    pub get_latency: gds_kv_latency_t,
    /// Puts until they were durable: how long they took.
    pub put_latency: gds_kv_latency_t,
    /// Puts until they were visible, by gds_kv_put_async(): how long they took; about one in
    /// 64 is measured.
    pub put_async_latency: gds_kv_latency_t,
}
