//! Checkpoints: what memory and the log hold goes into pages and the meta log, the superblock
//! names it, and the log's ring is free again.
//!
//! Order, with C = all that was appended when it began:
//! 1. a boundary in the log after C; the keys that changed up to there are taken;
//! 2. small values go into pages, the index swaps to them where nothing newer came;
//! 3. every taken key's entry goes into the meta log (1 to 3 for one group of keys after the
//!    other); the oldest meta segments are cleaned: entries that are still the index's are stored
//!    again, tombstones end here, for nothing older is left;
//! 4. wait until all that was appended by now is durable: an entry may be newer than C, and must
//!    not be known to the meta log if its commit could be lost; then the summaries of segments get
//!    the entries of their values;
//! 5. flush; 6. superblock; 7. the ring before C, and meta segments that left the list, are free.
//!
//! An error before 5 takes everything back (the keys are changed again); from 5 on it poisons.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::chains::{Chains, Notes};
use super::changed::{Group, Part};
use super::key::Key;
use super::meta::{MetaBlock, MetaBody, MetaBuilder};
use super::packed::{Entries, Packed, change};
use super::reference::Reference;
use super::share::{beside, each};
use super::space::Level;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::{Blocks, Disk};
use crate::kv::superblock::{COMPAT_SUMMARIES, MetaSegment};
use crate::kv::sync::Mutex;
use crate::kv::wal::{Lsn, WalStart};

/// Blocks of the meta log that are written together.
const TOGETHER: usize = 16;

/// A segment of the meta log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetaPart {
    pub segment: u32,
    /// Number of its first block.
    pub first: u64,
    pub valid: u64,
    pub entries: u64,
    /// Bytes of the entries, without headers and padding.
    pub payload: u64,
}

/// The meta log as the last complete checkpoint left it. Its lock is held by whoever makes a
/// checkpoint or moves values.
#[derive(Debug, Default)]
pub(crate) struct MetaLog {
    pub parts: VecDeque<MetaPart>,
    pub next_seq: u64,
    /// Complete checkpoints of this run.
    pub number: u64,
    /// Segments that could not be read when they were to be cleaned.
    pub bad: Vec<u32>,
    /// The newest delete that a checkpoint stored (0: none ever); `None` where that is not known.
    pub newest_delete: Option<Lsn>,
    pub chains: Chains,
}

impl MetaLog {
    pub fn list(parts: &VecDeque<MetaPart>) -> Vec<MetaSegment> {
        let list = parts.iter().map(|p| MetaSegment {
            segment: u64::from(p.segment),
            valid_bytes: p.valid,
        });
        list.collect()
    }
}

/// A block that waits to be written.
struct Sealed {
    number: u64,
    bytes: Vec<u8>,
    entries: u64,
    payload: u64,
}

/// A meta log in the making.
struct Draft<'a> {
    shared: &'a Shared,
    parts: VecDeque<MetaPart>,
    next_seq: u64,
    builder: MetaBuilder,
    sealed: Vec<Sealed>,
    taken: Vec<u32>,
    dropped: Vec<u32>,
    /// Hashes of the keys whose entries were stored, to be stored again after a failure.
    hashes: Vec<u64>,
    tombstones: Vec<(Key, Lsn)>,
    newest_delete: Option<Lsn>,
    notes: Notes<'a>,
    level: Level,
}

impl<'a> Draft<'a> {
    fn new(shared: &'a Shared, meta: &MetaLog, level: Level) -> Self {
        Self {
            shared,
            parts: meta.parts.clone(),
            next_seq: meta.next_seq,
            builder: MetaBuilder::new(shared.id, shared.space.segment_bytes()),
            sealed: Vec::new(),
            taken: Vec::new(),
            dropped: Vec::new(),
            hashes: Vec::new(),
            tombstones: Vec::new(),
            newest_delete: meta.newest_delete,
            notes: Notes::new(&shared.space),
            level,
        }
    }

    fn push(&mut self, key: &[u8], lsn: Lsn, reference: &Reference) -> Result<()> {
        if self.builder.push(key, lsn, reference)? {
            self.seal();
            if self.sealed.len() >= TOGETHER {
                return self.write_sealed();
            }
        }
        Ok(())
    }

    fn seal(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let body = self.builder.take();
        self.seal_body(body);
    }

    fn seal_body(&mut self, body: MetaBody) {
        self.sealed.push(Sealed {
            number: self.next_seq,
            payload: body.payload() as u64,
            entries: u64::from(body.entries()),
            bytes: body.finish(self.next_seq),
        });
        self.next_seq += 1;
    }

