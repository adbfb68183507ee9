//! Where everything of an array lies, and the numbers that kernels and this side share.
//!
//! `include/gds_rs_detail.cuh` is the other half: change both together.

use crate::base::align_up;
use crate::error::{Error, ErrorKind, Result};

/// Most rings, and so service threads, of an array.
pub const RINGS_MAX: u32 = 16;
/// Largest page number and how many slots a ring may have: what a request's word holds.
pub(super) const PAGES_MAX: u64 = 1 << 40;
pub(super) const SLOTS_MAX: u32 = 1 << 16;

/// Set in a view: kernels may write.
pub const WRITABLE: u32 = 1;
/// Set in a view: kernels count hits, at the price of an atomic each.
pub const COUNT_HITS: u32 = 2;

/// A frame's owner: free, a page plus 1, or in between.
pub(super) const FRAME_FREE: u64 = 0;
pub(super) const FRAME_CHANGING: u64 = u64::MAX;

/// `struct gds_array_control`, in words of 8 bytes.
pub(super) mod control {
    /// Offset of the first error.
    pub const ERROR_OFFSET: usize = 1;
    /// Status of the first error in the low half; whether nobody answers in the high half.
    pub const ERROR_AND_FATAL: usize = 2;
    pub const HITS: usize = 3;
    pub const MISSES: usize = 4;
    pub const WAITS: usize = 5;
    pub const EVICTIONS: usize = 6;
    pub const WRITE_BACKS: usize = 7;
    /// Words before the rings.
    pub const HEAD: usize = 8;
    /// Words of a ring.
    pub const RING: usize = 8;
    pub const SIZE: usize = (HEAD + RING * super::RINGS_MAX as usize) * 8;
}

/// What a kernel gets by value: addresses of device memory, then of pinned memory, and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Bytes of the array.
    pub size_bytes: u64,
    /// A word for each page.
    pub words: u64,
    /// A word for each frame: whose it is.
    pub owners: u64,
    /// 4 bytes for each frame: whether it differs from the file.
    pub dirty: u64,
    /// The frames.
    pub frames: u64,
    /// Clock, errors, counters and rings.
    pub control: u64,
    /// 4 bytes for each slot: its state.
    pub slots: u64,
    /// Requests, in pinned memory.
    pub requests: u64,
    /// Completions, in pinned memory.
    pub completions: u64,
    /// The slots' pages, in pinned memory.
    pub staging: u64,
    /// A word in pinned memory: not 0 when nobody answers.
    pub host: u64,
    /// How long a warp waits for a frame, nanoseconds.
    pub wait_ns: u64,
    /// Frames.
    pub frame_count: u32,
    /// Rings.
    pub ring_count: u32,
    /// Slots of a ring, as a power of two.
    pub ring_shift: u32,
    /// Bytes of a page, as a power of two.
    pub page_shift: u32,
    /// `WRITABLE`, `COUNT_HITS`.
    pub flags: u32,
}

/// Sizes of an array's parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) size_bytes: u64,
    pub(super) pages: u64,
    pub(super) page_shift: u32,
    pub(super) frames: u32,
    pub(super) rings: u32,
    pub(super) ring_shift: u32,
}

/// Parts do not share a line of the device's caches.
const LINE: u64 = 256;

fn aligned(size: u64) -> u64 {
    align_up(size, LINE).unwrap_or(size)
}

impl Layout {
    pub(super) fn page_bytes(&self) -> u64 {
        1 << self.page_shift
    }

    /// Slots of all rings.
    pub(super) fn slots(&self) -> u64 {
        u64::from(self.rings) << self.ring_shift
    }

    /// Valid bytes of a page: less in the last one.
    pub(super) fn bytes_of(&self, page: u64) -> u64 {
        let start = page << self.page_shift;
        self.size_bytes.saturating_sub(start).min(self.page_bytes())
    }

    pub(super) fn words_bytes(&self) -> u64 {
        self.pages * 8
    }

    /// Where the owners begin behind the words, and how many bytes owners and dirty marks have.
    pub(super) fn owners_offset(&self) -> u64 {
        aligned(self.words_bytes())
    }

