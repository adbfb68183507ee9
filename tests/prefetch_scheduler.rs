//! The scheduler of reads ahead, over real files: what it reads, in which order, how much, and
//! what it makes of errors.

mod common;
mod prefetch_support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use gds_rs::ErrorKind;
use gds_rs::config::Config;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::prefetch::queue::{Queue, Request, Source};
use gds_rs::prefetch::{Pattern, PrefetchConfig, Prefetcher};
use prefetch_support::*;

const PAGES: u64 = 512;

struct Scene {
    prefetcher: Prefetcher<Shelf>,
    data: Vec<u8>,
    path: PathBuf,
    _folder: Folder,
}

/// A file of 512 pages, a shelf for 1024 (128 of them ahead), chunks of 4 and 32 ahead.
fn scene(held: bool, config: PrefetchConfig) -> Scene {
    let folder = Folder::new();
    let (path, data) = folder.file("f", (PAGES * PAGE) as usize);
    let context = context();
    let file = open(&context, &path);
    Scene {
        prefetcher: prefetcher(Shelf::new(&context, &file, 1024, held), config),
        data,
        path,
        _folder: folder,
    }
}

fn plain() -> PrefetchConfig {
    PrefetchConfig::default()
}

/// Pages without order, from splitmix64.
fn random(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(|i| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z >> 24) % PAGES
    })
}

#[test]
fn the_queue_gives_the_highest_priority_then_the_earliest_deadline_then_the_oldest() {
    let now = Instant::now();
    let mut queue = Queue::new(100);
    let cases = [
        (5, 30, 1),
        (9, 90, 2),
        (5, 20, 3),
        (9, 50, 4),
        (9, 50, 5),
        (1, 10, 6),
    ];
    for (priority, deadline, offset) in cases {
        queue.push(Request {
            offset,
            size: 1,
            priority,
            deadline: now + Duration::from_secs(deadline),
            source: Source::Hint,
        });
    }
    let order: Vec<u64> = std::iter::from_fn(|| queue.pop(now, 100).map(|r| r.offset)).collect();
    assert_eq!(order, [4, 5, 2, 3, 1, 6]);
}

#[test]
fn the_queue_drops_what_is_too_late_and_what_does_not_fit() {
    let now = Instant::now();
    let mut queue = Queue::new(3);
    let mut push = |offset, priority, deadline| {
        queue.push(Request {
            offset,
            size: 10,
            priority,
            deadline: now + Duration::from_secs(deadline),
            source: Source::Pattern,
        })
    };
    assert!(push(30, 9, 1));
    assert!(push(20, 5, 2));
    assert!(push(10, 1, 9));
    assert!(!push(40, 99, 99), "it is full");
    assert_eq!(queue.dropped(), 1);
    // A long request is taken in pieces, and stays next.
    let then = now + Duration::from_secs(1);
    let piece = queue.pop(then, 4).expect("one is in time");
    assert_eq!((piece.offset, piece.size, queue.dropped()), (20, 4, 2));
    let piece = queue.pop(then, 100).expect("the rest");
    assert_eq!((piece.offset, piece.size), (24, 6));
    queue.expire(now + Duration::from_secs(9));
    assert_eq!((queue.len(), queue.dropped()), (0, 3));
    assert_eq!(queue.take_given_up(), Some(10));
    assert_eq!(queue.take_given_up(), None);
}

#[test]
fn a_sequential_scan_finds_its_pages_in_memory() {
    let s = scene(false, plain());
    for page in 0..PAGES {
        let buffer = visit(&s.prefetcher, page);
        let at = (page * PAGE) as usize;
        assert!(
            bytes(&buffer)[..] == s.data[at..at + PAGE as usize],
            "page {page}"
        );
    }
    let stats = s.prefetcher.stats();
    assert_eq!(stats.pattern, Pattern::Sequential);
    assert_eq!(stats.hits + stats.misses + stats.late, PAGES);
    assert!(stats.misses <= 2, "{stats:?}");
    assert_eq!((stats.wasted_bytes, stats.dropped), (0, 0));
    assert_eq!(stats.prefetch_hits, stats.hits);
    assert_eq!(stats.prefetched_bytes / PAGE, stats.hits);
    assert!(stats.hit_rate() > 0.99);
}

