//! Rows, medians, the table and the JSON.

use serde_json::{Map, Value, json};

use crate::engine::{Commits, Kind, Res};
use crate::meter::{self, Measured};
use crate::program::Run;

/// One measurement of one engine.
pub struct Row {
    pub engine: Kind,
    pub round: u32,
    /// What was measured: `A`, `put 1 KB`.
    pub what: String,
    pub threads: usize,
    /// `cold`, `warm` or `-`.
    pub caches: &'static str,
    pub commits: Option<Commits>,
    pub values: Vec<(&'static str, f64)>,
}

impl Row {
    /// A row with what every measurement has. `bytes` of keys and values went in or out with each
    /// operation.
    pub fn new(run: &Run<'_>, what: &str, threads: usize, measured: &Measured, bytes: f64) -> Self {
        let rate = measured.ops as f64 / measured.used.seconds.max(1e-9);
        let mut row = Self::bare(run, what);
        row.threads = threads;
        row.values = vec![
            ("ops", measured.ops as f64),
            ("seconds", measured.used.seconds),
            ("op/s", rate),
            ("MB/s", rate * bytes / 1e6),
            ("P50 us", measured.us(0, 50.0)),
            ("P99 us", measured.us(0, 99.0)),
            ("P99.9 us", measured.us(0, 99.9)),
            (
                "CPU us/op",
                measured.used.own_seconds * 1e6 / measured.ops.max(1) as f64,
            ),
            ("others %", measured.used.others),
        ];
        row
    }

    /// A row with nothing in it yet.
    pub fn bare(run: &Run<'_>, what: &str) -> Self {
        Self {
            engine: run.kind,
            round: run.round,
            what: what.to_owned(),
            threads: 1,
            caches: "-",
            commits: None,
            values: Vec::new(),
        }
    }

    pub fn caches(mut self, caches: &'static str) -> Self {
        self.caches = caches;
        self
    }

    pub fn commits(mut self, commits: Commits) -> Self {
        self.commits = Some(commits);
        self
    }

    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.values.push((name, value));
        self
    }

    /// Bytes that the disk was given since the run began, for each byte of keys and values that
    /// it wrote. After `flush`, so that nothing is left to write.
    pub fn write_amp(self, measured: &Measured, user_bytes: f64) -> Res<Self> {
        let written = measured.before.used()?.written as f64;
        Ok(self.with("write amp", written / user_bytes.max(1.0)))
    }

    /// Space on disk for each byte of keys and values that is alive, and the page cache's share.
    pub fn space(self, run: &Run<'_>, live_bytes: f64) -> Res<Self> {
        let space = meter::disk_bytes(&run.dir)? as f64;
        self.with("space amp", space / live_bytes.max(1.0))
            .page_cache(run)
    }

    pub fn page_cache(self, run: &Run<'_>) -> Res<Self> {
        let cached = meter::page_cache_bytes(&run.dir)? as f64;
        Ok(self.with("cached MiB", cached / f64::from(1 << 20)))
    }

    fn group(&self) -> (String, usize, &'static str, Option<Commits>) {
        (self.what.clone(), self.threads, self.caches, self.commits)
    }

    fn promise(&self) -> &'static str {
        self.commits
            .map_or("-", |commits| self.engine.promise(commits))
    }

    fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("engine".into(), json!(self.engine.name()));
        map.insert("round".into(), json!(self.round));
        map.insert("what".into(), json!(self.what));
        map.insert("threads".into(), json!(self.threads));
        map.insert("caches".into(), json!(self.caches));
        map.insert("durability".into(), json!(self.promise()));
        for (name, value) in &self.values {
            map.insert((*name).into(), json!(value));
        }
        Value::Object(map)
    }
}