    /// Writes the blocks that wait, neighbours together.
    fn write_sealed(&mut self) -> Result<()> {
        let shared = self.shared;
        let (mut start, mut together) = (0, Vec::new());
        let write = |start: u64, together: &mut Vec<u8>| {
            if !together.is_empty() {
                shared.disk.write(start, &Blocks::copy_of(together)?)?;
                together.clear();
            }
            Ok::<_, Error>(())
        };
        for block in std::mem::take(&mut self.sealed) {
            let (size, most) = (block.bytes.len() as u64, shared.space.segment_bytes());
            if self.parts.back().is_none_or(|p| p.valid + size > most) {
                write(start, &mut together)?;
                let segment = shared.space.take_meta(self.level);
                let segment = segment.ok_or_else(|| shared.no_space("room for the index"))?;
                self.taken.push(segment);
                self.parts.push_back(MetaPart {
                    segment,
                    first: 0,
                    valid: 0,
                    entries: 0,
                    payload: 0,
                });
            }
            if let Some(part) = self.parts.back_mut() {
                if together.is_empty() {
                    start = shared.space.segment_start(part.segment) + part.valid;
                }
                together.extend_from_slice(&block.bytes);
                if part.valid == 0 {
                    part.first = block.number;
                }
                part.valid += size;
                part.entries += block.entries;
                part.payload += block.payload;
            }
        }
        write(start, &mut together)
    }

    fn end_block(&mut self) -> Result<()> {
        self.seal();
        self.write_sealed()
    }

    /// Takes a group of keys: small values into pages, entries of all, and the index to the pages.
    fn group(&mut self, group: &mut Group) -> Result<()> {
        let (shared, parts) = (self.shared, group.parts.len());
        let all = group.parts.iter_mut().collect();
        each(all, |part: &mut Part| part.take(&shared.index, parts));
        group.set_common();
        each(group.parts.iter_mut().collect(), Part::sort);
        for part in &group.parts {
            let newest = part.all.iter().filter(|t| t.is_newest());
            self.hashes.extend(newest.map(|t| t.hash));
        }
        // Tombstones lie in pages for repair only: not where room is short.
        let roomy =
            shared.space.may_grow() || shared.space.free_now() > super::config::RESERVE_SEGMENTS;
        let group = &*group;
        let notes = Mutex::new(&mut self.notes);
        let pack = |span| Packed::of(shared, group, span, roomy, &notes);
        let mut packed = each(group.spans(), pack);
        // What was written leaves memory even where there was no room for all.
        packed.iter().for_each(Packed::born);
        let (mut base, mut entries) = (self.next_seq, Vec::new());
        let bases: Vec<u64> = packed
            .iter_mut()
            .map(|packed| {
                let (first, taken) = (base, packed.take());
                base += taken.0.len() as u64;
                entries.push(taken);
                first
            })
            .collect();
        let all: Vec<_> = group.parts.iter().enumerate().collect();
        let swap = || {
            each(all, |(n, part)| change(shared, n, part, &packed, &bases));
        };
        beside(parts, swap, || self.write_entries(entries))
    }

    /// Writes the entries that threads collected. Where something newer came the log after C has
    /// it, and the next checkpoint.
    fn write_entries(&mut self, all: Vec<Entries>) -> Result<()> {
        for (blocks, deletes, whole) in all {
            whole?;
            for (key, lsn) in deletes {
                self.deleted(key, lsn);
            }
            for block in blocks {
                self.seal_body(block);
                if self.sealed.len() >= TOGETHER {
                    self.write_sealed()?;
                }
            }
        }
        Ok(())
    }

    /// The entry of a key as it is now.
    fn entry(&mut self, key: &[u8]) -> Result<()> {
        let seq = self.next_seq as u32;
        let entry = self.shared.index.update(key, |entry| {
            // In memory again: it changed meanwhile, and the next checkpoint has it.
            if matches!(entry.reference, Reference::Inline(_)) {
                return None;
            }
            entry.seq = seq;
            // The next checkpoint forgets keys, and stores what snapshots hold.
            entry.dirty &= entry.reference.is_tombstone() || entry.older.is_some();
            self.notes.add(key, entry.lsn, &entry.reference);
            Some((entry.lsn, entry.reference.clone()))
        });
        if let Some((lsn, reference)) = entry.flatten() {
            self.push(key, lsn, &reference)?;
            if reference.is_tombstone() {
                self.deleted(Key::new(key), lsn);
            }
        }
        Ok(())
    }

