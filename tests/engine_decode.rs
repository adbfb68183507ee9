//! Encoded pages decoded where they lie: by the kernels, on a GPU where there is one and as
//! processor code everywhere; the host device says that it has none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

mod common;
mod format_kernels;
mod kernel_support;
mod late_device;
mod parquet_pages;

use std::time::Duration;

use common::{context, small_config};
use format_kernels::format_kernels;
use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::device;
use gds_rs::engine::{
    BadPage, Buffer, Context, EncodedPage, MemoryKind, PageChunk, PageColumn, ParquetConversion,
    ParquetEncoding, ParquetStatus,
};
use gds_rs::error::ErrorKind;
use late_device::LateDevice;
use parquet_pages::{Random, deltas, hybrid, plain_i64, plain_strings, small, text};

fn devices() -> Vec<Context> {
    let double = LateDevice::with_kernels(format_kernels());
    let mut all = vec![double.context(small_config(), gds_rs::io::best())];
    let (devices, trouble) = device::list(Duration::from_secs(60));
    if let Some(error) = trouble {
        println!("skipped: CUDA: {error}");
    }
    for info in devices.iter().filter(|d| d.ordinal != DEVICE_HOST) {
        println!("on {}", info.name);
        let config = Config {
            gpu_device: info.ordinal,
            ..small_config()
        };
        all.push(Context::open(config).unwrap());
    }
    all
}

fn put(context: &Context, bytes: &[u8]) -> Buffer {
    let size = (bytes.len() as u64).next_multiple_of(8).max(8);
    let buffer = context.alloc(MemoryKind::Device, size).unwrap();
    context.upload(&[(bytes, &buffer, 0)]).unwrap();
    buffer
}

fn get(context: &Context, buffer: &Buffer, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    context.download(buffer, 0, &mut bytes).unwrap();
    bytes
}

fn zeroes(context: &Context, size: u64) -> Buffer {
    put(context, &vec![0; size as usize])
}

fn levels(random: &mut Random, there: &[bool]) -> Vec<u8> {
    let words: Vec<u64> = there.iter().map(|v| u64::from(*v)).collect();
    let runs = hybrid(random, &words, 1);
    [&(runs.len() as u32).to_le_bytes()[..], &runs].concat()
}

/// A page: values and nulls, its bytes, its encoding.
type Page<V> = (Vec<Option<V>>, Vec<u8>, ParquetEncoding);

fn page<V: Clone>(
    random: &mut Random,
    all: Vec<Option<V>>,
    encoding: ParquetEncoding,
    encode: &dyn Fn(&mut Random, &[V]) -> Vec<u8>,
) -> Page<V> {
    let there: Vec<bool> = all.iter().map(Option::is_some).collect();
    let values: Vec<V> = all.iter().flatten().cloned().collect();
    let bytes = [levels(random, &there), encode(random, &values)].concat();
    (all, bytes, encoding)
}

/// A dictionary with its bytes and values, and pages with their bytes.
type Held = (Option<(Buffer, u64, u32)>, Vec<(Buffer, u64)>);

/// The pages of chunks, in buffers; each chunk with its dictionary.
fn chunks<'a, V>(held: &'a [Held], made: &[Vec<Page<V>>]) -> Vec<PageChunk<'a>> {
    let mut first = 0;
    let mut all = Vec::new();
    for ((dictionary, buffers), pages) in held.iter().zip(made) {
        let mut chunk = PageChunk {
            column: 0,
            dictionary: dictionary.as_ref().map(|(b, size, n)| ((b, 0, *size), *n)),
            pages: Vec::new(),
        };
        for ((buffer, size), (values, _, encoding)) in buffers.iter().zip(pages) {
            chunk.pages.push(EncodedPage {
                data: (buffer, 0, *size),
                levels: None,
                has_levels: true,
                present: None,
                encoding: *encoding,
                values: values.len() as u32,
                first,
            });
            first += values.len() as u64;
        }
        all.push(chunk);
    }
    all
}

fn some<V>(random: &mut Random, value: &dyn Fn(&mut Random) -> V) -> Vec<Option<V>> {
    let count = 1 + random.below(5000);
    (0..count)
        .map(|_| (random.below(4) > 0).then(|| value(random)))
        .collect()
}

