//! What readers and writers are asked for, and what they tell.

use std::time::{Duration, Instant};

use crate::base::limits;
use crate::engine::{Buffer, Context, MemoryKind, Options, Path};
use crate::error::{Error, ErrorKind, Result};

/// Shortest and longest pause between two looks at the marks in streams.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// How long to wait before the next look at marks that had not passed since then: whoever looks
/// is late by an eighth of what the stream's work took, and looks rarely where that takes long.
pub(super) fn pause_after(since: Instant) -> Duration {
    (since.elapsed() / 8).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// What a buffer of a reader or writer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BufferState {
    /// Nothing.
    Idle = 0,
    /// Bytes are on their way into it (of a writer: its user fills it).
    Filling = 1,
    /// It holds a chunk that nobody has asked for yet.
    Ready = 2,
    /// Its user, or the user's stream, works on it.
    Processing = 3,
    /// Its bytes are on their way to the file.
    Flushing = 4,
}

/// How a reader reads.
#[derive(Debug, Clone)]
pub struct ReaderConfig {
    /// Buffers, 2 to 64.
    pub buffers: u32,
    /// Bytes of a chunk, 4 KiB to 64 GiB; 0 is four times the context's
    /// `buffer_size`: 64 MiB, unless configured. Smaller ones reach less of a fast link: threads
    /// run out of work between two of them.
    pub chunk_bytes: u64,
    /// Device or pinned memory.
    pub memory: MemoryKind,
    /// Memory to use in place of `buffers` new ones of `memory`: 2 to 64 buffers of the context,
    /// each at least as large as a chunk, none overlapping another. For many readers, one after
    /// the other. Nobody else uses them until the reader is dropped.
    pub given: Vec<Buffer>,
    /// How each chunk is transferred; deadline and stream must be left out.
    pub options: Options,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        Self {
            buffers: limits::STREAM_BUFFERS_MIN,
            chunk_bytes: 0,
            memory: MemoryKind::Device,
            given: Vec::new(),
            options: Options::default(),
        }
    }
}

impl ReaderConfig {
    /// Checks every field; the error names the first that breaks its rule.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn validate(&self) -> Result<()> {
        let broken = |text: String| Err(Error::new(ErrorKind::InvalidConfig, text));
        let (least, most) = (limits::STREAM_BUFFERS_MIN, limits::STREAM_BUFFERS_MAX);
        let given = match self.given.len() {
            0 => self.buffers,
            count => u32::try_from(count).unwrap_or(u32::MAX),
        };
        if !(least..=most).contains(&given) {
            return broken(format!(
                "buffers is {given}; it must be from {least} to {most}"
            ));
        }
        let (least, most) = (limits::STREAM_CHUNK_MIN, limits::STREAM_CHUNK_MAX);
        if self.chunk_bytes != 0 && !(least..=most).contains(&self.chunk_bytes) {
            let given = self.chunk_bytes;
            return broken(format!(
                "chunk_bytes is {given}; it must be 0 or from {least} to {most}"
            ));
        }
        let chunk = self.chunk_bytes.max(least);
        if let Some(small) = self.given.iter().find(|b| b.size() < chunk) {
            return broken(format!(
                "a given buffer has {} bytes and a chunk at least {chunk}; give larger buffers",
                small.size()
            ));
        }
        if let Some(address) = overlap(&self.given) {
            return broken(format!(
                "two given buffers have the byte at {address:#x}; give each chunk its own memory"
            ));
        }
        if !matches!(self.memory, MemoryKind::Device | MemoryKind::Pinned) {
            let given = self.memory;
            return broken(format!("memory is {given:?}; it must be device or pinned"));
        }
        if self.options.deadline.is_some() || self.options.stream.is_some() {
            return broken(
                "options of a reader have no deadline and no stream; give a timeout to next() \
                 and a stream to release()"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// Bytes of a chunk where nobody says.
#[must_use]
pub fn default_chunk(context: &Context) -> u64 {
    let bytes = context.config().buffer_size.saturating_mul(4);
    bytes.min(limits::STREAM_CHUNK_MAX)
}

/// An address that is in two of the buffers.
fn overlap(buffers: &[Buffer]) -> Option<u64> {
    let mut ranges: Vec<_> = buffers.iter().map(|b| (b.address(), b.size())).collect();
    ranges.sort_unstable();
    let mut pairs = ranges.iter().zip(ranges.iter().skip(1));
    let pair = pairs.find(|(first, second)| second.0 - first.0 < first.1);
    pair.map(|(_, second)| second.0)
}

impl ReaderConfig {
    /// Bytes of a chunk.
    pub(super) fn chunk_of(&self, context: &Context) -> u64 {
        match self.chunk_bytes {
            0 => {
                let standard = default_chunk(context);
                let given = self.given.iter().map(Buffer::size).min();
                given.map_or(standard, |given| given.min(standard))
            }
            bytes => bytes,
        }
    }

    /// The buffers, new ones of `size` bytes where none are given.
    pub(super) fn memory_of(&self, context: &Context, size: u64) -> Result<Box<[Buffer]>> {
        if !self.given.is_empty() {
            if let Some(index) = self.given.iter().position(|b| !b.is_of(context)) {
                let text = format!("given buffer {index} belongs to another context");
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
            return Ok(self.given.clone().into());
        }
        (0..self.buffers)
            .map(|_| context.alloc(self.memory, size))
            .collect()
    }
}

/// A chunk in memory: the caller's until it is released or the reader is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Which chunk of all, from 0.
    pub index: u64,
    /// Where its bytes are: a device pointer for device memory.
    pub address: u64,
    /// Bytes, at least 1; fewer than a whole chunk only at the end of a range.
    pub size: u64,
    /// Where they came from in the range's file, bytes.
    pub file_offset: u64,
    /// Which range they belong to, from 0.
    pub range: u32,
    /// Which buffer they are in, from 0.
    pub buffer: u32,
    /// The way that most of them took.
    pub path: Path,
    /// CRC32C of them, where the options asked for it.
    pub crc32c: Option<u32>,
}

/// How far a reader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderInfo {
    /// Bytes of a whole chunk.
    pub chunk_bytes: u64,
    /// Chunks in all.
    pub chunks: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Chunks that were delivered.
    pub chunks_delivered: u64,
    /// Their bytes.
    pub bytes_delivered: u64,
    /// Chunks whose bytes had not arrived when they were asked for.
    pub waits: u64,
    /// What each buffer does.
    pub buffers: Vec<BufferState>,
}
