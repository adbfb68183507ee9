//! The footer: found, read once, checked, and given to the official crate.
//!
//! A file ends with the metadata, their length (4 bytes) and the magic `PAR1`, or `PARE` when the
//! footer is encrypted: then FileCryptoMetaData stands before it, in the clear.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader,
};
use parquet::file::reader::{ChunkReader, Length};

use super::crypto::{Algorithm, Crypto, GCM_FIELD, Keys, no_key};
use super::failure::{attempt, corrupted};
use super::repair::repaired;
use super::thrift::{Compact, I32, LIST, STRUCT};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Source;

/// Length and magic.
const TAIL: u64 = 8;
/// Levels of groups in groups that are followed. The crate follows them by recursion.
const NESTING_MAX: usize = 64;

/// What a footer says.
pub(super) struct Footer {
    pub metadata: ParquetMetaData,
    pub crypto: Option<Crypto>,
    pub is_encrypted: bool,
    /// Where it begins in the file.
    pub offset: u64,
}

/// The end of a file, as the crate reads it.
struct End {
    size: u64,
    start: u64,
    bytes: Bytes,
}

impl Length for End {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for End {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let size = self.size.saturating_sub(start) as usize;
        self.get_bytes(start, size).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let from = start.checked_sub(self.start).map(|from| from as usize);
        let to = from.and_then(|from| from.checked_add(length));
        match (from, to) {
            (Some(from), Some(to)) if to <= self.bytes.len() => Ok(self.bytes.slice(from..to)),
            _ => Err(ParquetError::EOF(format!(
                "{length} bytes at {start} are not of the footer"
            ))),
        }
    }
}

/// Whether the file ends as a Parquet file does, and with an encrypted footer.
fn magic(bytes: &[u8]) -> Option<bool> {
    match bytes {
        b"PAR1" => Some(false),
        b"PARE" => Some(true),
        _ => None,
    }
}

/// Reads and decodes the footer.
pub(super) fn read(source: &dyn Source, keys: Option<&Arc<Keys>>) -> Result<Footer> {
    let (path, size) = (source.path(), source.size());
    let not_one = |offset| {
        let message = "the file does not end with PAR1 or PARE: it is cut, or no Parquet file";
        corrupted(path, offset, message)
    };
    let Some(tail_at) = size.checked_sub(TAIL) else {
        return Err(not_one(0));
    };
    let tail = source.bytes(tail_at, TAIL, "the tail")?;
    let (length, end) = tail.split_at(4);
    let is_encrypted = magic(end).ok_or_else(|| not_one(size - 4))?;
    let length = u64::from(length.try_into().map_or(0, u32::from_le_bytes));
    let Some(offset) = tail_at.checked_sub(length) else {
        let message = format!("a footer of {length} bytes does not fit before it");
        return Err(corrupted(path, tail_at, &message));
    };
    let mut bytes = source.bytes(offset, length + TAIL, "the footer")?;
    let text = bytes.len() - TAIL as usize;
    let crypto = look_at_encryption(&mut bytes[..text], offset, is_encrypted, keys, path)?;
    if !is_encrypted {
        let cut = || corrupted(path, offset, "the footer is cut or damaged");
        let mut plain = repaired(&bytes[..text]).ok_or_else(cut)?;
        check_schema(&plain).map_err(|what| corrupted(path, offset, what))?;
        plain.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        plain.extend_from_slice(&bytes[text + 4..]);
        bytes = plain;
    }
    let end = End {
        size: offset + bytes.len() as u64,
        start: offset,
        bytes: bytes.into(),
    };
    let metadata = attempt(path, offset, "read the footer", || {
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
        let properties = match &crypto {
            Some((keys, _)) => Some(keys.for_crate()?),
            None => None,
        };
        let reader = reader.with_decryption_properties(properties);
        reader.parse_and_finish(&end)
    })?;
    let rows = check_metadata(&metadata, offset, path)?;
    let metadata = with_rows(metadata, rows);
    Ok(Footer {
        metadata,
        crypto: crypto.map(|(_, crypto)| crypto),
        is_encrypted,
        offset,
    })
}

/// Finds out how the file is encrypted. `bytes` then say AES_GCM_V1, in which all metadata are
/// encrypted in both algorithms.
fn look_at_encryption(
    bytes: &mut [u8],
    offset: u64,
    is_encrypted: bool,
    keys: Option<&Arc<Keys>>,
    path: &Path,
) -> Result<Option<(Arc<Keys>, Crypto)>> {
    let Some(keys) = keys else {
        return match is_encrypted {
            true => Err(no_key("the footer", path)),
            false => Ok(None),
        };
    };
    let algorithm = match is_encrypted {
        true => Algorithm::of_encrypted_footer(bytes),
        false => Algorithm::of_footer(bytes),
    };
    let Some(algorithm) = algorithm else {
        return match is_encrypted {
            true => Err(corrupted(
                path,
                offset,
                "it does not say how the footer is encrypted",
            )),
            // Keys for a file that needs none.
            false => Ok(None),
        };
    };
    let crypto = Crypto::new(keys, &algorithm);
    if !is_encrypted {
        crypto.verify_footer(bytes, offset, path)?;
    }
    if let Some(byte) = bytes.get_mut(algorithm.at) {
        *byte = GCM_FIELD;
    }
    Ok(Some((keys.clone(), crypto)))
}

