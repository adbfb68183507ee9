//! What the index holds of a key: its newest version, and older ones while a snapshot may ask for
//! them.

use super::key::Key;
use super::reference::Reference;
use crate::kv::wal::Lsn;

/// What an entry costs beside its heap: the table's slot, its control byte and spare room.
const ENTRY_COST: u64 = 130;
/// What a key costs in the ordered set.
const ORDERED_COST: u64 = 40;

/// One version of a value that snapshots may still ask for.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub lsn: Lsn,
    pub reference: Reference,
}

/// A key with its newest version.
#[derive(Debug)]
pub(crate) struct Entry {
    pub key: Key,
    pub lsn: Lsn,
    pub reference: Reference,
    /// Newest first; all older than `lsn`.
    #[allow(
        clippy::box_collection,
        reason = "8 bytes an entry, where a Vec takes 24"
    )]
    pub older: Option<Box<Vec<Version>>>,
    /// Number of the meta block that named it: decides between equal versions while opening.
    pub seq: u32,
    /// Not in the meta log as it is now.
    pub dirty: bool,
}

impl Entry {
    /// The version that a reader at `at` sees.
    #[inline]
    pub fn at(&self, at: Lsn) -> Option<(Lsn, &Reference)> {
        if self.lsn <= at {
            return Some((self.lsn, &self.reference));
        }
        let older = self.older.as_ref()?;
        older
            .iter()
            .find(|v| v.lsn <= at)
            .map(|v| (v.lsn, &v.reference))
    }

    /// Where version `lsn` is.
    pub fn version(&self, lsn: Lsn) -> Option<&Reference> {
        if self.lsn == lsn {
            return Some(&self.reference);
        }
        let mut older = self.older.as_ref()?.iter();
        older.find(|v| v.lsn == lsn).map(|v| &v.reference)
    }

    /// The place of version `lsn`, to change it.
    pub fn version_mut(&mut self, lsn: Lsn) -> Option<&mut Reference> {
        if self.lsn == lsn {
            return Some(&mut self.reference);
        }
        let mut older = self.older.as_mut()?.iter_mut();
        older.find(|v| v.lsn == lsn).map(|v| &mut v.reference)
    }

    pub(super) fn cost(&self, ordered: bool) -> u64 {
        let older = self.older.as_ref().map_or(0, |o| {
            o.iter().map(|v| 48 + v.reference.heap()).sum::<u64>()
        });
        let ordered = if ordered { ORDERED_COST } else { 0 };
        ENTRY_COST + self.key.heap() + self.reference.heap() + older + ordered
    }
}
