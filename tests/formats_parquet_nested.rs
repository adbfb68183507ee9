//! Lists and structs decoded by the kernels, which the processor runs here: their levels become
//! validity and offsets of each array, and their leaves what the host's decoder gives.

#![cfg(feature = "parquet")]
#![allow(clippy::print_stdout)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod counted_device;
mod format_kernels;
mod kernel_support;
mod late_device;
mod parquet_support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Decimal128Builder, Int32Builder, Int64Builder, ListBuilder,
    MapBuilder, StringBuilder, StructBuilder, make_builder,
};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields};
use counted_device::PAGES;
use gds_rs::engine::Context;
use gds_rs::formats::MemorySource;
use gds_rs::formats::parquet::{Parquet, Selection, fuzzing};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet_support::common::{Folder, context};
use parquet_support::{Random, data, files_below, load, python, record_batch};

/// Counts pages at the step that places levels.
fn device() -> Context {
    counted_device::device(5)
}

/// Appends a value of this type, or a null.
fn append(type_: &DataType, to: &mut dyn ArrayBuilder, random: &mut Random, nullable: bool) {
    let there = !nullable || random.below(4) > 0;
    let any = to.as_any_mut();
    match type_ {
        DataType::Int32 => {
            let value = there.then(|| random.below(50) as i32 - 9);
            any.downcast_mut::<Int32Builder>()
                .unwrap()
                .append_option(value);
        }
        DataType::Int64 => {
            let value = there.then(|| random.next() as i64);
            any.downcast_mut::<Int64Builder>()
                .unwrap()
                .append_option(value);
        }
        DataType::Boolean => {
            let value = there.then(|| random.below(2) > 0);
            any.downcast_mut::<BooleanBuilder>()
                .unwrap()
                .append_option(value);
        }
        DataType::Utf8 => {
            let text = "abcdefgh".repeat(2);
            let value = there.then(|| &text[..random.below(17) as usize]);
            any.downcast_mut::<StringBuilder>()
                .unwrap()
                .append_option(value);
        }
        DataType::Decimal128(..) => {
            let value = there.then(|| i128::from(random.next() as i32));
            any.downcast_mut::<Decimal128Builder>()
                .unwrap()
                .append_option(value);
        }
        DataType::Struct(fields) => {
            let to = any.downcast_mut::<StructBuilder>().unwrap();
            for (at, field) in fields.iter().enumerate() {
                let nullable = field.is_nullable();
                let builder = to.field_builders_mut()[at].as_mut();
                append(field.data_type(), builder, random, nullable);
            }
            to.append(there);
        }
        DataType::List(item) => {
            let to = any
                .downcast_mut::<ListBuilder<Box<dyn ArrayBuilder>>>()
                .unwrap();
            let count = match random.below(12) {
                0 => 40,
                _ => random.below(4),
            };
            for _ in 0..if there { count } else { 0 } {
                append(
                    item.data_type(),
                    to.values().as_mut(),
                    random,
                    item.is_nullable(),
                );
            }
            to.append(there);
        }
        DataType::Map(..) => {
            type Map = MapBuilder<Box<dyn ArrayBuilder>, Box<dyn ArrayBuilder>>;
            let to = any.downcast_mut::<Map>().unwrap();
            for _ in 0..if there { random.below(4) } else { 0 } {
                append(&DataType::Utf8, to.keys().as_mut(), random, false);
                append(&DataType::Int64, to.values().as_mut(), random, true);
            }
            to.append(there).unwrap();
        }
        other => panic!("{other}"),
    }
}

fn list(item: DataType, nullable: bool) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, nullable)))
}

fn structure(fields: &[(&str, DataType, bool)]) -> DataType {
    let field = |(name, t, null): &(&str, DataType, bool)| Field::new(*name, t.clone(), *null);
    DataType::Struct(Fields::from(fields.iter().map(field).collect::<Vec<_>>()))
}

