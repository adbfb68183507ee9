//! Readers and writers over buffers of the caller, through the C interface: the bytes are there,
//! the buffers come back, and what does not fit is refused.

mod common;

use core::ffi::CStr;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};

use common::Folder;
use gds_rs::ffi::buffer::*;
use gds_rs::ffi::config::gds_config_init;
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::error::gds_last_error_message;
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::reader::*;
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;
use gds_rs::ffi::writer::*;

const CHUNK: u64 = 8192;

fn ok(status: gds_status_t) {
    assert_eq!(status, GDS_STATUS_OK, "{}", last());
}

fn last() -> String {
    // SAFETY: never NULL and NUL-terminated.
    let text = unsafe { CStr::from_ptr(gds_last_error_message()) };
    text.to_string_lossy().into_owned()
}

fn open_context() -> *mut gds_context_t {
    let mut context = null_mut();
    // SAFETY: the struct is integers, filled by the library; the places live.
    unsafe {
        let mut config: gds_config_t = std::mem::zeroed();
        ok(gds_config_init(
            (&raw mut config).cast(),
            size_of::<gds_config_t>(),
        ));
        config.gpu_device = GDS_DEVICE_HOST;
        ok(gds_context_open(&raw const config, &raw mut context));
    }
    context
}

fn alloc(context: *const gds_context_t, size: u64) -> *mut gds_buffer_t {
    let mut buffer = null_mut();
    let kind = gds_memory_kind_t::GDS_MEMORY_DEVICE as i32;
    // SAFETY: live places and handles.
    ok(unsafe { gds_buffer_alloc(context, kind, size, &raw mut buffer) });
    buffer
}

fn address(buffer: *const gds_buffer_t) -> u64 {
    let mut address = null_mut();
    // SAFETY: live places and handles.
    ok(unsafe { gds_buffer_address(buffer, &raw mut address) });
    address as u64
}

fn open_file(context: *const gds_context_t, path: &std::path::Path, flags: u32) -> *mut gds_file_t {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let mut file = null_mut();
    // SAFETY: live places and handles.
    ok(unsafe { gds_file_open(context, path.as_ptr(), flags, &raw mut file) });
    file
}

fn config(given: &[*const gds_buffer_t]) -> gds_reader_config_t {
    gds_reader_config_t {
        struct_size: size_of::<gds_reader_config_t>() as u32,
        buffers: 0,
        chunk_bytes: 0,
        memory: 0,
        path: 0,
        checksum: 0,
        fallback: 0,
        given: given.as_ptr(),
        given_count: given.len() as u64,
    }
}

/// Everything that a reader delivers, each chunk where it says and in one of `places`.
fn read_all(file: *const gds_file_t, config: &gds_reader_config_t, places: &[u64]) -> Vec<u8> {
    let mut got = Vec::new();
    let mut reader = null_mut();
    // SAFETY: live places and handles; chunks that are out are host memory.
    unsafe {
        ok(gds_reader_open(file, config, &raw mut reader));
        loop {
            let mut chunk: gds_chunk_t = std::mem::zeroed();
            chunk.struct_size = size_of::<gds_chunk_t>() as u32;
            match gds_reader_next(reader, -1, &raw mut chunk) {
                GDS_STATUS_END => break,
                status => ok(status),
            }
            assert_eq!(chunk.address, places[chunk.buffer as usize]);
            let size = chunk.size as usize;
            got.extend_from_slice(std::slice::from_raw_parts(chunk.address as *const u8, size));
            ok(gds_reader_release(reader, &raw const chunk));
        }
        gds_reader_close(reader);
    }
    got
}

#[test]
fn chunks_are_in_the_callers_buffers_one_reader_after_the_other() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 100_001);
    let context = open_context();
    let file = open_file(context, &path, GDS_FILE_READ);
    let given: Vec<_> = (0..3).map(|_| alloc(context, CHUNK).cast_const()).collect();
    let places: Vec<u64> = given.iter().map(|b| address(*b)).collect();
    for chunk_bytes in [0, 4096, CHUNK] {
        let settings = gds_reader_config_t {
            chunk_bytes,
            ..config(&given)
        };
        assert!(read_all(file, &settings, &places) == data, "{chunk_bytes}");
    }
    // A program of before the field existed: what is behind its struct is not looked at.
    let older = gds_reader_config_t {
        struct_size: 32,
        given: std::ptr::dangling(),
        given_count: u64::MAX,
        ..config(&given)
    };
    let mut reader = null_mut();
    // SAFETY: live places and handles, closed once.
    unsafe {
        ok(gds_reader_open(file, &raw const older, &raw mut reader));
        gds_reader_close(reader);
        for buffer in given {
            gds_buffer_free(buffer.cast_mut());
        }
        gds_file_close(file);
        gds_context_close(context);
    }
}

#[test]
fn a_reader_keeps_buffers_that_are_freed() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 3 * CHUNK as usize);
    let context = open_context();
    let file = open_file(context, &path, GDS_FILE_READ);
    let mut given = [alloc(context, CHUNK), alloc(context, CHUNK)].map(<*mut _>::cast_const);
    let mut reader = null_mut();
    let mut got = Vec::new();
    // SAFETY: live places and handles; chunks that are out are host memory.
    unsafe {
        ok(gds_reader_open(file, &config(&given), &raw mut reader));
        for buffer in &mut given {
            gds_buffer_free(buffer.cast_mut());
            *buffer = null();
        }
        gds_file_close(file);
        gds_context_close(context);
        for _ in 0..3 {
            let mut chunk: gds_chunk_t = std::mem::zeroed();
            chunk.struct_size = size_of::<gds_chunk_t>() as u32;
            ok(gds_reader_next(reader, -1, &raw mut chunk));
            let size = chunk.size as usize;
            got.extend_from_slice(std::slice::from_raw_parts(chunk.address as *const u8, size));
            ok(gds_reader_release(reader, &raw const chunk));
        }
        gds_reader_close(reader);
    }
    assert!(got == data);
}

