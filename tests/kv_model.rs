//! Random operations beside a model: a map, with reopening, checkpoints, cleaning and crashes in
//! between.
//!
//! `GDS_KV_MODEL=n` runs n sequences (2000 without it), `GDS_KV_NIGHTLY=1` those of a night; a
//! failure prints the seed, and `GDS_KV_SEED=s` runs that one only.

mod kv_common;
mod kv_driver;

use std::ops::Bound;
use std::sync::Arc;

use gds_rs::ErrorKind;
use gds_rs::kv::disk::Disk;
use gds_rs::kv::sim::{SimDisk, Survivors, TEAR_SECTOR};
use gds_rs::kv::store::{Batch, KvConfig, Snapshot, Store};
use kv_common::crash::{Map, Oracle, contents};
use kv_common::{Random, bytes, tiny};

const OPERATIONS: u64 = 200;

struct Model {
    seed: u64,
    random: Random,
    config: KvConfig,
    disk: Arc<SimDisk>,
    store: Option<Store>,
    /// What the store must hold, and the commits since the last moment at which all was durable.
    map: Map,
    oracle: Oracle,
    snapshots: Vec<(Snapshot, Map)>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let config = KvConfig {
            size_bytes: if random.below(3) == 0 { 1 << 20 } else { 0 },
            memtable_bytes: 4096 << random.below(4),
            cache_bytes: random.below(2) * 32_768,
            checkpoint_threads: [1, 2, 5][(seed % 3) as usize],
            ..tiny()
        };
        let disk = Arc::new(SimDisk::new(0));
        let store = Store::create_on(disk.clone(), config.clone()).expect("works");
        disk.settle();
        Self {
            seed,
            random,
            config,
            disk,
            store: Some(store),
            map: Map::new(),
            oracle: Oracle::default(),
            snapshots: Vec::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("works")
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.random.below(40);
        match n {
            0 => vec![0],
            1 => vec![255; 300],
            _ => format!("key {n}").into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(10) {
            0 => 0,
            1..6 => self.random.below(500),
            6 => 4000 + self.random.below(200),
            7 | 8 => self.random.below(20_000),
            _ => self.random.below(150_000),
        };
        bytes(self.random.next(), len as usize)
    }

    fn commit(&mut self, lsn: u64, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        for (key, value) in &changes {
            match value {
                Some(value) => drop(self.map.insert(key.clone(), value.clone())),
                None => drop(self.map.remove(key)),
            }
        }
        self.oracle.commit(lsn, changes);
    }

    /// The result of a write: a full store may refuse it.
    fn accepted<T>(&self, result: gds_rs::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(e) if e.kind() == ErrorKind::NoSpace && self.config.size_bytes > 0 => None,
            Err(e) => panic!("seed {}: {e:?}", self.seed),
        }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..14 => {
                let (key, value) = (self.key(), self.value());
                let put = self.store().put_async(&key, &value);
                if let Some(lsn) = self.accepted(put) {
                    self.commit(lsn, vec![(key, Some(value))]);
                }
            }
            14..18 => {
                let key = self.key();
                let (there, lsn) = self.store().delete_async(&key).expect("works");
                assert_eq!(there, self.map.contains_key(&key));
                if there {
                    self.commit(lsn, vec![(key, None)]);
                }
            }
            18 | 19 => {
                let mut batch = Batch::new();
                let mut changes = Vec::new();
                for _ in 0..self.random.below(4) {
                    let (key, mut value) = (self.key(), self.value());
                    value.truncate(6000);
                    if self.random.below(4) == 0 {
                        batch.delete(&key);
                        changes.push((key, None));
                    } else {
                        batch.put(&key, &value);
                        changes.push((key, Some(value)));
                    }
                }
                let written = self.store().write_async(&batch);
                if let Some(lsn) = self.accepted(written) {
                    self.commit(lsn, changes);
                }
            }
            20 => {
                let (key, value) = (self.key(), self.value());
                let mut writer = self
                    .store()
                    .put_writer(&key, self.seed % 9000)
                    .expect("works");
                let pieces = value.chunks(7000).try_for_each(|piece| writer.write(piece));
                let done = pieces.and_then(|()| writer.commit_async());
                if let Some(lsn) = self.accepted(done) {
                    self.commit(lsn, vec![(key, Some(value))]);
                }
            }
            21..26 => {
                let key = self.key();
                let got = self.store().get(&key).expect("works");
                assert!(
                    got.as_ref() == self.map.get(&key),
                    "seed {}: {key:?}",
                    self.seed
                );
            }
            26 | 27 => {
                let key = self.key();
                let (offset, len) = (self.random.below(9000), self.random.below(9000) as usize);
                let mut part = vec![0; len];
                let got = self
                    .store()
                    .get_into(&key, offset, &mut part)
                    .expect("works");
                let want = self.map.get(&key).map(|v| {
                    let start = (offset as usize).min(v.len());
                    &v[start..v.len().min(start + len)]
                });
                assert!(
                    got.map(|n| &part[..n]) == want,
                    "seed {}: {key:?}",
                    self.seed
                );
            }
            28 | 29 => {
                let (from, limit) = (self.key(), self.random.below(20));
                let range = (Bound::Excluded(from.clone()), Bound::Unbounded);
                let scan = self.store().scan(range.clone(), limit).expect("works");
                let got: Vec<_> = scan
                    .map(|i| (i.key.clone(), i.value().expect("works")))
                    .collect();
                let want = self.map.range(range).take(limit as usize);
                assert!(
                    got.iter().map(|(k, v)| (k, v)).eq(want),
                    "seed {}",
                    self.seed
                );
            }
            30 | 31 if self.snapshots.len() < 3 => {
                let snapshot = self.store().snapshot().expect("works");
                self.snapshots.push((snapshot, self.map.clone()));
            }
            30..33 => {
                if self.snapshots.is_empty() {
                    return;
                }
                let at = self.random.below(self.snapshots.len() as u64) as usize;
                let (snapshot, map) = self.snapshots.swap_remove(at);
                let key = self.key();
                assert!(
                    snapshot.get(&key).expect("works").as_ref() == map.get(&key),
                    "{}",
                    self.seed
                );
                let snapshot = Arc::new(snapshot);
                let scan = Store::scan_at(&snapshot, .., u64::MAX).expect("works");
                let all: Map = scan
                    .map(|i| (i.key.clone(), i.value().expect("works")))
                    .collect();
                assert!(all == map, "seed {}: a snapshot changed", self.seed);
            }
            33 => drop(self.accepted(self.store().checkpoint())),
            34 => drop(self.accepted(self.store().compact())),
            35 | 36 => {
                self.store().sync().expect("works");
                self.oracle = Oracle::of(self.map.clone());
                let (moment, lsn) = (self.disk.now(), self.store().appended_lsn());
                self.oracle.acknowledge(moment, lsn);
            }
            37 => self.reopen(),
            38 => self.crash(),
            _ => {
                let report = self.store().verify().expect("works");
                assert!(report.is_clean(), "seed {}: {report:?}", self.seed);
            }
        }
    }

    fn reopen(&mut self) {
        self.snapshots.clear();
        let store = self.store.take().expect("works");
        if self.random.below(2) == 0 {
            let _ = self.accepted(store.close());
        } else {
            drop(store);
        }
        self.open(self.disk.copy());
        assert!(
            contents(self.store()).expect("works") == self.map,
            "seed {}",
            self.seed
        );
    }

    fn open(&mut self, disk: SimDisk) {
        self.disk = Arc::new(disk);
        self.store = Some(Store::open_on(self.disk.clone(), self.config.clone()).expect("works"));
        self.disk.settle();
        self.oracle = Oracle::of(self.map.clone());
    }

    fn crash(&mut self) {
        self.snapshots.clear();
        let moment = self.disk.now();
        self.oracle.acknowledge(moment, self.store().durable_lsn());
        let moment = self.disk.now();
        let seed = self.random.next();
        let survivors = match self.random.below(3) {
            0 => Survivors::None,
            1 => Survivors::Some { seed },
            _ => Survivors::Torn {
                seed,
                unit: TEAR_SECTOR,
            },
        };
        let image = self.disk.image(moment, survivors).expect("works");
        drop(self.store.take());
        let copy = Arc::new(image.copy());
        let store = Store::open_on(copy, self.config.clone());
        let store = store.unwrap_or_else(|e| panic!("seed {} {survivors:?}: {e:?}", self.seed));
        let found = contents(&store).unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        drop(store);
        let checked = self.oracle.check(&found, moment);
        checked.unwrap_or_else(|e| panic!("seed {} {survivors:?}: {e}", self.seed));
        self.map = found;
        self.open(image);
        assert!(
            contents(self.store()).expect("works") == self.map,
            "seed {}",
            self.seed
        );
    }
}

