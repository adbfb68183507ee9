//! Durable puts of small values from many threads, and commits by ticket.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use crate::data::{self, KEY};
use crate::engine::{Commits, Engine, Op, Res, Tickets};
use crate::meter::{self, Recorder};
use crate::program::{Program, Run};
use crate::report::Row;

/// Values of one commit in the batch row.
const BATCH: u64 = 100;
/// Each thread's records start at a multiple of this.
const SPAN: u64 = 1 << 32;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    threads: Vec<usize>,
    /// Bytes of a value
    #[arg(long, default_value_t = 1000)]
    value: usize,
    /// Time of one run, seconds [default: 3, quick 0.3]
    #[arg(long)]
    seconds: Option<f64>,
    /// Threads of the ticket rows
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    ticket_threads: Vec<usize>,
    /// Commits that a thread has under way in the ticket rows
    #[arg(long, value_delimiter = ',', default_value = "64,256,4096")]
    outstanding: Vec<usize>,
    /// Bytes of the values of the ticket rows
    #[arg(long, value_delimiter = ',', default_value = "128,1000")]
    ticket_values: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Stage {
    Put {
        threads: usize,
    },
    Batch,
    Ticket {
        threads: usize,
        outstanding: usize,
        value: usize,
    },
}

pub struct Durable {
    value: usize,
    seconds: f64,
    stages: Vec<Stage>,
}

impl Durable {
    pub fn new(options: &Options, quick: bool) -> Res<Self> {
        let mut stages: Vec<_> = options
            .threads
            .iter()
            .map(|&threads| Stage::Put { threads })
            .collect();
        stages.push(Stage::Batch);
        for &value in &options.ticket_values {
            for &threads in &options.ticket_threads {
                for &outstanding in &options.outstanding {
                    stages.push(Stage::Ticket {
                        threads,
                        outstanding,
                        value,
                    });
                }
            }
        }
        let all = [
            &options.threads,
            &options.ticket_threads,
            &options.outstanding,
        ];
        let short = options.value < 16 || options.ticket_values.iter().any(|&v| v < 16);
        if all.iter().any(|list| list.contains(&0)) || short {
            return Err("threads and outstanding must be at least 1, values 16 bytes".into());
        }
        Ok(Self {
            value: options.value,
            seconds: options.seconds.unwrap_or(if quick { 0.3 } else { 3.0 }),
            stages,
        })
    }

    fn puts(&self, store: &dyn Engine, thread: usize, recorder: &mut Recorder) -> Res<u64> {
        let mut value = vec![0; self.value];
        let mut id = thread as u64 * SPAN;
        loop {
            data::fill(&mut value, id, data::mix(id));
            store.put_durable(&data::key_of(id), &value)?;
            id += 1;
            if !recorder.lap() {
                return Ok(id);
            }
        }
    }

    fn batches(&self, store: &dyn Engine, recorder: &mut Recorder) -> Res<u64> {
        let mut values = vec![0; self.value * BATCH as usize];
        let mut id = 0;
        loop {
            let keys: Vec<_> = (id..id + BATCH).map(data::key_of).collect();
            for (id, value) in (id..).zip(values.chunks_mut(self.value)) {
                data::fill(value, id, data::mix(id));
            }
            let puts = keys.iter().zip(values.chunks(self.value));
            let ops: Vec<_> = puts.map(|(key, value)| Op::Put(key, value)).collect();
            store.batch(&ops, true)?;
            id += BATCH;
            if !recorder.lap_batch(0, BATCH) {
                return Ok(id);
            }
        }
    }
}

/// Commits with so many under way; the latency is from the commit to the moment that it is seen
/// to be durable, which is looked for after each commit.
fn tickets(
    store: &dyn Tickets,
    (value, outstanding): (usize, usize),
    thread: usize,
    recorder: &mut Recorder,
) -> Res<u64> {
    let mut value = vec![0; value];
    let mut id = thread as u64 * SPAN;
    let mut waiting: VecDeque<(u64, Instant)> = VecDeque::with_capacity(outstanding);
    let mut go_on = true;
    while go_on || !waiting.is_empty() {
        let begin = Instant::now();
        if go_on {
            data::fill(&mut value, id, data::mix(id));
            let ticket = store.put(&data::key_of(id), &value)?;
            id += 1;
            waiting.push_back((ticket, begin));
        }
        let full = waiting.len() >= outstanding || !go_on;
        if full && let Some(&(oldest, _)) = waiting.front() {
            store.wait(oldest)?;
        }
        let durable = store.durable();
        if waiting
            .front()
            .is_some_and(|&(ticket, _)| ticket <= durable)
        {
            let now = Instant::now();
            while let Some(&(ticket, begin)) = waiting.front() {
                if ticket > durable {
                    break;
                }
                waiting.pop_front();
                go_on &= recorder.lap_since(begin, now);
            }
        }
    }
    Ok(id)
}

impl Program for Durable {
    fn name(&self) -> &'static str {
        "durable"
    }

    fn settings(&self) -> Value {
        json!({ "value_bytes": self.value, "seconds": self.seconds, "batch": BATCH })
    }

    fn stages(&self) -> usize {
        self.stages.len()
    }

    fn run(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        let (what, threads, size) = match self.stages[stage] {
            Stage::Put { threads } => ("put".to_owned(), threads, self.value),
            Stage::Batch => (format!("batch of {BATCH}"), 1, self.value),
            Stage::Ticket {
                threads,
                outstanding,
                value,
            } => (format!("ticket {value} B x{outstanding}"), threads, value),
        };
        run.clear()?;
        let store = run.open(Commits::Durable, false)?;
        if matches!(self.stages[stage], Stage::Ticket { .. }) && store.tickets().is_none() {
            return Ok(Vec::new());
        }
        let ends: Vec<_> = (0..threads).map(|_| AtomicU64::new(0)).collect();
        let measured = meter::drive(threads, self.seconds, 1, |thread, recorder| {
            let end = match (self.stages[stage], store.tickets()) {
                (Stage::Put { .. }, _) => self.puts(&*store, thread, recorder)?,
                (Stage::Ticket { outstanding, .. }, Some(store)) => {
                    tickets(store, (size, outstanding), thread, recorder)?
                }
                _ => self.batches(&*store, recorder)?,
            };
            ends[thread].store(end, Relaxed);
            Ok(())
        })?;
        store.flush()?;
        let bytes = (KEY + size) as f64;
        let total = bytes * measured.ops as f64;
        let row = Row::new(run, &what, threads, &measured, bytes)
            .commits(Commits::Durable)
            .write_amp(&measured, total)?
            .space(run, total)?;
        store.close()?;
        // Everything that was acknowledged is there.
        let store = run.open(Commits::Durable, false)?;
        let mut into = Vec::new();
        for (thread, end) in ends.iter().enumerate() {
            for id in thread as u64 * SPAN..end.load(Relaxed) {
                if run.check(&*store, id, &mut into)? != data::mix(id) || into.len() != size {
                    return Err(run.wrong(&format!("record {id} is another value")));
                }
            }
        }
        store.close()?;
        Ok(vec![row])
    }
}
