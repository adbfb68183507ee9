//! Two ways to admit a page compete, and the one that misses less is followed.
//!
//! Each way is right where the other collapses:
//!
//! - Recency is CLOCK with a grace period: a new page stays for one round of the hand whether it
//!   is used or not. Right for a working set that moves; a loop longer than the cache never hits.
//! - Filtered lets a new page into a short probation queue. A page that was used there, or that
//!   is asked for again soon after it left, has a chance of one in four to be admitted to the main
//!   queue once that is full; scans and most of a long loop never get there, and what is there
//!   stays to be hit.
//!   In the main queue each use that the hand finds earns a further round, three at most. A
//!   working set that moves is let in too slowly.
//!
//! Set dueling (Qureshi et al., ISCA 2007): one shard leads for each style, their misses are
//! compared, and all other shards follow the better. Pages fall on shards by hash, so a leader
//! sees a fair sample of the load. All that is kept is 19 bytes a frame; a hit costs nothing but
//! the page's REF bit.
//!
//! A prefetched page waits in a queue of its own for as many newcomers as an eighth of the shard
//! has frames, so that reading ahead is not undone by the filter. A use there is the demand that
//! was foreseen, and no second use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::list::Queues;
use super::{DUEL_SHARDS, Frames, Insert, Policy};

/// One page in this many that show a second use is admitted. All of them, and a loop replaces the
/// main queue faster than it comes round; too few, and what is popular is found out late.
const ADMIT_ONE_IN: u32 = 4;

/// The probation queue's share of the frames.
const PROBATION_SHARE: u32 = 64;

/// A prefetched page is kept until newcomers came to this many of [`EPOCH_SHARE`] parts of the
/// frames: long enough for the reader to reach it, and an eighth of the frames at most (in shards
/// under 64 frames, 8 frames).
const EARLY_EPOCHS: u8 = 8;
const EPOCH_SHARE: u32 = 64;

/// Rounds of the hand that a page can have earned by use.
const MOST_CREDIT: u8 = 3;

/// Recency is followed only while it has at most 7 misses for 8 of the filtered leader: where they
/// are close the filter is better on the whole, and noise must not change the winner.
const RECENCY_MUST_MISS: (u64, u64) = (7, 8);

/// Misses of both leaders together after which they are compared and their counts halved, for
/// each frame of a leader, and at least.
const WINDOW_PER_FRAME: u32 = 8;
const WINDOW_AT_LEAST: u32 = 512;

/// Queues of [`Queues`].
const PROBATION: usize = 0;
const MAIN: usize = 1;
const EARLY: usize = 2;

/// How newcomers are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Every newcomer is admitted.
    Recency,
    /// A newcomer is admitted when it shows a second use, and then one time in four.
    Filtered,
}

/// What the shards of one cache share: the leaders' misses and the winner.
#[derive(Debug)]
struct Duel {
    /// Misses of the leader of each style, halved at each comparison.
    misses: [AtomicU32; 2],
    /// Whether recency is followed: 0 or 1.
    recency: AtomicU32,
    window: u32,
}

impl Duel {
    fn new(frames_per_shard: u32) -> Self {
        Self {
            misses: [AtomicU32::new(0), AtomicU32::new(0)],
            recency: AtomicU32::new(0),
            window: frames_per_shard
                .saturating_mul(WINDOW_PER_FRAME)
                .max(WINDOW_AT_LEAST),
        }
    }

    fn winner(&self) -> Style {
        match self.recency.load(Ordering::Relaxed) {
            0 => Style::Filtered,
            _ => Style::Recency,
        }
    }

