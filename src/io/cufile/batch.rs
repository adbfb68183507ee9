//! Batches: pooled, never destroyed while anything in them may still run.
//!
//! What libcufile does and this file makes up for: setting a batch up is slow (so they are
//! reused); an unknown opcode runs as a read (so ours is an enum); one bad entry fails the whole
//! submission and leaves open which others ran (so entries are checked before, and the batch is
//! never used again); each event is told once, in any order (so they are collected by cookie);
//! "complete" may be short (so the count is the result); a submission that finds no free bounce
//! buffer blocks until somebody collects events (so there is an admission limit); page-aligned
//! host memory is filled at its base, whatever the offset says (so host memory goes in as one
//! address); cancelling takes the events of what ran with it; and submitting again before every
//! event was collected crashes (so only a finished batch goes back to the pool).

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::io::Operation;

use super::error::{check, transfer};
use super::handle::{Handle, check_range};
use super::library::{BatchSymbols, Library};
use super::slabs::{Slabs, fits, slabs_of};
use super::sys;

/// Most entries of one batch where the library does not tell.
const ENTRIES_DEFAULT: usize = 128;
/// Smallest batch that is set up, entries; larger ones double, so that few sizes are pooled.
const CAPACITY_MIN: usize = 8;
/// Longest single wait inside libcufile: a call that ignores its timeout is seen after this.
const SLICE: Duration = Duration::from_millis(100);
/// Pause after an answer that came at once and told nothing.
const PAUSE: Duration = Duration::from_micros(100);

/// One transfer of a batch.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Read or write.
    pub operation: Operation,
    /// The file, kept registered until the transfer is over.
    pub handle: Arc<Handle>,
    /// Registered base, or the start of plain memory.
    pub base: u64,
    /// Bytes after `base`.
    pub base_offset: u64,
    /// Whether the memory is host memory, registered or not.
    pub host: bool,
    /// Bytes.
    pub file_offset: u64,
    /// Bytes, at least 1.
    pub size: usize,
}

impl Entry {
    /// The base and offset for libcufile, whose batches ignore the offset in aligned host memory,
    /// and which must not be given an address inside registered device memory.
    fn place(&self, base_offset: i64) -> (*mut c_void, i64) {
        if self.host {
            (self.base.wrapping_add(self.base_offset) as *mut c_void, 0)
        } else {
            (self.base as *mut c_void, base_offset)
        }
    }
}

/// A batch that libcufile has set up.
struct Slot {
    raw: sys::BatchHandle,
    capacity: usize,
}

/// A batch that was submitted, with everything that must outlive it.
struct Running {
    slot: Slot,
    entries: Vec<Entry>,
    /// Read during the submission; kept until the end all the same.
    _parameters: Vec<SendParams>,
    events: Vec<SendEvent>,
    results: Vec<Option<Result<usize>>>,
    left: usize,
    slabs: Slabs,
}

#[repr(transparent)]
struct SendParams(sys::IoParams);
// SAFETY: the pointers are addresses for libcufile and are not followed here.
unsafe impl Send for SendParams {}

#[derive(Clone)]
#[repr(transparent)]
struct SendEvent(sys::IoEvent);
// SAFETY: the cookie is a number.
unsafe impl Send for SendEvent {}

#[derive(Default)]
struct State {
    idle: Vec<Slot>,
    quarantine: Vec<Running>,
    /// How many were parked and are not over, those that a thread looks after now included.
    parked: usize,
    /// Batches whose submission failed: what they still do is unknown, so they stay for ever.
    condemned: Vec<Running>,
    slabs: Slabs,
}

/// The batches of the process. Any thread may submit; a [`Batch`] belongs to one thread at a time.
pub struct BatchPool {
    library: &'static Library,
    symbols: BatchSymbols,
    entries_max: usize,
    state: Mutex<State>,
}

impl fmt::Debug for BatchPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("BatchPool")
            .field("entries_max", &self.entries_max)
            .field("idle", &state.idle.len())
            .field("quarantined", &state.parked)
            .field("condemned", &state.condemned.len())
            .finish_non_exhaustive()
    }
}

impl BatchPool {
    pub(super) fn new(library: &'static Library) -> Result<Self> {
        let symbols = library
            .symbols
            .batch
            .ok_or_else(|| library.lacks("cuFileBatchIOSetUp"))?;
        let told = library
            .properties()
            .map_or(0, |properties| properties.max_batch_io_size);
        let entries_max = if told == 0 {
            ENTRIES_DEFAULT
        } else {
            told as usize
        };
        Ok(Self {
            library,
            symbols,
            entries_max,
            state: Mutex::new(State::default()),
        })
    }