/// The rows of each engine's rounds made one, number by number, in the order of the programs.
pub fn medians(rows: &[Row]) -> Vec<Row> {
    let mut done: Vec<Row> = Vec::new();
    for row in rows {
        let same = |r: &&Row| r.group() == row.group() && r.engine == row.engine;
        if done.iter().any(|r| same(&r)) {
            continue;
        }
        let all: Vec<&Row> = rows.iter().filter(same).collect();
        let median = |name: &str| {
            let mut values: Vec<f64> = all
                .iter()
                .flat_map(|r| &r.values)
                .filter(|(n, _)| *n == name)
                .map(|(_, value)| *value)
                .collect();
            values.sort_by(f64::total_cmp);
            let n = values.len();
            f64::midpoint(values[(n - 1) / 2], values[n / 2])
        };
        let values = row.values.iter().map(|(n, _)| (*n, median(n))).collect();
        done.push(Row {
            engine: row.engine,
            round: 0,
            what: row.what.clone(),
            threads: row.threads,
            caches: row.caches,
            commits: row.commits,
            values,
        });
    }
    done
}

const COLUMNS: &[(&str, usize)] = &[
    ("op/s", 11),
    ("MB/s", 8),
    ("P50 us", 9),
    ("P99 us", 9),
    ("P99.9 us", 10),
    ("CPU us/op", 10),
    ("write amp", 10),
    ("space amp", 10),
    ("cached MiB", 11),
    ("others %", 9),
];

fn number(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else if value >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The table of one program's medians, engines below each other.
pub fn table(program: &str, medians: &[Row]) -> String {
    let mut text = format!("\n{program}\n");
    text.push_str(&format!("{:<46}", "what, threads, caches"));
    for (name, width) in COLUMNS {
        text.push_str(&format!("{name:>width$}"));
    }
    text.push_str("  durability; more\n");
    let mut groups: Vec<_> = Vec::new();
    for row in medians {
        if !groups.contains(&row.group()) {
            groups.push(row.group());
        }
    }
    for group in groups {
        for row in medians.iter().filter(|row| row.group() == group) {
            let name = format!(
                "{:<24} {:>2} thr {:<5} {}",
                row.what,
                row.threads,
                row.caches,
                row.engine.name()
            );
            text.push_str(&format!("{name:<46}"));
            for (name, width) in COLUMNS {
                let value = row.values.iter().find(|(n, _)| n == name);
                let value = value.map_or_else(|| "-".to_owned(), |(_, v)| number(*v));
                text.push_str(&format!("{value:>width$}"));
            }
            text.push_str(&format!("  {}", row.promise()));
            let hidden = ["ops", "seconds"];
            for (name, value) in &row.values {
                if !hidden.contains(name) && COLUMNS.iter().all(|(n, _)| n != name) {
                    text.push_str(&format!("; {name} {}", number(*value)));
                }
            }
            text.push('\n');
        }
    }
    text
}

/// Everything for a machine to read: all rounds and their medians.
pub fn json(program: &str, settings: &Value, rows: &[Row], medians: &[Row]) -> Value {
    json!({
        "program": program,
        "settings": settings,
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "medians": medians.iter().map(Row::json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_rounds_of_one_engine_and_line() {
        let row = |engine, round, threads, value| Row {
            engine,
            round,
            what: "x".to_owned(),
            threads,
            caches: "-",
            commits: None,
            values: vec![("op/s", value)],
        };
        let rows = [
            row(Kind::Redb, 0, 1, 30.0),
            row(Kind::Fjall, 0, 1, 1.0),
            row(Kind::Redb, 1, 1, 10.0),
            row(Kind::Fjall, 1, 1, 2.0),
            row(Kind::Redb, 2, 1, 20.0),
            row(Kind::Redb, 0, 2, 7.0),
        ];
        let found: Vec<_> = medians(&rows)
            .iter()
            .map(|row| (row.engine, row.threads, row.values[0].1))
            .collect();
        let expected = [
            (Kind::Redb, 1, 20.0),
            (Kind::Fjall, 1, 1.5),
            (Kind::Redb, 2, 7.0),
        ];
        assert_eq!(found, expected);
    }
}
