//! Measures a store: durable puts, tickets, large values, gets, scans. `gds validate` uses it too.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::super::output::Outcome;
use super::super::super::scratch::{mix, random_bytes};
use super::limit::{self, Plain, nanoseconds, on_threads};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::store::{KvConfig, KvStats, Store};
use crate::kv::wal::Lsn;
use crate::metrics::{Histogram, Latency};

/// Gets that one clock reading covers, where each takes less than the clock.
const GETS: u64 = 64;

/// Which figures are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Kinds {
    pub(in crate::cli) puts: bool,
    pub(in crate::cli) tickets: bool,
    pub(in crate::cli) large: bool,
    pub(in crate::cli) gets: bool,
    pub(in crate::cli) scans: bool,
}

impl Kinds {
    pub(in crate::cli) const ALL: Self = Self {
        puts: true,
        tickets: true,
        large: true,
        gets: true,
        scans: true,
    };
}

/// What is measured, and how much of it.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Setup {
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) config: KvConfig,
    pub(in crate::cli) seconds: f64,
    pub(in crate::cli) value: usize,
    pub(in crate::cli) large: u64,
    pub(in crate::cli) large_total: u64,
    pub(in crate::cli) keys: u64,
    pub(in crate::cli) threads: Vec<u32>,
    pub(in crate::cli) ticket_threads: u32,
    pub(in crate::cli) tickets: u32,
}

/// One figure.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Figure {
    pub(in crate::cli) name: String,
    pub(in crate::cli) threads: u32,
    pub(in crate::cli) per_second: f64,
    /// 0 where bytes are not what counts.
    pub(in crate::cli) bytes_per_second: f64,
    pub(in crate::cli) latency: Latency,
    pub(in crate::cli) write_amplification: Option<f64>,
    /// In the same unit, and how it was measured.
    pub(in crate::cli) limit: Option<(f64, String)>,
    /// Latency of the limit, where it has one.
    pub(in crate::cli) limit_latency: Latency,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(in crate::cli) struct Found {
    pub(in crate::cli) figures: Vec<Figure>,
    pub(in crate::cli) stats: KvStats,
}

/// Removes the store that was measured.
pub(in crate::cli) struct Remover(pub(in crate::cli) PathBuf);

impl Drop for Remover {
    fn drop(&mut self) {
        let _ = Store::destroy(&self.0);
    }
}

fn key(number: u64) -> Vec<u8> {
    let mut key = b"user".to_vec();
    key.extend(format!("{:016x}", mix(number)).into_bytes());
    key
}

impl Setup {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Measures, and hands each figure on as soon as it is known.
    pub(in crate::cli) fn measure(
        &self,
        kinds: Kinds,
        tell: &mut dyn FnMut(&Figure) -> Outcome,
    ) -> Outcome<Found> {
        let mut found = Found::default();
        let warm = KvConfig {
            // All small values, their headers and what pages round up to.
            cache_bytes: self
                .keys
                .saturating_mul(2 * self.value as u64 + 256)
                .max(64 << 20),
            ..self.config.clone()
        };
        let mut store = Store::open(&self.path, warm.clone())?;
        let plain = Plain::beside(&self.path)?;
        let mut add = |figure: Figure| {
            tell(&figure)?;
            found.figures.push(figure);
            Outcome::Ok(())
        };
        if kinds.puts {
            let (rate, latency) = plain.durable_blocks(self.time())?;
            for threads in &self.threads {
                let mut figure = self.puts(&store, *threads)?;
                figure.limit = Some((rate, "durable writes of 4K, one at a time".to_owned()));
                figure.limit_latency = latency;
                add(figure)?;
            }
        }
        if kinds.tickets {
            let mut figure = self.tickets(&store)?;
            let bytes = plain.durable_bulk(self.time())?;
            let record = self.ticket_bytes(&store)?;
            figure.limit = Some((
                bytes / record,
                "durable writes of 1M, as records".to_owned(),
            ));
            add(figure)?;
        }
        if kinds.large {
            let mut figure = self.large(&store)?;
            let bytes = plain.large(self.large, self.time())?;
            figure.limit = Some((bytes, "write and flush of each".to_owned()));
            add(figure)?;
            let mut figure = self.large_gets(&store)?;
            let reads = plain.reads(self.large as usize, 1, self.time())?;
            let size = self.large.min(64 << 20) as f64;
            figure.limit = Some((reads * size, "plain reads of that size".to_owned()));
            add(figure)?;
        }
        if kinds.gets || kinds.scans {
            self.load(&store)?;
        }
        if kinds.gets {
            // Each once, so that it is in memory.
            let mut into = vec![0; self.value];
            for number in 0..self.keys {
                store.get_into(&key(number), 0, &mut into)?;
            }
            for threads in &self.threads {
                let mut figure = self.gets(&store, *threads, "gets, warm")?;
                let rate = limit::map_gets(self.keys, self.value, *threads, self.time(), &key)?;
                figure.limit = Some((rate, "a HashMap in an RwLock".to_owned()));
                add(figure)?;
            }
            // The pages of small values leave memory with the store.
            store.close()?;
            let config = KvConfig {
                cache_bytes: 64 << 10,
                ..self.config.clone()
            };
            let cold = Store::open(&self.path, config)?;
            for threads in &self.threads {
                let mut figure = self.gets(&cold, *threads, "gets, cold")?;
                let rate = plain.reads(16 << 10, *threads, self.time())?;
                figure.limit = Some((rate, "plain reads of 16K".to_owned()));
                add(figure)?;
            }
            drop(cold);
            store = Store::open(&self.path, warm)?;
        }
        if kinds.scans {
            add(self.scan(&store)?)?;
        }
        found.stats = store.stats();
        Ok(found)
    }

