//! Pages come in once, stay while they are held, and go when room is needed.

#[path = "common/cache.rs"]
mod cached;
mod common;

use std::sync::Barrier;

use cached::*;
use common::*;
use gds_rs::ErrorKind;
use gds_rs::cache::{Cache, CacheConfig, Page, PolicyKind, Presence};
use gds_rs::engine::MemoryKind;
use gds_rs::io::fault::FaultPlan;

#[test]
fn a_page_is_read_once_and_then_found() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 10 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 16);
    for round in 0..3 {
        for at in [0, 5 * PAGE + 77, 9 * PAGE, 10 * PAGE - 1] {
            let page = cache.get(&file, at).expect("a page");
            let start = (at / PAGE * PAGE) as usize;
            assert_eq!((page.offset(), page.size()), (start as u64, PAGE as u32));
            assert!(look(&page, PAGE) == &data[start..start + PAGE as usize]);
            if round == 0 {
                assert!(cache.try_get(&file, at).is_some(), "it is there now");
            }
        }
    }
    assert_eq!(context.metrics().read.operations, 3, "pages 0, 5 and 9");
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.hits), (3, 9 + 4));
    assert_eq!((stats.resident, stats.pinned), (3, 0));
    assert!(cache.try_get(&file, PAGE).is_none());
    assert_eq!(context.metrics().read.operations, 3, "try_get never reads");
}

#[test]
fn two_opens_of_one_file_share_its_pages() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", PAGE as usize);
    let context = context();
    let cache = cache(&context, 16);
    let first = open(&context, &path);
    let one = cache.get(&first, 0).expect("a page");
    drop(first);
    let second = open(&context, &path);
    let two = cache.get(&second, 0).expect("a page");
    assert_eq!(one.address(), two.address());
    assert_eq!(context.metrics().read.operations, 1);
}

#[test]
fn a_held_page_stays_whatever_else_comes() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 256 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    for policy in [PolicyKind::Dueling, PolicyKind::Clock, PolicyKind::Lru] {
        let settings = CacheConfig {
            policy,
            ..config(16)
        };
        let cache = Cache::open(&context, settings).expect("opens");
        let held: Vec<Page> = (0..5)
            .map(|i| cache.get(&file, i * 7 * PAGE).expect("a page"))
            .collect();
        for page in 0..256 {
            let got = cache.get(&file, page * PAGE).expect("room");
            let start = (page * PAGE) as usize;
            assert!(look(&got, PAGE) == &data[start..start + PAGE as usize]);
        }
        for page in &held {
            let start = page.offset() as usize;
            assert!(look(page, PAGE) == &data[start..start + PAGE as usize]);
            let again = cache.try_get(&file, page.offset()).expect("still there");
            assert_eq!(again.address(), page.address());
        }
        let stats = cache.stats();
        assert_eq!((stats.pinned, stats.resident), (5, 16), "{policy:?}");
        assert_eq!(stats.evictions, stats.misses - 16, "{policy:?}");
    }
}

#[test]
fn all_pinned_is_an_answer_and_a_release_helps() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 64 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 8);
    let mut held: Vec<Page> = (0..8)
        .map(|i| cache.get(&file, i * PAGE).expect("a page"))
        .collect();
    let error = cache.get(&file, 20 * PAGE).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::AllPinned);
    assert!(error.message().contains("release pages"), "{error}");
    assert_eq!(error.offset(), Some(20 * PAGE));
    assert!(cache.get_new(&file, 0).is_err(), "the file is read-only");
    assert_eq!(cache.prefetch(&file, 0, 64 * PAGE).expect("none"), 0);
    assert_eq!(cache.stats().all_pinned, 1);
    drop(held.pop());
    cache.get(&file, 20 * PAGE).expect("room");
}

#[test]
fn one_read_serves_all_that_want_the_page_meanwhile() {
    const THREADS: u64 = 8;
    let folder = Folder::new();
    let (path, data) = folder.file("a", 4 * PAGE as usize);
    let (context, _) = faulty(FaultPlan {
        delay: Some(std::time::Duration::from_millis(100)),
        ..FaultPlan::default()
    });
    let file = open(&context, &path);
    let cache = cache(&context, 4);
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let page = cache.get(&file, PAGE).expect("a page");
                assert!(look(&page, PAGE) == &data[PAGE as usize..2 * PAGE as usize]);
            });
        }
    });
    assert_eq!(context.metrics().read.operations, 1);
    let stats = cache.stats();
    assert_eq!(stats.hits + stats.misses + stats.waits, THREADS);
    assert_eq!((stats.misses, stats.pinned), (1, 0));
    assert!(stats.waits > 0, "{stats:?}");
}

