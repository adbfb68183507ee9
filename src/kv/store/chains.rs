//! Writing summaries: what a checkpoint stores of values in extents is noted, and appended to the
//! summaries of their segments once it is durable in the log, before the flush that makes the
//! checkpoint whole. So a summary names durable versions only, the log still has what a summary
//! that is being written lacks, and no commit ever waits for one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Shared;
use super::meta::{each_entry, encode_entry};
use super::reference::Reference;
use super::space::Space;
use super::summary::{Parsed, Unit, encode, home, size_before, unit_bytes};
use crate::error::Result;
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::wal::Lsn;

/// Entries for one segment.
#[derive(Debug, Default)]
struct Note {
    entries: Vec<u8>,
    count: u32,
    /// Bytes that were kept for them when their room was taken.
    reserved: u64,
}

impl Note {
    fn add(&mut self, key: &[u8], lsn: Lsn, reference: &Reference) {
        let before = self.entries.len();
        // Only a value in memory has no stored form, and such a value has no home.
        if encode_entry(&mut self.entries, key, lsn, reference).is_err() {
            self.entries.truncate(before);
            return;
        }
        let crcs = match reference {
            Reference::Block { .. } => 1,
            Reference::Extent(extent) => extent.crcs.len() as u64,
            _ => 0,
        };
        self.count += 1;
        self.reserved += 64 + key.len() as u64 + 4 * crcs;
    }
}

/// What a checkpoint has for summaries. Segments that it names are held.
#[derive(Debug)]
pub(crate) struct Notes<'a> {
    space: &'a Space,
    segments: BTreeMap<u32, Note>,
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        for segment in self.segments.keys() {
            self.space.unpin(*segment);
        }
    }
}

impl<'a> Notes<'a> {
    pub fn new(space: &'a Space) -> Self {
        Self {
            space,
            segments: BTreeMap::new(),
        }
    }

    /// Notes version `lsn` of `key`. The caller sees the reference under its shard's lock.
    pub fn add(&mut self, key: &[u8], lsn: Lsn, reference: &Reference) {
        let Some(offset) = home(reference) else {
            return;
        };
        let Some(segment) = self.space.segment_of(offset) else {
            return;
        };
        let note = self.segments.entry(segment).or_insert_with(|| {
            self.space.pin(offset);
            Note::default()
        });
        note.add(key, lsn, reference);
    }
}

/// How far the summary of a segment is written.
#[derive(Debug, Clone, Copy)]
struct Chain {
    /// Of the segment, when this was true.
    generation: u32,
    life: u64,
    /// Number of the next unit.
    next: u32,
    /// Bytes of all units.
    used: u64,
}

/// The summaries that are known. Guarded by the lock of the meta log.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    known: HashMap<u32, Chain>,
    /// Segments whose end says that there is no summary.
    cleared: HashSet<u32>,
}

/// A version of a key, and where it is.
type Version = (Vec<u8>, Lsn, u64);

impl Shared {
    /// Appends `notes` to the summaries. `seq` is the number that the checkpoint's first meta
    /// block had, or would have.
    pub fn write_summaries(&self, chains: &mut Chains, notes: &Notes<'_>, seq: u64) -> Result<()> {
        for (segment, note) in &notes.segments {
            self.write_summary(chains, *segment, note, seq)?;
        }
        Ok(())
    }

    fn write_summary(&self, chains: &mut Chains, n: u32, note: &Note, seq: u64) -> Result<()> {
        let generation = self.space.generation_of(n);
        let known = chains.known.get(&n).copied();
        let mut rest = None;
        let chain = match known.filter(|chain| chain.generation == generation) {
            Some(chain) => chain,
            None => {
                // The first of this run: a chain that was begun before goes on if it is this
                // life's, and what it has already is not written again.
                let (chain, has) = self.read_chain(n, generation, seq);
                if !has.is_empty() {
                    rest = Some(without(note, &has));
                }
                chain
            }
        };
        chains.known.insert(n, chain);
        let note = rest.as_ref().unwrap_or(note);
        if note.count == 0 {
            return Ok(());
        }
        let claim = |used: u64, note: &Note| {
            let size = unit_bytes(note.entries.len()) as u64;
            self.space.claim_tail(n, used, size, note.reserved)
        };
        if let Some(end) = claim(chain.used, note) {
            return self.write_unit(chains, n, chain, note, seq, end);
        }
        // Units are rounded to blocks, so many small ones may need more than was kept: then what
        // is alive is written together, over what was there.
        let (old, _) = self.read_chain(n, generation, seq);
        let mut all = self.alive_in(n, old.used);
        all.entries.extend(&note.entries);
        all.count += note.count;
        all.reserved = note.reserved;
        let Some(end) = claim(0, &all) else {
            return Ok(());
        };
        let fresh = Chain {
            generation,
            life: seq,
            next: 0,
            used: 0,
        };
        self.write_unit(chains, n, fresh, &all, seq, end)
    }

