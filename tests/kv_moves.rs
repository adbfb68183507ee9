//! Cleaning moves what is alive many pieces at a time: all of it arrives, what cannot be read
//! stays where it is, what changes meanwhile is not taken back, and memory is bounded.

mod common;
mod kv_common;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::{FilePiece, Io, OpenMode, WrittenPiece};
use gds_rs::kv::disk::{Disk, FileDisk, ReadAndWritten};
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{KvConfig, Store};
use gds_rs::{Error, ErrorKind, Result};
use kv_common::crash::{Map, contents};
use kv_common::{Random, assert_clean, bytes, fresh, reopen, tiny};

/// Most bytes that copies hold in memory.
const MEMORY: u64 = 2 << 20;

/// Puts values of all sizes and deletes every second one.
fn fill(store: &Store, most: u64) -> Map {
    let mut map = Map::new();
    let mut random = Random(3);
    for n in 0..120u64 {
        let key = format!("key {n:03}").into_bytes();
        let len = match n % 5 {
            0 => 5000 + random.below(9000),
            1 | 2 => 16 << 10,
            3 => random.below(3000),
            _ => random.below(most),
        };
        let value = bytes(n, len as usize);
        store.put(&key, &value).expect("put");
        map.insert(key, value);
    }
    store.checkpoint().expect("a checkpoint");
    for n in (0..120).step_by(2) {
        let key = format!("key {n:03}").into_bytes();
        store.delete(&key).expect("deleted");
        map.remove(&key);
    }
    map
}

/// The places of a large value.
fn places(store: &Store, key: &[u8]) -> Vec<u64> {
    let located = store.locate(key, 0..u64::MAX).expect("located");
    let located = located.expect("there");
    located.pieces.iter().map(|piece| piece.offset).collect()
}

/// Called with the store and what is read and written.
type Hook = Box<dyn Fn(&Store, &[FilePiece<'_>], &[WrittenPiece<'_>]) + Send + Sync>;

/// A disk that tells of copies, and fails the writes whose numbers are named.
#[derive(Default)]
struct Watched {
    inner: Option<Arc<SimDisk>>,
    store: OnceLock<Store>,
    hook: Mutex<Option<Hook>>,
    /// The next so many writes fail.
    failing: AtomicU64,
    /// Most bytes that one call had in hand, and calls that both read and wrote.
    most: AtomicU64,
    both: AtomicU64,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    fn sim(&self) -> &SimDisk {
        self.inner.as_ref().expect("made with one")
    }
}

impl Disk for Watched {
    fn size(&self) -> u64 {
        self.sim().size()
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.sim().resize(size)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.sim().read(offset, into)
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.sim().write(offset, from)
    }

