//! The last error of each thread, and what this room itself finds wrong.
//!
//! A success leaves the last error alone, so that a cleanup after a failure does not lose it.

use core::ffi::{CStr, c_char};
use std::cell::RefCell;
use std::ffi::CString;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use super::convert::{self, AbiStruct};
use super::guard::guard_quiet;
use super::status::{self, gds_status_t};
use super::types::gds_error_info_t;
use crate::error::{Error, ErrorKind};

/// What a body of this room answers.
pub(crate) type Outcome<T = ()> = std::result::Result<T, Failure>;

/// An error with its status. Rooms below give the status by their kind; handles and struct
/// sizes are known to this room alone.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: gds_status_t,
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            status: status::of_kind(error.kind()),
            error,
        }
    }
}

impl Failure {
    /// An argument that cannot be used.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidArgument, message).into()
    }

    /// A NULL where there must be none.
    pub(crate) fn null(name: impl Display) -> Self {
        Self::argument(format!("{name} is NULL; it must point to something"))
    }

    /// The same failure, told as that of one element.
    pub(crate) fn at(self, element: impl Display) -> Self {
        let message = format!("{element}: {}", self.error.message());
        Self {
            status: self.status,
            error: Error::new(self.error.kind(), message),
        }
    }

    /// A status that no kind of error stands for.
    pub(crate) fn own(status: gds_status_t, message: impl Into<String>) -> Self {
        Self {
            status,
            error: Error::new(ErrorKind::InvalidArgument, message),
        }
    }
}

/// An error in the form that C reads: the strings live here.
#[derive(Debug)]
pub(crate) struct Report {
    status: gds_status_t,
    error: Error,
    path: Option<CString>,
    message: CString,
}

impl Report {
    pub(crate) fn new(failure: Failure) -> Self {
        Self {
            status: failure.status,
            path: failure.error.path().map(|p| text(p.as_os_str().as_bytes())),
            message: text(failure.error.message().as_bytes()),
            error: failure.error,
        }
    }

    /// The struct of the header; its pointers live as long as this report.
    pub(crate) fn info(&self) -> gds_error_info_t {
        gds_error_info_t {
            status: self.status as i32,
            os_error: self.error.errno(),
            cuda_error: self.error.cuda(),
            cufile_error: self.error.cufile(),
            has_file_offset: u32::from(self.error.offset().is_some()),
            file_offset: self.error.offset().unwrap_or(0),
            path: self.path.as_ref().map_or(ptr::null(), |p| p.as_ptr()),
            message: self.message.as_ptr(),
            ..gds_error_info_t::initial()
        }
    }
}

/// Bytes as a C string; it ends at the first NUL.
pub(crate) fn text(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

// SAFETY: repr(C) without padding, begins with `struct_size`, every bit pattern is a value.
unsafe impl AbiStruct for gds_error_info_t {
    const NAME: &'static str = "gds_error_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            status: gds_status_t::GDS_STATUS_OK as i32,
            os_error: 0,
            cuda_error: 0,
            cufile_error: 0,
            has_file_offset: 0,
            file_offset: 0,
            path: ptr::null(),
            message: c"".as_ptr(),
        }
    }
}

thread_local! {
    static LAST: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Keeps a failure as the thread's last one.
pub(crate) fn set_last(failure: Failure) {
    let report = Report::new(failure);
    // A thread that is ending has no last error any more; the status still tells.
    let _ = LAST.try_with(|last| last.replace(Some(report)));
}

/// What the last failed call on this thread had to say, in one line.
///
/// Never NULL; "" if no call has failed. A success does not clear it. The text is valid
/// until the next failing gds_* call on this thread. Failures of tickets are read with
/// gds_ticket_error().
#[unsafe(no_mangle)]
pub extern "C" fn gds_last_error_message() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ref().map(|report| report.message.as_ptr()))
        .ok()
        .flatten()
        .unwrap_or(<CStr>::as_ptr(c""))
}

/// Everything that the last failed call on this thread had to say.
///
/// With no failure so far the status in it is GDS_STATUS_OK. The strings are valid until the
/// next failing gds_* call on this thread. This call itself never becomes the last error.
///
/// @param info_out  filled as far as `size` goes.
/// @param size      sizeof(gds_error_info_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: info_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_last_error(
    info_out: *mut gds_error_info_t,
    size: usize,
) -> gds_status_t {
    guard_quiet(|| {
        let info = LAST.try_with(|last| last.borrow().as_ref().map(Report::info));
        let info = info
            .ok()
            .flatten()
            .unwrap_or_else(gds_error_info_t::initial);
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(info_out, size, info) }
    })
}
