//! Bits of rows on their way to one place, part by part, by several threads. Parts meet within
//! bytes: those that two or more of them share are put together at the end, all others go to their
//! place at once.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow_buffer::BooleanBufferBuilder;
use parking_lot::Mutex;

use super::straight::pad;
use crate::engine::{Buffer, Context};
use crate::error::Result;
use crate::formats::work;

/// Bytes of ones that are put into a buffer at once.
const ONES: usize = 64 << 10;

/// A bitmap that is being written.
pub(super) struct Bits<'a> {
    context: &'a Context,
    memory: Buffer,
    /// Where it begins there.
    at: u64,
    /// Bytes that parts share, as far as they are known.
    edges: Mutex<BTreeMap<u64, u8>>,
}

impl<'a> Bits<'a> {
    pub fn new(context: &'a Context, memory: &Buffer, at: u64) -> Self {
        Self {
            context,
            memory: memory.clone(),
            at,
            edges: Mutex::default(),
        }
    }

    /// Takes the bits of rows from this one on, each at its place within its byte.
    pub fn builder(first: u64) -> BooleanBufferBuilder {
        let mut builder = BooleanBufferBuilder::new(0);
        builder.append_n((first % 8) as usize, false);
        builder
    }

    /// Puts the bits of some rows to their place; `bytes` begin with the byte of the first one.
    pub fn put(&self, rows: Range<u64>, bytes: &[u8]) -> Result<()> {
        let low = rows.start / 8;
        let byte = |at: u64| bytes.get((at - low) as usize).copied().unwrap_or(0);
        let whole = self.shared(&rows, byte);
        if whole.is_empty() {
            return Ok(());
        }
        let range = (whole.start - low) as usize..(whole.end - low) as usize;
        let own = bytes.get(range).unwrap_or_default();
        let part = (own, &self.memory, self.at + whole.start);
        self.context.upload(&[part])
    }

    /// Sets the bits of these rows.
    pub fn ones(&self, all: impl Iterator<Item = Range<u64>>) -> Result<()> {
        let ones = vec![0xFF; ONES];
        let mut parts: Vec<work::Upload<'_>> = Vec::new();
        for rows in all {
            let mut whole = self.shared(&rows, |_| 0xFF);
            while !whole.is_empty() {
                let size = (whole.end - whole.start).min(ONES as u64);
                let bytes = &ones[..size as usize];
                parts.push((bytes, &self.memory, self.at + whole.start));
                whole.start += size;
            }
        }
        work::upload(self.context, &parts)
    }

    /// Puts the bytes that parts share to their place, and zeros behind those of all `rows`: every
    /// part has given its bits.
    pub fn end(&self, rows: u64) -> Result<()> {
        let edges = self.edges.lock();
        let part = |(at, byte)| (std::slice::from_ref(byte), &self.memory, self.at + at);
        let behind = pad(&self.memory, self.at + rows.div_ceil(8));
        let all: Vec<work::Upload<'_>> = edges.iter().map(part).chain([behind]).collect();
        self.context.upload(&all)
    }

    /// Adds the bits of rows to bytes that they do not fill; the range of those that they do.
    fn shared(&self, rows: &Range<u64>, byte: impl Fn(u64) -> u8) -> Range<u64> {
        let mut whole = rows.start / 8..rows.end / 8;
        if rows.is_empty() {
            return whole.start..whole.start;
        }
        let behind = 0xFF << (rows.start % 8);
        let before = (1 << (rows.end % 8)) - 1;
        let mut edges = self.edges.lock();
        let mut add = |at: u64, mask: u8| *edges.entry(at).or_default() |= byte(at) & mask;
        if whole.is_empty() {
            add(whole.start, behind & before);
            return whole;
        }
        if behind != 0xFF {
            add(whole.start, behind);
            whole.start += 1;
        }
        if before != 0 {
            add(whole.end, before);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, DEVICE_HOST};
    use crate::engine::MemoryKind;

    const ROWS: u64 = 900_003;

    fn is_set(row: u64) -> bool {
        row.is_multiple_of(3) || row.is_multiple_of(7)
    }

    /// Lays bits in parts that end at `cuts`, the parts in reverse; every third part is all ones.
    fn laid(cuts: &[u64]) -> (Vec<u8>, Vec<bool>) {
        let config = Config {
            gpu_device: DEVICE_HOST,
            ..Config::default()
        };
        let context = Context::open(config).expect("a host context");
        let memory = context.alloc(MemoryKind::Device, 1 << 20).expect("memory");
        let before = vec![0xA5; 1 << 20];
        context.upload(&[(&before, &memory, 0)]).expect("room");
        let bits = Bits::new(&context, &memory, 64);
        let mut wanted = Vec::new();
        let mut ones = Vec::new();
        let mut parts = Vec::new();
        let mut start = 0;
        for (number, end) in cuts.iter().chain([&ROWS]).enumerate() {
            let is_ones = number % 3 == 2;
            wanted.extend((start..*end).map(|row| is_ones || is_set(row)));
            match is_ones {
                true => ones.push(start..*end),
                false => parts.push(start..*end),
            }
            start = *end;
        }
        for rows in parts.into_iter().rev() {
            let mut builder = Bits::builder(rows.start);
            rows.clone().for_each(|row| builder.append(is_set(row)));
            let own = builder.finish();
            bits.put(rows, own.inner().as_slice()).expect("room");
        }
        bits.ones(ones.into_iter()).expect("room");
        bits.end(ROWS).expect("room");
        let mut back = vec![0; 1 << 20];
        context.download(&memory, 0, &mut back).expect("bytes");
        (back, wanted)
    }

    #[test]
    fn parts_that_end_within_bytes_meet() {
        for cuts in [
            &[][..],
            &[8, 16, 800_000],
            &[1, 2, 3, 4, 4, 6, 7, 9, 9, 10, 17, 24, 26],
            &[0, 0, 3, 600_003, 600_004, 600_005, 600_016, 899_999],
            &[5, 5 + (ONES as u64) * 9, 700_001],
        ] {
            let (bytes, wanted) = laid(cuts);
            let size = ROWS.div_ceil(8) as usize;
            let own = &bytes[64..64 + size];
            for (row, wanted) in wanted.into_iter().enumerate() {
                let found = own[row / 8] >> (row % 8) & 1 == 1;
                assert_eq!(found, wanted, "row {row}, cuts {cuts:?}");
            }
            // No bit behind the last row is set, zeros fill 64 bytes, and nothing else was touched.
            assert!(bytes[..64].iter().all(|byte| *byte == 0xA5));
            let behind = (64 + size).next_multiple_of(64);
            assert!(bytes[64 + size..behind].iter().all(|byte| *byte == 0));
            assert!(bytes[behind..].iter().all(|byte| *byte == 0xA5));
            let rest = ROWS % 8;
            assert!(rest == 0 || own[size - 1] >> rest == 0);
        }
    }
}
