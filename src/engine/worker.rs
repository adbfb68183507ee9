//! A transfer thread: takes pieces, keeps its queue and its stream busy, and hands slots on.
//!
//! A slot goes round: claimed, read from the file, copied to the device, free (reads); claimed,
//! copied from the device, written to the file, free (writes). Pieces that need no staging take
//! the same way without touching the slot's memory. The thread sleeps in the kernel when only
//! I/O is under way, in the driver when only copies are, and on the work queue otherwise.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::choice::{self, Way};
use super::job::Job;
use super::shared::{Run, SMALL_SIZE, Shared};
use super::slot::{Part, Slot, Slots, Step};
use super::staging::OwnedStream;
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::io::posix::Posix;
use crate::io::{Completion, Io, Operation, Queue, Request};

std::thread_local! {
    static SHARED: Cell<usize> = const { Cell::new(0) };
}

/// Address of what the transfer thread that calls this shares with its context; 0 elsewhere.
pub(super) fn shared_of_this_thread() -> usize {
    SHARED.get()
}

/// Looks at a ring between two questions to the driver.
const RING_LOOKS: u32 = 2000;

/// Runs a transfer thread until the context closes.
pub(super) fn run(shared: &Arc<Shared>) {
    SHARED.set(Arc::as_ptr(shared) as usize);
    let body = AssertUnwindSafe(|| {
        let mut worker = match Worker::new(shared) {
            Ok(worker) => worker,
            Err(error) => return shared.lose_thread(&error),
        };
        shared.note_prepared();
        while shared.wait_for_work() {
            worker.drain();
        }
    });
    if std::panic::catch_unwind(body).is_err() {
        shared.die(&Error::new(
            ErrorKind::Poisoned,
            "a transfer thread of this context panicked; close the context, and report this",
        ));
    }
}

struct Worker {
    // Fields are dropped in this order: the queue waits for the kernel, then the rest may go.
    queue: Box<dyn Queue>,
    stream: OwnedStream,
    /// Whether the device has the copy kernel.
    kernel: bool,
    slots: Slots,
    shared: Arc<Shared>,
    device: Arc<dyn Device>,
    free: Vec<usize>,
    /// Direct I/O to be pushed: slot and part.
    ready: VecDeque<(usize, usize)>,
    /// Direct I/O to be pushed again at a time.
    delayed: Vec<(Instant, usize, usize)>,
    /// Slots with copies under way, in the order of the stream.
    copying: VecDeque<usize>,
    done: Vec<Completion>,
    /// Work waited for a slot when this thread last looked.
    starved: bool,
    /// One of the few threads that keep large direct I/O under way.
    ranked: bool,
}

impl Worker {
    fn new(shared: &Arc<Shared>) -> Result<Self> {
        let device = shared.device.clone();
        device.adopt_thread()?;
        let size = shared.slot_size() as usize;
        let config = &shared.config;
        let count = shared.slot_count();
        let slots = Slots::new(&device, count, size)?;
        let mut queue = shared
            .io
            .queue(config.max_outstanding_io as usize)
            .or_else(|error| {
                // A sandbox may forbid io_uring to threads though it was there at open.
                if config.mmap_fallback {
                    Posix.queue(count)
                } else {
                    Err(error)
                }
            })?;
        // SAFETY: the slots outlive the queue: see the order of the fields.
        unsafe { queue.register_memory(slots.slab.pointer(), slots.slab.size()) };
        let stream = OwnedStream::new(&device)?;
        let kernel = slots.try_kernel(stream.get())?;
        Ok(Self {
            queue,
            stream,
            kernel,
            free: (0..count).rev().collect(),
            slots,
            shared: shared.clone(),
            device,
            ready: VecDeque::new(),
            delayed: Vec::new(),
            copying: VecDeque::new(),
            done: Vec::new(),
            starved: false,
            ranked: false,
        })
    }

    /// Works until nothing is left to do for this thread.
    fn drain(&mut self) {
        self.work();
        if std::mem::take(&mut self.ranked) {
            self.shared.give_rank();
        }
    }

    fn work(&mut self) {
        loop {
            let mut progress = self.retire(false);
            progress |= self.start_work();
            progress |= self.push_ready();
            progress |= self.reap(0);
            // What is under way still is not done by the processor: few threads should do this.
            if !self.ranked && self.queue.in_flight() > 0 {
                self.ranked = self.shared.take_rank();
            }
            if progress {
                continue;
            }
            if !self.copying.is_empty() {
                self.retire(true);
            } else if self.queue.in_flight() > 0 {
                self.reap(1);
            } else if let Some(next) = self.delayed.iter().map(|(at, _, _)| *at).min() {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            } else {
                return;
            }
        }
    }

