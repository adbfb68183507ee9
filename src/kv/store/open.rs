//! Making, opening and recovering a store.
//!
//! Opening: superblock; blocks of the meta log, several at a time, the highest version and block
//! of each key wins; records of the log after the checkpoint, newer versions win; lists of runs of
//! long values; live bytes a segment; the next epoch durable in the superblock; then it serves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::checkpoint::{MetaLog, MetaPart, read_part};
use super::commit::parse;
use super::config::{DiskLevel, KvConfig};
use super::index::Index;
use super::meter::Meter;
use super::reference::Reference;
use super::root::Root;
use super::space::Space;
use super::value::read_manifest;
use super::worker::Signal;
use super::{Counters, PageWeight, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{self, OpenMode};
use crate::kv::disk::{BLOCK, Blocks, DaxDisk, Disk, FileDisk};
use crate::kv::superblock::{COMPAT_SUMMARIES, COPIES, Geometry, Superblock};
use crate::kv::sync::{Mutex, Tally, thread};
use crate::kv::wal::{self, Wal, WalConfig, WalStart};

/// Threads that read the meta log.
const READERS: usize = 4;
/// Fewest segments of a store that cannot grow.
const SEGMENTS_MIN: u64 = 8;

fn geometry_of(config: &KvConfig) -> Geometry {
    Geometry {
        spacing: config.superblock_spacing,
        wal_bytes: config.wal_bytes,
        segment_bytes: config.segment_bytes,
    }
}

pub(crate) fn wal_config(config: &KvConfig, geometry: &Geometry) -> WalConfig {
    let most = usize::try_from(geometry.wal_bytes / 4).unwrap_or(usize::MAX) / BLOCK * BLOCK;
    WalConfig {
        offset: geometry.wal_offset(),
        size: geometry.wal_bytes,
        max_batch_bytes: config.max_batch_bytes.min(most.max(BLOCK)),
        pending_bytes: config.pending_bytes,
        stall: config.stall,
        idle: Duration::from_millis(10),
    }
}

/// Sixteen bytes that no other store has.
fn new_uuid() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut uuid = [0; 16];
    for half in uuid.chunks_exact_mut(8) {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let word = RandomState::new().hash_one((std::process::id(), time.unwrap_or_default()));
        half.copy_from_slice(&word.to_le_bytes());
    }
    uuid
}

/// Writes an empty store.
pub(crate) fn create(disk: &Arc<dyn Disk>, config: &KvConfig) -> Result<()> {
    create_as(disk, config, new_uuid())
}

pub(crate) fn create_as(disk: &Arc<dyn Disk>, config: &KvConfig, uuid: [u8; 16]) -> Result<()> {
    config.validate()?;
    let geometry = geometry_of(config);
    geometry.validate()?;
    let least = if config.size_bytes == 0 {
        1
    } else {
        SEGMENTS_MIN
    };
    let wanted = config.size_bytes.max(geometry.segment_offset(least));
    if config.size_bytes > 0 && wanted > config.size_bytes {
        let message = format!(
            "make a store of {} bytes: log and {SEGMENTS_MIN} segments need {wanted}; give it \
             more, or smaller segments",
            config.size_bytes
        );
        return Err(Error::new(ErrorKind::NoSpace, message));
    }
    if disk.size() < wanted {
        disk.resize(wanted)?;
        disk.flush()?;
    }
    // A disk that is larger than asked for, a block device, is used as far as it was asked for.
    let size = if config.size_bytes == 0 {
        disk.size()
    } else {
        config.size_bytes
    };
    let mut superblock = Superblock::new(uuid, geometry, size)?;
    superblock.compat |= COMPAT_SUMMARIES;
    superblock.newest_delete = Some(0);
    superblock.create(&**disk)
}

