//! A store driven through failures: operations from a seed beside a model, on disks that fail.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use gds_rs::kv::disk::{BLOCK, Disk};
use gds_rs::kv::selftest::{Map, Oracle, contents};
use gds_rs::kv::store::{Batch, KvConfig, Store};
use gds_rs::{Error, ErrorKind, Result};

/// Whether the amounts of a whole night are asked for.
pub fn nightly() -> bool {
    std::env::var("GDS_KV_NIGHTLY").is_ok_and(|v| v == "1")
}

/// An amount: that of the variable, of a night, or of a change.
pub fn amount(variable: &str, change: u64, night: u64) -> u64 {
    let asked = std::env::var(variable).ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(if nightly() { night } else { change })
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(len + 8);
        while all.len() < len {
            all.extend(self.next().to_le_bytes());
        }
        all.truncate(len);
        all
    }
}

/// A tiny store that does not wait long for room.
pub fn config() -> KvConfig {
    KvConfig {
        wal_bytes: 64 << 10,
        segment_bytes: 64 << 10,
        superblock_spacing: 4 << 10,
        memtable_bytes: 8 << 10,
        cache_bytes: 64 << 10,
        max_batch_bytes: 12 << 10,
        stall: Duration::from_millis(200),
        ..KvConfig::default()
    }
}

/// What a call of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Read,
    Write,
    WriteDurable,
    Flush,
    Resize,
    SyncName,
}

/// How calls fail.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The call of this number, from 1; 0 = none.
    pub at: u64,
    /// All later ones too.
    pub sticky: bool,
    pub errno: i32,
    /// A write does its first half.
    pub half: bool,
}

/// Counts the calls to a disk and fails those of a plan.
#[derive(Debug)]
pub struct Failing<D> {
    pub inner: Arc<D>,
    plan: held::Cell<Plan>,
    calls: AtomicU64,
    struck: held::Cell<Option<Call>>,
    healed: AtomicBool,
}

/// A value behind a lock that no panic spoils.
mod held {
    use std::sync::{Mutex, PoisonError};

    #[derive(Debug)]
    pub struct Cell<T>(Mutex<T>);

    impl<T: Copy> Cell<T> {
        pub fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub fn get(&self) -> T {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub fn set(&self, value: T) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }
}

impl<D: Disk> Failing<D> {
    pub fn new(inner: Arc<D>, plan: Plan) -> Self {
        Self {
            inner,
            plan: held::Cell::new(plan),
            calls: AtomicU64::new(0),
            struck: held::Cell::new(None),
            healed: AtomicBool::new(false),
        }
    }

    /// The first call that failed.
    pub fn struck(&self) -> Option<Call> {
        self.struck.get()
    }

    pub fn heal(&self) {
        self.healed.store(true, SeqCst);
    }

    fn judge(&self, call: Call) -> Result<()> {
        let number = self.calls.fetch_add(1, SeqCst) + 1;
        let plan = self.plan.get();
        let hit = plan.at > 0 && (number == plan.at || plan.sticky && number > plan.at);
        if !hit || self.healed.load(SeqCst) {
            return Ok(());
        }
        if self.struck.get().is_none() {
            self.struck.set(Some(call));
        }
        Err(Error::os(
            plan.errno,
            format!("{call:?} number {number} of a failing disk"),
        ))
    }

    fn half(&self, offset: u64, from: &[u8], error: Error) -> Result<()> {
        let half = from.len() / 2 / BLOCK * BLOCK;
        if self.plan.get().half && half > 0 {
            self.inner.write(offset, &from[..half])?;
        }
        Err(error)
    }
}

impl<D: Disk> Disk for Failing<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn resize(&self, size: u64) -> Result<()> {
        self.judge(Call::Resize)?;
        self.inner.resize(size)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        if let Err(error) = self.judge(Call::Read) {
            into.fill(0x5a);
            return Err(error);
        }
        self.inner.read(offset, into)
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        match self.judge(Call::Write) {
            Ok(()) => self.inner.write(offset, from),
            Err(error) => self.half(offset, from, error),
        }
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        match self.judge(Call::WriteDurable) {
            Ok(()) => self.inner.write_durable(offset, from),
            Err(error) => self.half(offset, from, error),
        }
    }

    fn flush(&self) -> Result<()> {
        self.judge(Call::Flush)?;
        self.inner.flush()
    }

    fn sync_name(&self) -> Result<()> {
        self.judge(Call::SyncName)?;
        self.inner.sync_name()
    }

    fn discard(&self, offset: u64, size: u64) -> Result<()> {
        self.inner.discard(offset, size)
    }

    fn path(&self) -> Option<&Path> {
        self.inner.path()
    }
}

/// A store beside its model.
pub struct Pair {
    pub store: Store,
    pub oracle: Oracle,
    /// The state after all commits.
    pub model: Map,
    /// Failures that operations answered, and the last of them.
    pub failures: u64,
    pub last_failure: Option<Error>,
    /// What the disk may answer.
    expected: &'static [ErrorKind],
}

/// What operations may answer on a disk that fails: the failure, or that it happened.
pub const FAILURES: &[ErrorKind] = &[
    ErrorKind::Io,
    ErrorKind::NoSpace,
    ErrorKind::Poisoned,
    ErrorKind::TimedOut,
];

impl Pair {
    pub fn new(store: Store, model: Map) -> Self {
        let mut oracle = Oracle::of(model.clone());
        oracle.acknowledge(0, 0);
        Self {
            store,
            oracle,
            model,
            failures: 0,
            last_failure: None,
            expected: FAILURES,
        }
    }

