//! Reads a header whose length nobody says, a window of the file at a time.

use crate::error::Result;
use crate::formats::Source;
use crate::formats::tensor::corrupted;

/// Bytes read from the source at once.
const WINDOW: u64 = 64 << 10;

/// A place in a source. Little-endian.
pub(super) struct Cursor<'a> {
    source: &'a dyn Source,
    /// The next byte.
    at: u64,
    /// Where the header must have ended, bytes.
    end: u64,
    window: Vec<u8>,
    /// Where the window begins.
    from: u64,
}

impl<'a> Cursor<'a> {
    /// From the start of the source, never past its first `most` bytes.
    pub(super) fn new(source: &'a dyn Source, most: u64) -> Self {
        Self {
            source,
            at: 0,
            end: source.size().min(most),
            window: Vec::new(),
            from: 0,
        }
    }

    /// The place of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes that are left for the header.
    pub(super) fn left(&self) -> u64 {
        self.end - self.at
    }

    /// Checks that `count` things of at least `each` bytes can follow.
    pub(super) fn expect(&self, count: u64, each: u64, what: &str) -> Result<usize> {
        let fits = count.checked_mul(each).is_some_and(|n| n <= self.left());
        match usize::try_from(count) {
            Ok(count) if fits => Ok(count),
            _ => {
                let what = format!(
                    "{count} {what} do not fit into the {} bytes left",
                    self.left()
                );
                Err(corrupted(self.source.path(), self.at, what))
            }
        }
    }

    /// The next `size` bytes.
    pub(super) fn bytes(&mut self, size: u64, what: &str) -> Result<&[u8]> {
        let size = self.expect(size, 1, what)? as u64;
        let inside = self.at >= self.from && self.at + size <= self.from + self.window.len() as u64;
        if !inside {
            let window = size.max(WINDOW).min(self.left());
            self.window = self.source.bytes(self.at, window, what)?;
            self.from = self.at;
        }
        let begin = (self.at - self.from) as usize;
        self.at += size;
        // Inside, as was just made sure.
        Ok(self
            .window
            .get(begin..begin + size as usize)
            .unwrap_or_default())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.bytes(N as u64, what)?;
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A u64 length and so many bytes.
    pub(super) fn text(&mut self, what: &str) -> Result<&[u8]> {
        let size = self.u64(what)?;
        self.bytes(size, what)
    }

    /// A damaged header: what is wrong with the byte at `at`.
    pub(super) fn wrong(&self, at: u64, what: impl std::fmt::Display) -> crate::error::Error {
        corrupted(self.source.path(), at, what)
    }
}
