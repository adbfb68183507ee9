//! Handles under misuse: closed, foreign, of another type, poisoned, closed while in use.

use super::*;
use crate::ffi::guard::guard;
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The cells are those of the whole process: a test that counts closed ones takes it for writing,
/// every other test that opens a handle for reading.
static CELLS: RwLock<()> = RwLock::new(());

fn beside_others() -> RwLockReadGuard<'static, ()> {
    CELLS.read()
}

#[derive(Debug)]
struct Apple;
#[derive(Debug)]
struct Pear;

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Handle for Apple {
    type Object = Counted;
    const TAG: u32 = 1;
    const NAME: &'static str = "apple";
}

impl Handle for Pear {
    type Object = u64;
    const TAG: u32 = 2;
    const NAME: &'static str = "pear";
}

/// As `Apple`, of the types that threads note by themselves.
#[derive(Debug)]
struct Plum;

impl Handle for Plum {
    type Object = Counted;
    const TAG: u32 = 3;
    const NAME: &'static str = "plum";
    const HELD: bool = true;
}

fn status<T>(outcome: Outcome<T>) -> i32 {
    outcome.err().map_or(0, |failure| failure.status as i32)
}

const INVALID: i32 = gds_status_t::GDS_STATUS_INVALID_HANDLE as i32;

#[test]
fn closed_twice_drops_once_and_answers_invalid() {
    let _beside = beside_others();
    let drops = Arc::new(AtomicUsize::new(0));
    let handle = open::<Apple>(Counted(drops.clone())).unwrap();
    assert_eq!(status(borrow(handle, "a")), 0);
    close(handle);
    close(handle);
    assert_eq!(drops.load(SeqCst), 1);
    assert_eq!(status(borrow(handle, "a")), INVALID);
}

#[test]
fn null_foreign_and_inner_pointers_are_told_apart_without_a_read() {
    let _beside = beside_others();
    assert_eq!(status(borrow::<Pear>(ptr::null(), "p")), 1);
    for address in [1, 8, 4096, usize::MAX & !63] {
        assert_eq!(
            status(borrow::<Pear>(ptr::without_provenance(address), "p")),
            INVALID
        );
        close::<Pear>(ptr::without_provenance_mut(address));
    }
    let handle = open::<Pear>(5).unwrap();
    let inner = handle.cast::<u8>().wrapping_add(8).cast::<Pear>();
    assert_eq!(status(borrow(inner.cast_const(), "p")), INVALID);
    close(handle);
}

#[test]
fn another_types_handle_is_neither_borrowed_nor_closed() {
    let _beside = beside_others();
    let handle = open::<Pear>(5).unwrap();
    assert_eq!(status(borrow(handle.cast::<Apple>(), "a")), INVALID);
    close(handle.cast::<Apple>());
    assert_eq!(borrow(handle, "p").ok().map(|v| *v), Some(5));
    close(handle);
}

#[test]
fn a_closed_cell_waits_before_it_is_used_again() {
    let _alone = CELLS.write();
    let handle = open::<Pear>(5).unwrap();
    close(handle);
    for _ in 0..QUARANTINE {
        let other = open::<Pear>(6).unwrap();
        assert_ne!(other, handle);
        close(other);
    }
}

