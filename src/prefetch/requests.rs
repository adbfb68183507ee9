//! Requests that wait for their turn: a queue a file, one turn a file, neighbours joined.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use crate::engine::{Buffer, Completion, File, Operation, Transfer};
use crate::error::{Error, ErrorKind, Result};

/// How far into a file's queue a turn looks for requests that go on where it ends.
const WINDOW: usize = 64;

/// Called once with the id and the result of a request.
pub type Callback = Box<dyn FnOnce(u64, &Result<Completion>) + Send>;

/// One range of a file and one range of a buffer.
pub struct Request {
    /// Read or write.
    pub operation: Operation,
    /// The file.
    pub file: File,
    /// Offset in the file, bytes.
    pub file_offset: u64,
    /// The memory.
    pub buffer: Buffer,
    /// Offset in the buffer, bytes.
    pub buffer_offset: u64,
    /// Bytes.
    pub size: u64,
    /// Told of the result, in place of `wait_one` and `drain`.
    pub callback: Option<Callback>,
}

/// A request that is over.
#[derive(Debug, Clone)]
pub struct Done {
    /// What `submit` answered.
    pub id: u64,
    /// How it went. `bytes` is the request's own; the other fields are those of the transfer that
    /// it was a part of.
    pub result: Result<Completion>,
}

/// A request with its number.
pub(super) struct Taken {
    pub(super) id: u64,
    pub(super) request: Request,
    /// Not to be joined with others.
    pub(super) alone: bool,
}

/// Requests that go as one transfer, in the order of their bytes.
pub(super) struct Group(pub(super) Vec<Taken>);

/// Requests by file, each file in its turn.
#[derive(Default)]
pub(super) struct Queues {
    /// Files that have requests, in the order of their turns.
    turns: VecDeque<u64>,
    files: HashMap<u64, VecDeque<Taken>>,
}

impl Request {
    /// Checks what can be known before its turn.
    pub(super) fn check(&self) -> Result<()> {
        let fits = |offset: u64, end: u64| {
            offset
                .checked_add(self.size)
                .is_some_and(|last| last <= end)
        };
        if !fits(self.buffer_offset, self.buffer.size()) {
            let text = format!(
                "{} bytes at offset {} pass the end of a buffer of {} bytes",
                self.size,
                self.buffer_offset,
                self.buffer.size()
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        if !fits(self.file_offset, crate::base::limits::TRANSFER_SIZE_MAX) {
            let text = format!(
                "{} bytes at {} of {} pass the largest offset",
                self.size,
                self.file_offset,
                self.file.path().display()
            );
            let error = Error::new(ErrorKind::OutOfRange, text);
            return Err(error.with_offset(self.file_offset));
        }
        Ok(())
    }

    /// Whether `next` goes on where this one ends in the file.
    fn goes_on(&self, next: &Self) -> bool {
        self.operation == next.operation
            && self.file_offset + self.size == next.file_offset
            && self.file.is_same(&next.file)
    }

    /// Whether `next` goes on where this one ends in memory.
    fn goes_on_in_memory(&self, next: &Self) -> bool {
        self.buffer_offset + self.size == next.buffer_offset
            && self.buffer.address() == next.buffer.address()
            && self.buffer.size() == next.buffer.size()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Request({:?} {} bytes at {} of {}, callback: {})",
            self.operation,
            self.size,
            self.file_offset,
            self.file.path().display(),
            self.callback.is_some()
        )
    }
}

impl Group {
    /// The transfer that moves all of them.
    pub(super) fn transfer(&self) -> Option<Transfer> {
        let first = &self.0.first()?.request;
        Some(Transfer {
            operation: first.operation,
            file: first.file.clone(),
            file_offset: first.file_offset,
            buffer: first.buffer.clone(),
            buffer_offset: first.buffer_offset,
            size: self.size(),
        })
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|taken| taken.request.size).sum()
    }
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn push(&mut self, taken: Taken) {
        let file = taken.request.file.identity();
        let queue = self.files.entry(file).or_default();
        if queue.is_empty() {
            self.turns.push_back(file);
        }
        queue.push_back(taken);
    }

    /// All that wait.
    pub(super) fn take_all(&mut self) -> Vec<Taken> {
        let mut all = Vec::new();
        for file in self.turns.drain(..) {
            all.extend(self.files.remove(&file).unwrap_or_default());
        }
        all
    }

    /// One turn of the next file: its oldest request, and those that go on where it ends, of
    /// `most` bytes in all; groups are contiguous in memory too.
    pub(super) fn turn(&mut self, most: u64) -> Vec<Group> {
        let Some(file) = self.turns.pop_front() else {
            return Vec::new();
        };
        let Some(queue) = self.files.get_mut(&file) else {
            return Vec::new();
        };
        let run = run_of(queue, most);
        if queue.is_empty() {
            self.files.remove(&file);
        } else {
            self.turns.push_back(file);
        }
        let mut groups: Vec<Group> = Vec::new();
        for taken in run {
            match groups.last_mut() {
                Some(Group(group))
                    if group
                        .last()
                        .is_some_and(|last| last.request.goes_on_in_memory(&taken.request)) =>
                {
                    group.push(taken);
                }
                _ => groups.push(Group(vec![taken])),
            }
        }
        groups
    }
}

fn run_of(queue: &mut VecDeque<Taken>, most: u64) -> Vec<Taken> {
    let mut run: Vec<Taken> = queue.pop_front().into_iter().collect();
    let mut size = run.first().map_or(0, |taken| taken.request.size);
    while let Some(last) = run.last().filter(|taken| !taken.alone) {
        let next = queue.iter().take(WINDOW).position(|taken| {
            let fits = size.saturating_add(taken.request.size) <= most;
            fits && !taken.alone && last.request.goes_on(&taken.request)
        });
        let Some(taken) = next.and_then(|at| queue.remove(at)) else {
            break;
        };
        size += taken.request.size;
        run.push(taken);
    }
    run
}
