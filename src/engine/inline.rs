//! Small blocking transfers in the caller's own thread: no hand-over, no wake-up.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::choice;
use super::file::FileInner;
use super::plan::check_range;
use super::shared::Shared;
use super::staging::{INLINE_SIZE, InlineSlot};
use super::stopwatch::Stopwatch;
use super::transfer::{Completion, Options};
use super::{Buffer, Path};
use crate::base::crc::crc32c;
use crate::base::{align_down, align_up, is_aligned, limits};
use crate::config::PathPolicy;
use crate::error::Result;
use crate::io::Operation;
use crate::metrics::{Direction, Metrics};

/// Largest transfer between a file and device memory that runs in the caller's thread, bytes.
const DEVICE_MAX: u64 = 128 << 10;
/// Largest transfer between a file and host memory that runs in the caller's thread, bytes.
const HOST_MAX: u64 = 4 << 20;

/// One transfer in the caller's thread.
struct Small<'a> {
    shared: &'a Shared,
    file: &'a FileInner,
    operation: Operation,
    offset: u64,
    address: u64,
    size: u64,
    checksum: bool,
    retries: u32,
    fallbacks: u32,
}

/// Carries out the transfer here when it is small enough, or says `None`.
#[inline]
pub(super) fn try_run(
    file: &Arc<FileInner>,
    operation: Operation,
    offset: u64,
    buffer: &Buffer,
    buffer_offset: u64,
    size: u64,
    options: &Options,
) -> Result<Option<Completion>> {
    if operation == Operation::Read && options.is_plain() && file.reads_plainly {
        let found = read_warm(file, offset, buffer, buffer_offset, size);
        if let Some(result) = found {
            return result.map(Some);
        }
    }
    run(
        file,
        operation,
        offset,
        buffer,
        buffer_offset,
        size,
        options,
    )
}

/// A read into host memory of a file that is known to be warm: the same as `run`, with as little
/// around the system call as can be. `None` where `run` has to look closer.
#[inline]
fn read_warm(
    file: &Arc<FileInner>,
    offset: u64,
    buffer: &Buffer,
    buffer_offset: u64,
    size: u64,
) -> Option<Result<Completion>> {
    // Both ends are within limits where the sums do not wrap.
    let fits = buffer_offset
        .checked_add(size)
        .is_some_and(|end| end <= buffer.size())
        && offset
            .checked_add(size)
            .is_some_and(|end| end <= limits::TRANSFER_SIZE_MAX);
    if !fits
        || size == 0
        || size > HOST_MAX
        || !buffer.is_host_memory()
        || !Arc::ptr_eq(&file.context, buffer.inner())
        || !choice::is_known_warm(file, size)
    {
        return None;
    }
    let stopwatch = Stopwatch::start();
    let pointer = (buffer.address() + buffer_offset) as *mut u8;
    let metrics = &file.context.shared.metrics;
    let mut retries = 0;
    let fd = file.descriptors.buffered();
    // SAFETY: the range lies in the buffer, which the caller keeps.
    let moved = unsafe { file.move_all(Operation::Read, fd, pointer, size, offset, &mut retries) };
    let bytes = match moved {
        Ok(bytes) => bytes,
        Err(error) => {
            metrics.read.record_error();
            return Some(Err(error));
        }
    };
    let done = Completion::of_one(bytes, Path::Host, stopwatch.elapsed_ns());
    account(metrics, &metrics.read, Path::Host, &done);
    Some(Ok(Completion { retries, ..done }))
}

/// Counts a transfer that ended well.
#[inline]
fn account(metrics: &Metrics, direction: &Direction, path: Path, done: &Completion) {
    direction.record(done.bytes, done.latency_ns);
    metrics.path_bytes[path as usize].fetch_add(done.bytes, Relaxed);
}

fn run(
    file: &Arc<FileInner>,
    operation: Operation,
    offset: u64,
    buffer: &Buffer,
    buffer_offset: u64,
    size: u64,
    options: &Options,
) -> Result<Option<Completion>> {
    let shared = &file.context.shared;
    let host = buffer.is_host_memory();
    if size == 0
        || size > if host { HOST_MAX } else { DEVICE_MAX }
        || options.stream.is_some()
        || options.deadline.is_some()
    {
        return Ok(None);
    }
    let terms = shared.terms(options);
    let policy = terms.policy;
    // Where a refusal must be answered, the planned way says it.
    if policy == PathPolicy::CuFile || (policy == PathPolicy::Direct && !terms.fallback) {
        return Ok(None);
    }
    check_range(file, operation, offset, buffer, buffer_offset, size)?;
    let stopwatch = Stopwatch::start();
    let mut small = Small {
        shared,
        file,
        operation,
        offset,
        address: buffer.address() + buffer_offset,
        size,
        checksum: terms.checksum,
        retries: 0,
        fallbacks: 0,
    };
    let direct = small.goes_direct(policy);
    // A large cold read is worth several threads.
    if direct && host && size > DEVICE_MAX {
        return Ok(None);
    }
    let direction = match operation {
        Operation::Read => &shared.metrics.read,
        Operation::Write => &shared.metrics.write,
    };
    let moved = if host {
        small.on_host(direct)
    } else {
        small.on_device(direct)
    };
    let (bytes, path, crc32c) = moved.inspect_err(|_| direction.record_error())?;
    let done = Completion::of_one(bytes, path, stopwatch.elapsed_ns());
    account(&shared.metrics, direction, path, &done);
    Ok(Some(Completion {
        crc32c,
        retries: small.retries,
        fallbacks: small.fallbacks,
        ..done
    }))
}

