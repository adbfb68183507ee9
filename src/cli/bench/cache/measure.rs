//! What a cache gives: the cost of hits, misses a second, hits of a trace.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::super::output::Outcome;
use super::super::super::scratch::mix;
use super::super::limit::{self, Limit};
use super::super::{Bench, Case, Pattern};
use super::super::{Cache as Storage, case};
use super::traces::Trace;
use crate::cache::{Cache, CacheConfig};
use crate::config::PathPolicy;
use crate::device::MemoryKind;
use crate::engine::File;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{OpenMode, Operation};
use crate::metrics::{Histogram, Latency};

/// Hits of one thread and run, in a loop; each is timed on its own afterwards.
const HITS: usize = 1 << 18;

/// What hits cost some threads.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct HitCost {
    pub(in crate::cli) threads: u32,
    /// Nanoseconds of a get and its release, in a loop; the median run.
    pub(in crate::cli) mean_ns: f64,
    /// Single ones, with the cost of reading the clock in them.
    pub(in crate::cli) single: Latency,
    /// The same for a `HashMap` behind a `Mutex`, a count in each entry.
    pub(in crate::cli) plain_ns: f64,
    /// Timing nothing.
    pub(in crate::cli) clock: Latency,
    /// Pages that were there.
    pub(in crate::cli) resident: u64,
}

/// Misses a second.
#[derive(Debug, Clone)]
pub(in crate::cli) struct MissRate {
    pub(in crate::cli) storage: Storage,
    pub(in crate::cli) threads: u32,
    pub(in crate::cli) pages_per_second: f64,
    /// Plain reads of the same pages to host memory.
    pub(in crate::cli) limits: Vec<Limit>,
}

/// Hits of a trace.
#[derive(Debug, Clone)]
pub(in crate::cli) struct HitRate {
    pub(in crate::cli) name: &'static str,
    pub(in crate::cli) accesses: usize,
    /// Of 1.
    pub(in crate::cli) rate: f64,
    pub(in crate::cli) bound: f64,
    pub(in crate::cli) seconds: f64,
    /// Misses that host memory served.
    pub(in crate::cli) host_hits: u64,
}

/// A cache over the file of a benchmark.
pub(in crate::cli) struct Setup<'a> {
    pub(in crate::cli) bench: &'a Bench<'a>,
    pub(in crate::cli) config: CacheConfig,
    pub(in crate::cli) threads: u32,
    pub(in crate::cli) runs: u32,
    /// Longest run of misses.
    pub(in crate::cli) seconds: f64,
}

