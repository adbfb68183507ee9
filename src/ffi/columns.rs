//! Columns in device memory: what readers of columnar formats give, and where it goes from here.
//!
//! The bodies are in `columns_given`, or `columns_none` in a build without Arrow.

use core::ffi::c_char;

#[cfg(feature = "arrow")]
use super::columns_given as given;
#[cfg(not(feature = "arrow"))]
use super::columns_none as given;
use super::convert::AbiStruct;
use super::guard::{guard, guard_void};
use super::handle;
use super::status::gds_status_t;
use super::types::{
    ArrowArrayStream, ArrowDeviceArray, ArrowDeviceArrayStream, ArrowSchema, gds_column_buffer_t,
    gds_column_t, gds_columns_info_t, gds_columns_t,
};

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_columns_info_t {
    const NAME: &'static str = "gds_columns_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            columns: 0,
            batches: 0,
            rows: 0,
            bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers only.
unsafe impl AbiStruct for gds_column_t {
    const NAME: &'static str = "gds_column_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            buffers: 0,
            children: 0,
            has_dictionary: 0,
            length: 0,
            null_count: 0,
            offset: 0,
            name: c"".as_ptr(),
            format: c"".as_ptr(),
        }
    }
}

const _: () = assert!(size_of::<gds_columns_info_t>() == 32 && size_of::<gds_column_t>() == 56);
const _: () = assert!(size_of::<gds_column_buffer_t>() == 16);
const _: () = assert!(size_of::<ArrowSchema>() == 72 && size_of::<ArrowDeviceArray>() == 128);

/// Tell what columns there are.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_info(
    columns: *const gds_columns_t,
    info_out: *mut gds_columns_info_t,
) -> gds_status_t {
    // SAFETY: the caller gives a struct of struct_size bytes.
    guard(|| unsafe { given::info(columns, info_out) })
}

/// Find a column by its name.
///
/// @param name        NUL-terminated.
/// @param column_out  its number, from 0; the first one where two have the name.
/// @return GDS_STATUS_NOT_FOUND; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_find(
    columns: *const gds_columns_t,
    name: *const c_char,
    column_out: *mut u32,
) -> gds_status_t {
    // SAFETY: the caller gives a text and a place.
    guard(|| unsafe { given::find(columns, name, column_out) })
}

/// Tell of an array: a column of a batch, or a part of one.
///
/// @param batch        from 0.
/// @param path         the number of the column, then numbers of children, or
///                     GDS_COLUMNS_DICTIONARY.
/// @param path_count   at least 1.
/// @param column_out   struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: no such batch, column or child;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_column(
    columns: *const gds_columns_t,
    batch: u64,
    path: *const u32,
    path_count: u64,
    column_out: *mut gds_column_t,
) -> gds_status_t {
    // SAFETY: the caller gives an array of path_count, and a struct of struct_size bytes.
    guard(|| unsafe { given::column(columns, batch, path, path_count, column_out) })
}

/// Tell where a buffer of an array is: a plain pointer, valid until gds_columns_close().
///
/// @param path        as for gds_columns_column().
/// @param buffer      from 0, in the order of the type.
/// @param buffer_out  filled.
/// @return as gds_columns_column().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_buffer(
    columns: *const gds_columns_t,
    batch: u64,
    path: *const u32,
    path_count: u64,
    buffer: u32,
    buffer_out: *mut gds_column_buffer_t,
) -> gds_status_t {
    // SAFETY: the caller gives an array of path_count, and a place.
    guard(|| unsafe { given::buffer(columns, batch, path, path_count, buffer, buffer_out) })
}

/// Export the names and types: a struct of the columns.
///
/// @param schema_out  overwritten; call its release() once.
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a name with a NUL inside, which C cannot
///         hold; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without
///         Arrow; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_schema(
    columns: *const gds_columns_t,
    schema_out: *mut ArrowSchema,
) -> gds_status_t {
    // SAFETY: the caller gives a place.
    guard(|| unsafe { given::schema(columns, schema_out) })
}

/// Export a batch without a copy: a struct array of the columns.
///
/// What it holds stays until its release(), or that of each child that was moved out, from
/// any thread; gds_columns_close() may come before. sync_event is NULL: the bytes are
/// there. On the host device the device is ARROW_DEVICE_CPU, else ARROW_DEVICE_CUDA. The
/// buffer of sizes that a view type ends with is in host memory.
///
/// @param batch      from 0.
/// @param array_out  overwritten; call array.release() once.
/// @return GDS_STATUS_OUT_OF_RANGE: no such batch; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without Arrow;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_export(
    columns: *const gds_columns_t,
    batch: u64,
    array_out: *mut ArrowDeviceArray,
) -> gds_status_t {
    // SAFETY: the caller gives a place.
    guard(|| unsafe { given::export(columns, batch, array_out) })
}

/// Export all batches, one after the other, as a stream of device arrays.
///
/// @param stream_out  overwritten; call its release() once. Used by one thread at a time.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_stream(
    columns: *const gds_columns_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> gds_status_t {
    // SAFETY: the caller gives a place.
    guard(|| unsafe { given::export_stream(columns, stream_out) })
}

/// As gds_columns_stream(), for consumers that know ordinary memory alone. On the
/// host device only.
///
/// @return GDS_STATUS_NOT_SUPPORTED: the columns are in the memory of a device, or a build
///         without Arrow; else as gds_columns_stream().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_host_stream(
    columns: *const gds_columns_t,
    stream_out: *mut ArrowArrayStream,
) -> gds_status_t {
    // SAFETY: the caller gives a place.
    guard(|| unsafe { given::export_host_stream(columns, stream_out) })
}

/// Give the columns back. NULL and closed handles are fine. What was exported stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_columns_close(columns: *mut gds_columns_t) {
    guard_void(|| handle::close(columns));
}
