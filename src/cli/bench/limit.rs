//! What the machine gives without this library: plain reads and writes by threads of this
//! process, and fio where it is installed. To host memory, so it bounds every way to a device.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::super::output::{Outcome, gigabytes_per_second, os_error, size_text};
use super::case::{Cache, Case, Pattern};
use super::run::Bench;
use crate::config::PathPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Operation;
use crate::metrics::{Histogram, Latency};

/// Alignment of memory, offsets and sizes for O_DIRECT, bytes.
const ALIGNMENT: u64 = 4096;
/// Larger sequential reads gain nothing and leave the processor's caches.
const SEQUENTIAL_BLOCK: u64 = 1 << 20;
/// Threads of the plain loop that stand for a deep queue.
const THREADS_MAX: u64 = 32;
/// Length of a run of fio when none is given.
const FIO_SECONDS: f64 = 2.0;
/// Longest run of a plain loop when no length is given.
const SECONDS_MAX: f64 = 5.0;

/// One measured limit.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Limit {
    /// How it was measured.
    pub(in crate::cli) name: String,
    /// GB/s; the median once settled.
    pub(in crate::cli) rate: f64,
    /// Operations a second; the median once settled.
    pub(in crate::cli) iops: f64,
    /// Latency of one operation in the last run; of plain loops only.
    pub(in crate::cli) latency: Latency,
    runs: Vec<(f64, f64)>,
}

impl Limit {
    fn new(name: String, rate: f64, iops: f64, latency: Latency) -> Self {
        Self {
            name,
            rate,
            iops,
            latency,
            runs: vec![(rate, iops)],
        }
    }

    /// Takes the median of its runs.
    pub(in crate::cli) fn settle(&mut self) {
        self.runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((rate, iops)) = self.runs.get(self.runs.len() / 2) {
            (self.rate, self.iops) = (*rate, *iops);
        }
    }
}

/// Adds one more run of each limit.
pub(in crate::cli) fn merge(into: &mut Vec<Limit>, run: Vec<Limit>) {
    for limit in run {
        match into.iter_mut().find(|known| known.name == limit.name) {
            Some(known) => {
                known.runs.extend(limit.runs);
                known.latency = limit.latency;
            }
            None => into.push(limit),
        }
    }
}

/// Measures each limit of a case once.
pub(in crate::cli) fn measure(bench: &Bench<'_>, case: &Case) -> Outcome<Vec<Limit>> {
    let mut plain = Plain::of(case);
    let mut limits = Vec::new();
    let threads = match case.pattern {
        Pattern::Seq => vec![1, 8],
        Pattern::Rand => {
            let depth = u64::from(case.threads) * u64::from(case.depth) * u64::from(case.batch);
            vec![depth.min(THREADS_MAX)]
        }
    };
    for count in threads {
        plain.threads = count;
        bench.set_cache(case.cache)?;
        match plain.run(bench, case) {
            // A file system without O_DIRECT has only the buffered limit.
            Err(error) if plain.direct && error.errno() == libc::EINVAL => {
                plain.direct = false;
                limits.push(plain.run(bench, case)?);
            }
            other => limits.push(other?),
        }
    }
    bench.set_cache(case.cache)?;
    limits.extend(fio(bench.path(), bench.size(), case, plain.direct)?);
    Ok(limits)
}

/// A loop of pread or pwrite in each of some threads.
struct Plain {
    threads: u64,
    block: u64,
    direct: bool,
}

impl Plain {
    fn of(case: &Case) -> Self {
        let block = match case.pattern {
            Pattern::Seq => case.block.min(SEQUENTIAL_BLOCK),
            Pattern::Rand => case.block,
        };
        let wanted = match (case.policy, case.cache) {
            (PathPolicy::Buffered, _) => false,
            (PathPolicy::Direct | PathPolicy::CuFile, _) => true,
            (PathPolicy::Auto, cache) => cache == Cache::Cold,
        };
        Self {
            threads: 1,
            block,
            direct: wanted && block.is_multiple_of(ALIGNMENT),
        }
    }