    /// Starts pieces in free slots, a few at a time, so that copies begin before all slots are
    /// full.
    fn start_work(&mut self) -> bool {
        let most = (self.slots.list.len() / 4).max(1);
        let mut started = 0;
        while started < most {
            if self.free.is_empty() {
                if !self.starved && self.shared.has_work() {
                    self.starved = true;
                    self.shared.metrics.buffer_waits.fetch_add(1, Relaxed);
                }
                break;
            }
            self.starved = false;
            let ranked = self.ranked || !self.shared.ranks_are_taken();
            let Some(run) = self.shared.take(ranked) else {
                break;
            };
            let Some(slot) = self.free.pop() else { break };
            self.shared.metrics.active_buffers.fetch_add(1, Relaxed);
            self.start(slot, run);
            started += 1;
        }
        started > 0
    }

    fn start(&mut self, slot: usize, run: Run) {
        let job = run.job;
        let mut at = 0;
        let memory = self.slots.list[slot].memory;
        let mut writes = false;
        for piece in run.pieces {
            let entry = &job.entries[piece.entry];
            writes = entry.operation == Operation::Write;
            let way = choice::choose(&job, piece);
            let part = Part::new(entry, piece, way, memory.wrapping_add(at));
            at += part.room(entry.file.alignment());
            self.slots.list[slot].parts.push(part);
        }
        self.slots.list[slot].job = Some(job.clone());
        self.run_cufile(slot, &job);
        if writes {
            self.rank_writer(slot);
            self.collect(slot, &job)
        } else {
            self.issue(slot, &job)
        }
    }

    /// Few threads should write around the page cache, even where writes complete while they are
    /// submitted: a block device in memory takes a third less from eight than from two.
    fn rank_writer(&mut self, slot: usize) {
        let direct = |part: &Part| part.way == Way::Direct && part.piece.size > SMALL_SIZE;
        if !self.ranked && self.slots.list[slot].parts.iter().any(direct) {
            self.ranked = self.shared.take_rank();
        }
    }

    /// Parts on the cuFile path are moved by this thread at once; a refusal sends them on.
    fn run_cufile(&mut self, slot: usize, job: &Job) {
        let memory = self.slots.list[slot].memory;
        for part in &mut self.slots.list[slot].parts {
            if part.way != Way::CuFile {
                continue;
            }
            match part.run_cufile(job) {
                Ok(bytes) => part.outcome = Some(Ok(bytes)),
                Err(error) if job.terms.fallback => {
                    drop(error);
                    job.count_fallback();
                    let entry = &job.entries[part.piece.entry];
                    let direct = entry.file.direct().is_some();
                    let way = if direct { Way::Direct } else { Way::Buffered };
                    // Alone in its slot, or small and with a place of its own in it.
                    let place = if part.in_place {
                        memory
                    } else {
                        part.slot_memory(entry)
                    };
                    *part = Part::new(entry, part.piece, way, place);
                }
                Err(error) => part.outcome = Some(Err(error)),
            }
        }
    }

    /// Writes: brings the bytes into the slot. Without copies it goes straight on.
    fn collect(&mut self, slot: usize, job: &Arc<Job>) {
        let mut copies = false;
        for part in &self.slots.list[slot].parts {
            let entry = &job.entries[part.piece.entry];
            if part.in_place || part.outcome.is_some() {
                continue;
            }
            if entry.host_memory {
                let from = (entry.address + part.piece.position) as *const u8;
                // SAFETY: the caller's memory and the slot's hold the piece and do not overlap.
                unsafe { from.copy_to_nonoverlapping(part.data, part.piece.size as usize) };
            } else {
                copies = true;
            }
        }
        if copies {
            self.copy(slot, job)
        } else {
            self.issue(slot, job)
        }
    }

    /// Hands the slot's pieces to the stream; they are retired when it has passed.
    fn copy(&mut self, slot: usize, job: &Arc<Job>) {
        let stream = self.stream.get();
        // SAFETY: the slot is this thread's until it is retired, and the job holds the memory.
        let copied = unsafe { self.slots.copy_parts(slot, job, stream, self.kernel) };
        match copied {
            Ok(()) => {
                self.copying.push_back(slot);
                if !self.shared.config.double_buffering {
                    self.retire(true);
                }
            }
            Err(error) => {
                // Some copies may have started: their memory may not be touched before they end.
                let _ = self.device.stream_synchronize(stream);
                self.fail_copies(slot, &error);
                self.complete(slot, job);
            }
        }
    }

