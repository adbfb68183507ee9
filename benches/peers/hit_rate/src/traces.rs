//! The named traces. Sizes follow the cache, so that a trace asks the same question of every
//! cache size. Pages are numbered densely from 0, which lets simulators index arrays.

/// Accesses of a trace, for each page of the cache.
const LENGTH: usize = 200;

/// A named sequence of page numbers.
pub struct Trace {
    pub name: &'static str,
    pub accesses: Vec<u32>,
    /// One more than the highest page number.
    pub pages: usize,
}

/// SplitMix64: small, seedable, the same on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6a09_e667_f3bc_c908)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in 0..bound.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn shuffle(&mut self, items: &mut [u32]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The finalizer of SplitMix64; also the hash of a page number.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Zipf over `items` ranks by inversion of the cumulative distribution.
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub fn new(items: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative = Vec::with_capacity(items);
        for rank in 1..=items {
            sum += (rank as f64).powf(-exponent);
            cumulative.push(sum);
        }
        Zipf { cumulative }
    }

    pub fn sample(&self, rng: &mut Rng) -> u32 {
        let total = self.cumulative[self.cumulative.len() - 1];
        let at = rng.unit() * total;
        let rank = self.cumulative.partition_point(|&c| c < at);
        rank.min(self.cumulative.len() - 1) as u32
    }
}

fn trace(name: &'static str, accesses: Vec<u32>) -> Trace {
    let pages = accesses.iter().max().map_or(0, |&page| page as usize + 1);
    Trace {
        name,
        accesses,
        pages,
    }
}

fn zipf(name: &'static str, cache: usize, exponent: f64, rng: &mut Rng) -> Trace {
    let zipf = Zipf::new(cache * 10, exponent);
    trace(
        name,
        (0..cache * LENGTH).map(|_| zipf.sample(rng)).collect(),
    )
}

fn scans(cache: usize, rng: &mut Rng) -> Trace {
    let zipf = Zipf::new(cache * 10, 0.99);
    let mut fresh = (cache * 10) as u32;
    let access = |_| {
        if rng.below(5) == 0 {
            zipf.sample(rng)
        } else {
            fresh += 1;
            fresh - 1
        }
    };
    trace(
        "zipf .99 + 80 % one-pass scans",
        (0..cache * LENGTH).map(access).collect(),
    )
}

fn cycle(name: &'static str, cache: usize, pages: usize) -> Trace {
    trace(
        name,
        (0..cache * LENGTH).map(|i| (i % pages) as u32).collect(),
    )
}

fn shuffled(cache: usize, rng: &mut Rng) -> Trace {
    let mut epoch: Vec<u32> = (0..cache as u32 * 2).collect();
    let mut accesses = Vec::with_capacity(cache * LENGTH);
    while accesses.len() < cache * LENGTH {
        rng.shuffle(&mut epoch);
        accesses.extend_from_slice(&epoch);
    }
    trace("shuffled epochs of 200 %", accesses)
}

fn moving(cache: usize, rng: &mut Rng) -> Trace {
    let set = cache * 8 / 10;
    let phase = cache * 4;
    let access = |i: usize| ((i / phase) * set + rng.below(set)) as u32;
    trace(
        "moving working set of 80 %",
        (0..cache * LENGTH).map(access).collect(),
    )
}

fn index(cache: usize, rng: &mut Rng) -> Trace {
    let zipf = Zipf::new(cache * 10, 0.99);
    let inner = cache / 50;
    let access = |i: usize| {
        if i.is_multiple_of(4) {
            rng.below(inner) as u32
        } else {
            inner as u32 + zipf.sample(rng)
        }
    };
    trace(
        "zipf .99 + index pages",
        (0..cache * LENGTH).map(access).collect(),
    )
}

fn working_set(cache: usize, rng: &mut Rng) -> Trace {
    let set = cache * 8 / 10;
    let access = |_| {
        if rng.below(50) == 0 {
            (set + rng.below(cache * 100)) as u32
        } else {
            rng.below(set) as u32
        }
    };
    trace(
        "working set of 80 % + 2 % noise",
        (0..cache * LENGTH).map(access).collect(),
    )
}

/// The number of traces that the average counts; the working-set trace comes after them.
pub const AVERAGED: usize = 8;

/// All traces for a cache of `cache` pages, from one seed.
pub fn all(cache: usize, seed: u64) -> Vec<Trace> {
    let mut rng = Rng::new(seed);
    vec![
        zipf("zipf .99", cache, 0.99, &mut rng),
        zipf("zipf .8", cache, 0.8, &mut rng),
        scans(cache, &mut rng),
        cycle("loop of 110 %", cache, cache * 11 / 10),
        cycle("loop of 200 %", cache, cache * 2),
        shuffled(cache, &mut rng),
        moving(cache, &mut rng),
        index(cache, &mut rng),
        working_set(cache, &mut rng),
    ]
}
