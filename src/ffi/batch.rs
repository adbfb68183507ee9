//! Batches: many transfers with one call and one ticket.

use std::fmt::Display;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::guard;
use super::handle;
use super::status::{self, gds_status_t};
use super::ticket::TicketObject;
use super::transfer::{completion_to_c, options_of};
use super::types::{
    gds_batch_entry_t, gds_completion_t, gds_context_t, gds_operation_t, gds_options_t,
    gds_ticket_t,
};
use crate::base::limits;
use crate::engine::Transfer;
use crate::error::{Error, ErrorKind};
use crate::io::Operation;

const _: () = assert!(size_of::<gds_batch_entry_t>() == 48);

/// Start many transfers together and return at once. One ticket stands for all.
///
/// The transfers have no order among themselves. Their memory must stay valid, and is nobody
/// else's, until the ticket is done. Reads and writes, files and kinds of memory may be
/// mixed.
///
/// @param entries     1 to 16,777,216; used during the call only.
/// @param options     for all of them; the deadline is that of the batch. NULL: as the
///                    context says.
/// @param ticket_out  give it to gds_ticket_destroy() once. Keeps files and buffers.
/// @return what is known before a byte moves, with the index of the entry in the message;
///         nothing has started then: GDS_STATUS_OUT_OF_RANGE: also for too many entries;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_READ_ONLY;
///         GDS_STATUS_NO_SPACE;
///         GDS_STATUS_FALLBACK_FORBIDDEN; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED. One transfer's failure does not stop
///         the others.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_batch_submit(
    context: *const gds_context_t,
    entries: *const gds_batch_entry_t,
    count: u64,
    options: *const gds_options_t,
    ticket_out: *mut *mut gds_ticket_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(ticket_out, "ticket_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let options = options_of(&unsafe { convert::read_optional(options)? })?;
        let max = limits::BATCH_ENTRIES_MAX;
        // SAFETY: the caller gives `count` entries.
        let transfers = transfers_of(unsafe { convert::array(entries, count, max, "entries")? })?;
        let ticket = context.submit(transfers, &options)?;
        // SAFETY: checked above.
        unsafe { ticket_out.write(handle::open(TicketObject::new(ticket))?) };
        Ok(())
    })
}

/// Tell how each transfer of a ticket went.
///
/// Each result has its own status: GDS_STATUS_PENDING until the ticket is done.
///
/// @param first        index of the first transfer to tell of, in the order of the entries.
/// @param count        how many.
/// @param results_out  `count` structs, filled. The struct_size of the first must be set,
///                     and is the distance from each to the next.
/// @return GDS_STATUS_OUT_OF_RANGE: the batch has fewer transfers;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_batch_results(
    ticket: *const gds_ticket_t,
    first: u64,
    count: u64,
    results_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(ticket, "ticket")?;
        let indexes = check_results(first, count, object.ticket.count())?;
        if indexes.is_empty() {
            return Ok(());
        }
        // SAFETY: the caller gives `count` structs, the first with its struct_size.
        let stride = unsafe { StructOut::new(results_out)? }.stride();
        for (position, index) in indexes.enumerate() {
            let result = result_to_c(&object, index);
            let place = results_out.wrapping_byte_add(position * stride);
            // SAFETY: as above; a multiple of 8 bytes further, so aligned.
            unsafe { convert::write_sized(place, stride, result)? };
        }
        Ok(())
    })
}

fn check_results(first: u64, count: u64, all: usize) -> Outcome<std::ops::Range<usize>> {
    let end = first
        .checked_add(count)
        .and_then(|end| usize::try_from(end).ok());
    match (usize::try_from(first), end) {
        (Ok(first), Some(end)) if end <= all => Ok(first..end),
        _ => Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{count} results from {first} were asked for; the ticket has {all}"),
        )
        .into()),
    }
}

fn result_to_c(object: &TicketObject, index: usize) -> gds_completion_t {
    let failed = |kind| gds_completion_t {
        status: status::of_kind(kind) as i32,
        ..gds_completion_t::initial()
    };
    match object.ticket.result(index) {
        Some(Ok(done)) => completion_to_c(&done),
        Some(Err(error)) => failed(error.kind()),
        None => failed(ErrorKind::Pending),
    }
}

fn transfers_of(entries: &[gds_batch_entry_t]) -> Outcome<Vec<Transfer>> {
    if entries.is_empty() {
        return Err(Failure::argument("count is 0; give at least one entry"));
    }
    let mut transfers = Vec::new();
    transfers.try_reserve_exact(entries.len()).map_err(|_| {
        Error::new(
            ErrorKind::OutOfHostMemory,
            format!(
                "no memory for a batch of {}; submit fewer entries",
                entries.len()
            ),
        )
    })?;
    for (index, entry) in entries.iter().enumerate() {
        transfers.push(transfer_of(format_args!("entries[{index}]"), entry)?);
    }
    Ok(transfers)
}

/// The transfer of an entry, which errors call `name`.
pub(crate) fn transfer_of(name: impl Display, entry: &gds_batch_entry_t) -> Outcome<Transfer> {
    let file = handle::borrow(entry.file, format_args!("{name}.file"))?;
    let buffer = handle::borrow(entry.buffer, format_args!("{name}.buffer"))?;
    let named = |failure: Failure| failure.at(&name);
    convert::check_range("file_offset", entry.file_offset, entry.size).map_err(named)?;
    convert::check_range("buffer_offset", entry.buffer_offset, entry.size).map_err(named)?;
    if entry.reserved != 0 {
        return Err(named(Failure::argument("reserved is not 0; set it to 0")));
    }
    Ok(Transfer {
        operation: operation_of(entry.operation).map_err(named)?,
        file: file.clone(),
        file_offset: entry.file_offset,
        buffer: buffer.clone(),
        buffer_offset: entry.buffer_offset,
        size: entry.size,
    })
}

fn operation_of(operation: i32) -> Outcome<Operation> {
    match operation {
        _ if operation == gds_operation_t::GDS_OPERATION_READ as i32 => Ok(Operation::Read),
        _ if operation == gds_operation_t::GDS_OPERATION_WRITE as i32 => Ok(Operation::Write),
        _ => Err(Failure::argument(format!(
            "operation is {operation}; it must be GDS_OPERATION_READ or GDS_OPERATION_WRITE"
        ))),
    }
}
