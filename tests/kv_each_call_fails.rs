//! Call number n of the disk fails, for n = 1, 2, 3, ... until none does: once or for good, with
//! an I/O error, for lack of space, or after half of a write. What was acknowledged stays, wrong
//! bytes never come out, and a failed sync ends all writes.

#![allow(clippy::print_stdout)]

mod kv_driver;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gds_rs::ErrorKind;
use gds_rs::kv::selftest::{Map, Oracle};
use gds_rs::kv::sim::{SimDisk, SimPlan, Survivors};
use gds_rs::kv::store::Store;
use kv_driver::{Call, Failing, Pair, Plan, Random, amount, config, reopen};

/// Operations of one run.
const STEPS: u64 = 60;
/// How soon a failure of a thread of the store's is known, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `told`: the store's threads tell a little after a call of theirs failed.
fn wait_until(told: impl Fn() -> bool, else_what: &str) -> Result<(), String> {
    let begin = Instant::now();
    while !told() {
        if begin.elapsed() > PATIENCE {
            return Err(else_what.to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// One run: whether the plan struck.
fn run(plan: Plan, seed: u64) -> Result<bool, String> {
    let sim = Arc::new(SimDisk::new(0));
    let disk = Arc::new(Failing::new(sim.clone(), plan));
    let config = config();
    let store = match Store::create_on(disk.clone(), config.clone()) {
        Ok(store) => store,
        Err(error) => {
            if !kv_driver::FAILURES.contains(&error.kind()) {
                return Err(format!("create answered {:?}: {error}", error.kind()));
            }
            disk.heal();
            // Nothing was promised; it must be a store or none, and can be made again.
            if let Ok(store) = Store::open_on(sim.clone(), config.clone())
                && store.keys() != 0
            {
                return Err("a store that was never made has keys".to_owned());
            }
            let again = Store::create_on(sim, config).map_err(|e| format!("again: {e:?}"))?;
            again.put(b"k", b"v").map_err(|e| format!("put: {e:?}"))?;
            return Ok(true);
        }
    };
    let mut pair = Pair::new(store, Default::default());
    let mut random = Random(seed);
    for _ in 0..STEPS {
        pair.step(&mut random)?;
    }
    pair.check_all()?;
    let struck = disk.struck();
    if matches!(struck, Some(Call::Flush | Call::WriteDurable)) {
        let what = format!("{struck:?} failed and the store goes on");
        wait_until(|| pair.is_poisoned(), &what)?;
        let error = pair.store.put(b"x", b"y").expect_err("poisoned");
        if error.kind() != ErrorKind::Poisoned {
            return Err(format!("a put after {struck:?} failed answers {error:?}"));
        }
    }
    if matches!(struck, Some(Call::Write | Call::Resize))
        && !plan.sticky
        && plan.errno == libc::EIO
        && pair.failures == 0
    {
        // A failure of the background may be made good by a later round; it is remembered.
        let what = format!("{struck:?} failed and nobody was told");
        wait_until(|| pair.store.stats().last_error.is_some(), &what)?;
    }
    drop(pair.store);
    let struck = disk.struck().is_some();
    disk.heal();
    // The process ended; then also the power went.
    for survivors in [
        Survivors::All,
        Survivors::None,
        Survivors::Torn { seed, unit: 512 },
    ] {
        let image = sim
            .image(sim.now(), survivors)
            .map_err(|e| format!("{e:?}"))?;
        let (store, mut found) = reopen(Arc::new(image), &config, &pair.oracle)
            .map_err(|e| format!("{survivors:?}: {e}"))?;
        store
            .put(b"after", &[7; 5000])
            .map_err(|e| format!("{survivors:?}: put: {e:?}"))?;
        found.insert(b"after".to_vec(), vec![7; 5000]);
        if gds_rs::kv::selftest::contents(&store)? != found {
            return Err(format!("{survivors:?}: other contents after a put"));
        }
    }
    Ok(struck)
}

/// Fails one call after the other until none is left; how many.
fn until_clean(sticky: bool, errno: i32, half: bool) -> u64 {
    let mut runs = 0;
    for seed in 0..amount("GDS_KV_CALLS", 1, 8) {
        for at in 1.. {
            let plan = Plan {
                at,
                sticky,
                errno,
                half,
            };
            let struck = run(plan, seed).unwrap_or_else(|e| panic!("{plan:?}, seed {seed}: {e}"));
            runs += 1;
            if !struck {
                break;
            }
            assert!(at < 5000, "calls do not end");
        }
    }
    println!("{runs} runs");
    assert!(runs > 50, "{runs}");
    runs
}

#[test]
fn once_with_an_error() {
    until_clean(false, libc::EIO, false);
}

#[test]
fn once_after_half_a_write() {
    until_clean(false, libc::EIO, true);
}

#[test]
fn from_then_on() {
    until_clean(true, libc::EIO, false);
}

#[test]
fn once_without_space() {
    until_clean(false, libc::ENOSPC, false);
}

#[test]
fn without_space_from_then_on() {
    until_clean(true, libc::ENOSPC, true);
}

/// One opening whose call `at` fails, work after it if it succeeds, and an opening that nothing
/// disturbs: whether the plan struck.
fn opening(image: &SimDisk, model: &Map, plan: Plan, seed: u64) -> Result<bool, String> {
    let sim = Arc::new(image.copy());
    let disk = Arc::new(Failing::new(sim.clone(), plan));
    let opened = Store::open_on(disk.clone(), config());
    let struck = disk.struck().is_some();
    disk.heal();
    let oracle = match opened {
        Ok(store) => {
            let mut pair = Pair::new(store, model.clone());
            let mut random = Random(!seed);
            for _ in 0..STEPS {
                pair.step(&mut random)?;
            }
            pair.check_all()?;
            pair.oracle
        }
        Err(error) if struck && kv_driver::FAILURES.contains(&error.kind()) => {
            let mut oracle = Oracle::of(model.clone());
            oracle.acknowledge(0, 0);
            oracle
        }
        Err(error) => return Err(format!("open answered {:?}: {error}", error.kind())),
    };
    reopen(sim, &config(), &oracle)?;
    Ok(struck)
}

#[test]
fn each_call_of_an_opening() {
    let mut runs = 0;
    for seed in 0..amount("GDS_KV_CALLS", 60, 1000) {
        let sim = Arc::new(SimDisk::new(0));
        let store = Store::create_on(sim.clone(), config()).expect("a store");
        let mut pair = Pair::new(store, Map::default());
        let mut random = Random(seed);
        let said = |e: String| panic!("seed {seed}: {e}");
        for _ in 0..3 * STEPS {
            pair.step(&mut random).unwrap_or_else(said);
        }
        pair.store.sync().expect("synced");
        drop(pair.store);
        for sticky in [false, true] {
            for at in 1.. {
                let (errno, half) = (libc::EIO, false);
                let plan = Plan {
                    at,
                    sticky,
                    errno,
                    half,
                };
                let struck = opening(&sim, &pair.model, plan, seed)
                    .unwrap_or_else(|e| panic!("{plan:?}, seed {seed}: {e}"));
                runs += 1;
                if !struck {
                    break;
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 50, "{runs}");
}

/// The plan of the simulated disk itself, which leaves any part of the write that fails.
#[test]
fn each_change_of_a_simulated_disk() {
    let mut runs = 0;
    for seed in 0..amount("GDS_KV_CALLS", 1, 8) {
        for at in 1.. {
            let sim = Arc::new(SimDisk::new(0));
            let store = Store::create_on(sim.clone(), config()).expect("a store");
            sim.set_plan(SimPlan {
                seed,
                fail_at: Some(at),
                ..SimPlan::default()
            });
            let mut pair = Pair::new(store, Default::default());
            let mut random = Random(seed);
            let said = |e: String| panic!("change {at}, seed {seed}: {e}");
            for _ in 0..STEPS {
                pair.step(&mut random).unwrap_or_else(said);
            }
            pair.check_all().unwrap_or_else(said);
            drop(pair.store);
            let struck = sim.failures() > 0;
            sim.set_plan(SimPlan::default());
            let image = sim.image(sim.now(), Survivors::None).expect("an image");
            reopen(Arc::new(image), &config(), &pair.oracle)
                .map(drop)
                .unwrap_or_else(said);
            runs += 1;
            if !struck {
                break;
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 50, "{runs}");
}
