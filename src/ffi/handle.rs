//! Handles: what the pointers of the header point to.
//!
//! A handle is the address of a cell. Cells live in chunks that are never given back to the
//! allocator, and an address is looked up among the chunks before it is read: a foreign pointer,
//! a closed handle and a handle of another type all answer INVALID_HANDLE without touching freed
//! memory. A closed cell waits behind `QUARANTINE` others before it is used again.
//!
//! A cell's state is one word: the tag of its type and a count. The count is 1 for the open handle
//! and 1 for each call inside; whoever takes it to zero drops the object. So a close during a
//! call of another thread, which the header forbids, still frees nothing under that call. For
//! types whose calls are as short as a count is dear, threads note what they are inside of instead
//! (`held`). Closing and borrowing are lock-free; opening takes one short lock.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::fmt::Display;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use parking_lot::Mutex;

use super::error::{Failure, Outcome};
use super::guard::of_panic;
use super::held::{self, Place};
use super::status::gds_status_t;
use crate::error::{Error, ErrorKind};

/// A type of handle: what is behind it, and the word that tells it from others.
pub(crate) trait Handle {
    /// The object. Shared by every thread that holds the handle.
    type Object: Send + Sync + 'static;
    /// Neither 0, `DEAD` nor `LEAVING`, different for each type.
    const TAG: u32;
    /// As the header spells it.
    const NAME: &'static str;
    /// Many threads use one handle in calls of nanoseconds: they note it each by itself, and
    /// closing looks at all threads.
    const HELD: bool = false;
}

/// The tag of a cell whose handle was closed.
const DEAD: u32 = 0xDEAD_CE11;
/// The same while a thread may be inside without having counted. The handle's own count goes
/// when nobody is.
const LEAVING: u32 = 0xDEAD_CE12;
/// Closed cells that wait before the first of them is used again.
const QUARANTINE: usize = 256;
/// Cells in the first chunk; each further chunk has twice as many.
const FIRST: usize = 64;
/// 64 * (2^20 - 1) cells, more than memory holds objects.
const CHUNKS: usize = 20;

/// One cache line, so that two handles in use by two threads do not disturb each other.
#[repr(C, align(64))]
struct Cell {
    /// Tag in the high half, count in the low.
    state: AtomicU64,
    poisoned: AtomicBool,
    /// The boxed object and how to drop it; written before the state says so.
    object: UnsafeCell<*mut ()>,
    drop_object: UnsafeCell<unsafe fn(*mut ())>,
}

// SAFETY: `object` and `drop_object` are written by the one thread that took the cell from the
// free list, before a release store of `state`, and read by threads that acquired a count.
unsafe impl Sync for Cell {}

struct Free {
    /// Closed cells, oldest first.
    closed: VecDeque<&'static Cell>,
    /// Cells that were ever handed out.
    used: usize,
}

static POOL: [AtomicPtr<Cell>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];
static FREE: Mutex<Free> = Mutex::new(Free {
    closed: VecDeque::new(),
    used: 0,
});
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this is a forked child of a process that had opened a handle.
pub(crate) fn is_forked() -> bool {
    FORKED.load(Relaxed)
}

/// Refuses to go on in a forked child, whose copy of the library has no threads.
pub(crate) fn not_forked() -> Outcome {
    if is_forked() {
        return Err(Error::new(
            ErrorKind::Forked,
            "this process was forked after a context was opened; call exec in the child, or fork \
             before the first gds_context_open()",
        )
        .into());
    }
    Ok(())
}

extern "C" fn child_after_fork() {
    FORKED.store(true, Relaxed);
}

/// A handle for `object`, to be given to `close` once.
pub(crate) fn open<H: Handle>(object: H::Object) -> Outcome<*mut H> {
    static FORK_HANDLER: Once = Once::new();
    not_forked()?;
    FORK_HANDLER.call_once(|| {
        // SAFETY: the handler only stores an atomic, and the library is linked with nodelete.
        // A failure (ENOMEM) leaves only the clear answer after a fork away.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(child_after_fork)) };
    });
    if H::HELD {
        held::start();
    }
    let cell = take()?;
    // SAFETY: `take` made this thread the only one to use the cell.
    unsafe { *cell.object.get() = Box::into_raw(Box::new(object)).cast() };
    // SAFETY: as above.
    unsafe { *cell.drop_object.get() = drop_box::<H::Object> };
    cell.poisoned.store(false, Relaxed);
    cell.state.store(pack(H::TAG, 1), Release);
    Ok(ptr::from_ref(cell).cast_mut().cast())
}

