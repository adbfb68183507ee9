//! What waits for the log thread: batches in the making, and where in the ring each will go.
//!
//! Records are copied straight into the aligned memory that the disk will read. Every batch has
//! its place as soon as it is closed, and a commit is let in only when its worst case fits the
//! ring: the log thread never waits for room, so that a checkpoint, which makes room, can always
//! wait for the log thread.

use std::collections::VecDeque;

use super::Lsn;
use super::format::{HEADER, LAST, RECORD_FLAGS, RECORD_HEADER, padded, put_record};
use crate::error::Result;
use crate::kv::disk::{BLOCK, Blocks};

/// Buffers that are kept for reuse.
const SPARE: usize = 4;

/// A batch in the making.
#[derive(Debug)]
pub(super) struct Segment {
    /// Room for the header, then records.
    pub(super) memory: Blocks,
    /// Bytes of records.
    pub(super) len: usize,
    pub(super) first_lsn: Lsn,
    pub(super) records: u32,
    /// Commits that end in it.
    pub(super) commits: u32,
    /// A record names data that is written and not flushed.
    pub(super) has_data: bool,
}

/// Whether a commit may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    /// The log thread must write first.
    Pending,
    /// The ring must be released first.
    Ring,
}

/// What a commit that is given up goes back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undo {
    segments: usize,
    open: bool,
    len: usize,
    records: u32,
    next_lsn: Lsn,
    closed_end: u64,
    bytes: usize,
}

impl Undo {
    /// Bytes that waited before the commit.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[derive(Debug)]
pub(super) struct Pending {
    ring: u64,
    /// Largest body of a batch, bytes.
    pub(super) body_max: usize,
    bytes_max: usize,
    /// The log thread takes the front; the back takes records while `open`.
    queue: VecDeque<Segment>,
    open: bool,
    /// Where the newest record starts in the back's body.
    newest: usize,
    spare: Vec<Blocks>,
    pub(super) next_lsn: Lsn,
    /// Position after all batches but an open one.
    closed_end: u64,
    /// Position before which the ring is free.
    pub(super) tail: u64,
    /// Bytes of records in the queue.
    pub(super) bytes: usize,
}

/// Start and end of a batch of `size` bytes that comes after `position`: it does not cross the
/// ring's end but goes on at its start.
pub(super) fn place(ring: u64, position: u64, size: u64) -> (u64, u64) {
    let left = ring - position % ring;
    let start = if size > left {
        position + left
    } else {
        position
    };
    (start, start + size)
}

impl Pending {
    pub(super) fn new(
        ring: u64,
        batch_max: usize,
        bytes_max: usize,
        position: u64,
        tail: u64,
        next_lsn: Lsn,
    ) -> Self {
        Self {
            ring,
            body_max: batch_max - HEADER,
            bytes_max,
            queue: VecDeque::new(),
            open: false,
            newest: 0,
            spare: Vec::new(),
            next_lsn,
            closed_end: position,
            tail,
            bytes: 0,
        }
    }

    /// What a commit of several batches takes of the ring at most, when `body_max` is the body.
    fn worst(body_max: usize, bytes: usize) -> u64 {
        // Records do not cross batches; two batches in a row hold more than one body.
        let batches = 2 * bytes.div_ceil(body_max) + 1;
        let wrap = HEADER + body_max;
        (bytes + batches * (HEADER + BLOCK) + wrap) as u64
    }

    /// Bytes of the largest commit.
    pub(super) fn commit_max(ring: u64, batch_max: usize, bytes_max: usize) -> usize {
        let body_max = batch_max - HEADER;
        // Half of the ring: a checkpoint that starts there always has an end.
        let budget = ring / 2 - 2 * BLOCK as u64;
        let mut batches = (ring as usize / 2) / batch_max;
        while batches > 1 && Self::worst(body_max, batches * body_max) > budget {
            batches -= 1;
        }
        (batches.max(1) * body_max).min(bytes_max)
    }

    fn back_end(&self) -> u64 {
        match self.queue.back().filter(|_| self.open) {
            Some(back) => place(self.ring, self.closed_end, padded(back.len)).1,
            None => self.closed_end,
        }
    }

    /// Whether a commit of `bytes` may come in now. What comes in can be written without waiting.
    pub(super) fn fits(&self, bytes: usize) -> Fit {
        if bytes == 0 {
            return Fit::Yes;
        }
        if self.bytes > 0 && self.bytes + bytes > self.bytes_max {
            return Fit::Pending;
        }
        let joins = self.open
            && self
                .queue
                .back()
                .is_some_and(|b| b.len + bytes <= self.body_max);
        let end = if joins {
            let len = self.queue.back().map_or(0, |b| b.len);
            place(self.ring, self.closed_end, padded(len + bytes)).1
        } else if bytes <= self.body_max {
            place(self.ring, self.back_end(), padded(bytes)).1
        } else {
            self.back_end() + Self::worst(self.body_max, bytes)
        };
        // One block stays free for the empty batch that ends a burst.
        if end + BLOCK as u64 - self.tail > self.ring {
            return Fit::Ring;
        }
        Fit::Yes
    }

    /// Prepares for a commit of `bytes` that fits.
    pub(super) fn begin(&mut self, bytes: usize) -> Undo {
        let full = self
            .queue
            .back()
            .is_some_and(|b| b.len + bytes > self.body_max);
        if self.open && full {
            // It would rather not straddle.
            self.close();
        }
        self.undo()
    }

    pub(super) fn undo(&self) -> Undo {
        let back = self.queue.back();
        Undo {
            segments: self.queue.len(),
            open: self.open,
            len: back.map_or(0, |b| b.len),
            records: back.map_or(0, |b| b.records),
            next_lsn: self.next_lsn,
            closed_end: self.closed_end,
            bytes: self.bytes,
        }
    }

