//! Tensors of safetensors and GGUF files.

use core::ffi::{CStr, c_char};

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::format::format_to_c;
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::transfer::options_of;
use super::types::{
    GDS_ALIGN_MIRROR, GDS_PART_RANGE, GDS_PART_SHARE, GDS_PART_WHOLE, gds_buffer_t, gds_file_t,
    gds_options_t, gds_plan_t, gds_tensor_info_t, gds_tensor_part_t, gds_tensor_place_t,
    gds_tensor_target_t, gds_tensors_info_t, gds_tensors_t,
};
use crate::base::limits;
use crate::engine::MemoryKind;
use crate::error::{Error, ErrorKind};
use crate::formats::tensor::{Cut, Dtype, Layout, Placed, Selection, Tensors};
use crate::formats::{Load, ReadOptions};

/// A text with a NUL behind it.
type Text = Box<[u8]>;

/// Tensors, and their texts in the form that C reads.
#[derive(Debug)]
pub(crate) struct TensorsObject {
    pub(crate) tensors: Tensors,
    /// A name each.
    names: Vec<Text>,
    /// Keys and values.
    metadata: Vec<(Text, Text)>,
}

impl TensorsObject {
    fn new(tensors: Tensors) -> Self {
        let all = tensors.tensors().iter();
        let metadata = tensors.metadata().iter();
        Self {
            names: all.map(|t| with_nul(&t.name)).collect(),
            metadata: metadata.map(|(k, v)| (with_nul(k), with_nul(v))).collect(),
            tensors,
        }
    }
}

impl Handle for gds_tensors_t {
    type Object = TensorsObject;
    const TAG: u32 = 0x4744_0051;
    const NAME: &'static str = "gds_tensors_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_tensors_info_t {
    const NAME: &'static str = "gds_tensors_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            format: 0,
            tensors: 0,
            metadata: 0,
            files: 0,
            bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers.
unsafe impl AbiStruct for gds_tensor_info_t {
    const NAME: &'static str = "gds_tensor_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            dtype: 0,
            name: std::ptr::null(),
            name_bytes: 0,
            dtype_name: std::ptr::null(),
            shape: std::ptr::null(),
            dimensions: 0,
            block_elements: 0,
            block_bytes: 0,
            file: 0,
            file_offset: 0,
            size_bytes: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_tensors_info_t>() == 40);
const _: () = assert!(size_of::<gds_tensor_info_t>() == 72);
const _: () = assert!(size_of::<gds_tensor_part_t>() == 32);
const _: () = assert!(size_of::<gds_tensor_place_t>() == 32);
const _: () = assert!(size_of::<gds_tensor_target_t>() == 48);

/// Read the metadata of a safetensors or GGUF file, told by its contents. Of a
/// model.safetensors.index.json, that of all files it names, which lie beside it.
///
/// @param tensors_out  give it to gds_tensors_close() once. Keeps the files.
/// @return GDS_STATUS_CORRUPTED: a rule of the format is broken, gds_last_error() has the
///         offset; GDS_STATUS_NOT_SUPPORTED: another format, or newer than this library;
///         GDS_STATUS_NOT_FOUND: a file that the index names; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_open(
    file: *const gds_file_t,
    tensors_out: *mut *mut gds_tensors_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        convert::check_pointer(tensors_out, "tensors_out")?;
        let object = TensorsObject::new(Tensors::open(&file)?);
        // SAFETY: checked above.
        unsafe { tensors_out.write(handle::open(object)?) };
        Ok(())
    })
}

/// Read the metadata of safetensors files that are one model together.
///
/// @param files        1 to 4,096, of one context; the array is used during the call only.
/// @param tensors_out  give it to gds_tensors_close() once. Keeps the files.
/// @return as gds_tensors_open(); GDS_STATUS_CORRUPTED also for a tensor that two files
///         have.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_open_files(
    files: *const *const gds_file_t,
    count: u64,
    tensors_out: *mut *mut gds_tensors_t,
) -> gds_status_t {
    guard(|| {
        convert::check_pointer(tensors_out, "tensors_out")?;
        let most = limits::MODEL_FILES_MAX as u64;
        // SAFETY: the caller gives `count` handles.
        let handles = unsafe { convert::array(files, count, most, "files")? };
        let mut files = Vec::with_capacity(handles.len());
        for (index, file) in handles.iter().enumerate() {
            files.push(handle::borrow(*file, format_args!("files[{index}]"))?.clone());
        }
        let object = TensorsObject::new(Tensors::open_files(&files)?);
        // SAFETY: checked above.
        unsafe { tensors_out.write(handle::open(object)?) };
        Ok(())
    })
}