#[test]
fn a_close_during_a_call_frees_after_the_call() {
    let _beside = beside_others();
    let drops = Arc::new(AtomicUsize::new(0));
    let handle = open::<Apple>(Counted(drops.clone())).unwrap();
    let inside = borrow(handle, "a").unwrap();
    close(handle);
    assert_eq!(status(borrow(handle, "a")), INVALID);
    assert_eq!(drops.load(SeqCst), 0);
    drop(inside);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_close_during_calls_that_are_noted_frees_after_the_last_of_them() {
    let _beside = beside_others();
    let drops = Arc::new(AtomicUsize::new(0));
    let handle = open::<Plum>(Counted(drops.clone())).unwrap();
    // More than a thread has places: the last ones are counted.
    let mut inside: Vec<_> = (0..9).map(|_| borrow(handle, "p").unwrap()).collect();
    assert!(inside[0].place.is_some() && inside[8].place.is_none());
    close(handle);
    close(handle);
    assert_eq!(status(borrow(handle, "p")), INVALID);
    while let Some(last) = inside.pop() {
        assert_eq!(drops.load(SeqCst), 0, "{} inside", inside.len() + 1);
        drop(last);
    }
    assert_eq!(drops.load(SeqCst), 1);
    close(handle);
    assert_eq!(status(borrow(handle, "p")), INVALID);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_counted_call_outlives_the_noted_ones() {
    let _beside = beside_others();
    let drops = Arc::new(AtomicUsize::new(0));
    let handle = open::<Plum>(Counted(drops.clone())).unwrap();
    let mut inside: Vec<_> = (0..8).map(|_| borrow(handle, "p").unwrap()).collect();
    let counted = inside.pop().filter(|b| b.place.is_none()).unwrap();
    close(handle);
    drop(inside);
    assert_eq!(drops.load(SeqCst), 0);
    drop(counted);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn threads_that_note_and_one_that_closes_free_once_and_not_too_early() {
    let _beside = beside_others();
    for _ in 0..200 {
        let drops = Arc::new(AtomicUsize::new(0));
        let shared = open::<Plum>(Counted(drops.clone())).unwrap();
        let shared = shared.expose_provenance();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let handle = ptr::with_exposed_provenance(shared);
                    while let Ok(plum) = borrow::<Plum>(handle, "shared") {
                        assert_eq!(plum.0.load(SeqCst), 0, "freed under a call");
                    }
                });
            }
            std::thread::yield_now();
            close::<Plum>(ptr::with_exposed_provenance_mut(shared));
        });
        assert_eq!(drops.load(SeqCst), 1);
    }
}

#[test]
fn a_panic_poisons_what_was_borrowed_and_nothing_else() {
    let _beside = beside_others();
    let used = open::<Pear>(1).unwrap();
    let other = open::<Pear>(2).unwrap();
    let answer = guard(|| {
        let value = borrow(used, "used")?;
        assert_eq!(*value, 99, "always fails");
        Ok(())
    });
    assert_eq!(answer, gds_status_t::GDS_STATUS_PANIC);
    assert_eq!(
        status(borrow(used, "used")),
        gds_status_t::GDS_STATUS_POISONED as i32
    );
    assert_eq!(status(borrow(other, "other")), 0);
    close(used);
    close(other);
    assert_eq!(status(borrow(used, "used")), INVALID);
}

#[test]
fn threads_open_borrow_and_close_at_once() {
    let _beside = beside_others();
    let drops = Arc::new(AtomicUsize::new(0));
    let shared = open::<Apple>(Counted(drops.clone()))
        .unwrap()
        .expose_provenance();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..300 {
                    let own = open::<Pear>(i).unwrap();
                    assert_eq!(borrow(own, "own").ok().map(|v| *v), Some(i));
                    let _ = borrow::<Apple>(ptr::with_exposed_provenance(shared), "shared");
                    if i == 200 {
                        close::<Apple>(ptr::with_exposed_provenance_mut(shared));
                    }
                    close(own);
                }
            });
        }
    });
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn every_index_has_its_place() {
    let mut expected = (0, 0);
    for index in 0..10_000 {
        assert_eq!(place(index), expected);
        expected.1 += 1;
        if expected.1 == FIRST << expected.0 {
            expected = (expected.0 + 1, 0);
        }
    }
}

/// A second held type.
#[derive(Debug)]
struct Fig;

impl Handle for Fig {
    type Object = Counted;
    const TAG: u32 = 4;
    const NAME: &'static str = "fig";
    const HELD: bool = true;
}

/// A plum and a fig, and how many of them were dropped.
fn plum_and_fig() -> (*mut Plum, *mut Fig, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    let plum = open::<Plum>(Counted(drops.clone())).unwrap();
    let fig = open::<Fig>(Counted(drops.clone())).unwrap();
    (plum, fig, drops)
}

