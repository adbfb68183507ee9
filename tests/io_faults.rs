//! The fault double: the same seed gives the same faults, each kind shows up and is counted, and
//! a crash loses exactly the writes that were not synced.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gds_rs::io::fault::{Fault, FaultCounts, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::{Io, Operation, Request, best};

struct Scratch(PathBuf, std::fs::File);

impl Scratch {
    fn new(name: &str, size: usize) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("io_faults_{name}_{}", std::process::id()));
        std::fs::write(&path, vec![b'-'; size]).unwrap();
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        Self(path, file)
    }

    fn fd(&self) -> RawFd {
        self.1.as_raw_fd()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn fault(plan: FaultPlan) -> Fault {
    Fault::new(best(), plan)
}

fn write(io: &dyn Io, fd: RawFd, bytes: &[u8], offset: u64) -> i64 {
    // SAFETY: the slice is readable.
    unsafe { io.write_at(fd, bytes.as_ptr(), bytes.len(), offset) }
}

fn read(io: &dyn Io, fd: RawFd, bytes: &mut [u8], offset: u64) -> i64 {
    // SAFETY: the slice is writable.
    unsafe { io.read_at(fd, bytes.as_mut_ptr(), bytes.len(), offset) }
}

/// Answers of a fixed piece of work, by single operations and by a queue, in order of the work.
fn work(io: &dyn Io, fd: RawFd) -> Vec<i64> {
    let mut answers = Vec::new();
    let mut memory = vec![b'x'; 4096];
    for i in 0..100 {
        answers.push(read(io, fd, &mut memory, i * 4096));
        answers.push(write(io, fd, &memory, i * 4096));
        answers.push(io.sync(fd));
    }
    let mut queue = io.queue(8).unwrap();
    let mut done = Vec::new();
    let mut many = vec![[0u8; 4096]; 100];
    for (i, piece) in many.iter_mut().enumerate() {
        let request = Request {
            operation: if i % 2 == 0 {
                Operation::Read
            } else {
                Operation::Write
            },
            fd,
            offset: i as u64 * 4096,
            pointer: piece.as_mut_ptr(),
            size: 4096,
            registered: false,
            token: i as u64,
        };
        // SAFETY: `many` lives until all is reaped below.
        while !unsafe { queue.push(request) } {
            queue.wait(1, &mut done).unwrap();
        }
    }
    queue.wait(usize::MAX, &mut done).unwrap();
    assert_eq!((done.len(), queue.in_flight()), (100, 0));
    done.sort_by_key(|c| c.token);
    answers.extend(done.iter().map(|c| i64::from(c.result)));
    answers
}

fn everything(seed: u64) -> FaultPlan {
    FaultPlan {
        seed,
        short_read: 0.1,
        short_write: 0.1,
        interrupted: 0.1,
        again: 0.1,
        torn_write: 0.1,
        sync_error: 0.1,
        ..FaultPlan::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let run = |io: Arc<dyn Io>, seed| {
        let file = Scratch::new(&format!("seed{seed}"), 100 * 4096);
        let fault = Fault::new(io, everything(seed));
        (work(&fault, file.fd()), fault.counts())
    };
    let first = run(Arc::new(Posix), 1);
    assert_eq!(first, run(Arc::new(Posix), 1));
    assert_eq!(first, run(best(), 1), "whatever is below");
    assert_ne!(first.0, run(Arc::new(Posix), 2).0);
    let FaultCounts {
        short_reads,
        short_writes,
        interrupted,
        again,
        torn_writes,
        ..
    } = first.1;
    for count in [short_reads, short_writes, interrupted, again, torn_writes] {
        assert!(count > 0, "{:?}", first.1);
    }
    assert!(first.1.sync_errors > 0, "{:?}", first.1);
}

#[test]
fn an_empty_plan_changes_nothing() {
    let file = Scratch::new("empty", 100 * 4096);
    let fault = fault(FaultPlan::default());
    let answers = work(&fault, file.fd());
    assert!(answers.iter().all(|a| *a == 4096 || *a == 0));
    assert_eq!(fault.counts(), FaultCounts::default());
}

#[test]
fn a_retry_gets_through() {
    let file = Scratch::new("retry", 1 << 16);
    let fault = fault(FaultPlan {
        interrupted: 0.4,
        again: 0.4,
        ..FaultPlan::default()
    });
    let mut tries = 0;
    for offset in (0..1 << 16).step_by(4096) {
        loop {
            tries += 1;
            match write(&fault, file.fd(), &[b'w'; 4096], offset) {
                4096 => break,
                e => assert!(
                    e == -i64::from(libc::EINTR) || e == -i64::from(libc::EAGAIN),
                    "{e}"
                ),
            }
        }
    }
    let counts = fault.counts();
    assert_eq!(tries, 16 + counts.interrupted + counts.again);
    assert!(counts.interrupted > 0 && counts.again > 0);
    assert_eq!(file.bytes(), vec![b'w'; 1 << 16]);
}

#[test]
fn a_short_read_spoils_what_it_does_not_answer() {
    let file = Scratch::new("short", 1 << 16);
    let fault = fault(FaultPlan {
        short_read: 1.0,
        ..FaultPlan::default()
    });
    for size in [2, 100, 4096, 60_000] {
        let mut memory = vec![0; size];
        let got = read(&fault, file.fd(), &mut memory, 0) as usize;
        assert!(0 < got && got < size, "{got} of {size}");
        assert!(size <= 512 || got.is_multiple_of(512), "{got} of {size}");
        assert!(memory[..got].iter().all(|b| *b == b'-'));
        assert!(memory[got..].iter().all(|b| *b == 0xa5), "{got} of {size}");
    }
    assert_eq!(fault.counts().short_reads, 4);
}

#[test]
fn a_bad_range_fails_what_touches_it() {
    let file = Scratch::new("range", 1 << 16);
    let fault = fault(FaultPlan {
        io_error_at: Some(5000..5001),
        ..FaultPlan::default()
    });
    let mut memory = [0; 1000];
    for (offset, expected) in [
        (4000, 1000),
        (4001, -5),
        (4999, -5),
        (5000, -5),
        (5001, 1000),
    ] {
        assert_eq!(
            read(&fault, file.fd(), &mut memory, offset),
            expected,
            "{offset}"
        );
        assert_eq!(
            write(&fault, file.fd(), &memory, offset),
            expected,
            "{offset}"
        );
    }
    assert_eq!(fault.counts().io_errors, 6);
}

#[test]
fn space_runs_out_at_a_sector() {
    let file = Scratch::new("space", 0);
    let plan = FaultPlan {
        no_space_after: Some(10_000),
        ..FaultPlan::default()
    };
    let fault = fault(plan.clone());
    assert_eq!(write(&fault, file.fd(), &[1; 8192], 0), 8192);
    assert_eq!(write(&fault, file.fd(), &[1; 8192], 8192), 1536);
    for size in [8192, 512, 1] {
        let full = write(&fault, file.fd(), &vec![1; size], 9728);
        assert_eq!(full, -i64::from(libc::ENOSPC), "{size}");
    }
    assert_eq!(file.bytes().len(), 9728);
    assert_eq!(fault.counts().no_space, 4);
    fault.set_plan(FaultPlan {
        no_space_after: None,
        ..plan
    });
    assert_eq!(
        write(&fault, file.fd(), &[1; 8192], 9728),
        8192,
        "space was freed"
    );
}

#[test]
fn a_torn_write_answers_its_part_and_then_fails_once() {
    let file = Scratch::new("torn", 1 << 16);
    let fault = fault(FaultPlan {
        torn_write: 1.0,
        seed: 5,
        ..FaultPlan::default()
    });
    assert_eq!(
        write(&fault, file.fd(), &[1; 512], 0),
        512,
        "a sector is whole"
    );
    let part = write(&fault, file.fd(), &[b't'; 8192], 4096);
    assert!(
        0 < part && part < 8192 && part.unsigned_abs().is_multiple_of(512),
        "{part}"
    );
    let at = 4096 + part as u64;
    let rest = vec![b't'; 8192 - part as usize];
    assert_eq!(write(&fault, file.fd(), &rest, at), -i64::from(libc::EIO));
    let bytes = file.bytes();
    assert!(bytes[4096..at as usize].iter().all(|b| *b == b't'));
    assert!(bytes[at as usize..].iter().all(|b| *b == b'-'));
    fault.set_plan(FaultPlan::default());
    assert_eq!(write(&fault, file.fd(), &rest, at), rest.len() as i64);
    let counts = fault.counts();
    assert_eq!((counts.torn_writes, counts.torn_errors), (1, 1));
}

#[test]
fn a_delay_is_at_least_that_long() {
    let file = Scratch::new("delay", 4096);
    let delay = Duration::from_millis(20);
    let fault = fault(FaultPlan {
        delay: Some(delay),
        ..FaultPlan::default()
    });
    let start = Instant::now();
    assert_eq!(write(&fault, file.fd(), &[1; 8], 0), 8);
    // What the double promises, not how fast anything is: sleeping never ends early.
    assert!(start.elapsed() >= delay);
}

#[test]
fn a_crash_loses_exactly_what_was_not_synced() {
    for queued in [false, true] {
        let file = Scratch::new(&format!("crash{queued}"), 10_000);
        let fault = fault(FaultPlan {
            undo: true,
            ..FaultPlan::default()
        });
        let put = |bytes: &mut [u8], offset| {
            if !queued {
                assert_eq!(write(&fault, file.fd(), bytes, offset), bytes.len() as i64);
                return;
            }
            let mut queue = fault.queue(1).unwrap();
            let mut done = Vec::new();
            let request = Request {
                operation: Operation::Write,
                fd: file.fd(),
                offset,
                pointer: bytes.as_mut_ptr(),
                size: bytes.len() as u32,
                registered: false,
                token: 0,
            };
            // SAFETY: `bytes` lives until the completion is reaped.
            assert!(unsafe { queue.push(request) });
            queue.wait(1, &mut done).unwrap();
            assert_eq!(done[0].result as usize, bytes.len());
        };
        put(&mut [b'a'; 5000], 100);
        put(&mut [b'b'; 5000], 8000);
        assert_eq!(fault.unsynced(), 2);
        assert_eq!(fault.sync(file.fd()), 0);
        assert_eq!(fault.unsynced(), 0);
        let durable = file.bytes();
        assert_eq!(durable.len(), 13_000);
        put(&mut [b'c'; 3000], 4000);
        put(&mut [b'd'; 3000], 5000);
        put(&mut [b'e'; 3000], 20_000);
        assert_eq!(file.bytes().len(), 23_000);
        assert_eq!(file.bytes()[4000], b'c');
        assert_eq!(fault.crash().unwrap(), 3);
        assert!(file.bytes() == durable);
        assert_eq!(fault.crash().unwrap(), 0, "what is durable stays");
        assert!(file.bytes() == durable);
    }
}

#[test]
fn a_lost_sync_says_0_and_a_crash_tells() {
    let file = Scratch::new("lost", 4096);
    let lying = FaultPlan {
        lost_sync: true,
        ..FaultPlan::default()
    };
    let fault = fault(lying.clone());
    assert_eq!(write(&fault, file.fd(), b"lost", 0), 4);
    assert_eq!(fault.sync(file.fd()), 0);
    assert_eq!((fault.counts().lost_syncs, fault.unsynced()), (1, 1));
    assert_eq!(fault.crash().unwrap(), 1);
    assert_eq!(file.bytes(), vec![b'-'; 4096]);
    // A disk that is honest again keeps it.
    assert_eq!(write(&fault, file.fd(), b"kept", 0), 4);
    fault.set_plan(FaultPlan {
        lost_sync: false,
        undo: true,
        ..lying
    });
    assert_eq!(fault.sync(file.fd()), 0);
    assert_eq!(fault.crash().unwrap(), 0);
    assert_eq!(&file.bytes()[..4], b"kept");
}

#[test]
fn a_failed_sync_makes_nothing_durable() {
    let file = Scratch::new("sync", 4096);
    let fault = fault(FaultPlan {
        sync_error: 1.0,
        undo: true,
        ..FaultPlan::default()
    });
    assert_eq!(write(&fault, file.fd(), b"gone", 0), 4);
    assert_eq!(fault.sync(file.fd()), -i64::from(libc::EIO));
    assert_eq!(fault.crash().unwrap(), 1);
    assert_eq!(file.bytes(), vec![b'-'; 4096]);
}

#[test]
fn a_sync_of_one_file_leaves_the_other() {
    let (kept, lost) = (Scratch::new("kept", 10), Scratch::new("other", 10));
    let fault = fault(FaultPlan {
        undo: true,
        ..FaultPlan::default()
    });
    for file in [&kept, &lost] {
        assert_eq!(write(&fault, file.fd(), b"new", 0), 3);
    }
    assert_eq!(fault.sync(kept.fd()), 0);
    assert_eq!(fault.crash().unwrap(), 1);
    assert_eq!(kept.bytes(), b"new-------");
    assert_eq!(lost.bytes(), b"----------");
}
