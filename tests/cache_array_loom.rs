//! The miss queue of arrays: warps that ask and the thread that serves, in every order that they
//! can take.
//!
//! The rings' code is the library's; loom stands in for the memory. What kernels do around it
//! (slots, the lock of whoever looks for completions, the fatal word) is done here as in
//! `include/gds_rs_detail.cuh`, and staging pages are cells in which loom finds every race.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;

use gds_rs::cache::array::ring::{Asker, Request, Server, Words, request_word};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed};
use loom::thread;

/// States of a slot.
const FREE: u64 = 0;
const ASKED: u64 = 1;
const ANSWERED: u64 = 2;
/// What a warp gets when nobody answers any more.
const POISONED: u64 = 84;
/// Status that the thread answers for pages that it cannot read.
const FAILED: u16 = 20;

/// Every order with at most this many switches that no thread asked for.
fn model(switches: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 20_000;
    builder.check(body);
}

/// Words in memory that both sides use, with the orders of `Pinned`, or without.
struct Shared {
    words: Vec<AtomicU64>,
    publish: Ordering,
}

impl Words for Shared {
    fn load(&self, index: u64) -> u64 {
        self.words[index as usize].load(Ordering::Acquire)
    }
    fn store(&self, index: u64, value: u64) {
        self.words[index as usize].store(value, self.publish);
    }
}

/// Words of one thread, to wind a ring on with.
struct Plain(RefCell<Vec<u64>>);

impl Words for Plain {
    fn load(&self, index: u64) -> u64 {
        self.0.borrow()[index as usize]
    }
    fn store(&self, index: u64, value: u64) {
        self.0.borrow_mut()[index as usize] = value;
    }
}

/// One ring with what is around it.
struct Ring {
    shift: u32,
    requests: Shared,
    completions: Shared,
    /// Not 0: the thread that serves has died.
    host: AtomicU64,
    fatal: AtomicU64,
    tail: AtomicU64,
    /// A warp looks for completions; the asker is its.
    lock: AtomicU64,
    asker: UnsafeCell<Asker>,
    slots: Vec<AtomicU64>,
    staging: Vec<UnsafeCell<u64>>,
}

// SAFETY: the cells are what is tested: loom stops at any use of one that is not ordered after
// the other thread's.
unsafe impl Sync for Ring {}
// SAFETY: as above; all else is atomic.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring of `1 << shift` slots that has gone round `rounds` times, and its server.
    fn new(shift: u32, rounds: u64, publish: Ordering) -> (Self, Server) {
        let size = 1_usize << shift;
        let (mut server, mut asker) = (Server::new(shift), Asker::new(shift));
        let used = [(); 2].map(|()| Plain(vec![0; size].into()));
        let start = rounds << shift;
        for ticket in 0..start {
            let slot = ticket % size as u64;
            let asked = request(ticket, slot);
            used[0].store(slot, request_word(asked, ticket, shift));
            assert_eq!(server.take(&used[0]), Some(asked));
            server.complete(&used[1], slot, 0);
            assert_eq!(asker.see(&used[1]), Some((slot, 0)));
        }
        let [requests, completions] = used.map(|plain| Shared {
            words: plain
                .0
                .into_inner()
                .into_iter()
                .map(AtomicU64::new)
                .collect(),
            publish,
        });
        let ring = Self {
            shift,
            requests,
            completions,
            host: AtomicU64::new(0),
            fatal: AtomicU64::new(0),
            tail: AtomicU64::new(start),
            lock: AtomicU64::new(0),
            asker: UnsafeCell::new(asker),
            slots: (0..size).map(|_| AtomicU64::new(FREE)).collect(),
            staging: (0..size).map(|_| UnsafeCell::new(u64::MAX)).collect(),
        };
        (ring, server)
    }

    fn is_fatal(&self) -> bool {
        self.fatal.load(Ordering::Acquire) != 0
    }

    /// Takes completions on behalf of all who wait, unless another does.
    fn drain(&self) {
        let taken = self
            .lock
            .compare_exchange(0, 1, Ordering::Acquire, Relaxed)
            .is_ok();
        if !taken {
            return;
        }
        let dead = self.host.load(Ordering::Acquire);
        // The lock makes it this thread's.
        self.asker.with_mut(|asker| {
            // SAFETY: as the line before says; loom checks it.
            let asker = unsafe { &mut *asker };
            while let Some((slot, status)) = asker.see(&self.completions) {
                let state = &self.slots[slot as usize];
                assert_eq!(state.load(Relaxed), ASKED, "one answer for each request");
                state.store(ANSWERED + u64::from(status), Ordering::Release);
            }
        });
        if dead != 0 {
            self.fatal.store(1, Ordering::Release);
        }
        self.lock.store(0, Ordering::Release);
    }

    fn take_slot(&self) -> Option<u64> {
        let free = |slot: &AtomicU64| {
            let swap = slot.compare_exchange(FREE, ASKED, Ordering::AcqRel, Relaxed);
            swap.is_ok()
        };
        self.slots.iter().position(free).map(|index| index as u64)
    }

    /// One look of a warp that brings a page.
    fn step(&self, page: u64, state: State) -> State {
        let slot = match state {
            State::Done(_) => return state,
            State::Begin => {
                let Some(slot) = self.take_slot() else {
                    if self.is_fatal() {
                        return State::Done(Err(POISONED));
                    }
                    self.drain();
                    return state;
                };
                let ticket = self.tail.fetch_add(1, Ordering::AcqRel);
                let word = request_word(request(page, slot), ticket, self.shift);
                let place = ticket & ((1 << self.shift) - 1);
                self.requests.store(place, word);
                slot
            }
            State::Waiting(slot) => slot,
        };
        let word = &self.slots[slot as usize];
        let now = word.load(Ordering::Acquire);
        if now < ANSWERED {
            if self.is_fatal() {
                // The slot stays taken: it may still be read into.
                return State::Done(Err(POISONED));
            }
            self.drain();
            return State::Waiting(slot);
        }
        // SAFETY: answered, so nobody writes it; loom checks it.
        let bytes = self.staging[slot as usize].with(|bytes| unsafe { *bytes });
        word.store(FREE, Ordering::Release);
        State::Done(match now - ANSWERED {
            0 => Ok(bytes),
            status => Err(status),
        })
    }

    /// What a thread serves in so many looks; the pages that were asked for. Odd pages fail.
    fn serve(&self, server: &mut Server, looks: usize) -> Vec<u64> {
        let mut pages = Vec::new();
        for _ in 0..looks {
            let Some(asked) = server.take(&self.requests) else {
                continue;
            };
            assert!(
                server.outstanding() <= 1 << self.shift,
                "no more than slots"
            );
            assert!(!asked.write);
            pages.push(asked.page);
            self.answer(server, asked);
        }
        pages
    }

    fn answer(&self, server: &mut Server, asked: Request) {
        let slot = asked.slot;
        // SAFETY: its request was taken and not answered; loom checks it.
        self.staging[slot as usize].with_mut(|bytes| unsafe { *bytes = bytes_of(asked.page) });
        let status = if asked.page % 2 == 1 { FAILED } else { 0 };
        server.complete(&self.completions, slot, status);
    }
}

