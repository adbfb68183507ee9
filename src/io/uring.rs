//! io_uring: many operations in flight for one system call, and registered memory that the kernel
//! need not pin anew for each operation.
//!
//! One ring a queue. The ring belongs to the thread that first submits (the kernel then defers
//! its work to that thread's waits, which saves interruptions); an idle queue that is used from
//! another thread gets a new ring there. Blocked waits sleep in the kernel.

use std::fmt;
use std::os::fd::RawFd;
use std::thread::ThreadId;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::error::{Error, ErrorKind, Result};

use super::posix::{Posix, check_depth};
use super::witness::Witness;
use super::{Completion, Io, Operation, Queue, Request};

/// Most bytes that the kernel moves in one operation: longer ones come back short.
const OPERATION_SIZE_MAX: u32 = 0x7fff_f000;
/// Largest piece of memory that the kernel registers as one buffer, bytes.
const BUFFER_SIZE: usize = 1 << 30;
/// `IORING_ENTER_GETEVENTS` of linux/io_uring.h: run deferred work, and wait if asked to.
const ENTER_GETEVENTS: u32 = 1;
/// Pause before the kernel is asked again when it has no memory for requests.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How often it is asked again: a second in all.
const BUSY_TRIES: u32 = 1000;

/// I/O by io_uring(7). Single operations and syncs are plain system calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Uring;

impl Uring {
    /// Whether this kernel lets this process use io_uring.
    ///
    /// # Errors
    /// `NotSupported` with the reason and what to do.
    pub fn probe() -> Result<()> {
        let ring = IoUring::new(2).map_err(|e| refused(&e))?;
        let mut probe = io_uring::Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(|e| refused(&e))?;
        for (code, name) in [
            (opcode::Read::CODE, "READ"),
            (opcode::Write::CODE, "WRITE"),
            (opcode::ReadFixed::CODE, "READ_FIXED"),
            (opcode::WriteFixed::CODE, "WRITE_FIXED"),
        ] {
            if !probe.is_supported(code) {
                let message = format!(
                    "use io_uring: this kernel's has no {name} operation; Linux 5.6 or later has"
                );
                return Err(Error::new(ErrorKind::NotSupported, message));
            }
        }
        Ok(())
    }
}

impl Io for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn Queue>> {
        check_depth(depth)?;
        Ok(Box::new(UringQueue {
            depth,
            ring: Some(Ring::new(depth)?),
            owner: None,
            memory: None,
            pushed: Vec::with_capacity(depth),
            finished: Vec::with_capacity(depth),
            in_kernel: 0,
        }))
    }

    unsafe fn read_at(&self, fd: RawFd, pointer: *mut u8, size: usize, offset: u64) -> i64 {
        // SAFETY: the same promise.
        unsafe { Posix.read_at(fd, pointer, size, offset) }
    }

    unsafe fn write_at(&self, fd: RawFd, pointer: *const u8, size: usize, offset: u64) -> i64 {
        // SAFETY: the same promise.
        unsafe { Posix.write_at(fd, pointer, size, offset) }
    }

    unsafe fn write_durable_at(
        &self,
        fd: RawFd,
        pointer: *const u8,
        size: usize,
        offset: u64,
    ) -> i64 {
        // SAFETY: the same promise.
        unsafe { Posix.write_durable_at(fd, pointer, size, offset) }
    }

    fn sync(&self, fd: RawFd) -> i64 {
        Posix.sync(fd)
    }
}

fn refused(error: &std::io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(0);
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = sysctl.is_ok_and(|text| text.trim() != "0");
    let why = match errno {
        libc::ENOSYS => "this kernel has none (Linux 5.6 or later, CONFIG_IO_URING)",
        libc::EPERM if disabled => "the sysctl kernel.io_uring_disabled forbids it; set it to 0",
        libc::EPERM | libc::EACCES => {
            "the process may not, most likely by the container's seccomp profile; allow \
             io_uring_setup, io_uring_enter and io_uring_register there"
        }
        libc::ENOMEM => "the kernel may lock no more memory for it; raise `ulimit -l`",
        libc::EMFILE | libc::ENFILE => "too many files are open; raise `ulimit -n`",
        _ => return Error::os(errno, "use io_uring"),
    };
    Error::new(ErrorKind::NotSupported, format!("use io_uring: {why}")).with_errno(errno)
}

