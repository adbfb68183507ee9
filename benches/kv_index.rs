//! Prints what a point look-up in the store's index costs, beside a plain hash map.
#![allow(clippy::print_stdout, missing_docs)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::{Batch, KvConfig, Store};

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    key[8..].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    key
}

/// Look-ups a second, best of five rounds.
fn best(keys: u64, look: impl Fn(&[u8]) -> bool) -> f64 {
    let mut best = 0.0f64;
    let mut state = 1u64;
    for _ in 0..5 {
        let count = 2_000_000u64;
        let start = Instant::now();
        for _ in 0..count {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            assert!(black_box(look(&key(state % keys))));
        }
        best = best.max(count as f64 / start.elapsed().as_secs_f64());
    }
    best
}

fn main() {
    let keys = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(1_000_000u64);
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let config = KvConfig {
        memtable_bytes: 1 << 30,
        ..KvConfig::default()
    };
    let store = match Store::create_on(disk, config) {
        Ok(store) => store,
        Err(error) => return println!("{error}"),
    };
    let start = Instant::now();
    for first in (0..keys).step_by(1000) {
        let mut batch = Batch::new();
        for n in first..(first + 1000).min(keys) {
            batch.put(&key(n), &[1; 16]);
        }
        if let Err(error) = store.write_async(&batch) {
            return println!("{error}");
        }
    }
    let load = keys as f64 / start.elapsed().as_secs_f64();
    println!("{keys} keys: {load:.0} puts/s in batches of 1000, tickets, on a disk in memory");
    let map: HashMap<Vec<u8>, u64> = (0..keys).map(|n| (key(n).to_vec(), n)).collect();
    let ours = best(keys, |k| store.len_of(k).is_some());
    println!("index, uniform, one thread: {:.2} M/s", ours / 1e6);
    let theirs = best(keys, |k| map.contains_key(k));
    println!("HashMap<Vec<u8>, u64>, no lock: {:.2} M/s", theirs / 1e6);
    let get = best(keys, |k| matches!(store.get(k), Ok(Some(_))));
    println!("get of 16 bytes in memory: {:.2} M/s", get / 1e6);
    println!(
        "index memory: {} bytes a key",
        store.stats().index_bytes / keys
    );
}
