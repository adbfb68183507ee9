//! How much of a range of a file is in the page cache.

use std::os::fd::RawFd;

use crate::base::{align_down, align_up};
use crate::error::{Error, ErrorKind, Result};

use super::capabilities::{device_size, errno};

/// Bytes of the pages that a [`Residency`] counts, whatever the processor's page size is.
pub const PAGE_SIZE: u64 = 4096;

/// The page cache's view of a range. Counts are pages of [`PAGE_SIZE`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residency {
    /// Pages of the range that lie in the file, the one at its end included.
    pub pages: u64,
    /// Of these, pages that are in the page cache.
    pub cached: u64,
    /// Of these, pages whose bytes are not on the disk yet. 0 where only mincore(2) answers.
    pub dirty: u64,
}

/// What the page cache holds of `size` bytes at `offset` of a regular file or block device.
///
/// A snapshot: it may be out of date by the time it is read. Costs microseconds a gigabyte with
/// cachestat(2), which Linux has since 6.5, more with mincore(2).
///
/// # Errors
/// `PermissionDenied` where the kernel hides it (the file belongs to somebody else and may not be
/// written), `Io` (EBADF) for a closed descriptor.
pub fn residency(fd: RawFd, offset: u64, size: u64) -> Result<Residency> {
    match residency_cachestat(fd, offset, size) {
        Err(e) if matches!(e.errno(), libc::ENOSYS | libc::EOPNOTSUPP) => {
            residency_mincore(fd, offset, size)
        }
        answer => answer,
    }
}

/// As [`residency`], by cachestat(2) alone.
///
/// # Errors
/// As [`residency`]; `NotSupported` (ENOSYS) where the kernel is older than 6.5.
pub fn residency_cachestat(fd: RawFd, offset: u64, size: u64) -> Result<Residency> {
    /// The number of cachestat(2), the same on every processor but alpha.
    const SYS_CACHESTAT: libc::c_long = 451;
    #[repr(C)]
    struct Range {
        offset: u64,
        size: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Answer {
        cache: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let Some((start, end)) = clip(fd, offset, size)? else {
        return Ok(Residency::default());
    };
    let range = Range {
        offset: start,
        size: end - start,
    };
    let mut answer = Answer::default();
    // SAFETY: both structs have the kernel's layout and live through the call.
    let rc = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            fd,
            &raw const range,
            &raw mut answer,
            0 as libc::c_uint,
        )
    };
    if rc != 0 {
        return Err(failed(fd, errno(), offset, size));
    }
    let scale = page_size() / PAGE_SIZE;
    let pages = pages_in(start, end);
    let cached = (answer.cache * scale).min(pages);
    // A page can be written back and dirtied again at once: it counts once.
    let dirty = ((answer.dirty + answer.writeback) * scale).min(cached);
    Ok(Residency {
        pages,
        cached,
        dirty,
    })
}

/// As [`residency`], by mincore(2) on a mapping; `dirty` is 0. Needs a readable descriptor.
///
/// # Errors
/// As [`residency`]; `PermissionDenied` also for a descriptor without read access.
pub fn residency_mincore(fd: RawFd, offset: u64, size: u64) -> Result<Residency> {
    /// Mapped at once: bounds the answer's vector to 256 KiB.
    const WINDOW: u64 = 1 << 30;
    let Some((start, end)) = clip(fd, offset, size)? else {
        return Ok(Residency::default());
    };
    if !mincore_tells(fd) {
        return Err(failed(fd, libc::EPERM, offset, size));
    }
    let page = page_size();
    let mut cached = 0;
    let mut vector = Vec::new();
    let mut at = align_down(start, page);
    while at < end {
        let length = (end - at).min(WINDOW);
        vector.resize(length.div_ceil(page) as usize, 0u8);
        let mapping = Mapping::new(fd, at, length as usize)
            .map_err(|errno| failed(fd, errno, offset, size))?;
        loop {
            // SAFETY: the mapping has `length` bytes and the vector a byte for each page of it.
            let rc = unsafe { libc::mincore(mapping.0, mapping.1, vector.as_mut_ptr().cast()) };
            if rc == 0 {
                break;
            }
            let errno = errno();
            if errno != libc::EAGAIN {
                return Err(failed(fd, errno, offset, size));
            }
            std::thread::yield_now();
        }
        cached += vector.iter().filter(|v| **v & 1 != 0).count() as u64;
        at += length;
    }
    let pages = pages_in(start, end);
    Ok(Residency {
        pages,
        cached: (cached * (page / PAGE_SIZE)).min(pages),
        dirty: 0,
    })
}

