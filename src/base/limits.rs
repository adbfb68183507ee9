//! Every limit of the project, in one place.

use std::time::Duration;

/// Smallest staging buffer a configuration may ask for, bytes.
pub const BUFFER_SIZE_MIN: u64 = 64 << 10;
/// Largest staging buffer of one transfer thread, bytes.
pub const BUFFER_SIZE_MAX: u64 = 1 << 30;
/// Smallest alignment a configuration may ask for, bytes (a disk sector).
pub const ALIGNMENT_MIN: u64 = 512;
/// Largest alignment a configuration may ask for, bytes (a huge page).
pub const ALIGNMENT_MAX: u64 = 2 << 20;
/// Most prefetch slots.
pub const PREFETCH_SLOTS_MAX: u32 = 1024;
/// Farthest prefetch distance, bytes.
pub const PREFETCH_DISTANCE_MAX: u64 = 1 << 40;
/// Most operations in flight on one transfer thread's queue.
pub const OUTSTANDING_IO_MAX: u32 = 4096;
/// Most operations in one submission to the kernel.
pub const BATCH_SIZE_MAX: u32 = 4096;
/// Longest interval between two looks at something that cannot wake us, microseconds.
pub const POLL_INTERVAL_US_MAX: u64 = 1_000_000;
/// Most transfer threads of one context.
pub const IO_THREADS_MAX: u32 = 128;
/// Most tries after a transient error.
pub const RETRIES_MAX: u32 = 16;
/// Longest first pause before a retry, milliseconds.
pub const BACKOFF_MS_MAX: u32 = 10_000;
/// Longest deadline of the driver probe, milliseconds.
pub const PROBE_TIMEOUT_MS_MAX: u32 = 600_000;
/// Highest CUDA device ordinal that is accepted.
pub const DEVICE_ORDINAL_MAX: i32 = 1023;
/// Largest single transfer, bytes: the largest file offset of the kernel.
pub const TRANSFER_SIZE_MAX: u64 = i64::MAX as u64;
/// Most entries in one batch.
pub const BATCH_ENTRIES_MAX: u64 = 16 << 20;
/// Most segments in one scatter or gather call.
pub const SEGMENTS_MAX: u64 = 1 << 20;
/// Fewest buffers of a streaming reader or writer: one is worked on while another is filled.
pub const STREAM_BUFFERS_MIN: u32 = 2;
/// Most buffers of a streaming reader or writer.
pub const STREAM_BUFFERS_MAX: u32 = 64;
/// Smallest chunk of a streaming reader or writer, bytes.
pub const STREAM_CHUNK_MIN: u64 = 4 << 10;
/// Largest chunk of a streaming reader or writer, bytes.
pub const STREAM_CHUNK_MAX: u64 = 64 << 30;
/// Most ranges that one streaming reader reads.
pub const STREAM_RANGES_MAX: u64 = 16 << 20;
/// Most pieces of one plan of a format reader.
pub const PLAN_PIECES_MAX: u64 = 16 << 20;
/// Most dimensions of a tensor, as NumPy and PyTorch have it.
pub const TENSOR_DIMENSIONS_MAX: usize = 64;
/// Most files of one model.
pub const MODEL_FILES_MAX: usize = 4096;
/// Results of a pipeline that may wait to be taken.
pub const PIPELINE_RESULTS_MAX: usize = 1 << 20;
/// Longest path or text that the ABI takes, bytes.
pub const TEXT_MAX: usize = 1 << 20;
/// Smallest page of a cache, bytes.
pub const CACHE_PAGE_SIZE_MIN: u32 = 4 << 10;
/// Largest page of a cache, bytes.
pub const CACHE_PAGE_SIZE_MAX: u32 = 2 << 20;
/// Most pages of one tier of a cache.
pub const CACHE_PAGES_MAX: u64 = 1 << 29;
/// Longest time that a changed page may wait for its write.
pub const CACHE_FLUSH_DELAY_MAX: Duration = Duration::from_secs(3600);
/// Smallest chunk that has a CRC of its own, bytes.
pub const CRC_CHUNK_MIN: u64 = 512;
/// Largest chunk that has a CRC of its own, bytes.
pub const CRC_CHUNK_MAX: u64 = 1 << 20;

const _: () = assert!(BUFFER_SIZE_MIN.is_power_of_two() && BUFFER_SIZE_MAX.is_power_of_two());
const _: () = assert!(ALIGNMENT_MIN.is_power_of_two() && ALIGNMENT_MAX.is_power_of_two());
