//! Buffers as the header shows them.

/// Memory that transfers read from and write to: allocated here, or the caller's. May be
/// used from many threads at once, on ranges that do not overlap.
#[derive(Debug)]
pub struct gds_buffer_t {
    _private: [u8; 0],
}

/// What kind of memory a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_memory_kind_t {
    /// Device memory. On the host device, ordinary memory.
    GDS_MEMORY_DEVICE = 1,
    /// Host memory that the device copies from and to without a staging copy.
    GDS_MEMORY_PINNED = 2,
    /// CUDA unified memory.
    GDS_MEMORY_MANAGED = 3,
    /// Ordinary host memory.
    GDS_MEMORY_PAGEABLE = 4,
}

/// What is known of a buffer. Start from GDS_BUFFER_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_buffer_info_t {
    /// sizeof(gds_buffer_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// A gds_memory_kind_t.
    pub kind: i32,
    /// Its first byte; a device address for device memory.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}
