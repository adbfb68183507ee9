//! Rows of what a stream of bytes goes through: chunks in order, and their checksum.

use std::hint::black_box;
use std::time::Instant;

use super::super::bench::{Bench, Cache, stream};
use super::super::output::{Outcome, gigabytes_per_second};
use super::super::scratch::random_bytes;
use super::ValidateArgs;
use super::finding::{Finding, Unit};
use crate::base::crc::crc32c;
use crate::base::limits;
use crate::prefetch::default_chunk;

/// CRC32C against the table version (specification, checksums: 10 to 50 times).
const TARGET_CRC_TIMES: f64 = 10.0;
/// A file in chunks against the same file in bulk, from the page cache and from the disk.
const STREAM_WARM: f64 = 0.95;
const STREAM_COLD: f64 = 0.98;
/// Buffers of the reader that is measured: as many as a reader has by itself.
const STREAM_BUFFERS: u32 = limits::STREAM_BUFFERS_MIN;

pub(super) fn streamed(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for (cache, name, part) in [
        (Cache::Warm, "chunks, page cache, 0.95 of bulk", STREAM_WARM),
        (Cache::Cold, "chunks, disk, 0.98 of bulk", STREAM_COLD),
    ] {
        let way = stream::Way {
            chunk_bytes: default_chunk(bench.context()),
            buffers: STREAM_BUFFERS,
            cache,
            runs: args.runs,
            with_limits: false,
        };
        let found = stream::measure(bench, &way)?;
        let bulk = found.bulk.median();
        findings.push(Finding {
            name,
            unit: Unit::GigabytesPerSecond,
            target: part * bulk,
            measured: found.reader.median(),
            limit: Some((bulk, "the bulk read".to_owned())),
            path: found.path,
        });
    }
    Ok(findings)
}

/// CRC32C by the table, a byte at a time: what the target is measured against.
struct Table([u32; 256]);

impl Table {
    fn new() -> Self {
        /// The Castagnoli polynomial, reflected.
        const POLYNOMIAL: u32 = 0x82F6_3B78;
        let mut table = [0; 256];
        for (byte, entry) in (0u32..).zip(table.iter_mut()) {
            *entry = (0..8).fold(byte, |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)));
        }
        Self(table)
    }

    fn crc32c(&self, bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| (crc >> 8) ^ self.0[(crc as u8 ^ byte) as usize];
        !bytes.iter().fold(!0, step)
    }
}

pub(super) fn checksum(_: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    // Small enough for the processor's caches: the code is measured, not the memory.
    let data = random_bytes(256 << 10);
    let table = Table::new();
    let rate = |work: &dyn Fn() -> u32| {
        let (began, mut bytes) = (Instant::now(), 0);
        while began.elapsed().as_millis() < 100 {
            black_box(work());
            bytes += data.len() as u64;
        }
        gigabytes_per_second(bytes, began.elapsed().as_secs_f64())
    };
    let mut times = Vec::new();
    let mut ours = 0.0;
    for _ in 0..args.runs {
        ours = rate(&|| crc32c(0, black_box(&data)));
        times.push(ours / rate(&|| table.crc32c(black_box(&data))));
    }
    times.sort_by(f64::total_cmp);
    Ok(vec![Finding {
        name: "CRC32C against the table version",
        unit: Unit::Times,
        target: TARGET_CRC_TIMES,
        measured: times[times.len() / 2],
        limit: None,
        path: format!("{ours:.1} GB/s in cache"),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_version_is_crc32c() {
        assert_eq!(Table::new().crc32c(b"123456789"), 0xE306_9283);
        let data = random_bytes(10_000);
        assert_eq!(Table::new().crc32c(&data), crc32c(0, &data));
    }
}
