//! Rebuilding an index that cannot be read: every block of every segment is looked at. What says
//! of itself that it is a page or a block of the meta log of this store counts, and so do the
//! summaries at the ends of segments, which say what the extents in them are, and the records of
//! the log up to the first damage. The newest version of each key is kept if its value is what was
//! written.
//!
//! What this cannot know: a key that was deleted so long ago that its tombstone is gone may come
//! back while the segment of its value is in use for others. Where neither the log nor a whole
//! meta log says that a key is there, and a delete was stored after its version was written, the
//! key is reported as uncertain.

use std::collections::HashMap;
use std::sync::Arc;

use super::Shared;
use super::checkpoint::{MetaLog, MetaPart, read_part};
use super::commit::parse;
use super::config::KvConfig;
use super::index::Index;
use super::meta::MetaBlock;
use super::meter::Meter;
use super::open::{Parts, assemble, count_live, id_of, is_file, open, wal_config};
use super::page;
use super::read::{chunks_hold, is_whole, runs_of};
use super::reference::{Reference, SlotRef};
use super::root::Root;
use super::space::Space;
use super::summary;
use super::value::read_manifest;
use super::verify::Problem;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::superblock::{COMPAT_SUMMARIES, COPIES, Superblock};
use crate::kv::sync::Tally;
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
    /// Keys of values whose place only a summary of a segment told.
    pub from_summaries: u64,
    /// Keys that the store has now and that may have been deleted: no log says that what was found
    /// is the newest, and a delete was stored after it was written.
    pub uncertain: u64,
    /// The first thousand of those.
    pub uncertain_keys: Vec<Vec<u8>>,
    /// Keys whose newest value is lost.
    pub lost: Vec<Problem>,
}

/// Most uncertain keys that a report names.
const KEYS_NAMED: usize = 1000;

/// What said where a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The log, or the meta log that the superblock lists where all of it is whole.
    InForce,
    /// A block of the meta log or a page, which may be from any time.
    Found,
    Summary,
}

/// A place that is said to hold a version.
struct Claim {
    /// Of the meta block, or of the one that was next when the summary was written, and one more;
    /// pages and records count as 0. A place with a higher one is newer.
    seq: u64,
    source: Source,
    reference: Reference,
}

/// The newest version of a key that was found, and every place that is said to hold it.
struct Candidate {
    lsn: Lsn,
    claims: Vec<Claim>,
}

#[derive(Default)]
struct Found {
    keys: HashMap<Vec<u8>, Candidate>,
    /// The highest number of a meta block, and one more.
    next_seq: u64,
    /// Where the log was read to its end, the first record that it does not have: a checkpoint
    /// that a crash cut short may have stored some that were never durable.
    end: Option<Lsn>,
}

