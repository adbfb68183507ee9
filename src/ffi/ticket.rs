//! Tickets: transfers that go on by themselves.

use core::ffi::c_int;
use std::sync::OnceLock;
use std::time::Duration;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Outcome, Report};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::transfer::completion_to_c;
use super::types::{gds_completion_t, gds_error_info_t, gds_ticket_t};
use crate::engine::{Completion, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Started;

/// What a ticket stands for.
#[derive(Debug)]
pub(crate) enum Work {
    /// Transfers of the engine.
    Job(Ticket),
    /// A plan of a reader of formats.
    Plan(Started),
}

impl Work {
    fn is_done(&self) -> bool {
        match self {
            Self::Job(ticket) => ticket.is_done(),
            Self::Plan(started) => started.is_done(),
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Completion> {
        match self {
            Self::Job(ticket) => ticket.wait(timeout),
            Self::Plan(started) => started.wait(timeout),
        }
    }

    fn completion(&self) -> Option<Result<Completion>> {
        match self {
            Self::Job(ticket) => ticket.completion(),
            Self::Plan(started) => started.completion(),
        }
    }

    fn cancel(&self) {
        match self {
            Self::Job(ticket) => ticket.cancel(),
            Self::Plan(started) => started.cancel(),
        }
    }

    fn event_fd(&self) -> Result<c_int> {
        match self {
            Self::Job(ticket) => ticket.event_fd(),
            Self::Plan(started) => started.event_fd(),
        }
    }

    /// Transfers that have a result of their own; a plan is one.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Job(ticket) => ticket.count(),
            Self::Plan(_) => 1,
        }
    }

    /// How one of them ended, once all have.
    pub(crate) fn result(&self, index: usize) -> Option<Result<Completion>> {
        match self {
            Self::Job(ticket) => ticket.result(index),
            Self::Plan(started) => started.completion(),
        }
    }
}

/// A ticket and, once it failed, its failure in the form that C reads.
#[derive(Debug)]
pub(crate) struct TicketObject {
    pub(crate) ticket: Work,
    report: OnceLock<Report>,
}

impl TicketObject {
    pub(crate) fn new(ticket: Ticket) -> Self {
        Self::of(Work::Job(ticket))
    }

    pub(crate) fn of(ticket: Work) -> Self {
        Self {
            ticket,
            report: OnceLock::new(),
        }
    }

    /// What gds_ticket_error() tells.
    fn info(&self) -> Outcome<gds_error_info_t> {
        match self.ticket.completion() {
            None => Err(Error::new(
                ErrorKind::Pending,
                "the transfer is under way and has no result; wait for the ticket first",
            )
            .into()),
            Some(Ok(_)) => Ok(gds_error_info_t::initial()),
            Some(Err(error)) => Ok(self.report.get_or_init(|| Report::new(error.into())).info()),
        }
    }
}

impl Handle for gds_ticket_t {
    type Object = TicketObject;
    const TAG: u32 = 0x4744_0004;
    const NAME: &'static str = "gds_ticket_t";
}

/// Tell whether a ticket is done, at once.
///
/// @param done_out  1: done, well or not, and no transfer touches the memory. 0: not yet.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED. How
///         the transfer went is told by gds_ticket_wait() and gds_ticket_error().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_ticket_poll(
    ticket: *const gds_ticket_t,
    done_out: *mut i32,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(ticket, "ticket")?;
        convert::check_pointer(done_out, "done_out")?;
        let done = i32::from(object.ticket.is_done());
        // SAFETY: checked above.
        unsafe { done_out.write(done) };
        Ok(())
    })
}

/// Wait until a ticket is done, and tell how the transfer went.
///
/// From as many threads as you like, as often as you like. Of a batch, the sum of its
/// transfers, or the first failure. The memory is the caller's again when the ticket is
/// done.
///
/// @param timeout_ms      longest wait, milliseconds; -1 is for ever, 0 only looks.
/// @param completion_out  struct_size set. May be NULL.
/// @return GDS_STATUS_PENDING: not done within timeout_ms, the transfer goes on;
///         GDS_STATUS_TIMED_OUT: done, its own deadline_ms passed; GDS_STATUS_CANCELLED:
///         done, after gds_ticket_cancel(); what a blocking transfer answers;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_ticket_wait(
    ticket: *const gds_ticket_t,
    timeout_ms: i64,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(ticket, "ticket")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let place = unsafe { StructOut::optional(completion_out)? };
        let done = object.ticket.wait(convert::timeout(timeout_ms)?)?;
        if let Some(place) = place {
            place.write(completion_to_c(&done));
        }
        Ok(())
    })
}

/// Ask a ticket to stop. Returns at once; what has not started does not start.
///
/// The ticket is done when what has started is: wait for it before the memory is used again.
/// A transfer that was done before stays as it was.
///
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_ticket_cancel(ticket: *const gds_ticket_t) -> gds_status_t {
    guard(|| {
        handle::borrow(ticket, "ticket")?.ticket.cancel();
        Ok(())
    })
}

/// Give a descriptor that becomes readable when the ticket is done, for poll and epoll.
///
/// It stays readable. It belongs to the ticket: do not read or close it, and do not use it
/// after gds_ticket_destroy().
///
/// @return GDS_STATUS_IO: no descriptors left, os_error tells; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_ticket_eventfd(
    ticket: *const gds_ticket_t,
    fd_out: *mut c_int,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(ticket, "ticket")?;
        convert::check_pointer(fd_out, "fd_out")?;
        let fd = object.ticket.event_fd()?;
        // SAFETY: checked above.
        unsafe { fd_out.write(fd) };
        Ok(())
    })
}

/// Everything that the failure of a ticket has to say. Its status is GDS_STATUS_OK if all
/// went well.
///
/// @param info_out  filled as far as `size` goes. The strings are valid until the ticket is
///                  destroyed.
/// @param size      sizeof(gds_error_info_t).
/// @return GDS_STATUS_PENDING: not done; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_ticket_error(
    ticket: *const gds_ticket_t,
    info_out: *mut gds_error_info_t,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(ticket, "ticket")?;
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(info_out, size, object.info()?) }
    })
}

/// Give a ticket back. NULL and destroyed handles are fine.
///
/// An unfinished transfer is cancelled, and the call waits until nothing touches the memory:
/// for a transfer ordered on a stream, until the stream reaches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_ticket_destroy(ticket: *mut gds_ticket_t) {
    guard_void(|| handle::close(ticket));
}
