//! Changed pages reach their files: when told, when due, when they have to go; and in order.

#[path = "common/cache.rs"]
mod cached;
mod common;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use cached::*;
use common::*;
use gds_rs::cache::{Cache, CacheConfig};
use gds_rs::engine::MemoryKind;
use gds_rs::io::fault::FaultPlan;
use gds_rs::io::posix::Posix;
use gds_rs::io::{Io, Operation, Queue, Request};
use gds_rs::{ErrorKind, Result};
use parking_lot::Mutex;

#[test]
fn what_was_put_is_read_back_before_and_after_the_flush() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 40 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 64);
    let new = pattern(9 * PAGE as usize, 3);
    let from = alloc(&context, new.len() as u64);
    bytes(&from).copy_from_slice(&new);
    let to = alloc(&context, data.len() as u64);
    // Whole pages, a part of one page, and both ends in the middle of pages.
    for (at, start, size) in [
        (4 * PAGE, 0, 2 * PAGE),
        (10 * PAGE + 5, 7, 100),
        (20 * PAGE + 999, 1, 8 * PAGE + 3),
    ] {
        cache.put(&file, at, &from, start, size).expect("put");
        let (at, start, size) = (at as usize, start as usize, size as usize);
        data[at..at + size].copy_from_slice(&new[start..start + size]);
    }
    assert_eq!(context.metrics().write.operations, 0, "nothing is due");
    let got = cache
        .read(&file, 0, &to, 0, data.len() as u64)
        .expect("reads");
    assert_eq!(got, data.len() as u64);
    assert!(bytes(&to) == data, "out of the cache");
    assert!(std::fs::read(&path).expect("reads") != data);
    assert_eq!(cache.stats().dirty, 2 + 1 + 9);
    assert_eq!(cache.flush(Some(&file)).expect("flushed"), 12 * PAGE);
    assert!(std::fs::read(&path).expect("reads") == data, "in the file");
    assert_eq!(cache.flush(None).expect("nothing left"), 0);
    let stats = cache.stats();
    assert_eq!((stats.dirty, stats.write_backs), (0, 12));
    assert_eq!(stats.bytes_written, 12 * PAGE);
}

#[test]
fn a_file_grows_by_what_was_put_and_not_by_pages() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", PAGE as usize + 100);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 16);
    let from = alloc(&context, 100);
    bytes(&from).fill(0x5a);
    let to = alloc(&context, 8 * PAGE);
    // A page of the old end is in the cache, short, before the file grows past it.
    assert_eq!(cache.get(&file, PAGE).expect("a page").size(), 100);
    cache.put(&file, 3 * PAGE + 50, &from, 0, 100).expect("put");
    data.resize(3 * PAGE as usize + 50, 0);
    data.extend([0x5a; 100]);
    for flushed in [false, true] {
        bytes(&to).fill(1);
        let got = cache.read(&file, 0, &to, 0, 8 * PAGE).expect("reads");
        assert_eq!(got, data.len() as u64, "flushed: {flushed}");
        assert!(bytes(&to)[..data.len()] == data, "flushed: {flushed}");
        cache.flush(Some(&file)).expect("flushed");
    }
    assert!(std::fs::read(&path).expect("reads") == data);
    assert_eq!(file.size().expect("its size"), 3 * PAGE + 150);
    // Only what is valid of the last page is written.
    let page = cache.get(&file, 3 * PAGE).expect("a page");
    change(&page, 10).fill(7);
    page.mark_dirty().expect("writable");
    drop(page);
    assert_eq!(cache.flush(None).expect("flushed"), 150);
    assert_eq!(file.size().expect("its size"), 3 * PAGE + 150);
}

#[test]
fn new_pages_are_written_without_having_been_read() {
    let folder = Folder::new();
    let path = folder.path("new");
    let context = context();
    let file = open_to_write(&context, &path);
    let cache = cache(&context, 16);
    for i in [2, 0, 1] {
        let page = cache.get_new(&file, i * PAGE).expect("a page");
        assert_eq!(page.size(), PAGE as u32);
        change(&page, PAGE).fill(i as u8 + 1);
    }
    assert_eq!(context.metrics().read.operations, 0);
    assert_eq!(cache.flush(Some(&file)).expect("flushed"), 3 * PAGE);
    let now = std::fs::read(&path).expect("reads");
    let page = PAGE as usize;
    assert_eq!(now.len(), 3 * page);
    for i in 0..3 {
        assert!(
            now[i * page..(i + 1) * page]
                .iter()
                .all(|b| *b == i as u8 + 1)
        );
    }
    let reading = open(&context, &path);
    let error = cache.get_new(&reading, 0).expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    let held = cache.get(&reading, 0).expect("a page");
    assert_eq!(
        held.mark_dirty().expect_err("read-only").kind(),
        ErrorKind::ReadOnly
    );
    let from = alloc(&context, PAGE);
    let error = cache.put(&reading, 0, &from, 0, 10).expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
}

