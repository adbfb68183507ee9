//! Reading values: found in the index, held against reuse, verified, copied out.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::entry::Entry;
use super::page;
use super::reference::{COARSE_CHUNK, Manifest, Reference, Run, SlotRef, blocks_of, chunk_of};
use crate::base::crc::crc32c;
use crate::base::{align_down, align_up};
use crate::error::{Error, ErrorKind, Result};
use crate::io::FilePiece;
use crate::kv::bugs::{self, Bug};
use crate::kv::disk::{BLOCK, Blocks, Disk, SharedBlocks};
use crate::kv::wal::Lsn;

/// Bytes that are read into one piece of memory.
const WINDOW: u64 = 1 << 20;
/// Such pieces that are read at a time.
const AT_ONCE: u64 = 4;

/// Segments that are held against reuse.
#[derive(Debug)]
pub(crate) struct Pins<'a> {
    shared: &'a Shared,
    segments: Vec<u32>,
}

impl Pins<'_> {
    fn new<'a>(shared: &'a Shared, reference: &Reference, key_len: usize) -> Pins<'a> {
        let mut segments = Vec::new();
        let mut last = None;
        reference.pieces(key_len, &mut |offset, _| {
            let segment = shared.space.segment_of(offset);
            if segment.is_some() && segment != last {
                segments.push(shared.space.pin(offset));
                last = segment;
            }
        });
        Pins { shared, segments }
    }

    /// The segments, held on: whoever takes them lets them go with `unpin_all`.
    fn keep(mut self) -> Vec<u32> {
        std::mem::take(&mut self.segments)
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        unpin_all(self.shared, &self.segments);
    }
}

fn unpin_all(shared: &Shared, segments: &[u32]) {
    for segment in segments {
        shared.space.unpin(*segment);
    }
    if !segments.is_empty() && shared.signal.somebody_waits() {
        shared.signal.want_space();
    }
}

/// A value that cannot be written over while this lives.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub reference: Reference,
    pub generation: u32,
    _pins: Pins<'a>,
}

/// A contiguous piece of a value on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where on the disk, bytes: whole blocks.
    pub offset: u64,
    /// How many bytes of the value, whole blocks but for the value's end.
    pub len: u64,
}

/// Where a range of a value lies, for reads that bring it to its place by themselves. What it
/// names is not written over while it lives.
#[derive(Debug)]
pub struct Located {
    /// The version's number.
    pub lsn: Lsn,
    /// The first byte of the value that `pieces` holds: the range's start, rounded down to a
    /// whole chunk.
    pub start: u64,
    /// Bytes of the value from `start` that `pieces` holds.
    pub len: u64,
    /// Bytes of the whole value.
    pub value_len: u64,
    /// Bytes that one checksum covers.
    pub chunk: u64,
    /// In order, without gaps. Empty for a value that is `inline`.
    pub pieces: Vec<Piece>,
    /// CRC32C of every chunk from `start` on; the value's last one may be short.
    pub crcs: Vec<u32>,
    /// A small value's verified bytes: the whole value.
    pub inline: Option<Arc<[u8]>>,
    shared: Arc<Shared>,
    segments: Vec<u32>,
}

impl Drop for Located {
    fn drop(&mut self) {
        unpin_all(&self.shared, &self.segments);
    }
}

impl Shared {
    /// Looks `key` up as of `at`; answers with the version's number, and with what `inline` makes
    /// of a value in memory, or with the place of another, held.
    fn find<R>(
        &self,
        key: &[u8],
        at: Lsn,
        inline: impl FnOnce(&[u8]) -> R,
    ) -> Option<(Lsn, std::result::Result<R, Found<'_>>)> {
        self.index.with(key, |entry| {
            let (lsn, reference) = entry.and_then(|e: &Entry| e.at(at))?;
            let found = match reference {
                Reference::Tombstone => return None,
                Reference::Inline(value) => Ok(inline(value)),
                Reference::Slot(slot) => {
                    let generation = self.space.generation(slot.page);
                    if let Some(page) = self.cache.get(&(slot.page, generation))
                        && let Some(value) = page::value_of(&page, slot, key)
                    {
                        self.counters.cache_hits.fetch_add(1, Relaxed);
                        return Some((lsn, Ok(inline(value))));
                    }
                    Err(self.found(key, reference, generation))
                }
                _ => Err(self.found(key, reference, 0)),
            };
            Some((lsn, found))
        })
    }

