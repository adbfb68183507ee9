//! Writing small values into pages, many pages with one write, and naming their new places.

use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::config::PAGE_TARGET;
use super::entry::Entry;
use super::key::Key;
use super::page::{PageBuilder, put_slot};
use super::reference::{Reference, Run, SlotRef};
use super::space::{Level, Stream};
use crate::error::Result;
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::wal::Lsn;

/// Bytes of pages that are written together.
const BATCH: usize = 1 << 20;

/// Where a packer put a value: which of its pages, and the slot there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    page: u32,
    start: u32,
    crc: u32,
}

/// Fills pages and writes them. What it wrote is not reused while it lives, or until `settle`.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    shared: &'a Shared,
    stream: Stream,
    level: Level,
    /// Pages that wait to be written.
    builder: PageBuilder,
    /// Where each page starts, and its bytes: on the disk for those that are written, in the
    /// batch for the others.
    pages: Vec<(u64, u32)>,
    written: usize,
    /// Bytes of values and their slots in the batch.
    live: u64,
    /// What was written, with its `live`.
    runs: Vec<(Run, u64)>,
    target: usize,
    most: usize,
}

impl<'a> Packer<'a> {
    pub fn new(shared: &'a Shared, stream: Stream) -> Self {
        let most = usize::try_from(shared.space.piece_max() / 8).unwrap_or(BATCH);
        Self {
            shared,
            stream,
            level: match stream {
                Stream::Moved => Level::Cleaning,
                _ => Level::Checkpoint,
            },
            builder: PageBuilder::new(shared.id),
            pages: Vec::new(),
            written: 0,
            live: 0,
            runs: Vec::new(),
            target: 0,
            most: most.min(BATCH),
        }
    }

    /// Adds the slot of a value, or of a tombstone.
    pub fn push(&mut self, slot: &[u8], is_value: bool) -> Result<Place> {
        let bytes = slot.len();
        if !self.builder.is_empty() && self.builder.bytes_with(bytes) > self.target {
            self.end_page()?;
        }
        if self.builder.is_empty() {
            // Short values: small pages, for a read brings in a whole one. Longer ones would
            // waste the end of a small page.
            let small = bytes <= BLOCK / 8;
            self.target = if small { BLOCK } else { PAGE_TARGET };
        }
        if is_value {
            self.live += bytes as u64;
        }
        let (start, crc) = self.builder.push(slot);
        let page = self.pages.len() as u32;
        Ok(Place { page, start, crc })
    }