    fn puts(&self, store: &Store, threads: u32) -> Result<Figure> {
        let (time, value) = (self.time(), random_bytes(self.value));
        let histogram = Histogram::default();
        let began = Instant::now();
        let counts = on_threads(threads, |thread| {
            let mut count = 0u64;
            while began.elapsed() < time {
                let one = Instant::now();
                store.put(&key((u64::from(thread) << 32) | (count % 10_000)), &value)?;
                histogram.record(nanoseconds(one));
                count += 1;
            }
            Ok(count)
        })?;
        let count = counts.iter().sum::<u64>() as f64;
        Ok(Figure {
            name: format!("durable puts, {} bytes, x{threads}", self.value),
            threads,
            per_second: count / began.elapsed().as_secs_f64(),
            latency: histogram.summary(),
            ..Figure::default()
        })
    }

    /// Bytes of the log that one commit with a ticket takes.
    fn ticket_bytes(&self, store: &Store) -> Result<f64> {
        let stats = store.stats();
        if stats.wal_commits == 0 {
            return Err(Error::new(
                ErrorKind::Internal,
                "no commit was counted; report this",
            ));
        }
        // Key, value and the headers of the record.
        Ok((TICKET_VALUE + key(0).len() + crate::kv::wal::record_bytes(0) + 4) as f64)
    }

    /// Commits without waiting; each is timed until the log says that it is durable.
    fn tickets(&self, store: &Store) -> Result<Figure> {
        let (time, value) = (self.time(), random_bytes(TICKET_VALUE));
        let (tickets, histogram) = (self.tickets as usize, Histogram::default());
        let began = Instant::now();
        let counts = on_threads(self.ticket_threads, |thread| {
            let mut open: VecDeque<(Lsn, Instant)> = VecDeque::with_capacity(tickets);
            let mut count = 0u64;
            let keys: Vec<Vec<u8>> = (0..1024)
                .map(|n| key((u64::from(thread) << 32) | n))
                .collect();
            while began.elapsed() < time {
                if open.len() == tickets
                    && let Some((oldest, _)) = open.front()
                {
                    store.wait(*oldest, None)?;
                }
                count += reap(store.durable_lsn(), &mut open, &histogram);
                while open.len() < tickets {
                    let at = (count as usize + open.len()) % keys.len();
                    let one = Instant::now();
                    open.push_back((store.put_async(&keys[at], &value)?, one));
                }
            }
            while let Some((last, _)) = open.back() {
                store.wait(*last, None)?;
                count += reap(store.durable_lsn(), &mut open, &histogram);
            }
            Ok(count)
        })?;
        let count = counts.iter().sum::<u64>() as f64;
        Ok(Figure {
            name: format!(
                "commits by ticket, {TICKET_VALUE} bytes, x{} of {tickets}",
                self.ticket_threads
            ),
            threads: self.ticket_threads,
            per_second: count / began.elapsed().as_secs_f64(),
            latency: histogram.summary(),
            ..Figure::default()
        })
    }

