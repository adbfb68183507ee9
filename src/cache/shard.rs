//! A shard: some of the frames, what is in them, and the policy that clears them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::files::FileState;
use super::fill::Fill;
use super::key::Key;
use super::policy::{Frames, Policy};
use super::table::Table;
use super::word::{BUSY, DIRTY, REF};

/// What is in one frame.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Its place in the page table; `None` while the frame is empty.
    pub(super) slot: Option<u32>,
    /// Its page of the file.
    pub(super) page: u64,
    pub(super) file: Option<Arc<FileState>>,
    /// Where to wait while the page is on its way in or out.
    pub(super) fill: Option<Arc<Fill>>,
    /// When the changed page has to be written, nanoseconds of `base::clock`; 0 while clean.
    pub(super) due: u64,
}

/// What changes under the lock of a shard.
pub(super) struct ShardState {
    /// By number within the shard.
    pub(super) frames: Box<[Frame]>,
    /// Empty frames.
    pub(super) free: Vec<u32>,
    pub(super) policy: Box<dyn Policy>,
}

/// One shard. Its lock is never held during I/O or copies.
pub(super) struct Shard {
    state: Mutex<ShardState>,
    /// Told when a page stops to be busy.
    pub(super) changed: Condvar,
}

pub(super) type Guard<'a> = MutexGuard<'a, ShardState>;

impl Shard {
    pub(super) fn new(frames: u32, policy: Box<dyn Policy>) -> Self {
        Self {
            state: Mutex::new(ShardState {
                frames: (0..frames).map(|_| Frame::default()).collect(),
                free: (0..frames).rev().collect(),
                policy,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> Guard<'_> {
        self.state.lock()
    }

    pub(super) fn try_lock(&self) -> Option<Guard<'_>> {
        self.state.try_lock()
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shard")
    }
}

impl ShardState {
    /// Whether a page of the shard is on its way in or out, or being written.
    pub(super) fn any_busy(&self, table: &Table) -> bool {
        let slots = self.frames.iter().filter_map(|frame| frame.slot);
        slots
            .into_iter()
            .any(|slot| table.slot(slot).word.state().has(BUSY))
    }

    /// The frame that the policy gives up.
    pub(super) fn victim(&mut self, table: &Table, terms: &Terms<'_>) -> Option<u32> {
        let view = View {
            frames: &self.frames,
            table,
            terms,
        };
        self.policy.victim(&view)
    }
}

/// Which pages may go.
#[derive(Debug, Default)]
pub(super) struct Terms<'a> {
    /// Changed pages too, after they were written.
    pub(super) dirty: bool,
    /// Sleep where all pages are pinned or busy, until none is busy.
    pub(super) wait: bool,
    /// Frames that stay.
    pub(super) keep: Option<&'a HashSet<u32>>,
    /// The page that room is made for.
    pub(super) wanted: Option<Key>,
    /// Frames whose page could not be written just now.
    pub(super) refused: Vec<u32>,
}

struct View<'a> {
    frames: &'a [Frame],
    table: &'a Table,
    terms: &'a Terms<'a>,
}

impl Frames for View<'_> {
    fn is_evictable(&self, frame: u32) -> bool {
        let Some(slot) = self.frames.get(frame as usize).and_then(|f| f.slot) else {
            return false;
        };
        let state = self.table.slot(slot).word.state();
        state.is_idle()
            && (self.terms.dirty || !state.has(DIRTY))
            && !self.terms.refused.contains(&frame)
            && !self
                .terms
                .keep
                .is_some_and(|kept| kept.contains(&state.frame()))
    }

    fn take_referenced(&self, frame: u32) -> bool {
        let Some(slot) = self.frames.get(frame as usize).and_then(|f| f.slot) else {
            return false;
        };
        let word = &self.table.slot(slot).word;
        word.state().has(REF) && word.clear(REF).has(REF)
    }
}