#[test]
fn the_host_device_says_that_it_has_no_kernels() {
    let error = context()
        .decode_pages(&[], &[], &mut |_, _| unreachable!())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
}

#[test]
fn numbers_of_several_chunks_and_encodings_stand_in_one_column() {
    for context in devices() {
        let mut random = Random(7);
        let (mut made, mut held) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let table: Vec<i64> = (0..500).map(|_| small(&mut random)).collect();
            let mut pages = Vec::new();
            for kind in 0..6 {
                let all = match kind % 2 {
                    0 => some(&mut random, &|r| table[r.below(500) as usize]),
                    _ => some(&mut random, &small),
                };
                pages.push(match kind {
                    0 | 2 | 4 => page(&mut random, all, ParquetEncoding::Dictionary, &|r, v| {
                        let at = |v: &i64| table.iter().position(|t| t == v).unwrap() as u64;
                        let indices: Vec<u64> = v.iter().map(at).collect();
                        [vec![9], hybrid(r, &indices, 9)].concat()
                    }),
                    1 => page(&mut random, all, ParquetEncoding::Plain, &plain_i64),
                    3 => page(
                        &mut random,
                        all,
                        ParquetEncoding::DeltaBinaryPacked,
                        &|_, v| deltas(v),
                    ),
                    _ => page(
                        &mut random,
                        all,
                        ParquetEncoding::ByteStreamSplit,
                        &|_, v| {
                            let byte = |k: usize| v.iter().map(move |v| v.to_le_bytes()[k]);
                            (0..8).flat_map(byte).collect()
                        },
                    ),
                });
            }
            let table = plain_i64(&mut random, &table);
            let dictionary = (put(&context, &table), table.len() as u64, 500);
            let buffers = pages
                .iter()
                .map(|p| (put(&context, &p.1), p.1.len() as u64));
            held.push((Some(dictionary), buffers.collect::<Vec<_>>()));
            made.push(pages);
        }
        let wanted: Vec<Option<i64>> = made.iter().flatten().flat_map(|p| p.0.clone()).collect();
        let rows = wanted.len() as u64;
        let (values, validity) = (zeroes(&context, 8 * rows), zeroes(&context, rows / 8 + 8));
        let column = PageColumn {
            conversion: ParquetConversion::Copy,
            width_in: 8,
            width_out: 8,
            rows,
            validity: Some((&validity, 0, validity.size())),
            values: Some((&values, 0, values.size())),
            offsets: None,
        };
        let bad =
            context.decode_pages(&[column], &chunks(&held, &made), &mut |_, _| unreachable!());
        assert_eq!(bad.unwrap(), None);
        let bytes = get(&context, &values, 8 * wanted.len());
        let bits = get(&context, &validity, wanted.len().div_ceil(8));
        for (n, value) in wanted.iter().enumerate() {
            assert_eq!(bits[n / 8] >> (n % 8) & 1 == 1, value.is_some(), "{n}");
            let read = i64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap());
            assert!(value.is_none_or(|v| v == read), "{n}");
        }
    }
}

