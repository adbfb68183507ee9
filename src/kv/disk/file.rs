//! A file or block device as a disk: past the page cache where the file can, locked for one store.

use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ThreadId};

use parking_lot::Mutex;

use super::{BLOCK, Disk, ReadAndWritten, check, named};
use crate::base::align_down;
use crate::error::{Error, Result, is_transient_errno};
use crate::io::{FileDescriptors, FilePiece, Io, OpenMode, Queue, WrittenPiece};
use crate::io::{move_pieces, read_pieces};
use crate::kv::bugs::{self, Bug};

/// Pieces that are read at once.
const DEPTH: usize = 16;
/// Queues that are kept, of the threads that read last.
const QUEUES: usize = 8;

/// A disk over [`FileDescriptors`] and a way to do I/O. Closes and unlocks when it drops.
#[derive(Debug)]
pub struct FileDisk {
    io: Arc<dyn Io>,
    file: FileDescriptors,
    /// The descriptor that all I/O uses but `read_again`, so that no two caches can disagree.
    fd: RawFd,
    /// Bytes; whole blocks.
    size: AtomicU64,
    /// Each is for one thread: a ring is tied to the one that made it.
    queues: Mutex<Vec<(ThreadId, Box<dyn Queue>)>>,
}

impl FileDisk {
    /// Opens (or makes, with `mode.create`) a regular file or block device, takes it for this
    /// object alone, and makes what is in it, and its name where it may be new, durable: what is
    /// read later was not only in some cache.
    ///
    /// # Errors
    /// As [`FileDescriptors::open`] and [`FileDescriptors::lock`]; `Io` when the sync fails.
    pub fn open(path: &Path, mode: OpenMode, io: Arc<dyn Io>) -> Result<Self> {
        // Emptying it must wait until it is surely ours.
        let gentle = OpenMode {
            truncate: false,
            ..mode
        };
        let file = FileDescriptors::open(path, gentle)?;
        file.lock()?;
        if mode.truncate && file.size()? > 0 {
            file.set_size(0)?;
        }
        let able = file.capabilities();
        let fits = |alignment: u32| alignment > 0 && BLOCK.is_multiple_of(alignment as usize);
        let direct = file
            .direct()
            .filter(|_| fits(able.direct_offset_alignment) && fits(able.direct_memory_alignment));
        let fd = direct.unwrap_or(file.buffered());
        // Single pages of small values: what lies beside them is not wanted.
        file.expect_random_reads();
        let size = align_down(file.size()?, BLOCK as u64);
        let disk = Self {
            io,
            file,
            fd,
            size: AtomicU64::new(size),
            queues: Mutex::default(),
        };
        if mode.write {
            disk.flush()?;
        }
        if mode.create && !bugs::is_on(Bug::MissingDirSync) {
            disk.sync_name()?;
        }
        Ok(disk)
    }

    /// The descriptors behind it.
    #[must_use]
    pub fn descriptors(&self) -> &FileDescriptors {
        &self.file
    }