/// A ring and the sign that its last operation is over.
struct Ring {
    ring: IoUring,
    /// Ends when the kernel has freed the ring, which is after its last operation.
    witness: Witness,
    /// Whether the kernel takes submissions and waits from one thread only.
    single_issuer: bool,
}

impl Ring {
    /// A ring for `depth` operations, with as much as this kernel knows: deferred work since
    /// Linux 6.1, cooperative work since 5.19.
    fn new(depth: usize) -> Result<Self> {
        let entries = u32::try_from(depth).unwrap_or(u32::MAX);
        let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
        builder.dontfork().setup_clamp();
        let plain = builder.clone();
        builder.setup_coop_taskrun().setup_taskrun_flag();
        let cooperative = builder.clone();
        // It begins disabled: the thread that enables it is the one that the kernel ties it to.
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled();
        let mut last = std::io::Error::from_raw_os_error(libc::EINVAL);
        for (builder, single_issuer) in [(builder, true), (cooperative, false), (plain, false)] {
            match builder.build(entries) {
                Ok(ring) => {
                    let witness = Witness::new(|fd| ring.submitter().register_files(&[fd]))
                        .map_err(|e| refused(&e))?;
                    return Ok(Self {
                        ring,
                        witness,
                        single_issuer,
                    });
                }
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => last = e,
                Err(e) => return Err(refused(&e)),
            }
        }
        Err(refused(&last))
    }

    /// Operations that the kernel has not taken from the submission ring.
    fn waiting(&mut self) -> usize {
        self.ring.submission().len()
    }
}

/// Memory that was offered for registration.
struct Memory {
    base: usize,
    size: usize,
}

/// May move between threads: `bind` makes a new ring where the kernel tied the old one to a thread.
struct UringQueue {
    depth: usize,
    /// `None` only while it is dropped or replaced.
    ring: Option<Ring>,
    owner: Option<ThreadId>,
    memory: Option<Memory>,
    /// Pushed and not yet in the submission ring.
    pushed: Vec<Request>,
    /// Finished and not yet reaped by the caller.
    finished: Vec<Completion>,
    /// In the submission ring or beyond, and not yet taken from the completion ring.
    in_kernel: usize,
}

impl fmt::Debug for UringQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringQueue")
            .field("depth", &self.depth)
            .field("in_flight", &self.in_flight())
            .field("registered", &self.memory.as_ref().map_or(0, |m| m.size))
            .finish()
    }
}

impl UringQueue {
    fn ring(&mut self) -> Result<&mut Ring> {
        self.ring.as_mut().ok_or_else(|| {
            let message = "use a queue whose ring could not be made again; make a new queue";
            Error::new(ErrorKind::Io, message)
        })
    }

    /// Ties the ring to the calling thread, with a new ring where the old one is tied elsewhere.
    fn bind(&mut self) -> Result<()> {
        let me = std::thread::current().id();
        if self.owner == Some(me) {
            return Ok(());
        }
        if !self.ring()?.single_issuer {
            self.owner = Some(me);
            return Ok(());
        }
        if self.owner.is_some() {
            if self.in_kernel > 0 {
                let message = format!(
                    "use a queue from another thread: {} operations are in flight on the thread \
                     that submitted them; wait for them there first",
                    self.in_kernel
                );
                return Err(Error::new(ErrorKind::Io, message).with_errno(libc::EBUSY));
            }
            self.ring = None;
            self.ring = Some(Ring::new(self.depth)?);
            if let Some(Memory { base, size }) = self.memory.take() {
                // SAFETY: `register_memory` promised that it outlives the queue. A kernel that
                // declines now costs speed only: `memory` stays None and plain operations are
                // used.
                unsafe { self.register_memory(base as *mut u8, size) };
            }
        }
        self.ring()?
            .ring
            .submitter()
            .register_enable_rings()
            .map_err(|e| refused(&e))?;
        self.owner = Some(me);
        Ok(())
    }

