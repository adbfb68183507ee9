//! Arrays for kernels: the same device code, run by threads of the processor over arrays of the
//! host device, against the library's real service threads and real files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod array_support;
mod common;
#[path = "common/deadly.rs"]
mod deadly;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use array_support::kernel;
use common::{Folder, context, context_over, open, open_to_write, small_config};
use deadly::{Deadly, PAGE};
use gds_rs::cache::array::{Array, ArrayConfig, ask};
use gds_rs::engine::File;
use gds_rs::error::{Error, ErrorKind};
use gds_rs::ffi::types::gds_array_view_t;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;

const SEED: u64 = 0x5EED;

type View = gds_array_view_t;

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn numbers(count: u64) -> Vec<u8> {
    (0..count)
        .flat_map(|i| mix(i ^ SEED).to_le_bytes())
        .collect()
}

fn small(frames: u64) -> ArrayConfig {
    ArrayConfig {
        device_bytes: frames * PAGE,
        service_threads: 2,
        slots: 16,
        wait: Duration::from_secs(20),
        ..ArrayConfig::default()
    }
}

fn writable(frames: u64) -> ArrayConfig {
    ArrayConfig {
        writable: true,
        ..small(frames)
    }
}

/// Runs a kernel in a session, and gives what it answered and what the session told.
fn session<R>(array: &Array, run: impl FnOnce(*const View) -> R) -> (R, Result<(), Error>) {
    let view = View::from(&array.acquire().unwrap());
    let answer = run(&raw const view);
    (answer, array.release(None))
}

fn read_random(array: &Array, threads: u32, reads: u64) -> (u64, Result<(), Error>) {
    let f: unsafe extern "C" fn(*const View, u32, u64, u64) -> u64 = kernel("array_read_random");
    // SAFETY: the view is valid during the session.
    session(array, |view| unsafe { f(view, threads, reads, SEED) })
}

fn sum(array: &Array, threads: u32, pages: i32) -> (u64, Result<(), Error>) {
    let f: unsafe extern "C" fn(*const View, u32, i32) -> u64 = kernel("array_sum");
    // SAFETY: as above.
    session(array, |view| unsafe { f(view, threads, pages) })
}

fn add(array: &Array, delta: u64) -> Result<(), Error> {
    let f: unsafe extern "C" fn(*const View, u32, u64) = kernel("array_add");
    // SAFETY: as above.
    session(array, |view| unsafe { f(view, 4, delta) }).1
}

fn load(array: &Array, offset: u64, size: usize) -> (Vec<u8>, Result<(), Error>) {
    let f: unsafe extern "C" fn(*const View, u64, u64, *mut u8) -> i32 = kernel("array_load");
    let mut to = vec![0xA5; size];
    // SAFETY: as above, and `to` has the bytes.
    let (_, told) = session(array, |view| unsafe {
        f(view, offset, size as u64, to.as_mut_ptr())
    });
    (to, told)
}

fn store(array: &Array, offset: u64, from: &[u8]) -> Result<(), Error> {
    let f: unsafe extern "C" fn(*const View, u64, u64, *const u8) = kernel("array_store");
    // SAFETY: as above.
    session(array, |view| unsafe {
        f(view, offset, from.len() as u64, from.as_ptr());
    })
    .1
}

fn numbers_file(folder: &Folder, pages: u64) -> std::path::PathBuf {
    let path = folder.path("numbers");
    std::fs::write(&path, numbers(pages * PAGE / 8)).unwrap();
    path
}

fn expected_sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes(c.try_into().unwrap()))
        .fold(0, u64::wrapping_add)
}

#[test]
fn a_working_set_of_a_hundred_caches_is_read_right_and_ends() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 800);
    let array = Array::open(&open(&context(), &path), small(8)).unwrap();
    let (wrong, told) = read_random(&array, 24, 400);
    told.unwrap();
    assert_eq!(wrong, 0);
    let stats = array.stats().unwrap();
    assert!(stats.evictions > 5_000, "{stats:?}");
    assert_eq!(stats.evictions + 8, stats.misses, "{stats:?}");
}

