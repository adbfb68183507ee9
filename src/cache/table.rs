//! The page table: from a file and a page of it to the page word, without a lock.
//!
//! A slot is two words: the name of its page and the page word. Four share a cache line, a
//! bucket, so that most searches read one line, and 3/4 of the slots may be taken, so that a
//! table is small beside the processor's caches. Open addressing: a page sits in its hash's
//! bucket, or where that is full in the one beside it (processors fetch lines in pairs), or in
//! the first later one of its shard's region that has room.
//! Each bucket counts the pages that had to pass it; a search ends where none did. A slot whose
//! page went is free again at once. Slots do not move, so a pin can remember where its page is.
//!
//! Searching is any thread's; inserting and clearing is under the shard's lock. A slot's name is
//! written before its word says BUSY and erased after its word was emptied, so the name of a
//! pinned page does not change. The only file of this room with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::key::Name;
use super::word::{PageWord, State};
use crate::error::{Error, ErrorKind, Result};

/// Slots of one bucket.
const BUCKET: usize = 4;

/// One place of the table. All zero: free.
#[derive(Debug)]
#[repr(C, align(16))]
pub(super) struct Slot {
    pub(super) word: PageWord<AtomicU64>,
    name: AtomicU64,
}

/// Slots that share a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Bucket([Slot; BUCKET]);

const _: () = assert!(size_of::<Slot>() == 16 && size_of::<Bucket>() == 64);

impl Slot {
    #[inline(always)]
    fn is(&self, name: Name) -> bool {
        self.name.load(Relaxed) == name.0
    }

    /// The name of its page. Meaningful while the page is pinned or the shard is locked.
    pub(super) fn name(&self) -> Name {
        Name(self.name.load(Relaxed))
    }
}

impl Bucket {
    /// The first slot with this name. Without a branch for each: which it is cannot be foretold.
    #[inline(always)]
    fn find(&self, name: Name) -> Option<u32> {
        let [a, b, c, d] = &self.0;
        let bit = |slot: &Slot, at: u32| u32::from(slot.is(name)) << at;
        let found = bit(a, 0) | bit(b, 1) | bit(c, 2) | bit(d, 3);
        (found != 0).then(|| found.trailing_zeros())
    }
}

/// A huge page of the kernel: large tables take them, so that a search costs no page walk.
const HUGE: usize = 2 << 20;

/// Zeroed buckets that never move.
struct Buckets {
    first: NonNull<Bucket>,
    count: usize,
    /// What was mapped: the buckets, and room to begin at a huge page.
    mapped: NonNull<c_void>,
    mapped_bytes: usize,
}

// SAFETY: buckets are atomics, and the memory is freed by the owner alone.
unsafe impl Send for Buckets {}
// SAFETY: as above.
unsafe impl Sync for Buckets {}

