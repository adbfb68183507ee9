//! CRC32C of the chunks of buffers, computed where the bytes are: device memory by a kernel, host
//! memory by the processor. Where the device has no such kernel its memory is copied to the host.

use super::buffer::Buffer;
use super::context::Context;
use super::kernel_slot::{KernelSlot, SLOT_SIZE, Scratch};
use crate::base::{crc, limits};
use crate::device::{CrcRange, CrcVerdict, CrcWork, Device, MemoryKind};
use crate::error::{Error, ErrorKind, Result};

/// Where the ranges of a launch lie in a slot; the verdict is before them, the values behind.
const RANGES_AT: usize = size_of::<CrcVerdict>();

/// One CRC of each of 250,000 chunks fits a slot, and the largest chunk does.
const _: () = assert!(SLOT_SIZE as u64 >= limits::CRC_CHUNK_MAX);
const _: () = assert!(RANGES_AT.is_multiple_of(align_of::<CrcRange>()));

/// A range of a buffer, not empty.
#[derive(Debug, Clone, Copy)]
struct Part {
    address: u64,
    size: u64,
    /// Number of its first chunk, counted through all parts.
    first: u64,
    on_device: bool,
}

/// What is wanted of the CRCs.
enum Task<'a> {
    Tell(&'a mut [u32]),
    Compare(&'a [u32]),
}

impl Task<'_> {
    /// Takes the CRC of a chunk. True if it is not what it should be.
    fn is_bad(&mut self, chunk: u64, crc: u32) -> bool {
        match self {
            Self::Tell(crcs) => {
                crcs[chunk as usize] = crc;
                false
            }
            Self::Compare(expected) => expected[chunk as usize] != crc,
        }
    }

    /// Takes the CRCs of the chunks in `bytes`, and tells the first bad one.
    fn take_bytes(&mut self, first: u64, bytes: &[u8], chunk_bytes: u64) -> Option<u64> {
        let mut chunks = (first..).zip(bytes.chunks(chunk_bytes as usize));
        chunks.find_map(|(number, chunk)| {
            self.is_bad(number, crc::crc32c(0, chunk)).then_some(number)
        })
    }
}

/// Ranges of one launch, numbered from 0 within it.
struct Batch {
    ranges: Vec<CrcRange>,
    /// Number of the first chunk among those of all parts.
    first: u64,
    chunks: u64,
}

/// Cuts parts into batches that fit a slot.
struct Batches<'a> {
    parts: &'a [Part],
    /// Bytes of the first part that are in batches already.
    done: u64,
    chunk_bytes: u64,
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch {
            ranges: Vec::new(),
            first: self.parts.first()?.first + self.done / self.chunk_bytes,
            chunks: 0,
        };
        let mut room = SLOT_SIZE - RANGES_AT;
        while let Some(part) = self.parts.first()
            && room >= size_of::<CrcRange>() + size_of::<u32>()
        {
            room -= size_of::<CrcRange>();
            let rest = part.size - self.done;
            let most = (room / size_of::<u32>()) as u64;
            let chunks = rest.div_ceil(self.chunk_bytes).min(most);
            let size = rest.min(chunks * self.chunk_bytes);
            batch.ranges.push(CrcRange {
                address: part.address + self.done,
                size,
                first: batch.chunks,
            });
            batch.chunks += chunks;
            room -= chunks as usize * size_of::<u32>();
            self.done += size;
            if self.done == part.size {
                self.parts = &self.parts[1..];
                self.done = 0;
            }
        }
        Some(batch)
    }
}

impl Context {
    /// CRC32C of each chunk of a range of a buffer, the last of which may be shorter. Waits, in a
    /// stream of its own: what the caller's streams do with the range must be done before. From
    /// many threads at once; each that was ever inside keeps 1 MiB of device and pinned memory for
    /// the next call.
    ///
    /// `chunk_bytes` is a power of two, `limits::CRC_CHUNK_MIN` to `limits::CRC_CHUNK_MAX`.
    ///
    /// # Errors
    /// `InvalidArgument` for another `chunk_bytes` or a buffer of another context, `OutOfRange`,
    /// `OutOfHostMemory`, `Cuda`.
    pub fn crc32c_chunks(
        &self,
        buffer: &Buffer,
        offset: u64,
        size: u64,
        chunk_bytes: u64,
    ) -> Result<Vec<u32>> {
        let (parts, count) = self.parts(&[(buffer, offset, size)], chunk_bytes)?;
        let mut crcs = Vec::new();
        let too_many = |_| {
            let text = format!("no memory for {count} CRCs; ask for less, or for larger chunks");
            Error::new(ErrorKind::OutOfHostMemory, text)
        };
        crcs.try_reserve_exact(count as usize).map_err(too_many)?;
        crcs.resize(count as usize, 0);
        self.run(&parts, chunk_bytes, &mut Task::Tell(&mut crcs))?;
        Ok(crcs)
    }

