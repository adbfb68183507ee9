//! Prefetch, warm-up lists, invalidation, and files that change under the cache.

#[path = "common/cache.rs"]
mod cached;
mod common;

use cached::*;
use common::*;
use gds_rs::ErrorKind;
use gds_rs::cache::Page;
use gds_rs::io::fault::FaultPlan;

#[test]
fn prefetched_pages_are_found_and_counted() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 20 * PAGE as usize + 100);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 64);
    drop(cache.get(&file, 3 * PAGE).expect("a page"));
    let started = cache
        .prefetch(&file, PAGE + 1, u64::MAX - PAGE)
        .expect("starts");
    assert_eq!(started, 19, "pages 1 to 20, of which 3 is there");
    until_arrived(&cache, 20);
    let reads = context.metrics().read.operations;
    for page in 1..=20 {
        let got = cache.get(&file, page * PAGE).expect("a page");
        let start = (page * PAGE) as usize;
        let end = data.len().min(start + PAGE as usize);
        assert_eq!(got.size() as usize, end - start);
        assert!(look(&got, PAGE)[..end - start] == data[start..end]);
        assert!(look(&got, PAGE)[end - start..].iter().all(|b| *b == 0));
    }
    assert_eq!(context.metrics().read.operations, reads, "all were there");
    let stats = cache.stats();
    assert_eq!((stats.prefetched, stats.prefetch_hits), (19, 19));
    assert_eq!(cache.prefetch(&file, 0, 21 * PAGE).expect("page 0"), 1);
    assert_eq!(
        cache
            .prefetch(&file, 21 * PAGE, PAGE)
            .expect("past the end"),
        0
    );
}

#[test]
fn unused_prefetches_are_counted_as_waste_and_take_no_held_or_changed_page() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 64 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 8);
    let held: Vec<Page> = (0..3)
        .map(|i| cache.get(&file, i * PAGE).expect("a page"))
        .collect();
    for i in 3..6 {
        drop(cache.get_new(&file, i * PAGE).expect("a page"));
    }
    let started = cache.prefetch(&file, 10 * PAGE, 20 * PAGE).expect("starts");
    assert_eq!(started, 2, "two frames are empty, six are held or changed");
    until_arrived(&cache, 8);
    for i in 0..6 {
        assert!(cache.try_get(&file, i * PAGE).is_some(), "page {i}");
    }
    drop(held);
    for i in 40..60 {
        cache.get(&file, i * PAGE).expect("room");
    }
    let stats = cache.stats();
    assert_eq!((stats.prefetch_wasted, stats.prefetch_hits), (2, 0));
}

#[test]
fn who_needs_a_page_under_way_waits_for_that_read() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 8 * PAGE as usize);
    let (context, _) = faulty(FaultPlan {
        delay: Some(std::time::Duration::from_millis(60)),
        ..FaultPlan::default()
    });
    let file = open(&context, &path);
    let cache = cache(&context, 16);
    assert_eq!(cache.prefetch(&file, 0, 8 * PAGE).expect("starts"), 8);
    for i in 0..8 {
        let page = cache.get(&file, i * PAGE).expect("a page");
        assert!(look(&page, PAGE) == &data[(i * PAGE) as usize..][..PAGE as usize]);
    }
    assert_eq!(context.metrics().read.bytes, 8 * PAGE, "each page once");
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.prefetch_hits), (0, 8));
    assert_eq!(stats.pinned, 0);
}

#[test]
fn a_failed_prefetch_is_told_by_the_next_call_for_that_file() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 8 * PAGE as usize);
    let (other, _) = folder.file("b", PAGE as usize);
    let (context, fault) = faulty(FaultPlan {
        io_error_at: Some(5 * PAGE..6 * PAGE),
        ..FaultPlan::default()
    });
    let (file, other) = (open(&context, &path), open(&context, &other));
    let cache = cache(&context, 16);
    cache.prefetch(&file, 4 * PAGE, 3 * PAGE).expect("starts");
    until("the read fails", || cache.stats().read_errors > 0);
    until("the rest arrives", || cache.stats().pinned == 0);
    cache.get(&other, 0).expect("another file is not concerned");
    let error = cache.prefetch(&file, 0, PAGE).expect_err("told");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
    fault.set_plan(FaultPlan::default());
    let page = cache
        .get(&file, 5 * PAGE)
        .expect("told once, and now it works");
    assert!(look(&page, PAGE) == &data[5 * PAGE as usize..6 * PAGE as usize]);
}

