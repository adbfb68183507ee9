//! Which objects a thread is inside of, told without a write that other threads share.
//!
//! A count in the object would go from processor to processor with every call. Here each thread
//! writes the object's address into a place of its own line, and reads that the handle is open;
//! whoever closes a handle marks it closed, and looks through the places of all threads. One of
//! the two sees the other: between write and read of every thread the closer puts a barrier, by
//! membarrier(2), so that calls need none. Where the kernel lacks it each call makes its own.
//!
//! Invariants: a place is written by its thread alone; an address leaves its place before its
//! thread looks whether the handle was closed meanwhile. Guarded by the tests of `handle`.

use std::cell::Cell;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    compiler_fence, fence,
};

/// Objects that a thread is inside of at once; beyond that the caller counts.
const PLACES: usize = 7;

/// The places of one thread. Never freed; a thread that ends leaves them to a later one.
#[derive(Default)]
#[repr(align(128))]
struct Record {
    /// 0 is free.
    places: [AtomicUsize; PLACES],
    owned: AtomicBool,
    next: AtomicPtr<Record>,
}

static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());
/// The kernel makes the barriers of all threads.
static BY_KERNEL: AtomicBool = AtomicBool::new(false);

thread_local! {
    static RECORD: Cell<Option<&'static Record>> = const { Cell::new(None) };
    static OWNER: Owner = Owner(claim());
}

/// Gives a thread's places back when it ends.
struct Owner(&'static Record);

impl Drop for Owner {
    fn drop(&mut self) {
        RECORD.set(None);
        if self.0.places.iter().all(|place| place.load(Relaxed) == 0) {
            self.0.owned.store(false, Release);
        }
    }
}

/// Places that no thread has.
fn claim() -> &'static Record {
    for record in records() {
        if !record.owned.swap(true, AcqRel) {
            return record;
        }
    }
    let record: &'static Record = Box::leak(Box::new(Record {
        owned: AtomicBool::new(true),
        ..Record::default()
    }));
    let mut first = RECORDS.load(Acquire);
    loop {
        record.next.store(first, Relaxed);
        let this = ptr::from_ref(record).cast_mut();
        match RECORDS.compare_exchange(first, this, AcqRel, Acquire) {
            Ok(_) => return record,
            Err(other) => first = other,
        }
    }
}

fn records() -> impl Iterator<Item = &'static Record> {
    // SAFETY: records are leaked boxes, shared from the moment that they are in the list.
    let follow = |place: &AtomicPtr<Record>| unsafe { place.load(Acquire).as_ref() };
    std::iter::successors(follow(&RECORDS), move |record| follow(&record.next))
}

/// Prepares the process. Before the first handle is opened that is held this way.
pub(super) fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        let ready = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        BY_KERNEL.store(ready, Release);
    });
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// A place that holds an address, until `leave`. One word, so that it costs nothing to hand on.
#[derive(Clone, Copy)]
pub(super) struct Place(&'static AtomicUsize);

/// Says that this thread is inside of the object at `address`, if the object is not closed: the
/// caller looks after this. None when the thread has no place left.
#[inline(always)]
pub(super) fn enter(address: usize) -> Option<Place> {
    let record = match RECORD.get() {
        Some(record) => record,
        None => join()?,
    };
    let place = record.places.iter().find(|p| p.load(Relaxed) == 0)?;
    place.store(address, Release);
    ordered();
    Some(Place(place))
}

/// As `enter`, for two objects, with one barrier for both.
#[inline(always)]
pub(super) fn enter_both(addresses: (usize, usize)) -> Option<(Place, Place)> {
    let record = match RECORD.get() {
        Some(record) => record,
        None => join()?,
    };
    let mut free = record.places.iter().filter(|p| p.load(Relaxed) == 0);
    let (first, second) = (free.next()?, free.next()?);
    first.store(addresses.0, Release);
    second.store(addresses.1, Release);
    ordered();
    Some((Place(first), Place(second)))
}

/// As `Place::leave`, for two places, with one barrier for both.
#[inline(always)]
pub(super) fn leave_both(places: (Place, Place)) {
    places.0.0.store(0, Release);
    places.1.0.store(0, Release);
    ordered();
}

impl Place {
    /// The caller looks after this whether the object was closed.
    #[inline(always)]
    pub(super) fn leave(self) {
        self.0.store(0, Release);
        ordered();
    }
}

/// None while the thread ends.
#[cold]
fn join() -> Option<&'static Record> {
    let record = OWNER.try_with(|owner| owner.0).ok()?;
    RECORD.set(Some(record));
    Some(record)
}

/// The write before stays before the read after, for a closer.
#[inline(always)]
fn ordered() {
    if BY_KERNEL.load(Relaxed) {
        compiler_fence(SeqCst);
    } else {
        fence(SeqCst);
    }
}

/// Whether any thread is inside of the object at `address`, which nobody can enter any more. True
/// also where it cannot be told: the object is kept then.
pub(super) fn is_held(address: usize) -> bool {
    fence(SeqCst);
    if BY_KERNEL.load(Acquire) && !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        return true;
    }
    records().any(|record| record.places.iter().any(|p| p.load(Acquire) == address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_given_back_and_seen_by_others() {
        start();
        let addresses: Vec<usize> = (1..=PLACES).map(|i| 0xF00_0000 + i * 64).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let places: Vec<Place> = addresses.iter().filter_map(|a| enter(*a)).collect();
                assert_eq!(places.len(), PLACES);
                assert!(enter(8).is_none(), "no place is left");
                let other = scope.spawn(|| {
                    for address in &addresses {
                        assert!(is_held(*address));
                    }
                    assert!(!is_held(0xF00_0000));
                });
                other.join().unwrap();
                // In another order than they were taken.
                places[2].leave();
                assert!(!is_held(addresses[2]) && is_held(addresses[3]));
                let again = enter(addresses[2]);
                assert!(is_held(addresses[2]));
                again.into_iter().for_each(Place::leave);
                assert!(
                    enter_both((8, 16)).is_none() && !is_held(8),
                    "one place is left"
                );
                places[4].leave();
                let both = enter_both((addresses[2], addresses[4]));
                assert!(is_held(addresses[2]) && is_held(addresses[4]));
                both.into_iter().for_each(leave_both);
                assert!(!is_held(addresses[2]) && !is_held(addresses[4]));
                for index in [0, 1, 3, 5, 6] {
                    places[index].leave();
                }
            });
        });
        assert!(addresses.iter().all(|address| !is_held(*address)));
    }

    #[test]
    fn threads_that_end_leave_their_places_to_later_ones() {
        let _keep = claim();
        let count = || records().count();
        for _ in 0..50 {
            std::thread::spawn(|| enter(64).into_iter().for_each(Place::leave))
                .join()
                .unwrap();
        }
        assert!(count() < 50, "{}", count());
    }
}