/// Writes back what is dirty of a regular file or block device and asks the kernel to drop it from
/// the page cache, so that the next read comes from the disk. Pages that somebody maps or locks
/// stay, and so does everything on a file system that lives in memory: [`residency`] tells.
///
/// # Errors
/// `Io` when writing back fails or for a closed descriptor, `UnsupportedFile` for a pipe.
pub fn evict(fd: RawFd) -> Result<()> {
    let what = format!("drop descriptor {fd} from the page cache");
    loop {
        // SAFETY: a plain integer; the kernel checks the descriptor.
        if unsafe { libc::fdatasync(fd) } == 0 {
            break;
        }
        let errno = errno();
        if errno != libc::EINTR {
            return Err(Error::os(errno, what));
        }
    }
    // SAFETY: plain integers; the kernel checks the descriptor. Size 0 reaches to the end.
    match unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(Error::os(errno, what)),
    }
}

/// A read-only shared mapping, unmapped on drop. Its bytes are never touched.
struct Mapping(*mut libc::c_void, usize);

impl Mapping {
    fn new(fd: RawFd, offset: u64, length: usize) -> std::result::Result<Self, i32> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory;
        // the offset fits off_t, see `clip`.
        let pointer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd,
                offset as libc::off_t,
            )
        };
        if pointer == libc::MAP_FAILED {
            Err(errno())
        } else {
            Ok(Self(pointer, length))
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this address and length, and unmapped here only.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

/// The range less what lies past the end of the file; `None` when nothing is left.
fn clip(fd: RawFd, offset: u64, size: u64) -> Result<Option<(u64, u64)>> {
    // SAFETY: stat is plain integers; all zero is a value of it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is writable for the call.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return Err(failed(fd, errno(), offset, size));
    }
    let file_size = if stat.st_mode & libc::S_IFMT == libc::S_IFBLK {
        device_size(fd).map_err(|errno| failed(fd, errno, offset, size))?
    } else {
        u64::try_from(stat.st_size).unwrap_or(0)
    };
    let end = offset.saturating_add(size).min(file_size);
    Ok((size > 0 && offset < end).then_some((offset, end)))
}

/// mincore(2) answers "all cached" for files that the caller neither owns nor may write.
fn mincore_tells(fd: RawFd) -> bool {
    // SAFETY: stat is plain integers; all zero is a value of it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let path = format!("/proc/self/fd/{fd}\0");
    // SAFETY: `stat` is writable for the call; geteuid cannot fail; `path` ends in NUL.
    unsafe {
        let user = libc::geteuid();
        let owner = libc::fstat(fd, &raw mut stat) == 0 && (user == 0 || user == stat.st_uid);
        let path = path.as_ptr().cast();
        owner || libc::faccessat(libc::AT_FDCWD, path, libc::W_OK, libc::AT_EACCESS) == 0
    }
}

fn pages_in(start: u64, end: u64) -> u64 {
    let last = align_up(end, PAGE_SIZE).unwrap_or(end);
    (last - align_down(start, PAGE_SIZE)) / PAGE_SIZE
}

fn page_size() -> u64 {
    // SAFETY: sysconf of a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(PAGE_SIZE).max(PAGE_SIZE)
}

fn failed(fd: RawFd, errno: i32, offset: u64, size: u64) -> Error {
    let what = format!("ask what is cached of {size} bytes at {offset} of descriptor {fd}");
    let error = Error::os(errno, &what).with_offset(offset);
    if errno == libc::EPERM {
        let message = format!(
            "{what}: the kernel tells only the owner and those who may write the file; \
             treat it as not cached"
        );
        return Error::new(ErrorKind::PermissionDenied, message)
            .with_errno(errno)
            .with_offset(offset);
    }
    error
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn an_evicted_file_is_clean_and_gone_from_the_page_cache() {
        let path = std::env::temp_dir().join(format!("gds-evict-{}", std::process::id()));
        let mut file = std::fs::File::create_new(&path).unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        let before = residency(file.as_raw_fd(), 0, 1 << 20).unwrap();
        evict(file.as_raw_fd()).unwrap();
        let after = residency(file.as_raw_fd(), 0, 1 << 20).unwrap();
        let in_memory = std::fs::read_to_string("/proc/mounts")
            .unwrap()
            .lines()
            .any(|line| {
                let mut words = line.split(' ').skip(1);
                words
                    .next()
                    .is_some_and(|at| path.starts_with(at) && at != "/")
                    && matches!(words.next(), Some("tmpfs" | "ramfs"))
            });
        std::fs::remove_file(&path).unwrap();
        assert_eq!(before.cached, 256);
        assert_eq!(after.dirty, 0);
        assert_eq!(after.cached, if in_memory { 256 } else { 0 });
    }

    #[test]
    fn a_closed_descriptor_cannot_be_evicted() {
        assert_eq!(evict(-1).unwrap_err().errno(), libc::EBADF);
    }
}
