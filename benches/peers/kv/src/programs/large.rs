//! Durable large values: puts, overwrites, gets, and what space comes back with deletes.

use clap::Args;
use serde_json::{Value, json};

use crate::data::{self, KEY, Rng};
use crate::engine::{Commits, Engine, Res};
use crate::meter::{self, Measured};
use crate::program::{Program, Run};
use crate::report::Row;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Sizes of the values, MiB
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    sizes: Vec<usize>,
    /// Bytes of all values of a size together, MiB [default: 512, quick 48]
    #[arg(long)]
    total: Option<usize>,
    /// Threads that put and get
    #[arg(long, value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
}

pub struct Large {
    options: Options,
    total: usize,
}

/// One stage: size in MiB, values, threads.
struct Cell {
    mib: usize,
    count: u64,
    threads: usize,
}

impl Large {
    pub fn new(options: &Options, quick: bool) -> Res<Self> {
        let total = options.total.unwrap_or(if quick { 48 } else { 512 });
        let biggest = options.sizes.iter().max().copied().unwrap_or(0);
        if options.sizes.contains(&0) || total < biggest || options.threads.contains(&0) {
            return Err("sizes and threads must be at least 1, the total a size at least".into());
        }
        Ok(Self {
            options: options.clone(),
            total,
        })
    }

    fn cell(&self, stage: usize) -> Cell {
        let mib = self.options.sizes[stage / self.options.threads.len()];
        Cell {
            mib,
            count: (self.total / mib) as u64,
            threads: self.options.threads[stage % self.options.threads.len()],
        }
    }
}

/// Every value once, in random order, split among the threads.
fn each_once(
    cell: &Cell,
    salt: u64,
    body: impl Fn(&mut Vec<u8>, u64) -> Res<()> + Sync,
) -> Res<Measured> {
    let mut ids: Vec<u64> = (0..cell.count).collect();
    let mut rng = Rng(salt);
    for i in (1..ids.len()).rev() {
        ids.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let share = ids.len().div_ceil(cell.threads);
    meter::drive(cell.threads, f64::from(u32::MAX), 1, |thread, recorder| {
        let mut value = vec![0; cell.mib << 20];
        recorder.skip();
        for &id in ids.chunks(share).nth(thread).unwrap_or(&[]) {
            body(&mut value, id)?;
            recorder.lap();
        }
        Ok(())
    })
}

fn puts(store: &dyn Engine, cell: &Cell, version: u64) -> Res<Measured> {
    let measured = each_once(cell, version, |value, id| {
        data::fill(value, id, version);
        store.put_durable(&data::key_of(id), value)
    })?;
    store.flush()?;
    Ok(measured)
}

fn gets(run: &Run<'_>, store: &dyn Engine, cell: &Cell) -> Res<Measured> {
    each_once(cell, 3, |value, id| {
        let found = store.get(&data::key_of(id), value)?;
        if !found || value.len() != cell.mib << 20 {
            return Err(run.wrong(&format!("value {id} is lost")));
        }
        Ok(())
    })
}

impl Program for Large {
    fn name(&self) -> &'static str {
        "large"
    }

    fn settings(&self) -> Value {
        json!({ "total_mib": self.total })
    }

    fn stages(&self) -> usize {
        self.options.sizes.len() * self.options.threads.len()
    }

    fn run(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        let cell = self.cell(stage);
        let (mib, threads) = (cell.mib, cell.threads);
        let bytes = (KEY + (mib << 20)) as f64;
        let total = bytes * cell.count as f64;
        run.clear()?;
        let store = run.open(Commits::Durable, true)?;
        let mut rows = Vec::new();
        for (what, version) in [("put", 1), ("overwrite", 2)] {
            let measured = puts(&*store, &cell, version)?;
            let row = Row::new(run, &format!("{what} {mib} MiB"), threads, &measured, bytes)
                .commits(Commits::Durable)
                .write_amp(&measured, total)?
                .space(run, total)?;
            rows.push(row);
        }
        store.close()?;
        run.drop_caches()?;
        let store = run.open(Commits::Durable, true)?;
        for caches in ["cold", "warm"] {
            let measured = gets(run, &*store, &cell)?;
            let row = Row::new(run, &format!("get {mib} MiB"), threads, &measured, bytes)
                .caches(caches)
                .page_cache(run)?;
            rows.push(row);
        }
        let mut into = Vec::new();
        for id in 0..cell.count {
            if run.check(&*store, id, &mut into)? != 2 || into.len() != mib << 20 {
                return Err(run.wrong(&format!("value {id} is another one")));
            }
        }
        store.close()?;
        let store = run.open(Commits::Deferred, true)?;
        let measured = each_once(&cell, 4, |_, id| store.delete(&data::key_of(id)))?;
        store.flush()?;
        if run.scan_all(&*store, b"user", &mut |_, _| ())? != 0 {
            return Err(run.wrong("a deleted value is there"));
        }
        let left = meter::disk_bytes(&run.dir)? as f64 / f64::from(1 << 20);
        let row = Row::new(run, &format!("delete {mib} MiB"), threads, &measured, 0.0)
            .commits(Commits::Deferred)
            .with("left MiB", left);
        rows.push(row);
        store.close()?;
        Ok(rows)
    }
}
