//! What fuzz targets run on bytes of pages and of index blocks, which nothing outside can name.

use super::meta::MetaBlock;
use super::page::{page_bytes, slot_at, slots, value_of};
use super::reference::{Reference, SlotRef};
use super::summary;
use crate::base::crc::crc32c;
use crate::kv::disk::BLOCK;

/// Whole blocks of `bytes`, one at least, and the half of an identity that they name.
fn blocks(bytes: &[u8], right_sum: bool) -> (Vec<u8>, u64) {
    let mut all = bytes.to_vec();
    all.resize(bytes.len().next_multiple_of(BLOCK).max(BLOCK), 0);
    let mut id = [0; 8];
    id.copy_from_slice(&all[8..16]);
    if right_sum {
        // Of what the header says is its length, where that is one.
        let at = if all[..4] == *b"GKVM" { 24 } else { 16 };
        let mut len = [0; 4];
        len.copy_from_slice(&all[at..at + 4]);
        let len = (u32::from_le_bytes(len) as usize).clamp(8, all.len());
        let crc = crc32c(0, &all[8..len]);
        all[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    (all, u64::from_le_bytes(id))
}

/// Reads a page of small values; the bytes of keys and values that it gives.
///
/// # Errors
/// What it must not do, in words.
pub(crate) fn page(bytes: &[u8], right_sum: bool) -> Result<usize, String> {
    let (all, id) = blocks(bytes, right_sum);
    let whole = super::page::is_whole(&all, id);
    let Some(len) = page_bytes(&all, id).filter(|len| *len <= all.len()) else {
        return if whole {
            Err("whole, and no page".to_owned())
        } else {
            Ok(0)
        };
    };
    let page = &all[..len];
    let mut given = 0;
    for slot in slots(page) {
        given += slot.key.len() + slot.value.map_or(0, <[u8]>::len);
        let reference = SlotRef {
            page: 0,
            page_bytes: len as u32,
            start: slot.start,
            len: slot.value.map_or(0, <[u8]>::len) as u32,
            crc: slot.crc,
        };
        if value_of(page, &reference, slot.key) != slot.value {
            return Err(format!("the slot at {} has two values", slot.start));
        }
    }
    for start in (0..len + 64).step_by(37) {
        slot_at(page, start);
    }
    if given > len {
        return Err(format!("{given} bytes of keys and values in {len}"));
    }
    Ok(given)
}

/// Reads a block of the index; the entries that it gives.
///
/// # Errors
/// What it must not do, in words.
pub(crate) fn meta(bytes: &[u8], right_sum: bool) -> Result<usize, String> {
    let (all, id) = blocks(bytes, right_sum);
    let Some(block) = MetaBlock::parse(&all, id) else {
        return Ok(0);
    };
    if block.bytes < BLOCK || block.bytes > all.len() {
        return Err(format!("a block of {} bytes in {}", block.bytes, all.len()));
    }
    let (mut entries, mut given, mut unlike) = (0, 0, None);
    let _ = block.entries(&mut |key, _, reference| {
        entries += 1;
        given += key.len();
        // What was read is written the same way, so that cleaning changes nothing.
        let mut again = Vec::new();
        if reference.encode(&mut again).is_err()
            || Reference::decode(&mut super::reference::Reader(&again)).is_none()
        {
            unlike = Some(entries);
        }
    });
    match unlike {
        Some(entry) => Err(format!("entry {entry} cannot be stored again")),
        None if given > all.len() => Err(format!("{given} bytes of keys in {}", all.len())),
        None => Ok(entries),
    }
}

/// Reads the end of a segment as its summary; the entries that it gives.
///
/// # Errors
/// What it must not do, in words.
pub(crate) fn units(bytes: &[u8], right_sum: bool) -> Result<usize, String> {
    let mut all = bytes.to_vec();
    let size = bytes.len().next_multiple_of(BLOCK).max(BLOCK);
    all.resize(size, 0);
    let word = |all: &[u8], at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&all[at..at + 8]);
        u64::from_le_bytes(word)
    };
    // The store and the place that the last unit names.
    let footer = size - summary::FOOTER;
    let id = word(&all, footer + 8);
    let unit = summary::size_before(&all).unwrap_or(size);
    let start = word(&all, footer + 16).wrapping_sub((size as u64).saturating_sub(unit as u64));
    let start = start.min(u64::MAX / 2);
    if right_sum {
        let mut end = size;
        while let Some(unit) = summary::size_before(&all[..end]).filter(|unit| *unit <= end) {
            let from = end - unit;
            let crc = summary::crc_of(&all[from..end]);
            let at = end - summary::FOOTER + 4;
            all[at..at + 4].copy_from_slice(&crc.to_le_bytes());
            end = from;
        }
    }
    let (mut entries, mut given, mut unlike) = (0, 0, false);
    let found = summary::units(&all, start, id);
    let taken: usize = found.iter().map(|unit| unit.bytes).sum();
    for unit in found {
        unit.entries(&mut |key, _, reference| {
            entries += 1;
            given += key.len();
            unlike |= summary::home(&reference).is_none();
        });
    }
    if unlike {
        return Err("an entry that names no extent".to_owned());
    }
    if taken > size || given > taken {
        return Err(format!("{given} bytes of keys in {taken} of {size}"));
    }
    Ok(entries)
}
