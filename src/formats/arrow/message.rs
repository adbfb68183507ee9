//! Messages: framing, verification, and what is taken out of their metadata.
//!
//! Layouts: arrow.apache.org/docs/format/Columnar.html, "Serialization and Interprocess
//! Communication". A message is `FFFFFFFF`, an int32 size, metadata in flatbuffers, a body; before
//! version 0.15 it had no `FFFFFFFF`. A size of 0 ends a stream.

use std::path::Path;

use arrow_ipc::{
    BodyCompressionMethod, CompressionType, Footer, Message, MessageHeader, MetadataVersion,
    RecordBatch,
};
use flatbuffers::VerifierOptions;

use crate::error::{Error, ErrorKind, Result};
use crate::formats::Source;

/// What precedes metadata since version 0.15.
pub(super) const CONTINUATION: u32 = 0xFFFF_FFFF;
/// Tables may stand at several places of the metadata that they describe: what they come to in
/// all, in multiples of the metadata's size.
const SHARING_MAX: usize = 16;

/// How buffers of a body are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// Damage at an offset of a file.
pub(super) fn corrupted(path: &Path, offset: u64, what: impl std::fmt::Display) -> Error {
    let text = format!("{}: {what}; the file is damaged", path.display());
    Error::new(ErrorKind::Corrupted, text)
        .with_path(path)
        .with_offset(offset)
}

/// What is valid and not for us.
pub(super) fn unsupported(path: &Path, offset: u64, what: impl std::fmt::Display) -> Error {
    let text = format!("{}: {what}", path.display());
    Error::new(ErrorKind::NotSupported, text)
        .with_path(path)
        .with_offset(offset)
}

fn limits(size: usize) -> VerifierOptions {
    VerifierOptions {
        max_tables: size / 4 + 16,
        max_apparent_size: size.saturating_mul(SHARING_MAX).saturating_add(1 << 16),
        ..VerifierOptions::default()
    }
}

/// The verified message in these bytes.
pub(super) fn parse<'a>(bytes: &'a [u8], path: &Path, offset: u64) -> Result<Message<'a>> {
    let message = arrow_ipc::root_as_message_with_opts(&limits(bytes.len()), bytes)
        .map_err(|why| corrupted(path, offset, unverified("the metadata of a message", &why)))?;
    check_version(message.version(), path, offset)?;
    Ok(message)
}

/// The verified footer in these bytes.
pub(super) fn parse_footer<'a>(bytes: &'a [u8], path: &Path, offset: u64) -> Result<Footer<'a>> {
    let footer = arrow_ipc::root_as_footer_with_opts(&limits(bytes.len()), bytes)
        .map_err(|why| corrupted(path, offset, unverified("the footer", &why)))?;
    // Early writers left its version out, which then reads as the first; messages have their own.
    if footer.version() > MetadataVersion::V5 || footer.version() < MetadataVersion::V1 {
        let what = format!("footer of version {}", footer.version().0);
        return Err(corrupted(path, offset, what));
    }
    Ok(footer)
}

/// The first line of what the verifier says: the others say how it got there.
fn unverified(what: &str, why: &dyn std::fmt::Display) -> String {
    let why = why.to_string();
    let line = why.lines().next().unwrap_or_default();
    format!("{what}: {}", line.trim_end_matches(['.', ' ']))
}

fn check_version(version: MetadataVersion, path: &Path, offset: u64) -> Result<()> {
    match version {
        MetadataVersion::V4 | MetadataVersion::V5 => Ok(()),
        MetadataVersion::V1 | MetadataVersion::V2 | MetadataVersion::V3 => Err(unsupported(
            path,
            offset,
            "metadata older than V4, of Arrow before 0.8, is not read; write it again with a \
             newer Arrow",
        )),
        other => Err(corrupted(
            path,
            offset,
            format!("metadata version {}", other.0),
        )),
    }
}

/// Where a message's parts are.
#[derive(Debug, Clone)]
pub(super) struct Framed {
    /// The flatbuffers.
    pub(super) metadata: Vec<u8>,
    /// The first byte after the metadata: of the body in a stream.
    pub(super) end: u64,
}

/// The size of a message's metadata, and where it begins; none: the stream ends here.
pub(super) fn prefix(source: &dyn Source, offset: u64) -> Result<Option<(u64, u64)>> {
    let first = source.bytes(offset, 4, "the start of a message")?;
    let mut size = word(&first);
    let mut start = offset + 4;
    if size == CONTINUATION {
        size = word(&source.bytes(start, 4, "the size of a message")?);
        start += 4;
    }
    if i32::try_from(size).is_err() {
        let what = format!("a message claims metadata of {size} bytes");
        return Err(corrupted(source.path(), offset, what));
    }
    Ok((size > 0).then_some((u64::from(size), start)))
}

/// The message at an offset; none: the stream ends here.
pub(super) fn read(source: &dyn Source, offset: u64) -> Result<Option<Framed>> {
    let Some((size, start)) = prefix(source, offset)? else {
        return Ok(None);
    };
    let metadata = source.bytes(start, size, "the metadata of a message")?;
    Ok(Some(Framed {
        metadata,
        end: start + size,
    }))
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |four| u32::from_le_bytes(*four))
}

/// Bytes of the body that a message says to have.
pub(super) fn body_size(message: &Message<'_>, path: &Path, offset: u64) -> Result<u64> {
    u64::try_from(message.bodyLength()).map_err(|_| {
        let what = format!("a message claims a body of {} bytes", message.bodyLength());
        corrupted(path, offset, what)
    })
}

