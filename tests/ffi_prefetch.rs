//! Reading ahead through the C ABI: what works, and what misuse is answered with.

#![allow(clippy::undocumented_unsafe_blocks)]
#![allow(
    clippy::missing_safety_doc,
    reason = "every call below passes what its test means to pass: valid, or wrong on purpose"
)]

mod common;

use core::ffi::c_void;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use common::Folder;
use gds_rs::ffi::cache::{gds_cache_close, gds_cache_open, gds_cache_release};
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::error::gds_last_error_message;
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::prefetch::*;
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;

const PAGE: u64 = 4096;

struct Things {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    cache: *mut gds_cache_t,
}

/// Zeroed, with its struct_size: a configuration that leaves all to the library.
fn zeroed<T>() -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    unsafe {
        let size = u32::try_from(size_of::<T>()).expect("small");
        value.as_mut_ptr().cast::<u32>().write(size);
        value.assume_init()
    }
}

fn no_page() -> gds_page_t {
    gds_page_t {
        address: null_mut(),
        offset_bytes: 0,
        size_bytes: 0,
        token: 0,
    }
}

fn new_config() -> gds_prefetch_config_t {
    let mut config = zeroed::<gds_prefetch_config_t>();
    let size = size_of::<gds_prefetch_config_t>();
    config.slots = 77;
    let place = (&raw mut config).cast::<c_void>();
    assert_eq!(
        unsafe { gds_prefetch_config_init(place, size) },
        GDS_STATUS_OK
    );
    assert_eq!((config.struct_size as usize, config.slots), (size, 0));
    config.distance_bytes = 16 * PAGE;
    config.chunk_bytes = 4 * PAGE;
    config.deadline_ms = 600_000;
    config
}

impl Things {
    fn new(path: &Path) -> Self {
        let mut config = zeroed::<gds_config_t>();
        config.gpu_device = GDS_DEVICE_HOST;
        let mut context = null_mut();
        let opened = unsafe { gds_context_open(&config, &mut context) };
        assert_eq!(opened, GDS_STATUS_OK, "{}", message());
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mut file = null_mut();
        let opened = unsafe { gds_file_open(context, path.as_ptr(), GDS_FILE_READ, &mut file) };
        assert_eq!(opened, GDS_STATUS_OK, "{}", message());
        let mut config = zeroed::<gds_cache_config_t>();
        config.page_bytes = PAGE as u32;
        config.device_bytes = 256 * PAGE;
        let mut cache = null_mut();
        let opened = unsafe { gds_cache_open(context, &config, &mut cache) };
        assert_eq!(opened, GDS_STATUS_OK, "{}", message());
        Self {
            context,
            file,
            cache,
        }
    }

    fn open(&self, config: &gds_prefetch_config_t) -> *mut gds_prefetch_t {
        let mut prefetch = null_mut();
        let opened = unsafe { gds_prefetch_open(self.cache, self.file, config, &mut prefetch) };
        assert_eq!(opened, GDS_STATUS_OK, "{}", message());
        prefetch
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        // Parents first: children hold what they need.
        unsafe {
            gds_context_close(self.context);
            gds_file_close(self.file);
            gds_cache_close(self.cache);
        }
    }
}

fn message() -> String {
    let text = unsafe { CStr::from_ptr(gds_last_error_message()) };
    text.to_string_lossy().into_owned()
}

fn stats(prefetch: *const gds_prefetch_t) -> gds_prefetch_stats_t {
    let mut stats = zeroed::<gds_prefetch_stats_t>();
    let told = unsafe { gds_prefetch_stats(prefetch, &mut stats) };
    assert_eq!(told, GDS_STATUS_OK, "{}", message());
    stats
}