    /// Most entries of one batch.
    #[must_use]
    pub fn entries_max(&self) -> usize {
        self.entries_max
    }

    /// How many of the first transfers of these sizes (bytes) a batch may hold at this moment.
    pub fn admissible(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut taken = self.state.lock().slabs;
        sizes
            .into_iter()
            .take(self.entries_max)
            .take_while(|size| fits(&mut taken, slabs_of(*size)))
            .count()
    }

    /// Batches that were dropped before they were finished and still are not.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.reap();
        self.state.lock().parked
    }

    /// Starts all entries. Their order of execution is open.
    ///
    /// # Errors
    /// `InvalidArgument` or `OutOfRange` for an entry that breaks a rule (nothing was started);
    /// `Pending` when the bounce buffers are taken by other batches: finish one and submit again,
    /// or submit fewer (see `admissible`); else what cuFile answers, after which any of the
    /// entries may have run, and the memory is to be treated as written.
    ///
    /// # Safety
    /// Every entry's memory is valid, and for reads used by nobody else (for writes written by
    /// nobody), until the batch is done: until `Batch::is_done`, or after dropping an unfinished
    /// batch until `quarantined` is 0. In registered memory `base` is the registered base.
    pub unsafe fn submit(&'static self, entries: Vec<Entry>) -> Result<Batch> {
        let mut parameters = self.check(&entries)?;
        self.library.open_driver()?;
        self.reap();
        let mut slabs = Slabs::default();
        for entry in &entries {
            let mut sum = slabs_of(entry.size);
            for (sum, before) in sum.iter_mut().zip(slabs) {
                *sum += before;
            }
            slabs = sum;
        }
        self.admit(slabs, &entries)?;
        let slot = self
            .slot(entries.len())
            .inspect_err(|_| self.leave(slabs))?;
        let raw = slot.raw;
        let count = entries.len() as u32;
        let idle = sys::IoEvent {
            cookie: std::ptr::null_mut(),
            status: sys::STATUS_WAITING,
            ret: 0,
        };
        let pointer = parameters.as_mut_ptr().cast::<sys::IoParams>();
        let mut running = Running {
            slot,
            _parameters: parameters,
            events: vec![SendEvent(idle); entries.len()],
            results: vec![None; entries.len()],
            left: entries.len(),
            slabs,
            entries,
        };
        // SAFETY: the caller vouches for the memory; parameters and handles live in `running`,
        // which goes away only when every entry is over.
        let status = unsafe { (self.symbols.submit)(raw, count, pointer, 0) };
        if let Err(error) = check(status, format_args!("submit {count} transfers to cuFile")) {
            // SAFETY: the batch was set up and is not destroyed.
            let _answer = unsafe { (self.symbols.cancel)(raw) };
            let _drained = self.collect(&mut running, 0, Duration::ZERO);
            self.leave(slabs);
            self.state.lock().condemned.push(running);
            return Err(error);
        }
        Ok(Batch {
            pool: self,
            running: Some(running),
        })
    }

    fn check(&self, entries: &[Entry]) -> Result<Vec<SendParams>> {
        let wrong = |text: String| Err(Error::new(ErrorKind::InvalidArgument, text));
        if entries.is_empty() || entries.len() > self.entries_max {
            let (count, most) = (entries.len(), self.entries_max);
            return wrong(format!(
                "a cuFile batch has {count} entries; give 1 to {most}"
            ));
        }
        let mut parameters = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            if entry.base == 0 || entry.size == 0 {
                return wrong(format!(
                    "entry {index} of a cuFile batch has {} bytes at {:#x}; give memory and a size",
                    entry.size, entry.base
                ));
            }
            let what = format!("entry {index} of a cuFile batch:");
            let (file_offset, base_offset) =
                check_range(&what, entry.size, entry.file_offset, entry.base_offset)?;
            let (base, base_offset) = entry.place(base_offset);
            parameters.push(SendParams(sys::IoParams {
                mode: sys::BATCH_MODE,
                base,
                file_offset,
                base_offset,
                size: entry.size,
                handle: entry.handle.raw,
                opcode: match entry.operation {
                    Operation::Read => sys::OPCODE_READ,
                    Operation::Write => sys::OPCODE_WRITE,
                },
                // 0 would look like an event that nobody filled in.
                cookie: std::ptr::without_provenance_mut(index + 1),
            }));
        }
        Ok(parameters)
    }

    fn admit(&self, slabs: Slabs, entries: &[Entry]) -> Result<()> {
        if fits(&mut self.state.lock().slabs, slabs) {
            return Ok(());
        }
        let alone = fits(&mut Slabs::default(), slabs);
        let (kind, fix) = if alone {
            (
                ErrorKind::Pending,
                "finish a batch that is in flight, then submit again",
            )
        } else {
            (
                ErrorKind::InvalidArgument,
                "submit fewer or smaller entries at once",
            )
        };
        let text = format!(
            "a cuFile batch of {} entries takes more bounce buffers than are free (128 up to \
             4 KiB, 64 up to 1 MiB, 64 up to 16 MiB); {fix}",
            entries.len()
        );
        Err(Error::new(kind, text))
    }

    fn leave(&self, slabs: Slabs) {
        let mut state = self.state.lock();
        for (taken, slabs) in state.slabs.iter_mut().zip(slabs) {
            *taken -= slabs;
        }
    }

    /// A batch for `count` entries: an idle one, or a new one.
    fn slot(&self, count: usize) -> Result<Slot> {
        let capacity = count
            .next_power_of_two()
            .max(CAPACITY_MIN)
            .min(self.entries_max);
        {
            let mut state = self.state.lock();
            if let Some(at) = state.idle.iter().position(|slot| slot.capacity == capacity) {
                return Ok(state.idle.swap_remove(at));
            }
        }
        self.set_up(capacity).or_else(|_| {
            // The library has room for so many entries only: give up the idle ones, then try once.
            let idle = std::mem::take(&mut self.state.lock().idle);
            for slot in idle {
                // SAFETY: idle batches have no entry in flight and are destroyed once.
                unsafe { (self.symbols.destroy)(slot.raw) };
            }
            self.set_up(capacity)
        })
    }

    fn set_up(&self, capacity: usize) -> Result<Slot> {
        let mut raw = sys::BatchHandle(std::ptr::null_mut());
        // SAFETY: raw outlives the call.
        let status = unsafe { (self.symbols.set_up)(&raw mut raw, capacity as u32) };
        check(
            status,
            format_args!("set up a cuFile batch of {capacity} entries"),
        )?;
        Ok(Slot { raw, capacity })
    }

    /// Collects events: waits at most `timeout` for `minimum` of them. Answers how many came.
    fn collect(&self, running: &mut Running, minimum: usize, timeout: Duration) -> Result<usize> {
        let mut count = running.events.len() as u32;
        let mut time = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let events = running.events.as_mut_ptr().cast::<sys::IoEvent>();
        // SAFETY: events has room for `count`; all pointers outlive the call.
        let status = unsafe {
            (self.symbols.get_status)(
                running.slot.raw,
                minimum as u32,
                &raw mut count,
                events,
                &raw mut time,
            )
        };
        // After an error neither count nor events were written.
        check(status, "ask cuFile how a batch stands")?;
        let mut came = 0;
        for at in 0..(count as usize).min(running.events.len()) {
            let event = running.events[at].0;
            let Some(index) = event.cookie.addr().checked_sub(1) else {
                continue;
            };
            let Some(entry) = running.entries.get(index) else {
                continue;
            };
            if let (None, Some(result)) = (&running.results[index], outcome(&event, entry)) {
                running.results[index] = Some(result);
                running.left -= 1;
                came += 1;
            }
        }
        Ok(came)
    }

    /// Looks after the batches that were dropped unfinished.
    fn reap(&self) {
        // Taken out, so that other threads do not wait for libcufile behind the lock.
        let parked = std::mem::take(&mut self.state.lock().quarantine);
        for mut running in parked {
            let _came = self.collect(&mut running, 0, Duration::ZERO);
            if running.left > 0 {
                self.state.lock().quarantine.push(running);
                continue;
            }
            self.retire(running);
            self.state.lock().parked -= 1;
        }
    }

    /// Makes a finished batch idle. Its handles are deregistered here, outside the lock.
    fn retire(&self, running: Running) {
        self.leave(running.slabs);
        self.state.lock().idle.push(running.slot);
    }
}

