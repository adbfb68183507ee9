//! Columns whose pieces go to their place on the host device as soon as they are decoded.
//!
//! A piece is small enough for the cache of a core, so that copying it costs little, and memory is
//! taken once: where the column ends up. That is known before for values of one width. Texts follow
//! the texts before them: row groups of a column take turns, and one that comes before its turn
//! keeps its pieces until then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{Array as _, ArrayRef};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, Buffer as Bytes};
use arrow_data::ArrayData;
use arrow_schema::{DataType, FieldRef};
use parking_lot::Mutex;

use super::chunks::Chunk;
use super::pages::PageKind;
use super::reader::Parquet;
use super::select::Part;
use crate::base::align_up;
use crate::engine::{Buffer, Context, Copy, MemoryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Slice};

/// What buffers begin at multiples of, bytes.
const ALIGN: u64 = 64;
/// Bytes of values that are decoded at once.
const PIECE: usize = 128 << 10;
/// Most rows that are decoded at once.
const ROWS_MAX: usize = 32 << 10;

/// How values lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bits,
    /// Bytes of a value.
    Fixed(usize),
    /// Bytes of an offset.
    Texts(usize),
}

fn kind_of(data_type: &DataType) -> Option<Kind> {
    match data_type {
        DataType::Boolean => Some(Kind::Bits),
        DataType::Utf8 | DataType::Binary => Some(Kind::Texts(4)),
        DataType::LargeUtf8 | DataType::LargeBinary => Some(Kind::Texts(8)),
        DataType::FixedSizeBinary(size) => usize::try_from(*size)
            .ok()
            .filter(|s| *s > 0)
            .map(Kind::Fixed),
        other => other.primitive_width().map(Kind::Fixed),
    }
}

/// A column on its way to its place.
pub(super) struct Straight<'a> {
    context: &'a Context,
    kind: Kind,
    data_type: DataType,
    rows: u64,
    /// The first row of each part.
    starts: Vec<u64>,
    /// Values or offsets, then room for the bitmap.
    values: Buffer,
    bitmap_at: u64,
    limit: u64,
    bits: Mutex<Vec<PartBits>>,
    /// The part whose texts come next.
    turn: AtomicUsize,
    texts: Mutex<Texts>,
}

#[derive(Debug, Default, Clone)]
struct PartBits {
    validity: Option<BooleanBuffer>,
    values: Option<BooleanBuffer>,
}

#[derive(Debug, Default)]
struct Texts {
    memory: Option<Buffer>,
    used: u64,
    /// Bytes that are expected in all.
    expected: u64,
    /// Parts that were decoded before their turn.
    held: HashMap<usize, Vec<ArrayData>>,
    is_too_long: bool,
}

/// What one thread knows of the part that it decodes.
pub(super) struct Unit {
    part: usize,
    done: u64,
    validity: Option<BooleanBufferBuilder>,
    values: Option<BooleanBufferBuilder>,
    held: Vec<ArrayData>,
}

