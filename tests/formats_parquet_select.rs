//! Only the bytes that a selection needs are read, and what cannot match is left out.

#![cfg(feature = "parquet")]
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]
#![allow(clippy::print_stdout)]

mod parquet_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use gds_rs::error::{ErrorKind, Result};
use gds_rs::formats::parquet::{Compare, Parquet, Predicate, Selection, Value};
use gds_rs::formats::{MemorySource, Source};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet_support::common::{Folder, context};
use parquet_support::record_batch;

/// Counts what is read.
#[derive(Debug)]
struct Counting {
    inner: MemorySource,
    bytes: AtomicU64,
    reads: AtomicU64,
}

impl Counting {
    fn take(&self) -> u64 {
        self.reads.store(0, Relaxed);
        self.bytes.swap(0, Relaxed)
    }
}

impl Source for Counting {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.bytes.fetch_add(into.len() as u64, Relaxed);
        self.reads.fetch_add(1, Relaxed);
        self.inner.read(offset, into)
    }
}

const ROWS: i64 = 10_000;

/// Rows in order of `id`; `even` has even numbers alone, `text` is spread.
fn table() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    let evens: ArrayRef = Arc::new(Int32Array::from_iter(
        (0..ROWS as i32).map(|i| (i % 7 != 0).then_some(i % 1000 * 2)),
    ));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..ROWS).map(|i| format!("text {}", i * 7919 % 5003)),
    ));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter_values(
        (0..ROWS).map(|i| i as f64 / 4.0),
    ));
    RecordBatch::try_from_iter([
        ("id", ids),
        ("even", evens),
        ("text", texts),
        ("float", floats),
    ])
    .expect("columns of one length")
}

fn written(properties: WriterPropertiesBuilder) -> Vec<u8> {
    let properties = properties
        .set_max_row_group_row_count(Some(4000))
        .set_data_page_row_count_limit(500)
        .set_write_batch_size(100)
        .set_compression(Compression::SNAPPY)
        .set_column_dictionary_enabled("id".into(), false)
        .build();
    let table = table();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).expect("a writer");
    writer.write(&table).expect("written");
    writer.close().expect("closed");
    bytes
}

fn with_index() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_statistics_enabled(EnabledStatistics::Page)
}

fn counting(bytes: Vec<u8>) -> (Arc<Counting>, Parquet) {
    let source = Arc::new(Counting {
        inner: MemorySource::new(bytes, "in memory"),
        bytes: AtomicU64::new(0),
        reads: AtomicU64::new(0),
    });
    let parquet = Parquet::open_source(source.clone(), None).expect("a Parquet file");
    (source, parquet)
}

fn ids(parquet: &Parquet, selection: &Selection) -> Vec<i64> {
    let context = context();
    let batch = parquet.load(&context, selection).expect("loaded");
    let batch = record_batch(&context, &batch);
    let column = batch.column_by_name("id").expect("a column");
    column.as_primitive::<Int64Type>().values().to_vec()
}

fn only(name: &str) -> Selection {
    Selection {
        columns: Some(vec![name.to_owned()]),
        ..Selection::default()
    }
}

#[test]
fn the_footer_is_read_once_and_nothing_else() {
    let bytes = written(with_index());
    let size = bytes.len() as u64;
    let (source, parquet) = counting(bytes);
    let info = parquet.info();
    assert_eq!(
        source.take(),
        info.footer_bytes + 8,
        "the footer, and its length before it"
    );
    assert!(info.footer_bytes < size / 2);
    assert_eq!(
        (info.rows, info.row_groups, info.columns),
        (ROWS as u64, 3, 4)
    );
    let groups = parquet.row_groups();
    let rows: Vec<u64> = groups.iter().map(|g| g.rows).collect();
    assert_eq!(rows, [4000, 4000, 2000]);
    let chunk = parquet.chunk(0, 0).expect("it is there");
    assert_eq!(chunk.codec, "SNAPPY");
    assert_eq!(
        (chunk.min.as_deref(), chunk.max.as_deref()),
        (Some("0"), Some("3999"))
    );
    assert_eq!(chunk.nulls, Some(0));
    assert!(parquet.chunk(3, 0).is_none() && parquet.chunk(0, 4).is_none());
    assert_eq!(parquet.columns()[2].logical, "String");
    assert_eq!(source.take(), 0);
}