    pub fn found(&self, key: &[u8], reference: &Reference, generation: u32) -> Found<'_> {
        Found {
            reference: reference.clone(),
            generation,
            _pins: Pins::new(self, reference, key.len()),
        }
    }

    /// Holds what `reference` names; the caller holds the entry's shard.
    pub fn hold(&self, key: &[u8], reference: &Reference) -> Found<'_> {
        let generation = match reference {
            Reference::Slot(slot) => self.space.generation(slot.page),
            _ => 0,
        };
        self.found(key, reference, generation)
    }

    /// The whole value as of `at`.
    pub fn get_at(&self, key: &[u8], at: Lsn) -> Result<Option<Vec<u8>>> {
        let found = match self.find(key, at, <[u8]>::to_vec) {
            None => return Ok(None),
            Some((_, Ok(value))) => return Ok(Some(value)),
            Some((_, Err(found))) => found,
        };
        self.value_of(key, &found).map(Some)
    }

    /// The whole value that was found.
    pub fn value_of(&self, key: &[u8], found: &Found<'_>) -> Result<Vec<u8>> {
        match &found.reference {
            Reference::Slot(slot) => {
                let page = self.page(slot, found.generation)?;
                let value = page::value_of(&page, slot, key);
                value
                    .map(<[u8]>::to_vec)
                    .ok_or_else(|| self.damaged(key, slot.page))
            }
            Reference::Inline(value) => Ok(value.to_vec()),
            reference => {
                let len = usize::try_from(reference.len()).unwrap_or(usize::MAX);
                let mut value = Vec::new();
                value.try_reserve_exact(len).map_err(|_| {
                    let message = format!("get a value of {len} bytes: no memory; use get_into");
                    Error::new(ErrorKind::OutOfHostMemory, message)
                })?;
                value.resize(len, 0);
                self.read_extent(key, reference, 0, &mut value)?;
                Ok(value)
            }
        }
    }

    /// Bytes of the value from `offset` on; how many there were.
    pub fn get_into_at(
        &self,
        key: &[u8],
        at: Lsn,
        offset: u64,
        into: &mut [u8],
    ) -> Result<Option<usize>> {
        let copy = |value: &[u8], into: &mut [u8]| {
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(value.len());
            let len = into.len().min(value.len() - start);
            into[..len].copy_from_slice(&value[start..start + len]);
            len
        };
        let found = match self.find(key, at, |value| copy(value, into)) {
            None => return Ok(None),
            Some((_, Ok(len))) => return Ok(Some(len)),
            Some((_, Err(found))) => found,
        };
        if let Reference::Slot(_) = found.reference {
            let value = self.value_of(key, &found)?;
            return Ok(Some(copy(&value, into)));
        }
        let len = found.reference.len().saturating_sub(offset);
        let len = into.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        self.read_extent(key, &found.reference, offset, &mut into[..len])?;
        Ok(Some(len))
    }

    /// The number of the version as of `at`, and the bytes of its value.
    pub fn version_at(&self, key: &[u8], at: Lsn) -> Option<(Lsn, u64)> {
        self.index.with(key, |entry| {
            let (lsn, reference) = entry?.at(at)?;
            (!reference.is_tombstone()).then(|| (lsn, reference.len()))
        })
    }

    /// The page of a slot: from the cache, or read and verified.
    pub fn page(&self, slot: &SlotRef, generation: u32) -> Result<SharedBlocks> {
        if let Some(page) = self.cache.get(&(slot.page, generation)) {
            self.counters.cache_hits.fetch_add(1, Relaxed);
            return Ok(page);
        }
        self.counters.cache_misses.fetch_add(1, Relaxed);
        let mut blocks = Blocks::used(slot.page_bytes as usize)?;
        self.disk.read_again(slot.page, &mut blocks)?;
        self.counters.checksums.fetch_add(1, Relaxed);
        let mut is_whole = page::is_whole(&blocks, self.id);
        if !is_whole {
            // The system's copy may be what is wrong.
            self.disk.read(slot.page, &mut blocks)?;
            is_whole = page::is_whole(&blocks, self.id);
        }
        if !is_whole && !bugs::is_on(Bug::ChecksumSkipped) {
            let message = "read a page of small values: it is not what was written";
            return Err(Error::new(ErrorKind::Corrupted, message).with_offset(slot.page));
        }
        let page = SharedBlocks::from(blocks);
        self.cache.insert((slot.page, generation), page.clone());
        Ok(page)
    }

    pub fn damaged(&self, key: &[u8], offset: u64) -> Error {
        let mut name = key.escape_ascii().to_string();
        name.truncate(80);
        let message = format!(
            "read the value of key \"{name}\": the bytes on the disk are not what was written; \
             restore it from elsewhere"
        );
        let error = Error::new(ErrorKind::Corrupted, message).with_offset(offset);
        match self.disk.path() {
            Some(path) => error.with_path(path),
            None => error,
        }
    }

    /// Reads and verifies part of a value in extents. The range lies inside the value.
    pub fn read_extent(
        &self,
        key: &[u8],
        reference: &Reference,
        offset: u64,
        into: &mut [u8],
    ) -> Result<()> {
        if into.is_empty() {
            return Ok(());
        }
        let len = reference.len();
        let chunk = chunk_of(len);
        let end = offset + into.len() as u64;
        let from = align_down(offset, chunk);
        let crcs = self.crcs(key, reference, from / chunk, end.div_ceil(chunk))?;
        let runs = runs_of(reference);
        let window = align_up(WINDOW.min(blocks_of(end - from)), chunk).unwrap_or(WINDOW);
        let windows = (end - from).div_ceil(window).min(AT_ONCE);
        let windows: Result<Vec<Blocks>> = (0..windows)
            .map(|_| Blocks::used(window as usize))
            .collect();
        let mut windows = windows?;
        let mut spans = Vec::with_capacity(windows.len());
        let mut at = from;
        while at < end {
            spans.clear();
            let mut pieces = Vec::with_capacity(windows.len());
            for blocks in &mut windows {
                if at < end {
                    let stop = (at + blocks.len() as u64).min(len);
                    let stop = stop.min(align_up(end, chunk).unwrap_or(stop));
                    let bytes = blocks_of(stop - at) as usize;
                    pieces_of(&runs, at, &mut blocks[..bytes], &mut pieces)?;
                    spans.push(at..stop);
                    at = stop;
                }
            }
            self.disk.read_many(&mut pieces)?;
            for (blocks, span) in windows.iter().zip(&spans) {
                let valid = &blocks[..(span.end - span.start) as usize];
                for (n, piece) in valid.chunks(chunk as usize).enumerate() {
                    let number = (span.start - from) / chunk + n as u64;
                    let right = crcs.get(number as usize) == Some(&crc32c(0, piece));
                    if !right && !bugs::is_on(Bug::ChecksumSkipped) {
                        let place = disk_offset(&runs, span.start + n as u64 * chunk);
                        return Err(self.damaged(key, place.unwrap_or(0)));
                    }
                }
                let chunks = valid.len().div_ceil(chunk as usize) as u64;
                self.counters.checksums.fetch_add(chunks, Relaxed);
                self.counters.checksum_batches.fetch_add(1, Relaxed);
                // The part of the window that was asked for.
                let (first, last) = (span.start.max(offset), span.end.min(end));
                into[(first - offset) as usize..(last - offset) as usize].copy_from_slice(
                    &valid[(first - span.start) as usize..(last - span.start) as usize],
                );
            }
        }
        Ok(())
    }

    /// Checksums `first` to `last` (exclusive) of a value in extents.
    fn crcs(&self, key: &[u8], reference: &Reference, first: u64, last: u64) -> Result<Vec<u32>> {
        let part = |crcs: &[u32]| {
            let all = crcs.get(first as usize..last as usize);
            all.map(<[u32]>::to_vec).ok_or_else(|| self.damaged(key, 0))
        };
        let manifest = match reference {
            Reference::Block { crc, .. } => return part(&[*crc]),
            Reference::Extent(extent) => return part(&extent.crcs),
            Reference::Manifest(manifest) => manifest,
            Reference::Unread { offset, .. } => return Err(self.damaged(key, *offset)),
            _ => return Err(self.damaged(key, 0)),
        };
        if first >= last {
            return Ok(Vec::new());
        }
        let total = 4 * manifest.len.div_ceil(chunk_of(manifest.len));
        let from = align_down(4 * first, COARSE_CHUNK);
        let to = align_up(4 * last, COARSE_CHUNK).unwrap_or(total).min(total);
        let size = (to - from) as usize;
        let blocks = bytes_of(&*self.disk, &manifest.crc_runs, from, size)?;
        let bytes = &blocks[..size];
        for (n, piece) in bytes.chunks(COARSE_CHUNK as usize).enumerate() {
            let number = (from / COARSE_CHUNK) as usize + n;
            let right = manifest.crc_crcs.get(number) == Some(&crc32c(0, piece));
            if !right && !bugs::is_on(Bug::ChecksumSkipped) {
                return Err(self.damaged(key, manifest.offset));
            }
        }
        let words = bytes[(4 * first - from) as usize..(4 * last - from) as usize].chunks_exact(4);
        Ok(words
            .map(|w| u32::from_le_bytes(w.try_into().unwrap_or([0; 4])))
            .collect())
    }

    /// Where `range` of the value lies.
    pub fn locate_at(
        self: &Arc<Self>,
        key: &[u8],
        at: Lsn,
        range: Range<u64>,
    ) -> Result<Option<Located>> {
        let mut located = Located {
            lsn: at,
            start: 0,
            len: 0,
            value_len: 0,
            chunk: BLOCK as u64,
            pieces: Vec::new(),
            crcs: Vec::new(),
            inline: None,
            shared: Arc::clone(self),
            segments: Vec::new(),
        };
        let inline = |mut located: Located, value: Arc<[u8]>| {
            located.len = value.len() as u64;
            located.value_len = located.len;
            located.inline = Some(value);
            Ok(Some(located))
        };
        let found = match self.find(key, at, |value| Arc::<[u8]>::from(value)) {
            None => return Ok(None),
            Some((lsn, found)) => {
                located.lsn = lsn;
                match found {
                    Ok(value) => return inline(located, value),
                    Err(found) => found,
                }
            }
        };
        if let Reference::Slot(_) = found.reference {
            let value = self.value_of(key, &found)?;
            return inline(located, value.into());
        }
        let Found {
            reference, _pins, ..
        } = found;
        located.value_len = reference.len();
        located.chunk = chunk_of(located.value_len);
        let end = range.end.min(located.value_len);
        located.start = align_down(range.start.min(end), located.chunk);
        let last = align_up(end, located.chunk).unwrap_or(end);
        let stop = last.min(located.value_len);
        located.len = stop - located.start;
        located.crcs = self.crcs(
            key,
            &reference,
            located.start / located.chunk,
            last / located.chunk,
        )?;
        let mut from = 0;
        for run in runs_of(&reference) {
            let (first, next) = (located.start.max(from), stop.min(from + run.bytes));
            if first < next {
                located.pieces.push(Piece {
                    offset: run.offset + (first - from),
                    len: next - first,
                });
            }
            from += run.bytes;
        }
        located.segments = _pins.keep();
        Ok(Some(located))
    }
}

