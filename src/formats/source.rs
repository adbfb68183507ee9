//! Where metadata is read from: a file, or bytes in memory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::File;
use crate::error::{Error, ErrorKind, Result};

/// Bytes at offsets. What a format says of its contents is read through this, in ordinary memory;
/// the contents themselves go through a [`super::Plan`].
pub trait Source: Send + Sync + fmt::Debug {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// Where it comes from, for messages.
    fn path(&self) -> &Path;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// `Corrupted` with the offset when it ends before that; what the file says.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()>;

    /// `size` bytes from `offset` on. `what` is named when they are not there; nothing is allocated
    /// then.
    ///
    /// # Errors
    /// As `read`, and `OutOfHostMemory`.
    fn bytes(&self, offset: u64, size: u64, what: &str) -> Result<Vec<u8>> {
        if offset.checked_add(size).is_none_or(|end| end > self.size()) {
            return Err(beyond(self.path(), what, offset, size, self.size()));
        }
        let mut bytes = Vec::new();
        // In two steps: a size that a file claims must not abort the process.
        let wanted = usize::try_from(size).unwrap_or(usize::MAX);
        bytes.try_reserve_exact(wanted).map_err(|_| {
            let message = format!(
                "read {what} of {}: no memory for {size} bytes",
                self.path().display()
            );
            Error::new(ErrorKind::OutOfHostMemory, message)
        })?;
        bytes.resize(wanted, 0);
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }
}

fn beyond(path: &Path, what: &str, offset: u64, size: u64, end: u64) -> Error {
    let message = format!(
        "read {what} of {}: {size} bytes from {offset} on pass the end at {end}; the file is cut \
         or damaged",
        path.display()
    );
    Error::new(ErrorKind::Corrupted, message)
        .with_path(path)
        .with_offset(offset)
}

/// A file as it was when this was made: what it grows later is not seen.
#[derive(Debug, Clone)]
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    /// Looks at the file's size.
    ///
    /// # Errors
    /// What the file says.
    pub fn new(file: &File) -> Result<Self> {
        Ok(Self {
            size: file.size()?,
            file: file.clone(),
        })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let read = self.file.read_bytes(offset, into)?;
        if read < into.len() {
            let (size, end) = (into.len() as u64, offset + read as u64);
            return Err(beyond(self.path(), "a part", offset, size, end));
        }
        Ok(())
    }
}

/// Bytes in memory.
#[derive(Clone)]
pub struct MemorySource {
    bytes: Arc<[u8]>,
    name: PathBuf,
}

impl MemorySource {
    /// Keeps the bytes; `name` stands in messages where a path would.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>, name: &str) -> Self {
        Self {
            bytes: bytes.into(),
            name: PathBuf::from(name),
        }
    }
}

impl Source for MemorySource {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn path(&self) -> &Path {
        &self.name
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let size = into.len() as u64;
        let end = offset.checked_add(size).filter(|end| *end <= self.size());
        let Some(end) = end else {
            return Err(beyond(&self.name, "a part", offset, size, self.size()));
        };
        into.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource")
            .field("name", &self.name)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_the_end_is_an_error_with_an_offset_and_allocates_nothing() {
        let source = MemorySource::new(vec![1, 2, 3, 4], "four bytes");
        assert_eq!(source.bytes(1, 2, "the middle").expect("there"), [2, 3]);
        for (offset, size) in [(4, 1), (0, 5), (u64::MAX, 2), (1, u64::MAX)] {
            let error = source.bytes(offset, size, "a table").expect_err("beyond");
            assert_eq!(error.kind(), ErrorKind::Corrupted);
            assert_eq!(error.offset(), Some(offset));
            assert!(error.message().contains("a table"), "{error}");
        }
        let mut one = [0];
        assert!(source.read(4, &mut one).is_err());
        assert!(source.read(u64::MAX, &mut one).is_err());
    }
}