/// The disk at `path`, and whether a store may be made there.
pub(crate) fn file(path: &Path, config: &KvConfig) -> Result<(Arc<dyn Disk>, bool)> {
    config.validate()?;
    let mode = OpenMode {
        read: true,
        write: true,
        create: config.create,
        truncate: false,
        exclusive: config.create && config.exclusive,
    };
    let was_there = path.exists();
    let file = FileDisk::open(path, mode, io::best())?;
    let disk: Arc<dyn Disk> = match config.level {
        DiskLevel::File => Arc::new(file),
        DiskLevel::Dax => {
            DaxDisk::probe(&file).inspect_err(|_| {
                // Made just now: a refusal leaves nothing behind. Still locked.
                if !was_there && file.size() == 0 {
                    let _ = std::fs::remove_file(path);
                }
            })?;
            Arc::new(DaxDisk::open(file)?)
        }
    };
    Ok((disk, config.create))
}

/// Whether a store must be made: nothing is there, or one whose making a crash cut short. Its
/// superblock had not been in force, so nobody was ever told that it is there.
pub(crate) fn is_fresh(disk: &dyn Disk) -> Result<bool> {
    if is_blank(disk)? {
        return Ok(true);
    }
    match Superblock::read_quorum(disk) {
        Err(error) if error.kind() == ErrorKind::Corrupted => {
            let only = super::repair::any_superblock(disk);
            Ok(only.is_ok_and(|s| s.generation <= 1))
        }
        _ => Ok(false),
    }
}

/// Whether nothing was ever written where the superblock goes.
fn is_blank(disk: &dyn Disk) -> Result<bool> {
    if disk.size() < BLOCK as u64 {
        return Ok(true);
    }
    let mut block = Blocks::new(BLOCK)?;
    disk.read(0, &mut block)?;
    if block.iter().any(|b| *b != 0) {
        return Ok(false);
    }
    match Superblock::read_quorum(disk) {
        Err(error) if error.kind() == ErrorKind::UnsupportedFile => Ok(true),
        _ => Ok(false),
    }
}

/// Removes a store.
pub(crate) fn destroy(path: &Path) -> Result<()> {
    let mode = OpenMode {
        create: false,
        truncate: false,
        exclusive: false,
        read: true,
        write: true,
    };
    let disk = FileDisk::open(path, mode, io::best())?;
    let superblock = Superblock::read_quorum(&disk)?;
    let zeros = Blocks::new(BLOCK)?;
    for copy in 0..COPIES {
        disk.write(copy * superblock.geometry.spacing, &zeros)?;
    }
    disk.flush()?;
    if std::fs::metadata(path).is_ok_and(|m| m.is_file()) {
        std::fs::remove_file(path).map_err(|e| {
            let what = format!("remove {}", path.display());
            Error::os(e.raw_os_error().unwrap_or(0), what).with_path(path)
        })?;
        disk.sync_name()?;
    }
    Ok(())
}

