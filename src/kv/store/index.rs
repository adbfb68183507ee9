//! Every key in memory: a sharded hash table of the newest version of each, older versions only
//! while a snapshot may ask for them, and the keys in order for scans.
//!
//! A look-up takes one shard's read lock, touches two cache lines and allocates nothing. Changes
//! come in log order (the caller holds the commit lock), but for swaps of places, which keep a
//! version's number. Lock order: shard, then ordered keys, then the list of new ones.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

use super::ahead;
use super::entry::{Entry, Version};
use super::key::{Hasher, Key};
use super::ordered::Ordered;
use super::reference::Reference;
use crate::error::Result;
use crate::kv::sync::{RwLock, Tally};
use crate::kv::wal::Lsn;

const SHARDS: usize = 256;
/// Keys that `with_group` takes at most: what a processor has under way at once.
pub(crate) const GROUP: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) table: HashTable<Entry>,
    /// Hashes of the keys changed since the last checkpoint, one for each entry that says dirty.
    pub(super) dirty: Vec<u64>,
    /// Keys that have, or had, older versions.
    versioned: Vec<Key>,
}

/// What a change found.
#[derive(Debug)]
pub(crate) struct Replaced {
    /// Whether the key had a value.
    pub existed: bool,
    /// The version that nobody can ask for any more.
    pub dead: Option<Reference>,
    /// Bytes of inline values that came minus those that went.
    pub inline_bytes: i64,
}

/// The table and the ordered keys.
#[derive(Debug)]
pub(crate) struct Index {
    pub(super) shards: Box<[RwLock<Shard>]>,
    /// Of each shard's table.
    places: Box<[ahead::Place]>,
    ordered: Option<Ordered>,
    pub(super) hasher: Hasher,
    // Those who hold the commit lock add to these for the price of a store.
    keys: Tally,
    bytes: Tally,
    pub(super) dirty: Tally,
    /// Entries in the shards' lists of versioned keys.
    versioned: AtomicU64,
}

fn inline_of(reference: &Reference) -> i64 {
    match reference {
        Reference::Inline(value) => value.len() as i64,
        _ => 0,
    }
}

