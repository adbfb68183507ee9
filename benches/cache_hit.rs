//! What a hit costs: get and release of pages that are there, through Rust and through the C
//! functions, uniform and zipf (0.99), with one thread and with eight.
//!
//! `cargo bench --bench cache_hit -- [--pages N] [--rounds N] [--threads N]`
//!
//! Pages are 4 KiB on the host device, so N pages take N * 4 KiB of memory. They are made in the
//! cache without I/O and dropped at the end. Single calls are timed for P50, P99 and P99.9; the
//! clock's own cost, measured beside them, is in those figures. Prints figures and judges none.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use gds_rs::cache::{Cache, CacheConfig};
use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::engine::Context;
use gds_rs::ffi;
use gds_rs::ffi::status::gds_status_t;
use gds_rs::ffi::types::{
    gds_cache_config_t, gds_cache_range_t, gds_cache_t, gds_config_t, gds_context_t, gds_file_t,
    gds_page_t,
};
use gds_rs::io::OpenMode;

const PAGE: u64 = 4096;
/// Lookups of one thread in one round.
const LOOKUPS: usize = 1 << 20;
/// Lookups that are timed together.
const BATCH: usize = 4096;

struct Settings {
    pages: u64,
    rounds: usize,
    threads: usize,
}

fn settings() -> Settings {
    let mut settings = Settings {
        pages: 1 << 20,
        rounds: 5,
        threads: 8,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        match word.as_str() {
            "--pages" => settings.pages = number() as u64,
            "--rounds" => settings.rounds = number(),
            "--threads" => settings.threads = number(),
            // cargo adds --bench.
            _ => {}
        }
    }
    settings
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Offsets to look up, hot pages scattered over the file.
fn offsets(name: &str, pages: u64, seed: u64) -> Vec<u64> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    if name == "uniform" {
        return (0..LOOKUPS).map(|_| random.next() % pages * PAGE).collect();
    }
    // Gray et al., SIGMOD '94: zipf by inversion of the approximate distribution.
    let theta = 0.99_f64;
    let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
    let (n, all, two) = (pages as f64, zeta(pages), zeta(2));
    let alpha = 1.0 / (1.0 - theta);
    let eta = (1.0 - (2.0 / n).powf(1.0 - theta)) / (1.0 - two / all);
    (0..LOOKUPS)
        .map(|_| {
            let u = random.unit();
            let rank = match u * all {
                x if x < 1.0 => 0,
                x if x < 1.0 + 0.5_f64.powf(theta) => 1,
                _ => (n * (eta * u - eta + 1.0).powf(alpha)) as u64,
            };
            rank.min(pages - 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % pages * PAGE
        })
        .collect()
}

/// A cache by its C functions.
struct Handles {
    context: *mut gds_context_t,
    cache: *mut gds_cache_t,
    file: *mut gds_file_t,
}

// SAFETY: handles of the ABI are used from many threads, as its header allows.
unsafe impl Sync for Handles {}

fn ok(status: gds_status_t) {
    assert_eq!(status as i32, 0);
}

impl Handles {
    fn open(path: &Path, pages: u64) -> Self {
        let mut config = MaybeUninit::<gds_config_t>::zeroed();
        let mut cache_config = MaybeUninit::<gds_cache_config_t>::zeroed();
        let mut handles = Self {
            context: std::ptr::null_mut(),
            cache: std::ptr::null_mut(),
            file: std::ptr::null_mut(),
        };
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: structs of the stated sizes, filled by the library, and places for handles.
        unsafe {
            ok(ffi::config::gds_config_init(
                config.as_mut_ptr().cast(),
                size_of::<gds_config_t>(),
            ));
            let place = cache_config.as_mut_ptr();
            ok(ffi::cache::gds_cache_config_init(
                place.cast(),
                size_of::<gds_cache_config_t>(),
            ));
            let (mut config, mut sizes) = (config.assume_init(), cache_config.assume_init());
            config.gpu_device = DEVICE_HOST;
            sizes.page_bytes = PAGE as u32;
            sizes.device_bytes = device_bytes(pages);
            ok(ffi::context::gds_context_open(
                &config,
                &mut handles.context,
            ));
            ok(ffi::cache::gds_cache_open(
                handles.context,
                &sizes,
                &mut handles.cache,
            ));
            ok(ffi::file::gds_file_open(
                handles.context,
                name.as_ptr(),
                1,
                &mut handles.file,
            ));
            let all = gds_cache_range_t {
                offset: 0,
                size: pages * PAGE,
            };
            let mut read = 0;
            ok(ffi::cache::gds_cache_warm(
                handles.cache,
                handles.file,
                &all,
                1,
                &mut read,
            ));
        }
        handles
    }

    fn hit(&self, offset: u64) {
        let mut page = gds_page_t {
            address: std::ptr::null_mut(),
            offset_bytes: 0,
            size_bytes: 0,
            token: 0,
        };
        // SAFETY: open handles and a page of this frame.
        let got = unsafe { ffi::cache::gds_cache_get(self.cache, self.file, offset, &mut page) };
        std::hint::black_box(page.address);
        // SAFETY: as above.
        let gone = unsafe { ffi::cache::gds_cache_release(self.cache, &mut page) };
        assert!(got as i32 == 0 && gone as i32 == 0);
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        // SAFETY: open handles, each closed once.
        unsafe {
            ffi::file::gds_file_close(self.file);
            ffi::cache::gds_cache_close(self.cache);
            ffi::context::gds_context_close(self.context);
        }
    }
}

/// Nanoseconds a lookup, in the fastest tenth of all batches and in the median one: what else runs
/// on the machine is in few of them.
fn throughput(rounds: usize, offsets: &[u64], hit: impl Fn(u64)) -> (f64, f64) {
    let time = |batch: &[u64]| {
        let start = Instant::now();
        batch.iter().for_each(|offset| hit(*offset));
        start.elapsed().as_nanos() as f64 / batch.len() as f64
    };
    let rounds = (0..rounds).flat_map(|_| offsets.chunks(BATCH));
    let mut times: Vec<f64> = rounds.map(time).collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 10], times[times.len() / 2])
}

