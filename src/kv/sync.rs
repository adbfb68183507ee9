//! The locks, atomics and threads of the room: those of parking_lot and the standard library.
//!
//! With `--cfg gds_shuttle` they are shuttle's, which decides at each of them who goes on, from a
//! seed; `tests/kv_shuttle.rs` then runs the whole store through many thousands of such orders.
//! Only locks under which nothing waits stay as they are: those of disks and of spare memory.

#[cfg(not(gds_shuttle))]
pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(gds_shuttle))]
pub use std::sync::atomic;
#[cfg(not(gds_shuttle))]
pub use std::thread;

/// Starts a thread of a scope. Shuttle's have no names.
#[cfg(not(gds_shuttle))]
pub fn spawn_in<'scope, R: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> R + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, R>> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn_scoped(scope, run)
}

/// As above.
#[cfg(gds_shuttle)]
pub fn spawn_in<'scope, R: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    _name: &str,
    run: impl FnOnce() -> R + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, R>> {
    Ok(scope.spawn(run))
}

/// A sum that is never negative, to which one thread at a time, that of a lock, adds for the price
/// of a store, and any thread for that of an atomic addition.
#[derive(Debug, Default)]
pub struct Tally {
    by_holder: atomic::AtomicI64,
    /// On lines of its own: others' additions must not take the holder's from its processor.
    by_others: Apart<atomic::AtomicI64>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl Tally {
    /// The sum; it may lack what is being added.
    #[inline]
    pub fn get(&self) -> u64 {
        // What others take away came before: seen first, it has been added when that is read.
        let others = self.by_others.0.load(atomic::Ordering::Acquire);
        let sum = others + self.by_holder.load(atomic::Ordering::Relaxed);
        u64::try_from(sum).unwrap_or(0)
    }

    /// Adds; the caller holds the lock under which alone this is called.
    #[inline]
    pub fn add_held(&self, more: i64) {
        let sum = self.by_holder.load(atomic::Ordering::Relaxed) + more;
        self.by_holder.store(sum, atomic::Ordering::Relaxed);
    }

    /// Adds, from any thread.
    #[inline]
    pub fn add_shared(&self, more: i64) {
        self.by_others.0.fetch_add(more, atomic::Ordering::Release);
    }
}

/// The locks of the standard library.
pub mod standard {
    #[cfg(gds_shuttle)]
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
    #[cfg(not(gds_shuttle))]
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(gds_shuttle)]
pub use scheduled::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(gds_shuttle)]
pub use shuttle::{sync::atomic, thread};

/// parking_lot's locks over shuttle's. No wait of a condition variable times out, as shuttle
/// knows no time: who waits for nothing is a deadlock, which it reports.
#[cfg(gds_shuttle)]
mod scheduled {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::{Duration, Instant};

    use shuttle::sync as given;

    #[derive(Debug, Default)]
    pub struct Mutex<T>(given::Mutex<T>);

