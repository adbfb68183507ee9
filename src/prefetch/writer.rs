//! The streaming writer: buffers are written, one after the other in the file, while others are
//! filled.
//!
//! Each buffer goes round: idle, filling (its user puts bytes into it), processing (where a stream
//! still does), flushing. Where a buffer goes in the file is settled when it is submitted; writes
//! of several buffers are under way together and may end in any order. A thread that looks for
//! marks in streams is made when the first stream makes it necessary.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::streaming::{BufferState, ReaderConfig, pause_after};
use crate::base::limits;
use crate::engine::{
    Buffer, Context, File, Mark, Operation, Options, Sequence, Stream, Ticket, Transfer,
};
use crate::error::{Error, ErrorKind, Result};

/// How a writer writes: the same choices as a reader has.
pub type WriterConfig = ReaderConfig;

/// A buffer to be filled: the caller's until it is submitted or the writer is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Where it is: a device pointer for device memory.
    pub address: u64,
    /// Bytes that it holds.
    pub size: u64,
    /// Which buffer it is, from 0.
    pub buffer: u32,
}

/// Streams a few buffers into a file. Usable from many threads at once. Dropping it waits until
/// all that was submitted is written; errors are told by `finish` alone.
pub struct Writer {
    shared: Arc<Shared>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    context: Context,
    file: File,
    chunk_bytes: u64,
    options: Options,
    buffers: Box<[Buffer]>,
    marks: Box<[Mark]>,
    state: Mutex<State>,
    /// A buffer changed its state.
    changed: Condvar,
    /// A buffer was submitted on a stream that has not come to the mark, or the writer closes.
    submitted: Condvar,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Where the next buffer goes, bytes.
    position: u64,
    written: u64,
    /// The failure nearest to the begin of the file.
    failed: Option<(u64, Error)>,
    closing: bool,
}

#[derive(Default)]
struct Slot {
    used: Use,
    offset: u64,
    size: u64,
}

#[derive(Default)]
enum Use {
    #[default]
    Idle,
    Filling,
    Passing,
    Flushing(Ticket),
}

impl Writer {
    /// Writes from `offset` of a file on. What is there is replaced, and the file grows.
    ///
    /// # Errors
    /// `InvalidConfig`, `ReadOnly`, `OutOfRange`, `FallbackForbidden`, `OutOfDeviceMemory`,
    /// `OutOfHostMemory`.
    pub fn open(file: &File, offset: u64, config: &WriterConfig) -> Result<Self> {
        config.validate()?;
        if offset > limits::TRANSFER_SIZE_MAX {
            let text = format!("offset {offset} is past the largest file offset");
            return Err(Error::new(ErrorKind::OutOfRange, text).with_offset(offset));
        }
        let context = file.context();
        let chunk_bytes = config.chunk_of(&context);
        let buffers = config.memory_of(&context, chunk_bytes)?;
        let count = buffers.len();
        let marks: Result<Box<[Mark]>> = (0..count).map(|_| context.mark()).collect();
        let shared = Shared {
            file: file.clone(),
            chunk_bytes,
            options: Options {
                sequence: Some(Sequence::new()),
                ..config.options.clone()
            },
            buffers,
            marks: marks?,
            state: Mutex::default(),
            changed: Condvar::new(),
            submitted: Condvar::new(),
            context,
        };
        // The engine checks the file and the options by a transfer of no bytes.
        shared.write(0, offset, 0)?.wait(None)?;
        let mut state = shared.state.lock();
        state.slots.resize_with(count, Slot::default);
        state.position = offset;
        drop(state);
        Ok(Self {
            shared: Arc::new(shared),
            flusher: Mutex::new(None),
        })
    }

    /// A buffer to be filled. Waits at most `timeout` until one is idle.
    ///
    /// # Errors
    /// `Pending` when `timeout` passed, and why an earlier buffer could not be written.
    pub fn acquire(&self, timeout: Option<Duration>) -> Result<Space> {
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.shared.state.lock();
        loop {
            self.shared.sweep(&mut state);
            state.check()?;
            let idle = |slot: &Slot| matches!(slot.used, Use::Idle);
            if let Some(index) = state.slots.iter().position(idle) {
                state.slots[index].used = Use::Filling;
                return Ok(Space {
                    address: self.shared.buffers[index].address(),
                    size: self.shared.chunk_bytes,
                    buffer: u32::try_from(index).unwrap_or(u32::MAX),
                });
            }
            state = self.shared.wait(state, until)?;
        }
    }

