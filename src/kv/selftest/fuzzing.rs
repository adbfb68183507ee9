//! What fuzz targets and the replay of their corpus run: bytes from anywhere go into each parser
//! of the format, and into the operations of a store. They may be refused, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::crc::crc32c;
use crate::error::ErrorKind;
use crate::kv::disk::{BLOCK, Blocks, Disk};
use crate::kv::sim::SimDisk;
use crate::kv::store::{self, Batch, KvConfig, Store};
use crate::kv::superblock::{COPIES, Superblock};
use crate::kv::wal::{WalConfig, WalStart, recover};

/// Longest input; more is cut.
pub const INPUT_MAX: usize = 256 << 10;
/// Most operations of one input.
const OPERATIONS_MAX: usize = 48;

/// What reads the bytes. The first byte of an input says how: bit 0 = checksums are made right
/// first, so that what lies behind them is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Recovery of a log.
    Wal,
    /// A superblock, and the opening of a store that has it.
    Superblock,
    /// A page of small values.
    Page,
    /// A block of the index.
    Meta,
    /// The summary at the end of a segment.
    Summary,
    /// Operations of a store, beside a map.
    Operations,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Wal,
        Self::Superblock,
        Self::Page,
        Self::Meta,
        Self::Summary,
        Self::Operations,
    ];

    /// Its name, which is that of its corpus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wal => "kv_wal",
            Self::Superblock => "kv_superblock",
            Self::Page => "kv_page",
            Self::Meta => "kv_meta",
            Self::Summary => "kv_summary",
            Self::Operations => "kv_operations",
        }
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What must not be, in words.
    pub fn run(self, input: &[u8]) -> Result<(), String> {
        let Some((mode, bytes)) = input[..input.len().min(INPUT_MAX)].split_first() else {
            return Ok(());
        };
        let right_sum = mode & 1 == 1;
        match self {
            Self::Wal => wal(bytes, right_sum),
            Self::Superblock => superblock(bytes, right_sum),
            Self::Page => store::fuzzing::page(bytes, right_sum).map(drop),
            Self::Meta => store::fuzzing::meta(bytes, right_sum).map(drop),
            Self::Summary => store::fuzzing::units(bytes, right_sum).map(drop),
            Self::Operations => operations(bytes),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

/// Makes the checksums and the chain of every batch right.
fn mend(ring: &mut [u8]) {
    let mut before = u32_at(ring, 48);
    let mut at = 0;
    while at + BLOCK <= ring.len() {
        let batch = &mut ring[at..];
        at += BLOCK;
        if batch[..4] != *b"GWAL" {
            continue;
        }
        let len = u32_at(batch, 56) as usize;
        if let Some(body) = batch.get(64..64usize.saturating_add(len)) {
            let crc = crc32c(0, body);
            batch[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        batch[48..52].copy_from_slice(&before.to_le_bytes());
        batch[4..8].fill(0);
        before = crc32c(0, &batch[..64]);
        batch[4..8].copy_from_slice(&before.to_le_bytes());
    }
}

fn wal(bytes: &[u8], right_sum: bool) -> Result<(), String> {
    let said = |e: crate::Error| format!("{e:?}");
    let size = bytes.len().next_multiple_of(BLOCK).max(8 * BLOCK);
    let mut ring = Blocks::new(size).map_err(said)?;
    ring[..bytes.len()].copy_from_slice(bytes);
    if right_sum {
        mend(&mut ring);
    }
    let disk = SimDisk::new(size as u64);
    disk.record(false);
    disk.write(0, &ring).map_err(said)?;
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&ring[16..24]);
    let batch_no = u64_at(&ring, 24);
    let start = WalStart {
        uuid,
        epoch: u32_at(&ring, 12),
        epoch_first_batch: batch_no,
        position: 0,
        batch_no,
        prev_crc: u32_at(&ring, 48),
        next_lsn: u64_at(&ring, 32).max(1),
    };
    let config = WalConfig::new(0, size as u64);
    let (mut next, mut given, mut gap) = (start.next_lsn, 0, false);
    let recovered = recover(&disk, &config, &start, &mut |lsn, _, payload, _| {
        // Records of a commit that never ended are left out, and only those.
        gap |= lsn < next;
        next = lsn + 1;
        given += payload.len();
        Ok(())
    });
    if gap || given > size {
        return Err(format!(
            "{given} bytes of records in {size}, out of order: {gap}"
        ));
    }
    match recovered {
        Err(e) if e.kind() != ErrorKind::Corrupted => {
            Err(format!("refused as {:?}: {e}", e.kind()))
        }
        _ => Ok(()),
    }
}

fn superblock(bytes: &[u8], right_sum: bool) -> Result<(), String> {
    let said = |e: crate::Error| format!("{e:?}");
    let mut block = Blocks::new(BLOCK).map_err(said)?;
    let len = bytes.len().min(BLOCK);
    block[..len].copy_from_slice(&bytes[..len]);
    let sum = |block: &mut [u8]| {
        block[8..12].fill(0);
        let crc = crc32c(0, block);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    };
    if right_sum {
        sum(&mut block);
    }
    let Ok(decoded) = Superblock::decode(&block, 0) else {
        return Ok(());
    };
    if decoded.geometry.validate().is_err() {
        return Err("a superblock of a geometry that is not allowed".to_owned());
    }
    // A whole store with it: refused, or opened, and no more memory than that takes.
    let spacing = decoded.geometry.spacing;
    let disk = SimDisk::new(4 << 20);
    disk.record(false);
    for copy in 0..COPIES {
        block[56..60].copy_from_slice(&(copy as u32).to_le_bytes());
        sum(&mut block);
        if copy * spacing + BLOCK as u64 <= disk.size() {
            disk.write(copy * spacing, &block).map_err(said)?;
        }
    }
    let config = KvConfig {
        stall: Duration::from_millis(100),
        ..KvConfig::default()
    };
    match Store::open_on(Arc::new(disk), config) {
        Ok(store) if store.keys() > 0 => Err("keys out of nothing".to_owned()),
        _ => Ok(()),
    }
}

fn operations(bytes: &[u8]) -> Result<(), String> {
    let config = KvConfig {
        wal_bytes: 64 << 10,
        segment_bytes: 64 << 10,
        superblock_spacing: 4 << 10,
        memtable_bytes: 8 << 10,
        cache_bytes: 64 << 10,
        max_batch_bytes: 12 << 10,
        stall: Duration::from_millis(500),
        ..KvConfig::default()
    };
    let said = |e: crate::Error| format!("{e:?}");
    let disk = Arc::new(SimDisk::new(0));
    disk.record(false);
    let mut store = Store::create_on(disk.clone(), config.clone()).map_err(said)?;
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for op in bytes.chunks_exact(4).take(OPERATIONS_MAX) {
        let key = vec![b'k'; 1 + usize::from(op[1] & 15) * usize::from(op[1] >> 4)];
        let len = usize::from(u16::from_le_bytes([op[2], op[3]]));
        let value: Vec<u8> = (0..len)
            .map(|n| (n as u8).wrapping_mul(op[2] | 1))
            .collect();
        match op[0] % 12 {
            0..4 => {
                store.put_async(&key, &value).map_err(said)?;
                map.insert(key, value);
            }
            4 => {
                let (there, _) = store.delete_async(&key).map_err(said)?;
                if there != map.remove(&key).is_some() {
                    return Err("a delete does not know whether the key was there".to_owned());
                }
            }
            5 => {
                let mut batch = Batch::new();
                let first = &value[..len.min(1000)];
                batch.put(&key, first).delete(b"gone").put(b"second", first);
                store.write(&batch).map_err(said)?;
                map.insert(key, first.to_vec());
                map.insert(b"second".to_vec(), first.to_vec());
            }
            6 => {
                let mut into = vec![0; len / 2];
                let offset = u64::from(op[3]) * 100;
                let got = store.get_into(&key, offset, &mut into).map_err(said)?;
                let want = map
                    .get(&key)
                    .map(|v| v.get(offset as usize..).unwrap_or(&[]));
                let want = want.map(|v| &v[..v.len().min(into.len())]);
                if got.map(|n| &into[..n]) != want {
                    return Err(format!("a part from {offset} of {} bytes", into.len()));
                }
            }
            7 => store.checkpoint().map_err(said)?,
            8 => drop(store.compact().map_err(said)?),
            9 => {
                drop(store);
                store = Store::open_on(disk.clone(), config.clone()).map_err(said)?;
            }
            _ => {
                if store.get(&key).map_err(said)? != map.get(&key).cloned() {
                    return Err("a get gives something else than was put".to_owned());
                }
            }
        }
    }
    if super::contents(&store)? != map {
        return Err("the store does not hold what was put".to_owned());
    }
    let report = store.verify().map_err(said)?;
    if report.is_clean() {
        Ok(())
    } else {
        Err(format!("{report:?}"))
    }
}
