//! Encoded pages of columns in memory of the device, decoded there.

use super::buffer::Buffer;
use super::context::Context;
use super::kernel_slot::KernelSlot;
use crate::device::{
    MemoryKind, ParquetColumn, ParquetConversion, ParquetEncoding, ParquetPage, ParquetStatus,
    ParquetStep, ParquetWork,
};
use crate::error::{Error, ErrorKind, Result};

/// Addresses of outputs and of scratch memory are multiples of this.
const ALIGN: u64 = 8;
/// Words behind the tables: which page is next, one a launch.
const COUNTERS: usize = 4;
/// Strings whose bytes are marked, see `GDS_MARK` of `kernels/parquet.cuh`.
const MARK: u64 = 512;
/// Values that are worth a warp, and most parts of a page.
const PART_VALUES: u32 = 2048;
const PARTS_MAX: u32 = 256;

/// A range of a buffer: the buffer, offset and size in bytes.
pub type Part<'a> = (&'a Buffer, u64, u64);

/// Where the values of pages go: a column in the layout of Arrow, without a dictionary.
#[derive(Debug, Clone, Copy)]
pub struct PageColumn<'a> {
    /// From what stands in the pages.
    pub conversion: ParquetConversion,
    /// Bytes of a value there; 0 for strings and bits.
    pub width_in: u32,
    /// Bytes of a value here; 0 for strings and bits.
    pub width_out: u32,
    /// Values.
    pub rows: u64,
    /// A bit a value in words of four bytes, all zero but for pages whose levels were read before;
    /// None without nulls.
    pub validity: Option<Part<'a>>,
    /// The values; bits as validity, all zero; None for strings.
    pub values: Option<Part<'a>>,
    /// For strings: `rows + 1` offsets of four bytes.
    pub offsets: Option<Part<'a>>,
}

/// Pages with one dictionary.
#[derive(Debug, Clone)]
pub struct PageChunk<'a> {
    /// Which column they are of.
    pub column: usize,
    /// The dictionary's page, PLAIN, decompressed, and how many values it has.
    pub dictionary: Option<(Part<'a>, u32)>,
    /// The pages.
    pub pages: Vec<EncodedPage<'a>>,
}

/// A data page, decompressed.
#[derive(Debug, Clone, Copy)]
pub struct EncodedPage<'a> {
    /// Its bytes: in version 1 the levels first.
    pub data: Part<'a>,
    /// The definition levels of version 2.
    pub levels: Option<Part<'a>>,
    /// Whether there are definition levels, of one bit.
    pub has_levels: bool,
    /// Where the levels were read before (`read_levels`) and the bitmap is there: how many of its
    /// bits are set, as `PageLevels` says; no kernel counts again. The data then begin with the
    /// values.
    pub present: Option<u32>,
    /// How its values are encoded.
    pub encoding: ParquetEncoding,
    /// Values, nulls included.
    pub values: u32,
    /// Place of the first one in the column. Pages of a column do not overlap and are in order.
    pub first: u64,
}

/// The first page that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPage {
    /// Which chunk.
    pub chunk: usize,
    /// Which of its pages; None: the dictionary.
    pub page: Option<usize>,
    /// What is wrong.
    pub status: ParquetStatus,
    /// Where in the page, bytes.
    pub at: u64,
}

/// Takes memory for the bytes of strings.
pub type TakeBytes<'a> = dyn FnMut(usize, u64) -> Result<(Buffer, u64)> + 'a;

/// What stays from one call of [`Context::decode_more`] to the next: memory of the device, which is
/// slow to allocate, and what the pages of each column had so far.
#[derive(Debug, Default)]
pub struct PageMemory {
    scratch: Option<Buffer>,
    table: Option<Buffer>,
    so_far: Vec<SoFar>,
}

/// What the pages of a column had.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoFar {
    /// Values that are not null.
    pub present: u64,
    /// Bytes of strings.
    pub bytes: u64,
}

impl PageMemory {
    /// What the pages of a column had in all calls.
    #[must_use]
    pub fn so_far(&self, column: usize) -> SoFar {
        self.so_far.get(column).copied().unwrap_or_default()
    }
}