    fn fail_copies(&mut self, slot: usize, error: &Error) {
        for part in &mut self.slots.list[slot].parts {
            if !part.in_place && part.way != Way::CuFile && !matches!(part.outcome, Some(Err(_))) {
                part.outcome = Some(Err(error.clone()));
            }
        }
    }

    fn copy_is_over(&self, slot: usize) -> Result<bool> {
        let taken = &self.slots.list[slot];
        match (
            taken.entry,
            taken.job.as_ref().and_then(|j| j.gate.as_ref()),
        ) {
            (Some(entry), Some(gate)) => Ok(gate.ring.passed(entry)),
            _ => self.device.event_query(taken.event),
        }
    }

    fn wait_for_copy(&self, slot: usize) -> Result<bool> {
        let event = self.slots.list[slot].event;
        if self.slots.list[slot].entry.is_none() {
            return self.device.event_synchronize(event).map(|()| true);
        }
        // The kernel in the caller's stream says nothing when the device has failed; any other
        // call to the driver does.
        while !self.copy_is_over(slot)? {
            for _ in 0..RING_LOOKS {
                if self.copy_is_over(slot)? {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            self.device.event_query(event)?;
        }
        Ok(true)
    }

    /// Takes slots whose copies are over out of the stream, in order. `wait` waits for the first.
    fn retire(&mut self, wait: bool) -> bool {
        let mut progress = false;
        while let Some(&slot) = self.copying.front() {
            let over = match self.copy_is_over(slot) {
                Ok(false) if wait && !progress => self.wait_for_copy(slot),
                other => other,
            };
            match over {
                Ok(false) => return progress,
                Ok(true) => {}
                Err(error) => self.fail_copies(slot, &error),
            }
            self.copying.pop_front();
            progress = true;
            let Some(job) = self.slots.list[slot].job.clone() else {
                continue;
            };
            let writes = self.slots.list[slot]
                .parts
                .first()
                .is_some_and(|p| job.entries[p.piece.entry].operation == Operation::Write);
            if writes {
                self.issue(slot, &job)
            } else {
                self.complete(slot, &job)
            }
        }
        progress
    }

    /// Starts the I/O of a slot: buffered parts at once, direct ones through the queue.
    fn issue(&mut self, slot: usize, job: &Arc<Job>) {
        let Slot { parts, pending, .. } = &mut self.slots.list[slot];
        for (index, part) in parts.iter_mut().enumerate() {
            if part.outcome.is_some() {
                continue;
            }
            let entry = &job.entries[part.piece.entry];
            if entry.operation == Operation::Write {
                part.check(job, part.piece.size);
            }
            if part.way == Way::Buffered {
                part.run_buffered(job);
                continue;
            }
            let edges = match entry.operation == Operation::Write || part.in_place {
                true => part.leading_edges(job, entry),
                false => Ok(None),
            };
            match edges {
                Ok(None) => {
                    *pending += 1;
                    self.ready.push_back((slot, index));
                }
                Ok(Some(bytes)) => part.outcome = Some(Ok(bytes)),
                Err(error) => part.outcome = Some(Err(error)),
            }
        }
        if *pending == 0 {
            self.io_over(slot, job);
        }
    }

    /// All I/O of a slot is over: reads go on to the device, writes are complete.
    fn io_over(&mut self, slot: usize, job: &Arc<Job>) {
        let mut copies = false;
        for part in &mut self.slots.list[slot].parts {
            let entry = &job.entries[part.piece.entry];
            let Some(Ok(bytes)) = part.outcome else {
                continue;
            };
            if entry.operation == Operation::Write || part.way == Way::CuFile {
                continue;
            }
            part.check(job, bytes);
            if part.in_place {
                continue;
            }
            if entry.host_memory {
                let to = (entry.address + part.piece.position) as *mut u8;
                // SAFETY: the slot holds `bytes` bytes of the piece, the caller's memory takes
                // them, and they do not overlap.
                unsafe { part.data.copy_to_nonoverlapping(to, bytes as usize) };
            } else {
                copies |= bytes > 0;
            }
        }
        if copies {
            self.copy(slot, job)
        } else {
            self.complete(slot, job)
        }
    }

    /// Ends the pieces of a slot and frees it.
    fn complete(&mut self, slot: usize, job: &Arc<Job>) {
        let taken = &mut self.slots.list[slot];
        taken.pending = 0;
        taken.entry = None;
        taken.job = None;
        let mut parts = std::mem::take(&mut taken.parts);
        self.free.push(slot);
        self.shared.metrics.active_buffers.fetch_sub(1, Relaxed);
        for part in parts.drain(..) {
            let path = part.path(&job.entries[part.piece.entry]);
            match part.outcome {
                Some(Ok(bytes)) => job.end_piece(part.piece, bytes, path, part.crc),
                Some(Err(error)) => job.fail_piece(part.piece, error),
                None => job.fail_piece(part.piece, interrupted()),
            }
        }
        self.slots.list[slot].parts = parts;
    }

    /// Gives direct I/O to the kernel, as much as the queue takes.
    fn push_ready(&mut self) -> bool {
        if !self.delayed.is_empty() {
            let now = Instant::now();
            let ready = &mut self.ready;
            self.delayed.retain(|&(at, slot, part)| {
                if at <= now {
                    ready.push_back((slot, part));
                }
                at > now
            });
        }
        let config = &self.shared.config;
        let group = if config.batch_mode {
            config.max_batch_size
        } else {
            1
        };
        let (mut pushed, mut unsent) = (0, 0);
        while let Some(&(slot, index)) = self.ready.front() {
            let Some(request) = self.request(slot, index) else {
                self.ready.pop_front();
                continue;
            };
            // SAFETY: the memory belongs to the slot or is held by the job until the part ends.
            if !unsafe { self.queue.push(request) } {
                break;
            }
            self.ready.pop_front();
            pushed += 1;
            unsent += 1;
            if unsent == group {
                self.submit();
                unsent = 0;
            }
        }
        if unsent > 0 {
            self.submit();
        }
        pushed > 0
    }

    fn submit(&mut self) {
        // What the kernel does not take now stays in the queue and is handed over by `wait`.
        let _ = self.queue.submit();
    }

    fn request(&self, slot: usize, index: usize) -> Option<Request> {
        let slot_ref = &self.slots.list[slot];
        let part = slot_ref.parts.get(index)?;
        let entry = &slot_ref.job.as_ref()?.entries[part.piece.entry];
        let fd = entry
            .file
            .direct()
            .unwrap_or(entry.file.descriptors.buffered());
        Some(Request {
            operation: entry.operation,
            fd,
            offset: part.io_offset + part.io_done,
            pointer: part.io.wrapping_add(part.io_done as usize),
            size: (part.io_size - part.io_done) as u32,
            registered: !part.in_place,
            token: ((slot as u64) << 32) | index as u64,
        })
    }

    /// Takes finished I/O from the queue, waiting for `minimum`.
    fn reap(&mut self, minimum: usize) -> bool {
        if self.queue.in_flight() == 0 {
            return false;
        }
        let mut done = std::mem::take(&mut self.done);
        if self.queue.wait(minimum, &mut done).is_err() && done.is_empty() {
            // The kernel is short of memory for the moment; what is in flight still comes.
            std::thread::sleep(Duration::from_millis(1));
        }
        let progress = !done.is_empty();
        for completion in done.drain(..) {
            let (slot, index) = ((completion.token >> 32) as usize, completion.token as u32);
            self.answered(slot, index as usize, completion.result);
        }
        self.done = done;
        progress
    }

    fn answered(&mut self, slot: usize, index: usize, result: i32) {
        let Some(job) = self.slots.list[slot].job.clone() else {
            return;
        };
        let part = &mut self.slots.list[slot].parts[index];
        match part.answered(&job, result) {
            Step::Again => return self.ready.push_back((slot, index)),
            Step::Later(pause) => {
                return self.delayed.push((Instant::now() + pause, slot, index));
            }
            Step::Over => part.end_io(&job),
            Step::Refused => {
                let file = &job.entries[part.piece.entry].file;
                if result < 0 {
                    file.direct_refused.store(true, Relaxed);
                }
                job.count_fallback();
                part.end_io_buffered(&job);
            }
            Step::Failed(error) => part.outcome = Some(Err(error)),
        }
        self.slots.list[slot].pending -= 1;
        if self.slots.list[slot].pending == 0 {
            self.io_over(slot, &job);
        }
    }
}

impl Drop for Worker {
    /// Reached with work left only after a panic or a failed driver: nothing may be handed back
    /// while the kernel or the device still uses it.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.queue.in_flight() > 0
            && self.queue.wait(self.queue.in_flight(), &mut done).is_ok()
        {}
        let _ = self.device.stream_synchronize(self.stream.get());
        for slot in std::mem::take(&mut self.copying) {
            let _ = self.wait_for_copy(slot);
        }
        for slot in 0..self.slots.list.len() {
            let Some(job) = self.slots.list[slot].job.take() else {
                continue;
            };
            for part in std::mem::take(&mut self.slots.list[slot].parts) {
                job.fail_piece(part.piece, interrupted());
            }
        }
    }
}

fn interrupted() -> Error {
    Error::new(
        ErrorKind::Poisoned,
        "the transfer thread stopped before this piece was over",
    )
}
