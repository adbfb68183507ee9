//! The key-value store: opening it, and single keys.

use core::ffi::{c_char, c_void};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::convert::{self, AbiStruct};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::transfer::switch;
use super::types::{gds_kv_config_t, gds_kv_level_t, gds_kv_t};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::store::{DiskLevel, KEY_MAX, KvConfig, Store, VALUE_MAX};

/// A store that is open for C: the last handle that uses it makes a checkpoint and closes it.
#[derive(Debug)]
pub(crate) struct Opened(Store);

impl Deref for Opened {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // What was committed is safe even where this fails; the next opening has more to do then.
        let _ = self.0.clone().close();
    }
}

impl Handle for gds_kv_t {
    type Object = Arc<Opened>;
    const TAG: u32 = 0x4744_0040;
    const NAME: &'static str = "gds_kv_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_kv_config_t {
    const NAME: &'static str = "gds_kv_config_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            inline_max_bytes: 0,
            size_bytes: 0,
            wal_bytes: 0,
            segment_bytes: 0,
            superblock_spacing_bytes: 0,
            memtable_bytes: 0,
            cache_bytes: 0,
            index_bytes_max: 0,
            pending_bytes: 0,
            max_batch_bytes: 0,
            stall_ms: 0,
            create: 0,
            exclusive: 0,
            ordered: 0,
            reserved: 0,
            level: 0,
            reserved_2: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_kv_config_t>() == 104);

/// Fill a store's configuration with its defaults, as GDS_KV_CONFIG_INIT does.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_kv_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_config_init(config_out: *mut c_void, size: usize) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_kv_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_kv_config_t::initial()) }
    })
}

/// Open a store, or make one where there is none, and recover what was committed.
///
/// The file or block device is locked: no other open of it succeeds while this one, a
/// snapshot or a scan of it is there. The store has two threads of its own, which sleep
/// while there is nothing to do.
///
/// @param path    a regular file or block device.
/// @param config  NULL: as GDS_KV_CONFIG_INIT.
/// @param kv_out  give it to gds_kv_close() once.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field;
///         GDS_STATUS_UNSUPPORTED_FILE: it holds something else, or is a directory;
///         GDS_STATUS_NOT_SUPPORTED: a newer format, or not the `level` that was asked for;
///         GDS_STATUS_CORRUPTED: what was durable
///         is not what was written, gds_last_error() tells where; GDS_STATUS_NO_SPACE;
///         GDS_STATUS_NOT_FOUND; GDS_STATUS_PERMISSION_DENIED; GDS_STATUS_IO: also when it
///         is open already or, with `exclusive`, there; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_open(
    path: *const c_char,
    config: *const gds_kv_config_t,
    kv_out: *mut *mut gds_kv_t,
) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a NUL-terminated path.
        let path = unsafe { convert::path(path, "path")? };
        convert::check_pointer(kv_out, "kv_out")?;
        handle::not_forked()?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let config = config_of(&unsafe { convert::read_optional(config)? })?;
        let store = Arc::new(Opened(Store::open(path, config)?));
        // SAFETY: checked above.
        unsafe { kv_out.write(handle::open(store)?) };
        Ok(())
    })
}

/// Close a store. NULL and closed handles are fine.
///
/// Writers, scans, snapshots and devices of it stay usable; the last of them that may write
/// ends the store: what was committed is written and a checkpoint made. Call gds_kv_sync()
/// and gds_kv_checkpoint() before to know how that went.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_close(kv: *mut gds_kv_t) {
    guard_void(|| handle::close(kv));
}

/// Remove a store that is not open: the file, or the superblocks on a block device.
///
/// @return GDS_STATUS_UNSUPPORTED_FILE: no store; GDS_STATUS_IO: also when it is open; as
///         gds_kv_open().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_destroy(path: *const c_char) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a NUL-terminated path.
        Ok(Store::destroy(unsafe { convert::path(path, "path")? })?)
    })
}

/// Put a value in place of what the key had, and wait until it is durable.
///
/// @param key         1 to 65536 bytes, fewer in a store of small segments.
/// @param value       NULL only with value_size 0.
/// @param value_size  at most 1 TiB.
/// @param lsn_out     the number of the change in the log. May be NULL.
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a key without bytes or too long;
///         GDS_STATUS_OUT_OF_RANGE: the value is too long; GDS_STATUS_NO_SPACE;
///         GDS_STATUS_TIMED_OUT: no room within stall_ms; GDS_STATUS_OUT_OF_HOST_MEMORY: the
///         index has index_bytes_max; GDS_STATUS_POISONED: an earlier write or flush failed,
///         reads go on, open the store again; GDS_STATUS_IO; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_put(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    value: *const c_void,
    value_size: u64,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_optional(lsn_out, "lsn_out")?;
        // SAFETY: the caller gives that many bytes of both.
        let (key, value) = unsafe { (key_of(key, key_size)?, value_of(value, value_size)?) };
        let lsn = store.put(key, value)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(lsn_out, lsn) };
        Ok(())
    })
}

