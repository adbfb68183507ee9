//! Values into memory of a context and out of it: every size and range, many at once, damage found
//! where the bytes land, hot values held. On the host device, whose memory tests can look into.

mod common;
mod kv_common;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use common::{Folder, alloc, context};
use gds_rs::ErrorKind;
use gds_rs::engine::{Buffer, Context};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::kv::device::{DeviceConfig, DeviceStore, Get, Got};
use gds_rs::kv::store::{KvConfig, Store};
use kv_common::{Random, assert_clean, bytes, small};

const FINE_MAX: usize = 2 << 20;

struct Rig {
    context: Context,
    device: DeviceStore,
    path: PathBuf,
    _folder: Folder,
}

impl Rig {
    fn new(config: KvConfig, cache_bytes: u64) -> Self {
        let folder = Folder::new();
        let path = folder.path("store");
        let context = context();
        let store = Store::open(&path, config).expect("a store");
        let device = store
            .attach(&context, DeviceConfig { cache_bytes })
            .expect("the store has a file");
        Self {
            context,
            device,
            path,
            _folder: folder,
        }
    }

    fn store(&self) -> &Store {
        self.device.store()
    }

    fn alloc(&self, size: usize) -> Buffer {
        alloc(&self.context, size.max(1) as u64)
    }
}

/// Flips a bit of the stored value of `key`.
fn damage(store: &Store, path: &Path, key: &[u8], at: u64) {
    let located = store
        .locate(key, at..at + 1)
        .expect("no damage yet")
        .expect("the key");
    let place = located.pieces[0].offset + (at - located.start);
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("the file of the store");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place)
        .expect("the file of the store");
    file.write_all_at(&[byte[0] ^ 1], place)
        .expect("the file of the store");
    file.sync_all().expect("the file of the store");
}

fn sizes() -> Vec<usize> {
    let mut sizes = vec![0, 1, 100, 4032, 4033];
    for n in [1usize, 2, 4, 16, 64] {
        sizes.extend([n * 4096 - 1, n * 4096, n * 4096 + 1]);
    }
    sizes.extend([FINE_MAX - 1, FINE_MAX, FINE_MAX + 1, (5 << 20) + 77]);
    sizes
}

#[test]
fn values_of_every_size_arrive_whole_and_in_ranges() {
    // Segments of 1 MiB: values above that lie in several runs.
    let rig = Rig::new(small(), 0);
    let mut random = Random(5);
    for (seed, size) in sizes().into_iter().enumerate() {
        let value = bytes(seed as u64, size);
        rig.store().put(b"key", &value).unwrap();
        let buffer = rig.alloc(size + 64);
        let memory = common::bytes(&buffer);
        memory.fill(0xEE);
        let got = rig.device.get_to(b"key", 0, &buffer, 7, u64::MAX).unwrap();
        assert_eq!(got, Some(size as u64));
        assert!(memory[7..7 + size] == value, "{size}");
        assert!(
            memory[..7]
                .iter()
                .chain(&memory[7 + size..])
                .all(|b| *b == 0xEE)
        );
        for _ in 0..12 {
            let offset = random.below(size as u64 + 3) as usize;
            let wanted = random.below(size as u64 + 5000) as usize;
            let to = random.below(64) as usize;
            let size_now = wanted.min(size.saturating_sub(offset));
            memory.fill(0xEE);
            if to + size_now > memory.len() {
                continue;
            }
            let get = Get {
                key: b"key",
                offset: offset as u64,
                size: wanted as u64,
                to: &buffer,
                to_offset: to as u64,
            };
            let want = Got {
                value_len: size as u64,
                bytes: size_now as u64,
                version: rig.store().version_of(b"key").unwrap().0,
            };
            assert_eq!(rig.device.get_one(&get).unwrap(), Some(want));
            let expected = value.get(offset..offset + size_now).unwrap_or_default();
            assert!(
                memory[to..to + size_now] == *expected,
                "{size} {offset} {wanted}"
            );
            let rest = memory[..to].iter().chain(&memory[to + size_now..]);
            assert!(
                rest.into_iter().all(|b| *b == 0xEE),
                "{size} {offset} {wanted}"
            );
        }
    }
    assert_eq!(rig.device.stats().rereads, 0, "nothing needed a second try");
    assert_clean(rig.store());
}

