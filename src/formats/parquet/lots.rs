//! How much goes to the device at a time.
//!
//! Row groups go there in lots: as many as keep the device busy, not more than a bound of memory,
//! one at least. While a lot is decompressed and decoded, the next one is read. A lot takes
//! `LOT_SIZE` of device memory for what it is made of, its encoded bytes once more for the lot that
//! is being read, and 8 bytes for each value that does not stand in its page as it is; the columns
//! that come out are not counted, nor a row group that is larger for itself. Columns inside of
//! lists and structs go in one lot.

use std::iter::Sum;
use std::ops::Range;
use std::path::Path;

use super::chunks::Chunk;
use crate::base::align_up;
use crate::engine::{Buffer, Context, Copy, MemoryKind, Ticket};
use crate::error::{Error, ErrorKind, Result};

/// What buffers begin at multiples of, bytes.
const ALIGN: u64 = 64;
/// Encoded and decompressed bytes of a lot.
const LOT_SIZE: u64 = 2 << 30;

/// Bytes of device memory that a chunk takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LotSize {
    /// As it is in the file, up to where the next one begins.
    pub encoded: u64,
    /// Its pages, decompressed, whether they have to be or not.
    pub decompressed: u64,
}

impl LotSize {
    pub(super) fn of(chunk: &Chunk) -> Self {
        let bytes = match &chunk.not_read {
            Some(range) => range.end - range.start,
            None => chunk.runs.first().map_or(0, |run| run.bytes.len() as u64),
        };
        let pages = chunk.pages.iter();
        Self {
            encoded: align_up(bytes.saturating_add(8), ALIGN).unwrap_or(u64::MAX),
            // Each begins at a multiple of 8, with room behind it.
            decompressed: pages.map(|p| u64::from(p.header.uncompressed) + 12).sum(),
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            encoded: self.encoded.saturating_add(other.encoded),
            decompressed: self.decompressed.saturating_add(other.decompressed),
        }
    }
}

impl Sum for LotSize {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::with)
    }
}

/// Parts that go to the device together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lot {
    pub parts: Range<usize>,
    size: LotSize,
}

/// Makes lots of the first `parts` parts, whose sizes `size` tells.
pub(super) fn lots(parts: usize, size: impl Fn(usize) -> LotSize) -> Vec<Lot> {
    let mut made: Vec<Lot> = Vec::new();
    for part in 0..parts {
        let own = size(part);
        if let Some(last) = made.last_mut() {
            let both = last.size.with(own);
            if both.encoded.saturating_add(both.decompressed) <= LOT_SIZE {
                last.parts.end = part + 1;
                last.size = both;
                continue;
            }
        }
        made.push(Lot {
            parts: part..part + 1,
            size: own,
        });
    }
    made
}

/// Makes one lot of all of them.
pub(super) fn one(parts: usize, size: impl Fn(usize) -> LotSize) -> Vec<Lot> {
    let size = (0..parts).map(size).sum();
    let lot = Lot {
        parts: 0..parts,
        size,
    };
    Vec::from([lot])
}

/// Memory for one lot after the other.
pub(super) struct Rooms {
    encoded: Vec<Buffer>,
    decompressed: Buffer,
}

impl Rooms {
    pub(super) fn new(context: &Context, lots: &[Lot]) -> Result<Self> {
        let most = |of: fn(&LotSize) -> u64| lots.iter().map(|lot| of(&lot.size)).max();
        let alloc = |size: Option<u64>| {
            let size = size.unwrap_or(0).max(ALIGN);
            context.alloc(MemoryKind::Device, size)
        };
        let encoded = (0..lots.len().clamp(1, 2)).map(|_| alloc(most(|size| size.encoded)));
        Ok(Self {
            encoded: encoded.collect::<Result<_>>()?,
            decompressed: alloc(most(|size| size.decompressed))?,
        })
    }

    /// For the encoded bytes of a lot: that of the lot before stays as it is.
    pub(super) fn encoded(&self, lot: usize) -> &Buffer {
        &self.encoded[lot % self.encoded.len()]
    }

    pub(super) fn decompressed(&self) -> &Buffer {
        &self.decompressed
    }
}

/// Chunks on their way to the device.
pub(super) struct Sent {
    pub buffer: Buffer,
    /// Where each chunk begins.
    pub starts: Vec<(usize, u64)>,
    pub ticket: Option<Ticket>,
    /// Bytes that the ticket is for.
    pub wanted: u64,
}

impl Sent {
    /// Waits until the chunks are there.
    pub(super) fn arrived(mut self, path: &Path) -> Result<Self> {
        if let Some(ticket) = self.ticket.take() {
            let done = ticket.wait(None)?;
            if done.bytes < self.wanted {
                let message = format!("read {}: it became shorter", path.display());
                return Err(Error::new(ErrorKind::FileChanged, message).with_path(path));
            }
        }
        Ok(self)
    }
}

/// The bytes of all lots, one behind the other.
pub(super) fn joined(context: &Context, mut lots: Vec<(Buffer, u64)>) -> Result<(Buffer, u64)> {
    if lots.len() == 1
        && let Some(only) = lots.pop()
    {
        return Ok(only);
    }
    let size = lots.iter().map(|(_, size)| size).sum::<u64>();
    let space = align_up(size, ALIGN).unwrap_or(size).max(ALIGN);
    let buffer = context.alloc(MemoryKind::Device, space)?;
    let mut at = 0;
    let mut copies = Vec::new();
    for (from, size) in lots.into_iter().filter(|(_, size)| *size > 0) {
        copies.push(Copy {
            from,
            from_offset: 0,
            to: buffer.clone(),
            to_offset: at,
            size,
        });
        at += size;
    }
    context.copy(&copies)?;
    Ok((buffer, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_have_a_bound_and_a_part_at_least() {
        let half = LOT_SIZE / 2;
        let size = |encoded, decompressed| LotSize {
            encoded,
            decompressed,
        };
        let parts = [
            size(half / 2, half / 2),
            size(half / 2, half / 2),
            size(0, 1),
            size(3 * half, 3 * half),
            size(0, 0),
            size(u64::MAX, u64::MAX),
            size(1, 1),
            size(1, 1),
        ];
        let made = lots(parts.len(), |part| parts[part]);
        let ranges: Vec<_> = made.into_iter().map(|lot| lot.parts).collect();
        assert_eq!(ranges, [0..2, 2..3, 3..4, 4..5, 5..6, 6..8]);
        assert_eq!(lots(0, |part| parts[part]), []);
    }
}
