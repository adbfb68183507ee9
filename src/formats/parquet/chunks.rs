//! Column chunks in memory, ready to be decoded: decrypted, walked, checked against the limit.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::page_index::PageIndexProvider;
use parquet::file::metadata::{
    ColumnChunkMetaData, OffsetIndexBuilder, ParquetMetaData, ParquetMetaDataBuilder,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::deltas;
use super::failure::{attempt, corrupted};
use super::fetch::{ChunkPlan, runs_of};
use super::pages::{self, Page, PageKind, Run};
use super::reader::Parquet;
use super::select::Part;
use crate::error::{Error, ErrorKind, Result};

/// A column chunk, or those of its pages that are wanted.
#[derive(Debug)]
pub(super) struct Chunk {
    pub row_group: usize,
    pub plan: ChunkPlan,
    /// The bytes, in the clear.
    pub runs: Vec<Run>,
    pub pages: Vec<Page>,
    is_encrypted: bool,
    /// Where its bytes lie, when only its headers were read.
    pub not_read: Option<Range<u64>>,
}

impl Chunk {
    /// Values of all data pages, nulls included.
    pub fn values(&self) -> u64 {
        let data = self.pages.iter().filter(|p| is_data(p));
        data.map(|p| u64::from(p.header.values)).sum()
    }

    /// Bytes of the largest page before compression.
    pub fn largest_page(&self) -> u64 {
        let sizes = self.pages.iter().map(|p| u64::from(p.header.uncompressed));
        sizes.max().unwrap_or(0)
    }

    /// Bytes of host memory that decoding takes, as far as pages tell.
    fn cost(&self, column: &ColumnChunkMetaData) -> u64 {
        let width: u64 = match column.column_type() {
            Type::BOOLEAN => 1,
            Type::INT32 | Type::FLOAT => 4,
            Type::INT64 | Type::DOUBLE | Type::BYTE_ARRAY => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => column.column_descr().type_length().unsigned_abs().into(),
        };
        let sizes = self.pages.iter().map(|p| u64::from(p.header.uncompressed));
        // Four bytes of levels.
        self.values()
            .saturating_mul(width + 4)
            .saturating_add(sizes.sum())
    }
}

fn is_data(page: &Page) -> bool {
    matches!(page.header.kind, PageKind::Data | PageKind::DataV2)
}

/// Looks at the headers of a chunk whose bytes shall go to the device. `None` when the host has to
/// see them: they are encrypted, or some page has a CRC.
pub(super) fn look(parquet: &Parquet, part: &Part, plan: &ChunkPlan) -> Result<Option<Chunk>> {
    let [wanted] = &plan.runs[..] else {
        return Ok(None);
    };
    let column = parquet
        .metadata()
        .row_group(part.row_group)
        .column(plan.leaf);
    if plan.pages.is_some() || column.crypto_metadata().is_some() {
        return Ok(None);
    }
    let Some(pages) = pages::walk_file(parquet.source(), &wanted.range)? else {
        return Ok(None);
    };
    Ok(Some(Chunk {
        row_group: part.row_group,
        plan: plan.clone(),
        runs: vec![Run {
            offset: wanted.range.start,
            bytes: Bytes::new(),
        }],
        pages,
        is_encrypted: false,
        not_read: Some(wanted.range.clone()),
    }))
}

/// Makes a chunk of bytes that were read.
pub(super) fn prepare(
    parquet: &Parquet,
    part: &Part,
    plan: ChunkPlan,
    bytes: impl Iterator<Item = Bytes>,
) -> Result<Chunk> {
    let path = parquet.source().path();
    let runs = runs_of(&plan, bytes);
    let crypto = parquet.column_crypto(part.row_group, plan.leaf)?;
    let is_encrypted = crypto.is_some();
    let mut clear = Vec::with_capacity(runs.len());
    let mut all = Vec::new();
    for (run, wanted) in runs.into_iter().zip(&plan.runs) {
        let (run, mut pages) = match &crypto {
            None => {
                let pages = pages::walk(&run, path)?;
                (run, pages)
            }
            Some(crypto) => pages::decrypt(&run, wanted.start, crypto, path)?,
        };
        all.append(&mut pages);
        clear.push(run);
    }
    let chunk = Chunk {
        row_group: part.row_group,
        plan,
        runs: clear,
        pages: all,
        is_encrypted,
        not_read: None,
    };
    let column = parquet
        .metadata()
        .row_group(chunk.row_group)
        .column(chunk.plan.leaf);
    if matches!(column.compression(), Compression::BROTLI(_)) {
        check_brotli(parquet, &chunk)?;
    }
    if matches!(
        column.column_type(),
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY
    ) {
        let plain = attempt(path, parquet.footer_offset(), "read the footer", || {
            column
                .clone()
                .into_builder()
                .set_column_crypto_metadata(None)
                .build()
        })?;
        deltas::check(parquet, &chunk, &plain)?;
    }
    Ok(chunk)
}

/// A few bytes of Brotli make megabytes, and the crate takes all of them, whatever the header of
/// the page says. The other codecs stop at that size or cannot make much more than the file holds.
fn check_brotli(parquet: &Parquet, chunk: &Chunk) -> Result<()> {
    let path = parquet.source().path();
    for page in &chunk.pages {
        let header = &page.header;
        if !header.is_compressed {
            continue;
        }
        let levels = header.definition_size as usize + header.repetition_size as usize;
        let allowed = u64::from(header.uncompressed) - levels as u64;
        let body = page.body.get(levels..).unwrap_or_default();
        let text = brotli::Decompressor::new(body, 4096);
        let made = attempt(path, page.offset, "decompress a page", || {
            let mut bounded = text.take(allowed + 1);
            std::io::copy(&mut bounded, &mut std::io::sink())
                .map_err(|e| ParquetError::General(e.to_string()))
        })?;
        if made > allowed {
            let message = "a page has more bytes than its header says";
            return Err(corrupted(path, page.offset, message));
        }
    }
    Ok(())
}

/// Refuses what would take more host memory than allowed.
pub(super) fn check_cost(parquet: &Parquet, chunks: &[Chunk], limit: u64) -> Result<()> {
    let column = |chunk: &Chunk| {
        parquet
            .metadata()
            .row_group(chunk.row_group)
            .column(chunk.plan.leaf)
    };
    let sum = |sum: u64, chunk: &Chunk| sum.saturating_add(chunk.cost(column(chunk)));
    let cost = chunks.iter().fold(0, sum);
    if cost > limit {
        return Err(too_large(parquet, cost, limit));
    }
    Ok(())
}

/// Decoding takes more host memory than is allowed.
pub(super) fn too_large(parquet: &Parquet, cost: u64, limit: u64) -> Error {
    beyond(parquet, cost, limit, ErrorKind::OutOfHostMemory)
}

/// Decoding takes more than is allowed of the memory that `kind` says.
pub(super) fn beyond(parquet: &Parquet, cost: u64, limit: u64, kind: ErrorKind) -> Error {
    let path = parquet.source().path();
    let whose = match kind {
        ErrorKind::OutOfDeviceMemory => "device",
        _ => "host",
    };
    let message = format!(
        "decode {}: it takes {cost} bytes of {whose} memory or more, and {limit} are allowed; \
         select fewer columns or row groups at a time, or allow more",
        path.display()
    );
    Error::new(kind, message).with_path(path)
}

/// The metadata that the crate decodes the chunks by: nothing is encrypted any more, and where
/// pages are missing it knows where the others lie. `None` when they are as they were.
pub(super) fn metadata_for(parquet: &Parquet, chunks: &[Chunk]) -> Result<Option<ParquetMetaData>> {
    let metadata = parquet.metadata();
    let is_changed = |chunk: &&Chunk| {
        let column = metadata.row_group(chunk.row_group).column(chunk.plan.leaf);
        let crate_start = column
            .dictionary_page_offset()
            .unwrap_or(column.data_page_offset());
        let start = chunk.plan.runs.first().map(|run| run.range.start as i64);
        chunk.is_encrypted || chunk.plan.pages.is_some() || start != Some(crate_start)
    };
    let changed: Vec<&Chunk> = chunks.iter().filter(is_changed).collect();
    if changed.is_empty() {
        return Ok(None);
    }
    let path = parquet.source().path();
    attempt(path, parquet.footer_offset(), "read the footer", || {
        let mut groups: Vec<_> = metadata.row_groups().to_vec();
        let mut places = Places::default();
        for chunk in changed {
            let group = &mut groups[chunk.row_group];
            let column = group.columns_mut().get_mut(chunk.plan.leaf);
            let Some(column) = column else {
                return Err(ParquetError::IndexOutOfBound(chunk.plan.leaf, 0));
            };
            *column = change(column, chunk)?;
            if let Some(index) = locations(chunk, group.num_rows()) {
                places.0.insert((chunk.row_group, chunk.plan.leaf), index);
            }
        }
        let index: Option<Arc<dyn PageIndexProvider>> = match places.0.is_empty() {
            true => None,
            false => Some(Arc::new(places)),
        };
        let builder = ParquetMetaDataBuilder::new(metadata.file_metadata().clone());
        Ok(builder.set_row_groups(groups).set_page_index(index).build())
    })
    .map(Some)
}

fn change(
    column: &ColumnChunkMetaData,
    chunk: &Chunk,
) -> parquet::errors::Result<ColumnChunkMetaData> {
    let mut builder = column.clone().into_builder();
    if chunk.is_encrypted {
        builder = builder.set_column_crypto_metadata(None);
        if chunk.plan.pages.is_none() {
            let size: usize = chunk.runs.iter().map(|run| run.bytes.len()).sum();
            builder = builder.set_total_compressed_size(size as i64);
        }
    }
    let start = match &chunk.plan.pages {
        Some(_) => None,
        None => chunk.plan.runs.first().map(|run| run.range.start as i64),
    };
    if let Some(start) = start
        && column
            .dictionary_page_offset()
            .is_some_and(|at| at != start)
    {
        builder = builder.set_dictionary_page_offset(None);
    }
    builder.build()
}

fn locations(chunk: &Chunk, rows: i64) -> Option<OffsetIndexMetaData> {
    let pages = chunk.plan.pages.as_ref()?;
    let mut builder = OffsetIndexBuilder::new();
    let ends = pages.iter().skip(1).map(|p| p.first_row as i64);
    for (page, end) in pages.iter().zip(ends.chain([rows])) {
        builder.append_offset_and_size(page.offset as i64, page.size as i32);
        builder.append_row_count(end - page.first_row as i64);
    }
    Some(builder.build())
}

/// Where pages lie, for the crate.
#[derive(Debug, Default)]
struct Places(HashMap<(usize, usize), OffsetIndexMetaData>);

impl PageIndexProvider for Places {
    fn has_offset_indexes(&self) -> bool {
        !self.0.is_empty()
    }

    fn has_column_indexes(&self) -> bool {
        false
    }

    fn column_index(&self, _: usize, _: usize) -> Option<&ColumnIndexMetaData> {
        None
    }

    fn offset_index(&self, row_group: usize, column: usize) -> Option<&OffsetIndexMetaData> {
        self.0.get(&(row_group, column))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Runs of some chunks, as the crate reads them: by their place in the file.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    size: u64,
    runs: Arc<[Run]>,
}

impl Memory {
    pub fn new<'a>(size: u64, chunks: impl Iterator<Item = &'a Chunk>) -> Self {
        let mut runs: Vec<Run> = chunks
            .flat_map(|chunk| chunk.runs.iter().cloned())
            .collect();
        runs.sort_by_key(|run| run.offset);
        Self {
            size,
            runs: runs.into(),
        }
    }

    /// What was read from `start` on, at most `size` bytes.
    fn find(&self, start: u64, size: usize) -> Option<Bytes> {
        let behind = self.runs.partition_point(|run| run.offset <= start);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        let from = usize::try_from(start - run.offset).ok()?;
        let range: Range<usize> = from..from.saturating_add(size).min(run.bytes.len());
        (range.start <= range.end).then(|| run.bytes.slice(range))
    }
}

impl Length for Memory {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Memory {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.get_bytes(start, usize::MAX).map(Cursor::new)
    }

    /// Fewer bytes where a run ends: a decrypted page is shorter than its place.
    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.find(start, length).ok_or_else(|| {
            ParquetError::EOF(format!(
                "{length} bytes at {start} were not asked for before"
            ))
        })
    }
}
