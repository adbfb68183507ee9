//! CRCs of the chunks of buffers, in every kind of memory: on the host, on a device that has no
//! kernel for them, and on a GPU where there is one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

mod common;
mod late_device;

use std::time::Duration;

use common::{context, pattern, small_config};
use gds_rs::base::crc::crc32c;
use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::device;
use gds_rs::engine::{Buffer, Context, Copy, MemoryKind};
use gds_rs::error::ErrorKind;
use late_device::LateDevice;

fn on_every_device(body: impl Fn(&Context)) {
    body(&context());
    body(&LateDevice::without_crc_kernel().context(small_config(), gds_rs::io::best()));
    let (devices, trouble) = device::list(Duration::from_secs(60));
    if let Some(error) = trouble {
        println!("skipped: CUDA: {error}");
    }
    for info in devices.iter().filter(|d| d.ordinal != DEVICE_HOST) {
        println!("on {}", info.name);
        let config = Config {
            gpu_device: info.ordinal,
            ..small_config()
        };
        body(&Context::open(config).unwrap());
    }
}

/// A buffer of that kind with these bytes.
fn buffer(context: &Context, kind: MemoryKind, bytes: &[u8]) -> Buffer {
    let size = bytes.len() as u64;
    let made = context.alloc(kind, size).unwrap();
    fill(context, &made, bytes);
    made
}

fn fill(context: &Context, to: &Buffer, bytes: &[u8]) {
    let from = context.alloc(MemoryKind::Pinned, to.size()).unwrap();
    common::bytes(&from).copy_from_slice(bytes);
    let copy = Copy {
        from,
        from_offset: 0,
        to: to.clone(),
        to_offset: 0,
        size: to.size(),
    };
    context.copy(&[copy]).unwrap();
}

fn wanted(bytes: &[u8], chunk_bytes: usize) -> Vec<u32> {
    bytes
        .chunks(chunk_bytes)
        .map(|chunk| crc32c(0, chunk))
        .collect()
}

const KINDS: [MemoryKind; 2] = [MemoryKind::Device, MemoryKind::Pinned];

