//! What is read of an Arrow file, where it lands, and what is refused.

#![cfg(feature = "arrow")]

mod common;
mod formats_support;

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use common::{Folder, bytes, context, open};
use gds_rs::engine::Context;
use gds_rs::error::{ErrorKind, Result};
use gds_rs::formats::arrow::{
    ArrowForm, ArrowPipe, ArrowReader, LoadOptions, Unpack, to_host, validate,
};
use gds_rs::formats::{Array, Batch, MemorySource};

const ROWS: i64 = 10_000;

fn record_batch(from: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(from..from + ROWS);
    let texts = (from..from + ROWS).map(|i| (i % 3 != 0).then(|| format!("text {i}")));
    let views = (from..from + ROWS).map(|i| (i % 5 != 0).then(|| format!("{i:030}")));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("numbers", Arc::new(numbers)),
        ("texts", Arc::new(StringArray::from_iter(texts))),
        ("views", Arc::new(StringViewArray::from_iter(views))),
        (
            "small",
            Arc::new(Int32Array::from_iter_values(0..ROWS as i32)),
        ),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn file_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut file = FileWriter::try_new(Vec::new(), &batches[0].schema()).expect("a schema");
    for batch in batches {
        file.write(batch).expect("a batch is written");
    }
    file.into_inner().expect("the footer is written")
}

fn stream_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut stream = StreamWriter::try_new(Vec::new(), &batches[0].schema()).expect("a schema");
    for batch in batches {
        stream.write(batch).expect("a batch is written");
    }
    stream.into_inner().expect("the end is written")
}

fn load(context: &Context, reader: &ArrowReader, names: &[&str]) -> Result<Vec<Batch>> {
    let columns = reader.columns_named(names)?;
    let all = 0..reader.batch_count();
    reader
        .load(context, &columns, all, &LoadOptions::default())?
        .collect()
}

fn of_bytes(bytes: Vec<u8>) -> Result<ArrowReader> {
    ArrowReader::from_source(Arc::new(MemorySource::new(bytes, "bytes")))
}

/// The column equals the one that was written.
fn same(context: &Context, ours: &Array, theirs: &ArrayRef) {
    let ours = arrow_array::make_array(to_host(context, ours).expect("valid values"));
    assert_eq!(&ours, theirs);
}

fn aligned(array: &Array) {
    for slice in array.buffers.iter().flatten() {
        assert_eq!(slice.address() % 64, 0);
        let readable = slice.offset + slice.size.next_multiple_of(64);
        assert!(readable <= slice.buffer.size(), "padded to 64");
    }
    array.children.iter().for_each(aligned);
}

#[test]
fn columns_of_files_and_streams_hold_what_was_written() {
    let (folder, context) = (Folder::new(), context());
    let written = [record_batch(0), record_batch(ROWS), record_batch(77)];
    for (name, data) in [("file", file_of(&written)), ("stream", stream_of(&written))] {
        let path = folder.path(name);
        std::fs::write(&path, &data).expect("a file is written");
        let reader = ArrowReader::open(&open(&context, &path)).expect("it opens");
        assert_eq!(reader.form() == ArrowForm::File, name == "file");
        let batches = load(&context, &reader, &["views", "numbers", "texts"]).expect("it loads");
        assert_eq!(batches.len(), 3);
        for (ours, theirs) in batches.iter().zip(&written) {
            assert_eq!(ours.rows, ROWS as u64);
            for (at, column) in [2, 0, 1].iter().zip(&ours.columns) {
                same(&context, column, theirs.column(*at));
                aligned(column);
            }
            validate(&context, ours).expect("valid");
        }
        let error = reader.columns_named(&["none"]).expect_err("no such column");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(reader.plan(3, &[0]).is_err() && reader.plan(0, &[4]).is_err());
    }
}

