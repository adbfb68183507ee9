//! A submitted set of transfers: what is left to do, what went wrong, who waits.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Path;
use super::plan::{Entry, Piece};
use super::shared::Shared;
use super::stream::Ring;
use super::transfer::{Completion, Sequence};
use crate::base::clock::now_ns;
use crate::base::crc::crc32c_join;
use crate::config::PathPolicy;
use crate::device::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Operation;
use crate::metrics::PATHS;

/// How a job is to be carried out, with every default filled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) policy: PathPolicy,
    pub(super) fallback: bool,
    pub(super) checksum: bool,
    /// When to give up what has not started, on the clock of `now_ns`; 0 is never.
    pub(super) deadline_ns: u64,
    pub(super) sequence: Option<Sequence>,
}

/// The place of a job in a caller's stream.
pub(super) struct Gate {
    /// A mark before the kernel: tells when the stream has failed and will never come to it.
    before: Event,
    pub(super) ring: Ring,
    opened: AtomicBool,
}

impl Gate {
    pub(super) fn new(before: Event, ring: Ring) -> Self {
        Self {
            before,
            ring,
            opened: AtomicBool::new(false),
        }
    }

    /// Whether the stream has come to the kernel, or the error that keeps it from coming.
    fn look(&self, shared: &Shared) -> Result<bool> {
        if self.opened.load(Relaxed) {
            return Ok(true);
        }
        if !self.ring.started() {
            return shared.device.event_query(self.before).map(|_| false);
        }
        self.opened.store(true, Relaxed);
        Ok(true)
    }
}

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const EXPIRED: u8 = 2;
const DEAD: u8 = 3;

/// A job. Pieces are claimed in order by `claim`, and each ends in one of `end_piece` and
/// `fail_piece`; the one that ends last finishes the job.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) entries: Box<[Entry]>,
    pub(super) terms: Terms,
    pub(super) gate: Option<Gate>,
    pub(super) retries: AtomicU32,
    pub(super) fallbacks: AtomicU32,
    piece_total: u64,
    next_piece: AtomicU64,
    remaining: AtomicU64,
    moved: AtomicU64,
    path_bytes: [AtomicU64; PATHS],
    stopped: AtomicU8,
    start_ns: u64,
    /// How many jobs were queued before it.
    pub(super) place: AtomicU64,
    errors: Mutex<Vec<(usize, Error)>>,
    done: AtomicBool,
    waiting: Mutex<Waiting>,
    finished: Condvar,
    results: OnceLock<Outcome>,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Waker>,
    event: Option<OwnedFd>,
}

struct Outcome {
    whole: Result<Completion>,
    each: Vec<Result<Completion>>,
}

impl Job {
    pub(super) fn new(
        shared: Arc<Shared>,
        mut entries: Vec<Entry>,
        terms: Terms,
        gate: Option<Gate>,
    ) -> Arc<Self> {
        let mut piece_total = 0;
        for entry in &mut entries {
            entry.first_piece = piece_total;
            piece_total += entry.piece_count;
        }
        Arc::new(Self {
            shared,
            entries: entries.into_boxed_slice(),
            terms,
            gate,
            retries: AtomicU32::new(0),
            fallbacks: AtomicU32::new(0),
            piece_total,
            next_piece: AtomicU64::new(0),
            remaining: AtomicU64::new(piece_total),
            moved: AtomicU64::new(0),
            path_bytes: Default::default(),
            stopped: AtomicU8::new(RUNNING),
            start_ns: now_ns(),
            place: AtomicU64::new(0),
            errors: Mutex::new(Vec::new()),
            done: AtomicBool::new(false),
            waiting: Mutex::new(Waiting::default()),
            finished: Condvar::new(),
            results: OnceLock::new(),
        })
    }

    /// Pieces in all.
    pub(super) fn piece_total(&self) -> u64 {
        self.piece_total
    }

    /// Pieces that nobody has claimed.
    pub(super) fn unclaimed(&self) -> u64 {
        self.piece_total - self.next_piece.load(Relaxed).min(self.piece_total)
    }