fn describe(entry: &Entry) -> String {
    let verb = match entry.operation {
        Operation::Read => "read",
        Operation::Write => "write",
    };
    format!(
        "{verb} {} bytes at {} in a cuFile batch",
        entry.size, entry.file_offset
    )
}

/// What an event says about its entry; `None` while it is not over.
fn outcome(event: &sys::IoEvent, entry: &Entry) -> Option<Result<usize>> {
    let what = describe(entry);
    // The field is unsigned in C, and negative errors travel in it.
    let count = event.ret as isize;
    let result = match event.status {
        sys::STATUS_COMPLETE if event.ret <= entry.size => Ok(event.ret),
        sys::STATUS_COMPLETE | sys::STATUS_FAILED if count < 0 => transfer(count, 0, &what),
        sys::STATUS_COMPLETE | sys::STATUS_FAILED => Err(Error::new(
            ErrorKind::CuFile,
            format!("{what}: it failed without a reason after {count} bytes"),
        )),
        sys::STATUS_CANCELED => Err(Error::new(
            ErrorKind::Cancelled,
            format!("{what}: it was cancelled"),
        )),
        sys::STATUS_TIMEOUT => Err(Error::new(
            ErrorKind::TimedOut,
            format!("{what}: cuFile gave up; see batch_io_timeout in cufile.json"),
        )),
        sys::STATUS_INVALID => Err(Error::new(
            ErrorKind::CuFile,
            format!("{what}: cuFile calls the entry invalid"),
        )),
        _ => return None,
    };
    Some(result.map_err(|error| error.with_offset(entry.file_offset)))
}

