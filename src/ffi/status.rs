//! What a call came to: the pinned numbers, and which kind of error each stands for.
//!
//! Numbers are written out, appended to and never reused; `tests/abi/status_codes.txt` holds them.
//! The match over `ErrorKind` has no wildcard, so a new kind does not compile without a status.

use core::ffi::{CStr, c_char};

use crate::error::ErrorKind;

/// What a call came to. Values are pinned: new ones are appended, none is reused.
///
/// 1-19 the caller, 20-39 the operating system, 40-59 CUDA and cuFile, 60-79 stored data,
/// 80-98 state, 99 a fault of this library. Treat a number that you do not know as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_status_t {
    /// Done.
    GDS_STATUS_OK = 0,
    /// An argument is NULL, misaligned, unknown or contradicts another; nothing was done.
    GDS_STATUS_INVALID_ARGUMENT = 1,
    /// A handle was closed, is of another type, or never came from this library.
    GDS_STATUS_INVALID_HANDLE = 2,
    /// A configuration field breaks its rule; the message names it.
    GDS_STATUS_INVALID_CONFIG = 3,
    /// An offset plus a size passes the end of a buffer or of what can be addressed.
    GDS_STATUS_OUT_OF_RANGE = 4,
    /// The caller's buffer for an answer is too small.
    GDS_STATUS_BUFFER_TOO_SMALL = 5,
    /// struct_size is not one this library knows, or an unknown tail is not zero.
    GDS_STATUS_STRUCT_SIZE = 6,
    /// The header that the program was built with does not fit this library.
    GDS_STATUS_ABI_MISMATCH = 7,
    /// The operating system failed an operation; see os_error.
    GDS_STATUS_IO = 20,
    /// No such file or key.
    GDS_STATUS_NOT_FOUND = 21,
    /// The operating system forbids it.
    GDS_STATUS_PERMISSION_DENIED = 22,
    /// Not a regular file or block device.
    GDS_STATUS_UNSUPPORTED_FILE = 23,
    /// The disk or quota is full.
    GDS_STATUS_NO_SPACE = 24,
    /// Host memory, or what may be locked of it, is used up.
    GDS_STATUS_OUT_OF_HOST_MEMORY = 25,
    /// The file became shorter while it was read.
    GDS_STATUS_FILE_CHANGED = 26,
    /// The file was opened without the right to do this.
    GDS_STATUS_READ_ONLY = 27,
    /// A CUDA call failed; see cuda_error.
    GDS_STATUS_CUDA = 40,
    /// No CUDA device, or not the one that was asked for.
    GDS_STATUS_NO_DEVICE = 41,
    /// libcuda is not there.
    GDS_STATUS_DRIVER_MISSING = 42,
    /// libcuda is older than what this library needs.
    GDS_STATUS_DRIVER_TOO_OLD = 43,
    /// The driver did not answer within probe_timeout_ms.
    GDS_STATUS_DRIVER_TIMEOUT = 44,
    /// Device memory is used up.
    GDS_STATUS_OUT_OF_DEVICE_MEMORY = 45,
    /// A pointer is not memory that this call can use.
    GDS_STATUS_INVALID_POINTER = 46,
    /// A cuFile call failed; see cufile_error.
    GDS_STATUS_CUFILE = 50,
    /// cuFile cannot be used here; the message says why.
    GDS_STATUS_CUFILE_UNAVAILABLE = 51,
    /// Stored bytes are not what was written.
    GDS_STATUS_CORRUPTED = 60,
    /// The deadline of the operation passed.
    GDS_STATUS_TIMED_OUT = 80,
    /// The caller cancelled it.
    GDS_STATUS_CANCELLED = 81,
    /// It has not finished yet.
    GDS_STATUS_PENDING = 82,
    /// The process forked after a context was opened; the child must exec.
    GDS_STATUS_FORKED = 83,
    /// An earlier failure left this object unusable; close it.
    GDS_STATUS_POISONED = 84,
    /// The path that was demanded cannot be used, and falling back was forbidden.
    GDS_STATUS_FALLBACK_FORBIDDEN = 85,
    /// This build, device or file cannot do that.
    GDS_STATUS_NOT_SUPPORTED = 86,
    /// Every page that could make room, or that should go, is held; release some.
    GDS_STATUS_ALL_PINNED = 87,
    /// Nothing is left: not a failure, and nothing was written.
    GDS_STATUS_END = 88,
    /// A fault inside the library.
    GDS_STATUS_INTERNAL = 98,
    /// The library panicked; the objects of the call answer GDS_STATUS_POISONED from here
    /// on.
    GDS_STATUS_PANIC = 99,
}

use gds_status_t as S;

