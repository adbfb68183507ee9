//! The page cache: pages that stay in device memory while they are used.

use core::ffi::c_void;
use std::time::Duration;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::types::{
    gds_buffer_t, gds_cache_config_t, gds_cache_policy_t as Kind, gds_cache_range_t,
    gds_cache_stats_t, gds_cache_t, gds_context_t, gds_file_t, gds_page_t,
};
use crate::base::limits;
use crate::cache::{Cache, CacheConfig, CacheStats, Page, PolicyKind};
use crate::engine::File;
use crate::error::{Error, ErrorKind};

impl Handle for gds_cache_t {
    type Object = Cache;
    const TAG: u32 = 0x4744_0031;
    const NAME: &'static str = "gds_cache_t";
    const HELD: bool = true;
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_cache_config_t {
    const NAME: &'static str = "gds_cache_config_t";
    fn initial() -> Self {
        let config = CacheConfig::default();
        Self {
            struct_size: 0,
            page_bytes: config.page_size,
            device_bytes: config.device_bytes,
            host_bytes: config.host_bytes,
            file_limit_bytes: config.file_limit_bytes,
            flush_delay_ms: u32::try_from(config.flush_delay.as_millis()).unwrap_or(u32::MAX),
            dirty_percent: config.dirty_percent,
            policy: Kind::GDS_CACHE_POLICY_DUELING as i32,
            reserved: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_cache_stats_t {
    const NAME: &'static str = "gds_cache_stats_t";
    fn initial() -> Self {
        stats_to_c(&CacheStats::default())
    }
}

const _: () = assert!(size_of::<gds_cache_config_t>() == 48);
const _: () = assert!(size_of::<gds_page_t>() == 32 && size_of::<gds_cache_range_t>() == 16);
const _: () = assert!(size_of::<gds_cache_stats_t>() == 168);

/// Fill a cache's configuration with its defaults, as GDS_CACHE_CONFIG_INIT does.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_cache_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_config_init(
    config_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_cache_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_cache_config_t::initial()) }
    })
}

/// Open a page cache. All of its device and pinned memory is taken now.
///
/// It serves the files of its context. Two opens of one file share their pages. Changes that
/// are made to a file past the cache are seen after gds_cache_invalidate() only.
///
/// @param config     NULL: as GDS_CACHE_CONFIG_INIT.
/// @param cache_out  give it to gds_cache_close() once. Keeps the context.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field;
///         GDS_STATUS_OUT_OF_DEVICE_MEMORY; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_open(
    context: *const gds_context_t,
    config: *const gds_cache_config_t,
    cache_out: *mut *mut gds_cache_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(cache_out, "cache_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let config = config_of(&unsafe { convert::read_optional(config)? })?;
        let cache = Cache::open(&context, config)?;
        // SAFETY: checked above.
        unsafe { cache_out.write(handle::open(cache)?) };
        Ok(())
    })
}

/// Close a cache. NULL and closed handles are fine.
///
/// Changed pages are written once more; where that may fail, call gds_cache_flush() before.
/// Release every page before: one that is still held stays valid, and keeps the memory of
/// the cache until the process ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_close(cache: *mut gds_cache_t) {
    guard_void(|| handle::close(cache));
}

/// Hold the page of a file that has the byte at an offset; read it where it is absent.
///
/// A page that is there costs no system call, lock or allocation. An absent one is read and
/// waited for; threads that want the same page wait for that one read. The bytes are in
/// place for every stream when the call returns. Kernels that use the page must be done
/// before it is released.
///
/// @param offset    any byte of the page. Past the end of the file the page has size_bytes
///         0.
/// @param page_out  give it to gds_cache_release() once.
/// @return GDS_STATUS_ALL_PINNED: no page can make room, release some;
///         GDS_STATUS_OUT_OF_RANGE; what gds_read() answers; what went wrong earlier for
///         this file in the background (reads ahead, delayed writes) and was told by no call
///         yet; GDS_STATUS_INVALID_ARGUMENT: NULL, or the file belongs to another context;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_get(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    offset: u64,
    page_out: *mut gds_page_t,
) -> gds_status_t {
    guard(|| {
        let Some(both) = handle::try_borrow_both(cache, file) else {
            return Err(handle::refused_both((cache, "cache"), (file, "file")));
        };
        let (cache, file) = (both.first(), both.second());
        convert::check_pointer(page_out, "page_out")?;
        let Some(page) = cache.hit(file, offset) else {
            // SAFETY: checked above.
            unsafe { page_out.write(bring(cache, file, offset)?) };
            return Ok(());
        };
        // SAFETY: checked above.
        unsafe { page_out.write(page_to_c(page)) };
        Ok(())
    })
}