#[test]
fn batches_share_an_allocation_where_they_fit() {
    let (folder, context) = (Folder::new(), context());
    let written: Vec<_> = (0..7).map(|n| record_batch(n * ROWS)).collect();
    let path = folder.path("file");
    std::fs::write(&path, file_of(&written)).expect("a file is written");
    let reader = ArrowReader::open(&open(&context, &path)).expect("it opens");
    let columns = reader
        .columns_named(&["numbers", "texts"])
        .expect("columns");
    let size = reader.plan(0, &columns).expect("a plan").size();
    // Later batches are a little larger than the first, so the last has its own.
    for (allocation, wanted) in [(0, 7), (size / 2, 7), (size * 5 / 2, 4), (u64::MAX, 2)] {
        let options = LoadOptions {
            allocation,
            ..LoadOptions::default()
        };
        let batches = reader.load(&context, &columns, 0..7, &options);
        let batches: Vec<Batch> = batches
            .and_then(Iterator::collect)
            .unwrap_or_else(|e| panic!("{allocation}: {e}"));
        let mut memory = std::collections::BTreeSet::new();
        for (ours, theirs) in batches.iter().zip(&written) {
            for (at, column) in [0, 1].iter().zip(&ours.columns) {
                same(&context, column, theirs.column(*at));
                aligned(column);
                memory.extend(column.buffers.iter().flatten().map(|s| s.buffer.address()));
            }
        }
        assert_eq!(memory.len(), wanted, "{allocation} of {size}");
    }
}

#[test]
fn a_damaged_batch_is_told_when_it_is_asked_for() {
    let context = context();
    let schema = record_batch(0).schema();
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::LZ4_FRAME))
        .expect("a codec");
    let mut file = FileWriter::try_new_with_options(Vec::new(), &schema, options).expect("a file");
    for n in 0..4 {
        file.write(&record_batch(n * ROWS))
            .expect("a batch is written");
    }
    let mut bytes = file.into_inner().expect("the footer is written");
    let place = of_bytes(bytes.clone())
        .expect("it opens")
        .batch_info(2)
        .expect("a batch");
    let middle = place.offset + place.body_bytes / 3;
    bytes[middle as usize..][..64].fill(0xff);
    let reader = of_bytes(bytes).expect("it opens");
    let options = LoadOptions {
        ahead: 8,
        unpack: Unpack::Host,
        ..LoadOptions::default()
    };
    let mut batches = reader
        .load(&context, &[0, 1, 2, 3], 0..4, &options)
        .expect("started");
    for n in 0..2 {
        let batch = batches.next_batch().expect("whole").expect("a batch");
        same(
            &context,
            &batch.columns[1],
            record_batch(n * ROWS).column(1),
        );
    }
    let error = batches.next_batch().expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    assert!(batches.next_batch().expect("the end").is_none());
}

#[test]
fn only_wanted_buffers_are_read_and_neighbours_together() {
    let reader = of_bytes(file_of(&[record_batch(0)])).expect("it opens");
    let small = reader.plan(0, &[3]).expect("a plan");
    // The values, and no bitmap: nothing is null.
    assert_eq!(small.plan().bytes(), 4 * ROWS as u64);
    assert_eq!(small.plan().pieces().len(), 1);
    // The writer aligns buffers to 64: the whole body is one read.
    let all = reader.plan(0, &[0, 1, 2, 3]).expect("a plan");
    assert_eq!(all.plan().pieces().len(), 1, "{:?}", all.plan().pieces());
    let body = reader.batch_info(0).expect("a batch").body_bytes;
    assert!(all.plan().bytes() <= body && all.size() <= body + 4096 + 64);
    // Two that are no neighbours are two.
    let ends = reader.plan(0, &[0, 3]).expect("a plan");
    assert_eq!(ends.plan().pieces().len(), 2);
    assert_eq!(ends.plan().bytes(), 12 * ROWS as u64);
}

#[test]
fn a_pipe_gives_what_a_file_gives_and_never_looks_back() {
    let context = context();
    let written = [record_batch(0), record_batch(5)];
    let data = std::io::Cursor::new(stream_of(&written));
    let options = LoadOptions::default();
    let mut pipe = ArrowPipe::open(&context, data, "a pipe", &options).expect("it opens");
    pipe.choose(&["texts"]).expect("it is there");
    for theirs in &written {
        let batch = pipe.next_batch().expect("it loads").expect("a batch");
        same(&context, &batch.columns[0], theirs.column(1));
    }
    assert!(pipe.next_batch().expect("the end").is_none());
}

#[test]
fn arrays_outlive_their_reader_their_file_and_their_context() {
    let context = context();
    let theirs = record_batch(0);
    let reader = of_bytes(file_of(std::slice::from_ref(&theirs))).expect("it opens");
    let batch = load(&context, &reader, &["numbers"])
        .expect("it loads")
        .remove(0);
    drop((reader, context));
    let slice = batch.columns[0].buffers[1].as_ref().expect("values");
    let start = slice.offset as usize;
    let first = &bytes(&slice.buffer)[start..start + 16];
    assert_eq!(first, [0i64.to_le_bytes(), 1i64.to_le_bytes()].concat());
}

