//! Memory that cannot be had: large allocation number n of a call fails, for n = 1, 2, ... until
//! none does. The call answers so and nothing is harmed. (Small ones end the process, as
//! everywhere in Rust.)

#![allow(clippy::print_stdout)]

mod kv_driver;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use gds_rs::ErrorKind;
use gds_rs::kv::disk::Blocks;
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{KvConfig, Store};
use kv_driver::{Random, config};

/// Allocations of this many bytes may fail: those that a length from outside decides.
const LARGE: usize = 256 << 10;

/// Fails one large allocation of the thread that asks for it.
struct Failing;

thread_local! {
    /// Counts down to the one that fails; 0 = none.
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static STRUCK: Cell<bool> = const { Cell::new(false) };
}

fn fails(size: usize) -> bool {
    if size < LARGE {
        return false;
    }
    let hit = LEFT.try_with(|left| {
        let now = left.get();
        left.set(now.saturating_sub(1));
        now == 1
    });
    let hit = hit.unwrap_or(false);
    if hit {
        STRUCK.with(|struck| struck.set(true));
    }
    hit
}

// SAFETY: everything is the system's, or refused.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Runs a call with its n-th large allocation failing, until none fails; how many did.
fn each<T>(what: &str, call: &mut dyn FnMut() -> gds_rs::Result<T>) -> u32 {
    for n in 1.. {
        STRUCK.set(false);
        // Memory that is kept for later would be found in place of the system's.
        Blocks::trim();
        LEFT.set(n);
        let result = call();
        LEFT.set(0);
        if !STRUCK.get() {
            result.unwrap_or_else(|e| panic!("{what}, nothing failed: {e:?}"));
            println!("{what}: {} allocations failed", n - 1);
            return n - 1;
        }
        // What was not needed may fail unseen; any error says what it is.
        if let Err(error) = result {
            assert_eq!(
                error.kind(),
                ErrorKind::OutOfHostMemory,
                "{what}, {n}: {error}"
            );
        }
        assert!(n < 1000, "{what} never ends");
    }
    unreachable!()
}

#[test]
fn large_values_without_memory_are_errors() {
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let config = KvConfig {
        segment_bytes: 4 << 20,
        wal_bytes: 1 << 20,
        ..config()
    };
    let store = Store::create_on(disk.clone(), config.clone()).expect("a store");
    let value = Random(1).bytes(6_000_000);
    store.put(b"large", &value).expect("put");
    let mut failed = each("get", &mut || {
        store
            .get(b"large")
            .map(|got| assert!(got.is_none_or(|g| g == value)))
    });
    let mut into = vec![0; 5_000_000];
    failed += each("get_into", &mut || store.get_into(b"large", 777, &mut into));
    assert!(into[..] == value[777..5_000_777]);
    failed += each("put", &mut || store.put(b"other", &value));
    failed += each("put in parts", &mut || {
        let mut writer = store.put_writer(b"parts", 0)?;
        for part in value.chunks(700_000) {
            writer.write(part)?;
        }
        writer.commit()
    });
    failed += each("locate", &mut || store.locate(b"large", 0..u64::MAX));
    failed += each("checkpoint", &mut || store.checkpoint());
    println!("{failed} in all");
    assert!(failed > 2, "{failed}");
    for key in [&b"large"[..], b"other", b"parts"] {
        assert!(store.get(key).expect("a read") == Some(value.clone()));
    }
    assert!(store.verify().expect("a report").is_clean());
    drop(store);
    let mut again = None;
    each("open", &mut || {
        again = None;
        again = Some(Store::open_on(disk.clone(), config.clone())?);
        Ok(())
    });
    let again = again.expect("it opens in the end");
    assert!(again.get(b"parts").expect("a read") == Some(value));
}
