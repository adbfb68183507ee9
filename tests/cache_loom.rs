//! The page word and the way that one fill serves many, in every order that threads can take.
//!
//! loom stands in for the atomics; the code is that of the library.

use gds_rs::cache::word::{DIRTY, PageWord, REF, State, VALID, Word};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Every order with at most this many switches that no thread asked for.
fn model(switches: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(body);
}

#[derive(Debug)]
struct LoomWord(AtomicU64);

impl Word for LoomWord {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.0
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
    fn fetch_add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, Ordering::AcqRel)
    }
    fn fetch_sub(&self, value: u64) -> u64 {
        self.0.fetch_sub(value, Ordering::AcqRel)
    }
    fn fetch_or(&self, bits: u64) -> u64 {
        self.0.fetch_or(bits, Ordering::AcqRel)
    }
    fn fetch_and(&self, bits: u64) -> u64 {
        self.0.fetch_and(bits, Ordering::AcqRel)
    }
}

/// A slot of the table: its key, its word, and what the frame holds.
struct Place {
    key: AtomicU64,
    word: PageWord<LoomWord>,
    bytes: AtomicU64,
}

impl Place {
    fn empty() -> Self {
        Self {
            key: AtomicU64::new(0),
            word: PageWord::new(LoomWord(AtomicU64::new(0))),
            bytes: AtomicU64::new(0),
        }
    }

    fn with(key: u64, flags: u64) -> Self {
        let place = Self::empty();
        place.fill(key, 0, flags);
        place
    }

    /// As the table and the shard do it under the shard's lock.
    fn fill(&self, key: u64, pins: u32, flags: u64) {
        self.key.store(key, Ordering::Relaxed);
        self.word.begin_fill(1);
        self.bytes.store(key, Ordering::Relaxed);
        self.word.publish(pins, flags);
    }

    fn remove(&self) -> bool {
        if self.word.begin_evict().is_none() {
            return false;
        }
        self.word.abandon();
        self.key.store(0, Ordering::Release);
        true
    }

    /// As `Table::pin`.
    fn pin(&self, key: u64) -> Option<State> {
        if self.key.load(Ordering::Relaxed) != key {
            return None;
        }
        let state = self.word.pin()?;
        if self.key.load(Ordering::Relaxed) == key {
            return Some(state);
        }
        self.word.unpin();
        None
    }
}

#[test]
fn who_pins_a_page_gets_that_page_while_others_replace_it() {
    model(3, || {
        let place = Arc::new(Place::with(1, 0));
        let readers: Vec<_> = [1, 2]
            .map(|key| {
                let place = place.clone();
                thread::spawn(move || {
                    if let Some(state) = place.pin(key) {
                        assert!(state.has(VALID) && state.frame() == 1);
                        assert_eq!(place.bytes.load(Ordering::Relaxed), key);
                        place.word.unpin();
                    }
                })
            })
            .into();
        if place.remove() {
            place.fill(2, 0, 0);
        }
        readers.into_iter().for_each(|t| t.join().unwrap());
        let state = place.word.state();
        assert!(state.has(VALID) && state.pins() == 0 && state.frame() == 1);
    });
}

#[test]
fn a_pinned_page_is_never_taken_out() {
    model(3, || {
        let place = Arc::new(Place::with(1, REF));
        let holder = {
            let place = place.clone();
            thread::spawn(move || {
                let Some(_) = place.pin(1) else { return };
                // While it is held it is there.
                assert!(place.word.state().has(VALID));
                assert_eq!(place.bytes.load(Ordering::Relaxed), 1);
                place.word.set(REF);
                place.word.unpin();
            })
        };
        place.word.clear(REF);
        if place.remove() {
            place.bytes.store(99, Ordering::Relaxed);
        }
        holder.join().unwrap();
        assert_eq!(place.word.state().pins(), 0);
    });
}

#[test]
fn a_change_during_a_write_back_is_not_forgotten() {
    model(3, || {
        let place = Arc::new(Place::with(1, 0));
        place.word.set(DIRTY);
        place.bytes.store(10, Ordering::Relaxed);
        let written = Arc::new(AtomicU64::new(0));
        // Stands for the shard's lock, under which DIRTY and BUSY change.
        let shard = Arc::new(Mutex::new(()));
        let changer = {
            let (place, shard) = (place.clone(), shard.clone());
            thread::spawn(move || {
                place.pin(1).expect("dirty pages stay");
                {
                    let _lock = shard.lock().unwrap();
                    place.word.set(DIRTY);
                }
                place.bytes.store(11, Ordering::Relaxed);
                place.word.unpin();
            })
        };
        let write = || {
            let started = {
                let _lock = shard.lock().unwrap();
                place.word.begin_write()
            };
            if started.is_some() {
                written.store(place.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
                let _lock = shard.lock().unwrap();
                place.word.end_write(true);
            }
        };
        write();
        changer.join().unwrap();
        write();
        assert!(!place.word.state().has(DIRTY));
        assert_eq!(
            written.load(Ordering::Relaxed),
            11,
            "the last change is in the file"
        );
    });
}

/// One fill: who registers under the lock is handed a pin when the page is published.
struct Flight {
    waiters: u32,
    under_way: bool,
    done: bool,
}

#[test]
fn one_reads_and_the_others_sleep_until_they_hold_a_pin() {
    const OTHERS: u32 = 2;
    model(2, || {
        let place = Arc::new(Place::empty());
        let reads = Arc::new(AtomicU64::new(0));
        let shard = Arc::new((
            Mutex::new(Flight {
                waiters: 0,
                under_way: false,
                done: false,
            }),
            Condvar::new(),
        ));
        let get =
            |place: Arc<Place>, reads: Arc<AtomicU64>, shard: Arc<(Mutex<Flight>, Condvar)>| {
                if place.pin(1).is_none() {
                    let mut flight = shard.0.lock().unwrap();
                    if place.word.state().has(VALID) {
                        place.word.pin().expect("the lock keeps it");
                    } else if flight.under_way {
                        flight.waiters += 1;
                        while !flight.done {
                            flight = shard.1.wait(flight).unwrap();
                        }
                    } else {
                        flight.under_way = true;
                        place.key.store(1, Ordering::Relaxed);
                        place.word.begin_fill(1);
                        drop(flight);
                        reads.fetch_add(1, Ordering::Relaxed);
                        place.bytes.store(1, Ordering::Relaxed);
                        let mut flight = shard.0.lock().unwrap();
                        place.word.publish(1 + flight.waiters, REF);
                        flight.done = true;
                        shard.1.notify_all();
                    }
                }
                // Pinned, whichever way it came.
                let state = place.word.state();
                assert!(state.has(VALID) && state.pins() > 0);
                assert!(place.word.begin_evict().is_none());
                assert_eq!(place.bytes.load(Ordering::Relaxed), 1);
                place.word.unpin();
            };
        let others: Vec<_> = (0..OTHERS)
            .map(|_| {
                let (place, reads, shard) = (place.clone(), reads.clone(), shard.clone());
                thread::spawn(move || get(place, reads, shard))
            })
            .collect();
        get(place.clone(), reads.clone(), shard);
        others.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        assert_eq!(place.word.state().pins(), 0);
        assert!(place.word.begin_evict().is_some());
    });
}
