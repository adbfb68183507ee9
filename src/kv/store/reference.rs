//! Where a value is, and the checksums that prove it: kept in memory, in log records and in the
//! meta log. The checksum lies in the reference, so stale and misdirected blocks are found too.
//!
//! ```text
//! tag u8
//! 0 tombstone
//! 1 slot      page u64, page_bytes u32, start u32, len u32, crc u32
//! 2 extent    len u64, offset u64, count u32, crc u32 x count
//! 3 manifest  len u64, offset u64, bytes u32, crc u32
//! ```

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::base::align_up;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::BLOCK;

/// A value up to this length has a checksum every 4 KiB, a longer one every 64 KiB.
pub(crate) const FINE_MAX: u64 = 2 << 20;
/// Bytes that one checksum covers in values up to `FINE_MAX`.
pub(crate) const FINE_CHUNK: u64 = 4 << 10;
/// Bytes that one checksum covers in longer values.
pub(crate) const COARSE_CHUNK: u64 = 64 << 10;
/// Most checksums that a reference holds itself.
pub(crate) const REFERENCE_CRCS_MAX: usize = 512;

/// Bytes that one checksum of a value of `len` bytes covers.
#[inline]
pub(crate) fn chunk_of(len: u64) -> u64 {
    if len <= FINE_MAX {
        FINE_CHUNK
    } else {
        COARSE_CHUNK
    }
}

/// `len` rounded up to whole blocks.
#[inline]
pub(crate) fn blocks_of(len: u64) -> u64 {
    align_up(len, BLOCK as u64).unwrap_or(u64::MAX)
}

/// A contiguous piece of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub offset: u64,
    /// Whole blocks, bytes.
    pub bytes: u64,
}

/// One contiguous extent whose checksums the reference holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub len: u64,
    pub offset: u64,
    pub crcs: Box<[u32]>,
}

/// A value in several runs; its runs and checksums lie in extents of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub len: u64,
    /// Where the manifest itself is, and the checksum of its `bytes` (before padding).
    pub offset: u64,
    pub bytes: u32,
    pub crc: u32,
    /// The value's bytes, in order.
    pub runs: Vec<Run>,
    /// The array of chunk checksums, in order.
    pub crc_runs: Vec<Run>,
    /// A checksum for every 64 KiB of the array.
    pub crc_crcs: Vec<u32>,
}

/// A slot in a page of small values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotRef {
    pub page: u64,
    pub page_bytes: u32,
    /// Where the slot's header starts in the page.
    pub start: u32,
    pub len: u32,
    pub crc: u32,
}

/// Where the value of one version is.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    /// Deleted.
    Tombstone,
    /// In the log and in memory only, until the next checkpoint.
    Inline(Bytes),
    /// In a page of small values.
    Slot(SlotRef),
    /// One block, one checksum: kept without a pointer.
    Block { offset: u64, len: u32, crc: u32 },
    /// One contiguous extent.
    Extent(Arc<Extent>),
    /// Several runs.
    Manifest(Arc<Manifest>),
    /// A manifest that was named but not read yet; only while opening.
    Unread {
        len: u64,
        offset: u64,
        bytes: u32,
        crc: u32,
    },
}

/// Bytes of memory that small values of a thread share. A piece lives until the last of them has
/// a place on the disk. What is in memory alone is in the log too, so its size bounds the pieces.
const PIECE: usize = 64 << 10;

thread_local! {
    static PIECE_LEFT: RefCell<BytesMut> = RefCell::default();
}

/// Copies a small value to memory that it shares with the thread's next ones. The allocator is
/// asked for pieces, not for values, which commits take and checkpoints give back from different
/// threads: they would meet there at every value.
pub(crate) fn small_value(value: &[u8]) -> Bytes {
    if value.len() > PIECE / 16 {
        return Bytes::copy_from_slice(value);
    }
    PIECE_LEFT.with_borrow_mut(|left| {
        if left.capacity() < value.len() {
            *left = BytesMut::with_capacity(PIECE);
        }
        left.extend_from_slice(value);
        left.split().freeze()
    })
}

impl Reference {
    /// A value in memory.
    pub fn inline(value: &[u8]) -> Self {
        Self::Inline(small_value(value))
    }

