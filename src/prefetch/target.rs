//! What a prefetcher reads into: pages of one file, in a cache or in anything that behaves like
//! one.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

pub use crate::cache::Presence;

use crate::cache::{Cache, Page};
use crate::engine::File;
use crate::error::Result;

/// Pages of one file that can be read ahead: a cache, or anything that behaves like one.
pub trait Target: Send + Sync + 'static {
    /// Bytes of a page, a power of two.
    fn page_size(&self) -> u64;

    /// Pages that fit in memory.
    fn capacity(&self) -> u64;

    /// Bytes of the file now.
    ///
    /// # Errors
    /// What the operating system says.
    fn file_size(&self) -> Result<u64>;

    /// Where the page is that holds `offset`. Takes no lock that is held while a `Done` is
    /// dropped, waits for nothing and counts as no use.
    fn presence(&self, offset: u64) -> Presence;

    /// Starts reading the absent pages of a range, and says how many were started. Never waits
    /// for storage. `done` is dropped, by any thread, when the last of them is resident or has
    /// failed; at once when there are none.
    ///
    /// # Errors
    /// Why nothing was started, or an earlier failure that has not been told.
    fn start(&self, offset: u64, size: u64, done: Done) -> Result<u64>;
}

/// What the thread of a prefetcher waits for. Apart from the prefetcher itself, so that a read
/// that ends late keeps nothing alive.
#[derive(Debug, Default)]
pub(super) struct Signals {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

/// What has come since the thread looked.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Reads that are over.
    pub(super) finished: Vec<u64>,
    /// Something is in the queue, or may leave it.
    pub(super) work: bool,
    pub(super) closing: bool,
}

impl Signals {
    pub(super) fn wake(&self) {
        self.inbox.lock().work = true;
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.inbox.lock().closing = true;
        self.changed.notify_one();
    }

    /// Sleeps until something comes, or until a time.
    pub(super) fn wait(&self, until: Option<std::time::Instant>) -> Inbox {
        let mut inbox = self.inbox.lock();
        while inbox.finished.is_empty() && !inbox.work && !inbox.closing {
            match until {
                None => self.changed.wait(&mut inbox),
                Some(until) => {
                    if self.changed.wait_until(&mut inbox, until).timed_out() {
                        break;
                    }
                }
            }
        }
        std::mem::take(&mut inbox)
    }
}

/// Says by being dropped that a read is over.
#[derive(Debug)]
pub struct Done {
    signals: Arc<Signals>,
    number: u64,
}

impl Done {
    pub(super) fn new(signals: &Arc<Signals>, number: u64) -> Self {
        Self {
            signals: signals.clone(),
            number,
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.signals.inbox.lock().finished.push(self.number);
        self.signals.changed.notify_one();
    }
}

/// One file in a page cache.
#[derive(Debug, Clone)]
pub struct CachedFile {
    cache: Cache,
    file: File,
}

impl CachedFile {
    /// `file` in `cache`.
    #[must_use]
    pub fn new(cache: &Cache, file: &File) -> Self {
        Self {
            cache: cache.clone(),
            file: file.clone(),
        }
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// As `Cache::get` of the file.
    ///
    /// # Errors
    /// As `Cache::get`.
    pub fn get(&self, offset: u64) -> Result<Page> {
        self.cache.get(&self.file, offset)
    }
}

impl Target for CachedFile {
    fn page_size(&self) -> u64 {
        self.cache.config().page_size.into()
    }

    fn capacity(&self) -> u64 {
        self.cache.frames()
    }

    fn file_size(&self) -> Result<u64> {
        self.file.size()
    }

    fn presence(&self, offset: u64) -> Presence {
        self.cache.presence(&self.file, offset)
    }

    fn start(&self, offset: u64, size: u64, done: Done) -> Result<u64> {
        self.cache.prefetch_with(&self.file, offset, size, done)
    }
}
