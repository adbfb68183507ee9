//! Parquet files: chosen columns of chosen rows, decoded into device memory.
//!
//! The bodies are in `parquet_given`, or `parquet_none` in a build without Parquet.

use core::ffi::{c_char, c_void};
use std::ptr;

use super::convert::{self, AbiStruct};
use super::guard::{guard, guard_void};
use super::handle;
#[cfg(feature = "parquet")]
use super::parquet_given as given;
#[cfg(not(feature = "parquet"))]
use super::parquet_none as given;
use super::status::gds_status_t;
use super::types::{
    ArrowArrayStream, ArrowDeviceArrayStream, ArrowSchema, gds_columns_t, gds_file_t,
    gds_parquet_chunk_t, gds_parquet_column_t, gds_parquet_condition_t, gds_parquet_info_t,
    gds_parquet_key_t, gds_parquet_keys_t, gds_parquet_outline_t, gds_parquet_row_group_t,
    gds_parquet_rows_t, gds_parquet_selection_t, gds_parquet_t,
};

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers only.
unsafe impl AbiStruct for gds_parquet_keys_t {
    const NAME: &'static str = "gds_parquet_keys_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            footer_key: ptr::null(),
            footer_key_bytes: 0,
            keys: ptr::null(),
            key_count: 0,
            aad_prefix: ptr::null(),
            aad_prefix_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers only.
unsafe impl AbiStruct for gds_parquet_info_t {
    const NAME: &'static str = "gds_parquet_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            columns: 0,
            rows: 0,
            row_groups: 0,
            footer_bytes: 0,
            key_values: 0,
            version: 0,
            is_footer_encrypted: 0,
            created_by: c"".as_ptr(),
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers only.
unsafe impl AbiStruct for gds_parquet_column_t {
    const NAME: &'static str = "gds_parquet_column_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            type_length: 0,
            root: 0,
            max_definition: 0,
            max_repetition: 0,
            reserved: 0,
            name: c"".as_ptr(),
            physical: c"".as_ptr(),
            logical: c"".as_ptr(),
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_parquet_row_group_t {
    const NAME: &'static str = "gds_parquet_row_group_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            rows: 0,
            first_row: 0,
            bytes: 0,
            compressed_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers only.
unsafe impl AbiStruct for gds_parquet_chunk_t {
    const NAME: &'static str = "gds_parquet_chunk_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            flags: 0,
            file_offset: 0,
            compressed_bytes: 0,
            bytes: 0,
            values: 0,
            nulls: u64::MAX,
            distinct: u64::MAX,
            codec: c"".as_ptr(),
            encodings: c"".as_ptr(),
            min: ptr::null(),
            max: ptr::null(),
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers only.
unsafe impl AbiStruct for gds_parquet_selection_t {
    const NAME: &'static str = "gds_parquet_selection_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            columns: ptr::null(),
            column_count: 0,
            row_groups: ptr::null(),
            row_group_count: 0,
            rows: ptr::null(),
            row_range_count: 0,
            conditions: ptr::null(),
            condition_count: 0,
            memory_limit: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_parquet_outline_t {
    const NAME: &'static str = "gds_parquet_outline_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            rows: 0,
            row_groups: 0,
            read_bytes: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_parquet_keys_t>() == 56);
const _: () = assert!(size_of::<gds_parquet_key_t>() == 40);
const _: () = assert!(size_of::<gds_parquet_info_t>() == 56);
const _: () = assert!(size_of::<gds_parquet_column_t>() == 48);
const _: () = assert!(size_of::<gds_parquet_row_group_t>() == 40);
const _: () = assert!(size_of::<gds_parquet_chunk_t>() == 88);
const _: () = assert!(size_of::<gds_parquet_selection_t>() == 80);
const _: () = assert!(size_of::<gds_parquet_condition_t>() == 48);
const _: () = assert!(size_of::<gds_parquet_rows_t>() == 16);
const _: () = assert!(size_of::<gds_parquet_outline_t>() == 32);

/// Fill a selection, as GDS_PARQUET_SELECTION_INIT does: all columns of all rows.
///
/// @param selection_out  filled as far as `size` goes, struct_size included.
/// @param size           sizeof(gds_parquet_selection_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: selection_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_selection_init(
    selection_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = selection_out.cast::<gds_parquet_selection_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_parquet_selection_t::initial()) }
    })
}

/// Open a Parquet file. Reads its footer, and nothing else.
///
/// @param keys         NULL for a file that is not encrypted. Copied.
/// @param parquet_out  give it to gds_parquet_close() once. Keeps the file.
/// @return GDS_STATUS_CORRUPTED: no Parquet file, a damaged one, or keys that do not open
///         it; gds_last_error() has the offset; GDS_STATUS_INVALID_ARGUMENT: also for an
///         encrypted footer without a key; GDS_STATUS_NOT_SUPPORTED: a build without
///         Parquet; GDS_STATUS_IO; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_open(
    file: *const gds_file_t,
    keys: *const gds_parquet_keys_t,
    parquet_out: *mut *mut gds_parquet_t,
) -> gds_status_t {
    // SAFETY: the caller gives keys or NULL, and a place.
    guard(|| unsafe { given::open(file, keys, parquet_out) })
}

/// Tell what a file says of itself.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_NOT_SUPPORTED: a build without Parquet; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_info(
    parquet: *const gds_parquet_t,
    info_out: *mut gds_parquet_info_t,
) -> gds_status_t {
    // SAFETY: the caller gives a struct of struct_size bytes.
    guard(|| unsafe { given::info(parquet, info_out) })
}

