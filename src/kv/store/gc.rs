//! Cleaning: what is alive in segments that are mostly dead moves out, the checkpoint that stores
//! its new places follows, and the segments are free.
//!
//! That checkpoint stores the new places only, and leaves small values in memory and the log's
//! ring as they are: so it needs little room, which nobody else may take. Moves are not logged:
//! until that checkpoint the old places stay untouched, so a crash before
//! it loses nothing, and after it nothing refers to them. Checksums travel with the reference, so
//! a copy that went wrong is found by whoever reads it. Small values are packed into new pages;
//! `moving` copies all others.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::changed::Group;
use super::checkpoint::MetaLog;
use super::entry::Entry;
use super::fill::Fill;
use super::key::Key;
use super::moving::{Alive, Mover};
use super::page;
use super::pages::PageWriter;
use super::read::runs_of;
use super::reference::{Extent, Manifest, Reference, Run};
use super::space::{Candidate, Level, Space, Stream};
use super::value::{store_manifest, stored};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::BLOCK;
use crate::kv::wal::Lsn;

/// Rounds of one cleaning, so that it ends.
const ROUNDS: usize = 64;
/// Keys and bytes that are moved before a look whether writers need a checkpoint.
const PART_KEYS: usize = 32 << 10;
const PART_BYTES: u64 = 64 << 20;
/// Segments that one round fills in a file that grows, at least and at most.
const GROW_MIN: u64 = 2;
const GROW_MAX: u64 = 8;

impl Alive {
    /// Whether a part of it lies in one of these segments.
    fn is_in(&self, space: &Space, segments: &HashSet<u32>) -> bool {
        let mut inside = false;
        self.reference
            .pieces(self.key.bytes().len(), &mut |offset, _| {
                inside |= space
                    .segment_of(offset)
                    .is_some_and(|n| segments.contains(&n));
            });
        inside
    }
}

pub(super) fn is_no_space(error: &Error) -> bool {
    error.kind() == ErrorKind::NoSpace
}

impl Shared {
    /// Whether writers may soon find no room.
    pub fn is_low(&self) -> bool {
        if self.space.may_grow() {
            // A file that grows is cleaned when more than half of it is dead.
            let (free, all) = self.space.free_and_all();
            let used = (all - free) * self.space.segment_bytes();
            return all - free > 8 && free == 0 && used / 2 > self.space.live();
        }
        self.space.free_now() <= self.reserve(self.memtable_bytes()) + 1
    }

    /// Moves and checkpoints until space is no longer low, or with `all` until nothing is worth
    /// moving. Answers the segments that became free.
    pub fn collect(
        self: &Arc<Self>,
        meta: &mut MetaLog,
        group: &mut Group,
        all: bool,
    ) -> Result<u64> {
        let (mut freed, mut in_vain) = (0, 0);
        for _ in 0..ROUNDS {
            if !all && !self.is_low() {
                break;
            }
            let alive = self.to_move(&self.victims(meta, all));
            let Some((victims, alive)) = alive else {
                break;
            };
            let before = self.space.free_and_all().0;
            self.move_parts(meta, group, &victims, alive)?;
            self.counters.gc_rounds.fetch_add(1, Relaxed);
            let gained = self.space.free_and_all().0.saturating_sub(before);
            freed += gained;
            in_vain += u32::from(gained == 0);
            // Few segments are filled at first in a file that grows, and the index may have taken
            // what they won.
            if in_vain > u32::from(self.space.may_grow()) {
                break;
            }
        }
        Ok(freed)
    }

    /// Moves all that is `alive` and stores its new places; where writers need a checkpoint and
    /// there is room for it beside what is still to move, they do not wait for the end.
    fn move_parts(
        self: &Arc<Self>,
        meta: &mut MetaLog,
        group: &mut Group,
        victims: &HashSet<u32>,
        mut alive: Vec<Alive>,
    ) -> Result<()> {
        let mut moved = Vec::new();
        loop {
            let mut bytes = 0;
            let part = alive.iter().take(PART_KEYS).take_while(|item| {
                let fits = bytes < PART_BYTES;
                bytes += item.reference.len();
                fits
            });
            let rest = alive.split_off(part.count());
            let outcome = self.move_out(meta, victims, alive, &mut moved);
            alive = rest;
            // What was moved is stored even when there was no room for all: there is room for
            // that, which nobody else takes, and then the old places are free.
            let is_full = outcome.as_ref().is_err_and(is_no_space);
            if !is_full {
                outcome?;
            }
            let is_last = is_full || alive.is_empty();
            let is_due = !is_last && self.is_checkpoint_due() && self.may_pause(&alive);
            if is_last || is_due {
                self.checkpoint_moved(meta, &std::mem::take(&mut moved))?;
            }
            if is_last {
                return Ok(());
            }
            if is_due {
                match self.checkpoint_with(meta, group) {
                    Err(error) if is_no_space(&error) => {}
                    other => other?,
                }
                self.signal.end_round();
                // What was replaced since may be written over now.
                alive.retain(|item| self.is_still_there(item));
            }
        }
    }

