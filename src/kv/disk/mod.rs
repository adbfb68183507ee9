//! What a store asks of a disk: blocks at offsets, durable writes, flushes.
//!
//! [`FileDisk`] is a file or block device, [`DaxDisk`] a file in persistent memory, and
//! `sim::SimDisk` in memory. Guarded by `tests/kv_disk.rs`, which runs the same tests over all.

mod blocks;
mod dax;
mod file;
mod mapping;

use std::fmt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::io::{FilePiece, WrittenPiece};

pub use blocks::{Blocks, SharedBlocks};
pub use dax::DaxDisk;
pub use file::FileDisk;

/// The unit of every read, write and offset, bytes.
pub const BLOCK: usize = 4096;

/// What came of several reads and writes.
#[derive(Debug, Default)]
pub struct ReadAndWritten {
    /// Of each read, in order.
    pub reads: Vec<Result<()>>,
    /// Of each write, in order.
    pub writes: Vec<Result<()>>,
    /// Reads that io_uring did.
    pub by_uring: u64,
}

/// A disk. Calls block; many threads may call at once.
///
/// Offsets and lengths are multiples of [`BLOCK`] and memory is aligned to it (use [`Blocks`]);
/// anything else is answered with `InvalidArgument`.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Size, bytes.
    fn size(&self) -> u64;

    /// Makes it `size` bytes: cut, or extended with zeros. Durable after a flush.
    ///
    /// # Errors
    /// `NotSupported` for a block device, `NoSpace` and `Io` as the system says.
    fn resize(&self, size: u64) -> Result<()>;

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// `Io`; `OutOfRange` past the end. `into` holds anything then.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()>;

    /// As `read`, for few bytes that may be wanted again soon: the system may keep a copy. Only
    /// for what is verified by a checksum from elsewhere, and never to decide what is durable.
    ///
    /// # Errors
    /// As `read`.
    fn read_again(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.read(offset, into)
    }

    /// As `read`, for several pieces at once: the disk may work at all of them together. Answers
    /// how many of them io_uring read.
    ///
    /// # Errors
    /// As `read`.
    fn read_many(&self, pieces: &mut [FilePiece<'_>]) -> Result<u64> {
        for (offset, into) in pieces {
            self.read(*offset, into)?;
        }
        Ok(0)
    }

    /// As `read` and `write`, for several pieces of which none touches what another one does: the
    /// disk may work at all of them together.
    fn read_and_write(
        &self,
        reads: &mut [FilePiece<'_>],
        writes: &[WrittenPiece<'_>],
    ) -> ReadAndWritten {
        let mut done = ReadAndWritten::default();
        for (offset, from) in writes {
            done.writes.push(self.write(*offset, from));
        }
        for (offset, into) in reads {
            done.reads.push(self.read(*offset, into));
        }
        done
    }

    /// Writes all of `from` at `offset`. Durable only after a [`Disk::flush`] that began after
    /// this returned.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `OutOfRange` past the end. The range holds anything then.
    fn write(&self, offset: u64, from: &[u8]) -> Result<()>;

    /// Writes all of `from` at `offset`. This range is durable on return; nothing is said about
    /// other writes.
    ///
    /// # Errors
    /// As `write`. A caller must not try again: what failed to become durable once may be
    /// reported as durable the second time without being so.
    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()>;

    /// Makes everything durable that was written, and the size that was set, before it began.
    ///
    /// # Errors
    /// `Io`. Never tried again, as `write_durable`.
    fn flush(&self) -> Result<()>;

    /// Makes the disk's own name durable, where it has one: a new file is there after a crash
    /// only when its folder was synced.
    ///
    /// # Errors
    /// `Io`.
    fn sync_name(&self) -> Result<()> {
        Ok(())
    }

    /// Gives space back, where that is possible. The range holds zeros or what it held.
    ///
    /// # Errors
    /// `Io`.
    fn discard(&self, _offset: u64, _size: u64) -> Result<()> {
        Ok(())
    }

    /// The file, where there is one.
    fn path(&self) -> Option<&Path> {
        None
    }
}

/// Checks what every disk demands of a read or write.
pub(super) fn check(disk: &dyn Disk, what: &str, offset: u64, memory: &[u8]) -> Result<()> {
    let (block, len) = (BLOCK as u64, memory.len() as u64);
    if !offset.is_multiple_of(block)
        || !len.is_multiple_of(block)
        || !(memory.as_ptr() as usize).is_multiple_of(BLOCK)
    {
        let message = format!(
            "{what} {len} bytes at {offset}: offset, length and memory must be multiples of \
             {block}; use Blocks"
        );
        return Err(named(
            disk,
            Error::new(ErrorKind::InvalidArgument, message),
            offset,
        ));
    }
    let size = disk.size();
    if offset.checked_add(len).is_none_or(|end| end > size) {
        let message = format!("{what} {len} bytes at {offset}: the disk ends at {size}");
        return Err(named(
            disk,
            Error::new(ErrorKind::OutOfRange, message),
            offset,
        ));
    }
    Ok(())
}

/// Attaches the offset, and the path where there is one.
pub(super) fn named(disk: &dyn Disk, error: Error, offset: u64) -> Error {
    let error = error.with_offset(offset);
    match disk.path() {
        Some(path) => error.with_path(path),
        None => error,
    }
}
