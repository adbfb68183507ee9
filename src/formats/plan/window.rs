//! Plans larger than memory: read window by window, the pieces in the order of the plan.

use std::ops::ControlFlow;

use super::load::{Load, ReadOptions};
use super::{Piece, Plan};
use crate::engine::{Buffer, File, MemoryKind, Ticket};
use crate::error::{Error, ErrorKind, Result};

/// Smallest window, bytes.
const WINDOW_MIN: u64 = 64 << 10;
/// Parts of pieces begin at multiples of this in a window, as Arrow wants its buffers.
const ALIGN: u64 = 64;
/// Most parts of a window.
const PARTS_MAX: usize = 64 << 10;

/// A piece, or a part of one, in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowPart {
    /// Which piece of the plan.
    pub piece: usize,
    /// Where in the piece it begins, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Where in the window's memory it begins, bytes.
    pub at: u64,
}

/// What is in memory at once of a plan that is streamed.
#[derive(Debug)]
pub struct Window<'a> {
    /// The memory.
    pub buffer: &'a Buffer,
    /// What it holds, in the order of the plan. All of a piece comes before the next one.
    pub parts: &'a [WindowPart],
}

/// What the next window holds.
struct Next {
    plan: Plan,
    parts: Vec<WindowPart>,
}

impl Plan {
    /// Reads all pieces in the order in which they were added, in at most `memory` bytes of
    /// device memory (two windows: while `work` has one, the next is read), and calls `work` with
    /// each window. Where pieces go in the destination does not matter.
    ///
    /// Bytes that `work` got. It says `Break` to stop.
    ///
    /// # Errors
    /// `InvalidArgument` for less than 128 KiB of memory; as `Load::read`; what `work` says.
    pub fn stream(
        &self,
        file: &File,
        memory: u64,
        options: &ReadOptions,
        mut work: impl FnMut(&Window<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<u64> {
        let size = memory / 2 / 4096 * 4096;
        if size < WINDOW_MIN {
            let message = format!(
                "stream a plan through {memory} bytes; give at least {}",
                2 * WINDOW_MIN
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let context = file.context();
        let mut windows = Windows {
            pieces: self.pieces(),
            size,
            index: 0,
            offset: 0,
        };
        let mut free: Vec<Buffer> = Vec::new();
        let mut before: Option<(Ticket, Buffer, Vec<WindowPart>)> = None;
        let mut bytes = 0;
        loop {
            let next = match windows.next()? {
                Some(next) => {
                    let buffer = match free.pop() {
                        Some(buffer) => buffer,
                        None => context.alloc(MemoryKind::Device, size)?,
                    };
                    let load = Load::new(file, next.plan);
                    let ticket = load.submit(&buffer, 0, options)?;
                    Some((ticket, buffer, next.parts))
                }
                None => None,
            };
            let Some((ticket, buffer, parts)) = std::mem::replace(&mut before, next) else {
                match before {
                    Some(_) => continue,
                    None => return Ok(bytes),
                }
            };
            ticket.wait(None)?;
            drop(ticket);
            bytes += parts.iter().map(|part| part.size).sum::<u64>();
            let window = Window {
                buffer: &buffer,
                parts: &parts,
            };
            if work(&window)?.is_break() {
                return Ok(bytes);
            }
            free.push(buffer);
        }
    }
}

impl Load {
    /// As `Plan::stream`, file after file; `work` also gets which of `parts` it is.
    ///
    /// # Errors
    /// As `Plan::stream`.
    pub fn stream(
        &self,
        memory: u64,
        options: &ReadOptions,
        mut work: impl FnMut(usize, &Window<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<u64> {
        let mut bytes = 0;
        for (number, (file, plan)) in self.parts().iter().enumerate() {
            let mut stopped = false;
            bytes += plan.stream(file, memory, options, |window| {
                let flow = work(number, window)?;
                stopped = flow.is_break();
                Ok(flow)
            })?;
            if stopped {
                break;
            }
        }
        Ok(bytes)
    }
}

/// Cuts a plan into windows.
struct Windows<'a> {
    pieces: &'a [Piece],
    size: u64,
    index: usize,
    /// Bytes of the next piece that earlier windows hold.
    offset: u64,
}

impl Windows<'_> {
    fn next(&mut self) -> Result<Option<Next>> {
        let mut plan = Plan::new();
        let mut parts = Vec::new();
        while let Some(piece) = self.pieces.get(self.index)
            && parts.len() < PARTS_MAX
        {
            let left = piece.size - self.offset;
            let from = piece.file_offset + self.offset;
            let mut trial = plan.size();
            // Where it would go, at the dearest.
            trial = trial.saturating_add(ALIGN + super::DIRECT);
            let room = self.size.saturating_sub(trial);
            // A piece that fits into a window of its own is not cut for the rest of another.
            let fits = left <= room;
            let own = left.saturating_add(ALIGN + super::DIRECT) <= self.size;
            if !fits && !parts.is_empty() && (own || room < WINDOW_MIN / 2) {
                break;
            }
            let size = left.min(room);
            let at = match from % ALIGN {
                0 => plan.push_congruent(from, size, ALIGN)?,
                _ => plan.push(from, size, ALIGN)?,
            };
            parts.push(WindowPart {
                piece: self.index,
                offset: self.offset,
                size,
                at,
            });
            self.offset += size;
            if self.offset == piece.size {
                (self.index, self.offset) = (self.index + 1, 0);
            }
        }
        Ok((!parts.is_empty()).then_some(Next { plan, parts }))
    }
}
