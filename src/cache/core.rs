//! What all parts of a cache share, and the ways into and out of a frame.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use parking_lot::Mutex;

use super::CacheConfig;
use super::ahead::Arrivals;
use super::files::{FileState, Files};
use super::fill::{Fill, Outcome};
use super::flusher::FlushQueue;
use super::host_tier::HostTier;
use super::key::{Key, Stretches};
use super::policy::{self, Insert};
use super::shard::{Frame, Guard, Shard};
use super::stats::{CacheStats, Counters, count};
use super::table::{Slot, Table};
use super::word::{DIRTY, ORPHAN, PREFETCHED, SHORT, State, VALID, WRITABLE};
use crate::base::clock::now_ns;
use crate::engine::{Buffer, Context, Copy, File, MemoryKind};
use crate::error::{Error, ErrorKind, Result};

/// The cache behind its handles.
pub(super) struct Core {
    pub(super) context: Context,
    pub(super) config: CacheConfig,
    pub(super) table: Table,
    /// All frames, one after the other.
    pub(super) memory: Buffer,
    pub(super) address: u64,
    /// log2 of the page size.
    pub(super) shift: u32,
    pub(super) frames_per_shard: u32,
    pub(super) shards: Box<[Shard]>,
    pub(super) files: Files,
    pub(super) stretches: Stretches,
    /// Bytes of each frame's page that are the file's; the rest is zero. Looked at only where the
    /// page word says SHORT, so that a hit reads no second cache line.
    valid: Box<[AtomicU32]>,
    pub(super) counters: Counters,
    /// The policy wants to be told of hits.
    pub(super) wants_hits: bool,
    pub(super) host: Option<HostTier>,
    /// A page of zeros.
    zeros: Buffer,
    /// Changed pages.
    pub(super) dirty: AtomicU64,
    pub(super) flushes: FlushQueue,
    pub(super) arrivals: Arc<Arrivals>,
    /// The core itself, once no handle is left but pages are pinned.
    retired: Mutex<Option<Arc<Core>>>,
    /// Pages that keep a retired core, and 1 while it is being retired.
    orphans: AtomicU32,
}

/// A page in the device tier, pinned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pinned {
    pub(super) slot: u32,
    pub(super) frame: u32,
    /// This call brought it in.
    pub(super) fresh: bool,
}

/// A page that is on its way in: whose frame is whose.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) key: Key,
    pub(super) shard: u32,
    /// Within the shard.
    pub(super) local: u32,
    pub(super) slot: u32,
    pub(super) file: Arc<FileState>,
    pub(super) fill: Arc<Fill>,
}

impl Core {
    pub(super) fn new(context: &Context, config: CacheConfig) -> Result<Self> {
        config.validate()?;
        let page = u64::from(config.page_size);
        let frames = usize::try_from(config.device_bytes / page).unwrap_or(usize::MAX);
        let shards = policy::shard_count(frames).clamp(1, frames);
        let frames_per_shard = u32::try_from(frames / shards).unwrap_or(u32::MAX);
        let policies = policy::build(config.policy, shards, frames_per_shard);
        let wants_hits = policies.iter().any(|p| p.wants_hits());
        let memory = u64::from(frames_per_shard) * shards as u64 * page;
        let memory = context.alloc(MemoryKind::Device, memory)?;
        let host = match config.host_bytes {
            0 => None,
            bytes => Some(HostTier::new(context, config.page_size, bytes)?),
        };
        Ok(Self {
            table: Table::new(shards as u32, frames_per_shard)?,
            address: memory.address(),
            memory,
            shift: config.page_size.trailing_zeros(),
            frames_per_shard,
            shards: policies
                .into_iter()
                .map(|policy| Shard::new(frames_per_shard, policy))
                .collect(),
            files: Files::default(),
            stretches: Stretches::default(),
            valid: (0..frames_per_shard as usize * shards)
                .map(|_| AtomicU32::new(0))
                .collect(),
            counters: Counters::default(),
            wants_hits,
            host,
            zeros: context.alloc(MemoryKind::Pinned, page)?,
            dirty: AtomicU64::new(0),
            flushes: FlushQueue::default(),
            arrivals: Arc::default(),
            retired: Mutex::default(),
            orphans: AtomicU32::new(0),
            context: context.clone(),
            config,
        })
    }

    #[inline(always)]
    pub(super) fn page_size(&self) -> u64 {
        1 << self.shift
    }

