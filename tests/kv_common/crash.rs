//! A workload on a simulated disk, and what a crash at any moment may leave of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gds_rs::ErrorKind;
use gds_rs::kv::disk::{Blocks, Disk};
use gds_rs::kv::sim::{SimDisk, SimPlan, Survivors, TEAR_ANYWHERE, TEAR_BLOCK, TEAR_SECTOR};
use gds_rs::kv::store::{Batch, KvConfig, Located, Store};

use super::{Random, bytes, tiny};

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Change = (Vec<u8>, Option<Vec<u8>>);

/// What was committed, in order, and what was acknowledged when.
#[derive(Default)]
pub struct Oracle {
    base: Map,
    commits: Vec<(u64, Vec<Change>)>,
    /// (moment of the disk, number that was durable then).
    acknowledged: Vec<(usize, u64)>,
}

fn apply(map: &mut Map, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
}

impl Oracle {
    pub fn of(base: Map) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    pub fn commit(&mut self, lsn: u64, changes: Vec<Change>) {
        self.commits.push((lsn, changes));
    }

    pub fn acknowledge(&mut self, moment: usize, lsn: u64) {
        self.acknowledged.push((moment, lsn));
    }

    /// The newest state.
    pub fn now(&self) -> Map {
        let mut map = self.base.clone();
        for (_, changes) in &self.commits {
            apply(&mut map, changes);
        }
        map
    }

    /// Whether `found` is the state after some prefix of the commits that holds everything that
    /// was acknowledged by `moment`: I1, I2, I3. Answers how many commits it holds.
    pub fn check(&self, found: &Map, moment: usize) -> Result<usize, String> {
        let durable = self.acknowledged.iter().filter(|(m, _)| *m <= moment);
        let durable = durable.map(|(_, lsn)| *lsn).max().unwrap_or(0);
        let must = self
            .commits
            .iter()
            .take_while(|(lsn, _)| *lsn <= durable)
            .count();
        let mut map = self.base.clone();
        for n in 0..=self.commits.len() {
            if n >= must && map == *found {
                return Ok(n);
            }
            if let Some((_, changes)) = self.commits.get(n) {
                apply(&mut map, changes);
            }
        }
        let now = self.now();
        let wrong = found.iter().find(|(k, v)| now.get(*k) != Some(v));
        let missing = now.keys().find(|k| !found.contains_key(*k));
        Err(format!(
            "moment {moment}: {} keys recovered are no prefix of {} commits with at least {must}; \
             first difference from the end: {:?}, missing {missing:?}",
            found.len(),
            self.commits.len(),
            wrong.map(|(k, v)| (k, v.len()))
        ))
    }
}

/// Everything in a store, each value read and verified.
pub fn contents(store: &Store) -> Result<Map, String> {
    let scan = store
        .scan(.., u64::MAX)
        .map_err(|e| format!("scan: {e:?}"))?;
    scan.map(|item| {
        let value = item
            .value()
            .map_err(|e| format!("get {:?}: {e:?}", item.key))?;
        Ok((item.key, value))
    })
    .collect()
}

/// One workload.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub seed: u64,
    pub operations: u64,
    /// Bytes of the store; 0 = it grows.
    pub size_bytes: u64,
    /// How long each change of the disk takes.
    pub delay: Duration,
    /// Longest value.
    pub value_max: u64,
}

impl Workload {
    pub fn config(&self) -> KvConfig {
        KvConfig {
            size_bytes: self.size_bytes,
            memtable_bytes: 8 << 10,
            stall: Duration::from_secs(30),
            ..tiny()
        }
    }
}

/// What a workload left.
pub struct Run {
    pub disk: Arc<SimDisk>,
    pub oracle: Oracle,
    pub config: KvConfig,
}

/// Reads what `located` names, past the store.
pub fn read_located(disk: &SimDisk, located: &Located) -> Vec<u8> {
    if let Some(inline) = &located.inline {
        return inline.to_vec();
    }
    let mut all = Vec::new();
    for piece in &located.pieces {
        let mut blocks = Blocks::new(piece.len as usize).expect("memory");
        disk.read(piece.offset, &mut blocks).expect("a read");
        all.extend(&blocks[..piece.len as usize]);
    }
    all
}

