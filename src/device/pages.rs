//! Page-aligned, zeroed memory straight from the kernel, where failure is an answer.
//!
//! The allocator of the standard library may abort on absurd sizes, and overcommit hands out what
//! does not exist; here a size above the machine's memory is refused before the kernel is asked.

use std::ptr::{self, NonNull};

use super::kept;
use crate::base::align_up;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Above this size a mapping asks for huge pages, bytes.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// Free and total memory of the machine, bytes; the total includes swap.
pub(super) struct Machine {
    /// Memory that nobody uses, without what the page cache could give back.
    pub free: u64,
    /// Physical memory.
    pub physical: u64,
    /// Physical memory and swap.
    pub total: u64,
}

/// Asks the kernel how much memory there is.
pub(super) fn machine() -> Result<Machine> {
    // SAFETY: sysinfo is plain data, for which zero bytes are valid.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is writable and of the right type.
    if unsafe { libc::sysinfo(&mut info) } != 0 {
        return Err(Error::last_os("ask the kernel how much memory there is"));
    }
    let unit = u64::from(info.mem_unit.max(1));
    let physical = info.totalram.saturating_mul(unit);
    Ok(Machine {
        free: info
            .freeram
            .saturating_add(info.bufferram)
            .saturating_mul(unit),
        physical,
        total: physical.saturating_add(info.totalswap.saturating_mul(unit)),
    })
}

/// What a mapping of `size` bytes takes: whole pages.
pub(super) fn mapped_size(size: usize) -> Option<usize> {
    align_up(size as u64, PAGE as u64)?.try_into().ok()
}

/// Maps `size` bytes (more than 0), rounded up to whole pages, zeroed. Give it back to [`unmap`].
///
/// # Errors
/// `kind` with the size, what is free, and `advice`.
pub(super) fn map(size: usize, kind: ErrorKind, what: &str, advice: &str) -> Result<*mut u8> {
    let mapped = mapped_size(size).unwrap_or(usize::MAX);
    map_rounded(size, mapped, kind, what, advice)
}

/// As [`map`], of `mapped` bytes, whole pages, for `size` that were asked for.
pub(super) fn map_rounded(
    size: usize,
    mapped: usize,
    kind: ErrorKind,
    what: &str,
    advice: &str,
) -> Result<*mut u8> {
    let machine = machine()?;
    let refuse = |why: String| {
        let free = machine.free;
        let text = format!("allocate {size} bytes of {what}: {why}, {free} bytes free; {advice}");
        Error::new(kind, text)
    };
    if mapped as u64 > machine.total {
        return Err(refuse(format!(
            "this machine has {} bytes of memory",
            machine.total
        )));
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice overlays nothing.
    let address = unsafe { libc::mmap(ptr::null_mut(), mapped, access, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        let os = std::io::Error::last_os_error();
        let errno = os.raw_os_error().unwrap_or(0);
        return Err(refuse(os.to_string()).with_errno(errno));
    }
    if mapped >= HUGE_PAGE {
        // Fewer faults while it is filled first. Only a hint: refusing it changes nothing.
        // SAFETY: the range was mapped just above.
        unsafe { libc::madvise(address, mapped, libc::MADV_HUGEPAGE) };
    }
    Ok(address.cast())
}

/// Gives a mapping back.
///
/// # Safety
/// `pointer` is from `map(size, ..)`, and nothing uses the memory any more.
pub(super) unsafe fn unmap(pointer: *mut u8, size: usize) {
    if let Some(mapped) = mapped_size(size) {
        // SAFETY: the caller hands back one whole mapping of this size.
        unsafe { libc::munmap(pointer.cast(), mapped) };
    }
}

/// Ordinary memory for bulk that the processor looks at: page faults are few, and failure is an
/// answer.
#[derive(Debug)]
pub struct HostPages {
    pointer: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to the value alone, as memory of a Vec<u8> does.
unsafe impl Send for HostPages {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for HostPages {}

impl HostPages {
    /// So many bytes, which mean nothing before they are written.
    ///
    /// # Errors
    /// `OutOfHostMemory`.
    pub fn new(size: usize) -> Result<Self> {
        let advice = "select less at a time";
        let kind = ErrorKind::OutOfHostMemory;
        let pointer = kept::alloc(size.max(1), kind, "memory", advice)?;
        let pointer = NonNull::new(pointer).ok_or_else(|| {
            let text = format!("allocate {size} bytes of memory: the kernel gave address 0");
            Error::new(ErrorKind::OutOfHostMemory, text)
        })?;
        Ok(Self { pointer, size })
    }
}

impl AsRef<[u8]> for HostPages {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping has `size` bytes, which the kernel or an owner has set; nobody else
        // writes them.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.size) }
    }
}

impl AsMut<[u8]> for HostPages {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.size) }
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        // SAFETY: from `kept::alloc` with this size, and the last borrow is over.
        unsafe { kept::free(self.pointer.as_ptr(), self.size.max(1)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_aligned_zeroed_and_whole() {
        let size = 3 * PAGE + 1;
        let pointer = map(size, ErrorKind::OutOfHostMemory, "memory", "ask for less").unwrap();
        assert_eq!(pointer as usize % PAGE, 0);
        // SAFETY: the mapping has `size` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(pointer, size) };
        assert!(bytes.iter().all(|b| *b == 0));
        // SAFETY: mapped above with this size.
        unsafe { unmap(pointer, size) };
    }

    #[test]
    fn memory_of_ones_own_is_read_as_it_was_written() {
        for size in [0, 1, PAGE, HUGE_PAGE + 3] {
            let mut pages = HostPages::new(size).unwrap();
            assert_eq!(pages.as_ref().len(), size);
            pages.as_mut().fill(7);
            assert!(pages.as_ref().iter().all(|b| *b == 7));
        }
        let error = HostPages::new(1 << 60).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfHostMemory);
    }

    #[test]
    fn more_than_the_machine_has_is_refused_with_the_size() {
        for size in [usize::MAX, usize::MAX - PAGE, 1 << 60] {
            let error = map(size, ErrorKind::OutOfDeviceMemory, "memory", "ask for less");
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfDeviceMemory);
            assert!(error.message().contains(&size.to_string()), "{error}");
            assert!(error.message().contains("ask for less"), "{error}");
        }
    }
}
