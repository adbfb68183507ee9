//! The kernels that decode Parquet pages, compiled for the processor: every encoding, with and
//! without nulls, at every place of a bitmap.
//!
//! A loop stands for the lanes of a warp. Pages lie before a page that cannot be touched. The
//! encoders are the tests' own; pages of other writers are in `tests/formats_parquet_*.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod kernel_support;
mod parquet_pages;

use gds_rs::device::{
    ParquetColumn, ParquetConversion as To, ParquetEncoding as Encoding, ParquetPage,
};
use parquet_pages::{
    Kernels, Made, Out, Random, alike, column, decode, deltas, hold, hybrid, pack, plain_i64,
    plain_strings, prefixed, small, text,
};

fn valid_of(random: &mut Random, count: usize) -> Vec<bool> {
    let of_ten = random.below(11);
    let mut valid = Vec::new();
    while valid.len() < count {
        let one = random.below(10) < of_ten;
        let run = if random.below(3) == 0 {
            random.below(90)
        } else {
            1
        };
        valid.extend((0..run).map(|_| one));
    }
    valid.truncate(count);
    valid
}

/// Pages of random lengths with values that `value` makes, encoded by `encode`; calls `check` with
/// the expected values and what came out.
fn round_trips<V: Clone>(
    seed: u64,
    encoding: Encoding,
    column: &ParquetColumn,
    value: &dyn Fn(&mut Random) -> V,
    encode: &dyn Fn(&mut Random, &[V]) -> Vec<u8>,
    check: &dyn Fn(&[Option<V>], &Out),
) {
    let kernels = Kernels::new();
    let mut random = Random(seed * 0x9E37_79B9 + 77);
    for round in 0..60 {
        let nullable = round % 3 > 0;
        let (mut made, mut wanted) = (Vec::new(), Vec::new());
        for _ in 0..1 + random.below(3) {
            let count = random.below(400) as usize;
            let valid = nullable.then(|| valid_of(&mut random, count));
            let is_there = |n: usize| valid.as_ref().is_none_or(|v| v[n]);
            let all: Vec<_> = (0..count)
                .map(|n| is_there(n).then(|| value(&mut random)))
                .collect();
            let there: Vec<V> = all.iter().flatten().cloned().collect();
            made.push(Made {
                valid,
                count,
                encoding,
                values: encode(&mut random, &there),
                version_2: random.below(2) == 0,
            });
            wanted.extend(all);
        }
        let out = decode(&kernels, &mut random, &made, *column);
        assert!(out.statuses.iter().all(|s| s.0 == 0), "{:?}", out.statuses);
        for (n, value) in wanted.iter().enumerate() {
            assert_eq!(out.valid[n], value.is_some(), "round {round}, value {n}");
        }
        check(&wanted, &out);
    }
}

fn same_fixed<V: PartialEq + std::fmt::Debug, const N: usize>(
    wanted: &[Option<V>],
    out: &Out,
    read: impl Fn([u8; N]) -> V,
) {
    for (n, value) in wanted.iter().enumerate() {
        if let Some(value) = value {
            let bytes = out.values[n * N..(n + 1) * N].try_into().unwrap();
            assert_eq!(&read(bytes), value, "value {n}");
        }
    }
}

#[test]
fn plain_numbers_with_and_without_nulls() {
    round_trips(
        1,
        Encoding::Plain,
        &column(To::Copy, 8, 8),
        &small,
        &plain_i64,
        &|w, out| {
            same_fixed(w, out, i64::from_le_bytes);
        },
    );
    let narrow = |random: &mut Random| random.next() as i8;
    let encode = |_: &mut Random, values: &[i8]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|v| i32::from(*v).to_le_bytes())
            .collect()
    };
    round_trips(
        2,
        Encoding::Plain,
        &column(To::Copy, 4, 1),
        &narrow,
        &encode,
        &|w, out| {
            same_fixed(w, out, i8::from_le_bytes);
        },
    );
    let wide = |random: &mut Random| i128::from(small(random) as i32);
    let encode = |_: &mut Random, values: &[i128]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|v| (*v as i32).to_le_bytes())
            .collect()
    };
    round_trips(
        3,
        Encoding::Plain,
        &column(To::Widen, 4, 16),
        &wide,
        &encode,
        &|w, out| {
            same_fixed(w, out, i128::from_le_bytes);
        },
    );
}

