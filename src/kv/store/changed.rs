//! The keys that changed, as a checkpoint takes them from the index and comes back to it.
//!
//! They are taken and changed shard by shard, a few under each lock: a shard's part of the table
//! stays near the processor, and no commit waits long. Only numbers are sorted for the order in
//! which values go into pages; the keys stay where they are. Values are copied out: the memory of
//! each is touched once here, and once when it is let go.

use std::sync::atomic::Ordering::Relaxed;

use super::index::{Entry, Index, Shard};
use super::key::Key;
use super::pages::{Packer, Place};
use super::reference::{Reference, SlotRef};
use crate::error::Result;
use crate::kv::wal::Lsn;

/// Keys that are taken or changed under one lock.
const AT_ONCE: usize = 64;
/// Keys and bytes of values at which a group is stored before more are taken: what a checkpoint
/// needs of memory.
const GROUP_KEYS: usize = 512 << 10;
const GROUP_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The newest version, in memory.
    Small,
    /// An older version, in memory, that a snapshot holds.
    Older,
    /// The newest version is a delete.
    Deleted,
    /// The newest version lies on the disk.
    Stored,
}

/// A version of a key that changed.
#[derive(Debug)]
pub(crate) struct Taken {
    pub key: Key,
    pub hash: u64,
    pub lsn: Lsn,
    /// Where its value is among the group's bytes.
    start: usize,
    len: u32,
    /// Number of the meta block that has its entry.
    pub seq: u32,
    what: What,
    place: Option<Place>,
}

impl Taken {
    /// Whether it is the newest version of its key: every key has just one.
    pub fn is_newest(&self) -> bool {
        self.what != What::Older
    }

    pub fn is_delete(&self) -> bool {
        self.what == What::Deleted
    }

    /// Where its value is now, if it was in memory when it was taken and is written.
    pub fn slot(&self, packer: &Packer<'_>) -> Option<SlotRef> {
        let place = self.place.filter(|_| !self.is_delete())?;
        packer.slot(place, self.len)
    }
}

/// Versions that are stored together, in the order of the shards.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub all: Vec<Taken>,
    values: Vec<u8>,
}

impl Group {
    pub fn is_full(&self) -> bool {
        self.all.len() >= GROUP_KEYS || self.values.len() >= GROUP_BYTES
    }

    pub fn clear(&mut self) {
        self.all.clear();
        self.values.clear();
    }

    fn add(&mut self, entry: &Entry, hash: u64) {
        let mut add = |lsn, what, value: &[u8]| {
            self.all.push(Taken {
                key: entry.key.clone(),
                hash,
                lsn,
                start: self.values.len(),
                len: value.len() as u32,
                seq: 0,
                what,
                place: None,
            });
            self.values.extend_from_slice(value);
        };
        match &entry.reference {
            Reference::Inline(value) => add(entry.lsn, What::Small, value),
            Reference::Tombstone => add(entry.lsn, What::Deleted, &[]),
            _ => add(entry.lsn, What::Stored, &[]),
        }
        // What snapshots hold must not stay in memory either.
        for version in entry.older.iter().flat_map(|o| o.iter()) {
            if let Reference::Inline(value) = &version.reference {
                add(version.lsn, What::Older, value);
            }
        }
    }

    /// The numbers of all in the order of their keys.
    pub fn in_order(&self) -> Vec<u32> {
        let first = self.all.first().map_or(&[][..], |t| t.key.bytes());
        let same = |key: &[u8]| key.iter().zip(first).take_while(|(a, b)| a == b).count();
        let common = self.all.iter().fold(first.len(), |common, taken| {
            let key = taken.key.bytes();
            match key.get(..common) == first.get(..common) {
                true => common,
                false => same(key).min(common),
            }
        });
        // The first bytes that differ decide nearly always, and lie side by side.
        let words = self.all.iter().map(|t| word(&t.key.bytes()[common..]));
        let mut order: Vec<(u64, u32)> = words.zip(0..).collect();
        order.sort_unstable_by(|a, b| {
            let keys = || self.all[a.1 as usize].key.cmp(&self.all[b.1 as usize].key);
            a.0.cmp(&b.0).then_with(keys)
        });
        order.into_iter().map(|(_, n)| n).collect()
    }

    /// Puts the values into pages, and deletes where `deletes` says so. Neighbours in key order
    /// share pages. After a failure, what was written has its place all the same.
    pub fn pack(&mut self, order: &[u32], packer: &mut Packer<'_>, deletes: bool) -> Result<()> {
        for n in order {
            let taken = &mut self.all[*n as usize];
            let start = taken.start;
            let value = match taken.what {
                What::Stored => continue,
                What::Deleted if !deletes => continue,
                What::Deleted => None,
                What::Small | What::Older => Some(&self.values[start..start + taken.len as usize]),
            };
            taken.place = Some(packer.push(taken.key.bytes(), taken.lsn, value)?);
        }
        packer.finish()
    }

    /// Parts of one shard each, to be changed under one lock.
    pub fn parts(&self) -> impl Iterator<Item = &[Taken]> {
        let shards = self
            .all
            .chunk_by(|a, b| Index::number(a.hash) == Index::number(b.hash));
        shards.flat_map(|shard| shard.chunks(AT_ONCE))
    }
}

