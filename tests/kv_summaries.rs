//! Summaries of segments: with the index destroyed, repair finds every durable value again, large
//! ones too, and what was deleted stays deleted or is reported as uncertain.

mod kv_common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gds_rs::ErrorKind;
use gds_rs::base::crc::crc32c;
use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::sim::{SimDisk, Survivors, TEAR_SECTOR};
use gds_rs::kv::store::{KvConfig, RepairReport, Store};
use gds_rs::kv::superblock::Superblock;
use kv_common::crash::{Map, Workload, contents, run};
use kv_common::{Random, assert_clean, bytes, fresh, reopen, small, tiny};

/// Where whole blocks hold `magic` at `at`.
fn blocks_with(disk: &SimDisk, magic: &[u8; 4], at: usize) -> Vec<u64> {
    let mut block = Blocks::new(BLOCK).expect("works");
    (0..disk.size())
        .step_by(BLOCK)
        .filter(|offset| {
            disk.read(*offset, &mut block).expect("works");
            block[at..at + 4] == magic[..]
        })
        .collect()
}

/// Where the last blocks of the summaries' units are.
fn units(disk: &SimDisk) -> Vec<u64> {
    blocks_with(disk, b"GKVS", BLOCK - 64)
}

/// Makes every block of the meta log unreadable as one; how many there were.
fn destroy_index(disk: &SimDisk) -> usize {
    let all = blocks_with(disk, b"GKVM", 0);
    for offset in &all {
        disk.corrupt(*offset, |block| block.fill(0x5A));
    }
    all.len()
}

fn repair(disk: &Arc<SimDisk>, config: &KvConfig) -> RepairReport {
    let disk: Arc<dyn Disk> = disk.clone();
    Store::repair_on(&disk, config).expect("works")
}

