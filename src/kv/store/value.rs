//! Writing a large value: room, bytes, checksums, and at the end a reference. Nothing refers to
//! the bytes until the reference is committed; what is given up is garbage that costs nothing.
//!
//! Manifest of a value in several runs:
//! ```text
//! 0 magic u32 "GKVF"  4 runs u32  8 crc_runs u32  12 crc_crcs u32  16 len u64  24 uuid u64
//! 32 runs and crc_runs: offset u64, bytes u64 each; crc_crcs: u32 each
//! ```
//! The checksum of a manifest lies in the reference. The array of chunk checksums lies in
//! `crc_runs`, with a checksum in the manifest for every 64 KiB of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::reference::{
    COARSE_CHUNK, FINE_CHUNK, FINE_MAX, Manifest, REFERENCE_CRCS_MAX, Reader, Reference, Run,
    blocks_of, chunk_of,
};
use super::space::{Level, Stream};
use crate::base::crc::{crc32c, crc32c_join};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::{BLOCK, Blocks, Disk};

const MANIFEST_MAGIC: u32 = u32::from_le_bytes(*b"GKVF");
const MANIFEST_HEADER: usize = 32;
/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;

/// A value that is written and not committed. Dropping it lets its space go unless a commit
/// counted it as live before.
#[derive(Debug)]
pub(crate) struct Stored {
    shared: Arc<Shared>,
    pub reference: Reference,
    allocations: Vec<Run>,
}

impl Stored {
    /// Holds more room until it drops.
    pub fn hold(&mut self, rooms: Vec<Run>) {
        self.allocations.extend(rooms);
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        settle_all(&self.shared, &mut self.allocations);
    }
}

fn settle_all(shared: &Shared, allocations: &mut Vec<Run>) {
    for run in allocations.drain(..) {
        shared.space.settle(run);
    }
}

/// Checksums of a growing value: fine ones until it is too long for them.
#[derive(Debug)]
struct Checksums {
    chunk: u64,
    done: Vec<u32>,
    crc: u32,
    filled: u64,
    len: u64,
}

impl Checksums {
    fn new(hint: Option<u64>) -> Self {
        Self {
            chunk: hint.map_or(FINE_CHUNK, chunk_of),
            done: Vec::new(),
            crc: 0,
            filled: 0,
            len: 0,
        }
    }

    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.chunk == FINE_CHUNK && self.len == FINE_MAX {
                self.coarsen();
            }
            let room = (self.chunk - self.filled) as usize;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.crc = crc32c(self.crc, now);
            self.filled += now.len() as u64;
            self.len += now.len() as u64;
            if self.filled == self.chunk {
                self.done.push(self.crc);
                (self.crc, self.filled) = (0, 0);
            }
            bytes = rest;
        }
    }

    /// Joins whole fine checksums to coarse ones.
    fn coarsen(&mut self) {
        let join = |fine: &[u32]| {
            let first = fine.first().copied().unwrap_or(0);
            let rest = fine.iter().skip(1);
            rest.fold(first, |crc, next| crc32c_join(crc, *next, FINE_CHUNK))
        };
        self.done = self
            .done
            .chunks((COARSE_CHUNK / FINE_CHUNK) as usize)
            .map(join)
            .collect();
        self.chunk = COARSE_CHUNK;
    }

    /// All checksums, of the size that the length asks for.
    fn finish(mut self) -> Result<Vec<u32>> {
        if self.filled > 0 {
            self.done.push(self.crc);
        }
        if self.chunk == chunk_of(self.len) {
            return Ok(self.done);
        }
        // Announced as long and short in truth: coarse checksums cannot be divided.
        Err(Error::new(
            ErrorKind::Internal,
            "a value became shorter than what was announced",
        ))
    }
}

/// Takes a value piece by piece.
#[derive(Debug)]
pub(crate) struct ValueWriter {
    shared: Arc<Shared>,
    key_len: usize,
    /// The exact length, where it is known.
    length: Option<u64>,
    /// A guess of the length, where it is not known.
    hint: u64,
    sums: Checksums,
    buffer: Blocks,
    filled: usize,
    /// What was given to us, to settle at the end.
    allocations: Vec<Run>,
    /// What the value uses, joined where contiguous.
    runs: Vec<Run>,
    /// Free rest of the last allocation.
    rest: Run,
    stream: Stream,
    level: Level,
}