#[test]
fn nothing_behind_the_end_of_the_file_is_read_until_it_grows() {
    let s = scene(false, plain());
    for page in PAGES - 8..PAGES {
        visit(&s.prefetcher, page);
    }
    let ends = s.prefetcher.target().started();
    assert!(!ends.is_empty() && ends.iter().all(|(at, count)| at + count <= PAGES));
    let file = std::fs::OpenOptions::new().write(true).open(&s.path);
    file.expect("the file opens")
        .set_len((PAGES + 100) * PAGE)
        .expect("the file grows");
    for page in PAGES..PAGES + 4 {
        visit(&s.prefetcher, page);
    }
    let ends = s.prefetcher.target().started();
    assert!(ends.iter().any(|(at, _)| *at > PAGES), "{ends:?}");
}

#[test]
fn the_window_doubles_while_what_it_read_is_used_and_halves_on_waste() {
    let s = scene(false, plain());
    assert_eq!(s.prefetcher.stats().window_bytes, 4 * PAGE, "one chunk");
    let mut sizes = vec![4];
    for page in 0..64 {
        visit(&s.prefetcher, page);
        let size = s.prefetcher.stats().window_bytes / PAGE;
        if sizes.last() != Some(&size) {
            sizes.push(size);
        }
    }
    assert_eq!(sizes, [4, 8, 16, 32]);
    // Far away what was read ahead here is never used: 32 pages, given up once its time is over.
    let mut smallest = 32;
    for step in 0..400 {
        visit(&s.prefetcher, 200 + step % 2 * 100);
        smallest = smallest.min(s.prefetcher.stats().window_bytes / PAGE);
    }
    assert!(smallest < 32, "{:?}", s.prefetcher.stats());
    assert!(s.prefetcher.stats().wasted_bytes >= 28 * PAGE);
}

#[test]
fn a_program_that_is_faster_makes_the_window_grow() {
    let config = PrefetchConfig {
        slots: 1,
        ..plain()
    };
    let s = scene(true, config);
    s.prefetcher
        .hint(400 * PAGE, PAGE, 200, None)
        .expect("hint");
    until("the slot is taken", || s.prefetcher.stats().in_flight == 1);
    for page in 0..24 {
        s.prefetcher.record(page * PAGE, PAGE);
    }
    let stats = s.prefetcher.stats();
    assert_eq!((stats.hits, stats.late, stats.misses), (0, 0, 24));
    assert_eq!(stats.window_bytes, 32 * PAGE, "{stats:?}");
}

#[test]
fn a_stride_is_read_ahead_and_nothing_between() {
    for (first, step) in [(0i64, 9i64), (500, -7)] {
        let s = scene(false, plain());
        let pages: Vec<u64> = (0..50).map(|i| (first + i * step) as u64).collect();
        for page in &pages {
            visit(&s.prefetcher, *page);
        }
        let stats = s.prefetcher.stats();
        assert_eq!(
            stats.pattern,
            Pattern::Strided {
                stride: step * PAGE as i64
            }
        );
        assert!(stats.prefetch_hits >= 40, "{stats:?}");
        let on_the_way = |page: &u64| (*page as i64 - first) % step == 0;
        let started = s.prefetcher.target().started();
        // The first accesses have no pattern yet.
        let after = started.iter().skip(6);
        assert!(after.clone().count() > 20);
        assert!(
            after
                .clone()
                .all(|(at, count)| *count == 1 && on_the_way(at))
        );
    }
}