    /// Pages that the device tier has room for.
    pub(super) fn frame_count(&self) -> u64 {
        u64::from(self.frames_per_shard) * self.shards.len() as u64
    }

    /// Pages that one file may have; 0 for no limit.
    pub(super) fn file_limit(&self) -> u64 {
        self.config.file_limit_bytes >> self.shift
    }

    /// The page that holds `offset`.
    ///
    /// # Errors
    /// As `Stretches::key`.
    pub(super) fn key(&self, file: &File, offset: u64) -> Result<Key> {
        self.stretches.key(file, offset >> self.shift)
    }

    /// The page that a frame of a shard holds or gets.
    pub(super) fn key_of(&self, guard: &Guard<'_>, local: u32) -> Option<Key> {
        let frame = &guard.frames[local as usize];
        Some(Key {
            file: frame.file.as_ref()?.number(),
            page: frame.page,
            name: self.table.slot(frame.slot?).name(),
        })
    }

    /// Bytes of a page that are the file's, by what its word said.
    #[inline(always)]
    pub(super) fn valid(&self, state: State) -> u32 {
        if state.has(SHORT) {
            return self.valid[state.frame() as usize].load(Acquire);
        }
        self.config.page_size
    }

    /// Where a frame is in the memory of the cache, bytes.
    #[inline(always)]
    pub(super) fn place(&self, frame: u32) -> u64 {
        u64::from(frame) << self.shift
    }

    /// The slot of a page that the caller holds, and what its word says now.
    pub(super) fn held(&self, pinned: Pinned) -> (u32, State) {
        (pinned.slot, self.table.slot(pinned.slot).word.state())
    }

    pub(super) fn shard_of(&self, key: Key) -> u32 {
        self.table.shard_of(key.hash())
    }

    pub(super) fn shard(&self, number: u32) -> &Shard {
        &self.shards[number as usize]
    }

    /// The number of a frame of a shard among all frames.
    pub(super) fn global(&self, shard: u32, local: u32) -> u32 {
        shard * self.frames_per_shard + local
    }

    pub(super) fn local(&self, frame: u32) -> u32 {
        frame % self.frames_per_shard
    }

    /// The slot of a frame that holds or gets a page.
    pub(super) fn slot_of(&self, guard: &Guard<'_>, local: u32) -> Option<(u32, &Slot)> {
        let index = guard.frames[local as usize].slot?;
        Some((index, self.table.slot(index)))
    }

    /// Puts an absent page into an empty frame, BUSY, and tells the policy.
    pub(super) fn link(
        &self,
        guard: &mut Guard<'_>,
        key: Key,
        local: u32,
        file: Arc<FileState>,
        how: Insert,
    ) -> Result<Coming> {
        let shard = self.shard_of(key);
        let hash = key.hash();
        let Some(slot) = self.table.insert(key.name, self.global(shard, local)) else {
            guard.free.push(local);
            self.files.leave(&file);
            let text = "the page table has no place for a page that has a frame";
            return Err(Error::new(ErrorKind::Internal, text));
        };
        if self.file_limit() > 0 {
            file.arrivals.lock().push_back(key);
        }
        let fill = Arc::new(Fill::default());
        guard.frames[local as usize] = Frame {
            slot: Some(slot),
            page: key.page,
            file: Some(file.clone()),
            fill: Some(fill.clone()),
            due: 0,
        };
        guard.policy.inserted(local, hash, how);
        Ok(Coming {
            key,
            shard,
            local,
            slot,
            file,
            fill,
        })
    }

    /// Empties a frame whose page is BUSY and no more VALID. The frame is the caller's.
    pub(super) fn unlink(&self, guard: &mut Guard<'_>, local: u32) {
        let frame = std::mem::take(&mut guard.frames[local as usize]);
        if frame.due != 0 {
            self.dirty.fetch_sub(1, Relaxed);
        }
        if let Some(slot) = frame.slot {
            self.table.remove(slot);
            guard.policy.removed(local);
        }
        if let Some(file) = frame.file {
            self.files.leave(&file);
        }
    }

