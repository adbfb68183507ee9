//! Formats, plans, tensors and DLPack through the C interface: what misuse answers, what C relies
//! on.

mod common;

use core::ffi::{CStr, c_char, c_void};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};

use common::Folder;
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::dlpack::*;
use gds_rs::ffi::error::gds_last_error_message;
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::format::*;
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::tensor::*;
use gds_rs::ffi::types::*;
use gds_rs::ffi::{buffer, config, ticket};

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

fn ok(status: gds_status_t) {
    // SAFETY: never NULL, NUL-terminated.
    let text = unsafe { CStr::from_ptr(gds_last_error_message()) };
    assert_eq!(status, GDS_STATUS_OK, "{}", text.to_string_lossy());
}

struct Things {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    tensors: *mut gds_tensors_t,
    data: Vec<u8>,
    _folder: Folder,
}

/// "w" is f32 [6, 4], "h" is bf16 [3], "q" is f4 [2, 3] and "n" has no elements.
const HEADER: &str = r#"{"__metadata__":{"format":"pt"},
"w":{"dtype":"F32","shape":[6,4],"data_offsets":[0,96]},
"h":{"dtype":"BF16","shape":[3],"data_offsets":[96,102]},
"q":{"dtype":"F4","shape":[2,3],"data_offsets":[102,105]},
"n":{"dtype":"U8","shape":[0,7],"data_offsets":[105,105]}}"#;

impl Things {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.path("t.safetensors");
        let mut bytes = (HEADER.len() as u64).to_le_bytes().to_vec();
        bytes.extend(HEADER.bytes());
        let data: Vec<u8> = (0..105).map(|i| i * 2 + 1).collect();
        bytes.extend(&data);
        std::fs::write(&path, bytes).expect("written");
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mut settings = fresh!(gds_config_t);
        let (mut context, mut file, mut tensors) = (null_mut(), null_mut(), null_mut());
        // SAFETY: live places and handles.
        unsafe {
            let size = size_of::<gds_config_t>();
            ok(config::gds_config_init((&raw mut settings).cast(), size));
            settings.gpu_device = GDS_DEVICE_HOST;
            ok(gds_context_open(&raw const settings, &raw mut context));
            ok(gds_file_open(context, path.as_ptr(), 1, &raw mut file));
            ok(gds_tensors_open(file, &raw mut tensors));
        }
        Self {
            context,
            file,
            tensors,
            data,
            _folder: folder,
        }
    }

    fn buffer(&self, size: u64) -> (*mut gds_buffer_t, *mut u8) {
        let (mut made, mut address) = (null_mut(), null_mut());
        // SAFETY: live places and handles.
        unsafe {
            ok(buffer::gds_buffer_alloc(
                self.context,
                1,
                size,
                &raw mut made,
            ));
            ok(buffer::gds_buffer_address(made, &raw mut address));
        }
        (made, address.cast())
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        // SAFETY: each was opened by `new`.
        unsafe {
            gds_context_close(self.context);
            gds_file_close(self.file);
            gds_tensors_close(self.tensors);
        }
    }
}