    /// Counts a miss of a leader. Two leaders may compare at once: a count is then halved twice
    /// or a miss is lost, which changes no winner.
    fn missed(&self, style: Style) {
        self.misses[style as usize].fetch_add(1, Ordering::Relaxed);
        let [recency, filtered] = [0, 1].map(|i| self.misses[i].load(Ordering::Relaxed));
        if recency.saturating_add(filtered) < self.window {
            return;
        }
        let (most, of) = RECENCY_MUST_MISS;
        let wins = u64::from(recency) * of <= u64::from(filtered) * most;
        self.recency.store(u32::from(wins), Ordering::Relaxed);
        self.misses[0].store(recency / 2, Ordering::Relaxed);
        self.misses[1].store(filtered / 2, Ordering::Relaxed);
    }
}

/// Pages that left lately, as fingerprints: as many as there are frames, oldest out first in each
/// bucket. A page that was never here is taken for one that was once in 16,000 times.
#[derive(Debug)]
struct Ghosts {
    buckets: Vec<[u16; 4]>,
}

impl Ghosts {
    fn new(frames: u32) -> Self {
        let buckets = (frames as usize).div_ceil(4).max(1);
        Self {
            buckets: vec![[0; 4]; buckets],
        }
    }

    /// The bucket of a short hash, and the fingerprint: not 0, which marks an empty place.
    fn place(&self, short: u32) -> (usize, u16) {
        let bucket = (u64::from(short) * self.buckets.len() as u64) >> 32;
        (bucket as usize, (short as u16).max(1))
    }

    fn contains(&self, short: u32) -> bool {
        let (bucket, print) = self.place(short);
        self.buckets[bucket].contains(&print)
    }

    fn add(&mut self, short: u32) {
        let (bucket, print) = self.place(short);
        let bucket = &mut self.buckets[bucket];
        let last = bucket
            .iter()
            .position(|&p| p == print)
            .unwrap_or(bucket.len() - 1);
        bucket[..=last].rotate_right(1);
        bucket[0] = print;
    }
}

/// What is kept of a page besides its place in a queue.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// The page's hash, shortened.
    short: u32,
    /// Rounds of the hand that the page stays without being used.
    credit: u8,
    /// The epoch in which the page came, for those that were prefetched.
    epoch: u8,
    /// Offered as a victim: when it leaves now, it was evicted and becomes a ghost.
    offered: bool,
}

/// The default policy: see the head of this file.
#[derive(Debug)]
pub struct Dueling {
    duel: Arc<Duel>,
    /// The style that this shard leads; the others follow the winner.
    leads: Option<Style>,
    queues: Queues<3>,
    held: Vec<Held>,
    ghosts: Ghosts,
    /// Newcomers so far.
    newcomers: u32,
    random: u32,
}

impl Dueling {
    /// The policies of one cache: `shards` shards of `frames_per_shard` frames. Fewer than four
    /// shards cannot spare two leaders and all use the filtered style.
    pub fn build(shards: usize, frames_per_shard: u32) -> Vec<Self> {
        let duel = Arc::new(Duel::new(frames_per_shard));
        let leads = |shard: usize| match shard {
            0 if shards >= DUEL_SHARDS => Some(Style::Recency),
            _ if shards >= DUEL_SHARDS && shard == shards / 2 => Some(Style::Filtered),
            _ => None,
        };
        (0..shards)
            .map(|shard| Self {
                duel: Arc::clone(&duel),
                leads: leads(shard),
                queues: Queues::new(frames_per_shard),
                held: vec![Held::default(); frames_per_shard as usize],
                ghosts: Ghosts::new(frames_per_shard),
                newcomers: 0,
                random: shard as u32,
            })
            .collect()
    }

    /// How this shard treats newcomers now.
    pub fn style(&self) -> Style {
        self.leads.unwrap_or_else(|| self.duel.winner())
    }

    /// Whether a page that showed a second use is admitted: always while the main queue has room,
    /// then one time in [`ADMIT_ONE_IN`], by the high bits of a linear congruential generator.
    fn admits(&mut self) -> bool {
        let frames = self.held.len() as u32;
        let spare = self.queues.len(EARLY) + (frames / PROBATION_SHARE).max(1) * 2;
        if self.queues.len(MAIN) + spare < frames {
            return true;
        }
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        (self.random >> 16).is_multiple_of(ADMIT_ONE_IN)
    }