#[test]
fn what_fits_is_read_once() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 60);
    let config = ArrayConfig {
        count_hits: true,
        ..small(64)
    };
    let array = Array::open(&open(&context(), &path), config).unwrap();
    for _ in 0..2 {
        let (wrong, told) = read_random(&array, 8, 2_000);
        told.unwrap();
        assert_eq!(wrong, 0);
    }
    let stats = array.stats().unwrap();
    assert_eq!((stats.misses, stats.evictions), (60, 0));
    assert!(stats.hits >= 32_000 - 60 - stats.waits, "{stats:?}");
    array.invalidate().unwrap();
    let (wrong, told) = read_random(&array, 8, 2_000);
    told.unwrap();
    assert_eq!(wrong, 0);
    assert_eq!(array.stats().unwrap().misses, 60, "counters begin anew");
}

#[test]
fn elements_and_warp_pages_give_the_same_sum_with_a_broken_last_page() {
    let folder = Folder::new();
    let bytes = numbers(20 * 512 + 77);
    let path = folder.path("tail");
    // Three bytes are no element.
    std::fs::write(&path, [&bytes[..], &[1, 2, 3]].concat()).unwrap();
    let array = Array::open(&open(&context(), &path), small(6)).unwrap();
    for pages in [0, 1] {
        let (got, told) = sum(&array, 4, pages);
        told.unwrap();
        assert_eq!(got, expected_sum(&bytes));
    }
    assert_eq!(load(&array, array.size() - 3, 3).0, [1, 2, 3]);
}

#[test]
fn writes_reach_the_file_through_eviction_and_flush() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 100);
    let before = std::fs::read(&path).unwrap();
    let file = open_to_write(&context(), &path);
    let array = Array::open(&file, writable(7)).unwrap();
    add(&array, 11).unwrap();
    assert!(array.stats().unwrap().write_backs >= 93);
    let dirty = array.stats().unwrap().dirty;
    assert!(dirty > 0);
    assert_eq!(array.flush().unwrap(), dirty * PAGE);
    assert_eq!(array.flush().unwrap(), 0, "what is written is clean");
    let after = std::fs::read(&path).unwrap();
    for (was, is) in before.chunks_exact(8).zip(after.chunks_exact(8)) {
        let was = u64::from_le_bytes(was.try_into().unwrap());
        assert_eq!(is, was.wrapping_add(11).to_le_bytes());
    }
}

#[test]
fn closing_writes_what_is_dirty_and_the_file_keeps_its_size() {
    let folder = Folder::new();
    let path = folder.path("short");
    std::fs::write(&path, vec![7; 5000]).unwrap();
    let file = open_to_write(&context(), &path);
    let array = Array::open(&file, writable(4)).unwrap();
    store(&array, 4090, b"across the pages").unwrap();
    drop(array);
    let got = std::fs::read(&path).unwrap();
    assert_eq!(got.len(), 5000);
    assert_eq!(&got[4090..4106], b"across the pages");
    assert!(got[..4090].iter().chain(&got[4106..]).all(|b| *b == 7));
}

#[test]
fn an_index_past_the_end_is_told_with_its_offset_and_reads_zero() {
    let folder = Folder::new();
    let path = folder.path("short");
    std::fs::write(&path, vec![7; 5000]).unwrap();
    let array = Array::open(&open(&context(), &path), small(4)).unwrap();
    let (bytes, told) = load(&array, 4998, 4);
    assert_eq!(bytes, [7, 7, 0, 0]);
    let error = told.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    assert_eq!(error.offset(), Some(5000));
    load(&array, 0, 5000).1.expect("an error is told once");
}

