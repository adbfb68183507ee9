//! The root of a store: four equal copies, of which two newest that agree count.
//!
//! Two copies are written and flushed, then the other two: at every moment two copies of the old
//! or two of the new superblock are whole. After a crash in the middle, the two that do not hold
//! the one in force go first. A single copy of a newer one is a write that never ended, which
//! nobody relied on. Byte layout: `docs/format-kv.md`. Guarded by
//! `tests/kv_superblock.rs`.

use super::bugs::{self, Bug};
use super::disk::{BLOCK, Blocks, Disk};
use super::wal::WalStart;
use crate::base::crc::crc32c;
use crate::error::{Error, ErrorKind, Result};

/// First bytes of every copy.
pub const MAGIC: [u8; 8] = *b"GDSKVSB1";
/// Version of the format of everything in the store.
pub const FORMAT_VERSION: u32 = 1;
/// Features that a reader must know; this version knows none.
pub const INCOMPAT_KNOWN: u64 = 0;
/// Feature that a reader need not know: segments of values may have summaries.
pub const COMPAT_SUMMARIES: u64 = 1;
/// Copies.
pub const COPIES: u64 = 4;
/// Most meta segments that a superblock lists.
pub const META_SEGMENTS_MAX: usize = (BLOCK - META) / META_ENTRY;

/// Distances between copies that are looked at where the first copy cannot be read: powers of two.
const SPACING_MIN: u64 = BLOCK as u64;
const SPACING_MAX: u64 = 16 << 20;
/// Segments start at a multiple of this, or of their own size where that is smaller.
const SEGMENT_ALIGNMENT: u64 = 2 << 20;

// Offsets of the fields.
const CRC: usize = 8;
const VERSION: usize = CRC + 4;
const INCOMPAT: usize = VERSION + 4;
const COMPAT: usize = INCOMPAT + 8;
const UUID: usize = COMPAT + 8;
const GENERATION: usize = UUID + 16;
const COPY: usize = GENERATION + 8;
const EPOCH: usize = COPY + 4;
const SPACING: usize = EPOCH + 4;
const WAL_BYTES: usize = SPACING + 8;
const SEGMENT_BYTES: usize = WAL_BYTES + 8;
const SIZE_BYTES: usize = SEGMENT_BYTES + 8;
const EPOCH_FIRST_BATCH: usize = SIZE_BYTES + 8;
const WAL_POSITION: usize = EPOCH_FIRST_BATCH + 8;
const WAL_BATCH: usize = WAL_POSITION + 8;
const WAL_NEXT_LSN: usize = WAL_BATCH + 8;
const WAL_PREV_CRC: usize = WAL_NEXT_LSN + 8;
const META_COUNT: usize = WAL_PREV_CRC + 4;
const META_FIRST: usize = META_COUNT + 4;
const NEWEST_DELETE: usize = META_FIRST + 8;
const META: usize = 256;
const META_ENTRY: usize = 16;
const _: () = assert!(NEWEST_DELETE + 8 <= META);

/// Where things are; fixed when the store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Distance between superblock copies, bytes: a power of two, 4 KiB to 16 MiB.
    pub spacing: u64,
    /// Size of the log's ring, bytes: whole blocks, 8 at least.
    pub wal_bytes: u64,
    /// Size of a segment, bytes: whole blocks.
    pub segment_bytes: u64,
}

impl Geometry {
    /// Checks the rules of the fields.
    ///
    /// # Errors
    /// `InvalidConfig` with the rule.
    pub fn validate(&self) -> Result<()> {
        let block = BLOCK as u64;
        let (spacings, most) = (SPACING_MIN..=SPACING_MAX, 1 << 46);
        let broken = if !self.spacing.is_power_of_two() || !spacings.contains(&self.spacing) {
            format!(
                "spacing is {}: it must be a power of two from {SPACING_MIN} to {SPACING_MAX}",
                self.spacing
            )
        } else if !self.wal_bytes.is_multiple_of(block)
            || !(8 * block..=most).contains(&self.wal_bytes)
        {
            let (have, least) = (self.wal_bytes, 8 * block);
            format!("wal_bytes is {have}: it must be a multiple of {block} from {least} to {most}")
        } else if !self.segment_bytes.is_multiple_of(block)
            || !(block..=most).contains(&self.segment_bytes)
        {
            let have = self.segment_bytes;
            format!("segment_bytes is {have}: it must be a multiple of {block} up to {most}")
        } else {
            return Ok(());
        };
        let message = format!("lay a store out: {broken}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }

    /// Where the log's ring starts, bytes.
    #[must_use]
    pub fn wal_offset(&self) -> u64 {
        COPIES * self.spacing
    }

    /// Where the first segment starts, bytes.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        let alignment = SEGMENT_ALIGNMENT.min(self.segment_bytes.next_power_of_two());
        (self.wal_offset() + self.wal_bytes).next_multiple_of(alignment)
    }

    /// Where a segment starts, bytes.
    #[must_use]
    pub fn segment_offset(&self, segment: u64) -> u64 {
        self.data_offset() + segment * self.segment_bytes
    }

    /// Whole segments in a disk of `size` bytes.
    #[must_use]
    pub fn segments_in(&self, size: u64) -> u64 {
        size.saturating_sub(self.data_offset()) / self.segment_bytes
    }
}

/// A segment of the meta log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaSegment {
    /// Its number.
    pub segment: u64,
    /// Bytes of it that belong to the meta log.
    pub valid_bytes: u64,
}

