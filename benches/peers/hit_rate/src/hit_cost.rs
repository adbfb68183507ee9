//! Nanoseconds of a hit in caches that hold everything they are asked for: ours through Rust and
//! through the C functions, and others.
//!
//!     hit_cost [--entries 1000000] [--threads 8] [--rounds 5]
//!
//! A hit of ours pins a page and releases it; the page is 4 KiB on the host device and is not
//! touched. What the others hold is what a pin would be there: an `Arc` of a page's address and
//! size, cloned by the hit and dropped after use.
//!
//! In each round every cache has its turn, first with one thread, then with all: the mean of a loop
//! of hits, then each hit timed on its own. The table has the median of the rounds' means and the
//! percentiles of all rounds, which have the clock's cost in them. Two atomic additions at a known
//! place of a table as large as ours are the limit. More threads than cores measure the scheduler
//! too. Needs only the C library to run.

#[allow(dead_code)]
mod traces;

#[path = "ours_cached.rs"]
mod ours;

use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use traces::{Rng, Zipf};

/// Hits of one loop.
const HITS: usize = 1_000_000;

/// A cache under test. A new one needs this trait and a line in [`contenders`].
pub trait Contender: Sync {
    fn name(&self) -> &'static str;

    /// Looks `key` up as a user would, uses the value, and lets it go. True on a hit.
    fn hit(&self, key: u32) -> bool;
}

/// Where a page is, as others would hold it.
struct Place {
    address: u64,
    size: u32,
}

fn used(place: &Place) {
    black_box((place.address, place.size));
}

struct Quick(quick_cache::sync::Cache<u32, Arc<Place>>);

impl Contender for Quick {
    fn name(&self) -> &'static str {
        "quick_cache"
    }

    fn hit(&self, key: u32) -> bool {
        self.0.get(&key).map(|place| used(&place)).is_some()
    }
}

struct Moka(moka::sync::Cache<u32, Arc<Place>>);

impl Contender for Moka {
    fn name(&self) -> &'static str {
        "moka"
    }

    fn hit(&self, key: u32) -> bool {
        self.0.get(&key).map(|place| used(&place)).is_some()
    }
}

struct Foyer(foyer_memory::Cache<u32, Arc<Place>>);

impl Contender for Foyer {
    fn name(&self) -> &'static str {
        "foyer"
    }

    fn hit(&self, key: u32) -> bool {
        self.0
            .get(&key)
            .map(|entry| used(&entry.value().clone()))
            .is_some()
    }
}

/// What no cache of pins can be under: two atomic additions to the word of a key, which is known
/// to be where its hash says, in a table as large as ours.
struct Words(Vec<[AtomicU64; 2]>);

impl Words {
    fn new(entries: usize) -> Self {
        let count = (entries * 4).div_ceil(3);
        let mut words: Vec<[AtomicU64; 2]> = Vec::with_capacity(count);
        // Before it is touched: huge pages, as our table has them. A refusal costs page walks only.
        // SAFETY: advice on the vector's own memory, which it rounds to whole pages inside of it.
        unsafe {
            let first = words.as_mut_ptr().cast::<u8>();
            let up = first.align_offset(4096);
            let bytes = (count * 16).saturating_sub(4096);
            libc::madvise(first.add(up).cast(), bytes, libc::MADV_HUGEPAGE);
        }
        words.resize_with(count, Default::default);
        Self(words)
    }
}

