//! An open file: its metadata, and the parts of them that are read when somebody asks.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::index_reader::{decode_column_index, decode_offset_index};
use parquet::file::page_index::offset_index::PageLocation;

use super::crypto::{ColumnCrypto, Crypto, Keys, Module, no_key};
use super::failure::{attempt, corrupted};
use super::footer;
use super::info::{self, ChunkInfo, ColumnInfo, FileInfo, RowGroupInfo, not_negative};
use super::thrift::{Compact, I32};
use crate::engine::File;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{FileSource, Source};

/// Bytes that the head of a bloom filter takes at most; writers pad it before they encrypt it.
const BLOOM_HEAD: u64 = 1024;

type Locations = Arc<Vec<PageLocation>>;

/// A Parquet file: its footer, read once. Cheap to clone, usable from many threads.
#[derive(Clone)]
pub struct Parquet(Arc<Inner>);

struct Inner {
    source: Arc<dyn Source>,
    /// The file, when it is one: bulk is read by its engine.
    file: Option<File>,
    metadata: Arc<ParquetMetaData>,
    /// The Arrow schema of all columns, as the crate derives it.
    arrow: ArrowReaderMetadata,
    crypto: Option<Crypto>,
    is_footer_encrypted: bool,
    footer_offset: u64,
    /// Where pages lie, for what was asked.
    locations: Mutex<HashMap<(usize, usize), Option<Locations>>>,
}

impl Parquet {
    /// Reads the footer of a file.
    ///
    /// # Errors
    /// `Corrupted` when it is no Parquet file or damaged, `InvalidArgument` when it is encrypted
    /// and `keys` do not open it, and what the file says.
    pub fn open(file: &File, keys: Option<Keys>) -> Result<Self> {
        let source = Arc::new(FileSource::new(file)?);
        Self::new(source, Some(file.clone()), keys)
    }

