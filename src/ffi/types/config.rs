//! Configuration as the header shows it.

/// A starting point for tuning, for gds_config_profile().
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_profile_t {
    /// In between; what gds_config_init() and GDS_CONFIG_INIT give.
    GDS_PROFILE_BALANCED = 0,
    /// Smallest buffers and queues: the first byte soon.
    GDS_PROFILE_LOW_LATENCY = 1,
    /// Largest buffers and queues: the most bytes a second.
    GDS_PROFILE_HIGH_THROUGHPUT = 2,
}

/// Which way bytes may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_path_policy_t {
    /// In options: as the context says. In a configuration: GDS_PATH_POLICY_AUTO.
    GDS_PATH_POLICY_DEFAULT = 0,
    /// The library chooses what is fastest, and falls back where a path refuses.
    GDS_PATH_POLICY_AUTO = 1,
    /// cuFile for every transfer between a file and device memory.
    GDS_PATH_POLICY_CUFILE = 2,
    /// O_DIRECT; the page cache stays as it is.
    GDS_PATH_POLICY_DIRECT = 3,
    /// Through the page cache.
    GDS_PATH_POLICY_BUFFERED = 4,
}

/// The device that is plain host memory: the whole interface without a GPU.
pub const GDS_DEVICE_HOST: i32 = -1;
/// CUDA device 0 when it works, else the host.
pub const GDS_DEVICE_AUTO: i32 = -2;

/// How a context is set up. Start from GDS_CONFIG_INIT or gds_config_init() and change what
/// you need. Where a field says "0 picks", 0 stands for that value.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_config_t {
    /// sizeof(gds_config_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// CUDA device ordinal, GDS_DEVICE_HOST or GDS_DEVICE_AUTO.
    pub gpu_device: i32,
    /// Pinned staging memory of each transfer thread, bytes: a power of two, 64 KiB to
    /// 1 GiB. 0 picks 16 MiB.
    pub buffer_size: u64,
    /// Least alignment of direct I/O, bytes: a power of two, 512 to 2 MiB. 0 picks 4096.
    pub alignment: u64,
    /// How far ahead a prefetcher reads, bytes: a multiple of buffer_size, at most 1 TiB.
    pub prefetch_distance: u64,
    /// How long a waiting thread looks before it sleeps, microseconds, at most 1,000,000.
    pub poll_interval_us: u64,
    /// Chunks read ahead at once by a prefetcher, 1 to 1024. 0 picks 8.
    pub prefetch_slots: u32,
    /// Operations in flight on each transfer thread's queue, 1 to 4096. 0 picks 32.
    pub max_outstanding_io: u32,
    /// Operations in one submission to the kernel, 1 to max_outstanding_io. 0 picks 16, or
    /// max_outstanding_io where that is less.
    pub max_batch_size: u32,
    /// Transfer threads, at most 128. 0 picks the number of processors, at most 16.
    pub io_threads: u32,
    /// Further tries after a transient error, at most 16.
    pub max_retries: u32,
    /// Pause before the first retry, milliseconds, doubled for each further one; at most
    /// 10,000.
    pub backoff_ms: u32,
    /// How long the CUDA driver may take to answer at open, milliseconds, 1 to 600,000.
    /// 0 picks 20,000.
    pub probe_timeout_ms: u32,
    /// Which way bytes may take, a gds_path_policy_t.
    pub path: i32,
    /// 1: a thread reads the next piece while the last one is copied to the device. 0: not.
    pub double_buffering: u32,
    /// 1: operations are handed to the kernel together. 0: one by one.
    pub batch_mode: u32,
    /// 1: a transfer that its path refuses may go another way. 0: it fails.
    pub mmap_fallback: u32,
    /// 1: every transfer computes a CRC32C of what moved. 0: not.
    pub checksum: u32,
}
