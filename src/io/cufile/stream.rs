//! Transfers on a CUDA stream.
//!
//! cuFile reads the size and offsets, and writes the count, through pointers at the moment the
//! stream gets there, long after the call. So each transfer owns a block on the heap that lives
//! until its owner proves that the stream has passed; otherwise the block is leaked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::io::Operation;

use super::error::{check, transfer};
use super::handle::{Handle, check_range};
use super::library::Library;
use super::sys;

/// What the count holds until cuFile has written one.
const NOT_WRITTEN: isize = isize::MIN;

/// What cuFile follows when the stream gets there.
#[repr(C)]
struct Block {
    size: usize,
    file_offset: i64,
    base_offset: i64,
    count: AtomicIsize,
}

/// A transfer that was put on a stream. Consume it with [`StreamTransfer::finish`] once the stream
/// has passed it. Dropping it unfinished leaks its parameter block (32 bytes) and its file handle
/// on purpose, because cuFile may still follow and use them.
#[must_use = "dropping it leaks; call finish once the stream has passed"]
pub struct StreamTransfer {
    block: *mut Block,
    handle: std::mem::ManuallyDrop<Arc<Handle>>,
    operation: Operation,
    file_offset: u64,
}

// SAFETY: the block is reached through one owner, and its only shared field is atomic.
unsafe impl Send for StreamTransfer {}

impl fmt::Debug for StreamTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTransfer")
            .field("operation", &self.operation)
            .field("file_offset", &self.file_offset)
            .finish_non_exhaustive()
    }
}

impl StreamTransfer {
    /// Puts one transfer between the file and `base + base_offset` on `stream` (a CUstream as a
    /// number; 0 is the default stream), ordered with what else is on it.
    ///
    /// # Errors
    /// `OutOfRange`, `NotSupported` for a library without stream calls, `CuFileUnavailable` where
    /// the pool is off (5038), else what cuFile answers. The parameter block is leaked then, since
    /// nothing tells whether cuFile kept it.
    ///
    /// # Safety
    /// The memory is valid, and used by nobody else outside the stream's order, until the stream
    /// has passed the transfer. The stream is a live stream of the current context. In registered
    /// memory `base` is the registered base.
    pub unsafe fn submit(
        handle: &Arc<Handle>,
        operation: Operation,
        stream: u64,
        base: u64,
        size: usize,
        file_offset: u64,
        base_offset: u64,
    ) -> Result<Self> {
        let word = word(operation);
        let (file, memory) = check_range(word, size, file_offset, base_offset)?;
        let library = handle.library;
        let symbols = library
            .symbols
            .stream
            .ok_or_else(|| library.lacks("cuFileReadAsync"))?;
        let call = match operation {
            Operation::Read => symbols.read,
            Operation::Write => symbols.write,
        };
        let block = Box::into_raw(Box::new(Block {
            size,
            file_offset: file,
            base_offset: memory,
            count: AtomicIsize::new(NOT_WRITTEN),
        }));
        let handle = std::mem::ManuallyDrop::new(Arc::clone(handle));
        // SAFETY: the caller vouches for memory and stream; the block and the handle stay until
        // finish, whose caller vouches that the stream has passed.
        let status = unsafe {
            call(
                handle.raw,
                base as *mut libc::c_void,
                &raw mut (*block).size,
                &raw mut (*block).file_offset,
                &raw mut (*block).base_offset,
                (&raw mut (*block).count).cast::<isize>(),
                stream as sys::Stream,
            )
        };
        let what = format_args!("{word} {size} bytes at {file_offset} with cuFile on a stream");
        check(status, what).map_err(|error| error.with_offset(file_offset))?;
        Ok(Self {
            block,
            handle,
            operation,
            file_offset,
        })
    }

    /// The count of bytes moved, perhaps fewer than asked for.
    ///
    /// # Errors
    /// What the transfer came to; `Internal` when cuFile has written no count, which leaks.
    ///
    /// # Safety
    /// The stream has passed the transfer: an event recorded after it was waited for, or the
    /// stream was synchronized, and that call succeeded.
    pub unsafe fn finish(mut self) -> Result<usize> {
        // SAFETY: the block lives until it is freed below.
        let (count, size) = unsafe {
            (
                (*self.block).count.load(Ordering::Acquire),
                (*self.block).size,
            )
        };
        let what = format!(
            "{} {size} bytes at {} with cuFile on a stream",
            word(self.operation),
            self.file_offset
        );
        if count == NOT_WRITTEN {
            let text = format!("{what}: the stream has passed it, but cuFile has written no count");
            return Err(Error::new(ErrorKind::Internal, text).with_offset(self.file_offset));
        }
        // SAFETY: made by Box::into_raw, and by the caller's promise nobody follows it any more.
        drop(unsafe { Box::from_raw(self.block) });
        // SAFETY: self is consumed here, so the handle is not used again.
        unsafe { std::mem::ManuallyDrop::drop(&mut self.handle) };
        // A negative count is the error itself; -1 has no errno here, since another thread set it.
        transfer(count, 0, what).map_err(|error| error.with_offset(self.file_offset))
    }
}

fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Write => "write",
    }
}

/// A stream that cuFile knows; dropping it gives that back. Optional: it makes transfers on the
/// stream cheaper.
pub struct StreamRegistration {
    library: &'static Library,
    stream: u64,
}

impl fmt::Debug for StreamRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamRegistration({:#x})", self.stream)
    }
}

impl Library {
    /// Tells cuFile about a stream. `flags` are of `sys::STREAM_*`: what is fixed when a transfer
    /// is submitted. `StreamTransfer` fixes everything, so 7 (or 15 for aligned ones) is right.
    ///
    /// # Errors
    /// As [`Library::open_driver`]; `InvalidArgument` for unknown flags; `NotSupported` for a
    /// library without stream calls; what cuFile answers.
    ///
    /// # Safety
    /// The stream is a live CUstream, and outlives the answer.
    pub unsafe fn stream_register(
        &'static self,
        stream: u64,
        flags: u32,
    ) -> Result<StreamRegistration> {
        if flags > 15 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("register a stream with cuFile: flags are {flags:#x}, the known are 0xf"),
            ));
        }
        self.open_driver()?;
        let symbols = self
            .symbols
            .stream
            .ok_or_else(|| self.lacks("cuFileStreamRegister"))?;
        // SAFETY: the caller vouches for the stream.
        let status = unsafe { (symbols.register)(stream as sys::Stream, flags) };
        check(
            status,
            format_args!("register stream {stream:#x} with cuFile"),
        )?;
        Ok(StreamRegistration {
            library: self,
            stream,
        })
    }
}

impl Drop for StreamRegistration {
    fn drop(&mut self) {
        if let Some(symbols) = self.library.symbols.stream {
            // SAFETY: the stream was registered and is given back once; the caller of
            // stream_register keeps it alive until then.
            let _answer = unsafe { (symbols.deregister)(self.stream as sys::Stream) };
        }
    }
}
