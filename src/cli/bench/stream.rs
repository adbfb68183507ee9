//! `gds bench stream`: the streaming reader beside the engine's own read of the same file and the
//! limit of the machine, run by run in turns.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::super::output::{Outcome, gigabytes_per_second, say, say_json, size_text};
use super::super::{Global, parse_chunk, pump, usage};
use super::limit::{self, Limit};
use super::{Bench, Cache, Case, Pattern, Prepared, report};
use crate::base::crc::crc32c_join;
use crate::base::limits;
use crate::config::PathPolicy;
use crate::device::MemoryKind;
use crate::engine::{Buffer, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{OpenMode, Operation};
use crate::prefetch::{Range, Reader, ReaderConfig, default_chunk};

/// Bytes of each transfer of the bulk read, of which two are under way.
const BULK_BLOCK: u64 = 64 << 20;

/// Arguments of `gds bench stream`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StreamArgs {
    /// The file to read
    file: PathBuf,
    /// Bytes of a chunk [default: four times the context's buffer size, 64M]
    #[arg(long, value_parser = parse_chunk)]
    chunk: Option<u64>,
    /// Buffers, of which one is worked on while the others are filled
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u32).range(2..=64))]
    buffers: u32,
    /// Whether the file is in the page cache before each run
    #[arg(long, value_enum, default_value = "warm")]
    cache: Cache,
    /// Runs of each reading
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

/// GB/s of some runs.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Rates(Vec<f64>);

/// What reading a file in chunks came to.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Streamed {
    /// The engine's own read, in large transfers.
    pub(in crate::cli) bulk: Rates,
    /// The reader; each chunk is given back as soon as it is there.
    pub(in crate::cli) reader: Rates,
    /// The reader with a CRC32C of each chunk, which covers every byte.
    pub(in crate::cli) checked: Rates,
    /// Which way the bytes of the reader took.
    pub(in crate::cli) path: String,
    /// Chunks of a run, and those that were waited for in the last one.
    chunks: u64,
    waits: u64,
    /// CRC32C of the file, the same in every run.
    crc32c: Option<u32>,
    limits: Vec<Limit>,
}

/// How to read.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Way {
    pub(in crate::cli) chunk_bytes: u64,
    pub(in crate::cli) buffers: u32,
    pub(in crate::cli) cache: Cache,
    pub(in crate::cli) runs: u32,
    /// Also measure plain loops, and fio where it is installed.
    pub(in crate::cli) with_limits: bool,
}

pub(in crate::cli) fn run(global: &Global, args: &StreamArgs) -> Outcome {
    let context = global.context()?;
    let bench = Bench::new(&context, &args.file, None)?;
    let chunk_bytes = args.chunk.unwrap_or_else(|| default_chunk(&context));
    if chunk_bytes > limits::STREAM_CHUNK_MAX {
        return Err(usage(format!("--chunk {chunk_bytes} is too large")));
    }
    let way = Way {
        chunk_bytes,
        buffers: args.buffers,
        cache: args.cache,
        runs: args.runs,
        with_limits: true,
    };
    let found = measure(&bench, &way)?;
    if global.json {
        return say_json(&to_json(&bench, &way, &found));
    }
    say(report::heading(&bench, args.runs))?;
    say(format_args!(
        "{} chunks of {} in {} buffers, {} page cache; {} waited for in the last run",
        found.chunks,
        size_text(way.chunk_bytes),
        way.buffers,
        way.cache.text(),
        found.waits
    ))?;
    for (name, rates) in found.rows() {
        let (least, most) = rates.extremes();
        say(format_args!(
            "{name:<28} {:>8.2} GB/s  {least:.2}..{most:.2}  {:.3} of the bulk read",
            rates.median(),
            rates.median() / found.bulk.median()
        ))?;
    }
    for limit in &found.limits {
        let name = format!("  limit: {}", limit.name);
        say(format_args!("{name:<28} {:>8.2} GB/s", limit.rate))?;
    }
    Ok(())
}

