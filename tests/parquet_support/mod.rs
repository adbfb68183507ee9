//! What Parquet tests share: batches brought back from the device, and pyarrow beside them.

#![allow(dead_code, clippy::missing_panics_doc)]

#[path = "../common/mod.rs"]
pub mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow_array::{RecordBatch, RecordBatchOptions, make_array};
use arrow_buffer::{Buffer as Bytes, MutableBuffer};
use arrow_data::ArrayData;
use gds_rs::engine::{Context, OpenMode};
use gds_rs::error::Result;
use gds_rs::formats::parquet::{Keys, Parquet, Selection};
use gds_rs::formats::{Array, Batch, Slice};

/// Files of others: `GDS_TEST_DATA`, or `shared/data` beside the checkout.
pub fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GDS_TEST_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = root.unwrap_or(beside).join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// A Python that has pyarrow.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("GDS_FORMATS_PYTHON").map(PathBuf::from);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/formats-venv/bin/python3");
    let python = named.unwrap_or(own);
    let works = Command::new(&python)
        .args(["-c", "import pyarrow.parquet"])
        .output();
    if works.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!(
        "skipped: {} has no pyarrow (GDS_FORMATS_PYTHON)",
        python.display()
    );
    None
}

/// Files below a folder whose names end so.
pub fn files_below(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if ends.iter().any(|end| name.ends_with(end)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn open(context: &Context, path: &Path, keys: Option<Keys>) -> Result<Parquet> {
    let file = context.open_file(path, OpenMode::read_only())?;
    Parquet::open(&file, keys)
}

pub fn load(context: &Context, path: &Path, keys: Option<Keys>) -> Result<Batch> {
    open(context, path, keys)?.load(context, &Selection::default())
}

fn bring(context: &Context, slice: &Slice) -> Bytes {
    assert_eq!(
        slice.address() % 64,
        0,
        "buffers begin at multiples of 64 bytes"
    );
    let mut bytes = MutableBuffer::from_len_zeroed(slice.size as usize);
    context
        .download(&slice.buffer, slice.offset, bytes.as_slice_mut())
        .expect("a buffer comes back");
    bytes.into()
}

/// An array of the device as the arrow crates hold it, which check it.
pub fn array_data(context: &Context, array: &Array) -> ArrayData {
    let has_bitmap = !matches!(array.data_type, arrow_schema::DataType::Null);
    let mut buffers = array.buffers.iter();
    let bitmap = if has_bitmap {
        buffers.next().expect("a bitmap")
    } else {
        &None
    };
    let values = buffers.map(|slice| bring(context, slice.as_ref().expect("a buffer")));
    let children = array.children.iter().chain(array.dictionary.as_deref());
    let data = ArrayData::builder(array.data_type.clone())
        .len(array.len as usize)
        .offset(array.offset as usize)
        .null_bit_buffer(bitmap.as_ref().map(|slice| bring(context, slice)))
        .buffers(values.collect())
        .child_data(children.map(|child| array_data(context, child)).collect())
        .build()
        .expect("an array of its type");
    data.validate_full().expect("a valid array");
    assert_eq!(
        data.null_count() as u64,
        array.null_count.expect("nulls are counted")
    );
    data
}

pub fn record_batch(context: &Context, batch: &Batch) -> RecordBatch {
    let columns = batch.columns.iter();
    let columns = columns
        .map(|column| make_array(array_data(context, column)))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.rows as usize));
    RecordBatch::try_new_with_options(batch.schema.clone(), columns, &options)
        .expect("columns of the schema")
}

/// Writes a batch as an Arrow file, for pyarrow.
pub fn write_arrow(path: &Path, batch: &RecordBatch) {
    let file = fs::File::create(path).expect("a file");
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new(file, &batch.schema()).expect("a writer");
    writer.write(batch).expect("a batch is written");
    writer.finish().expect("a file is finished");
}

/// Runs a Python script of this folder; its output. Ends the test when it fails.
pub fn run(python: &Path, script: &str, args: &[&Path]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parquet_support");
    let output = Command::new(python)
        .arg(folder.join(script))
        .args(args)
        .output();
    let output = output.expect("python starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text}\n{errors}");
    text
}

/// Numbers that depend on a seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
