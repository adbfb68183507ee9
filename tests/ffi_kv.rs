//! The key-value store through the C interface: callbacks are told and released once, damage is
//! told with its place, and repair tells what is lost.

mod common;

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use common::{Folder, pattern};
use gds_rs::ffi::error::gds_last_error_message;
use gds_rs::ffi::kv::*;
use gds_rs::ffi::kv_commit::*;
use gds_rs::ffi::kv_report::*;
use gds_rs::ffi::kv_scan::*;
use gds_rs::ffi::status::gds_status_t::{self, *};
use gds_rs::ffi::types::*;
use gds_rs::kv::store::{KvConfig, Store};

struct Rig {
    kv: *mut gds_kv_t,
    path: PathBuf,
    name: CString,
    _folder: Folder,
}

fn ok(status: gds_status_t) {
    assert_eq!(status, GDS_STATUS_OK, "{}", message());
}

fn message() -> String {
    // SAFETY: never NULL, NUL-terminated.
    let text = unsafe { CStr::from_ptr(gds_last_error_message()) };
    text.to_string_lossy().into_owned()
}

/// A struct of the header with its size in it.
fn sized<T>() -> T {
    // SAFETY: structs of integers, floats and arrays of them that begin with their size.
    unsafe {
        let mut value: T = std::mem::zeroed();
        (&raw mut value).cast::<u32>().write(size_of::<T>() as u32);
        value
    }
}

impl Rig {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.path("store");
        let name = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mut rig = Self {
            kv: null_mut(),
            path,
            name,
            _folder: folder,
        };
        rig.open();
        rig
    }

    fn open(&mut self) {
        let mut config: gds_kv_config_t = sized();
        config.wal_bytes = 1 << 20;
        config.segment_bytes = 1 << 20;
        config.superblock_spacing_bytes = 4096;
        // SAFETY: live places.
        ok(unsafe { gds_kv_open(self.name.as_ptr(), &raw const config, &raw mut self.kv) });
    }

    fn put(&self, key: &[u8], value: &[u8]) -> u64 {
        let mut lsn = 0;
        // SAFETY: live places and handles.
        ok(unsafe {
            gds_kv_put(
                self.kv,
                key.as_ptr().cast(),
                key.len() as u64,
                value.as_ptr().cast(),
                value.len() as u64,
                &raw mut lsn,
            )
        });
        lsn
    }

    fn get(&self, key: &[u8]) -> Result<Vec<u8>, gds_status_t> {
        let mut value = vec![0u8; 100_000];
        let mut size = 0;
        // SAFETY: live places and handles.
        let status = unsafe {
            gds_kv_get(
                self.kv,
                key.as_ptr().cast(),
                key.len() as u64,
                value.as_mut_ptr().cast(),
                value.len() as u64,
                &raw mut size,
            )
        };
        value.truncate(size as usize);
        if status == GDS_STATUS_OK {
            Ok(value)
        } else {
            Err(status)
        }
    }

    fn close(&mut self) {
        // SAFETY: an open handle, or one that was closed.
        unsafe { gds_kv_close(self.kv) };
    }

    /// Flips a bit of what is stored for `key`, with the store closed.
    fn damage(&mut self, key: &[u8], at: u64) -> u64 {
        self.close();
        let place = place_of(&self.path, key, at);
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&self.path);
        let file = file.expect("the store is a file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).expect("a byte");
        file.write_all_at(&[byte[0] ^ 4], place).expect("a byte");
        self.open();
        place
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.close();
    }
}

fn place_of(path: &Path, key: &[u8], at: u64) -> u64 {
    let store = Store::open(path, KvConfig::default()).expect("the store opens");
    let located = store
        .locate(key, at..at + 1)
        .expect("no damage yet")
        .expect("the key");
    let place = located.pieces[0].offset + (at - located.start);
    drop(located);
    store.close().expect("the store closes");
    place
}

#[derive(Default)]
struct Told {
    calls: AtomicU64,
    last: AtomicU64,
    failures: AtomicU64,
    releases: AtomicU64,
}

