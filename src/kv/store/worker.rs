//! The one background thread: checkpoints and cleaning. It sleeps until somebody asks.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use super::changed::Group;
use crate::error::{Error, Result};
use crate::kv::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::kv::sync::thread::{self, JoinHandle};
use crate::kv::sync::{Condvar, Mutex};

/// How long the memory of a checkpoint is kept for another one.
const KEPT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Wanted {
    checkpoint: bool,
    space: bool,
    stop: bool,
    /// A round is under way.
    running: bool,
    /// Rounds that ended.
    rounds: u64,
}

/// What the thread is asked for, and how far it is.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    done: Condvar,
    /// Writers that wait for a round.
    waiting: AtomicU32,
}

impl Signal {
    /// A checkpoint is due.
    pub fn want_checkpoint(&self) {
        let mut wanted = self.wanted.lock();
        if !wanted.checkpoint {
            wanted.checkpoint = true;
            self.wake.notify_one();
        }
    }

    /// Space is short.
    pub fn want_space(&self) {
        let mut wanted = self.wanted.lock();
        if !wanted.space {
            wanted.space = true;
            self.wake.notify_one();
        }
    }

    /// What writers may wait for has happened, though the round goes on.
    pub fn end_round(&self) {
        self.wanted.lock().rounds += 1;
        self.done.notify_all();
    }

    pub fn somebody_waits(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Asks for space and waits until a whole round that began after this has ended. False when
    /// the deadline passed or the thread has ended.
    pub fn wait_for_round(&self, deadline: Instant) -> bool {
        let mut wanted = self.wanted.lock();
        // The round that runs now may have looked before we asked: wait for the one after it.
        let target = wanted.rounds + 1 + u64::from(wanted.running);
        self.waiting.fetch_add(1, Relaxed);
        let mut good = true;
        while wanted.rounds < target && good {
            wanted.space = true;
            self.wake.notify_one();
            good = !self.done.wait_until(&mut wanted, deadline).timed_out() && !wanted.stop;
        }
        self.waiting.fetch_sub(1, Relaxed);
        good
    }

    pub fn stop(&self) {
        let mut wanted = self.wanted.lock();
        wanted.stop = true;
        self.wake.notify_all();
        self.done.notify_all();
    }
}

/// Starts the thread. It ends when it is told to, or when the store is gone.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>> {
    let signal = Arc::clone(&shared.signal);
    let weak = Arc::downgrade(shared);
    thread::Builder::new()
        .name("gds-kv".into())
        .spawn(move || run(&signal, &weak))
        .map_err(|e| Error::os(e.raw_os_error().unwrap_or(0), "start the store's thread"))
}

fn run(signal: &Signal, store: &Weak<Shared>) {
    // What opening found, so that the first scan need not wait for it.
    if let Some(shared) = store.upgrade() {
        shared.index.settle_order();
    }
    // Memory of the last checkpoint, for the next one.
    let mut group = Group::default();
    loop {
        let (checkpoint, space) = {
            let mut wanted = signal.wanted.lock();
            while !(wanted.checkpoint || wanted.space || wanted.stop) {
                if group.is_empty() {
                    signal.wake.wait(&mut wanted);
                } else if signal.wake.wait_for(&mut wanted, KEPT).timed_out() {
                    group = Group::default();
                }
            }
            if wanted.stop {
                return;
            }
            wanted.running = true;
            let checkpoint = std::mem::take(&mut wanted.checkpoint);
            (checkpoint, std::mem::take(&mut wanted.space))
        };
        let Some(shared) = store.upgrade() else {
            return;
        };
        let result = shared.round(checkpoint, space, &mut group);
        let failed = result.is_err();
        if let Err(error) = result {
            shared.remember(error);
        }
        drop(shared);
        let mut wanted = signal.wanted.lock();
        wanted.rounds += 1;
        wanted.running = false;
        signal.done.notify_all();
        if failed && !wanted.stop {
            // Asked again at once it would fail again at once: a pause, not a spin.
            let _ = signal.wake.wait_for(&mut wanted, Duration::from_millis(50));
        }
    }
}