/// The runs of a value in extents.
pub(crate) fn runs_of(reference: &Reference) -> Vec<Run> {
    match reference {
        Reference::Block { offset, len, .. } => vec![Run {
            offset: *offset,
            bytes: blocks_of(u64::from(*len)),
        }],
        Reference::Extent(extent) => vec![Run {
            offset: extent.offset,
            bytes: blocks_of(extent.len),
        }],
        Reference::Manifest(manifest) => manifest.runs.clone(),
        _ => Vec::new(),
    }
}

/// The pieces of the disk that fill `into` (whole blocks) with the bytes of `runs` from `at` (a
/// whole block) on.
fn pieces_of<'a>(
    runs: &[Run],
    at: u64,
    mut into: &'a mut [u8],
    pieces: &mut Vec<FilePiece<'a>>,
) -> Result<()> {
    let (mut start, mut at) = (0, at);
    for run in runs {
        let skip = at.saturating_sub(start);
        if skip < run.bytes && !into.is_empty() {
            let now = usize::try_from(run.bytes - skip).unwrap_or(usize::MAX);
            let (first, rest) = into.split_at_mut(now.min(into.len()));
            at += first.len() as u64;
            pieces.push((run.offset + skip, first));
            into = rest;
        }
        start += run.bytes;
    }
    if !into.is_empty() {
        let message = "the runs of a value are shorter than the value";
        return Err(Error::new(ErrorKind::Corrupted, message));
    }
    Ok(())
}