    /// Compares the CRC32C of every chunk of some ranges of buffers (buffer, offset, size) with
    /// what is expected, and tells the first chunk that differs, or None. Chunks are numbered
    /// through all ranges; a range ends with a chunk that may be shorter, and has none when it is
    /// empty. Waits, and takes threads, as `crc32c_chunks`.
    ///
    /// # Errors
    /// As `crc32c_chunks`, and `InvalidArgument` when `expected` has not one value a chunk.
    pub fn verify_chunks(
        &self,
        ranges: &[(&Buffer, u64, u64)],
        chunk_bytes: u64,
        expected: &[u32],
    ) -> Result<Option<u64>> {
        let (parts, count) = self.parts(ranges, chunk_bytes)?;
        if expected.len() as u64 != count {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} expected CRCs were given for {count} chunks of {chunk_bytes} bytes; give \
                     one a chunk",
                    expected.len()
                ),
            ));
        }
        self.run(&parts, chunk_bytes, &mut Task::Compare(expected))
    }

    /// Loads the kernel and takes the memory that `crc32c_chunks` and `verify_chunks` need.
    /// Without this their first call does, and the driver may make that wait for what runs on the
    /// device. A device without such a kernel is fine.
    ///
    /// # Errors
    /// `OutOfHostMemory`, `Cuda`.
    pub fn prepare_crc32c(&self) -> Result<()> {
        let shared = &self.inner().shared;
        shared.kernels.give(shared.kernels.take(&shared.device)?);
        has_kernel(&*shared.device).map(|_| ())
    }

    /// The ranges that are not empty, and the chunks of all.
    fn parts(&self, ranges: &[(&Buffer, u64, u64)], chunk_bytes: u64) -> Result<(Vec<Part>, u64)> {
        let allowed = limits::CRC_CHUNK_MIN..=limits::CRC_CHUNK_MAX;
        if !chunk_bytes.is_power_of_two() || !allowed.contains(&chunk_bytes) {
            let (least, most) = allowed.into_inner();
            let text = format!(
                "chunks of {chunk_bytes} bytes were asked for; give a power of two, {least} to \
                 {most}"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let (mut parts, mut first) = (Vec::with_capacity(ranges.len()), 0);
        for &(buffer, offset, size) in ranges {
            buffer.check_range(self.inner(), offset, size)?;
            if size > 0 {
                parts.push(Part {
                    address: buffer.address() + offset,
                    size,
                    first,
                    on_device: !matches!(buffer.kind(), MemoryKind::Pinned | MemoryKind::Pageable),
                });
            }
            first += size.div_ceil(chunk_bytes);
        }
        Ok((parts, first))
    }

    /// Does the task and tells the first bad chunk. `parts` come from buffers that the caller
    /// holds.
    fn run(&self, parts: &[Part], chunk_bytes: u64, task: &mut Task) -> Result<Option<u64>> {
        for some in parts.chunk_by(|a, b| a.on_device == b.on_device) {
            let bad = if some[0].on_device {
                self.run_on_device(some, chunk_bytes, task)?
            } else {
                some.iter().find_map(|part| {
                    // SAFETY: a checked range of a buffer of host memory that the caller holds.
                    let bytes = unsafe {
                        std::slice::from_raw_parts(part.address as *const u8, part.size as usize)
                    };
                    task.take_bytes(part.first, bytes, chunk_bytes)
                })
            };
            if bad.is_some() {
                return Ok(bad);
            }
        }
        Ok(None)
    }

    fn run_on_device(
        &self,
        parts: &[Part],
        chunk_bytes: u64,
        task: &mut Task,
    ) -> Result<Option<u64>> {
        let shared = &self.inner().shared;
        let device = &*shared.device;
        let slot = shared.kernels.take(&shared.device)?;
        let kernel = slot.scratch.is_some() && has_kernel(device)?;
        let result = match &slot.scratch {
            Some(scratch) if kernel => {
                let batches = Batches {
                    parts,
                    done: 0,
                    chunk_bytes,
                };
                let mut bad =
                    batches.map(|batch| launch(device, &slot, scratch, &batch, chunk_bytes, task));
                bad.find_map(Result::transpose).transpose()
            }
            _ => copy_and_look(device, &slot, parts, chunk_bytes, task),
        };
        shared.kernels.settle(device, slot, result.is_err());
        result
    }
}

/// Whether the device has the kernel. Without memory to load it, it has none for now.
fn has_kernel(device: &dyn Device) -> Result<bool> {
    match device.crc32c_prepare() {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::NotSupported | ErrorKind::OutOfDeviceMemory => Ok(false),
            _ => Err(error),
        },
    }
}