    /// Has the first `size` bytes of a buffer written after those of the last one, and answers
    /// where in the file. With a stream, after the work that is in it now. Returns at once; the
    /// buffer is the writer's again.
    ///
    /// # Errors
    /// `InvalidArgument` for a buffer that is not out, `OutOfRange` for more bytes than it holds
    /// or past the largest offset, `Cuda` when the mark cannot be set: the buffer stays the
    /// caller's then. Why an earlier buffer could not be written: this one is not written either.
    pub fn submit(&self, space: &Space, size: u64, stream: Option<Stream>) -> Result<u64> {
        let shared = &self.shared;
        let slot = space.buffer as usize;
        let mut state = shared.state.lock();
        let out = state.slots.get(slot);
        if !out.is_some_and(|s| matches!(s.used, Use::Filling)) {
            let text = format!("buffer {slot} is not out; submit what acquire gave, once");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let offset = state.position;
        let end = offset.checked_add(size);
        if size > shared.chunk_bytes || end.is_none_or(|e| e > limits::TRANSFER_SIZE_MAX) {
            let text = format!(
                "{size} bytes at {offset} were submitted; a buffer holds {}, and a file {}",
                shared.chunk_bytes,
                limits::TRANSFER_SIZE_MAX
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        if let Some(stream) = stream {
            shared.marks[slot].set(stream)?;
        }
        if let Err(error) = state.check() {
            // The stream may still put bytes into it.
            state.slots[slot].size = 0;
            let still = stream.is_some();
            state.slots[slot].used = if still { Use::Passing } else { Use::Idle };
            drop(state);
            shared.changed.notify_all();
            if still {
                self.look_after();
            }
            return Err(error);
        }
        state.position += size;
        state.slots[slot] = Slot {
            used: Use::Passing,
            offset,
            size,
        };
        if stream.is_none() {
            shared.flush(&mut state, slot);
        } else {
            shared.sweep(&mut state);
        }
        let passing = matches!(state.slots[slot].used, Use::Passing);
        drop(state);
        shared.changed.notify_all();
        if passing {
            self.look_after();
        }
        Ok(offset)
    }

    /// Waits until all that was submitted is written, and answers how many bytes that is. They
    /// are durable after `File::sync`. More may be submitted afterwards.
    ///
    /// # Errors
    /// The failure that is nearest to the begin of the file, with its offset: what was submitted
    /// before it is written, what came after it may be or not.
    pub fn finish(&self) -> Result<u64> {
        let mut state = self.shared.state.lock();
        loop {
            self.shared.sweep(&mut state);
            let busy = |s: &Slot| matches!(s.used, Use::Passing | Use::Flushing(_));
            if !state.slots.iter().any(busy) {
                state.check()?;
                return Ok(state.written);
            }
            state = self.shared.wait(state, None)?;
        }
    }

    /// What buffer `index` does.
    #[must_use]
    pub fn state(&self, index: u32) -> Option<BufferState> {
        let mut state = self.shared.state.lock();
        self.shared.sweep(&mut state);
        let slot = state.slots.get(index as usize)?;
        Some(match slot.used {
            Use::Idle => BufferState::Idle,
            Use::Filling => BufferState::Filling,
            Use::Passing => BufferState::Processing,
            Use::Flushing(_) => BufferState::Flushing,
        })
    }

    /// Has a thread look for passed marks.
    fn look_after(&self) {
        let mut flusher = self.flusher.lock();
        if flusher.is_none() {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new()
                .name("gds-writer".to_owned())
                .spawn(move || shared.look_after());
            match thread {
                Ok(thread) => *flusher = Some(thread),
                // Slower, and right: this thread waits for the streams itself.
                Err(_) => self.shared.wait_for_marks(),
            }
        }
        drop(flusher);
        self.shared.submitted.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.finish();
        self.shared.state.lock().closing = true;
        self.shared.submitted.notify_all();
        if let Some(thread) = self.flusher.get_mut().take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        write!(
            f,
            "Writer(at {}, {} written)",
            state.position, state.written
        )
    }
}

impl State {
    fn check(&self) -> Result<()> {
        match &self.failed {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn fail(&mut self, offset: u64, error: Error) {
        if self
            .failed
            .as_ref()
            .is_none_or(|(first, _)| offset < *first)
        {
            self.failed = Some((offset, error));
        }
    }

    fn is_passing(&self) -> bool {
        self.slots.iter().any(|s| matches!(s.used, Use::Passing))
    }
}

impl Shared {
    fn write(&self, slot: usize, offset: u64, size: u64) -> Result<Ticket> {
        let transfer = Transfer {
            operation: Operation::Write,
            file: self.file.clone(),
            file_offset: offset,
            buffer: self.buffers[slot].clone(),
            buffer_offset: 0,
            size,
        };
        self.context.submit(vec![transfer], &self.options)
    }

    /// Writes a buffer whose bytes are there. After a failure nothing more is written.
    fn flush(&self, state: &mut State, slot: usize) {
        let Slot { offset, size, .. } = state.slots[slot];
        state.slots[slot].used = Use::Idle;
        if size == 0 || state.failed.is_some() {
            return;
        }
        match self.write(slot, offset, size) {
            Ok(ticket) => state.slots[slot].used = Use::Flushing(ticket),
            Err(error) => state.fail(offset, self.located(offset, size, &error)),
        }
    }

    /// Goes on with each buffer that can. Whether there was one.
    fn sweep(&self, state: &mut State) -> bool {
        let mut progress = false;
        for index in 0..state.slots.len() {
            let Slot { offset, size, .. } = state.slots[index];
            match &state.slots[index].used {
                Use::Passing => match self.marks[index].has_passed() {
                    Ok(false) => continue,
                    Ok(true) => self.flush(state, index),
                    Err(error) => {
                        state.slots[index].used = Use::Idle;
                        state.fail(offset, self.located(offset, size, &error));
                    }
                },
                Use::Flushing(ticket) => {
                    let Some(result) = ticket.completion() else {
                        continue;
                    };
                    state.slots[index].used = Use::Idle;
                    match result {
                        Ok(done) => state.written += done.bytes,
                        Err(e) => state.fail(offset, self.located(offset, size, &e)),
                    }
                }
                Use::Idle | Use::Filling => continue,
            }
            progress = true;
        }
        if progress {
            self.changed.notify_all();
        }
        progress
    }

    /// Waits until something may have changed.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>> {
        let flushing = state.slots.iter().filter_map(|s| match &s.used {
            Use::Flushing(ticket) => Some((s.offset, ticket)),
            _ => None,
        });
        let oldest = flushing.min_by_key(|(offset, _)| *offset);
        let passed = match oldest.map(|(_, ticket)| ticket.clone()) {
            Some(ticket) => {
                drop(state);
                let left = until.map(|u| u.saturating_duration_since(Instant::now()));
                let _ = ticket.wait(left);
                let passed = !ticket.is_done();
                drop(ticket);
                state = self.state.lock();
                passed
            }
            None => match until {
                Some(at) => self.changed.wait_until(&mut state, at).timed_out(),
                None => {
                    self.changed.wait(&mut state);
                    false
                }
            },
        };
        if passed && until.is_some_and(|u| Instant::now() >= u) {
            let text = "no buffer is idle yet; ask again, or submit those that are out";
            return Err(Error::new(ErrorKind::Pending, text));
        }
        Ok(state)
    }

    /// The flusher's work.
    fn look_after(&self) {
        let mut state = self.state.lock();
        let mut since = Instant::now();
        while !state.closing {
            if !state.is_passing() {
                self.submitted.wait(&mut state);
                since = Instant::now();
            } else if self.sweep(&mut state)
                || !self
                    .submitted
                    .wait_for(&mut state, pause_after(since))
                    .timed_out()
            {
                since = Instant::now();
            }
        }
    }

    fn wait_for_marks(&self) {
        let since = Instant::now();
        loop {
            let mut state = self.state.lock();
            self.sweep(&mut state);
            if !state.is_passing() {
                return;
            }
            drop(state);
            std::thread::sleep(pause_after(since));
        }
    }

    fn located(&self, offset: u64, size: u64, error: &Error) -> Error {
        let path = self.file.path();
        let text = format!(
            "writing {size} bytes at {offset} of {}: {}",
            path.display(),
            error.message()
        );
        Error::new(error.kind(), text)
            .with_errno(error.errno())
            .with_cuda(error.cuda())
            .with_cufile(error.cufile())
            .with_path(path)
            .with_offset(error.offset().unwrap_or(offset))
    }
}