    /// The next unclaimed piece, not claimed by this.
    pub(super) fn peek(&self, ahead: u64) -> Option<Piece> {
        let at = self.next_piece.load(Relaxed) + ahead;
        (at < self.piece_total).then(|| self.piece_at(at))
    }

    fn piece_at(&self, at: u64) -> Piece {
        let entry = self.entries.partition_point(|e| e.first_piece <= at) - 1;
        // Entries without bytes share their first_piece with the next; step back over none of
        // them, since partition_point gives the last that starts at or before the piece.
        self.entries[entry].piece(entry, at - self.entries[entry].first_piece)
    }

    /// Claims `count` pieces from where `peek(0)` stood; false when somebody was faster.
    pub(super) fn claim(&self, first: Piece, count: u64) -> bool {
        let at = self.entries[first.entry].first_piece + first.index;
        self.next_piece
            .compare_exchange(at, at + count, AcqRel, Relaxed)
            .is_ok()
    }

    /// Whether `gate_is_open` has something to say; ends nothing.
    pub(super) fn gate_has_passed(&self) -> bool {
        self.gate
            .as_ref()
            .is_none_or(|gate| !matches!(gate.look(&self.shared), Ok(false)))
    }

    /// Whether the caller's stream has come to this job. A failed stream kills the job: nothing
    /// may be read or written on its behalf.
    pub(super) fn gate_is_open(&self) -> bool {
        let Some(gate) = &self.gate else { return true };
        gate.look(&self.shared).unwrap_or_else(|error| {
            self.kill(&error);
            false
        })
    }

    /// Ends a piece of which `bytes` moved.
    pub(super) fn end_piece(&self, piece: Piece, bytes: u64, path: Path, crc: Option<u32>) {
        let entry = &self.entries[piece.entry];
        if bytes < piece.size {
            entry.short_at.fetch_min(piece.position + bytes, Relaxed);
        }
        if let Some(crc) = crc {
            entry.checks[piece.index as usize].store(crc, Relaxed);
        }
        entry.note_path(path);
        self.path_bytes[path as usize].fetch_add(bytes, Relaxed);
        self.moved.fetch_add(bytes, Relaxed);
        self.end_pieces(1);
    }

    /// Ends a piece that failed; the first error of its transfer is kept.
    pub(super) fn fail_piece(&self, piece: Piece, error: Error) {
        self.note_error(piece.entry, error);
        self.end_pieces(1);
    }

    fn note_error(&self, entry: usize, error: Error) {
        if !self.entries[entry].failed.swap(true, AcqRel) {
            self.errors.lock().push((entry, error));
        }
    }

    fn end_pieces(&self, count: u64) {
        if count > 0 && self.remaining.fetch_sub(count, AcqRel) == count {
            self.finish();
        }
    }

    /// Counts pieces that go another way.
    pub(super) fn count_fallback(&self) {
        self.fallbacks.fetch_add(1, Relaxed);
        self.shared.metrics.fallbacks.fetch_add(1, Relaxed);
    }

    /// Finishes a job that has nothing to move.
    pub(super) fn finish_empty(&self) {
        if self.piece_total == 0 {
            self.finish();
        }
    }

    /// Stops what has not started. What has started still ends by itself.
    pub(super) fn cancel(&self) {
        self.stop(CANCELLED);
    }

    /// As `cancel`, because the library cannot go on; `error` is every transfer's.
    pub(super) fn kill(&self, error: &Error) {
        for entry in 0..self.entries.len() {
            self.note_error(entry, error.clone());
        }
        self.stop(DEAD);
    }

    /// Stops the job when its deadline has passed. True when it has.
    pub(super) fn check_deadline(&self) -> bool {
        let deadline = self.terms.deadline_ns;
        if deadline == 0 || now_ns() < deadline {
            return false;
        }
        self.stop(EXPIRED);
        true
    }