/// Types of all depths, with nulls at each or at none.
fn types() -> Vec<DataType> {
    use DataType::{Boolean, Decimal128, Int32, Int64, Utf8};
    let pair = |null| structure(&[("a", Int32, null), ("b", Utf8, !null)]);
    let map = |value| {
        let entries = structure(&[("keys", Utf8, false), ("values", value, true)]);
        DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
    };
    vec![
        list(Int64, true),
        list(Int32, false),
        list(Utf8, true),
        list(Boolean, true),
        list(list(Int32, true), true),
        list(list(Utf8, false), false),
        list(list(list(Int64, true), true), true),
        pair(true),
        pair(false),
        structure(&[("x", pair(true), true), ("y", list(Int64, true), true)]),
        structure(&[("x", structure(&[("z", Decimal128(12, 2), true)]), false)]),
        list(pair(true), true),
        list(pair(false), false),
        list(
            structure(&[("p", list(pair(true), true), true), ("q", Boolean, true)]),
            true,
        ),
        map(Int64),
    ]
}

fn column(type_: &DataType, rows: usize, nullable: bool, random: &mut Random) -> ArrayRef {
    let mut builder = make_builder(type_, rows);
    for _ in 0..rows {
        append(type_, builder.as_mut(), random, nullable);
    }
    builder.finish()
}

fn table(rows: usize, nullable: bool, random: &mut Random) -> RecordBatch {
    let columns = types().into_iter().enumerate().map(|(n, type_)| {
        let column = column(&type_, rows, nullable, random);
        (format!("c{n}"), column, nullable)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn written(table: &RecordBatch, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let rows = table.num_rows();
    let properties = properties
        .set_max_row_group_row_count(Some(rows / 2 + 1))
        .set_data_page_row_count_limit(rows / 7 + 1)
        .set_write_batch_size(16)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    bytes
}

fn ways() -> Vec<WriterPropertiesBuilder> {
    let mut all = Vec::new();
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for codec in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
            let of = || WriterProperties::builder().set_writer_version(version);
            all.push(of().set_compression(codec));
            let plain = of()
                .set_dictionary_enabled(false)
                .set_encoding(Encoding::PLAIN);
            all.push(plain.set_compression(codec));
        }
    }
    all
}

fn open(bytes: Vec<u8>) -> Parquet {
    Parquet::open_source(Arc::new(MemorySource::new(bytes, "in memory")), None).unwrap()
}

#[test]
fn the_kernels_give_what_was_written() {
    let device = device();
    let mut random = Random(3);
    for rows in [1, 33, 500] {
        for nullable in [false, true] {
            let table = table(rows, nullable, &mut random);
            for (number, way) in ways().into_iter().enumerate() {
                let parquet = open(written(&table, way));
                let before = PAGES.load(Relaxed);
                let batch = parquet.load(&device, &Selection::default());
                let batch = batch.unwrap_or_else(|e| panic!("{rows} {nullable} {number}: {e}"));
                let pages = PAGES.load(Relaxed) - before;
                // Every leaf of every column, in two row groups.
                assert!(pages >= 22, "{rows} {nullable} {number}: {pages} pages");
                let back = record_batch(&device, &batch);
                for (at, column) in back.columns().iter().enumerate() {
                    let type_ = column.data_type();
                    let wanted = table.column(at);
                    assert_eq!(column, wanted, "{rows} {nullable} {number}: {type_}");
                }
            }
        }
    }
}

#[test]
fn chosen_fields_and_row_groups_are_the_same_on_both_ways() {
    let (host, device) = (context(), device());
    let table = table(300, true, &mut Random(8));
    let parquet = open(written(&table, WriterProperties::builder()));
    let selections = [
        (Some(vec!["c9.y", "c7.b", "c11.list.item.a"]), None),
        (
            Some(vec!["c13.list.item.p.list.item.b", "c0"]),
            Some(vec![1]),
        ),
        (Some(vec!["c14"]), Some(vec![1, 0])),
        (None, Some(vec![])),
    ];
    for (columns, row_groups) in selections {
        let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let selection = Selection {
            columns: columns.map(names),
            row_groups,
            ..Selection::default()
        };
        let one = parquet.load(&host, &selection);
        let other = parquet.load(&device, &selection);
        match (one, other) {
            (Ok(one), Ok(other)) => {
                assert_eq!(record_batch(&host, &one), record_batch(&device, &other));
            }
            (one, other) => {
                let (one, other) = (one.map(|_| ()), other.map(|_| ()));
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "{selection:?}");
            }
        }
    }
}

