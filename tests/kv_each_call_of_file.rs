//! A store in a real file over I/O that fails: for lack of space after every so many bytes, at
//! every part of the file, in syncs, with short and interrupted calls. What was acknowledged is
//! there when the file is opened again; harmless interruptions are not even seen.

#![allow(clippy::print_stdout)]

mod common;
mod kv_driver;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gds_rs::ErrorKind;
use gds_rs::io::OpenMode;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::kv::disk::FileDisk;
use gds_rs::kv::selftest::Map;
use gds_rs::kv::store::{KvConfig, Store};
use kv_driver::{Pair, Random, amount, config, reopen};

fn disk(path: &Path, fault: &Arc<Fault>) -> gds_rs::Result<Arc<FileDisk>> {
    let mode = OpenMode {
        read: true,
        write: true,
        create: true,
        truncate: false,
        exclusive: false,
    };
    FileDisk::open(path, mode, fault.clone()).map(Arc::new)
}

/// Runs operations while the plan holds, then opens the file without it; failures that were seen.
fn run(path: &Path, plan: FaultPlan, seed: u64) -> (u64, Arc<Fault>) {
    let (failures, fault, _) = run_and_tell(path, plan, seed, config());
    (failures, fault)
}

fn run_and_tell(
    path: &Path,
    plan: FaultPlan,
    seed: u64,
    config: KvConfig,
) -> (u64, Arc<Fault>, Option<gds_rs::Error>) {
    let said = |e: String| panic!("{plan:?}, seed {seed}: {e}");
    let _ = std::fs::remove_file(path);
    let fault = Arc::new(Fault::new(Arc::new(Posix), FaultPlan::default()));
    let store = Store::create_on(disk(path, &fault).expect("a file"), config.clone());
    let store = store.expect("a store");
    fault.set_plan(plan.clone());
    let mut pair = Pair::new(store, Map::new());
    let mut random = Random(seed);
    for _ in 0..50 {
        pair.step(&mut random).unwrap_or_else(said);
    }
    pair.check_all().unwrap_or_else(said);
    let failures = pair.failures;
    let last = pair.last_failure.take();
    drop(pair.store);
    fault.set_plan(FaultPlan::default());
    let again = disk(path, &fault).expect("the file opens again");
    let (store, found) = reopen(again, &config, &pair.oracle).unwrap_or_else(|e| {
        panic!("{plan:?}, seed {seed}: {e}");
    });
    assert!(found.len() <= pair.model.len() + 14);
    store
        .put(b"after", &[3; 6000])
        .expect("it takes writes again");
    (failures, fault, last)
}

#[test]
fn space_ends_at_every_block() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let step = if kv_driver::nightly() { 1 } else { 9 };
    let (mut struck, mut runs) = (0, 0);
    for blocks in (0..4000u64).step_by(step) {
        let plan = FaultPlan {
            no_space_after: Some(blocks * 4096),
            ..FaultPlan::default()
        };
        let (_, fault) = run(&path, plan, blocks);
        runs += 1;
        if fault.counts().no_space == 0 {
            break;
        }
        struck += 1;
    }
    println!("{runs} runs, space ended in {struck}");
    assert!(struck >= 3 && struck < runs, "{struck} of {runs}");
}

#[test]
fn every_part_of_the_file_fails() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let (mut runs, mut failures, mut seen) = (0, 0, 0);
    // Superblocks, the log and the first segments.
    for block in (0..80u64).step_by(if kv_driver::nightly() { 1 } else { 4 }) {
        let plan = FaultPlan {
            io_error_at: Some(block * 4096..block * 4096 + 4096),
            ..FaultPlan::default()
        };
        let (failed, fault) = run(&path, plan, block);
        runs += 1;
        failures += fault.counts().io_errors;
        seen += u64::from(failed > 0);
    }
    println!("{runs} runs, {failures} failures, seen in {seen}");
    assert!(failures > 10 && seen > 5, "{failures} {seen}");
}

#[test]
fn syncs_and_torn_writes_fail() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let (mut failures, mut seen) = (0, 0);
    let seeds = amount("GDS_KV_FILE_SEEDS", 20, 400);
    for seed in 0..seeds {
        let plan = FaultPlan {
            seed,
            sync_error: if seed.is_multiple_of(2) { 0.1 } else { 0.0 },
            torn_write: if seed % 2 == 1 { 0.05 } else { 0.0 },
            ..FaultPlan::default()
        };
        let (failed, fault) = run(&path, plan, seed);
        let counts = fault.counts();
        failures += counts.sync_errors + counts.torn_errors;
        seen += u64::from(failed > 0);
    }
    println!("{seeds} runs, {failures} failures, seen in {seen}");
    assert!(failures > seeds / 4, "{failures}");
}

#[test]
fn short_and_interrupted_calls_are_not_seen() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let mut struck = 0;
    for seed in 0..amount("GDS_KV_FILE_SEEDS", 12, 200) {
        let plan = FaultPlan {
            seed,
            // Reads of whole blocks past the page cache are not cut at odd bytes: no short_read.
            sector: 4096,
            short_write: 0.3,
            interrupted: 0.2,
            ..FaultPlan::default()
        };
        // A checkpoint on a disk that is busy with other things takes long: that is no failure.
        let patient = KvConfig {
            stall: Duration::from_secs(60),
            ..config()
        };
        let (failed, fault, last) = run_and_tell(&path, plan, seed, patient);
        assert_eq!(failed, 0, "seed {seed}: may be done again: {last:?}");
        let counts = fault.counts();
        struck += counts.short_writes + counts.interrupted;
    }
    assert!(struck > 100, "{struck}");
}

#[test]
fn power_that_goes_takes_what_no_sync_covered() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let mut undone = 0;
    for seed in 0..amount("GDS_KV_FILE_SEEDS", 20, 400) {
        let _ = std::fs::remove_file(&path);
        let fault = Arc::new(Fault::new(Arc::new(Posix), FaultPlan::default()));
        let store = Store::create_on(disk(&path, &fault).expect("a file"), config());
        let store = store.expect("a store");
        fault.set_plan(FaultPlan {
            seed,
            undo: true,
            ..FaultPlan::default()
        });
        let mut pair = Pair::new(store, Map::new());
        let mut random = Random(seed ^ 0xabcd);
        for _ in 0..40 {
            pair.step(&mut random)
                .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
        // Written when the log is quiet, whose next write would sync it, and never committed.
        pair.store.sync().expect("durable");
        std::thread::sleep(Duration::from_millis(30));
        let mut writer = pair.store.put_writer(b"given up", 0).expect("a writer");
        writer.write(&vec![5; 5_000_000]).expect("written");
        drop(writer);
        drop(pair.store);
        undone += fault.crash().expect("undone");
        fault.set_plan(FaultPlan::default());
        let again = disk(&path, &fault).expect("the file opens again");
        reopen(again, &config(), &pair.oracle)
            .map(drop)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    println!("{undone} writes were undone");
    assert!(undone >= 20, "{undone}");
}

#[test]
fn one_store_is_opened_once_and_again_when_it_is_let_go() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let store = Store::open(&path, config()).expect("a store");
    let error = Store::open(&path, config()).expect_err("it is open");
    assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
    assert!(error.message().contains("store"), "{error}");
    let other = store.clone();
    drop(store);
    assert!(Store::open(&path, config()).is_err(), "a clone holds it");
    other.put(b"k", b"v").expect("put");
    drop(other);
    let store = Store::open(&path, config()).expect("nobody holds it");
    assert_eq!(store.get(b"k").expect("a read"), Some(b"v".to_vec()));
}
