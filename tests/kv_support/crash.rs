//! A workload on the log, and what must hold on every disk that a crash may leave of it.

use std::sync::Arc;
use std::time::Duration;

use gds_rs::ErrorKind;
use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::sim::{SimDisk, SimPlan, Survivors, TEAR_ANYWHERE, TEAR_BLOCK, TEAR_SECTOR};
use gds_rs::kv::superblock::Superblock;
use gds_rs::kv::wal::{Lsn, WalConfig, record_bytes};

use super::{Random, Record, Rig, config, disk_bytes, geometry, recover_all, stamp};

/// Kind of a record that names data.
const NAMES_DATA: u8 = 7;

/// What was appended, in the order of appends.
pub struct Commit {
    first: Lsn,
    records: Vec<(u8, Vec<u8>)>,
}

impl Commit {
    fn last(&self) -> Lsn {
        self.first + self.records.len() as u64 - 1
    }
}

pub struct Run {
    pub disk: Arc<SimDisk>,
    pub config: WalConfig,
    pub commits: Vec<Commit>,
    /// Moments at which a record was known to be durable.
    pub acks: Vec<(usize, Lsn)>,
}

/// Commits of all kinds: small and long ones, ones that span batches, ones that name data, waited
/// for or not, with checkpoints in between.
pub fn run(seed: u64, commits: usize) -> Run {
    let mut random = Random(seed);
    let wal = [32 << 10, 64 << 10, 128 << 10][random.below(3) as usize];
    let geometry = geometry(wal);
    let disk = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let config = WalConfig {
        max_batch_bytes: 8 << 10,
        pending_bytes: 32 << 10,
        idle: Duration::from_millis(random.below(3)),
        ..config(&geometry)
    };
    let mut rig = Rig::create_on(disk, geometry, config.clone());
    rig.disk.settle();
    rig.disk.set_plan(SimPlan {
        delay: Duration::from_micros(random.below(3) * 60),
        ..SimPlan::default()
    });
    let mut made: Vec<Commit> = Vec::new();
    let mut acks = Vec::new();
    let mut data = geometry.data_offset();
    for number in 0..commits as u64 {
        if rig.wal.used_bytes() > wal / 4 {
            rig.checkpoint();
        }
        let mut records = Vec::new();
        let most = match random.below(10) {
            0 => rig.wal.commit_bytes_max(),
            1..3 => 6000,
            _ => 400,
        };
        let mut left = most;
        for _ in 0..1 + random.below(6) {
            let limit = left.min(rig.wal.payload_bytes_max() + 8);
            if limit < 24 {
                break;
            }
            let len = random.below(limit as u64 - 7) as usize;
            let byte = random.next() as u8;
            records.push((1, (0..len).map(|i| byte.wrapping_add(i as u8)).collect()));
            left -= record_bytes(len);
        }
        let with_data = random.below(3) == 0 && data + 8192 < rig.disk.size();
        if with_data {
            rig.disk.write(data, &stamp(number, 2)).expect("a write");
            let mut name = data.to_le_bytes().to_vec();
            name.extend(number.to_le_bytes());
            records.insert(
                random.below(records.len() as u64 + 1) as usize,
                (NAMES_DATA, name),
            );
            data += 8192;
        }
        let bytes = records
            .iter()
            .map(|(_, p)| record_bytes(p.len()))
            .sum::<usize>();
        let Ok(mut append) = rig.wal.begin(bytes.min(rig.wal.commit_bytes_max())) else {
            panic!("no room for {bytes} bytes");
        };
        if bytes > rig.wal.commit_bytes_max() {
            continue;
        }
        if with_data {
            append.set_has_data();
        }
        let first = append.next_lsn();
        for (kind, payload) in &records {
            append.push(*kind, &[payload]).expect("as asked for");
        }
        if random.below(12) == 0 {
            // Given up: its numbers go to the next.
            drop(append);
            continue;
        }
        append.finish();
        made.push(Commit { first, records });
        if random.below(3) == 0 {
            let back = random.below(made.len().min(3) as u64) as usize;
            let lsn = made[made.len() - 1 - back].last();
            rig.wal.wait(lsn, None).expect("durable");
        }
        let durable = rig.wal.durable_lsn();
        acks.push((rig.disk.now(), durable));
        if random.below(10) == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    let disk = Arc::clone(&rig.disk);
    drop(rig);
    if let Some(commit) = made.last() {
        acks.push((disk.now(), commit.last()));
    }
    Run {
        disk,
        config,
        commits: made,
        acks,
    }
}

/// Groups records into commits.
fn group(records: &[Record]) -> Result<Vec<&[Record]>, String> {
    let whole: Vec<_> = records.split_inclusive(|r| r.last).collect();
    match whole.last() {
        Some(commit) if !commit[commit.len() - 1].last => {
            Err(format!("half a commit was recovered: {:?}", commit.len()))
        }
        _ => Ok(whole),
    }
}

/// What recovery says of a disk.
struct Seen {
    superblock: Superblock,
    records: Vec<Record>,
}

fn look(disk: &dyn Disk, config: &WalConfig) -> Result<Seen, String> {
    let superblock = Superblock::read_quorum(disk).map_err(|e| format!("superblock: {e}"))?;
    let (_, records) =
        recover_all(disk, config, &superblock.wal).map_err(|e| format!("recovery: {e}"))?;
    Ok(Seen {
        superblock,
        records,
    })
}

impl Run {
    /// The invariants on one disk: every acknowledged record is there; what is there is a prefix
    /// of the commits, each whole and as it was; the data that records name is there.
    fn check(&self, disk: &SimDisk, at: usize) -> Result<Seen, String> {
        let seen = look(disk, &self.config)?;
        let start = seen.superblock.wal.next_lsn;
        let skipped = self.commits.partition_point(|c| c.first < start);
        let mut want = self.commits[skipped..].iter();
        let mut last = start - 1;
        for got in group(&seen.records)? {
            let want = want.next().ok_or("more commits than were made")?;
            if got[0].lsn != want.first || want.first != last + 1 {
                return Err(format!(
                    "record {} follows {last}, not {}",
                    got[0].lsn, want.first
                ));
            }
            let same = got.len() == want.records.len()
                && got
                    .iter()
                    .zip(&want.records)
                    .all(|(g, w)| g.kind == w.0 && g.payload == w.1);
            if !same {
                return Err(format!("commit {} is not what was appended", want.first));
            }
            last = want.last();
        }
        // Commits whose last record was durable.
        let durable = self
            .acks
            .iter()
            .filter(|(when, _)| *when <= at)
            .map(|a| a.1)
            .max();
        let count = self
            .commits
            .partition_point(|c| c.last() <= durable.unwrap_or(0));
        let acked = self.commits[..count].last().map_or(0, Commit::last);
        if last < acked {
            return Err(format!(
                "recovered up to {last}, acknowledged up to {acked}"
            ));
        }
        self.check_data(disk, &seen.records)?;
        Ok(seen)
    }

    fn check_data(&self, disk: &dyn Disk, records: &[Record]) -> Result<(), String> {
        let mut memory = Blocks::new(2 * BLOCK).expect("memory");
        for record in records.iter().filter(|r| r.kind == NAMES_DATA) {
            let word = |at| u64::from_le_bytes(record.payload[at..at + 8].try_into().expect("8"));
            let (offset, number) = (word(0), word(8));
            disk.read(offset, &mut memory).map_err(|e| e.to_string())?;
            if memory.as_slice() != stamp(number, 2).as_slice() {
                return Err(format!(
                    "record {} names data that is not there",
                    record.lsn
                ));
            }
        }
        Ok(())
    }

    /// Opening what a crash left: doing it twice finds the same, even when a write of the run
    /// before arrives late; and what is appended then joins nothing that was lost.
    fn check_opened(&self, image: SimDisk, at: usize) -> Result<(), String> {
        let image = Arc::new(image);
        let config = WalConfig {
            stall: Duration::from_millis(1),
            ..self.config.clone()
        };
        let superblock = Superblock::read_quorum(&*image).map_err(|e| e.to_string())?;
        let (rig, _, records) = Rig::open_with(Arc::clone(&image), superblock, config)
            .map_err(|e| format!("open: {e}"))?;
        let again = look(&image.copy(), &self.config)?;
        if again.records != records {
            return Err("a second recovery found something else".to_owned());
        }
        let late = image.copy();
        for change in self.disk.under_way(at) {
            late.land(&change);
        }
        // A superblock that arrives late may say something else of the log, a batch may not.
        match look(&late, &self.config) {
            Ok(again) if again.superblock.wal.epoch == rig.superblock.wal.epoch => {
                if again.records != records {
                    return Err("a late write of the last run changed the log".to_owned());
                }
            }
            Ok(_) => {}
            Err(error) => return Err(format!("after a late write: {error}")),
        }
        let lsn = match rig.append(9, &[b"after the crash", b"and whole"]) {
            Ok(lsn) => lsn,
            // The crash came when the ring was full; a store would checkpoint first.
            Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(format!("append after the crash: {error}")),
        };
        rig.wal.wait(lsn, None).map_err(|e| e.to_string())?;
        let now = image
            .image(image.now(), Survivors::None)
            .map_err(|e| e.to_string())?;
        let last = look(&now, &self.config)?.records;
        let (old, new) = last.split_at(last.len().saturating_sub(2));
        let joined = new.iter().any(|r| r.kind != 9) || new.last().is_none_or(|r| r.lsn != lsn);
        if old != records || joined {
            return Err("what was appended after the crash joined what was lost".to_owned());
        }
        Ok(())
    }

    /// Checks every moment with every kind of crash; how many disks that were.
    pub fn check_all(&self, seed: u64) -> Result<usize, String> {
        let mut images = 0;
        for at in 0..=self.disk.now() {
            let seed = seed ^ ((at as u64) << 20);
            for (kind, survivors) in [
                Survivors::None,
                Survivors::All,
                Survivors::Some { seed },
                Survivors::Torn {
                    seed,
                    unit: TEAR_SECTOR,
                },
                Survivors::Torn {
                    seed: seed + 1,
                    unit: TEAR_BLOCK,
                },
                Survivors::Torn {
                    seed: seed + 2,
                    unit: TEAR_ANYWHERE,
                },
            ]
            .into_iter()
            .enumerate()
            {
                let place = |e| format!("crash at {at} with {survivors:?}: {e}");
                let image = self
                    .disk
                    .image(at, survivors)
                    .map_err(|e| place(e.to_string()))?;
                self.check(&image, at).map_err(place)?;
                if (at + kind) % 5 == 0 {
                    self.check_opened(image, at).map_err(place)?;
                }
                images += 1;
            }
        }
        Ok(images)
    }
}