impl<'a> Straight<'a> {
    /// `None` when a column cannot go this way: it is nested or a dictionary, or its pages have
    /// not the rows that the metadata say.
    pub fn new(
        context: &'a Context,
        parquet: &Parquet,
        field: &FieldRef,
        parts: &[Part],
        chunks: &[&Chunk],
        limit: u64,
    ) -> Result<Option<Self>> {
        let Some(kind) = kind_of(field.data_type()) else {
            return Ok(None);
        };
        let fits = |(part, chunk): (&Part, &&Chunk)| part.count <= chunk.values();
        if chunks.len() != parts.len() || !parts.iter().zip(chunks).all(fits) {
            return Ok(None);
        }
        let mut rows = 0u64;
        let mut starts = Vec::with_capacity(parts.len());
        for part in parts {
            starts.push(rows);
            rows = rows.saturating_add(part.count);
        }
        let size = match kind {
            Kind::Bits => Some(rows.div_ceil(8)),
            Kind::Fixed(width) => rows.checked_mul(width as u64),
            Kind::Texts(width) => rows
                .checked_add(1)
                .and_then(|n| n.checked_mul(width as u64)),
        };
        let bitmap_at = size.and_then(|size| align_up(size, ALIGN));
        let total = bitmap_at
            .zip(align_up(rows.div_ceil(8), ALIGN))
            .and_then(|(at, bits)| at.checked_add(bits));
        let (Some(size), Some(bitmap_at), Some(total)) = (size, bitmap_at, total) else {
            return Ok(None);
        };
        let texts = Texts {
            expected: expected(parquet, chunks).min(limit),
            ..Texts::default()
        };
        let values = context.alloc(MemoryKind::Device, total.max(ALIGN))?;
        // The first offset of texts.
        context.upload(&[(&[0; 8], &values, 0)])?;
        let made = Self {
            values,
            context,
            kind,
            data_type: field.data_type().clone(),
            rows,
            bitmap_at,
            limit,
            bits: Mutex::new(vec![PartBits::default(); parts.len()]),
            turn: AtomicUsize::new(0),
            texts: Mutex::new(texts),
            starts,
        };
        made.pad(&made.values, size)?;
        Ok(Some(made))
    }

    /// Rows that are decoded into one piece, when not more than `most` may be.
    pub fn rows_at_once(&self, most: usize) -> usize {
        let rows = match self.kind {
            Kind::Bits => ROWS_MAX,
            Kind::Fixed(width) => (PIECE / width).max(256),
            Kind::Texts(_) => ROWS_MAX / 4,
        };
        rows.min(most).clamp(1, ROWS_MAX)
    }

    pub fn begin(&self, part: usize) -> Unit {
        Unit {
            part,
            done: 0,
            validity: None,
            values: None,
            held: Vec::new(),
        }
    }

    /// Takes the next piece of a part, which has `count` rows in all.
    pub fn take(&self, unit: &mut Unit, piece: &ArrayRef, count: u64) -> Result<()> {
        let rows = piece.len() as u64;
        if piece.data_type() != &self.data_type {
            let (is, due) = (piece.data_type(), &self.data_type);
            let text = format!("a column was decoded as {is} instead of {due}");
            return Err(Error::new(ErrorKind::Internal, text));
        }
        // Too many rows: whoever counts them will say so.
        if unit.done + rows > count {
            return Ok(());
        }
        let data = piece.to_data();
        take_validity(unit, &data);
        let first = self.starts[unit.part] + unit.done;
        match self.kind {
            Kind::Bits => {
                let bits = BooleanBuffer::new(data.buffers()[0].clone(), data.offset(), data.len());
                let builder = unit
                    .values
                    .get_or_insert_with(|| BooleanBufferBuilder::new(0));
                builder.append_buffer(&bits);
            }
            Kind::Fixed(width) => {
                let from = data.offset() * width;
                let bytes = &data.buffers()[0].as_slice()[from..from + data.len() * width];
                let to = first * width as u64;
                self.context.upload(&[(bytes, &self.values, to)])?;
            }
            Kind::Texts(_) => self.take_texts(unit, data)?,
        }
        unit.done += rows;
        Ok(())
    }

    fn take_texts(&self, unit: &mut Unit, data: ArrayData) -> Result<()> {
        if self.turn.load(Ordering::Acquire) != unit.part {
            unit.held.push(data);
            return Ok(());
        }
        let mut texts = self.texts.lock();
        let mut first = self.starts[unit.part] + unit.done;
        first -= unit.held.iter().map(|held| held.len() as u64).sum::<u64>();
        for data in unit.held.drain(..).chain([data]) {
            self.write(&mut texts, &data, first)?;
            first += data.len() as u64;
        }
        Ok(())
    }

