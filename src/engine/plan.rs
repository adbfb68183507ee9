//! Checks transfers and cuts them into pieces.
//!
//! Pieces end on multiples of the piece size in the file, so only the first and the last piece of
//! a transfer can be unaligned, and the aligned range around any piece is no larger than a piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::file::FileInner;
use super::transfer::Transfer;
use super::{Buffer, Path};
use crate::base::limits;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Operation;

/// Residency is looked up in windows of this many bytes.
pub(super) const WINDOW: u64 = 16 << 20;

/// One transfer of a job.
pub(super) struct Entry {
    pub(super) operation: Operation,
    pub(super) file: Arc<FileInner>,
    pub(super) buffer: Buffer,
    pub(super) file_offset: u64,
    pub(super) address: u64,
    /// Bytes that will be moved: what was asked for, less what lies beyond the file's end.
    pub(super) size: u64,
    /// Bytes that the file promised when the job was made; fewer means that it shrank.
    pub(super) promised: u64,
    pub(super) host_memory: bool,
    piece_size: u64,
    head: u64,
    pub(super) first_piece: u64,
    pub(super) piece_count: u64,
    /// Where the file ended, as a position in this entry.
    pub(super) short_at: AtomicU64,
    pub(super) failed: AtomicBool,
    pub(super) paths: AtomicU32,
    /// CRC32C of each piece, when asked for.
    pub(super) checks: Box<[AtomicU32]>,
    /// What is known of the page cache, a byte a window.
    pub(super) windows: Box<[AtomicU8]>,
}

/// A part of a transfer that one path moves at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) entry: usize,
    /// Which piece of its entry.
    pub(super) index: u64,
    /// Offset in the entry, bytes.
    pub(super) position: u64,
    pub(super) size: u64,
}

impl Entry {
    /// Checks a transfer against its buffer and file, and plans it.
    pub(super) fn new(transfer: Transfer, piece_size: u64, checksum: bool) -> Result<Self> {
        let Transfer {
            operation,
            file,
            file_offset,
            buffer,
            buffer_offset,
            size,
        } = transfer;
        check_range(
            &file.0,
            operation,
            file_offset,
            &buffer,
            buffer_offset,
            size,
        )?;
        let file = file.0;
        let (size, promised) = match operation {
            Operation::Write => (size, size),
            Operation::Read if !file.descriptors.capabilities().sized => (size, 0),
            Operation::Read => {
                let left = file
                    .descriptors
                    .size()?
                    .saturating_sub(file_offset)
                    .min(size);
                (left, left)
            }
        };
        let head = (piece_size - file_offset % piece_size).min(size);
        let piece_count = if size == 0 {
            0
        } else {
            1 + (size - head).div_ceil(piece_size)
        };
        let checks = if checksum { piece_count } else { 0 };
        let windows = if operation == Operation::Read && piece_count > 1 {
            (file_offset % WINDOW + size).div_ceil(WINDOW)
        } else {
            0
        };
        Ok(Self {
            operation,
            address: buffer.address() + buffer_offset,
            host_memory: buffer.is_host_memory(),
            file,
            buffer,
            file_offset,
            size,
            promised,
            piece_size,
            head,
            first_piece: 0,
            piece_count,
            short_at: AtomicU64::new(u64::MAX),
            failed: AtomicBool::new(false),
            paths: AtomicU32::new(0),
            checks: (0..checks).map(|_| AtomicU32::new(0)).collect(),
            windows: (0..windows).map(|_| AtomicU8::new(0)).collect(),
        })
    }

    /// The piece with this index in the entry.
    pub(super) fn piece(&self, entry: usize, index: u64) -> Piece {
        if index == 0 {
            return Piece {
                entry,
                index,
                position: 0,
                size: self.head,
            };
        }
        let position = self.head + (index - 1) * self.piece_size;
        Piece {
            entry,
            index,
            position,
            size: self.piece_size.min(self.size - position),
        }
    }

    /// Bytes from the start of the entry that really moved.
    pub(super) fn bytes(&self) -> u64 {
        self.size.min(self.short_at.load(Relaxed))
    }

    pub(super) fn note_path(&self, path: Path) {
        let bit = 1 << path as u32;
        if self.paths.load(Relaxed) & bit == 0 {
            self.paths.fetch_or(bit, Relaxed);
        }
    }
}

/// Checks everything that can be known before a byte moves.
pub(super) fn check_range(
    file: &FileInner,
    operation: Operation,
    file_offset: u64,
    buffer: &Buffer,
    buffer_offset: u64,
    size: u64,
) -> Result<()> {
    if !Arc::ptr_eq(&file.context, buffer.inner()) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "the file and the buffer belong to different contexts",
        ));
    }
    let path = file.descriptors.path();
    if file_offset
        .checked_add(size)
        .is_none_or(|end| end > limits::TRANSFER_SIZE_MAX)
    {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!(
                "{size} bytes at {file_offset} of {} pass the largest file offset, {}",
                path.display(),
                limits::TRANSFER_SIZE_MAX
            ),
        )
        .with_path(path)
        .with_offset(file_offset));
    }
    if buffer_offset
        .checked_add(size)
        .is_none_or(|end| end > buffer.size())
    {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!(
                "{size} bytes at {buffer_offset} pass the end of a buffer of {} bytes",
                buffer.size()
            ),
        )
        .with_path(path));
    }
    let mode = file.descriptors.mode();
    match operation {
        Operation::Read if !mode.read => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{} was opened for writing only; open it for reading too",
                path.display()
            ),
        )
        .with_path(path)),
        Operation::Write if !mode.write => Err(Error::new(
            ErrorKind::ReadOnly,
            format!(
                "{} was opened for reading only; open it for writing",
                path.display()
            ),
        )
        .with_path(path)),
        Operation::Write => file.check_usable(),
        Operation::Read => Ok(()),
    }
}
