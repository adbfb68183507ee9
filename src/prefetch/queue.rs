//! Requests that wait for a slot: the highest priority first, then the earliest deadline, then
//! the oldest.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Who asked for a range to be read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The pattern of the accesses.
    Pattern,
    /// The learned predictor.
    Learned,
    /// The program.
    Hint,
}

/// A range of the file that is to be read ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where it begins, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// The highest goes first.
    pub priority: u32,
    /// When it is no longer worth beginning.
    pub deadline: Instant,
    /// Who asked.
    pub source: Source,
}

#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    request: Request,
    number: u64,
}

impl Ord for Waiting {
    /// The greatest leaves a `BinaryHeap` first.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.request, &other.request);
        a.priority
            .cmp(&b.priority)
            .then_with(|| b.deadline.cmp(&a.deadline))
            .then_with(|| other.number.cmp(&self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The requests that wait, and how many were given up.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BinaryHeap<Waiting>,
    limit: usize,
    next: u64,
    dropped: u64,
    /// The first offset of the pattern's that was too late.
    given_up: Option<u64>,
}

impl Queue {
    /// An empty queue of at most `limit` requests.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Adds a request. One that finds the queue full is dropped and counted: says whether it
    /// waits now.
    pub fn push(&mut self, request: Request) -> bool {
        if self.waiting.len() >= self.limit {
            self.dropped += 1;
            return false;
        }
        self.waiting.push(Waiting {
            request,
            number: self.next,
        });
        self.next += 1;
        true
    }

    /// Takes at most `size` bytes off the request that is next, which stays next with the rest.
    /// Requests whose deadline has passed are dropped and counted.
    pub fn pop(&mut self, now: Instant, size: u64) -> Option<Request> {
        while let Some(mut first) = self.waiting.pop() {
            if first.request.deadline <= now {
                self.give_up(&first.request);
                continue;
            }
            let mut part = first.request.clone();
            part.size = part.size.min(size);
            if part.size < first.request.size {
                first.request.offset += part.size;
                first.request.size -= part.size;
                self.waiting.push(first);
            }
            return Some(part);
        }
        None
    }

    /// Drops and counts the requests whose deadline has passed.
    pub fn expire(&mut self, now: Instant) {
        if self.next_deadline().is_none_or(|first| first > now) {
            return;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.request.deadline > now {
                self.waiting.push(waiting);
            } else {
                self.give_up(&waiting.request);
            }
        }
    }

    fn give_up(&mut self, request: &Request) {
        self.dropped += 1;
        if request.source == Source::Pattern {
            let first = self.given_up.unwrap_or(u64::MAX);
            self.given_up = Some(first.min(request.offset));
        }
    }

    /// Where the pattern's requests that were too late begin, since this was last asked: what is
    /// still wanted there has to be asked for again.
    pub fn take_given_up(&mut self) -> Option<u64> {
        self.given_up.take()
    }

    /// When the next request expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|w| w.request.deadline).min()
    }

    /// Who asked for this offset, if a request that waits covers it.
    #[must_use]
    pub fn source_of(&self, offset: u64) -> Option<Source> {
        let mut requests = self.waiting.iter().map(|w| &w.request);
        requests
            .find(|r| (r.offset..r.offset.saturating_add(r.size)).contains(&offset))
            .map(|r| r.source)
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Requests that were given up: too late, or the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
