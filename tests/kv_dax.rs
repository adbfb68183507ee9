//! Stores in persistent memory. A machine has some where `GDS_TEST_DAX` names a folder on a file
//! system that was mounted with `-o dax`; everywhere else the copies and the cache-line flushes
//! run on an ordinary mapping, and the refusal of ordinary file systems is real.

#![allow(clippy::print_stdout)]

mod common;
mod kv_common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gds_rs::ErrorKind;
use gds_rs::io::OpenMode;
use gds_rs::io::posix::Posix;
use gds_rs::kv::disk::{BLOCK, Blocks, DaxDisk, Disk, FileDisk};
use gds_rs::kv::store::{DiskLevel, KvConfig, Store};
use kv_common::crash::{Map, contents};
use kv_common::{assert_clean, bytes, tiny};

fn file(path: &Path) -> FileDisk {
    FileDisk::open(path, OpenMode::create(), Arc::new(Posix)).expect("opens")
}

fn mapped(path: &Path) -> Arc<dyn Disk> {
    Arc::new(DaxDisk::without_durability(file(path)).expect("mapped"))
}

/// Puts, deletes, compacts; what must be there afterwards.
fn work(store: &Store) -> Map {
    let mut map = Map::new();
    for n in 0..80u64 {
        let key = format!("key {}", n % 30).into_bytes();
        let value = bytes(n, [10, 3000, 4096, 20_000, 150_000][n as usize % 5]);
        store.put(&key, &value).expect("works");
        map.insert(key, value);
        if n % 9 == 0 {
            let key = format!("key {}", n % 7).into_bytes();
            store.delete(&key).expect("works");
            map.remove(&key);
        }
        if n == 50 {
            store.compact().expect("works");
        }
    }
    map
}

#[test]
fn a_store_over_a_mapping_is_the_store_that_files_give() {
    let folder = common::Folder::new();
    let path = folder.path("store");
    let store = Store::create_on(mapped(&path), tiny()).expect("a store");
    let map = work(&store);
    assert!(contents(&store).expect("works") == map);
    assert_clean(&store);
    drop(store);
    // By the other way, and back.
    let disk: Arc<dyn Disk> = Arc::new(file(&path));
    let store = Store::open_on(disk, tiny()).expect("it opens");
    assert!(contents(&store).expect("works") == map);
    store.put(b"by file", &bytes(1, 9000)).expect("works");
    store.close().expect("works");
    let store = Store::open_on(mapped(&path), tiny()).expect("it opens");
    let value = store.get(b"by file").expect("works");
    assert_eq!(value, Some(bytes(1, 9000)));
    assert_eq!(store.keys(), map.len() as u64 + 1);
    assert_clean(&store);
}

#[test]
fn a_mapped_file_has_all_its_blocks_even_where_it_had_holes() {
    use std::os::unix::fs::MetadataExt;
    let folder = common::Folder::new();
    let path = folder.path("holes");
    std::fs::File::create(&path)
        .and_then(|f| f.set_len(1 << 20))
        .expect("a sparse file");
    let allocated = || std::fs::metadata(&path).expect("there").blocks() * 512;
    assert!(allocated() < 1 << 20);
    let disk = mapped(&path);
    assert!(allocated() >= 1 << 20);
    disk.resize(2 << 20).expect("grows");
    assert!(allocated() >= 2 << 20);
    disk.discard(0, 1 << 20).expect("ignored");
    assert!(allocated() >= 2 << 20, "room that was given back is missed");
}

#[test]
fn threads_copy_while_the_disk_grows() {
    let folder = common::Folder::new();
    let disk = mapped(&folder.path("grows"));
    disk.resize(16 * BLOCK as u64).expect("grows");
    std::thread::scope(|scope| {
        for n in 0..4u8 {
            let disk = &disk;
            scope.spawn(move || {
                let offset = u64::from(n) * 4 * BLOCK as u64;
                for round in 0..50u8 {
                    let block = Blocks::copy_of(&[n ^ round; 4 * BLOCK]).expect("memory");
                    disk.write(offset, &block).expect("written");
                    let mut got = Blocks::new(4 * BLOCK).expect("memory");
                    disk.read(offset, &mut got).expect("read");
                    assert_eq!(got[..], block[..]);
                }
            });
        }
        for size in 17..60u64 {
            disk.resize(size * BLOCK as u64).expect("grows");
            disk.flush().expect("flushed");
        }
    });
}

/// Folders of file systems that have no persistent memory; `GDS_TEST_FOLDERS` adds some.
fn ordinary(folder: &common::Folder) -> Vec<PathBuf> {
    let shared = Path::new("/dev/shm");
    let mut all = vec![folder.path("")];
    if shared.is_dir() {
        all.push(shared.to_path_buf());
    }
    if let Some(more) = std::env::var_os("GDS_TEST_FOLDERS") {
        all.extend(std::env::split_paths(&more));
    }
    all
}

#[test]
fn a_file_system_without_persistent_memory_is_refused_and_keeps_what_it_had() {
    let folder = common::Folder::new();
    for place in ordinary(&folder) {
        let path = place.join(format!("gds-dax-{}", std::process::id()));
        let dax = KvConfig {
            level: DiskLevel::Dax,
            ..tiny()
        };
        let refused = |config: &KvConfig| {
            let error = Store::open(&path, config.clone()).expect_err("no persistent memory");
            assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
            for word in ["MAP_SYNC", "-o dax", "pmem", "memmap="] {
                assert!(error.message().contains(word), "{word}: {error}");
            }
            assert!(error.errno() != 0, "{error:?}");
        };
        refused(&dax);
        assert!(!path.exists(), "an empty file was left behind");
        let store = Store::open(&path, tiny()).expect("an ordinary store");
        store.put(b"key", b"value").expect("works");
        store.close().expect("works");
        refused(&dax);
        let store = Store::open(&path, tiny()).expect("it opens");
        assert_eq!(store.get(b"key").expect("works"), Some(b"value".to_vec()));
        drop(store);
        std::fs::remove_file(&path).expect("removed");
    }
}

#[test]
fn a_store_in_persistent_memory_comes_back() {
    let Some(folder) = std::env::var_os("GDS_TEST_DAX") else {
        println!("skipped: GDS_TEST_DAX names no folder on a file system mounted with -o dax");
        return;
    };
    let path = Path::new(&folder).join(format!("gds-dax-{}", std::process::id()));
    let config = KvConfig {
        level: DiskLevel::Dax,
        ..tiny()
    };
    let store = Store::open(&path, config.clone()).expect("persistent memory");
    let map = work(&store);
    drop(store);
    let store = Store::open(&path, config).expect("it opens");
    assert!(contents(&store).expect("works") == map);
    assert_clean(&store);
    drop(store);
    Store::destroy(&path).expect("removed");
}
