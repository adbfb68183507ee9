//! Files as the engine sees them.

use std::fmt;
use std::os::fd::RawFd;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::choice::Warmth;
use super::context::{Context, Inner};
use super::identity::Identity;
use super::stopwatch::Stopwatch;
use super::trial::Trial;
use super::{Buffer, Completion, Options, Segment, Transfer, inline};
use crate::base::{is_aligned, limits};
use crate::config::PathPolicy;
use crate::error::{Error, ErrorKind, Result, is_transient_errno};
use crate::io::{Capabilities, FileDescriptors, OpenMode, Operation, cufile};

/// An open file. Cheap to clone; closed with the last clone and the last transfer on it.
#[derive(Clone)]
pub struct File(pub(super) Arc<FileInner>);

pub(super) struct FileInner {
    pub(super) context: Arc<Inner>,
    pub(super) descriptors: FileDescriptors,
    /// O_DIRECT was refused once (EINVAL although aligned): this file goes buffered from then on.
    pub(super) direct_refused: AtomicBool,
    /// How warm the page cache was for small reads.
    pub(super) warmth: Warmth,
    /// Open for reading, on no terms of the context but how warm the file is.
    pub(super) reads_plainly: bool,
    /// Never read around the page cache.
    pub(super) is_buffered: bool,
    /// Alignment of direct I/O: file offsets, sizes and memory, bytes.
    alignment: u64,
    /// A failed sync: what was written may be lost, and the kernel forgets that it failed.
    poisoned: AtomicBool,
    handle: OnceLock<Result<cufile::Handle>>,
    /// What all opens of this file share.
    identity: Arc<Identity>,
    /// Its index, at hand for calls of nanoseconds.
    index: u32,
    /// The trial of cuFile on the file's device.
    pub(super) trial: OnceLock<Arc<Trial>>,
}

/// What `move_all` was asked for.
struct Rest {
    operation: Operation,
    fd: RawFd,
    pointer: *mut u8,
    size: u64,
    offset: u64,
}

impl File {
    pub(super) fn new(context: &Arc<Inner>, descriptors: FileDescriptors) -> Self {
        Stopwatch::prepare();
        let c = descriptors.capabilities();
        let config = &context.shared.config;
        let cached = matches!(config.path, PathPolicy::Auto | PathPolicy::Buffered);
        let identity = Identity::of(descriptors.identity());
        let alignment = config
            .alignment
            .max(u64::from(c.direct_offset_alignment))
            .max(u64::from(c.direct_memory_alignment));
        Self(Arc::new(FileInner {
            context: context.clone(),
            direct_refused: AtomicBool::new(false),
            warmth: Warmth::default(),
            reads_plainly: descriptors.mode().read && cached && !config.checksum,
            is_buffered: descriptors.direct().is_none() || config.path == PathPolicy::Buffered,
            alignment,
            index: identity.index(),
            identity,
            descriptors,
            poisoned: AtomicBool::new(false),
            handle: OnceLock::new(),
            trial: OnceLock::new(),
        }))
    }

