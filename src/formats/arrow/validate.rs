//! Whether values that others trust can be trusted: offsets, sizes, views, keys, type ids, run
//! ends, counts of nulls, UTF-8. Sizes of buffers were checked before; this reads contents.

use arrow_schema::{DataType, UnionMode};

use super::layout::width;
use super::text;
use crate::engine::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Batch, Slice};

/// Bytes that are looked at together: they stay in the processor's cache.
const CHUNK: u64 = 256 << 10;

/// Checks every array of a batch. On a GPU the buffers concerned are read back.
///
/// # Errors
/// `Corrupted`: what is wrong, and in which column; what the device says.
pub fn validate(context: &Context, batch: &Batch) -> Result<()> {
    for (field, column) in batch.schema.fields().iter().zip(&batch.columns) {
        deep(context, column).map_err(|error| {
            let text = format!("column {:?}: {}", field.name(), error.message());
            Error::new(error.kind(), text)
        })?;
    }
    Ok(())
}

fn deep(context: &Context, array: &Array) -> Result<()> {
    own(context, array)?;
    let mut inner = array.children.iter().chain(array.dictionary.as_deref());
    inner.try_for_each(|inner| deep(context, inner))
}

/// As `validate`, but for what dictionaries hold, which was checked when they were loaded.
pub(super) fn shallow(context: &Context, array: &Array) -> Result<()> {
    own(context, array)?;
    let mut children = array.children.iter();
    children.try_for_each(|child| shallow(context, child))
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupted, format!("{what}; the file is damaged"))
}

/// A part of an array's memory, and what is looked for in it.
pub(super) struct Look<'a> {
    pub(super) context: &'a Context,
    pub(super) array: &'a Array,
}

fn own(context: &Context, array: &Array) -> Result<()> {
    let look = Look { context, array };
    look.validity()?;
    if array.len == 0 {
        return Ok(());
    }
    let child = |index: usize| array.children.get(index).map_or(0, |child| child.len);
    match &array.data_type {
        DataType::Utf8 | DataType::Binary => {
            let is_text = array.data_type == DataType::Utf8;
            let end = look.offsets::<4>(1, look.size(2))?;
            if is_text {
                text::of_offsets::<4>(&look, end)
            } else {
                Ok(())
            }
        }
        DataType::LargeUtf8 | DataType::LargeBinary => {
            let is_text = array.data_type == DataType::LargeUtf8;
            let end = look.offsets::<8>(1, look.size(2))?;
            if is_text {
                text::of_offsets::<8>(&look, end)
            } else {
                Ok(())
            }
        }
        DataType::List(_) | DataType::Map(..) => look.offsets::<4>(1, child(0)).map(drop),
        DataType::LargeList(_) => look.offsets::<8>(1, child(0)).map(drop),
        DataType::ListView(_) => look.ranges::<4>(child(0)),
        DataType::LargeListView(_) => look.ranges::<8>(child(0)),
        DataType::Utf8View => text::of_views(&look, true),
        DataType::BinaryView => text::of_views(&look, false),
        DataType::Union(_, mode) => look.union(*mode),
        DataType::RunEndEncoded(..) => look.run_ends(),
        DataType::Dictionary(keys, _) => look.keys(keys),
        _ => Ok(()),
    }
}

