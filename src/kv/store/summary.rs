//! Summaries: what the values in a segment are, at the segment's end, for repair only.
//!
//! Values in extents say nothing about themselves. A checkpoint that stores their entries in the
//! meta log appends the same entries to the summary of the segment that they lie in, so that the
//! index can be made again when the meta log is lost. A summary consists of units, the first at
//! the very end of the segment, each later one right before the one that came before it; a unit is
//! written once, so a crash while one is written loses no other.
//!
//! ```text
//! unit, whole blocks: entries from its start on (key_len u32, lsn u64, key, reference), zeros,
//! and in its last 64 bytes
//!  0 magic u32 "GKVS"  4 crc u32 (of the unit without these 8 bytes)  8 uuid u64 (first half)
//! 16 place u64 (where the unit starts on the disk)  24 seq u64 (next meta block's number)
//! 32 life u64 (seq of the unit at the end)  40 number u32 (in this life)  44 entries u32
//! 48 bytes u32 (whole unit)  52 zero
//! ```
//!
//! A segment that is taken anew begins a new life with number 0 at its end; units of an earlier
//! life may still lie before it, and are told by their life. All that a unit names was durable in
//! the log before the unit was written.

use super::meta::each_entry;
use super::reference::Reference;
use crate::base::crc::crc32c;
use crate::kv::disk::BLOCK;
use crate::kv::wal::Lsn;

pub(crate) const SUMMARY_MAGIC: u32 = u32::from_le_bytes(*b"GKVS");
pub(crate) const FOOTER: usize = 64;
/// Bytes of the footer up to and with its checksum.
const SUMMED_FROM: usize = 8;

/// Which unit of which life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    pub seq: u64,
    pub life: u64,
    pub number: u32,
}

/// Bytes of a unit with so many bytes of entries.
pub(crate) fn unit_bytes(entries: usize) -> usize {
    (entries + FOOTER).next_multiple_of(BLOCK)
}

