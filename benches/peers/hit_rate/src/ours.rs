//! Our policies, driven as the page cache drives them: pages on shards by hash, a REF bit that a
//! hit sets, and one call a miss to the shard's policy.

use std::cell::RefCell;

use gds_rs::cache::policy::{Frames, Insert, Policy, PolicyKind, build, shard_count};

use crate::traces::mix;

const ABSENT: u32 = u32::MAX;

/// REF bits of all frames; a shard sees its own.
struct Bits {
    referenced: RefCell<Vec<bool>>,
    first: usize,
}

impl Frames for Bits {
    fn is_evictable(&self, _frame: u32) -> bool {
        true
    }

    fn take_referenced(&self, frame: u32) -> bool {
        std::mem::take(&mut self.referenced.borrow_mut()[self.first + frame as usize])
    }
}

/// Hits of `accesses` in a cache of `cache` frames. `salt` varies which pages share a shard.
pub fn hits(kind: PolicyKind, accesses: &[u32], pages: usize, cache: usize, salt: u64) -> u64 {
    let shards = shard_count(cache);
    let frames = cache / shards;
    let mut policies = build(kind, shards, frames as u32);
    let mut frame_of = vec![ABSENT; pages];
    let mut page_of = vec![ABSENT; shards * frames];
    let mut used = vec![0_usize; shards];
    let mut bits = Bits {
        referenced: RefCell::new(vec![false; shards * frames]),
        first: 0,
    };
    let mut hits = 0;
    for &page in accesses {
        let at = frame_of[page as usize];
        if at != ABSENT {
            hits += 1;
            bits.referenced.borrow_mut()[at as usize] = true;
            let shard = at as usize / frames;
            if policies[shard].wants_hits() {
                policies[shard].hit((at as usize % frames) as u32);
            }
            continue;
        }
        let hash = mix(u64::from(page) ^ salt);
        let shard = ((u128::from(hash) * shards as u128) >> 64) as usize;
        bits.first = shard * frames;
        let policy: &mut dyn Policy = policies[shard].as_mut();
        policy.missed(hash);
        let frame = if used[shard] < frames {
            used[shard] += 1;
            used[shard] - 1
        } else {
            let victim = policy.victim(&bits).expect("nothing is pinned");
            policy.removed(victim);
            frame_of[page_of[bits.first + victim as usize] as usize] = ABSENT;
            victim as usize
        };
        bits.referenced.borrow_mut()[bits.first + frame] = false;
        page_of[bits.first + frame] = page;
        frame_of[page as usize] = (bits.first + frame) as u32;
        policy.inserted(frame as u32, hash, Insert::Demand);
    }
    hits
}