/// Ends the handle's life. NULL, closed and foreign handles are left alone; so is everything
/// in a forked child, where the threads that an object would wait for do not exist.
pub(crate) fn close<H: Handle>(handle: *mut H) {
    if is_forked() {
        return;
    }
    let Some(cell) = find(handle.cast_const().cast()) else {
        return;
    };
    let tag = if H::HELD { LEAVING } else { DEAD };
    let closed = cell.state.fetch_update(AcqRel, Acquire, |state| {
        (tag_of(state) == H::TAG).then(|| pack(tag, count_of(state)))
    });
    match closed {
        Ok(_) if H::HELD => retire(cell),
        Ok(_) => release(cell),
        Err(_) => {}
    }
}

/// Gives the own count of a closed handle back, once, unless a thread is inside that will come
/// here when it leaves.
#[cold]
fn retire(cell: &'static Cell) {
    if held::is_held(ptr::from_ref(cell).addr()) {
        return;
    }
    let retired = cell.state.fetch_update(AcqRel, Acquire, |state| {
        (tag_of(state) == LEAVING).then(|| pack(DEAD, count_of(state)))
    });
    if retired.is_ok() {
        release(cell);
    }
}

/// A borrowed object. Poisons it when dropped by a panic.
pub(crate) struct Borrowed<T: 'static> {
    cell: &'static Cell,
    object: *const T,
    /// Not 0: the thread was unwinding before. Whole words are cheaper to hand on than bytes.
    was_panicking: usize,
    /// None: it was counted.
    place: Option<Place>,
}

impl<T> Deref for Borrowed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the count or the place of this borrow keeps the object, whose tag was checked.
        unsafe { &*self.object }
    }
}

impl<T> Drop for Borrowed<T> {
    fn drop(&mut self) {
        if self.was_panicking == 0 && std::thread::panicking() {
            self.cell.poisoned.store(true, Release);
        }
        give_back(self.cell, self.place);
    }
}

#[inline(always)]
fn give_back(cell: &'static Cell, place: Option<Place>) {
    match place {
        Some(place) => leave(cell, place),
        None => release(cell),
    }
}

/// Leaves a place, and does what closing left to do meanwhile.
#[inline(always)]
fn leave(cell: &'static Cell, place: Place) {
    place.leave();
    after_leaving(cell);
}

#[inline(always)]
fn after_leaving(cell: &'static Cell) {
    if tag_of(cell.state.load(Acquire)) == LEAVING {
        retire(cell);
    }
}

/// Two borrowed objects of calls of nanoseconds. Poisons both when dropped by a panic.
pub(crate) struct Both<A: 'static, B: 'static> {
    cells: (&'static Cell, &'static Cell),
    objects: (*const A, *const B),
    was_panicking: usize,
    /// None: they were counted.
    places: Option<(Place, Place)>,
}

impl<A, B> Both<A, B> {
    #[inline(always)]
    pub(crate) fn first(&self) -> &A {
        // SAFETY: the count or the place of this borrow keeps the object, whose tag was checked.
        unsafe { &*self.objects.0 }
    }

    #[inline(always)]
    pub(crate) fn second(&self) -> &B {
        // SAFETY: as above.
        unsafe { &*self.objects.1 }
    }
}

impl<A, B> Drop for Both<A, B> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.was_panicking == 0 && std::thread::panicking() {
            self.cells.0.poisoned.store(true, Release);
            self.cells.1.poisoned.store(true, Release);
        }
        give_back_both(self.cells, self.places);
    }
}

#[inline(always)]
fn give_back_both(cells: (&'static Cell, &'static Cell), places: Option<(Place, Place)>) {
    match places {
        Some(places) => leave_both(cells, places),
        None => {
            release(cells.0);
            release(cells.1);
        }
    }
}

#[inline(always)]
fn leave_both(cells: (&'static Cell, &'static Cell), places: (Place, Place)) {
    held::leave_both(places);
    after_leaving(cells.0);
    after_leaving(cells.1);
}