/// A unit that ends at `end` of the disk.
pub(crate) fn encode(unit: Unit, entries: &[u8], count: u32, end: u64, id: u64) -> Vec<u8> {
    let size = unit_bytes(entries.len());
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(entries);
    bytes.resize(size - FOOTER, 0);
    bytes.extend(SUMMARY_MAGIC.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(id.to_le_bytes());
    bytes.extend((end - size as u64).to_le_bytes());
    bytes.extend(unit.seq.to_le_bytes());
    bytes.extend(unit.life.to_le_bytes());
    bytes.extend(unit.number.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend((size as u32).to_le_bytes());
    bytes.resize(size, 0);
    let crc = crc_of(&bytes);
    bytes[size - FOOTER + 4..size - FOOTER + 8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checksum of a unit.
pub(crate) fn crc_of(unit: &[u8]) -> u32 {
    let (entries, footer) = unit.split_at(unit.len().saturating_sub(FOOTER));
    crc32c(crc32c(0, entries), footer.get(SUMMED_FROM..).unwrap_or(&[]))
}

/// A verified unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parsed<'a> {
    pub unit: Unit,
    pub bytes: usize,
    count: u32,
    body: &'a [u8],
}

/// Bytes of the unit that ends where `from` ends, if it looks like one.
pub(crate) fn size_before(from: &[u8]) -> Option<usize> {
    let footer = from.get(from.len().checked_sub(FOOTER)?..)?;
    let size = u32_at(footer, 48) as usize;
    (u32_at(footer, 0) == SUMMARY_MAGIC && size > 0 && size.is_multiple_of(BLOCK)).then_some(size)
}

impl<'a> Parsed<'a> {
    /// The unit that ends where `from` ends, which is at `end` of the disk, if it is whole, of
    /// this store, and was written to just that place.
    pub fn before(from: &'a [u8], end: u64, id: u64) -> Option<Self> {
        let size = size_before(from)?;
        let whole = from.get(from.len().checked_sub(size)?..)?;
        let (body, footer) = whole.split_at(size - FOOTER);
        let right = u64_at(footer, 8) == id
            && Some(u64_at(footer, 16)) == end.checked_sub(size as u64)
            && u32_at(footer, 4) == crc_of(whole);
        right.then_some(Self {
            unit: Unit {
                seq: u64_at(footer, 24),
                life: u64_at(footer, 32),
                number: u32_at(footer, 40),
            },
            bytes: size,
            count: u32_at(footer, 44),
            body,
        })
    }

    /// Calls `each` for every entry that names a value in extents; what is no entry ends it.
    pub fn entries(&self, each: &mut dyn FnMut(&[u8], Lsn, Reference)) {
        let _ = each_entry(self.body, self.count, &mut |key, lsn, reference| {
            if home(&reference).is_some() {
                each(key, lsn, reference);
            }
        });
    }
}

/// All units of the present life of a segment that was read whole and starts at `start`.
pub(crate) fn units(segment: &[u8], start: u64, id: u64) -> Vec<Parsed<'_>> {
    let mut found = Vec::new();
    let mut first = None;
    let mut at = segment.len();
    while at >= BLOCK {
        match Parsed::before(&segment[..at], start + at as u64, id) {
            Some(parsed) => {
                if at == segment.len() {
                    first = Some(parsed.unit.life);
                }
                at -= parsed.bytes;
                found.push(parsed);
            }
            // Damaged: what lies before it may be whole.
            None => at -= BLOCK,
        }
    }
    let newest = found.iter().map(|p| p.unit.life).max();
    found.retain(|p| Some(p.unit.life) == first.or(newest));
    found
}

/// Where the summary entry of a value belongs: the start of its extent, or of its list of runs.
pub(crate) fn home(reference: &Reference) -> Option<u64> {
    match reference {
        Reference::Block { offset, .. } | Reference::Unread { offset, .. } => Some(*offset),
        Reference::Extent(extent) => Some(extent.offset),
        Reference::Manifest(manifest) => Some(manifest.offset),
        Reference::Tombstone | Reference::Inline(_) | Reference::Slot(_) => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

#[cfg(test)]
mod tests {
    use super::super::meta::encode_entry;
    use super::*;

    const SEGMENT: u64 = 64 << 10;
    const START: u64 = 1 << 20;

    fn unit(life: u64, number: u32, end: u64, keys: &[&[u8]]) -> Vec<u8> {
        let mut entries = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let value = Reference::extent(4096, START + 4096 * n as u64, vec![7]);
            encode_entry(&mut entries, key, n as u64, &value).unwrap();
        }
        let which = Unit {
            seq: life + u64::from(number),
            life,
            number,
        };
        encode(which, &entries, keys.len() as u32, end, 3)
    }

    fn keys(segment: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for parsed in units(segment, START, 3) {
            parsed.entries(&mut |key, _, _| all.push(key.to_vec()));
        }
        all
    }

    /// A segment with these units from its end on.
    fn segment(units: &[&dyn Fn(u64) -> Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT as usize];
        let mut end = SEGMENT as usize;
        for make in units {
            let unit = make(START + end as u64);
            bytes[end - unit.len()..end].copy_from_slice(&unit);
            end -= unit.len();
        }
        bytes
    }

    #[test]
    fn units_come_back_and_any_flip_loses_that_unit_only() {
        let all = segment(&[&|end| unit(5, 0, end, &[b"a", &[9; 5000]]), &|end| {
            unit(5, 1, end, &[b"b"])
        }]);
        assert_eq!(keys(&all), [b"a".to_vec(), vec![9; 5000], b"b".to_vec()]);
        let step = if cfg!(miri) { 1999 } else { 3 };
        for at in (SEGMENT as usize - 8192..SEGMENT as usize).step_by(step) {
            let mut bad = all.clone();
            bad[at] ^= 1;
            let expected: &[Vec<u8>] = &[b"b".to_vec()];
            // The eight bytes that hold magic and checksum are told by themselves.
            assert_eq!(keys(&bad), expected, "byte {at}");
        }
        assert!(units(&all, START + 4096, 3).is_empty(), "another place");
        assert!(units(&all, START, 4).is_empty(), "another store");
    }

    #[test]
    fn an_earlier_life_of_the_segment_is_not_believed() {
        let old = segment(&[
            &|end| unit(5, 0, end, &[b"old 0"]),
            &|end| unit(5, 1, end, &[b"old 1"]),
            &|end| unit(5, 2, end, &[b"old 2"]),
        ]);
        let mut now = old.clone();
        let first = unit(9, 0, START + SEGMENT, &[b"new"]);
        now[SEGMENT as usize - 4096..].copy_from_slice(&first);
        assert_eq!(keys(&now), [b"new"]);
        let empty = unit(9, 0, START + SEGMENT, &[]);
        now[SEGMENT as usize - 4096..].copy_from_slice(&empty);
        assert!(keys(&now).is_empty());
    }
}
