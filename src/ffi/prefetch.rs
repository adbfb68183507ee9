//! Reading ahead: pages of a file in a cache before they are wanted.

use core::ffi::c_void;
use std::time::Duration;

use super::cache::page_to_c;
use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::types::{
    gds_cache_t, gds_file_t, gds_page_t, gds_pattern_t, gds_prefetch_config_t,
    gds_prefetch_stats_t, gds_prefetch_t, gds_switch_t,
};
use crate::prefetch::{Pattern, PrefetchConfig, PrefetchStats, Prefetcher};

impl Handle for gds_prefetch_t {
    type Object = Prefetcher;
    const TAG: u32 = 0x4744_0022;
    const NAME: &'static str = "gds_prefetch_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_prefetch_config_t {
    const NAME: &'static str = "gds_prefetch_config_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            slots: 0,
            distance_bytes: 0,
            chunk_bytes: 0,
            deadline_ms: 0,
            predictor: gds_switch_t::GDS_SWITCH_DEFAULT as i32,
            reserved: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, numbers only.
unsafe impl AbiStruct for gds_prefetch_stats_t {
    const NAME: &'static str = "gds_prefetch_stats_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            pattern: gds_pattern_t::GDS_PATTERN_UNKNOWN as i32,
            stride: 0,
            accesses: 0,
            hits: 0,
            prefetch_hits: 0,
            late: 0,
            misses: 0,
            prefetched_bytes: 0,
            wasted_bytes: 0,
            dropped: 0,
            refused: 0,
            window_bytes: 0,
            queued: 0,
            unused_pages: 0,
            accuracy: 0.0,
            predictor_accuracy: 0.0,
            predictor_on: 0,
            in_flight: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_prefetch_config_t>() == 40);
const _: () = assert!(size_of::<gds_prefetch_stats_t>() == 136);

/// Fill a prefetcher's configuration with its defaults, as GDS_PREFETCH_CONFIG_INIT does.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_prefetch_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_prefetch_config_init(
    config_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_prefetch_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_prefetch_config_t::initial()) }
    })
}

/// Read pages of a file ahead of the program's accesses. Starts one thread, which sleeps
/// when there is nothing to read.
///
/// The accesses are those that gds_prefetch_get() and gds_prefetch_record() tell it of. What
/// was read ahead and not used yet takes at most an eighth of the cache. Any thread.
///
/// @param file          of the context of the cache.
/// @param config        NULL: GDS_PREFETCH_CONFIG_INIT.
/// @param prefetch_out  give it to gds_prefetch_close() once. Keeps the cache and the file.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field and the rule;
///         GDS_STATUS_OUT_OF_HOST_MEMORY: no thread can be started; GDS_STATUS_IO;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_prefetch_open(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    config: *const gds_prefetch_config_t,
    prefetch_out: *mut *mut gds_prefetch_t,
) -> gds_status_t {
    guard(|| {
        let cache = handle::borrow(cache, "cache")?;
        let file = handle::borrow(file, "file")?;
        convert::check_pointer(prefetch_out, "prefetch_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let config = config_of(&unsafe { convert::read_optional(config)? })?;
        let prefetch = Prefetcher::open(&cache, &file, config)?;
        // SAFETY: checked above.
        unsafe { prefetch_out.write(handle::open(prefetch)?) };
        Ok(())
    })
}

/// Close a prefetcher. NULL and closed handles are fine. Its thread ends; reads that are
/// under way end by themselves, and their pages stay in the cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_prefetch_close(prefetch: *mut gds_prefetch_t) {
    guard_void(|| handle::close(prefetch));
}

/// Tell of an access, and have what is likely to come next read ahead. Never waits for
/// storage.
///
/// For programs that take their pages from the cache by themselves; gds_prefetch_get() does
/// it on the way.
///
/// @return GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_prefetch_record(
    prefetch: *const gds_prefetch_t,
    offset: u64,
    size: u64,
) -> gds_status_t {
    guard(|| {
        let prefetch = handle::borrow(prefetch, "prefetch")?;
        convert::check_range("offset", offset, size)?;
        prefetch.record(offset, size);
        Ok(())
    })
}

