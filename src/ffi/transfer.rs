//! Reads and writes: blocking, scattered, started, and ordered on a CUDA stream.

use std::time::Duration;

use super::config::policy_of;
use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::guard;
use super::handle::{self, Borrowed};
use super::status::gds_status_t;
use super::ticket::TicketObject;
use super::types::{
    gds_buffer_t, gds_completion_t, gds_cuda_stream_t, gds_file_t, gds_options_t, gds_path_t,
    gds_segment_t, gds_switch_t, gds_ticket_t,
};
use crate::base::limits;
use crate::device::Stream;
use crate::engine::{Buffer, Completion, File, Options, Path, Segment, Transfer};
use crate::io::Operation;

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and a raw pointer.
unsafe impl AbiStruct for gds_options_t {
    const NAME: &'static str = "gds_options_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            path: 0,
            deadline_ms: 0,
            checksum: 0,
            fallback: 0,
            use_stream: 0,
            reserved: 0,
            stream: std::ptr::null_mut(),
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_completion_t {
    const NAME: &'static str = "gds_completion_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            status: 0,
            bytes: 0,
            latency_ns: 0,
            path: 0,
            paths: 0,
            has_crc32c: 0,
            crc32c: 0,
            retries: 0,
            fallbacks: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_options_t>() == 40 && size_of::<gds_completion_t>() == 48);
const _: () = assert!(size_of::<gds_segment_t>() == 24);

/// Read a range of a file into a buffer, and wait for it.
///
/// Any offset, size and kind of memory works; offsets and sizes that are multiples of 4096
/// are fastest. Reading past the end of the file is not an error: `*bytes_out` says how much
/// arrived.
///
/// The bytes are in place when the call returns, for every stream. The call is not ordered
/// after work that is queued on CUDA streams: such work that uses the range must be done
/// before, or see gds_read_async(). From many threads at once, on ranges of memory that do
/// not overlap.
///
/// @param file_offset    bytes.
/// @param buffer         device, pinned, managed or pageable memory.
/// @param buffer_offset  where in the buffer the first byte goes, bytes.
/// @param size           bytes; 0 is fine.
/// @param bytes_out      bytes that arrived. May be NULL.
/// @return GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end or cannot be
///         addressed; GDS_STATUS_IO, GDS_STATUS_CUDA, GDS_STATUS_CUFILE: a part failed, the
///         memory holds nothing that counts; GDS_STATUS_FILE_CHANGED;
///         GDS_STATUS_INVALID_POINTER; GDS_STATUS_FALLBACK_FORBIDDEN;
///         GDS_STATUS_INVALID_ARGUMENT: also for a file opened without GDS_FILE_READ and for
///         a buffer of another context; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_read(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let done = range.run(Operation::Read, &Options::default())?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, done.bytes) };
        Ok(())
    })
}

/// Write a range of a buffer to a file, and wait for it. Not durable before gds_file_sync().
///
/// The file grows where needed. The bytes are taken when the call returns. As in gds_read(),
/// work that is queued on CUDA streams and makes the bytes must be done before, or see
/// gds_write_async(). From many threads at once, on ranges of the file that do not overlap.
///
/// @param file_offset    bytes.
/// @param buffer         device, pinned, managed or pageable memory.
/// @param buffer_offset  where in the buffer the first byte is, bytes.
/// @param size           bytes; 0 is fine.
/// @param bytes_out      bytes written, which is size. May be NULL.
/// @return GDS_STATUS_NO_SPACE: the disk or quota is full; GDS_STATUS_READ_ONLY: not opened
///         for writing; otherwise as gds_read().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_write(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let done = range.run(Operation::Write, &Options::default())?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, done.bytes) };
        Ok(())
    })
}

/// As gds_read(), with options, and with an account of how it went.
///
/// @param options         NULL: as the context says.
/// @param completion_out  struct_size set. May be NULL.
/// @return as gds_read(), and GDS_STATUS_TIMED_OUT; GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_read_with(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    options: *const gds_options_t,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        // SAFETY: the caller gives structs of struct_size bytes, or NULL.
        unsafe { with(options, completion_out, |o| range.run(Operation::Read, o)) }
    })
}

/// As gds_write(), with options, and with an account of how it went.
///
/// @param options         NULL: as the context says.
/// @param completion_out  struct_size set. May be NULL.
/// @return as gds_write(), and GDS_STATUS_TIMED_OUT; GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_write_with(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    options: *const gds_options_t,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        // SAFETY: the caller gives structs of struct_size bytes, or NULL.
        unsafe { with(options, completion_out, |o| range.run(Operation::Write, o)) }
    })
}

