//! What every eviction policy owes the cache, whatever it prefers to keep.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use gds_rs::cache::policy::{Frames, Insert, Policy, PolicyKind, build, shard_count};

/// The most frames that a search may look at, for each frame of the shard.
const VISITS_PER_FRAME: usize = 8;

/// One shard's frames as the cache would hold them.
struct Shard {
    page: Vec<Option<u64>>,
    referenced: RefCell<Vec<bool>>,
    pinned: Vec<bool>,
    visits: Cell<usize>,
}

impl Frames for Shard {
    fn is_evictable(&self, frame: u32) -> bool {
        self.visits.set(self.visits.get() + 1);
        assert!(
            self.page[frame as usize].is_some(),
            "frame {frame} holds no page"
        );
        !self.pinned[frame as usize]
    }

    fn take_referenced(&self, frame: u32) -> bool {
        std::mem::take(&mut self.referenced.borrow_mut()[frame as usize])
    }
}

impl Shard {
    fn new(frames: u32) -> Self {
        let frames = frames as usize;
        Self {
            page: vec![None; frames],
            referenced: RefCell::new(vec![false; frames]),
            pinned: vec![false; frames],
            visits: Cell::new(0),
        }
    }

    fn insert(&mut self, policy: &mut dyn Policy, frame: u32, page: u64, how: Insert) {
        assert_eq!(self.page[frame as usize].replace(page), None);
        self.referenced.borrow_mut()[frame as usize] = false;
        policy.inserted(frame, hash(page), how);
    }

    fn remove(&mut self, policy: &mut dyn Policy, frame: u32) {
        self.page[frame as usize] = None;
        policy.removed(frame);
    }

    fn hit(&self, policy: &mut dyn Policy, frame: u32) {
        self.referenced.borrow_mut()[frame as usize] = true;
        if policy.wants_hits() {
            policy.hit(frame);
        }
    }

    /// A victim, after the checks that hold for every one.
    fn victim(&self, policy: &mut dyn Policy) -> Option<u32> {
        self.visits.set(0);
        let victim = policy.victim(self);
        let limit = VISITS_PER_FRAME * self.page.len();
        assert!(
            self.visits.get() <= limit,
            "{} visits, over {limit}",
            self.visits.get()
        );
        let could = (0..self.page.len()).any(|f| self.page[f].is_some() && !self.pinned[f]);
        assert_eq!(
            victim.is_some(),
            could,
            "a victim exactly when there is one"
        );
        if let Some(frame) = victim {
            assert!(
                self.page[frame as usize].is_some(),
                "frame {frame} holds no page"
            );
            assert!(!self.pinned[frame as usize], "frame {frame} is pinned");
        }
        victim
    }
}

/// SplitMix64, for hashes and for choices.
fn hash(page: u64) -> u64 {
    let mut x = page.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 += 1;
        (hash(self.0) >> 33) as usize % bound
    }
}

/// Runs `check` over every kind of policy: alone, as each leader and as a follower.
fn over_all(frames: u32, check: impl Fn(&str, &mut dyn Policy)) {
    for kind in PolicyKind::ALL {
        for shards in [1, 4] {
            for (i, mut policy) in build(kind, shards, frames).into_iter().enumerate() {
                check(
                    &format!("{}, shard {i} of {shards}", kind.name()),
                    policy.as_mut(),
                );
            }
        }
    }
}

fn filled(policy: &mut dyn Policy, frames: u32) -> Shard {
    let mut shard = Shard::new(frames);
    for frame in 0..frames {
        let how = if frame % 3 == 0 {
            Insert::Prefetch
        } else {
            Insert::Demand
        };
        shard.insert(policy, frame, u64::from(frame), how);
    }
    shard
}

#[test]
fn an_empty_shard_has_no_victim() {
    over_all(16, |_, policy| {
        assert_eq!(Shard::new(16).victim(policy), None)
    });
}

#[test]
fn when_all_are_pinned_the_answer_is_none_and_unpinning_one_gives_it() {
    over_all(40, |name, policy| {
        let mut shard = filled(policy, 40);
        shard.pinned.fill(true);
        for round in 0..40 {
            assert_eq!(shard.victim(policy), None, "{name}");
            shard.pinned[round] = false;
            assert_eq!(shard.victim(policy), Some(round as u32), "{name}");
            shard.pinned[round] = true;
            shard.hit(policy, round as u32);
        }
    });
}

#[test]
fn every_frame_is_reached_even_those_that_were_hit() {
    over_all(48, |name, policy| {
        let mut shard = filled(policy, 48);
        for frame in (0..48).step_by(2) {
            shard.hit(policy, frame);
        }
        let mut left = HashSet::new();
        for _ in 0..48 {
            let frame = shard.victim(policy).expect("some are left");
            shard.remove(policy, frame);
            assert!(left.insert(frame), "{name}: frame {frame} left twice");
        }
        assert_eq!(shard.victim(policy), None, "{name}");
    });
}

#[test]
fn a_victim_that_cannot_leave_is_not_offered_at_once_again() {
    over_all(16, |name, policy| {
        let shard = filled(policy, 16);
        let offered: HashSet<_> = (0..16).filter_map(|_| shard.victim(policy)).collect();
        assert!(offered.len() >= 8, "{name} offered only {offered:?}");
    });
}

