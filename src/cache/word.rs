//! The page word: what is known of one page, in 64 bits that change together.
//!
//! Frame, pins and flags share a word, so a hit pins a page with one addition and learns in the
//! same step whether the page is there and in which frame. A pin may be added to a word that has
//! just stopped to be valid; it is taken back at once. So everything but the two compare-exchange
//! steps adds or masks and leaves the pins alone.
//!
//! VALID, BUSY, DIRTY and the frame change under the shard's lock only; pins, REF and PREFETCHED
//! change at any time. Generic over the atomic, so that loom runs the same code
//! (`tests/cache_loom.rs`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

const FRAME_MASK: u64 = 0xFFFF_FFFF;
const PIN: u64 = 1 << 32;
const PINS_MASK: u64 = 0x00FF_FFFF << 32;
/// Pins that are given out at most; the rest of the field is room for pins on their way back.
const PINS_MAX: u32 = 0x007F_FFFF;

/// The frame holds the page.
pub const VALID: u64 = 1 << 56;
/// Without VALID: on its way in or out. With VALID: being written back.
pub const BUSY: u64 = 1 << 57;
/// The frame holds what the file does not.
pub const DIRTY: u64 = 1 << 58;
/// Used since the policy last looked.
pub const REF: u64 = 1 << 59;
/// Read ahead and not used yet.
pub const PREFETCHED: u64 = 1 << 60;
/// The cache holds a file that this page can be written to.
pub const WRITABLE: u64 = 1 << 61;
/// The cache was closed while the page was pinned.
pub const ORPHAN: u64 = 1 << 62;
/// Fewer bytes of it than a page are the file's; how many is kept beside the table.
pub const SHORT: u64 = 1 << 63;

/// What the page word needs of an atomic number. All operations order what comes before and
/// after them as acquire and release do.
pub trait Word {
    /// The value now.
    fn load(&self) -> u64;
    /// Replaces `current` by `new`.
    ///
    /// # Errors
    /// The value that was there instead.
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64>;
    /// Adds, wrapping; the value before.
    fn fetch_add(&self, value: u64) -> u64;
    /// Subtracts, wrapping; the value before.
    fn fetch_sub(&self, value: u64) -> u64;
    /// Sets bits; the value before.
    fn fetch_or(&self, bits: u64) -> u64;
    /// Keeps only these bits; the value before.
    fn fetch_and(&self, bits: u64) -> u64;
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Acquire)
    }

    #[inline]
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        Self::compare_exchange(self, current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    #[inline(always)]
    fn fetch_add(&self, value: u64) -> u64 {
        Self::fetch_add(self, value, Ordering::AcqRel)
    }

    #[inline(always)]
    fn fetch_sub(&self, value: u64) -> u64 {
        Self::fetch_sub(self, value, Ordering::AcqRel)
    }

    #[inline]
    fn fetch_or(&self, bits: u64) -> u64 {
        Self::fetch_or(self, bits, Ordering::AcqRel)
    }

    #[inline]
    fn fetch_and(&self, bits: u64) -> u64 {
        Self::fetch_and(self, bits, Ordering::AcqRel)
    }
}

/// A page word as it was at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(pub u64);

impl State {
    /// The frame that holds the page.
    #[inline(always)]
    #[must_use]
    pub fn frame(self) -> u32 {
        (self.0 & FRAME_MASK) as u32
    }

    /// Holders of the page.
    #[inline(always)]
    #[must_use]
    pub fn pins(self) -> u32 {
        ((self.0 & PINS_MASK) / PIN) as u32
    }

    /// Whether all of these flags are set.
    #[inline(always)]
    #[must_use]
    pub fn has(self, flags: u64) -> bool {
        self.0 & flags == flags
    }

    /// Whether the page can be taken out: there, not pinned, not on its way to the file. It may
    /// be dirty.
    #[must_use]
    pub fn is_idle(self) -> bool {
        self.has(VALID) && !self.has(BUSY) && self.pins() == 0
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {}, {} pins", self.frame(), self.pins())?;
        let names = [
            (VALID, "valid"),
            (BUSY, "busy"),
            (DIRTY, "dirty"),
            (REF, "ref"),
            (PREFETCHED, "prefetched"),
            (WRITABLE, "writable"),
            (ORPHAN, "orphan"),
            (SHORT, "short"),
        ];
        for (_, name) in names.iter().filter(|(flag, _)| self.has(*flag)) {
            write!(f, ", {name}")?;
        }
        Ok(())
    }
}

/// The word of one page. All zero: no page.
#[derive(Debug, Default)]
pub struct PageWord<W>(W);

impl<W: Word> PageWord<W> {
    /// A word over an atomic that is 0.
    pub const fn new(atomic: W) -> Self {
        Self(atomic)
    }

    /// What it says now.
    #[inline(always)]
    pub fn state(&self) -> State {
        State(self.0.load())
    }

    /// Pins the page if it is there. Any thread, no lock.
    #[inline(always)]
    pub fn pin(&self) -> Option<State> {
        let before = State(self.0.fetch_add(PIN));
        if before.has(VALID) && before.pins() < PINS_MAX {
            return Some(before);
        }
        self.0.fetch_sub(PIN);
        None
    }

