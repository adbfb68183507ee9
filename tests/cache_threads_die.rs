//! A panic in the I/O of a page, in whatever thread, leaves nobody waiting: the page is free again,
//! what was changed is kept, and the next call for the file tells.

#[path = "common/cache.rs"]
mod cached;
mod common;
#[path = "common/deadly.rs"]
mod deadly;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;

use cached::{PAGE, change, config, look, open_both, until};
use common::{Folder, context_over, small_config};
use deadly::Deadly;
use gds_rs::ErrorKind;
use gds_rs::cache::{Cache, CacheConfig};

/// Longer than any answer takes; only a hang takes as long.
const LIMIT: Duration = Duration::from_secs(20);

/// What `work` gives, run where a hang of it can be seen.
fn within_limit<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, over) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    over.recv_timeout(LIMIT).expect(what)
}

fn arm(io: &Deadly, page: u64) {
    io.page.store(page, Relaxed);
    io.armed.store(true, Relaxed);
}

#[test]
fn a_panic_in_a_read_is_an_error_of_the_page_and_leaves_it_to_others() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 16 * PAGE as usize);
    let io = Arc::new(Deadly::default());
    let context = context_over(small_config(), io.clone());
    let file = open_both(&context, &path);
    let cache = Cache::open(&context, config(4)).expect("opens");
    arm(&io, 3);
    let error = cache.get(&file, 3 * PAGE).expect_err("it cannot be read");
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    io.armed.store(false, Relaxed);
    let page = within_limit("the page is free", {
        let (cache, file) = (cache.clone(), file.clone());
        move || cache.get(&file, 3 * PAGE)
    });
    let page = page.expect("read anew");
    assert!(look(&page, PAGE) == &data[3 * PAGE as usize..4 * PAGE as usize]);
    drop(page);
    assert_eq!(cache.stats().pinned, 0);
    within_limit("the cache closes", move || drop(cache));
}

#[test]
fn a_panic_in_the_flusher_loses_nothing_and_it_goes_on() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 16 * PAGE as usize);
    let io = Arc::new(Deadly::default());
    let context = context_over(small_config(), io.clone());
    let file = open_both(&context, &path);
    let settings = CacheConfig {
        flush_delay: Duration::from_millis(20),
        ..config(4)
    };
    let cache = Cache::open(&context, settings).expect("opens");
    let page = cache.get(&file, 2 * PAGE).expect("a page");
    change(&page, PAGE).fill(6);
    data[2 * PAGE as usize..3 * PAGE as usize].fill(6);
    page.mark_dirty().expect("writable");
    arm(&io, 2);
    drop(page);
    until("the write fails", || cache.stats().write_errors > 0);
    until("the next call for the file tells", || {
        let told = cache.get(&file, 0).err();
        told.is_some_and(|error| error.kind() == ErrorKind::Internal)
    });
    let page = within_limit("the page is there", {
        let (cache, file) = (cache.clone(), file.clone());
        move || cache.try_get(&file, 2 * PAGE).expect("kept")
    });
    assert!(look(&page, PAGE).iter().all(|b| *b == 6));
    drop(page);
    io.armed.store(false, Relaxed);
    until("the thread is there and tries again", || {
        cache.stats().dirty == 0
    });
    within_limit("the cache closes", move || drop(cache));
    assert!(std::fs::read(&path).expect("reads") == data);
}
