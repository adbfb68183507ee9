//! Batches as the header shows them.

use super::{gds_buffer_t, gds_file_t};

/// What to do with a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_operation_t {
    /// File to memory.
    GDS_OPERATION_READ = 1,
    /// Memory to file.
    GDS_OPERATION_WRITE = 2,
}

/// One transfer of a batch. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_batch_entry_t {
    /// The file, opened in the context of the batch.
    pub file: *const gds_file_t,
    /// The memory, of the context of the batch.
    pub buffer: *const gds_buffer_t,
    /// Where in the file, bytes.
    pub file_offset: u64,
    /// Where in the memory, bytes.
    pub buffer_offset: u64,
    /// Bytes.
    pub size: u64,
    /// A gds_operation_t.
    pub operation: i32,
    /// Zero.
    pub reserved: u32,
}