    /// Moves what was pushed into the submission ring. It has room: there are `depth` entries at
    /// least, and no more than `depth` operations in flight.
    fn fill(&mut self) {
        if self.pushed.is_empty() {
            return;
        }
        let pushed = std::mem::take(&mut self.pushed);
        let memory = self.memory.take();
        let mut taken = 0;
        if let Some(Ring { ring, .. }) = &mut self.ring {
            let mut submission = ring.submission();
            for request in &pushed {
                // SAFETY: `push` promised that the memory is valid until the completion is
                // reaped, and dropping the queue waits for the kernel.
                if unsafe { submission.push(&entry(request, memory.as_ref())) }.is_err() {
                    break;
                }
                taken += 1;
            }
        }
        self.memory = memory;
        self.pushed = pushed;
        self.pushed.drain(..taken);
        self.in_kernel += taken;
    }

    /// Takes what the completion ring holds.
    fn reap(&mut self) {
        let before = self.finished.len();
        if let Some(Ring { ring, .. }) = &mut self.ring {
            self.finished.extend(ring.completion().map(|c| Completion {
                token: c.user_data(),
                result: c.result(),
            }));
        }
        self.in_kernel -= self.finished.len() - before;
    }

    /// One io_uring_enter: hands over up to `submit` entries and waits for `minimum` completions.
    /// False when the kernel asks to reap first.
    fn enter(&mut self, submit: usize, minimum: usize) -> Result<bool> {
        let (submit, minimum) = (submit as u32, minimum as u32);
        let ring = &self.ring()?.ring;
        // SAFETY: the counts are what the rings hold and no argument is passed.
        let result = unsafe {
            ring.submitter()
                .enter::<libc::sigset_t>(submit, minimum, ENTER_GETEVENTS, None)
        };
        match result {
            Ok(_) => Ok(true),
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR) => Ok(true),
                Some(libc::EAGAIN | libc::EBUSY) => Ok(false),
                errno => Err(Error::os(
                    errno.unwrap_or(libc::EIO),
                    format!("hand {submit} operations to io_uring and wait for {minimum}"),
                )),
            },
        }
    }

    /// Hands over all that was pushed.
    fn submit_all(&mut self) -> Result<()> {
        self.bind()?;
        let mut tries = 0;
        loop {
            self.fill();
            let waiting = self.ring()?.waiting();
            if waiting == 0 && self.pushed.is_empty() {
                return Ok(());
            }
            if self.enter(waiting, 0)? {
                continue;
            }
            // The kernel lacks memory for more requests, or its completions want reaping. What
            // is in flight frees both; with nothing in flight, only time does.
            self.reap();
            if self.in_kernel > waiting {
                self.enter(0, 1)?;
                self.reap();
                continue;
            }
            tries += 1;
            if tries > BUSY_TRIES {
                let what = format!("hand {waiting} operations to io_uring");
                return Err(Error::os(libc::EAGAIN, what));
            }
            std::thread::sleep(BUSY_PAUSE);
        }
    }
}

/// The buffer that holds all of `request`, if one does.
fn buffer_of(request: &Request, size: u32, memory: Option<&Memory>) -> Option<u16> {
    let memory = memory.filter(|_| request.registered && size > 0)?;
    let start = (request.pointer as usize).checked_sub(memory.base)?;
    let end = start
        .checked_add(size as usize)
        .filter(|end| *end <= memory.size)?;
    let index = start / BUFFER_SIZE;
    (index == (end - 1) / BUFFER_SIZE).then(|| u16::try_from(index).ok())?
}

