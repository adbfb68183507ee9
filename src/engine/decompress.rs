//! Compressed chunks in memory of the device, decompressed there.

use super::buffer::Buffer;
use super::context::Context;
use super::kernel_slot::{KernelSlot, SLOT_SIZE};
use crate::device::{
    DecompressChunk, DecompressCodec, DecompressStatus, DecompressWork, Device, MemoryKind,
};
use crate::error::{Error, ErrorKind, Result};

/// Where the chunks of a launch lie in a slot; the number of the next one is before them.
const CHUNKS_AT: usize = align_of::<DecompressChunk>();
/// Chunks of one launch.
const CHUNKS_MAX: usize = (SLOT_SIZE - CHUNKS_AT) / size_of::<DecompressChunk>();

const _: () = assert!(CHUNKS_AT >= size_of::<u64>());

/// A compressed chunk and where its content goes.
#[derive(Debug, Clone, Copy)]
pub struct Compressed<'a> {
    /// How it is compressed.
    pub codec: DecompressCodec,
    /// Where it lies.
    pub from: &'a Buffer,
    /// Offset there, bytes.
    pub from_offset: u64,
    /// Its bytes.
    pub from_size: u64,
    /// Where its content goes. Outputs of one call do not overlap, nor any chunk.
    pub to: &'a Buffer,
    /// Offset there, bytes.
    pub to_offset: u64,
    /// Bytes that must come out.
    pub to_size: u64,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decompressed {
    /// `Ok`, or what is wrong with it. Its output holds anything then.
    pub status: DecompressStatus,
    /// Where in the chunk, bytes.
    pub at: u64,
}

impl Context {
    /// Decompresses chunks by a kernel, a warp a chunk: worth it for hundreds of them. Waits, in a
    /// stream of its own: what the caller's streams do with the memory must be done before. Nothing
    /// outside a chunk's output is written, whatever stands in it. From many threads at once; each
    /// that was ever inside keeps 1 MiB of device and pinned memory for the next call. What is not
    /// for the kernel goes to the vendor's library where there is one (`can_decompress`), which
    /// trusts it (`device::nvcomp`).
    ///
    /// # Errors
    /// `NotSupported` where the device has no such kernel, or no memory for its work: copy the
    /// chunks to the host. `OutOfRange`; `InvalidArgument` for a buffer of another context;
    /// `InvalidPointer` for ordinary memory; `Cuda`.
    pub fn decompress(&self, chunks: &[Compressed<'_>]) -> Result<Vec<Decompressed>> {
        for chunk in chunks {
            self.check_reach(chunk.from, chunk.from_offset, chunk.from_size)?;
            self.check_reach(chunk.to, chunk.to_offset, chunk.to_size)?;
        }
        if let Some(done) = self.decompress_mixed(chunks)? {
            return Ok(done);
        }
        let shared = &self.inner().shared;
        let device = &*shared.device;
        device.decompress_prepare()?;
        let slot = shared.kernels.take(&shared.device)?;
        let mut done = Vec::with_capacity(chunks.len());
        let result = chunks
            .chunks(CHUNKS_MAX)
            .try_for_each(|some| launch(device, &slot, some, &mut done));
        shared.kernels.settle(device, slot, result.is_err());
        result.map(|()| done)
    }

    fn check_reach(&self, buffer: &Buffer, offset: u64, size: u64) -> Result<()> {
        buffer.check_range(self.inner(), offset, size)?;
        if buffer.kind() == MemoryKind::Pageable {
            return Err(Error::new(
                ErrorKind::InvalidPointer,
                "decompress in ordinary memory: the device does not reach it; pin it first",
            ));
        }
        Ok(())
    }
}

/// One launch; waits.
fn launch(
    device: &dyn Device,
    slot: &KernelSlot,
    chunks: &[Compressed<'_>],
    done: &mut Vec<Decompressed>,
) -> Result<()> {
    let Some(scratch) = &slot.scratch else {
        return Err(Error::new(
            ErrorKind::NotSupported,
            "decompress on the device: it has no memory for the list of chunks",
        ));
    };
    let (stream, memory) = (slot.stream.get(), slot.memory.pointer());
    let size = size_of_val(chunks);
    let table = memory.wrapping_add(CHUNKS_AT).cast::<DecompressChunk>();
    let sent = CHUNKS_AT + chunks.len() * size_of::<DecompressChunk>();
    debug_assert!(size > 0 && sent <= SLOT_SIZE);
    for (n, chunk) in chunks.iter().enumerate() {
        let chunk = DecompressChunk {
            from: chunk.from.address() + chunk.from_offset,
            from_size: chunk.from_size,
            to: chunk.to.address() + chunk.to_offset,
            to_size: chunk.to_size,
            codec: chunk.codec as u32,
            status: DecompressStatus::Unsupported as u32,
            at: 0,
        };
        // SAFETY: the table fits the slot's memory, which is aligned to a page, and nothing of an
        // earlier launch uses it.
        unsafe { table.add(n).write(chunk) };
    }
    let work = DecompressWork {
        chunks: scratch.address + CHUNKS_AT as u64,
        count: chunks.len() as u64,
        next: scratch.address,
    };
    // SAFETY: slot and buffers stay until the stream was waited for, by this function or, after a
    // failure, when the slot is given back; the scratch memory is as large as the pinned one.
    unsafe {
        memory.cast::<u64>().write(0);
        device.copy_to_device(scratch.address, memory, sent, stream)?;
        device.decompress_chunks(&work, stream)?;
        device.copy_from_device(memory, scratch.address, sent, stream)?;
    }
    device.stream_synchronize(stream)?;
    for n in 0..chunks.len() {
        // SAFETY: the device's copy of the table was read back, and the stream has passed.
        let chunk = unsafe { table.add(n).read() };
        done.push(Decompressed {
            status: status_of(chunk.status),
            at: chunk.at,
        });
    }
    Ok(())
}

fn status_of(number: u32) -> DecompressStatus {
    use DecompressStatus as S;
    let known = [
        S::Ok,
        S::Truncated,
        S::Offset,
        S::TooLong,
        S::TooShort,
        S::Header,
        S::Unsupported,
        S::Trailing,
    ];
    let found = known.into_iter().find(|s| *s as u32 == number);
    found.unwrap_or(S::Unsupported)
}