/// Tell of an access of a page, and hold the page as gds_cache_get() does.
///
/// @param offset    any byte of the page.
/// @param page_out  give it to gds_cache_release() of the cache once.
/// @return as gds_cache_get(), and what went wrong with an earlier read ahead, once.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_prefetch_get(
    prefetch: *const gds_prefetch_t,
    offset: u64,
    page_out: *mut gds_page_t,
) -> gds_status_t {
    guard(|| {
        let prefetch = handle::borrow(prefetch, "prefetch")?;
        convert::check_pointer(page_out, "page_out")?;
        let page = prefetch.get(offset)?;
        // SAFETY: checked above.
        unsafe { page_out.write(page_to_c(page)) };
        Ok(())
    })
}

/// Ask for a range to be read ahead. Returns at once; what is in the cache is not read
/// again.
///
/// Requests begin by priority, the highest first, then by deadline, then by age. What has
/// not begun at its deadline is dropped and counted; so is a request that finds 1024
/// waiting.
///
/// @param priority     predictions of the library have 10 to 100.
/// @param deadline_ms  from now, milliseconds; 0 picks that of the configuration.
/// @return GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED. What reading says is told by the
///         next call that waits for pages of this file.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_prefetch_hint(
    prefetch: *const gds_prefetch_t,
    offset: u64,
    size: u64,
    priority: u32,
    deadline_ms: u64,
) -> gds_status_t {
    guard(|| {
        let prefetch = handle::borrow(prefetch, "prefetch")?;
        convert::check_range("offset", offset, size)?;
        let deadline = (deadline_ms > 0).then(|| Duration::from_millis(deadline_ms));
        Ok(prefetch.hint(offset, size, priority, deadline)?)
    })
}

/// Tell what was read ahead and what for.
///
/// @param stats_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_prefetch_stats(
    prefetch: *const gds_prefetch_t,
    stats_out: *mut gds_prefetch_stats_t,
) -> gds_status_t {
    guard(|| {
        let prefetch = handle::borrow(prefetch, "prefetch")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(stats_out)? };
        place.write(stats_to_c(&prefetch.stats()));
        Ok(())
    })
}

fn config_of(given: &gds_prefetch_config_t) -> Outcome<PrefetchConfig> {
    const ON: i32 = gds_switch_t::GDS_SWITCH_ON as i32;
    const OFF: i32 = gds_switch_t::GDS_SWITCH_OFF as i32;
    let wrong = |rule: String| Err(Failure::argument(rule));
    if given.reserved != 0 {
        let value = given.reserved;
        return wrong(format!(
            "reserved of gds_prefetch_config_t is {value}; it must be 0"
        ));
    }
    let predictor = match given.predictor {
        0 | ON => true,
        OFF => false,
        value => return wrong(format!("predictor is {value}; it must be a gds_switch_t")),
    };
    Ok(PrefetchConfig {
        slots: given.slots,
        distance_bytes: given.distance_bytes,
        chunk_bytes: given.chunk_bytes,
        deadline: Duration::from_millis(given.deadline_ms),
        predictor,
    })
}

fn stats_to_c(stats: &PrefetchStats) -> gds_prefetch_stats_t {
    let (pattern, stride) = match stats.pattern {
        Pattern::Unknown => (gds_pattern_t::GDS_PATTERN_UNKNOWN, 0),
        Pattern::Sequential => (gds_pattern_t::GDS_PATTERN_SEQUENTIAL, 0),
        Pattern::Strided { stride } => (gds_pattern_t::GDS_PATTERN_STRIDED, stride),
        Pattern::Random => (gds_pattern_t::GDS_PATTERN_RANDOM, 0),
    };
    gds_prefetch_stats_t {
        struct_size: 0,
        pattern: pattern as i32,
        stride,
        accesses: stats.accesses,
        hits: stats.hits,
        prefetch_hits: stats.prefetch_hits,
        late: stats.late,
        misses: stats.misses,
        prefetched_bytes: stats.prefetched_bytes,
        wasted_bytes: stats.wasted_bytes,
        dropped: stats.dropped,
        refused: stats.refused,
        window_bytes: stats.window_bytes,
        queued: stats.queued,
        unused_pages: stats.unused_pages,
        accuracy: stats.accuracy,
        predictor_accuracy: stats.predictor_accuracy,
        predictor_on: u32::from(stats.predictor_on),
        in_flight: stats.in_flight,
    }
}
