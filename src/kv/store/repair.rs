//! Rebuilding an index that cannot be read: every block of every segment is looked at, and what
//! says of itself that it is a page or a block of the meta log of this store counts; so do the
//! records of the log up to the first damage. The newest version of each key is kept if its value
//! is what was written.
//!
//! What this cannot know: a key that was deleted so long ago that its tombstone is gone may come
//! back when an old block that names it was not written over yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::Shared;
use super::checkpoint::MetaLog;
use super::commit::parse;
use super::config::KvConfig;
use super::index::Index;
use super::meta::MetaBlock;
use super::meter::Meter;
use super::open::{Parts, assemble, count_live, id_of, is_file, open, wal_config};
use super::page;
use super::reference::{Reference, SlotRef};
use super::root::Root;
use super::space::Space;
use super::value::read_manifest;
use super::verify::Problem;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::superblock::{COPIES, Superblock};
use crate::kv::wal::{self, Lsn, Wal, WalStart};

/// What repair did.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// The store was well; nothing was changed.
    pub was_clean: bool,
    /// The index was rebuilt from blocks that were found; else only damaged values were dropped.
    pub rebuilt: bool,
    /// Why it could not be opened.
    pub reason: Option<Error>,
    /// Keys that the store has now.
    pub keys: u64,
    /// Keys whose newest value is lost.
    pub lost: Vec<Problem>,
}

/// The newest version of a key that was found, and every place that is said to hold it.
struct Candidate {
    lsn: Lsn,
    /// Meta blocks by number, the latest first; pages and records count as number 0.
    places: Vec<(u64, Reference)>,
}

type Found = HashMap<Vec<u8>, Candidate>;

fn add(found: &mut Found, key: &[u8], lsn: Lsn, seq: u64, reference: Reference) {
    let candidate = found.entry(key.to_vec()).or_insert_with(|| Candidate {
        lsn,
        places: Vec::new(),
    });
    if lsn > candidate.lsn {
        candidate.lsn = lsn;
        candidate.places.clear();
    }
    if lsn == candidate.lsn {
        candidate.places.push((seq, reference));
    }
}

pub(crate) fn repair(disk: &Arc<dyn Disk>, config: &KvConfig) -> Result<RepairReport> {
    let reason = match open(Arc::clone(disk), config.clone()) {
        Ok(shared) => {
            let mut report = RepairReport::default();
            drop_damaged(&shared, &mut report)?;
            report.keys = shared.index.keys();
            report.was_clean = report.lost.is_empty();
            if shared.verify()?.is_clean() {
                shared.checkpoint()?;
                return Ok(report);
            }
            // More than values: the index is written anew below.
            Error::new(
                ErrorKind::Corrupted,
                "the index or the space map is damaged",
            )
        }
        Err(error) => error,
    };
    rebuild(disk, config, reason)
}

/// The newest superblock copy that is whole, even if it is alone.
pub(crate) fn any_superblock(disk: &dyn Disk) -> Result<Superblock> {
    if let Ok(superblock) = Superblock::read_quorum(disk) {
        return Ok(superblock);
    }
    let mut block = Blocks::new(BLOCK)?;
    let mut best: Option<Superblock> = None;
    let spacings = (12..=24).map(|n| 1u64 << n);
    for offset in spacings.flat_map(|s| (0..COPIES).map(move |copy| copy * s)) {
        if offset + BLOCK as u64 > disk.size() || disk.read(offset, &mut block).is_err() {
            continue;
        }
        if let Ok(copy) = Superblock::decode(&block, offset)
            && best.as_ref().is_none_or(|b| b.generation < copy.generation)
        {
            best = Some(copy);
        }
    }
    best.ok_or_else(|| {
        let message = "repair a store: no superblock copy is left to tell where things are";
        Error::new(ErrorKind::UnsupportedFile, message)
    })
}

/// Looks at every block of every segment.
fn scan(disk: &dyn Disk, space: &Space, id: u64, found: &mut Found) -> Result<()> {
    let mut blocks = Blocks::new(space.segment_bytes() as usize)?;
    for segment in 0..space.count() {
        let start = space.segment_start(segment);
        if disk.read(start, &mut blocks).is_err() {
            continue;
        }
        let mut at = 0;
        while at < blocks.len() {
            let rest = &blocks[at..];
            if let Some(meta) = MetaBlock::parse(rest, id) {
                // An entry that cannot be read ends the block; the others count.
                let _ = meta.entries(&mut |key, lsn, reference| {
                    add(found, key, lsn, meta.seq + 1, reference);
                });
                at += meta.bytes;
                continue;
            }
            let size = page::page_bytes(&rest[..BLOCK], id).filter(|size| *size <= rest.len());
            match size {
                Some(size) if page::is_whole(&rest[..size], id) => {
                    for slot in page::slots(&rest[..size]) {
                        let reference = slot.value.map_or(Reference::Tombstone, |value| {
                            Reference::Slot(SlotRef {
                                page: start + at as u64,
                                page_bytes: size as u32,
                                start: slot.start,
                                len: value.len() as u32,
                                crc: slot.crc,
                            })
                        });
                        add(found, slot.key, slot.lsn, 0, reference);
                    }
                    at += size;
                }
                _ => at += BLOCK,
            }
        }
    }
    Ok(())
}

