//! The superblock in use, and whether the store may still be written.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::Disk;
use crate::kv::superblock::Superblock;
use crate::kv::sync::Mutex;
use crate::kv::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use crate::kv::wal::WalStart;

/// Most segments that the file grows by at once.
const GROW_MAX: u64 = 16;

#[derive(Debug)]
pub(crate) struct Root {
    disk: Arc<dyn Disk>,
    superblock: Mutex<Superblock>,
    broken: AtomicBool,
    reason: Mutex<Option<Error>>,
}

impl Root {
    pub fn new(disk: Arc<dyn Disk>, superblock: Superblock) -> Self {
        Self {
            disk,
            superblock: Mutex::new(superblock),
            broken: AtomicBool::new(false),
            reason: Mutex::new(None),
        }
    }

    /// Starts the next epoch; durable on return.
    pub fn begin_epoch(&self, next: &WalStart) -> Result<WalStart> {
        self.superblock.lock().begin_epoch(&*self.disk, next)
    }

    /// Makes `wal` (without one: what it was), and what `change` sets, the state that the next
    /// opening starts from; durable on return.
    /// After an error the store is poisoned.
    pub fn write(
        &self,
        wal: Option<&WalStart>,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<()> {
        let mut superblock = self.superblock.lock();
        self.check()?;
        if let Some(wal) = wal {
            superblock.wal = *wal;
        }
        change(&mut superblock);
        let written = superblock.write(&*self.disk);
        written.inspect_err(|e| self.fail(e))
    }

    /// Makes the file larger by one segment or, for a large store, by more. Answers the segments
    /// that there are now.
    pub fn grow(&self, segments: u64) -> Result<u64> {
        let mut superblock = self.superblock.lock();
        self.check()?;
        let more = (segments / 8).clamp(1, GROW_MAX);
        let size = superblock.geometry.segment_offset(segments + more);
        let grown = superblock.grow(&*self.disk, size);
        if let Err(error) = grown {
            // A size that was refused changed nothing. Anything else leaves doubt: a flush that
            // fails for lack of space has failed too.
            if error.kind() != ErrorKind::NoSpace || self.disk.size() >= size {
                self.fail(&error);
            }
            return Err(error);
        }
        Ok(segments + more)
    }

    /// Refuses all writes from now on.
    pub fn fail(&self, error: &Error) {
        self.reason.lock().get_or_insert_with(|| error.clone());
        self.broken.store(true, Release);
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Acquire)
    }

    /// `Poisoned` after a failure.
    pub fn check(&self) -> Result<()> {
        if !self.is_broken() {
            return Ok(());
        }
        let reason = self.reason.lock();
        let why = reason.as_ref().map_or("a write failed", Error::message);
        let message = format!(
            "write to the store: it refuses since {why}; reads go on, open it again to recover"
        );
        Err(Error::new(ErrorKind::Poisoned, message))
    }
}
