//! The streaming reader: every chunk in order and once, whatever is slow, fails or shrinks.

mod common;
mod late_device;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::*;
use gds_rs::engine::{Context, MemoryKind, Options, Stream};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::prefetch::{BufferState, Chunk, Range, Reader, ReaderConfig};
use gds_rs::{Error, ErrorKind};
use late_device::LateDevice;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

fn config(buffers: u32, chunk_bytes: u64) -> ReaderConfig {
    ReaderConfig {
        buffers,
        chunk_bytes,
        ..ReaderConfig::default()
    }
}

/// The bytes of a chunk of a host reader.
fn look(chunk: &Chunk) -> &[u8] {
    // SAFETY: host memory of a chunk that is out.
    unsafe { std::slice::from_raw_parts(chunk.address as *const u8, chunk.size as usize) }
}

/// A context over files that fail as the plan says, and the plan's place.
fn faulty(plan: FaultPlan) -> (Context, Arc<Fault>) {
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    (context_over(small_config(), fault.clone()), fault)
}

fn slow(pause: Duration) -> Context {
    let delay = Some(pause);
    faulty(FaultPlan {
        delay,
        ..FaultPlan::default()
    })
    .0
}

fn next(reader: &Reader) -> Chunk {
    reader.next(MINUTE).expect("a chunk").expect("not the end")
}