    /// Ends a part, all of whose pieces were taken.
    pub fn end(&self, unit: Unit) -> Result<()> {
        let Unit {
            part,
            validity,
            values,
            held,
            ..
        } = unit;
        self.bits.lock()[part] = PartBits {
            validity: validity.map(|mut bits| bits.finish()),
            values: values.map(|mut bits| bits.finish()),
        };
        if !matches!(self.kind, Kind::Texts(_)) {
            return Ok(());
        }
        let mut texts = self.texts.lock();
        texts.held.insert(part, held);
        // Whose turn it became may have ended before.
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let Some(held) = texts.held.remove(&turn) else {
                return Ok(());
            };
            let end = self.starts.get(turn + 1).copied().unwrap_or(self.rows);
            let mut first = end - held.iter().map(|held| held.len() as u64).sum::<u64>();
            for data in held {
                self.write(&mut texts, &data, first)?;
                first += data.len() as u64;
            }
            self.turn.store(turn + 1, Ordering::Release);
        }
    }

    /// Puts texts behind those that are there. They are of the rows from `first` on.
    fn write(&self, texts: &mut Texts, data: &ArrayData, first: u64) -> Result<()> {
        if texts.is_too_long || data.is_empty() {
            return Ok(());
        }
        let (offsets, range) = match self.kind {
            Kind::Texts(4) => {
                let all = data.buffers()[0].typed_data::<i32>();
                let own = &all[data.offset()..=data.offset() + data.len()];
                let range = own[0] as usize..own[own.len() - 1] as usize;
                if texts.used + range.len() as u64 > i32::MAX as u64 {
                    texts.is_too_long = true;
                    return Ok(());
                }
                // Their difference fits, and so do both.
                let add = (texts.used as i64 - i64::from(own[0])) as i32;
                let moved = own[1..].iter().map(|at| at.wrapping_add(add));
                (Bytes::from_vec(moved.collect::<Vec<i32>>()), range)
            }
            _ => {
                let all = data.buffers()[0].typed_data::<i64>();
                let own = &all[data.offset()..=data.offset() + data.len()];
                let range = own[0] as usize..own[own.len() - 1] as usize;
                let add = texts.used as i64 - own[0];
                let moved = own[1..].iter().map(|at| at.wrapping_add(add));
                (Bytes::from_vec(moved.collect::<Vec<i64>>()), range)
            }
        };
        let width = (offsets.len() / data.len()) as u64;
        let bytes = &data.buffers()[1].as_slice()[range];
        let used = texts.used;
        let end = used + bytes.len() as u64;
        if end > self.limit {
            let text = format!("texts of {end} bytes, and {} are allowed", self.limit);
            return Err(Error::new(ErrorKind::OutOfHostMemory, text));
        }
        let memory = self.room(texts, end, first + data.len() as u64)?;
        self.context.upload(&[
            (offsets.as_slice(), &self.values, (first + 1) * width),
            (bytes, &memory, used),
        ])?;
        texts.used = end;
        Ok(())
    }

    /// Memory for so many bytes of texts, of the first `rows` rows.
    fn room(&self, texts: &mut Texts, end: u64, rows: u64) -> Result<Buffer> {
        if let Some(memory) = &texts.memory
            && memory.size() >= end
        {
            return Ok(memory.clone());
        }
        // What is never written to takes no memory here, only addresses.
        let alike = u128::from(end) * u128::from(self.rows) / u128::from(rows.max(1));
        let alike = u64::try_from(alike).unwrap_or(u64::MAX);
        let likely = match &texts.memory {
            None => texts.expected.max(alike),
            Some(memory) => alike.max(memory.size().saturating_mul(2)),
        };
        let size = (likely.saturating_add(likely / 8))
            .min(self.limit)
            .max(end)
            .max(ALIGN);
        let size = align_up(size, ALIGN).unwrap_or(size);
        let memory = match self.context.alloc(MemoryKind::Device, size) {
            Err(_) if size > end => self.context.alloc(MemoryKind::Device, end.max(ALIGN))?,
            other => other?,
        };
        if let Some(from) = texts.memory.take().filter(|_| texts.used > 0) {
            self.context.copy(&[Copy {
                from,
                from_offset: 0,
                to: memory.clone(),
                to_offset: 0,
                size: texts.used,
            }])?;
        }
        texts.memory = Some(memory.clone());
        Ok(memory)
    }

    /// The column. `None` when its texts pass offsets of 32 bits.
    pub fn finish(mut self, parts: &[Part]) -> Result<Option<Array>> {
        let bits = std::mem::take(self.bits.get_mut());
        let texts = std::mem::take(self.texts.get_mut());
        if texts.is_too_long {
            return Ok(None);
        }
        let slice = |offset: u64, size: u64| {
            let buffer = self.values.clone();
            Some(Slice {
                buffer,
                offset,
                size,
            })
        };
        let mut buffers = vec![None];
        let mut nulls = 0;
        if bits.iter().any(|part| part.validity.is_some()) {
            let all = joined(parts, bits.iter().map(|part| part.validity.as_ref()));
            nulls = self.rows - all.count_set_bits() as u64;
            buffers[0] = slice(self.bitmap_at, self.put_bits(all, self.bitmap_at)?);
        }
        match self.kind {
            Kind::Bits => {
                let all = joined(parts, bits.iter().map(|part| part.values.as_ref()));
                buffers.push(slice(0, self.put_bits(all, 0)?));
            }
            Kind::Fixed(width) => buffers.push(slice(0, self.rows * width as u64)),
            Kind::Texts(width) => {
                buffers.push(slice(0, (self.rows + 1) * width as u64));
                if let Some(memory) = &texts.memory {
                    self.pad(memory, texts.used)?;
                }
                let memory = texts.memory.map(|buffer| Slice {
                    buffer,
                    offset: 0,
                    size: texts.used,
                });
                buffers.push(memory.or_else(|| slice(0, 0)));
            }
        }
        Ok(Some(Array {
            data_type: self.data_type,
            len: self.rows,
            null_count: Some(nulls),
            offset: 0,
            buffers,
            children: Vec::new(),
            dictionary: None,
        }))
    }
}

