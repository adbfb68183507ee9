//! A log-linear latency histogram: 16 steps to each power of two, so a percentile is at most
//! one sixteenth too high and never too low.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::base::clock::now_ns;

/// `Histogram::sample` measures one operation in so many.
pub const SAMPLED: u64 = 64;

thread_local! {
    /// The thread's dice for `Histogram::sample`; zero, so that a thread's first one counts.
    static DICE: Cell<u64> = const { Cell::new(0) };
}

const STEPS: usize = 16;
const BUCKETS: usize = STEPS * 61;

/// Counts of nanoseconds. About 8 KiB.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64; BUCKETS]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

/// What a histogram says, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: Box::new([const { AtomicU64::new(0) }; BUCKETS]),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Counts one value `times` times.
    #[inline]
    pub fn record_many(&self, ns: u64, times: u64) {
        self.counts[bucket(ns)].fetch_add(times, Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(times), Relaxed);
        if self.max_ns.load(Relaxed) < ns {
            self.max_ns.fetch_max(ns, Relaxed);
        }
    }

    /// Does `operation` and counts how long that took, whatever came of it.
    pub fn time<R>(&self, operation: impl FnOnce() -> R) -> R {
        let start = now_ns();
        let result = operation();
        self.record(now_ns().saturating_sub(start));
        result
    }

    /// As `time`, but measures about one in 64 of the thread's operations, by a dice, so
    /// that no rhythm of theirs hides some. For those that take little longer than two readings
    /// of the clock.
    #[inline]
    pub fn sample<R>(&self, operation: impl FnOnce() -> R) -> R {
        let number = DICE.get();
        // Knuth's MMIX generator; its upper bits are the good ones.
        let next = number.wrapping_mul(0x5851_F42D_4C95_7F2D);
        DICE.set(next.wrapping_add(0x1405_7B7E_F767_814F));
        if number < u64::MAX / SAMPLED {
            self.time(operation)
        } else {
            operation()
        }
    }

    /// Mean, percentiles and maximum of what was counted.
    #[must_use]
    pub fn summary(&self) -> Latency {
        self.counted().1
    }

    /// How many values were counted, and their summary.
    #[must_use]
    pub fn counted(&self) -> (u64, Latency) {
        let counts: Vec<u64> = self.counts.iter().map(|c| c.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return (0, Latency::default());
        }
        let max_ns = self.max_ns.load(Relaxed);
        let at = |part: f64| {
            let wanted = ((total as f64 * part).ceil() as u64).max(1);
            let mut seen = 0;
            for (i, count) in counts.iter().enumerate() {
                seen += count;
                if seen >= wanted {
                    return bucket_end(i).min(max_ns);
                }
            }
            max_ns
        };
        let latency = Latency {
            mean_ns: self.sum_ns.load(Relaxed) / total,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns,
        };
        (total, latency)
    }
}

/// Values below 16 have a bucket each; above, the top bit picks a row and the next four a step.
#[inline]
fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let top = 63 - ns.leading_zeros() as usize;
    let step = (ns >> (top - 4)) as usize & (STEPS - 1);
    (top - 3) * STEPS + step
}

/// The largest value that falls into a bucket.
fn bucket_end(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let shift = index / STEPS - 1;
    let start = ((STEPS + index % STEPS) as u64) << shift;
    start + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_inside_its_bucket() {
        for shift in 0..64u32 {
            for add in [0u64, 1, 3] {
                let v = (1u64 << shift).saturating_add(add << shift.saturating_sub(3));
                let i = bucket(v);
                assert!(i < BUCKETS && bucket_end(i) >= v, "{v}");
                assert!(i == 0 || bucket_end(i - 1) < v, "{v}");
            }
        }
    }

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let h = Histogram::default();
        for v in 1..=100_000u64 {
            h.record(v);
        }
        let (count, s) = h.counted();
        assert_eq!(count, 100_000);
        for (got, want) in [(s.p50_ns, 50_000), (s.p99_ns, 99_000), (s.p999_ns, 99_900)] {
            assert!(
                got >= want && got <= want + want / 16 + 1,
                "{got} for {want}"
            );
        }
        assert_eq!((s.mean_ns, s.max_ns), (50_000, 100_000));
    }

    #[test]
    fn a_sample_has_one_in_sixty_four_of_any_rhythm() {
        let both = [Histogram::default(), Histogram::default()];
        let sampled = std::thread::spawn(move || {
            let first = Histogram::default();
            first.sample(|| ());
            assert_eq!(first.counted().0, 1);
            for n in 0..1_000_000_usize {
                assert_eq!(both[n % 2].sample(|| n), n);
            }
            both.map(|h| h.counted().0)
        });
        for count in sampled.join().expect("the thread ends") {
            let wanted = 500_000 / SAMPLED;
            assert!(count.abs_diff(wanted) < wanted / 10, "{count} for {wanted}");
        }
    }
}
