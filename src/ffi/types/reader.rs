//! The streaming reader as the header shows it.

use core::ffi::c_void;

use super::{gds_buffer_t, gds_file_t};

/// Streams ranges of files through a few buffers, chunk by chunk. May be used from many
/// threads at once: each chunk goes to one of them.
#[derive(Debug)]
pub struct gds_reader_t {
    _private: [u8; 0],
}

/// The size of a range that goes to the end of its file.
pub const GDS_RANGE_TO_END: u64 = 0xFFFF_FFFF_FFFF_FFFF;

/// A range of a file. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_range_t {
    /// The file.
    pub file: *const gds_file_t,
    /// Where it begins, bytes.
    pub offset: u64,
    /// Bytes, or GDS_RANGE_TO_END.
    pub size: u64,
}

/// What a buffer of a reader or writer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_buffer_state_t {
    /// Nothing.
    GDS_BUFFER_STATE_IDLE = 0,
    /// Bytes are on their way into it. Of a writer: its user has it.
    GDS_BUFFER_STATE_FILLING = 1,
    /// It holds a chunk that nobody has asked for yet.
    GDS_BUFFER_STATE_READY = 2,
    /// Its user, or the user's stream, works on it.
    GDS_BUFFER_STATE_PROCESSING = 3,
    /// Its bytes are on their way to the file. Of a writer only.
    GDS_BUFFER_STATE_FLUSHING = 4,
}

/// How a reader reads, or a writer writes. Start from GDS_READER_CONFIG_INIT or
/// gds_reader_config_init().
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_reader_config_t {
    /// sizeof(gds_reader_config_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Buffers, 2 to 64. 0 picks 2.
    pub buffers: u32,
    /// Bytes of a chunk, 4 KiB to 64 GiB. 0 picks four times the context's buffer_size:
    /// 64 MiB, unless configured; or the size of the smallest buffer of `given` where that
    /// is less.
    pub chunk_bytes: u64,
    /// GDS_MEMORY_DEVICE or GDS_MEMORY_PINNED. 0 picks device memory.
    pub memory: i32,
    /// Which way bytes may take, a gds_path_policy_t.
    pub path: i32,
    /// Whether to compute a CRC32C of each chunk, a gds_switch_t.
    pub checksum: i32,
    /// Whether another path may be taken when one refuses, a gds_switch_t.
    pub fallback: i32,
    /// The caller's memory for chunks, in place of `buffers` new ones of `memory`: 2 to 64
    /// buffers of the context, each as large as a chunk, none overlapping another. NULL: the
    /// library allocates. The array is used during the call only. The buffers are kept, and
    /// nobody else uses their memory, until the reader or writer is closed; then the next
    /// may have them.
    pub given: *const *const gds_buffer_t,
    /// How many `given` are. 0: none.
    pub given_count: u64,
}

/// A chunk in memory. Start from GDS_CHUNK_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_chunk_t {
    /// sizeof(gds_chunk_t) as the caller compiled it.
    pub struct_size: u32,
    /// Which buffer it is in, from 0.
    pub buffer: u32,
    /// Which chunk of all, from 0.
    pub index: u64,
    /// Its first byte; a device address for device memory.
    pub address: u64,
    /// Bytes, at least 1; fewer than a whole chunk only at the end of a range.
    pub size: u64,
    /// Where it came from in the range's file, bytes.
    pub file_offset: u64,
    /// Which range it belongs to, from 0.
    pub range: u32,
    /// The way that most bytes took, a gds_path_t.
    pub path: i32,
    /// 1 when crc32c was computed.
    pub has_crc32c: u32,
    /// CRC32C (Castagnoli) of the chunk.
    pub crc32c: u32,
}

/// How far a reader is. Start from GDS_READER_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_reader_info_t {
    /// sizeof(gds_reader_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// Buffers.
    pub buffers: u32,
    /// Bytes of a whole chunk.
    pub chunk_bytes: u64,
    /// Chunks in all.
    pub chunks: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Chunks that were delivered.
    pub chunks_delivered: u64,
    /// Their bytes.
    pub bytes_delivered: u64,
    /// Chunks whose bytes had not arrived when they were asked for.
    pub waits: u64,
}

/// Works on a chunk, which is valid during the call. 0: go on. Any other number: stop.
///
/// Runs on the thread that called gds_reader_run(). May give the chunk back itself, by
/// gds_reader_release_on() say; else that is done when it returns. Must not close the
/// reader.
pub type gds_chunk_fn =
    Option<unsafe extern "C" fn(chunk: *const gds_chunk_t, user_data: *mut c_void) -> i32>;
