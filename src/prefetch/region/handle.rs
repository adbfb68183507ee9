//! A mapped region in a program's hands.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Inner;
use super::index::{Entry, Wanted};
use crate::engine::{Buffer, File};
use crate::error::{Error, ErrorKind, Result};

/// A range of a file in device memory, held as long as this handle lives.
///
/// May be used from many threads. Kernels may use the memory at any time; what they wrote has to
/// be complete before it is flushed. After the handle is dropped the memory may become another
/// region's.
pub struct Region {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    file: File,
    buffer: Buffer,
    range: Range<u64>,
    valid: u64,
}

impl Region {
    pub(super) fn new(
        inner: Arc<Inner>,
        entry: Arc<Entry>,
        wanted: &Wanted<'_>,
        buffer: Buffer,
        valid: u64,
    ) -> Self {
        Self {
            inner,
            entry,
            file: wanted.file.clone(),
            buffer,
            range: wanted.range.clone(),
            valid,
        }
    }

    /// Where its first byte is: a device pointer.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.buffer.address() + (self.range.start - self.entry.aligned.start)
    }

    /// Offset in the file, bytes: what was asked for.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.range.start
    }

    /// Bytes: what was asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Bytes that the file had of it when it was read; those behind are zero.
    #[must_use]
    pub fn valid_bytes(&self) -> u64 {
        self.valid
    }

    /// The whole memory behind it: address, file offset and size, all aligned as the context
    /// says. Bytes around the region are those of the file as it was read, or of other regions
    /// in the same memory; they are not to be written.
    #[must_use]
    pub fn aligned(&self) -> (u64, u64, u64) {
        let aligned = &self.entry.aligned;
        (
            self.buffer.address(),
            aligned.start,
            aligned.end - aligned.start,
        )
    }

    /// The file that it was mapped from.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of it that are marked dirty.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        let mut index = self.inner.index.lock();
        let state = index.state(&self.entry);
        state.map_or(0, |s| s.dirty.total_inside(&self.range))
    }

    /// Counts as a use: what is used least recently makes room first, once nobody holds it.
    pub fn touch(&self) {
        let mut index = self.inner.index.lock();
        let tick = index.tick();
        if let Some(state) = index.state(&self.entry) {
            state.used = tick;
        }
    }

    /// Marks `size` bytes from `offset` in the region as changed: they will be written, at the
    /// latest before the memory is used for something else.
    ///
    /// # Errors
    /// `ReadOnly` when it was mapped from a file that is not open for writing; `OutOfRange`
    /// behind `valid_bytes`, since a region never extends its file; `InvalidArgument` when
    /// another region that is held has its own copy of a byte: one of the two has to go first;
    /// and a failed write of an earlier eviction, once. Nothing is marked then.
    pub fn mark_dirty(&self, offset: u64, size: u64) -> Result<()> {
        self.inner.tell(self.entry.identity)?;
        let range = self.check_mark(offset, size)?;
        let mut index = self.inner.index.lock();
        let others: Vec<Arc<Entry>> = index
            .entries
            .iter()
            .filter(|e| e.number != self.entry.number && e.overlaps(self.entry.identity, &range))
            .cloned()
            .collect();
        for other in &others {
            if index.state(other).is_some_and(|s| s.holds > 0) {
                return Err(self.two_copies(&range, &other.range));
            }
        }
        for other in &others {
            if let Some(state) = index.state(other) {
                state.is_old = true;
            }
        }
        let tick = index.tick();
        if let Some(state) = index.state(&self.entry) {
            state.used = tick;
            state.dirty.add(range);
            if !state.file.mode().write {
                state.file = self.file.clone();
            }
        }
        Ok(())
    }

    /// The range of the file that a mark means.
    fn check_mark(&self, offset: u64, size: u64) -> Result<Range<u64>> {
        let path = self.file.path();
        if !self.file.mode().write {
            let text = format!(
                "mark bytes of {} dirty: the file is not open for writing; open it so and map it \
                 again",
                path.display()
            );
            return Err(Error::new(ErrorKind::ReadOnly, text).with_path(path));
        }
        match offset.checked_add(size) {
            Some(end) if end <= self.valid => Ok(self.range.start + offset..self.range.start + end),
            _ => {
                let text = format!(
                    "mark {size} bytes from {offset} of a region of {} dirty: the file had {} \
                     bytes there; extend the file and map it again",
                    path.display(),
                    self.valid
                );
                let error = Error::new(ErrorKind::OutOfRange, text).with_path(path);
                Err(error.with_offset(self.range.start.saturating_add(offset)))
            }
        }
    }

    fn two_copies(&self, range: &Range<u64>, other: &Range<u64>) -> Error {
        let path = self.file.path();
        let text = format!(
            "mark bytes {} to {} of {} dirty: a region that is held has its own copy of bytes {} \
             to {}; unmap that one first",
            range.start,
            range.end,
            path.display(),
            other.start,
            other.end
        );
        let error = Error::new(ErrorKind::InvalidArgument, text);
        error.with_path(path).with_offset(range.start)
    }

    /// Writes what is dirty in the memory behind it and waits. Bytes written; not durable before
    /// `File::sync`.
    ///
    /// # Errors
    /// As `Regions::flush`; what could not be written stays dirty.
    pub fn flush(&self) -> Result<u64> {
        self.inner.tell(self.entry.identity)?;
        self.inner.flush_entry(&self.entry)
    }

    /// Gives up what is marked dirty in it: it will not be written. The memory keeps its bytes
    /// for those who hold it; who maps it later reads the file.
    pub fn discard(&self) {
        let _writing = self.entry.writing.lock();
        let mut index = self.inner.index.lock();
        if let Some(state) = index.state(&self.entry) {
            state.dirty.remove(&self.range);
            state.is_old = true;
        }
    }

    /// Lets go of it, as dropping it does. It stays in device memory until room is needed.
    pub fn unmap(self) {
        drop(self);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut index = self.inner.index.lock();
        let tick = index.tick();
        if let Some(state) = index.state(&self.entry) {
            state.holds -= 1;
            state.used = tick;
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Region({:#x}, bytes {} to {} of {})",
            self.address(),
            self.range.start,
            self.range.end,
            self.file.path().display()
        )
    }
}
