//! The keys that changed, as a checkpoint takes them from the index and comes back to it.
//!
//! They are taken and changed shard by shard, a few under each lock: a shard's part of the table
//! stays near the processor, and no commit waits long. A group has a part for each thread, which
//! takes and sorts what its shards have; then each stores a range of the keys of all parts. What
//! is taken lies there as pages will have it, and only numbers are sorted.

use std::ops::Range;

use super::entry::Entry;
use super::index::{Index, Shard};
use super::page::{SLOT_HEADER, put_slot, slot_bytes};
use super::reference::Reference;
use crate::kv::wal::Lsn;

/// Keys that are taken or changed under one lock: a commit waits no longer than for so many.
const AT_ONCE: usize = AHEAD;
/// Keys and bytes at which a group is stored before more are taken: what a checkpoint needs of
/// memory.
const GROUP_KEYS: usize = 512 << 10;
const GROUP_BYTES: usize = 96 << 20;
/// Entries that are asked of memory at once.
pub(crate) const AHEAD: usize = 16;

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
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub hash: u64,
    pub lsn: Lsn,
    /// Where its slot is among those of its part.
    start: usize,
    key_len: u32,
    /// Bytes of the value.
    pub len: u32,
    what: What,
}

impl Taken {
    /// Whether it is the newest version of its key: every key has just one.
    pub fn is_newest(&self) -> bool {
        self.what != What::Older
    }

    pub fn is_delete(&self) -> bool {
        self.what == What::Deleted
    }

    /// Whether the value was on the disk already.
    pub fn is_stored(&self) -> bool {
        self.what == What::Stored
    }
}

/// What one thread took, in the order of the shards.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub all: Vec<Taken>,
    /// What pages will hold of them.
    slots: Vec<u8>,
    /// All in the order of their keys: the first bytes of each that differ, which decide nearly
    /// always and lie side by side, and its number.
    order: Vec<(u64, u32)>,
    /// Bytes that all its keys begin with, and all of the group.
    alike: usize,
    common: usize,
    /// Shards that are not taken yet.
    shards: Range<usize>,
}

impl Part {
    pub fn key(&self, taken: &Taken) -> &[u8] {
        let start = taken.start + SLOT_HEADER;
        &self.slots[start..start + taken.key_len as usize]
    }

    fn key_of(&self, n: u32) -> &[u8] {
        self.key(&self.all[n as usize])
    }

    /// What pages hold of it.
    pub fn slot(&self, taken: &Taken) -> &[u8] {
        let size = slot_bytes(taken.key_len as usize, taken.len as usize);
        &self.slots[taken.start..taken.start + size]
    }

    /// Takes what changed in its shards, until it is full.
    pub fn take(&mut self, index: &Index, parts: usize) {
        self.all.clear();
        self.slots.clear();
        let full = |part: &Self| {
            part.all.len() >= GROUP_KEYS / parts || part.slots.len() >= GROUP_BYTES / parts
        };
        while !full(self)
            && let Some(shard) = self.shards.next()
        {
            index.take_changed(shard, self);
        }
        let first = self.first_key();
        let alike = self.all.iter().fold(first.len(), |alike, taken| {
            let key = self.key(taken);
            match key.starts_with(&first[..alike]) {
                true => alike,
                false => same(&first[..alike], key),
            }
        });
        self.alike = alike;
    }

    fn first_key(&self) -> &[u8] {
        self.all.first().map_or(&[], |first| self.key(first))
    }

    fn add(&mut self, entry: &Entry, hash: u64) {
        let key = entry.key.bytes();
        let mut add = |lsn, what, value: Option<&[u8]>| {
            self.all.push(Taken {
                hash,
                lsn,
                start: self.slots.len(),
                key_len: key.len() as u32,
                len: value.map_or(0, <[u8]>::len) as u32,
                what,
            });
            put_slot(&mut self.slots, key, lsn, value);
        };
        match &entry.reference {
            Reference::Inline(value) => add(entry.lsn, What::Small, Some(value)),
            Reference::Tombstone => add(entry.lsn, What::Deleted, None),
            _ => add(entry.lsn, What::Stored, None),
        }
        // What snapshots hold must not stay in memory either.
        for version in entry.older.iter().flat_map(|o| o.iter()) {
            if let Reference::Inline(value) = &version.reference {
                add(version.lsn, What::Older, Some(value));
            }
        }
    }

