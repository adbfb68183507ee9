//! Asks memory for what a change of the index will touch, before the change comes.
//!
//! A put waits for two lines of memory: the table's control bytes, which say where the key is or
//! goes, and the entry there. Asked for before the record is copied into the log they arrive
//! meanwhile. Nothing is read, and where it would be is known without a lock: where a table lay a
//! moment ago. A wrong place costs a line of the cache. It is where `hashbrown` puts entries:
//! number n lies n + 1 entries before the control bytes, and the first to be looked at is that of
//! the hash's low bits; a test here notices if that changes.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hashbrown::hash_table::OccupiedEntry;

use super::entry::Entry;

/// Bytes that memory is asked for at once.
const LINE: usize = 64;
/// Entries from the first that may be the one, which it nearly always is among.
const ENTRIES: usize = 2;

/// Where the table of a shard lies.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Address of the control bytes.
    control: AtomicUsize,
    /// Of hashes, which is one less than the table's places. 0 without a table.
    mask: AtomicUsize,
}

impl Place {
    /// Notes where the table is that has this new entry. The caller holds the table's lock.
    #[inline]
    pub fn note(&self, entry: OccupiedEntry<'_, Entry>) {
        let (number, at) = (entry.bucket_index(), std::ptr::from_ref(entry.get()).addr());
        let mask = entry.into_table().num_buckets() - 1;
        if mask != self.mask.load(Relaxed) {
            let control = at + (number + 1) * size_of::<Entry>();
            self.control.store(control, Relaxed);
            self.mask.store(mask, Relaxed);
        }
    }

    /// Where the entry of a hash begins that is looked at first, and its control byte.
    #[inline]
    fn first(&self, hash: u64) -> (usize, usize) {
        let (control, mask) = (self.control.load(Relaxed), self.mask.load(Relaxed));
        let number = hash as usize & mask;
        let entry = control.wrapping_sub((number + 1) * size_of::<Entry>());
        (entry, control.wrapping_add(number))
    }

    /// Asks memory for what a look-up of this hash will touch.
    #[inline]
    pub fn ask(&self, hash: u64) {
        let (entry, control) = self.first(hash);
        ask_for(control);
        // The next entries lie before it.
        let begin = entry.wrapping_sub((ENTRIES - 1) * size_of::<Entry>());
        let last = ENTRIES * size_of::<Entry>() - 1;
        for at in (0..last).step_by(LINE).chain([last]) {
            ask_for(begin.wrapping_add(at));
        }
    }
}

#[inline]
fn ask_for(address: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::without_provenance(address);
        // SAFETY: every x86-64 has SSE, and no address makes this read, or fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use hashbrown::HashTable;

    use super::super::key::{Hasher, Key};
    use super::super::reference::Reference;
    use super::*;

    #[test]
    fn most_entries_lie_where_memory_is_asked_for_them() {
        let (hasher, place) = (Hasher::random(), Place::default());
        let hash_of = |entry: &Entry| hasher.hash(entry.key.bytes());
        let mut table: HashTable<Entry> = HashTable::new();
        let keys = if cfg!(miri) { 60 } else { 5000u32 };
        for n in 0..keys {
            let entry = Entry {
                key: Key::new(&n.to_le_bytes()),
                lsn: 1,
                reference: Reference::Tombstone,
                older: None,
                seq: 0,
                dirty: false,
            };
            place.note(table.insert_unique(hash_of(&entry), entry, hash_of));
        }
        let mut near = 0;
        for entry in &table {
            let (first, control) = place.first(hash_of(entry));
            let at = std::ptr::from_ref(entry).addr();
            assert!(control > first);
            let mut among = (0..4).map(|n| first.wrapping_sub(n * size_of::<Entry>()));
            near += usize::from(among.any(|place| place == at));
        }
        let share = near * 100 / table.len();
        assert!(share > 60, "{share} of 100 entries");
    }
}
