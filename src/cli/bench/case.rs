//! What one case of a benchmark is, and the order in which it visits a file.

use clap::ValueEnum;

use super::super::output::{Outcome, size_text};
use super::super::scratch::mix;
use super::super::usage;
use crate::config::PathPolicy;
use crate::device::MemoryKind;
use crate::io::Operation;

/// Device memory that one case may take, bytes.
const MEMORY_MAX: u64 = 64 << 30;
/// Positions that a random case visits before it begins again.
const POSITIONS_MAX: u64 = 16 << 20;

/// Order of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Pattern {
    /// One after the other
    Seq,
    /// Each block once, shuffled
    Rand,
}

/// Whether the file is in the page cache when a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Cache {
    /// Dropped before each run
    Cold,
    /// Read once before each run
    Warm,
}

impl Cache {
    /// "cold" or "warm".
    pub(in crate::cli) fn text(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// One case.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Case {
    pub(in crate::cli) operation: Operation,
    pub(in crate::cli) pattern: Pattern,
    /// Bytes of a transfer.
    pub(in crate::cli) block: u64,
    /// Submissions in flight for each thread.
    pub(in crate::cli) depth: u32,
    pub(in crate::cli) threads: u32,
    pub(in crate::cli) policy: PathPolicy,
    pub(in crate::cli) cache: Cache,
    pub(in crate::cli) memory: MemoryKind,
    /// Transfers in a submission.
    pub(in crate::cli) batch: u32,
    /// Length of a run; one pass when not given.
    pub(in crate::cli) seconds: Option<f64>,
    /// Whether the time of writes includes making them durable.
    pub(in crate::cli) sync: bool,
}

impl Case {
    /// Checks what the single options cannot know of each other.
    pub(in crate::cli) fn check(&self, size: u64) -> Outcome {
        if self.block > size {
            return Err(usage(format!(
                "a block of {} does not fit into the {size} bytes of the file that are used",
                size_text(self.block)
            )));
        }
        let memory = self
            .buffer_size()
            .and_then(|b| b.checked_mul(u64::from(self.threads)));
        if memory.is_none_or(|m| m > MEMORY_MAX) {
            return Err(usage(format!(
                "block {} x batch {} x depth {} x threads {} is more than {} of memory; lower one",
                size_text(self.block),
                self.batch,
                self.depth,
                self.threads,
                size_text(MEMORY_MAX)
            )));
        }
        Ok(())
    }

    /// Bytes of memory for each thread.
    pub(in crate::cli) fn buffer_size(&self) -> Option<u64> {
        let slots = u64::from(self.batch) * u64::from(self.depth);
        self.block.checked_mul(slots)
    }

    /// Offsets to visit, in order.
    pub(in crate::cli) fn positions(&self, size: u64) -> Vec<u64> {
        let blocks = (size / self.block).clamp(1, POSITIONS_MAX);
        let mut positions: Vec<u64> = (0..blocks).map(|i| i * self.block).collect();
        if self.pattern == Pattern::Rand {
            shuffle(&mut positions);
        }
        positions
    }

    /// "seq read", "rand write".
    pub(in crate::cli) fn work_text(&self) -> &'static str {
        match (self.pattern, self.operation) {
            (Pattern::Seq, Operation::Read) => "seq read",
            (Pattern::Seq, Operation::Write) => "seq write",
            (Pattern::Rand, Operation::Read) => "rand read",
            (Pattern::Rand, Operation::Write) => "rand write",
        }
    }

    /// "cold" or "warm".
    pub(in crate::cli) fn cache_text(&self) -> &'static str {
        self.cache.text()
    }

    /// "auto", "direct", ...
    pub(in crate::cli) fn policy_text(&self) -> &'static str {
        match self.policy {
            PathPolicy::Auto => "auto",
            PathPolicy::CuFile => "cufile",
            PathPolicy::Direct => "direct",
            PathPolicy::Buffered => "buffered",
        }
    }

    /// "device" or "host".
    pub(in crate::cli) fn memory_text(&self) -> &'static str {
        if self.memory == MemoryKind::Device {
            "device"
        } else {
            "host"
        }
    }
}

/// Fisher and Yates, the same in every run.
fn shuffle(values: &mut [u64]) {
    for i in (1..values.len()).rev() {
        let j = (mix(i as u64) % (i as u64 + 1)) as usize;
        values.swap(i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(pattern: Pattern, block: u64) -> Case {
        Case {
            operation: Operation::Read,
            pattern,
            block,
            depth: 1,
            threads: 1,
            policy: PathPolicy::Auto,
            cache: Cache::Cold,
            memory: MemoryKind::Device,
            batch: 1,
            seconds: None,
            sync: true,
        }
    }

    #[test]
    fn random_positions_visit_each_block_once() {
        let sequential = case(Pattern::Seq, 4096).positions(1 << 20);
        let mut random = case(Pattern::Rand, 4096).positions(1 << 20);
        assert_ne!(random, sequential);
        random.sort_unstable();
        assert_eq!(random, sequential);
        assert_eq!(sequential.len(), 256);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(case(Pattern::Seq, 8192).check(8192).is_ok());
        assert!(case(Pattern::Seq, 8193).check(8192).is_err());
        let mut wide = case(Pattern::Rand, 1 << 30);
        wide.threads = 256;
        assert!(wide.check(1 << 40).is_err());
        wide.block = 1 << 62;
        wide.batch = 1 << 20;
        assert!(wide.check(u64::MAX).is_err());
    }
}