    /// As `open`, of bytes that are not a file.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_source(source: Arc<dyn Source>, keys: Option<Keys>) -> Result<Self> {
        Self::new(source, None, keys)
    }

    fn new(source: Arc<dyn Source>, file: Option<File>, keys: Option<Keys>) -> Result<Self> {
        let keys = keys.map(Arc::new);
        let footer = footer::read(&*source, keys.as_ref())?;
        let metadata = Arc::new(footer.metadata);
        let path = source.path();
        let schema = |plain| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(plain);
            let metadata = metadata.clone();
            attempt(path, footer.offset, "read the schema", || {
                ArrowReaderMetadata::try_new(metadata, options)
            })
        };
        // A schema of Arrow that the writer added may not fit the columns; these count.
        let arrow = schema(false).or_else(|_| schema(true))?;
        let arrow = match without_views(arrow.schema()) {
            None => arrow,
            Some(plain) => {
                let options = ArrowReaderOptions::new().with_schema(Arc::new(plain));
                attempt(path, footer.offset, "read the schema", || {
                    ArrowReaderMetadata::try_new(metadata.clone(), options)
                })?
            }
        };
        Ok(Self(Arc::new(Inner {
            file,
            metadata,
            arrow,
            crypto: footer.crypto,
            is_footer_encrypted: footer.is_encrypted,
            footer_offset: footer.offset,
            locations: Mutex::default(),
            source,
        })))
    }

    /// Whether a file's footer is encrypted, so that keys are needed to open it.
    ///
    /// # Errors
    /// `Corrupted` when it does not end as a Parquet file does.
    pub fn is_encrypted(source: &dyn Source) -> Result<bool> {
        footer::is_encrypted(source)
    }

    /// The metadata, as the official crate holds them.
    #[must_use]
    pub fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.0.metadata
    }

    /// The Arrow schema of all columns.
    #[must_use]
    pub fn schema(&self) -> &arrow_schema::SchemaRef {
        self.0.arrow.schema()
    }

    pub(super) fn arrow(&self) -> &ArrowReaderMetadata {
        &self.0.arrow
    }

    pub(super) fn source(&self) -> &dyn Source {
        &*self.0.source
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.0.file.as_ref()
    }

    pub(super) fn footer_offset(&self) -> u64 {
        self.0.footer_offset
    }

    /// What the file says of itself.
    #[must_use]
    pub fn info(&self) -> FileInfo {
        let size = self.source().size() - self.0.footer_offset;
        info::file(self.metadata(), self.0.is_footer_encrypted, size)
    }

    /// The columns that hold values.
    #[must_use]
    pub fn columns(&self) -> Vec<ColumnInfo> {
        let schema = self.metadata().file_metadata().schema_descr();
        let root = |leaf| schema.get_column_root_idx(leaf);
        let columns = schema.columns().iter().enumerate();
        columns
            .map(|(leaf, column)| info::column(column, root(leaf)))
            .collect()
    }

    /// The row groups.
    #[must_use]
    pub fn row_groups(&self) -> Vec<RowGroupInfo> {
        let mut first_row = 0;
        let describe = |group: &parquet::file::metadata::RowGroupMetaData| {
            let sum = |sum: u64, c: &ColumnChunkMetaData| {
                sum.saturating_add(not_negative(c.compressed_size()))
            };
            let info = RowGroupInfo {
                rows: not_negative(group.num_rows()),
                first_row,
                bytes: not_negative(group.total_byte_size()),
                compressed_bytes: group.columns().iter().fold(0, sum),
            };
            first_row += info.rows;
            info
        };
        self.metadata().row_groups().iter().map(describe).collect()
    }

    /// A column of a row group. `None` when there is none of these numbers.
    #[must_use]
    pub fn chunk(&self, row_group: usize, column: usize) -> Option<ChunkInfo> {
        let group = self.metadata().row_groups().get(row_group)?;
        let chunk = group.columns().get(column)?;
        let start = chunk_start(chunk);
        Some(info::chunk(chunk, not_negative(start)))
    }

    /// The bytes of a column chunk.
    pub(super) fn chunk_range(&self, row_group: usize, leaf: usize) -> Result<Range<u64>> {
        let chunk = self.metadata().row_group(row_group).column(leaf);
        if let Some(other) = chunk.file_path() {
            let path = self.source().path();
            let message = format!(
                "column {} of {} lies in another file ({other}); open that one",
                chunk.column_path().string(),
                path.display()
            );
            return Err(Error::new(ErrorKind::NotSupported, message).with_path(path));
        }
        self.range(
            chunk_start(chunk),
            chunk.compressed_size(),
            "a column chunk",
        )
    }

    /// A range that metadata name, when it lies in the file.
    fn range(&self, start: i64, size: i64, what: &str) -> Result<Range<u64>> {
        let (start, size) = (u64::try_from(start), u64::try_from(size));
        if let (Ok(start), Ok(size)) = (start, size)
            && let Some(end) = start.checked_add(size)
            && end <= self.source().size()
        {
            return Ok(start..end);
        }
        let message = format!("the metadata place {what} outside of the file");
        Err(corrupted(
            self.source().path(),
            self.0.footer_offset,
            &message,
        ))
    }

    /// What decrypts a column chunk, when it is encrypted.
    pub(super) fn column_crypto(
        &self,
        row_group: usize,
        leaf: usize,
    ) -> Result<Option<ColumnCrypto>> {
        let chunk = self.metadata().row_group(row_group).column(leaf);
        let Some(how) = chunk.crypto_metadata() else {
            return Ok(None);
        };
        let path = self.source().path();
        let name = chunk.column_path().string();
        match &self.0.crypto {
            None => Err(no_key(&format!("column {name}"), path)),
            Some(crypto) => crypto.column(&name, how, row_group, leaf, path).map(Some),
        }
    }

    /// Bytes of a module, decrypted when the column is encrypted.
    fn module(
        &self,
        row_group: usize,
        leaf: usize,
        range: Range<u64>,
        module: Module,
    ) -> Result<Vec<u8>> {
        let size = range.end - range.start;
        let bytes = self
            .source()
            .bytes(range.start, size, "metadata of a column")?;
        match self.column_crypto(row_group, leaf)? {
            None => Ok(bytes),
            Some(crypto) => {
                let path = self.source().path();
                let (text, _) = crypto.open(module, None, &bytes, range.start, path)?;
                Ok(text)
            }
        }
    }

    /// Where the data pages of a column chunk lie, when the file says so.
    pub(super) fn page_locations(
        &self,
        row_group: usize,
        leaf: usize,
    ) -> Result<Option<Locations>> {
        if let Some(known) = self.0.locations.lock().get(&(row_group, leaf)) {
            return Ok(known.clone());
        }
        let read = self.read_locations(row_group, leaf)?.map(Arc::new);
        self.0
            .locations
            .lock()
            .insert((row_group, leaf), read.clone());
        Ok(read)
    }

    fn read_locations(&self, row_group: usize, leaf: usize) -> Result<Option<Vec<PageLocation>>> {
        let group = self.metadata().row_group(row_group);
        let chunk = group.column(leaf);
        let (Some(at), Some(size)) = (chunk.offset_index_offset(), chunk.offset_index_length())
        else {
            return Ok(None);
        };
        let range = self.range(at, size.into(), "an offset index")?;
        let offset = range.start;
        let bytes = self.module(row_group, leaf, range, Module::OffsetIndex)?;
        let path = self.source().path();
        let index = attempt(path, offset, "read an offset index", || {
            // The fast way of the crate trusts the count that the list begins with.
            check_list(&bytes)?;
            decode_offset_index(&bytes)
        })?;
        let own = self.chunk_range(row_group, leaf)?;
        let rows = not_negative(group.num_rows());
        let pages = index.page_locations();
        if !are_in_order(pages, &own, rows) {
            let message = "an offset index names pages that are not in the column chunk";
            return Err(corrupted(path, offset, message));
        }
        Ok(Some(pages.clone()))
    }

    /// Smallest and largest values of the pages of a column chunk, when the file has them.
    pub(super) fn column_index(
        &self,
        row_group: usize,
        leaf: usize,
    ) -> Result<Option<ColumnIndexMetaData>> {
        let chunk = self.metadata().row_group(row_group).column(leaf);
        let (Some(at), Some(size)) = (chunk.column_index_offset(), chunk.column_index_length())
        else {
            return Ok(None);
        };
        let range = self.range(at, size.into(), "a column index")?;
        let offset = range.start;
        let bytes = self.module(row_group, leaf, range, Module::ColumnIndex)?;
        let kind = chunk.column_type();
        let path = self.source().path();
        let index = attempt(path, offset, "read a column index", || {
            decode_column_index(&bytes, kind)
        })?;
        Ok(Some(index))
    }

    /// The bloom filter of a column chunk, when it has one.
    pub(super) fn bloom_filter(&self, row_group: usize, leaf: usize) -> Result<Option<Sbbf>> {
        let chunk = self.metadata().row_group(row_group).column(leaf);
        let Some(at) = chunk.bloom_filter_offset() else {
            return Ok(None);
        };
        let at = self.range(at, 0, "a bloom filter")?.start;
        let path = self.source().path();
        let head_size = BLOOM_HEAD.min(self.source().size() - at);
        let head = self.source().bytes(at, head_size, "a bloom filter")?;
        let none = || corrupted(path, at, "there is no bloom filter");
        let (text, bits) = match self.column_crypto(row_group, leaf)? {
            None => {
                let (bits, size) = bloom_head(&head).ok_or_else(none)?;
                let all = (size as u64).saturating_add(bits);
                (self.source().bytes(at, all, "a bloom filter")?, bits)
            }
            Some(crypto) => {
                let (mut text, used) = crypto.open(Module::BloomHeader, None, &head, at, path)?;
                let (bits, size) = bloom_head(&text).ok_or_else(none)?;
                text.truncate(size);
                let from = at + used as u64;
                // Length, nonce and tag.
                let size = bits.saturating_add(32);
                let bytes = self.source().bytes(from, size, "a bloom filter")?;
                let (body, _) = crypto.open(Module::BloomBits, None, &bytes, from, path)?;
                text.extend_from_slice(&body);
                (text, bits)
            }
        };
        if bits == 0 || bits % 32 != 0 {
            return Err(none());
        }
        let filter = attempt(path, at, "read a bloom filter", || Sbbf::from_bytes(&text))?;
        Ok(Some(filter))
    }
}