/// What the four copies hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Grows with every write.
    pub generation: u64,
    /// Features that a reader must know.
    pub incompat: u64,
    /// Features that a reader need not know.
    pub compat: u64,
    /// Where things are.
    pub geometry: Geometry,
    /// The store relies on a disk of this size at least, bytes.
    pub size_bytes: u64,
    /// Where recovery starts to read the log; the store's uuid and epoch.
    pub wal: WalStart,
    /// The meta log, oldest segment first.
    pub meta: Vec<MetaSegment>,
    /// Number of the meta log's first block, where it is known: an older version does not say it.
    pub meta_first: Option<u64>,
    /// The newest delete that the meta log has ever held (0: none), where it is known.
    pub newest_delete: Option<u64>,
    /// Copies on the disk that hold this.
    held: Held,
}

/// Copies by bit. No part of what a superblock says.
#[derive(Debug, Clone, Copy, Default)]
struct Held(u8);

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

impl Held {
    const ALL: u8 = (1 << COPIES) - 1;
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// CRC32C of a copy, its own field counted as zero.
fn crc_of(block: &[u8]) -> u32 {
    let crc = crc32c(crc32c(0, &block[..CRC]), &[0; 4]);
    crc32c(crc, &block[CRC + 4..])
}

/// What a block turned out to be.
enum Copy {
    /// No superblock.
    Foreign,
    /// Has the magic and a wrong checksum, place or content.
    Damaged,
    /// Whole, of a version or with features that this library does not know.
    Unknown(Error),
    Whole(Box<Superblock>),
}

impl Superblock {
    /// The superblock of a new store on a disk of `size_bytes`.
    ///
    /// # Errors
    /// As [`Geometry::validate`]; `NoSpace` where the disk has no room for one segment.
    pub fn new(uuid: [u8; 16], geometry: Geometry, size_bytes: u64) -> Result<Self> {
        geometry.validate()?;
        let least = geometry.segment_offset(1);
        if size_bytes < least {
            let message = format!(
                "make a store on {size_bytes} bytes: superblocks, log and one segment need \
                 {least}; give it more, or smaller wal_bytes and segment_bytes"
            );
            return Err(Error::new(ErrorKind::NoSpace, message));
        }
        Ok(Self {
            generation: 0,
            incompat: 0,
            compat: 0,
            geometry,
            size_bytes,
            wal: WalStart {
                uuid,
                epoch: 1,
                epoch_first_batch: 1,
                position: 0,
                batch_no: 1,
                prev_crc: 0,
                next_lsn: 1,
            },
            meta: Vec::new(),
            meta_first: None,
            newest_delete: None,
            held: Held(Held::ALL),
        })
    }

