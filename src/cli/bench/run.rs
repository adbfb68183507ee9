//! Runs one case: threads that keep submissions in flight, and what came of it.

use std::collections::VecDeque;
use std::fs::File as StdFile;
use std::os::fd::AsRawFd;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::super::output::{Outcome, gigabytes_per_second, os_error};
use super::super::pump::{self, Totals};
use super::super::usage;
use super::case::{Cache, Case};
use crate::base::clock::now_ns;
use crate::config::PathPolicy;
use crate::engine::{Buffer, Context, File, Options, Ticket, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{OpenMode, Operation, evict, residency};
use crate::metrics::{Histogram, Latency};

/// A file on a context, to measure cases on.
pub(in crate::cli) struct Bench<'a> {
    context: &'a Context,
    path: PathBuf,
    size: u64,
    file_system: &'static str,
    /// For looking at the page cache and emptying it.
    plain: StdFile,
}

/// One run of a case.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Sample {
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) operations: u64,
    pub(in crate::cli) seconds: f64,
    pub(in crate::cli) latency: Latency,
    pub(in crate::cli) totals: Totals,
    /// Part of the file in the page cache before, percent, where the kernel tells.
    pub(in crate::cli) resident: Option<u64>,
}

/// All runs of a case: the run with the median rate, and the extremes.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Summary {
    pub(in crate::cli) median: Sample,
    /// GB/s of each run, in the order in which they ran.
    pub(in crate::cli) rates: Vec<f64>,
}

/// A case with its memory and its file.
pub(in crate::cli) struct Prepared<'a> {
    bench: &'a Bench<'a>,
    case: Case,
    file: File,
    buffers: Vec<Buffer>,
    positions: Vec<u64>,
    options: Options,
}

/// What the threads of one run share.
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    barrier: Barrier,
    latency: Histogram,
}

impl<'a> Bench<'a> {
    /// `size` bytes of a file, or all of it.
    pub(in crate::cli) fn new(
        context: &'a Context,
        path: &FilePath,
        size: Option<u64>,
    ) -> Outcome<Self> {
        let file = context.open_file(path, OpenMode::read_only())?;
        let has = file.size()?;
        let size = size.unwrap_or(has);
        if size > has || has == 0 || !file.capabilities().sized {
            return Err(usage(format!(
                "{} has {has} bytes to measure on, {size} are asked for; choose a larger file",
                path.display()
            )));
        }
        let plain =
            StdFile::open(path).map_err(|e| os_error(&e, format!("open {}", path.display())))?;
        Ok(Self {
            context,
            path: path.to_path_buf(),
            size,
            file_system: file.capabilities().file_system,
            plain,
        })
    }

    pub(in crate::cli) fn context(&self) -> &Context {
        self.context
    }

    pub(in crate::cli) fn path(&self) -> &FilePath {
        &self.path
    }

    pub(in crate::cli) fn size(&self) -> u64 {
        self.size
    }