    /// Which part of the frames was filled anew, counted on and wrapping.
    fn epoch(&self) -> u8 {
        (self.newcomers / (self.held.len() as u32 / EPOCH_SHARE).max(1)) as u8
    }

    /// Whether the oldest prefetched page has had its time.
    fn early_is_over(&self) -> bool {
        self.queues.oldest(EARLY).is_some_and(|frame| {
            self.epoch().wrapping_sub(self.held[frame as usize].epoch) > EARLY_EPOCHS
        })
    }

    /// The queue to take the next victim from; `pinned` counts the frames that each queue refused
    /// one after the other, and a queue that refused them all is left out.
    fn queue(&self, style: Style, pinned: [u32; 3]) -> Option<usize> {
        let has = |queue: usize| pinned[queue] < self.queues.len(queue);
        let probation = match style {
            Style::Recency => 0,
            Style::Filtered => self.held.len() as u32 / PROBATION_SHARE,
        };
        if has(EARLY) && self.early_is_over() {
            Some(EARLY)
        } else if has(PROBATION) && self.queues.len(PROBATION) >= probation {
            Some(PROBATION)
        } else {
            [MAIN, PROBATION, EARLY]
                .into_iter()
                .find(|&queue| has(queue))
        }
    }

    /// Looks at the oldest frame of a queue, and says whether its page should leave. It goes to
    /// the newest end of the main queue either way: a victim that cannot leave after all is then
    /// not offered again before others.
    fn judge(&mut self, frame: u32, queue: usize, style: Style, referenced: bool) -> bool {
        self.queues.append(frame, MAIN);
        let stays = match (queue, style) {
            (MAIN, _) => referenced || self.held[frame as usize].credit > 0,
            (_, Style::Recency) => referenced,
            (_, Style::Filtered) => referenced && queue == PROBATION && self.admits(),
        };
        let held = &mut self.held[frame as usize];
        held.credit = match style {
            Style::Filtered if queue == MAIN && referenced => (held.credit + 1).min(MOST_CREDIT),
            Style::Filtered if queue == MAIN => held.credit.saturating_sub(1),
            _ => 0,
        };
        held.offered = !stays;
        !stays
    }

    /// Any evictable frame, used or not: for when hits set REF bits faster than they are cleared.
    fn any(&mut self, frames: &dyn Frames) -> Option<u32> {
        let frame = [PROBATION, MAIN, EARLY].into_iter().find_map(|queue| {
            let oldest = self.queues.oldest(queue);
            std::iter::successors(oldest, |&frame| self.queues.after(frame))
                .find(|&frame| frames.is_evictable(frame))
        })?;
        self.queues.append(frame, MAIN);
        self.held[frame as usize].offered = true;
        Some(frame)
    }
}

impl Policy for Dueling {
    fn inserted(&mut self, frame: u32, hash: u64, how: Insert) {
        // The bits that chose the shard are the same for all its pages: multiplying spreads the
        // others over those that are kept.
        let short = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
        let style = self.style();
        let queue = match (style, how) {
            (Style::Recency, Insert::Demand) => MAIN,
            (Style::Filtered, _) if self.ghosts.contains(short) && self.admits() => MAIN,
            (Style::Filtered, Insert::Demand) => PROBATION,
            (_, Insert::Prefetch) => EARLY,
        };
        self.newcomers = self.newcomers.wrapping_add(1);
        let credit = u8::from(style == Style::Recency);
        self.held[frame as usize] = Held {
            short,
            credit,
            epoch: self.epoch(),
            offered: false,
        };
        self.queues.append(frame, queue);
    }

    fn missed(&mut self, _hash: u64) {
        if let Some(style) = self.leads {
            self.duel.missed(style);
        }
    }