    fn deleted(&mut self, key: Key, lsn: Lsn) {
        self.newest_delete = self.newest_delete.map(|newest| newest.max(lsn));
        self.tombstones.push((key, lsn));
    }

    /// Entries of `keys`.
    fn entries(&mut self, keys: &[Key]) -> Result<()> {
        for key in keys {
            self.hashes.push(self.shared.index.hash(key.bytes()));
            self.entry(key.bytes())?;
        }
        self.end_block()
    }

    /// Cleans the oldest segments while less than half of the log is in use.
    fn clean(&mut self) -> Result<()> {
        for _ in 1..self.parts.len() {
            let valid: u64 = self.parts.iter().map(|p| p.valid).sum();
            if self.parts.len() < 2 || valid <= self.shared.meta_bytes_max(&self.parts) {
                break;
            }
            let Some(oldest) = self.parts.pop_front() else {
                break;
            };
            self.keep_live(&oldest)?;
            self.dropped.push(oldest.segment);
        }
        self.end_block()
    }

    fn keep_live(&mut self, part: &MetaPart) -> Result<()> {
        let shared = self.shared;
        let mut live = Vec::new();
        read_part(
            &*shared.disk,
            &shared.space,
            shared.id,
            part,
            &mut |seq, key, lsn, _| {
                live.push((Key::new(key), lsn, seq as u32));
            },
        )?;
        for (key, lsn, seq) in live {
            let next = self.next_seq as u32;
            let entry = shared.index.update(key.bytes(), |entry| {
                // Another number: a later block has the key's newest entry.
                let newest = entry.lsn == lsn && entry.seq == seq;
                if !newest || entry.reference.is_tombstone() {
                    return None;
                }
                entry.seq = next;
                Some(entry.reference.clone())
            });
            if let Some(reference) = entry.flatten() {
                self.hashes.push(shared.index.hash(key.bytes()));
                self.push(key.bytes(), lsn, &reference)?;
            }
        }
        Ok(())
    }

    /// After a failure: as if it had never begun.
    fn undo(self) {
        for segment in self.taken {
            self.shared.space.free_meta(segment);
        }
        for hash in self.hashes {
            self.shared.index.mark_dirty(hash);
        }
    }
}

/// What is called for every entry: block number, key, version, reference.
pub(crate) type EachEntry<'a> = dyn FnMut(u64, &[u8], Lsn, Reference) + 'a;

/// What a part of the meta log held.
#[derive(Debug, Clone)]
pub(crate) struct PartRead {
    /// Bytes of the entries.
    pub payload: u64,
    /// Numbers of its blocks: those of the parts follow each other.
    pub numbers: std::ops::Range<u64>,
}

/// Reads and verifies a part of the meta log and calls `each` with block number, key, version and
/// reference. A block from elsewhere, or from before, is whole too: its number tells.
pub(crate) fn read_part(
    disk: &dyn Disk,
    space: &super::space::Space,
    id: u64,
    part: &MetaPart,
    each: &mut EachEntry<'_>,
) -> Result<PartRead> {
    let mut payload = 0;
    let mut numbers: Option<std::ops::Range<u64>> = None;
    let start = space.segment_start(part.segment);
    let mut blocks = Blocks::new(part.valid as usize)?;
    if part.valid > 0 {
        disk.read(start, &mut blocks)?;
    }
    let mut at = 0;
    while at < part.valid as usize {
        let block = MetaBlock::parse(&blocks[at..part.valid as usize], id);
        let follows = |block: &MetaBlock<'_>| numbers.as_ref().is_none_or(|n| n.end == block.seq);
        let Some(block) = block.filter(follows) else {
            let offset = start + at as u64;
            let message = "read the store's index: a block of the meta log is damaged; repair it";
            return Err(Error::new(ErrorKind::Corrupted, message).with_offset(offset));
        };
        let read = block.entries(&mut |key, lsn, reference| each(block.seq, key, lsn, reference));
        payload += read? as u64;
        let first = numbers.map_or(block.seq, |n| n.start);
        numbers = Some(first..block.seq.saturating_add(1));
        at += block.bytes;
    }
    Ok(PartRead {
        payload,
        numbers: numbers.unwrap_or_default(),
    })
}

impl Shared {
    /// Bytes of the meta log above which it is cleaned: twice what the index needs, and a segment.
    fn meta_bytes_max(&self, parts: &VecDeque<MetaPart>) -> u64 {
        let sum = |of: fn(&MetaPart) -> u64| parts.iter().map(of).sum::<u64>();
        let mean = sum(|p| p.payload).div_ceil(sum(|p| p.entries).max(1));
        2 * self.index.keys() * mean + self.space.segment_bytes()
    }

