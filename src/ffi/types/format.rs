//! Formats of files, and plans of what to read of one, as the header shows them.

use core::ffi::c_void;

use super::gds_file_t;

/// What a file holds, by its contents. New formats are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_format_t {
    /// None of the others.
    GDS_FORMAT_UNKNOWN = 0,
    /// ELF: programs, libraries, object files, cubins.
    GDS_FORMAT_ELF = 1,
    /// Parquet, its footer encrypted or not.
    GDS_FORMAT_PARQUET = 2,
    /// Arrow IPC file, also called Feather version 2.
    GDS_FORMAT_ARROW_FILE = 3,
    /// Arrow IPC stream.
    GDS_FORMAT_ARROW_STREAM = 4,
    /// safetensors.
    GDS_FORMAT_SAFETENSORS = 5,
    /// GGUF.
    GDS_FORMAT_GGUF = 6,
    /// The JSON index of a model in several safetensors files.
    GDS_FORMAT_SAFETENSORS_INDEX = 7,
    /// Feather version 1. This and the following are recognised, not read.
    GDS_FORMAT_FEATHER1 = 16,
    /// ORC.
    GDS_FORMAT_ORC = 17,
    /// NumPy's .npy.
    GDS_FORMAT_NUMPY = 18,
    /// A Zstandard frame.
    GDS_FORMAT_ZSTD = 19,
    /// An LZ4 frame.
    GDS_FORMAT_LZ4_FRAME = 20,
    /// gzip.
    GDS_FORMAT_GZIP = 21,
    /// A zip archive: .npz, PyTorch's .pt, .jar.
    GDS_FORMAT_ZIP = 22,
    /// HDF5.
    GDS_FORMAT_HDF5 = 23,
    /// Vortex.
    GDS_FORMAT_VORTEX = 24,
}

/// Ranges of files and their places in one destination, ready to be read as often as wanted.
/// Never changes; may be used from many threads at once.
#[derive(Debug)]
pub struct gds_plan_t {
    _private: [u8; 0],
}

/// A range of a file and its place in the destination. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_piece_t {
    /// Offset in the file, bytes.
    pub file_offset: u64,
    /// Bytes.
    pub size: u64,
    /// Offset in the destination, bytes.
    pub to_offset: u64,
    /// The file. NULL in a piece that gds_plan_pieces() gives: see `file_index`.
    pub file: *const gds_file_t,
    /// Which of the plan's files, from 0. Zero in a piece given to gds_plan_create().
    pub file_index: u64,
}

/// A piece of a plan, or a part of one, in memory. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_window_part_t {
    /// Which piece of its file, from 0, in the order of gds_plan_pieces().
    pub piece: u64,
    /// Where in the piece it begins, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Its first byte; a device address for device memory. A multiple of 64.
    pub address: u64,
}

/// What is in memory at once of a plan that is streamed. The library fills it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_window_t {
    /// sizeof(gds_window_t) as the library knows it.
    pub struct_size: u32,
    /// Which of the plan's files, from 0.
    pub file_index: u32,
    /// What is in memory, all of a piece before the next one.
    pub parts: *const gds_window_part_t,
    /// How many.
    pub count: u64,
}

/// Works on a window, which is valid during the call. 0: go on. Any other number: stop.
///
/// Runs on the thread that called gds_plan_stream(). Work that it starts on a CUDA stream
/// must be done when it returns.
pub type gds_window_fn =
    Option<unsafe extern "C" fn(window: *const gds_window_t, user_data: *mut c_void) -> i32>;

/// What a plan reads. Start from GDS_PLAN_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_plan_info_t {
    /// sizeof(gds_plan_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// Files.
    pub files: u32,
    /// Bytes of the destination, the padding between pieces included.
    pub size_bytes: u64,
    /// Bytes that are wanted of the files.
    pub bytes: u64,
    /// Pieces.
    pub pieces: u64,
    /// Reads that gds_plan_read() makes of them, neighbours together.
    pub reads: u64,
    /// Of them, those that go through scratch memory of the device.
    pub gathered: u64,
    /// Bytes of those reads: what is wanted, and what stands between.
    pub read_bytes: u64,
}