/// Waits until a buffer is in a state.
fn until(reader: &Reader, buffer: u32, state: BufferState) {
    while reader.state(buffer) != Some(state) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_size_of_chunk_delivers_the_file_in_order() {
    let folder = Folder::new();
    let context = context();
    for size in [0usize, 1, 4095, 4096, 4097, 1_000_003] {
        let (path, data) = folder.file("f", size);
        let file = open(&context, &path);
        for (buffers, chunk) in [(2, 4096), (3, 5000), (64, 4097), (2, 64 << 10), (5, 0)] {
            let reader = Reader::open(&file, &config(buffers, chunk)).expect("opens");
            let mut got = Vec::new();
            let mut index = 0;
            while let Some(chunk) = reader.next(MINUTE).expect("a chunk") {
                assert_eq!((chunk.index, chunk.range), (index, 0));
                assert_eq!(chunk.file_offset, got.len() as u64);
                got.extend_from_slice(look(&chunk));
                reader.release(&chunk, None).expect("released");
                index += 1;
            }
            assert!(got == data, "{size} bytes by {chunk}");
            assert_eq!(reader.next(MINUTE).expect("the end stays"), None);
            let info = reader.info();
            assert_eq!((info.chunks_delivered, info.chunks), (index, index));
            assert_eq!(
                (info.bytes_delivered, info.bytes),
                (size as u64, size as u64)
            );
            assert!(info.buffers.iter().all(|b| *b == BufferState::Idle));
        }
    }
}

#[test]
fn ranges_of_several_files_come_one_after_the_other() {
    let folder = Folder::new();
    let context = context();
    let (path_a, a) = folder.file("a", 100_000);
    let (path_b, b) = folder.file("b", 50_001);
    let (file_a, file_b) = (open(&context, &path_a), open(&context, &path_b));
    let range = |file: &gds_rs::engine::File, offset, size| Range {
        file: file.clone(),
        offset,
        size,
    };
    let ranges = vec![
        range(&file_a, 7, 30_000),
        range(&file_b, 0, 0),
        range(&file_b, 50_000, Range::TO_END),
        range(&file_a, 99_000, 1 << 30),
        range(&file_b, 60_000, 10),
        range(&file_a, 0, 8192),
    ];
    let want: Vec<(u32, &[u8])> = vec![
        (0, &a[7..30_007]),
        (2, &b[50_000..]),
        (3, &a[99_000..]),
        (5, &a[..8192]),
    ];
    let reader = Reader::open_ranges(ranges, &config(2, 8192)).expect("opens");
    let mut got: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut order = Vec::new();
    let bytes = reader.run(|chunk| {
        order.push((chunk.index, chunk.range));
        got.entry(chunk.range).or_default().extend(look(chunk));
        Ok(ControlFlow::Continue(()))
    });
    let whole: usize = want.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(bytes.expect("read"), whole as u64);
    let ranges: Vec<u32> = order.iter().map(|(_, range)| *range).collect();
    assert_eq!(ranges, [0, 0, 0, 0, 2, 3, 5], "no chunk spans two ranges");
    assert!(order.iter().zip(0..).all(|((index, _), at)| *index == at));
    for (range, bytes) in want {
        assert!(got[&range] == bytes, "range {range}");
    }
}

#[test]
fn pinned_memory_and_checksums_work_as_well() {
    let folder = Folder::new();
    let context = context();
    let (path, data) = folder.file("c", 300_000);
    let settings = ReaderConfig {
        memory: MemoryKind::Pinned,
        options: Options {
            checksum: Some(true),
            ..Options::default()
        },
        ..config(2, 65_536)
    };
    let reader = Reader::open(&open(&context, &path), &settings).expect("opens");
    while let Some(chunk) = reader.next(MINUTE).expect("a chunk") {
        let at = chunk.file_offset as usize;
        let want = &data[at..at + chunk.size as usize];
        assert_eq!(chunk.crc32c, Some(gds_rs::base::crc::crc32c(0, want)));
        reader.release(&chunk, None).expect("released");
    }
}

#[test]
fn readers_may_share_memory_one_after_the_other() {
    let folder = Folder::new();
    let context = context();
    let (path, data) = folder.file("v", 100_000);
    let file = open(&context, &path);
    let given: Vec<_> = (0..3).map(|_| alloc(&context, 8192)).collect();
    let places: Vec<u64> = given.iter().map(gds_rs::engine::Buffer::address).collect();
    for chunk_bytes in [0, 4096, 8192] {
        let settings = ReaderConfig {
            given: given.clone(),
            ..config(0, chunk_bytes)
        };
        let reader = Reader::open(&file, &settings).expect("opens");
        let mut got = Vec::new();
        let bytes = reader.run(|chunk| {
            assert_eq!(chunk.address, places[chunk.buffer as usize]);
            got.extend_from_slice(look(chunk));
            Ok(ControlFlow::Continue(()))
        });
        assert!(got == data && bytes.expect("read") == 100_000);
    }
    let too_small = ReaderConfig {
        given,
        ..config(2, 8193)
    };
    let error = Reader::open(&file, &too_small).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn no_more_buffers_are_in_flight_than_there_are() {
    let folder = Folder::new();
    let context = context();
    let (path, data) = folder.file("b", 10 * 4096);
    let reader = Reader::open(&open(&context, &path), &config(3, 4096)).expect("opens");
    let held: Vec<Chunk> = (0..3).map(|_| next(&reader)).collect();
    let mut addresses: Vec<u64> = held.iter().map(|c| c.address).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 3);
    assert!(
        reader
            .info()
            .buffers
            .iter()
            .all(|b| *b == BufferState::Processing)
    );
    let pause = Some(Duration::from_millis(20));
    let error = reader.next(pause).expect_err("all buffers are out");
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert_eq!(
        context.metrics().read.bytes,
        3 * 4096,
        "nothing is read ahead of buffers"
    );
    for chunk in &held {
        let at = chunk.file_offset as usize;
        assert!(look(chunk) == &data[at..at + 4096], "what is held stays");
    }
    // Out of order, and the one that comes next uses the buffer that came free.
    reader.release(&held[1], None).expect("released");
    let fourth = next(&reader);
    assert_eq!((fourth.index, fourth.buffer), (3, held[1].buffer));
    assert!(look(&fourth) == &data[3 * 4096..4 * 4096]);
}

#[test]
fn a_chunk_is_released_once() {
    let folder = Folder::new();
    let context = context();
    let (path, _) = folder.file("o", 10 * 4096);
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    let chunk = next(&reader);
    let foreign = Chunk { buffer: 9, ..chunk };
    let refused = |c: &Chunk| reader.release(c, None).expect_err("refused").kind();
    assert_eq!(refused(&foreign), ErrorKind::InvalidArgument);
    reader.release(&chunk, None).expect("released");
    assert_eq!(refused(&chunk), ErrorKind::InvalidArgument);
    // The buffer holds another chunk by now; the old one does not free it.
    let (second, third) = (next(&reader), next(&reader));
    assert_eq!(third.buffer, chunk.buffer);
    assert_eq!(refused(&chunk), ErrorKind::InvalidArgument);
    reader.release(&second, None).expect("released");
}

#[test]
fn a_release_on_a_stream_keeps_the_buffer_until_the_stream_has_passed() {
    let folder = Folder::new();
    let (path, data) = folder.file("s", 8 * 4096);
    let device = LateDevice::new();
    let context = device.context(small_config(), Arc::new(Posix));
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    let (first, second) = (next(&reader), next(&reader));
    reader
        .release(&first, Some(LateDevice::stream(1)))
        .expect("released");
    reader
        .release(&second, Some(LateDevice::stream(2)))
        .expect("released");
    let again = reader.release(&first, None).expect_err("released twice");
    assert_eq!(again.kind(), ErrorKind::InvalidArgument);
    let pause = Some(Duration::from_millis(20));
    let error = reader.next(pause).expect_err("streams still use both");
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert!(
        look(&first) == &data[..4096],
        "the stream still sees its bytes"
    );
    assert_eq!(reader.state(first.buffer), Some(BufferState::Processing));
    // The later stream is through first: its buffer does not wait for the other one.
    device.pass(2);
    let third = next(&reader);
    assert_eq!((third.index, third.buffer), (2, second.buffer));
    device.pass(1);
    until(&reader, first.buffer, BufferState::Ready);
    let fourth = next(&reader);
    assert_eq!((fourth.index, fourth.buffer), (3, first.buffer));
    assert!(look(&fourth) == &data[3 * 4096..4 * 4096]);
    // A stream that is through already costs nothing.
    reader.release(&third, Some(Stream(0))).expect("released");
    assert_eq!(next(&reader).index, 4);
}

#[test]
fn memory_outlives_the_streams_that_use_it() {
    let folder = Folder::new();
    let (path, _) = folder.file("m", 8 * 4096);
    let device = LateDevice::new();
    let context = device.context(small_config(), Arc::new(Posix));
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    let chunk = next(&reader);
    reader
        .release(&chunk, Some(LateDevice::stream(1)))
        .expect("released");
    std::thread::scope(|scope| {
        let closing = scope.spawn(move || drop(reader));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!closing.is_finished(), "the stream is not through");
        // The device itself asserts that no memory is freed before.
        device.pass(1);
        closing.join().expect("closed");
    });
}

