//! Rows of the page cache: what a hit costs, misses a second, the hit rate of a working set.

use super::super::bench::cache::{Setup, working_set};
use super::super::bench::{Bench, Cache as Storage};
use super::super::output::Outcome;
use super::ValidateArgs;
use super::finding::{Finding, Unit};
use crate::cache::CacheConfig;

/// A hit and its release, nanoseconds: our own goal, and that of the specification (storage crate,
/// typical performance), which holds for nearly all of them and for many threads too.
const OWN_HIT_NS: f64 = 40.0;
const HIT_NS: f64 = 100.0;
/// Hits of a working set that fits, percent (summary of GPU storage, targets).
const HIT_RATE: f64 = 95.0;
/// Hits of hot data, percent (agent storage, good practice).
const HIT_RATE_HOT: f64 = 90.0;
/// Misses a second, pages of 4 KiB in the page cache of the kernel: our own goal, from the rate of
/// operations of the specification.
const MISSES: f64 = 1e6;

/// Bytes of a page.
const PAGE: u32 = 4096;
const THREADS: u32 = 8;
/// Memory of the device tier: for hits, so that a million pages can be resident, and for the
/// others, which are to have more in the file than in memory.
const HITS_BYTES: u64 = 5 << 30;
const SMALL_BYTES: u64 = 16 << 20;

fn setup<'a>(bench: &'a Bench<'a>, args: &ValidateArgs, device_bytes: u64) -> Setup<'a> {
    Setup {
        bench,
        config: CacheConfig {
            page_size: PAGE,
            device_bytes,
            ..CacheConfig::default()
        },
        threads: THREADS,
        runs: args.runs,
        seconds: args.seconds,
    }
}

pub(super) fn hits(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    // Shards differ in how many of the pages they get.
    let wanted = bench.size() + bench.size() / 8 + (1 << 20);
    let found = setup(bench, args, wanted.min(HITS_BYTES)).hits()?;
    let mut findings = Vec::new();
    for hit in found {
        let (many, pages) = (hit.threads > 1, hit.resident);
        let path = format!("{pages} pages resident, p99 has the clock in it");
        let finding = |name, target, measured, limit| Finding {
            name,
            unit: Unit::Nanoseconds,
            target,
            measured,
            limit: Some(limit),
            path: path.clone(),
        };
        let plain = (hit.plain_ns, "a HashMap in a Mutex".to_owned());
        let p99 = hit.single.p99_ns as f64;
        let clock = (hit.clock.p99_ns as f64, "timing nothing".to_owned());
        if many {
            findings.push(finding("cache hit, 8 threads, p99", HIT_NS, p99, clock));
        } else {
            let mean = hit.mean_ns;
            findings.push(finding("cache hit, mean", OWN_HIT_NS, mean, plain));
            findings.push(finding("cache hit, p99", HIT_NS, p99, clock));
        }
    }
    Ok(findings)
}

pub(super) fn misses(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let found = setup(bench, args, SMALL_BYTES).misses(Storage::Warm)?;
    let limits = found.limits.iter();
    let best = limits.max_by(|a, b| a.iops.total_cmp(&b.iops));
    Ok(vec![Finding {
        name: "cache misses a second, 4 KiB",
        unit: Unit::PagesPerSecond,
        target: MISSES,
        measured: found.pages_per_second,
        limit: best.map(|limit| (limit.iops, limit.name.clone())),
        path: format!("{} threads, file in the page cache", found.threads),
    }])
}

pub(super) fn hit_rate(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let setup = setup(bench, args, SMALL_BYTES);
    let frames = setup.trace_frames();
    let found = setup.replay(&working_set(frames, setup.pages()))?;
    let finding = |name, target| Finding {
        name,
        unit: Unit::Percent,
        target,
        measured: found.rate * 100.0,
        limit: Some((found.bound * 100.0, "Belady's bound".to_owned())),
        path: format!("{} accesses, {frames} pages of memory", found.accesses),
    };
    Ok(vec![
        finding("cache hits, working set", HIT_RATE),
        finding("cache hits, hot data", HIT_RATE_HOT),
    ])
}
