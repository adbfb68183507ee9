//! Arrays for kernels through the C interface, over disks that fail and threads that die: what a
//! program of C is told, and that nothing hangs. c_examples/array_misuse.cpp has the rest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod array_support;
mod common;
#[path = "common/deadly.rs"]
mod deadly;

use core::ffi::CStr;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use array_support::kernel;
use common::{Folder, context_over, small_config};
use deadly::{Deadly, PAGE};
use gds_rs::ffi::array::*;
use gds_rs::ffi::context::{gds_context_close, handle_of};
use gds_rs::ffi::error::{gds_last_error, gds_last_error_message};
use gds_rs::ffi::file::{gds_file_close, gds_file_open};
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::{Io, posix::Posix};

const PAGES: u64 = 40;

type View = gds_array_view_t;

fn ok(status: gds_status_t) {
    // SAFETY: never NULL and NUL-terminated.
    let text = unsafe { CStr::from_ptr(gds_last_error_message()) };
    assert_eq!(status, GDS_STATUS_OK, "{}", text.to_string_lossy());
}

/// What the thread's last error says: its status, errno and offset.
fn last() -> (i32, i32, Option<u64>) {
    // SAFETY: the struct is integers and pointers, filled by the library.
    unsafe {
        let mut info: gds_error_info_t = std::mem::zeroed();
        ok(gds_last_error(&raw mut info, size_of::<gds_error_info_t>()));
        let offset = (info.has_file_offset == 1).then_some(info.file_offset);
        (info.status, info.os_error, offset)
    }
}

/// A writable array of eight frames as a program of C has it.
struct Opened {
    context: *mut gds_context_t,
    file: *mut gds_file_t,
    array: *mut gds_array_t,
}

impl Opened {
    fn new(path: &Path, io: Arc<dyn Io>) -> Self {
        let context = handle_of(&context_over(small_config(), io)).unwrap();
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let (mut file, mut array) = (null_mut(), null_mut());
        let flags = GDS_FILE_READ | GDS_FILE_WRITE;
        // SAFETY: live places and handles, and a struct of integers.
        unsafe {
            ok(gds_file_open(context, path.as_ptr(), flags, &raw mut file));
            let mut config: gds_array_config_t = std::mem::zeroed();
            let size = size_of::<gds_array_config_t>();
            ok(gds_array_config_init((&raw mut config).cast(), size));
            config.device_bytes = 8 * PAGE;
            (config.service_threads, config.slots, config.writable) = (2, 16, 1);
            ok(gds_array_open(file, &raw const config, &raw mut array));
        }
        Self {
            context,
            file,
            array,
        }
    }

    /// Runs a kernel between acquire and release, and gives what the release answered.
    fn used(&self, run: impl FnOnce(*const View)) -> gds_status_t {
        // SAFETY: live places and handles, and a struct of integers.
        unsafe {
            let mut view: View = std::mem::zeroed();
            view.struct_size = size_of::<View>() as u32;
            ok(gds_array_acquire(self.array, &raw mut view));
            run(&raw const view);
            gds_array_release(self.array, null_mut())
        }
    }

    fn load(&self, offset: u64) -> (u8, gds_status_t) {
        let f: unsafe extern "C" fn(*const View, u64, u64, *mut u8) -> i32 = kernel("array_load");
        let mut byte = 0xA5;
        // SAFETY: the view is valid during the use.
        let told = self.used(|view| unsafe {
            f(view, offset, 1, &raw mut byte);
        });
        (byte, told)
    }

    fn store(&self, offset: u64, byte: u8) -> gds_status_t {
        let f: unsafe extern "C" fn(*const View, u64, u64, *const u8) = kernel("array_store");
        // SAFETY: the view is valid during the use.
        self.used(|view| unsafe { f(view, offset, 1, &raw const byte) })
    }

    fn flush(&self) -> (u64, gds_status_t) {
        let mut bytes = u64::MAX;
        // SAFETY: live places and handles.
        let status = unsafe { gds_array_flush(self.array, &raw mut bytes) };
        (bytes, status)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: open handles, closed once.
        unsafe {
            gds_array_close(self.array);
            gds_file_close(self.file);
            gds_context_close(self.context);
        }
    }
}

fn errors_at(page: u64) -> FaultPlan {
    FaultPlan {
        io_error_at: Some(page * PAGE..page * PAGE + 1),
        ..FaultPlan::default()
    }
}

#[test]
fn a_read_error_is_told_by_the_release_and_is_over_with_it() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    let fault = Arc::new(Fault::new(Arc::new(Posix), errors_at(10)));
    let opened = Opened::new(&path, fault.clone());
    assert_eq!(opened.load(10 * PAGE + 5), (0, GDS_STATUS_IO));
    assert_eq!(last(), (GDS_STATUS_IO as i32, libc::EIO, Some(10 * PAGE)));
    let byte = data[(11 * PAGE) as usize];
    assert_eq!(opened.load(11 * PAGE), (byte, GDS_STATUS_OK));
    fault.set_plan(FaultPlan::default());
    let byte = data[(10 * PAGE + 5) as usize];
    assert_eq!(opened.load(10 * PAGE + 5), (byte, GDS_STATUS_OK));
}

#[test]
fn a_write_error_is_told_by_the_flush_and_the_data_is_kept() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    let fault = Arc::new(Fault::new(Arc::new(Posix), FaultPlan::default()));
    let opened = Opened::new(&path, fault.clone());
    let byte = !data[3];
    ok(opened.store(3, byte));
    fault.set_plan(errors_at(0));
    assert_eq!(opened.flush(), (u64::MAX, GDS_STATUS_IO));
    assert_eq!(last(), (GDS_STATUS_IO as i32, libc::EIO, Some(0)));
    // SAFETY: a live handle.
    assert_eq!(unsafe { gds_array_invalidate(opened.array) }, GDS_STATUS_IO);
    assert_eq!(opened.load(3), (byte, GDS_STATUS_OK));
    fault.set_plan(FaultPlan::default());
    assert_eq!(opened.flush(), (PAGE, GDS_STATUS_OK));
    assert_eq!(std::fs::read(&path).unwrap()[3], byte);
}

#[test]
fn a_thread_that_dies_poisons_one_use() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    let io = Arc::new(Deadly::default());
    let opened = Opened::new(&path, io.clone());
    ok(opened.store(3, !data[3]));
    io.page.store(30, Relaxed);
    io.armed.store(true, Relaxed);
    assert_eq!(opened.load(30 * PAGE), (0, GDS_STATUS_POISONED));
    io.armed.store(false, Relaxed);
    let byte = data[(30 * PAGE) as usize];
    assert_eq!(opened.load(30 * PAGE), (byte, GDS_STATUS_OK));
    assert_eq!(opened.load(3), (!data[3], GDS_STATUS_OK));
    // Closed while nobody answers: it ends, and keeps what it has.
    io.page.store(20, Relaxed);
    io.armed.store(true, Relaxed);
    ok(opened.store(PAGE + 1, !data[PAGE as usize + 1]));
    assert_eq!(opened.load(20 * PAGE), (0, GDS_STATUS_POISONED));
    drop(opened);
    let found = std::fs::read(&path).unwrap();
    assert_eq!(found[3], !data[3]);
    assert_eq!(found[PAGE as usize + 1], !data[PAGE as usize + 1]);
}
