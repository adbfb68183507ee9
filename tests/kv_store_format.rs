//! Bytes of a store do not change unnoticed: a small store of this version, as it was when the
//! version was made. `GDS_BLESS=1` writes it anew (for a new version only).

mod kv_common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{KvConfig, Store};
use gds_rs::kv::superblock::{COMPAT_SUMMARIES, Superblock};
use kv_common::crash::{Map, contents};
use kv_common::{assert_clean, bytes};

fn config() -> KvConfig {
    KvConfig {
        // Less than half of it is used: only the checkpoint that the test asks for is made.
        wal_bytes: 96 << 10,
        segment_bytes: 64 << 10,
        superblock_spacing: 4 << 10,
        inline_max: 600,
        ..KvConfig::default()
    }
}

/// What the golden store holds.
fn values() -> Map {
    let mut map = Map::new();
    for (n, len) in [0usize, 1, 100, 600, 601, 4096, 9000, 70_000]
        .into_iter()
        .enumerate()
    {
        map.insert(format!("key {n}").into_bytes(), bytes(n as u64, len));
    }
    map
}

/// A disk with the golden store.
fn made() -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_as(disk.clone(), config(), *b"a golden store 1").expect("works");
    for (key, value) in values() {
        store.put(&key, &value).expect("works");
    }
    store.put(b"gone", b"x").expect("works");
    store.delete(b"gone").expect("works");
    store.checkpoint().expect("works");
    disk
}

/// The blocks that are not zero, each after its number.
fn packed(disk: &SimDisk) -> Vec<u8> {
    let mut all = disk.size().to_le_bytes().to_vec();
    let mut block = Blocks::new(BLOCK).expect("works");
    for number in 0..disk.size() / BLOCK as u64 {
        disk.read(number * BLOCK as u64, &mut block).expect("works");
        if block.iter().any(|b| *b != 0) {
            all.extend(number.to_le_bytes());
            all.extend_from_slice(&block);
        }
    }
    all
}

fn unpacked(all: &[u8]) -> Arc<SimDisk> {
    let (size, blocks) = all.split_at(8);
    let disk = SimDisk::new(u64::from_le_bytes(size.try_into().expect("works")));
    for block in blocks.chunks_exact(8 + BLOCK) {
        let (number, bytes) = block.split_at(8);
        let number = u64::from_le_bytes(number.try_into().expect("works"));
        disk.write(
            number * BLOCK as u64,
            &Blocks::copy_of(bytes).expect("works"),
        )
        .expect("works");
    }
    Arc::new(disk)
}

/// The segments: what timing does not change.
fn segments(disk: &SimDisk) -> Vec<u8> {
    let start = 128 << 10;
    let mut all = Blocks::new((disk.size() - start) as usize).expect("works");
    disk.read(start, &mut all).expect("works");
    all.to_vec()
}

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(name)
}

fn assert_can_be_read(golden: Arc<SimDisk>) -> Store {
    let store = Store::open_on(golden, config()).expect("it opens");
    assert!(contents(&store).expect("it can be read") == values());
    assert_clean(&store);
    store
}

#[test]
fn what_version_1_with_summaries_wrote_is_what_is_written_and_read() {
    let path = fixture("kv_store_version_1_summaries.bin");
    let disk = made();
    if std::env::var_os("GDS_BLESS").is_some() {
        std::fs::write(&path, packed(&disk)).expect("written");
    }
    let golden = unpacked(&std::fs::read(&path).expect("the golden file"));
    assert!(
        segments(&golden) == segments(&disk),
        "the format changed: it needs a new version, or a feature bit"
    );
    assert_can_be_read(golden);
}

/// Written before there were summaries, and before the superblock named the first block of the
/// meta log.
#[test]
fn what_the_first_version_1_wrote_opens_and_takes_more() {
    let golden = unpacked(&std::fs::read(fixture("kv_store_version_1.bin")).expect("the file"));
    let before = Superblock::read_quorum(&*golden).expect("a superblock");
    assert_eq!((before.compat, before.meta_first), (0, None));
    let store = assert_can_be_read(Arc::clone(&golden));
    store.put(b"new", &bytes(9, 9000)).expect("works");
    store.close().expect("works");
    let after = Superblock::read_quorum(&*golden).expect("a superblock");
    assert_eq!(after.compat, COMPAT_SUMMARIES);
    assert!(after.meta_first.is_some());
    assert_eq!(after.newest_delete, None, "what came before is not known");
    let store = Store::open_on(golden, config()).expect("it opens again");
    assert_eq!(store.keys(), values().len() as u64 + 1);
    assert_clean(&store);
}

/// An older version writes zeros where the superblock names the first block of the meta log, and
/// keeps the features.
#[test]
fn what_an_older_version_wrote_on_top_opens() {
    let disk = made();
    let mut superblock = Superblock::read_quorum(&*disk).expect("a superblock");
    (superblock.meta_first, superblock.newest_delete) = (None, None);
    superblock.write(&*disk).expect("written");
    assert_can_be_read(disk);
}
