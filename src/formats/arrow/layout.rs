//! Which buffers of a body an array has, how large they must be, and which are wanted.

use std::path::Path;

use arrow_schema::{DataType, IntervalUnit, UnionMode};

use super::message::{Header, corrupted, unsupported};
use super::schema::Node;
use crate::error::Result;

/// Where the bytes of a buffer come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// It is left out: no value is null.
    Nowhere,
    /// Zeros, for offsets of no values: writers may leave them out, readers want one.
    Zeros,
    /// A wanted buffer, by its number in `Wanted`.
    Body(usize),
}

/// An array of a batch, before its bytes are anywhere.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) data_type: DataType,
    pub(super) len: u64,
    pub(super) nulls: u64,
    pub(super) buffers: Vec<From>,
    pub(super) children: Vec<Planned>,
    /// Which dictionary the keys are of.
    pub(super) dictionary: Option<i64>,
}

/// A buffer that is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    /// Offset in the body.
    pub(super) offset: u64,
    /// Bytes in the body; never 0.
    pub(super) size: u64,
    /// Fewest bytes that the values take.
    pub(super) need: u64,
}

/// Walks the arrays of a batch in the order in which metadata lists them.
pub(super) struct Walk<'a> {
    header: &'a Header,
    path: &'a Path,
    node: usize,
    buffer: usize,
    variadic: usize,
    pub(super) wanted: Vec<Want>,
}

/// Bytes of a value, for types that are a validity bitmap and values.
pub(super) fn width(data_type: &DataType) -> Option<u64> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => 1,
        DataType::Int16 | DataType::UInt16 | DataType::Float16 => 2,
        DataType::Int32
        | DataType::UInt32
        | DataType::Float32
        | DataType::Date32
        | DataType::Time32(_)
        | DataType::Decimal32(..)
        | DataType::Interval(IntervalUnit::YearMonth) => 4,
        DataType::Int64
        | DataType::UInt64
        | DataType::Float64
        | DataType::Date64
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Decimal64(..)
        | DataType::Interval(IntervalUnit::DayTime) => 8,
        DataType::Decimal128(..) | DataType::Interval(IntervalUnit::MonthDayNano) => 16,
        DataType::Decimal256(..) => 32,
        DataType::FixedSizeBinary(width) => u64::try_from(*width).ok()?,
        DataType::Dictionary(keys, _) => return width(keys),
        _ => return None,
    })
}