/// The first eight bytes as a number that is in their order, zeroes where there are fewer.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    match bytes.first_chunk() {
        Some(first) => word = *first,
        None => word[..bytes.len()].copy_from_slice(bytes),
    }
    u64::from_le_bytes(word).swap_bytes()
}

impl Index {
    /// Takes the changed keys of shard `n`, and what they hold in memory, and makes them clean.
    pub fn take_changed(&self, n: usize, group: &mut Group) {
        // Until its turn comes a key says that it changed, and is not listed again.
        let hashes = std::mem::take(&mut self.shards[n].write().dirty);
        for some in hashes.chunks(AT_ONCE) {
            let mut shard = self.shards[n].write();
            for &hash in some {
                let hasher = self.hasher;
                let changed = |e: &Entry| e.dirty && hasher.hash(e.key.bytes()) == hash;
                if let Some(entry) = shard.table.find_mut(hash, changed) {
                    entry.dirty = false;
                    group.add(entry, hash);
                }
            }
        }
        self.dirty.fetch_sub(hashes.len() as u64, Relaxed);
    }

    /// Calls `change` for each of a part of a group that was not on the disk, with the key's entry
    /// if it is there, under the shard's write lock. What it hands out is dropped after that.
    pub fn change(
        &self,
        part: &[Taken],
        change: &mut dyn FnMut(Option<&mut Entry>, &Taken) -> Option<Reference>,
    ) {
        let Some(first) = part.first() else { return };
        let ordered = self.is_ordered();
        let (mut before, mut after) = (0, 0);
        let mut gone = Vec::with_capacity(part.len());
        let mut shard = self.shards[Self::number(first.hash)].write();
        for taken in part.iter().filter(|t| t.what != What::Stored) {
            let entry = shard.table.find_mut(taken.hash, |e| e.key == taken.key);
            let Some(entry) = entry else {
                gone.extend(change(None, taken));
                continue;
            };
            before += entry.cost(ordered);
            gone.extend(change(Some(entry), taken));
            after += entry.cost(ordered);
        }
        drop(shard);
        self.add_cost(before, after);
    }

    /// Says that the keys of this hash must be in the next checkpoint (again).
    pub fn mark_dirty(&self, hash: u64) {
        let mut shard = self.shards[Self::number(hash)].write();
        let Shard { table, dirty, .. } = &mut *shard;
        for entry in table.iter_hash_mut(hash) {
            if !entry.dirty && self.hasher.hash(entry.key.bytes()) == hash {
                entry.dirty = true;
                dirty.push(hash);
                self.dirty.fetch_add(1, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn inline(text: &str) -> Reference {
        Reference::Inline(Arc::from(text.as_bytes()))
    }

    fn taken(index: &Index) -> Group {
        let mut group = Group::default();
        for n in 0..index.shards() {
            index.take_changed(n, &mut group);
        }
        group
    }

    #[test]
    fn changed_keys_are_taken_once_with_what_they_hold_in_memory() {
        let index = Index::new(true);
        for n in 0..1000u32 {
            index.apply(&n.to_le_bytes(), 1, inline("older"), |_| false);
            index.apply(&n.to_le_bytes(), 2, inline("kept"), |_| n == 7);
        }
        index.apply(&8u32.to_le_bytes(), 3, Reference::Tombstone, |_| false);
        let group = taken(&index);
        assert_eq!((group.all.len(), index.dirty()), (1001, 0));
        let newest = group.all.iter().filter(|t| t.is_newest()).count();
        assert_eq!((newest, group.values.len()), (1000, 999 * 4 + 5));
        assert!(taken(&index).all.is_empty());
        // Once more after a failure, and not twice.
        for t in group.all.iter().chain(&group.all) {
            index.mark_dirty(t.hash);
        }
        assert_eq!((index.dirty(), taken(&index).all.len()), (1000, 1001));
    }

    #[test]
    fn the_order_is_that_of_the_keys_whatever_they_share() {
        let index = Index::new(false);
        let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 0], b"x".to_vec()];
        for n in 0..300u32 {
            keys.push(format!("{:03}", n * 7 % 1000).into_bytes());
            keys.push(format!("long and the same for all {n:08}").into_bytes());
        }
        for prefix in [&b""[..], b"p", b"a prefix of more than a word"] {
            for key in &keys {
                let key = [prefix, key].concat();
                if !key.is_empty() {
                    index.apply(&key, 1, inline(""), |_| false);
                }
            }
            let group = taken(&index);
            let order = group.in_order();
            assert_eq!(order.len(), group.all.len());
            let key = |n: &u32| group.all[*n as usize].key.bytes();
            assert!(order.windows(2).all(|w| key(&w[0]) < key(&w[1])));
        }
    }

    #[test]
    fn parts_have_one_shard_each_and_all_are_changed() {
        let index = Index::new(false);
        let keys = if cfg!(miri) { 500 } else { 20_000u32 };
        for n in 0..keys {
            index.apply(&n.to_le_bytes(), 1, inline("x"), |_| false);
        }
        let group = taken(&index);
        let mut changed = 0;
        for part in group.parts() {
            assert!(part.len() <= AT_ONCE);
            let number = Index::number(part[0].hash);
            assert!(part.iter().all(|t| Index::number(t.hash) == number));
            index.change(part, &mut |entry, taken| {
                assert_eq!(entry.map(|e| e.key.clone()), Some(taken.key.clone()));
                changed += 1;
                None
            });
        }
        assert_eq!(changed, keys);
    }
}
