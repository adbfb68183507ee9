//! Pages that somebody waits for: found, waited for, or brought in.

use super::core::{Coming, Core, Pinned};
use super::fill::{Outcome, unbroken};
use super::key::Key;
use super::policy::Insert;
use super::shard::Terms;
use super::stats::count;
use super::word::{DIRTY, PREFETCHED, REF, State, VALID, WRITABLE};
use crate::engine::{Buffer, Copy, File};
use crate::error::{Error, ErrorKind, Result};

/// Where the bytes of an absent page come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// The file, or the host tier.
    File,
    /// The caller, who has pinned the page by then.
    Caller,
    /// A whole page of a buffer.
    Buffer(&'a Buffer, u64),
}

impl Core {
    /// What a hit leaves to be done now and then.
    #[cold]
    pub(super) fn note_hit(&self, slot: u32, state: State, file: &File) {
        let word = &self.table.slot(slot).word;
        if !state.has(REF) {
            word.set(REF);
        }
        if state.has(PREFETCHED) && word.clear(PREFETCHED).has(PREFETCHED) {
            count(&self.counters.prefetch_hits);
        }
        if file.mode().write && !state.has(WRITABLE) {
            self.files.adopt(file);
            word.set(WRITABLE);
        }
    }

    /// Tells a policy that asked for it, unless the shard is in use.
    #[cold]
    pub(super) fn tell_hit(&self, frame: u32) {
        let shard = frame / self.frames_per_shard;
        if let Some(mut guard) = self.shard(shard).try_lock() {
            guard.policy.hit(self.local(frame));
        }
    }

    /// Pins a page, bringing it in where it is absent.
    ///
    /// # Errors
    /// `AllPinned`, and what reading it says.
    pub(super) fn obtain(&self, file: &File, key: Key, source: Source<'_>) -> Result<Pinned> {
        let number = self.shard_of(key);
        let shard = self.shard(number);
        let mut missed = false;
        let mut guard = shard.lock();
        loop {
            if let Some(slot) = self.table.find(key.name) {
                let word = &self.table.slot(slot).word;
                let now = word.state();
                if now.has(VALID) {
                    let state = word.pin().ok_or_else(|| too_many(file, key))?;
                    drop(guard);
                    if !missed {
                        self.counters.hit();
                    }
                    self.note_hit(slot, state, file);
                    return Ok(Pinned {
                        slot,
                        frame: state.frame(),
                        fresh: false,
                    });
                }
                let Some(fill) = guard.frames[self.local(now.frame()) as usize].fill.clone() else {
                    return Err(Error::new(ErrorKind::Internal, "a busy page has no fill"));
                };
                fill.join();
                drop(guard);
                if !missed {
                    count(&self.counters.waits);
                }
                missed = true;
                match fill.wait() {
                    Outcome::Ready => {
                        let state = self.table.slot(slot).word.state();
                        self.note_hit(slot, state, file);
                        return Ok(Pinned {
                            slot,
                            frame: state.frame(),
                            fresh: false,
                        });
                    }
                    Outcome::Failed(error) => return Err(error),
                    Outcome::Gone => guard = shard.lock(),
                }
                continue;
            }
            if !missed {
                missed = true;
                count(&self.counters.misses);
                guard.policy.missed(key.hash());
            }
            let mut terms = Terms {
                dirty: true,
                wait: true,
                wanted: Some(key),
                ..Terms::default()
            };
            let taken = self.take_frame(number, &mut guard, &mut terms);
            let (local, unlocked) =
                taken.map_err(|why| self.all_pinned(file, key.page << self.shift, &why))?;
            if unlocked {
                // The page may have come in meanwhile.
                guard.free.push(local);
                continue;
            }
            let Some(state) = self.files.enter(file, self.file_limit()) else {
                guard.free.push(local);
                drop(guard);
                self.take_own(file)?;
                guard = shard.lock();
                continue;
            };
            let coming = self.link(&mut guard, key, local, state, Insert::Demand)?;
            drop(guard);
            return self.bring(file, &coming, source);
        }
    }

    /// Fills a frame and pins its page.
    fn bring(&self, file: &File, coming: &Coming, source: Source<'_>) -> Result<Pinned> {
        let frame = self.global(coming.shard, coming.local);
        let whole = self.config.page_size;
        let (outcome, flags) = match source {
            Source::File => (unbroken(|| self.read_page(file, coming.key, frame)), 0),
            Source::Caller => {
                self.forget_host(coming.key);
                (Ok(whole), DIRTY)
            }
            Source::Buffer(from, from_offset) => {
                self.forget_host(coming.key);
                let copy = Copy {
                    from: from.clone(),
                    from_offset,
                    to: self.memory.clone(),
                    to_offset: self.place(frame),
                    size: self.page_size(),
                };
                let copied = unbroken(|| self.context.copy(&[copy]));
                (copied.map(|()| whole), DIRTY)
            }
        };
        if outcome.is_err() && matches!(source, Source::File) {
            count(&self.counters.read_errors);
        }
        if flags & DIRTY != 0 && outcome.is_ok() {
            coming.file.extend((coming.key.page + 1) << self.shift);
        }
        self.settle(coming, outcome, 1, flags)?;
        Ok(Pinned {
            slot: coming.slot,
            frame,
            fresh: true,
        })
    }

    fn forget_host(&self, key: Key) {
        if let Some(host) = &self.host {
            host.forget(key);
        }
    }

    /// Reads a page into its frame: out of the host tier or the file. Its valid bytes.
    fn read_page(&self, file: &File, key: Key, frame: u32) -> Result<u32> {
        let to_offset = self.place(frame);
        if let Some(host) = &self.host
            && let Some(taken) = host.take(key)
        {
            let copied = self.context.copy(&[Copy {
                from: host.memory.clone(),
                from_offset: taken.offset,
                to: self.memory.clone(),
                to_offset,
                size: self.page_size(),
            }]);
            let valid = taken.valid;
            host.give_back(taken);
            copied?;
            count(&self.counters.host_hits);
            return Ok(valid);
        }
        let offset = key.page << self.shift;
        let done = file.read(offset, &self.memory, to_offset, self.page_size())?;
        let valid = u32::try_from(done.bytes).unwrap_or(self.config.page_size);
        self.zero_tail(frame, valid)?;
        Ok(valid)
    }

    /// Marks a pinned page as changed; it now has at least `valid` bytes.
    pub(super) fn change(&self, slot: u32, valid: u32) {
        let place = self.table.slot(slot);
        let shard = self.table.shard_of_slot(slot);
        let mut guard = self.shard(shard).lock();
        self.extend_valid(place, valid);
        let local = self.local(place.word.state().frame());
        let frame = &guard.frames[local as usize];
        if let Some(file) = &frame.file
            && valid > 0
        {
            file.extend((frame.page << self.shift) + u64::from(valid));
        }
        self.set_dirty(&mut guard, shard, local);
    }
}

#[cold]
fn too_many(file: &File, key: Key) -> Error {
    let text = format!(
        "page {} of {} is pinned more often than can be counted; release it",
        key.page,
        file.path().display()
    );
    Error::new(ErrorKind::AllPinned, text).with_path(file.path())
}
