//! Requests from kernels and completions to them: words in pinned memory.
//!
//! A ring has as many entries as slots, and every request holds a slot from before it is written
//! until its completion was seen, so neither direction can overrun. A word carries the round of
//! its ring, so the reader sees by the word alone whether it is new: no counter is shared.
//! The protocol is generic over the memory, so that tests can drive both sides.

#![allow(unsafe_code, reason = "pinned memory that kernels write")]

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use crate::engine::Buffer;

const PAGE_MASK: u64 = (1 << 40) - 1;
const SLOT_SHIFT: u32 = 40;
const WRITE: u64 = 1 << 56;
const PHASE_SHIFT: u32 = 57;
const PHASES: u64 = 127;
const STATUS_SHIFT: u32 = 16;

/// Words that two sides use at once.
pub trait Words {
    /// The word at `index`; what was stored before it was is seen.
    fn load(&self, index: u64) -> u64;
    /// Replaces the word at `index`; what was stored before is seen by who loads it.
    fn store(&self, index: u64, value: u64);
}

/// What a warp asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Page of the array.
    pub page: u64,
    /// Slot of its ring.
    pub slot: u64,
    /// To the file from the slot, instead of the other way.
    pub write: bool,
}

fn phase_of(ticket: u64, shift: u32) -> u64 {
    (ticket >> shift) % PHASES + 1
}

/// The word of a request.
#[must_use]
pub fn request_word(request: Request, ticket: u64, shift: u32) -> u64 {
    let what = if request.write { WRITE } else { 0 };
    request.page | request.slot << SLOT_SHIFT | what | phase_of(ticket, shift) << PHASE_SHIFT
}

/// The side of a ring that serves. One thread uses it.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    shift: u32,
    /// Requests taken and completions given.
    taken: u64,
    given: u64,
}

impl Server {
    /// A ring of `1 << shift` slots that nobody has used.
    #[must_use]
    pub fn new(shift: u32) -> Self {
        Self {
            shift,
            taken: 0,
            given: 0,
        }
    }

    /// The next request, if there is one.
    pub fn take(&mut self, requests: &impl Words) -> Option<Request> {
        let word = requests.load(self.taken & ((1 << self.shift) - 1));
        if word >> PHASE_SHIFT != phase_of(self.taken, self.shift) {
            return None;
        }
        self.taken += 1;
        Some(Request {
            page: word & PAGE_MASK,
            slot: word >> SLOT_SHIFT & 0xFFFF,
            write: word & WRITE != 0,
        })
    }

    /// Answers the request of a slot. 0 is success.
    pub fn complete(&mut self, completions: &impl Words, slot: u64, status: u16) {
        let word = slot
            | u64::from(status) << STATUS_SHIFT
            | phase_of(self.given, self.shift) << PHASE_SHIFT;
        completions.store(self.given & ((1 << self.shift) - 1), word);
        self.given += 1;
    }

    /// Requests taken and not answered.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.taken - self.given
    }
}

/// The side of a ring that asks, as kernels do it: for `ask`, and tests of the protocol.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    shift: u32,
    seen: u64,
}

impl Asker {
    /// A ring of `1 << shift` slots that nobody has used.
    #[must_use]
    pub fn new(shift: u32) -> Self {
        Self { shift, seen: 0 }
    }

    /// The next completion, if there is one: slot and status. One thread at a time.
    pub fn see(&mut self, completions: &impl Words) -> Option<(u64, u16)> {
        let word = completions.load(self.seen & ((1 << self.shift) - 1));
        if word >> PHASE_SHIFT != phase_of(self.seen, self.shift) {
            return None;
        }
        self.seen += 1;
        Some((word & 0xFFFF, (word >> STATUS_SHIFT) as u16))
    }
}

/// Words of a buffer that kernels use at the same time.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    buffer: Buffer,
    offset: u64,
    count: u64,
}

impl Pinned {
    /// `count` words of `buffer` from byte `offset`, which is a multiple of 8. None when they are
    /// not there.
    pub(super) fn new(buffer: &Buffer, offset: u64, count: u64) -> Option<Self> {
        let end = count
            .checked_mul(8)
            .and_then(|size| size.checked_add(offset));
        let fits = end.is_some_and(|end| end <= buffer.size());
        (fits && (buffer.address() + offset).is_multiple_of(8)).then(|| Self {
            buffer: buffer.clone(),
            offset,
            count,
        })
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        assert!(index < self.count, "a word inside the buffer");
        let address = self.buffer.address() + self.offset + index * 8;
        // SAFETY: inside pinned memory that the buffer keeps, aligned, and used by atomic loads
        // and stores only while kernels may see it.
        unsafe { &*(address as *const AtomicU64) }
    }
}

impl Words for Pinned {
    fn load(&self, index: u64) -> u64 {
        self.word(index).load(Acquire)
    }

    fn store(&self, index: u64, value: u64) {
        self.word(index).store(value, Release);
    }
}

/// Fills bytes of a pinned buffer with zeros, where no kernel and no transfer looks.
pub(super) fn zero(buffer: &Buffer, offset: u64, size: u64) {
    assert!(
        offset
            .checked_add(size)
            .is_some_and(|end| end <= buffer.size()),
        "bytes inside the buffer"
    );
    // SAFETY: inside pinned memory that the buffer keeps; the caller's promise for the rest.
    unsafe { ((buffer.address() + offset) as *mut u8).write_bytes(0, size as usize) };
}

/// Words of a pinned buffer that nobody writes now.
pub(super) fn words(buffer: &Buffer, offset: u64, count: u64) -> Vec<u64> {
    let Some(words) = Pinned::new(buffer, offset, count) else {
        return vec![0; count as usize];
    };
    (0..count).map(|index| words.load(index)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Plain(RefCell<Vec<u64>>);

    impl Words for Plain {
        fn load(&self, index: u64) -> u64 {
            self.0.borrow()[index as usize]
        }
        fn store(&self, index: u64, value: u64) {
            self.0.borrow_mut()[index as usize] = value;
        }
    }

    #[test]
    fn requests_and_completions_keep_their_values_over_many_rounds() {
        let (requests, completions) = (Plain(vec![0; 4].into()), Plain(vec![0; 4].into()));
        let (mut server, mut asker) = (Server::new(2), Asker::new(2));
        for ticket in 0..4 * 300_u64 {
            let asked = Request {
                page: PAGE_MASK - ticket,
                slot: ticket % 4,
                write: ticket % 3 == 0,
            };
            assert_eq!(server.take(&requests), None, "nothing was asked");
            requests.store(ticket % 4, request_word(asked, ticket, 2));
            assert_eq!(server.take(&requests), Some(asked));
            assert_eq!(server.outstanding(), 1);
            assert_eq!(asker.see(&completions), None);
            server.complete(&completions, asked.slot, 26);
            assert_eq!(asker.see(&completions), Some((asked.slot, 26)));
        }
    }
}
