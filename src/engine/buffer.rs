//! Memory that transfers read into and write from.

use std::fmt;
use std::sync::Arc;

use super::context::{Context, Inner};
use crate::base::limits;
use crate::device::MemoryKind;
use crate::error::{Error, ErrorKind, Result};

/// Memory of the device or of the host. Cheap to clone; what the library allocated is freed with
/// the last clone, and not before every transfer that uses it is over.
#[derive(Clone)]
pub struct Buffer(Arc<Memory>);

struct Memory {
    context: Arc<Inner>,
    address: u64,
    size: u64,
    kind: MemoryKind,
    owner: Owner,
    /// The kernel can read and write it.
    host: bool,
}

/// Who gives the memory back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Allocated,
    Registered,
    Caller,
}

impl Buffer {
    pub(super) fn alloc(context: &Arc<Inner>, kind: MemoryKind, size: u64) -> Result<Self> {
        check_size(size)?;
        let device = &context.shared.device;
        let address = match kind {
            MemoryKind::Device => device.memory_alloc(size)?,
            MemoryKind::Pinned => device.pinned_alloc(to_usize(size)?)? as u64,
            MemoryKind::Managed | MemoryKind::Pageable => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "a buffer is allocated as device or pinned memory; wrap other memory instead",
                ));
            }
        };
        Ok(Self::new(context, address, size, kind, Owner::Allocated))
    }

    pub(super) fn wrap(context: &Arc<Inner>, address: u64, size: u64) -> Result<Self> {
        let kind = check_pointer(context, address, size)?;
        Ok(Self::new(context, address, size, kind, Owner::Caller))
    }

    /// # Safety
    /// The memory stays mapped until the last clone of the buffer is gone.
    pub(super) unsafe fn register(context: &Arc<Inner>, address: u64, size: u64) -> Result<Self> {
        let kind = check_pointer(context, address, size)?;
        if kind != MemoryKind::Pageable || context.shared.device.is_host() {
            return Ok(Self::new(context, address, size, kind, Owner::Caller));
        }
        // SAFETY: the caller keeps the memory mapped while the buffer lives.
        let pinned = unsafe {
            let device = &context.shared.device;
            device.host_register(address as *mut u8, to_usize(size)?, false)
        };
        pinned.map_err(|error| not_pinned(error, address, size))?;
        Ok(Self::new(
            context,
            address,
            size,
            MemoryKind::Pinned,
            Owner::Registered,
        ))
    }

    fn new(context: &Arc<Inner>, address: u64, size: u64, kind: MemoryKind, owner: Owner) -> Self {
        let plain = matches!(kind, MemoryKind::Pinned | MemoryKind::Pageable);
        Self(Arc::new(Memory {
            context: context.clone(),
            address,
            size,
            kind,
            owner,
            host: plain || context.shared.device.is_host(),
        }))
    }

    /// The address: a device pointer for device memory.
    #[inline]
    #[must_use]
    pub fn address(&self) -> u64 {
        self.0.address
    }

    /// Bytes.
    #[inline]
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// What kind of memory it is.
    #[must_use]
    pub fn kind(&self) -> MemoryKind {
        self.0.kind
    }

    /// The context that it belongs to.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::from_inner(self.0.context.clone())
    }

    /// Whether it belongs to this context.
    #[must_use]
    pub fn is_of(&self, context: &Context) -> bool {
        Arc::ptr_eq(&self.0.context, context.inner())
    }

    /// Checks that a range lies in this buffer, and that it is one of this context.
    pub(super) fn check_range(&self, owner: &Arc<Inner>, offset: u64, size: u64) -> Result<()> {
        if !Arc::ptr_eq(&self.0.context, owner) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a buffer belongs to another context; use one of this context",
            ));
        }
        if offset.checked_add(size).is_none_or(|end| end > self.0.size) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!(
                    "{size} bytes at offset {offset} pass the end of a buffer of {} bytes",
                    self.0.size
                ),
            ));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0.context
    }

    /// Whether the kernel can read and write it. Managed memory counts as the device's: its pages
    /// may be away when the kernel looks for them.
    pub(super) fn is_host_memory(&self) -> bool {
        self.0.host
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let device = &self.context.shared.device;
        match (self.owner, self.kind) {
            // SAFETY: allocated by this device, this is the last owner, and every job that used
            // it held a clone until its last copy was over.
            (Owner::Allocated, MemoryKind::Device) => unsafe {
                device.memory_free(self.address, self.size);
            },
            // SAFETY: as above.
            (Owner::Allocated, _) => unsafe {
                device.pinned_free(self.address as *mut u8, self.size as usize);
            },
            // SAFETY: registered by `register`, and no job uses it any more.
            (Owner::Registered, _) => unsafe {
                device.host_unregister(self.address as *mut u8);
            },
            (Owner::Caller, _) => {}
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Buffer({:?} {:#x}, {} bytes)",
            self.0.kind, self.0.address, self.0.size
        )
    }
}

fn to_usize(size: u64) -> Result<usize> {
    usize::try_from(size).map_err(|_| Error::new(ErrorKind::OutOfRange, "size is too large"))
}

fn check_size(size: u64) -> Result<()> {
    if size == 0 || size > limits::TRANSFER_SIZE_MAX {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "a buffer of {size} bytes was asked for; it must have 1 to {} bytes",
                limits::TRANSFER_SIZE_MAX
            ),
        ));
    }
    Ok(())
}

/// The driver says little of why it does not pin memory: most often a page cannot be used.
fn not_pinned(error: Error, address: u64, size: u64) -> Error {
    if error.kind() != ErrorKind::Cuda {
        return error;
    }
    let text = format!(
        "{size} bytes at {address:#x} cannot be pinned: {error}; pass memory that is mapped for \
         reading and writing"
    );
    Error::new(ErrorKind::InvalidPointer, text).with_cuda(error.cuda())
}

fn check_pointer(context: &Arc<Inner>, address: u64, size: u64) -> Result<MemoryKind> {
    check_size(size)?;
    if address == 0 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "the address of a buffer is NULL",
        ));
    }
    let Some(end) = address.checked_add(size) else {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{size} bytes at {address:#x} pass the end of the address space"),
        ));
    };
    let info = context.shared.device.pointer_info(address)?;
    if info.size > 0 && end > info.base.saturating_add(info.size) {
        return Err(Error::new(
            ErrorKind::InvalidPointer,
            format!(
                "{size} bytes at {address:#x} were given, but the allocation holds only {} from \
                 there; pass its real size",
                (info.base + info.size).saturating_sub(address)
            ),
        ));
    }
    if info.kind == MemoryKind::Pageable {
        check_mapped(address, end)?;
    }
    Ok(info.kind)
}

/// A pointer that no driver knows may be a freed one: the kernel says whether it is mapped.
fn check_mapped(address: u64, end: u64) -> Result<()> {
    const PAGE: u64 = 4096;
    for page in [address & !(PAGE - 1), (end - 1) & !(PAGE - 1)] {
        // SAFETY: msync with MS_ASYNC writes nothing; it only tells whether the page is mapped.
        let mapped = unsafe { libc::msync(page as *mut libc::c_void, 1, libc::MS_ASYNC) } == 0;
        if !mapped {
            return Err(Error::new(
                ErrorKind::InvalidPointer,
                format!(
                    "{page:#x} is neither device memory that the driver knows nor mapped host \
                     memory; was it freed?"
                ),
            ));
        }
    }
    Ok(())
}
