//! Columns decoded by the kernels, which the processor runs here: the same values as the host's
//! decoder gives, for all that the kernels know; a status for what is damaged.

#![cfg(feature = "parquet")]
#![allow(clippy::print_stdout)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod counted_device;
mod format_kernels;
mod kernel_support;
mod late_device;
mod parquet_support;

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::types::Int64Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int8Array, Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt16Array,
};
use counted_device::PAGES;
use gds_rs::ErrorKind;
use gds_rs::engine::Context;
use gds_rs::formats::MemorySource;
use gds_rs::formats::parquet::{Keys, Parquet, Selection, fuzzing};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet_support::common::{Folder, context};
use parquet_support::{Random, data, files_below, load, record_batch};

/// Counts pages at the step that reads levels. Whoever counts is alone.
fn device() -> (Context, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    (counted_device::device(0), alone)
}

fn table(rows: usize, nulls: bool, random: &mut Random) -> RecordBatch {
    let mut there: Vec<bool> = Vec::new();
    there.resize_with(rows, || !nulls || random.below(4) > 0);
    fn numbers<V>(there: &[bool], value: impl Fn(usize) -> V) -> impl Iterator<Item = Option<V>> {
        let all: Vec<_> = there
            .iter()
            .enumerate()
            .map(|(i, t)| t.then(|| value(i)))
            .collect();
        all.into_iter()
    }
    let mixed = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let fixed = there.iter().enumerate();
    let fixed = fixed.map(|(i, t)| t.then(|| [mixed(i / 7) as u8, 1, 2, 3, 4]));
    let text = |i: usize| format!("{}{}", "t".repeat(i % 9), mixed(i % 50) % 1000);
    let decimals = |width: u8| {
        let values = numbers(&there, |i| i128::from(mixed(i) as i64) >> (64 - width));
        values.collect::<Decimal128Array>()
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "bool",
            Arc::new(numbers(&there, |i| mixed(i) % 3 == 0).collect::<BooleanArray>()),
        ),
        (
            "i8",
            Arc::new(numbers(&there, |i| mixed(i) as i8).collect::<Int8Array>()),
        ),
        (
            "u16",
            Arc::new(numbers(&there, |i| mixed(i) as u16).collect::<UInt16Array>()),
        ),
        (
            "i32",
            Arc::new(numbers(&there, |i| (i / 3) as i32 - 50).collect::<Int32Array>()),
        ),
        (
            "i64",
            Arc::new(numbers(&there, |i| mixed(i) as i64).collect::<Int64Array>()),
        ),
        (
            "few",
            Arc::new(numbers(&there, |i| (i % 5) as i64).collect::<PrimitiveArray<Int64Type>>()),
        ),
        (
            "f32",
            Arc::new(numbers(&there, |i| i as f32 / 8.0).collect::<Float32Array>()),
        ),
        (
            "f64",
            Arc::new(numbers(&there, |i| i as f64 * 1e-3).collect::<Float64Array>()),
        ),
        (
            "ts",
            Arc::new(
                numbers(&there, |i| 1_600_000_000_000_000 + i as i64)
                    .collect::<TimestampMicrosecondArray>(),
            ),
        ),
        (
            "dec9",
            Arc::new(decimals(20).with_precision_and_scale(9, 2).unwrap()),
        ),
        (
            "dec18",
            Arc::new(decimals(50).with_precision_and_scale(18, 2).unwrap()),
        ),
        (
            "dec30",
            Arc::new(decimals(60).with_precision_and_scale(30, 2).unwrap()),
        ),
        (
            "fixed",
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 5).unwrap()),
        ),
        (
            "text",
            Arc::new(numbers(&there, text).collect::<StringArray>()),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from_iter(numbers(&there, |i| {
                mixed(i).to_le_bytes().to_vec()
            }))),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, nulls)))
        .unwrap()
}

fn written(table: &RecordBatch, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let rows = table.num_rows();
    let properties = properties
        .set_max_row_group_row_count(Some(rows / 2 + 1))
        .set_data_page_row_count_limit(rows / 7 + 1)
        .set_write_batch_size(64)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    bytes
}

fn with_encodings(
    builder: WriterPropertiesBuilder,
    pairs: &[(&str, Encoding)],
) -> WriterPropertiesBuilder {
    let set = |b: WriterPropertiesBuilder, (name, encoding): &(&str, Encoding)| {
        b.set_column_encoding((*name).into(), *encoding)
    };
    let plain = builder
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::PLAIN);
    pairs.iter().fold(plain, set)
}

