//! Plans over files and one destination, and how they are read into it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::ranges::{self, GATHER_MAX, Outline, Ranges};
use super::{DIRECT, Plan};
use crate::base::align_up;
use crate::config::DEVICE_HOST;
use crate::engine::{
    Buffer, Completion, Context, Copy, File, MemoryKind, Operation, Options, Path, Ticket, Transfer,
};
use crate::error::{Error, ErrorKind, Result};

/// Transfers of one job, and copies of one call: what bounds the memory of a plan that is read.
const BATCH: usize = 8192;
/// Scratch memory of a plan that asks for none in particular, bytes.
const SCRATCH: u64 = 32 << 20;
/// Least scratch memory: two halves that take a gathered range with its alignment.
const SCRATCH_MIN: u64 = 2 * (GATHER_MAX + 2 * DIRECT);
/// How often a plan that is read in the background looks whether it was cancelled.
const STOP_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes between two pieces that are read rather than passed over: what a fast disk brings in the
/// time that one more request costs.
const GAP: u64 = 16 << 10;

/// How to read a plan.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// As for the engine's transfers. A checksum of a plan's bytes is not computed.
    pub transfer: Options,
    /// Pieces with at most so many bytes between them are read together.
    pub gap: u64,
    /// Most device memory for ranges that are copied apart, bytes; at least 2.1 MiB are used
    /// where it is needed at all.
    pub scratch: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            transfer: Options::default(),
            gap: GAP,
            scratch: SCRATCH,
        }
    }
}

/// Plans over files that fill one destination: what a reader of a format answers with, ready to
/// be read as often as wanted.
#[derive(Debug, Clone, Default)]
pub struct Load {
    parts: Vec<(File, Plan)>,
    size: u64,
}

impl Load {
    /// One plan over one file.
    #[must_use]
    pub fn new(file: &File, plan: Plan) -> Self {
        let mut load = Self::default();
        load.push(file, plan);
        load
    }

    /// Adds a plan over a file. Its destinations are those of the same memory.
    pub fn push(&mut self, file: &File, plan: Plan) {
        self.size = self.size.max(plan.size());
        self.parts.push((file.clone(), plan));
    }

    /// The plans and their files.
    #[must_use]
    pub fn parts(&self) -> &[(File, Plan)] {
        &self.parts
    }

    /// Bytes of the destination.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are wanted of the files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, plan)| plan.bytes()).sum()
    }

    /// How it would be read with this gap, bytes.
    #[must_use]
    pub fn outline(&self, gap: u64) -> Outline {
        let mut all = Outline::default();
        for (_, plan) in &self.parts {
            all.add(&Outline {
                pieces: plan.pieces().len() as u64,
                ..plan.outline(gap)
            });
        }
        all
    }

    /// Starts to read everything into `to`, from `to_offset` on. Pieces that cannot be read
    /// together straight into the destination are read one by one: `read` gathers them.
    ///
    /// # Errors
    /// `InvalidArgument` when there is nothing to read; `OutOfRange` when it does not fit;
    /// `Corrupted` when a file ends before its pieces do; what the engine says.
    pub fn submit(&self, to: &Buffer, to_offset: u64, options: &ReadOptions) -> Result<Ticket> {
        let parts: Vec<_> = self.parts.iter().map(|(file, plan)| (file, plan)).collect();
        submit(&to.context(), &parts, to, to_offset, options)
    }

    /// Reads everything into `to`, from `to_offset` on, and waits. Bytes of the destination
    /// between pieces are unspecified afterwards. With a stream, what is in it before the call
    /// is done before the memory is touched, and this waits for it.
    ///
    /// Memory beside the destination: `options.scratch` of the device, and in the host about 150
    /// bytes for each of 8,192 ranges and 60 for each piece.
    ///
    /// # Errors
    /// `OutOfRange` when it does not fit; `Corrupted` when a file ends before its pieces do;
    /// `FileChanged` when one became shorter meanwhile; what the engine says.
    pub fn read(&self, to: &Buffer, to_offset: u64, options: &ReadOptions) -> Result<Completion> {
        self.read_until(to, to_offset, options, None)
    }

    /// Whether it fits its destination and its files.
    pub(super) fn check(&self, to: &Buffer, to_offset: u64) -> Result<()> {
        check_fits(self.size, to, to_offset)?;
        self.parts
            .iter()
            .try_for_each(|(file, plan)| check_file(file, plan))
    }

    /// As `read`, until `stop` says so: `Cancelled` then.
    pub(super) fn read_until(
        &self,
        to: &Buffer,
        to_offset: u64,
        options: &ReadOptions,
        stop: Option<&AtomicBool>,
    ) -> Result<Completion> {
        self.check(to, to_offset)?;
        let mut reading = Reading {
            context: to.context(),
            to,
            to_offset,
            options,
            began: Instant::now(),
            stop,
            sum: Sum::default(),
        };
        let gather = reading.may_gather();
        let mut cut = Vec::with_capacity(self.parts.len());
        for (file, plan) in &self.parts {
            cut.push((file, ranges::cut(plan, options.gap, gather)));
        }
        let mark = match &options.transfer.stream {
            Some(stream) if cut.iter().any(|(_, r)| !r.gathered.is_empty()) => {
                let mark = reading.context.mark()?;
                mark.set(*stream)?;
                Some(mark)
            }
            _ => None,
        };
        reading.straight(&cut)?;
        if let Some(mark) = mark {
            mark.wait()?;
        }
        reading.gathered(&cut)?;
        let bytes = cut.iter().map(|(_, r)| r.bytes).sum();
        Ok(reading.sum.completion(bytes, reading.began))
    }
}

