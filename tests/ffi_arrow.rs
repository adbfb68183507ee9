//! Arrow through the C interface: lifetimes of what goes out, misuse, damaged files.

#![cfg(feature = "arrow")]

mod common;

use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

use common::Folder;
use gds_rs::ffi::arrow::*;
use gds_rs::ffi::columns::*;
use gds_rs::ffi::config::gds_config_init;
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::error::gds_last_error_message;
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;

/// A struct of C with nothing set.
fn zeroed<T>() -> T {
    // SAFETY: the tests ask for structs of integers, raw pointers and optional functions.
    unsafe { std::mem::zeroed() }
}

/// A struct as a program of C begins with it.
macro_rules! fresh {
    ($name:ty) => {{
        let mut value: $name = zeroed();
        value.struct_size = size_of::<$name>() as u32;
        value
    }};
}

fn message() -> String {
    // SAFETY: never NULL, and valid until the next failure.
    unsafe { CStr::from_ptr(gds_last_error_message()) }
        .to_string_lossy()
        .into_owned()
}

#[track_caller]
fn ok(status: gds_status_t) {
    assert_eq!(status, GDS_STATUS_OK, "{}", message());
}

struct Things {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    arrow: *mut gds_arrow_t,
}

fn context() -> *mut gds_context_t {
    let mut settings = fresh!(gds_config_t);
    let mut context = null_mut();
    // SAFETY: live places.
    unsafe {
        let size = size_of::<gds_config_t>();
        ok(gds_config_init((&raw mut settings).cast(), size));
        settings.gpu_device = GDS_DEVICE_HOST;
        ok(gds_context_open(&raw const settings, &raw mut context));
    }
    context
}

impl Things {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/arrow_ipc");
        let path = CString::new(folder.join(name).as_os_str().as_bytes()).expect("no NUL");
        let context = context();
        let (mut file, mut arrow) = (null_mut(), null_mut());
        // SAFETY: live places and handles.
        unsafe {
            ok(gds_file_open(context, path.as_ptr(), 1, &raw mut file));
            ok(gds_arrow_open(file, &raw mut arrow));
        }
        Self {
            context,
            file,
            arrow,
        }
    }

    fn load(&self) -> *mut gds_columns_t {
        let mut columns = null_mut();
        // SAFETY: a live handle and place.
        ok(unsafe { gds_arrow_load(self.arrow, null(), &raw mut columns) });
        columns
    }

    /// In the wrong order, as a program at its end may.
    fn close(&self) {
        // SAFETY: handles of this test, closed once.
        unsafe {
            gds_context_close(self.context);
            gds_file_close(self.file);
            gds_arrow_close(self.arrow);
        }
    }
}

fn export(columns: *const gds_columns_t, batch: u64) -> ArrowDeviceArray {
    let mut array = zeroed();
    // SAFETY: a live handle and place.
    ok(unsafe { gds_columns_export(columns, batch, &raw mut array) });
    array
}

fn release(array: &mut ArrowArray) {
    let release = array.release.expect("not released yet");
    // SAFETY: an array of the library, released once.
    unsafe { release(array) };
    assert!(array.release.is_none());
}

/// Sums the int32 values of a one-column array, to touch its memory.
fn touch(array: &ArrowArray) -> i64 {
    let mut sum = 0;
    for at in 0..array.n_buffers as usize {
        // SAFETY: as many buffers as it says; sizes are not said, so a byte of each.
        let buffer = unsafe { *array.buffers.add(at) };
        if !buffer.is_null() && array.length > 0 {
            // SAFETY: buffers are readable to a multiple of 64.
            sum += i64::from(unsafe { *buffer.cast::<u8>() });
        }
    }
    for at in 0..array.n_children as usize {
        // SAFETY: as many children as it says.
        sum += touch(unsafe { &**array.children.add(at) });
    }
    sum
}

