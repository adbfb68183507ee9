//! The page table: from a file and a page of it to the page word, without a lock.
//!
//! Open addressing. Each shard has a region of its own, at most 3/4 full; a page sits in the
//! first free slot after the place that its hash names. A slot whose page went is free again
//! without a tombstone: a search does not end at a free slot but at the farthest distance that any
//! page of the shard was ever put, which stays small. Slots do not move, so a pin can remember
//! where its page is.
//!
//! Searching is any thread's; inserting and clearing is under the shard's lock. A slot's key is
//! written before its word says BUSY and erased after its word was emptied, so the key of a
//! pinned page does not change. The only file of this room with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::word::{PageWord, State};
use crate::error::{Error, ErrorKind, Result};

/// Which page of which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// `File::identity`, never 0.
    pub(super) file: u64,
    /// Offset in the file, pages.
    pub(super) page: u64,
}

impl Key {
    /// Spreads pages over shards (high bits) and slots (low bits).
    #[inline(always)]
    pub(super) fn hash(self) -> u64 {
        let file = self.file.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD6E8_FEB8_6659_FD93;
        let product = u128::from(file | 1) * u128::from(self.page ^ 0xA076_1D64_78BD_642F);
        (product >> 64) as u64 ^ product as u64
    }
}

/// One place of the table; two share a cache line. All zero: free.
#[derive(Debug)]
#[repr(C, align(32))]
pub(super) struct Slot {
    pub(super) word: PageWord<AtomicU64>,
    file: AtomicU64,
    page: AtomicU64,
    /// Bytes of the page that are the file's; the rest is zero.
    valid: AtomicU32,
}

const _: () = assert!(size_of::<Slot>() == 32);

impl Slot {
    #[inline(always)]
    pub(super) fn is(&self, key: Key) -> bool {
        self.page.load(Relaxed) == key.page && self.file.load(Relaxed) == key.file
    }

    /// Its page. Meaningful while the page is pinned or the shard is locked.
    pub(super) fn key(&self) -> Key {
        Key {
            file: self.file.load(Relaxed),
            page: self.page.load(Relaxed),
        }
    }

    #[inline(always)]
    pub(super) fn valid(&self) -> u32 {
        self.valid.load(Acquire)
    }

    pub(super) fn set_valid(&self, bytes: u32) {
        self.valid.store(bytes, Release);
    }

    /// The page now has at least so many bytes.
    pub(super) fn extend_valid(&self, bytes: u32) {
        self.valid.fetch_max(bytes, Release);
    }
}

/// A huge page of the kernel: large tables take them, so that a search costs no page walk.
const HUGE: usize = 2 << 20;

/// Zeroed slots that never move.
struct Slots {
    first: NonNull<Slot>,
    count: usize,
    /// What was mapped: the slots, and room to begin at a huge page.
    mapped: NonNull<c_void>,
    mapped_bytes: usize,
}

// SAFETY: slots are atomics, and the memory is freed by the owner alone.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    fn new(count: usize) -> Result<Self> {
        let no_memory = || {
            let text =
                format!("a page table of {count} places finds no memory; lower device_bytes");
            Error::new(ErrorKind::OutOfHostMemory, text)
        };
        let bytes = count.checked_mul(size_of::<Slot>()).ok_or_else(no_memory)?;
        let is_large = bytes >= HUGE;
        let spare = if is_large { HUGE } else { 0 };
        let mapped_bytes = bytes.checked_add(spare).ok_or_else(no_memory)?;
        // Mapped, not allocated: an allocator that zeroes would touch the pages before the advice
        // is given, and they would stay small.
        // SAFETY: a new private mapping, of a size that is not 0: a table has at least two slots.
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
        // SAFETY: `up` is less than the room that was mapped with the slots.
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

impl Deref for Slots {
    type Target = [Slot];

    #[inline(always)]
    fn deref(&self) -> &[Slot] {
        // SAFETY: `count` zeroed slots are there, and zero is a value of each of their fields.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody uses the slots any more; atomics need no drop.
        unsafe { libc::munmap(self.mapped.as_ptr(), self.mapped_bytes) };
    }
}

/// All pages of a cache.
pub(super) struct Table {
    slots: Slots,
    shards: u32,
    /// Slots of one shard, a power of two, less 1.
    mask: u32,
    /// How far from its place a page of each shard was ever put.
    reach: Box<[AtomicU32]>,
}