/// Starts all plans as one job, without scratch memory.
pub(super) fn submit(
    context: &Context,
    parts: &[(&File, &Plan)],
    to: &Buffer,
    to_offset: u64,
    options: &ReadOptions,
) -> Result<Ticket> {
    let mut transfers = Vec::new();
    for (file, plan) in parts {
        check_fits(plan.size(), to, to_offset)?;
        check_file(file, plan)?;
        for run in &ranges::cut(plan, options.gap, false).straight {
            let at = to_offset + run.to_offset;
            transfers.push(transfer(file, run.file_offset, to, at, run.size));
        }
    }
    context.submit(transfers, &options.transfer)
}

fn transfer(file: &File, file_offset: u64, to: &Buffer, at: u64, size: u64) -> Transfer {
    Transfer {
        operation: Operation::Read,
        file: file.clone(),
        file_offset,
        buffer: to.clone(),
        buffer_offset: at,
        size,
    }
}

fn check_fits(size: u64, to: &Buffer, to_offset: u64) -> Result<()> {
    if to_offset
        .checked_add(size)
        .is_some_and(|end| end <= to.size())
    {
        return Ok(());
    }
    let message = format!(
        "read a plan of {size} bytes to offset {to_offset} of a buffer of {} bytes: too small",
        to.size()
    );
    Err(Error::new(ErrorKind::OutOfRange, message))
}

/// A plan was made of what the file said of itself: the file has to be long enough for it.
fn check_file(file: &File, plan: &Plan) -> Result<()> {
    let end = plan.pieces().iter().map(|p| p.file_offset + p.size).max();
    let (Some(end), true) = (end, file.capabilities().sized) else {
        return Ok(());
    };
    let size = file.size()?;
    if end <= size {
        return Ok(());
    }
    let message = format!(
        "read {}: bytes up to {end} are wanted, it has {size}; the file is cut or damaged",
        file.path().display()
    );
    Err(Error::new(ErrorKind::Corrupted, message)
        .with_path(file.path())
        .with_offset(size))
}

/// What the jobs of one call came to.
#[derive(Default)]
struct Sum {
    by_path: Vec<(Path, u64)>,
    paths: u32,
    retries: u32,
    fallbacks: u32,
}

impl Sum {
    fn add(&mut self, part: &Completion) {
        self.paths |= part.paths;
        self.retries = self.retries.saturating_add(part.retries);
        self.fallbacks = self.fallbacks.saturating_add(part.fallbacks);
        match self.by_path.iter_mut().find(|(path, _)| *path == part.path) {
            Some((_, bytes)) => *bytes += part.bytes,
            None => self.by_path.push((part.path, part.bytes)),
        }
    }

    fn completion(&self, bytes: u64, began: Instant) -> Completion {
        let most = self.by_path.iter().max_by_key(|(_, bytes)| *bytes);
        Completion {
            bytes,
            path: most.map_or(Path::None, |(path, _)| *path),
            paths: self.paths,
            crc32c: None,
            latency_ns: u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX),
            retries: self.retries,
            fallbacks: self.fallbacks,
        }
    }
}

/// A plan that is being read.
struct Reading<'a> {
    context: Context,
    to: &'a Buffer,
    to_offset: u64,
    options: &'a ReadOptions,
    began: Instant,
    stop: Option<&'a AtomicBool>,
    sum: Sum,
}

/// Ranges on their way into half of the scratch memory.
struct Half<'a> {
    ticket: Ticket,
    buffer: Buffer,
    /// Where each range is in the buffer, and which it is.
    ranges: Vec<(u64, &'a Ranges, &'a ranges::Gather)>,
    bytes: u64,
}