    /// Whether writers soon wait for a checkpoint.
    fn is_checkpoint_due(&self) -> bool {
        let log = self.wal.stats();
        self.memtable_bytes() > self.config.memtable_bytes || log.used_bytes > log.ring_bytes / 2
    }

    /// Whether there is room for a checkpoint beside what is still to move.
    fn may_pause(&self, rest: &[Alive]) -> bool {
        let bytes: u64 = rest.iter().map(|item| item.reference.len()).sum();
        // Alignment, and pages that are not full.
        let segments = (bytes * 5 / 4).div_ceil(self.space.segment_bytes()) + 2;
        let reserve = self.reserve(self.memtable_bytes());
        self.space.may_grow() || self.space.free_now() > segments + reserve
    }

    fn is_still_there(&self, item: &Alive) -> bool {
        self.index.with(item.key.bytes(), |entry| {
            let now = entry.and_then(|entry| entry.version(item.lsn));
            now.is_some_and(|reference| reference.same_place(&item.reference))
        })
    }

    /// Segments whose live bytes may fit into what can be written now, best first by
    /// (1 - u) * age / (1 + u).
    fn victims(&self, meta: &MetaLog, all: bool) -> Vec<u32> {
        let size = self.space.segment_bytes();
        let score = |c: &Candidate| {
            let u = c.live as f64 / size as f64;
            let age = meta.number.saturating_sub(c.closed_at) + 1;
            (1.0 - u) * age as f64 / (1.0 + u)
        };
        let worth = if all {
            size - size / 10
        } else {
            size - size / 20
        };
        let mut candidates = self.space.candidates();
        candidates.retain(|c| c.live < worth && !meta.bad.contains(&c.segment));
        candidates.sort_by(|a, b| score(b).total_cmp(&score(a)));
        let (free, _) = self.space.free_and_all();
        if !self.space.may_grow() {
            return self.fitting(&candidates, free.saturating_sub(1).max(1));
        }
        // Into what is free, and into new room where that would win nothing: a file that grows
        // gets new blocks as it is written, which takes longer than writing over old ones.
        let few = free.clamp(GROW_MIN, GROW_MAX);
        let chosen = self.fitting(&candidates, few);
        if chosen.is_empty() && few < GROW_MAX {
            return self.fitting(&candidates, GROW_MAX);
        }
        chosen
    }

    /// The first of these segments whose live bytes fit into `room` segments; none where that
    /// would fill as many as it frees.
    fn fitting(&self, candidates: &[Candidate], room: u64) -> Vec<u32> {
        // What alignment and whole pages waste in the new segments, and one for the index.
        let size = self.space.segment_bytes();
        let capacity = size - size / 8;
        let budget = room.saturating_mul(capacity);
        let mut live = 0;
        let mut chosen = Vec::new();
        for c in candidates {
            if live + c.live <= budget {
                live += c.live;
                chosen.push(c.segment);
            }
        }
        // As many segments as are freed would be filled: nothing is won.
        if chosen.len() as u64 <= live.div_ceil(capacity) {
            chosen.clear();
        }
        chosen
    }

    /// What is alive in the best of these segments, in the order of keys: of as many as will be
    /// free after it was moved with fewer filled. `None` when nothing would be won.
    fn to_move(&self, best: &[u32]) -> Option<(HashSet<u32>, Vec<Alive>)> {
        let mut alive = self.alive(&best.iter().copied().collect());
        let mut count = best.len();
        while count > 0 {
            let victims: HashSet<u32> = best[..count].iter().copied().collect();
            if self.may_move(&victims, &alive) {
                alive.retain(|item| item.is_in(&self.space, &victims));
                return Some((victims, alive));
            }
            count -= 1 + count / 8;
        }
        None
    }

    /// Whether moving fills fewer segments than it frees, and leaves one for the index.
    fn may_move(&self, victims: &HashSet<u32>, alive: &[Alive]) -> bool {
        if self.space.may_grow() {
            return true;
        }
        let mut fill = Fill::new(&self.space);
        for item in alive {
            match &item.reference {
                Reference::Slot(slot) => {
                    if item.is_in(&self.space, victims) {
                        fill.slot(item.key.bytes().len(), slot.len as usize);
                    }
                }
                reference => reference.pieces(item.key.bytes().len(), &mut |offset, bytes| {
                    if self
                        .space
                        .segment_of(offset)
                        .is_some_and(|n| victims.contains(&n))
                    {
                        fill.run(bytes, item.key.bytes().len());
                    }
                }),
            }
        }
        let needed = fill.finish();
        needed < victims.len() as u64 && needed < self.space.free_and_all().0
    }

