//! Cleaning: what is alive in segments that are mostly dead moves out, the checkpoint that stores
//! its new places follows, and the segments are free.
//!
//! That checkpoint stores the new places only, and leaves small values in memory and the log's
//! ring as they are: so it needs little room, which nobody else may take. Moves are not logged:
//! until that checkpoint the old places stay untouched, so a crash before
//! it loses nothing, and after it nothing refers to them. Checksums travel with the reference, so
//! a copy that went wrong is found by whoever reads it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::changed::Group;
use super::checkpoint::MetaLog;
use super::fill::Fill;
use super::index::Entry;
use super::key::Key;
use super::page;
use super::pages::PageWriter;
use super::read::runs_of;
use super::reference::{Extent, Manifest, Reference, Run};
use super::space::{Candidate, Level, Space, Stream};
use super::value::{Stored, store_manifest, stored};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::wal::Lsn;

/// Bytes that are copied at a time.
const COPY: u64 = 1 << 20;
/// Rounds of one cleaning, so that it ends.
const ROUNDS: usize = 64;
/// Keys and bytes that are moved before a look whether writers need a checkpoint.
const PART_KEYS: usize = 32 << 10;
const PART_BYTES: u64 = 64 << 20;

/// Something alive in a segment that is cleaned.
struct Alive {
    key: Key,
    lsn: Lsn,
    reference: Reference,
}

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

fn is_no_space(error: &Error) -> bool {
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
        let mut freed = 0;
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
            if gained == 0 {
                break;
            }
        }
        Ok(freed)
    }

    /// Moves all that is `alive` and stores its new places; where writers need a checkpoint and there
    /// is room for it beside what is still to move, they do not wait for the end.
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
        // What alignment and whole pages waste in the new segments, and one for the index.
        let capacity = size - size / 8;
        let room = if self.space.may_grow() {
            8
        } else {
            free.saturating_sub(1).max(1)
        };
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
        for item in alive {
            keys.push(item.key.clone());
            let key = item.key.bytes();
            let moved = match &item.reference {
                Reference::Slot(slot) => match self.page(slot, self.space.generation(slot.page)) {
                    Ok(bytes) => match page::value_of(&bytes, slot, key) {
                        Some(value) => {
                            self.counters
                                .gc_bytes
                                .fetch_add(value.len() as u64, Relaxed);
                            pages.push(key, item.lsn, value, item.reference.clone())?;
                            continue;
                        }
                        None => Err(Error::new(ErrorKind::Corrupted, "a slot is damaged")),
                    },
                    Err(error) => Err(error),
                },
                Reference::Block { .. } | Reference::Extent(_) => self.move_extent(&item),
                Reference::Manifest(manifest) => self.move_manifest(&item, manifest, victims),
                _ => continue,
            };
            match moved {
                Ok(stored) => {
                    let to = stored.reference.clone();
                    self.swap(key, item.lsn, &item.reference, to, next);
                }
                // What cannot be read stays where it is; its segment is not tried again.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupted | ErrorKind::Io) => {
                    item.reference.pieces(key.len(), &mut |offset, _| {
                        meta.bad.extend(self.space.segment_of(offset));
                    });
                    self.remember(error);
                }
                Err(error) => return Err(error),
            }
        }
        pages.finish()
    }

    /// Copies one run to new room: in one piece, or in several where `split`.
    fn copy_run(&self, run: Run, key_len: usize, split: bool) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let copied = self.copy_to(run, key_len, split, &mut runs);
        if let Err(error) = copied {
            for run in runs {
                self.space.settle(run);
            }
            return Err(error);
        }
        self.counters.gc_bytes.fetch_add(run.bytes, Relaxed);
        Ok(runs)
    }

    fn copy_to(&self, run: Run, key_len: usize, split: bool, runs: &mut Vec<Run>) -> Result<()> {
        let mut blocks = Blocks::used(run.bytes.min(COPY) as usize)?;
        let mut done = 0;
        while done < run.bytes {
            let wanted = run.bytes - done;
            let least = if split { BLOCK as u64 } else { wanted };
            let summary = 64 + key_len as u64 + wanted / 1024;
            let room = self.allocate(Stream::Moved, wanted, least, summary, Level::Cleaning)?;
            runs.push(room);
            let mut at = 0;
            while at < room.bytes {
                let now = (room.bytes - at).min(COPY) as usize;
                self.disk.read(run.offset + done + at, &mut blocks[..now])?;
                self.disk.write(room.offset + at, &blocks[..now])?;
                at += now as u64;
            }
            done += room.bytes;
        }
        Ok(())
    }

    fn move_extent(self: &Arc<Self>, item: &Alive) -> Result<Stored> {
        let Some(run) = runs_of(&item.reference).first().copied() else {
            return Err(Error::new(
                ErrorKind::Internal,
                "an extent without a run was to move",
            ));
        };
        let runs = self.copy_run(run, item.key.bytes().len(), false)?;
        let to = runs.first().map_or(0, |r| r.offset);
        let reference = match &item.reference {
            Reference::Block { len, crc, .. } => Reference::Block {
                offset: to,
                len: *len,
                crc: *crc,
            },
            Reference::Extent(extent) => Reference::Extent(Arc::new(Extent {
                offset: to,
                ..Extent::clone(extent)
            })),
            other => other.clone(),
        };
        Ok(stored(self, reference, runs))
    }

    /// Moves the runs that lie in victims, and the list of runs.
    fn move_manifest(
        self: &Arc<Self>,
        item: &Alive,
        manifest: &Manifest,
        victims: &HashSet<u32>,
    ) -> Result<Stored> {
        let key_len = item.key.bytes().len();
        let mut allocations = Vec::new();
        let mut changed = manifest.clone();
        let moved = [&mut changed.runs, &mut changed.crc_runs]
            .into_iter()
            .try_for_each(|list| {
                let old = std::mem::take(list);
                for run in old {
                    let inside = self.space.segment_of(run.offset);
                    if inside.is_some_and(|n| victims.contains(&n)) {
                        let runs = self.copy_run(run, key_len, true)?;
                        allocations.extend(&runs);
                        list.extend(runs);
                    } else {
                        list.push(run);
                    }
                }
                Ok::<_, Error>(())
            });
        if let Err(error) = moved {
            for run in allocations {
                self.space.settle(run);
            }
            return Err(error);
        }
        store_manifest(self, key_len, changed, allocations)
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
        let key = |n: usize| (n as u32).to_be_bytes();
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
