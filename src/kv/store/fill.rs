//! How many segments a move will fill, counted before anything moves: cleaning that finds no room
//! half-way has made none.

use super::config::PAGE_TARGET;
use super::page::{PAGE_HEADER, slot_bytes};
use super::reference::blocks_of;
use super::space::{Space, aligned};
use crate::kv::disk::BLOCK;

/// Segments that fill up as `Space::allocate` and the packer of pages fill them, from an empty one
/// on.
#[derive(Debug)]
pub(crate) struct Fill {
    segment_bytes: u64,
    piece_max: u64,
    segments: u64,
    /// Bytes of the last one that are taken, at its start and for its summary.
    at: u64,
    summary: u64,
    /// Bytes of the page that is being filled.
    page: usize,
}

impl Fill {
    pub fn new(space: &Space) -> Self {
        Self::of(space.segment_bytes(), space.piece_max())
    }

    fn of(segment_bytes: u64, piece_max: u64) -> Self {
        Self {
            segment_bytes,
            piece_max,
            segments: 0,
            at: 0,
            summary: 0,
            page: 0,
        }
    }

    /// A run of whole blocks, of a key of so many bytes. What is split is counted as if each part
    /// were as large as can be.
    pub fn run(&mut self, bytes: u64, key_len: usize) {
        let mut left = bytes;
        while left > 0 {
            let size = left.min(self.piece_max);
            self.piece(size, 64 + key_len as u64 + left / 1024);
            left -= size;
        }
    }

    /// A small value, which goes into a page with its neighbours.
    pub fn slot(&mut self, key_len: usize, len: usize) {
        let bytes = slot_bytes(key_len, len);
        // Small pages at worst: what is short may come first.
        let target = if bytes <= BLOCK / 8 {
            BLOCK
        } else {
            PAGE_TARGET
        };
        if self.page > 0 && (self.page + bytes).next_multiple_of(BLOCK) > target {
            self.end_page();
        }
        if self.page == 0 {
            self.page = PAGE_HEADER;
        }
        self.page += bytes;
    }

    /// Segments in all.
    pub fn finish(mut self) -> u64 {
        self.end_page();
        self.segments
    }

    fn end_page(&mut self) {
        if self.page > 0 {
            let bytes = blocks_of(self.page as u64);
            self.page = 0;
            self.piece(bytes, 0);
        }
    }

    fn piece(&mut self, bytes: u64, summary: u64) {
        let at = aligned(self.at, bytes, self.segment_bytes);
        let end = at + bytes + blocks_of(self.summary + summary) + BLOCK as u64;
        if self.segments == 0 || end > self.segment_bytes {
            self.segments += 1;
            (self.at, self.summary) = (bytes, summary);
        } else {
            (self.at, self.summary) = (at + bytes, self.summary + summary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 64 << 10;

    #[test]
    fn runs_that_align_waste_room_between_them() {
        let mut fill = Fill::of(SEGMENT, SEGMENT - 8192);
        for _ in 0..4 {
            fill.run(20_480, 8);
        }
        assert!(fill.finish() >= 2);
        let mut fill = Fill::of(SEGMENT, SEGMENT - 8192);
        fill.run(3 * SEGMENT, 8);
        assert_eq!(fill.finish(), 4, "a segment holds no more than a piece");
    }

    #[test]
    fn pages_hold_what_fits_and_are_whole_blocks() {
        let mut fill = Fill::of(SEGMENT, SEGMENT - 8192);
        for _ in 0..20 {
            fill.slot(8, 3000);
        }
        // Five in a page of 16 KiB, three pages a segment, for the summary has a block.
        assert_eq!(fill.finish(), 2);
        assert_eq!(Fill::of(SEGMENT, SEGMENT).finish(), 0);
        let mut fill = Fill::of(SEGMENT, SEGMENT);
        fill.slot(1, 0);
        assert_eq!(fill.finish(), 1);
    }
}