    fn write_unit(
        &self,
        chains: &mut Chains,
        n: u32,
        mut chain: Chain,
        note: &Note,
        seq: u64,
        end: u64,
    ) -> Result<()> {
        let unit = Unit {
            seq,
            life: chain.life,
            number: chain.next,
        };
        let bytes = encode(unit, &note.entries, note.count, end, self.id);
        chains.cleared.remove(&n);
        let start = end - bytes.len() as u64;
        self.disk.write(start, &Blocks::copy_of(&bytes)?)?;
        chain.next += 1;
        chain.used += bytes.len() as u64;
        chains.known.insert(n, chain);
        Ok(())
    }

    /// The chain that the end of segment `n` holds, and its versions, if one of them is alive in
    /// the segment: a chain of an earlier life names dead versions only. Else a new one.
    fn read_chain(&self, n: u32, generation: u32, seq: u64) -> (Chain, HashSet<Version>) {
        let mut chain = Chain {
            generation,
            life: seq,
            next: 0,
            used: 0,
        };
        let mut versions = HashSet::new();
        let mut is_ours = false;
        self.each_unit(n, u64::MAX, &mut |parsed| {
            if parsed.unit.number != chain.next
                || (chain.next > 0 && parsed.unit.life != chain.life)
            {
                return false;
            }
            parsed.entries(&mut |key, lsn, reference| {
                is_ours |= self.is_at(key, lsn, &reference);
                versions.insert((key.to_vec(), lsn, home(&reference).unwrap_or(0)));
            });
            chain.life = parsed.unit.life;
            chain.next += 1;
            chain.used += parsed.bytes as u64;
            true
        });
        if is_ours {
            return (chain, versions);
        }
        let fresh = Chain {
            life: seq,
            next: 0,
            used: 0,
            ..chain
        };
        (fresh, HashSet::new())
    }

    /// The entries of the last `used` bytes of segment `n` that are alive.
    fn alive_in(&self, n: u32, used: u64) -> Note {
        let mut note = Note::default();
        self.each_unit(n, used, &mut |parsed| {
            parsed.entries(&mut |key, lsn, reference| {
                if self.is_at(key, lsn, &reference) {
                    note.add(key, lsn, &reference);
                }
            });
            true
        });
        note
    }

    /// Whether the newest version of `key` is this one, at this place.
    fn is_at(&self, key: &[u8], lsn: Lsn, place: &Reference) -> bool {
        self.index.with(key, |entry| {
            entry.is_some_and(|e| e.lsn == lsn && home(&e.reference) == home(place))
        })
    }

    /// Reads units from the end of segment `n` on, until one cannot be read, `each` says no, or
    /// `used` bytes were read.
    fn each_unit(&self, n: u32, used: u64, each: &mut dyn FnMut(&Parsed<'_>) -> bool) {
        let start = self.space.segment_start(n);
        let mut end = start + self.space.segment_bytes();
        let last = end.saturating_sub(used).max(start);
        let read = |offset: u64, len: usize| {
            let read = Blocks::used(len).and_then(|mut blocks| {
                self.disk.read(offset, &mut blocks[..len])?;
                Ok(blocks)
            });
            // What cannot be read is as good as not there: the meta log has it all.
            read.map_err(|error| self.remember(error)).ok()
        };
        while end > last {
            let Some(footer) = read(end - BLOCK as u64, BLOCK) else {
                return;
            };
            let Some(size) = size_before(&footer[..BLOCK]) else {
                return;
            };
            if size as u64 > end - start {
                return;
            }
            let Some(unit) = read(end - size as u64, size) else {
                return;
            };
            match Parsed::before(&unit[..size], end, self.id) {
                Some(parsed) if each(&parsed) => end -= size as u64,
                _ => return,
            }
        }
    }

    /// Says at the ends of segments that became free that there is no summary, so that repair
    /// does not believe the last one. Durable with the next flush: until then what it names is
    /// known to be dead from newer versions, or is reported as uncertain. So is where this fails,
    /// which the checkpoint before it need not undo.
    pub fn clear_summaries(&self, chains: &mut Chains, seq: u64) {
        for n in self.space.take_stale() {
            let generation = self.space.generation_of(n);
            let known = chains.known.get(&n);
            let in_use = known.is_some_and(|c| c.generation == generation && c.next > 0);
            if in_use || chains.cleared.contains(&n) {
                continue;
            }
            let none = Unit {
                seq,
                life: seq,
                number: 0,
            };
            let end = self.space.segment_start(n) + self.space.segment_bytes();
            let bytes = encode(none, &[], 0, end, self.id);
            let start = end - bytes.len() as u64;
            match Blocks::copy_of(&bytes).and_then(|b| self.disk.write(start, &b)) {
                Ok(()) => drop(chains.cleared.insert(n)),
                Err(error) => self.remember(error),
            }
        }
    }
}

/// What of `note` is not in `has`.
fn without(note: &Note, has: &HashSet<Version>) -> Note {
    let mut rest = Note::default();
    let _ = each_entry(&note.entries, note.count, &mut |key, lsn, reference| {
        let place = home(&reference).unwrap_or(0);
        if !has.contains(&(key.to_vec(), lsn, place)) {
            rest.add(key, lsn, &reference);
        }
    });
    rest
}
