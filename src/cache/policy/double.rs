//! Frames whose bits a test sets by hand.

use std::cell::{Cell, RefCell};

use super::Frames;

/// REF bits and pins of a few frames, and how often they were looked at.
pub(super) struct Bits {
    referenced: RefCell<Vec<bool>>,
    pinned: RefCell<Vec<bool>>,
    always: Cell<bool>,
    visits: Cell<usize>,
}

impl Bits {
    pub(super) fn new(frames: usize) -> Self {
        Self {
            referenced: RefCell::new(vec![false; frames]),
            pinned: RefCell::new(vec![false; frames]),
            always: Cell::new(false),
            visits: Cell::new(0),
        }
    }

    pub(super) fn refer(&self, frame: u32) {
        self.referenced.borrow_mut()[frame as usize] = true;
    }

    pub(super) fn clear(&self, frame: u32) {
        self.referenced.borrow_mut()[frame as usize] = false;
    }

    /// From now on every page was hit whenever it is asked.
    pub(super) fn always_refer(&self) {
        self.always.set(true);
    }

    pub(super) fn pin(&self, frame: u32, pinned: bool) {
        self.pinned.borrow_mut()[frame as usize] = pinned;
    }

    /// Visits since the last call.
    pub(super) fn take_visits(&self) -> usize {
        self.visits.take()
    }
}

impl Frames for Bits {
    fn is_evictable(&self, frame: u32) -> bool {
        self.visits.set(self.visits.get() + 1);
        !self.pinned.borrow()[frame as usize]
    }

    fn take_referenced(&self, frame: u32) -> bool {
        self.always.get() || std::mem::take(&mut self.referenced.borrow_mut()[frame as usize])
    }
}
