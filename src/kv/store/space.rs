//! Segments: who may write where, what is live, and when a segment may be written again.
//!
//! A segment is reusable only when all of these hold:
//! - nothing in memory refers to it (live bytes are 0: old versions for snapshots count as live),
//! - no writer fills a piece of it (pending is 0) and no reader holds it (pins are 0),
//! - every record that made its bytes dead is durable (`dead_lsn`), else a crash would bring back
//!   a reference to bytes that were written over,
//! - the checkpoint that carries the new places of what was moved out is complete
//!   (`needs_checkpoint`), for moves are recorded by checkpoints only.
//!
//! Segments of the meta log are freed by the checkpoint itself, once no superblock lists them.

mod tail;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::reference::{Reference, Run, blocks_of};
use super::root::Root;
use crate::base::{align_down, align_up};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::bugs::{self, Bug};
use crate::kv::disk::{BLOCK, Disk};
use crate::kv::superblock::Geometry;
use crate::kv::sync::Mutex;
use crate::kv::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::kv::sync::atomic::{AtomicU32, AtomicU64};
use crate::kv::wal::Lsn;

/// Alignments of extents, largest first.
const CLASSES: [u64; 5] = [2 << 20, 256 << 10, 64 << 10, 16 << 10, 4 << 10];
const CHUNK: usize = 1024;
const CHUNKS: usize = 4096;

/// What a segment is filled with: kept apart, so that what dies together lies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Pages = 0,
    Values = 1,
    Moved = 2,
}

/// How far into the last free segments a caller may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Leaves what checkpoints and cleaning will need.
    User,
    /// Leaves what cleaning needs.
    Checkpoint,
    /// May take the last.
    Cleaning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Free,
    Open,
    Closed,
    Meta,
}

/// Counters of one segment, without a lock.
#[derive(Debug, Default)]
struct Segment {
    live: AtomicU64,
    dead_lsn: AtomicU64,
    needs_checkpoint: AtomicU64,
    pins: AtomicU32,
    pending: AtomicU32,
    generation: AtomicU32,
    /// Bytes from its start on that values may be in: its summary stays behind them.
    floor: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct OpenSegment {
    segment: u32,
    /// First free byte in it.
    at: u64,
    /// Where its summary starts, as far as it is written.
    tail: u64,
    /// Bytes that its summary will need for what it does not hold yet.
    summary: u64,
}

#[derive(Debug)]
struct State {
    kinds: Vec<Kind>,
    /// Checkpoint number at which each was closed: its age.
    closed_at: Vec<u64>,
    free: BTreeSet<u32>,
    open: [Option<OpenSegment>; 3],
    checkpoint: u64,
    /// Became free, and may still have a summary.
    stale: BTreeSet<u32>,
}

/// A segment that cleaning may pick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub segment: u32,
    pub live: u64,
    pub closed_at: u64,
}

/// The space map.
#[derive(Debug)]
pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    root: Arc<Root>,
    start: u64,
    segment_bytes: u64,
    may_grow: bool,
    table: Box<[OnceLock<Box<[Segment]>>]>,
    state: Mutex<State>,
    durable: AtomicU64,
    checkpoint: AtomicU64,
    free_count: AtomicU64,
    /// Segments in all.
    count: AtomicU32,
    /// Segments that became free so far.
    freed: AtomicU64,
    reserve: AtomicU64,
    live: AtomicU64,
}

