//! Mapped regions: ranges of files, each contiguous in device memory of its own.
//!
//! A region is found again by the identity of its file and its range. While a handle holds it, it
//! stays; after that it stays until room is needed and it was used least recently. What was marked
//! dirty is written before the memory is used for something else, and kept when it cannot be
//! written: the next call for that file says so.
//!
//! Ranges of one file may overlap. A range inside a mapped one is a view of the same memory. Where
//! two overlap otherwise, each has its own copy: mapping the second first writes what is dirty in
//! the first, and bytes that two held regions share cannot be marked dirty, so that neither copy
//! is ever behind the other nor written over it. A copy that nobody holds and that is made old by
//! a mark is not found again.
//!
//! A region never changes the size of its file. Bytes behind the end of the file are zero and
//! cannot be marked dirty; dirty bytes that are behind the end when they are written, because the
//! file was cut, stay dirty and answer `FileChanged` until the file is extended or they are
//! discarded.
//!
//! Locks: `Inner::index` is never held during I/O. A region's `writing` is, and is taken before
//! `index`.

mod dirty;
mod handle;
mod index;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

pub use handle::Region;

use dirty::Ranges;
use index::{Entry, Found, Index, Wanted, check_range, dirty_overlap, is_outdated, reserve};

use crate::engine::{Buffer, Context, Copy, File, MemoryKind};
use crate::error::{Error, ErrorKind, Result};

/// Zeros that are copied behind the end of a file at once, bytes.
const ZEROS_SIZE: u64 = 256 << 10;

/// How much device memory regions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegionConfig {
    /// Device memory of all regions, bytes. 0 picks `Config::total_gpu_memory` of the context:
    /// `buffer_size` times 2 (1 without double buffering) times `prefetch_slots`.
    pub limit_bytes: u64,
}

/// What regions have done, and what they hold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegionStats {
    /// Device memory that regions may take, bytes.
    pub limit_bytes: u64,
    /// Device memory that they take, bytes.
    pub mapped_bytes: u64,
    /// Device memory of regions that a handle holds, bytes.
    pub held_bytes: u64,
    /// Bytes that are marked dirty.
    pub dirty_bytes: u64,
    /// Regions in device memory.
    pub regions: u64,
    /// Regions that a handle holds.
    pub held_regions: u64,
    /// Mappings that were read from the file.
    pub loads: u64,
    /// Mappings that were found in device memory.
    pub hits: u64,
    /// Regions that made room for others.
    pub evictions: u64,
    /// Regions that were written before they made room.
    pub dirty_evictions: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Writes that failed; their bytes are still dirty.
    pub write_errors: u64,
}

/// Maps ranges of files to device memory. Cheap to clone, usable from many threads.
///
/// The memory lives until the last clone and the last region are gone. What is dirty then is
/// written, but nobody is told if that fails: `flush` before.
#[derive(Clone)]
pub struct Regions(Arc<Inner>);

struct Inner {
    context: Context,
    limit: u64,
    index: Mutex<Index>,
    /// A region was loaded, or could not be.
    loaded: Condvar,
    zeros: Mutex<Option<Buffer>>,
}

