//! The cache as its users hold it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::ahead::{self, Ahead};
use super::core::Core;
use super::demand::Source;
use super::key::{Key, Name};
use super::table::Anchor;
use super::word::{PREFETCHED, REF, VALID, WRITABLE};
use super::{CacheConfig, CacheStats, Page, flusher, page};
use crate::base::limits;
use crate::engine::{Context, File};
use crate::error::{Error, ErrorKind, Result};

/// Pages that a warm-up has under way at once.
const WARM_UNDER_WAY: usize = 256;

/// Where a page of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In storage only.
    Absent,
    /// On its way.
    Reading,
    /// In memory: the device's, or the host tier's.
    Resident,
}

/// Pages of files in device memory. Cheap to clone, usable from many threads. With the last clone
/// changed pages are written once more (call `flush` before to learn of errors), and its threads
/// end.
#[derive(Clone)]
pub struct Cache(pub(super) Arc<Handle>, pub(super) Anchor<Core>);

pub(super) struct Handle {
    pub(super) core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread of the cache does.
type Body = fn(&Arc<Core>);

impl Cache {
    /// Opens a cache. Takes all of its memory now.
    ///
    /// # Errors
    /// `InvalidConfig`, `OutOfDeviceMemory`, `OutOfHostMemory`.
    pub fn open(context: &Context, config: CacheConfig) -> Result<Self> {
        let core = Arc::new(Core::new(context, config)?);
        let mut handle = Handle {
            core: core.clone(),
            threads: Vec::new(),
        };
        let bodies: [(&str, Body); 2] = [
            ("gds-cache-flush", flusher::run),
            ("gds-cache-read", ahead::run),
        ];
        for (name, body) in bodies {
            let core = core.clone();
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || body(&core))
                .map_err(|e| {
                    let text = format!("start a thread of the cache: {e}; raise `ulimit -u`");
                    Error::new(ErrorKind::OutOfHostMemory, text)
                })?;
            handle.threads.push(thread);
        }
        Ok(Self(Arc::new(handle), Anchor::new(&core)))
    }

    /// How it was configured.
    #[must_use]
    pub fn config(&self) -> &CacheConfig {
        &self.0.core.config
    }