    /// What is alive in `victims`, in the order of keys.
    fn alive(&self, victims: &HashSet<u32>) -> Vec<Alive> {
        let mut alive = Vec::new();
        let mut look = |key: &Key, lsn: Lsn, reference: &Reference| {
            let item = Alive {
                key: key.clone(),
                lsn,
                reference: reference.clone(),
            };
            if item.is_in(&self.space, victims) {
                alive.push(item);
            }
        };
        self.index.for_each(&mut |entry: &Entry| {
            look(&entry.key, entry.lsn, &entry.reference);
            for version in entry.older.iter().flat_map(|o| o.iter()) {
                look(&entry.key, version.lsn, &version.reference);
            }
        });
        alive.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        alive
    }

    /// Moves all that is `alive` out of `victims`; keys that may have a new place, after an error
    /// too.
    fn move_out(
        self: &Arc<Self>,
        meta: &mut MetaLog,
        victims: &HashSet<u32>,
        alive: Vec<Alive>,
        keys: &mut Vec<Key>,
    ) -> Result<()> {
        let next = meta.number + 1;
        let mut pages = PageWriter::new(self, next);
        let mut mover = Mover::new(self, next);
        let queued = alive.into_iter().try_for_each(|item| {
            keys.push(item.key.clone());
            match item.reference.clone() {
                Reference::Slot(slot) => {
                    let page = match self.page(&slot, self.space.generation(slot.page)) {
                        Ok(page) => page,
                        Err(error) => return self.stays(meta, &item, error),
                    };
                    let Some(value) = page::value_of(&page, &slot, item.key.bytes()) else {
                        let error = Error::new(ErrorKind::Corrupted, "a slot is damaged");
                        return self.stays(meta, &item, error);
                    };
                    let bytes = value.len() as u64;
                    self.counters.gc_bytes.fetch_add(bytes, Relaxed);
                    pages.push(item.key.bytes(), item.lsn, value, item.reference)
                }
                Reference::Block { .. } | Reference::Extent(_) => {
                    self.queue_extent(&mut mover, item)
                }
                Reference::Manifest(list) => {
                    self.queue_manifest(&mut mover, item, Manifest::clone(&list), victims)
                }
                _ => Ok(()),
            }
        });
        // What is queued is moved after an error too.
        mover.finish();
        let stay = std::mem::take(&mut mover.failed).into_iter();
        let all = stay.fold(queued, |all, (item, error)| {
            all.and(self.stays(meta, &item, error))
        });
        all.and_then(|()| pages.finish())
    }

    /// What cannot be read stays where it is; its segment is not tried again.
    fn stays(&self, meta: &mut MetaLog, item: &Alive, error: Error) -> Result<()> {
        if !matches!(error.kind(), ErrorKind::Corrupted | ErrorKind::Io) {
            return Err(error);
        }
        item.reference
            .pieces(item.key.bytes().len(), &mut |offset, _| {
                meta.bad.extend(self.space.segment_of(offset));
            });
        self.remember(error);
        Ok(())
    }

    /// Room for a run that moves: in one piece, or for a part of it where it may be `split`.
    fn room_for(&self, bytes: u64, key_len: usize, split: bool) -> Result<Run> {
        let least = if split { BLOCK as u64 } else { bytes };
        let summary = 64 + key_len as u64 + bytes / 1024;
        self.allocate(Stream::Moved, bytes, least, summary, Level::Cleaning)
    }

