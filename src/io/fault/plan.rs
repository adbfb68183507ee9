//! What goes wrong, how often, and the dice that decide it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::io::Operation;

/// What a [`super::Fault`] does to what passes through it. The default does nothing.
///
/// Probabilities are 0.0 (never) to 1.0 (always). Whether an operation is hit depends on the
/// seed, on its kind, offset and size, and on how often that same operation came before: the same
/// work meets the same faults whichever thread does it, and a retry throws the dice anew.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultPlan {
    /// Decides every throw.
    pub seed: u64,
    /// Bytes that a disk writes whole or not at all. Reads and writes are cut at multiples of it.
    pub sector: u32,
    /// Reads answer fewer bytes than they got; the bytes after those are overwritten with 0xA5.
    pub short_read: f64,
    /// Writes stop at a sector boundary and answer the bytes until there. The rest may be
    /// written by a further write.
    pub short_write: f64,
    /// Operations answer -EINTR and do nothing.
    pub interrupted: f64,
    /// Operations answer -EAGAIN and do nothing.
    pub again: f64,
    /// Reads and writes that touch these file offsets (bytes, of any file) answer -EIO and do
    /// nothing.
    pub io_error_at: Option<Range<u64>>,
    /// Bytes that writes may write in all, of all files. The write that passes this is cut at a
    /// sector boundary and answers what fits; from then on writes answer -ENOSPC.
    pub no_space_after: Option<u64>,
    /// Writes longer than a sector stop at a sector boundary and answer the bytes until there;
    /// the write that goes on at that offset of that descriptor answers -EIO once.
    pub torn_write: f64,
    /// Syncs answer -EIO and make nothing durable.
    pub sync_error: f64,
    /// Syncs answer 0 and make nothing durable, as a disk with a lying cache. Implies `undo`.
    pub lost_sync: bool,
    /// Remember what every write since the last sync overwrote, for [`super::Fault::crash`].
    pub undo: bool,
    /// Each single operation and sync, and each wait of a queue, takes this much longer.
    pub delay: Option<Duration>,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self {
            seed: 0,
            sector: 512,
            short_read: 0.0,
            short_write: 0.0,
            interrupted: 0.0,
            again: 0.0,
            io_error_at: None,
            no_space_after: None,
            torn_write: 0.0,
            sync_error: 0.0,
            lost_sync: false,
            undo: false,
            delay: None,
        }
    }
}

/// How often each fault struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts {
    /// Reads that answered less than they got.
    pub short_reads: u64,
    /// Writes that were cut and may go on.
    pub short_writes: u64,
    /// -EINTR answers.
    pub interrupted: u64,
    /// -EAGAIN answers.
    pub again: u64,
    /// -EIO answers by offset.
    pub io_errors: u64,
    /// Writes that were cut or refused for lack of space.
    pub no_space: u64,
    /// Writes that were torn.
    pub torn_writes: u64,
    /// -EIO answers to the write that goes on after a torn one.
    pub torn_errors: u64,
    /// -EIO answers to syncs.
    pub sync_errors: u64,
    /// Syncs that answered 0 and did nothing.
    pub lost_syncs: u64,
}

/// What is to happen to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answers this errno without running.
    Fail(i32),
    /// Runs with `size` bytes and answers no more than `report` of them.
    Run { size: usize, report: usize },
}

/// Each its own throw for the same operation.
#[derive(Debug, Clone, Copy)]
enum Throw {
    Interrupted,
    Again,
    Torn,
    Short,
    Cut,
    Sync,
}

/// The plan and what it has done so far.
#[derive(Debug, Default)]
pub(super) struct Dice {
    pub(super) plan: FaultPlan,
    pub(super) counts: FaultCounts,
    /// Bytes that were given to writes.
    written: u64,
    /// How often each operation came before.
    seen: HashMap<(bool, u64, usize), u64>,
    /// Where a torn write stopped.
    torn: HashSet<(RawFd, u64)>,
    syncs: u64,
}

impl Dice {
    pub(super) fn new(plan: FaultPlan) -> Self {
        Self {
            plan,
            ..Self::default()
        }
    }

    /// Forgets torn writes: the machine has restarted.
    pub(super) fn restart(&mut self) {
        self.torn.clear();
    }

    /// What happens to a read or write.
    pub(super) fn judge(
        &mut self,
        operation: Operation,
        fd: RawFd,
        offset: u64,
        size: usize,
    ) -> Verdict {
        let write = operation == Operation::Write;
        if write && self.torn.remove(&(fd, offset)) {
            self.counts.torn_errors += 1;
            return Verdict::Fail(libc::EIO);
        }
        let end = offset.saturating_add(size as u64);
        if self
            .plan
            .io_error_at
            .as_ref()
            .is_some_and(|r| offset < r.end && r.start < end)
        {
            self.counts.io_errors += 1;
            return Verdict::Fail(libc::EIO);
        }
        if size == 0 {
            return Verdict::Run { size, report: size };
        }
        let count = self.seen.entry((write, offset, size)).or_insert(0);
        *count += 1;
        let key = [u64::from(write), offset, size as u64, *count];
        if self.hit(self.plan.interrupted, Throw::Interrupted, key) {
            self.counts.interrupted += 1;
            return Verdict::Fail(libc::EINTR);
        }
        if self.hit(self.plan.again, Throw::Again, key) {
            self.counts.again += 1;
            return Verdict::Fail(libc::EAGAIN);
        }
        if write {
            self.judge_write(fd, offset, size, key)
        } else {
            self.judge_read(size, key)
        }
    }

