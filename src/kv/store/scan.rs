//! Scans: keys in order with their values, as of one moment.
//!
//! A scan takes keys from the ordered index many at a time and looks them up in groups, so that
//! the processor waits for several places in memory at once. The pages that it met last stay at
//! hand: a checkpoint writes small values in the order of their keys, so neighbours lie in few.

use std::collections::VecDeque;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::Shared;
use super::index::GROUP;
use super::page;
use super::reference::{Reference, SlotRef};
use super::snapshot::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::SharedBlocks;

/// Keys that a scan takes at a time.
const BATCH: usize = 256;
/// Keys up to this length get room for all of them at once, bytes.
const KEY_USUAL: usize = 64;
/// Pages that a scan keeps at hand.
const PAGES: usize = 32;

/// Keys in order, with their values as of one moment. As an iterator it gives items of their own;
/// [`Scan::next_entry`] gives the same without copying.
#[derive(Debug)]
pub struct Scan {
    snapshot: Arc<Snapshot>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    left: u64,
    keys: Keys,
    ended: bool,
    ahead: VecDeque<Ahead>,
    pages: Pages,
    /// The last value that lies in no page.
    alone: Alone,
}

/// One key of a scan; its value is read when it is asked for.
#[derive(Debug, Clone)]
pub struct Item {
    snapshot: Arc<Snapshot>,
    /// The key.
    pub key: Vec<u8>,
    /// Length of the value, bytes.
    pub len: u64,
    place: Place,
}

/// A key of a scan with its verified value, which live until the scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Where an item's value was when the scan came by.
#[derive(Debug, Clone)]
enum Place {
    Memory(Bytes),
    /// In a page of a segment's generation; that page in the cache is the right one for ever.
    Page(SlotRef, u32),
    Elsewhere,
}

impl Item {
    /// The value, as the scan saw it.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn value(&self) -> Result<Vec<u8>> {
        match &self.place {
            Place::Memory(value) => return Ok(value.to_vec()),
            Place::Page(slot, generation) => {
                let shared = &self.snapshot.shared;
                if let Some(page) = shared.cache.get(&(slot.page, *generation))
                    && let Some(value) = page::value_of(&page, slot, &self.key)
                {
                    shared.counters.cache_hits.fetch_add(1, Relaxed);
                    return Ok(value.to_vec());
                }
            }
            Place::Elsewhere => {}
        }
        self.snapshot.get(&self.key)?.ok_or_else(gone)
    }

    /// Bytes of the value from `offset` on; how many there were.
    ///
    /// # Errors
    /// As `value`.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let read = self.snapshot.get_into(&self.key, offset, into)?;
        Ok(read.unwrap_or(0))
    }
}

fn gone() -> Error {
    let message = "a version that a scan holds is gone";
    Error::new(ErrorKind::Internal, message)
}

/// Keys one behind the other.
#[derive(Debug, Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    next: usize,
}

impl Keys {
    fn is_taken(&self) -> bool {
        self.next == self.ends.len()
    }

    /// Empty, with room for `most` keys like the first that comes.
    fn clear(&mut self, most: usize) {
        self.bytes.clear();
        self.ends.clear();
        self.ends.reserve(most);
        self.next = 0;
    }

    fn push(&mut self, key: &[u8]) {
        if self.ends.is_empty() {
            self.bytes
                .reserve(key.len().min(KEY_USUAL) * self.ends.capacity());
        }
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn range(&self, n: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(n)?;
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(start..end)
    }

    fn last(&self) -> Option<&[u8]> {
        let last = self.range(self.ends.len().checked_sub(1)?)?;
        Some(&self.bytes[last])
    }

    /// Where in `bytes` the next key lies.
    fn take(&mut self) -> Option<Range<usize>> {
        let range = self.range(self.next)?;
        self.next += 1;
        Some(range)
    }
}

/// The pages that were met last, each in the one place that its number gives it.
#[derive(Debug, Default)]
struct Pages {
    held: Vec<Option<(u64, u32, SharedBlocks)>>,
}

impl Pages {
    fn place(offset: u64) -> usize {
        // Pages are of some blocks each, and follow each other.
        ((offset >> 12) ^ (offset >> 14)) as usize % PAGES
    }

