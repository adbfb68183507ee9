//! Pinned memory of the engine: slabs for transfer threads, small slots for callers' threads, and
//! the words that CUDA streams wait on. All of it is reused; the driver is slow to pin.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::Release};

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

/// A stream and a little pinned memory for one transfer in a caller's thread.
pub(super) struct InlineSlot {
    pub(super) stream: OwnedStream,
    pub(super) memory: Slab,
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
        })
    }

    pub(super) fn give(&self, slot: InlineSlot) {
        self.0.lock().push(slot);
    }
}

const WORD_STRIDE: usize = 64;
const WORD_PAGE: usize = 4096;

/// Words that streams wait on. A word's value only grows, and streams wait for "at least", so a
/// word can be used again as soon as its last value is stored.
pub(super) struct WordPool {
    device: Arc<dyn Device>,
    free: Mutex<Words>,
}

#[derive(Default)]
struct Words {
    pages: Vec<Slab>,
    free: Vec<(usize, u32)>,
}

impl WordPool {
    pub(super) fn new(device: &Arc<dyn Device>) -> Arc<Self> {
        Arc::new(Self {
            device: device.clone(),
            free: Mutex::default(),
        })
    }

    pub(super) fn take(self: &Arc<Self>) -> Result<Word> {
        let mut words = self.free.lock();
        if words.free.is_empty() {
            let page = Slab::new(&self.device, WORD_PAGE)?;
            let start = page.pointer() as usize;
            words
                .free
                .extend((0..WORD_PAGE / WORD_STRIDE).map(|i| (start + i * WORD_STRIDE, 0)));
            words.pages.push(page);
        }
        let (address, last) = words.free.pop().unwrap_or_default();
        drop(words);
        let value = last.wrapping_add(1);
        Ok(Word {
            pool: self.clone(),
            address,
            value,
            stored: AtomicBool::new(false),
        })
    }
}

/// A word in pinned memory that a stream waits for. Stored at the latest when dropped, so that a
/// stream never waits for ever.
pub(super) struct Word {
    pool: Arc<WordPool>,
    address: usize,
    value: u32,
    stored: AtomicBool,
}

impl Word {
    pub(super) fn pointer(&self) -> *const u32 {
        self.address as *const u32
    }

    pub(super) fn value(&self) -> u32 {
        self.value
    }

    /// Lets the stream go on.
    pub(super) fn store(&self) {
        if self.stored.swap(true, Relaxed) {
            return;
        }
        // SAFETY: the address is an aligned word of a page that the pool keeps.
        let word = unsafe { AtomicU32::from_ptr(self.address as *mut u32) };
        word.store(self.value, Release);
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        self.store();
        self.pool.free.lock().free.push((self.address, self.value));
    }
}

impl fmt::Debug for WordPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WordPool")
    }
}