/// Read one range of a file into several pieces of memory, one after the other, and wait.
///
/// @param segments        1 to 1,048,576; any kinds of memory, mixed.
/// @param options         NULL: as the context says.
/// @param completion_out  struct_size set; its bytes are those of all segments. May be NULL.
/// @return as gds_read_with(); GDS_STATUS_OUT_OF_RANGE also for too many segments.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_readv(
    file: *const gds_file_t,
    file_offset: u64,
    segments: *const gds_segment_t,
    count: u64,
    options: *const gds_options_t,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        // SAFETY: the caller gives `count` segments.
        let segments = unsafe { segments_of(segments, count, file_offset)? };
        let run = |options: &Options| Ok(file.read_vectored(file_offset, &segments, options)?);
        // SAFETY: the caller gives structs of struct_size bytes, or NULL.
        unsafe { with(options, completion_out, run) }
    })
}

/// Write several pieces of memory, one after the other, to one range of a file, and wait.
///
/// @param segments        1 to 1,048,576; any kinds of memory, mixed.
/// @param options         NULL: as the context says.
/// @param completion_out  struct_size set; its bytes are those of all segments. May be NULL.
/// @return as gds_write_with(); GDS_STATUS_OUT_OF_RANGE also for too many segments.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_writev(
    file: *const gds_file_t,
    file_offset: u64,
    segments: *const gds_segment_t,
    count: u64,
    options: *const gds_options_t,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        // SAFETY: the caller gives `count` segments.
        let segments = unsafe { segments_of(segments, count, file_offset)? };
        let run = |options: &Options| Ok(file.write_vectored(file_offset, &segments, options)?);
        // SAFETY: the caller gives structs of struct_size bytes, or NULL.
        unsafe { with(options, completion_out, run) }
    })
}

/// Start a read and return at once. The ticket tells when it is done.
///
/// The memory must stay valid, and is nobody else's, until the ticket is done. Not ordered
/// with CUDA streams unless the options say so.
///
/// @param options     NULL: as the context says.
/// @param ticket_out  give it to gds_ticket_destroy() once. Keeps file and buffer.
/// @return what is known before a byte moves: GDS_STATUS_OUT_OF_RANGE,
///         GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FALLBACK_FORBIDDEN, GDS_STATUS_FORKED; nothing has started then. All
///         else comes with the ticket.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_read_start(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    options: *const gds_options_t,
    ticket_out: *mut *mut gds_ticket_t,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let options = options_of(&unsafe { convert::read_optional(options)? })?;
        // SAFETY: the caller gives a place for a pointer.
        unsafe { range.start(Operation::Read, &options, ticket_out) }
    })
}

/// Start a write and return at once. The ticket tells when it is done.
///
/// The memory must stay valid and unchanged until the ticket is done. Not ordered with CUDA
/// streams unless the options say so.
///
/// @param options     NULL: as the context says.
/// @param ticket_out  give it to gds_ticket_destroy() once. Keeps file and buffer.
/// @return as gds_read_start(), and GDS_STATUS_READ_ONLY, GDS_STATUS_NO_SPACE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_write_start(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    options: *const gds_options_t,
    ticket_out: *mut *mut gds_ticket_t,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let options = options_of(&unsafe { convert::read_optional(options)? })?;
        // SAFETY: the caller gives a place for a pointer.
        unsafe { range.start(Operation::Write, &options, ticket_out) }
    })
}

/// Read in the order of a CUDA stream, and return at once.
///
/// The memory is touched after all work that is in the stream at this moment, and work that
/// is queued afterwards sees the bytes: kernels need no wait on the host. Whether the read
/// went well is known to the ticket; a stream goes on after a failed read. The host device
/// has no streams: there the call returns when the read is done.
///
/// @param stream      of the context's device; NULL is the default stream. Lives until the
///                    ticket is done. Not while it is being captured into a graph.
/// @param ticket_out  give it to gds_ticket_destroy() once, which waits for an unfinished
///                    read.
/// @return as gds_read_start(), and GDS_STATUS_CUDA: the stream refuses;
///         GDS_STATUS_NOT_SUPPORTED: the GPU is older than compute capability 7.5.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_read_async(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    stream: gds_cuda_stream_t,
    ticket_out: *mut *mut gds_ticket_t,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        // SAFETY: the caller gives a place for a pointer.
        unsafe { range.start(Operation::Read, &on_stream(stream), ticket_out) }
    })
}

