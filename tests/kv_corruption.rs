//! Changed bytes anywhere on the disk: found, or they change nothing. Never other bytes, never an
//! older state, never a panic. Flipped bits, blocks of zeros, blocks from elsewhere, blocks as
//! they were before.
//!
//! `GDS_KV_NIGHTLY=1` looks at every byte; otherwise at every byte of headers and a part of the
//! rest.

#![allow(clippy::print_stdout)]

mod kv_driver;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gds_rs::ErrorKind;
use gds_rs::base::crc::crc32c;
use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::selftest::{Map, contents};
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{Batch, KvConfig, Store};
use gds_rs::kv::superblock::{COPIES, Superblock};
use kv_driver::{Random, config, nightly};

/// A closed store with values of all kinds: in pages, in extents, in a list of runs, and in the
/// log alone; deleted keys too.
struct Quiet {
    disk: SimDisk,
    /// The disk before the last round of changes.
    older: SimDisk,
    want: Map,
    config: KvConfig,
    superblock: Superblock,
    /// Where the bytes of large values lie: key, offset, bytes.
    pieces: Vec<(Vec<u8>, u64, u64)>,
}

fn quiet() -> Quiet {
    let config = KvConfig {
        // Long enough that values with a list of runs fit.
        wal_bytes: 128 << 10,
        ..config()
    };
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_on(disk.clone(), config.clone()).expect("a store");
    let mut random = Random(5);
    let mut want = Map::new();
    let mut older = None;
    for round in 0..3 {
        for n in 0..24u64 {
            let key = format!("key {n:02}").into_bytes();
            let len = match n % 6 {
                0 => 0,
                1 | 2 => 30 + random.below(500),
                3 => 4000,
                4 => 5000 + random.below(9000),
                _ => 100_000 + random.below(100_000),
            };
            if (n + round).is_multiple_of(7) {
                store.delete(&key).expect("deleted");
                want.remove(&key);
                continue;
            }
            let value = random.bytes(len as usize);
            store.put(&key, &value).expect("put");
            want.insert(key, value);
        }
        if round == 1 {
            store.checkpoint().expect("a checkpoint");
            std::thread::sleep(Duration::from_millis(30));
            older = Some(disk.copy());
        }
        if round == 2 {
            store.checkpoint().expect("a checkpoint");
        }
    }
    // After the checkpoint: in the log alone.
    for n in 0..6u64 {
        let (key, value) = (
            format!("late {n}").into_bytes(),
            random.bytes(200 + 90 * n as usize),
        );
        let mut batch = Batch::new();
        batch.put(&key, &value).put(b"last", &value[..100]);
        store.write(&batch).expect("written");
        want.insert(b"last".to_vec(), value[..100].to_vec());
        want.insert(key, value);
    }
    let mut pieces = Vec::new();
    for key in want.keys() {
        let located = store
            .locate(key, 0..u64::MAX)
            .expect("located")
            .expect("there");
        for piece in &located.pieces {
            pieces.push((key.clone(), piece.offset, piece.len));
        }
    }
    // The empty batch that says that the last one is durable.
    std::thread::sleep(Duration::from_millis(60));
    let copy = disk.copy();
    drop(store);
    let superblock = Superblock::read_quorum(&copy).expect("a superblock");
    let quiet = Quiet {
        disk: copy,
        older: older.expect("two rounds"),
        want,
        config,
        superblock,
        pieces,
    };
    assert!(quiet.judge(quiet.disk.copy(), "nothing").is_empty());
    quiet
}

