//! Commits by ticket into a whole store, for as long as asked: new small keys a second, their
//! latency from put to durable, and what each thread of the store costs a key. Checkpoints come as
//! they come: unlike `kv_log`, this has the index, the pages and the meta log behind the log.
//!
//! `cargo bench --bench kv_ticket -- --dir DIR --seconds N --value BYTES --key BYTES --threads T
//! --outstanding N --keys N [--in-order] [--unordered] [--memory]`. Prints figures and judges none.
//! `--keys` has each thread write so many keys over and over, all once before the time starts; else
//! every key is new. The store is a file in DIR (TMPDIR, /var/tmp), or a disk in memory.
//! `--checkpoint KEYS` prints the processor time of puts and of checkpoints of so many new keys
//! instead, on a disk in memory.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gds_rs::base::clock::now_ns;
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{KvConfig, Store};

/// Each thread's keys start at a multiple of this.
const SPAN: u64 = 1 << 32;

struct Settings {
    dir: PathBuf,
    time: Duration,
    value: usize,
    key: usize,
    threads: usize,
    outstanding: usize,
    /// Keys of a thread, written over and over; 0: each is new.
    keys: u64,
    in_order: bool,
    ordered: bool,
    memory: bool,
    /// Keys of each checkpoint, where only the processor time of checkpoints is asked for.
    checkpoint: u64,
}

impl Settings {
    /// What the key of put `number` of a thread is made of.
    fn key_of(&self, number: u64) -> u64 {
        match self.keys {
            0 => number,
            // In an order that has nothing to do with theirs.
            keys => number - number % SPAN + (number % SPAN).wrapping_mul(0x9e37_79b1) % keys,
        }
    }
}

fn settings() -> Settings {
    let mut settings = Settings {
        dir: std::env::var_os("TMPDIR")
            .unwrap_or_else(|| "/var/tmp".into())
            .into(),
        time: Duration::from_secs(5),
        value: 128,
        key: 24,
        threads: 1,
        outstanding: 256,
        keys: 0,
        in_order: false,
        ordered: true,
        memory: false,
        checkpoint: 0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        match word.as_str() {
            "--dir" => settings.dir = words.next().unwrap().into(),
            "--seconds" => settings.time = Duration::from_secs(number() as u64),
            "--value" => settings.value = number(),
            "--key" => settings.key = number().max(12),
            "--threads" => settings.threads = number(),
            "--outstanding" => settings.outstanding = number(),
            "--keys" => settings.keys = number() as u64,
            "--in-order" => settings.in_order = true,
            "--unordered" => settings.ordered = false,
            "--checkpoint" => settings.checkpoint = number() as u64,
            "--memory" => settings.memory = true,
            // cargo adds --bench.
            _ => {}
        }
    }
    settings
}

/// `user` and digits, in the order of the numbers or of a hash of them.
fn fill_key(key: &mut [u8], number: u64, in_order: bool) {
    let hash =
        |byte_hash: u64, byte: u8| (byte_hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut rest = match in_order {
        true => number,
        false => number
            .to_le_bytes()
            .into_iter()
            .fold(0xcbf2_9ce4_8422_2325, hash),
    };
    key[..4].copy_from_slice(b"user");
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn at(sorted: &[u32], share: f64) -> f64 {
    sorted
        .get(((sorted.len().max(1) - 1) as f64 * share) as usize)
        .map_or(0.0, |ns| f64::from(*ns) / 1e3)
}

/// Processor time of the threads of this process by name, seconds.
fn cpu() -> Vec<(String, f64)> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let spent = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let ns = spent.split(' ').next().and_then(|n| n.parse::<f64>().ok());
        all.push((name.trim().to_owned(), ns.unwrap_or(0.0) / 1e9));
    }
    all
}

fn cpu_of_this_thread() -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = spent.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    ns.unwrap_or(0.0) / 1e9
}

/// Processor time of this process, with threads that have ended, seconds.
fn cpu_of_all() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split(' ').skip(12).take(2);
    // A tick is 10 ms for whoever asks, whatever the kernel's is.
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Keeps so many commits under way until the end; latencies of one in 16.
fn tickets(store: &Store, s: &Settings, thread: usize, done: &AtomicU64) -> Vec<u32> {
    let mut times = Vec::with_capacity(1 << 22);
    let mut waiting: VecDeque<(u64, u64)> = VecDeque::with_capacity(s.outstanding);
    let (mut key, mut value) = (vec![0; s.key], vec![0x5a; s.value]);
    let mut number = thread as u64 * SPAN;
    let end = Instant::now() + s.time;
    loop {
        while waiting.len() < s.outstanding {
            fill_key(&mut key, s.key_of(number), s.in_order);
            let tag = number.to_le_bytes();
            let len = value.len().min(8);
            value[..len].copy_from_slice(&tag[..len]);
            let start = now_ns();
            let lsn = store.put_async(&key, &value).unwrap();
            waiting.push_back((lsn, start));
            number += 1;
        }
        store.wait(waiting[0].0, None).unwrap();
        let (durable, now) = (store.durable_lsn(), now_ns());
        while waiting.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            let (lsn, start) = waiting.pop_front().unwrap();
            if lsn.is_multiple_of(16) {
                times.push(u32::try_from(now - start).unwrap_or(u32::MAX));
            }
        }
        done.store(number - thread as u64 * SPAN, Relaxed);
        if Instant::now() >= end {
            return times;
        }
    }
}

