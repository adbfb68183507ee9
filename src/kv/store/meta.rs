//! Blocks of the meta log, which is the index as it is on disk.
//!
//! ```text
//! 0 magic u32 "GKVM"  4 crc u32 (of the block from byte 8)  8 uuid u64 (first half)  16 seq u64
//! 24 bytes u32 (whole block)  28 entries u32
//! 32 entries: key_len u32, lsn u64, key, reference
//! ```

use crate::base::crc::crc32c;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::BLOCK;
use crate::kv::wal::Lsn;

use super::reference::{Reader, Reference};

pub(crate) const META_MAGIC: u32 = u32::from_le_bytes(*b"GKVM");
const META_HEADER: usize = 32;
/// Bytes at which a block is written; one long entry may make it longer.
pub(crate) const META_TARGET: usize = 64 << 10;

/// Collects entries and gives whole blocks.
#[derive(Debug)]
pub(crate) struct MetaBuilder {
    uuid: u64,
    bytes: Vec<u8>,
    entries: u32,
    target: usize,
}

impl MetaBuilder {
    pub fn new(uuid: u64, segment_bytes: u64) -> Self {
        let most = usize::try_from(segment_bytes / 4).unwrap_or(META_TARGET);
        Self {
            uuid,
            bytes: vec![0; META_HEADER],
            entries: 0,
            target: META_TARGET.min(most),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds an entry; whether the block is long enough to be written.
    pub fn push(&mut self, key: &[u8], lsn: Lsn, reference: &Reference) -> Result<bool> {
        encode_entry(&mut self.bytes, key, lsn, reference)?;
        self.entries += 1;
        Ok(self.bytes.len() >= self.target)
    }

    /// What was collected, as the body of one block; the builder is empty again.
    pub fn take(&mut self) -> MetaBody {
        MetaBody {
            uuid: self.uuid,
            bytes: std::mem::replace(&mut self.bytes, empty(self.target)),
            entries: std::mem::take(&mut self.entries),
        }
    }
}

/// The start of a block, with room for entries up to `target` bytes and a usual one.
fn empty(target: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(target + BLOCK);
    bytes.resize(META_HEADER, 0);
    bytes
}

/// A block without its number.
#[derive(Debug)]
pub(crate) struct MetaBody {
    uuid: u64,
    /// Room for the header, then the entries.
    bytes: Vec<u8>,
    entries: u32,
}

impl MetaBody {
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Bytes of the entries.
    pub fn payload(&self) -> usize {
        self.bytes.len() - META_HEADER
    }

    /// The finished block number `seq`.
    pub fn finish(self, seq: u64) -> Vec<u8> {
        let mut block = self.bytes;
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        let bytes = block.len() as u32;
        block[0..4].copy_from_slice(&META_MAGIC.to_le_bytes());
        block[8..16].copy_from_slice(&self.uuid.to_le_bytes());
        block[16..24].copy_from_slice(&seq.to_le_bytes());
        block[24..28].copy_from_slice(&bytes.to_le_bytes());
        block[28..32].copy_from_slice(&self.entries.to_le_bytes());
        let crc = crc32c(0, &block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        block
    }
}

/// A verified block at the front of some bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetaBlock<'a> {
    pub seq: u64,
    pub bytes: usize,
    entries: u32,
    body: &'a [u8],
}

impl<'a> MetaBlock<'a> {
    /// The block that `from` starts with, if it is whole and of this store.
    pub fn parse(from: &'a [u8], uuid: u64) -> Option<Self> {
        let mut r = Reader(from);
        let (magic, crc) = (r.u32()?, r.u32()?);
        let (id, seq) = (r.u64()?, r.u64()?);
        let (bytes, entries) = (r.u32()? as usize, r.u32()?);
        let (whole, body) = (from.get(8..bytes)?, from.get(META_HEADER..bytes)?);
        (magic == META_MAGIC
            && id == uuid
            && bytes.is_multiple_of(BLOCK)
            && crc32c(0, whole) == crc)
            .then_some(Self {
                seq,
                bytes,
                entries,
                body,
            })
    }

    /// Calls `each` for every entry; the bytes that they take.
    ///
    /// # Errors
    /// `Corrupted` when an entry is no entry: the checksum held, so this was written wrongly.
    pub fn entries(&self, each: &mut dyn FnMut(&[u8], Lsn, Reference)) -> Result<usize> {
        each_entry(self.body, self.entries, each).map_err(|n| {
            let what = format!("entry {n} of meta block {} cannot be read", self.seq);
            Error::new(ErrorKind::Corrupted, what)
        })
    }
}

/// Appends the stored form of an entry.
pub(crate) fn encode_entry(
    into: &mut Vec<u8>,
    key: &[u8],
    lsn: Lsn,
    reference: &Reference,
) -> Result<()> {
    let mut head = [0; 12];
    head[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&lsn.to_le_bytes());
    into.extend_from_slice(&head);
    into.extend_from_slice(key);
    reference.encode(into)
}

/// Calls `each` for the `count` entries in `body`; the bytes that they take, or the number of the
/// first that is none.
pub(crate) fn each_entry(
    body: &[u8],
    count: u32,
    each: &mut dyn FnMut(&[u8], Lsn, Reference),
) -> std::result::Result<usize, u32> {
    let mut r = Reader(body);
    for n in 0..count {
        let entry = (|| {
            let key_len = r.u32()? as usize;
            let lsn = r.u64()?;
            let key = r.take(key_len)?;
            Some((key, lsn, Reference::decode(&mut r)?))
        })();
        let (key, lsn, reference) = entry.ok_or(n)?;
        each(key, lsn, reference);
    }
    Ok(body.len() - r.0.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_and_any_flip_is_seen() {
        let mut b = MetaBuilder::new(3, 1 << 20);
        b.push(b"dead", 4, &Reference::Tombstone).unwrap();
        let extent = Reference::extent(8192, 4096, vec![1, 2]);
        b.push(&[9; 5000], 5, &extent).unwrap();
        let block = b.take().finish(77);
        assert_eq!(block.len(), 8192);
        assert!(b.is_empty());
        let parsed = MetaBlock::parse(&block, 3).unwrap();
        assert_eq!((parsed.seq, parsed.bytes), (77, 8192));
        let mut got = Vec::new();
        parsed
            .entries(&mut |k, lsn, r| got.push((k.to_vec(), lsn, r.len())))
            .unwrap();
        assert_eq!(got, [(b"dead".to_vec(), 4, 0), (vec![9; 5000], 5, 8192)]);
        assert!(MetaBlock::parse(&block, 4).is_none());
        assert!(MetaBlock::parse(&block[..4096], 3).is_none());
        for at in (0..block.len()).step_by(if cfg!(miri) { 399 } else { 1 }) {
            let mut bad = block.clone();
            bad[at] ^= 1;
            assert!(MetaBlock::parse(&bad, 3).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_block_is_full_at_its_target() {
        let mut b = MetaBuilder::new(3, 64 << 10);
        let mut pushed = 0;
        while !b.push(&[1; 100], 1, &Reference::Tombstone).unwrap() {
            pushed += 1;
        }
        assert!(pushed > 100 && b.take().finish(1).len() <= 20 << 10);
    }
}
