//! Our key-value store beside others, in one process. `--help` says what is measured and how.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

mod data;
mod engine;
#[path = "engines/fjall.rs"]
mod fjall;
#[path = "engines/lmdb.rs"]
mod lmdb;
mod meter;
#[cfg(test)]
mod model;
#[cfg(feature = "ours")]
#[path = "engines/ours.rs"]
mod ours;
mod program;
mod programs;
#[path = "engines/redb.rs"]
mod redb;
mod report;
#[cfg(feature = "rocksdb")]
#[path = "engines/rocksdb.rs"]
mod rocksdb;

use engine::{Kind, Res};
use program::{Common, Program, Run};
use programs::{durable, large, reads, recover, timeseries, tpcc, ycsb};

/// Measures embedded key-value stores side by side: the same keys, values and order of operations,
/// one after the other in one process.
///
/// How to read the table. Engines take turns, A B C A B C, in each line's measurement, and the
/// table has the medians of the rounds. Latencies are from operation to operation of a thread, so
/// they hold the making of keys and values, which costs every engine the same. P50, P99 and P99.9
/// of a load, batch or ingest are those of a whole batch. CPU us/op is this process's, with the
/// engine's own threads. Write amp is bytes that the kernel says went to the disk for each byte of
/// keys and values, until the engine has flushed and its background work is over; in a short run
/// it may hold a compaction of what earlier runs wrote, so ycsb ends with a line for all of them.
/// Space amp is
/// blocks on disk for each byte that is alive. Cached MiB is what the kernel's page cache holds of
/// the store: help beyond --cache-mib that an engine gets if it reads through the kernel; run
/// under `systemd-run --scope -p MemoryMax=...` to bound it. Others % is the share of the
/// processors that other processes used: with more than a few, the figures are noise.
///
/// Durability. `synced`: a commit that returned survives a power loss. Otherwise the row says what
/// a commit that returned has reached. Nothing is compressed. Every store is verified after every
/// run: values know which record and version they are, and all their bytes are checked.
///
/// Cold: the store is closed, its files leave the page cache (and, for root, the kernel's caches
/// are dropped), and it is opened again. Warm: the run follows reads of the same kind.
///
/// Settings of the engines: their defaults but the cache's size; RocksDB with Bloom filters of 10
/// bits a key; for large values RocksDB with blob files and fjall with separated values; LMDB,
/// which has no cache but the kernel's, with NOSYNC where commits are deferred.
#[derive(Parser, Debug)]
#[command(name = "kv_bench", verbatim_doc_comment)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Engines [default: all that were built in]
    #[arg(long, global = true, value_delimiter = ',')]
    engines: Vec<Kind>,
    /// Where the stores are made, in a directory of their own that is removed; a real disk
    #[arg(long, global = true, default_value = "/var/tmp")]
    dir: PathBuf,
    /// How often each engine runs; the table has medians [default: 3, quick 1]
    #[arg(long, global = true)]
    rounds: Option<u32>,
    /// Each engine's own cache, MiB
    #[arg(long, global = true, default_value_t = 64)]
    cache_mib: u64,
    /// Small amounts and one round: shows that it works, and the order of magnitude
    #[arg(long, global = true)]
    quick: bool,
    /// Writes all rounds and the medians to this file
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// Cold runs take only the store's files out of the page cache, even for root
    #[arg(long, global = true)]
    keep_caches: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// YCSB A to F: Zipfian and latest, updates write whole values, cold and warm
    Ycsb(ycsb::Options),
    /// Durable puts from many threads; tickets where an engine has them
    Durable(durable::Options),
    /// Durable values of MiB: put, overwrite, get
    Large(large::Options),
    /// A mix like TPC-C's as transactions on keys and values
    Tpcc(tpcc::Options),
    /// Ordered ingest with range reads
    Timeseries(timeseries::Options),
    /// Opening after a kill and after a close
    Recover(recover::Options),
    /// Warm point reads without a clock reading for each
    Reads(reads::Options),
    /// All of them, with their defaults
    All,
    /// The process that `recover` kills
    #[command(hide = true)]
    LoadAndDie(recover::Victim),
}