    fn queue_extent(self: &Arc<Self>, mover: &mut Mover<'_>, item: Alive) -> Result<()> {
        let Some(run) = runs_of(&item.reference).first().copied() else {
            return Err(Error::new(
                ErrorKind::Internal,
                "an extent without a run was to move",
            ));
        };
        let room = self.room_for(run.bytes, item.key.bytes().len(), false)?;
        let reference = match &item.reference {
            Reference::Block { len, crc, .. } => Reference::Block {
                offset: room.offset,
                len: *len,
                crc: *crc,
            },
            Reference::Extent(extent) => Reference::Extent(Arc::new(Extent {
                offset: room.offset,
                ..Extent::clone(extent)
            })),
            other => other.clone(),
        };
        let to = stored(self, reference, vec![room]);
        mover.begin(item);
        match mover.copy(run, room.offset) {
            Ok(()) => mover.end(to),
            Err(error) => {
                mover.give_up(to, error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Queues the runs that lie in victims, and writes the list of runs.
    fn queue_manifest(
        self: &Arc<Self>,
        mover: &mut Mover<'_>,
        item: Alive,
        mut list: Manifest,
        victims: &HashSet<u32>,
    ) -> Result<()> {
        let (key_len, from) = (item.key.bytes().len(), item.reference.clone());
        mover.begin(item);
        let mut rooms = Vec::new();
        let queued = self.queue_runs(mover, key_len, &mut list, victims, &mut rooms);
        // Written now, so that it lies beside its runs: nobody knows it until they are all there.
        let to = queued.and_then(|()| store_manifest(self, key_len, list, Vec::new()));
        match to {
            Ok(mut to) => {
                to.hold(rooms);
                mover.end(to);
                Ok(())
            }
            Err(error) => {
                mover.give_up(stored(self, from, rooms), error.clone());
                match error.kind() {
                    // Told when it is known that nothing is written to its room any more.
                    ErrorKind::Corrupted | ErrorKind::Io => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    fn queue_runs(
        &self,
        mover: &mut Mover<'_>,
        key_len: usize,
        list: &mut Manifest,
        victims: &HashSet<u32>,
        rooms: &mut Vec<Run>,
    ) -> Result<()> {
        for runs in [&mut list.runs, &mut list.crc_runs] {
            for mut run in std::mem::take(runs) {
                let inside = self.space.segment_of(run.offset);
                if !inside.is_some_and(|n| victims.contains(&n)) {
                    runs.push(run);
                    continue;
                }
                while run.bytes > 0 {
                    let room = self.room_for(run.bytes, key_len, true)?;
                    rooms.push(room);
                    runs.push(room);
                    mover.copy(
                        Run {
                            bytes: room.bytes,
                            ..run
                        },
                        room.offset,
                    )?;
                    if let Some(error) = mover.failure() {
                        return Err(error);
                    }
                    run.offset += room.bytes;
                    run.bytes -= room.bytes;
                }
            }
        }
        Ok(())
    }

    /// Moves all that is worth it and gives free segments back to the file system.
    pub fn compact(self: &Arc<Self>) -> Result<u64> {
        let mut meta = self.meta.lock();
        let before = self.space.free_and_all().0;
        let mut group = Group::default();
        self.checkpoint_with(&mut meta, &mut group)?;
        self.space.close_all();
        self.collect(&mut meta, &mut group, true)?;
        // Deletes of the last round may be the only thing that kept a segment.
        self.space.set_durable(self.wal.durable_lsn());
        self.space.reclaim();
        self.space.discard_free()?;
        Ok(self.space.free_and_all().0.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::super::handle::Store;
    use super::*;
    use crate::kv::sim::SimDisk;
    use crate::kv::store::KvConfig;

    #[test]
    fn writers_get_a_checkpoint_while_segments_are_cleaned() {
        let disk = Arc::new(SimDisk::new(0));
        disk.record(false);
        let config = KvConfig {
            memtable_bytes: 6 << 20,
            segment_bytes: 1 << 20,
            ..KvConfig::default()
        };
        let store = Store::create_on(disk, config).expect("a store");
        let key = |n: usize| format!("{n:08}").into_bytes();
        let keys = 4 * PART_KEYS;
        for n in 0..keys {
            store.put_async(&key(n), b"small").expect("a put");
        }
        store.checkpoint().expect("a checkpoint");
        let shared = store.shared();
        shared.space.close_all();
        // The background thread waits for this lock: nobody else cleans or makes a checkpoint.
        let mut meta = shared.meta.lock();
        let is_deleted = |n: usize| n < keys && n.is_multiple_of(2);
        for n in (0..keys).filter(|n| is_deleted(*n)) {
            store.delete_async(&key(n)).expect("a delete");
        }
        let mut more = keys;
        while !shared.is_checkpoint_due() {
            store.put_async(&key(more), b"later").expect("a put");
            more += 1;
        }
        let cleaned = shared.collect(&mut meta, &mut Group::default(), true);
        cleaned.expect("cleaning");
        assert!(shared.counters.gc_bytes.load(Relaxed) > 0);
        assert!(!shared.is_checkpoint_due(), "cleaning stored what was due");
        drop(meta);
        for n in 0..more {
            let value: &[u8] = if n < keys { b"small" } else { b"later" };
            let found = store.get(&key(n)).expect("a get");
            let wanted = (!is_deleted(n)).then_some(value);
            assert_eq!(found.as_deref(), wanted, "key {n}");
        }
    }
}
