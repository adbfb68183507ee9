//! Pages of small values: each says itself what it holds.
//!
//! ```text
//! page header, 32 bytes
//!   0 magic u32 "GKVP"   4 crc u32 (of the page from byte 8)   8 uuid u64 (first half)
//!  16 bytes u32 (whole page)   20 slots u32   24 reserved u64
//! slot, 24 bytes + key + value, one after the other
//!   0 crc u32 (of the slot from byte 4)   4 key_len u32 (bit 31: tombstone)   8 lsn u64
//!  16 value_len u32   20 reserved u32   24 key, value
//! ```

use std::ops::Range;

use crate::base::crc::crc32c;
use crate::kv::disk::BLOCK;
use crate::kv::wal::Lsn;

use super::reference::{Reader, SlotRef};

pub(crate) const PAGE_MAGIC: u32 = u32::from_le_bytes(*b"GKVP");
pub(crate) const PAGE_HEADER: usize = 32;
pub(crate) const SLOT_HEADER: usize = 24;
const TOMBSTONE: u32 = 1 << 31;

/// Bytes that a slot takes.
#[inline]
pub(crate) fn slot_bytes(key_len: usize, value_len: usize) -> usize {
    SLOT_HEADER + key_len + value_len
}

/// Appends a slot to `into`. `None` = tombstone.
pub(crate) fn put_slot(into: &mut Vec<u8>, key: &[u8], lsn: Lsn, value: Option<&[u8]>) {
    let start = into.len();
    let flag = if value.is_none() { TOMBSTONE } else { 0 };
    let value = value.unwrap_or(&[]);
    let mut header = [0; SLOT_HEADER];
    header[4..8].copy_from_slice(&(key.len() as u32 | flag).to_le_bytes());
    header[8..16].copy_from_slice(&lsn.to_le_bytes());
    header[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
    into.reserve(slot_bytes(key.len(), value.len()));
    into.extend_from_slice(&header);
    into.extend_from_slice(key);
    into.extend_from_slice(value);
    let crc = crc32c(0, &into[start + 4..]);
    into[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Collects slots in pages that follow each other.
#[derive(Debug)]
pub(crate) struct PageBuilder {
    uuid: u64,
    /// Finished pages, and the one that is being filled.
    bytes: Vec<u8>,
    /// Where that one starts.
    at: usize,
    slots: u32,
}

impl PageBuilder {
    pub fn new(uuid: u64) -> Self {
        Self {
            uuid,
            bytes: Vec::new(),
            at: 0,
            slots: 0,
        }
    }

    /// Whether the page that is being filled holds nothing.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Bytes of the page if it ended here with one more slot of `bytes`.
    pub fn bytes_with(&self, bytes: usize) -> usize {
        let now = (self.bytes.len() - self.at).max(PAGE_HEADER);
        (now + bytes).next_multiple_of(BLOCK)
    }

    /// Adds a slot; answers where in the page it starts, and its checksum.
    pub fn push(&mut self, slot: &[u8]) -> (u32, u32) {
        if self.slots == 0 {
            self.bytes.resize(self.at + PAGE_HEADER, 0);
        }
        let start = self.bytes.len() - self.at;
        self.bytes.extend_from_slice(slot);
        self.slots += 1;
        (start as u32, Reader(slot).u32().unwrap_or(0))
    }

    /// Ends the page, whole blocks: where it starts, and its bytes.
    pub fn end_page(&mut self) -> (usize, u32) {
        let (at, len) = (self.at, self.bytes.len() - self.at);
        self.bytes.resize(at + len.next_multiple_of(BLOCK), 0);
        let page = &mut self.bytes[at..];
        let bytes = page.len() as u32;
        page[0..4].copy_from_slice(&PAGE_MAGIC.to_le_bytes());
        page[8..16].copy_from_slice(&self.uuid.to_le_bytes());
        page[16..20].copy_from_slice(&bytes.to_le_bytes());
        page[20..24].copy_from_slice(&self.slots.to_le_bytes());
        let crc = crc32c(0, &page[8..]);
        page[4..8].copy_from_slice(&crc.to_le_bytes());
        self.at = self.bytes.len();
        self.slots = 0;
        (at, bytes)
    }

    /// The pages that ended.
    pub fn pages(&self) -> &[u8] {
        &self.bytes[..self.at]
    }

    /// Forgets them. No page is being filled.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }
}

/// Bytes of the page that starts `block`, if it looks like one; its checksum is not looked at.
pub(crate) fn page_bytes(block: &[u8], uuid: u64) -> Option<usize> {
    let mut r = Reader(block);
    let magic = r.u32()?;
    r.u32()?;
    let bytes = if r.u64()? == uuid {
        r.u32()? as usize
    } else {
        0
    };
    (magic == PAGE_MAGIC && bytes >= BLOCK && bytes.is_multiple_of(BLOCK)).then_some(bytes)
}

/// Whether `page` is whole: magic, store and checksum.
pub(crate) fn is_whole(page: &[u8], uuid: u64) -> bool {
    page_bytes(page, uuid) == Some(page.len())
        && Reader(&page[4..]).u32() == Some(crc32c(0, &page[8..]))
}

/// One slot as it lies in a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub crc: u32,
    pub lsn: Lsn,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    /// Where its header starts in the page.
    pub start: u32,
}

/// The slot that starts at `start`, if one fits there.
pub(crate) fn slot_at(page: &[u8], start: usize) -> Option<Slot<'_>> {
    let mut r = Reader(page.get(start..)?);
    let crc = r.u32()?;
    let key_len = r.u32()?;
    let lsn = r.u64()?;
    let value_len = r.u32()? as usize;
    r.u32()?;
    let key = r.take((key_len & !TOMBSTONE) as usize)?;
    let value = r.take(value_len)?;
    Some(Slot {
        crc,
        lsn,
        key,
        value: (key_len & TOMBSTONE == 0).then_some(value),
        start: start as u32,
    })
}

/// All slots of a whole page.
pub(crate) fn slots(page: &[u8]) -> impl Iterator<Item = Slot<'_>> {
    let mut left = Reader(page.get(20..).unwrap_or(&[])).u32().unwrap_or(0);
    let mut at = PAGE_HEADER;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let slot = slot_at(page, at)?;
        at += slot_bytes(slot.key.len(), slot.value.map_or(0, <[u8]>::len));
        Some(slot)
    })
}

