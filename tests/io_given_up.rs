//! Reads that are given up while the kernel works at them, many times: queues and tickets dropped,
//! cancelled, out of time, with answers of "again" and "interrupted" in between. What the memory
//! of such a read holds afterwards stays as it is, since it may be somebody else's by then.
//!
//! `GDS_IO_GIVEN_UP=n` reads a test; `GDS_KV_NIGHTLY=1` those of a night. AddressSanitizer sees
//! more of it (`scripts/nightly memory`).

#![allow(clippy::print_stdout)]

mod common;
mod kv_driver;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use common::{Folder, context_over, evict, open, small_config};
use gds_rs::ErrorKind;
use gds_rs::engine::{Options, Transfer};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::uring::Uring;
use gds_rs::io::{FileDescriptors, Io, OpenMode, Operation, Queue, Request};
use gds_rs::kv::disk::Blocks;
use kv_driver::{Random, amount};

const FILE: usize = 4 << 20;
/// What is written into memory that was given up.
const MINE: u8 = 0x11;

/// Memory that was given up is looked at later again.
#[derive(Default)]
struct GivenUp(Vec<Blocks>);

impl GivenUp {
    fn take(&mut self, mut memory: Blocks) {
        memory.fill(MINE);
        self.0.push(memory);
        if self.0.len() > 8 {
            self.look();
            self.0.drain(..4);
        }
    }

    fn look(&self) {
        let same = self.0.iter().all(|m| m.iter().all(|b| *b == MINE));
        assert!(same, "memory was written after its read was given up");
    }
}

fn ways() -> Vec<Arc<dyn Io>> {
    let mut ways: Vec<Arc<dyn Io>> = vec![Arc::new(Posix)];
    match Uring::probe() {
        Ok(()) => ways.push(Arc::new(Uring)),
        Err(e) => println!("skipped: io_uring: {e}"),
    }
    let plan = FaultPlan {
        again: 0.2,
        interrupted: 0.2,
        short_read: 0.2,
        ..FaultPlan::default()
    };
    let shaky = ways.last().map(Arc::clone);
    ways.extend(shaky.map(|io| Arc::new(Fault::new(io, plan)) as Arc<dyn Io>));
    ways
}

/// One queue: pushed, perhaps submitted, perhaps waited for, and dropped, here or elsewhere.
fn queue_life(io: &dyn Io, fd: RawFd, random: &mut Random, given_up: &mut GivenUp) -> u64 {
    let depth = 1 + random.below(16) as usize;
    let mut queue: Box<dyn Queue> = io.queue(depth).expect("a queue");
    let mut memory = Vec::new();
    let mut reads = 0;
    for _ in 0..random.below(24) {
        let size = 4096 << random.below(7);
        let mut blocks = Blocks::new(size).expect("memory");
        let request = Request {
            operation: Operation::Read,
            fd,
            offset: random.below((FILE - size) as u64 / 4096) * 4096,
            pointer: blocks.as_mut_ptr(),
            size: size as u32,
            registered: false,
            token: reads,
        };
        // SAFETY: `memory` keeps the blocks until the queue has been dropped.
        if !unsafe { queue.push(request) } {
            queue.submit().expect("submitted");
        } else {
            reads += 1;
        }
        memory.push(blocks);
        if random.below(6) == 0 {
            queue.submit().expect("submitted");
        }
        if random.below(12) == 0 && queue.in_flight() > 0 {
            queue.wait(1, &mut Vec::new()).expect("an answer");
        }
    }
    if random.below(4) > 0 {
        queue.submit().expect("submitted");
    }
    if random.below(8) == 0 {
        let elsewhere = std::thread::spawn(move || drop(queue));
        elsewhere.join().expect("dropped");
    } else {
        drop(queue);
    }
    memory.into_iter().for_each(|m| given_up.take(m));
    reads
}

#[test]
fn queues_end_their_reads_before_they_are_gone() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", FILE);
    let file = FileDescriptors::open(&path, OpenMode::read_only()).expect("opens");
    let fd = file.direct().unwrap_or(file.buffered());
    let most = amount("GDS_IO_GIVEN_UP", 600, 10_000);
    for io in ways() {
        let (mut random, mut given_up) = (Random(5), GivenUp::default());
        let (mut reads, mut lives) = (0, 0);
        while reads < most {
            reads += queue_life(&*io, fd, &mut random, &mut given_up);
            lives += 1;
        }
        given_up.look();
        println!("{}: {reads} reads of {lives} queues", io.name());
    }
}

#[test]
fn tickets_end_their_reads_before_they_are_gone() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", FILE);
    evict(&path);
    let most = amount("GDS_IO_GIVEN_UP", 600, 10_000);
    for io in ways() {
        let name = io.name();
        let context = context_over(small_config(), io);
        let (mut random, mut given_up) = (Random(6), GivenUp::default());
        let (mut reads, mut whole, mut ended) = (0, 0, 0);
        while reads < most {
            let file = open(&context, &path);
            let deadline = [None, Some(Duration::from_micros(random.below(400)))];
            let options = Options {
                deadline: deadline[random.below(2) as usize],
                ..Options::default()
            };
            let mut memory = Vec::new();
            let mut transfers = Vec::new();
            for _ in 0..1 + random.below(4) {
                let size = 4096 << random.below(9);
                let mut blocks = Blocks::new(size).expect("memory");
                // SAFETY: `memory` keeps the blocks until the ticket has been dropped.
                let buffer = unsafe { context.wrap(blocks.as_mut_ptr() as u64, size as u64) };
                transfers.push(Transfer {
                    operation: Operation::Read,
                    file: file.clone(),
                    file_offset: random.below((FILE - size) as u64),
                    buffer: buffer.expect("ordinary memory"),
                    buffer_offset: 0,
                    size: size as u64,
                });
                memory.push(blocks);
            }
            reads += transfers.len() as u64;
            let ticket = context.submit(transfers, &options).expect("submitted");
            // Nobody but the ticket holds the file and the buffers now.
            drop(file);
            match random.below(4) {
                0 => ticket.cancel(),
                1 => drop(ticket.wait(Some(Duration::from_micros(random.below(200))))),
                2 => match ticket.wait(None) {
                    Ok(_) => whole += 1,
                    Err(error) => {
                        // "Again" so often that it was tried no more.
                        let tired = name == "fault" && error.kind() == ErrorKind::Io;
                        assert!(tired || error.kind() == ErrorKind::TimedOut, "{error}");
                        ended += 1;
                    }
                },
                _ => {}
            }
            drop(ticket);
            memory.into_iter().for_each(|m| given_up.take(m));
        }
        given_up.look();
        println!("{name}: {reads} reads, {whole} tickets came whole, {ended} ended in time");
        assert!(whole > 0);
    }
}
