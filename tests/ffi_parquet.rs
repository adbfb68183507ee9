//! Parquet through the C interface: what it tells, what misuse answers, and what outlives what.

#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use common::Folder;
use gds_rs::ffi::columns::*;
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::parquet::*;
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// A struct of C with nothing set, as its program begins with it.
macro_rules! fresh {
    ($name:ty) => {{
        // SAFETY: structs of integers and raw pointers, for which zero is a value.
        let mut value: $name = unsafe { std::mem::zeroed() };
        value.struct_size = size_of::<$name>() as u32;
        value
    }};
}

fn ok(status: gds_status_t) {
    assert_eq!(status, GDS_STATUS_OK);
}

struct Things {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    parquet: *mut gds_parquet_t,
    _folder: Folder,
}

impl Things {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.path("f.parquet");
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let texts = (0..1000).map(|i| (i % 10 != 3).then(|| format!("text {i}")));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
        let table = RecordBatch::try_from_iter([("number", numbers), ("text", texts)]).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(400))
            .build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut settings = fresh!(gds_config_t);
        let (mut context, mut file, mut parquet) = (null_mut(), null_mut(), null_mut());
        // SAFETY: live places and handles.
        unsafe {
            let size = size_of::<gds_config_t>();
            let place = (&raw mut settings).cast();
            ok(gds_rs::ffi::config::gds_config_init(place, size));
            settings.gpu_device = GDS_DEVICE_HOST;
            ok(gds_context_open(&raw const settings, &raw mut context));
            ok(gds_file_open(context, path.as_ptr(), 1, &raw mut file));
            ok(gds_parquet_open(file, null(), &raw mut parquet));
        }
        Self {
            context,
            file,
            parquet,
            _folder: folder,
        }
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        // SAFETY: closed once; NULL is fine.
        unsafe {
            gds_parquet_close(self.parquet);
            gds_file_close(self.file);
            gds_context_close(self.context);
        }
    }
}

fn word<'a>(text: *const c_char) -> &'a str {
    // SAFETY: the texts of the library end with NUL.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap()
}

#[test]
fn what_a_file_holds_is_told() {
    let things = Things::new();
    let mut info = fresh!(gds_parquet_info_t);
    let mut column = fresh!(gds_parquet_column_t);
    let mut group = fresh!(gds_parquet_row_group_t);
    let mut chunk = fresh!(gds_parquet_chunk_t);
    // SAFETY: live places and handles.
    unsafe {
        ok(gds_parquet_info(things.parquet, &raw mut info));
        ok(gds_parquet_column(things.parquet, 1, &raw mut column));
        ok(gds_parquet_row_group(things.parquet, 2, &raw mut group));
        ok(gds_parquet_chunk(things.parquet, 0, 0, &raw mut chunk));
    }
    assert_eq!((info.rows, info.row_groups, info.columns), (1000, 3, 2));
    assert!(word(info.created_by).contains("parquet"));
    assert_eq!(
        (word(column.name), word(column.logical)),
        ("text", "String")
    );
    assert_eq!((column.root, column.max_definition), (1, 1));
    assert_eq!((group.rows, group.first_row), (200, 800));
    assert_eq!(
        (word(chunk.min), word(chunk.max), chunk.nulls),
        ("0", "399", 0)
    );
    assert_eq!(chunk.distinct, u64::MAX);
    assert_eq!(word(chunk.codec), "UNCOMPRESSED");
    let (mut key, mut value) = (null(), null());
    for index in 0..info.key_values {
        // SAFETY: live places and handles.
        ok(unsafe { gds_parquet_key_value(things.parquet, index, &raw mut key, &raw mut value) });
        assert!(!word(key).is_empty());
    }
    let far = info.key_values;
    // SAFETY: live places and handles.
    unsafe {
        let parquet = things.parquet;
        let pair = gds_parquet_key_value(parquet, far, &raw mut key, &raw mut value);
        assert_eq!(pair, GDS_STATUS_OUT_OF_RANGE);
        let none = [
            gds_parquet_column(parquet, 2, &raw mut column),
            gds_parquet_row_group(parquet, 3, &raw mut group),
            gds_parquet_chunk(parquet, 3, 0, &raw mut chunk),
            gds_parquet_chunk(parquet, 0, u64::MAX, &raw mut chunk),
        ];
        assert_eq!(none, [GDS_STATUS_OUT_OF_RANGE; 4]);
    }
}

