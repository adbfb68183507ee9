//! Reads and writes at any offset, size and pointer, on every path, with the right bytes.

#![allow(clippy::print_stdout)]

mod common;

use common::*;
use gds_rs::config::{Config, PathPolicy};
use gds_rs::device::MemoryKind;
use gds_rs::engine::{Options, Path, Segment, Transfer};
use gds_rs::io::Operation;

const SIZES: [usize; 11] = [
    1,
    511,
    512,
    4095,
    4096,
    4097,
    65_536,
    65_537,
    131_073,
    1 << 20,
    (3 << 20) + 12_345,
];
const OFFSETS: [u64; 6] = [0, 1, 511, 4095, 4096, 70_001];

fn with_path(path: PathPolicy) -> Options {
    Options {
        path: Some(path),
        ..Options::default()
    }
}

#[test]
fn reads_any_offset_size_and_pointer_on_every_path() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", (4 << 20) + 777);
    let context = context();
    let file = open(&context, &path);
    let buffer = alloc(&context, 5 << 20);
    for policy in [PathPolicy::Auto, PathPolicy::Direct, PathPolicy::Buffered] {
        evict(&path);
        for size in SIZES {
            for offset in OFFSETS {
                for at in [0u64, 1, 4096] {
                    bytes(&buffer).fill(0xEE);
                    let done = file
                        .read_with(offset, &buffer, at, size as u64, &with_path(policy))
                        .expect("the read ends well");
                    let end = (offset as usize + size).min(data.len());
                    let want = &data[offset as usize..end];
                    assert_eq!(done.bytes, want.len() as u64);
                    let got = &bytes(&buffer)[at as usize..];
                    assert!(
                        &got[..want.len()] == want,
                        "{policy:?} {size} at {offset} to {at}"
                    );
                    assert!(
                        got[want.len()..][..64].iter().all(|b| *b == 0xEE),
                        "past the end"
                    );
                    assert!(
                        bytes(&buffer)[..at as usize].iter().all(|b| *b == 0xEE),
                        "before"
                    );
                }
            }
        }
    }
}

#[test]
fn writes_any_offset_size_and_pointer_on_every_path() {
    let folder = Folder::new();
    let context = context();
    let buffer = alloc(&context, 5 << 20);
    bytes(&buffer).copy_from_slice(&pattern(5 << 20, 99));
    for policy in [PathPolicy::Auto, PathPolicy::Direct, PathPolicy::Buffered] {
        let (path, before) = folder.file("w", (4 << 20) + 777);
        let file = open_to_write(&context, &path);
        let mut want = before;
        for size in SIZES {
            for (offset, at) in [(0, 0), (1, 3), (4095, 0), (8192, 4096), (70_001, 1)] {
                let done = file
                    .write_with(offset, &buffer, at, size as u64, &with_path(policy))
                    .expect("the write ends well");
                assert_eq!(done.bytes, size as u64);
                let end = offset as usize + size;
                want.resize(want.len().max(end), 0);
                let from = &bytes(&buffer)[at as usize..at as usize + size];
                want[offset as usize..end].copy_from_slice(from);
            }
            let got = std::fs::read(&path).expect("the file can be read");
            assert!(got == want, "{policy:?} {size}");
        }
    }
}

#[test]
fn a_write_past_the_end_extends_the_file_and_a_gap_is_zero() {
    let folder = Folder::new();
    let context = context();
    let file = open_to_write(&context, &folder.path("new"));
    let buffer = alloc(&context, 2 << 20);
    bytes(&buffer).fill(7);
    file.write((1 << 20) + 5, &buffer, 0, 2 << 20)
        .expect("written");
    let got = std::fs::read(folder.path("new")).expect("read");
    assert_eq!(got.len(), (3 << 20) + 5);
    assert!(got[..(1 << 20) + 5].iter().all(|b| *b == 0));
    assert!(got[(1 << 20) + 5..].iter().all(|b| *b == 7));
}