#[test]
fn fixed_length_bytes_big_endian_numbers_and_int96() {
    let bytes =
        |random: &mut Random| -> [u8; 5] { random.next().to_le_bytes()[..5].try_into().unwrap() };
    let encode = |_: &mut Random, values: &[[u8; 5]]| values.concat();
    round_trips(
        4,
        Encoding::Plain,
        &column(To::Copy, 5, 5),
        &bytes,
        &encode,
        &|w, out| {
            same_fixed(w, out, |b: [u8; 5]| b);
        },
    );
    let decimal = |random: &mut Random| i128::from(small(random) >> 8);
    let encode = |_: &mut Random, values: &[i128]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|v| v.to_be_bytes()[9..].to_vec())
            .collect()
    };
    round_trips(
        5,
        Encoding::Plain,
        &column(To::BigEndian, 7, 16),
        &decimal,
        &encode,
        &|w, out| {
            same_fixed(w, out, i128::from_le_bytes);
        },
    );
    let day = 86_400_000_000_000;
    let nanoseconds = |random: &mut Random| (random.below(40_000) as i64 - 20_000) * day + 5;
    let encode = |_: &mut Random, values: &[i64]| -> Vec<u8> {
        let parts = |v: &i64| {
            (
                (v.rem_euclid(day)).to_le_bytes(),
                (v.div_euclid(day) + 2_440_588) as u32,
            )
        };
        values
            .iter()
            .map(parts)
            .flat_map(|(t, d)| [&t[..], &d.to_le_bytes()].concat())
            .collect()
    };
    round_trips(
        6,
        Encoding::Plain,
        &column(To::Int96, 12, 8),
        &nanoseconds,
        &encode,
        &|w, out| {
            same_fixed(w, out, i64::from_le_bytes);
        },
    );
}

#[test]
fn dictionaries_of_numbers() {
    let table: Vec<i64> = (0..1000).map(|n| n * n * n - 7).collect();
    let plain = plain_i64(&mut Random(1), &table);
    let (_memory, address) = hold(&plain);
    let column = ParquetColumn {
        dictionary: address,
        dictionary_count: table.len() as u64,
        ..column(To::Copy, 8, 8)
    };
    for width in [0u32, 1, 3, 8, 10, 17, 32] {
        let limit = 1000.min(1u64 << width);
        let encode = |random: &mut Random, values: &[i64]| {
            let at = |v: &i64| table.iter().position(|t| t == v).unwrap() as u64;
            let indices: Vec<u64> = values.iter().map(at).collect();
            let mut bytes = vec![width as u8];
            bytes.extend(hybrid(random, &indices, width));
            bytes
        };
        let value = |random: &mut Random| table[(random.below(limit) * random.below(2)) as usize];
        round_trips(
            7,
            Encoding::Dictionary,
            &column,
            &value,
            &encode,
            &|w, out| {
                same_fixed(w, out, i64::from_le_bytes);
            },
        );
    }
}

#[test]
fn packed_deltas() {
    let encode = |_: &mut Random, values: &[i64]| deltas(values);
    round_trips(
        8,
        Encoding::DeltaBinaryPacked,
        &column(To::Copy, 8, 8),
        &small,
        &encode,
        &|w, out| {
            same_fixed(w, out, i64::from_le_bytes);
        },
    );
    let value = |random: &mut Random| small(random) as i32;
    let encode = |_: &mut Random, values: &[i32]| {
        deltas(&values.iter().map(|v| i64::from(*v)).collect::<Vec<_>>())
    };
    round_trips(
        9,
        Encoding::DeltaBinaryPacked,
        &column(To::Copy, 4, 4),
        &value,
        &encode,
        &|w, out| {
            same_fixed(w, out, i32::from_le_bytes);
        },
    );
}

