//! The kernels that read the levels of lists and structs, compiled for the processor: validity and
//! offsets of each array beside what the rules of the format say, any levels, contradictions
//! included; nothing outside of the arrays is touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod kernel_support;
mod parquet_pages;

use std::ffi::{CStr, c_void};

use gds_rs::device::{ParquetLevels, ParquetNest, ParquetNode, ParquetStatus, ParquetWork};
use kernel_support::{Guarded, compiled};
use parquet_pages::{OnHost, Random, hold, hybrid};

/// Count, then place.
fn steps() -> [OnHost; 2] {
    let load = |name: &CStr| {
        let symbol = compiled("parquet.cu", name);
        // SAFETY: the source declares this function with this signature; it stays loaded.
        unsafe { std::mem::transmute::<*mut c_void, OnHost>(symbol) }
    };
    [
        load(c"gds_parquet_count_on_host"),
        load(c"gds_parquet_place_on_host"),
    ]
}

fn run(step: OnHost, pages: &mut [ParquetLevels], nest: &ParquetNest) {
    let work = ParquetWork {
        pages: pages.as_mut_ptr() as u64,
        page_count: pages.len() as u64,
        columns: std::ptr::from_ref(nest) as u64,
        column_count: 1,
        next: 0,
        parts: 1,
    };
    // SAFETY: the work names memory of the caller.
    unsafe { step(&work) };
}

/// A way of lists and structs, and its highest levels.
fn way(random: &mut Random) -> (Vec<ParquetNode>, u32, u32) {
    let (mut nodes, mut def, mut rep, mut slot_def) = (Vec::new(), 0, 0, 0);
    let depth = 1 + random.below(5);
    for n in 0..depth {
        def += random.below(2) as u32;
        let is_list = n + 1 < depth && random.below(2) == 0;
        nodes.push(ParquetNode {
            slot_def,
            slot_rep: rep,
            valid_def: def,
            is_list: u32::from(is_list),
            ..ParquetNode::default()
        });
        if is_list {
            (def, rep) = (def + 1, rep + 1);
            slot_def = def;
        }
    }
    (nodes, def, rep)
}

fn width(highest: u32) -> u32 {
    u32::BITS - highest.leading_zeros()
}

/// A page: its levels, and the bytes behind them.
struct Made {
    reps: Vec<u64>,
    defs: Vec<u64>,
    version_2: bool,
}

/// Memory that pages are made of, held while they are used.
#[derive(Default)]
struct Held {
    bytes: Vec<Guarded>,
    words: Vec<Vec<u64>>,
}

impl Held {
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let (memory, address) = hold(bytes);
        self.bytes.push(memory);
        address
    }

    fn room(&mut self, bytes: usize) -> u64 {
        self.put(&vec![0; bytes])
    }

    fn page(
        &mut self,
        random: &mut Random,
        made: &Made,
        nodes: usize,
        highest: [u32; 2],
    ) -> ParquetLevels {
        let count = made.defs.len();
        let mut encoded = Vec::new();
        for (levels, highest) in [&made.reps, &made.defs].into_iter().zip(highest) {
            encoded.push(match highest {
                0 => None,
                highest => Some(hybrid(random, levels, width(highest))),
            });
        }
        let mut page = ParquetLevels {
            entries: count as u32,
            version_2: u32::from(made.version_2),
            levels: self.room(2 * count),
            ..ParquetLevels::default()
        };
        self.words.push(vec![0; nodes]);
        page.places = self.words.last_mut().unwrap().as_mut_ptr() as u64;
        if made.version_2 {
            let [reps, defs] = [&encoded[0], &encoded[1]].map(|e| e.clone().unwrap_or_default());
            (page.reps, page.reps_size) = (self.put(&reps), reps.len() as u64);
            (page.defs, page.defs_size) = (self.put(&defs), defs.len() as u64);
        } else {
            let mut bytes = Vec::new();
            for levels in encoded.iter().flatten() {
                bytes.extend((levels.len() as u32).to_le_bytes());
                bytes.extend(levels);
            }
            page.data_size = bytes.len() as u64;
            page.data = self.put(&bytes);
        }
        page
    }

    fn numbers(&self, page: usize) -> &[u64] {
        &self.words[page]
    }
}