impl Quiet {
    /// What a damaged disk answers, in words where it is wrong: the store is refused, or each key
    /// is refused or what it was. Gives the keys that were refused; all of them where the store
    /// was.
    fn judge(&self, disk: SimDisk, what: &str) -> Vec<Vec<u8>> {
        let store = match Store::open_on(Arc::new(disk), self.config.clone()) {
            Ok(store) => store,
            Err(error) => {
                let kinds = [
                    ErrorKind::Corrupted,
                    ErrorKind::UnsupportedFile,
                    ErrorKind::NotSupported,
                ];
                assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
                return self.want.keys().cloned().collect();
            }
        };
        let mut refused = Vec::new();
        for (key, value) in &self.want {
            match store.get(key) {
                Ok(Some(got)) if got == *value => {}
                Ok(got) => panic!(
                    "{what}: {:?} has {:?} bytes, other than were put",
                    String::from_utf8_lossy(key),
                    got.map(|g| g.len())
                ),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupted, "{what}: {error:?}");
                    refused.push(key.clone());
                }
            }
        }
        let scan = store.scan(.., u64::MAX).expect("a scan");
        let keys: Vec<Vec<u8>> = scan.map(|item| item.key).collect();
        assert!(keys.iter().eq(self.want.keys()), "{what}: other keys");
        if !refused.is_empty() {
            let report = store.verify().expect("a report");
            assert!(
                report.problems >= refused.len() as u64,
                "{what}: {report:?}"
            );
        }
        refused
    }

    fn block(&self, disk: &SimDisk, number: u64) -> Blocks {
        let mut block = Blocks::new(BLOCK).expect("memory");
        disk.read(number * BLOCK as u64, &mut block)
            .expect("a read");
        block
    }

    /// Blocks that are not zero.
    fn used(&self) -> Vec<u64> {
        let all = 0..self.disk.size() / BLOCK as u64;
        all.filter(|n| self.block(&self.disk, *n).iter().any(|b| *b != 0))
            .collect()
    }

    /// The first blocks of structures that begin with this.
    fn starts(&self, magic: &[u8; 4]) -> Vec<u64> {
        let used = self.used().into_iter();
        used.filter(|n| self.block(&self.disk, *n)[..4] == *magic)
            .collect()
    }

    fn flip_each(&self, offsets: impl Iterator<Item = u64>, what: &str) -> (usize, usize) {
        let (mut cases, mut refused) = (0, 0);
        for offset in offsets {
            let disk = self.disk.copy();
            disk.flip(offset, 1 << (offset % 8));
            let found = self.judge(disk, &format!("a bit of {what} at {offset}"));
            refused += usize::from(!found.is_empty());
            cases += 1;
        }
        println!("{what}: {cases} flips, {refused} refused, the others harmless");
        (cases, refused)
    }
}

#[test]
fn superblock_copies() {
    let quiet = quiet();
    let spacing = quiet.superblock.geometry.spacing;
    let step = if nightly() { 1 } else { 5 };
    // One damaged copy: the others are in force.
    let bytes = (0..272u64).chain((272..BLOCK as u64).step_by(step * 8));
    for copy in 0..COPIES {
        let offsets = bytes.clone().step_by(step).map(|at| copy * spacing + at);
        let (cases, refused) = quiet.flip_each(offsets, &format!("superblock {copy}"));
        assert!(cases > 50 && refused == 0, "{refused} of {cases}");
    }
    // Three of four: one copy alone does not count.
    for at in (0..272).step_by(step) {
        let disk = quiet.disk.copy();
        for copy in 0..3 {
            disk.flip(copy * spacing + at, 4);
        }
        let what = format!("byte {at} of three copies");
        assert!(!quiet.judge(disk, &what).is_empty(), "{what}");
    }
    // Two copies of an older generation beside two damaged ones: the older one may be in force
    // only if nothing that the newer one promised is lost.
    for pair in [[0, 1], [2, 3], [0, 2]] {
        let disk = quiet.disk.copy();
        for copy in pair {
            let old = quiet.block(&quiet.older, copy * spacing / BLOCK as u64);
            disk.corrupt(copy * spacing, |block| block.copy_from_slice(&old));
        }
        quiet.judge(disk, &format!("older copies {pair:?}"));
    }
}

