//! What a caller opens: the metadata of a file or stream.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_schema::Schema;

use super::body::BatchPlan;
use super::index::{ArrowForm, Block, Index, header_at};
use super::layout::Walk;
use super::load::{Batches, LoadOptions};
use super::message::{Codec, Header, Kind, corrupted};
use super::schema::Node;
use crate::engine::{Buffer, Context, File};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Batch, FileSource, Source};

/// An Arrow IPC file or stream: its schema, and where its batches are. Cheap to clone, usable from
/// many threads. Only metadata is in memory: at most 16 times its own size.
#[derive(Debug, Clone)]
pub struct ArrowReader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<dyn Source>,
    file: Option<File>,
    index: Index,
}

/// What the metadata says of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchInfo {
    /// Rows.
    pub rows: u64,
    /// Where its message begins in the file, bytes.
    pub offset: u64,
    /// Bytes of its body in the file.
    pub body_bytes: u64,
    /// How its buffers are compressed.
    pub codec: Option<Codec>,
}

impl ArrowReader {
    /// Reads the metadata of an Arrow IPC file or stream; which of the two, its content says.
    ///
    /// # Errors
    /// `Corrupted` with an offset; `NotSupported` for big-endian values and metadata before V4;
    /// what the file says.
    pub fn open(file: &File) -> Result<Self> {
        let source = Arc::new(FileSource::new(file)?);
        Self::new(source, Some(file.clone()))
    }

    /// As `open`, from bytes that are anywhere. Bodies then go through ordinary memory.
    ///
    /// # Errors
    /// As `open`.
    pub fn from_source(source: Arc<dyn Source>) -> Result<Self> {
        Self::new(source, None)
    }

    fn new(source: Arc<dyn Source>, file: Option<File>) -> Result<Self> {
        let index = Index::open(&*source)?;
        Ok(Self(Arc::new(Inner {
            source,
            file,
            index,
        })))
    }

    /// A file or a stream.
    #[must_use]
    pub fn form(&self) -> ArrowForm {
        self.0.index.form
    }

