//! The pages of a column chunk: their headers walked, decrypted and checked before anything is
//! decoded.
//!
//! github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift: PageHeader and
//! what it holds. The official crate keeps the type to itself.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::crypto::{ColumnCrypto, Module};
use super::failure::corrupted;
use super::thrift::{Compact, FALSE, I32, STRUCT, TRUE, push_i32};
use crate::error::Result;
use crate::formats::Source;

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// Values, with levels in the body.
    Data,
    /// Values, with levels before the compressed part.
    DataV2,
    /// What the numbers of dictionary-encoded pages stand for.
    Dictionary,
    /// An index, which nobody writes.
    Index,
}

/// A page of a column chunk, as its header tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageHeader {
    /// What it is.
    pub kind: PageKind,
    /// Bytes behind the header.
    pub size: u32,
    /// Bytes after decompression, levels included.
    pub uncompressed: u32,
    /// CRC-32 of the bytes behind the header, where the writer made one.
    pub crc: Option<u32>,
    /// Values, nulls and entries of empty lists included; entries of a dictionary.
    pub values: u32,
    /// Nulls, of a second version.
    pub nulls: Option<u32>,
    /// Rows, of a second version.
    pub rows: Option<u32>,
    /// Encoding of the values, as numbered in the format.
    pub encoding: i32,
    /// Encoding of the definition levels, of a first version.
    pub definition_encoding: i32,
    /// Encoding of the repetition levels, of a first version.
    pub repetition_encoding: i32,
    /// Bytes of definition levels, of a second version.
    pub definition_size: u32,
    /// Bytes of repetition levels, of a second version.
    pub repetition_size: u32,
    /// Whether the values are compressed, when the chunk is.
    pub is_compressed: bool,
}

/// A header and where it lies in the bytes that were parsed.
#[derive(Debug)]
pub(super) struct Parsed {
    pub header: PageHeader,
    /// Bytes of the header.
    pub size: usize,
    /// Where the size of the page stands in it.
    size_at: Range<usize>,
}

#[derive(Default)]
struct Draft {
    kind: Option<i32>,
    uncompressed: Option<u32>,
    size: Option<u32>,
    size_at: Range<usize>,
    crc: Option<u32>,
    values: Option<u32>,
    nulls: Option<u32>,
    rows: Option<u32>,
    encoding: Option<i32>,
    definition_encoding: i32,
    repetition_encoding: i32,
    definition_size: u32,
    repetition_size: u32,
    is_compressed: Option<bool>,
}

/// Parses the header that `bytes` begin with. `None` when it is none.
pub(super) fn parse(bytes: &[u8]) -> Option<Parsed> {
    let mut reader = Compact::new(bytes);
    let mut draft = Draft::default();
    let mut last = 0;
    while let Some(field) = reader.field(last)? {
        last = field.id;
        match (field.id, field.kind) {
            (1, I32) => draft.kind = Some(reader.i32()?),
            (2, I32) => draft.uncompressed = Some(count(&mut reader)?),
            (3, I32) => {
                let at = reader.position();
                draft.size = Some(count(&mut reader)?);
                draft.size_at = at..reader.position();
            }
            (4, I32) => draft.crc = Some(reader.i32()? as u32),
            (5, STRUCT) => draft.data(&mut reader)?,
            (7, STRUCT) => draft.dictionary(&mut reader)?,
            (8, STRUCT) => draft.data_v2(&mut reader)?,
            _ => reader.skip(field.kind)?,
        }
    }
    draft.finish(reader.position())
}

fn count(reader: &mut Compact<'_>) -> Option<u32> {
    u32::try_from(reader.i32()?).ok()
}

impl Draft {
    fn data(&mut self, reader: &mut Compact<'_>) -> Option<()> {
        let mut last = 0;
        while let Some(field) = reader.field(last)? {
            last = field.id;
            match (field.id, field.kind) {
                (1, I32) => self.values = Some(count(reader)?),
                (2, I32) => self.encoding = Some(reader.i32()?),
                (3, I32) => self.definition_encoding = reader.i32()?,
                (4, I32) => self.repetition_encoding = reader.i32()?,
                _ => reader.skip(field.kind)?,
            }
        }
        Some(())
    }

    fn dictionary(&mut self, reader: &mut Compact<'_>) -> Option<()> {
        let mut last = 0;
        while let Some(field) = reader.field(last)? {
            last = field.id;
            match (field.id, field.kind) {
                (1, I32) => self.values = Some(count(reader)?),
                (2, I32) => self.encoding = Some(reader.i32()?),
                _ => reader.skip(field.kind)?,
            }
        }
        Some(())
    }

