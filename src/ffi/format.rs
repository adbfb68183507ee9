//! Formats: what a file is, and plans of what to read of it.

use core::ffi::{c_char, c_void};
use std::ops::ControlFlow;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::ticket::{TicketObject, Work};
use super::transfer::{on_stream, options_of, with};
use super::types::{
    gds_buffer_t, gds_completion_t, gds_cuda_stream_t, gds_file_t, gds_format_t as F,
    gds_options_t, gds_piece_t, gds_plan_info_t, gds_plan_t, gds_ticket_t, gds_window_fn,
    gds_window_part_t, gds_window_t,
};
use crate::base::limits;
use crate::engine::{File, Options};
use crate::formats::{FileSource, Format, Load, Plan, ReadOptions, Window, WindowPart, detect};

impl Handle for gds_plan_t {
    type Object = Load;
    const TAG: u32 = 0x4744_0050;
    const NAME: &'static str = "gds_plan_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_plan_info_t {
    const NAME: &'static str = "gds_plan_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            files: 0,
            size_bytes: 0,
            bytes: 0,
            pieces: 0,
            reads: 0,
            gathered: 0,
            read_bytes: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_window_t>() == 24 && size_of::<gds_window_part_t>() == 32);
const _: () = assert!(size_of::<gds_plan_info_t>() == 56 && size_of::<gds_piece_t>() == 40);

/// Tell what a file holds, by its contents. Reads a few KiB; its name does not matter.
///
/// @param format_out  a gds_format_t; GDS_FORMAT_UNKNOWN for what is none of them, empty
///                    files included.
/// @return GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_format_detect(
    file: *const gds_file_t,
    format_out: *mut i32,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        convert::check_pointer(format_out, "format_out")?;
        let found = detect(&FileSource::new(&file)?)?;
        // SAFETY: checked above.
        unsafe { format_out.write(format_to_c(found.format) as i32) };
        Ok(())
    })
}

/// The name of a format: "Parquet", "safetensors", ... Never NULL: a number that is no
/// format answers "unknown". The text is static. Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn gds_format_name(format: i32) -> *const c_char {
    let found = Format::ALL
        .iter()
        .find(|f| format_to_c(**f) as i32 == format);
    let name = match found.copied().unwrap_or(Format::Unknown) {
        Format::Unknown => c"unknown",
        Format::Elf => c"ELF",
        Format::Parquet => c"Parquet",
        Format::ArrowFile => c"Arrow IPC file",
        Format::ArrowStream => c"Arrow IPC stream",
        Format::Safetensors => c"safetensors",
        Format::Gguf => c"GGUF",
        Format::SafetensorsIndex => c"safetensors index",
        Format::Feather1 => c"Feather 1",
        Format::Orc => c"ORC",
        Format::Numpy => c"NumPy array",
        Format::Zstd => c"Zstandard frame",
        Format::Lz4Frame => c"LZ4 frame",
        Format::Gzip => c"gzip",
        Format::Zip => c"zip archive",
        Format::Hdf5 => c"HDF5",
        Format::Vortex => c"Vortex",
    };
    name.as_ptr()
}

/// Make a plan of your own. Readers of formats make theirs.
///
/// @param pieces    1 to 16,777,216, whose places in the destination do not overlap; used
///                  during the call only.
/// @param plan_out  give it to gds_plan_destroy() once. Keeps the files.
/// @return GDS_STATUS_OUT_OF_RANGE: also for too many pieces; GDS_STATUS_INVALID_ARGUMENT:
///         also for files of two contexts; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_create(
    pieces: *const gds_piece_t,
    count: u64,
    plan_out: *mut *mut gds_plan_t,
) -> gds_status_t {
    guard(|| {
        convert::check_pointer(plan_out, "plan_out")?;
        // SAFETY: the caller gives `count` pieces.
        let pieces = unsafe { convert::array(pieces, count, limits::PLAN_PIECES_MAX, "pieces")? };
        let load = load_of(pieces)?;
        // SAFETY: checked above.
        unsafe { plan_out.write(handle::open(load)?) };
        Ok(())
    })
}

/// Give a plan back. NULL and destroyed handles are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_destroy(plan: *mut gds_plan_t) {
    guard_void(|| handle::close(plan));
}

/// Tell what a plan reads.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_info(
    plan: *const gds_plan_t,
    info_out: *mut gds_plan_info_t,
) -> gds_status_t {
    guard(|| {
        let load = handle::borrow(plan, "plan")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        let outline = load.outline(ReadOptions::default().gap);
        place.write(gds_plan_info_t {
            files: load.parts().len() as u32,
            size_bytes: load.size(),
            bytes: outline.bytes,
            pieces: outline.pieces,
            reads: outline.straight + outline.gathered,
            gathered: outline.gathered,
            read_bytes: outline.read_bytes,
            ..gds_plan_info_t::initial()
        });
        Ok(())
    })
}

