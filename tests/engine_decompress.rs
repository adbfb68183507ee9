//! Chunks decompressed where they lie: by the kernel, on a GPU where there is one and as processor
//! code everywhere; the host device says that it has none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

mod common;
mod format_kernels;
mod kernel_support;
mod late_device;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{context, small_config};
use format_kernels::format_kernels;
use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::device;
use gds_rs::engine::{Buffer, Compressed, Context, DecompressCodec, DecompressStatus, MemoryKind};
use gds_rs::error::ErrorKind;
use late_device::LateDevice;

const CODECS: [DecompressCodec; 3] = [
    DecompressCodec::Lz4Block,
    DecompressCodec::Lz4Frame,
    DecompressCodec::Snappy,
];

/// GPUs that are here, and the kernel as processor code.
fn devices() -> Vec<Context> {
    let double = LateDevice::with_kernels(format_kernels());
    let mut all = vec![double.context(small_config(), gds_rs::io::best())];
    all.extend(gpus());
    all
}

fn gpus() -> Vec<Context> {
    let (devices, trouble) = device::list(Duration::from_secs(60));
    if let Some(error) = trouble {
        println!("skipped: CUDA: {error}");
    }
    let gpus = devices.iter().filter(|d| d.ordinal != DEVICE_HOST);
    gpus.map(|info| {
        println!("on {}", info.name);
        Context::open(Config {
            gpu_device: info.ordinal,
            ..small_config()
        })
        .unwrap()
    })
    .collect()
}

/// Words of few kinds: they compress to about a third.
fn sample(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = (state >> 40) % 97;
        bytes.extend(format!("{word}-{} ", word * word % 89).bytes());
    }
    bytes.truncate(size);
    bytes
}

fn compress(codec: DecompressCodec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        DecompressCodec::Lz4Block => lz4_flex::block::compress(bytes),
        DecompressCodec::Lz4Frame => {
            // As Arrow's writers do: linked blocks of 64 KiB, no checksums.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Linked)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        DecompressCodec::Snappy => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        other => panic!("{other:?} is not for the kernel"),
    }
}

/// Chunks side by side in one buffer, and where each begins; outputs at odd places.
struct Packed {
    from: Buffer,
    to: Buffer,
    chunks: Vec<(u64, u64, u64, u64)>,
}

fn pack(context: &Context, pieces: &[(Vec<u8>, usize)]) -> Packed {
    let (mut bytes, mut chunks, mut end) = (Vec::new(), Vec::new(), 3);
    for (piece, size) in pieces {
        chunks.push((bytes.len() as u64, piece.len() as u64, end, *size as u64));
        bytes.extend(piece);
        end += *size as u64 + 5;
    }
    let from = context.alloc(MemoryKind::Device, bytes.len() as u64 + 1);
    let (from, to) = (
        from.unwrap(),
        context.alloc(MemoryKind::Device, end).unwrap(),
    );
    context.upload(&[(&bytes, &from, 0)]).unwrap();
    context
        .upload(&[(&vec![0xEE; end as usize], &to, 0)])
        .unwrap();
    Packed { from, to, chunks }
}

impl Packed {
    fn list(&self, codec: impl Fn(usize) -> DecompressCodec) -> Vec<Compressed<'_>> {
        let each = self.chunks.iter().enumerate();
        each.map(
            |(n, (from_offset, from_size, to_offset, to_size))| Compressed {
                codec: codec(n),
                from: &self.from,
                from_offset: *from_offset,
                from_size: *from_size,
                to: &self.to,
                to_offset: *to_offset,
                to_size: *to_size,
            },
        )
        .collect()
    }
}

#[test]
fn the_host_device_says_that_it_has_no_kernel() {
    let context = context();
    let bytes = sample(1000, 1);
    let packed = pack(&context, &[(compress(CODECS[0], &bytes), 1000)]);
    let error = context.decompress(&packed.list(|_| CODECS[0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
    let beyond = Compressed {
        to_size: 2000,
        ..packed.list(|_| CODECS[0])[0]
    };
    let error = context.decompress(&[beyond]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
}

#[test]
fn thousands_of_chunks_come_out_as_they_were_and_bad_ones_say_so() {
    for context in devices() {
        // More than one launch takes.
        let mut pieces = Vec::new();
        let mut wanted = Vec::new();
        for n in 0..25_000_usize {
            let size = if n % 1000 == 0 { 150_000 } else { n % 700 };
            let bytes = sample(size, n as u64);
            let mut piece = compress(CODECS[n % 3], &bytes);
            if n % 50 == 49 {
                piece.pop();
            }
            pieces.push((piece, size));
            wanted.push(bytes);
        }
        let packed = pack(&context, &pieces);
        let done = context.decompress(&packed.list(|n| CODECS[n % 3])).unwrap();
        let mut out = vec![0; packed.to.size() as usize];
        context.download(&packed.to, 0, &mut out).unwrap();
        assert_eq!(done.len(), pieces.len());
        let mut end = 0;
        for (n, (done, chunk)) in done.iter().zip(&packed.chunks).enumerate() {
            let (start, size) = (chunk.2 as usize, chunk.3 as usize);
            assert!(out[end..start].iter().all(|b| *b == 0xEE), "before {n}");
            end = start + size;
            if n % 50 == 49 {
                assert_ne!(done.status, DecompressStatus::Ok, "{n}");
                continue;
            }
            assert_eq!(done.status, DecompressStatus::Ok, "{n}");
            assert_eq!(done.at, chunk.1);
            assert!(out[start..end] == wanted[n], "chunk {n}");
        }
    }
}

/// Prints, for people; asserts only that the bytes are right.
#[test]
fn the_rate_of_each_codec_is_printed() {
    for context in gpus() {
        let plain = sample(64 << 10, 7);
        for codec in CODECS {
            let piece = compress(codec, &plain);
            let pieces = vec![(piece.clone(), plain.len()); 8192];
            let packed = pack(&context, &pieces);
            let list = packed.list(|_| codec);
            context.decompress(&list).unwrap();
            let started = Instant::now();
            let done = context.decompress(&list).unwrap();
            let seconds = started.elapsed().as_secs_f64();
            assert!(done.iter().all(|d| d.status == DecompressStatus::Ok));
            let mut last = vec![0; plain.len()];
            let at = packed.chunks[8191].2;
            context.download(&packed.to, at, &mut last).unwrap();
            assert!(last == plain);
            let gb = (pieces.len() * plain.len()) as f64 / 1e9;
            println!(
                "{codec:?}: {:.1} GB/s out, {:.2} of it in, 8192 chunks of 64 KiB",
                gb / seconds,
                piece.len() as f64 / plain.len() as f64
            );
        }
    }
}