#[test]
fn a_writer_writes_from_the_callers_buffers() {
    let folder = Folder::new();
    let (path, _) = folder.file("w", 0);
    let context = open_context();
    let file = open_file(context, &path, GDS_FILE_READ | GDS_FILE_WRITE);
    let given: Vec<_> = (0..2).map(|_| alloc(context, CHUNK).cast_const()).collect();
    let places: Vec<u64> = given.iter().map(|b| address(*b)).collect();
    let (mut writer, mut bytes) = (null_mut(), 0);
    // SAFETY: live places and handles; spaces that are out are host memory.
    unsafe {
        ok(gds_writer_open(file, 0, &config(&given), &raw mut writer));
        for index in 0..7u8 {
            let mut space: gds_space_t = std::mem::zeroed();
            ok(gds_writer_acquire(writer, -1, &raw mut space));
            assert_eq!(space.address, places[space.buffer as usize]);
            assert_eq!(space.size, CHUNK);
            (space.address as *mut u8).write_bytes(index, CHUNK as usize);
            ok(gds_writer_submit(
                writer,
                &raw const space,
                CHUNK,
                null_mut(),
            ));
        }
        ok(gds_writer_finish(writer, &raw mut bytes));
        gds_writer_close(writer);
        for buffer in given {
            gds_buffer_free(buffer.cast_mut());
        }
        gds_file_close(file);
        gds_context_close(context);
    }
    let found = std::fs::read(path).expect("read back");
    assert_eq!((bytes, found.len() as u64), (7 * CHUNK, 7 * CHUNK));
    let mut chunks = found.chunks(CHUNK as usize).zip(0u8..);
    assert!(chunks.all(|(chunk, index)| chunk.iter().all(|b| *b == index)));
}

#[test]
fn buffers_that_cannot_serve_are_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 100_000);
    let (context, other) = (open_context(), open_context());
    let file = open_file(context, &path, GDS_FILE_READ | GDS_FILE_WRITE);
    let [first, second, small] = [CHUNK, CHUNK, 4095].map(|s| alloc(context, s).cast_const());
    let foreign = alloc(other, CHUNK).cast_const();
    let mut memory = vec![0u8; 2 * CHUNK as usize];
    let [mut low, mut high] = [null_mut(), null_mut()];
    // SAFETY: the memory outlives the buffers.
    unsafe {
        let place = memory.as_mut_ptr();
        ok(gds_buffer_wrap(
            context,
            place.cast(),
            CHUNK + 1,
            &raw mut low,
        ));
        let place = place.add(CHUNK as usize);
        ok(gds_buffer_wrap(context, place.cast(), CHUNK, &raw mut high));
    }
    let refused = |settings: &gds_reader_config_t, wanted, word: &str| {
        let (mut reader, mut writer) = (null_mut(), null_mut());
        // SAFETY: live places and handles.
        let answers = unsafe {
            let by_reader = gds_reader_open(file, settings, &raw mut reader);
            assert!(last().contains(word), "{}", last());
            [
                by_reader,
                gds_writer_open(file, 0, settings, &raw mut writer),
            ]
        };
        assert_eq!(answers, [wanted; 2], "{word}");
        assert!(last().contains(word), "{}", last());
        assert!(reader.is_null() && writer.is_null());
    };
    refused(&config(&[first]), GDS_STATUS_INVALID_CONFIG, "from 2 to 64");
    refused(
        &config(&[first; 65]),
        GDS_STATUS_INVALID_CONFIG,
        "given_count is 65",
    );
    refused(
        &config(&[first, first]),
        GDS_STATUS_INVALID_CONFIG,
        "two given buffers",
    );
    let overlapping = [low.cast_const(), high.cast_const()];
    refused(
        &config(&overlapping),
        GDS_STATUS_INVALID_CONFIG,
        "two given buffers",
    );
    refused(
        &config(&[first, small]),
        GDS_STATUS_INVALID_CONFIG,
        "4095 bytes",
    );
    let pair = [first, second];
    let larger = gds_reader_config_t {
        chunk_bytes: CHUNK + 1,
        ..config(&pair)
    };
    refused(&larger, GDS_STATUS_INVALID_CONFIG, "8193");
    refused(
        &config(&[first, foreign]),
        GDS_STATUS_INVALID_ARGUMENT,
        "another context",
    );
    refused(
        &config(&[first, null()]),
        GDS_STATUS_INVALID_ARGUMENT,
        "given[1] is NULL",
    );
    let of_another_kind = file.cast_const().cast::<gds_buffer_t>();
    refused(
        &config(&[of_another_kind, first]),
        GDS_STATUS_INVALID_HANDLE,
        "given[0]",
    );
    let nowhere = gds_reader_config_t {
        given: null(),
        ..config(&pair)
    };
    refused(&nowhere, GDS_STATUS_INVALID_ARGUMENT, "given is NULL");
    // SAFETY: open handles, closed once, and one that was closed.
    unsafe {
        gds_buffer_free(second.cast_mut());
        refused(
            &config(&[first, second]),
            GDS_STATUS_INVALID_HANDLE,
            "given[1]",
        );
        for buffer in [first, small, foreign, low.cast_const(), high.cast_const()] {
            gds_buffer_free(buffer.cast_mut());
        }
        gds_file_close(file);
        gds_context_close(other);
        gds_context_close(context);
    }
}
