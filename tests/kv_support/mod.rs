//! What tests of the log share: small rings on simulated disks, records that tell what they are.

#![allow(dead_code, clippy::missing_panics_doc)]

pub mod crash;
pub mod noted;

use std::sync::Arc;
use std::time::Duration;

use gds_rs::Result;
use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::superblock::{Geometry, Superblock};
use gds_rs::kv::wal::{Lsn, Recovered, Wal, WalConfig, WalStart, record_bytes, recover};

pub const UUID: [u8; 16] = *b"a store of tests";

/// Room for data behind the ring of a test store, bytes.
pub const DATA: u64 = 2 << 20;

/// Superblocks 4 KiB apart, a ring of `wal` bytes, segments of 64 KiB.
pub fn geometry(wal: u64) -> Geometry {
    Geometry {
        spacing: 4 << 10,
        wal_bytes: wal,
        segment_bytes: 64 << 10,
    }
}

pub fn disk_bytes(geometry: &Geometry) -> u64 {
    geometry.data_offset() + DATA
}

/// A log over a disk with superblocks, as a store uses it.
pub struct Rig {
    pub disk: Arc<SimDisk>,
    pub superblock: Superblock,
    pub wal: Arc<Wal>,
}

pub fn config(geometry: &Geometry) -> WalConfig {
    WalConfig {
        stall: Duration::from_secs(20),
        ..WalConfig::new(geometry.wal_offset(), geometry.wal_bytes)
    }
}

/// A recovered record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub lsn: Lsn,
    pub kind: u8,
    pub payload: Vec<u8>,
    pub last: bool,
}

pub fn recover_all(
    disk: &dyn Disk,
    config: &WalConfig,
    start: &WalStart,
) -> Result<(Recovered, Vec<Record>)> {
    let mut records = Vec::new();
    let recovered = recover(disk, config, start, &mut |lsn, kind, payload, last| {
        records.push(Record {
            lsn,
            kind,
            payload: payload.to_vec(),
            last,
        });
        Ok(())
    })?;
    Ok((recovered, records))
}

impl Rig {
    /// A new store on a new disk.
    pub fn create(wal: u64) -> Self {
        let geometry = geometry(wal);
        Self::create_on(
            Arc::new(SimDisk::new(disk_bytes(&geometry))),
            geometry,
            config(&geometry),
        )
    }

    pub fn create_on(disk: Arc<SimDisk>, geometry: Geometry, config: WalConfig) -> Self {
        let mut superblock = Superblock::new(UUID, geometry, disk.size()).expect("a layout");
        superblock.create(&*disk).expect("a superblock");
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = Wal::start(shared, config, superblock.wal).expect("a log");
        Self {
            disk,
            superblock,
            wal,
        }
    }

    /// Opens what is on a disk, as a store does after a crash.
    pub fn open(disk: Arc<SimDisk>) -> Result<(Self, Recovered, Vec<Record>)> {
        let superblock = Superblock::read_quorum(&*disk)?;
        let config = config(&superblock.geometry);
        Self::open_with(disk, superblock, config)
    }

    pub fn open_with(
        disk: Arc<SimDisk>,
        mut superblock: Superblock,
        config: WalConfig,
    ) -> Result<(Self, Recovered, Vec<Record>)> {
        let (recovered, records) = recover_all(&*disk, &config, &superblock.wal)?;
        let next = superblock.begin_epoch(&*disk, &recovered.next)?;
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = Wal::start_from(shared, config, next, superblock.wal.position)?;
        let rig = Self {
            disk,
            superblock,
            wal,
        };
        Ok((rig, recovered, records))
    }

    /// Appends one commit of these records; its ticket.
    pub fn append(&self, kind: u8, payloads: &[&[u8]]) -> Result<Lsn> {
        append(&self.wal, kind, payloads)
    }

    pub fn commit(&self, kind: u8, payloads: &[&[u8]]) -> Lsn {
        let lsn = self.append(kind, payloads).expect("room");
        self.wal.wait(lsn, None).expect("durable");
        lsn
    }

    /// Moves the start of recovery after everything so far.
    pub fn checkpoint(&mut self) {
        let mark = self.wal.seal_mark().expect("a mark");
        let mut start = self.wal.start_after(&mark, None);
        // Told too early (Bug::AckBeforePrefix): where it ends is known a little later.
        while start.is_err() && cfg!(feature = "seeded-bugs") && !self.wal.is_poisoned() {
            std::thread::sleep(Duration::from_millis(1));
            start = self.wal.start_after(&mark, None);
        }
        self.superblock.wal = start.expect("durable");
        self.superblock.write(&*self.disk).expect("a superblock");
        self.wal.release(&self.superblock.wal);
    }
}

pub fn append(wal: &Wal, kind: u8, payloads: &[&[u8]]) -> Result<Lsn> {
    let mut append = wal.begin(payloads.iter().map(|p| record_bytes(p.len())).sum())?;
    for payload in payloads {
        append.push(kind, &[payload])?;
    }
    Ok(append.finish())
}

/// Blocks filled with a number that tells what they are.
pub fn stamp(number: u64, blocks: usize) -> Blocks {
    let mut memory = Blocks::new(blocks * BLOCK).expect("memory");
    for word in memory.chunks_exact_mut(8) {
        word.copy_from_slice(&number.to_le_bytes());
    }
    memory
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
}

/// How often a test repeats: `GDS_CRASH_FACTOR=n` times that; twenty with `GDS_KV_NIGHTLY=1`.
pub fn scaled(amount: usize) -> usize {
    let factor = std::env::var("GDS_CRASH_FACTOR")
        .ok()
        .and_then(|f| f.parse().ok());
    let nightly = std::env::var("GDS_KV_NIGHTLY").is_ok_and(|v| v == "1");
    amount * factor.unwrap_or(if nightly { 20 } else { 1 })
}