    fn stop(&self, why: u8) {
        if self.is_done()
            || self
                .stopped
                .compare_exchange(RUNNING, why, AcqRel, Relaxed)
                .is_err()
        {
            return;
        }
        let at = self.next_piece.swap(self.piece_total, AcqRel);
        if at >= self.piece_total {
            return;
        }
        let error = match why {
            EXPIRED => Error::new(
                ErrorKind::TimedOut,
                "the deadline passed before all of the transfer had started; the rest was not \
                 moved",
            ),
            _ => Error::new(
                ErrorKind::Cancelled,
                "the transfer was cancelled before it was over",
            ),
        };
        let first = self.piece_at(at).entry;
        for index in first..self.entries.len() {
            if self.entries[index].piece_count > 0 {
                self.note_error(index, error.clone());
            }
        }
        self.end_pieces(self.piece_total - at);
    }

    fn finish(&self) {
        let latency_ns = now_ns() - self.start_ns;
        let outcome = self.outcome(latency_ns);
        self.record(&outcome, latency_ns);
        let _ = self.results.set(outcome);
        if let Some(gate) = &self.gate {
            gate.ring.close();
        }
        let mut waiting = self.waiting.lock();
        self.done.store(true, Release);
        let wakers = std::mem::take(&mut waiting.wakers);
        if let Some(event) = &waiting.event {
            signal(event.as_raw_fd());
        }
        drop(waiting);
        self.finished.notify_all();
        for waker in wakers {
            waker.wake();
        }
    }