    /// Ends the way of a page into its frame: publishes it with `pins` for the caller, or takes
    /// it out again.
    ///
    /// # Errors
    /// The one that is passed in.
    pub(super) fn settle(
        &self,
        coming: &Coming,
        outcome: Result<u32>,
        pins: u32,
        flags: u64,
    ) -> Result<()> {
        let shard = self.shard(coming.shard);
        let mut guard = shard.lock();
        guard.frames[coming.local as usize].fill = None;
        let result = match outcome {
            Ok(valid) => {
                let slot = self.table.slot(coming.slot);
                let waiters = coming.fill.waiters();
                let mut flags = flags;
                if flags & PREFETCHED != 0 && waiters > 0 {
                    flags &= !PREFETCHED;
                    count(&self.counters.prefetch_hits);
                }
                if coming.file.is_writable() {
                    flags |= WRITABLE;
                }
                if valid < self.config.page_size {
                    flags |= SHORT;
                    let frame = self.global(coming.shard, coming.local);
                    self.valid[frame as usize].store(valid, Release);
                }
                slot.word.publish(pins + waiters, flags & !DIRTY);
                if flags & DIRTY != 0 {
                    self.set_dirty(&mut guard, coming.shard, coming.local);
                }
                coming.fill.finish(Outcome::Ready);
                Ok(())
            }
            Err(error) => {
                self.unlink(&mut guard, coming.local);
                guard.free.push(coming.local);
                coming.fill.finish(Outcome::Failed(error.clone()));
                Err(error)
            }
        };
        shard.changed.notify_all();
        result
    }

    /// A pinned page now has at least so many bytes. Under the shard's lock.
    pub(super) fn extend_valid(&self, slot: &Slot, valid: u32) {
        let state = slot.word.state();
        if !state.has(SHORT) {
            return;
        }
        if valid >= self.config.page_size {
            slot.word.clear(SHORT);
        } else {
            self.valid[state.frame() as usize].fetch_max(valid, Release);
        }
    }

    /// Marks a page that is there as changed, and has it written in time.
    pub(super) fn set_dirty(&self, guard: &mut Guard<'_>, shard: u32, local: u32) {
        if let Some((_, slot)) = self.slot_of(guard, local) {
            slot.word.set(DIRTY);
            let delay = self.config.flush_delay.as_nanos();
            let delay = u64::try_from(delay).unwrap_or(u64::MAX);
            self.plan_flush(guard, shard, local, now_ns().saturating_add(delay).max(1));
        }
    }

    /// Zeroes what a page has after its valid bytes.
    pub(super) fn zero_tail(&self, frame: u32, valid: u32) -> Result<()> {
        let size = self.page_size() - u64::from(valid);
        if size == 0 {
            return Ok(());
        }
        self.context.copy(&[Copy {
            from: self.zeros.clone(),
            from_offset: 0,
            to: self.memory.clone(),
            to_offset: self.place(frame) + u64::from(valid),
            size,
        }])
    }

    /// Pages as they are now: (resident, pinned, dirty).
    fn census(&self) -> (u64, u64, u64) {
        let states = self.table.slots().map(|slot| slot.word.state());
        states.filter(|s| s.has(VALID)).fold((0, 0, 0), |n, s| {
            let one = |is: bool| u64::from(is);
            (n.0 + 1, n.1 + one(s.pins() > 0), n.2 + one(s.has(DIRTY)))
        })
    }

    pub(super) fn stats(&self) -> CacheStats {
        let (resident, pinned, dirty) = self.census();
        CacheStats {
            frames: self.frame_count(),
            resident,
            pinned,
            dirty,
            host_pages: self.host.as_ref().map_or(0, HostTier::count),
            ..self.counters.snapshot()
        }
    }

    /// Lets a core go that no handle names any more: now, or with the last pin.
    pub(super) fn retire(core: Arc<Self>) {
        core.orphans.store(1, Relaxed);
        for slot in core.table.slots() {
            // Counted before it can be given back.
            core.orphans.fetch_add(1, AcqRel);
            if slot.word.set(ORPHAN).pins() == 0 {
                core.orphans.fetch_sub(1, AcqRel);
            }
        }
        *core.retired.lock() = Some(core.clone());
        drop(core.orphan_gone());
    }

    /// The last pin of a page of a retired core went. The core, if that was the last page.
    pub(super) fn orphan_gone(&self) -> Option<Arc<Self>> {
        if self.orphans.fetch_sub(1, AcqRel) > 1 {
            return None;
        }
        // Nobody is left to tell an error to.
        let _ = self.flush_all();
        self.retired.lock().take()
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pages of {} bytes in {} shards",
            self.frame_count(),
            self.page_size(),
            self.shards.len()
        )
    }
}