impl ValueWriter {
    /// `length` is the exact length, or `None` when it is not known yet.
    pub fn new(shared: &Arc<Shared>, key_len: usize, length: Option<u64>) -> Result<Self> {
        let buffer = blocks_of(length.unwrap_or(BUFFER as u64).max(1)) as usize;
        Ok(Self {
            shared: Arc::clone(shared),
            key_len,
            length,
            hint: 0,
            sums: Checksums::new(length),
            buffer: Blocks::used(buffer.min(BUFFER))?,
            filled: 0,
            allocations: Vec::new(),
            runs: Vec::new(),
            rest: Run {
                offset: 0,
                bytes: 0,
            },
            stream: Stream::Values,
            level: Level::User,
        })
    }

    /// A guess of the length: room is taken for it at once.
    pub fn set_hint(&mut self, bytes: u64) {
        self.hint = bytes;
    }

    /// Adds bytes at the end.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.buffer.len() - self.filled;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.sums.add(now);
            self.shared.counters.checksums.fetch_add(1, Relaxed);
            self.filled += now.len();
            bytes = rest;
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes the buffer out, its last block padded with zeros.
    fn flush(&mut self) -> Result<()> {
        let size = blocks_of(self.filled as u64) as usize;
        self.buffer[self.filled..size].fill(0);
        let mut at = 0;
        while at < size {
            if self.rest.bytes == 0 {
                self.more((size - at) as u64)?;
            }
            let now = (size - at).min(usize::try_from(self.rest.bytes).unwrap_or(usize::MAX));
            let bytes = &self.buffer[at..at + now];
            self.shared.disk.write(self.rest.offset, bytes)?;
            self.use_rest(now as u64);
            at += now;
        }
        self.filled = 0;
        Ok(())
    }

    fn use_rest(&mut self, bytes: u64) {
        let offset = self.rest.offset;
        match self.runs.last_mut() {
            Some(last) if last.offset + last.bytes == offset => last.bytes += bytes,
            _ => self.runs.push(Run { offset, bytes }),
        }
        self.rest.offset += bytes;
        self.rest.bytes -= bytes;
    }

    /// Bytes that are in runs already.
    fn placed(&self) -> u64 {
        self.runs.iter().map(|r| r.bytes).sum()
    }

    /// Takes room for at least one block; for the whole rest of the value if it is known.
    fn more(&mut self, now: u64) -> Result<()> {
        let most = self.shared.space.piece_max();
        let placed = self.placed();
        let wanted = match self.length {
            Some(length) => blocks_of(length) - placed,
            // Unknown: as much as there is already, so that the number of runs stays small.
            None => placed
                .clamp(now, most.max(now))
                .max(blocks_of(self.hint).saturating_sub(placed)),
        };
        // A short value stays in one piece; a long one may fill up what a segment has left.
        let least = if wanted <= most / 4 {
            wanted
        } else {
            (most / 8).max(BLOCK as u64)
        };
        // A value of unknown length may stay short, with a checksum for every 4 KiB.
        let chunk = self.length.map_or(FINE_CHUNK, |_| chunk_of(wanted));
        let crcs = wanted.div_ceil(chunk).min(REFERENCE_CRCS_MAX as u64);
        let summary = 64 + self.key_len as u64 + 4 * crcs;
        let run = self.shared.allocate(
            self.stream,
            wanted.min(most),
            least.min(most),
            summary,
            self.level,
        )?;
        self.allocations.push(run);
        self.rest = run;
        Ok(())
    }