#[test]
fn pages_that_came_in_read_only_are_written_through_a_later_open() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 4 * PAGE as usize);
    let context = context();
    let cache = cache(&context, 16);
    let reading = open(&context, &path);
    drop(cache.get(&reading, 0).expect("a page"));
    let writing = open_both(&context, &path);
    let page = cache.get(&writing, 0).expect("the same page");
    change(&page, PAGE).fill(3);
    page.mark_dirty().expect("this open may write");
    drop((page, writing, reading));
    assert_eq!(cache.flush(None).expect("flushed"), PAGE);
    let now = std::fs::read(&path).expect("reads");
    assert!(now[..PAGE as usize].iter().all(|b| *b == 3));
}

#[test]
fn a_dirty_page_is_written_before_it_goes() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 64 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 8);
    for i in 0..64 {
        let page = cache.get(&file, i * PAGE).expect("room");
        change(&page, 8).fill(i as u8);
        page.mark_dirty().expect("writable");
        data[(i * PAGE) as usize..][..8].fill(i as u8);
    }
    let stats = cache.stats();
    assert_eq!((stats.dirty_evictions, stats.dirty), (56, 8));
    let to = alloc(&context, data.len() as u64);
    cache
        .read(&file, 0, &to, 0, data.len() as u64)
        .expect("reads");
    assert!(bytes(&to) == data, "nothing was lost on the way");
    cache.flush(None).expect("flushed");
    assert!(std::fs::read(&path).expect("reads") == data);
}

#[test]
fn a_changed_page_is_written_when_it_is_due_and_not_while_it_is_held() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 8 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let settings = CacheConfig {
        flush_delay: Duration::from_millis(30),
        ..config(16)
    };
    let cache = Cache::open(&context, settings).expect("opens");
    let held = cache.get(&file, 0).expect("a page");
    held.mark_dirty().expect("writable");
    for i in 1..4 {
        let page = cache.get(&file, i * PAGE).expect("a page");
        change(&page, PAGE).fill(9);
        page.mark_dirty().expect("writable");
    }
    until("the three are written", || cache.stats().write_backs == 3);
    assert_eq!(cache.stats().dirty, 1);
    // The holder changes it after it said so.
    change(&held, PAGE).fill(8);
    drop(held);
    until("the last one is written", || cache.stats().write_backs == 4);
    let now = std::fs::read(&path).expect("reads");
    assert!(now[..PAGE as usize].iter().all(|b| *b == 8));
    assert!(
        now[PAGE as usize..4 * PAGE as usize]
            .iter()
            .all(|b| *b == 9)
    );
}

#[test]
fn a_flush_writes_held_pages_now_and_again_later() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 4);
    let page = cache.get_new(&file, 0).expect("a page");
    change(&page, PAGE).fill(1);
    assert_eq!(cache.flush(None).expect("flushed"), PAGE);
    assert!(std::fs::read(&path).expect("reads").iter().all(|b| *b == 1));
    change(&page, PAGE).fill(2);
    drop(page);
    assert_eq!(cache.flush(None).expect("flushed"), PAGE);
    assert!(std::fs::read(&path).expect("reads").iter().all(|b| *b == 2));
    assert_eq!(cache.flush(None).expect("clean"), 0);
}

#[test]
fn many_changed_pages_do_not_wait_until_they_are_due() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 64 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let settings = CacheConfig {
        dirty_percent: 25,
        ..config(64)
    };
    let cache = Cache::open(&context, settings).expect("opens");
    for i in 0..16 {
        drop(cache.get_new(&file, i * PAGE).expect("a page"));
    }
    assert_eq!(cache.stats().write_backs, 0, "a quarter may be dirty");
    drop(cache.get_new(&file, 16 * PAGE).expect("a page"));
    until("all are written", || cache.stats().dirty == 0);
}

