//! Row groups are decoded side by side, and come together in their order: on the host device, and
//! on one whose memory is its own.

#![cfg(feature = "parquet")]
#![allow(clippy::print_stdout)]

mod late_device;
mod parquet_support;

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array,
    Int32Array, LargeStringArray, RecordBatch, StringArray,
};
use bytes::Bytes;
use gds_rs::engine::Context;
use gds_rs::error::ErrorKind;
use gds_rs::formats::MemorySource;
use gds_rs::formats::parquet::{Parquet, Selection};
use late_device::LateDevice;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType};
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet_support::common::{Folder, context, small_config};
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

/// The host device, and one whose memory is its own.
fn contexts() -> [Context; 2] {
    let away = LateDevice::away().context(small_config(), gds_rs::io::best());
    [context(), away]
}

fn opened(bytes: Vec<u8>) -> Parquet {
    let source = MemorySource::new(bytes, "in memory");
    Parquet::open_source(Arc::new(source), None).expect("a Parquet file")
}

fn written(table: &RecordBatch, dictionary: bool, version: WriterVersion) -> Vec<u8> {
    grouped(table, dictionary, version, GROUP)
}

fn grouped(table: &RecordBatch, dictionary: bool, version: WriterVersion, rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
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
    let table = table();
    for (dictionary, version) in [
        (true, WriterVersion::PARQUET_1_0),
        (false, WriterVersion::PARQUET_1_0),
        (true, WriterVersion::PARQUET_2_0),
        (false, WriterVersion::PARQUET_2_0),
    ] {
        let parquet = opened(written(&table, dictionary, version));
        for context in contexts() {
            // Threads take turns differently each time.
            for _ in 0..3 {
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
}

/// The file with what its metadata say of the bytes of texts changed: `say` has the number of the
/// row group and the bytes that were said.
fn saying(bytes: &[u8], say: impl Fn(usize, i64) -> Option<i64>) -> Vec<u8> {
    let all = Bytes::copy_from_slice(bytes);
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&all);
    let metadata = metadata.expect("a footer");
    let mut said = 0;
    let groups = metadata.row_groups().iter().enumerate().map(|(at, group)| {
        let column = |column: &parquet::file::metadata::ColumnChunkMetaData| {
            let was = column.unencoded_byte_array_data_bytes();
            said += usize::from(was.is_some());
            let is = was.and_then(|was| say(at, was));
            let builder = column.clone().into_builder();
            builder.set_unencoded_byte_array_data_bytes(is).build()
        };
        let columns = group.columns().iter().map(column);
        let columns = columns.collect::<Result<_, _>>().expect("columns");
        let builder = group.clone().into_builder();
        builder.set_column_metadata(columns).build()
    });
    let groups = groups.collect::<Result<Vec<_>, _>>().expect("row groups");
    let is_empty = metadata.file_metadata().num_rows() == 0;
    assert!(said > 0 || is_empty, "the writer says how long texts are");
    let metadata = metadata.into_builder().set_row_groups(groups).build();
    let mut bytes = bytes.to_vec();
    let writer = ParquetMetaDataWriter::new(&mut bytes, &metadata);
    writer.finish().expect("a footer");
    bytes
}

#[test]
fn texts_are_right_whatever_the_metadata_say_of_their_length() {
    let table = table().project(&[2, 5, 6, 7, 8]).expect("columns");
    let ways: [fn(usize, i64) -> Option<i64>; 8] = [
        |_, was| Some(was),
        |_, _| None,
        |group, was| (group != 3).then_some(was),
        |_, was| Some(was + 1),
        |group, was| Some(if group == 13 { was - 1 } else { was }),
        // The sum is right.
        |group, was| Some(was + [1, 1, -2][group % 3] * i64::from(group < 12 && was > 2)),
        |_, _| Some(0),
        |_, _| Some(i64::MAX / 40),
    ];
    for dictionary in [true, false] {
        let bytes = written(&table, dictionary, WriterVersion::PARQUET_1_0);
        for (number, way) in ways.into_iter().enumerate() {
            let parquet = opened(saying(&bytes, way));
            for context in contexts() {
                let batch = parquet.load(&context, &Selection::default());
                let batch = record_batch(&context, &batch.expect("loaded"));
                assert_eq!(batch.columns(), table.columns(), "way {number}");
            }
        }
    }
}

#[test]
fn many_small_row_groups_come_together() {
    let table = table().slice(15_000, 12_000);
    // Several of them share a byte of bits, and no texts at all are in most.
    for (rows, table) in [(97, table.clone()), (3, table.slice(4_000, 2_000))] {
        let bytes = grouped(&table, true, WriterVersion::PARQUET_1_0, rows);
        let said = opened(bytes.clone());
        let unsaid = opened(saying(&bytes, |_, _| None));
        for (parquet, context) in [&said, &unsaid]
            .into_iter()
            .flat_map(|parquet| contexts().map(|context| (parquet, context)))
        {
            let batch = parquet.load(&context, &Selection::default());
            let batch = record_batch(&context, &batch.expect("loaded"));
            assert_eq!(batch.columns(), table.columns());
        }
    }
}

/// A file of row groups with so many rows each: a text and a bit that may be null.
fn with_groups(groups: &[usize]) -> Vec<u8> {
    let schema = "message m { required binary text (UTF8); optional boolean bit; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut bytes = Vec::new();
    let writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default());
    let mut writer = writer.expect("a writer");
    let mut row = 0;
    for rows in groups {
        let own = row..row + rows;
        row = own.end;
        let mut group = writer.next_row_group().expect("a row group");
        let mut column = group.next_column().expect("no error").expect("a column");
        let texts: Vec<_> = own
            .clone()
            .map(|row| ByteArray::from(format!("text {row}").into_bytes()))
            .collect();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&texts, None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("no error").expect("a column");
        let there: Vec<i16> = own.clone().map(|row| i16::from(row % 5 > 0)).collect();
        let bits: Vec<bool> = own
            .filter(|row| row % 5 > 0)
            .map(|row| row % 3 == 0)
            .collect();
        let typed = column.typed::<BoolType>();
        typed
            .write_batch(&bits, Some(&there), None)
            .expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
    }
    writer.close().expect("closed");
    bytes
}

#[test]
fn row_groups_without_rows_are_passed_over() {
    for groups in [&[0, 11, 0, 0, 1, 70_001, 0][..], &[0, 0], &[0], &[5]] {
        let rows: usize = groups.iter().sum();
        let bytes = with_groups(groups);
        for bytes in [
            saying(&bytes, |_, was| Some(was)),
            saying(&bytes, |_, _| None),
        ] {
            let parquet = opened(bytes);
            for context in contexts() {
                let batch = parquet.load(&context, &Selection::default());
                let batch = record_batch(&context, &batch.expect("loaded"));
                let texts =
                    StringArray::from_iter_values((0..rows).map(|row| format!("text {row}")));
                let bits = (0..rows).map(|row| (row % 5 > 0).then_some(row % 3 == 0));
                let columns: [ArrayRef; 2] =
                    [Arc::new(texts), Arc::new(BooleanArray::from_iter(bits))];
                assert_eq!(batch.columns(), columns);
            }
        }
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
    let selection = Selection {
        memory_limit: Some(16 << 20),
        ..Selection::default()
    };
    for bytes in [
        saying(&bytes, |_, _| None),
        saying(&bytes, |_, _| Some(1)),
        bytes,
    ] {
        let parquet = opened(bytes);
        for context in contexts() {
            let error = parquet.load(&context, &selection).expect_err("too much");
            assert_eq!(error.kind(), ErrorKind::OutOfHostMemory, "{error}");
        }
    }
}
