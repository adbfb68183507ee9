//! A transfer's place in the caller's stream.
//!
//! A kernel in the stream copies what transfer threads publish in a ring of pinned memory, and
//! ends when they close it. The stream so waits for file I/O alone and never for copies of other
//! streams: those may share a hardware queue with it and stand behind it.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use parking_lot::Mutex;

use super::staging::Slab;
use crate::device::{CopyPiece, Device, STREAM_MOVE_BLOCKS, Stream, StreamControl, StreamEntry};
use crate::error::Result;

/// Offsets in a ring's memory: the control block, a cache line apart the progress, the entries.
const PROGRESS_OFFSET: usize = 64;
const ENTRIES_OFFSET: usize = PROGRESS_OFFSET + STREAM_MOVE_BLOCKS * size_of::<u64>();
/// Rings that are pinned before they are needed.
const PRIMED: usize = 16;

const _: () = assert!(size_of::<StreamControl>() <= PROGRESS_OFFSET);
const _: () = assert!(ENTRIES_OFFSET.is_multiple_of(align_of::<StreamEntry>()));

/// Rings of one context. A ring comes back when its job is over and is used again once its kernel
/// has ended.
pub(super) struct RingPool {
    device: Arc<dyn Device>,
    /// Entries of each ring: one for every staging slot, each of which is published once a time.
    capacity: usize,
    rings: Mutex<Vec<Slab>>,
}

/// A ring of one transfer. Dropping it closes it, so that a stream never waits for ever.
pub(super) struct Ring {
    pool: Arc<RingPool>,
    memory: Option<Slab>,
    launched: bool,
    next: Mutex<u64>,
}

impl RingPool {
    pub(super) fn new(device: &Arc<dyn Device>, slots: usize) -> Arc<Self> {
        Arc::new(Self {
            device: device.clone(),
            capacity: slots.next_power_of_two(),
            rings: Mutex::default(),
        })
    }

    /// Pins rings before work of the caller's can hold that back.
    pub(super) fn prime(&self) -> Result<()> {
        for _ in 0..PRIMED {
            let memory = self.pin()?;
            self.rings.lock().push(memory);
        }
        Ok(())
    }

    fn pin(&self) -> Result<Slab> {
        let size = ENTRIES_OFFSET + self.capacity * size_of::<StreamEntry>();
        let memory = Slab::new(&self.device, size)?;
        for word in progress(&memory) {
            word.store(u64::MAX, Relaxed);
        }
        Ok(memory)
    }

    /// A ring whose last kernel has ended.
    pub(super) fn take(self: &Arc<Self>) -> Result<Ring> {
        let idle = {
            let mut rings = self.rings.lock();
            let found = rings.iter().position(has_ended);
            found.map(|index| rings.swap_remove(index))
        };
        let memory = match idle {
            Some(memory) => memory,
            None => self.pin()?,
        };
        for word in progress(&memory) {
            word.store(0, Relaxed);
        }
        let start = memory.pointer() as u64;
        let control = StreamControl {
            started: 0.into(),
            closed: 0.into(),
            published: 0.into(),
            capacity: self.capacity as u64,
            ring: start + ENTRIES_OFFSET as u64,
            progress: start + PROGRESS_OFFSET as u64,
        };
        // SAFETY: the memory holds a control block and no kernel looks at it.
        unsafe { memory.pointer().cast::<StreamControl>().write(control) };
        Ok(Ring {
            pool: self.clone(),
            memory: Some(memory),
            launched: false,
            next: Mutex::new(0),
        })
    }
}

fn progress(memory: &Slab) -> &[AtomicU64] {
    let start = memory
        .pointer()
        .wrapping_add(PROGRESS_OFFSET)
        .cast::<AtomicU64>();
    // SAFETY: every ring has these words, aligned, used by atomic operations only.
    unsafe { std::slice::from_raw_parts(start, STREAM_MOVE_BLOCKS) }
}

fn has_ended(memory: &Slab) -> bool {
    progress(memory)
        .iter()
        .all(|word| word.load(Acquire) == u64::MAX)
}

impl Ring {
    fn memory(&self) -> Option<&Slab> {
        self.memory.as_ref()
    }

    fn control(&self) -> Option<&StreamControl> {
        // SAFETY: written by `take`; shared with the kernel through its atomic fields.
        self.memory()
            .map(|m| unsafe { &*m.pointer().cast::<StreamControl>() })
    }

    /// Puts the kernel into the caller's stream.
    pub(super) fn launch(&mut self, stream: Stream) -> Result<()> {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        let control = memory.pointer().cast::<StreamControl>();
        // SAFETY: the memory goes back to the pool, which waits for the kernel's end, and the
        // ring is closed at the latest when it is dropped.
        unsafe { self.pool.device.stream_move(control, stream)? };
        self.launched = true;
        Ok(())
    }

    /// Whether the stream has come to the kernel.
    pub(super) fn started(&self) -> bool {
        self.control().is_some_and(|c| c.started.load(Acquire) != 0)
    }

    /// Has the kernel copy pieces. Their number in the ring.
    ///
    /// # Safety
    /// `pieces` is pinned memory with `count` valid entries; it and their ranges stay valid until
    /// `passed`. No more entries are on their way than the context has staging slots.
    pub(super) unsafe fn publish(&self, pieces: *const CopyPiece, count: usize) -> u64 {
        let mut next = self.next.lock();
        let (Some(control), Some(memory)) = (self.control(), self.memory()) else {
            return *next;
        };
        let index = *next as usize & (self.pool.capacity - 1);
        let entries = memory
            .pointer()
            .wrapping_add(ENTRIES_OFFSET)
            .cast::<StreamEntry>();
        let entry = StreamEntry {
            pieces: pieces as u64,
            count: count as u64,
        };
        // SAFETY: the index is inside the ring, and the kernel has passed its last use.
        unsafe { entries.add(index).write_volatile(entry) };
        *next += 1;
        control.published.store(*next, Release);
        *next - 1
    }

    /// Whether the kernel has copied this entry.
    pub(super) fn passed(&self, index: u64) -> bool {
        self.memory()
            .is_some_and(|m| progress(m).iter().all(|word| word.load(Acquire) > index))
    }

    /// Lets the kernel end after what is published, and the caller's stream go on.
    pub(super) fn close(&self) {
        if let Some(control) = self.control() {
            control.closed.store(1, Release);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.close();
        if let Some(memory) = self.memory.take() {
            if !self.launched {
                for word in progress(&memory) {
                    word.store(u64::MAX, Relaxed);
                }
            }
            self.pool.rings.lock().push(memory);
        }
    }
}

impl Drop for RingPool {
    fn drop(&mut self) {
        // A kernel that has not seen its ring closed yet may still look at it.
        for memory in self.rings.get_mut() {
            while !has_ended(memory) && self.device.memory_free_total().is_ok() {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    }
}
