//! Hit rates of our eviction policies beside known policies, other caches and Belady's bound.
//!
//!     hit_rate [--pages 10000] [--seed 1] [--ours]
//!
//! `--pages` is the size of the cache, `--ours` leaves the others out.

mod ours;
mod peers;
mod simulators;
mod traces;

use gds_rs::cache::policy::PolicyKind;
use traces::{Trace, mix};

/// The columns; the first is the one that is held to the goals.
const NAMES: [&str; 11] = [
    "ours", "clock*", "lru*", "LRU", "CLOCK", "SIEVE", "S3-FIFO", "quick", "moka", "foyer",
    "Belady",
];
const OURS: usize = 3;
const BELADY: usize = 10;

fn measure(trace: &Trace, cache: usize, seed: u64, only_ours: bool) -> Vec<f64> {
    let (accesses, pages) = (&trace.accesses[..], trace.pages);
    let percent = |hits: u64| hits as f64 * 100.0 / accesses.len() as f64;
    let mut row: Vec<f64> = PolicyKind::ALL
        .iter()
        .map(|&kind| percent(ours::hits(kind, accesses, pages, cache, mix(seed))))
        .collect();
    if !only_ours {
        row.extend([
            percent(simulators::lru(accesses, pages, cache)),
            percent(simulators::clock(accesses, pages, cache)),
            percent(simulators::sieve(accesses, pages, cache)),
            percent(simulators::s3_fifo(accesses, pages, cache)),
            percent(peers::quick_cache(accesses, cache)),
            percent(peers::moka(accesses, cache)),
            percent(peers::foyer(accesses, cache)),
            percent(simulators::belady(accesses, pages, cache)),
        ]);
    }
    row
}

/// As printed: a tie in the table is a tie.
fn tenths(percent: f64) -> i64 {
    (percent * 10.0).round() as i64
}

fn print_row(name: &str, cells: &[f64]) {
    print!("{name:31}");
    for cell in cells {
        print!("{cell:8.1}");
    }
}

fn main() {
    let (mut cache, mut seed, mut only_ours) = (10_000_usize, 1_u64, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse::<u64>().ok());
        let known = match argument.as_str() {
            "--pages" => number().filter(|&n| n >= 64).map(|n| cache = n as usize),
            "--seed" => number().map(|n| seed = n),
            "--ours" => {
                only_ours = true;
                Some(())
            }
            _ => None,
        };
        if known.is_none() {
            eprintln!("hit_rate [--pages N, 64 or more] [--seed N] [--ours]");
            std::process::exit(2);
        }
    }

    println!(
        "Hit %, cache of {cache} pages, seed {seed}. ours = {}, * = ours too; all ours in {} \
        shards.",
        PolicyKind::ALL[0].name(),
        gds_rs::cache::policy::shard_count(cache)
    );
    let columns = if only_ours { OURS } else { NAMES.len() };
    print!("{:31}", "trace");
    for name in &NAMES[..columns] {
        print!("{name:>8}");
    }
    println!("{:>8}{:>8}", "best", "behind");

    let mut sums = vec![0.0; columns];
    let (mut behind_sum, mut worst) = (0.0, Vec::new());
    for (i, trace) in traces::all(cache, seed).iter().enumerate() {
        let row = measure(trace, cache, seed, only_ours);
        let others = &row[OURS..columns.clamp(OURS, BELADY)];
        let best = others.iter().copied().fold(row[0], f64::max);
        let behind = best - row[0];
        if i < traces::AVERAGED {
            behind_sum += behind;
            sums.iter_mut()
                .zip(&row)
                .for_each(|(sum, cell)| *sum += cell);
        }
        if !others.is_empty() && others.iter().all(|&other| tenths(row[0]) < tenths(other)) {
            worst.push(trace.name);
        }
        if i == traces::AVERAGED {
            let count = traces::AVERAGED as f64;
            let average: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
            print_row("average of the eight", &average);
            println!("{:8}{:8.2}", "", behind_sum / count);
        }
        print_row(trace.name, &row);
        println!("{best:8.1}{behind:8.1}");
    }
    if !only_ours {
        println!(
            "ours is the worst on: {}",
            if worst.is_empty() {
                "none".into()
            } else {
                worst.join(", ")
            }
        );
    }
}
