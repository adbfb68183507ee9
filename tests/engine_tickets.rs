//! Tickets: poll, wait, deadline, cancel, eventfd, future; memory is never left under a transfer.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::Duration;

use common::*;
use gds_rs::ErrorKind;
use gds_rs::config::PathPolicy;
use gds_rs::engine::{Context, Options, Ticket, Transfer};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::{OpenMode, Operation};

/// A context whose every operation takes at least `pause`, on one thread.
fn slow(pause: Duration) -> Context {
    let plan = FaultPlan {
        delay: Some(pause),
        ..FaultPlan::default()
    };
    let config = gds_rs::Config {
        io_threads: 1,
        ..small_config()
    };
    context_over(config, Arc::new(Fault::new(Arc::new(Posix), plan)))
}

fn start(context: &Context, folder: &Folder, options: &Options) -> (Ticket, Vec<u8>) {
    let (path, data) = folder.file("t", 8 << 20);
    let file = open(context, &path);
    let buffer = alloc(context, 8 << 20);
    let transfer = Transfer {
        operation: Operation::Read,
        file,
        file_offset: 0,
        buffer,
        buffer_offset: 0,
        size: 8 << 20,
    };
    (
        context.submit(vec![transfer], options).expect("submitted"),
        data,
    )
}

#[test]
fn a_wait_that_runs_out_leaves_the_transfer_going() {
    let folder = Folder::new();
    let context = slow(Duration::from_millis(5));
    let (ticket, data) = start(&context, &folder, &Options::default());
    let error = ticket
        .wait(Some(Duration::from_millis(1)))
        .expect_err("still going");
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert!(!ticket.is_done());
    assert!(ticket.completion().is_none() && ticket.result(0).is_none());
    assert_eq!(ticket.wait(None).expect("read").bytes, data.len() as u64);
    assert_eq!(ticket.progress(), data.len() as u64);
    assert!(ticket.result(1).is_none(), "there is one transfer");
}

#[test]
fn a_cancelled_transfer_says_so_and_stops_early() {
    let folder = Folder::new();
    let context = slow(Duration::from_millis(3));
    let (ticket, data) = start(&context, &folder, &Options::default());
    ticket.cancel();
    let error = ticket.wait(None).expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(ticket.progress() < data.len() as u64);
    ticket.cancel();
    assert_eq!(context.metrics().read.errors, 1);
}

#[test]
fn cancelling_what_is_done_changes_nothing() {
    let folder = Folder::new();
    let context = context();
    let (ticket, data) = start(&context, &folder, &Options::default());
    ticket.wait(None).expect("read");
    ticket.cancel();
    assert_eq!(
        ticket.completion().expect("done").expect("read").bytes,
        data.len() as u64
    );
}

#[test]
fn a_deadline_stops_what_has_not_started() {
    let folder = Folder::new();
    let context = slow(Duration::from_millis(5));
    let options = Options {
        deadline: Some(Duration::from_millis(20)),
        ..Options::default()
    };
    let (ticket, data) = start(&context, &folder, &options);
    let error = ticket.wait(None).expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(ticket.progress() < data.len() as u64);
}

#[test]
fn polling_alone_sees_a_passed_deadline() {
    let folder = Folder::new();
    let context = slow(Duration::from_millis(5));
    let options = Options {
        deadline: Some(Duration::from_millis(10)),
        ..Options::default()
    };
    let (ticket, _) = start(&context, &folder, &options);
    while !ticket.is_done() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = ticket.completion().expect("done").expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn a_deadline_in_time_does_no_harm() {
    let folder = Folder::new();
    let options = Options {
        deadline: Some(Duration::from_secs(600)),
        ..Options::default()
    };
    let context = context();
    let (ticket, data) = start(&context, &folder, &options);
    assert_eq!(ticket.wait(None).expect("read").bytes, data.len() as u64);
}

#[test]
fn dropping_a_ticket_waits_until_the_memory_is_free() {
    let folder = Folder::new();
    let (path, _) = folder.file("d", 8 << 20);
    let context = slow(Duration::from_millis(2));
    let mut memory = vec![0u8; 8 << 20];
    // SAFETY: the memory outlives the buffer and every transfer, which is what is tested.
    let buffer = unsafe { context.wrap(memory.as_mut_ptr() as u64, memory.len() as u64) };
    let transfer = Transfer {
        operation: Operation::Read,
        file: open(&context, &path),
        file_offset: 0,
        buffer: buffer.expect("ordinary memory"),
        buffer_offset: 0,
        size: 8 << 20,
    };
    let ticket = context
        .submit(vec![transfer], &Options::default())
        .expect("submitted");
    std::thread::sleep(Duration::from_millis(5));
    drop(ticket);
    let seen = memory.clone();
    std::thread::sleep(Duration::from_millis(30));
    assert!(memory == seen, "a transfer wrote after its ticket was gone");
}

#[test]
fn an_eventfd_becomes_readable_at_the_end() {
    let folder = Folder::new();
    for early in [true, false] {
        let context = slow(Duration::from_millis(1));
        let (ticket, _) = start(&context, &folder, &Options::default());
        if !early {
            ticket.wait(None).expect("read");
        }
        let fd = ticket.event_fd().expect("an eventfd");
        assert_eq!(ticket.event_fd().expect("the same"), fd);
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live entry.
        let ready = unsafe { libc::poll(&mut poll, 1, 60_000) };
        assert_eq!((ready, poll.revents & libc::POLLIN), (1, libc::POLLIN));
        assert!(ticket.is_done());
    }
}

struct Flag(AtomicBool, std::thread::Thread);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        self.1.unpark();
    }
}