/// A batch that was submitted. Dropping an unfinished one parks it: the pool looks after it, keeps
/// its files registered, and uses it again when it is over. The memory must stay valid until then
/// (`BatchPool::quarantined`).
#[must_use = "the transfers are not finished"]
pub struct Batch {
    pool: &'static BatchPool,
    running: Option<Running>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.running.as_ref().map(|running| running.left);
        f.debug_struct("Batch")
            .field("left", &left)
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// Whether every transfer is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.running
            .as_ref()
            .is_none_or(|running| running.left == 0)
    }

    /// One result an entry, in the order of submission: the bytes moved (perhaps fewer than asked
    /// for, 0 at the end of the file) or the error; `None` while it is not over.
    #[must_use]
    pub fn results(&self) -> &[Option<Result<usize>>] {
        self.running
            .as_ref()
            .map_or(&[], |running| &running.results)
    }

    /// Collects what is over without waiting. Answers whether all is.
    ///
    /// # Errors
    /// What cuFile answers; the batch stays as it was.
    pub fn poll(&mut self) -> Result<bool> {
        self.wait(Duration::ZERO)
    }

    /// Waits until every transfer is over, at most `timeout`. Answers whether that is so.
    ///
    /// # Errors
    /// As [`Batch::poll`].
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let Some(running) = self.running.as_mut() else {
            return Ok(true);
        };
        let start = Instant::now();
        while running.left > 0 {
            let slice = timeout.saturating_sub(start.elapsed()).min(SLICE);
            let least = if slice.is_zero() { 0 } else { running.left };
            let came = self.pool.collect(running, least, slice)?;
            if start.elapsed() >= timeout {
                break;
            }
            if came == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(running.left == 0)
    }

    /// Drops what has not begun, and waits in libcufile for what has. Transfers whose events were
    /// collected before keep their results; all others end as `Cancelled`, though some of them ran:
    /// their memory is to be treated as written. Answers whether the batch is over; if not, go on
    /// with `poll` or `wait`.
    ///
    /// # Errors
    /// What cuFile answers; the batch stays as it was.
    pub fn cancel(&mut self) -> Result<bool> {
        let Some(running) = self.running.as_mut().filter(|running| running.left > 0) else {
            return Ok(true);
        };
        // SAFETY: the batch is set up and not destroyed.
        let status = unsafe { (self.pool.symbols.cancel)(running.slot.raw) };
        check(status, "cancel a cuFile batch")?;
        loop {
            let start = Instant::now();
            let came = self.pool.collect(running, 1, SLICE)?;
            if running.left == 0 {
                return Ok(true);
            }
            if came > 0 {
                continue;
            }
            // An answer of nothing that comes at once says that nothing is outstanding; one that
            // took its time says that something is.
            if start.elapsed() > SLICE / 2 {
                return Ok(false);
            }
            for (result, entry) in running.results.iter_mut().zip(&running.entries) {
                if result.is_none() {
                    let what = describe(entry);
                    let error = Error::new(ErrorKind::Cancelled, format!("{what}: cancelled"));
                    *result = Some(Err(error.with_offset(entry.file_offset)));
                }
            }
            running.left = 0;
            return Ok(true);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Not cancelled: that would wait, and would lose the events that tell when it is over.
        let Some(mut running) = self.running.take() else {
            return;
        };
        if running.left > 0 {
            let _came = self.pool.collect(&mut running, 0, Duration::ZERO);
        }
        if running.left > 0 {
            let mut state = self.pool.state.lock();
            state.parked += 1;
            state.quarantine.push(running);
            return;
        }
        self.pool.retire(running);
    }
}
