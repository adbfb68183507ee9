//! `gds kv bench STORE`: a new store measured beside what the same disk gives to plain loops.

mod limit;
mod measure;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use measure::Found;
pub(in crate::cli) use measure::{Figure, Kinds, Remover, Setup};

use super::super::bench::parse_seconds;
use super::super::output::{Outcome, bytes_text, count_text, note, say, say_json, time_text};
use super::super::{Global, parse_size, usage};
use super::Shape;

/// Arguments of `gds kv bench`.
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    /// The store to make: a file that does not exist or is empty; removed at the end
    store: PathBuf,
    #[command(flatten)]
    shape: Shape,
    /// Seconds of each measurement
    #[arg(long, value_parser = parse_seconds, default_value = "2")]
    seconds: f64,
    /// Bytes of a small value
    #[arg(long, value_parser = parse_size, default_value = "1000")]
    value: u64,
    /// Bytes of a large value
    #[arg(long, value_parser = parse_size, default_value = "1M")]
    large: u64,
    /// Bytes of large values in all
    #[arg(long, value_parser = parse_size, default_value = "512M")]
    large_total: u64,
    /// Small values for gets and scans
    #[arg(long, default_value = "100000", value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Threads of durable puts and of gets, a list
    #[arg(long, value_delimiter = ',', default_value = "1,16",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Vec<u32>,
    /// Threads that commit with tickets
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u32).range(1..=1024))]
    ticket_threads: u32,
    /// Tickets that each of them has open
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    tickets: u32,
}

pub(super) fn run(global: &Global, args: &BenchArgs) -> Outcome {
    if args.value > 1 << 20 {
        return Err(usage("--value is for small values, up to 1M; see --large"));
    }
    let setup = Setup {
        path: args.store.clone(),
        config: args.shape.config(),
        seconds: args.seconds,
        value: args.value as usize,
        large: args.large,
        large_total: args.large_total,
        keys: args.keys,
        threads: args.threads.clone(),
        ticket_threads: args.ticket_threads,
        tickets: args.tickets,
    };
    // The same refusals as of `create`, before anything is written.
    drop(super::make(&args.store, &args.shape)?);
    let _remover = Remover(args.store.clone());
    if !global.json {
        say(format_args!(
            "{}: values of {} and {}, {} keys, {} s each",
            args.store.display(),
            bytes_text(args.value),
            bytes_text(args.large),
            args.keys,
            args.seconds
        ))?;
    }
    let found = setup.measure(Kinds::ALL, &mut |figure| {
        if global.json {
            if !global.quiet {
                note(format_args!("measured: {}", figure.name));
            }
            return Ok(());
        }
        say(text(figure))
    })?;
    if global.json {
        return say_json(&to_json(args, &found));
    }
    Ok(())
}

fn text(figure: &Figure) -> String {
    let rate = match figure.bytes_per_second > 0.0 {
        true => format!("{:>9.1} MB/s", figure.bytes_per_second / 1e6),
        false => format!("{:>9} /s", count_text(figure.per_second)),
    };
    let mut line = format!("{:<34}{rate:>16}", figure.name);
    if figure.latency.p50_ns > 0 {
        let (p50, p99) = (figure.latency.p50_ns, figure.latency.p99_ns);
        line.push_str(&format!(
            "  p50 {:>9}  p99 {:>9}",
            time_text(p50),
            time_text(p99)
        ));
    }
    if let Some(amplification) = figure.write_amplification {
        line.push_str(&format!("  {amplification:.3} bytes written for each"));
    }
    if let Some((limit, name)) = &figure.limit {
        let limit = match figure.bytes_per_second > 0.0 {
            true => format!("{:.1} MB/s", limit / 1e6),
            false => format!("{} /s", count_text(*limit)),
        };
        line.push_str(&format!("  limit {limit} ({name})"));
    }
    line
}

fn to_json(args: &BenchArgs, found: &Found) -> Value {
    let figures = found.figures.iter().map(|figure| {
        json!({
            "name": figure.name,
            "threads": figure.threads,
            "per_second": figure.per_second,
            "bytes_per_second": figure.bytes_per_second,
            "p50_ns": figure.latency.p50_ns,
            "p99_ns": figure.latency.p99_ns,
            "p99.9_ns": figure.latency.p999_ns,
            "write_amplification": figure.write_amplification,
            "limit": figure.limit.as_ref().map(|(limit, _)| *limit),
            "limit_measured_by": figure.limit.as_ref().map(|(_, name)| name.as_str()),
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": args.store.to_string_lossy(),
        "value_bytes": args.value,
        "large_bytes": args.large,
        "keys": args.keys,
        "seconds": args.seconds,
        "figures": figures.collect::<Vec<_>>(),
        "stats": super::tell::stats_json(&found.stats),
    })
}
