//! `gds bench cache`: the page cache over a real file: what a hit costs, misses a second, and the
//! hits of named orders of access, each beside what bounds it or does the same plainly.

mod measure;
mod traces;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

pub(in crate::cli) use measure::Setup;
use measure::{HitCost, HitRate, MissRate};
pub(in crate::cli) use traces::working_set;

use super::super::output::{Outcome, count_text, say, say_json, size_text};
use super::super::{Global, parse_offset, parse_size, usage};
use super::{Bench, Cache as Storage, parse_seconds, report};
use crate::cache::{CacheConfig, PolicyKind};

/// Arguments of `gds bench cache`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CacheArgs {
    /// The file to cache; it is only read
    file: PathBuf,
    /// What makes room: dueling, clock or lru
    #[arg(long, value_parser = parse_policy, default_value = "dueling")]
    policy: PolicyKind,
    /// Bytes of a page: a power of two, 4K to 2M
    #[arg(long, value_parser = parse_size, default_value = "4K")]
    page: u64,
    /// Bytes of the device tier
    #[arg(long, value_parser = parse_size, default_value = "64M")]
    device_bytes: u64,
    /// Bytes of the tier of pinned host memory below it
    #[arg(long, value_parser = parse_offset, default_value = "0")]
    host_bytes: u64,
    /// Threads, besides one alone
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Runs of each measurement
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Longest run of misses, seconds
    #[arg(long, value_parser = parse_seconds, default_value = "1")]
    seconds: f64,
}

/// All that was measured.
struct Found {
    hits: Vec<HitCost>,
    misses: Vec<MissRate>,
    traces: Vec<HitRate>,
    trace_frames: u64,
}

pub(in crate::cli) fn run(global: &Global, args: &CacheArgs) -> Outcome {
    let page_size = u32::try_from(args.page)
        .map_err(|_| usage(format!("--page {} is too large", size_text(args.page))))?;
    let config = CacheConfig {
        page_size,
        device_bytes: args.device_bytes,
        host_bytes: args.host_bytes,
        policy: args.policy,
        ..CacheConfig::default()
    };
    config.validate()?;
    let context = global.context()?;
    let bench = Bench::new(&context, &args.file, None)?;
    let setup = Setup {
        bench: &bench,
        config,
        threads: args.threads,
        runs: args.runs,
        seconds: args.seconds,
    };
    if !global.json {
        say(report::heading(&bench, args.runs))?;
        say(format_args!(
            "pages of {}, {} of device memory, {} of host memory, policy {}",
            size_text(args.page),
            size_text(args.device_bytes),
            size_text(args.host_bytes),
            args.policy.name()
        ))?;
    }
    let found = measure(global, &setup)?;
    if global.json {
        return say_json(&to_json(&setup, &found));
    }
    Ok(())
}

/// Measures, and says each figure as soon as it is known.
fn measure(global: &Global, setup: &Setup<'_>) -> Outcome<Found> {
    let tell = |line: String| match global.json {
        true => Ok(()),
        false => say(line),
    };
    let hits = setup.hits()?;
    for hit in &hits {
        let what = format!("hit and release, x{}", hit.threads);
        tell(format!(
            "{what:<28} {:>10.1} ns  one by one: p50 {} p99 {} p99.9 {} ns, of which the clock {}",
            hit.mean_ns, hit.single.p50_ns, hit.single.p99_ns, hit.single.p999_ns, hit.clock.p50_ns
        ))?;
        let plain = "  plain: HashMap in a Mutex";
        tell(format!("{plain:<28} {:>10.1} ns", hit.plain_ns))?;
    }
    let mut misses = Vec::new();
    for storage in [Storage::Warm, Storage::Cold] {
        let miss = setup.misses(storage)?;
        let what = format!("misses, {} file, x{}", storage_text(storage), miss.threads);
        let rate = count_text(miss.pages_per_second);
        tell(format!("{what:<28} {rate:>10} pages/s"))?;
        for limit in &miss.limits {
            let name = format!("  limit: {}", limit.name);
            let rate = count_text(limit.iops);
            tell(format!("{name:<28} {rate:>10} pages/s"))?;
        }
        misses.push(miss);
    }
    let trace_frames = setup.trace_frames();
    tell(format!(
        "traces over {} pages of the file, cache of {trace_frames} pages:",
        setup.pages()
    ))?;
    let mut rates = Vec::new();
    for trace in traces::all(trace_frames, setup.pages()) {
        let rate = setup.replay(&trace)?;
        tell(format!(
            "  {:<26} {:>8.1} % hits of at most {:.1} %  {:>8} accesses/s",
            rate.name,
            rate.rate * 100.0,
            rate.bound * 100.0,
            count_text(rate.accesses as f64 / rate.seconds.max(1e-9))
        ))?;
        rates.push(rate);
    }
    Ok(Found {
        hits,
        misses,
        traces: rates,
        trace_frames,
    })
}

fn parse_policy(text: &str) -> Result<PolicyKind, String> {
    let known = PolicyKind::ALL.iter().find(|kind| kind.name() == text);
    known
        .copied()
        .ok_or_else(|| "a policy is dueling, clock or lru".to_owned())
}

fn storage_text(storage: Storage) -> &'static str {
    match storage {
        Storage::Cold => "cold",
        Storage::Warm => "warm",
    }
}

fn to_json(setup: &Setup<'_>, found: &Found) -> Value {
    let (bench, config) = (setup.bench, &setup.config);
    let hits = found.hits.iter().map(|hit| {
        json!({
            "threads": hit.threads,
            "resident": hit.resident,
            "ns": hit.mean_ns,
            "single_ns": {
                "p50": hit.single.p50_ns,
                "p99": hit.single.p99_ns,
                "p99.9": hit.single.p999_ns,
            },
            "clock_ns": { "p50": hit.clock.p50_ns, "p99": hit.clock.p99_ns },
            "plain_ns": hit.plain_ns,
            "plain": "HashMap in a Mutex",
        })
    });
    let misses = found.misses.iter().map(|miss| {
        let limits = miss.limits.iter();
        let limits = limits.map(|l| json!({ "name": l.name, "pages_per_second": l.iops }));
        json!({
            "cache": storage_text(miss.storage),
            "threads": miss.threads,
            "pages_per_second": miss.pages_per_second,
            "limits": limits.collect::<Vec<_>>(),
        })
    });
    let traces = found.traces.iter().map(|trace| {
        json!({
            "name": trace.name,
            "accesses": trace.accesses,
            "hit_rate": trace.rate,
            "bound": trace.bound,
            "seconds": trace.seconds,
            "host_hits": trace.host_hits,
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "file": bench.path().to_string_lossy(),
        "file_system": bench.file_system(),
        "size": bench.size(),
        "device": bench.context().device().info().name,
        "policy": config.policy.name(),
        "page_bytes": config.page_size,
        "device_bytes": config.device_bytes,
        "host_bytes": config.host_bytes,
        "hits": hits.collect::<Vec<_>>(),
        "misses": misses.collect::<Vec<_>>(),
        "trace_frames": found.trace_frames,
        "traces": traces.collect::<Vec<_>>(),
    })
}