#[test]
fn a_failed_stream_stops_the_reader() {
    let folder = Folder::new();
    let (path, _) = folder.file("d", 8 * 4096);
    let device = LateDevice::new();
    let context = device.context(small_config(), Arc::new(Posix));
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    let (first, second) = (next(&reader), next(&reader));
    reader
        .release(&first, Some(LateDevice::stream(1)))
        .expect("released");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| reader.next(MINUTE));
        std::thread::sleep(Duration::from_millis(10));
        device.break_down();
        let error = waiting.join().expect("no panic").expect_err("failed");
        assert_eq!((error.kind(), error.cuda()), (ErrorKind::Cuda, 700));
    });
    assert!(
        reader.release(&second, None).is_ok(),
        "giving back still works"
    );
}

#[test]
fn an_error_says_where_and_chunks_before_it_are_delivered() {
    let folder = Folder::new();
    let (path, data) = folder.file("e", 20 * 4096);
    let (context, fault) = faulty(FaultPlan::default());
    let file = open(&context, &path);
    fault.set_plan(FaultPlan {
        io_error_at: Some(7 * 4096 + 5..7 * 4096 + 6),
        ..FaultPlan::default()
    });
    for buffers in [2, 8, 64] {
        let reader = Reader::open(&file, &config(buffers, 4096)).expect("opens");
        let mut got = Vec::new();
        let error = reader
            .run(|chunk| {
                got.extend_from_slice(look(chunk));
                Ok(ControlFlow::Continue(()))
            })
            .expect_err("EIO");
        assert!(got == data[..7 * 4096], "{buffers}: {}", got.len());
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
        assert_eq!(error.path(), Some(path.as_path()));
        assert_eq!(error.offset(), Some(7 * 4096));
        assert!(
            error
                .message()
                .starts_with("chunk 7 (range 0, 4096 bytes at 28672 of ")
        );
        let again = reader.next(MINUTE).expect_err("stays");
        assert_eq!(again.message(), error.message());
        assert!(
            reader
                .info()
                .buffers
                .iter()
                .all(|b| *b == BufferState::Idle)
        );
    }
}

