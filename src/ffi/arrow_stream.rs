//! Batches, one after the other, as the stream structs of the Arrow C interfaces.

use core::ffi::c_char;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use arrow_schema::Schema;

use super::arrow_export as export;
use super::error::{Outcome, text};
use super::guard::of_panic;
use super::types::{
    ArrowArray, ArrowArrayStream, ArrowDeviceArray, ArrowDeviceArrayStream, ArrowSchema,
};
use crate::engine::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Batch;

/// The next batch, or none at the end.
pub(super) type Next = Box<dyn FnMut() -> Result<Option<Batch>> + Send>;

/// What is behind a stream.
struct Behind {
    schema: Arc<Schema>,
    context: Context,
    next: Next,
    ended: bool,
    error: Option<CString>,
}

impl Behind {
    /// Runs a callback's body: 0, or the errno that stands for what went wrong.
    fn run(&mut self, body: impl FnOnce(&mut Self) -> Outcome) -> i32 {
        let result = catch_unwind(AssertUnwindSafe(|| body(self)));
        match result.unwrap_or_else(|payload| Err(of_panic(payload))) {
            Ok(()) => 0,
            Err(failure) => {
                self.error = Some(text(failure.error.message().as_bytes()));
                errno_of(&failure.error)
            }
        }
    }

    fn take(&mut self) -> Outcome<Option<Batch>> {
        if self.ended {
            return Ok(None);
        }
        // After an error there is nothing more to have.
        self.ended = true;
        let batch = (self.next)()?;
        self.ended = batch.is_none();
        Ok(batch)
    }

    fn last_error(&self) -> *const c_char {
        self.error.as_ref().map_or(ptr::null(), |e| e.as_ptr())
    }
}

fn errno_of(error: &Error) -> i32 {
    match error.kind() {
        ErrorKind::OutOfHostMemory | ErrorKind::OutOfDeviceMemory => libc::ENOMEM,
        ErrorKind::NotSupported => libc::ENOTSUP,
        ErrorKind::InvalidArgument | ErrorKind::Corrupted => libc::EINVAL,
        _ if error.errno() > 0 => error.errno(),
        _ => libc::EIO,
    }
}

fn behind(schema: Arc<Schema>, context: Context, next: Next) -> *mut Behind {
    Box::into_raw(Box::new(Behind {
        schema,
        context,
        next,
        ended: false,
        error: None,
    }))
}

/// A stream of device arrays.
pub(super) fn device(schema: Arc<Schema>, context: Context, next: Next) -> ArrowDeviceArrayStream {
    ArrowDeviceArrayStream {
        device_type: export::device(&context).0,
        get_schema: Some(device_schema),
        get_next: Some(device_next),
        get_last_error: Some(device_error),
        release: Some(device_release),
        private_data: behind(schema, context, next).cast(),
    }
}

/// A stream of arrays in ordinary memory: for the host device.
pub(super) fn host(schema: Arc<Schema>, context: Context, next: Next) -> ArrowArrayStream {
    ArrowArrayStream {
        get_schema: Some(host_schema),
        get_next: Some(host_next),
        get_last_error: Some(host_error),
        release: Some(host_release),
        private_data: behind(schema, context, next).cast(),
    }
}

macro_rules! callbacks {
    ($stream:ident, $array:ident, $schema:ident, $next:ident, $error:ident, $release:ident,
     $of:expr, $end:expr) => {
        /// # Safety
        /// A stream of this file that is not released, used by no other thread; a place.
        unsafe extern "C" fn $schema(stream: *mut $stream, out: *mut ArrowSchema) -> i32 {
            // SAFETY: the caller's promise.
            let Some(behind) = (unsafe { (*stream).private_data.cast::<Behind>().as_mut() }) else {
                return libc::EINVAL;
            };
            // SAFETY: the caller's promise.
            behind.run(|behind| unsafe { export::write_schema(&behind.schema, out) })
        }

        /// # Safety
        /// As above.
        unsafe extern "C" fn $next(stream: *mut $stream, out: *mut $array) -> i32 {
            // SAFETY: the caller's promise.
            let Some(behind) = (unsafe { (*stream).private_data.cast::<Behind>().as_mut() }) else {
                return libc::EINVAL;
            };
            behind.run(|behind| {
                let array = match behind.take()? {
                    Some(batch) => $of(&batch, &behind.context)?,
                    None => $end(&behind.context),
                };
                // SAFETY: the caller gives a place, whose contents are overwritten.
                unsafe { out.write(array) };
                Ok(())
            })
        }

        /// # Safety
        /// As above.
        unsafe extern "C" fn $error(stream: *mut $stream) -> *const c_char {
            // SAFETY: the caller's promise.
            let behind = unsafe { (*stream).private_data.cast::<Behind>().as_ref() };
            behind.map_or(ptr::null(), Behind::last_error)
        }

        /// # Safety
        /// As above.
        unsafe extern "C" fn $release(stream: *mut $stream) {
            // SAFETY: the caller gives a struct.
            let Some(stream) = (unsafe { stream.as_mut() }) else {
                return;
            };
            if stream.release.take().is_none() || stream.private_data.is_null() {
                return;
            }
            // SAFETY: made by `behind`, and this is the one release.
            let behind = unsafe { Box::from_raw(stream.private_data.cast::<Behind>()) };
            stream.private_data = ptr::null_mut();
            // What frees device memory must not unwind into C.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(behind)));
        }
    };
}

callbacks!(
    ArrowDeviceArrayStream,
    ArrowDeviceArray,
    device_schema,
    device_next,
    device_error,
    device_release,
    export::device_batch,
    |context| {
        let (kind, id) = export::device(context);
        export::device_array(export::released(), kind, id)
    }
);

callbacks!(
    ArrowArrayStream,
    ArrowArray,
    host_schema,
    host_next,
    host_error,
    host_release,
    |batch, _| export::batch(batch),
    |_| export::released()
);