impl Found {
    fn add(&mut self, key: &[u8], lsn: Lsn, claim: Claim) {
        self.next_seq = self.next_seq.max(claim.seq);
        if self.end.is_some_and(|end| lsn >= end) {
            return;
        }
        let keys = &mut self.keys;
        let candidate = keys.entry(key.to_vec()).or_insert_with(|| Candidate {
            lsn,
            claims: Vec::new(),
        });
        if lsn > candidate.lsn {
            candidate.lsn = lsn;
            candidate.claims.clear();
        }
        if lsn == candidate.lsn {
            candidate.claims.push(claim);
        }
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

/// What the superblock says of the segments.
struct Listed {
    /// Segments of the meta log, and their valid bytes.
    meta: HashMap<u32, u64>,
    /// Whether all of the meta log can be read.
    is_whole: bool,
    has_summaries: bool,
}

impl Listed {
    fn new(disk: &dyn Disk, space: &Space, id: u64, superblock: &Superblock) -> Self {
        let mut next = superblock.meta_first;
        let mut meta = HashMap::new();
        let mut is_whole = true;
        for listed in &superblock.meta {
            let segment = u32::try_from(listed.segment).unwrap_or(u32::MAX);
            meta.insert(segment, listed.valid_bytes);
            let part = MetaPart {
                segment,
                first: 0,
                valid: listed.valid_bytes,
                entries: 0,
                payload: 0,
            };
            let fits = segment < space.count() && part.valid <= space.segment_bytes();
            let read = fits.then(|| read_part(disk, space, id, &part, &mut |_, _, _, _| {}));
            match read {
                Some(Ok(read)) if next.is_none_or(|next| next == read.numbers.start) => {
                    next = Some(read.numbers.end);
                }
                _ => is_whole = false,
            }
        }
        Self {
            meta,
            is_whole,
            has_summaries: superblock.compat & COMPAT_SUMMARIES != 0,
        }
    }
}

/// Looks at every block of every segment.
fn scan(disk: &dyn Disk, space: &Space, id: u64, listed: &Listed, found: &mut Found) -> Result<()> {
    let mut blocks = Blocks::new(space.segment_bytes() as usize)?;
    for segment in 0..space.count() {
        let start = space.segment_start(segment);
        if disk.read(start, &mut blocks).is_err() {
            continue;
        }
        let valid = listed.meta.get(&segment).copied();
        if listed.has_summaries && valid.is_none() {
            summaries(&blocks, start, id, found);
        }
        let mut at = 0;
        while at < blocks.len() {
            let rest = &blocks[at..];
            if let Some(meta) = MetaBlock::parse(rest, id) {
                let in_force = listed.is_whole && valid.is_some_and(|v| (at as u64) < v);
                let source = if in_force {
                    Source::InForce
                } else {
                    Source::Found
                };
                // An entry that cannot be read ends the block; the others count.
                let _ = meta.entries(&mut |key, lsn, reference| {
                    let claim = Claim {
                        seq: meta.seq + 1,
                        source,
                        reference,
                    };
                    found.add(key, lsn, claim);
                });
                at += meta.bytes;
                continue;
            }
            let size = page::page_bytes(&rest[..BLOCK], id).filter(|size| *size <= rest.len());
            match size {
                Some(size) if page::is_whole(&rest[..size], id) => {
                    slots(&rest[..size], start + at as u64, found);
                    at += size;
                }
                _ => at += BLOCK,
            }
        }
    }
    Ok(())
}

/// What the summary of a segment says.
fn summaries(segment: &[u8], start: u64, id: u64, found: &mut Found) {
    let inside = start..start + segment.len() as u64;
    for unit in summary::units(segment, start, id) {
        found.next_seq = found.next_seq.max(unit.unit.seq + 1);
        unit.entries(&mut |key, lsn, reference| {
            if summary::home(&reference).is_some_and(|offset| inside.contains(&offset)) {
                let claim = Claim {
                    seq: unit.unit.seq + 1,
                    source: Source::Summary,
                    reference,
                };
                found.add(key, lsn, claim);
            }
        });
    }
}

/// The slots of the page at `offset`.
fn slots(page: &[u8], offset: u64, found: &mut Found) {
    for slot in page::slots(page) {
        let reference = slot.value.map_or(Reference::Tombstone, |value| {
            Reference::Slot(SlotRef {
                page: offset,
                page_bytes: page.len() as u32,
                start: slot.start,
                len: value.len() as u32,
                crc: slot.crc,
            })
        });
        let claim = Claim {
            seq: 0,
            source: Source::Found,
            reference,
        };
        found.add(slot.key, slot.lsn, claim);
    }
}

/// The records of the log up to its end or the first damage; where a new run may go on.
fn read_log(disk: &dyn Disk, config: &KvConfig, root: &Superblock, found: &mut Found) -> WalStart {
    let log = wal_config(config, &root.geometry);
    let mut last = root.wal.next_lsn;
    let recovered = wal::recover(disk, &log, &root.wal, &mut |lsn, kind, payload, _| {
        if let Some((key, reference)) = parse(kind, payload) {
            let claim = Claim {
                seq: 0,
                source: Source::InForce,
                reference,
            };
            found.add(key, lsn, claim);
        }
        last = last.max(lsn + 1);
        Ok(())
    });
    let newest = found.keys.values().map(|c| c.lsn + 1).max().unwrap_or(1);
    match recovered {
        Ok(recovered) => {
            found.end = Some(recovered.next.next_lsn.max(newest));
            WalStart {
                next_lsn: recovered.next.next_lsn.max(newest),
                ..recovered.next
            }
        }
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
    let newest_delete = superblock.newest_delete;
    let said = superblock.clone();
    let mut found = Found::default();
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
    let listed = Listed::new(&*disk, &space, id, &said);
    scan(&*disk, &space, id, &listed, &mut found)?;
    // The old index stays as it is until the new one is in force.
    for segment in listed.meta.keys() {
        let _ = space.adopt_meta(*segment);
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
        inline_bytes: Tally::default(),
        meta: MetaLog::default(),
    };
    parts.meta.next_seq = found.next_seq + 1;
    parts.meta.newest_delete = newest_delete;
    let mut report = RepairReport {
        rebuilt: true,
        reason: Some(reason),
        ..RepairReport::default()
    };
    fill(&parts, found, &listed, newest_delete, &mut report)?;
    count_live(&*disk, &parts.space, id, &parts.index)?;
    let shared = assemble(parts);
    shared.checkpoint()?;
    drop_damaged(&shared, &mut report)?;
    shared.checkpoint()?;
    report.keys = shared.index.keys();
    for problem in &report.lost {
        let named = report.uncertain_keys.iter().position(|k| *k == problem.key);
        if let Some(at) = named {
            report.uncertain_keys.swap_remove(at);
            report.uncertain -= 1;
        }
    }
    report.uncertain_keys.sort();
    Ok(report)
}

/// Deletes the keys whose values are not what was written.
///
/// # Errors
/// When one cannot be read: before any of those that were found with it is deleted.
fn drop_damaged(shared: &Arc<Shared>, report: &mut RepairReport) -> Result<()> {
    loop {
        let before = report.lost.len();
        // A report names a thousand at most: look again until there is none.
        let problems = shared.verify()?.first;
        let unread = |p: &&Problem| !p.key.is_empty() && !is_damage(&p.error);
        if let Some(problem) = problems.iter().find(unread) {
            return Err(unreadable(&problem.key, &problem.error));
        }
        for problem in problems {
            if !problem.key.is_empty() && shared.delete(&problem.key)?.0 {
                report.lost.push(problem);
            }
        }
        if report.lost.len() == before {
            return Ok(());
        }
    }
}

/// The newest version of each key, at its latest place that holds it.
fn fill(
    parts: &Parts,
    found: Found,
    listed: &Listed,
    newest_delete: Option<Lsn>,
    report: &mut RepairReport,
) -> Result<()> {
    let disk: &dyn Disk = &*parts.disk;
    let id = id_of(&parts.uuid);
    let inside = |offset: u64| {
        let segment = parts.space.segment_of(offset);
        segment.is_some_and(|n| !listed.meta.contains_key(&n))
    };
    for (key, Candidate { lsn, mut claims }) in found.keys {
        claims.sort_by_key(|c| std::cmp::Reverse(c.seq));
        let in_force = claims.iter().any(|c| c.source == Source::InForce);
        let told = claims.iter().any(|c| c.source != Source::Summary);
        let (mut usable, mut unread) = (Vec::new(), None);
        for claim in claims {
            match place_of(disk, id, &claim.reference) {
                Ok(Some(place)) => {
                    let mut fits = true;
                    place.pieces(key.len(), &mut |offset, bytes| {
                        fits &= inside(offset) && inside(offset + bytes - 1);
                    });
                    if fits {
                        usable.push(place);
                    }
                }
                Ok(None) => {}
                // An older place does where a newer one is whole.
                Err(error) if !usable.is_empty() => unread = Some(error),
                Err(error) => return Err(unreadable(&key, &error)),
            }
        }
        let mut usable = usable.into_iter();
        let Some(mut reference) = usable.next() else {
            continue;
        };
        // A value that was moved: its old place may be written over, or the new one damaged.
        let others: Vec<Reference> = usable.filter(|o| !o.same_place(&reference)).collect();
        let is_alone = others.is_empty() && unread.is_none();
        if !is_alone && !holds(disk, &reference, id, &key) {
            let other = others.into_iter().find(|o| holds(disk, o, id, &key));
            reference = match (other, unread) {
                (Some(other), _) => other,
                (None, Some(error)) => return Err(unreadable(&key, &error)),
                (None, None) => reference,
            };
        }
        if !reference.is_tombstone() {
            report.from_summaries += u64::from(!told);
            if !in_force && newest_delete.is_none_or(|newest| lsn < newest) {
                report.uncertain += 1;
                if report.uncertain_keys.len() < KEYS_NAMED {
                    report.uncertain_keys.push(key.clone());
                }
            }
        }
        let replaced = parts.index.apply(&key, lsn, reference, |_| false);
        parts.inline_bytes.add_held(replaced.inline_bytes);
    }
    Ok(())
}

/// What `claim` names, with its list of runs; `None` where that is damaged.
fn place_of(disk: &dyn Disk, id: u64, claim: &Reference) -> Result<Option<Reference>> {
    let &Reference::Unread {
        len,
        offset,
        bytes,
        crc,
    } = claim
    else {
        return Ok(Some(claim.clone()));
    };
    match read_manifest(disk, id, (len, offset, bytes, crc)) {
        Ok(list) => Ok(Some(Reference::Manifest(Arc::new(list)))),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether what was read is wrong, or lies outside of the store. Anything else may pass: what
/// cannot be read now is not known to be lost.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupted | ErrorKind::OutOfRange)
}

/// Why repair leaves all as it is.
fn unreadable(key: &[u8], why: &Error) -> Error {
    let mut name = key.escape_ascii().to_string();
    name.truncate(80);
    let message = format!(
        "repair a store: the value of key \"{name}\" cannot be read now, which does not say that \
         it is lost: {}; it was not dropped, repair again. If that stays so, delete the key, or \
         copy the store to a sound disk with zeros for what cannot be read, and repair the copy",
        why.message()
    );
    let error = Error::new(why.kind(), message).with_errno(why.errno());
    match why.offset() {
        Some(offset) => error.with_offset(offset),
        None => error,
    }
}

/// Whether the bytes at `place` are what was written.
fn holds(disk: &dyn Disk, place: &Reference, id: u64, key: &[u8]) -> bool {
    let crcs = match place {
        Reference::Slot(slot) => {
            let size = slot.page_bytes as usize;
            let Ok(mut page) = Blocks::new(size) else {
                return false;
            };
            return disk.read(slot.page, &mut page).is_ok()
                && page::is_whole(&page[..size], id)
                && page::value_of(&page[..size], slot, key).is_some();
        }
        Reference::Block { crc, .. } => std::slice::from_ref(crc),
        Reference::Extent(extent) => &*extent.crcs,
        Reference::Manifest(list) => return is_whole(disk, list).unwrap_or(false),
        _ => return true,
    };
    let (runs, crcs) = (runs_of(place), crcs.iter().copied());
    chunks_hold(disk, &runs, place.len(), 0, crcs).unwrap_or(false)
}