impl Setup<'_> {
    fn open(&self, config: CacheConfig) -> Result<(Cache, File)> {
        let context = self.bench.context();
        let file = context.open_file(self.bench.path(), OpenMode::read_only())?;
        Ok((Cache::open(context, config)?, file))
    }

    pub(in crate::cli) fn pages(&self) -> u64 {
        self.bench.size().div_ceil(u64::from(self.config.page_size))
    }

    /// The cost of hits of one thread and of all, on pages of the file that are resident.
    pub(in crate::cli) fn hits(&self) -> Outcome<Vec<HitCost>> {
        let (cache, file) = self.open(self.config.clone())?;
        let page = u64::from(self.config.page_size);
        cache.warm(&file, &[(0, self.bench.size())])?;
        let resident: Vec<u64> = cache
            .hot_ranges(&file)
            .into_iter()
            .flat_map(|(offset, size)| (offset..offset + size).step_by(page as usize))
            .collect();
        if resident.is_empty() {
            let text = "no page of the file is resident; give the cache more memory";
            return Err(Error::new(ErrorKind::AllPinned, text).into());
        }
        let entries = resident.iter().map(|offset| (*offset, (*offset, 0)));
        let plain: Mutex<HashMap<u64, (u64, u32)>> = Mutex::new(entries.collect());
        let ours = |offset| {
            let page = cache.try_get(&file, offset);
            page.map(|page| black_box(page.address())).is_some()
        };
        // Finds, counts a holder, and counts it down again, each under the lock.
        let lock = || plain.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = |offset| {
            let Some(address) = lock().get_mut(&offset).map(|entry| {
                entry.1 += 1;
                entry.0
            }) else {
                return false;
            };
            black_box(address);
            lock().get_mut(&offset).map(|entry| entry.1 -= 1).is_some()
        };
        let mut counts = vec![1, self.threads];
        counts.dedup();
        let mut found = Vec::new();
        for threads in counts {
            let lists: Vec<Vec<u64>> = (0..u64::from(threads))
                .map(|thread| pick(&resident, thread))
                .collect();
            let (single, clock) = (Histogram::default(), Histogram::default());
            let (mut means, mut plains) = (Vec::new(), Vec::new());
            for _ in 0..self.runs {
                means.push(hit_run(&lists, &ours, Some(&single))?);
                plains.push(hit_run(&lists, &theirs, None)?);
                hit_run(&lists, &|_| true, Some(&clock))?;
            }
            found.push(HitCost {
                threads,
                mean_ns: median(means),
                single: single.summary(),
                plain_ns: median(plains),
                clock: clock.summary(),
                resident: resident.len() as u64,
            });
        }
        Ok(found)
    }

    /// Misses a second of all threads: each page once, shuffled, in turns with plain reads.
    pub(in crate::cli) fn misses(&self, storage: Storage) -> Outcome<MissRate> {
        let page = u64::from(self.config.page_size);
        let case = Case {
            operation: Operation::Read,
            pattern: Pattern::Rand,
            block: page.min(self.bench.size()),
            depth: 1,
            threads: self.threads,
            policy: PathPolicy::Auto,
            cache: storage,
            memory: MemoryKind::Device,
            batch: 1,
            seconds: Some(self.seconds),
            sync: true,
        };
        let offsets = case.positions(self.bench.size());
        let (mut rates, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            self.bench.set_cache(storage)?;
            rates.push(self.miss_run(&offsets)?);
            limit::merge(&mut limits, limit::measure(self.bench, &case)?);
        }
        limits.iter_mut().for_each(Limit::settle);
        Ok(MissRate {
            storage,
            threads: self.threads,
            pages_per_second: median(rates),
            limits,
        })
    }

    fn miss_run(&self, offsets: &[u64]) -> Result<f64> {
        let (cache, file) = self.open(self.config.clone())?;
        let until = Duration::from_secs_f64(self.seconds);
        let (next, barrier) = (AtomicU64::new(0), Barrier::new(self.threads as usize + 1));
        let work = || {
            barrier.wait();
            let began = Instant::now();
            while began.elapsed() < until {
                let at = next.fetch_add(1, Relaxed) as usize;
                let Some(offset) = offsets.get(at) else {
                    break;
                };
                cache.get(&file, *offset)?;
            }
            Ok(())
        };
        let began = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(work)).collect();
            barrier.wait();
            let began = Instant::now();
            for thread in threads {
                thread.join().map_err(|_| stopped())??;
            }
            Ok::<_, Error>(began)
        })?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(cache.stats().misses as f64 / seconds.max(1e-9))
    }

    /// Pages of a cache for traces: all, or what leaves room in the file for pages that are not
    /// there.
    pub(in crate::cli) fn trace_frames(&self) -> u64 {
        let frames = self.config.device_bytes / u64::from(self.config.page_size);
        frames.min(self.pages() / 2).max(1)
    }

    /// Hits of a trace through a fresh cache of `trace_frames` pages, one access after the other.
    pub(in crate::cli) fn replay(&self, trace: &Trace) -> Outcome<HitRate> {
        let page = u64::from(self.config.page_size);
        let (cache, file) = self.open(CacheConfig {
            device_bytes: self.trace_frames() * page,
            ..self.config.clone()
        })?;
        self.bench.set_cache(case::Cache::Warm)?;
        let began = Instant::now();
        for number in &trace.accesses {
            cache.get(&file, number * page)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let stats = cache.stats();
        Ok(HitRate {
            name: trace.name,
            accesses: trace.accesses.len(),
            rate: stats.hits as f64 / trace.accesses.len().max(1) as f64,
            bound: trace.bound(stats.frames),
            seconds,
            host_hits: stats.host_hits,
        })
    }
}

/// Offsets to look up, uniform over what is resident.
fn pick(resident: &[u64], thread: u64) -> Vec<u64> {
    let choose = |i| mix(thread << 32 | i) as usize % resident.len();
    (0..HITS as u64).map(|i| resident[choose(i)]).collect()
}

/// Nanoseconds a hit and thread of one run.
fn hit_run(
    lists: &[Vec<u64>],
    hit: &(impl Fn(u64) -> bool + Sync),
    single: Option<&Histogram>,
) -> Result<f64> {
    let barrier = Barrier::new(lists.len());
    let work = |offsets: &[u64]| {
        barrier.wait();
        let began = Instant::now();
        let hits = offsets.iter().filter(|offset| hit(**offset)).count();
        let whole = began.elapsed();
        barrier.wait();
        if let Some(single) = single {
            for offset in offsets {
                let began = Instant::now();
                black_box(hit(*offset));
                single.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
        (hits == offsets.len()).then_some(whole)
    };
    let mut total = Duration::ZERO;
    std::thread::scope(|scope| {
        let threads: Vec<_> = lists.iter().map(|l| scope.spawn(|| work(l))).collect();
        for thread in threads {
            let whole = thread.join().map_err(|_| stopped())?;
            total += whole.ok_or_else(|| {
                let text = "a resident page went while hits were measured; report this";
                Error::new(ErrorKind::Internal, text)
            })?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(total.as_nanos() as f64 / (lists.len() * HITS) as f64)
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a thread of the benchmark stopped; report this",
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
