//! A disk that fails: whatever operation it is, nothing wrong is answered, what was acknowledged
//! is there when the store is opened again, and after a failed sync nothing more is acknowledged.

mod kv_common;

use std::sync::Arc;

use gds_rs::ErrorKind;
use gds_rs::kv::sim::{SimDisk, SimPlan, Survivors};
use gds_rs::kv::store::{Batch, Store};
use kv_common::crash::{Map, Oracle, contents};
use kv_common::{Random, assert_clean, bytes, tiny};

/// Runs a small workload on a disk with `plan`; answers the disk, what it must hold, and whether
/// anything failed.
fn run(seed: u64, plan: SimPlan) -> (Arc<SimDisk>, Oracle, bool) {
    let disk = Arc::new(SimDisk::new(0));
    let store = Store::create_on(disk.clone(), tiny()).expect("a store");
    disk.settle();
    disk.set_plan(plan);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut oracle = Oracle::of(Map::new());
    let mut failed = false;
    for n in 0..60u64 {
        let key = format!("key {}", random.below(15)).into_bytes();
        let len = match random.below(3) {
            0 => random.below(15_000),
            _ => random.below(800),
        };
        let value = bytes(seed ^ (n << 32), len as usize);
        let result = match random.below(12) {
            0 => store.checkpoint(),
            1 => store.compact().map(drop),
            2 => store.sync(),
            3 => store.delete_async(&key).map(|(there, lsn)| {
                if there {
                    oracle.commit(lsn, vec![(key.clone(), None)]);
                }
            }),
            4 => {
                let mut batch = Batch::new();
                batch.put(&key, &value).put(b"other", b"o");
                let changes = vec![
                    (key.clone(), Some(value.clone())),
                    (b"other".to_vec(), Some(b"o".to_vec())),
                ];
                store
                    .write_async(&batch)
                    .map(|lsn| oracle.commit(lsn, changes))
            }
            _ => store
                .put_async(&key, &value)
                .map(|lsn| oracle.commit(lsn, vec![(key.clone(), Some(value.clone()))])),
        };
        if let Err(error) = result {
            failed = true;
            let right = matches!(
                error.kind(),
                ErrorKind::Io | ErrorKind::Poisoned | ErrorKind::NoSpace | ErrorKind::TimedOut
            );
            assert!(right, "seed {seed}: {error:?}");
        }
        // What is read is right, or an error of the disk.
        match store.get(&key) {
            Ok(got) => assert!(got == oracle.now().remove(&key), "seed {seed}: {key:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "seed {seed}: {error:?}"),
        }
        oracle.acknowledge(disk.now(), store.durable_lsn());
    }
    failed |= store.stats().poisoned;
    oracle.acknowledge(disk.now(), store.durable_lsn());
    drop(store);
    disk.set_plan(SimPlan::default());
    (disk, oracle, failed)
}

/// Opens what the disk holds, and what a crash leaves of it.
fn check(seed: u64, disk: &SimDisk, oracle: &Oracle) {
    let moment = disk.now();
    for image in [Some(disk.copy()), disk.image(moment, Survivors::None).ok()] {
        let image = Arc::new(image.expect("the disk has a name"));
        let store = Store::open_on(image, tiny()).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        let found = contents(&store).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let checked = oracle.check(&found, moment);
        checked.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_clean(&store);
        store
            .put(b"after", &bytes(1, 9000))
            .expect("it works again");
    }
}

#[test]
fn each_change_that_fails_once_loses_nothing() {
    let mut failures = 0;
    for number in 1..160 {
        let plan = SimPlan {
            seed: number,
            fail_at: Some(number),
            ..SimPlan::default()
        };
        let (disk, oracle, failed) = run(7, plan);
        failures += u32::from(failed);
        check(number, &disk, &oracle);
    }
    assert!(failures > 50, "{failures}");
}

#[test]
fn random_failures_lose_nothing() {
    let mut failures = 0;
    for seed in 1..150u64 {
        let rate = (seed % 5) as f64 / 50.0;
        let plan = SimPlan {
            seed,
            write_error: rate,
            flush_error: rate / 4.0,
            read_error: rate,
            ..SimPlan::default()
        };
        let (disk, oracle, failed) = run(seed, plan);
        failures += u32::from(failed);
        check(seed, &disk, &oracle);
    }
    assert!(failures > 50, "{failures}");
}