#[test]
fn a_file_cut_off_while_it_is_read_is_an_error_and_not_other_bytes() {
    let folder = Folder::new();
    let (path, data) = folder.file("t", 10 * 4096);
    let context = context();
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    let first = next(&reader);
    until(&reader, 1 - first.buffer, BufferState::Ready);
    let writer = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opens");
    writer.set_len(4 * 4096 + 100).expect("cut");
    reader.release(&first, None).expect("released");
    let mut got = data[..4096].to_vec();
    let error = reader
        .run(|chunk| {
            got.extend_from_slice(look(chunk));
            Ok(ControlFlow::Continue(()))
        })
        .expect_err("cut");
    assert_eq!(error.kind(), ErrorKind::FileChanged);
    assert_eq!(error.offset(), Some(4 * 4096 + 100));
    assert!(
        got == data[..4 * 4096],
        "whole chunks before the cut are delivered"
    );
}

#[test]
fn bytes_that_are_appended_later_are_not_read() {
    let folder = Folder::new();
    let (path, data) = folder.file("g", 3 * 4096 + 1);
    let context = context();
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    let writer = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opens");
    writer.set_len(100 * 4096).expect("grown");
    let bytes = reader.run(|_| Ok(ControlFlow::Continue(())));
    assert_eq!(bytes.expect("read"), data.len() as u64);
}

#[test]
fn cancelling_stops_at_every_stage() {
    let folder = Folder::new();
    let (path, _) = folder.file("x", 16 << 20);
    let cancelled = |reader: &Reader| {
        let error = reader.next(MINUTE).expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    };
    // Before anything was asked for, while it is read.
    let context = slow(Duration::from_millis(2));
    let reader = Reader::open(&open(&context, &path), &config(2, 8 << 20)).expect("opens");
    reader.cancel();
    cancelled(&reader);
    drop(reader);
    assert!(context.metrics().read.bytes < 16 << 20);
    // While a thread waits for a chunk that takes long, and for a buffer that is out.
    for held in [0, 2] {
        let context = slow(Duration::from_millis(if held == 0 { 100 } else { 0 }));
        let chunk = if held == 0 { 8 << 20 } else { 4096 };
        let reader = Reader::open(&open(&context, &path), &config(2, chunk)).expect("opens");
        let out: Vec<Chunk> = (0..held).map(|_| next(&reader)).collect();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cancelled(&reader));
            std::thread::sleep(Duration::from_millis(20));
            reader.cancel();
            waiting.join().expect("cancelled");
        });
        // What is out stays, and is given back as ever.
        for chunk in &out {
            assert_eq!(look(chunk).len(), 4096);
            reader.release(chunk, None).expect("released");
        }
        cancelled(&reader);
        reader.cancel();
    }
    // Chunks that have arrived are not delivered either.
    let context = context_over(small_config(), Arc::new(Posix));
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    until(&reader, 1, BufferState::Ready);
    reader.cancel();
    cancelled(&reader);
}

#[test]
fn dropping_a_reader_waits_for_what_is_under_way() {
    let folder = Folder::new();
    let (path, _) = folder.file("z", 4 << 20);
    let context = slow(Duration::from_millis(1));
    let file = open(&context, &path);
    for taken in 0..4 {
        let reader = Reader::open(&file, &config(3, 1 << 20)).expect("opens");
        for _ in 0..taken.min(3) {
            let _ = next(&reader);
        }
        drop(reader);
        assert_eq!(context.metrics().active_buffers, 0, "nothing is under way");
    }
}

#[test]
fn slow_consumers_find_the_next_chunk_there() {
    let folder = Folder::new();
    let (path, data) = folder.file("w", 6 * 65_536);
    let context = context();
    let reader = Reader::open(&open(&context, &path), &config(2, 65_536)).expect("opens");
    until(&reader, 0, BufferState::Ready);
    while let Some(chunk) = reader.next(MINUTE).expect("a chunk") {
        // While this one is worked on, the other buffer gets its chunk without anybody asking.
        if chunk.index + 1 < reader.info().chunks {
            until(&reader, 1 - chunk.buffer, BufferState::Ready);
        }
        let at = chunk.file_offset as usize;
        assert!(look(&chunk) == &data[at..at + 65_536]);
        reader.release(&chunk, None).expect("released");
    }
    assert_eq!(reader.info().waits, 0);
}