    pub(in crate::cli) fn file_system(&self) -> &'static str {
        self.file_system
    }

    /// Brings the page cache into the state that a run begins with; percent of the file in it.
    pub(in crate::cli) fn set_cache(&self, cache: Cache) -> Result<Option<u64>> {
        match cache {
            Cache::Cold => evict(self.plain.as_raw_fd())?,
            Cache::Warm => self.read_all()?,
        }
        let found = residency(self.plain.as_raw_fd(), 0, self.size).ok();
        Ok(found
            .filter(|r| r.pages > 0)
            .map(|r| r.cached * 100 / r.pages))
    }

    fn read_all(&self) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let mut block = vec![0; 4 << 20];
        let mut at = 0;
        while at < self.size {
            let part = (self.size - at).min(block.len() as u64) as usize;
            let read = self.plain.read_at(&mut block[..part], at).map_err(|e| {
                let what = format!("read {} at {at}", self.path.display());
                Error::os(e.raw_os_error().unwrap_or(0), what)
            })?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        Ok(())
    }

    /// Opens the file and allocates the memory of a case, once for all its runs.
    pub(in crate::cli) fn prepare(&self, case: &Case) -> Result<Prepared<'_>> {
        let mode = match case.operation {
            Operation::Read => OpenMode::read_only(),
            Operation::Write => OpenMode::read_write(),
        };
        let size = case.buffer_size().ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfRange,
                "the memory of a case passes 2^64 bytes",
            )
        })?;
        let mut buffers = Vec::new();
        for _ in 0..case.threads {
            let buffer = self.context.alloc(case.memory, size)?;
            pump::scrub(self.context, &buffer)?;
            buffers.push(buffer);
        }
        let demanded = case.policy != PathPolicy::Auto;
        Ok(Prepared {
            bench: self,
            case: case.clone(),
            file: self.context.open_file(&self.path, mode)?,
            buffers,
            positions: case.positions(self.size),
            options: Options {
                path: Some(case.policy),
                // A path that is asked for by name must not be measured under another's.
                fallback: demanded.then_some(false),
                checksum: Some(false),
                ..Options::default()
            },
        })
    }
}

impl Prepared<'_> {
    /// One run.
    pub(in crate::cli) fn run(&self) -> Result<Sample> {
        let resident = self.bench.set_cache(self.case.cache)?;
        let shared = Shared {
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            barrier: Barrier::new(self.buffers.len() + 1),
            latency: Histogram::default(),
        };
        let (began, parts) = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .buffers
                .iter()
                .map(|buffer| scope.spawn(|| self.submitter(&shared, buffer)))
                .collect();
            shared.barrier.wait();
            let began = Instant::now();
            if let Some(seconds) = self.case.seconds {
                let until = Duration::from_secs_f64(seconds);
                while !threads.iter().all(|t| t.is_finished()) && began.elapsed() < until {
                    let left = until.saturating_sub(began.elapsed());
                    std::thread::park_timeout(left.min(Duration::from_millis(20)));
                }
                shared.stop.store(true, Relaxed);
            }
            let parts: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
            (began, parts)
        });
        let mut sample = Sample {
            resident,
            ..Sample::default()
        };
        for part in parts {
            let (totals, operations) = part.map_err(|_| {
                Error::new(
                    ErrorKind::Internal,
                    "a benchmark thread stopped; report this",
                )
            })??;
            sample.totals.join(&totals);
            sample.operations += operations;
        }
        if self.case.operation == Operation::Write && self.case.sync {
            self.file.sync()?;
        }
        sample.seconds = began.elapsed().as_secs_f64();
        sample.bytes = sample.totals.bytes;
        sample.latency = shared.latency.summary();
        Ok(sample)
    }

    /// Keeps `depth` submissions in flight until the work or the time is over.
    fn submitter(&self, shared: &Shared, buffer: &Buffer) -> Result<(Totals, u64)> {
        let mut flying: VecDeque<(Ticket, u64, u64)> = VecDeque::new();
        let mut free: Vec<u64> = (0..u64::from(self.case.depth)).collect();
        let mut totals = Totals::default();
        let mut operations = 0;
        let alone = self.case.depth == 1 && self.case.batch == 1;
        shared.barrier.wait();
        let result = loop {
            if alone {
                let Some(offset) = self.claim(shared).first().copied() else {
                    break Ok(());
                };
                match self.block_once(buffer, offset, &shared.latency) {
                    Ok(completion) => totals.add(&completion),
                    Err(error) => break Err(error),
                }
                operations += 1;
                continue;
            }
            while let Some(slot) = free.pop() {
                let claimed = self.claim(shared);
                if claimed.is_empty() {
                    free.push(slot);
                    break;
                }
                let count = claimed.len() as u64;
                match self.submit(buffer, slot, &claimed) {
                    Ok(ticket) => flying.push_back((ticket, slot, count)),
                    Err(error) => {
                        shared.stop.store(true, Relaxed);
                        return Err(error);
                    }
                }
            }
            let Some((ticket, slot, count)) = flying.pop_front() else {
                break Ok(());
            };
            match ticket.wait(None) {
                Ok(completion) => {
                    shared.latency.record_many(completion.latency_ns, count);
                    totals.add(&completion);
                    operations += count;
                }
                Err(error) => break Err(error),
            }
            free.push(slot);
        };
        // One failure ends the run of all threads.
        if result.is_err() {
            shared.stop.store(true, Relaxed);
        }
        result.map(|()| (totals, operations))
    }

    /// The next positions; none when the run is over.
    fn claim(&self, shared: &Shared) -> Vec<u64> {
        if shared.stop.load(Relaxed) {
            return Vec::new();
        }
        let count = self.positions.len() as u64;
        let first = shared.next.fetch_add(u64::from(self.case.batch), Relaxed);
        if self.case.seconds.is_none() && first >= count {
            return Vec::new();
        }
        let mut end = first + u64::from(self.case.batch);
        if self.case.seconds.is_none() {
            end = end.min(count);
        }
        (first..end)
            .map(|i| self.positions[(i % count) as usize])
            .collect()
    }

    fn block_once(
        &self,
        buffer: &Buffer,
        offset: u64,
        latency: &Histogram,
    ) -> Result<crate::engine::Completion> {
        let began = now_ns();
        let (block, options) = (self.case.block, &self.options);
        let completion = match self.case.operation {
            Operation::Read => self.file.read_with(offset, buffer, 0, block, options)?,
            Operation::Write => self.file.write_with(offset, buffer, 0, block, options)?,
        };
        latency.record(now_ns() - began);
        Ok(completion)
    }

    fn submit(&self, buffer: &Buffer, slot: u64, offsets: &[u64]) -> Result<Ticket> {
        let base = slot * u64::from(self.case.batch) * self.case.block;
        let transfers = offsets
            .iter()
            .zip(0..)
            .map(|(offset, index): (&u64, u64)| Transfer {
                operation: self.case.operation,
                file: self.file.clone(),
                file_offset: *offset,
                buffer: buffer.clone(),
                buffer_offset: base + index * self.case.block,
                size: self.case.block,
            })
            .collect();
        self.bench.context.submit(transfers, &self.options)
    }
}