/// Puts and checkpoints in turns.
fn checkpoints(s: &Settings) {
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let config = KvConfig {
        ordered: s.ordered,
        memtable_bytes: 4 << 30,
        wal_bytes: 1 << 30,
        ..KvConfig::default()
    };
    let store = Store::create_on(disk, config).unwrap();
    let (mut key, value) = (vec![0; s.key], vec![0x5a; s.value]);
    for round in 0..6 {
        let begin = cpu_of_this_thread();
        for number in round * s.checkpoint..(round + 1) * s.checkpoint {
            fill_key(&mut key, number, s.in_order);
            store.put_async(&key, &value).unwrap();
        }
        store.sync().unwrap();
        let (middle, all) = (cpu_of_this_thread(), cpu_of_all());
        let start = Instant::now();
        store.checkpoint().unwrap();
        let took = start.elapsed().as_secs_f64();
        let of = |seconds: f64| seconds * 1e9 / s.checkpoint as f64;
        println!(
            "{} keys and {} more: a put {:.0} ns; in a checkpoint {:.0} ns by the clock, {:.0} ns \
             of all threads",
            round * s.checkpoint,
            s.checkpoint,
            of(middle - begin),
            of(took),
            of(cpu_of_all() - all),
        );
    }
}

fn main() {
    let s = settings();
    if s.checkpoint > 0 {
        return checkpoints(&s);
    }
    let path = s.dir.join(format!("gds_kv_ticket.{}", std::process::id()));
    let config = KvConfig {
        ordered: s.ordered,
        ..KvConfig::default()
    };
    let store = if s.memory {
        let disk = Arc::new(SimDisk::new(0));
        disk.record(false);
        Store::create_on(disk, config).unwrap()
    } else {
        Store::open(&path, config).unwrap()
    };
    for number in 0..s.keys {
        for thread in 0..s.threads as u64 {
            let mut key = vec![0; s.key];
            fill_key(&mut key, thread * SPAN + number, s.in_order);
            store.put_async(&key, &vec![0x5a; s.value]).unwrap();
        }
    }
    if s.keys > 0 {
        store.checkpoint().unwrap();
    }
    let done: Vec<_> = (0..s.threads).map(|_| AtomicU64::new(0)).collect();
    let all = || done.iter().map(|n| n.load(Relaxed)).sum::<u64>();
    let (mut times, mut seconds) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let (mut spent, mut putting, mut everything) = (Vec::new(), 0.0, 0.0);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..s.threads)
            .map(|thread| {
                let (store, s, done) = (&store, &s, &done[thread]);
                let named = std::thread::Builder::new().name("put".to_owned());
                let run = move || {
                    let times = tickets(store, s, thread, done);
                    (times, cpu_of_this_thread())
                };
                named.spawn_scoped(scope, run).unwrap()
            })
            .collect();
        let mut before = 0;
        while start.elapsed() + Duration::from_millis(50) < s.time {
            let left = s.time.saturating_sub(start.elapsed());
            std::thread::sleep(left.min(Duration::from_secs(1)));
            let now = all();
            seconds.push((now - before) / 1000);
            before = now;
        }
        for thread in running {
            let (some, cpu) = thread.join().unwrap();
            times.extend(some);
            putting += cpu;
        }
        spent = cpu();
        everything = cpu_of_all();
    });
    let (count, took) = (all() as f64, start.elapsed().as_secs_f64());
    times.sort_unstable();
    println!(
        "{} threads x {} under way, keys of {} B, values of {} B: {:.0} k/s | P50 {:.0} P99 {:.0} \
         P99.9 {:.0} us",
        s.threads,
        s.outstanding,
        s.key,
        s.value,
        count / took / 1e3,
        at(&times, 0.5),
        at(&times, 0.99),
        at(&times, 0.999),
    );
    println!("k/s in each second: {seconds:?}");
    let of = |name: &str| {
        let some = spent.iter().filter(|(n, _)| n == name);
        some.map(|(_, s)| s).sum::<f64>() * 1e6 / count
    };
    let stats = store.stats();
    println!(
        "processor time a key: puts {:.2} us, log {:.2} us, checkpoints {:.2} us ({:.2} us of one \
         thread); {} checkpoints, {:.2} times the bytes of the user written, {} index bytes a key",
        putting * 1e6 / count,
        of("gds-kv-log"),
        (everything - putting) * 1e6 / count - of("gds-kv-log"),
        of("gds-kv"),
        stats.checkpoints,
        stats.written_bytes as f64 / count / (s.key + s.value) as f64,
        stats.index_bytes / stats.keys.max(1),
    );
    if std::env::args().any(|a| a == "--stats") {
        println!("{stats:#?}");
    }
    drop(store);
    let _ = std::fs::remove_file(path);
}