    fn data_v2(&mut self, reader: &mut Compact<'_>) -> Option<()> {
        let mut last = 0;
        while let Some(field) = reader.field(last)? {
            last = field.id;
            match (field.id, field.kind) {
                (1, I32) => self.values = Some(count(reader)?),
                (2, I32) => self.nulls = Some(count(reader)?),
                (3, I32) => self.rows = Some(count(reader)?),
                (4, I32) => self.encoding = Some(reader.i32()?),
                (5, I32) => self.definition_size = count(reader)?,
                (6, I32) => self.repetition_size = count(reader)?,
                (7, TRUE) => self.is_compressed = Some(true),
                (7, FALSE) => self.is_compressed = Some(false),
                _ => reader.skip(field.kind)?,
            }
        }
        Some(())
    }

    fn finish(self, size: usize) -> Option<Parsed> {
        let kind = match self.kind? {
            0 => PageKind::Data,
            1 => PageKind::Index,
            2 => PageKind::Dictionary,
            3 => PageKind::DataV2,
            _ => return None,
        };
        let has_values = kind == PageKind::Index || self.values.is_some();
        let levels = u64::from(self.definition_size) + u64::from(self.repetition_size);
        let (body, uncompressed) = (self.size?, self.uncompressed?);
        if !has_values || levels > u64::from(body.min(uncompressed)) {
            return None;
        }
        Some(Parsed {
            header: PageHeader {
                kind,
                size: body,
                uncompressed,
                crc: self.crc,
                values: self.values.unwrap_or(0),
                nulls: self.nulls,
                rows: self.rows,
                encoding: self.encoding.unwrap_or(0),
                definition_encoding: self.definition_encoding,
                repetition_encoding: self.repetition_encoding,
                definition_size: self.definition_size,
                repetition_size: self.repetition_size,
                is_compressed: self.is_compressed.unwrap_or(true),
            },
            size,
            size_at: self.size_at,
        })
    }
}

/// A page in memory.
#[derive(Debug, Clone)]
pub struct Page {
    /// What its header says.
    pub header: PageHeader,
    /// Where its header lies in the file.
    pub offset: u64,
    /// The bytes behind the header, decrypted.
    pub body: Bytes,
    /// Where these lie in their run.
    pub(super) body_at: u64,
}

/// A run of whole pages in memory.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Where it lies in the file, or would, were it not encrypted.
    pub offset: u64,
    pub bytes: Bytes,
}

/// Which pages a run begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// A dictionary may come first.
    pub has_dictionary: bool,
    /// The number of the first data page in its chunk.
    pub page: usize,
}

/// Walks over all pages of a run, in the clear, and checks their CRCs.
pub(super) fn walk(run: &Run, path: &Path) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut at = 0;
    while at < run.bytes.len() {
        let offset = run.offset + at as u64;
        let damaged = |what: &str| corrupted(path, offset, what);
        let parsed = parse(&run.bytes[at..]).ok_or_else(|| damaged("there is no page header"))?;
        let from = at + parsed.size;
        let to = from + parsed.header.size as usize;
        if to > run.bytes.len() {
            return Err(damaged("a page passes the end of its column chunk"));
        }
        let body = run.bytes.slice(from..to);
        if let Some(expected) = parsed.header.crc {
            let found = crc32fast::hash(&body);
            if found != expected {
                let text =
                    format!("a page has the CRC {found:08x}; its header says {expected:08x}");
                return Err(damaged(&text));
            }
        }
        pages.push(Page {
            header: parsed.header,
            offset,
            body,
            body_at: from as u64,
        });
        at = to;
    }
    Ok(pages)
}

/// Bytes that are read to find a header; those with long statistics take more.
const WINDOW: u64 = 512;
/// No header is longer.
const WINDOW_MAX: u64 = 1 << 20;

/// Walks over the pages of a chunk in a file, in the clear, and reads their headers alone. `None`
/// when a page has a CRC, which only its bytes can be compared with.
pub(super) fn walk_file(source: &dyn Source, chunk: &Range<u64>) -> Result<Option<Vec<Page>>> {
    let mut pages = Vec::new();
    let mut at = chunk.start;
    let mut window = WINDOW;
    while at < chunk.end {
        let left = chunk.end - at;
        let bytes = source.bytes(at, window.min(left), "the header of a page")?;
        let Some(parsed) = parse(&bytes) else {
            if window >= left.min(WINDOW_MAX) {
                return Err(corrupted(source.path(), at, "there is no page header"));
            }
            window *= 8;
            continue;
        };
        window = WINDOW;
        if parsed.header.crc.is_some() {
            return Ok(None);
        }
        let body = parsed.size as u64 + u64::from(parsed.header.size);
        if body > left {
            let message = "a page passes the end of its column chunk";
            return Err(corrupted(source.path(), at, message));
        }
        pages.push(Page {
            offset: at,
            body: Bytes::new(),
            body_at: at - chunk.start + parsed.size as u64,
            header: parsed.header,
        });
        at += body;
    }
    Ok(Some(pages))
}