#[test]
fn every_alignment_tail_and_chunk_size() {
    on_every_device(|context| {
        context.prepare_crc32c().unwrap();
        let data = pattern((2 << 20) + 100, 3);
        for kind in KINDS {
            let buffer = buffer(context, kind, &data);
            for chunk in (9..=20).map(|bits| 1 << bits) {
                for offset in 0..17 {
                    for size in [0, 1, 511, chunk - 1, chunk, chunk + 1, chunk + 4096] {
                        let got = context
                            .crc32c_chunks(&buffer, offset as u64, size as u64, chunk as u64)
                            .unwrap();
                        let part = &data[offset..offset + size];
                        assert_eq!(
                            got,
                            wanted(part, chunk),
                            "{size} bytes at {offset} by {chunk}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn the_first_bad_chunk_of_several_ranges_is_told() {
    on_every_device(|context| {
        let mut data = pattern(300_000, 5);
        let buffers = KINDS.map(|kind| buffer(context, kind, &data));
        let ranges = [
            (0, 7, 70_000),
            (1, 0, 4096),
            (0, 100, 0),
            (1, 5000, 4097),
            (0, 65_536, 200_001),
        ];
        let given =
            ranges.map(|(which, offset, size)| (&buffers[which], offset as u64, size as u64));
        let expected: Vec<u32> = ranges
            .iter()
            .flat_map(|(_, offset, size)| wanted(&data[*offset..offset + size], 4096))
            .collect();
        let verify = |expected: &[u32]| context.verify_chunks(&given, 4096, expected);
        assert_eq!(verify(&expected).unwrap(), None);
        // The value is wrong.
        for bad in 0..expected.len() {
            let mut other = expected.clone();
            other[bad] ^= 1 << (bad % 32);
            *other.last_mut().unwrap() ^= 0xFF00;
            assert_eq!(verify(&other).unwrap(), Some(bad as u64));
        }
        // The memory is wrong: 18 chunks, 1, 0, 2, and the byte is in the last range.
        for at in [65_536, 70_007, 150_000, 265_536] {
            data[at] ^= 0x10;
            fill(context, &buffers[0], &data);
            let told = verify(&expected).unwrap();
            data[at] ^= 0x10;
            let in_first = (at < 70_007).then(|| (at - 7) / 4096);
            assert_eq!(
                told,
                Some(in_first.unwrap_or(21 + (at - 65_536) / 4096) as u64)
            );
        }
        fill(context, &buffers[0], &data);
        assert_eq!(verify(&expected).unwrap(), None);
    });
}

#[test]
fn more_ranges_than_one_launch_takes() {
    on_every_device(|context| {
        let data = pattern(1 << 20, 8);
        let buffer = buffer(context, MemoryKind::Device, &data);
        let places: Vec<(usize, usize)> = (0..80_000)
            .map(|i| (i * 7919 % 1_000_000, 1 + i % 700))
            .collect();
        let ranges: Vec<_> = places
            .iter()
            .map(|(offset, size)| (&buffer, *offset as u64, *size as u64))
            .collect();
        let mut expected: Vec<u32> = places
            .iter()
            .flat_map(|(offset, size)| wanted(&data[*offset..offset + size], 512))
            .collect();
        let verify = |expected: &[u32]| context.verify_chunks(&ranges, 512, expected).unwrap();
        assert_eq!(verify(&expected), None);
        for bad in [expected.len() - 1, expected.len() / 2, 40_000, 1] {
            expected[bad] ^= 0x8000_0000;
            assert_eq!(verify(&expected), Some(bad as u64));
        }
    });
}

#[test]
fn many_threads_at_once() {
    on_every_device(|context| {
        std::thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || {
                    let data = pattern(200_000, seed);
                    let buffer = buffer(context, MemoryKind::Device, &data);
                    let expected = wanted(&data, 4096);
                    for round in 0..20 {
                        let got = context.crc32c_chunks(&buffer, 0, 200_000, 4096).unwrap();
                        assert_eq!(got, expected);
                        let mut other = expected.clone();
                        other[round] += 1;
                        let ranges = [(&buffer, 0, 200_000)];
                        let bad = context.verify_chunks(&ranges, 4096, &other).unwrap();
                        assert_eq!(bad, Some(round as u64));
                    }
                });
            }
        });
    });
}

#[test]
fn what_cannot_be_is_answered() {
    let (here, there) = (context(), context());
    let buffer = here.alloc(MemoryKind::Device, 8192).unwrap();
    let kind = |offset, size, chunk| {
        let error = here.crc32c_chunks(&buffer, offset, size, chunk);
        error.unwrap_err().kind()
    };
    for chunk in [0, 1, 256, 4095, 4097, 2 << 20, u64::MAX] {
        assert_eq!(kind(0, 4096, chunk), ErrorKind::InvalidArgument, "{chunk}");
    }
    assert_eq!(kind(0, 8193, 4096), ErrorKind::OutOfRange);
    assert_eq!(kind(8193, 0, 4096), ErrorKind::OutOfRange);
    assert_eq!(kind(u64::MAX, 2, 4096), ErrorKind::OutOfRange);
    let foreign = there.crc32c_chunks(&buffer, 0, 4096, 4096).unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::InvalidArgument);
    for expected in [vec![], vec![0; 3]] {
        let error = here
            .verify_chunks(&[(&buffer, 0, 8192)], 4096, &expected)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("2 chunks"), "{error}");
    }
    assert_eq!(here.verify_chunks(&[], 4096, &[]).unwrap(), None);
    assert!(
        here.crc32c_chunks(&buffer, 8192, 0, 512)
            .unwrap()
            .is_empty()
    );
}
