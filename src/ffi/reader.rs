//! The streaming reader: chunks in memory while earlier ones are worked on.

use core::ffi::c_void;
use std::ops::ControlFlow;
use std::ptr;

use super::config::policy_of;
use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::transfer::{path_to_c, switch};
use super::types::{
    gds_buffer_state_t as State, gds_buffer_t, gds_chunk_fn, gds_chunk_t, gds_cuda_stream_t,
    gds_file_t, gds_memory_kind_t as Kind, gds_range_t, gds_reader_config_t, gds_reader_info_t,
    gds_reader_t,
};
use crate::base::limits;
use crate::engine::{Buffer, MemoryKind, Options, Path, Stream};
use crate::error::{Error, ErrorKind};
use crate::prefetch::{BufferState, Chunk, Range, Reader, ReaderConfig};

impl Handle for gds_reader_t {
    type Object = Reader;
    const TAG: u32 = 0x4744_0010;
    const NAME: &'static str = "gds_reader_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and a raw pointer only.
unsafe impl AbiStruct for gds_reader_config_t {
    const NAME: &'static str = "gds_reader_config_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            buffers: limits::STREAM_BUFFERS_MIN,
            chunk_bytes: 0,
            memory: 0,
            path: 0,
            checksum: 0,
            fallback: 0,
            given: ptr::null(),
            given_count: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_chunk_t {
    const NAME: &'static str = "gds_chunk_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            buffer: 0,
            index: 0,
            address: 0,
            size: 0,
            file_offset: 0,
            range: 0,
            path: 0,
            has_crc32c: 0,
            crc32c: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_reader_info_t {
    const NAME: &'static str = "gds_reader_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            buffers: 0,
            chunk_bytes: 0,
            chunks: 0,
            bytes: 0,
            chunks_delivered: 0,
            bytes_delivered: 0,
            waits: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_reader_config_t>() == 48 && size_of::<gds_chunk_t>() == 56);
const _: () = assert!(size_of::<gds_reader_info_t>() == 56 && size_of::<gds_range_t>() == 24);

/// Fill a reader's configuration, as GDS_READER_CONFIG_INIT does.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_reader_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_config_init(
    config_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_reader_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_reader_config_t::initial()) }
    })
}

/// Read a whole file, chunk by chunk. Reading begins at once.
///
/// As gds_reader_open_ranges() with one range that holds the file.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_open(
    file: *const gds_file_t,
    config: *const gds_reader_config_t,
    reader_out: *mut *mut gds_reader_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL, and a place.
        unsafe { open(vec![Range::whole(&file)], config, reader_out) }
    })
}

/// Read ranges of files, one after the other, chunk by chunk. Reading begins at once.
///
/// All buffers that are free are being filled, whatever the caller does. A range that
/// passes the end of its file ends there, a range without bytes has no chunk, and no chunk
/// spans two ranges. What is appended to a file later is not read.
///
/// @param ranges      at least one, of one context; used during the call only.
/// @param config      NULL for the standard one.
/// @param reader_out  give it to gds_reader_close() once. Keeps the files.
/// @return GDS_STATUS_INVALID_CONFIG: the message names the field; GDS_STATUS_OUT_OF_RANGE;
///         GDS_STATUS_INVALID_ARGUMENT: also for files and buffers of two contexts;
///         GDS_STATUS_NOT_SUPPORTED: a file without a size, as in /proc;
///         GDS_STATUS_OUT_OF_DEVICE_MEMORY or GDS_STATUS_OUT_OF_HOST_MEMORY: ask for fewer
///         or smaller buffers; GDS_STATUS_FALLBACK_FORBIDDEN; GDS_STATUS_READ_ONLY: a file
///         that is open for writing alone; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_open_ranges(
    ranges: *const gds_range_t,
    count: u64,
    config: *const gds_reader_config_t,
    reader_out: *mut *mut gds_reader_t,
) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives `count` ranges.
        let ranges = unsafe { convert::array(ranges, count, limits::STREAM_RANGES_MAX, "ranges")? };
        let mut taken = Vec::with_capacity(ranges.len());
        for (index, range) in ranges.iter().enumerate() {
            let file = handle::borrow(range.file, format_args!("ranges[{index}].file"))?;
            taken.push(Range {
                file: file.clone(),
                offset: range.offset,
                size: range.size,
            });
        }
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL, and a place.
        unsafe { open(taken, config, reader_out) }
    })
}

/// # Safety `config` is NULL or points to as many bytes as its struct_size says; a non-NULL
/// `reader_out` is writable.
unsafe fn open(
    ranges: Vec<Range>,
    config: *const gds_reader_config_t,
    reader_out: *mut *mut gds_reader_t,
) -> Outcome {
    convert::check_pointer(reader_out, "reader_out")?;
    // SAFETY: the caller's promise.
    let config = unsafe { config_of(&convert::read_optional(config)?)? };
    let reader = Reader::open_ranges(ranges, &config)?;
    // SAFETY: checked above.
    unsafe { reader_out.write(handle::open(reader)?) };
    Ok(())
}

