//! Columns whose pieces go to their place as soon as they are decoded, whoever decodes them.
//!
//! A piece is small enough for the cache of a core, so that copying it costs little, and memory is
//! taken once: where the column ends up. That is known before for values of one width, and as soon
//! as the row groups before are counted for texts (`texts`). Bits of row groups that share a byte
//! are put together there (`bits`).

use std::ops::Range;

use arrow_array::{Array as _, ArrayRef};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_data::ArrayData;
use arrow_schema::{DataType, FieldRef};
use parking_lot::Mutex;

use super::bits::Bits;
use super::chunks::Chunk;
use super::reader::Parquet;
use super::select::Part;
use super::texts::{self, End, Texts};
use crate::base::align_up;
use crate::engine::{Buffer, Context, MemoryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::work::Upload;
use crate::formats::{Array, Slice};

/// What buffers begin at multiples of, bytes.
pub(super) const ALIGN: u64 = 64;
/// Bytes of values that are decoded at once.
const PIECE: usize = 128 << 10;
/// As `PIECE`, where a copy to the device has to begin and to be waited for.
const PIECE_AWAY: usize = 256 << 10;
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
    /// The first row of each part, and the one behind the last.
    starts: Vec<u64>,
    /// Values or offsets, then room for the bitmap.
    values: Buffer,
    bits: Bits<'a>,
    bitmap_at: u64,
    validity: Bits<'a>,
    /// Nulls of each part that has some.
    nulls: Mutex<Vec<Option<u64>>>,
    texts: Option<Texts<'a>>,
}

/// What one thread knows of the part that it decodes.
pub(super) struct Unit {
    part: usize,
    done: u64,
    validity: Option<BooleanBufferBuilder>,
    values: Option<BooleanBufferBuilder>,
    texts: Option<texts::Own>,
}

/// What became of a column.
pub(super) enum Made {
    Array(Array),
    /// Its texts pass offsets of 32 bits.
    TooLong,
    /// Its texts are not as long as the file says. Without that they can be decoded.
    ToldWrong,
}

impl<'a> Straight<'a> {
    /// `None` when a column cannot go this way: it is nested or a dictionary, or its pages have
    /// not the rows that the metadata say. What they say of texts is believed when `trusts` says
    /// so.
    pub fn new(
        context: &'a Context,
        parquet: &Parquet,
        field: &FieldRef,
        parts: &[Part],
        chunks: &[&Chunk],
        (limit, trusts): (u64, bool),
    ) -> Result<Option<Self>> {
        let Some(kind) = kind_of(field.data_type()) else {
            return Ok(None);
        };
        let fits = |(part, chunk): (&Part, &&Chunk)| part.count <= chunk.values();
        if chunks.len() != parts.len() || !parts.iter().zip(chunks).all(fits) {
            return Ok(None);
        }
        let mut rows = 0u64;
        let mut starts = vec![0];
        for part in parts {
            rows = rows.saturating_add(part.count);
            starts.push(rows);
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
        let values = context.alloc(MemoryKind::Device, total.max(ALIGN))?;
        // The first offset of texts.
        context.upload(&[(&[0; 8], &values, 0), pad(&values, size)])?;
        let texts = match kind {
            Kind::Texts(width) => {
                let how = (width, &values, limit);
                Some(Texts::new(context, parquet, parts, chunks, how, trusts))
            }
            Kind::Bits | Kind::Fixed(_) => None,
        };
        Ok(Some(Self {
            bits: Bits::new(context, &values, 0),
            validity: Bits::new(context, &values, bitmap_at),
            values,
            context,
            kind,
            data_type: field.data_type().clone(),
            starts,
            bitmap_at,
            nulls: Mutex::new(vec![None; parts.len()]),
            texts,
        }))
    }

    /// Rows that are decoded into one piece, when not more than `most` may be.
    pub fn rows_at_once(&self, most: usize) -> usize {
        let piece = match self.context.device().is_host() {
            true => PIECE,
            false => PIECE_AWAY,
        };
        let rows = match self.kind {
            Kind::Bits => ROWS_MAX,
            Kind::Fixed(width) => (piece / width).max(256),
            Kind::Texts(_) => ROWS_MAX / 4,
        };
        rows.min(most).clamp(1, ROWS_MAX)
    }

    fn rows_of(&self, part: usize) -> Range<u64> {
        self.starts[part]..self.starts[part + 1]
    }

    pub fn begin(&self, part: usize) -> Unit {
        Unit {
            part,
            done: 0,
            validity: None,
            values: None,
            texts: self.texts.as_ref().map(|texts| texts.begin(part)),
        }
    }

    /// Takes the next piece of a part.
    pub fn take(&self, unit: &mut Unit, piece: &ArrayRef) -> Result<()> {
        let rows = piece.len() as u64;
        if piece.data_type() != &self.data_type {
            let (is, due) = (piece.data_type(), &self.data_type);
            let text = format!("a column was decoded as {is} instead of {due}");
            return Err(Error::new(ErrorKind::Internal, text));
        }
        let all = self.rows_of(unit.part);
        let first = all.start + unit.done;
        // Too many rows: whoever counts them will say so.
        if first + rows > all.end {
            return Ok(());
        }
        let data = piece.to_data();
        take_validity(unit, &data, all.start);
        match self.kind {
            Kind::Bits => {
                let bits = BooleanBuffer::new(data.buffers()[0].clone(), data.offset(), data.len());
                let builder = unit.values.get_or_insert_with(|| Bits::builder(all.start));
                builder.append_buffer(&bits);
            }
            Kind::Fixed(width) => {
                let from = data.offset() * width;
                let bytes = &data.buffers()[0].as_slice()[from..from + data.len() * width];
                let to = first * width as u64;
                self.context.upload(&[(bytes, &self.values, to)])?;
            }
            Kind::Texts(_) => {
                if let Some((texts, own)) = self.texts.as_ref().zip(unit.texts.as_mut()) {
                    texts.take(own, data)?;
                }
            }
        }
        unit.done += rows;
        Ok(())
    }

    /// Ends a part, all of whose pieces were taken.
    pub fn end(&self, unit: Unit) -> Result<()> {
        let rows = self.rows_of(unit.part);
        if let Some(mut builder) = unit.validity {
            let bits = builder.finish();
            let there = bits.count_set_bits() as u64;
            self.nulls.lock()[unit.part] = Some((rows.end - rows.start).saturating_sub(there));
            self.validity.put(rows.clone(), bits.inner().as_slice())?;
        }
        if let Some(mut builder) = unit.values {
            let bits = builder.finish();
            self.bits.put(rows, bits.inner().as_slice())?;
        }
        match self.texts.as_ref().zip(unit.texts) {
            Some((texts, own)) => texts.end(own),
            None => Ok(()),
        }
    }

    /// Texts whose place is known, and which are not there.
    pub fn texts(&self) -> Option<&Texts<'a>> {
        self.texts.as_ref().filter(|texts| texts.waiting() > 0)
    }