    fn read_and_write(
        &self,
        reads: &mut [FilePiece<'_>],
        writes: &[WrittenPiece<'_>],
    ) -> ReadAndWritten {
        let read: usize = reads.iter().map(|(_, into)| into.len()).sum();
        let written: usize = writes.iter().map(|(_, from)| from.len()).sum();
        self.most.fetch_max((read + written) as u64, SeqCst);
        let both = !reads.is_empty() && !writes.is_empty();
        self.both.fetch_add(u64::from(both), SeqCst);
        let mut done = ReadAndWritten::default();
        for (offset, from) in writes {
            let fails = self
                .failing
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                .is_ok();
            done.writes.push(if fails {
                Err(Error::os(libc::EIO, "write"))
            } else {
                self.write(*offset, from)
            });
        }
        for (offset, into) in &mut *reads {
            done.reads.push(self.read(*offset, into));
        }
        if let (Some(hook), Some(store)) = (&*self.hook.lock().expect("whole"), self.store.get()) {
            hook(store, reads, writes);
        }
        done
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.sim().write_durable(offset, from)
    }

    fn flush(&self) -> Result<()> {
        self.sim().flush()
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}

fn watched(config: &KvConfig) -> (Arc<Watched>, Store) {
    let sim = Arc::new(SimDisk::new(0));
    sim.record(false);
    let disk = Arc::new(Watched {
        inner: Some(sim),
        ..Watched::default()
    });
    let store = Store::create_on(disk.clone(), config.clone()).expect("a store");
    (disk, store)
}

#[test]
fn values_of_all_sizes_are_the_same_after_they_were_moved() {
    let folder = common::Folder::new();
    let file = |name: &str, io: Arc<dyn Io>| -> Arc<dyn Disk> {
        let disk = FileDisk::open(&folder.path(name), OpenMode::create(), io);
        Arc::new(disk.expect("opens"))
    };
    let shaky = FaultPlan {
        short_write: 0.2,
        interrupted: 0.2,
        ..FaultPlan::default()
    };
    let shaky = Arc::new(Fault::new(gds_rs::io::best(), shaky));
    let disks: [Arc<dyn Disk>; 4] = [
        Arc::new(SimDisk::new(0)),
        file("posix", Arc::new(Posix)),
        file("best", gds_rs::io::best()),
        file("shaky", shaky),
    ];
    for disk in disks {
        for (config, most) in [(tiny(), 300_000), (kv_common::small(), 3_000_000)] {
            let config = KvConfig {
                create: true,
                ..config
            };
            if disk.size() > 0 {
                disk.resize(0).expect("emptied");
            }
            let store = Store::create_on(disk.clone(), config.clone()).expect("a store");
            let map = fill(&store, most);
            let freed = store.compact().expect("compacted");
            let stats = store.stats();
            assert!(freed > 0 && stats.gc_bytes > 300_000, "{disk:?}: {stats:?}");
            assert!(stats.last_error.is_none(), "{disk:?}: {stats:?}");
            assert!(contents(&store).expect("read") == map, "{disk:?}");
            assert_clean(&store);
            drop(store);
            let store = Store::open_on(disk.clone(), config).expect("opens");
            assert!(contents(&store).expect("read") == map, "{disk:?}");
            assert_clean(&store);
        }
    }
}

#[test]
fn what_cannot_be_read_stays_and_what_lies_beside_it_moves() {
    let (disk, store) = fresh(&tiny());
    let map = fill(&store, 300_000);
    let key = |n: u64| format!("key {n:03}").into_bytes();
    // One in one run, one in many.
    for n in [11, 19] {
        let place = places(&store, &key(n))[0];
        disk.set_unreadable(place, true);
    }
    let before = places(&store, &key(31));
    store.compact().expect("compacted");
    assert_ne!(places(&store, &key(31)), before, "a neighbour moves");
    let error = store.stats().last_error.expect("it is told");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    for n in [11, 19] {
        let error = store.get(&key(n)).expect_err("unreadable");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        disk.set_unreadable(places(&store, &key(n))[0], false);
    }
    assert!(contents(&store).expect("read") == map);
    assert_clean(&store);
    drop(store);
    assert!(contents(&reopen(&disk, &tiny())).expect("read") == map);
}

#[test]
fn a_damaged_value_is_not_good_after_it_was_moved() {
    let (disk, store) = fresh(&tiny());
    let mut map = fill(&store, 300_000);
    let (key, before) = (&b"key 011"[..], places(&store, b"key 011"));
    disk.flip(before[0] + 3000, 4);
    store.compact().expect("compacted");
    assert_ne!(places(&store, key), before, "its checksums move with it");
    let error = store.get(key).expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    store.delete(key).expect("deleted");
    map.remove(key);
    assert!(contents(&store).expect("read") == map);
    assert_clean(&store);
}

#[test]
fn a_write_of_many_values_that_fails_is_done_again_for_each() {
    let (disk, store) = watched(&tiny());
    let map = fill(&store, 300_000);
    disk.failing.store(3, SeqCst);
    store.compact().expect("compacted");
    assert_eq!(disk.failing.load(SeqCst), 0);
    let error = store.stats().last_error.expect("it is told");
    assert_eq!(error.errno(), libc::EIO, "{error}");
    assert!(contents(&store).expect("read") == map);
    assert_clean(&store);
}

#[test]
fn what_comes_next_is_read_while_the_last_is_written_in_bounded_memory() {
    let large = KvConfig {
        segment_bytes: 16 << 20,
        ..KvConfig::default()
    };
    for (config, len, most) in [(tiny(), 24_000, 64 << 10), (large, 3 << 20, MEMORY)] {
        let (disk, store) = watched(&config);
        let value = |n: u64| bytes(n, len);
        for n in 0..40u64 {
            store.put(&n.to_le_bytes(), &value(n)).expect("put");
        }
        for n in (0..40u64).step_by(2) {
            store.delete(&n.to_le_bytes()).expect("deleted");
        }
        assert!(store.compact().expect("compacted") > 0);
        let moved = store.stats().gc_bytes;
        assert!(moved > 10 * len as u64, "{moved} bytes");
        let both = disk.both.load(SeqCst);
        assert!(both > moved / most / 2, "{both} calls for {moved} bytes");
        let held = disk.most.load(SeqCst);
        assert!(held > most / 2 && held <= most, "{held} bytes");
        for n in (1..40u64).step_by(2) {
            let got = store.get(&n.to_le_bytes()).expect("read");
            assert!(got == Some(value(n)), "{n}");
        }
        assert_clean(&store);
    }
}

#[test]
fn what_changes_while_it_is_copied_is_not_taken_back() {
    // No checkpoint makes room in the log while values are moved.
    let config = KvConfig {
        wal_bytes: 2 << 20,
        ..tiny()
    };
    let (disk, store) = watched(&config);
    let mut map = fill(&store, 300_000);
    let keys: Vec<Vec<u8>> = map.keys().cloned().collect();
    let changed = Arc::new(Mutex::new(Map::new()));
    let (noted, calls) = (Arc::clone(&changed), AtomicU64::new(0));
    let hook: Hook = Box::new(move |store, _, _| {
        let n = calls.fetch_add(1, SeqCst);
        let key = &keys[(n * 7 % keys.len() as u64) as usize];
        let value = bytes(1000 + n, [40, 9000, 70_000][n as usize % 3]);
        if n.is_multiple_of(4) {
            store.delete(key).expect("deleted");
            noted.lock().expect("whole").insert(key.clone(), Vec::new());
        } else {
            store.put(key, &value).expect("put");
            noted.lock().expect("whole").insert(key.clone(), value);
        }
    });
    *disk.hook.lock().expect("whole") = Some(hook);
    let held = store.snapshot().expect("a snapshot");
    disk.store.set(store.clone()).expect("once");
    store.compact().expect("compacted");
    *disk.hook.lock().expect("whole") = None;
    let changed = std::mem::take(&mut *changed.lock().expect("whole"));
    assert!(changed.len() > 5, "{}", changed.len());
    for (key, value) in &map {
        let old = held.get(key).expect("read");
        assert!(old.as_ref() == Some(value), "{key:?} of the snapshot");
    }
    drop(held);
    for (key, value) in changed {
        if value.is_empty() {
            map.remove(&key);
        } else {
            map.insert(key, value);
        }
    }
    assert!(contents(&store).expect("read") == map);
    assert_clean(&store);
    store.compact().expect("compacted again");
    assert!(contents(&store).expect("read") == map);
    assert_clean(&store);
}
