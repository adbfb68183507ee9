//! Commits: records into the log and changes into the index under one lock, so that the order of
//! the log is the order of the index.
//!
//! ```text
//! kind 1 put, value in the record   key_len u32, key, value
//! kind 2 put, value in extents      key_len u32, key, reference
//! kind 3 delete                     key_len u32, key
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;

use super::Shared;
use super::reference::{Reader, Reference, small_value};
use super::value::{Stored, ValueWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::wal::{Lsn, record_bytes};

pub(crate) const PUT_INLINE: u8 = 1;
pub(crate) const PUT_EXTENT: u8 = 2;
pub(crate) const DELETE: u8 = 3;

/// One change of a commit: its key, and its value after that, lie among the batch's bytes.
#[derive(Debug, Clone, Copy)]
struct Change {
    key_len: usize,
    /// `None` for a delete.
    value_len: Option<usize>,
}

/// Changes that become visible and durable together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: Vec<u8>,
}

impl Batch {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put. Later changes of the same key win.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.add(key, Some(value))
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) -> &mut Self {
        self.add(key, None)
    }

    fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> &mut Self {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or(&[]));
        self.changes.push(Change {
            key_len: key.len(),
            value_len: value.map(<[u8]>::len),
        });
        self
    }

    /// Key and value, where it is a put, of each change.
    fn each(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = &self.bytes[..];
        self.changes.iter().map(move |change| {
            let (key, after) = rest.split_at(change.key_len);
            let (value, after) = after.split_at(change.value_len.unwrap_or(0));
            rest = after;
            (key, change.value_len.map(|_| value))
        })
    }

    /// Changes that it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A change that is ready for the log: large values are written.
enum Ready<'a> {
    Inline(&'a [u8], Bytes),
    Stored(&'a [u8], Stored, Vec<u8>),
    Delete(&'a [u8]),
}

impl Ready<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Inline(key, value) => record_bytes(4 + key.len() + value.len()),
            Self::Stored(key, _, reference) => record_bytes(4 + key.len() + reference.len()),
            Self::Delete(key) => record_bytes(4 + key.len()),
        }
    }
}

/// What a log record says.
pub(crate) fn parse(kind: u8, payload: &[u8]) -> Option<(&[u8], Reference)> {
    let mut r = Reader(payload);
    let key_len = r.u32()? as usize;
    let key = r.take(key_len)?;
    let reference = match kind {
        PUT_INLINE => Reference::inline(r.0),
        PUT_EXTENT => Reference::decode(&mut r)?,
        DELETE => Reference::Tombstone,
        _ => return None,
    };
    Some((key, reference))
}

/// Rounds that may free no more than they fill before a write that waits for room is refused.
/// Some do: what they moved becomes free in the round after.
const IN_VAIN: u32 = 8;

/// A write that waits for room.
#[derive(Debug)]
pub(crate) struct Waiting {
    deadline: Instant,
    /// The most segments that were free after a round since others wrote last.
    most_free: u64,
    appended: Lsn,
    in_vain: u32,
}

impl Waiting {
    /// Whether rounds still get on: more is free than ever, or others wrote and may have taken it.
    /// Cleaning that fills what it frees could go on for ever, and wears the disk.
    fn is_worth_it(&mut self, shared: &Shared) -> bool {
        let (free, appended) = (shared.space.free_now(), shared.wal.appended_lsn());
        if free > self.most_free || appended != self.appended {
            (self.most_free, self.appended, self.in_vain) = (free, appended, 0);
            return true;
        }
        self.in_vain += 1;
        self.in_vain < IN_VAIN
    }
}

