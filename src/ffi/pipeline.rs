//! The pipeline: single requests, a bounded number under way.

use core::ffi::c_void;
use std::time::Duration;

use super::batch::transfer_of;
use super::config::policy_of;
use super::convert::{self, AbiStruct, StructOut};
use super::error::{self, Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::reader::end;
use super::status::{self, gds_status_t};
use super::transfer::{completion_to_c, switch};
use super::types::{
    gds_batch_entry_t, gds_completion_t, gds_context_t, gds_pipeline_config_t, gds_pipeline_info_t,
    gds_pipeline_t, gds_request_fn,
};
use crate::engine::{Completion, Options};
use crate::error::Result;
use crate::prefetch::{Callback, Pipeline, PipelineConfig, Request};

impl Handle for gds_pipeline_t {
    type Object = Pipeline;
    const TAG: u32 = 0x4744_0011;
    const NAME: &'static str = "gds_pipeline_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_pipeline_config_t {
    const NAME: &'static str = "gds_pipeline_config_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            max_outstanding: 0,
            coalesce_bytes: 0,
            path: 0,
            checksum: 0,
            fallback: 0,
            reserved: 0,
            deadline_ms: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_pipeline_info_t {
    const NAME: &'static str = "gds_pipeline_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            submitted: 0,
            completed: 0,
            failed: 0,
            outstanding: 0,
            batches: 0,
            transfers: 0,
            coalesced: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_pipeline_config_t>() == 40);
const _: () = assert!(size_of::<gds_pipeline_info_t>() == 64);

/// A callback of C with its data.
struct Call {
    call: unsafe extern "C" fn(u64, *const gds_completion_t, *mut c_void),
    user_data: *mut c_void,
}

// SAFETY: the header asks for a callback and user data that work on the pipeline's thread.
unsafe impl Send for Call {}

impl Call {
    fn run(self, id: u64, result: &Result<Completion>) {
        let mut completion = result_to_c(result);
        completion.struct_size = size_of::<gds_completion_t>() as u32;
        // SAFETY: the caller gave both together; the completion lives through the call.
        unsafe { (self.call)(id, &raw const completion, self.user_data) };
    }
}

/// Fill a pipeline's configuration, as GDS_PIPELINE_CONFIG_INIT does.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_pipeline_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_pipeline_config_init(
    config_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_pipeline_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_pipeline_config_t::initial()) }
    })
}

/// Start a pipeline.
///
/// Requests that wait have a queue a file, and files take turns. Requests that continue each
/// other in a file and in memory become one transfer.
///
/// @param config        NULL for the standard one.
/// @param pipeline_out  give it to gds_pipeline_close() once. Keeps the context.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_pipeline_open(
    context: *const gds_context_t,
    config: *const gds_pipeline_config_t,
    pipeline_out: *mut *mut gds_pipeline_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(pipeline_out, "pipeline_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let config = config_of(&unsafe { convert::read_optional(config)? })?;
        let pipeline = Pipeline::open(&context, &config)?;
        // SAFETY: checked above.
        unsafe { pipeline_out.write(handle::open(pipeline)?) };
        Ok(())
    })
}

/// Hand over a request. Requests have no order among themselves: wait for one before
/// submitting what depends on it.
///
/// The memory stays valid, and is nobody else's, until the request is over. While the
/// pipeline is full this waits until a request is over; in a callback of the pipeline it
/// does not wait.
///
/// @param request     used during the call only.
/// @param timeout_ms  longest wait for room, milliseconds; -1 is for ever, 0 does not wait.
/// @param callback    called exactly once, on the pipeline's thread, if the answer is
///                    GDS_STATUS_OK; else never. NULL: gds_pipeline_wait_one() tells
///                    instead.
/// @param user_data   handed to the callback; NULL without one.
/// @param id_out      the request's number, from 1. May be NULL.
/// @return GDS_STATUS_PENDING: no room within timeout_ms, or too many results were not
///         taken; GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED. What else goes wrong is the
///         request's result.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_pipeline_submit(
    pipeline: *const gds_pipeline_t,
    request: *const gds_batch_entry_t,
    timeout_ms: i64,
    callback: gds_request_fn,
    user_data: *mut c_void,
    id_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let pipeline = handle::borrow(pipeline, "pipeline")?;
        convert::check_pointer(request, "request")?;
        convert::check_optional(id_out, "id_out")?;
        let timeout = convert::timeout(timeout_ms)?;
        // SAFETY: checked above, and the caller gives a whole struct.
        let transfer = transfer_of("request", unsafe { &*request })?;
        let request = Request {
            operation: transfer.operation,
            file: transfer.file,
            file_offset: transfer.file_offset,
            buffer: transfer.buffer,
            buffer_offset: transfer.buffer_offset,
            size: transfer.size,
            callback: callback_of(callback, user_data)?,
        };
        let id = pipeline.submit(request, timeout)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(id_out, id) };
        Ok(())
    })
}

