//! The whole store in thousands of orders that its threads can take, each from a seed: at every
//! lock, atomic and access to the disk shuttle decides who goes on. Writers, readers, snapshots,
//! cleaning and checkpoints at once; a wait that nobody ends is a deadlock, which shuttle reports.
//!
//!     RUSTFLAGS='--cfg gds_shuttle' cargo test --test kv_shuttle
//!
//! `GDS_KV_SCHEDULES=n` orders a test; `GDS_KV_NIGHTLY=1` those of a night.

#![cfg(gds_shuttle)]
#![allow(clippy::print_stdout)]

mod kv_common;
mod kv_driver;

use std::path::Path;
use std::sync::Arc;

use gds_rs::Result;
use gds_rs::kv::disk::{Blocks, Disk};
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{Batch, KvConfig, Located, Store};
use kv_common::{bytes, tiny};
use kv_driver::amount;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread::{self, yield_now};
use shuttle::{Config, MaxSteps, Runner};

/// A disk at which others may go on before and after each access.
#[derive(Debug)]
struct Slow(SimDisk);

impl Slow {
    fn around<R>(&self, access: impl FnOnce(&SimDisk) -> R) -> R {
        yield_now();
        let result = access(&self.0);
        yield_now();
        result
    }
}

impl Disk for Slow {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.around(|disk| disk.resize(size))
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.around(|disk| disk.read(offset, into))
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.around(|disk| disk.write(offset, from))
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.around(|disk| disk.write_durable(offset, from))
    }

    fn flush(&self) -> Result<()> {
        self.around(Disk::flush)
    }

    fn sync_name(&self) -> Result<()> {
        self.around(Disk::sync_name)
    }

    fn discard(&self, offset: u64, size: u64) -> Result<()> {
        self.around(|disk| disk.discard(offset, size))
    }

    fn path(&self) -> Option<&Path> {
        self.0.path()
    }
}

/// Runs `body` in many orders: half of them random, half with few switches at bad moments.
fn orders(share: u64, body: impl Fn() + Send + Sync + 'static) {
    let all = amount("GDS_KV_SCHEDULES", 200, 20_000) / share;
    let body = Arc::new(body);
    let half = usize::try_from(all.max(2) / 2).expect("few");
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let mut config = Config::new();
        config.stack_size = 1 << 20;
        config.max_steps = MaxSteps::FailAfter(10_000_000);
        config.silence_warnings = true;
        let body = Arc::clone(&body);
        Runner::new(scheduler, config).run(move || body())
    };
    let mut ran = run(Box::new(RandomScheduler::new(half)));
    ran += run(Box::new(PctScheduler::new(3, half)));
    println!("{ran} orders");
}

fn store(config: &KvConfig) -> (Arc<Slow>, Store) {
    let sim = SimDisk::new(0);
    sim.record(false);
    let disk = Arc::new(Slow(sim));
    let store = Store::create_on(disk.clone(), config.clone()).expect("a store");
    (disk, store)
}

/// Small, and full enough that space is used again.
fn small() -> KvConfig {
    KvConfig {
        size_bytes: 1 << 20,
        checkpoint_threads: 2,
        ..tiny()
    }
}

/// What lies where a value was found.
fn read(disk: &dyn Disk, located: &Located) -> Vec<u8> {
    if let Some(inline) = &located.inline {
        return inline.to_vec();
    }
    let mut got = Vec::new();
    for piece in &located.pieces {
        let mut blocks = Blocks::new(piece.len as usize).expect("memory");
        disk.read(piece.offset, &mut blocks).expect("a read");
        got.extend_from_slice(&blocks[..piece.len as usize]);
    }
    got
}

fn value(n: u64) -> Vec<u8> {
    // Of the log, of a page, of an extent.
    bytes(n, [40, 3000, 20_000][n as usize % 3])
}

fn is_a_value(got: &[u8], last: u64) -> bool {
    (0..last).any(|n| value(n) == got)
}

fn assert_well(store: &Store) {
    let report = store.verify().expect("verified");
    assert!(report.is_clean(), "{report:?}");
}

const WRITES: u64 = 24;