fn builders() -> Vec<WriterPropertiesBuilder> {
    use Encoding::{
        BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, PLAIN,
        RLE,
    };
    let deltas = ["i8", "u16", "i32", "i64", "few", "ts", "dec9", "dec18"];
    let deltas: Vec<_> = deltas
        .iter()
        .map(|name| (*name, DELTA_BINARY_PACKED))
        .collect();
    let split = ["i32", "i64", "f32", "f64", "fixed", "dec30"];
    let split: Vec<_> = split
        .iter()
        .map(|name| (*name, BYTE_STREAM_SPLIT))
        .collect();
    let others = [
        ("text", DELTA_LENGTH_BYTE_ARRAY),
        ("bytes", DELTA_LENGTH_BYTE_ARRAY),
        ("bool", RLE),
    ];
    let prefixes = [("text", DELTA_BYTE_ARRAY), ("bytes", DELTA_BYTE_ARRAY)];
    let ways: [&dyn Fn() -> WriterPropertiesBuilder; 5] = [
        &WriterProperties::builder,
        &|| with_encodings(WriterProperties::builder(), &[("i32", PLAIN)]),
        &|| {
            with_encodings(
                WriterProperties::builder(),
                &[&deltas[..], &others].concat(),
            )
        },
        &|| with_encodings(WriterProperties::builder(), &split),
        &|| with_encodings(WriterProperties::builder(), &prefixes),
    ];
    let mut all = Vec::new();
    for way in ways {
        for codec in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::LZ4_RAW,
        ] {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                all.push(way().set_compression(codec).set_writer_version(version));
            }
        }
    }
    all
}

fn open(bytes: Vec<u8>) -> Parquet {
    let source = Arc::new(MemorySource::new(bytes, "in memory"));
    Parquet::open_source(source, None).expect("a Parquet file")
}

#[test]
fn the_kernels_give_what_was_written() {
    let (device, _alone) = device();
    let mut random = Random(3);
    let mut pages = 0;
    for rows in [1, 31, 700] {
        for nulls in [false, true] {
            for (number, builder) in builders().into_iter().enumerate() {
                let table = table(rows, nulls, &mut random);
                let parquet = open(written(&table, builder));
                let before = PAGES.load(Relaxed);
                let batch = parquet.load(&device, &Selection::default());
                let batch = batch.unwrap_or_else(|e| panic!("{rows} {nulls} {number}: {e}"));
                let took = PAGES.load(Relaxed) - before;
                pages += took;
                let data: u64 = table.num_columns() as u64;
                assert!(
                    took >= data,
                    "{rows} {nulls} {number}: {took} pages for the kernels"
                );
                let back = record_batch(&device, &batch);
                for (at, column) in back.columns().iter().enumerate() {
                    let name = table.schema().field(at).name().clone();
                    assert_eq!(column, table.column(at), "{rows} {nulls} {number} {name}");
                }
            }
        }
    }
    println!("{pages} pages by the kernels");
}

#[test]
fn few_long_pages_of_lz4_are_for_the_host() {
    let (device, _alone) = device();
    let numbers = |rows: i64| Int64Array::from_iter_values((0..rows).map(|i| i * i));
    for (rows, page_rows, on_device) in [(40_000, 40_000, false), (100_000, 4_000, true)] {
        let table =
            RecordBatch::try_from_iter([("n", Arc::new(numbers(rows)) as ArrayRef)]).unwrap();
        for codec in [Compression::LZ4_RAW, Compression::SNAPPY] {
            let properties = WriterProperties::builder()
                .set_dictionary_enabled(false)
                .set_compression(codec)
                .set_data_page_row_count_limit(page_rows)
                .set_write_batch_size(page_rows)
                .build();
            let mut bytes = Vec::new();
            let schema = table.schema();
            let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
            writer.write(&table).unwrap();
            writer.close().unwrap();
            let before = PAGES.load(Relaxed);
            let batch = open(bytes).load(&device, &Selection::default()).unwrap();
            let took = PAGES.load(Relaxed) - before;
            let wanted = on_device || codec == Compression::SNAPPY;
            assert_eq!(took > 0, wanted, "{codec}, {rows} rows: {took} pages");
            assert_eq!(record_batch(&device, &batch), table);
        }
    }
}

