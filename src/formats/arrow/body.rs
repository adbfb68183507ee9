//! Where the wanted buffers of a body go in device memory, and how they get there.

use std::path::Path;

use super::codec::{self, Job};
use super::index::Block;
use super::layout::{From, Planned, Want};
use super::message::{Codec, Header, corrupted};
use crate::base::align_up;
use crate::engine::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Plan, Slice, Source};

/// What Arrow asks of buffers, and what GPUs like.
pub(super) const ALIGN: u64 = 64;
/// Unwanted bytes that are read along rather than beginning a new read.
const GAP: u64 = 4096;
/// Reads of at least this many bytes get a place that direct I/O reads without a copy.
const LARGE: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// What reads a batch: ranges of the file and where they go in one allocation, and what is decoded
/// there. Made by [`super::ArrowReader::plan`].
#[derive(Debug, Clone)]
pub struct BatchPlan {
    pub(super) rows: u64,
    pub(super) columns: Vec<Planned>,
    pub(super) plan: Plan,
    pub(super) jobs: Vec<Job>,
    /// Offset and size of each wanted buffer in the allocation.
    places: Vec<(u64, u64)>,
    /// Where `ALIGN` zeros have to be.
    pub(super) zeros: Option<u64>,
    size: u64,
    /// Dictionary messages that it sees.
    pub(super) seen: usize,
    /// Where its message begins.
    pub(super) offset: u64,
}

impl BatchPlan {
    /// Lays out what is wanted of a body.
    pub(super) fn new(
        source: &dyn Source,
        block: &Block,
        header: &Header,
        columns: Vec<Planned>,
        wanted: &[Want],
    ) -> Result<Self> {
        let mut made = Self {
            rows: header.rows,
            columns,
            plan: Plan::new(),
            jobs: Vec::new(),
            places: vec![(0, 0); wanted.len()],
            zeros: None,
            size: 0,
            seen: block.seen,
            offset: block.offset,
        };
        match header.codec {
            None => made.place_stored(block, wanted)?,
            Some(codec) => made.place_compressed(source, block, codec, wanted)?,
        }
        if made.columns.iter().any(needs_zeros) {
            let at = made.end(ALIGN)?;
            made.zeros = Some(at);
            made.size = at + ALIGN;
        }
        made.size = made.end(ALIGN)?;
        Ok(made)
    }

    /// No values, and the zeros that they need.
    pub(super) fn of_nothing(planned: Planned) -> Self {
        Self {
            rows: 0,
            columns: vec![planned],
            plan: Plan::new(),
            jobs: Vec::new(),
            places: Vec::new(),
            zeros: Some(0),
            size: ALIGN,
            seen: 0,
            offset: 0,
        }
    }

