//! Reading the log after a crash: what is whole, where it ends, and whether it should have.
//!
//! A batch that is not whole is the end of the log when it was being written while the crash came
//! (a torn tail), and damage when it had been durable. It had been where this run's epoch started
//! after it, and where any later batch of the epoch says so (`durable_upto`): batches are looked
//! for in the whole ring.

use super::format::{HEADER, Header, Records, padded, uuid_low};
use super::pending::place;
use super::{Lsn, WalConfig, WalStart};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::disk::{BLOCK, Blocks, Disk};

/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// What recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Where the log goes on; the epoch is still the old one
    /// ([`crate::kv::superblock::Superblock::begin_epoch`] makes the new one).
    pub next: WalStart,
    /// Whole batches that were read.
    pub batches: u64,
    /// Disk offset of a batch that was being written when the crash came, where one can be seen.
    pub torn_at: Option<u64>,
}

/// Takes each record: number, kind, payload, whether it is the last of its commit.
pub type Each<'a> = dyn FnMut(Lsn, u8, &[u8], bool) -> Result<()> + 'a;

/// Reads the log from `start` and hands each record of each whole commit to `each`, in order.
///
/// # Errors
/// `Corrupted` with the offset where bytes that were durable are not what was written; `Io` where
/// the ring cannot be read; what `each` answers.
pub fn recover(
    disk: &dyn Disk,
    config: &WalConfig,
    start: &WalStart,
    each: &mut Each<'_>,
) -> Result<Recovered> {
    config.check_start(disk, start)?;
    // What is read must not be in a cache only: what is recovered now is relied upon.
    disk.flush()?;
    let mut reader = Reader {
        window: Window::new(disk, config)?,
        start: *start,
        uuid_low: uuid_low(start),
    };
    let mut next = *start;
    let mut last_epoch = 0;
    let mut carry = Carry::default();
    let mut batches = 0;
    while let Some(found) = reader.batch_at(&next, last_epoch)? {
        let Found { header, crc, at } = found;
        if header.epoch != last_epoch {
            // Its run ended before the commit did.
            carry.records.clear();
            last_epoch = header.epoch;
        }
        let body = reader.body(at, header.body_len)?;
        carry
            .batch(&header, body, each)
            .map_err(|e| e.with_offset(config.offset + at))?;
        let (_, end) = place(config.size, next.position, padded(header.body_len as usize));
        next.position = end;
        next.batch_no += 1;
        next.prev_crc = crc;
        next.next_lsn += u64::from(header.records);
        batches += 1;
    }
    let torn_at = reader.judge_end(&next)?;
    Ok(Recovered {
        next,
        batches,
        torn_at: torn_at.map(|at| config.offset + at),
    })
}

/// Records of a commit whose last record is still to come.
#[derive(Default)]
struct Carry {
    records: Vec<(Lsn, u8, Vec<u8>)>,
}

impl Carry {
    fn batch(&mut self, header: &Header, body: &[u8], each: &mut Each<'_>) -> Result<()> {
        let malformed = || {
            let message = format!(
                "recover batch {} of the log: its checksum is right and its records are not; it \
                 was written by a faulty or a newer version",
                header.batch_no
            );
            Error::new(ErrorKind::Corrupted, message)
        };
        let records: Option<Vec<_>> = Records(body).collect();
        let records = records
            .filter(|r| r.len() == header.records as usize)
            .ok_or_else(malformed)?;
        let whole = records
            .iter()
            .rposition(|r| r.last)
            .map_or(0, |last| last + 1);
        if whole > 0 {
            for (lsn, kind, payload) in self.records.drain(..) {
                each(lsn, kind, &payload, false)?;
            }
        }
        for (lsn, (index, record)) in (header.first_lsn..).zip(records.iter().enumerate()) {
            if index < whole {
                each(lsn, record.kind, record.payload, record.last)?;
            } else {
                self.records
                    .push((lsn, record.kind, record.payload.to_vec()));
            }
        }
        Ok(())
    }
}

struct Found {
    header: Header,
    crc: u32,
    /// Offset in the ring.
    at: u64,
}

struct Reader<'a> {
    window: Window<'a>,
    start: WalStart,
    uuid_low: u64,
}

