//! The thread that writes changed pages when they are due, and sleeps until then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::core::Core;
use super::key::Key;
use super::word::{DIRTY, VALID};
use crate::base::clock::now_ns;

/// Changed pages by the time at which they have to be written.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When, and which frame. An entry whose time is not that of its frame counts no more.
    planned: BinaryHeap<Reverse<(u64, u32)>>,
    /// Too many pages are changed: write them all now.
    urgent: bool,
    stop: bool,
}

impl FlushQueue {
    /// Plans the write of a frame.
    pub(super) fn push(&self, due: u64, frame: u32, urgent: bool) {
        let mut state = self.state.lock();
        let next = state.planned.peek().map(|Reverse((due, _))| *due);
        let sooner = next.is_none_or(|next| due < next) || (urgent && !state.urgent);
        state.planned.push(Reverse((due, frame)));
        state.urgent |= urgent;
        if sooner {
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_one();
    }

    /// Sleeps until pages are due. `None` when the cache goes.
    fn next(&self) -> Option<Vec<(u64, u32)>> {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = now_ns();
            let until = if state.urgent { u64::MAX } else { now };
            let mut due = Vec::new();
            while let Some(Reverse(first)) = state.planned.peek().filter(|p| p.0.0 <= until) {
                due.push(*first);
                state.planned.pop();
            }
            state.urgent = false;
            if !due.is_empty() {
                return Some(due);
            }
            match state.planned.peek() {
                None => self.wake.wait(&mut state),
                Some(Reverse((due, _))) => {
                    let pause = Duration::from_nanos(due.saturating_sub(now));
                    let _ = self.wake.wait_for(&mut state, pause);
                }
            }
        }
    }
}

/// The body of the thread.
pub(super) fn run(core: &Arc<Core>) {
    while let Some(due) = core.flushes.next() {
        let pages = due.into_iter().filter_map(|entry| core.due_page(entry));
        let written = core.write_pages(pages.collect(), false);
        for (file, error) in written.errors {
            core.files.set_error(&file, error);
        }
    }
}

impl Core {
    /// The page of an entry that still counts. A pinned page is left for later, since its holder
    /// may be changing it.
    fn due_page(&self, (due, frame): (u64, u32)) -> Option<Key> {
        let (shard, local) = (frame / self.frames_per_shard, self.local(frame));
        let mut guard = self.shard(shard).lock();
        if guard.frames[local as usize].due != due {
            return None;
        }
        let (_, slot) = self.slot_of(&guard, local)?;
        let state = slot.word.state();
        if !state.has(VALID | DIRTY) {
            return None;
        }
        if state.pins() > 0 {
            self.plan_again(&mut guard, shard, local);
            return None;
        }
        self.key_of(&guard, local)
    }
}
