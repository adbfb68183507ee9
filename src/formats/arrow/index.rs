//! Which messages a file or a stream has, and which dictionaries a batch sees. Bodies are skipped.

use std::collections::HashMap;
use std::path::Path;

use super::message::{self, Header, Kind, corrupted, unsupported};
use super::schema::Columns;
use crate::error::Result;
use crate::formats::Source;

/// What surrounds an Arrow file.
const MAGIC: &[u8; 6] = b"ARROW1";
/// Size and magic at the end of a file.
const TAIL: u64 = 10;

/// Which of the two forms of Arrow IPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrowForm {
    /// A file: its footer says where everything is.
    File,
    /// A stream: message after message.
    Stream,
}

/// Where a message with a body is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) offset: u64,
    /// The first byte of the body.
    pub(super) body: u64,
    /// Bytes of the body.
    pub(super) size: u64,
    /// Dictionary messages before it.
    pub(super) seen: usize,
}

/// A dictionary message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) block: Block,
    /// It adds to what is there.
    pub(super) delta: bool,
}

/// All messages.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) form: ArrowForm,
    pub(super) version: u32,
    pub(super) columns: Columns,
    pub(super) batches: Vec<Block>,
    pub(super) dictionaries: Vec<Entry>,
    /// Numbers of the messages of each dictionary.
    of_id: HashMap<i64, Vec<usize>>,
}

impl Index {
    pub(super) fn open(source: &dyn Source) -> Result<Self> {
        let head = source.size().min(8);
        let head = source.bytes(0, head, "the first bytes")?;
        if head.starts_with(MAGIC) {
            return Self::of_file(source);
        }
        Self::of_stream(source)
    }

    fn of_file(source: &dyn Source) -> Result<Self> {
        let (path, end) = (source.path(), source.size());
        let start = end.saturating_sub(TAIL);
        let tail = source.bytes(start, TAIL, "the end of an Arrow file")?;
        let Some((size, magic)) = tail.split_first_chunk::<4>() else {
            return Err(corrupted(path, start, "no end"));
        };
        if magic != MAGIC {
            let what = "an Arrow file without ARROW1 at its end: it was not finished";
            return Err(corrupted(path, start, what));
        }
        let size = i32::from_le_bytes(*size);
        let place = u64::try_from(size)
            .ok()
            .and_then(|size| start.checked_sub(size));
        let Some(place) = place.filter(|place| *place >= 8) else {
            let what = format!("a footer of {size} bytes in a file of {end}");
            return Err(corrupted(path, start, what));
        };
        let bytes = source.bytes(place, start - place, "the footer")?;
        let footer = message::parse_footer(&bytes, path, place)?;
        let schema = footer
            .schema()
            .ok_or_else(|| corrupted(path, place, "a footer without a schema"))?;
        let mut index = Self::new(
            ArrowForm::File,
            version_of(footer.version()),
            Columns::new(schema, path, place)?,
        );
        for block in footer
            .dictionaries()
            .iter()
            .flat_map(|blocks| blocks.iter())
        {
            index.add_dictionary(source, block_of(block, place, path)?)?;
        }
        let seen = index.dictionaries.len();
        for block in footer
            .recordBatches()
            .iter()
            .flat_map(|blocks| blocks.iter())
        {
            let block = block_of(block, place, path)?;
            index.batches.push(Block { seen, ..block });
        }
        for ids in index.of_id.values() {
            let is_first = |at: &&usize| index.dictionaries.get(**at).is_some_and(|d| !d.delta);
            if ids.iter().filter(is_first).count() > 1 {
                let what = "a file that replaces a dictionary has no order to do it in";
                return Err(unsupported(path, place, what));
            }
        }
        Ok(index)
    }

    /// A dictionary of a file, whose message says which.
    fn add_dictionary(&mut self, source: &dyn Source, block: Block) -> Result<()> {
        let (path, offset) = (source.path(), block.offset);
        let (kind, _) = header_at(source, &block)?;
        let Kind::Dictionary(id, delta) = kind else {
            let what = "the footer lists a dictionary where another message is";
            return Err(corrupted(path, offset, what));
        };
        self.note(id, delta, block, path)
    }

    fn of_stream(source: &dyn Source) -> Result<Self> {
        let path = source.path();
        let first = message::read(source, 0)?
            .ok_or_else(|| corrupted(path, 0, "a stream that ends before its schema"))?;
        let parsed = message::parse(&first.metadata, path, 0)?;
        let schema = parsed.header_as_schema().ok_or_else(|| {
            corrupted(
                path,
                0,
                "no Arrow file, and no stream that begins with a schema",
            )
        })?;
        let body = message::body_size(&parsed, path, 0)?;
        let mut index = Self::new(
            ArrowForm::Stream,
            version_of(parsed.version()),
            Columns::new(schema, path, 0)?,
        );
        let mut at = body_end(source, first.end, body, 0)?;
        // Nothing more is the end too: writers that were cut between messages left whole ones.
        while at < source.size() {
            let Some(framed) = message::read(source, at)? else {
                break;
            };
            let parsed = message::parse(&framed.metadata, path, at)?;
            let size = message::body_size(&parsed, path, at)?;
            let next = body_end(source, framed.end, size, at)?;
            let block = Block {
                offset: at,
                body: framed.end,
                size,
                seen: index.dictionaries.len(),
            };
            match message::header(&parsed, path, at)? {
                Some((Kind::Batch, _)) => index.batches.push(block),
                Some((Kind::Dictionary(id, delta), _)) => index.note(id, delta, block, path)?,
                None => {
                    let what = "a message of a stream that is neither a batch nor a dictionary";
                    return Err(unsupported(path, at, what));
                }
            }
            at = next;
        }
        Ok(index)
    }

