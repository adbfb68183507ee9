//! A way to do I/O that notes what was synced.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Mutex;

use gds_rs::io::posix::Posix;
use gds_rs::io::{Io, Queue};

/// Notes what was synced, by path.
#[derive(Debug)]
pub struct Noted(Posix, Mutex<Vec<PathBuf>>);

impl Noted {
    pub fn over(inner: Posix) -> Self {
        Self(inner, Mutex::default())
    }

    /// What was synced since the last call.
    pub fn synced(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.1.lock().expect("no panic"))
    }
}

impl Io for Noted {
    fn name(&self) -> &'static str {
        "noted"
    }
    fn queue(&self, depth: usize) -> gds_rs::Result<Box<dyn Queue>> {
        self.0.queue(depth)
    }
    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        // SAFETY: the same promise.
        unsafe { self.0.read_at(fd, pointer, size, offset) }
    }
    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        // SAFETY: the same promise.
        unsafe { self.0.write_at(fd, pointer, size, offset) }
    }
    fn sync(&self, fd: RawFd) -> i64 {
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("an open file");
        self.1.lock().expect("no panic").push(path);
        self.0.sync(fd)
    }
}