#[test]
fn an_error_reaches_all_that_wait_and_the_next_call_tries_again() {
    const THREADS: usize = 6;
    let folder = Folder::new();
    let (path, _) = folder.file("a", 4 * PAGE as usize);
    let (context, fault) = faulty(FaultPlan {
        io_error_at: Some(0..PAGE),
        delay: Some(std::time::Duration::from_millis(50)),
        ..FaultPlan::default()
    });
    let file = open(&context, &path);
    let cache = cache(&context, 4);
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let error = cache.get(&file, 0).expect_err("EIO");
                assert_eq!(error.errno(), libc::EIO);
            });
        }
    });
    let stats = cache.stats();
    assert_eq!((stats.resident, stats.pinned), (0, 0));
    fault.set_plan(FaultPlan::default());
    cache.get(&file, 0).expect("told already, and now it works");
}

#[test]
fn the_end_of_the_file_is_zero_filled() {
    let folder = Folder::new();
    let size = 2 * PAGE + 100;
    let (path, data) = folder.file("a", size as usize);
    let (full, _) = folder.file("b", 64 * PAGE as usize);
    let context = context();
    let (file, other) = (open(&context, &path), open(&context, &full));
    let cache = cache(&context, 4);
    for i in 0..64 {
        cache.get(&other, i * PAGE).expect("dirties all frames");
    }
    let last = cache.get(&file, 2 * PAGE).expect("a page");
    assert_eq!(last.size(), 100);
    assert!(look(&last, 100) == &data[2 * PAGE as usize..]);
    assert!(look(&last, PAGE)[100..].iter().all(|b| *b == 0));
    let past = cache.get(&file, 50 * PAGE).expect("a page past the end");
    assert_eq!(past.size(), 0);
    assert!(look(&past, PAGE).iter().all(|b| *b == 0));
    let error = cache.get(&file, u64::MAX).expect_err("no such offset");
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
}

#[test]
fn pages_outlive_the_file_and_the_cache() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 4 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let small = cache(&context, 4);
    let (one, two) = (
        small.get(&file, 0).expect("a page"),
        small.get(&file, PAGE).expect("a page"),
    );
    drop((small, file));
    drop(context);
    assert!(look(&one, PAGE) == &data[..PAGE as usize]);
    change(&two, PAGE).fill(9);
    two.mark_dirty().expect("writable");
    let thread = std::thread::spawn(move || drop(two));
    thread.join().expect("released elsewhere");
    assert!(look(&one, PAGE) == &data[..PAGE as usize]);
    drop(one);
    let now = std::fs::read(&path).expect("reads");
    let page = PAGE as usize;
    assert!(
        now[page..2 * page].iter().all(|b| *b == 9),
        "it was written"
    );
    assert!(now[..page] == data[..page] && now[2 * page..] == data[2 * page..]);
}

#[test]
fn one_file_takes_no_more_than_its_limit() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 64 * PAGE as usize);
    let (other, _) = folder.file("b", 8 * PAGE as usize);
    let context = context();
    let settings = CacheConfig {
        file_limit_bytes: 4 * PAGE,
        ..config(32)
    };
    let cache = Cache::open(&context, settings).expect("opens");
    let (file, other) = (open(&context, &path), open(&context, &other));
    for i in 0..3 {
        cache.get(&other, i * PAGE).expect("a page");
    }
    for i in 0..64 {
        cache.get(&file, i * PAGE).expect("a page");
        assert!(cache.hot_ranges(&file).iter().map(|r| r.1).sum::<u64>() <= 4 * PAGE);
    }
    for i in 0..3 {
        assert!(cache.try_get(&other, i * PAGE).is_some(), "others stay");
    }
    let held: Vec<Page> = (0..4)
        .map(|i| cache.get(&file, i * PAGE).expect("a page"))
        .collect();
    let error = cache.get(&file, 9 * PAGE).expect_err("its limit");
    assert_eq!(error.kind(), ErrorKind::AllPinned);
    assert!(error.message().contains("file_limit_bytes"), "{error}");
    cache.get(&other, 7 * PAGE).expect("others have room");
    drop(held);
    cache.get(&file, 9 * PAGE).expect("room");
}

#[test]
fn tokens_stand_for_pages_and_wrong_ones_are_answered() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 4 * PAGE as usize);
    let context = context();
    let file = open(&context, &path);
    let cache = cache(&context, 4);
    let token = cache.get(&file, 0).expect("a page").into_token();
    assert_eq!(cache.stats().pinned, 1);
    let error = cache.mark_token(token).expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    cache.release_token(token).expect("released");
    for wrong in [token, 0, 1, u64::MAX, 77 << 32, token ^ 1] {
        let error = cache.release_token(wrong).expect_err("no such page");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{wrong:#x}");
        assert!(cache.mark_token(wrong).is_err());
    }
    assert_eq!(cache.stats().pinned, 0);
}