/// A buffer of `size` bytes at least, the one that is there where it is large enough.
fn room(context: &Context, there: &mut Option<Buffer>, size: u64) -> Result<Buffer> {
    if let Some(buffer) = there.as_ref().filter(|buffer| buffer.size() >= size) {
        return Ok(buffer.clone());
    }
    *there = None;
    let buffer = context.alloc(MemoryKind::Device, size)?;
    Ok(there.insert(buffer).clone())
}

/// What goes to the device and comes back.
struct Tables {
    /// A row a chunk, then one for all dictionaries of strings.
    columns: Vec<ParquetColumn>,
    pages: Vec<ParquetPage>,
    /// Chunk and page of each.
    names: Vec<(usize, Option<usize>)>,
    /// 8 bytes each.
    scratch: u64,
}

impl Context {
    /// Decodes pages by kernels, a warp a page, and waits, in a stream of its own: what the
    /// caller's streams do with the memory must be done before. `take_bytes` is called for each
    /// column of strings, with its number and bytes, once they are known. Nothing but the outputs
    /// is written, whatever stands in the pages. Takes device memory of 8 bytes for each value
    /// that does not stand in its page as it is, and of a bit for a bit, for the time of the call.
    ///
    /// # Errors
    /// `NotSupported` where the device has no such kernels: decode on the host. `InvalidArgument`
    /// and `OutOfRange` for memory that does not fit its rows; `OutOfDeviceMemory`; `Cuda`; what
    /// `take_bytes` says. Outputs hold anything then.
    pub fn decode_pages(
        &self,
        columns: &[PageColumn<'_>],
        chunks: &[PageChunk<'_>],
        take_bytes: &mut TakeBytes<'_>,
    ) -> Result<Option<BadPage>> {
        self.decode_more(&mut PageMemory::default(), columns, chunks, take_bytes)
    }

    /// As `decode_pages`, for some of the pages of columns, call after call, in their order. The
    /// memory for the bytes of strings is for those of this call; their offsets count on.
    ///
    /// # Errors
    /// As `decode_pages`; `memory` is of no use then.
    pub fn decode_more(
        &self,
        memory: &mut PageMemory,
        columns: &[PageColumn<'_>],
        chunks: &[PageChunk<'_>],
        take_bytes: &mut TakeBytes<'_>,
    ) -> Result<Option<BadPage>> {
        let shared = &self.inner().shared;
        let device = &*shared.device;
        device.parquet_prepare()?;
        let mut tables = Tables::new(self, columns, chunks)?;
        let scratch = room(self, &mut memory.scratch, tables.scratch.max(1) * 8)?;
        let size = size_of_val(&tables.columns[..]) + size_of_val(&tables.pages[..]);
        let table = room(self, &mut memory.table, (size + 8 * COUNTERS) as u64)?;
        tables.place_scratch(scratch.address());
        memory.so_far.resize(columns.len(), SoFar::default());
        let slot = shared.kernels.take(&shared.device)?;
        let run = Run {
            context: self,
            slot: &slot,
            table: &table,
            columns,
            chunks,
        };
        let result = run.steps(&mut tables, &mut memory.so_far, take_bytes);
        shared.kernels.settle(device, slot, result.is_err());
        result
    }

    /// Checks a range that the device shall reach; its address.
    pub(super) fn check_part(
        &self,
        (buffer, offset, size): Part<'_>,
        needed: u64,
        align: u64,
    ) -> Result<u64> {
        buffer.check_range(self.inner(), offset, size)?;
        let address = buffer.address() + offset;
        if buffer.kind() == MemoryKind::Pageable && !self.inner().shared.device.is_host() {
            let message = "decode pages in ordinary memory: the device does not reach it";
            return Err(Error::new(ErrorKind::InvalidPointer, message));
        }
        if size < needed || !address.is_multiple_of(align) {
            let message = format!(
                "decode pages: {needed} bytes at a multiple of {align} are needed, {size} at \
                 {address:#x} were given"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(address)
    }
}

/// One call.
struct Run<'a> {
    context: &'a Context,
    slot: &'a KernelSlot,
    table: &'a Buffer,
    columns: &'a [PageColumn<'a>],
    chunks: &'a [PageChunk<'a>],
}

impl Run<'_> {
    fn steps(
        &self,
        tables: &mut Tables,
        so_far: &mut [SoFar],
        take_bytes: &mut TakeBytes<'_>,
    ) -> Result<Option<BadPage>> {
        // Dictionaries of strings come first: the pages need their places.
        let data: usize = self.chunks.iter().map(|c| c.pages.len()).sum();
        let split = tables.pages.len() - data;
        let first = [ParquetStep::Levels, ParquetStep::Expand];
        self.launch(tables, 0..split, &first)?;
        self.launch(tables, split..tables.pages.len(), &first)?;
        if let Some(bad) = tables.bad() {
            return Ok(Some(bad));
        }
        for (page, (chunk, _)) in tables.pages[split..].iter().zip(&tables.names[split..]) {
            so_far[self.chunks[*chunk].column].present += u64::from(page.present);
        }
        let mut held = Vec::new();
        for (number, column) in self.columns.iter().enumerate() {
            if column.conversion == ParquetConversion::Bytes {
                let before = &mut so_far[number].bytes;
                held.push(self.strings(tables, split, number, before, take_bytes)?);
            }
        }
        let last = [ParquetStep::Values, ParquetStep::Gather];
        self.launch(tables, split..tables.pages.len(), &last)?;
        Ok(tables.bad())
    }

    /// Adds the sizes of a column's strings up and takes memory for their bytes.
    fn strings(
        &self,
        tables: &mut Tables,
        split: usize,
        column: usize,
        before: &mut u64,
        take_bytes: &mut TakeBytes<'_>,
    ) -> Result<Buffer> {
        let mut total = *before;
        for (page, (chunk, _)) in tables.pages[split..].iter_mut().zip(&tables.names[split..]) {
            if self.chunks[*chunk].column == column {
                page.bytes_before = total;
                total += page.bytes;
            }
        }
        if total > i32::MAX as u64 {
            let message = format!(
                "decode {total} bytes of strings into one column: its offsets reach {}; take fewer \
                 rows at once",
                i32::MAX
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        let here = total - *before;
        let (buffer, offset) = take_bytes(column, here)?;
        self.context.check_part((&buffer, offset, here), here, 1)?;
        for (n, chunk) in self.chunks.iter().enumerate() {
            if chunk.column == column {
                // Where the first byte of the column would be: the pages add what is before them.
                tables.columns[n].values = (buffer.address() + offset).wrapping_sub(*before);
            }
        }
        *before = total;
        Ok(buffer)
    }

    /// Sends the tables, launches the steps for some of the pages, and reads these back.
    fn launch(
        &self,
        tables: &mut Tables,
        pages: std::ops::Range<usize>,
        steps: &[ParquetStep],
    ) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let (context, table) = (self.context, self.table);
        let columns_at = (8 * COUNTERS) as u64;
        let pages_at = columns_at + size_of_val(&tables.columns[..]) as u64;
        let here_at = pages_at + (pages.start * size_of::<ParquetPage>()) as u64;
        let here = &tables.pages[pages.clone()];
        context.upload(&[
            (&[0; 8 * COUNTERS], table, 0),
            (bytes_of(&tables.columns), table, columns_at),
            (bytes_of(here), table, here_at),
        ])?;
        let longest = here.iter().map(|page| page.values).max().unwrap_or(0);
        let parts = longest.div_ceil(PART_VALUES).clamp(1, PARTS_MAX);
        let (device, stream) = (&context.inner().shared.device, self.slot.stream.get());
        for (n, step) in steps.iter().enumerate() {
            let work = ParquetWork {
                pages: table.address() + here_at,
                page_count: pages.len() as u64,
                columns: table.address() + columns_at,
                column_count: tables.columns.len() as u64,
                next: table.address() + 8 * n as u64,
                parts: parts.into(),
            };
            // SAFETY: the tables name ranges that were checked against what the kernels touch, of
            // buffers that the caller holds until the stream was waited for, here or, after a
            // failure, when the slot is given back.
            unsafe { device.parquet_pages(*step, &work, stream)? };
        }
        device.stream_synchronize(stream)?;
        context.download(table, here_at, bytes_of_mut(&mut tables.pages[pages]))
    }
}

impl Tables {
    fn new(
        context: &Context,
        columns: &[PageColumn<'_>],
        chunks: &[PageChunk<'_>],
    ) -> Result<Self> {
        let mut tables = Self {
            columns: Vec::new(),
            pages: Vec::new(),
            names: Vec::new(),
            scratch: 0,
        };
        let mut dictionaries = Vec::new();
        let mut all = Vec::new();
        for (number, chunk) in chunks.iter().enumerate() {
            let column = columns.get(chunk.column).ok_or_else(|| {
                let message = format!("decode pages of column {}: there is none", chunk.column);
                Error::new(ErrorKind::InvalidArgument, message)
            })?;
            let mut target = output(context, column)?;
            if let Some((part, count)) = chunk.dictionary {
                let strings = column.conversion == ParquetConversion::Bytes;
                let width = if strings { 0 } else { column.width_in };
                let needed = u64::from(width) * u64::from(count);
                target.dictionary = context.check_part(part, needed, 1)?;
                target.dictionary_count = u64::from(count);
                if strings {
                    target.dictionary_bytes = target.dictionary;
                    let page = ParquetPage {
                        data: target.dictionary,
                        data_size: part.2,
                        // A column of its own: without nulls, whatever the other has.
                        column: chunks.len() as u32,
                        values: count,
                        ..ParquetPage::default()
                    };
                    dictionaries.push((page, (number, None)));
                }
            }
            tables.columns.push(target);
            for (n, page) in chunk.pages.iter().enumerate() {
                let made = page_row(context, number, column, page)?;
                all.push((made, (number, Some(n))));
            }
        }
        tables.columns.push(ParquetColumn {
            conversion: ParquetConversion::Bytes as u32,
            ..ParquetColumn::default()
        });
        for (mut page, name) in dictionaries.into_iter().chain(all) {
            let column = &tables.columns[page.column as usize];
            let in_place = [ParquetEncoding::Plain, ParquetEncoding::ByteStreamSplit];
            let strings = column.conversion == ParquetConversion::Bytes as u32;
            if strings || in_place.iter().all(|e| *e as u32 != page.encoding) {
                // A place for now; the address when there is memory.
                page.scratch = 1 + tables.scratch;
                let values = u64::from(page.values);
                tables.scratch += match ParquetConversion::Bits as u32 == column.conversion {
                    true => values.div_ceil(64),
                    false => values + if strings { values / MARK + 1 } else { 0 },
                };
            }
            tables.pages.push(page);
            tables.names.push(name);
        }
        Ok(tables)
    }

    fn place_scratch(&mut self, address: u64) {
        for (page, (chunk, number)) in self.pages.iter_mut().zip(&self.names) {
            if page.scratch != 0 {
                page.scratch = address + 8 * (page.scratch - 1);
            }
            if number.is_none() {
                self.columns[*chunk].dictionary = page.scratch;
            }
        }
    }

    fn bad(&self) -> Option<BadPage> {
        let mut pages = self.pages.iter().zip(&self.names);
        let (page, (chunk, number)) = pages.find(|(p, _)| p.status != 0)?;
        Some(BadPage {
            chunk: *chunk,
            page: *number,
            status: status_of(page.status),
            at: page.at,
        })
    }
}

/// A column for the kernels, but for its dictionary.
fn output(context: &Context, column: &PageColumn<'_>) -> Result<ParquetColumn> {
    let rows = column.rows;
    let words = 4 * rows.div_ceil(32);
    let optional = |part: Option<Part<'_>>, needed, align| match part {
        Some(part) => context.check_part(part, needed, align),
        None => Ok(0),
    };
    let (values, offsets) = match column.conversion {
        ParquetConversion::Bytes => (0, 4 * (rows + 1)),
        ParquetConversion::Bits => (words, 0),
        _ => (rows.saturating_mul(u64::from(column.width_out)), 0),
    };
    let there = (column.values.is_some(), column.offsets.is_some());
    if there != (offsets == 0, offsets > 0) {
        let message = "decode pages: strings have offsets and no values of their own, and all else \
                       values and no offsets";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(ParquetColumn {
        values: optional(column.values, values, ALIGN)?,
        validity: optional(column.validity, words, ALIGN)?,
        offsets: optional(column.offsets, offsets, ALIGN)?,
        conversion: column.conversion as u32,
        width_in: column.width_in,
        width_out: column.width_out,
        ..ParquetColumn::default()
    })
}

fn page_row(
    context: &Context,
    number: usize,
    column: &PageColumn<'_>,
    page: &EncodedPage<'_>,
) -> Result<ParquetPage> {
    let end = page.first.checked_add(u64::from(page.values));
    if end.is_none_or(|end| end > column.rows) || page.has_levels && column.validity.is_none() {
        let message = format!(
            "decode a page of {} values from {} on into a column of {} rows, nulls {}",
            page.values, page.first, column.rows, page.has_levels
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if !goes(column, page.encoding) {
        let message = format!(
            "decode {:?} pages to {:?} of {} bytes from {}: no kernel does",
            page.encoding, column.conversion, column.width_out, column.width_in
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let (levels, levels_size) = match page.levels {
        Some(part) => (context.check_part(part, 0, 1)?, part.2),
        None => (0, 0),
    };
    Ok(ParquetPage {
        data: context.check_part(page.data, 0, 1)?,
        data_size: page.data.2,
        levels,
        levels_size,
        column: number as u32,
        encoding: page.encoding as u32,
        values: page.values,
        has_levels: match (page.has_levels, page.present) {
            (true, Some(_)) => 2,
            (levels, _) => u32::from(levels),
        },
        first: page.first,
        present: page.present.unwrap_or(0).min(page.values),
        ..ParquetPage::default()
    })
}

/// Whether the kernels take this encoding for such a column.
fn goes(column: &PageColumn<'_>, encoding: ParquetEncoding) -> bool {
    use ParquetEncoding as E;
    match column.conversion {
        ParquetConversion::Bits => matches!(encoding, E::Plain | E::Rle),
        ParquetConversion::Bytes => {
            let deltas = matches!(encoding, E::DeltaLengthByteArray | E::DeltaByteArray);
            deltas || matches!(encoding, E::Plain | E::Dictionary)
        }
        ParquetConversion::Int96 => {
            (column.width_in, column.width_out) == (12, 8)
                && matches!(encoding, E::Plain | E::Dictionary)
        }
        _ => match encoding {
            E::DeltaBinaryPacked => column.width_in <= 8,
            other => matches!(other, E::Plain | E::Dictionary | E::ByteStreamSplit),
        },
    }
}

pub(super) fn status_of(number: u32) -> ParquetStatus {
    use ParquetStatus as S;
    let known = [S::Truncated, S::Run, S::Index, S::Deltas, S::Length];
    let found = known.into_iter().find(|s| *s as u32 == number);
    found.unwrap_or(S::Unsupported)
}

/// Rows of the tables, as bytes: structures of numbers without gaps.
pub(super) fn bytes_of<T: Row>(rows: &[T]) -> &[u8] {
    // SAFETY: a row has no padding, so all its bytes are initialised.
    unsafe { std::slice::from_raw_parts(rows.as_ptr().cast(), size_of_val(rows)) }
}

pub(super) fn bytes_of_mut<T: Row>(rows: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are a row.
    unsafe { std::slice::from_raw_parts_mut(rows.as_mut_ptr().cast(), size_of_val(rows)) }
}

pub(super) trait Row: Copy {}
impl Row for ParquetColumn {}
impl Row for ParquetPage {}