impl Space {
    /// All segments of a store of `size` bytes, free.
    pub fn new(
        disk: Arc<dyn Disk>,
        root: Arc<Root>,
        geometry: &Geometry,
        size: u64,
        may_grow: bool,
    ) -> Self {
        let count = geometry.segments_in(size) as usize;
        let space = Self {
            disk,
            root,
            start: geometry.data_offset(),
            segment_bytes: geometry.segment_bytes,
            may_grow,
            table: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            state: Mutex::new(State {
                kinds: vec![Kind::Free; count.min(CHUNK * CHUNKS)],
                closed_at: vec![0; count.min(CHUNK * CHUNKS)],
                free: BTreeSet::new(),
                open: [None; 3],
                checkpoint: 0,
                stale: BTreeSet::new(),
            }),
            durable: AtomicU64::new(0),
            checkpoint: AtomicU64::new(0),
            free_count: AtomicU64::new(0),
            count: AtomicU32::new(0),
            freed: AtomicU64::new(0),
            reserve: AtomicU64::new(super::config::RESERVE_SEGMENTS),
            live: AtomicU64::new(0),
        };
        {
            let mut state = space.state.lock();
            state.free = (0..state.kinds.len() as u32).collect();
            space.free_count.store(state.free.len() as u64, Relaxed);
            space.count.store(state.kinds.len() as u32, Release);
        }
        space
    }

    fn segment(&self, n: u32) -> &Segment {
        let chunk = self.table[n as usize / CHUNK % CHUNKS].get_or_init(|| {
            let mut all = Vec::new();
            all.resize_with(CHUNK, Segment::default);
            all.into()
        });
        &chunk[n as usize % CHUNK]
    }

    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub fn segment_start(&self, n: u32) -> u64 {
        self.start + u64::from(n) * self.segment_bytes
    }

    /// The segment that holds `offset`, if it is in one that exists.
    pub fn segment_of(&self, offset: u64) -> Option<u32> {
        let n = offset.checked_sub(self.start)? / self.segment_bytes;
        u32::try_from(n).ok().filter(|n| *n < self.count())
    }

    fn segment_at(&self, offset: u64) -> u32 {
        (offset.saturating_sub(self.start) / self.segment_bytes) as u32
    }

    /// Segments that the store has now.
    pub fn count(&self) -> u32 {
        self.count.load(Acquire)
    }

    /// How often the segment of `offset` was taken anew: with the offset it names a page's
    /// content for ever.
    pub fn generation(&self, offset: u64) -> u32 {
        self.segment(self.segment_at(offset))
            .generation
            .load(Acquire)
    }

    /// Holds the segment of `offset` against reuse. The caller sees a reference to it under its
    /// shard's lock.
    pub fn pin(&self, offset: u64) -> u32 {
        let n = self.segment_at(offset);
        self.segment(n).pins.fetch_add(1, AcqRel);
        n
    }

    pub fn unpin(&self, n: u32) {
        self.segment(n).pins.fetch_sub(1, AcqRel);
    }

    /// Counts the pieces of `reference` as live.
    pub fn born(&self, reference: &Reference, key_len: usize) {
        reference.pieces(key_len, &mut |offset, bytes| self.born_at(offset, bytes));
    }

    /// Counts `bytes` in the segment of `offset` as live.
    pub fn born_at(&self, offset: u64, bytes: u64) {
        self.live.fetch_add(bytes, Relaxed);
        let segment = self.segment(self.segment_at(offset));
        segment.live.fetch_add(bytes, AcqRel);
    }

    /// Counts the pieces of `reference` as dead once record `lsn` is durable and checkpoint
    /// number `checkpoint` is complete (0 = no matter).
    pub fn died(&self, reference: &Reference, key_len: usize, lsn: Lsn, checkpoint: u64) {
        reference.pieces(key_len, &mut |offset, bytes| {
            let segment = self.segment(self.segment_at(offset));
            segment.dead_lsn.fetch_max(lsn, AcqRel);
            segment.needs_checkpoint.fetch_max(checkpoint, AcqRel);
            segment.live.fetch_sub(bytes, AcqRel);
            self.live.fetch_sub(bytes, Relaxed);
        });
    }

    /// The writer of `run` is done: committed (and born) or given up.
    pub fn settle(&self, run: Run) {
        self.segment(self.segment_at(run.offset))
            .pending
            .fetch_sub(1, AcqRel);
    }