/// Checks what the crate takes for granted: children that are counted are there, and groups in
/// groups have a last one.
fn check_schema(footer: &[u8]) -> std::result::Result<(), &'static str> {
    const CUT: &str = "the footer is cut or damaged";
    let mut reader = Compact::new(footer);
    let mut last = 0;
    while let Some(field) = reader.field(last).ok_or(CUT)? {
        last = field.id;
        if field.id != 2 {
            reader.skip(field.kind).ok_or(CUT)?;
            continue;
        }
        let (count, kind) = reader.list().ok_or(CUT)?;
        if field.kind != LIST || kind != STRUCT {
            return Err("the schema is not a list of elements");
        }
        // Children that each open group still waits for.
        let mut open: Vec<u64> = Vec::new();
        for number in 0..count {
            let children = element_children(&mut reader).ok_or(CUT)?;
            if children > count - number {
                return Err("a group of the schema has more children than the schema has elements");
            }
            if let Some(waiting) = open.last_mut() {
                *waiting -= 1;
            }
            if children > 0 {
                open.push(children);
            }
            if open.len() > NESTING_MAX {
                return Err("the schema has more than 64 levels of groups");
            }
            while open.last() == Some(&0) {
                open.pop();
            }
        }
    }
    Ok(())
}

/// Reads an element of a schema: its number of children.
fn element_children(reader: &mut Compact<'_>) -> Option<u64> {
    let mut children = 0;
    let mut last = 0;
    while let Some(field) = reader.field(last)? {
        last = field.id;
        match (field.id, field.kind) {
            (5, I32) => children = u64::try_from(reader.i32()?).ok()?,
            _ => reader.skip(field.kind)?,
        }
    }
    Some(children)
}

/// Counts that later code goes by; the rows of all row groups.
fn check_metadata(metadata: &ParquetMetaData, offset: u64, path: &Path) -> Result<u64> {
    let columns = metadata.file_metadata().schema_descr().num_columns();
    let mut rows = 0u64;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let sum = u64::try_from(group.num_rows())
            .ok()
            .and_then(|r| rows.checked_add(r));
        let Some(sum) = sum.filter(|sum| i64::try_from(*sum).is_ok()) else {
            let message = format!("row group {number} has {} rows", group.num_rows());
            return Err(corrupted(path, offset, &message));
        };
        rows = sum;
        if group.num_columns() != columns {
            let message = format!(
                "row group {number} has {} columns, the schema {columns}",
                group.num_columns()
            );
            return Err(corrupted(path, offset, &message));
        }
    }
    Ok(rows)
}

/// The same metadata with this number of rows: some writers leave it out, and the crate decodes
/// no more than that at a time. What decrypted the footer goes too; the rest is decrypted here.
fn with_rows(metadata: ParquetMetaData, rows: u64) -> ParquetMetaData {
    let file = metadata.file_metadata();
    let file = FileMetaData::new(
        file.version(),
        rows as i64,
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let mut builder = metadata.into_builder();
    let groups = builder.take_row_groups();
    ParquetMetaDataBuilder::new(file)
        .set_row_groups(groups)
        .build()
}

/// What a file that nobody gave keys for says.
pub(super) fn is_encrypted(source: &dyn Source) -> Result<bool> {
    let size = source.size();
    let Some(at) = size.checked_sub(4) else {
        return Ok(false);
    };
    let end = source.bytes(at, 4, "the magic")?;
    magic(&end).ok_or_else(|| {
        let message = format!("{} is no Parquet file", source.path().display());
        Error::new(ErrorKind::Corrupted, message)
            .with_path(source.path())
            .with_offset(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::MemorySource;

    #[test]
    fn what_does_not_end_as_a_parquet_file_is_refused() {
        let cases: [&[u8]; 5] = [
            b"",
            b"PAR1",
            b"PAR1\0\0\0\0PAR2",
            b"PAR1\xff\xff\xff\xffPAR1",
            b"PAR1\0\0\0\0PAR1",
        ];
        for bytes in cases {
            let source = MemorySource::new(bytes.to_vec(), "bytes");
            let error = read(&source, None).err().expect("no Parquet file");
            assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        }
        let encrypted = MemorySource::new(b"PARE\0\0\0\0PARE".to_vec(), "bytes");
        assert!(is_encrypted(&encrypted).expect("it is"));
        let error = read(&encrypted, None).err().expect("no key");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }

    #[test]
    fn groups_without_end_are_refused() {
        // Field 2, a list of 100 structs, each with one child.
        let mut deep = vec![0x29, 0xfc, 100];
        for _ in 0..100 {
            deep.extend_from_slice(&[0x55, 2, 0]);
        }
        deep.push(0);
        assert!(check_schema(&deep).is_err());
        // Two elements, of which the first claims a billion children.
        let many = [0x29, 0x2c, 0x55, 0x80, 0xa8, 0xd6, 0xb9, 0x07, 0, 0, 0];
        assert!(check_schema(&many).is_err());
        let one = [0x29, 0x2c, 0x55, 2, 0, 0, 0];
        assert_eq!(check_schema(&one), Ok(()));
    }
}
