//! Reads everything and says what is wrong.

use std::collections::HashMap;
use std::sync::Arc;

use super::Shared;
use super::key::Key;
use super::read::Found;
use super::reference::{Reference, blocks_of};
use super::snapshot::Snapshot;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a value that are read at a time.
const PART: usize = 4 << 20;
/// Problems that a report holds in full.
const PROBLEMS_MAX: usize = 1000;

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The key whose value it is; empty for the store's own structures.
    pub key: Vec<u8>,
    /// What is wrong, with the place.
    pub error: Error,
}

/// What verification found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Keys whose values were read.
    pub keys: u64,
    /// Bytes of values that were read and compared with their checksums.
    pub bytes: u64,
    /// Problems in all.
    pub problems: u64,
    /// The first thousand of them.
    pub first: Vec<Problem>,
}

impl VerifyReport {
    /// Whether all is well.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems == 0
    }

    fn add(&mut self, key: &[u8], error: Error) {
        self.problems += 1;
        if self.first.len() < PROBLEMS_MAX {
            self.first.push(Problem {
                key: key.to_vec(),
                error,
            });
        }
    }
}

impl Shared {
    pub fn verify(self: &Arc<Self>) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        // Checkpoints and moves wait; commits, and versions that go with their snapshot, wait
        // while the space map is compared.
        let meta = self.meta.lock();
        self.compare_space(&mut report)?;
        for part in &meta.parts {
            let read = super::checkpoint::read_part(
                &*self.disk,
                &self.space,
                self.id,
                part,
                &mut |_, _, _, _| {},
            );
            if let Err(error) = read {
                report.add(&[], error);
            }
        }
        drop(meta);
        let snapshot = Snapshot::new(self)?;
        let mut keys = Vec::new();
        let mut part = vec![0; PART];
        for shard in 0..self.index.shards() {
            keys.clear();
            self.index.keys_of(shard, &mut keys);
            for key in &keys {
                self.verify_key(key, &snapshot, &mut part, &mut report);
            }
        }
        Ok(report)
    }

    fn verify_key(&self, key: &Key, at: &Snapshot, part: &mut [u8], report: &mut VerifyReport) {
        let key = key.bytes();
        let found: Option<Found<'_>> = self.index.with(key, |entry| {
            let (_, reference) = entry?.at(at.lsn())?;
            (!reference.is_tombstone()).then(|| self.hold(key, reference))
        });
        let Some(found) = found else { return };
        report.keys += 1;
        let len = found.reference.len();
        let result = match &found.reference {
            Reference::Inline(_) | Reference::Tombstone => Ok(()),
            Reference::Slot(_) => self.value_of(key, &found).map(drop),
            Reference::Unread { .. } => self.value_of(key, &found).map(drop),
            reference => (0..len).step_by(part.len()).try_for_each(|offset| {
                let size = (len - offset).min(part.len() as u64) as usize;
                self.read_extent(key, reference, offset, &mut part[..size])
            }),
        };
        match result {
            Ok(()) => report.bytes += len,
            Err(error) => report.add(key, error),
        }
    }

    /// Every extent belongs to one version, lies in a segment of values, and the live bytes of
    /// each segment are the sum of what refers to it.
    fn compare_space(&self, report: &mut VerifyReport) -> Result<()> {
        let versions = self.pruning.lock();
        let commits = match self.wal.begin(0) {
            Ok(append) => Some(append),
            Err(error) if error.kind() == ErrorKind::Poisoned => None,
            Err(error) => return Err(error),
        };
        let mut live: HashMap<u32, u64> = HashMap::new();
        let mut extents: Vec<(u64, u64)> = Vec::new();
        self.index.for_each(&mut |entry| {
            let older = entry
                .older
                .iter()
                .flat_map(|o| o.iter().map(|v| &v.reference));
            for reference in std::iter::once(&entry.reference).chain(older) {
                reference.pieces(entry.key.bytes().len(), &mut |offset, bytes| {
                    match self.space.segment_of(offset) {
                        Some(segment) => *live.entry(segment).or_default() += bytes,
                        None => report.add(entry.key.bytes(), outside(offset)),
                    }
                    let whole = match reference {
                        Reference::Slot(slot) => (offset + u64::from(slot.start), bytes),
                        _ => (offset, blocks_of(bytes)),
                    };
                    extents.push(whole);
                });
            }
        });
        for segment in 0..self.space.count() {
            let want = live.get(&segment).copied().unwrap_or(0);
            let (have, uses) = self.space.live_of(segment);
            if want != have || (want > 0 && !uses) {
                let message = format!(
                    "segment {segment}: the index refers to {want} bytes of it and {have} are \
                     counted{}",
                    if uses { "" } else { ", and it holds no values" }
                );
                let error = Error::new(ErrorKind::Corrupted, message);
                report.add(&[], error.with_offset(self.space.segment_start(segment)));
            }
        }
        drop((commits, versions));
        extents.sort_unstable();
        for pair in extents.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if first.0 + first.1 > second.0 {
                let message = format!("two values share the bytes at {}", second.0);
                let error = Error::new(ErrorKind::Corrupted, message);
                report.add(&[], error.with_offset(second.0));
            }
        }
        Ok(())
    }
}

fn outside(offset: u64) -> Error {
    let message = format!("a value lies at {offset}, outside of the store");
    Error::new(ErrorKind::Corrupted, message).with_offset(offset)
}
