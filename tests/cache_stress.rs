//! Many threads on few pages, every policy: contents agree with a model and nothing hangs.

#[path = "common/cache.rs"]
mod cached;
mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cached::*;
use common::*;
use gds_rs::ErrorKind;
use gds_rs::cache::{Cache, CacheConfig, CacheStats, PolicyKind};
use gds_rs::io::fault::FaultPlan;
use parking_lot::Mutex;

const KINDS: [PolicyKind; 3] = [PolicyKind::Dueling, PolicyKind::Clock, PolicyKind::Lru];
const THREADS: u64 = 4;

fn settings(policy: PolicyKind, frames: u64, host: u64) -> CacheConfig {
    CacheConfig {
        policy,
        host_bytes: host * PAGE,
        flush_delay: Duration::from_millis(2),
        dirty_percent: 30,
        ..config(frames)
    }
}

fn check(stats: &CacheStats) {
    assert_eq!(stats.pinned, 0, "{stats:?}");
    assert!(stats.resident <= stats.frames, "{stats:?}");
    assert!(stats.dirty <= stats.resident, "{stats:?}");
    assert!(stats.evictions > 0, "{stats:?}");
}

/// Each page holds a counter in its first bytes that a lock of the model guards: no change may be
/// lost, whatever is evicted, written back, read ahead, flushed and dropped meanwhile.
#[test]
fn no_change_is_lost_under_pressure() {
    const PAGES: u64 = 120;
    for policy in KINDS {
        for host in [0, 24] {
            let folder = Folder::new();
            let (path, data) = folder.file("a", (PAGES * PAGE) as usize);
            let context = context();
            let file = open_both(&context, &path);
            let cache = Cache::open(&context, settings(policy, 32, host)).expect("opens");
            let model: Vec<Mutex<u64>> = (0..PAGES).map(|_| Mutex::new(0)).collect();
            let start = |page: u64| &data[(page * PAGE) as usize..][..PAGE as usize];
            let busy = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (file, cache, model, busy) = (&file, &cache, &model, &busy);
                    scope.spawn(move || {
                        let random = Random::new(thread + 17);
                        for step in 0..1500_u64 {
                            let number = random.below(PAGES);
                            match step % 100 {
                                50 => drop(cache.prefetch(file, number * PAGE, 8 * PAGE)),
                                70 => drop(cache.flush(Some(file)).expect("flushed")),
                                // Held pages are an answer, not a fault.
                                90 => drop(cache.invalidate(file, number * PAGE, 4 * PAGE)),
                                _ => {}
                            }
                            let mut count = model[number as usize].lock();
                            let page = match cache.get(file, number * PAGE) {
                                Ok(page) => page,
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::AllPinned, "{error}");
                                    busy.fetch_add(1, Ordering::Relaxed);
                                    continue;
                                }
                            };
                            let held = change(&page, PAGE);
                            if *count > 0 {
                                assert_eq!(held[..8], count.to_le_bytes());
                            }
                            assert!(held[8..] == start(number)[8..], "page {number}");
                            if step % 3 == 0 {
                                *count += 1;
                                held[..8].copy_from_slice(&count.to_le_bytes());
                                page.mark_dirty().expect("writable");
                            }
                        }
                    });
                }
            });
            assert!(busy.into_inner() < 100, "{policy:?}: there is room for all");
            cache.flush(None).expect("flushed");
            let now = std::fs::read(&path).expect("reads");
            for (number, count) in model.into_iter().enumerate() {
                let count = count.into_inner();
                let page = &now[number * PAGE as usize..][..PAGE as usize];
                if count > 0 {
                    assert_eq!(page[..8], count.to_le_bytes(), "{policy:?} page {number}");
                }
                assert!(
                    page[8..] == start(number as u64)[8..],
                    "{policy:?} page {number}"
                );
            }
            until("reads ahead end", || cache.stats().pinned == 0);
            check(&cache.stats());
        }
    }
}