    /// Room that the caller writes itself, and the bytes that each of its checksums must cover.
    pub fn reserve(&mut self, bytes: u64) -> Result<(Run, u64)> {
        let is_fine = self.length.is_none() && self.sums.chunk == FINE_CHUNK;
        if is_fine && self.sums.len + bytes.max(self.hint) > FINE_MAX {
            // Known now; where the value stays shorter, `fill` says so.
            if self.sums.len == 0 || self.sums.len == FINE_MAX {
                self.sums.coarsen();
            }
        }
        if self.sums.filled != 0 {
            let message = format!(
                "reserve room for a value: {} bytes came before, which is no multiple of {}",
                self.sums.len, self.sums.chunk
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.flush()?;
        if self.rest.bytes == 0 {
            self.more(blocks_of(bytes))?;
        }
        let chunk = self.sums.chunk;
        let mut run = self.rest;
        run.bytes = run.bytes.min(blocks_of(bytes));
        if run.bytes < blocks_of(bytes) && run.bytes >= chunk {
            run.bytes -= run.bytes % chunk;
        }
        Ok((run, chunk))
    }

    /// The first `len` bytes of the room at `offset` were written, with these checksums.
    pub fn fill(&mut self, offset: u64, len: u64, chunk: u64, crcs: &[u32]) -> Result<()> {
        let right = self.sums.filled == 0
            && offset == self.rest.offset
            && blocks_of(len) <= self.rest.bytes
            && chunk == self.sums.chunk
            && crcs.len() as u64 == len.div_ceil(chunk);
        if !right {
            let message = format!(
                "fill a run with {len} bytes at {offset}: reserve it first, and give a checksum \
                 for every {} bytes",
                self.sums.chunk
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.use_rest(blocks_of(len));
        self.sums.done.extend(crcs);
        self.sums.len += len;
        // A short last chunk: nothing may follow it.
        if !len.is_multiple_of(chunk) {
            let crc = self.sums.done.pop().unwrap_or(0);
            (self.sums.crc, self.sums.filled) = (crc, len % chunk);
        }
        Ok(())
    }

    /// Writes the rest, and the manifest if the value needs one.
    pub fn finish(mut self) -> Result<Stored> {
        self.flush()?;
        let len = self.sums.len;
        let length = self.length.replace(len);
        if length.is_some_and(|l| l != len) {
            let message = format!("a value of {length:?} bytes was announced and {len} came");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let sums = std::mem::replace(&mut self.sums, Checksums::new(None)).finish()?;
        let runs = std::mem::take(&mut self.runs);
        let reference = if let ([run], true) = (runs.as_slice(), sums.len() <= REFERENCE_CRCS_MAX) {
            Reference::extent(len, run.offset, sums)
        } else {
            let bytes: Vec<u8> = sums.iter().flat_map(|c| c.to_le_bytes()).collect();
            let crc_crcs = bytes.chunks(COARSE_CHUNK as usize).map(|c| crc32c(0, c));
            let crc_crcs = crc_crcs.collect();
            let crc_runs = self.place(&bytes, BLOCK as u64)?;
            let manifest = Manifest {
                len,
                offset: 0,
                bytes: 0,
                crc: 0,
                runs,
                crc_runs,
                crc_crcs,
            };
            self.place_manifest(manifest)?
        };
        Ok(Stored {
            shared: Arc::clone(&self.shared),
            reference,
            allocations: std::mem::take(&mut self.allocations),
        })
    }

    /// Writes `bytes` to new runs of at least `least` bytes each.
    fn place(&mut self, bytes: &[u8], least: u64) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let wanted = blocks_of(rest.len() as u64).min(self.shared.space.piece_max());
            let summary = 64 + self.key_len as u64;
            let run = self.shared.allocate(
                self.stream,
                wanted,
                least.min(wanted),
                summary,
                self.level,
            )?;
            self.allocations.push(run);
            let (now, later) = rest.split_at(rest.len().min(run.bytes as usize));
            self.shared.disk.write(run.offset, &Blocks::copy_of(now)?)?;
            runs.push(Run {
                offset: run.offset,
                bytes: blocks_of(now.len() as u64),
            });
            rest = later;
        }
        Ok(runs)
    }

    /// Writes a manifest in one piece.
    fn place_manifest(&mut self, mut manifest: Manifest) -> Result<Reference> {
        let bytes = encode_manifest(&manifest, self.shared.id);
        if blocks_of(bytes.len() as u64) > self.shared.space.piece_max() {
            let message = format!(
                "write a value of {} bytes: its list of {} runs is larger than a segment; use \
                 larger segments",
                manifest.len,
                manifest.runs.len()
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        let runs = self.place(&bytes, blocks_of(bytes.len() as u64))?;
        manifest.offset = runs.first().map_or(0, |r| r.offset);
        manifest.bytes = bytes.len() as u32;
        manifest.crc = crc32c(0, &bytes);
        Ok(Reference::Manifest(Arc::new(manifest)))
    }
}

impl Drop for ValueWriter {
    fn drop(&mut self) {
        settle_all(&self.shared, &mut self.allocations);
    }
}

/// Writes a changed manifest for a value that is moved in part, with the runs that were made for
/// it already in `allocations`.
pub(crate) fn store_manifest(
    shared: &Arc<Shared>,
    key_len: usize,
    manifest: Manifest,
    allocations: Vec<Run>,
) -> Result<Stored> {
    let mut writer = ValueWriter::new(shared, key_len, Some(1))?;
    writer.allocations = allocations;
    writer.stream = Stream::Moved;
    writer.level = Level::Cleaning;
    let reference = writer.place_manifest(manifest)?;
    Ok(Stored {
        shared: Arc::clone(shared),
        reference,
        allocations: std::mem::take(&mut writer.allocations),
    })
}

/// A value that was moved whole: its reference and its room.
pub(crate) fn stored(shared: &Arc<Shared>, reference: Reference, allocations: Vec<Run>) -> Stored {
    Stored {
        shared: Arc::clone(shared),
        reference,
        allocations,
    }
}

fn encode_manifest(m: &Manifest, uuid: u64) -> Vec<u8> {
    let runs = m.runs.len() + m.crc_runs.len();
    let mut bytes = Vec::with_capacity(MANIFEST_HEADER + 16 * runs + 4 * m.crc_crcs.len());
    bytes.extend(MANIFEST_MAGIC.to_le_bytes());
    bytes.extend((m.runs.len() as u32).to_le_bytes());
    bytes.extend((m.crc_runs.len() as u32).to_le_bytes());
    bytes.extend((m.crc_crcs.len() as u32).to_le_bytes());
    bytes.extend(m.len.to_le_bytes());
    bytes.extend(uuid.to_le_bytes());
    for run in m.runs.iter().chain(&m.crc_runs) {
        bytes.extend(run.offset.to_le_bytes());
        bytes.extend(run.bytes.to_le_bytes());
    }
    for crc in &m.crc_crcs {
        bytes.extend(crc.to_le_bytes());
    }
    bytes
}

/// Reads the manifest that a reference names.
///
/// # Errors
/// `Corrupted` when it is not what the reference says; `Io`.
pub(crate) fn read_manifest(
    disk: &dyn Disk,
    id: u64,
    (len, offset, size, crc): (u64, u64, u32, u32),
) -> Result<Manifest> {
    let mut blocks = Blocks::new(size as usize)?;
    disk.read(offset, &mut blocks)?;
    let bytes = &blocks[..size as usize];
    let wrong = || {
        let message = format!("the list of runs of a value of {len} bytes is damaged");
        Error::new(ErrorKind::Corrupted, message).with_offset(offset)
    };
    if crc32c(0, bytes) != crc {
        return Err(wrong());
    }
    let parse = || {
        let mut r = Reader(bytes);
        let magic = r.u32()?;
        let counts = [r.u32()?, r.u32()?, r.u32()?];
        let (length, uuid) = (r.u64()?, r.u64()?);
        let mut run = || {
            Some(Run {
                offset: r.u64()?,
                bytes: r.u64()?,
            })
        };
        let runs = (0..counts[0]).map(|_| run()).collect::<Option<Vec<_>>>()?;
        let crc_runs = (0..counts[1]).map(|_| run()).collect::<Option<Vec<_>>>()?;
        let crc_crcs = (0..counts[2])
            .map(|_| r.u32())
            .collect::<Option<Vec<_>>>()?;
        let total: u64 = runs.iter().map(|r| r.bytes).sum();
        (magic == MANIFEST_MAGIC && length == len && uuid == id && total >= len).then_some(
            Manifest {
                len,
                offset,
                bytes: size,
                crc,
                runs,
                crc_runs,
                crc_crcs,
            },
        )
    };
    parse().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_same_whether_the_length_was_known() {
        let most = if cfg!(miri) {
            5000
        } else {
            FINE_MAX as usize + 70_000
        };
        let data: Vec<u8> = (0..most).map(|i| (i / 7 + i) as u8).collect();
        for len in [
            1,
            4096,
            4097,
            FINE_MAX as usize,
            FINE_MAX as usize + 1,
            data.len(),
        ] {
            let Some(data) = data.get(..len) else {
                continue;
            };
            let mut known = Checksums::new(Some(len as u64));
            known.add(data);
            let mut unknown = Checksums::new(None);
            for piece in data.chunks(3333) {
                unknown.add(piece);
            }
            let chunk = chunk_of(len as u64) as usize;
            let want: Vec<u32> = data.chunks(chunk).map(|c| crc32c(0, c)).collect();
            assert_eq!(known.finish().unwrap(), want);
            assert_eq!(unknown.finish().unwrap(), want);
        }
    }
}