/// Tell the pieces of a plan, file after file.
///
/// @param first       the first that is wanted, from 0.
/// @param count       how many `pieces_out` has room for.
/// @param pieces_out  filled with those that there are.
/// @param count_out   how many were written.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_pieces(
    plan: *const gds_plan_t,
    first: u64,
    count: u64,
    pieces_out: *mut gds_piece_t,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let load = handle::borrow(plan, "plan")?;
        convert::check_pointer(count_out, "count_out")?;
        if count > 0 {
            convert::check_pointer(pieces_out, "pieces_out")?;
        }
        let (skip, take) = (usize_of(first), usize_of(count));
        let mut written = 0;
        for piece in pieces_to_c(&load).skip(skip).take(take) {
            // SAFETY: the caller gives room for `count` pieces, and `written` is below that.
            unsafe { pieces_out.add(written).write(piece) };
            written += 1;
        }
        // SAFETY: checked above.
        unsafe { count_out.write(written as u64) };
        Ok(())
    })
}

/// Read everything that a plan names, and wait. Neighbours are read together; small pieces
/// that go to other distances than the file's pass through up to 32 MiB of scratch memory of
/// the device, which is freed again.
///
/// Bytes of the destination between pieces are unspecified afterwards. With a stream in the
/// options the memory is touched after what is in the stream now, and the call waits for it
/// where it needs scratch memory.
///
/// @param buffer          of the files' context; the plan's size_bytes fit behind the
///                        offset.
/// @param buffer_offset   where the destination begins in the buffer, bytes.
/// @param options         NULL: as the context says. No checksum is computed.
/// @param completion_out  struct_size set; its bytes are those that were wanted. May be
///                        NULL.
/// @return GDS_STATUS_OUT_OF_RANGE: it does not fit; GDS_STATUS_CORRUPTED: a file ends
///         before its pieces do; GDS_STATUS_FILE_CHANGED; GDS_STATUS_OUT_OF_DEVICE_MEMORY;
///         as gds_read_with().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_read(
    plan: *const gds_plan_t,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    options: *const gds_options_t,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let load = handle::borrow(plan, "plan")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        let run = |options: &Options| {
            let options = ReadOptions {
                transfer: options.clone(),
                ..ReadOptions::default()
            };
            Ok(load.read(&buffer, buffer_offset, &options)?)
        };
        // SAFETY: the caller gives structs of struct_size bytes, or NULL.
        unsafe { with(options, completion_out, run) }
    })
}

/// Start to read everything that a plan names, and return at once. The ticket tells when it
/// is done; its bytes are at least those that were wanted, and may count what stands between
/// pieces that are read together.
///
/// As gds_plan_read(), on a thread of its own where it needs scratch memory; in the order of
/// a stream none is used, and small pieces are read one by one.
///
/// @param options     NULL: as the context says.
/// @param ticket_out  give it to gds_ticket_destroy() once. Keeps the files and the buffer.
/// @return as gds_plan_read() and gds_read_start(); GDS_STATUS_INVALID_ARGUMENT also for a
///         plan without bytes.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_start(
    plan: *const gds_plan_t,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    options: *const gds_options_t,
    ticket_out: *mut *mut gds_ticket_t,
) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let options = options_of(&unsafe { convert::read_optional(options)? })?;
        // SAFETY: the caller gives a place for a pointer.
        unsafe { start(plan, buffer, buffer_offset, options, ticket_out) }
    })
}

/// Read everything that a plan names in the order of a CUDA stream, and return at once.
///
/// As gds_plan_start(), ordered as gds_read_async() is.
///
/// @param stream      as for gds_read_async().
/// @param ticket_out  give it to gds_ticket_destroy() once.
/// @return as gds_plan_start() and gds_read_async().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_read_async(
    plan: *const gds_plan_t,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    stream: gds_cuda_stream_t,
    ticket_out: *mut *mut gds_ticket_t,
) -> gds_status_t {
    guard(|| {
        // SAFETY: the caller gives a place for a pointer.
        unsafe { start(plan, buffer, buffer_offset, on_stream(stream), ticket_out) }
    })
}

/// Read a plan of any size in bounded memory, file after file, the pieces of each in their
/// order: two windows, one read while the callback works on the other. Where the plan places
/// its pieces does not matter.
///
/// @param memory_bytes  device memory of both windows together, at least 131,072.
/// @param callback      not NULL.
/// @param user_data     handed to every call.
/// @param bytes_out     bytes that the callback got. May be NULL.
/// @return GDS_STATUS_OK: also when the callback stopped;
///         GDS_STATUS_OUT_OF_DEVICE_MEMORY; as gds_plan_read().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_plan_stream(
    plan: *const gds_plan_t,
    memory_bytes: u64,
    callback: gds_window_fn,
    user_data: *mut c_void,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let load = handle::borrow(plan, "plan")?;
        let call = callback.ok_or_else(|| Failure::null("callback"))?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let options = ReadOptions::default();
        let bytes = load.stream(memory_bytes, &options, |file, window| {
            let parts: Vec<gds_window_part_t> =
                window.parts.iter().map(part_to_c(window)).collect();
            let given = gds_window_t {
                struct_size: size_of::<gds_window_t>() as u32,
                file_index: file as u32,
                parts: parts.as_ptr(),
                count: parts.len() as u64,
            };
            // SAFETY: the caller gave both together; the window lives through the call.
            Ok(match unsafe { call(&raw const given, user_data) } {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            })
        })?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