impl Index {
    pub fn new(ordered: bool) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            places: (0..SHARDS).map(|_| ahead::Place::default()).collect(),
            ordered: ordered.then(Ordered::default),
            hasher: Hasher::random(),
            keys: Tally::default(),
            bytes: Tally::default(),
            dirty: Tally::default(),
            versioned: AtomicU64::new(0),
        }
    }

    /// The shard of a key of this hash.
    #[inline]
    pub(super) fn number(hash: u64) -> usize {
        // The table uses the low and the top seven bits; the shard uses others.
        (hash >> 40) as usize % SHARDS
    }

    #[inline]
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[Self::number(hash)]
    }

    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// Keys that have a value.
    pub fn keys(&self) -> u64 {
        self.keys.get()
    }

    /// Memory of entries, keys and references, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Keys changed since the last checkpoint.
    pub fn dirty(&self) -> u64 {
        self.dirty.get()
    }

    /// Brings new keys into their order, so that the next scan has little to do.
    pub fn settle_order(&self) {
        if let Some(ordered) = &self.ordered {
            drop(ordered.keys());
        }
    }

    pub fn is_ordered(&self) -> bool {
        self.ordered.is_some()
    }

    /// Calls `look` with the key's entry under the shard's read lock.
    #[inline]
    pub fn with<R>(&self, key: &[u8], look: impl FnOnce(Option<&Entry>) -> R) -> R {
        let hash = self.hasher.hash(key);
        let shard = self.shard(hash).read();
        look(shard.table.find(hash, |e| e.key.bytes() == key))
    }

    /// Calls `look` for the entries of up to `GROUP` keys, in their order, with a key's number,
    /// under the read locks of all their shards. Faster than one after the other: a lock would
    /// keep the processor from asking memory for the next entry before it has the last.
    pub fn with_group(&self, keys: &[&[u8]], look: &mut dyn FnMut(usize, &Entry)) {
        let keys = &keys[..keys.len().min(GROUP)];
        let hashes: [u64; GROUP] =
            std::array::from_fn(|n| keys.get(n).map_or(0, |key| self.hasher.hash(key)));
        // Recursive: two keys may share a shard, and nobody who waits for one, while others are
        // held here, may be waited for. Who writes to a shard waits for no other.
        let shards: [_; GROUP] = std::array::from_fn(|n| {
            let shard = keys.get(n).map(|_| self.shard(hashes[n]));
            shard.map(RwLock::read_recursive)
        });
        let entries: [Option<&Entry>; GROUP] = std::array::from_fn(|n| {
            let (shard, key) = (shards[n].as_ref()?, keys.get(n)?);
            shard.table.find(hashes[n], |e| e.key.bytes() == *key)
        });
        for (n, entry) in entries.iter().enumerate() {
            if let Some(entry) = entry {
                look(n, entry);
            }
        }
    }

    pub(super) fn add_cost(&self, before: u64, after: u64) {
        self.bytes.add_shared(after as i64 - before as i64);
    }

    /// Asks memory for what `apply` of this key will touch.
    pub fn expect(&self, key: &[u8]) {
        let hash = self.hasher.hash(key);
        self.places[Self::number(hash)].ask(hash);
    }

    /// Makes `reference` the newest version of `key`; the caller holds the commit lock. `keep`
    /// says whether a snapshot may ask for the one that is replaced, by its number.
    pub fn apply(
        &self,
        key: &[u8],
        lsn: Lsn,
        reference: Reference,
        keep: impl FnOnce(Lsn) -> bool,
    ) -> Replaced {
        let hash = self.hasher.hash(key);
        let mut shard = self.shard(hash).write();
        let Shard {
            table,
            dirty,
            versioned,
        } = &mut *shard;
        let ordered = self.ordered.is_some();
        let hasher = self.hasher;
        let is_value = !reference.is_tombstone();
        let mut replaced = Replaced {
            existed: false,
            dead: None,
            inline_bytes: inline_of(&reference),
        };
        match table.entry(
            hash,
            |e| e.key.bytes() == key,
            |e| hasher.hash(e.key.bytes()),
        ) {
            Place::Occupied(mut place) => {
                let entry = place.get_mut();
                let before = entry.cost(ordered);
                replaced.existed = !entry.reference.is_tombstone();
                let old = Version {
                    lsn: std::mem::replace(&mut entry.lsn, lsn),
                    reference: std::mem::replace(&mut entry.reference, reference),
                };
                if keep(old.lsn) {
                    if entry.older.is_none() {
                        versioned.push(entry.key.clone());
                        self.versioned.fetch_add(1, Relaxed);
                    }
                    entry.older.get_or_insert_default().insert(0, old);
                } else {
                    replaced.inline_bytes -= inline_of(&old.reference);
                    replaced.dead = Some(old.reference);
                }
                if !entry.dirty {
                    entry.dirty = true;
                    dirty.push(hash);
                    self.dirty.add_held(1);
                }
                self.bytes
                    .add_held(entry.cost(ordered) as i64 - before as i64);
            }
            Place::Vacant(place) => {
                let entry = Entry {
                    key: Key::new(key),
                    lsn,
                    reference,
                    older: None,
                    seq: 0,
                    dirty: true,
                };
                dirty.push(hash);
                self.dirty.add_held(1);
                self.bytes.add_held(entry.cost(ordered) as i64);
                if let Some(ordered) = &self.ordered {
                    ordered.add(entry.key.clone());
                }
                self.places[Self::number(hash)].note(place.insert(entry));
            }
        }
        self.keys
            .add_held(i64::from(is_value) - i64::from(replaced.existed));
        replaced
    }

    /// While opening: an entry of meta block `seq`. The higher (lsn, seq) wins.
    pub fn load(&self, key: &[u8], lsn: Lsn, seq: u32, reference: Reference) {
        let hash = self.hasher.hash(key);
        let mut shard = self.shard(hash).write();
        let ordered = self.ordered.is_some();
        let hasher = self.hasher;
        let is_value = !reference.is_tombstone();
        match shard.table.entry(
            hash,
            |e| e.key.bytes() == key,
            |e| hasher.hash(e.key.bytes()),
        ) {
            Place::Occupied(mut place) => {
                let entry = place.get_mut();
                if (lsn, seq) > (entry.lsn, entry.seq) {
                    let before = entry.cost(ordered);
                    let was_value = !entry.reference.is_tombstone();
                    self.keys
                        .add_shared(i64::from(is_value) - i64::from(was_value));
                    (entry.lsn, entry.seq, entry.reference) = (lsn, seq, reference);
                    self.add_cost(before, entry.cost(ordered));
                }
            }
            Place::Vacant(place) => {
                let entry = Entry {
                    key: Key::new(key),
                    lsn,
                    reference,
                    older: None,
                    seq,
                    dirty: false,
                };
                self.add_cost(0, entry.cost(ordered));
                self.keys.add_shared(i64::from(is_value));
                if let Some(ordered) = &self.ordered {
                    ordered.add(entry.key.clone());
                }
                self.places[Self::number(hash)].note(place.insert(entry));
            }
        }
    }

    /// Calls `change` with the key's entry, if it is there, under the shard's write lock.
    pub fn update<R>(&self, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let hash = self.hasher.hash(key);
        let mut shard = self.shard(hash).write();
        let ordered = self.ordered.is_some();
        let Shard { table, dirty, .. } = &mut *shard;
        let entry = table.find_mut(hash, |e| e.key.bytes() == key)?;
        let (before, was_dirty) = (entry.cost(ordered), entry.dirty);
        let result = change(entry);
        if entry.dirty && !was_dirty {
            dirty.push(hash);
            self.dirty.add_shared(1);
        }
        self.add_cost(before, entry.cost(ordered));
        Some(result)
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Forgets a deleted key if it is clean, has no older version, and is still version `lsn`.
    pub fn forget(&self, key: &[u8], lsn: Lsn) {
        let hash = self.hasher.hash(key);
        let mut shard = self.shard(hash).write();
        let found = shard.table.find_entry(hash, |e| e.key.bytes() == key);
        let Ok(place) = found else { return };
        let e = place.get();
        if e.lsn == lsn && e.reference.is_tombstone() && !e.dirty && e.older.is_none() {
            self.add_cost(e.cost(self.ordered.is_some()), 0);
            let (entry, _) = place.remove();
            if let Some(ordered) = &self.ordered {
                ordered.remove(&entry.key);
            }
        }
    }

    /// Drops the older versions that `needed(older, newer)` says nobody can ask for, and hands
    /// each to `dead` with its key. Answers the inline bytes that went.
    pub fn prune(
        &self,
        needed: &dyn Fn(Lsn, Lsn) -> bool,
        dead: &mut dyn FnMut(&[u8], Lsn, Reference),
    ) -> i64 {
        let ordered = self.ordered.is_some();
        let mut inline = 0;
        if self.versioned.load(Relaxed) == 0 {
            return inline;
        }
        for shard in &self.shards {
            if shard.read().versioned.is_empty() {
                continue;
            }
            let mut shard = shard.write();
            let Shard {
                table,
                dirty,
                versioned,
            } = &mut *shard;
            let before = versioned.len();
            versioned.retain(|key| {
                let hash = self.hasher.hash(key.bytes());
                let Some(entry) = table.find_mut(hash, |e| e.key == *key) else {
                    return false;
                };
                let before = entry.cost(ordered);
                let mut newer = entry.lsn;
                let Some(older) = entry.older.as_mut() else {
                    return false;
                };
                let all = std::mem::take(&mut **older);
                for version in all {
                    if needed(version.lsn, newer) {
                        newer = version.lsn;
                        older.push(version);
                    } else {
                        inline += inline_of(&version.reference);
                        dead(key.bytes(), newer, version.reference);
                    }
                }
                let empty = older.is_empty();
                if empty {
                    entry.older = None;
                    // A checkpoint may be about to store it: only the next one forgets it.
                    if entry.reference.is_tombstone() && !entry.dirty {
                        entry.dirty = true;
                        dirty.push(hash);
                        self.dirty.add_shared(1);
                    }
                }
                self.add_cost(before, entry.cost(ordered));
                !empty
            });
            let gone = before - versioned.len();
            self.versioned.fetch_sub(gone as u64, Relaxed);
        }
        inline
    }

    /// Calls `each` for every entry, one shard at a time under its read lock.
    pub fn for_each(&self, each: &mut dyn FnMut(&Entry)) {
        for shard in &self.shards {
            for entry in &shard.read().table {
                each(entry);
            }
        }
    }

    /// Adds the keys of shard `n` to `into`.
    pub fn keys_of(&self, n: usize, into: &mut Vec<Key>) {
        into.extend(self.shards[n].read().table.iter().map(|e| e.key.clone()));
    }

    /// Calls `each` for every entry with the right to change it, up to the first error; only while
    /// opening.
    pub fn try_for_each_mut(&self, each: &mut dyn FnMut(&mut Entry) -> Result<()>) -> Result<()> {
        for shard in &self.shards {
            for entry in &mut shard.write().table {
                let before = entry.cost(self.ordered.is_some());
                let done = each(entry);
                self.add_cost(before, entry.cost(self.ordered.is_some()));
                done?;
            }
        }
        Ok(())
    }

    /// Calls `each` with up to `most` keys in order from `from` to `to`, deleted ones too. It must
    /// not look anything up: the keys' lock is held.
    pub fn each_between(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        most: usize,
        each: &mut dyn FnMut(&[u8]),
    ) {
        let empty = match (from, to) {
            (Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                a > b
            }
            _ => false,
        };
        if let Some(ordered) = &self.ordered
            && !empty
        {
            let keys = ordered.keys();
            for key in keys.range(from, to).take(most) {
                each(key.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::changed::Group;
    use super::*;

    fn inline(text: &str) -> Reference {
        Reference::inline(text.as_bytes())
    }

    fn read(index: &Index, key: &str, at: Lsn) -> Option<String> {
        index.with(key.as_bytes(), |e| match e?.at(at)?.1 {
            Reference::Inline(v) => Some(String::from_utf8_lossy(v).into_owned()),
            _ => None,
        })
    }

    #[test]
    fn the_newest_version_is_seen_and_the_old_one_is_dead() {
        let index = Index::new(true);
        assert!(!index.apply(b"k", 1, inline("a"), |_| false).existed);
        let r = index.apply(b"k", 2, inline("bb"), |_| false);
        assert!(r.existed && r.dead.is_some() && r.inline_bytes == 1);
        assert_eq!(read(&index, "k", Lsn::MAX).as_deref(), Some("bb"));
        assert_eq!(read(&index, "k", 1), None);
        assert_eq!(index.keys(), 1);
    }

    #[test]
    fn kept_versions_serve_the_past_until_they_are_pruned() {
        let index = Index::new(true);
        index.apply(b"k", 1, inline("a"), |_| true);
        index.apply(b"k", 5, inline("b"), |_| true);
        index.apply(b"k", 9, Reference::Tombstone, |_| true);
        assert_eq!(read(&index, "k", 1).as_deref(), Some("a"));
        assert_eq!(read(&index, "k", 8).as_deref(), Some("b"));
        assert_eq!(read(&index, "k", 9), None);
        let mut dead = Vec::new();
        let needed = |older: Lsn, newer: Lsn| older <= 6 && 6 < newer;
        index.prune(&needed, &mut |_, lsn, _| dead.push(lsn));
        assert_eq!(dead, [5]);
        assert_eq!(read(&index, "k", 8).as_deref(), Some("b"));
        index.prune(&|_, _| false, &mut |_, lsn, _| dead.push(lsn));
        assert_eq!((dead.as_slice(), index.keys()), (&[5, 9][..], 0));
    }

    #[test]
    fn tombstones_are_forgotten_when_clean() {
        let index = Index::new(true);
        for n in 0..1000u32 {
            index.apply(&n.to_le_bytes(), 1, inline("x"), |_| false);
            index.apply(&n.to_le_bytes(), 2, Reference::Tombstone, |_| false);
        }
        assert_eq!(index.dirty(), 1000);
        index.forget(&7u32.to_le_bytes(), 2);
        assert!(index.with(&7u32.to_le_bytes(), |e| e.is_some()));
        let mut group = Group::default();
        group.begin(&index, 1);
        group.parts[0].take(&index, 1);
        assert_eq!(index.dirty(), 0);
        for n in 0..1000u32 {
            index.forget(&n.to_le_bytes(), 2);
        }
        assert_eq!((index.bytes(), index.keys()), (0, 0));
        index.each_between(Bound::Unbounded, Bound::Unbounded, 9, &mut |_| {
            unreachable!("all are forgotten")
        });
    }

    #[test]
    fn loading_keeps_the_newest_of_any_order() {
        let index = Index::new(false);
        index.load(b"k", 5, 2, inline("new"));
        index.load(b"k", 5, 1, inline("old place"));
        index.load(b"k", 4, 9, inline("old version"));
        assert_eq!(read(&index, "k", Lsn::MAX).as_deref(), Some("new"));
        index.load(b"k", 5, 3, inline("newest"));
        assert_eq!(read(&index, "k", Lsn::MAX).as_deref(), Some("newest"));
    }

    #[test]
    fn keys_come_in_order_and_empty_ranges_are_empty() {
        let index = Index::new(true);
        for k in ["b", "a", "d", "c"] {
            index.apply(k.as_bytes(), 1, inline(k), |_| false);
        }
        let keys = |a, b, n| -> Vec<Vec<u8>> {
            let mut keys = Vec::new();
            index.each_between(a, b, n, &mut |key| keys.push(key.to_vec()));
            keys
        };
        let all = keys(Bound::Unbounded, Bound::Unbounded, 3);
        assert_eq!(all, [b"a", b"b", b"c"]);
        let some = keys(Bound::Excluded(&b"a"[..]), Bound::Included(&b"c"[..]), 9);
        assert_eq!(some, [b"b", b"c"]);
        assert!(keys(Bound::Included(&b"z"[..]), Bound::Included(&b"a"[..]), 9).is_empty());
        assert!(keys(Bound::Excluded(&b"a"[..]), Bound::Excluded(&b"a"[..]), 9).is_empty());
    }
}
