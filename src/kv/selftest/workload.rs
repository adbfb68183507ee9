//! Operations of all kinds on a store over a simulated disk, from a seed.

use std::sync::Arc;
use std::time::Duration;

use super::oracle::{Oracle, contents};
use super::{Random, bytes};
use crate::error::{Error, ErrorKind};
use crate::kv::disk::{Blocks, Disk};
use crate::kv::sim::{SimDisk, SimPlan};
use crate::kv::store::{Batch, KvConfig, Located, Store};

/// Different keys: few, so that they are overwritten.
const KEYS: u64 = 12;

/// One workload.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Decides every operation.
    pub seed: u64,
    /// Operations.
    pub operations: u64,
    /// Bytes of the store; 0 = it grows.
    pub size_bytes: u64,
    /// How long each change of the disk takes.
    pub delay: Duration,
    /// Longest value, bytes.
    pub value_max: u64,
}

impl Workload {
    /// A tiny store: every limit is near.
    #[must_use]
    pub fn config(&self) -> KvConfig {
        KvConfig {
            size_bytes: self.size_bytes,
            wal_bytes: 64 << 10,
            segment_bytes: 64 << 10,
            superblock_spacing: 4 << 10,
            memtable_bytes: 8 << 10,
            cache_bytes: 64 << 10,
            max_batch_bytes: 12 << 10,
            stall: Duration::from_secs(30),
            checkpoint_threads: 1 + (self.seed % 3) as usize,
            ..KvConfig::default()
        }
    }
}

/// What a workload left.
#[derive(Debug)]
pub struct Run {
    /// With the log of everything that happened to it.
    pub disk: Arc<SimDisk>,
    /// What was committed and acknowledged.
    pub oracle: Oracle,
    /// How the store was made.
    pub config: KvConfig,
}

/// Reads what `located` names, past the store.
///
/// # Errors
/// What the disk answers, in words.
pub fn read_located(disk: &SimDisk, located: &Located) -> Result<Vec<u8>, String> {
    if let Some(inline) = &located.inline {
        return Ok(inline.to_vec());
    }
    let mut all = Vec::new();
    for piece in &located.pieces {
        let mut blocks = Blocks::new(piece.len as usize).map_err(|e| format!("{e:?}"))?;
        disk.read(piece.offset, &mut blocks)
            .map_err(|e| format!("read at {}: {e:?}", piece.offset))?;
        all.extend(&blocks[..piece.len as usize]);
    }
    Ok(all)
}

/// Runs a workload; checks as it goes what needs no crash.
///
/// # Errors
/// What is wrong, in words.
pub fn run(workload: Workload) -> Result<Run, String> {
    let mut work = Work::new(workload)?;
    for number in 0..workload.operations {
        work.step(number)?;
        work.check_held()?;
        let durable = work.store.durable_lsn();
        work.oracle.acknowledge(work.disk.now(), durable);
    }
    work.finish()
}

/// A workload under way.
struct Work {
    workload: Workload,
    config: KvConfig,
    disk: Arc<SimDisk>,
    store: Store,
    random: Random,
    oracle: Oracle,
    /// Values that a reader holds, and what they must stay.
    held: Vec<(Vec<u8>, Located)>,
}

fn is_full(error: &Error) -> bool {
    error.kind() == ErrorKind::NoSpace
}

