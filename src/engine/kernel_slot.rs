//! What a call that runs a kernel for its caller needs: a stream, pinned memory for what it says to
//! the kernel, and as much memory of the device.

use std::sync::Arc;

use parking_lot::Mutex;

use super::staging::{OwnedStream, Slab, idle};
use crate::device::Device;
use crate::error::{ErrorKind, Result};

/// Bytes of a slot's pinned memory, and of its memory of the device.
pub(super) const SLOT_SIZE: usize = 1 << 20;

/// Device memory that is given back when dropped. Whoever drops it has waited for its work.
pub(super) struct Scratch {
    device: Arc<dyn Device>,
    pub(super) address: u64,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: from `memory_alloc` with this size, and nothing uses it.
        unsafe { self.device.memory_free(self.address, SLOT_SIZE as u64) };
    }
}

/// What one call needs.
pub(super) struct KernelSlot {
    pub(super) stream: OwnedStream,
    pub(super) memory: Slab,
    /// None while the device has no memory left.
    pub(super) scratch: Option<Scratch>,
}

/// Slots for callers' threads: as many as threads were ever inside at once.
#[derive(Default)]
pub(super) struct KernelPool(Mutex<Vec<KernelSlot>>);

impl KernelPool {
    pub(super) fn take(&self, device: &Arc<dyn Device>) -> Result<KernelSlot> {
        let mut slot = match self.0.lock().pop() {
            Some(slot) => slot,
            None => KernelSlot {
                stream: OwnedStream::new(device)?,
                memory: Slab::new(device, SLOT_SIZE)?,
                scratch: None,
            },
        };
        if slot.scratch.is_none() {
            slot.scratch = match device.memory_alloc(SLOT_SIZE as u64) {
                Ok(address) => Some(Scratch {
                    device: device.clone(),
                    address,
                }),
                Err(error) if error.kind() == ErrorKind::OutOfDeviceMemory => None,
                Err(error) => return Err(error),
            };
        }
        Ok(slot)
    }

    pub(super) fn give(&self, slot: KernelSlot) {
        self.0.lock().push(slot);
    }

    /// As `give`, after a use that may have `failed` and left work under way.
    pub(super) fn settle(&self, device: &dyn Device, slot: KernelSlot, failed: bool) {
        let stream = slot.stream.get();
        if let Some(slot) = idle(device, stream, slot, failed) {
            self.give(slot);
        }
    }
}
