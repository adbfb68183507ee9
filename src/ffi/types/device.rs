//! Devices as the header shows them.

use core::ffi::c_char;

/// What is known of a device. Start from GDS_DEVICE_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_device_info_t {
    /// sizeof(gds_device_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// CUDA ordinal, or GDS_DEVICE_HOST.
    pub ordinal: i32,
    /// Device memory, bytes. For the host: physical memory.
    pub memory_bytes: u64,
    /// Highest CUDA version that the driver serves (12080 is 12.8); 0 on the host.
    pub driver_version: i32,
    /// Compute capability, major * 10 + minor; 0 on the host.
    pub compute_capability: i32,
    /// 1 when read-only file mappings can be registered for DMA.
    pub register_read_only: u32,
    /// 1 when transfers can be ordered in a caller's stream.
    pub stream_order: u32,
    /// Its name ("NVIDIA H200", "host"), cut to fit and NUL-terminated.
    pub name: [c_char; 128],
}
