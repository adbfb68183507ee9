//! Exact least recently used. It must see every hit, so the cache takes the shard's lock on hits;
//! for comparison, and for loads where recency is known to be right.

use super::list::Queues;
use super::{Frames, Insert, Policy};

/// The page that was not used for the longest time leaves.
#[derive(Debug)]
pub struct Lru {
    queue: Queues<1>,
}

impl Lru {
    /// A policy for `frames` frames, all empty.
    pub fn new(frames: u32) -> Self {
        Self {
            queue: Queues::new(frames),
        }
    }
}

impl Policy for Lru {
    fn inserted(&mut self, frame: u32, _hash: u64, _how: Insert) {
        self.queue.append(frame, 0);
    }

    fn missed(&mut self, _hash: u64) {}

    fn wants_hits(&self) -> bool {
        true
    }

    fn hit(&mut self, frame: u32) {
        // The page may have left between the hit and the lock.
        if self.queue.queue_of(frame).is_some() {
            self.queue.append(frame, 0);
        }
    }

    fn removed(&mut self, frame: u32) {
        self.queue.remove(frame);
    }

    fn victim(&mut self, frames: &dyn Frames) -> Option<u32> {
        for _ in 0..self.queue.len(0) {
            let frame = self.queue.oldest(0)?;
            // A pinned page is in use now, and an offered one is not offered twice in a row.
            self.queue.append(frame, 0);
            if frames.is_evictable(frame) {
                return Some(frame);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::double::Bits;
    use super::*;

    #[test]
    fn the_oldest_use_leaves_first() {
        let mut lru = Lru::new(3);
        for frame in 0..3 {
            lru.inserted(frame, u64::from(frame), Insert::Demand);
        }
        lru.hit(0);
        let bits = Bits::new(3);
        assert_eq!(lru.victim(&bits), Some(1));
        lru.removed(1);
        lru.hit(1);
        assert_eq!(lru.victim(&bits), Some(2));
        lru.removed(2);
        assert_eq!(lru.victim(&bits), Some(0));
    }

    #[test]
    fn a_pinned_page_counts_as_used_now() {
        let mut lru = Lru::new(3);
        for frame in 0..3 {
            lru.inserted(frame, u64::from(frame), Insert::Demand);
        }
        let bits = Bits::new(3);
        bits.pin(0, true);
        assert_eq!(lru.victim(&bits), Some(1));
        bits.pin(0, false);
        assert_eq!(lru.victim(&bits), Some(2));
        assert_eq!(lru.victim(&bits), Some(0));
    }
}
