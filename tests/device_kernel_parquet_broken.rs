//! Broken Parquet pages in the kernels that decode them, compiled for the processor: each has a
//! status, and nothing else is touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod kernel_support;
mod parquet_pages;

use gds_rs::device::{
    ParquetColumn, ParquetConversion as To, ParquetEncoding as Encoding, ParquetPage,
    ParquetStatus as Status,
};
use parquet_pages::{
    Kernels, Made, Random, alike, column, decode, deltas, hold, hybrid, plain_i64, plain_strings,
    small, text,
};

#[test]
fn broken_pages_have_a_status_and_leave_the_others_alone() {
    let kernels = Kernels::new();
    let run = |encoding, count: usize, valid: bool, values: Vec<u8>, column: &ParquetColumn| {
        let good = |column: &ParquetColumn| Made {
            valid: None,
            count: 0,
            encoding: Encoding::Plain,
            values: vec![0; column.width_in as usize],
            version_2: false,
        };
        let mut all = vec![good(column), good(column)];
        all.insert(
            1,
            Made {
                valid: valid.then(|| vec![true; count]),
                count,
                encoding,
                values,
                version_2: true,
            },
        );
        let out = decode(&kernels, &mut Random(1), &all, *column);
        assert_eq!((out.statuses[0].0, out.statuses[2].0), (0, 0));
        out.statuses[1]
    };
    let prefixed = |prefixes: &[i64], rests: &[i64], rest: &[u8], column: &ParquetColumn| {
        let values = [deltas(prefixes), deltas(rests), rest.to_vec()].concat();
        run(
            Encoding::DeltaByteArray,
            prefixes.len(),
            false,
            values,
            column,
        )
    };
    let numbers = column(To::Copy, 8, 8);
    let dictionary = ParquetColumn {
        dictionary_count: 3,
        ..numbers
    };
    let bytes = column(To::Bytes, 0, 0);
    let cases = [
        (
            run(Encoding::Plain, 3, false, vec![0; 23], &numbers),
            Status::Truncated,
        ),
        (
            run(Encoding::ByteStreamSplit, 3, true, vec![0; 23], &numbers),
            Status::Truncated,
        ),
        (
            run(Encoding::Dictionary, 3, false, vec![], &dictionary),
            Status::Truncated,
        ),
        (
            run(Encoding::Dictionary, 3, false, vec![33], &dictionary),
            Status::Run,
        ),
        (
            run(Encoding::Dictionary, 3, false, vec![2, 6, 3], &dictionary),
            Status::Index,
        ),
        (
            run(Encoding::Dictionary, 3, false, vec![2, 0, 3], &dictionary),
            Status::Run,
        ),
        (
            run(Encoding::Dictionary, 3, false, vec![2, 2, 1], &dictionary),
            Status::Truncated,
        ),
        (
            run(Encoding::Dictionary, 9, false, vec![9, 5, 1], &dictionary),
            Status::Truncated,
        ),
        (
            run(Encoding::Dictionary, 9, false, vec![2, 0x80], &dictionary),
            Status::Truncated,
        ),
        (
            run(Encoding::DeltaBinaryPacked, 3, false, vec![], &numbers),
            Status::Deltas,
        ),
        (
            run(
                Encoding::DeltaBinaryPacked,
                3,
                false,
                vec![0, 0, 3, 0],
                &numbers,
            ),
            Status::Deltas,
        ),
        (
            run(
                Encoding::DeltaBinaryPacked,
                3,
                false,
                vec![0x80, 1, 4, 4, 0],
                &numbers,
            ),
            Status::Deltas,
        ),
        (
            run(
                Encoding::DeltaBinaryPacked,
                3,
                false,
                vec![0x80, 1, 4, 3, 0, 0],
                &numbers,
            ),
            Status::Truncated,
        ),
        (
            run(
                Encoding::DeltaBinaryPacked,
                3,
                false,
                vec![0x80, 1, 4, 3, 0, 0, 65, 0, 0, 0],
                &numbers,
            ),
            Status::Deltas,
        ),
        (
            run(
                Encoding::Rle,
                3,
                false,
                vec![9, 0, 0, 0, 6, 1],
                &column(To::Bits, 1, 1),
            ),
            Status::Truncated,
        ),
        (
            run(Encoding::Plain, 9, false, vec![1], &column(To::Bits, 1, 1)),
            Status::Truncated,
        ),
        (
            run(
                Encoding::Plain,
                2,
                false,
                vec![1, 0, 0, 0, 7, 2, 0, 0, 0, 7],
                &bytes,
            ),
            Status::Truncated,
        ),
        (
            run(
                Encoding::Plain,
                2,
                false,
                vec![1, 0, 0, 0, 7, 2, 0, 0],
                &bytes,
            ),
            Status::Truncated,
        ),
        (
            run(Encoding::Plain, 1, false, vec![255, 255, 255, 255], &bytes),
            Status::Truncated,
        ),
        (
            run(
                Encoding::DeltaLengthByteArray,
                2,
                false,
                deltas(&[1, -5]),
                &bytes,
            ),
            Status::Length,
        ),
        (
            run(
                Encoding::DeltaLengthByteArray,
                2,
                false,
                deltas(&[1, 5]),
                &bytes,
            ),
            Status::Truncated,
        ),
        // A first string that shares something, one that shares more than there is, rests that
        // are negative, too long, and too few.
        (prefixed(&[1, 0], &[1, 1], b"ab", &bytes), Status::Length),
        (prefixed(&[0, 2], &[1, 1], b"ab", &bytes), Status::Length),
        (prefixed(&[0, 1], &[1, -1], b"ab", &bytes), Status::Length),
        (prefixed(&[0, -1], &[1, 1], b"ab", &bytes), Status::Length),
        (prefixed(&[0, 1], &[1, 2], b"ab", &bytes), Status::Truncated),
        (prefixed(&[0, 1], &[1], b"a", &bytes), Status::Deltas),
        (
            run(Encoding::DeltaByteArray, 2, false, deltas(&[0, 1]), &bytes),
            Status::Deltas,
        ),
    ];
    for (n, ((status, _), wanted)) in cases.into_iter().enumerate() {
        assert_eq!(status, wanted as u32, "case {n}");
    }
}