/// Tell a pair of texts that the writer added. Valid until gds_parquet_close().
///
/// @param index      from 0.
/// @param key_out    NUL-terminated.
/// @param value_out  NUL-terminated, or NULL when the pair has no value.
/// @return GDS_STATUS_OUT_OF_RANGE: no such pair; else as gds_parquet_info().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_key_value(
    parquet: *const gds_parquet_t,
    index: u64,
    key_out: *mut *const c_char,
    value_out: *mut *const c_char,
) -> gds_status_t {
    // SAFETY: the caller gives places.
    guard(|| unsafe { given::key_value(parquet, index, key_out, value_out) })
}

/// Tell of a column of the schema.
///
/// @param column      from 0: columns that hold values, in the order of the schema.
/// @param column_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: no such column; else as gds_parquet_info().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_column(
    parquet: *const gds_parquet_t,
    column: u64,
    column_out: *mut gds_parquet_column_t,
) -> gds_status_t {
    // SAFETY: the caller gives a struct of struct_size bytes.
    guard(|| unsafe { given::column(parquet, column, column_out) })
}

/// Tell of a row group.
///
/// @param row_group      from 0.
/// @param row_group_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: no such row group; else as gds_parquet_info().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_row_group(
    parquet: *const gds_parquet_t,
    row_group: u64,
    row_group_out: *mut gds_parquet_row_group_t,
) -> gds_status_t {
    // SAFETY: the caller gives a struct of struct_size bytes.
    guard(|| unsafe { given::row_group(parquet, row_group, row_group_out) })
}

/// Tell of a column of a row group.
///
/// @param row_group  from 0.
/// @param column     as for gds_parquet_column().
/// @param chunk_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: no such row group or column; else as
///         gds_parquet_info().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_chunk(
    parquet: *const gds_parquet_t,
    row_group: u64,
    column: u64,
    chunk_out: *mut gds_parquet_chunk_t,
) -> gds_status_t {
    // SAFETY: the caller gives a struct of struct_size bytes.
    guard(|| unsafe { given::chunk(parquet, row_group, column, chunk_out) })
}

/// Export the names and Arrow types of all top-level columns: a struct of them.
///
/// @param schema_out  overwritten; call its release() once.
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a name with a NUL inside, which C cannot
///         hold; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_NOT_SUPPORTED: a build without
///         Parquet; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_schema(
    parquet: *const gds_parquet_t,
    schema_out: *mut ArrowSchema,
) -> gds_status_t {
    // SAFETY: the caller gives a place.
    guard(|| unsafe { given::schema(parquet, schema_out) })
}

/// Tell what a selection leaves, and what loading it would read. Reads page indexes and
/// bloom filters when the selection has rows or conditions.
///
/// @param selection    NULL: everything.
/// @param outline_out  struct_size set.
/// @return as gds_parquet_load().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_outline(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    outline_out: *mut gds_parquet_outline_t,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a struct of struct_size bytes.
    guard(|| unsafe { given::outline(parquet, selection, outline_out) })
}

/// Load chosen columns of chosen rows into device memory, decoded, and wait.
///
/// Only their pages are read. The columns have one batch. Pages with a wrong CRC are
/// GDS_STATUS_CORRUPTED. Strings have offsets of 32 bits; a column of more than 2 GiB has
/// offsets of 64.
///
/// @param selection    NULL: everything.
/// @param columns_out  give it to gds_columns_close() once.
/// @return GDS_STATUS_NOT_FOUND: no column of that name; GDS_STATUS_OUT_OF_RANGE: no such
///         row or row group; GDS_STATUS_CORRUPTED: gds_last_error() has the offset of the
///         page or column chunk; GDS_STATUS_INVALID_ARGUMENT: also for a column whose key
///         is missing; GDS_STATUS_OUT_OF_HOST_MEMORY: decoding takes more than
///         memory_limit; GDS_STATUS_OUT_OF_DEVICE_MEMORY: also when texts take more;
///         GDS_STATUS_NOT_SUPPORTED: what the format has and no reader knows, or a build
///         without Parquet; GDS_STATUS_FILE_CHANGED; GDS_STATUS_IO;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_load(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    columns_out: *mut *mut gds_columns_t,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::load(parquet, selection, columns_out) })
}

/// As gds_parquet_load(), row group after row group as they are asked for: for what is
/// larger than memory. No page has been read when this returns.
///
/// @param stream_out  overwritten; call its release() once. Used by one thread at a time.
///                    get_next() answers an errno: EINVAL for a damaged file, ENOMEM, ...
/// @return as gds_parquet_load().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_stream(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::stream(parquet, selection, stream_out) })
}

/// As gds_parquet_stream(), for consumers that know ordinary memory alone. On the host
/// device only.
///
/// @return GDS_STATUS_NOT_SUPPORTED: the context is on a GPU; else as gds_parquet_load().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_host_stream(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    stream_out: *mut ArrowArrayStream,
) -> gds_status_t {
    // SAFETY: the caller gives a selection or NULL, and a place.
    guard(|| unsafe { given::host_stream(parquet, selection, stream_out) })
}

/// Close a reader. NULL and closed handles are fine. What was loaded stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_parquet_close(parquet: *mut gds_parquet_t) {
    guard_void(|| handle::close(parquet));
}
