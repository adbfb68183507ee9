//! The streaming reader: chunks arrive in device memory, in order, while earlier ones are used.
//!
//! Each buffer goes round: idle, filling, ready, processing. All that are free are being filled:
//! a release hands the next chunk to the engine at once, in the thread that releases. A release
//! on a stream sets a mark there; a thread of the reader, made when it is first needed, looks for
//! marks that have passed and hands out those buffers. It looks rarely when nothing happens.
//!
//! Chunks before a failed one are delivered; the failed one is answered with the error, which
//! stays the answer.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::chunks::{Cursor, Plan, Planned, Range};
use super::streaming::{BufferState, Chunk, ReaderConfig, ReaderInfo, pause_after};
use crate::engine::{
    Buffer, Context, File, Mark, Operation, Options, Sequence, Stream, Ticket, Transfer,
};
use crate::error::{Error, ErrorKind, Result};

/// Streams ranges of files through a few buffers. Usable from many threads at once: each chunk
/// goes to one of them. Dropping it stops what is under way and waits for it and for the streams
/// that buffers were released on; then the memory of all chunks is freed.
pub struct Reader {
    shared: Arc<Shared>,
    feeder: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    context: Context,
    plan: Plan,
    chunk_bytes: u64,
    options: Options,
    buffers: Box<[Buffer]>,
    marks: Box<[Mark]>,
    state: Mutex<State>,
    /// Buffers came free, or the reader stopped.
    changed: Condvar,
    /// A buffer was released on a stream that has not come to the mark, or the reader closes.
    released: Condvar,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Buffers with chunks that were not delivered, in order.
    flying: VecDeque<usize>,
    /// Buffers that were released on a stream.
    passing: Vec<usize>,
    cursor: Cursor,
    stopped: Option<Error>,
    closing: bool,
    delivered: u64,
    bytes: u64,
    waits: u64,
}

#[derive(Default)]
struct Slot {
    chunk: Option<Planned>,
    /// The transfer that fills it, or why it could not start.
    fill: Option<Result<Ticket>>,
    /// Delivered, and not free yet.
    held: bool,
}

impl Reader {
    /// Reads a whole file.
    ///
    /// # Errors
    /// As `open_ranges`.
    pub fn open(file: &File, config: &ReaderConfig) -> Result<Self> {
        Self::open_ranges(vec![Range::whole(file)], config)
    }

    /// Reads ranges, one after the other; each must be of one context. A range that passes the
    /// end of its file ends there; what is appended later is not read.
    ///
    /// # Errors
    /// `InvalidConfig`, `InvalidArgument` without a range or for files of two contexts,
    /// `OutOfRange`, `ReadOnly` for a file that cannot be read, `FallbackForbidden`,
    /// `OutOfDeviceMemory`, `OutOfHostMemory`, `NotSupported` for a file without a size.
    pub fn open_ranges(ranges: Vec<Range>, config: &ReaderConfig) -> Result<Self> {
        config.validate()?;
        let Some(first) = ranges.first() else {
            let text = "a reader needs at least one range";
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        };
        let context = first.file.context();
        let chunk_bytes = config.chunk_of(&context);
        let plan = Plan::new(ranges, chunk_bytes)?;
        let size = plan.largest().max(1);
        let buffers = config.memory_of(&context, size)?;
        let count = buffers.len();
        let marks: Result<Box<[Mark]>> = (0..count).map(|_| context.mark()).collect();
        let shared = Shared {
            plan,
            chunk_bytes,
            options: Options {
                sequence: Some(Sequence::new()),
                ..config.options.clone()
            },
            buffers,
            marks: marks?,
            state: Mutex::default(),
            changed: Condvar::new(),
            released: Condvar::new(),
            context,
        };
        shared.try_ranges()?;
        shared.begin(count);
        Ok(Self {
            shared: Arc::new(shared),
            feeder: Mutex::new(None),
        })
    }

