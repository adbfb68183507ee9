//! A caller's hold on a submitted job.

use std::fmt;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use super::job::Job;
use super::transfer::Completion;
use super::worker;
use crate::error::{Error, ErrorKind, Result};

/// A submitted job. Clones are the same job; dropping the last one of an unfinished job cancels
/// it and waits until no transfer touches the caller's memory. Also a `Future`.
#[derive(Clone)]
pub struct Ticket(Arc<Hold>);

struct Hold(Arc<Job>);

impl Ticket {
    pub(super) fn new(job: Arc<Job>) -> Self {
        Self(Arc::new(Hold(job)))
    }

    fn job(&self) -> &Job {
        &self.0.0
    }

    /// Whether it is over. Never waits.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let job = self.job();
        job.is_done() || (job.check_deadline() && job.is_done())
    }

    /// Waits until it is over, at most `timeout`, and gives the sum of its transfers or the
    /// first error.
    ///
    /// # Errors
    /// `Pending` when `timeout` passed: the job goes on. `TimedOut` when the job's own deadline
    /// passed, `Cancelled` after `cancel`, or what went wrong.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Completion> {
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        if !self.job().wait(until) {
            return Err(Error::new(
                ErrorKind::Pending,
                "the transfer is still under way; wait again or cancel it",
            ));
        }
        self.completion().unwrap_or_else(|| Err(lost()))
    }

    /// The sum of its transfers or the first error, once it is over.
    #[must_use]
    pub fn completion(&self) -> Option<Result<Completion>> {
        self.is_done().then(|| self.job().result()).flatten()
    }

    /// Stops what has not started. The job is over when what has started is.
    pub fn cancel(&self) {
        self.job().cancel();
    }

    /// A descriptor that becomes readable when it is over, for poll and epoll. It belongs to the
    /// ticket: do not close it, and do not use it after the ticket.
    ///
    /// # Errors
    /// `Io` when the process has no descriptors left.
    pub fn event_fd(&self) -> Result<RawFd> {
        self.job().event_fd()
    }

    /// Transfers in the job.
    #[must_use]
    pub fn count(&self) -> usize {
        self.job().entries.len()
    }

    /// How one transfer of the job ended, once the job is over.
    #[must_use]
    pub fn result(&self, index: usize) -> Option<Result<Completion>> {
        self.is_done()
            .then(|| self.job().result_of(index))
            .flatten()
    }

    /// Bytes that have arrived so far.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.job().moved()
    }
}

impl Future for Ticket {
    type Output = Result<Completion>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if self.is_done() || self.job().wake_when_done(cx.waker()) {
            return Poll::Ready(self.job().result().unwrap_or_else(|| Err(lost())));
        }
        Poll::Pending
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.0.is_done() {
            self.0.cancel();
            self.0.wait(None);
        }
        // A transfer thread still lets go of the job, and with it of files and memory: what the
        // caller closes next is then really closed. A waker runs on such a thread itself.
        if worker::shared_of_this_thread() == 0 && Arc::strong_count(&self.0) > 1 {
            self.0.shared.forget(&self.0);
            while Arc::strong_count(&self.0) > 1 {
                std::thread::yield_now();
            }
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ticket({} transfers, done: {})",
            self.count(),
            self.is_done()
        )
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a finished transfer left no result; please report this",
    )
}
