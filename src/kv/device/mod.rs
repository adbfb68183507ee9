//! Values straight into device memory and out of it: the engine moves the bytes, and their
//! checksums are compared where they land.
//!
//! `read` plans, moves and verifies; `put` writes extents from device memory; `hot` keeps values in
//! device memory, in the room that `room` divides.
//!
//! Invariants: no byte of a value reaches a caller's range as a result before its checksum was
//! compared, on the device or on the host; what a located value names is not written over while
//! it is read. The room never decides what is durable: that is the store's. Guarded by
//! `tests/kv_device.rs` and, on a GPU, by `cuda_tests/store_test.cu`.

mod hot;
mod put;
mod read;
mod room;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::store::Store;
use crate::engine::{Buffer, Context, File, MemoryKind, OpenMode};
use crate::error::{Error, ErrorKind, Result};

pub use hot::Held;
pub use read::{Get, Got};

use hot::Hot;

/// Least size of device memory for the edges of ranges, bytes.
const SCRATCH_MIN: u64 = 1 << 20;
/// Pieces of such memory that are kept.
const SCRATCH_KEPT: usize = 8;

/// How values and device memory come together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Device memory for values that are held or hot, bytes; 0: none.
    pub cache_bytes: u64,
}

/// What a device's side of a store has counted, and what is in its cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Values, or ranges of them, that were read.
    pub gets: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Transfers that brought them, after adjacent ones were joined.
    pub transfers: u64,
    /// Checksums compared where the bytes landed.
    pub chunks_verified: u64,
    /// Reads that failed or did not match their checksums, and were done again by the host.
    pub rereads: u64,
    /// Values put from device memory.
    pub puts: u64,
    /// Bytes of them.
    pub bytes_written: u64,
    /// Device addresses asked for whose value was there.
    pub hits: u64,
    /// Device addresses asked for whose value was read.
    pub misses: u64,
    /// Values that left the cache to make room.
    pub evictions: u64,
    /// Values in the cache.
    pub resident: u64,
    /// Of these, held.
    pub held: u64,
    /// Bytes of the cache in use, rounded up to its blocks.
    pub cache_used_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    gets: AtomicU64,
    bytes_read: AtomicU64,
    transfers: AtomicU64,
    chunks: AtomicU64,
    rereads: AtomicU64,
    puts: AtomicU64,
    bytes_written: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// A store beside one context. Clones are the same; any thread may use them. Holds both.
#[derive(Debug, Clone)]
pub struct DeviceStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    context: Context,
    file: File,
    scratch: Mutex<Vec<Buffer>>,
    hot: Option<Arc<Hot>>,
    counters: Counters,
}

impl Store {
    /// Reads and writes values of this store from the memory of `context`: its file is opened
    /// once more for that.
    ///
    /// # Errors
    /// `NotSupported` for a store that is in no file; what opening the file answers;
    /// `InvalidConfig` and `OutOfDeviceMemory` for the cache.
    pub fn attach(&self, context: &Context, config: DeviceConfig) -> Result<DeviceStore> {
        let Some(path) = self.path() else {
            let message = "attach a store to a device: it is in no file; open one by its path";
            return Err(Error::new(ErrorKind::NotSupported, message));
        };
        let file = context.open_file(path, OpenMode::read_write())?;
        if !context.device().is_host() {
            // Now, while nothing is queued: later the driver may make it wait for streams.
            context.prepare_crc32c()?;
        }
        let hot = match config.cache_bytes {
            0 => None,
            bytes => Some(Arc::new(Hot::new(context, bytes)?)),
        };
        Ok(DeviceStore {
            inner: Arc::new(Inner {
                store: self.clone(),
                context: context.clone(),
                file,
                scratch: Mutex::default(),
                hot,
                counters: Counters::default(),
            }),
        })
    }
}

impl DeviceStore {
    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// Counters, and what is in the cache.
    #[must_use]
    pub fn stats(&self) -> DeviceStats {
        let c = &self.inner.counters;
        let mut stats = DeviceStats {
            gets: c.gets.load(Relaxed),
            bytes_read: c.bytes_read.load(Relaxed),
            transfers: c.transfers.load(Relaxed),
            chunks_verified: c.chunks.load(Relaxed),
            rereads: c.rereads.load(Relaxed),
            puts: c.puts.load(Relaxed),
            bytes_written: c.bytes_written.load(Relaxed),
            ..DeviceStats::default()
        };
        if let Some(hot) = &self.inner.hot {
            hot.tell(&mut stats);
        }
        stats
    }
}

impl Inner {
    /// Device memory of at least `size` bytes.
    fn take_scratch(&self, size: u64) -> Result<Buffer> {
        let mut kept = self.scratch.lock();
        if let Some(place) = kept.iter().position(|buffer| buffer.size() >= size) {
            return Ok(kept.swap_remove(place));
        }
        drop(kept);
        let size = size.max(SCRATCH_MIN).next_power_of_two();
        self.context.alloc(MemoryKind::Device, size)
    }

    fn give_scratch(&self, buffer: Buffer) {
        let mut kept = self.scratch.lock();
        if kept.len() < SCRATCH_KEPT {
            kept.push(buffer);
        }
    }
}
