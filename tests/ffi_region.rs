//! Mapped regions through the C ABI: what works, and what misuse is answered with.

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

use common::Folder;
use gds_rs::ffi::context::{gds_context_close, gds_context_open};
use gds_rs::ffi::error::gds_last_error_message;
use gds_rs::ffi::file::{gds_file_close, gds_file_open, gds_file_set_size};
use gds_rs::ffi::region::*;
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;

struct Things {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    set: *mut gds_region_set_t,
}

fn new_config(limit_bytes: u64) -> gds_region_config_t {
    let mut config = gds_region_config_t {
        struct_size: 0,
        reserved: 0,
        limit_bytes: 0,
    };
    let place = (&raw mut config).cast::<c_void>();
    let size = size_of::<gds_region_config_t>();
    assert_eq!(
        unsafe { gds_region_config_init(place, size) },
        GDS_STATUS_OK
    );
    assert_eq!(config.struct_size as usize, size);
    config.limit_bytes = limit_bytes;
    config
}

impl Things {
    fn new(path: &Path, limit_bytes: u64) -> Self {
        let mut config = unsafe { std::mem::zeroed::<gds_config_t>() };
        config.struct_size = size_of::<gds_config_t>() as u32;
        config.gpu_device = GDS_DEVICE_HOST;
        let mut context = null_mut();
        let opened = unsafe { gds_context_open(&config, &mut context) };
        assert_eq!(opened, GDS_STATUS_OK, "{}", message());
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let flags = GDS_FILE_READ | GDS_FILE_WRITE;
        let mut file = null_mut();
        let opened = unsafe { gds_file_open(context, path.as_ptr(), flags, &mut file) };
        assert_eq!(opened, GDS_STATUS_OK, "{}", message());
        let mut set = null_mut();
        let config = new_config(limit_bytes);
        let opened = unsafe { gds_region_set_open(context, &config, &mut set) };
        assert_eq!(opened, GDS_STATUS_OK, "{}", message());
        Self { context, file, set }
    }

    fn map(&self, offset: u64, size: u64) -> *mut gds_region_t {
        let mut region = null_mut();
        let mapped = unsafe { gds_region_map(self.set, self.file, offset, size, &mut region) };
        assert_eq!(mapped, GDS_STATUS_OK, "{}", message());
        region
    }

    fn stats(&self) -> gds_region_stats_t {
        let mut stats = unsafe { std::mem::zeroed::<gds_region_stats_t>() };
        stats.struct_size = size_of::<gds_region_stats_t>() as u32;
        let told = unsafe { gds_region_set_stats(self.set, &mut stats) };
        assert_eq!(told, GDS_STATUS_OK, "{}", message());
        stats
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        // Parents first: children hold what they need.
        unsafe {
            gds_context_close(self.context);
            gds_file_close(self.file);
            gds_region_set_close(self.set);
        }
    }
}

fn message() -> String {
    let text = unsafe { CStr::from_ptr(gds_last_error_message()) };
    text.to_string_lossy().into_owned()
}

fn info(region: *const gds_region_t) -> gds_region_info_t {
    let mut info = unsafe { std::mem::zeroed::<gds_region_info_t>() };
    info.struct_size = size_of::<gds_region_info_t>() as u32;
    let told = unsafe { gds_region_info(region, &mut info) };
    assert_eq!(told, GDS_STATUS_OK, "{}", message());
    info
}

#[track_caller]
fn refused(wanted: gds_status_t, got: gds_status_t, part: &str) {
    assert_eq!(got, wanted, "{}", message());
    assert!(message().contains(part), "{}", message());
}

