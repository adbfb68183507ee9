//! One error for every room: what was asked, what happened, what to do.
//!
//! An `Error` knows nothing of C. Its `ErrorKind` groups errors for the ABI, which maps every kind
//! to a pinned status in `ffi::status`. Codes of the operating system, CUDA and cuFile, the path
//! and the offset travel along where they are known.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong, as groups that a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is NULL, misaligned or contradicts another; nothing was done.
    InvalidArgument,
    /// A configuration field breaks its rule.
    InvalidConfig,
    /// An offset plus a size passes the end of a buffer or of what can be addressed.
    OutOfRange,
    /// A caller's buffer for an answer is too small.
    BufferTooSmall,
    /// The operating system refused or failed an operation (see errno).
    Io,
    /// No such file.
    NotFound,
    /// The operating system forbids it.
    PermissionDenied,
    /// Not a regular file or block device.
    UnsupportedFile,
    /// The disk or quota is full.
    NoSpace,
    /// Host memory, or what may be locked of it, is used up.
    OutOfHostMemory,
    /// The file became shorter while it was read.
    FileChanged,
    /// The file was opened without the right to do this.
    ReadOnly,
    /// A CUDA call failed (see the CUresult).
    Cuda,
    /// No CUDA device, or not the one that was asked for.
    NoDevice,
    /// libcuda is not there.
    DriverMissing,
    /// libcuda is older than what this library needs.
    DriverTooOld,
    /// The driver did not answer within the probe's deadline.
    DriverTimeout,
    /// Device memory is used up.
    OutOfDeviceMemory,
    /// A pointer is not memory that this call can use.
    InvalidPointer,
    /// A cuFile call failed (see the cuFile code).
    CuFile,
    /// cuFile cannot be used here.
    CuFileUnavailable,
    /// Stored bytes are not what was written.
    Corrupted,
    /// The deadline passed.
    TimedOut,
    /// The caller cancelled it.
    Cancelled,
    /// It has not finished yet.
    Pending,
    /// The process forked after the context was opened.
    Forked,
    /// An earlier failure left this object unusable.
    Poisoned,
    /// The path that was demanded cannot be used, and falling back was forbidden.
    FallbackForbidden,
    /// This build, device or file cannot do that.
    NotSupported,
    /// Every page that could make room, or that should go, is held by somebody.
    AllPinned,
    /// A fault inside the library.
    Internal,
}

/// Result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// An error: one line for people, and the codes for programs.
#[derive(Clone, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Error(Box<Detail>);

#[derive(Clone)]
struct Detail {
    kind: ErrorKind,
    message: String,
    errno: i32,
    cuda: i32,
    cufile: i32,
    path: Option<PathBuf>,
    offset: Option<u64>,
}

impl Error {
    /// An error of `kind` that says `message`: what was asked, what happened, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Detail {
            kind,
            message: message.into(),
            errno: 0,
            cuda: 0,
            cufile: 0,
            path: None,
            offset: None,
        }))
    }

    /// An error of the operating system while doing `what`, with the kind that errno implies.
    pub fn os(errno: i32, what: impl fmt::Display) -> Self {
        let text = std::io::Error::from_raw_os_error(errno);
        Self::new(
            kind_of_errno(errno),
            format!("{what}: {text}{}", advice(errno)),
        )
        .with_errno(errno)
    }

    /// The calling thread's last operating-system error while doing `what`.
    pub fn last_os(what: impl fmt::Display) -> Self {
        Self::os(
            std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
            what,
        )
    }

    /// Attaches an errno.
    #[must_use]
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.0.errno = errno;
        self
    }

    /// Attaches a CUresult.
    #[must_use]
    pub fn with_cuda(mut self, code: i32) -> Self {
        self.0.cuda = code;
        self
    }

    /// Attaches a CUfileOpError.
    #[must_use]
    pub fn with_cufile(mut self, code: i32) -> Self {
        self.0.cufile = code;
        self
    }

    /// Attaches the file, unless one is attached.
    #[must_use]
    pub fn with_path(mut self, path: &Path) -> Self {
        self.0.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// Attaches the file offset in bytes, unless one is attached.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// What group it belongs to.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The line for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// errno, or 0.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.0.errno
    }

    /// CUresult, or 0.
    #[must_use]
    pub fn cuda(&self) -> i32 {
        self.0.cuda
    }

    /// CUfileOpError, or 0.
    #[must_use]
    pub fn cufile(&self) -> i32 {
        self.0.cufile
    }

    /// The file it happened on.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The file offset it happened at, bytes.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Whether doing the same again may succeed: the operating system was busy, not unwilling.
    /// A failed disk (EIO) is not transient: a second try hides a dying drive.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        is_transient_errno(self.0.errno)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.0;
        write!(f, "{:?}: {}", d.kind, d.message)?;
        if d.errno != 0 {
            write!(f, " (errno {})", d.errno)?;
        }
        if d.cuda != 0 {
            write!(f, " (CUresult {})", d.cuda)?;
        }
        if d.cufile != 0 {
            write!(f, " (cuFile {})", d.cufile)?;
        }
        Ok(())
    }
}

/// Whether an errno says "try again" rather than "no".
#[must_use]
pub fn is_transient_errno(errno: i32) -> bool {
    matches!(
        errno,
        libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIMEDOUT | libc::ENOBUFS
    )
}

fn kind_of_errno(errno: i32) -> ErrorKind {
    match errno {
        libc::ENOENT | libc::ENOTDIR => ErrorKind::NotFound,
        libc::EACCES | libc::EPERM => ErrorKind::PermissionDenied,
        libc::EROFS => ErrorKind::ReadOnly,
        libc::EISDIR | libc::ENXIO | libc::ENODEV | libc::ESPIPE => ErrorKind::UnsupportedFile,
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => ErrorKind::NoSpace,
        libc::ENOMEM => ErrorKind::OutOfHostMemory,
        libc::EFAULT => ErrorKind::InvalidPointer,
        libc::ECANCELED => ErrorKind::Cancelled,
        libc::EOPNOTSUPP | libc::ENOSYS => ErrorKind::NotSupported,
        _ => ErrorKind::Io,
    }
}

fn advice(errno: i32) -> &'static str {
    match errno {
        libc::ENOSPC => "; free space on that file system and write again",
        libc::EDQUOT => "; the quota is used up",
        libc::EMFILE => "; close files or raise `ulimit -n`",
        libc::EACCES | libc::EPERM => "; check the owner and mode of the file and of its folders",
        libc::ENOMEM => "; lower staging_bytes or raise `ulimit -l`",
        libc::EIO => "; the device failed, look at the kernel's log",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_chooses_the_kind_and_adds_the_fix() {
        let e = Error::os(libc::ENOSPC, "write 4096 bytes at 0 of /x");
        assert_eq!(e.kind(), ErrorKind::NoSpace);
        assert_eq!(e.errno(), libc::ENOSPC);
        assert!(e.message().contains("free space"), "{e}");
    }

    #[test]
    fn the_first_path_and_offset_stay() {
        let e = Error::new(ErrorKind::Io, "x")
            .with_path(Path::new("/a"))
            .with_path(Path::new("/b"))
            .with_offset(7)
            .with_offset(9);
        assert_eq!((e.path(), e.offset()), (Some(Path::new("/a")), Some(7)));
    }

    #[test]
    fn a_failed_disk_is_not_transient() {
        assert!(!Error::os(libc::EIO, "x").is_transient());
        assert!(Error::os(libc::EAGAIN, "x").is_transient());
    }
}