    /// Gives a pin back. What the word said with it.
    #[inline(always)]
    pub fn unpin(&self) -> State {
        State(self.0.fetch_sub(PIN))
    }

    /// As `unpin`, but only if the page is pinned and in this frame: for callers that may be
    /// wrong about it.
    #[inline]
    pub fn unpin_checked(&self, frame: u32) -> Option<State> {
        let mut now = self.state();
        while now.has(VALID) && now.frame() == frame && now.pins() > 0 {
            match self.0.compare_exchange(now.0, now.0 - PIN) {
                Ok(before) => return Some(State(before)),
                Err(other) => now = State(other),
            }
        }
        None
    }

    /// Sets flags that hold while the page is pinned: REF, WRITABLE, DIRTY.
    pub fn set(&self, flags: u64) -> State {
        State(self.0.fetch_or(flags))
    }

    /// Clears flags. What the word said before.
    pub fn clear(&self, flags: u64) -> State {
        State(self.0.fetch_and(!flags))
    }

    /// Gives an empty word a frame that is being filled. Under the shard's lock.
    pub fn begin_fill(&self, frame: u32) {
        self.0.fetch_add(BUSY | u64::from(frame));
    }

    /// The page is there: `pins` holders get it at once. Under the shard's lock.
    pub fn publish(&self, pins: u32, flags: u64) -> State {
        let change = VALID + flags + u64::from(pins) * PIN;
        State(self.0.fetch_add(change.wrapping_sub(BUSY)))
    }

    /// Empties a busy word. Under the shard's lock.
    pub fn abandon(&self) {
        self.0.fetch_and(PINS_MASK);
    }

    /// Takes an idle clean page out of use: BUSY, no more VALID. Under the shard's lock.
    pub fn begin_evict(&self) -> Option<State> {
        let mut now = self.state();
        while now.is_idle() && !now.has(DIRTY) {
            let flags = VALID | REF | PREFETCHED | WRITABLE;
            match self.0.compare_exchange(now.0, (now.0 & !flags) | BUSY) {
                Ok(before) => return Some(State(before)),
                Err(other) => now = State(other),
            }
        }
        None
    }

    /// Starts the write-back of a dirty page. A page that is pinned stays dirty, since its holder
    /// may still change it. Under the shard's lock.
    pub fn begin_write(&self) -> Option<State> {
        let mut now = self.state();
        while now.has(VALID | DIRTY) && !now.has(BUSY) {
            let keep = if now.pins() == 0 { !DIRTY } else { !0 };
            match self.0.compare_exchange(now.0, (now.0 & keep) | BUSY) {
                Ok(before) => return Some(State(before)),
                Err(other) => now = State(other),
            }
        }
        None
    }

    /// Ends a write-back; one that failed leaves the page dirty. Under the shard's lock.
    pub fn end_write(&self, written: bool) -> State {
        if !written {
            self.set(DIRTY);
        }
        self.clear(BUSY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(frame: u32, pins: u32, flags: u64) -> PageWord<AtomicU64> {
        let word = PageWord::new(AtomicU64::new(0));
        word.begin_fill(frame);
        word.publish(pins, flags);
        word
    }

    #[test]
    fn a_pin_on_a_page_that_is_not_there_leaves_no_trace() {
        let word = PageWord::new(AtomicU64::new(0));
        assert!(word.pin().is_none());
        word.begin_fill(u32::MAX);
        assert!(word.pin().is_none());
        word.publish(3, REF);
        let state = word.state();
        assert_eq!((state.frame(), state.pins()), (u32::MAX, 3));
        assert!(state.has(VALID | REF) && !state.has(BUSY));
    }

    #[test]
    fn pinned_and_dirty_pages_are_not_taken_out() {
        let word = filled(7, 1, 0);
        assert!(word.begin_evict().is_none());
        word.unpin();
        word.set(DIRTY);
        assert!(word.begin_evict().is_none());
        word.clear(DIRTY);
        assert_eq!(word.begin_evict().map(State::frame), Some(7));
        word.abandon();
        assert_eq!(word.state(), State(0));
    }

    #[test]
    fn a_pinned_page_stays_dirty_through_its_write_back() {
        let word = filled(1, 1, DIRTY);
        assert!(word.begin_write().is_some() && word.begin_write().is_none());
        word.end_write(true);
        assert!(word.state().has(DIRTY));
        word.unpin();
        assert!(word.begin_write().is_some());
        assert!(word.pin().is_some(), "it can be read meanwhile");
        word.end_write(true);
        assert!(!word.state().has(DIRTY));
        word.set(DIRTY);
        word.unpin();
        assert!(word.begin_write().is_some());
        word.end_write(false);
        assert!(word.state().has(DIRTY), "it was not written");
    }

    #[test]
    fn a_wrong_release_changes_nothing() {
        let word = filled(9, 1, 0);
        assert!(word.unpin_checked(8).is_none());
        assert!(word.unpin_checked(9).is_some());
        assert!(word.unpin_checked(9).is_none());
        assert_eq!(word.state().pins(), 0);
    }
}
