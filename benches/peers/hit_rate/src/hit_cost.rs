//! Nanoseconds of a hit in caches that hold everything they are asked for.
//!
//!     hit_cost [--entries 1000000] [--threads 8]
//!
//! One thread: the mean of a loop of hits, best and median of five runs. Several threads: each
//! hit timed on its own, the median and the 99th percentile over all threads, less the clock's
//! own cost, which is printed. More threads than cores measure the scheduler too.

#[allow(dead_code)]
mod traces;

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use traces::{Rng, Zipf};

/// Hits of one loop.
const HITS: usize = 1_000_000;
const RUNS: usize = 5;

/// A cache under test. A new one needs this trait and a line in [`contenders`].
///
/// Ours belongs here: `gds_rs::cache::Cache`, one `try_get` that pins and the page's drop that
/// releases, which is what the peers' `get` is.
trait Contender: Sync {
    fn name(&self) -> &'static str;

    /// Looks `key` up as a user would, uses the value, and lets it go. True on a hit.
    fn hit(&self, key: u32) -> bool;
}

struct Quick(quick_cache::sync::Cache<u32, u64>);

impl Contender for Quick {
    fn name(&self) -> &'static str {
        "quick_cache"
    }

    fn hit(&self, key: u32) -> bool {
        self.0.get(&key).map(black_box).is_some()
    }
}

struct Moka(moka::sync::Cache<u32, u64>);

impl Contender for Moka {
    fn name(&self) -> &'static str {
        "moka"
    }

    fn hit(&self, key: u32) -> bool {
        self.0.get(&key).map(black_box).is_some()
    }
}

struct Foyer(foyer_memory::Cache<u32, u64>);

impl Contender for Foyer {
    fn name(&self) -> &'static str {
        "foyer"
    }

    fn hit(&self, key: u32) -> bool {
        self.0
            .get(&key)
            .map(|entry| black_box(*entry.value()))
            .is_some()
    }
}

/// All caches, each filled with the keys below `entries` and with room to spare, so that shards
/// that get more than their share evict nothing.
fn contenders(entries: usize) -> Vec<Box<dyn Contender>> {
    let room = entries + entries / 4;
    let quick = quick_cache::sync::Cache::new(room);
    let moka = moka::sync::Cache::new(room as u64);
    let foyer = foyer_memory::CacheBuilder::new(room)
        .with_shards(64)
        .with_eviction_config(foyer_memory::S3FifoConfig::default())
        .build::<foyer_memory::CacheProperties>();
    for key in 0..entries as u32 {
        quick.insert(key, u64::from(key));
        moka.insert(key, u64::from(key));
        foyer.insert(key, u64::from(key));
    }
    moka.run_pending_tasks();
    vec![
        Box::new(Quick(quick)),
        Box::new(Moka(moka)),
        Box::new(Foyer(foyer)),
    ]
}

/// The keys of one thread's loop.
fn keys(zipf: Option<&Zipf>, scattered: &[u32], seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..HITS)
        .map(|_| match zipf {
            Some(zipf) => scattered[zipf.sample(&mut rng) as usize],
            None => scattered[rng.below(scattered.len())],
        })
        .collect()
}

/// Mean nanoseconds a hit of each run, sorted, and the lookups that were no hit.
fn alone(cache: &dyn Contender, keys: &[u32]) -> (Vec<f64>, usize) {
    let mut misses = 0;
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            misses += keys.iter().filter(|&&key| !cache.hit(key)).count();
            start.elapsed().as_nanos() as f64 / keys.len() as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    (runs, misses)
}

/// Nanoseconds of each hit of all threads, sorted, with the clock's cost in them.
fn together(cache: &dyn Contender, keys: &[Vec<u32>]) -> Vec<u64> {
    let start = Barrier::new(keys.len());
    let mut times: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = keys
            .iter()
            .map(|keys| {
                scope.spawn(|| {
                    start.wait();
                    let timed = |&key| {
                        let start = Instant::now();
                        black_box(cache.hit(key));
                        start.elapsed().as_nanos() as u64
                    };
                    keys.iter().map(timed).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("it only reads"))
            .collect()
    });
    times.sort_unstable();
    times
}

/// The median cost of timing nothing.
fn clock_cost() -> u64 {
    let mut times: Vec<u64> = (0..100_000)
        .map(|_| {
            let start = Instant::now();
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let (mut entries, mut threads) = (1_000_000_usize, 8_usize);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = arguments
            .next()
            .and_then(|n| n.parse().ok())
            .filter(|&n| n > 0);
        match (argument.as_str(), number) {
            ("--entries", Some(n)) => entries = n,
            ("--threads", Some(n)) => threads = n,
            _ => {
                eprintln!("hit_cost [--entries N] [--threads N]");
                std::process::exit(2);
            }
        }
    }

    let clock = clock_cost();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("ns a hit, {entries} entries, {cores} cores; the clock costs {clock} ns (taken off).");
    print!(
        "{:14}{:10}{:>10}{:>10}",
        "cache", "keys", "1 best", "1 median"
    );
    println!(
        "{:>12}{:>12}",
        format!("{threads} median"),
        format!("{threads} P99")
    );
    let mut scattered: Vec<u32> = (0..entries as u32).collect();
    Rng::new(7).shuffle(&mut scattered);
    let zipf = Zipf::new(entries, 0.99);
    let contenders = contenders(entries);
    for (name, zipf) in [("zipf .99", Some(&zipf)), ("uniform", None)] {
        let keys: Vec<_> = (0..threads as u64)
            .map(|seed| keys(zipf, &scattered, seed))
            .collect();
        for cache in &contenders {
            let (runs, misses) = alone(cache.as_ref(), &keys[0]);
            let times = together(cache.as_ref(), &keys);
            let at = |part: f64| times[(times.len() as f64 * part) as usize].saturating_sub(clock);
            print!(
                "{:14}{name:10}{:10.1}{:10.1}",
                cache.name(),
                runs[0],
                runs[RUNS / 2]
            );
            print!("{:12}{:12}", at(0.5), at(0.99));
            println!(
                "{}",
                if misses > 0 {
                    format!("   {misses} misses")
                } else {
                    String::new()
                }
            );
        }
    }
}
