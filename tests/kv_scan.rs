//! Scans: keys in order with their values, of one moment, wherever the values lie.

mod kv_common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use gds_rs::ErrorKind;
use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::store::{Batch, KvConfig, Scan, Store};
use kv_common::{assert_clean, bytes, fresh, reopen, small, tiny};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn entries(mut scan: Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(entry) = scan.next_entry().expect("an entry") {
        all.push((entry.key.to_vec(), entry.value.to_vec()));
    }
    assert!(scan.next_entry().expect("an end").is_none());
    all
}

fn items(scan: Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |item: gds_rs::kv::store::Item| {
        let value = item.value().expect("a value");
        assert_eq!(value.len() as u64, item.len);
        (item.key, value)
    };
    scan.map(pair).collect()
}

/// Short keys and such that share their first bytes, one in four longer than fits beside others.
fn key(n: u64) -> Vec<u8> {
    match n % 4 {
        0 => format!("user{n:020}").into_bytes(),
        _ => format!("k{n:06}").into_bytes(),
    }
}

/// Values of all kinds, in several checkpoints and in the log; overwritten and deleted ones.
fn filled(store: &Store) -> Map {
    let mut want = Map::new();
    for round in 0..4u64 {
        for n in (0..400u64).filter(|n| round == 0 || (n * 7 + round) % 3 == 0) {
            let size = match n % 8 {
                0 => 0,
                1..=4 => 20 + n as usize,
                5 | 6 => 900,
                _ => 5000 + n as usize,
            };
            let value = bytes(n + 1000 * round, size);
            if (n + round) % 5 == 0 {
                store.delete_async(&key(n)).expect("deleted");
                want.remove(&key(n));
            } else {
                store.put_async(&key(n), &value).expect("put");
                want.insert(key(n), value);
            }
        }
        if round < 3 {
            store.checkpoint().expect("a checkpoint");
        }
    }
    want
}

#[test]
fn entries_are_what_items_say_for_every_range_and_limit() {
    let config = KvConfig {
        // Less than the pages take: some are met in the cache, some are read.
        cache_bytes: 64 << 10,
        ..small()
    };
    let (disk, store) = fresh(&config);
    let want = filled(&store);
    let check = |store: &Store| {
        for start in [None, Some(key(0)), Some(key(101)), Some(b"k0002".to_vec())] {
            for limit in [0, 1, 7, 8, 9, 100, u64::MAX] {
                let from = start.clone().map_or(Bound::Unbounded, Bound::Included);
                let range: Range = (from, Bound::Excluded(b"user00000000000000000300".to_vec()));
                let all = want.range(range.clone());
                let all = all.take(usize::try_from(limit).unwrap_or(usize::MAX));
                let all: Vec<_> = all.map(|(k, v)| (k.clone(), v.clone())).collect();
                let scan = || store.scan(range.clone(), limit).expect("a scan");
                assert!(entries(scan()) == all, "{start:?} {limit}");
                assert!(items(scan()) == all, "{start:?} {limit}");
            }
        }
    };
    check(&store);
    drop(store);
    let store = reopen(&disk, &config);
    check(&store);
    let stats = store.stats();
    assert!(stats.cache_hits > 0 && stats.cache_misses > 0, "{stats:?}");
    assert_clean(&store);
}

#[test]
fn a_scan_sees_its_moment_after_everything_has_changed() {
    let (_disk, store) = fresh(&small());
    let want: Vec<_> = filled(&store).into_iter().collect();
    let scan = || store.scan(.., u64::MAX).expect("a scan");
    let (mut first, late, by_items) = (scan(), scan(), scan());
    // One is on its way.
    for pair in &want[..5] {
        let entry = first.next_entry().expect("works").expect("an entry");
        assert!((entry.key, entry.value) == (&pair.0[..], &pair.1[..]));
    }
    for n in 0..500u64 {
        match n % 3 {
            0 => drop(store.delete_async(&key(n)).expect("deleted")),
            _ => drop(store.put_async(&key(n), b"later").expect("put")),
        }
    }
    store.checkpoint().expect("a checkpoint");
    store.compact().expect("works");
    assert!(entries(first) == want[5..]);
    assert!(entries(late) == want);
    assert!(items(by_items) == want);
    assert_eq!(store.stats().snapshots, 0);
    assert_clean(&store);
}

#[test]
fn deleted_keys_in_front_do_not_end_a_limited_scan() {
    let (_disk, store) = fresh(&small());
    for n in 0..1000u64 {
        store
            .put_async(format!("{n:04}").as_bytes(), b"x")
            .expect("put");
    }
    for n in (0..990u64).chain(991..999) {
        store
            .delete_async(format!("{n:04}").as_bytes())
            .expect("deleted");
    }
    let two = [
        (b"0990".to_vec(), b"x".to_vec()),
        (b"0999".to_vec(), b"x".to_vec()),
    ];
    for limit in [1, 2, 3] {
        let scan = || store.scan(.., limit).expect("a scan");
        let want = &two[..two.len().min(limit as usize)];
        assert!(entries(scan()) == want && items(scan()) == want);
    }
}

#[test]
fn a_scan_goes_on_behind_a_damaged_page() {
    let config = small();
    let (disk, store) = fresh(&config);
    for n in 0..200u64 {
        store
            .put_async(format!("{n:03}").as_bytes(), &bytes(n, 700))
            .expect("put");
    }
    store.close().expect("closed");
    let mut block = Blocks::new(BLOCK).expect("memory");
    let pages = (0..disk.size()).step_by(BLOCK).filter(|at| {
        disk.read(*at, &mut block).expect("a read");
        block[..4] == *b"GKVP"
    });
    let second = pages.collect::<Vec<_>>()[1];
    disk.read(second, &mut block).expect("a read");
    block[100] ^= 1;
    disk.write(second, &block).expect("a write");
    let store = reopen(&disk, &config);
    let mut scan = store.scan(.., u64::MAX).expect("a scan");
    let (mut good, mut bad) = (Vec::new(), 0);
    loop {
        match scan.next_entry() {
            Ok(None) => break,
            Ok(Some(entry)) => {
                let n = std::str::from_utf8(entry.key).expect("digits");
                let n = n.parse().expect("a number");
                assert!(entry.value == bytes(n, 700));
                good.push(n);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                bad += 1;
            }
        }
    }
    assert!(
        good.is_sorted() && bad > 0 && good.len() + bad == 200,
        "{bad}"
    );
}

#[test]
fn scans_beside_commits_of_all_keys_see_whole_commits() {
    let config = tiny();
    let (_disk, store) = fresh(&config);
    let commit = |version: u64| {
        let mut batch = Batch::new();
        for n in 0..24u64 {
            batch.put(&key(n), &bytes(version, 60 + (version % 7) as usize));
        }
        store.write_async(&batch).expect("written");
    };
    commit(0);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for by_entries in [true, false] {
            let (store, ended) = (&store, &ended);
            scope.spawn(move || {
                let mut scans = 0;
                while !ended.load(Relaxed) || scans == 0 {
                    let scan = store.scan(.., u64::MAX).expect("a scan");
                    let all = if by_entries {
                        entries(scan)
                    } else {
                        items(scan)
                    };
                    assert_eq!(all.len(), 24);
                    assert!(all.iter().all(|pair| pair.1 == all[0].1));
                    scans += 1;
                }
            });
        }
        for version in 1..400 {
            commit(version);
            if version % 50 == 0 {
                store.compact().expect("works");
            }
        }
        ended.store(true, Relaxed);
    });
    assert_clean(&store);
}
