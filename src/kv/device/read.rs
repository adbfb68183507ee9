//! Reading values into memory of a context: located, moved in a few transfers, verified where they
//! land. A range that begins or ends inside a checksum's chunk has that chunk read aside, whole.

use std::sync::Arc;

use super::window::{Job, Place, Window, checks, moves};
use super::{DeviceStore, Inner, add};
use crate::engine::{Buffer, Copy, Operation, Options, Sequence, Ticket, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::wal::Lsn;

/// Bytes that are moved together; while they are verified the next ones move.
const WINDOW: u64 = 128 << 20;
/// Bytes that the host reads at a time where it steps in.
const HOST_PART: u64 = 1 << 20;

/// A value, or a range of one, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    /// Whose value.
    pub key: &'a [u8],
    /// The first byte of the value that is wanted.
    pub offset: u64,
    /// Bytes that are wanted at most; `u64::MAX`: to the end of the value.
    pub size: u64,
    /// Where they go. Ranges of one call do not overlap.
    pub to: &'a Buffer,
    /// Offset there, bytes.
    pub to_offset: u64,
}

/// What came of a `Get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    /// Bytes of the whole value.
    pub value_len: u64,
    /// Bytes that arrived, verified.
    pub bytes: u64,
    /// The number of the version they belong to; the newest at some moment of the call.
    pub version: Lsn,
}

/// A window that is being moved.
struct Moving {
    window: Window,
    ticket: Option<Result<Ticket>>,
    /// What each transfer of the ticket should bring, and for which jobs.
    expected: Vec<(u64, Vec<usize>)>,
}

type Answer = Result<Option<Got>>;

impl DeviceStore {
    /// Reads a range of a value into a buffer: bytes that arrived, verified, or `None` where there
    /// is no such key. Fewer than `size` come where the value ends. Complete for every stream when
    /// it returns; what was queued on streams for the range must be done before.
    ///
    /// # Errors
    /// `Corrupted` when the disk does not hold what was written; `OutOfRange` when the bytes do
    /// not fit into the buffer; `InvalidArgument` for a buffer of another context; `Io`, `Cuda`.
    /// The range of the buffer holds anything then.
    pub fn get_to(
        &self,
        key: &[u8],
        offset: u64,
        to: &Buffer,
        to_offset: u64,
        size: u64,
    ) -> Result<Option<u64>> {
        let got = self.get_one(&Get {
            key,
            offset,
            size,
            to,
            to_offset,
        })?;
        Ok(got.map(|got| got.bytes))
    }

    /// As `get_to`; tells the length of the whole value too.
    ///
    /// # Errors
    /// As `get_to`.
    pub fn get_one(&self, get: &Get<'_>) -> Result<Option<Got>> {
        let answer = self.get_many(std::slice::from_ref(get)).pop();
        answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "a get has no answer")))
    }

    /// Many at once: adjacent bytes are joined, all move side by side, and checksums are compared
    /// for thousands of chunks together. Each has its own answer, as `get_to` gives it.
    #[must_use]
    pub fn get_many(&self, gets: &[Get<'_>]) -> Vec<Result<Option<Got>>> {
        self.inner.get_many(gets)
    }
}