#[test]
fn only_chosen_columns_of_chosen_row_groups_are_read() {
    let (source, parquet) = counting(written(with_index()));
    source.take();
    let selection = Selection {
        row_groups: Some(vec![2, 0]),
        ..only("id")
    };
    let got = ids(&parquet, &selection);
    let expected: Vec<i64> = (8000..ROWS).chain(0..4000).collect();
    assert_eq!(got, expected, "row groups in the order that was asked for");
    let chunks = [2, 0].map(|group| parquet.chunk(group, 0).expect("there").compressed_bytes);
    assert_eq!(source.take(), chunks.iter().sum::<u64>());
    let columns = Selection {
        columns: Some(vec!["float".into(), "even".into()]),
        ..Selection::default()
    };
    let context = context();
    let batch = parquet.load(&context, &columns).expect("loaded");
    let names: Vec<_> = batch
        .schema
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect();
    assert_eq!(
        names,
        ["float", "even"],
        "columns in the order that was asked for"
    );
    let back = record_batch(&context, &batch);
    assert_eq!(back.column(1), table().column(1));
}

#[test]
fn rows_read_their_pages_alone() {
    let (source, parquet) = counting(written(with_index()));
    source.take();
    let rows = vec![700..710, 5999..6001, 9_999..10_000];
    let selection = Selection {
        rows: Some(rows.clone()),
        ..only("id")
    };
    let expected: Vec<i64> = rows.into_iter().flatten().map(|row| row as i64).collect();
    assert_eq!(ids(&parquet, &selection), expected);
    let read = source.take();
    // A page or two of each group, and the indexes that say where they are.
    let whole: u64 = (0..3)
        .map(|g| parquet.chunk(g, 0).expect("there").compressed_bytes)
        .sum();
    assert!(read < whole / 2, "{read} of {whole}");
    let pages = parquet.plan(&selection).expect("planned").bytes();
    source.take();
    ids(&parquet, &selection);
    assert_eq!(source.take(), pages, "indexes are read once");
    // Without an index the whole chunks are read, and the rows are the same.
    let plain = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    let (source, parquet) = counting(written(plain));
    source.take();
    assert_eq!(ids(&parquet, &selection), expected);
    let whole: u64 = (0..3)
        .map(|g| parquet.chunk(g, 0).expect("there").compressed_bytes)
        .sum();
    assert_eq!(source.take(), whole);
}

#[test]
fn all_columns_of_some_rows_are_those_rows() {
    let (_, parquet) = counting(written(with_index()));
    let context = context();
    let table = table();
    for rows in [0..1, 499..501, 3990..8010, 0..ROWS as u64, 77..77] {
        let selection = Selection {
            rows: Some(vec![rows.clone()]),
            ..Selection::default()
        };
        let batch = parquet.load(&context, &selection).expect("loaded");
        let back = record_batch(&context, &batch);
        let (start, size) = (rows.start as usize, (rows.end - rows.start) as usize);
        assert_eq!(back, table.slice(start, size), "rows {rows:?}");
    }
}

#[test]
fn batches_are_row_groups_in_order() {
    let (_, parquet) = counting(written(with_index()));
    let context = context();
    let selection = Selection::default();
    let mut at = 0;
    let batches = parquet.batches(&context, selection).expect("batches");
    assert_eq!(batches.schema(), &table().schema());
    for batch in batches {
        let back = record_batch(&context, &batch.expect("loaded"));
        assert_eq!(back, table().slice(at, back.num_rows()));
        at += back.num_rows();
    }
    assert_eq!(at, ROWS as usize);
}

fn when(column: &str, compare: Compare, value: Value) -> Selection {
    Selection {
        predicates: vec![Predicate {
            column: column.into(),
            compare,
            value,
        }],
        ..only("id")
    }
}

