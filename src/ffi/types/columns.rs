//! Columns in device memory as the header shows them.

use core::ffi::c_char;

/// Columns in device memory, in the layout of Arrow, in one batch or more. May be used from
/// many threads at once. Made by gds_arrow_load() and its like, given back to
/// gds_columns_close().
#[derive(Debug)]
pub struct gds_columns_t {
    _private: [u8; 0],
}

/// In a path: the dictionary of an array, in place of the number of a child.
pub const GDS_COLUMNS_DICTIONARY: u32 = 0xFFFF_FFFF;

/// What columns there are. Start from GDS_COLUMNS_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_columns_info_t {
    /// sizeof(gds_columns_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// Columns.
    pub columns: u32,
    /// Batches.
    pub batches: u64,
    /// Rows of all batches.
    pub rows: u64,
    /// Bytes of memory that the buffers take, padding included.
    pub bytes: u64,
}

/// An array: a column, or a part of one. Start from GDS_COLUMN_INIT.
///
/// Buffers are in the order of its type (arrow.apache.org/docs/format/Columnar.html).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_column_t {
    /// sizeof(gds_column_t) as the caller compiled it.
    pub struct_size: u32,
    /// Buffers.
    pub buffers: u32,
    /// Arrays that it is made of.
    pub children: u32,
    /// 1: its values are keys of a dictionary. 0: not.
    pub has_dictionary: u32,
    /// Values, nulls included.
    pub length: u64,
    /// Nulls; -1 when nobody counted.
    pub null_count: i64,
    /// Values of the buffers before the first one.
    pub offset: u64,
    /// Its name; "" for the values of a dictionary. Valid until gds_columns_close().
    pub name: *const c_char,
    /// Its type, as the format string of Arrow's C data interface. Valid until
    /// gds_columns_close().
    pub format: *const c_char,
}

/// Memory of an array. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_column_buffer_t {
    /// Its first byte, at a multiple of 64; a device address for device memory. 0: the
    /// buffer is left out (no value is null).
    pub address: u64,
    /// Bytes. Readable to the next multiple of 64.
    pub size: u64,
}
