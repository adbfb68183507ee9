//! pread and pwrite: works wherever there is a kernel. Its queue runs each operation on the
//! thread that submits, in order.

use std::fmt;
use std::os::fd::RawFd;

use crate::base::limits::OUTSTANDING_IO_MAX;
use crate::error::{Error, ErrorKind, Result};

use super::capabilities::errno;
use super::{Completion, Io, Operation, Queue, Request};

/// I/O by pread(2) and pwrite(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Posix;

impl Io for Posix {
    fn name(&self) -> &'static str {
        "posix"
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn Queue>> {
        check_depth(depth)?;
        Ok(Box::new(PosixQueue {
            depth,
            pushed: Vec::new(),
            finished: Vec::new(),
        }))
    }

    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        let Ok(offset) = libc::off_t::try_from(offset) else {
            return -i64::from(libc::EINVAL);
        };
        // SAFETY: the caller promises `size` writable bytes; the kernel checks the rest.
        retry(|| unsafe { libc::pread(fd, pointer.cast(), size, offset) })
    }

    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        let Ok(offset) = libc::off_t::try_from(offset) else {
            return -i64::from(libc::EINVAL);
        };
        // SAFETY: the caller promises `size` readable bytes; the kernel checks the rest.
        retry(|| unsafe { libc::pwrite(fd, pointer.cast(), size, offset) })
    }

    unsafe fn write_durable_at(
        &self,
        fd: RawFd,
        pointer: *const u8,
        size: usize,
        offset: u64,
    ) -> i64 {
        let Ok(at) = libc::off_t::try_from(offset) else {
            return -i64::from(libc::EINVAL);
        };
        let piece = libc::iovec {
            iov_base: pointer.cast_mut().cast(),
            iov_len: size,
        };
        // One call that the device may do as one forced write, and that blocks: completions of
        // io_uring would wait behind whatever keeps the processors busy.
        // SAFETY: the caller promises `size` readable bytes; `piece` lives through the call.
        let result =
            retry(|| unsafe { libc::pwritev2(fd, &raw const piece, 1, at, libc::RWF_DSYNC) });
        match i32::try_from(-result) {
            Ok(libc::EOPNOTSUPP | libc::ENOSYS) => {}
            _ => return result,
        }
        // SAFETY: the same promise.
        let written = unsafe { self.write_at(fd, pointer, size, offset) };
        match self.sync(fd) {
            error if written >= 0 && error < 0 => error,
            _ => written,
        }
    }

    fn sync(&self, fd: RawFd) -> i64 {
        // SAFETY: a plain integer; the kernel checks the descriptor.
        retry(|| unsafe { libc::fdatasync(fd) } as isize)
    }
}

/// Refuses a queue depth that no queue serves.
pub(super) fn check_depth(depth: usize) -> Result<()> {
    if (1..=OUTSTANDING_IO_MAX as usize).contains(&depth) {
        return Ok(());
    }
    let message = format!("make a queue of depth {depth}: it must be 1 to {OUTSTANDING_IO_MAX}");
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// Repeats a call that a signal interrupted. Its result, or -errno.
fn retry(mut call: impl FnMut() -> isize) -> i64 {
    loop {
        let result = call();
        if result >= 0 {
            return result as i64;
        }
        let errno = errno();
        if errno != libc::EINTR {
            return -i64::from(errno);
        }
    }
}

struct PosixQueue {
    depth: usize,
    pushed: Vec<Request>,
    finished: Vec<Completion>,
}

impl fmt::Debug for PosixQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PosixQueue")
            .field("depth", &self.depth)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

impl Queue for PosixQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.finished.len()
    }

    unsafe fn register_memory(&mut self, _pointer: *mut u8, _size: usize) -> bool {
        false
    }

    unsafe fn push(&mut self, request: Request) -> bool {
        if self.in_flight() >= self.depth {
            return false;
        }
        self.pushed.push(request);
        true
    }

    fn submit(&mut self) -> Result<()> {
        for request in self.pushed.drain(..) {
            let Request {
                fd,
                pointer,
                offset,
                ..
            } = request;
            let size = request.size as usize;
            // SAFETY: `push` promised that the memory is valid until the completion is reaped.
            let result = unsafe {
                match request.operation {
                    Operation::Read => Posix.read_at(fd, pointer, size, offset),
                    Operation::Write => Posix.write_at(fd, pointer, size, offset),
                }
            };
            // The kernel moves at most i32::MAX bytes rounded down to a page in one call.
            let result = i32::try_from(result).unwrap_or(i32::MAX);
            self.finished.push(Completion {
                token: request.token,
                result,
            });
        }
        Ok(())
    }

    fn wait(&mut self, _minimum: usize, done: &mut Vec<Completion>) -> Result<()> {
        self.submit()?;
        done.append(&mut self.finished);
        Ok(())
    }
}
