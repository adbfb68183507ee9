//! What a store is made with, and the limits that follow from its geometry.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::BLOCK;

/// Longest key of any store, bytes. A store with small segments takes less (see `key_max`).
pub const KEY_MAX: usize = 64 << 10;
/// Longest value of any store, bytes.
pub const VALUE_MAX: u64 = 1 << 40;
/// Largest value that may be kept in the log and in shared pages, bytes.
pub const INLINE_MAX_LIMIT: usize = 16 << 10;
/// Largest page that holds several small values, bytes.
pub(crate) const PAGE_TARGET: usize = 16 << 10;
/// Segments that only cleaning may take: one for what it moves, one for the index of it. So a full
/// store can always be cleaned.
pub(crate) const CLEANING_SEGMENTS: u64 = 2;
/// Segments that ordinary writes leave free beside the pages that are due: those of cleaning, and
/// one for the index of a checkpoint.
pub(crate) const RESERVE_SEGMENTS: u64 = CLEANING_SEGMENTS + 1;

/// How the disk of a store is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskLevel {
    /// By reads and writes of the file or block device, past the page cache where that can be.
    #[default]
    File,
    /// By a mapping of a file in persistent memory, with cache-line flushes. Refused where the
    /// file system does not map with `MAP_SYNC`.
    Dax,
}

/// How to create and open a store. The geometry fields count when the store is created; an
/// existing store keeps the geometry that it was created with.
#[derive(Debug, Clone)]
pub struct KvConfig {
    /// Bytes of the whole store; 0 lets a file grow. A block device is used whole with 0.
    pub size_bytes: u64,
    /// Bytes of the log ring, a multiple of 4 KiB.
    pub wal_bytes: u64,
    /// Bytes of one segment, a power of two.
    pub segment_bytes: u64,
    /// Distance of the four superblock copies, a multiple of 4 KiB.
    pub superblock_spacing: u64,
    /// Largest value that goes into the log and shared pages; larger ones get extents of their
    /// own. Bytes.
    pub inline_max: usize,
    /// Bytes of small values and changes in memory that start a checkpoint.
    pub memtable_bytes: u64,
    /// Bytes of host memory for pages of small values that were read.
    pub cache_bytes: u64,
    /// Most bytes of memory that keys and references may take; 0 = no limit.
    pub index_bytes_max: u64,
    /// Whether keys are kept in order too, which scans need.
    pub ordered: bool,
    /// Longest time that a write waits for room before it fails.
    pub stall: Duration,
    /// Whether `open` creates a store where there is none.
    pub create: bool,
    /// Whether `open` refuses a file that holds a store already (with `create`).
    pub exclusive: bool,
    /// Most bytes of one log write.
    pub max_batch_bytes: usize,
    /// Most bytes that wait for the log thread.
    pub pending_bytes: usize,
    /// Threads of a checkpoint: 0 = a third of the processors, but 2 to 4 where there are so many,
    /// and fewer where there is little to do.
    pub checkpoint_threads: usize,
    /// How `open` reaches the disk. The same store may be opened either way.
    pub level: DiskLevel,
}

impl Default for KvConfig {
    fn default() -> Self {
        Self {
            size_bytes: 0,
            wal_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            superblock_spacing: 1 << 20,
            inline_max: 4032,
            memtable_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            index_bytes_max: 0,
            ordered: true,
            stall: Duration::from_secs(10),
            create: true,
            exclusive: false,
            max_batch_bytes: 1 << 20,
            pending_bytes: 16 << 20,
            checkpoint_threads: 0,
            level: DiskLevel::File,
        }
    }
}

impl KvConfig {
    /// Checks every field against its rule.
    ///
    /// # Errors
    /// `InvalidConfig` that names the field, the rule and what was given.
    pub fn validate(&self) -> Result<()> {
        let rule = |holds: bool, text: String| {
            if holds {
                Ok(())
            } else {
                Err(Error::new(ErrorKind::InvalidConfig, text))
            }
        };
        let block = BLOCK as u64;
        rule(
            self.wal_bytes.is_multiple_of(block)
                && (8 * block..=64 << 30).contains(&self.wal_bytes),
            format!(
                "wal_bytes must be a multiple of {block} from {} to 64 GiB, not {}",
                8 * block,
                self.wal_bytes
            ),
        )?;
        rule(
            self.segment_bytes.is_power_of_two()
                && (16 * block..=1 << 30).contains(&self.segment_bytes),
            format!(
                "segment_bytes must be a power of two from {} to 1 GiB, not {}",
                16 * block,
                self.segment_bytes
            ),
        )?;
        rule(
            self.superblock_spacing.is_multiple_of(block)
                && (block..=1 << 30).contains(&self.superblock_spacing),
            format!(
                "superblock_spacing must be a multiple of {block} up to 1 GiB, not {}",
                self.superblock_spacing
            ),
        )?;
        rule(
            self.inline_max <= INLINE_MAX_LIMIT
                && self.inline_max as u64 <= self.segment_bytes / 8
                && self.inline_max as u64 <= self.wal_bytes / 8,
            format!(
                "inline_max must be at most {INLINE_MAX_LIMIT}, an eighth of segment_bytes and \
                 an eighth of wal_bytes, not {}",
                self.inline_max
            ),
        )?;
        rule(
            self.memtable_bytes >= block,
            format!(
                "memtable_bytes must be at least {block}, not {}",
                self.memtable_bytes
            ),
        )?;
        rule(
            self.max_batch_bytes.is_multiple_of(BLOCK) && self.max_batch_bytes >= BLOCK,
            format!(
                "max_batch_bytes must be a multiple of {block}, not {}",
                self.max_batch_bytes
            ),
        )?;
        rule(
            self.pending_bytes >= self.max_batch_bytes,
            format!(
                "pending_bytes must be at least max_batch_bytes {}, not {}",
                self.max_batch_bytes, self.pending_bytes
            ),
        )
    }

    /// Longest key that a store of this geometry takes, bytes.
    #[must_use]
    pub fn key_max(&self) -> usize {
        let by_segment = usize::try_from(self.segment_bytes / 8).unwrap_or(KEY_MAX);
        let by_wal = usize::try_from(self.wal_bytes / 8).unwrap_or(KEY_MAX);
        KEY_MAX.min(by_segment).min(by_wal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        KvConfig::default().validate().unwrap();
        assert_eq!(KvConfig::default().key_max(), KEY_MAX);
    }

    #[test]
    fn each_rule_is_checked_and_named() {
        let base = KvConfig::default;
        let wrong: [(&str, KvConfig); 6] = [
            (
                "wal_bytes",
                KvConfig {
                    wal_bytes: 5000,
                    ..base()
                },
            ),
            (
                "segment_bytes",
                KvConfig {
                    segment_bytes: 3 << 20,
                    ..base()
                },
            ),
            (
                "superblock_spacing",
                KvConfig {
                    superblock_spacing: 1,
                    ..base()
                },
            ),
            (
                "inline_max",
                KvConfig {
                    inline_max: 1 << 20,
                    ..base()
                },
            ),
            (
                "memtable_bytes",
                KvConfig {
                    memtable_bytes: 1,
                    ..base()
                },
            ),
            (
                "pending_bytes",
                KvConfig {
                    pending_bytes: 1,
                    ..base()
                },
            ),
        ];
        for (field, config) in wrong {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().starts_with(field), "{error}");
        }
    }
}
