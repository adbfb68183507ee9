//! Who waits for which record, and how they learn that it is durable.
//!
//! One number says what is durable; reading it is free. Who must sleep does so on one of two
//! condition variables: one for the batch that is being written, one for all later ones, so that a
//! finished batch wakes those whom it serves and nobody else. Callbacks run on the thread that
//! publishes, without a lock. Generic over the lock and the number, so that loom runs the same
//! code (`tests/kv_wal_loom.rs`).

use std::collections::VecDeque;
use std::fmt;
use std::ops::DerefMut;
use std::sync::PoisonError;
use std::time::Instant;

use super::Lsn;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::sync::atomic::{AtomicU64, Ordering};
use crate::kv::sync::standard::{Condvar, Mutex, MutexGuard};

/// Called when a record is durable, or never will be.
pub type Call = Box<dyn FnOnce(Result<Lsn>) + Send>;

/// A number that grows.
pub trait Counter: Send + Sync {
    /// The number; what was written before it was stored is seen.
    fn load(&self) -> u64;
    /// Replaces it.
    fn store(&self, value: u64);
}

/// A lock with two condition variables, numbered 0 and 1.
pub trait Monitor<T>: Send + Sync {
    /// Holds the lock.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;

    /// Takes the lock.
    fn lock(&self) -> Self::Guard<'_>;
    /// Sleeps on a condition variable; true when the deadline passed.
    fn wait<'a>(
        &'a self,
        guard: Self::Guard<'a>,
        slot: usize,
        deadline: Option<Instant>,
    ) -> (Self::Guard<'a>, bool);
    /// Wakes all who sleep on a condition variable.
    fn wake(&self, slot: usize);
}

/// What the lock guards.
#[derive(Default)]
pub struct Waiting {
    /// The last record of the batch that is being written, or of the last one.
    taken: Lsn,
    /// Where those wait whom that batch serves.
    slot: usize,
    /// By record.
    calls: VecDeque<(Lsn, Call)>,
    failed: Option<Error>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("taken", &self.taken)
            .field("calls", &self.calls.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// The durable record, and who waits for it to grow.
#[derive(Debug)]
pub struct Ticket<C, M> {
    durable: C,
    waiting: M,
}

impl<C: Counter, M: Monitor<Waiting>> Ticket<C, M> {
    /// Of a counter that says what is durable now, and a lock over [`Waiting::default`].
    pub fn new(durable: C, waiting: M) -> Self {
        waiting.lock().taken = durable.load();
        Self { durable, waiting }
    }

    /// The last record that is durable.
    #[inline]
    pub fn durable(&self) -> Lsn {
        self.durable.load()
    }

    /// Sleeps until `lsn` is durable.
    ///
    /// # Errors
    /// `TimedOut` after the deadline; what [`Ticket::fail`] was given.
    pub fn wait(&self, lsn: Lsn, deadline: Option<Instant>) -> Result<()> {
        if self.durable.load() >= lsn {
            return Ok(());
        }
        let mut waiting = self.waiting.lock();
        let mut late = false;
        loop {
            let durable = self.durable.load();
            if durable >= lsn {
                return Ok(());
            }
            if let Some(error) = &waiting.failed {
                return Err(error.clone());
            }
            if late {
                let message = format!(
                    "wait for record {lsn} of the log: the deadline passed and {durable} is \
                     durable; it still becomes durable unless the log fails"
                );
                return Err(Error::new(ErrorKind::TimedOut, message));
            }
            let slot = if lsn <= waiting.taken {
                waiting.slot
            } else {
                waiting.slot ^ 1
            };
            (waiting, late) = self.waiting.wait(waiting, slot, deadline);
        }
    }

    /// Calls back when `lsn` is durable: on the publishing thread, or at once on this one where
    /// it already is, or never will be.
    pub fn call(&self, lsn: Lsn, call: Call) {
        let mut waiting = self.waiting.lock();
        let durable = self.durable.load();
        let outcome = match &waiting.failed {
            _ if durable >= lsn => Ok(durable),
            Some(error) => Err(error.clone()),
            None => {
                // Nearly always the newest.
                let at = waiting.calls.partition_point(|(other, _)| *other <= lsn);
                waiting.calls.insert(at, (lsn, call));
                return;
            }
        };
        drop(waiting);
        call(outcome);
    }

    /// The publisher starts to write a batch that ends with `last`.
    pub fn take(&self, last: Lsn) {
        let mut waiting = self.waiting.lock();
        waiting.taken = last;
        waiting.slot ^= 1;
    }

    /// The batch that was taken is durable. Runs callbacks.
    pub fn publish(&self) {
        let mut waiting = self.waiting.lock();
        let durable = waiting.taken;
        self.durable.store(durable);
        let slot = waiting.slot;
        let count = waiting.calls.partition_point(|(lsn, _)| *lsn <= durable);
        let ready: Vec<_> = waiting.calls.drain(..count).collect();
        drop(waiting);
        self.waiting.wake(slot);
        for (_, call) in ready {
            run(call, Ok(durable));
        }
    }

    /// Nothing more becomes durable: all who wait, now and later, get `error`. The first error
    /// stays.
    pub fn fail(&self, error: &Error) {
        let mut waiting = self.waiting.lock();
        let error = waiting.failed.get_or_insert_with(|| error.clone()).clone();
        let calls = std::mem::take(&mut waiting.calls);
        drop(waiting);
        self.waiting.wake(0);
        self.waiting.wake(1);
        for (_, call) in calls {
            run(call, Err(error.clone()));
        }
    }

    /// What it failed with.
    pub fn failure(&self) -> Option<Error> {
        self.waiting.lock().failed.clone()
    }
}

/// A callback that panics must not take the publisher with it: others wait for it.
fn run(call: Call, outcome: Result<Lsn>) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(outcome)));
}

impl Counter for AtomicU64 {
    #[inline]
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Acquire)
    }

    fn store(&self, value: u64) {
        Self::store(self, value, Ordering::Release);
    }
}

/// The lock outside of loom. Of the standard library: its condition variable wakes all at once,
/// where parking_lot's has each wake the next (with 256 waiters, half the commits a second).
#[derive(Debug, Default)]
pub struct Lock<T> {
    state: Mutex<T>,
    slots: [Condvar; 2],
}

impl<T: Send> Monitor<T> for Lock<T> {
    type Guard<'a>
        = MutexGuard<'a, T>
    where
        Self: 'a;

    fn lock(&self) -> Self::Guard<'_> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &'a self,
        guard: Self::Guard<'a>,
        slot: usize,
        deadline: Option<Instant>,
    ) -> (Self::Guard<'a>, bool) {
        let slot = &self.slots[slot];
        let Some(deadline) = deadline else {
            let guard = slot.wait(guard);
            return (guard.unwrap_or_else(PoisonError::into_inner), false);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let (guard, outcome) = slot
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner);
        (guard, outcome.timed_out())
    }

    fn wake(&self, slot: usize) {
        self.slots[slot].notify_all();
    }
}