impl Contender for Words {
    fn name(&self) -> &'static str {
        "two atomics"
    }

    fn hit(&self, key: u32) -> bool {
        let hash = u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let [word, at] = &self.0[((hash * self.0.len() as u64) >> 32) as usize];
        word.fetch_add(1, AcqRel);
        black_box(at.load(Relaxed));
        word.fetch_sub(1, Release);
        true
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
        let place = || {
            Arc::new(Place {
                address: u64::from(key) << 12,
                size: 4096,
            })
        };
        quick.insert(key, place());
        moka.insert(key, place());
        foyer.insert(key, place());
    }
    moka.run_pending_tasks();
    let (rust, c) = ours::open(entries);
    vec![
        Box::new(rust),
        Box::new(c),
        Box::new(Quick(quick)),
        Box::new(Moka(moka)),
        Box::new(Foyer(foyer)),
        Box::new(Words::new(entries)),
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

/// What some threads measured.
#[derive(Default)]
struct Found {
    /// Mean nanoseconds a hit and thread, of each round.
    means: Vec<f64>,
    /// Nanoseconds of single hits, with the clock's cost in them.
    single: Vec<u32>,
    misses: usize,
}

impl Found {
    /// One round of as many threads as there are lists of keys.
    fn round(&mut self, cache: &dyn Contender, keys: &[Vec<u32>]) {
        let start = Barrier::new(keys.len());
        let work = |keys: &Vec<u32>| {
            start.wait();
            let began = Instant::now();
            let misses = keys.iter().filter(|&&key| !cache.hit(key)).count();
            let whole = began.elapsed().as_nanos() as f64 / keys.len() as f64;
            start.wait();
            let timed = |&key| {
                let began = Instant::now();
                black_box(cache.hit(key));
                u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX)
            };
            (misses, whole, keys.iter().map(timed).collect::<Vec<_>>())
        };
        let mut mean = 0.0;
        std::thread::scope(|scope| {
            let threads: Vec<_> = keys.iter().map(|keys| scope.spawn(|| work(keys))).collect();
            for thread in threads {
                let (misses, whole, single) = thread.join().expect("it only reads");
                self.misses += misses;
                self.single.extend(single);
                mean += whole / keys.len() as f64;
            }
        });
        self.means.push(mean);
    }

    fn mean(&mut self) -> f64 {
        self.means.sort_by(f64::total_cmp);
        self.means[self.means.len() / 2]
    }

    fn at(&self, part: f64) -> u32 {
        self.single[((self.single.len() - 1) as f64 * part) as usize]
    }
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

struct Settings {
    entries: usize,
    threads: usize,
    rounds: usize,
}

fn settings() -> Settings {
    let mut settings = Settings {
        entries: 1_000_000,
        threads: 8,
        rounds: 5,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|n| n.parse().ok());
        match (argument.as_str(), number) {
            ("--entries", Some(n @ 1..=100_000_000)) => settings.entries = n,
            ("--threads", Some(n @ 1..=1024)) => settings.threads = n,
            ("--rounds", Some(n @ 1..=1000)) => settings.rounds = n,
            _ => {
                eprintln!("hit_cost [--entries N] [--threads N] [--rounds N]");
                std::process::exit(2);
            }
        }
    }
    settings
}

fn main() {
    let Settings {
        entries,
        threads,
        rounds,
    } = settings();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "ns a hit and release, {entries} entries, {rounds} rounds in turns, {cores} cores; the \
         clock takes {} ns, which are in the percentiles",
        clock_cost()
    );
    println!(
        "{:12}{:10}{:>8}{:>10}{:>8}{:>8}{:>8}",
        "cache", "keys", "threads", "mean", "P50", "P99", "P99.9"
    );
    let mut scattered: Vec<u32> = (0..entries as u32).collect();
    Rng::new(7).shuffle(&mut scattered);
    let zipf = Zipf::new(entries, 0.99);
    let contenders = contenders(entries);
    let mut counts = vec![1, threads];
    counts.dedup();
    for (name, zipf) in [("zipf .99", Some(&zipf)), ("uniform", None)] {
        let keys: Vec<_> = (0..threads as u64)
            .map(|seed| keys(zipf, &scattered, seed))
            .collect();
        for &threads in &counts {
            let mut found: Vec<Found> = contenders.iter().map(|_| Found::default()).collect();
            for round in 0..rounds {
                for turn in 0..contenders.len() {
                    let at = (round + turn) % contenders.len();
                    found[at].round(contenders[at].as_ref(), &keys[..threads]);
                }
            }
            for (cache, found) in contenders.iter().zip(&mut found) {
                found.single.sort_unstable();
                print!("{:12}{name:10}{threads:8}", cache.name());
                print!("{:10.1}{:8}", found.mean(), found.at(0.5));
                print!("{:8}{:8}", found.at(0.99), found.at(0.999));
                match found.misses {
                    0 => println!(),
                    misses => println!("   {misses} misses"),
                }
            }
        }
    }
}
