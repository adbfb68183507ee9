//! A page in somebody's hands.

use std::fmt;

use super::core::Core;
use super::table::{Anchor, Slot};
use super::word::{DIRTY, ORPHAN, State};
use crate::error::{Error, ErrorKind, Result};

/// A page of a file in device memory, pinned: it stays where it is until this is dropped. May be
/// handed to another thread, and may outlive the cache and the file that it came from.
pub struct Page {
    core: Anchor<Core>,
    address: u64,
    offset: u64,
    slot: u32,
    size: u32,
    frame: u32,
    writable: bool,
}

impl Page {
    #[inline(always)]
    pub(super) fn new(
        core: Anchor<Core>,
        (slot, state): (u32, State),
        offset: u64,
        writable: bool,
    ) -> Self {
        let frame = state.frame();
        Self {
            address: core.address + core.place(frame),
            offset,
            slot,
            size: core.valid(state),
            frame,
            writable,
            core,
        }
    }

    /// Its first byte: a device pointer.
    #[inline]
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes of it that are the file's: the page size, or less at the end of the file. The rest
    /// is zero.
    #[inline]
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Where it is in the file, bytes.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Says that its bytes were changed, or will be while it is held: they are written to the
    /// file after it was released. Writes only its `size()` bytes.
    ///
    /// # Errors
    /// `ReadOnly` when the file was not opened for writing.
    pub fn mark_dirty(&self) -> Result<()> {
        if !self.writable {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "the page at {} was asked for by a file that is not open for writing; open \
                     it for reading and writing",
                    self.offset
                ),
            ));
        }
        if !self.core.table.slot(self.slot).word.state().has(DIRTY) {
            self.core.change(self.slot, 0);
        }
        Ok(())
    }

    /// Lets go of the page without releasing it. For `Cache::release_token`.
    #[must_use]
    pub fn into_token(self) -> u64 {
        let token = token(self.slot, self.frame);
        std::mem::forget(self);
        token
    }
}

/// A slot and its frame, as one number that is not 0.
fn token(slot: u32, frame: u32) -> u64 {
    (u64::from(slot) + 1) << 32 | u64::from(frame)
}

/// The slot and the frame of a token.
fn of_token(token: u64) -> Option<(u32, u32)> {
    let slot = u32::try_from((token >> 32).checked_sub(1)?).ok()?;
    Some((slot, token as u32))
}

impl Core {
    /// A slot that may hold the page of a token.
    #[inline]
    fn slot_of_token(&self, token: u64) -> Option<(u32, u32, &Slot)> {
        let (slot, frame) = of_token(token)?;
        let known = self.table.get(slot)?;
        Some((slot, frame, known))
    }

    /// Says whether the page was held.
    #[inline]
    pub(super) fn release_token(&self, token: u64) -> bool {
        let released = self
            .slot_of_token(token)
            .and_then(|(_, frame, known)| known.word.unpin_checked(frame));
        released.is_some()
    }

    pub(super) fn mark_token(&self, token: u64) -> Result<()> {
        let (slot, frame, known) = self.slot_of_token(token).ok_or_else(not_held)?;
        let state = known.word.state();
        if state.frame() != frame || state.pins() == 0 {
            return Err(not_held());
        }
        if !state.has(super::word::WRITABLE) {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the file of the page is not open for writing; open it for reading and writing",
            ));
        }
        if !state.has(DIRTY) {
            self.change(slot, 0);
        }
        Ok(())
    }
}

#[cold]
pub(super) fn not_held() -> Error {
    let text = "the page was released before or never came from this cache";
    Error::new(ErrorKind::InvalidArgument, text)
}

impl Drop for Page {
    #[inline(always)]
    fn drop(&mut self) {
        let before = self.core.table.slot(self.slot).word.unpin();
        if before.has(ORPHAN) && before.pins() == 1 {
            // The cache went before: this pin kept it.
            drop(self.core.orphan_gone());
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Page({} bytes at {}, address {:#x})",
            self.size, self.offset, self.address
        )
    }
}
