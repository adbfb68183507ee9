//! Files that the cache knows: those with pages in it, and those with an error to tell.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use parking_lot::Mutex;

use super::key::Key;
use crate::engine::File;
use crate::error::{Error, Result};

/// One file, by whatever name and how often it is open.
pub(super) struct FileState {
    number: u64,
    /// The file that pages are written to; one that can be written to where one was ever seen.
    file: Mutex<File>,
    writable: AtomicBool,
    /// Pages in the device tier, and those on their way. Changes under the lock of `Files`.
    resident: AtomicU64,
    /// Where the file ends once its changed pages are written, where that is farther than now.
    end: AtomicU64,
    /// What went wrong and was told to nobody yet.
    error: Mutex<Option<Error>>,
    /// Pages in order of arrival; kept only where files have a limit.
    pub(super) arrivals: Mutex<VecDeque<Key>>,
}

impl FileState {
    /// Its `File::identity`.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A file to write pages to.
    pub(super) fn file(&self) -> File {
        self.file.lock().clone()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable.load(Acquire)
    }

    /// A changed page ends here.
    pub(super) fn extend(&self, end: u64) {
        self.end.fetch_max(end, AcqRel);
    }

    /// Bytes up to `end` are in the file now.
    pub(super) fn written(&self, end: u64) {
        let _ = self.end.fetch_update(AcqRel, Acquire, |known| {
            (known != 0 && known <= end).then_some(0)
        });
    }

    fn adopt(&self, file: &File) {
        if file.mode().write && !self.is_writable() {
            *self.file.lock() = file.clone();
            self.writable.store(true, Release);
        }
    }
}

impl fmt::Debug for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FileState({}, {} pages)",
            self.number,
            self.resident.load(Relaxed)
        )
    }
}

/// All files of a cache.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: Mutex<HashMap<u64, Arc<FileState>>>,
    /// Files with an error to tell.
    troubled: AtomicUsize,
}

impl Files {
    /// Counts a page that comes in. `None` when the file already has `limit` pages.
    pub(super) fn enter(&self, file: &File, limit: u64) -> Option<Arc<FileState>> {
        let mut known = self.known.lock();
        let state = Self::state_of(&mut known, file);
        if limit > 0 && state.resident.load(Relaxed) >= limit {
            return None;
        }
        state.resident.fetch_add(1, Relaxed);
        Some(state)
    }

    /// Takes note of an open of a file that has pages.
    pub(super) fn adopt(&self, file: &File) {
        Self::state_of(&mut self.known.lock(), file);
    }

    fn state_of(known: &mut HashMap<u64, Arc<FileState>>, file: &File) -> Arc<FileState> {
        let state = known.entry(file.identity()).or_insert_with(|| {
            Arc::new(FileState {
                number: file.identity(),
                file: Mutex::new(file.clone()),
                writable: AtomicBool::new(file.mode().write),
                resident: AtomicU64::new(0),
                end: AtomicU64::new(0),
                error: Mutex::default(),
                arrivals: Mutex::default(),
            })
        });
        state.adopt(file);
        state.clone()
    }

    /// Counts a page that went. The file is let go with its last page.
    pub(super) fn leave(&self, state: &FileState) {
        let mut known = self.known.lock();
        let left = state.resident.fetch_sub(1, Relaxed) - 1;
        if left == 0 && state.error.lock().is_none() {
            known.remove(&state.number);
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<FileState>> {
        self.known.lock().get(&number).cloned()
    }

    /// Keeps an error for the next call for this file; the first one stays.
    pub(super) fn set_error(&self, state: &Arc<FileState>, error: Error) {
        let mut known = self.known.lock();
        known.entry(state.number).or_insert_with(|| state.clone());
        let mut place = state.error.lock();
        if place.is_none() {
            *place = Some(error);
            self.troubled.fetch_add(1, Release);
        }
    }

    /// Whether any file has an error to tell.
    #[inline(always)]
    pub(super) fn any_error(&self) -> bool {
        self.troubled.load(Relaxed) != 0
    }

    /// Tells the error of this file, once.
    ///
    /// # Errors
    /// What went wrong since the last call.
    pub(super) fn tell(&self, file: &File) -> Result<()> {
        if !self.any_error() {
            return Ok(());
        }
        let mut known = self.known.lock();
        let Some(state) = known.get(&file.identity()).cloned() else {
            return Ok(());
        };
        let Some(error) = state.error.lock().take() else {
            return Ok(());
        };
        self.troubled.fetch_sub(1, Release);
        if state.resident.load(Relaxed) == 0 {
            known.remove(&state.number);
        }
        Err(error)
    }

    /// Where a file ends, changed pages included, bytes.
    pub(super) fn end_of(&self, file: &File) -> Result<u64> {
        let changed = self.get(file.identity()).map_or(0, |s| s.end.load(Acquire));
        Ok(file.size()?.max(changed))
    }
}