impl Reading<'_> {
    /// Ordinary memory takes no part in copies of a GPU: it is read into piece by piece.
    fn may_gather(&self) -> bool {
        self.to.kind() != MemoryKind::Pageable
            || self.context.device().info().ordinal == DEVICE_HOST
    }

    /// The caller's options for the next job, with what is left of the deadline.
    fn terms(&self, stream: bool) -> Options {
        let left = |all: Duration| all.saturating_sub(self.began.elapsed());
        Options {
            deadline: self.options.transfer.deadline.map(left),
            checksum: Some(false),
            stream: self.options.transfer.stream.filter(|_| stream),
            ..self.options.transfer.clone()
        }
    }

    /// Waits for a job, and cancels it when the caller has cancelled the whole.
    fn wait(&self, ticket: &Ticket) -> Result<Completion> {
        let Some(stop) = self.stop else {
            return ticket.wait(None);
        };
        loop {
            if stop.load(Relaxed) {
                ticket.cancel();
                ticket.wait(None)?;
                let message = "reading a plan was cancelled; its memory holds nothing that counts";
                return Err(Error::new(ErrorKind::Cancelled, message));
            }
            match ticket.wait(Some(STOP_INTERVAL)) {
                Err(error) if error.kind() == ErrorKind::Pending => {}
                other => return other,
            }
        }
    }

    fn finish(&mut self, ticket: &Ticket, wanted: u64) -> Result<()> {
        let done = self.wait(ticket)?;
        if done.bytes != wanted {
            let message = format!(
                "read a plan: {} of {wanted} bytes arrived; a file became shorter meanwhile",
                done.bytes
            );
            return Err(Error::new(ErrorKind::FileChanged, message));
        }
        self.sum.add(&done);
        Ok(())
    }

    /// Reads what goes straight to its place: a few jobs, two of them under way at a time.
    fn straight(&mut self, cut: &[(&File, Ranges)]) -> Result<()> {
        let mut all = cut
            .iter()
            .flat_map(|(file, ranges)| ranges.straight.iter().map(move |r| (*file, r)))
            .peekable();
        let mut flying: VecDeque<(Ticket, u64)> = VecDeque::new();
        while all.peek().is_some() {
            let mut transfers = Vec::new();
            let mut bytes = 0;
            for (file, run) in all.by_ref().take(BATCH) {
                let at = self.to_offset + run.to_offset;
                transfers.push(transfer(file, run.file_offset, self.to, at, run.size));
                bytes += run.size;
            }
            let ticket = self.context.submit(transfers, &self.terms(true))?;
            flying.push_back((ticket, bytes));
            if flying.len() > 1
                && let Some((ticket, bytes)) = flying.pop_front()
            {
                self.finish(&ticket, bytes)?;
            }
        }
        for (ticket, bytes) in flying {
            self.finish(&ticket, bytes)?;
        }
        Ok(())
    }

    /// Reads ranges into one half of the scratch memory while those of the other are copied.
    fn gathered<'a>(&mut self, cut: &'a [(&'a File, Ranges)]) -> Result<()> {
        let mut all = cut
            .iter()
            .flat_map(|(file, ranges)| ranges.gathered.iter().map(move |g| (*file, ranges, g)))
            .peekable();
        let room = |g: &ranges::Gather| align_up(g.size + 2 * DIRECT, DIRECT).unwrap_or(u64::MAX);
        let need = all
            .clone()
            .map(|(.., g)| room(g))
            .fold(0, u64::saturating_add);
        let half = (self.options.scratch.max(SCRATCH_MIN) / 2).min(need);
        let mut free: Vec<Buffer> = Vec::new();
        let mut before: Option<Half<'a>> = None;
        while all.peek().is_some() || before.is_some() {
            let mut next = None;
            if all.peek().is_some() {
                let buffer = match free.pop() {
                    Some(buffer) => buffer,
                    None => self.context.alloc(MemoryKind::Device, half)?,
                };
                let (mut transfers, mut ranges) = (Vec::new(), Vec::new());
                let (mut used, mut bytes) = (0, 0);
                while let Some((file, of, gather)) =
                    all.next_if(|(.., g)| used + room(g) <= half && transfers.len() < BATCH)
                {
                    // The file's rest by 4096, so that a direct read lands in place.
                    let at = used + gather.file_offset % DIRECT;
                    used += room(gather);
                    bytes += gather.size;
                    transfers.push(transfer(file, gather.file_offset, &buffer, at, gather.size));
                    ranges.push((at, of, gather));
                }
                let ticket = self.context.submit(transfers, &self.terms(false))?;
                next = Some(Half {
                    ticket,
                    buffer,
                    ranges,
                    bytes,
                });
            }
            if let Some(half) = before.take() {
                self.apart(&half)?;
                free.push(half.buffer);
            }
            before = next;
        }
        Ok(())
    }

    /// Waits for a half and copies its pieces to their places.
    fn apart(&mut self, half: &Half<'_>) -> Result<()> {
        self.finish(&half.ticket, half.bytes)?;
        let (to, base) = (self.to, self.to_offset);
        let mut copies = half.ranges.iter().flat_map(|(at, of, gather)| {
            let runs = of.runs.get(gather.runs.clone()).unwrap_or_default();
            runs.iter().map(move |run| Copy {
                from: half.buffer.clone(),
                from_offset: at + (run.file_offset - gather.file_offset),
                to: to.clone(),
                to_offset: base + run.to_offset,
                size: run.size,
            })
        });
        loop {
            let batch: Vec<Copy> = copies.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.context.copy(&batch)?;
        }
    }
}
