//! The disks that a crash may leave.

use std::collections::HashSet;
use std::sync::Arc;

use super::plan::Random;
use super::{Block, Change, Content, Event, SimDisk, nameless};
use crate::error::Result;
use crate::kv::disk::BLOCK;

/// Torn where a disk's sector ends.
pub const TEAR_SECTOR: usize = 512;
/// Torn between blocks.
pub const TEAR_BLOCK: usize = BLOCK;
/// Torn at any byte.
pub const TEAR_ANYWHERE: usize = 1;

/// What becomes of changes that had begun and were not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// They are lost.
    None,
    /// They are all there.
    All,
    /// Each is there or lost, as the seed says.
    Some {
        /// Decides.
        seed: u64,
    },
    /// Each is there, lost, or in pieces of `unit` bytes of which any may be there.
    Torn {
        /// Decides.
        seed: u64,
        /// Bytes that are written whole.
        unit: usize,
    },
}

impl SimDisk {
    /// The disk after a crash at the moment `at` (see [`SimDisk::now`]; 0 to now), with an empty
    /// log and nothing that fails.
    ///
    /// # Errors
    /// `NotFound` when the disk was made with [`SimDisk::unnamed`] and its name was not durable
    /// by then.
    pub fn image(&self, at: usize, survivors: Survivors) -> Result<Self> {
        let state = self.state.lock();
        let log = &state.log[..at.min(state.log.len())];
        let (durable, named) = durable(log);
        let named = named || state.base_named;
        let mut random = match survivors {
            Survivors::None | Survivors::All => Random::default(),
            Survivors::Some { seed } | Survivors::Torn { seed, .. } => {
                Random::new(seed ^ (at as u64).rotate_left(32))
            }
        };
        if !named && !matches!(survivors, Survivors::All) {
            return Err(nameless());
        }
        let mut content = state.base.clone();
        for event in log {
            let Event::Begin(id, change) = event else {
                continue;
            };
            let whole = durable.contains(id)
                || match survivors {
                    Survivors::None => false,
                    Survivors::All => true,
                    Survivors::Some { .. } | Survivors::Torn { .. } => random.below(2) == 0,
                };
            if whole {
                apply(&mut content, change);
            } else if let Survivors::Torn { unit, .. } = survivors {
                tear(&mut content, change, unit, &mut random);
            }
        }
        Ok(Self::of(content, named))
    }
}

impl SimDisk {
    /// Changes that had begun and not ended at the moment `at`: a disk far away may do them after
    /// the crash, and after the store is open again ([`SimDisk::land`]).
    #[must_use]
    pub fn under_way(&self, at: usize) -> Vec<Change> {
        let state = self.state.lock();
        let log = &state.log[..at.min(state.log.len())];
        let ended: HashSet<usize> = log
            .iter()
            .filter_map(|event| match event {
                Event::End(id) => Some(*id),
                Event::Begin(..) => None,
            })
            .collect();
        let begun = log.iter().filter_map(|event| match event {
            Event::Begin(id, change) if !ended.contains(id) => Some(change.clone()),
            _ => None,
        });
        begun.collect()
    }

    /// Does a change that another disk had under way, durably.
    pub fn land(&self, change: &Change) {
        let mut state = self.state.lock();
        apply(&mut state.content, change);
        apply(&mut state.base, change);
    }
}

/// What is durable after `log`, by number, and whether the name is.
fn durable(log: &[Event]) -> (HashSet<usize>, bool) {
    let mut durable = HashSet::new();
    // Ended and waiting for a flush; what each running flush will make durable.
    let mut ended: Vec<usize> = Vec::new();
    let mut running: Vec<(usize, Change, Vec<usize>)> = Vec::new();
    let mut named = false;
    for event in log {
        match event {
            Event::Begin(id, change) => {
                let covers = match change {
                    Change::Flush => ended.clone(),
                    _ => Vec::new(),
                };
                running.push((*id, change.clone(), covers));
            }
            Event::End(id) => {
                let Some(place) = running.iter().position(|(other, ..)| other == id) else {
                    continue;
                };
                let (_, change, covers) = running.swap_remove(place);
                match change {
                    Change::WriteDurable { .. } => drop(durable.insert(*id)),
                    Change::Write { .. } | Change::Resize(_) => ended.push(*id),
                    Change::Flush => {
                        ended.retain(|id| !covers.contains(id));
                        durable.extend(covers);
                    }
                    Change::SyncName => named = true,
                }
            }
        }
    }
    (durable, named)
}

fn apply(content: &mut Content, change: &Change) {
    match change {
        Change::Write { offset, blocks } | Change::WriteDurable { offset, blocks } => {
            content.put(*offset, blocks);
        }
        Change::Resize(size) => content.resize(*size),
        Change::Flush | Change::SyncName => {}
    }
}

/// Writes any of the pieces of a write.
fn tear(content: &mut Content, change: &Change, unit: usize, random: &mut Random) {
    let (Change::Write { offset, blocks } | Change::WriteDurable { offset, blocks }) = change
    else {
        return;
    };
    if blocks.is_empty() {
        return;
    }
    // One in four is cut once; the others lose pieces all over.
    let cut = match random.below(4) {
        0 => Some(random.below((blocks.len() * BLOCK) as u64) as usize / unit * unit),
        _ => None,
    };
    let first = offset / BLOCK as u64;
    for (index, block) in blocks.iter().enumerate() {
        let number = first + index as u64;
        let mut mixed = [0; BLOCK];
        content.get(number, &mut mixed);
        // Single bytes one by one would never leave a long run.
        let step = unit.clamp(64, BLOCK);
        for start in (0..BLOCK).step_by(step) {
            let there = match cut {
                Some(cut) => index * BLOCK + start + step <= cut,
                None => random.below(2) == 0,
            };
            if there {
                mixed[start..start + step].copy_from_slice(&block[start..start + step]);
            } else if unit < step {
                let part = random.below(step as u64) as usize;
                mixed[start..start + part].copy_from_slice(&block[start..start + part]);
            }
        }
        let mixed: Block = Arc::new(mixed);
        content.put(number * BLOCK as u64, &[mixed]);
    }
}
