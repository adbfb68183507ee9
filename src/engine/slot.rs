//! A staging slot and the pieces that are in it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Path;
use super::choice::Way;
use super::job::Job;
use super::plan::{Entry, Piece};
use super::shared::GROUP_MAX;
use super::staging::Slab;
use crate::base::crc::crc32c;
use crate::base::{align_down, align_up};
use crate::device::{CopyPiece, Device, Event, Stream};
use crate::error::{Error, ErrorKind, Result, is_transient_errno};
use crate::io::Operation;

const DESCRIPTOR_BYTES: usize = GROUP_MAX * size_of::<CopyPiece>();

/// Pinned memory for pieces on their way, with a place for their copy descriptors.
pub(super) struct Slot {
    pub(super) memory: *mut u8,
    pub(super) descriptors: *mut CopyPiece,
    pub(super) event: Event,
    /// Number in the ring of the job's stream, while copies are under way there.
    pub(super) entry: Option<u64>,
    pub(super) job: Option<Arc<Job>>,
    pub(super) parts: Vec<Part>,
    /// Parts whose I/O is not over.
    pub(super) pending: usize,
}

/// A piece in a slot, or in the caller's memory and only accounted for by the slot.
pub(super) struct Part {
    pub(super) piece: Piece,
    pub(super) way: Way,
    /// The I/O goes straight to or from the caller's memory.
    pub(super) in_place: bool,
    /// The wanted bytes: in the slot, or the caller's memory when in place.
    pub(super) data: *mut u8,
    /// What the kernel is asked for; around the wanted bytes when read through a slot, inside
    /// them otherwise.
    pub(super) io: *mut u8,
    pub(super) io_offset: u64,
    pub(super) io_size: u64,
    pub(super) io_done: u64,
    pub(super) attempts: u32,
    pub(super) crc: Option<u32>,
    pub(super) outcome: Option<Result<u64>>,
}

/// Slots of one transfer thread, in one slab.
pub(super) struct Slots {
    pub(super) slab: Slab,
    pub(super) list: Vec<Slot>,
    device: Arc<dyn Device>,
}

impl Slots {
    pub(super) fn new(device: &Arc<dyn Device>, count: usize, size: usize) -> Result<Self> {
        let slab = Slab::new(device, count * (size + DESCRIPTOR_BYTES))?;
        let mut slots = Self {
            slab,
            list: Vec::with_capacity(count),
            device: device.clone(),
        };
        for index in 0..count {
            let event = device.event_create()?;
            let start = slots.slab.pointer();
            slots.list.push(Slot {
                memory: start.wrapping_add(index * size),
                descriptors: start
                    .wrapping_add(count * size + index * DESCRIPTOR_BYTES)
                    .cast(),
                event,
                entry: None,
                job: None,
                parts: Vec::new(),
                pending: 0,
            });
        }
        Ok(slots)
    }

