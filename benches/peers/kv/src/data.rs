//! Keys, values that can be checked, and random numbers.

use std::sync::OnceLock;

/// Bytes of a key of `key_of`.
pub const KEY: usize = 24;
/// Values are filled, and so can be checked, by pieces of this size.
const PIECE: usize = 4096;
const POOL: usize = 1 << 20;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform from `low` to `high`, both possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// YCSB's 64-bit FNV-1a over the eight bytes of a number.
pub fn fnv(number: u64) -> u64 {
    number
        .to_le_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// The key of record `id`: `user` and 20 digits, in the order of a hash as YCSB loads them.
pub fn key_of(id: u64) -> [u8; KEY] {
    let mut key = *b"user00000000000000000000";
    let mut rest = fnv(id);
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Random bytes that values are cut from: filling costs a copy, the same for every engine, and
/// nothing can be compressed.
fn pool() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut rng = Rng(0x6764_735f_7273);
        (0..(POOL + PIECE) / 8)
            .flat_map(|_| rng.next().to_le_bytes())
            .collect()
    })
}

fn piece(seed: u64, index: usize, size: usize) -> &'static [u8] {
    let at = mix(seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) as usize % POOL;
    &pool()[at..at + size]
}

/// Writes the value that record `id` has in version `seed`: both numbers, then bytes from them.
pub fn fill(value: &mut [u8], id: u64, seed: u64) {
    for (index, part) in value.chunks_mut(PIECE).enumerate() {
        part.copy_from_slice(piece(seed, index, part.len()));
    }
    if let Some(head) = value.get_mut(..16) {
        head[..8].copy_from_slice(&id.to_le_bytes());
        head[8..].copy_from_slice(&seed.to_le_bytes());
    }
}

/// The version of a value of record `id`, when every byte of it is what `fill` wrote.
pub fn version_of(value: &[u8], id: u64) -> Option<u64> {
    let number = |at: usize| {
        let bytes = value.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let seed = number(8)?;
    let whole = value.chunks(PIECE).enumerate().all(|(index, part)| {
        let skip = if index == 0 { 16 } else { 0 };
        part[skip..] == piece(seed, index, part.len())[skip..]
    });
    (number(0)? == id && whole).then_some(seed)
}

/// YCSB's Zipfian numbers below `n`, 0 the most frequent (Gray et al., SIGMOD 1994).
pub struct Zipfian {
    n: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
    half: f64,
}

impl Zipfian {
    pub fn new(n: u64, theta: f64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let (zeta, two) = (zeta_of(n), zeta_of(2.min(n)));
        let nf = n as f64;
        Self {
            n: nf,
            alpha: 1.0 / (1.0 - theta),
            zeta,
            eta: (1.0 - (2.0 / nf).powf(1.0 - theta)) / (1.0 - two / zeta),
            half: 1.0 + 0.5_f64.powf(theta),
        }
    }

    pub fn next(&self, rng: &mut Rng) -> u64 {
        let u = rng.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < self.half {
            return 1;
        }
        let rank = self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        rank.min(self.n - 1.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_what_they_are() {
        for size in [16, 1000, 4096, 10_000, 1 << 20] {
            let mut value = vec![0; size];
            fill(&mut value, 7, 9);
            assert_eq!(version_of(&value, 7), Some(9));
            assert_eq!(version_of(&value, 8), None);
            for at in [0, size / 2, size - 1] {
                value[at] ^= 1;
                assert_ne!(version_of(&value, 7), Some(9), "{size} bytes, byte {at}");
                value[at] ^= 1;
            }
        }
        assert_eq!(version_of(&[1; 12], 7), None);
    }

    #[test]
    fn zipf_is_as_skewed_as_its_law_says() {
        let (n, draws) = (10_000, 400_000);
        let zipf = Zipfian::new(n, 0.99);
        let mut rng = Rng(1);
        let mut count = vec![0_u32; n as usize];
        for _ in 0..draws {
            count[zipf.next(&mut rng) as usize] += 1;
        }
        let zeta: f64 = (1..=n).map(|i| (i as f64).powf(-0.99)).sum();
        for rank in [0, 1] {
            let expected = f64::from(draws) * ((rank + 1) as f64).powf(-0.99) / zeta;
            let got = f64::from(count[rank]);
            assert!(
                (got / expected - 1.0).abs() < 0.05,
                "{rank}: {got} for {expected}"
            );
        }
        let top: u32 = count[..100].iter().sum();
        let expected: f64 = (1..=100).map(|i| f64::from(i).powf(-0.99)).sum::<f64>() / zeta;
        assert!((f64::from(top) / f64::from(draws) - expected).abs() < 0.02);
    }

    #[test]
    fn keys_are_apart_and_of_one_length() {
        let mut keys: Vec<_> = (0..100_000).map(key_of).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 100_000);
    }
}
