//! The store: an index in memory over values on a disk.
//!
//! `index` has every key; `commit` changes it together with the log; `value` and `pages` write
//! bytes, `read` verifies them; `checkpoint` makes the index durable, `packed` and `share` are what
//! its threads do; `gc` and `moving` move what is alive out of segments that are mostly dead,
//! `space` says when a segment may be written again; `worker` is the one thread that does both in
//! the background. `open` recovers, `verify` and `repair` look at everything. `chains` writes
//! summaries of what lies in segments, `summary` is their layout: for repair only. Byte layout:
//! `docs/format-kv.md`.
//!
//! Invariants: log order is index order; a reference is only visible when its bytes are written;
//! bytes are written over only when nothing durable or held refers to them. Guarded by
//! `tests/kv_store.rs`, `tests/kv_model.rs`, `tests/kv_crash.rs`, `tests/kv_seeded_bugs.rs`,
//! `tests/kv_summaries.rs`.

mod ahead;
mod chains;
mod changed;
mod checkpoint;
mod commit;
mod config;
mod entry;
mod fill;
pub(crate) mod fuzzing;
mod gc;
mod handle;
mod index;
mod key;
mod meta;
mod meter;
mod moving;
mod open;
mod ordered;
mod packed;
mod page;
mod pages;
mod put_writer;
mod read;
mod reference;
mod repair;
mod root;
mod scan;
mod share;
mod snapshot;
mod space;
mod stats;
mod summary;
mod value;
mod verify;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use commit::Batch;
pub use config::{DiskLevel, KEY_MAX, KvConfig, VALUE_MAX};
pub use handle::Store;
pub use put_writer::{DeviceRun, PutWriter};
pub use read::{Located, Piece};
pub use repair::RepairReport;
pub use scan::{Entry, Item, Scan};
pub use snapshot::Snapshot;
pub use stats::KvStats;
pub use verify::{Problem, VerifyReport};

use checkpoint::MetaLog;
use index::Index;
use meter::Meter;
use reference::Run;
use root::Root;
use snapshot::Snapshots;
use space::{Level, Space, Stream};
use worker::Signal;

use super::disk::SharedBlocks;
use super::sync::{Mutex, Tally};
use super::wal::Wal;
use crate::error::{Error, Result};
use crate::metrics::Histogram;

/// Pages of small values that were read, by offset and how often their segment was taken.
type PageCache = quick_cache::sync::Cache<(u64, u32), SharedBlocks, PageWeight>;

#[derive(Debug, Clone)]
struct PageWeight;

impl quick_cache::Weighter<(u64, u32), SharedBlocks> for PageWeight {
    fn weight(&self, _: &(u64, u32), page: &SharedBlocks) -> u64 {
        page.len() as u64 + 64
    }
}

/// What a store counts beside its disk.
#[derive(Debug, Default)]
struct Counters {
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    checksums: AtomicU64,
    checksum_batches: AtomicU64,
    coalesced: AtomicU64,
    checkpoints: AtomicU64,
    gc_rounds: AtomicU64,
    gc_bytes: AtomicU64,
    user_bytes: Tally,
    get: Histogram,
    put: Histogram,
    put_async: Histogram,
}

/// Everything of an open store.
#[derive(Debug)]
pub(crate) struct Shared {
    // The log first: it ends, and writes what is pending, before the rest goes.
    wal: Arc<Wal>,
    disk: Arc<Meter>,
    config: KvConfig,
    key_max: usize,
    uuid: [u8; 16],
    /// The first half of the uuid: in every page and meta block.
    id: u64,
    root: Arc<Root>,
    index: Index,
    space: Space,
    cache: PageCache,
    snapshots: Snapshots,
    /// Held while old versions go, and by whoever compares the index with the space.
    pruning: Mutex<()>,
    inline_bytes: Tally,
    /// Segments that the meta log may take before it is cleaned.
    meta_due: AtomicU64,
    meta: Mutex<MetaLog>,
    signal: Arc<Signal>,
    counters: Counters,
    last_error: Mutex<Option<Error>>,
}

impl Shared {
    /// Room for a piece of a value. Waits for the background thread to make some, but for
    /// callers of other levels, which are that thread.
    fn allocate(
        &self,
        stream: Stream,
        bytes: u64,
        least: u64,
        summary: u64,
        level: Level,
    ) -> Result<Run> {
        let mut waiting = None;
        let mut round = Ok(());
        loop {
            self.space.set_durable(self.wal.durable_lsn());
            let run = self.space.allocate(stream, bytes, least, summary, level);
            if let Some(run) = run {
                return Ok(run);
            }
            // What an earlier round freed may have come between the look and the wait: an error
            // counts when there is no room after it either.
            std::mem::replace(&mut round, Ok(()))?;
            self.root.check()?;
            let what = "room for a value";
            if level != Level::User {
                return Err(self.no_space(what));
            }
            let waiting = waiting.get_or_insert_with(|| self.begin_waiting());
            round = self.next_round(what, waiting);
        }
    }

    /// Lets versions go that no snapshot can ask for any more.
    fn prune(&self) {
        // A snapshot that comes after the list was made sees this record at least, and may ask
        // for what is replaced after it.
        let listed = self.wal.appended_lsn();
        let held = self.snapshots.all();
        let needed = |older: u64, newer: u64| {
            let first = held.partition_point(|lsn| *lsn < older);
            newer > listed || held.get(first).is_some_and(|lsn| *lsn < newer)
        };
        let _one = self.pruning.lock();
        let inline = self.index.prune(&needed, &mut |key, killer, reference| {
            self.space.died(&reference, key.len(), killer, 0);
        });
        self.inline_bytes.add_shared(-inline);
    }

    /// Keeps the first failure of the background thread for `stats` and `sync`.
    fn remember(&self, error: Error) {
        self.last_error.lock().get_or_insert(error);
    }

    /// One round of the background thread: a checkpoint was asked for, or space.
    fn round(
        self: &Arc<Self>,
        checkpoint: bool,
        space: bool,
        group: &mut changed::Group,
    ) -> Result<()> {
        self.space.set_durable(self.wal.durable_lsn());
        let freed = self.space.reclaim();
        // A commit that was under way when the last snapshot went may have kept a version for it.
        self.prune();
        let mut stored = Ok(());
        // Both may be asked for at once: space that was found serves who asked for a checkpoint
        // nothing, and nobody asks for it again.
        if checkpoint || (space && (freed == 0 || self.is_low())) {
            // What commits deleted may only lack durability, small values only their pages.
            stored = self.checkpoint_with(&mut self.meta.lock(), group);
        }
        if self.is_low() || stored.as_ref().is_err_and(gc::is_no_space) {
            self.collect(&mut self.meta.lock(), group, false)?;
            if stored.as_ref().is_err_and(gc::is_no_space) {
                return self.checkpoint_with(&mut self.meta.lock(), group);
            }
        }
        stored
    }
}
