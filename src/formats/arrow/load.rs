//! Batches into device memory: bodies as they are, straight from the file; what is compressed is
//! decompressed there, or on its way through the host.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_schema::Schema;

use super::body::{self, BatchPlan};
use super::codec::{Job, Lot};
use super::layout::{self, Planned};
use super::message::corrupted;
use super::reader::ArrowReader;
use super::unpack::{self, Packed, Unpack};
use super::{codec, join, validate};
use crate::base::align_up;
use crate::engine::{Buffer, Context, File, MemoryKind, Operation, Options, Ticket, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Batch, Piece, Source, work};

/// Where batches begin that share an allocation: as direct reads want it.
const PAGE: u64 = 4096;

/// How batches are loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Whether to look at the values that others trust: offsets, views, keys, run ends, UTF-8.
    /// `None`: on the host device, whose consumers read them. On a GPU it reads those buffers
    /// back; without it, kernels must not trust offsets of a file that may be damaged.
    pub validate: Option<bool>,
    /// Batches that are on their way while one is looked at.
    pub ahead: usize,
    /// Bytes of an allocation that batches share, for those that are smaller: large allocations
    /// are had sooner than many small ones. What holds one batch holds all of them. 0: each batch
    /// has its own.
    pub allocation: u64,
    /// Where compressed buffers are decompressed.
    pub unpack: Unpack,
    /// How bytes are moved.
    pub options: Options,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            validate: None,
            ahead: 2,
            allocation: 0,
            unpack: Unpack::default(),
            options: Options::default(),
        }
    }
}

impl LoadOptions {
    pub(super) fn validates(&self, context: &Context) -> bool {
        self.validate.unwrap_or(context.device().is_host())
    }
}

/// Batches of a file, one after the other, each in an allocation of its own unless the options say
/// otherwise. A few are on their way ahead of the one that was asked for; memory is that of those
/// and of the dictionaries.
#[derive(Debug)]
pub struct Batches {
    reader: ArrowReader,
    context: Context,
    columns: Vec<usize>,
    schema: Arc<Schema>,
    left: Range<usize>,
    load: LoadOptions,
    flights: VecDeque<Flight>,
    /// The allocation that batches share, and what of it is taken.
    shared: Option<(Buffer, u64)>,
    dictionaries: Dictionaries,
    failed: bool,
}

/// A batch on its way.
#[derive(Debug)]
struct Flight {
    plan: BatchPlan,
    buffer: Buffer,
    /// Where it begins in the buffer.
    base: u64,
    ticket: Option<Ticket>,
    /// What the device decompresses.
    packed: Option<Packed>,
    /// What the host decompresses.
    left: Vec<Job>,
    /// Why that went wrong.
    fault: Option<Error>,
}

/// Dictionaries that are in device memory, with the messages that they are made of.
#[derive(Debug, Default)]
struct Dictionaries(HashMap<i64, (Vec<usize>, Array)>);

impl Batches {
    pub(super) fn new(
        reader: &ArrowReader,
        context: &Context,
        columns: Vec<usize>,
        batches: Range<usize>,
        load: &LoadOptions,
    ) -> Result<Self> {
        Ok(Self {
            schema: reader.schema_of(&columns)?,
            reader: reader.clone(),
            context: context.clone(),
            columns,
            left: batches,
            load: load.clone(),
            flights: VecDeque::new(),
            shared: None,
            dictionaries: Dictionaries::default(),
            failed: false,
        })
    }

