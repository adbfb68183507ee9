//! Ranges of bytes through the cache: copied out of pages and into pages.

use std::sync::atomic::Ordering::Relaxed;

use super::ahead::Ahead;
use super::core::Pinned;
use super::demand::Source;
use super::handle::{check_offset, check_writable};
use super::{Cache, Page};
use crate::engine::{Buffer, Copy, File};
use crate::error::{Error, ErrorKind, Result};

/// Pages that one copy takes together, all pinned meanwhile.
const TOGETHER: usize = 16;

/// A part of one page.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Where the page is in the file, bytes.
    page: u64,
    /// Where the part is in the page, bytes.
    within: u64,
    size: u64,
    /// Where the part is in the range, bytes.
    done: u64,
}

impl Cache {
    /// The parts of pages that a range consists of.
    fn parts(&self, offset: u64, size: u64) -> impl Iterator<Item = Part> + use<> {
        let page_size = self.0.core.page_size();
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == size {
                return None;
            }
            let at = offset + done;
            let within = at & (page_size - 1);
            let part = Part {
                page: at - within,
                within,
                size: (page_size - within).min(size - done),
                done,
            };
            done += part.size;
            Some(part)
        })
    }

    /// Copies bytes of a file to a buffer, through the cache: absent pages are read. Answers how
    /// many bytes there were, fewer than `size` at the end of the file.
    ///
    /// # Errors
    /// As `get`, and `OutOfRange` when the range passes the buffer's end. The bytes of the buffer
    /// are unspecified then.
    pub fn read(
        &self,
        file: &File,
        offset: u64,
        to: &Buffer,
        to_offset: u64,
        size: u64,
    ) -> Result<u64> {
        check_range(offset, to, to_offset, size)?;
        let core = &self.0.core;
        core.files.tell(file)?;
        let pages = offset >> core.shift..(offset + size).div_ceil(core.page_size());
        if pages.end - pages.start > 1 {
            // Errors come back from the pages below, one by one.
            let mut ahead = Ahead::new(core, file, true, core.frame_count().div_ceil(4));
            let end = file.size()?.div_ceil(core.page_size());
            let _ = ahead.start(pages.start..pages.end.min(end));
            core.counters.misses.fetch_add(ahead.started, Relaxed);
        }
        let mut held: Vec<(Page, Copy)> = Vec::with_capacity(TOGETHER);
        let mut total = 0;
        for part in self.parts(offset, size) {
            let page = match self.get(file, part.page) {
                // Those that this call holds may be what is missing.
                Err(error) if error.kind() == ErrorKind::AllPinned && !held.is_empty() => {
                    self.carry_out(&mut held)?;
                    self.get(file, part.page)?
                }
                other => other?,
            };
            let there = self.bytes_there(file, &page, part)?;
            total += there;
            let copy = Copy {
                from: core.memory.clone(),
                from_offset: page.address() - core.address + part.within,
                to: to.clone(),
                to_offset: to_offset + part.done,
                size: there,
            };
            held.push((page, copy));
            if held.len() == TOGETHER {
                self.carry_out(&mut held)?;
            }
            if there < part.size {
                break;
            }
        }
        self.carry_out(&mut held)?;
        Ok(total)
    }

    /// Bytes of a part that the file has. What a page lacks before the end of the file, since
    /// the file grew behind it, is zero there and here.
    fn bytes_there(&self, file: &File, page: &Page, part: Part) -> Result<u64> {
        let valid = u64::from(page.size()).saturating_sub(part.within);
        if valid >= part.size {
            return Ok(part.size);
        }
        let end = self.0.core.files.end_of(file)?;
        let changed = end.saturating_sub(part.page + part.within);
        Ok(valid.max(changed).min(part.size))
    }

    fn carry_out(&self, held: &mut Vec<(Page, Copy)>) -> Result<()> {
        let copies: Vec<Copy> = held.iter().map(|(_, copy)| copy.clone()).collect();
        let result = self.0.core.context.copy(&copies);
        held.clear();
        result
    }

    /// Copies bytes of a buffer into the pages of a range of a file and marks them dirty. Pages
    /// that are only touched in part are read first. The file grows where needed, when the pages
    /// are written.
    ///
    /// # Errors
    /// As `get`, `ReadOnly`, and `OutOfRange` when the range passes the buffer's end. Pages before
    /// the one that failed are changed.
    pub fn put(
        &self,
        file: &File,
        offset: u64,
        from: &Buffer,
        from_offset: u64,
        size: u64,
    ) -> Result<()> {
        check_range(offset, from, from_offset, size)?;
        check_writable(file)?;
        let core = &self.0.core;
        core.files.tell(file)?;
        for part in self.parts(offset, size) {
            let key = core.key(file, part.page)?;
            let at = from_offset + part.done;
            let source = match part.size == core.page_size() {
                true => Source::Buffer(from, at),
                false => Source::File,
            };
            let pinned = core.obtain(file, key, source)?;
            let page = Page::new(self.1, core.held(pinned), part.page, true);
            if matches!(source, Source::Buffer(..)) && pinned.fresh {
                continue;
            }
            self.overwrite(pinned, part, from, at)?;
            drop(page);
        }
        Ok(())
    }

    fn overwrite(&self, pinned: Pinned, part: Part, from: &Buffer, at: u64) -> Result<()> {
        let core = &self.0.core;
        // Dirty before the copy: the pin keeps it so until the bytes are there.
        core.change(pinned.slot, (part.within + part.size) as u32);
        core.context.copy(&[Copy {
            from: from.clone(),
            from_offset: at,
            to: core.memory.clone(),
            to_offset: core.place(pinned.frame) + part.within,
            size: part.size,
        }])
    }
}

fn check_range(offset: u64, buffer: &Buffer, buffer_offset: u64, size: u64) -> Result<()> {
    let end = buffer_offset.checked_add(size);
    if end.is_none_or(|end| end > buffer.size()) {
        let text = format!(
            "{size} bytes at offset {buffer_offset} pass the end of a buffer of {} bytes",
            buffer.size()
        );
        return Err(Error::new(ErrorKind::OutOfRange, text));
    }
    check_offset(offset.saturating_add(size))
}
