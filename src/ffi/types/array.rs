//! Arrays for kernels as the header shows them.

/// A file as an array in device memory, for kernels (gds_rs.cuh). May be used from many
/// threads at once. Made by gds_array_open(), given back to gds_array_close().
#[derive(Debug)]
pub struct gds_array_t {
    _private: [u8; 0],
}

/// How an array is set up. Start from GDS_ARRAY_CONFIG_INIT or gds_array_config_init().
/// Where a field says "0 picks", 0 stands for that value.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_array_config_t {
    /// sizeof(gds_array_config_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Bytes of a page: a power of two, 4 KiB to 2 MiB. 0 picks 4096.
    pub page_bytes: u32,
    /// Device memory for pages, bytes; at least one page. 0 picks 64 MiB. The page table
    /// takes 8 bytes more for each page of the file.
    pub device_bytes: u64,
    /// Threads that serve kernels, at most 16. 0 picks half the processors, at most 4.
    pub service_threads: u32,
    /// Pages that may be on their way at once; each takes a page of pinned memory. 0 picks
    /// 64 MiB worth, 64 to 4096.
    pub slots: u32,
    /// How long a warp waits while all frames are pinned, milliseconds, at most an hour. 0
    /// picks 30,000.
    pub wait_ms: u32,
    /// 1: kernels may write; the file is open for it. 0: not.
    pub writable: u32,
    /// 1: kernels count hits, at the price of an atomic operation each. 0: not.
    pub count_hits: u32,
    /// Zero.
    pub reserved: u32,
}

/// Set in gds_array_view_t.flags: kernels may write.
pub const GDS_ARRAY_WRITABLE: u32 = 1;
/// Set in gds_array_view_t.flags: kernels count hits.
pub const GDS_ARRAY_COUNT_HITS: u32 = 2;

/// What a kernel gets by value. Made by gds_array_acquire(); only gds_rs.cuh looks inside.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_array_view_t {
    /// sizeof(gds_array_view_t) as the caller compiled it.
    pub struct_size: u32,
    /// Bytes of a page, as a power of two.
    pub page_shift: u32,
    /// Bytes of the array.
    pub size_bytes: u64,
    /// Device memory: a word for each page.
    pub words: u64,
    /// Device memory: a word for each frame, whose it is.
    pub owners: u64,
    /// Device memory: 4 bytes for each frame, whether it differs from the file.
    pub dirty: u64,
    /// Device memory: the frames.
    pub frames: u64,
    /// Device memory: clock, errors, counters, rings.
    pub control: u64,
    /// Device memory: 4 bytes for each slot.
    pub slots: u64,
    /// Pinned memory: requests.
    pub requests: u64,
    /// Pinned memory: completions.
    pub completions: u64,
    /// Pinned memory: a page for each slot.
    pub staging: u64,
    /// Pinned memory: not 0 when nobody answers.
    pub host: u64,
    /// How long a warp waits for a frame, nanoseconds.
    pub wait_ns: u64,
    /// Frames.
    pub frame_count: u32,
    /// Rings.
    pub ring_count: u32,
    /// Slots of a ring, as a power of two.
    pub ring_shift: u32,
    /// GDS_ARRAY_WRITABLE, GDS_ARRAY_COUNT_HITS.
    pub flags: u32,
}

/// What an array has done since it was opened.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_array_stats_t {
    /// sizeof(gds_array_stats_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Look-ups that found their page, if count_hits was set.
    pub hits: u64,
    /// Pages that kernels asked the host for.
    pub misses: u64,
    /// Look-ups that found another warp bringing their page.
    pub waits: u64,
    /// Pages that made room for others.
    pub evictions: u64,
    /// Dirty pages that were written to make room.
    pub write_backs: u64,
    /// Pages that device memory holds at once.
    pub frames: u64,
    /// Pages that differ from the file now.
    pub dirty: u64,
    /// Device memory of the page table, bytes.
    pub table_bytes: u64,
    /// Pinned memory, bytes.
    pub pinned_bytes: u64,
}