fn programs(command: &Command, quick: bool) -> Res<Vec<Box<dyn Program>>> {
    let mut all: Vec<Box<dyn Program>> = Vec::new();
    match command {
        Command::Ycsb(o) => all.push(Box::new(ycsb::Ycsb::new(o, quick)?)),
        Command::Durable(o) => all.push(Box::new(durable::Durable::new(o, quick)?)),
        Command::Large(o) => all.push(Box::new(large::Large::new(o, quick)?)),
        Command::Tpcc(o) => all.push(Box::new(tpcc::Tpcc::new(o, quick)?)),
        Command::Timeseries(o) => all.push(Box::new(timeseries::Timeseries::new(o, quick)?)),
        Command::Recover(o) => all.push(Box::new(recover::Recover::new(o, quick)?)),
        Command::Reads(o) => all.push(Box::new(reads::Reads::new(o, quick)?)),
        Command::LoadAndDie(_) => {}
        Command::All => {
            let names = [
                "ycsb",
                "reads",
                "durable",
                "large",
                "tpcc",
                "timeseries",
                "recover",
            ];
            for name in names {
                let arguments = Arguments::try_parse_from(["kv_bench", name])?;
                all.extend(programs(&arguments.command, quick)?);
            }
        }
    }
    Ok(all)
}

/// What the figures depend on besides the engines.
fn machine(dir: &std::path::Path) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    // The mount whose path is the longest that `dir` starts with.
    let mounts = read("/proc/self/mounts");
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(path, _)| dir.starts_with(path))
        .max_by_key(|(path, _)| path.len());
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limit = limits
        .iter()
        .map(|path| read(path))
        .find(|text| !text.is_empty());
    json!({
        "cpu": after(&read("/proc/cpuinfo"), "model name"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        "memory_limit": limit.unwrap_or_default().trim(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "file_system": mount.map(|(_, kind)| kind),
    })
}

fn run(arguments: &Arguments) -> Res<()> {
    if let Command::LoadAndDie(victim) = &arguments.command {
        return recover::load_and_die(victim);
    }
    let engines = if arguments.engines.is_empty() {
        Kind::ALL.to_vec()
    } else {
        arguments.engines.clone()
    };
    let rounds = arguments
        .rounds
        .unwrap_or(if arguments.quick { 1 } else { 3 });
    if rounds == 0 {
        return Err("rounds must be at least 1".into());
    }
    let programs = programs(&arguments.command, arguments.quick)?;
    let common = Common {
        cache_bytes: arguments.cache_mib << 20,
        drop_everything: !arguments.keep_caches,
    };
    let base = arguments
        .dir
        .join(format!("kv_bench.{}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    let machine = machine(&base);
    let versions: Vec<_> = engines
        .iter()
        .map(|kind| (kind.name().to_owned(), Value::from(kind.version())))
        .collect();
    let versions = Value::Object(versions.into_iter().collect());
    println!("machine {machine}\nversions {versions}");
    println!(
        "cache {} MiB, medians of {rounds} rounds",
        arguments.cache_mib
    );
    let mut results = Vec::new();
    let mut failures = 0;
    for program in &programs {
        failures += one(&**program, &engines, rounds, &base, &common, &mut results);
    }
    std::fs::remove_dir_all(&base)?;
    if let Some(path) = &arguments.json {
        let all = json!({
            "machine": machine, "versions": versions, "rounds": rounds,
            "cache_bytes": common.cache_bytes, "quick": arguments.quick, "programs": results,
        });
        std::fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    if failures > 0 {
        return Err(format!("{failures} engines failed in a program; see above").into());
    }
    Ok(())
}

/// Runs a program and prints its table; how many engines failed. One that did is left out of the
/// rest of the program.
fn one(
    program: &dyn Program,
    engines: &[Kind],
    rounds: u32,
    base: &std::path::Path,
    common: &Common,
    results: &mut Vec<Value>,
) -> usize {
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for stage in 0..program.stages() {
        for round in 0..rounds {
            for &kind in engines {
                if failed.contains(&kind) {
                    continue;
                }
                let dir = base.join(program.name()).join(kind.name());
                let run = Run {
                    kind,
                    round,
                    dir,
                    common,
                };
                match program.run(stage, &run) {
                    Ok(more) => rows.extend(more),
                    Err(error) => {
                        eprintln!("{}: {} FAILED: {error}", program.name(), kind.name());
                        failed.push(kind);
                    }
                }
            }
        }
    }
    let _ = std::fs::remove_dir_all(base.join(program.name()));
    let medians = report::medians(&rows);
    print!("{}", report::table(program.name(), &medians));
    results.push(report::json(
        program.name(),
        &program.settings(),
        &rows,
        &medians,
    ));
    failed.len()
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv_bench: {error}");
            ExitCode::FAILURE
        }
    }
}
