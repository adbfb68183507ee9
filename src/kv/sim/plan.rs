//! What fails on a simulated disk, from a seed.

use std::time::Duration;

use super::Change;

/// What goes wrong. The default: nothing. Probabilities are 0.0 to 1.0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SimPlan {
    /// Decides every throw.
    pub seed: u64,
    /// Writes (of both kinds) that fail; a random part of the blocks, from the start, is written.
    pub write_error: f64,
    /// Flushes that fail.
    pub flush_error: f64,
    /// Reads that fail.
    pub read_error: f64,
    /// The change of this number (from 1, counted from when the plan was set) fails.
    pub fail_at: Option<u64>,
    /// Every change takes this much longer.
    pub delay: Duration,
}

pub(super) enum Verdict {
    Run,
    /// Fails after this share (of 256) of its blocks.
    Fail {
        keep: u8,
    },
}

#[derive(Debug, Default)]
pub(super) struct Dice {
    plan: SimPlan,
    random: Random,
    changes: u64,
    pub(super) failures: u64,
}

impl Dice {
    pub(super) fn new(plan: SimPlan) -> Self {
        Self {
            random: Random::new(plan.seed),
            plan,
            changes: 0,
            failures: 0,
        }
    }

    pub(super) fn judge(&mut self, change: &Change) -> Verdict {
        self.changes += 1;
        let probability = match change {
            Change::Write { .. } | Change::WriteDurable { .. } => self.plan.write_error,
            Change::Flush | Change::SyncName => self.plan.flush_error,
            Change::Resize(_) => 0.0,
        };
        if self.plan.fail_at == Some(self.changes) || self.random.hit(probability) {
            self.failures += 1;
            let keep = self.random.next() as u8;
            return Verdict::Fail { keep };
        }
        Verdict::Run
    }

    pub(super) fn judge_read(&mut self) -> bool {
        let hit = self.random.hit(self.plan.read_error);
        self.failures += u64::from(hit);
        hit
    }
}

/// The part of a change that a failure leaves.
pub(super) fn cut(change: &Change, keep: u8) -> Change {
    let mut change = change.clone();
    if let Change::Write { blocks, .. } | Change::WriteDurable { blocks, .. } = &mut change {
        blocks.truncate(blocks.len() * usize::from(keep) / 256);
    }
    change
}

/// splitmix64.
#[derive(Debug, Clone, Default)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn hit(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.next() >> 11) as f64 / (1u64 << 53) as f64) < probability
    }
}
