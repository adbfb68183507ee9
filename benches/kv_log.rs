//! Group commit: commits a second and their latency, for callers that block and for callers that
//! hold tickets, beside the bare durable write on the same file.
//!
//! `cargo bench --bench kv_log -- --dir DIR --seconds N --record BYTES`. Prints figures and
//! judges none. The log goes over a file in DIR (TMPDIR, /var/tmp); nothing is checkpointed: the
//! ring is released as it fills.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use gds_rs::base::clock::now_ns;
use gds_rs::base::crc::crc32c;
use gds_rs::io::{OpenMode, best};
use gds_rs::kv::disk::{Blocks, Disk, FileDisk};
use gds_rs::kv::superblock::{Geometry, Superblock};
use gds_rs::kv::wal::{Wal, WalConfig, record_bytes};

struct Settings {
    dir: PathBuf,
    time: Duration,
    record: usize,
}

fn settings() -> Settings {
    let mut settings = Settings {
        dir: std::env::var_os("TMPDIR")
            .unwrap_or_else(|| "/var/tmp".into())
            .into(),
        time: Duration::from_secs(2),
        record: 128,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--dir" => settings.dir = words.next().unwrap().into(),
            "--seconds" => {
                settings.time = Duration::from_secs_f64(words.next().unwrap().parse().unwrap());
            }
            "--record" => settings.record = words.next().unwrap().parse().unwrap(),
            // cargo adds --bench.
            _ => {}
        }
    }
    settings
}

/// Latencies, nanoseconds.
fn at(sorted: &[u32], share: f64) -> f64 {
    sorted
        .get(((sorted.len().max(1) - 1) as f64 * share) as usize)
        .map_or(0.0, |ns| f64::from(*ns) / 1e3)
}

fn took(since: u64) -> u32 {
    u32::try_from(now_ns() - since).unwrap_or(u32::MAX)
}

/// Processor time of this process, seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn commit(wal: &Wal, payload: &[u8]) -> u64 {
    let mut append = wal.begin(record_bytes(payload.len())).unwrap();
    append.push(1, &[payload]).unwrap();
    append.finish()
}

/// Appends and waits, until the end; latencies.
fn block(wal: &Wal, payload: &[u8], end: Instant) -> Vec<u32> {
    let mut times = Vec::with_capacity(1 << 20);
    while Instant::now() < end {
        let start = now_ns();
        let lsn = commit(wal, payload);
        wal.wait(lsn, None).unwrap();
        times.push(took(start));
    }
    times
}

/// Keeps so many commits outstanding, until the end; latencies of one in 16.
fn tickets(wal: &Wal, payload: &[u8], end: Instant, outstanding: usize) -> (Vec<u32>, u64) {
    let mut times = Vec::with_capacity(1 << 22);
    let mut waiting: VecDeque<(u64, u64)> = VecDeque::with_capacity(outstanding);
    let mut commits = 0u64;
    loop {
        while waiting.len() < outstanding {
            let start = now_ns();
            waiting.push_back((commit(wal, payload), start));
            commits += 1;
        }
        wal.wait(waiting[0].0, None).unwrap();
        let durable = wal.durable_lsn();
        while waiting.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            let (lsn, start) = waiting.pop_front().unwrap();
            if lsn.is_multiple_of(16) {
                times.push(took(start));
            }
        }
        if Instant::now() >= end {
            return (times, commits);
        }
    }
}

struct Bench {
    wal: Arc<Wal>,
    payload: Vec<u8>,
    time: Duration,
}

impl Bench {
    fn row(&self, threads: usize, outstanding: Option<usize>) {
        let before = self.wal.stats();
        let (start, used) = (Instant::now(), cpu());
        let end = start + self.time;
        let (mut times, mut commits) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(move || match outstanding {
                        None => {
                            let times = block(&self.wal, &self.payload, end);
                            let commits = times.len() as u64;
                            (times, commits)
                        }
                        Some(most) => tickets(&self.wal, &self.payload, end, most),
                    })
                })
                .collect();
            for thread in running {
                let (some, count) = thread.join().unwrap();
                times.extend(some);
                commits += count;
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        times.sort_unstable();
        let after = self.wal.stats();
        let batches = (after.batches - before.batches) as f64;
        let what = outstanding.map_or("block".to_owned(), |n| format!("ticket, {n} outstanding"));
        println!(
            "{threads:3} | {what:24} | {:9.1} k/s | {:6.1} k syncs/s | {:7.1} a sync | P50 {:6.0} P99 \
             {:6.0} us | {:.2} CPUs | stalls {}",
            commits as f64 / seconds / 1e3,
            batches / seconds / 1e3,
            commits as f64 / batches,
            at(&times, 0.5),
            at(&times, 0.99),
            (cpu() - used) / seconds,
            after.stalls - before.stalls,
        );
    }
}

