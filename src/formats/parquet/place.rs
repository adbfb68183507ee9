//! Arrays of the processor into the memory of a context, buffer by buffer.

use std::path::Path;

use arrow_array::{Array as _, ArrayRef, new_empty_array};
use arrow_buffer::Buffer as Bytes;
use arrow_data::ArrayData;
use arrow_data::transform::MutableArrayData;
use arrow_schema::DataType;

use super::decode::Decoded;
use super::failure::attempt;
use crate::base::align_up;
use crate::engine::{Buffer, Context, MemoryKind};
use crate::error::Result;
use crate::formats::{Array, Slice, work};

/// What buffers begin at multiples of, bytes.
const ALIGN: u64 = 64;

/// A column as one array in memory of the context.
pub(super) fn place(context: &Context, column: Decoded, path: &Path) -> Result<Array> {
    let data = attempt(path, 0, "join the row groups", || {
        let array = join(column)?;
        normal(array.to_data())
    })?;
    let mut placing = Placing::default();
    placing.measure(&data);
    // Buffers without bytes have an address too.
    let size = placing.size.max(ALIGN);
    let memory = context.alloc(MemoryKind::Device, size)?;
    let mut parts = Vec::new();
    let made = lay(&data, &memory, &mut 0, &mut parts);
    let zeroes = [0; ALIGN as usize];
    let mut uploads: Vec<work::Upload<'_>> = Vec::new();
    for (bytes, offset) in &parts {
        uploads.push((bytes.as_slice(), &memory, *offset));
        let end = offset + bytes.len() as u64;
        let pad = align_up(end, ALIGN).unwrap_or(end) - end;
        uploads.push((&zeroes[..pad as usize], &memory, end));
    }
    work::upload(context, &uploads)?;
    Ok(made)
}

fn join(column: Decoded) -> parquet::errors::Result<ArrayRef> {
    let Decoded { field, mut pieces } = column;
    match pieces.len() {
        0 => Ok(new_empty_array(field.data_type())),
        1 => Ok(pieces.remove(0)),
        _ => {
            let parts: Vec<_> = pieces.iter().map(AsRef::as_ref).collect();
            arrow_select::concat::concat(&parts)
                .map_err(|e| parquet::errors::ParquetError::ArrowError(e.to_string()))
        }
    }
}

/// The same array with offset 0 everywhere, so that its buffers and its bitmap begin with its
/// first value.
fn normal(data: ArrayData) -> parquet::errors::Result<ArrayData> {
    let is_sliced = |data: &ArrayData| {
        data.offset() != 0 || data.nulls().is_some_and(|nulls| nulls.offset() != 0)
    };
    fn any(data: &ArrayData, is: &impl Fn(&ArrayData) -> bool) -> bool {
        is(data) || data.child_data().iter().any(|child| any(child, is))
    }
    if !any(&data, &is_sliced) {
        return Ok(data);
    }
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())
        .map_err(|e| parquet::errors::ParquetError::ArrowError(e.to_string()))?;
    Ok(copy.freeze())
}

/// The buffers of an array, its bitmap first.
fn buffers(data: &ArrayData) -> Vec<Option<Bytes>> {
    let mut all = Vec::new();
    if !matches!(data.data_type(), DataType::Null | DataType::Union(..)) {
        let nulls = data.nulls().filter(|nulls| nulls.null_count() > 0);
        all.push(nulls.map(|nulls| nulls.inner().sliced()));
    }
    all.extend(data.buffers().iter().cloned().map(Some));
    all
}

#[derive(Default)]
struct Placing {
    size: u64,
}

impl Placing {
    fn measure(&mut self, data: &ArrayData) {
        for bytes in buffers(data).into_iter().flatten() {
            self.size += align_up(bytes.len() as u64, ALIGN).unwrap_or(u64::MAX / 2);
        }
        data.child_data()
            .iter()
            .for_each(|child| self.measure(child));
    }
}

/// Gives every buffer its place.
fn lay(data: &ArrayData, memory: &Buffer, at: &mut u64, parts: &mut Vec<(Bytes, u64)>) -> Array {
    let mut take = |bytes: Option<Bytes>| {
        let bytes = bytes?;
        let (offset, size) = (*at, bytes.len() as u64);
        *at += align_up(size, ALIGN).unwrap_or(size);
        parts.push((bytes, offset));
        let buffer = memory.clone();
        Some(Slice {
            buffer,
            offset,
            size,
        })
    };
    let slices = buffers(data).into_iter().map(&mut take).collect();
    let mut children: Vec<Array> = Vec::new();
    for child in data.child_data() {
        children.push(lay(child, memory, at, parts));
    }
    let is_dictionary = matches!(data.data_type(), DataType::Dictionary(..));
    let dictionary = match is_dictionary {
        true => children.pop().map(Box::new),
        false => None,
    };
    Array {
        data_type: data.data_type().clone(),
        len: data.len() as u64,
        null_count: Some(data.null_count() as u64),
        offset: data.offset() as u64,
        buffers: slices,
        children,
        dictionary,
    }
}