    /// Sorts the numbers of what is to be stored by their keys.
    pub fn sort(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        let words = self.all.iter().map(|t| word(&self.key(t)[self.common..]));
        order.extend(words.zip(0..));
        order.sort_unstable_by(|a, b| {
            let keys = || self.key_of(a.1).cmp(self.key_of(b.1));
            a.0.cmp(&b.0).then_with(keys)
        });
        self.order = order;
    }

    /// Where in its order the keys from this one on begin.
    fn first_from(&self, bound: (u64, &[u8])) -> usize {
        let before = |(word, n): &(u64, u32)| (*word, self.key_of(*n)) < bound;
        self.order.partition_point(before)
    }

    /// The numbers of what is of one shard each, as many as may be changed under one lock.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let number = |t: &Taken| Index::number(t.hash);
        let shards = self.all.chunk_by(move |a, b| number(a) == number(b));
        let sizes = shards.flat_map(|shard| shard.chunks(AT_ONCE).map(<[Taken]>::len));
        sizes.scan(0, |start, size| {
            *start += size;
            Some(*start - size..*start)
        })
    }
}

/// Versions that are stored together: a part for each thread.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub parts: Vec<Part>,
}

/// Which of each part's order is in a range of keys.
pub(crate) type Span = Vec<Range<usize>>;

impl Group {
    /// Everything that changed is to be taken, by so many parts. They keep their memory.
    pub fn begin(&mut self, index: &Index, parts: usize) {
        let (shards, parts) = (index.shards(), parts.max(1));
        self.parts.resize_with(parts, Part::default);
        for (n, part) in self.parts.iter_mut().enumerate() {
            part.shards = shards * n / parts..shards * (n + 1) / parts;
        }
    }

    /// Whether it holds no memory.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether there may be more to take.
    pub fn has_more(&self) -> bool {
        self.parts.iter().any(|part| !part.shards.is_empty())
    }

    /// Finds out what all keys begin with, before they are sorted.
    pub fn set_common(&mut self) {
        let some = self.parts.iter().filter(|part| !part.all.is_empty());
        let prefixes = some.map(|part| &part.first_key()[..part.alike]);
        let common = prefixes.reduce(|a, b| &a[..same(a, b)]);
        let common = common.map_or(0, <[u8]>::len);
        for part in &mut self.parts {
            part.common = common;
        }
    }

    /// Ranges of keys, about as long as each other, one for each part.
    pub fn spans(&self) -> Vec<Span> {
        let count = self.parts.len();
        let longest = self.parts.iter().max_by_key(|part| part.order.len());
        let bound = |n: usize| {
            let part = longest.filter(|_| n < count)?;
            let (word, n) = *part.order.get(part.order.len() * n / count)?;
            Some((word, part.key_of(n)))
        };
        let mut from = vec![0; count];
        let mut spans = Vec::with_capacity(count);
        for n in 1..=count {
            let bound = bound(n);
            let end = |part: &Part| bound.map_or(part.order.len(), |bound| part.first_from(bound));
            let to: Vec<usize> = self.parts.iter().map(end).collect();
            spans.push(from.iter().zip(&to).map(|(from, to)| *from..*to).collect());
            from = to;
        }
        spans
    }

    /// The next few of a span in the order of their keys: part and number of each. Memory has
    /// been asked for them.
    pub fn next_of(&self, span: &mut Span, into: &mut Vec<(u32, u32)>) {
        into.clear();
        while into.len() < AHEAD {
            let mut first: Option<(usize, (u64, u32))> = None;
            for (at, (range, part)) in span.iter().zip(&self.parts).enumerate() {
                let Some(head) = part.order[..range.end].get(range.start) else {
                    continue;
                };
                let is_less = |(other, least): (usize, (u64, u32))| {
                    let keys = || part.key_of(head.1).cmp(self.parts[other].key_of(least.1));
                    head.0.cmp(&least.0).then_with(keys).is_lt()
                };
                if first.is_none_or(is_less) {
                    first = Some((at, *head));
                }
            }
            let Some((at, (_, n))) = first else {
                break;
            };
            into.push((at as u32, n));
            span[at].start += 1;
        }
        self.ask(into.iter().copied());
    }

