//! One contract of CRCs, every device that opens here: the host always, CUDA where there is a GPU.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod device_support;

use device_support::{Lane, Memory, Pinned, on_every_device, pattern};
use gds_rs::ErrorKind;
use gds_rs::base::crc::crc32c;
use gds_rs::device::{CrcRange, CrcVerdict, CrcWork};

const ROOM: usize = 1 << 20;

/// Runs a CRC over `ranges` of `memory` (offset, size), compares with `expected` if there is one,
/// and tells the CRCs and the verdict.
fn crc_of(
    memory: &Memory,
    ranges: &[(usize, usize)],
    chunk_bytes: usize,
    expected: Option<&[u32]>,
    lane: &Lane,
) -> (Vec<u32>, CrcVerdict) {
    let device = memory.0;
    let (list, result) = (Pinned::new(device, 1 << 16), Memory::new(device, ROOM));
    let (verdict, mut chunks) = (Memory::new(device, 16), 0);
    for (i, (offset, size)) in ranges.iter().enumerate() {
        let range = CrcRange {
            address: memory.1 + *offset as u64,
            size: *size as u64,
            first: chunks as u64,
        };
        // SAFETY: the list has room for that many and is aligned to a page.
        unsafe { list.1.cast::<CrcRange>().add(i).write(range) };
        chunks += size.div_ceil(chunk_bytes);
    }
    let wanted = Pinned::new(device, 4 * chunks);
    if let Some(expected) = expected {
        // SAFETY: the memory holds a word a chunk.
        unsafe { std::slice::from_raw_parts_mut(wanted.1.cast::<u32>(), chunks) }
            .copy_from_slice(expected);
    }
    let mut fresh = [0xFF; 16];
    fresh[8..].fill(0);
    verdict.fill(&fresh, lane.1);
    let work = CrcWork {
        ranges: list.1 as u64,
        range_count: ranges.len() as u64,
        chunk_count: chunks as u64,
        chunk_bytes: chunk_bytes as u64,
        crcs: result.1,
        expected: expected.map_or(0, |_| wanted.1 as u64),
        verdict: verdict.1,
    };
    // SAFETY: everything lives until the stream is synchronised.
    unsafe { device.crc32c_chunks(&work, lane.1) }.unwrap();
    device.stream_synchronize(lane.1).unwrap();
    let words = |bytes: Vec<u8>| -> Vec<u32> {
        let word = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
        bytes.chunks(4).map(word).collect()
    };
    let told = words(verdict.read(16, lane.1));
    let long = |at: usize| u64::from(told[at]) | u64::from(told[at + 1]) << 32;
    let told = CrcVerdict {
        first_bad: long(0),
        bad: long(2),
    };
    (words(result.read(4 * chunks, lane.1)), told)
}

#[test]
fn crcs_of_chunks_are_those_of_the_processor_and_a_flipped_bit_is_found() {
    on_every_device(|device| {
        if !device.is_host() && device.info().compute_capability < 75 {
            let refused = device.crc32c_prepare().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotSupported, "{refused:?}");
            return;
        }
        device.crc32c_prepare().unwrap();
        let lane = Lane::new(device);
        let memory = Memory::new(device, ROOM);
        let mut bytes = pattern(ROOM, 21);
        memory.fill(&bytes, lane.1);
        let odd: Vec<_> = (0..60).map(|i| (i * 16_001 + i % 17, i * 977)).collect();
        let shapes: [&[(usize, usize)]; 5] = [
            &[(0, ROOM)],
            &[(5, 1), (16, 15), (31, 33), (4093, 4099)],
            &[(1, ROOM - 1)],
            &[(ROOM - 1, 1)],
            &odd,
        ];
        for ranges in shapes {
            for chunk_bytes in [512, 4096, 1 << 16, 1 << 20] {
                let chunks = ranges
                    .iter()
                    .flat_map(|(at, size)| bytes[*at..at + size].chunks(chunk_bytes));
                let right: Vec<u32> = chunks.map(|chunk| crc32c(0, chunk)).collect();
                let (crcs, verdict) = crc_of(&memory, ranges, chunk_bytes, Some(&right), &lane);
                assert_eq!(verdict, CrcVerdict::NONE_BAD, "{ranges:?} by {chunk_bytes}");
                assert!(crcs == right, "{ranges:?} by {chunk_bytes}");
                assert!(crc_of(&memory, ranges, chunk_bytes, None, &lane).0 == right);
            }
        }
        let right: Vec<u32> = bytes.chunks(4096).map(|chunk| crc32c(0, chunk)).collect();
        for flipped in [77_777, 500_000, ROOM - 1] {
            bytes[flipped] ^= 1 << (flipped % 8);
        }
        memory.fill(&bytes, lane.1);
        let (_, verdict) = crc_of(&memory, &[(0, ROOM)], 4096, Some(&right), &lane);
        let found = CrcVerdict {
            first_bad: 77_777 / 4096,
            bad: 3,
        };
        assert_eq!(verdict, found);
    });
}