#[test]
fn split_bytes() {
    let value = |random: &mut Random| f64::from_bits(random.next() >> 2);
    let encode = |_: &mut Random, values: &[f64]| -> Vec<u8> {
        (0..8)
            .flat_map(|k| values.iter().map(move |v| v.to_le_bytes()[k]))
            .collect()
    };
    round_trips(
        10,
        Encoding::ByteStreamSplit,
        &column(To::Copy, 8, 8),
        &value,
        &encode,
        &|w, out| {
            same_fixed(w, out, f64::from_le_bytes);
        },
    );
}

fn same_bits(wanted: &[Option<bool>], out: &Out) {
    for (n, value) in wanted.iter().enumerate() {
        let bit = out.values[n / 8] >> (n % 8) & 1 == 1;
        assert_eq!(bit, value.unwrap_or(false), "value {n}");
    }
}

#[test]
fn booleans() {
    let value = |random: &mut Random| random.below(3) == 0;
    let words = |values: &[bool]| values.iter().map(|v| u64::from(*v)).collect::<Vec<_>>();
    let plain = |_: &mut Random, values: &[bool]| {
        let mut bytes = Vec::new();
        pack(&mut bytes, &words(values), 1);
        bytes
    };
    round_trips(
        11,
        Encoding::Plain,
        &column(To::Bits, 1, 1),
        &value,
        &plain,
        &same_bits,
    );
    let runs = |random: &mut Random, values: &[bool]| {
        let runs = hybrid(random, &words(values), 1);
        let mut bytes = (runs.len() as u32).to_le_bytes().to_vec();
        bytes.extend(runs);
        bytes
    };
    round_trips(
        12,
        Encoding::Rle,
        &column(To::Bits, 1, 1),
        &value,
        &runs,
        &same_bits,
    );
}

fn same_strings(wanted: &[Option<Vec<u8>>], out: &Out) {
    let mut end = 0;
    for (n, value) in wanted.iter().enumerate() {
        assert_eq!(out.offsets[n], end, "value {n}");
        let value = value.as_deref().unwrap_or(&[]);
        let begin = end as usize;
        end += value.len() as u32;
        assert!(&out.values[begin..end as usize] == value, "value {n}");
    }
    if !wanted.is_empty() {
        assert_eq!(out.offsets[wanted.len()], end);
    }
}

#[test]
fn strings_plain_and_with_packed_lengths() {
    let plain = |_: &mut Random, values: &[Vec<u8>]| plain_strings(values);
    round_trips(
        13,
        Encoding::Plain,
        &column(To::Bytes, 0, 0),
        &text,
        &plain,
        &same_strings,
    );
    let packed = |_: &mut Random, values: &[Vec<u8>]| {
        let mut bytes = deltas(&values.iter().map(|v| v.len() as i64).collect::<Vec<_>>());
        bytes.extend(values.concat());
        bytes
    };
    let encoding = Encoding::DeltaLengthByteArray;
    round_trips(
        14,
        encoding,
        &column(To::Bytes, 0, 0),
        &text,
        &packed,
        &same_strings,
    );
}

#[test]
fn strings_that_share_their_beginnings() {
    for (seed, value) in [(16, alike as fn(&mut Random) -> Vec<u8>), (17, text)] {
        round_trips(
            seed,
            Encoding::DeltaByteArray,
            &column(To::Bytes, 0, 0),
            &value,
            &prefixed,
            &same_strings,
        );
    }
}

/// Each is the one before and a byte more, or the same again: the longest ways back.
#[test]
fn strings_that_grow_and_strings_that_are_all_the_same() {
    let kernels = Kernels::new();
    for step in [0, 1] {
        let strings: Vec<Vec<u8>> = (0..1000)
            .map(|n| (0..7 + step * n).map(|i| (i * 31 % 251) as u8).collect())
            .collect();
        let mut random = Random(21);
        let made = Made {
            valid: None,
            count: strings.len(),
            encoding: Encoding::DeltaByteArray,
            values: {
                let sizes = strings.iter().map(|s| s.len() as i64);
                let prefixes: Vec<i64> = [0].into_iter().chain(sizes).take(1000).collect();
                let rests: Vec<i64> = (0..1000).map(|n| if n == 0 { 7 } else { step }).collect();
                let bytes = strings.iter().enumerate();
                let bytes =
                    bytes.flat_map(|(n, s)| &s[if n == 0 { 0 } else { s.len() - step as usize }..]);
                let bytes: Vec<u8> = bytes.copied().collect();
                [deltas(&prefixes), deltas(&rests), bytes].concat()
            },
            version_2: true,
        };
        let out = decode(&kernels, &mut random, &[made], column(To::Bytes, 0, 0));
        assert!(out.statuses.iter().all(|s| s.0 == 0), "{:?}", out.statuses);
        same_strings(&strings.into_iter().map(Some).collect::<Vec<_>>(), &out);
    }
}

