//! Plans: every byte lands where the plan says, with few reads, bounded memory, and faults told.

#![allow(clippy::print_stdout)]

mod common;
mod formats_support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use formats_support::{Counting, Random};
use gds_rs::ErrorKind;
use gds_rs::config::PathPolicy;
use gds_rs::engine::{Options, Stream};
use gds_rs::formats::{Load, Plan, ReadOptions};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;

const FREE: u8 = 0xc3;

fn options(path: PathPolicy, gap: u64, scratch: u64) -> ReadOptions {
    ReadOptions {
        transfer: Options {
            path: Some(path),
            ..Options::default()
        },
        gap,
        scratch,
    }
}

/// A plan of pieces of a file of `size` bytes that do not overlap in the destination.
fn random_plan(random: &mut Random, size: u64) -> Plan {
    let mut plan = Plan::new();
    let mut at = random.below(size / 4);
    let most = [100, 3000, 90_000][random.below(3) as usize];
    let mirrors = random.below(2) == 0;
    for _ in 0..=random.below(300) {
        let piece = random.below(most).min(size - at);
        let align = [1, 8, 64, 256][random.below(4) as usize];
        if mirrors {
            plan.push_at(at, piece, at).expect("fits");
        } else {
            plan.push(at, piece, align).expect("fits");
        }
        let gap = [0, 1, 100, 30_000][random.below(4) as usize];
        at = at + piece + random.below(gap + 1);
        if at >= size {
            break;
        }
    }
    plan
}

fn expect(plan: &Plan, data: &[u8], found: &[u8], base: usize) {
    for piece in plan.pieces() {
        let from = piece.file_offset as usize..(piece.file_offset + piece.size) as usize;
        let to = base + piece.to_offset as usize;
        assert!(
            found[to..to + piece.size as usize] == data[from],
            "{piece:?}"
        );
    }
    let end = base + plan.size() as usize;
    assert!(found[..base].iter().all(|b| *b == FREE), "before the plan");
    assert!(found[end..].iter().all(|b| *b == FREE), "behind the plan");
}

#[test]
fn every_byte_lands_where_the_plan_says() {
    let folder = Folder::new();
    let (path, data) = folder.file("data", (3 << 20) + 123);
    let context = context();
    let file = open(&context, &path);
    let mut random = Random(11);
    for round in 0..60 {
        let plan = random_plan(&mut random, data.len() as u64);
        let base = random.below(5000);
        let policy = [PathPolicy::Auto, PathPolicy::Direct, PathPolicy::Buffered][round % 3];
        let gap = [0, 100, 16 << 10][random.below(3) as usize];
        let mut options = options(policy, gap, 1);
        if round % 4 == 0 {
            options.transfer.stream = Some(Stream(0));
        }
        let buffer = alloc(&context, base + plan.size() + 777);
        let load = Load::new(&file, plan.clone());
        let wanted = plan.bytes();
        bytes(&buffer).fill(FREE);
        let done = load.read(&buffer, base, &options).expect("read");
        assert_eq!(done.bytes, wanted);
        expect(&plan, &data, bytes(&buffer), base as usize);
        if wanted > 0 {
            bytes(&buffer).fill(FREE);
            let ticket = load.submit(&buffer, base, &options).expect("submitted");
            assert!(ticket.wait(None).expect("read").bytes >= wanted);
            expect(&plan, &data, bytes(&buffer), base as usize);
        }
    }
}

#[test]
fn many_small_pieces_are_few_reads() {
    let folder = Folder::new();
    let (path, data) = folder.file("data", 100_000 * 96);
    let counting = Arc::new(Counting::new(gds_rs::io::best()));
    let context = context_over(small_config(), counting.clone());
    let file = open(&context, &path);
    let mut plan = Plan::new();
    for index in 0..100_000 {
        plan.push(index * 96, 64, 64).expect("fits");
    }
    let buffer = alloc(&context, plan.size());
    let load = Load::new(&file, plan.clone());
    let outline = load.outline(ReadOptions::default().gap);
    assert_eq!((outline.pieces, outline.straight), (100_000, 0));
    assert!(outline.gathered < 20 && outline.read_bytes <= data.len() as u64);
    for policy in [PathPolicy::Direct, PathPolicy::Buffered] {
        bytes(&buffer).fill(FREE);
        counting.take();
        load.read(&buffer, 0, &options(policy, 16 << 10, 4 << 20))
            .expect("read");
        let (reads, moved) = counting.take();
        println!("{policy:?}: {reads} reads of {moved} bytes for 100000 pieces");
        assert!(reads < 500, "{policy:?}: {reads} reads");
        assert!(moved < 2 * data.len() as u64);
        expect(&plan, &data, bytes(&buffer), 0);
    }
}