/// The records of the log up to its end or the first damage; where a new run may go on.
fn read_log(disk: &dyn Disk, config: &KvConfig, root: &Superblock, found: &mut Found) -> WalStart {
    let log = wal_config(config, &root.geometry);
    let mut last = root.wal.next_lsn;
    let recovered = wal::recover(disk, &log, &root.wal, &mut |lsn, kind, payload, _| {
        if let Some((key, reference)) = parse(kind, payload) {
            add(found, key, lsn, 0, reference);
        }
        last = last.max(lsn + 1);
        Ok(())
    });
    let newest = found.values().map(|c| c.lsn + 1).max().unwrap_or(1);
    match recovered {
        Ok(recovered) => WalStart {
            next_lsn: recovered.next.next_lsn.max(newest),
            ..recovered.next
        },
        // Past everything that the ring can hold: another lap, and numbers that no batch has.
        Err(_) => {
            let blocks = log.size / BLOCK as u64;
            let batch_no = root.wal.batch_no + blocks + 1;
            WalStart {
                position: (root.wal.position / log.size + 2) * log.size,
                batch_no,
                epoch_first_batch: batch_no,
                prev_crc: 0,
                next_lsn: last.max(newest) + log.size / 8,
                ..root.wal
            }
        }
    }
}

fn rebuild(disk: &Arc<dyn Disk>, config: &KvConfig, reason: Error) -> Result<RepairReport> {
    let meter = Arc::new(Meter::new(Arc::clone(disk)));
    let disk: Arc<dyn Disk> = meter.clone();
    let mut superblock = any_superblock(&*disk)?;
    let geometry = superblock.geometry;
    let config = KvConfig {
        wal_bytes: geometry.wal_bytes,
        segment_bytes: geometry.segment_bytes,
        superblock_spacing: geometry.spacing,
        ..config.clone()
    };
    superblock.size_bytes = superblock.size_bytes.min(disk.size());
    let (uuid, id) = (superblock.wal.uuid, id_of(&superblock.wal.uuid));
    let size = superblock.size_bytes;
    let old_meta: Vec<u64> = superblock.meta.iter().map(|m| m.segment).collect();
    let mut found = Found::new();
    let next = read_log(&*disk, &config, &superblock, &mut found);
    let next = WalStart {
        epoch: superblock.wal.epoch + 1,
        epoch_first_batch: next.batch_no,
        ..next
    };
    // The old superblock stays in force until the first checkpoint below is whole.
    let root = Arc::new(Root::new(disk.clone(), superblock));
    let may_grow = config.size_bytes == 0 && is_file(&*disk);
    let space = Space::new(disk.clone(), root.clone(), &geometry, size, may_grow);
    scan(&*disk, &space, id, &mut found)?;
    // The old index stays as it is until the new one is in force.
    for segment in old_meta {
        let _ = space.adopt_meta(u32::try_from(segment).unwrap_or(u32::MAX));
    }
    let index = Index::new(config.ordered);
    let wal = Wal::start(disk.clone(), wal_config(&config, &geometry), next)?;
    let mut parts = Parts {
        wal,
        disk: meter,
        config,
        uuid,
        root,
        index,
        space,
        inline_bytes: AtomicI64::new(0),
        meta: MetaLog::default(),
    };
    parts.meta.next_seq = 1 + found
        .values()
        .flat_map(|c| c.places.iter().map(|p| p.0))
        .max()
        .unwrap_or(0);
    let mut report = RepairReport {
        rebuilt: true,
        reason: Some(reason),
        ..RepairReport::default()
    };
    fill(&parts, found, &*disk, id);
    count_live(&*disk, &parts.space, id, &parts.index)?;
    let shared = assemble(parts);
    shared.checkpoint()?;
    drop_damaged(&shared, &mut report)?;
    shared.checkpoint()?;
    report.keys = shared.index.keys();
    Ok(report)
}

/// Deletes the keys whose values are not what was written.
fn drop_damaged(shared: &Arc<Shared>, report: &mut RepairReport) -> Result<()> {
    loop {
        let before = report.lost.len();
        // A report names a thousand at most: look again until there is none.
        for problem in shared.verify()?.first {
            if !problem.key.is_empty() && shared.delete(&problem.key)?.0 {
                report.lost.push(problem);
            }
        }
        if report.lost.len() == before {
            return Ok(());
        }
    }
}

/// The newest version of each key, at its latest place that can be there.
fn fill(parts: &Parts, found: Found, disk: &dyn Disk, id: u64) {
    let inside = |offset: u64| parts.space.segment_of(offset).is_some();
    for (key, mut candidate) in found {
        candidate.places.sort_by_key(|p| std::cmp::Reverse(p.0));
        let usable = candidate.places.into_iter().map(|p| p.1).find_map(|place| {
            let place = match place {
                Reference::Unread {
                    len,
                    offset,
                    bytes,
                    crc,
                } => {
                    let list = read_manifest(disk, id, (len, offset, bytes, crc)).ok()?;
                    Reference::Manifest(Arc::new(list))
                }
                other => other,
            };
            let mut fits = true;
            place.pieces(key.len(), &mut |offset, bytes| {
                fits &= inside(offset) && inside(offset + bytes - 1);
            });
            fits.then_some(place)
        });
        if let Some(reference) = usable {
            let replaced = parts.index.apply(&key, candidate.lsn, reference, |_| false);
            parts.inline_bytes.fetch_add(replaced.inline_bytes, Relaxed);
        }
    }
}
