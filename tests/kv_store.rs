//! The store: each behaviour one test.

mod kv_common;

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use gds_rs::ErrorKind;
use gds_rs::kv::disk::Disk;
use gds_rs::kv::sim::{SimDisk, SimPlan};
use gds_rs::kv::store::{Batch, KEY_MAX, KvConfig, Store};
use kv_common::{assert_clean, bytes, fresh, reopen, small, tiny};

/// Sizes at which something changes.
fn sizes(inline_max: usize) -> Vec<usize> {
    let mut sizes = vec![0, 1, inline_max, inline_max + 1];
    for n in [1usize, 2, 3, 16, 64] {
        sizes.extend([n * 4096 - 1, n * 4096, n * 4096 + 1]);
    }
    sizes.extend([
        (2 << 20) - 1,
        2 << 20,
        (2 << 20) + 1,
        (3 << 20) + 77,
        5 << 20,
    ]);
    sizes
}

#[test]
fn values_of_every_size_come_back_now_and_after_reopening() {
    for config in [small(), tiny()] {
        let (disk, store) = fresh(&config);
        let sizes = sizes(config.inline_max);
        let check = |store: &Store| {
            for (n, size) in sizes.iter().enumerate() {
                let key = format!("size {size}");
                let want = bytes(n as u64, *size);
                assert_eq!(store.len_of(key.as_bytes()), Some(*size as u64));
                assert!(
                    store.get(key.as_bytes()).unwrap().as_ref() == Some(&want),
                    "{size}"
                );
            }
            assert_eq!(store.get(b"absent").unwrap(), None);
            assert_eq!(store.keys(), sizes.len() as u64);
            assert_clean(store);
        };
        for (n, size) in sizes.iter().enumerate() {
            let key = format!("size {size}");
            store.put(key.as_bytes(), &bytes(n as u64, *size)).unwrap();
        }
        check(&store);
        drop(store);
        let store = reopen(&disk, &config);
        check(&store);
        store.checkpoint().unwrap();
        check(&store);
        drop(store);
        let store = reopen(&disk, &config);
        check(&store);
        store.close().unwrap();
        check(&reopen(&disk, &config));
    }
}

#[test]
fn values_with_more_than_512_checksums_have_a_list() {
    // Over 32 MiB: more than 512 checksums of 64 KiB in one contiguous run.
    let config = KvConfig {
        wal_bytes: 1 << 20,
        segment_bytes: 64 << 20,
        superblock_spacing: 4 << 10,
        ..KvConfig::default()
    };
    let (disk, store) = fresh(&config);
    let value = bytes(7, (33 << 20) + 5);
    store.put(b"long", &value).unwrap();
    for (offset, len) in [
        (0u64, 10usize),
        (33 << 20, 5),
        (65_530, 70_000),
        (17 << 20, 1 << 20),
    ] {
        let mut part = vec![0; len];
        assert_eq!(
            store.get_into(b"long", offset, &mut part).unwrap(),
            Some(len)
        );
        assert!(part == value[offset as usize..offset as usize + len]);
    }
    drop(store);
    let store = reopen(&disk, &config);
    assert!(store.get(b"long").unwrap().unwrap() == value);
    assert_clean(&store);
}