#[test]
fn a_mirrored_file_is_read_in_place_around_the_page_cache() {
    let folder = Folder::new();
    let (path, data) = folder.file("data", 4 << 20);
    let context = context();
    let file = open(&context, &path);
    if file.capabilities().direct_reason.is_some() {
        println!("skipped: no O_DIRECT here");
        return;
    }
    let mut plan = Plan::new();
    for (at, size) in [(4096 + 640, 1_000_000), (2 << 20, 1_500_000)] {
        plan.push_congruent(at, size, 64).expect("fits");
    }
    let buffer = alloc(&context, plan.size());
    bytes(&buffer).fill(FREE);
    let options = options(PathPolicy::Direct, 0, 1);
    let done = Load::new(&file, plan.clone())
        .read(&buffer, 0, &options)
        .expect("read");
    assert_eq!(done.path, gds_rs::engine::Path::HostDirect);
    expect(&plan, &data, bytes(&buffer), 0);
}

#[test]
fn faults_are_made_good_or_told() {
    let folder = Folder::new();
    let (path, data) = folder.file("data", 2 << 20);
    let mut plan = Plan::new();
    for index in 0..4000 {
        plan.push(index * 500, 300, 64).expect("fits");
    }
    let shaky = FaultPlan {
        seed: 5,
        short_read: 0.3,
        interrupted: 0.2,
        ..FaultPlan::default()
    };
    let broken = FaultPlan {
        io_error_at: Some(1 << 20..(1 << 20) + 1),
        ..FaultPlan::default()
    };
    for policy in [PathPolicy::Direct, PathPolicy::Buffered] {
        let fault = Arc::new(Fault::new(Arc::new(Posix), shaky.clone()));
        let mut config = small_config();
        (config.max_retries, config.backoff_ms) = (16, 0);
        let context = context_over(config, fault.clone());
        let file = open(&context, &path);
        let buffer = alloc(&context, plan.size());
        bytes(&buffer).fill(FREE);
        let load = Load::new(&file, plan.clone());
        let options = options(policy, 1000, 1);
        load.read(&buffer, 0, &options).expect("made good");
        expect(&plan, &data, bytes(&buffer), 0);
        assert!(fault.counts().short_reads > 0);

        fault.set_plan(broken.clone());
        let error = load.read(&buffer, 0, &options).expect_err("EIO");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
    }
}

#[test]
fn what_does_not_fit_is_refused_before_a_byte_moves() {
    let folder = Folder::new();
    let (path, _) = folder.file("data", 10_000);
    let context = context();
    let file = open(&context, &path);
    let mut plan = Plan::new();
    plan.push(9000, 1000, 1).expect("fits");
    let buffer = alloc(&context, 1500);
    let load = Load::new(&file, plan);
    let read = |offset| load.read(&buffer, offset, &ReadOptions::default());
    assert!(read(500).is_ok());
    for offset in [501, u64::MAX] {
        assert_eq!(
            read(offset).expect_err("too far").kind(),
            ErrorKind::OutOfRange
        );
        let refused = load.submit(&buffer, offset, &ReadOptions::default());
        assert_eq!(refused.expect_err("too far").kind(), ErrorKind::OutOfRange);
    }
    let shorter = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opens");
    shorter.set_len(9500).expect("cut");
    let error = read(0).expect_err("cut");
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Corrupted, Some(9500))
    );
}