fn settle(prefetch: *const gds_prefetch_t) {
    let end = Instant::now() + Duration::from_secs(60);
    while stats(prefetch).in_flight > 0 || stats(prefetch).queued > 0 {
        assert!(Instant::now() < end, "reads ahead end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads a page by way of the prefetcher and compares it.
fn visit(things: &Things, prefetch: *const gds_prefetch_t, data: &[u8], page: u64) {
    let mut held = no_page();
    unsafe {
        let got = gds_prefetch_get(prefetch, page * PAGE + 5, &mut held);
        assert_eq!(got, GDS_STATUS_OK, "{}", message());
        assert_eq!(held.offset_bytes, page * PAGE);
        let bytes = std::slice::from_raw_parts(held.address.cast::<u8>(), PAGE as usize);
        let at = (page * PAGE) as usize;
        assert!(*bytes == data[at..at + PAGE as usize], "page {page}");
        assert_eq!(gds_cache_release(things.cache, &mut held), GDS_STATUS_OK);
    }
}

#[track_caller]
fn refused(wanted: gds_status_t, got: gds_status_t, part: &str) {
    assert_eq!(got, wanted, "{}", message());
    assert!(message().contains(part), "{}", message());
}

#[test]
fn a_scan_and_a_stride_are_read_ahead_and_counted() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (200 * PAGE) as usize);
    let things = Things::new(&path);
    let prefetch = things.open(&new_config());
    for page in 0..40 {
        visit(&things, prefetch, &data, page);
        settle(prefetch);
    }
    let scan = stats(prefetch);
    assert_eq!(scan.pattern, gds_pattern_t::GDS_PATTERN_SEQUENTIAL as i32);
    assert_eq!((scan.accesses, scan.stride), (40, 0));
    assert_eq!(scan.hits + scan.late + scan.misses, 40);
    assert!(scan.prefetch_hits > 30 && scan.window_bytes == 16 * PAGE);
    assert!(scan.accuracy > 0.5 && scan.prefetched_bytes > 30 * PAGE);
    unsafe { gds_prefetch_close(prefetch) };

    let prefetch = things.open(&new_config());
    for step in 0..20 {
        visit(&things, prefetch, &data, 199 - step * 7);
        settle(prefetch);
    }
    let strided = stats(prefetch);
    assert_eq!(strided.pattern, gds_pattern_t::GDS_PATTERN_STRIDED as i32);
    assert_eq!(strided.stride, -7 * PAGE as i64);
    unsafe { gds_prefetch_close(prefetch) };
}

#[test]
fn a_hint_is_read_and_a_record_counts() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (200 * PAGE) as usize);
    let things = Things::new(&path);
    let mut config = new_config();
    config.predictor = gds_switch_t::GDS_SWITCH_OFF as i32;
    let prefetch = things.open(&config);
    unsafe {
        let hinted = gds_prefetch_hint(prefetch, 50 * PAGE, 8 * PAGE, 1, 0);
        assert_eq!(hinted, GDS_STATUS_OK, "{}", message());
        settle(prefetch);
        assert_eq!(stats(prefetch).prefetched_bytes, 8 * PAGE);
        assert_eq!(stats(prefetch).unused_pages, 8);
        let recorded = gds_prefetch_record(prefetch, 52 * PAGE, 2 * PAGE);
        assert_eq!(recorded, GDS_STATUS_OK, "{}", message());
    }
    let told = stats(prefetch);
    assert_eq!((told.prefetch_hits, told.misses, told.accesses), (2, 0, 1));
    unsafe { gds_prefetch_close(prefetch) };
}

#[test]
fn a_prefetcher_outlives_its_parents() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (200 * PAGE) as usize);
    let things = Things::new(&path);
    let prefetch = things.open(&new_config());
    drop(things);
    unsafe {
        assert_eq!(
            gds_prefetch_hint(prefetch, 0, 100 * PAGE, 1, 0),
            GDS_STATUS_OK
        );
        assert_eq!(gds_prefetch_record(prefetch, 0, 1), GDS_STATUS_OK);
        // Reads are under way, and the last handle goes.
        gds_prefetch_close(prefetch);
    }
}

