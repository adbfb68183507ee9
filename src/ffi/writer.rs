//! The streaming writer: buffers on their way to a file while others are filled.

use super::convert;
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::reader::{config_of, state_to_c};
use super::status::gds_status_t;
use super::types::{gds_cuda_stream_t, gds_file_t, gds_reader_config_t, gds_space_t, gds_writer_t};
use crate::engine::Stream;
use crate::prefetch::{Space, Writer};

impl Handle for gds_writer_t {
    type Object = Writer;
    const TAG: u32 = 0x4744_0012;
    const NAME: &'static str = "gds_writer_t";
}

const _: () = assert!(size_of::<gds_space_t>() == 24);

/// Write a file from `offset` on, buffer by buffer. What is there is replaced, and the file
/// grows.
///
/// @param config      as for a reader; NULL for the standard one.
/// @param writer_out  give it to gds_writer_close() once. Keeps the file.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field; GDS_STATUS_READ_ONLY;
///         GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_OUT_OF_DEVICE_MEMORY or
///         GDS_STATUS_OUT_OF_HOST_MEMORY: ask for fewer or smaller buffers;
///         GDS_STATUS_FALLBACK_FORBIDDEN; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writer_open(
    file: *const gds_file_t,
    offset: u64,
    config: *const gds_reader_config_t,
    writer_out: *mut *mut gds_writer_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        convert::check_pointer(writer_out, "writer_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL, and what it names.
        let config = unsafe { config_of(&convert::read_optional(config)?)? };
        let writer = Writer::open(&file, offset, &config)?;
        // SAFETY: checked above.
        unsafe { writer_out.write(handle::open(writer)?) };
        Ok(())
    })
}

/// Wait for a buffer that is idle. It is the caller's to fill until it is submitted.
///
/// @param timeout_ms  longest wait, milliseconds; -1 is for ever, 0 only looks.
/// @param space_out   the buffer.
/// @return GDS_STATUS_PENDING: none within timeout_ms; why an earlier buffer could not be
///         written, as gds_write() answers it; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writer_acquire(
    writer: *const gds_writer_t,
    timeout_ms: i64,
    space_out: *mut gds_space_t,
) -> gds_status_t {
    guard(|| {
        let writer = handle::borrow(writer, "writer")?;
        convert::check_pointer(space_out, "space_out")?;
        let space = writer.acquire(convert::timeout(timeout_ms)?)?;
        let space = gds_space_t {
            address: space.address,
            size: space.size,
            buffer: space.buffer,
            reserved: 0,
        };
        // SAFETY: checked above.
        unsafe { space_out.write(space) };
        Ok(())
    })
}

/// Have the first `size` bytes of a buffer written after those that were submitted before.
/// Returns at once.
///
/// @param size        bytes; 0 gives the buffer back and writes nothing.
/// @param offset_out  where in the file they go, bytes. May be NULL.
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a buffer that is not out;
///         GDS_STATUS_OUT_OF_RANGE: more than it holds; the buffer stays the caller's then.
///         Why an earlier buffer could not be written: this one is not written either.
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writer_submit(
    writer: *const gds_writer_t,
    space: *const gds_space_t,
    size: u64,
    offset_out: *mut u64,
) -> gds_status_t {
    // SAFETY: the caller's promise.
    guard(|| unsafe { submit(writer, space, size, None, offset_out) })
}

/// As gds_writer_submit(), after the work that is in a CUDA stream now, such as kernels that
/// fill the buffer. Returns at once; the caller need not wait for the stream.
///
/// @param stream      of the context's device; NULL is the default stream. On the host
///                    device the calling thread is the stream.
/// @param offset_out  where in the file they go, bytes. May be NULL.
/// @return GDS_STATUS_CUDA: the stream cannot be marked, and the buffer stays the caller's;
///         as gds_writer_submit().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writer_submit_on(
    writer: *const gds_writer_t,
    space: *const gds_space_t,
    size: u64,
    stream: gds_cuda_stream_t,
    offset_out: *mut u64,
) -> gds_status_t {
    let stream = Some(Stream(stream.addr()));
    // SAFETY: the caller's promise.
    guard(|| unsafe { submit(writer, space, size, stream, offset_out) })
}

/// # Safety
/// A non-NULL `space` is readable, a non-NULL `offset_out` writable.
unsafe fn submit(
    writer: *const gds_writer_t,
    space: *const gds_space_t,
    size: u64,
    stream: Option<Stream>,
    offset_out: *mut u64,
) -> Outcome {
    let writer = handle::borrow(writer, "writer")?;
    convert::check_pointer(space, "space")?;
    convert::check_optional(offset_out, "offset_out")?;
    // SAFETY: checked above.
    let given = unsafe { space.read() };
    let space = Space {
        address: given.address,
        size: given.size,
        buffer: given.buffer,
    };
    let offset = writer.submit(&space, size, stream)?;
    // SAFETY: checked above.
    unsafe { convert::write_optional(offset_out, offset) };
    Ok(())
}

/// Wait until all that was submitted is written. More may be submitted afterwards. Durable
/// after gds_file_sync().
///
/// @param bytes_out  bytes written so far. May be NULL.
/// @return the failure nearest to the begin of the file, as gds_write() answers it, with its
///         offset: what was submitted before it is written, what came after it may be or
///         not.
///         GDS_STATUS_CUDA: also when the work of a stream failed;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writer_finish(
    writer: *const gds_writer_t,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let writer = handle::borrow(writer, "writer")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let bytes = writer.finish()?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Tell what one buffer of a writer is doing.
///
/// @param buffer     from 0.
/// @param state_out  a gds_buffer_state_t.
/// @return GDS_STATUS_OUT_OF_RANGE: the writer has fewer buffers;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writer_buffer_state(
    writer: *const gds_writer_t,
    buffer: u32,
    state_out: *mut i32,
) -> gds_status_t {
    guard(|| {
        let writer = handle::borrow(writer, "writer")?;
        convert::check_pointer(state_out, "state_out")?;
        let state = writer.state(buffer).ok_or_else(|| {
            let text = format!("buffer is {buffer}; the writer has fewer, from 0");
            Failure::own(gds_status_t::GDS_STATUS_OUT_OF_RANGE, text)
        })?;
        // SAFETY: checked above.
        unsafe { state_out.write(state_to_c(state) as i32) };
        Ok(())
    })
}

/// Close a writer. NULL and closed handles are fine.
///
/// Waits until all that was submitted is written. What fails then is told to nobody: call
/// gds_writer_finish() before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writer_close(writer: *mut gds_writer_t) {
    guard_void(|| handle::close(writer));
}
