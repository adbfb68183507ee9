//! Changed pages go to their files: in ascending order, none twice at once, none forgotten.
//!
//! A page that is being written stays readable. It is not DIRTY meanwhile unless it is pinned or
//! changed again; when its write fails it is DIRTY again, so no data is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::core::Core;
use super::files::FileState;
use super::fill::unbroken;
use super::key::Key;
use super::shard::Guard;
use super::stats::count;
use super::word::{BUSY, DIRTY, VALID};
use crate::base::clock::now_ns;
use crate::engine::{Operation, Options, Transfer};
use crate::error::{Error, ErrorKind, Result};

/// Pages of one file that are written side by side; the next ones wait for them.
const GROUP: usize = 32;
/// Least time until a page is looked at again that could not be written, nanoseconds.
const RETRY_NS: u64 = 20_000_000;

/// A page while it is being written.
#[derive(Debug)]
pub(super) struct Writing {
    key: Key,
    shard: u32,
    local: u32,
    slot: u32,
    frame: u32,
    valid: u32,
    pub(super) file: Arc<FileState>,
}

/// What writing some pages came to.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: u64,
    /// The first error of each file.
    pub(super) errors: Vec<(Arc<FileState>, Error)>,
}

/// How a page in a list of changed ones is met.
enum Met {
    Started(Writing),
    /// Somebody else is writing it.
    Busy,
    /// Nothing to do.
    Clean,
}

impl Core {
    /// Has a changed page written at `due`, unless that was planned before.
    pub(super) fn plan_flush(&self, guard: &mut Guard<'_>, shard: u32, local: u32, due: u64) {
        let frame = &mut guard.frames[local as usize];
        if frame.due != 0 {
            return;
        }
        frame.due = due;
        let dirty = self.dirty.fetch_add(1, Relaxed) + 1;
        let percent = u64::from(self.config.dirty_percent);
        let urgent = dirty * 100 > self.frame_count() * percent;
        self.flushes.push(due, self.global(shard, local), urgent);
    }

    /// As `plan_flush`, for a page that could not be written now.
    pub(super) fn plan_again(&self, guard: &mut Guard<'_>, shard: u32, local: u32) {
        let delay = u64::try_from(self.config.flush_delay.as_nanos()).unwrap_or(u64::MAX);
        let due = now_ns().saturating_add(delay.max(RETRY_NS));
        let frame = &mut guard.frames[local as usize];
        if frame.due == 0 {
            self.dirty.fetch_add(1, Relaxed);
        }
        frame.due = due;
        self.flushes.push(due, self.global(shard, local), false);
    }

    /// Starts the write-back of a changed page that is not busy.
    pub(super) fn begin_write(
        &self,
        shard: u32,
        guard: &mut Guard<'_>,
        local: u32,
    ) -> Option<Writing> {
        let (index, slot) = self.slot_of(guard, local)?;
        let key = self.key_of(guard, local)?;
        let frame = &mut guard.frames[local as usize];
        let file = frame.file.clone()?;
        let before = slot.word.begin_write()?;
        if before.pins() == 0 {
            frame.due = 0;
            self.dirty.fetch_sub(1, Relaxed);
        }
        Some(Writing {
            key,
            shard,
            local,
            slot: index,
            frame: before.frame(),
            valid: self.valid(before),
            file,
        })
    }

    /// Ends a write-back. The caller tells the error.
    pub(super) fn end_write(&self, guard: &mut Guard<'_>, writing: &Writing, written: bool) {
        let word = &self.table.slot(writing.slot).word;
        word.end_write(written);
        if written {
            count(&self.counters.write_backs);
            let bytes = u64::from(writing.valid);
            self.counters.bytes_written.fetch_add(bytes, Relaxed);
            let start = writing.key.page << self.shift;
            writing.file.written(start + bytes);
        } else {
            count(&self.counters.write_errors);
        }
        if word.state().has(DIRTY) {
            self.plan_again(guard, writing.shard, writing.local);
        }
        self.shard(writing.shard).changed.notify_all();
    }

    fn transfer(&self, writing: &Writing) -> Transfer {
        Transfer {
            operation: Operation::Write,
            file: writing.file.file(),
            file_offset: writing.key.page << self.shift,
            buffer: self.memory.clone(),
            buffer_offset: self.place(writing.frame),
            size: u64::from(writing.valid),
        }
    }

    /// Writes one page and waits.
    pub(super) fn write_one(&self, writing: &Writing) -> Result<()> {
        let t = self.transfer(writing);
        unbroken(|| {
            t.file
                .write(t.file_offset, &t.buffer, t.buffer_offset, t.size)
        })
        .map(|_| ())
    }

