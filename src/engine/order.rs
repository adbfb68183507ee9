//! What rooms above need of the device: marks in a caller's stream, and copies between buffers.

use std::fmt;
use std::iter::Peekable;
use std::sync::Arc;

use super::Buffer;
use super::context::{Context, Inner};
use super::staging::{INLINE_SIZE, InlineSlot};
use crate::device::{CopyPiece, Device, Event, MemoryKind, Stream};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of one piece of a copy: a warp's share, so that a large copy fills the device.
const PIECE_SIZE: u64 = 64 << 10;
/// Pieces of one launch: as many as the descriptor memory holds.
const PIECES_MAX: usize = INLINE_SIZE / size_of::<CopyPiece>();

/// A copy from one buffer to another.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Where the bytes are.
    pub from: Buffer,
    /// Offset there, bytes.
    pub from_offset: u64,
    /// Where they go. The two ranges do not overlap.
    pub to: Buffer,
    /// Offset there, bytes.
    pub to_offset: u64,
    /// Bytes.
    pub size: u64,
}

/// A mark in a caller's stream, set again and again. On the host device, where a stream is the
/// calling thread, a mark has passed as soon as it is set.
pub struct Mark {
    context: Arc<Inner>,
    event: Event,
}

impl Mark {
    /// Marks the present end of `stream`; the mark before counts no more.
    ///
    /// # Errors
    /// `Cuda`.
    pub fn set(&self, stream: Stream) -> Result<()> {
        self.context.shared.device.event_record(self.event, stream)
    }

    /// Whether the stream has passed the mark. A mark that was never set has passed.
    ///
    /// # Errors
    /// `Cuda`, which may be an earlier failure of the caller's work.
    pub fn has_passed(&self) -> Result<bool> {
        self.context.shared.device.event_query(self.event)
    }

    /// Waits until the stream has passed the mark.
    ///
    /// # Errors
    /// As `has_passed`.
    pub fn wait(&self) -> Result<()> {
        self.context.shared.device.event_synchronize(self.event)
    }

    /// Makes later work in `stream` wait for the mark; the calling thread goes on.
    ///
    /// # Errors
    /// `Cuda`.
    pub fn hold(&self, stream: Stream) -> Result<()> {
        let device = &self.context.shared.device;
        device.stream_wait_event(stream, self.event)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: made by `event_create`, used by this mark alone.
        unsafe { self.context.shared.device.event_destroy(self.event) };
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({:?})", self.event)
    }
}

impl Context {
    /// Makes a mark that was never set.
    ///
    /// # Errors
    /// `Cuda`.
    pub fn mark(&self) -> Result<Mark> {
        let context = self.inner().clone();
        let event = context.shared.device.event_create()?;
        Ok(Mark { context, event })
    }

    /// Copies between buffers, all together, and waits. Ordinary memory cannot take part where
    /// the device is a GPU: pin it first.
    ///
    /// # Errors
    /// `OutOfRange`, `InvalidPointer` for ordinary memory, `InvalidArgument` for a buffer of
    /// another context, `Cuda`. The bytes of the destinations are unspecified then.
    pub fn copy(&self, copies: &[Copy]) -> Result<()> {
        for copy in copies {
            self.check_copy(copy)?;
        }
        let mut pieces = copies.iter().flat_map(pieces_of).peekable();
        if pieces.peek().is_none() {
            return Ok(());
        }
        let shared = &self.inner().shared;
        let slot = shared.inline.take(&shared.device)?;
        let result = copy_through(&slot, &*shared.device, pieces);
        shared.inline.settle(&*shared.device, slot, result.is_err());
        result
    }

    fn check_copy(&self, copy: &Copy) -> Result<()> {
        let is_host = self.inner().shared.device.is_host();
        for (buffer, offset) in [(&copy.from, copy.from_offset), (&copy.to, copy.to_offset)] {
            buffer.check_range(self.inner(), offset, copy.size)?;
            if buffer.kind() == MemoryKind::Pageable && !is_host {
                return Err(Error::new(
                    ErrorKind::InvalidPointer,
                    "the device cannot copy ordinary memory; register it as a buffer first",
                ));
            }
        }
        Ok(())
    }
}

/// Copies piece by piece through the slot's pinned memory, and waits.
fn copy_through(
    slot: &InlineSlot,
    device: &dyn Device,
    mut pieces: Peekable<impl Iterator<Item = CopyPiece>>,
) -> Result<()> {
    let (memory, stream) = (slot.memory.pointer().cast::<CopyPiece>(), slot.stream.get());
    while pieces.peek().is_some() {
        let mut count = 0;
        for piece in pieces.by_ref().take(PIECES_MAX) {
            // SAFETY: the slot's memory holds PIECES_MAX pieces and no kernel reads them.
            unsafe { memory.add(count).write(piece) };
            count += 1;
        }
        // SAFETY: the pieces lie in pinned memory, and the buffers, which the caller holds, have
        // the ranges. Both stay until the stream was waited for, here or, after a failure, when
        // the slot is given back.
        unsafe { device.copy_pieces(memory, count, stream)? };
        device.stream_synchronize(stream)?;
    }
    Ok(())
}

fn pieces_of(copy: &Copy) -> impl Iterator<Item = CopyPiece> + use<> {
    let source = copy.from.address() + copy.from_offset;
    let destination = copy.to.address() + copy.to_offset;
    let size = copy.size;
    (0..size.div_ceil(PIECE_SIZE)).map(move |index| {
        let at = index * PIECE_SIZE;
        CopyPiece {
            source: source + at,
            destination: destination + at,
            size: PIECE_SIZE.min(size - at),
        }
    })
}
