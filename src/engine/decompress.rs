//! Compressed chunks in memory of the device, decompressed there.

use super::buffer::Buffer;
use super::context::Context;
use super::kernel_slot::{KernelSlot, SLOT_SIZE};
use crate::device::{
    DecompressChunk, DecompressCodec, DecompressStatus, DecompressWork, Device, MemoryKind,
    SNAPPY_BLOCK, SNAPPY_WHOLE,
};
use crate::error::{Error, ErrorKind, Result};

/// Where the chunks of a launch lie in a slot; the numbers of the next ones are before them.
const CHUNKS_AT: usize = 2 * size_of::<u64>();
/// Chunks of one launch.
const CHUNKS_MAX: usize = (SLOT_SIZE - CHUNKS_AT) / size_of::<DecompressChunk>();

/// Most parts that a chunk is taken apart into.
const PARTS_MAX: u64 = 4096;

const _: () = assert!(CHUNKS_AT.is_multiple_of(align_of::<DecompressChunk>()));
const _: () = assert!((PARTS_MAX as usize) < CHUNKS_MAX);

/// How many times as long as a thread of the host a warp takes for a chunk that is not taken apart;
/// libcudf assumes the same of its blocks.
const WARP_RATIO: u64 = 32;

/// Whether chunks of `total` bytes, the longest of `longest`, are worth the device's while when a
/// warp takes one from end to end, where the host has so many threads for them: many short ones
/// are, few long ones are not.
#[must_use]
pub fn warps_pay(total: u64, longest: u64, threads: u64) -> bool {
    total / threads.max(1) >= longest.saturating_mul(WARP_RATIO)
}

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
    /// Decompresses chunks by a kernel, a warp a chunk, of Snappy one for each 64 KiB that come
    /// out: worth it for hundreds of them. Waits, in a stream of its own: what the caller's streams
    /// do with the memory must be done before. Nothing outside a chunk's output is written,
    /// whatever stands in it. From many threads at once; each that was ever inside keeps 1 MiB of
    /// device and pinned memory for the next call. What is not for the kernel goes to the vendor's
    /// library where there is one (`can_decompress`), which trusts it (`device::nvcomp`).
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
        let result = decompress_all(device, &slot, chunks);
        shared.kernels.settle(device, slot, result.is_err());
        result
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

/// Parts that a chunk is taken apart into: 1 when it is not.
fn parts_of(chunk: &Compressed<'_>) -> u64 {
    let parts = chunk.to_size.div_ceil(SNAPPY_BLOCK);
    match chunk.codec {
        DecompressCodec::Snappy if (2..=PARTS_MAX).contains(&parts) => parts,
        _ => 1,
    }
}

fn decompress_all(
    device: &dyn Device,
    slot: &KernelSlot,
    chunks: &[Compressed<'_>],
) -> Result<Vec<Decompressed>> {
    let mut done = Vec::with_capacity(chunks.len());
    // Chunks that were taken apart for nothing: once more, whole.
    let mut again = Vec::new();
    let mut rest = chunks;
    while !rest.is_empty() {
        let mut room = CHUNKS_MAX as u64;
        let fits = |chunk: &&Compressed<'_>| {
            let parts = parts_of(chunk);
            let needed = if parts > 1 { parts + 1 } else { 1 };
            room.checked_sub(needed).map(|left| room = left).is_some()
        };
        let (some, behind) = rest.split_at(rest.iter().take_while(fits).count());
        let first = done.len();
        launch(device, slot, some, parts_of, &mut done)?;
        let bad = |n: &usize| done[*n].status != DecompressStatus::Ok && parts_of(&chunks[*n]) > 1;
        again.extend((first..done.len()).filter(bad));
        rest = behind;
    }
    for some in again.chunks(CHUNKS_MAX) {
        let list: Vec<_> = some.iter().map(|n| chunks[*n]).collect();
        let mut whole = Vec::with_capacity(list.len());
        launch(device, slot, &list, |_| 1, &mut whole)?;
        for (n, found) in some.iter().zip(whole) {
            done[*n] = found;
        }
    }
    Ok(done)
}

/// One launch; waits. Chunks whose parts are not all well are `Unsupported`.
fn launch(
    device: &dyn Device,
    slot: &KernelSlot,
    chunks: &[Compressed<'_>],
    parts_of: impl Fn(&Compressed<'_>) -> u64,
    done: &mut Vec<Decompressed>,
) -> Result<()> {
    let Some(scratch) = &slot.scratch else {
        return Err(Error::new(
            ErrorKind::NotSupported,
            "decompress on the device: it has no memory for the list of chunks",
        ));
    };
    // Those that are taken apart, then all others and their parts.
    let (mut wholes, mut rows) = (Vec::new(), Vec::new());
    let count = chunks.iter().filter(|chunk| parts_of(chunk) > 1).count();
    let mut places = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let parts = parts_of(chunk);
        let place = count + rows.len();
        places.push(place..place + parts as usize);
        let row = DecompressChunk {
            from: chunk.from.address() + chunk.from_offset,
            from_size: chunk.from_size,
            to: chunk.to.address() + chunk.to_offset,
            to_size: chunk.to_size,
            codec: chunk.codec as u32,
            status: DecompressStatus::Unsupported as u32,
            at: 0,
        };
        if parts == 1 {
            rows.push(row);
            continue;
        }
        wholes.push(DecompressChunk {
            codec: SNAPPY_WHOLE,
            status: place as u32,
            at: parts,
            ..row
        });
        rows.extend((0..parts).map(|_| DecompressChunk { codec: 0, ..row }));
    }
    wholes.extend(rows);
    let (stream, memory) = (slot.stream.get(), slot.memory.pointer());
    let table = memory.wrapping_add(CHUNKS_AT).cast::<DecompressChunk>();
    let sent = CHUNKS_AT + wholes.len() * size_of::<DecompressChunk>();
    debug_assert!(!chunks.is_empty() && sent <= SLOT_SIZE);
    let work = DecompressWork {
        chunks: scratch.address + CHUNKS_AT as u64,
        count: wholes.len() as u64,
        next: scratch.address,
        wholes: count as u64,
    };
    // SAFETY: the table fits the slot's memory, which is aligned to a page, and nothing of an
    // earlier launch uses it. Slot and buffers stay until the stream was waited for, by this
    // function or, after a failure, when the slot is given back; the scratch memory is as large as
    // the pinned one.
    unsafe {
        memory.write_bytes(0, CHUNKS_AT);
        table.copy_from_nonoverlapping(wholes.as_ptr(), wholes.len());
        device.copy_to_device(scratch.address, memory, sent, stream)?;
        device.decompress_chunks(&work, stream)?;
        device.copy_from_device(memory, scratch.address, sent, stream)?;
    }
    device.stream_synchronize(stream)?;
    // SAFETY: the device's copy of the table was read back, and the stream has passed.
    let table = unsafe { std::slice::from_raw_parts(table, wholes.len()) };
    for (chunk, own) in chunks.iter().zip(places) {
        let parts = &table[own];
        let bad = parts
            .iter()
            .any(|part| part.status != DecompressStatus::Ok as u32);
        done.push(match parts {
            [only] => Decompressed {
                status: status_of(only.status),
                at: only.at,
            },
            _ if bad => Decompressed {
                status: DecompressStatus::Unsupported,
                at: 0,
            },
            _ => Decompressed {
                status: DecompressStatus::Ok,
                at: chunk.from_size,
            },
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
