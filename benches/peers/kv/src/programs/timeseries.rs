//! Time series: points of many series appended in the order of time, and ranges read back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clap::Args;
use serde_json::{Value, json};

use crate::data::{self, Rng};
use crate::engine::{Commits, Engine, Op, Res};
use crate::meter::{self, Recorder};
use crate::program::{Program, Run};
use crate::report::Row;

/// Bytes of a key: time and series, big-endian.
const KEY: usize = 12;
/// Batches between two pairs of range reads.
const BATCHES: u64 = 50;
/// Points of one range read.
const RANGE: u64 = 1000;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Series; a batch is one point of each
    #[arg(long, default_value_t = 100)]
    series: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 64)]
    value: usize,
    /// Time of one run, seconds [default: 5, quick 0.5]
    #[arg(long)]
    seconds: Option<f64>,
}

const COMMITS: [Commits; 2] = [Commits::Deferred, Commits::Durable];

pub struct Timeseries {
    options: Options,
    seconds: f64,
}

impl Timeseries {
    pub fn new(options: &Options, quick: bool) -> Res<Self> {
        if options.series == 0 || options.value < 16 {
            return Err("there must be a series at least, and values of 16 bytes".into());
        }
        Ok(Self {
            seconds: options.seconds.unwrap_or(if quick { 0.5 } else { 5.0 }),
            options: options.clone(),
        })
    }

    fn key(&self, point: u64) -> [u8; KEY] {
        let mut key = [0; KEY];
        key[..8].copy_from_slice(&(point / self.options.series).to_be_bytes());
        key[8..].copy_from_slice(&((point % self.options.series) as u32).to_be_bytes());
        key
    }

    fn range(&self, run: &Run<'_>, store: &dyn Engine, from: u64, into: &mut Vec<u8>) -> Res<()> {
        into.clear();
        let seen = store.scan(&self.key(from), RANGE as usize, &mut |key, value| {
            into.extend_from_slice(key);
            into.extend_from_slice(value);
        })?;
        if seen as u64 != RANGE {
            return Err(run.wrong(&format!("a range has {seen} points of {RANGE}")));
        }
        Ok(())
    }

    /// How many points it put.
    fn ingest(
        &self,
        run: &Run<'_>,
        store: &dyn Engine,
        commits: Commits,
        recorder: &mut Recorder,
    ) -> Res<u64> {
        let (series, size) = (self.options.series, self.options.value);
        let mut values = vec![0; size * series as usize];
        let mut rng = Rng(5);
        let (mut point, mut batches) = (0, 0);
        let mut into = Vec::new();
        loop {
            let keys: Vec<_> = (point..point + series).map(|p| self.key(p)).collect();
            for (p, value) in (point..).zip(values.chunks_mut(size)) {
                data::fill(value, p, data::mix(p));
            }
            let puts = keys.iter().zip(values.chunks(size));
            let ops: Vec<_> = puts.map(|(key, value)| Op::Put(key, value)).collect();
            store.batch(&ops, commits == Commits::Durable)?;
            point += series;
            batches += 1;
            let mut go_on = recorder.lap_batch(0, series);
            if batches % BATCHES == 0 && point >= RANGE {
                self.range(run, store, point - RANGE, &mut into)?;
                recorder.lap_batch(1, 0);
                self.range(run, store, rng.below(point - RANGE + 1), &mut into)?;
                go_on = recorder.lap_batch(2, 0);
            }
            if !go_on {
                return Ok(point);
            }
        }
    }
}

impl Program for Timeseries {
    fn name(&self) -> &'static str {
        "timeseries"
    }

    fn settings(&self) -> Value {
        json!({
            "series": self.options.series, "value_bytes": self.options.value,
            "seconds": self.seconds, "range_points": RANGE, "batches_between_ranges": BATCHES,
        })
    }

    fn stages(&self) -> usize {
        COMMITS.len()
    }

    fn run(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        let commits = COMMITS[stage];
        run.clear()?;
        let store = run.open(commits, false)?;
        let points = AtomicU64::new(0);
        let measured = meter::drive(1, self.seconds, 3, |_, recorder| {
            points.store(self.ingest(run, &*store, commits, recorder)?, Relaxed);
            Ok(())
        })?;
        store.flush()?;
        let points = points.into_inner();
        let bytes = (KEY + self.options.value) as f64;
        let total = bytes * points as f64;
        let what = format!("ingest, batch {}", self.options.series);
        let mut row = Row::new(run, &what, 1, &measured, bytes)
            .commits(commits)
            .write_amp(&measured, total)?
            .space(run, total)?;
        for (kind, names) in [
            (1, ["recent P50 us", "recent P99 us"]),
            (2, ["old P50 us", "old P99 us"]),
        ] {
            row = row
                .with(names[0], measured.us(kind, 50.0))
                .with(names[1], measured.us(kind, 99.0));
        }
        store.close()?;
        let store = run.open(commits, false)?;
        let mut expected = 0;
        let mut right = true;
        let count = run.scan_all(&*store, b"", &mut |key, value| {
            let version = data::version_of(value, expected);
            right &= key == self.key(expected) && version == Some(data::mix(expected));
            expected += 1;
        })?;
        if !right || count != points {
            return Err(run.wrong(&format!(
                "a scan found {count} points of {points}, or others"
            )));
        }
        store.close()?;
        Ok(vec![row])
    }
}
