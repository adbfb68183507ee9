//! Decoding on the processor, by the official crate: right for all of the format. Row groups and
//! columns are decoded side by side.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatchReader};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::basic::Type;
use parquet::errors::ParquetError;

use super::chunks::{Chunk, Memory, metadata_for, too_large};
use super::failure::{attempt, corrupted};
use super::place::place;
use super::reader::Parquet;
use super::select::{Part, Root};
use super::straight::{Made, Straight};
use crate::engine::Context;
use crate::error::Result;
use crate::formats::Array;
use crate::formats::work::side_by_side;

/// Pieces of texts that a thread puts to their place before it looks for more.
const PIECES: usize = 8;

/// A column, decoded: its field, and its values in pieces that follow each other.
#[derive(Debug)]
pub(super) struct Decoded {
    pub field: FieldRef,
    pub pieces: Vec<ArrayRef>,
}

/// Decodes all parts of some columns into memory of the context. `chunks` holds, part by part, the
/// leaves of all roots.
pub(super) fn decode(
    parquet: &Parquet,
    context: &Context,
    parts: &[Part],
    roots: &[Root],
    only: &[usize],
    chunks: &[Chunk],
    limit: u64,
) -> Result<Vec<(FieldRef, Array)>> {
    if only.is_empty() {
        return Ok(Vec::new());
    }
    let changed = metadata_for(parquet, chunks)?;
    let plain = match changed {
        None => parquet.arrow().clone(),
        Some(metadata) => {
            let metadata = Arc::new(metadata);
            let options = ArrowReaderOptions::new().with_schema(parquet.schema().clone());
            let path = parquet.source().path();
            attempt(path, parquet.footer_offset(), "read the schema", || {
                ArrowReaderMetadata::try_new(metadata, options)
            })?
        }
    };
    let job = Job {
        parquet,
        context,
        parts,
        roots,
        chunks,
        limit,
        metadata: plain,
    };
    let mut columns = job.run(only, true)?;
    let again = |columns: &[Column], is: fn(&Made) -> bool| -> Vec<usize> {
        let all = 0..columns.len();
        all.filter(|at| is(&columns[*at].1)).collect()
    };
    // The decoded texts are right, whatever the metadata say.
    let told_wrong = again(&columns, |made| matches!(made, Made::ToldWrong));
    if !told_wrong.is_empty() {
        let roots: Vec<usize> = told_wrong.iter().map(|at| only[*at]).collect();
        for (at, column) in told_wrong.into_iter().zip(job.run(&roots, false)?) {
            columns[at] = column;
        }
    }
    // Offsets of 32 bits end at 2 GiB: such columns get offsets of 64.
    let large = again(&columns, |made| matches!(made, Made::TooLong));
    if !large.is_empty() {
        let schema = Arc::new(with_large_offsets(parquet.schema()));
        let options = ArrowReaderOptions::new().with_schema(schema);
        let metadata = job.metadata.metadata().clone();
        let path = parquet.source().path();
        let metadata = attempt(path, parquet.footer_offset(), "read the schema", || {
            ArrowReaderMetadata::try_new(metadata, options)
        })?;
        let job = Job { metadata, ..job };
        let roots: Vec<usize> = large.iter().map(|at| only[*at]).collect();
        for (at, column) in large.into_iter().zip(job.run(&roots, false)?) {
            columns[at] = column;
        }
    }
    let whole = |(field, made): Column| match made {
        Made::Array(array) => Ok((field, array)),
        Made::TooLong | Made::ToldWrong => {
            let text = format!("column {:?} passes offsets of 64 bits", field.name());
            Err(corrupted(parquet.source().path(), 0, &text))
        }
    };
    columns.into_iter().map(whole).collect()
}

/// A column, and what became of it.
type Column = (FieldRef, Made);

struct Job<'a> {
    parquet: &'a Parquet,
    context: &'a Context,
    parts: &'a [Part],
    roots: &'a [Root],
    chunks: &'a [Chunk],
    limit: u64,
    metadata: ArrowReaderMetadata,
}

