//! What tests of the formats share: a seeded source of numbers, I/O that is counted, the Python of
//! the oracles, and how many mutations to try.

#![allow(dead_code, clippy::missing_panics_doc, clippy::print_stdout)]

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gds_rs::error::Result;
use gds_rs::io::{Completion, Io, Operation, Queue, Request};

/// A source of numbers that a seed determines (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        (0..size).map(|_| self.next() as u8).collect()
    }
}

/// Mutations to try: `GDS_FORMATS_MUTATIONS`, or what CI has time for.
pub fn mutations() -> u64 {
    let said = std::env::var("GDS_FORMATS_MUTATIONS").ok();
    said.and_then(|n| n.parse().ok()).unwrap_or(2000)
}

/// A changed copy of some bytes: flipped bits, other bytes, hostile numbers, cuts, moved runs.
/// `near` bytes at the start, where headers are, are hit half of the time.
pub fn mutate(bytes: &[u8], near: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.len() < 2 {
            bytes.extend(random.bytes(4));
        }
        let reach = match random.below(2) {
            0 => near.clamp(1, bytes.len()),
            _ => bytes.len(),
        };
        let at = random.below(reach as u64) as usize;
        match random.below(9) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 | 4 => {
                let value = match random.below(6) {
                    0 => random.below(70),
                    1 => u64::MAX - random.below(5000),
                    2 => 1 << random.below(64),
                    3 => bytes.len() as u64 + random.below(3),
                    4 => u64::from(u32::MAX) - random.below(3),
                    _ => random.next(),
                };
                let size = if random.below(2) == 0 { 4 } else { 8 };
                let size = size.min(bytes.len() - at);
                bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
            5 => bytes.truncate(at),
            6 => {
                let size = (random.below(64) as usize).min(bytes.len() - at);
                bytes.copy_within(at..at + size, at / 2);
            }
            7 => {
                let size = random.below(16) as usize;
                let more = random.bytes(size);
                bytes.splice(at..at, more);
            }
            _ => {
                let size = (random.below(16) as usize).min(bytes.len() - at);
                bytes.drain(at..at + size);
            }
        }
    }
    bytes
}

/// I/O that counts the reads that reach the kernel.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Io>,
    pub reads: Arc<AtomicU64>,
    pub bytes: Arc<AtomicU64>,
}

impl Counting {
    pub fn new(inner: Arc<dyn Io>) -> Self {
        Self {
            inner,
            reads: Arc::default(),
            bytes: Arc::default(),
        }
    }

    /// Reads and their bytes since the last call.
    pub fn take(&self) -> (u64, u64) {
        (self.reads.swap(0, Relaxed), self.bytes.swap(0, Relaxed))
    }
}

impl Io for Counting {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn Queue>> {
        Ok(Box::new(CountingQueue {
            inner: self.inner.queue(depth)?,
            reads: self.reads.clone(),
            bytes: self.bytes.clone(),
        }))
    }

    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        self.reads.fetch_add(1, Relaxed);
        self.bytes.fetch_add(size as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.inner.read_at(fd, pointer, size, offset) }
    }

    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        // SAFETY: the caller's promise.
        unsafe { self.inner.write_at(fd, pointer, size, offset) }
    }

    fn sync(&self, fd: RawFd) -> i64 {
        self.inner.sync(fd)
    }
}

#[derive(Debug)]
struct CountingQueue {
    inner: Box<dyn Queue>,
    reads: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Queue for CountingQueue {
    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    unsafe fn register_memory(&mut self, pointer: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.inner.register_memory(pointer, size) }
    }

    unsafe fn push(&mut self, request: Request) -> bool {
        let is_read = matches!(request.operation, Operation::Read);
        let size = request.size as u64;
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.inner.push(request) };
        if pushed && is_read {
            self.reads.fetch_add(1, Relaxed);
            self.bytes.fetch_add(size, Relaxed);
        }
        pushed
    }

    fn submit(&mut self) -> Result<()> {
        self.inner.submit()
    }

    fn wait(&mut self, minimum: usize, done: &mut Vec<Completion>) -> Result<()> {
        self.inner.wait(minimum, done)
    }
}

/// The Python that has these modules: `GDS_FORMATS_PYTHON`, or the one that scripts/test made. Says
/// why there is none.
pub fn python(modules: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = match std::env::var_os("GDS_FORMATS_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => root.join(".deps/formats-venv/bin/python3"),
    };
    if !path.exists() {
        println!(
            "skipped: no {} (scripts/test makes it; GDS_FORMATS_PYTHON names another)",
            path.display()
        );
        return None;
    }
    let tried = Command::new(&path)
        .args(["-c", &format!("import {modules}")])
        .output();
    match tried {
        Ok(output) if output.status.success() => Some(path),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let why = text.lines().last().unwrap_or("it failed");
            println!("skipped: {}: {why}", path.display());
            None
        }
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

/// Runs a script and gives what it prints.
pub fn run_python(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let mut command = Command::new(python);
    command.arg("-c").arg(script).args(arguments);
    let output = command.output().expect("Python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}
