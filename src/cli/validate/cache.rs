//! Rows of the page cache: what a hit costs, misses a second, the hit rate of a working set.

use std::fs::File as StdFile;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::bench::cache::{Setup, working_set};
use super::super::bench::{Bench, Cache as Storage};
use super::super::output::{Outcome, os_error};
use super::ValidateArgs;
use super::finding::{Finding, Unit};
use crate::cache::CacheConfig;
use crate::cache::array::{ArrayConfig, ask};
use crate::cli::scratch::mix;
use crate::error::{Error, ErrorKind};
use crate::io::OpenMode;

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
/// Pages that an array is asked for in a run, at most.
const ARRAY_PAGES: u64 = 1 << 20;
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

/// Pages that threads of the host ask for as kernels do, through the rings of an array.
pub(super) fn array(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let file = bench
        .context()
        .open_file(bench.path(), OpenMode::read_only())?;
    let whole = bench.size() / u64::from(PAGE);
    let setup = setup(bench, args, SMALL_BYTES);
    let limits = setup.misses(Storage::Warm)?.limits;
    let best = limits.iter().max_by(|a, b| a.iops.total_cmp(&b.iops));
    let pages: Vec<u64> = (0..whole.min(ARRAY_PAGES))
        .map(|i| mix(i) % whole)
        .collect();
    let config = ArrayConfig {
        page_bytes: PAGE,
        device_bytes: SMALL_BYTES,
        service_threads: THREADS,
        ..ArrayConfig::default()
    };
    let firsts = first_words(bench.path(), whole)?;
    let mut rates = Vec::new();
    for _ in 0..args.runs {
        bench.set_cache(Storage::Warm)?;
        let asked = ask(&file, config, &pages, |page, first| {
            firsts.get(page as usize) == Some(&first)
        })?;
        rates.push(asked.pages as f64 / asked.seconds.max(1e-9));
    }
    rates.sort_by(f64::total_cmp);
    let Some(median) = rates.get(rates.len() / 2) else {
        return Err(Error::new(ErrorKind::InvalidArgument, "no runs were asked for").into());
    };
    Ok(vec![Finding {
        name: "array pages a second, 4 KiB",
        unit: Unit::PagesPerSecond,
        target: MISSES,
        measured: *median,
        limit: best.map(|limit| (limit.iops, limit.name.clone())),
        path: format!("{THREADS} threads ask as kernels do, each page compared"),
    }])
}

/// The first 8 bytes of each page, by a plain read.
fn first_words(path: &Path, pages: u64) -> Outcome<Vec<u64>> {
    let failed = |e| os_error(&e, format!("read {}", path.display()));
    let file = StdFile::open(path).map_err(failed)?;
    let mut words = Vec::new();
    for page in 0..pages {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, page * u64::from(PAGE))
            .map_err(failed)?;
        words.push(u64::from_le_bytes(word));
    }
    Ok(words)
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
