//! The prefetcher: watches the accesses of one file and has pages read before they are wanted.
//!
//! `record` notes an access, learns from it and puts requests into a queue; it never waits. One
//! thread takes them out, the most urgent first, while slots are free, and sleeps otherwise.
//! Pages that were read ahead and not used are at most an eighth of the cache.
//!
//! Locks: `Shared::state`, and in `Signals` one of its own, which is never taken the other way
//! round. Reads are started with neither held.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pattern::Pattern;
use super::plan::{Limits, Planner};
use super::queue::{Request, Source};
use super::target::{CachedFile, Done, Presence, Signals, Target};
use crate::base::limits;
use crate::cache::{Cache, Page};
use crate::config::Config;
use crate::engine::File;
use crate::error::{Error, ErrorKind, Result};

/// How a prefetcher works. `PrefetchConfig::default()` leaves all to the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchConfig {
    /// Requests that are read at once, at most 1024. 0 picks `prefetch_slots` of the context.
    pub slots: u32,
    /// How far ahead to read at most, bytes. 0 picks `prefetch_distance` of the context; where
    /// that is 0 as well, only hints are read.
    pub distance_bytes: u64,
    /// Bytes of one request: a multiple of the page size. 0 picks 256 KiB, or a page where that
    /// is larger, and less for a small cache or distance.
    pub chunk_bytes: u64,
    /// How long a request is worth beginning. Zero picks 100 ms.
    pub deadline: Duration,
    /// Whether to learn steps that have no simple pattern.
    pub predictor: bool,
}

impl Default for PrefetchConfig {
    fn default() -> Self {
        Self {
            slots: 0,
            distance_bytes: 0,
            chunk_bytes: 0,
            deadline: Duration::ZERO,
            predictor: true,
        }
    }
}

/// What a prefetcher has done, and what it thinks now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefetchStats {
    /// Accesses that were recorded, without those of the same pages as the one before.
    pub accesses: u64,
    /// Pages that were in memory when they were wanted.
    pub hits: u64,
    /// Those of them that were read ahead.
    pub prefetch_hits: u64,
    /// Pages that were still being read when they were wanted.
    pub late: u64,
    /// Pages that were neither.
    pub misses: u64,
    /// Bytes whose reading was started ahead.
    pub prefetched_bytes: u64,
    /// Bytes that were read ahead and not used in time.
    pub wasted_bytes: u64,
    /// Requests that were not begun before their deadline, or found the queue full.
    pub dropped: u64,
    /// Requests that the cache had no room for, or that failed.
    pub refused: u64,
    /// The pattern of the last 64 accesses.
    pub pattern: Pattern,
    /// How far ahead the pattern is followed now, bytes; 0 while that does not pay.
    pub window_bytes: u64,
    /// How many of the newest requests were used, 0.0 to 1.0.
    pub accuracy: f64,
    /// Whether the learned predictor is on.
    pub predictor_on: bool,
    /// How many of its newest predictions were right, 0.0 to 1.0.
    pub predictor_accuracy: f64,
    /// Requests that are being read.
    pub in_flight: u32,
    /// Requests that wait.
    pub queued: u64,
    /// Pages that were read ahead, or are being read, and wait to be used.
    pub unused_pages: u64,
}

impl PrefetchStats {
    /// Pages in memory when they were wanted, of all that were wanted: 0.0 to 1.0.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.late + self.misses {
            0 => 0.0,
            all => self.hits as f64 / all as f64,
        }
    }
}

/// Reads the pages of one file ahead of a program's accesses. May be used from many threads.
///
/// Dropping it ends its thread; reads that are under way end by themselves.
pub struct Prefetcher<T: Target = CachedFile> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<T> {
    target: T,
    limits: Limits,
    state: Mutex<State>,
    signals: Arc<Signals>,
}

struct State {
    planner: Planner,
    in_flight: u32,
    failure: Option<Error>,
}