#[test]
fn steps_without_a_stride_are_learned() {
    let mut page = 10;
    let steps = [3i64, 5, -2];
    let pages: Vec<u64> = (0..200)
        .map(|i| {
            page += steps[i % 3];
            page as u64
        })
        .collect();
    let hits = |predictor| {
        let s = scene(
            false,
            PrefetchConfig {
                predictor,
                chunk_bytes: PAGE,
                ..plain()
            },
        );
        for page in &pages {
            visit(&s.prefetcher, *page);
        }
        s.prefetcher.stats()
    };
    let with = hits(true);
    assert!(
        with.predictor_on && with.predictor_accuracy > 0.9,
        "{with:?}"
    );
    // What is visited again is there anyway; what was never seen before is not.
    assert!(with.misses < 40, "{with:?}");
    let without = hits(false);
    assert!(without.misses > with.misses + 20, "{without:?} {with:?}");
}

#[test]
fn random_reads_switch_it_off_and_a_scan_switches_it_on_again() {
    let s = scene(
        false,
        PrefetchConfig {
            chunk_bytes: PAGE,
            ..plain()
        },
    );
    for page in random(600).map(|page| page / 2 * 2) {
        visit(&s.prefetcher, page);
        // So that no page is there because it was visited before.
        s.prefetcher.target().evict(page);
    }
    let stats = s.prefetcher.stats();
    assert_eq!(stats.window_bytes, 0, "{stats:?}");
    assert!(stats.accuracy < 0.5 && !stats.predictor_on, "{stats:?}");
    assert!(stats.wasted_bytes > 0);
    let before = s.prefetcher.target().started().len();
    for page in random(100).map(|page| page / 2 * 2) {
        visit(&s.prefetcher, page);
        s.prefetcher.target().evict(page);
    }
    assert_eq!(s.prefetcher.target().started().len(), before, "it is off");
    for page in 0..60 {
        s.prefetcher.target().evict(page);
    }
    for page in 0..60 {
        visit(&s.prefetcher, page);
    }
    let stats = s.prefetcher.stats();
    assert!(stats.window_bytes > 0, "{stats:?}");
    assert!(s.prefetcher.target().started().len() > before);
}

#[test]
fn hints_are_read_by_priority_then_deadline_then_age() {
    let config = PrefetchConfig {
        slots: 1,
        ..plain()
    };
    let s = scene(true, config);
    let hint = |page: u64, priority, seconds| {
        let deadline = Some(Duration::from_secs(seconds));
        let done = s.prefetcher.hint(page * PAGE, PAGE, priority, deadline);
        done.expect("a hint is taken");
    };
    // The first takes the only slot; the others wait in the queue.
    hint(100, 1, 100);
    until("the slot is taken", || s.prefetcher.stats().in_flight == 1);
    for (page, priority, seconds) in [(1, 5, 90), (2, 9, 80), (3, 9, 70), (4, 5, 90), (5, 200, 99)]
    {
        hint(page, priority, seconds);
    }
    assert_eq!(s.prefetcher.stats().queued, 5);
    s.prefetcher.target().release();
    settle(&s.prefetcher);
    let order: Vec<u64> = s
        .prefetcher
        .target()
        .started()
        .iter()
        .map(|r| r.0)
        .collect();
    assert_eq!(order, [100, 5, 3, 2, 1, 4]);
    s.prefetcher.record(5 * PAGE, PAGE);
    assert_eq!(s.prefetcher.stats().prefetch_hits, 1);
}

#[test]
fn requests_past_their_deadline_are_dropped_and_counted() {
    let config = PrefetchConfig {
        slots: 1,
        ..plain()
    };
    let s = scene(true, config);
    let hint = |page: u64, wait| s.prefetcher.hint(page * PAGE, PAGE, 1, Some(wait));
    hint(100, Duration::from_secs(100)).expect("hint");
    until("the slot is taken", || s.prefetcher.stats().in_flight == 1);
    hint(1, Duration::from_millis(2)).expect("hint");
    hint(2, Duration::ZERO).expect("hint");
    hint(3, Duration::MAX).expect("hint");
    // Nothing happens but that time passes.
    until("two are too late", || s.prefetcher.stats().dropped == 2);
    assert_eq!(s.prefetcher.stats().queued, 1);
    s.prefetcher.target().release();
    settle(&s.prefetcher);
    assert_eq!(s.prefetcher.target().started(), [(100, 1), (3, 1)]);
}