/// Destroys the index of a closed store, repairs it, and compares.
fn assert_all_comes_back(disk: &Arc<SimDisk>, config: &KvConfig, map: &Map) -> RepairReport {
    assert!(destroy_index(disk) > 0);
    let opened = Store::open_on(disk.clone(), config.clone());
    let error = opened.expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    let report = repair(disk, config);
    assert!(report.rebuilt && report.lost.is_empty(), "{report:?}");
    let store = reopen(disk, config);
    let found = contents(&store).expect("works");
    let missing: Vec<_> = map.keys().filter(|k| !found.contains_key(*k)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert!(found == *map, "something else than what was put");
    assert_eq!(report.keys, map.len() as u64);
    assert_clean(&store);
    report
}

/// Puts values of every kind: in pages, one run, several runs, a list of many checksums.
fn put_all(store: &Store, map: &mut Map, seed: u64) {
    let lens = [10, 700, 4096, 9000, 62_000, 100_000, 300_000, 2_200_000];
    for (n, len) in lens.into_iter().enumerate() {
        let key = format!("key {seed} {n}").into_bytes();
        let value = bytes(seed * 100 + n as u64, len);
        store.put(&key, &value).expect("works");
        map.insert(key, value);
    }
}

#[test]
fn values_of_every_kind_come_back_without_the_index() {
    for config in [tiny(), small()] {
        let (disk, store) = fresh(&config);
        let mut map = Map::new();
        put_all(&store, &mut map, 1);
        let mut writer = store.put_writer(b"of unknown length", 0).expect("works");
        for part in 0..40u64 {
            writer.write(&bytes(part, 5000)).expect("works");
            let value = map.entry(b"of unknown length".to_vec()).or_default();
            value.extend(bytes(part, 5000));
        }
        writer.commit().expect("works");
        store.close().expect("works");
        let report = assert_all_comes_back(&disk, &config, &map);
        assert!(report.from_summaries >= 7, "{report:?}");
        assert_eq!(report.uncertain, 0, "nothing was ever deleted: {report:?}");
    }
}

#[test]
fn every_checkpoint_adds_to_the_summaries_and_a_reopened_store_goes_on() {
    let config = small();
    let (disk, mut store) = fresh(&config);
    let mut map = Map::new();
    for round in 0..6u64 {
        for n in 0..4u64 {
            let key = format!("key {round} {n}").into_bytes();
            let value = bytes(round * 10 + n, 5000 + 3000 * n as usize);
            store.put(&key, &value).expect("works");
            map.insert(key, value);
            if n == 1 {
                store.checkpoint().expect("works");
            }
        }
        if round.is_multiple_of(2) {
            // What only the log has, the next run's first checkpoint stores.
            drop(store);
            store = reopen(&disk, &config);
        }
    }
    store.close().expect("works");
    assert_all_comes_back(&disk, &config, &map);
}

#[test]
fn values_that_were_overwritten_deleted_and_moved_come_back_as_they_are() {
    let config = tiny();
    let (disk, store) = fresh(&config);
    let mut map = Map::new();
    let mut random = Random(7);
    for n in 0..400u64 {
        let key = format!("key {}", random.below(40)).into_bytes();
        if random.below(5) == 0 {
            store.delete(&key).expect("works");
            map.remove(&key);
        } else {
            let value = bytes(n, 1 + random.below(90_000) as usize);
            store.put(&key, &value).expect("works");
            map.insert(key, value);
        }
        if n % 100 == 99 {
            store.compact().expect("works");
        }
    }
    assert!(store.stats().gc_bytes > 0, "nothing was moved");
    store.close().expect("works");
    assert!(destroy_index(&disk) > 0);
    let report = repair(&disk, &config);
    let store = reopen(&disk, &config);
    let found = contents(&store).expect("works");
    for (key, value) in &map {
        assert!(found.get(key) == Some(value), "{key:?} is not what it was");
    }
    let uncertain: BTreeSet<_> = report.uncertain_keys.iter().collect();
    for key in found.keys().filter(|key| !map.contains_key(*key)) {
        assert!(uncertain.contains(key), "{key:?} came back without a word");
    }
    assert_clean(&store);
}

#[test]
fn a_damaged_unit_loses_its_own_entries_only() {
    let config = small();
    let (disk, store) = fresh(&config);
    let mut map = Map::new();
    for n in 0..5u64 {
        let key = format!("key {n}").into_bytes();
        let value = bytes(n, 9000);
        store.put(&key, &value).expect("works");
        store.checkpoint().expect("works");
        map.insert(key, value);
    }
    store.close().expect("works");
    let places = units(&disk);
    assert_eq!(places.len(), 5, "one unit a checkpoint");
    for (damaged, place) in places.iter().rev().enumerate() {
        let copy = Arc::new(disk.copy());
        copy.flip(place + 10, 1);
        destroy_index(&copy);
        repair(&copy, &config);
        let mut want = map.clone();
        want.remove(format!("key {damaged}").as_bytes());
        let store = reopen(&copy, &config);
        assert!(
            contents(&store).expect("works") == want,
            "unit {damaged} was damaged"
        );
        assert_clean(&store);
    }
}

#[test]
fn a_summary_of_an_earlier_life_of_its_segment_is_not_believed() {
    let config = KvConfig {
        size_bytes: 1 << 20,
        ..tiny()
    };
    let (disk, store) = fresh(&config);
    let mut stale = 0;
    for life in 0..6u64 {
        for n in 0..8u64 {
            let key = format!("key {life} {n}");
            store.put(key.as_bytes(), &bytes(n, 9000)).expect("works");
            store.checkpoint().expect("works");
        }
        for n in 0..8u64 {
            let key = format!("key {life} {n}");
            assert!(store.delete(key.as_bytes()).expect("works"));
        }
        store.checkpoint().expect("works");
        // Not the first of its life, which is at the segment's end.
        let inner = units(&disk);
        let segment = |offset: &u64| (offset + BLOCK as u64) % config.segment_bytes;
        stale += inner.iter().filter(|offset| segment(offset) != 0).count();
    }
    assert!(stale > 0, "no unit of an earlier life was ever there");
    store.put(b"stays", &bytes(1, 20_000)).expect("works");
    // No tombstone is left that could hide what a stale summary names.
    store.close().expect("works");
    let tombstones = blocks_with(&disk, b"GKVP", 0);
    for page in tombstones {
        disk.corrupt(page, |block| block.fill(0));
    }
    assert!(destroy_index(&disk) > 0);
    let report = repair(&disk, &config);
    let store = reopen(&disk, &config);
    let found = contents(&store).expect("works");
    assert!(found.contains_key(&b"stays"[..]));
    for key in found.keys().filter(|key| *key != b"stays") {
        // In the segment that is still being filled: it is still the same life of it.
        assert!(key.starts_with(b"key 5"), "{key:?} is of an earlier life");
        assert!(report.uncertain_keys.contains(key), "{report:?}");
    }
}

#[test]
fn a_deleted_key_that_may_be_back_is_reported() {
    let config = small();
    let (disk, store) = fresh(&config);
    store.put(b"deleted", &bytes(1, 9000)).expect("works");
    store.put(b"beside it", &bytes(2, 9000)).expect("works");
    store.checkpoint().expect("works");
    store.delete(b"deleted").expect("works");
    store.put(b"after", &bytes(3, 9000)).expect("works");
    store.close().expect("works");
    // The tombstone is in the index and in a page: both are gone.
    for page in blocks_with(&disk, b"GKVP", 0) {
        disk.corrupt(page, |block| block.fill(0));
    }
    destroy_index(&disk);
    let report = repair(&disk, &config);
    assert_eq!(
        report.uncertain_keys,
        [b"beside it".to_vec(), b"deleted".to_vec()]
    );
    assert_eq!((report.uncertain, report.keys), (2, 3), "{report:?}");
}

/// Values whose room was taken early and that are committed one a checkpoint, long after their
/// segment was closed: their units need more room than was kept, and are written together.
#[test]
fn more_units_than_there_is_room_for_are_written_as_one_and_never_over_values() {
    let config = tiny();
    let (disk, store) = fresh(&config);
    let mut map = Map::new();
    let mut late = Vec::new();
    for n in 0..9u64 {
        let key = format!("late {n}").into_bytes();
        let mut writer = store.put_writer(&key, 0).expect("works");
        let run = writer.reserve_run(4096).expect("room");
        late.push((key, bytes(n, 4096), writer, run));
    }
    let segment = |offset: u64| offset / config.segment_bytes;
    let home = segment(late[0].3.offset);
    assert!(late.iter().all(|l| segment(l.3.offset) == home));
    // Fills the rest of it, and closes it.
    for n in 0..8u64 {
        let key = format!("key {n}").into_bytes();
        let value = bytes(n + 200, 9000);
        store.put(&key, &value).expect("works");
        map.insert(key, value);
    }
    let mut most = 0;
    for (key, value, mut writer, run) in late {
        let block = Blocks::copy_of(&value).expect("memory");
        disk.write(run.offset, &block).expect("written");
        let crcs = [crc32c(0, &value)];
        writer.fill_run(&run, 4096, &crcs).expect("works");
        writer.commit().expect("works");
        map.insert(key, value);
        store.checkpoint().expect("works");
        assert_clean(&store);
        let all = units(&disk);
        most = most.max(all.iter().filter(|o| segment(**o) == home).count());
    }
    assert!(most < 9, "{most} units: there was room for all of them");
    store.close().expect("works");
    assert_all_comes_back(&disk, &config, &map);
}

#[test]
fn summaries_cost_little_and_are_counted() {
    let config = KvConfig {
        wal_bytes: 4 << 20,
        segment_bytes: 8 << 20,
        ..small()
    };
    let (disk, store) = fresh(&config);
    for n in 0..40u64 {
        store
            .put(&n.to_le_bytes(), &bytes(n, 1 << 20))
            .expect("works");
    }
    let before = store.stats();
    store.checkpoint().expect("works");
    let after = store.stats();
    let written: usize = units(&disk).len() * BLOCK;
    assert!(written > 0);
    assert!(
        after.written_bytes - before.written_bytes > written as u64,
        "the units are not counted"
    );
    assert!(after.write_amplification < 1.1, "{after:?}");
}

/// At every moment of a workload, what opening finds is what repair finds without the index.
#[test]
fn after_any_crash_repair_without_the_index_finds_what_opening_finds() {
    let (mut images, mut back) = (0, 0);
    for seed in 1..3 {
        let workload = Workload {
            seed,
            operations: 120,
            size_bytes: 0,
            delay: Duration::ZERO,
            value_max: 60_000,
        };
        let run = run(workload).unwrap_or_else(|e| panic!("{workload:?}: {e}"));
        let made = run.oracle.begins().expect("a store");
        let torn = Survivors::Torn {
            seed,
            unit: TEAR_SECTOR,
        };
        for moment in (made..=run.disk.now()).step_by(7) {
            for survivors in [Survivors::None, Survivors::All, torn] {
                let image = run.disk.image(moment, survivors).expect("an image");
                image.record(false);
                let copy = Arc::new(image.copy());
                let listed = Superblock::read_quorum(&*copy).expect("a superblock").meta;
                if listed.is_empty() {
                    continue;
                }
                let want = contents(&reopen(&Arc::new(image), &run.config)).expect("works");
                destroy_index(&copy);
                let report = repair(&copy, &run.config);
                let store = reopen(&copy, &run.config);
                let found = contents(&store).expect("works");
                for (key, value) in &want {
                    let what = || format!("{survivors:?} moment {moment}: {key:?} {report:?}");
                    assert!(found.get(key) == Some(value), "{}", what());
                    back += usize::from(value.len() > 4032);
                }
                for key in found.keys().filter(|key| !want.contains_key(*key)) {
                    assert!(
                        report.uncertain_keys.contains(key),
                        "{survivors:?} moment {moment}: {key:?} came back without a word"
                    );
                }
                assert_clean(&store);
                images += 1;
            }
        }
    }
    println!("{images} images, {back} large values");
    assert!(images > 100 && back > 100, "{images} {back}");
}

/// Just before a checkpoint names the new place of a value in several runs, all but a part of the
/// value may have arrived there: its list is whole, and still the old place is the one that holds.
#[test]
fn of_a_moved_value_in_several_runs_the_place_whose_bytes_hold_is_taken() {
    let config = tiny();
    let (disk, store) = fresh(&config);
    let value = bytes(1, 40_000);
    let places = |store: &Store| -> BTreeSet<u64> {
        let located = store.locate(b"moves", 0..u64::MAX).expect("located");
        let located = located.expect("there");
        located.pieces.iter().map(|piece| piece.offset).collect()
    };
    // Two runs, each in a segment that is mostly of others.
    for other in 0..3 {
        store.put(&[other], &bytes(1, 9000)).expect("works");
    }
    store.put(b"moves", &value).expect("works");
    store.put(b"behind it", &bytes(1, 20_000)).expect("works");
    store.checkpoint().expect("works");
    for other in 0..3 {
        store.delete(&[other]).expect("works");
    }
    store.delete(b"behind it").expect("works");
    store.checkpoint().expect("works");
    let old = places(&store);
    assert_eq!(old.len(), 2, "{old:?}");
    disk.record(true);
    store.compact().expect("works");
    let new = places(&store);
    assert!(old.is_disjoint(&new), "from {old:?} to {new:?}");
    drop(store);
    let image = |at| Arc::new(disk.image(at, Survivors::All).expect("an image"));
    let last = (0..disk.now())
        .rev()
        .find(|at| places(&reopen(&image(*at), &config)) == old)
        .expect("a moment before the new place counts");
    let image = image(last);
    assert_eq!(blocks_with(&image, b"GKVF", 0).len(), 2, "no second list");
    for place in &new {
        let copy = Arc::new(image.copy());
        copy.corrupt(*place, |block| block.fill(0));
        destroy_index(&copy);
        let report = repair(&copy, &config);
        assert!(report.lost.is_empty(), "{report:?}");
        let found = reopen(&copy, &config).get(b"moves").expect("works");
        assert!(found == Some(value.clone()), "without the run at {place}");
    }
}
