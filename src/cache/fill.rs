//! A page on its way: one does the work, all others sleep until it is over.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};

/// Runs the I/O of a page that others wait for. A panic in it is an error of the page: else its way
/// would never end, and they would wait for ever.
pub(super) fn unbroken<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        // A payload may panic when it is dropped.
        std::mem::forget(payload);
        let text = "a thread panicked while it read or wrote a page; please report this";
        Err(Error::new(ErrorKind::Internal, text))
    })
}

/// How the way ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The page is there, and each waiter that registered holds a pin.
    Ready,
    /// The page was on its way out; look again.
    Gone,
    /// It could not be read.
    Failed(Error),
}

/// Where those who want a page on its way wait for it.
#[derive(Default)]
pub(super) struct Fill {
    /// Threads that wait for a pin. Changes under the shard's lock.
    waiters: AtomicU32,
    /// Somebody waits for the outcome without wanting a pin, and will tell an error.
    watched: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
    finished: Condvar,
}

impl Fill {
    /// One more thread wants a pin. Under the shard's lock, before `wait`.
    pub(super) fn join(&self) {
        self.waiters.fetch_add(1, Relaxed);
    }

    /// Pins to give out. Under the shard's lock.
    pub(super) fn waiters(&self) -> u32 {
        self.waiters.load(Relaxed)
    }

    /// Somebody will tell its error.
    pub(super) fn watch(&self) {
        self.watched.store(true, Relaxed);
    }

    /// Whether nobody learns of an error by waiting.
    pub(super) fn is_unheard(&self) -> bool {
        self.waiters() == 0 && !self.watched.load(Relaxed)
    }

    /// Sleeps until the way has ended.
    pub(super) fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            self.finished.wait(&mut outcome);
        }
    }

    /// Ends the way and wakes everybody.
    pub(super) fn finish(&self, how: Outcome) {
        *self.outcome.lock() = Some(how);
        self.finished.notify_all();
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fill({} waiters)", self.waiters())
    }
}
