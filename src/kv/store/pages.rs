//! Writing small values into pages, many pages with one write, and naming their new places.

use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::config::PAGE_TARGET;
use super::index::Entry;
use super::key::Key;
use super::page::{PageBuilder, slot_bytes};
use super::reference::{Reference, SlotRef};
use super::space::{Level, Stream};
use crate::error::Result;
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::wal::Lsn;

/// Bytes of pages that are written together.
const BATCH: usize = 1 << 20;

#[derive(Debug)]
struct Slot {
    key: Key,
    lsn: Lsn,
    /// What the index must still say for the swap; `None` = a tombstone, which has no place.
    from: Option<Reference>,
    /// Which page of the batch.
    page: usize,
    start: u32,
    len: u32,
    crc: u32,
}

/// Fills pages and swaps references to them.
#[derive(Debug)]
pub(crate) struct PageWriter<'a> {
    shared: &'a Shared,
    stream: Stream,
    level: Level,
    /// Checkpoint that must be complete before what was moved out is free.
    checkpoint: u64,
    builder: PageBuilder,
    batch: Vec<u8>,
    /// Where each page of the batch starts, and its bytes.
    pages: Vec<(usize, u32)>,
    slots: Vec<Slot>,
    target: usize,
    most: usize,
}

impl<'a> PageWriter<'a> {
    pub fn new(shared: &'a Shared, stream: Stream, checkpoint: u64) -> Self {
        let most = usize::try_from(shared.space.piece_max() / 8).unwrap_or(BATCH);
        Self {
            shared,
            stream,
            level: match stream {
                Stream::Moved => Level::Cleaning,
                _ => Level::Checkpoint,
            },
            checkpoint,
            builder: PageBuilder::new(shared.id),
            batch: Vec::new(),
            pages: Vec::new(),
            slots: Vec::new(),
            target: 0,
            most: most.min(BATCH),
        }
    }

    /// Adds a value that the index has at `from`, or a tombstone.
    pub fn push(
        &mut self,
        key: &[u8],
        lsn: Lsn,
        value: Option<&[u8]>,
        from: Option<Reference>,
    ) -> Result<()> {
        let len = value.map_or(0, <[u8]>::len);
        if !self.builder.is_empty() && self.builder.bytes_with(key.len(), len) > self.target {
            self.end_page()?;
        }
        if self.builder.is_empty() {
            // Short values: small pages, for a read brings in a whole one. Longer ones would
            // waste the end of a small page.
            let small = slot_bytes(key.len(), len) <= BLOCK / 8;
            self.target = if small { BLOCK } else { PAGE_TARGET };
        }
        let (start, crc) = self.builder.push(key, lsn, value);
        self.slots.push(Slot {
            key: Key::new(key),
            lsn,
            from,
            page: self.pages.len(),
            start,
            len: len as u32,
            crc,
        });
        Ok(())
    }

    fn end_page(&mut self) -> Result<()> {
        let page = self.builder.finish();
        self.pages.push((self.batch.len(), page.len() as u32));
        self.batch.extend(page);
        if self.batch.len() + PAGE_TARGET > self.most {
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
        if self.batch.is_empty() {
            return Ok(());
        }
        let shared = self.shared;
        let bytes = self.batch.len() as u64;
        let run = shared.allocate(self.stream, bytes, bytes, 0, self.level)?;
        let written = Blocks::copy_of(&self.batch).and_then(|b| shared.disk.write(run.offset, &b));
        if let Err(error) = written {
            shared.space.settle(run);
            return Err(error);
        }
        shared
            .counters
            .coalesced
            .fetch_add(self.pages.len() as u64, Relaxed);
        for slot in self.slots.drain(..) {
            let Some(from) = slot.from else { continue };
            let Some(&(at, page_bytes)) = self.pages.get(slot.page) else {
                continue;
            };
            let to = Reference::Slot(SlotRef {
                page: run.offset + at as u64,
                page_bytes,
                start: slot.start,
                len: slot.len,
                crc: slot.crc,
            });
            shared.swap(slot.key.bytes(), slot.lsn, &from, to, self.checkpoint);
        }
        self.pages.clear();
        self.batch.clear();
        shared.space.settle(run);
        Ok(())
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
                // What leaves memory is stored by the checkpoint that moves it; what moves on
                // the disk must be stored by the next one.
                entry.dirty |= !matches!(from, Reference::Inline(_));
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
                if let Reference::Inline(value) = &old {
                    self.inline_bytes.fetch_sub(value.len() as i64, Relaxed);
                }
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