unsafe extern "C" fn on_durable(lsn: u64, status: i32, data: *mut c_void) {
    // SAFETY: the tests hand out a `Told` that outlives the store.
    let told = unsafe { &*data.cast::<Told>() };
    assert_eq!(
        told.calls.load(SeqCst),
        told.releases.load(SeqCst),
        "released after the call"
    );
    told.calls.fetch_add(1, SeqCst);
    told.last.fetch_max(lsn, SeqCst);
    told.failures.fetch_add(u64::from(status != 0), SeqCst);
}

unsafe extern "C" fn on_release(data: *mut c_void) {
    // SAFETY: as in `on_durable`.
    unsafe { &*data.cast::<Told>() }
        .releases
        .fetch_add(1, SeqCst);
}

#[test]
fn callbacks_are_told_and_released_exactly_once_each() {
    let mut rig = Rig::new();
    let told = Told::default();
    let data = (&raw const told).cast_mut().cast::<c_void>();
    let mut last = 0;
    for i in 0..200u64 {
        let key = i.to_le_bytes();
        // SAFETY: live places and handles; `told` outlives the store.
        unsafe {
            let (key, len) = (key.as_ptr().cast(), key.len() as u64);
            ok(gds_kv_put_async(rig.kv, key, len, key, len, &raw mut last));
            ok(gds_kv_on_durable(
                rig.kv,
                last,
                Some(on_durable),
                data,
                Some(on_release),
            ));
        }
    }
    // SAFETY: a live handle.
    unsafe {
        ok(gds_kv_wait(rig.kv, last, -1));
        let mut durable = 0;
        ok(gds_kv_durable_lsn(rig.kv, &raw mut durable));
        assert!(durable >= last);
    }
    rig.close();
    assert_eq!(told.calls.load(SeqCst), 200);
    assert_eq!(told.releases.load(SeqCst), 200);
    assert_eq!(
        (told.last.load(SeqCst), told.failures.load(SeqCst)),
        (last, 0)
    );
}

type Seen = Vec<(i32, Vec<u8>, u64, String)>;

unsafe extern "C" fn note(problem: *const gds_kv_problem_t, data: *mut c_void) {
    // SAFETY: the library's promise of the struct, and the tests' of the data.
    unsafe {
        let problem = &*problem;
        assert_eq!(problem.struct_size as usize, size_of::<gds_kv_problem_t>());
        let key = match problem.key.is_null() {
            true => Vec::new(),
            false => {
                std::slice::from_raw_parts(problem.key.cast::<u8>(), problem.key_size as usize)
                    .to_vec()
            }
        };
        let text = CStr::from_ptr(problem.message)
            .to_string_lossy()
            .into_owned();
        let seen = &mut *data.cast::<Seen>();
        seen.push((problem.status, key, problem.file_offset, text));
    }
}