impl Regions {
    /// Opens an empty set of regions in a context.
    ///
    /// # Errors
    /// `InvalidConfig` for a limit below the context's alignment.
    pub fn open(context: &Context, config: RegionConfig) -> Result<Self> {
        let limit = match config.limit_bytes {
            0 => context.config().total_gpu_memory(),
            limit => limit,
        };
        if limit < context.config().alignment {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "limit_bytes is {limit}; it must be at least the alignment of the context, {}",
                    context.config().alignment
                ),
            ));
        }
        Ok(Self(Arc::new(Inner {
            context: context.clone(),
            limit,
            index: Mutex::default(),
            loaded: Condvar::new(),
            zeros: Mutex::default(),
        })))
    }

    /// Maps `size` bytes of the file at `offset` and holds them. A range that is in device memory
    /// is not read again; a partly overlapping range that is dirty is written first.
    ///
    /// # Errors
    /// `OutOfDeviceMemory` when it does not fit beside the regions that are held, with their
    /// bytes and the limit; `OutOfRange`, `InvalidArgument` for 0 bytes or a file of another
    /// context; what reading says; and a failed write of an earlier eviction, once.
    pub fn map(&self, file: &File, offset: u64, size: u64) -> Result<Region> {
        let range = check_range(offset, size)?;
        self.0.check_context(file)?;
        let wanted = Wanted::new(file, range, self.0.context.config().alignment)?;
        self.0.tell(wanted.identity)?;
        loop {
            let entry = match self.0.find_or_reserve(&wanted)? {
                Found::Resident(entry) => entry,
                Found::Reserved(entry) => {
                    self.0.load(&entry, &wanted)?;
                    entry
                }
                Found::Again => continue,
            };
            if let Some(region) = self.0.handle(entry, &wanted) {
                return Ok(region);
            }
        }
    }

    /// Writes what is dirty, of one file or of all, in the order of the offsets, and waits. Bytes
    /// written; not durable before `File::sync`.
    ///
    /// # Errors
    /// The first failure, after everything else was tried; its bytes stay dirty. `FileChanged`
    /// when the file has become shorter. Also a failed write of an earlier eviction, once.
    pub fn flush(&self, file: Option<&File>) -> Result<u64> {
        let told = match file {
            Some(file) => self.0.tell(file.identity()),
            None => self.0.tell_any(),
        };
        let mut written = 0;
        let mut failure = told.err();
        for entry in self.0.dirty_entries(file.map(File::identity)) {
            match self.0.flush_entry(&entry) {
                Ok(bytes) => written += bytes,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(written), Err)
    }

    /// Counters, and what is held now.
    #[must_use]
    pub fn stats(&self) -> RegionStats {
        let index = self.0.index.lock();
        let mut stats = index.stats;
        stats.limit_bytes = self.0.limit;
        for entry in &index.entries {
            let size = entry.memory_size();
            stats.regions += 1;
            stats.mapped_bytes += size;
            if let Some(state) = index.states.get(&entry.number) {
                stats.dirty_bytes += state.dirty.total();
                stats.held_regions += u64::from(state.holds > 0);
                stats.held_bytes += if state.holds > 0 { size } else { 0 };
            }
        }
        stats
    }

    /// The context that it belongs to.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.0.context
    }
}

impl fmt::Debug for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regions({:?})", self.stats())
    }
}

impl Inner {
    fn check_context(&self, file: &File) -> Result<()> {
        // A context keeps its configuration in one place for its whole life.
        if std::ptr::eq(file.context().config(), self.context.config()) {
            return Ok(());
        }
        let path = file.path();
        let text = format!(
            "map a region of {}: the file was opened in another context",
            path.display()
        );
        Err(Error::new(ErrorKind::InvalidArgument, text).with_path(path))
    }

    /// Tells a failure of an eviction.
    fn tell(&self, identity: u64) -> Result<()> {
        let failure = self.index.lock().failures.remove(&identity);
        failure.map_or(Ok(()), Err)
    }

    fn tell_any(&self) -> Result<()> {
        let mut index = self.index.lock();
        let identity = index.failures.keys().next().copied();
        let failure = identity.and_then(|i| index.failures.remove(&i));
        failure.map_or(Ok(()), Err)
    }

    fn find_or_reserve(&self, wanted: &Wanted<'_>) -> Result<Found> {
        // Asked for before the lock, since it is a system call.
        let size_now = wanted.file.size()?;
        let mut index = self.index.lock();
        if let Some(entry) = index.find(wanted) {
            if is_outdated(&mut index, &entry, size_now) {
                let old = index.remove(&entry);
                drop(index);
                drop(old);
                return Ok(Found::Again);
            }
            let tick = index.tick();
            index.stats.hits += 1;
            if let Some(state) = index.state(&entry) {
                state.holds += 1;
                state.used = tick;
            }
            return Ok(Found::Resident(entry));
        }
        if let Some(entry) = dirty_overlap(&index, wanted) {
            drop(index);
            self.flush_entry(&entry)?;
            return Ok(Found::Again);
        }
        self.make_room(index, wanted)
    }

