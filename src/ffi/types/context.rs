//! Contexts and their counters as the header shows them.

/// One device with its transfer threads and staging memory. May be used from many threads at
/// once. Made by gds_context_open(), given back to gds_context_close().
#[derive(Debug)]
pub struct gds_context_t {
    _private: [u8; 0],
}

/// Counters of one direction since the context was opened.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_direction_metrics_t {
    /// Bytes moved.
    pub bytes: u64,
    /// Operations that ended well.
    pub operations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Mean latency of the operations that ended well, nanoseconds.
    pub latency_mean_ns: u64,
    /// Median latency, nanoseconds; a percentile may be one sixteenth too high.
    pub latency_p50_ns: u64,
    /// 99th percentile, nanoseconds.
    pub latency_p99_ns: u64,
    /// 99.9th percentile, nanoseconds.
    pub latency_p999_ns: u64,
    /// The longest, nanoseconds.
    pub latency_max_ns: u64,
}

/// All counters of a context. Start from GDS_METRICS_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_metrics_t {
    /// sizeof(gds_metrics_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Since the context was opened, nanoseconds.
    pub elapsed_ns: u64,
    /// Times work waited for a staging slot.
    pub buffer_waits: u64,
    /// Staging slots in use at this moment.
    pub active_buffers: u64,
    /// Retries after transient errors.
    pub retries: u64,
    /// Pieces that went another way after their path refused.
    pub fallbacks: u64,
    /// File to memory.
    pub read: gds_direction_metrics_t,
    /// Memory to file.
    pub write: gds_direction_metrics_t,
    /// Bytes by the path they took, indexed by gds_path_t; the rest is zero.
    pub path_bytes: [u64; 16],
}

/// Measured figures beside the targets of the library. Start from GDS_PERFORMANCE_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_performance_t {
    /// sizeof(gds_performance_t) as the caller compiled it.
    pub struct_size: u32,
    /// 1 when read_bytes_per_second reaches its target.
    pub read_target_met: u32,
    /// 1 when write_bytes_per_second reaches its target.
    pub write_target_met: u32,
    /// 1 when there were reads and read_latency_us is within its target.
    pub latency_target_met: u32,
    /// Bytes read a second, over the life of the context.
    pub read_bytes_per_second: f64,
    /// Bytes written a second, over the life of the context.
    pub write_bytes_per_second: f64,
    /// Mean read latency, microseconds.
    pub read_latency_us: f64,
    /// The target for reads, bytes a second.
    pub read_target_bytes_per_second: f64,
    /// The target for writes, bytes a second.
    pub write_target_bytes_per_second: f64,
    /// The target for the read latency, microseconds.
    pub read_latency_target_us: f64,
}
