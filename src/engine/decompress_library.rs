//! Compressed chunks that the vendor's library decompresses in memory of the device.

use super::buffer::Buffer;
use super::context::Context;
use super::decompress::{Compressed, Decompressed};
use super::kernel_slot::{KernelSlot, SLOT_SIZE};
use crate::base::align_up;
use crate::device::{
    CopyPiece, DecompressCodec, DecompressStatus, Device, LibraryJob, LibraryNeeds, LibraryVerdict,
    LibraryWork, MemoryKind, Nvcomp,
};
use crate::error::{Error, ErrorKind, Result};

/// What each chunk takes of a slot: five numbers, a status with as much room, a piece to copy.
const PER_CHUNK: usize = 6 * size_of::<u64>() + size_of::<CopyPiece>();
/// Chunks of one launch.
const CHUNKS_MAX: usize = SLOT_SIZE / PER_CHUNK;
/// Bytes that come out of one launch, but for a larger chunk alone: its temporary memory is in
/// proportion.
const BYTES_MAX: u64 = 512 << 20;

impl Context {
    /// Whether chunks of this codec are decompressed on the device.
    ///
    /// # Errors
    /// What the device says, but not `NotSupported`.
    pub fn can_decompress(&self, codec: DecompressCodec) -> Result<bool> {
        let device = self.device();
        let able = match codec.is_for_the_kernel() {
            true => device.decompress_prepare(),
            false => device
                .library_needs(&LibraryJob {
                    codec,
                    count: 1,
                    largest: 1,
                    total: 1,
                })
                .map(|_| ()),
        };
        match able {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotSupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As `decompress`, where some of the chunks are for the library; `None` where none are.
    pub(super) fn decompress_mixed(
        &self,
        chunks: &[Compressed<'_>],
    ) -> Result<Option<Vec<Decompressed>>> {
        if chunks.iter().all(|chunk| chunk.codec.is_for_the_kernel()) {
            return Ok(None);
        }
        let unknown = Decompressed {
            status: DecompressStatus::Unsupported,
            at: 0,
        };
        let mut all = vec![unknown; chunks.len()];
        let of = |wanted: &dyn Fn(DecompressCodec) -> bool| -> Vec<usize> {
            let numbers = chunks.iter().enumerate();
            numbers
                .filter(|(_, c)| wanted(c.codec))
                .map(|(n, _)| n)
                .collect()
        };
        let own = of(&DecompressCodec::is_for_the_kernel);
        if !own.is_empty() {
            let list: Vec<_> = own.iter().map(|n| chunks[*n]).collect();
            for (n, done) in own.into_iter().zip(self.decompress(&list)?) {
                all[n] = done;
            }
        }
        for codec in [DecompressCodec::Zstd, DecompressCodec::Gzip] {
            let mut left = &of(&|c| c == codec)[..];
            while !left.is_empty() {
                let (now, later) = left.split_at(first_launch(chunks, left));
                self.by_library(codec, chunks, now, &mut all)?;
                left = later;
            }
        }
        Ok(Some(all))
    }

    /// One launch.
    fn by_library(
        &self,
        codec: DecompressCodec,
        chunks: &[Compressed<'_>],
        numbers: &[usize],
        all: &mut [Decompressed],
    ) -> Result<()> {
        let shared = &self.inner().shared;
        let sizes = || numbers.iter().map(|n| chunks[*n].to_size);
        let needs = shared.device.library_needs(&LibraryJob {
            codec,
            count: numbers.len() as u64,
            largest: sizes().max().unwrap_or(0),
            total: sizes().sum(),
        })?;
        let fits = |n: &usize| {
            let chunk = &chunks[*n];
            let to = chunk.to.address() + chunk.to_offset;
            chunk.to_size > 0 && chunk.from_size > 0 && to.is_multiple_of(needs.to_align)
        };
        let numbers: Vec<usize> = numbers.iter().copied().filter(fits).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let memory = Memory::new(self, chunks, &numbers, &needs)?;
        let slot = shared.kernels.take(&shared.device)?;
        let device = &*shared.device;
        let done = launch(device, &slot, codec, chunks, (&numbers, &memory));
        // What the launch uses stays until it is over.
        shared.kernels.settle(device, slot, done.is_err());
        drop(memory);
        for (n, done) in numbers.into_iter().zip(done?) {
            all[n] = done;
        }
        Ok(())
    }
}

/// How many of these chunks go into one launch: one at least.
fn first_launch(chunks: &[Compressed<'_>], numbers: &[usize]) -> usize {
    let mut total = 0u64;
    let more = numbers.iter().take(CHUNKS_MAX).take_while(|n| {
        total = total.saturating_add(chunks[**n].to_size);
        total <= BYTES_MAX
    });
    more.count().max(1)
}

/// Memory of the device for a launch.
struct Memory {
    temporary: Buffer,
    /// Room for chunks that do not begin where they must, and where each of them goes.
    aligned: Option<Buffer>,
    places: Vec<Option<u64>>,
}

impl Memory {
    fn new(
        context: &Context,
        chunks: &[Compressed<'_>],
        numbers: &[usize],
        needs: &LibraryNeeds,
    ) -> Result<Self> {
        // Ours begins at a multiple of 256, on any device.
        let largest = needs.from_align.max(needs.temporary_align);
        if largest > 256 || !largest.is_power_of_two() {
            let text = format!("decompress by a library that wants multiples of {largest}");
            return Err(Error::new(ErrorKind::NotSupported, text));
        }
        let mut size = 0;
        let mut places = Vec::with_capacity(numbers.len());
        for chunk in numbers.iter().map(|n| &chunks[*n]) {
            let address = chunk.from.address() + chunk.from_offset;
            if address.is_multiple_of(needs.from_align) {
                places.push(None);
                continue;
            }
            places.push(Some(size));
            size = align_up(size + chunk.from_size, needs.from_align).unwrap_or(u64::MAX);
        }
        let alloc = |size: u64| {
            let made = context.alloc(MemoryKind::Device, size.max(1));
            made.map_err(|error| match error.kind() {
                ErrorKind::OutOfDeviceMemory => {
                    Error::new(ErrorKind::NotSupported, error.message().to_owned())
                }
                _ => error,
            })
        };
        Ok(Self {
            temporary: alloc(needs.temporary)?,
            aligned: (size > 0).then(|| alloc(size)).transpose()?,
            places,
        })
    }
}

fn launch(
    device: &dyn Device,
    slot: &KernelSlot,
    codec: DecompressCodec,
    chunks: &[Compressed<'_>],
    (numbers, memory): (&[usize], &Memory),
) -> Result<Vec<Decompressed>> {
    let Some(scratch) = &slot.scratch else {
        let text = "decompress on the device: it has no memory for the list of chunks";
        return Err(Error::new(ErrorKind::NotSupported, text));
    };
    let (stream, pinned) = (slot.stream.get(), slot.memory.pointer());
    let count = numbers.len();
    debug_assert!(count * PER_CHUNK <= SLOT_SIZE);
    // Addresses and sizes of chunks, then of outputs, what comes out, and a status each.
    let mut table = vec![0u64; 6 * count];
    let mut pieces = Vec::new();
    for (at, (number, place)) in numbers.iter().zip(&memory.places).enumerate() {
        let chunk = &chunks[*number];
        let mut from = chunk.from.address() + chunk.from_offset;
        if let (Some(place), Some(aligned)) = (place, &memory.aligned) {
            let destination = aligned.address() + place;
            pieces.push(CopyPiece {
                source: from,
                destination,
                size: chunk.from_size,
            });
            from = destination;
        }
        table[at] = from;
        table[count + at] = chunk.from_size;
        table[2 * count + at] = chunk.to.address() + chunk.to_offset;
        table[3 * count + at] = chunk.to_size;
        // No status that there is.
        table[5 * count + at] = u64::MAX;
    }
    let (pieces_at, column) = (6 * count * size_of::<u64>(), (8 * count) as u64);
    let work = LibraryWork {
        codec,
        count: count as u64,
        from: scratch.address,
        from_sizes: scratch.address + column,
        to: scratch.address + 2 * column,
        to_sizes: scratch.address + 3 * column,
        done_sizes: scratch.address + 4 * column,
        statuses: scratch.address + 5 * column,
        temporary: memory.temporary.address(),
        temporary_size: memory.temporary.size(),
    };
    // SAFETY: table and pieces fit the slot's memory, pinned and of the device, which is aligned
    // to a page; slot, buffers and memory stay until the stream was waited for, here or, after a
    // failure, when the slot is given back. Addresses are aligned as the library wants them.
    unsafe {
        let list = pinned.wrapping_add(pieces_at).cast::<CopyPiece>();
        pinned.cast::<u64>().copy_from(table.as_ptr(), table.len());
        if !pieces.is_empty() {
            list.copy_from(pieces.as_ptr(), pieces.len());
            device.copy_pieces(list, pieces.len(), stream)?;
        }
        device.copy_to_device(scratch.address, pinned, pieces_at, stream)?;
        device.library_decompress(&work, stream)?;
        device.copy_from_device(pinned, scratch.address, pieces_at, stream)?;
    }
    device.stream_synchronize(stream)?;
    // SAFETY: the device's copy was read back, and the stream has passed.
    unsafe {
        pinned
            .cast::<u64>()
            .copy_to(table.as_mut_ptr(), table.len())
    };
    // Two to a word, the lower half first, as on every machine that has such a device.
    let statuses = table[5 * count..].iter();
    let statuses = statuses.flat_map(|two| [*two as i32, (two >> 32) as i32]);
    let made = statuses.take(count).enumerate().map(|(at, status)| {
        let (came, wanted) = (table[4 * count + at], table[3 * count + at]);
        let status = match Nvcomp::verdict(status) {
            LibraryVerdict::Done if came == wanted => DecompressStatus::Ok,
            LibraryVerdict::Done if came < wanted => DecompressStatus::TooShort,
            LibraryVerdict::Done | LibraryVerdict::TooLong => DecompressStatus::TooLong,
            LibraryVerdict::Unsupported => DecompressStatus::Unsupported,
            LibraryVerdict::Refused => DecompressStatus::Refused,
        };
        Decompressed { status, at: 0 }
    });
    Ok(made.collect())
}

const _: () = assert!(CHUNKS_MAX > 10_000);