    /// Evicts until the range fits, and reserves its place.
    fn make_room(&self, index: MutexGuard<'_, Index>, wanted: &Wanted<'_>) -> Result<Found> {
        let mut index = index;
        let need = wanted.aligned.end - wanted.aligned.start;
        let mut spared = Vec::new();
        while index.total().saturating_add(need) > self.limit {
            let victim = match need > self.limit {
                true => None,
                false => index.victim(&spared),
            };
            let Some(victim) = victim else {
                return Err(self.no_room(&index, wanted, &spared));
            };
            let is_dirty = index.state(&victim).is_some_and(|s| !s.dirty.is_empty());
            if !is_dirty {
                index.stats.evictions += 1;
                // Memory is given back outside the lock: the device may wait for its work.
                let state = index.remove(&victim);
                MutexGuard::unlocked(&mut index, || drop(state));
                continue;
            }
            let written = MutexGuard::unlocked(&mut index, || self.flush_entry(&victim));
            match written {
                Ok(_) => index.stats.dirty_evictions += 1,
                Err(error) => {
                    index.failures.entry(victim.identity).or_insert(error);
                    spared.push(victim.number);
                }
            }
            if index.find(wanted).is_some() || dirty_overlap(&index, wanted).is_some() {
                return Ok(Found::Again);
            }
        }
        Ok(Found::Reserved(reserve(&mut index, wanted)))
    }

    fn no_room(&self, index: &Index, wanted: &Wanted<'_>, spared: &[u64]) -> Error {
        let held = |e: &&Arc<Entry>| index.states.get(&e.number).is_some_and(|s| s.holds > 0);
        let held_bytes: u64 = index
            .entries
            .iter()
            .filter(held)
            .map(|e| e.memory_size())
            .sum();
        let unwritten = match spared.len() {
            0 => String::new(),
            n => format!(", and {n} regions cannot be written"),
        };
        let path = wanted.file.path();
        Error::new(
            ErrorKind::OutOfDeviceMemory,
            format!(
                "map {} bytes at {} of {}: it takes {} bytes of device memory, the limit of these \
                 regions is {}, and {} regions that are held take {held_bytes}{unwritten}; unmap \
                 some or raise limit_bytes",
                wanted.range.end - wanted.range.start,
                wanted.range.start,
                path.display(),
                wanted.aligned.end - wanted.aligned.start,
                self.limit,
                index.entries.iter().filter(held).count(),
            ),
        )
        .with_path(path)
        .with_offset(wanted.range.start)
    }

    /// Reads a reserved region; gives its place up if that fails.
    fn load(&self, entry: &Arc<Entry>, wanted: &Wanted<'_>) -> Result<()> {
        let loaded = self.read(wanted);
        let mut index = self.index.lock();
        let result = match loaded {
            Ok((buffer, bytes)) => {
                index.stats.loads += 1;
                index.stats.bytes_read += bytes;
                if let Some(state) = index.state(entry) {
                    let head = wanted.range.start - wanted.aligned.start;
                    let size = wanted.range.end - wanted.range.start;
                    state.valid = bytes.saturating_sub(head).min(size);
                    state.buffer = Some(buffer);
                }
                Ok(())
            }
            Err(error) => {
                index.remove(entry);
                Err(error)
            }
        };
        self.loaded.notify_all();
        result
    }

    /// The aligned range in memory of its own, zero behind the end of the file.
    fn read(&self, wanted: &Wanted<'_>) -> Result<(Buffer, u64)> {
        let size = wanted.aligned.end - wanted.aligned.start;
        let buffer = self.context.alloc(MemoryKind::Device, size)?;
        let start = wanted.aligned.start;
        let bytes = wanted.file.read(start, &buffer, 0, size)?.bytes;
        if bytes < size {
            self.zero(&buffer, bytes..size)?;
        }
        Ok((buffer, bytes))
    }

    fn zero(&self, buffer: &Buffer, range: Range<u64>) -> Result<()> {
        let mut zeros = self.zeros.lock();
        let zeros = match &mut *zeros {
            Some(zeros) => zeros.clone(),
            // Pinned memory comes zeroed.
            empty => empty
                .insert(self.context.alloc(MemoryKind::Pinned, ZEROS_SIZE)?)
                .clone(),
        };
        let copies: Vec<Copy> = (range.start..range.end)
            .step_by(ZEROS_SIZE as usize)
            .map(|at| Copy {
                from: zeros.clone(),
                from_offset: 0,
                to: buffer.clone(),
                to_offset: at,
                size: ZEROS_SIZE.min(range.end - at),
            })
            .collect();
        self.context.copy(&copies)
    }