#[test]
fn validity_and_offsets_are_what_the_levels_say() {
    let [count, place] = steps();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..400 {
        let (mut nodes, max_def, max_rep) = way(&mut random);
        let mut held = Held::default();
        let mut all = Vec::new();
        let mut pages = Vec::new();
        for _ in 0..1 + random.below(3) {
            let entries = random.below(300);
            let mut level = |highest: u32| random.below(u64::from(highest) + 1);
            let made = Made {
                reps: (0..entries).map(|_| level(max_rep)).collect(),
                defs: (0..entries).map(|_| level(max_def)).collect(),
                version_2: level(1) == 0,
            };
            pages.push(held.page(&mut random, &made, nodes.len(), [max_rep, max_def]));
            all.push(made);
        }
        let nest = |nodes: &[ParquetNode]| ParquetNest {
            nodes: nodes.as_ptr() as u64,
            node_count: nodes.len() as u32,
            max_def,
            max_rep,
            reserved: 0,
        };
        run(count, &mut pages, &nest(&nodes));
        let mut sums = vec![0; nodes.len()];
        for (n, (page, made)) in pages.iter().zip(&all).enumerate() {
            assert_eq!(page.status, 0, "round {round}");
            let size = if made.version_2 { 0 } else { page.data_size };
            assert_eq!(page.at, size, "round {round}");
            assert_eq!(page.first_rep, made.reps.first().map_or(0, |r| *r as u32));
            let there = made
                .defs
                .iter()
                .filter(|d| **d == u64::from(max_def))
                .count();
            assert_eq!(page.present as usize, there, "round {round}");
            for (at, node) in nodes.iter().enumerate() {
                let slots = made.reps.iter().zip(&made.defs);
                let begins = |(r, d): &(&u64, &u64)| {
                    **r <= u64::from(node.slot_rep) && **d >= u64::from(node.slot_def)
                };
                let slots = slots.filter(begins).count() as u64;
                assert_eq!(held.numbers(n)[at], slots, "round {round}, array {at}");
                // What is before it, for the next step.
                held.words[n][at] = sums[at];
                sums[at] += slots;
            }
        }
        // Arrays that end where memory does.
        for (node, len) in nodes.iter_mut().zip(&sums) {
            node.validity = held.room(4 * len.div_ceil(32) as usize);
            node.offsets = held.room(4 * (*len as usize));
        }
        run(place, &mut pages, &nest(&nodes));
        for (at, node) in nodes.iter().enumerate() {
            let (mut slot, mut element) = (0, 0u32);
            let entries = all.iter().flat_map(|made| made.reps.iter().zip(&made.defs));
            for (r, d) in entries.map(|(r, d)| (*r as u32, *d as u32)) {
                if r <= node.slot_rep && d >= node.slot_def {
                    // SAFETY: the arrays have that many values.
                    let (word, offset) = unsafe {
                        let word = *(node.validity as *const u32).add(slot / 32);
                        (word, *(node.offsets as *const u32).add(slot))
                    };
                    let valid = word >> (slot % 32) & 1 == 1;
                    assert_eq!(valid, d >= node.valid_def, "round {round}, array {at}");
                    let wanted = if node.is_list == 1 { element } else { 0 };
                    assert_eq!(offset, wanted, "round {round}, array {at}, value {slot}");
                    slot += 1;
                }
                if let Some(below) = nodes.get(at + 1) {
                    element += u32::from(r <= below.slot_rep && d >= below.slot_def);
                }
            }
            assert_eq!(slot as u64, sums[at]);
        }
    }
}