#[test]
fn what_goes_out_outlives_every_handle_and_is_freed_by_any_thread() {
    for name in [
        "nested-None.file",
        "views-zstd.file",
        "dictionaries-lz4.stream",
    ] {
        let things = Things::new(name);
        let columns = things.load();
        let mut arrays: Vec<_> = (0..2).map(|batch| export(columns, batch)).collect();
        // The same batch twice is two exports.
        arrays.push(export(columns, 0));
        // SAFETY: closed once; closing again is answered.
        unsafe {
            gds_columns_close(columns);
            gds_columns_close(columns);
        }
        things.close();
        let sums: Vec<i64> = arrays.iter().map(|array| touch(&array.array)).collect();
        assert_eq!(sums[0], sums[2]);
        struct Moved(Vec<ArrowDeviceArray>);
        // SAFETY: the interface lets arrays be used and released by any thread.
        unsafe impl Send for Moved {}
        let moved = Moved(arrays);
        let freed = std::thread::spawn(move || {
            let mut moved = moved;
            for array in &mut moved.0 {
                assert_eq!((array.device_type, array.device_id), (1, -1));
                assert!(array.sync_event.is_null() && array.reserved == [0; 3]);
                release(&mut array.array);
            }
        });
        freed.join().expect("nothing went wrong");
    }
}

#[test]
fn a_child_that_was_moved_out_lives_on() {
    let things = Things::new("nested-None.stream");
    let columns = things.load();
    let mut array = export(columns, 0);
    // SAFETY: closed once.
    unsafe { gds_columns_close(columns) };
    things.close();
    let mut children: Vec<ArrowArray> = Vec::new();
    for at in (0..array.array.n_children as usize).step_by(2) {
        // SAFETY: a child of an array that is not released; moving it is allowed.
        let child = unsafe { &mut **array.array.children.add(at) };
        let moved = std::mem::replace(child, zeroed());
        children.push(moved);
    }
    release(&mut array.array);
    for child in &mut children {
        touch(child);
        release(child);
    }
}

#[test]
fn streams_end_tell_errors_and_are_freed_halfway() {
    let things = Things::new("plain-None.stream");
    let mut stream: ArrowDeviceArrayStream = zeroed();
    let mut halfway: ArrowArrayStream = zeroed();
    // SAFETY: live handles and places; callbacks of the streams, used as the interface says.
    unsafe {
        ok(gds_arrow_stream(things.arrow, null(), &raw mut stream));
        ok(gds_arrow_host_stream(
            things.arrow,
            null(),
            &raw mut halfway,
        ));
        things.close();
        assert_eq!(stream.device_type, 1);
        let next = stream.get_next.expect("a callback");
        for _ in 0..2 {
            let mut array: ArrowDeviceArray = zeroed();
            assert_eq!(next(&raw mut stream, &raw mut array), 0);
            assert!(array.array.length > 0);
            release(&mut array.array);
        }
        for _ in 0..2 {
            let mut array: ArrowDeviceArray = zeroed();
            assert_eq!(next(&raw mut stream, &raw mut array), 0);
            assert!(array.array.release.is_none(), "the end, as often as asked");
        }
        let mut schema: ArrowSchema = zeroed();
        let get_schema = stream.get_schema.expect("a callback");
        assert_eq!(get_schema(&raw mut stream, &raw mut schema), 0);
        assert_eq!(CStr::from_ptr(schema.format), c"+s");
        schema.release.expect("a callback")(&raw mut schema);
        stream.release.expect("a callback")(&raw mut stream);
        assert!(stream.release.is_none());
        let mut array: ArrowArray = zeroed();
        assert_eq!(
            halfway.get_next.expect("a callback")(&raw mut halfway, &raw mut array),
            0
        );
        halfway.release.expect("a callback")(&raw mut halfway);
        touch(&array);
        release(&mut array);
    }
}

#[test]
fn damage_is_an_errno_and_a_text() {
    let folder = Folder::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/arrow_ipc");
    let data = std::fs::read(source.join("plain-None.stream")).expect("it is there");
    let path = folder.path("cut");
    std::fs::write(&path, &data[..data.len() - 600]).expect("a file is written");
    let text = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let context = context();
    let (mut file, mut arrow) = (null_mut(), null_mut());
    let mut stream: ArrowDeviceArrayStream = zeroed();
    // SAFETY: live places and handles.
    unsafe {
        ok(gds_file_open(context, text.as_ptr(), 1, &raw mut file));
        assert_eq!(gds_arrow_open(file, &raw mut arrow), GDS_STATUS_CORRUPTED);
        assert!(message().contains("passes the end"), "{}", message());
        gds_file_close(file);
        // A pipe gives what is whole, and then the error.
        use std::os::fd::AsRawFd;
        let pipe = std::fs::File::open(&path).expect("it opens");
        let fd = pipe.as_raw_fd();
        ok(gds_arrow_stream_fd(context, fd, null(), &raw mut stream));
        let next = stream.get_next.expect("a callback");
        let mut array: ArrowDeviceArray = zeroed();
        assert_eq!(next(&raw mut stream, &raw mut array), 0);
        release(&mut array.array);
        assert_eq!(next(&raw mut stream, &raw mut array), libc::EINVAL);
        let error = stream.get_last_error.expect("a callback")(&raw mut stream);
        let error = CStr::from_ptr(error).to_string_lossy().into_owned();
        assert!(error.contains("the stream ends"), "{error}");
        stream.release.expect("a callback")(&raw mut stream);
        assert_eq!(
            gds_arrow_stream_fd(context, -1, null(), &raw mut stream),
            GDS_STATUS_INVALID_ARGUMENT
        );
        gds_context_close(context);
    }
}