    /// A handle of an entry that the caller has counted as held, once it is loaded. None when
    /// another thread was loading it and failed.
    fn handle(self: &Arc<Self>, entry: Arc<Entry>, wanted: &Wanted<'_>) -> Option<Region> {
        let mut index = self.index.lock();
        loop {
            let state = index.state(&entry)?;
            if let Some(buffer) = state.buffer.clone() {
                let head = wanted.range.start - entry.range.start;
                let size = wanted.range.end - wanted.range.start;
                let valid = state.valid.saturating_sub(head).min(size);
                drop(index);
                return Some(Region::new(self.clone(), entry, wanted, buffer, valid));
            }
            self.loaded.wait(&mut index);
        }
    }

    fn dirty_entries(&self, identity: Option<u64>) -> Vec<Arc<Entry>> {
        let index = self.index.lock();
        let is_dirty = |e: &&Arc<Entry>| {
            identity.is_none_or(|i| i == e.identity)
                && index
                    .states
                    .get(&e.number)
                    .is_some_and(|s| !s.dirty.is_empty())
        };
        let mut entries: Vec<_> = index.entries.iter().filter(is_dirty).cloned().collect();
        entries.sort_by_key(|e| (e.identity, e.range.start));
        entries
    }

    /// Writes the dirty bytes of one region. What cannot be written is dirty again.
    fn flush_entry(&self, entry: &Entry) -> Result<u64> {
        let _writing = entry.writing.lock();
        let (file, buffer, dirty) = {
            let mut index = self.index.lock();
            let Some(state) = index.state(entry) else {
                return Ok(0);
            };
            let Some(buffer) = state.buffer.clone() else {
                return Ok(0);
            };
            // Held meanwhile, so that no eviction takes it for clean.
            state.holds += 1;
            state.being_written = std::mem::take(&mut state.dirty);
            let dirty = state.being_written.clone();
            (state.file.clone(), buffer, dirty)
        };
        let mut left = Ranges::default();
        let mut written = 0;
        let mut failure = None;
        for range in dirty.iter() {
            let done = write_inside(&file, &buffer, entry.aligned.start, &range);
            written += done.written;
            left.add(range.start + done.written..range.end);
            failure = failure.or(done.failure);
        }
        let mut index = self.index.lock();
        index.stats.bytes_written += written;
        index.stats.write_errors += u64::from(failure.is_some());
        if let Some(state) = index.state(entry) {
            state.holds -= 1;
            state.being_written = Ranges::default();
            for range in left.iter() {
                state.dirty.add(range);
            }
        }
        failure.map_or(Ok(written), Err)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for entry in self.dirty_entries(None) {
            // Nobody is left to be told.
            let _ = self.flush_entry(&entry);
        }
    }
}

/// How far a write came.
struct Done {
    written: u64,
    failure: Option<Error>,
}

/// Writes a range of the file from the memory that begins at `start`, as far as the file goes.
fn write_inside(file: &File, buffer: &Buffer, start: u64, range: &Range<u64>) -> Done {
    let size = match file.size() {
        Ok(size) => size,
        Err(error) => return failed(error),
    };
    let end = range.end.min(size);
    let mut done = Done {
        written: 0,
        failure: None,
    };
    if range.start < end {
        let size = end - range.start;
        match file.write(range.start, buffer, range.start - start, size) {
            Ok(_) => done.written = size,
            Err(error) => return failed(error),
        }
    }
    if end < range.end {
        let path = file.path();
        let text = format!(
            "write a region's bytes {} to {} of {}: the file has become {size} bytes long; the \
             bytes behind that are kept: extend the file and flush again, or discard them",
            range.start,
            range.end,
            path.display()
        );
        let error = Error::new(ErrorKind::FileChanged, text);
        done.failure = Some(error.with_path(path).with_offset(end.max(range.start)));
    }
    done
}

fn failed(error: Error) -> Done {
    Done {
        written: 0,
        failure: Some(error),
    }
}
