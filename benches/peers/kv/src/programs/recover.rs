//! Opening a store whose process was killed.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::{Value, json};

use crate::data::{self, KEY};
use crate::engine::{Commits, Engine, Kind, Op, Res, Settings};
use crate::meter::Counters;
use crate::program::{Program, Run};
use crate::report::Row;

const BATCH: u64 = 1000;
/// Records that are checked besides the count.
const SAMPLE: u64 = 20_000;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Records [default: 1000000, quick 50000]
    #[arg(long)]
    records: Option<u64>,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value: usize,
}

/// What the process that dies is told.
#[derive(Args, Clone, Debug)]
pub struct Victim {
    #[arg(long)]
    engine: Kind,
    #[arg(long)]
    store: PathBuf,
    #[arg(long)]
    records: u64,
    #[arg(long)]
    value: usize,
    #[arg(long)]
    cache_bytes: u64,
}

/// Loads, syncs and is killed: no destructor runs and nothing is closed.
pub fn load_and_die(victim: &Victim) -> Res<()> {
    let settings = Settings {
        cache_bytes: victim.cache_bytes,
        commits: Commits::Deferred,
        large_values: false,
    };
    let store = victim.engine.open(&victim.store, &settings)?;
    let size = victim.value;
    let mut values = vec![0; size * BATCH as usize];
    for start in (0..victim.records).step_by(BATCH as usize) {
        let ids = start..victim.records.min(start + BATCH);
        let keys: Vec<_> = ids.clone().map(data::key_of).collect();
        for (id, value) in ids.zip(values.chunks_mut(size)) {
            data::fill(value, id, data::mix(id));
        }
        let puts = keys.iter().zip(values.chunks(size));
        let ops: Vec<_> = puts.map(|(key, value)| Op::Put(key, value)).collect();
        store.batch(&ops, false)?;
    }
    store.sync()?;
    // SAFETY: ends this process and no other.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    Err("a killed process goes on".into())
}

pub struct Recover {
    records: u64,
    value: usize,
}

impl Recover {
    pub fn new(options: &Options, quick: bool) -> Res<Self> {
        let records = options
            .records
            .unwrap_or(if quick { 50_000 } else { 1_000_000 });
        if records == 0 || options.value < 16 {
            return Err("there must be a record at least, and values of 16 bytes".into());
        }
        Ok(Self {
            records,
            value: options.value,
        })
    }

    fn load_and_kill(&self, run: &Run<'_>) -> Res<()> {
        let kind = clap::ValueEnum::to_possible_value(&run.kind).ok_or("an engine has no name")?;
        let status = Command::new(std::env::current_exe()?)
            .arg("load-and-die")
            .args(["--engine", kind.get_name()])
            .args([Path::new("--store"), &run.dir])
            .args(["--records", &self.records.to_string()])
            .args(["--value", &self.value.to_string()])
            .args(["--cache-bytes", &run.common.cache_bytes.to_string()])
            .status()?;
        if status.signal() != Some(libc::SIGKILL) {
            return Err(run.wrong(&format!("the loading process ended with {status}")));
        }
        Ok(())
    }

    /// Opens with nothing cached, up to the first value.
    fn open(&self, run: &Run<'_>, what: &str) -> Res<(Box<dyn Engine>, Row)> {
        run.drop_caches()?;
        let before = Counters::now()?;
        let store = run.open(Commits::Deferred, false)?;
        run.check(&*store, 0, &mut Vec::new())?;
        let used = before.used()?;
        let row = Row::bare(run, what)
            .caches("cold")
            .with("open ms", used.seconds * 1e3)
            .with("records/s", self.records as f64 / used.seconds)
            .with("CPU ms", used.own_seconds * 1e3)
            .with("read MB", used.read as f64 / 1e6)
            .with("written MB", used.written as f64 / 1e6)
            .with("others %", used.others);
        Ok((store, row))
    }
}

impl Program for Recover {
    fn name(&self) -> &'static str {
        "recover"
    }

    fn settings(&self) -> Value {
        json!({ "records": self.records, "value_bytes": self.value })
    }

    fn stages(&self) -> usize {
        1
    }

    fn run(&self, _stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        run.clear()?;
        self.load_and_kill(run)?;
        let (store, killed) = self.open(run, "open after a kill")?;
        run.check_some(&*store, self.records, SAMPLE)?;
        let count = run.scan_all(&*store, b"user", &mut |_, _| ())?;
        if count != self.records {
            let text = format!("{count} records came back of {}", self.records);
            return Err(run.wrong(&text));
        }
        let live = (KEY + self.value) as f64 * self.records as f64;
        let killed = killed.space(run, live)?;
        store.close()?;
        let (store, closed) = self.open(run, "open after a close")?;
        run.check_some(&*store, self.records, SAMPLE)?;
        store.close()?;
        Ok(vec![killed, closed])
    }
}
