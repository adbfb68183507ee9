//! YCSB's core workloads A to F.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::data::{self, KEY, Rng, Zipfian};
use crate::engine::{Commits, Engine, Kind, Op, Res};
use crate::meter::{self, Recorder};
use crate::program::{Program, Run};
use crate::report::Row;

/// Records of one commit of the load.
const LOAD_BATCH: u64 = 1000;
/// Records that are checked after each run; all are checked at the end.
const SAMPLE: u64 = 2000;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Workloads, in the order of their running
    #[arg(long, default_value = "ABCFDE")]
    workloads: String,
    /// Records loaded [default: 200000, quick 20000]
    #[arg(long)]
    records: Option<u64>,
    /// Operations of one warm run, all threads together [default: 400000, quick 20000]
    #[arg(long)]
    ops: Option<u64>,
    /// Operations of one cold run; few, so that they stay cold [default: a twentieth of records]
    #[arg(long)]
    cold_ops: Option<u64>,
    /// Longest time of one run, seconds [default: 5, quick 0.3]
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Which rows
    #[arg(long, value_delimiter = ',', default_value = "cold,warm")]
    caches: Vec<Caches>,
    /// Bytes of a value: YCSB's 10 fields of 100 bytes
    #[arg(long, default_value_t = 1000)]
    value: usize,
    /// Zipfian constant
    #[arg(long, default_value_t = 0.99)]
    theta: f64,
    /// Commit synced instead of deferred
    #[arg(long)]
    synced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Caches {
    Cold,
    Warm,
}

#[derive(Clone, Copy)]
enum Action {
    Read,
    Update,
    Insert,
    Scan,
    ReadModifyWrite,
}

/// Percent of each action, and whether reads prefer the latest records.
struct Workload {
    name: char,
    mix: [(Action, u64); 2],
    latest: bool,
}

impl Workload {
    fn of(name: char) -> Res<Self> {
        use Action::{Insert, Read, ReadModifyWrite, Scan, Update};
        let (mix, latest) = match name.to_ascii_uppercase() {
            'A' => ([(Read, 50), (Update, 50)], false),
            'B' => ([(Read, 95), (Update, 5)], false),
            'C' => ([(Read, 100), (Read, 0)], false),
            'D' => ([(Read, 95), (Insert, 5)], true),
            'E' => ([(Scan, 95), (Insert, 5)], false),
            'F' => ([(Read, 50), (ReadModifyWrite, 50)], false),
            _ => return Err(format!("workload {name}: there are A to F").into()),
        };
        let name = name.to_ascii_uppercase();
        Ok(Self { name, mix, latest })
    }
}

/// Records that were inserted, and up to where all of them are acknowledged, so that nobody reads
/// a record that is on its way.
struct Inserts {
    next: AtomicU64,
    acknowledged: AtomicU64,
    done: Vec<AtomicBool>,
}