/// The schema with offsets where the writer had views: these are in other buffers than kernels and
/// most readers of columns know. `None` when there are no views.
fn without_views(schema: &Schema) -> Option<Schema> {
    let mut found = false;
    let fields = schema
        .fields()
        .iter()
        .map(|field| without_view(field, &mut found));
    let fields: Vec<FieldRef> = fields.collect();
    found.then(|| Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn without_view(field: &FieldRef, found: &mut bool) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Utf8View => {
            *found = true;
            DataType::Utf8
        }
        DataType::BinaryView => {
            *found = true;
            DataType::Binary
        }
        DataType::List(item) => DataType::List(without_view(item, found)),
        DataType::LargeList(item) => DataType::LargeList(without_view(item, found)),
        DataType::FixedSizeList(item, size) => {
            DataType::FixedSizeList(without_view(item, found), *size)
        }
        DataType::Map(entries, sorted) => DataType::Map(without_view(entries, found), *sorted),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| without_view(field, found));
            DataType::Struct(fields.collect())
        }
        other => other.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(kind))
}

/// Where the pages of a chunk begin. Writers of old wrote 0 for a dictionary that is not there.
fn chunk_start(chunk: &ColumnChunkMetaData) -> i64 {
    let data = chunk.data_page_offset();
    match chunk.dictionary_page_offset() {
        Some(dictionary) if dictionary > 0 && dictionary < data => dictionary,
        _ => data,
    }
}

