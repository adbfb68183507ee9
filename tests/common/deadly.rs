//! A disk that kills the threads that use it.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use gds_rs::io::{Io, Queue, posix::Posix};

pub const PAGE: u64 = 4096;

/// Panics in reads and writes of one page, once it is armed.
#[derive(Debug, Default)]
pub struct Deadly {
    pub armed: AtomicBool,
    pub page: AtomicU64,
}

impl Deadly {
    fn strike(&self, offset: u64) {
        let strikes = self.armed.load(Relaxed) && offset / PAGE == self.page.load(Relaxed);
        assert!(!strikes, "the test kills this thread");
    }
}

impl Io for Deadly {
    fn name(&self) -> &'static str {
        "posix"
    }
    fn queue(&self, depth: usize) -> gds_rs::error::Result<Box<dyn Queue>> {
        Posix.queue(depth)
    }
    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        self.strike(offset);
        // SAFETY: passed on.
        unsafe { Posix.read_at(fd, pointer, size, offset) }
    }
    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        self.strike(offset);
        // SAFETY: passed on.
        unsafe { Posix.write_at(fd, pointer, size, offset) }
    }
    fn sync(&self, fd: RawFd) -> i64 {
        Posix.sync(fd)
    }
}