#[test]
fn at_most_slots_requests_are_in_flight() {
    let config = PrefetchConfig {
        slots: 3,
        ..plain()
    };
    let s = scene(true, config);
    s.prefetcher.hint(0, 64 * PAGE, 1, None).expect("hint");
    until("the slots are taken", || {
        s.prefetcher.stats().in_flight == 3
    });
    assert_eq!(
        s.prefetcher.stats().unused_pages,
        12,
        "in pieces of a chunk"
    );
    s.prefetcher.target().release();
    settle(&s.prefetcher);
    assert_eq!(s.prefetcher.target().most_in_flight(), 3);
    assert_eq!(s.prefetcher.target().started().len(), 16);
}

#[test]
fn no_more_than_an_eighth_of_the_cache_is_read_ahead() {
    let s = scene(false, plain());
    s.prefetcher.hint(0, 400 * PAGE, 1, None).expect("hint");
    until("the room is taken", || {
        let stats = s.prefetcher.stats();
        stats.unused_pages == 128 && stats.in_flight == 0
    });
    assert!(s.prefetcher.stats().queued > 0);
    // Each chunk that is used makes room for another.
    s.prefetcher.record(0, 4 * PAGE);
    until("one more", || {
        s.prefetcher.target().started().len() == 33 && s.prefetcher.stats().in_flight == 0
    });
    assert_eq!(s.prefetcher.stats().unused_pages, 128);
}

#[test]
fn a_cache_of_a_few_pages_is_left_alone() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 100_000);
    let context = context();
    let file = open(&context, &path);
    let prefetcher = prefetcher(Shelf::new(&context, &file, 7, false), plain());
    for page in 0..20 {
        visit(&prefetcher, page);
    }
    prefetcher.hint(0, PAGE, 1, None).expect("a hint");
    let stats = prefetcher.stats();
    assert_eq!((stats.misses, stats.refused, stats.queued), (20, 1, 0));
    assert!(prefetcher.target().started().is_empty());
}

#[test]
fn an_access_during_the_read_is_late() {
    let s = scene(true, plain());
    s.prefetcher
        .hint(40 * PAGE, 4 * PAGE, 1, None)
        .expect("hint");
    until("it is being read", || {
        !s.prefetcher.target().started().is_empty()
    });
    s.prefetcher.record(41 * PAGE, PAGE);
    let stats = s.prefetcher.stats();
    assert_eq!((stats.late, stats.hits, stats.misses), (1, 0, 0));
    s.prefetcher.target().release();
    settle(&s.prefetcher);
    s.prefetcher.record(42 * PAGE, PAGE);
    assert_eq!(s.prefetcher.stats().prefetch_hits, 1);
}

#[test]
fn pages_that_made_room_before_they_were_used_are_waste() {
    let s = scene(false, plain());
    s.prefetcher
        .hint(40 * PAGE, 4 * PAGE, 1, None)
        .expect("hint");
    until("it is read", || {
        s.prefetcher.stats().prefetched_bytes == 4 * PAGE
    });
    settle(&s.prefetcher);
    s.prefetcher.target().evict(41);
    s.prefetcher.record(41 * PAGE, PAGE);
    let stats = s.prefetcher.stats();
    assert_eq!((stats.misses, stats.wasted_bytes), (1, PAGE));
}

