//! Whole slices for callers that hold no raw memory, and what keeps a file as such: its lock, its
//! name, the space under it.

use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use crate::base::limits::RETRIES_MAX;
use crate::error::{Error, ErrorKind, Result, is_transient_errno};

use super::capabilities::{FileKind, errno};
use super::{FileDescriptors, Io, Operation, Queue, Request};

/// An offset in a file, bytes, and the memory that its bytes go to.
pub type FilePiece<'a> = (u64, &'a mut [u8]);

/// As `FilePiece`, with the memory that its bytes come from.
pub type WrittenPiece<'a> = (u64, &'a [u8]);

/// Reads pieces of a file, as many at once as the queue takes. Says which arrived whole: the
/// others hold anything, and are the caller's to read again. A queue that failed is not given
/// back.
pub fn read_pieces(
    queue: Box<dyn Queue>,
    fd: RawFd,
    pieces: &mut [FilePiece<'_>],
) -> (Vec<bool>, Option<Box<dyn Queue>>) {
    let (moved, queue) = move_pieces(queue, fd, pieces, &[]);
    let is_whole =
        |(moved, piece): (i32, &FilePiece<'_>)| usize::try_from(moved) == Ok(piece.1.len());
    (
        moved.into_iter().zip(&*pieces).map(is_whole).collect(),
        queue,
    )
}

/// Writes and reads pieces of a file, as many at once as the queue takes, in no order. What came
/// of each, bytes or -errno, those of `reads` first: what is short, or holds an error, is the
/// caller's to do again, or not. A queue that failed is not given back, and what it had not done is
/// short.
pub fn move_pieces(
    mut queue: Box<dyn Queue>,
    fd: RawFd,
    reads: &mut [FilePiece<'_>],
    writes: &[WrittenPiece<'_>],
) -> (Vec<i32>, Option<Box<dyn Queue>>) {
    let mut moved = vec![0; reads.len() + writes.len()];
    let mut requests = Vec::with_capacity(moved.len());
    let request = |operation, token: usize, offset, pointer, size: usize| Request {
        operation,
        fd,
        offset,
        pointer,
        size: u32::try_from(size).unwrap_or(0),
        registered: false,
        token: token as u64,
    };
    // Writes first: they are what takes longest.
    for (n, (offset, memory)) in writes.iter().enumerate() {
        let from = memory.as_ptr().cast_mut();
        let (token, size) = (reads.len() + n, memory.len());
        requests.push(request(Operation::Write, token, *offset, from, size));
    }
    for (n, (offset, memory)) in reads.iter_mut().enumerate() {
        let into = memory.as_mut_ptr();
        requests.push(request(Operation::Read, n, *offset, into, memory.len()));
    }
    let mut done = Vec::with_capacity(queue.depth());
    let mut next = 0;
    loop {
        while let Some(request) = requests.get(next) {
            // SAFETY: the memory is borrowed until this returns, alone where it is read into, and
            // writes only look at theirs. This returns when nothing is in flight, or after it
            // dropped the queue, which waits for what is.
            if request.size > 0 && !unsafe { queue.push(*request) } {
                break;
            }
            next += 1;
        }
        if queue.in_flight() == 0 {
            return (moved, Some(queue));
        }
        // Woken seldom: for room for half as many again, or for all that is left.
        let in_flight = queue.in_flight();
        let minimum = if next < requests.len() {
            in_flight.div_ceil(2)
        } else {
            in_flight
        };
        if queue.wait(minimum, &mut done).is_err() {
            drop(queue);
            return (moved, None);
        }
        for completion in done.drain(..) {
            if let Some(moved) = moved.get_mut(completion.token as usize) {
                *moved = completion.result;
            }
        }
    }
}

impl dyn Io + '_ {
    /// Reads until `into` is full or the file ends, going on after short reads. Bytes read.
    ///
    /// # Errors
    /// errno.
    pub fn read_whole(
        &self,
        fd: RawFd,
        into: &mut [u8],
        offset: u64,
    ) -> std::result::Result<usize, i32> {
        whole(into.len(), is_transient_errno, |done| {
            let rest = &mut into[done..];
            // SAFETY: `rest` is writable for its length and borrowed through the call.
            unsafe { self.read_at(fd, rest.as_mut_ptr(), rest.len(), offset + done as u64) }
        })
    }

    /// Writes all of `from`, going on after short writes.
    ///
    /// # Errors
    /// errno; a part may be written.
    pub fn write_whole(&self, fd: RawFd, from: &[u8], offset: u64) -> std::result::Result<(), i32> {
        let written = whole(from.len(), is_transient_errno, |done| {
            let rest = &from[done..];
            // SAFETY: `rest` is readable for its length and borrowed through the call.
            unsafe { self.write_at(fd, rest.as_ptr(), rest.len(), offset + done as u64) }
        })?;
        complete(written, from.len())
    }

    /// Writes all of `from`; it is durable on return, other writes need not be.
    ///
    /// # Errors
    /// errno; the range holds anything then, and the file is poisoned.
    pub fn write_whole_durable(
        &self,
        fd: RawFd,
        from: &[u8],
        offset: u64,
    ) -> std::result::Result<(), i32> {
        // A sync that failed is never tried again; an interrupted call did nothing.
        let interrupted = |errno| errno == libc::EINTR;
        let written = whole(from.len(), interrupted, |done| {
            let rest = &from[done..];
            // SAFETY: `rest` is readable for its length and borrowed through the call.
            unsafe { self.write_durable_at(fd, rest.as_ptr(), rest.len(), offset + done as u64) }
        })?;
        complete(written, from.len())
    }
}

/// A device that takes nothing more is full.
fn complete(written: usize, size: usize) -> std::result::Result<(), i32> {
    if written == size {
        Ok(())
    } else {
        Err(libc::ENOSPC)
    }
}

fn whole(
    size: usize,
    again: fn(i32) -> bool,
    mut step: impl FnMut(usize) -> i64,
) -> std::result::Result<usize, i32> {
    let (mut done, mut tries) = (0, 0);
    while done < size {
        let result = step(done);
        match usize::try_from(result) {
            Ok(0) => break,
            Ok(moved) => {
                done += moved.min(size - done);
                tries = 0;
            }
            Err(_) => {
                let errno = i32::try_from(-result).unwrap_or(libc::EIO);
                tries += 1;
                if !again(errno) || tries > RETRIES_MAX {
                    return Err(errno);
                }
            }
        }
    }
    Ok(done)
}

impl FileDescriptors {
    /// Takes the file for this object alone until it drops: a second `lock` of the same file,
    /// from this or another process, is refused. Advisory (flock(2)).
    ///
    /// # Errors
    /// `Io` with EWOULDBLOCK where somebody holds it; `NotSupported` where the file system has no
    /// locks.
    pub fn lock(&self) -> Result<()> {
        loop {
            // SAFETY: plain integers.
            if unsafe { libc::flock(self.buffered(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                return Ok(());
            }
            match errno() {
                libc::EINTR => {}
                libc::EWOULDBLOCK => {
                    let message = format!(
                        "lock {}: it is open elsewhere, in this process or another; close it \
                         there first",
                        self.path().display()
                    );
                    return Err(Error::new(ErrorKind::Io, message)
                        .with_errno(libc::EWOULDBLOCK)
                        .with_path(self.path()));
                }
                errno => return Err(self.failed(errno, "lock")),
            }
        }
    }

    /// Makes the file's name durable: syncs the folder that holds it. Nothing for a block device.
    ///
    /// # Errors
    /// `Io` and `PermissionDenied` as open(2) and fsync(2) say.
    pub fn sync_name(&self, io: &dyn Io) -> Result<()> {
        if self.capabilities().kind == FileKind::BlockDevice {
            return Ok(());
        }
        // A symbolic link's target is what was made.
        let real = std::fs::canonicalize(self.path()).unwrap_or_else(|_| self.path().into());
        let folder = match real.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let what = || {
            format!(
                "make the name of {} durable in its folder",
                self.path().display()
            )
        };
        let handle = std::fs::File::open(folder).map_err(|e| {
            Error::os(e.raw_os_error().unwrap_or(libc::EIO), what()).with_path(folder)
        })?;
        match i32::try_from(-io.sync(handle.as_raw_fd())) {
            Ok(0) => Ok(()),
            errno => Err(Error::os(errno.unwrap_or(libc::EIO), what()).with_path(folder)),
        }
    }

    /// Says that reads through the page cache come in no order: the kernel then reads nothing
    /// ahead. A hint; refusing it changes nothing.
    pub fn expect_random_reads(&self) {
        // SAFETY: plain integers.
        unsafe { libc::posix_fadvise(self.buffered(), 0, 0, libc::POSIX_FADV_RANDOM) };
    }

    /// Gives the space under `size` bytes from `offset` back to the file system or device; they
    /// read as zeros afterwards or as before. Does nothing where that is not possible.
    ///
    /// # Errors
    /// `Io` as fallocate(2) says.
    pub fn discard(&self, offset: u64, size: u64) -> Result<()> {
        let (Ok(start), Ok(length)) = (libc::off_t::try_from(offset), libc::off_t::try_from(size))
        else {
            let message = format!("discard {size} bytes at {offset}: no file is that long");
            return Err(Error::new(ErrorKind::OutOfRange, message).with_path(self.path()));
        };
        if size == 0 {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        loop {
            // SAFETY: plain integers.
            if unsafe { libc::fallocate(self.buffered(), mode, start, length) } == 0 {
                return Ok(());
            }
            match errno() {
                libc::EINTR => {}
                libc::EOPNOTSUPP | libc::ENOSYS => return Ok(()),
                errno => return Err(self.failed(errno, "discard a range of").with_offset(offset)),
            }
        }
    }

    fn failed(&self, errno: i32, what: &str) -> Error {
        Error::os(errno, format!("{what} {}", self.path().display())).with_path(self.path())
    }
}
