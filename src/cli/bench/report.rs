//! The results of a benchmark as a table, as JSON and as a figure.

use serde_json::{Value, json};

use super::super::output::{count_text, paths_text, size_text, time_text};
use super::plot::{Figure, Line};
use super::{Bench, Case, Pattern, Row};
use crate::metrics::Latency;

/// Reads and writes of this size and less are judged by operations, larger ones by bytes.
const SMALL: u64 = 64 << 10;

/// What holds for all cases.
pub(super) fn heading(bench: &Bench<'_>, runs: u32) -> String {
    format!(
        "{} of {} ({}), device {}, I/O by {}, median of {runs} runs",
        size_text(bench.size()),
        bench.path().display(),
        bench.file_system(),
        bench.context().device().info().name,
        bench.context().io_name()
    )
}

/// The names of the columns.
pub(super) fn table_head() -> String {
    format!(
        "{:<10} {:<4} {:<8} {:>6} {:>5} {:>3} {:>5} {:>7} {:>15} {:>8} {:>9} {:>9} {:>9} {:>4}  {}",
        "work",
        "page",
        "policy",
        "block",
        "depth",
        "thr",
        "batch",
        "GB/s",
        "min..max",
        "IOPS",
        "p50",
        "p99",
        "p99.9",
        "res%",
        "path"
    )
}

/// One case, and a line for each limit.
pub(super) fn table_row(row: &Row) -> String {
    let case = &row.case;
    let begin = format!(
        "{:<10} {:<4} {:<8} {:>6} {:>5} {:>3} {:>5}",
        case.work_text(),
        case.cache_text(),
        case.policy_text(),
        size_text(case.block),
        case.depth,
        case.threads,
        case.batch
    );
    let summary = match &row.result {
        Ok(summary) => summary,
        Err(error) => return format!("{begin} refused: {error}"),
    };
    let sample = &summary.median;
    let (least, most) = summary.extremes();
    let resident = sample.resident.map_or("?".to_owned(), |r| r.to_string());
    let mut text = format!(
        "{begin} {:>7.3} {:>15} {:>8} {:>9} {:>9} {:>9} {resident:>4}  {}",
        sample.rate(),
        format!("{least:.3}..{most:.3}"),
        count_text(sample.iops()),
        time_text(sample.latency.p50_ns),
        time_text(sample.latency.p99_ns),
        time_text(sample.latency.p999_ns),
        paths_text(sample.totals.paths)
    );
    for limit in &row.limits {
        let (ours, theirs) = match case.block <= SMALL {
            true => (sample.iops(), limit.iops),
            false => (sample.rate(), limit.rate),
        };
        text.push_str(&format!(
            "\n    limit {:<32} {:>7.3} GB/s {:>8} IOPS; ours is {:.2} of it",
            limit.name,
            limit.rate,
            count_text(limit.iops),
            ours / theirs.max(1e-12)
        ));
    }
    text
}

/// Everything as one JSON object.
pub(super) fn to_json(bench: &Bench<'_>, runs: u32, rows: &[Row]) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "file": bench.path().to_string_lossy(),
        "file_system": bench.file_system(),
        "size": bench.size(),
        "device": bench.context().device().info().name,
        "io": bench.context().io_name(),
        "runs": runs,
        "cases": rows.iter().map(row_json).collect::<Vec<_>>(),
    })
}

