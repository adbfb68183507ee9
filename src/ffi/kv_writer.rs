//! Values that are written piece by piece.

use core::ffi::c_void;
use std::sync::Arc;

use parking_lot::Mutex;

use super::convert;
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::kv::{Opened, key_of, value_of};
use super::status::gds_status_t;
use super::types::{gds_kv_t, gds_kv_writer_t};
use crate::kv::store::PutWriter;

/// A writer, until it is committed. Holds its store.
#[derive(Debug)]
pub(crate) struct Writer {
    writer: Mutex<Option<PutWriter>>,
    store: Arc<Opened>,
}

impl Handle for gds_kv_writer_t {
    type Object = Writer;
    const TAG: u32 = 0x4744_0042;
    const NAME: &'static str = "gds_kv_writer_t";
}

/// Begin a value that comes piece by piece, up to 1 TiB. Nothing is visible before
/// gds_kv_writer_commit().
///
/// @param size_hint   a guess of its size, bytes; 0: none.
/// @param writer_out  give it to gds_kv_writer_close() once. Keeps the store.
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a key without bytes or too long;
///         GDS_STATUS_POISONED; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_writer_open(
    kv: *const gds_kv_t,
    key: *const c_void,
    key_size: u64,
    size_hint: u64,
    writer_out: *mut *mut gds_kv_writer_t,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        convert::check_pointer(writer_out, "writer_out")?;
        // SAFETY: the caller gives that many bytes.
        let writer = store.put_writer(unsafe { key_of(key, key_size)? }, size_hint)?;
        let object = Writer {
            writer: Mutex::new(Some(writer)),
            store: (*store).clone(),
        };
        // SAFETY: checked above.
        unsafe { writer_out.write(handle::open(object)?) };
        Ok(())
    })
}

/// Add bytes at the end of the value. They are the caller's again when the call returns.
///
/// @param bytes  NULL only with size 0.
/// @return GDS_STATUS_OUT_OF_RANGE: the value would pass 1 TiB; GDS_STATUS_NO_SPACE;
///         GDS_STATUS_TIMED_OUT; GDS_STATUS_IO: the value cannot be committed any more;
///         GDS_STATUS_INVALID_ARGUMENT: also after commit or a failure;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_writer_append(
    writer: *mut gds_kv_writer_t,
    bytes: *const c_void,
    size: u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(writer, "writer")?;
        // SAFETY: the caller gives that many bytes.
        let bytes = unsafe { value_of(bytes, size)? };
        let mut writer = object.writer.lock();
        let result = writer.as_mut().ok_or_else(over)?.write(bytes);
        if result.is_err() {
            *writer = None;
        }
        Ok(result?)
    })
}

/// Make the value visible in place of what the key had, and wait until it is durable.
///
/// @param lsn_out  the number of the change in the log. May be NULL.
/// @return as gds_kv_put(); GDS_STATUS_INVALID_ARGUMENT: also after commit or a failure.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_writer_commit(
    writer: *mut gds_kv_writer_t,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(writer, "writer")?;
        convert::check_optional(lsn_out, "lsn_out")?;
        let lsn = commit(&object)?;
        object.store.wait(lsn, None)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(lsn_out, lsn) };
        Ok(())
    })
}

/// As gds_kv_writer_commit(), but does not wait; see gds_kv_put_async().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_writer_commit_async(
    writer: *mut gds_kv_writer_t,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(writer, "writer")?;
        convert::check_pointer(lsn_out, "lsn_out")?;
        let lsn = commit(&object)?;
        // SAFETY: checked above.
        unsafe { lsn_out.write(lsn) };
        Ok(())
    })
}

/// Close a writer. NULL and closed handles are fine. A value that was not committed never
/// was: the key keeps what it had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_writer_close(writer: *mut gds_kv_writer_t) {
    guard_void(|| handle::close(writer));
}

fn commit(object: &Writer) -> Outcome<u64> {
    let writer = object.writer.lock().take().ok_or_else(over)?;
    Ok(writer.commit_async()?)
}

fn over() -> Failure {
    Failure::argument("the writer is over: it was committed, or failed before; open another")
}
