//! Arrow files and streams as the header shows them.

use core::ffi::c_char;

use super::gds_options_t;

/// An Arrow IPC file or stream: its schema, and where its batches are. May be used from many
/// threads at once. Made by gds_arrow_open(), given back to gds_arrow_close().
#[derive(Debug)]
pub struct gds_arrow_t {
    _private: [u8; 0],
}

/// Which of the two forms of Arrow IPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_arrow_form_t {
    /// A file, with a footer.
    GDS_ARROW_FORM_FILE = 1,
    /// A stream of messages.
    GDS_ARROW_FORM_STREAM = 2,
}

/// How the buffers of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_arrow_codec_t {
    /// Not: its body goes straight to the device.
    GDS_ARROW_CODEC_NONE = 0,
    /// LZ4 frames.
    GDS_ARROW_CODEC_LZ4 = 1,
    /// Zstandard frames.
    GDS_ARROW_CODEC_ZSTD = 2,
}

/// What a file or stream holds. Start from GDS_ARROW_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_arrow_info_t {
    /// sizeof(gds_arrow_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// A gds_arrow_form_t.
    pub form: i32,
    /// Version of its metadata: 4 or 5.
    pub version: u32,
    /// Columns.
    pub columns: u32,
    /// Record batches.
    pub batches: u64,
    /// Dictionary messages.
    pub dictionaries: u64,
}

/// What the metadata says of a batch. Start from GDS_ARROW_BATCH_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_arrow_batch_t {
    /// sizeof(gds_arrow_batch_t) as the caller compiled it.
    pub struct_size: u32,
    /// A gds_arrow_codec_t.
    pub codec: i32,
    /// Rows.
    pub rows: u64,
    /// Where its message begins in the file.
    pub file_offset: u64,
    /// Bytes of its body in the file.
    pub body_bytes: u64,
}

/// What to load, and how. Start from GDS_ARROW_SELECTION_INIT or gds_arrow_selection_init().
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_arrow_selection_t {
    /// sizeof(gds_arrow_selection_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Whether to check what kernels and others trust: offsets, views, keys, run ends, text
    /// encoding; a gds_switch_t. 0 picks yes on the host device and no on a GPU, where it
    /// reads those buffers back.
    pub validate: i32,
    /// Names of columns, each NUL-terminated, in the order wanted. NULL: all columns.
    pub columns: *const *const c_char,
    /// How many names. 0 with NULL.
    pub column_count: u64,
    /// The first batch, from 0.
    pub first_batch: u64,
    /// How many batches. 0: all from the first on.
    pub batch_count: u64,
    /// Batches that are on their way while one is looked at, 1 to 64. 0 picks 2.
    pub ahead: u32,
    /// Zero.
    pub reserved: u32,
    /// How bytes are moved. NULL: as the context is configured.
    pub options: *const gds_options_t,
}
