//! Moves whole files in bounded memory: two buffers, one filled while the other is used.

use std::collections::VecDeque;

use super::output::paths_text;
use super::progress::{self, Progress};
use crate::base::align_up;
use crate::base::crc::crc32c_join;
use crate::device::MemoryKind;
use crate::engine::{Buffer, Completion, Context, File, Options, Path, Ticket, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{OpenMode, Operation};
use crate::metrics::PATHS;

/// Buffers that a stream of chunks uses.
const BUFFERS: u64 = 2;

/// Sums of completions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    /// Bytes moved.
    pub(super) bytes: u64,
    /// CRC32C of all bytes in file order, when asked for.
    pub(super) crc32c: Option<u32>,
    /// Bit mask of the paths taken.
    pub(super) paths: u32,
    /// Retries after transient errors.
    pub(super) retries: u32,
    /// Pieces that went another way.
    pub(super) fallbacks: u32,
    by_path: [u64; PATHS],
}

impl Totals {
    /// Adds what follows in the file.
    pub(super) fn add(&mut self, part: &Completion) {
        self.crc32c = match (self.crc32c, part.crc32c) {
            (Some(first), Some(second)) => Some(crc32c_join(first, second, part.bytes)),
            (None, Some(crc)) if self.bytes == 0 => Some(crc),
            _ => None,
        };
        self.bytes += part.bytes;
        self.paths |= part.paths;
        self.retries = self.retries.saturating_add(part.retries);
        self.fallbacks = self.fallbacks.saturating_add(part.fallbacks);
        self.by_path[part.path as usize] += part.bytes;
    }

    /// Adds the sums of another thread. The order of bytes is lost, and with it the CRC32C.
    pub(super) fn join(&mut self, other: &Self) {
        self.crc32c = None;
        self.bytes += other.bytes;
        self.paths |= other.paths;
        self.retries = self.retries.saturating_add(other.retries);
        self.fallbacks = self.fallbacks.saturating_add(other.fallbacks);
        for (to, from) in self.by_path.iter_mut().zip(&other.by_path) {
            *to += from;
        }
    }

    /// The way that most bytes took.
    pub(super) fn main_path(&self) -> Path {
        let most = Path::ALL
            .iter()
            .max_by_key(|path| self.by_path[**path as usize]);
        match most {
            Some(path) if self.bytes > 0 => *path,
            _ => Path::None,
        }
    }

    /// The main path, and all of them when there are several.
    pub(super) fn path_text(&self) -> String {
        if self.paths.count_ones() > 1 {
            return format!("{} (of {})", self.main_path(), paths_text(self.paths));
        }
        self.main_path().to_string()
    }
}

/// A range of a file to read, and how.
#[derive(Debug)]
pub(super) struct Range<'a> {
    pub(super) file: &'a File,
    pub(super) offset: u64,
    /// Bytes, or `None` to read until the file ends.
    pub(super) size: Option<u64>,
    pub(super) chunk: u64,
    pub(super) memory: MemoryKind,
    pub(super) options: Options,
}

/// Allocates the buffers of a stream of chunks.
fn buffers(context: &Context, memory: MemoryKind, chunk: u64, size: u64) -> Result<Vec<Buffer>> {
    let whole = align_up(size.max(1), 4096).unwrap_or(chunk);
    let each = chunk.min(whole);
    let count = BUFFERS.min(size.div_ceil(each).max(1));
    (0..count).map(|_| context.alloc(memory, each)).collect()
}

fn start(operation: Operation, file: &File, at: u64, buffer: &Buffer, size: u64) -> Transfer {
    Transfer {
        operation,
        file: file.clone(),
        file_offset: at,
        buffer: buffer.clone(),
        buffer_offset: 0,
        size,
    }
}

/// Reads a range chunk by chunk.
///
/// # Errors
/// What the engine says, and `FileChanged` when the file ends before the range does.
pub(super) fn read(
    context: &Context,
    range: &Range<'_>,
    progress: &mut Progress,
) -> Result<Totals> {
    let size = range.size.unwrap_or(u64::MAX);
    let mut free = buffers(context, range.memory, range.chunk, size)?;
    let mut flying: VecDeque<(Ticket, Buffer, u64)> = VecDeque::new();
    let mut totals = Totals::default();
    let mut asked = 0;
    let mut ended = false;
    loop {
        while !ended
            && asked < size
            && let Some(buffer) = free.pop()
        {
            let part = range.chunk.min(size - asked).min(buffer.size());
            let transfer = start(
                Operation::Read,
                range.file,
                range.offset + asked,
                &buffer,
                part,
            );
            let ticket = context.submit(vec![transfer], &range.options)?;
            flying.push_back((ticket, buffer, part));
            asked += part;
        }
        let Some((ticket, buffer, part)) = flying.pop_front() else {
            return Ok(totals);
        };
        let completion = progress::wait(&ticket, |moved| {
            let ahead: u64 = flying.iter().map(|(t, ..)| t.progress()).sum();
            progress.set(totals.bytes + moved + ahead);
        })?;
        if completion.bytes < part {
            ended = true;
            if range.size.is_some() && range.file.capabilities().sized {
                return Err(cut_short(
                    range.file,
                    range.offset + totals.bytes + completion.bytes,
                ));
            }
        }
        if completion.bytes > 0 {
            totals.add(&completion);
        }
        free.push(buffer);
    }
}

