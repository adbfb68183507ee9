//! A stream out of a pipe: message after message, nothing is read twice.
//!
//! A body that is not compressed goes to the device chunk by chunk as it arrives. One that is
//! waits in ordinary memory until it is whole: a batch at a time.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_schema::Schema;

use super::body::{self, BatchPlan};
use super::index::{ArrowForm, Block, Index};
use super::layout::{self, Planned};
use super::load::{LoadOptions, allocate, missing};
use super::message::{self, Header, Kind, corrupted, unsupported};
use super::reader::{plan_batch, plan_dictionary};
use super::schema::Columns;
use super::{join, unpack, validate};
use crate::engine::{Buffer, Context};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Batch, MemorySource, Source, work};

/// Bytes that are taken from the pipe at once.
const CHUNK: u64 = 1 << 20;

/// An Arrow IPC stream that is read once, from front to back.
pub struct ArrowPipe {
    from: Pipe,
    index: Index,
    context: Context,
    columns: Vec<usize>,
    schema: Arc<Schema>,
    load: LoadOptions,
    dictionaries: HashMap<i64, Array>,
    ended: bool,
}

/// The pipe, and how far it was read.
struct Pipe {
    reader: Box<dyn Read + Send>,
    at: u64,
    /// Stands in messages where a path would.
    name: PathBuf,
}

impl fmt::Debug for ArrowPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ArrowPipe({} at {})",
            self.from.name.display(),
            self.from.at
        )
    }
}

impl ArrowPipe {
    /// Reads the schema. All columns are chosen; `choose` says otherwise. `name` stands in
    /// messages where a path would.
    ///
    /// # Errors
    /// `Corrupted` with the offset in the stream, `NotSupported`, `Io`.
    pub fn open(
        context: &Context,
        reader: impl Read + Send + 'static,
        name: &str,
        options: &LoadOptions,
    ) -> Result<Self> {
        let mut from = Pipe {
            reader: Box::new(reader),
            at: 0,
            name: PathBuf::from(name),
        };
        let what = "no Arrow stream: it does not begin with a schema";
        let Some(metadata) = from.message()? else {
            return Err(corrupted(&from.name, 0, what));
        };
        let parsed = message::parse(&metadata, &from.name, 0)?;
        let schema = parsed
            .header_as_schema()
            .ok_or_else(|| corrupted(&from.name, 0, what))?;
        let columns = Columns::new(schema, &from.name, 0)?;
        let body = message::body_size(&parsed, &from.name, 0)?;
        from.skip(body)?;
        let count = columns.nodes.len();
        Ok(Self {
            schema: columns.schema.clone(),
            index: Index::new(ArrowForm::Stream, 0, columns),
            from,
            context: context.clone(),
            columns: (0..count).collect(),
            load: options.clone(),
            dictionaries: HashMap::new(),
            ended: false,
        })
    }

