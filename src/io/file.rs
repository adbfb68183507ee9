//! Open files: one buffered descriptor, a direct one where the file can, and what it can do.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::base::limits::TRANSFER_SIZE_MAX;
use crate::error::{Error, ErrorKind, Result};

use super::capabilities::{self, Capabilities, FileKind, errno};

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpenMode {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// Make the file where there is none (mode 0666 less the umask). Needs `write`.
    pub create: bool,
    /// Empty it. Needs `write`.
    pub truncate: bool,
    /// With `create`: fail where the name exists.
    pub exclusive: bool,
}

impl OpenMode {
    /// Reading a file that exists.
    #[must_use]
    pub const fn read_only() -> Self {
        Self {
            read: true,
            write: false,
            create: false,
            truncate: false,
            exclusive: false,
        }
    }

    /// Reading and writing a file that exists.
    #[must_use]
    pub const fn read_write() -> Self {
        Self {
            write: true,
            ..Self::read_only()
        }
    }

    /// Reading and writing a file that is made where there is none; what it holds stays.
    #[must_use]
    pub const fn create() -> Self {
        Self {
            create: true,
            ..Self::read_write()
        }
    }

    /// O_RDONLY, O_WRONLY or O_RDWR.
    pub(super) const fn access_flags(self) -> libc::c_int {
        match (self.read, self.write) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        }
    }

    fn flags(self) -> libc::c_int {
        let mut flags = self.access_flags();
        for (wanted, flag) in [
            (self.create, libc::O_CREAT),
            (self.truncate, libc::O_TRUNC),
            (self.exclusive, libc::O_EXCL),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        flags
    }

    fn check(self, path: &Path) -> Result<()> {
        let wrong = if !self.read && !self.write {
            "neither reading nor writing is asked for; ask for one"
        } else if (self.create || self.truncate) && !self.write {
            "creating or truncating needs writing; ask for writing too"
        } else if self.exclusive && !self.create {
            "exclusive means that the file must be new; ask for creating too"
        } else {
            return Ok(());
        };
        let message = format!("open {}: {wrong}", path.display());
        Err(Error::new(ErrorKind::InvalidArgument, message).with_path(path))
    }
}

impl fmt::Display for OpenMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.read, self.write) {
            (true, true) => "reading and writing",
            (false, true) => "writing",
            _ => "reading",
        })
    }
}

/// The descriptors of one open file. They close when it drops; whoever does I/O on them keeps it
/// alive until the last completion. Every method may be called from many threads at once.
#[derive(Debug)]
pub struct FileDescriptors {
    path: PathBuf,
    mode: OpenMode,
    identity: (u64, u64),
    capabilities: Capabilities,
    buffered: OwnedFd,
    direct: Option<OwnedFd>,
}

