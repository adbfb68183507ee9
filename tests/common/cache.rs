//! What cache tests share: caches over a host context, and a look into pages.

#![allow(dead_code, clippy::missing_panics_doc)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gds_rs::cache::{Cache, CacheConfig, CacheStats, Page};
use gds_rs::engine::{Context, File};
use gds_rs::io::OpenMode;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;

use super::{context_over, small_config};

/// Bytes of a page in these tests.
pub const PAGE: u64 = 4096;

/// A cache of so many pages that never flushes by itself.
pub fn config(pages: u64) -> CacheConfig {
    CacheConfig {
        page_size: PAGE as u32,
        device_bytes: pages * PAGE,
        flush_delay: Duration::from_secs(3600),
        dirty_percent: 100,
        ..CacheConfig::default()
    }
}

pub fn cache(context: &Context, pages: u64) -> Cache {
    Cache::open(context, config(pages)).expect("a cache opens")
}

/// A context whose I/O goes wrong as the plan says; the plan can be changed.
pub fn faulty(plan: FaultPlan) -> (Context, Arc<Fault>) {
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    (context_over(small_config(), fault.clone()), fault)
}

/// Opens for reading and writing, without changing the file.
pub fn open_both(context: &Context, path: &Path) -> File {
    context
        .open_file(path, OpenMode::read_write())
        .expect("the file opens")
}

/// The bytes of a page, those after `size()` included.
pub fn look(page: &Page, size: u64) -> &[u8] {
    // SAFETY: pages of the host device are ordinary memory, and the page is held.
    unsafe { std::slice::from_raw_parts(page.address() as *const u8, size as usize) }
}

/// The bytes of a page, to change them.
#[allow(clippy::mut_from_ref)]
pub fn change(page: &Page, size: u64) -> &mut [u8] {
    // SAFETY: as `look`; tests see to it that nobody else uses the page.
    unsafe { std::slice::from_raw_parts_mut(page.address() as *mut u8, size as usize) }
}

/// Waits until something is so. Fails after a long time only.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until nothing is being read ahead: the counters stand still and add up.
pub fn until_arrived(cache: &Cache, pages: u64) -> CacheStats {
    until("all pages arrive", || {
        let stats = cache.stats();
        stats.resident + stats.evictions + stats.read_errors >= pages
    });
    cache.stats()
}

/// Numbers that look random, the same for the same seed.
pub struct Random(AtomicU64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    pub fn below(&self, limit: u64) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        (x >> 11) % limit
    }
}