    /// Names and types of the chosen columns.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Chooses columns by name, for the batches from here on.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn choose<S: AsRef<str>>(&mut self, names: &[S]) -> Result<()> {
        let all = &self.index.columns.schema;
        let find = |name: &S| {
            let name = name.as_ref();
            let found = all.fields().iter().position(|field| field.name() == name);
            found.ok_or_else(|| {
                let text = format!("{}: no column is named {name:?}", self.from.name.display());
                Error::new(ErrorKind::NotFound, text)
            })
        };
        let columns: Vec<usize> = names.iter().map(find).collect::<Result<_>>()?;
        let schema = all.project(&columns).map_err(|why| {
            Error::new(ErrorKind::InvalidArgument, format!("choose columns: {why}"))
        })?;
        (self.schema, self.columns) = (Arc::new(schema), columns);
        Ok(())
    }

    /// The next batch; none at the end of the stream, or after an error.
    ///
    /// # Errors
    /// As `open`, and what memory says.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        if self.ended {
            return Ok(None);
        }
        let result = self.advance();
        self.ended = !matches!(result, Ok(Some(_)));
        result.map_err(|error| body::at(&self.from.name, error))
    }

    fn advance(&mut self) -> Result<Option<Batch>> {
        loop {
            let offset = self.from.at;
            let Some(metadata) = self.from.message()? else {
                return Ok(None);
            };
            let parsed = message::parse(&metadata, &self.from.name, offset)?;
            let size = message::body_size(&parsed, &self.from.name, offset)?;
            let Some((kind, header)) = message::header(&parsed, &self.from.name, offset)? else {
                let what = "a message of a stream that is neither a batch nor a dictionary";
                return Err(unsupported(&self.from.name, offset, what));
            };
            let block = Block {
                offset,
                body: self.from.at,
                size,
                seen: 0,
            };
            match kind {
                Kind::Batch => return self.batch(&block, &header).map(Some),
                Kind::Dictionary(id, delta) => self.dictionary(id, delta, &block, &header)?,
            }
        }
    }

    fn batch(&mut self, block: &Block, header: &Header) -> Result<Batch> {
        let (columns, rows) = (self.columns.clone(), header.rows);
        let columns = self.arrays(block, header, |source, block, index| {
            plan_batch(source, index, block, header, &columns)
        })?;
        self.check(&columns, block)?;
        Ok(Batch {
            schema: self.schema.clone(),
            rows,
            columns,
        })
    }

    fn dictionary(&mut self, id: i64, delta: bool, block: &Block, header: &Header) -> Result<()> {
        let Some(node) = self.index.columns.dictionaries.get(&id).cloned() else {
            let what = format!("dictionary {id}, which no column uses");
            return Err(corrupted(&self.from.name, block.offset, what));
        };
        let loaded = self.arrays(block, header, |source, block, _| {
            plan_dictionary(source, block, header, &node)
        })?;
        self.check(&loaded, block)?;
        let before = match self.dictionaries.remove(&id) {
            None if delta => return Err(missing(&self.from.name, id, block.offset)),
            before => before.filter(|_| delta),
        };
        let joined = join::join(&self.context, before.into_iter().chain(loaded).collect())?;
        self.dictionaries.insert(id, joined);
        Ok(())
    }

    fn check(&self, arrays: &[Array], block: &Block) -> Result<()> {
        if self.load.validates(&self.context) {
            for array in arrays {
                validate::shallow(&self.context, array)
                    .map_err(|error| error.with_offset(block.offset))?;
            }
        }
        Ok(())
    }

    /// The arrays of a body that comes next in the pipe.
    fn arrays(
        &mut self,
        block: &Block,
        header: &Header,
        plan: impl Fn(&dyn Source, &Block, &Index) -> Result<BatchPlan>,
    ) -> Result<Vec<Array>> {
        let name = self.from.name.to_string_lossy().into_owned();
        let (plan, buffer) = if header.codec.is_some() {
            let source = MemorySource::new(self.from.take(block.size)?, &name);
            let inside = Block { body: 0, ..*block };
            let plan = plan(&source, &inside, &self.index)?;
            let buffer = allocate(&self.context, &plan)?;
            work::bring(&self.context, &source, &plan.plan, (&buffer, 0))?;
            let how = (self.load.unpack, &self.load.options);
            unpack::all(&self.context, (&source, None), &plan, (&buffer, 0), how)?;
            (plan, buffer)
        } else {
            let nothing = MemorySource::new(Vec::new(), &name);
            let plan = plan(&nothing, block, &self.index)?;
            let buffer = allocate(&self.context, &plan)?;
            self.from.deliver(&plan, block, &self.context, &buffer)?;
            (plan, buffer)
        };
        plan.arrays(&buffer, 0, &mut |id, keys| self.known(id, keys, block))
    }

    /// A dictionary as it is now.
    fn known(&self, id: i64, keys: &Planned, block: &Block) -> Result<Array> {
        if let Some(array) = self.dictionaries.get(&id) {
            return Ok(array.clone());
        }
        let node = self.index.columns.dictionaries.get(&id);
        let node = node.filter(|_| keys.nulls == keys.len);
        let Some(node) = node else {
            return Err(missing(&self.from.name, id, block.offset));
        };
        let plan = BatchPlan::of_nothing(layout::empty(node));
        let buffer = allocate(&self.context, &plan)?;
        let mut arrays = plan.arrays(&buffer, 0, &mut |id, keys| self.known(id, keys, block))?;
        arrays
            .pop()
            .ok_or_else(|| missing(&self.from.name, id, block.offset))
    }
}