    /// The next chunk, once its bytes are in memory; any stream may use them from then on. None
    /// at the end. Waits at most `timeout`; while every buffer is with the caller that is until
    /// one is released.
    ///
    /// # Errors
    /// `Pending` when `timeout` passed, `Cancelled` after `cancel`, `FileChanged` when a file
    /// became shorter, and what went wrong with the chunk, with its file and offset: that stays
    /// the answer, and chunks after it are not read.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Chunk>> {
        let shared = &self.shared;
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut counted = false;
        loop {
            let state = shared.wait_for_flying(until)?;
            let Some(&slot) = state.flying.front() else {
                return Ok(None);
            };
            let Slot { chunk, fill, .. } = &state.slots[slot];
            let (Some(planned), Some(fill)) = (*chunk, fill.clone()) else {
                return Err(lost());
            };
            let ticket = match fill {
                Ok(ticket) => ticket,
                Err(error) => return Err(shared.fail(state, planned, &error)),
            };
            drop(state);
            let was_done = ticket.is_done();
            let left = until.map(|u| u.saturating_duration_since(Instant::now()));
            let result = ticket.wait(left);
            let mut state = shared.state.lock();
            if let Some(error) = &state.stopped {
                return Err(error.clone());
            }
            if !counted && !was_done {
                counted = true;
                state.waits += 1;
            }
            if state.slots[slot].chunk != Some(planned) || state.slots[slot].held {
                // Another thread took it.
                continue;
            }
            let completion = match result {
                Ok(completion) if completion.bytes < planned.size => {
                    let error = shared.shrunk(&planned, completion.bytes);
                    return Err(shared.fail(state, planned, &error));
                }
                Ok(completion) => completion,
                Err(error) if error.kind() == ErrorKind::Pending => {
                    if ticket.is_done() {
                        continue;
                    }
                    return Err(pending());
                }
                Err(error) => return Err(shared.fail(state, planned, &error)),
            };
            state.flying.pop_front();
            let over = state.slots[slot].fill.take();
            state.slots[slot].held = true;
            state.delivered += 1;
            state.bytes += planned.size;
            drop(state);
            drop(over);
            return Ok(Some(Chunk {
                index: planned.index,
                address: shared.buffers[slot].address(),
                size: planned.size,
                file_offset: planned.offset,
                range: u32::try_from(planned.range).unwrap_or(u32::MAX),
                buffer: u32::try_from(slot).unwrap_or(u32::MAX),
                path: completion.path,
                crc32c: completion.crc32c,
            }));
        }
    }

    /// Gives a chunk back, in any order. Without a stream its buffer is filled again at once; with
    /// one, after the work that is in the stream now. The calling thread waits for neither.
    ///
    /// # Errors
    /// `InvalidArgument` for a chunk that is not out, `Cuda` when the mark cannot be set (the
    /// chunk stays the caller's) or the stream has failed.
    pub fn release(&self, chunk: &Chunk, stream: Option<Stream>) -> Result<()> {
        let shared = &self.shared;
        let slot = chunk.buffer as usize;
        let mut state = shared.state.lock();
        let out = state.slots.get(slot).is_some_and(|s| {
            s.held
                && s.chunk.is_some_and(|c| c.index == chunk.index)
                && !state.passing.contains(&slot)
        });
        if !out {
            let text = format!(
                "chunk {} of buffer {slot} is not out; release each chunk once",
                chunk.index
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        if let Some(stream) = stream {
            shared.marks[slot].set(stream)?;
            state.passing.push(slot);
            let stopped = state.stopped.is_some();
            shared.sweep(&mut state);
            if let (false, Some(error)) = (stopped, &state.stopped) {
                return Err(error.clone());
            }
            if state.passing.contains(&slot) {
                drop(state);
                return self.feed();
            }
        } else {
            shared.refill(&mut state, slot);
        }
        drop(state);
        shared.changed.notify_all();
        Ok(())
    }

    /// Calls back with each chunk that is left, in the calling thread, and releases those that
    /// the callback has not released itself (on a stream, say). Ends early where the callback
    /// breaks; what is left may then be read on. The bytes of these chunks.
    ///
    /// # Errors
    /// As `next`, or what the callback answers; its chunk is released then as well.
    pub fn run(&self, mut callback: impl FnMut(&Chunk) -> Result<ControlFlow<()>>) -> Result<u64> {
        let mut bytes = 0;
        while let Some(chunk) = self.next(None)? {
            let answer = callback(&chunk);
            if self.is_out(&chunk) {
                self.release(&chunk, None)?;
            }
            bytes += chunk.size;
            if answer?.is_break() {
                break;
            }
        }
        Ok(bytes)
    }

    /// Stops reading, from any thread: what has not started does not start, and `next` answers
    /// `Cancelled` from now on, also where it waits. Chunks that are out stay valid.
    pub fn cancel(&self) {
        let text = "the reader was cancelled";
        self.shared.stop(Error::new(ErrorKind::Cancelled, text));
    }

    /// What buffer `index` does.
    #[must_use]
    pub fn state(&self, index: u32) -> Option<BufferState> {
        let state = self.shared.state.lock();
        state.slots.get(index as usize).map(Slot::state)
    }

    /// How far it is.
    #[must_use]
    pub fn info(&self) -> ReaderInfo {
        let state = self.shared.state.lock();
        ReaderInfo {
            chunk_bytes: self.shared.chunk_bytes,
            chunks: self.shared.plan.chunks,
            bytes: self.shared.plan.bytes,
            chunks_delivered: state.delivered,
            bytes_delivered: state.bytes,
            waits: state.waits,
            buffers: state.slots.iter().map(Slot::state).collect(),
        }
    }

    fn is_out(&self, chunk: &Chunk) -> bool {
        let state = self.shared.state.lock();
        let slot = chunk.buffer as usize;
        let is_it = |s: &Slot| s.held && s.chunk.is_some_and(|c| c.index == chunk.index);
        state.slots.get(slot).is_some_and(is_it) && !state.passing.contains(&slot)
    }

    /// Has the feeder look for passed marks.
    fn feed(&self) -> Result<()> {
        let mut feeder = self.feeder.lock();
        if feeder.is_none() {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new()
                .name("gds-reader".to_owned())
                .spawn(move || shared.feed());
            match thread {
                Ok(thread) => *feeder = Some(thread),
                // Slower, and right: this thread waits for the streams itself.
                Err(_) => self.shared.wait_for_marks(),
            }
        }
        drop(feeder);
        self.shared.released.notify_one();
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let text = "the reader is being closed";
        self.shared.stop(Error::new(ErrorKind::Cancelled, text));
        let fills = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            take_fills(&mut state)
        };
        self.shared.released.notify_all();
        // Waits until no transfer touches the buffers.
        drop(fills);
        if let Some(thread) = self.feeder.get_mut().take() {
            let _ = thread.join();
        }
        self.shared.wait_for_marks();
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info();
        let (done, all) = (info.chunks_delivered, info.chunks);
        write!(f, "Reader({done} of {all} chunks, {:?})", info.buffers)
    }
}