#[test]
fn a_region_is_mapped_changed_written_and_let_go_of() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 50_000);
    let things = Things::new(&path, 0);
    let region = things.map(5000, 10_000);
    let told = info(region);
    assert_eq!(
        (told.offset, told.size, told.valid_bytes),
        (5000, 10_000, 10_000)
    );
    assert_eq!((told.aligned_offset, told.aligned_size), (4096, 12_288));
    assert_eq!(told.address - told.aligned_address, 904);
    let mut address = null_mut();
    assert_eq!(
        unsafe { gds_region_address(region, &mut address) },
        GDS_STATUS_OK
    );
    assert_eq!(address.addr() as u64, told.address);
    let memory = unsafe { std::slice::from_raw_parts_mut(address.cast::<u8>(), 10_000) };
    assert!(*memory == data[5000..15_000]);
    memory[..4].copy_from_slice(b"gds!");
    let mut bytes = 0;
    unsafe {
        assert_eq!(gds_region_mark_dirty(region, 0, 4), GDS_STATUS_OK);
        assert_eq!(info(region).dirty_bytes, 4);
        assert_eq!(gds_region_touch(region), GDS_STATUS_OK);
        assert_eq!(gds_region_flush(region, &mut bytes), GDS_STATUS_OK);
        assert_eq!(bytes, 4);
        assert_eq!(gds_region_mark_dirty(region, 10, 10), GDS_STATUS_OK);
        assert_eq!(gds_region_discard(region), GDS_STATUS_OK);
        assert_eq!(
            gds_region_set_flush(things.set, null(), &mut bytes),
            GDS_STATUS_OK
        );
        assert_eq!(bytes, 0);
        assert_eq!(
            gds_region_set_flush(things.set, things.file, null_mut()),
            GDS_STATUS_OK
        );
    }
    assert_eq!(&std::fs::read(&path).expect("read")[5000..5004], b"gds!");
    assert_eq!(things.stats().held_regions, 1);
    unsafe { gds_region_unmap(region) };
    let stats = things.stats();
    assert_eq!(
        (stats.regions, stats.held_regions, stats.bytes_written),
        (1, 0, 4)
    );
}

#[test]
fn the_limit_is_told() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let things = Things::new(&path, 8192);
    let region = things.map(0, 8192);
    let mut other = null_mut();
    let mapped = unsafe { gds_region_map(things.set, things.file, 8192, 1, &mut other) };
    refused(
        GDS_STATUS_OUT_OF_DEVICE_MEMORY,
        mapped,
        "limit of these regions is 8192",
    );
    assert!(other.is_null(), "written only on success");
    unsafe { gds_region_unmap(region) };
    let region = things.map(8192, 1);
    assert_eq!(things.stats().evictions, 1);
    unsafe { gds_region_unmap(region) };
}

#[test]
fn a_region_outlives_its_set_file_and_context() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let things = Things::new(&path, 0);
    let region = things.map(0, 50_000);
    let address = info(region).address as *mut u8;
    drop(things);
    unsafe { address.write(b'L') };
    unsafe {
        assert_eq!(gds_region_mark_dirty(region, 0, 1), GDS_STATUS_OK);
        gds_region_unmap(region);
    }
    assert_eq!(
        std::fs::read(&path).expect("read")[0],
        b'L',
        "written at the end"
    );
}

#[test]
fn null_is_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let things = Things::new(&path, 0);
    let region = things.map(0, 100);
    let (mut set, mut other, mut address) = (null_mut(), null_mut(), null_mut());
    let calls = unsafe {
        [
            gds_region_config_init(null_mut(), 16),
            gds_region_set_open(null(), null(), &mut set),
            gds_region_set_open(things.context, null(), null_mut()),
            gds_region_set_flush(null(), null(), null_mut()),
            gds_region_set_stats(null(), null_mut()),
            gds_region_set_stats(things.set, null_mut()),
            gds_region_map(null(), things.file, 0, 1, &mut other),
            gds_region_map(things.set, null(), 0, 1, &mut other),
            gds_region_map(things.set, things.file, 0, 1, null_mut()),
            gds_region_address(null(), &mut address),
            gds_region_address(region, null_mut()),
            gds_region_info(null(), null_mut()),
            gds_region_info(region, null_mut()),
            gds_region_touch(null()),
            gds_region_mark_dirty(null(), 0, 1),
            gds_region_flush(null(), null_mut()),
            gds_region_discard(null()),
        ]
    };
    for (index, status) in calls.iter().enumerate() {
        assert_eq!(*status, GDS_STATUS_INVALID_ARGUMENT, "call {index}");
    }
    assert!(set.is_null() && other.is_null() && address.is_null());
    unsafe {
        gds_region_unmap(null_mut());
        gds_region_set_close(null_mut());
        gds_region_unmap(region);
    }
}

