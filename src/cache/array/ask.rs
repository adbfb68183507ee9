//! Asks for pages as kernels do, from threads of the host: what the threads that serve kernels
//! give, measured on any machine. Kernels copy a page from where it stands then into a frame.

use std::time::{Duration, Instant};

use super::layout::Layout;
use super::ring::{Asker, Pinned, Request, Words, request_word, words};
use super::{Array, ArrayConfig};
use crate::engine::{Buffer, File};
use crate::error::{Error, ErrorKind, Result};

/// Looks at a ring without an answer before a thread yields, and before it sleeps for a moment.
const LOOKS: u32 = 200;
const YIELDS: u32 = 400;
const PAUSE: Duration = Duration::from_micros(20);

/// What asking came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked {
    /// Pages that came.
    pub pages: u64,
    /// How long it took, from the first request to the last answer.
    pub seconds: f64,
    /// Threads that asked, each in a ring of its own, as many as serve.
    pub threads: u32,
}

/// Opens the file as an array and asks for these pages, as many at once as it has slots. `check`
/// gets each page's number and its first 8 bytes, and says whether they are right.
///
/// # Errors
/// As [`Array::open`]; `OutOfRange` for a page that is not there whole; `Corrupted` for one that
/// `check` refuses; `TimedOut` when no page came for as long as a warp would wait; what serving
/// them met.
pub fn ask(
    file: &File,
    config: ArrayConfig,
    pages: &[u64],
    check: impl Fn(u64, u64) -> bool + Sync,
) -> Result<Asked> {
    // An array of its own: its rings move on here without the counters that kernels have.
    let array = Array::open(file, config)?;
    let layout = array.layout;
    if let Some(page) = pages
        .iter()
        .find(|page| layout.bytes_of(**page) < layout.page_bytes())
    {
        let text = format!("page {page} is not whole in {} bytes", layout.size_bytes);
        return Err(Error::new(ErrorKind::OutOfRange, text).with_path(file.path()));
    }
    array.acquire()?;
    let began = Instant::now();
    let told: Result<u64> = std::thread::scope(|scope| {
        let check = &check;
        let ring = |index: u32| Ring::new(&array.pinned, layout, index, config.wait);
        let workers: Vec<_> = (0..layout.rings)
            .map(|index| {
                let own = pages.iter().skip(index as usize);
                let own = own.step_by(layout.rings as usize).copied();
                let ring = ring(index);
                scope.spawn(move || ring?.run(own, check))
            })
            .collect();
        let mut sum = 0;
        let mut first = Ok(());
        for worker in workers {
            match worker.join() {
                Ok(Ok(count)) => sum += count,
                Ok(Err(error)) => first = first.and(Err(error)),
                Err(_) => {
                    let text = "a thread that asked for pages died; please report this";
                    first = first.and(Err(Error::new(ErrorKind::Internal, text)));
                }
            }
        }
        first.map(|()| sum)
    });
    let seconds = began.elapsed().as_secs_f64();
    // What the service met says more than the number that a ring can carry.
    array.release(None)?;
    Ok(Asked {
        pages: told.map_err(|error| error.with_path(file.path()))?,
        seconds,
        threads: layout.rings,
    })
}

/// The asking side of one ring.
struct Ring {
    pinned: Buffer,
    requests: Pinned,
    completions: Pinned,
    /// Not 0 when nobody answers any more.
    host: Pinned,
    asker: Asker,
    shift: u32,
    /// Where the pages of its slots stand in the pinned memory.
    staging: u64,
    page_bytes: u64,
    patience: Duration,
}

impl Ring {
    fn new(pinned: &Buffer, layout: Layout, index: u32, patience: Duration) -> Result<Self> {
        let count = 1u64 << layout.ring_shift;
        let at = u64::from(index) * count;
        let requests = Pinned::new(pinned, at * 8, count);
        let completions = Pinned::new(pinned, layout.completions_offset() + at * 8, count);
        let host = Pinned::new(pinned, layout.host_offset(), 1);
        let (Some(requests), Some(completions), Some(host)) = (requests, completions, host) else {
            let text = "the pinned memory of an array is too small; please report this";
            return Err(Error::new(ErrorKind::Internal, text));
        };
        Ok(Self {
            pinned: pinned.clone(),
            requests,
            completions,
            host,
            asker: Asker::new(layout.ring_shift),
            shift: layout.ring_shift,
            staging: layout.staging_offset() + (at << layout.page_shift),
            page_bytes: layout.page_bytes(),
            patience,
        })
    }

    fn run(
        mut self,
        mut pages: impl Iterator<Item = u64>,
        check: &(impl Fn(u64, u64) -> bool + Sync),
    ) -> Result<u64> {
        let count = 1u64 << self.shift;
        let mut free: Vec<u64> = (0..count).collect();
        // The page that each slot waits for.
        let mut wanted = vec![0; count as usize];
        let (mut ticket, mut came, mut failed) = (0u64, 0, None);
        let (mut idle, mut last) = (0, Instant::now());
        loop {
            while failed.is_none()
                && let Some(slot) = free.last().copied()
                && let Some(page) = pages.next()
            {
                free.pop();
                wanted[slot as usize] = page;
                let request = Request {
                    page,
                    slot,
                    write: false,
                };
                let word = request_word(request, ticket, self.shift);
                self.requests.store(ticket & (count - 1), word);
                ticket += 1;
            }
            if free.len() as u64 == count {
                return failed.map_or(Ok(came), Err);
            }
            if let Some((slot, status)) = self.asker.see(&self.completions) {
                let page = wanted[slot as usize];
                let answer = self.answer(page, slot, status, check);
                failed = failed.or(answer.err());
                free.push(slot);
                (came, idle) = (came + 1, 0);
                continue;
            }
            match idle {
                0 => last = Instant::now(),
                1..LOOKS => std::hint::spin_loop(),
                LOOKS..YIELDS => std::thread::yield_now(),
                _ if self.host.load(0) != 0 => {
                    let text = "a thread that serves kernels has died";
                    return Err(Error::new(ErrorKind::Poisoned, text));
                }
                _ if last.elapsed() > self.patience => {
                    let text = format!("no page was brought within {:?}", self.patience);
                    return Err(Error::new(ErrorKind::TimedOut, text));
                }
                _ => std::thread::sleep(PAUSE),
            }
            idle = idle.saturating_add(1);
        }
    }

    fn answer(
        &self,
        page: u64,
        slot: u64,
        status: u16,
        check: &impl Fn(u64, u64) -> bool,
    ) -> Result<()> {
        let offset = page * self.page_bytes;
        if status != 0 {
            let text = format!("page {page} could not be brought, status {status}");
            return Err(Error::new(ErrorKind::Io, text).with_offset(offset));
        }
        let found = words(&self.pinned, self.staging + slot * self.page_bytes, 1);
        match found.first().is_some_and(|first| check(page, *first)) {
            true => Ok(()),
            false => {
                let text = format!("page {page} came with other bytes than the file has");
                Err(Error::new(ErrorKind::Corrupted, text).with_offset(offset))
            }
        }
    }
}