/// Strings whose first bytes come from exactly so many strings back, and each of the next ones from
/// one that is nearer.
#[test]
fn beginnings_that_come_from_any_string_before() {
    let kernels = Kernels::new();
    for back in [
        1usize, 2, 3, 7, 8, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 100,
    ] {
        let mut strings: Vec<Vec<u8>> = Vec::new();
        let (mut prefixes, mut rests, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..700usize {
            let shared = match n % (back + 1) {
                0 => 0,
                since => strings[n - 1].len().min(1 + since / 2 + (n / 97) % 3),
            };
            let rest = (n * 7 + back) % 5;
            let own: Vec<u8> = (0..rest).map(|i| (n * 13 + i * 31) as u8).collect();
            let before = strings.last().map_or(&[][..], |last| &last[..shared]);
            prefixes.push(shared as i64);
            rests.push(rest as i64);
            bytes.extend(&own);
            strings.push([before, &own].concat());
        }
        let made = |valid: Option<Vec<bool>>| Made {
            count: valid.as_ref().map_or(strings.len(), Vec::len),
            valid,
            encoding: Encoding::DeltaByteArray,
            values: [deltas(&prefixes), deltas(&rests), bytes.clone()].concat(),
            version_2: true,
        };
        let mut random = Random(back as u64);
        let mut there: Vec<bool> = Vec::new();
        while there.iter().filter(|there| **there).count() < strings.len() {
            there.push(random.below(3) > 0);
        }
        let mut left = strings.iter().cloned();
        let some = there
            .iter()
            .map(|there| there.then(|| left.next()).flatten());
        let some: Vec<_> = some.collect();
        let all: Vec<_> = strings.iter().cloned().map(Some).collect();
        for (made, wanted) in [(made(None), all), (made(Some(there)), some)] {
            let out = decode(&kernels, &mut random, &[made], column(To::Bytes, 0, 0));
            assert!(out.statuses.iter().all(|s| s.0 == 0), "{:?}", out.statuses);
            same_strings(&wanted, &out);
        }
    }
}

#[test]
fn dictionaries_of_strings() {
    let kernels = Kernels::new();
    let mut random = Random(5);
    let table: Vec<Vec<u8>> = (0..300u32)
        .map(|n| [&n.to_le_bytes()[..], &text(&mut random)].concat())
        .collect();
    // The dictionary's own page is expanded as a column of its own.
    let plain = plain_strings(&table);
    let (_memory, address) = hold(&plain);
    let mut places = vec![0u64; table.len()];
    let mut page = [ParquetPage {
        data: address,
        data_size: plain.len() as u64,
        values: table.len() as u32,
        scratch: places.as_mut_ptr() as u64,
        ..ParquetPage::default()
    }];
    kernels.step(0, &mut page, &column(To::Bytes, 0, 0));
    kernels.step(1, &mut page, &column(To::Bytes, 0, 0));
    assert_eq!(page[0].status, 0);
    let column = ParquetColumn {
        dictionary: places.as_ptr() as u64,
        dictionary_count: table.len() as u64,
        dictionary_bytes: address,
        ..column(To::Bytes, 0, 0)
    };
    let encode = |random: &mut Random, values: &[Vec<u8>]| {
        let at = |v: &Vec<u8>| table.iter().position(|t| t == v).unwrap() as u64;
        let mut bytes = vec![9];
        bytes.extend(hybrid(
            random,
            &values.iter().map(at).collect::<Vec<_>>(),
            9,
        ));
        bytes
    };
    let value = |random: &mut Random| table[random.below(300) as usize].clone();
    round_trips(
        15,
        Encoding::Dictionary,
        &column,
        &value,
        &encode,
        &same_strings,
    );
}
