//! The store as it was at one moment, and its keys in order.

use core::ffi::c_void;
use std::ops::Bound;
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::convert;
use super::error::Outcome;
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::kv::copy_value;
use super::reader::end;
use super::status::gds_status_t;
use super::types::{gds_kv_entry_t, gds_kv_scan_t, gds_kv_snapshot_t, gds_kv_t};
use crate::kv::store::{KEY_MAX, Scan, Snapshot, Store};

/// A scan, and the key that its last entry points to where that came without its value.
#[derive(Debug)]
pub(crate) struct Scanning {
    scan: Scan,
    key: Vec<u8>,
}

impl Handle for gds_kv_snapshot_t {
    type Object = Arc<Snapshot>;
    const TAG: u32 = 0x4744_0043;
    const NAME: &'static str = "gds_kv_snapshot_t";
}

impl Handle for gds_kv_scan_t {
    type Object = Mutex<Scanning>;
    const TAG: u32 = 0x4744_0044;
    const NAME: &'static str = "gds_kv_scan_t";
}

const _: () = assert!(size_of::<gds_kv_entry_t>() == 32);

/// Hold the store as it is now. Later changes are not seen; they cost memory and space while
/// the snapshot is there.
///
/// @param snapshot_out  give it to gds_kv_snapshot_close() once. Usable, and the file
///                      locked, even after gds_kv_close().
/// @return GDS_STATUS_TIMED_OUT: the log has no room; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_snapshot_open(
    kv: *const gds_kv_t,
    snapshot_out: *mut *mut gds_kv_snapshot_t,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_pointer(snapshot_out, "snapshot_out")?;
        let snapshot = handle::open(Arc::new(store.snapshot()?))?;
        // SAFETY: checked above.
        unsafe { snapshot_out.write(snapshot) };
        Ok(())
    })
}

/// Close a snapshot. NULL and closed handles are fine. Scans of it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_snapshot_close(snapshot: *mut gds_kv_snapshot_t) {
    guard_void(|| handle::close(snapshot));
}

/// Tell the last change that a snapshot sees.
///
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_snapshot_lsn(
    snapshot: *const gds_kv_snapshot_t,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let snapshot = handle::borrow(snapshot, "snapshot")?;
        convert::check_pointer(lsn_out, "lsn_out")?;
        // SAFETY: checked above.
        unsafe { lsn_out.write(snapshot.lsn()) };
        Ok(())
    })
}

/// As gds_kv_get(), as of the snapshot.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_snapshot_get(
    snapshot: *const gds_kv_snapshot_t,
    key: *const c_void,
    key_size: u64,
    value: *mut c_void,
    capacity: u64,
    size_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let snapshot = handle::borrow(snapshot, "snapshot")?;
        convert::check_optional(size_out, "size_out")?;
        let get = |key: &[u8], into: &mut [u8]| snapshot.get_sized(key, into);
        // SAFETY: the caller gives that many bytes of both; size_out was checked.
        unsafe { copy_value(key, key_size, value, capacity, size_out, get) }
    })
}

/// As gds_kv_get_range(), as of the snapshot.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_snapshot_get_range(
    snapshot: *const gds_kv_snapshot_t,
    key: *const c_void,
    key_size: u64,
    offset: u64,
    value: *mut c_void,
    size: u64,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let snapshot = handle::borrow(snapshot, "snapshot")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let get = |key: &[u8], into: &mut [u8]| {
            let bytes = snapshot.get_into(key, offset, into)?;
            Ok(bytes.map(|bytes| bytes as u64))
        };
        // SAFETY: the caller gives that many bytes of both; bytes_out was checked.
        unsafe { copy_value(key, key_size, value, size, bytes_out, get) }
    })
}

/// Go through keys in the order of their bytes, as the store is now. Changes that are made
/// meanwhile are not seen.
///
/// @param start     the first key, if it is there; NULL with start_size 0: from the first.
/// @param end       the key behind the last; NULL with end_size 0: to the last.
/// @param limit     keys at most; 0: no limit.
/// @param scan_out  give it to gds_kv_scan_close() once. Usable, and the file locked, even
///                  after gds_kv_close().
/// @return GDS_STATUS_NOT_SUPPORTED: opened with `ordered` off; GDS_STATUS_TIMED_OUT: the
///         log has no room; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_scan_open(
    kv: *const gds_kv_t,
    start: *const c_void,
    start_size: u64,
    end: *const c_void,
    end_size: u64,
    limit: u64,
    scan_out: *mut *mut gds_kv_scan_t,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_pointer(scan_out, "scan_out")?;
        // SAFETY: the caller gives that many bytes of both.
        let range = unsafe { (from(start, start_size)?, to(end, end_size)?) };
        let snapshot = Arc::new(store.snapshot()?);
        // SAFETY: checked above.
        unsafe { scan_out.write(open(&snapshot, range, limit)?) };
        Ok(())
    })
}