impl Table {
    /// A table for this many pages in each of the shards.
    pub(super) fn new(shards: u32, frames_per_shard: u32) -> Result<Self> {
        // Small tables are found in the processor's caches: 3/8 to 3/4 of the places are taken.
        let region = (frames_per_shard as usize * 4)
            .div_ceil(3)
            .next_power_of_two();
        let count = region * shards as usize;
        let mask = u32::try_from(region - 1).ok();
        let fits = u32::try_from(count).is_ok();
        let Some(mask) = mask.filter(|_| fits) else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{count} places are too many for one page table; use larger pages"),
            ));
        };
        Ok(Self {
            slots: Slots::new(count)?,
            shards,
            mask,
            reach: (0..shards).map(|_| AtomicU32::new(0)).collect(),
        })
    }

    /// The shard of a hash.
    #[inline(always)]
    pub(super) fn shard_of(&self, hash: u64) -> u32 {
        (((hash >> 32) * u64::from(self.shards)) >> 32) as u32
    }

    #[inline(always)]
    pub(super) fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    /// All slots, for counting.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots that a page may be in, nearest first.
    #[inline(always)]
    fn places(&self, hash: u64, first: u32, last: u32) -> impl Iterator<Item = u32> + use<> {
        let base = self.shard_of(hash) * (self.mask + 1);
        let (start, mask) = (hash as u32, self.mask);
        (first..=last).map(move |step| base + (start.wrapping_add(step) & mask))
    }

    /// Pins the page if it is there: its slot, and what its word said. Never waits.
    #[inline(always)]
    pub(super) fn pin(&self, key: Key, hash: u64) -> Option<(u32, State)> {
        let base = self.shard_of(hash) * (self.mask + 1);
        let index = base + (hash as u32 & self.mask);
        let slot = self.slot(index);
        if slot.is(key) {
            return Self::pin_slot(slot, key).map(|state| (index, state));
        }
        self.pin_farther(key, hash)
    }

    #[inline]
    fn pin_farther(&self, key: Key, hash: u64) -> Option<(u32, State)> {
        let reach = self.reach[self.shard_of(hash) as usize].load(Acquire);
        let index = self
            .places(hash, 1, reach)
            .find(|i| self.slot(*i).is(key))?;
        Self::pin_slot(self.slot(index), key).map(|state| (index, state))
    }

    #[inline(always)]
    fn pin_slot(slot: &Slot, key: Key) -> Option<State> {
        let state = slot.word.pin()?;
        if slot.is(key) {
            return Some(state);
        }
        // The slot has got another page since the search.
        slot.word.unpin();
        None
    }

    /// The slot of a page, on its way or there. Under the shard's lock.
    pub(super) fn find(&self, key: Key, hash: u64) -> Option<u32> {
        let reach = self.reach[self.shard_of(hash) as usize].load(Acquire);
        self.places(hash, 0, reach).find(|i| self.slot(*i).is(key))
    }

    /// Puts a page that is not in the table there, BUSY. Under the shard's lock.
    pub(super) fn insert(&self, key: Key, hash: u64, frame: u32) -> Option<u32> {
        let free = |index: &u32| self.slot(*index).file.load(Relaxed) == 0;
        let (step, index) = self
            .places(hash, 0, self.mask)
            .enumerate()
            .find(|(_, index)| free(index))?;
        let reach = &self.reach[self.shard_of(hash) as usize];
        reach.fetch_max(step as u32, Release);
        let slot = self.slot(index);
        slot.page.store(key.page, Relaxed);
        slot.file.store(key.file, Relaxed);
        slot.valid.store(0, Relaxed);
        slot.word.begin_fill(frame);
        Some(index)
    }

    /// Frees the slot of a page that is BUSY. Under the shard's lock.
    pub(super) fn remove(&self, index: u32) {
        let slot = self.slot(index);
        slot.word.abandon();
        slot.file.store(0, Release);
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Table({} slots, {} shards)",
            self.slots.count, self.shards
        )
    }
}

/// A way to an object that pins keep: cheaper than counting an owner at every hit.
///
/// Who makes one holds a pin on a page of the cache and uses it no more after giving the pin
/// back. The last owner of a cache sees to it that its core stays while a page is pinned
/// (`core::Core::retire`).
pub(super) struct Anchor<T>(NonNull<T>);

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
        // SAFETY: the pin that goes with the anchor keeps the object.
        unsafe { self.0.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::word::VALID;
    use super::*;

    fn put(table: &Table, key: Key, frame: u32) -> u32 {
        let index = table.insert(key, key.hash(), frame).expect("room");
        table.slot(index).word.publish(0, 0);
        index
    }

    #[test]
    fn a_full_shard_finds_every_page_and_forgets_what_went() {
        let table = Table::new(1, 64).unwrap();
        let keys: Vec<Key> = (0..64).map(|page| Key { file: 3, page }).collect();
        let places: Vec<u32> = (0..64).map(|i| put(&table, keys[i], i as u32)).collect();
        for round in 0..200_u64 {
            let at = (round * 7 % 64) as usize;
            let key = keys[at];
            let (index, state) = table.pin(key, key.hash()).expect("there");
            assert!(state.frame() == at as u32 && table.slot(index).key() == key);
            table.slot(index).word.unpin();
        }
        let gone = keys[5];
        table.slot(places[5]).word.begin_evict().expect("idle");
        assert!(table.pin(gone, gone.hash()).is_none());
        table.remove(places[5]);
        assert!(table.find(gone, gone.hash()).is_none());
        for (i, key) in keys.iter().enumerate().filter(|(i, _)| *i != 5) {
            let index = table.find(*key, key.hash()).expect("still there");
            let state = table.slot(index).word.state();
            assert!(state.has(VALID) && state.frame() == i as u32);
        }
    }

    #[test]
    fn neighbours_and_files_spread_over_shards() {
        let table = Table::new(16, 1024).unwrap();
        for file in 1..20_u64 {
            let mut counts = [0_u32; 16];
            for page in 0..16_000 {
                counts[table.shard_of(Key { file, page }.hash()) as usize] += 1;
            }
            for count in counts {
                assert!((700..1300).contains(&count), "file {file}: {counts:?}");
            }
        }
    }
}