/// The readings take turns, and take turns in who begins.
pub(in crate::cli) fn measure(bench: &Bench<'_>, way: &Way) -> Outcome<Streamed> {
    let case = Case {
        operation: Operation::Read,
        pattern: Pattern::Seq,
        block: BULK_BLOCK.min(bench.size()),
        depth: 2,
        threads: 1,
        policy: PathPolicy::Auto,
        cache: way.cache,
        memory: MemoryKind::Device,
        batch: 1,
        seconds: None,
        sync: true,
    };
    let prepared = bench.prepare(&case)?;
    // Memory that was touched, as that of the bulk read.
    let buffers: Result<Vec<Buffer>> = (0..way.buffers)
        .map(|_| {
            let buffer = bench.context().alloc(MemoryKind::Device, way.chunk_bytes)?;
            pump::scrub(bench.context(), &buffer)?;
            Ok(buffer)
        })
        .collect();
    let buffers = buffers?;
    let mut found = Streamed::default();
    for run in 0..way.runs {
        for turn in 0..3 {
            match (run + turn) % 3 {
                0 => found.bulk.0.push(bulk(&prepared)?),
                1 => read(bench, way, &buffers, false, &mut found)?,
                _ => read(bench, way, &buffers, true, &mut found)?,
            }
        }
        if way.with_limits {
            limit::merge(&mut found.limits, limit::measure(bench, &case)?);
        }
    }
    found.limits.iter_mut().for_each(Limit::settle);
    Ok(found)
}

fn bulk(prepared: &Prepared<'_>) -> Result<f64> {
    Ok(prepared.run()?.rate())
}

/// One run of the reader.
fn read(
    bench: &Bench<'_>,
    way: &Way,
    buffers: &[Buffer],
    checked: bool,
    found: &mut Streamed,
) -> Result<()> {
    let config = ReaderConfig {
        given: buffers.to_vec(),
        chunk_bytes: way.chunk_bytes,
        options: Options {
            checksum: Some(checked),
            ..Options::default()
        },
        ..ReaderConfig::default()
    };
    let file = bench
        .context()
        .open_file(bench.path(), OpenMode::read_only())?;
    let range = Range {
        file,
        offset: 0,
        size: bench.size(),
    };
    bench.set_cache(way.cache)?;
    let (mut crc, mut paths) = (0, 0u32);
    let began = Instant::now();
    let reader = Reader::open_ranges(vec![range], &config)?;
    let bytes = reader.run(|chunk| {
        paths |= 1 << chunk.path as u32;
        if let Some(part) = chunk.crc32c {
            crc = crc32c_join(crc, part, chunk.size);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let info = reader.info();
    drop(reader);
    found.path = super::super::output::paths_text(paths);
    (found.chunks, found.waits) = (info.chunks, info.waits);
    let rate = gigabytes_per_second(bytes, seconds);
    if !checked {
        found.reader.0.push(rate);
        return Ok(());
    }
    found.checked.0.push(rate);
    if *found.crc32c.get_or_insert(crc) != crc {
        let text = "two runs read different bytes: the file changed, or memory is bad";
        return Err(Error::new(ErrorKind::Corrupted, text).with_path(bench.path()));
    }
    Ok(())
}

impl Rates {
    /// Adds a run.
    pub(in crate::cli) fn push(&mut self, rate: f64) {
        self.0.push(rate);
    }

    /// The runs, in order.
    pub(in crate::cli) fn all(&self) -> &[f64] {
        &self.0
    }

    /// The run in the middle.
    pub(in crate::cli) fn median(&self) -> f64 {
        let mut order = self.0.clone();
        order.sort_by(f64::total_cmp);
        order.get(order.len() / 2).copied().unwrap_or_default()
    }

    /// The slowest and the fastest run.
    pub(in crate::cli) fn extremes(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(0.0, f64::max);
        (least.min(most), most)
    }
}

impl Streamed {
    fn rows(&self) -> [(&'static str, &Rates); 3] {
        [
            ("bulk read", &self.bulk),
            ("reader", &self.reader),
            ("reader, CRC32C of each chunk", &self.checked),
        ]
    }
}

fn to_json(bench: &Bench<'_>, way: &Way, found: &Streamed) -> Value {
    let rows = found.rows().map(|(name, rates)| {
        json!({
            "name": name,
            "gb_per_second": rates.median(),
            "runs": rates.0,
            "of_bulk": rates.median() / found.bulk.median(),
        })
    });
    let limits = found.limits.iter();
    let limits = limits.map(|l| json!({ "name": l.name, "gb_per_second": l.rate }));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "file": bench.path().to_string_lossy(),
        "file_system": bench.file_system(),
        "size": bench.size(),
        "device": bench.context().device().info().name,
        "cache": way.cache.text(),
        "chunk_bytes": way.chunk_bytes,
        "buffers": way.buffers,
        "chunks": found.chunks,
        "chunks_waited_for": found.waits,
        "path": found.path,
        "crc32c": found.crc32c,
        "readings": rows,
        "limits": limits.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_run_and_extremes_are_runs() {
        let rates = Rates(vec![5.0, 1.0, 3.0, 4.0]);
        assert_eq!((rates.median(), rates.extremes()), (4.0, (1.0, 5.0)));
        assert_eq!(Rates::default().median(), 0.0);
    }
}