/// Values that are held and values that are got, while they are replaced and space is cleaned.
fn cleaning_beside_readers() {
    let (disk, store) = store(&small());
    store.put(b"k", &value(0)).expect("put");
    let writer = {
        let store = store.clone();
        thread::spawn(move || {
            for n in 1..WRITES {
                store.put_async(b"k", &value(n)).expect("put");
                store.put_async(b"other", &bytes(n, 9000)).expect("put");
            }
            store.sync().expect("sync");
        })
    };
    let cleaner = {
        let store = store.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                store.checkpoint().expect("checkpoint");
                store.compact().expect("compact");
            }
        })
    };
    for _ in 0..3 {
        let located = store.locate(b"k", 0..u64::MAX).expect("found");
        let located = located.expect("it is there");
        assert!(is_a_value(&read(&*disk, &located), WRITES), "held");
        let got = store.get(b"k").expect("got").expect("it is there");
        assert!(is_a_value(&got, WRITES), "got");
        assert!(is_a_value(&read(&*disk, &located), WRITES), "still held");
    }
    writer.join().expect("well");
    cleaner.join().expect("well");
    let last = store.get(b"k").expect("got");
    assert!(last.as_ref() == Some(&value(WRITES - 1)));
    assert_well(&store);
}

#[test]
fn cleaning_never_takes_what_readers_hold() {
    orders(1, cleaning_beside_readers);
}

/// A commit of several keys is seen whole by snapshots and scans, whatever goes on.
#[test]
fn snapshots_and_scans_see_whole_commits() {
    orders(2, || {
        let (_, store) = store(&KvConfig {
            checkpoint_threads: 2,
            ..tiny()
        });
        let commit = |store: &Store, n: u64| {
            let mut batch = Batch::new();
            for key in [b"a", b"b", b"c"] {
                batch.put(key, &value(n));
            }
            store.write_async(&batch).expect("committed");
        };
        commit(&store, 0);
        let writer = {
            let store = store.clone();
            thread::spawn(move || (1..8).for_each(|n| commit(&store, n)))
        };
        let keeper = {
            let store = store.clone();
            thread::spawn(move || {
                store.checkpoint().expect("checkpoint");
                store.checkpoint().expect("checkpoint");
            })
        };
        for _ in 0..2 {
            let snapshot = store.snapshot().expect("a snapshot");
            let seen = snapshot.get(b"a").expect("got").expect("there");
            let again = snapshot.get(b"c").expect("got").expect("there");
            assert!(seen == again && is_a_value(&seen, 8));
            let mut scan = store.scan(.., u64::MAX).expect("a scan");
            let mut first = None;
            let mut entries = 0;
            while let Some(entry) = scan.next_entry().expect("an entry") {
                let first = first.get_or_insert_with(|| entry.value.to_vec());
                assert!(entry.value == &first[..]);
                entries += 1;
            }
            assert_eq!(entries, 3);
        }
        writer.join().expect("well");
        keeper.join().expect("well");
        assert_well(&store);
    });
}

/// A snapshot that goes takes old versions with it: no damage to whoever verifies.
#[test]
fn verification_beside_snapshots_that_go_finds_nothing() {
    orders(4, || {
        let (_, store) = store(&tiny());
        store.put(b"k", &bytes(1, 9000)).expect("put");
        let snapshot = store.snapshot().expect("a snapshot");
        store.put(b"k", &bytes(2, 9000)).expect("put");
        let going = thread::spawn(move || drop(snapshot));
        assert_well(&store);
        going.join().expect("well");
    });
}

/// Waiters are woken, what they waited for is durable, and a store that ends at work keeps it.
#[test]
fn commits_are_durable_when_waiters_wake_and_the_store_ends() {
    orders(2, || {
        let config = tiny();
        let (disk, store) = store(&config);
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let store = store.clone();
                thread::spawn(move || {
                    for n in 0..4 {
                        let key = [b'0' + writer as u8, b'0' + n as u8];
                        let lsn = store.put(&key, &value(n)).expect("put");
                        assert!(store.durable_lsn() >= lsn);
                    }
                })
            })
            .collect();
        let ending = store.clone();
        let last = thread::spawn(move || drop(ending));
        writers.into_iter().for_each(|w| w.join().expect("well"));
        drop(store);
        last.join().expect("well");
        let store = Store::open_on(disk, config.clone()).expect("opens");
        assert_eq!(store.keys(), 12);
        for n in 0..4 {
            let got = store.get(&[b'1', b'0' + n as u8]).expect("got");
            assert!(got == Some(value(n)));
        }
        assert_well(&store);
    });
}
