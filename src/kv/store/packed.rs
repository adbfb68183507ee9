//! Small values on their way from memory to pages: what the threads of a checkpoint do with a group
//! of keys.
//!
//! Each stores a range of keys: pages of them, and when those are written, their entries as bodies
//! of meta blocks. The blocks get their numbers, and are written, by the one that makes the
//! checkpoint; then each thread goes back to its own shards and changes the index to the pages.

use super::Shared;
use super::chains::Notes;
use super::changed::{AHEAD, Group, Part, Span, Taken};
use super::entry::Entry;
use super::key::Key;
use super::meta::{MetaBody, MetaBuilder};
use super::pages::{Packer, Place};
use super::reference::Reference;
use super::space::Stream;
use crate::error::Result;
use crate::kv::sync::Mutex;
use crate::kv::wal::Lsn;

/// What became of one that was taken.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// Its number in its part.
    n: u32,
    /// The thread's meta block that has its entry.
    block: u32,
    /// `None` for a delete that no page holds, and what was on the disk before.
    place: Option<Place>,
}

/// Entries of the meta log, the deletes among them, and whether all was stored.
pub(crate) type Entries = (Vec<MetaBody>, Vec<(Key, Lsn)>, Result<()>);

/// What one thread stored. After a failure, what was written is there all the same.
#[derive(Debug)]
pub(crate) struct Packed<'a> {
    shared: &'a Shared,
    packer: Packer<'a>,
    /// By part, what is written.
    placed: Vec<Vec<Placed>>,
    builder: MetaBuilder,
    blocks: Vec<MetaBody>,
    deletes: Vec<(Key, Lsn)>,
    outcome: Result<()>,
}

impl<'a> Packed<'a> {
    /// Stores a range of a group's keys; deletes lie in pages too where `deletes` says so. What is
    /// in extents is noted for their segments.
    pub fn of(
        shared: &'a Shared,
        group: &Group,
        span: Span,
        deletes: bool,
        notes: &Mutex<&mut Notes<'_>>,
    ) -> Self {
        let mut packed = Self {
            shared,
            packer: Packer::new(shared, Stream::Pages),
            placed: group.parts.iter().map(|_| Vec::new()).collect(),
            builder: MetaBuilder::new(shared.id, shared.space.segment_bytes()),
            blocks: Vec::new(),
            deletes: Vec::new(),
            outcome: Ok(()),
        };
        packed.outcome = packed.store(group, span, deletes, notes);
        packed.end_block();
        packed
    }

    fn store(
        &mut self,
        group: &Group,
        mut span: Span,
        deletes: bool,
        notes: &Mutex<&mut Notes<'_>>,
    ) -> Result<()> {
        let mut few = Vec::with_capacity(AHEAD);
        // Part, number and place of what is not written yet.
        let mut waiting: Vec<(u32, u32, Option<Place>)> = Vec::new();
        loop {
            group.next_of(&mut span, &mut few);
            if few.is_empty() {
                self.packer.finish()?;
                return self.entries(group, &mut waiting, notes);
            }
            for &(at, n) in &few {
                let part = &group.parts[at as usize];
                let taken = &part.all[n as usize];
                let place = if taken.is_stored() || taken.is_delete() && !deletes {
                    None
                } else {
                    Some(self.packer.push(part.slot(taken), !taken.is_delete())?)
                };
                waiting.push((at, n, place));
            }
            let first = waiting.iter().find_map(|(.., place)| *place);
            if first.is_none_or(|place| self.packer.is_written(place)) {
                self.entries(group, &mut waiting, notes)?;
            }
        }
    }