#[test]
fn a_page_that_nobody_wants_leaves_before_long() {
    over_all(64, |name, policy| {
        let mut shard = filled(policy, 64);
        // Every other page is in constant use; page 5 is not.
        for newcomer in 0..64 * 8 {
            for frame in (0..64).filter(|&frame| frame != 5) {
                shard.hit(policy, frame);
            }
            let frame = shard.victim(policy).expect("nothing is pinned");
            shard.remove(policy, frame);
            if frame == 5 {
                return;
            }
            shard.insert(policy, frame, 1000 + newcomer, Insert::Demand);
        }
        panic!("{name} kept a page that was never hit");
    });
}

#[test]
fn pages_dropped_by_their_owner_leave_frames_that_can_be_used_again() {
    over_all(32, |name, policy| {
        let mut shard = filled(policy, 32);
        for round in 0..8 {
            for frame in (0..32).filter(|frame| (frame + round) % 3 == 0) {
                shard.remove(policy, frame);
            }
            for _ in 0..64 {
                shard.victim(policy).expect("two thirds are left");
            }
            for frame in (0..32).filter(|frame| (frame + round) % 3 == 0) {
                let page = u64::from(frame + round * 100);
                shard.insert(policy, frame, page, Insert::Demand);
            }
        }
        let offered: HashSet<_> = (0..32)
            .map(|_| {
                let frame = shard.victim(policy).expect("all are evictable");
                shard.remove(policy, frame);
                frame
            })
            .collect();
        assert_eq!(offered.len(), 32, "{name}");
    });
}

#[test]
fn random_operations_agree_with_a_plain_map() {
    for seed in 0..4_u64 {
        for frames in [1, 2, 7, 33, 130] {
            over_all(frames, |_, policy| random_operations(policy, frames, seed));
        }
    }
}

/// A cache over `policy` and a map of what it must hold, driven by random calls.
fn random_operations(policy: &mut dyn Policy, frames: u32, seed: u64) {
    let mut choices = Choices(seed << 32 | u64::from(frames));
    let mut shard = Shard::new(frames);
    let mut held: HashMap<u64, u32> = HashMap::new();
    for _ in 0..3000 {
        let some_frame = choices.below(frames as usize);
        let page = choices.below(frames as usize * 3) as u64;
        match choices.below(16) {
            0 => shard.pinned[some_frame] = shard.page[some_frame].is_some(),
            1 => shard.pinned.fill(false),
            2 if !shard.pinned[some_frame] => {
                if let Some(page) = shard.page[some_frame] {
                    shard.remove(policy, some_frame as u32);
                    assert_eq!(held.remove(&page), Some(some_frame as u32));
                }
            }
            3 => {
                // Offered, but it stays: the cache could not write it back.
                shard.victim(policy);
            }
            _ => {
                if let Some(&frame) = held.get(&page) {
                    shard.hit(policy, frame);
                    continue;
                }
                let how = match choices.below(4) {
                    0 => Insert::Prefetch,
                    _ => Insert::Demand,
                };
                if how == Insert::Demand {
                    policy.missed(hash(page));
                }
                let empty = shard
                    .page
                    .iter()
                    .position(Option::is_none)
                    .map(|f| f as u32);
                let victim = match empty {
                    Some(frame) => Some(frame),
                    None => shard.victim(policy).inspect(|&frame| {
                        let old = shard.page[frame as usize].expect("it holds a page");
                        assert_eq!(held.remove(&old), Some(frame));
                        shard.remove(policy, frame);
                    }),
                };
                if let Some(frame) = victim {
                    shard.insert(policy, frame, page, how);
                    held.insert(page, frame);
                }
            }
        }
    }
    let resident = shard.page.iter().flatten().count();
    assert_eq!(resident, held.len());
}

#[test]
fn no_policy_collapses_on_a_set_that_fits_and_the_default_not_on_a_loop_either() {
    let frames = 1024;
    let hits = |kind, pages: u64| {
        let shards = shard_count(frames);
        let each = (frames / shards) as u32;
        let mut policies = build(kind, shards, each);
        let mut parts: Vec<_> = (0..shards).map(|_| Shard::new(each)).collect();
        let mut held: HashMap<u64, (usize, u32)> = HashMap::new();
        let mut hits = 0;
        for page in (0..pages * 20).map(|i| i % pages) {
            let at = hash(page) as usize % shards;
            let (shard, policy) = (&mut parts[at], policies[at].as_mut());
            if let Some(&(_, frame)) = held.get(&page) {
                hits += 1;
                shard.hit(policy, frame);
                continue;
            }
            policy.missed(hash(page));
            let empty = shard
                .page
                .iter()
                .position(Option::is_none)
                .map(|f| f as u32);
            let frame = empty.unwrap_or_else(|| {
                let frame = shard.victim(policy).expect("nothing is pinned");
                held.remove(&shard.page[frame as usize].expect("it holds a page"));
                shard.remove(policy, frame);
                frame
            });
            shard.insert(policy, frame, page, Insert::Demand);
            held.insert(page, (at, frame));
        }
        hits * 100 / (pages * 20)
    };
    for kind in PolicyKind::ALL {
        let percent = hits(kind, 700);
        assert!(
            percent >= 93,
            "{}: {percent} % where 95 % can be had",
            kind.name()
        );
    }
    let percent = hits(PolicyKind::Dueling, 2048);
    assert!(percent >= 30, "dueling: {percent} % where 47 % can be had");
    assert!(
        hits(PolicyKind::Clock, 2048) < 5,
        "a loop is what a clock cannot do"
    );
}