impl Inner {
    fn get_many(&self, gets: &[Get<'_>]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = Vec::with_capacity(gets.len());
        let mut windows = Vec::new();
        let mut window = Window::new();
        let mut uploads: Vec<(usize, Arc<[u8]>)> = Vec::new();
        // The ticket of the first window is under way while later keys are looked up.
        let sequence = Sequence::new();
        let mut moving: Option<Moving> = None;
        for (index, get) in gets.iter().enumerate() {
            let answer = self.locate(index, get, &mut window, &mut uploads);
            answers.push(answer);
            if window.bytes >= WINDOW {
                let full = std::mem::replace(&mut window, Window::new());
                let next = self.start(full, gets, Some(sequence));
                if let Some(before) = moving.replace(next) {
                    windows.push(self.finish(before, gets));
                }
            }
        }
        if !window.jobs.is_empty() {
            let next = self.start(window, gets, moving.is_some().then_some(sequence));
            if let Some(before) = moving.replace(next) {
                windows.push(self.finish(before, gets));
            }
        }
        if let Err(error) = self.upload(gets, &uploads) {
            for (index, _) in &uploads {
                answers[*index] = Err(error.clone());
            }
        }
        windows.extend(moving.map(|last| self.finish(last, gets)));
        for (index, answer) in windows.into_iter().flatten() {
            answers[index] = answer;
        }
        let c = &self.counters;
        add(&c.gets, gets.len() as u64);
        let came = answers
            .iter()
            .filter_map(|answer| answer.as_ref().ok()?.as_ref());
        add(&c.bytes_read, came.map(|got| got.bytes).sum());
        answers
    }

    /// Finds a value and plans its parts. Answers what will be right when they have arrived.
    fn locate(
        &self,
        index: usize,
        get: &Get<'_>,
        window: &mut Window,
        uploads: &mut Vec<(usize, Arc<[u8]>)>,
    ) -> Answer {
        if !get.to.is_of(&self.context) {
            let message = "get a value: the buffer belongs to another context";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let end = get.offset.saturating_add(get.size);
        let Some(mut located) = self.store.locate(get.key, get.offset..end)? else {
            return Ok(None);
        };
        let got = fit(get, located.value_len, located.lsn)?;
        if got.bytes == 0 {
            return Ok(Some(got));
        }
        if let Some(value) = located.inline.take() {
            uploads.push((index, value));
            return Ok(Some(got));
        }
        let job = Job {
            index,
            located,
            got,
            parts: Vec::new(),
            failed: false,
        };
        window.add(job, get, !self.context.device().is_host());
        Ok(Some(got))
    }

    fn upload(&self, gets: &[Get<'_>], uploads: &[(usize, Arc<[u8]>)]) -> Result<()> {
        if uploads.is_empty() {
            return Ok(());
        }
        let parts: Vec<(&[u8], &Buffer, u64)> = uploads
            .iter()
            .filter_map(|(index, value)| {
                let get = &gets[*index];
                let from = usize::try_from(get.offset).ok()?;
                let rest = value.get(from..)?;
                let size = usize::try_from(get.size).unwrap_or(usize::MAX);
                Some((&rest[..size.min(rest.len())], get.to, get.to_offset))
            })
            .collect();
        self.context.upload(&parts)
    }

    /// Submits what a window needs. A failure is kept for `finish`.
    fn start(&self, mut window: Window, gets: &[Get<'_>], order: Option<Sequence>) -> Moving {
        if window.scratch_bytes > 0 {
            match self.take_scratch(window.scratch_bytes) {
                Ok(buffer) => window.scratch = Some(buffer),
                Err(error) => {
                    return Moving {
                        window,
                        ticket: Some(Err(error)),
                        expected: Vec::new(),
                    };
                }
            }
        }
        let mut order_of_jobs: Vec<usize> = Vec::new();
        let moves = moves(&window, gets, &mut order_of_jobs);
        let bytes = moves.iter().map(|m| m.size).sum();
        add(&self.counters.transfers, moves.len() as u64);
        self.store.count_reads(moves.len() as u64, bytes);
        if let ([one], None) = (moves.as_slice(), order) {
            // A small read is soonest done in this thread.
            let read = self
                .file
                .read(one.file_offset, one.buffer, one.buffer_offset, one.size);
            let came = read.is_ok_and(|done| done.bytes == one.size);
            drop(moves);
            window.jobs.iter_mut().for_each(|job| job.failed |= !came);
            return Moving {
                window,
                ticket: None,
                expected: Vec::new(),
            };
        }
        let options = Options {
            sequence: order,
            ..Options::default()
        };
        let mut expected = Vec::with_capacity(moves.len());
        let mut transfers = Vec::with_capacity(moves.len());
        for m in &moves {
            expected.push((m.size, order_of_jobs[m.jobs.0..m.jobs.1].to_vec()));
            transfers.push(Transfer {
                operation: Operation::Read,
                file: self.file.clone(),
                file_offset: m.file_offset,
                buffer: m.buffer.clone(),
                buffer_offset: m.buffer_offset,
                size: m.size,
            });
        }
        drop(moves);
        let ticket = match transfers.is_empty() {
            true => None,
            false => Some(self.context.submit(transfers, &options)),
        };
        Moving {
            window,
            ticket,
            expected,
        }
    }

    /// Waits for a window, verifies it, and brings edges to their places. Answers of all its jobs.
    fn finish(&self, moving: Moving, gets: &[Get<'_>]) -> Vec<(usize, Answer)> {
        let Moving {
            mut window,
            ticket,
            expected,
        } = moving;
        let mut failure = None;
        match ticket {
            None => {}
            Some(Err(error)) => failure = Some(error),
            Some(Ok(ticket)) => {
                let whole = ticket.wait(None);
                for (number, (size, jobs)) in expected.iter().enumerate() {
                    let came = match ticket.result(number) {
                        Some(Ok(done)) => done.bytes == *size,
                        Some(Err(_)) => false,
                        None => whole.is_ok(),
                    };
                    if !came {
                        jobs.iter().for_each(|job| window.jobs[*job].failed = true);
                    }
                }
            }
        }
        let done = match failure {
            Some(error) => Err(error),
            None => self
                .verify(&mut window, gets)
                .and_then(|()| self.place_edges(&window, gets)),
        };
        if let Some(buffer) = window.scratch.take() {
            self.give_scratch(buffer);
        }
        let jobs = std::mem::take(&mut window.jobs);
        jobs.into_iter()
            .map(|job| {
                let answer = match &done {
                    Err(error) => Err(error.clone()),
                    Ok(()) if job.failed => {
                        drop(job.located);
                        self.by_host(&gets[job.index])
                    }
                    Ok(()) => Ok(Some(job.got)),
                };
                (job.index, answer)
            })
            .collect()
    }

    /// Compares the checksums of all parts; a job with a wrong one has failed then.
    fn verify(&self, window: &mut Window, gets: &[Get<'_>]) -> Result<()> {
        let mut sizes: Vec<u64> = window.jobs.iter().map(|job| job.located.chunk).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for chunk in sizes {
            let mut first = 0;
            loop {
                let (ranges, crcs, starts) = checks(window, gets, chunk, first);
                if crcs.is_empty() {
                    break;
                }
                let bad = self.context.verify_chunks(&ranges, chunk, &crcs)?;
                add(&self.counters.chunks, bad.unwrap_or(crcs.len() as u64));
                let Some(bad) = bad else { break };
                let at = starts.partition_point(|(start, _)| *start <= bad);
                let Some((_, job)) = at.checked_sub(1).map(|at| starts[at]) else {
                    break;
                };
                window.jobs[job].failed = true;
                first = job + 1;
            }
        }
        Ok(())
    }

    /// Copies the wanted bytes of edge chunks to where they belong.
    fn place_edges(&self, window: &Window, gets: &[Get<'_>]) -> Result<()> {
        let Some(scratch) = &window.scratch else {
            return Ok(());
        };
        let mut copies = Vec::new();
        for job in window.jobs.iter().filter(|job| !job.failed) {
            let get = &gets[job.index];
            let end = get.offset + job.got.bytes;
            for part in &job.parts {
                if let Place::Scratch = part.place {
                    let (from, to) = (part.from.max(get.offset), part.to.min(end));
                    copies.push(Copy {
                        from: scratch.clone(),
                        from_offset: part.at + (from - part.from),
                        to: get.to.clone(),
                        to_offset: get.to_offset + (from - get.offset),
                        size: to - from,
                    });
                }
            }
        }
        self.context.copy(&copies)
    }

    /// Reads through the store's own disk and verifies on the host: the second try of what did not
    /// arrive as it should, which tells a bad disk from bytes that went wrong on their way.
    fn by_host(&self, get: &Get<'_>) -> Answer {
        add(&self.counters.rereads, 1);
        let snapshot = self.store.snapshot()?;
        let Some((version, value_len)) = snapshot.version_of(get.key) else {
            return Ok(None);
        };
        let got = fit(get, value_len, version)?;
        let mut memory = vec![0; got.bytes.min(HOST_PART) as usize];
        let mut done = 0;
        while done < got.bytes {
            let now = (got.bytes - done).min(HOST_PART) as usize;
            let into = &mut memory[..now];
            let read = snapshot.get_into(get.key, get.offset + done, into)?;
            if read != Some(now) {
                let message = "a version that a snapshot holds is gone";
                return Err(Error::new(ErrorKind::Internal, message));
            }
            self.context
                .upload(&[(&*into, get.to, get.to_offset + done)])?;
            done += now as u64;
        }
        Ok(Some(got))
    }
}

/// How much of a value of `value_len` bytes is wanted, where it fits.
fn fit(get: &Get<'_>, value_len: u64, version: Lsn) -> Result<Got> {
    let bytes = value_len.saturating_sub(get.offset).min(get.size);
    let room = get.to.size().saturating_sub(get.to_offset);
    if bytes > room || get.to_offset > get.to.size() {
        let message = format!(
            "get {bytes} bytes of a value of {value_len} bytes: the buffer has {room} from \
             offset {} on",
            get.to_offset
        );
        return Err(Error::new(ErrorKind::OutOfRange, message));
    }
    Ok(Got {
        value_len,
        bytes,
        version,
    })
}