#[test]
fn texts_that_grow_on_the_device_are_within_the_limit() {
    let (device, _alone) = device();
    let same = StringArray::from_iter_values((0..20_000).map(|_| "t".repeat(1000)));
    let table = RecordBatch::try_from_iter([("t", Arc::new(same) as ArrayRef)]).unwrap();
    let shared = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_BYTE_ARRAY);
    for properties in [WriterProperties::builder(), shared] {
        let bytes = written(&table, properties);
        assert!(bytes.len() < 200_000, "{} bytes", bytes.len());
        let (before, parquet) = (PAGES.load(Relaxed), open(bytes));
        let within = |limit| {
            let selection = Selection {
                memory_limit: Some(limit),
                ..Selection::default()
            };
            parquet.load(&device, &selection)
        };
        let error = within(19_999_999).map(drop).expect_err("19 MB are allowed");
        assert_eq!(error.kind(), ErrorKind::OutOfDeviceMemory, "{error}");
        assert_eq!(record_batch(&device, &within(21_000_000).unwrap()), table);
        assert!(PAGES.load(Relaxed) > before, "no page was for the kernels");
    }
}

#[test]
fn pages_of_a_file_go_straight_to_the_device() {
    let ((device, _alone), folder) = (device(), Folder::new());
    let mut random = Random(9);
    let table = table(3000, true, &mut random);
    let path = folder.path("table.parquet");
    let snappy = WriterProperties::builder().set_compression(Compression::SNAPPY);
    std::fs::write(&path, written(&table, snappy)).unwrap();
    let parquet = parquet_support::open(&device, &path, None).unwrap();
    let before = device.metrics().read.bytes;
    let batch = parquet.load(&device, &Selection::default()).unwrap();
    let read = device.metrics().read.bytes - before;
    let all = parquet.plan(&Selection::default()).unwrap().bytes();
    assert_eq!(read, all, "each page once, by the engine");
    assert_eq!(record_batch(&device, &batch), table);
}

#[test]
fn files_of_others_are_the_same_on_both_ways() {
    let Some(root) = data("parquet-testing/data") else {
        return;
    };
    let (host, (device, _alone)) = (context(), device());
    let before = PAGES.load(Relaxed);
    let (mut same, mut refused) = (0, 0);
    for path in files_below(&root, &[".parquet"]) {
        let (one, other) = (load(&host, &path, None), load(&device, &path, None));
        match (one, other) {
            (Ok(one), Ok(other)) => {
                let (one, other) = (record_batch(&host, &one), record_batch(&device, &other));
                // Not by value: NaN is no NaN.
                let name = path.display();
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "{name}");
                assert_eq!(one.schema(), other.schema(), "{name}");
                same += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (one, other) => {
                let (one, other) = (one.err(), other.err());
                panic!("{}: host {one:?}, device {other:?}", path.display());
            }
        }
    }
    let pages = PAGES.load(Relaxed) - before;
    println!("{same} the same, {refused} refused twice, {pages} pages by the kernels");
    assert!(same > 20 && pages > 50);
    let path = root.join("uniform_encryption.parquet.encrypted");
    if Path::exists(&path) {
        let keys = || Keys {
            footer: b"0123456789012345".to_vec(),
            ..Keys::default()
        };
        let one = record_batch(&host, &load(&host, &path, Some(keys())).unwrap());
        let other = record_batch(&device, &load(&device, &path, Some(keys())).unwrap());
        assert_eq!(one, other);
    }
}

#[test]
fn damaged_pages_have_a_status_and_an_offset() {
    let (device, _alone) = device();
    let mut random = Random(11);
    let given = std::env::var("GDS_FORMATS_MUTATIONS").ok();
    let total: u64 = given.and_then(|n| n.parse().ok()).unwrap_or(400);
    let files: Vec<Vec<u8>> = builders()
        .into_iter()
        .enumerate()
        .map(|(at, builder)| written(&table(60, at % 3 > 0, &mut random), builder))
        .collect();
    let mut accepted = 0;
    for number in 0..total {
        let file = &files[random.below(files.len() as u64) as usize];
        let tail: [u8; 4] = file[file.len() - 8..file.len() - 4].try_into().unwrap();
        let end = file.len() - 8 - u32::from_le_bytes(tail) as usize;
        let mut changed = file.clone();
        for _ in 0..=random.below(3) {
            let at = 4 + random.below(end as u64 - 4) as usize;
            changed[at] = match random.below(3) {
                0 => changed[at] ^ 1 << random.below(8),
                1 => 0xff,
                _ => random.next() as u8,
            };
        }
        let done = fuzzing::run(&device, &changed);
        accepted += u64::from(done.unwrap_or_else(|e| panic!("mutation {number}: {e}")));
    }
    println!("{total} mutations, {accepted} accepted");
}
