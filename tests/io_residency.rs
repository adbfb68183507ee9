//! What the page cache holds of a file, by cachestat and by mincore: both tell the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use gds_rs::error::ErrorKind;
use gds_rs::io::{PAGE_SIZE, Residency, residency, residency_cachestat, residency_mincore};

const PAGES: u64 = 512;

struct Scratch(PathBuf, File);

impl Scratch {
    fn new(name: &str, size: u64) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("io_residency_{name}_{}", std::process::id()));
        std::fs::write(&path, vec![7u8; size as usize]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Self(path, file)
    }

    fn fd(&self) -> i32 {
        self.1.as_raw_fd()
    }

    /// Syncs, and asks the kernel to drop all pages. Not every file system can.
    fn evict(&self) {
        self.1.sync_all().unwrap();
        // SAFETY: plain integers.
        let rc = unsafe { libc::posix_fadvise(self.fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(rc, 0);
        // SAFETY: plain integers: no read-ahead, so that one read brings one page.
        let rc = unsafe { libc::posix_fadvise(self.fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        assert_eq!(rc, 0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

type Ask = fn(i32, u64, u64) -> gds_rs::Result<Residency>;

/// Every way that this kernel has.
fn ways() -> Vec<(&'static str, Ask)> {
    let mut ways: Vec<(&'static str, Ask)> =
        vec![("either", residency), ("mincore", residency_mincore)];
    let file = File::open("/proc/self/exe").unwrap();
    match residency_cachestat(file.as_raw_fd(), 0, 4096) {
        Ok(_) => ways.push(("cachestat", residency_cachestat)),
        Err(e) => println!("skipped: cachestat: {e}"),
    }
    ways
}

#[test]
fn cold_then_warm_page_by_page() {
    for (name, ask) in ways() {
        let file = Scratch::new("warm", PAGES * PAGE_SIZE);
        file.evict();
        let all = |offset, size| ask(file.fd(), offset, size).unwrap();
        let cold = all(0, PAGES * PAGE_SIZE);
        assert_eq!((cold.pages, cold.dirty), (PAGES, 0), "{name}");
        if cold.cached > 0 {
            println!(
                "skipped: {name}: this file system keeps {} pages",
                cold.cached
            );
            continue;
        }
        let mut byte = [0];
        for page in [0, 3, 4, 100, PAGES - 1] {
            file.1.read_exact_at(&mut byte, page * PAGE_SIZE).unwrap();
            assert_eq!(
                all(page * PAGE_SIZE, PAGE_SIZE).cached,
                1,
                "{name}: page {page}"
            );
        }
        // A file system may bring a few neighbours along, but not all.
        let some = all(0, PAGES * PAGE_SIZE).cached;
        assert!((5..PAGES).contains(&some), "{name}: {some}");
        let mut whole = vec![0; (PAGES * PAGE_SIZE) as usize];
        file.1.read_exact_at(&mut whole, 0).unwrap();
        let warm = all(0, PAGES * PAGE_SIZE);
        assert_eq!(
            warm,
            Residency {
                pages: PAGES,
                cached: PAGES,
                dirty: 0
            },
            "{name}"
        );
    }
}

#[test]
fn both_agree_on_any_range() {
    let file = Scratch::new("agree", PAGES * PAGE_SIZE - 1000);
    file.evict();
    let mut some = vec![0; 100_000];
    file.1.read_exact_at(&mut some, 50_000).unwrap();
    for (offset, size) in [
        (0, u64::MAX),
        (0, 1),
        (4095, 2),
        (49_999, 4096),
        (100_000, 1_000_000),
        (PAGES * PAGE_SIZE - 1001, 1),
    ] {
        let by_mincore = residency_mincore(file.fd(), offset, size).unwrap();
        for (name, ask) in ways() {
            let answer = ask(file.fd(), offset, size).unwrap();
            assert_eq!(answer.pages, by_mincore.pages, "{name} {offset}+{size}");
            assert_eq!(answer.cached, by_mincore.cached, "{name} {offset}+{size}");
        }
    }
    let straddles = residency(file.fd(), 4095, 2).unwrap();
    assert_eq!(straddles.pages, 2);
}

#[test]
fn fresh_writes_are_dirty_until_synced() {
    let file = Scratch::new("dirty", PAGES * PAGE_SIZE);
    file.evict();
    let Ok(before) = residency_cachestat(file.fd(), 0, u64::MAX) else {
        println!("skipped: no cachestat here, and mincore cannot tell");
        return;
    };
    assert_eq!(before.dirty, 0);
    file.1.write_all_at(&[1; 4096 * 8], 4096 * 16).unwrap();
    let written = residency_cachestat(file.fd(), 4096 * 16, 4096 * 8).unwrap();
    assert_eq!(
        written,
        Residency {
            pages: 8,
            cached: 8,
            dirty: 8
        }
    );
    file.1.sync_all().unwrap();
    assert_eq!(
        residency_cachestat(file.fd(), 0, u64::MAX).unwrap().dirty,
        0
    );
}

#[test]
fn nothing_asked_or_past_the_end_is_nothing() {
    let file = Scratch::new("nothing", 10_000);
    let empty = Scratch::new("empty", 0);
    for (name, ask) in ways() {
        for (offset, size) in [(0, 0), (10_000, 1), (u64::MAX, u64::MAX), (5000, 0)] {
            let answer = ask(file.fd(), offset, size).unwrap();
            assert_eq!(answer, Residency::default(), "{name} {offset}+{size}");
        }
        assert_eq!(
            ask(empty.fd(), 0, u64::MAX).unwrap(),
            Residency::default(),
            "{name}"
        );
        assert_eq!(ask(file.fd(), 0, u64::MAX).unwrap().pages, 3, "{name}");
    }
}

#[test]
fn a_descriptor_that_cannot_tell_is_an_error() {
    let write_only = {
        let file = Scratch::new("write", 4096);
        File::options().write(true).open(&file.0).unwrap()
    };
    let error = residency_mincore(write_only.as_raw_fd(), 0, 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    for (name, ask) in ways() {
        let error = ask(9999, 0, 4096).unwrap_err();
        assert_eq!(error.errno(), libc::EBADF, "{name}: {error}");
        assert!(error.message().contains("9999"), "{name}: {error}");
    }
}