    /// Entries of those in front that are written.
    fn entries(
        &mut self,
        group: &Group,
        waiting: &mut Vec<(u32, u32, Option<Place>)>,
        notes: &Mutex<&mut Notes<'_>>,
    ) -> Result<()> {
        let is_written = |place: Option<Place>| place.is_none_or(|p| self.packer.is_written(p));
        let written = waiting.iter().take_while(|(.., place)| is_written(*place));
        let count = written.count();
        for (done, (at, n, place)) in waiting[..count].iter().copied().enumerate() {
            if done.is_multiple_of(AHEAD) {
                let few = waiting[done..count].iter().take(AHEAD);
                group.ask(few.map(|(at, n, _)| (*at, *n)));
            }
            let part = &group.parts[at as usize];
            let taken = &part.all[n as usize];
            let (key, lsn) = (part.key(taken), taken.lsn);
            let reference = if taken.is_stored() {
                match self.stored(key, lsn, notes) {
                    Some(reference) => reference,
                    None => continue,
                }
            } else {
                let slot = place.filter(|_| !taken.is_delete());
                let slot = slot.and_then(|place| self.packer.slot(place, taken.len));
                slot.map_or(Reference::Tombstone, Reference::Slot)
            };
            let block = self.blocks.len() as u32;
            self.placed[at as usize].push(Placed { n, block, place });
            if !taken.is_newest() {
                continue;
            }
            if taken.is_delete() {
                self.deletes.push((Key::new(key), lsn));
            }
            if self.builder.push(key, lsn, &reference)? {
                self.end_block();
            }
        }
        waiting.drain(..count);
        Ok(())
    }

    /// Where a value in extents is, if nothing newer came: then the log after the checkpoint's
    /// beginning has that, and the next checkpoint.
    fn stored(&self, key: &[u8], lsn: Lsn, notes: &Mutex<&mut Notes<'_>>) -> Option<Reference> {
        self.shared.index.with(key, |entry| {
            let entry = entry.filter(|entry| entry.lsn == lsn)?;
            notes.lock().add(key, lsn, &entry.reference);
            Some(entry.reference.clone())
        })
    }

    fn end_block(&mut self) {
        if !self.builder.is_empty() {
            self.blocks.push(self.builder.take());
        }
    }

    /// Counts what was written as live.
    pub fn born(&self) {
        self.packer.born();
    }

    /// The entries, to be written.
    pub fn take(&mut self) -> Entries {
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        let (blocks, deletes) = (&mut self.blocks, &mut self.deletes);
        (std::mem::take(blocks), std::mem::take(deletes), outcome)
    }
}

/// Changes the index of a part of a group to what was stored. Each thread's blocks have numbers
/// from `bases` on.
pub(crate) fn change(shared: &Shared, at: usize, part: &Part, all: &[Packed<'_>], bases: &[u64]) {
    let mut places = vec![None; part.all.len()];
    for (thread, packed) in all.iter().enumerate() {
        for placed in &packed.placed[at] {
            places[placed.n as usize] = Some((thread, *placed));
        }
    }
    for piece in part.pieces() {
        let mut inline = 0;
        shared.index.change(part, piece, &mut |entry, n| {
            let Some((thread, placed)) = places[n] else {
                return;
            };
            let taken = &part.all[n];
            let seq = (bases[thread] + u64::from(placed.block)) as u32;
            let place = placed.place.filter(|_| !taken.is_delete());
            let slot = place.and_then(|place| all[thread].packer.slot(place, taken.len));
            let to = slot.map(Reference::Slot);
            inline += swap(shared, part, taken, entry, seq, to);
        });
        shared.inline_bytes.add_shared(-(inline as i64));
    }
}

/// Swaps a version that was taken to its place in a page, if it is still in memory; the bytes that
/// it had there. The caller holds its shard.
fn swap(
    shared: &Shared,
    part: &Part,
    taken: &Taken,
    mut entry: Option<&mut Entry>,
    seq: u32,
    to: Option<Reference>,
) -> usize {
    if let Some(entry) = &mut entry
        && entry.lsn == taken.lsn
    {
        entry.seq = seq;
    }
    let Some(to) = to else { return 0 };
    let now = entry.and_then(|entry| entry.version_mut(taken.lsn));
    if let Some(now) = now
        && let Reference::Inline(value) = now
    {
        let bytes = value.len();
        *now = to;
        return bytes;
    }
    // Replaced, or let go by the snapshot that held it.
    shared.space.died(&to, part.key(taken).len(), 0, 0);
    0
}