impl<T: Target> Prefetcher<T> {
    /// A prefetcher over `target`. `context` is what 0 in `config` stands for.
    ///
    /// # Errors
    /// `InvalidConfig` with the field, its value and the rule; `OutOfHostMemory` when no thread
    /// can be started.
    pub fn over(target: T, context: &Config, config: PrefetchConfig) -> Result<Self> {
        let limits = resolve(&target, context, config)?;
        let file_size = target.file_size()?;
        let shared = Arc::new(Shared {
            target,
            limits,
            state: Mutex::new(State {
                planner: Planner::new(limits, file_size),
                in_flight: 0,
                failure: None,
            }),
            signals: Arc::default(),
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("gds-prefetch".to_owned())
            .spawn(move || run(&of_thread))
            .map_err(|e| {
                let text = format!("start the thread of a prefetcher: {e}; close some");
                Error::new(ErrorKind::OutOfHostMemory, text)
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What it reads into.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.shared.target
    }

    /// Notes that `size` bytes at `offset` are wanted now, and schedules what is likely to be
    /// wanted next. Never waits for storage. An access of the same pages as the last one is part
    /// of that.
    pub fn record(&self, offset: u64, size: u64) {
        let target = &self.shared.target;
        let mut state = self.shared.state.lock();
        let slots = self.shared.limits.slots;
        let planned = state.planner.record(offset, size, target);
        // A queue that waits for the thread alone has woken it already.
        let wake = planned && state.in_flight < slots;
        drop(state);
        if wake {
            self.shared.signals.wake();
        }
    }

    /// Asks for `size` bytes at `offset` to be read ahead, before all that has a lower
    /// `priority`; what is predicted has 10 to 100. Parts that have not begun after `deadline`
    /// (None: as configured) are dropped and counted; so is a request that finds the queue full.
    ///
    /// # Errors
    /// `OutOfRange`; what the operating system says of the file.
    pub fn hint(
        &self,
        offset: u64,
        size: u64,
        priority: u32,
        deadline: Option<Duration>,
    ) -> Result<()> {
        let end = match offset.checked_add(size) {
            Some(end) if end <= limits::TRANSFER_SIZE_MAX => end,
            _ => {
                let text = format!("hint {size} bytes at {offset}: that passes the largest offset");
                return Err(Error::new(ErrorKind::OutOfRange, text).with_offset(offset));
            }
        };
        let end = end.min(self.shared.target.file_size()?);
        let page = self.shared.limits.page;
        let start = offset / page * page;
        if start >= end {
            return Ok(());
        }
        let wait = deadline.unwrap_or(self.shared.limits.deadline);
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        if self.shared.limits.budget == 0 {
            state.planner.counts.refused += 1;
            return Ok(());
        }
        state.planner.queue.push(Request {
            offset: start,
            size: end - start,
            priority,
            // A deadline that no clock can tell is none for years.
            deadline: now.checked_add(wait).unwrap_or(now + FOREVER),
            source: Source::Hint,
        });
        drop(state);
        self.shared.signals.wake();
        Ok(())
    }

    /// A failure of a read that was started ahead, once, if the target told one.
    #[must_use]
    pub fn take_failure(&self) -> Option<Error> {
        self.shared.state.lock().failure.take()
    }

    /// Counters, and what it thinks now.
    #[must_use]
    pub fn stats(&self) -> PrefetchStats {
        let state = self.shared.state.lock();
        let planner = &state.planner;
        let counts = planner.counts;
        PrefetchStats {
            accesses: planner.accesses,
            hits: counts.hits,
            prefetch_hits: counts.prefetch_hits,
            late: counts.late,
            misses: counts.misses,
            prefetched_bytes: counts.prefetched * self.shared.limits.page,
            wasted_bytes: counts.wasted * self.shared.limits.page,
            dropped: planner.queue.dropped(),
            refused: counts.refused,
            pattern: planner.detector.pattern(),
            window_bytes: planner.windows[0].size(),
            accuracy: planner.windows[0].accuracy(),
            predictor_on: planner.predictor.is_on(),
            predictor_accuracy: planner.predictor.accuracy(),
            in_flight: state.in_flight,
            queued: planner.queue.len() as u64,
            unused_pages: planner.ahead.unused(),
        }
    }
}

impl Prefetcher {
    /// A prefetcher of `file` in `cache`. What 0 in `config` stands for is that of the context of
    /// the cache.
    ///
    /// # Errors
    /// As `over`.
    pub fn open(cache: &Cache, file: &File, config: PrefetchConfig) -> Result<Self> {
        let target = CachedFile::new(cache, file);
        Self::over(target, cache.context().config(), config)
    }

    /// Records an access of the page that holds `offset`, and pins the page as `Cache::get`.
    ///
    /// # Errors
    /// As `Cache::get`; what went wrong with an earlier read ahead of this file, once.
    pub fn get(&self, offset: u64) -> Result<Page> {
        let page = self.shared.limits.page;
        self.record(offset / page * page, page);
        if let Some(error) = self.take_failure() {
            return Err(error);
        }
        self.shared.target.get(offset)
    }
}

/// Ten years: longer than any program waits.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl<T: Target> Drop for Prefetcher<T> {
    fn drop(&mut self) {
        self.shared.signals.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<T: Target> fmt::Debug for Prefetcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefetcher({:?})", self.stats())
    }
}

fn resolve<T: Target>(target: &T, context: &Config, config: PrefetchConfig) -> Result<Limits> {
    let or = |given: u64, standard: u64| if given == 0 { standard } else { given };
    let page = target.page_size();
    let budget = target.capacity() / 8;
    let slots = or(config.slots.into(), context.prefetch_slots.into());
    let distance = or(config.distance_bytes, context.prefetch_distance);
    let standard = (256 << 10)
        .min(distance)
        .min(budget / 4 * page)
        .max(page)
        .next_multiple_of(page);
    let chunk = or(config.chunk_bytes, standard);
    if slots > limits::PREFETCH_SLOTS_MAX.into() {
        let rule = format!("at most {}", limits::PREFETCH_SLOTS_MAX);
        return Err(broken("slots", slots, &rule));
    }
    if distance > limits::PREFETCH_DISTANCE_MAX {
        let rule = format!("at most {}", limits::PREFETCH_DISTANCE_MAX);
        return Err(broken("distance_bytes", distance, &rule));
    }
    if !chunk.is_multiple_of(page) || chunk > limits::PREFETCH_DISTANCE_MAX {
        let rule = format!(
            "a multiple of the page size ({page}), at most {}",
            limits::PREFETCH_DISTANCE_MAX
        );
        return Err(broken("chunk_bytes", chunk, &rule));
    }
    if distance > 0 && distance < chunk {
        let rule = format!("0 or at least chunk_bytes ({chunk})");
        return Err(broken("distance_bytes", distance, &rule));
    }
    Ok(Limits {
        page,
        chunk,
        distance,
        budget,
        slots: slots as u32,
        deadline: match config.deadline {
            Duration::ZERO => Duration::from_millis(100),
            deadline => deadline,
        },
        learns: config.predictor,
    })
}

fn broken(field: &str, value: u64, rule: &str) -> Error {
    let text = format!("{field} of a prefetcher is {value}; it must be {rule}");
    Error::new(ErrorKind::InvalidConfig, text)
}

/// The thread: takes in what is over, starts what there is room for, sleeps.
fn run<T: Target>(shared: &Shared<T>) {
    let mut until = None;
    loop {
        let inbox = shared.signals.wait(until);
        if inbox.closing {
            return;
        }
        for number in inbox.finished {
            let mut state = shared.state.lock();
            state.in_flight -= 1;
            state.planner.finish(number, &shared.target);
        }
        while let Some((number, request)) = shared.take() {
            let done = Done::new(&shared.signals, number);
            let started = shared.target.start(request.offset, request.size, done);
            shared.started(started);
        }
        until = shared.state.lock().planner.queue.next_deadline();
    }
}

impl<T: Target> Shared<T> {
    /// The next request that has a slot and room, as what it has to read.
    fn take(&self) -> Option<(u64, Request)> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.planner.queue.expire(now);
        if state.in_flight >= self.limits.slots {
            return None;
        }
        let next = state.planner.next(now, |page| {
            self.target.presence(page * self.limits.page) == Presence::Absent
        })?;
        state.in_flight += 1;
        Some(next)
    }

    fn started(&self, started: Result<u64>) {
        let mut state = self.state.lock();
        match started {
            Ok(0) => state.planner.counts.refused += 1,
            Ok(pages) => state.planner.counts.prefetched += pages,
            Err(error) => {
                state.planner.counts.refused += 1;
                state.failure.get_or_insert(error);
            }
        }
    }
}
