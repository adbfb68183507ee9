//! What a cache counts.
//!
//! Hits are counted by stripes: a thread writes a cache line of its own, so that counting costs
//! the hit path no exchange with other processors. Everything else is rare enough for one counter.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The counters of a cache, read once. Each number is right by itself; together they are not a
/// single instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Pages that were asked for and there.
    pub hits: u64,
    /// Pages that were asked for and not there.
    pub misses: u64,
    /// Pages that were asked for while they were being read for somebody else.
    pub waits: u64,
    /// Pages that went to make room.
    pub evictions: u64,
    /// Of these, those that had to be written first.
    pub dirty_evictions: u64,
    /// Pages written to files.
    pub write_backs: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Reads of pages started ahead.
    pub prefetched: u64,
    /// Pages read ahead that were used.
    pub prefetch_hits: u64,
    /// Pages read ahead that went without having been used.
    pub prefetch_wasted: u64,
    /// Calls that found no page to make room with.
    pub all_pinned: u64,
    /// Misses that were served from host memory.
    pub host_hits: u64,
    /// Pages that moved from the device to host memory.
    pub host_demotions: u64,
    /// Pages that could not be read.
    pub read_errors: u64,
    /// Pages that could not be written; their data was kept.
    pub write_errors: u64,
    /// Pages that the device tier has room for.
    pub frames: u64,
    /// Pages in the device tier.
    pub resident: u64,
    /// Of these, pinned.
    pub pinned: u64,
    /// Of these, changed and not written yet.
    pub dirty: u64,
    /// Pages in the host tier.
    pub host_pages: u64,
}

/// Threads that count without an atomic addition; later ones share `SHARED` further stripes.
const OWNED: u32 = 64;
const SHARED: u32 = 16;

static THREADS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The thread's stripe and 1, or 0.
    static STRIPE: Cell<u32> = const { Cell::new(0) };
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

#[derive(Debug)]
pub(super) struct Counters {
    hits: Box<[Stripe]>,
    pub(super) misses: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) dirty_evictions: AtomicU64,
    pub(super) write_backs: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) prefetched: AtomicU64,
    pub(super) prefetch_hits: AtomicU64,
    pub(super) prefetch_wasted: AtomicU64,
    pub(super) all_pinned: AtomicU64,
    pub(super) host_hits: AtomicU64,
    pub(super) host_demotions: AtomicU64,
    pub(super) read_errors: AtomicU64,
    pub(super) write_errors: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            hits: (0..OWNED + SHARED).map(|_| Stripe::default()).collect(),
            misses: AtomicU64::default(),
            waits: AtomicU64::default(),
            evictions: AtomicU64::default(),
            dirty_evictions: AtomicU64::default(),
            write_backs: AtomicU64::default(),
            bytes_written: AtomicU64::default(),
            prefetched: AtomicU64::default(),
            prefetch_hits: AtomicU64::default(),
            prefetch_wasted: AtomicU64::default(),
            all_pinned: AtomicU64::default(),
            host_hits: AtomicU64::default(),
            host_demotions: AtomicU64::default(),
            read_errors: AtomicU64::default(),
            write_errors: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// Counts a hit.
    #[inline(always)]
    pub(super) fn hit(&self) {
        let stripe = STRIPE.get();
        if stripe.wrapping_sub(1) < OWNED {
            // No other thread writes this stripe.
            let count = &self.hits[stripe as usize - 1].0;
            count.store(count.load(Relaxed) + 1, Relaxed);
        } else {
            self.hit_shared(stripe);
        }
    }

    #[cold]
    fn hit_shared(&self, stripe: u32) {
        let stripe = match stripe {
            0 => {
                // Wraps only into stripes that are shared anyway.
                let number = THREADS.fetch_update(Relaxed, Relaxed, |n| n.checked_add(1));
                let number = number.unwrap_or(OWNED);
                let place = match number < OWNED {
                    true => number,
                    false => OWNED + number % SHARED,
                };
                STRIPE.set(place + 1);
                place
            }
            known => known - 1,
        };
        self.hits[stripe as usize].0.fetch_add(1, Relaxed);
    }

    /// What was counted; what is there now is for the caller to fill in.
    pub(super) fn snapshot(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.iter().map(|s| s.0.load(Relaxed)).sum(),
            misses: self.misses.load(Relaxed),
            waits: self.waits.load(Relaxed),
            evictions: self.evictions.load(Relaxed),
            dirty_evictions: self.dirty_evictions.load(Relaxed),
            write_backs: self.write_backs.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            prefetched: self.prefetched.load(Relaxed),
            prefetch_hits: self.prefetch_hits.load(Relaxed),
            prefetch_wasted: self.prefetch_wasted.load(Relaxed),
            all_pinned: self.all_pinned.load(Relaxed),
            host_hits: self.host_hits.load(Relaxed),
            host_demotions: self.host_demotions.load(Relaxed),
            read_errors: self.read_errors.load(Relaxed),
            write_errors: self.write_errors.load(Relaxed),
            ..CacheStats::default()
        }
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hit_is_lost_with_more_threads_than_stripes() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| (0..100).for_each(|_| counters.hit()));
            }
        });
        assert_eq!(counters.snapshot().hits, 20_000);
    }
}