/// As gds_kv_put(), but does not wait: the value is visible when the call returns, and
/// durable when gds_kv_wait() for lsn_out answers GDS_STATUS_OK.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_put_async(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    value: *const c_void,
    value_size: u64,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_pointer(lsn_out, "lsn_out")?;
        // SAFETY: the caller gives that many bytes of both.
        let (key, value) = unsafe { (key_of(key, key_size)?, value_of(value, value_size)?) };
        let lsn = store.put_async(key, value)?;
        // SAFETY: checked above.
        unsafe { lsn_out.write(lsn) };
        Ok(())
    })
}

/// Delete a key, and wait until that is durable. A key that is not there is fine.
///
/// @param existed_out  1: it was there, 0: it was not. May be NULL.
/// @return as gds_kv_put().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_delete(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    existed_out: *mut u32,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_optional(existed_out, "existed_out")?;
        // SAFETY: the caller gives that many bytes.
        let there = store.delete(unsafe { key_of(key, key_size)? })?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(existed_out, u32::from(there)) };
        Ok(())
    })
}

/// As gds_kv_delete(), but does not wait; see gds_kv_put_async().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_delete_async(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    existed_out: *mut u32,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_optional(existed_out, "existed_out")?;
        convert::check_pointer(lsn_out, "lsn_out")?;
        // SAFETY: the caller gives that many bytes.
        let (there, lsn) = store.delete_async(unsafe { key_of(key, key_size)? })?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(existed_out, u32::from(there)) };
        // SAFETY: checked above.
        unsafe { lsn_out.write(lsn) };
        Ok(())
    })
}

/// Copy a value, verified, into the caller's memory.
///
/// @param value     room for `capacity` bytes. NULL with capacity 0: only the size is told.
/// @param capacity  bytes.
/// @param size_out  bytes of the value. May be NULL.
/// @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_BUFFER_TOO_SMALL: the message has
///         the size, as gds_kv_value_size() tells it; GDS_STATUS_CORRUPTED: the disk does
///         not hold what was written; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED. The memory holds anything then.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_get(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    value: *mut c_void,
    capacity: u64,
    size_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_optional(size_out, "size_out")?;
        let get = |key: &[u8], into: &mut [u8]| store.get_sized(key, into);
        // SAFETY: the caller gives that many bytes of both; size_out was checked.
        unsafe { copy_value(key, key_size, value, capacity, size_out, get) }
    })
}

/// Copy bytes of a value, verified, into the caller's memory.
///
/// @param offset     the first byte of the value that is wanted; past its end is fine.
/// @param value      room for `size` bytes.
/// @param bytes_out  bytes that were copied, fewer than size at the value's end. May be
///                   NULL.
/// @return as gds_kv_get(), but for GDS_STATUS_BUFFER_TOO_SMALL.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_get_range(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    offset: u64,
    value: *mut c_void,
    size: u64,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let get = |key: &[u8], into: &mut [u8]| {
            let bytes = store.get_into(key, offset, into)?;
            Ok(bytes.map(|bytes| bytes as u64))
        };
        // SAFETY: the caller gives that many bytes of both; bytes_out was checked.
        unsafe { copy_value(key, key_size, value, size, bytes_out, get) }
    })
}

/// Tell how long a value is. Memory only.
///
/// @param size_out  bytes.
/// @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_value_size(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    size_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_pointer(size_out, "size_out")?;
        // SAFETY: the caller gives that many bytes.
        let key = unsafe { key_of(key, key_size)? };
        let size = store.len_of(key).ok_or_else(not_found)?;
        // SAFETY: checked above.
        unsafe { size_out.write(size) };
        Ok(())
    })
}

/// Tell whether a key has a value. Memory only.
///
/// @param found_out  1 or 0.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_contains(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    found_out: *mut u32,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_pointer(found_out, "found_out")?;
        // SAFETY: the caller gives that many bytes.
        let found = store.contains(unsafe { key_of(key, key_size)? });
        // SAFETY: checked above.
        unsafe { found_out.write(u32::from(found)) };
        Ok(())
    })
}