#[test]
fn plain_pointers_are_found_by_paths() {
    let things = Things::new("dictionaries-None.file");
    let columns = things.load();
    let mut info = fresh!(gds_columns_info_t);
    let mut column = fresh!(gds_column_t);
    let mut buffer: gds_column_buffer_t = zeroed();
    // SAFETY: live handles and places.
    unsafe {
        ok(gds_columns_info(columns, &raw mut info));
        assert_eq!((info.batches, info.rows), (2, 9));
        let path = [0u32, GDS_COLUMNS_DICTIONARY];
        ok(gds_columns_column(
            columns,
            1,
            path.as_ptr(),
            1,
            &raw mut column,
        ));
        assert_eq!(
            (column.length, column.has_dictionary, column.buffers),
            (4, 1, 2)
        );
        ok(gds_columns_column(
            columns,
            1,
            path.as_ptr(),
            2,
            &raw mut column,
        ));
        assert_eq!((column.length, CStr::from_ptr(column.format)), (3, c"u"));
        ok(gds_columns_buffer(
            columns,
            1,
            path.as_ptr(),
            2,
            2,
            &raw mut buffer,
        ));
        assert_eq!(buffer.size, 4);
        let text = std::slice::from_raw_parts(buffer.address as *const u8, 4);
        assert_eq!(text, b"accc");
        let mut index = 9;
        ok(gds_columns_find(columns, c"1".as_ptr(), &raw mut index));
        assert_eq!(index, 1);
        let missing = gds_columns_find(columns, c"none".as_ptr(), &raw mut index);
        assert_eq!(missing, GDS_STATUS_NOT_FOUND);
        for (batch, path, count) in [
            (2, &[0u32, 0][..], 1),
            (0, &[99], 1),
            (0, &[0, 0], 2),
            (u64::MAX, &[0], 1),
        ] {
            let status = gds_columns_column(columns, batch, path.as_ptr(), count, &raw mut column);
            assert_eq!(status, GDS_STATUS_OUT_OF_RANGE);
        }
        let path = [0u32];
        let status = gds_columns_column(columns, 0, path.as_ptr(), 0, &raw mut column);
        assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT);
        let status = gds_columns_buffer(columns, 0, path.as_ptr(), 1, 2, &raw mut buffer);
        assert_eq!(status, GDS_STATUS_OUT_OF_RANGE);
        assert_eq!(
            gds_columns_export(columns, 0, null_mut()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        assert_eq!(
            gds_columns_info(null(), &raw mut info),
            GDS_STATUS_INVALID_ARGUMENT
        );
        gds_columns_close(columns);
        assert_eq!(
            gds_columns_info(columns, &raw mut info),
            GDS_STATUS_INVALID_HANDLE
        );
    }
    things.close();
}

#[test]
fn selections_choose_and_are_checked() {
    let things = Things::new("plain-None.file");
    let mut chosen = fresh!(gds_arrow_selection_t);
    let mut columns = null_mut();
    let mut info = fresh!(gds_columns_info_t);
    let names: [*const c_char; 2] = [c"7".as_ptr(), c"2".as_ptr()];
    // SAFETY: live handles and places.
    unsafe {
        chosen.columns = names.as_ptr();
        chosen.column_count = 2;
        chosen.first_batch = 1;
        ok(gds_arrow_load(
            things.arrow,
            &raw const chosen,
            &raw mut columns,
        ));
        ok(gds_columns_info(columns, &raw mut info));
        assert_eq!((info.columns, info.batches, info.rows), (2, 1, 4));
        gds_columns_close(columns);
        let mut wrong = chosen;
        wrong.batch_count = 2;
        let status = gds_arrow_load(things.arrow, &raw const wrong, &raw mut columns);
        assert_eq!(status, GDS_STATUS_OUT_OF_RANGE);
        let mut wrong = chosen;
        wrong.reserved = 1;
        let status = gds_arrow_load(things.arrow, &raw const wrong, &raw mut columns);
        assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT);
        let mut wrong = chosen;
        wrong.validate = 7;
        let status = gds_arrow_load(things.arrow, &raw const wrong, &raw mut columns);
        assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT);
        let nameless: [*const c_char; 2] = [c"none".as_ptr(), null()];
        for (count, status) in [(1, GDS_STATUS_NOT_FOUND), (2, GDS_STATUS_INVALID_ARGUMENT)] {
            let mut wrong = chosen;
            (wrong.columns, wrong.column_count) = (nameless.as_ptr(), count);
            let answer = gds_arrow_load(things.arrow, &raw const wrong, &raw mut columns);
            assert_eq!(answer, status);
        }
        let (mut name, mut size) = (null(), 0);
        ok(gds_arrow_column_name(
            things.arrow,
            43,
            &raw mut name,
            &raw mut size,
        ));
        assert_eq!((CStr::from_ptr(name), size), (c"43", 2));
        let status = gds_arrow_column_name(things.arrow, 44, &raw mut name, null_mut());
        assert_eq!(status, GDS_STATUS_OUT_OF_RANGE);
        let mut batch = fresh!(gds_arrow_batch_t);
        ok(gds_arrow_batch(things.arrow, 1, &raw mut batch));
        assert_eq!((batch.rows, batch.codec), (4, 0));
        let status = gds_arrow_batch(things.arrow, 2, &raw mut batch);
        assert_eq!(status, GDS_STATUS_OUT_OF_RANGE);
    }
    things.close();
}

