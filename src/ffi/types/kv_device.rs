//! Values of a store in device memory, as the header shows them.

use core::ffi::c_void;

use super::gds_buffer_t;

/// A store beside a context: its values from and to the memory of a device. May be used from
/// many threads at once. Made by gds_kv_device_open(), given back to gds_kv_device_close().
#[derive(Debug)]
pub struct gds_kv_device_t {
    _private: [u8; 0],
}

/// A value, or a range of one, and where it goes. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_get_t {
    /// The key.
    pub key: *const c_void,
    /// Bytes of it.
    pub key_size: u64,
    /// The first byte of the value that is wanted.
    pub offset: u64,
    /// Bytes that are wanted at most; UINT64_MAX: to the end of the value.
    pub size: u64,
    /// Where they go: a buffer of the device's context.
    pub buffer: *const gds_buffer_t,
    /// Where in the buffer, bytes.
    pub buffer_offset: u64,
}

/// What came of a gds_kv_get_t. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_got_t {
    /// A gds_status_t; the other fields mean something when it is GDS_STATUS_OK.
    pub status: i32,
    /// Zero.
    pub reserved: u32,
    /// Bytes of the whole value.
    pub value_size: u64,
    /// Bytes that arrived, verified.
    pub bytes: u64,
}

/// A value that is held in device memory. A copy is the same hold: release one of them,
/// once. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_pointer_t {
    /// Its first byte, a device address, aligned to 256 bytes. NULL: nothing is held.
    pub address: *mut c_void,
    /// Bytes of the value.
    pub size_bytes: u64,
    /// For the library. 0: nothing is held.
    pub token: u64,
}

/// How a store and a device come together. Start from GDS_KV_DEVICE_CONFIG_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_device_config_t {
    /// sizeof(gds_kv_device_config_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Device memory for values that are held or kept, bytes; 0: none, and
    /// gds_kv_device_get_ptr() is not there.
    pub cache_bytes: u64,
}

/// What a device's side of a store has counted. Start from GDS_KV_DEVICE_STATS_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_kv_device_stats_t {
    /// sizeof(gds_kv_device_stats_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Values, or ranges of them, that were read.
    pub gets: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Transfers that brought them, after adjacent ones were joined.
    pub transfers: u64,
    /// Checksums compared where the bytes landed.
    pub chunks_verified: u64,
    /// Reads that did not arrive as they should, and were done again by the host.
    pub rereads: u64,
    /// Values put from buffers.
    pub puts: u64,
    /// Bytes of them.
    pub bytes_written: u64,
    /// Device addresses asked for whose value was there.
    pub hits: u64,
    /// Device addresses asked for whose value was read.
    pub misses: u64,
    /// Values that left device memory to make room.
    pub evictions: u64,
    /// Values kept in device memory.
    pub resident: u64,
    /// Of these, held.
    pub held: u64,
    /// Device memory that they take, bytes.
    pub cache_used_bytes: u64,
}
