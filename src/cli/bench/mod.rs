//! `gds bench`: what the machine gives, case by case, beside the limit measured in the same run.

pub(super) mod cache;
mod case;
pub(super) mod formats;
mod limit;
mod plot;
mod report;
mod run;
pub(super) mod stream;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(super) use case::{Cache, Case, Pattern};
pub(super) use limit::Limit;
pub(super) use run::{Bench, Prepared, Summary};

use super::output::{Failure, Outcome, os_error, say, say_json};
use super::scratch::Scratch;
use super::{Global, parse_size, usage};
use crate::config::{self, PathPolicy};
use crate::device::MemoryKind;
use crate::error::Error;
use crate::io::Operation;

/// Bytes of a file that is made for the benchmark.
const SIZE_DEFAULT: u64 = 1 << 30;

/// Arguments of `gds bench io`. Options that take a list measure every combination.
#[derive(Debug, Args)]
pub(super) struct IoArgs {
    /// The file; made, and removed at the end, when it does not exist [default: one in this folder]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Bytes of the file to use [default: all, or 1G of a file that is made]
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Order of the blocks
    #[arg(long, value_enum, default_value = "seq")]
    pattern: Pattern,
    /// Read into memory or write from it
    #[arg(long, value_enum, default_value = "read")]
    op: Op,
    /// Bytes of a transfer: a list (4K,64K) or a range of powers of two (4K..16M)
    /// [default: 64M in sequence, 4K at random]
    #[arg(long, value_parser = parse_block)]
    block: Option<List>,
    /// Submissions in flight for each thread: a list or a range (1..64) [default: 2 in sequence,
    /// 1 at random]
    #[arg(long, value_parser = parse_depth)]
    depth: Option<List>,
    /// Submitting threads: a list or a range
    #[arg(long, value_parser = parse_threads, default_value = "1")]
    threads: List,
    /// Paths: a list of auto, cufile, direct, buffered. All but auto are demanded, without fallback
    #[arg(long, value_parser = parse_policy, value_delimiter = ',', default_value = "auto")]
    path: Vec<PathPolicy>,
    /// Whether the file is in the page cache before each run
    #[arg(long, value_enum, default_value = "cold")]
    cache: Cache,
    /// Where the bytes go to or come from
    #[arg(long, value_enum, default_value = "device")]
    memory: Memory,
    /// Transfers in each submission, each to its own place in memory
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    batch: u32,
    /// Runs of each case
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Seconds of each run; one pass over the file when not given
    #[arg(long, value_parser = parse_seconds)]
    seconds: Option<f64>,
    /// Also measure, run by run, what plain reads or writes reach, and fio where it is installed
    #[arg(long)]
    limit: bool,
    /// Write to a file that exists, which destroys what it holds
    #[arg(long)]
    overwrite: bool,
    /// Draw the results into this SVG file
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Read or write, as the command line spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Op {
    Read,
    Write,
}

/// Kind of memory, as the command line spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Memory {
    /// Memory of the device
    Device,
    /// Pinned host memory
    Host,
}

/// Values to try, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List(Vec<u64>);

/// One case with what was measured, or why it could not be.
pub(super) struct Row {
    pub(super) case: Case,
    pub(super) result: Result<Summary, Error>,
    pub(super) limits: Vec<Limit>,
}

pub(super) fn run(global: &Global, args: &IoArgs) -> Outcome {
    let context = global.context()?;
    let (path, scratch) = open_target(args)?;
    let bench = Bench::new(&context, &path, args.size)?;
    let cases = cases(args, &bench)?;
    if !global.json {
        say(report::heading(&bench, args.runs))?;
        say(report::table_head())?;
    }
    let mut rows = Vec::new();
    for case in cases {
        let row = measure(&bench, case, args)?;
        if !global.json {
            say(report::table_row(&row))?;
        }
        rows.push(row);
    }
    if let Some(file) = &args.plot {
        let svg = plot::draw(&report::figure(&rows));
        std::fs::write(file, svg)
            .map_err(|e| os_error(&e, format!("write the plot {}", file.display())))?;
    }
    if global.json {
        say_json(&report::to_json(&bench, args.runs, &rows))?;
    }
    drop(scratch);
    let mut failures = rows.iter().filter_map(|row| row.result.as_ref().err());
    match failures.next_back() {
        Some(error) if rows.iter().all(|row| row.result.is_err()) => {
            Err(Failure::Failed(error.clone()))
        }
        _ => Ok(()),
    }
}

/// A summary of our runs and the limits, or why our side could not run.
pub(super) type Measured = Result<(Summary, Vec<Limit>), Error>;

/// Runs of ours and of the limits take turns, and take turns in who begins, so that a disk that
/// drifts or pays for what was read before is fair to all.
pub(super) fn measure_by_turns(
    bench: &Bench<'_>,
    prepared: &Prepared<'_>,
    case: &Case,
    runs: u32,
    with_limits: bool,
) -> Outcome<Measured> {
    let mut samples = Vec::new();
    let mut limits = Vec::new();
    for run in 0..runs {
        let limits_first = run % 2 == 1;
        if with_limits && limits_first {
            limit::merge(&mut limits, limit::measure(bench, case)?);
        }
        match prepared.run() {
            Ok(sample) => samples.push(sample),
            Err(error) => return Ok(Err(error)),
        }
        if with_limits && !limits_first {
            limit::merge(&mut limits, limit::measure(bench, case)?);
        }
    }
    limits.iter_mut().for_each(Limit::settle);
    Ok(Ok((Summary::of(&samples), limits)))
}

