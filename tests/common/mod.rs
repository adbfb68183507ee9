//! What engine tests share: files with known contents, host contexts, buffers to look into.

#![allow(dead_code, clippy::mut_from_ref, clippy::missing_panics_doc)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::device::{self, MemoryKind};
use gds_rs::engine::{Buffer, Context, File};
use gds_rs::io::{Io, OpenMode};

/// A folder on a real disk (the build folder), removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "gds-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file whose bytes depend on their position, so that misplaced ones are seen.
    pub fn file(&self, name: &str, size: usize) -> (PathBuf, Vec<u8>) {
        let data = pattern(size, 7);
        let path = self.path(name);
        std::fs::write(&path, &data).expect("a file can be written");
        (path, data)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes that depend on their position and on `seed`.
pub fn pattern(size: usize, seed: u64) -> Vec<u8> {
    (0..size as u64)
        .map(|i| {
            let x = (i / 8 + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (x >> ((i % 8) * 8)) as u8
        })
        .collect()
}

/// Small settings, so that tests see many pieces, full slots and retries soon.
pub fn small_config() -> Config {
    Config {
        gpu_device: DEVICE_HOST,
        buffer_size: 1 << 20,
        prefetch_distance: 0,
        io_threads: 3,
        backoff_ms: 1,
        ..Config::default()
    }
}

pub fn context() -> Context {
    Context::open(small_config()).expect("a host context opens")
}

pub fn context_over(config: Config, io: Arc<dyn Io>) -> Context {
    Context::with_parts(config, device::host(), io).expect("a host context opens")
}

pub fn open(context: &Context, path: &Path) -> File {
    context
        .open_file(path, OpenMode::read_only())
        .expect("the file opens")
}

pub fn open_to_write(context: &Context, path: &Path) -> File {
    context
        .open_file(path, OpenMode::create())
        .expect("the file opens")
}

pub fn alloc(context: &Context, size: u64) -> Buffer {
    context.alloc(MemoryKind::Device, size).expect("memory")
}

/// Memory of a host buffer, to look into.
pub fn bytes(buffer: &Buffer) -> &mut [u8] {
    // SAFETY: buffers of these tests are host memory, and tests look when nothing is under way.
    unsafe { std::slice::from_raw_parts_mut(buffer.address() as *mut u8, buffer.size() as usize) }
}

/// Drops a file from the page cache, so that reads go to the disk.
pub fn evict(path: &Path) {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path).expect("the file opens");
    // SAFETY: both calls take integers.
    unsafe {
        libc::fsync(file.as_raw_fd());
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
    }
}