/// A page that is not there. Apart from the hit, which stays in registers.
#[cold]
#[inline(never)]
fn bring(cache: &Cache, file: &File, offset: u64) -> Outcome<gds_page_t> {
    Ok(page_to_c(cache.get(file, offset)?))
}

/// As gds_cache_get(), for a page that will be overwritten whole: nothing is read, and the
/// page is dirty and as long as a page from the start.
///
/// Until it is overwritten its bytes are undefined, for other holders too. The file grows to
/// the end of the page when it is written.
///
/// @param page_out  give it to gds_cache_release() once.
/// @return as gds_cache_get(), and GDS_STATUS_READ_ONLY.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_get_new(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    offset: u64,
    page_out: *mut gds_page_t,
) -> gds_status_t {
    guard(|| {
        let (cache, file) = (
            handle::borrow(cache, "cache")?,
            handle::borrow(file, "file")?,
        );
        convert::check_pointer(page_out, "page_out")?;
        let page = cache.get_new(&file, offset)?;
        // SAFETY: checked above.
        unsafe { page_out.write(page_to_c(page)) };
        Ok(())
    })
}

/// As gds_cache_get(), but only if the page is there: never reads, never waits.
///
/// @param page_out  address NULL and token 0: it is not there. Else give it to
///                  gds_cache_release() once.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_try_get(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    offset: u64,
    page_out: *mut gds_page_t,
) -> gds_status_t {
    guard(|| {
        let Some(both) = handle::try_borrow_both(cache, file) else {
            return Err(handle::refused_both((cache, "cache"), (file, "file")));
        };
        convert::check_pointer(page_out, "page_out")?;
        let page = both.first().try_get(both.second(), offset);
        // SAFETY: checked above.
        unsafe { page_out.write(page.map_or(NO_PAGE, page_to_c)) };
        Ok(())
    })
}

/// Release a page, from any thread. It may go from now on, and its changes may be written.
///
/// @param page  as a gds_cache_get*() filled it; set to "no page". No page is fine.
/// @return GDS_STATUS_INVALID_ARGUMENT: NULL, released before, or of another cache, as far
///         as can be told: while somebody else holds the page it cannot;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_release(
    cache: *const gds_cache_t,
    page: *mut gds_page_t,
) -> gds_status_t {
    guard(|| {
        let Some(cache) = handle::try_borrow(cache) else {
            return Err(handle::refused(cache, "cache"));
        };
        convert::check_pointer(page, "page")?;
        // SAFETY: checked above.
        let held = unsafe { &mut *page };
        if held.token != 0 {
            if !cache.try_release(held.token) {
                // Says why.
                cache.release_token(held.token)?;
            }
            *held = NO_PAGE;
        }
        Ok(())
    })
}

/// Say that the bytes of a page were changed, or will be while it is held.
///
/// They are written when the page is released and due (flush_delay_ms), has to go, or is
/// flushed. Only its size_bytes are written: gds_cache_put() and gds_cache_get_new() extend
/// a file.
///
/// @param page  held.
/// @return GDS_STATUS_READ_ONLY: no open of the file that this page was asked for by may
///         write; GDS_STATUS_INVALID_ARGUMENT: NULL or not held; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_mark_dirty(
    cache: *const gds_cache_t,
    page: *const gds_page_t,
) -> gds_status_t {
    guard(|| {
        let cache = handle::borrow(cache, "cache")?;
        convert::check_pointer(page, "page")?;
        // SAFETY: checked above.
        let token = unsafe { (*page).token };
        Ok(cache.mark_token(token)?)
    })
}

/// Copy bytes of a buffer into the pages of a range of a file, and mark them dirty.
///
/// Pages that are touched in part are read first. The file grows where needed, when the
/// pages are written. The bytes are taken when the call returns; work that is queued on CUDA
/// streams and makes them must be done before.
///
/// @param buffer  device or pinned memory; on a GPU not pageable memory.
/// @return as gds_cache_get(); GDS_STATUS_READ_ONLY; GDS_STATUS_OUT_OF_RANGE: the range
///         passes the buffer's end; GDS_STATUS_INVALID_POINTER: pageable memory;
///         GDS_STATUS_CUDA. Pages before the one that failed are changed.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_put(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
) -> gds_status_t {
    guard(|| {
        let (cache, file) = (
            handle::borrow(cache, "cache")?,
            handle::borrow(file, "file")?,
        );
        let buffer = handle::borrow(buffer, "buffer")?;
        Ok(cache.put(&file, offset, &buffer, buffer_offset, size)?)
    })
}

