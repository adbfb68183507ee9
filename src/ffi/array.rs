//! Arrays: files that kernels read and write in place.

use core::ffi::c_void;
use std::time::Duration;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::types::{
    gds_array_config_t, gds_array_stats_t, gds_array_t, gds_array_view_t, gds_cuda_stream_t,
    gds_file_t,
};
use crate::cache::array::{Array, ArrayConfig, ArrayStats, View};
use crate::engine::Stream;

impl Handle for gds_array_t {
    type Object = Array;
    const TAG: u32 = 0x4744_0030;
    const NAME: &'static str = "gds_array_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_array_config_t {
    const NAME: &'static str = "gds_array_config_t";
    fn initial() -> Self {
        let config = ArrayConfig::default();
        Self {
            struct_size: 0,
            page_bytes: config.page_bytes,
            device_bytes: config.device_bytes,
            service_threads: config.service_threads,
            slots: config.slots,
            wait_ms: u32::try_from(config.wait.as_millis()).unwrap_or(u32::MAX),
            writable: u32::from(config.writable),
            count_hits: u32::from(config.count_hits),
            reserved: 0,
        }
    }
}

// SAFETY: as above.
unsafe impl AbiStruct for gds_array_view_t {
    const NAME: &'static str = "gds_array_view_t";
    fn initial() -> Self {
        // SAFETY: integers only.
        unsafe { core::mem::zeroed() }
    }
}

// SAFETY: as above.
unsafe impl AbiStruct for gds_array_stats_t {
    const NAME: &'static str = "gds_array_stats_t";
    fn initial() -> Self {
        stats_to_c(&ArrayStats::default())
    }
}

const _: () = assert!(size_of::<gds_array_config_t>() == 40);
const _: () = assert!(size_of::<gds_array_view_t>() == 120);
const _: () = assert!(size_of::<gds_array_stats_t>() == 80);

/// Fill an array's configuration with its defaults, as GDS_ARRAY_CONFIG_INIT does.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_array_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_config_init(
    config_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_array_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_array_config_t::initial()) }
    })
}

/// Open a file, as long as it is now, as an array for kernels. Nothing is read yet.
///
/// Keeps the file and its context. Pages that kernels use stay in device memory, up to
/// device_bytes; kernels bring what is missing by themselves, see gds_rs.cuh.
///
/// @param config     struct_size set, or NULL for the defaults.
/// @param array_out  give it to gds_array_close() once.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field; GDS_STATUS_READ_ONLY: the
///         file is not open for what the array needs; GDS_STATUS_OUT_OF_DEVICE_MEMORY;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_OUT_OF_RANGE: too many pages;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_open(
    file: *const gds_file_t,
    config: *const gds_array_config_t,
    array_out: *mut *mut gds_array_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let config = unsafe { convert::read_optional(config)? };
        convert::check_pointer(array_out, "array_out")?;
        let array = Array::open(&file, config_of(&config)?)?;
        // SAFETY: checked above.
        unsafe { array_out.write(handle::open(array)?) };
        Ok(())
    })
}

/// Let kernels use an array: until the matching gds_array_release(), threads of the library
/// look for their requests, which takes processor time.
///
/// @param view_out  struct_size set. Goes to kernels by value; valid until the release.
/// @return what could not be written back after a service thread had died;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_acquire(
    array: *const gds_array_t,
    view_out: *mut gds_array_view_t,
) -> gds_status_t {
    guard(|| {
        let array = handle::borrow(array, "array")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(view_out)? };
        place.write(gds_array_view_t::from(&array.acquire()?));
        Ok(())
    })
}