    /// Version of the metadata: 4 or 5.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.index.version
    }

    /// Names and types of all columns.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.0.index.columns.schema
    }

    /// Record batches.
    #[must_use]
    pub fn batch_count(&self) -> usize {
        self.0.index.batches.len()
    }

    /// Dictionary messages.
    #[must_use]
    pub fn dictionary_count(&self) -> usize {
        self.0.index.dictionaries.len()
    }

    /// Where the file is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.source.path()
    }

    /// The file that it was opened on.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.0.file.as_ref()
    }

    pub(super) fn source(&self) -> &dyn Source {
        &*self.0.source
    }

    pub(super) fn index(&self) -> &Index {
        &self.0.index
    }

    /// Numbers of the columns with these names, in the order of the names.
    ///
    /// # Errors
    /// `NotFound` for a name that no column has. Of two columns with one name, the first is meant.
    pub fn columns_named<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<usize>> {
        let fields = self.schema().fields();
        let find = |name: &S| {
            let found = fields
                .iter()
                .position(|field| field.name() == name.as_ref());
            found.ok_or_else(|| {
                let text = format!(
                    "{}: no column is named {:?}; `gds inspect` lists them",
                    self.path().display(),
                    name.as_ref()
                );
                Error::new(ErrorKind::NotFound, text).with_path(self.path())
            })
        };
        names.iter().map(find).collect()
    }

    /// What the metadata says of a batch. Reads it from the file.
    ///
    /// # Errors
    /// `OutOfRange`, `Corrupted`.
    pub fn batch_info(&self, batch: usize) -> Result<BatchInfo> {
        let (block, header) = self.batch_header(batch)?;
        Ok(BatchInfo {
            rows: header.rows,
            offset: block.offset,
            body_bytes: block.size,
            codec: header.codec,
        })
    }

    /// What reads these columns of a batch: only their buffers.
    ///
    /// # Errors
    /// `OutOfRange` for a batch or column that is not there; `Corrupted` when the metadata
    /// contradicts itself or the schema.
    pub fn plan(&self, batch: usize, columns: &[usize]) -> Result<BatchPlan> {
        let (block, header) = self.batch_header(batch)?;
        plan_batch(self.source(), self.index(), &block, &header, columns)
    }

    /// Loads these columns of these batches. Nothing has been read when it returns.
    ///
    /// # Errors
    /// `OutOfRange` for a batch or column that is not there; `InvalidArgument` for the context of
    /// another device.
    pub fn load(
        &self,
        context: &Context,
        columns: &[usize],
        batches: Range<usize>,
        options: &LoadOptions,
    ) -> Result<Batches> {
        if batches.start > batches.end || batches.end > self.batch_count() {
            return Err(self.outside("batches up to", batches.end, self.batch_count()));
        }
        Batches::new(self, context, columns.to_vec(), batches, options)
    }

    /// The batch of a plan, in the caller's memory: the ranges of [`BatchPlan::plan`] have been
    /// read to `offset` of `buffer`, which has [`BatchPlan::size`] bytes from there on. What is
    /// compressed is decoded to its place; dictionaries are loaded into memory of their own.
    /// `columns` are those of the plan.
    ///
    /// # Errors
    /// `OutOfRange` when it does not fit; `InvalidArgument` for a place that is no multiple of 64;
    /// as [`Batches::next_batch`].
    pub fn batch_in(
        &self,
        plan: &BatchPlan,
        columns: &[usize],
        buffer: &Buffer,
        offset: u64,
        options: &LoadOptions,
    ) -> Result<Batch> {
        let context = buffer.context();
        let mut batches = self.load(&context, columns, 0..0, options)?;
        batches
            .batch_in(plan, buffer, offset)
            .map_err(|error| error.with_path(self.path()))
    }

    /// The schema of some columns.
    pub(super) fn schema_of(&self, columns: &[usize]) -> Result<Arc<Schema>> {
        let schema = self.schema();
        if let Some(column) = columns.iter().find(|at| **at >= schema.fields().len()) {
            return Err(self.outside("column", *column, schema.fields().len()));
        }
        let chosen = schema.project(columns).map_err(|error| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("choose columns: {error}"),
            )
        })?;
        Ok(Arc::new(chosen))
    }

    fn outside(&self, what: &str, index: usize, count: usize) -> Error {
        let path = self.path();
        let text = format!(
            "{}: {what} {index} of {count} was asked for",
            path.display()
        );
        Error::new(ErrorKind::OutOfRange, text).with_path(path)
    }

    fn batch_header(&self, batch: usize) -> Result<(Block, Header)> {
        let blocks = &self.index().batches;
        let Some(block) = blocks.get(batch) else {
            return Err(self.outside("batch", batch, blocks.len()));
        };
        match header_at(self.source(), block)? {
            (Kind::Batch, header) => Ok((*block, header)),
            _ => {
                let what = "a dictionary where a batch should be";
                Err(corrupted(self.path(), block.offset, what))
            }
        }
    }

    /// What reads a message of a dictionary.
    pub(super) fn dictionary_plan(&self, at: usize, id: i64, node: &Node) -> Result<BatchPlan> {
        let Some(entry) = self.index().dictionaries.get(at) else {
            return Err(self.outside("dictionary", at, self.dictionary_count()));
        };
        let block = entry.block;
        match header_at(self.source(), &block)? {
            (Kind::Dictionary(found, delta), header) if found == id && delta == entry.delta => {
                let mut plan = plan_dictionary(self.source(), &block, &header, node)?;
                if self.form() == ArrowForm::File {
                    // A file has its dictionaries in any order.
                    plan.seen = self.dictionary_count();
                }
                Ok(plan)
            }
            _ => {
                let what = "another message where a dictionary was";
                Err(corrupted(self.path(), block.offset, what))
            }
        }
    }
}

/// What reads columns of a batch.
pub(super) fn plan_batch(
    source: &dyn Source,
    index: &Index,
    block: &Block,
    header: &Header,
    columns: &[usize],
) -> Result<BatchPlan> {
    let nodes = &index.columns.nodes;
    let chosen: HashSet<usize> = columns.iter().copied().collect();
    let mut walk = Walk::new(header, source.path());
    let mut all = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let planned = walk.array(node, chosen.contains(&at))?;
        if planned.len != header.rows {
            let what = format!(
                "column {at} has {} values in a batch of {} rows",
                planned.len, header.rows
            );
            return Err(corrupted(source.path(), block.offset, what));
        }
        all.push(planned);
    }
    walk.finish()?;
    let pick = |at: &usize| {
        all.get(*at).cloned().ok_or_else(|| {
            let text = format!("column {at} of {} was asked for", nodes.len());
            Error::new(ErrorKind::OutOfRange, text)
        })
    };
    let planned = columns.iter().map(pick).collect::<Result<_>>()?;
    BatchPlan::new(source, block, header, planned, &walk.wanted)
}

/// What reads the values of a dictionary.
pub(super) fn plan_dictionary(
    source: &dyn Source,
    block: &Block,
    header: &Header,
    node: &Node,
) -> Result<BatchPlan> {
    let mut walk = Walk::new(header, source.path());
    let planned = walk.array(node, true)?;
    walk.finish()?;
    if planned.len != header.rows {
        let what = format!("a dictionary of {} rows has {}", header.rows, planned.len);
        return Err(corrupted(source.path(), block.offset, what));
    }
    BatchPlan::new(source, block, header, vec![planned], &walk.wanted)
}