impl Straight<'_> {
    /// Bits of all rows at an offset. Their bytes.
    fn put_bits(&self, bits: BooleanBuffer, at: u64) -> Result<u64> {
        let bytes = bits.into_inner();
        let size = self.rows.div_ceil(8);
        let bytes = &bytes.as_slice()[..size as usize];
        self.context.upload(&[(bytes, &self.values, at)])?;
        self.pad(&self.values, at + size)?;
        Ok(size)
    }

    /// Zeros from the end of a buffer of an array to the next place for one.
    fn pad(&self, memory: &Buffer, end: u64) -> Result<()> {
        let size = align_up(end, ALIGN).unwrap_or(end) - end;
        let zeros = &[0; ALIGN as usize][..size as usize];
        self.context.upload(&[(zeros, memory, end)])
    }
}

/// Bytes of texts that a file makes us expect: those of pages as they are, or what it says itself.
fn expected(parquet: &Parquet, chunks: &[&Chunk]) -> u64 {
    let of_chunk = |chunk: &&Chunk| {
        let metadata = parquet.metadata().row_group(chunk.row_group);
        let column = metadata.column(chunk.plan.leaf);
        let said = column.unencoded_byte_array_data_bytes();
        let said = said.and_then(|size| u64::try_from(size).ok());
        let plain = chunk.pages.iter().filter(|page| {
            let is_data = matches!(page.header.kind, PageKind::Data | PageKind::DataV2);
            is_data && matches!(page.header.encoding, 0 | 6)
        });
        let plain = plain.map(|page| u64::from(page.header.uncompressed)).sum();
        said.filter(|_| chunk.plan.pages.is_none()).unwrap_or(plain)
    };
    let sum = |sum: u64, size: u64| sum.saturating_add(size);
    chunks.iter().map(of_chunk).fold(0, sum)
}

