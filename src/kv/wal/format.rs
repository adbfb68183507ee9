//! Bytes of a batch: a header of 64 bytes, records, zeros to the end of the block.

use super::{Lsn, WalStart};
use crate::base::crc::crc32c;
use crate::kv::bugs::{self, Bug};
use crate::kv::disk::BLOCK;

/// First bytes of a batch: "GWAL".
pub(super) const MAGIC: u32 = 0x4c41_5747;
/// Bytes of a batch header.
pub(super) const HEADER: usize = 64;
/// Bytes before a record's payload.
pub(super) const RECORD_HEADER: usize = 8;
/// Record flag: the last record of its commit.
pub(super) const LAST: u8 = 1;

// Offsets of the header's fields.
const CRC: usize = 4;
const BODY_CRC: usize = CRC + 4;
const EPOCH: usize = BODY_CRC + 4;
const UUID_LOW: usize = EPOCH + 4;
const BATCH_NO: usize = UUID_LOW + 8;
const FIRST_LSN: usize = BATCH_NO + 8;
const DURABLE_UPTO: usize = FIRST_LSN + 8;
const PREV_CRC: usize = DURABLE_UPTO + 8;
const RECORDS: usize = PREV_CRC + 4;
const BODY_LEN: usize = RECORDS + 4;
const PLACE: usize = BODY_LEN + 4;
const _: () = assert!(PLACE + 4 == HEADER);

// Offsets of a record's fields.
const RECORD_KIND: usize = 4;
/// Where a record's flags are.
pub(super) const RECORD_FLAGS: usize = 5;
const RECORD_ZERO: usize = 6;

/// What a batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) epoch: u32,
    pub(super) uuid_low: u64,
    pub(super) batch_no: u64,
    pub(super) first_lsn: Lsn,
    /// Batches up to this one were durable when this one was sealed.
    pub(super) durable_upto: u64,
    /// CRC of the header before.
    pub(super) prev_crc: u32,
    pub(super) records: u32,
    pub(super) body_len: u32,
    pub(super) body_crc: u32,
    /// Block of the ring that it was written for, low 32 bits: a batch elsewhere is none.
    pub(super) place: u32,
}

/// The part of a store's identity that is in every header.
pub(super) fn uuid_low(start: &WalStart) -> u64 {
    let mut low = [0; 8];
    low.copy_from_slice(&start.uuid[..8]);
    u64::from_le_bytes(low)
}