/// Decrypts a run. Its headers get the sizes that the pages now have; its CRCs, which are of the
/// encrypted bytes, go.
pub(super) fn decrypt(
    run: &Run,
    start: Start,
    crypto: &ColumnCrypto,
    path: &Path,
) -> Result<(Run, Vec<Page>)> {
    let mut clear: Vec<u8> = Vec::with_capacity(run.bytes.len());
    let mut places = Vec::new();
    let mut at = 0;
    let mut number = start.page;
    let mut dictionary = start.has_dictionary;
    while at < run.bytes.len() {
        let offset = run.offset + at as u64;
        let (page, header_module, page_module) = match dictionary {
            true => (None, Module::DictionaryPageHeader, Module::DictionaryPage),
            false => {
                let page = i16::try_from(number).map_err(|_| {
                    corrupted(path, offset, "an encrypted chunk has 32767 pages at most")
                })?;
                (Some(page), Module::DataPageHeader, Module::DataPage)
            }
        };
        let (text, used) = crypto.open(header_module, page, &run.bytes[at..], offset, path)?;
        let none = || corrupted(path, offset, "there is no page header");
        let mut parsed = parse(&text).ok_or_else(none)?;
        at += used;
        let (body, used) = crypto.open(page_module, page, &run.bytes[at..], offset, path)?;
        if used != parsed.header.size as usize {
            let message = "a page and its header do not say the same size";
            return Err(corrupted(path, offset, message));
        }
        at += used;
        let size = i32::try_from(body.len()).map_err(|_| none())?;
        clear.extend_from_slice(&text[..parsed.size_at.start]);
        push_i32(&mut clear, size);
        clear.extend_from_slice(&text[parsed.size_at.end..parsed.size]);
        parsed.header.size = body.len() as u32;
        parsed.header.crc = None;
        let from = clear.len();
        clear.extend_from_slice(&body);
        places.push((parsed.header, offset, from..clear.len()));
        match dictionary {
            true => dictionary = false,
            false => number += 1,
        }
    }
    let bytes = Bytes::from(clear);
    let pages = places.into_iter().map(|(header, offset, place)| Page {
        header,
        offset,
        body_at: place.start as u64,
        body: bytes.slice(place),
    });
    let pages = pages.collect();
    let offset = run.offset;
    Ok((Run { offset, bytes }, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page of 3 values in 5 bytes.
    fn page(crc: Option<u32>) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x00, 0x15, 10, 0x15, 10];
        if let Some(crc) = crc {
            bytes.push(0x15);
            push_i32(&mut bytes, crc as i32);
        }
        let delta = if crc.is_some() { 0x1c } else { 0x2c };
        bytes.extend_from_slice(&[delta, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0]);
        bytes.extend_from_slice(b"hello");
        bytes
    }

    fn run(bytes: Vec<u8>) -> Run {
        Run {
            offset: 100,
            bytes: bytes.into(),
        }
    }

    #[test]
    fn pages_follow_each_other() {
        let one = page(None);
        let two = [one.clone(), page(Some(crc32fast::hash(b"hello")))].concat();
        let pages = walk(&run(two), Path::new("x")).expect("two pages");
        assert_eq!(pages.len(), 2);
        assert_eq!(pages[1].offset, 100 + one.len() as u64);
        assert_eq!(
            (pages[1].header.values, &pages[1].body[..]),
            (3, &b"hello"[..])
        );
    }

    #[test]
    fn a_wrong_crc_is_found_with_the_offset_of_its_page() {
        let good = page(None);
        let at = 100 + good.len() as u64;
        let both = [good, page(Some(1))].concat();
        let error = walk(&run(both), Path::new("x")).expect_err("wrong");
        assert_eq!(error.offset(), Some(at));
        assert!(error.message().contains("CRC"), "{error}");
    }

    #[test]
    fn a_cut_page_is_an_error() {
        let whole = page(None);
        for cut in 1..whole.len() {
            assert!(walk(&run(whole[..cut].to_vec()), Path::new("x")).is_err());
        }
    }
}