#[test]
fn null_is_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (200 * PAGE) as usize);
    let things = Things::new(&path);
    let prefetch = things.open(&new_config());
    let (mut other, mut page) = (null_mut(), no_page());
    let calls = unsafe {
        [
            gds_prefetch_config_init(null_mut(), 40),
            gds_prefetch_open(null(), things.file, null(), &mut other),
            gds_prefetch_open(things.cache, null(), null(), &mut other),
            gds_prefetch_open(things.cache, things.file, null(), null_mut()),
            gds_prefetch_record(null(), 0, 1),
            gds_prefetch_get(null(), 0, &mut page),
            gds_prefetch_get(prefetch, 0, null_mut()),
            gds_prefetch_hint(null(), 0, 1, 1, 1),
            gds_prefetch_stats(null(), null_mut()),
            gds_prefetch_stats(prefetch, null_mut()),
        ]
    };
    for (index, status) in calls.iter().enumerate() {
        assert_eq!(*status, GDS_STATUS_INVALID_ARGUMENT, "call {index}");
    }
    assert!(other.is_null() && page.address.is_null());
    unsafe {
        gds_prefetch_close(null_mut());
        gds_prefetch_close(prefetch);
    }
}

#[test]
fn closed_and_mistyped_handles_are_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (200 * PAGE) as usize);
    let things = Things::new(&path);
    let prefetch = things.open(&new_config());
    let mut other = null_mut();
    let mistyped = unsafe { gds_prefetch_record(things.cache.cast(), 0, 1) };
    refused(GDS_STATUS_INVALID_HANDLE, mistyped, "another type");
    let as_cache = prefetch.cast::<gds_cache_t>();
    let mistyped = unsafe { gds_prefetch_open(as_cache, things.file, null(), &mut other) };
    refused(GDS_STATUS_INVALID_HANDLE, mistyped, "another type");
    unsafe {
        gds_prefetch_close(prefetch);
        gds_prefetch_close(prefetch);
    }
    let closed = unsafe { gds_prefetch_hint(prefetch, 0, 1, 1, 1) };
    refused(GDS_STATUS_INVALID_HANDLE, closed, "it was closed");
}

#[test]
fn bad_ranges_settings_and_structs_are_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (200 * PAGE) as usize);
    let things = Things::new(&path);
    let prefetch = things.open(&new_config());
    unsafe {
        let got = gds_prefetch_record(prefetch, u64::MAX, 2);
        refused(GDS_STATUS_OUT_OF_RANGE, got, "largest offset");
        let got = gds_prefetch_hint(prefetch, 1 << 62, 1 << 62, 1, 1);
        refused(GDS_STATUS_OUT_OF_RANGE, got, "largest offset");
        let mut page = no_page();
        let got = gds_prefetch_get(prefetch, u64::MAX, &mut page);
        refused(GDS_STATUS_OUT_OF_RANGE, got, "offset");
        assert_eq!(
            gds_prefetch_hint(prefetch, 1 << 40, 1, 1, u64::MAX),
            GDS_STATUS_OK
        );
        gds_prefetch_close(prefetch);
    }
    let mut other = null_mut();
    let mut open = |config: gds_prefetch_config_t| unsafe {
        gds_prefetch_open(things.cache, things.file, &config, &mut other)
    };
    let mut config = new_config();
    config.slots = 5000;
    refused(
        GDS_STATUS_INVALID_CONFIG,
        open(config),
        "slots of a prefetcher is 5000",
    );
    config = new_config();
    config.chunk_bytes = PAGE + 1;
    refused(GDS_STATUS_INVALID_CONFIG, open(config), "chunk_bytes");
    config = new_config();
    config.predictor = 9;
    refused(GDS_STATUS_INVALID_ARGUMENT, open(config), "predictor is 9");
    config = new_config();
    config.reserved = 1;
    refused(GDS_STATUS_INVALID_ARGUMENT, open(config), "reserved");
    config = new_config();
    config.struct_size = 20;
    refused(GDS_STATUS_STRUCT_SIZE, open(config), "struct_size");
    // An older caller's struct ends earlier.
    config.struct_size = 8;
    assert_eq!(open(config), GDS_STATUS_OK, "{}", message());
    unsafe { gds_prefetch_close(other) };
}