    /// The block of copy `copy`.
    ///
    /// # Errors
    /// `NoSpace` when `meta` lists more than [`META_SEGMENTS_MAX`]; `OutOfHostMemory`.
    pub fn encode(&self, copy: u32) -> Result<Blocks> {
        if self.meta.len() > META_SEGMENTS_MAX {
            let message = format!(
                "write a superblock with {} meta segments: it holds {META_SEGMENTS_MAX}; use \
                 larger segments",
                self.meta.len()
            );
            return Err(Error::new(ErrorKind::NoSpace, message));
        }
        let mut block = Blocks::new(BLOCK)?;
        let b = block.as_mut_slice();
        put(b, 0, &MAGIC);
        put(b, VERSION, &FORMAT_VERSION.to_le_bytes());
        put(b, INCOMPAT, &self.incompat.to_le_bytes());
        put(b, COMPAT, &self.compat.to_le_bytes());
        put(b, UUID, &self.wal.uuid);
        put(b, GENERATION, &self.generation.to_le_bytes());
        put(b, COPY, &copy.to_le_bytes());
        put(b, EPOCH, &self.wal.epoch.to_le_bytes());
        put(b, SPACING, &self.geometry.spacing.to_le_bytes());
        put(b, WAL_BYTES, &self.geometry.wal_bytes.to_le_bytes());
        put(b, SEGMENT_BYTES, &self.geometry.segment_bytes.to_le_bytes());
        put(b, SIZE_BYTES, &self.size_bytes.to_le_bytes());
        put(
            b,
            EPOCH_FIRST_BATCH,
            &self.wal.epoch_first_batch.to_le_bytes(),
        );
        put(b, WAL_POSITION, &self.wal.position.to_le_bytes());
        put(b, WAL_BATCH, &self.wal.batch_no.to_le_bytes());
        put(b, WAL_NEXT_LSN, &self.wal.next_lsn.to_le_bytes());
        put(b, WAL_PREV_CRC, &self.wal.prev_crc.to_le_bytes());
        put(b, META_COUNT, &(self.meta.len() as u32).to_le_bytes());
        // One more than it is: 0 says nothing, which is what an older version writes here.
        let said = |value: Option<u64>| value.map_or(0, |v| v.saturating_add(1)).to_le_bytes();
        put(b, META_FIRST, &said(self.meta_first));
        put(b, NEWEST_DELETE, &said(self.newest_delete));
        for (index, meta) in self.meta.iter().enumerate() {
            put(b, META + index * META_ENTRY, &meta.segment.to_le_bytes());
            put(
                b,
                META + index * META_ENTRY + 8,
                &meta.valid_bytes.to_le_bytes(),
            );
        }
        let crc = crc_of(b);
        put(b, CRC, &crc.to_le_bytes());
        Ok(block)
    }

    /// What one block at `offset` of a disk says.
    ///
    /// # Errors
    /// `Corrupted` for what is no whole superblock of that place; `NotSupported` for a newer
    /// format.
    pub fn decode(block: &[u8], offset: u64) -> Result<Self> {
        match Self::look_at(block, offset) {
            Copy::Whole(superblock) => Ok(*superblock),
            Copy::Unknown(error) => Err(error),
            Copy::Foreign | Copy::Damaged => {
                let message = format!("read the superblock copy at {offset}: it is damaged");
                Err(Error::new(ErrorKind::Corrupted, message).with_offset(offset))
            }
        }
    }

    fn look_at(block: &[u8], offset: u64) -> Copy {
        if block.len() < BLOCK || block[..8] != MAGIC {
            return Copy::Foreign;
        }
        let b = &block[..BLOCK];
        if u32_at(b, CRC) != crc_of(b) && !bugs::is_on(Bug::ChecksumSkipped) {
            return Copy::Damaged;
        }
        let unknown = |what: String| {
            let message = format!("open a store: {what}; use a newer version of this library");
            Copy::Unknown(Error::new(ErrorKind::NotSupported, message).with_offset(offset))
        };
        let (version, incompat) = (u32_at(b, VERSION), u64_at(b, INCOMPAT));
        if version != FORMAT_VERSION {
            return unknown(format!(
                "its format has version {version}, not {FORMAT_VERSION}"
            ));
        }
        if incompat & !INCOMPAT_KNOWN != 0 {
            let bits = incompat & !INCOMPAT_KNOWN;
            return unknown(format!(
                "it uses features that are unknown here (bits {bits:#x})"
            ));
        }
        let count = u32_at(b, META_COUNT) as usize;
        let geometry = Geometry {
            spacing: u64_at(b, SPACING),
            wal_bytes: u64_at(b, WAL_BYTES),
            segment_bytes: u64_at(b, SEGMENT_BYTES),
        };
        let copy = u64::from(u32_at(b, COPY));
        if count > META_SEGMENTS_MAX
            || geometry.validate().is_err()
            || copy >= COPIES
            || copy * geometry.spacing != offset
        {
            return Copy::Damaged;
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&b[UUID..UUID + 16]);
        let meta = |index: usize| MetaSegment {
            segment: u64_at(b, META + index * META_ENTRY),
            valid_bytes: u64_at(b, META + index * META_ENTRY + 8),
        };
        Copy::Whole(Box::new(Self {
            generation: u64_at(b, GENERATION),
            incompat,
            compat: u64_at(b, COMPAT),
            geometry,
            size_bytes: u64_at(b, SIZE_BYTES),
            wal: WalStart {
                uuid,
                epoch: u32_at(b, EPOCH),
                epoch_first_batch: u64_at(b, EPOCH_FIRST_BATCH),
                position: u64_at(b, WAL_POSITION),
                batch_no: u64_at(b, WAL_BATCH),
                prev_crc: u32_at(b, WAL_PREV_CRC),
                next_lsn: u64_at(b, WAL_NEXT_LSN),
            },
            meta: (0..count).map(meta).collect(),
            meta_first: u64_at(b, META_FIRST).checked_sub(1),
            newest_delete: u64_at(b, NEWEST_DELETE).checked_sub(1),
            held: Held(1 << copy),
        }))
    }

