//! The store as its users hold it.

use std::ops::{Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::commit::Batch;
use super::config::KvConfig;
use super::put_writer::PutWriter;
use super::read::Located;
use super::repair::RepairReport;
use super::scan::Scan;
use super::snapshot::Snapshot;
use super::stats::KvStats;
use super::verify::VerifyReport;
use super::{Shared, open, repair, worker};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::Disk;
use crate::kv::sync::Mutex;
use crate::kv::sync::thread::{self, JoinHandle};
use crate::kv::wal::Lsn;

/// A store. Clones are the same store; any thread may use them. The last one that drops ends the
/// threads after everything that was committed is written; `close` before that makes the next
/// opening fast. Snapshots, scans and located values live on by themselves.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.signal.stop();
        let thread = self.thread.get_mut().take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Store {
    fn start(shared: Arc<Shared>) -> Result<Self> {
        let thread = worker::start(&shared)?;
        if shared.wal.used_bytes() > shared.config.wal_bytes / 2 {
            shared.signal.want_checkpoint();
        }
        let inner = Inner {
            shared,
            thread: Mutex::new(Some(thread)),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    #[inline]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Makes an empty store on `disk`, whatever was there before.
    ///
    /// # Errors
    /// `InvalidConfig`, `NoSpace`, `Io`.
    pub fn create_on(disk: Arc<dyn Disk>, config: KvConfig) -> Result<Self> {
        open::create(&disk, &config)?;
        Self::open_on(disk, config)
    }

    /// As `create_on`, with an identity of the caller's choice: two stores of one identity must
    /// never share a disk.
    ///
    /// # Errors
    /// As `create_on`.
    pub fn create_as(disk: Arc<dyn Disk>, config: KvConfig, uuid: [u8; 16]) -> Result<Self> {
        open::create_as(&disk, &config, uuid)?;
        Self::open_on(disk, config)
    }

    /// Makes a store that cannot be opened, or has damaged values, usable again: the index is
    /// rebuilt from what can be found, values that are not what was written are dropped and
    /// listed. A store that is well is left alone. Make a copy first.
    ///
    /// # Errors
    /// `UnsupportedFile` where there is no superblock at all; `NoSpace`, `Io`.
    pub fn repair_on(disk: &Arc<dyn Disk>, config: &KvConfig) -> Result<RepairReport> {
        repair::repair(disk, config)
    }

    /// As `repair_on`, for the file or block device at `path`.
    ///
    /// # Errors
    /// As `repair_on` and `open`.
    pub fn repair(path: &Path) -> Result<RepairReport> {
        let config = KvConfig {
            create: false,
            ..KvConfig::default()
        };
        let (disk, _) = open::file(path, &config)?;
        repair::repair(&disk, &config)
    }

    /// Opens the store on `disk` and recovers what was committed.
    ///
    /// # Errors
    /// `UnsupportedFile` where there is none; `NotSupported` for a newer format; `Corrupted` with
    /// the offset where durable bytes are not what was written; `Io`.
    pub fn open_on(disk: Arc<dyn Disk>, config: KvConfig) -> Result<Self> {
        Self::start(open::open(disk, config)?)
    }

    /// Opens, or with `config.create` makes, the store at `path`: a file or a block device. It is
    /// locked against other openings while it is open.
    ///
    /// # Errors
    /// As `open_on`; `NotFound`, `PermissionDenied`.
    pub fn open(path: &Path, config: KvConfig) -> Result<Self> {
        let (disk, may_create) = open::file(path, &config)?;
        if may_create {
            Self::open_or_create_on(disk, config)
        } else {
            Self::open_on(disk, config)
        }
    }

    /// Opens the store on `disk`, or makes one where there is none, or where a crash came while
    /// one was made.
    ///
    /// # Errors
    /// As `create_on` and `open_on`.
    pub fn open_or_create_on(disk: Arc<dyn Disk>, config: KvConfig) -> Result<Self> {
        if open::is_fresh(&*disk)? {
            Self::create_on(disk, config)
        } else {
            Self::open_on(disk, config)
        }
    }

    /// Removes the store at `path`; a block device only loses its superblocks.
    ///
    /// # Errors
    /// `UnsupportedFile` where there is no store; `Io`; what opening it answers.
    pub fn destroy(path: &Path) -> Result<()> {
        open::destroy(path)
    }

    /// Puts a value; durable when this returns.
    ///
    /// # Errors
    /// `InvalidArgument` for a key of no bytes or too many; `NoSpace`, `TimedOut`, `Poisoned`.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let shared = self.shared();
        shared.counters.put.time(|| {
            let lsn = shared.put(key, value)?;
            shared.wal.wait(lsn, None)?;
            Ok(lsn)
        })
    }

    /// Puts a value: visible when this returns, durable when `wait` of the result does.
    ///
    /// # Errors
    /// As `put`.
    pub fn put_async(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let shared = self.shared();
        let counters = &shared.counters;
        counters.put_async.sample(|| shared.put(key, value))
    }

    /// Deletes a key; whether it was there. Durable when this returns.
    ///
    /// # Errors
    /// `InvalidArgument`, `TimedOut`, `Poisoned`.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        let (there, lsn) = self.delete_async(key)?;
        self.shared().wal.wait(lsn, None)?;
        Ok(there)
    }

    /// Deletes a key: whether it was there, and what to wait for.
    ///
    /// # Errors
    /// As `delete`.
    pub fn delete_async(&self, key: &[u8]) -> Result<(bool, Lsn)> {
        self.shared().delete(key)
    }

    /// Writes all of a batch or nothing; durable when this returns.
    ///
    /// # Errors
    /// As `put`; `OutOfRange` for more than one commit can have.
    pub fn write(&self, batch: &Batch) -> Result<Lsn> {
        let lsn = self.write_async(batch)?;
        self.shared().wal.wait(lsn, None)?;
        Ok(lsn)
    }

    /// Writes all of a batch or nothing: visible when this returns, durable when `wait` of the
    /// result does.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_async(&self, batch: &Batch) -> Result<Lsn> {
        self.shared().write(batch)
    }

    /// The last record that is durable.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.shared().wal.durable_lsn()
    }

    /// The last record that was appended.
    #[must_use]
    pub fn appended_lsn(&self) -> Lsn {
        self.shared().wal.appended_lsn()
    }

    /// Sleeps until record `lsn` is durable, or the deadline.
    ///
    /// # Errors
    /// `TimedOut`; `Poisoned` when it never will be.
    pub fn wait(&self, lsn: Lsn, deadline: Option<Instant>) -> Result<()> {
        self.shared().wal.wait(lsn, deadline)
    }

    /// Calls back once when record `lsn` is durable, or never will be. On the log's thread, or at
    /// once on this one; it must be short and must not wait for the store.
    pub fn on_durable(&self, lsn: Lsn, call: Box<dyn FnOnce(Result<Lsn>) + Send>) {
        self.shared().wal.on_durable(lsn, call);
    }

    /// The value of `key`, verified.
    ///
    /// # Errors
    /// `Corrupted` when the disk does not hold what was written; `Io`; `OutOfHostMemory`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let shared = self.shared();
        shared.counters.get.sample(|| shared.get_at(key, Lsn::MAX))
    }

    /// Bytes of the value of `key` from `offset` on, verified; how many there were, `None` where
    /// there is no such key.
    ///
    /// # Errors
    /// As `get`. `into` holds anything then.
    pub fn get_into(&self, key: &[u8], offset: u64, into: &mut [u8]) -> Result<Option<usize>> {
        let shared = self.shared();
        let counters = &shared.counters;
        counters
            .get
            .sample(|| shared.get_into_at(key, Lsn::MAX, offset, into))
    }

    /// Length of the value of `key`, bytes. Memory only.
    #[must_use]
    pub fn len_of(&self, key: &[u8]) -> Option<u64> {
        self.version_of(key).map(|(_, len)| len)
    }

    /// The number of the newest version of `key`, which every change of its value raises, and the
    /// length of that value, bytes. Memory only.
    #[must_use]
    pub fn version_of(&self, key: &[u8]) -> Option<(Lsn, u64)> {
        self.shared().version_at(key, Lsn::MAX)
    }

    /// Counts reads of located values, which went past this store's disk.
    pub(crate) fn count_reads(&self, operations: u64, bytes: u64) {
        self.shared().disk.add_reads(operations, bytes);
    }

    /// Where the store is, if it is in a file or on a block device.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.shared().disk.path()
    }

    /// Whether `key` has a value. Memory only.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.len_of(key).is_some()
    }

    /// Where bytes `range` of the value lie, with their checksums, for a read that brings them
    /// somewhere by itself. They are not written over while the result lives.
    ///
    /// # Errors
    /// As `get`.
    pub fn locate(&self, key: &[u8], range: Range<u64>) -> Result<Option<Located>> {
        self.shared().locate_at(key, Lsn::MAX, range)
    }

    /// Puts a value piece by piece. `size_hint` is a guess of its length, 0 for none.
    ///
    /// # Errors
    /// `InvalidArgument` for a key of no bytes or too many; `Poisoned`.
    pub fn put_writer(&self, key: &[u8], size_hint: u64) -> Result<PutWriter> {
        PutWriter::new(self.shared(), key, size_hint)
    }

    /// Up to `limit` keys of `range` in order, as of now. For their values too, `next_entry` of
    /// the result is faster than its items.
    ///
    /// # Errors
    /// `NotSupported` when the store was opened without ordered keys.
    pub fn scan(&self, range: impl RangeBounds<Vec<u8>>, limit: u64) -> Result<Scan> {
        Scan::new(Arc::new(self.snapshot()?), &range, limit)
    }

    /// As `scan`, as of the snapshot.
    ///
    /// # Errors
    /// As `scan`.
    pub fn scan_at(
        snapshot: &Arc<Snapshot>,
        range: impl RangeBounds<Vec<u8>>,
        limit: u64,
    ) -> Result<Scan> {
        Scan::new(Arc::clone(snapshot), &range, limit)
    }

    /// The store as it is now.
    ///
    /// # Errors
    /// `TimedOut` when the log is stuck.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::new(self.shared())
    }

    /// Waits until everything that was committed is durable.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn sync(&self) -> Result<()> {
        let wal = &self.shared().wal;
        wal.wait(wal.appended_lsn(), None)
    }

    /// Makes the index durable and empties the log, so that the next opening has little to do.
    ///
    /// # Errors
    /// `NoSpace`, `Poisoned`, `Io`.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared().checkpoint()
    }

    /// Moves what is alive together and gives free space back to the file system; how many
    /// segments became free.
    ///
    /// # Errors
    /// As `checkpoint`.
    pub fn compact(&self) -> Result<u64> {
        self.shared().compact()
    }

    /// Reads and verifies everything, and compares the index with the space map.
    ///
    /// # Errors
    /// `OutOfHostMemory`; what is wrong with the store is in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.shared().verify()
    }

    /// Counters, sizes and latencies.
    #[must_use]
    pub fn stats(&self) -> KvStats {
        self.shared().stats()
    }

    /// Keys that have a value.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.shared().index.keys()
    }

    /// The store's identity.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.shared().uuid
    }

    /// How it was opened, with the geometry that it was made with.
    #[must_use]
    pub fn config(&self) -> &KvConfig {
        &self.shared().config
    }

    /// Longest key that it takes, bytes.
    #[must_use]
    pub fn key_max(&self) -> usize {
        self.shared().key_max
    }

    /// Makes a checkpoint and closes the store; all clones refuse writes from then on.
    ///
    /// # Errors
    /// As `checkpoint`; what was committed is safe even then.
    pub fn close(self) -> Result<()> {
        self.sync()?;
        let result = self.checkpoint();
        let message = "the store was closed";
        self.shared()
            .root
            .fail(&Error::new(ErrorKind::Poisoned, message));
        result
    }
}