#[test]
fn headers_and_records_of_the_log() {
    let quiet = quiet();
    let geometry = quiet.superblock.geometry;
    let ring = geometry.wal_offset() / BLOCK as u64;
    let log = ring..ring + geometry.wal_bytes / BLOCK as u64;
    let starts: Vec<u64> = quiet
        .starts(b"GWAL")
        .into_iter()
        .filter(|n| log.contains(n))
        .collect();
    assert!(starts.len() > 6, "{starts:?}");
    // The batches that recovery reads: after the checkpoint.
    let start = quiet.superblock.wal;
    let at = ring + start.position % geometry.wal_bytes / BLOCK as u64;
    let live: Vec<u64> = starts.into_iter().filter(|n| *n >= at).collect();
    let header = live
        .iter()
        .flat_map(|n| (0..64).map(move |at| n * BLOCK as u64 + at));
    let (cases, refused) = quiet.flip_each(header, "batch headers");
    // The six batches since the checkpoint; the last, empty one and those of the ring's last lap
    // do not matter.
    assert!(refused >= 6 * 64, "{refused} of {cases}");
    let step = if nightly() { 1 } else { 29 };
    let bodies = live
        .iter()
        .flat_map(|n| (64..BLOCK as u64).map(move |at| n * BLOCK as u64 + at));
    let (_, refused) = quiet.flip_each(bodies.step_by(step), "batches");
    assert!(refused > 100, "{refused}");
}

#[test]
fn pages_and_blocks_of_the_index() {
    let quiet = quiet();
    for (magic, what) in [(b"GKVP", "pages"), (b"GKVM", "index blocks")] {
        let starts = quiet.starts(magic);
        assert!(!starts.is_empty(), "{what}");
        let header = starts
            .iter()
            .flat_map(|n| (0..32).map(move |at| n * BLOCK as u64 + at));
        let (_, refused) = quiet.flip_each(header, &format!("headers of {what}"));
        assert!(refused >= 32, "{what}: {refused}");
        let step = if nightly() { 1 } else { 41 };
        let rest = starts
            .iter()
            .flat_map(|n| (32..BLOCK as u64).map(move |at| n * BLOCK as u64 + at));
        let (_, refused) = quiet.flip_each(rest.step_by(step), what);
        assert!(refused > 50, "{what}: {refused}");
    }
}

#[test]
fn bits_of_large_values_are_all_found() {
    let quiet = quiet();
    let mut random = Random(1);
    let mut by_key: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for _ in 0..if nightly() { 20_000 } else { 600 } {
        let (key, offset, bytes) = &quiet.pieces[random.below(quiet.pieces.len() as u64) as usize];
        let at = offset + random.below(*bytes);
        let disk = quiet.disk.copy();
        disk.flip(at, 1 << random.below(8));
        let refused = quiet.judge(disk, &format!("a bit at {at}"));
        assert_eq!(refused, std::slice::from_ref(key), "a bit at {at}");
        *by_key.entry(key.clone()).or_default() += 1;
    }
    assert!(by_key.len() > 5, "{by_key:?}");
}

#[test]
fn zeroed_misplaced_and_stale_blocks() {
    let quiet = quiet();
    let used = quiet.used();
    let values: Vec<u64> = quiet
        .pieces
        .iter()
        .flat_map(|(_, offset, bytes)| {
            let first = offset / BLOCK as u64;
            first..first + bytes.div_ceil(BLOCK as u64)
        })
        .collect();
    let mut random = Random(2);
    let (mut cases, mut refused) = (0, 0);
    for number in &used {
        let other = used[random.below(used.len() as u64) as usize];
        let beside = values[random.below(values.len() as u64) as usize];
        let sources = [
            ("zeros", Blocks::new(BLOCK).expect("memory")),
            ("any block", quiet.block(&quiet.disk, other)),
            ("a block of a value", quiet.block(&quiet.disk, beside)),
            (
                "what it was",
                quiet.block(&quiet.older, (*number).min(quiet.older.size() / 4096 - 1)),
            ),
        ];
        let now = quiet.block(&quiet.disk, *number);
        for (what, source) in sources {
            if source[..] == now[..] {
                continue;
            }
            let disk = quiet.disk.copy();
            disk.corrupt(number * BLOCK as u64, |block| {
                block.copy_from_slice(&source)
            });
            let found = quiet.judge(disk, &format!("{what} in place of block {number}"));
            assert!(
                !found.is_empty() || !values.contains(number),
                "{what} in place of block {number} of a value was not found"
            );
            refused += usize::from(!found.is_empty());
            cases += 1;
        }
        // Two blocks change places.
        if other != *number {
            let (a, b) = (now, quiet.block(&quiet.disk, other));
            let disk = quiet.disk.copy();
            disk.corrupt(number * BLOCK as u64, |block| block.copy_from_slice(&b));
            disk.corrupt(other * BLOCK as u64, |block| block.copy_from_slice(&a));
            let found = quiet.judge(disk, &format!("blocks {number} and {other} swapped"));
            refused += usize::from(!found.is_empty());
            cases += 1;
        }
    }
    println!("{cases} blocks, {refused} refused, the others harmless");
    assert!(refused > 200, "{refused} of {cases}");
}

