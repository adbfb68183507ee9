//! What a window of values needs: where the chunks of each land, the transfers that bring them, and
//! the checksums that they should have then.

use super::{Get, Got};
use crate::base::{align_down, align_up};
use crate::engine::{Buffer, MemoryKind};
use crate::kv::store::Located;

/// Parts of scratch memory begin at multiples of this.
const SCRATCH_STEP: u64 = 4096;

/// Where a part of a value lands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In the caller's buffer.
    Caller,
    /// In scratch memory, to be copied.
    Scratch,
}

/// Whole chunks of a value, in one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// First byte of the value, and behind the last.
    pub from: u64,
    pub to: u64,
    pub place: Place,
    /// Offset in that place.
    pub at: u64,
}

/// One value to move and verify.
pub(super) struct Job {
    /// Which of the caller's.
    pub index: usize,
    pub located: Located,
    pub got: Got,
    pub parts: Vec<Part>,
    pub failed: bool,
}

/// A transfer to be, and the jobs of a window that it serves.
pub(super) struct Move<'a> {
    pub file_offset: u64,
    pub buffer: &'a Buffer,
    pub buffer_offset: u64,
    pub size: u64,
    pub jobs: (usize, usize),
}

/// Jobs that move together.
pub(super) struct Window {
    pub jobs: Vec<Job>,
    pub scratch: Option<Buffer>,
    /// Bytes of parts, and of the scratch memory among them.
    pub bytes: u64,
    pub scratch_bytes: u64,
}

impl Window {
    pub fn new() -> Self {
        Self {
            jobs: Vec::new(),
            scratch: None,
            bytes: 0,
            scratch_bytes: 0,
        }
    }

    /// Plans where the chunks of a value land.
    pub fn add(&mut self, mut job: Job, get: &Get<'_>, on_gpu: bool) {
        let chunk = job.located.chunk;
        let (first, stop) = (job.located.start, job.located.start + job.located.len);
        let end = get.offset + job.got.bytes;
        let head = if get.offset > first {
            (first + chunk).min(stop)
        } else {
            first
        };
        let tail = if end < stop {
            align_down(end, chunk).max(head)
        } else {
            stop
        };
        let edges = head > first || tail < stop;
        // The device cannot copy ordinary memory: the host does such a range.
        if edges && on_gpu && get.to.kind() == MemoryKind::Pageable {
            job.failed = true;
            self.jobs.push(job);
            return;
        }
        for (from, to) in [(first, head), (tail, stop)] {
            if from < to {
                job.parts.push(Part {
                    from,
                    to,
                    place: Place::Scratch,
                    at: self.scratch_bytes,
                });
                let size = align_up(to - from, SCRATCH_STEP).unwrap_or(to - from);
                self.scratch_bytes += size;
                self.bytes += size;
            }
        }
        if head < tail {
            job.parts.push(Part {
                from: head,
                to: tail,
                place: Place::Caller,
                at: get.to_offset + (head - get.offset),
            });
            self.bytes += tail - head;
        }
        self.jobs.push(job);
    }

    /// The buffer that a part lands in.
    fn buffer<'a>(&'a self, part: &Part, get: &Get<'a>) -> Option<&'a Buffer> {
        match part.place {
            Place::Caller => Some(get.to),
            Place::Scratch => self.scratch.as_ref(),
        }
    }
}

/// The transfers of a window, in the order of the file, adjacent ones joined.
pub(super) fn moves<'a>(
    window: &'a Window,
    gets: &[Get<'a>],
    jobs: &mut Vec<usize>,
) -> Vec<Move<'a>> {
    let mut all: Vec<(Move<'a>, usize)> = Vec::new();
    for (number, job) in window
        .jobs
        .iter()
        .enumerate()
        .filter(|(_, job)| !job.failed)
    {
        for part in &job.parts {
            let Some(buffer) = window.buffer(part, &gets[job.index]) else {
                continue;
            };
            let mut at = job.located.start;
            for piece in &job.located.pieces {
                let (from, to) = (part.from.max(at), part.to.min(at + piece.len));
                if from < to {
                    let one = Move {
                        file_offset: piece.offset + (from - at),
                        buffer,
                        buffer_offset: part.at + (from - part.from),
                        size: to - from,
                        jobs: (0, 0),
                    };
                    all.push((one, number));
                }
                at += piece.len;
            }
        }
    }
    all.sort_by_key(|(m, _)| m.file_offset);
    let mut joined: Vec<Move<'a>> = Vec::with_capacity(all.len());
    for (mut one, job) in all {
        jobs.push(job);
        one.jobs = (jobs.len() - 1, jobs.len());
        match joined.last_mut() {
            Some(last) if follows(last, &one) => {
                last.size += one.size;
                last.jobs.1 = jobs.len();
            }
            _ => joined.push(one),
        }
    }
    joined
}

fn follows(last: &Move<'_>, next: &Move<'_>) -> bool {
    let same =
        last.buffer.address() == next.buffer.address() && last.buffer.size() == next.buffer.size();
    same && last.file_offset + last.size == next.file_offset
        && last.buffer_offset + last.size == next.buffer_offset
}

/// Ranges to verify, the checksums that they should have, and for each job its first of them.
pub(super) type Checks<'a> = (Vec<(&'a Buffer, u64, u64)>, Vec<u32>, Vec<(u64, usize)>);

/// What to verify of jobs from `first` on whose checksums cover `chunk` bytes each.
pub(super) fn checks<'a>(
    window: &'a Window,
    gets: &[Get<'a>],
    chunk: u64,
    first: usize,
) -> Checks<'a> {
    let mut ranges: Vec<(&Buffer, u64, u64)> = Vec::new();
    let (mut crcs, mut starts) = (Vec::new(), Vec::new());
    for (number, job) in window.jobs.iter().enumerate().skip(first) {
        if job.failed || job.located.chunk != chunk {
            continue;
        }
        starts.push((crcs.len() as u64, number));
        for part in &job.parts {
            let Some(buffer) = window.buffer(part, &gets[job.index]) else {
                continue;
            };
            let (from, to) = (part.from - job.located.start, part.to - job.located.start);
            let of_part = (from / chunk) as usize..to.div_ceil(chunk) as usize;
            crcs.extend(job.located.crcs.get(of_part).unwrap_or_default());
            let size = to - from;
            match ranges.last_mut() {
                Some((last, at, bytes))
                    if last.address() == buffer.address()
                        && *at + *bytes == part.at
                        && bytes.is_multiple_of(chunk) =>
                {
                    *bytes += size;
                }
                _ => ranges.push((buffer, part.at, size)),
            }
        }
    }
    (ranges, crcs, starts)
}