    /// The context that it belongs to.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::from_inner(self.0.context.clone())
    }

    /// Whether both are clones of one open file: what one may do, the other may.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &FilePath {
        self.0.descriptors.path()
    }

    /// A number that all opens of the same file share, by whatever name, while one of them is
    /// there. Never 0, and not used again in this process.
    #[inline]
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.0.identity.number()
    }

    /// As `identity`, but small: not 0, and another file's once no open of this one is there.
    #[inline]
    #[must_use]
    pub(crate) fn index(&self) -> u32 {
        self.0.index
    }

    /// What its file system and device can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        self.0.descriptors.capabilities()
    }

    /// Its size now, bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn size(&self) -> Result<u64> {
        self.0.descriptors.size()
    }

    /// Makes everything written durable, with the size. After a failure the file is poisoned:
    /// the kernel forgets which pages it lost, so a second sync would lie.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, or `Poisoned` after an earlier failure.
    pub fn sync(&self) -> Result<()> {
        self.0.check_usable()?;
        let result = self.0.context.shared.io.sync(self.0.descriptors.buffered());
        if result < 0 {
            self.0.poisoned.store(true, Relaxed);
            let what = format!("sync {}", self.path().display());
            return Err(Error::os(-result as i32, what).with_path(self.path()));
        }
        Ok(())
    }

    /// Cuts or extends the file to `size` bytes.
    ///
    /// # Errors
    /// `ReadOnly`, `NoSpace`, `Io`.
    pub fn set_size(&self, size: u64) -> Result<()> {
        self.0.descriptors.set_size(size)
    }

    /// Reads into a buffer and waits. Fewer bytes come back when the file ends.
    ///
    /// # Errors
    /// `OutOfRange` when the range passes the buffer's end, and what the file or device says.
    pub fn read(&self, offset: u64, to: &Buffer, to_offset: u64, size: u64) -> Result<Completion> {
        self.read_with(offset, to, to_offset, size, &Options::default())
    }

    /// Writes from a buffer and waits. Not durable before `sync`.
    ///
    /// # Errors
    /// As `read`, and `ReadOnly`, `NoSpace`.
    pub fn write(
        &self,
        offset: u64,
        from: &Buffer,
        from_offset: u64,
        size: u64,
    ) -> Result<Completion> {
        self.write_with(offset, from, from_offset, size, &Options::default())
    }

    /// As `read`, with options.
    ///
    /// # Errors
    /// As `read`, and `TimedOut`.
    #[inline]
    pub fn read_with(
        &self,
        file_offset: u64,
        buffer: &Buffer,
        buffer_offset: u64,
        size: u64,
        options: &Options,
    ) -> Result<Completion> {
        self.transfer(
            Operation::Read,
            file_offset,
            buffer,
            buffer_offset,
            size,
            options,
        )
    }

    /// As `write`, with options.
    ///
    /// # Errors
    /// As `write`, and `TimedOut`.
    #[inline]
    pub fn write_with(
        &self,
        file_offset: u64,
        buffer: &Buffer,
        buffer_offset: u64,
        size: u64,
        options: &Options,
    ) -> Result<Completion> {
        self.transfer(
            Operation::Write,
            file_offset,
            buffer,
            buffer_offset,
            size,
            options,
        )
    }

    #[inline]
    fn transfer(
        &self,
        operation: Operation,
        file_offset: u64,
        buffer: &Buffer,
        buffer_offset: u64,
        size: u64,
        options: &Options,
    ) -> Result<Completion> {
        if let Some(completion) = inline::try_run(
            &self.0,
            operation,
            file_offset,
            buffer,
            buffer_offset,
            size,
            options,
        )? {
            return Ok(completion);
        }
        self.queued(
            Transfer {
                operation,
                file: self.clone(),
                file_offset,
                buffer: buffer.clone(),
                buffer_offset,
                size,
            },
            options,
        )
    }

    /// By the transfer threads.
    #[cold]
    fn queued(&self, transfer: Transfer, options: &Options) -> Result<Completion> {
        Context::from_inner(self.0.context.clone())
            .submit(vec![transfer], options)?
            .wait(None)
    }

    /// Reads a range of the file into several pieces of memory, one after the other, and waits.
    ///
    /// # Errors
    /// As `read_with`.
    pub fn read_vectored(
        &self,
        file_offset: u64,
        segments: &[Segment],
        options: &Options,
    ) -> Result<Completion> {
        self.vectored(Operation::Read, file_offset, segments, options)
    }

    /// Writes several pieces of memory, one after the other, to a range of the file, and waits.
    ///
    /// # Errors
    /// As `write_with`.
    pub fn write_vectored(
        &self,
        file_offset: u64,
        segments: &[Segment],
        options: &Options,
    ) -> Result<Completion> {
        self.vectored(Operation::Write, file_offset, segments, options)
    }

    fn vectored(
        &self,
        operation: Operation,
        file_offset: u64,
        segments: &[Segment],
        options: &Options,
    ) -> Result<Completion> {
        if segments.is_empty() || segments.len() as u64 > limits::SEGMENTS_MAX {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} segments given, 1 to {} allowed",
                    segments.len(),
                    limits::SEGMENTS_MAX
                ),
            ));
        }
        let mut transfers = Vec::with_capacity(segments.len());
        let mut at = file_offset;
        for s in segments {
            transfers.push(Transfer {
                operation,
                file: self.clone(),
                file_offset: at,
                buffer: s.buffer.clone(),
                buffer_offset: s.offset,
                size: s.size,
            });
            at = at.checked_add(s.size).ok_or_else(|| {
                Error::new(
                    ErrorKind::OutOfRange,
                    "the segments pass the largest file offset",
                )
            })?;
        }
        let ticket = Context::from_inner(self.0.context.clone()).submit(transfers, options)?;
        ticket.wait(None)
    }
}

