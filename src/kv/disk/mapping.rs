//! A file that is mapped into memory, and the instructions that make stores to persistent memory
//! durable.
//!
//! Who shares the mapping, threads and other processes, may load and store the same bytes at once:
//! they are copied by relaxed atomic words, which is defined whatever the others do.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The unit of copies; words are little-endian, as on every processor that is supported.
const WORD: usize = size_of::<AtomicU64>();

/// How a cache line gets to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteBack {
    /// Stays in the cache. Ordered by a fence only.
    Clwb,
    /// Leaves the cache. Ordered by a fence only.
    ClflushOpt,
    /// Leaves the cache, one after the other: slow, and there on every processor.
    Clflush,
}

#[cfg(target_arch = "x86_64")]
mod lines {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _mm_sfence};

    use super::WriteBack;

    impl WriteBack {
        /// What this processor has, the best first.
        pub fn all() -> Vec<Self> {
            let most = __cpuid(0).eax;
            let features = if most >= 7 {
                __cpuid_count(7, 0).ebx
            } else {
                0
            };
            // CLFLUSH came with SSE2, which every x86-64 has.
            [
                (Self::Clwb, features >> 24 & 1 == 1),
                (Self::ClflushOpt, features >> 23 & 1 == 1),
                (Self::Clflush, true),
            ]
            .into_iter()
            .filter_map(|(kind, has)| has.then_some(kind))
            .collect()
        }

        /// Writes the line of `address` back.
        ///
        /// # Safety
        /// `address` is mapped.
        pub unsafe fn line(self, address: *const u8) {
            // SAFETY: these instructions change no byte and no flag; the address is mapped. They
            // count as stores to the compiler too (no `nomem`), so none moves past them.
            unsafe {
                match self {
                    Self::Clwb => {
                        asm!("clwb [{}]", in(reg) address, options(nostack, preserves_flags));
                    }
                    Self::ClflushOpt => {
                        asm!("clflushopt [{}]", in(reg) address, options(nostack, preserves_flags));
                    }
                    Self::Clflush => {
                        asm!("clflush [{}]", in(reg) address, options(nostack, preserves_flags));
                    }
                }
            }
        }
    }

    /// Bytes of a cache line.
    pub fn line_bytes() -> usize {
        ((__cpuid(1).ebx >> 8 & 0xFF) as usize * 8).max(16)
    }

    /// What was written back is in the domain of what a power failure leaves.
    pub fn fence() {
        // SAFETY: part of every x86-64.
        unsafe { _mm_sfence() };
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod lines {
    use super::WriteBack;

    impl WriteBack {
        /// None: a mapping is refused.
        pub fn all() -> Vec<Self> {
            Vec::new()
        }

        /// # Safety
        /// Never called, for there is no value of it.
        pub unsafe fn line(self, _address: *const u8) {}
    }

    pub fn line_bytes() -> usize {
        64
    }

    pub fn fence() {}
}

/// Where the lines start that hold a byte of `len` bytes at `start`.
fn lines_of(start: usize, len: usize, line: usize) -> impl Iterator<Item = usize> {
    let first = start / line * line;
    let end = if len == 0 { first } else { start + len };
    (first..end).step_by(line)
}

/// A shared mapping of the first bytes of a file, for reading and writing.
#[derive(Debug)]
pub(super) struct Mapping {
    pointer: NonNull<u8>,
    len: usize,
    how: WriteBack,
    line: usize,
}

// SAFETY: the memory is mapped until this drops, and is only used through atomic words.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, whole pages. With `synced` a store that was written back is durable even
    /// where the file system had to find room for it: refused where that is not so. `Err` is the
    /// errno; ENOSYS where the processor has no instruction for it.
    pub fn new(fd: RawFd, len: usize, synced: bool) -> Result<Self, i32> {
        let how = WriteBack::all().first().copied().ok_or(libc::ENOSYS)?;
        let flags = if synced {
            libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC
        } else {
            libc::MAP_SHARED
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let pointer = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
        if pointer == libc::MAP_FAILED {
            let errno = std::io::Error::last_os_error().raw_os_error();
            return Err(errno.unwrap_or(libc::EIO));
        }
        let pointer = NonNull::new(pointer.cast()).ok_or(libc::ENOMEM)?;
        Ok(Self {
            pointer,
            len,
            how,
            line: lines::line_bytes(),
        })
    }

    /// The words of a range that starts and ends at words and lies inside.
    fn words(&self, offset: u64, len: usize) -> Option<&[AtomicU64]> {
        let offset = usize::try_from(offset).ok()?;
        let inside = offset.checked_add(len)? <= self.len;
        if !inside || !offset.is_multiple_of(WORD) || !len.is_multiple_of(WORD) {
            return None;
        }
        // SAFETY: inside of the mapping, which starts at a page; any bytes are an atomic word, and
        // everybody here uses atomic words only.
        unsafe {
            let first = self.pointer.as_ptr().add(offset).cast::<AtomicU64>();
            Some(std::slice::from_raw_parts(first, len / WORD))
        }
    }

    /// Copies out; false where the range is not inside.
    #[must_use]
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let Some(words) = self.words(offset, into.len()) else {
            return false;
        };
        for (bytes, word) in into.chunks_exact_mut(WORD).zip(words) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        true
    }

    /// Copies in and writes back; false where the range is not inside.
    #[must_use]
    pub fn write(&self, offset: u64, from: &[u8]) -> bool {
        let Some(words) = self.words(offset, from.len()) else {
            return false;
        };
        let mut bytes = [0; WORD];
        for (word, from) in words.iter().zip(from.chunks_exact(WORD)) {
            bytes.copy_from_slice(from);
            word.store(u64::from_le_bytes(bytes), Relaxed);
        }
        self.write_back(words);
        true
    }

    fn write_back(&self, words: &[AtomicU64]) {
        let start = words.as_ptr() as usize;
        for line in lines_of(start, size_of_val(words), self.line) {
            let address = words.as_ptr().with_addr(line).cast();
            // SAFETY: the line of a mapped byte is mapped, for pages are whole lines.
            unsafe { self.how.line(address) };
        }
        lines::fence();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and nobody has a reference any more.
        unsafe { libc::munmap(self.pointer.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn every_line_of_a_range_is_written_back_once() {
        let lines = |start, len| lines_of(start, len, 64).collect::<Vec<_>>();
        assert_eq!(lines(0, 0), [0; 0]);
        assert_eq!(lines(100, 0), [0; 0]);
        assert_eq!(lines(0, 1), [0]);
        assert_eq!(lines(63, 2), [0, 64]);
        assert_eq!(lines(64, 64), [64]);
        assert_eq!(lines(65, 128), [64, 128, 192]);
        assert_eq!(lines_of(4096, 4096, 64).count(), 64);
        assert_eq!(lines_of(4096, 4096, 32).count(), 128);
    }

    /// Each instruction that this processor has, on an ordinary shared mapping: the bytes are in
    /// the file, and nothing beside them changed.
    #[test]
    fn stores_arrive_by_each_way_to_write_back() {
        let path = std::env::temp_dir().join(format!("gds-mapping-{}", std::process::id()));
        let file = std::fs::File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(3 * 4096).unwrap();
        let ways = WriteBack::all();
        assert!(ways.contains(&WriteBack::Clflush));
        for (n, how) in (1u8..).zip(ways) {
            let mut mapping = Mapping::new(file.as_raw_fd(), 3 * 4096, false).unwrap();
            mapping.how = how;
            assert!(mapping.write(4096, &[n; 4096]));
            let mut bytes = vec![0; 3 * 4096];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
            assert!(bytes[..4096].iter().all(|b| *b == 0), "{how:?}");
            assert!(bytes[4096..8192].iter().all(|b| *b == n), "{how:?}");
            assert!(bytes[8192..].iter().all(|b| *b == 0), "{how:?}");
            let mut again = vec![0; 4096];
            assert!(mapping.read(4096, &mut again));
            assert_eq!(again, bytes[4096..8192]);
            for (offset, len) in [(3 * 4096, 8), (2 * 4096, 4097), (4, 8), (u64::MAX - 7, 8)] {
                assert!(!mapping.read(offset, &mut again[..len.min(4096)]) || len > 4096);
                assert!(!mapping.write(offset, &bytes[..len]), "{offset} {len}");
            }
        }
    }
}
