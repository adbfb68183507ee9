//! Columns in memory of a context, in the layout of Arrow.

use std::sync::Arc;

use arrow_schema::{DataType, Schema};

use crate::engine::Buffer;

/// A part of a buffer. Keeps the buffer.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The memory.
    pub buffer: Buffer,
    /// Offset there, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl Slice {
    /// The address of its first byte: a device pointer for device memory.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.buffer.address() + self.offset
    }
}

/// An array in the layout of Arrow (arrow.apache.org/docs/format/Columnar.html): buffers in the
/// order of its type, `None` for a validity bitmap that is left out. Buffers begin at multiples of
/// 64 bytes and are readable to the next one.
#[derive(Debug, Clone)]
pub struct Array {
    /// Its type.
    pub data_type: DataType,
    /// Values, nulls included.
    pub len: u64,
    /// Nulls; `None` when nobody counted.
    pub null_count: Option<u64>,
    /// Values of the buffers before the first one of this array.
    pub offset: u64,
    /// Its buffers.
    pub buffers: Vec<Option<Slice>>,
    /// Arrays that it is made of.
    pub children: Vec<Array>,
    /// What its keys stand for, when the type is a dictionary.
    pub dictionary: Option<Box<Array>>,
}

/// Columns of one length.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Names and types.
    pub schema: Arc<Schema>,
    /// Values of each column.
    pub rows: u64,
    /// A column a field of the schema.
    pub columns: Vec<Array>,
}