    fn removed(&mut self, frame: u32) {
        if self.held[frame as usize].offered {
            self.ghosts.add(self.held[frame as usize].short);
        }
        self.queues.remove(frame);
    }

    fn victim(&mut self, frames: &dyn Frames) -> Option<u32> {
        let style = self.style();
        let mut pinned = [0; 3];
        // Every round of a queue takes a credit or a REF bit from each page that it passes.
        let visits = self.held.len() * (usize::from(MOST_CREDIT) + 3);
        for _ in 0..visits {
            let queue = self.queue(style, pinned)?;
            let frame = self.queues.oldest(queue)?;
            if !frames.is_evictable(frame) {
                pinned[queue] += 1;
                self.queues.append(frame, queue);
                continue;
            }
            pinned = [0; 3];
            let referenced = frames.take_referenced(frame);
            if self.judge(frame, queue, style, referenced) {
                return Some(frame);
            }
        }
        self.any(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::super::double::Bits;
    use super::*;

    const FRAMES: u32 = 64;

    /// One shard that keeps to `style`, and what is in its frames.
    struct Shard {
        policy: Dueling,
        bits: Bits,
        page: Vec<Option<u64>>,
    }

    impl Shard {
        fn new(style: Style) -> Self {
            let mut policy = Dueling::build(1, FRAMES).remove(0);
            policy.leads = Some(style);
            let page = vec![None; FRAMES as usize];
            Self {
                policy,
                bits: Bits::new(FRAMES as usize),
                page,
            }
        }

        fn find(&self, page: u64) -> Option<u32> {
            self.page
                .iter()
                .position(|held| *held == Some(page))
                .map(|frame| frame as u32)
        }

        fn room(&mut self) -> u32 {
            if let Some(empty) = self.page.iter().position(Option::is_none) {
                return empty as u32;
            }
            let victim = self.policy.victim(&self.bits).unwrap();
            self.policy.removed(victim);
            self.page[victim as usize] = None;
            victim
        }

        fn bring(&mut self, page: u64, how: Insert) {
            let frame = self.room();
            self.bits.clear(frame);
            self.page[frame as usize] = Some(page);
            self.policy
                .inserted(frame, page.wrapping_mul(0xd6e8_feb8_6659_fd93), how);
        }

        /// True on a hit.
        fn access(&mut self, page: u64) -> bool {
            let found = self.find(page);
            match found {
                Some(frame) => self.bits.refer(frame),
                None => self.bring(page, Insert::Demand),
            }
            found.is_some()
        }

        fn hits(&mut self, pages: impl Iterator<Item = u64>) -> usize {
            pages.filter(|&page| self.access(page)).count()
        }
    }

    #[test]
    fn the_filter_keeps_what_is_popular_through_a_scan_and_recency_does_not() {
        for (style, kept) in [(Style::Filtered, true), (Style::Recency, false)] {
            let mut shard = Shard::new(style);
            for _ in 0..20 {
                shard.hits(0..32);
                shard.hits((0..16).map(|i| 500 + i));
            }
            shard.hits(1000..5000);
            let left = (0..32).filter(|&page| shard.find(page).is_some()).count();
            assert_eq!(left >= 30, kept, "{style:?} kept {left} of 32");
            assert_eq!(left == 0, !kept, "{style:?} kept {left} of 32");
        }
    }

    #[test]
    fn the_filter_hits_in_a_loop_twice_the_size_and_recency_in_a_set_that_moves() {
        let frames = u64::from(FRAMES);
        let looped = |style| Shard::new(style).hits((0..frames * 200).map(|i| i % (frames * 2)));
        assert_eq!(looped(Style::Recency), 0);
        assert!(looped(Style::Filtered) > frames as usize * 200 / 3);

        // Sets of 48 pages, each gone over five times.
        let moving = |style| {
            Shard::new(style).hits((0..20).flat_map(|s| (0..240).map(move |i| s * 48 + i % 48)))
        };
        assert_eq!(moving(Style::Recency), 20 * 4 * 48);
        assert!(moving(Style::Filtered) < 20 * 4 * 48 * 3 / 4);
    }

    #[test]
    fn a_prefetched_page_outlives_demand_misses_until_its_time_is_over() {
        for style in [Style::Filtered, Style::Recency] {
            let mut shard = Shard::new(style);
            shard.hits(0..u64::from(FRAMES));
            shard.bring(7000, Insert::Prefetch);
            shard.hits(100..108);
            assert!(shard.find(7000).is_some(), "{style:?} dropped it unread");
            shard.hits(200..264);
            assert!(
                shard.find(7000).is_none(),
                "{style:?} kept what nobody read"
            );
        }
    }

    #[test]
    fn reading_ahead_never_holds_more_than_an_eighth() {
        let mut shard = Shard::new(Style::Filtered);
        for _ in 0..8 {
            shard.hits(0..56);
        }
        for page in 1000..3000 {
            shard.bring(page, Insert::Prefetch);
            shard.access(page);
        }
        let left = (0..56).filter(|&page| shard.find(page).is_some()).count();
        assert!(left >= 48, "{left} of 56 left");
    }

    #[test]
    fn ghosts_remember_about_as_many_pages_as_there_are_frames() {
        let mut ghosts = Ghosts::new(1024);
        let short = |i: u32| i.wrapping_mul(0x9e37_79b1);
        for i in 1..=10_240 {
            ghosts.add(short(i));
            assert!(ghosts.contains(short(i)));
        }
        let known = |range: std::ops::RangeInclusive<u32>| {
            range.filter(|&i| ghosts.contains(short(i))).count()
        };
        assert!(known(10_240 - 511..=10_240) > 450, "young ghosts are known");
        assert!(known(1..=4096) < 64, "old ghosts are forgotten");
        ghosts.add(short(1));
        ghosts.add(short(1));
        let (bucket, print) = ghosts.place(short(1));
        assert_eq!(
            ghosts.buckets[bucket]
                .iter()
                .filter(|&&p| p == print)
                .count(),
            1
        );
    }

    #[test]
    fn followers_go_with_the_leader_that_misses_less() {
        let mut shards = Dueling::build(8, 16);
        assert_eq!(
            (shards[0].style(), shards[4].style()),
            (Style::Recency, Style::Filtered)
        );
        assert_eq!(shards[1].style(), Style::Filtered);
        for _ in 0..600 {
            shards[1].missed(0);
            shards[4].missed(0);
        }
        assert_eq!(shards[1].style(), Style::Recency);
        assert_eq!(shards[4].style(), Style::Filtered, "a leader stays");
        for _ in 0..2000 {
            shards[0].missed(0);
            shards[4].missed(0);
        }
        assert_eq!(
            shards[7].style(),
            Style::Filtered,
            "as many misses are no win for recency"
        );
        let few = Dueling::build(3, 16);
        assert!(few.iter().all(|shard| shard.leads.is_none()));
    }

    #[test]
    fn a_search_among_pinned_and_busy_pages_is_bounded() {
        let mut shard = Shard::new(Style::Filtered);
        for _ in 0..4 {
            shard.hits(0..u64::from(FRAMES));
        }
        shard.bits.always_refer();
        shard.bits.take_visits();
        let first = shard.policy.victim(&shard.bits).unwrap();
        assert!(shard.bits.take_visits() <= FRAMES as usize * 7);
        assert_ne!(shard.policy.victim(&shard.bits), Some(first));
        for frame in 0..FRAMES {
            shard.bits.pin(frame, true);
        }
        shard.bits.take_visits();
        assert_eq!(shard.policy.victim(&shard.bits), None);
        assert!(shard.bits.take_visits() <= FRAMES as usize);
    }
}