/// Both objects, of types that are held: as `try_borrow` for each, at the price of one.
/// `refused_both` tells why not.
#[inline(always)]
pub(crate) fn try_borrow_both<A: Handle, B: Handle>(
    first: *const A,
    second: *const B,
) -> Option<Both<A::Object, B::Object>> {
    const { assert!(A::HELD && B::HELD) };
    let cells = (find(first.cast())?, find(second.cast())?);
    if is_forked() {
        return None;
    }
    let addresses = (ptr::from_ref(cells.0).addr(), ptr::from_ref(cells.1).addr());
    let places = held::enter_both(addresses);
    match places {
        Some(places) => {
            let right = tag_of(cells.0.state.load(Acquire)) == A::TAG
                && tag_of(cells.1.state.load(Acquire)) == B::TAG;
            if !right {
                leave_both(cells, places);
                return None;
            }
        }
        None => count_both::<A, B>(cells)?,
    }
    if cells.0.poisoned.load(Acquire) || cells.1.poisoned.load(Acquire) {
        give_back_both(cells, places);
        return None;
    }
    // SAFETY: the counts or places taken above keep the objects, and the tags say what they are.
    let objects = unsafe { (*cells.0.object.get(), *cells.1.object.get()) };
    Some(Both {
        cells,
        objects: (objects.0.cast_const().cast(), objects.1.cast_const().cast()),
        was_panicking: usize::from(std::thread::panicking()),
        places,
    })
}

#[cold]
fn count_both<A: Handle, B: Handle>(cells: (&'static Cell, &'static Cell)) -> Option<()> {
    count::<A>(cells.0)?;
    let second = count::<B>(cells.1);
    if second.is_none() {
        release(cells.0);
    }
    second
}

/// Counts a call inside of an object whose handle has this tag.
#[inline(always)]
fn count<H: Handle>(cell: &'static Cell) -> Option<()> {
    let counted = cell.state.fetch_update(AcqRel, Acquire, |state| {
        (tag_of(state) == H::TAG).then(|| state + 1)
    });
    counted.ok().map(|_| ())
}

/// Goes inside of an object whose handle has this tag: without a place, it was counted. None when
/// it has another.
#[inline(always)]
fn go_inside<H: Handle>(cell: &'static Cell) -> Option<Option<Place>> {
    if H::HELD
        && let Some(place) = held::enter(ptr::from_ref(cell).addr())
    {
        if tag_of(cell.state.load(Acquire)) == H::TAG {
            return Some(Some(place));
        }
        leave(cell, place);
        return None;
    }
    count::<H>(cell).map(|()| None)
}

/// The object behind a handle, kept until the answer is dropped. `name` is the parameter's.
#[inline(always)]
pub(crate) fn borrow<H: Handle>(
    handle: *const H,
    name: impl Display,
) -> Outcome<Borrowed<H::Object>> {
    try_borrow(handle).ok_or_else(|| refused(handle, name))
}

/// As `borrow`, for calls of nanoseconds, which `refused` tells why not: the answer is words that
/// stay in registers.
#[inline(always)]
pub(crate) fn try_borrow<H: Handle>(handle: *const H) -> Option<Borrowed<H::Object>> {
    let cell = find(handle.cast()).filter(|_| !is_forked())?;
    let place = go_inside::<H>(cell)?;
    // Before there is something to drop: what is built at the end stays in registers.
    if cell.poisoned.load(Acquire) {
        give_back(cell, place);
        return None;
    }
    // SAFETY: the count or place taken above keeps the object, and the tag says what it is.
    let object = unsafe { *cell.object.get() }.cast_const().cast();
    Some(Borrowed {
        cell,
        object,
        was_panicking: usize::from(std::thread::panicking()),
        place,
    })
}

/// Why a handle was not borrowed.
#[cold]
pub(crate) fn refused<H: Handle>(handle: *const H, name: impl Display) -> Failure {
    if handle.is_null() {
        return Failure::null(name);
    }
    if let Err(failure) = not_forked() {
        return failure;
    }
    let cell = find(handle.cast());
    if cell.is_some_and(|cell| is_poisoned::<H>(cell)) {
        return poisoned::<H>(name);
    }
    let why = match cell.map(|cell| tag_of(cell.state.load(Acquire))) {
        None => "it never came from this library",
        // Its own tag: another handle has the place by now.
        Some(tag) if tag == DEAD || tag == LEAVING || tag == 0 || tag == H::TAG => "it was closed",
        Some(_) => "it is a handle of another type",
    };
    Failure::own(
        gds_status_t::GDS_STATUS_INVALID_HANDLE,
        format!("{name} is not an open {}: {why}", H::NAME),
    )
}