/// Copy bytes of a file to a buffer through the cache; absent pages are read and kept.
///
/// @param buffer     device or pinned memory; on a GPU not pageable memory.
/// @param bytes_out  bytes that arrived, fewer than size at the end of the file. May be
///         NULL.
/// @return as gds_cache_get(); GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end;
///         GDS_STATUS_INVALID_POINTER: pageable memory; GDS_STATUS_CUDA. The bytes of the
///         buffer are undefined then.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_read(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let (cache, file) = (
            handle::borrow(cache, "cache")?,
            handle::borrow(file, "file")?,
        );
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let bytes = cache.read(&file, offset, &buffer, buffer_offset, size)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Start to read the absent pages of a range, up to the end of the file. Does not wait.
///
/// Takes no page that is held or changed, and at most half of all pages in one call. An
/// error of these reads is answered by the next call for this file.
///
/// @param size       bytes; UINT64_MAX: to the end of the file.
/// @param pages_out  pages that were started. May be NULL.
/// @return GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_IO; what went wrong earlier for this file;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_prefetch(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    offset: u64,
    size: u64,
    pages_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let (cache, file) = (
            handle::borrow(cache, "cache")?,
            handle::borrow(file, "file")?,
        );
        convert::check_optional(pages_out, "pages_out")?;
        let pages = cache.prefetch(&file, offset, size)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(pages_out, pages) };
        Ok(())
    })
}

/// Write the changed pages of a file, or of all, and wait. Not durable before
/// gds_file_sync().
///
/// The pages of a file go in ascending order: 32 side by side, the next after these. A page
/// that is held may be changing: it is written as it is, and again later.
///
/// @param file       NULL: all files.
/// @param bytes_out  bytes written. May be NULL.
/// @return GDS_STATUS_IO, GDS_STATUS_NO_SPACE, what gds_write() answers: the first failure;
///         the data is kept and will be written again. What went wrong earlier for this
///         file; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_flush(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let cache = handle::borrow(cache, "cache")?;
        let file = (!file.is_null()).then(|| handle::borrow(file, "file"));
        let file = file.transpose()?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let bytes = cache.flush(file.as_deref())?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Drop the pages of a range, so that they are read again when they are next asked for.
/// Changed ones are written first.
///
/// @param size       bytes; UINT64_MAX: to the end of the file.
/// @param pages_out  pages that went. May be NULL.
/// @return GDS_STATUS_ALL_PINNED: some are held, all others went; as gds_cache_flush():
///         nothing went.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_invalidate(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    offset: u64,
    size: u64,
    pages_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let (cache, file) = (
            handle::borrow(cache, "cache")?,
            handle::borrow(file, "file")?,
        );
        convert::check_optional(pages_out, "pages_out")?;
        let pages = cache.invalidate(&file, offset, size)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(pages_out, pages) };
        Ok(())
    })
}

/// Read the absent pages of a list of ranges and wait for them, as at the start of a program
/// that saved what gds_cache_hot_ranges() told. Stops before it drops what it has just read.
///
/// @param ranges     at most 1,048,576.
/// @param pages_out  pages that were read. May be NULL.
/// @return as gds_cache_get(); GDS_STATUS_OUT_OF_RANGE also for too many ranges.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_warm(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    ranges: *const gds_cache_range_t,
    count: u64,
    pages_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let (cache, file) = (
            handle::borrow(cache, "cache")?,
            handle::borrow(file, "file")?,
        );
        convert::check_optional(pages_out, "pages_out")?;
        // SAFETY: the caller gives `count` ranges.
        let ranges = unsafe { convert::array(ranges, count, limits::SEGMENTS_MAX, "ranges")? };
        let ranges: Vec<(u64, u64)> = ranges.iter().map(|r| (r.offset, r.size)).collect();
        let pages = cache.warm(&file, &ranges)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(pages_out, pages) };
        Ok(())
    })
}

