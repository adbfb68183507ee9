//! The write-ahead log: a ring of blocks that were written before, batches with checksums, group
//! commit without a timer, and recovery.
//!
//! Committers append records under one lock; one thread takes all that is pending, seals it as a
//! batch and blocks in one durable write. What is acknowledged is a prefix of the order of
//! appends. Nobody spins: committers and the log thread sleep on condition variables. A failed
//! write or flush ends the log ("poisoned"): nothing is tried again. Byte layout:
//! `docs/format-kv.md`. Guarded by `tests/kv_wal.rs`, `tests/kv_wal_crash.rs`,
//! `tests/kv_wal_loom.rs`.

mod format;
mod log;
mod pending;
mod recover;
mod thread;
pub mod ticket;

use std::time::Duration;

use super::disk::{BLOCK, Disk};
use crate::error::{Error, ErrorKind, Result};

pub use self::log::{Append, Mark, Wal};
pub use recover::{Each, Recovered, recover};

/// Number of a record: from 1, one more each.
pub type Lsn = u64;

/// Where the log goes on, or where recovery starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalStart {
    /// The store's identity.
    pub uuid: [u8; 16],
    /// The run that writes; one more at each opening.
    pub epoch: u32,
    /// First batch of that run. All batches before it were recovered, so they must be there.
    pub epoch_first_batch: u64,
    /// Logical position, bytes: grows for ever; the place in the ring is the rest of dividing by
    /// the ring's size.
    pub position: u64,
    /// Number of the batch there.
    pub batch_no: u64,
    /// Checksum of the header of the batch before it; 0 for the first of a store.
    pub prev_crc: u32,
    /// Number of the first record there.
    pub next_lsn: Lsn,
}

/// Where the ring is and how much may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalConfig {
    /// Start of the ring on the disk, bytes.
    pub offset: u64,
    /// Size of the ring, bytes: whole blocks, 8 at least.
    pub size: u64,
    /// Largest batch with its header, bytes: whole blocks, a quarter of the ring at most.
    pub max_batch_bytes: usize,
    /// Bytes of records that may wait for the log thread: one batch at least.
    pub pending_bytes: usize,
    /// Longest that a committer waits for room.
    pub stall: Duration,
    /// After this long without work an empty batch is written, once, that says that the last one
    /// is durable.
    pub idle: Duration,
}

impl WalConfig {
    /// The defaults for a ring: batches to 1 MiB (a quarter of a small ring), 8 of them waiting,
    /// stalls of 30 s at most, 10 ms until it counts as idle.
    #[must_use]
    pub fn new(offset: u64, size: u64) -> Self {
        let block = BLOCK as u64;
        let batch = ((size / 4).min(1 << 20) / block * block).max(block) as usize;
        Self {
            offset,
            size,
            max_batch_bytes: batch,
            pending_bytes: 8 * batch,
            stall: Duration::from_secs(30),
            idle: Duration::from_millis(10),
        }
    }

    /// Checks the rules of the fields.
    ///
    /// # Errors
    /// `InvalidConfig` with the rule.
    pub fn validate(&self) -> Result<()> {
        let block = BLOCK as u64;
        let batch = self.max_batch_bytes as u64;
        let broken = if !self.offset.is_multiple_of(block) || !self.size.is_multiple_of(block) {
            format!("its offset and size must be multiples of {block}")
        } else if self.size < 8 * block {
            format!("its size must be {} at least", 8 * block)
        } else if !batch.is_multiple_of(block) || batch < block || batch > self.size / 4 {
            format!(
                "max_batch_bytes must be a multiple of {block} up to {}",
                self.size / 4
            )
        } else if batch > 1 << 30 {
            "max_batch_bytes must be 1 GiB at most".to_owned()
        } else if self.pending_bytes < self.max_batch_bytes {
            format!("pending_bytes must be {batch} at least, one batch")
        } else {
            return Ok(());
        };
        let message = format!(
            "use a log of {} bytes at {} with batches of {batch} and {} pending: {broken}",
            self.size, self.offset, self.pending_bytes
        );
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }

    /// Checks that a log on this disk can start there.
    fn check_start(&self, disk: &dyn Disk, start: &WalStart) -> Result<()> {
        self.validate()?;
        if self.offset + self.size > disk.size() {
            let message = format!(
                "use a log of {} bytes at {}: the disk ends at {}",
                self.size,
                self.offset,
                disk.size()
            );
            return Err(Error::new(ErrorKind::Corrupted, message).with_offset(disk.size()));
        }
        if !start.position.is_multiple_of(BLOCK as u64) || start.next_lsn == 0 {
            let message = format!(
                "use a log from position {} and record {}: no log can start there",
                start.position, start.next_lsn
            );
            return Err(Error::new(ErrorKind::Corrupted, message).with_offset(self.offset));
        }
        Ok(())
    }
}

/// What the log has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Records appended.
    pub records: u64,
    /// Commits.
    pub commits: u64,
    /// Bytes of records, with their headers.
    pub record_bytes: u64,
    /// Batches written, empty ones included.
    pub batches: u64,
    /// Empty batches.
    pub trailers: u64,
    /// Bytes written: batches with headers and padding.
    pub written_bytes: u64,
    /// Flushes of data before a batch.
    pub data_flushes: u64,
    /// Times that a committer had to wait for room.
    pub stalls: u64,
    /// Most commits in one batch.
    pub commits_per_batch_max: u64,
    /// Bytes of the ring in use.
    pub used_bytes: u64,
    /// Size of the ring, bytes.
    pub ring_bytes: u64,
    /// Bytes of records that wait for the log thread.
    pub pending_bytes: u64,
}

/// Bytes of a record with this much payload, as `Wal::begin` counts them.
#[must_use]
pub const fn record_bytes(payload: usize) -> usize {
    pending::record_size(payload)
}