#[test]
fn two_steps_give_what_one_call_gives_in_memory_of_the_caller() {
    use gds_rs::ffi::buffer::{gds_buffer_alloc, gds_buffer_free};
    use gds_rs::ffi::format::{gds_plan_destroy, gds_plan_read};

    for name in [
        "plain-None.file",
        "nested-None.stream",
        "views-zstd.file",
        "deltas-1.stream",
    ] {
        let things = Things::new(name);
        let (mut plan, mut size, mut buffer, mut columns) = (null_mut(), 0, null_mut(), null_mut());
        // SAFETY: live handles and places.
        unsafe {
            let arrow = things.arrow;
            ok(gds_arrow_plan(
                arrow,
                null(),
                1,
                &raw mut plan,
                &raw mut size,
            ));
            ok(gds_buffer_alloc(
                things.context,
                1,
                size + 128,
                &raw mut buffer,
            ));
            let mut info = fresh!(gds_plan_info_t);
            ok(gds_rs::ffi::format::gds_plan_info(plan, &raw mut info));
            assert!(info.size_bytes <= size);
            if info.pieces > 0 {
                ok(gds_plan_read(plan, buffer, 128, null(), null_mut()));
            }
            ok(gds_arrow_columns(
                arrow,
                null(),
                1,
                buffer,
                128,
                &raw mut columns,
            ));
            let mut wrong = null_mut();
            let status = gds_arrow_columns(arrow, null(), 1, buffer, 129, &raw mut wrong);
            assert_eq!(status, GDS_STATUS_OUT_OF_RANGE, "{}", message());
            let status = gds_arrow_columns(arrow, null(), 1, buffer, 127, &raw mut wrong);
            assert_eq!(status, GDS_STATUS_INVALID_ARGUMENT, "{}", message());
            gds_plan_destroy(plan);
            gds_buffer_free(buffer);
        }
        let whole = things.load();
        let (mut ours, mut theirs) = (export(columns, 0), export(whole, 1));
        assert_eq!(ours.array.length, theirs.array.length);
        assert_eq!(touch(&ours.array), touch(&theirs.array), "{name}");
        release(&mut ours.array);
        release(&mut theirs.array);
        // SAFETY: closed once.
        unsafe {
            gds_columns_close(columns);
            gds_columns_close(whole);
        }
        things.close();
    }
}