    /// An extent reference, in its smallest form.
    pub fn extent(len: u64, offset: u64, crcs: Vec<u32>) -> Self {
        match (crcs.as_slice(), u32::try_from(len)) {
            (&[crc], Ok(len)) => Self::Block { offset, len, crc },
            _ => Self::Extent(Arc::new(Extent {
                len,
                offset,
                crcs: crcs.into(),
            })),
        }
    }

    pub fn is_tombstone(&self) -> bool {
        matches!(self, Self::Tombstone)
    }

    /// Bytes of the value.
    pub fn len(&self) -> u64 {
        match self {
            Self::Tombstone => 0,
            Self::Inline(value) => value.len() as u64,
            Self::Slot(slot) => u64::from(slot.len),
            Self::Block { len, .. } => u64::from(*len),
            Self::Extent(extent) => extent.len,
            Self::Manifest(manifest) => manifest.len,
            Self::Unread { len, .. } => *len,
        }
    }

    /// Calls `each` with the offset and live bytes of every piece of the store that this holds.
    pub fn pieces(&self, key_len: usize, each: &mut dyn FnMut(u64, u64)) {
        match self {
            Self::Tombstone | Self::Inline(_) | Self::Unread { .. } => {}
            Self::Slot(slot) => each(
                slot.page,
                super::page::slot_bytes(key_len, slot.len as usize) as u64,
            ),
            Self::Block { offset, len, .. } => each(*offset, blocks_of(u64::from(*len))),
            Self::Extent(extent) => each(extent.offset, blocks_of(extent.len)),
            Self::Manifest(manifest) => {
                each(manifest.offset, blocks_of(u64::from(manifest.bytes)));
                for run in manifest.runs.iter().chain(&manifest.crc_runs) {
                    each(run.offset, run.bytes);
                }
            }
        }
    }

    /// Memory outside of the entry, bytes.
    pub fn heap(&self) -> u64 {
        match self {
            Self::Inline(value) => value.len() as u64,
            Self::Extent(extent) => 56 + 4 * extent.crcs.len() as u64,
            Self::Manifest(m) => {
                96 + 16 * (m.runs.len() + m.crc_runs.len()) as u64 + 4 * m.crc_crcs.len() as u64
            }
            _ => 0,
        }
    }

    /// Whether both name the same place: what a relocation compares before it swaps.
    pub fn same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inline(a), Self::Inline(b)) => std::ptr::eq(&raw const a[..], &raw const b[..]),
            (Self::Slot(a), Self::Slot(b)) => a == b,
            (Self::Block { offset: a, .. }, Self::Block { offset: b, .. }) => a == b,
            (Self::Extent(a), Self::Extent(b)) => a.offset == b.offset,
            (Self::Manifest(a), Self::Manifest(b)) => a.offset == b.offset,
            _ => false,
        }
    }

    /// Appends the stored form. An inline value has none: its page's slot is stored instead.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Tombstone => into.push(0),
            Self::Inline(_) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "an inline value was to be stored as a reference",
                ));
            }
            Self::Slot(slot) => {
                // At once: there are more of these than of all others.
                let mut bytes = [1; 25];
                bytes[1..9].copy_from_slice(&slot.page.to_le_bytes());
                bytes[9..13].copy_from_slice(&slot.page_bytes.to_le_bytes());
                bytes[13..17].copy_from_slice(&slot.start.to_le_bytes());
                bytes[17..21].copy_from_slice(&slot.len.to_le_bytes());
                bytes[21..].copy_from_slice(&slot.crc.to_le_bytes());
                into.extend_from_slice(&bytes);
            }
            Self::Block { offset, len, crc } => {
                into.push(2);
                into.extend(u64::from(*len).to_le_bytes());
                into.extend(offset.to_le_bytes());
                into.extend(1u32.to_le_bytes());
                into.extend(crc.to_le_bytes());
            }
            Self::Extent(extent) => {
                into.push(2);
                into.extend(extent.len.to_le_bytes());
                into.extend(extent.offset.to_le_bytes());
                into.extend((extent.crcs.len() as u32).to_le_bytes());
                for crc in &extent.crcs {
                    into.extend(crc.to_le_bytes());
                }
            }
            Self::Manifest(m) => Self::encode_manifest(into, m.len, m.offset, m.bytes, m.crc),
            Self::Unread {
                len,
                offset,
                bytes,
                crc,
            } => Self::encode_manifest(into, *len, *offset, *bytes, *crc),
        }
        Ok(())
    }

    fn encode_manifest(into: &mut Vec<u8>, len: u64, offset: u64, bytes: u32, crc: u32) {
        into.push(3);
        into.extend(len.to_le_bytes());
        into.extend(offset.to_le_bytes());
        into.extend(bytes.to_le_bytes());
        into.extend(crc.to_le_bytes());
    }

    /// Reads the stored form; `None` when the bytes are not one.
    pub fn decode(from: &mut Reader<'_>) -> Option<Self> {
        match from.u8()? {
            0 => Some(Self::Tombstone),
            1 => {
                let slot = SlotRef {
                    page: from.u64()?,
                    page_bytes: from.u32()?,
                    start: from.u32()?,
                    len: from.u32()?,
                    crc: from.u32()?,
                };
                let end = u64::from(slot.start) + u64::from(slot.len);
                (slot.page.is_multiple_of(BLOCK as u64)
                    && slot.page_bytes.is_multiple_of(BLOCK as u32)
                    && end <= u64::from(slot.page_bytes))
                .then_some(Self::Slot(slot))
            }
            2 => {
                let (len, offset, count) = (from.u64()?, from.u64()?, from.u32()? as usize);
                let right = len > 0
                    && offset.is_multiple_of(BLOCK as u64)
                    && count <= REFERENCE_CRCS_MAX
                    && count as u64 == len.div_ceil(chunk_of(len));
                if !right {
                    return None;
                }
                let crcs: Option<Vec<u32>> = (0..count).map(|_| from.u32()).collect();
                Some(Self::extent(len, offset, crcs?))
            }
            3 => {
                let (len, offset) = (from.u64()?, from.u64()?);
                let (bytes, crc) = (from.u32()?, from.u32()?);
                offset.is_multiple_of(BLOCK as u64).then_some(Self::Unread {
                    len,
                    offset,
                    bytes,
                    crc,
                })
            }
            _ => None,
        }
    }
}

