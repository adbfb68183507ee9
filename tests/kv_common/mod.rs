//! What the tests of the key-value store share.
#![allow(dead_code)]

pub mod crash;

use std::sync::Arc;
use std::time::Duration;

use gds_rs::kv::disk::Disk;
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{KvConfig, Store};

/// A tiny store: every limit is near.
pub fn tiny() -> KvConfig {
    KvConfig {
        wal_bytes: 64 << 10,
        segment_bytes: 64 << 10,
        superblock_spacing: 4 << 10,
        memtable_bytes: 16 << 10,
        cache_bytes: 64 << 10,
        max_batch_bytes: 12 << 10,
        stall: Duration::from_secs(20),
        ..KvConfig::default()
    }
}

/// A small store with room for the longest keys.
pub fn small() -> KvConfig {
    KvConfig {
        wal_bytes: 2 << 20,
        segment_bytes: 1 << 20,
        superblock_spacing: 4 << 10,
        memtable_bytes: 256 << 10,
        cache_bytes: 1 << 20,
        ..KvConfig::default()
    }
}

/// A store of `config` that grows, on a simulated disk that keeps no log.
pub fn fresh(config: &KvConfig) -> (Arc<SimDisk>, Store) {
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_on(disk.clone(), config.clone()).expect("a store");
    (disk, store)
}

/// Opens what `disk` holds.
pub fn reopen(disk: &Arc<SimDisk>, config: &KvConfig) -> Store {
    let disk: Arc<dyn Disk> = disk.clone();
    Store::open_on(disk, config.clone()).expect("the store opens")
}

/// Bytes that say where they come from.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut all = Vec::with_capacity(len + 8);
    while all.len() < len {
        all.extend(random.next().to_le_bytes());
    }
    all.truncate(len);
    all
}

/// xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// Whether everything in the store is as it should be.
pub fn assert_clean(store: &Store) {
    let report = store.verify().expect("verification runs");
    assert!(report.is_clean(), "{report:?}");
}
