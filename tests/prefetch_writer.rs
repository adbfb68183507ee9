//! The streaming writer: buffers land in the file in the order in which they were submitted.

mod common;
mod late_device;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use gds_rs::ErrorKind;
use gds_rs::engine::Stream;
use gds_rs::io::OpenMode;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::prefetch::{BufferState, Space, Writer, WriterConfig};
use late_device::LateDevice;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

fn config(buffers: u32, chunk_bytes: u64) -> WriterConfig {
    WriterConfig {
        buffers,
        chunk_bytes,
        ..WriterConfig::default()
    }
}

/// The memory of a buffer of a host writer.
fn fill(space: &Space, bytes: &[u8]) {
    assert!(bytes.len() as u64 <= space.size);
    // SAFETY: host memory of a buffer that is out.
    unsafe { (space.address as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

fn until(writer: &Writer, buffer: u32, state: BufferState) {
    while writer.state(buffer) != Some(state) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_submitted_lands_in_order_from_the_offset_on() {
    let folder = Folder::new();
    let context = context();
    let data = pattern(1_000_003, 5);
    for (buffers, chunk, offset) in [(2, 4096, 0), (3, 5000, 777), (8, 100_000, 4096)] {
        let path = folder.path("w");
        std::fs::write(&path, vec![9; 500]).expect("written");
        let file = context
            .open_file(&path, OpenMode::read_write())
            .expect("opens");
        let writer = Writer::open(&file, offset, &config(buffers, chunk)).expect("opens");
        for (index, part) in data.chunks(chunk as usize).enumerate() {
            let space = writer.acquire(MINUTE).expect("a buffer");
            fill(&space, part);
            let stream = (index % 2 == 0).then_some(Stream(0));
            let at = writer
                .submit(&space, part.len() as u64, stream)
                .expect("submitted");
            assert_eq!(at, offset + index as u64 * chunk);
        }
        assert_eq!(writer.finish().expect("written"), data.len() as u64);
        assert_eq!(writer.state(0), Some(BufferState::Idle));
        let found = std::fs::read(&path).expect("read back");
        assert!(found[offset as usize..] == data, "{chunk} at {offset}");
        let before = (offset as usize).min(500);
        assert!(
            found[..before].iter().all(|b| *b == 9),
            "what is before stays"
        );
    }
}

#[test]
fn a_buffer_is_written_after_the_stream_that_fills_it() {
    let folder = Folder::new();
    let device = LateDevice::new();
    let context = device.context(small_config(), Arc::new(Posix));
    let file = open_to_write(&context, &folder.path("s"));
    let writer = Writer::open(&file, 0, &config(2, 4096)).expect("opens");
    let first = writer.acquire(MINUTE).expect("a buffer");
    assert_eq!(writer.state(first.buffer), Some(BufferState::Filling));
    writer
        .submit(&first, 4096, Some(LateDevice::stream(1)))
        .expect("submitted");
    assert_eq!(writer.state(first.buffer), Some(BufferState::Processing));
    let second = writer.acquire(MINUTE).expect("the other buffer");
    fill(&second, &[2; 4096]);
    assert_eq!(writer.submit(&second, 4096, None).expect("submitted"), 4096);
    until(&writer, second.buffer, BufferState::Idle);
    // The stream fills its buffer only now, and is then through.
    fill(&first, &[1; 4096]);
    device.pass(1);
    assert_eq!(writer.finish().expect("written"), 8192);
    let found = std::fs::read(folder.path("s")).expect("read back");
    assert!(found[..4096] == [1; 4096] && found[4096..] == [2; 4096]);
}

#[test]
fn all_buffers_out_is_an_answer() {
    let folder = Folder::new();
    let plan = FaultPlan {
        delay: Some(Duration::from_millis(50)),
        ..FaultPlan::default()
    };
    let context = context_over(small_config(), Arc::new(Fault::new(Arc::new(Posix), plan)));
    let file = open_to_write(&context, &folder.path("b"));
    let writer = Writer::open(&file, 0, &config(2, 4096)).expect("opens");
    let (one, two) = (writer.acquire(MINUTE), writer.acquire(MINUTE));
    let (one, two) = (one.expect("a buffer"), two.expect("a buffer"));
    assert_ne!(one.buffer, two.buffer);
    let pause = Some(Duration::from_millis(5));
    assert_eq!(
        writer.acquire(pause).expect_err("both are out").kind(),
        ErrorKind::Pending
    );
    fill(&one, &[3; 4096]);
    writer.submit(&one, 4096, None).expect("submitted");
    assert_eq!(writer.state(one.buffer), Some(BufferState::Flushing));
    assert_eq!(
        writer.acquire(pause).expect_err("it is slow").kind(),
        ErrorKind::Pending
    );
    assert_eq!(writer.acquire(MINUTE).expect("written").buffer, one.buffer);
}

#[test]
fn a_failure_names_the_place_and_stops_the_writer() {
    let folder = Folder::new();
    let plan = FaultPlan {
        io_error_at: Some(3 * 4096 + 7..3 * 4096 + 8),
        ..FaultPlan::default()
    };
    let context = context_over(small_config(), Arc::new(Fault::new(Arc::new(Posix), plan)));
    let path = folder.path("e");
    let file = open_to_write(&context, &path);
    let writer = Writer::open(&file, 0, &config(2, 4096)).expect("opens");
    let mut failed = None;
    for index in 0..20u8 {
        let submitted = writer.acquire(MINUTE).and_then(|space| {
            fill(&space, &[index; 4096]);
            writer.submit(&space, 4096, None)
        });
        if let Err(error) = submitted {
            failed = Some(error);
            break;
        }
    }
    let failed = failed.expect("it is told before all is submitted");
    let error = writer.finish().expect_err("and in the end");
    assert_eq!(error.message(), failed.message());
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
    assert_eq!(
        (error.path(), error.offset()),
        (Some(path.as_path()), Some(3 * 4096))
    );
    let found = std::fs::read(&path).expect("read back");
    for (index, part) in found[..3 * 4096].chunks(4096).enumerate() {
        assert!(
            part.iter().all(|b| usize::from(*b) == index),
            "what came before is there"
        );
    }
}

#[test]
fn a_failed_stream_is_told_and_nothing_of_it_is_written() {
    let folder = Folder::new();
    let device = LateDevice::new();
    let context = device.context(small_config(), Arc::new(Posix));
    let file = open_to_write(&context, &folder.path("d"));
    let writer = Writer::open(&file, 0, &config(2, 4096)).expect("opens");
    let space = writer.acquire(MINUTE).expect("a buffer");
    writer
        .submit(&space, 4096, Some(LateDevice::stream(1)))
        .expect("submitted");
    let other = writer.acquire(MINUTE).expect("a buffer");
    device.break_down();
    assert_eq!(writer.finish().expect_err("failed").kind(), ErrorKind::Cuda);
    let late = writer
        .submit(&other, 10, None)
        .expect_err("not written either");
    assert_eq!(late.kind(), ErrorKind::Cuda);
    assert_eq!(file.size().expect("a size"), 0);
}

#[test]
fn dropping_a_writer_writes_what_was_submitted() {
    let folder = Folder::new();
    let device = LateDevice::new();
    let context = device.context(small_config(), Arc::new(Posix));
    let file = open_to_write(&context, &folder.path("z"));
    let writer = Writer::open(&file, 0, &config(2, 4096)).expect("opens");
    let (one, two) = (writer.acquire(MINUTE), writer.acquire(MINUTE));
    let (one, two) = (one.expect("a buffer"), two.expect("a buffer"));
    fill(&one, &[1; 100]);
    fill(&two, &[2; 100]);
    writer
        .submit(&one, 100, Some(LateDevice::stream(1)))
        .expect("submitted");
    writer.submit(&two, 100, None).expect("submitted");
    std::thread::scope(|scope| {
        let closing = scope.spawn(move || drop(writer));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!closing.is_finished(), "the stream is not through");
        device.pass(1);
        closing.join().expect("closed");
    });
    let found = std::fs::read(folder.path("z")).expect("read back");
    assert!(found[..100] == [1; 100] && found[100..] == [2; 100]);
}

#[test]
fn misuse_is_answered() {
    let folder = Folder::new();
    let (path, _) = folder.file("m", 100);
    let context = context();
    let read_only = open(&context, &path);
    let kind = |file, offset, config: &WriterConfig| {
        Writer::open(file, offset, config)
            .expect_err("refused")
            .kind()
    };
    assert_eq!(kind(&read_only, 0, &config(2, 0)), ErrorKind::ReadOnly);
    let file = open_to_write(&context, &path);
    assert_eq!(kind(&file, 0, &config(1, 0)), ErrorKind::InvalidConfig);
    assert_eq!(kind(&file, u64::MAX, &config(2, 0)), ErrorKind::OutOfRange);
    let writer = Writer::open(&file, 0, &config(2, 4096)).expect("opens");
    let space = writer.acquire(MINUTE).expect("a buffer");
    let submit = |s: &Space, size| writer.submit(s, size, None).expect_err("refused").kind();
    assert_eq!(submit(&space, 4097), ErrorKind::OutOfRange);
    assert_eq!(
        submit(&Space { buffer: 1, ..space }, 1),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        submit(&Space { buffer: 9, ..space }, 1),
        ErrorKind::InvalidArgument
    );
    writer.submit(&space, 0, None).expect("no bytes are fine");
    assert_eq!(submit(&space, 1), ErrorKind::InvalidArgument);
    assert_eq!(writer.finish().expect("nothing"), 0);
}