/// The limit: the same thread writes one block durably, again and again.
fn bare(disk: &dyn Disk, offset: u64, ring: u64, time: Duration) {
    let block = Blocks::new(4096).unwrap();
    let (mut times, start) = (Vec::new(), Instant::now());
    let mut at_byte = 0;
    while start.elapsed() < time {
        let begun = now_ns();
        disk.write_durable(offset + at_byte, &block).unwrap();
        times.push(took(begun));
        at_byte = (at_byte + 4096) % ring;
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    println!(
        "bare durable write of 4 KiB: {:.1} k/s, P50 {:.0} P99 {:.0} us",
        rate / 1e3,
        at(&times, 0.5),
        at(&times, 0.99)
    );
}

/// Checksums of a header and of bodies: what the log thread pays a batch.
fn checksums() {
    for size in [64, 512, 4096, 65_536, 1 << 20] {
        let bytes = vec![7u8; size];
        let rounds = (64 << 20) / size;
        let best = (0..7)
            .map(|_| {
                let start = Instant::now();
                let mut sum = 0;
                for _ in 0..rounds {
                    sum ^= crc32c(0, std::hint::black_box(&bytes));
                }
                std::hint::black_box(sum);
                start.elapsed().as_nanos() as f64 / rounds as f64
            })
            .fold(f64::INFINITY, f64::min);
        println!(
            "CRC32C of {size:7} bytes: {best:9.1} ns, {:5.1} GB/s",
            size as f64 / best
        );
    }
}

fn main() {
    let settings = settings();
    checksums();
    let path = settings
        .dir
        .join(format!("gds_kv_log.{}", std::process::id()));
    let disk = Arc::new(FileDisk::open(&path, OpenMode::create(), best()).unwrap());
    let geometry = Geometry {
        spacing: 1 << 20,
        wal_bytes: 64 << 20,
        segment_bytes: 2 << 20,
    };
    disk.resize(geometry.segment_offset(1)).unwrap();
    let mut superblock = Superblock::new([1; 16], geometry, disk.size()).unwrap();
    superblock.create(&*disk).unwrap();
    println!(
        "file {}, past the page cache: {}",
        path.display(),
        disk.is_direct()
    );
    bare(
        &*disk,
        geometry.wal_offset(),
        geometry.wal_bytes,
        settings.time / 2,
    );
    let config = WalConfig::new(geometry.wal_offset(), geometry.wal_bytes);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = Wal::start(shared, config, superblock.wal).unwrap();
    // Stands for checkpoints: frees the ring as soon as half of it is used.
    let (wake, pressed): (SyncSender<()>, _) = sync_channel(1);
    wal.on_pressure(Box::new(move || {
        let _ = wake.try_send(());
    }));
    let freed = Arc::downgrade(&wal);
    let free = std::thread::spawn(move || {
        while pressed.recv().is_ok() {
            let Some(wal) = freed.upgrade() else {
                break;
            };
            let mark = wal.seal_mark().unwrap();
            let start = wal.start_after(&mark, None).unwrap();
            wal.release(&start);
        }
    });
    let bench = Bench {
        wal,
        payload: vec![0x5a; settings.record],
        time: settings.time,
    };
    println!("records of {} bytes", settings.record);
    for threads in [1, 16, 64, 256] {
        bench.row(threads, None);
    }
    for (threads, outstanding) in [
        (1, 64),
        (1, 256),
        (2, 64),
        (2, 256),
        (2, 1024),
        (1, 4096),
        (2, 4096),
    ] {
        bench.row(threads, Some(outstanding));
    }
    let latency = bench.wal.sync_latency();
    println!(
        "durable writes: P50 {} P99 {} us",
        latency.p50_ns / 1000,
        latency.p99_ns / 1000
    );
    drop(bench);
    free.join().unwrap();
    drop(disk);
    let _ = std::fs::remove_file(path);
}