    /// Names and types of the columns.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The next batch; none after the last one, or after an error.
    ///
    /// # Errors
    /// `Corrupted` with an offset, `NotSupported`, `FileChanged`, and what memory and the file say.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        if self.failed {
            return Ok(None);
        }
        let result = self.advance();
        self.failed = result.is_err();
        result.map_err(|error| body::at(self.reader.path(), error))
    }

    fn advance(&mut self) -> Result<Option<Batch>> {
        while self.flights.len() <= self.load.ahead
            && self.packed_bytes() < unpack::AHEAD_BYTES
            && let Some(index) = self.left.next()
        {
            let plan = self.reader.plan(index, &self.columns)?;
            let together = (self.flights.len() + 1 + self.left.len()).min(self.load.ahead + 1);
            let rest = self.left.len() as u64 + 1;
            let flight = self.start(plan, together as u64, rest)?;
            self.flights.push_back(flight);
        }
        if let Some(first) = self.flights.front()
            && first.packed.is_some()
        {
            unpack_all(&self.context, self.reader.source(), &mut self.flights)?;
        }
        if self.flights.front().is_some_and(|f| !f.left.is_empty()) {
            decode_all(&self.context, self.reader.source(), &mut self.flights);
        }
        let Some(flight) = self.flights.pop_front() else {
            return Ok(None);
        };
        let (rows, offset) = (flight.plan.rows, flight.plan.offset);
        let columns = self.finish(flight)?;
        self.checked(columns, rows, offset).map(Some)
    }

    fn checked(&self, columns: Vec<Array>, rows: u64, offset: u64) -> Result<Batch> {
        if self.load.validates(&self.context) {
            for column in &columns {
                validate::shallow(&self.context, column)
                    .map_err(|error| error.with_offset(offset))?;
            }
        }
        Ok(Batch {
            schema: self.schema.clone(),
            rows,
            columns,
        })
    }

    /// The batch of a plan whose ranges were read to `offset` of a buffer: what is compressed is
    /// decoded there, dictionaries are loaded into memory of their own.
    pub(super) fn batch_in(
        &mut self,
        plan: &BatchPlan,
        buffer: &Buffer,
        offset: u64,
    ) -> Result<Batch> {
        let end = offset.checked_add(plan.size());
        if end.is_none_or(|end| end > buffer.size()) {
            let text = format!(
                "a batch of {} bytes at {offset} passes the end of a buffer of {}",
                plan.size(),
                buffer.size()
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        if !(buffer.address() + offset).is_multiple_of(body::ALIGN) {
            let text = "a batch begins at a multiple of 64 bytes; choose another offset";
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        zero(&self.context, plan, (buffer, offset))?;
        let from = (self.reader.source(), self.reader.file());
        let how = (self.load.unpack, &self.load.options);
        unpack::all(&self.context, from, plan, (buffer, offset), how)?;
        let columns = plan.arrays(buffer, offset, &mut |id, keys| {
            self.dictionary(id, plan.seen, keys)
        })?;
        self.checked(columns, plan.rows, plan.offset)
    }

    /// Compressed bytes that are in device memory.
    fn packed_bytes(&self) -> u64 {
        let packed = self.flights.iter().filter_map(|f| f.packed.as_ref());
        packed.map(Packed::size).sum()
    }

    /// Begins to read a batch, of which `together` like it will be decompressed at once, the first
    /// of `rest` like it.
    fn start(&mut self, plan: BatchPlan, together: u64, rest: u64) -> Result<Flight> {
        let (buffer, base) = self.memory(&plan, rest)?;
        let mut ticket = None;
        if !plan.plan.pieces().is_empty() {
            match self.reader.file() {
                Some(file) => ticket = Some(self.submit(&plan, file, (&buffer, base))?),
                None => {
                    let source = self.reader.source();
                    work::bring(&self.context, source, &plan.plan, (&buffer, base))?;
                }
            }
        }
        let from = (self.reader.source(), self.reader.file());
        let how = (self.load.unpack, together);
        let packed = unpack::start(&self.context, from, &plan.jobs, how, &self.load.options)?;
        Ok(Flight {
            left: match packed {
                Some(_) => Vec::new(),
                None => plan.jobs.clone(),
            },
            plan,
            buffer,
            base,
            ticket,
            packed,
            fault: None,
        })
    }

    /// Memory for the first of `rest` batches like this one: where it begins.
    fn memory(&mut self, plan: &BatchPlan, rest: u64) -> Result<(Buffer, u64)> {
        let size = plan.size();
        let each = align_up(size, PAGE).unwrap_or(size);
        let all = each.saturating_mul(rest).min(self.load.allocation);
        if all <= size {
            return Ok((allocate(&self.context, plan)?, 0));
        }
        let place = self.shared.take().and_then(|(buffer, used)| {
            let base = align_up(used, PAGE)?;
            (base.checked_add(size)? <= buffer.size()).then_some((buffer, base))
        });
        let (buffer, base) = match place {
            Some(place) => place,
            None => match self.context.alloc(MemoryKind::Device, all) {
                Ok(buffer) => (buffer, 0),
                Err(error) if error.kind() == ErrorKind::OutOfDeviceMemory => {
                    return Ok((allocate(&self.context, plan)?, 0));
                }
                Err(error) => return Err(error),
            },
        };
        zero(&self.context, plan, (&buffer, base))?;
        self.shared = Some((buffer.clone(), base + size));
        Ok((buffer, base))
    }

    /// Each range is read whole, or the file was cut.
    fn submit(
        &self,
        plan: &BatchPlan,
        file: &File,
        (buffer, base): (&Buffer, u64),
    ) -> Result<Ticket> {
        let transfer = |piece: &Piece| Transfer {
            operation: Operation::Read,
            file: file.clone(),
            file_offset: piece.file_offset,
            buffer: buffer.clone(),
            buffer_offset: base + piece.to_offset,
            size: piece.size,
        };
        let transfers = plan.plan.pieces().iter().map(transfer).collect();
        self.context.submit(transfers, &self.load.options)
    }

    /// Waits for a batch, and gives its columns.
    fn finish(&mut self, flight: Flight) -> Result<Vec<Array>> {
        let source = self.reader.source();
        let mut flights = VecDeque::from([flight]);
        unpack_all(&self.context, source, &mut flights)?;
        decode_all(&self.context, source, &mut flights);
        let Some(flight) = flights.pop_front() else {
            return Ok(Vec::new());
        };
        let Flight {
            plan,
            buffer,
            base,
            ticket,
            fault,
            ..
        } = flight;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if let Some(ticket) = ticket {
            let moved = ticket.wait(None)?.bytes;
            if moved < plan.plan.bytes() {
                let text = format!(
                    "{} became shorter while it was read",
                    self.reader.path().display()
                );
                return Err(Error::new(ErrorKind::FileChanged, text).with_offset(plan.offset));
            }
        }
        plan.arrays(&buffer, base, &mut |id, keys| {
            self.dictionary(id, plan.seen, keys)
        })
    }

    /// A dictionary as somebody sees it who has seen so many messages.
    fn dictionary(&mut self, id: i64, seen: usize, keys: &Planned) -> Result<Array> {
        let index = self.reader.index();
        let chain = index.chain(id, seen);
        if let Some((known, array)) = self.dictionaries.0.get(&id)
            && *known == chain
        {
            return Ok(array.clone());
        }
        let Some(node) = index.columns.dictionaries.get(&id).cloned() else {
            return Err(missing(self.reader.path(), id, 0));
        };
        if chain.is_empty() {
            if keys.nulls < keys.len {
                return Err(missing(self.reader.path(), id, 0));
            }
            return self.empty(&layout::empty(&node));
        }
        // What is there already is not read again when more is added to it.
        let cached = self.dictionaries.0.remove(&id);
        let cached = cached.filter(|(known, _)| chain.starts_with(known));
        let done = cached.as_ref().map_or(0, |(known, _)| known.len());
        let mut parts: Vec<Array> = cached.into_iter().map(|(_, array)| array).collect();
        for at in chain.iter().skip(done) {
            let plan = self.reader.dictionary_plan(*at, id, &node)?;
            let offset = plan.offset;
            let flight = self.start(plan, 1, 1)?;
            let loaded = self.finish(flight)?.pop();
            let part = loaded.ok_or_else(|| missing(self.reader.path(), id, offset))?;
            if self.load.validates(&self.context) {
                validate::shallow(&self.context, &part)
                    .map_err(|error| error.with_offset(offset))?;
            }
            parts.push(part);
        }
        let array = join::join(&self.context, parts)?;
        self.dictionaries.0.insert(id, (chain, array.clone()));
        Ok(array)
    }

    /// No values, in memory that offsets can be read from.
    fn empty(&mut self, planned: &Planned) -> Result<Array> {
        let plan = BatchPlan::of_nothing(planned.clone());
        let flight = self.start(plan, 1, 1)?;
        let path = self.reader.path().to_path_buf();
        let array = self.finish(flight)?.pop();
        array.ok_or_else(|| missing(&path, 0, 0))
    }
}

pub(super) fn missing(path: &Path, id: i64, offset: u64) -> Error {
    corrupted(path, offset, format!("dictionary {id} is not there"))
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// Decompresses what lies compressed in device memory, that of all flights together.
fn unpack_all(
    context: &Context,
    source: &dyn Source,
    flights: &mut VecDeque<Flight>,
) -> Result<()> {
    let mut waiting = Vec::new();
    let mut batches = Vec::new();
    for flight in flights {
        if let Some(packed) = flight.packed.take() {
            batches.push(unpack::Batch {
                jobs: &flight.plan.jobs,
                packed,
                to: &flight.buffer,
                base: flight.base,
            });
            waiting.push(&mut flight.left);
        }
    }
    if batches.is_empty() {
        return Ok(());
    }
    for (left, found) in waiting
        .into_iter()
        .zip(unpack::finish(context, source, batches)?)
    {
        *left = found;
    }
    Ok(())
}

/// Decompresses on the host what is left for it, that of all flights together: a batch alone has
/// too few buffers for many threads. What goes wrong is told when its batch is asked for.
fn decode_all(context: &Context, source: &dyn Source, flights: &mut VecDeque<Flight>) {
    let lots: Vec<Lot<'_>> = flights
        .iter()
        .map(|flight| Lot {
            jobs: &flight.left,
            to: &flight.buffer,
            base: flight.base,
        })
        .collect();
    let faults = codec::decode(source, &lots, context);
    for (flight, fault) in flights.iter_mut().zip(faults) {
        flight.left.clear();
        flight.fault = flight.fault.take().or(fault);
    }
}

/// Memory for a batch, with the zeros in it.
pub(super) fn allocate(context: &Context, plan: &BatchPlan) -> Result<Buffer> {
    let size = plan.size().max(body::ALIGN);
    let buffer = context.alloc(MemoryKind::Device, size)?;
    zero(context, plan, (&buffer, 0))?;
    Ok(buffer)
}

/// Writes the zeros of a batch.
fn zero(context: &Context, plan: &BatchPlan, (to, base): (&Buffer, u64)) -> Result<()> {
    match plan.zeros {
        Some(at) => context.upload(&[(&[0; body::ALIGN as usize], to, base + at)]),
        None => Ok(()),
    }
}
