//! The page table as this side sees it while no kernel runs: cleared, asked, and written back.

use parking_lot::Mutex;

use super::layout::{FRAME_CHANGING, FRAME_FREE, Layout, control};
use super::ring;
use crate::engine::{Buffer, Context, Copy, File, MemoryKind, Operation, Options, Transfer};
use crate::error::{Error, ErrorKind, Result};

/// Pinned memory through which the table is read and cleared, bytes: half for each.
const SCRATCH: u64 = 2 << 20;
const HALF: u64 = SCRATCH / 2;
/// Pages that are written together.
const BATCH_MAX: usize = 1024;

/// The page table in device memory.
pub(super) struct Table {
    context: Context,
    memory: Buffer,
    /// The first half stays zero; the second takes what is read.
    scratch: Mutex<Buffer>,
    layout: Layout,
}

impl Table {
    /// An empty table.
    pub(super) fn new(context: &Context, layout: Layout) -> Result<Self> {
        let table = Self {
            context: context.clone(),
            memory: context.alloc(MemoryKind::Device, layout.table_bytes())?,
            scratch: Mutex::new(context.alloc(MemoryKind::Pinned, SCRATCH)?),
            layout,
        };
        table.clear()?;
        Ok(table)
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.address()
    }

    /// Forgets every page. Dirty ones were written before.
    pub(super) fn clear(&self) -> Result<()> {
        self.zero(&[(0, self.layout.table_bytes())])
    }

    /// Zeroes ranges of the table: offset and bytes each.
    fn zero(&self, ranges: &[(u64, u64)]) -> Result<()> {
        let scratch = self.scratch.lock();
        let mut copies = Vec::with_capacity(ranges.len());
        for (offset, size) in ranges {
            let mut at = 0;
            while at < *size {
                let part = HALF.min(size - at);
                copies.push(Copy {
                    from: scratch.clone(),
                    from_offset: 0,
                    to: self.memory.clone(),
                    to_offset: offset + at,
                    size: part,
                });
                at += part;
            }
        }
        self.context.copy(&copies)
    }

    /// Words of 8 bytes of the table; `offset` and `count` fit.
    fn read(&self, offset: u64, count: u64) -> Result<Vec<u64>> {
        let scratch = self.scratch.lock();
        let mut words = Vec::with_capacity(count as usize);
        let mut at = 0;
        while at < count * 8 {
            let size = HALF.min(count * 8 - at);
            self.context.copy(&[Copy {
                from: self.memory.clone(),
                from_offset: offset + at,
                to: scratch.clone(),
                to_offset: HALF,
                size,
            }])?;
            words.extend(ring::words(&scratch, HALF, size / 8));
            at += size;
        }
        Ok(words)
    }

    /// The control block.
    pub(super) fn control(&self) -> Result<Vec<u64>> {
        self.read(self.layout.control_offset(), control::HEAD as u64)
    }

    /// The first error of kernels, status and offset, which is then forgotten. 0: none.
    pub(super) fn take_error(&self) -> Result<(u32, u64)> {
        let words = self.control()?;
        let status = (words[control::ERROR_AND_FATAL] & 0xFFFF_FFFF) as u32;
        if status != 0 {
            let first = self.layout.control_offset() + control::ERROR_OFFSET as u64 * 8;
            // The offset and the status; whether nobody answers stays.
            self.zero(&[(first, 8 + 4)])?;
        }
        Ok((status, words[control::ERROR_OFFSET]))
    }

    /// Lets pages that failed be asked for again.
    pub(super) fn forget(&self, pages: &[u64]) -> Result<()> {
        let ranges: Vec<_> = pages.iter().map(|page| (page * 8, 8)).collect();
        self.zero(&ranges)
    }

    /// Frames that differ from the file: page and frame, by page.
    pub(super) fn dirty_frames(&self) -> Result<Vec<(u64, u64)>> {
        let frames = u64::from(self.layout.frames);
        let marks = self.read(self.layout.dirty_offset(), frames.div_ceil(2))?;
        let is_dirty = |frame: u64| {
            let pair = marks[(frame / 2) as usize];
            pair >> (32 * (frame % 2)) & 0xFFFF_FFFF != 0
        };
        if !(0..frames).any(is_dirty) {
            return Ok(Vec::new());
        }
        let owners = self.read(self.layout.owners_offset(), frames)?;
        let mut dirty = Vec::new();
        for frame in (0..frames).filter(|frame| is_dirty(*frame)) {
            match owners[frame as usize] {
                FRAME_FREE | FRAME_CHANGING => {}
                owner => dirty.push((owner - 1, frame)),
            }
        }
        dirty.sort_unstable();
        Ok(dirty)
    }

    /// Writes dirty frames to the file by ascending offset. What was written is clean after it,
    /// what failed is not. Bytes written.
    pub(super) fn write_dirty(&self, file: &File, frames: &Buffer) -> Result<u64> {
        let mut written = 0;
        for batch in self.dirty_frames()?.chunks(BATCH_MAX) {
            let transfers = batch
                .iter()
                .map(|(page, frame)| Transfer {
                    operation: Operation::Write,
                    file: file.clone(),
                    file_offset: page << self.layout.page_shift,
                    buffer: frames.clone(),
                    buffer_offset: frame << self.layout.page_shift,
                    size: self.layout.bytes_of(*page),
                })
                .collect();
            let ticket = self.context.submit(transfers, &Options::default())?;
            let result = ticket.wait(None);
            let (mut clean, mut failed) = (Vec::new(), None);
            for (index, (page, frame)) in batch.iter().enumerate() {
                match ticket.result(index) {
                    Some(Ok(done)) if done.bytes == self.layout.bytes_of(*page) => {
                        written += done.bytes;
                        clean.push((self.layout.dirty_offset() + frame * 4, 4));
                    }
                    Some(Err(error)) => {
                        failed.get_or_insert(error);
                    }
                    _ => {
                        failed.get_or_insert(Error::new(
                            ErrorKind::Internal,
                            format!("page {page} was written in part; flush again"),
                        ));
                    }
                }
            }
            self.zero(&clean)?;
            match (result, failed) {
                (_, Some(error)) | (Err(error), None) => return Err(error),
                (Ok(_), None) => {}
            }
        }
        Ok(written)
    }
}