/// Give tensors back. NULL and closed handles are fine. Plans made of them stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_close(tensors: *mut gds_tensors_t) {
    guard_void(|| handle::close(tensors));
}

/// Tell how many tensors there are, and more of the whole.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_info(
    tensors: *const gds_tensors_t,
    info_out: *mut gds_tensors_info_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        let all = object.tensors.tensors();
        place.write(gds_tensors_info_t {
            format: format_to_c(object.tensors.format()) as i32,
            tensors: all.len() as u64,
            metadata: object.metadata.len() as u64,
            files: object.tensors.files().len() as u64,
            bytes: all.iter().map(|t| t.size).sum(),
            ..gds_tensors_info_t::initial()
        });
        Ok(())
    })
}

/// Tell what is known of one tensor. They are numbered file after file, in the order of each
/// file.
///
/// @param index     from 0.
/// @param info_out  struct_size set. Its pointers are valid until gds_tensors_close().
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_get(
    tensors: *const gds_tensors_t,
    index: u64,
    info_out: *mut gds_tensor_info_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        place.write(info_to_c(&object, index)?);
        Ok(())
    })
}

/// Find a tensor by its name.
///
/// @param name       NUL-terminated.
/// @param index_out  its number, from 0.
/// @return GDS_STATUS_NOT_FOUND: the message has names that are alike;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_find(
    tensors: *const gds_tensors_t,
    name: *const c_char,
    index_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        convert::check_pointer(index_out, "index_out")?;
        // SAFETY: the caller gives a NUL-terminated text.
        let name = unsafe { text(name, "name")? };
        let index = object.tensors.index_of(&name)?;
        // SAFETY: checked above.
        unsafe { index_out.write(index as u64) };
        Ok(())
    })
}

/// Tell a key and its value of what the files say of themselves. Values of GGUF are given as
/// text, lists as JSON.
///
/// @param index      from 0.
/// @param key_out    valid until gds_tensors_close().
/// @param value_out  valid until gds_tensors_close().
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_metadata(
    tensors: *const gds_tensors_t,
    index: u64,
    key_out: *mut *const c_char,
    value_out: *mut *const c_char,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        convert::check_pointer(key_out, "key_out")?;
        convert::check_pointer(value_out, "value_out")?;
        let found = usize::try_from(index)
            .ok()
            .and_then(|i| object.metadata.get(i));
        let (key, value) = found.ok_or_else(|| fewer(index, object.metadata.len(), "keys"))?;
        // SAFETY: checked above.
        unsafe {
            key_out.write(key.as_ptr().cast());
            value_out.write(value.as_ptr().cast());
        }
        Ok(())
    })
}

/// Plan tensors, or parts of them, into one destination, in the order in which they are
/// given.
///
/// @param parts       which ones. NULL with count 0: all of them, whole.
/// @param count       up to 16,777,216.
/// @param align       each begins at a multiple of it, a power of two up to 2 MiB; 0 picks
///                    256. GDS_ALIGN_MIRROR: with the distances of the file, at the rest by
///                    4096 that their file offset leaves, so that nothing is moved.
/// @param places_out  where each stands: `count` of them, or, with count 0, as many as there
///                    are tensors. May be NULL.
/// @param plan_out    give it to gds_plan_destroy() once. Keeps the files.
/// @return GDS_STATUS_OUT_OF_RANGE: no such tensor, dimension or element, or more pieces
///         than a plan may have; GDS_STATUS_NOT_SUPPORTED: a part that begins or ends within
///         a block; GDS_STATUS_INVALID_ARGUMENT: also for a mirrored part whose bytes do not
///         stand together; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_plan(
    tensors: *const gds_tensors_t,
    parts: *const gds_tensor_part_t,
    count: u64,
    align: u64,
    places_out: *mut gds_tensor_place_t,
    plan_out: *mut *mut gds_plan_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        convert::check_pointer(plan_out, "plan_out")?;
        convert::check_optional(places_out, "places_out")?;
        // SAFETY: the caller gives `count` parts.
        let (load, placed) = unsafe { plan(&object, parts, count, align)? };
        let handle = handle::open(load)?;
        // SAFETY: the caller gives room for all places, or NULL; the other was checked above.
        unsafe {
            write_places(&object, &placed, places_out);
            plan_out.write(handle);
        }
        Ok(())
    })
}