fn request(page: u64, slot: u64) -> Request {
    Request {
        page,
        slot,
        write: false,
    }
}

/// What page `page` of the file holds.
fn bytes_of(page: u64) -> u64 {
    page * 1000 + 7
}

/// What bringing it gives while the thread lives.
fn expected(page: u64) -> Result<u64, u64> {
    match page % 2 {
        0 => Ok(bytes_of(page)),
        _ => Err(u64::from(FAILED)),
    }
}

/// How far a warp has come with a page.
#[derive(Clone, Copy)]
enum State {
    Begin,
    Waiting(u64),
    Done(Result<u64, u64>),
}

/// A warp that brings pages one after the other.
struct Warp {
    pages: &'static [u64],
    state: State,
    found: Vec<Result<u64, u64>>,
}

impl Warp {
    fn new(pages: &'static [u64]) -> Self {
        Self {
            pages,
            state: State::Begin,
            found: Vec::new(),
        }
    }

    /// Goes on for so many looks. Real warps look until the end; here the rest is done when all
    /// threads have ended, so that the orders can be counted.
    fn look(&mut self, ring: &Ring, looks: usize) {
        for _ in 0..looks {
            let Some(page) = self.pages.get(self.found.len()) else {
                return;
            };
            self.state = ring.step(*page, self.state);
            if let State::Done(found) = self.state {
                self.found.push(found);
                self.state = State::Begin;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.found.len() == self.pages.len()
    }
}

/// Looks of each thread while others run, and rounds after that in which all must end.
#[derive(Clone, Copy)]
struct Looks {
    warps: usize,
    server: usize,
}
const ROUNDS: usize = 40;

/// Warps and the thread at once; `serve` says what it does.
fn at_once(
    ring: &Arc<Ring>,
    pages: &[&'static [u64]],
    looks: usize,
    serve: impl FnOnce(&Ring),
) -> Vec<Warp> {
    let warps: Vec<_> = pages
        .iter()
        .map(|pages| {
            let (ring, mut warp) = (ring.clone(), Warp::new(pages));
            thread::spawn(move || {
                warp.look(&ring, looks);
                warp
            })
        })
        .collect();
    serve(ring);
    warps.into_iter().map(|warp| warp.join().unwrap()).collect()
}

/// Warps bring these pages through a ring that has gone round.
fn bring(shift: u32, rounds: u64, pages: &[&'static [u64]], looks: Looks, publish: Ordering) {
    let (ring, mut server) = Ring::new(shift, rounds, publish);
    let ring = Arc::new(ring);
    let mut served = Vec::new();
    let mut warps = at_once(&ring, pages, looks.warps, |ring| {
        served = ring.serve(&mut server, looks.server);
    });
    for _ in 0..ROUNDS {
        served.extend(ring.serve(&mut server, 4));
        warps.iter_mut().for_each(|warp| warp.look(&ring, 2));
    }
    for warp in &warps {
        assert!(warp.is_done(), "no request is lost");
        for (page, found) in warp.pages.iter().zip(&warp.found) {
            assert_eq!(*found, expected(*page), "page {page}");
        }
    }
    assert_eq!(server.take(&ring.requests), None, "nothing was asked twice");
    assert_eq!(server.outstanding(), 0);
    let mut wanted = pages.concat();
    served.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(served, wanted, "each request was served once");
    for slot in &ring.slots {
        assert_eq!(slot.load(Relaxed), FREE, "every slot came back");
    }
}

const FEW: Looks = Looks {
    warps: 2,
    server: 2,
};
const MORE: Looks = Looks {
    warps: 4,
    server: 3,
};

#[test]
fn every_request_is_answered_once() {
    model(2, || bring(1, 0, &[&[2], &[3]], FEW, Ordering::Release));
    model(3, || bring(1, 0, &[&[2, 3]], MORE, Ordering::Release));
}

#[test]
fn a_ring_that_wraps_keeps_its_rounds_apart() {
    model(1, || {
        bring(1, 0, &[&[2, 4], &[6, 3]], MORE, Ordering::Release)
    });
    model(3, || bring(0, 0, &[&[2, 4, 6]], MORE, Ordering::Release));
}

#[test]
fn the_count_of_rounds_begins_again_under_way() {
    // The last of 127 rounds, and the first of the next.
    model(2, || bring(0, 126, &[&[2], &[4]], FEW, Ordering::Release));
    model(1, || {
        bring(1, 126, &[&[2, 4], &[6]], MORE, Ordering::Release)
    });
}

#[test]
fn who_finds_the_ring_full_gets_a_slot_later() {
    model(2, || bring(0, 0, &[&[2], &[4]], FEW, Ordering::Release));
    model(2, || bring(0, 0, &[&[2, 4], &[6]], MORE, Ordering::Release));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn words_that_do_not_publish_are_found() {
    model(3, || bring(0, 0, &[&[2, 4]], MORE, Relaxed));
}

/// A page's word, as far as the queue is concerned.
const ABSENT: u64 = 0;
const BUSY: u64 = 1;

#[test]
fn equal_pages_are_one_request() {
    model(3, || {
        let (ring, mut server) = Ring::new(1, 0, Ordering::Release);
        let shared = Arc::new((ring, AtomicU64::new(ABSENT)));
        let warps: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (ring, word) = &*shared;
                    let swap = word.compare_exchange(ABSENT, BUSY, Ordering::AcqRel, Relaxed);
                    let mut warp = Warp::new(if swap.is_ok() { &[4] } else { &[] });
                    warp.look(ring, 2);
                    warp
                })
            })
            .collect();
        let mut served = shared.0.serve(&mut server, 2);
        let mut warps: Vec<Warp> = warps.into_iter().map(|w| w.join().unwrap()).collect();
        served.extend(shared.0.serve(&mut server, 2));
        warps.iter_mut().for_each(|warp| warp.look(&shared.0, 4));
        let found: Vec<_> = warps.into_iter().flat_map(|warp| warp.found).collect();
        assert_eq!((served, found), (vec![4], vec![expected(4)]));
    });
}

/// The thread dies after so many looks, perhaps with a request in its hand.
fn thread_that_dies(shift: u32, looks: usize, holds_one: bool) {
    let (ring, mut server) = Ring::new(shift, 0, Ordering::Release);
    let ring = Arc::new(ring);
    let mut served = Vec::new();
    let mut warps = at_once(&ring, &[&[2, 6], &[4]], 2, |ring| {
        served = ring.serve(&mut server, looks);
        if holds_one {
            let _ = server.take(&ring.requests);
        }
        ring.host.store(POISONED, Ordering::Release);
    });
    for _ in 0..ROUNDS {
        warps.iter_mut().for_each(|warp| warp.look(&ring, 1));
    }
    let mut answered = 0;
    for warp in &warps {
        assert!(warp.is_done(), "nobody waits for a dead thread");
        for (page, found) in warp.pages.iter().zip(&warp.found) {
            assert!(*found == expected(*page) || *found == Err(POISONED));
            answered += usize::from(found.is_ok());
        }
    }
    assert!(answered <= served.len(), "no answer that nobody gave");
    assert!(ring.is_fatal(), "who waits was told");
}

#[test]
fn warps_that_wait_for_a_dead_thread_end() {
    model(2, || thread_that_dies(1, 0, false));
    model(2, || thread_that_dies(0, 0, true));
    model(2, || thread_that_dies(1, 1, false));
    model(2, || thread_that_dies(0, 1, true));
}