#[test]
fn pages_that_are_terabytes_apart_are_different_pages() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 2 * PAGE as usize);
    let (other_path, _) = folder.file("b", PAGE as usize);
    let context = context();
    let (file, other) = (open(&context, &path), open(&context, &other_path));
    let cache = cache(&context, 64);
    // 2^40 pages, where the table's short names end.
    let stretch = PAGE << 40;
    let places: Vec<u64> = (0..5).map(|i| i * stretch + PAGE).collect();
    for at in &places {
        assert!(cache.try_get(&file, *at).is_none());
        assert_eq!(cache.presence(&file, *at), Presence::Absent);
    }
    let mut held: Vec<Page> = Vec::new();
    for at in &places {
        let page = cache.get(&file, *at).expect("a page");
        let size = if *at == PAGE { PAGE } else { 0 };
        assert_eq!((page.offset(), u64::from(page.size())), (*at, size));
        held.push(page);
        assert!(cache.try_get(&other, *at).is_none(), "that is another file");
    }
    assert!(look(&held[0], PAGE) == &data[PAGE as usize..]);
    let mut addresses: Vec<u64> = held.iter().map(Page::address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), places.len());
    for (at, page) in places.iter().zip(&held) {
        let again = cache.try_get(&file, *at).expect("it is there");
        assert_eq!((again.address(), again.offset()), (page.address(), *at));
        assert_eq!(cache.presence(&file, *at), Presence::Resident);
    }
    assert_eq!(cache.stats().misses, places.len() as u64);
    let ranges: Vec<(u64, u64)> = places.iter().map(|at| (*at, PAGE)).collect();
    assert_eq!(cache.hot_ranges(&file), ranges);
    drop(held);
    assert_eq!(cache.invalidate(&file, places[3], PAGE).expect("went"), 1);
    assert!(cache.try_get(&file, places[3]).is_none());
    assert!(cache.try_get(&file, places[4]).is_some());
}

#[test]
fn a_file_that_comes_after_one_that_went_never_finds_its_pages() {
    let folder = Folder::new();
    let context = context();
    let config = CacheConfig {
        host_bytes: 64 * PAGE,
        ..config(16)
    };
    let cache = Cache::open(&context, config).expect("a cache opens");
    let pages = 24;
    for round in 0..20 {
        let path = folder.path("a");
        // Another file each time, in the place of one that nobody has open but, maybe, the cache.
        let _ = std::fs::remove_file(&path);
        let data = pattern(pages * PAGE as usize, round);
        std::fs::write(&path, &data).expect("a file can be written");
        let file = open(&context, &path);
        assert!(cache.hot_ranges(&file).is_empty());
        for (at, bytes) in data.chunks(PAGE as usize).enumerate() {
            let at = at as u64 * PAGE;
            assert!(cache.try_get(&file, at).is_none(), "round {round}, {at}");
            let page = cache.get(&file, at).expect("a page");
            assert!(look(&page, PAGE) == bytes, "round {round}, {at}");
        }
        if round % 2 == 0 {
            // The host tier may keep pages of a file that nobody has open.
            drop(file);
            let last = folder.path("last");
            std::fs::write(&last, pattern(16 * PAGE as usize, 99)).expect("it can be written");
            let last = open(&context, &last);
            cache.warm(&last, &[(0, 16 * PAGE)]).expect("they come");
        }
    }
}

#[test]
fn a_short_page_tells_its_bytes_and_a_page_that_grew_tells_more() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 100);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 16);
    assert_eq!(cache.get(&file, 0).expect("a page").size(), 100);
    assert_eq!(cache.try_get(&file, 0).expect("there").size(), 100);
    let from = context.alloc(MemoryKind::Pinned, PAGE).expect("memory");
    cache.put(&file, 200, &from, 0, 300).expect("put");
    assert_eq!(cache.try_get(&file, 0).expect("there").size(), 500);
    cache.put(&file, 0, &from, 0, 50).expect("put");
    assert_eq!(cache.try_get(&file, 0).expect("there").size(), 500);
    cache.put(&file, 4000, &from, 0, 96).expect("put");
    assert_eq!(cache.try_get(&file, 0).expect("there").size(), PAGE as u32);
    assert_eq!(cache.flush(Some(&file)).expect("written"), PAGE);
    assert_eq!(file.size().expect("a size"), PAGE);
    assert_eq!(cache.try_get(&file, 0).expect("there").size(), PAGE as u32);
}