    fn large(&self, store: &Store) -> Result<Figure> {
        let part = random_bytes(self.large.min(4 << 20) as usize);
        let count = (self.large_total / self.large).max(1);
        let before = store.stats();
        let histogram = Histogram::default();
        let began = Instant::now();
        for number in 0..count {
            let one = Instant::now();
            let mut writer = store.put_writer(&large_key(number), self.large)?;
            let mut left = self.large;
            while left > 0 {
                let size = left.min(part.len() as u64);
                writer.write(&part[..size as usize])?;
                left -= size;
            }
            writer.commit()?;
            histogram.record(nanoseconds(one));
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = store.stats();
        let user = (after.user_bytes - before.user_bytes).max(1) as f64;
        Ok(Figure {
            name: format!("durable puts of {} KiB", self.large >> 10),
            threads: 1,
            per_second: count as f64 / seconds,
            bytes_per_second: (count * self.large) as f64 / seconds,
            latency: histogram.summary(),
            write_amplification: Some((after.written_bytes - before.written_bytes) as f64 / user),
            ..Figure::default()
        })
    }

    fn large_gets(&self, store: &Store) -> Result<Figure> {
        let mut part = vec![0; self.large.min(64 << 20) as usize];
        let count = (self.large_total / self.large).max(1);
        let (time, histogram) = (self.time(), Histogram::default());
        let (began, mut bytes, mut number) = (Instant::now(), 0u64, 0u64);
        while began.elapsed() < time {
            let one = Instant::now();
            let read = store.get_into(&large_key(mix(number) % count), 0, &mut part)?;
            histogram.record(nanoseconds(one));
            bytes += read.unwrap_or(0) as u64;
            number += 1;
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(Figure {
            name: format!("gets of {} KiB, from the disk", self.large >> 10),
            threads: 1,
            per_second: number as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            latency: histogram.summary(),
            ..Figure::default()
        })
    }

    /// Puts the small values that gets and scans ask for.
    fn load(&self, store: &Store) -> Result<()> {
        let value = random_bytes(self.value);
        for number in 0..self.keys {
            store.put_async(&key(number), &value)?;
        }
        store.sync()?;
        store.checkpoint()
    }

    fn gets(&self, store: &Store, threads: u32, what: &str) -> Result<Figure> {
        let (time, keys, value) = (self.time(), self.keys, self.value);
        let histogram = Histogram::default();
        let began = Instant::now();
        let counts = on_threads(threads, |thread| {
            let mut count = 0u64;
            let mut into = vec![0; value];
            while began.elapsed() < time {
                let one = Instant::now();
                for _ in 0..GETS {
                    let number = mix((u64::from(thread) << 40) | count) % keys;
                    if store.get_into(&key(number), 0, &mut into)? != Some(value) {
                        let message = "a key that was put is not there; report this";
                        return Err(Error::new(ErrorKind::Internal, message));
                    }
                    count += 1;
                }
                histogram.record_many(nanoseconds(one) / GETS, GETS);
            }
            Ok(count)
        })?;
        let count = counts.iter().sum::<u64>() as f64;
        Ok(Figure {
            name: format!("{what}, {} bytes, x{threads}", self.value),
            threads,
            per_second: count / began.elapsed().as_secs_f64(),
            latency: histogram.summary(),
            ..Figure::default()
        })
    }

    fn scan(&self, store: &Store) -> Result<Figure> {
        let (time, began, mut count) = (self.time(), Instant::now(), 0u64);
        while began.elapsed() < time {
            let before = count;
            for item in store.scan(.., u64::MAX)? {
                std::hint::black_box(item.len);
                count += 1;
            }
            if count == before {
                break;
            }
        }
        Ok(Figure {
            name: "keys by scan, without values".to_owned(),
            threads: 1,
            per_second: count as f64 / began.elapsed().as_secs_f64(),
            ..Figure::default()
        })
    }
}

/// Bytes of a value that is committed with a ticket.
const TICKET_VALUE: usize = 100;

fn large_key(number: u64) -> Vec<u8> {
    format!("large {number:08}").into_bytes()
}

/// Takes the tickets that are done; how many.
fn reap(durable: Lsn, open: &mut VecDeque<(Lsn, Instant)>, histogram: &Histogram) -> u64 {
    let mut count = 0;
    let now = Instant::now();
    while let Some((lsn, began)) = open.front()
        && *lsn <= durable
    {
        let took = now.saturating_duration_since(*began).as_nanos();
        histogram.record(u64::try_from(took).unwrap_or(u64::MAX));
        open.pop_front();
        count += 1;
    }
    count
}