/// Opens and recovers.
pub(crate) fn open(disk: Arc<dyn Disk>, config: KvConfig) -> Result<Arc<Shared>> {
    config.validate()?;
    let meter = Arc::new(Meter::new(disk));
    let disk: Arc<dyn Disk> = meter.clone();
    let superblock = Superblock::read_quorum(&*disk)?;
    let geometry = superblock.geometry;
    let config = KvConfig {
        wal_bytes: geometry.wal_bytes,
        segment_bytes: geometry.segment_bytes,
        superblock_spacing: geometry.spacing,
        ..config
    };
    config.validate()?;
    let uuid = superblock.wal.uuid;
    let id = id_of(&uuid);
    let (size, start, parts) = (
        superblock.size_bytes,
        superblock.wal,
        superblock.meta.clone(),
    );
    let (first, newest_delete) = (superblock.meta_first, superblock.newest_delete);
    let root = Arc::new(Root::new(disk.clone(), superblock));
    let may_grow = config.size_bytes == 0 && is_file(&*disk);
    let space = Space::new(disk.clone(), root.clone(), &geometry, size, may_grow);
    let index = Index::new(config.ordered);

    let mut meta = MetaLog {
        newest_delete,
        ..MetaLog::default()
    };
    for part in &parts {
        let segment = u32::try_from(part.segment).unwrap_or(u32::MAX);
        space.adopt_meta(segment)?;
        if part.valid_bytes > geometry.segment_bytes {
            let message = "the superblock lists a meta segment longer than a segment";
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
        meta.parts.push_back(MetaPart {
            segment,
            first: 0,
            valid: part.valid_bytes,
            entries: 0,
            payload: 0,
        });
    }
    load(&*disk, &space, (id, first), &index, &mut meta)?;
    let log = wal_config(&config, &geometry);
    let inline_bytes = Tally::default();
    let next = replay(&*disk, &log, &start, &index, &inline_bytes)?;
    count_live(&*disk, &space, id, &index)?;
    space.set_durable(next.next_lsn.saturating_sub(1));

    let next = root.begin_epoch(&next)?;
    let wal = Wal::start_from(disk, log, next, start.position)?;
    Ok(assemble(Parts {
        wal,
        disk: meter,
        config,
        uuid,
        root,
        index,
        space,
        inline_bytes,
        meta,
    }))
}

/// What a store is put together from.
pub(crate) struct Parts {
    pub wal: Arc<Wal>,
    pub disk: Arc<Meter>,
    pub config: KvConfig,
    pub uuid: [u8; 16],
    pub root: Arc<Root>,
    pub index: Index,
    pub space: Space,
    pub inline_bytes: Tally,
    pub meta: MetaLog,
}

/// The store, without its background thread.
pub(crate) fn assemble(parts: Parts) -> Arc<Shared> {
    let (wal, config) = (parts.wal, parts.config);
    let signal = Arc::new(Signal::default());
    let pressure = Arc::clone(&signal);
    wal.on_pressure(Box::new(move || pressure.want_checkpoint()));
    let pages = usize::try_from(config.cache_bytes / 4096).unwrap_or(usize::MAX);
    // A record with the longest key and the largest small value, or reference, fits into a batch.
    let half = wal.payload_bytes_max() / 2 - 16;
    let key_max = config.key_max().min(half);
    let inline_max = config.inline_max.min(half);
    let cache =
        super::PageCache::with_weighter(pages.clamp(16, 1 << 24), config.cache_bytes, PageWeight);
    let shared = Arc::new(Shared {
        wal,
        disk: parts.disk,
        key_max,
        config: KvConfig {
            inline_max,
            ..config
        },
        uuid: parts.uuid,
        id: id_of(&parts.uuid),
        root: parts.root,
        index: parts.index,
        space: parts.space,
        cache,
        snapshots: super::Snapshots::default(),
        pruning: Mutex::new(()),
        inline_bytes: parts.inline_bytes,
        meta_due: AtomicU64::new(0),
        meta: Mutex::new(parts.meta),
        signal,
        counters: Counters::default(),
        last_error: Mutex::new(None),
    });
    shared.plan_meta(&shared.meta.lock().parts);
    shared
}

/// The part of the identity that pages and meta blocks carry.
pub(crate) fn id_of(uuid: &[u8; 16]) -> u64 {
    u64::from_le_bytes(uuid[..8].try_into().unwrap_or([0; 8]))
}

/// Whether the disk is a file, or a simulated one, that can become larger.
pub(crate) fn is_file(disk: &dyn Disk) -> bool {
    match disk.path() {
        Some(path) => std::fs::metadata(path).is_ok_and(|m| m.is_file()),
        None => true,
    }
}

/// Reads the meta log, whose first block has number `first` where that is known, into the index,
/// several segments at a time.
fn load(
    disk: &dyn Disk,
    space: &Space,
    (id, first): (u64, Option<u64>),
    index: &Index,
    meta: &mut MetaLog,
) -> Result<()> {
    let parts: Vec<MetaPart> = meta.parts.iter().copied().collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(parts.clone());
    let numbers = Mutex::new(vec![0..0; parts.len()]);
    let failure = Mutex::new(None);
    let read = || {
        loop {
            let at = next.fetch_add(1, Relaxed);
            let Some(part) = parts.get(at) else { return };
            let mut entries = 0;
            let result = read_part(disk, space, id, part, &mut |seq, key, lsn, reference| {
                entries += 1;
                index.load(key, lsn, seq as u32, reference);
            });
            let read = match result {
                Ok(read) => read,
                Err(error) => {
                    failure.lock().get_or_insert(error);
                    return;
                }
            };
            let mut found = found.lock();
            (found[at].entries, found[at].payload) = (entries, read.payload);
            found[at].first = read.numbers.start;
            numbers.lock()[at] = read.numbers;
        }
    };
    thread::scope(|scope| {
        for _ in 1..READERS.min(parts.len()) {
            scope.spawn(read);
        }
        read();
    });
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    let mut last = first;
    for (part, numbers) in parts.iter().zip(numbers.into_inner()) {
        if numbers.is_empty() {
            continue;
        }
        if last.is_some_and(|last| last != numbers.start) {
            let message = "read the store's index: blocks of the meta log are missing, or older \
                           than what was written last; repair it";
            let offset = space.segment_start(part.segment);
            return Err(Error::new(ErrorKind::Corrupted, message).with_offset(offset));
        }
        last = Some(numbers.end);
    }
    meta.next_seq = last.unwrap_or(0);
    meta.parts = found.into_inner().into();
    Ok(())
}

/// Applies the records after the checkpoint.
fn replay(
    disk: &dyn Disk,
    log: &WalConfig,
    start: &WalStart,
    index: &Index,
    inline_bytes: &Tally,
) -> Result<WalStart> {
    let recovered = wal::recover(disk, log, start, &mut |lsn, kind, payload, _| {
        let Some((key, reference)) = parse(kind, payload) else {
            let message = format!("record {lsn} of the log is of no known kind ({kind})");
            return Err(Error::new(ErrorKind::Corrupted, message));
        };
        let known = index.with(key, |entry| entry.is_some_and(|e| e.lsn >= lsn));
        if !known {
            let replaced = index.apply(key, lsn, reference, |_| false);
            inline_bytes.add_held(replaced.inline_bytes);
        }
        Ok(())
    })?;
    Ok(recovered.next)
}

/// Reads lists of runs, counts live bytes, and lets deleted keys of the meta log go.
///
/// # Errors
/// `Corrupted` for a value outside of the store. What reading a list answers, unless the list is
/// damaged: without it the value's runs would count as free, and be written over. The first error
/// ends it.
pub(crate) fn count_live(disk: &dyn Disk, space: &Space, id: u64, index: &Index) -> Result<()> {
    let mut gone = Vec::new();
    index.try_for_each_mut(&mut |entry| {
        if let Reference::Unread {
            len,
            offset,
            bytes,
            crc,
        } = entry.reference
            && space.segment_of(offset).is_some()
        {
            match read_manifest(disk, id, (len, offset, bytes, crc)) {
                Ok(list) => entry.reference = Reference::Manifest(Arc::new(list)),
                // The value is lost; getting it says so.
                Err(error) if error.kind() == ErrorKind::Corrupted => {}
                Err(error) => return Err(error),
            }
        }
        if entry.reference.is_tombstone() && !entry.dirty {
            gone.push((entry.key.clone(), entry.lsn));
        }
        let (key_len, mut outside) = (entry.key.bytes().len(), None);
        entry.reference.pieces(key_len, &mut |offset, bytes| {
            if space.segment_of(offset).is_none() || space.segment_of(offset + bytes - 1).is_none()
            {
                outside = Some(offset);
            }
        });
        if let Some(offset) = outside {
            let message = "open a store: a value lies outside of it; it was cut, or it is damaged";
            return Err(Error::new(ErrorKind::Corrupted, message).with_offset(offset));
        }
        space.born(&entry.reference, key_len);
        space.hold(&entry.reference, key_len);
        Ok(())
    })?;
    for (key, lsn) in gone {
        index.forget(key.bytes(), lsn);
    }
    space.adopt_live()
}
