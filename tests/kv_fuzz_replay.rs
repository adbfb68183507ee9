//! The corpus of the fuzz targets, and mutations of it from a seed: parsers refuse, or give what
//! fits into their input. No panic, and no more memory than a few times the input.
//!
//! `GDS_KV_MUTATIONS=n` mutations a parser; `GDS_KV_NIGHTLY=1` those of a night. `GDS_BLESS=1`
//! writes the corpus anew, from stores that are made here.

#![allow(clippy::print_stdout)]

mod counting_memory;
mod kv_driver;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use counting_memory::most_of;
use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::selftest::fuzzing::Target;
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::Store;
use gds_rs::kv::superblock::Superblock;
use kv_driver::{Random, amount, config};

/// Memory that a target may take beside a few times its input: windows of recovery, an opened
/// store with its log.
const BESIDE: isize = 24 << 20;

fn corpus(target: Target) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    folder.join(target.name())
}

/// Inputs of a real store: its superblock, its log, its pages, index blocks and summaries.
fn made(target: Target) -> Vec<Vec<u8>> {
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let store = Store::create_as(disk.clone(), config(), *b"0123456789abcdef").expect("a store");
    let mut random = Random(3);
    for n in 0..40u64 {
        let len = [10, 300, 4000, 9000][n as usize % 4];
        let key = format!("key {}", n % 9).into_bytes();
        store.put(&key, &random.bytes(len)).expect("put");
        if n.is_multiple_of(7) {
            store.delete(&key).expect("deleted");
        }
        if n == 30 {
            store.checkpoint().expect("a checkpoint");
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let copy = disk.copy();
    let superblock = Superblock::read_quorum(&copy).expect("a superblock");
    let read = |offset: u64, len: usize| {
        let mut blocks = Blocks::new(len).expect("memory");
        copy.read(offset, &mut blocks).expect("a read");
        let mut input = vec![1];
        input.extend(&blocks[..len]);
        input
    };
    let geometry = superblock.geometry;
    let starting = |magic: &[u8; 4], len: usize, at: usize| {
        let blocks = geometry.data_offset() / BLOCK as u64..copy.size() / BLOCK as u64;
        let all = blocks.map(|n| read(n * BLOCK as u64, BLOCK));
        let found = all.zip(geometry.data_offset() / BLOCK as u64..);
        found
            .filter(|(block, _)| block[1..5] == *magic)
            .map(|(block, n)| {
                let bytes = u32::from_le_bytes(block[1 + at..5 + at].try_into().expect("4"));
                read(n * BLOCK as u64, (bytes as usize).min(len))
            })
            .take(4)
            .collect()
    };
    match target {
        Target::Wal => {
            let from = geometry.wal_offset() + superblock.wal.position % geometry.wal_bytes;
            let left = geometry.wal_offset() + geometry.wal_bytes - from;
            vec![
                read(from, left.min(32 << 10) as usize),
                read(geometry.wal_offset(), 32 << 10),
            ]
        }
        Target::Superblock => vec![read(0, BLOCK), read(geometry.spacing, BLOCK)],
        Target::Page => starting(b"GKVP", 32 << 10, 16),
        Target::Meta => starting(b"GKVM", 32 << 10, 24),
        Target::Summary => {
            let segment = geometry.segment_bytes;
            let ends = (1..=geometry.segments_in(copy.size())).map(|n| geometry.segment_offset(n));
            let all = ends.map(|end| read(end - segment.min(16 << 10), 16 << 10));
            all.filter(|input| input[input.len() - 64..].starts_with(b"GKVS"))
                .take(4)
                .collect()
        }
        Target::Operations => (0..4).map(|_| random.bytes(129)).collect(),
    }
}

fn inputs(target: Target) -> Vec<Vec<u8>> {
    let folder = corpus(target);
    if std::env::var("GDS_BLESS").is_ok_and(|v| v == "1") {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (number, input) in made(target).iter().enumerate() {
            // Zeros at the end are added back when it is read.
            let len = input
                .iter()
                .rposition(|b| *b != 0)
                .map_or(1, |last| last + 1);
            std::fs::write(folder.join(format!("made-{number}")), &input[..len]).expect("written");
        }
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}; GDS_BLESS=1 makes it", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|p| std::fs::read(p).expect("read"))
        .collect()
}

/// Changes an input in one to four ways.
fn mutate(input: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.len() < 2 {
            bytes.extend(random.bytes(8));
        }
        let at = random.below(bytes.len() as u64) as usize;
        // Headers, and what ends a summary, are a small part of the bytes and most of what matters.
        let header = random.below(160) as usize;
        let ends = if header < 96 { 0 } else { BLOCK - 160 };
        let near = at / BLOCK * BLOCK + 1 + header + ends;
        let at = if random.below(2) == 0 {
            near.min(bytes.len() - 1)
        } else {
            at
        };
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 | 4 => {
                let value = match random.below(5) {
                    0 => random.below(70) as u32,
                    1 => u32::MAX - random.below(5000) as u32,
                    2 => 1 << random.below(32),
                    3 => bytes.len() as u32,
                    _ => random.next() as u32,
                };
                let at = at.min(bytes.len().saturating_sub(4));
                let len = 4.min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            5 => bytes.truncate(at),
            6 => {
                let other = &others[random.below(others.len() as u64) as usize];
                let len = (random.below(4096) as usize)
                    .min(other.len())
                    .min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&other[..len]);
            }
            _ => {
                let len = (random.below(64) as usize).min(bytes.len() - at);
                bytes.copy_within(at..at + len, at / 2);
            }
        }
    }
    bytes
}

fn run(target: Target, input: &[u8], what: &str) {
    let (result, took) = most_of(|| target.run(input));
    result.unwrap_or_else(|e| panic!("{} {what}: {e}", target.name()));
    let allowed = BESIDE + 8 * input.len() as isize;
    assert!(
        took < allowed,
        "{} {what}: {took} bytes of memory",
        target.name()
    );
}

fn replay(target: Target, change: u64, night: u64) {
    let inputs = inputs(target);
    assert!(inputs.len() > 1, "{} has no corpus", target.name());
    for (number, input) in inputs.iter().enumerate() {
        run(target, input, &format!("input {number}"));
    }
    let mutations = amount("GDS_KV_MUTATIONS", change, night);
    for seed in 0..mutations {
        let mut random = Random(seed);
        let input = &inputs[random.below(inputs.len() as u64) as usize];
        let mut bytes = mutate(input, &inputs, &mut random);
        if let Some(mode) = bytes.first_mut() {
            // Nine of ten get past the checksums.
            *mode = u8::from(random.below(10) > 0);
        }
        run(target, &bytes, &format!("mutation {seed}"));
    }
    println!(
        "{}: {} inputs, {mutations} mutations",
        target.name(),
        inputs.len()
    );
}

#[test]
fn logs() {
    replay(Target::Wal, 20_000, 2_000_000);
}

#[test]
fn superblocks() {
    replay(Target::Superblock, 20_000, 1_000_000);
}

#[test]
fn pages() {
    replay(Target::Page, 20_000, 2_000_000);
}

#[test]
fn index_blocks() {
    replay(Target::Meta, 20_000, 2_000_000);
}

#[test]
fn summaries() {
    replay(Target::Summary, 20_000, 2_000_000);
}

#[test]
fn operations() {
    replay(Target::Operations, 300, 20_000);
}