impl Inserts {
    fn new(from: u64) -> Self {
        Self {
            next: AtomicU64::new(from),
            acknowledged: AtomicU64::new(from),
            // Far more than there are threads.
            done: (0..4096).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn slot(&self, id: u64) -> &AtomicBool {
        &self.done[id as usize % self.done.len()]
    }

    fn acknowledge(&self, id: u64) {
        self.slot(id)
            .store(true, std::sync::atomic::Ordering::Release);
        while self
            .slot(self.acknowledged.load(Acquire))
            .swap(false, AcqRel)
        {
            self.acknowledged.fetch_add(1, AcqRel);
        }
    }
}

/// One operation, drawn before the clock runs.
#[derive(Clone, Copy)]
struct Draw {
    rank: u32,
    action: Action,
    length: u8,
}

/// A store's records, and all that was written to it since the load began.
#[derive(Clone, Copy, Default)]
struct Past {
    records: u64,
    /// Bytes of keys and values.
    put: f64,
    /// Bytes to the disk.
    written: f64,
}

pub struct Ycsb {
    options: Options,
    workloads: Vec<Workload>,
    records: u64,
    ops: u64,
    cold_ops: u64,
    seconds: f64,
    commits: Commits,
    zipf: Zipfian,
    /// What each engine's store has been through.
    stores: Mutex<HashMap<Kind, Past>>,
}

impl Ycsb {
    pub fn new(options: &Options, quick: bool) -> Res<Self> {
        let records = options
            .records
            .unwrap_or(if quick { 20_000 } else { 200_000 });
        let workloads: Res<Vec<_>> = options.workloads.chars().map(Workload::of).collect();
        if records == 0 || u32::try_from(records).is_err() || options.threads.contains(&0) {
            return Err("records must be 1 to 4294967295 and threads at least 1".into());
        }
        Ok(Self {
            workloads: workloads?,
            records,
            ops: options.ops.unwrap_or(if quick { 20_000 } else { 400_000 }),
            cold_ops: options.cold_ops.unwrap_or(records.div_ceil(20)),
            seconds: options.seconds.unwrap_or(if quick { 0.3 } else { 5.0 }),
            commits: if options.synced {
                Commits::Durable
            } else {
                Commits::Deferred
            },
            zipf: Zipfian::new(records, options.theta),
            stores: Mutex::new(HashMap::new()),
            options: options.clone(),
        })
    }

    /// Workload, threads and caches of a stage after the load.
    fn cell(&self, stage: usize) -> (&Workload, usize, Caches) {
        let (threads, caches) = (&self.options.threads, &self.options.caches);
        let workload = &self.workloads[stage / (threads.len() * caches.len())];
        let thread = threads[stage / caches.len() % threads.len()];
        (workload, thread, caches[stage % caches.len()])
    }

    fn record_bytes(&self) -> f64 {
        (KEY + self.options.value) as f64
    }

    fn past(&self, kind: Kind) -> Past {
        let stores = self.stores.lock().ok();
        stores
            .and_then(|stores| stores.get(&kind).copied())
            .unwrap_or_default()
    }

    fn remember(&self, kind: Kind, past: Past) {
        if let Ok(mut stores) = self.stores.lock() {
            stores.insert(kind, past);
        }
    }

    fn load(&self, run: &Run<'_>) -> Res<Vec<Row>> {
        run.clear()?;
        let store = run.open(Commits::Durable, false)?;
        let size = self.options.value;
        let measured = meter::drive(1, f64::from(u32::MAX), 1, |_, recorder| {
            let mut values = vec![0; size * LOAD_BATCH as usize];
            for start in (0..self.records).step_by(LOAD_BATCH as usize) {
                let ids = start..self.records.min(start + LOAD_BATCH);
                let keys: Vec<_> = ids.clone().map(data::key_of).collect();
                for (id, value) in ids.clone().zip(values.chunks_mut(size)) {
                    data::fill(value, id, data::mix(id));
                }
                let ops: Vec<_> = keys
                    .iter()
                    .zip(values.chunks(size))
                    .map(|(key, value)| Op::Put(key, value))
                    .collect();
                store.batch(&ops, true)?;
                recorder.lap_batch(0, ids.end - ids.start);
            }
            Ok(())
        })?;
        let settle = Instant::now();
        store.flush()?;
        let settle = settle.elapsed().as_secs_f64();
        let bytes = self.record_bytes() * self.records as f64;
        let row = Row::new(run, "load, batch 1000", 1, &measured, self.record_bytes())
            .commits(Commits::Durable)
            .write_amp(&measured, bytes)?
            .space(run, bytes)?
            .with("settle s", settle);
        run.check_some(&*store, self.records, SAMPLE)?;
        store.close()?;
        let past = Past {
            records: self.records,
            put: bytes,
            written: measured.before.used()?.written as f64,
        };
        self.remember(run.kind, past);
        Ok(vec![row])
    }

    fn draws(&self, workload: &Workload, ops: u64, salt: u64) -> Vec<Draw> {
        let mut rng = Rng(salt);
        (0..ops)
            .map(|_| {
                let first = rng.below(100) < workload.mix[0].1;
                Draw {
                    action: workload.mix[usize::from(!first)].0,
                    rank: self.zipf.next(&mut rng) as u32,
                    length: rng.between(1, 100) as u8,
                }
            })
            .collect()
    }

    /// The record of a rank: spread by a hash, or counted back from the latest.
    fn record(&self, workload: &Workload, rank: u32, inserts: &Inserts) -> u64 {
        if workload.latest {
            let latest = inserts.acknowledged.load(Acquire) - 1;
            return latest - u64::from(rank).min(latest);
        }
        data::fnv(u64::from(rank)) % self.records
    }

    /// One thread's operations; how many values it wrote.
    fn work(
        &self,
        run: &Run<'_>,
        store: &dyn Engine,
        (workload, inserts): (&Workload, &Inserts),
        draws: &[Draw],
        recorder: &mut Recorder,
    ) -> Res<u64> {
        let size = self.options.value;
        let (mut value, mut into) = (vec![0; size], Vec::with_capacity(2 * size));
        let mut wrote = 0;
        for (index, draw) in draws.iter().enumerate() {
            let id = match draw.action {
                Action::Insert => inserts.next.fetch_add(1, AcqRel),
                _ => self.record(workload, draw.rank, inserts),
            };
            let key = data::key_of(id);
            if matches!(draw.action, Action::Read | Action::ReadModifyWrite) {
                let found = store.get(&key, &mut into)?;
                if !found || into.len() != size {
                    return Err(run.wrong(&format!("record {id} is lost")));
                }
            }
            if let Action::Scan = draw.action {
                into.clear();
                store.scan(&key, usize::from(draw.length), &mut |key, value| {
                    into.extend_from_slice(key);
                    into.extend_from_slice(value);
                })?;
            }
            if matches!(
                draw.action,
                Action::Update | Action::Insert | Action::ReadModifyWrite
            ) {
                let seed = data::mix(id ^ (index as u64) << 32);
                data::fill(&mut value, id, seed);
                match self.commits {
                    Commits::Durable => store.put_durable(&key, &value)?,
                    Commits::Deferred => store.put(&key, &value)?,
                }
                wrote += 1;
                if let Action::Insert = draw.action {
                    inserts.acknowledge(id);
                }
            }
            if !recorder.lap() {
                break;
            }
        }
        Ok(wrote)
    }

    fn measure(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        let (workload, threads, caches) = self.cell(stage);
        let mut past = self.past(run.kind);
        let before = past.records;
        let cold = caches == Caches::Cold;
        if cold {
            run.drop_caches()?;
        }
        let store = run.open(self.commits, false)?;
        if !cold {
            // Fills the engine's cache as the run's own reads would.
            let read = Workload::of('C')?;
            let inserts = Inserts::new(before);
            let draws = self.draws(&read, self.ops.min(2 * self.records), !0);
            meter::drive(1, self.seconds, 1, |_, recorder| {
                self.work(run, &*store, (&read, &inserts), &draws, recorder)?;
                Ok(())
            })?;
        }
        let ops = if cold { self.cold_ops } else { self.ops };
        let share = ops.div_ceil(threads as u64);
        let salt = (stage as u64) << 32 | u64::from(run.round) << 16;
        let draws: Vec<_> = (0..threads as u64)
            .map(|thread| self.draws(workload, share, data::mix(salt + thread)))
            .collect();
        let inserts = Inserts::new(before);
        let wrote = AtomicU64::new(0);
        let measured = meter::drive(threads, self.seconds, 1, |thread, recorder| {
            let what = (workload, &inserts);
            let count = self.work(run, &*store, what, &draws[thread], recorder)?;
            wrote.fetch_add(count, AcqRel);
            Ok(())
        })?;
        let (wrote, after) = (wrote.into_inner(), inserts.next.into_inner());
        let mut row = Row::new(run, &workload.name.to_string(), threads, &measured, 0.0)
            .caches(if cold { "cold" } else { "warm" })
            .page_cache(run)?;
        row.values.retain(|(name, _)| *name != "MB/s");
        if wrote > 0 {
            store.flush()?;
            let bytes = self.record_bytes() * wrote as f64;
            row = row.commits(self.commits);
            past.put += bytes;
            past.written += measured.before.used()?.written as f64;
            // A cold run writes too little for this to say anything.
            if !cold {
                row = row.write_amp(&measured, bytes)?;
            }
        }
        run.check_some(&*store, after, SAMPLE)?;
        let mut into = Vec::new();
        for id in (before..after).rev().take(SAMPLE as usize) {
            run.check(&*store, id, &mut into)?;
        }
        store.close()?;
        past.records = after;
        self.remember(run.kind, past);
        Ok(vec![row])
    }

    /// Every record is there once and whole. What the whole of it cost to write.
    fn verify(&self, run: &Run<'_>) -> Res<Vec<Row>> {
        let past = self.past(run.kind);
        let store = run.open(self.commits, false)?;
        run.check_some(&*store, past.records, past.records)?;
        let count = run.scan_all(&*store, b"user", &mut |_, _| ())?;
        if count != past.records {
            let text = format!("a scan found {count} records of {}", past.records);
            return Err(run.wrong(&text));
        }
        store.close()?;
        let row = Row::bare(run, "load and all runs")
            .commits(self.commits)
            .with("write amp", past.written / past.put)
            .space(run, self.record_bytes() * past.records as f64)?;
        Ok(vec![row])
    }
}

impl Program for Ycsb {
    fn name(&self) -> &'static str {
        "ycsb"
    }

    fn settings(&self) -> Value {
        json!({
            "records": self.records, "ops": self.ops, "cold_ops": self.cold_ops,
            "seconds": self.seconds, "value_bytes": self.options.value,
            "zipfian": self.options.theta, "load_batch": LOAD_BATCH,
        })
    }

    /// The load, the cells, and a check of everything.
    fn stages(&self) -> usize {
        self.workloads.len() * self.options.threads.len() * self.options.caches.len() + 2
    }

    fn run(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        if stage == 0 {
            return self.load(run);
        }
        if stage + 1 < self.stages() {
            return self.measure(stage - 1, run);
        }
        if run.round > 0 {
            return Ok(Vec::new());
        }
        self.verify(run)
    }
}