#[test]
fn offsets_that_lie_are_found_before_anybody_follows_them() {
    let context = context();
    let texts = StringArray::from(vec!["abc"; 4]);
    let batch = RecordBatch::try_from_iter([("texts", Arc::new(texts) as ArrayRef)]).expect("one");
    let data = file_of(&[batch]);
    // 0 3 6 9 12 as int32: the offsets.
    let offsets: Vec<u8> = [0, 3, 6, 9, 12]
        .iter()
        .flat_map(|o: &i32| o.to_le_bytes())
        .collect();
    let at = data
        .windows(offsets.len())
        .position(|window| window == offsets)
        .expect("the offsets are in the file");
    for (index, value) in [(2, 2i32), (4, 13), (4, -1), (0, -1), (1, i32::MAX)] {
        let mut damaged = data.clone();
        damaged[at + index * 4..][..4].copy_from_slice(&value.to_le_bytes());
        let reader = of_bytes(damaged).expect("metadata is fine");
        let error = load(&context, &reader, &["texts"]).expect_err("found");
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        assert!(error.offset().is_some());
        // Not looked at when that is not wanted: the bytes are as they are.
        let options = LoadOptions {
            validate: Some(false),
            ..LoadOptions::default()
        };
        let mut batches = reader
            .load(&context, &[0], 0..1, &options)
            .expect("a batch");
        let batch = batches.next_batch().expect("it loads").expect("a batch");
        assert!(validate(&context, &batch).is_err());
    }
    let mut damaged = data.clone();
    let text = data
        .windows(12)
        .position(|window| window == b"abcabcabcabc")
        .expect("texts");
    damaged[text + 4] = 0xFF;
    let error = load(&context, &of_bytes(damaged).expect("metadata"), &["texts"]);
    assert!(error.expect_err("not UTF-8").message().contains("UTF-8"));
}

#[test]
fn views_that_lie_are_found() {
    let context = context();
    let long = "0123456789abcdefghij";
    let views = StringViewArray::from(vec![Some("short"), Some(long), None]);
    let batch = RecordBatch::try_from_iter([("v", Arc::new(views) as ArrayRef)]).expect("one");
    let data = file_of(&[batch]);
    let mut view = 20u32.to_le_bytes().to_vec();
    view.extend(b"0123");
    let at = data
        .windows(view.len())
        .position(|window| window == view)
        .expect("the view is in the file");
    // Size, prefix, buffer and offset of the view.
    for (place, byte) in [(0, 21), (3, 0x80), (4, b'x'), (8, 1), (12, 1), (15, 0xFF)] {
        let mut damaged = data.clone();
        damaged[at + place] = byte;
        let reader = of_bytes(damaged).expect("metadata is fine");
        let error = load(&context, &reader, &["v"]).expect_err("found");
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{place}: {error}");
    }
}

#[test]
fn lengths_that_no_frame_can_have_are_refused_before_memory_is_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/arrow_ipc");
    let context = context();
    for name in ["dictionaries-lz4.stream", "dictionaries-zstd.file"] {
        let data = std::fs::read(folder.join(name)).expect("it is there");
        let whole = of_bytes(data.clone()).expect("it opens");
        let columns: Vec<usize> = (0..whole.schema().fields().len()).collect();
        let mut refused = 0;
        // Every place where a length could be.
        for at in (0..data.len() - 8).step_by(8) {
            let mut damaged = data.clone();
            damaged[at..at + 8].copy_from_slice(&(1u64 << 50).to_le_bytes());
            let Ok(reader) = of_bytes(damaged) else {
                continue;
            };
            for batch in 0..reader.batch_count() {
                match reader.plan(batch, &columns) {
                    Ok(plan) => assert!(plan.size() < 1 << 30, "{name} at {at}"),
                    Err(error) => {
                        refused += u32::from(error.message().contains("cannot be"));
                    }
                }
            }
        }
        assert!(refused > 0, "{name}: some of them were lengths");
    }
    drop(context);
}

#[test]
fn big_endian_values_are_refused_and_say_so() {
    let mut data = stream_of(&[record_batch(0)]);
    let reader = of_bytes(data.clone());
    assert!(reader.is_ok());
    // The schema's endianness is a default that writers leave out, so a whole one is needed.
    data.truncate(6);
    assert_eq!(
        of_bytes(data).expect_err("cut").kind(),
        ErrorKind::Corrupted
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = folder.join("tests/fixtures/arrow/bigendian.stream");
    let error = of_bytes(std::fs::read(path).expect("it is there")).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.message().contains("big-endian"), "{error}");
}