/// Load tensors, or parts of them, into new memory of the device, and wait.
///
/// As gds_tensors_plan(), gds_buffer_alloc() and gds_plan_read() together.
///
/// @param parts       as for gds_tensors_plan().
/// @param align       as for gds_tensors_plan().
/// @param places_out  as for gds_tensors_plan().
/// @param buffer_out  give it to gds_buffer_free() once.
/// @return as those; GDS_STATUS_INVALID_ARGUMENT also when there are no bytes to load.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_load(
    tensors: *const gds_tensors_t,
    parts: *const gds_tensor_part_t,
    count: u64,
    align: u64,
    places_out: *mut gds_tensor_place_t,
    buffer_out: *mut *mut gds_buffer_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        convert::check_pointer(buffer_out, "buffer_out")?;
        convert::check_optional(places_out, "places_out")?;
        // SAFETY: the caller gives `count` parts.
        let (load, placed) = unsafe { plan(&object, parts, count, align)? };
        let Some((file, _)) = load.parts().first() else {
            return Err(Failure::argument("there are no bytes to load".to_owned()));
        };
        let buffer = file.context().alloc(MemoryKind::Device, load.size())?;
        load.read(&buffer, 0, &ReadOptions::default())?;
        let handle = handle::open(buffer)?;
        // SAFETY: the caller gives room for all places, or NULL; the other was checked above.
        unsafe {
            write_places(&object, &placed, places_out);
            buffer_out.write(handle);
        }
        Ok(())
    })
}

/// Read tensors, or parts of them, into memory of the caller, each to a place of its own,
/// all together, and wait.
///
/// @param targets    what goes where; the places do not overlap. Used during the call only.
/// @param count      up to 16,777,216.
/// @param options    NULL: as the context says. No checksum is computed.
/// @param bytes_out  bytes that arrived. May be NULL.
/// @return as gds_tensors_plan() and gds_plan_read(). After a failure some of the memory may
///         have been written to.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_read(
    tensors: *const gds_tensors_t,
    targets: *const gds_tensor_target_t,
    count: u64,
    options: *const gds_options_t,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let transfer = options_of(&unsafe { convert::read_optional(options)? })?;
        let most = limits::PLAN_PIECES_MAX;
        // SAFETY: the caller gives `count` targets.
        let targets = unsafe { convert::array(targets, count, most, "targets")? };
        let mut wanted = Vec::with_capacity(targets.len());
        for (index, target) in targets.iter().enumerate() {
            let buffer = handle::borrow(target.buffer, format_args!("targets[{index}].buffer"))?;
            let selection = selection_of((index, &target.part))?;
            wanted.push((selection, buffer.clone(), target.offset));
        }
        let options = ReadOptions {
            transfer,
            ..ReadOptions::default()
        };
        let done = object.tensors.read_into(&wanted, &options)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, done.iter().map(|d| d.bytes).sum()) };
        Ok(())
    })
}

/// # Safety
/// A non-NULL `parts` points to `count` parts.
unsafe fn plan(
    object: &TensorsObject,
    parts: *const gds_tensor_part_t,
    count: u64,
    align: u64,
) -> Outcome<(Load, Vec<Placed>)> {
    // SAFETY: the caller's promise.
    let parts = unsafe { convert::array(parts, count, limits::PLAN_PIECES_MAX, "parts")? };
    let layout = match align {
        0 => Layout::default(),
        GDS_ALIGN_MIRROR => Layout::Mirror,
        other => Layout::Packed(other),
    };
    let wanted = match parts.is_empty() {
        true => object.tensors.all(),
        false => parts
            .iter()
            .enumerate()
            .map(selection_of)
            .collect::<Outcome<_>>()?,
    };
    Ok(object.tensors.plan(&wanted, layout)?)
}

