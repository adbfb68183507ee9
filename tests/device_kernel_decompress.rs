//! The decompression kernel's device functions, compiled for the processor, agree with other
//! decoders, and never leave the memory of a chunk whatever stands in it.
//!
//! A loop stands for the lanes of a warp, lane after lane, so that a byte that needs another lane's
//! byte of the same copy comes out wrong. The memory lies between pages that cannot be touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod kernel_support;

use std::ffi::c_void;
use std::io::Write;

use gds_rs::device::{
    DecompressChunk, DecompressCodec, DecompressStatus, DecompressWork, SNAPPY_BLOCK, SNAPPY_WHOLE,
};
use kernel_support::{Guarded, compiled};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

type OnHost = unsafe extern "C" fn(*const DecompressWork);

struct Kernel(OnHost);

impl Kernel {
    fn new() -> Self {
        let symbol = compiled("decompress.cu", c"gds_decompress_chunks_on_host");
        // SAFETY: the kernel source declares this function with this signature; it stays loaded.
        Self(unsafe { std::mem::transmute::<*mut c_void, OnHost>(symbol) })
    }

    /// What comes of `input`, which ends where memory ends, as does the output.
    fn run(&self, codec: DecompressCodec, input: &[u8], size: usize) -> (u32, u64, Vec<u8>) {
        let (mut from, mut to) = (Guarded::new(input.len() + 1), Guarded::new(size + 1));
        let (from_at, to_at) = (from.usable - input.len(), to.usable - size);
        from.bytes()[from_at..].copy_from_slice(input);
        let mut chunk = DecompressChunk {
            from: from.base as u64 + from_at as u64,
            from_size: input.len() as u64,
            to: to.base as u64 + to_at as u64,
            to_size: size as u64,
            codec: codec as u32,
            status: 99,
            at: 0,
        };
        let work = DecompressWork {
            chunks: &raw mut chunk as u64,
            count: 1,
            next: 0,
            wholes: 0,
        };
        // SAFETY: the work names memory of this function.
        unsafe { (self.0)(&work) };
        (chunk.status, chunk.at, to.bytes()[to_at..].to_vec())
    }

    /// What comes of a chunk of Snappy that is taken apart, when it can be.
    fn run_apart(&self, input: &[u8], size: usize) -> Option<Vec<u8>> {
        let (mut from, mut to) = (Guarded::new(input.len() + 1), Guarded::new(size + 1));
        let (from_at, to_at) = (from.usable - input.len(), to.usable - size);
        from.bytes()[from_at..].copy_from_slice(input);
        let parts = (size as u64).div_ceil(SNAPPY_BLOCK);
        if parts == 0 {
            return None;
        }
        let whole = DecompressChunk {
            from: from.base as u64 + from_at as u64,
            from_size: input.len() as u64,
            to: to.base as u64 + to_at as u64,
            to_size: size as u64,
            codec: SNAPPY_WHOLE,
            status: 1,
            at: parts,
        };
        let part = DecompressChunk {
            codec: 0,
            status: 99,
            ..whole
        };
        let mut chunks = vec![whole];
        chunks.extend((0..parts).map(|_| part));
        let work = DecompressWork {
            chunks: chunks.as_mut_ptr() as u64,
            count: chunks.len() as u64,
            next: 0,
            wholes: 1,
        };
        // SAFETY: the work names memory of this function.
        unsafe { (self.0)(&work) };
        let well = chunks[1..].iter().all(|part| part.status == 0);
        well.then(|| to.bytes()[to_at..].to_vec())
    }