/// Cleaning that gained nothing went on here for as long as a write may wait, over and over the
/// same segments, and the write was told that time had run out. Not in every run.
#[test]
fn a_store_that_cleaning_cannot_help_refuses_and_is_not_worn() {
    for _ in 0..6 {
        let mut model = Model::new(3663);
        for _ in 0..OPERATIONS {
            let before = model.store().stats().written_bytes;
            model.step();
            let after = model.store().stats().written_bytes;
            let all = model.disk.size();
            assert!(
                after < before + 64 * all,
                "{} bytes written by one step in a store of {all}",
                after - before
            );
        }
    }
}

#[test]
fn random_operations_do_what_a_map_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (first, count) = match number("GDS_KV_SEED") {
        Some(seed) => (seed, 1),
        None => (1, kv_driver::amount("GDS_KV_MODEL", 2000, 50_000)),
    };
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for seed in (first..first + count).filter(|s| s % 2 == thread) {
                    let run = std::panic::catch_unwind(|| {
                        let mut model = Model::new(seed);
                        for _ in 0..OPERATIONS {
                            model.step();
                        }
                        assert!(contents(model.store()).expect("works") == model.map);
                        let report = model.store().verify().expect("works");
                        assert!(report.is_clean(), "{report:?}");
                    });
                    assert!(run.is_ok(), "GDS_KV_SEED={seed} fails");
                }
            });
        }
    });
}