#[test]
fn a_callback_may_stop_fail_and_release_itself() {
    let folder = Folder::new();
    let (path, data) = folder.file("r", 9 * 4096 + 5);
    let context = context();
    let reader = Reader::open(&open(&context, &path), &config(2, 4096)).expect("opens");
    let bytes = reader.run(|chunk| {
        reader.release(chunk, Some(Stream(0)))?;
        Ok(match chunk.index {
            3 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    });
    assert_eq!(bytes.expect("stopped"), 4 * 4096);
    let error = reader.run(|_| Err(Error::new(ErrorKind::Corrupted, "mine")));
    assert_eq!(
        error.expect_err("the callback's").kind(),
        ErrorKind::Corrupted
    );
    let mut rest = Vec::new();
    let bytes = reader.run(|chunk| {
        rest.extend_from_slice(look(chunk));
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(bytes.expect("the rest"), 4 * 4096 + 5);
    assert!(rest == data[5 * 4096..]);
}

#[test]
fn many_threads_share_a_reader_and_each_chunk_goes_to_one() {
    let folder = Folder::new();
    let (path, data) = folder.file("p", 500 * 4096);
    let context = context();
    let reader = Reader::open(&open(&context, &path), &config(4, 4096)).expect("opens");
    let chunks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(chunk) = reader.next(MINUTE).expect("a chunk") {
                    let at = chunk.file_offset as usize;
                    assert!(look(&chunk) == &data[at..at + 4096]);
                    chunks.fetch_add(1, SeqCst);
                    reader.release(&chunk, None).expect("released");
                }
            });
        }
    });
    assert_eq!(chunks.load(SeqCst), 500);
}

#[test]
fn many_readers_run_at_once() {
    let folder = Folder::new();
    let context = context();
    let files: Vec<_> = (0..8)
        .map(|i| folder.file(&format!("n{i}"), 200_000 + i))
        .collect();
    std::thread::scope(|scope| {
        for (path, data) in &files {
            let context = &context;
            scope.spawn(move || {
                let file = open(context, path);
                for chunk in [4096, 30_000, 100_000] {
                    let reader = Reader::open(&file, &config(3, chunk)).expect("opens");
                    let mut got = Vec::new();
                    let bytes = reader.run(|chunk| {
                        got.extend_from_slice(look(chunk));
                        Ok(ControlFlow::Continue(()))
                    });
                    assert_eq!(bytes.expect("read"), data.len() as u64);
                    assert!(got == *data);
                }
            });
        }
    });
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let folder = Folder::new();
    let (path, _) = folder.file("q", 10_000);
    let (one, two) = (context(), context());
    let file = open(&one, &path);
    let refused = |config: &ReaderConfig| Reader::open(&file, config).expect_err("refused").kind();
    for (buffers, chunk) in [(0, 0), (1, 0), (65, 0), (2, 1), (2, 4095), (2, u64::MAX)] {
        assert_eq!(refused(&config(buffers, chunk)), ErrorKind::InvalidConfig);
    }
    let mut strange = config(2, 0);
    strange.memory = MemoryKind::Managed;
    assert_eq!(refused(&strange), ErrorKind::InvalidConfig);
    let mut strange = config(2, 0);
    strange.options.stream = Some(Stream(0));
    assert_eq!(refused(&strange), ErrorKind::InvalidConfig);
    let kind = |ranges| {
        let opened = Reader::open_ranges(ranges, &config(2, 0));
        opened.expect_err("refused").kind()
    };
    assert_eq!(kind(Vec::new()), ErrorKind::InvalidArgument);
    let mixed = vec![Range::whole(&file), Range::whole(&open(&two, &path))];
    assert_eq!(kind(mixed), ErrorKind::InvalidArgument);
    let far = Range {
        file: file.clone(),
        offset: u64::MAX - 5,
        size: 4,
    };
    assert_eq!(kind(vec![far]), ErrorKind::OutOfRange);
    let endless = open(&one, "/proc/cpuinfo".as_ref());
    assert_eq!(kind(vec![Range::whole(&endless)]), ErrorKind::NotSupported);
}
