//! Many small reads of one file: after a while they take a short way to the page cache, which
//! keeps every rule of the long one.

#![allow(clippy::print_stdout)]

mod common;

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path as FilePath;
use std::sync::Arc;

use common::*;
use gds_rs::ErrorKind;
use gds_rs::config::Config;
use gds_rs::engine::{Buffer, File, Options, Path};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::residency;

const BLOCK: u64 = 4096;
const SIZE: u64 = 4 << 20;

/// More reads than the page cache is asked about in a row.
fn read_often(file: &File, buffer: &Buffer, data: &[u8]) -> Path {
    let mut path = Path::None;
    for block in 0..300 {
        let at = block * BLOCK % SIZE;
        let done = file.read(at, buffer, at, BLOCK).expect("read");
        assert_eq!(done.bytes, BLOCK);
        let range = at as usize..(at + BLOCK) as usize;
        assert!(bytes(buffer)[range.clone()] == data[range], "at {at}");
        path = done.path;
    }
    path
}

fn cached_pages(path: &FilePath) -> u64 {
    let file = std::fs::File::open(path).expect("opens");
    residency(file.as_raw_fd(), 0, SIZE).map_or(0, |r| r.cached)
}

#[test]
fn the_short_way_keeps_the_rules_of_the_long_one() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", SIZE as usize);
    let context = context();
    let file = open(&context, &path);
    let buffer = alloc(&context, SIZE);
    assert_eq!(read_often(&file, &buffer, &data), Path::Host);

    // The end of the file, and past it.
    let done = file.read(SIZE - 100, &buffer, 0, BLOCK).expect("read");
    assert_eq!((done.bytes, done.path), (100, Path::Host));
    assert!(bytes(&buffer)[..100] == data[SIZE as usize - 100..]);
    let done = file.read(SIZE + 5, &buffer, 0, BLOCK).expect("read");
    assert_eq!((done.bytes, done.path, done.paths), (0, Path::None, 0));
    let done = file.read(0, &buffer, 0, 0).expect("read");
    assert_eq!((done.bytes, done.path), (0, Path::None));

    // What does not fit, or belongs elsewhere.
    let refused = |offset, at, size| file.read(offset, &buffer, at, size).unwrap_err().kind();
    assert_eq!(refused(0, SIZE - 1, 2), ErrorKind::OutOfRange);
    assert_eq!(refused(0, u64::MAX, 2), ErrorKind::OutOfRange);
    assert_eq!(refused(u64::MAX, 0, 2), ErrorKind::OutOfRange);
    let other = alloc(&common::context(), SIZE);
    let error = file.read(0, &other, 0, BLOCK).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);

    // What changed since, and a checksum that is asked for.
    let writer = OpenOptions::new().write(true).open(&path).expect("opens");
    writer.write_all_at(&[0xA5; 512], 0).expect("write");
    let options = Options {
        checksum: Some(true),
        ..Options::default()
    };
    let done = file.read(0, &buffer, 0, 512).expect("read");
    assert_eq!((done.bytes, done.crc32c), (512, None));
    assert_eq!(bytes(&buffer)[..512], [0xA5; 512]);
    let done = file.read_with(0, &buffer, 0, 512, &options).expect("read");
    assert_eq!(done.crc32c, Some(crc32c::crc32c(&[0xA5; 512])));

    let counted = context.metrics();
    let moved = 300 * BLOCK + 100 + 2 * 512;
    assert_eq!((counted.read.bytes, counted.read.errors), (moved, 0));
    assert!(counted.read.operations >= 300 + 4 && counted.read.latency.max_ns > 0);
    assert_eq!(counted.path_bytes.iter().sum::<u64>(), moved);
}

#[test]
fn faults_on_the_short_way_are_mended_and_counted() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", SIZE as usize);
    let fault = Arc::new(Fault::new(Arc::new(Posix), FaultPlan::default()));
    let config = Config {
        max_retries: 16,
        backoff_ms: 0,
        ..small_config()
    };
    let context = context_over(config, fault.clone());
    let file = open(&context, &path);
    let buffer = alloc(&context, SIZE);
    assert_eq!(read_often(&file, &buffer, &data), Path::Host);

    fault.set_plan(FaultPlan {
        seed: 5,
        short_read: 0.3,
        interrupted: 0.2,
        ..FaultPlan::default()
    });
    assert_eq!(read_often(&file, &buffer, &data), Path::Host);
    let counts = fault.counts();
    assert!(counts.short_reads > 0 && counts.interrupted > 0);
    let retries = context.metrics().retries;
    assert_eq!(retries, counts.interrupted);

    fault.set_plan(FaultPlan {
        io_error_at: Some(0..SIZE),
        ..FaultPlan::default()
    });
    let error = file.read(0, &buffer, 0, BLOCK).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
    assert!(error.path() == Some(path.as_path()) && error.offset() == Some(0));
    assert_eq!(context.metrics().read.errors, 1);
}

#[test]
fn a_cold_file_that_becomes_warm_is_noticed() {
    let folder = Folder::new();
    let (path, data) = folder.file("c", SIZE as usize);
    let context = context();
    let file = open(&context, &path);
    evict(&path);
    if file.capabilities().direct_offset_alignment == 0 || cached_pages(&path) > 0 {
        println!("skipped: the file system holds its files in memory");
        return;
    }
    let buffer = alloc(&context, SIZE);
    assert_eq!(read_often(&file, &buffer, &data), Path::HostDirect);
    assert!(std::fs::read(&path).expect("read") == data);
    assert_eq!(read_often(&file, &buffer, &data), Path::Host);
}