#[test]
fn statistics_and_page_indexes_leave_out_what_cannot_match() {
    let (_, parquet) = counting(written(with_index()));
    // Pages of 500 rows: one of them holds it.
    let one = ids(&parquet, &when("id", Compare::Equal, Value::Integer(4711)));
    assert_eq!(one, (4500..5000).collect::<Vec<i64>>());
    let few = ids(
        &parquet,
        &when("float", Compare::GreaterOrEqual, Value::Float(2400.0)),
    );
    assert_eq!(few, (9500..ROWS).collect::<Vec<i64>>());
    let none = ids(&parquet, &when("id", Compare::Less, Value::Integer(0)));
    assert!(none.is_empty());
    let mut both = when("id", Compare::Greater, Value::Integer(1999));
    both.predicates.push(Predicate {
        column: "id".into(),
        compare: Compare::LessOrEqual,
        value: Value::Integer(2499),
    });
    assert_eq!(ids(&parquet, &both), (2000..2500).collect::<Vec<i64>>());
    let text = when(
        "text",
        Compare::Greater,
        Value::Bytes(b"text 9999".to_vec()),
    );
    assert!(ids(&parquet, &text).is_empty());
    let all = ids(
        &parquet,
        &when("even", Compare::GreaterOrEqual, Value::Integer(-1)),
    );
    assert_eq!(all.len(), ROWS as usize);
}

#[test]
fn bloom_filters_leave_out_what_is_not_there() {
    let properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_bloom_filter_enabled(true);
    let (_, parquet) = counting(written(properties));
    assert!(parquet.chunk(0, 2).expect("there").has_bloom_filter);
    // Between smallest and largest, but odd.
    let odd = when("even", Compare::Equal, Value::Integer(777));
    assert!(ids(&parquet, &odd).is_empty());
    let even = when("even", Compare::Equal, Value::Integer(778));
    assert_eq!(ids(&parquet, &even).len(), ROWS as usize);
    let text = |text: &str| when("text", Compare::Equal, Value::Bytes(text.into()));
    assert!(ids(&parquet, &text("text 4999x")).is_empty());
    assert!(!ids(&parquet, &text("text 4999")).is_empty());
}

#[test]
fn what_is_not_there_is_said_so() {
    let (_, parquet) = counting(written(with_index()));
    let context = context();
    let wrong = [
        (only("nothing"), ErrorKind::NotFound),
        (only("i"), ErrorKind::NotFound),
        (
            Selection {
                row_groups: Some(vec![3]),
                ..Selection::default()
            },
            ErrorKind::OutOfRange,
        ),
        (
            Selection {
                rows: Some(vec![0..ROWS as u64 + 1]),
                ..Selection::default()
            },
            ErrorKind::OutOfRange,
        ),
        (
            Selection {
                rows: Some(vec![5..9, 8..10]),
                ..Selection::default()
            },
            ErrorKind::OutOfRange,
        ),
        (
            when("nothing", Compare::Equal, Value::Integer(1)),
            ErrorKind::NotFound,
        ),
    ];
    for (selection, kind) in wrong {
        let error = parquet.load(&context, &selection).expect_err("not there");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let small = Selection {
        memory_limit: Some(10_000),
        ..Selection::default()
    };
    let error = parquet.load(&context, &small).expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::OutOfHostMemory, "{error}");
}

#[test]
fn a_file_is_read_by_the_engine() {
    let folder = Folder::new();
    let path = folder.path("table.parquet");
    std::fs::write(&path, written(with_index())).expect("written");
    let context = context();
    let parquet = parquet_support::open(&context, &path, None).expect("opened");
    let before = context.metrics().read.bytes;
    let batch = parquet.load(&context, &only("even")).expect("loaded");
    let read = context.metrics().read.bytes - before;
    assert_eq!(read, parquet.plan(&only("even")).expect("planned").bytes());
    let back = record_batch(&context, &batch);
    let expected = table();
    let expected = expected.column(1).as_primitive::<Int32Type>();
    assert_eq!(back.column(0).as_primitive::<Int32Type>(), expected);
    // What was loaded outlives the file and its reader.
    drop(parquet);
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(record_batch(&context, &batch).num_rows(), ROWS as usize);
}