/// Bytes that a batch with a body of `len` takes in the ring.
pub(super) const fn padded(len: usize) -> u64 {
    (HEADER + len).next_multiple_of(BLOCK) as u64
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// CRC32C of a header, its own field counted as zero.
fn crc_of(header: &[u8; HEADER]) -> u32 {
    let mut copy = *header;
    copy[CRC..CRC + 4].fill(0);
    crc32c(0, &copy)
}

impl Header {
    /// Writes the header; its CRC, which the next batch repeats.
    pub(super) fn encode(&self, into: &mut [u8]) -> u32 {
        let mut header = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(BODY_CRC, &self.body_crc.to_le_bytes());
        put(EPOCH, &self.epoch.to_le_bytes());
        put(UUID_LOW, &self.uuid_low.to_le_bytes());
        put(BATCH_NO, &self.batch_no.to_le_bytes());
        put(FIRST_LSN, &self.first_lsn.to_le_bytes());
        put(DURABLE_UPTO, &self.durable_upto.to_le_bytes());
        put(PREV_CRC, &self.prev_crc.to_le_bytes());
        put(RECORDS, &self.records.to_le_bytes());
        put(BODY_LEN, &self.body_len.to_le_bytes());
        put(PLACE, &self.place.to_le_bytes());
        let crc = crc_of(&header);
        header[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
        into[..HEADER].copy_from_slice(&header);
        crc
    }

    /// The header at the start of `block` and its CRC, where a whole one is.
    pub(super) fn decode(block: &[u8]) -> Option<(Self, u32)> {
        let bytes: &[u8; HEADER] = block.get(..HEADER)?.try_into().ok()?;
        let crc = u32_at(bytes, CRC);
        let right = crc == crc_of(bytes) || bugs::is_on(Bug::ChecksumSkipped);
        if u32_at(bytes, 0) != MAGIC || !right {
            return None;
        }
        let header = Self {
            epoch: u32_at(bytes, EPOCH),
            uuid_low: u64_at(bytes, UUID_LOW),
            batch_no: u64_at(bytes, BATCH_NO),
            first_lsn: u64_at(bytes, FIRST_LSN),
            durable_upto: u64_at(bytes, DURABLE_UPTO),
            prev_crc: u32_at(bytes, PREV_CRC),
            records: u32_at(bytes, RECORDS),
            body_len: u32_at(bytes, BODY_LEN),
            body_crc: u32_at(bytes, BODY_CRC),
            place: u32_at(bytes, PLACE),
        };
        Some((header, crc))
    }

    /// Whether these are the bytes that it was sealed with.
    pub(super) fn matches(&self, body: &[u8]) -> bool {
        self.body_crc == crc32c(0, body) || bugs::is_on(Bug::ChecksumSkipped)
    }
}

/// Writes a record; its whole length.
pub(super) fn put_record(into: &mut [u8], kind: u8, parts: &[&[u8]]) -> usize {
    let mut at = RECORD_HEADER;
    for part in parts {
        into[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let len = (at - RECORD_HEADER) as u32;
    into[..4].copy_from_slice(&len.to_le_bytes());
    into[RECORD_KIND..RECORD_HEADER].copy_from_slice(&[kind, 0, 0, 0]);
    at
}

/// A record of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: u8,
    pub(super) last: bool,
    pub(super) payload: &'a [u8],
}

/// Walks over the records of a body; `None` inside when the bytes are no records.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Option<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn split(&mut self) -> Option<Record<'a>> {
        let (head, rest) = self.0.split_at_checked(RECORD_HEADER)?;
        let (payload, rest) = rest.split_at_checked(u32_at(head, 0) as usize)?;
        let flags = head[RECORD_FLAGS];
        if flags & !LAST != 0 || head[RECORD_ZERO..] != [0, 0] {
            return None;
        }
        self.0 = rest;
        Some(Record {
            kind: head[RECORD_KIND],
            last: flags & LAST != 0,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_seen() {
        let header = Header {
            epoch: 3,
            uuid_low: 0x0102_0304_0506_0708,
            batch_no: 9,
            first_lsn: 77,
            durable_upto: 8,
            prev_crc: 0xdead_beef,
            records: 2,
            body_len: 40,
            body_crc: 5,
            place: 6,
        };
        let mut block = [0xff; BLOCK];
        let crc = header.encode(&mut block);
        assert_eq!(Header::decode(&block), Some((header, crc)));
        for bit in 0..HEADER * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn records_come_back_and_cut_ones_are_refused() {
        let mut body = vec![0; 64];
        let first = put_record(&mut body, 7, &[b"key", b"", b"value"]);
        let second = put_record(&mut body[first..], 8, &[]);
        body[first + RECORD_FLAGS] |= LAST;
        body.truncate(first + second);
        let all: Vec<_> = Records(&body).collect();
        let record = |kind, last, payload| {
            Some(Record {
                kind,
                last,
                payload,
            })
        };
        assert_eq!(
            all,
            [
                record(7, false, b"keyvalue".as_slice()),
                record(8, true, b"")
            ]
        );
        for cut in 1..body.len() {
            let whole = Records(&body[..cut]).all(|r| r.is_some());
            assert_eq!(whole, cut == first, "cut at {cut}");
        }
        body[RECORD_ZERO] = 1;
        assert_eq!(Records(&body).next(), Some(None));
    }
}
