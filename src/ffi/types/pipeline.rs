//! The pipeline as the header shows it.

use core::ffi::c_void;

use super::gds_completion_t;

/// Moves single requests, a bounded number at a time. May be used from many threads at once.
#[derive(Debug)]
pub struct gds_pipeline_t {
    _private: [u8; 0],
}

/// How a pipeline works. Start from GDS_PIPELINE_CONFIG_INIT or gds_pipeline_config_init().
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_pipeline_config_t {
    /// sizeof(gds_pipeline_config_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Requests that may be under way at once, at most 4096. 0 picks the context's
    /// max_outstanding_io.
    pub max_outstanding: u32,
    /// Bytes of adjacent requests that are joined at most. 0 picks the context's
    /// buffer_size, 1 joins none.
    pub coalesce_bytes: u64,
    /// Which way bytes may take, a gds_path_policy_t.
    pub path: i32,
    /// Whether to compute a CRC32C of each request, a gds_switch_t. Requests are not joined
    /// then.
    pub checksum: i32,
    /// Whether another path may be taken when one refuses, a gds_switch_t.
    pub fallback: i32,
    /// Zero.
    pub reserved: u32,
    /// Longest time of a request from when it is handed to the transfer threads,
    /// milliseconds; 0 is no limit.
    pub deadline_ms: u64,
}

/// What a pipeline has done so far. Start from GDS_PIPELINE_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_pipeline_info_t {
    /// sizeof(gds_pipeline_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Requests taken.
    pub submitted: u64,
    /// Requests that are over, well or not, callbacks included.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests under way.
    pub outstanding: u64,
    /// Batches handed to the transfer threads.
    pub batches: u64,
    /// Transfers in them.
    pub transfers: u64,
    /// Requests that shared their transfer with others.
    pub coalesced: u64,
}

/// Told once how a request went. `completion` is valid during the call; after a failure,
/// gds_last_error() tells the rest there.
///
/// Runs on the pipeline's own thread, one call at a time. Must not throw, longjmp or block
/// for long. May submit further requests and close the pipeline; calls that would wait for
/// the pipeline answer GDS_STATUS_PENDING.
pub type gds_request_fn = Option<
    unsafe extern "C" fn(id: u64, completion: *const gds_completion_t, user_data: *mut c_void),
>;
