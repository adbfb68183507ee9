//! What the tests of the Parquet kernels share: the kernels as processor code, encoders of pages, and
//! how pages of one column are decoded.

#![allow(dead_code, clippy::missing_panics_doc, clippy::must_use_candidate)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::ffi::{CStr, c_void};

use gds_rs::device::{
    ParquetColumn, ParquetConversion as To, ParquetEncoding as Encoding, ParquetPage, ParquetWork,
};

use crate::kernel_support::{Guarded, compiled};

pub type OnHost = unsafe extern "C" fn(*const ParquetWork);

pub struct Kernels([OnHost; 4]);

impl Kernels {
    pub fn new() -> Self {
        let load = |name: &CStr| {
            let symbol = compiled("parquet.cu", name);
            // SAFETY: the source declares this function with this signature; it stays loaded.
            unsafe { std::mem::transmute::<*mut c_void, OnHost>(symbol) }
        };
        Self([
            load(c"gds_parquet_levels_on_host"),
            load(c"gds_parquet_expand_on_host"),
            load(c"gds_parquet_values_on_host"),
            load(c"gds_parquet_gather_on_host"),
        ])
    }

    pub fn step(&self, step: usize, pages: &mut [ParquetPage], column: &ParquetColumn) {
        let work = ParquetWork {
            pages: pages.as_mut_ptr() as u64,
            page_count: pages.len() as u64,
            columns: std::ptr::from_ref(column) as u64,
            column_count: 1,
            next: 0,
            // One, or several of which some have nothing to do.
            parts: pages.len() as u64 % 3 * 7,
        };
        // SAFETY: the work names memory of the caller.
        unsafe { (self.0[step])(&work) };
    }
}

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

pub fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        into.push(value as u8 | 128);
        value >>= 7;
    }
    into.push(value as u8);
}

pub fn pack(into: &mut Vec<u8>, values: &[u64], width: u32) {
    let mut bits = vec![0u8; (values.len() * width as usize).div_ceil(8)];
    for (n, value) in values.iter().enumerate() {
        for bit in 0..width as usize {
            let at = n * width as usize + bit;
            bits[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
        }
    }
    into.extend(bits);
}

/// Runs and packed bits, as they come.
pub fn hybrid(random: &mut Random, values: &[u64], width: u32) -> Vec<u8> {
    let mut into = Vec::new();
    let mut rest = values;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|v| *v == first).count();
        if same > 4 && random.below(4) > 0 || rest.len() < 8 {
            varint(&mut into, (same as u64) << 1);
            into.extend(&first.to_le_bytes()[..width.div_ceil(8) as usize]);
            rest = &rest[same..];
        } else {
            let groups = 1 + random.below((rest.len() / 8).min(63) as u64) as usize;
            varint(&mut into, (groups as u64) << 1 | 1);
            pack(&mut into, &rest[..8 * groups], width);
            rest = &rest[8 * groups..];
        }
    }
    into
}

pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// Blocks of 128, four packs of 32 each.
pub fn deltas(values: &[i64]) -> Vec<u8> {
    let mut into = Vec::new();
    varint(&mut into, 128);
    varint(&mut into, 4);
    varint(&mut into, values.len() as u64);
    varint(&mut into, zigzag(values.first().copied().unwrap_or(0)));
    let differences: Vec<i64> = values.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    for block in differences.chunks(128) {
        let least = *block.iter().min().unwrap();
        varint(&mut into, zigzag(least));
        let over: Vec<u64> = block.iter().map(|d| d.wrapping_sub(least) as u64).collect();
        let width = |pack: &[u64]| 64 - pack.iter().max().unwrap().leading_zeros();
        let packs: Vec<_> = over.chunks(32).collect();
        for n in 0..4 {
            into.push(packs.get(n).map_or(0, |p| width(p) as u8));
        }
        for some in packs {
            let mut whole = some.to_vec();
            whole.resize(32, 0);
            pack(&mut into, &whole, width(some));
        }
    }
    into
}

/// A page in the making: which values are there, and the encoded ones.
pub struct Made {
    pub valid: Option<Vec<bool>>,
    pub count: usize,
    pub encoding: Encoding,
    pub values: Vec<u8>,
    pub version_2: bool,
}

/// What came out of pages of one column.
pub struct Out {
    pub statuses: Vec<(u32, u64)>,
    pub values: Vec<u8>,
    pub valid: Vec<bool>,
    pub offsets: Vec<u32>,
}

