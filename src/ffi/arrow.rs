//! Arrow IPC files, streams and pipes: chosen columns of chosen batches into device memory.
//!
//! The bodies are in `arrow_given`, or `arrow_none` in a build without Arrow.

use core::ffi::{c_char, c_void};
use std::ptr;

#[cfg(feature = "arrow")]
use super::arrow_given as given;
#[cfg(not(feature = "arrow"))]
use super::arrow_none as given;
use super::convert::{self, AbiStruct};
use super::guard::{guard, guard_void};
use super::handle;
use super::status::gds_status_t;
use super::types::{
    ArrowArrayStream, ArrowDeviceArrayStream, ArrowSchema, gds_arrow_batch_t, gds_arrow_info_t,
    gds_arrow_selection_t, gds_arrow_t, gds_buffer_t, gds_columns_t, gds_context_t, gds_file_t,
    gds_plan_t,
};

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_arrow_info_t {
    const NAME: &'static str = "gds_arrow_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            form: 0,
            version: 0,
            columns: 0,
            batches: 0,
            dictionaries: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_arrow_batch_t {
    const NAME: &'static str = "gds_arrow_batch_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            codec: 0,
            rows: 0,
            file_offset: 0,
            body_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers only.
unsafe impl AbiStruct for gds_arrow_selection_t {
    const NAME: &'static str = "gds_arrow_selection_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            validate: 0,
            columns: ptr::null(),
            column_count: 0,
            first_batch: 0,
            batch_count: 0,
            ahead: 0,
            reserved: 0,
            options: ptr::null(),
        }
    }
}

const _: () = assert!(size_of::<gds_arrow_info_t>() == 32 && size_of::<gds_arrow_batch_t>() == 32);
const _: () = assert!(size_of::<gds_arrow_selection_t>() == 56);

/// Fill a selection, as GDS_ARROW_SELECTION_INIT does: all columns of all batches.
///
/// @param selection_out  filled as far as `size` goes, struct_size included.
/// @param size           sizeof(gds_arrow_selection_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: selection_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_selection_init(
    selection_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = selection_out.cast::<gds_arrow_selection_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_arrow_selection_t::initial()) }
    })
}

/// Open an Arrow IPC file or stream; which of the two, its content says. Reads metadata
/// only, and no body.
///
/// @param arrow_out  give it to gds_arrow_close() once. Keeps the file.
/// @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_NOT_SUPPORTED:
///         big-endian values, metadata before version 4, a build without Arrow;
///         GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_open(
    file: *const gds_file_t,
    arrow_out: *mut *mut gds_arrow_t,
) -> gds_status_t {
    // SAFETY: the caller gives a place.
    guard(|| unsafe { given::open(file, arrow_out) })
}

/// Tell what a file or stream holds.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_NOT_SUPPORTED: a build without Arrow; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_info(
    arrow: *const gds_arrow_t,
    info_out: *mut gds_arrow_info_t,
) -> gds_status_t {
    // SAFETY: the caller gives a struct of struct_size bytes.
    guard(|| unsafe { given::info(arrow, info_out) })
}

/// Tell what the metadata says of a batch. Reads it.
///
/// @param batch      from 0.
/// @param batch_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: no such batch; GDS_STATUS_CORRUPTED; GDS_STATUS_IO;
///         else as gds_arrow_info().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_batch(
    arrow: *const gds_arrow_t,
    batch: u64,
    batch_out: *mut gds_arrow_batch_t,
) -> gds_status_t {
    // SAFETY: the caller gives a struct of struct_size bytes.
    guard(|| unsafe { given::batch(arrow, batch, batch_out) })
}

/// Tell the name of a column. Valid until gds_arrow_close().
///
/// @param column    from 0.
/// @param name_out  NUL-terminated.
/// @param size_out  bytes, without the NUL. May be NULL.
/// @return GDS_STATUS_OUT_OF_RANGE: no such column; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without Arrow;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_column_name(
    arrow: *const gds_arrow_t,
    column: u64,
    name_out: *mut *const c_char,
    size_out: *mut u64,
) -> gds_status_t {
    // SAFETY: the caller gives places.
    guard(|| unsafe { given::column_name(arrow, column, name_out, size_out) })
}

/// Export the names and types of all columns: a struct of them.
///
/// @param schema_out  overwritten; call its release() once.
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a name with a NUL inside, which C cannot
///         hold; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without
///         Arrow; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_schema(
    arrow: *const gds_arrow_t,
    schema_out: *mut ArrowSchema,
) -> gds_status_t {
    // SAFETY: the caller gives a place.
    guard(|| unsafe { given::schema(arrow, schema_out) })
}

