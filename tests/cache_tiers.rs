//! The second tier: pages that had to leave the device come back from host memory without I/O.

#[path = "common/cache.rs"]
mod cached;
mod common;

use cached::*;
use common::*;
use gds_rs::cache::{Cache, CacheConfig};

fn two_tiers(context: &gds_rs::engine::Context, device: u64, host: u64) -> Cache {
    let settings = CacheConfig {
        host_bytes: host * PAGE,
        ..config(device)
    };
    Cache::open(context, settings).expect("opens")
}

#[test]
fn what_left_the_device_comes_back_without_io() {
    let folder = Folder::new();
    let size = 39 * PAGE + 5;
    let (path, data) = folder.file("a", size as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = two_tiers(&context, 8, 40);
    for round in 0..3 {
        for page in 0..40 {
            let got = cache.get(&file, page * PAGE).expect("a page");
            let start = (page * PAGE) as usize;
            let end = data.len().min(start + PAGE as usize);
            assert_eq!(got.size() as usize, end - start);
            assert!(look(&got, PAGE)[..end - start] == data[start..end]);
            assert!(look(&got, PAGE)[end - start..].iter().all(|b| *b == 0));
        }
        let reads = context.metrics().read.operations;
        assert_eq!(reads, 40, "round {round}: each page was read once");
        let stats = cache.stats();
        assert_eq!(stats.resident + stats.host_pages, 40, "no page twice");
    }
    let stats = cache.stats();
    assert_eq!(stats.host_hits, stats.misses - 40);
    assert_eq!(stats.host_demotions, stats.evictions);
}

#[test]
fn a_full_host_tier_lets_its_oldest_go() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 64 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = two_tiers(&context, 4, 8);
    for page in 0..64 {
        drop(cache.get(&file, page * PAGE).expect("a page"));
    }
    let stats = cache.stats();
    assert_eq!((stats.host_pages, stats.resident), (8, 4));
    for page in [58, 59, 0] {
        let got = cache.get(&file, page * PAGE).expect("a page");
        assert!(look(&got, PAGE) == &data[(page * PAGE) as usize..][..PAGE as usize]);
    }
    assert_eq!(
        context.metrics().read.operations,
        64 + 1,
        "only page 0 had gone"
    );
}

#[test]
fn a_changed_page_is_written_before_it_moves_and_comes_back_changed() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 32 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = two_tiers(&context, 4, 64);
    for round in 1..4_u8 {
        for page in 0..32 {
            let got = cache.get(&file, page * PAGE).expect("a page");
            assert!(look(&got, PAGE) == &data[(page * PAGE) as usize..][..PAGE as usize]);
            change(&got, 16).fill(round);
            got.mark_dirty().expect("writable");
            data[(page * PAGE) as usize..][..16].fill(round);
        }
    }
    assert_eq!(context.metrics().read.operations, 32);
    cache.flush(None).expect("flushed");
    assert!(std::fs::read(&path).expect("reads") == data);
}

#[test]
fn overwritten_and_invalidated_pages_leave_the_host_tier() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 16 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = two_tiers(&context, 4, 64);
    for page in 0..16 {
        drop(cache.get(&file, page * PAGE).expect("a page"));
    }
    assert_eq!(cache.stats().host_pages, 12);
    let from = alloc(&context, PAGE);
    bytes(&from).fill(7);
    cache.put(&file, 0, &from, 0, PAGE).expect("put");
    drop(cache.get_new(&file, PAGE).expect("a page"));
    data[..PAGE as usize].fill(7);
    let page = cache.get(&file, 0).expect("a page");
    assert!(look(&page, PAGE).iter().all(|b| *b == 7));
    drop(page);
    let stats = cache.stats();
    assert_eq!(stats.host_pages + stats.resident, 16);
    cache.flush(None).expect("flushed");
    let now = std::fs::read(&path).expect("reads");
    data[PAGE as usize..2 * PAGE as usize].copy_from_slice(&now[PAGE as usize..2 * PAGE as usize]);
    assert!(now == data);
    assert_eq!(cache.invalidate(&file, 0, u64::MAX).expect("went"), 16);
    let stats = cache.stats();
    assert_eq!((stats.host_pages, stats.resident), (0, 0));
}
