//! A disk in memory that remembers in which order what became durable, and from that makes the
//! disks that a crash at any moment may leave.
//!
//! What a crash keeps: every durable write that ended, and every write that ended before a flush
//! began that ended. Everything else that had begun may be there, absent, or torn at a sector, at
//! a block or anywhere. Ships with the library, so that users can try their build.

mod image;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::disk::{BLOCK, Disk, check};
use crate::error::{Error, ErrorKind, Result};

pub use image::{Survivors, TEAR_ANYWHERE, TEAR_BLOCK, TEAR_SECTOR};
pub use plan::SimPlan;

use self::plan::{Dice, Verdict};

/// One block's bytes, shared between a disk, its log and its images.
type Block = Arc<[u8; BLOCK]>;

/// Something that changed the disk, or what is durable of it.
#[derive(Debug, Clone)]
pub enum Change {
    /// A write that needs a flush.
    Write {
        /// Where, bytes.
        offset: u64,
        /// What.
        blocks: Vec<Block>,
    },
    /// A write that is durable when it has ended.
    WriteDurable {
        /// Where, bytes.
        offset: u64,
        /// What.
        blocks: Vec<Block>,
    },
    /// A new size, bytes.
    Resize(u64),
    /// Makes durable what ended before it began.
    Flush,
    /// Makes the disk's name durable.
    SyncName,
}

/// The log: changes begin and end, and others begin in between.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Begin(usize, Change),
    /// Ended well. What failed never ends.
    End(usize),
}

/// The disk. Share it by `Arc`.
#[derive(Debug)]
pub struct SimDisk {
    state: Mutex<State>,
    delay: Mutex<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) content: Content,
    /// What the disk held when the log began.
    pub(super) base: Content,
    pub(super) log: Vec<Event>,
    next: usize,
    dice: Dice,
    /// Blocks whose reads fail.
    unreadable: BTreeSet<u64>,
    recording: bool,
    named: bool,
    pub(super) base_named: bool,
}

/// Bytes by block number; absent blocks are zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) blocks: BTreeMap<u64, Block>,
}

impl Content {
    pub(super) fn put(&mut self, offset: u64, blocks: &[Block]) {
        let first = offset / BLOCK as u64;
        for (number, block) in (first..).zip(blocks) {
            self.blocks.insert(number, Arc::clone(block));
        }
        self.size = self.size.max(offset + (blocks.len() * BLOCK) as u64);
    }

    pub(super) fn resize(&mut self, size: u64) {
        if size < self.size {
            self.blocks.split_off(&size.div_ceil(BLOCK as u64));
        }
        self.size = size;
    }

    pub(super) fn get(&self, number: u64, into: &mut [u8]) {
        match self.blocks.get(&number) {
            Some(block) => into.copy_from_slice(&block[..]),
            None => into.fill(0),
        }
    }
}

