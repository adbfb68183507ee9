//! `gds validate`: every target of the specification that exists so far, measured here and now
//! beside the limit of the machine.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::bench::{
    Bench, Cache, Case, Limit, Pattern, Summary, measure_by_turns, parse_seconds, stream,
};
use super::output::{Outcome, count_text, gigabytes_per_second, note, say, say_json, size_text};
use super::scratch::{Scratch, random_bytes};
use super::{Global, parse_size, usage};
use crate::base::crc::crc32c;
use crate::base::limits;
use crate::config::PathPolicy;
use crate::device::MemoryKind;
use crate::io::Operation;
use crate::metrics::{
    TARGET_LATENCY_US, TARGET_READ_BYTES_PER_SECOND, TARGET_WRITE_BYTES_PER_SECOND,
};
use crate::prefetch::default_chunk;

/// Sequential reads, GB/s (specification, benchmarks).
const TARGET_SEQUENTIAL_READ: f64 = 12.5;
/// Sequential writes, GB/s (specification, benchmarks).
const TARGET_SEQUENTIAL_WRITE: f64 = 10.0;
/// Mean latency of a 4 KiB aligned read, microseconds (specification, benchmarks).
const TARGET_MEAN_US: f64 = 10.0;
/// Operations a second (specification, benchmarks).
const TARGET_IOPS: f64 = 1e6;
/// CRC32C against the table version (specification, checksums: 10 to 50 times).
const TARGET_CRC_TIMES: f64 = 10.0;
/// A file in chunks against the same file in bulk, from the page cache and from the disk.
const STREAM_WARM: f64 = 0.95;
const STREAM_COLD: f64 = 0.98;
/// Buffers of the reader that is measured: as many as a reader has by itself.
const STREAM_BUFFERS: u32 = limits::STREAM_BUFFERS_MIN;
/// From this part of the limit on, the machine is what limits.
const NEAR: f64 = 0.9;
/// Smallest file that the measurements can use, bytes.
const SIZE_MIN: u64 = 1 << 20;

/// Arguments of `gds validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Folder on the disk to measure; a temporary file is made there
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes of the temporary file
    #[arg(long, value_parser = parse_size, default_value = "1G")]
    size: u64,
    /// Runs of each measurement
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Seconds of each run of small reads
    #[arg(long, value_parser = parse_seconds, default_value = "1")]
    seconds: f64,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    GigabytesPerSecond,
    Microseconds,
    Iops,
    Times,
}

/// One target with what was found.
#[derive(Debug)]
struct Finding {
    name: &'static str,
    unit: Unit,
    target: f64,
    measured: f64,
    /// The machine's own figure in the same run, and how it was measured.
    limit: Option<(f64, String)>,
    path: String,
}

pub(super) fn run(global: &Global, args: &ValidateArgs) -> Outcome {
    if args.size < SIZE_MIN {
        let least = size_text(SIZE_MIN);
        return Err(usage(format!("--size {} is less than {least}", args.size)));
    }
    let context = global.context()?;
    let scratch = Scratch::in_folder(&args.dir, args.size)?;
    let bench = Bench::new(&context, scratch.path(), None)?;
    if !global.json {
        say(format_args!(
            "{} in {} ({}), device {}, median of {} runs",
            size_text(bench.size()),
            args.dir.display(),
            bench.file_system(),
            context.device().info().name,
            args.runs
        ))?;
    }
    let mut findings = Vec::new();
    for step in STEPS {
        if !global.quiet {
            note(format_args!("measuring: {}", step.name));
        }
        for finding in (step.measure)(&bench, args)? {
            if !global.json {
                say(finding.text())?;
            }
            findings.push(finding);
        }
    }
    if global.json {
        return say_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "folder": args.dir.to_string_lossy(),
            "file_system": bench.file_system(),
            "size": bench.size(),
            "device": context.device().info().name,
            "targets": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        }));
    }
    let met = findings.iter().filter(|f| f.is_met()).count();
    say(format_args!(
        "{met} of {} targets met on this machine",
        findings.len()
    ))
}

