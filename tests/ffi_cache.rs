//! A page cache through the C interface, over a disk that fails: what went wrong in the background
//! is told by the next call for that file and by no other, and changed data is kept.

#[path = "common/cache.rs"]
mod cached;
mod common;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;

use cached::{PAGE, faulty, until};
use common::{Folder, context_over, small_config};
use gds_rs::ffi::cache::*;
use gds_rs::ffi::context::{gds_context_close, handle_of};
use gds_rs::ffi::error::gds_last_error;
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;
use gds_rs::io::fault::{Fault, FaultPlan};

struct Opened {
    context: *mut gds_context_t,
    files: [*mut gds_file_t; 2],
    cache: *mut gds_cache_t,
    fault: Arc<Fault>,
}

impl Opened {
    /// Two files, and sixteen pages that are written back after 20 ms.
    fn new(paths: [&Path; 2]) -> Self {
        let (context, fault) = faulty(FaultPlan::default());
        let context = handle_of(&context).expect("a handle");
        let files = paths.map(|path| {
            let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
            let mut file = null_mut();
            let flags = GDS_FILE_READ | GDS_FILE_WRITE;
            // SAFETY: live places and handles.
            ok(unsafe { gds_file_open(context, path.as_ptr(), flags, &raw mut file) });
            file
        });
        let mut cache = null_mut();
        // SAFETY: live places and handles, and a struct of integers.
        unsafe {
            let mut config: gds_cache_config_t = std::mem::zeroed();
            let size = size_of::<gds_cache_config_t>();
            ok(gds_cache_config_init((&raw mut config).cast(), size));
            config.page_bytes = PAGE as u32;
            config.device_bytes = 16 * PAGE;
            config.flush_delay_ms = 20;
            ok(gds_cache_open(context, &raw const config, &raw mut cache));
        }
        Self {
            context,
            files,
            cache,
            fault,
        }
    }

    fn fails_at(&self, page: u64) {
        self.fault.set_plan(FaultPlan {
            io_error_at: Some(page * PAGE..(page + 1) * PAGE),
            ..FaultPlan::default()
        });
    }

    fn get(&self, file: usize, page: u64) -> (gds_status_t, gds_page_t) {
        // SAFETY: live places and handles, and a struct of integers and a pointer.
        unsafe {
            let mut held: gds_page_t = std::mem::zeroed();
            let file = self.files[file];
            let status = gds_cache_get(self.cache, file, page * PAGE, &raw mut held);
            (status, held)
        }
    }

    fn release(&self, mut page: gds_page_t) {
        // SAFETY: live handles.
        ok(unsafe { gds_cache_release(self.cache, &raw mut page) });
    }

    /// Asks for a resident page of the first file until something is told: its errno.
    fn told(&self) -> i32 {
        let mut errno = 0;
        until("the next call for the file tells", || {
            let (status, page) = self.get(0, 0);
            if status == GDS_STATUS_OK {
                self.release(page);
                return false;
            }
            assert_eq!(status, GDS_STATUS_IO);
            // SAFETY: the struct is integers and pointers, filled by the library.
            unsafe {
                let mut info: gds_error_info_t = std::mem::zeroed();
                let size = size_of::<gds_error_info_t>();
                ok(gds_last_error(&raw mut info, size));
                errno = info.os_error;
            }
            true
        });
        errno
    }

    fn stats(&self) -> gds_cache_stats_t {
        // SAFETY: live places and handles, and a struct of integers.
        unsafe {
            let mut stats: gds_cache_stats_t = std::mem::zeroed();
            stats.struct_size = size_of::<gds_cache_stats_t>() as u32;
            ok(gds_cache_stats(self.cache, &raw mut stats));
            stats
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: open handles, closed once.
        unsafe {
            gds_cache_close(self.cache);
            for file in self.files {
                gds_file_close(file);
            }
            gds_context_close(self.context);
        }
    }
}

fn ok(status: gds_status_t) {
    assert_eq!(status, GDS_STATUS_OK);
}

#[test]
fn a_failed_prefetch_is_told_by_the_next_call_for_that_file() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 8 * PAGE as usize);
    let (other, _) = folder.file("b", PAGE as usize);
    let opened = Opened::new([&path, &other]);
    let (status, page) = opened.get(0, 0);
    ok(status);
    opened.release(page);
    opened.fails_at(5);
    let mut pages = 0;
    // SAFETY: live places and handles.
    ok(unsafe {
        let file = opened.files[0];
        gds_cache_prefetch(opened.cache, file, 4 * PAGE, 3 * PAGE, &raw mut pages)
    });
    assert_eq!(pages, 3);
    until("the read fails", || opened.stats().read_errors > 0);
    let (status, page) = opened.get(1, 0);
    assert_eq!(status, GDS_STATUS_OK, "another file is not concerned");
    opened.release(page);
    assert_eq!(opened.told(), libc::EIO);
    opened.fault.set_plan(FaultPlan::default());
    let (status, page) = opened.get(0, 5);
    ok(status);
    // SAFETY: pages of the host device are ordinary memory, and this one is held.
    let bytes = unsafe { std::slice::from_raw_parts(page.address.cast::<u8>(), PAGE as usize) };
    assert!(bytes == &data[5 * PAGE as usize..6 * PAGE as usize]);
    opened.release(page);
}

#[test]
fn a_failed_write_back_is_told_by_the_next_call_for_that_file_and_the_data_is_kept() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 8 * PAGE as usize);
    let (other, _) = folder.file("b", PAGE as usize);
    let opened = Opened::new([&path, &other]);
    for page in [0, 2] {
        let (status, page) = opened.get(0, page);
        ok(status);
        opened.release(page);
    }
    opened.fails_at(2);
    let (status, page) = opened.get(0, 2);
    ok(status);
    // SAFETY: as above.
    unsafe {
        page.address.cast::<u8>().write_bytes(6, PAGE as usize);
        ok(gds_cache_mark_dirty(opened.cache, &raw const page));
    }
    opened.release(page);
    until("the write fails", || opened.stats().write_errors > 0);
    let (status, page) = opened.get(1, 0);
    assert_eq!(status, GDS_STATUS_OK, "another file is not concerned");
    opened.release(page);
    assert_eq!(opened.told(), libc::EIO);
    assert!(std::fs::read(&path).expect("reads") == data, "not written");
    opened.fault.set_plan(FaultPlan::default());
    data[2 * PAGE as usize..3 * PAGE as usize].fill(6);
    until("it is tried again", || {
        std::fs::read(&path).expect("reads") == data
    });
}