#[test]
fn many_at_once_come_in_few_transfers_each_with_its_answer() {
    let rig = Rig::new(
        KvConfig {
            wal_bytes: 1 << 20,
            segment_bytes: 4 << 20,
            ..small()
        },
        0,
    );
    let sizes = [
        4096usize,
        8192,
        10,
        4096,
        70_000,
        0,
        4096,
        FINE_MAX + 5,
        4096,
    ];
    let mut gets = Vec::new();
    let keys: Vec<String> = (0..300).map(|i| format!("key {i}")).collect();
    let size_of = |i: usize| {
        if i < 200 {
            4096
        } else {
            sizes[i % sizes.len()]
        }
    };
    let total: usize = (0..300).map(size_of).sum();
    let buffer = rig.alloc(total);
    let mut at = 0;
    for (i, key) in keys.iter().enumerate() {
        rig.store()
            .put_async(key.as_bytes(), &bytes(i as u64, size_of(i)))
            .unwrap();
    }
    for (i, key) in keys.iter().enumerate() {
        gets.push(Get {
            key: key.as_bytes(),
            offset: 0,
            size: u64::MAX,
            to: &buffer,
            to_offset: at as u64,
        });
        at += size_of(i);
    }
    let small = rig.alloc(10);
    gets.push(Get {
        key: b"absent",
        offset: 0,
        size: 1,
        to: &buffer,
        to_offset: 0,
    });
    gets.push(Get {
        key: b"key 0",
        offset: 0,
        size: u64::MAX,
        to: &small,
        to_offset: 0,
    });
    gets.push(Get {
        key: b"key 0",
        offset: 9000,
        size: 5,
        to: &small,
        to_offset: 0,
    });
    let answers = rig.device.get_many(&gets);
    let mut at = 0;
    for (i, answer) in answers.iter().take(300).enumerate() {
        let size = size_of(i);
        let got = answer.as_ref().unwrap().unwrap();
        assert_eq!((got.value_len, got.bytes), (size as u64, size as u64));
        assert!(
            common::bytes(&buffer)[at..at + size] == bytes(i as u64, size),
            "{i}"
        );
        at += size;
    }
    assert_eq!(answers[300].as_ref().unwrap(), &None);
    assert_eq!(
        answers[301].as_ref().unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
    let none_wanted = answers[302].as_ref().unwrap().unwrap();
    assert_eq!((none_wanted.value_len, none_wanted.bytes), (4096, 0));
    let stats = rig.device.stats();
    assert!(
        stats.transfers < 150,
        "200 neighbours are joined: {stats:?}"
    );
    assert_eq!((stats.gets, stats.bytes_read), (303, total as u64));
    let of_store = rig.store().stats();
    assert!(of_store.reads >= stats.transfers && of_store.read_bytes >= 200 * 4096);
}

#[test]
fn damage_is_found_where_the_bytes_land_and_told_of_that_value_alone() {
    let rig = Rig::new(small(), 0);
    let sizes = [5000usize, 300_000, FINE_MAX + 70_000, 4096, 9000];
    for (i, size) in sizes.iter().enumerate() {
        rig.store()
            .put(&[i as u8 + 1], &bytes(i as u64, *size))
            .unwrap();
    }
    for (key, at) in [(2u8, 123_456u64), (3, FINE_MAX as u64 + 69_999), (4, 0)] {
        damage(rig.store(), &rig.path, &[key], at);
    }
    let buffers: Vec<Buffer> = sizes.iter().map(|size| rig.alloc(*size)).collect();
    let keys: Vec<[u8; 1]> = (0..sizes.len()).map(|i| [i as u8 + 1]).collect();
    let get = |i: usize, offset: u64, size: u64| Get {
        key: &keys[i],
        offset,
        size,
        to: &buffers[i],
        to_offset: 0,
    };
    let gets: Vec<Get<'_>> = (0..sizes.len()).map(|i| get(i, 0, u64::MAX)).collect();
    for (i, answer) in rig.device.get_many(&gets).iter().enumerate() {
        match answer {
            Ok(Some(got)) => {
                assert_eq!(got.bytes, sizes[i] as u64);
                assert!(
                    *common::bytes(&buffers[i]) == bytes(i as u64, sizes[i])[..],
                    "{i}"
                );
                assert!(i == 0 || i == 4);
            }
            Ok(None) => panic!("the key is there"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                assert!((1..4).contains(&i), "{i}: {error}");
            }
        }
    }
    assert_eq!(rig.device.stats().rereads, 3);
    // Ranges: only those whose chunk is damaged.
    let chunk = 123_456 / 4096 * 4096;
    assert!(rig.device.get_one(&get(1, chunk - 10, 10)).is_ok());
    assert!(rig.device.get_one(&get(1, chunk + 4096, 10)).is_ok());
    for (offset, size) in [
        (chunk, 1),
        (chunk + 4095, 1),
        (chunk - 1, 2),
        (chunk + 4095, 2),
    ] {
        let error = rig.device.get_one(&get(1, offset, size)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{offset} {size}");
    }
}

#[test]
fn what_goes_wrong_on_the_way_is_read_again_by_the_host() {
    let rig = Rig::new(small(), 1 << 20);
    let sizes = [100usize, 5000, 300_000, FINE_MAX + 9, 4096];
    for (i, size) in sizes.iter().enumerate() {
        let value = bytes(i as u64, *size);
        rig.store().put(&[i as u8 + 1], &value).unwrap();
    }
    // Every read of the context fails; those of the store itself do not.
    let plan = FaultPlan {
        io_error_at: Some(0..u64::MAX),
        ..FaultPlan::default()
    };
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    let context = common::context_over(common::small_config(), fault);
    let config = DeviceConfig {
        cache_bytes: 1 << 20,
    };
    let device = rig.store().attach(&context, config).unwrap();
    for (i, size) in sizes.iter().enumerate() {
        let buffer = alloc(&context, *size as u64);
        let key = [i as u8 + 1];
        let got = device.get_to(&key, 0, &buffer, 0, u64::MAX).unwrap();
        assert_eq!(got, Some(*size as u64));
        assert!(
            *common::bytes(&buffer) == bytes(i as u64, *size)[..],
            "{size}"
        );
        let range = device.get_to(&key, 50, &buffer, 3, 20).unwrap();
        assert_eq!(range, Some(20));
        assert!(common::bytes(&buffer)[3..23] == bytes(i as u64, *size)[50..70]);
    }
    assert!(device.cache(&[3]).unwrap());
    assert_eq!(device.stats().rereads, 2 * 4 + 1);
    // A write that fails is an error, and the key keeps what it had.
    let buffer = alloc(&context, 9000);
    let error = device.put_from(&[1], &buffer, 0, 9000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(rig.store().get(&[1]).unwrap().unwrap(), bytes(0, 100));
    rig.store().put(&[1], b"other").unwrap();
    assert_clean(rig.store());
}

#[test]
fn values_are_put_from_a_buffer_and_come_back() {
    for config in [small(), kv_common::tiny()] {
        let rig = Rig::new(config.clone(), 0);
        for (seed, size) in sizes().into_iter().enumerate() {
            let value = bytes(seed as u64 + 50, size);
            let buffer = rig.alloc(size + 13);
            common::bytes(&buffer)[13..].copy_from_slice(&value[..size.max(1).min(value.len())]);
            let key = format!("from {size}");
            let lsn = rig
                .device
                .put_from(key.as_bytes(), &buffer, 13, size as u64)
                .unwrap();
            assert!(rig.store().durable_lsn() >= lsn);
            let back = rig.store().get(key.as_bytes()).unwrap();
            assert!(back.as_ref() == Some(&value), "{size}");
        }
        let store = rig.store().clone();
        let stats = store.stats();
        assert!(
            stats.written_bytes > stats.user_bytes,
            "device writes count: {stats:?}"
        );
        let (path, keys) = (rig.path.clone(), store.keys());
        assert_clean(&store);
        drop(rig.device);
        store.close().unwrap();
        let store = Store::open(&path, config).unwrap();
        assert_eq!(store.keys(), keys);
        for (seed, size) in sizes().into_iter().enumerate() {
            let back = store
                .get(format!("from {size}").as_bytes())
                .unwrap()
                .unwrap();
            assert!(
                back == bytes(seed as u64 + 50, size),
                "{size} after reopening"
            );
        }
    }
}

#[test]
fn hot_values_are_held_replaced_and_evicted() {
    let rig = Rig::new(small(), 64 << 10);
    let look = |address: u64, len: u64| {
        // SAFETY: a held value of the host device.
        unsafe { std::slice::from_raw_parts(address as *const u8, len as usize) }
    };
    for i in 0..20u8 {
        rig.store()
            .put(&[i + 1], &bytes(u64::from(i), 8000))
            .unwrap();
    }
    assert!(rig.device.get_device_ptr(b"absent").unwrap().is_none());
    let first = rig.device.get_device_ptr(&[1]).unwrap().unwrap();
    assert!(look(first.address(), first.len()) == bytes(0, 8000));
    assert!(first.address().is_multiple_of(256));
    let again = rig.device.get_device_ptr(&[1]).unwrap().unwrap();
    assert_eq!(again.address(), first.address(), "it is there");
    // A new value is another value; the old one stays while it is held.
    rig.store().put(&[1], &bytes(77, 9000)).unwrap();
    let newer = rig.device.get_device_ptr(&[1]).unwrap().unwrap();
    assert!(look(newer.address(), newer.len()) == bytes(77, 9000));
    assert!(look(first.address(), first.len()) == bytes(0, 8000));
    drop((first, again, newer));
    for i in 1..20u8 {
        assert!(rig.device.cache(&[i + 1]).unwrap());
    }
    let stats = rig.device.stats();
    assert!(stats.evictions > 10 && stats.held == 0, "{stats:?}");
    assert!(stats.cache_used_bytes <= 64 << 10);
    let held: Vec<_> = (0..8u8)
        .map(|i| rig.device.get_device_ptr(&[i + 2]).unwrap().unwrap())
        .collect();
    let full = rig.device.get_device_ptr(&[15]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::AllPinned, "{full}");
    for (i, value) in held.iter().enumerate() {
        assert!(look(value.address(), value.len()) == bytes(i as u64 + 1, 8000));
    }
    let tokens: Vec<u64> = held
        .into_iter()
        .map(gds_rs::kv::device::Held::into_token)
        .collect();
    for token in &tokens {
        rig.device.release(*token).unwrap();
    }
    let twice = rig.device.release(tokens[0]).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidArgument);
    rig.store().put(b"large", &bytes(1, 70_000)).unwrap();
    let large = rig.device.get_device_ptr(b"large").unwrap_err();
    assert_eq!(large.kind(), ErrorKind::OutOfDeviceMemory, "{large}");
    rig.store().put(b"empty", b"").unwrap();
    assert_eq!(
        rig.device.get_device_ptr(b"empty").unwrap().unwrap().len(),
        0
    );
    rig.store().delete(&[3]).unwrap();
    assert!(rig.device.get_device_ptr(&[3]).unwrap().is_none());
}

#[test]
fn readers_see_whole_versions_while_writers_and_cleaning_go_on() {
    let rig = Rig::new(small(), 256 << 10);
    let value = |version: u64| {
        let size = 3000 + (version as usize * 7919) % 60_000;
        let mut value = bytes(version, size);
        value[..8].copy_from_slice(&version.to_le_bytes());
        value
    };
    rig.store().put(b"hot", &value(0)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (rig, stop, value) = (&rig, &stop, &value);
            scope.spawn(move || {
                let buffer = rig.alloc(70_000);
                let mut last = 0;
                while !stop.load(Relaxed) {
                    let (version, ok) = if reader == 0 {
                        let size = rig.device.get_to(b"hot", 0, &buffer, 0, u64::MAX);
                        let size = size.unwrap().unwrap() as usize;
                        let memory = &common::bytes(&buffer)[..size];
                        let version = u64::from_le_bytes(memory[..8].try_into().unwrap());
                        (version, *memory == value(version)[..])
                    } else {
                        let Some(held) = rig.device.get_device_ptr(b"hot").unwrap() else {
                            panic!("the key is there")
                        };
                        // SAFETY: a held value of the host device.
                        let memory = unsafe {
                            let first = held.address() as *const u8;
                            std::slice::from_raw_parts(first, held.len() as usize)
                        };
                        let version = u64::from_le_bytes(memory[..8].try_into().unwrap());
                        (version, *memory == value(version)[..])
                    };
                    assert!(ok && version >= last, "{version} after {last}");
                    last = version;
                }
            });
        }
        for version in 1..400 {
            rig.store().put_async(b"hot", &value(version)).unwrap();
            if version % 100 == 0 {
                rig.store().compact().unwrap();
            }
        }
        stop.store(true, Relaxed);
    });
    assert_clean(rig.store());
}

