//! Plans that are read while their caller does something else.

use std::fmt;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::load::{Load, ReadOptions};
use crate::engine::{Buffer, Completion, Ticket};
use crate::error::{Error, ErrorKind, Result};

/// A plan that is being read. Dropping an unfinished one cancels it and waits until nothing
/// touches the memory.
#[derive(Debug)]
pub struct Started(Work);

#[derive(Debug)]
enum Work {
    /// Everything goes straight to its place: the engine does it alone.
    Job(Ticket),
    /// A thread copies apart what was gathered.
    Thread(Thread),
}

struct Thread {
    state: Arc<State>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    done: Mutex<Done>,
    ended: Condvar,
}

#[derive(Default)]
struct Done {
    result: Option<Result<Completion>>,
    pipe: Option<(PipeReader, PipeWriter)>,
}

impl Load {
    /// Starts to read everything into `to`, from `to_offset` on, small pieces together as `read`
    /// does. With a stream nothing is gathered: see `submit`.
    ///
    /// # Errors
    /// As `submit`; `OutOfHostMemory` when no thread can be started.
    pub fn start(&self, to: &Buffer, to_offset: u64, options: &ReadOptions) -> Result<Started> {
        let gathers = options.transfer.stream.is_none() && self.outline(options.gap).gathered > 0;
        if !gathers {
            return Ok(Started(Work::Job(self.submit(to, to_offset, options)?)));
        }
        self.check(to, to_offset)?;
        let state = Arc::new(State::default());
        let (load, to, options) = (self.clone(), to.clone(), options.clone());
        let shared = state.clone();
        let thread = std::thread::Builder::new().name("gds-plan".to_owned());
        let handle = thread.spawn(move || {
            // A panic must not leave somebody waiting.
            let ending = Ending(&shared);
            let result = load.read_until(&to, to_offset, &options, Some(&shared.stop));
            drop((load, to));
            ending.0.end(result);
        });
        let handle = handle.map_err(|e| {
            let message = format!("start a thread for a plan: {e}");
            Error::new(ErrorKind::OutOfHostMemory, message)
        })?;
        let handle = Some(handle);
        Ok(Started(Work::Thread(Thread { state, handle })))
    }
}

/// Ends the work of a thread that did not come to its end.
struct Ending<'a>(&'a State);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let message = "a thread that read a plan ended early; please report this";
        self.0.end(Err(Error::new(ErrorKind::Internal, message)));
    }
}

impl State {
    /// Keeps the first result and wakes who waits for it.
    fn end(&self, result: Result<Completion>) {
        let mut done = self.done.lock();
        if done.result.is_some() {
            return;
        }
        done.result = Some(result);
        if let Some((_, writer)) = &mut done.pipe {
            // The reader is ours too: one byte always fits.
            let _ = writer.write_all(&[1]);
        }
        self.ended.notify_all();
    }

    fn wait(&self, timeout: Option<Duration>) -> Option<Result<Completion>> {
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut done = self.done.lock();
        while done.result.is_none() {
            match until {
                None => self.ended.wait(&mut done),
                Some(until) if self.ended.wait_until(&mut done, until).timed_out() => break,
                Some(_) => {}
            }
        }
        done.result.clone()
    }

    fn event_fd(&self) -> Result<RawFd> {
        let mut done = self.done.lock();
        if done.pipe.is_none() {
            let (reader, mut writer) = std::io::pipe().map_err(|e| {
                let errno = e.raw_os_error().unwrap_or(0);
                Error::os(errno, "make a descriptor for a plan that is read")
            })?;
            if done.result.is_some() {
                let _ = writer.write_all(&[1]);
            }
            done.pipe = Some((reader, writer));
        }
        // Made above where it was not there.
        let pipe = done.pipe.as_ref().map(|(reader, _)| reader.as_raw_fd());
        pipe.ok_or_else(|| Error::new(ErrorKind::Internal, "a pipe is missing"))
    }
}

impl Started {
    /// Whether it is over. Never waits.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Work::Job(ticket) => ticket.is_done(),
            Work::Thread(thread) => thread.state.done.lock().result.is_some(),
        }
    }

    /// Waits until it is over, at most `timeout`.
    ///
    /// # Errors
    /// `Pending` when `timeout` passed: it goes on. What `Load::read` answers.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Completion> {
        match &self.0 {
            Work::Job(ticket) => ticket.wait(timeout),
            Work::Thread(thread) => thread.state.wait(timeout).unwrap_or_else(|| {
                let message = "the plan is still being read; wait again or cancel it";
                Err(Error::new(ErrorKind::Pending, message))
            }),
        }
    }

    /// How it ended, once it is over.
    #[must_use]
    pub fn completion(&self) -> Option<Result<Completion>> {
        match &self.0 {
            Work::Job(ticket) => ticket.completion(),
            Work::Thread(thread) => thread.state.done.lock().result.clone(),
        }
    }

    /// Stops what has not started. It is over when what has started is.
    pub fn cancel(&self) {
        match &self.0 {
            Work::Job(ticket) => ticket.cancel(),
            Work::Thread(thread) => thread.state.stop.store(true, Relaxed),
        }
    }

    /// A descriptor that becomes readable when it is over. Not to be closed or read.
    ///
    /// # Errors
    /// `Io` when the process has no descriptors left.
    pub fn event_fd(&self) -> Result<RawFd> {
        match &self.0 {
            Work::Job(ticket) => ticket.event_fd(),
            Work::Thread(thread) => thread.state.event_fd(),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.state.stop.store(true, Relaxed);
        if let Some(handle) = self.handle.take() {
            // It has ended with a result in any case.
            let _ = handle.join();
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.state.done.lock().result.is_some();
        f.debug_struct("Thread").field("done", &done).finish()
    }
}
