//! Bytes of ordinary memory into buffers of any kind and out of them: for what was made by the
//! processor and belongs beside bytes that come from files. And of files into ordinary memory: for
//! what the processor has to understand first.

use super::buffer::Buffer;
use super::context::Context;
use super::file::File;
use super::staging::{INLINE_SIZE, InlineSlot};
use super::transfer::{Options, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Operation;

/// A run of bytes on its way to a buffer, through a slot.
#[derive(Clone, Copy)]
struct Staged {
    /// Where in the slot.
    at: usize,
    size: usize,
    address: u64,
}

impl Context {
    /// Copies bytes into buffers (bytes, buffer, offset), all together, and waits. What is queued
    /// on the caller's streams for these ranges must be done before.
    ///
    /// # Errors
    /// `OutOfRange`, `InvalidArgument` for a buffer of another context, `OutOfHostMemory`, `Cuda`.
    /// The bytes of the ranges are unspecified then.
    pub fn upload(&self, parts: &[(&[u8], &Buffer, u64)]) -> Result<()> {
        for (bytes, to, offset) in parts {
            to.check_range(self.inner(), *offset, bytes.len() as u64)?;
        }
        let (plain, far): (Vec<_>, Vec<_>) = parts
            .iter()
            .copied()
            .filter(|(bytes, ..)| !bytes.is_empty())
            .partition(|(_, to, _)| to.is_host_memory());
        for (bytes, to, offset) in plain {
            let place = (to.address() + offset) as *mut u8;
            // SAFETY: a checked range of host memory that the buffer keeps; ordinary bytes of Rust
            // do not lie in it, since nothing lends a buffer's memory out as bytes.
            unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        if far.is_empty() {
            return Ok(());
        }
        let shared = &self.inner().shared;
        let slot = shared.inline.take(&shared.device)?;
        let result = self.upload_through(&slot, &far);
        shared.inline.settle(&*shared.device, slot, result.is_err());
        result
    }

    fn upload_through(&self, slot: &InlineSlot, parts: &[(&[u8], &Buffer, u64)]) -> Result<()> {
        let mut staged: Vec<Staged> = Vec::new();
        let mut used = 0;
        for (bytes, to, offset) in parts {
            let mut address = to.address() + offset;
            let mut rest = *bytes;
            while !rest.is_empty() {
                let size = rest.len().min(INLINE_SIZE - used);
                // SAFETY: the slot has INLINE_SIZE bytes that no copy reads.
                unsafe {
                    let place = slot.memory.pointer().add(used);
                    place.copy_from_nonoverlapping(rest.as_ptr(), size);
                }
                let at = used;
                staged.push(Staged { at, size, address });
                used += size;
                address += size as u64;
                rest = &rest[size..];
                if used == INLINE_SIZE {
                    self.send(slot, &mut staged)?;
                    used = 0;
                }
            }
        }
        self.send(slot, &mut staged)
    }

    /// Fills a range of a buffer with zeroes, and waits. What is queued on the caller's streams for
    /// the range must be done before.
    ///
    /// # Errors
    /// As `upload`.
    pub fn zero(&self, buffer: &Buffer, offset: u64, size: u64) -> Result<()> {
        buffer.check_range(self.inner(), offset, size)?;
        if size == 0 {
            return Ok(());
        }
        let address = buffer.address() + offset;
        if buffer.is_host_memory() {
            // SAFETY: a checked range of host memory that the buffer keeps.
            unsafe { (address as *mut u8).write_bytes(0, size as usize) };
            return Ok(());
        }
        let shared = &self.inner().shared;
        let slot = shared.inline.take(&shared.device)?;
        let (device, stream) = (&shared.device, slot.stream.get());
        // SAFETY: a checked range of a buffer that the caller holds, and the stream is waited for.
        let result = unsafe { device.memory_zero(address, size, stream) }
            .and_then(|()| device.stream_synchronize(stream));
        shared.inline.settle(&**device, slot, result.is_err());
        result
    }

    /// Copies what is staged, and waits.
    fn send(&self, slot: &InlineSlot, staged: &mut Vec<Staged>) -> Result<()> {
        let (device, stream) = (&self.inner().shared.device, slot.stream.get());
        for part in staged.drain(..) {
            // SAFETY: `upload_through` filled this part of the slot, the target is a checked range
            // of a buffer that the caller holds, and the stream is waited for below.
            unsafe {
                let source = slot.memory.pointer().add(part.at);
                device.copy_to_device(part.address, source, part.size, stream)?;
            }
        }
        device.stream_synchronize(stream)
    }

    /// Copies bytes of a buffer into ordinary memory, and waits. What is queued on the caller's
    /// streams for the range must be done before.
    ///
    /// # Errors
    /// As `upload`. `into` holds anything then.
    pub fn download(&self, from: &Buffer, offset: u64, into: &mut [u8]) -> Result<()> {
        from.check_range(self.inner(), offset, into.len() as u64)?;
        let address = from.address() + offset;
        if into.is_empty() {
            return Ok(());
        }
        if from.is_host_memory() {
            // SAFETY: a checked range of host memory that the buffer keeps.
            unsafe {
                let place = address as *const u8;
                into.as_mut_ptr()
                    .copy_from_nonoverlapping(place, into.len());
            }
            return Ok(());
        }
        let shared = &self.inner().shared;
        let slot = shared.inline.take(&shared.device)?;
        let result = self.download_through(&slot, address, into);
        shared.inline.settle(&*shared.device, slot, result.is_err());
        result
    }

    fn download_through(&self, slot: &InlineSlot, address: u64, into: &mut [u8]) -> Result<()> {
        let (device, stream) = (&self.inner().shared.device, slot.stream.get());
        for (number, piece) in into.chunks_mut(INLINE_SIZE).enumerate() {
            let source = address + (number * INLINE_SIZE) as u64;
            let memory = slot.memory.pointer();
            // SAFETY: the slot holds INLINE_SIZE bytes, and the source is a checked range of a
            // buffer that the caller holds.
            unsafe { device.copy_from_device(memory, source, piece.len(), stream)? };
            device.stream_synchronize(stream)?;
            // SAFETY: the copy into the slot is over.
            unsafe {
                piece
                    .as_mut_ptr()
                    .copy_from_nonoverlapping(memory, piece.len())
            };
        }
        Ok(())
    }
}

impl Context {
    /// Reads ranges of a file into ordinary memory, all of them whole (offset, memory), and waits:
    /// bulk that the processor has to decode. The transfer threads share the work.
    ///
    /// # Errors
    /// `FileChanged` when the file ends before a range does, and what the file says.
    pub fn read_into(&self, file: &File, parts: Vec<(u64, &mut [u8])>) -> Result<()> {
        let mut transfers = Vec::with_capacity(parts.len());
        let mut wanted = 0;
        for (offset, memory) in parts.into_iter().filter(|(_, memory)| !memory.is_empty()) {
            let (address, size) = (memory.as_mut_ptr() as u64, memory.len() as u64);
            wanted += size;
            transfers.push(Transfer {
                operation: Operation::Read,
                file: file.clone(),
                file_offset: offset,
                buffer: Buffer::wrap(self.inner(), address, size)?,
                buffer_offset: 0,
                size,
            });
        }
        if transfers.is_empty() {
            return Ok(());
        }
        // The memory is lent until this returns, and `wait` returns when no transfer touches it.
        let done = self.submit(transfers, &Options::default())?.wait(None)?;
        if done.bytes < wanted {
            let message = format!(
                "read {wanted} bytes of {}: it ended after {} of them; it became shorter",
                file.path().display(),
                done.bytes
            );
            return Err(Error::new(ErrorKind::FileChanged, message).with_path(file.path()));
        }
        Ok(())
    }
}

impl File {
    /// Reads into ordinary memory through the page cache, and waits: metadata, not bulk. Bytes
    /// read, fewer when the file ends.
    ///
    /// # Errors
    /// What the file says.
    pub fn read_bytes(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let io = &self.0.context.shared.io;
        io.read_whole(self.0.descriptors.buffered(), into, offset)
            .map_err(|errno| {
                let size = into.len() as u64;
                self.0.io_error(errno, Operation::Read, offset, size)
            })
    }
}
