//! Large memory of the host, used again.
//!
//! The kernel zeroes the pages that it hands out, and that takes longer than to fill them. So what
//! is freed stays mapped for the next one who asks, within a limit, and the kernel may take its
//! pages back whenever memory is short (MADV_FREE). Ranges that touch are one, and a part of a
//! range is a range: sizes need not be those of before.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::pages::{self, HUGE_PAGE};
use crate::base::align_up;
use crate::error::{ErrorKind, Result};

/// Most that is kept, bytes.
const KEPT_MAX: usize = 4 << 30;
/// Most that is kept, as a part of the memory of the machine.
const KEPT_PART: u64 = 8;

/// Ranges that nobody uses, by their start: whole huge pages, none touching another.
#[derive(Debug, Default)]
struct Kept {
    ranges: BTreeMap<usize, usize>,
    bytes: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    ranges: BTreeMap::new(),
    bytes: 0,
});

fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let part = pages::machine().map_or(0, |machine| machine.physical / KEPT_PART);
        usize::try_from(part).unwrap_or(KEPT_MAX).min(KEPT_MAX)
    })
}

impl Kept {
    /// The smallest range of so many bytes or more; what is too much of it stays.
    fn take(&mut self, size: usize) -> Option<usize> {
        let fits = self.ranges.iter().filter(|(_, have)| **have >= size);
        let (start, have) = fits.min_by_key(|(_, have)| **have)?;
        let (start, have) = (*start, *have);
        self.ranges.remove(&start);
        if have > size {
            self.ranges.insert(start + size, have - size);
        }
        self.bytes -= size;
        Some(start)
    }

    fn keep(&mut self, mut start: usize, mut size: usize) {
        self.bytes += size;
        if let Some((before, have)) = self.ranges.range(..start).next_back()
            && before + have == start
        {
            (start, size) = (*before, size + have);
        }
        if let Some(behind) = self.ranges.remove(&(start + size)) {
            size += behind;
        }
        self.ranges.insert(start, size);
    }

    /// Gives up ranges until so many bytes are left at most.
    fn shrink(&mut self, most: usize) -> Vec<(usize, usize)> {
        let mut gone = Vec::new();
        while self.bytes > most
            && let Some((start, size)) = self.ranges.pop_first()
        {
            self.bytes -= size;
            gone.push((start, size));
        }
        gone
    }
}

fn whole(size: usize) -> Option<usize> {
    align_up(size as u64, HUGE_PAGE as u64)?.try_into().ok()
}

/// Maps `size` bytes (more than 0), rounded up to whole pages, of which nothing is known: zeros, or
/// what a former owner left. Give it back to [`free`].
///
/// # Errors
/// As [`pages::map`].
pub(super) fn alloc(size: usize, kind: ErrorKind, what: &str, advice: &str) -> Result<*mut u8> {
    if size < HUGE_PAGE {
        return pages::map(size, kind, what, advice);
    }
    let Some(mapped) = whole(size) else {
        return pages::map(size, kind, what, advice);
    };
    if let Some(start) = KEPT.lock().take(mapped) {
        return Ok(start as *mut u8);
    }
    pages::map_rounded(size, mapped, kind, what, advice)
}

/// Gives memory back.
///
/// # Safety
/// `pointer` is from `alloc(size, ..)`, and nothing uses the memory any more.
pub(super) unsafe fn free(pointer: *mut u8, size: usize) {
    let Some(mapped) = whole(size).filter(|_| size >= HUGE_PAGE) else {
        // SAFETY: mapped by `pages::map` with this size.
        return unsafe { pages::unmap(pointer, size) };
    };
    let limit = limit();
    // SAFETY: the range is mapped, and whoever used it does no longer.
    let is_kept =
        mapped <= limit && unsafe { libc::madvise(pointer.cast(), mapped, libc::MADV_FREE) } == 0;
    if !is_kept {
        // SAFETY: as above; this was its last owner.
        return unsafe { pages::unmap(pointer, mapped) };
    }
    let gone = {
        let mut kept = KEPT.lock();
        let gone = kept.shrink(limit - mapped);
        kept.keep(pointer as usize, mapped);
        gone
    };
    for (start, size) in gone {
        // SAFETY: whole mappings that were kept, and that nobody can find any more.
        unsafe { pages::unmap(start as *mut u8, size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_are_split() {
        let mut kept = Kept::default();
        kept.keep(100, 10);
        kept.keep(120, 10);
        assert_eq!(kept.ranges.len(), 2);
        kept.keep(110, 10);
        assert_eq!(kept.ranges, BTreeMap::from([(100, 30)]));
        assert_eq!(kept.take(31), None);
        assert_eq!(kept.take(10), Some(100));
        kept.keep(200, 5);
        assert_eq!(kept.take(5), Some(200), "the smallest that is enough");
        assert_eq!((kept.bytes, kept.take(20)), (20, Some(110)));
        assert_eq!((kept.bytes, kept.ranges.len()), (0, 0));
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let mut kept = Kept::default();
        for start in [0, 20, 40] {
            kept.keep(start, 10);
        }
        assert_eq!(kept.shrink(30), []);
        assert_eq!(kept.shrink(15), [(0, 10), (20, 10)]);
        assert_eq!(kept.bytes, 10);
    }

    #[test]
    fn freed_memory_can_be_had_again_and_written() {
        let kind = ErrorKind::OutOfHostMemory;
        for size in [1, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            for round in 1..4 {
                let pointer = alloc(size, kind, "memory", "ask for less").unwrap();
                assert_eq!(pointer as usize % pages::PAGE, 0);
                // SAFETY: `size` bytes of ours.
                let bytes = unsafe {
                    pointer.write_bytes(round, size);
                    std::slice::from_raw_parts(pointer, size)
                };
                assert!(bytes.iter().all(|b| *b == round));
                // SAFETY: from `alloc` with this size; `bytes` is not used again.
                unsafe { free(pointer, size) };
            }
        }
        let error = alloc(1 << 60, kind, "memory", "ask for less").unwrap_err();
        assert!(
            error.message().contains(&(1u64 << 60).to_string()),
            "{error}"
        );
    }
}
