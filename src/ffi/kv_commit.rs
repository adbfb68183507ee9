//! Several changes as one, and when changes are durable.

use core::ffi::c_void;
use std::time::Instant;

use parking_lot::Mutex;

use super::convert;
use super::error::{self, Failure};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::kv::{key_of, value_of};
use super::status::{self, gds_status_t};
use super::types::{gds_kv_batch_t, gds_kv_durable_fn, gds_kv_t, gds_release_fn};
use crate::error::{ErrorKind, Result};
use crate::kv::store::Batch;

impl Handle for gds_kv_batch_t {
    type Object = Mutex<Batch>;
    const TAG: u32 = 0x4744_0041;
    const NAME: &'static str = "gds_kv_batch_t";
}

/// A callback of C with its data. Dropped, and `release` called, when it is over.
struct Call {
    call: unsafe extern "C" fn(u64, i32, *mut c_void),
    user_data: *mut c_void,
    release: gds_release_fn,
}

// SAFETY: the header asks for a callback and user data that work on the log's thread.
unsafe impl Send for Call {}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the caller gave both together for this one call.
            unsafe { release(self.user_data) };
        }
    }
}

impl Call {
    fn run(self, lsn: u64, result: Result<u64>) {
        let status = match result {
            Ok(_) => gds_status_t::GDS_STATUS_OK,
            Err(error) => {
                let status = status::of_kind(error.kind());
                error::set_last(error.into());
                status
            }
        };
        // SAFETY: the caller gave both together.
        unsafe { (self.call)(lsn, status as i32, self.user_data) };
    }
}

/// Make an empty batch.
///
/// @param batch_out  give it to gds_kv_batch_destroy() once. Belongs to no store.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_batch_create(batch_out: *mut *mut gds_kv_batch_t) -> gds_status_t {
    guard(|| {
        convert::check_pointer(batch_out, "batch_out")?;
        let batch = handle::open(Mutex::new(Batch::new()))?;
        // SAFETY: checked above.
        unsafe { batch_out.write(batch) };
        Ok(())
    })
}

/// Give a batch up. NULL and destroyed handles are fine. What was written stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_batch_destroy(batch: *mut gds_kv_batch_t) {
    guard_void(|| handle::close(batch));
}

/// Add a put; key and value are copied. Of changes of one key the last counts.
///
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a key without bytes or too long;
///         GDS_STATUS_OUT_OF_RANGE: the value is too long; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_batch_put(
    batch: *mut gds_kv_batch_t,
    key: *const c_void,
    key_size: u64,
    value: *const c_void,
    value_size: u64,
) -> gds_status_t {
    guard(|| {
        let batch = handle::borrow(batch, "batch")?;
        // SAFETY: the caller gives that many bytes of both.
        let (key, value) = unsafe { (key_of(key, key_size)?, value_of(value, value_size)?) };
        batch.lock().put(key, value);
        Ok(())
    })
}

/// Add a delete; the key is copied.
///
/// @return as gds_kv_batch_put().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_batch_delete(
    batch: *mut gds_kv_batch_t,
    key: *const c_void,
    key_size: u64,
) -> gds_status_t {
    guard(|| {
        let batch = handle::borrow(batch, "batch")?;
        // SAFETY: the caller gives that many bytes.
        batch.lock().delete(unsafe { key_of(key, key_size)? });
        Ok(())
    })
}

/// Forget the changes of a batch.
///
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_batch_clear(batch: *mut gds_kv_batch_t) -> gds_status_t {
    guard(|| {
        *handle::borrow(batch, "batch")?.lock() = Batch::new();
        Ok(())
    })
}

/// Make all changes of a batch, or none, and wait until they are durable. The batch keeps
/// them: it may be written again.
///
/// @param lsn_out  the number of the last change in the log. May be NULL.
/// @return GDS_STATUS_OUT_OF_RANGE: more than one commit can have, use several;
///         as gds_kv_put().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_write(
    kv: *const gds_kv_t,
    batch: *const gds_kv_batch_t,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let (store, batch) = (handle::borrow(kv, "kv")?, handle::borrow(batch, "batch")?);
        convert::check_optional(lsn_out, "lsn_out")?;
        let lsn = store.write(&batch.lock())?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(lsn_out, lsn) };
        Ok(())
    })
}

/// As gds_kv_write(), but does not wait; see gds_kv_put_async().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_write_async(
    kv: *const gds_kv_t,
    batch: *const gds_kv_batch_t,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let (store, batch) = (handle::borrow(kv, "kv")?, handle::borrow(batch, "batch")?);
        convert::check_pointer(lsn_out, "lsn_out")?;
        let lsn = store.write_async(&batch.lock())?;
        // SAFETY: checked above.
        unsafe { lsn_out.write(lsn) };
        Ok(())
    })
}

/// Tell up to which change everything is durable. Costs no system call.
///
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_durable_lsn(
    kv: *const gds_kv_t,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_pointer(lsn_out, "lsn_out")?;
        // SAFETY: checked above.
        unsafe { lsn_out.write(store.durable_lsn()) };
        Ok(())
    })
}

/// Sleep until everything up to a change is durable.
///
/// @param lsn         as an *_async() call gave it.
/// @param timeout_ms  longest wait, milliseconds; -1 is for ever, 0 only looks.
/// @return GDS_STATUS_PENDING: not durable within timeout_ms; GDS_STATUS_POISONED: it never
///         will be; GDS_STATUS_OUT_OF_RANGE: no such change was made;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_wait(
    kv: *const gds_kv_t,
    lsn: u64,
    timeout_ms: i64,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        check_lsn(lsn, store.appended_lsn())?;
        let timeout = convert::timeout(timeout_ms)?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        store
            .wait(lsn, deadline)
            .map_err(|error| match error.kind() {
                ErrorKind::TimedOut => {
                    let text = format!("wait for change {lsn}: not durable within {timeout_ms} ms");
                    Failure::own(gds_status_t::GDS_STATUS_PENDING, text)
                }
                _ => error.into(),
            })
    })
}

/// Call back once when everything up to a change is durable, or never will be.
///
/// @param lsn        as an *_async() call gave it.
/// @param callback   not NULL; may run before this call returns.
/// @param user_data  handed to both.
/// @param release    called exactly once with user_data, after the callback. May be NULL.
///                   Where this call fails neither is called.
/// @return GDS_STATUS_OUT_OF_RANGE: no such change was made; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_on_durable(
    kv: *const gds_kv_t,
    lsn: u64,
    callback: gds_kv_durable_fn,
    user_data: *mut c_void,
    release: gds_release_fn,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        let call = callback.ok_or_else(|| Failure::null("callback"))?;
        check_lsn(lsn, store.appended_lsn())?;
        let call = Call {
            call,
            user_data,
            release,
        };
        store.on_durable(lsn, Box::new(move |result| call.run(lsn, result)));
        Ok(())
    })
}

fn check_lsn(lsn: u64, last: u64) -> super::error::Outcome {
    if lsn <= last {
        return Ok(());
    }
    let text = format!("lsn is {lsn}; the last change is {last}");
    Err(Failure::own(gds_status_t::GDS_STATUS_OUT_OF_RANGE, text))
}
