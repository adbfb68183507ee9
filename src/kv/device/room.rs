//! Divides one range of memory: blocks of powers of two, split and joined (buddies).

use std::collections::BTreeSet;

/// Smallest block, bytes.
pub(super) const BLOCK_MIN: u64 = 256;

/// Free blocks by size. Offsets are multiples of their block's size.
#[derive(Debug)]
pub(super) struct Room {
    /// Offsets of free blocks of `BLOCK_MIN << index` bytes.
    free: Vec<BTreeSet<u64>>,
    used: u64,
}

/// The index of the smallest blocks that hold `size` bytes.
fn class_of(size: u64) -> Option<usize> {
    let blocks = size
        .max(1)
        .div_ceil(BLOCK_MIN)
        .checked_next_power_of_two()?;
    Some(blocks.trailing_zeros() as usize)
}

impl Room {
    /// All of `size` bytes, but for a rest below `BLOCK_MIN`, free.
    pub(super) fn new(size: u64) -> Self {
        let mut room = Self {
            free: vec![BTreeSet::new(); 64 - BLOCK_MIN.trailing_zeros() as usize],
            used: 0,
        };
        let mut at = 0;
        while size - at >= BLOCK_MIN {
            let class = ((size - at) / BLOCK_MIN).ilog2() as usize;
            room.free[class].insert(at);
            at += BLOCK_MIN << class;
        }
        room
    }

    /// Bytes of blocks that are taken.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The offset of a block for `size` bytes.
    pub(super) fn take(&mut self, size: u64) -> Option<u64> {
        let class = class_of(size)?;
        let found = (class..self.free.len()).find(|c| !self.free[*c].is_empty())?;
        let at = self.free[found].pop_first()?;
        for smaller in (class..found).rev() {
            self.free[smaller].insert(at + (BLOCK_MIN << smaller));
        }
        self.used += BLOCK_MIN << class;
        Some(at)
    }

    /// Gives back the block that `take` gave for `size` bytes.
    pub(super) fn give(&mut self, mut at: u64, size: u64) {
        let Some(mut class) = class_of(size) else {
            return;
        };
        self.used -= BLOCK_MIN << class;
        while class + 1 < self.free.len() {
            let buddy = at ^ (BLOCK_MIN << class);
            if !self.free[class].remove(&buddy) {
                break;
            }
            at = at.min(buddy);
            class += 1;
        }
        self.free[class].insert(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_never_overlap_and_join_again() {
        for size in [256, 1000, 4096, 65536 + 256 * 3] {
            let mut room = Room::new(size);
            let mut seed = 7u64;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for _ in 0..2000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if seed >> 63 == 0 {
                    let want = (seed >> 20) % 5000;
                    if let Some(at) = room.take(want) {
                        let whole = BLOCK_MIN << class_of(want).unwrap();
                        assert!(at + whole <= size && at.is_multiple_of(whole));
                        for (other, bytes) in &taken {
                            let theirs = BLOCK_MIN << class_of(*bytes).unwrap();
                            assert!(at + whole <= *other || other + theirs <= at);
                        }
                        taken.push((at, want));
                    }
                } else if !taken.is_empty() {
                    let (at, bytes) = taken.swap_remove((seed >> 20) as usize % taken.len());
                    room.give(at, bytes);
                }
            }
            for (at, bytes) in taken.drain(..) {
                room.give(at, bytes);
            }
            assert_eq!(room.used(), 0);
            let largest = BLOCK_MIN << (size / BLOCK_MIN).ilog2();
            assert_eq!(room.take(largest), Some(0), "all is joined again");
        }
    }

    #[test]
    fn too_much_is_refused() {
        let mut room = Room::new(4096);
        assert_eq!(room.take(4097), None);
        assert_eq!(room.take(u64::MAX), None);
        assert_eq!(room.take(4096), Some(0));
        assert_eq!(room.take(0), None);
    }
}
