//! Pinned memory of the engine: slabs for transfer threads and small slots for callers' threads.
//! All of it is reused; the driver is slow to pin.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::device::{Device, Stream};
use crate::error::Result;

/// Pinned memory that is given back when dropped. Whoever drops it has waited for its copies.
pub(super) struct Slab {
    device: Arc<dyn Device>,
    pointer: *mut u8,
    size: usize,
}

// SAFETY: a slab is plain memory with one owner; the device takes calls from any thread.
unsafe impl Send for Slab {}
// SAFETY: a shared slab gives out its address only.
unsafe impl Sync for Slab {}

impl Slab {
    pub(super) fn new(device: &Arc<dyn Device>, size: usize) -> Result<Self> {
        let pointer = device.pinned_alloc(size)?;
        Ok(Self {
            device: device.clone(),
            pointer,
            size,
        })
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        self.pointer
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: from `pinned_alloc` with this size, and no copy is under way.
        unsafe { self.device.pinned_free(self.pointer, self.size) };
    }
}

/// A stream that is destroyed when dropped.
pub(super) struct OwnedStream {
    device: Arc<dyn Device>,
    stream: Stream,
}

impl OwnedStream {
    pub(super) fn new(device: &Arc<dyn Device>) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            stream: device.stream_create()?,
        })
    }

    pub(super) fn get(&self) -> Stream {
        self.stream
    }
}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        // SAFETY: made by `stream_create`, used by its owner alone.
        unsafe { self.device.stream_destroy(self.stream) };
    }
}

/// Bytes of a caller's slot: the largest transfer that runs in the caller's thread through
/// staging, with room for unaligned edges.
pub(super) const INLINE_SIZE: usize = 256 << 10;

/// Bytes up to which a copy to the device starts from ordinary memory.
pub(super) const LITTLE_SIZE: usize = 16 << 10;

/// Ordinary memory, aligned for direct I/O.
#[repr(C, align(4096))]
struct Little([u8; LITTLE_SIZE]);

/// A stream and a little pinned memory for one transfer in a caller's thread.
pub(super) struct InlineSlot {
    pub(super) stream: OwnedStream,
    pub(super) memory: Slab,
    little: Box<Little>,
}

impl InlineSlot {
    /// Memory for `size` bytes on their way to the device. A few bytes arrive sooner from ordinary
    /// memory: the driver puts them into the command, and the device need not fetch them.
    pub(super) fn memory_for(&mut self, size: usize) -> *mut u8 {
        if size <= LITTLE_SIZE {
            return self.little.0.as_mut_ptr();
        }
        self.memory.pointer()
    }
}

/// Slots for callers' threads: as many as threads were ever inside at once.
#[derive(Default)]
pub(super) struct InlinePool(Mutex<Vec<InlineSlot>>);

impl InlinePool {
    pub(super) fn take(&self, device: &Arc<dyn Device>) -> Result<InlineSlot> {
        if let Some(slot) = self.0.lock().pop() {
            return Ok(slot);
        }
        Ok(InlineSlot {
            stream: OwnedStream::new(device)?,
            memory: Slab::new(device, INLINE_SIZE)?,
            little: Box::new(Little([0; LITTLE_SIZE])),
        })
    }

    pub(super) fn give(&self, slot: InlineSlot) {
        self.0.lock().push(slot);
    }

    /// As `give`, after a use that may have `failed` and left a copy under way: the slot is used
    /// again only when it is idle.
    pub(super) fn settle(&self, device: &dyn Device, slot: InlineSlot, failed: bool) {
        let stream = slot.stream.get();
        if let Some(slot) = idle(device, stream, slot, failed) {
            self.give(slot);
        }
    }
}

/// What may be used again of memory that work in `stream` uses, after a call that may have
/// `failed` and left some of it under way.
pub(super) fn idle<T>(device: &dyn Device, stream: Stream, memory: T, failed: bool) -> Option<T> {
    if failed && device.stream_synchronize(stream).is_err() {
        // The driver has failed for good: the memory must stay.
        std::mem::forget(memory);
        return None;
    }
    Some(memory)
}
