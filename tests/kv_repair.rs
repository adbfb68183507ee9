//! Repair: what can be found is there again, what cannot is listed, and nothing wrong is answered.

mod kv_common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{KvConfig, Store};
use gds_rs::{ErrorKind, Result};
use kv_common::crash::{Map, contents};
use kv_common::{Random, assert_clean, bytes, fresh, reopen, tiny};

/// A store with values of all kinds in pages, extents and the log.
fn filled(config: &KvConfig) -> (Arc<SimDisk>, Map) {
    let (disk, store) = fresh(config);
    let mut map = Map::new();
    for n in 0..60u64 {
        let key = format!("key {n:03}").into_bytes();
        let len = [10, 700, 4096, 9000, 100_000][(n % 5) as usize];
        let value = bytes(n, len);
        store.put(&key, &value).expect("works");
        map.insert(key, value);
        if n == 50 {
            store.checkpoint().expect("works");
        }
    }
    store.delete(b"key 000").expect("works");
    map.remove(&b"key 000"[..]);
    drop(store);
    (disk, map)
}

fn repair(disk: &Arc<SimDisk>, config: &KvConfig) -> gds_rs::kv::store::RepairReport {
    let disk: Arc<dyn Disk> = disk.clone();
    Store::repair_on(&disk, config).expect("works")
}

/// Where blocks with this magic start.
fn blocks_with(disk: &SimDisk, magic: &[u8; 4]) -> Vec<u64> {
    let mut block = Blocks::new(BLOCK).expect("works");
    (0..disk.size())
        .step_by(BLOCK)
        .filter(|at| {
            disk.read(*at, &mut block).expect("works");
            block[..4] == magic[..]
        })
        .collect()
}

#[test]
fn a_store_that_is_well_is_left_alone() {
    let (disk, map) = filled(&tiny());
    let report = repair(&disk, &tiny());
    assert!(
        report.was_clean && !report.rebuilt && report.lost.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.keys, map.len() as u64);
    assert_eq!(contents(&reopen(&disk, &tiny())).expect("works"), map);
}