    fn end_page(&mut self) -> Result<()> {
        let (at, bytes) = self.builder.end_page();
        self.pages.push((at as u64, bytes));
        if self.builder.pages().len() + PAGE_TARGET > self.most {
            self.write()?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub fn finish(&mut self) -> Result<()> {
        if !self.builder.is_empty() {
            self.end_page()?;
        }
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        let batch = self.builder.pages();
        if batch.is_empty() {
            return Ok(());
        }
        let shared = self.shared;
        let bytes = batch.len() as u64;
        let run = shared.allocate(self.stream, bytes, bytes, 0, self.level)?;
        self.runs.push((run, 0));
        shared.disk.write(run.offset, &Blocks::copy_of(batch)?)?;
        for (offset, _) in &mut self.pages[self.written..] {
            *offset += run.offset;
        }
        let pages = self.pages.len() - self.written;
        shared.counters.coalesced.fetch_add(pages as u64, Relaxed);
        self.written = self.pages.len();
        if let Some((_, live)) = self.runs.last_mut() {
            *live = std::mem::take(&mut self.live);
        }
        self.builder.clear();
        Ok(())
    }

    /// Whether what is at `place` is written.
    pub fn is_written(&self, place: Place) -> bool {
        (place.page as usize) < self.written
    }

    /// The value of `len` bytes at `place`, once it is written.
    pub fn slot(&self, place: Place, len: u32) -> Option<SlotRef> {
        let written = self.pages.get(place.page as usize);
        let (page, page_bytes) = *written.filter(|_| self.is_written(place))?;
        Some(SlotRef {
            page,
            page_bytes,
            start: place.start,
            len,
            crc: place.crc,
        })
    }

    /// Whether there is something that `settle` lets go.
    fn holds(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Counts all values that were written as live: before anybody can see them, for whoever
    /// replaces one at once counts it as dead.
    pub fn born(&self) {
        for (run, live) in &self.runs {
            self.shared.space.born_at(run.offset, *live);
        }
    }

    /// References to what was written are in force, or never will be.
    pub fn settle(&mut self) {
        for (run, _) in self.runs.drain(..) {
            self.shared.space.settle(run);
        }
    }
}

impl Drop for Packer<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

#[derive(Debug)]
struct Moved {
    key: Key,
    lsn: Lsn,
    /// What the index must still say for the swap.
    from: Reference,
    place: Place,
    len: u32,
}

/// Moves values out of segments: fills pages and swaps references to them.
#[derive(Debug)]
pub(crate) struct PageWriter<'a> {
    packer: Packer<'a>,
    /// Checkpoint that must be complete before what was moved out is free.
    checkpoint: u64,
    moved: Vec<Moved>,
    slot: Vec<u8>,
}

impl<'a> PageWriter<'a> {
    pub fn new(shared: &'a Shared, checkpoint: u64) -> Self {
        Self {
            packer: Packer::new(shared, Stream::Moved),
            checkpoint,
            moved: Vec::new(),
            slot: Vec::new(),
        }
    }

    /// Adds a value that the index has at `from`.
    pub fn push(&mut self, key: &[u8], lsn: Lsn, value: &[u8], from: Reference) -> Result<()> {
        self.slot.clear();
        put_slot(&mut self.slot, key, lsn, Some(value));
        let place = self.packer.push(&self.slot, true)?;
        self.moved.push(Moved {
            key: Key::new(key),
            lsn,
            from,
            place,
            len: value.len() as u32,
        });
        self.swap_written();
        Ok(())
    }

    /// Writes and swaps what is left.
    pub fn finish(&mut self) -> Result<()> {
        self.packer.finish()?;
        self.swap_written();
        Ok(())
    }

    fn swap_written(&mut self) {
        if !self.packer.holds() {
            return;
        }
        let written = |m: &Moved| self.packer.is_written(m.place);
        let count = self.moved.partition_point(written);
        for moved in self.moved.drain(..count) {
            if let Some(slot) = self.packer.slot(moved.place, moved.len) {
                let (key, to) = (moved.key.bytes(), Reference::Slot(slot));
                let shared = self.packer.shared;
                shared.swap(key, moved.lsn, &moved.from, to, self.checkpoint);
            }
        }
        self.packer.settle();
    }
}

impl Shared {
    /// Gives version `lsn` of `key` a new place, if it is still at `from`. `checkpoint` is the one
    /// that must be complete before the old place may be written over; the newest version is then
    /// stored by it.
    pub fn swap(
        &self,
        key: &[u8],
        lsn: Lsn,
        from: &Reference,
        to: Reference,
        checkpoint: u64,
    ) -> bool {
        // Live before anybody can see it: whoever replaces it at once counts it as dead.
        self.space.born(&to, key.len());
        let new = to.clone();
        let change = |entry: &mut Entry| {
            if entry.lsn == lsn && entry.reference.same_place(from) {
                // The next checkpoint must store it.
                entry.dirty = true;
                return Some(std::mem::replace(&mut entry.reference, to));
            }
            let older = entry.older.as_mut()?;
            let found = older
                .iter_mut()
                .find(|v| v.lsn == lsn && v.reference.same_place(from));
            found.map(|v| std::mem::replace(&mut v.reference, to))
        };
        match self.index.update(key, change).flatten() {
            Some(old) => {
                self.space.died(&old, key.len(), 0, checkpoint);
                true
            }
            None => {
                self.space.died(&new, key.len(), 0, 0);
                false
            }
        }
    }
}