    /// Records up to this one are durable.
    pub fn set_durable(&self, lsn: Lsn) {
        self.durable.fetch_max(lsn, AcqRel);
    }

    /// This checkpoint is complete.
    pub fn set_checkpoint(&self, number: u64) {
        self.checkpoint.store(number, Release);
        self.state.lock().checkpoint = number;
    }

    /// Segments that ordinary writes leave free.
    pub fn set_reserve(&self, segments: u64) {
        self.reserve.store(segments, Relaxed);
    }

    /// Largest piece that one segment can hold, bytes.
    pub fn piece_max(&self) -> u64 {
        // One block for the summary's footer and at least one for its entries.
        let most = self.segment_bytes - 2 * BLOCK as u64;
        if self.segment_bytes >= 1 << 20 {
            align_down(most, 64 << 10)
        } else {
            most
        }
    }

    fn reusable(&self, n: u32) -> bool {
        let s = self.segment(n);
        // The order matters: pending before live, live before pins (see the head of this file).
        s.pending.load(Acquire) == 0
            && s.live.load(Acquire) == 0
            && (s.pins.load(Acquire) == 0 || bugs::is_on(Bug::ReusedPinnedExtent))
            && (s.dead_lsn.load(Acquire) <= self.durable.load(Acquire)
                || bugs::is_on(Bug::FreeBeforeDurable))
            && s.needs_checkpoint.load(Acquire) <= self.checkpoint.load(Acquire)
    }

    /// Makes what is reusable free; answers how many segments became so.
    pub fn reclaim(&self) -> u64 {
        self.reclaim_in(&mut self.state.lock())
    }

    fn reclaim_in(&self, state: &mut State) -> u64 {
        let mut freed = 0;
        for n in 0..state.kinds.len() {
            if state.kinds[n] == Kind::Closed && self.reusable(n as u32) {
                self.free_in(state, n as u32);
                freed += 1;
            }
        }
        freed
    }

    fn free_in(&self, state: &mut State, n: u32) {
        self.freed.fetch_add(1, Relaxed);
        let segment = self.segment(n);
        segment.generation.fetch_add(1, AcqRel);
        segment.dead_lsn.store(0, Relaxed);
        segment.needs_checkpoint.store(0, Relaxed);
        segment.floor.store(0, Relaxed);
        state.kinds[n as usize] = Kind::Free;
        state.free.insert(n);
        state.stale.insert(n);
        self.free_count.store(state.free.len() as u64, Relaxed);
    }

    /// Takes a free segment, growing the file when there is none. `level` says how much
    /// it leaves. `None` when there is no room.
    fn take(&self, state: &mut State, kind: Kind, level: Level) -> Option<u32> {
        let reserve = match level {
            _ if self.may_grow => 0,
            Level::User => self.reserve.load(Relaxed),
            Level::Checkpoint => super::config::CLEANING_SEGMENTS,
            // Room for the index of what is moved comes last.
            Level::Cleaning => u64::from(kind == Kind::Open),
        };
        if state.free.len() as u64 <= reserve {
            self.reclaim_in(state);
        }
        if state.free.len() as u64 <= reserve && self.may_grow {
            self.grow(state);
        }
        if state.free.len() as u64 <= reserve {
            return None;
        }
        let n = state.free.pop_first()?;
        self.free_count.store(state.free.len() as u64, Relaxed);
        state.kinds[n as usize] = kind;
        Some(n)
    }

    fn grow(&self, state: &mut State) {
        let count = state.kinds.len();
        if count == CHUNK * CHUNKS {
            return;
        }
        if let Ok(now) = self.root.grow(count as u64) {
            for n in count..(now as usize).min(CHUNK * CHUNKS) {
                state.kinds.push(Kind::Free);
                state.closed_at.push(0);
                state.free.insert(n as u32);
            }
            self.count.store(state.kinds.len() as u32, Release);
        }
    }