/// Where in `page` the value lies that `reference` names, if the page holds just that: same key,
/// same checksum. The page's bytes were verified when it was read.
pub(crate) fn place_of(page: &[u8], reference: &SlotRef, key: &[u8]) -> Option<Range<usize>> {
    let slot = slot_at(page, reference.start as usize)?;
    let len = slot.value?.len();
    let start = reference.start as usize + slot_bytes(key.len(), 0);
    (slot.crc == reference.crc && slot.key == key && len == reference.len as usize)
        .then(|| start..start + len)
}

/// The value at `place_of`.
pub(crate) fn value_of<'a>(page: &'a [u8], reference: &SlotRef, key: &[u8]) -> Option<&'a [u8]> {
    page.get(place_of(page, reference, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(key: &[u8], lsn: Lsn, value: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_slot(&mut bytes, key, lsn, value);
        bytes
    }

    #[test]
    fn slots_come_back_and_any_flip_is_seen() {
        let mut b = PageBuilder::new(7);
        let (start, crc) = b.push(&slot(b"a", 1, Some(b"one")));
        b.push(&slot(b"gone", 2, None));
        b.push(&slot(b"empty", 3, Some(b"")));
        assert_eq!(b.end_page(), (0, BLOCK as u32));
        let page = b.pages().to_vec();
        assert!(b.is_empty() && page.len() == BLOCK && is_whole(&page, 7));
        assert!(!is_whole(&page, 8));
        let all: Vec<_> = slots(&page)
            .map(|s| (s.key.to_vec(), s.lsn, s.value.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(
            all,
            [
                (b"a".to_vec(), 1, Some(b"one".to_vec())),
                (b"gone".to_vec(), 2, None),
                (b"empty".to_vec(), 3, Some(vec![]))
            ]
        );
        let slot = SlotRef {
            page: 0,
            page_bytes: 4096,
            start,
            len: 3,
            crc,
        };
        assert_eq!(value_of(&page, &slot, b"a"), Some(&b"one"[..]));
        assert_eq!(value_of(&page, &slot, b"b"), None);
        assert_eq!(
            value_of(
                &page,
                &SlotRef {
                    crc: crc ^ 1,
                    ..slot
                },
                b"a"
            ),
            None
        );
        // Miri takes a thousand times as long.
        for at in (0..page.len()).step_by(if cfg!(miri) { 399 } else { 1 }) {
            let mut bad = page.clone();
            bad[at] ^= 0x40;
            assert!(!is_whole(&bad, 7), "byte {at}");
        }
    }

    #[test]
    fn a_page_grows_to_hold_a_long_key() {
        let mut b = PageBuilder::new(7);
        let long = slot(&[1; 65536], 1, Some(&[2; 100]));
        assert_eq!(b.bytes_with(long.len()), 69632);
        b.push(&long);
        assert_eq!((b.end_page(), b.pages().len()), ((0, 69632), 69632));
        // The next one starts anew.
        b.push(&slot(b"k", 2, Some(b"v")));
        assert_eq!((b.end_page(), b.pages().len()), ((69632, 4096), 73728));
        assert!(is_whole(&b.pages()[69632..], 7));
        b.clear();
        let (start, _) = b.push(&slot(b"k", 2, Some(b"v")));
        assert_eq!((start as usize, b.end_page().0), (PAGE_HEADER, 0));
    }
}