/// A record batch as its metadata tells it, checked against the size of its body.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// Where its message begins, for errors.
    pub(super) offset: u64,
    pub(super) rows: u64,
    /// Length and nulls of each array.
    pub(super) nodes: Vec<(u64, u64)>,
    /// Offset in the body and size of each buffer.
    pub(super) buffers: Vec<(u64, u64)>,
    /// Data buffers of each array of views.
    pub(super) variadic: Vec<u64>,
    pub(super) codec: Option<Codec>,
    pub(super) is_v4: bool,
}

/// What a message with a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Batch,
    /// The dictionary's id, and whether it adds to what is there.
    Dictionary(i64, bool),
}

/// The record batch in a message, and what it is for; none for other messages.
pub(super) fn header(
    message: &Message<'_>,
    path: &Path,
    offset: u64,
) -> Result<Option<(Kind, Header)>> {
    let missing = || corrupted(path, offset, "a message without its record batch");
    let (kind, batch) = match message.header_type() {
        MessageHeader::RecordBatch => {
            let batch = message.header_as_record_batch().ok_or_else(missing)?;
            (Kind::Batch, batch)
        }
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch().ok_or_else(missing)?;
            let batch = dictionary.data().ok_or_else(missing)?;
            (
                Kind::Dictionary(dictionary.id(), dictionary.isDelta()),
                batch,
            )
        }
        _ => return Ok(None),
    };
    let body = body_size(message, path, offset)?;
    let header = Header {
        offset,
        rows: count(batch.length(), "rows", path, offset)?,
        nodes: nodes(&batch, path, offset)?,
        buffers: buffers(&batch, body, path, offset)?,
        variadic: match batch.variadicBufferCounts() {
            None => Vec::new(),
            Some(counts) => counts
                .iter()
                .map(|given| count(given, "variadic buffers", path, offset))
                .collect::<Result<_>>()?,
        },
        codec: codec(&batch, message, path, offset)?,
        is_v4: message.version() == MetadataVersion::V4,
    };
    Ok(Some((kind, header)))
}

fn count(given: i64, what: &str, path: &Path, offset: u64) -> Result<u64> {
    u64::try_from(given).map_err(|_| {
        let what = format!("a record batch claims {given} {what}");
        corrupted(path, offset, what)
    })
}

fn nodes(batch: &RecordBatch<'_>, path: &Path, offset: u64) -> Result<Vec<(u64, u64)>> {
    let Some(nodes) = batch.nodes() else {
        return Ok(Vec::new());
    };
    let mut checked = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let length = count(node.length(), "values", path, offset)?;
        let nulls = count(node.null_count(), "nulls", path, offset)?;
        if nulls > length {
            let what = format!("an array claims {nulls} nulls among {length} values");
            return Err(corrupted(path, offset, what));
        }
        checked.push((length, nulls));
    }
    Ok(checked)
}

/// The buffers lie in the body, and no two share a byte: so no claim of sizes can ask for more
/// memory than the body has bytes.
fn buffers(
    batch: &RecordBatch<'_>,
    body: u64,
    path: &Path,
    offset: u64,
) -> Result<Vec<(u64, u64)>> {
    let Some(buffers) = batch.buffers() else {
        return Ok(Vec::new());
    };
    let mut checked = Vec::with_capacity(buffers.len());
    for (index, buffer) in buffers.iter().enumerate() {
        let (from, size) = (buffer.offset(), buffer.length());
        let inside = u64::try_from(from).ok().zip(u64::try_from(size).ok());
        let inside = inside.filter(|(from, size)| {
            *size == 0 || from.checked_add(*size).is_some_and(|end| end <= body)
        });
        let Some(place) = inside else {
            let what =
                format!("buffer {index}, {size} bytes at {from}, passes its body of {body} bytes");
            return Err(corrupted(path, offset, what));
        };
        checked.push(place);
    }
    let mut sorted: Vec<_> = checked.iter().filter(|(_, size)| *size > 0).collect();
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        if let [(a, size), (b, _)] = pair
            && a + size > *b
        {
            let what = format!("buffers at {a} and {b} of a body overlap");
            return Err(corrupted(path, offset, what));
        }
    }
    Ok(checked)
}

fn codec(
    batch: &RecordBatch<'_>,
    message: &Message<'_>,
    path: &Path,
    offset: u64,
) -> Result<Option<Codec>> {
    let Some(compression) = batch.compression() else {
        return experimental_codec(message, path, offset);
    };
    if compression.method() != BodyCompressionMethod::BUFFER {
        let what = format!("compression method {} of a body", compression.method().0);
        return Err(corrupted(path, offset, what));
    }
    match compression.codec() {
        CompressionType::LZ4_FRAME => Ok(Some(Codec::Lz4)),
        CompressionType::ZSTD => Ok(Some(Codec::Zstd)),
        other => {
            let what = format!("compression codec {} of a body", other.0);
            Err(corrupted(path, offset, what))
        }
    }
}

/// Arrow 0.17 named the codec in the message's own metadata, before the format had a place for it.
fn experimental_codec(message: &Message<'_>, path: &Path, offset: u64) -> Result<Option<Codec>> {
    if message.version() != MetadataVersion::V4 {
        return Ok(None);
    }
    let pairs = message.custom_metadata();
    let mut named = pairs.iter().flat_map(|pairs| pairs.iter());
    let found = named.find(|pair| pair.key() == Some("ARROW:experimental_compression"));
    match found.and_then(|pair| pair.value()) {
        None => Ok(None),
        Some(name) if name.eq_ignore_ascii_case("lz4") => Ok(Some(Codec::Lz4)),
        Some(name) if name.eq_ignore_ascii_case("zstd") => Ok(Some(Codec::Zstd)),
        Some(name) => {
            let what = format!("bodies compressed by {name:?} are not read");
            Err(unsupported(path, offset, what))
        }
    }
}