#[test]
fn a_failed_write_back_keeps_the_data_and_is_told_once_and_tried_again() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 8 * PAGE as usize);
    let (other, _) = folder.file("b", PAGE as usize);
    let broken = FaultPlan {
        io_error_at: Some(2 * PAGE..3 * PAGE),
        ..FaultPlan::default()
    };
    let (context, fault) = faulty(FaultPlan::default());
    let (file, other) = (open_both(&context, &path), open(&context, &other));
    let settings = CacheConfig {
        flush_delay: Duration::from_millis(20),
        ..config(16)
    };
    let cache = Cache::open(&context, settings).expect("opens");
    let page = cache.get(&file, 2 * PAGE).expect("a page");
    change(&page, PAGE).fill(6);
    data[2 * PAGE as usize..3 * PAGE as usize].fill(6);
    page.mark_dirty().expect("writable");
    fault.set_plan(broken.clone());
    drop(page);
    until("the write fails", || cache.stats().write_errors > 0);
    cache.get(&other, 0).expect("another file is not concerned");
    let mut told = None;
    until("the error is told", || {
        told = cache.get(&file, 0).err();
        told.is_some()
    });
    let error = told.expect("just seen");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
    let page = cache.try_get(&file, 2 * PAGE).expect("kept");
    assert!(look(&page, PAGE).iter().all(|b| *b == 6));
    drop(page);
    fault.set_plan(FaultPlan::default());
    until("it is tried again", || cache.stats().dirty == 0);
    assert!(std::fs::read(&path).expect("reads") == data);
    // The failure of a retry may still have to be told.
    let _ = cache.get(&file, 0);
    cache.get(&file, 0).expect("nothing left to tell");
    // A flush that is asked for answers itself, and tells nobody else.
    fault.set_plan(broken);
    let page = cache.get(&file, 2 * PAGE).expect("a page");
    page.mark_dirty().expect("writable");
    let error = cache.flush(Some(&file)).expect_err("EIO");
    assert_eq!(error.errno(), libc::EIO);
    drop(page);
    fault.set_plan(FaultPlan::default());
}

#[test]
fn a_victim_that_cannot_be_written_stays_and_another_goes() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 32 * PAGE as usize);
    let (bad, _) = folder.file("bad", 32 * PAGE as usize);
    let (context, fault) = faulty(FaultPlan::default());
    let (file, bad) = (open(&context, &path), open_both(&context, &bad));
    let cache = cache(&context, 4);
    for i in 0..2 {
        let page = cache.get_new(&bad, (20 + i) * PAGE).expect("a page");
        change(&page, PAGE).fill(5);
    }
    fault.set_plan(FaultPlan {
        io_error_at: Some(20 * PAGE..22 * PAGE),
        ..FaultPlan::default()
    });
    for i in 0..20 {
        cache.get(&file, i * PAGE).expect("others go");
    }
    for i in 0..2 {
        let page = cache.try_get(&bad, (20 + i) * PAGE).expect("kept");
        assert!(look(&page, PAGE).iter().all(|b| *b == 5));
    }
    assert!(cache.stats().write_errors > 0);
    let error = cache.get(&bad, 20 * PAGE).expect_err("told");
    assert_eq!(error.errno(), libc::EIO);
    // With nothing else to go, the answer says why.
    let held: Vec<_> = (0..2)
        .map(|i| cache.get(&file, i * PAGE).expect("a page"))
        .collect();
    let error = cache.get(&file, 9 * PAGE).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::AllPinned);
    assert!(error.message().contains("could not be written"), "{error}");
    drop(held);
    fault.set_plan(FaultPlan::default());
    let _ = cache.get(&bad, 20 * PAGE);
    assert_eq!(cache.flush(Some(&bad)).expect("written now"), 2 * PAGE);
}

/// Notes where writes go, as they are begun.
#[derive(Debug)]
struct Noted(Arc<Mutex<Vec<u64>>>);

#[derive(Debug)]
struct NotedQueue(Box<dyn Queue>, Arc<Mutex<Vec<u64>>>);

