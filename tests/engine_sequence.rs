//! Transfers of a sequence are worked on in the order of their submission.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use common::{Folder, context_over, small_config};
use gds_rs::config::PathPolicy;
use gds_rs::device::MemoryKind;
use gds_rs::engine::{Options, Sequence, Transfer};
use gds_rs::error::Result;
use gds_rs::io::posix::Posix;
use gds_rs::io::{Io, Operation, Queue};

/// Remembers the offsets of reads through the page cache.
#[derive(Debug, Default)]
struct Offsets(Mutex<Vec<u64>>);

impl Io for Offsets {
    fn name(&self) -> &'static str {
        "offsets"
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn Queue>> {
        Posix.queue(depth)
    }

    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        self.0.lock().unwrap().push(offset);
        // SAFETY: as the caller's.
        unsafe { Posix.read_at(fd, pointer, size, offset) }
    }

    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        // SAFETY: as the caller's.
        unsafe { Posix.write_at(fd, pointer, size, offset) }
    }

    fn sync(&self, fd: RawFd) -> i64 {
        Posix.sync(fd)
    }
}

const SIZE: usize = 16 << 20;
const CHUNKS: usize = 4;

/// Reads four chunks that are submitted at once, and tells in which order bytes were asked for.
fn order(options: &Options) -> Vec<u64> {
    let folder = Folder::new();
    let (path, data) = folder.file("data", SIZE);
    let io = Arc::new(Offsets::default());
    let mut config = small_config();
    config.io_threads = 1;
    let context = context_over(config, io.clone());
    let file = common::open(&context, &path);
    let buffer = context.alloc(MemoryKind::Pinned, SIZE as u64).unwrap();
    let size = (SIZE / CHUNKS) as u64;
    let tickets: Vec<_> = (0..CHUNKS as u64)
        .map(|chunk| {
            let transfer = Transfer {
                operation: Operation::Read,
                file: file.clone(),
                file_offset: chunk * size,
                buffer: buffer.clone(),
                buffer_offset: chunk * size,
                size,
            };
            context.submit(vec![transfer], options).unwrap()
        })
        .collect();
    for ticket in tickets {
        assert_eq!(ticket.wait(None).unwrap().bytes, size);
    }
    assert!(common::bytes(&buffer) == &data[..]);
    io.0.lock().unwrap().clone()
}

#[test]
fn a_sequence_is_read_in_order() {
    for _ in 0..5 {
        let offsets = order(&Options {
            path: Some(PathPolicy::Buffered),
            sequence: Some(Sequence::new()),
            ..Options::default()
        });
        assert!(offsets.len() >= CHUNKS, "reads through the page cache");
        assert!(offsets.is_sorted(), "{offsets:?}");
    }
}

#[test]
fn transfers_without_a_sequence_take_turns() {
    let options = Options {
        path: Some(PathPolicy::Buffered),
        ..Options::default()
    };
    // The thread may be done with one before the next is submitted, but not every time.
    assert!((0..20).any(|_| !order(&options).is_sorted()));
}

#[test]
fn two_sequences_differ() {
    assert_ne!(Sequence::new(), Sequence::new());
}
