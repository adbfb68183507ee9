//! The page cache as the header shows it.

use core::ffi::c_void;

/// Pages of files in device memory. May be used from many threads at once. Made by
/// gds_cache_open(), given back to gds_cache_close().
#[derive(Debug)]
pub struct gds_cache_t {
    _private: [u8; 0],
}

/// Which page goes when room is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_cache_policy_t {
    /// Recency and filtered admission compete, and the better one leads: good on most
    /// patterns, bad on none.
    GDS_CACHE_POLICY_DUELING = 0,
    /// A second chance for what was used since the hand came by.
    GDS_CACHE_POLICY_CLOCK = 1,
    /// The least recently used. Costs a lock at every hit.
    GDS_CACHE_POLICY_LRU = 2,
}

/// How a cache is set up. Start from GDS_CACHE_CONFIG_INIT or gds_cache_config_init().
/// Where a field says "0 picks", 0 stands for that value.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_cache_config_t {
    /// sizeof(gds_cache_config_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Bytes of a page: a power of two, 4 KiB to 2 MiB. 0 picks 64 KiB.
    pub page_bytes: u32,
    /// Device memory for pages, bytes; at least one page. 0 picks 256 MiB.
    pub device_bytes: u64,
    /// Pinned host memory for pages that had to leave the device, bytes; 0: none.
    pub host_bytes: u64,
    /// Device memory that the pages of one file may take, bytes; 0: no limit.
    pub file_limit_bytes: u64,
    /// How long a changed page may wait for its write, milliseconds, at most an hour. 0
    /// picks 500.
    pub flush_delay_ms: u32,
    /// Changed pages, percent of all, from which on they are written at once; 1 to 100. 0
    /// picks 25.
    pub dirty_percent: u32,
    /// Which page goes when room is needed, a gds_cache_policy_t.
    pub policy: i32,
    /// Zero.
    pub reserved: u32,
}

/// A page that is held: it stays where it is until it is released. This struct never
/// changes. A copy is the same hold: release one of them, once.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_page_t {
    /// Its first byte, a device address. Aligned to the page size within the cache's
    /// memory. NULL: no page.
    pub address: *mut c_void,
    /// Where it is in the file, bytes: a multiple of the page size.
    pub offset_bytes: u64,
    /// Bytes of it that are the file's: the page size, less at the end of the file, 0 past
    /// it. The rest of the page is zero.
    pub size_bytes: u64,
    /// For the library. 0: no page.
    pub token: u64,
}

/// A range of a file in a warm-up list. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_cache_range_t {
    /// Where it begins, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// What a cache has counted, and what is in it. Start from GDS_CACHE_STATS_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_cache_stats_t {
    /// sizeof(gds_cache_stats_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Pages that were asked for and there.
    pub hits: u64,
    /// Pages that were asked for and not there.
    pub misses: u64,
    /// Pages that were asked for while they were being read for somebody else.
    pub waits: u64,
    /// Pages that went to make room.
    pub evictions: u64,
    /// Of these, those that had to be written first.
    pub dirty_evictions: u64,
    /// Pages written to files.
    pub write_backs: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Reads of pages started ahead.
    pub prefetched: u64,
    /// Pages read ahead that were used.
    pub prefetch_hits: u64,
    /// Pages read ahead that went without having been used.
    pub prefetch_wasted: u64,
    /// Calls that found no page to make room with.
    pub all_pinned: u64,
    /// Misses that were served from host memory.
    pub host_hits: u64,
    /// Pages that moved from the device to host memory.
    pub host_demotions: u64,
    /// Pages that could not be read.
    pub read_errors: u64,
    /// Pages that could not be written; their data was kept.
    pub write_errors: u64,
    /// Pages that the device tier has room for.
    pub frames: u64,
    /// Pages in the device tier.
    pub resident: u64,
    /// Of these, held.
    pub pinned: u64,
    /// Of these, changed and not written yet.
    pub dirty: u64,
    /// Pages in the host tier.
    pub host_pages: u64,
}