#[test]
fn whole_values_that_change_places_are_found() {
    let quiet = quiet();
    let mut cases = 0;
    for (index, (key, offset, bytes)) in quiet.pieces.iter().enumerate() {
        for (other_key, other, other_bytes) in &quiet.pieces[..index] {
            let blocks = bytes.min(other_bytes).div_ceil(BLOCK as u64);
            let disk = quiet.disk.copy();
            for n in 0..blocks {
                let at = |start: u64| start / BLOCK as u64 + n;
                let (a, b) = (
                    quiet.block(&quiet.disk, at(*offset)),
                    quiet.block(&quiet.disk, at(*other)),
                );
                disk.corrupt(at(*offset) * BLOCK as u64, |block| {
                    block.copy_from_slice(&b)
                });
                disk.corrupt(at(*other) * BLOCK as u64, |block| block.copy_from_slice(&a));
            }
            let refused = quiet.judge(disk, &format!("{key:?} and {other_key:?} swapped"));
            let mut want = vec![key.clone(), other_key.clone()];
            want.sort();
            want.dedup();
            assert_eq!(refused, want);
            cases += 1;
        }
    }
    println!("{cases} pairs");
    assert!(cases > 10, "{cases}");
}

#[test]
fn what_is_refused_can_be_read_around() {
    let quiet = quiet();
    let (key, offset, _) = &quiet.pieces[0];
    let disk = Arc::new(quiet.disk.copy());
    disk.flip(*offset, 1);
    let store = Store::open_on(disk, quiet.config.clone()).expect("opens");
    assert!(contents(&store).is_err());
    assert_eq!(
        store.get(key).expect_err("damaged").kind(),
        ErrorKind::Corrupted
    );
    store.put(key, b"new").expect("a new value takes its place");
    let mut want = quiet.want.clone();
    want.insert(key.clone(), b"new".to_vec());
    assert!(contents(&store).expect("whole again") == want);
    assert!(store.verify().expect("a report").is_clean());
}

/// A block of the index says its number, and the superblock says the number of the first: where
/// there is only one block, nothing else could tell that it is another one.
#[test]
fn another_block_in_place_of_the_only_one_of_the_index_is_found() {
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_on(disk.clone(), config()).expect("a store");
    store.put(b"key", &[1; 9000]).expect("put");
    store.close().expect("closed");
    let mut superblock = Superblock::read_quorum(&*disk).expect("a superblock");
    let [part] = superblock.meta[..] else {
        panic!("{superblock:?}");
    };
    assert_eq!(part.valid_bytes, BLOCK as u64);
    let open = || Store::open_on(disk.clone(), config());
    assert_eq!(open().expect("it is well").keys(), 1);
    superblock = Superblock::read_quorum(&*disk).expect("a superblock");
    let place = superblock.geometry.segment_offset(part.segment);
    let number = superblock.meta_first.expect("it is named");
    disk.corrupt(place, |block| {
        assert_eq!(block[16..24], number.to_le_bytes());
        block[16..24].copy_from_slice(&(number + 9).to_le_bytes());
        let crc = crc32c(0, &block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
    });
    let error = open().expect_err("another block");
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    assert!(error.to_string().contains("meta log"), "{error}");
    // It was the number that told: a superblock of an older version does not name it.
    superblock.meta_first = None;
    superblock.write(&*disk).expect("written");
    assert_eq!(open().expect("nothing tells").keys(), 1);
}
