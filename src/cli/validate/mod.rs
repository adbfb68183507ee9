//! `gds validate`: every target of the specification that exists so far, measured here and now
//! beside the limit of the machine. A file of rows for each concern.

mod cache;
mod finding;
mod formats;
mod store;
mod streams;
mod transfers;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::bench::{Bench, parse_seconds};
use super::output::{Outcome, note, say, say_json, size_text};
use super::scratch::Scratch;
use super::{Global, parse_size, usage};
use finding::Finding;

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
        measure: transfers::read_cold,
    },
    Step {
        name: "sequential read from the page cache",
        measure: transfers::read_warm,
    },
    Step {
        name: "sequential write, durable",
        measure: transfers::write_durable,
    },
    Step {
        name: "sequential write into the page cache",
        measure: transfers::write_cached,
    },
    Step {
        name: "4 KiB reads, one at a time",
        measure: transfers::latency,
    },
    Step {
        name: "4 KiB reads, in batches",
        measure: transfers::batches,
    },
    Step {
        name: "a file in chunks",
        measure: streams::streamed,
    },
    Step {
        name: "CRC32C",
        measure: streams::checksum,
    },
    Step {
        name: "hits of the page cache",
        measure: cache::hits,
    },
    Step {
        name: "misses of the page cache",
        measure: cache::misses,
    },
    Step {
        name: "arrays for kernels",
        measure: cache::array,
    },
    Step {
        name: "hit rate of the page cache",
        measure: cache::hit_rate,
    },
    Step {
        name: "files of known formats",
        measure: formats::all,
    },
    Step {
        name: "the key-value store",
        measure: store::all,
    },
];
