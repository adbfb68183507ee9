//! One body over every way of doing I/O: posix, io_uring, and the fault double without faults
//! over each of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use gds_rs::error::ErrorKind;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::uring::Uring;
use gds_rs::io::{Completion, FileDescriptors, Io, OpenMode, Operation, Queue, Request};

/// A file that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, size: usize) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("io_conformance_{name}_{}", std::process::id()));
        std::fs::write(&path, pattern(0, size)).unwrap();
        Self(path)
    }

    fn open(&self) -> FileDescriptors {
        FileDescriptors::open(&self.0, OpenMode::read_write()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bytes that differ from offset to offset and from page to page.
fn pattern(offset: usize, size: usize) -> Vec<u8> {
    (offset..offset + size)
        .map(|i| (i ^ (i >> 8) ^ (i >> 16).wrapping_mul(31)) as u8)
        .collect()
}

/// Memory at a page boundary.
struct Pages {
    memory: Vec<u8>,
    start: usize,
    size: usize,
}

impl Pages {
    fn new(size: usize) -> Self {
        let memory = vec![0u8; size + 4096];
        let start = memory.as_ptr().align_offset(4096);
        Self {
            memory,
            start,
            size,
        }
    }

    fn pointer(&mut self) -> *mut u8 {
        self.memory[self.start..].as_mut_ptr()
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.size]
    }
}

/// Every implementation that this kernel allows.
fn all() -> Vec<(&'static str, Arc<dyn Io>)> {
    let mut ways: Vec<(&'static str, Arc<dyn Io>)> = vec![("posix", Arc::new(Posix))];
    match Uring::probe() {
        Ok(()) => ways.push(("io_uring", Arc::new(Uring))),
        Err(e) => println!("skipped: io_uring: {e}"),
    }
    let wrapped: Vec<(&'static str, Arc<dyn Io>)> = ways
        .iter()
        .map(|(name, io)| {
            let name = if *name == "posix" {
                "fault(posix)"
            } else {
                "fault(io_uring)"
            };
            let fault = Fault::new(Arc::clone(io), FaultPlan::default());
            (name, Arc::new(fault) as Arc<dyn Io>)
        })
        .collect();
    ways.extend(wrapped);
    ways
}

fn request(operation: Operation, fd: i32, offset: u64, memory: (*mut u8, usize)) -> Request {
    let (pointer, size) = memory;
    Request {
        operation,
        fd,
        offset,
        pointer,
        size: size as u32,
        registered: false,
        token: offset,
    }
}

/// Runs one operation through a queue.
fn one(queue: &mut dyn Queue, request: Request) -> i32 {
    let mut done = Vec::new();
    // SAFETY: the callers' memory lives until this returns.
    assert!(unsafe { queue.push(request) });
    queue.wait(1, &mut done).unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].token, request.token);
    done[0].result
}

#[test]
fn best_is_one_of_them() {
    let best = gds_rs::io::best();
    let expected = if Uring::probe().is_ok() {
        "io_uring"
    } else {
        "posix"
    };
    assert_eq!(best.name(), expected);
}

#[test]
fn reads_and_writes_at_odd_offsets() {
    for (name, io) in all() {
        let scratch = Scratch::new("odd", 300_000);
        let file = scratch.open();
        let fd = file.buffered();
        let mut queue = io.queue(4).unwrap();
        for (offset, size) in [(0, 1), (1, 4095), (4097, 70_001), (299_999, 1), (123, 0)] {
            let mut memory = vec![0u8; size];
            let place = (memory.as_mut_ptr(), size);
            let got = one(&mut *queue, request(Operation::Read, fd, offset, place));
            assert_eq!(got, size as i32, "{name}");
            assert_eq!(memory, pattern(offset as usize, size), "{name} at {offset}");
            memory.fill(0);
            // SAFETY: `memory` has `size` bytes.
            let got = unsafe { io.read_at(fd, memory.as_mut_ptr(), size, offset) };
            assert_eq!(got, size as i64, "{name}");
            assert_eq!(memory, pattern(offset as usize, size), "{name} at {offset}");
        }
        let mut new = vec![0xee; 5001];
        let place = (new.as_mut_ptr(), new.len());
        assert_eq!(
            one(&mut *queue, request(Operation::Write, fd, 77, place)),
            5001,
            "{name}"
        );
        // SAFETY: `new` has 13 bytes.
        let got = unsafe { io.write_at(fd, new.as_ptr(), 13, 299_995) };
        assert_eq!(got, 13, "{name}");
        assert_eq!(io.sync(fd), 0, "{name}");
        let mut expected = pattern(0, 300_008);
        expected[77..77 + 5001].fill(0xee);
        expected[299_995..].fill(0xee);
        assert!(std::fs::read(&scratch.0).unwrap() == expected, "{name}");
    }
}

#[test]
fn depth_is_a_limit_and_reaping_makes_room() {
    for (name, io) in all() {
        let scratch = Scratch::new("depth", 8192);
        let file = scratch.open();
        let mut memory = vec![0u8; 100];
        let place = (memory.as_mut_ptr(), 10);
        let mut queue = io.queue(3).unwrap();
        assert_eq!((queue.depth(), queue.in_flight()), (3, 0), "{name}");
        // SAFETY: `memory` outlives the queue's operations: they are reaped below.
        let push = |queue: &mut dyn Queue, offset| unsafe {
            queue.push(request(Operation::Read, file.buffered(), offset, place))
        };
        for offset in 0..3 {
            assert!(push(&mut *queue, offset), "{name}");
        }
        assert!(!push(&mut *queue, 3), "{name}");
        queue.submit().unwrap();
        assert!(
            !push(&mut *queue, 3),
            "{name}: submitted is still in flight"
        );
        assert_eq!(queue.in_flight(), 3, "{name}");
        let mut done = Vec::new();
        queue.wait(usize::MAX, &mut done).unwrap();
        assert_eq!((done.len(), queue.in_flight()), (3, 0), "{name}");
        assert!(push(&mut *queue, 4), "{name}");
        queue.wait(1, &mut done).unwrap();
        assert_eq!(done.len(), 4, "{name}: completions are appended");
        queue.wait(5, &mut done).unwrap();
        assert_eq!(done.len(), 4, "{name}: waiting for nothing returns");
        for depth in [0, 1 << 20] {
            assert_eq!(
                io.queue(depth).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{name}"
            );
        }
    }
}

#[test]
fn many_in_flight_lose_none() {
    const PIECE: usize = 3000;
    const COUNT: usize = 2000;
    for (name, io) in all() {
        let scratch = Scratch::new("many", PIECE * COUNT);
        let file = scratch.open();
        let mut memory = vec![0u8; PIECE * COUNT];
        let base = memory.as_mut_ptr();
        let mut queue = io.queue(61).unwrap();
        let mut done: Vec<Completion> = Vec::new();
        let mut next = 0;
        while done.len() < COUNT {
            while next < COUNT {
                // Pieces in an order that read-ahead does not guess.
                let piece = next * 977 % COUNT;
                // SAFETY: each piece has its own bytes of `memory`, which outlives the queue.
                let pushed = unsafe {
                    let place = (base.add(piece * PIECE), PIECE);
                    let offset = (piece * PIECE) as u64;
                    queue.push(request(Operation::Read, file.buffered(), offset, place))
                };
                if !pushed {
                    break;
                }
                next += 1;
            }
            queue.wait(next % 5, &mut done).unwrap();
        }
        let mut tokens: Vec<u64> = done.iter().map(|c| c.token).collect();
        tokens.sort_unstable();
        let expected: Vec<u64> = (0..COUNT).map(|i| (i * PIECE) as u64).collect();
        assert_eq!(tokens, expected, "{name}");
        assert!(done.iter().all(|c| c.result == PIECE as i32), "{name}");
        assert!(memory == pattern(0, PIECE * COUNT), "{name}");
    }
}

#[test]
fn the_end_of_the_file_shortens_reads() {
    for (name, io) in all() {
        let scratch = Scratch::new("end", 5000);
        let file = scratch.open();
        let mut queue = io.queue(1).unwrap();
        let mut memory = vec![0u8; 4096];
        for (offset, expected) in [(4096, 904), (4999, 1), (5000, 0), (1 << 40, 0)] {
            let place = (memory.as_mut_ptr(), 4096);
            let read = request(Operation::Read, file.buffered(), offset, place);
            assert_eq!(one(&mut *queue, read), expected, "{name} at {offset}");
            // SAFETY: `memory` has 4096 bytes.
            let got = unsafe { io.read_at(file.buffered(), memory.as_mut_ptr(), 4096, offset) };
            assert_eq!(got, i64::from(expected), "{name} at {offset}");
        }
    }
}

#[test]
fn wrong_arguments_are_answered_with_their_errno() {
    for (name, io) in all() {
        let scratch = Scratch::new("wrong", 8192);
        let file = scratch.open();
        let read_only = FileDescriptors::open(&scratch.0, OpenMode::read_only()).unwrap();
        let fd = file.buffered();
        let mut queue = io.queue(2).unwrap();
        let mut memory = vec![0u8; 16];
        let good = (memory.as_mut_ptr(), 16);
        let bad = (std::ptr::without_provenance_mut(8), 16);
        let cases = [
            (
                "a descriptor that is not open",
                Operation::Read,
                9999,
                0,
                good,
                libc::EBADF,
            ),
            ("no descriptor", Operation::Write, -1, 0, good, libc::EBADF),
            (
                "read-only",
                Operation::Write,
                read_only.buffered(),
                0,
                good,
                libc::EBADF,
            ),
            (
                "read to a bad pointer",
                Operation::Read,
                fd,
                0,
                bad,
                libc::EFAULT,
            ),
            (
                "write from a bad pointer",
                Operation::Write,
                fd,
                0,
                bad,
                libc::EFAULT,
            ),
            (
                "a negative offset",
                Operation::Read,
                fd,
                1 << 63,
                good,
                libc::EINVAL,
            ),
            (
                "the offset that means here",
                Operation::Read,
                fd,
                u64::MAX,
                good,
                libc::EINVAL,
            ),
        ];
        for (what, operation, fd, offset, place, errno) in cases {
            let got = one(&mut *queue, request(operation, fd, offset, place));
            assert_eq!(got, -errno, "{name}: {what}, queue");
            // SAFETY: the kernel answers bad pointers with EFAULT and writes nothing.
            let got = unsafe {
                match operation {
                    Operation::Read => io.read_at(fd, place.0, 16, offset),
                    Operation::Write => io.write_at(fd, place.0, 16, offset),
                }
            };
            assert_eq!(got, -i64::from(errno), "{name}: {what}, single");
        }
        assert_eq!(io.sync(9999), -i64::from(libc::EBADF), "{name}");
        assert!(
            std::fs::read(&scratch.0).unwrap() == pattern(0, 8192),
            "{name}"
        );
    }
}

#[test]
fn direct_io_wants_its_alignment() {
    for (name, io) in all() {
        let scratch = Scratch::new("direct", 1 << 20);
        let file = scratch.open();
        let Some(fd) = file.direct() else {
            let reason = file.capabilities().direct_reason.clone().unwrap();
            println!("skipped: {name}: {reason}");
            continue;
        };
        let alignment = file.capabilities().direct_offset_alignment as usize;
        let mut pages = Pages::new(1 << 18);
        let mut queue = io.queue(2).unwrap();
        let place = (pages.pointer(), 1 << 18);
        let got = one(&mut *queue, request(Operation::Read, fd, 1 << 18, place));
        assert_eq!(got, 1 << 18, "{name}");
        assert!(pages.bytes() == pattern(1 << 18, 1 << 18), "{name}");
        let place = (pages.pointer(), alignment);
        let got = one(&mut *queue, request(Operation::Write, fd, 0, place));
        assert_eq!(got, alignment as i32, "{name}");
        let start = std::fs::read(&scratch.0).unwrap();
        assert!(start[..alignment] == pages.bytes()[..alignment], "{name}");
        // btrfs, tmpfs and a few more serve misaligned direct I/O through the page cache.
        if !["ext4", "xfs", "block"].contains(&file.capabilities().file_system) {
            println!(
                "skipped: {name}: {} may align itself",
                file.capabilities().file_system
            );
            continue;
        }
        let odd = request(Operation::Read, fd, 1, place);
        assert_eq!(one(&mut *queue, odd), -libc::EINVAL, "{name}: offset");
        let odd = request(Operation::Write, fd, 0, (place.0, alignment - 1));
        assert_eq!(one(&mut *queue, odd), -libc::EINVAL, "{name}: size");
    }
}

#[test]
fn dropping_waits_for_what_is_in_flight() {
    const PIECE: usize = 1 << 20;
    const COUNT: usize = 16;
    for elsewhere in [false, true] {
        for (name, io) in all() {
            let scratch = Scratch::new("drop", PIECE * COUNT);
            let file = scratch.open();
            assert_eq!(Posix.sync(file.buffered()), 0);
            let fd = file.direct().unwrap_or(file.buffered());
            let mut pages = Pages::new(PIECE * COUNT);
            let base = pages.pointer();
            let mut queue = io.queue(COUNT).unwrap();
            for piece in 0..COUNT {
                // SAFETY: `pages` outlives the queue, which is dropped below.
                let pushed = unsafe {
                    let place = (base.add(piece * PIECE), PIECE);
                    queue.push(request(Operation::Read, fd, (piece * PIECE) as u64, place))
                };
                assert!(pushed);
            }
            queue.submit().unwrap();
            if elsewhere {
                // Not the thread that submitted: the kernel refuses to wait there.
                std::thread::spawn(move || drop(queue)).join().unwrap();
            } else {
                drop(queue);
                let expected = pattern(0, PIECE * COUNT);
                assert!(
                    pages.bytes() == expected,
                    "{name}: a read ended after the drop"
                );
            }
            // The kernel writes nothing from here on: what is put there stays.
            pages.memory.fill(0x11);
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(
                pages.bytes().iter().all(|b| *b == 0x11),
                "{name}: written after the drop"
            );
        }
    }
}

#[test]
fn an_idle_queue_moves_between_threads() {
    for (name, io) in all() {
        let scratch = Scratch::new("move", 1 << 16);
        let file = Arc::new(scratch.open());
        let mut queue = io.queue(2).unwrap();
        let mut memory = vec![0u8; 1 << 16];
        // SAFETY: `memory` lives until the end of this body, the queue too.
        let registered = unsafe { queue.register_memory(memory.as_mut_ptr(), memory.len()) };
        for round in 0..3u64 {
            let place = memory.as_mut_ptr() as usize;
            let file = Arc::clone(&file);
            queue = std::thread::spawn(move || {
                let mut read = request(
                    Operation::Read,
                    file.buffered(),
                    round,
                    (place as *mut u8, 1000),
                );
                read.registered = registered;
                assert_eq!(one(&mut *queue, read), 1000, "round {round}");
                queue
            })
            .join()
            .unwrap();
            assert_eq!(memory[..1000], pattern(round as usize, 1000), "{name}");
        }
    }
}

#[test]
fn registered_memory_reads_and_writes() {
    for (name, io) in all() {
        let scratch = Scratch::new("registered", 1 << 20);
        let file = scratch.open();
        let mut pages = Pages::new(1 << 19);
        let base = pages.pointer();
        let mut queue = io.queue(8).unwrap();
        // SAFETY: `pages` outlives the queue: it was made before it.
        let registered = unsafe { queue.register_memory(base, 1 << 19) };
        println!(
            "{name}: registered memory {}",
            if registered { "taken" } else { "declined" }
        );
        if name.contains("uring") && locked_memory_limit() >= 8 << 20 {
            assert!(registered, "{name}");
        }
        // SAFETY: as above; nothing is written.
        let again = unsafe { queue.register_memory(base, 1 << 19) };
        assert!(!again, "{name}: once is enough");
        let fds = [Some(file.buffered()), file.direct()];
        for fd in fds.into_iter().flatten() {
            for (at, offset) in [(0, 0), (4096, 8192), (1 << 18, 1 << 18)] {
                // SAFETY: inside `pages`.
                let place = (unsafe { base.add(at) }, 65536);
                let read = Request {
                    registered: true,
                    ..request(Operation::Read, fd, offset, place)
                };
                assert_eq!(one(&mut *queue, read), 65536, "{name}");
                let got = &pages.bytes()[at..at + 65536];
                assert!(got == pattern(offset as usize, 65536), "{name} at {offset}");
                let write = Request {
                    operation: Operation::Write,
                    ..read
                };
                assert_eq!(one(&mut *queue, write), 65536, "{name}");
            }
        }
        // Said to be registered and is not, in part or at all: it works all the same.
        let mut other = vec![0u8; 512];
        let place = (other.as_mut_ptr(), 512);
        let read = Request {
            registered: true,
            ..request(Operation::Read, file.buffered(), 5, place)
        };
        assert_eq!(one(&mut *queue, read), 512, "{name}");
        assert_eq!(other, pattern(5, 512), "{name}");
        assert!(
            std::fs::read(&scratch.0).unwrap() == pattern(0, 1 << 20),
            "{name}"
        );
    }
}

#[test]
fn a_blocked_wait_sleeps_and_wakes() {
    // A pipe as the descriptor: nothing comes until the other thread writes. The offset of a
    // pipe must be 0 for io_uring and is refused by pread, so this is for io_uring alone.
    if Uring::probe().is_err() {
        println!("skipped: no io_uring here");
        return;
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut queue = Uring.queue(1).unwrap();
    let mut memory = [0u8; 4];
    let read = request(
        Operation::Read,
        reader.as_raw_fd(),
        0,
        (memory.as_mut_ptr(), 4),
    );
    // SAFETY: `memory` lives until the completion is reaped below.
    assert!(unsafe { queue.push(read) });
    queue.submit().unwrap();
    let mut done = Vec::new();
    queue.wait(0, &mut done).unwrap();
    assert!(done.is_empty());
    let before = thread_cpu_ns();
    let helper = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        std::io::Write::write_all(&mut writer, b"wake").unwrap();
    });
    queue.wait(1, &mut done).unwrap();
    let spent = thread_cpu_ns() - before;
    helper.join().unwrap();
    assert_eq!((done.len(), done[0].result), (1, 4));
    assert_eq!(&memory, b"wake");
    // Processor time and not a timing: a wait that spins burns all of the 300 ms.
    assert!(
        spent < 150_000_000,
        "the wait burned {spent} ns of processor time"
    );
}