/// Decodes the pages of a column.
pub fn decode(
    kernels: &Kernels,
    random: &mut Random,
    made: &[Made],
    mut column: ParquetColumn,
) -> Out {
    let mut memory = Vec::new();
    let mut pages = Vec::new();
    let mut scratch = Vec::new();
    let mut at = 0;
    for page in made {
        let mut bytes = Vec::new();
        let mut descriptor = ParquetPage {
            encoding: page.encoding as u32,
            values: page.count as u32,
            first: at as u64,
            ..ParquetPage::default()
        };
        if let Some(valid) = &page.valid {
            descriptor.has_levels = 1;
            let levels: Vec<u64> = valid.iter().map(|v| u64::from(*v)).collect();
            let levels = hybrid(random, &levels, 1);
            if page.version_2 {
                let held = hold(&levels);
                (descriptor.levels, descriptor.levels_size) = (held.1, levels.len() as u64);
                memory.push(held.0);
            } else {
                bytes.extend((levels.len() as u32).to_le_bytes());
                bytes.extend(levels);
            }
        }
        bytes.extend(&page.values);
        let held = hold(&bytes);
        (descriptor.data, descriptor.data_size) = (held.1, bytes.len() as u64);
        memory.push(held.0);
        let mut room = vec![0u64; page.count + page.count / 512 + 1];
        descriptor.scratch = room.as_mut_ptr() as u64;
        scratch.push(room);
        pages.push(descriptor);
        at += page.count;
    }
    let mut validity = vec![0u32; at.div_ceil(32) + 1];
    let nullable = made.iter().any(|p| p.valid.is_some());
    column.validity = if nullable {
        validity.as_mut_ptr() as u64
    } else {
        0
    };
    kernels.step(0, &mut pages, &column);
    kernels.step(1, &mut pages, &column);
    let mut total = 0;
    for page in &mut pages {
        page.bytes_before = total;
        total += page.bytes;
    }
    let size = match column.conversion {
        c if c == To::Bytes as u32 => total as usize,
        c if c == To::Bits as u32 => 4 * (at.div_ceil(32) + 1),
        _ => at * column.width_out as usize,
    };
    let mut values = vec![0u64; size.div_ceil(8) + 1];
    let mut offsets = vec![0xDEAD_BEEF_u32; at + 1];
    column.values = values.as_mut_ptr() as u64;
    column.offsets = offsets.as_mut_ptr() as u64;
    kernels.step(2, &mut pages, &column);
    kernels.step(3, &mut pages, &column);
    assert_eq!(values.last(), Some(&0), "behind the column");
    assert_eq!(validity.last(), Some(&0), "behind the bitmap");
    let bytes = values.iter().flat_map(|w| w.to_le_bytes());
    Out {
        statuses: pages.iter().map(|p| (p.status, p.at)).collect(),
        values: bytes.take(size).collect(),
        valid: (0..at)
            .map(|n| !nullable || validity[n / 32] >> (n % 32) & 1 == 1)
            .collect(),
        offsets,
    }
}

/// The bytes at the end of memory, and their address.
pub fn hold(bytes: &[u8]) -> (Guarded, u64) {
    let mut memory = Guarded::new(bytes.len() + 1);
    let at = memory.usable - bytes.len();
    memory.bytes()[at..].copy_from_slice(bytes);
    let address = memory.base as u64 + at as u64;
    (memory, address)
}

pub fn column(conversion: To, width_in: u32, width_out: u32) -> ParquetColumn {
    ParquetColumn {
        conversion: conversion as u32,
        width_in,
        width_out,
        ..ParquetColumn::default()
    }
}

pub fn small(random: &mut Random) -> i64 {
    match random.below(10) {
        0 => random.next() as i64,
        1 => i64::MIN,
        2 => i64::MAX,
        _ => random.below(1000) as i64 - 500,
    }
}

pub fn text(random: &mut Random) -> Vec<u8> {
    let size = if random.below(9) == 0 {
        random.below(300)
    } else {
        random.below(12)
    };
    (0..size).map(|_| random.next() as u8).collect()
}

pub fn plain_i64(_: &mut Random, values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub fn plain_strings(values: &[Vec<u8>]) -> Vec<u8> {
    let one = |v: &Vec<u8>| [&(v.len() as u32).to_le_bytes()[..], v].concat();
    values.iter().flat_map(one).collect()
}

/// Strings that begin like others: of few letters, and some twice.
pub fn alike(random: &mut Random) -> Vec<u8> {
    let size = match random.below(9) {
        0 => random.below(300),
        1 => 20,
        _ => random.below(24),
    };
    let letter = |random: &mut Random| b'a' + u8::from(random.below(12) == 0);
    (0..size).map(|_| letter(random)).collect()
}

/// DELTA_BYTE_ARRAY. What is shared with the string before is not always used whole.
pub fn prefixed(random: &mut Random, values: &[Vec<u8>]) -> Vec<u8> {
    let (mut prefixes, mut suffixes, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let mut last: &[u8] = &[];
    for value in values {
        let shared = last.iter().zip(value).take_while(|(a, b)| a == b).count();
        let used = match random.below(4) {
            0 => random.below(shared as u64 + 1) as usize,
            _ => shared,
        };
        prefixes.push(used as i64);
        suffixes.push((value.len() - used) as i64);
        bytes.extend(&value[used..]);
        last = value;
    }
    [deltas(&prefixes), deltas(&suffixes), bytes].concat()
}
