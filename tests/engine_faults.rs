//! What the outside does wrong: transient errors, short reads, full disks, shrinking files.

#![allow(clippy::print_stdout)]

mod common;

use std::sync::Arc;

use common::*;
use gds_rs::ErrorKind;
use gds_rs::config::{Config, PathPolicy};
use gds_rs::engine::Options;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::uring::Uring;
use gds_rs::io::{Io, OpenMode};

fn ways() -> Vec<Arc<dyn Io>> {
    let mut ways: Vec<Arc<dyn Io>> = vec![Arc::new(Posix)];
    match Uring::probe() {
        Ok(()) => ways.push(gds_rs::io::best()),
        Err(error) => println!("skipped: io_uring: {error}"),
    }
    ways
}

#[test]
fn short_and_interrupted_reads_and_writes_are_made_whole() {
    let folder = Folder::new();
    let (path, data) = folder.file("r", (3 << 20) + 17);
    for inner in ways() {
        for policy in [PathPolicy::Direct, PathPolicy::Buffered] {
            let plan = FaultPlan {
                seed: 3,
                short_read: 0.3,
                short_write: 0.3,
                interrupted: 0.2,
                again: 0.05,
                ..FaultPlan::default()
            };
            let fault = Arc::new(Fault::new(inner.clone(), plan));
            let config = Config {
                max_retries: 16,
                backoff_ms: 0,
                ..small_config()
            };
            let context = context_over(config, fault.clone());
            let file = open_to_write(&context, &path);
            let buffer = alloc(&context, 4 << 20);
            let options = Options {
                path: Some(policy),
                ..Options::default()
            };
            for offset in [0u64, 4096, 777] {
                let size = data.len() as u64 - offset;
                let done = file
                    .read_with(offset, &buffer, 0, size, &options)
                    .expect("read");
                assert_eq!(done.bytes, size);
                assert!(bytes(&buffer)[..size as usize] == data[offset as usize..]);
                file.write_with(offset, &buffer, 0, size, &options)
                    .expect("write");
            }
            assert!(
                std::fs::read(&path).expect("read back") == data,
                "{policy:?}"
            );
            let counts = fault.counts();
            assert!(
                counts.short_reads > 0 && counts.interrupted > 0,
                "{counts:?}"
            );
            assert!(context.metrics().retries > 0);
        }
    }
}

#[test]
fn a_failed_disk_is_not_tried_again() {
    let folder = Folder::new();
    let (path, _) = folder.file("e", 2 << 20);
    let plan = FaultPlan {
        io_error_at: Some(1 << 20..(1 << 20) + 1),
        ..FaultPlan::default()
    };
    let context = context_over(small_config(), Arc::new(Fault::new(Arc::new(Posix), plan)));
    let file = open(&context, &path);
    let buffer = alloc(&context, 2 << 20);
    for policy in [PathPolicy::Direct, PathPolicy::Buffered] {
        let options = Options {
            path: Some(policy),
            ..Options::default()
        };
        let error = file
            .read_with(0, &buffer, 0, 2 << 20, &options)
            .expect_err("EIO");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
        assert!(error.message().contains("kernel's log"), "{error}");
        assert!(error.offset().is_some_and(|o| o <= 1 << 20));
    }
    assert_eq!(context.metrics().retries, 0);
}

#[test]
fn transient_errors_that_stay_end_in_an_error() {
    let folder = Folder::new();
    let (path, _) = folder.file("x", 1 << 20);
    let plan = FaultPlan {
        again: 1.0,
        ..FaultPlan::default()
    };
    let context = context_over(small_config(), Arc::new(Fault::new(Arc::new(Posix), plan)));
    let file = open(&context, &path);
    let buffer = alloc(&context, 1 << 20);
    for size in [4096u64, 1 << 20] {
        let options = Options {
            path: Some(PathPolicy::Direct),
            ..Options::default()
        };
        let error = file
            .read_with(0, &buffer, 0, size, &options)
            .expect_err("EAGAIN");
        assert_eq!(error.errno(), libc::EAGAIN);
    }
    assert!(
        context.metrics().retries >= 3,
        "it was tried again before it gave up"
    );
}

#[test]
fn a_full_disk_is_a_status_and_the_rest_of_the_file_stays() {
    let folder = Folder::new();
    let (path, data) = folder.file("n", 1 << 20);
    let plan = FaultPlan {
        no_space_after: Some(0),
        ..FaultPlan::default()
    };
    let context = context_over(small_config(), Arc::new(Fault::new(Arc::new(Posix), plan)));
    let file = context
        .open_file(&path, OpenMode::read_write())
        .expect("opens");
    let buffer = alloc(&context, 1 << 20);
    bytes(&buffer).fill(1);
    for size in [100u64, 1 << 20] {
        let error = file.write(0, &buffer, 0, size).expect_err("full");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.message().contains("free space"), "{error}");
    }
    assert!(std::fs::read(&path).expect("read") == data);
}

#[test]
fn a_file_that_shrinks_during_a_read_is_told_apart_from_its_end() {
    let folder = Folder::new();
    let (path, data) = folder.file("h", 8 << 20);
    let pause = std::time::Duration::from_millis(4);
    let plan = FaultPlan {
        delay: Some(pause),
        ..FaultPlan::default()
    };
    let config = Config {
        io_threads: 1,
        ..small_config()
    };
    let context = context_over(config, Arc::new(Fault::new(Arc::new(Posix), plan)));
    let file = open(&context, &path);
    let buffer = alloc(&context, 8 << 20);
    let options = Options {
        path: Some(PathPolicy::Buffered),
        ..Options::default()
    };
    let transfer = gds_rs::engine::Transfer {
        operation: gds_rs::io::Operation::Read,
        file: file.clone(),
        file_offset: 0,
        buffer: buffer.clone(),
        buffer_offset: 0,
        size: 8 << 20,
    };
    let ticket = context.submit(vec![transfer], &options).expect("submitted");
    std::thread::sleep(pause * 3);
    let writer = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opens");
    writer.set_len(1 << 20).expect("shrinks");
    let error = ticket.wait(None).expect_err("the file shrank");
    assert_eq!(error.kind(), ErrorKind::FileChanged);
    assert!(error.message().contains("shortened"), "{error}");
    let done = file
        .read(0, &buffer, 0, 8 << 20)
        .expect("its end is no error");
    assert_eq!(done.bytes, 1 << 20);
    assert!(bytes(&buffer)[..1 << 20] == data[..1 << 20]);
}

#[test]
fn after_a_failed_sync_the_file_is_poisoned() {
    let folder = Folder::new();
    let (path, _) = folder.file("y", 4096);
    let plan = FaultPlan {
        sync_error: 1.0,
        ..FaultPlan::default()
    };
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    let context = context_over(small_config(), fault.clone());
    let file = context
        .open_file(&path, OpenMode::read_write())
        .expect("opens");
    let buffer = alloc(&context, 4096);
    file.write(0, &buffer, 0, 4096).expect("written");
    assert_eq!(file.sync().expect_err("lost").errno(), libc::EIO);
    fault.set_plan(FaultPlan::default());
    assert_eq!(
        file.sync().expect_err("still lost").kind(),
        ErrorKind::Poisoned
    );
    assert_eq!(
        file.write(0, &buffer, 0, 1).expect_err("refused").kind(),
        ErrorKind::Poisoned
    );
    let again = context
        .open_file(&path, OpenMode::read_write())
        .expect("opens");
    again.write(0, &buffer, 0, 4096).expect("written");
    again.sync().expect("synced");
}