    #[derive(Debug)]
    pub struct MutexGuard<'a, T> {
        lock: &'a Mutex<T>,
        guard: Option<given::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(given::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            MutexGuard {
                lock: self,
                guard: Some(guard),
            }
        }

        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }

        pub fn into_inner(self) -> T {
            self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> MutexGuard<'_, T> {
        pub fn unlocked<R>(this: &mut Self, call: impl FnOnce() -> R) -> R {
            this.guard = None;
            let result = call();
            this.guard = this.lock.lock().guard.take();
            result
        }
    }

    const HELD: &str = "a guard holds its lock but while it waits";

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            let Some(guard) = &self.guard else {
                unreachable!("{HELD}")
            };
            guard
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            let Some(guard) = &mut self.guard else {
                unreachable!("{HELD}")
            };
            guard
        }
    }

    #[derive(Debug, Default)]
    pub struct Condvar(given::Condvar);

    /// Whether a wait ended for lack of time: never.
    #[derive(Debug)]
    pub struct Outcome;

    impl Outcome {
        pub fn timed_out(&self) -> bool {
            false
        }
    }

    impl Condvar {
        pub fn new() -> Self {
            Self(given::Condvar::new())
        }

        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            if let Some(held) = guard.guard.take() {
                let held = self.0.wait(held).unwrap_or_else(PoisonError::into_inner);
                guard.guard = Some(held);
            }
        }

        pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> Outcome {
            self.wait(guard);
            Outcome
        }

        pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _most: Duration) -> Outcome {
            self.wait(guard);
            Outcome
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    #[derive(Debug, Default)]
    struct Turn {
        readers: usize,
        writer: bool,
        /// Writers that wait; whoever reads not for the second time waits for them.
        wanting: usize,
    }

    /// Who holds it is written beside the value, whose own lock is therefore always free.
    #[derive(Debug, Default)]
    pub struct RwLock<T> {
        turn: given::Mutex<Turn>,
        changed: given::Condvar,
        value: parking_lot::RwLock<T>,
    }

    #[derive(Debug)]
    pub struct RwLockReadGuard<'a, T> {
        lock: &'a RwLock<T>,
        value: Option<parking_lot::RwLockReadGuard<'a, T>>,
    }

    #[derive(Debug)]
    pub struct RwLockWriteGuard<'a, T> {
        lock: &'a RwLock<T>,
        value: Option<parking_lot::RwLockWriteGuard<'a, T>>,
    }

    impl<T> RwLock<T> {
        pub fn new(value: T) -> Self {
            Self {
                turn: given::Mutex::default(),
                changed: given::Condvar::new(),
                value: parking_lot::RwLock::new(value),
            }
        }

        fn when(&self, free: impl Fn(&Turn) -> bool, take: impl FnOnce(&mut Turn)) {
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            while !free(&turn) {
                let woken = self.changed.wait(turn);
                turn = woken.unwrap_or_else(PoisonError::into_inner);
            }
            take(&mut turn);
        }

        fn change(&self, change: impl FnOnce(&mut Turn)) {
            // The schedule has ended where something panics.
            if !std::thread::panicking() {
                change(&mut self.turn.lock().unwrap_or_else(PoisonError::into_inner));
                self.changed.notify_all();
            }
        }

        fn reading(&self) -> RwLockReadGuard<'_, T> {
            RwLockReadGuard {
                lock: self,
                value: Some(self.value.read_recursive()),
            }
        }

        pub fn read(&self) -> RwLockReadGuard<'_, T> {
            self.when(|t| !t.writer && t.wanting == 0, |t| t.readers += 1);
            self.reading()
        }

        pub fn read_recursive(&self) -> RwLockReadGuard<'_, T> {
            self.when(|t| !t.writer, |t| t.readers += 1);
            self.reading()
        }

        pub fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.when(|_| true, |t| t.wanting += 1);
            self.when(
                |t| !t.writer && t.readers == 0,
                |t| (t.wanting, t.writer) = (t.wanting - 1, true),
            );
            RwLockWriteGuard {
                lock: self,
                value: Some(self.value.write()),
            }
        }
    }

    impl<'a, T> RwLockWriteGuard<'a, T> {
        pub fn downgrade(mut this: Self) -> RwLockReadGuard<'a, T> {
            let lock = this.lock;
            let value = this.value.take();
            let value = value.map(parking_lot::RwLockWriteGuard::downgrade);
            lock.change(|t| (t.writer, t.readers) = (false, 1));
            RwLockReadGuard { lock, value }
        }
    }

    impl<T> Drop for RwLockReadGuard<'_, T> {
        fn drop(&mut self) {
            self.value = None;
            self.lock.change(|t| t.readers -= 1);
        }
    }

    impl<T> Drop for RwLockWriteGuard<'_, T> {
        fn drop(&mut self) {
            if self.value.take().is_some() {
                self.lock.change(|t| t.writer = false);
            }
        }
    }

    impl<T> Deref for RwLockReadGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            let Some(value) = &self.value else {
                unreachable!("{HELD}")
            };
            value
        }
    }

    impl<T> Deref for RwLockWriteGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            let Some(value) = &self.value else {
                unreachable!("{HELD}")
            };
            value
        }
    }

    impl<T> DerefMut for RwLockWriteGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            let Some(value) = &mut self.value else {
                unreachable!("{HELD}")
            };
            value
        }
    }
}