impl Shared {
    pub fn check_key(&self, key: &[u8]) -> Result<()> {
        let most = self.key_max;
        if key.is_empty() || key.len() > most {
            let message = format!("a key must have 1 to {most} bytes, not {}", key.len());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(())
    }

    fn check_value(&self, len: u64) -> Result<()> {
        if len > super::config::VALUE_MAX {
            let most = super::config::VALUE_MAX;
            let message = format!("put a value of {len} bytes: the largest has {most}");
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        let most = self.config.index_bytes_max;
        if most > 0 && self.index.bytes() > most {
            let message = format!(
                "put a key: keys and references take {} bytes of memory and {most} are allowed; \
                 delete some, or raise index_bytes_max",
                self.index.bytes()
            );
            return Err(Error::new(ErrorKind::OutOfHostMemory, message));
        }
        Ok(())
    }

    /// Writes a large value; small ones wait for room in memory and on the disk.
    fn ready<'a>(self: &Arc<Self>, key: &'a [u8], value: &'a [u8]) -> Result<Ready<'a>> {
        self.check_key(key)?;
        self.check_value(value.len() as u64)?;
        if value.len() <= self.config.inline_max {
            self.admit_inline(value.len() as u64)?;
            // Copied before the commit lock is taken.
            return Ok(Ready::Inline(key, small_value(value)));
        }
        let mut writer = ValueWriter::new(self, key.len(), Some(value.len() as u64))?;
        writer.write(value)?;
        let stored = writer.finish()?;
        Self::ready_stored(key, stored)
    }

    fn ready_stored(key: &[u8], stored: Stored) -> Result<Ready<'_>> {
        let mut reference = Vec::new();
        stored.reference.encode(&mut reference)?;
        Ok(Ready::Stored(key, stored, reference))
    }

    pub fn put(self: &Arc<Self>, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.root.check()?;
        self.index.expect(key);
        let ready = self.ready(key, value)?;
        self.commit(&mut [ready])
    }

    pub fn put_stored(self: &Arc<Self>, key: &[u8], stored: Stored) -> Result<Lsn> {
        self.root.check()?;
        self.commit(&mut [Self::ready_stored(key, stored)?])
    }

    /// Deletes `key`; whether it was there, and the record to wait for.
    pub fn delete(&self, key: &[u8]) -> Result<(bool, Lsn)> {
        self.root.check()?;
        self.check_key(key)?;
        self.index.expect(key);
        let ready = Ready::Delete(key);
        let mut append = self.wal.begin(ready.bytes())?;
        let there = self.index.with(key, |entry| {
            entry.is_some_and(|e| !e.reference.is_tombstone())
        });
        if there {
            let lsn = append.push(DELETE, &[&(key.len() as u32).to_le_bytes(), key])?;
            self.apply(key, lsn, Reference::Tombstone);
        }
        let lsn = append.finish();
        drop(ready);
        self.after_commit();
        Ok((there, lsn))
    }

    pub fn write(self: &Arc<Self>, batch: &Batch) -> Result<Lsn> {
        self.root.check()?;
        if batch.is_empty() {
            return Ok(self.wal.appended_lsn());
        }
        let mut all = Vec::with_capacity(batch.len());
        for (key, value) in batch.each() {
            all.push(match value {
                Some(value) => self.ready(key, value)?,
                None => {
                    self.check_key(key)?;
                    Ready::Delete(key)
                }
            });
        }
        batch.each().for_each(|(key, _)| self.index.expect(key));
        self.commit(&mut all)
    }

    /// Appends all records, then changes the index, then ends the commit: an error before that
    /// leaves nothing behind.
    fn commit(&self, all: &mut [Ready<'_>]) -> Result<Lsn> {
        let bytes = all.iter().map(Ready::bytes).sum();
        let mut append = self.wal.begin(bytes)?;
        let mut first = 0;
        for (n, ready) in all.iter().enumerate() {
            let lsn = match ready {
                Ready::Inline(key, value) => {
                    let len = (key.len() as u32).to_le_bytes();
                    append.push(PUT_INLINE, &[&len, key, value])?
                }
                Ready::Stored(key, _, reference) => {
                    append.set_has_data();
                    let len = (key.len() as u32).to_le_bytes();
                    append.push(PUT_EXTENT, &[&len, key, reference])?
                }
                Ready::Delete(key) => {
                    append.push(DELETE, &[&(key.len() as u32).to_le_bytes(), key])?
                }
            };
            if n == 0 {
                first = lsn;
            }
        }
        let mut user = 0;
        for (lsn, ready) in (first..).zip(all) {
            match ready {
                Ready::Inline(key, value) => {
                    user += key.len() + value.len();
                    self.apply(key, lsn, Reference::Inline(std::mem::take(value)));
                }
                Ready::Stored(key, stored, _) => {
                    user += key.len() + stored.reference.len() as usize;
                    self.apply(key, lsn, stored.reference.clone());
                }
                Ready::Delete(key) => {
                    user += key.len();
                    self.apply(key, lsn, Reference::Tombstone);
                }
            }
        }
        self.counters.user_bytes.add_held(user as i64);
        let lsn = append.finish();
        self.after_commit();
        Ok(lsn)
    }

    /// Makes `reference` the newest version of `key`; the caller holds the commit lock.
    fn apply(&self, key: &[u8], lsn: Lsn, reference: Reference) {
        self.space.born(&reference, key.len());
        let keep = |old| self.snapshots.may_need(old);
        let replaced = self.index.apply(key, lsn, reference, keep);
        if let Some(dead) = replaced.dead {
            self.space.died(&dead, key.len(), lsn, 0);
        }
        self.inline_bytes.add_held(replaced.inline_bytes);
    }

    fn after_commit(&self) {
        if self.memtable_bytes() > self.config.memtable_bytes {
            self.signal.want_checkpoint();
        }
    }

    /// Bytes of small values and changes that only memory and the log hold.
    pub fn memtable_bytes(&self) -> u64 {
        self.inline_bytes.get() + 64 * self.index.dirty()
    }

    /// Lets a small value in when there is memory for it, and room on the disk for the pages that
    /// it will need at the next checkpoint.
    fn admit_inline(&self, len: u64) -> Result<()> {
        let most = self.config.memtable_bytes.saturating_mul(2);
        let inline = || self.memtable_bytes() + len;
        if inline() > most.max(len + 1) {
            self.wait_until("memory for small values", || inline() <= most.max(len + 1))?;
        }
        if self.space.may_grow() {
            return Ok(());
        }
        let roomy = || {
            let reserve = self.reserve(inline());
            self.space.set_reserve(reserve);
            self.space.free_now() > reserve
        };
        self.wait_until("room on the disk", roomy)
    }

    /// Segments that ordinary writes leave free while so many bytes of small values have no pages.
    pub fn reserve(&self, inline: u64) -> u64 {
        let pages = (inline * 3 / 2).div_ceil(self.space.segment_bytes());
        super::config::RESERVE_SEGMENTS + pages + self.meta_due.load(Relaxed)
    }

    /// Lets the background thread work until `good`: as long as it gets on, and `stall` at most.
    fn wait_until(&self, what: &str, good: impl Fn() -> bool) -> Result<()> {
        let mut waiting = self.begin_waiting();
        while !good() {
            let round = self.next_round(what, &mut waiting);
            // What an earlier round freed may have come between the look and the wait.
            if round.is_err() && !good() {
                return round;
            }
        }
        Ok(())
    }

    /// A write begins to wait for room.
    pub fn begin_waiting(&self) -> Waiting {
        Waiting {
            deadline: Instant::now() + self.config.stall,
            most_free: self.space.free_now(),
            appended: self.wal.appended_lsn(),
            in_vain: 0,
        }
    }

    /// Waits for a round of the background thread.
    ///
    /// # Errors
    /// `NoSpace` when it could not store what is in memory, and freed nothing, or when several
    /// freed no more than they filled; `TimedOut`.
    pub fn next_round(&self, what: &str, waiting: &mut Waiting) -> Result<()> {
        let before = (self.space.freed(), self.counters.checkpoints.load(Relaxed));
        let memtable = self.memtable_bytes();
        let whole = self.signal.wait_for_round(waiting.deadline);
        self.root.check()?;
        if !whole {
            let message = format!(
                "write to the store: no {what} came within {:?}; write slower, or raise stall",
                self.config.stall
            );
            return Err(Error::new(ErrorKind::TimedOut, message));
        }
        let stored = self.counters.checkpoints.load(Relaxed) > before.1
            && memtable > self.config.memtable_bytes;
        if stored || self.space.freed() > before.0 && waiting.is_worth_it(self) {
            return Ok(());
        }
        Err(self.no_space(what))
    }

    pub fn no_space(&self, what: &str) -> Error {
        let (free, all) = self.space.free_and_all();
        let message = format!(
            "write to the store: no {what}: {} of {all} segments of {} bytes are free and {} \
             bytes are live; delete something, or make the store larger",
            free,
            self.space.segment_bytes(),
            self.space.live(),
        );
        Error::new(ErrorKind::NoSpace, message)
    }
}
