//! `gds bench formats`: files of known formats, loaded into device memory beside a plain read.

mod sample;

use std::fs::File as StdFile;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::super::output::{
    Outcome, bytes_text, gigabytes_per_second, os_error, say, say_json, size_text,
};
use super::super::{Global, parse_size};
use super::stream::Rates;
use super::{Bench, Cache};
use crate::engine::Context;
pub(in crate::cli) use sample::{Kind, Sample};

/// Bytes that the plain read takes at once, again and again to the same place.
const BLOCK: usize = 1 << 20;

/// Arguments of `gds bench formats`.
#[derive(Debug, Args)]
pub(in crate::cli) struct FormatsArgs {
    /// Folder where the files are made, and removed at the end
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes of the values of each file
    #[arg(long, value_parser = parse_size, default_value = "256M")]
    size: u64,
    /// Whether the files are in the page cache before each run
    #[arg(long, value_enum, default_value = "warm")]
    cache: Cache,
    /// Runs of each file
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

/// What loading a file came to. It was compared with what was written.
pub(in crate::cli) struct Figure {
    pub(in crate::cli) kind: Kind,
    /// GB/s of values that came to be in device memory.
    pub(in crate::cli) rates: Rates,
    /// GB/s of the file, by a plain read.
    pub(in crate::cli) plain: Rates,
    pub(in crate::cli) file_bytes: u64,
    pub(in crate::cli) bytes: u64,
}

pub(in crate::cli) fn run(global: &Global, args: &FormatsArgs) -> Outcome {
    let context = global.context()?;
    let device = &context.device().info().name;
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let sample = Sample::write(*kind, &args.dir, args.size)?;
        if !global.json && found.is_empty() {
            say(format_args!(
                "files of {} in {}, {} page cache, to {device}, median of {} runs",
                size_text(args.size),
                args.dir.display(),
                args.cache.text(),
                args.runs
            ))?;
        }
        let figure = measure(&context, &sample, args.cache, args.runs)?;
        if !global.json {
            say(figure.text())?;
        }
        found.push(figure.to_json());
    }
    if global.json {
        return say_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "folder": args.dir.to_string_lossy(),
            "device": device,
            "cache": args.cache.text(),
            "formats": found,
        }));
    }
    Ok(())
}

/// Loads and plain reads take turns. The first load is compared, and not timed: what it sets up is
/// there for the others.
pub(in crate::cli) fn measure(
    context: &Context,
    sample: &Sample,
    cache: Cache,
    runs: u32,
) -> Outcome<Figure> {
    let loaded = sample.load(context)?;
    sample.verify(context, &loaded)?;
    let bench = Bench::new(context, sample.path(), None)?;
    let mut figure = Figure {
        kind: sample.kind(),
        rates: Rates::default(),
        plain: Rates::default(),
        file_bytes: bench.size(),
        bytes: loaded.bytes,
    };
    drop(loaded);
    for _ in 0..runs {
        bench.set_cache(cache)?;
        let began = Instant::now();
        let loaded = sample.load(context)?;
        let seconds = began.elapsed().as_secs_f64();
        figure
            .rates
            .push(gigabytes_per_second(loaded.bytes, seconds));
        drop(loaded);
        bench.set_cache(cache)?;
        let began = Instant::now();
        let bytes = read_plainly(sample.path())?;
        let seconds = began.elapsed().as_secs_f64();
        figure.plain.push(gigabytes_per_second(bytes, seconds));
    }
    Ok(figure)
}

fn read_plainly(path: &Path) -> Outcome<u64> {
    let failed = |e| os_error(&e, format!("read {}", path.display()));
    let mut file = StdFile::open(path).map_err(failed)?;
    let (mut block, mut bytes) = (vec![0; BLOCK], 0);
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}

impl Figure {
    fn text(&self) -> String {
        let (least, most) = self.rates.extremes();
        format!(
            "{:<12} {:>9} of {:>9}: {:>7.2} GB/s  {least:.2}..{most:.2}  plain read of the file \
             {:.2} GB/s; verified",
            self.kind.name(),
            bytes_text(self.bytes),
            bytes_text(self.file_bytes),
            self.rates.median(),
            self.plain.median()
        )
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "format": self.kind.name(),
            "file_bytes": self.file_bytes,
            "bytes": self.bytes,
            "gb_per_second": self.rates.median(),
            "runs": self.rates.all(),
            "plain_gb_per_second": self.plain.median(),
            "plain_runs": self.plain.all(),
            "verified": true,
        })
    }
}