fn text(pointer: *const c_char) -> String {
    // SAFETY: texts of the library are NUL-terminated.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

#[test]
fn tensors_tell_what_the_file_says() {
    let things = Things::new();
    let mut format = -1;
    let mut info = fresh!(gds_tensors_info_t);
    // SAFETY: live places and handles.
    unsafe {
        ok(gds_format_detect(things.file, &raw mut format));
        assert_eq!(format, gds_format_t::GDS_FORMAT_SAFETENSORS as i32);
        ok(gds_tensors_info(things.tensors, &raw mut info));
        assert_eq!(
            (info.tensors, info.metadata, info.files, info.bytes),
            (4, 1, 1, 105)
        );
        let (mut key, mut value) = (null(), null());
        ok(gds_tensors_metadata(
            things.tensors,
            0,
            &raw mut key,
            &raw mut value,
        ));
        assert_eq!(
            (text(key), text(value)),
            ("format".to_owned(), "pt".to_owned())
        );
        let beyond = gds_tensors_metadata(things.tensors, 1, &raw mut key, &raw mut value);
        assert_eq!(beyond, GDS_STATUS_OUT_OF_RANGE);

        let mut index = 99;
        ok(gds_tensors_find(
            things.tensors,
            c"q".as_ptr(),
            &raw mut index,
        ));
        let mut tensor = fresh!(gds_tensor_info_t);
        ok(gds_tensors_get(things.tensors, index, &raw mut tensor));
        assert_eq!(
            (text(tensor.name), text(tensor.dtype_name)),
            ("q".into(), "F4".into())
        );
        assert_eq!(tensor.dtype, gds_dtype_t::GDS_DTYPE_F4 as i32);
        assert_eq!(
            (tensor.block_elements, tensor.block_bytes, tensor.size_bytes),
            (2, 1, 3)
        );
        assert_eq!(
            std::slice::from_raw_parts(tensor.shape, tensor.dimensions as usize),
            [2, 3]
        );
        let missing = gds_tensors_find(things.tensors, c"x".as_ptr(), &raw mut index);
        assert_eq!(missing, GDS_STATUS_NOT_FOUND);
        assert_eq!(
            gds_tensors_find(things.tensors, null(), &raw mut index),
            GDS_STATUS_INVALID_ARGUMENT
        );
        let beyond = gds_tensors_get(things.tensors, 4, &raw mut tensor);
        assert_eq!(beyond, GDS_STATUS_OUT_OF_RANGE);
        let wrong = gds_tensors_info(things.file.cast(), &raw mut info);
        assert_eq!(wrong, GDS_STATUS_INVALID_HANDLE);
    }
}

#[test]
fn plans_are_told_and_read_in_every_way() {
    let things = Things::new();
    // Columns 1 to 3 of "w", and all of "h".
    let parts = [
        gds_tensor_part_t {
            tensor: 0,
            kind: GDS_PART_RANGE,
            dimension: 1,
            begin: 1,
            end: 3,
        },
        gds_tensor_part_t {
            tensor: 1,
            kind: GDS_PART_WHOLE,
            dimension: 0,
            begin: 0,
            end: 0,
        },
    ];
    let mut places: [gds_tensor_place_t; 2] = [zeroed(); 2];
    let mut wanted: Vec<u8> = Vec::new();
    for row in 0..6 {
        wanted.extend(&things.data[row * 16 + 4..row * 16 + 12]);
    }
    let (buffer, memory) = things.buffer(1000);
    let mut plan = null_mut();
    // SAFETY: live places and handles.
    unsafe {
        ok(gds_tensors_plan(
            things.tensors,
            parts.as_ptr(),
            2,
            64,
            places.as_mut_ptr(),
            &raw mut plan,
        ));
        assert_eq!(
            (
                places[0].offset,
                places[0].size_bytes,
                places[0].cut_elements
            ),
            (0, 48, 2)
        );
        assert_eq!(
            (
                places[1].offset,
                places[1].size_bytes,
                places[1].cut_elements
            ),
            (64, 6, 0)
        );
        let mut info = fresh!(gds_plan_info_t);
        ok(gds_plan_info(plan, &raw mut info));
        assert_eq!((info.size_bytes, info.bytes, info.pieces), (70, 54, 7));
        assert_eq!((info.reads, info.gathered, info.files), (1, 1, 1));
        let mut pieces: [gds_piece_t; 9] = [zeroed(); 9];
        let mut count = 0;
        ok(gds_plan_pieces(
            plan,
            1,
            9,
            pieces.as_mut_ptr(),
            &raw mut count,
        ));
        assert_eq!((count, pieces[0].to_offset, pieces[5].size), (6, 8, 6));

        for way in 0..3 {
            memory.write_bytes(0, 1000);
            let mut started = null_mut();
            let mut done = fresh!(gds_completion_t);
            match way {
                0 => {
                    ok(gds_plan_read(plan, buffer, 100, null(), &raw mut done));
                    assert_eq!(done.bytes, 54);
                }
                1 => ok(gds_plan_start(plan, buffer, 100, null(), &raw mut started)),
                _ => ok(gds_plan_read_async(
                    plan,
                    buffer,
                    100,
                    null_mut(),
                    &raw mut started,
                )),
            }
            if way > 0 {
                ok(ticket::gds_ticket_wait(started, -1, null_mut()));
                ticket::gds_ticket_destroy(started);
            }
            let found = std::slice::from_raw_parts(memory.add(100), 70);
            assert!(
                found[..48] == wanted && found[64..] == things.data[96..102],
                "{way}"
            );
        }
        let far = gds_plan_read(plan, buffer, 931, null(), null_mut());
        assert_eq!(far, GDS_STATUS_OUT_OF_RANGE);
        gds_plan_destroy(plan);
        assert_eq!(
            gds_plan_info(plan, &raw mut info),
            GDS_STATUS_INVALID_HANDLE
        );

        // A plan of one's own, of what was told.
        for piece in &mut pieces {
            piece.file = things.file;
        }
        ok(gds_plan_create(pieces.as_ptr(), 6, &raw mut plan));
        ok(gds_plan_read(plan, buffer, 0, null(), null_mut()));
        let found = std::slice::from_raw_parts(memory, 70);
        assert!(found[8..48] == wanted[8..] && found[64..] == things.data[96..102]);
        gds_plan_destroy(plan);
        let none = gds_plan_create(pieces.as_ptr(), 0, &raw mut plan);
        assert_eq!(none, GDS_STATUS_INVALID_ARGUMENT);
        pieces[0].size = u64::MAX;
        let huge = gds_plan_create(pieces.as_ptr(), 6, &raw mut plan);
        assert_eq!(huge, GDS_STATUS_OUT_OF_RANGE);
        buffer::gds_buffer_free(buffer);
    }
}

/// What a window brought: which file, piece, offset, and the bytes.
type Got = Vec<(u32, u64, u64, Vec<u8>)>;

unsafe extern "C" fn take(window: *const gds_window_t, user_data: *mut c_void) -> i32 {
    // SAFETY: the library gives a window of `count` parts; the test a list.
    unsafe {
        let (window, got) = (&*window, &mut *user_data.cast::<Got>());
        for part in std::slice::from_raw_parts(window.parts, window.count as usize) {
            let bytes = std::slice::from_raw_parts(part.address as *const u8, part.size as usize);
            got.push((window.file_index, part.piece, part.offset, bytes.to_vec()));
        }
        i32::from(got.len() > 1000)
    }
}

#[test]
fn a_plan_is_streamed_to_a_callback() {
    let things = Things::new();
    let mut plan = null_mut();
    let mut got: Got = Vec::new();
    let mut bytes = 0;
    let list = (&raw mut got).cast::<c_void>();
    // SAFETY: live places and handles.
    unsafe {
        let tensors = things.tensors;
        ok(gds_tensors_plan(
            tensors,
            null(),
            0,
            0,
            null_mut(),
            &raw mut plan,
        ));
        ok(gds_plan_stream(
            plan,
            1 << 20,
            Some(take),
            list,
            &raw mut bytes,
        ));
        let small = gds_plan_stream(plan, 1000, Some(take), list, null_mut());
        assert_eq!(small, GDS_STATUS_INVALID_ARGUMENT);
        let none = gds_plan_stream(plan, 1 << 20, None, list, null_mut());
        assert_eq!(none, GDS_STATUS_INVALID_ARGUMENT);
        gds_plan_destroy(plan);
    }
    assert_eq!(bytes, 105);
    let pieces: Vec<_> = got.iter().map(|part| (part.0, part.1, part.2)).collect();
    assert_eq!(pieces, [(0, 0, 0), (0, 1, 0), (0, 2, 0)]);
    let all: Vec<u8> = got.into_iter().flat_map(|part| part.3).collect();
    assert_eq!(all, things.data);
}

#[test]
fn tensors_go_to_places_of_the_caller() {
    let things = Things::new();
    let mut mine = vec![7u8; 64];
    let mut wrapped = null_mut();
    let (other, memory) = things.buffer(256);
    let part = |tensor, kind, begin, end| gds_tensor_part_t {
        tensor,
        kind,
        dimension: u32::from(kind == GDS_PART_RANGE),
        begin,
        end,
    };
    let mut bytes = 0;
    // SAFETY: live places and handles.
    unsafe {
        let address = mine.as_mut_ptr().cast();
        ok(buffer::gds_buffer_wrap(
            things.context,
            address,
            64,
            &raw mut wrapped,
        ));
        let targets = [
            (part(0, GDS_PART_RANGE, 0, 1), wrapped, 1),
            (part(1, GDS_PART_WHOLE, 0, 0), wrapped, 40),
            (part(2, GDS_PART_WHOLE, 0, 0), other, 200),
            (part(3, GDS_PART_WHOLE, 0, 0), other, 0),
        ]
        .map(|(part, buffer, offset)| gds_tensor_target_t {
            part,
            buffer,
            offset,
        });
        let read = |targets: &[gds_tensor_target_t], out| {
            let count = targets.len() as u64;
            gds_tensors_read(things.tensors, targets.as_ptr(), count, null(), out)
        };
        ok(read(&targets, &raw mut bytes));
        let far = [gds_tensor_target_t {
            offset: 62,
            ..targets[1]
        }];
        assert_eq!(read(&far, null_mut()), GDS_STATUS_OUT_OF_RANGE);
        let none = [gds_tensor_target_t {
            buffer: null(),
            ..targets[1]
        }];
        assert_eq!(read(&none, null_mut()), GDS_STATUS_INVALID_ARGUMENT);
        buffer::gds_buffer_free(wrapped);
        let found = std::slice::from_raw_parts(memory.add(200), 3);
        assert_eq!(found, &things.data[102..105]);
        buffer::gds_buffer_free(other);
    }
    assert_eq!(bytes, 24 + 6 + 3);
    for row in 0..6 {
        assert_eq!(
            mine[1 + row * 4..5 + row * 4],
            things.data[row * 16..row * 16 + 4]
        );
    }
    assert_eq!(mine[40..46], things.data[96..102]);
    assert!(mine[0] == 7 && mine[25..40].iter().all(|b| *b == 7) && mine[46] == 7);
}

#[test]
fn parts_that_make_no_sense_are_refused() {
    let things = Things::new();
    let part = |tensor, kind, dimension, begin, end| gds_tensor_part_t {
        tensor,
        kind,
        dimension,
        begin,
        end,
    };
    let cases = [
        (part(4, GDS_PART_WHOLE, 0, 0, 0), 0, GDS_STATUS_OUT_OF_RANGE),
        (
            part(0, GDS_PART_WHOLE, 1, 0, 0),
            0,
            GDS_STATUS_INVALID_ARGUMENT,
        ),
        (part(0, 3, 0, 0, 0), 0, GDS_STATUS_INVALID_ARGUMENT),
        (part(0, GDS_PART_RANGE, 2, 0, 1), 0, GDS_STATUS_OUT_OF_RANGE),
        (part(0, GDS_PART_RANGE, 0, 2, 7), 0, GDS_STATUS_OUT_OF_RANGE),
        (part(0, GDS_PART_SHARE, 0, 2, 2), 0, GDS_STATUS_OUT_OF_RANGE),
        (
            part(2, GDS_PART_RANGE, 1, 0, 1),
            0,
            GDS_STATUS_NOT_SUPPORTED,
        ),
        (
            part(0, GDS_PART_WHOLE, 0, 0, 0),
            3,
            GDS_STATUS_INVALID_ARGUMENT,
        ),
        (
            part(0, GDS_PART_WHOLE, 0, 0, 0),
            4 << 20,
            GDS_STATUS_INVALID_ARGUMENT,
        ),
        (
            part(0, GDS_PART_RANGE, 1, 0, 2),
            GDS_ALIGN_MIRROR,
            GDS_STATUS_INVALID_ARGUMENT,
        ),
    ];
    let mut plan = null_mut();
    for (part, align, status) in cases {
        // SAFETY: live places and handles.
        let found = unsafe {
            gds_tensors_plan(
                things.tensors,
                &raw const part,
                1,
                align,
                null_mut(),
                &raw mut plan,
            )
        };
        assert_eq!(found, status, "{part:?}");
    }
    assert!(plan.is_null(), "written only with OK");
}

#[test]
fn dlpack_keeps_the_memory_and_gives_it_back_from_any_thread() {
    let things = Things::new();
    let mut places: [gds_tensor_place_t; 4] = [zeroed(); 4];
    let mut loaded = null_mut();
    let whole = |tensor| gds_tensor_part_t {
        tensor,
        kind: GDS_PART_WHOLE,
        dimension: 0,
        begin: 0,
        end: 0,
    };
    let (mut w, mut q, mut n) = (null_mut(), null_mut(), null_mut());
    // SAFETY: live places and handles.
    unsafe {
        let places_out = places.as_mut_ptr();
        ok(gds_tensors_load(
            things.tensors,
            null(),
            0,
            0,
            places_out,
            &raw mut loaded,
        ));
        let show = |index: u64, flags, out| {
            let part = whole(index);
            let offset = places[index as usize].offset;
            gds_tensors_dlpack(things.tensors, &raw const part, loaded, offset, flags, out)
        };
        ok(show(0, GDS_DLPACK_READ_ONLY, &raw mut w));
        assert_eq!(
            show(2, 0, &raw mut q),
            GDS_STATUS_NOT_SUPPORTED,
            "an odd last dimension"
        );
        ok(show(2, GDS_DLPACK_BYTES, &raw mut q));
        ok(show(3, 0, &raw mut n));
        assert_eq!(show(0, 4, &raw mut n), GDS_STATUS_INVALID_ARGUMENT);
        let shape = [200u64];
        let mut out = null_mut();
        let far = gds_buffer_dlpack(loaded, 990, 2, shape.as_ptr(), 1, 0, &raw mut out);
        assert_eq!(far, GDS_STATUS_OUT_OF_RANGE);
        let kind = gds_buffer_dlpack(loaded, 0, 1012, shape.as_ptr(), 1, 0, &raw mut out);
        assert_eq!(kind, GDS_STATUS_NOT_SUPPORTED);
        let kind = gds_buffer_dlpack(loaded, 0, 999, shape.as_ptr(), 1, 0, &raw mut out);
        assert_eq!(kind, GDS_STATUS_INVALID_ARGUMENT);
        buffer::gds_buffer_free(loaded);
    }
    let data = things.data.clone();
    drop(things);
    // SAFETY: managed tensors keep their memory.
    unsafe {
        let tensor = (*w).tensor;
        assert_eq!(((*w).version_major, (*w).flags, tensor.ndim), (1, 1, 2));
        assert_eq!(
            (tensor.code, tensor.bits, tensor.lanes, tensor.device_type),
            (2, 32, 1, 1)
        );
        assert_eq!(std::slice::from_raw_parts(tensor.shape, 2), [6, 4]);
        assert_eq!(std::slice::from_raw_parts(tensor.strides, 2), [4, 1]);
        assert_eq!(
            std::slice::from_raw_parts(tensor.data.cast::<u8>(), 96),
            &data[..96]
        );
        let bytes = (*q).tensor;
        assert_eq!(
            std::slice::from_raw_parts(bytes.data.cast::<u8>(), 3),
            &data[102..]
        );
        assert!((*n).tensor.data.is_null());
        assert_eq!(std::slice::from_raw_parts((*n).tensor.shape, 2), [0, 7]);
    }
    let all = [w as usize, q as usize, n as usize];
    let threads = all.map(|tensor| {
        std::thread::spawn(move || {
            let tensor = tensor as *mut gds_dlpack_t;
            // SAFETY: each is given back once.
            unsafe { (*tensor).deleter.expect("a deleter")(tensor.cast::<c_void>()) };
        })
    });
    for thread in threads {
        thread.join().expect("given back");
    }
}

/// Every function, with its first handle NULL, closed, and of another type.
#[test]
fn handles_that_are_none_are_answered() {
    let things = Things::new();
    let (buffer, _) = things.buffer(4096);
    let mut closed_plan = null_mut();
    let mut closed = null_mut();
    // SAFETY: live places and handles; the others are what is tested.
    unsafe {
        ok(gds_tensors_plan(
            things.tensors,
            null(),
            0,
            0,
            null_mut(),
            &raw mut closed_plan,
        ));
        gds_plan_destroy(closed_plan);
        gds_plan_destroy(closed_plan);
        gds_plan_destroy(null_mut());
        ok(gds_tensors_open(things.file, &raw mut closed));
        gds_tensors_close(closed);
        gds_tensors_close(closed);
        gds_tensors_close(null_mut());
        let plans = [null_mut(), closed_plan, things.tensors.cast()];
        let tensors = [null_mut(), closed, buffer.cast()];
        for (index, (plan, tensors)) in plans.into_iter().zip(tensors).enumerate() {
            let wanted = match index {
                0 => GDS_STATUS_INVALID_ARGUMENT,
                _ => GDS_STATUS_INVALID_HANDLE,
            };
            let (mut n, mut out, mut made) = (0u64, null_mut(), null_mut());
            let (mut key, mut value, mut shown) = (null(), null(), null_mut());
            let mut plan_info = fresh!(gds_plan_info_t);
            let mut info = fresh!(gds_tensors_info_t);
            let mut tensor = fresh!(gds_tensor_info_t);
            let mut piece: gds_piece_t = zeroed();
            let part: gds_tensor_part_t = zeroed();
            let (n_out, out_out) = (&raw mut n, &raw mut out);
            let name = c"w".as_ptr();
            let answers = [
                gds_plan_info(plan, &raw mut plan_info),
                gds_plan_pieces(plan, 0, 1, &raw mut piece, n_out),
                gds_plan_read(plan, buffer, 0, null(), null_mut()),
                gds_plan_start(plan, buffer, 0, null(), out_out),
                gds_plan_read_async(plan, buffer, 0, null_mut(), out_out),
                gds_plan_stream(plan, 1 << 20, Some(take), null_mut(), n_out),
                gds_tensors_info(tensors, &raw mut info),
                gds_tensors_get(tensors, 0, &raw mut tensor),
                gds_tensors_find(tensors, name, n_out),
                gds_tensors_metadata(tensors, 0, &raw mut key, &raw mut value),
                gds_tensors_plan(tensors, null(), 0, 0, null_mut(), &raw mut made),
                gds_tensors_load(tensors, null(), 0, 0, null_mut(), (&raw mut made).cast()),
                gds_tensors_dlpack(tensors, &raw const part, buffer, 0, 0, &raw mut shown),
            ];
            assert!(
                answers.iter().all(|answer| *answer == wanted),
                "{index}: {answers:?}"
            );
            assert!(n == 0 && out.is_null() && made.is_null() && shown.is_null());
        }
        // Places that are none, in front of everything that is written.
        let argument = GDS_STATUS_INVALID_ARGUMENT;
        assert_eq!(gds_format_detect(things.file, null_mut()), argument);
        assert_eq!(gds_tensors_open(things.file, null_mut()), argument);
        assert_eq!(gds_tensors_open_files(null(), 0, null_mut()), argument);
        let mut made = null_mut();
        assert_eq!(gds_tensors_open_files(null(), 0, &raw mut made), argument);
        assert_eq!(
            gds_tensors_find(things.tensors, c"w".as_ptr(), null_mut()),
            argument
        );
        assert_eq!(gds_plan_create(null(), 1, null_mut()), argument);
        let mut short = fresh!(gds_tensors_info_t);
        short.struct_size = 7;
        assert_eq!(
            gds_tensors_info(things.tensors, &raw mut short),
            GDS_STATUS_STRUCT_SIZE
        );
        buffer::gds_buffer_free(buffer);
    }
}