/// Where the pieces of a column go.
enum Goal<'a> {
    /// To their place.
    Straight(Box<Straight<'a>>),
    /// By part, to be joined and placed.
    Later(Mutex<Vec<Vec<ArrayRef>>>),
}

impl Job<'_> {
    /// Decodes these columns. What the file says of the length of texts is believed when `trusts`
    /// says so.
    fn run(&self, columns: &[usize], trusts: bool) -> Result<Vec<Column>> {
        let mut goals = Vec::with_capacity(columns.len());
        for root in columns {
            let field = field_of(self.parquet, &self.metadata, &self.roots[*root])?;
            let goal = self.goal(*root, &field, trusts)?;
            goals.push((field, goal));
        }
        // Part by part, what takes longest first, so that the last ones are short.
        let mut units: Vec<(usize, usize)> = Vec::with_capacity(columns.len() * self.parts.len());
        for part in 0..self.parts.len() {
            let from = units.len();
            units.extend((0..columns.len()).map(|column| (part, column)));
            let size = |column: usize| self.chunks_of(part, columns[column]).iter().map(bytes_of);
            units[from..].sort_by_key(|(_, column)| Reverse(size(*column).sum::<u64>()));
        }
        let bytes = self.chunks.iter().map(bytes_of).sum();
        side_by_side(units.len(), bytes, |unit| {
            let (part, column) = units[unit];
            self.unit(part, columns[column], &goals[column].1)
        })?;
        self.put_texts(&goals)?;
        let ready: Vec<Mutex<Option<Made>>> = goals.iter().map(|_| Mutex::default()).collect();
        let goals: Vec<(FieldRef, Mutex<Option<Goal<'_>>>)> = goals
            .into_iter()
            .map(|(field, goal)| (field, Mutex::new(Some(goal))))
            .collect();
        side_by_side(goals.len(), bytes, |column| {
            let (field, goal) = &goals[column];
            *ready[column].lock() = match goal.lock().take() {
                Some(Goal::Straight(straight)) => Some(straight.finish()?),
                Some(Goal::Later(pieces)) => Some(self.place(field, pieces.into_inner())?),
                None => None,
            };
            Ok(())
        })?;
        let made = ready.into_iter().zip(goals);
        let column =
            |(made, (field, _)): (Mutex<Option<Made>>, _)| Some((field, made.into_inner()?));
        Ok(made.filter_map(column).collect())
    }

    /// Puts texts to their place that wait for it, all threads together.
    fn put_texts(&self, goals: &[(FieldRef, Goal<'_>)]) -> Result<()> {
        let mut units = Vec::new();
        for (_, goal) in goals {
            if let Goal::Straight(straight) = goal
                && let Some(texts) = straight.texts()
            {
                units.extend((0..texts.waiting().div_ceil(PIECES)).map(|_| texts));
            }
        }
        side_by_side(units.len(), u64::MAX, |unit| {
            units[unit].put_waiting(PIECES)
        })
    }

    fn goal(&self, root: usize, field: &FieldRef, trusts: bool) -> Result<Goal<'_>> {
        if self.roots[root].leaves.len() == 1 {
            let chunks: Vec<&Chunk> = (0..self.parts.len())
                .flat_map(|part| self.chunks_of(part, root))
                .collect();
            let (parquet, parts) = (self.parquet, self.parts);
            let how = (self.limit, trusts);
            let made = Straight::new(self.context, parquet, field, parts, &chunks, how)?;
            if let Some(straight) = made {
                return Ok(Goal::Straight(Box::new(straight)));
            }
        }
        Ok(Goal::Later(Mutex::new(vec![Vec::new(); self.parts.len()])))
    }

    fn place(&self, field: &FieldRef, pieces: Vec<Vec<ArrayRef>>) -> Result<Made> {
        let column = Decoded {
            field: field.clone(),
            pieces: pieces.into_iter().flatten().collect(),
        };
        match is_too_long(&column) {
            true => Ok(Made::TooLong),
            false => place(self.context, column, self.parquet.source().path()).map(Made::Array),
        }
    }

    /// The chunks of one column of one part.
    fn chunks_of(&self, part: usize, column: usize) -> &[Chunk] {
        let leaves: usize = self.roots.iter().map(|root| root.leaves.len()).sum();
        let before: usize = self.roots[..column]
            .iter()
            .map(|root| root.leaves.len())
            .sum();
        let first = part * leaves + before;
        &self.chunks[first..first + self.roots[column].leaves.len()]
    }

    /// One column of one part.
    fn unit(&self, number: usize, column: usize, goal: &Goal<'_>) -> Result<()> {
        let root = &self.roots[column];
        let chunks = self.chunks_of(number, column);
        let part = &self.parts[number];
        let size = self.parquet.source().size();
        let memory = Memory::new(size, chunks.iter());
        let path = self.parquet.source().path();
        let offset = memory_offset(chunks);
        let mut rows = self.rows_at_once(part, chunks);
        let mut unit = None;
        if let Goal::Straight(straight) = goal {
            rows = straight.rows_at_once(rows);
            unit = Some((straight, straight.begin(number)));
        }
        let mut pieces = Vec::new();
        let (mut count, mut bytes) = (0u64, 0u64);
        let mut reader = attempt(path, offset, "decode a column", || {
            let builder =
                builder(&self.metadata, root, memory).with_row_groups(vec![part.row_group]);
            let builder = match &part.rows {
                None => builder,
                Some(rows) => builder.with_row_selection(selection(rows)),
            };
            builder.with_batch_size(rows).build()
        })?;
        while let Some(piece) = next_piece(&mut reader, || (path, offset))? {
            count += piece.len() as u64;
            bytes = bytes.saturating_add(piece.get_array_memory_size() as u64);
            if bytes > self.limit {
                return Err(too_large(self.parquet, bytes, self.limit));
            }
            match &mut unit {
                Some((straight, unit)) => straight.take(unit, &piece)?,
                None => pieces.push(piece),
            }
        }
        if count != part.count {
            let message = format!("a column has {count} rows where {} must be", part.count);
            return Err(corrupted(path, offset, &message));
        }
        match (unit, goal) {
            (Some((straight, unit)), _) => straight.end(unit)?,
            (None, Goal::Later(all)) => all.lock()[number] = pieces,
            (None, Goal::Straight(_)) => {}
        }
        Ok(())
    }

    /// Rows that are decoded into one array. All of them, unless strings may come out of a
    /// dictionary or of shared prefixes: these can be longer than anything in the file.
    fn rows_at_once(&self, part: &Part, chunks: &[Chunk]) -> usize {
        let values = chunks.iter().map(Chunk::values).max().unwrap_or(0);
        let metadata = self.parquet.metadata();
        let strings = chunks.iter().filter(|chunk| {
            let column = metadata.row_group(chunk.row_group).column(chunk.plan.leaf);
            column.column_type() == Type::BYTE_ARRAY
        });
        let longest = strings.map(Chunk::largest_page).max().unwrap_or(0);
        let room = self.limit.min(i32::MAX as u64) / longest.max(1);
        let rows = part
            .count
            .min(values)
            .min(if longest > 0 { room } else { u64::MAX });
        usize::try_from(rows).unwrap_or(usize::MAX).max(1)
    }
}

fn bytes_of(chunk: &Chunk) -> u64 {
    chunk.runs.iter().map(|run| run.bytes.len() as u64).sum()
}

/// What the crate decodes a column with.
fn builder(
    metadata: &ArrowReaderMetadata,
    root: &Root,
    memory: Memory,
) -> ParquetRecordBatchReaderBuilder<Memory> {
    let mask = ProjectionMask::leaves(metadata.parquet_schema(), root.leaves.iter().copied());
    ParquetRecordBatchReaderBuilder::new_with_metadata(memory, metadata.clone())
        .with_projection(mask)
}

/// What a column is called and of what type it is.
pub(super) fn field_of(
    parquet: &Parquet,
    metadata: &ArrowReaderMetadata,
    root: &Root,
) -> Result<FieldRef> {
    let (path, offset) = (parquet.source().path(), parquet.footer_offset());
    attempt(path, offset, "read the schema", || {
        let memory = Memory::new(0, std::iter::empty());
        let reader = builder(metadata, root, memory).with_row_groups(Vec::new());
        let schema = reader.build()?.schema();
        let field = schema.fields().first().cloned();
        field.ok_or_else(|| ParquetError::General("a column has no field".into()))
    })
}

/// Names and types of columns.
pub(super) fn schema_of(parquet: &Parquet, roots: &[Root]) -> Result<Schema> {
    let fields = roots
        .iter()
        .map(|root| field_of(parquet, parquet.arrow(), root));
    let fields = fields.collect::<Result<Vec<_>>>()?;
    Ok(Schema::new_with_metadata(
        fields,
        parquet.schema().metadata().clone(),
    ))
}

fn memory_offset(chunks: &[Chunk]) -> u64 {
    let starts = chunks
        .iter()
        .flat_map(|c| &c.plan.runs)
        .map(|run| run.range.start);
    starts.min().unwrap_or(0)
}

fn next_piece<'a>(
    reader: &mut ParquetRecordBatchReader,
    place: impl Fn() -> (&'a std::path::Path, u64),
) -> Result<Option<ArrayRef>> {
    let (path, offset) = place();
    attempt(path, offset, "decode a column", || {
        let Some(batch) = reader.next() else {
            return Ok(None);
        };
        let batch = batch.map_err(|e| ParquetError::ArrowError(e.to_string()))?;
        let none = || ParquetError::General("a column is missing".into());
        batch.columns().first().cloned().map(Some).ok_or_else(none)
    })
}

fn selection(rows: &[Range<u64>]) -> RowSelection {
    let mut selectors = Vec::with_capacity(rows.len() * 2);
    let mut at = 0;
    for range in rows {
        if range.start > at {
            selectors.push(RowSelector::skip((range.start - at) as usize));
        }
        selectors.push(RowSelector::select((range.end - range.start) as usize));
        at = range.end;
    }
    selectors.into()
}

/// Whether the strings of a column, put together, pass offsets of 32 bits.
fn is_too_long(column: &Decoded) -> bool {
    let mut lengths = Vec::new();
    for piece in &column.pieces {
        let mut at = 0;
        add_lengths(&piece.to_data(), &mut lengths, &mut at);
    }
    lengths.iter().any(|length| *length > i32::MAX as u64)
}

/// Adds the elements and bytes that offsets of 32 bits count, array by array of a nested one.
fn add_lengths(data: &arrow_data::ArrayData, lengths: &mut Vec<u64>, at: &mut usize) {
    if lengths.len() <= *at {
        lengths.resize(*at + 1, 0);
    }
    use DataType::{Binary, List, Map, Utf8};
    if matches!(data.data_type(), Utf8 | Binary | List(_) | Map(..)) && !data.is_empty() {
        let offsets = &data.buffers()[0].typed_data::<i32>()[data.offset()..];
        let size = offsets.get(data.len()).map_or(0, |end| end - offsets[0]);
        lengths[*at] += u64::from(size.unsigned_abs());
    }
    *at += 1;
    for child in data.child_data() {
        add_lengths(child, lengths, at);
    }
}

fn with_large_offsets(schema: &Schema) -> Schema {
    let fields: Vec<FieldRef> = schema.fields().iter().map(with_large_field).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn with_large_field(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Utf8 => DataType::LargeUtf8,
        DataType::Binary => DataType::LargeBinary,
        DataType::List(item) => DataType::LargeList(with_large_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_large_field).collect()),
        other => other.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(kind))
}
