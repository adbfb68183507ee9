//! Registered files and registered memory: given back on drop, files before their descriptor.

use std::ffi::c_void;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Error, ErrorKind, Result};

use super::error::{check, transfer};
use super::library::Library;
use super::sys;

/// A file that is registered with cuFile. It holds a duplicate of the descriptor, so the caller's
/// may be closed at any time, and gives up the registration before it closes that duplicate:
/// a number that was closed while registered reads the *old* file when it is used again.
///
/// Any thread may read and write; dropping waits for nothing, so batches and stream transfers
/// hold their handle themselves.
pub struct Handle {
    pub(super) library: &'static Library,
    pub(super) raw: sys::FileHandle,
    descriptor: OwnedFd,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("fd", &self.descriptor.as_raw_fd())
            .finish_non_exhaustive()
    }
}

/// Refuses what cannot be said with cuFile's signed numbers.
pub(super) fn check_range(
    what: &str,
    size: usize,
    file_offset: u64,
    base_offset: u64,
) -> Result<(i64, i64)> {
    let signed = |offset: u64| {
        i64::try_from(offset)
            .ok()
            .filter(|start| start.checked_add_unsigned(size as u64).is_some())
    };
    match (signed(file_offset), signed(base_offset)) {
        (Some(file_offset), Some(base_offset)) if isize::try_from(size).is_ok() => {
            Ok((file_offset, base_offset))
        }
        _ => Err(Error::new(
            ErrorKind::OutOfRange,
            format!(
                "{what} {size} bytes at {file_offset} of a file, {base_offset} after the base: \
                 offsets and ends must be under 2^63"
            ),
        )
        .with_offset(file_offset)),
    }
}

fn set_errno(value: i32) {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = value };
}

fn errno() -> i32 {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

impl Library {
    /// Registers a file. It opens the driver at the first call of the process. `fd` stays the
    /// caller's; the access mode and O_DIRECT of its file hold for the handle. Check `gates`
    /// first: cuFile's own answer for a missing udev record names nothing.
    ///
    /// # Errors
    /// As [`Library::open_driver`]; `CuFileUnavailable` for a file that cuFile cannot use;
    /// the operating system's error for a closed `fd`.
    pub fn register(&'static self, fd: RawFd) -> Result<Handle> {
        self.open_driver()?;
        // SAFETY: fcntl answers an error for a number that is no descriptor.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 {
            return Err(Error::last_os(format_args!(
                "duplicate descriptor {fd} for cuFile"
            )));
        }
        // SAFETY: copy was made here and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(copy) };
        // Zeroed with its padding: libcufile reads all of the union and follows fs_ops.
        // SAFETY: all-zero is a valid Descriptor.
        let mut description: sys::Descriptor = unsafe { std::mem::zeroed() };
        description.kind = sys::HANDLE_TYPE_OPAQUE_FD;
        description.handle.fd = copy;
        let mut raw = sys::FileHandle(std::ptr::null_mut());
        // SAFETY: both outlive the call.
        let status = unsafe { (self.symbols.handle_register)(&raw mut raw, &raw mut description) };
        check(status, format_args!("register descriptor {fd} with cuFile"))?;
        Ok(Handle {
            library: self,
            raw,
            descriptor,
        })
    }

    /// Registers `size` bytes at `base`: device memory is mapped for DMA, host memory noted.
    /// Transfers name this base and an offset, never an address inside. Worth it for memory that
    /// is used often.
    ///
    /// # Errors
    /// As [`Library::open_driver`], and what cuFile answers (5023 for memory that is registered).
    ///
    /// # Safety
    /// The memory is valid, and stays allocated until the answer is dropped: freeing device
    /// memory that is registered can hang the kernel driver.
    pub unsafe fn buffer_register(
        &'static self,
        base: u64,
        size: usize,
    ) -> Result<RegisteredBuffer> {
        if base == 0 || size == 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("register {size} bytes at {base:#x} with cuFile: give memory and a size"),
            ));
        }
        self.open_driver()?;
        // SAFETY: the caller vouches for the memory.
        let status = unsafe { (self.symbols.buf_register)(base as *const c_void, size, 0) };
        check(
            status,
            format_args!("register {size} bytes at {base:#x} with cuFile"),
        )?;
        Ok(RegisteredBuffer {
            library: self,
            base,
            size,
        })
    }
}

