//! Crashes: at every moment of a workload, everything that a disk may have kept opens again and
//! holds what was acknowledged, as a prefix of the commits, each whole.
//!
//! `GDS_KV_CRASH=n` looks at n times as many workloads; `GDS_KV_NIGHTLY=1` at those of a night.

mod kv_common;
mod kv_driver;

use std::sync::Arc;
use std::time::Duration;

use gds_rs::kv::disk::Disk;
use gds_rs::kv::sim::{SimDisk, Survivors};
use gds_rs::kv::store::Store;
use kv_common::crash::{Effort, Workload, check_images, run};
use kv_common::tiny;

fn times() -> u64 {
    kv_driver::amount("GDS_KV_CRASH", 2, 20)
}

fn all(workloads: impl Iterator<Item = Workload>, effort: Effort) -> usize {
    let mut images = 0;
    for workload in workloads {
        let run = run(workload).unwrap_or_else(|e| panic!("{workload:?}: {e}"));
        images += check_images(&run, effort).unwrap_or_else(|e| panic!("{workload:?}: {e}"));
    }
    images
}

#[test]
fn every_prefix_of_a_growing_store_recovers() {
    let workloads = (1..1 + 2 * times()).map(|seed| Workload {
        seed,
        operations: 60,
        size_bytes: 0,
        delay: Duration::ZERO,
        value_max: 20_000,
    });
    let effort = Effort {
        step: 1,
        subsets: 0,
        tears: 0,
        thorough: 8,
        second: 0,
    };
    let images = all(workloads, effort);
    println!("{images} images");
    assert!(images > 200, "{images}");
}

#[test]
fn lost_and_torn_writes_recover() {
    let workloads = (11..11 + 2 * times()).map(|seed| Workload {
        seed,
        operations: 60,
        size_bytes: 0,
        delay: Duration::ZERO,
        value_max: 12_000,
    });
    let effort = Effort {
        step: 3,
        subsets: 4,
        tears: 2,
        thorough: 16,
        second: 0,
    };
    let images = all(workloads, effort);
    println!("{images} images");
    assert!(images > 500, "{images}");
}

#[test]
fn a_nearly_full_store_recovers() {
    let workloads = (21..21 + 2 * times()).map(|seed| Workload {
        seed,
        operations: 150,
        size_bytes: 1 << 20,
        delay: Duration::from_micros(200),
        value_max: 60_000,
    });
    let effort = Effort {
        step: 4,
        subsets: 2,
        tears: 1,
        thorough: 16,
        second: 0,
    };
    let images = all(workloads, effort);
    println!("{images} images");
    assert!(images > 500, "{images}");
}

#[test]
fn a_second_crash_during_recovery_changes_nothing() {
    let workloads = (31..31 + times()).map(|seed| Workload {
        seed,
        operations: 50,
        size_bytes: 0,
        delay: Duration::ZERO,
        value_max: 8000,
    });
    let effort = Effort {
        step: 5,
        subsets: 1,
        tears: 1,
        thorough: 1000,
        second: 6,
    };
    let images = all(workloads, effort);
    println!("{images} images");
    assert!(images > 300, "{images}");
}

#[test]
fn a_crash_while_a_store_is_made_leaves_one_or_none() {
    let disk = Arc::new(SimDisk::new(0));
    drop(Store::create_on(disk.clone(), tiny()).expect("works"));
    let mut images = 0;
    for moment in 0..=disk.now() {
        for survivors in [Survivors::None, Survivors::All, Survivors::Some { seed: 3 }] {
            let image: Arc<dyn Disk> = Arc::new(disk.image(moment, survivors).expect("works"));
            let store = Store::open_or_create_on(image, tiny());
            let store = store.unwrap_or_else(|e| panic!("{moment} {survivors:?}: {e:?}"));
            store.put(b"a", b"1").expect("works");
            images += 1;
        }
    }
    assert!(images > 100, "{images}");
}
