//! What the engine costs on the host device: beside a plain `pread` loop on the same file and
//! memory, interleaved, medians of the rounds. Warm for several block sizes, and cold beside fio
//! (or, where there is none, a plain O_DIRECT loop).
//!
//! `cargo bench --bench host_read -- [--size MIB] [--rounds N] [--file PATH]`
//!
//! Without --file a file of that size is made in TMPDIR (default /var/tmp) and removed after.
//! Prints figures and judges none: a timing is never a test.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::{File as PlainFile, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::engine::{Buffer, Context, File};
use gds_rs::io::{OpenMode, residency};

const MIB: u64 = 1 << 20;

struct Settings {
    size: u64,
    rounds: usize,
    file: Option<PathBuf>,
}

fn settings() -> Settings {
    let mut settings = Settings {
        size: 512 * MIB,
        rounds: 7,
        file: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--size" => settings.size = words.next().unwrap().parse::<u64>().unwrap() * MIB,
            "--rounds" => settings.rounds = words.next().unwrap().parse().unwrap(),
            "--file" => settings.file = words.next().map(PathBuf::from),
            // cargo adds --bench.
            _ => {}
        }
    }
    settings
}

/// A file of bytes that no device can compress or leave out.
fn make_file(path: &Path, size: u64) {
    let mut file = PlainFile::create(path).unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = vec![0_u8; MIB as usize];
    for _ in 0..size / MIB {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
}

fn make_cold(file: &PlainFile, size: u64) {
    file.sync_all().unwrap();
    // SAFETY: the descriptor is open; the call only drops clean pages.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let found = residency(file.as_raw_fd(), 0, size).unwrap();
    if found.cached * 1000 > found.pages {
        println!(
            "  (not cold: {} of {} pages are cached)",
            found.cached, found.pages
        );
    }
}

/// Memory of the caller, aligned for direct I/O.
struct Memory {
    address: *mut libc::c_void,
    size: usize,
}

impl Memory {
    fn new(size: u64) -> Self {
        let size = usize::try_from(size).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a fresh anonymous mapping; the result is checked.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
        assert_ne!(address, libc::MAP_FAILED, "no memory");
        Self { address, size }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `size` bytes, lives as long as self and is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.size) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` and unmapped once.
        unsafe { libc::munmap(self.address, self.size) };
    }
}

fn plain_loop(file: &PlainFile, memory: &mut Memory, size: u64, block: u64) -> f64 {
    let bytes = memory.bytes();
    let begin = Instant::now();
    let mut at = 0;
    while at < size {
        let end = size.min(at + block);
        let piece = &mut bytes[at as usize..end as usize];
        let count = file.read_at(piece, at).unwrap();
        assert_ne!(count, 0, "the file ended early");
        at += count as u64;
    }
    size as f64 / begin.elapsed().as_secs_f64() / 1e9
}

fn engine_loop(file: &File, buffer: &Buffer, size: u64, block: u64) -> f64 {
    let begin = Instant::now();
    let mut at = 0;
    while at < size {
        let count = block.min(size - at);
        let done = file.read(at, buffer, at, count).unwrap();
        assert_eq!(done.bytes, count, "the file ended early");
        at += count;
    }
    size as f64 / begin.elapsed().as_secs_f64() / 1e9
}

/// fio's best of a few shapes, GB/s; None where there is no fio.
fn fio(path: &Path, size: u64) -> Option<f64> {
    let mut best: Option<f64> = None;
    for (jobs, depth) in [(1_u64, 16), (1, 32), (4, 16)] {
        let part = size / jobs / MIB * MIB;
        let output = Command::new("fio")
            .args([
                "--name=x",
                "--rw=read",
                "--bs=1M",
                "--direct=1",
                "--ioengine=io_uring",
            ])
            .args([
                "--thread",
                "--group_reporting",
                "--minimal",
                "--terse-version=3",
            ])
            .args(["--time_based", "--runtime=2"])
            .arg(format!("--filename={}", path.display()))
            .args([
                format!("--size={part}"),
                format!("--offset_increment={part}"),
            ])
            .args([format!("--numjobs={jobs}"), format!("--iodepth={depth}")])
            .output()
            .ok()?;
        // Field 7 of the terse form is the read bandwidth in KiB/s.
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("3;"))?;
        let speed = line.split(';').nth(6)?.parse::<f64>().ok()? * 1024.0 / 1e9;
        best = Some(best.map_or(speed, |b| b.max(speed)));
    }
    best
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn line(what: &str, ours: f64, name: &str, other: f64) {
    println!(
        "{what:<24} ours {ours:7.3} GB/s   {name} {other:7.3} GB/s   ratio {:.3}",
        ours / other
    );
}

fn main() {
    let wanted = settings();
    let temporary = std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let made = temporary.join(format!("gds_host_read.{}", std::process::id()));
    let path = wanted.file.clone().unwrap_or_else(|| made.clone());
    if wanted.file.is_none() {
        make_file(&path, wanted.size);
    }
    let plain = PlainFile::open(&path).unwrap();
    let size = wanted.size.min(plain.metadata().unwrap().len());

    let context = Context::open(Config {
        gpu_device: DEVICE_HOST,
        ..Config::default()
    })
    .unwrap();
    let file = context.open_file(&path, OpenMode::read_only()).unwrap();
    let mut memory = Memory::new(size);
    // SAFETY: the memory outlives the buffer, and nothing else touches it during a transfer.
    let buffer = unsafe { context.wrap(memory.address as u64, size) }.unwrap();

    println!(
        "host device, {} MiB, {} rounds, io {}",
        size / MIB,
        wanted.rounds,
        context.io_name()
    );
    plain_loop(&plain, &mut memory, size, MIB);
    for (name, block) in [
        ("4 KiB", 4096),
        ("64 KiB", 64 << 10),
        ("1 MiB", MIB),
        ("whole", size),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..wanted.rounds {
            ours.push(engine_loop(&file, &buffer, size, block));
            theirs.push(plain_loop(&plain, &mut memory, size, block));
        }
        line(
            &format!("warm, {name} calls"),
            median(ours),
            "plain pread",
            median(theirs),
        );
    }

    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    let (mut ours, mut theirs, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..wanted.rounds.min(3) {
        make_cold(&plain, size);
        ours.push(engine_loop(&file, &buffer, size, size));
        if let Ok(direct) = &direct {
            make_cold(&plain, size);
            theirs.push(plain_loop(direct, &mut memory, size / MIB * MIB, 16 * MIB));
        }
        others.extend(fio(&path, size));
    }
    let ours = median(ours);
    if !theirs.is_empty() {
        line("cold, whole file", ours, "plain O_DIRECT", median(theirs));
    }
    if others.is_empty() {
        println!("cold: fio is not installed; the plain O_DIRECT loop stands in for it");
    } else {
        line("cold, whole file", ours, "fio", median(others));
    }
    drop((file, buffer, context));
    if wanted.file.is_none() {
        std::fs::remove_file(&made).unwrap();
    }
}