impl Slot {
    fn state(&self) -> BufferState {
        match &self.fill {
            _ if self.held => BufferState::Processing,
            Some(Ok(ticket)) if !ticket.is_done() => BufferState::Filling,
            Some(_) => BufferState::Ready,
            None => BufferState::Idle,
        }
    }
}

impl Shared {
    /// Has the engine check files and options by transfers of no bytes.
    fn try_ranges(&self) -> Result<()> {
        let transfer = |range: &Range| Transfer {
            operation: Operation::Read,
            file: range.file.clone(),
            file_offset: range.offset,
            buffer: self.buffers[0].clone(),
            buffer_offset: 0,
            size: 0,
        };
        let transfers = self.plan.ranges().iter().map(transfer).collect();
        self.context.submit(transfers, &self.options)?.wait(None)?;
        Ok(())
    }

    fn begin(&self, count: usize) {
        let mut state = self.state.lock();
        state.slots.resize_with(count, Slot::default);
        for slot in 0..count {
            self.refill(&mut state, slot);
        }
    }

    /// Frees a buffer, and fills it with the next chunk if there is one.
    fn refill(&self, state: &mut State, slot: usize) {
        state.slots[slot] = Slot::default();
        if state.stopped.is_some() {
            return;
        }
        let Some(planned) = self.plan.next(&mut state.cursor) else {
            return;
        };
        let transfer = Transfer {
            operation: Operation::Read,
            file: self.plan.range(planned.range).file.clone(),
            file_offset: planned.offset,
            buffer: self.buffers[slot].clone(),
            buffer_offset: 0,
            size: planned.size,
        };
        state.slots[slot].fill = Some(self.context.submit(vec![transfer], &self.options));
        state.slots[slot].chunk = Some(planned);
        state.flying.push_back(slot);
    }