/// One measurement that one or more targets are judged by.
struct Step {
    name: &'static str,
    measure: fn(&Bench<'_>, &ValidateArgs) -> Outcome<Vec<Finding>>,
}

const STEPS: &[Step] = &[
    Step {
        name: "sequential read from the disk",
        measure: read_cold,
    },
    Step {
        name: "sequential read from the page cache",
        measure: read_warm,
    },
    Step {
        name: "sequential write, durable",
        measure: write_durable,
    },
    Step {
        name: "sequential write into the page cache",
        measure: write_cached,
    },
    Step {
        name: "4 KiB reads, one at a time",
        measure: latency,
    },
    Step {
        name: "4 KiB reads, in batches",
        measure: batches,
    },
    Step {
        name: "a file in chunks",
        measure: streamed,
    },
    Step {
        name: "CRC32C",
        measure: checksum,
    },
];

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

fn read_cold(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let case = sequential(bench, Operation::Read, Cache::Cold);
    let targets = [
        ("sustained read, disk", TARGET_READ_BYTES_PER_SECOND / 1e9),
        ("sequential read, disk", TARGET_SEQUENTIAL_READ),
    ];
    throughput(bench, &case, args, &targets)
}

fn read_warm(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
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

fn write_durable(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
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

fn write_cached(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
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

fn latency(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
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

fn batches(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
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

fn streamed(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for (cache, name, part) in [
        (Cache::Warm, "chunks, page cache, 0.95 of bulk", STREAM_WARM),
        (Cache::Cold, "chunks, disk, 0.98 of bulk", STREAM_COLD),
    ] {
        let way = stream::Way {
            chunk_bytes: default_chunk(bench.context()),
            buffers: STREAM_BUFFERS,
            cache,
            runs: args.runs,
            with_limits: false,
        };
        let found = stream::measure(bench, &way)?;
        let bulk = found.bulk.median();
        findings.push(Finding {
            name,
            unit: Unit::GigabytesPerSecond,
            target: part * bulk,
            measured: found.reader.median(),
            limit: Some((bulk, "the bulk read".to_owned())),
            path: found.path,
        });
    }
    Ok(findings)
}

/// CRC32C by the table, a byte at a time: what the target is measured against.
struct Table([u32; 256]);

impl Table {
    fn new() -> Self {
        /// The Castagnoli polynomial, reflected.
        const POLYNOMIAL: u32 = 0x82F6_3B78;
        let mut table = [0; 256];
        for (byte, entry) in (0u32..).zip(table.iter_mut()) {
            *entry = (0..8).fold(byte, |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)));
        }
        Self(table)
    }

    fn crc32c(&self, bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| (crc >> 8) ^ self.0[(crc as u8 ^ byte) as usize];
        !bytes.iter().fold(!0, step)
    }
}

fn checksum(_: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    // Small enough for the processor's caches: the code is measured, not the memory.
    let data = random_bytes(256 << 10);
    let table = Table::new();
    let rate = |work: &dyn Fn() -> u32| {
        let (began, mut bytes) = (Instant::now(), 0);
        while began.elapsed().as_millis() < 100 {
            black_box(work());
            bytes += data.len() as u64;
        }
        gigabytes_per_second(bytes, began.elapsed().as_secs_f64())
    };
    let mut times = Vec::new();
    let mut ours = 0.0;
    for _ in 0..args.runs {
        ours = rate(&|| crc32c(0, black_box(&data)));
        times.push(ours / rate(&|| table.crc32c(black_box(&data))));
    }
    times.sort_by(f64::total_cmp);
    Ok(vec![Finding {
        name: "CRC32C against the table version",
        unit: Unit::Times,
        target: TARGET_CRC_TIMES,
        measured: times[times.len() / 2],
        limit: None,
        path: format!("{ours:.1} GB/s in cache"),
    }])
}

impl Finding {
    fn is_met(&self) -> bool {
        match self.unit {
            Unit::Microseconds => self.measured <= self.target,
            _ => self.measured >= self.target,
        }
    }

    /// What stands between the measured figure and the target.
    fn verdict(&self) -> String {
        if self.is_met() {
            return "met".to_owned();
        }
        let Some((limit, name)) = &self.limit else {
            return "not met".to_owned();
        };
        // How near we are to the limit, 1 being there.
        let part = match self.unit {
            Unit::Microseconds => limit / self.measured.max(1e-9),
            _ => self.measured / limit.max(1e-9),
        };
        let limit_met = match self.unit {
            Unit::Microseconds => *limit <= self.target,
            _ => *limit >= self.target,
        };
        let why = match (limit_met, part >= NEAR) {
            (false, true) => "the machine limits it",
            (false, false) => "the machine's limit lies short of the target too",
            (true, _) => "the machine could do it",
        };
        format!("not met: {why} (ours is {part:.2} of {name})")
    }

    fn value_text(&self, value: f64) -> String {
        match self.unit {
            Unit::GigabytesPerSecond => format!("{value:.2} GB/s"),
            Unit::Microseconds => format!("{value:.1} us"),
            Unit::Iops => format!("{} IOPS", count_text(value)),
            Unit::Times => format!("{value:.1} times"),
        }
    }

    fn text(&self) -> String {
        let limit = match &self.limit {
            Some((limit, _)) => self.value_text(*limit),
            None => "-".to_owned(),
        };
        format!(
            "{:<34} target {:>11}  measured {:>12}  limit {:>12}  {} [{}]",
            self.name,
            self.value_text(self.target),
            self.value_text(self.measured),
            limit,
            self.verdict(),
            self.path
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": match self.unit {
                Unit::GigabytesPerSecond => "GB/s",
                Unit::Microseconds => "us",
                Unit::Iops => "IOPS",
                Unit::Times => "times",
            },
            "target": self.target,
            "measured": self.measured,
            "limit": self.limit.as_ref().map(|(limit, _)| *limit),
            "limit_measured_by": self.limit.as_ref().map(|(_, name)| name.as_str()),
            "met": self.is_met(),
            "verdict": self.verdict(),
            "path": self.path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(unit: Unit, target: f64, measured: f64, limit: f64) -> Finding {
        Finding {
            name: "x",
            unit,
            target,
            measured,
            limit: Some((limit, "plain".to_owned())),
            path: String::new(),
        }
    }

    #[test]
    fn the_table_version_is_crc32c() {
        assert_eq!(Table::new().crc32c(b"123456789"), 0xE306_9283);
        let data = random_bytes(10_000);
        assert_eq!(Table::new().crc32c(&data), crc32c(0, &data));
    }

    #[test]
    fn the_verdict_names_what_limits() {
        let rate = Unit::GigabytesPerSecond;
        assert_eq!(finding(rate, 4.0, 4.0, 9.0).verdict(), "met");
        let text = |f: Finding| f.verdict();
        assert!(text(finding(rate, 4.0, 2.9, 3.0)).contains("the machine limits it"));
        assert!(text(finding(rate, 4.0, 1.0, 3.0)).contains("short of the target too"));
        assert!(text(finding(rate, 4.0, 3.0, 9.0)).contains("the machine could do it"));
        let time = Unit::Microseconds;
        assert_eq!(finding(time, 100.0, 99.0, 9.0).verdict(), "met");
        assert!(text(finding(time, 100.0, 300.0, 290.0)).contains("the machine limits it"));
        assert!(text(finding(time, 100.0, 300.0, 50.0)).contains("the machine could do it"));
    }
}
