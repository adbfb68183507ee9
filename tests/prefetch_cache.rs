//! The prefetcher over the page cache and real files, end to end.

mod common;
#[path = "common/cache.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use gds_rs::ErrorKind;
use gds_rs::cache::{Cache, CacheConfig};
use gds_rs::config::Config;
use gds_rs::engine::{Context, File};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::prefetch::{Pattern, PrefetchConfig, Prefetcher, Presence};

const PAGE: u64 = 4096;
const PAGES: u64 = 300;

fn cache(context: &Context, pages: u64) -> Cache {
    let config = CacheConfig {
        page_size: PAGE as u32,
        device_bytes: pages * PAGE,
        ..CacheConfig::default()
    };
    Cache::open(context, config).expect("a cache opens")
}

fn open_prefetcher(cache: &Cache, file: &File) -> Prefetcher {
    let config = PrefetchConfig {
        distance_bytes: 16 * PAGE,
        chunk_bytes: 4 * PAGE,
        deadline: Duration::from_secs(600),
        ..PrefetchConfig::default()
    };
    Prefetcher::open(cache, file, config).expect("a prefetcher opens")
}

fn settle(prefetcher: &Prefetcher) {
    support::until("it settles", || {
        let stats = prefetcher.stats();
        stats.in_flight == 0 && stats.queued == 0
    });
}

/// A context whose files fail as the plan says.
fn faulty(plan: FaultPlan) -> (Context, Arc<Fault>) {
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    let config = Config {
        max_retries: 0,
        ..small_config()
    };
    (context_over(config, fault.clone()), fault)
}

#[test]
fn a_scan_through_a_small_cache_finds_its_pages_and_both_count_alike() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize - 100);
    let context = context();
    let file = open(&context, &path);
    // An eighth of the cache, 32 pages, may be read ahead.
    let cache = cache(&context, 256);
    let prefetcher = open_prefetcher(&cache, &file);
    for page in 0..PAGES {
        let held = prefetcher.get(page * PAGE).expect("get");
        let at = (page * PAGE) as usize;
        let size = data.len().min(at + PAGE as usize) - at;
        assert_eq!(held.size() as usize, size);
        assert!(
            support::look(&held, size as u64) == &data[at..at + size],
            "page {page}"
        );
        drop(held);
        settle(&prefetcher);
    }
    let stats = prefetcher.stats();
    assert_eq!(stats.pattern, Pattern::Sequential);
    assert_eq!(stats.late, 0, "{stats:?}");
    // The policy may take a page that was read ahead for a victim before it is used.
    assert!(stats.hit_rate() > 0.85, "{stats:?}");
    let wasted = stats.wasted_bytes / PAGE;
    assert!(stats.misses <= wasted + 2, "{stats:?}");
    let cached = cache.stats();
    assert_eq!(cached.misses, stats.misses);
    assert_eq!(cached.prefetched * PAGE, stats.prefetched_bytes);
    assert_eq!(cached.prefetch_hits, stats.prefetch_hits);
    assert_eq!(cached.prefetch_wasted, wasted);
}

#[test]
fn a_scan_at_full_speed_reads_the_right_bytes() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 64);
    let prefetcher = open_prefetcher(&cache, &file);
    for _ in 0..3 {
        for page in 0..PAGES {
            let held = prefetcher.get(page * PAGE + 17).expect("get");
            let at = (page * PAGE) as usize;
            assert!(support::look(&held, PAGE) == &data[at..at + PAGE as usize]);
        }
    }
    let stats = prefetcher.stats();
    assert_eq!(stats.hits + stats.late + stats.misses, 3 * PAGES);
}

#[test]
fn a_failed_read_ahead_is_told_by_the_next_get_and_then_read_again() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    let (context, fault) = faulty(FaultPlan {
        io_error_at: Some(40 * PAGE..41 * PAGE),
        ..FaultPlan::default()
    });
    let file = open(&context, &path);
    let cache = cache(&context, 256);
    let prefetcher = open_prefetcher(&cache, &file);
    prefetcher
        .hint(40 * PAGE, 4 * PAGE, 1, None)
        .expect("a hint");
    support::until("it has failed", || cache.stats().read_errors == 1);
    settle(&prefetcher);
    assert_eq!(cache.presence(&file, 40 * PAGE), Presence::Absent);
    // Further reads ahead do not take the error away.
    prefetcher.hint(80 * PAGE, PAGE, 1, None).expect("a hint");
    settle(&prefetcher);
    let error = prefetcher.get(0).expect_err("the next get tells");
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Io, Some(40 * PAGE))
    );
    fault.set_plan(FaultPlan::default());
    let held = prefetcher
        .get(40 * PAGE)
        .expect("told once, and tried again");
    let at = (40 * PAGE) as usize;
    assert!(support::look(&held, PAGE) == &data[at..at + PAGE as usize]);
    assert_eq!(cache.presence(&file, 41 * PAGE), Presence::Resident);
}

#[test]
fn with_every_page_pinned_nothing_is_read_ahead_and_nothing_hangs() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (PAGES * PAGE) as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 64);
    let prefetcher = open_prefetcher(&cache, &file);
    let mut held = Vec::new();
    let mut page = 0;
    let error = loop {
        match cache.get(&file, page * PAGE) {
            Ok(pinned) => held.push(pinned),
            Err(error) => break error,
        }
        page += 1;
        assert!(page < PAGES, "more pages than frames");
    };
    assert_eq!(error.kind(), ErrorKind::AllPinned);
    // Shards may have a frame left: pin those as well.
    for page in page..PAGES {
        held.extend(cache.get(&file, page * PAGE).ok());
    }
    assert_eq!(cache.stats().pinned, 64);
    let absent: Vec<u64> = (0..PAGES)
        .filter(|page| cache.presence(&file, page * PAGE) == Presence::Absent)
        .collect();
    prefetcher
        .hint(absent[0] * PAGE, PAGE, 1, None)
        .expect("a hint");
    settle(&prefetcher);
    let stats = prefetcher.stats();
    assert_eq!((stats.refused, stats.prefetched_bytes), (1, 0), "{stats:?}");
    assert_eq!(
        prefetcher
            .get(absent[0] * PAGE)
            .map(|_| ())
            .map_err(|e| e.kind()),
        Err(ErrorKind::AllPinned)
    );
    drop(held);
    let absent = absent[0] * PAGE;
    drop(prefetcher.get(absent).expect("there is room again"));
}

#[test]
fn closing_order_does_not_matter() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    for cache_first in [true, false] {
        let context = context();
        let file = open(&context, &path);
        let cache = cache(&context, 256);
        let prefetcher = open_prefetcher(&cache, &file);
        prefetcher.hint(0, PAGES * PAGE, 1, None).expect("a hint");
        let page = prefetcher.get(8 * PAGE).expect("get");
        drop((file, context));
        if cache_first {
            drop(cache);
            drop(prefetcher);
        } else {
            drop(prefetcher);
            drop(cache);
        }
        let at = (8 * PAGE) as usize;
        assert!(support::look(&page, PAGE) == &data[at..at + PAGE as usize]);
    }
}

#[test]
fn many_threads_scan_one_file() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 128);
    let prefetcher = open_prefetcher(&cache, &file);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (prefetcher, data) = (&prefetcher, &data);
            scope.spawn(move || {
                for step in 0..PAGES {
                    let page = (step + thread * 100) % PAGES;
                    let held = prefetcher.get(page * PAGE).expect("get");
                    let at = (page * PAGE) as usize;
                    assert!(support::look(&held, PAGE) == &data[at..at + PAGE as usize]);
                }
            });
        }
    });
}