impl Buckets {
    fn new(count: usize) -> Result<Self> {
        let no_memory = || {
            let places = count.saturating_mul(BUCKET);
            let text =
                format!("a page table of {places} places finds no memory; lower device_bytes");
            Error::new(ErrorKind::OutOfHostMemory, text)
        };
        let bytes = count
            .checked_mul(size_of::<Bucket>())
            .ok_or_else(no_memory)?;
        let is_large = bytes >= HUGE;
        let spare = if is_large { HUGE } else { 0 };
        let mapped_bytes = bytes.checked_add(spare).ok_or_else(no_memory)?;
        // Mapped, not allocated: an allocator that zeroes would touch the pages before the advice
        // is given, and they would stay small.
        // SAFETY: a new private mapping, of a size that is not 0: a table has a bucket.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(no_memory());
        }
        let mapped = NonNull::new(mapped).ok_or_else(no_memory)?;
        let up = match is_large {
            true => mapped.addr().get().next_multiple_of(HUGE) - mapped.addr().get(),
            false => 0,
        };
        // SAFETY: `up` is less than the room that was mapped with the buckets.
        let first = unsafe { mapped.byte_add(up) };
        if is_large {
            // SAFETY: the range was just mapped; the advice does not change what it holds.
            unsafe { libc::madvise(first.as_ptr(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Self {
            first: first.cast(),
            count,
            mapped,
            mapped_bytes,
        })
    }
}

impl Deref for Buckets {
    type Target = [Bucket];

    #[inline(always)]
    fn deref(&self) -> &[Bucket] {
        // SAFETY: `count` zeroed buckets are there, and zero is a value of each of their fields.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody uses the buckets any more; atomics need no drop.
        unsafe { libc::munmap(self.mapped.as_ptr(), self.mapped_bytes) };
    }
}

/// All pages of a cache.
pub(super) struct Table {
    buckets: Buckets,
    /// Buckets of one shard, an even number.
    region: u32,
    /// Pages that passed a bucket on the way to theirs. Stays at the most it can count to.
    passed: Box<[AtomicU8]>,
}

impl Table {
    /// A table for this many pages in each of the shards.
    pub(super) fn new(shards: u32, frames_per_shard: u32) -> Result<Self> {
        let places = (frames_per_shard as usize * 4).div_ceil(3);
        let region = places.div_ceil(BUCKET).next_multiple_of(2).max(2);
        let count = region * shards as usize;
        // Every slot has a number of 32 bits.
        let fits = u32::try_from(count * BUCKET).is_ok();
        let Some(region) = u32::try_from(region).ok().filter(|_| fits) else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{count} buckets are too many for one page table; use larger pages"),
            ));
        };
        Ok(Self {
            buckets: Buckets::new(count)?,
            region,
            passed: (0..count).map(|_| AtomicU8::new(0)).collect(),
        })
    }

    /// The bucket of a hash.
    #[inline(always)]
    fn bucket_of(&self, hash: u64) -> u32 {
        (((hash >> 32) * self.buckets.count as u64) >> 32) as u32
    }

    /// The shard of a hash.
    pub(super) fn shard_of(&self, hash: u64) -> u32 {
        self.bucket_of(hash) / self.region
    }

    /// The shard of a slot.
    pub(super) fn shard_of_slot(&self, index: u32) -> u32 {
        index / BUCKET as u32 / self.region
    }

    #[inline(always)]
    pub(super) fn slot(&self, index: u32) -> &Slot {
        &self.buckets[index as usize / BUCKET].0[index as usize % BUCKET]
    }

    /// A slot, if there are so many.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        let bucket = self.buckets.get(index as usize / BUCKET)?;
        Some(&bucket.0[index as usize % BUCKET])
    }

    /// All slots, for counting.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.buckets.iter().flat_map(|bucket| &bucket.0)
    }

    /// The buckets that a page may be in: pair after pair, each beginning on the same side.
    #[inline]
    fn way(&self, first: u32) -> impl Iterator<Item = u32> + use<> {
        let region = self.region;
        let end = first - first % region + region;
        (0..region).map(move |step| {
            let at = first + (step & !1);
            (if at < end { at } else { at - region }) ^ (step & 1)
        })
    }

    #[inline(always)]
    fn in_bucket(&self, bucket: u32, name: Name) -> Option<u32> {
        let within = self.buckets[bucket as usize].find(name)?;
        Some(bucket * BUCKET as u32 + within)
    }

    /// Pins the page if it is there: its slot, and what its word said. Never waits.
    #[inline(always)]
    pub(super) fn pin(&self, name: Name) -> Option<(u32, State)> {
        let at = self.bucket_of(name.hash());
        let bucket = &self.buckets[at as usize];
        let Some(within) = bucket.find(name) else {
            return self.pin_farther(name, at);
        };
        let state = Self::pin_slot(&bucket.0[within as usize % BUCKET], name)?;
        Some((at * BUCKET as u32 + within, state))
    }

    #[inline(never)]
    fn pin_farther(&self, name: Name, bucket: u32) -> Option<(u32, State)> {
        let index = self.find_farther(name, bucket)?;
        let state = Self::pin_slot(self.slot(index), name)?;
        Some((index, state))
    }

    #[inline(always)]
    fn pin_slot(slot: &Slot, name: Name) -> Option<State> {
        let state = slot.word.pin()?;
        if slot.is(name) {
            return Some(state);
        }
        // The slot has got another page since the search.
        slot.word.unpin();
        None
    }

    /// The slot of a page that is not in its own bucket.
    #[inline]
    fn find_farther(&self, name: Name, bucket: u32) -> Option<u32> {
        let mut before = bucket;
        for at in self.way(bucket).skip(1) {
            // Whatever is behind a bucket has passed it.
            if self.passed[before as usize].load(Acquire) == 0 {
                return None;
            }
            let found = self.in_bucket(at, name);
            if found.is_some() {
                return found;
            }
            before = at;
        }
        None
    }

    /// The slot of a page, on its way or there. Under the shard's lock.
    pub(super) fn find(&self, name: Name) -> Option<u32> {
        let bucket = self.bucket_of(name.hash());
        let near = self.in_bucket(bucket, name);
        near.or_else(|| self.find_farther(name, bucket))
    }

    /// Puts a page that is not in the table there, BUSY. Under the shard's lock.
    pub(super) fn insert(&self, name: Name, frame: u32) -> Option<u32> {
        let bucket = self.bucket_of(name.hash());
        let free = |at| self.in_bucket(at, Name::NONE);
        let index = self.way(bucket).find_map(free)?;
        self.count_passing(bucket, index, 1);
        let slot = self.slot(index);
        slot.name.store(name.0, Release);
        slot.word.begin_fill(frame);
        Some(index)
    }

    /// Frees the slot of a page that is BUSY. Under the shard's lock.
    pub(super) fn remove(&self, index: u32) {
        let slot = self.slot(index);
        let bucket = self.bucket_of(slot.name().hash());
        slot.word.abandon();
        slot.name.store(Name::NONE.0, Release);
        self.count_passing(bucket, index, -1);
    }

    /// A page of one bucket comes to a slot, or goes.
    fn count_passing(&self, bucket: u32, index: u32, change: i8) {
        let last = index / BUCKET as u32;
        for at in self.way(bucket).take_while(|at| *at != last) {
            // The lock makes this the only writer.
            let count = &self.passed[at as usize];
            let now = count.load(Relaxed);
            if now < u8::MAX {
                count.store(now.saturating_add_signed(change), Release);
            }
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.buckets.count * BUCKET;
        write!(f, "Table({slots} slots, {} of a shard)", self.region)
    }
}

