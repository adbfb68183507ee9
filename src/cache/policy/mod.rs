//! Which page leaves when a frame is wanted.
//!
//! The frames of a cache are split into shards; each shard has one policy object, used under the
//! shard's lock and on misses only. A hit tells the policy nothing: it sets the page's reference
//! bit (REF), which the policy reads and clears through [`Frames`] when it looks for a victim.
//! [`PolicyKind::Lru`] alone asks to be told of hits, and pays for it with the lock.
//!
//! A policy never takes a frame that [`Frames::is_evictable`] refuses, visits a bounded number of
//! frames, and answers `None` only when every frame is refused. Guarded by
//! `tests/cache_policy.rs`; what each policy is worth is measured by `scripts/bench-hit-rate`.

mod clock;
#[cfg(test)]
mod double;
mod dueling;
mod list;
mod lru;

pub use clock::Clock;
pub use dueling::{Dueling, Style};
pub use lru::Lru;

/// The policies that a cache can be opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyKind {
    /// Recency and filtered admission compete on a few shards, and the others follow the winner:
    /// no access pattern makes it collapse.
    #[default]
    Dueling,
    /// A second chance for what was used since the hand came by.
    Clock,
    /// Exactly the least recently used. Every hit takes the shard's lock.
    Lru,
}

impl PolicyKind {
    /// Every kind, in the order of their declaration.
    pub const ALL: [PolicyKind; 3] = [PolicyKind::Dueling, PolicyKind::Clock, PolicyKind::Lru];

    /// The word that names the kind in options and in reports.
    pub fn name(self) -> &'static str {
        match self {
            PolicyKind::Dueling => "dueling",
            PolicyKind::Clock => "clock",
            PolicyKind::Lru => "lru",
        }
    }
}

/// What a policy may ask about the frames of its shard while it looks for a victim.
pub trait Frames {
    /// Whether the page in `frame` may leave now: not pinned, not being read or written.
    fn is_evictable(&self, frame: u32) -> bool;

    /// Whether the page in `frame` was hit since the last call or since it was inserted; clears
    /// the bit. A page arrives with its bit clear: the access that fetched it is no hit.
    fn take_referenced(&self, frame: u32) -> bool;
}

/// Why a page was brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Somebody asked for it and waits.
    Demand,
    /// Somebody is expected to ask for it.
    Prefetch,
}

/// One shard's choice of victims. Frames are numbered from 0; each holds at most one page.
///
/// Called under the shard's lock. `hash` is the page's hash, the same at every call for it, and
/// well mixed in all bits but those that chose the shard.
pub trait Policy: Send {
    /// `frame`, which held nothing, now holds the page of `hash`.
    fn inserted(&mut self, frame: u32, hash: u64, how: Insert);

    /// A demand miss of the page of `hash`; called once a miss, before [`Policy::victim`].
    fn missed(&mut self, hash: u64);

    /// Whether [`Policy::hit`] wants to be called.
    fn wants_hits(&self) -> bool {
        false
    }

    /// The page in `frame` was used. Only called when [`Policy::wants_hits`]; some calls may be
    /// left out when the shard's lock is taken.
    fn hit(&mut self, frame: u32) {
        let _ = frame;
    }

    /// The page in `frame` has left: evicted, or dropped by its owner.
    fn removed(&mut self, frame: u32);

    /// The frame whose page should leave next, or `None` when none is evictable.
    ///
    /// Bounded work. The page stays until [`Policy::removed`] is called for it; if it cannot
    /// leave after all, call again and another frame is offered as long as there is one.
    fn victim(&mut self, frames: &dyn Frames) -> Option<u32>;
}

/// One policy for each of `shards` shards of `frames_per_shard` frames. Objects of one call may
/// share what they learn, so they belong to one cache.
pub fn build(kind: PolicyKind, shards: usize, frames_per_shard: u32) -> Vec<Box<dyn Policy>> {
    match kind {
        PolicyKind::Dueling => Dueling::build(shards, frames_per_shard)
            .into_iter()
            .map(|policy| Box::new(policy) as Box<dyn Policy>)
            .collect(),
        PolicyKind::Clock => (0..shards)
            .map(|_| Box::new(Clock::new(frames_per_shard)) as Box<dyn Policy>)
            .collect(),
        PolicyKind::Lru => (0..shards)
            .map(|_| Box::new(Lru::new(frames_per_shard)) as Box<dyn Policy>)
            .collect(),
    }
}

/// Most shards of a cache: enough that threads seldom meet at a lock.
const MAX_SHARDS: usize = 64;

/// Fewest frames of a shard in a cache that can afford it. Pages fall on shards by hash, so a
/// small shard may get far more than its share: with 16 frames a working set of 80 % of the cache
/// loses 6 of 100 hits to that, with 64 frames 1.
const SHARD_FRAMES: usize = 64;

/// Shards that [`PolicyKind::Dueling`] needs to compare its two styles and to follow the better.
const DUEL_SHARDS: usize = 4;

/// Fewest frames of any shard.
const MIN_SHARD_FRAMES: usize = 16;

/// How many shards a cache of `frames` frames should have: 1 to 64, each of 64 frames or more, in
/// caches under 256 frames of 16 or more.
pub fn shard_count(frames: usize) -> usize {
    let most = (frames / MIN_SHARD_FRAMES).max(1);
    (frames / SHARD_FRAMES)
        .clamp(DUEL_SHARDS, MAX_SHARDS)
        .min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_few_in_small_caches_and_64_in_large_ones() {
        let expected = [
            (0, 1),
            (1, 1),
            (31, 1),
            (32, 2),
            (64, 4),
            (256, 4),
            (640, 10),
        ];
        for (frames, shards) in expected {
            assert_eq!(shard_count(frames), shards, "{frames} frames");
        }
        assert_eq!(shard_count(4096), 64);
        assert_eq!(shard_count(1 << 30), 64);
    }

    #[test]
    fn the_default_asks_for_no_hits() {
        assert_eq!(PolicyKind::default(), PolicyKind::Dueling);
        for kind in PolicyKind::ALL {
            for policy in build(kind, 3, 16) {
                assert_eq!(
                    policy.wants_hits(),
                    kind == PolicyKind::Lru,
                    "{}",
                    kind.name()
                );
            }
            assert_eq!(build(kind, 3, 16).len(), 3);
        }
    }
}