    /// The state, once a chunk is under way or none is left.
    fn wait_for_flying(&self, until: Option<Instant>) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        loop {
            self.sweep(&mut state);
            if let Some(error) = &state.stopped {
                return Err(error.clone());
            }
            if !state.flying.is_empty() || self.plan.is_over(&state.cursor) {
                return Ok(state);
            }
            match until {
                None => self.changed.wait(&mut state),
                Some(at) => {
                    if self.changed.wait_until(&mut state, at).timed_out()
                        && state.flying.is_empty()
                    {
                        return Err(pending());
                    }
                }
            }
        }
    }

    /// Refills the buffers whose streams have passed their marks. Whether there were any.
    fn sweep(&self, state: &mut State) -> bool {
        let mut progress = false;
        let mut at = 0;
        while let Some(&slot) = state.passing.get(at) {
            match self.marks[slot].has_passed() {
                Ok(false) => {
                    at += 1;
                    continue;
                }
                Ok(true) => {}
                // What the caller's stream has done to the device concerns every stream.
                Err(error) => {
                    state.stopped.get_or_insert(error);
                }
            }
            state.passing.swap_remove(at);
            self.refill(state, slot);
            progress = true;
        }
        if progress {
            self.changed.notify_all();
        }
        progress
    }

    /// The feeder's work.
    fn feed(&self) {
        let mut state = self.state.lock();
        let mut since = Instant::now();
        while !state.closing {
            if state.passing.is_empty() {
                self.released.wait(&mut state);
                since = Instant::now();
            } else if self.sweep(&mut state) {
                since = Instant::now();
            } else {
                let pause = pause_after(since);
                if !self.released.wait_for(&mut state, pause).timed_out() {
                    since = Instant::now();
                }
            }
        }
    }

    /// Waits until streams have passed all marks of released buffers.
    fn wait_for_marks(&self) {
        let since = Instant::now();
        loop {
            let mut state = self.state.lock();
            self.sweep(&mut state);
            if state.passing.is_empty() {
                break;
            }
            drop(state);
            std::thread::sleep(pause_after(since));
        }
    }

    /// Stops for good: the first reason stays.
    fn stop(&self, error: Error) {
        let tickets: Vec<Ticket> = {
            let mut state = self.state.lock();
            state.stopped.get_or_insert(error);
            let fills = state.slots.iter().filter_map(|s| s.fill.clone());
            fills.filter_map(Result::ok).collect()
        };
        for ticket in &tickets {
            ticket.cancel();
        }
        self.changed.notify_all();
    }

    /// Stops because a chunk failed; where it was goes into the error.
    fn fail(&self, mut state: MutexGuard<'_, State>, planned: Planned, error: &Error) -> Error {
        let error = self.located(&planned, error);
        let error = state.stopped.get_or_insert(error).clone();
        let fills = take_fills(&mut state);
        drop(state);
        self.changed.notify_all();
        for ticket in fills.iter().flatten() {
            ticket.cancel();
        }
        error
    }

    fn located(&self, planned: &Planned, error: &Error) -> Error {
        let path = self.plan.range(planned.range).file.path();
        let text = format!(
            "chunk {} (range {}, {} bytes at {} of {}): {}",
            planned.index,
            planned.range,
            planned.size,
            planned.offset,
            path.display(),
            error.message()
        );
        Error::new(error.kind(), text)
            .with_errno(error.errno())
            .with_cuda(error.cuda())
            .with_cufile(error.cufile())
            .with_path(error.path().unwrap_or(path))
            .with_offset(error.offset().unwrap_or(planned.offset))
    }

    fn shrunk(&self, planned: &Planned, bytes: u64) -> Error {
        let path = self.plan.range(planned.range).file.path();
        let text = format!(
            "the file ends after {bytes} bytes of the chunk: somebody shortened it since the \
             reader was opened; read it again"
        );
        let error = Error::new(ErrorKind::FileChanged, text).with_path(path);
        error.with_offset(planned.offset + bytes)
    }
}

/// Empties the buffers that are being filled. The answer must be dropped outside the lock: that
/// waits for transfers.
fn take_fills(state: &mut State) -> Vec<Result<Ticket>> {
    state.flying.clear();
    let filling = state.slots.iter_mut().filter(|s| s.fill.is_some());
    filling
        .filter_map(|slot| std::mem::take(slot).fill)
        .collect()
}

fn pending() -> Error {
    let text = "the next chunk is not there yet; ask again, or release chunks that are out";
    Error::new(ErrorKind::Pending, text)
}

fn lost() -> Error {
    let text = "a chunk under way has no transfer; please report this";
    Error::new(ErrorKind::Internal, text)
}