#[test]
fn an_array_that_is_not_writable_stays_as_it_is() {
    let folder = Folder::new();
    let path = folder.path("ro");
    std::fs::write(&path, vec![7; 5000]).unwrap();
    let file = open(&context(), &path);
    let refused = Array::open(&file, writable(4)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let array = Array::open(&file, small(4)).unwrap();
    let error = store(&array, 4321, &[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert_eq!(error.offset(), Some(4321));
    assert_eq!(array.flush().unwrap(), 0);
}

#[test]
fn all_frames_pinned_is_an_answer() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 20);
    let config = ArrayConfig {
        wait: Duration::from_millis(30),
        ..small(5)
    };
    let array = Array::open(&open(&context(), &path), config).unwrap();
    let f: unsafe extern "C" fn(*const View, u64) -> u64 = kernel("array_pin_many");
    // SAFETY: the view is valid during the session.
    let (had, told) = session(&array, |view| unsafe { f(view, 7) });
    assert_eq!(had, 5);
    assert_eq!(told.unwrap_err().kind(), ErrorKind::AllPinned);
    let (wrong, told) = read_random(&array, 4, 200);
    told.expect("released pages make room again");
    assert_eq!(wrong, 0);
}

/// A context whose reads or writes at `range` fail while the plan says so.
fn failing(range: std::ops::Range<u64>) -> (gds_rs::engine::Context, Arc<Fault>) {
    let plan = FaultPlan {
        io_error_at: Some(range),
        ..FaultPlan::default()
    };
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    (context_over(small_config(), fault.clone()), fault)
}

#[test]
fn a_read_error_gives_zeros_tells_where_and_is_tried_again() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 40);
    let (context, fault) = failing(10 * PAGE..10 * PAGE + 1);
    let array = Array::open(&open(&context, &path), small(8)).unwrap();
    let (bytes, told) = load(&array, 10 * PAGE - 4, 8);
    let data = std::fs::read(&path).unwrap();
    assert_eq!(bytes[..4], data[10 * 4096 - 4..10 * 4096]);
    assert_eq!(bytes[4..], [0; 4]);
    assert_eq!(told.unwrap_err().errno(), libc::EIO);
    fault.set_plan(FaultPlan::default());
    let (wrong, told) = read_random(&array, 8, 500);
    told.unwrap();
    assert_eq!(wrong, 0, "the page is read once the disk can");
}

#[test]
fn a_write_back_error_keeps_the_data_until_a_flush_succeeds() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 40);
    let (context, fault) = failing(0..PAGE);
    fault.set_plan(FaultPlan::default());
    let array = Array::open(&open_to_write(&context, &path), writable(2)).unwrap();
    store(&array, 8, b"kept").unwrap();
    fault.set_plan(FaultPlan {
        io_error_at: Some(0..PAGE),
        ..FaultPlan::default()
    });
    // The page has to make room, and cannot be written.
    let (_, told) = sum(&array, 1, 0);
    assert_eq!(told.unwrap_err().errno(), libc::EIO);
    assert_eq!(array.flush().unwrap_err().errno(), libc::EIO);
    assert_eq!(array.stats().unwrap().dirty, 1);
    fault.set_plan(FaultPlan::default());
    assert_eq!(array.flush().unwrap(), PAGE);
    assert_eq!(&std::fs::read(&path).unwrap()[8..12], b"kept");
}

#[test]
fn a_file_that_became_shorter_is_told_and_nothing_hangs() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 40);
    let array = Array::open(&open(&context(), &path), small(4)).unwrap();
    let shorter = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    shorter.set_len(20 * PAGE + 100).unwrap();
    let (_, told) = sum(&array, 4, 0);
    let error = told.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileChanged);
    assert!(error.offset().unwrap() >= 20 * PAGE);
    let (bytes, told) = load(&array, 19 * PAGE, 8);
    told.unwrap();
    assert_eq!(bytes, mix((19 * 512) ^ SEED).to_le_bytes());
}

#[test]
fn a_service_thread_that_dies_ends_kernels_and_loses_nothing() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 40);
    let io = Arc::new(Deadly::default());
    let context = context_over(small_config(), io.clone());
    let array = Array::open(&open_to_write(&context, &path), writable(8)).unwrap();
    store(&array, 8, b"kept").unwrap();
    io.page.store(30, Relaxed);
    io.armed.store(true, Relaxed);
    let (_, told) = load(&array, 30 * PAGE, 8);
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Poisoned);
    io.armed.store(false, Relaxed);
    let (bytes, told) = load(&array, 30 * PAGE, 8);
    told.expect("the next session starts new threads");
    assert_eq!(bytes, mix((30 * 512) ^ SEED).to_le_bytes());
    drop(array);
    assert_eq!(&std::fs::read(&path).unwrap()[8..12], b"kept");
}

