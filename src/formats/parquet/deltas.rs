//! Counts in pages of delta-encoded strings, before the crate allocates what they claim.
//!
//! Such pages begin with packed lengths, whose header says how many there are (Encodings.md,
//! DELTA_BINARY_PACKED); the crate takes memory for as many, up to 8 GiB for a page of a few bytes.

use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader as _};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::chunks::{Chunk, Memory};
use super::failure::{attempt, corrupted};
use super::pages::Page as OwnPage;
use super::reader::Parquet;
use super::thrift::Compact;
use crate::error::Result;

/// DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY, as the format numbers them.
fn is_counted(page: &OwnPage) -> bool {
    matches!(page.header.encoding, 6 | 7)
}

/// Checks the counts of all pages of a chunk. `column` is its metadata, without encryption.
pub(super) fn check(parquet: &Parquet, chunk: &Chunk, column: &ColumnChunkMetaData) -> Result<()> {
    if !chunk.pages.iter().any(is_counted) {
        return Ok(());
    }
    let path = parquet.source().path();
    let memory = Arc::new(Memory::new(parquet.source().size(), std::iter::once(chunk)));
    for run in &chunk.runs {
        let fits = attempt(path, run.offset, "look at pages", || {
            let own = column
                .clone()
                .into_builder()
                .set_dictionary_page_offset(None)
                .set_data_page_offset(run.offset as i64)
                .set_total_compressed_size(run.bytes.len() as i64)
                .build()?;
            let rows = usize::try_from(column.num_values()).unwrap_or(usize::MAX);
            let mut pages = SerializedPageReader::new(memory.clone(), &own, rows, None)?;
            while let Some(page) = pages.get_next_page()? {
                if !fits(&page, column) {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if !fits {
            let message = "a page has more lengths of strings than values";
            return Err(corrupted(path, run.offset, message));
        }
    }
    Ok(())
}

fn fits(page: &Page, column: &ColumnChunkMetaData) -> bool {
    let descriptor = column.column_descr();
    let (bytes, values, encoding) = match page {
        Page::DataPage {
            buf,
            num_values,
            encoding,
            def_level_encoding,
            rep_level_encoding,
            ..
        } => {
            let mut bytes = &buf[..];
            let levels = [
                (descriptor.max_rep_level(), *rep_level_encoding),
                (descriptor.max_def_level(), *def_level_encoding),
            ];
            for (highest, encoding) in levels.into_iter().filter(|(highest, _)| *highest > 0) {
                let Some(rest) = behind_levels(bytes, highest, encoding, *num_values) else {
                    // The crate will see it, too.
                    return true;
                };
                bytes = rest;
            }
            (bytes, *num_values, *encoding)
        }
        Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } => {
            let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
            let from = usize::try_from(levels).unwrap_or(usize::MAX);
            (buf.get(from..).unwrap_or_default(), *num_values, *encoding)
        }
        Page::DictionaryPage { .. } => return true,
    };
    let mut reader = Compact::new(bytes);
    let fits = |total: Option<u64>| total.is_none_or(|total| total <= u64::from(values));
    match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => fits(skip(&mut reader, values)),
        Encoding::DELTA_BYTE_ARRAY => {
            let prefixes = skip(&mut reader, values);
            fits(prefixes) && (prefixes.is_none() || fits(skip(&mut reader, values)))
        }
        _ => true,
    }
}

fn behind_levels(bytes: &[u8], highest: i16, encoding: Encoding, values: u32) -> Option<&[u8]> {
    let size = match encoding {
        Encoding::RLE => 4 + u64::from(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?)),
        _ => {
            let bits = u64::from(16 - highest.leading_zeros());
            (u64::from(values) * bits).div_ceil(8)
        }
    };
    bytes.get(usize::try_from(size).ok()?..)
}

/// Passes packed deltas: how many values they claim. `None` where they end too soon; a count
/// beyond `most` is answered at once.
fn skip(reader: &mut Compact<'_>, most: u32) -> Option<u64> {
    let (block, minis, total) = (reader.varint()?, reader.varint()?, reader.varint()?);
    reader.varint()?;
    if total > u64::from(most) {
        return Some(total);
    }
    let in_mini = block.checked_div(minis)?;
    if in_mini == 0 {
        return None;
    }
    let mut left = total.saturating_sub(1);
    while left > 0 {
        reader.varint()?;
        let widths = reader.take(usize::try_from(minis).ok()?)?;
        for width in widths {
            if left == 0 {
                break;
            }
            let bits = in_mini.checked_mul(u64::from(*width))?;
            reader.take(usize::try_from(bits / 8).ok()?)?;
            left = left.saturating_sub(in_mini);
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_seen_and_deltas_passed() {
        // 128 in a block of 4, 3 values, the first 5; least 1, widths 8 0 0 0, 32 bytes.
        let mut bytes = vec![0x80, 1, 4, 3, 10, 2, 8, 0, 0, 0];
        bytes.extend_from_slice(&[0; 32]);
        let size = bytes.len();
        bytes.push(77);
        let mut reader = Compact::new(&bytes);
        assert_eq!(skip(&mut reader, 3), Some(3));
        assert_eq!(reader.position(), size);
        assert_eq!(skip(&mut Compact::new(&bytes), 2), Some(3), "too many");
        assert_eq!(skip(&mut Compact::new(&bytes[..20]), 3), None, "cut");
        let many = [0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 7, 0];
        assert_eq!(skip(&mut Compact::new(&many), 100), Some(0x7fff_ffff));
    }
}