#[test]
fn damage_is_told_with_its_place_and_repair_tells_what_is_lost() {
    let mut rig = Rig::new();
    for i in 0..10u8 {
        rig.put(&[i + 1], &pattern(20_000, u64::from(i)));
    }
    rig.put(b"small", b"value");
    let place = rig.damage(&[4], 9000);
    assert_eq!(rig.get(&[4]), Err(GDS_STATUS_CORRUPTED));
    assert!(message().contains("not what was written"), "{}", message());
    assert_eq!(rig.get(&[5]).as_deref(), Ok(&pattern(20_000, 4)[..]));

    let mut seen = Seen::new();
    let data = (&raw mut seen).cast::<c_void>();
    let mut report: gds_kv_report_t = sized();
    // SAFETY: live places and handles.
    ok(unsafe { gds_kv_verify(rig.kv, Some(note), data, &raw mut report) });
    assert_eq!((report.keys, report.problems), (11, 1));
    assert_eq!(seen.len(), 1);
    let (status, key, offset, text) = &seen[0];
    assert_eq!((*status, &key[..]), (GDS_STATUS_CORRUPTED as i32, &[4][..]));
    assert!(
        (place / 4096 * 4096..=place).contains(offset),
        "{offset} {place}"
    );
    assert!(text.contains("not what was written"), "{text}");

    // A scan tells of that key and goes on behind it.
    let (mut scan, mut good, mut bad) = (null_mut(), 0, 0);
    // SAFETY: live places and handles.
    unsafe {
        ok(gds_kv_scan_open(
            rig.kv,
            null(),
            0,
            null(),
            0,
            0,
            &raw mut scan,
        ));
        loop {
            let mut entry: gds_kv_entry_t = std::mem::zeroed();
            match gds_kv_scan_next(scan, &raw mut entry) {
                GDS_STATUS_OK => good += 1,
                GDS_STATUS_CORRUPTED => bad += 1,
                status => {
                    assert_eq!(status, GDS_STATUS_END);
                    break;
                }
            }
        }
        gds_kv_scan_close(scan);
    }
    assert_eq!((good, bad), (10, 1));

    rig.close();
    let mut lost = Seen::new();
    let data = (&raw mut lost).cast::<c_void>();
    let mut repaired: gds_kv_repair_report_t = sized();
    // SAFETY: live places.
    ok(unsafe { gds_kv_repair(rig.name.as_ptr(), Some(note), data, &raw mut repaired) });
    assert_eq!(
        (repaired.was_clean, repaired.keys, repaired.lost),
        (0, 10, 1)
    );
    assert_eq!((lost.len(), &lost[0].1[..]), (1, &[4][..]));
    rig.open();
    assert_eq!(rig.get(&[4]), Err(GDS_STATUS_NOT_FOUND));
    assert_eq!(rig.get(b"small").as_deref(), Ok(&b"value"[..]));
    // SAFETY: live places and handles.
    ok(unsafe { gds_kv_verify(rig.kv, None, null_mut(), &raw mut report) });
    assert_eq!((report.keys, report.problems), (10, 0));
}

#[test]
fn statistics_add_up() {
    let rig = Rig::new();
    for i in 0..50u8 {
        rig.put(&[i + 1], &pattern(10_000, u64::from(i)));
    }
    for i in 0..50u8 {
        assert_eq!(rig.get(&[i + 1]).map(|v| v.len()), Ok(10_000));
    }
    let mut stats: gds_kv_stats_t = sized();
    // SAFETY: live places and handles.
    ok(unsafe { gds_kv_stats(rig.kv, &raw mut stats) });
    assert_eq!(stats.struct_size as usize, size_of::<gds_kv_stats_t>());
    assert_eq!(
        (stats.keys, stats.poisoned, stats.background_status),
        (50, 0, 0)
    );
    assert_eq!(stats.user_bytes, 50 * 10_001);
    assert!(stats.written_bytes > stats.user_bytes && stats.write_amplification > 1.0);
    assert!(stats.read_bytes >= 50 * 10_000 && stats.reads >= 50);
    assert!(stats.wal_commits == 50 && stats.wal_batches <= 51 && stats.durable_lsn >= 50);
    assert!(stats.read_latency.max_ns >= stats.read_latency.p50_ns);
    assert!(stats.durable_latency.p50_ns > 0 && stats.wal_sync_latency.max_ns > 0);
    assert!(stats.elapsed_ns > 0 && stats.peak_iops >= stats.iops);
    assert!(stats.segments >= stats.segments_free && stats.size_bytes > 500_000);
}

#[test]
fn persistent_memory_is_asked_for_and_refused_where_there_is_none() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let name = CString::new(path.to_str().expect("text")).expect("a name");
    let open = |level: i32, reserved_2: u32| {
        let mut config: gds_kv_config_t = sized();
        config.level = level;
        config.reserved_2 = reserved_2;
        let mut kv = null_mut();
        // SAFETY: live places.
        let status = unsafe { gds_kv_open(name.as_ptr(), &raw const config, &raw mut kv) };
        // SAFETY: NULL or a handle of ours.
        unsafe { gds_kv_close(kv) };
        status
    };
    let dax = gds_kv_level_t::GDS_KV_LEVEL_DAX as i32;
    assert_eq!(open(dax, 0), gds_status_t::GDS_STATUS_NOT_SUPPORTED);
    assert!(!path.exists());
    for (level, reserved) in [(2, 0), (-1, 0), (0, 1)] {
        assert_eq!(
            open(level, reserved),
            gds_status_t::GDS_STATUS_INVALID_CONFIG
        );
    }
    ok(open(gds_kv_level_t::GDS_KV_LEVEL_FILE as i32, 0));
}