impl SimDisk {
    /// A disk of `size` bytes (rounded up to whole blocks), all zero, that records.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let content = Content {
            size: size.next_multiple_of(BLOCK as u64),
            ..Content::default()
        };
        Self::of(content, true)
    }

    /// As `new`, with a name that is durable only after [`Disk::sync_name`]: a file just made.
    #[must_use]
    pub fn unnamed(size: u64) -> Self {
        let disk = Self::new(size);
        {
            let mut state = disk.state.lock();
            (state.named, state.base_named) = (false, false);
        }
        disk
    }

    pub(super) fn of(content: Content, named: bool) -> Self {
        Self {
            state: Mutex::new(State {
                base: content.clone(),
                content,
                recording: true,
                named,
                base_named: named,
                ..State::default()
            }),
            delay: Mutex::default(),
        }
    }

    /// Fails operations from now on as the plan says.
    pub fn set_plan(&self, plan: SimPlan) {
        *self.delay.lock() = plan.delay;
        self.state.lock().dice = Dice::new(plan);
    }

    /// How many operations the plan has failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state.lock().dice.failures
    }

    /// The moment now: how many events the log holds. What ended before belongs to every image of
    /// this moment and later ones.
    #[must_use]
    pub fn now(&self) -> usize {
        self.state.lock().log.len()
    }

    /// The changes so far, in the order in which they began.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let state = self.state.lock();
        let begun = state.log.iter().filter_map(|event| match event {
            Event::Begin(_, change) => Some(change.clone()),
            Event::End(_) => None,
        });
        begun.collect()
    }

    /// Starts the log anew: what the disk holds now is durable.
    pub fn settle(&self) {
        let mut state = self.state.lock();
        state.base = state.content.clone();
        state.base_named = state.named;
        state.log.clear();
    }

    /// Stops or resumes recording (long runs that need no images).
    pub fn record(&self, on: bool) {
        self.settle();
        self.state.lock().recording = on;
    }

    /// A disk with the same contents and nothing else in common.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state.lock();
        Self::of(state.content.clone(), state.named)
    }

    /// Changes the block at `offset` behind everybody's back. Images show it only when the log is
    /// empty ([`SimDisk::settle`], [`SimDisk::copy`]).
    pub fn corrupt(&self, offset: u64, change: impl FnOnce(&mut [u8; BLOCK])) {
        let mut state = self.state.lock();
        let number = offset / BLOCK as u64;
        let mut bytes = [0; BLOCK];
        state.content.get(number, &mut bytes);
        change(&mut bytes);
        state.content.blocks.insert(number, Arc::new(bytes));
        if state.log.is_empty() {
            state.base = state.content.clone();
        }
    }

    /// Flips the bits of `mask` in the byte at `offset`.
    pub fn flip(&self, offset: u64, mask: u8) {
        let at = (offset % BLOCK as u64) as usize;
        self.corrupt(offset, |block| block[at] ^= mask);
    }

    /// Makes reads that touch the block at `offset` fail with EIO, or work again.
    pub fn set_unreadable(&self, offset: u64, unreadable: bool) {
        let mut state = self.state.lock();
        let number = offset / BLOCK as u64;
        if unreadable {
            state.unreadable.insert(number);
        } else {
            state.unreadable.remove(&number);
        }
    }

    /// Runs one change: begins, takes its time, fails or ends.
    fn run(&self, change: Change) -> Result<()> {
        let (id, failed) = {
            let mut state = self.state.lock();
            let id = state.next;
            state.next += 1;
            let verdict = state.dice.judge(&change);
            let (shown, failed) = match verdict {
                Verdict::Run => (change.clone(), None),
                Verdict::Fail { keep } => (plan::cut(&change, keep), Some(id)),
            };
            // Seen by reads at once, as a cache shows it; durable or not is for the log.
            match &shown {
                Change::Write { offset, blocks } | Change::WriteDurable { offset, blocks } => {
                    state.content.put(*offset, blocks);
                }
                Change::Resize(size) if failed.is_none() => state.content.resize(*size),
                Change::Resize(_) | Change::Flush | Change::SyncName => {}
            }
            // A size that was refused is no event; what failed otherwise may have done its part.
            let refused = failed.is_some() && matches!(shown, Change::Resize(_));
            if state.recording && !refused {
                state.log.push(Event::Begin(id, shown));
            }
            (id, failed)
        };
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        if failed.is_some() {
            let what = match change {
                Change::Write { offset, .. } => format!("write at {offset}"),
                Change::WriteDurable { offset, .. } => format!("write durably at {offset}"),
                Change::Resize(size) => format!("resize to {size}"),
                Change::Flush => "flush".to_owned(),
                Change::SyncName => "make the name durable".to_owned(),
            };
            return Err(Error::os(libc::EIO, format!("{what} of a simulated disk")));
        }
        let mut state = self.state.lock();
        if state.recording {
            state.log.push(Event::End(id));
        }
        if matches!(change, Change::SyncName) {
            state.named = true;
        }
        Ok(())
    }
}

/// Cuts memory into blocks to keep.
fn blocks_of(bytes: &[u8]) -> Vec<Block> {
    let block = |chunk: &[u8]| {
        let mut block = [0; BLOCK];
        block.copy_from_slice(chunk);
        Arc::new(block)
    };
    bytes.chunks_exact(BLOCK).map(block).collect()
}

impl Disk for SimDisk {
    fn size(&self) -> u64 {
        self.state.lock().content.size
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.run(Change::Resize(size / BLOCK as u64 * BLOCK as u64))
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        check(self, "read", offset, into)?;
        let mut state = self.state.lock();
        let first = offset / BLOCK as u64;
        let last = first + (into.len() / BLOCK) as u64;
        if state.dice.judge_read() || state.unreadable.range(first..last).next().is_some() {
            into.fill(0xa5);
            let what = format!("read {} bytes at {offset} of a simulated disk", into.len());
            return Err(Error::os(libc::EIO, what).with_offset(offset));
        }
        for (number, block) in (first..).zip(into.chunks_exact_mut(BLOCK)) {
            state.content.get(number, block);
        }
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        check(self, "write", offset, from)?;
        let blocks = blocks_of(from);
        self.run(Change::Write { offset, blocks })
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        check(self, "write durably", offset, from)?;
        let blocks = blocks_of(from);
        self.run(Change::WriteDurable { offset, blocks })
    }

    fn flush(&self) -> Result<()> {
        self.run(Change::Flush)
    }

    fn sync_name(&self) -> Result<()> {
        self.run(Change::SyncName)
    }

    fn discard(&self, offset: u64, size: u64) -> Result<()> {
        let start = offset.next_multiple_of(BLOCK as u64);
        let end = (offset + size).min(self.size()) / BLOCK as u64 * BLOCK as u64;
        let blocks = (end.saturating_sub(start) / BLOCK as u64) as usize;
        let offset = start;
        // The bytes are gone as after a write of zeros.
        let zeros: Block = Arc::new([0; BLOCK]);
        let blocks = std::iter::repeat_n(zeros, blocks).collect();
        self.run(Change::Write { offset, blocks })
    }
}

/// No such disk: its name was not durable when the crash came.
pub(super) fn nameless() -> Error {
    let message = "open a simulated disk: its name was not made durable before the crash";
    Error::new(ErrorKind::NotFound, message)
}