    /// Asks memory for what pages will hold of some: parts and numbers.
    pub fn ask(&self, some: impl Iterator<Item = (u32, u32)>) {
        let sum = some.fold(0, |sum, (part, n)| {
            let part = &self.parts[part as usize];
            let start = part.all[n as usize].start;
            let line = |n: usize| part.slots.get(start + 64 * n).copied().unwrap_or(0);
            sum ^ line(0) ^ line(1) ^ line(2)
        });
        std::hint::black_box(sum);
    }
}

/// How many bytes two keys begin with alike.
fn same(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
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

impl Shard {
    /// Asks memory for the entries of these hashes, and for values in memory: all at once, where
    /// whoever needs one after the other would wait for each.
    fn ask(&self, hashes: impl Iterator<Item = u64>) {
        let mut found: [Option<&Entry>; AHEAD] = [None; AHEAD];
        for (found, hash) in found.iter_mut().zip(hashes) {
            // Whatever has the hash's few bits: nearly always the one.
            *found = self.table.find(hash, |_| true);
        }
        let value = |entry: &Entry| match &entry.reference {
            Reference::Inline(value) => {
                let line = |n: usize| value.get(n * 64).copied().unwrap_or(0);
                line(0) ^ line(1) ^ line(2)
            }
            _ => 0,
        };
        let lsns = found.iter().flatten().fold(0, |sum, e| sum ^ e.lsn);
        let bytes = found.iter().flatten().fold(0, |sum, e| sum ^ value(e));
        std::hint::black_box((lsns, bytes));
    }
}

impl Index {
    /// Takes the changed keys of shard `n`, and what they hold in memory, and makes them clean.
    pub fn take_changed(&self, n: usize, part: &mut Part) {
        // Until its turn comes a key says that it changed, and is not listed again.
        let hashes = std::mem::take(&mut self.shards[n].write().dirty);
        for some in hashes.chunks(AT_ONCE) {
            let mut shard = self.shards[n].write();
            shard.ask(some.iter().copied());
            for &hash in some {
                if let Some(entry) = shard.table.find_mut(hash, self.changed(hash)) {
                    entry.dirty = false;
                    part.add(entry, hash);
                }
            }
        }
        self.dirty.add_shared(-(hashes.len() as i64));
    }

    /// Calls `change` for each of these numbers of a part, with the key's entry if it is there,
    /// under the shard's write lock.
    pub fn change(
        &self,
        part: &Part,
        numbers: Range<usize>,
        change: &mut dyn FnMut(Option<&mut Entry>, usize),
    ) {
        let Some(first) = part.all.get(numbers.start) else {
            return;
        };
        let ordered = self.is_ordered();
        let (mut before, mut after) = (0, 0);
        let mut shard = self.shards[Self::number(first.hash)].write();
        shard.ask(part.all[numbers.clone()].iter().map(|t| t.hash));
        for n in numbers {
            let taken = &part.all[n];
            let key = part.key(taken);
            let entry = shard.table.find_mut(taken.hash, |e| e.key.bytes() == key);
            let Some(entry) = entry else {
                change(None, n);
                continue;
            };
            before += entry.cost(ordered);
            change(Some(entry), n);
            after += entry.cost(ordered);
        }
        drop(shard);
        self.add_cost(before, after);
    }

    /// Whether an entry is that of a changed key of this hash.
    fn changed(&self, hash: u64) -> impl Fn(&Entry) -> bool {
        let hasher = self.hasher;
        move |entry| entry.dirty && hasher.hash(entry.key.bytes()) == hash
    }

    /// Takes keys off the lists that were stored by other means than theirs.
    pub fn unlist_stored(&self) {
        for shard in &self.shards {
            let hashes = std::mem::take(&mut shard.write().dirty);
            for some in hashes.chunks(AT_ONCE) {
                let mut shard = shard.write();
                shard.ask(some.iter().copied());
                let Shard { table, dirty, .. } = &mut *shard;
                let stays = |hash: &&u64| table.find(**hash, self.changed(**hash)).is_some();
                let listed = dirty.len();
                dirty.extend(some.iter().filter(stays));
                let gone = some.len() - (dirty.len() - listed);
                self.dirty.add_shared(-(gone as i64));
            }
        }
    }

    /// Says that the keys of this hash must be in the next checkpoint (again).
    pub fn mark_dirty(&self, hash: u64) {
        let mut shard = self.shards[Self::number(hash)].write();
        let Shard { table, dirty, .. } = &mut *shard;
        for entry in table.iter_hash_mut(hash) {
            if !entry.dirty && self.hasher.hash(entry.key.bytes()) == hash {
                entry.dirty = true;
                dirty.push(hash);
                self.dirty.add_shared(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(text: &str) -> Reference {
        Reference::inline(text.as_bytes())
    }

    fn taken(index: &Index, parts: usize) -> Group {
        let mut group = Group::default();
        group.begin(index, parts);
        for part in &mut group.parts {
            part.take(index, parts);
        }
        assert!(!group.has_more());
        group.set_common();
        group.parts.iter_mut().for_each(Part::sort);
        group
    }

    fn all(group: &Group) -> Vec<Taken> {
        group
            .parts
            .iter()
            .flat_map(|part| &part.all)
            .copied()
            .collect()
    }

    #[test]
    fn changed_keys_are_taken_once_with_what_they_hold_in_memory() {
        let keys = if cfg!(miri) { 60 } else { 1000 };
        for parts in [1, 3] {
            let index = Index::new(true);
            for n in 0..keys as u32 {
                index.apply(&n.to_le_bytes(), 1, inline("older"), |_| false);
                index.apply(&n.to_le_bytes(), 2, inline("kept"), |_| n == 7);
            }
            index.apply(&8u32.to_le_bytes(), 3, Reference::Tombstone, |_| false);
            let group = taken(&index, parts);
            assert_eq!((all(&group).len(), index.dirty()), (keys + 1, 0));
            let newest = all(&group).iter().filter(|t| t.is_newest()).count();
            let bytes: u32 = all(&group).iter().map(|t| t.len).sum();
            let size = (keys - 1) as u32 * 4 + 5;
            assert_eq!((newest, bytes), (keys, size));
            assert!(all(&taken(&index, parts)).is_empty());
            // Once more after a failure, and not twice.
            for t in all(&group).iter().chain(&all(&group)) {
                index.mark_dirty(t.hash);
            }
            assert_eq!(
                (index.dirty(), all(&taken(&index, parts)).len()),
                (keys as u64, keys + 1)
            );
        }
    }

    #[test]
    fn the_order_is_that_of_the_keys_whatever_they_share_and_whoever_has_them() {
        let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 0], b"x".to_vec()];
        for n in 0..if cfg!(miri) { 9 } else { 300u32 } {
            keys.push(format!("{:03}", n * 7 % 1000).into_bytes());
            keys.push(format!("long and the same for all {n:08}").into_bytes());
        }
        for prefix in [&b""[..], b"p", b"a prefix of more than a word"] {
            for parts in [1, 2, 5] {
                let index = Index::new(false);
                let keys: std::collections::BTreeSet<Vec<u8>> = keys
                    .iter()
                    .map(|key| [prefix, key].concat())
                    .filter(|key| !key.is_empty())
                    .collect();
                for key in &keys {
                    index.apply(key, 1, inline(""), |_| false);
                }
                let group = taken(&index, parts);
                let spans = group.spans();
                assert_eq!(spans.len(), parts);
                let (mut got, mut few) = (Vec::new(), Vec::new());
                for mut span in spans {
                    let before = got.len();
                    loop {
                        group.next_of(&mut span, &mut few);
                        if few.is_empty() {
                            break;
                        }
                        let key =
                            |(at, n): &(u32, u32)| group.parts[*at as usize].key_of(*n).to_vec();
                        got.extend(few.iter().map(key));
                    }
                    // Few keys need not be shared well.
                    assert!(cfg!(miri) || got.len() - before > keys.len() / parts / 2);
                }
                assert!(got.iter().eq(&keys));
            }
        }
    }

    #[test]
    fn pieces_have_one_shard_each_and_all_are_changed() {
        let index = Index::new(false);
        let keys = if cfg!(miri) { 500 } else { 20_000u32 };
        for n in 0..keys {
            index.apply(&n.to_le_bytes(), 1, inline("x"), |_| false);
        }
        let group = taken(&index, 2);
        let mut changed = 0;
        for part in &group.parts {
            for piece in part.pieces() {
                assert!(piece.len() <= AT_ONCE);
                let number = Index::number(part.all[piece.start].hash);
                let same = |t: &Taken| Index::number(t.hash) == number;
                assert!(part.all[piece.clone()].iter().all(same));
                index.change(part, piece, &mut |entry, n| {
                    let key = part.key(&part.all[n]);
                    assert_eq!(entry.map(|e| e.key.bytes().to_vec()), Some(key.to_vec()));
                    changed += 1;
                });
            }
        }
        assert_eq!(changed, keys);
    }
}
