//! Arrays one after the other, as one: a dictionary and what was added to it. Rare, and small; so
//! the host does it, by the official crate, which checks every value on the way.

use arrow_array::{ArrayRef, make_array};
use arrow_buffer::{BooleanBuffer, Buffer as HostBuffer, MutableBuffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};

use super::body::ALIGN;
use crate::base::align_up;
use crate::engine::{Buffer, Context, MemoryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Slice};

/// All values of some arrays of one type, as one array.
pub(super) fn join(context: &Context, mut parts: Vec<Array>) -> Result<Array> {
    if let [_] = parts.as_slice()
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    let arrays = parts
        .iter()
        .map(|part| Ok(make_array(to_host(context, part)?)))
        .collect::<Result<Vec<ArrayRef>>>()?;
    let borrowed: Vec<_> = arrays.iter().map(AsRef::as_ref).collect();
    let joined = arrow_select::concat::concat(&borrowed).map_err(|why| fault(&why))?;
    to_device(context, &joined.to_data())
}

fn fault(why: &ArrowError) -> Error {
    let text = format!("the parts of a dictionary do not fit together: {why}");
    Error::new(ErrorKind::Corrupted, text)
}

/// The array in ordinary memory, every value of it checked.
///
/// # Errors
/// `Corrupted` for values that contradict each other; what the device says.
pub fn to_host(context: &Context, array: &Array) -> Result<ArrayData> {
    let mut buffers = array
        .buffers
        .iter()
        .map(|slice| {
            slice
                .as_ref()
                .map(|slice| download(context, slice))
                .transpose()
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter();
    let has_validity = !matches!(
        array.data_type,
        DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..)
    );
    let validity = if has_validity {
        buffers.next().flatten()
    } else {
        None
    };
    let inner = array.children.iter().chain(array.dictionary.as_deref());
    let children = inner
        .map(|child| to_host(context, child))
        .collect::<Result<Vec<_>>>()?;
    let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    ArrayData::try_new(
        array.data_type.clone(),
        size(array.len),
        validity,
        size(array.offset),
        buffers.map(Option::unwrap_or_default).collect(),
        children,
    )
    .map_err(|why| {
        let text = format!(
            "values of type {} contradict each other: {why}",
            array.data_type
        );
        Error::new(ErrorKind::Corrupted, text)
    })
}

fn download(context: &Context, slice: &Slice) -> Result<HostBuffer> {
    let size = usize::try_from(slice.size).unwrap_or(usize::MAX);
    let mut bytes = MutableBuffer::from_len_zeroed(size);
    context.download(&slice.buffer, slice.offset, bytes.as_slice_mut())?;
    Ok(bytes.into())
}

/// An array of ordinary memory, in an allocation on the device.
fn to_device(context: &Context, data: &ArrayData) -> Result<Array> {
    let mut bytes = Vec::new();
    let layout = Layout::new(data, &mut bytes)?;
    let size = bytes
        .last()
        .map_or(ALIGN, |(at, buffer): &(u64, HostBuffer)| {
            *at + buffer.len() as u64
        });
    let size = align_up(size.max(1), ALIGN).unwrap_or(size);
    let memory = context.alloc(MemoryKind::Device, size)?;
    let parts: Vec<_> = bytes
        .iter()
        .map(|(at, buffer)| (buffer.as_slice(), &memory, *at))
        .collect();
    context.upload(&parts)?;
    Ok(layout.array(&memory))
}

/// An array whose buffers have places.
struct Layout {
    data_type: DataType,
    len: usize,
    offset: usize,
    nulls: usize,
    /// Offset and size.
    buffers: Vec<Option<(u64, u64)>>,
    children: Vec<Layout>,
}

impl Layout {
    fn new(data: &ArrayData, bytes: &mut Vec<(u64, HostBuffer)>) -> Result<Self> {
        let mut buffers = Vec::new();
        let has_validity = !matches!(
            data.data_type(),
            DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..)
        );
        if has_validity {
            let validity = data.nulls().filter(|nulls| nulls.null_count() > 0);
            let validity = validity.map(|nulls| bitmap(nulls, data.offset()));
            buffers.push(validity.map(|bits| place(bits, bytes)));
        }
        for buffer in data.buffers() {
            buffers.push(Some(place(buffer.clone(), bytes)));
        }
        let nulls = match data.data_type() {
            DataType::Null => data.len(),
            _ => data.null_count(),
        };
        Ok(Self {
            data_type: data.data_type().clone(),
            len: data.len(),
            offset: data.offset(),
            nulls,
            buffers,
            children: data
                .child_data()
                .iter()
                .map(|child| Self::new(child, bytes))
                .collect::<Result<_>>()?,
        })
    }

    fn array(&self, memory: &Buffer) -> Array {
        let slice = |place: &Option<(u64, u64)>| {
            place.map(|(offset, size)| Slice {
                buffer: memory.clone(),
                offset,
                size,
            })
        };
        let mut children: Vec<Array> = self.children.iter().map(|c| c.array(memory)).collect();
        let is_dictionary = matches!(self.data_type, DataType::Dictionary(..));
        let dictionary = if is_dictionary { children.pop() } else { None };
        Array {
            data_type: self.data_type.clone(),
            len: self.len as u64,
            null_count: Some(self.nulls as u64),
            offset: self.offset as u64,
            buffers: self.buffers.iter().map(slice).collect(),
            children,
            dictionary: dictionary.map(Box::new),
        }
    }
}

/// The bits of a validity bitmap, as far from its start as the values are from theirs.
fn bitmap(nulls: &NullBuffer, offset: usize) -> HostBuffer {
    let mut bits = vec![true; offset];
    bits.extend(nulls.iter());
    BooleanBuffer::from(bits).into_inner()
}

fn place(buffer: HostBuffer, bytes: &mut Vec<(u64, HostBuffer)>) -> (u64, u64) {
    let end = bytes
        .last()
        .map_or(0, |(at, buffer)| *at + buffer.len() as u64);
    // Sizes of host memory: their sum cannot pass u64.
    let at = align_up(end, ALIGN).unwrap_or(end);
    let size = buffer.len() as u64;
    bytes.push((at, buffer));
    (at, size)
}