fn measure(bench: &Bench<'_>, case: Case, args: &IoArgs) -> Outcome<Row> {
    let mut row = Row {
        case: case.clone(),
        result: Ok(Summary::default()),
        limits: Vec::new(),
    };
    let prepared = match bench.prepare(&case) {
        Ok(prepared) => prepared,
        Err(error) => {
            row.result = Err(error);
            return Ok(row);
        }
    };
    match measure_by_turns(bench, &prepared, &case, args.runs, args.limit)? {
        Ok((summary, limits)) => {
            row.result = Ok(summary);
            row.limits = limits;
        }
        Err(error) => row.result = Err(error),
    }
    Ok(row)
}

/// The file to measure on. A file that exists is written to only when that was asked for.
fn open_target(args: &IoArgs) -> Outcome<(PathBuf, Option<Scratch>)> {
    let size = args.size.unwrap_or(SIZE_DEFAULT);
    let Some(path) = &args.file else {
        let scratch = Scratch::in_folder(".".as_ref(), size)?;
        return Ok((scratch.path().to_path_buf(), Some(scratch)));
    };
    if !path.exists() {
        let scratch = Scratch::create(path, size)?;
        return Ok((path.clone(), Some(scratch)));
    }
    if args.op == Op::Write && !args.overwrite {
        return Err(usage(format!(
            "{} exists and writing would destroy what it holds; name a new file, or pass \
             --overwrite",
            path.display()
        )));
    }
    Ok((path.clone(), None))
}

fn cases(args: &IoArgs, bench: &Bench<'_>) -> Outcome<Vec<Case>> {
    let sequential = args.pattern == Pattern::Seq;
    let default = |list: &Option<List>, seq: u64, random: u64| {
        list.clone()
            .unwrap_or(List(vec![if sequential { seq } else { random }]))
    };
    let blocks = default(
        &args.block,
        (64 << 20).min(bench.size()),
        4096.min(bench.size()),
    );
    let depths = default(&args.depth, 2, 1);
    let mut cases = Vec::new();
    for &policy in &args.path {
        for &threads in &args.threads.0 {
            for &depth in &depths.0 {
                for &block in &blocks.0 {
                    let case = Case {
                        operation: match args.op {
                            Op::Read => Operation::Read,
                            Op::Write => Operation::Write,
                        },
                        pattern: args.pattern,
                        block,
                        depth: depth as u32,
                        threads: threads as u32,
                        policy,
                        cache: args.cache,
                        memory: match args.memory {
                            Memory::Device => MemoryKind::Device,
                            Memory::Host => MemoryKind::Pinned,
                        },
                        batch: args.batch,
                        seconds: args.seconds,
                        sync: true,
                    };
                    case.check(bench.size())?;
                    cases.push(case);
                }
            }
        }
    }
    Ok(cases)
}

/// "4K,64K" or "4K..16M", each of the values by `parse`.
fn parse_list(text: &str, parse: fn(&str) -> Option<u64>) -> Result<List, String> {
    let bad =
        |part: &str| format!("'{part}' is not understood; give a list (4,8) or a range (1..8)");
    let value = |part: &str| {
        parse(part.trim())
            .filter(|v| *v > 0)
            .ok_or_else(|| bad(part))
    };
    let mut values = Vec::new();
    for part in text.split(',') {
        let Some((first, last)) = part.split_once("..") else {
            values.push(value(part)?);
            continue;
        };
        let (first, last) = (value(first)?, value(last.trim_start_matches('='))?);
        if first > last {
            return Err(format!("'{part}' runs backwards"));
        }
        let mut next = Some(first);
        while let Some(at) = next.filter(|at| *at <= last) {
            values.push(at);
            next = at.checked_mul(2);
        }
    }
    if values.len() > 64 {
        return Err(format!("{} values are more than 64", values.len()));
    }
    Ok(List(values))
}

fn parse_block(text: &str) -> Result<List, String> {
    parse_list(text, config::parse_size)
}

fn parse_depth(text: &str) -> Result<List, String> {
    parse_count(text, 4096)
}

fn parse_threads(text: &str) -> Result<List, String> {
    parse_count(text, 256)
}

fn parse_count(text: &str, most: u64) -> Result<List, String> {
    let list = parse_list(text, |t| t.parse().ok())?;
    if list.0.iter().any(|v| *v > most) {
        return Err(format!("at most {most}"));
    }
    Ok(list)
}

fn parse_policy(text: &str) -> Result<PathPolicy, String> {
    config::parse_path(text).ok_or_else(|| "a path is auto, cufile, direct or buffered".to_owned())
}

/// The length of a run.
pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds are a number from 0.01 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse_block("4K,1M"), Ok(List(vec![4096, 1 << 20])));
        assert_eq!(
            parse_block("4K..32K"),
            Ok(List(vec![4096, 8192, 16384, 32768]))
        );
        assert_eq!(parse_depth("1..5,7"), Ok(List(vec![1, 2, 4, 7])));
        for bad in ["", "0", "4K..", "..", "8..4", "1,,2", "x", "1..-4"] {
            assert!(parse_depth(bad).is_err(), "{bad}");
        }
        assert!(parse_threads("257").is_err());
        assert!(parse_block("1..99999999999T").is_err());
    }
}