impl FileDescriptors {
    /// Opens a regular file or block device. Never blocks on a FIFO or a device.
    ///
    /// # Errors
    /// `UnsupportedFile` for a directory, FIFO, socket or character device; `NotFound`,
    /// `PermissionDenied`, `NoSpace` and `Io` as open(2) says; `InvalidArgument` for a mode that
    /// contradicts itself and for a path with a NUL byte.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self> {
        mode.check(path)?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| {
            let message = format!("open {}: the path holds a NUL byte", path.display());
            Error::new(ErrorKind::InvalidArgument, message).with_path(path)
        })?;
        // Opening a tape or a watchdog does something: look before. The look after the opening
        // is the one that counts.
        if let Ok(metadata) = std::fs::metadata(path) {
            use std::os::unix::fs::MetadataExt;
            kind_of(metadata.mode()).map_err(|what| unsupported(path, mode, what))?;
        }
        let flags = mode.flags() | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        let fd = loop {
            // SAFETY: `name` is a C string that lives through the call.
            let fd = unsafe { libc::open(name.as_ptr(), flags, 0o666) };
            if fd >= 0 {
                // SAFETY: `fd` was just opened and nobody else owns it.
                break unsafe { OwnedFd::from_raw_fd(fd) };
            }
            let errno = errno();
            if errno != libc::EINTR {
                return Err(open_failed(path, mode, errno));
            }
        };
        Self::finish(path.to_path_buf(), mode, fd, true)
    }

    /// Takes the file behind a descriptor, which stays the caller's and may be closed at once.
    ///
    /// The file is opened again at the same access mode, so that flags of the caller's descriptor
    /// (O_APPEND, O_NONBLOCK, O_DIRECT) change nothing here; where that is forbidden, the
    /// descriptor is duplicated. As with every descriptor, POSIX record locks that this process
    /// holds on the file are released when the result drops.
    ///
    /// # Errors
    /// `InvalidArgument` (EBADF) for a descriptor that is not open or was opened with O_PATH, and
    /// for one that cannot be opened again and has flags that forbid reads or writes at offsets;
    /// `UnsupportedFile` for what is neither a regular file nor a block device.
    pub fn from_fd(fd: RawFd) -> Result<Self> {
        // SAFETY: fcntl checks the descriptor.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            let errno = errno();
            if errno != libc::EBADF {
                return Err(Error::os(errno, format!("duplicate descriptor {fd}")));
            }
            let message = format!(
                "descriptor {fd} is not open: pass one that open(2) returned, before close(2)"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_errno(errno));
        }
        // SAFETY: `copy` was just made and nobody else owns it.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        // SAFETY: `copy` is open.
        let flags = unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            return Err(Error::last_os(format!(
                "ask for the flags of descriptor {fd}"
            )));
        }
        let path = std::fs::read_link(format!("/proc/self/fd/{}", copy.as_raw_fd()))
            .map(|p| PathBuf::from(std::ffi::OsString::from_vec(p.into_os_string().into_vec())))
            .unwrap_or_else(|_| PathBuf::from(format!("fd:{fd}")));
        if flags & libc::O_PATH != 0 {
            let message = format!(
                "descriptor {fd} ({}) was opened with O_PATH, which gives no access to the \
                 data: open it without",
                path.display()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_errno(libc::EBADF)
                .with_path(&path));
        }
        let access = flags & libc::O_ACCMODE;
        let mode = OpenMode {
            read: access != libc::O_WRONLY,
            write: access != libc::O_RDONLY,
            ..OpenMode::read_only()
        };
        let stat = stat_of(copy.as_raw_fd(), &path)?;
        kind_of(stat.st_mode).map_err(|what| unsupported(&path, mode, what))?;
        match capabilities::reopen(copy.as_raw_fd(), access | libc::O_NONBLOCK) {
            Ok(own) => Self::finish(path, mode, own, true),
            Err(errno) => {
                for (flag, name, effect) in [
                    (
                        libc::O_APPEND,
                        "O_APPEND",
                        "would send every write to the end",
                    ),
                    (libc::O_DIRECT, "O_DIRECT", "would refuse unaligned pieces"),
                    (libc::O_NONBLOCK, "O_NONBLOCK", "would end waits early"),
                ] {
                    if flags & flag != 0 {
                        let message = format!(
                            "descriptor {fd} ({}) has {name}, which {effect}, and opening the \
                             file again failed: pass a descriptor without {name}",
                            path.display()
                        );
                        return Err(Error::new(ErrorKind::InvalidArgument, message)
                            .with_errno(errno)
                            .with_path(&path));
                    }
                }
                Self::finish(path, mode, copy, false)
            }
        }
    }

    /// Checks what was opened, looks up what it can do, and opens the direct descriptor.
    fn finish(path: PathBuf, mode: OpenMode, fd: OwnedFd, own_flags: bool) -> Result<Self> {
        let stat = stat_of(fd.as_raw_fd(), &path)?;
        let kind = kind_of(stat.st_mode).map_err(|what| unsupported(&path, mode, what))?;
        if own_flags {
            clear_nonblock(fd.as_raw_fd(), &path)?;
        }
        let (capabilities, direct) = capabilities::look_up(fd.as_raw_fd(), &stat, kind, mode);
        Ok(Self {
            path,
            mode,
            identity: match kind {
                FileKind::Regular => (stat.st_dev, stat.st_ino),
                FileKind::BlockDevice => (u64::MAX, stat.st_rdev),
            },
            capabilities,
            buffered: fd,
            direct,
        })
    }

    /// The path it was opened by; of a descriptor, the one that the kernel knows it by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is, whatever name it was opened by: file system and inode, or the block device.
    /// Equal for all descriptors of one file while one of them is open.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// How it was opened.
    #[must_use]
    pub fn mode(&self) -> OpenMode {
        self.mode
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The descriptor whose I/O goes through the page cache. Owned by this object.
    #[must_use]
    pub fn buffered(&self) -> RawFd {
        self.buffered.as_raw_fd()
    }

    /// The descriptor whose I/O goes past the page cache, where the file can do that. Owned by
    /// this object. Offsets, sizes and memory follow the alignments of [`Capabilities`].
    #[must_use]
    pub fn direct(&self) -> Option<RawFd> {
        self.direct.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Size of the file or block device, bytes. Means nothing where `sized` is false.
    ///
    /// # Errors
    /// `Io` when the kernel refuses to tell.
    pub fn size(&self) -> Result<u64> {
        match self.capabilities.kind {
            FileKind::Regular => {
                let size = stat_of(self.buffered(), &self.path)?.st_size;
                Ok(u64::try_from(size).unwrap_or(0))
            }
            FileKind::BlockDevice => capabilities::device_size(self.buffered()).map_err(|errno| {
                let what = format!("ask for the size of {}", self.path.display());
                Error::os(errno, what).with_path(&self.path)
            }),
        }
    }

    /// Makes sure that `size` bytes from `offset` have disk space, so that a lack of it shows
    /// before any byte moves. The file's size and bytes stay as they are.
    ///
    /// # Errors
    /// `NoSpace` (a part may stay reserved until the file is truncated), `NotSupported` where the
    /// file system cannot reserve, `ReadOnly` for a file that is not open for writing,
    /// `OutOfRange` past the largest file offset.
    pub fn reserve(&self, offset: u64, size: u64) -> Result<()> {
        self.need_write("reserve space in")?;
        let end = self.end_of(offset, size)?;
        if size == 0 {
            return Ok(());
        }
        let what = format!(
            "reserve {size} bytes at {offset} in {}",
            self.path.display()
        );
        if self.capabilities.kind == FileKind::BlockDevice {
            let have = self.size()?;
            if end > have {
                let message = format!("{what}: the device ends at {have}; write less");
                return Err(Error::new(ErrorKind::NoSpace, message)
                    .with_errno(libc::ENOSPC)
                    .with_path(&self.path)
                    .with_offset(offset));
            }
            return Ok(());
        }
        // A file system may hand out all that is left before it finds that it is not enough.
        if self.space_left(offset, end)? == Some(false) {
            return Err(Error::os(libc::ENOSPC, what)
                .with_path(&self.path)
                .with_offset(offset));
        }
        loop {
            // SAFETY: plain integers; both fit off_t, see `end_of`.
            let rc = unsafe {
                libc::fallocate(
                    self.buffered(),
                    libc::FALLOC_FL_KEEP_SIZE,
                    offset as libc::off_t,
                    size as libc::off_t,
                )
            };
            if rc == 0 {
                return Ok(());
            }
            let errno = errno();
            if errno != libc::EINTR {
                return Err(Error::os(errno, what)
                    .with_path(&self.path)
                    .with_offset(offset));
            }
        }
    }

    /// Makes the file `size` bytes long: cut, or extended with zeros.
    ///
    /// # Errors
    /// `NotSupported` for a block device, `ReadOnly` for a file that is not open for writing,
    /// `NoSpace` and `Io` as ftruncate(2) says.
    pub fn set_size(&self, size: u64) -> Result<()> {
        self.need_write("set the size of")?;
        self.end_of(0, size)?;
        if self.capabilities.kind == FileKind::BlockDevice {
            let message = format!(
                "set the size of {} to {size}: it is a block device, whose size is fixed",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::NotSupported, message).with_path(&self.path));
        }
        loop {
            // SAFETY: plain integers; the size fits off_t, see `end_of`.
            if unsafe { libc::ftruncate(self.buffered(), size as libc::off_t) } == 0 {
                return Ok(());
            }
            let errno = errno();
            if errno != libc::EINTR {
                let what = format!("set the size of {} to {size}", self.path.display());
                return Err(Error::os(errno, what).with_path(&self.path));
            }
        }
    }

    /// Whether the part of the range past the end of the file can fit; `None` where that part is
    /// empty or the file system does not count blocks. Lenient: only a clear lack answers false.
    fn space_left(&self, offset: u64, end: u64) -> Result<Option<bool>> {
        let stat = stat_of(self.buffered(), &self.path)?;
        let needed = end.saturating_sub(offset.max(u64::try_from(stat.st_size).unwrap_or(0)));
        // SAFETY: statvfs is plain integers; all zero is a value of it.
        let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `space` is writable for the call.
        let rc = unsafe { libc::fstatvfs(self.buffered(), &raw mut space) };
        if needed == 0 || rc != 0 || space.f_blocks == 0 {
            return Ok(None);
        }
        let free = u128::from(space.f_bfree) * u128::from(space.f_frsize);
        let held = u128::try_from(stat.st_blocks).unwrap_or(0) * 512;
        Ok(Some(u128::from(needed) <= free + held))
    }

    fn need_write(&self, what: &str) -> Result<()> {
        if self.mode.write {
            return Ok(());
        }
        let message = format!(
            "{what} {}: it was opened for reading only; open it for writing",
            self.path.display()
        );
        Err(Error::new(ErrorKind::ReadOnly, message).with_path(&self.path))
    }

    fn end_of(&self, offset: u64, size: u64) -> Result<u64> {
        offset.checked_add(size).filter(|end| *end <= TRANSFER_SIZE_MAX).ok_or_else(|| {
            let message = format!(
                "{size} bytes at {offset} of {}: the largest file offset is {TRANSFER_SIZE_MAX}",
                self.path.display()
            );
            Error::new(ErrorKind::OutOfRange, message).with_path(&self.path).with_offset(offset)
        })
    }
}