impl Iterator for ArrowPipe {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl Pipe {
    /// The metadata of the next message; none at the end.
    fn message(&mut self) -> Result<Option<Vec<u8>>> {
        let mut word = [0; 4];
        if !self.fill(&mut word, true)? {
            return Ok(None);
        }
        if u32::from_le_bytes(word) == message::CONTINUATION {
            self.fill(&mut word, false)?;
        }
        let size = i32::from_le_bytes(word);
        match u64::try_from(size) {
            Ok(0) => Ok(None),
            Ok(size) => self.take(size).map(Some),
            Err(_) => {
                let what = format!("a message claims metadata of {size} bytes");
                Err(corrupted(&self.name, self.at, what))
            }
        }
    }

    /// Fills `into`. False: the pipe ended before its first byte, where it may.
    fn fill(&mut self, into: &mut [u8], may_end: bool) -> Result<bool> {
        let size = into.len();
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) if filled == 0 && may_end => return Ok(false),
                Ok(0) => return Err(self.cut(size as u64)),
                Ok(read) => {
                    filled += read;
                    self.at += read as u64;
                }
                Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
                Err(why) => return Err(self.failed(&why)),
            }
        }
        Ok(true)
    }

    fn cut(&self, wanted: u64) -> Error {
        let what = format!("the stream ends where {wanted} bytes are due");
        corrupted(&self.name, self.at, what)
    }

    fn failed(&self, why: &std::io::Error) -> Error {
        let what = format!("read {} at {}", self.name.display(), self.at);
        match why.raw_os_error() {
            Some(errno) => Error::os(errno, what),
            None => Error::new(ErrorKind::Io, format!("{what}: {why}")),
        }
    }

    /// The next bytes. Memory grows with what arrives, not with what is claimed.
    fn take(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(size).read_to_end(&mut bytes);
        let read = read.map_err(|why| self.failed(&why))?;
        self.at += read as u64;
        if (read as u64) < size {
            return Err(self.cut(size));
        }
        Ok(bytes)
    }

    fn skip(&mut self, size: u64) -> Result<()> {
        let mut rest = (&mut self.reader).take(size);
        let skipped = std::io::copy(&mut rest, &mut std::io::sink());
        let skipped = skipped.map_err(|why| self.failed(&why))?;
        self.at += skipped;
        if skipped < size {
            return Err(self.cut(size));
        }
        Ok(())
    }

    /// The wanted ranges of a body to their places, as they come; the others are passed over.
    fn deliver(
        &mut self,
        plan: &BatchPlan,
        block: &Block,
        context: &Context,
        to: &Buffer,
    ) -> Result<()> {
        let mut pieces = plan.plan().pieces().to_vec();
        pieces.sort_by_key(|piece| piece.file_offset);
        let mut chunk = Vec::new();
        for piece in pieces {
            self.skip(piece.file_offset.saturating_sub(self.at))?;
            let mut done = 0;
            while done < piece.size {
                let size = (piece.size - done).min(CHUNK);
                chunk.resize(size as usize, 0);
                self.fill(&mut chunk, false)?;
                context.upload(&[(&chunk, to, piece.to_offset + done)])?;
                done += size;
            }
        }
        let end = block.body.saturating_add(block.size);
        self.skip(end.saturating_sub(self.at))
    }
}