    /// An index without messages yet.
    pub(super) fn new(form: ArrowForm, version: u32, columns: Columns) -> Self {
        Self {
            form,
            version,
            columns,
            batches: Vec::new(),
            dictionaries: Vec::new(),
            of_id: HashMap::new(),
        }
    }

    /// Adds a dictionary message.
    pub(super) fn note(&mut self, id: i64, delta: bool, block: Block, path: &Path) -> Result<()> {
        if !self.columns.dictionaries.contains_key(&id) {
            let what = format!("dictionary {id}, which no column uses");
            return Err(corrupted(path, block.offset, what));
        }
        let ids = self.of_id.entry(id).or_default();
        if delta && ids.is_empty() && self.form == ArrowForm::Stream {
            let what = format!("an addition to dictionary {id}, which is not there yet");
            return Err(corrupted(path, block.offset, what));
        }
        let seen = self.dictionaries.len();
        ids.push(seen);
        let block = Block { seen, ..block };
        self.dictionaries.push(Entry { block, delta });
        Ok(())
    }

    /// Messages that make up a dictionary as somebody sees it who has seen so many messages: the
    /// whole one first, then what was added.
    pub(super) fn chain(&self, id: i64, seen: usize) -> Vec<usize> {
        let Some(ids) = self.of_id.get(&id) else {
            return Vec::new();
        };
        let entry = |at: &usize| self.dictionaries.get(*at);
        if self.form == ArrowForm::File {
            // In any order there.
            let (mut first, deltas): (Vec<usize>, Vec<usize>) = ids
                .iter()
                .partition(|at| entry(at).is_some_and(|d| !d.delta));
            first.extend(deltas);
            return first;
        }
        let known = ids.partition_point(|at| *at < seen);
        let known = ids.get(..known).unwrap_or_default();
        let start = known
            .iter()
            .rposition(|at| entry(at).is_some_and(|d| !d.delta));
        known.get(start.unwrap_or(0)..).unwrap_or_default().to_vec()
    }
}

/// The header of a message that stands at a block.
pub(super) fn header_at(source: &dyn Source, block: &Block) -> Result<(Kind, Header)> {
    let (path, offset) = (source.path(), block.offset);
    let framed = message::read(source, offset)?
        .ok_or_else(|| corrupted(path, offset, "the end of a stream where a batch should be"))?;
    let parsed = message::parse(&framed.metadata, path, offset)?;
    let size = message::body_size(&parsed, path, offset)?;
    if framed.end > block.body || size > block.size {
        let what = format!(
            "a message of {} and {size} bytes, where {} and {} were said to be",
            framed.end - offset,
            block.body - offset,
            block.size
        );
        return Err(corrupted(path, offset, what));
    }
    message::header(&parsed, path, offset)?
        .ok_or_else(|| corrupted(path, offset, "another message where a batch should be"))
}

fn version_of(version: arrow_ipc::MetadataVersion) -> u32 {
    // A footer without one is of Arrow 0.8 to 0.17, whose messages are version 4.
    u32::try_from(version.0).map_or(4, |number| (number + 1).max(4))
}

/// A block of the footer, inside of the file.
fn block_of(block: &arrow_ipc::Block, end: u64, path: &Path) -> Result<Block> {
    let number = |value: i64| u64::try_from(value).ok();
    let place = number(block.offset())
        .zip(number(i64::from(block.metaDataLength())))
        .zip(number(block.bodyLength()));
    let inside = place.and_then(|((offset, metadata), size)| {
        let body = offset.checked_add(metadata)?;
        let whole = body.checked_add(size)? <= end;
        (whole && metadata >= 4).then_some(Block {
            offset,
            body,
            size,
            seen: 0,
        })
    });
    inside.ok_or_else(|| {
        let what = format!(
            "the footer lists a message at {} of {} and {} bytes, outside of the file",
            block.offset(),
            block.metaDataLength(),
            block.bodyLength()
        );
        corrupted(path, end, what)
    })
}

fn body_end(source: &dyn Source, from: u64, size: u64, message: u64) -> Result<u64> {
    let end = from.checked_add(size).filter(|end| *end <= source.size());
    end.ok_or_else(|| {
        let what = format!(
            "a body of {size} bytes at {from} passes the end at {}",
            source.size()
        );
        corrupted(source.path(), message, what)
    })
}