impl Sample {
    /// Bytes a second over 10^9.
    pub(in crate::cli) fn rate(&self) -> f64 {
        gigabytes_per_second(self.bytes, self.seconds)
    }

    /// Operations a second.
    pub(in crate::cli) fn iops(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

impl Summary {
    /// Of at least one run.
    pub(in crate::cli) fn of(samples: &[Sample]) -> Self {
        let mut order: Vec<&Sample> = samples.iter().collect();
        order.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
        Self {
            median: order
                .get(order.len() / 2)
                .map(|s| (*s).clone())
                .unwrap_or_default(),
            rates: samples.iter().map(Sample::rate).collect(),
        }
    }

    /// The slowest and the fastest run, GB/s.
    pub(in crate::cli) fn extremes(&self) -> (f64, f64) {
        let least = self.rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.rates.iter().copied().fold(0.0, f64::max);
        (least.min(most), most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_run_is_the_one_in_the_middle() {
        let sample = |bytes| Sample {
            bytes,
            operations: bytes,
            seconds: 1.0,
            ..Sample::default()
        };
        let summary = Summary::of(&[
            sample(5_000_000_000),
            sample(1_000_000_000),
            sample(3_000_000_000),
        ]);
        assert_eq!(summary.median.bytes, 3_000_000_000);
        assert_eq!(summary.rates, [5.0, 1.0, 3.0]);
        assert_eq!(summary.extremes(), (1.0, 5.0));
    }
}
