//! Readers and pipelines through the C interface: what misuse answers, and what C relies on.

mod common;

use core::ffi::{CStr, c_void};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};

use common::Folder;
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::error::gds_last_error_message;
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::pipeline::*;
use gds_rs::ffi::reader::*;
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;
use gds_rs::ffi::writer::*;
use gds_rs::ffi::{buffer, config};

/// A struct of C with nothing set.
fn zeroed<T: Copy>() -> T {
    // SAFETY: the tests ask for structs of integers and raw pointers, for which zero is a value.
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

struct Things {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    buffer: *mut gds_buffer_t,
    data: Vec<u8>,
    _folder: Folder,
}

impl Things {
    fn new(size: usize) -> Self {
        let folder = Folder::new();
        let (path, data) = folder.file("f", size);
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mut settings = fresh!(gds_config_t);
        let (mut context, mut file, mut memory) = (null_mut(), null_mut(), null_mut());
        // SAFETY: live places and handles.
        unsafe {
            let size_of_settings = size_of::<gds_config_t>();
            ok(config::gds_config_init(
                (&raw mut settings).cast(),
                size_of_settings,
            ));
            settings.gpu_device = GDS_DEVICE_HOST;
            ok(gds_context_open(&raw const settings, &raw mut context));
            ok(gds_file_open(context, path.as_ptr(), 1, &raw mut file));
            ok(buffer::gds_buffer_alloc(
                context,
                1,
                1 << 20,
                &raw mut memory,
            ));
        }
        Self {
            context,
            file,
            buffer: memory,
            data,
            _folder: folder,
        }
    }

    fn reader(&self, buffers: u32, chunk: u64) -> *mut gds_reader_t {
        let mut settings = fresh!(gds_reader_config_t);
        (settings.buffers, settings.chunk_bytes) = (buffers, chunk);
        let mut reader = null_mut();
        // SAFETY: live places and handles.
        ok(unsafe { gds_reader_open(self.file, &raw const settings, &raw mut reader) });
        reader
    }

    fn pipeline(&self) -> *mut gds_pipeline_t {
        let mut pipeline = null_mut();
        // SAFETY: live places and handles.
        ok(unsafe { gds_pipeline_open(self.context, null(), &raw mut pipeline) });
        pipeline
    }

    fn request(&self, offset: u64, size: u64) -> gds_batch_entry_t {
        gds_batch_entry_t {
            file: self.file,
            buffer: self.buffer,
            file_offset: offset,
            buffer_offset: offset,
            size,
            operation: gds_operation_t::GDS_OPERATION_READ as i32,
            reserved: 0,
        }
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        // SAFETY: open handles, closed once.
        unsafe {
            buffer::gds_buffer_free(self.buffer);
            gds_file_close(self.file);
            gds_context_close(self.context);
        }
    }
}

fn ok(status: gds_status_t) {
    assert_eq!(status, GDS_STATUS_OK, "{}", last());
}

fn last() -> String {
    // SAFETY: never NULL and NUL-terminated.
    let text = unsafe { CStr::from_ptr(gds_last_error_message()) };
    text.to_string_lossy().into_owned()
}

/// The status, after a look at the message.
fn refused(status: gds_status_t, word: &str) -> gds_status_t {
    assert!(last().contains(word), "{status:?}: {}", last());
    status
}

#[test]
fn a_reader_delivers_and_ends() {
    let things = Things::new(10_001);
    let reader = things.reader(0, 4096);
    let mut got = Vec::new();
    let mut chunk = fresh!(gds_chunk_t);
    // SAFETY: live places and handles; chunks that are out are host memory.
    unsafe {
        loop {
            match gds_reader_next(reader, -1, &raw mut chunk) {
                GDS_STATUS_END => break,
                status => ok(status),
            }
            assert_eq!(chunk.struct_size as usize, size_of::<gds_chunk_t>());
            let size = chunk.size as usize;
            got.extend_from_slice(std::slice::from_raw_parts(chunk.address as *const u8, size));
            if chunk.index == 1 {
                ok(gds_reader_release_on(reader, &raw const chunk, null_mut()));
            } else {
                ok(gds_reader_release(reader, &raw const chunk));
            }
        }
        let before = chunk.index;
        assert_eq!(gds_reader_next(reader, 0, &raw mut chunk), GDS_STATUS_END);
        assert_eq!(chunk.index, before, "nothing is written without a chunk");
        let mut info = fresh!(gds_reader_info_t);
        ok(gds_reader_info(reader, &raw mut info));
        assert_eq!((info.buffers, info.chunk_bytes, info.chunks), (2, 4096, 3));
        assert_eq!((info.chunks_delivered, info.bytes_delivered), (3, 10_001));
        let mut state = -1;
        ok(gds_reader_buffer_state(reader, 1, &raw mut state));
        assert_eq!(state, gds_buffer_state_t::GDS_BUFFER_STATE_IDLE as i32);
        gds_reader_close(reader);
    }
    assert!(got == things.data);
}

#[test]
fn a_reader_answers_misuse() {
    let things = Things::new(10_000);
    let reader = things.reader(2, 4096);
    let mut chunk = fresh!(gds_chunk_t);
    let mut other = null_mut();
    // SAFETY: live places, and handles of which the library finds out what they are.
    unsafe {
        let file = things.file;
        assert_eq!(
            gds_reader_open(null(), null(), &raw mut other),
            GDS_STATUS_INVALID_ARGUMENT
        );
        assert_eq!(
            gds_reader_open(file, null(), null_mut()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        assert_eq!(
            gds_reader_open(reader.cast(), null(), &raw mut other),
            GDS_STATUS_INVALID_HANDLE
        );
        type Change = fn(&mut gds_reader_config_t);
        let changes: [(Change, gds_status_t); 7] = [
            (|c| c.buffers = 1, GDS_STATUS_INVALID_CONFIG),
            (|c| c.buffers = 65, GDS_STATUS_INVALID_CONFIG),
            (|c| c.chunk_bytes = 100, GDS_STATUS_INVALID_CONFIG),
            (|c| c.memory = 3, GDS_STATUS_INVALID_ARGUMENT),
            (|c| c.path = 9, GDS_STATUS_INVALID_ARGUMENT),
            (|c| c.checksum = 7, GDS_STATUS_INVALID_ARGUMENT),
            (|c| c.struct_size = 3, GDS_STATUS_STRUCT_SIZE),
        ];
        for (change, wanted) in changes {
            let mut settings = fresh!(gds_reader_config_t);
            change(&mut settings);
            let status = gds_reader_open(file, &raw const settings, &raw mut other);
            assert_eq!(status, wanted, "{}", last());
        }
        assert!(other.is_null(), "outputs are written on success alone");
        let none = gds_reader_open_ranges(null(), 0, null(), &raw mut other);
        assert_eq!(
            refused(none, "at least one range"),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let far = gds_range_t {
            file,
            offset: 1 << 63,
            size: 1,
        };
        let status = gds_reader_open_ranges(&raw const far, 1, null(), &raw mut other);
        assert_eq!(refused(status, "range 0"), GDS_STATUS_OUT_OF_RANGE);
        let nobody = gds_range_t {
            file: null(),
            ..far
        };
        let status = gds_reader_open_ranges(&raw const nobody, 1, null(), &raw mut other);
        assert_eq!(
            refused(status, "ranges[0].file"),
            GDS_STATUS_INVALID_ARGUMENT
        );

        let next = |c: *mut gds_chunk_t, ms| gds_reader_next(reader, ms, c);
        assert_eq!(next(null_mut(), 0), GDS_STATUS_INVALID_ARGUMENT);
        assert_eq!(next(&raw mut chunk, -2), GDS_STATUS_INVALID_ARGUMENT);
        assert_eq!(
            gds_reader_next(things.file.cast(), 0, &raw mut chunk),
            GDS_STATUS_INVALID_HANDLE
        );
        let never = gds_reader_release(reader, &raw const chunk);
        assert_eq!(refused(never, "is not out"), GDS_STATUS_INVALID_ARGUMENT);
        ok(next(&raw mut chunk, -1));
        let mut second = fresh!(gds_chunk_t);
        ok(next(&raw mut second, -1));
        assert_eq!(next(&raw mut second, 1), GDS_STATUS_PENDING);
        ok(gds_reader_release(reader, &raw const chunk));
        let twice = gds_reader_release(reader, &raw const chunk);
        assert_eq!(refused(twice, "once"), GDS_STATUS_INVALID_ARGUMENT);
        assert_eq!(
            gds_reader_release(reader, null()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let mut state = 0;
        assert_eq!(
            gds_reader_buffer_state(reader, 2, &raw mut state),
            GDS_STATUS_OUT_OF_RANGE
        );
        let mut info = fresh!(gds_reader_info_t);
        info.struct_size = 0;
        assert_eq!(
            gds_reader_info(reader, &raw mut info),
            GDS_STATUS_STRUCT_SIZE
        );
        let mut bytes = 7;
        let run = gds_reader_run(reader, None, null_mut(), &raw mut bytes);
        assert_eq!((run, bytes), (GDS_STATUS_INVALID_ARGUMENT, 7));
        ok(gds_reader_cancel(reader));
        assert_eq!(next(&raw mut chunk, -1), GDS_STATUS_CANCELLED);
        gds_reader_close(reader);
        gds_reader_close(reader);
        gds_reader_close(null_mut());
        assert_eq!(next(&raw mut chunk, 0), GDS_STATUS_INVALID_HANDLE);
        assert_eq!(gds_reader_cancel(reader), GDS_STATUS_INVALID_HANDLE);
    }
}

/// What the callback of a run does and sees.
struct Run {
    reader: *mut gds_reader_t,
    chunks: u64,
    stop_at: u64,
}

unsafe extern "C" fn see(chunk: *const gds_chunk_t, data: *mut c_void) -> i32 {
    // SAFETY: the test hands out a live `Run`, and the chunk lives through the call.
    let (run, chunk_index) = unsafe { (&mut *data.cast::<Run>(), (*chunk).index) };
    run.chunks += 1;
    if chunk_index % 2 == 0 {
        // SAFETY: a live handle and chunk.
        ok(unsafe { gds_reader_release_on(run.reader, chunk, null_mut()) });
    }
    i32::from(chunk_index == run.stop_at)
}

#[test]
fn a_callback_of_a_run_may_stop_and_release() {
    let things = Things::new(10 * 4096);
    let reader = things.reader(3, 4096);
    let mut run = Run {
        reader,
        chunks: 0,
        stop_at: 4,
    };
    let data = (&raw mut run).cast::<c_void>();
    let mut bytes = 0;
    // SAFETY: live handles; `run` outlives the calls.
    unsafe {
        ok(gds_reader_run(reader, Some(see), data, &raw mut bytes));
        assert_eq!(bytes, 5 * 4096);
        ok(gds_reader_run(reader, Some(see), data, null_mut()));
        gds_reader_close(reader);
    }
    assert_eq!(run.chunks, 10);
}

#[test]
fn a_reader_outlives_its_file_and_context() {
    let things = Things::new(100_000);
    let reader = things.reader(2, 4096);
    let data = things.data.clone();
    drop(things);
    let mut chunk = fresh!(gds_chunk_t);
    let mut got = 0;
    // SAFETY: a live handle and place.
    unsafe {
        while gds_reader_next(reader, -1, &raw mut chunk) == GDS_STATUS_OK {
            got += chunk.size as usize;
            ok(gds_reader_release(reader, &raw const chunk));
        }
        gds_reader_close(reader);
    }
    assert_eq!(got, data.len());
}

#[test]
fn configurations_can_be_made_without_macros() {
    let mut reader = fresh!(gds_reader_config_t);
    let mut pipeline = fresh!(gds_pipeline_config_t);
    pipeline.deadline_ms = 9;
    // SAFETY: live places of these sizes.
    unsafe {
        ok(gds_reader_config_init(
            (&raw mut reader).cast(),
            size_of_val(&reader),
        ));
        ok(gds_pipeline_config_init(
            (&raw mut pipeline).cast(),
            size_of_val(&pipeline),
        ));
        assert_eq!(
            gds_reader_config_init(null_mut(), 32),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let odd = gds_reader_config_init((&raw mut reader).cast(), 31);
        assert_eq!(odd, GDS_STATUS_STRUCT_SIZE);
    }
    assert_eq!((reader.struct_size, reader.buffers), (48, 2));
    assert_eq!((pipeline.struct_size, pipeline.deadline_ms), (40, 0));
}

#[derive(Default)]
struct Tally {
    calls: u64,
    bytes: u64,
    failures: Vec<(i32, String)>,
}

unsafe extern "C" fn tally(_: u64, completion: *const gds_completion_t, data: *mut c_void) {
    // SAFETY: the test hands out a live `Tally`, which only the pipeline's thread touches now.
    let (tally, completion) = unsafe { (&mut *data.cast::<Tally>(), &*completion) };
    tally.calls += 1;
    tally.bytes += completion.bytes;
    if completion.status != 0 {
        tally.failures.push((completion.status, last()));
    }
}

#[test]
fn a_pipeline_tells_by_callback_and_by_waiting() {
    let things = Things::new(100_000);
    let pipeline = things.pipeline();
    let mut told = Tally::default();
    let data = (&raw mut told).cast::<c_void>();
    let mut completion = fresh!(gds_completion_t);
    let mut id = 0;
    // SAFETY: live handles and places; `told` outlives the pipeline.
    unsafe {
        let none = gds_pipeline_wait_one(pipeline, -1, null_mut(), &raw mut completion);
        assert_eq!(none, GDS_STATUS_END);
        for index in 0..25 {
            let request = things.request(index * 4000, 4000);
            let call = Some(tally as unsafe extern "C" fn(_, _, _));
            ok(gds_pipeline_submit(
                pipeline,
                &raw const request,
                -1,
                call,
                data,
                &raw mut id,
            ));
            assert_eq!(id, index + 1);
        }
        let mut write = things.request(0, 10);
        write.operation = gds_operation_t::GDS_OPERATION_WRITE as i32;
        let call = Some(tally as unsafe extern "C" fn(_, _, _));
        ok(gds_pipeline_submit(
            pipeline,
            &raw const write,
            -1,
            call,
            data,
            null_mut(),
        ));
        ok(gds_pipeline_wait_all(pipeline));
        assert_eq!((told.calls, told.bytes), (26, 100_000));
        assert_eq!(told.failures.len(), 1);
        assert_eq!(
            told.failures[0].0, GDS_STATUS_READ_ONLY as i32,
            "{:?}",
            told.failures
        );
        assert!(!told.failures[0].1.is_empty());

        let request = things.request(99_000, 4000);
        ok(gds_pipeline_submit(
            pipeline,
            &raw const request,
            -1,
            None,
            null_mut(),
            null_mut(),
        ));
        ok(gds_pipeline_submit(
            pipeline,
            &raw const write,
            -1,
            None,
            null_mut(),
            null_mut(),
        ));
        let mut seen = Vec::new();
        while gds_pipeline_wait_one(pipeline, -1, &raw mut id, &raw mut completion) == GDS_STATUS_OK
        {
            seen.push((id, completion.status, completion.bytes));
        }
        seen.sort_unstable();
        let refused = GDS_STATUS_READ_ONLY as i32;
        assert_eq!(seen, [(27, 0, 1000), (28, refused, 0)]);
        let mut info = fresh!(gds_pipeline_info_t);
        ok(gds_pipeline_info(pipeline, &raw mut info));
        assert_eq!((info.submitted, info.completed, info.failed), (28, 28, 2));
        assert_eq!(info.outstanding, 0);
        gds_pipeline_close(pipeline);
    }
}

#[test]
fn a_pipeline_answers_misuse() {
    let things = Things::new(100_000);
    let pipeline = things.pipeline();
    let mut other = null_mut();
    let good = things.request(0, 100);
    // SAFETY: live places, and handles of which the library finds out what they are.
    unsafe {
        let open = |c: *const gds_pipeline_config_t, place: *mut *mut gds_pipeline_t| {
            gds_pipeline_open(things.context, c, place)
        };
        assert_eq!(open(null(), null_mut()), GDS_STATUS_INVALID_ARGUMENT);
        let mut settings = fresh!(gds_pipeline_config_t);
        settings.max_outstanding = 5000;
        assert_eq!(
            open(&raw const settings, &raw mut other),
            GDS_STATUS_INVALID_CONFIG
        );
        settings.max_outstanding = 0;
        settings.reserved = 1;
        assert_eq!(
            open(&raw const settings, &raw mut other),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let submit = |request: *const gds_batch_entry_t, ms, data| {
            gds_pipeline_submit(pipeline, request, ms, None, data, null_mut())
        };
        assert_eq!(submit(null(), -1, null_mut()), GDS_STATUS_INVALID_ARGUMENT);
        assert_eq!(
            submit(&raw const good, -5, null_mut()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let data = std::ptr::without_provenance_mut(8);
        assert_eq!(
            submit(&raw const good, -1, data),
            GDS_STATUS_INVALID_ARGUMENT
        );
        type Change = fn(&mut gds_batch_entry_t);
        let changes: [(Change, gds_status_t, &str); 6] = [
            (
                |r| r.file = null(),
                GDS_STATUS_INVALID_ARGUMENT,
                "request.file",
            ),
            (
                |r| r.buffer = r.file.cast(),
                GDS_STATUS_INVALID_HANDLE,
                "request.buffer",
            ),
            (
                |r| r.operation = 3,
                GDS_STATUS_INVALID_ARGUMENT,
                "operation is 3",
            ),
            (|r| r.reserved = 1, GDS_STATUS_INVALID_ARGUMENT, "reserved"),
            (
                |r| r.size = 1 << 21,
                GDS_STATUS_OUT_OF_RANGE,
                "pass the end",
            ),
            (
                |r| r.file_offset = u64::MAX,
                GDS_STATUS_OUT_OF_RANGE,
                "file_offset",
            ),
        ];
        for (change, wanted, word) in changes {
            let mut request = good;
            change(&mut request);
            let status = submit(&raw const request, -1, null_mut());
            assert_eq!(refused(status, word), wanted);
        }
        let wait = gds_pipeline_wait_one(pipeline, -1, null_mut(), null_mut());
        assert_eq!(wait, GDS_STATUS_INVALID_ARGUMENT);
        let mut info = fresh!(gds_pipeline_info_t);
        ok(gds_pipeline_info(pipeline, &raw mut info));
        assert_eq!(info.submitted, 0, "nothing of this was taken");
        gds_pipeline_close(pipeline);
        gds_pipeline_close(pipeline);
        gds_pipeline_close(null_mut());
        assert_eq!(
            submit(&raw const good, -1, null_mut()),
            GDS_STATUS_INVALID_HANDLE
        );
        assert_eq!(gds_pipeline_wait_all(pipeline), GDS_STATUS_INVALID_HANDLE);
        assert_eq!(gds_pipeline_wait_all(null()), GDS_STATUS_INVALID_ARGUMENT);
    }
}

#[test]
fn a_writer_writes_and_answers_misuse() {
    let things = Things::new(100);
    let path = things._folder.path("w");
    let name = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let (mut file, mut writer, mut bytes, mut state) = (null_mut(), null_mut(), 0, -1);
    let mut space: gds_space_t = zeroed();
    // SAFETY: live places and handles; buffers that are out are host memory.
    unsafe {
        let flags = 2 | 4;
        ok(gds_file_open(
            things.context,
            name.as_ptr(),
            flags,
            &raw mut file,
        ));
        let read_only = gds_writer_open(things.file, 0, null(), &raw mut writer);
        assert_eq!(read_only, GDS_STATUS_READ_ONLY);
        let nowhere = gds_writer_open(file, 0, null(), null_mut());
        assert_eq!(nowhere, GDS_STATUS_INVALID_ARGUMENT);
        let mut settings = fresh!(gds_reader_config_t);
        settings.chunk_bytes = 4096;
        ok(gds_writer_open(
            file,
            3,
            &raw const settings,
            &raw mut writer,
        ));
        for index in 0..5u8 {
            ok(gds_writer_acquire(writer, -1, &raw mut space));
            assert_eq!((space.size, space.reserved), (4096, 0));
            (space.address as *mut u8).write_bytes(index, 100);
            let mut at = 0;
            let place = &raw mut at;
            ok(match index % 2 {
                0 => gds_writer_submit(writer, &raw const space, 100, place),
                _ => gds_writer_submit_on(writer, &raw const space, 100, null_mut(), place),
            });
            assert_eq!(at, 3 + u64::from(index) * 100);
        }
        ok(gds_writer_finish(writer, &raw mut bytes));
        assert_eq!(bytes, 500);
        let submit =
            |space: *const gds_space_t, size| gds_writer_submit(writer, space, size, null_mut());
        let twice = submit(&raw const space, 1);
        assert_eq!(refused(twice, "is not out"), GDS_STATUS_INVALID_ARGUMENT);
        assert_eq!(submit(null(), 1), GDS_STATUS_INVALID_ARGUMENT);
        ok(gds_writer_acquire(writer, -1, &raw mut space));
        assert_eq!(submit(&raw const space, 4097), GDS_STATUS_OUT_OF_RANGE);
        ok(gds_writer_buffer_state(
            writer,
            space.buffer,
            &raw mut state,
        ));
        assert_eq!(state, gds_buffer_state_t::GDS_BUFFER_STATE_FILLING as i32);
        let none = gds_writer_buffer_state(writer, 2, &raw mut state);
        assert_eq!(none, GDS_STATUS_OUT_OF_RANGE);
        assert_eq!(
            gds_writer_acquire(writer, -1, null_mut()),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let mut second = space;
        ok(gds_writer_acquire(writer, -1, &raw mut second));
        assert_eq!(
            gds_writer_acquire(writer, 0, &raw mut second),
            GDS_STATUS_PENDING
        );
        gds_writer_close(writer);
        gds_writer_close(writer);
        gds_writer_close(null_mut());
        assert_eq!(
            gds_writer_finish(writer, null_mut()),
            GDS_STATUS_INVALID_HANDLE
        );
        gds_file_close(file);
    }
    let found = std::fs::read(path).expect("read back");
    assert!(
        found[3..]
            .chunks(100)
            .zip(0..)
            .all(|(part, at)| part == [at; 100])
    );
    assert_eq!(found.len(), 503);
}
