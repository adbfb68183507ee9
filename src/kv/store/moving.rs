//! Copies of what is alive in segments that are cleaned: what is to be read next is read while
//! what was read last is written, many pieces at once, neighbours with one call.
//!
//! What is to move is queued piece by piece. Its room is taken when it is queued, and its new place
//! is known to the index when the last of its pieces is written, if it is still where it was. Two
//! windows of `AT_ONCE` pieces of `PIECE_MAX` bytes, 2 MiB, are all the memory that copies take,
//! however long a value is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::key::Key;
use super::reference::{Reference, Run};
use super::value::Stored;
use crate::error::{Error, Result};
use crate::io::{FilePiece, WrittenPiece};
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::wal::Lsn;

/// Most bytes that one call reads or writes. More memory was slower: what is read is soon written,
/// and comes from the processor's cache then.
const PIECE_MAX: usize = 512 << 10;
/// Pieces of memory that are read into, or written from, at a time.
const AT_ONCE: usize = 2;

/// Something alive in a segment that is cleaned.
pub(crate) struct Alive {
    pub key: Key,
    pub lsn: Lsn,
    pub reference: Reference,
}

/// A value on its way.
struct Item {
    alive: Alive,
    /// Its new place, once all of it is queued.
    to: Option<Stored>,
    /// Pieces that are queued and not written.
    left: usize,
    failed: Option<Error>,
}

/// A piece of a value, in one of the window's pieces of memory.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Number of its item, counted from the first of all.
    item: u64,
    from: u64,
    to: u64,
    bytes: usize,
    /// Which piece of memory, and where in it.
    memory: usize,
    at: usize,
}

impl Part {
    /// Whether `next` follows it in memory, and by what `place` says on the disk.
    fn is_before(&self, next: &Self, place: fn(&Self) -> u64) -> bool {
        self.memory == next.memory
            && self.at + self.bytes == next.at
            && place(self) + self.bytes as u64 == place(next)
    }
}

/// Neighbours that are read or written with one call, and the part behind the last of them.
fn together(parts: &[Part], place: fn(&Part) -> u64) -> Vec<std::ops::Range<usize>> {
    let mut all: Vec<std::ops::Range<usize>> = Vec::new();
    for n in 0..parts.len() {
        match all.last_mut() {
            Some(last) if parts[n - 1].is_before(&parts[n], place) => last.end = n + 1,
            _ => all.push(n..n + 1),
        }
    }
    all
}

fn bytes_of(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.bytes).sum()
}

/// Memory, and what is in it or will be.
struct Window {
    /// Bytes of each piece of memory.
    size: usize,
    memory: Vec<Blocks>,
    /// Used bytes of the last piece of memory in use, and its number.
    at: usize,
    last: usize,
    parts: Vec<Part>,
}

impl Window {
    fn new(size: usize) -> Self {
        Self {
            size,
            memory: Vec::new(),
            at: 0,
            last: 0,
            parts: Vec::new(),
        }
    }

    /// Room for up to `bytes`: how many, in which piece of memory and where. `None` when it is
    /// full.
    fn room(&mut self, bytes: u64) -> Result<Option<(usize, usize, usize)>> {
        if self.at == self.size {
            (self.last, self.at) = (self.last + 1, 0);
        }
        if self.last == AT_ONCE {
            return Ok(None);
        }
        if self.last == self.memory.len() {
            self.memory.push(Blocks::used(self.size)?);
        }
        let rest = self.size - self.at;
        let size = usize::try_from(bytes).unwrap_or(rest).min(rest);
        let at = self.at;
        self.at += size;
        Ok(Some((size, self.last, at)))
    }

    fn clear(&mut self) {
        (self.at, self.last) = (0, 0);
        self.parts.clear();
    }

