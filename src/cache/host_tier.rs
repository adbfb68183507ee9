//! The second tier: pages that had to leave the device, in pinned host memory.
//!
//! A page is in one tier or the other: it is taken out of here when it goes back to the device.
//! So the order here is that of leaving the device, and the clock's hand passes each page once.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use parking_lot::Mutex;

use super::key::Key;
use crate::engine::{Buffer, Context, MemoryKind};
use crate::error::Result;

/// A page that was taken out. Its memory is the taker's until `give_back`.
#[derive(Debug)]
pub(super) struct Taken {
    frame: u32,
    pub(super) offset: u64,
    pub(super) valid: u32,
}

pub(super) struct HostTier {
    pub(super) memory: Buffer,
    page_size: u64,
    state: Mutex<State>,
}

struct State {
    pages: HashMap<Key, u32>,
    /// By frame; `None` while empty or being copied.
    frames: Box<[Option<(Key, u32)>]>,
    free: Vec<u32>,
    hand: usize,
}

impl HostTier {
    pub(super) fn new(context: &Context, page_size: u32, bytes: u64) -> Result<Self> {
        let page_size = u64::from(page_size);
        let count = u32::try_from(bytes / page_size).unwrap_or(u32::MAX);
        Ok(Self {
            memory: context.alloc(MemoryKind::Pinned, u64::from(count) * page_size)?,
            page_size,
            state: Mutex::new(State {
                pages: HashMap::with_capacity(count as usize),
                frames: (0..count).map(|_| None).collect(),
                free: (0..count).rev().collect(),
                hand: 0,
            }),
        })
    }

    /// Pages here.
    pub(super) fn count(&self) -> u64 {
        self.state.lock().pages.len() as u64
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.state.lock().pages.contains_key(&key)
    }

    /// Takes a page out.
    pub(super) fn take(&self, key: Key) -> Option<Taken> {
        let mut state = self.state.lock();
        let frame = state.pages.remove(&key)?;
        let (_, valid) = state.frames[frame as usize].take()?;
        Some(Taken {
            frame,
            offset: u64::from(frame) * self.page_size,
            valid,
        })
    }

    /// The memory of a page that was taken is free.
    pub(super) fn give_back(&self, taken: Taken) {
        self.state.lock().free.push(taken.frame);
    }

    /// Drops a page.
    pub(super) fn forget(&self, key: Key) {
        if let Some(taken) = self.take(key) {
            self.give_back(taken);
        }
    }

    /// Drops pages of a file. How many there were.
    pub(super) fn forget_range(&self, file: u64, pages: &Range<u64>) -> u64 {
        let within = |key: &&Key| key.file == file && pages.contains(&key.page);
        let keys: Vec<Key> = self
            .state
            .lock()
            .pages
            .keys()
            .filter(within)
            .copied()
            .collect();
        keys.iter().for_each(|key| self.forget(*key));
        keys.len() as u64
    }

    /// Keeps a page that `copy` brings to an offset of the memory. Says whether it did. `wanted`
    /// is not what goes for it: somebody is about to take it.
    pub(super) fn keep(
        &self,
        key: Key,
        valid: u32,
        wanted: Option<Key>,
        copy: impl FnOnce(u64) -> Result<()>,
    ) -> bool {
        let Some(frame) = self.state.lock().reserve(wanted) else {
            return false;
        };
        let copied = copy(u64::from(frame) * self.page_size).is_ok();
        let mut state = self.state.lock();
        if copied {
            state.frames[frame as usize] = Some((key, valid));
            state.pages.insert(key, frame);
        } else {
            state.free.push(frame);
        }
        copied
    }
}

impl State {
    /// An empty frame, or that of the page that the hand comes to first.
    fn reserve(&mut self, wanted: Option<Key>) -> Option<u32> {
        if let Some(frame) = self.free.pop() {
            return Some(frame);
        }
        for _ in 0..self.frames.len() {
            let frame = self.hand;
            self.hand = (self.hand + 1) % self.frames.len();
            let goes = |page: &mut (Key, u32)| Some(page.0) != wanted;
            if let Some((key, _)) = self.frames[frame].take_if(goes) {
                self.pages.remove(&key);
                return u32::try_from(frame).ok();
            }
        }
        None
    }
}

impl fmt::Debug for HostTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTier({} pages)", self.count())
    }
}