fn locked_memory_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit.rlim_cur
}

fn thread_cpu_ns() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[test]
fn durable_writes_write_and_answer_as_others_do() {
    for (name, io) in all() {
        let scratch = Scratch::new("durable", 100_000);
        let file = scratch.open();
        let bytes: Vec<u8> = (0..5000).map(|i| i as u8 ^ 0x5a).collect();
        let mut got = vec![0; bytes.len()];
        let fd = file.buffered();
        // SAFETY: both vectors have that many bytes.
        let (wrote, read) = unsafe {
            (
                io.write_durable_at(fd, bytes.as_ptr(), bytes.len(), 98_765),
                io.read_at(fd, got.as_mut_ptr(), got.len(), 98_765),
            )
        };
        assert_eq!((wrote, read), (5000, 5000), "{name}");
        assert!(got == bytes, "{name}");
        // SAFETY: nothing is at -1.
        let wrong = unsafe { io.write_durable_at(-1, bytes.as_ptr(), bytes.len(), 0) };
        assert_eq!(wrong, -i64::from(libc::EBADF), "{name}");
        let whole = io.write_whole_durable(fd, &bytes, 7).and_then(|()| {
            got.fill(0);
            io.read_whole(fd, &mut got, 7)
        });
        assert_eq!((whole, got == bytes), (Ok(5000), true), "{name}");
    }
}