    /// The memory of the parts that are written together.
    fn written(&self, parts: &[Part]) -> &[u8] {
        let (memory, at) = parts.first().map_or((0, 0), |part| (part.memory, part.at));
        let memory = self.memory.get(memory).map_or(&[][..], |m| &m[..]);
        &memory[at..at + bytes_of(parts)]
    }

    /// What is to be read: a piece of memory for each of `runs`.
    fn pieces(&mut self, runs: &[std::ops::Range<usize>]) -> Vec<FilePiece<'_>> {
        let mut pieces: Vec<FilePiece<'_>> = Vec::with_capacity(runs.len());
        let mut runs = runs.iter().peekable();
        for (n, memory) in self.memory.iter_mut().enumerate() {
            // The parts of one piece of memory lie in it without gaps.
            let mut rest = &mut memory[..];
            while let Some(run) = runs.next_if(|run| self.parts[run.start].memory == n) {
                let size = bytes_of(&self.parts[run.start..run.end]);
                let (now, later) = rest.split_at_mut(size);
                pieces.push((self.parts[run.start].from, now));
                rest = later;
            }
        }
        pieces
    }
}

/// Moves values that are larger than small.
pub(crate) struct Mover<'a> {
    shared: &'a Arc<Shared>,
    /// The checkpoint that will store the new places.
    checkpoint: u64,
    /// Values that are queued and not all written, and the number of the first of them.
    items: VecDeque<Item>,
    first: u64,
    /// What is to be read next, and what is read and is to be written next.
    next: Window,
    ready: Window,
    /// What could not be copied, and why.
    pub failed: Vec<(Alive, Error)>,
}

impl<'a> Mover<'a> {
    pub fn new(shared: &'a Arc<Shared>, checkpoint: u64) -> Self {
        // In small segments less: what is alive in one takes several windows there too.
        let quarter = usize::try_from(shared.space.segment_bytes() / 4).unwrap_or(PIECE_MAX);
        let size = (quarter / BLOCK * BLOCK).clamp(BLOCK, PIECE_MAX);
        Self {
            shared,
            checkpoint,
            items: VecDeque::new(),
            first: 0,
            next: Window::new(size),
            ready: Window::new(size),
            failed: Vec::new(),
        }
    }

    /// Begins with a value: `copy` follows for each of its runs that moves, then `end`.
    pub fn begin(&mut self, alive: Alive) {
        self.items.push_back(Item {
            alive,
            to: None,
            left: 0,
            failed: None,
        });
    }

    /// Queues a copy of the `run` of the value that was begun last to the room at `to`.
    pub fn copy(&mut self, run: Run, to: u64) -> Result<()> {
        let item = self.first + self.items.len() as u64 - 1;
        let mut done = 0;
        while done < run.bytes {
            let Some((bytes, memory, at)) = self.next.room(run.bytes - done)? else {
                self.step();
                if self.failure().is_some() {
                    return Ok(());
                }
                continue;
            };
            self.next.parts.push(Part {
                item,
                from: run.offset + done,
                to: to + done,
                bytes,
                memory,
                at,
            });
            if let Some(item) = self.item(item) {
                item.left += 1;
            }
            done += bytes as u64;
        }
        Ok(())
    }

    /// Why a piece of the value that was begun last could not be copied.
    pub fn failure(&self) -> Option<Error> {
        self.items.back().and_then(|item| item.failed.clone())
    }

    /// All of the value that was begun last is queued: its new place.
    pub fn end(&mut self, to: Stored) {
        if let Some(item) = self.items.back_mut() {
            item.to = Some(to);
        }
        self.settle();
    }

    /// The value that was begun last does not move. Its room, which may be written to once more,
    /// is given back when it is not any more.
    pub fn give_up(&mut self, room: Stored, error: Error) {
        if let Some(item) = self.items.back_mut() {
            item.failed.get_or_insert(error);
        }
        self.end(room);
    }

    /// Copies what is queued.
    pub fn finish(&mut self) {
        while !self.next.parts.is_empty() || !self.ready.parts.is_empty() {
            self.step();
        }
        self.settle();
    }