#[test]
fn scatter_and_gather_keep_the_order_of_segments() {
    let folder = Folder::new();
    let (path, data) = folder.file("s", 3 << 20);
    let context = context();
    let file = open_to_write(&context, &path);
    let parts = [
        (0u64, 5u64),
        (100, 70_001),
        (1 << 20, 1 << 20),
        (3 << 19, 1),
    ];
    let buffer = alloc(&context, 4 << 20);
    let segments: Vec<Segment> = parts
        .iter()
        .map(|(offset, size)| Segment {
            buffer: buffer.clone(),
            offset: *offset,
            size: *size,
        })
        .collect();
    let done = file
        .read_vectored(11, &segments[..3], &Options::default())
        .expect("read");
    assert_eq!(done.bytes, 5 + 70_001 + (1 << 20));
    let mut at = 11;
    for (offset, size) in &parts[..3] {
        let got = &bytes(&buffer)[*offset as usize..][..*size as usize];
        assert!(got == &data[at..at + *size as usize], "segment at {offset}");
        at += *size as usize;
    }
    let done = file
        .write_vectored(0, &segments[1..3], &Options::default())
        .expect("write");
    assert_eq!(done.bytes, 70_001 + (1 << 20));
    let got = std::fs::read(&path).expect("read back");
    assert!(got[..70_001] == bytes(&buffer)[100..70_101]);
}

#[test]
fn a_batch_reads_thousands_of_small_ranges_to_distinct_places() {
    let folder = Folder::new();
    let (path, data) = folder.file("b", 8 << 20);
    for warm in [true, false] {
        let context = context();
        let file = open(&context, &path);
        let buffer = alloc(&context, 2000 * 4196);
        if !warm {
            evict(&path);
        }
        let mut transfers = Vec::new();
        let mut x = 12345u64;
        for i in 0..2000u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = if i % 10 == 0 {
                1 + (x >> 40) % 5000
            } else {
                4096
            };
            let offset = if i % 7 == 0 {
                (x >> 20) % (7 << 20)
            } else {
                ((x >> 20) % 1700) * 4096
            };
            transfers.push(Transfer {
                operation: Operation::Read,
                file: file.clone(),
                file_offset: offset,
                buffer: buffer.clone(),
                buffer_offset: i * 4196,
                size: size.min(4196),
            });
        }
        let ticket = context
            .submit(transfers.clone(), &Options::default())
            .expect("submitted");
        let whole = ticket.wait(None).expect("all read");
        assert_eq!(whole.bytes, transfers.iter().map(|t| t.size).sum::<u64>());
        assert_eq!(ticket.count(), 2000);
        for (i, t) in transfers.iter().enumerate() {
            let done = ticket.result(i).expect("done").expect("read");
            assert_eq!(done.bytes, t.size);
            let got = &bytes(&buffer)[t.buffer_offset as usize..][..t.size as usize];
            assert!(
                got == &data[t.file_offset as usize..][..t.size as usize],
                "transfer {i}"
            );
        }
    }
}

#[test]
fn a_batch_may_mix_reads_and_writes_of_several_files() {
    let folder = Folder::new();
    let (one, data) = folder.file("one", 1 << 20);
    let context = context();
    let buffer = alloc(&context, 4 << 20);
    bytes(&buffer)[2 << 20..].copy_from_slice(&pattern(2 << 20, 5));
    let (file, other) = (
        open(&context, &one),
        open_to_write(&context, &folder.path("two")),
    );
    let mut transfers = Vec::new();
    for i in 0..64u64 {
        let (at, size) = (i * 16_384, 16_384);
        let read = Transfer {
            operation: Operation::Read,
            file: file.clone(),
            file_offset: at,
            buffer: buffer.clone(),
            buffer_offset: at,
            size,
        };
        let write = Transfer {
            operation: Operation::Write,
            file: other.clone(),
            buffer_offset: (2 << 20) + at,
            ..read.clone()
        };
        transfers.extend([read, write]);
    }
    context
        .submit(transfers, &Options::default())
        .expect("ok")
        .wait(None)
        .expect("all moved");
    assert!(bytes(&buffer)[..1 << 20] == data[..]);
    let got = std::fs::read(folder.path("two")).expect("read");
    assert!(got[..] == bytes(&buffer)[2 << 20..3 << 20]);
}