    fn close(&self, state: &mut State, stream: usize) {
        if let Some(open) = state.open[stream].take() {
            state.kinds[open.segment as usize] = Kind::Closed;
            state.closed_at[open.segment as usize] = state.checkpoint;
        }
    }

    /// Room for `bytes` (whole blocks) in one piece, or for a part of at least `least` of them.
    /// `summary` is what the segment's summary will need for it. The piece counts as pending
    /// until `settle`. `None` when there is no room now.
    pub fn allocate(
        &self,
        stream: Stream,
        bytes: u64,
        least: u64,
        summary: u64,
        level: Level,
    ) -> Option<Run> {
        let mut state = self.state.lock();
        let stream = stream as usize;
        for fresh in [false, true] {
            if fresh {
                // A new segment first: when there is none, the open one stays open for less.
                let n = self.take(&mut state, Kind::Open, level)?;
                self.close(&mut state, stream);
                state.open[stream] = Some(OpenSegment {
                    segment: n,
                    at: 0,
                    tail: self.segment_bytes,
                    summary: 0,
                });
            }
            let Some(open) = state.open[stream] else {
                continue;
            };
            let at = aligned(open.at, bytes, self.segment_bytes);
            let wanted = blocks_of(open.summary + summary) + BLOCK as u64;
            let room = open.tail.saturating_sub(at + wanted);
            let mut size = room.min(bytes);
            if size < bytes && self.segment_bytes >= 1 << 20 {
                size = align_down(size, 64 << 10);
            }
            if size >= least.min(bytes) && size > 0 {
                state.open[stream] = Some(OpenSegment {
                    at: at + size,
                    summary: open.summary + summary,
                    ..open
                });
                let segment = self.segment(open.segment);
                segment.pending.fetch_add(1, AcqRel);
                segment.floor.fetch_max(at + size, AcqRel);
                return Some(Run {
                    offset: self.segment_start(open.segment) + at,
                    bytes: size,
                });
            }
        }
        None
    }

    /// A whole segment for the meta log.
    pub fn take_meta(&self, level: Level) -> Option<u32> {
        self.take(&mut self.state.lock(), Kind::Meta, level)
    }

    /// A meta segment that no superblock lists (any more).
    pub fn free_meta(&self, n: u32) {
        self.free_in(&mut self.state.lock(), n);
    }

    /// While opening: `n` belongs to the meta log.
    ///
    /// # Errors
    /// `Corrupted` when there is no such segment or it is listed twice.
    pub fn adopt_meta(&self, n: u32) -> Result<()> {
        let mut state = self.state.lock();
        if !state.free.remove(&n) {
            let what = format!("the superblock lists meta segment {n}, which is not there to use");
            return Err(Error::new(ErrorKind::Corrupted, what));
        }
        state.kinds[n as usize] = Kind::Meta;
        self.free_count.store(state.free.len() as u64, Relaxed);
        Ok(())
    }

    /// While opening, when all live bytes are counted: segments that hold some are in use.
    ///
    /// # Errors
    /// `Corrupted` when live bytes lie in a meta segment or outside of the store.
    pub fn adopt_live(&self) -> Result<()> {
        let mut state = self.state.lock();
        let used = (0..CHUNKS).filter(|c| self.table[*c].get().is_some());
        for n in used.flat_map(|c| c * CHUNK..(c + 1) * CHUNK) {
            let n = n as u32;
            if self.segment(n).live.load(Acquire) == 0 {
                continue;
            }
            if state.kinds.get(n as usize) != Some(&Kind::Free) {
                let what = format!("values lie in segment {n}, which cannot hold any");
                return Err(
                    Error::new(ErrorKind::Corrupted, what).with_offset(self.segment_start(n))
                );
            }
            state.kinds[n as usize] = Kind::Closed;
            state.free.remove(&n);
        }
        self.free_count.store(state.free.len() as u64, Relaxed);
        Ok(())
    }