    fn outcome(&self, latency_ns: u64) -> Outcome {
        let mut errors = std::mem::take(&mut *self.errors.lock());
        errors.sort_by_key(|(entry, _)| *entry);
        let mut failures = errors.into_iter().peekable();
        let retries = self.retries.load(Relaxed);
        let fallbacks = self.fallbacks.load(Relaxed);
        let mut each = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some((_, error)) = failures.next_if(|(at, _)| *at == index) {
                each.push(Err(error));
                continue;
            }
            let bytes = entry.bytes();
            if bytes < entry.promised {
                each.push(Err(shrunk(entry, bytes)));
                continue;
            }
            let paths = entry.paths.load(Relaxed);
            each.push(Ok(Completion {
                bytes,
                path: self.main_path(paths),
                paths,
                crc32c: self.terms.checksum.then(|| join_checks(entry, bytes)),
                latency_ns,
                retries,
                fallbacks,
            }));
        }
        Outcome {
            whole: self.whole(&each, latency_ns),
            each,
        }
    }

    /// The transfers of a job as one: the first error, or the sum.
    fn whole(&self, each: &[Result<Completion>], latency_ns: u64) -> Result<Completion> {
        let mut whole = Completion {
            bytes: 0,
            path: Path::None,
            paths: 0,
            crc32c: self.terms.checksum.then_some(0),
            latency_ns,
            retries: self.retries.load(Relaxed),
            fallbacks: self.fallbacks.load(Relaxed),
        };
        for one in each {
            let one = one.as_ref().map_err(Clone::clone)?;
            if let (Some(sum), Some(crc)) = (whole.crc32c, one.crc32c) {
                whole.crc32c = Some(crc32c_join(sum, crc, one.bytes));
            }
            whole.bytes += one.bytes;
            whole.paths |= one.paths;
        }
        whole.path = self.main_path(whole.paths);
        Ok(whole)
    }

    /// Of the paths in `paths`, the one that moved the most of the job.
    fn main_path(&self, paths: u32) -> Path {
        Path::ALL
            .into_iter()
            .filter(|p| paths & (1 << *p as u32) != 0)
            .max_by_key(|p| self.path_bytes[*p as usize].load(Relaxed))
            .unwrap_or(Path::None)
    }

    fn record(&self, outcome: &Outcome, latency_ns: u64) {
        let metrics = &self.shared.metrics;
        for operation in [Operation::Read, Operation::Write] {
            let direction = match operation {
                Operation::Read => &metrics.read,
                Operation::Write => &metrics.write,
            };
            let (mut good, mut bytes) = (0, 0);
            for (entry, result) in self.entries.iter().zip(&outcome.each) {
                match result {
                    _ if entry.operation != operation => {}
                    Ok(completion) => {
                        good += 1;
                        bytes += completion.bytes;
                    }
                    Err(_) => direction.record_error(),
                }
            }
            if good > 0 {
                direction.record_many(good, bytes, latency_ns);
            }
        }
        for (to, from) in metrics.path_bytes.iter().zip(&self.path_bytes) {
            let bytes = from.load(Relaxed);
            if bytes > 0 {
                to.fetch_add(bytes, Relaxed);
            }
        }
    }

    /// Whether every piece has ended. A job past its deadline is stopped by asking.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Acquire)
    }

    /// Bytes that have arrived so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// The result, once it is done.
    pub(super) fn result(&self) -> Option<Result<Completion>> {
        if !self.is_done() {
            return None;
        }
        self.results.get().map(|o| o.whole.clone())
    }

    /// The result of one transfer, once the job is done.
    pub(super) fn result_of(&self, index: usize) -> Option<Result<Completion>> {
        if !self.is_done() {
            return None;
        }
        self.results.get().and_then(|o| o.each.get(index)).cloned()
    }

    /// Waits until the job is done or `until`. True when it is done.
    pub(super) fn wait(&self, until: Option<Instant>) -> bool {
        self.spin();
        let mut waiting = self.waiting.lock();
        while !self.is_done() {
            let deadline = self.deadline_instant();
            let next = match (until, deadline) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            match next {
                None => self.finished.wait(&mut waiting),
                Some(at) => {
                    if self.finished.wait_until(&mut waiting, at).timed_out() && !self.is_done() {
                        parking_lot::MutexGuard::unlocked(&mut waiting, || self.check_deadline());
                        if until.is_some_and(|u| Instant::now() >= u) && !self.is_done() {
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    /// Looks for a moment before it sleeps: most small jobs are over by then.
    fn spin(&self) {
        let end = Instant::now() + Duration::from_micros(self.shared.config.poll_interval_us);
        while !self.is_done() && Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    /// When the deadline is, unless the job has been stopped already.
    fn deadline_instant(&self) -> Option<Instant> {
        let deadline = self.terms.deadline_ns;
        if deadline == 0 || self.stopped.load(Relaxed) != RUNNING {
            return None;
        }
        Some(Instant::now() + Duration::from_nanos(deadline.saturating_sub(now_ns())))
    }

    /// Wakes this task when the job is done. True when it already is.
    pub(super) fn wake_when_done(&self, waker: &Waker) -> bool {
        let mut waiting = self.waiting.lock();
        if self.is_done() {
            return true;
        }
        if !waiting.wakers.iter().any(|w| w.will_wake(waker)) {
            waiting.wakers.push(waker.clone());
        }
        false
    }

    /// A descriptor that becomes readable when the job is done. It stays the job's.
    pub(super) fn event_fd(&self) -> Result<RawFd> {
        let mut waiting = self.waiting.lock();
        if let Some(event) = &waiting.event {
            return Ok(event.as_raw_fd());
        }
        // SAFETY: eventfd takes two integers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::last_os("make an eventfd for a ticket"));
        }
        // SAFETY: the descriptor was just made and is nobody else's.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        if self.is_done() {
            signal(fd);
        }
        waiting.event = Some(event);
        Ok(fd)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            // SAFETY: the event is this gate's own and no thread looks at it any more.
            unsafe { self.shared.device.event_destroy(gate.before) };
        }
    }
}

fn signal(fd: RawFd) {
    let one = 1u64.to_le_bytes();
    // SAFETY: the buffer holds the eight bytes that an eventfd takes.
    unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
}

fn shrunk(entry: &Entry, bytes: u64) -> Error {
    let path = entry.file.descriptors.path();
    Error::new(
        ErrorKind::FileChanged,
        format!(
            "{} had {} bytes from {} when the read began, but only {bytes} when it got there: \
             somebody shortened the file; read it again",
            path.display(),
            entry.promised,
            entry.file_offset
        ),
    )
    .with_path(path)
    .with_offset(entry.file_offset + bytes)
}

fn join_checks(entry: &Entry, bytes: u64) -> u32 {
    let mut sum = 0;
    for index in 0..entry.piece_count {
        let piece = entry.piece(0, index);
        if piece.position >= bytes {
            break;
        }
        let size = piece.size.min(bytes - piece.position);
        sum = crc32c_join(sum, entry.checks[index as usize].load(Relaxed), size);
    }
    sum
}