    /// The newest superblock of which two copies agree.
    ///
    /// # Errors
    /// `UnsupportedFile` where no copy has ever been; `NotSupported` for a newer format;
    /// `Corrupted` where no two copies agree, or the disk is smaller than the store; `Io` when
    /// too few copies can be read.
    pub fn read_quorum(disk: &dyn Disk) -> Result<Self> {
        let mut seen = Seen::default();
        // The first copy tells where the others are; without it, all places are looked at.
        let mut places = vec![0];
        if let Some(spacing) = seen.look(disk, 0)? {
            places.extend((1..COPIES).map(|copy| copy * spacing));
        } else {
            let mut spacing = SPACING_MIN;
            while spacing <= SPACING_MAX {
                places.extend((1..COPIES).map(|copy| copy * spacing));
                spacing *= 2;
            }
            places.sort_unstable();
            places.dedup();
        }
        for offset in places.into_iter().skip(1) {
            seen.look(disk, offset)?;
        }
        let superblock = seen.agreed(disk)?;
        if superblock.size_bytes > disk.size() {
            let message = format!(
                "open a store: it had {} bytes when it was last open, and now the disk has {}; it \
                 was cut, restore it",
                superblock.size_bytes,
                disk.size()
            );
            return Err(Error::new(ErrorKind::Corrupted, message).with_offset(disk.size()));
        }
        Ok(superblock)
    }

    /// Writes all copies of the next generation. Durable on return.
    ///
    /// # Errors
    /// As [`Disk::write`] and [`Disk::flush`]; the old or the new superblock is in force then, and
    /// nothing may be written any more until the store is opened again.
    pub fn write(&mut self, disk: &dyn Disk) -> Result<()> {
        let Some(generation) = self.generation.checked_add(1) else {
            let message = "write a superblock: its generation is the last that there is, which no \
                           store reaches; it is damaged";
            return Err(Error::new(ErrorKind::Corrupted, message));
        };
        self.generation = generation;
        // Two copies that hold the one in force stay until two hold the new one. After a crash
        // those may be any two, so who does not hold it comes first.
        let mut copies: [u32; COPIES as usize] = std::array::from_fn(|copy| copy as u32);
        copies.sort_by_key(|copy| self.held.0 >> copy & 1);
        for (pair, after) in [(&copies[..2], None), (&copies[2..], Some(Held::ALL))] {
            for copy in pair {
                self.write_copy(disk, *copy)?;
            }
            disk.flush()?;
            let these = pair.iter().fold(0, |mask, copy| mask | (1 << copy));
            self.held = Held(after.unwrap_or(these));
        }
        Ok(())
    }

    fn write_copy(&self, disk: &dyn Disk, copy: u32) -> Result<()> {
        let block = self.encode(copy)?;
        disk.write(u64::from(copy) * self.geometry.spacing, &block)
    }

    /// Makes the first superblock of a store: erases what may look like a copy of an older one,
    /// writes the log's ring with zeros (a log that writes where nothing was written before is
    /// slow), then the superblock, then makes the disk's name durable.
    ///
    /// # Errors
    /// As [`Disk::write`], [`Disk::flush`] and [`Disk::sync_name`].
    pub fn create(&mut self, disk: &dyn Disk) -> Result<()> {
        const CHUNK: u64 = 1 << 20;
        let zeros = Blocks::new(CHUNK as usize)?;
        let mut spacing = SPACING_MIN;
        while spacing <= SPACING_MAX {
            for offset in (0..COPIES).map(|copy| copy * spacing) {
                if offset + BLOCK as u64 <= disk.size() {
                    disk.write(offset, &zeros[..BLOCK])?;
                }
            }
            spacing *= 2;
        }
        let start = self.geometry.wal_offset();
        let mut done = 0;
        while done < self.geometry.wal_bytes {
            let size = CHUNK.min(self.geometry.wal_bytes - done);
            disk.write(start + done, &zeros[..size as usize])?;
            done += size;
        }
        disk.flush()?;
        self.write(disk)?;
        if !bugs::is_on(Bug::MissingDirSync) {
            disk.sync_name()?;
        }
        Ok(())
    }