/// Why one of two handles was not borrowed.
#[cold]
pub(crate) fn refused_both<A: Handle, B: Handle>(
    first: (*const A, impl Display),
    second: (*const B, impl Display),
) -> Failure {
    match try_borrow(first.0) {
        None => refused(first.0, first.1),
        Some(_) => refused(second.0, second.1),
    }
}

fn is_poisoned<H: Handle>(cell: &Cell) -> bool {
    tag_of(cell.state.load(Acquire)) == H::TAG && cell.poisoned.load(Acquire)
}

#[cold]
fn poisoned<H: Handle>(name: impl Display) -> Failure {
    let why = format!(
        "{name}: the library panicked while it used this {}; close it",
        H::NAME
    );
    Error::new(ErrorKind::Poisoned, why).into()
}

const fn pack(tag: u32, count: u32) -> u64 {
    (tag as u64) << 32 | count as u64
}

const fn tag_of(state: u64) -> u32 {
    (state >> 32) as u32
}

const fn count_of(state: u64) -> u32 {
    state as u32
}

/// # Safety
/// `object` is from `Box::<T>::into_raw` and is not used again.
unsafe fn drop_box<T>(object: *mut ()) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(object.cast::<T>()) });
}

/// Gives one count back; the last one drops the object and frees the cell.
#[inline]
fn release(cell: &'static Cell) {
    let before = cell.state.fetch_sub(1, AcqRel);
    if count_of(before) == 1 {
        free(cell);
    }
}

/// Drops the object of a closed cell that nobody uses any more.
#[cold]
fn free(cell: &'static Cell) {
    // SAFETY: the count is zero and the tag DEAD, so no other thread reads the cell's fields.
    let object = unsafe { *cell.object.get() };
    // SAFETY: as above.
    let drop_object = unsafe { *cell.drop_object.get() };
    // SAFETY: the object is the boxed one of `open`, and this is the only time it is dropped.
    let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { drop_object(object) }));
    if let Err(payload) = dropped {
        super::error::set_last(of_panic(payload));
    }
    FREE.lock().closed.push_back(cell);
}

/// A cell that nobody else uses.
fn take() -> Outcome<&'static Cell> {
    let mut free = FREE.lock();
    if free.closed.len() > QUARANTINE
        && let Some(cell) = free.closed.pop_front()
    {
        return Ok(cell);
    }
    let index = free.used;
    let (chunk, _) = place(index);
    let Some(slot) = POOL.get(chunk) else {
        return Err(Error::new(
            ErrorKind::OutOfHostMemory,
            format!("{index} handles are open; close some"),
        )
        .into());
    };
    if slot.load(Acquire).is_null() {
        let cells: Box<[Cell]> = (0..FIRST << chunk).map(|_| Cell::empty()).collect();
        slot.store(Box::leak(cells).as_mut_ptr(), Release);
    }
    free.used += 1;
    cell_at(index).ok_or_else(|| Error::new(ErrorKind::Internal, "a cell is missing").into())
}

impl Cell {
    fn empty() -> Self {
        Self {
            state: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            object: UnsafeCell::new(ptr::null_mut()),
            drop_object: UnsafeCell::new(drop_box::<()>),
        }
    }
}

/// Which chunk a cell is in, and where in it.
fn place(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST + 1).ilog2() as usize;
    (chunk, index - FIRST * ((1 << chunk) - 1))
}

fn cell_at(index: usize) -> Option<&'static Cell> {
    let (chunk, within) = place(index);
    let cells = POOL.get(chunk)?.load(Acquire);
    if cells.is_null() {
        return None;
    }
    // SAFETY: `within` is inside the chunk's `FIRST << chunk` cells, which are never freed.
    Some(unsafe { &*cells.add(within) })
}

/// The cell at an address; none when no cell begins there. Reads no foreign memory.
#[inline(always)]
fn find(address: *const ()) -> Option<&'static Cell> {
    for (chunk, slot) in POOL.iter().enumerate() {
        let cells = slot.load(Acquire);
        if cells.is_null() {
            return None;
        }
        let offset = address.addr().wrapping_sub(cells.addr());
        if offset < (FIRST << chunk) * size_of::<Cell>() {
            let whole = offset.is_multiple_of(size_of::<Cell>());
            // SAFETY: a cell begins at this offset of the chunk, which is never freed.
            return whole.then(|| unsafe { &*cells.byte_add(offset) });
        }
    }
    None
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