    /// Ranges of the file and where they go. What is compressed is not among them.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the allocation.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether buffers have to be decompressed.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn end(&self, align: u64) -> Result<u64> {
        align_up(self.size, align)
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or_else(|| Error::new(ErrorKind::OutOfRange, "a batch that cannot be addressed"))
    }

    /// Buffers go where they stood in the body, so that neighbours are one read, wherever that
    /// leaves them aligned; else each has a read of its own.
    fn place_stored(&mut self, block: &Block, wanted: &[Want]) -> Result<()> {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| wanted.get(*at).map(|want| want.offset));
        // The run so far: offset in the file, bytes, offset in the allocation.
        let mut run: Option<(u64, u64, u64)> = None;
        for at in order {
            let Some(want) = wanted.get(at) else {
                continue;
            };
            let from = block.body + want.offset;
            if let Some((start, size, to)) = &mut run {
                let (distance, end) = (from - *start, *start + *size);
                if distance.is_multiple_of(ALIGN) && from - end <= GAP {
                    *size = distance + want.size;
                    self.set(at, *to + distance, want.size, want.need);
                    continue;
                }
            }
            self.close(run.take())?;
            let to = self.start(from, want.size)?;
            run = Some((from, want.size, to));
            self.set(at, to, want.size, want.need);
        }
        self.close(run)
    }

    /// Notes where a buffer is. What it holds beyond its values is not shown.
    fn set(&mut self, at: usize, to: u64, size: u64, need: u64) {
        if let Some(place) = self.places.get_mut(at) {
            *place = (to, if need > 0 { need.min(size) } else { size });
        }
        self.size = self.size.max(to + size);
    }

    fn close(&mut self, run: Option<(u64, u64, u64)>) -> Result<()> {
        match run {
            Some((from, size, to)) => self.plan.push_at(from, size, to),
            None => Ok(()),
        }
    }

    /// Where a run begins: as far into a page as in the file, when that is aligned.
    fn start(&self, from: u64, size: u64) -> Result<u64> {
        if size < LARGE || !from.is_multiple_of(ALIGN) {
            return self.end(ALIGN);
        }
        let page = self.end(PAGE)?;
        let within = from % PAGE;
        // The page before has room behind what is there already?
        let before = page.checked_sub(PAGE).map(|page| page + within);
        Ok(match before {
            Some(at) if at >= self.size => at,
            _ => page + within,
        })
    }

    fn place_compressed(
        &mut self,
        source: &dyn Source,
        block: &Block,
        codec: Codec,
        wanted: &[Want],
    ) -> Result<()> {
        for (at, want) in wanted.iter().enumerate() {
            let from = block.body + want.offset;
            let length = codec::claimed(source, codec, from, want.size)?;
            let size = length.unwrap_or(want.size - codec::PREFIX);
            if size < want.need {
                let what = format!(
                    "a buffer of {size} bytes for values that take {}",
                    want.need
                );
                return Err(corrupted(source.path(), from, what));
            }
            let to = self.end(ALIGN)?;
            self.set(at, to, size, want.need);
            let data = (from + codec::PREFIX, want.size - codec::PREFIX);
            match length {
                None => self.plan.push_at(data.0, data.1, to)?,
                Some(0) => {}
                Some(size) => self.jobs.push(Job {
                    codec,
                    from: data.0,
                    stored: data.1,
                    size,
                    to,
                }),
            }
        }
        Ok(())
    }

    /// The columns, in memory that holds what the plan says. Dictionaries are found by their ids.
    pub(super) fn arrays(
        &self,
        buffer: &Buffer,
        offset: u64,
        dictionary: &mut dyn FnMut(i64, &Planned) -> Result<Array>,
    ) -> Result<Vec<Array>> {
        let columns = self.columns.iter();
        columns
            .map(|column| self.array(column, buffer, offset, dictionary))
            .collect()
    }

    fn array(
        &self,
        planned: &Planned,
        buffer: &Buffer,
        offset: u64,
        dictionary: &mut dyn FnMut(i64, &Planned) -> Result<Array>,
    ) -> Result<Array> {
        let slice = |at: u64, size: u64| Slice {
            buffer: buffer.clone(),
            offset: offset + at,
            size,
        };
        let place = |from: &From| match from {
            From::Nowhere => None,
            From::Zeros => Some(slice(self.zeros.unwrap_or(0), zeros_of(planned))),
            From::Body(at) => self.places.get(*at).map(|(at, size)| slice(*at, *size)),
        };
        let children = planned.children.iter();
        Ok(Array {
            data_type: planned.data_type.clone(),
            len: planned.len,
            null_count: Some(planned.nulls),
            offset: 0,
            buffers: planned.buffers.iter().map(place).collect(),
            children: children
                .map(|child| self.array(child, buffer, offset, dictionary))
                .collect::<Result<_>>()?,
            dictionary: match planned.dictionary {
                Some(id) => Some(Box::new(dictionary(id, planned)?)),
                None => None,
            },
        })
    }
}

/// A buffer that is not in the file: one offset for no values, else nothing at an address.
fn zeros_of(planned: &Planned) -> u64 {
    use arrow_schema::DataType as T;
    match &planned.data_type {
        T::Utf8 | T::Binary | T::List(_) | T::Map(..) if planned.len == 0 => 4,
        T::LargeUtf8 | T::LargeBinary | T::LargeList(_) if planned.len == 0 => 8,
        _ => 0,
    }
}

fn needs_zeros(planned: &Planned) -> bool {
    planned.buffers.contains(&From::Zeros) || planned.children.iter().any(needs_zeros)
}

/// An error that says which file.
pub(super) fn at(path: &Path, error: Error) -> Error {
    error.with_path(path)
}