    fn item(&mut self, number: u64) -> Option<&mut Item> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.items.get_mut(at)
    }

    /// Writes what is read and reads what comes next.
    fn step(&mut self) {
        let first = self.first;
        let items = &self.items;
        // What failed in part is not written; it is not left any more.
        let is_well = |part: &Part| {
            let item = items.get((part.item - first) as usize);
            item.is_some_and(|item| item.failed.is_none())
        };
        let (parts, given_up): (Vec<Part>, Vec<Part>) =
            self.ready.parts.iter().partition(|part| is_well(part));
        let writes = together(&parts, |part| part.to);
        let reads = together(&self.next.parts, |part| part.from);
        let done = {
            let pieces: Vec<WrittenPiece<'_>> = writes
                .iter()
                .map(|run| {
                    let parts = &parts[run.start..run.end];
                    (parts[0].to, self.ready.written(parts))
                })
                .collect();
            let disk = &*self.shared.disk;
            disk.read_and_write(&mut self.next.pieces(&reads), &pieces)
        };
        for (run, result) in writes.into_iter().zip(done.writes) {
            self.written(&parts[run], result);
        }
        for part in given_up {
            self.leave(part.item, None);
        }
        for (run, result) in reads.into_iter().zip(done.reads) {
            self.read(run, result);
        }
        std::mem::swap(&mut self.next, &mut self.ready);
        self.next.clear();
        self.settle();
    }

    /// What came of writing `parts`. Where several were written as one, an error need not be
    /// that of each.
    fn written(&mut self, parts: &[Part], result: Result<()>) {
        if let (Err(error), true) = (&result, parts.len() > 1) {
            self.shared.remember(error.clone());
            for part in parts {
                let part = std::slice::from_ref(part);
                let again = self.shared.disk.write(part[0].to, self.ready.written(part));
                self.written(part, again);
            }
            return;
        }
        for part in parts {
            let moved = &self.shared.counters.gc_bytes;
            if result.is_ok() {
                moved.fetch_add(part.bytes as u64, Relaxed);
            }
            self.leave(part.item, result.clone().err());
        }
    }

    /// What came of reading these parts, as for `written`.
    fn read(&mut self, run: std::ops::Range<usize>, result: Result<()>) {
        let Err(error) = result else { return };
        if run.len() == 1 {
            self.fail(self.next.parts[run.start].item, error);
            return;
        }
        self.shared.remember(error);
        for n in run {
            let part = self.next.parts[n];
            let memory = &mut self.next.memory[part.memory][part.at..part.at + part.bytes];
            if let Err(error) = self.shared.disk.read(part.from, memory) {
                self.fail(part.item, error);
            }
        }
    }

    fn fail(&mut self, item: u64, error: Error) {
        if let Some(item) = self.item(item) {
            item.failed.get_or_insert(error);
        }
    }

    /// A piece of this value is written, or will not be.
    fn leave(&mut self, number: u64, error: Option<Error>) {
        if let Some(item) = self.item(number) {
            item.left -= 1;
            if let Some(error) = error {
                item.failed.get_or_insert(error);
            }
        }
    }

    /// Names the new places of the values that are all written, in the order in which they came.
    fn settle(&mut self) {
        let is_done = |item: &Item| item.left == 0 && item.to.is_some();
        while self.items.front().is_some_and(is_done) {
            let Some(item) = self.items.pop_front() else {
                return;
            };
            self.first += 1;
            match (item.failed, item.to) {
                (Some(error), _) => self.failed.push((item.alive, error)),
                (None, Some(to)) => {
                    let Alive {
                        key,
                        lsn,
                        reference,
                    } = &item.alive;
                    let place = to.reference.clone();
                    let shared = self.shared;
                    shared.swap(key.bytes(), *lsn, reference, place, self.checkpoint);
                }
                (None, None) => {}
            }
        }
    }
}
