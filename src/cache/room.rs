//! Making room: which page goes, and what has to be done before its frame is used again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;

use super::core::Core;
use super::fill::{Fill, Outcome};
use super::key::Key;
use super::shard::{Guard, Terms};
use super::stats::count;
use super::word::{BUSY, DIRTY, PREFETCHED, REF, State, VALID};
use crate::engine::{Copy, File};
use crate::error::{Error, ErrorKind, Result};

/// Times that one call sleeps until a busy page may have become one that can go.
const WAITS_MAX: u32 = 64;
/// Dirty pages that could not be written before one call gives up.
const REFUSED_MAX: usize = 8;

impl Core {
    /// An empty frame of a shard, and whether the shard was unlocked on the way.
    ///
    /// # Errors
    /// `AllPinned`: nothing can go.
    pub(super) fn take_frame(
        &self,
        number: u32,
        guard: &mut Guard<'_>,
        terms: &mut Terms<'_>,
    ) -> Result<(u32, bool)> {
        let mut unlocked = false;
        let mut waits = 0;
        loop {
            if let Some(local) = guard.free.pop() {
                return Ok((local, unlocked));
            }
            let Some(local) = guard.victim(&self.table, terms) else {
                if terms.wait && waits < WAITS_MAX && guard.any_busy(&self.table) {
                    waits += 1;
                    unlocked = true;
                    self.shard(number).changed.wait(guard);
                    continue;
                }
                return Err(nothing_goes(terms));
            };
            let dirty = self
                .slot_of(guard, local)
                .is_some_and(|(_, slot)| slot.word.state().has(DIRTY));
            if dirty {
                unlocked = true;
                if self.write_victim(number, guard, local).is_err() {
                    terms.refused.push(local);
                    if terms.refused.len() >= REFUSED_MAX {
                        return Err(nothing_goes(terms));
                    }
                    continue;
                }
            }
            if let Some(moved) = self.evict(guard, local, terms.wanted) {
                if dirty {
                    count(&self.counters.dirty_evictions);
                }
                return Ok((local, unlocked || moved));
            }
        }
    }

    /// Takes an idle clean page out, to the host tier where there is one. `None` when it has been
    /// pinned or changed; else whether the shard was unlocked meanwhile.
    fn evict(&self, guard: &mut Guard<'_>, local: u32, wanted: Option<Key>) -> Option<bool> {
        let (_, slot) = self.slot_of(guard, local)?;
        let before = slot.word.begin_evict()?;
        count(&self.counters.evictions);
        if before.has(PREFETCHED) {
            count(&self.counters.prefetch_wasted);
        }
        let moved = self.demote(guard, local, before, wanted);
        self.unlink(guard, local);
        if moved {
            self.shard(before.frame() / self.frames_per_shard)
                .changed
                .notify_all();
        }
        Some(moved)
    }

    /// Copies a page that is on its way out to the host tier. Says whether the shard was unlocked.
    fn demote(
        &self,
        guard: &mut Guard<'_>,
        local: u32,
        before: State,
        wanted: Option<Key>,
    ) -> bool {
        let (valid, frame) = (self.valid(before), before.frame());
        let Some(host) = self.host.as_ref().filter(|_| valid > 0) else {
            return false;
        };
        let Some(key) = self.key_of(guard, local) else {
            return false;
        };
        let fill = Arc::new(Fill::default());
        guard.frames[local as usize].fill = Some(fill.clone());
        MutexGuard::unlocked(guard, || {
            let kept = host.keep(key, valid, wanted, |to_offset| {
                self.context.copy(&[Copy {
                    from: self.memory.clone(),
                    from_offset: self.place(frame),
                    to: host.memory.clone(),
                    to_offset,
                    size: self.page_size(),
                }])
            });
            if kept {
                count(&self.counters.host_demotions);
            }
        });
        fill.finish(Outcome::Gone);
        true
    }