/// Adds the bits of a piece that say which values are there, once some are not.
fn take_validity(unit: &mut Unit, data: &ArrayData) {
    let nulls = data.nulls().filter(|nulls| nulls.null_count() > 0);
    if let Some(nulls) = nulls {
        let before = unit.done as usize;
        let builder = unit.validity.get_or_insert_with(|| {
            let mut builder = BooleanBufferBuilder::new(before + data.len());
            builder.append_n(before, true);
            builder
        });
        builder.append_buffer(nulls.inner());
    } else if let Some(builder) = &mut unit.validity {
        builder.append_n(data.len(), true);
    }
}

/// Bits of parts, one after the other. Those that are not there are all ones.
fn joined<'a>(
    parts: &[Part],
    bits: impl Iterator<Item = Option<&'a BooleanBuffer>>,
) -> BooleanBuffer {
    let rows: u64 = parts.iter().map(|part| part.count).sum();
    let mut builder = BooleanBufferBuilder::new(rows as usize);
    for (part, bits) in parts.iter().zip(bits) {
        match bits {
            Some(bits) => builder.append_buffer(bits),
            None => builder.append_n(part.count as usize, true),
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::StringArray;

    use super::*;
    use crate::config::Config;

    #[test]
    fn texts_follow_each_other_whoever_comes_first() {
        let config = Config {
            gpu_device: crate::config::DEVICE_HOST,
            ..Config::default()
        };
        let context = Context::open(config).expect("a host context");
        let texts: Vec<String> = (0..60).map(|i| "ab".repeat(i * i)).collect();
        let part = |at: usize| {
            let own: StringArray = texts[at * 20..][..20].iter().map(Some).collect();
            Arc::new(own) as ArrayRef
        };
        let values = context.alloc(MemoryKind::Device, 4096).expect("memory");
        context.upload(&[(&[0; 4], &values, 0)]).expect("a zero");
        let straight = Straight {
            context: &context,
            kind: Kind::Texts(4),
            data_type: DataType::Utf8,
            rows: 60,
            starts: vec![0, 20, 40],
            values,
            bitmap_at: 256,
            limit: 1 << 20,
            bits: Mutex::new(vec![PartBits::default(); 3]),
            turn: AtomicUsize::new(0),
            texts: Mutex::default(),
        };
        let take = |unit: &mut Unit, from: usize, count: usize| {
            let piece = part(unit.part).slice(from, count);
            straight.take(unit, &piece, 20).expect("room");
        };
        let [mut first, mut second, mut third] = [0, 1, 2].map(|part| straight.begin(part));
        take(&mut third, 0, 20);
        take(&mut second, 0, 7);
        take(&mut first, 0, 20);
        straight.end(third).expect("held");
        straight.end(first).expect("placed");
        take(&mut second, 7, 13);
        straight.end(second).expect("placed");
        let parts = [0, 1, 2].map(|row_group| Part {
            row_group,
            rows: None,
            count: 20,
        });
        let array = straight.finish(&parts).expect("there").expect("short");
        let bring = |at: usize| {
            let slice = array.buffers[at].as_ref().expect("a buffer");
            let mut bytes = vec![0; slice.size as usize];
            let got = context.download(&slice.buffer, slice.offset, &mut bytes);
            got.map(|()| bytes).expect("it comes back")
        };
        assert_eq!(bring(2), texts.concat().as_bytes());
        let mut end = 0;
        for (offset, text) in bring(1)
            .as_chunks::<4>()
            .0
            .iter()
            .zip([""].into_iter().chain(texts.iter().map(String::as_str)))
        {
            end += text.len();
            assert_eq!(u32::from_le_bytes(*offset) as usize, end);
        }
    }
}