/// One launch over a batch of device memory; waits.
fn launch(
    device: &dyn Device,
    slot: &KernelSlot,
    scratch: &Scratch,
    batch: &Batch,
    chunk_bytes: u64,
    task: &mut Task,
) -> Result<Option<u64>> {
    let (stream, memory) = (slot.stream.get(), slot.memory.pointer());
    let numbers = batch.first as usize..(batch.first + batch.chunks) as usize;
    let values_at = RANGES_AT + size_of_val(&batch.ranges[..]);
    let values_size = batch.chunks as usize * size_of::<u32>();
    // SAFETY: verdict, ranges and values fit the slot's memory, which is aligned to a page, and
    // nothing of an earlier launch uses it.
    unsafe {
        memory.cast::<CrcVerdict>().write(CrcVerdict::NONE_BAD);
        let ranges = memory.add(RANGES_AT).cast::<CrcRange>();
        ranges.copy_from_nonoverlapping(batch.ranges.as_ptr(), batch.ranges.len());
    }
    // SAFETY: as above.
    let values = unsafe { memory.add(values_at).cast::<u32>() };
    let mut sent = values_at;
    if let Task::Compare(expected) = task {
        let expected = &expected[numbers.clone()];
        // SAFETY: as above; `expected` has one value a chunk.
        unsafe { values.copy_from_nonoverlapping(expected.as_ptr(), expected.len()) };
        sent += values_size;
    }
    let values_there = scratch.address + values_at as u64;
    let compares = matches!(task, Task::Compare(_));
    let work = CrcWork {
        ranges: scratch.address + RANGES_AT as u64,
        range_count: batch.ranges.len() as u64,
        chunk_count: batch.chunks,
        chunk_bytes,
        crcs: if compares { 0 } else { values_there },
        expected: if compares { values_there } else { 0 },
        verdict: scratch.address,
    };
    let (told_at, told_size) = if compares {
        (0, RANGES_AT)
    } else {
        (values_at, values_size)
    };
    // SAFETY: slot and buffers stay until the stream was waited for, by this function or, after
    // a failure, by its caller; the scratch memory is as large as the pinned one.
    unsafe {
        device.copy_to_device(scratch.address, memory, sent, stream)?;
        device.crc32c_chunks(&work, stream)?;
        let told = memory.add(told_at);
        device.copy_from_device(told, scratch.address + told_at as u64, told_size, stream)?;
    }
    device.stream_synchronize(stream)?;
    match task {
        Task::Tell(crcs) => {
            let crcs = &mut crcs[numbers];
            // SAFETY: the device wrote a value a chunk there, and the stream has passed.
            unsafe { values.copy_to_nonoverlapping(crcs.as_mut_ptr(), crcs.len()) };
            Ok(None)
        }
        Task::Compare(_) => {
            // SAFETY: the device wrote a verdict there, and the stream has passed.
            let verdict = unsafe { memory.cast::<CrcVerdict>().read() };
            Ok((verdict.bad > 0).then(|| batch.first + verdict.first_bad))
        }
    }
}

/// The same by the processor: the memory comes to the slot, piece by piece.
fn copy_and_look(
    device: &dyn Device,
    slot: &KernelSlot,
    parts: &[Part],
    chunk_bytes: u64,
    task: &mut Task,
) -> Result<Option<u64>> {
    let (stream, memory) = (slot.stream.get(), slot.memory.pointer());
    let step = SLOT_SIZE as u64 / chunk_bytes * chunk_bytes;
    for part in parts {
        let mut done = 0;
        while done < part.size {
            let size = step.min(part.size - done) as usize;
            // SAFETY: the range fits the slot's memory; slot and buffer stay until the stream was
            // waited for, by this function or, after a failure, by its caller.
            unsafe { device.copy_from_device(memory, part.address + done, size, stream)? };
            device.stream_synchronize(stream)?;
            // SAFETY: copied just above, and nobody else has the slot.
            let bytes = unsafe { std::slice::from_raw_parts(memory, size) };
            let first = part.first + done / chunk_bytes;
            let bad = task.take_bytes(first, bytes, chunk_bytes);
            if bad.is_some() {
                return Ok(bad);
            }
            done += size as u64;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(address: u64, size: u64, first: u64) -> Part {
        Part {
            address,
            size,
            first,
            on_device: true,
        }
    }

    #[test]
    fn batches_hold_every_byte_once_and_fit_the_slot() {
        let tib = 1 << 40;
        let mut parts = vec![part(4096, tib + 5, 0)];
        let mut first = (tib + 5).div_ceil(512);
        for i in 0..100_000 {
            let size = 1 + i % 1025;
            parts.push(part(1 << 50 | i << 12, size, first));
            first += size.div_ceil(512);
        }
        let (mut next, mut bytes, mut largest) = (0, 0, 0);
        let batches = Batches {
            parts: &parts,
            done: 0,
            chunk_bytes: 512,
        };
        for batch in batches {
            assert_eq!(batch.first, next);
            let size = RANGES_AT + batch.ranges.len() * 24 + batch.chunks as usize * 4;
            largest = largest.max(size);
            let mut chunks = 0;
            for range in &batch.ranges {
                assert_eq!(range.first, chunks);
                chunks += range.size.div_ceil(512);
                bytes += range.size;
            }
            assert_eq!(chunks, batch.chunks);
            next += chunks;
        }
        assert!(
            SLOT_SIZE - 28 < largest && largest <= SLOT_SIZE,
            "{largest}"
        );
        assert_eq!(next, first);
        assert_eq!(bytes, parts.iter().map(|p| p.size).sum::<u64>());
    }
}