    /// Starts the next epoch at `next` (what recovery returned), durable on return: no batch of
    /// the run before that is not recovered now can ever be replayed. The log goes on there; where
    /// recovery starts to read stays as it is.
    ///
    /// # Errors
    /// As `write`.
    pub fn begin_epoch(&mut self, disk: &dyn Disk, next: &WalStart) -> Result<WalStart> {
        if !bugs::is_on(Bug::NoEpochBump) {
            let Some(epoch) = self.wal.epoch.checked_add(1) else {
                let message = "open a store: it was opened as often as its format can count; copy \
                               its values into a new one";
                return Err(Error::new(ErrorKind::OutOfRange, message));
            };
            self.wal.epoch = epoch;
            self.wal.epoch_first_batch = next.batch_no;
        }
        self.write(disk)?;
        Ok(WalStart {
            epoch: self.wal.epoch,
            epoch_first_batch: self.wal.epoch_first_batch,
            ..*next
        })
    }

    /// Makes the disk `size` bytes (larger) and relies on it from now on. Durable on return.
    ///
    /// # Errors
    /// As [`Disk::resize`] and `write`.
    pub fn grow(&mut self, disk: &dyn Disk, size: u64) -> Result<()> {
        if bugs::is_on(Bug::HeaderBeforeExtension) {
            self.size_bytes = size;
            self.write(disk)?;
            return disk.resize(size);
        }
        disk.resize(size)?;
        disk.flush()?;
        self.size_bytes = size;
        self.write(disk)
    }
}

/// Copies as they are found.
#[derive(Default)]
struct Seen {
    whole: Vec<Superblock>,
    damaged: Vec<u64>,
    unknown: Option<Error>,
    unreadable: Option<Error>,
}

impl Seen {
    /// Looks at the block at `offset`; where a whole copy is there, the spacing that it tells.
    fn look(&mut self, disk: &dyn Disk, offset: u64) -> Result<Option<u64>> {
        if offset + BLOCK as u64 > disk.size() {
            return Ok(None);
        }
        let mut block = Blocks::new(BLOCK)?;
        if let Err(error) = disk.read(offset, &mut block) {
            self.unreadable.get_or_insert(error);
            return Ok(None);
        }
        match Superblock::look_at(&block, offset) {
            Copy::Foreign => Ok(None),
            Copy::Damaged => {
                self.damaged.push(offset);
                Ok(None)
            }
            Copy::Unknown(error) => {
                self.unknown.get_or_insert(error);
                Ok(None)
            }
            Copy::Whole(superblock) => {
                let spacing = superblock.geometry.spacing;
                self.whole.push(*superblock);
                Ok(Some(spacing))
            }
        }
    }

    fn agreed(mut self, disk: &dyn Disk) -> Result<Superblock> {
        self.whole.sort_by_key(|s| std::cmp::Reverse(s.generation));
        let pair = self
            .whole
            .iter()
            .enumerate()
            .find_map(|(index, one)| self.whole[index + 1..].contains(one).then_some(one));
        if let Some(one) = pair {
            let equal = self.whole.iter().filter(|other| *other == one);
            let held = equal.fold(0, |mask, copy| mask | copy.held.0);
            return Ok(Superblock {
                held: Held(held),
                ..one.clone()
            });
        }
        if let Some(error) = self.unknown.or(self.unreadable) {
            return Err(match disk.path() {
                Some(path) => error.with_path(path),
                None => error,
            });
        }
        if self.whole.is_empty() && self.damaged.is_empty() {
            let message = "open a store: no superblock is there, this is not a store; create one";
            return Err(Error::new(ErrorKind::UnsupportedFile, message));
        }
        let message = format!(
            "open a store: of its {COPIES} superblock copies no two agree ({} whole, {} damaged); \
             restore the file, or repair it",
            self.whole.len(),
            self.damaged.len()
        );
        let offset = self.damaged.first().copied().unwrap_or(0);
        Err(Error::new(ErrorKind::Corrupted, message).with_offset(offset))
    }
}