/// Copies `size` bytes, or all when `None`, from the start of one file to another: a chunk is
/// read while the one before it is written. Gives the sums of the reads and of the writes.
///
/// # Errors
/// What the engine says, `FileChanged` when the source becomes shorter, `Corrupted` when the
/// checksums of what was read and of what was written differ.
pub(super) fn copy(
    context: &Context,
    (from, to): (&File, &File),
    size: Option<u64>,
    chunk: u64,
    options: &Options,
    progress: &mut Progress,
) -> Result<(Totals, Totals)> {
    let total = size.unwrap_or(u64::MAX);
    let mut free = buffers(context, MemoryKind::Device, chunk, total)?;
    let mut writing: Option<(Ticket, Buffer, Completion)> = None;
    let (mut read, mut written) = (Totals::default(), Totals::default());
    let mut ended = total == 0;
    while !ended || writing.is_some() {
        let mut filled = None;
        if !ended && let Some(buffer) = free.pop() {
            let part = chunk.min(total - read.bytes).min(buffer.size());
            let transfer = start(Operation::Read, from, read.bytes, &buffer, part);
            let ticket = context.submit(vec![transfer], options)?;
            let completion = progress::wait(&ticket, |_| {
                let out = writing.as_ref().map_or(0, |(t, ..)| t.progress());
                progress.set(written.bytes + out);
            })?;
            ended = completion.bytes < part || read.bytes + completion.bytes == total;
            if completion.bytes < part && size.is_some() {
                return Err(cut_short(from, read.bytes + completion.bytes));
            }
            if completion.bytes > 0 {
                filled = Some((buffer, read.bytes, completion));
                read.add(&completion);
            }
        }
        if let Some((ticket, buffer, source)) = writing.take() {
            let completion = progress::wait(&ticket, |out| progress.set(written.bytes + out))?;
            same(&source, &completion, to, written.bytes)?;
            written.add(&completion);
            free.push(buffer);
        }
        if let Some((buffer, at, completion)) = filled {
            let transfer = start(Operation::Write, to, at, &buffer, completion.bytes);
            let ticket = context.submit(vec![transfer], options)?;
            writing = Some((ticket, buffer, completion));
        }
    }
    Ok((read, written))
}

fn same(read: &Completion, written: &Completion, to: &File, at: u64) -> Result<()> {
    if read.bytes == written.bytes && read.crc32c == written.crc32c {
        return Ok(());
    }
    let message = format!(
        "copy to {}: {} bytes were read and {} written at {at}, with CRC32C {:08x?} and {:08x?}; \
         the bytes changed on their way through memory, check the machine",
        to.path().display(),
        read.bytes,
        written.bytes,
        read.crc32c,
        written.crc32c
    );
    Err(Error::new(ErrorKind::Corrupted, message)
        .with_path(to.path())
        .with_offset(at))
}

fn cut_short(file: &File, at: u64) -> Error {
    let message = format!(
        "read {}: it ended at {at}, before the size that it had when it was opened; somebody made \
         it shorter, try again",
        file.path().display()
    );
    Error::new(ErrorKind::FileChanged, message)
        .with_path(file.path())
        .with_offset(at)
}

/// Overwrites a buffer with the bytes of this program. Afterwards its pages exist, the transfer
/// threads run, and nothing that was there before can pass for a fresh read.
///
/// # Errors
/// What the engine says.
pub(super) fn scrub(context: &Context, buffer: &Buffer) -> Result<()> {
    let program = context.open_file(
        std::path::Path::new("/proc/self/exe"),
        OpenMode::read_only(),
    )?;
    let step = program.size()?.clamp(1, 1 << 20);
    let mut transfers = Vec::new();
    let mut at = 0;
    while at < buffer.size() {
        transfers.push(Transfer {
            operation: Operation::Read,
            file: program.clone(),
            file_offset: 0,
            buffer: buffer.clone(),
            buffer_offset: at,
            size: step.min(buffer.size() - at),
        });
        at += step;
    }
    context
        .submit(transfers, &Options::default())?
        .wait(None)
        .map(drop)
}