/// Wait until a stream has done what is in it, end the use of an array, and tell the first
/// thing that went wrong in kernels.
///
/// gds_last_error() has the offset in the file. What kernels wrote is in device memory until
/// it makes room for other pages, or gds_array_flush().
///
/// @param stream  where the kernels run; NULL is the default stream. Ignored on the host
///                device, whose "kernels" must have ended.
/// @return GDS_STATUS_OUT_OF_RANGE: a kernel passed the end of the array;
///         GDS_STATUS_READ_ONLY: it wrote, and the array is not writable;
///         GDS_STATUS_ALL_PINNED: no frame became free for wait_ms; GDS_STATUS_FILE_CHANGED:
///         the file became shorter; GDS_STATUS_POISONED: a thread that serves kernels died,
///         the next gds_array_acquire() starts anew; what a read or write answers;
///         GDS_STATUS_INVALID_ARGUMENT: not acquired; GDS_STATUS_CUDA: the caller's work
///         failed; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_release(
    array: *const gds_array_t,
    stream: gds_cuda_stream_t,
) -> gds_status_t {
    guard(|| {
        let array = handle::borrow(array, "array")?;
        Ok(array.release(Some(Stream(stream.addr())))?)
    })
}

/// Write what kernels have changed to the file, by ascending offset. Between uses only. Not
/// durable before gds_file_sync().
///
/// @param bytes_out  bytes written. May be NULL.
/// @return GDS_STATUS_INVALID_ARGUMENT: acquired; what gds_write() answers: pages that could
///         not be written stay as they are, and the next flush tries again;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_flush(
    array: *const gds_array_t,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let array = handle::borrow(array, "array")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let bytes = array.flush()?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Flush, and forget every page: kernels then read the file anew. Between uses only.
///
/// @return as gds_array_flush().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_invalidate(array: *const gds_array_t) -> gds_status_t {
    guard(|| Ok(handle::borrow(array, "array")?.invalidate()?))
}

/// Tell what an array has done. Exact while no kernel uses it.
///
/// @param stats_out  struct_size set.
/// @return GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_stats(
    array: *const gds_array_t,
    stats_out: *mut gds_array_stats_t,
) -> gds_status_t {
    guard(|| {
        let array = handle::borrow(array, "array")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(stats_out)? };
        place.write(stats_to_c(&array.stats()?));
        Ok(())
    })
}

/// Close an array. NULL and closed handles are fine.
///
/// Kernels that use it must be done. What they changed is written; whether that went well is
/// told by gds_array_flush() before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_array_close(array: *mut gds_array_t) {
    guard_void(|| handle::close(array));
}

fn config_of(given: &gds_array_config_t) -> Outcome<ArrayConfig> {
    if given.reserved != 0 {
        return Err(Failure::argument(format!(
            "reserved is {}; it must be 0",
            given.reserved
        )));
    }
    let plain = ArrayConfig::default();
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    Ok(ArrayConfig {
        page_bytes: or(given.page_bytes, plain.page_bytes),
        device_bytes: match given.device_bytes {
            0 => plain.device_bytes,
            bytes => bytes,
        },
        service_threads: given.service_threads,
        slots: given.slots,
        wait: match given.wait_ms {
            0 => plain.wait,
            ms => Duration::from_millis(u64::from(ms)),
        },
        writable: convert::boolean("writable", given.writable)?,
        count_hits: convert::boolean("count_hits", given.count_hits)?,
    })
}

impl From<&View> for gds_array_view_t {
    fn from(view: &View) -> Self {
        Self {
            struct_size: 0,
            page_shift: view.page_shift,
            size_bytes: view.size_bytes,
            words: view.words,
            owners: view.owners,
            dirty: view.dirty,
            frames: view.frames,
            control: view.control,
            slots: view.slots,
            requests: view.requests,
            completions: view.completions,
            staging: view.staging,
            host: view.host,
            wait_ns: view.wait_ns,
            frame_count: view.frame_count,
            ring_count: view.ring_count,
            ring_shift: view.ring_shift,
            flags: view.flags,
        }
    }
}

fn stats_to_c(stats: &ArrayStats) -> gds_array_stats_t {
    gds_array_stats_t {
        struct_size: 0,
        reserved: 0,
        hits: stats.hits,
        misses: stats.misses,
        waits: stats.waits,
        evictions: stats.evictions,
        write_backs: stats.write_backs,
        frames: stats.frames,
        dirty: stats.dirty,
        table_bytes: stats.table_bytes,
        pinned_bytes: stats.pinned_bytes,
    }
}
