//! Rows of transfers: large ones in sequence, small ones at random.

use super::super::bench::{Bench, Cache, Case, Limit, Pattern, Summary, measure_by_turns};
use super::super::output::Outcome;
use super::ValidateArgs;
use super::finding::{Finding, Unit};
use crate::config::PathPolicy;
use crate::device::MemoryKind;
use crate::io::Operation;
use crate::metrics::{
    TARGET_LATENCY_US, TARGET_READ_BYTES_PER_SECOND, TARGET_WRITE_BYTES_PER_SECOND,
};

/// Sequential reads, GB/s (specification, benchmarks).
const TARGET_SEQUENTIAL_READ: f64 = 12.5;
/// Sequential writes, GB/s (specification, benchmarks).
const TARGET_SEQUENTIAL_WRITE: f64 = 10.0;
/// Mean latency of a 4 KiB aligned read, microseconds (specification, benchmarks).
const TARGET_MEAN_US: f64 = 10.0;
/// Operations a second (specification, benchmarks).
const TARGET_IOPS: f64 = 1e6;

fn sequential(bench: &Bench<'_>, operation: Operation, cache: Cache) -> Case {
    Case {
        operation,
        pattern: Pattern::Seq,
        // The engine divides a transfer among its threads itself; two in flight leave no gap.
        block: (64 << 20).min(bench.size() / 2).max(1),
        depth: 2,
        threads: 1,
        policy: PathPolicy::Auto,
        cache,
        memory: MemoryKind::Device,
        batch: 1,
        seconds: None,
        sync: true,
    }
}

/// Runs a case and its limits by turns.
fn run_case(bench: &Bench<'_>, case: &Case, args: &ValidateArgs) -> Outcome<(Summary, Vec<Limit>)> {
    let prepared = bench.prepare(case)?;
    Ok(measure_by_turns(bench, &prepared, case, args.runs, true)??)
}

fn best(limits: &[Limit], of: impl Fn(&Limit) -> f64) -> Option<(f64, String)> {
    limits
        .iter()
        .map(|limit| (of(limit), limit.name.clone()))
        .max_by(|a, b| a.0.total_cmp(&b.0))
}

fn throughput(
    bench: &Bench<'_>,
    case: &Case,
    args: &ValidateArgs,
    targets: &[(&'static str, f64)],
) -> Outcome<Vec<Finding>> {
    let (summary, limits) = run_case(bench, case, args)?;
    let limit = best(&limits, |l| l.rate);
    let finding = |(name, target): &(&'static str, f64)| Finding {
        name,
        unit: Unit::GigabytesPerSecond,
        target: *target,
        measured: summary.median.rate(),
        limit: limit.clone(),
        path: summary.median.totals.path_text(),
    };
    Ok(targets.iter().map(finding).collect())
}

pub(super) fn read_cold(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let case = sequential(bench, Operation::Read, Cache::Cold);
    let targets = [
        ("sustained read, disk", TARGET_READ_BYTES_PER_SECOND / 1e9),
        ("sequential read, disk", TARGET_SEQUENTIAL_READ),
    ];
    throughput(bench, &case, args, &targets)
}

pub(super) fn read_warm(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let case = sequential(bench, Operation::Read, Cache::Warm);
    let targets = [
        (
            "sustained read, page cache",
            TARGET_READ_BYTES_PER_SECOND / 1e9,
        ),
        ("sequential read, page cache", TARGET_SEQUENTIAL_READ),
    ];
    throughput(bench, &case, args, &targets)
}

pub(super) fn write_durable(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let case = sequential(bench, Operation::Write, Cache::Cold);
    let targets = [
        (
            "sustained write, durable",
            TARGET_WRITE_BYTES_PER_SECOND / 1e9,
        ),
        ("sequential write, durable", TARGET_SEQUENTIAL_WRITE),
    ];
    throughput(bench, &case, args, &targets)
}

pub(super) fn write_cached(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let mut case = sequential(bench, Operation::Write, Cache::Warm);
    case.policy = PathPolicy::Buffered;
    case.sync = false;
    let targets = [("sequential write, page cache", TARGET_SEQUENTIAL_WRITE)];
    throughput(bench, &case, args, &targets)
}

fn small(args: &ValidateArgs, cache: Cache, batch: u32, depth: u32) -> Case {
    Case {
        operation: Operation::Read,
        pattern: Pattern::Rand,
        block: 4096,
        depth,
        threads: 1,
        policy: PathPolicy::Auto,
        cache,
        memory: MemoryKind::Device,
        batch,
        seconds: Some(args.seconds),
        sync: true,
    }
}

pub(super) fn latency(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for (cache, tail, mean) in [
        (
            Cache::Cold,
            "4 KiB read, disk, p99",
            "4 KiB read, disk, mean",
        ),
        (
            Cache::Warm,
            "4 KiB read, page cache, p99",
            "4 KiB read, page cache, mean",
        ),
    ] {
        let (summary, limits) = run_case(bench, &small(args, cache, 1, 1), args)?;
        let found = &summary.median;
        // Only the plain loop measured single operations.
        let plain = limits.iter().find(|l| l.latency.max_ns > 0);
        for (name, target, ours, limit) in [
            (
                tail,
                TARGET_LATENCY_US,
                found.latency.p99_ns,
                plain.map(|l| l.latency.p99_ns),
            ),
            (
                mean,
                TARGET_MEAN_US,
                found.latency.mean_ns,
                plain.map(|l| l.latency.mean_ns),
            ),
        ] {
            findings.push(Finding {
                name,
                unit: Unit::Microseconds,
                target,
                measured: ours as f64 / 1e3,
                limit: limit
                    .zip(plain)
                    .map(|(ns, l)| (ns as f64 / 1e3, l.name.clone())),
                path: found.totals.path_text(),
            });
        }
    }
    Ok(findings)
}

pub(super) fn batches(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for (cache, name) in [
        (Cache::Cold, "4 KiB reads a second, disk"),
        (Cache::Warm, "4 KiB reads a second, page cache"),
    ] {
        let (summary, limits) = run_case(bench, &small(args, cache, 4096, 4), args)?;
        findings.push(Finding {
            name,
            unit: Unit::Iops,
            target: TARGET_IOPS,
            measured: summary.median.iops(),
            limit: best(&limits, |l| l.iops),
            path: summary.median.totals.path_text(),
        });
    }
    Ok(findings)
}