    /// Whether I/O goes past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.file.direct() == Some(self.fd)
    }

    fn read_by(&self, fd: RawFd, offset: u64, into: &mut [u8]) -> Result<()> {
        check(self, "read", offset, into)?;
        let size = into.len();
        match self.io.read_whole(fd, into, offset) {
            Ok(read) if read == size => Ok(()),
            Ok(_) => Err(self.failed(libc::EIO, "read past the end of the file,", size, offset)),
            Err(errno) => Err(self.failed(errno, "read", size, offset)),
        }
    }

    /// This thread's queue, or a new one, where there may be one.
    fn take_queue(&self) -> Option<Box<dyn Queue>> {
        let me = thread::current().id();
        let mut queues = self.queues.lock();
        if let Some(n) = queues.iter().position(|(owner, _)| *owner == me) {
            return Some(queues.remove(n).1);
        }
        drop(queues);
        self.io.queue(DEPTH).ok()
    }

    fn keep_queue(&self, queue: Box<dyn Queue>) {
        let mut queues = self.queues.lock();
        let oldest = (queues.len() >= QUEUES).then(|| queues.remove(0));
        queues.push((thread::current().id(), queue));
        drop(queues);
        drop(oldest);
    }

    fn failed(&self, errno: i32, what: &str, size: usize, offset: u64) -> Error {
        let path = self.file.path().display();
        let error = Error::os(errno, format!("{what} {size} bytes at {offset} of {path}"));
        named(self, error, offset)
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    fn resize(&self, size: u64) -> Result<()> {
        let size = align_down(size, BLOCK as u64);
        self.file.set_size(size)?;
        self.size.store(size, Relaxed);
        Ok(())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.read_by(self.fd, offset, into)
    }

    /// Through the page cache: a write past it takes the old copy out.
    fn read_again(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.read_by(self.file.buffered(), offset, into)
    }

    fn read_many(&self, pieces: &mut [FilePiece<'_>]) -> Result<u64> {
        for (offset, into) in &*pieces {
            check(self, "read", *offset, into)?;
        }
        let queue = if pieces.len() > 1 {
            self.take_queue()
        } else {
            None
        };
        let (mut whole, mut by_uring) = (vec![false; pieces.len()], 0);
        if let Some(queue) = queue {
            let (arrived, queue) = read_pieces(queue, self.fd, pieces);
            if let Some(queue) = queue {
                self.keep_queue(queue);
            }
            if self.io.name() == "io_uring" {
                by_uring = arrived.iter().filter(|arrived| **arrived).count() as u64;
            }
            whole = arrived;
        }
        // What came short or failed: again, with the usual patience and errors.
        for ((offset, into), whole) in pieces.iter_mut().zip(whole) {
            if !whole {
                self.read_by(self.fd, *offset, into)?;
            }
        }
        Ok(by_uring)
    }

    fn read_and_write(
        &self,
        reads: &mut [FilePiece<'_>],
        writes: &[WrittenPiece<'_>],
    ) -> ReadAndWritten {
        let fits = reads
            .iter()
            .all(|(at, into)| check(self, "read", *at, into).is_ok())
            && writes
                .iter()
                .all(|(at, from)| check(self, "write", *at, from).is_ok());
        let many = fits && reads.len() + writes.len() > 1;
        let queue = if many { self.take_queue() } else { None };
        // Nothing was moved yet, where there is no queue.
        let mut moved = vec![0; reads.len() + writes.len()];
        let mut done = ReadAndWritten::default();
        if let Some(queue) = queue {
            let kept;
            (moved, kept) = move_pieces(queue, self.fd, reads, writes);
            if let Some(queue) = kept {
                self.keep_queue(queue);
            }
        }
        let (read, written) = moved.split_at(reads.len());
        for ((offset, into), moved) in reads.iter_mut().zip(read) {
            let is_whole = usize::try_from(*moved) == Ok(into.len());
            done.by_uring += u64::from(is_whole && self.io.name() == "io_uring");
            done.reads.push(if is_whole {
                Ok(())
            } else {
                self.read_by(self.fd, *offset, into)
            });
        }
        for ((offset, from), moved) in writes.iter().zip(written) {
            let (size, errno) = (from.len(), moved.saturating_neg());
            done.writes.push(if usize::try_from(*moved) == Ok(size) {
                Ok(())
            } else if errno > 0 && !is_transient_errno(errno) {
                // Not again: it would say that all is well where it was not.
                Err(self.failed(errno, "write", size, *offset))
            } else {
                self.write(*offset, from)
            });
        }
        done
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        check(self, "write", offset, from)?;
        self.io
            .write_whole(self.fd, from, offset)
            .map_err(|errno| self.failed(errno, "write", from.len(), offset))
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        check(self, "write durably", offset, from)?;
        self.io
            .write_whole_durable(self.fd, from, offset)
            .map_err(|errno| self.failed(errno, "write durably", from.len(), offset))
    }

    fn flush(&self) -> Result<()> {
        match i32::try_from(-self.io.sync(self.fd)) {
            Ok(0) => Ok(()),
            errno => {
                let what = format!("flush {}", self.file.path().display());
                let errno = errno.unwrap_or(libc::EIO);
                Err(Error::os(errno, what).with_path(self.file.path()))
            }
        }
    }

    fn sync_name(&self) -> Result<()> {
        self.file.sync_name(&*self.io)
    }

    fn discard(&self, offset: u64, size: u64) -> Result<()> {
        self.file.discard(offset, size)
    }

    fn path(&self) -> Option<&Path> {
        Some(self.file.path())
    }
}
