//! Named orders of access, sized by the cache, and the most that any cache can hit in them.

use std::collections::{BinaryHeap, HashMap};

use super::super::super::scratch::mix;

/// Accesses of a trace for each page of the cache: enough that first accesses, which no cache
/// hits, count for little. Large caches get fewer, but `LEAST`.
const LENGTH: u64 = 100;
const LEAST: u64 = 20;
const ACCESSES: u64 = 4 << 20;
/// Pages of the file for each page of the cache, where the file has them.
pub(super) const SPREAD: u64 = 8;

/// A named order of access.
#[derive(Debug)]
pub(in crate::cli) struct Trace {
    pub(in crate::cli) name: &'static str,
    /// Page numbers.
    pub(super) accesses: Vec<u64>,
}

/// Numbers without a pattern, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Zipf by inversion of the cumulative distribution, ranks scattered over the pages.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(pages: u64) -> Self {
        const EXPONENT: f64 = 0.99;
        let mut sum = 0.0;
        let add = |rank: u64| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        };
        Self {
            cumulative: (1..=pages).map(add).collect(),
        }
    }

    fn page(&self, random: &mut Random) -> u64 {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let at = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let rank = self.cumulative.partition_point(|sum| *sum < at) as u64;
        let pages = self.cumulative.len() as u64;
        // An odd step that shares no factor with most counts; two ranks on one page do no harm.
        rank.min(pages - 1).wrapping_mul(0x9E37_79B1) % pages
    }
}

/// Four fifths of the cache, again and again, with 2 % of accesses elsewhere.
pub(in crate::cli) fn working_set(frames: u64, pages: u64) -> Trace {
    let mut random = Random(4 << 32);
    let set = (frames * 8 / 10).clamp(1, pages);
    let access = |_| match random.below(50) {
        0 if pages > set => set + random.below(pages - set),
        _ => random.below(set),
    };
    Trace {
        name: "working set",
        accesses: (0..length(frames)).map(access).collect(),
    }
}

/// Accesses of a trace.
fn length(frames: u64) -> u64 {
    (frames * LENGTH).min(ACCESSES).max(frames * LEAST)
}

/// All traces for a cache of `frames` pages over a file of `pages`.
pub(super) fn all(frames: u64, pages: u64) -> Vec<Trace> {
    let spread = (frames * SPREAD).clamp(1, pages);
    let zipf = Zipf::new(spread);
    let mut random = Random(1 << 32);
    let plain = (0..length(frames)).map(|_| zipf.page(&mut random));
    let plain = Trace {
        name: "zipf",
        accesses: plain.collect(),
    };
    let mut random = Random(2 << 32);
    let mut scan = 0;
    let mixed = (0..length(frames)).map(|_| {
        if random.below(2) == 0 {
            return zipf.page(&mut random);
        }
        scan = (scan + 1) % pages;
        scan
    });
    let mixed = Trace {
        name: "zipf + scan",
        accesses: mixed.collect(),
    };
    let round = (frames * 11 / 10).clamp(1, pages);
    let circle = Trace {
        name: "loop of 110 %",
        accesses: (0..length(frames)).map(|i| i % round).collect(),
    };
    vec![plain, mixed, circle, working_set(frames, pages)]
}

impl Trace {
    /// The part of accesses that a cache of `frames` pages hits when it knows what comes (Belady):
    /// no cache that takes in every page hits more.
    pub(super) fn bound(&self, frames: u64) -> f64 {
        let mut next = vec![usize::MAX; self.accesses.len()];
        let mut seen: HashMap<u64, usize> = HashMap::new();
        for (at, page) in self.accesses.iter().enumerate().rev() {
            next[at] = seen.insert(*page, at).unwrap_or(usize::MAX);
        }
        // Pages by their next use, the farthest first; entries out of date are passed over.
        let mut resident: HashMap<u64, usize> = HashMap::new();
        let mut farthest: BinaryHeap<(usize, u64)> = BinaryHeap::new();
        let mut hits = 0_u64;
        for (at, page) in self.accesses.iter().enumerate() {
            if resident.contains_key(page) {
                hits += 1;
            } else if resident.len() as u64 >= frames {
                while let Some((use_at, victim)) = farthest.pop() {
                    if resident.get(&victim) == Some(&use_at) {
                        resident.remove(&victim);
                        break;
                    }
                }
            }
            resident.insert(*page, next[at]);
            farthest.push((next[at], *page));
        }
        hits as f64 / self.accesses.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(accesses: &[u64]) -> Trace {
        Trace {
            name: "x",
            accesses: accesses.to_vec(),
        }
    }

    #[test]
    fn the_bound_is_that_of_belady() {
        // The example of textbooks: 11 hits of 20 with three frames.
        let book = [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1];
        assert_eq!(trace(&book).bound(3), 11.0 / 20.0);
        assert_eq!(trace(&[1, 2, 1, 2]).bound(2), 0.5);
        assert_eq!(trace(&[1, 2, 3]).bound(8), 0.0);
    }

    #[test]
    fn traces_stay_inside_of_the_file_and_are_what_they_say() {
        for pages in [1, 5, 1000, 100_000] {
            for trace in all(100, pages) {
                assert_eq!(trace.accesses.len(), 10_000, "{}", trace.name);
                assert!(trace.accesses.iter().all(|p| *p < pages), "{}", trace.name);
            }
        }
        let set = working_set(1000, 100_000);
        let inside = set.accesses.iter().filter(|p| **p < 800).count();
        assert!((97_500..98_500).contains(&inside), "{inside}");
        let circle = &all(100, 1000)[2];
        assert_eq!(circle.accesses[..3], [0, 1, 2]);
        assert_eq!(circle.accesses[110], 0);
    }
}