impl Handle {
    /// The descriptor that the handle owns. It must not be closed.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// The library it is registered with.
    #[must_use]
    pub fn library(&self) -> &'static Library {
        self.library
    }

    /// One cuFileRead into `base + base_offset`, on the calling thread. Bytes read: 0 at the end
    /// of the file, fewer than `size` before it. Any offset, size and pointer is accepted. Not
    /// ordered with any CUDA stream.
    ///
    /// # Errors
    /// `OutOfRange`, or what cuFile answers (`error`).
    ///
    /// # Safety
    /// `base + base_offset` is valid for `size` bytes of writes and used by nobody else until the
    /// call returns. In registered device memory `base` is the registered base. Host memory goes
    /// in as one address with `base_offset` 0: libcufile looks at the base alone when it judges
    /// the alignment for O_DIRECT, and fails with a meaningless errno.
    pub unsafe fn read(
        &self,
        base: u64,
        size: usize,
        file_offset: u64,
        base_offset: u64,
    ) -> Result<usize> {
        let (file, memory) = check_range("read", size, file_offset, base_offset)?;
        set_errno(0);
        // SAFETY: the caller vouches for the memory; the handle is registered while self lives.
        let result = unsafe {
            (self.library.symbols.read)(self.raw, base as *mut c_void, size, file, memory)
        };
        let what = format_args!("read {size} bytes at {file_offset} with cuFile");
        transfer(result, errno(), what).map_err(|error| error.with_offset(file_offset))
    }

    /// One cuFileWrite from `base + base_offset`, as [`Handle::read`]. Bytes written, perhaps
    /// fewer than `size`.
    ///
    /// # Errors
    /// As [`Handle::read`].
    ///
    /// # Safety
    /// `base + base_offset` is valid for `size` bytes of reads, and nobody writes to it (a CUDA
    /// stream neither) until the call returns. Bases and offsets are as for [`Handle::read`].
    pub unsafe fn write(
        &self,
        base: u64,
        size: usize,
        file_offset: u64,
        base_offset: u64,
    ) -> Result<usize> {
        let (file, memory) = check_range("write", size, file_offset, base_offset)?;
        set_errno(0);
        // SAFETY: the caller vouches for the memory; the handle is registered while self lives.
        let result = unsafe {
            (self.library.symbols.write)(self.raw, base as *const c_void, size, file, memory)
        };
        let what = format_args!("write {size} bytes at {file_offset} with cuFile");
        transfer(result, errno(), what).map_err(|error| error.with_offset(file_offset))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The field `descriptor` closes after this body, so the number is free only then.
        if self.library.is_forked() {
            return;
        }
        // SAFETY: the handle was registered and is given back once.
        unsafe { (self.library.symbols.handle_deregister)(self.raw) };
    }
}

/// Memory that is registered with cuFile; dropping it gives the registration back.
pub struct RegisteredBuffer {
    library: &'static Library,
    base: u64,
    size: usize,
}

impl fmt::Debug for RegisteredBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegisteredBuffer({:#x}, {} bytes)", self.base, self.size)
    }
}

impl RegisteredBuffer {
    /// The base to give to transfers.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Gives the registration back and tells how that went.
    ///
    /// # Errors
    /// What cuFile answers; the registration is gone either way.
    pub fn deregister(self) -> Result<()> {
        let this = std::mem::ManuallyDrop::new(self);
        this.give_back()
    }

    fn give_back(&self) -> Result<()> {
        // SAFETY: the memory was registered and is given back once.
        let status = unsafe { (self.library.symbols.buf_deregister)(self.base as *const c_void) };
        check(
            status,
            format_args!("deregister {:#x} from cuFile", self.base),
        )
    }
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        if self.library.is_forked() {
            return;
        }
        // Nobody is left to tell, and there is nothing to do about it.
        let _answer = self.give_back();
    }
}
