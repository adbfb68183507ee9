//! The regions that are in device memory, and what is known of each.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::RegionStats;
use super::dirty::Ranges;
use crate::base::{align_down, align_up, limits};
use crate::engine::{Buffer, File};
use crate::error::{Error, ErrorKind, Result};

#[derive(Default)]
pub(super) struct Index {
    pub(super) entries: Vec<Arc<Entry>>,
    /// What became of each entry, by its number.
    pub(super) states: HashMap<u64, State>,
    /// Failed writes that the next call for the file tells.
    pub(super) failures: HashMap<u64, Error>,
    pub(super) next: u64,
    pub(super) clock: u64,
    pub(super) stats: RegionStats,
}

/// What never changes of a region, its memory, and the lock that its writes take.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) identity: u64,
    /// The range of the file that was asked for.
    pub(super) range: Range<u64>,
    /// The range of the file that the memory holds: `range`, aligned.
    pub(super) aligned: Range<u64>,
    pub(super) writing: Mutex<()>,
}

pub(super) struct State {
    /// A file that can write, if one has come by.
    pub(super) file: File,
    /// None while it is being loaded.
    pub(super) buffer: Option<Buffer>,
    pub(super) valid: u64,
    pub(super) holds: u64,
    pub(super) used: u64,
    pub(super) dirty: Ranges,
    /// What was dirty and is on its way to the file.
    pub(super) being_written: Ranges,
    /// Made old by a mark in a region that overlaps it: not found again.
    pub(super) is_old: bool,
}

/// What `map` was asked for.
pub(super) struct Wanted<'a> {
    pub(super) file: &'a File,
    pub(super) identity: u64,
    pub(super) range: Range<u64>,
    pub(super) aligned: Range<u64>,
}

pub(super) enum Found {
    /// In memory, held now, and perhaps still being loaded.
    Resident(Arc<Entry>),
    /// Room for it is reserved, and it is held: it has to be loaded.
    Reserved(Arc<Entry>),
    /// Something had to be written first. Look again.
    Again,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(file: &'a File, range: Range<u64>, alignment: u64) -> Result<Self> {
        let start = align_down(range.start, alignment);
        let end = align_up(range.end, alignment)
            .ok_or_else(|| past_the_end(range.start, range.end - range.start))?;
        Ok(Self {
            file,
            identity: file.identity(),
            range,
            aligned: start..end,
        })
    }
}

impl Entry {
    pub(super) fn memory_size(&self) -> u64 {
        self.aligned.end - self.aligned.start
    }

    pub(super) fn overlaps(&self, identity: u64, range: &Range<u64>) -> bool {
        self.identity == identity && self.range.start < range.end && range.start < self.range.end
    }

    pub(super) fn contains(&self, identity: u64, range: &Range<u64>) -> bool {
        let (start, end) = (self.range.start, self.range.end);
        self.identity == identity && start <= range.start && range.end <= end
    }
}

impl Index {
    pub(super) fn state(&mut self, entry: &Entry) -> Option<&mut State> {
        self.states.get_mut(&entry.number)
    }

    /// The smallest region that contains the range and may be found.
    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
        let fits = |e: &&Arc<Entry>| {
            e.contains(wanted.identity, &wanted.range)
                && self.states.get(&e.number).is_some_and(|s| !s.is_old)
        };
        let found = self.entries.iter().filter(fits);
        found.min_by_key(|e| e.range.end - e.range.start).cloned()
    }

    pub(super) fn remove(&mut self, entry: &Entry) -> Option<State> {
        self.entries.retain(|e| e.number != entry.number);
        self.states.remove(&entry.number)
    }

    pub(super) fn total(&self) -> u64 {
        self.entries.iter().map(|e| e.memory_size()).sum()
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Unheld regions, the least recently used first.
    pub(super) fn victim(&self, spared: &[u64]) -> Option<Arc<Entry>> {
        let state = |e: &Arc<Entry>| self.states.get(&e.number);
        self.entries
            .iter()
            .filter(|e| !spared.contains(&e.number) && state(e).is_some_and(|s| s.holds == 0))
            .min_by_key(|e| state(e).map(|s| (!s.is_old, s.used)))
            .cloned()
    }
}

/// Whether a region that nobody holds was loaded when the file had another end.
pub(super) fn is_outdated(index: &mut Index, entry: &Entry, size_now: u64) -> bool {
    let size = entry.range.end - entry.range.start;
    let valid_now = size_now.saturating_sub(entry.range.start).min(size);
    index.state(entry).is_some_and(|s| {
        s.holds == 0 && s.dirty.is_empty() && s.buffer.is_some() && s.valid != valid_now
    })
}

/// A region of which bytes of the range are dirty.
pub(super) fn dirty_overlap(index: &Index, wanted: &Wanted<'_>) -> Option<Arc<Entry>> {
    let is_dirty = |e: &&Arc<Entry>| {
        e.overlaps(wanted.identity, &wanted.range)
            && index.states.get(&e.number).is_some_and(|s| {
                s.dirty.touches(&wanted.range) || s.being_written.touches(&wanted.range)
            })
    };
    index.entries.iter().find(is_dirty).cloned()
}

pub(super) fn reserve(index: &mut Index, wanted: &Wanted<'_>) -> Arc<Entry> {
    let used = index.tick();
    index.next += 1;
    let entry = Arc::new(Entry {
        number: index.next,
        identity: wanted.identity,
        range: wanted.range.clone(),
        aligned: wanted.aligned.clone(),
        writing: Mutex::new(()),
    });
    index.entries.push(entry.clone());
    let state = State {
        file: wanted.file.clone(),
        buffer: None,
        valid: 0,
        holds: 1,
        used,
        dirty: Ranges::default(),
        being_written: Ranges::default(),
        is_old: false,
    };
    index.states.insert(entry.number, state);
    entry
}

/// The range of a file that was asked for.
pub(super) fn check_range(offset: u64, size: u64) -> Result<Range<u64>> {
    if size == 0 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "a region of 0 bytes was asked for; it must have 1 byte at least",
        ));
    }
    match offset.checked_add(size) {
        Some(end) if end <= limits::TRANSFER_SIZE_MAX => Ok(offset..end),
        _ => Err(past_the_end(offset, size)),
    }
}

fn past_the_end(offset: u64, size: u64) -> Error {
    let text = format!(
        "a region of {size} bytes at {offset} passes {}, the largest file offset",
        limits::TRANSFER_SIZE_MAX
    );
    Error::new(ErrorKind::OutOfRange, text).with_offset(offset)
}