#[test]
fn what_cannot_be_is_refused() {
    let (_disk, store) = kv_common::fresh(&small());
    let context = context();
    let error = store.attach(&context, DeviceConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");

    let rig = Rig::new(small(), 0);
    rig.store().put(b"a", b"value").unwrap();
    let kind = |result: gds_rs::Result<Option<u64>>| result.unwrap_err().kind();
    let foreign = alloc(&context, 100);
    assert_eq!(
        kind(rig.device.get_to(b"a", 0, &foreign, 0, 5)),
        ErrorKind::InvalidArgument
    );
    let put = rig.device.put_from(b"a", &foreign, 0, 5).unwrap_err();
    assert_eq!(put.kind(), ErrorKind::InvalidArgument);
    let own = rig.alloc(4);
    assert_eq!(
        kind(rig.device.get_to(b"a", 0, &own, 0, 5)),
        ErrorKind::OutOfRange
    );
    assert_eq!(
        kind(rig.device.get_to(b"a", 0, &own, 5, 0)),
        ErrorKind::OutOfRange
    );
    assert_eq!(
        kind(rig.device.get_to(b"a", 0, &own, u64::MAX, 1)),
        ErrorKind::OutOfRange
    );
    for (offset, size) in [(0, 5), (5, 0), (u64::MAX, 1)] {
        let error = rig.device.put_from(b"a", &own, offset, size).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfRange);
    }
    let error = rig.device.put_from(b"", &own, 0, 4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let error = rig.device.get_device_ptr(b"a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
    assert_eq!(rig.store().get(b"a").unwrap().unwrap(), b"value");
}
