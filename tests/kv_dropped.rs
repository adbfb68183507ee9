//! Things of a store that are dropped, given up or outlive it: writers, batches, tickets,
//! snapshots, located values, callbacks, the store itself while it works.

#![allow(clippy::print_stdout)]

mod kv_driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use gds_rs::ErrorKind;
use gds_rs::kv::disk::{Blocks, Disk};
use gds_rs::kv::selftest::{Map, contents};
use gds_rs::kv::sim::{SimDisk, SimPlan};
use gds_rs::kv::store::Store;
use kv_driver::{Random, amount, config};

fn fresh(delay: Duration) -> (Arc<SimDisk>, Store) {
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_on(disk.clone(), config()).expect("a store");
    disk.set_plan(SimPlan {
        delay,
        ..SimPlan::default()
    });
    (disk, store)
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_and_its_space_comes_back() {
    let (_, store) = fresh(Duration::ZERO);
    store.put(b"old", &[1; 9000]).expect("put");
    let before = store.stats().live_bytes;
    let mut random = Random(1);
    for round in 0..amount("GDS_KV_DROPS", 300, 10_000) {
        let mut writer = store
            .put_writer(b"old", random.below(200_000))
            .expect("a writer");
        for _ in 0..random.below(6) {
            let part = random.bytes(random.0 as usize % 30_000);
            writer.write(&part).expect("written");
        }
        drop(writer);
        if round.is_multiple_of(50) {
            assert_eq!(store.get(b"old").expect("a read"), Some(vec![1; 9000]));
        }
    }
    store.checkpoint().expect("a checkpoint");
    let stats = store.stats();
    assert_eq!((stats.live_bytes, stats.pins), (before, 0));
    // What was given up does not make the file grow without end.
    assert!(stats.size_bytes < 4 << 20, "{} bytes", stats.size_bytes);
    assert!(store.verify().expect("a report").is_clean());
}

#[test]
fn a_store_that_is_dropped_at_work_ends_soon_and_keeps_what_was_committed() {
    for seed in 0..amount("GDS_KV_DROPS", 60, 2000) {
        let (disk, store) = fresh(Duration::from_micros(300));
        let mut random = Random(seed);
        let mut want = Map::new();
        let told = Arc::new(AtomicU64::new(0));
        let calls = random.below(30) + 1;
        for n in 0..calls {
            let (key, value) = (
                vec![random.below(9) as u8],
                random.bytes((n * 311) as usize),
            );
            let lsn = store.put_async(&key, &value).expect("put");
            let told = told.clone();
            store.on_durable(
                lsn,
                Box::new(move |result| {
                    assert!(result.is_ok());
                    told.fetch_add(1, SeqCst);
                }),
            );
            want.insert(key, value);
        }
        if random.below(3) == 0 {
            let _ = store.checkpoint();
        }
        drop(store);
        assert_eq!(
            told.load(SeqCst),
            calls,
            "every callback is called, seed {seed}"
        );
        disk.set_plan(SimPlan::default());
        let store = Store::open_on(disk, config()).expect("the store opens");
        assert!(
            contents(&store).expect("all is there") == want,
            "seed {seed}"
        );
    }
}

#[test]
fn waiting_with_a_deadline_gives_up_and_harms_nothing() {
    let (_, store) = fresh(Duration::from_millis(20));
    for n in 0..10u8 {
        let lsn = store.put_async(&[n], &[n; 100]).expect("put");
        let error = store.wait(lsn, Some(Instant::now()));
        if let Err(error) = error {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        store.wait(lsn, None).expect("durable in the end");
        assert!(store.durable_lsn() >= lsn);
    }
}

#[test]
fn snapshots_scans_and_located_values_outlive_the_store() {
    let (disk, store) = fresh(Duration::ZERO);
    let value = Random(4).bytes(50_000);
    store.put(b"large", &value).expect("put");
    store.put(b"small", b"s").expect("put");
    let snapshot = Arc::new(store.snapshot().expect("a snapshot"));
    let located = store
        .locate(b"large", 0..u64::MAX)
        .expect("located")
        .expect("there");
    let mut scan = Store::scan_at(&snapshot, .., u64::MAX).expect("a scan");
    let first = scan.next().expect("a key");
    for n in 0..40u8 {
        store.put(b"large", &[n; 40_000]).expect("put");
    }
    store.delete(b"small").expect("deleted");
    let _ = store.compact();
    drop(store);
    assert_eq!(snapshot.get(b"large").expect("a read"), Some(value.clone()));
    assert_eq!(snapshot.get(b"small").expect("a read"), Some(b"s".to_vec()));
    assert_eq!(first.value().expect("a read"), value);
    assert_eq!(scan.next().map(|item| item.key), Some(b"small".to_vec()));
    let mut read: Vec<u8> = Vec::new();
    for piece in &located.pieces {
        let mut blocks = Blocks::new(piece.len as usize).expect("memory");
        disk.read(piece.offset, &mut blocks).expect("a read");
        read.extend(&blocks[..piece.len as usize]);
    }
    assert!(read == value, "held bytes were written over");
    drop((snapshot, scan, first, located));
    let store = Store::open_on(disk, config()).expect("the store opens");
    assert_eq!(store.get(b"large").expect("a read"), Some(vec![39; 40_000]));
    assert_eq!(store.get(b"small").expect("a read"), None);
}

#[test]
fn callbacks_of_a_failed_log_are_told() {
    let (disk, store) = fresh(Duration::ZERO);
    disk.set_plan(SimPlan {
        write_error: 1.0,
        ..SimPlan::default()
    });
    let told = Arc::new(AtomicU64::new(0));
    for n in 0..5u8 {
        let Ok(lsn) = store.put_async(&[n], b"v") else {
            break;
        };
        let told = told.clone();
        store.on_durable(
            lsn,
            Box::new(move |result| {
                assert_eq!(result.expect_err("failed").kind(), ErrorKind::Poisoned);
                told.fetch_add(1, SeqCst);
            }),
        );
    }
    drop(store);
    assert!(told.load(SeqCst) >= 1);
}