fn entry(request: &Request, memory: Option<&Memory>) -> squeue::Entry {
    let Request {
        pointer, offset, ..
    } = *request;
    let size = request.size.min(OPERATION_SIZE_MAX);
    let fd = types::Fd(request.fd);
    let entry = match (request.operation, buffer_of(request, size, memory)) {
        (Operation::Read, Some(index)) => opcode::ReadFixed::new(fd, pointer, size, index)
            .offset(offset)
            .build(),
        (Operation::Read, None) => opcode::Read::new(fd, pointer, size).offset(offset).build(),
        (Operation::Write, Some(index)) => opcode::WriteFixed::new(fd, pointer, size, index)
            .offset(offset)
            .build(),
        (Operation::Write, None) => opcode::Write::new(fd, pointer, size).offset(offset).build(),
    };
    entry.user_data(request.token)
}

impl Queue for UringQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.in_kernel + self.finished.len()
    }

    unsafe fn register_memory(&mut self, pointer: *mut u8, size: usize) -> bool {
        if self.memory.is_some() || size == 0 || pointer.is_null() {
            return false;
        }
        let base = pointer as usize;
        let buffers: Vec<_> = (0..size)
            .step_by(BUFFER_SIZE)
            .map(|offset| libc::iovec {
                iov_base: pointer.wrapping_add(offset).cast(),
                iov_len: BUFFER_SIZE.min(size - offset),
            })
            .collect();
        let Some(Ring { ring, .. }) = &self.ring else {
            return false;
        };
        // SAFETY: the caller promises that the memory outlives the queue and so the ring.
        if unsafe { ring.submitter().register_buffers(&buffers) }.is_err() {
            return false;
        }
        self.memory = Some(Memory { base, size });
        true
    }

    unsafe fn push(&mut self, request: Request) -> bool {
        if self.in_flight() >= self.depth {
            return false;
        }
        if i64::try_from(request.offset).is_err() {
            // The kernel takes the largest offset for "where the descriptor stands".
            let completion = Completion {
                token: request.token,
                result: -libc::EINVAL,
            };
            self.finished.push(completion);
        } else {
            self.pushed.push(request);
        }
        true
    }

    fn submit(&mut self) -> Result<()> {
        if self.pushed.is_empty() && self.in_kernel == 0 {
            return Ok(());
        }
        self.submit_all()
    }

    fn wait(&mut self, minimum: usize, done: &mut Vec<Completion>) -> Result<()> {
        if self.pushed.is_empty() && self.in_kernel == 0 {
            done.append(&mut self.finished);
            return Ok(());
        }
        self.bind()?;
        let minimum = minimum.min(self.in_flight());
        let mut polled = false;
        loop {
            self.fill();
            self.reap();
            let missing = minimum.saturating_sub(self.finished.len());
            let ring = self.ring()?;
            let waiting = ring.waiting();
            let deferred = !polled && ring.ring.submission().taskrun();
            if waiting == 0 && missing == 0 && !deferred {
                break;
            }
            // One call submits and waits; it also runs the work that the kernel deferred.
            if !self.enter(waiting, missing)? {
                self.submit_all()?;
            }
            polled = true;
        }
        done.append(&mut self.finished);
        Ok(())
    }
}

impl Drop for UringQueue {
    /// Waits until the kernel is done with all memory that it was given. What was pushed and
    /// never submitted is forgotten.
    fn drop(&mut self) {
        let Some(mut ring) = self.ring.take() else {
            return;
        };
        let waiting = ring.waiting();
        let mut left = self.in_kernel.saturating_sub(waiting);
        let mine = !ring.single_issuer || self.owner == Some(std::thread::current().id());
        while mine && left > 0 {
            left = left.saturating_sub(ring.ring.completion().count());
            if left == 0 {
                break;
            }
            // SAFETY: waits for what is in flight; no argument is passed.
            let result = unsafe {
                ring.ring
                    .submitter()
                    .enter::<libc::sigset_t>(0, left as u32, ENTER_GETEVENTS, None)
            };
            match result.map_err(|e| e.raw_os_error()) {
                Ok(_) | Err(Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(_) => break,
            }
        }
        let Ring { ring, witness, .. } = ring;
        drop(ring);
        if left > 0 {
            // On another thread the kernel refuses the wait; closing the ring still ends its
            // operations, and the witness ends after the last of them.
            witness.wait();
        }
    }
}
