//! Point reads of a warm store, without a clock reading for each.

use clap::Args;
use serde_json::{Value, json};

use crate::data::{self, KEY, Rng, Zipfian};
use crate::engine::{Commits, Op, Res};
use crate::meter;
use crate::program::{Program, Run};
use crate::report::Row;

/// Reads between two readings of the clock.
const BLOCK: usize = 100;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Records [default: 200000, quick 20000]
    #[arg(long)]
    records: Option<u64>,
    /// Bytes of a value
    #[arg(long, default_value_t = 1000)]
    value: usize,
    /// Time of one run, seconds [default: 2, quick 0.1]
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
}

const READS: &[&str] = &["get zipf", "get uniform", "exists zipf", "exists uniform"];

pub struct Reads {
    options: Options,
    records: u64,
    seconds: f64,
    zipf: Zipfian,
}

impl Reads {
    pub fn new(options: &Options, quick: bool) -> Res<Self> {
        let records = options
            .records
            .unwrap_or(if quick { 20_000 } else { 200_000 });
        if records == 0 || options.threads.contains(&0) {
            return Err("records and threads must be at least 1".into());
        }
        Ok(Self {
            records,
            seconds: options.seconds.unwrap_or(if quick { 0.1 } else { 2.0 }),
            zipf: Zipfian::new(records, 0.99),
            options: options.clone(),
        })
    }

    fn load(&self, run: &Run<'_>) -> Res<()> {
        run.clear()?;
        let store = run.open(Commits::Durable, false)?;
        let mut values = vec![vec![0; self.options.value]; 1000];
        for start in (0..self.records).step_by(values.len()) {
            let end = self.records.min(start + values.len() as u64);
            let keys: Vec<_> = (start..end).map(data::key_of).collect();
            for (id, value) in (start..end).zip(&mut values) {
                data::fill(value, id, 1);
            }
            let puts = keys.iter().zip(&values);
            let ops: Vec<_> = puts.map(|(key, value)| Op::Put(key, value)).collect();
            store.batch(&ops, true)?;
        }
        store.flush()?;
        store.close()
    }
}

impl Program for Reads {
    fn name(&self) -> &'static str {
        "reads"
    }

    fn settings(&self) -> Value {
        json!({
            "records": self.records, "value_bytes": self.options.value,
            "seconds": self.seconds, "reads_for_one_clock_reading": BLOCK,
        })
    }

    fn stages(&self) -> usize {
        READS.len() * self.options.threads.len()
    }

    fn run(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        if stage == 0 && run.round == 0 {
            self.load(run)?;
        }
        let what = READS[stage / self.options.threads.len()];
        let threads = self.options.threads[stage % self.options.threads.len()];
        let exists = what.starts_with("exists");
        let store = run.open(Commits::Deferred, false)?;
        run.check_some(&*store, self.records, self.records)?;
        let keys: Vec<Vec<[u8; KEY]>> = (0..threads)
            .map(|thread| {
                let mut rng = Rng(data::mix((stage * 64 + thread) as u64));
                let draw = |_| match what.ends_with("zipf") {
                    true => data::key_of(data::fnv(self.zipf.next(&mut rng)) % self.records),
                    false => data::key_of(rng.below(self.records)),
                };
                (0..(1 << 17)).map(draw).collect()
            })
            .collect();
        let measured = meter::drive(threads, self.seconds, 1, |thread, recorder| {
            let mut into = Vec::with_capacity(2 * self.options.value);
            for block in keys[thread].as_chunks::<BLOCK>().0.iter().cycle() {
                for key in block {
                    let found = if exists {
                        store.exists(key)?
                    } else {
                        store.get(key, &mut into)?
                    };
                    if !found {
                        return Err(run.wrong("a record is lost"));
                    }
                }
                if !recorder.lap_share(BLOCK as u64) {
                    return Ok(());
                }
            }
            Ok(())
        })?;
        let bytes = if exists { 0 } else { KEY + self.options.value };
        let row = Row::new(run, what, threads, &measured, bytes as f64)
            .caches("warm")
            .page_cache(run)?;
        store.close()?;
        Ok(vec![row])
    }
}