#[test]
fn a_warm_up_list_brings_back_what_was_hot() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 100 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    let hot = {
        let cache = cache(&context, 64);
        for page in [3, 4, 5, 50, 51, 99] {
            drop(cache.get(&file, page * PAGE).expect("a page"));
        }
        cache.hot_ranges(&file)
    };
    let ranges = [(3, 3), (50, 2), (99, 1)].map(|(at, n)| (at * PAGE, n * PAGE));
    assert_eq!(hot, ranges);
    let next = cache(&context, 64);
    assert_eq!(next.warm(&file, &hot).expect("warmed"), 6);
    let reads = context.metrics().read.operations;
    for page in [3, 4, 5, 50, 51, 99] {
        assert!(next.try_get(&file, page * PAGE).is_some());
    }
    assert_eq!(context.metrics().read.operations, reads);
    assert_eq!(next.warm(&file, &hot).expect("nothing to do"), 0);
    assert_eq!(next.stats().prefetched, 0, "somebody waited for them");
}

#[test]
fn a_warm_up_stops_before_it_drops_what_it_brought() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 100 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 8);
    for i in 90..98 {
        drop(cache.get(&file, i * PAGE).expect("a page"));
    }
    assert_eq!(cache.warm(&file, &[(0, 100 * PAGE)]).expect("warmed"), 8);
    assert_eq!(cache.hot_ranges(&file), [(0, 8 * PAGE)], "the first ones");
}

#[test]
fn a_warm_up_says_what_failed() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 8 * PAGE as usize);
    let (context, _) = faulty(FaultPlan {
        io_error_at: Some(5 * PAGE..6 * PAGE),
        ..FaultPlan::default()
    });
    let file = open(&context, &path);
    let cache = cache(&context, 16);
    let error = cache.warm(&file, &[(0, 8 * PAGE)]).expect_err("EIO");
    assert_eq!(error.errno(), libc::EIO);
    until_arrived(&cache, 8);
    cache.get(&file, 0).expect("told already");
}

#[test]
fn an_invalidated_range_is_read_again() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 16 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 32);
    cache.warm(&file, &[(0, 16 * PAGE)]).expect("warmed");
    let page = cache.get(&file, 7 * PAGE).expect("a page");
    change(&page, PAGE).fill(1);
    page.mark_dirty().expect("writable");
    drop(page);
    let mut now = std::fs::read(&path).expect("reads");
    now[4 * PAGE as usize..5 * PAGE as usize].fill(2);
    std::fs::write(&path, &now).expect("changes behind the cache");
    assert_eq!(
        cache
            .invalidate(&file, 4 * PAGE + 1, 4 * PAGE)
            .expect("went"),
        5
    );
    let to = alloc(&context, 16 * PAGE);
    cache.read(&file, 0, &to, 0, 16 * PAGE).expect("reads");
    now[7 * PAGE as usize..8 * PAGE as usize].fill(1);
    assert!(bytes(&to) == now, "the change of page 7 was written first");
    let held = cache.get(&file, 2 * PAGE).expect("a page");
    let error = cache
        .invalidate(&file, 0, u64::MAX)
        .expect_err("one is held");
    assert_eq!(error.kind(), ErrorKind::AllPinned);
    assert!(error.message().starts_with("1 pages"), "{error}");
    assert_eq!(cache.hot_ranges(&file), [(2 * PAGE, PAGE)]);
    drop(held);
    assert_eq!(cache.invalidate(&file, 0, u64::MAX).expect("went"), 1);
    assert_eq!(cache.stats().resident, 0);
}

#[test]
fn a_file_that_is_cut_under_the_cache_ends_where_it_ends_now() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 10 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 16);
    drop(cache.get(&file, 0).expect("a page"));
    let cut = 4 * PAGE + 10;
    let shorter = std::fs::OpenOptions::new().write(true).open(&path);
    shorter.expect("opens").set_len(cut).expect("cut");
    let to = alloc(&context, 10 * PAGE);
    assert_eq!(cache.read(&file, 0, &to, 0, 10 * PAGE).expect("reads"), cut);
    assert!(bytes(&to)[..cut as usize] == data[..cut as usize]);
    let page = cache.get(&file, 4 * PAGE).expect("a page");
    assert_eq!(page.size(), 10);
    assert!(look(&page, PAGE)[10..].iter().all(|b| *b == 0));
    assert_eq!(cache.get(&file, 9 * PAGE).expect("past the end").size(), 0);
    assert_eq!(cache.prefetch(&file, 0, 10 * PAGE).expect("nothing"), 0);
}

#[test]
fn a_cache_that_goes_leaves_no_read_behind() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 256 * PAGE as usize);
    let (context, _) = faulty(FaultPlan {
        delay: Some(std::time::Duration::from_millis(5)),
        ..FaultPlan::default()
    });
    let file = open(&context, &path);
    for _ in 0..5 {
        let cache = cache(&context, 512);
        cache.prefetch(&file, 0, 256 * PAGE).expect("starts");
    }
    let cache = cache(&context, 512);
    let to = alloc(&context, data.len() as u64);
    cache
        .read(&file, 0, &to, 0, data.len() as u64)
        .expect("reads");
    assert!(bytes(&to) == data);
}
