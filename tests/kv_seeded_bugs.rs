//! The crash tests of the store find each of the mistakes that are built in on purpose.
//!
//! One test, since a mistake is switched on for the whole process.

mod kv_common;

use std::sync::Arc;
use std::time::Duration;

use gds_rs::kv::bugs::{Bug, turn_off, turn_on};
use gds_rs::kv::sim::{SimDisk, SimPlan, Survivors};
use gds_rs::kv::store::Store;
use gds_rs::kv::superblock::Superblock;
use kv_common::crash::{Effort, Oracle, Run, Workload, check_images, contents, read_located, run};
use kv_common::{Random, bytes};

/// A check says what is wrong.
type Check = fn() -> Result<(), String>;

fn images(workload: Workload, effort: Effort) -> Result<(), String> {
    check_images(&run(workload)?, effort).map(drop)
}

/// A store that grows: every prefix.
fn growing() -> Result<(), String> {
    let effort = Effort {
        step: 1,
        subsets: 1,
        tears: 0,
        thorough: 20,
        second: 0,
    };
    (101..103).try_for_each(|seed| {
        let workload = Workload {
            seed,
            operations: 50,
            size_bytes: 0,
            delay: Duration::ZERO,
            value_max: 20_000,
        };
        images(workload, effort)
    })
}

/// A slow disk: between a batch's making and its being durable there is time to see it.
fn slow() -> Result<(), String> {
    let effort = Effort {
        step: 1,
        subsets: 0,
        tears: 0,
        thorough: 50,
        second: 0,
    };
    let workload = Workload {
        seed: 151,
        operations: 60,
        size_bytes: 0,
        delay: Duration::from_micros(500),
        value_max: 9000,
    };
    images(workload, effort)
}

/// A full store on a slow disk, whose space is used again as soon as it may be, and readers that
/// hold values.
fn reuse() -> Result<(), String> {
    let config = Workload {
        seed: 0,
        operations: 0,
        size_bytes: 928 << 10,
        delay: Duration::ZERO,
        value_max: 0,
    }
    .config();
    let said = |e: gds_rs::Error| format!("{e:?}");
    let disk = Arc::new(SimDisk::new(0));
    let store = Store::create_on(disk.clone(), config.clone()).map_err(said)?;
    let delay = Duration::from_millis(1);
    disk.set_plan(SimPlan {
        delay,
        ..SimPlan::default()
    });
    let mut oracle = Oracle::default();
    oracle.acknowledge(disk.now(), 0);
    let mut random = Random(99);
    let mut held = None;
    for n in 0..120u64 {
        let key = vec![random.below(4) as u8];
        let value = bytes(n, 50_000);
        let lsn = store.put_async(&key, &value).map_err(said)?;
        oracle.commit(lsn, vec![(key.clone(), Some(value.clone()))]);
        if n % 10 == 0 {
            let located = store.locate(&key, 0..u64::MAX).map_err(said)?;
            held = located.map(|located| (located, value));
        }
        if let Some((located, value)) = &held
            && read_located(&disk, located) != *value
        {
            return Err(format!("put {n}: a value that is held was written over"));
        }
        oracle.acknowledge(disk.now(), store.durable_lsn());
    }
    drop((held, store));
    let run = Run {
        disk,
        oracle,
        config,
    };
    let effort = Effort {
        step: 2,
        subsets: 0,
        tears: 0,
        thorough: 100,
        second: 0,
    };
    check_images(&run, effort).map(drop)
}

/// Each opening has an epoch of its own, so no batch of another run can be taken for its own.
fn epochs() -> Result<(), String> {
    let workload = Workload {
        seed: 301,
        operations: 20,
        size_bytes: 0,
        delay: Duration::ZERO,
        value_max: 5000,
    };
    let run = run(workload)?;
    let epoch = |disk: &gds_rs::kv::sim::SimDisk| -> Result<u32, String> {
        let superblock = Superblock::read_quorum(disk).map_err(|e| format!("{e:?}"))?;
        Ok(superblock.wal.epoch)
    };
    for moment in (0..=run.disk.now()).rev().step_by(7).take(10) {
        let image = run
            .disk
            .image(moment, Survivors::None)
            .map_err(|e| format!("{e:?}"))?;
        let before = epoch(&image)?;
        let image = Arc::new(image);
        let store = Store::open_on(image.clone(), run.config.clone());
        drop(store.map_err(|e| format!("{e:?}"))?);
        if epoch(&image)? <= before {
            return Err(format!("moment {moment}: two runs write in epoch {before}"));
        }
    }
    Ok(())
}

/// Changed bytes are found or do not matter, wherever they are.
fn flips() -> Result<(), String> {
    let workload = Workload {
        seed: 401,
        operations: 60,
        size_bytes: 0,
        delay: Duration::ZERO,
        value_max: 30_000,
    };
    let run = run(workload)?;
    let want = run.oracle.now();
    let size = gds_rs::kv::disk::Disk::size(&*run.disk);
    let mut random = Random(77);
    for _ in 0..600 {
        let disk = run.disk.copy();
        let at = random.below(size);
        disk.flip(at, 1 << random.below(8));
        let Ok(store) = Store::open_on(Arc::new(disk), run.config.clone()) else {
            continue;
        };
        for (key, value) in &want {
            // An error is an answer; other bytes are not, and nor is an older value.
            if store.get(key).is_ok_and(|got| got.as_ref() != Some(value)) {
                return Err(format!(
                    "a bit flipped at {at}, and {key:?} is something else"
                ));
            }
        }
        let found = contents(&store);
        if found.is_ok_and(|found| found != want) {
            return Err(format!(
                "a bit flipped at {at}, and the store holds something else"
            ));
        }
    }
    Ok(())
}

#[test]
fn each_mistake_is_found_and_without_it_nothing_is() {
    let cases: [(Bug, Check); 8] = [
        (Bug::SkippedFlush, growing),
        (Bug::AckBeforePrefix, slow),
        (Bug::NoEpochBump, epochs),
        (Bug::MissingDirSync, growing),
        (Bug::FreeBeforeDurable, reuse),
        (Bug::HeaderBeforeExtension, growing),
        (Bug::ChecksumSkipped, flips),
        (Bug::ReusedPinnedExtent, reuse),
    ];
    for check in [growing as Check, slow, reuse, epochs, flips] {
        check().unwrap_or_else(|e| panic!("without a mistake: {e}"));
    }
    for (bug, check) in cases {
        turn_on(bug);
        let found = std::panic::catch_unwind(check);
        turn_off(bug);
        match found {
            Ok(Err(what)) => println!("{bug:?}: {what}"),
            Ok(Ok(())) => panic!("{bug:?} went unnoticed"),
            Err(_) => panic!("{bug:?} was not noticed but ended in a panic"),
        }
    }
}
