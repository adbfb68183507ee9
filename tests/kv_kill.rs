//! kill -9 at random times on a real file system: a child commits with tickets and says what is
//! durable through a pipe; what it said is there afterwards, as a prefix of its commits, each whole.
//!
//! `GDS_KV_KILLS=n` rounds; `GDS_KV_NIGHTLY=1` those of a night; `GDS_KV_KILL_MS=n` for a slow file
//! system: a child lives as long at most. A file system that keeps what a
//! killed process wrote shows only what a crash of the process does: for one that forgets what was
//! not synced, such as LazyFS, name a folder of it in `GDS_KV_KILL_DIR` and the command that makes it
//! forget in `GDS_KV_AFTER_KILL`.

#![allow(clippy::print_stdout)]

mod common;
mod kv_driver;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gds_rs::kv::store::{Batch, KvConfig, Store};
use kv_driver::{Random, amount};

/// Where the child finds its store; nobody else sets it.
const STORE: &str = "GDS_KV_KILL_STORE";
/// Keys that the commits go round.
const KEYS: u64 = 40;

fn config() -> KvConfig {
    KvConfig {
        wal_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        superblock_spacing: 4 << 10,
        memtable_bytes: 128 << 10,
        cache_bytes: 1 << 20,
        ..KvConfig::default()
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key {:02}", number * 7 % KEYS).into_bytes()
}

/// The value of commit `number`.
fn value(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let len = match random.below(10) {
        0 => 0,
        1..7 => random.below(1500),
        7..9 => 4000 + random.below(6000),
        _ => random.below(200_000),
    };
    random.bytes(len as usize)
}

/// Commit `number`: its value, now and then a deleted key, and its own number.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(&key(number), &value(number));
    if number.is_multiple_of(5) {
        batch.delete(&key(number + 1));
    }
    batch.put(b"number", &number.to_le_bytes());
    batch
}

fn last_of(store: &Store) -> u64 {
    let found = store.get(b"number").expect("a read");
    found.map_or(0, |v| u64::from_le_bytes(v.try_into().expect("8 bytes")))
}

/// Commits until it is killed. Runs only in a child of the other test.
#[test]
fn child() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let store = Store::open(Path::new(&path), config()).expect("the store opens");
    let (sender, receiver) = std::sync::mpsc::channel::<u64>();
    std::thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        for number in receiver {
            writeln!(out, "durable {number}").expect("a reader");
            out.flush().expect("a reader");
        }
    });
    let mut number = last_of(&store);
    loop {
        number += 1;
        let lsn = store.write_async(&batch(number)).expect("written");
        let told = sender.clone();
        store.on_durable(
            lsn,
            Box::new(move |result| {
                if result.is_ok() {
                    let _ = told.send(number);
                }
            }),
        );
        if number.is_multiple_of(16) {
            store.wait(lsn, None).expect("durable");
        }
        if number.is_multiple_of(300) {
            store.checkpoint().expect("a checkpoint");
        }
    }
}

/// Kills a child that writes to `path` after some time; the last number that it said is durable.
fn kill_round(path: &Path, after: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["child", "--exact", "--nocapture"])
        .env(STORE, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let mut last = 0;
        for line in out.lines() {
            let Ok(line) = line else { break };
            // A line that the kill cut is no number that was told.
            let words: Vec<&str> = line.split(' ').collect();
            if let ["durable", number] = words[..]
                && let Ok(number) = number.parse::<u64>()
            {
                last = last.max(number);
            }
        }
        last
    });
    std::thread::sleep(after);
    // SIGKILL.
    child.kill().expect("killed");
    let status = child.wait().expect("it ended");
    assert!(!status.success(), "the child ended by itself");
    if let Some(command) = std::env::var_os("GDS_KV_AFTER_KILL") {
        let done = Command::new("sh").arg("-c").arg(command).status();
        assert!(done.is_ok_and(|s| s.success()), "GDS_KV_AFTER_KILL fails");
    }
    reader.join().expect("a reader")
}

/// The store holds a prefix of the commits with at least `durable` of them; how many.
fn check(path: &Path, durable: u64) -> u64 {
    let store = Store::open(path, config()).expect("the store opens after a kill");
    let last = last_of(&store);
    assert!(
        last >= durable,
        "{durable} were durable and {last} are there"
    );
    let mut want = std::collections::BTreeMap::new();
    // What a key holds was put in the last rounds over all keys, or it was deleted there.
    for number in last.saturating_sub(4 * KEYS)..=last {
        if number == 0 {
            continue;
        }
        want.insert(key(number), Some(number));
        if number.is_multiple_of(5) {
            want.insert(key(number + 1), None);
        }
    }
    for (key, number) in &want {
        let got = store.get(key).expect("a read");
        assert!(
            got == number.map(value),
            "{} of commits to {last}",
            String::from_utf8_lossy(key)
        );
    }
    let keys = store
        .scan(.., u64::MAX)
        .expect("a scan")
        .map(|item| item.key);
    let there = want.iter().filter(|(_, n)| n.is_some()).count();
    assert_eq!(keys.filter(|k| k != b"number").count(), there);
    let report = store.verify().expect("a report");
    assert!(report.is_clean(), "{report:?}");
    last
}

#[test]
fn what_was_told_durable_is_there_after_kill() {
    let folder = common::Folder::new();
    let path = match std::env::var_os("GDS_KV_KILL_DIR") {
        Some(named) => Path::new(&named).join("store"),
        None => folder.path("store"),
    };
    let mut random = Random(std::process::id().into());
    let (mut last, mut fruitful) = (0, 0);
    let rounds = amount("GDS_KV_KILLS", 50, 1000);
    let longest = amount("GDS_KV_KILL_MS", 250, 250);
    for round in 0..rounds {
        if round % 25 == 24 {
            // Anew, so that making a store is cut too.
            std::fs::remove_file(&path).expect("removed");
            last = 0;
        }
        let told = kill_round(&path, Duration::from_millis(20 + random.below(longest)));
        if !path.exists() {
            assert_eq!(told, 0);
            continue;
        }
        let found = check(&path, told.max(last));
        fruitful += u64::from(found > last);
        last = found;
    }
    println!("{rounds} kills, {fruitful} after new commits");
    assert!(fruitful > rounds / 2, "{fruitful} of {rounds}");
}