impl Reader<'_> {
    /// The header at a place of the ring, if one of this store is there that was written there.
    fn header(&mut self, at: u64) -> Result<Option<(Header, u32)>> {
        let (uuid_low, place) = (self.uuid_low, (at / BLOCK as u64) as u32);
        let found = Header::decode(self.window.get(at, BLOCK)?);
        Ok(found.filter(|(h, _)| h.uuid_low == uuid_low && h.place == place))
    }

    fn body(&mut self, at: u64, len: u32) -> Result<&[u8]> {
        let all = self.window.get(at, padded(len as usize) as usize)?;
        Ok(&all[HEADER..HEADER + len as usize])
    }

    /// The batch that comes next, where it is whole.
    fn batch_at(&mut self, next: &WalStart, last_epoch: u32) -> Result<Option<Found>> {
        let ring = self.window.ring;
        // It is at the position, or at the ring's start where it would have crossed the end.
        for position in [next.position, next.position.next_multiple_of(ring)] {
            let at = position % ring;
            let Some((header, crc)) = self.header(at)? else {
                continue;
            };
            let epoch_fits = if next.batch_no < self.start.epoch_first_batch {
                (last_epoch..self.start.epoch).contains(&header.epoch)
            } else {
                header.epoch == self.start.epoch
            };
            let size = padded(header.body_len as usize);
            let (begin, end) = place(ring, next.position, size);
            if !epoch_fits
                || header.batch_no != next.batch_no
                || header.prev_crc != next.prev_crc
                || header.first_lsn != next.next_lsn
                || begin != position
                || end - self.start.position > ring
            {
                continue;
            }
            let body = self.body(at, header.body_len)?;
            if header.matches(body) {
                return Ok(Some(Found { header, crc, at }));
            }
        }
        Ok(None)
    }

    /// Decides whether the log may end at `next`. The offset in the ring of a torn batch.
    fn judge_end(&mut self, next: &WalStart) -> Result<Option<u64>> {
        let ring = self.window.ring;
        let damaged = |at: u64, offset: u64, why: String| {
            let message = format!(
                "recover the log: batch {} at ring offset {at} is not what was written, though \
                 {why}; restore the file, or repair it and lose what follows",
                next.batch_no
            );
            Err(Error::new(ErrorKind::Corrupted, message).with_offset(offset + at))
        };
        let (at, offset) = (next.position % ring, self.window.offset);
        if next.batch_no < self.start.epoch_first_batch {
            return damaged(at, offset, "an earlier opening had read it".to_owned());
        }
        let (mut torn, mut place) = (None, 0);
        while place < ring {
            if let Some((header, _)) = self.header(place)?
                && header.epoch == self.start.epoch
            {
                if header.batch_no > next.batch_no && header.durable_upto >= next.batch_no {
                    let why = format!(
                        "batch {} says that {} were durable",
                        header.batch_no, header.durable_upto
                    );
                    return damaged(at, offset, why);
                }
                if header.batch_no == next.batch_no {
                    torn = Some(place);
                }
            }
            place += BLOCK as u64;
        }
        Ok(torn)
    }
}

/// Reads the ring in large pieces.
struct Window<'a> {
    disk: &'a dyn Disk,
    offset: u64,
    ring: u64,
    memory: Blocks,
    /// What `memory` holds: a range of the ring.
    from: u64,
    to: u64,
}

impl<'a> Window<'a> {
    fn new(disk: &'a dyn Disk, config: &WalConfig) -> Result<Self> {
        Ok(Self {
            disk,
            offset: config.offset,
            ring: config.size,
            memory: Blocks::new(CHUNK.min(config.size) as usize)?,
            from: 0,
            to: 0,
        })
    }

    /// `len` bytes at `at`, whole blocks inside the ring.
    fn get(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let end = at + len as u64;
        if at < self.from || end > self.to {
            if len > self.memory.len() {
                self.memory = Blocks::new(len)?;
            }
            let to = (at + self.memory.len() as u64).min(self.ring);
            (self.from, self.to) = (0, 0);
            let into = &mut self.memory[..(to - at) as usize];
            self.disk.read(self.offset + at, into)?;
            (self.from, self.to) = (at, to);
        }
        let start = (at - self.from) as usize;
        Ok(&self.memory[start..start + len])
    }
}
