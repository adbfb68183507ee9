//! Files: descriptors, alignment, residency, and the ways to hand reads and writes to the kernel.
//!
//! One trait, [`Io`], with `posix` (pread/pwrite), `uring` (io_uring) and `fault` (a double that
//! tears, shortens and fails what passes through it, from a seed). `cufile` is our own FFI to
//! libcufile, loaded at run time. The room never touches a device and never picks a path.
//! Invariants: a queue never returns while the kernel may still write to a buffer that the
//! caller believes idle: dropping a queue waits for what is in flight. Guarded by
//! `tests/io_conformance.rs`, which runs over every implementation.

mod capabilities;
pub mod cufile;
pub mod fault;
mod file;
pub mod posix;
mod residency;
pub mod uring;
mod whole;
mod witness;

use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::error::Result;

pub use capabilities::{Capabilities, FileKind};
pub use file::{FileDescriptors, OpenMode};
pub use residency::{
    PAGE_SIZE, Residency, evict, residency, residency_cachestat, residency_mincore,
};
pub use whole::{FilePiece, WrittenPiece, move_pieces, read_pieces};

/// What to do with a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// File to memory.
    Read,
    /// Memory to file.
    Write,
}

/// One operation for a queue.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Read or write.
    pub operation: Operation,
    /// The descriptor.
    pub fd: RawFd,
    /// File offset, bytes.
    pub offset: u64,
    /// Memory of at least `size` bytes.
    pub pointer: *mut u8,
    /// Bytes.
    pub size: u32,
    /// Whether `pointer` lies inside the memory given to `Queue::register_memory`.
    pub registered: bool,
    /// Comes back with the completion.
    pub token: u64,
}

// SAFETY: a request only names memory; whoever pushed it promised that the memory is valid, and
// used by nobody else, on whichever thread the queue is until the completion is reaped.
unsafe impl Send for Request {}

/// How one operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The token of the request.
    pub token: u64,
    /// Bytes moved, or -errno. May be short.
    pub result: i32,
}

/// A queue of operations, owned by one thread at a time.
pub trait Queue: Send + fmt::Debug {
    /// Operations that may be in flight together.
    fn depth(&self) -> usize;

    /// Operations pushed and not yet reaped.
    fn in_flight(&self) -> usize;

    /// Offers memory that requests will use often (io_uring registered buffers). A queue may
    /// decline by answering false; requests then work all the same.
    ///
    /// # Safety
    /// The memory outlives the queue.
    unsafe fn register_memory(&mut self, pointer: *mut u8, size: usize) -> bool;

    /// Adds an operation; the kernel sees it at the next `submit` or `wait` at the latest.
    /// False when `depth` operations are in flight.
    ///
    /// # Safety
    /// The memory is valid, and for reads used by nobody else, until the completion is reaped.
    unsafe fn push(&mut self, request: Request) -> bool;

    /// Hands what was pushed to the kernel.
    ///
    /// # Errors
    /// `Io` when the kernel refuses the submission; what was pushed stays pushed.
    fn submit(&mut self) -> Result<()>;

    /// Submits, waits until `minimum` operations are finished (at most what is in flight; 0 does
    /// not wait), and appends all that are.
    ///
    /// # Errors
    /// As `submit`.
    fn wait(&mut self, minimum: usize, done: &mut Vec<Completion>) -> Result<()>;
}

/// A way to do file I/O. Cheap to share; queues are made per thread.
pub trait Io: Send + Sync + fmt::Debug {
    /// "io_uring", "posix", ...
    fn name(&self) -> &'static str;

    /// Makes a queue for `depth` operations.
    ///
    /// # Errors
    /// `NotSupported` or `Io` with the reason when the kernel refuses.
    fn queue(&self, depth: usize) -> Result<Box<dyn Queue>>;

    /// One read by the calling thread. Bytes read (0 at end of file), or -errno. May be short.
    ///
    /// # Safety
    /// `pointer` is valid for `size` bytes of writes (a wrong one is answered with -EFAULT where
    /// the kernel sees it).
    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64;

    /// One write by the calling thread. Bytes written, or -errno. May be short.
    ///
    /// # Safety
    /// `pointer` is valid for `size` bytes of reads.
    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64;

    /// One write by the calling thread that is durable when it returns, as far as it went. Says
    /// nothing about other writes. Bytes written, or -errno; may be short. After a failure the
    /// range holds anything, and the file is poisoned as after a failed `sync`.
    ///
    /// # Safety
    /// As `write_at`.
    unsafe fn write_durable_at(
        &self,
        fd: RawFd,
        pointer: *const u8,
        size: usize,
        offset: u64,
    ) -> i64 {
        // SAFETY: the same promise.
        let written = unsafe { self.write_at(fd, pointer, size, offset) };
        match self.sync(fd) {
            error if written >= 0 && error < 0 => error,
            _ => written,
        }
    }

    /// Makes written data and size durable. 0, or -errno. After a failure the file is poisoned.
    fn sync(&self, fd: RawFd) -> i64;
}

/// The fastest way that this kernel allows: io_uring, or pread and pwrite where it is forbidden
/// ([`uring::Uring::probe`] tells why).
#[must_use]
pub fn best() -> Arc<dyn Io> {
    match uring::Uring::probe() {
        Ok(()) => Arc::new(uring::Uring),
        Err(_) => Arc::new(posix::Posix),
    }
}