impl Work {
    fn new(workload: Workload) -> Result<Self, String> {
        let config = workload.config();
        let disk = Arc::new(SimDisk::unnamed(0));
        let store = Store::create_on(disk.clone(), config.clone())
            .map_err(|e| format!("{workload:?} create: {e:?}"))?;
        disk.set_plan(SimPlan {
            delay: workload.delay,
            ..SimPlan::default()
        });
        let mut oracle = Oracle::default();
        oracle.acknowledge(disk.now(), 0);
        Ok(Self {
            workload,
            config,
            disk,
            store,
            random: Random(workload.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            oracle,
            held: Vec::new(),
        })
    }

    fn said(&self, what: &str, error: &Error) -> String {
        format!("{:?} {what}: {error:?}", self.workload)
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key {:02}", self.random.below(KEYS)).into_bytes()
    }

    /// A commit that may have found the store full.
    fn took(
        &mut self,
        what: &str,
        result: crate::error::Result<u64>,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), String> {
        match result {
            Ok(lsn) => self.oracle.commit(lsn, changes),
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(self.said(what, &error)),
        }
        Ok(())
    }

    fn step(&mut self, number: u64) -> Result<(), String> {
        let key = self.key();
        let len = match self.random.below(8) {
            0 => 0,
            1..4 => self.random.below(600),
            4 => 4000 + self.random.below(200),
            _ => self.random.below(self.workload.value_max) + 1,
        };
        let value = bytes(self.workload.seed ^ (number << 20), len as usize);
        match self.random.below(20) {
            0..11 => {
                let result = self.store.put_async(&key, &value);
                self.took("put", result, vec![(key, Some(value))])
            }
            11..13 => {
                let result = self.store.delete_async(&key);
                let (there, lsn) = result.map_err(|e| self.said("delete", &e))?;
                if there {
                    self.oracle.commit(lsn, vec![(key, None)]);
                }
                Ok(())
            }
            13..15 => self.batch(key, value),
            15 if self.random.below(2) == 0 => self.long_batch(number),
            15 | 16 => {
                let lsn = self.store.appended_lsn();
                self.store.sync().map_err(|e| self.said("sync", &e))?;
                self.oracle.acknowledge(self.disk.now(), lsn);
                Ok(())
            }
            17 => match self.store.checkpoint() {
                Err(error) if !is_full(&error) => Err(self.said("checkpoint", &error)),
                _ => Ok(()),
            },
            18 => {
                self.held.truncate(3);
                let found = self.store.locate(&key, 0..u64::MAX);
                if let Some(located) = found.map_err(|e| self.said("locate", &e))? {
                    let value = self.oracle.now().remove(&key).unwrap_or_default();
                    self.held.push((value, located));
                }
                Ok(())
            }
            _ => {
                let got = self.store.get(&key).map_err(|e| self.said("get", &e))?;
                if got == self.oracle.now().get(&key).cloned() {
                    return Ok(());
                }
                Err(format!(
                    "{:?}: get {key:?} is not what was put",
                    self.workload
                ))
            }
        }
    }

    fn batch(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
        let (other, third) = (self.key(), self.key());
        let mut batch = Batch::new();
        batch
            .put(&key, &value)
            .put(&other, b"of a batch")
            .delete(&third);
        let result = self.store.write_async(&batch);
        let changes = vec![
            (key, Some(value)),
            (other, Some(b"of a batch".to_vec())),
            (third, None),
        ];
        self.took("batch", result, changes)
    }

    /// Longer than one batch of the log.
    fn long_batch(&mut self, number: u64) -> Result<(), String> {
        let mut batch = Batch::new();
        let mut changes = Vec::new();
        for part in 0..3u64 {
            let key = format!("key {:02}", part * 3).into_bytes();
            let value = bytes(self.workload.seed ^ number ^ (part << 30), 4000);
            batch.put(&key, &value);
            changes.push((key, Some(value)));
        }
        let result = self.store.write_async(&batch);
        self.took("long batch", result, changes)
    }

    fn check_held(&self) -> Result<(), String> {
        for (value, located) in &self.held {
            if read_located(&self.disk, located)? != *value {
                let workload = self.workload;
                return Err(format!(
                    "{workload:?}: a value that is held was written over"
                ));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Run, String> {
        self.store.sync().map_err(|e| self.said("sync", &e))?;
        let lsn = self.store.appended_lsn();
        self.oracle.acknowledge(self.disk.now(), lsn);
        self.held.clear();
        if contents(&self.store)? != self.oracle.now() {
            let workload = self.workload;
            return Err(format!(
                "{workload:?}: the store does not hold what was put"
            ));
        }
        drop(self.store);
        self.disk.set_plan(SimPlan::default());
        Ok(Run {
            disk: self.disk,
            oracle: self.oracle,
            config: self.config,
        })
    }
}