    /// Where the page is, if it is here.
    fn find(&self, offset: u64, generation: u32) -> Option<usize> {
        let n = Self::place(offset);
        let (at, of, _) = self.held.get(n)?.as_ref()?;
        (*at == offset && *of == generation).then_some(n)
    }

    fn keep(&mut self, offset: u64, generation: u32, page: SharedBlocks) -> usize {
        let n = Self::place(offset);
        if self.held.is_empty() {
            self.held.resize(PAGES, None);
        }
        self.held[n] = Some((offset, generation, page));
        n
    }

    /// The same, from the cache too.
    fn bring(&mut self, shared: &Shared, offset: u64, generation: u32) -> Option<usize> {
        self.find(offset, generation).or_else(|| {
            let page = shared.cache.get(&(offset, generation))?;
            shared.counters.cache_hits.fetch_add(1, Relaxed);
            Some(self.keep(offset, generation, page))
        })
    }

    fn get(&self, n: usize) -> &[u8] {
        let page = self.held.get(n).and_then(Option::as_ref);
        page.map_or(&[], |(_, _, page)| page)
    }
}

/// A value that lies in no page.
#[derive(Debug)]
enum Alone {
    Memory(Bytes),
    Read(Vec<u8>),
}

impl Alone {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(value) => value,
            Self::Read(value) => value,
        }
    }
}

/// A key that was looked up and has a value.
#[derive(Debug)]
struct Ahead {
    key: Range<usize>,
    len: u64,
    place: Place,
}

/// Where the value of an entry is.
enum Value {
    InPage(usize, Range<usize>),
    Alone,
}