/// No values of a type: what a dictionary holds that nobody wrote.
pub(super) fn empty(node: &Node) -> Planned {
    let buffers = match &node.data_type {
        DataType::Null | DataType::RunEndEncoded(..) => vec![],
        DataType::Struct(_) | DataType::FixedSizeList(..) => vec![From::Nowhere],
        DataType::Union(_, UnionMode::Sparse) => vec![From::Zeros],
        DataType::Union(_, UnionMode::Dense) => vec![From::Zeros; 2],
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => {
            vec![From::Nowhere, From::Zeros, From::Zeros]
        }
        DataType::ListView(_) | DataType::LargeListView(_) => {
            vec![From::Nowhere, From::Zeros, From::Zeros]
        }
        _ => vec![From::Nowhere, From::Zeros],
    };
    Planned {
        data_type: node.data_type.clone(),
        len: 0,
        nulls: 0,
        buffers,
        children: node.children.iter().map(empty).collect(),
        dictionary: node.dictionary.as_ref().map(|(id, _)| *id),
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(header: &'a Header, path: &'a Path) -> Self {
        Self {
            header,
            path,
            node: 0,
            buffer: 0,
            variadic: 0,
            wanted: Vec::new(),
        }
    }

    /// The next array. Its buffers are noted when it is wanted.
    pub(super) fn array(&mut self, node: &Node, wanted: bool) -> Result<Planned> {
        let Some(&(len, nulls)) = self.header.nodes.get(self.node) else {
            let count = self.header.nodes.len();
            return Err(self.fault(format!("a record batch has only {count} arrays")));
        };
        self.node += 1;
        let data_type = &node.data_type;
        let mut buffers = Vec::new();
        // Types without nulls of their own had a bitmap in version 4, all the same.
        let has_none = matches!(
            data_type,
            DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..)
        );
        let is_skipped = has_none && self.header.is_v4 && *data_type != DataType::Null;
        if is_skipped {
            self.next()?;
            if nulls > 0 {
                let what = "a union with nulls of its own, of Arrow before 1.0, is not read; \
                            write it again with a newer Arrow";
                return Err(unsupported(self.path, self.header.offset, what));
            }
        }
        if !has_none {
            buffers.push(self.validity(len, nulls, wanted)?);
        }
        self.values(data_type, len, wanted, &mut buffers)?;
        let mut children = Vec::with_capacity(node.children.len());
        for child in &node.children {
            children.push(self.array(child, wanted)?);
        }
        self.check_children(data_type, len, &children)?;
        let nulls = match data_type {
            DataType::Null => len,
            _ if has_none => 0,
            _ => nulls,
        };
        Ok(Planned {
            data_type: data_type.clone(),
            len,
            nulls,
            buffers,
            children,
            dictionary: node.dictionary.as_ref().map(|(id, _)| *id),
        })
    }

    /// That nothing is left over: else types and metadata do not belong together.
    pub(super) fn finish(&self) -> Result<()> {
        let header = self.header;
        let over = header.nodes.len() != self.node
            || header.buffers.len() != self.buffer
            || header.variadic.len() != self.variadic;
        if over {
            let what = format!(
                "a record batch has {} arrays in {} buffers; its schema has {} in {}",
                header.nodes.len(),
                header.buffers.len(),
                self.node,
                self.buffer
            );
            return Err(self.fault(what));
        }
        Ok(())
    }

    fn fault(&self, what: impl std::fmt::Display) -> crate::error::Error {
        corrupted(self.path, self.header.offset, what)
    }

    /// Buffers after the validity bitmap.
    fn values(
        &mut self,
        data_type: &DataType,
        len: u64,
        wanted: bool,
        buffers: &mut Vec<From>,
    ) -> Result<()> {
        match data_type {
            DataType::Null
            | DataType::Struct(_)
            | DataType::FixedSizeList(..)
            | DataType::RunEndEncoded(..) => {}
            DataType::Boolean => buffers.push(self.fixed(Some(len.div_ceil(8)), wanted)?),
            DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(..) => {
                buffers.push(self.offsets(len, 4, wanted)?);
            }
            DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) => {
                buffers.push(self.offsets(len, 8, wanted)?);
            }
            DataType::ListView(_) | DataType::LargeListView(_) => {
                let wide = matches!(data_type, DataType::LargeListView(_));
                let need = len.checked_mul(if wide { 8 } else { 4 });
                buffers.push(self.fixed(need, wanted)?);
                buffers.push(self.fixed(need, wanted)?);
            }
            DataType::Union(_, mode) => {
                buffers.push(self.fixed(Some(len), wanted)?);
                if *mode == UnionMode::Dense {
                    buffers.push(self.fixed(len.checked_mul(4), wanted)?);
                }
            }
            DataType::Utf8View | DataType::BinaryView => {
                buffers.push(self.fixed(len.checked_mul(16), wanted)?);
                self.variadic(wanted, buffers)?;
            }
            other => {
                let Some(width) = width(other) else {
                    let what = format!("columns of type {other} are not read");
                    return Err(unsupported(self.path, self.header.offset, what));
                };
                buffers.push(self.fixed(len.checked_mul(width), wanted)?);
            }
        }
        let has_bytes = matches!(
            data_type,
            DataType::Utf8 | DataType::Binary | DataType::LargeUtf8 | DataType::LargeBinary
        );
        if has_bytes {
            buffers.push(self.fixed(Some(0), wanted)?);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(u64, u64)> {
        let Some(&place) = self.header.buffers.get(self.buffer) else {
            let count = self.header.buffers.len();
            return Err(self.fault(format!("a record batch has only {count} buffers")));
        };
        self.buffer += 1;
        Ok(place)
    }

    fn validity(&mut self, len: u64, nulls: u64, wanted: bool) -> Result<From> {
        let (offset, size) = self.next()?;
        // A bitmap without a zero says nothing.
        if nulls == 0 || !wanted {
            return Ok(From::Nowhere);
        }
        self.want(offset, size, len.div_ceil(8))
    }

    fn offsets(&mut self, len: u64, width: u64, wanted: bool) -> Result<From> {
        let (offset, size) = self.next()?;
        if len == 0 || !wanted {
            return Ok(From::Zeros);
        }
        let need = len.checked_add(1).and_then(|n| n.checked_mul(width));
        self.want(offset, size, need.unwrap_or(u64::MAX))
    }

    /// A buffer of so many bytes at least; `None` is more than can be.
    fn fixed(&mut self, need: Option<u64>, wanted: bool) -> Result<From> {
        let (offset, size) = self.next()?;
        if !wanted || (size == 0 && need == Some(0)) {
            return Ok(From::Zeros);
        }
        self.want(offset, size, need.unwrap_or(u64::MAX))
    }

    fn variadic(&mut self, wanted: bool, buffers: &mut Vec<From>) -> Result<()> {
        let Some(&count) = self.header.variadic.get(self.variadic) else {
            return Err(self.fault("a record batch does not say how many buffers its views have"));
        };
        self.variadic += 1;
        // Each takes one of the buffers, so a claim ends where those end.
        for _ in 0..count {
            buffers.push(self.fixed(Some(0), wanted)?);
        }
        Ok(())
    }

    fn want(&mut self, offset: u64, size: u64, need: u64) -> Result<From> {
        // What compressed buffers come to is seen with their bytes.
        let stored = self.header.codec.is_none() || size == 0;
        if stored && size < need {
            let what = format!("a buffer of {size} bytes for values that take {need}");
            return Err(self.fault(what));
        }
        if size == 0 {
            return Ok(From::Zeros);
        }
        self.wanted.push(Want { offset, size, need });
        Ok(From::Body(self.wanted.len() - 1))
    }

    fn check_children(&self, data_type: &DataType, len: u64, children: &[Planned]) -> Result<()> {
        let need = match data_type {
            DataType::Struct(_) | DataType::Union(_, UnionMode::Sparse) => len,
            DataType::FixedSizeList(_, size) => u64::try_from(*size)
                .ok()
                .and_then(|size| size.checked_mul(len))
                .unwrap_or(u64::MAX),
            DataType::RunEndEncoded(..) => {
                return match children {
                    [ends, values] if ends.len <= values.len && ends.nulls == 0 => Ok(()),
                    _ => Err(self.fault("run ends without as many values, or with nulls")),
                };
            }
            _ => 0,
        };
        match children.iter().find(|child| child.len < need) {
            Some(child) => {
                let what = format!(
                    "a child of {data_type} has {} values where {need} are needed",
                    child.len
                );
                Err(self.fault(what))
            }
            None => Ok(()),
        }
    }
}
