//! CLOCK: a hand goes round the frames and takes the first that was not used since it last came
//! by. One bit a frame besides the page's own REF bit.

use super::{Frames, Insert, Policy};

/// A second chance for what was used since the hand came by.
#[derive(Debug)]
pub struct Clock {
    /// Whether the frame holds a page.
    present: Vec<bool>,
    hand: u32,
}

impl Clock {
    /// A policy for `frames` frames, all empty.
    pub fn new(frames: u32) -> Self {
        Self {
            present: vec![false; frames as usize],
            hand: 0,
        }
    }

    /// Moves the hand on and returns where it was.
    fn step(&mut self) -> u32 {
        let frame = self.hand;
        self.hand = if frame as usize + 1 < self.present.len() {
            frame + 1
        } else {
            0
        };
        frame
    }
}

impl Policy for Clock {
    fn inserted(&mut self, frame: u32, _hash: u64, _how: Insert) {
        self.present[frame as usize] = true;
    }

    fn missed(&mut self, _hash: u64) {}

    fn removed(&mut self, frame: u32) {
        self.present[frame as usize] = false;
    }

    fn victim(&mut self, frames: &dyn Frames) -> Option<u32> {
        // The first round clears bits and the second finds one clear, unless hits set them again
        // meanwhile: then the third round takes any.
        let rounds = self.present.len() * 3;
        for visit in 0..rounds {
            let frame = self.step();
            if self.present[frame as usize]
                && frames.is_evictable(frame)
                && (!frames.take_referenced(frame) || visit >= rounds / 3 * 2)
            {
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
    fn what_was_used_stays_and_the_rest_leaves_in_order() {
        let mut clock = Clock::new(4);
        for frame in 0..4 {
            clock.inserted(frame, u64::from(frame), Insert::Demand);
        }
        let bits = Bits::new(4);
        bits.refer(0);
        bits.refer(2);
        assert_eq!(clock.victim(&bits), Some(1));
        assert_eq!(clock.victim(&bits), Some(3));
        assert_eq!(clock.victim(&bits), Some(0));
    }

    #[test]
    fn empty_and_pinned_frames_are_passed_over() {
        let mut clock = Clock::new(4);
        clock.inserted(1, 1, Insert::Demand);
        clock.inserted(3, 3, Insert::Demand);
        let bits = Bits::new(4);
        bits.pin(1, true);
        assert_eq!(clock.victim(&bits), Some(3));
        clock.removed(3);
        assert_eq!(clock.victim(&bits), None);
        assert_eq!(Clock::new(0).victim(&bits), None);
    }

    #[test]
    fn a_page_that_is_hit_all_the_time_does_not_hide_its_frame() {
        let mut clock = Clock::new(2);
        clock.inserted(0, 0, Insert::Demand);
        clock.inserted(1, 1, Insert::Demand);
        let bits = Bits::new(2);
        bits.always_refer();
        assert!(clock.victim(&bits).is_some());
    }
}