/// Load chosen columns of chosen batches into device memory, and wait.
///
/// Only their buffers are read. What is not compressed goes from the file to its place
/// without another copy. Neighbouring batches share allocations of up to 256 MiB; one is
/// freed when the columns and all arrays exported from its batches are released.
///
/// @param selection    NULL: everything.
/// @param columns_out  give it to gds_columns_close() once.
/// @return GDS_STATUS_NOT_FOUND: no column of that name; GDS_STATUS_OUT_OF_RANGE: no such
///         batch; GDS_STATUS_CORRUPTED: gds_last_error() has the offset;
///         GDS_STATUS_NOT_SUPPORTED: unions with nulls of their own, of Arrow before 1.0,
///         or a build without Arrow; GDS_STATUS_OUT_OF_DEVICE_MEMORY;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_FILE_CHANGED; GDS_STATUS_IO;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_load(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    columns_out: *mut *mut gds_columns_t,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::load(arrow, selection, columns_out) })
}

/// The first of two steps: which ranges of the file a batch needs, to be read into the
/// caller's memory.
///
/// Read it by gds_plan_read() and its like to a place of size_out bytes, then call
/// gds_arrow_columns() for that place. A plan without pieces needs no reading. What is
/// compressed is not in the plan, but has its part of the size.
///
/// @param selection  NULL: all columns. first_batch and batch_count must be 0.
/// @param batch      from 0.
/// @param plan_out   give it to gds_plan_destroy() once.
/// @param size_out   bytes of the place, at least 64.
/// @return as gds_arrow_load().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_plan(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    batch: u64,
    plan_out: *mut *mut gds_plan_t,
    size_out: *mut u64,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and places.
    guard(|| unsafe { given::plan(arrow, selection, batch, plan_out, size_out) })
}

/// The second of two steps: the columns of a batch whose plan was read.
///
/// What is compressed is decoded to its place; dictionaries are loaded into memory of their
/// own. Waits; the reading must be done before.
///
/// @param selection      as for gds_arrow_plan(), with the same columns.
/// @param batch          that of the plan.
/// @param buffer         device memory of the file's context. Kept by the columns.
/// @param buffer_offset  where the plan was read to; the address there is a multiple of 64.
/// @param columns_out    give it to gds_columns_close() once.
/// @return GDS_STATUS_OUT_OF_RANGE: it does not fit; GDS_STATUS_INVALID_ARGUMENT: not
///         aligned; else as gds_arrow_load().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_columns(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    batch: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    columns_out: *mut *mut gds_columns_t,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::columns(arrow, selection, batch, buffer, buffer_offset, columns_out) })
}

/// As gds_arrow_load(), batch after batch as they are asked for: for what is larger than
/// memory. Nothing has been read when this returns.
///
/// @param stream_out  overwritten; call its release() once. Used by one thread at a time.
///                    get_next() answers an errno: EINVAL for a damaged file, ENOMEM, ...
/// @return as gds_arrow_load().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_stream(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::stream(arrow, selection, stream_out) })
}

/// As gds_arrow_stream(), for consumers that know ordinary memory alone. On the host device
/// only.
///
/// @return GDS_STATUS_NOT_SUPPORTED: the context is on a GPU; else as gds_arrow_load().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_host_stream(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    stream_out: *mut ArrowArrayStream,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::host_stream(arrow, selection, stream_out) })
}

/// Read an Arrow IPC stream out of a pipe, socket or terminal, once, front to back.
///
/// Batches go to the device as they come, one in memory at a time. get_next() waits for the
/// pipe.
///
/// @param fd          duplicated: the caller keeps its own.
/// @param selection   NULL: everything. first_batch, batch_count, ahead and options must be
///                    0 and NULL.
/// @param stream_out  overwritten; call its release() once. Used by one thread at a time.
/// @return GDS_STATUS_NOT_FOUND: no column of that name; GDS_STATUS_CORRUPTED: no Arrow
///         stream; GDS_STATUS_NOT_SUPPORTED; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_stream_fd(
    context: *const gds_context_t,
    fd: i32,
    selection: *const gds_arrow_selection_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::stream_fd(context, fd, selection, stream_out) })
}

/// Close a reader. NULL and closed handles are fine. What was loaded stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_arrow_close(arrow: *mut gds_arrow_t) {
    guard_void(|| handle::close(arrow));
}
