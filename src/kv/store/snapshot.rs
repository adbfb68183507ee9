//! The past: snapshots, and scans over them.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use parking_lot::Mutex;

use super::Shared;
use super::key::Key;
use crate::error::{Error, ErrorKind, Result};
use crate::kv::wal::Lsn;

/// Keys that a scan takes at a time.
const BATCH: usize = 256;

/// The snapshots that are held.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    held: Mutex<BTreeMap<Lsn, u32>>,
    /// One more than the newest; 0 when there is none.
    newest: AtomicU64,
}

impl Snapshots {
    /// Whether a snapshot may ask for a version of this number. The caller holds the commit lock.
    #[inline]
    pub fn may_need(&self, lsn: Lsn) -> bool {
        lsn < self.newest.load(Acquire)
    }

    fn hold(&self, lsn: Lsn) {
        let mut held = self.held.lock();
        *held.entry(lsn).or_default() += 1;
        self.set_newest(&held);
    }

    fn release(&self, lsn: Lsn) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(&lsn) {
            *count -= 1;
            if *count == 0 {
                held.remove(&lsn);
            }
        }
        self.set_newest(&held);
    }

    fn set_newest(&self, held: &BTreeMap<Lsn, u32>) {
        let newest = held.last_key_value().map_or(0, |(lsn, _)| lsn + 1);
        self.newest.store(newest, Release);
    }

    /// The numbers of all that are held.
    pub fn all(&self) -> Vec<Lsn> {
        self.held.lock().keys().copied().collect()
    }
}

/// The store as it was at one moment. Costs memory for what is changed while it lives.
#[derive(Debug)]
pub struct Snapshot {
    shared: Arc<Shared>,
    lsn: Lsn,
}

impl Snapshot {
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self> {
        // Between commits, so that it sees whole ones. A poisoned log takes no commits, and none
        // is under way once it has said so.
        let append = match shared.wal.begin(0) {
            Ok(append) => Some(append),
            Err(error) if error.kind() == ErrorKind::Poisoned => None,
            Err(error) => return Err(error),
        };
        let lsn = shared.wal.appended_lsn();
        shared.snapshots.hold(lsn);
        drop(append);
        Ok(Self {
            shared: Arc::clone(shared),
            lsn,
        })
    }

    /// The last record that it sees.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The value of `key` at that moment.
    ///
    /// # Errors
    /// `Corrupted`, `Io`, `OutOfHostMemory`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.shared.get_at(key, self.lsn)
    }

    /// As [`super::Store::get_into`], at that moment.
    ///
    /// # Errors
    /// As `get`.
    pub fn get_into(&self, key: &[u8], offset: u64, into: &mut [u8]) -> Result<Option<usize>> {
        self.shared.get_into_at(key, self.lsn, offset, into)
    }

    /// Length of the value of `key` at that moment, bytes.
    #[must_use]
    pub fn len_of(&self, key: &[u8]) -> Option<u64> {
        self.shared.len_at(key, self.lsn)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.shared.snapshots.release(self.lsn);
        self.shared.prune();
    }
}

/// Keys in order, with their values as of one moment.
#[derive(Debug)]
pub struct Scan {
    snapshot: Arc<Snapshot>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    left: u64,
    batch: VecDeque<Key>,
    ended: bool,
}

/// One key of a scan; its value is read when it is asked for.
#[derive(Debug, Clone)]
pub struct Item {
    snapshot: Arc<Snapshot>,
    /// The key.
    pub key: Vec<u8>,
    /// Length of the value, bytes.
    pub len: u64,
}

impl Item {
    /// The value, as the scan saw it.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn value(&self) -> Result<Vec<u8>> {
        self.snapshot.get(&self.key)?.ok_or_else(|| {
            let message = "a version that a scan holds is gone";
            Error::new(ErrorKind::Internal, message)
        })
    }

    /// Bytes of the value from `offset` on; how many there were.
    ///
    /// # Errors
    /// As `value`.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let read = self.snapshot.get_into(&self.key, offset, into)?;
        Ok(read.unwrap_or(0))
    }
}

fn owned(bound: Bound<&Vec<u8>>) -> Bound<Vec<u8>> {
    bound.cloned()
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl Scan {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        range: &impl RangeBounds<Vec<u8>>,
        limit: u64,
    ) -> Result<Self> {
        if !snapshot.shared.index.is_ordered() {
            let message = "scan a store: it was opened without ordered keys; set ordered";
            return Err(Error::new(ErrorKind::NotSupported, message));
        }
        Ok(Self {
            snapshot,
            from: owned(range.start_bound()),
            to: owned(range.end_bound()),
            left: limit,
            batch: VecDeque::new(),
            ended: false,
        })
    }
}

impl Iterator for Scan {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if self.left == 0 {
                return None;
            }
            if self.batch.is_empty() {
                if self.ended {
                    return None;
                }
                let index = &self.snapshot.shared.index;
                let keys = index.keys_between(borrowed(&self.from), borrowed(&self.to), BATCH);
                self.ended = keys.len() < BATCH;
                if let Some(last) = keys.last() {
                    self.from = Bound::Excluded(last.bytes().to_vec());
                }
                self.batch = keys.into();
                continue;
            }
            let key = self.batch.pop_front()?;
            if let Some(len) = self.snapshot.len_of(key.bytes()) {
                self.left -= 1;
                return Some(Item {
                    snapshot: Arc::clone(&self.snapshot),
                    key: key.bytes().to_vec(),
                    len,
                });
            }
        }
    }
}