fn stat_of(fd: RawFd, path: &Path) -> Result<libc::stat> {
    // SAFETY: stat is plain integers; all zero is a value of it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is writable for the call.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return Err(Error::last_os(format!("fstat {}", path.display())).with_path(path));
    }
    Ok(stat)
}

/// O_NONBLOCK was for the opening only: with it, io_uring answers reads with EAGAIN.
fn clear_nonblock(fd: RawFd, path: &Path) -> Result<()> {
    // SAFETY: plain integers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: plain integers.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK) } != 0 {
        let what = format!("clear O_NONBLOCK of {}", path.display());
        return Err(Error::last_os(what).with_path(path));
    }
    Ok(())
}

/// The kind of a file by its mode bits, or what it is instead and what to do about it.
fn kind_of(mode: libc::mode_t) -> std::result::Result<FileKind, &'static str> {
    match mode & libc::S_IFMT {
        libc::S_IFREG => Ok(FileKind::Regular),
        libc::S_IFBLK => Ok(FileKind::BlockDevice),
        libc::S_IFDIR => Err("a directory; name a file inside it"),
        libc::S_IFIFO => Err("a FIFO (named pipe), which has no offsets; copy it to a file first"),
        libc::S_IFSOCK => Err("a socket, which has no offsets; receive into a file first"),
        libc::S_IFCHR => Err("a character device; name a regular file or a block device"),
        libc::S_IFLNK => Err("a symbolic link opened as such; open what it points to"),
        _ => Err("neither a regular file nor a block device; name one of these"),
    }
}

