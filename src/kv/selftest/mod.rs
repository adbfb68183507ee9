//! The crash check that ships: workloads on a simulated disk, and every kind of disk that a crash
//! may leave of them, each opened and compared with what was acknowledged.
//!
//! What is checked of each disk: it opens; it holds a prefix of the commits, in order, each whole,
//! with everything that was acknowledged by then; every value read is the value that was put; now
//! and then the whole store is verified, used on and crashed again, during recovery too. The same
//! code runs in the tests of the store and in `gds selftest`, so that users can try their build.

pub mod fuzzing;
mod images;
mod oracle;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use images::{Effort, check, check_images, check_images_until, open};
pub use oracle::{Map, Oracle, contents};
pub use workload::{Run, Workload, read_located, run};

/// What a crash check did.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The seed of the first workload.
    pub seed: u64,
    /// Workloads that were run.
    pub workloads: u64,
    /// Changes of the disk that they made, at each of which a crash was looked at or could be.
    pub moments: u64,
    /// Disks that were opened and compared.
    pub images: u64,
    /// The first thing that was wrong.
    pub failure: Option<Failure>,
}

/// Something that a crash may do to the store, and must not.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The workload; the same seed makes the same operations again. Threads may interleave
    /// otherwise, so that it may take several runs to see the same.
    pub workload: Workload,
    /// What was looked at.
    pub effort: Effort,
    /// What is wrong.
    pub what: String,
}

/// The kinds of workloads, which take turns: every prefix of a growing store; lost and torn
/// writes; a full store on a slow disk, whose space is used again at once; crashes while an
/// opening recovers.
fn kind(seed: u64) -> (Workload, Effort) {
    let growing = Workload {
        seed,
        operations: 60,
        size_bytes: 0,
        delay: Duration::ZERO,
        value_max: 12_000,
    };
    let every = Effort {
        step: 1,
        subsets: 1,
        tears: 0,
        thorough: 16,
        second: 0,
    };
    match seed % 4 {
        0 => (
            Workload {
                value_max: 30_000,
                ..growing
            },
            every,
        ),
        1 => (
            growing,
            Effort {
                step: 2,
                subsets: 4,
                tears: 2,
                ..every
            },
        ),
        2 => (
            Workload {
                operations: 150,
                size_bytes: 1 << 20,
                delay: Duration::from_micros(200),
                value_max: 60_000,
                ..growing
            },
            Effort {
                step: 3,
                subsets: 2,
                tears: 1,
                ..every
            },
        ),
        _ => (
            Workload {
                value_max: 8000,
                ..growing
            },
            Effort {
                step: 4,
                subsets: 1,
                tears: 1,
                second: 8,
                ..every
            },
        ),
    }
}

/// Looks at `images` disks at least, of as many workloads as that takes, and stops at the first
/// that is wrong. `tell` is called with how many there were so far.
pub fn crash_images(images: u64, seed: u64, tell: &mut dyn FnMut(u64)) -> Summary {
    let mut summary = Summary {
        seed,
        ..Summary::default()
    };
    while summary.images < images {
        let (workload, effort) = kind(seed.wrapping_add(summary.workloads));
        summary.workloads += 1;
        let before = summary.images;
        let mut looked = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let done = run(workload)?;
            let moments = done.disk.now();
            check_images_until(&done, effort, &mut |so_far| {
                looked = so_far as u64;
                tell(before + looked);
                before + looked < images
            })
            .map(|_| moments)
        }));
        summary.images = before + looked;
        let what = match result {
            Ok(Ok(moments)) => {
                summary.moments += moments as u64;
                continue;
            }
            Ok(Err(what)) => what,
            Err(_) => "the store stopped in a panic".to_owned(),
        };
        summary.failure = Some(Failure {
            workload,
            effort,
            what,
        });
        break;
    }
    summary
}

/// xorshift64*: what a workload does.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// Bytes that say where they come from.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut all = Vec::with_capacity(len + 8);
    while all.len() < len {
        all.extend(random.next().to_le_bytes());
    }
    all.truncate(len);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_images_as_asked_for() {
        let mut last = 0;
        let summary = crash_images(120, 3, &mut |so_far| last = so_far);
        assert!(summary.failure.is_none(), "{summary:?}");
        assert!(
            summary.images >= 120 && last == summary.images,
            "{summary:?}"
        );
        assert!(summary.workloads >= 1 && summary.moments > 0);
    }

    #[test]
    fn four_kinds_take_turns() {
        let kinds: Vec<Workload> = (0..4).map(|seed| kind(seed).0).collect();
        assert!(kinds.iter().any(|w| w.size_bytes > 0));
        assert!((0..4).any(|seed| kind(seed).1.second > 0));
        assert!((0..4).any(|seed| kind(seed).1.tears > 0));
    }
}
