//! The write-ahead log: a ring of blocks that were written before, batches with checksums, group
//! commit without a timer, and recovery.
//!
//! Committers append records under one lock; one thread takes all that is pending, seals it as a
//! batch and blocks in one durable write. What is acknowledged is a prefix of the order of
//! appends. Nobody spins: committers and the log thread sleep on condition variables. Byte layout:
//! `docs/format-kv.md`. Guarded by `tests/kv_wal.rs`, `tests/kv_wal_crash.rs`,
//! `tests/kv_wal_loom.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::Disk;
use crate::error::{Error, Result};

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
    /// Size of the ring, bytes.
    pub size: u64,
    /// Largest batch with its header, bytes: whole blocks.
    pub max_batch_bytes: usize,
    /// Bytes of records that may wait for the log thread.
    pub pending_bytes: usize,
    /// Longest that a committer waits for room.
    pub stall: Duration,
    /// After this long without work the last batch is sealed by an empty one, once.
    pub idle: Duration,
}

/// What the log has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Records appended.
    pub records: u64,
    /// Commits.
    pub commits: u64,
    /// Bytes of records, with their headers.
    pub record_bytes: u64,
    /// Batches written, trailers included.
    pub batches: u64,
    /// Empty batches.
    pub trailers: u64,
    /// Bytes written: batches with headers and padding.
    pub written_bytes: u64,
    /// Flushes of data before a batch.
    pub data_flushes: u64,
    /// Times that a committer had to wait for room.
    pub stalls: u64,
    /// Bytes of the ring in use.
    pub used_bytes: u64,
    /// Size of the ring, bytes.
    pub ring_bytes: u64,
    /// Largest number of commits in one batch.
    pub commits_per_batch_max: u64,
}

/// The log. Dropping it writes what is pending and ends its thread.
pub struct Wal(());

/// A commit in the making: holds the commit lock until it is finished or dropped.
pub struct Append<'a>(&'a Wal);

/// A boundary between batches: what was appended before, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The last record before it.
    pub lsn: Lsn,
}

/// Bytes of the ring and of `begin` that a record with this much payload takes.
#[must_use]
pub const fn record_bytes(payload: usize) -> usize {
    8 + payload
}

impl Wal {
    /// Starts the log thread.
    ///
    /// # Errors
    /// `InvalidConfig`; `Io` when no thread can be made.
    pub fn start(_disk: Arc<dyn Disk>, _config: WalConfig, _start: WalStart) -> Result<Arc<Self>> {
        todo!()
    }
    /// Takes the commit lock, with room for records of `bytes` (sum of [`record_bytes`]).
    ///
    /// # Errors
    /// `OutOfRange` for more than a commit may have; `TimedOut` where no room came in time;
    /// `Poisoned`.
    pub fn begin(&self, _bytes: usize) -> Result<Append<'_>> {
        todo!()
    }
    /// Largest `bytes` that `begin` takes.
    pub fn commit_bytes_max(&self) -> usize {
        todo!()
    }
    /// Largest payload of one record, bytes.
    pub fn payload_bytes_max(&self) -> usize {
        todo!()
    }
    /// The last record that is durable.
    pub fn durable_lsn(&self) -> Lsn {
        todo!()
    }
    /// The last record that was appended.
    pub fn appended_lsn(&self) -> Lsn {
        todo!()
    }
    /// Sleeps until `lsn` is durable.
    ///
    /// # Errors
    /// `TimedOut`, `Poisoned`.
    pub fn wait(&self, _lsn: Lsn, _deadline: Option<Instant>) -> Result<()> {
        todo!()
    }
    /// Calls back when `lsn` is durable, or the log poisoned.
    pub fn on_durable(&self, _lsn: Lsn, _call: Box<dyn FnOnce(Result<Lsn>) + Send>) {
        todo!()
    }
    /// A boundary after all that was appended so far.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn seal_mark(&self) -> Result<Mark> {
        todo!()
    }
    /// Waits until what is before the mark is durable; where recovery may start after it.
    ///
    /// # Errors
    /// As `wait`; each mark can be asked once.
    pub fn start_after(&self, _mark: &Mark, _deadline: Option<Instant>) -> Result<WalStart> {
        todo!()
    }
    /// The ring before `start` may be written over.
    pub fn release(&self, _start: &WalStart) {
        todo!()
    }
    /// Bytes of the ring in use.
    pub fn used_bytes(&self) -> u64 {
        todo!()
    }
    /// Whether a failure ended it.
    pub fn is_poisoned(&self) -> bool {
        todo!()
    }
    /// Ends it: all that waits is answered with `Poisoned`.
    pub fn poison(&self, _error: Error) {
        todo!()
    }
    /// What it has done.
    pub fn stats(&self) -> WalStats {
        todo!()
    }
    /// Calls when more than half of the ring is used, and when a committer waits for the ring.
    pub fn on_pressure(&self, _call: Box<dyn Fn() + Send + Sync>) {
        todo!()
    }
}

impl Append<'_> {
    /// Adds a record of these parts.
    ///
    /// # Errors
    /// `OutOfRange` past what `begin` was told, or past the largest record.
    pub fn push(&mut self, _kind: u8, _parts: &[&[u8]]) -> Result<Lsn> {
        todo!()
    }
    /// A record of this commit names data that was written and not flushed.
    pub fn set_has_data(&mut self) {
        todo!()
    }
    /// A boundary before this commit. Before the first push.
    pub fn mark(&mut self) -> Mark {
        todo!()
    }
    /// Ends the commit: its last record, to wait for. Of a commit without records: the last one
    /// appended before.
    pub fn finish(self) -> Lsn {
        todo!()
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").finish_non_exhaustive()
    }
}

impl fmt::Debug for Append<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append").finish_non_exhaustive()
    }
}

/// What recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Where the log goes on; the epoch is still the old one ([`super::superblock::Superblock::begin_epoch`]).
    pub next: WalStart,
    /// Whole batches that were read.
    pub batches: u64,
    /// Disk offset of a batch that was being written when the crash came, where there is one.
    pub torn_at: Option<u64>,
}

/// Reads the log from `start` and hands each record of each whole commit to `each` (number, kind,
/// payload, whether it is the last of its commit), in order.
///
/// # Errors
/// `Corrupted` with the offset where bytes that were durable are not what was written; `Io` where
/// the disk cannot be read; what `each` answers.
pub fn recover(
    _disk: &dyn Disk,
    _config: &WalConfig,
    _start: &WalStart,
    _each: &mut dyn FnMut(Lsn, u8, &[u8], bool) -> Result<()>,
) -> Result<Recovered> {
    todo!()
}