pub(super) fn selection_of((index, part): (usize, &gds_tensor_part_t)) -> Outcome<Selection> {
    let dimension = usize::try_from(part.dimension).unwrap_or(usize::MAX);
    let (begin, end) = (part.begin, part.end);
    let plain = part.dimension == 0 && begin == 0 && end == 0;
    let cut = match part.kind {
        GDS_PART_WHOLE if plain => None,
        GDS_PART_WHOLE => {
            let text = format!("parts[{index}] is whole; its other fields must be 0");
            return Err(Failure::argument(text));
        }
        GDS_PART_RANGE => Some(Cut::Range {
            dimension,
            begin,
            end,
        }),
        GDS_PART_SHARE => Some(Cut::Share {
            dimension,
            rank: begin,
            of: end,
        }),
        kind => {
            let text = format!("parts[{index}].kind is {kind}; choose one of GDS_PART_*");
            return Err(Failure::argument(text));
        }
    };
    let tensor = usize::try_from(part.tensor).unwrap_or(usize::MAX);
    Ok(Selection { tensor, cut })
}

/// # Safety
/// A non-NULL `places` has room for all.
unsafe fn write_places(object: &TensorsObject, all: &[Placed], places: *mut gds_tensor_place_t) {
    if places.is_null() {
        return;
    }
    for (index, placed) in all.iter().enumerate() {
        let whole = object
            .tensors
            .tensors()
            .get(placed.tensor)
            .map(|t| &t.shape);
        let mut pairs = placed.shape.iter().zip(whole.into_iter().flatten());
        let cut = pairs.find(|(now, before)| now != before);
        let place = gds_tensor_place_t {
            tensor: placed.tensor as u64,
            offset: placed.offset,
            size_bytes: placed.size,
            cut_elements: cut.map_or(0, |(now, _)| *now),
        };
        // SAFETY: the caller's promise.
        unsafe { places.add(index).write(place) };
    }
}

fn info_to_c(object: &TensorsObject, index: u64) -> Outcome<gds_tensor_info_t> {
    let all = object.tensors.tensors();
    let at = usize::try_from(index).unwrap_or(usize::MAX);
    let (Some(tensor), Some(name)) = (all.get(at), object.names.get(at)) else {
        return Err(fewer(index, all.len(), "tensors"));
    };
    let shape = match tensor.shape.is_empty() {
        true => std::ptr::null(),
        false => tensor.shape.as_ptr(),
    };
    Ok(gds_tensor_info_t {
        dtype: i32::try_from(tensor.dtype.number()).unwrap_or(0),
        name: name.as_ptr().cast(),
        name_bytes: tensor.name.len() as u64,
        dtype_name: dtype_name(tensor.dtype).as_ptr(),
        shape,
        dimensions: tensor.shape.len() as u32,
        block_elements: tensor.dtype.block_elements() as u32,
        block_bytes: tensor.dtype.block_bytes() as u32,
        file: tensor.file as u32,
        file_offset: tensor.file_offset,
        size_bytes: tensor.size,
        ..gds_tensor_info_t::initial()
    })
}

/// The name of a type with its NUL, made once for each.
fn dtype_name(dtype: Dtype) -> &'static CStr {
    use std::ffi::CString;
    use std::sync::OnceLock;
    static NAMES: OnceLock<Vec<(Dtype, CString)>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let all = Dtype::all();
        all.filter_map(|d| Some((d, CString::new(d.name()).ok()?)))
            .collect()
    });
    let found = names.iter().find(|(known, _)| *known == dtype);
    found.map_or(c"", |(_, name)| name.as_c_str())
}

fn fewer(index: u64, count: usize, what: &str) -> Failure {
    let text = format!("number {index} was asked for; there are {count} {what}, from 0");
    Error::new(ErrorKind::OutOfRange, text).into()
}

/// # Safety
/// A non-NULL `pointer` is NUL-terminated, or readable for `TEXT_MAX` bytes.
unsafe fn text(pointer: *const c_char, name: &str) -> Outcome<String> {
    if pointer.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: the caller's promise.
    let size = unsafe { libc::strnlen(pointer, limits::TEXT_MAX) };
    if size == limits::TEXT_MAX {
        let text = format!("{name} has no NUL within {} bytes", limits::TEXT_MAX);
        return Err(Failure::argument(text));
    }
    // SAFETY: the NUL was found above.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    // What is not UTF-8 is no name of a tensor, and is not found.
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn with_nul(text: &str) -> Text {
    [text.as_bytes(), &[0]].concat().into()
}
