//! The copy kernel's device functions, compiled for the processor, move exactly the right bytes.
//!
//! The same source that nvcc compiles is built with the C++ compiler, and a loop stands for the
//! lanes of a warp. That build traps on a vector that is misaligned or sticks out of its piece, and
//! the memory lies between pages that cannot be touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod kernel_support;

use std::ffi::c_void;

use gds_rs::device::CopyPiece;
use kernel_support::{Guarded, compiled};

type CopyOnHost = unsafe extern "C" fn(*const CopyPiece, u64, u64);

fn kernel() -> CopyOnHost {
    let symbol = compiled("copy_pieces.cu", c"gds_copy_pieces_on_host");
    // SAFETY: the kernel source declares this function with this signature; it stays loaded.
    unsafe { std::mem::transmute::<*mut c_void, CopyOnHost>(symbol) }
}

fn pattern(i: usize) -> u8 {
    (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1
}

#[test]
fn every_alignment_and_size_is_copied_exactly() {
    let copy = kernel();
    let mut source = Guarded::new(3 * 4096);
    let mut target = Guarded::new(3 * 4096);
    let source_size = source.usable;
    for (i, byte) in source.bytes().iter_mut().enumerate() {
        *byte = pattern(i);
    }
    let sizes = (0..=100).chain([511, 512, 513, 4095, 4096, 4097]);
    let mut checked = 0;
    for size in sizes {
        // Up against the page before, then up against the page behind.
        let starts = (0..32).chain((0..32).map(|from| source_size - size - from));
        for start in starts {
            for to in 0..32 {
                for warps in [1, 3] {
                    let window = to + size + 64;
                    target.bytes()[..window].fill(0);
                    let piece = CopyPiece {
                        source: source.base as u64 + start as u64,
                        destination: target.base as u64 + to as u64,
                        size: size as u64,
                    };
                    // SAFETY: both ranges of the piece are mapped.
                    unsafe { copy(&piece, 1, warps) };
                    let got = &target.bytes()[..window];
                    assert!(
                        got[..to].iter().all(|b| *b == 0)
                            && got[to + size..].iter().all(|b| *b == 0),
                        "wrote outside: size {size} from {start} to {to} warps {warps}"
                    );
                    assert!(
                        got[to..to + size] == source.bytes()[start..start + size],
                        "wrong bytes: size {size} from {start} to {to} warps {warps}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 107 * 64 * 32 * 2);
}

#[test]
fn every_piece_is_copied_once_however_many_warps_there_are() {
    let copy = kernel();
    let count = 37;
    let mut source = Guarded::new(1 << 20);
    let mut target = Guarded::new(1 << 20);
    for (i, byte) in source.bytes().iter_mut().enumerate() {
        *byte = pattern(i);
    }
    let mut expected = vec![0; target.usable];
    let mut pieces = Vec::new();
    let mut at = 0;
    for i in 0..count {
        let size = 1 + i * 701;
        let from = (i * 27_001 + i) % (source.usable - size);
        pieces.push(CopyPiece {
            source: source.base as u64 + from as u64,
            destination: target.base as u64 + at as u64,
            size: size as u64,
        });
        expected[at..at + size].copy_from_slice(&source.bytes()[from..from + size]);
        at += size + 5;
    }
    for warps in [1, 2, 36, 37, 38, 74, 200, 1056] {
        target.bytes().fill(0);
        // SAFETY: every range of every piece is mapped, and destinations do not overlap.
        unsafe { copy(pieces.as_ptr(), pieces.len() as u64, warps) };
        assert!(target.bytes() == &expected[..], "{warps} warps");
    }
}