    /// The context that it reads and writes through.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.0.core.context
    }

    /// Pins the page of `file` that holds the byte at `offset`, and reads it where it is absent.
    /// Waits for that read, or for somebody else's of the same page.
    ///
    /// A page at or past the end of the file has `size()` 0.
    ///
    /// # Errors
    /// `AllPinned` when no page can make room, `OutOfRange`, what reading says, and what went
    /// wrong earlier for this file without a call to tell it to.
    #[inline]
    pub fn get(&self, file: &File, offset: u64) -> Result<Page> {
        if let Some(page) = self.hit(file, offset) {
            return Ok(page);
        }
        self.get_slow(file, offset)
    }

    /// What `get` gives at once: a page that is there, while there is nothing to tell.
    #[inline(always)]
    pub(crate) fn hit(&self, file: &File, offset: u64) -> Option<Page> {
        if self.1.files.any_error() {
            return None;
        }
        self.find(file, offset)
    }

    /// Pins the page that holds `offset` if it is there. Never waits, never reads.
    #[inline]
    #[must_use]
    pub fn try_get(&self, file: &File, offset: u64) -> Option<Page> {
        self.find(file, offset)
    }

    #[inline(always)]
    fn find(&self, file: &File, offset: u64) -> Option<Page> {
        let core = &*self.1;
        let page = offset >> core.shift;
        let name = match Name::near(file.index(), page) {
            Some(name) => name,
            None => core.stretches.known(file, page)?.name,
        };
        let (slot, state) = core.table.pin(name)?;
        core.counters.hit();
        let writable = file.mode().write;
        let wanted = if writable { REF | WRITABLE } else { REF };
        if state.0 & (wanted | PREFETCHED) != wanted {
            core.note_hit(slot, state, file);
        }
        if core.wants_hits {
            core.tell_hit(state.frame());
        }
        Some(Page::new(
            self.1,
            (slot, state),
            page << core.shift,
            writable,
        ))
    }

    #[cold]
    fn get_slow(&self, file: &File, offset: u64) -> Result<Page> {
        self.0.core.files.tell(file)?;
        check_offset(offset)?;
        self.obtain(file, offset, Source::File)
    }

    fn obtain(&self, file: &File, offset: u64, source: Source<'_>) -> Result<Page> {
        let core = &self.0.core;
        let key = core.key(file, offset)?;
        let pinned = core.obtain(file, key, source)?;
        let place = core.held(pinned);
        let writable = file.mode().write;
        Ok(Page::new(self.1, place, key.page << core.shift, writable))
    }

    /// Pins the page that holds `offset`, which the caller will overwrite whole: nothing is read,
    /// and the page is dirty and as long as a page from the start. What it holds until then is
    /// undefined, also for others.
    ///
    /// # Errors
    /// As `get`, and `ReadOnly`.
    pub fn get_new(&self, file: &File, offset: u64) -> Result<Page> {
        let core = &self.0.core;
        core.files.tell(file)?;
        check_offset(offset)?;
        check_writable(file)?;
        let key = core.key(file, offset)?;
        let pinned = core.obtain(file, key, Source::Caller)?;
        if !pinned.fresh {
            core.change(pinned.slot, core.config.page_size);
        }
        let place = core.held(pinned);
        Ok(Page::new(self.1, place, key.page << core.shift, true))
    }

    /// Starts to read the absent pages of a range, up to the end of the file, and does not wait.
    /// Answers how many pages were started: fewer where the cache has no clean unpinned pages to
    /// make room with, and at most half of its pages in one call.
    ///
    /// An error of these reads is told by the next call for this file.
    ///
    /// # Errors
    /// `OutOfRange`, `Io`, what went wrong earlier for this file.
    pub fn prefetch(&self, file: &File, offset: u64, size: u64) -> Result<u64> {
        let core = &self.0.core;
        core.files.tell(file)?;
        let pages = self.pages_in_file(file, offset, size)?;
        let mut ahead = Ahead::new(core, file, false, core.frame_count().div_ceil(2));
        ahead.start(pages)?;
        Ok(ahead.started)
    }

    /// As `prefetch`, for one who is told when it is over: `token` is dropped, by any thread and
    /// with no lock of the cache held, when the last page that was started is there or has
    /// failed; at once when there is none. Errors of earlier reads are left for the next call
    /// that waits for pages of this file.
    ///
    /// # Errors
    /// `OutOfRange`, `Io`.
    pub fn prefetch_with(
        &self,
        file: &File,
        offset: u64,
        size: u64,
        token: impl Send + Sync + 'static,
    ) -> Result<u64> {
        let core = &self.0.core;
        let pages = self.pages_in_file(file, offset, size)?;
        let mut ahead = Ahead::new(core, file, false, core.frame_count().div_ceil(2));
        ahead.token = Some(Arc::new(token));
        ahead.start(pages)?;
        Ok(ahead.started)
    }

    /// Where the page is that holds `offset`, without any effect on it. May be out of date as
    /// soon as it is told.
    #[must_use]
    pub fn presence(&self, file: &File, offset: u64) -> Presence {
        let core = &self.0.core;
        let Some(key) = core.stretches.known(file, offset >> core.shift) else {
            return Presence::Absent;
        };
        match core.table.find(key.name) {
            Some(slot) if core.table.slot(slot).word.state().has(VALID) => Presence::Resident,
            Some(_) => Presence::Reading,
            None if core.host.as_ref().is_some_and(|h| h.contains(key)) => Presence::Resident,
            None => Presence::Absent,
        }
    }

    /// Pages that the device tier has room for.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.0.core.frame_count()
    }

    /// Reads the absent pages of these ranges (offset and size, bytes) and waits for them. Stops
    /// before a page would have to go that it has just read. Answers how many pages were read.
    ///
    /// # Errors
    /// As `get`. Pages that were read stay.
    pub fn warm(&self, file: &File, ranges: &[(u64, u64)]) -> Result<u64> {
        let core = &self.0.core;
        core.files.tell(file)?;
        let mut ahead = Ahead::new(core, file, true, core.frame_count());
        for (offset, size) in ranges {
            let mut pages = self.pages_in_file(file, *offset, *size)?;
            while !pages.is_empty() && !ahead.is_full() {
                let end = pages.end.min(pages.start + WARM_UNDER_WAY as u64);
                ahead.start(pages.start..end)?;
                pages.start = end;
                ahead.wait(WARM_UNDER_WAY)?;
            }
        }
        ahead.wait(0)?;
        Ok(ahead.started)
    }

    /// What of a file is in the device tier now: ranges (offset and size, bytes) in ascending
    /// order, adjacent pages joined. Save it to `warm` a later cache.
    #[must_use]
    pub fn hot_ranges(&self, file: &File) -> Vec<(u64, u64)> {
        let core = &self.0.core;
        let size = core.page_size();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for key in core.pages_of(file.identity(), &(0..u64::MAX)) {
            let start = key.page << core.shift;
            match ranges.last_mut() {
                Some(last) if last.0 + last.1 == start => last.1 += size,
                _ => ranges.push((start, size)),
            }
        }
        ranges
    }

    /// Writes the changed pages of a file, or of all, and waits. Each file's pages go in ascending
    /// order: some side by side, the next ones after these. Answers the bytes written. Not durable
    /// before `File::sync`.
    ///
    /// A page that is held may be changing: it is written as it is, and again later.
    ///
    /// # Errors
    /// The first error; the data is kept and will be written again. Further pages of that file
    /// were not written; errors of other files are told by the next calls for those.
    pub fn flush(&self, file: Option<&File>) -> Result<u64> {
        let core = &self.0.core;
        if let Some(file) = file {
            core.files.tell(file)?;
        }
        self.write(core.dirty_pages(file.map(File::identity)))
    }

    fn write(&self, keys: Vec<Key>) -> Result<u64> {
        let core = &self.0.core;
        let written = core.write_pages(keys, true);
        let mut errors = written.errors.into_iter();
        let first = errors.next();
        for (file, error) in errors {
            core.files.set_error(&file, error);
        }
        first.map_or(Ok(written.bytes), |(_, error)| Err(error))
    }

    /// Drops the pages of a range from both tiers, so that the next `get` reads the file again.
    /// Changed pages are written first. Answers how many pages went.
    ///
    /// # Errors
    /// `AllPinned` when pages are held: all others went. What writing says: nothing went then.
    pub fn invalidate(&self, file: &File, offset: u64, size: u64) -> Result<u64> {
        let core = &self.0.core;
        core.files.tell(file)?;
        let pages = self.pages(offset, size);
        let number = file.identity();
        let within = |key: &Key| pages.contains(&key.page);
        let dirty = core.dirty_pages(Some(number));
        self.write(dirty.into_iter().filter(within).collect())?;
        let mut went = 0;
        let mut held = 0_u64;
        for key in core.pages_of(number, &pages) {
            match core.drop_page(key) {
                Some(true) => went += 1,
                Some(false) => held += 1,
                None => {}
            }
        }
        if let Some(host) = &core.host {
            went += host.forget_range(number, &pages);
        }
        if held > 0 {
            let text = format!(
                "{held} pages of {} are held and stay in the cache, {went} others went; release \
                 them and invalidate again",
                file.path().display()
            );
            return Err(Error::new(ErrorKind::AllPinned, text).with_path(file.path()));
        }
        Ok(went)
    }

    /// Its counters. Looks at every page once: not for hot paths.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.0.core.stats()
    }

    /// Releases a page that `Page::into_token` let go of.
    ///
    /// # Errors
    /// `InvalidArgument` when no page of that token is held, as far as can be told: another holder
    /// of the same page hides a second release.
    pub fn release_token(&self, token: u64) -> Result<()> {
        if !self.try_release(token) {
            return Err(page::not_held());
        }
        Ok(())
    }

    /// As `release_token`, for calls of nanoseconds: says whether the page was held.
    #[inline]
    pub(crate) fn try_release(&self, token: u64) -> bool {
        self.1.release_token(token)
    }

    /// As `Page::mark_dirty`, for a page that `Page::into_token` let go of.
    ///
    /// # Errors
    /// As `release_token`, and `ReadOnly`.
    pub fn mark_token(&self, token: u64) -> Result<()> {
        self.0.core.mark_token(token)
    }

    /// Pages that a range touches.
    fn pages(&self, offset: u64, size: u64) -> Range<u64> {
        let core = &self.0.core;
        let end = offset.saturating_add(size);
        let last = end.div_ceil(core.page_size());
        (offset >> core.shift)..if size == 0 {
            offset >> core.shift
        } else {
            last
        }
    }

    /// As `pages`, up to the end of the file.
    fn pages_in_file(&self, file: &File, offset: u64, size: u64) -> Result<Range<u64>> {
        check_offset(offset)?;
        let left = file.size()?.saturating_sub(offset);
        Ok(self.pages(offset, size.min(left)))
    }
}

pub(super) fn check_offset(offset: u64) -> Result<()> {
    // The whole last page can be addressed too.
    let most = limits::TRANSFER_SIZE_MAX - u64::from(limits::CACHE_PAGE_SIZE_MAX);
    if offset > most {
        let text = format!("offset {offset} is past {most}, the largest of a page");
        return Err(Error::new(ErrorKind::OutOfRange, text).with_offset(offset));
    }
    Ok(())
}

pub(super) fn check_writable(file: &File) -> Result<()> {
    if file.mode().write {
        return Ok(());
    }
    let text = format!(
        "{} is not open for writing; open it for reading and writing",
        file.path().display()
    );
    Err(Error::new(ErrorKind::ReadOnly, text).with_path(file.path()))
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.flushes.stop();
        self.core.arrivals.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        Core::retire(self.core.clone());
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({:?})", self.0.core)
    }
}
