//! Which chunks a list of ranges comes to, one after the other.

use crate::base::limits;
use crate::engine::File;
use crate::error::{Error, ErrorKind, Result};

/// A part of a file.
#[derive(Debug, Clone)]
pub struct Range {
    /// The file.
    pub file: File,
    /// Where it begins, bytes.
    pub offset: u64,
    /// Bytes, or `Range::TO_END`.
    pub size: u64,
}

impl Range {
    /// The size that stands for all up to the end that the file has at open.
    pub const TO_END: u64 = u64::MAX;

    /// All of a file.
    #[must_use]
    pub fn whole(file: &File) -> Self {
        Self {
            file: file.clone(),
            offset: 0,
            size: Self::TO_END,
        }
    }
}

/// One chunk to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    /// Which chunk of all.
    pub(super) index: u64,
    /// Which range it is a part of.
    pub(super) range: usize,
    /// Where it is in the range's file, bytes.
    pub(super) offset: u64,
    /// Bytes, at least 1.
    pub(super) size: u64,
}

/// Ranges that end where their files end, and the size of a chunk. No chunk spans two ranges, so
/// the last of each may be short.
#[derive(Debug)]
pub(super) struct Plan {
    ranges: Box<[Range]>,
    chunk_bytes: u64,
    /// Chunks in all.
    pub(super) chunks: u64,
    /// Bytes in all.
    pub(super) bytes: u64,
}

/// Where a walk through a plan is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    range: usize,
    position: u64,
    index: u64,
}

impl Plan {
    /// Cuts the ranges at the ends that the files have now.
    ///
    /// # Errors
    /// `OutOfRange` for a range that cannot be addressed or too many of them, `NotSupported` for
    /// a file whose size nobody knows, `Io`.
    pub(super) fn new(mut ranges: Vec<Range>, chunk_bytes: u64) -> Result<Self> {
        if ranges.len() as u64 > limits::STREAM_RANGES_MAX {
            let text = format!(
                "{} ranges were given, at most {} are taken; use several readers",
                ranges.len(),
                limits::STREAM_RANGES_MAX
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let (mut chunks, mut bytes) = (0u64, 0u64);
        for (index, range) in ranges.iter_mut().enumerate() {
            range.size = size_there_is(index, range)?;
            chunks += range.size.div_ceil(chunk_bytes);
            bytes = bytes.checked_add(range.size).ok_or_else(|| {
                let text = "the ranges come to over 2^64 bytes; use several readers";
                Error::new(ErrorKind::OutOfRange, text)
            })?;
        }
        Ok(Self {
            ranges: ranges.into_boxed_slice(),
            chunk_bytes,
            chunks,
            bytes,
        })
    }

    pub(super) fn range(&self, index: usize) -> &Range {
        &self.ranges[index]
    }

    pub(super) fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Bytes of the largest chunk.
    pub(super) fn largest(&self) -> u64 {
        let largest = self.ranges.iter().map(|r| r.size).max();
        largest.unwrap_or(0).min(self.chunk_bytes)
    }

    /// The next chunk.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Option<Planned> {
        self.skip_ended(cursor);
        let range = self.ranges.get(cursor.range)?;
        let size = (range.size - cursor.position).min(self.chunk_bytes);
        let planned = Planned {
            index: cursor.index,
            range: cursor.range,
            offset: range.offset + cursor.position,
            size,
        };
        cursor.position += size;
        cursor.index += 1;
        Some(planned)
    }

    /// Whether no chunk is left.
    pub(super) fn is_over(&self, cursor: &Cursor) -> bool {
        cursor.index == self.chunks
    }

    fn skip_ended(&self, cursor: &mut Cursor) {
        while let Some(range) = self.ranges.get(cursor.range)
            && cursor.position == range.size
        {
            cursor.range += 1;
            cursor.position = 0;
        }
    }
}

fn size_there_is(index: usize, range: &Range) -> Result<u64> {
    let path = range.file.path();
    if !range.file.capabilities().sized {
        let text = format!(
            "{} has no size before it is read; read it with a plain transfer",
            path.display()
        );
        return Err(Error::new(ErrorKind::NotSupported, text).with_path(path));
    }
    let most = limits::TRANSFER_SIZE_MAX;
    let end = match range.size {
        Range::TO_END => range.offset,
        size => range.offset.saturating_add(size),
    };
    if end > most {
        let text = format!(
            "range {index}: {} bytes at {} pass {most}, the largest offset",
            range.size, range.offset
        );
        let error = Error::new(ErrorKind::OutOfRange, text);
        return Err(error.with_path(path).with_offset(range.offset));
    }
    let there = range.file.size()?.saturating_sub(range.offset);
    Ok(range.size.min(there))
}