#[test]
fn keys_from_one_byte_to_the_longest_and_no_others() {
    let config = small();
    let (disk, store) = fresh(&config);
    assert_eq!(store.key_max(), KEY_MAX);
    let lengths = [1, 2, 22, 23, 24, 255, 4096, 65535, KEY_MAX];
    for len in lengths {
        store.put(&bytes(len as u64, len), &bytes(1, 100)).unwrap();
    }
    store.put(&bytes(9999, KEY_MAX), &bytes(2, 10_000)).unwrap();
    for wrong in [0, KEY_MAX + 1] {
        let error = store.put(&vec![1; wrong], b"v").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(
            store.delete(&vec![1; wrong]).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
    for round in 0..2 {
        for len in lengths {
            let value = store.get(&bytes(len as u64, len)).unwrap();
            assert_eq!(value, Some(bytes(1, 100)), "{len} in round {round}");
        }
        assert_eq!(
            store.get(&bytes(9999, KEY_MAX)).unwrap(),
            Some(bytes(2, 10_000))
        );
        store.checkpoint().unwrap();
    }
    drop(store);
    let store = reopen(&disk, &config);
    for len in lengths {
        assert_eq!(
            store.get(&bytes(len as u64, len)).unwrap(),
            Some(bytes(1, 100))
        );
    }
    assert_clean(&store);
}

#[test]
fn overwriting_and_deleting_show_the_newest() {
    let config = tiny();
    let (disk, store) = fresh(&config);
    for round in 0..3u64 {
        for n in 0..50u64 {
            let size = ((n * 373 + round * 4001) % 9000) as usize;
            store
                .put_async(&n.to_le_bytes(), &bytes(n + round, size))
                .unwrap();
        }
        store.checkpoint().unwrap();
    }
    assert!(store.delete(&3u64.to_le_bytes()).unwrap());
    assert!(!store.delete(&3u64.to_le_bytes()).unwrap());
    assert!(!store.delete(b"never there").unwrap());
    assert_eq!(store.get(&3u64.to_le_bytes()).unwrap(), None);
    assert_eq!(store.keys(), 49);
    store.put(&3u64.to_le_bytes(), b"back").unwrap();
    drop(store);
    let store = reopen(&disk, &config);
    for n in 0..50u64 {
        let size = ((n * 373 + 2 * 4001) % 9000) as usize;
        let want = if n == 3 {
            b"back".to_vec()
        } else {
            bytes(n + 2, size)
        };
        assert!(store.get(&n.to_le_bytes()).unwrap() == Some(want), "{n}");
    }
    assert_clean(&store);
}

#[test]
fn a_deleted_key_stays_deleted_through_checkpoints_and_reopening() {
    let config = tiny();
    let (disk, store) = fresh(&config);
    store.put(b"k", b"small").unwrap();
    store.put(b"l", &bytes(1, 5000)).unwrap();
    store.checkpoint().unwrap();
    store.delete(b"k").unwrap();
    store.delete(b"l").unwrap();
    for _ in 0..3 {
        store.checkpoint().unwrap();
    }
    drop(store);
    let store = reopen(&disk, &config);
    assert_eq!(
        (
            store.get(b"k").unwrap(),
            store.get(b"l").unwrap(),
            store.keys()
        ),
        (None, None, 0)
    );
    // Many other keys, so that the meta log is cleaned past the tombstones.
    for n in 0..5000u64 {
        store
            .put_async(&(n % 100).to_le_bytes(), &bytes(n, 30))
            .unwrap();
        if n % 500 == 0 {
            store.checkpoint().unwrap();
        }
    }
    store.checkpoint().unwrap();
    drop(store);
    let store = reopen(&disk, &config);
    assert_eq!(
        (
            store.get(b"k").unwrap(),
            store.get(b"l").unwrap(),
            store.keys()
        ),
        (None, None, 100)
    );
    assert_clean(&store);
}

#[test]
fn a_batch_is_one_commit() {
    let config = small();
    let (disk, store) = fresh(&config);
    store.put(b"gone", b"x").unwrap();
    let mut batch = Batch::new();
    batch
        .put(b"a", b"1")
        .put(b"b", &bytes(3, 100_000))
        .delete(b"gone")
        .put(b"a", b"2");
    let lsn = store.write(&batch).unwrap();
    assert!(store.durable_lsn() >= lsn);
    for store in [store, reopen(&disk, &config)] {
        assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.get(b"b").unwrap(), Some(bytes(3, 100_000)));
        assert_eq!(store.get(b"gone").unwrap(), None);
        // The next opening needs this one closed only by our own rule of one store a disk.
        drop(store);
    }
}

#[test]
fn a_batch_with_a_wrong_key_changes_nothing() {
    let (_disk, store) = fresh(&small());
    let mut batch = Batch::new();
    batch.put(b"a", b"1").put(b"", b"2");
    assert_eq!(
        store.write(&batch).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(store.get(b"a").unwrap(), None);
    let mut large = Batch::new();
    for n in 0..2000u64 {
        large.put(&n.to_le_bytes(), &[1; 4000]);
    }
    assert_eq!(
        store.write(&large).unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
    assert_eq!(store.keys(), 0);
}

#[test]
fn parts_of_values_are_read() {
    let (_disk, store) = fresh(&small());
    for len in [100usize, 5000, 300_000, 3 << 20] {
        let value = bytes(len as u64, len);
        store.put(b"v", &value).unwrap();
        for _ in 0..2 {
            for offset in [0, 1, 50, 99, 4095, 4096, 65_535, len - 1, len, len + 1] {
                for size in [0usize, 1, 100, 5000, 70_000] {
                    let mut part = vec![0; size];
                    let got = store
                        .get_into(b"v", offset as u64, &mut part)
                        .unwrap()
                        .unwrap();
                    let start = offset.min(len);
                    let want = size.min(len - start);
                    assert_eq!(got, want, "{len} {offset} {size}");
                    assert!(part[..got] == value[start..start + want]);
                }
            }
            store.checkpoint().unwrap();
        }
    }
    assert_eq!(store.get_into(b"none", 0, &mut [0; 4]).unwrap(), None);
}

#[test]
fn snapshots_see_the_past() {
    for checkpoints in [false, true] {
        let (_disk, store) = fresh(&tiny());
        let point = || {
            if checkpoints {
                store.compact().unwrap();
            }
        };
        store.put(b"small", b"one").unwrap();
        store.put(b"large", &bytes(1, 9000)).unwrap();
        store.put(b"dies", b"here").unwrap();
        let first = store.snapshot().unwrap();
        point();
        store.put(b"small", b"two").unwrap();
        store.put(b"large", &bytes(2, 9000)).unwrap();
        store.delete(b"dies").unwrap();
        store.put(b"new", b"born").unwrap();
        let second = store.snapshot().unwrap();
        point();
        store.put(b"small", b"three").unwrap();
        store.delete(b"large").unwrap();
        store.put(b"dies", b"again").unwrap();
        point();
        assert_eq!(first.get(b"small").unwrap().unwrap(), b"one");
        assert_eq!(first.get(b"large").unwrap().unwrap(), bytes(1, 9000));
        assert_eq!(first.get(b"dies").unwrap().unwrap(), b"here");
        assert_eq!(first.get(b"new").unwrap(), None);
        assert_eq!(second.get(b"small").unwrap().unwrap(), b"two");
        assert_eq!(second.get(b"large").unwrap().unwrap(), bytes(2, 9000));
        assert_eq!(second.get(b"dies").unwrap(), None);
        assert_eq!(second.get(b"new").unwrap().unwrap(), b"born");
        assert_eq!(store.get(b"small").unwrap().unwrap(), b"three");
        assert_eq!(store.get(b"large").unwrap(), None);
        assert_eq!(store.get(b"dies").unwrap().unwrap(), b"again");
        drop(first);
        point();
        assert_eq!(second.get(b"large").unwrap().unwrap(), bytes(2, 9000));
        drop(second);
        point();
        assert_clean(&store);
        assert_eq!(store.stats().snapshots, 0);
    }
}

#[test]
fn scans_are_in_order_and_of_one_moment() {
    let (_disk, store) = fresh(&tiny());
    for n in (0..1000u64).rev() {
        store
            .put_async(format!("k{n:04}").as_bytes(), &n.to_le_bytes())
            .unwrap();
    }
    store.delete(b"k0500").unwrap();
    let scan = store.scan(.., u64::MAX).unwrap();
    store.put(b"k0500", b"later").unwrap();
    store.put(b"k0001", b"later").unwrap();
    let mut seen = Vec::new();
    for item in scan {
        let value = item.value().unwrap();
        seen.push((
            item.key.clone(),
            u64::from_le_bytes(value.try_into().unwrap()),
        ));
    }
    let want: Vec<_> = (0..1000u64)
        .filter(|n| *n != 500)
        .map(|n| (format!("k{n:04}").into_bytes(), n))
        .collect();
    assert!(seen == want);
    let keys = |range: (Bound<Vec<u8>>, Bound<Vec<u8>>), limit| -> Vec<String> {
        let scan = store.scan(range, limit).unwrap();
        scan.map(|i| String::from_utf8(i.key).unwrap()).collect()
    };
    let (a, b) = (b"k0010".to_vec(), b"k0012".to_vec());
    let all = keys((Bound::Included(a.clone()), Bound::Included(b.clone())), 99);
    assert_eq!(all, ["k0010", "k0011", "k0012"]);
    let inner = keys((Bound::Excluded(a.clone()), Bound::Excluded(b.clone())), 99);
    assert_eq!(inner, ["k0011"]);
    assert_eq!(
        keys((Bound::Included(a), Bound::Unbounded), 2),
        ["k0010", "k0011"]
    );
    assert!(keys((Bound::Included(b), Bound::Excluded(b"a".to_vec())), 2).is_empty());
}

#[test]
fn a_store_without_order_refuses_scans() {
    let config = KvConfig {
        ordered: false,
        ..tiny()
    };
    let (_disk, store) = fresh(&config);
    store.put(b"a", b"1").unwrap();
    assert_eq!(
        store.scan(.., 1).unwrap_err().kind(),
        ErrorKind::NotSupported
    );
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"1");
}

#[test]
fn tickets_become_durable_and_call_back() {
    let (_disk, store) = fresh(&tiny());
    let lsn = store.put_async(b"a", b"1").unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    store.on_durable(lsn, Box::new(move |r| sender.send(r.unwrap()).unwrap()));
    assert!(receiver.recv_timeout(Duration::from_secs(20)).unwrap() >= lsn);
    store.wait(lsn, None).unwrap();
    assert!(store.durable_lsn() >= lsn && store.appended_lsn() >= lsn);
    store.sync().unwrap();
}

#[test]
fn a_value_is_put_piece_by_piece() {
    let (disk, store) = fresh(&small());
    for hint in [0u64, 100, 1 << 20, 5 << 20] {
        for len in [0usize, 100, 4033, 100_000, (2 << 20) + 1, 3 << 20] {
            let value = bytes(hint + len as u64, len);
            let mut writer = store.put_writer(b"w", hint).unwrap();
            for piece in value.chunks(77_777) {
                writer.write(piece).unwrap();
            }
            assert_eq!(writer.len(), len as u64);
            let before = store.get(b"w").unwrap();
            writer.commit().unwrap();
            assert!(before.as_ref() != Some(&value) || len == 0);
            assert!(store.get(b"w").unwrap() == Some(value), "{hint} {len}");
        }
    }
    let mut given_up = store.put_writer(b"w", 0).unwrap();
    given_up.write(&[9; 100_000]).unwrap();
    drop(given_up);
    assert_eq!(store.len_of(b"w"), Some(3 << 20));
    assert_clean(&store);
    drop(store);
    assert_eq!(reopen(&disk, &small()).len_of(b"w"), Some(3 << 20));
}

#[test]
fn a_value_is_put_by_writes_of_the_callers_own() {
    let (disk, store) = fresh(&small());
    for len in [4096usize, 10_000, 300_000, 3 << 20] {
        let value = bytes(len as u64, len);
        let mut writer = store.put_writer(b"w", len as u64).unwrap();
        let mut done = 0;
        while done < len {
            let run = writer.reserve_run((len - done) as u64).unwrap();
            let now = (run.len as usize).min(len - done);
            let part = &value[done..done + now];
            let blocks = gds_rs::kv::disk::Blocks::copy_of(part).unwrap();
            disk.write(run.offset, &blocks).unwrap();
            let crcs: Vec<u32> = part
                .chunks(run.chunk as usize)
                .map(crc32c::crc32c)
                .collect();
            writer.fill_run(&run, now as u64, &crcs).unwrap();
            done += now;
        }
        writer.commit().unwrap();
        assert!(store.get(b"w").unwrap() == Some(value), "{len}");
    }
    assert_clean(&store);
}

#[test]
fn located_values_stay_where_they_are_while_they_are_held() {
    let config = KvConfig {
        size_bytes: 2 << 20,
        ..tiny()
    };
    let disk = Arc::new(SimDisk::new(0));
    let store = Store::create_on(disk.clone(), config).unwrap();
    let value = bytes(1, 20_000);
    store.put(b"held", &value).unwrap();
    let located = store.locate(b"held", 5000..20_000).unwrap().unwrap();
    assert_eq!(
        (located.start, located.len, located.value_len),
        (4096, 15_904, 20_000)
    );
    store.delete(b"held").unwrap();
    for n in 0..300u64 {
        store.put(b"churn", &bytes(n, 30_000)).unwrap();
    }
    store.compact().unwrap();
    let mut got = Vec::new();
    for piece in &located.pieces {
        let mut blocks = gds_rs::kv::disk::Blocks::new(piece.len as usize).unwrap();
        disk.read(piece.offset, &mut blocks).unwrap();
        got.extend(&blocks[..piece.len as usize]);
    }
    assert!(got == value[4096..]);
    let sums: Vec<u32> = got
        .chunks(located.chunk as usize)
        .map(crc32c::crc32c)
        .collect();
    assert_eq!(sums, located.crcs);
    assert!(store.stats().pins > 0);
    drop(located);
    assert_eq!(store.stats().pins, 0);
    store.put(b"small", b"xyz").unwrap();
    let inline = store.locate(b"small", 0..1).unwrap().unwrap();
    assert_eq!(inline.inline.as_deref(), Some(&b"xyz"[..]));
}

#[test]
fn a_full_store_answers_and_deletes_still_work() {
    for size in [100usize, 3000, 20_000] {
        let config = KvConfig {
            size_bytes: 1 << 20,
            stall: Duration::from_secs(60),
            ..tiny()
        };
        let disk = Arc::new(SimDisk::new(0));
        disk.record(false);
        let store = Store::create_on(disk.clone(), config.clone()).unwrap();
        let mut put = 0u64;
        let error = loop {
            match store.put_async(&put.to_le_bytes(), &bytes(put, size)) {
                Ok(_) => put += 1,
                Err(error) => break error,
            }
            assert!(put < 100_000, "it never fills");
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(put * size as u64 > 100_000, "{put} of {size} fit");
        for n in 0..put {
            assert!(store.get(&n.to_le_bytes()).unwrap() == Some(bytes(n, size)));
        }
        for n in (0..put).filter(|n| n % 4 != 0) {
            assert!(store.delete_async(&n.to_le_bytes()).unwrap().0);
        }
        store.sync().unwrap();
        for n in put..put + put / 3 {
            let lsn = store.put(&n.to_le_bytes(), &bytes(n, size));
            assert!(
                lsn.is_ok(),
                "{size}: {n} of {put}: {lsn:?}, {:?}",
                store.stats()
            );
        }
        assert_clean(&store);
        drop(store);
        let store = reopen(&disk, &config);
        for n in 0..put + put / 3 {
            let there = n >= put || n % 4 == 0;
            let want = there.then(|| bytes(n, size));
            assert!(store.get(&n.to_le_bytes()).unwrap() == want, "{n} of {put}");
        }
        assert_clean(&store);
    }
}

#[test]
fn cleaning_gives_space_back() {
    let config = KvConfig {
        size_bytes: 2 << 20,
        ..tiny()
    };
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_on(disk, config).unwrap();
    // Many times the store's size, with values that stay in between.
    for n in 0..2000u64 {
        let stays = n % 20 == 0;
        let key = if stays { n } else { 1 };
        store
            .put_async(&key.to_le_bytes(), &bytes(n, 5000))
            .unwrap();
    }
    store.compact().unwrap();
    let stats = store.stats();
    assert!(stats.gc_rounds > 0 && stats.gc_bytes > 0, "{stats:?}");
    for n in (0..2000u64).step_by(20) {
        assert!(
            store.get(&n.to_le_bytes()).unwrap() == Some(bytes(n, 5000)),
            "{n}"
        );
    }
    assert_clean(&store);
}

#[test]
fn many_small_values_are_cleaned_too() {
    let config = KvConfig {
        size_bytes: 2 << 20,
        ..tiny()
    };
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_on(disk.clone(), config.clone()).unwrap();
    for n in 0..20_000u64 {
        let key = (n * 7919) % 500;
        store.put_async(&key.to_le_bytes(), &bytes(n, 300)).unwrap();
    }
    assert_eq!(store.keys(), 500);
    assert_clean(&store);
    drop(store);
    let store = reopen(&disk, &config);
    let mut last = vec![0; 500];
    for n in 0..20_000u64 {
        last[((n * 7919) % 500) as usize] = n;
    }
    for (key, n) in last.iter().enumerate() {
        assert_eq!(
            store.get(&(key as u64).to_le_bytes()).unwrap(),
            Some(bytes(*n, 300))
        );
    }
    assert_clean(&store);
}

#[test]
fn changed_bytes_of_values_are_found_and_never_returned() {
    let config = KvConfig {
        cache_bytes: 0,
        ..small()
    };
    for len in [50usize, 4000, 4096, 100_000, 3 << 20] {
        let (disk, store) = fresh(&config);
        let value = bytes(5, len);
        store.put(b"v", &value).unwrap();
        store.checkpoint().unwrap();
        // Where it lies: wherever the disk holds the value's last bytes.
        let tail = &value[len.saturating_sub(16)..];
        let at = find(&disk, tail).expect("the value is on the disk");
        disk.flip(at, 0x20);
        let error = store.get(b"v").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        let mut part = [0; 8];
        let offset = (len - 8) as u64;
        assert_eq!(
            store.get_into(b"v", offset, &mut part).unwrap_err().kind(),
            ErrorKind::Corrupted
        );
        let report = store.verify().unwrap();
        assert_eq!(
            (report.problems, report.first[0].key.as_slice()),
            (1, &b"v"[..])
        );
        drop(store);
        let store = reopen(&disk, &config);
        assert_eq!(store.get(b"v").unwrap_err().kind(), ErrorKind::Corrupted);
        disk.flip(at, 0x20);
        assert!(store.get(b"v").unwrap() == Some(value));
    }
}

/// The last place on the disk where `bytes` lie.
fn find(disk: &SimDisk, bytes: &[u8]) -> Option<u64> {
    let mut all = gds_rs::kv::disk::Blocks::new(disk.size() as usize).expect("memory");
    disk.read(0, &mut all).expect("a read");
    let found = all.windows(bytes.len()).rposition(|w| w == bytes)?;
    Some(found as u64)
}

#[test]
fn a_damaged_index_is_refused() {
    let config = small();
    let (disk, store) = fresh(&config);
    store.put(b"some key to look for", &bytes(1, 5000)).unwrap();
    store.close().unwrap();
    let at = find(&disk, b"some key to look for").unwrap();
    disk.flip(at, 1);
    let error = Store::open_on(disk.clone(), config.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    assert!(error.offset().is_some());
    disk.flip(at, 1);
    Store::open_on(disk, config).unwrap();
}

#[test]
fn a_poisoned_store_still_reads() {
    let config = tiny();
    let disk = Arc::new(SimDisk::new(0));
    let store = Store::create_on(disk.clone(), config.clone()).unwrap();
    store.put(b"small", b"value").unwrap();
    store.put(b"large", &bytes(1, 9000)).unwrap();
    disk.set_plan(SimPlan {
        flush_error: 1.0,
        ..SimPlan::default()
    });
    let error = store.put(b"more", &bytes(2, 9000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    disk.set_plan(SimPlan::default());
    assert_eq!(
        store.put(b"more", b"1").unwrap_err().kind(),
        ErrorKind::Poisoned
    );
    assert_eq!(
        store.delete(b"small").unwrap_err().kind(),
        ErrorKind::Poisoned
    );
    assert_eq!(store.checkpoint().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(store.get(b"small").unwrap().unwrap(), b"value");
    assert_eq!(store.get(b"large").unwrap().unwrap(), bytes(1, 9000));
    assert!(store.stats().poisoned);
    drop(store);
    let store = reopen(&disk, &config);
    assert_eq!(store.get(b"small").unwrap().unwrap(), b"value");
    assert_eq!(store.get(b"large").unwrap().unwrap(), bytes(1, 9000));
    store.put(b"more", b"now").unwrap();
}

#[test]
fn a_closed_store_refuses_writes() {
    let (_disk, store) = fresh(&tiny());
    let other = store.clone();
    store.put(b"a", b"1").unwrap();
    store.close().unwrap();
    assert_eq!(
        other.put(b"a", b"2").unwrap_err().kind(),
        ErrorKind::Poisoned
    );
    assert_eq!(other.get(b"a").unwrap().unwrap(), b"1");
}

#[test]
fn too_many_keys_for_memory_are_refused() {
    let config = KvConfig {
        index_bytes_max: 20_000,
        ..tiny()
    };
    let (_disk, store) = fresh(&config);
    let error = (0..10_000u64)
        .find_map(|n| store.put_async(&n.to_le_bytes(), b"").err())
        .expect("memory is bounded");
    assert_eq!(error.kind(), ErrorKind::OutOfHostMemory, "{error}");
    assert!(store.stats().index_bytes < 21_000);
    assert!(store.delete(&0u64.to_le_bytes()).unwrap());
}

#[test]
fn many_threads_write_read_and_scan() {
    let (disk, store) = fresh(&tiny());
    std::thread::scope(|scope| {
        for t in 0..4u64 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..300u64 {
                    let key = [t.to_le_bytes(), (n % 40).to_le_bytes()].concat();
                    let size = ((n * 997 + t) % 7000) as usize;
                    store.put_async(&key, &bytes(n, size)).unwrap();
                    assert!(store.get(&key).unwrap() == Some(bytes(n, size)));
                    if n % 50 == 0 {
                        let scan = store.scan(.., 1000).unwrap();
                        for item in scan {
                            assert_eq!(item.value().unwrap().len() as u64, item.len);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(store.keys(), 160);
    assert_clean(&store);
    drop(store);
    let store = reopen(&disk, &tiny());
    for t in 0..4u64 {
        for n in 260..300u64 {
            let key = [t.to_le_bytes(), (n % 40).to_le_bytes()].concat();
            let size = ((n * 997 + t) % 7000) as usize;
            assert!(store.get(&key).unwrap() == Some(bytes(n, size)));
        }
    }
}

#[test]
fn statistics_count_what_happened() {
    let (_disk, store) = fresh(&small());
    for n in 0..100u64 {
        store.put(&n.to_le_bytes(), &bytes(n, 500)).unwrap();
    }
    store.put(b"large", &bytes(1, 100_000)).unwrap();
    store.checkpoint().unwrap();
    for n in 0..100u64 {
        store.get(&n.to_le_bytes()).unwrap();
    }
    store.get(b"large").unwrap();
    let s = store.stats();
    assert_eq!((s.keys, s.wal_commits, s.wal_records), (101, 101, 101));
    assert_eq!(s.user_bytes, 100 * 508 + 100_005);
    assert!(s.wal_batches >= 101 && s.durable_writes >= 101, "{s:?}");
    assert!(s.written_bytes > s.user_bytes && s.write_amplification > 1.0);
    assert!(
        s.coalesced_writes > 0 && s.batched_checksums > 0 && s.cache_hits > 50,
        "{s:?}"
    );
    assert!(s.total_iops > 0 && s.peak_iops > 0 && s.flushes > 0);
    assert!(s.live_bytes > 100_000 && s.checkpoints == 1 && s.segments > s.segments_free);
    assert!(s.durable_latency.p50_ns > 0 && s.read_latency.max_ns > 0);
}

#[test]
fn files_are_opened_locked_and_destroyed() {
    let dir = std::env::temp_dir().join(format!("gds-kv-store-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("store");
    let no = KvConfig {
        create: false,
        ..small()
    };
    assert_eq!(
        Store::open(&path, no.clone()).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let store = Store::open(&path, small()).unwrap();
    store.put(b"a", &bytes(1, 100_000)).unwrap();
    store.put(b"b", b"2").unwrap();
    assert!(
        Store::open(&path, no.clone()).is_err(),
        "two openings of one store"
    );
    store.close().unwrap();
    let store = Store::open(&path, no).unwrap();
    assert_eq!(store.get(b"a").unwrap(), Some(bytes(1, 100_000)));
    assert_eq!(store.get(b"b").unwrap().unwrap(), b"2");
    assert_clean(&store);
    drop(store);
    Store::destroy(&path).unwrap();
    assert!(!path.exists());
    std::fs::write(&path, vec![7; 10_000]).unwrap();
    assert_eq!(
        Store::open(&path, small()).unwrap_err().kind(),
        ErrorKind::UnsupportedFile
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_snapshot_does_not_keep_memory_or_writers() {
    let (_disk, store) = fresh(&tiny());
    for n in 0..50u64 {
        store.put(&n.to_le_bytes(), &bytes(n, 1000)).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    let mut held = Vec::new();
    for round in 1..20u64 {
        for n in 0..50u64 {
            store
                .put_async(&n.to_le_bytes(), &bytes(n + round, 1000))
                .unwrap();
        }
        held.push(store.snapshot().unwrap());
    }
    store.checkpoint().unwrap();
    let stats = store.stats();
    assert!(stats.memtable_bytes < 1000, "{stats:?}");
    for n in 0..50u64 {
        assert_eq!(
            snapshot.get(&n.to_le_bytes()).unwrap(),
            Some(bytes(n, 1000))
        );
        assert_eq!(
            held[7].get(&n.to_le_bytes()).unwrap(),
            Some(bytes(n + 8, 1000))
        );
    }
    assert_clean(&store);
    drop((snapshot, held));
    assert_clean(&store);
}

#[test]
fn a_growing_store_uses_space_again_without_being_asked() {
    let (disk, store) = fresh(&tiny());
    for n in 0..3000u64 {
        let key = if n % 50 == 0 { n } else { n % 7 };
        store
            .put_async(&key.to_le_bytes(), &bytes(n, 9000))
            .unwrap();
        if n % 20 == 0 {
            store.sync().unwrap();
        }
    }
    // 36 MB of extents were written, of which less than 1 MB is alive.
    assert!(disk.size() < 20 << 20, "{}", disk.size());
    assert_clean(&store);
}