    /// Makes room for a page of a file that has as many as it may have.
    ///
    /// # Errors
    /// `AllPinned`: none of its pages can go.
    pub(super) fn take_own(&self, file: &File) -> Result<()> {
        let Some(state) = self.files.get(file.identity()) else {
            return Ok(());
        };
        let mut looks = state.arrivals.lock().len() * 2;
        while looks > 0 {
            looks -= 1;
            let Some(key) = state.arrivals.lock().pop_front() else {
                break;
            };
            let (stays, went) = self.take_page(key);
            if stays {
                state.arrivals.lock().push_back(key);
            }
            if went {
                return Ok(());
            }
        }
        count(&self.counters.all_pinned);
        let text = format!(
            "all {} pages that {} may have in the cache are pinned or cannot be written; release \
             some, or raise file_limit_bytes",
            self.file_limit(),
            file.path().display()
        );
        Err(Error::new(ErrorKind::AllPinned, text).with_path(file.path()))
    }

    /// Takes one page out if it can go and was not used since the last try. Says whether it is
    /// still there, and whether its frame is free now.
    fn take_page(&self, key: Key) -> (bool, bool) {
        let number = self.shard_of(key);
        let mut guard = self.shard(number).lock();
        let Some(index) = self.table.find(key.name) else {
            return (false, false);
        };
        let word = &self.table.slot(index).word;
        let state = word.state();
        let local = self.local(state.frame());
        if !state.is_idle() || word.clear(REF).has(REF) {
            return (true, false);
        }
        if state.has(DIRTY) && self.write_victim(number, &mut guard, local).is_err() {
            return (true, false);
        }
        if self.evict(&mut guard, local, None).is_none() {
            return (true, false);
        }
        guard.free.push(local);
        self.shard(number).changed.notify_all();
        (false, true)
    }

    /// Writes a page that is to go, with the shard unlocked meanwhile. An error is kept for the
    /// next call for its file, and here says only that the page must stay.
    fn write_victim(&self, number: u32, guard: &mut Guard<'_>, local: u32) -> Result<()> {
        let Some(writing) = self.begin_write(number, guard, local) else {
            return Ok(());
        };
        let result = MutexGuard::unlocked(guard, || self.write_one(&writing));
        self.end_write(guard, &writing, result.is_ok());
        if let Err(error) = &result {
            self.files.set_error(&writing.file, error.clone());
        }
        result
    }

    /// Drops a page of the device tier, waiting until it is not busy. `None` when it was not
    /// there, else whether it could go.
    pub(super) fn drop_page(&self, key: Key) -> Option<bool> {
        let number = self.shard_of(key);
        let shard = self.shard(number);
        let mut guard = shard.lock();
        loop {
            let index = self.table.find(key.name)?;
            let word = &self.table.slot(index).word;
            let state = word.state();
            if state.has(BUSY) {
                shard.changed.wait(&mut guard);
                continue;
            }
            let local = self.local(state.frame());
            if !state.has(VALID) || word.begin_evict().is_none() {
                return Some(false);
            }
            self.unlink(&mut guard, local);
            guard.free.push(local);
            shard.changed.notify_all();
            return Some(true);
        }
    }

    /// Pages of a file in the device tier, of these pages, in order.
    pub(super) fn pages_of(&self, file: u64, pages: &std::ops::Range<u64>) -> Vec<Key> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let guard = shard.lock();
            let keys = (0..self.frames_per_shard).filter_map(|local| self.key_of(&guard, local));
            found.extend(keys.filter(|k| k.file == file && pages.contains(&k.page)));
        }
        found.sort_unstable();
        found
    }

    /// What a call answers that found no frame.
    pub(super) fn all_pinned(&self, file: &File, offset: u64, why: &Error) -> Error {
        self.counters.all_pinned.fetch_add(1, Relaxed);
        let text = format!(
            "no room in the cache for the page at {offset} of {}: {why}; release pages, or raise \
             device_bytes",
            file.path().display()
        );
        Error::new(ErrorKind::AllPinned, text)
            .with_path(file.path())
            .with_offset(offset)
    }
}

#[cold]
fn nothing_goes(terms: &Terms<'_>) -> Error {
    let text = match terms.refused.len() {
        0 => "all pages that could go are pinned".to_owned(),
        count => format!(
            "{count} changed pages that would go could not be written (the next call for their \
             file says why), and all others are pinned"
        ),
    };
    Error::new(ErrorKind::AllPinned, text)
}
