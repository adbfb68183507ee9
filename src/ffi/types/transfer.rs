//! Transfers as the header shows them.

use core::ffi::c_void;

use super::gds_buffer_t;

/// The same type as cudaStream_t and CUstream.
pub type gds_cuda_stream_t = *mut c_void;

/// A transfer, or a batch of them, that goes on by itself. May be used from many threads at
/// once. Made by gds_read_start() and its like, given back to gds_ticket_destroy().
#[derive(Debug)]
pub struct gds_ticket_t {
    _private: [u8; 0],
}

/// The way that bytes took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_path_t {
    /// No bytes moved.
    GDS_PATH_NONE = 0,
    /// Page cache to or from host memory.
    GDS_PATH_HOST = 1,
    /// O_DIRECT straight to or from host memory.
    GDS_PATH_HOST_DIRECT = 2,
    /// O_DIRECT through pinned staging memory.
    GDS_PATH_BOUNCE = 3,
    /// Page cache through pinned staging memory.
    GDS_PATH_PAGE_CACHE = 4,
    /// cuFile.
    GDS_PATH_CUFILE = 5,
}

/// A choice that may be left to the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_switch_t {
    /// As the context says.
    GDS_SWITCH_DEFAULT = 0,
    /// Yes.
    GDS_SWITCH_ON = 1,
    /// No.
    GDS_SWITCH_OFF = 2,
}

/// How one call differs from what the context says. Start from GDS_OPTIONS_INIT; all zero
/// but struct_size means "as the context says".
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_options_t {
    /// sizeof(gds_options_t) as the caller compiled it.
    pub struct_size: u32,
    /// Which way bytes may take, a gds_path_policy_t.
    pub path: i32,
    /// Longest time the call or ticket may take, milliseconds; 0 is no limit. After it the
    /// answer is GDS_STATUS_TIMED_OUT, once no transfer touches the memory any more.
    pub deadline_ms: u64,
    /// Whether to compute a CRC32C of what moved, a gds_switch_t.
    pub checksum: i32,
    /// Whether another path may be taken when one refuses, a gds_switch_t.
    pub fallback: i32,
    /// 1: ordered on `stream` as gds_read_async() is. 0: `stream` must be NULL.
    pub use_stream: u32,
    /// Zero.
    pub reserved: u32,
    /// The stream, of the context's device. NULL with use_stream 1 is the default stream.
    pub stream: gds_cuda_stream_t,
}

/// How a transfer went. Start from GDS_COMPLETION_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_completion_t {
    /// sizeof(gds_completion_t) as the caller compiled it.
    pub struct_size: u32,
    /// A gds_status_t; the other fields mean something when it is GDS_STATUS_OK.
    pub status: i32,
    /// Bytes moved. Fewer than asked only where a read met the end of the file.
    pub bytes: u64,
    /// From submission to completion, nanoseconds.
    pub latency_ns: u64,
    /// The way that most bytes took, a gds_path_t.
    pub path: i32,
    /// Every way that bytes took: bit 1 << gds_path_t.
    pub paths: u32,
    /// 1 when crc32c was computed.
    pub has_crc32c: u32,
    /// CRC32C (Castagnoli) of what moved.
    pub crc32c: u32,
    /// Retries after transient errors.
    pub retries: u32,
    /// Pieces that went another way after their path refused.
    pub fallbacks: u32,
}

/// A range of a buffer. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_segment_t {
    /// The buffer.
    pub buffer: *const gds_buffer_t,
    /// Where in it, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}