/// Runs a workload; checks as it goes what needs no crash.
pub fn run(workload: Workload) -> Result<Run, String> {
    let config = workload.config();
    let disk = Arc::new(SimDisk::unnamed(0));
    let said = |what: &str, e: gds_rs::Error| format!("{workload:?} {what}: {e:?}");
    let store = Store::create_on(disk.clone(), config.clone()).map_err(|e| said("create", e))?;
    disk.set_plan(SimPlan {
        delay: workload.delay,
        ..SimPlan::default()
    });
    let mut random = Random(workload.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut oracle = Oracle::default();
    let mut held: Vec<(Vec<u8>, Located)> = Vec::new();
    oracle.acknowledge(disk.now(), 0);
    for n in 0..workload.operations {
        let key = format!("key {:02}", random.below(12)).into_bytes();
        let len = match random.below(8) {
            0 => 0,
            1..4 => random.below(600),
            4 => 4000 + random.below(200),
            _ => random.below(workload.value_max) + 1,
        };
        let value = bytes(workload.seed ^ (n << 20), len as usize);
        let full = |e: &gds_rs::Error| e.kind() == ErrorKind::NoSpace;
        match random.below(20) {
            0..11 => match store.put_async(&key, &value) {
                Ok(lsn) => oracle.commit(lsn, vec![(key, Some(value))]),
                Err(e) if full(&e) => {}
                Err(e) => return Err(said("put", e)),
            },
            11..13 => {
                let (there, lsn) = store.delete_async(&key).map_err(|e| said("delete", e))?;
                if there {
                    oracle.commit(lsn, vec![(key, None)]);
                }
            }
            13..15 => {
                let other = format!("key {:02}", random.below(12)).into_bytes();
                let third = format!("key {:02}", random.below(12)).into_bytes();
                let mut batch = Batch::new();
                batch
                    .put(&key, &value)
                    .put(&other, b"of a batch")
                    .delete(&third);
                match store.write_async(&batch) {
                    Ok(lsn) => oracle.commit(
                        lsn,
                        vec![
                            (key, Some(value)),
                            (other, Some(b"of a batch".to_vec())),
                            (third, None),
                        ],
                    ),
                    Err(e) if full(&e) => {}
                    Err(e) => return Err(said("batch", e)),
                }
            }
            15 if random.below(2) == 0 => {
                // Longer than one batch of the log.
                let mut batch = Batch::new();
                let mut changes = Vec::new();
                for part in 0..3u64 {
                    let key = format!("key {:02}", part * 3).into_bytes();
                    let value = bytes(workload.seed ^ n ^ (part << 30), 4000);
                    batch.put(&key, &value);
                    changes.push((key, Some(value)));
                }
                match store.write_async(&batch) {
                    Ok(lsn) => oracle.commit(lsn, changes),
                    Err(e) if full(&e) => {}
                    Err(e) => return Err(said("long batch", e)),
                }
            }
            15 | 16 => {
                let lsn = store.appended_lsn();
                store.sync().map_err(|e| said("sync", e))?;
                oracle.acknowledge(disk.now(), lsn);
            }
            17 => store.checkpoint().or_else(|e| {
                if full(&e) {
                    Ok(())
                } else {
                    Err(said("checkpoint", e))
                }
            })?,
            18 => {
                held.truncate(3);
                let found = store
                    .locate(&key, 0..u64::MAX)
                    .map_err(|e| said("locate", e))?;
                if let Some(located) = found {
                    let value = oracle.now().remove(&key).unwrap_or_default();
                    held.push((value, located));
                }
            }
            _ => {
                let got = store.get(&key).map_err(|e| said("get", e))?;
                if got != oracle.now().get(&key).cloned() {
                    return Err(format!("{workload:?}: get {key:?} is not what was put"));
                }
            }
        }
        for (value, located) in &held {
            if read_located(&disk, located) != *value {
                return Err(format!(
                    "{workload:?}: a value that is held was written over"
                ));
            }
        }
        let durable = store.durable_lsn();
        oracle.acknowledge(disk.now(), durable);
    }
    store.sync().map_err(|e| said("sync", e))?;
    oracle.acknowledge(disk.now(), store.appended_lsn());
    drop(held);
    if contents(&store)? != oracle.now() {
        return Err(format!(
            "{workload:?}: the store does not hold what was put"
        ));
    }
    drop(store);
    disk.set_plan(SimPlan::default());
    Ok(Run {
        disk,
        oracle,
        config,
    })
}

/// Opens an image and checks I1 to I4, I6; hands the store on.
pub fn open(run: &Run, image: SimDisk, moment: usize) -> Result<(Arc<SimDisk>, Store), String> {
    let disk = Arc::new(image);
    let store = Store::open_on(disk.clone(), run.config.clone())
        .map_err(|e| format!("moment {moment}: open: {e:?}"))?;
    let found = contents(&store).map_err(|e| format!("moment {moment}: {e}"))?;
    run.oracle.check(&found, moment)?;
    Ok((disk, store))
}

/// Checks one image to the end: it opens, holds a right prefix, verifies, and takes new commits
/// that survive the next opening (I8: opening twice gives the same).
pub fn check(run: &Run, image: SimDisk, moment: usize, thorough: bool) -> Result<(), String> {
    let (disk, store) = open(run, image, moment)?;
    if !thorough {
        return Ok(());
    }
    let report = store
        .verify()
        .map_err(|e| format!("moment {moment}: verify: {e:?}"))?;
    if !report.is_clean() {
        return Err(format!("moment {moment}: verify: {report:?}"));
    }
    let mut found = contents(&store)?;
    let value = bytes(moment as u64, 5000);
    match store.put(b"after the crash", &value) {
        Ok(_) => drop(found.insert(b"after the crash".to_vec(), value)),
        Err(e) if e.kind() == ErrorKind::NoSpace => {}
        Err(e) => return Err(format!("moment {moment}: put after the crash: {e:?}")),
    }
    drop(store);
    // A third run: what was acknowledged after the crash survives the next one.
    let image = disk
        .image(disk.now(), Survivors::None)
        .map_err(|e| format!("{e:?}"))?;
    let again = Store::open_on(Arc::new(image), run.config.clone())
        .map_err(|e| format!("moment {moment}: open again: {e:?}"))?;
    if contents(&again)? != found {
        return Err(format!(
            "moment {moment}: the second opening found something else"
        ));
    }
    Ok(())
}

/// Which images of a run are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Every n-th moment.
    pub step: usize,
    /// Random sets of what was not durable, at each of these moments.
    pub subsets: u64,
    /// Torn writes at each, for each of three units.
    pub tears: u64,
    /// Every n-th image is verified whole and used on.
    pub thorough: usize,
    /// Every n-th image crashes again while it is opened, 0 = none.
    pub second: usize,
}

