//! What to read ahead: accesses in, requests out. No thread, no lock, no I/O.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::ahead::{Ahead, Verdict};
use super::pattern::{Detector, Pattern};
use super::predictor::Predictor;
use super::queue::{Queue, Request, Source};
use super::target::{Presence, Target};
use super::window::Window;
use crate::base::limits;

/// Requests that may wait.
const QUEUE_MAX: usize = 1024;
/// Steps of a stride that are looked at.
const STRIDES_MAX: u64 = 64;
/// Steps of the predictor that are looked at.
const LEARNED_MAX: u64 = 16;
/// Accesses that every request has to be used in, besides those that its window takes.
const LIFE_MIN: u64 = 32;

/// What a prefetcher keeps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of a page.
    pub(super) page: u64,
    /// Bytes of a request.
    pub(super) chunk: u64,
    /// Bytes to look ahead at most; 0: hints only.
    pub(super) distance: u64,
    /// Pages that may be read ahead and not used yet.
    pub(super) budget: u64,
    pub(super) slots: u32,
    pub(super) deadline: Duration,
    pub(super) learns: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) hits: u64,
    pub(super) prefetch_hits: u64,
    pub(super) late: u64,
    pub(super) misses: u64,
    /// Pages.
    pub(super) prefetched: u64,
    /// Pages.
    pub(super) wasted: u64,
    pub(super) refused: u64,
}

/// Where the accesses are going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Stride(i64),
    Learned,
    /// Nobody knows: perhaps the next chunk.
    Next,
}

/// A prediction that is only looked at, since its window is off.
#[derive(Debug)]
struct Shadow {
    range: Range<u64>,
    expires: u64,
}

#[derive(Debug)]
pub(super) struct Planner {
    limits: Limits,
    pub(super) detector: Detector,
    pub(super) predictor: Predictor,
    /// Of the pattern, and of the predictor.
    pub(super) windows: [Window; 2],
    shadows: [Option<Shadow>; 2],
    pub(super) queue: Queue,
    pub(super) ahead: Ahead,
    pub(super) accesses: u64,
    pub(super) counts: Counts,
    /// Pages of the last access.
    last: Option<Range<u64>>,
    /// Where the last forward request ended.
    frontier: u64,
    file_size: u64,
}

impl Planner {
    pub(super) fn new(limits: Limits, file_size: u64) -> Self {
        // What is looked at ahead must fit where it is kept until it is used.
        let room = limits.budget.saturating_mul(limits.page);
        let distance = limits.distance.min(room.saturating_sub(limits.chunk));
        let learned = limits.page * LEARNED_MAX;
        Self {
            limits,
            detector: Detector::new(limits.chunk),
            predictor: Predictor::new(),
            windows: [
                Window::new(limits.chunk, distance),
                Window::new(limits.page, learned.min(distance)),
            ],
            shadows: [None, None],
            queue: Queue::new(QUEUE_MAX),
            ahead: Ahead::default(),
            accesses: 0,
            counts: Counts::default(),
            last: None,
            frontier: 0,
            file_size,
        }
    }

    /// Notes an access. Says whether there is something to start.
    pub(super) fn record<T: Target>(&mut self, offset: u64, size: u64, target: &T) -> bool {
        let page = self.limits.page;
        let end = offset.saturating_add(size.max(1));
        if end > limits::TRANSFER_SIZE_MAX {
            return false;
        }
        let pages = offset / page..end.div_ceil(page);
        if self.last.as_ref() == Some(&pages) {
            return false;
        }
        self.accesses += 1;
        // No more than the cache holds can be in it.
        let looked_at = pages.start..pages.end.min(pages.start + target.capacity());
        for page in looked_at {
            self.note(page, target.presence(page * self.limits.page));
        }
        if let Some(last) = self.last.replace(pages.clone())
            && last.start != pages.start
        {
            let step = pages.start.cast_signed() - last.start.cast_signed();
            self.predictor.record(step);
        }
        self.detector.record(offset, size);
        self.judge_shadows(offset..end);
        while let Some(verdict) = self.ahead.expire(self.accesses) {
            self.judge(verdict);
        }
        if self.limits.distance > 0 && self.limits.budget > 0 {
            self.plan(offset, end, target);
        }
        !self.queue.is_empty() && self.has_room()
    }

    /// Whether a whole request fits in what may be read ahead. Smaller pieces would follow each
    /// page that is used with a read of one page.
    fn has_room(&self) -> bool {
        let room = self.limits.budget.saturating_sub(self.ahead.unused());
        room >= (self.limits.chunk / self.limits.page).min(self.limits.budget) && room > 0
    }