    fn failed(&mut self, what: &str, error: &Error) -> std::result::Result<(), String> {
        self.failures += 1;
        self.last_failure = Some(error.clone());
        if self.expected.contains(&error.kind()) {
            return Ok(());
        }
        Err(format!("{what} answered {:?}: {error}", error.kind()))
    }

    fn committed(
        &mut self,
        what: &str,
        result: Result<u64>,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> std::result::Result<(), String> {
        match result {
            Ok(lsn) => {
                for (key, value) in &changes {
                    match value {
                        Some(value) => drop(self.model.insert(key.clone(), value.clone())),
                        None => drop(self.model.remove(key)),
                    }
                }
                self.oracle.commit(lsn, changes);
                Ok(())
            }
            Err(error) => self.failed(what, &error),
        }
    }

    /// Whether the store takes no more writes.
    pub fn is_poisoned(&self) -> bool {
        self.store.stats().poisoned
    }

    /// One operation; what went wrong that must not.
    pub fn step(&mut self, random: &mut Random) -> std::result::Result<(), String> {
        let key = format!("key {:02}", random.below(14)).into_bytes();
        let len = match random.below(8) {
            0 => 0,
            1..5 => random.below(700),
            5 => 4000 + random.below(100),
            _ => random.below(16_000),
        };
        match random.below(24) {
            0..9 => {
                let value = random.bytes(len as usize);
                let result = self.store.put_async(&key, &value);
                self.committed("put", result, vec![(key, Some(value))])?;
            }
            9..11 => match self.store.delete_async(&key) {
                Ok((there, lsn)) => {
                    if there != self.model.contains_key(&key) {
                        return Err(format!("delete {key:?}: was it there? {there}"));
                    }
                    if there {
                        self.committed("delete", Ok(lsn), vec![(key, None)])?;
                    }
                }
                Err(error) => self.failed("delete", &error)?,
            },
            11..13 => {
                let value = random.bytes(len as usize);
                let other = format!("key {:02}", random.below(14)).into_bytes();
                let mut batch = Batch::new();
                batch
                    .put(&key, &value)
                    .delete(&other)
                    .put(b"of a batch", &value[..len.min(50) as usize]);
                let result = self.store.write_async(&batch);
                let small = value[..len.min(50) as usize].to_vec();
                let changes = vec![
                    (key, Some(value)),
                    (other, None),
                    (b"of a batch".to_vec(), Some(small)),
                ];
                self.committed("batch", result, changes)?;
            }
            13..15 => {
                let value = random.bytes(5000 + len as usize);
                let result = (|| {
                    let mut writer = self.store.put_writer(&key, 0)?;
                    for part in value.chunks(3000) {
                        writer.write(part)?;
                    }
                    writer.commit_async()
                })();
                self.committed("put in parts", result, vec![(key, Some(value))])?;
            }
            15..18 => {
                let lsn = self.store.appended_lsn();
                match self.store.wait(lsn, None) {
                    Ok(()) => self.oracle.acknowledge(0, lsn),
                    Err(error) => self.failed("wait", &error)?,
                }
            }
            18 => {
                if let Err(error) = self.store.checkpoint() {
                    self.failed("checkpoint", &error)?;
                }
            }
            19 if random.below(3) == 0 => {
                if let Err(error) = self.store.compact() {
                    self.failed("compact", &error)?;
                }
            }
            19 => self.check_scan()?,
            _ => self.check_get(&key)?,
        }
        let durable = self.store.durable_lsn();
        self.oracle.acknowledge(0, durable);
        Ok(())
    }

    fn check_get(&mut self, key: &[u8]) -> std::result::Result<(), String> {
        match self.store.get(key) {
            Ok(value) if value.as_ref() == self.model.get(key) => Ok(()),
            Ok(value) => Err(format!(
                "get {key:?} gives {:?} bytes, other than were put",
                value.map(|v| v.len())
            )),
            Err(error) => self.failed("get", &error),
        }
    }

    fn check_scan(&mut self) -> std::result::Result<(), String> {
        let scan = match self.store.scan(.., u64::MAX) {
            Ok(scan) => scan,
            Err(error) => return self.failed("scan", &error),
        };
        let keys: Vec<Vec<u8>> = scan.map(|item| item.key).collect();
        if keys.iter().eq(self.model.keys()) {
            return Ok(());
        }
        Err(format!(
            "scan gives {} keys, not those {}",
            keys.len(),
            self.model.len()
        ))
    }

    /// Everything that is there, where it can be read, is what was put.
    pub fn check_all(&mut self) -> std::result::Result<(), String> {
        let keys: Vec<Vec<u8>> = self.model.keys().cloned().collect();
        self.check_scan()?;
        keys.iter().try_for_each(|key| self.check_get(key))
    }
}

/// Opens what a disk holds now and compares it with a prefix of the commits; hands it on.
pub fn reopen(
    disk: Arc<dyn Disk>,
    config: &KvConfig,
    oracle: &Oracle,
) -> std::result::Result<(Store, Map), String> {
    let store = Store::open_on(disk, config.clone()).map_err(|e| format!("open: {e:?}"))?;
    let found = contents(&store)?;
    oracle.check(&found, usize::MAX)?;
    let report = store.verify().map_err(|e| format!("verify: {e:?}"))?;
    if !report.is_clean() {
        return Err(format!("verify: {report:?}"));
    }
    Ok((store, found))
}