    fn name(&self, case: &Case) -> String {
        let call = match case.operation {
            Operation::Read => "pread",
            Operation::Write => "pwrite",
        };
        let direct = if self.direct { " O_DIRECT" } else { "" };
        format!("{call}{direct} {} x{}", size_text(self.block), self.threads)
    }

    fn run(&self, bench: &Bench<'_>, case: &Case) -> Result<Limit> {
        let file = OpenOptions::new()
            .read(true)
            .write(case.operation == Operation::Write)
            .custom_flags(if self.direct { libc::O_DIRECT } else { 0 })
            .open(bench.path())
            .map_err(|e| failed(&e, bench.path()))?;
        let positions = Case {
            block: self.block,
            ..case.clone()
        }
        .positions(bench.size());
        let seconds = case.seconds.unwrap_or(SECONDS_MAX);
        let turn = Turn {
            file: &file,
            positions: &positions,
            again: case.seconds.is_some(),
            until: Duration::from_secs_f64(seconds),
            next: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            latency: Histogram::default(),
            began: Instant::now(),
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|_| scope.spawn(|| turn.work(self.block, case.operation)))
                .collect();
            threads.into_iter().map(|t| t.join()).collect()
        });
        for result in results {
            let result = result.map_err(|_| {
                Error::new(
                    ErrorKind::Internal,
                    "a thread of the plain loop stopped; report this",
                )
            })?;
            result.map_err(|e| failed(&e, bench.path()))?;
        }
        if case.operation == Operation::Write && case.sync {
            file.sync_data().map_err(|e| failed(&e, bench.path()))?;
        }
        let seconds = turn.began.elapsed().as_secs_f64();
        let bytes = turn.bytes.load(Relaxed);
        let operations = bytes as f64 / self.block as f64;
        Ok(Limit::new(
            self.name(case),
            gigabytes_per_second(bytes, seconds),
            operations / seconds.max(1e-9),
            turn.latency.summary(),
        ))
    }
}

/// What the threads of a plain loop share.
struct Turn<'a> {
    file: &'a File,
    positions: &'a [u64],
    again: bool,
    until: Duration,
    next: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
    latency: Histogram,
    began: Instant,
}

impl Turn<'_> {
    fn work(&self, block: u64, operation: Operation) -> std::io::Result<()> {
        let mut memory = vec![0u8; (block + ALIGNMENT) as usize];
        let start = memory
            .as_ptr()
            .align_offset(ALIGNMENT as usize)
            .min(ALIGNMENT as usize);
        let memory = &mut memory[start..start + block as usize];
        memory.fill(1);
        let count = self.positions.len() as u64;
        let mut at = Instant::now();
        while !self.stop.load(Relaxed) {
            let index = self.next.fetch_add(1, Relaxed);
            if index >= count && !self.again {
                return Ok(());
            }
            let offset = self.positions[(index % count) as usize];
            let moved = match operation {
                Operation::Read => self.file.read_at(memory, offset),
                Operation::Write => self.file.write_at(memory, offset),
            };
            let moved = moved.inspect_err(|_| self.stop.store(true, Relaxed))?;
            let now = Instant::now();
            let ns = u64::try_from((now - at).as_nanos()).unwrap_or(u64::MAX);
            self.latency.record(ns);
            at = now;
            self.bytes.fetch_add(moved as u64, Relaxed);
            if now - self.began > self.until {
                self.stop.store(true, Relaxed);
            }
        }
        Ok(())
    }
}

fn failed(error: &std::io::Error, path: &Path) -> Error {
    let what = format!("measure the limit on {}", path.display());
    Error::os(error.raw_os_error().unwrap_or(0), what)
}

