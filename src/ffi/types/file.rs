//! Files as the header shows them.

use core::ffi::c_char;

/// An open file. May be used from many threads at once. Made by gds_file_open() or
/// gds_file_from_fd(), given back to gds_file_close().
#[derive(Debug)]
pub struct gds_file_t {
    _private: [u8; 0],
}

/// Open for reading.
pub const GDS_FILE_READ: u32 = 1;
/// Open for writing.
pub const GDS_FILE_WRITE: u32 = 2;
/// Create the file if it is missing (mode 0666 less the umask). Needs GDS_FILE_WRITE.
pub const GDS_FILE_CREATE: u32 = 4;
/// Cut the file to zero bytes. Needs GDS_FILE_WRITE.
pub const GDS_FILE_TRUNCATE: u32 = 8;
/// Fail if the file exists. Needs GDS_FILE_CREATE.
pub const GDS_FILE_EXCLUSIVE: u32 = 16;

/// What an open file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_file_kind_t {
    /// A regular file.
    GDS_FILE_KIND_REGULAR = 1,
    /// A block device.
    GDS_FILE_KIND_BLOCK_DEVICE = 2,
}

/// What is known of an open file. Start from GDS_FILE_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_file_info_t {
    /// sizeof(gds_file_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// A gds_file_kind_t.
    pub kind: i32,
    /// GDS_FILE_READ and GDS_FILE_WRITE as it was opened.
    pub flags: u32,
    /// 1 when the size means something; 0 for files made up as they are read (/proc).
    pub sized: u32,
    /// Bytes in the file now.
    pub size: u64,
    /// What direct I/O wants offsets and sizes to be a multiple of, bytes; 0 when the file
    /// has no direct I/O. Other offsets and sizes work as well, at the cost of a copy.
    pub direct_offset_alignment: u32,
    /// What direct I/O wants addresses to be a multiple of, bytes; 0 as above.
    pub direct_memory_alignment: u32,
    /// Block size of the file system, bytes.
    pub block_size: u32,
    /// Major number of the device that holds the file.
    pub device_major: u32,
    /// Minor number of the device that holds the file.
    pub device_minor: u32,
    /// Zero.
    pub reserved: u32,
    /// "ext4", "xfs", "tmpfs", ..., NUL-terminated.
    pub file_system: [c_char; 32],
    /// Why there is no direct I/O, cut to fit and NUL-terminated; "" when there is.
    pub direct_reason: [c_char; 256],
}