    pub(super) fn dirty_offset(&self) -> u64 {
        self.owners_offset() + aligned(u64::from(self.frames) * 8)
    }

    pub(super) fn slots_offset(&self) -> u64 {
        self.dirty_offset() + aligned(u64::from(self.frames) * 4)
    }

    pub(super) fn control_offset(&self) -> u64 {
        self.slots_offset() + aligned(self.slots() * 4)
    }

    /// Bytes of the table in device memory: words, owners, dirty marks, slots, control.
    pub(super) fn table_bytes(&self) -> u64 {
        self.control_offset() + aligned(control::SIZE as u64)
    }

    pub(super) fn frames_bytes(&self) -> u64 {
        u64::from(self.frames) << self.page_shift
    }

    pub(super) fn completions_offset(&self) -> u64 {
        aligned(self.slots() * 8)
    }

    pub(super) fn host_offset(&self) -> u64 {
        2 * self.completions_offset()
    }

    /// Bytes of the pinned memory before the slots' pages.
    pub(super) fn staging_offset(&self) -> u64 {
        align_up(self.host_offset() + LINE, 4096).unwrap_or(u64::MAX)
    }

    pub(super) fn pinned_bytes(&self) -> u64 {
        self.staging_offset() + (self.slots() << self.page_shift)
    }

    /// The view of an array whose parts lie at these addresses.
    pub(super) fn view(&self, table: u64, frames: u64, pinned: u64) -> View {
        View {
            size_bytes: self.size_bytes,
            words: table,
            owners: table + self.owners_offset(),
            dirty: table + self.dirty_offset(),
            frames,
            control: table + self.control_offset(),
            slots: table + self.slots_offset(),
            requests: pinned,
            completions: pinned + self.completions_offset(),
            staging: pinned + self.staging_offset(),
            host: pinned + self.host_offset(),
            wait_ns: 0,
            frame_count: self.frames,
            ring_count: self.rings,
            ring_shift: self.ring_shift,
            page_shift: self.page_shift,
            flags: 0,
        }
    }

    /// Refuses what the words cannot hold.
    pub(super) fn check(self) -> Result<Self> {
        if self.pages > PAGES_MAX {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!(
                    "an array of {} pages was asked for, {PAGES_MAX} can be told apart; use \
                     larger pages",
                    self.pages
                ),
            ));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            size_bytes: 10_000,
            pages: 3,
            page_shift: 12,
            frames: 5,
            rings: 2,
            ring_shift: 4,
        }
    }

    #[test]
    fn parts_follow_each_other_without_overlap() {
        let l = layout();
        assert!(l.owners_offset() >= 3 * 8);
        assert!(l.dirty_offset() >= l.owners_offset() + 5 * 8);
        assert!(l.slots_offset() >= l.dirty_offset() + 5 * 4);
        assert!(l.control_offset() >= l.slots_offset() + 32 * 4);
        assert!(l.table_bytes() >= l.control_offset() + control::SIZE as u64);
        assert!(l.host_offset() >= l.completions_offset() + 32 * 8);
        assert!(l.pinned_bytes() == l.staging_offset() + 32 * 4096);
        assert!(l.staging_offset().is_multiple_of(4096));
    }

    #[test]
    fn the_last_page_has_what_is_left() {
        let sizes: Vec<u64> = (0..4).map(|page| layout().bytes_of(page)).collect();
        assert_eq!(sizes, [4096, 4096, 1808, 0]);
    }

    #[test]
    fn the_shared_header_has_the_same_numbers() {
        let text = include_str!("../../../include/gds_rs_detail.cuh");
        for line in [
            "#define GDS_ARRAY_PAGE_MASK ((1ull << 40) - 1)",
            "#define GDS_ARRAY_SLOT_SHIFT 40",
            "#define GDS_ARRAY_WRITE (1ull << 56)",
            "#define GDS_ARRAY_PHASE_SHIFT 57",
            "#define GDS_ARRAY_PHASES 127ull",
            "#define GDS_ARRAY_STATUS_SHIFT 16",
            "#define GDS_ARRAY_RINGS_MAX 16",
            "#define GDS_ARRAY_CHANGING (~0ull)",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
