//! Reading ahead as the header shows it.

/// Watches the accesses of one file and reads pages into a cache before they are wanted. May
/// be used from many threads at once. Made by gds_prefetch_open(), given back to
/// gds_prefetch_close().
#[derive(Debug)]
pub struct gds_prefetch_t {
    _private: [u8; 0],
}

/// What the accesses of a file have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_pattern_t {
    /// Too few accesses, or none of the others.
    GDS_PATTERN_UNKNOWN = 0,
    /// Each begins behind the last one, within a chunk or where that ended.
    GDS_PATTERN_SEQUENTIAL = 1,
    /// Each is as far from the last one.
    GDS_PATTERN_STRIDED = 2,
    /// Hardly two steps are alike.
    GDS_PATTERN_RANDOM = 3,
}

/// How to read ahead. Start from GDS_PREFETCH_CONFIG_INIT or gds_prefetch_config_init().
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_prefetch_config_t {
    /// sizeof(gds_prefetch_config_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Requests that are read at once, at most 1024. 0 picks prefetch_slots of the context.
    pub slots: u32,
    /// How far ahead to read at most, bytes. 0 picks prefetch_distance of the context; where
    /// that is 0 as well, only hints are read.
    pub distance_bytes: u64,
    /// Bytes of one request: a multiple of the page size of the cache. 0 picks 256 KiB, or a
    /// page where that is larger, and less for a small cache or distance.
    pub chunk_bytes: u64,
    /// How long a request is worth beginning, milliseconds. 0 picks 100.
    pub deadline_ms: u64,
    /// Whether to learn steps that have no simple pattern, a gds_switch_t. Default: yes.
    pub predictor: i32,
    /// Zero.
    pub reserved: u32,
}

/// What was read ahead, and what for. Start from GDS_PREFETCH_STATS_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_prefetch_stats_t {
    /// sizeof(gds_prefetch_stats_t) as the caller compiled it.
    pub struct_size: u32,
    /// What the last 64 accesses have in common, a gds_pattern_t.
    pub pattern: i32,
    /// With GDS_PATTERN_STRIDED: bytes from one access to the next. Else 0.
    pub stride: i64,
    /// Accesses, without those of the same pages as the one before.
    pub accesses: u64,
    /// Pages that were in memory when they were wanted.
    pub hits: u64,
    /// Those of them that were read ahead.
    pub prefetch_hits: u64,
    /// Pages that were still being read when they were wanted.
    pub late: u64,
    /// Pages that were neither.
    pub misses: u64,
    /// Bytes whose reading was started ahead.
    pub prefetched_bytes: u64,
    /// Bytes that were read ahead and not used in time.
    pub wasted_bytes: u64,
    /// Requests that were not begun before their deadline, or found the queue full.
    pub dropped: u64,
    /// Requests that the cache had no room for, or that failed.
    pub refused: u64,
    /// How far ahead the pattern is followed now, bytes; 0 while that does not pay.
    pub window_bytes: u64,
    /// Requests that wait.
    pub queued: u64,
    /// Pages that were read ahead, or are being read, and wait to be used; at most an eighth
    /// of the cache.
    pub unused_pages: u64,
    /// How many of the newest requests were used, 0.0 to 1.0.
    pub accuracy: f64,
    /// How many of the newest predictions of the learned predictor were right, 0.0 to 1.0.
    pub predictor_accuracy: f64,
    /// 1 while the learned predictor is on.
    pub predictor_on: u32,
    /// Requests that are being read.
    pub in_flight: u32,
}