/// Tell which ranges of a file are in device memory now, in ascending order, adjacent pages
/// joined.
///
/// @param capacity    ranges that `ranges_out` has room for; 0 only counts.
/// @param ranges_out  filled as far as it goes. May be NULL when capacity is 0.
/// @param count_out   ranges that there are, which may be more than capacity.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_hot_ranges(
    cache: *const gds_cache_t,
    file: *const gds_file_t,
    capacity: u64,
    ranges_out: *mut gds_cache_range_t,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let (cache, file) = (
            handle::borrow(cache, "cache")?,
            handle::borrow(file, "file")?,
        );
        convert::check_pointer(count_out, "count_out")?;
        if capacity > 0 {
            convert::check_pointer(ranges_out, "ranges_out")?;
        }
        let ranges = cache.hot_ranges(&file);
        let room = usize::try_from(capacity).unwrap_or(usize::MAX);
        for (index, &(offset, size)) in ranges.iter().take(room).enumerate() {
            // SAFETY: the caller gives room for `capacity` ranges, and `index` is below that.
            unsafe {
                ranges_out
                    .add(index)
                    .write(gds_cache_range_t { offset, size })
            };
        }
        // SAFETY: checked above.
        unsafe { count_out.write(ranges.len() as u64) };
        Ok(())
    })
}

/// Tell what a cache has counted. Looks at every page once: not for hot paths.
///
/// @param stats_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_cache_stats(
    cache: *const gds_cache_t,
    stats_out: *mut gds_cache_stats_t,
) -> gds_status_t {
    guard(|| {
        let cache = handle::borrow(cache, "cache")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(stats_out)? };
        place.write(stats_to_c(&cache.stats()));
        Ok(())
    })
}

const NO_PAGE: gds_page_t = gds_page_t {
    address: std::ptr::null_mut(),
    offset_bytes: 0,
    size_bytes: 0,
    token: 0,
};

#[inline]
pub(crate) fn page_to_c(page: Page) -> gds_page_t {
    gds_page_t {
        address: std::ptr::with_exposed_provenance_mut(page.address() as usize),
        offset_bytes: page.offset(),
        size_bytes: u64::from(page.size()),
        token: page.into_token(),
    }
}

fn policy_of(value: i32) -> Outcome<PolicyKind> {
    const ALL: [(Kind, PolicyKind); 3] = [
        (Kind::GDS_CACHE_POLICY_DUELING, PolicyKind::Dueling),
        (Kind::GDS_CACHE_POLICY_CLOCK, PolicyKind::Clock),
        (Kind::GDS_CACHE_POLICY_LRU, PolicyKind::Lru),
    ];
    let found = ALL.iter().find(|(number, _)| *number as i32 == value);
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let text = format!("policy is {value}; it must be a gds_cache_policy_t, 0 to 2");
        Error::new(ErrorKind::InvalidConfig, text).into()
    })
}

fn config_of(given: &gds_cache_config_t) -> Outcome<CacheConfig> {
    let standard = CacheConfig::default();
    if given.reserved != 0 {
        let text = format!("reserved is {}; it must be 0", given.reserved);
        return Err(Failure::from(Error::new(ErrorKind::InvalidConfig, text)));
    }
    let delay = Duration::from_millis(u64::from(given.flush_delay_ms));
    let config = CacheConfig {
        page_size: or(given.page_bytes, standard.page_size),
        device_bytes: or(given.device_bytes, standard.device_bytes),
        host_bytes: given.host_bytes,
        policy: policy_of(given.policy)?,
        file_limit_bytes: given.file_limit_bytes,
        flush_delay: or(delay, standard.flush_delay),
        dirty_percent: or(given.dirty_percent, standard.dirty_percent),
    };
    Ok(config)
}

/// 0 stands for the standard value.
fn or<T: Default + PartialEq>(given: T, standard: T) -> T {
    if given == T::default() {
        standard
    } else {
        given
    }
}

fn stats_to_c(stats: &CacheStats) -> gds_cache_stats_t {
    gds_cache_stats_t {
        struct_size: 0,
        reserved: 0,
        hits: stats.hits,
        misses: stats.misses,
        waits: stats.waits,
        evictions: stats.evictions,
        dirty_evictions: stats.dirty_evictions,
        write_backs: stats.write_backs,
        bytes_written: stats.bytes_written,
        prefetched: stats.prefetched,
        prefetch_hits: stats.prefetch_hits,
        prefetch_wasted: stats.prefetch_wasted,
        all_pinned: stats.all_pinned,
        host_hits: stats.host_hits,
        host_demotions: stats.host_demotions,
        read_errors: stats.read_errors,
        write_errors: stats.write_errors,
        frames: stats.frames,
        resident: stats.resident,
        pinned: stats.pinned,
        dirty: stats.dirty,
        host_pages: stats.host_pages,
    }
}