#[test]
fn two_are_borrowed_together_or_neither_is() {
    let _beside = beside_others();
    let (plum, fig, drops) = plum_and_fig();
    let both = || try_borrow_both(plum.cast_const(), fig.cast_const());
    let why = || refused_both((plum.cast_const(), "p"), (fig.cast_const(), "f"));
    assert!(both().is_some_and(|b| b.places.is_some() && b.first().0.load(SeqCst) == 0));
    assert!(try_borrow_both::<Fig, Plum>(plum.cast(), fig.cast()).is_none());
    let (null, foreign) = (ptr::null::<Fig>(), ptr::without_provenance::<Fig>(4096));
    assert!(try_borrow_both(plum.cast_const(), null).is_none());
    assert!(try_borrow_both(plum.cast_const(), foreign).is_none());
    let refused = refused_both((plum.cast_const(), "p"), (null, "f"));
    assert!(refused.error.message().contains("f is NULL"));
    close(fig);
    assert_eq!(
        drops.load(SeqCst),
        1,
        "the refused ones left nothing behind"
    );
    assert!(both().is_none() && why().error.message().starts_with("f is not an open fig"));
    close(plum);
    assert!(both().is_none() && why().error.message().starts_with("p is not an open plum"));
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn a_close_during_a_call_inside_of_two_frees_after_the_call() {
    let _beside = beside_others();
    // With places, and with fewer than two left: those are counted.
    for taken in [0, 6, 7] {
        let (plum, fig, drops) = plum_and_fig();
        let other = open::<Plum>(Counted(Arc::default())).unwrap();
        let first: Vec<_> = (0..taken).map(|_| borrow(other, "o").unwrap()).collect();
        let both = try_borrow_both(plum.cast_const(), fig.cast_const()).unwrap();
        assert_eq!(both.places.is_some(), taken == 0);
        close(plum);
        close(fig);
        assert!(try_borrow(plum).is_none() && try_borrow(fig).is_none());
        assert_eq!(
            both.first().0.load(SeqCst) + both.second().0.load(SeqCst),
            0
        );
        drop(both);
        assert_eq!(drops.load(SeqCst), 2, "{taken} places taken");
        drop(first);
        close(other);
    }
}

#[test]
fn a_panic_inside_of_two_poisons_both() {
    let _beside = beside_others();
    let (plum, fig, drops) = plum_and_fig();
    let answer = guard(|| {
        let both = try_borrow_both(plum.cast_const(), fig.cast_const()).unwrap();
        assert_eq!(both.first().0.load(SeqCst), 99, "always fails");
        Ok(())
    });
    assert_eq!(answer, gds_status_t::GDS_STATUS_PANIC);
    for failure in [
        refused(plum.cast_const(), "p"),
        refused(fig.cast_const(), "f"),
        refused_both((plum.cast_const(), "p"), (fig.cast_const(), "f")),
    ] {
        assert_eq!(failure.status, gds_status_t::GDS_STATUS_POISONED);
    }
    assert!(try_borrow(plum).is_none() && try_borrow(fig).is_none());
    close(plum);
    close(fig);
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn threads_inside_of_two_and_one_that_closes_free_once_and_not_too_early() {
    let _beside = beside_others();
    for round in 0..200 {
        let (plum, fig, drops) = plum_and_fig();
        let (plum, fig) = (plum.expose_provenance(), fig.expose_provenance());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let first = ptr::with_exposed_provenance::<Plum>(plum);
                    let second = ptr::with_exposed_provenance::<Fig>(fig);
                    while let Some(both) = try_borrow_both(first, second) {
                        let dropped = || both.first().0.load(SeqCst);
                        // The other may be closed meanwhile, this call keeps both.
                        assert_eq!(dropped(), 0, "freed under a call");
                    }
                });
            }
            std::thread::yield_now();
            // Either first.
            if round % 2 == 0 {
                close::<Plum>(ptr::with_exposed_provenance_mut(plum));
            }
            close::<Fig>(ptr::with_exposed_provenance_mut(fig));
        });
        close::<Plum>(ptr::with_exposed_provenance_mut(plum));
        assert_eq!(drops.load(SeqCst), 2);
    }
}