/// As gds_kv_scan_open(), as of a snapshot.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_snapshot_scan(
    snapshot: *const gds_kv_snapshot_t,
    start: *const c_void,
    start_size: u64,
    end: *const c_void,
    end_size: u64,
    limit: u64,
    scan_out: *mut *mut gds_kv_scan_t,
) -> gds_status_t {
    guard(|| {
        let snapshot = handle::borrow(snapshot, "snapshot")?;
        convert::check_pointer(scan_out, "scan_out")?;
        // SAFETY: the caller gives that many bytes of both.
        let range = unsafe { (from(start, start_size)?, to(end, end_size)?) };
        // SAFETY: checked above.
        unsafe { scan_out.write(open(&snapshot, range, limit)?) };
        Ok(())
    })
}

/// Give the next key with its value, verified.
///
/// @param entry_out  its pointers are valid until the next call for this scan.
/// @return GDS_STATUS_END: no further key; GDS_STATUS_CORRUPTED, GDS_STATUS_IO: the value
///         of this key cannot be had, the next call goes on behind it;
///         GDS_STATUS_OUT_OF_HOST_MEMORY: likewise, read it with gds_kv_get_range();
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_scan_next(
    scan: *mut gds_kv_scan_t,
    entry_out: *mut gds_kv_entry_t,
) -> gds_status_t {
    // SAFETY: the caller's promises of this function.
    guard(|| unsafe { next(scan, entry_out, true) })
}

/// As gds_kv_scan_next(), without reading the value: its size is told.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_scan_next_key(
    scan: *mut gds_kv_scan_t,
    entry_out: *mut gds_kv_entry_t,
) -> gds_status_t {
    // SAFETY: the caller's promises of this function.
    guard(|| unsafe { next(scan, entry_out, false) })
}

/// Close a scan. NULL and closed handles are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_scan_close(scan: *mut gds_kv_scan_t) {
    guard_void(|| handle::close(scan));
}

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// # Safety
/// As `key_of`.
unsafe fn from(key: *const c_void, size: u64) -> Outcome<Bound<Vec<u8>>> {
    // SAFETY: the caller's promise.
    Ok(unsafe { bound(key, size, "start") }?.map_or(Bound::Unbounded, Bound::Included))
}

/// # Safety
/// As `key_of`.
unsafe fn to(key: *const c_void, size: u64) -> Outcome<Bound<Vec<u8>>> {
    // SAFETY: the caller's promise.
    Ok(unsafe { bound(key, size, "end") }?.map_or(Bound::Unbounded, Bound::Excluded))
}

/// # Safety
/// As `key_of`.
unsafe fn bound(key: *const c_void, size: u64, name: &str) -> Outcome<Option<Vec<u8>>> {
    if key.is_null() && size == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let key: &[u8] = unsafe { convert::array(key.cast(), size, KEY_MAX as u64, name)? };
    Ok(Some(key.to_vec()))
}

fn open(snapshot: &Arc<Snapshot>, range: Range, limit: u64) -> Outcome<*mut gds_kv_scan_t> {
    let limit = if limit == 0 { u64::MAX } else { limit };
    // An end before the start is a range without keys.
    let limit = match (&range.0, &range.1) {
        (Bound::Included(start), Bound::Excluded(end)) if start >= end => 0,
        _ => limit,
    };
    handle::open(Mutex::new(Scanning {
        scan: Store::scan_at(snapshot, range, limit)?,
        key: Vec::new(),
    }))
}

/// # Safety
/// A non-NULL `entry_out` is writable.
unsafe fn next(
    scan: *mut gds_kv_scan_t,
    entry_out: *mut gds_kv_entry_t,
    with_value: bool,
) -> Outcome {
    let scanning = handle::borrow(scan, "scan")?;
    convert::check_pointer(entry_out, "entry_out")?;
    let scanning = &mut *scanning.lock();
    let ended = || end("the scan has no further key");
    let entry = if with_value {
        // In memory that the scan keeps until its next call.
        let entry = scanning.scan.next_entry()?.ok_or_else(ended)?;
        gds_kv_entry_t {
            key: entry.key.as_ptr().cast(),
            key_size: entry.key.len() as u64,
            value: entry.value.as_ptr().cast(),
            value_size: entry.value.len() as u64,
        }
    } else {
        let item = scanning.scan.next().ok_or_else(ended)?;
        scanning.key = item.key;
        gds_kv_entry_t {
            key: scanning.key.as_ptr().cast(),
            key_size: scanning.key.len() as u64,
            value: ptr::null(),
            value_size: item.len,
        }
    };
    // SAFETY: checked above.
    unsafe { entry_out.write(entry) };
    Ok(())
}