/// Write in the order of a CUDA stream, and return at once.
///
/// The memory is read after all work that is in the stream at this moment, and work that is
/// queued afterwards may change it. Otherwise as gds_read_async().
///
/// @param stream      as for gds_read_async().
/// @param ticket_out  give it to gds_ticket_destroy() once, which waits for an unfinished
///                    write.
/// @return as gds_read_async(), and GDS_STATUS_READ_ONLY, GDS_STATUS_NO_SPACE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_write_async(
    file: *const gds_file_t,
    file_offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    stream: gds_cuda_stream_t,
    ticket_out: *mut *mut gds_ticket_t,
) -> gds_status_t {
    guard(|| {
        let range = Range::new(file, file_offset, buffer, buffer_offset, size)?;
        // SAFETY: the caller gives a place for a pointer.
        unsafe { range.start(Operation::Write, &on_stream(stream), ticket_out) }
    })
}

/// Checked arguments of one transfer.
struct Range {
    file: Borrowed<File>,
    file_offset: u64,
    buffer: Borrowed<Buffer>,
    buffer_offset: u64,
    size: u64,
}

impl Range {
    #[inline(always)]
    fn new(
        file: *const gds_file_t,
        file_offset: u64,
        buffer: *const gds_buffer_t,
        buffer_offset: u64,
        size: u64,
    ) -> Outcome<Self> {
        let file = handle::borrow(file, "file")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_range("file_offset", file_offset, size)?;
        convert::check_range("buffer_offset", buffer_offset, size)?;
        Ok(Self {
            file,
            file_offset,
            buffer,
            buffer_offset,
            size,
        })
    }

    #[inline]
    fn run(&self, operation: Operation, options: &Options) -> Outcome<Completion> {
        let (file, at, to) = (&*self.file, self.file_offset, self.buffer_offset);
        Ok(match operation {
            Operation::Read => file.read_with(at, &self.buffer, to, self.size, options),
            Operation::Write => file.write_with(at, &self.buffer, to, self.size, options),
        }?)
    }

    /// # Safety
    /// A non-NULL `ticket_out` is writable.
    unsafe fn start(
        &self,
        operation: Operation,
        options: &Options,
        ticket_out: *mut *mut gds_ticket_t,
    ) -> Outcome {
        convert::check_pointer(ticket_out, "ticket_out")?;
        let transfer = Transfer {
            operation,
            file: self.file.clone(),
            file_offset: self.file_offset,
            buffer: self.buffer.clone(),
            buffer_offset: self.buffer_offset,
            size: self.size,
        };
        let ticket = self.file.context().submit(vec![transfer], options)?;
        // SAFETY: checked above.
        unsafe { ticket_out.write(handle::open(TicketObject::new(ticket))?) };
        Ok(())
    }
}

/// Runs a blocking transfer between its options and its account.
///
/// # Safety
/// Both point to structs of as many bytes as their struct_size says, or are NULL.
pub(super) unsafe fn with(
    options: *const gds_options_t,
    completion_out: *mut gds_completion_t,
    run: impl FnOnce(&Options) -> Outcome<Completion>,
) -> Outcome {
    // SAFETY: the caller's promise.
    let options = options_of(&unsafe { convert::read_optional(options)? })?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::optional(completion_out)? };
    let done = run(&options)?;
    if let Some(place) = place {
        place.write(completion_to_c(&done));
    }
    Ok(())
}

/// # Safety
/// A non-NULL `segments` points to `count` segments.
unsafe fn segments_of(
    segments: *const gds_segment_t,
    count: u64,
    file_offset: u64,
) -> Outcome<Vec<Segment>> {
    if count == 0 {
        return Err(Failure::argument("count is 0; give at least one segment"));
    }
    // SAFETY: the caller's promise.
    let given = unsafe { convert::array(segments, count, limits::SEGMENTS_MAX, "segments")? };
    let mut at = file_offset;
    let mut taken = Vec::with_capacity(given.len());
    for (index, segment) in given.iter().enumerate() {
        let buffer = handle::borrow(segment.buffer, format_args!("segments[{index}].buffer"))?;
        convert::check_range("file_offset", at, segment.size)?;
        convert::check_range("segment offset", segment.offset, segment.size)?;
        at += segment.size;
        let (offset, size) = (segment.offset, segment.size);
        taken.push(Segment {
            buffer: buffer.clone(),
            offset,
            size,
        });
    }
    Ok(taken)
}

