//! CRC32C: `base::crc`, which is the crc32c crate with the processor's instruction, beside tables of
//! eight bytes at a time ("slice-8", what a processor without the instruction gets) and a sum of
//! the words, which shows what reading them takes. One thread, in turns.
//!
//! `cargo bench --bench crc32c -- --rounds N`. Prints figures and judges none.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use gds_rs::base::crc::crc32c;

/// The polynomial of Castagnoli, its bits from the highest power on.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// How long one figure is measured.
const TIME: Duration = Duration::from_millis(300);

type Tables = [[u32; 256]; 8];
type Work<'a> = &'a dyn Fn(&[u8]) -> u32;

fn tables() -> Tables {
    let mut all = [[0; 256]; 8];
    for (byte, entry) in (0u32..).zip(&mut all[0]) {
        *entry = (0..8).fold(byte, |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
        });
    }
    for table in 1..8 {
        for byte in 0..256 {
            let before = all[table - 1][byte];
            all[table][byte] = (before >> 8) ^ all[0][(before & 0xff) as usize];
        }
    }
    all
}

/// M. E. Kounavis, F. L. Berry, "A Systematic Approach to Building High Performance Software-Based
/// CRC Generators", 2005.
fn slice_8(tables: &Tables, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut crc = !0u32;
    for word in words {
        let word = u64::from_le_bytes(*word) ^ u64::from(crc);
        crc = (0..8).fold(0, |sum, at| {
            sum ^ tables[7 - at][(word >> (8 * at)) as usize & 0xff]
        });
    }
    for byte in rest {
        crc = (crc >> 8) ^ tables[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    !crc
}

fn sum(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<8>();
    let all = words.iter().map(|word| u64::from_le_bytes(*word));
    all.fold(0, u64::wrapping_add) as u32
}

/// GB/s.
fn measure(bytes: &[u8], work: Work<'_>) -> f64 {
    let begin = Instant::now();
    let mut done = 0usize;
    while begin.elapsed() < TIME {
        for _ in 0..64 {
            black_box(work(black_box(bytes)));
        }
        done += 64 * bytes.len();
    }
    done as f64 / begin.elapsed().as_secs_f64() / 1e9
}

fn main() {
    let mut words = std::env::args().skip_while(|word| word != "--rounds");
    let rounds: usize = words.nth(1).map_or(3, |word| word.parse().unwrap());
    let tables = tables();
    assert_eq!(slice_8(&tables, b"123456789"), crc32c(0, b"123456789"));
    for size in [512, 4 << 10, 64 << 10, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|i: u32| (i * 7 + i / 13) as u8).collect();
        let contestants: [(&str, Work<'_>); 3] = [
            ("ours", &|bytes| crc32c(0, bytes)),
            ("slice-8", &|bytes| slice_8(&tables, bytes)),
            ("sum", &sum),
        ];
        let mut figures = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (found, (_, work)) in figures.iter_mut().zip(&contestants) {
                found.push(measure(&bytes, work));
            }
        }
        for (mut found, (name, _)) in figures.into_iter().zip(&contestants) {
            found.sort_by(f64::total_cmp);
            let median = found[found.len() / 2];
            println!("{size:>8} bytes  {name:<8} {median:6.2} GB/s  {found:.2?}");
        }
    }
}
