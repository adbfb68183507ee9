//! Compaction of a store in which every second value is dead: bytes moved a second, beside a plain
//! loop that copies as many bytes within a file of the same disk, 1 MiB at a time, past the page
//! cache, and makes them durable; the two take turns. The ratio is that of their speeds. The loop
//! writes over blocks that it wrote before, and gives nothing back to the file system, which
//! compaction does: how long that takes is measured apart, and a second ratio counts it for both.
//!
//! `cargo bench --bench kv_compaction -- --dir DIR --size MIB --value BYTES --rounds N`. Prints
//! figures and judges none. The files go to DIR (TMPDIR, /var/tmp) and are removed.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use gds_rs::io::OpenMode;
use gds_rs::kv::disk::{Blocks, Disk, FileDisk};
use gds_rs::kv::store::{KvConfig, Store};

const MIB: usize = 1 << 20;

struct Settings {
    dir: PathBuf,
    size: usize,
    value: usize,
    rounds: usize,
}

fn settings() -> Settings {
    let mut settings = Settings {
        dir: std::env::var_os("TMPDIR")
            .unwrap_or_else(|| "/var/tmp".into())
            .into(),
        size: 2048 * MIB,
        value: MIB,
        rounds: 3,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        match word.as_str() {
            "--dir" => settings.dir = words.next().unwrap().into(),
            "--size" => settings.size = number() * MIB,
            "--value" => settings.value = number(),
            "--rounds" => settings.rounds = number(),
            // cargo adds --bench.
            _ => {}
        }
    }
    settings
}

fn key(n: usize) -> Vec<u8> {
    format!("{n:012}").into_bytes()
}

/// Fills a store, deletes every second value, and compacts: bytes moved, seconds, bytes freed.
fn ours(s: &Settings) -> (u64, f64, u64) {
    let path = s
        .dir
        .join(format!("gds_kv_compaction_{}", std::process::id()));
    let config = KvConfig {
        create: true,
        ..KvConfig::default()
    };
    let store = Store::open(&path, config).unwrap();
    let mut value = vec![0u8; s.value];
    let count = s.size / s.value;
    for n in 0..count {
        for word in value.chunks_mut(8) {
            let mixed = (n as u64 ^ word.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word.copy_from_slice(&mixed.to_le_bytes()[..word.len()]);
        }
        store.put_async(&key(n), &value).unwrap();
    }
    store.checkpoint().unwrap();
    for n in (0..count).step_by(2) {
        store.delete_async(&key(n)).unwrap();
    }
    store.sync().unwrap();
    let before = store.stats();
    let begin = Instant::now();
    let segments = store.compact().unwrap();
    store.sync().unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    let after = store.stats();
    drop(store);
    std::fs::remove_file(&path).unwrap();
    let freed = segments * KvConfig::default().segment_bytes;
    (after.gc_bytes - before.gc_bytes, seconds, freed)
}

/// Copies `bytes` from one half of a file to the other, and gives up to `freed` bytes back to the
/// file system: seconds of each.
fn plain(dir: &Path, bytes: u64, freed: u64) -> (f64, f64) {
    let path = dir.join(format!("gds_kv_compaction_plain_{}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap();
    let mut blocks = Blocks::new(MIB).unwrap();
    blocks.fill(0x5a);
    let count = bytes.div_ceil(MIB as u64);
    for n in 0..2 * count {
        file.write_all_at(&blocks, n * MIB as u64).unwrap();
    }
    file.sync_all().unwrap();
    let begin = Instant::now();
    for n in 0..count {
        file.read_exact_at(&mut blocks, n * MIB as u64).unwrap();
        file.write_all_at(&blocks, (count + n) * MIB as u64)
            .unwrap();
    }
    file.sync_data().unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    drop(file);
    let disk = FileDisk::open(&path, OpenMode::read_write(), gds_rs::io::best()).unwrap();
    let segment = KvConfig::default().segment_bytes;
    let begin = Instant::now();
    for at in (0..disk.size().min(freed)).step_by(segment as usize) {
        disk.discard(at, segment).unwrap();
    }
    let given_back =
        begin.elapsed().as_secs_f64() * freed as f64 / disk.size().min(freed).max(1) as f64;
    drop(disk);
    std::fs::remove_file(&path).unwrap();
    (seconds, given_back)
}

fn main() {
    let settings = settings();
    println!(
        "{} MiB of values of {} bytes, every second one deleted, in {}",
        settings.size / MIB,
        settings.value,
        settings.dir.display()
    );
    for round in 1..=settings.rounds {
        let (moved, seconds, freed) = ours(&settings);
        let (limit, given_back) = plain(&settings.dir, moved, freed);
        println!(
            "round {round}: {:.0} MB moved in {seconds:.2} s, {:.2} GB/s, {:.0} MB freed; plain \
             copy {:.2} GB/s, ratio {:.2}; giving as much back takes {given_back:.2} s, ratio \
             with that {:.2}",
            moved as f64 / 1e6,
            moved as f64 / seconds / 1e9,
            freed as f64 / 1e6,
            moved as f64 / limit / 1e9,
            limit / seconds,
            (limit + given_back) / seconds
        );
    }
}
