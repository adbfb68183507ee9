//! The past: snapshots, which hold the store still for whoever reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shared;
use crate::error::{ErrorKind, Result};
use crate::kv::sync::Mutex;
use crate::kv::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use crate::kv::wal::Lsn;

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
    pub(super) shared: Arc<Shared>,
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
        self.version_of(key).map(|(_, len)| len)
    }

    /// The number of the version of `key` at that moment, and the bytes of its value.
    pub(crate) fn version_of(&self, key: &[u8]) -> Option<(Lsn, u64)> {
        self.shared.version_at(key, self.lsn)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.shared.snapshots.release(self.lsn);
        self.shared.prune();
    }
}