    /// Closes the open segments, so that cleaning may pick them.
    pub fn close_all(&self) {
        let mut state = self.state.lock();
        for stream in 0..3 {
            self.close(&mut state, stream);
        }
    }

    /// Closed segments that hold live bytes.
    pub fn candidates(&self) -> Vec<Candidate> {
        let state = self.state.lock();
        let closed = (0..state.kinds.len()).filter(|n| state.kinds[*n] == Kind::Closed);
        closed
            .filter_map(|n| {
                let s = self.segment(n as u32);
                let live = s.live.load(Acquire);
                (live > 0 && s.pending.load(Acquire) == 0).then_some(Candidate {
                    segment: n as u32,
                    live,
                    closed_at: state.closed_at[n],
                })
            })
            .collect()
    }

    /// Segments that are free, and all.
    pub fn free_and_all(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.free.len() as u64, state.kinds.len() as u64)
    }

    /// Free segments, without the lock.
    pub fn free_now(&self) -> u64 {
        self.free_count.load(Relaxed)
    }

    /// Segments that became free since the store was opened: grows while cleaning gets on.
    pub fn freed(&self) -> u64 {
        self.freed.load(Relaxed)
    }

    pub fn may_grow(&self) -> bool {
        self.may_grow
    }

    /// Live bytes of values and pages.
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed)
    }

    /// Live bytes of segment `n`, and whether it holds values at all.
    pub fn live_of(&self, n: u32) -> (u64, bool) {
        let state = self.state.lock();
        let kind = state.kinds.get(n as usize).copied();
        let uses = matches!(kind, Some(Kind::Open | Kind::Closed));
        (self.segment(n).live.load(Acquire), uses)
    }

    /// Segments of the meta log.
    pub fn meta_segments(&self) -> Vec<u32> {
        let state = self.state.lock();
        let all = 0..state.kinds.len();
        all.filter(|n| state.kinds[*n] == Kind::Meta)
            .map(|n| n as u32)
            .collect()
    }

    /// Readers that hold something.
    pub fn pins(&self) -> u64 {
        let all = 0..self.count();
        all.map(|n| u64::from(self.segment(n).pins.load(Relaxed)))
            .sum()
    }

    /// Gives the blocks of free segments back to the file system. Answers the bytes.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn discard_free(&self) -> Result<u64> {
        // Under the lock: a segment that is being discarded must not be taken meanwhile.
        let state = self.state.lock();
        for n in &state.free {
            self.disk
                .discard(self.segment_start(*n), self.segment_bytes)?;
        }
        Ok(state.free.len() as u64 * self.segment_bytes)
    }
}

/// Where a piece of `bytes` starts at or after `at`: on the largest class boundary that wastes
/// at most an eighth of it.
pub(super) fn aligned(at: u64, bytes: u64, segment_bytes: u64) -> u64 {
    for class in CLASSES {
        if class <= bytes && class <= segment_bytes / 16 {
            let start = align_up(at, class).unwrap_or(at);
            if start - at <= bytes / 8 {
                return start;
            }
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_start_on_the_largest_boundary_that_is_cheap() {
        const SEGMENT: u64 = 64 << 20;
        assert_eq!(aligned(0, 2 << 20, SEGMENT), 0);
        assert_eq!(aligned(2 << 20, 2 << 20, SEGMENT), 2 << 20);
        // 4 KiB into the segment a boundary of 2 MiB would waste nearly 2 MiB; 256 KiB does not.
        assert_eq!(aligned(4 << 10, 2 << 20, SEGMENT), 256 << 10);
        assert_eq!(aligned(4 << 10, 64 << 10, SEGMENT), 4 << 10);
        assert_eq!(aligned(12 << 10, 64 << 10, SEGMENT), 16 << 10);
        assert_eq!(aligned(12 << 10, 8 << 10, SEGMENT), 12 << 10);
        assert_eq!(aligned(4 << 10, 32 << 10, 64 << 10), 4 << 10);
    }
}