/// A way to an object that pins keep: cheaper than counting an owner at every hit.
///
/// Who makes one holds a pin on a page of the cache and uses it no more after giving the pin
/// back. The last owner of a cache sees to it that its core stays while a page is pinned
/// (`core::Core::retire`). Or it lies beside the owner that it was made from, to save a step.
pub(super) struct Anchor<T>(NonNull<T>);

impl<T> Clone for Anchor<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Anchor<T> {}

// SAFETY: as a reference to T that is handed to another thread.
unsafe impl<T: Sync> Send for Anchor<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Anchor<T> {}

impl<T> Anchor<T> {
    #[inline(always)]
    pub(super) fn new(owner: &Arc<T>) -> Self {
        Self(NonNull::from(&**owner))
    }
}

impl<T> Deref for Anchor<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the pin or the owner that goes with the anchor keeps the object.
        unsafe { self.0.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::word::VALID;
    use super::*;

    fn name(index: u32, page: u64) -> Name {
        Name::near(index, page).expect("a small number")
    }

    fn put(table: &Table, name: Name, frame: u32) -> u32 {
        let index = table.insert(name, frame).expect("room");
        table.slot(index).word.publish(0, 0);
        index
    }

    fn take(table: &Table, index: u32) {
        table.slot(index).word.begin_evict().expect("idle");
        table.remove(index);
    }

    #[test]
    fn a_full_shard_finds_every_page_and_forgets_what_went() {
        let table = Table::new(1, 64).unwrap();
        let names: Vec<Name> = (0..64).map(|page| name(3, page)).collect();
        let places: Vec<u32> = (0..64).map(|i| put(&table, names[i], i as u32)).collect();
        for round in 0..200_u64 {
            let at = (round * 7 % 64) as usize;
            let (index, state) = table.pin(names[at]).expect("there");
            assert!(state.frame() == at as u32 && table.slot(index).name() == names[at]);
            table.slot(index).word.unpin();
        }
        let gone = names[5];
        table.slot(places[5]).word.begin_evict().expect("idle");
        assert!(table.pin(gone).is_none());
        table.remove(places[5]);
        assert!(table.find(gone).is_none());
        for (i, name) in names.iter().enumerate().filter(|(i, _)| *i != 5) {
            let index = table.find(*name).expect("still there");
            let state = table.slot(index).word.state();
            assert!(state.has(VALID) && state.frame() == i as u32);
        }
    }

    #[test]
    fn pages_of_one_bucket_overflow_into_later_ones_and_leave_no_trace() {
        let table = Table::new(2, 512).unwrap();
        let same = |n: &Name| table.bucket_of(n.hash()) == table.region - 1;
        // The last bucket of a shard: those behind it are the first of the shard.
        let names: Vec<Name> = (0..).map(|p| name(1, p)).filter(same).take(23).collect();
        let other = (0..).map(|p| name(2, p)).find(same).expect("one of many");
        for round in 0..3 {
            let mut places: Vec<u32> = names.iter().map(|n| put(&table, *n, round)).collect();
            assert!(places.iter().all(|at| table.shard_of_slot(*at) == 0));
            assert!(table.find(other).is_none() && table.pin(other).is_none());
            // Those in front go first: the others are still found behind.
            for (n, at) in names.iter().zip(places.drain(..)) {
                assert_eq!(table.find(*n), Some(at));
                let (_, state) = table.pin(*n).expect("there");
                assert_eq!(state.frame(), round);
                table.slot(at).word.unpin();
                take(&table, at);
                assert!(table.find(*n).is_none());
            }
            assert!(table.passed.iter().all(|count| count.load(Relaxed) == 0));
        }
    }

    #[test]
    fn a_bucket_that_was_passed_more_often_than_can_be_counted_is_searched_for_good() {
        let table = Table::new(1, 2048).unwrap();
        let same = |n: &Name| table.bucket_of(n.hash()) == 9;
        let names: Vec<Name> = (0..).map(|p| name(1, p)).filter(same).take(300).collect();
        let places: Vec<u32> = names.iter().map(|n| put(&table, *n, 0)).collect();
        assert!(
            places[..299]
                .iter()
                .all(|at| table.slot(*at).word.begin_evict().is_some())
        );
        places[..299].iter().for_each(|at| table.remove(*at));
        assert_eq!(table.find(names[299]), Some(places[299]));
    }

    #[test]
    fn a_page_that_stays_is_found_at_all_times_while_others_before_it_come_and_go() {
        let table = Table::new(1, 256).unwrap();
        let same = |n: &Name| table.bucket_of(n.hash()) == 6;
        let names: Vec<Name> = (0..).map(|p| name(1, p)).filter(same).take(12).collect();
        let places: Vec<u32> = names.iter().map(|n| put(&table, *n, 7)).collect();
        // The first two buckets become free; the last four names are behind them.
        places[..8].iter().for_each(|at| take(&table, *at));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Acquire) {
                        for (name, at) in names[8..].iter().zip(&places[8..]) {
                            let (index, state) = table.pin(*name).expect("it stays");
                            assert!(index == *at && state.frame() == 7);
                            table.slot(index).word.unpin();
                        }
                    }
                });
            }
            for _ in 0..2_000 {
                let come: Vec<u32> = names[..8].iter().map(|n| put(&table, *n, 9)).collect();
                come.iter().for_each(|at| take(&table, *at));
            }
            done.store(true, Release);
        });
    }

    #[test]
    fn pages_whose_names_differ_in_one_bit_are_different_pages() {
        let table = Table::new(4, 64).unwrap();
        let first = name(5, 77);
        put(&table, first, 1);
        for bit in 0..64 {
            let other = Name(first.0 ^ 1 << bit);
            assert!(table.find(other).is_none() && table.pin(other).is_none());
        }
        assert!(table.pin(first).is_some());
    }

    /// Pages of files, neighbours and far apart: what programs ask for.
    fn patterns() -> Vec<(&'static str, Vec<Name>)> {
        let strided = |step: u64| (0..16_384).map(|i| name(1, i * step)).collect();
        vec![
            ("neighbours", strided(1)),
            ("every 64th", strided(64)),
            // Of which multiples of the golden ratio are nearest to whole numbers.
            ("every 610th", strided(610)),
            ("every 10946th", strided(10_946)),
            ("every 2^20th", strided(1 << 20)),
            (
                "one of each file",
                (1..16_385).map(|i| name(i, 0)).collect(),
            ),
            (
                "a file's last",
                (1..16_385).map(|i| name(i, u64::from(i) * 999)).collect(),
            ),
            (
                "some of each",
                (0..16_384)
                    .map(|i| name(1 + i % 128, u64::from(i / 128)))
                    .collect(),
            ),
        ]
    }

    #[test]
    fn neighbours_and_files_spread_over_shards() {
        let table = Table::new(16, 1024).unwrap();
        for (what, names) in patterns() {
            let mut counts = [0_u32; 16];
            for name in names {
                counts[table.shard_of(name.hash()) as usize] += 1;
            }
            // 1024 each, give or take what chance does; neighbours leave nothing to it.
            let slack = match what {
                "neighbours" => 4,
                "every 610th" => 500,
                _ => 170,
            };
            for count in counts {
                assert!(count.abs_diff(1024) <= slack, "{what}: {counts:?}");
            }
        }
    }

    #[test]
    fn most_pages_of_a_full_table_are_in_the_bucket_of_their_hash() {
        for (what, names) in patterns() {
            // Room for what chance does to the shards.
            let table = Table::new(16, 1536).unwrap();
            let first = |n: &Name| {
                let index = put(&table, *n, 0);
                index / BUCKET as u32 == table.bucket_of(n.hash())
            };
            let near = names.iter().filter(|n| first(n)).count();
            assert!(near > 13_500, "{what}: {near} of 16384");
            if what == "neighbours" {
                assert!(near > 16_200, "{what}: {near} of 16384");
            }
        }
    }

    #[test]
    fn a_file_that_fits_the_frames_finds_room_in_every_shard() {
        for (shards, frames) in [(4, 16), (64, 69), (64, 1104)] {
            let table = Table::new(shards, frames).unwrap();
            for file in 1..50 {
                let mut counts = vec![0_u32; shards as usize];
                for page in 0..u64::from(shards * frames) * 15 / 16 {
                    counts[table.shard_of(name(file, page).hash()) as usize] += 1;
                }
                let most = counts.iter().max().copied();
                assert!(most <= Some(frames), "file {file}: {most:?} of {frames}");
            }
        }
    }
}