/// Every status with what it means, in order of its number.
const STRINGS: &[(S, &CStr)] = &[
    (S::GDS_STATUS_OK, c"ok"),
    (S::GDS_STATUS_INVALID_ARGUMENT, c"invalid argument"),
    (S::GDS_STATUS_INVALID_HANDLE, c"invalid or closed handle"),
    (S::GDS_STATUS_INVALID_CONFIG, c"invalid configuration"),
    (S::GDS_STATUS_OUT_OF_RANGE, c"offset or size out of range"),
    (S::GDS_STATUS_BUFFER_TOO_SMALL, c"buffer too small"),
    (S::GDS_STATUS_STRUCT_SIZE, c"unknown struct size"),
    (S::GDS_STATUS_ABI_MISMATCH, c"header and library do not fit"),
    (S::GDS_STATUS_IO, c"input/output error"),
    (S::GDS_STATUS_NOT_FOUND, c"no such file or key"),
    (S::GDS_STATUS_PERMISSION_DENIED, c"permission denied"),
    (
        S::GDS_STATUS_UNSUPPORTED_FILE,
        c"not a regular file or block device",
    ),
    (S::GDS_STATUS_NO_SPACE, c"no space left"),
    (S::GDS_STATUS_OUT_OF_HOST_MEMORY, c"out of host memory"),
    (
        S::GDS_STATUS_FILE_CHANGED,
        c"file changed while it was read",
    ),
    (S::GDS_STATUS_READ_ONLY, c"file is read-only"),
    (S::GDS_STATUS_CUDA, c"CUDA error"),
    (S::GDS_STATUS_NO_DEVICE, c"no such CUDA device"),
    (S::GDS_STATUS_DRIVER_MISSING, c"CUDA driver missing"),
    (S::GDS_STATUS_DRIVER_TOO_OLD, c"CUDA driver too old"),
    (S::GDS_STATUS_DRIVER_TIMEOUT, c"CUDA driver does not answer"),
    (S::GDS_STATUS_OUT_OF_DEVICE_MEMORY, c"out of device memory"),
    (S::GDS_STATUS_INVALID_POINTER, c"pointer cannot be used"),
    (S::GDS_STATUS_CUFILE, c"cuFile error"),
    (S::GDS_STATUS_CUFILE_UNAVAILABLE, c"cuFile unavailable"),
    (S::GDS_STATUS_CORRUPTED, c"stored data corrupted"),
    (S::GDS_STATUS_TIMED_OUT, c"deadline passed"),
    (S::GDS_STATUS_CANCELLED, c"cancelled"),
    (S::GDS_STATUS_PENDING, c"not finished yet"),
    (S::GDS_STATUS_FORKED, c"used in a forked child"),
    (S::GDS_STATUS_POISONED, c"object unusable after a failure"),
    (
        S::GDS_STATUS_FALLBACK_FORBIDDEN,
        c"path unusable and fallback forbidden",
    ),
    (S::GDS_STATUS_NOT_SUPPORTED, c"not supported"),
    (S::GDS_STATUS_ALL_PINNED, c"all pages pinned"),
    (S::GDS_STATUS_END, c"nothing left"),
    (S::GDS_STATUS_INTERNAL, c"internal error"),
    (S::GDS_STATUS_PANIC, c"internal panic"),
];

/// The status that stands for a kind of error.
pub(crate) fn of_kind(kind: ErrorKind) -> gds_status_t {
    match kind {
        ErrorKind::InvalidArgument => S::GDS_STATUS_INVALID_ARGUMENT,
        ErrorKind::InvalidConfig => S::GDS_STATUS_INVALID_CONFIG,
        ErrorKind::OutOfRange => S::GDS_STATUS_OUT_OF_RANGE,
        ErrorKind::BufferTooSmall => S::GDS_STATUS_BUFFER_TOO_SMALL,
        ErrorKind::Io => S::GDS_STATUS_IO,
        ErrorKind::NotFound => S::GDS_STATUS_NOT_FOUND,
        ErrorKind::PermissionDenied => S::GDS_STATUS_PERMISSION_DENIED,
        ErrorKind::UnsupportedFile => S::GDS_STATUS_UNSUPPORTED_FILE,
        ErrorKind::NoSpace => S::GDS_STATUS_NO_SPACE,
        ErrorKind::OutOfHostMemory => S::GDS_STATUS_OUT_OF_HOST_MEMORY,
        ErrorKind::FileChanged => S::GDS_STATUS_FILE_CHANGED,
        ErrorKind::ReadOnly => S::GDS_STATUS_READ_ONLY,
        ErrorKind::Cuda => S::GDS_STATUS_CUDA,
        ErrorKind::NoDevice => S::GDS_STATUS_NO_DEVICE,
        ErrorKind::DriverMissing => S::GDS_STATUS_DRIVER_MISSING,
        ErrorKind::DriverTooOld => S::GDS_STATUS_DRIVER_TOO_OLD,
        ErrorKind::DriverTimeout => S::GDS_STATUS_DRIVER_TIMEOUT,
        ErrorKind::OutOfDeviceMemory => S::GDS_STATUS_OUT_OF_DEVICE_MEMORY,
        ErrorKind::InvalidPointer => S::GDS_STATUS_INVALID_POINTER,
        ErrorKind::CuFile => S::GDS_STATUS_CUFILE,
        ErrorKind::CuFileUnavailable => S::GDS_STATUS_CUFILE_UNAVAILABLE,
        ErrorKind::Corrupted => S::GDS_STATUS_CORRUPTED,
        ErrorKind::TimedOut => S::GDS_STATUS_TIMED_OUT,
        ErrorKind::Cancelled => S::GDS_STATUS_CANCELLED,
        ErrorKind::Pending => S::GDS_STATUS_PENDING,
        ErrorKind::Forked => S::GDS_STATUS_FORKED,
        ErrorKind::Poisoned => S::GDS_STATUS_POISONED,
        ErrorKind::FallbackForbidden => S::GDS_STATUS_FALLBACK_FORBIDDEN,
        ErrorKind::NotSupported => S::GDS_STATUS_NOT_SUPPORTED,
        ErrorKind::AllPinned => S::GDS_STATUS_ALL_PINNED,
        ErrorKind::Internal => S::GDS_STATUS_INTERNAL,
    }
}

/// A few words for a status, in English and without the details of a particular failure.
///
/// Never NULL: a number that is no status answers "unknown status". The text is static.
/// Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn gds_status_string(status: i32) -> *const c_char {
    STRINGS
        .iter()
        .find(|(known, _)| *known as i32 == status)
        .map_or(c"unknown status", |(_, text)| *text)
        .as_ptr()
}