/// Wait until the next chunk is in memory. From then on every stream may use it.
///
/// It is the caller's until it is given back or the reader is closed. While all buffers are
/// with the caller no chunk comes, and this waits until one is given back.
///
/// @param timeout_ms  longest wait, milliseconds; -1 is for ever, 0 only looks.
/// @param chunk_out   struct_size set.
/// @return GDS_STATUS_END: every chunk was delivered; GDS_STATUS_PENDING: none within
///         timeout_ms; GDS_STATUS_CANCELLED: after gds_reader_cancel();
///         GDS_STATUS_FILE_CHANGED: a file became shorter since the reader was opened; what
///         went wrong with the chunk, as gds_read() answers it: the message and
///         gds_last_error() say which chunk, file and offset. That stays the answer; chunks
///         before it were delivered. GDS_STATUS_CUDA: also when the work of a stream failed
///         that a chunk was given back on; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_next(
    reader: *const gds_reader_t,
    timeout_ms: i64,
    chunk_out: *mut gds_chunk_t,
) -> gds_status_t {
    guard(|| {
        let reader = handle::borrow(reader, "reader")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(chunk_out)? };
        match reader.next(convert::timeout(timeout_ms)?)? {
            Some(chunk) => place.write(chunk_to_c(&chunk)),
            None => return Err(end("every chunk was delivered")),
        }
        Ok(())
    })
}

/// Give a chunk back: its buffer is filled again at once. In any order, from any thread.
///
/// @return GDS_STATUS_INVALID_ARGUMENT: also for a chunk that is not out;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_release(
    reader: *const gds_reader_t,
    chunk: *const gds_chunk_t,
) -> gds_status_t {
    guard(|| {
        let reader = handle::borrow(reader, "reader")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let chunk = unsafe { convert::read_struct(chunk)? };
        Ok(reader.release(&chunk_of(&chunk), None)?)
    })
}

/// Give a chunk back after the work that is in a CUDA stream now, such as kernels that read
/// it. Returns at once; the caller need not wait for the stream.
///
/// @param stream  of the context's device; NULL is the default stream. On the host device
///                the calling thread is the stream.
/// @return GDS_STATUS_CUDA: the stream cannot be marked, and the chunk stays the caller's,
///         or its work failed; as gds_reader_release().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_release_on(
    reader: *const gds_reader_t,
    chunk: *const gds_chunk_t,
    stream: gds_cuda_stream_t,
) -> gds_status_t {
    guard(|| {
        let reader = handle::borrow(reader, "reader")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let chunk = unsafe { convert::read_struct(chunk)? };
        Ok(reader.release(&chunk_of(&chunk), Some(Stream(stream.addr())))?)
    })
}

/// Call back with each chunk that is left, on this thread, until the end or until the
/// callback says stop. What is left then may be read on.
///
/// @param callback   not NULL.
/// @param user_data  handed to every call.
/// @param bytes_out  bytes of the chunks that the callback got. May be NULL.
/// @return GDS_STATUS_OK: also when the callback stopped; as gds_reader_next(), but for
///         GDS_STATUS_END and GDS_STATUS_PENDING.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_run(
    reader: *const gds_reader_t,
    callback: gds_chunk_fn,
    user_data: *mut c_void,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let reader = handle::borrow(reader, "reader")?;
        let call = callback.ok_or_else(|| Failure::null("callback"))?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let bytes = reader.run(|chunk| {
            let mut given = chunk_to_c(chunk);
            given.struct_size = size_of::<gds_chunk_t>() as u32;
            // SAFETY: the caller gave both together; the chunk lives through the call.
            let answer = unsafe { call(&raw const given, user_data) };
            Ok(match answer {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            })
        })?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Stop reading, from any thread. Returns at once.
///
/// gds_reader_next() answers GDS_STATUS_CANCELLED from now on, also where it waits. Chunks
/// that are out stay valid and may be given back.
///
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_cancel(reader: *const gds_reader_t) -> gds_status_t {
    guard(|| {
        handle::borrow(reader, "reader")?.cancel();
        Ok(())
    })
}

/// Tell how far a reader is.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_info(
    reader: *const gds_reader_t,
    info_out: *mut gds_reader_info_t,
) -> gds_status_t {
    guard(|| {
        let reader = handle::borrow(reader, "reader")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        let info = reader.info();
        place.write(gds_reader_info_t {
            buffers: info.buffers.len() as u32,
            chunk_bytes: info.chunk_bytes,
            chunks: info.chunks,
            bytes: info.bytes,
            chunks_delivered: info.chunks_delivered,
            bytes_delivered: info.bytes_delivered,
            waits: info.waits,
            ..gds_reader_info_t::initial()
        });
        Ok(())
    })
}

