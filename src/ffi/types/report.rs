//! Errors and log messages as the header shows them.

use core::ffi::{c_char, c_void};

/// How much a log message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_log_level_t {
    /// The library is at fault, or an object became unusable.
    GDS_LOG_LEVEL_ERROR = 1,
    /// Something works worse than it could, and the message says what to do.
    GDS_LOG_LEVEL_WARN = 2,
    /// What was chosen: device, kernel interface.
    GDS_LOG_LEVEL_INFO = 3,
    /// Every call that failed.
    GDS_LOG_LEVEL_DEBUG = 4,
}

/// Receives log messages. `level` is a gds_log_level_t; `message` is valid during the call.
///
/// Runs on the thread that has something to say, which may be a thread of the library, and
/// on several threads at once. Must not throw, longjmp or block for long. Messages that its
/// own gds_* calls would cause are dropped.
pub type gds_log_fn =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

/// Gives `user_data` back. Called exactly once, when the library will not use it any more.
pub type gds_release_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// What a failure had to say, in numbers for programs and a line for people.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_error_info_t {
    /// Bytes of this struct that were filled. Set by the library.
    pub struct_size: u32,
    /// A gds_status_t.
    pub status: i32,
    /// errno, or 0.
    pub os_error: i32,
    /// CUresult, or 0.
    pub cuda_error: i32,
    /// CUfileOpError, or 0.
    pub cufile_error: i32,
    /// 1 when file_offset is known, else 0.
    pub has_file_offset: u32,
    /// Where in the file, bytes.
    pub file_offset: u64,
    /// The file, or NULL. Lives as long as the message.
    pub path: *const c_char,
    /// What was asked, what happened and what to do. Never NULL.
    pub message: *const c_char,
}
