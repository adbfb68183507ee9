//! Row groups are decoded side by side, and come together in their order.

#![cfg(feature = "parquet")]
#![allow(clippy::print_stdout)]

mod parquet_support;

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array,
    Int32Array, LargeStringArray, RecordBatch, StringArray,
};
use gds_rs::error::ErrorKind;
use gds_rs::formats::MemorySource;
use gds_rs::formats::parquet::{Parquet, Selection};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet_support::common::{Folder, context};
use parquet_support::record_batch;

const ROWS: usize = 40_003;
/// No multiple of 8: bits of one row group end within a byte.
const GROUP: usize = 3_001;

/// A column a kind. Nulls come late, and so do long texts.
fn table() -> RecordBatch {
    let late = |i: usize| i < 20_000 || !i.is_multiple_of(3);
    let text = |i: usize| match i {
        0..9_000 => String::new(),
        9_000..30_000 => format!("text {}", i % 50),
        _ => format!(
            "{} is a text that is longer, and seldom said twice",
            i * 7919
        ),
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "bits",
            Arc::new(BooleanArray::from_iter(
                (0..ROWS).map(|i| (i % 11 != 5).then_some(i.is_multiple_of(3))),
            )),
        ),
        (
            "number",
            Arc::new(Int32Array::from_iter_values(
                (0..ROWS).map(|i| i as i32 * 31),
            )),
        ),
        (
            "float",
            Arc::new(Float64Array::from_iter(
                (0..ROWS).map(|i| late(i).then_some(i as f64 / 8.0)),
            )),
        ),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from_iter_values((0..ROWS).map(|i| i as i128 - 5_000))
                    .with_precision_and_scale(15, 2)
                    .expect("a decimal"),
            ),
        ),
        (
            "three",
            Arc::new(
                FixedSizeBinaryArray::try_from_iter((0..ROWS).map(|i| [i as u8, 1, 2]))
                    .expect("three bytes each"),
            ),
        ),
        (
            "text",
            Arc::new(StringArray::from_iter(
                (0..ROWS).map(|i| late(i).then(|| text(i))),
            )),
        ),
        (
            "long",
            Arc::new(LargeStringArray::from_iter_values((0..ROWS).map(text))),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from_iter_values(
                (0..ROWS).map(|i| vec![i as u8; i % 40]),
            )),
        ),
        (
            "nothing",
            Arc::new(StringArray::from_iter((0..ROWS).map(|_| None::<&str>))),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .expect("columns of one length")
}

fn written(table: &RecordBatch, dictionary: bool, version: WriterVersion) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP))
        .set_data_page_row_count_limit(700)
        .set_write_batch_size(100)
        .set_dictionary_enabled(dictionary)
        .set_writer_version(version)
        .set_compression(Compression::SNAPPY)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).expect("a writer");
    writer.write(table).expect("written");
    writer.close().expect("closed");
    bytes
}

#[test]
fn row_groups_of_odd_sizes_come_together_in_order() {
    let (table, context) = (table(), context());
    for (dictionary, version) in [
        (true, WriterVersion::PARQUET_1_0),
        (false, WriterVersion::PARQUET_1_0),
        (true, WriterVersion::PARQUET_2_0),
        (false, WriterVersion::PARQUET_2_0),
    ] {
        let bytes = written(&table, dictionary, version);
        let source = MemorySource::new(bytes, "in memory");
        let parquet = Parquet::open_source(Arc::new(source), None).expect("a Parquet file");
        // Threads take turns differently each time.
        for _ in 0..5 {
            let batch = parquet.load(&context, &Selection::default());
            let batch = record_batch(&context, &batch.expect("loaded"));
            assert_eq!(batch.columns(), table.columns());
        }
        let texts = Selection {
            columns: Some(vec!["text".to_owned()]),
            ..Selection::default()
        };
        let batch = parquet.load(&context, &texts).expect("loaded");
        let batch = record_batch(&context, &batch);
        assert_eq!(batch.column(0), table.column(5));
    }
}

#[test]
fn row_groups_come_in_the_order_that_is_asked_for() {
    let (table, context) = (table(), context());
    let bytes = written(&table, true, WriterVersion::PARQUET_1_0);
    let folder = Folder::new();
    let path = folder.path("some.parquet");
    std::fs::write(&path, bytes).expect("a file");
    let parquet = parquet_support::open(&context, &path, None).expect("a Parquet file");
    let selection = Selection {
        row_groups: Some(vec![12, 0, 13]),
        ..Selection::default()
    };
    let batch = parquet.load(&context, &selection).expect("loaded");
    let batch = record_batch(&context, &batch);
    let last = ROWS - 13 * GROUP;
    for (column, whole) in batch.columns().iter().zip(table.columns()) {
        let parts = [(12 * GROUP, GROUP), (0, GROUP), (13 * GROUP, last)];
        let mut at = 0;
        for (from, size) in parts {
            assert_eq!(&column.slice(at, size), &whole.slice(from, size));
            at += size;
        }
        assert_eq!(at, column.len());
    }
}

#[test]
fn texts_that_pass_the_limit_are_refused() {
    // One long entry of a dictionary makes much of little.
    let entry = "x".repeat(100_000);
    let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..2_000).map(|_| &entry)));
    let table = RecordBatch::try_from_iter([("text", column)]).expect("a column");
    let bytes = written(&table, true, WriterVersion::PARQUET_1_0);
    assert!(bytes.len() < 1 << 20);
    let source = MemorySource::new(bytes, "in memory");
    let parquet = Parquet::open_source(Arc::new(source), None).expect("a Parquet file");
    let selection = Selection {
        memory_limit: Some(16 << 20),
        ..Selection::default()
    };
    let error = parquet.load(&context(), &selection).expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::OutOfHostMemory, "{error}");
}
