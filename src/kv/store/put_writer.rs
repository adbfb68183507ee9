//! Putting a value piece by piece, from host memory or by writes that the caller does itself.

use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::value::ValueWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::wal::Lsn;

/// A value in the making. Nothing of it is visible before `commit`; dropped, it never was.
#[derive(Debug)]
pub struct PutWriter {
    shared: Arc<Shared>,
    key: Vec<u8>,
    hint: u64,
    /// What came so far, while it may still be a small value.
    small: Vec<u8>,
    large: Option<ValueWriter>,
    len: u64,
}

/// Room on the disk that the caller fills itself, from device memory say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRun {
    /// Where on the disk, bytes: a whole block.
    pub offset: u64,
    /// Bytes: whole blocks.
    pub len: u64,
    /// Bytes that each checksum must cover.
    pub chunk: u64,
}

impl PutWriter {
    pub(crate) fn new(shared: &Arc<Shared>, key: &[u8], size_hint: u64) -> Result<Self> {
        shared.check_key(key)?;
        shared.root.check()?;
        Ok(Self {
            shared: Arc::clone(shared),
            key: key.to_vec(),
            hint: size_hint,
            small: Vec::new(),
            large: None,
            len: 0,
        })
    }

    /// Adds bytes at the end of the value.
    ///
    /// # Errors
    /// `NoSpace`, `TimedOut`, `Io`, `OutOfRange`; the value cannot be committed then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        if self.len > super::config::VALUE_MAX {
            let message = format!("put a value of {} bytes: it is too long", self.len);
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        if let Some(large) = &mut self.large {
            return large.write(bytes);
        }
        if self.len <= self.shared.config.inline_max as u64 {
            self.small.extend(bytes);
            return Ok(());
        }
        let small = std::mem::take(&mut self.small);
        let large = self.large()?;
        large.write(&small)?;
        large.write(bytes)
    }

    fn large(&mut self) -> Result<&mut ValueWriter> {
        if self.large.is_none() {
            let mut large = ValueWriter::new(&self.shared, self.key.len(), None)?;
            large.set_hint(self.hint);
            self.large = Some(large);
        }
        self.large
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a value has no writer"))
    }

    /// Bytes that the value has so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes room for up to `bytes` of the value, which the caller writes there itself and then
    /// reports with `fill_run`. What was written before must end at a whole checksum chunk.
    ///
    /// # Errors
    /// `InvalidArgument` inside a chunk; `NoSpace`, `TimedOut`.
    pub fn reserve_run(&mut self, bytes: u64) -> Result<DeviceRun> {
        let small = std::mem::take(&mut self.small);
        let large = self.large()?;
        large.write(&small)?;
        let (run, chunk) = large.reserve(bytes)?;
        Ok(DeviceRun {
            offset: run.offset,
            len: run.bytes,
            chunk,
        })
    }

    /// Says that the first `len` bytes of the run are written, with the CRC32C of each chunk.
    /// Only the last run of a value may end inside a chunk.
    ///
    /// # Errors
    /// `InvalidArgument` when the run was not reserved last, or the checksums do not fit.
    pub fn fill_run(&mut self, run: &DeviceRun, len: u64, crcs: &[u32]) -> Result<()> {
        self.len += len;
        let large = self.large()?;
        large.fill(run.offset, len, run.chunk, crcs)?;
        self.shared.disk.add_write(len);
        Ok(())
    }

    /// Makes the value visible in place of what the key had, and waits until it is durable.
    ///
    /// # Errors
    /// `NoSpace`, `TimedOut`, `Poisoned`, `Io`.
    pub fn commit(self) -> Result<Lsn> {
        let shared = Arc::clone(&self.shared);
        let lsn = self.commit_async()?;
        shared.wal.wait(lsn, None::<Instant>)?;
        Ok(lsn)
    }

    /// Makes the value visible; durable when `Store::wait` of the result returns.
    ///
    /// # Errors
    /// As `commit`.
    pub fn commit_async(mut self) -> Result<Lsn> {
        match self.large.take() {
            None => self.shared.put(&self.key, &self.small),
            Some(large) => {
                let stored = large.finish()?;
                self.shared.put_stored(&self.key, stored)
            }
        }
    }
}