/// Runs fio on the same work at the same depth, where it is installed.
fn fio(path: &Path, size: u64, case: &Case, direct: bool) -> Outcome<Option<Limit>> {
    let (jobs, depth, block) = match case.pattern {
        Pattern::Seq => (4, 16, case.block.min(SEQUENTIAL_BLOCK)),
        Pattern::Rand => {
            let depth = u64::from(case.depth) * u64::from(case.batch);
            (u64::from(case.threads), depth.min(256), case.block)
        }
    };
    let engine = if direct { "io_uring" } else { "psync" };
    let name = format!("fio {engine} {} {jobs}xQD{depth}", size_text(block));
    let mut command = Command::new("fio");
    command
        .arg("--name=limit")
        .arg(format!(
            "--filename={}",
            path.display().to_string().replace(':', "\\:")
        ))
        .arg(format!("--rw={}", fio_work(case)))
        .arg(format!("--bs={block}"))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--numjobs={jobs}"))
        .arg(format!("--direct={}", u8::from(direct)))
        .arg(format!(
            "--runtime={}",
            case.seconds.unwrap_or(FIO_SECONDS).ceil()
        ))
        .args([
            "--group_reporting",
            "--thread",
            "--output-format=json",
            "--invalidate=0",
        ])
        .arg("--allow_file_create=0");
    if case.pattern == Pattern::Seq {
        let share = (size / jobs / block).max(1) * block;
        command
            .arg(format!("--size={share}"))
            .arg(format!("--offset_increment={share}"));
    } else {
        command.arg(format!("--size={size}")).arg("--norandommap");
    }
    // Short runs of fio are mostly its start. A second pass over a cold file through the page
    // cache would find it warm.
    if direct || case.cache == Cache::Warm {
        command.arg("--time_based");
    }
    match case.operation {
        Operation::Read => command.arg("--readonly"),
        Operation::Write => command.arg("--end_fsync=1"),
    };
    let output = match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(os_error(&e, "run fio")),
    };
    // A fio that cannot do this work is no limit and no failure of ours.
    Ok(fio_result(&output.stdout, case.operation)
        .map(|(rate, iops)| Limit::new(name, rate, iops, Latency::default())))
}

fn fio_work(case: &Case) -> &'static str {
    match (case.pattern, case.operation) {
        (Pattern::Seq, Operation::Read) => "read",
        (Pattern::Seq, Operation::Write) => "write",
        (Pattern::Rand, Operation::Read) => "randread",
        (Pattern::Rand, Operation::Write) => "randwrite",
    }
}

/// GB/s and operations a second out of fio's JSON, which notes may precede.
fn fio_result(output: &[u8], operation: Operation) -> Option<(f64, f64)> {
    let start = output.iter().position(|b| *b == b'{')?;
    let value: serde_json::Value = serde_json::from_slice(&output[start..]).ok()?;
    let side = match operation {
        Operation::Read => "read",
        Operation::Write => "write",
    };
    let job = value.get("jobs")?.get(0)?;
    if job.get("error")?.as_i64()? != 0 {
        return None;
    }
    let side = job.get(side)?;
    let rate = side.get("bw_bytes")?.as_f64()? / 1e9;
    (rate > 0.0).then_some((rate, side.get("iops")?.as_f64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_output_is_understood_and_errors_are_not_results() {
        let good = br#"note: x
            {"jobs": [{"error": 0, "read": {"bw_bytes": 3000000000, "iops": 732421.875}}]}"#;
        assert_eq!(fio_result(good, Operation::Read), Some((3.0, 732_421.875)));
        assert_eq!(fio_result(good, Operation::Write), None);
        let bad = br#"{"jobs": [{"error": 22, "read": {"bw_bytes": 3, "iops": 1}}]}"#;
        assert_eq!(fio_result(bad, Operation::Read), None);
        assert_eq!(fio_result(b"fio: no", Operation::Read), None);
    }

    #[test]
    fn runs_of_one_limit_are_merged_to_their_median() {
        let one = |rate| vec![Limit::new("a".to_owned(), rate, rate, Latency::default())];
        let mut limits = one(3.0);
        merge(&mut limits, one(1.0));
        merge(&mut limits, one(2.0));
        limits.iter_mut().for_each(Limit::settle);
        assert_eq!((limits.len(), limits[0].rate), (1, 2.0));
    }
}