impl Look<'_> {
    /// Bytes of a buffer.
    fn size(&self, buffer: usize) -> u64 {
        self.slice(buffer).map_or(0, |slice| slice.size)
    }

    pub(super) fn slice(&self, buffer: usize) -> Option<&Slice> {
        self.array.buffers.get(buffer)?.as_ref()
    }

    /// Gives values of N bytes to `visit`, with their numbers, many at a time.
    pub(super) fn values<const N: usize>(
        &self,
        slice: &Slice,
        from: u64,
        count: u64,
        mut visit: impl FnMut(u64, &[[u8; N]]) -> Result<()>,
    ) -> Result<()> {
        let most = CHUNK / N as u64;
        let mut bytes = Vec::new();
        let mut done = 0;
        while done < count {
            let now = (count - done).min(most);
            bytes.resize((now * N as u64) as usize, 0);
            let offset = slice.offset + (from + done) * N as u64;
            self.context.download(&slice.buffer, offset, &mut bytes)?;
            visit(done, bytes.as_chunks().0)?;
            done += now;
        }
        Ok(())
    }

    /// The bits of the validity bitmap as bytes in ordinary memory; none: all are valid.
    pub(super) fn valid(&self) -> Result<Option<Vec<u8>>> {
        let Some(slice) = self.slice(0) else {
            return Ok(None);
        };
        let bits = self.array.offset + self.array.len;
        let size = bits.div_ceil(8).min(slice.size);
        let mut bytes = vec![0; size as usize];
        self.context
            .download(&slice.buffer, slice.offset, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// As many zeros as nulls.
    fn validity(&self) -> Result<()> {
        let has_validity = !matches!(
            self.array.data_type,
            DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..)
        );
        let (Some(nulls), true) = (self.array.null_count, has_validity) else {
            return Ok(());
        };
        let Some(slice) = self.slice(0) else {
            return match nulls {
                0 => Ok(()),
                _ => Err(wrong(format!("{nulls} nulls without a bitmap"))),
            };
        };
        let (len, offset) = (self.array.len, self.array.offset);
        let mut ones = 0;
        let bytes = (offset + len).div_ceil(8);
        self.values::<1>(slice, 0, bytes, |at, values| {
            for (index, [byte]) in values.iter().enumerate() {
                let first = (at + index as u64) * 8;
                let mut byte = u64::from(*byte);
                // Bits before the first value and behind the last one say nothing.
                byte &= u64::MAX << offset.saturating_sub(first).min(8);
                byte &= (1 << (offset + len - first).min(8)) - 1;
                ones += u64::from(byte.count_ones());
            }
            Ok(())
        })?;
        if ones + nulls != len {
            let what = format!("{nulls} nulls were claimed among {len} values; {ones} are none");
            return Err(wrong(what));
        }
        Ok(())
    }

    /// Offsets do not fall and do not pass `limit`. The first and the last one.
    fn offsets<const N: usize>(&self, buffer: usize, limit: u64) -> Result<(u64, u64)> {
        let Some(slice) = self.slice(buffer) else {
            return Err(wrong("offsets that are not there"));
        };
        let (mut first, mut last) = (None, 0);
        let (from, count) = (self.array.offset, self.array.len + 1);
        self.values::<N>(slice, from, count, |at, values| {
            let mut falls = false;
            let mut before = last;
            for value in values {
                let value = unsigned(value);
                falls |= value < before;
                before = value;
            }
            first = first.or_else(|| values.first().map(unsigned));
            last = before;
            match falls {
                true => Err(wrong(format!("offsets fall near value {at}"))),
                false => Ok(()),
            }
        })?;
        // Negative ones are large here.
        if last > limit {
            let what = format!("offsets go to {last}, and there are {limit}");
            return Err(wrong(what));
        }
        Ok((first.unwrap_or(0), last))
    }

    /// Offsets and sizes of lists lie among the values.
    fn ranges<const N: usize>(&self, limit: u64) -> Result<()> {
        let (Some(offsets), Some(sizes)) = (self.slice(1), self.slice(2)) else {
            return Err(wrong("offsets or sizes that are not there"));
        };
        let mut of_chunk = Vec::new();
        let start = self.array.offset;
        self.values::<N>(offsets, start, self.array.len, |at, from| {
            of_chunk.clear();
            let (first, count) = (start + at, from.len() as u64);
            self.values::<N>(sizes, first, count, |_, values| {
                of_chunk.extend(values.iter().map(unsigned));
                Ok(())
            })?;
            for (from, size) in from.iter().zip(&of_chunk) {
                let end = unsigned(from).checked_add(*size);
                if end.is_none_or(|end| end > limit) {
                    let from = unsigned(from);
                    let what = format!("a list of {size} at {from}, and there are {limit}");
                    return Err(wrong(what));
                }
            }
            Ok(())
        })
    }

    /// Type ids are those of the type; offsets lie in the child that they are of.
    fn union(&self, mode: UnionMode) -> Result<()> {
        let DataType::Union(fields, _) = &self.array.data_type else {
            return Ok(());
        };
        let mut lengths = [None; 128];
        for ((id, _), child) in fields.iter().zip(&self.array.children) {
            if let Some(place) = usize::try_from(id).ok().and_then(|id| lengths.get_mut(id)) {
                *place = Some(child.len);
            }
        }
        let Some(ids) = self.slice(0) else {
            return Err(wrong("type ids that are not there"));
        };
        let start = self.array.offset;
        self.values::<1>(ids, start, self.array.len, |at, ids| {
            let known = |[id]: &[u8; 1]| lengths.get(usize::from(*id)).copied().flatten();
            if let Some([id]) = ids.iter().find(|id| known(id).is_none()) {
                return Err(wrong(format!("type {id} of a union that has no such type")));
            }
            let (UnionMode::Dense, Some(offsets)) = (mode, self.slice(1)) else {
                return Ok(());
            };
            let mut ids = ids.iter();
            self.values::<4>(offsets, start + at, ids.len() as u64, |_, offsets| {
                for (offset, id) in offsets.iter().zip(ids.by_ref()) {
                    let (offset, limit) = (unsigned(offset), known(id).unwrap_or(0));
                    if offset >= limit {
                        let what = format!("value {offset} of a union's {limit}");
                        return Err(wrong(what));
                    }
                }
                Ok(())
            })
        })
    }

    /// Run ends rise from above 0 to the length at least.
    fn run_ends(&self) -> Result<()> {
        let Some(ends) = self.array.children.first() else {
            return Err(wrong("run ends that are not there"));
        };
        let look = Look {
            context: self.context,
            array: ends,
        };
        let last = match ends.data_type {
            DataType::Int16 => look.rising::<2>()?,
            DataType::Int32 => look.rising::<4>()?,
            _ => look.rising::<8>()?,
        };
        let due = self.array.offset + self.array.len;
        if last < due {
            return Err(wrong(format!("runs end at {last} of {due}")));
        }
        Ok(())
    }

    fn rising<const N: usize>(&self) -> Result<u64> {
        let mut last = 0;
        let Some(slice) = self.slice(1) else {
            return Ok(0);
        };
        let (from, count) = (self.array.offset, self.array.len);
        self.values::<N>(slice, from, count, |at, values| {
            for value in values {
                let value = signed(value);
                if value <= last {
                    return Err(wrong(format!("run ends do not rise near run {at}")));
                }
                last = value;
            }
            Ok(())
        })?;
        Ok(last as u64)
    }

    /// Keys of values that are not null are those of the dictionary.
    fn keys(&self, keys: &DataType) -> Result<()> {
        let limit = self
            .array
            .dictionary
            .as_ref()
            .map_or(0, |values| values.len);
        match width(keys) {
            Some(1) => self.keys_of::<1>(limit),
            Some(2) => self.keys_of::<2>(limit),
            Some(4) => self.keys_of::<4>(limit),
            _ => self.keys_of::<8>(limit),
        }
    }

    fn keys_of<const N: usize>(&self, limit: u64) -> Result<()> {
        let Some(slice) = self.slice(1) else {
            return Err(wrong("keys that are not there"));
        };
        let mut valid = None;
        let start = self.array.offset;
        self.values::<N>(slice, start, self.array.len, |at, values| {
            // Negative ones are large here.
            if values.iter().all(|value| unsigned(value) < limit) {
                return Ok(());
            }
            if valid.is_none() {
                valid = self.valid()?;
            }
            for (index, value) in values.iter().enumerate() {
                let key = unsigned(value);
                if key >= limit && is_valid(valid.as_deref(), start + at + index as u64) {
                    let what = format!("key {key} of a dictionary of {limit} values");
                    return Err(wrong(what));
                }
            }
            Ok(())
        })
    }
}

/// Whether a bit is set; without a bitmap all are.
pub(super) fn is_valid(bits: Option<&[u8]>, index: u64) -> bool {
    let byte = |bits: &[u8]| bits.get((index / 8) as usize).copied().unwrap_or(0);
    bits.is_none_or(|bits| byte(bits) >> (index % 8) & 1 == 1)
}

/// A little-endian integer.
pub(super) fn unsigned<const N: usize>(bytes: &[u8; N]) -> u64 {
    let mut wide = [0; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(wide)
}

fn signed<const N: usize>(bytes: &[u8; N]) -> i64 {
    let shift = 64 - 8 * N as u32;
    (unsigned(bytes) << shift) as i64 >> shift
}

pub(super) fn wrong_value(what: impl std::fmt::Display) -> Error {
    wrong(what)
}
