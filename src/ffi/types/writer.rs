//! The streaming writer as the header shows it.

/// Streams a few buffers into a file, one after the other. May be used from many threads at
/// once.
#[derive(Debug)]
pub struct gds_writer_t {
    _private: [u8; 0],
}

/// A buffer of a writer, to be filled. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_space_t {
    /// Its first byte; a device address for device memory.
    pub address: u64,
    /// Bytes that it holds.
    pub size: u64,
    /// Which buffer it is, from 0.
    pub buffer: u32,
    /// Zero.
    pub reserved: u32,
}
