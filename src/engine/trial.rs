//! Trials of cuFile against the bounce path: where cuFile can go direct, each moves the same
//! number of bytes of a storage device, and the faster one keeps the device.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::choice::Way;
use super::file::FileInner;
use super::shared::Shared;
use crate::base::clock::now_ns;
use crate::io::cufile;

/// Bytes that each path moves before a trial is decided.
const TRIAL_BYTES: u64 = 256 << 20;
/// Longest time between two pieces that counts as work: after it the device was idle.
const IDLE_NS: u64 = 20_000_000;

/// Trials, one a storage device.
#[derive(Default)]
pub(super) struct Trials(Mutex<HashMap<(u32, u32), Arc<Trial>>>);

/// One trial. `None`: cuFile cannot go direct there, so there is nothing to try.
pub(super) struct Trial(Option<Mutex<Progress>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Bounce,
    CuFile,
    Decided { cufile_is_faster: bool },
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    bytes: u64,
    busy_ns: u64,
    last_ns: u64,
    bounce_ns: u64,
}

impl Progress {
    fn new() -> Self {
        Self {
            phase: Phase::Bounce,
            bytes: 0,
            busy_ns: 0,
            last_ns: 0,
            bounce_ns: 0,
        }
    }

    fn way(&self) -> Way {
        match self.phase {
            Phase::Bounce => Way::Direct,
            Phase::CuFile => Way::CuFile,
            Phase::Decided { cufile_is_faster } if cufile_is_faster => Way::CuFile,
            Phase::Decided { .. } => Way::Direct,
        }
    }

    /// Counts a piece that starts at `now`, and gives its way.
    fn step(&mut self, now: u64, size: u64) -> Way {
        let way = self.way();
        if matches!(self.phase, Phase::Decided { .. }) {
            return way;
        }
        let since = now.saturating_sub(self.last_ns);
        if self.bytes > 0 && since < IDLE_NS {
            self.busy_ns += since;
        }
        self.last_ns = now;
        self.bytes += size;
        if self.bytes < TRIAL_BYTES {
            return way;
        }
        if self.phase == Phase::Bounce {
            self.phase = Phase::CuFile;
            self.bounce_ns = self.busy_ns;
        } else {
            let cufile_is_faster = self.busy_ns < self.bounce_ns;
            self.phase = Phase::Decided { cufile_is_faster };
        }
        (self.bytes, self.busy_ns) = (0, 0);
        way
    }
}

impl Trials {
    /// The way of a cold piece that starts, which is counted.
    pub(super) fn choose(&self, shared: &Shared, file: &FileInner, size: u64) -> Way {
        match &self.of(shared, file).0 {
            Some(progress) => progress.lock().step(now_ns(), size),
            None => Way::Direct,
        }
    }

    /// The way that the next cold piece would go.
    pub(super) fn next(&self, shared: &Shared, file: &FileInner) -> Way {
        match &self.of(shared, file).0 {
            Some(progress) => progress.lock().way(),
            None => Way::Direct,
        }
    }

    /// What a finished trial says: whether cuFile was faster. `None` without one.
    pub(super) fn verdict(&self, file: &FileInner) -> Option<bool> {
        let trial = self.0.lock().get(&key(file)).cloned()?;
        match trial.0.as_ref()?.lock().phase {
            Phase::Decided { cufile_is_faster } => Some(cufile_is_faster),
            Phase::Bounce | Phase::CuFile => None,
        }
    }

    /// The trial of a file's device. The file remembers it: small reads ask often.
    fn of<'a>(&self, shared: &Shared, file: &'a FileInner) -> &'a Trial {
        file.trial.get_or_init(|| {
            let mut trials = self.0.lock();
            let trial = trials.entry(key(file)).or_insert_with(|| {
                let can = cufile_goes_direct(shared, file);
                Arc::new(Trial(can.then(|| Mutex::new(Progress::new()))))
            });
            trial.clone()
        })
    }
}

fn key(file: &FileInner) -> (u32, u32) {
    let caps = file.descriptors.capabilities();
    (caps.device_major, caps.device_minor)
}

fn cufile_goes_direct(shared: &Shared, file: &FileInner) -> bool {
    let caps = file.descriptors.capabilities();
    cufile::direct_capable().0
        && cufile::gates(caps, !shared.device.is_host())
            .iter()
            .all(|g| g.passed)
        && file.cufile().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs pieces of 4 MiB, each taking as long as its way takes, until the trial is decided.
    fn decide(bounce_ns: u64, cufile_ns: u64, lull: u64) -> (Way, u64) {
        let mut progress = Progress::new();
        let (mut now, mut pieces) = (1, 0);
        while !matches!(progress.phase, Phase::Decided { .. }) {
            let way = progress.step(now, 4 << 20);
            now += if way == Way::CuFile {
                cufile_ns
            } else {
                bounce_ns
            };
            pieces += 1;
            if pieces == 10 {
                now += lull;
            }
        }
        (progress.way(), pieces)
    }

    #[test]
    fn the_faster_way_keeps_the_device() {
        assert_eq!(decide(1_000_000, 900_000, 0), (Way::CuFile, 128));
        assert_eq!(decide(1_000_000, 1_100_000, 0), (Way::Direct, 128));
    }

    #[test]
    fn idle_time_is_nobodys_fault() {
        assert_eq!(decide(1_000_000, 1_100_000, 60_000_000_000).0, Way::Direct);
    }

    #[test]
    fn a_decided_trial_counts_no_more() {
        let mut progress = Progress::new();
        progress.phase = Phase::Decided {
            cufile_is_faster: true,
        };
        for now in 0..1000 {
            assert_eq!(progress.step(now, TRIAL_BYTES), Way::CuFile);
        }
    }
}
