//! Who waits for records and who publishes them, in every order that threads can take.
//!
//! loom stands in for the lock, the condition variables and the counter; the code is that of the
//! library. A waiter that is never woken is a deadlock, which loom reports.

use std::time::Instant;

use gds_rs::kv::wal::ticket::{Counter, Monitor, Ticket, Waiting};
use gds_rs::{Error, ErrorKind};
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;

/// Every order with at most this many switches that no thread asked for.
fn model(switches: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(body);
}

struct LoomCounter(AtomicU64);

impl Counter for LoomCounter {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }
}

struct LoomLock {
    state: Mutex<Waiting>,
    slots: [Condvar; 2],
    /// Forgets to wake this one.
    deaf: Option<usize>,
}

impl Monitor<Waiting> for LoomLock {
    type Guard<'a> = MutexGuard<'a, Waiting>;

    fn lock(&self) -> Self::Guard<'_> {
        self.state.lock().expect("well")
    }
    fn wait<'a>(
        &'a self,
        guard: Self::Guard<'a>,
        slot: usize,
        _deadline: Option<Instant>,
    ) -> (Self::Guard<'a>, bool) {
        (self.slots[slot].wait(guard).expect("well"), false)
    }
    fn wake(&self, slot: usize) {
        if self.deaf != Some(slot) {
            self.slots[slot].notify_all();
        }
    }
}

type LoomTicket = Ticket<LoomCounter, LoomLock>;

fn ticket(deaf: Option<usize>) -> Arc<LoomTicket> {
    let lock = LoomLock {
        state: Mutex::new(Waiting::default()),
        slots: [Condvar::new(), Condvar::new()],
        deaf,
    };
    Arc::new(Ticket::new(LoomCounter(AtomicU64::new(0)), lock))
}

fn two_waiters_and_two_batches(deaf: Option<usize>) {
    model(3, move || {
        let ticket = ticket(deaf);
        // What the log thread wrote before it published.
        let written = Arc::new(AtomicU64::new(0));
        let waiters: Vec<_> = [1, 2]
            .map(|lsn| {
                let (ticket, written) = (ticket.clone(), written.clone());
                thread::spawn(move || {
                    ticket.wait(lsn, None).expect("well");
                    assert!(ticket.durable() >= lsn);
                    assert!(written.load(Ordering::Relaxed) >= lsn, "told too early");
                })
            })
            .into();
        for lsn in [1, 2] {
            ticket.take(lsn);
            written.store(lsn, Ordering::Relaxed);
            ticket.publish();
        }
        waiters.into_iter().for_each(|t| t.join().expect("well"));
    });
}

#[test]
fn whoever_waits_is_woken_by_the_batch_that_serves_him() {
    let deaf = std::env::var("GDS_LOOM_DEAF")
        .ok()
        .map(|slot| slot.parse().expect("well"));
    two_waiters_and_two_batches(deaf);
}

#[test]
fn a_wake_up_that_is_lost_would_be_found() {
    // A deadlock ends the process: a child has it.
    for slot in ["0", "1"] {
        let child = std::process::Command::new(std::env::current_exe().expect("well"))
            .args([
                "--exact",
                "whoever_waits_is_woken_by_the_batch_that_serves_him",
                "--nocapture",
            ])
            .env("GDS_LOOM_DEAF", slot)
            .output()
            .expect("well");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(
            !child.status.success() && said.contains("deadlock"),
            "slot {slot}: {said}"
        );
    }
}

#[test]
fn one_batch_may_serve_both_and_a_waiter_may_come_late() {
    model(3, || {
        let ticket = ticket(None);
        let waiters: Vec<_> = [1, 2]
            .map(|lsn| {
                let ticket = ticket.clone();
                thread::spawn(move || ticket.wait(lsn, None).expect("well"))
            })
            .into();
        ticket.take(2);
        ticket.publish();
        waiters.into_iter().for_each(|t| t.join().expect("well"));
        // An empty batch repeats the number.
        ticket.take(2);
        ticket.publish();
        assert_eq!(ticket.durable(), 2);
    });
}

#[test]
fn a_failure_wakes_all_and_who_was_served_stays_served() {
    model(3, || {
        let ticket = ticket(None);
        let waiters: Vec<_> = [1, 2]
            .map(|lsn| {
                let ticket = ticket.clone();
                thread::spawn(move || (lsn, ticket.wait(lsn, None)))
            })
            .into();
        ticket.take(1);
        ticket.publish();
        ticket.take(2);
        ticket.fail(&Error::new(ErrorKind::Poisoned, "by a test"));
        for waiter in waiters {
            let (lsn, outcome) = waiter.join().expect("well");
            assert_eq!(outcome.is_ok(), lsn == 1, "{lsn}: {outcome:?}");
        }
    });
}

#[test]
fn a_callback_runs_once_whoever_is_first() {
    model(3, || {
        let ticket = ticket(None);
        let calls = Arc::new(AtomicUsize::new(0));
        let asker = {
            let (ticket, calls) = (ticket.clone(), calls.clone());
            thread::spawn(move || {
                let shared = ticket.clone();
                ticket.call(
                    1,
                    Box::new(move |outcome| {
                        assert_eq!(outcome.expect("well"), 1);
                        assert_eq!(shared.durable(), 1);
                        calls.fetch_add(1, Ordering::Relaxed);
                    }),
                );
            })
        };
        ticket.take(1);
        ticket.publish();
        asker.join().expect("well");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    });
}