fn unsupported(path: &Path, mode: OpenMode, what: &str) -> Error {
    let message = format!("open {} for {mode}: it is {what}", path.display());
    Error::new(ErrorKind::UnsupportedFile, message).with_path(path)
}

fn open_failed(path: &Path, mode: OpenMode, errno: i32) -> Error {
    // EISDIR and ENXIO hide what is there; the mode bits tell.
    if let Ok(metadata) = std::fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        if let Err(what) = kind_of(metadata.mode()) {
            return unsupported(path, mode, what).with_errno(errno);
        }
    }
    let fix = match errno {
        libc::ENOENT if mode.create => "; its folder does not exist, make it first",
        libc::ENOENT => "; check the path, or ask for creating it",
        libc::EEXIST => "; exclusive creating was asked for, remove it or drop exclusive",
        libc::ELOOP => "; its symbolic links go in a circle",
        libc::ETXTBSY => "; it is a program that runs, stop it first",
        libc::EROFS => "; its file system is mounted read-only",
        _ => "",
    };
    let error = Error::os(errno, format!("open {} for {mode}", path.display())).with_path(path);
    if fix.is_empty() {
        return error;
    }
    Error::new(error.kind(), format!("{}{fix}", error.message()))
        .with_errno(errno)
        .with_path(path)
}