    fn note(&mut self, page: u64, presence: Presence) {
        let ahead = self.ahead.touch(page);
        match presence {
            Presence::Resident => self.counts.hits += 1,
            Presence::Reading => self.counts.late += 1,
            Presence::Absent => self.counts.misses += 1,
        }
        let Some(ahead) = ahead else {
            let at = page * self.limits.page;
            if presence == Presence::Absent
                && let Some(window) = self.queue.source_of(at).and_then(window_of)
            {
                // Rightly predicted, but the program came first: look farther ahead.
                self.windows[window].grow();
            }
            return;
        };
        if presence == Presence::Absent && !ahead.is_early {
            // It made room for another page before it was used.
            self.counts.wasted += 1;
        } else {
            self.counts.prefetch_hits += u64::from(presence == Presence::Resident);
            if ahead.is_first
                && let Some(window) = window_of(ahead.source)
            {
                self.windows[window].grow();
            }
        }
        if let Some(verdict) = ahead.verdict {
            self.judge(verdict);
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        self.counts.wasted += verdict.wasted;
        if let Some(window) = window_of(verdict.source) {
            match verdict.is_useful {
                true => self.windows[window].useful(),
                false => self.windows[window].wasted(),
            }
        }
    }

    fn judge_shadows(&mut self, access: Range<u64>) {
        for (window, slot) in self.windows.iter_mut().zip(&mut self.shadows) {
            let Some(shadow) = slot else { continue };
            if access.start < shadow.range.end && shadow.range.start < access.end {
                window.useful();
                *slot = None;
            } else if shadow.expires < self.accesses {
                window.wasted();
                *slot = None;
            }
        }
    }

    fn direction(&self) -> Direction {
        let detector = &self.detector;
        let of = |step| match detector.is_forward(step) {
            true => Direction::Forward,
            false => Direction::Stride(step),
        };
        // The newest accesses know better than 64 where these are going.
        match (detector.pattern(), detector.trend()) {
            (Pattern::Sequential | Pattern::Strided { .. }, Some(step)) => of(step),
            (Pattern::Sequential, None) => Direction::Forward,
            (Pattern::Strided { stride }, None) => of(stride),
            _ if self.limits.learns && self.predictor.is_on() => Direction::Learned,
            (_, Some(step)) => of(step),
            _ => Direction::Next,
        }
    }

    fn plan<T: Target>(&mut self, offset: u64, end: u64, target: &T) {
        let page = self.limits.page;
        let next = end.next_multiple_of(page);
        match self.direction() {
            Direction::Forward => self.plan_forward(next, target),
            Direction::Stride(step) => {
                let span = end - offset / page * page;
                let count = (self.window(0) / span.max(page)).clamp(1, STRIDES_MAX);
                let ranges = (1..=count.cast_signed()).map_while(|i| {
                    let start = offset.checked_add_signed(step.checked_mul(i)?)?;
                    Some(start..start.checked_add(end - offset)?)
                });
                self.plan_ranges(Source::Pattern, 80, ranges.collect(), target);
            }
            Direction::Learned => {
                let count = (self.window(1) / page).clamp(1, LEARNED_MAX);
                let mut at = offset / page;
                let steps = self.predictor.predict(count as usize);
                let ranges = steps.iter().map_while(|step| {
                    at = at.checked_add_signed(*step)?;
                    let start = at.checked_mul(page)?;
                    Some(start..start.checked_add(end - offset)?)
                });
                self.plan_ranges(Source::Learned, 70, ranges.collect(), target);
            }
            Direction::Next => {
                let range = next..next.saturating_add(self.limits.chunk);
                self.plan_ranges(Source::Pattern, 60, vec![range], target);
            }
        }
    }

    /// Bytes that a window, or its shadow, looks ahead.
    fn window(&self, index: usize) -> u64 {
        self.windows[index].size()
    }

    /// The chunks from the frontier to the end of the window.
    fn plan_forward<T: Target>(&mut self, next: u64, target: &T) {
        let chunk = self.limits.chunk;
        let window = self.window(0);
        if window == 0 {
            let range = next..next.saturating_add(chunk);
            return self.shadow(0, range, target);
        }
        if let Some(given_up) = self.queue.take_given_up() {
            self.frontier = self.frontier.min(given_up);
        }
        let known = next..=next.saturating_add(self.limits.distance);
        if !known.contains(&self.frontier) {
            self.frontier = next;
        }
        let goal = next.saturating_add(window);
        let mut at = self.frontier;
        let mut number = 1;
        while at.saturating_add(chunk) <= goal {
            if !self.push(Source::Pattern, 100, number, at..at + chunk, target) {
                break;
            }
            at += chunk;
            number += 1;
        }
        self.frontier = at;
    }

    fn plan_ranges<T: Target>(
        &mut self,
        source: Source,
        priority: u32,
        ranges: Vec<Range<u64>>,
        target: &T,
    ) {
        let window = window_of(source).unwrap_or(0);
        if self.window(window) == 0 {
            if let Some(range) = ranges.into_iter().next() {
                self.shadow(window, range, target);
            }
            return;
        }
        for (index, range) in ranges.into_iter().enumerate() {
            let number = index as u32 + 1;
            if !self.push(source, priority, number, range, target) {
                break;
            }
        }
    }

    fn shadow<T: Target>(&mut self, window: usize, range: Range<u64>, target: &T) {
        if self.shadows[window].is_none() && self.clip(&range, target).is_some() {
            let life = self.life(self.limits.chunk);
            self.shadows[window] = Some(Shadow {
                range,
                expires: self.accesses + life,
            });
        }
    }

    /// Accesses in which what is read so far ahead has to be used.
    fn life(&self, window: u64) -> u64 {
        LIFE_MIN + 4 * (window / self.limits.page)
    }

    /// The pages of a range that are in the file.
    fn clip<T: Target>(&mut self, range: &Range<u64>, target: &T) -> Option<Range<u64>> {
        let page = self.limits.page;
        if range.end > self.file_size {
            // It may have grown. A file that cannot say has no more to read ahead.
            self.file_size = target.file_size().unwrap_or(0);
        }
        let start = range.start / page * page;
        let end = range.end.min(self.file_size);
        (start < end).then_some(start..end)
    }

    /// Puts a range into the queue unless it is there or in memory. Says whether further ones
    /// make sense.
    fn push<T: Target>(
        &mut self,
        source: Source,
        priority: u32,
        number: u32,
        range: Range<u64>,
        target: &T,
    ) -> bool {
        let Some(range) = self.clip(&range, target) else {
            return false;
        };
        let page = range.start / self.limits.page;
        let known = self.ahead.holds(page)
            || target.presence(range.start) != Presence::Absent
            || self.queue.source_of(range.start).is_some();
        if known && range.end - range.start <= self.limits.page {
            return true;
        }
        if known && source == Source::Pattern && self.is_known(&range, target) {
            return true;
        }
        self.queue.push(Request {
            offset: range.start,
            size: range.end - range.start,
            // Nearer ones first.
            priority: priority.saturating_sub(number * 10).max(10),
            deadline: Instant::now() + self.limits.deadline,
            source,
        })
    }

    /// Whether the last page of a range is known as well as its first.
    fn is_known<T: Target>(&self, range: &Range<u64>, target: &T) -> bool {
        let last = range.end - 1;
        self.ahead.holds(last / self.limits.page)
            || target.presence(last) != Presence::Absent
            || self.queue.source_of(last).is_some()
    }

    /// The next request to start, as far as there is room, and its number.
    pub(super) fn next(
        &mut self,
        now: Instant,
        is_absent: impl Fn(u64) -> bool,
    ) -> Option<(u64, Request)> {
        let page = self.limits.page;
        let size = self.limits.chunk.min(self.limits.budget * page);
        while self.has_room() {
            let request = self.queue.pop(now, size)?;
            let pages = request.offset / page..(request.offset + request.size).div_ceil(page);
            let absent: Vec<u64> = pages
                .filter(|page| !self.ahead.holds(*page) && is_absent(*page))
                .collect();
            if absent.is_empty() {
                // The program, or another request, has read it.
                continue;
            }
            let window = match window_of(request.source) {
                Some(window) => self.window(window).max(self.limits.chunk),
                None => self.limits.budget * page,
            };
            let life = self.life(window);
            return Some((self.ahead.start(request.source, &absent, life), request));
        }
        None
    }

    /// A request is over.
    pub(super) fn finish<T: Target>(&mut self, number: u64, target: &T) {
        let page = self.limits.page;
        let is_there = |number: u64| target.presence(number * page) != Presence::Absent;
        let (_, verdict) = self.ahead.finish(number, self.accesses, is_there);
        if let Some(verdict) = verdict {
            self.judge(verdict);
        }
    }
}

fn window_of(source: Source) -> Option<usize> {
    match source {
        Source::Pattern => Some(0),
        Source::Learned => Some(1),
        Source::Hint => None,
    }
}