#[test]
fn files_of_others_are_the_same_on_both_ways() {
    let Some(root) = data("parquet-testing/data") else {
        return;
    };
    let (host, device) = (context(), device());
    let before = PAGES.load(Relaxed);
    let mut same = 0;
    for path in files_below(&root, &[".parquet"]) {
        if let Ok(one) = load(&host, &path, None) {
            let other = load(&device, &path, None).unwrap();
            let (one, other) = (record_batch(&host, &one), record_batch(&device, &other));
            let name = path.display();
            assert_eq!(format!("{one:?}"), format!("{other:?}"), "{name}");
            same += 1;
        }
    }
    let pages = PAGES.load(Relaxed) - before;
    println!("{same} the same, levels of {pages} pages by the kernels");
    assert!(same > 20 && pages > 20);
}

#[test]
fn files_of_pyarrow_are_the_same_on_both_ways() {
    let Some(python) = python() else {
        return;
    };
    let (host, device, folder) = (context(), device(), Folder::new());
    let script = "
import sys, random
import pyarrow as pa, pyarrow.parquet as pq
r = random.Random(5)
def maybe(f, p=0.2): return None if r.random() < p else f()
def ints(): return [maybe(lambda: r.randrange(99)) for _ in range(r.randrange(5))]
def pair(): return {'a': maybe(lambda: r.random()), 'b': maybe(lambda: 'w%d' % r.randrange(30))}
n = 4000
types = {
    'l': (pa.list_(pa.int64()), ints),
    's': (pa.struct([('a', pa.float64()), ('b', pa.string())]), pair),
    'ls': (pa.list_(pa.struct([('a', pa.float64()), ('b', pa.string())])),
           lambda: [maybe(pair) for _ in range(r.randrange(4))]),
    'll': (pa.list_(pa.list_(pa.int64())), lambda: [maybe(ints) for _ in range(r.randrange(4))]),
    'm': (pa.map_(pa.string(), pa.int32()),
          lambda: [('k%d' % k, maybe(lambda: r.randrange(9))) for k in range(r.randrange(4))]),
    'sl': (pa.struct([('x', pa.list_(pa.string())), ('y', pa.bool_())]),
           lambda: {'x': maybe(lambda: ['t%d' % r.randrange(9)] * r.randrange(3)),
                    'y': maybe(lambda: r.random() < 0.5)}),
}
table = pa.table({k: pa.array([maybe(f) for _ in range(n)], t) for k, (t, f) in types.items()})
for version in ['1.0', '2.0']:
    for codec in ['none', 'snappy', 'lz4', 'zstd']:
        pq.write_table(table, f'{sys.argv[1]}/v{version[0]}-{codec}.parquet', compression=codec,
                       data_page_version=version, data_page_size=3000, row_group_size=1500)
";
    let run = Command::new(python)
        .args(["-c", script])
        .arg(&folder.0)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let before = PAGES.load(Relaxed);
    for path in files_below(&folder.0, &[".parquet"]) {
        let one = record_batch(&host, &load(&host, &path, None).unwrap());
        let other = record_batch(&device, &load(&device, &path, None).unwrap());
        assert_eq!(one, other, "{}", path.display());
    }
    let pages = PAGES.load(Relaxed) - before;
    println!("levels of {pages} pages by the kernels");
    assert!(pages > 300);
}

#[test]
fn damaged_pages_have_a_status_and_an_offset() {
    let device = device();
    let mut random = Random(11);
    let given = std::env::var("GDS_FORMATS_MUTATIONS").ok();
    let total: u64 = given.and_then(|n| n.parse().ok()).unwrap_or(400);
    let table = table(40, true, &mut random);
    let files: Vec<Vec<u8>> = ways().into_iter().map(|way| written(&table, way)).collect();
    let (mut accepted, before) = (0, PAGES.load(Relaxed));
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
    assert!(PAGES.load(Relaxed) > before);
}