#[test]
fn selections_say_what_is_loaded() {
    let things = Things::new();
    let names = [c"text".as_ptr(), c"number".as_ptr()];
    let rows = [gds_parquet_rows_t {
        first: 390,
        count: 20,
    }];
    let condition = gds_parquet_condition_t {
        column: c"number".as_ptr(),
        compare: gds_parquet_compare_t::GDS_PARQUET_LESS as i32,
        kind: gds_parquet_value_t::GDS_PARQUET_INTEGER as i32,
        integer: 400,
        number: 0.0,
        bytes: null(),
        byte_count: 0,
    };
    let mut selection = fresh!(gds_parquet_selection_t);
    selection.columns = names.as_ptr();
    selection.column_count = 2;
    selection.rows = rows.as_ptr();
    selection.row_range_count = 1;
    selection.conditions = &raw const condition;
    selection.condition_count = 1;
    let mut outline = fresh!(gds_parquet_outline_t);
    let mut columns = null_mut();
    let mut info = fresh!(gds_columns_info_t);
    // SAFETY: live places and handles; everything is closed once.
    unsafe {
        ok(gds_parquet_outline(
            things.parquet,
            &raw const selection,
            &raw mut outline,
        ));
        // The second row group cannot match.
        assert_eq!((outline.rows, outline.row_groups), (10, 1));
        assert!(outline.read_bytes > 0);
        ok(gds_parquet_load(
            things.parquet,
            &raw const selection,
            &raw mut columns,
        ));
        // What was loaded outlives its reader.
        drop(things);
        ok(gds_columns_info(columns, &raw mut info));
        assert_eq!((info.rows, info.columns, info.batches), (10, 2, 1));
        let mut array: ArrowDeviceArray = std::mem::zeroed();
        ok(gds_columns_export(columns, 0, &raw mut array));
        gds_columns_close(columns);
        let numbers = *array.array.children.add(1);
        let values = (*(*numbers).buffers.add(1)).cast::<i64>();
        let values = std::slice::from_raw_parts(values, 10);
        assert_eq!(values, (390..400).collect::<Vec<i64>>());
        (array.array.release.unwrap())(&raw mut array.array);
    }
}

#[test]
fn a_stream_gives_row_groups() {
    let things = Things::new();
    // SAFETY: live places and handles; everything is released once.
    unsafe {
        let mut stream: ArrowDeviceArrayStream = std::mem::zeroed();
        ok(gds_parquet_stream(things.parquet, null(), &raw mut stream));
        drop(things);
        let mut rows = Vec::new();
        loop {
            let mut array: ArrowDeviceArray = std::mem::zeroed();
            assert_eq!(
                (stream.get_next.unwrap())(&raw mut stream, &raw mut array),
                0
            );
            let Some(release) = array.array.release else {
                break;
            };
            rows.push(array.array.length);
            release(&raw mut array.array);
        }
        assert_eq!(rows, [400, 400, 200]);
        (stream.release.unwrap())(&raw mut stream);
    }
}

#[test]
fn misuse_is_answered() {
    let things = Things::new();
    let mut columns = null_mut();
    let mut check = |change: &dyn Fn(&mut gds_parquet_selection_t), expected: gds_status_t| {
        let mut selection = fresh!(gds_parquet_selection_t);
        change(&mut selection);
        // SAFETY: live places and handles; counts are not beyond what is there.
        let status =
            unsafe { gds_parquet_load(things.parquet, &raw const selection, &raw mut columns) };
        assert_eq!(status, expected);
        assert!(columns.is_null(), "written on success only");
    };
    let nothing = [c"nothing".as_ptr()];
    let wrong = gds_parquet_condition_t {
        column: c"number".as_ptr(),
        compare: 17,
        kind: 1,
        integer: 0,
        number: 0.0,
        bytes: null(),
        byte_count: 0,
    };
    let kind = gds_parquet_condition_t {
        compare: 1,
        kind: 0,
        ..wrong
    };
    let endless = gds_parquet_rows_t {
        first: u64::MAX,
        count: 2,
    };
    check(&|s| s.reserved = 1, GDS_STATUS_INVALID_ARGUMENT);
    check(&|s| s.struct_size = 3, GDS_STATUS_STRUCT_SIZE);
    check(&|s| s.column_count = 1, GDS_STATUS_INVALID_ARGUMENT);
    check(
        &|s| (s.columns, s.column_count) = (nothing.as_ptr(), 1),
        GDS_STATUS_NOT_FOUND,
    );
    check(
        &|s| (s.conditions, s.condition_count) = (&raw const wrong, 1),
        GDS_STATUS_INVALID_ARGUMENT,
    );
    check(
        &|s| (s.conditions, s.condition_count) = (&raw const kind, 1),
        GDS_STATUS_INVALID_ARGUMENT,
    );
    check(
        &|s| (s.rows, s.row_range_count) = (&raw const endless, 1),
        GDS_STATUS_INVALID_ARGUMENT,
    );
    check(
        &|s| (s.row_groups, s.row_group_count) = (&raw const endless.first, 1),
        GDS_STATUS_OUT_OF_RANGE,
    );
    check(&|s| s.memory_limit = 100, GDS_STATUS_OUT_OF_HOST_MEMORY);
    let mut keys = fresh!(gds_parquet_keys_t);
    keys.key_count = 1;
    let mut parquet = null_mut();
    // SAFETY: live places and handles, or NULL.
    unsafe {
        let status = gds_parquet_open(things.file, &raw const keys, &raw mut parquet);
        assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT);
        let status = gds_parquet_open(null(), null(), &raw mut parquet);
        assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT);
        let status = gds_parquet_open(things.file, null(), null_mut());
        assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT);
        assert_eq!(
            gds_parquet_load(null(), null(), &raw mut columns),
            GDS_STATUS_INVALID_ARGUMENT
        );
        // Keys for a file that needs none.
        keys.key_count = 0;
        ok(gds_parquet_open(
            things.file,
            &raw const keys,
            &raw mut parquet,
        ));
        gds_parquet_close(parquet);
        gds_parquet_close(null_mut());
    }
}
