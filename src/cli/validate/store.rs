//! Rows of the key-value store: commits, latency of durable writes, reads of points, large values.

use super::super::bench::Bench;
use super::super::kv::{Figure, Kinds, Remover, Setup};
use super::super::output::Outcome;
use super::ValidateArgs;
use super::finding::{Finding, Unit};
use crate::kv::store::KvConfig;

/// Commits of the log a second, with group commit (summary of NVMe I/O, throughput).
const COMMITS: f64 = 1e6;
/// A durable write, microseconds (the same, random writes of the log).
const WRITE_P50_US: f64 = 100.0;
const WRITE_P99_US: f64 = 1000.0;
/// Point reads a second of what memory holds, and their time.
const READS_CACHED: f64 = 500e3;
const READ_CACHED_P50_US: f64 = 50.0;
const READ_CACHED_P99_US: f64 = 200.0;
/// Point reads a second from the disk.
const READS_DISK: f64 = 100e3;
/// Durable large values, GB/s (the same, sequential writes).
const LARGE: f64 = 8.0;
/// Bytes written for each byte of a large value: our own goal.
const AMPLIFICATION: f64 = 1.1;

const THREADS: u32 = 16;

/// The parts of a row that come from one figure.
struct Row<'a> {
    figure: &'a Figure,
    path: String,
}

impl Row<'_> {
    fn finding(
        &self,
        name: &'static str,
        unit: Unit,
        target: f64,
        (measured, limit): (f64, Option<f64>),
    ) -> Finding {
        let by = self.figure.limit.as_ref().map(|(_, name)| name.clone());
        Finding {
            name,
            unit,
            target,
            measured,
            limit: limit.zip(by),
            path: self.path.clone(),
        }
    }

    fn rate(&self, name: &'static str, target: f64) -> Finding {
        let limit = self.figure.limit.as_ref().map(|(limit, _)| *limit);
        let unit = Unit::PerSecond;
        self.finding(name, unit, target, (self.figure.per_second, limit))
    }

    fn bandwidth(&self, name: &'static str, target: f64) -> Finding {
        let limit = self.figure.limit.as_ref().map(|(limit, _)| limit / 1e9);
        let measured = self.figure.bytes_per_second / 1e9;
        self.finding(name, Unit::GigabytesPerSecond, target, (measured, limit))
    }

    /// A time, beside that of the limit where it has one.
    fn time(&self, name: &'static str, target: f64, ns: u64, limit_ns: u64) -> Finding {
        let limit = (limit_ns > 0).then_some(limit_ns as f64 / 1e3);
        self.finding(name, Unit::Microseconds, target, (ns as f64 / 1e3, limit))
    }
}

pub(super) fn all(bench: &Bench<'_>, args: &ValidateArgs) -> Outcome<Vec<Finding>> {
    let name = format!("gds-scratch-{}.kv", std::process::id());
    let path = args.dir.join(name);
    let size = bench.size();
    let setup = Setup {
        path: path.clone(),
        config: KvConfig {
            // As large as the file that all else is measured on allows.
            wal_bytes: (size / 4).clamp(1 << 20, 64 << 20) / 4096 * 4096,
            segment_bytes: (size / 16).clamp(1 << 20, 64 << 20).next_power_of_two(),
            inline_max: 4032,
            ..KvConfig::default()
        },
        seconds: args.seconds,
        value: 1000,
        large: (size / 8).clamp(64 << 10, 1 << 20),
        large_total: size / 2,
        keys: (size / 10_000).clamp(100, 1_000_000),
        threads: vec![1, THREADS],
        ticket_threads: 2,
        tickets: 256,
    };
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        // A new store each time: the state of the last run does not help this one.
        let _remover = Remover(path.clone());
        runs.push(setup.measure(Kinds::ALL, &mut |_| Ok(()))?.figures);
    }
    let figures = median(runs);
    let mut findings = Vec::new();
    for figure in &figures {
        let row = Row {
            figure,
            path: figure.name.clone(),
        };
        findings.extend(rows(&row));
    }
    Ok(findings)
}

fn rows(row: &Row<'_>) -> Vec<Finding> {
    let figure = row.figure;
    let (own, limit) = (figure.latency, figure.limit_latency);
    let is = |start: &str| figure.name.starts_with(start);
    let single = figure.threads == 1;
    if is("commits by ticket") {
        return vec![row.rate("log commits a second", COMMITS)];
    }
    if is("durable puts of") {
        let once = Some(1.0);
        let amplification = Finding {
            limit: Some((1.0, "each byte once".to_owned())),
            ..row.finding(
                "bytes written, large values",
                Unit::Amplification,
                AMPLIFICATION,
                (figure.write_amplification.unwrap_or(0.0), once),
            )
        };
        return vec![row.bandwidth("large durable values", LARGE), amplification];
    }
    if is("durable puts") && single {
        return vec![
            row.time("durable put, p50", WRITE_P50_US, own.p50_ns, limit.p50_ns),
            row.time("durable put, p99", WRITE_P99_US, own.p99_ns, limit.p99_ns),
        ];
    }
    if is("gets, warm") && single {
        // The mean of the plain loop.
        let plain = figure
            .limit
            .as_ref()
            .map_or(0, |(rate, _)| (1e9 / rate.max(1.0)) as u64);
        return vec![
            row.rate("point reads, cached", READS_CACHED),
            row.time(
                "point read, cached, p50",
                READ_CACHED_P50_US,
                own.p50_ns,
                plain,
            ),
            row.time(
                "point read, cached, p99",
                READ_CACHED_P99_US,
                own.p99_ns,
                plain,
            ),
        ];
    }
    if is("gets, cold") && !single {
        return vec![row.rate("point reads, disk", READS_DISK)];
    }
    Vec::new()
}

/// Of each figure the run whose rate is in the middle.
fn median(mut runs: Vec<Vec<Figure>>) -> Vec<Figure> {
    let count = runs.iter().map(Vec::len).min().unwrap_or(0);
    let of = |index: usize| {
        let mut same: Vec<Figure> = runs
            .iter_mut()
            .map(|run| std::mem::take(&mut run[index]))
            .collect();
        same.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        same.swap_remove(same.len() / 2)
    };
    (0..count).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, threads: u32, per_second: f64) -> Figure {
        Figure {
            name: name.to_owned(),
            threads,
            per_second,
            ..Figure::default()
        }
    }

    #[test]
    fn the_middle_run_of_each_figure_counts() {
        let run = |a, b| vec![figure("a", 1, a), figure("b", 1, b)];
        let found = median(vec![run(1.0, 9.0), run(3.0, 7.0), run(2.0, 8.0)]);
        let rates: Vec<f64> = found.iter().map(|f| f.per_second).collect();
        assert_eq!(rates, [2.0, 8.0]);
    }

    #[test]
    fn each_figure_has_its_rows() {
        let count = |name: &str, threads| {
            let figure = figure(name, threads, 1.0);
            rows(&Row {
                figure: &figure,
                path: String::new(),
            })
            .len()
        };
        assert_eq!(count("commits by ticket, 100 bytes, x2 of 256", 2), 1);
        assert_eq!(count("durable puts of 1024 KiB", 1), 2);
        assert_eq!(count("durable puts, 1000 bytes, x1", 1), 2);
        assert_eq!(count("durable puts, 1000 bytes, x16", 16), 0);
        assert_eq!(count("gets, warm, 1000 bytes, x1", 1), 3);
        assert_eq!(count("gets, cold, 1000 bytes, x16", 16), 1);
    }
}