impl FileInner {
    pub(super) fn check_usable(&self) -> Result<()> {
        if self.poisoned.load(Relaxed) {
            return Err(Error::new(
                ErrorKind::Poisoned,
                format!(
                    "an earlier sync of {} failed, so what was written may be lost; open it \
                     again and check its contents",
                    self.descriptors.path().display()
                ),
            )
            .with_path(self.descriptors.path()));
        }
        Ok(())
    }

    /// The descriptor for O_DIRECT, unless this file has shown that it refuses.
    pub(super) fn direct(&self) -> Option<RawFd> {
        if self.direct_refused.load(Relaxed) {
            None
        } else {
            self.descriptors.direct()
        }
    }

    /// Alignment of direct I/O: file offsets, sizes and memory, bytes.
    pub(super) fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The cuFile handle, registered at first use.
    pub(super) fn cufile(&self) -> Result<&cufile::Handle> {
        let made = self.handle.get_or_init(|| {
            let library = cufile::load()?;
            // cuFile reads the flags of the descriptor: a direct one lets it go direct.
            library.register(
                self.descriptors
                    .direct()
                    .unwrap_or(self.descriptors.buffered()),
            )
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// Moves bytes by the calling thread until done or the end of the file, trying again after
    /// transient errors.
    ///
    /// # Safety
    /// `pointer` is valid for `size` bytes of what the operation does.
    #[inline]
    pub(super) unsafe fn move_all(
        &self,
        operation: Operation,
        fd: RawFd,
        pointer: *mut u8,
        size: u64,
        offset: u64,
        retries: &mut u32,
    ) -> Result<u64> {
        // SAFETY: the caller's promise.
        let first = unsafe { self.move_once(operation, fd, pointer, size, offset) };
        if first == size as i64 {
            return Ok(size);
        }
        let rest = Rest {
            operation,
            fd,
            pointer,
            size,
            offset,
        };
        // SAFETY: as above.
        unsafe { self.move_rest(&rest, first, retries) }
    }

    /// # Safety
    /// As `move_all`.
    #[inline]
    unsafe fn move_once(
        &self,
        operation: Operation,
        fd: RawFd,
        pointer: *mut u8,
        size: u64,
        offset: u64,
    ) -> i64 {
        let io = &self.context.shared.io;
        // SAFETY: the caller's promise.
        unsafe {
            match operation {
                Operation::Read => io.read_at(fd, pointer, size as usize, offset),
                Operation::Write => io.write_at(fd, pointer, size as usize, offset),
            }
        }
    }

    /// Goes on after a first call that answered `result` and did not move everything.
    ///
    /// # Safety
    /// As `move_all`.
    #[cold]
    unsafe fn move_rest(&self, rest: &Rest, result: i64, retries: &mut u32) -> Result<u64> {
        let shared = &self.context.shared;
        let &Rest {
            operation,
            size,
            offset,
            ..
        } = rest;
        let mut result = result;
        let mut done = 0;
        let mut attempts = 0;
        loop {
            if result > 0 {
                done += result as u64;
                attempts = 0;
                if done >= size {
                    return Ok(done);
                }
            } else if result == 0 && operation == Operation::Read {
                return Ok(done);
            } else {
                let errno = if result == 0 {
                    libc::EIO
                } else {
                    -result as i32
                };
                if !is_transient_errno(errno) || attempts >= shared.config.max_retries {
                    return Err(self.io_error(errno, operation, offset + done, size - done));
                }
                *retries += 1;
                std::thread::sleep(shared.back_off(&mut attempts, errno));
            }
            // A direct read stops at an odd byte at the end of the file, and cannot go on there.
            let fd = if is_aligned(done, self.alignment) {
                rest.fd
            } else {
                self.descriptors.buffered()
            };
            let (at, left) = (rest.pointer.wrapping_add(done as usize), size - done);
            // SAFETY: `at` has `left` valid bytes left of the caller's range.
            result = unsafe { self.move_once(operation, fd, at, left, offset + done) };
        }
    }

    pub(super) fn io_error(
        &self,
        errno: i32,
        operation: Operation,
        offset: u64,
        size: u64,
    ) -> Error {
        let verb = match operation {
            Operation::Read => "read",
            Operation::Write => "write",
        };
        let path = self.descriptors.path();
        Error::os(
            errno,
            format!("{verb} {size} bytes at {offset} of {}", path.display()),
        )
        .with_path(path)
        .with_offset(offset)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.path().display())
    }
}

impl File {
    /// The mode that it was opened with.
    #[must_use]
    pub fn mode(&self) -> OpenMode {
        self.0.descriptors.mode()
    }
}
