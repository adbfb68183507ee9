//! What a store counts of reads and writes at once, and how long operations took.

mod common;
mod kv_common;

use gds_rs::io;
use gds_rs::kv::store::{KvConfig, Store};
use gds_rs::metrics::Latency;
use kv_common::{bytes, fresh, small, tiny};

#[test]
fn reads_of_several_pieces_are_counted_and_bring_the_same_bytes() {
    let folder = common::Folder::new();
    let config = KvConfig {
        segment_bytes: 16 << 20,
        ..small()
    };
    let store = Store::open(&folder.path("store"), config).expect("a store");
    let value = bytes(7, (9 << 20) + 77);
    store.put(b"large", &value).expect("put");
    store.put(b"mean", &value[..500_000]).expect("put");
    assert!(store.get(b"mean").expect("works").as_deref() == Some(&value[..500_000]));
    let before = store.stats();
    assert_eq!((before.vectored_reads, before.io_uring_ops), (0, 0));

    assert!(store.get(b"large").expect("works").as_ref() == Some(&value));
    let s = store.stats();
    // Four pieces of 1 MiB, four, and what is left.
    assert_eq!(s.vectored_reads, 3);
    assert_eq!(s.reads - before.reads, 10);
    let by_uring = if io::best().name() == "io_uring" {
        10
    } else {
        0
    };
    assert_eq!(s.io_uring_ops, by_uring);

    let mut into = vec![0; 5 << 20];
    for offset in [0, 1, 4095, 65_536, (1 << 20) - 1, (4 << 20) + 7, 9 << 20] {
        let read = store.get_into(b"large", offset, &mut into).expect("works");
        let rest = &value[offset as usize..];
        let want = &rest[..rest.len().min(into.len())];
        assert_eq!(read, Some(want.len()));
        assert!(&into[..want.len()] == want, "{offset}");
    }
}

#[test]
fn a_value_in_several_places_is_read_at_once() {
    let (_disk, store) = fresh(&tiny());
    // Longer than a segment.
    let value = bytes(3, 300_000);
    store.put(b"scattered", &value).expect("put");
    assert!(store.get(b"scattered").expect("works") == Some(value));
    let s = store.stats();
    assert!(s.vectored_reads > 0 && s.reads > s.vectored_reads, "{s:?}");
    // The simulated disk has no io_uring.
    assert_eq!(s.io_uring_ops, 0);
}

fn is_ordered(latency: &Latency) -> bool {
    let steps = [
        latency.p50_ns,
        latency.p99_ns,
        latency.p999_ns,
        latency.max_ns,
    ];
    latency.max_ns > 0 && latency.mean_ns > 0 && steps.is_sorted()
}

#[test]
fn gets_and_puts_say_how_long_they_took() {
    let (_disk, store) = fresh(&small());
    let nothing = Latency::default();
    for n in 0..3000u64 {
        store.put_async(&n.to_le_bytes(), b"value").expect("put");
    }
    let s = store.stats();
    assert!(is_ordered(&s.put_async_latency), "{s:?}");
    assert_eq!((s.get_latency, s.put_latency), (nothing, nothing));
    // All of these are measured.
    store.put(b"durable", b"value").expect("put");
    assert!(is_ordered(&store.stats().put_latency));
    for n in 0..3000u64 {
        store.get(&n.to_le_bytes()).expect("works");
    }
    assert!(is_ordered(&store.stats().get_latency));
}