    fn expect(&self, codec: DecompressCodec, input: &[u8], wanted: &[u8]) {
        let (status, at, output) = self.run(codec, input, wanted.len());
        assert_eq!((status, at), (0, input.len() as u64), "{codec:?}");
        assert!(output == wanted, "{codec:?} of {} bytes", wanted.len());
        if codec == DecompressCodec::Snappy
            && let Some(output) = self.run_apart(input, wanted.len())
        {
            assert!(output == wanted, "apart, {} bytes", wanted.len());
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// Bytes with repeats near and far, of every period.
fn sample(random: &mut Random, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(size);
    while bytes.len() < size {
        let run = 1 + random.below(200) as usize;
        match random.below(4) {
            0 => bytes.extend((0..run).map(|_| random.next() as u8)),
            1 => bytes.extend((0..run).map(|_| random.below(3) as u8)),
            _ if bytes.is_empty() => {}
            kind => {
                let most = bytes.len().min(if kind == 2 { 40 } else { 70_000 }) as u64;
                let back = 1 + random.below(most) as usize;
                for _ in 0..run {
                    bytes.push(bytes[bytes.len() - back]);
                }
            }
        }
    }
    bytes.truncate(size);
    bytes
}

fn frame(bytes: &[u8], mode: BlockMode, size: BlockSize, content: bool) -> Vec<u8> {
    let mut info = FrameInfo::new().block_mode(mode).block_size(size);
    info.content_size = content.then_some(bytes.len() as u64);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

#[test]
fn what_others_compressed_comes_out_as_it_was() {
    let kernel = Kernel::new();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let sizes = (0..200).chain([1000, 4096, 65_535, 65_536, 65_537, 200_000, 300_001]);
    for size in sizes {
        let bytes = sample(&mut random, size);
        let block = lz4_flex::block::compress(&bytes);
        kernel.expect(DecompressCodec::Lz4Block, &block, &bytes);
        kernel.expect(DecompressCodec::Snappy, &snappy(&bytes), &bytes);
        for mode in [BlockMode::Linked, BlockMode::Independent] {
            for block in [BlockSize::Max64KB, BlockSize::Max256KB] {
                for content in [false, true] {
                    let frame = frame(&bytes, mode, block, content);
                    kernel.expect(DecompressCodec::Lz4Frame, &frame, &bytes);
                }
            }
        }
    }
}

#[test]
fn matches_of_every_period_and_length_repeat_what_is_before_them() {
    let kernel = Kernel::new();
    for period in 1..80u16 {
        for length in [4usize, 5, 18, 19, 31, 32, 33, 64, 100, 273, 274, 1000] {
            let start: Vec<u8> = (0..period).map(|i| i as u8 ^ 0x5A).collect();
            let mut wanted = start.clone();
            for _ in 0..length {
                wanted.push(wanted[wanted.len() - usize::from(period)]);
            }
            wanted.extend(b"ends");
            let mut input = Vec::new();
            sequence(&mut input, &start, Some((period, length)));
            sequence(&mut input, b"ends", None);
            kernel.expect(DecompressCodec::Lz4Block, &input, &wanted);
        }
    }
}

/// A sequence of an LZ4 block.
fn sequence(into: &mut Vec<u8>, literals: &[u8], repeat: Option<(u16, usize)>) {
    let long = |into: &mut Vec<u8>, size: usize| {
        if let Some(mut rest) = size.checked_sub(15) {
            while rest >= 255 {
                into.push(255);
                rest -= 255;
            }
            into.push(rest as u8);
        }
    };
    let length = repeat.map_or(0, |(_, length)| length - 4);
    into.push((literals.len().min(15) << 4 | length.min(15)) as u8);
    long(into, literals.len());
    into.extend(literals);
    if let Some((offset, _)) = repeat {
        into.extend(offset.to_le_bytes());
        long(into, length);
    }
}

#[test]
fn what_others_compress_is_taken_apart_and_what_is_made_otherwise_is_not() {
    let kernel = Kernel::new();
    let mut random = Random(77);
    for size in [65_536, 65_537, 131_072, 200_000, 1_048_576, 1_050_001] {
        for kind in 0..3 {
            let bytes = match kind {
                0 => sample(&mut random, size),
                // Numbers one after the other: elements of a few bytes.
                1 => (0..size as u64 / 8 + 1)
                    .flat_map(|n| (n * 3).to_le_bytes())
                    .take(size)
                    .collect(),
                // What does not compress: literals as long as can be.
                _ => (0..size).map(|_| random.next() as u8).collect(),
            };
            let apart = kernel.run_apart(&snappy(&bytes), size);
            assert!(
                apart.as_deref() == Some(&bytes[..]),
                "{size} bytes, kind {kind}"
            );
        }
    }
    // A literal of 65,530 bytes and a match over the end of the block.
    let literal: Vec<u8> = (0..65_530u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let mut input = vec![0x86, 0x80, 0x04, 61 << 2, 0xF9, 0xFF];
    input.extend(&literal);
    input.extend([2 | 11 << 2, 100, 0]);
    let mut wanted = literal.clone();
    wanted.extend_from_within(65_430..65_442);
    let size = wanted.len();
    input[0] = (size & 127) as u8 | 128;
    input[1] = (size >> 7 & 127) as u8 | 128;
    input[2] = (size >> 14) as u8;
    kernel.expect(DecompressCodec::Snappy, &input, &wanted);
    assert_eq!(kernel.run_apart(&input, size), None);
    // As many bytes, but the second block reaches into the first.
    let mut input = input[..6 + 65_530].to_vec();
    input.extend([2 | 5 << 2, 100, 0, 2 | 5 << 2, 100, 0]);
    kernel.expect(DecompressCodec::Snappy, &input, &wanted);
    assert_eq!(kernel.run_apart(&input, size), None);
}

#[test]
fn snappy_tags_of_every_kind() {
    let kernel = Kernel::new();
    let literal: Vec<u8> = (0..70_000u32).map(|i| (i * 7 + i / 300) as u8).collect();
    // Literals with 0 to 3 bytes of length, then copies with one, two and four bytes of offset.
    let mut input = vec![0xE8, 0xA3, 0x04];
    let mut wanted = Vec::new();
    let put = |input: &mut Vec<u8>, wanted: &mut Vec<u8>, tag: &[u8], from: usize, size: usize| {
        input.extend(tag);
        input.extend(&literal[from..from + size]);
        wanted.extend(&literal[from..from + size]);
    };
    put(&mut input, &mut wanted, &[59 << 2], 0, 60);
    put(&mut input, &mut wanted, &[60 << 2, 199], 100, 200);
    put(&mut input, &mut wanted, &[61 << 2, 0x57, 0x04], 300, 0x458);
    put(
        &mut input,
        &mut wanted,
        &[62 << 2, 0xFF, 0xFF, 0x00],
        2000,
        65_536,
    );
    let mut repeat = |tag: &[u8], offset: usize, size: usize| {
        input.extend(tag);
        for _ in 0..size {
            wanted.push(wanted[wanted.len() - offset]);
        }
    };
    repeat(&[1 | 7 << 2 | 2 << 5, 0x10], 0x210, 11);
    repeat(&[2 | 63 << 2, 0x03, 0x00], 3, 64);
    repeat(&[3 | 4 << 2, 0x10, 0x01, 0x01, 0x00], 0x10110, 5);
    let mut head = Vec::new();
    let mut rest = wanted.len();
    while rest >= 128 {
        head.push(rest as u8 | 128);
        rest >>= 7;
    }
    head.push(rest as u8);
    input.splice(0..3, head);
    kernel.expect(DecompressCodec::Snappy, &input, &wanted);
}

#[test]
fn broken_chunks_have_a_status_and_a_place() {
    use DecompressCodec::{Lz4Block, Lz4Frame, Snappy};
    use DecompressStatus as S;
    let kernel = Kernel::new();
    let frame_of = |flags: u8, sizes: u8, rest: &[u8]| {
        let mut bytes = vec![0x04, 0x22, 0x4D, 0x18, flags, sizes, 0];
        bytes.extend(rest);
        bytes
    };
    let cases: &[(DecompressCodec, Vec<u8>, usize, S, u64)] = &[
        (Lz4Block, vec![], 1, S::Truncated, 0),
        (Lz4Block, vec![0x50, 1, 2], 5, S::Truncated, 1),
        (Lz4Block, vec![0xF0, 255, 255], 5, S::Truncated, 3),
        (Lz4Block, vec![0x10, 9, 1], 5, S::Truncated, 2),
        (Lz4Block, vec![0x10, 9, 0, 0, 0], 5, S::Offset, 4),
        (Lz4Block, vec![0x10, 9, 2, 0, 0], 5, S::Offset, 4),
        (Lz4Block, vec![0x10, 9, 1, 0, 0x50], 4, S::TooLong, 4),
        (Lz4Block, vec![0x30, 1, 2, 3], 2, S::TooLong, 1),
        (Lz4Block, vec![0x30, 1, 2, 3], 4, S::TooShort, 4),
        (Lz4Frame, vec![4, 0x22, 0x4D, 0x18], 1, S::Truncated, 0),
        (Lz4Frame, frame_of(0x00, 0x40, &[0; 4]), 0, S::Header, 0),
        (Lz4Frame, frame_of(0x40, 0x30, &[0; 4]), 0, S::Header, 0),
        (
            Lz4Frame,
            frame_of(0x44, 0x40, &[0; 8]),
            0,
            S::Unsupported,
            0,
        ),
        (
            Lz4Frame,
            frame_of(0x50, 0x40, &[0; 4]),
            0,
            S::Unsupported,
            0,
        ),
        (
            Lz4Frame,
            frame_of(0x41, 0x40, &[0; 8]),
            0,
            S::Unsupported,
            0,
        ),
        (Lz4Frame, frame_of(0x40, 0x40, &[0; 3]), 0, S::Truncated, 7),
        (Lz4Frame, frame_of(0x48, 0x40, &[0; 7]), 0, S::Truncated, 15),
        (
            Lz4Frame,
            frame_of(0x40, 0x40, &[9, 0, 0, 0]),
            9,
            S::Truncated,
            11,
        ),
        (
            Lz4Frame,
            frame_of(0x40, 0x40, &[1, 0, 1, 0]),
            9,
            S::Header,
            11,
        ),
        (Lz4Frame, frame_of(0x40, 0x40, &[0; 5]), 0, S::Trailing, 11),
        (Snappy, vec![], 0, S::Truncated, 0),
        (
            Snappy,
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 1],
            0,
            S::Header,
            5,
        ),
        (Snappy, vec![3, 8, 1, 2, 3], 2, S::TooLong, 1),
        (Snappy, vec![3, 8, 1, 2, 3], 4, S::TooShort, 1),
        (Snappy, vec![3, 4, 1, 2], 3, S::TooShort, 4),
        (Snappy, vec![3, 8, 1, 2], 3, S::Truncated, 2),
        (Snappy, vec![3, 62 << 2, 1], 3, S::Truncated, 2),
        (Snappy, vec![9, 0, 7, 1, 2], 9, S::Offset, 5),
        (Snappy, vec![2, 0, 7, 1, 1], 2, S::TooLong, 5),
    ];
    for (codec, input, size, status, at) in cases {
        let got = kernel.run(*codec, input, *size);
        assert_eq!((got.0, got.1), (*status as u32, *at), "{codec:?} {input:?}");
    }
}

/// Whatever stands in a chunk, nothing outside its memory is touched: the pages around it would
/// end the test. Where the kernel says that all is well, another decoder says the same.
#[test]
fn flipped_and_cut_chunks_stay_inside_their_memory() {
    let kernel = Kernel::new();
    let mut random = Random(42);
    let mut well = 0;
    let rounds = std::env::var("GDS_FORMATS_MUTATIONS").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(3000);
    for _ in 0..rounds {
        let size = random.below(3000) as usize;
        let bytes = sample(&mut random, size);
        let codec = [
            DecompressCodec::Lz4Block,
            DecompressCodec::Lz4Frame,
            DecompressCodec::Snappy,
        ][random.below(3) as usize];
        let mut input = match codec {
            DecompressCodec::Lz4Block => lz4_flex::block::compress(&bytes),
            DecompressCodec::Lz4Frame => {
                frame(&bytes, BlockMode::Linked, BlockSize::Max64KB, false)
            }
            _ => snappy(&bytes),
        };
        for _ in 0..random.below(4) {
            if !input.is_empty() {
                let at = random.below(input.len() as u64) as usize;
                input[at] ^= 1 << random.below(8);
            }
        }
        if random.below(4) == 0 {
            input.truncate(random.below(input.len() as u64 + 1) as usize);
        }
        let (status, _, output) = kernel.run(codec, &input, size);
        if codec == DecompressCodec::Snappy
            && let Some(apart) = kernel.run_apart(&input, size)
        {
            assert!(status == 0 && apart == output, "{input:?}");
        }
        if status != 0 {
            continue;
        }
        well += 1;
        let other = match codec {
            DecompressCodec::Lz4Block => lz4_flex::block::decompress(&input, size).ok(),
            // The checksum of a frame's header is not looked at here.
            DecompressCodec::Lz4Frame => continue,
            _ => snap::raw::Decoder::new().decompress_vec(&input).ok(),
        };
        assert!(other.as_ref() == Some(&output), "{codec:?} {input:?}");
    }
    assert!(well > rounds / 20, "{well} of {rounds} were right");
}
