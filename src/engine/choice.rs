//! Which way a piece goes.
//!
//! Reads of resident pages are copied out of the page cache, all others go around it; large
//! aligned writes go around it on file systems where that pays. Where cuFile can go direct, `trial`
//! measures it against the bounce path.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use super::file::FileInner;
use super::job::{Job, Terms};
use super::plan::{Entry, Piece, WINDOW};
use super::shared::Shared;
use super::transfer::Transfer;
use crate::config::PathPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Operation, Residency, cufile, residency};

/// What carries out one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Buffered,
    Direct,
    CuFile,
}

/// Writes smaller than this go through the page cache.
const DIRECT_WRITE_MIN: u64 = 64 << 10;
/// A write that extends its file by this much sets the file's end before the bytes arrive.
const EXTEND_MIN: u64 = 4 << 20;
/// File systems on which writes around the page cache are faster than through it. Network file
/// systems lose (Lustre: 1.9 to 5.5 times, NVIDIA-NeMo/Curator#2327), memory ones gain nothing.
const DIRECT_WRITE_FILE_SYSTEMS: &[&str] = &["ext4", "xfs", "btrfs", "f2fs"];
/// After this many small reads in a row of the same temperature the page cache is asked only now
/// and then.
const STREAK: i32 = 64;
/// Bytes that a warm file gives between two questions: small reads of it take little longer than
/// the question, large ones much longer.
const WARM_RECHECK: u64 = 8 << 20;
/// Reads that a cold file gives between two questions: each takes much longer than the question.
const COLD_RECHECK: u64 = 16;

const UNKNOWN: u8 = 0;
const WARM: u8 = 1;
const COLD: u8 = 2;
const MIXED: u8 = 3;

/// Checks the demanded path at submission, while an error can still be answered at once.
pub(super) fn settle_policy(
    shared: &Shared,
    transfers: &[Transfer],
    terms: &mut Terms,
    fallbacks: &mut u32,
) -> Result<()> {
    let refused = match terms.policy {
        PathPolicy::Auto | PathPolicy::Buffered => return Ok(()),
        PathPolicy::Direct => transfers
            .iter()
            .find(|t| t.file.0.direct().is_none())
            .map(no_direct),
        PathPolicy::CuFile if terms.checksum => Some(no_check()),
        PathPolicy::CuFile => cufile_refusal(shared, transfers),
    };
    match refused {
        None => Ok(()),
        Some(error) if terms.fallback => {
            drop(error);
            *fallbacks += 1;
            terms.policy = PathPolicy::Auto;
            Ok(())
        }
        Some(error) => Err(error),
    }
}

fn forbidden(reason: &Error) -> Error {
    Error::new(
        ErrorKind::FallbackForbidden,
        format!("{reason}; allow fallback or choose another path"),
    )
    .with_cufile(reason.cufile())
}

fn no_check() -> Error {
    let what = "cuFile moves bytes past the processor, which so cannot compute a checksum";
    forbidden(&Error::new(ErrorKind::NotSupported, what))
}

fn no_direct(transfer: &Transfer) -> Error {
    let path = transfer.file.path();
    let why = transfer.file.capabilities().direct_reason.clone();
    let why = why.unwrap_or_else(|| "it refused an aligned direct request".to_owned());
    let what = format!(
        "{} cannot be read or written around the page cache: {why}",
        path.display()
    );
    forbidden(&Error::new(ErrorKind::NotSupported, what)).with_path(path)
}

fn cufile_refusal(shared: &Shared, transfers: &[Transfer]) -> Option<Error> {
    for t in transfers {
        let gates = cufile::gates(t.file.capabilities(), !shared.device.is_host());
        if let Some(gate) = gates.iter().find(|g| !g.passed) {
            let what = format!("cuFile cannot be used here: {}; {}", gate.detail, gate.fix);
            let error = Error::new(ErrorKind::CuFileUnavailable, what);
            return Some(forbidden(&error).with_path(t.file.path()));
        }
        if let Err(error) = t.file.0.cufile() {
            return Some(forbidden(&error).with_path(t.file.path()));
        }
    }
    None
}

/// Reserves the blocks of a large write that extends its file, so that a full disk answers before
/// a byte moves, and so that direct writes do not wait for each other to move the file's end.
pub(super) fn reserve(transfer: &Transfer) -> Result<()> {
    if transfer.operation != Operation::Write || transfer.size < DIRECT_WRITE_MIN {
        return Ok(());
    }
    let descriptors = &transfer.file.0.descriptors;
    let end = transfer.file_offset.saturating_add(transfer.size);
    if !descriptors.mode().write || end <= descriptors.size()? {
        return Ok(());
    }
    match descriptors.reserve(transfer.file_offset, transfer.size) {
        // Direct writes that move the file's end go one at a time; inside it, side by side.
        Ok(()) if transfer.size >= EXTEND_MIN => descriptors.set_size(end),
        Err(error) if error.kind() == ErrorKind::NoSpace => Err(error),
        // A file system that cannot reserve still takes the write.
        _ => Ok(()),
    }
}

/// Whether a piece goes around the page cache through the kernel's queue.
pub(super) fn goes_direct(job: &Job, piece: Piece) -> bool {
    let entry = &job.entries[piece.entry];
    if entry.file.direct().is_none() {
        return false;
    }
    match (job.terms.policy, entry.operation) {
        (PathPolicy::CuFile | PathPolicy::Buffered, _) => false,
        (PathPolicy::Direct, _) => true,
        (PathPolicy::Auto, Operation::Read) => {
            let cufile = may_use_cufile(job, entry)
                && job.shared.trials.next(&job.shared, &entry.file) == Way::CuFile;
            !cufile && !is_warm(job, entry, piece)
        }
        (PathPolicy::Auto, Operation::Write) => writes_directly(&entry.file, entry.size),
    }
}