/// Looks at the crash images of a run; how many there were.
pub fn check_images(run: &Run, effort: Effort) -> Result<usize, String> {
    let mut images = 0;
    for moment in (0..=run.disk.now()).step_by(effort.step) {
        let mut kinds = vec![Survivors::None, Survivors::All];
        for seed in 0..effort.subsets {
            kinds.push(Survivors::Some { seed });
        }
        for seed in 0..effort.tears {
            for unit in [TEAR_SECTOR, TEAR_BLOCK, TEAR_ANYWHERE] {
                kinds.push(Survivors::Torn { seed, unit });
            }
        }
        // Before the store was made there need not be one.
        let made = run
            .oracle
            .acknowledged
            .first()
            .is_some_and(|(m, _)| *m <= moment);
        for survivors in kinds {
            let said = |e: String| format!("{survivors:?} {e}");
            let image = match run.disk.image(moment, survivors) {
                Ok(image) => image,
                Err(e) if made => return Err(said(format!("moment {moment}: {e:?}"))),
                Err(_) => continue,
            };
            if !made {
                continue;
            }
            images += 1;
            if effort.second > 0 && images % effort.second == 0 {
                images += check_second(run, image.copy(), moment).map_err(said)?;
            }
            let thorough = images % effort.thorough == 0;
            check(run, image, moment, thorough).map_err(said)?;
        }
    }
    Ok(images)
}

/// Crashes at every moment of an opening, and opens again.
fn check_second(run: &Run, image: SimDisk, moment: usize) -> Result<usize, String> {
    let (disk, store) = open(run, image, moment)?;
    let found = contents(&store)?;
    drop(store);
    let mut images = 0;
    for second in 0..=disk.now() {
        for survivors in [
            Survivors::None,
            Survivors::Torn {
                seed: moment as u64,
                unit: 512,
            },
        ] {
            let image = disk
                .image(second, survivors)
                .map_err(|e| format!("{e:?}"))?;
            let store = Store::open_on(Arc::new(image), run.config.clone())
                .map_err(|e| format!("moment {moment}, second crash at {second}: {e:?}"))?;
            if contents(&store)? != found {
                return Err(format!(
                    "moment {moment}: another state after a second crash"
                ));
            }
            images += 1;
        }
    }
    Ok(images)
}