/// Whether a chunk begins with a dictionary, as far as its metadata tell.
pub(super) fn has_dictionary(chunk: &ColumnChunkMetaData) -> bool {
    chunk_start(chunk) != chunk.data_page_offset()
}

/// The first list of an index has as many elements as bytes at most.
fn check_list(bytes: &[u8]) -> parquet::errors::Result<()> {
    let mut reader = Compact::new(bytes);
    let count = reader.field(0).flatten().and_then(|_| reader.list());
    match count {
        Some((count, _)) if count <= bytes.len() as u64 => Ok(()),
        _ => Err(parquet::errors::ParquetError::EOF(
            "it has no list of pages".into(),
        )),
    }
}

/// The bytes of the filter, and of its head.
fn bloom_head(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut reader = Compact::new(bytes);
    let mut bits = None;
    let mut last = 0;
    while let Some(field) = reader.field(last)? {
        last = field.id;
        match (field.id, field.kind) {
            (1, I32) => bits = u64::try_from(reader.i32()?).ok(),
            _ => reader.skip(field.kind)?,
        }
    }
    Some((bits?, reader.position()))
}

/// Whether pages follow each other in a chunk, in bytes and in rows.
fn are_in_order(pages: &[PageLocation], chunk: &Range<u64>, rows: u64) -> bool {
    let mut end = chunk.start;
    let mut row = 0;
    for (number, page) in pages.iter().enumerate() {
        let offset = u64::try_from(page.offset);
        let size = u64::try_from(page.compressed_page_size);
        let first = u64::try_from(page.first_row_index);
        let (Ok(offset), Ok(size), Ok(first)) = (offset, size, first) else {
            return false;
        };
        let starts = number > 0 || first == 0;
        if offset < end || !starts || first < row || first > rows || size == 0 {
            return false;
        }
        end = offset.saturating_add(size);
        row = first;
    }
    end <= chunk.end
}

impl fmt::Debug for Parquet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parquet({})", self.source().path().display())
    }
}