    /// Keeps segments free for what the meta log may still take before it is cleaned, the one that
    /// cleaning fills before the oldest is free among them.
    pub fn plan_meta(&self, parts: &VecDeque<MetaPart>) {
        let most = self
            .meta_bytes_max(parts)
            .div_ceil(self.space.segment_bytes())
            + 1;
        let due = most.saturating_sub(parts.len() as u64);
        self.meta_due.store(due, Relaxed);
        self.space.set_reserve(self.reserve(0));
    }

    /// Makes a checkpoint; see the head of this file.
    pub fn checkpoint(&self) -> Result<()> {
        self.checkpoint_with(&mut self.meta.lock(), &mut Group::default())
    }

    /// As `checkpoint`, with the memory of an earlier one.
    pub fn checkpoint_with(&self, meta: &mut MetaLog, group: &mut Group) -> Result<()> {
        self.root.check()?;
        let mark = self.wal.seal_mark()?;
        let mut draft = Draft::new(self, meta, Level::Checkpoint);
        let threads = self.checkpoint_threads();
        group.begin(&self.index, threads);
        let store = || {
            while group.has_more() {
                draft.group(group)?;
            }
            draft.end_block()?;
            draft.clean()?;
            self.wal.start_after(&mark, None).map(Some)
        };
        let stored = beside(threads, || self.index.settle_order(), store);
        self.conclude(meta, draft, stored)
    }

    /// Stores the entries of `keys`, which were moved, and nothing else: the log's ring stays.
    pub fn checkpoint_moved(&self, meta: &mut MetaLog, keys: &[Key]) -> Result<()> {
        self.root.check()?;
        let mut draft = Draft::new(self, meta, Level::Cleaning);
        let stored = draft.entries(keys).map(|()| None);
        // Deleted meanwhile: only a checkpoint that stores all forgets keys.
        draft.tombstones.clear();
        self.conclude(meta, draft, stored)?;
        self.index.unlist_stored();
        Ok(())
    }

    /// Steps 4 to 7, or takes all back.
    fn conclude<'a>(
        &'a self,
        meta: &mut MetaLog,
        mut draft: Draft<'a>,
        stored: Result<Option<WalStart>>,
    ) -> Result<()> {
        let number = meta.number + 1;
        let start = stored.and_then(|start| {
            if draft.parts.len() > crate::kv::superblock::META_SEGMENTS_MAX {
                return Err(self.no_space("room in the superblock for the index's segments"));
            }
            // The commit lock is passed: no commit is half in the index and not appended.
            self.wal.wait(self.wal.seal_mark()?.lsn, None)?;
            self.write_summaries(&mut meta.chains, &draft.notes, meta.next_seq)?;
            Ok(start)
        });
        let start = match start {
            Ok(start) => start,
            Err(error) => {
                draft.undo();
                return Err(error);
            }
        };
        let flushed = self.disk.flush().inspect_err(|e| self.root.fail(e));
        let list = MetaLog::list(&draft.parts);
        let first = draft.parts.front().filter(|part| part.valid > 0);
        let first = first.map(|part| part.first);
        let newest_delete = draft.newest_delete;
        let written = flushed.and_then(|()| {
            self.root.write(start.as_ref(), |superblock| {
                superblock.meta = list;
                superblock.meta_first = first;
                superblock.newest_delete = newest_delete;
                superblock.compat |= COMPAT_SUMMARIES;
            })
        });
        if let Err(error) = written {
            // Which list is in force is not known: nothing that either names is written over,
            // for the store takes no writes any more.
            self.wal.poison(&error);
            return Err(error);
        }
        if let Some(start) = &start {
            self.wal.release(start);
        }
        meta.parts = draft.parts;
        self.plan_meta(&meta.parts);
        meta.next_seq = draft.next_seq;
        meta.newest_delete = newest_delete;
        meta.number = number;
        // Lets go of the segments, so that those which are free can be had.
        draft.notes = Notes::new(&self.space);
        self.space.set_durable(self.wal.durable_lsn());
        self.space.set_checkpoint(number);
        for segment in draft.dropped {
            self.space.free_meta(segment);
        }
        for (key, lsn) in draft.tombstones {
            self.index.forget(key.bytes(), lsn);
        }
        self.space.reclaim();
        self.clear_summaries(&mut meta.chains, meta.next_seq);
        self.counters.checkpoints.fetch_add(1, Relaxed);
        Ok(())
    }
}