fn part_to_c(window: &Window<'_>) -> impl Fn(&WindowPart) -> gds_window_part_t {
    let address = window.buffer.address();
    move |part| gds_window_part_t {
        piece: part.piece as u64,
        offset: part.offset,
        size: part.size,
        address: address + part.at,
    }
}

/// # Safety
/// A non-NULL `ticket_out` is writable.
unsafe fn start(
    plan: *const gds_plan_t,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    options: Options,
    ticket_out: *mut *mut gds_ticket_t,
) -> Outcome {
    let load = handle::borrow(plan, "plan")?;
    let buffer = handle::borrow(buffer, "buffer")?;
    convert::check_pointer(ticket_out, "ticket_out")?;
    let options = ReadOptions {
        transfer: options,
        ..ReadOptions::default()
    };
    let started = load.start(&buffer, buffer_offset, &options)?;
    let ticket = TicketObject::of(Work::Plan(started));
    // SAFETY: checked above.
    unsafe { ticket_out.write(handle::open(ticket)?) };
    Ok(())
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Pieces of one file after those of another, whatever their order.
fn load_of(pieces: &[gds_piece_t]) -> Outcome<Load> {
    let mut plans: Vec<(File, Plan)> = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        if piece.file_index != 0 {
            let text = format!(
                "pieces[{index}].file_index is {}; it must be 0",
                piece.file_index
            );
            return Err(Failure::argument(text));
        }
        let file = handle::borrow(piece.file, format_args!("pieces[{index}].file"))?;
        convert::check_range("file_offset", piece.file_offset, piece.size)?;
        convert::check_range("to_offset", piece.to_offset, piece.size)?;
        let known = plans.iter().position(|(known, _)| known.is_same(&file));
        let at = known.unwrap_or_else(|| {
            plans.push((file.clone(), Plan::new()));
            plans.len() - 1
        });
        plans[at]
            .1
            .push_at(piece.file_offset, piece.size, piece.to_offset)?;
    }
    if plans.is_empty() {
        return Err(Failure::argument(
            "count is 0; a plan has at least one piece".to_owned(),
        ));
    }
    let mut load = Load::default();
    for (file, plan) in plans {
        load.push(&file, plan);
    }
    Ok(load)
}

fn pieces_to_c(load: &Load) -> impl Iterator<Item = gds_piece_t> + '_ {
    load.parts()
        .iter()
        .enumerate()
        .flat_map(|(number, (_, plan))| {
            plan.pieces().iter().map(move |piece| gds_piece_t {
                file_offset: piece.file_offset,
                size: piece.size,
                to_offset: piece.to_offset,
                file: std::ptr::null(),
                file_index: number as u64,
            })
        })
}

pub(super) fn format_to_c(format: Format) -> F {
    match format {
        Format::Unknown => F::GDS_FORMAT_UNKNOWN,
        Format::Elf => F::GDS_FORMAT_ELF,
        Format::Parquet => F::GDS_FORMAT_PARQUET,
        Format::ArrowFile => F::GDS_FORMAT_ARROW_FILE,
        Format::ArrowStream => F::GDS_FORMAT_ARROW_STREAM,
        Format::Safetensors => F::GDS_FORMAT_SAFETENSORS,
        Format::Gguf => F::GDS_FORMAT_GGUF,
        Format::SafetensorsIndex => F::GDS_FORMAT_SAFETENSORS_INDEX,
        Format::Feather1 => F::GDS_FORMAT_FEATHER1,
        Format::Orc => F::GDS_FORMAT_ORC,
        Format::Numpy => F::GDS_FORMAT_NUMPY,
        Format::Zstd => F::GDS_FORMAT_ZSTD,
        Format::Lz4Frame => F::GDS_FORMAT_LZ4_FRAME,
        Format::Gzip => F::GDS_FORMAT_GZIP,
        Format::Zip => F::GDS_FORMAT_ZIP,
        Format::Hdf5 => F::GDS_FORMAT_HDF5,
        Format::Vortex => F::GDS_FORMAT_VORTEX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn numbers_and_names_are_those_of_rust() {
        for format in Format::ALL {
            assert_eq!(format_to_c(format) as u32, format as u32);
            // SAFETY: a static text.
            let name = unsafe { CStr::from_ptr(gds_format_name(format as i32)) };
            assert_eq!(name.to_str(), Ok(format.name()));
        }
        // SAFETY: a static text.
        let name = unsafe { CStr::from_ptr(gds_format_name(-7)) };
        assert_eq!(name, c"unknown");
    }
}