/// Single lookups of all threads, sorted, and nanoseconds a lookup and thread.
fn latencies(threads: &[Vec<u64>], hit: impl Fn(u64) + Sync) -> (Vec<u32>, f64) {
    let barrier = Barrier::new(threads.len());
    let mut took = Vec::new();
    let mut mean = Duration::ZERO;
    std::thread::scope(|scope| {
        let running: Vec<_> = threads
            .iter()
            .map(|offsets| {
                scope.spawn(|| {
                    barrier.wait();
                    let start = Instant::now();
                    offsets.iter().for_each(|offset| hit(*offset));
                    let whole = start.elapsed();
                    let single = offsets.iter().map(|offset| {
                        let start = Instant::now();
                        hit(*offset);
                        start.elapsed().as_nanos() as u32
                    });
                    (single.collect::<Vec<u32>>(), whole)
                })
            })
            .collect();
        for thread in running {
            let (single, whole) = thread.join().unwrap();
            took.extend(single);
            mean += whole;
        }
    });
    took.sort_unstable();
    let lookups = threads.len() * LOOKUPS;
    (took, mean.as_nanos() as f64 / lookups as f64)
}

fn at(sorted: &[u32], share: f64) -> u32 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn measure(side: &str, settings: &Settings, hit: impl Fn(u64) + Sync) {
    let Settings {
        pages,
        rounds,
        threads,
    } = *settings;
    for name in ["zipf", "uniform"] {
        let lists: Vec<Vec<u64>> = (0..threads as u64)
            .map(|thread| offsets(name, pages, thread + 1))
            .collect();
        let (fast, median) = throughput(rounds, &lists[0], &hit);
        println!(
            "{side:4} {name:7} 1 thread:  {fast:6.1} ns in the fastest tenth, {median:6.1} median"
        );
        let (single, mean) = latencies(&lists, &hit);
        println!(
            "{side:4} {name:7} {threads} threads: {mean:6.1} ns each; with the clock P50 {} P99 {} \
             P99.9 {} ns",
            at(&single, 0.5),
            at(&single, 0.99),
            at(&single, 0.999)
        );
    }
}

/// Shards differ in how many of the pages they get.
fn device_bytes(pages: u64) -> u64 {
    (pages + pages / 16 + 64) * PAGE
}

fn rust_side(path: &Path, settings: &Settings) {
    let context = Context::open(Config {
        gpu_device: DEVICE_HOST,
        ..Config::default()
    })
    .unwrap();
    let file = context.open_file(path, OpenMode::read_only()).unwrap();
    let config = CacheConfig {
        page_size: PAGE as u32,
        device_bytes: device_bytes(settings.pages),
        ..CacheConfig::default()
    };
    let cache = Cache::open(&context, config).unwrap();
    cache.warm(&file, &[(0, settings.pages * PAGE)]).unwrap();
    let (resident, pages) = (cache.stats().resident, settings.pages);
    println!("{resident} of {pages} pages of 4 KiB are resident");
    measure("Rust", settings, |offset| {
        std::hint::black_box(cache.get(&file, offset).unwrap().address());
    });
    let stats = cache.stats();
    println!(
        "{} hits, {} misses, {} held",
        stats.hits, stats.misses, stats.pinned
    );
}

fn main() {
    let settings = settings();
    let folder = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    let path = PathBuf::from(folder).join(format!("gds_cache_hit.{}", std::process::id()));
    // A file of holes: its pages are there without a disk.
    let made = std::fs::File::create(&path).unwrap();
    made.set_len(settings.pages * PAGE).unwrap();
    let clock = throughput(settings.rounds, &vec![0; LOOKUPS], |_| {
        std::hint::black_box(Instant::now());
    });
    println!("reading the clock takes {:.1} ns", clock.0);
    rust_side(&path, &settings);
    let handles = Handles::open(&path, settings.pages);
    measure("C", &settings, |offset| handles.hit(offset));
    drop(handles);
    let _ = std::fs::remove_file(path);
}