#[test]
fn checksums_are_those_of_the_bytes_on_every_path() {
    let folder = Folder::new();
    let (path, data) = folder.file("c", (3 << 20) + 33);
    let context = context();
    let buffer = alloc(&context, 4 << 20);
    for policy in [PathPolicy::Auto, PathPolicy::Direct, PathPolicy::Buffered] {
        let options = Options {
            checksum: Some(true),
            ..with_path(policy)
        };
        for (offset, size) in [(0usize, data.len()), (5, 1000), (4097, 2 << 20), (0, 1)] {
            let file = open_to_write(&context, &path);
            let done = file.read_with(offset as u64, &buffer, 0, size as u64, &options);
            let done = done.expect("read");
            let want = crc32c::crc32c(&data[offset..(offset + size).min(data.len())]);
            assert_eq!(done.crc32c, Some(want), "{policy:?} {size} at {offset}");
            let size = done.bytes;
            let done = file
                .write_with(offset as u64, &buffer, 0, size, &options)
                .expect("write");
            assert_eq!(done.crc32c, Some(want));
        }
    }
    let plain = open(&context, &path)
        .read(0, &buffer, 0, 4096)
        .expect("read");
    assert_eq!(plain.crc32c, None, "not asked for");
}

#[test]
fn completions_name_the_path() {
    let folder = Folder::new();
    let (path, _) = folder.file("p", 8 << 20);
    let context = context();
    let file = open(&context, &path);
    let buffer = alloc(&context, 8 << 20);
    let direct = file.capabilities().direct_offset_alignment > 0;
    let done = file.read(0, &buffer, 0, 8 << 20).expect("warm");
    assert_eq!(
        (done.path, done.paths),
        (Path::Host, 1 << Path::Host as u32),
        "just written"
    );
    if !direct {
        println!("skipped: no O_DIRECT in {}", folder.0.display());
        return;
    }
    evict(&path);
    let done = file.read(0, &buffer, 0, 8 << 20).expect("cold");
    assert_eq!(done.path, Path::HostDirect);
    let done = file.read_with(1, &buffer, 0, 4 << 20, &with_path(PathPolicy::Direct));
    assert!(done.expect("misaligned").paths & (1 << Path::Bounce as u32) != 0);
    let counted = context.metrics();
    assert!(counted.path_bytes[Path::HostDirect as usize] >= 8 << 20);
    assert_eq!(counted.read.operations, 3);
}

#[test]
fn every_profile_moves_the_right_bytes() {
    use gds_rs::config::{DEVICE_HOST, Profile};
    let folder = Folder::new();
    let (path, data) = folder.file("q", (6 << 20) + 1);
    for profile in [
        Profile::LowLatency,
        Profile::Balanced,
        Profile::HighThroughput,
    ] {
        let config = Config {
            gpu_device: DEVICE_HOST,
            io_threads: 2,
            ..Config::profile(profile)
        };
        let context = context_over(config, gds_rs::io::best());
        let file = open(&context, &path);
        let buffer = context.alloc(MemoryKind::Pinned, 7 << 20).expect("memory");
        for policy in [PathPolicy::Auto, PathPolicy::Direct] {
            evict(&path);
            bytes(&buffer).fill(0);
            let done = file.read_with(0, &buffer, 3, 7 << 20 >> 1, &with_path(policy));
            assert_eq!(done.expect("read").bytes, 7 << 19);
            assert!(bytes(&buffer)[3..3 + (7 << 19)] == data[..7 << 19]);
        }
    }
}