fn owned(bound: Bound<&Vec<u8>>) -> Bound<Vec<u8>> {
    bound.cloned()
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl Scan {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        range: &impl RangeBounds<Vec<u8>>,
        limit: u64,
    ) -> Result<Self> {
        if !snapshot.shared.index.is_ordered() {
            let message = "scan a store: it was opened without ordered keys; set ordered";
            return Err(Error::new(ErrorKind::NotSupported, message));
        }
        Ok(Self {
            snapshot,
            from: owned(range.start_bound()),
            to: owned(range.end_bound()),
            left: limit,
            keys: Keys::default(),
            ended: false,
            ahead: VecDeque::with_capacity(GROUP),
            pages: Pages::default(),
            alone: Alone::Read(Vec::new()),
        })
    }

    /// Takes the next keys from the index; whether there were any.
    fn take_keys(&mut self) -> bool {
        if self.ended {
            return false;
        }
        // A few at least: deleted keys may be among them.
        let most = usize::try_from(self.left).unwrap_or(BATCH);
        let most = most.clamp(GROUP, BATCH);
        let (keys, index) = (&mut self.keys, &self.snapshot.shared.index);
        keys.clear(most);
        let (from, to) = (borrowed(&self.from), borrowed(&self.to));
        index.each_between(from, to, most, &mut |key| keys.push(key));
        self.ended = keys.ends.len() < most;
        if let Some(last) = keys.last() {
            self.from = Bound::Excluded(last.to_vec());
        }
        !keys.ends.is_empty()
    }

    /// Looks the next group of keys up; whether there were any.
    fn look_ahead(&mut self) -> bool {
        if self.keys.is_taken() && !self.take_keys() {
            return false;
        }
        let most = usize::try_from(self.left).unwrap_or(GROUP).min(GROUP);
        let mut ranges: [Range<usize>; GROUP] = Default::default();
        let mut count = 0;
        while count < most
            && let Some(range) = self.keys.take()
        {
            ranges[count] = range;
            count += 1;
        }
        let (shared, at) = (&self.snapshot.shared, self.snapshot.lsn());
        let (bytes, ahead) = (&self.keys.bytes, &mut self.ahead);
        let keys = ranges.each_ref().map(|range| &bytes[range.clone()]);
        shared.index.with_group(&keys[..count], &mut |n, entry| {
            let Some((_, reference)) = entry.at(at) else {
                return;
            };
            let place = match reference {
                Reference::Tombstone => return,
                Reference::Inline(value) => Place::Memory(value.clone()),
                Reference::Slot(slot) => Place::Page(*slot, shared.space.generation(slot.page)),
                _ => Place::Elsewhere,
            };
            ahead.push_back(Ahead {
                key: ranges[n].clone(),
                len: reference.len(),
                place,
            });
        });
        true
    }

    /// Asks for what lies in pages at hand, so that it is on its way when its turn comes.
    fn touch(&mut self) {
        let mut touched = 0;
        for ahead in &self.ahead {
            if let Place::Page(slot, generation) = &ahead.place
                && let Some(n) = self
                    .pages
                    .bring(&self.snapshot.shared, slot.page, *generation)
            {
                let page = self.pages.get(n);
                touched ^= page.get(slot.start as usize).copied().unwrap_or(0);
            }
        }
        std::hint::black_box(touched);
    }

    /// The next key that has a value.
    fn advance(&mut self, with_values: bool) -> Option<Ahead> {
        if self.left == 0 {
            return None;
        }
        while self.ahead.is_empty() {
            if !self.look_ahead() {
                return None;
            }
            if with_values {
                self.touch();
            }
        }
        self.left -= 1;
        self.ahead.pop_front()
    }

    /// The next key with its value, verified; the fastest way through many small values.
    ///
    /// # Errors
    /// As [`Snapshot::get`], for this value alone: the next call goes on behind it.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        let Some(next) = self.advance(true) else {
            return Ok(None);
        };
        let value = self.read(&next.key, next.place)?;
        Ok(Some(Entry {
            key: &self.keys.bytes[next.key],
            value: match value {
                Value::InPage(n, range) => &self.pages.get(n)[range],
                Value::Alone => self.alone.bytes(),
            },
        }))
    }

    /// Brings a value to where an entry can point to.
    fn read(&mut self, key: &Range<usize>, place: Place) -> Result<Value> {
        let (snapshot, key) = (&self.snapshot, &self.keys.bytes[key.clone()]);
        let shared = &snapshot.shared;
        let (mut slot, generation) = match place {
            Place::Page(slot, generation) => (slot, generation),
            Place::Memory(value) => {
                self.alone = Alone::Memory(value);
                return Ok(Value::Alone);
            }
            Place::Elsewhere => {
                self.alone = Alone::Read(snapshot.get(key)?.ok_or_else(gone)?);
                return Ok(Value::Alone);
            }
        };
        let n = match self.pages.bring(shared, slot.page, generation) {
            Some(n) => n,
            None => {
                // Looked up again: the page may only be read while it is held.
                let found = shared.index.with(key, |entry| {
                    let (_, reference) = entry?.at(snapshot.lsn())?;
                    Some(shared.hold(key, reference))
                });
                let found = found.ok_or_else(gone)?;
                let Reference::Slot(now) = found.reference else {
                    return Err(gone());
                };
                slot = now;
                let page = shared.page(&slot, found.generation)?;
                self.pages.keep(slot.page, found.generation, page)
            }
        };
        let value = page::place_of(self.pages.get(n), &slot, key);
        let value = value.ok_or_else(|| shared.damaged(key, slot.page))?;
        Ok(Value::InPage(n, value))
    }
}

impl Iterator for Scan {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let next = self.advance(false)?;
        Some(Item {
            snapshot: Arc::clone(&self.snapshot),
            key: self.keys.bytes[next.key].to_vec(),
            len: next.len,
            place: next.place,
        })
    }
}