/// The way of a piece that is about to start.
pub(super) fn choose(job: &Job, piece: Piece) -> Way {
    let entry = &job.entries[piece.entry];
    if job.terms.policy == PathPolicy::CuFile {
        return Way::CuFile;
    }
    if may_use_cufile(job, entry) && entry.file.direct().is_some() {
        return match is_warm(job, entry, piece) {
            true => Way::Buffered,
            false => job
                .shared
                .trials
                .choose(&job.shared, &entry.file, piece.size),
        };
    }
    match goes_direct(job, piece) {
        true => Way::Direct,
        false => Way::Buffered,
    }
}

/// Whether cuFile is a candidate where nobody has asked for it.
fn may_use_cufile(job: &Job, entry: &Entry) -> bool {
    job.terms.policy == PathPolicy::Auto
        && entry.operation == Operation::Read
        && !entry.host_memory
        && !job.terms.checksum
}

/// Whether a write of `size` bytes should go around the page cache.
pub(super) fn writes_directly(file: &FileInner, size: u64) -> bool {
    let caps = file.descriptors.capabilities();
    size >= DIRECT_WRITE_MIN
        && (DIRECT_WRITE_FILE_SYSTEMS.contains(&caps.file_system)
            || caps.kind == crate::io::FileKind::BlockDevice)
}

fn is_warm(job: &Job, entry: &Entry, piece: Piece) -> bool {
    let start = entry.file_offset + piece.position;
    if entry.windows.is_empty() {
        return if job.entries.len() > 1 {
            small_is_warm(&entry.file, start, piece.size)
        } else {
            range_is_warm(&entry.file, start, piece.size)
        };
    }
    let window = ((entry.file_offset % WINDOW + piece.position) / WINDOW) as usize;
    let Some(state) = entry.windows.get(window) else {
        return false;
    };
    let known = match state.load(Relaxed) {
        UNKNOWN => {
            let found = look_at_window(&entry.file, start - start % WINDOW);
            state.store(found, Relaxed);
            found
        }
        known => known,
    };
    match known {
        WARM => true,
        COLD => false,
        _ => range_is_warm(&entry.file, start, piece.size),
    }
}

fn look_at_window(file: &FileInner, start: u64) -> u8 {
    match residency(file.descriptors.buffered(), start, WINDOW) {
        Ok(found) if found.cached == 0 => COLD,
        // The window may reach past the end of the file, so only a full one is surely warm.
        Ok(found) if found.cached >= found.pages => WARM,
        Ok(_) => MIXED,
        Err(_) => COLD,
    }
}

/// Whether most of a range is in the page cache, or some of it is newer there than on the device.
pub(super) fn range_is_warm(file: &FileInner, start: u64, size: u64) -> bool {
    residency(file.descriptors.buffered(), start, size).is_ok_and(|r| mostly_resident(&r))
}

fn mostly_resident(found: &Residency) -> bool {
    // Asking the device for a few missing pages costs more than reading the rest again.
    found.dirty > 0 || found.cached * 16 >= found.pages * 15
}

/// How warm the page cache was for the small reads of a file.
#[derive(Default)]
pub(super) struct Warmth {
    /// Answers in a row that were warm (positive) or cold (negative), up to `STREAK`.
    streak: AtomicI32,
    /// What was read since the last question: `WARM_RECHECK` makes the next one due.
    unasked: AtomicU64,
}

/// As `range_is_warm` for small reads: a file that has been cold or warm for a while is asked only
/// now and then. Either way is right, one of them is slower.
#[inline]
pub(super) fn small_is_warm(file: &FileInner, start: u64, size: u64) -> bool {
    let known = file.warmth.streak.load(Relaxed);
    if known.abs() >= STREAK {
        let warm = known > 0;
        let cold_weight = WARM_RECHECK / COLD_RECHECK;
        if file.warmth.put_off(if warm { size } else { cold_weight }) {
            return warm;
        }
        file.warmth.unasked.store(0, Relaxed);
    }
    ask_again(file, start, size)
}

/// Whether a small read goes through the page cache without a question.
#[inline]
pub(super) fn is_known_warm(file: &FileInner, size: u64) -> bool {
    file.is_buffered || (file.warmth.streak.load(Relaxed) >= STREAK && file.warmth.put_off(size))
}

impl Warmth {
    /// Counts a read that needs no question; false when the next question is due.
    #[inline]
    fn put_off(&self, weight: u64) -> bool {
        let sum = self.unasked.load(Relaxed) + weight;
        let early = sum < WARM_RECHECK;
        if early {
            // Threads that lose each other's counts only put the next question off.
            self.unasked.store(sum, Relaxed);
        }
        early
    }
}

#[cold]
fn ask_again(file: &FileInner, start: u64, size: u64) -> bool {
    let streak = &file.warmth.streak;
    let warm = range_is_warm(file, start, size);
    let step = if warm { 1 } else { -1 };
    let known = streak.load(Relaxed);
    let same = known.signum() != -step;
    let next = if same { known + step } else { step };
    streak.store(next.clamp(-STREAK, STREAK), Relaxed);
    warm
}