#[test]
fn pages_that_the_host_asks_for_come_with_their_bytes() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 40);
    let file = open(&context(), &path);
    let right = |page: u64, first: u64| first == mix((page * 512) ^ SEED);
    // More than there are slots, in both rings, and each page more than once.
    let pages: Vec<u64> = (0..1000).map(|i| mix(i) % 40).collect();
    let asked = ask(&file, small(4), &pages, right).unwrap();
    assert_eq!((asked.pages, asked.threads), (1000, 2));
    assert!(asked.seconds > 0.0);
    assert_eq!(ask(&file, small(4), &[], right).unwrap().pages, 0);
    let error = ask(&file, small(4), &pages, |page, first| {
        page != 7 && right(page, first)
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert_eq!(error.offset(), Some(7 * PAGE));
    let error = ask(&file, small(4), &[3, 40], right).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
}

#[test]
fn asking_tells_what_its_service_met() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 40);
    let file = open(&context(), &path);
    let pages: Vec<u64> = (0..40).collect();
    let shorter = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let io = Arc::new(Deadly::default());
    io.page.store(30, Relaxed);
    io.armed.store(true, Relaxed);
    let deadly = open(&context_over(small_config(), io), &path);
    let error = ask(&deadly, small(4), &pages, |_, _| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    let cut = |page: u64, _: u64| {
        // It becomes shorter while pages are on their way.
        page != 0 || shorter.set_len(20 * PAGE).is_ok()
    };
    let many: Vec<u64> = (0..4000).map(|i| if i < 2 { 0 } else { i % 40 }).collect();
    let error = ask(&file, small(4), &many, cut).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileChanged);
}

#[test]
fn sessions_are_counted_and_calls_in_between_are_refused() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 4);
    let array = Array::open(&open(&context(), &path), small(4)).unwrap();
    assert_eq!(
        array.release(None).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    array.acquire().unwrap();
    array.acquire().unwrap();
    array.release(None).unwrap();
    for refused in [array.flush().map(drop), array.invalidate()] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    array.release(None).unwrap();
    array.flush().unwrap();
}

#[test]
fn an_array_that_is_still_acquired_closes_and_writes_what_it_has() {
    let folder = Folder::new();
    let path = numbers_file(&folder, 4);
    let array = Array::open(&open_to_write(&context(), &path), writable(4)).unwrap();
    store(&array, 8, b"kept").unwrap();
    array.acquire().unwrap();
    drop(array);
    assert_eq!(&std::fs::read(&path).unwrap()[8..12], b"kept");
}

fn refused(file: &File, config: ArrayConfig, field: &str) {
    let error = Array::open(file, config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains(field), "{error}");
}

#[test]
fn a_wrong_field_is_named_and_an_empty_file_is_an_empty_array() {
    let folder = Folder::new();
    let path = folder.path("empty");
    std::fs::write(&path, []).unwrap();
    let file = open(&context(), &path);
    let plain = ArrayConfig::default();
    for page_bytes in [0, 2048, 5000, 4 << 20] {
        refused(
            &file,
            ArrayConfig {
                page_bytes,
                ..plain
            },
            "page_bytes",
        );
    }
    let device_bytes = 4095;
    refused(
        &file,
        ArrayConfig {
            device_bytes,
            ..plain
        },
        "device_bytes",
    );
    let service_threads = 17;
    refused(
        &file,
        ArrayConfig {
            service_threads,
            ..plain
        },
        "service_threads",
    );
    refused(
        &file,
        ArrayConfig {
            slots: 65_537,
            ..plain
        },
        "slots",
    );
    let wait = Duration::from_secs(3601);
    refused(&file, ArrayConfig { wait, ..plain }, "wait_ms");
    let array = Array::open(&file, small(2)).unwrap();
    assert_eq!(array.size(), 0);
    assert_eq!(sum(&array, 2, 1).0, 0);
    assert_eq!(
        load(&array, 0, 1).1.unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
}