/// So many bytes of `runs` from `at` (a whole block) on, and what fills their last block.
fn bytes_of(disk: &dyn Disk, runs: &[Run], at: u64, size: usize) -> Result<Blocks> {
    let mut blocks = Blocks::new(size)?;
    let mut pieces = Vec::new();
    let whole = blocks_of(size as u64) as usize;
    pieces_of(runs, at, &mut blocks[..whole], &mut pieces)?;
    disk.read_many(&mut pieces)?;
    drop(pieces);
    Ok(blocks)
}

/// Whether all bytes of a value in several runs are what was written: reads all of them, a chunk
/// and the checksums of many at a time.
pub(super) fn is_whole(disk: &dyn Disk, manifest: &Manifest) -> Result<bool> {
    let total = 4 * manifest.len.div_ceil(chunk_of(manifest.len));
    for (at, crc) in (0u64..)
        .step_by(COARSE_CHUNK as usize)
        .zip(&manifest.crc_crcs)
    {
        let size = COARSE_CHUNK.min(total.saturating_sub(at)) as usize;
        let listed = bytes_of(disk, &manifest.crc_runs, at, size)?;
        if crc32c(0, &listed[..size]) != *crc {
            return Ok(false);
        }
        let words = listed[..size].chunks_exact(4);
        let crcs = words.map(|w| u32::from_le_bytes(w.try_into().unwrap_or([0; 4])));
        if !chunks_hold(disk, &manifest.runs, manifest.len, at / 4, crcs)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether chunks of a value of `len` bytes in `runs`, from chunk `first` on, have these checksums.
pub(super) fn chunks_hold(
    disk: &dyn Disk,
    runs: &[Run],
    len: u64,
    first: u64,
    crcs: impl Iterator<Item = u32>,
) -> Result<bool> {
    let chunk = chunk_of(len);
    for (n, crc) in (first..).zip(crcs) {
        let size = chunk.min(len - n * chunk) as usize;
        let have = bytes_of(disk, runs, n * chunk, size)?;
        if crc32c(0, &have[..size]) != crc {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where byte `at` of a value lies.
fn disk_offset(runs: &[Run], at: u64) -> Option<u64> {
    let mut start = 0;
    for run in runs {
        if at < start + run.bytes {
            return Some(run.offset + (at - start));
        }
        start += run.bytes;
    }
    None
}