#[test]
fn windows_bring_each_byte_once_in_order_and_bounded_memory() {
    let folder = Folder::new();
    let (path, data) = folder.file("data", (5 << 20) + 7);
    let context = context();
    let file = open(&context, &path);
    let mut random = Random(23);
    for memory in [128 << 10, 300_000, 1 << 20, 64 << 20] {
        let mut plan = random_plan(&mut random, 4 << 20);
        // Out of the file's order, large, empty, and the same bytes again.
        plan.push(1 << 20, 3 << 20, 64).expect("fits");
        plan.push(77, 100_000, 64).expect("fits");
        plan.push(77, 0, 64).expect("fits");
        plan.push(77, 1, 64).expect("fits");
        let wanted: Vec<u8> = plan
            .pieces()
            .iter()
            .flat_map(|p| &data[p.file_offset as usize..(p.file_offset + p.size) as usize])
            .copied()
            .collect();
        let mut found: Vec<u8> = Vec::new();
        let mut last = (0, 0);
        let mut widest = 0;
        let total = plan
            .stream(&file, memory, &ReadOptions::default(), |window| {
                for part in window.parts {
                    assert_eq!(part.at % 64, 0);
                    let (piece, offset) = last;
                    let next = (part.piece, part.offset);
                    assert!(next == (piece, offset) || (part.offset == 0 && part.piece > piece));
                    last = (part.piece, part.offset + part.size);
                    let at = part.at as usize;
                    found.extend(&bytes(window.buffer)[at..at + part.size as usize]);
                }
                widest = widest.max(window.buffer.size());
                Ok(ControlFlow::Continue(()))
            })
            .expect("streamed");
        assert!(found == wanted, "{memory}");
        assert_eq!(total, wanted.len() as u64);
        assert!(2 * widest <= memory, "{widest} of {memory}");

        let mut calls = 0;
        let stopped = plan.stream(&file, memory, &ReadOptions::default(), |_| {
            calls += 1;
            Ok(ControlFlow::Break(()))
        });
        assert!(stopped.is_ok() && calls == 1);
    }
    let refused = Plan::new().stream(&file, 1000, &ReadOptions::default(), |_| {
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(
        refused.expect_err("small").kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn a_started_plan_gathers_and_can_be_waited_for_cancelled_and_dropped() {
    let folder = Folder::new();
    let (path, data) = folder.file("data", 3 << 20);
    let slow = FaultPlan {
        delay: Some(Duration::from_millis(5)),
        ..FaultPlan::default()
    };
    let fault = Arc::new(Fault::new(Arc::new(Posix), FaultPlan::default()));
    let counting = Arc::new(Counting::new(fault.clone()));
    let context = context_over(small_config(), counting.clone());
    let file = open(&context, &path);
    let mut plan = Plan::new();
    for index in 0..30_000 {
        plan.push(index * 100, 60, 64).expect("fits");
    }
    let buffer = alloc(&context, plan.size());
    let load = Load::new(&file, plan.clone());
    let options = options(PathPolicy::Direct, 1000, 1);
    for round in 0..3 {
        bytes(&buffer).fill(FREE);
        counting.take();
        let started = load.start(&buffer, 0, &options).expect("started");
        let fd = (round > 0).then(|| started.event_fd().expect("a descriptor"));
        let done = started.wait(None).expect("read");
        assert_eq!(done.bytes, plan.bytes());
        assert!(started.is_done() && started.completion().is_some_and(|r| r.is_ok()));
        assert!(counting.take().0 < 200, "gathered");
        expect(&plan, &data, bytes(&buffer), 0);
        let fd = fd.unwrap_or_else(|| started.event_fd().expect("a descriptor"));
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor that the plan keeps open.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 5000) }, 1);
    }
    fault.set_plan(slow);
    let started = load.start(&buffer, 0, &options).expect("started");
    let pending = started
        .wait(Some(Duration::from_millis(1)))
        .expect_err("slow");
    assert_eq!(pending.kind(), ErrorKind::Pending);
    started.cancel();
    assert_eq!(
        started.wait(None).expect_err("cancelled").kind(),
        ErrorKind::Cancelled
    );
    drop(load.start(&buffer, 0, &options).expect("started"));
    bytes(&buffer).fill(FREE);
    std::thread::sleep(Duration::from_millis(30));
    assert!(
        bytes(&buffer).iter().all(|b| *b == FREE),
        "nothing touches the memory any more"
    );

    // What goes straight is the engine's own, and errors are its.
    let mut plain = Plan::new();
    plain.push(0, 1 << 20, 64).expect("fits");
    let started = Load::new(&file, plain)
        .start(&buffer, 0, &options)
        .expect("started");
    assert_eq!(started.wait(None).expect("read").bytes, 1 << 20);
    let refused = load.start(&buffer, 1, &options).expect_err("does not fit");
    assert_eq!(refused.kind(), ErrorKind::OutOfRange);
}