    /// Loads the copy kernel by copying one byte of a slot. False where the device has none.
    pub(super) fn try_kernel(&self, stream: Stream) -> Result<bool> {
        let Some(slot) = self.list.first() else {
            return Ok(false);
        };
        let (source, destination) = (slot.memory as u64, slot.memory as u64 + 64);
        // SAFETY: both bytes lie in a slot that nobody uses yet, and the stream is waited for.
        let launched = unsafe {
            slot.descriptors.write(CopyPiece {
                source,
                destination,
                size: 1,
            });
            self.device.copy_pieces(slot.descriptors, 1, stream)
        };
        self.device.stream_synchronize(stream)?;
        match launched {
            Err(error) if error.kind() == ErrorKind::NotSupported => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Copies between a slot and device memory, for the pieces in it, and marks their end: by the
    /// slot's event, or by an entry of the ring when the job has a place in a caller's stream.
    /// Several small pieces go in one kernel, which costs the driver less than a copy each.
    ///
    /// # Safety
    /// The slot's memory and the transfers' memory stay valid until the stream has passed; nobody
    /// else uses the slot.
    pub(super) unsafe fn copy_parts(
        &mut self,
        slot: usize,
        job: &Job,
        stream: Stream,
        kernel: bool,
    ) -> Result<()> {
        const KERNEL_MIN: usize = 4;
        let slot = &mut self.list[slot];
        let staged = slot.parts.iter().filter_map(|part| {
            let entry = &job.entries[part.piece.entry];
            let size = part.staged_bytes(entry);
            (size > 0).then_some((part, entry, size))
        });
        let mut count = 0;
        for (part, entry, size) in staged.clone() {
            let (host, far) = (part.data as u64, entry.address + part.piece.position);
            let (source, destination) = match entry.operation {
                Operation::Read => (host, far),
                Operation::Write => (far, host),
            };
            // SAFETY: a slot has GROUP_MAX descriptors and never more parts.
            unsafe {
                slot.descriptors.add(count).write(CopyPiece {
                    source,
                    destination,
                    size,
                })
            };
            count += 1;
        }
        if let Some(gate) = &job.gate {
            // SAFETY: the descriptors were just written; the caller keeps all ranges valid, and
            // this slot has one entry on its way.
            slot.entry = Some(unsafe { gate.ring.publish(slot.descriptors, count) });
            return Ok(());
        }
        if kernel && count >= KERNEL_MIN {
            // SAFETY: as above.
            unsafe { self.device.copy_pieces(slot.descriptors, count, stream)? };
            return self.device.event_record(slot.event, stream);
        }
        for (part, entry, size) in staged {
            let (far, size) = (entry.address + part.piece.position, size as usize);
            // SAFETY: as above.
            unsafe {
                match entry.operation {
                    Operation::Read => self.device.copy_to_device(far, part.data, size, stream)?,
                    Operation::Write => {
                        self.device.copy_from_device(part.data, far, size, stream)?
                    }
                }
            }
        }
        self.device.event_record(slot.event, stream)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in &self.list {
            // SAFETY: made by this device, and the owner has waited for its copies.
            unsafe { self.device.event_destroy(slot.event) };
        }
    }
}

impl Part {
    /// Places a piece at `memory` in a slot, or in place where the caller's memory allows.
    pub(super) fn new(entry: &Entry, piece: Piece, mut way: Way, memory: *mut u8) -> Self {
        let alignment = entry.file.alignment();
        let offset = entry.file_offset + piece.position;
        let address = entry.address + piece.position;
        let (down, end) = (align_down(offset, alignment), offset + piece.size);
        let middle = align_up(offset, alignment).unwrap_or(end)..align_down(end, alignment);
        let inside = !middle.is_empty();
        if way == Way::Direct && entry.operation == Operation::Write && !inside {
            way = Way::Buffered;
        }
        let fits = address % alignment == offset % alignment && inside;
        let in_place = entry.host_memory && (way == Way::Buffered || fits);
        let data = match in_place {
            true => address as *mut u8,
            false => memory.wrapping_add((offset - down) as usize),
        };
        let (io_offset, io_end) = match (way, entry.operation, in_place) {
            (Way::Direct, Operation::Read, false) => {
                (down, align_up(end, alignment).unwrap_or(end))
            }
            (Way::Direct, _, _) => (middle.start, middle.end),
            _ => (offset, end),
        };
        let io = data.wrapping_add(io_offset.wrapping_sub(offset) as usize);
        Self {
            piece,
            way,
            in_place,
            data,
            io,
            io_offset,
            io_size: io_end - io_offset,
            io_done: 0,
            attempts: 0,
            crc: None,
            outcome: None,
        }
    }

    /// Bytes of the slot that it takes.
    pub(super) fn room(&self, alignment: u64) -> usize {
        if self.in_place {
            return 0;
        }
        (self.piece.size.next_multiple_of(alignment) + alignment) as usize
    }

    /// Bytes that a copy between the slot and device memory has to move for it.
    fn staged_bytes(&self, entry: &Entry) -> u64 {
        if self.in_place || self.way == Way::CuFile || entry.host_memory {
            return 0;
        }
        match (&self.outcome, entry.operation) {
            (Some(Ok(bytes)), Operation::Read) => *bytes,
            (None, Operation::Write) => self.piece.size,
            _ => 0,
        }
    }

    /// Where its place in the slot begins.
    pub(super) fn slot_memory(&self, entry: &Entry) -> *mut u8 {
        let offset = entry.file_offset + self.piece.position;
        let head = offset - align_down(offset, entry.file.alignment());
        self.data.wrapping_sub(head as usize)
    }

    pub(super) fn path(&self, entry: &Entry) -> Path {
        match (self.way, entry.host_memory) {
            (Way::CuFile, _) => Path::CuFile,
            (Way::Direct, true) if self.in_place => Path::HostDirect,
            (Way::Direct, _) => Path::Bounce,
            (Way::Buffered, true) => Path::Host,
            (Way::Buffered, false) => Path::PageCache,
        }
    }

    /// Moves the wanted bytes outside the aligned middle through the page cache: both edges of a
    /// write, the leading edge of a read in place. The bytes that moved, if the file ends there.
    pub(super) fn leading_edges(&self, job: &Job, entry: &Entry) -> Result<Option<u64>> {
        let offset = entry.file_offset + self.piece.position;
        let lead = self.io_offset.saturating_sub(offset);
        if lead > 0 {
            let moved = self.buffered(job, entry, 0, lead)?;
            if moved < lead {
                return Ok(Some(moved));
            }
        }
        let tail = lead + self.io_size;
        if entry.operation == Operation::Write && tail < self.piece.size {
            self.buffered(job, entry, tail, self.piece.size - tail)?;
        }
        Ok(None)
    }

    /// Wanted bytes that have moved, once the kernel is done; a read in place still fetches its
    /// trailing edge here.
    pub(super) fn finish(&self, job: &Job, entry: &Entry) -> Result<u64> {
        let offset = entry.file_offset + self.piece.position;
        if entry.operation == Operation::Write {
            return Ok(self.piece.size);
        }
        let reached = (self.io_offset + self.io_done).saturating_sub(offset);
        if self.in_place && self.io_done == self.io_size && reached < self.piece.size {
            return Ok(reached + self.buffered(job, entry, reached, self.piece.size - reached)?);
        }
        Ok(reached.min(self.piece.size))
    }

    /// Moves `size` wanted bytes from `at` on through the page cache. Fewer at the file's end.
    pub(super) fn buffered(&self, job: &Job, entry: &Entry, at: u64, size: u64) -> Result<u64> {
        let offset = entry.file_offset + self.piece.position + at;
        // SAFETY: `at + size` lies within the piece, whose memory the caller of the engine or
        // the slot keeps valid.
        unsafe {
            buffered(
                job,
                entry,
                self.data.wrapping_add(at as usize),
                size,
                offset,
            )
        }
    }

    /// As `buffered`, for what the kernel has not done of this part's I/O.
    pub(super) fn rest_buffered(&mut self, job: &Job, entry: &Entry) -> Result<()> {
        let pointer = self.io.wrapping_add(self.io_done as usize);
        let (size, offset) = (self.io_size - self.io_done, self.io_offset + self.io_done);
        // SAFETY: the rest of a range that was valid for the kernel.
        self.io_done += unsafe { buffered(job, entry, pointer, size, offset)? };
        Ok(())
    }

    /// CRC32C of the first `bytes` wanted bytes, which must be host memory.
    pub(super) fn check(&mut self, job: &Job, bytes: u64) {
        if job.terms.checksum {
            // SAFETY: the bytes have arrived in memory that the slot or the caller keeps valid.
            let data = unsafe { std::slice::from_raw_parts(self.data, bytes as usize) };
            self.crc = Some(crc32c(0, data));
        }
    }
}

/// Reads or writes through the page cache until done or the end of the file.
///
/// # Safety
/// `pointer` is valid for `size` bytes of what the operation does.
unsafe fn buffered(
    job: &Job,
    entry: &Entry,
    pointer: *mut u8,
    size: u64,
    offset: u64,
) -> Result<u64> {
    let fd = entry.file.descriptors.buffered();
    let mut retries = 0;
    // SAFETY: as the caller promises.
    let result = unsafe {
        entry
            .file
            .move_all(entry.operation, fd, pointer, size, offset, &mut retries)
    };
    job.retries.fetch_add(retries, Relaxed);
    result
}

/// What to do after the kernel has answered a direct request.
pub(super) enum Step {
    /// Ask for the rest.
    Again,
    /// Ask again after this pause.
    Later(std::time::Duration),
    /// The I/O of the part is over.
    Over,
    /// Direct I/O does not work for this file: go on through the page cache.
    Refused,
    /// It failed.
    Failed(Error),
}

impl Part {
    /// Takes in the kernel's answer: bytes moved, or -errno.
    pub(super) fn answered(&mut self, job: &Job, result: i32) -> Step {
        let entry = &job.entries[self.piece.entry];
        let (offset, left) = (self.io_offset + self.io_done, self.io_size - self.io_done);
        if result < 0 {
            let errno = -result;
            if is_transient_errno(errno) && self.attempts < job.shared.config.max_retries {
                job.retries.fetch_add(1, Relaxed);
                return Step::Later(job.shared.back_off(&mut self.attempts, errno));
            }
            let refused = matches!(errno, libc::EINVAL | libc::EOPNOTSUPP);
            return match refused && job.terms.fallback {
                true => Step::Refused,
                false => Step::Failed(entry.file.io_error(errno, entry.operation, offset, left)),
            };
        }
        self.io_done += result as u64;
        if self.io_done >= self.io_size {
            return Step::Over;
        }
        match (entry.operation, result) {
            (Operation::Read, 0) => Step::Over,
            (Operation::Write, 0) => Step::Failed(entry.file.io_error(
                libc::EIO,
                entry.operation,
                offset,
                left,
            )),
            _ if (self.io_offset + self.io_done).is_multiple_of(entry.file.alignment()) => {
                Step::Again
            }
            // A direct read stops at an odd byte only at the end of the file.
            (Operation::Read, _)
                if entry
                    .file
                    .descriptors
                    .size()
                    .is_ok_and(|s| self.io_offset + self.io_done >= s) =>
            {
                Step::Over
            }
            _ => Step::Refused,
        }
    }

    /// Ends the I/O of a part with what `finish` says.
    pub(super) fn end_io(&mut self, job: &Job) {
        let entry = &job.entries[self.piece.entry];
        self.outcome = Some(self.finish(job, entry));
    }

    /// Goes on through the page cache after direct I/O was refused.
    pub(super) fn end_io_buffered(&mut self, job: &Job) {
        let entry = &job.entries[self.piece.entry];
        self.outcome = Some(
            self.rest_buffered(job, entry)
                .and_then(|()| self.finish(job, entry)),
        );
        self.way = Way::Buffered;
    }

    /// Reads or writes the whole piece through the page cache.
    pub(super) fn run_buffered(&mut self, job: &Job) {
        let entry = &job.entries[self.piece.entry];
        self.outcome = Some(self.buffered(job, entry, 0, self.piece.size));
    }

    /// Reads or writes the whole piece through cuFile.
    pub(super) fn run_cufile(&mut self, job: &Job) -> Result<u64> {
        let entry = &job.entries[self.piece.entry];
        let handle = entry.file.cufile()?;
        // Device memory is named by its registered base; host memory by its own address, since
        // cuFile refuses an odd offset from an aligned host base.
        let address = entry.address + self.piece.position;
        let base = if entry.host_memory {
            address
        } else {
            entry.buffer.address()
        };
        let base_offset = address - base;
        let file_offset = entry.file_offset + self.piece.position;
        let mut done = 0;
        while done < self.piece.size {
            let size = (self.piece.size - done) as usize;
            // SAFETY: the range lies inside the buffer, which the job's owner keeps valid.
            let moved = unsafe {
                match entry.operation {
                    Operation::Read => {
                        handle.read(base, size, file_offset + done, base_offset + done)?
                    }
                    Operation::Write => {
                        handle.write(base, size, file_offset + done, base_offset + done)?
                    }
                }
            };
            if moved == 0 {
                break;
            }
            done += moved as u64;
        }
        Ok(done)
    }
}