#[test]
fn strings_of_several_chunks_stand_one_after_the_other() {
    for context in devices() {
        let mut random = Random(8);
        let (mut made, mut held) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let table: Vec<Vec<u8>> = (0..200u32)
                .map(|n| [&n.to_le_bytes()[..], &text(&mut random)].concat())
                .collect();
            let of_table = |r: &mut Random| table[r.below(200) as usize].clone();
            let mut pages = Vec::new();
            let all = some(&mut random, &of_table);
            pages.push(page(
                &mut random,
                all,
                ParquetEncoding::Dictionary,
                &|r, v| {
                    let at = |v: &Vec<u8>| table.iter().position(|t| t == v).unwrap() as u64;
                    [vec![8], hybrid(r, &v.iter().map(at).collect::<Vec<_>>(), 8)].concat()
                },
            ));
            let all = some(&mut random, &text);
            pages.push(page(&mut random, all, ParquetEncoding::Plain, &|_, v| {
                plain_strings(v)
            }));
            let all = some(&mut random, &text);
            let encoding = ParquetEncoding::DeltaLengthByteArray;
            pages.push(page(&mut random, all, encoding, &|_, v| {
                let lengths: Vec<i64> = v.iter().map(|v| v.len() as i64).collect();
                [deltas(&lengths), v.concat()].concat()
            }));
            let table = plain_strings(&table);
            let dictionary = (put(&context, &table), table.len() as u64, 200);
            let buffers = pages
                .iter()
                .map(|p| (put(&context, &p.1), p.1.len() as u64));
            held.push((Some(dictionary), buffers.collect::<Vec<_>>()));
            made.push(pages);
        }
        let wanted: Vec<_> = made.iter().flatten().flat_map(|p| p.0.clone()).collect();
        let rows = wanted.len() as u64;
        let (offsets, validity) = (
            zeroes(&context, 4 * rows + 4),
            zeroes(&context, rows / 8 + 8),
        );
        let column = PageColumn {
            conversion: ParquetConversion::Bytes,
            width_in: 0,
            width_out: 0,
            rows,
            validity: Some((&validity, 0, validity.size())),
            values: None,
            offsets: Some((&offsets, 0, offsets.size())),
        };
        let mut taken = None;
        let bad = context.decode_pages(&[column], &chunks(&held, &made), &mut |number, size| {
            assert_eq!(number, 0);
            let buffer = context.alloc(MemoryKind::Device, size)?;
            taken = Some((buffer.clone(), size));
            Ok((buffer, 0))
        });
        assert_eq!(bad.unwrap(), None);
        let (bytes, size) = taken.unwrap();
        let bytes = get(&context, &bytes, size as usize);
        let offsets = get(&context, &offsets, 4 * wanted.len() + 4);
        let offset = |n: usize| u32::from_le_bytes(offsets[4 * n..4 * n + 4].try_into().unwrap());
        for (n, value) in wanted.iter().enumerate() {
            let range = offset(n) as usize..offset(n + 1) as usize;
            assert!(
                bytes[range] == **value.as_ref().unwrap_or(&Vec::new()),
                "{n}"
            );
        }
        assert_eq!(u64::from(offset(wanted.len())), size);
    }
}

#[test]
fn the_first_bad_page_is_named() {
    for context in devices() {
        let (good, bad) = (put(&context, &[0; 16]), put(&context, &[2, 6, 3]));
        let values = zeroes(&context, 64);
        let column = PageColumn {
            conversion: ParquetConversion::Copy,
            width_in: 8,
            width_out: 8,
            rows: 8,
            validity: None,
            values: Some((&values, 0, 64)),
            offsets: None,
        };
        let page = |data, encoding, values, first| EncodedPage {
            data,
            levels: None,
            has_levels: false,
            present: None,
            encoding,
            values,
            first,
        };
        let plain = page((&good, 0, 16), ParquetEncoding::Plain, 2, 0);
        let index = page((&bad, 0, 3), ParquetEncoding::Dictionary, 3, 2);
        let chunk = PageChunk {
            column: 0,
            dictionary: Some(((&good, 0, 16), 2)),
            pages: vec![plain, index],
        };
        let decode = |column: PageColumn<'_>, chunk: PageChunk<'_>| {
            context.decode_pages(&[column], &[chunk], &mut |_, _| unreachable!())
        };
        let wanted = BadPage {
            chunk: 0,
            page: Some(1),
            status: ParquetStatus::Index,
            at: 3,
        };
        assert_eq!(decode(column, chunk.clone()).unwrap(), Some(wanted));
        // What cannot be is refused before anything is launched.
        let with = |page| PageChunk {
            pages: vec![page],
            ..chunk.clone()
        };
        let narrow = PageColumn {
            values: Some((&values, 0, 63)),
            ..column
        };
        let odd = PageColumn {
            values: Some((&values, 4, 60)),
            rows: 7,
            ..column
        };
        let beyond = page((&good, 0, 16), ParquetEncoding::Plain, 2, 7);
        let nulls = EncodedPage {
            has_levels: true,
            present: None,
            ..plain
        };
        let runs = page((&good, 0, 16), ParquetEncoding::Rle, 2, 0);
        for (column, chunk) in [
            (narrow, with(plain)),
            (odd, with(plain)),
            (column, with(beyond)),
            (column, with(nulls)),
            (column, with(runs)),
            (
                column,
                PageChunk {
                    column: 1,
                    ..chunk.clone()
                },
            ),
        ] {
            let error = decode(column, chunk).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
    }
}
