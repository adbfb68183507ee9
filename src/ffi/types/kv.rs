//! The key-value store as the header shows it.

use core::ffi::{c_char, c_void};

/// A store: keys with values in one file or block device. May be used from many threads at
/// once. Made by gds_kv_open(), given back to gds_kv_close().
#[derive(Debug)]
pub struct gds_kv_t {
    _private: [u8; 0],
}

/// Changes that will be one commit. Made by gds_kv_batch_create(), given back to
/// gds_kv_batch_destroy().
#[derive(Debug)]
pub struct gds_kv_batch_t {
    _private: [u8; 0],
}

/// A value that is written piece by piece. One thread at a time. Made by
/// gds_kv_writer_open(), given back to gds_kv_writer_close().
#[derive(Debug)]
pub struct gds_kv_writer_t {
    _private: [u8; 0],
}

/// A store as it was at one moment. May be used from many threads at once. Made by
/// gds_kv_snapshot_open(), given back to gds_kv_snapshot_close().
#[derive(Debug)]
pub struct gds_kv_snapshot_t {
    _private: [u8; 0],
}

/// Keys in order. One thread at a time. Made by gds_kv_scan_open() or
/// gds_kv_snapshot_scan(), given back to gds_kv_scan_close().
#[derive(Debug)]
pub struct gds_kv_scan_t {
    _private: [u8; 0],
}

/// How the file or device of a store is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_kv_level_t {
    /// By reads and writes, past the page cache where that can be.
    GDS_KV_LEVEL_FILE = 0,
    /// By a mapping of a file in persistent memory, with cache-line flushes. Refused with
    /// GDS_STATUS_NOT_SUPPORTED where the file system does not map with MAP_SYNC.
    GDS_KV_LEVEL_DAX = 1,
}

/// How a store is made and opened. Start from GDS_KV_CONFIG_INIT or gds_kv_config_init().
/// Where a field says "0 picks", 0 stands for that value. The first four sizes count when
/// the store is made; later it keeps what it was made with.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_config_t {
    /// sizeof(gds_kv_config_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Largest value that is kept in the log and in shared pages, bytes, at most 16384;
    /// larger ones get room of their own. 0 picks 4032.
    pub inline_max_bytes: u32,
    /// The whole store, bytes. 0: a file grows as needed, a block device is used whole.
    pub size_bytes: u64,
    /// The ring of the log, bytes, a multiple of 4096. 0 picks 64 MiB.
    pub wal_bytes: u64,
    /// A segment, bytes, a power of two from 64 KiB to 1 GiB. 0 picks 64 MiB.
    pub segment_bytes: u64,
    /// From one copy of the superblock to the next, bytes, a multiple of 4096. 0 picks
    /// 1 MiB.
    pub superblock_spacing_bytes: u64,
    /// Small values and changes in memory that start a checkpoint, bytes. 0 picks 64 MiB.
    pub memtable_bytes: u64,
    /// Host memory for pages of small values that were read, bytes. 0 picks 64 MiB.
    pub cache_bytes: u64,
    /// Memory that keys and references may take, bytes; 0: no limit.
    pub index_bytes_max: u64,
    /// Changes that may wait for the log's thread, bytes. 0 picks 16 MiB.
    pub pending_bytes: u64,
    /// One write of the log, bytes, a multiple of 4096. 0 picks 1 MiB.
    pub max_batch_bytes: u32,
    /// How long a change may wait for room before it fails, milliseconds. 0 picks 10000.
    pub stall_ms: u32,
    /// Whether to make a store where there is none, a gds_switch_t; DEFAULT is on.
    pub create: i32,
    /// Whether to refuse a file that is there already, a gds_switch_t; DEFAULT is off.
    pub exclusive: i32,
    /// Whether to keep keys in order, which scans need, a gds_switch_t; DEFAULT is on.
    pub ordered: i32,
    /// Zero.
    pub reserved: u32,
    /// How the store is reached this time, a gds_kv_level_t.
    pub level: i32,
    /// Zero.
    pub reserved_2: u32,
}

/// A key of a scan. Pointers are the library's, valid until the scan's next call. This
/// struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_entry_t {
    /// The key.
    pub key: *const c_void,
    /// Bytes of it.
    pub key_size: u64,
    /// The value; NULL from gds_kv_scan_next_key().
    pub value: *const c_void,
    /// Bytes of it, also where it was not read.
    pub value_size: u64,
}

/// Something that verification found. Pointers are valid during the call. Start from
/// nothing: the library fills it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_problem_t {
    /// Bytes of this struct that were filled.
    pub struct_size: u32,
    /// A gds_status_t.
    pub status: i32,
    /// The key whose value it is; NULL for the store's own structures.
    pub key: *const c_void,
    /// Bytes of it.
    pub key_size: u64,
    /// Where in the file, bytes, or UINT64_MAX.
    pub file_offset: u64,
    /// What is wrong. Never NULL.
    pub message: *const c_char,
}

/// What verification found. Start from GDS_KV_REPORT_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_report_t {
    /// sizeof(gds_kv_report_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Keys whose values were read.
    pub keys: u64,
    /// Bytes of values that are what was written.
    pub bytes: u64,
    /// Problems; 0: all is well.
    pub problems: u64,
}

/// What repair did. Start from GDS_KV_REPAIR_REPORT_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_repair_report_t {
    /// sizeof(gds_kv_repair_report_t) as the caller compiled it.
    pub struct_size: u32,
    /// 1: the store was well, and nothing was changed.
    pub was_clean: u32,
    /// 1: the index was rebuilt from what was found; 0: damaged values were dropped at most.
    pub rebuilt: u32,
    /// Why it could not be opened, a gds_status_t; GDS_STATUS_OK: it could.
    pub reason_status: i32,
    /// Keys that the store has now.
    pub keys: u64,
    /// Keys whose newest value is lost.
    pub lost: u64,
    /// What that reason had to say, cut to fit; "" if there was none.
    pub reason: [c_char; 256],
    /// Keys of values whose place only a summary of a segment told.
    pub from_summaries: u64,
    /// Keys that the store has now and that may have been deleted: no log says that what
    /// was found is the newest, and a delete was stored after it was written.
    pub uncertain: u64,
}

/// Told of each problem, on the thread that verifies; of the first thousand. Must not throw
/// or longjmp, and must not use the store.
pub type gds_kv_problem_fn =
    Option<unsafe extern "C" fn(problem: *const gds_kv_problem_t, user_data: *mut c_void)>;

/// Told once that everything up to `lsn` is durable, or, with another status than
/// GDS_STATUS_OK, that it never will be.
///
/// Runs on the log's thread, or at once on the thread that asked. Must not throw, longjmp or
/// block, and must not use the store: others wait for it.
pub type gds_kv_durable_fn =
    Option<unsafe extern "C" fn(lsn: u64, status: i32, user_data: *mut c_void)>;

/// How long operations took, nanoseconds. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_latency_t {
    /// Mean.
    pub mean_ns: u64,
    /// Median; a percentile may be one sixteenth too high.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}