/// Takes little-endian integers and bytes off the front of a slice; never past its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take(8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(reference: &Reference) -> Reference {
        let mut bytes = Vec::new();
        reference.encode(&mut bytes).unwrap();
        for cut in (0..bytes.len()).step_by(if cfg!(miri) { 97 } else { 1 }) {
            assert!(Reference::decode(&mut Reader(&bytes[..cut])).is_none());
        }
        let mut reader = Reader(&bytes);
        let back = Reference::decode(&mut reader).unwrap();
        assert!(reader.0.is_empty());
        let mut again = Vec::new();
        back.encode(&mut again).unwrap();
        assert_eq!(bytes, again);
        back
    }

    #[test]
    fn references_survive_storing() {
        round(&Reference::Tombstone);
        let slot = SlotRef {
            page: 8192,
            page_bytes: 16384,
            start: 100,
            len: 77,
            crc: 5,
        };
        assert!(matches!(round(&Reference::Slot(slot)), Reference::Slot(s) if s == slot));
        let block = Reference::extent(4096, 4096, vec![9]);
        assert!(matches!(
            round(&block),
            Reference::Block {
                offset: 4096,
                len: 4096,
                crc: 9
            }
        ));
        let long = Reference::extent(FINE_MAX, 4096, (0..512).collect());
        assert!(matches!(round(&long), Reference::Extent(e) if e.crcs.len() == 512));
        let m = Reference::Unread {
            len: 1 << 40,
            offset: 4096,
            bytes: 99,
            crc: 3,
        };
        assert!(matches!(round(&m), Reference::Unread { len, bytes: 99, .. } if len == 1 << 40));
    }

    #[test]
    fn wrong_counts_and_offsets_are_refused() {
        let mut bytes = Vec::new();
        Reference::extent(8192, 4096, vec![1, 2])
            .encode(&mut bytes)
            .unwrap();
        for (at, with) in [(1, 0xFF), (9, 1), (17, 3)] {
            let mut bad = bytes.clone();
            bad[at] = with;
            assert!(Reference::decode(&mut Reader(&bad)).is_none(), "byte {at}");
        }
        assert!(Reference::inline(b"x").encode(&mut bytes).is_err());
    }

    #[test]
    fn an_entry_stays_small() {
        assert!(std::mem::size_of::<Reference>() <= 40);
    }
}