/// The choices of a store.
fn config_of(given: &gds_kv_config_t) -> Outcome<KvConfig> {
    let reserved = [
        ("reserved", given.reserved),
        ("reserved_2", given.reserved_2),
    ];
    if let Some((name, value)) = reserved.into_iter().find(|(_, value)| *value != 0) {
        let text = format!("{name} is {value}; it must be 0");
        return Err(Error::new(ErrorKind::InvalidConfig, text).into());
    }
    let level = match given.level {
        level if level == gds_kv_level_t::GDS_KV_LEVEL_FILE as i32 => DiskLevel::File,
        level if level == gds_kv_level_t::GDS_KV_LEVEL_DAX as i32 => DiskLevel::Dax,
        other => {
            let text = format!("level is {other}; it must be a gds_kv_level_t, 0 or 1");
            return Err(Error::new(ErrorKind::InvalidConfig, text).into());
        }
    };
    let standard = KvConfig::default();
    let or = |given: u64, standard: u64| if given == 0 { standard } else { given };
    let memory = |given: u64, standard: usize| match given {
        0 => standard,
        bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
    };
    let choice = |name: &str, given: i32, standard: bool| -> Outcome<bool> {
        let chosen = switch(name, given).map_err(|failure| {
            Failure::from(Error::new(
                ErrorKind::InvalidConfig,
                failure.error.message(),
            ))
        })?;
        Ok(chosen.unwrap_or(standard))
    };
    Ok(KvConfig {
        size_bytes: given.size_bytes,
        wal_bytes: or(given.wal_bytes, standard.wal_bytes),
        segment_bytes: or(given.segment_bytes, standard.segment_bytes),
        superblock_spacing: or(given.superblock_spacing_bytes, standard.superblock_spacing),
        inline_max: memory(u64::from(given.inline_max_bytes), standard.inline_max),
        memtable_bytes: or(given.memtable_bytes, standard.memtable_bytes),
        cache_bytes: or(given.cache_bytes, standard.cache_bytes),
        index_bytes_max: given.index_bytes_max,
        ordered: choice("ordered", given.ordered, standard.ordered)?,
        stall: match given.stall_ms {
            0 => standard.stall,
            ms => Duration::from_millis(u64::from(ms)),
        },
        create: choice("create", given.create, standard.create)?,
        exclusive: choice("exclusive", given.exclusive, standard.exclusive)?,
        max_batch_bytes: memory(u64::from(given.max_batch_bytes), standard.max_batch_bytes),
        pending_bytes: memory(given.pending_bytes, standard.pending_bytes),
        checkpoint_threads: standard.checkpoint_threads,
        level,
    })
}

/// The caller's key.
///
/// # Safety
/// A non-NULL `key` points to `size` readable bytes that nobody changes during 'a.
pub(crate) unsafe fn key_of<'a>(key: *const c_void, size: u64) -> Outcome<&'a [u8]> {
    if size == 0 || size > KEY_MAX as u64 {
        let text = format!("key_size is {size}; a key has 1 to {KEY_MAX} bytes");
        return Err(Failure::argument(text));
    }
    // SAFETY: the caller's promise.
    unsafe { convert::array(key.cast(), size, KEY_MAX as u64, "key") }
}

/// The caller's value.
///
/// # Safety
/// A non-NULL `value` points to `size` readable bytes that nobody changes during 'a.
pub(crate) unsafe fn value_of<'a>(value: *const c_void, size: u64) -> Outcome<&'a [u8]> {
    if size > VALUE_MAX {
        let text = format!("put a value of {size} bytes: the largest has {VALUE_MAX}");
        return Err(Error::new(ErrorKind::OutOfRange, text).into());
    }
    // SAFETY: the caller's promise.
    unsafe { convert::array(value.cast(), size, VALUE_MAX, "value") }
}

/// The caller's room for a value.
///
/// # Safety
/// A non-NULL `value` points to `capacity` writable bytes that nobody uses during 'a.
unsafe fn room_of<'a>(value: *mut c_void, capacity: u64) -> Outcome<&'a mut [u8]> {
    if capacity == 0 {
        return Ok(&mut []);
    }
    convert::check_pointer(value.cast_const(), "value")?;
    // No value is longer, so what is said to be behind that is never touched.
    let size = usize::try_from(capacity.min(VALUE_MAX)).unwrap_or(usize::MAX);
    // SAFETY: checked above, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(value.cast(), size) })
}

/// Has `get` copy the value of the caller's key into the caller's memory, and tells its answer:
/// bytes, or None where there is no such key.
///
/// # Safety
/// As `key_of` and `room_of`; `size_out` is NULL or was checked.
pub(crate) unsafe fn copy_value(
    key: *const c_void,
    key_size: u64,
    value: *mut c_void,
    capacity: u64,
    size_out: *mut u64,
    get: impl FnOnce(&[u8], &mut [u8]) -> Result<Option<u64>>,
) -> Outcome {
    // SAFETY: the caller's promise.
    let (key, into) = unsafe { (key_of(key, key_size)?, room_of(value, capacity)?) };
    let size = get(key, into)?.ok_or_else(not_found)?;
    check_fits(size, capacity)?;
    // SAFETY: the caller's promise.
    unsafe { convert::write_optional(size_out, size) };
    Ok(())
}

/// Refuses a value that did not fit, but for a question for its size.
fn check_fits(size: u64, capacity: u64) -> Outcome {
    if size <= capacity || capacity == 0 {
        return Ok(());
    }
    let text = format!("get a value of {size} bytes: capacity is {capacity}");
    Err(Error::new(ErrorKind::BufferTooSmall, text).into())
}

/// No such key.
#[cold]
pub(crate) fn not_found() -> Failure {
    Error::new(ErrorKind::NotFound, "the store has no such key").into()
}
