//! Long runs on disks that fail at random, from a seed: after each failed sync or power cut the
//! store is opened again and goes on. Nothing acknowledged is lost, and no wrong byte comes out.
//!
//! `GDS_KV_SEEDS=n` seeds; `GDS_KV_NIGHTLY=1` those of a night; `GDS_KV_SEED=s` only that one.

#![allow(clippy::print_stdout)]

mod kv_driver;

use std::sync::Arc;

use gds_rs::kv::disk::Disk;
use gds_rs::kv::selftest::Map;
use gds_rs::kv::sim::{SimDisk, SimPlan, Survivors, TEAR_ANYWHERE, TEAR_BLOCK, TEAR_SECTOR};
use gds_rs::kv::store::{KvConfig, Store};
use kv_driver::{Pair, Random, amount, config, nightly, reopen};

#[derive(Default)]
struct Counts {
    operations: u64,
    failures: u64,
    crashes: u64,
}

fn plan(random: &mut Random) -> SimPlan {
    // Half of the runs fail seldom, so that they get far.
    let most = [2, 20, 100][random.below(3) as usize];
    let mut rate = || random.below(most + 1) as f64 / 1000.0;
    let (write_error, flush_error, read_error) = (rate(), rate() / 4.0, rate());
    SimPlan {
        seed: random.next(),
        write_error,
        flush_error,
        read_error,
        ..SimPlan::default()
    }
}

/// Ends the process, and in two of three cases the power with it; opens what is left.
fn crash(
    pair: Pair,
    disk: &Arc<SimDisk>,
    random: &mut Random,
    config: &KvConfig,
) -> Result<(Arc<SimDisk>, Store, Map), String> {
    let Pair { store, oracle, .. } = pair;
    // Half of the crashes come while the threads of the store still run.
    let at = disk.now();
    let early = random.below(2) == 0;
    if !early {
        drop(store);
    }
    let seed = random.next();
    let survivors = match random.below(5) {
        0 => Survivors::All,
        1 => Survivors::None,
        2 => Survivors::Some { seed },
        n => {
            let unit = [TEAR_SECTOR, TEAR_BLOCK, TEAR_ANYWHERE][(n as usize + seed as usize) % 3];
            Survivors::Torn { seed, unit }
        }
    };
    let moment = if early { at } else { disk.now() };
    let image = disk
        .image(moment, survivors)
        .map_err(|e| format!("{e:?}"))?;
    let image = Arc::new(image);
    // An opening may fail on a disk that fails; the next may not have lost anything by that.
    let tries = random.below(3);
    for _ in 0..tries {
        image.set_plan(plan(random));
        if let Ok(store) = Store::open_on(image.clone(), config.clone()) {
            drop(store);
        }
    }
    image.set_plan(SimPlan::default());
    let (store, found) = reopen(image.clone(), config, &oracle)
        .map_err(|e| format!("{survivors:?} at {moment}, early {early}, tries {tries}: {e}"))?;
    Ok((image, store, found))
}

fn run(seed: u64, counts: &mut Counts) -> Result<(), String> {
    let mut random = Random(seed);
    let config = KvConfig {
        // Some are small and full, others grow.
        size_bytes: [0, 0, 1 << 20][random.below(3) as usize],
        checkpoint_threads: 1 + (seed % 2) as usize,
        ..config()
    };
    let mut disk = Arc::new(SimDisk::new(0));
    let store = Store::create_on(disk.clone(), config.clone()).map_err(|e| format!("{e:?}"))?;
    disk.settle();
    disk.set_plan(plan(&mut random));
    let mut pair = Pair::new(store, Map::new());
    let operations = 500 + if nightly() { random.below(1500) } else { 0 };
    for number in 0..operations {
        let said = |e: String| format!("operation {number}: {e}");
        pair.step(&mut random).map_err(said)?;
        counts.operations += 1;
        if pair.is_poisoned() && random.below(4) == 0 || random.below(150) == 0 {
            pair.check_all().map_err(said)?;
            counts.failures += disk.failures();
            let (next, store, found) = crash(pair, &disk, &mut random, &config).map_err(said)?;
            counts.crashes += 1;
            disk = next;
            disk.settle();
            disk.set_plan(plan(&mut random));
            pair = Pair::new(store, found);
        }
    }
    disk.set_plan(SimPlan::default());
    pair.check_all()?;
    assert!(disk.size() > 0);
    crash(pair, &disk, &mut random, &config).map(drop)
}

#[test]
fn stores_on_failing_disks_lose_nothing() {
    let only = std::env::var("GDS_KV_SEED")
        .ok()
        .and_then(|s| s.parse::<u64>().ok());
    let seeds = match only {
        Some(seed) => vec![seed],
        None => (0..amount("GDS_KV_SEEDS", 2000, 10_000)).collect(),
    };
    let threads = 2.min(seeds.len());
    let all = std::thread::scope(|scope| {
        let seeds = &seeds;
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut counts = Counts::default();
                    for seed in seeds.iter().skip(thread).step_by(threads) {
                        run(*seed, &mut counts).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    }
                    counts
                })
            })
            .collect();
        running
            .into_iter()
            .fold(Counts::default(), |mut all, thread| {
                let counts = thread.join().expect("no thread fails");
                all.operations += counts.operations;
                all.failures += counts.failures;
                all.crashes += counts.crashes;
                all
            })
    });
    let (operations, failures, crashes) = (all.operations, all.failures, all.crashes);
    println!(
        "{} seeds, {operations} operations, {failures} failures, {crashes} crashes",
        seeds.len()
    );
    let many = 3 * seeds.len() as u64;
    assert!(
        only.is_some() || failures > many && crashes > many,
        "{failures} {crashes}"
    );
}