#[test]
fn a_failed_read_ahead_is_kept_for_the_program_and_ends_nothing() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (PAGES * PAGE) as usize);
    let plan = FaultPlan {
        io_error_at: Some(40 * PAGE..41 * PAGE),
        ..FaultPlan::default()
    };
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    let config = Config {
        max_retries: 0,
        ..small_config()
    };
    let context = context_over(config, fault.clone());
    let file = open(&context, &path);
    let p = prefetcher(Shelf::new(&context, &file, 1024, false), plain());
    p.hint(40 * PAGE, 4 * PAGE, 1, None).expect("hint");
    until("it has failed", || fault.counts().io_errors > 0);
    settle(&p);
    assert_eq!(p.stats().unused_pages, 3, "one page has not come");
    p.hint(80 * PAGE, PAGE, 1, None).expect("hint");
    until("the target tells", || p.stats().refused == 1);
    let error = p.take_failure().expect("it is kept");
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Io, Some(40 * PAGE))
    );
    assert!(p.take_failure().is_none(), "and told once");
    p.hint(90 * PAGE, PAGE, 1, None).expect("hint");
    until("it goes on", || p.target().started().contains(&(90, 1)));
    settle(&p);
    assert_eq!(p.stats().in_flight, 0);
}

#[test]
fn closing_does_not_wait_for_reads() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (PAGES * PAGE) as usize);
    let context = context();
    let file = open(&context, &path);
    let shelf = Shelf::new(&context, &file, 1024, true);
    let p = prefetcher(shelf, plain());
    p.hint(0, 64 * PAGE, 1, None).expect("hint");
    until("reads are under way", || p.stats().in_flight == 8);
    // The thread ends here; the shelf is released by its own drop, after that.
    drop(p);
}

#[test]
fn without_a_distance_only_hints_are_read() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", (PAGES * PAGE) as usize);
    let context = context();
    let file = open(&context, &path);
    assert_eq!(context.config().prefetch_distance, 0);
    let shelf = Shelf::new(&context, &file, 1024, false);
    let p = Prefetcher::over(shelf, context.config(), plain()).expect("opens");
    for page in 0..50 {
        visit(&p, page);
    }
    assert!(p.target().started().is_empty());
    p.hint(100 * PAGE, 1, 1, None).expect("hint");
    until("the hint is read", || p.target().started() == [(100, 1)]);
}

#[test]
fn bad_settings_and_ranges_are_answered() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 100_000);
    let context = context();
    let file = open(&context, &path);
    let refused = |config| {
        let shelf = Shelf::new(&context, &file, 1024, false);
        let error = Prefetcher::over(shelf, context.config(), config)
            .map(|_| ())
            .expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.message().to_owned()
    };
    let mut config = plain();
    config.slots = 1025;
    assert!(refused(config).contains("slots of a prefetcher is 1025"));
    config = plain();
    config.chunk_bytes = PAGE + 1;
    assert!(refused(config).contains("multiple of the page size (4096)"));
    config = plain();
    config.distance_bytes = 1 << 41;
    assert!(refused(config).contains("distance_bytes"));
    config.distance_bytes = PAGE;
    config.chunk_bytes = 2 * PAGE;
    assert!(refused(config).contains("distance_bytes"));
    let p = prefetcher(Shelf::new(&context, &file, 1024, false), plain());
    let error = p.hint(u64::MAX, 2, 1, None).expect_err("no such offset");
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    p.hint(1 << 40, 2, 1, None)
        .expect("behind the end is nothing");
    p.record(u64::MAX, u64::MAX);
    p.record(1 << 60, 0);
    p.record(i64::MAX as u64 - 1, 1);
    assert_eq!(p.stats().queued, 0);
}

#[test]
fn many_threads_record_at_once() {
    let s = scene(false, plain());
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let p = &s.prefetcher;
            scope.spawn(move || {
                for page in 0..128 {
                    p.record((thread * 128 + page) * PAGE, PAGE);
                    p.target().get(thread * 128 + page);
                }
            });
        }
    });
    let stats = s.prefetcher.stats();
    assert_eq!(stats.hits + stats.late + stats.misses, PAGES);
}