/// Take the result of a request without a callback, in the order in which they end.
///
/// @param timeout_ms      longest wait, milliseconds; -1 is for ever, 0 only looks.
/// @param id_out          which request. May be NULL.
/// @param completion_out  how it went, failures too: see its status, and gds_last_error()
///                        for the rest. struct_size set.
/// @return GDS_STATUS_OK: a result was taken, whatever it is; GDS_STATUS_END: no such
///         request is left; GDS_STATUS_PENDING: none is over within timeout_ms, or called
///         in a callback; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_pipeline_wait_one(
    pipeline: *const gds_pipeline_t,
    timeout_ms: i64,
    id_out: *mut u64,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let pipeline = handle::borrow(pipeline, "pipeline")?;
        convert::check_optional(id_out, "id_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(completion_out)? };
        let Some(done) = pipeline.wait_one(convert::timeout(timeout_ms)?)? else {
            return Err(end("no request is left whose result was not taken"));
        };
        place.write(result_to_c(&done.result));
        // SAFETY: checked above.
        unsafe { convert::write_optional(id_out, done.id) };
        Ok(())
    })
}

/// Wait until every request is over and every callback has returned. Results that were not
/// taken stay for gds_pipeline_wait_one().
///
/// @return GDS_STATUS_PENDING: called in a callback of this pipeline;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_pipeline_wait_all(pipeline: *const gds_pipeline_t) -> gds_status_t {
    guard(|| Ok(handle::borrow(pipeline, "pipeline")?.wait_all()?))
}

/// Tell what a pipeline has done so far.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_pipeline_info(
    pipeline: *const gds_pipeline_t,
    info_out: *mut gds_pipeline_info_t,
) -> gds_status_t {
    guard(|| {
        let pipeline = handle::borrow(pipeline, "pipeline")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        let info = pipeline.info();
        place.write(gds_pipeline_info_t {
            submitted: info.submitted,
            completed: info.completed,
            failed: info.failed,
            outstanding: info.outstanding,
            batches: info.batches,
            transfers: info.transfers,
            coalesced: info.coalesced,
            ..gds_pipeline_info_t::initial()
        });
        Ok(())
    })
}

/// Close a pipeline. NULL and closed handles are fine.
///
/// Requests that have not started end with GDS_STATUS_CANCELLED; this waits for the others
/// and for every callback, unless it is called in one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_pipeline_close(pipeline: *mut gds_pipeline_t) {
    guard_void(|| handle::close(pipeline));
}

fn callback_of(callback: gds_request_fn, user_data: *mut c_void) -> Outcome<Option<Callback>> {
    let Some(call) = callback else {
        if user_data.is_null() {
            return Ok(None);
        }
        return Err(Failure::argument(
            "user_data is set and callback is NULL; give a callback, or NULL for both",
        ));
    };
    let call = Call { call, user_data };
    Ok(Some(Box::new(move |id, result| call.run(id, result))))
}

/// The struct of the header. A failure becomes the thread's last error as well.
fn result_to_c(result: &Result<Completion>) -> gds_completion_t {
    match result {
        Ok(done) => completion_to_c(done),
        Err(error) => {
            error::set_last(error.clone().into());
            gds_completion_t {
                status: status::of_kind(error.kind()) as i32,
                ..gds_completion_t::initial()
            }
        }
    }
}

fn config_of(given: &gds_pipeline_config_t) -> Outcome<PipelineConfig> {
    if given.reserved != 0 {
        return Err(Failure::argument("reserved is not 0; set it to 0"));
    }
    Ok(PipelineConfig {
        max_outstanding: given.max_outstanding,
        coalesce_bytes: given.coalesce_bytes,
        options: Options {
            deadline: (given.deadline_ms > 0).then(|| Duration::from_millis(given.deadline_ms)),
            path: policy_of(given.path).map_err(Failure::argument)?,
            checksum: switch("checksum", given.checksum)?,
            fallback: switch("fallback", given.fallback)?,
            stream: None,
            sequence: None,
        },
    })
}