#[test]
fn broken_levels_have_a_status_and_are_not_placed() {
    let [count, place] = steps();
    let nodes = [
        ParquetNode {
            valid_def: 1,
            is_list: 1,
            ..ParquetNode::default()
        },
        ParquetNode {
            slot_def: 2,
            slot_rep: 1,
            valid_def: 2,
            ..ParquetNode::default()
        },
    ];
    let nest = ParquetNest {
        nodes: nodes.as_ptr() as u64,
        node_count: 2,
        max_def: 2,
        max_rep: 1,
        reserved: 0,
    };
    use ParquetStatus::{Run, Truncated};
    // Version 1: sizes and levels of repetition, of one bit, then of definition, of two.
    let cases: [(&[u8], ParquetStatus); 7] = [
        (&[], Truncated),
        (&[2, 0, 0, 0, 6], Truncated),
        (&[2, 0, 0, 0, 6, 0], Truncated),
        (&[2, 0, 0, 0, 6, 0, 9, 0, 0, 0, 6, 2], Truncated),
        (&[2, 0, 0, 0, 6, 2, 2, 0, 0, 0, 6, 2], Run),
        (&[2, 0, 0, 0, 6, 0, 2, 0, 0, 0, 6, 3], Run),
        (&[2, 0, 0, 0, 4, 0, 2, 0, 0, 0, 6, 2], Truncated),
    ];
    for (n, (bytes, wanted)) in cases.into_iter().enumerate() {
        let mut held = Held::default();
        let mut numbers = [7u64; 2];
        let mut pages = [ParquetLevels {
            data: held.put(bytes),
            data_size: bytes.len() as u64,
            levels: held.room(6),
            places: numbers.as_mut_ptr() as u64,
            entries: 3,
            ..ParquetLevels::default()
        }];
        run(count, &mut pages, &nest);
        assert_eq!(pages[0].status, wanted as u32, "case {n}");
        run(place, &mut pages, &nest);
        assert_eq!(pages[0].status, wanted as u32, "case {n}");
    }
    let mut pages = [ParquetLevels {
        nest: 1,
        ..ParquetLevels::default()
    }];
    run(count, &mut pages, &nest);
    assert_eq!(pages[0].status, ParquetStatus::Unsupported as u32);
}

/// Whatever stands in a page, nothing outside it is read.
#[test]
fn flipped_and_cut_levels_stay_inside_their_memory() {
    let [count, _] = steps();
    let mut random = Random(77);
    let rounds = std::env::var("GDS_FORMATS_MUTATIONS").ok();
    let rounds: u64 = rounds.and_then(|n| n.parse().ok()).unwrap_or(3000);
    let mut read = 0;
    for _ in 0..rounds {
        let (nodes, max_def, max_rep) = way(&mut random);
        let entries = random.below(100);
        let mut held = Held::default();
        let mut bytes = Vec::new();
        for highest in [max_rep, max_def]
            .into_iter()
            .filter(|highest| *highest > 0)
        {
            let levels = (0..entries).map(|_| random.below(u64::from(highest) + 1));
            let levels: Vec<u64> = levels.collect();
            let levels = hybrid(&mut random, &levels, width(highest));
            bytes.extend((levels.len() as u32).to_le_bytes());
            bytes.extend(levels);
        }
        for _ in 0..random.below(4) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        }
        let mut numbers = vec![0u64; nodes.len()];
        let mut pages = [ParquetLevels {
            data: held.put(&bytes),
            data_size: bytes.len() as u64,
            levels: held.room(2 * entries as usize),
            places: numbers.as_mut_ptr() as u64,
            entries: entries as u32,
            ..ParquetLevels::default()
        }];
        let nest = ParquetNest {
            nodes: nodes.as_ptr() as u64,
            node_count: nodes.len() as u32,
            max_def,
            max_rep,
            reserved: 0,
        };
        run(count, &mut pages, &nest);
        if pages[0].status == 0 {
            read += 1;
            assert!(numbers.iter().all(|slots| *slots <= entries));
            assert!(pages[0].at <= bytes.len() as u64);
        }
    }
    assert!(read > rounds / 20, "{read} of {rounds} were read");
}