#[test]
fn a_ticket_is_a_future_that_wakes_its_task() {
    let folder = Folder::new();
    let context = slow(Duration::from_millis(1));
    let (mut ticket, data) = start(&context, &folder, &Options::default());
    let flag = Arc::new(Flag(AtomicBool::new(false), std::thread::current()));
    let waker = Waker::from(flag.clone());
    let mut task = TaskContext::from_waker(&waker);
    let done = loop {
        match std::pin::Pin::new(&mut ticket).poll(&mut task) {
            std::task::Poll::Ready(done) => break done,
            std::task::Poll::Pending => {
                while !flag.0.swap(false, Ordering::SeqCst) {
                    std::thread::park_timeout(Duration::from_secs(60));
                }
            }
        }
    };
    assert_eq!(done.expect("read").bytes, data.len() as u64);
}

#[test]
fn one_failed_transfer_of_a_batch_leaves_the_others_whole() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 1 << 20);
    let plan = FaultPlan {
        io_error_at: Some(300_000..300_001),
        ..FaultPlan::default()
    };
    let context = context_over(small_config(), Arc::new(Fault::new(Arc::new(Posix), plan)));
    let file = open(&context, &path);
    let buffer = alloc(&context, 1 << 20);
    let transfers: Vec<Transfer> = (0..16u64)
        .map(|i| Transfer {
            operation: Operation::Read,
            file: file.clone(),
            file_offset: i << 16,
            buffer: buffer.clone(),
            buffer_offset: i << 16,
            size: 1 << 16,
        })
        .collect();
    let ticket = context
        .submit(transfers, &Options::default())
        .expect("submitted");
    let error = ticket.wait(None).expect_err("one failed");
    assert_eq!(error.errno(), libc::EIO);
    assert_eq!(error.path(), Some(path.as_path()));
    for i in 0..16 {
        let result = ticket.result(i).expect("done");
        assert_eq!(result.is_err(), i == 4, "transfer {i}");
        if i != 4 {
            assert!(bytes(&buffer)[i << 16..(i + 1) << 16] == data[i << 16..(i + 1) << 16]);
        }
    }
}

#[test]
fn many_threads_share_a_context() {
    let folder = Folder::new();
    let (path, data) = folder.file("m", 4 << 20);
    let context = context();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (context, path, data) = (&context, &path, &data);
            scope.spawn(move || {
                let file = open(context, path);
                let buffer = alloc(context, 1 << 20);
                for round in 0..20u64 {
                    let size = [100, 4096, 70_000, 1 << 20][(round % 4) as usize];
                    let offset = (thread * 37_003 + round * 91_001) % (3 << 20);
                    let policy = [PathPolicy::Auto, PathPolicy::Direct][(round % 2) as usize];
                    let options = Options {
                        path: Some(policy),
                        ..Options::default()
                    };
                    let done = file
                        .read_with(offset, &buffer, 0, size, &options)
                        .expect("read");
                    assert_eq!(done.bytes, size);
                    let want = &data[offset as usize..(offset + size) as usize];
                    assert!(&bytes(&buffer)[..size as usize] == want);
                }
            });
        }
    });
    assert_eq!(context.metrics().read.operations, 160);
    assert_eq!(context.metrics().active_buffers, 0);
}

#[test]
fn closing_order_does_not_matter() {
    let folder = Folder::new();
    let (path, data) = folder.file("o", 2 << 20);
    let context = slow(Duration::from_millis(1));
    let file = open(&context, &path);
    let buffer = alloc(&context, 2 << 20);
    let transfer = Transfer {
        operation: Operation::Read,
        file: file.clone(),
        file_offset: 0,
        buffer: buffer.clone(),
        buffer_offset: 0,
        size: 2 << 20,
    };
    let ticket = context
        .submit(vec![transfer], &Options::default())
        .expect("submitted");
    drop(context);
    drop(file);
    drop(buffer);
    assert_eq!(ticket.wait(None).expect("read").bytes, data.len() as u64);
    let late = Context::open(small_config()).expect("another");
    assert!(late.open_file(&path, OpenMode::read_only()).is_ok());
}

#[test]
fn single_pieces_never_wait_for_a_thread_that_may_not_take_them() {
    let folder = Folder::new();
    let (path, _) = folder.file("s", 8 << 20);
    let config = gds_rs::Config {
        io_threads: 16,
        ..small_config()
    };
    let context = context_over(config, gds_rs::io::best());
    let file = open(&context, &path);
    let buffer = alloc(&context, 8 << 20);
    for round in 0..400u64 {
        let transfer = Transfer {
            operation: Operation::Read,
            file: file.clone(),
            file_offset: 0,
            buffer: buffer.clone(),
            buffer_offset: 0,
            size: if round % 8 == 0 { 8 << 20 } else { 4096 },
        };
        let ticket = context
            .submit(vec![transfer], &Options::default())
            .expect("submitted");
        let done = ticket.wait(Some(Duration::from_secs(60)));
        assert!(done.is_ok(), "round {round}: nobody took it");
    }
}