#[test]
fn ranges_agree_with_a_plain_copy_of_the_file() {
    const SIZE: u64 = 60 * PAGE + 777;
    for policy in KINDS {
        let folder = Folder::new();
        let (path, mut data) = folder.file("a", SIZE as usize);
        let context = context();
        let file = open_both(&context, &path);
        let cache = Cache::open(&context, settings(policy, 24, 12)).expect("opens");
        let random = Random::new(99);
        let buffer = alloc(&context, 20 * PAGE);
        for step in 0..400_u64 {
            let at = random.below(SIZE + 4 * PAGE);
            let size = random.below(if step % 4 == 0 { 12 * PAGE } else { 300 });
            if step % 2 == 0 {
                let new = pattern(size as usize, step);
                bytes(&buffer)[..size as usize].copy_from_slice(&new);
                cache.put(&file, at, &buffer, 0, size).expect("put");
                let end = (at + size) as usize;
                if data.len() < end && size > 0 {
                    data.resize(end, 0);
                }
                if size > 0 {
                    data[at as usize..end].copy_from_slice(&new);
                }
            } else {
                bytes(&buffer).fill(0xEE);
                let got = cache.read(&file, at, &buffer, 0, size).expect("reads");
                let there = (data.len() as u64).saturating_sub(at).min(size);
                assert_eq!(got, there, "{policy:?} step {step}: {size} at {at}");
                let wanted = &data[(at as usize).min(data.len())..][..there as usize];
                assert!(
                    bytes(&buffer)[..there as usize] == *wanted,
                    "{policy:?} step {step}"
                );
                assert!(bytes(&buffer)[there as usize..].iter().all(|b| *b == 0xEE));
            }
        }
        cache.flush(None).expect("flushed");
        assert!(std::fs::read(&path).expect("reads") == data, "{policy:?}");
        check(&cache.stats());
    }
}

#[test]
fn a_working_set_that_fits_is_found_almost_always() {
    for policy in KINDS {
        let folder = Folder::new();
        let (path, _) = folder.file("a", 1000 * PAGE as usize);
        let context = context();
        let file = open(&context, &path);
        let cache = Cache::open(&context, settings(policy, 256, 0)).expect("opens");
        let random = Random::new(4);
        for step in 0..20_000_u64 {
            // The set moves on by half of itself once.
            let first = if step < 10_000 { 0 } else { 75 };
            let page = first + random.below(150);
            cache.get(&file, page * PAGE).expect("room");
        }
        let stats = cache.stats();
        let rate = stats.hits as f64 / (stats.hits + stats.misses) as f64;
        assert!(rate >= 0.95, "{policy:?}: {rate}");
    }
}

#[test]
fn a_set_a_hundred_times_the_cache_comes_through() {
    for policy in KINDS {
        let folder = Folder::new();
        let (path, data) = folder.file("a", 800 * PAGE as usize);
        let context = context();
        let file = open(&context, &path);
        let cache = Cache::open(&context, settings(policy, 8, 0)).expect("opens");
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (file, cache, data) = (&file, &cache, &data);
                scope.spawn(move || {
                    let random = Random::new(thread);
                    for _ in 0..1000 {
                        let at = random.below(800) * PAGE;
                        let page = cache.get(file, at).expect("4 of 8 are held at most");
                        assert!(look(&page, PAGE) == &data[at as usize..][..PAGE as usize]);
                    }
                });
            }
        });
        check(&cache.stats());
    }
}

#[test]
fn trouble_with_the_disk_loses_nothing() {
    const PAGES: u64 = 64;
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", (PAGES * PAGE) as usize);
    let (context, fault) = faulty(FaultPlan {
        seed: 11,
        short_read: 0.2,
        short_write: 0.2,
        interrupted: 0.1,
        ..FaultPlan::default()
    });
    let file = open_both(&context, &path);
    let cache = Cache::open(&context, settings(PolicyKind::default(), 24, 8)).expect("opens");
    let random = Random::new(8);
    for step in 0..2000_u64 {
        if step % 200 == 0 {
            let bad = random.below(PAGES);
            let mut plan = FaultPlan {
                seed: step,
                short_read: 0.2,
                short_write: 0.2,
                ..FaultPlan::default()
            };
            if step % 400 == 0 {
                plan.io_error_at = Some(bad * PAGE..(bad + 1) * PAGE);
            }
            fault.set_plan(plan);
        }
        let number = random.below(PAGES);
        let start = (number * PAGE) as usize;
        // What an error tells is that of any page of the file: the page may still be there.
        if let Ok(page) = cache.get(&file, number * PAGE) {
            assert!(
                look(&page, PAGE) == &data[start..start + PAGE as usize],
                "{step}"
            );
            change(&page, 4).fill(step as u8);
            page.mark_dirty().expect("writable");
            data[start..start + 4].fill(step as u8);
        }
    }
    fault.set_plan(FaultPlan::default());
    until("all is written", || {
        let _ = cache.flush(None);
        cache.stats().dirty == 0
    });
    assert!(std::fs::read(&path).expect("reads") == data);
    assert!(fault.counts().io_errors > 0 && fault.counts().short_writes > 0);
}