#[test]
fn broken_levels_have_a_status() {
    let kernels = Kernels::new();
    for (levels, version_2, wanted) in [
        (vec![], false, Status::Truncated),
        (vec![1, 0, 0], false, Status::Truncated),
        (vec![9, 0, 0, 0, 6, 1], false, Status::Truncated),
        (vec![2, 0, 0, 0, 6, 2], false, Status::Run),
        (vec![2, 0, 0, 0, 0, 1], false, Status::Run),
        (vec![], true, Status::Truncated),
        (vec![4, 1], true, Status::Truncated),
        (vec![3], true, Status::Truncated),
    ] {
        let (_memory, address) = hold(&levels);
        let (data, size) = if version_2 {
            (0, 0)
        } else {
            (address, levels.len() as u64)
        };
        let mut words = [0u32; 4];
        let column = ParquetColumn {
            validity: words.as_mut_ptr() as u64,
            ..column(To::Copy, 8, 8)
        };
        let mut page = [ParquetPage {
            data,
            data_size: size,
            levels: if version_2 { address } else { 0 },
            levels_size: if version_2 { levels.len() as u64 } else { 0 },
            values: 3,
            has_levels: 1,
            ..ParquetPage::default()
        }];
        for step in 0..4 {
            kernels.step(step, &mut page, &column);
        }
        assert_eq!(page[0].status, wanted as u32, "{levels:?}");
        assert_eq!(words[1..], [0; 3]);
    }
}

/// Whatever stands in a page, nothing outside it is read, and nothing outside its column written.
#[test]
fn flipped_and_cut_pages_stay_inside_their_memory() {
    let kernels = Kernels::new();
    let mut random = Random(99);
    let table = plain_i64(&mut Random(1), &[1, 2, 3, 4, 5, 6, 7]);
    let (_memory, address) = hold(&table);
    let rounds = std::env::var("GDS_FORMATS_MUTATIONS").ok();
    let rounds: u64 = rounds.and_then(|n| n.parse().ok()).unwrap_or(3000);
    for _ in 0..rounds {
        let count = random.below(200) as usize;
        let numbers: Vec<i64> = (0..count).map(|_| small(&mut random)).collect();
        let strings: Vec<Vec<u8>> = (0..count).map(|_| text(&mut random)).collect();
        let lengths: Vec<i64> = strings.iter().map(|s| s.len() as i64).collect();
        let indices: Vec<u64> = (0..count).map(|_| random.below(7)).collect();
        let (encoding, column, mut values) = match random.below(6) {
            0 => (
                Encoding::Plain,
                column(To::Copy, 8, 8),
                plain_i64(&mut random, &numbers),
            ),
            1 => (
                Encoding::DeltaBinaryPacked,
                column(To::Copy, 8, 8),
                deltas(&numbers),
            ),
            2 => (
                Encoding::Plain,
                column(To::Bytes, 0, 0),
                plain_strings(&strings),
            ),
            3 => {
                let bytes = [deltas(&lengths), strings.concat()].concat();
                (
                    Encoding::DeltaLengthByteArray,
                    column(To::Bytes, 0, 0),
                    bytes,
                )
            }
            4 => {
                let alike: Vec<Vec<u8>> = (0..count).map(|_| alike(&mut random)).collect();
                let bytes = parquet_pages::prefixed(&mut random, &alike);
                (Encoding::DeltaByteArray, column(To::Bytes, 0, 0), bytes)
            }
            _ => {
                let column = ParquetColumn {
                    dictionary: address,
                    dictionary_count: 7,
                    ..column(To::Copy, 8, 8)
                };
                let bytes = [vec![3], hybrid(&mut random, &indices, 3)].concat();
                (Encoding::Dictionary, column, bytes)
            }
        };
        for _ in 0..random.below(4) {
            if !values.is_empty() {
                let at = random.below(values.len() as u64) as usize;
                values[at] ^= 1 << random.below(8);
            }
        }
        if random.below(4) == 0 {
            values.truncate(random.below(values.len() as u64 + 1) as usize);
        }
        let made = Made {
            valid: (random.below(2) == 0).then(|| vec![true; count]),
            count,
            encoding,
            values,
            version_2: random.below(2) == 0,
        };
        decode(&kernels, &mut random, &[made], column);
    }
}
