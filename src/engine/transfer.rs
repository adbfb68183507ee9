//! What a caller asks for, and what it gets back.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Buffer, File};
use crate::config::PathPolicy;
use crate::device::Stream;
use crate::io::Operation;

/// The way that bytes took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Path {
    /// Nothing moved.
    None = 0,
    /// Straight between host memory and the page cache.
    Host = 1,
    /// Straight between host memory and the storage device (O_DIRECT).
    HostDirect = 2,
    /// O_DIRECT through pinned staging memory.
    Bounce = 3,
    /// The page cache through pinned staging memory.
    PageCache = 4,
    /// cuFile.
    CuFile = 5,
}

impl Path {
    /// All paths, in the order of their numbers.
    pub const ALL: [Self; crate::metrics::PATHS] = [
        Self::None,
        Self::Host,
        Self::HostDirect,
        Self::Bounce,
        Self::PageCache,
        Self::CuFile,
    ];

    /// A short name: "bounce", "page-cache", ...
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
            Self::HostDirect => "host-direct",
            Self::Bounce => "bounce",
            Self::PageCache => "page-cache",
            Self::CuFile => "cufile",
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One range of a file and one range of a buffer.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Read or write.
    pub operation: Operation,
    /// The file.
    pub file: File,
    /// Offset in the file, bytes.
    pub file_offset: u64,
    /// The memory.
    pub buffer: Buffer,
    /// Offset in the buffer, bytes.
    pub buffer_offset: u64,
    /// Bytes.
    pub size: u64,
}

/// A part of a buffer, for scatter and gather.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The memory.
    pub buffer: Buffer,
    /// Offset in the buffer, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Transfers that follow each other. Of two that name one sequence, the one that was submitted
/// first is worked on first, by all threads together; other transfers take turns with them. For
/// a stream of chunks: the next one is soon there, instead of several at once and late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence(NonZeroU64);

impl Sequence {
    /// A sequence that nobody else has.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two of them differ")]
    pub fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let next = LAST.fetch_add(1, Relaxed).saturating_add(1);
        Self(NonZeroU64::new(next).unwrap_or(NonZeroU64::MAX))
    }
}

/// How to carry out transfers. `None` means as the context is configured.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Give up what has not started after this long.
    pub deadline: Option<Duration>,
    /// Which way the bytes may take.
    pub path: Option<PathPolicy>,
    /// Whether to compute a CRC32C of what moves.
    pub checksum: Option<bool>,
    /// Whether another path may step in where one refuses.
    pub fallback: Option<bool>,
    /// Order the transfer in this stream: it starts after the work that is in the stream, and
    /// later work in the stream starts after it.
    pub stream: Option<Stream>,
    /// The sequence that the transfer belongs to.
    pub sequence: Option<Sequence>,
}

impl Options {
    /// Whether all is left to the context.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.deadline.is_none()
            && self.path.is_none()
            && self.checksum.is_none()
            && self.fallback.is_none()
            && self.stream.is_none()
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Bytes moved. Fewer than asked for when the file ended.
    pub bytes: u64,
    /// The way most bytes took.
    pub path: Path,
    /// All ways that were taken: bit `1 << Path as u32` each.
    pub paths: u32,
    /// CRC32C of the bytes in file order, when asked for.
    pub crc32c: Option<u32>,
    /// From submission to completion, nanoseconds.
    pub latency_ns: u64,
    /// Retries after transient errors.
    pub retries: u32,
    /// Pieces that went another way after their path refused.
    pub fallbacks: u32,
}

impl Completion {
    /// A transfer that took one path, without checksum, retry or fallback.
    #[inline]
    pub(super) fn of_one(bytes: u64, path: Path, latency_ns: u64) -> Self {
        let moved = bytes > 0;
        Self {
            bytes,
            path: if moved { path } else { Path::None },
            paths: if moved { 1 << path as u32 } else { 0 },
            crc32c: None,
            latency_ns,
            retries: 0,
            fallbacks: 0,
        }
    }
}