impl Io for Noted {
    fn name(&self) -> &'static str {
        "noted"
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn Queue>> {
        let inner = Posix.queue(depth)?;
        Ok(Box::new(NotedQueue(inner, self.0.clone())))
    }

    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        // SAFETY: the same promise.
        unsafe { Posix.read_at(fd, pointer, size, offset) }
    }

    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        self.0.lock().push(offset);
        // SAFETY: the same promise.
        unsafe { Posix.write_at(fd, pointer, size, offset) }
    }

    fn sync(&self, fd: RawFd) -> i64 {
        Posix.sync(fd)
    }
}

impl Queue for NotedQueue {
    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    unsafe fn register_memory(&mut self, pointer: *mut u8, size: usize) -> bool {
        // SAFETY: the same promise.
        unsafe { self.0.register_memory(pointer, size) }
    }

    unsafe fn push(&mut self, request: Request) -> bool {
        if request.operation == Operation::Write {
            self.1.lock().push(request.offset);
        }
        // SAFETY: the same promise.
        unsafe { self.0.push(request) }
    }

    fn submit(&mut self) -> Result<()> {
        self.0.submit()
    }

    fn wait(&mut self, minimum: usize, done: &mut Vec<gds_rs::io::Completion>) -> Result<()> {
        self.0.wait(minimum, done)
    }
}

#[test]
fn a_flush_goes_through_the_file_in_ascending_order() {
    // Pages of a group are written side by side; the next group waits for them.
    const GROUP: usize = 32;
    let folder = Folder::new();
    let path = folder.path("order");
    let notes = Arc::new(Mutex::new(Vec::new()));
    let context = context_over(small_config(), Arc::new(Noted(notes.clone())));
    let file = open_to_write(&context, &path);
    let cache = cache(&context, 256);
    let random = Random::new(5);
    let mut pages: Vec<u64> = (0..200).collect();
    for i in (1..pages.len()).rev() {
        pages.swap(i, random.below(i as u64 + 1) as usize);
    }
    for page in &pages {
        drop(cache.get_new(&file, page * PAGE).expect("a page"));
    }
    assert_eq!(cache.flush(Some(&file)).expect("flushed"), 200 * PAGE);
    let notes: Vec<u64> = notes.lock().iter().map(|offset| offset / PAGE).collect();
    let mut sorted = notes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..200).collect::<Vec<u64>>(), "each page once");
    for (number, group) in notes.chunks(GROUP).enumerate() {
        let first = (number * GROUP) as u64;
        let range = first..first + group.len() as u64;
        assert!(group.iter().all(|page| range.contains(page)), "{notes:?}");
    }
}

#[test]
fn ranges_that_pass_a_buffer_or_the_largest_offset_are_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 4);
    let buffer = context.alloc(MemoryKind::Pinned, 100).expect("memory");
    for (offset, at, size) in [
        (0, 1, 100),
        (0, u64::MAX, 2),
        (0, 0, 101),
        (u64::MAX, 0, 1),
        (1 << 63, 0, 1),
    ] {
        for put in [false, true] {
            let answer = match put {
                true => cache.put(&file, offset, &buffer, at, size),
                false => cache.read(&file, offset, &buffer, at, size).map(|_| ()),
            };
            let error = answer.expect_err("out of range");
            assert_eq!(error.kind(), ErrorKind::OutOfRange, "{offset} {at} {size}");
        }
    }
    assert_eq!(cache.read(&file, 0, &buffer, 0, 0).expect("nothing"), 0);
    cache.put(&file, 0, &buffer, 0, 0).expect("nothing");
    assert_eq!(cache.stats().resident, 0);
}

#[test]
fn a_changed_page_whose_file_was_cut_is_written_where_it_belongs() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("a", 10 * PAGE as usize);
    let context = context();
    let file = open_both(&context, &path);
    let cache = cache(&context, 16);
    let page = cache.get(&file, 7 * PAGE).expect("a page");
    change(&page, PAGE).fill(6);
    page.mark_dirty().expect("writable");
    drop(page);
    file.set_size(3 * PAGE + 10).expect("cut");
    assert_eq!(cache.flush(Some(&file)).expect("written"), PAGE);
    data.truncate(3 * PAGE as usize + 10);
    data.resize(7 * PAGE as usize, 0);
    data.resize(8 * PAGE as usize, 6);
    assert!(std::fs::read(&path).expect("reads") == data);
    assert_eq!(cache.stats().dirty, 0);
}