    /// The column, all of whose parts have ended and whose texts do not wait.
    pub fn finish(self) -> Result<Made> {
        let rows = self.starts.last().copied().unwrap_or(0);
        let size = rows.div_ceil(8);
        let slice = |offset: u64, size: u64| {
            let buffer = self.values.clone();
            Some(Slice {
                buffer,
                offset,
                size,
            })
        };
        let mut buffers = vec![None];
        let found = self.nulls.lock();
        let nulls = found.iter().flatten().sum();
        if found.iter().any(Option::is_some) {
            let without = found
                .iter()
                .enumerate()
                .filter(|(_, nulls)| nulls.is_none());
            self.validity
                .ones(without.map(|(part, _)| self.rows_of(part)))?;
            self.validity.end(rows)?;
            buffers[0] = slice(self.bitmap_at, size);
        }
        drop(found);
        match self.kind {
            Kind::Bits => {
                self.bits.end(rows)?;
                buffers.push(slice(0, size));
            }
            Kind::Fixed(width) => buffers.push(slice(0, rows * width as u64)),
            Kind::Texts(width) => buffers.push(slice(0, (rows + 1) * width as u64)),
        }
        if let Some(texts) = self.texts {
            match texts.finish()? {
                End::Texts(texts) => buffers.push(texts.or_else(|| slice(0, 0))),
                End::TooLong => return Ok(Made::TooLong),
                End::ToldWrong => return Ok(Made::ToldWrong),
            }
        }
        Ok(Made::Array(Array {
            data_type: self.data_type,
            len: rows,
            null_count: Some(nulls),
            offset: 0,
            buffers,
            children: Vec::new(),
            dictionary: None,
        }))
    }
}

/// Zeros from the end of a buffer of an array to the next place for one.
pub(super) fn pad(memory: &Buffer, end: u64) -> Upload<'_> {
    let size = align_up(end, ALIGN).unwrap_or(end) - end;
    (&[0; ALIGN as usize][..size as usize], memory, end)
}

/// Adds the bits of a piece that say which values are there, once some are not.
fn take_validity(unit: &mut Unit, data: &ArrayData, first: u64) {
    let nulls = data.nulls().filter(|nulls| nulls.null_count() > 0);
    if let Some(nulls) = nulls {
        let before = unit.done as usize;
        let builder = unit.validity.get_or_insert_with(|| {
            let mut builder = Bits::builder(first);
            builder.append_n(before, true);
            builder
        });
        builder.append_buffer(nulls.inner());
    } else if let Some(builder) = &mut unit.validity {
        builder.append_n(data.len(), true);
    }
}