    /// What happens to a sync: an errno, or 0 and whether it is really done.
    pub(super) fn judge_sync(&mut self) -> (i32, bool) {
        self.syncs += 1;
        if self.hit(self.plan.sync_error, Throw::Sync, [self.syncs, 0, 0, 0]) {
            self.counts.sync_errors += 1;
            return (libc::EIO, false);
        }
        if self.plan.lost_sync {
            self.counts.lost_syncs += 1;
        }
        (0, !self.plan.lost_sync)
    }

    fn judge_read(&mut self, size: usize, key: [u64; 4]) -> Verdict {
        if size > 1 && self.hit(self.plan.short_read, Throw::Short, key) {
            self.counts.short_reads += 1;
            // A disk answers whole sectors; less than one is left to odd sizes.
            let sector = self.sector() as usize;
            let unit = if size > sector { sector } else { 1 };
            let choices = ((size - 1) / unit) as u64;
            let report = (1 + self.throw(Throw::Cut, key) % choices) as usize * unit;
            return Verdict::Run { size, report };
        }
        Verdict::Run { size, report: size }
    }

    fn judge_write(&mut self, fd: RawFd, offset: u64, size: usize, key: [u64; 4]) -> Verdict {
        let mut run = size;
        if let Some(limit) = self.plan.no_space_after {
            let left = limit.saturating_sub(self.written);
            if (size as u64) > left {
                self.counts.no_space += 1;
                let end = (offset + left) / self.sector() * self.sector();
                run = end.saturating_sub(offset) as usize;
                // The rest of the space is less than a sector: it is full from now on.
                self.written = limit - run as u64;
                if run == 0 {
                    return Verdict::Fail(libc::ENOSPC);
                }
            }
        }
        if let Some(cut) = self.boundary(offset, run, key) {
            if self.hit(self.plan.torn_write, Throw::Torn, key) {
                self.counts.torn_writes += 1;
                run = cut;
                self.torn.insert((fd, offset + cut as u64));
            } else if self.hit(self.plan.short_write, Throw::Short, key) {
                self.counts.short_writes += 1;
                run = cut;
            }
        }
        self.written += run as u64;
        Verdict::Run {
            size: run,
            report: run,
        }
    }

    /// A sector boundary inside the range, as bytes from its start.
    fn boundary(&self, offset: u64, size: usize, key: [u64; 4]) -> Option<usize> {
        let sector = self.sector();
        let first = (offset / sector).checked_add(1)?.checked_mul(sector)?;
        let last = offset.checked_add(size as u64)?.checked_sub(1)? / sector * sector;
        let choices = last.checked_sub(first)? / sector + 1;
        let at = first + self.throw(Throw::Cut, key) % choices * sector;
        Some((at - offset) as usize)
    }

    fn sector(&self) -> u64 {
        u64::from(self.plan.sector.max(1))
    }

    fn hit(&self, probability: f64, throw: Throw, key: [u64; 4]) -> bool {
        // 53 bits: every double of [0, 1) with that spacing.
        let dice = (self.throw(throw, key) >> 11) as f64 / (1u64 << 53) as f64;
        dice < probability
    }

    fn throw(&self, throw: Throw, key: [u64; 4]) -> u64 {
        let start = mix(self.plan.seed ^ mix(throw as u64 + 1));
        key.iter().fold(start, |state, part| mix(state ^ part))
    }
}

/// One step of splitmix64.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // First outputs of the reference implementation for seed 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn a_cut_is_a_sector_boundary_inside() {
        let dice = Dice::new(FaultPlan::default());
        for offset in [0, 1, 511, 512, 700] {
            for size in [1usize, 511, 512, 513, 1024, 5000] {
                let end = offset + size as u64;
                match dice.boundary(offset, size, [0, offset, size as u64, 1]) {
                    Some(cut) => {
                        let at = offset + cut as u64;
                        assert!(
                            at.is_multiple_of(512) && offset < at && at < end,
                            "{offset}+{size}: {cut}"
                        );
                    }
                    None => assert!(offset / 512 == (end - 1) / 512, "{offset}+{size}"),
                }
            }
        }
    }

    #[test]
    fn a_probability_is_met() {
        let mut dice = Dice::new(FaultPlan {
            again: 0.25,
            seed: 3,
            ..FaultPlan::default()
        });
        for offset in 0..4000 {
            dice.judge(Operation::Read, 0, offset * 4096, 4096);
        }
        assert!(
            (800..1200).contains(&dice.counts.again),
            "{}",
            dice.counts.again
        );
    }
}
