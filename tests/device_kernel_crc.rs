//! The CRC kernel's device functions, compiled for the processor, agree with the CRC of the library.
//!
//! The same source that nvcc compiles is built with the C++ compiler, and a loop stands for the
//! lanes of a warp: how a chunk is cut into rows and words, the tables, and how the sums of the
//! lanes become one CRC. That build traps on a load that is misaligned or sticks out of its chunk,
//! and the memory lies between pages that cannot be touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod kernel_support;

use std::ffi::c_void;

use gds_rs::base::crc::crc32c;
use gds_rs::device::{CrcRange, CrcWork};
use kernel_support::{Guarded, compiled};

type CrcOnHost = unsafe extern "C" fn(*const CrcWork, u64);

fn kernel() -> CrcOnHost {
    let symbol = compiled("crc32c.cu", c"gds_crc32c_chunks_on_host");
    // SAFETY: the kernel source declares this function with this signature; it stays loaded.
    unsafe { std::mem::transmute::<*mut c_void, CrcOnHost>(symbol) }
}

fn filled(usable: usize) -> Guarded {
    let mut memory = Guarded::new(usable);
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for byte in memory.bytes() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
    memory
}

/// The CRCs that the kernel finds for ranges of `memory`, given as offset and size.
fn crcs(
    kernel: CrcOnHost,
    memory: &Guarded,
    ranges: &[(usize, usize)],
    chunk_bytes: usize,
    warps: u64,
) -> Vec<u32> {
    let mut first = 0;
    let mut table = Vec::new();
    for (offset, size) in ranges {
        assert!(offset + size <= memory.usable);
        table.push(CrcRange {
            address: memory.base as u64 + *offset as u64,
            size: *size as u64,
            first,
        });
        first += size.div_ceil(chunk_bytes) as u64;
    }
    let mut crcs = vec![0xDEAD_BEEF; first as usize];
    let work = CrcWork {
        ranges: table.as_ptr() as u64,
        range_count: table.len() as u64,
        chunk_count: first,
        chunk_bytes: chunk_bytes as u64,
        crcs: crcs.as_mut_ptr() as u64,
        expected: 0,
        verdict: 0,
    };
    // SAFETY: the work names memory of this function and of the caller.
    unsafe { kernel(&work, warps) };
    crcs
}

fn wanted(memory: &mut Guarded, ranges: &[(usize, usize)], chunk_bytes: usize) -> Vec<u32> {
    let bytes = memory.bytes();
    let chunks = ranges
        .iter()
        .flat_map(|(offset, size)| bytes[*offset..offset + size].chunks(chunk_bytes));
    chunks.map(|chunk| crc32c(0, chunk)).collect()
}

#[test]
fn every_alignment_and_size_has_the_crc_of_the_library() {
    let kernel = kernel();
    let mut memory = filled(4 * 4096);
    let end = memory.usable;
    let sizes = (1..=70)
        .chain(500..=540)
        .chain(1010..=1040)
        .chain([4079, 4080, 4081, 4095, 4096, 4097, 8191, 8192]);
    let mut checked = 0;
    for size in sizes {
        // Up against the page before, then up against the page behind.
        let starts = (0..17).chain((0..17).map(|from| end - size - from));
        for start in starts {
            let ranges = [(start, size)];
            assert_eq!(
                crcs(kernel, &memory, &ranges, 8192, 1),
                wanted(&mut memory, &ranges, 8192),
                "{size} bytes at {start}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, (70 + 41 + 31 + 8) * 34);
}

#[test]
fn every_chunk_size_and_tail_of_a_range() {
    let kernel = kernel();
    let mut memory = filled((2 << 20) + 8192);
    for chunk in (9..=20).map(|bits| 1_usize << bits) {
        for (offset, size) in [
            (0, 2 * chunk),
            (0, chunk + 1),
            (16, 2 * chunk - 1),
            (3, 2 * chunk),
            (4095, chunk + 4095),
            (512, 1),
        ] {
            let ranges = [(offset, size)];
            assert_eq!(
                crcs(kernel, &memory, &ranges, chunk, 3),
                wanted(&mut memory, &ranges, chunk),
                "{size} bytes at {offset} in chunks of {chunk}"
            );
        }
    }
}

#[test]
fn many_ranges_are_told_apart_whatever_warp_has_a_chunk() {
    let kernel = kernel();
    let mut memory = filled(1 << 20);
    let mut ranges = Vec::new();
    let mut at = 5;
    for i in 0..97 {
        let size = (i * 1237) % 9000;
        ranges.push((at, size));
        at += size + i % 7;
    }
    ranges.extend([(0, 1 << 20), (77, 0)]);
    let expected = wanted(&mut memory, &ranges, 1024);
    for warps in [1, 2, 16, 100, 5000] {
        assert_eq!(
            crcs(kernel, &memory, &ranges, 1024, warps),
            expected,
            "{warps} warps"
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_changes_the_crc_of_its_chunk_alone() {
    let kernel = kernel();
    let mut memory = filled(3 * 4096);
    let ranges = [(1, 3 * 1024)];
    let before = crcs(kernel, &memory, &ranges, 1024, 1);
    for bit in (0..3 * 1024 * 8).step_by(13) {
        let (byte, mask) = (1 + bit / 8, 1 << (bit % 8));
        memory.bytes()[byte] ^= mask;
        let after = crcs(kernel, &memory, &ranges, 1024, 1);
        memory.bytes()[byte] ^= mask;
        for (chunk, (old, new)) in before.iter().zip(&after).enumerate() {
            assert_eq!(
                old != new,
                chunk == bit / 8 / 1024,
                "bit {bit}, chunk {chunk}"
            );
        }
    }
}