pub(super) fn on_stream(stream: gds_cuda_stream_t) -> Options {
    Options {
        stream: Some(Stream(stream.addr())),
        ..Options::default()
    }
}

/// The Rust options.
pub(crate) fn options_of(given: &gds_options_t) -> Outcome<Options> {
    if given.reserved != 0 {
        return Err(Failure::argument(format!(
            "reserved is {}; it must be 0",
            given.reserved
        )));
    }
    let use_stream = convert::boolean("use_stream", given.use_stream)?;
    if !use_stream && !given.stream.is_null() {
        return Err(Failure::argument(
            "stream is set and use_stream is 0; set it to 1",
        ));
    }
    Ok(Options {
        deadline: (given.deadline_ms > 0).then(|| Duration::from_millis(given.deadline_ms)),
        path: policy_of(given.path).map_err(Failure::argument)?,
        checksum: switch("checksum", given.checksum)?,
        fallback: switch("fallback", given.fallback)?,
        stream: use_stream.then(|| Stream(given.stream.addr())),
        sequence: None,
    })
}

/// A gds_switch_t of the caller.
pub(crate) fn switch(name: &str, value: i32) -> Outcome<Option<bool>> {
    match value {
        _ if value == gds_switch_t::GDS_SWITCH_DEFAULT as i32 => Ok(None),
        _ if value == gds_switch_t::GDS_SWITCH_ON as i32 => Ok(Some(true)),
        _ if value == gds_switch_t::GDS_SWITCH_OFF as i32 => Ok(Some(false)),
        _ => Err(Failure::argument(format!(
            "{name} is {value}; it must be a gds_switch_t, 0 to 2"
        ))),
    }
}

/// The struct of the header.
pub(crate) fn completion_to_c(done: &Completion) -> gds_completion_t {
    gds_completion_t {
        status: gds_status_t::GDS_STATUS_OK as i32,
        bytes: done.bytes,
        latency_ns: done.latency_ns,
        path: path_to_c(done.path) as i32,
        paths: done.paths,
        has_crc32c: u32::from(done.crc32c.is_some()),
        crc32c: done.crc32c.unwrap_or(0),
        retries: done.retries,
        fallbacks: done.fallbacks,
        ..gds_completion_t::initial()
    }
}

/// The way of the header.
pub(crate) fn path_to_c(path: Path) -> gds_path_t {
    match path {
        Path::None => gds_path_t::GDS_PATH_NONE,
        Path::Host => gds_path_t::GDS_PATH_HOST,
        Path::HostDirect => gds_path_t::GDS_PATH_HOST_DIRECT,
        Path::Bounce => gds_path_t::GDS_PATH_BOUNCE,
        Path::PageCache => gds_path_t::GDS_PATH_PAGE_CACHE,
        Path::CuFile => gds_path_t::GDS_PATH_CUFILE,
    }
}

// The header's path numbers are those of the engine's masks and counters.
const _: () = assert!(
    gds_path_t::GDS_PATH_NONE as u32 == Path::None as u32
        && gds_path_t::GDS_PATH_HOST as u32 == Path::Host as u32
        && gds_path_t::GDS_PATH_HOST_DIRECT as u32 == Path::HostDirect as u32
        && gds_path_t::GDS_PATH_BOUNCE as u32 == Path::Bounce as u32
        && gds_path_t::GDS_PATH_PAGE_CACHE as u32 == Path::PageCache as u32
        && gds_path_t::GDS_PATH_CUFILE as u32 == Path::CuFile as u32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_say_nothing_leave_all_to_the_context() {
        let options = options_of(&gds_options_t::initial()).unwrap();
        assert!(options.deadline.is_none() && options.path.is_none() && options.stream.is_none());
        assert!(options.checksum.is_none() && options.fallback.is_none());
    }

    #[test]
    fn options_without_a_meaning_are_refused() {
        type Change = fn(&mut gds_options_t);
        let changes: [Change; 6] = [
            |o| o.path = 5,
            |o| o.checksum = 3,
            |o| o.fallback = -1,
            |o| o.use_stream = 2,
            |o| o.reserved = 1,
            |o| o.stream = std::ptr::without_provenance_mut(8),
        ];
        for change in changes {
            let mut options = gds_options_t::initial();
            change(&mut options);
            let failure = options_of(&options).unwrap_err();
            assert_eq!(failure.status, gds_status_t::GDS_STATUS_INVALID_ARGUMENT);
        }
    }
}