fn row_json(row: &Row) -> Value {
    let case = &row.case;
    let mut value = json!({
        "work": case.work_text(),
        "cache": case.cache_text(),
        "policy": case.policy_text(),
        "memory": case.memory_text(),
        "block": case.block,
        "depth": case.depth,
        "threads": case.threads,
        "batch": case.batch,
    });
    let result = match &row.result {
        Ok(summary) => {
            let sample = &summary.median;
            let (least, most) = summary.extremes();
            json!({
                "gb_per_second": sample.rate(),
                "gb_per_second_min": least,
                "gb_per_second_max": most,
                "gb_per_second_runs": summary.rates,
                "iops": sample.iops(),
                "bytes": sample.bytes,
                "seconds": sample.seconds,
                "latency_ns": latency_json(&sample.latency),
                "resident_percent": sample.resident,
                "path": sample.totals.main_path().name(),
                "paths": paths_text(sample.totals.paths),
                "retries": sample.totals.retries,
                "fallbacks": sample.totals.fallbacks,
                "limits": row.limits.iter().map(|limit| json!({
                    "name": limit.name,
                    "gb_per_second": limit.rate,
                    "iops": limit.iops,
                })).collect::<Vec<_>>(),
            })
        }
        Err(error) => json!({ "refused": error.message() }),
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut value, result) {
        all.extend(more);
    }
    value
}

fn latency_json(latency: &Latency) -> Value {
    json!({
        "mean": latency.mean_ns,
        "p50": latency.p50_ns,
        "p99": latency.p99_ns,
        "p99.9": latency.p999_ns,
        "max": latency.max_ns,
    })
}

/// Its label and its value in a case.
type Axis = (&'static str, fn(&Case) -> u64);

/// What varies most lies along the figure, the rest makes its lines.
pub(super) fn figure(rows: &[Row]) -> Figure {
    let axes: [Axis; 3] = [
        ("block, bytes", |c| c.block),
        ("depth", |c| u64::from(c.depth)),
        ("threads", |c| u64::from(c.threads)),
    ];
    let distinct = |axis: fn(&Case) -> u64| {
        let mut values: Vec<u64> = rows.iter().map(|row| axis(&row.case)).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    // On a tie the first axis: sizes before depths before threads.
    let mut along = axes[0];
    for axis in axes {
        if distinct(axis.1) > distinct(along.1) {
            along = axis;
        }
    }
    let by_operations = rows.iter().all(|row| row.case.block <= SMALL);
    let mut lines: Vec<Line> = Vec::new();
    let mut add = |name: String, limit: bool, x: u64, y: f64| match lines
        .iter_mut()
        .find(|line| line.name == name)
    {
        Some(line) => line.points.push((x, y)),
        None => lines.push(Line {
            name,
            limit,
            points: vec![(x, y)],
        }),
    };
    for row in rows {
        let Ok(summary) = &row.result else { continue };
        let x = along.1(&row.case);
        let value = |rate: f64, iops: f64| if by_operations { iops } else { rate };
        let mut name = row.case.policy_text().to_owned();
        for (label, axis) in axes {
            if label != along.0 && distinct(axis) > 1 {
                let short = label.split(',').next().unwrap_or(label);
                name.push_str(&format!(", {short} {}", size_text(axis(&row.case))));
            }
        }
        let sample = &summary.median;
        for limit in &row.limits {
            // The size in the middle of a limit's name changes along the figure.
            let kind = limit_kind(&limit.name, row.case.pattern);
            add(kind, true, x, value(limit.rate, limit.iops));
        }
        add(name, false, x, value(sample.rate(), sample.iops()));
    }
    let title = rows.first().map_or(String::new(), |row| {
        let c = &row.case;
        format!(
            "{}, {} page cache, {} memory",
            c.work_text(),
            c.cache_text(),
            c.memory_text()
        )
    });
    Figure {
        title,
        x_label: along.0,
        y_label: if by_operations {
            "operations a second"
        } else {
            "GB/s"
        },
        lines,
    }
}

fn limit_kind(name: &str, pattern: Pattern) -> String {
    let mut words: Vec<&str> = name.split(' ').collect();
    let last = words.pop().unwrap_or_default();
    words.pop();
    match pattern {
        // The threads of a sequential limit are chosen by us, so they make lines of their own.
        Pattern::Seq => format!("limit: {} {last}", words.join(" ")),
        Pattern::Rand => format!("limit: {}", words.join(" ")),
    }
}