    /// Changed pages, of one file or of all, and those that are being written.
    pub(super) fn dirty_pages(&self, file: Option<u64>) -> Vec<Key> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let guard = shard.lock();
            for local in 0..self.frames_per_shard {
                let Some((_, slot)) = self.slot_of(&guard, local) else {
                    continue;
                };
                let state = slot.word.state();
                if state.has(VALID) && (state.has(DIRTY) || state.has(BUSY)) {
                    found.extend(self.key_of(&guard, local));
                }
            }
            found.retain(|key| file.is_none_or(|f| f == key.file));
        }
        found
    }

    /// Writes all changed pages and waits.
    pub(super) fn flush_all(&self) -> Written {
        self.write_pages(self.dirty_pages(None), true)
    }

    /// Writes changed pages and waits, each file's in ascending order. After an error the further
    /// pages of that file stay as they are. Pages that somebody else is writing are waited for,
    /// or left to him.
    pub(super) fn write_pages(&self, mut keys: Vec<Key>, wait: bool) -> Written {
        keys.sort_unstable();
        let mut result = Written::default();
        let mut rest = keys.as_slice();
        while let Some(first) = rest.first() {
            let length = rest.iter().take_while(|k| k.file == first.file).count();
            let (mut own, others) = rest.split_at(length);
            rest = others;
            while !own.is_empty() {
                let (group, used) = self.begin_group(own, wait);
                own = &own[used..];
                if let Err(failed) = self.write_group(&group, &mut result.bytes) {
                    self.plan_rest(own);
                    result.errors.push(failed);
                    break;
                }
            }
        }
        result
    }

    /// Pages that an error left behind are looked at again in time.
    fn plan_rest(&self, keys: &[Key]) {
        for key in keys {
            let shard = self.shard_of(*key);
            let mut guard = self.shard(shard).lock();
            let Some(index) = self.table.find(key.name) else {
                continue;
            };
            let state = self.table.slot(index).word.state();
            if state.has(VALID | DIRTY) {
                self.plan_again(&mut guard, shard, self.local(state.frame()));
            }
        }
    }

    /// Starts as many of these pages as go side by side, and says how many are dealt with. Holds
    /// no page while it waits for another writer.
    fn begin_group(&self, keys: &[Key], wait: bool) -> (Vec<Writing>, usize) {
        let mut group = Vec::new();
        let mut used = 0;
        while used < keys.len() && group.len() < GROUP {
            match self.meet(keys[used], wait && group.is_empty()) {
                Met::Started(writing) => group.push(writing),
                Met::Clean => {}
                Met::Busy if wait => break,
                Met::Busy => {}
            }
            used += 1;
        }
        (group, used)
    }

    fn meet(&self, key: Key, wait: bool) -> Met {
        let number = self.shard_of(key);
        let shard = self.shard(number);
        let mut guard = shard.lock();
        loop {
            let Some(index) = self.table.find(key.name) else {
                return Met::Clean;
            };
            let state = self.table.slot(index).word.state();
            if !state.has(VALID) {
                return Met::Clean;
            }
            if !state.has(BUSY) {
                let local = self.local(state.frame());
                let started = self.begin_write(number, &mut guard, local);
                return started.map_or(Met::Clean, Met::Started);
            }
            if !wait {
                return Met::Busy;
            }
            shard.changed.wait(&mut guard);
        }
    }

    /// Writes pages of one file side by side and waits.
    fn write_group(
        &self,
        group: &[Writing],
        bytes: &mut u64,
    ) -> std::result::Result<(), (Arc<FileState>, Error)> {
        let Some(first) = group.first() else {
            return Ok(());
        };
        let results = match group {
            [one] => vec![self.write_one(one)],
            _ => self.write_many(group),
        };
        let mut failed = None;
        for (writing, result) in group.iter().zip(results) {
            let mut guard = self.shard(writing.shard).lock();
            self.end_write(&mut guard, writing, result.is_ok());
            match result {
                Ok(()) => *bytes += u64::from(writing.valid),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), |error| Err((first.file.clone(), error)))
    }

    fn write_many(&self, group: &[Writing]) -> Vec<Result<()>> {
        let transfers = group.iter().map(|w| self.transfer(w)).collect();
        let ticket = match self.context.submit(transfers, &Options::default()) {
            Ok(ticket) => ticket,
            Err(error) => return group.iter().map(|_| Err(error.clone())).collect(),
        };
        let whole = ticket.wait(None).map(|_| ());
        let lost = || Error::new(ErrorKind::Internal, "a finished write left no result");
        (0..group.len())
            .map(|i| match ticket.result(i) {
                Some(result) => result.map(|_| ()),
                None => whole.clone().and(Err(lost())),
            })
            .collect()
    }
}