/// Tell what one buffer of a reader is doing.
///
/// @param buffer     from 0.
/// @param state_out  a gds_buffer_state_t.
/// @return GDS_STATUS_OUT_OF_RANGE: the reader has fewer buffers;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_buffer_state(
    reader: *const gds_reader_t,
    buffer: u32,
    state_out: *mut i32,
) -> gds_status_t {
    guard(|| {
        let reader = handle::borrow(reader, "reader")?;
        convert::check_pointer(state_out, "state_out")?;
        let state = reader.state(buffer).ok_or_else(|| {
            let text = format!("buffer is {buffer}; the reader has fewer, from 0");
            Failure::own(gds_status_t::GDS_STATUS_OUT_OF_RANGE, text)
        })?;
        // SAFETY: checked above.
        unsafe { state_out.write(state_to_c(state) as i32) };
        Ok(())
    })
}

/// Close a reader. NULL and closed handles are fine.
///
/// What is under way is stopped and waited for, and so are the streams that chunks were
/// given back on. The memory of every chunk is gone then: other CUDA work of the caller
/// that uses it must be done before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_reader_close(reader: *mut gds_reader_t) {
    guard_void(|| handle::close(reader));
}

/// That nothing is left, as an answer.
pub(crate) fn end(message: &str) -> Failure {
    Failure::own(gds_status_t::GDS_STATUS_END, message)
}

/// The choices of a reader or writer.
/// # Safety
/// `given.given` has `given.given_count` readable elements.
pub(crate) unsafe fn config_of(given: &gds_reader_config_t) -> Outcome<ReaderConfig> {
    let memory = match given.memory {
        0 => MemoryKind::Device,
        kind if kind == Kind::GDS_MEMORY_DEVICE as i32 => MemoryKind::Device,
        kind if kind == Kind::GDS_MEMORY_PINNED as i32 => MemoryKind::Pinned,
        kind => {
            return Err(Failure::argument(format!(
                "memory is {kind}; it must be GDS_MEMORY_DEVICE or GDS_MEMORY_PINNED"
            )));
        }
    };
    let standard = ReaderConfig::default();
    Ok(ReaderConfig {
        buffers: match given.buffers {
            0 => standard.buffers,
            count => count,
        },
        chunk_bytes: given.chunk_bytes,
        memory,
        // SAFETY: the caller's promise.
        given: unsafe { buffers_of(given)? },
        options: Options {
            path: policy_of(given.path).map_err(Failure::argument)?,
            checksum: switch("checksum", given.checksum)?,
            fallback: switch("fallback", given.fallback)?,
            ..Options::default()
        },
    })
}

/// # Safety
/// As `config_of`.
unsafe fn buffers_of(config: &gds_reader_config_t) -> Outcome<Vec<Buffer>> {
    let max = u64::from(limits::STREAM_BUFFERS_MAX);
    if config.given_count > max {
        let text = format!(
            "given_count is {}; it must be at most {max}",
            config.given_count
        );
        return Err(Error::new(ErrorKind::InvalidConfig, text).into());
    }
    // SAFETY: the caller's promise.
    let given = unsafe { convert::array(config.given, config.given_count, max, "given")? };
    let borrow = |(index, buffer): (usize, &*const gds_buffer_t)| {
        let buffer = handle::borrow(*buffer, format_args!("given[{index}]"))?;
        Ok((*buffer).clone())
    };
    given.iter().enumerate().map(borrow).collect()
}

fn chunk_to_c(chunk: &Chunk) -> gds_chunk_t {
    gds_chunk_t {
        buffer: chunk.buffer,
        index: chunk.index,
        address: chunk.address,
        size: chunk.size,
        file_offset: chunk.file_offset,
        range: chunk.range,
        path: path_to_c(chunk.path) as i32,
        has_crc32c: u32::from(chunk.crc32c.is_some()),
        crc32c: chunk.crc32c.unwrap_or(0),
        ..gds_chunk_t::initial()
    }
}

/// What names a chunk: its number and its buffer.
fn chunk_of(given: &gds_chunk_t) -> Chunk {
    Chunk {
        index: given.index,
        address: given.address,
        size: given.size,
        file_offset: given.file_offset,
        range: given.range,
        buffer: given.buffer,
        path: Path::None,
        crc32c: None,
    }
}

/// The state of the header.
pub(crate) fn state_to_c(state: BufferState) -> State {
    match state {
        BufferState::Idle => State::GDS_BUFFER_STATE_IDLE,
        BufferState::Filling => State::GDS_BUFFER_STATE_FILLING,
        BufferState::Ready => State::GDS_BUFFER_STATE_READY,
        BufferState::Processing => State::GDS_BUFFER_STATE_PROCESSING,
        BufferState::Flushing => State::GDS_BUFFER_STATE_FLUSHING,
    }
}