impl Small<'_> {
    fn goes_direct(&self, policy: PathPolicy) -> bool {
        if self.file.direct().is_none() || policy == PathPolicy::Buffered {
            return false;
        }
        if policy == PathPolicy::Direct {
            return true;
        }
        match self.operation {
            Operation::Read => !choice::small_is_warm(self.file, self.offset, self.size),
            Operation::Write => choice::writes_directly(self.file, self.size),
        }
    }

    fn on_host(&mut self, direct: bool) -> Result<(u64, Path, Option<u32>)> {
        let pointer = self.address as *mut u8;
        let alignment = self.file.alignment();
        let fits = is_aligned(self.offset | self.address | self.size, alignment);
        if direct && fits {
            let bytes = self.direct(pointer, self.offset, self.size)?;
            return Ok((bytes, Path::HostDirect, self.check(pointer, bytes)));
        }
        if direct && self.operation == Operation::Read {
            let mut slot = self.shared.inline.take(&self.shared.device)?;
            let result = self.read_around(&mut slot, true).map(|(data, bytes)| {
                // SAFETY: the slot holds `bytes` bytes at `data`, the caller's memory takes them.
                unsafe { data.copy_to_nonoverlapping(pointer, bytes as usize) };
                (bytes, Path::Bounce, self.check(pointer, bytes))
            });
            self.shared.inline.give(slot);
            return result;
        }
        let bytes = self.buffered(pointer, self.offset, self.size)?;
        Ok((bytes, Path::Host, self.check(pointer, bytes)))
    }

    fn on_device(&mut self, direct: bool) -> Result<(u64, Path, Option<u32>)> {
        let mut slot = self.shared.inline.take(&self.shared.device)?;
        let result = match self.operation {
            Operation::Read => self.read_to_device(&mut slot, direct),
            Operation::Write => self.write_from_device(&slot, direct),
        };
        let shared = self.shared;
        shared.inline.settle(&*shared.device, slot, result.is_err());
        let path = if direct {
            Path::Bounce
        } else {
            Path::PageCache
        };
        result.map(|(bytes, crc)| (bytes, path, crc))
    }

    fn read_to_device(
        &mut self,
        slot: &mut InlineSlot,
        direct: bool,
    ) -> Result<(u64, Option<u32>)> {
        let (data, bytes) = self.read_around(slot, direct)?;
        if bytes > 0 {
            let (device, stream) = (&self.shared.device, slot.stream.get());
            // SAFETY: the slot holds the bytes, and the target was checked against its buffer,
            // which the caller keeps.
            unsafe { device.copy_to_device_now(self.address, data, bytes as usize, stream)? };
        }
        Ok((bytes, self.check(data, bytes)))
    }

    fn write_from_device(&mut self, slot: &InlineSlot, direct: bool) -> Result<(u64, Option<u32>)> {
        let memory = slot.memory.pointer();
        let (device, stream) = (&self.shared.device, slot.stream.get());
        // SAFETY: the slot takes DEVICE_MAX bytes; the source was checked against its buffer.
        unsafe { device.copy_from_device(memory, self.address, self.size as usize, stream)? };
        device.stream_synchronize(stream)?;
        let crc = self.check(memory, self.size);
        let fits = is_aligned(self.offset | self.size, self.file.alignment());
        let bytes = match direct && fits {
            true => self.direct(memory, self.offset, self.size)?,
            false => self.buffered(memory, self.offset, self.size)?,
        };
        Ok((bytes, crc))
    }

    /// Reads the aligned range around the wanted bytes into a slot. Where they begin, how many.
    fn read_around(&mut self, slot: &mut InlineSlot, direct: bool) -> Result<(*mut u8, u64)> {
        let alignment = self.file.alignment();
        let down = align_down(self.offset, alignment);
        let end = self.offset + self.size;
        let up = align_up(end, alignment).unwrap_or(end);
        let head = self.offset - down;
        let memory = slot.memory_for((up - down) as usize);
        if !direct || (up - down) as usize > INLINE_SIZE {
            return Ok((memory, self.buffered(memory, self.offset, self.size)?));
        }
        let moved = self.direct(memory, down, up - down)?;
        Ok((
            memory.wrapping_add(head as usize),
            moved.saturating_sub(head).min(self.size),
        ))
    }

    /// An aligned transfer around the page cache, or through it when the file refuses.
    fn direct(&mut self, pointer: *mut u8, offset: u64, size: u64) -> Result<u64> {
        let Some(fd) = self.file.direct() else {
            return self.buffered(pointer, offset, size);
        };
        // SAFETY: the pointer has `size` bytes, in the slot or in the caller's checked memory.
        let moved = unsafe {
            self.file
                .move_all(self.operation, fd, pointer, size, offset, &mut self.retries)
        };
        match moved {
            Err(error) if matches!(error.errno(), libc::EINVAL | libc::EOPNOTSUPP) => {
                self.file.direct_refused.store(true, Relaxed);
                self.fallbacks += 1;
                self.shared.metrics.fallbacks.fetch_add(1, Relaxed);
                self.buffered(pointer, offset, size)
            }
            other => other,
        }
    }

    fn buffered(&mut self, pointer: *mut u8, offset: u64, size: u64) -> Result<u64> {
        let fd = self.file.descriptors.buffered();
        // SAFETY: as in `direct`.
        unsafe {
            self.file
                .move_all(self.operation, fd, pointer, size, offset, &mut self.retries)
        }
    }

    fn check(&self, data: *const u8, bytes: u64) -> Option<u32> {
        self.checksum.then(|| {
            // SAFETY: `bytes` bytes have just been moved to or from there.
            crc32c(0, unsafe {
                std::slice::from_raw_parts(data, bytes as usize)
            })
        })
    }
}