    /// Adds a record, no longer than `body_max`.
    pub(super) fn push(&mut self, kind: u8, parts: &[&[u8]], size: usize) -> Result<Lsn> {
        if self.open
            && self
                .queue
                .back()
                .is_some_and(|b| b.len + size > self.body_max)
        {
            self.close();
        }
        if !self.open {
            let memory = match self.spare.pop() {
                Some(memory) => memory,
                None => Blocks::new(HEADER + self.body_max)?,
            };
            self.queue.push_back(Segment {
                memory,
                len: 0,
                first_lsn: self.next_lsn,
                records: 0,
                commits: 0,
                has_data: false,
            });
            self.open = true;
        }
        let lsn = self.next_lsn;
        if let Some(back) = self.queue.back_mut() {
            let at = HEADER + back.len;
            let written = put_record(&mut back.memory[at..], kind, parts);
            debug_assert_eq!(written, size);
            self.newest = back.len;
            back.len += size;
            back.records += 1;
            self.bytes += size;
            self.next_lsn += 1;
        }
        Ok(lsn)
    }

    /// Ends a commit that began at `undo` and pushed a record: the newest is its last.
    /// `has_data`: its records name data that is written and not flushed.
    pub(super) fn finish(&mut self, undo: &Undo, has_data: bool) {
        if has_data {
            let touched = undo.segments - usize::from(undo.open);
            for segment in self.queue.iter_mut().skip(touched) {
                segment.has_data = true;
            }
        }
        if let Some(back) = self.queue.back_mut() {
            back.memory[HEADER + self.newest + RECORD_FLAGS] |= LAST;
            back.commits += 1;
        }
    }

    /// Takes back what was pushed since.
    pub(super) fn roll_back(&mut self, undo: &Undo) {
        while self.queue.len() > undo.segments {
            if let Some(segment) = self.queue.pop_back() {
                self.recycle(segment.memory);
            }
        }
        if let Some(back) = self.queue.back_mut() {
            (back.len, back.records) = (undo.len, undo.records);
        }
        self.open = undo.open;
        self.next_lsn = undo.next_lsn;
        self.closed_end = undo.closed_end;
        self.bytes = undo.bytes;
    }

    /// Ends the open batch: what comes now starts a new one.
    pub(super) fn close(&mut self) {
        self.closed_end = self.back_end();
        self.open = false;
    }

    /// The next batch and where it goes.
    pub(super) fn take(&mut self, from: u64) -> Option<(Segment, u64)> {
        if self.queue.len() == 1 {
            self.close();
        }
        let segment = self.queue.pop_front()?;
        self.bytes -= segment.len;
        let (start, _) = place(self.ring, from, padded(segment.len));
        Some((segment, start))
    }

    /// A place for an empty batch; nothing is pending.
    pub(super) fn take_empty(&mut self) -> u64 {
        let (start, end) = place(self.ring, self.closed_end, padded(0));
        self.closed_end = end;
        start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn recycle(&mut self, memory: Blocks) {
        if self.spare.len() < SPARE {
            self.spare.push(memory);
        }
    }

    /// Bytes of the ring between its tail and the end of what was let in.
    pub(super) fn used(&self) -> u64 {
        self.back_end() - self.tail
    }
}

/// Bytes that a record with this much payload takes.
pub(super) const fn record_size(payload: usize) -> usize {
    RECORD_HEADER + payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_never_crosses_the_end_of_the_ring() {
        assert_eq!(place(32768, 0, 8192), (0, 8192));
        assert_eq!(place(32768, 24576, 8192), (24576, 32768));
        assert_eq!(place(32768, 28672, 8192), (32768, 40960));
        assert_eq!(place(32768, 32768 * 5 + 28672, 4096), (192_512, 196_608));
    }

    #[test]
    fn what_is_let_in_fits_whatever_the_log_thread_takes() {
        let mut random = 1u64;
        let mut next = |limit: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % limit
        };
        for round in 0..if cfg!(miri) { 2 } else { 200 } {
            let ring = (8 + next(24)) * 4096;
            let batch = (ring / 4 / 4096).max(1) as usize * 4096;
            let max = Pending::commit_max(ring, batch, 64 << 10);
            let mut pending = Pending::new(ring, batch, 64 << 10, 0, 0, 1);
            let (mut written, mut in_burst) = (0, false);
            for _ in 0..300 {
                let mut left = 16 + next(max as u64 - 15) as usize;
                if pending.fits(left) == Fit::Yes {
                    let undo = pending.begin(left);
                    while left >= RECORD_HEADER {
                        let most = left.min(pending.body_max) - RECORD_HEADER;
                        let payload = vec![1; next(most as u64 + 1) as usize];
                        let size = record_size(payload.len());
                        pending.push(1, &[&payload], size).expect("memory");
                        left -= size;
                    }
                    match next(4) {
                        0 => pending.roll_back(&undo),
                        _ => pending.finish(&undo, false),
                    }
                }
                if next(3) == 0 {
                    pending.close();
                }
                while next(2) == 0 {
                    let Some((segment, at)) = pending.take(written) else {
                        // One empty batch ends a burst; there is no second one after it.
                        if std::mem::take(&mut in_burst) {
                            written = pending.take_empty() + 4096;
                            assert!(written - pending.tail <= ring, "round {round}");
                        }
                        break;
                    };
                    in_burst = true;
                    assert!(at >= written && at % ring + padded(segment.len) <= ring);
                    written = at + padded(segment.len);
                    assert!(written - pending.tail <= ring, "round {round}");
                    pending.recycle(segment.memory);
                }
                if next(8) == 0 {
                    pending.tail = written;
                }
            }
        }
    }
}