#[test]
fn closed_and_mistyped_handles_are_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let things = Things::new(&path, 0);
    let region = things.map(0, 100);
    let mut other = null_mut();
    let mistyped = unsafe { gds_region_touch(things.set.cast::<gds_region_t>()) };
    refused(GDS_STATUS_INVALID_HANDLE, mistyped, "another type");
    let as_file = region.cast::<gds_file_t>();
    let mistyped = unsafe { gds_region_map(things.set, as_file, 0, 1, &mut other) };
    refused(GDS_STATUS_INVALID_HANDLE, mistyped, "another type");
    let mistyped = unsafe { gds_region_set_flush(things.set, as_file, null_mut()) };
    refused(GDS_STATUS_INVALID_HANDLE, mistyped, "another type");
    unsafe {
        gds_region_unmap(region);
        gds_region_unmap(region);
    }
    let closed = unsafe { gds_region_mark_dirty(region, 0, 1) };
    refused(GDS_STATUS_INVALID_HANDLE, closed, "it was closed");
    assert_eq!(things.stats().held_regions, 0, "let go of once");
    // A region of another type's handle is left alone by a wrong close.
    let region = things.map(0, 100);
    unsafe { gds_region_set_close(region.cast()) };
    assert_eq!(unsafe { gds_region_touch(region) }, GDS_STATUS_OK);
    unsafe { gds_region_unmap(region) };
}

#[test]
fn bad_sizes_ranges_and_structs_are_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let things = Things::new(&path, 0);
    let mut region = null_mut();
    let mut map = |offset, size| unsafe {
        gds_region_map(things.set, things.file, offset, size, &mut region)
    };
    refused(GDS_STATUS_INVALID_ARGUMENT, map(0, 0), "0 bytes");
    refused(
        GDS_STATUS_OUT_OF_RANGE,
        map(u64::MAX, 1),
        "largest file offset",
    );
    refused(
        GDS_STATUS_OUT_OF_RANGE,
        map(1 << 62, 1 << 62),
        "largest file offset",
    );
    let region = things.map(49_000, 2000);
    assert_eq!(info(region).valid_bytes, 1000);
    let marked = unsafe { gds_region_mark_dirty(region, 0, 1001) };
    refused(GDS_STATUS_OUT_OF_RANGE, marked, "had 1000 bytes");
    let marked = unsafe { gds_region_mark_dirty(region, u64::MAX, u64::MAX) };
    refused(GDS_STATUS_OUT_OF_RANGE, marked, "had 1000 bytes");

    let mut set = null_mut();
    let mut open = |config: gds_region_config_t| unsafe {
        gds_region_set_open(things.context, &config, &mut set)
    };
    refused(
        GDS_STATUS_INVALID_CONFIG,
        open(new_config(1)),
        "limit_bytes is 1",
    );
    let mut config = new_config(0);
    config.reserved = 1;
    refused(GDS_STATUS_INVALID_ARGUMENT, open(config), "reserved");
    config = new_config(0);
    for size in [0, 4, 7, 9, 5000] {
        config.struct_size = size;
        refused(GDS_STATUS_STRUCT_SIZE, open(config), "struct_size");
    }
    // An older caller's struct ends earlier: the rest is what 0 means.
    config.struct_size = 8;
    config.limit_bytes = 1;
    assert_eq!(open(config), GDS_STATUS_OK, "{}", message());
    unsafe { gds_region_set_close(set) };

    let mut told = unsafe { std::mem::zeroed::<gds_region_info_t>() };
    told.struct_size = 12;
    let status = unsafe { gds_region_info(region, &mut told) };
    refused(GDS_STATUS_STRUCT_SIZE, status, "gds_region_info_t");
    told.struct_size = 16;
    assert_eq!(unsafe { gds_region_info(region, &mut told) }, GDS_STATUS_OK);
    assert!(told.address != 0 && told.size == 0, "as much as fits");
    unsafe { gds_region_unmap(region) };
}

#[test]
fn a_file_cut_under_a_region_is_told() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let things = Things::new(&path, 0);
    let region = things.map(0, 50_000);
    let mut bytes = 77;
    unsafe {
        assert_eq!(gds_region_mark_dirty(region, 0, 50_000), GDS_STATUS_OK);
        assert_eq!(gds_file_set_size(things.file, 20_000), GDS_STATUS_OK);
        let flushed = gds_region_flush(region, &mut bytes);
        refused(GDS_STATUS_FILE_CHANGED, flushed, "20000 bytes long");
        assert_eq!(bytes, 77, "written only on success");
        assert_eq!(info(region).dirty_bytes, 30_000);
        assert_eq!(gds_region_discard(region), GDS_STATUS_OK);
        gds_region_unmap(region);
    }
    assert_eq!(std::fs::metadata(&path).expect("there").len(), 20_000);
}