#[test]
fn one_superblock_copy_is_enough() {
    let config = tiny();
    for left in 0..4u64 {
        let (disk, map) = filled(&config);
        for copy in (0..4u64).filter(|c| *c != left) {
            disk.corrupt(copy * config.superblock_spacing, |block| block[100] ^= 1);
        }
        let error = Store::open_on(disk.clone(), config.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        let report = repair(&disk, &config);
        assert!(report.rebuilt && report.lost.is_empty(), "{report:?}");
        let store = reopen(&disk, &config);
        assert!(
            contents(&store).expect("works") == map,
            "only copy {left} was left"
        );
        assert_clean(&store);
        store.put(b"after", b"repair").expect("works");
        drop(store);
        assert_eq!(reopen(&disk, &config).keys(), map.len() as u64 + 1);
    }
}

#[test]
fn no_superblock_is_no_store() {
    let config = tiny();
    let (disk, _) = filled(&config);
    for copy in 0..4u64 {
        disk.corrupt(copy * config.superblock_spacing, |block| block.fill(0));
    }
    let disk: Arc<dyn Disk> = disk;
    let error = Store::repair_on(&disk, &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFile);
}

#[test]
fn a_damaged_index_is_rebuilt_and_loses_only_what_only_it_knew() {
    let config = tiny();
    let (disk, map) = filled(&config);
    let at = blocks_with(&disk, b"GKVM");
    assert!(!at.is_empty());
    disk.flip(at[0] + 40, 4);
    assert_eq!(
        Store::open_on(disk.clone(), config.clone())
            .unwrap_err()
            .kind(),
        ErrorKind::Corrupted
    );
    let report = repair(&disk, &config);
    assert!(report.rebuilt, "{report:?}");
    let store = reopen(&disk, &config);
    let found = contents(&store).expect("works");
    // Small values say themselves what they are.
    let small = map.iter().filter(|(_, value)| value.len() < 4000);
    for (key, value) in small {
        assert!(found.get(key) == Some(value), "{key:?}");
    }
    assert!(
        found.iter().all(|(k, v)| map.get(k) == Some(v)),
        "something that was never put"
    );
    assert_clean(&store);
}

#[test]
fn a_damaged_log_keeps_what_came_before() {
    // No checkpoint but the one that is asked for.
    let config = KvConfig {
        wal_bytes: 256 << 10,
        memtable_bytes: 1 << 20,
        ..tiny()
    };
    let (disk, map) = filled(&config);
    let batches = blocks_with(&disk, b"GWAL");
    let mut repaired = 0;
    for at in batches {
        let copy = Arc::new(disk.copy());
        copy.flip(at + 30, 1);
        if Store::open_on(Arc::new(copy.copy()), config.clone()).is_ok() {
            continue;
        }
        repaired += 1;
        let report = repair(&copy, &config);
        assert!(report.rebuilt, "{report:?}");
        let store = reopen(&copy, &config);
        let found = contents(&store).expect("works");
        assert!(found.len() >= 50, "{}", found.len());
        for (key, value) in &found {
            let was = map.get(key);
            assert!(was == Some(value) || key == b"key 000", "{key:?}");
        }
        assert_clean(&store);
        store.put(b"after", b"repair").expect("works");
        drop(store);
        assert_eq!(
            reopen(&copy, &config)
                .get(b"after")
                .expect("works")
                .expect("works"),
            b"repair"
        );
    }
    assert!(repaired > 0);
}

#[test]
fn damaged_values_are_dropped_and_listed() {
    let config = tiny();
    let (disk, map) = filled(&config);
    let store = reopen(&disk, &config);
    let located = store
        .locate(b"key 004", 0..10)
        .expect("works")
        .expect("works");
    disk.flip(located.pieces[0].offset + 5, 1);
    drop((located, store));
    let report = repair(&disk, &config);
    assert!(!report.was_clean && !report.rebuilt);
    assert_eq!(
        (report.lost.len(), report.lost[0].key.as_slice()),
        (1, &b"key 004"[..])
    );
    let mut want = map;
    want.remove(&b"key 004"[..]);
    let store = reopen(&disk, &config);
    assert!(contents(&store).expect("works") == want);
    assert_clean(&store);
}

#[test]
fn many_random_flips_never_give_wrong_bytes_after_repair() {
    let config = tiny();
    let (disk, map) = filled(&config);
    let mut random = Random(5);
    for round in 0..60 {
        let copy = Arc::new(disk.copy());
        for _ in 0..3 {
            copy.flip(random.below(copy.size()), 1 << random.below(8));
        }
        repair(&copy, &config);
        let store = reopen(&copy, &config);
        for (key, value) in contents(&store).expect("works") {
            let right = map.get(&key) == Some(&value) || key == b"key 000";
            assert!(right, "round {round}: {key:?}");
        }
        assert_clean(&store);
    }
}

/// Notes how many reads fail.
#[derive(Debug)]
struct Counted {
    inner: Arc<SimDisk>,
    failed: AtomicU64,
}

impl Disk for Counted {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.inner.resize(size)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.inner.read(offset, into).inspect_err(|_| {
            self.failed.fetch_add(1, SeqCst);
        })
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.inner.write(offset, from)
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.inner.write_durable(offset, from)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}

#[test]
fn opening_ends_at_the_first_list_of_runs_that_cannot_be_read() {
    let config = tiny();
    let (disk, map) = filled(&config);
    let lists = blocks_with(&disk, b"GKVF");
    assert!(lists.len() > 5, "{}", lists.len());
    for list in &lists {
        disk.set_unreadable(*list, true);
    }
    let counted = Arc::new(Counted {
        inner: disk.clone(),
        failed: AtomicU64::new(0),
    });
    let error = Store::open_on(counted.clone(), config.clone()).expect_err("unreadable");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(counted.failed.load(SeqCst), 1);
    for list in &lists {
        disk.set_unreadable(*list, false);
    }
    assert!(contents(&reopen(&disk, &config)).expect("works") == map);
}

#[test]
fn a_list_of_runs_that_cannot_be_read_now_fails_repair_which_drops_nothing() {
    let config = tiny();
    let (disk, map) = filled(&config);
    for list in blocks_with(&disk, b"GKVF") {
        disk.set_unreadable(list, true);
        let as_disk: Arc<dyn Disk> = disk.clone();
        let error = Store::repair_on(&as_disk, &config).expect_err("unreadable");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.message().contains("key 0"), "{error}");
        disk.set_unreadable(list, false);
    }
    let report = repair(&disk, &config);
    assert!(report.was_clean && report.lost.is_empty(), "{report:?}");
    assert!(contents(&reopen(&disk, &config)).expect("works") == map);
}

#[test]
fn a_list_of_runs_that_is_damaged_is_dropped_by_repair() {
    let config = tiny();
    let (disk, mut map) = filled(&config);
    disk.flip(blocks_with(&disk, b"GKVF")[0] + 20, 1);
    let report = repair(&disk, &config);
    assert_eq!(report.lost.len(), 1, "{report:?}");
    assert_eq!(report.lost[0].error.kind(), ErrorKind::Corrupted);
    map.remove(&report.lost[0].key);
    let store = reopen(&disk, &config);
    assert!(contents(&store).expect("works") == map);
    assert_clean(&store);
}

#[test]
fn a_value_that_cannot_be_read_now_fails_repair_which_drops_nothing() {
    let config = tiny();
    let (disk, map) = filled(&config);
    let store = reopen(&disk, &config);
    let located = store.locate(b"key 003", 0..10).expect("works");
    let place = located.expect("works").pieces[0].offset;
    let other = store.locate(b"key 008", 0..10).expect("works");
    disk.flip(other.expect("works").pieces[0].offset + 9, 1);
    drop(store);
    disk.set_unreadable(place, true);
    let as_disk: Arc<dyn Disk> = disk.clone();
    let error = Store::repair_on(&as_disk, &config).expect_err("unreadable");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.message().contains("key 003"), "{error}");
    assert_eq!(reopen(&disk, &config).keys(), map.len() as u64);
    disk.set_unreadable(place, false);
    let report = repair(&disk, &config);
    assert_eq!(report.lost.len(), 1, "{report:?}");
    assert_eq!(report.lost[0].key, b"key 008");
}
