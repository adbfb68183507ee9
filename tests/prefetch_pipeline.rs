//! The pipeline: each request answered once and exactly, bounded, joined, and fair to files.

mod common;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use gds_rs::ErrorKind;
use gds_rs::engine::{Buffer, Context, File, Operation, Options};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::prefetch::{Callback, Done, Pipeline, PipelineConfig, Request};

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

fn read(file: &File, file_offset: u64, buffer: &Buffer, buffer_offset: u64, size: u64) -> Request {
    Request {
        operation: Operation::Read,
        file: file.clone(),
        file_offset,
        buffer: buffer.clone(),
        buffer_offset,
        size,
        callback: None,
    }
}

fn calling(request: Request, callback: Callback) -> Request {
    Request {
        callback: Some(callback),
        ..request
    }
}

fn outstanding(most: u32) -> PipelineConfig {
    PipelineConfig {
        max_outstanding: most,
        ..PipelineConfig::default()
    }
}

/// Operations that began before the gate was opened take this long.
const GATE: Duration = Duration::from_millis(700);

/// One transfer thread that does nothing until the fault's plan is changed, or for `GATE`: what
/// is submitted meanwhile waits.
fn gated(plan: FaultPlan) -> (Context, Arc<Fault>) {
    let plan = FaultPlan {
        delay: Some(GATE),
        ..plan
    };
    let config = gds_rs::Config {
        io_threads: 1,
        ..small_config()
    };
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    (context_over(config, fault.clone()), fault)
}

fn shut(gate: &Fault) {
    gate.set_plan(FaultPlan {
        delay: Some(GATE),
        ..FaultPlan::default()
    });
}

fn open_up(gate: &Fault) {
    gate.set_plan(FaultPlan::default());
}

fn bytes_of(done: &Done) -> u64 {
    done.result.as_ref().expect("it went well").bytes
}

#[test]
fn requests_in_every_order_bring_the_bytes_of_the_file() {
    let folder = Folder::new();
    let context = context();
    let (path, data) = folder.file("f", 1_000_003);
    let file = open(&context, &path);
    let buffer = alloc(&context, 1_000_003);
    for step in [1u64, 7, 99, 100] {
        bytes(&buffer).fill(0);
        let pipeline = Pipeline::open(&context, &outstanding(16)).expect("opens");
        let mut ids = Vec::new();
        for index in 0..101u64 {
            let at = index * step % 101 * 10_000;
            let size = 10_000.min(data.len() as u64 - at);
            let id = pipeline.submit(read(&file, at, &buffer, at, size), None);
            ids.push((id.expect("taken"), size));
        }
        let mut done = pipeline.drain().expect("drained");
        done.sort_by_key(|done| done.id);
        assert_eq!(done.len(), 101);
        for (done, (id, size)) in done.iter().zip(&ids) {
            assert_eq!((done.id, bytes_of(done)), (*id, *size));
        }
        assert!(bytes(&buffer) == data, "step {step}");
        assert!(
            pipeline
                .wait_one(MINUTE)
                .expect("nothing is left")
                .is_none()
        );
        let info = pipeline.info();
        assert_eq!((info.submitted, info.completed, info.failed), (101, 101, 0));
        assert_eq!(info.outstanding, 0);
    }
}

#[test]
fn writes_go_through_as_well() {
    let folder = Folder::new();
    let context = context();
    let data = pattern(300_000, 3);
    let path = folder.path("w");
    let file = open_to_write(&context, &path);
    let buffer = alloc(&context, data.len() as u64);
    bytes(&buffer).copy_from_slice(&data);
    let pipeline = Pipeline::open(&context, &outstanding(8)).expect("opens");
    for at in (0..300_000).step_by(3000) {
        let request = Request {
            operation: Operation::Write,
            ..read(&file, at, &buffer, at, 3000)
        };
        pipeline.submit(request, None).expect("taken");
    }
    let done = pipeline.drain().expect("drained");
    assert_eq!(done.iter().map(bytes_of).sum::<u64>(), 300_000);
    assert!(std::fs::read(&path).expect("read back") == data);
}

#[test]
fn neighbours_become_one_transfer() {
    let folder = Folder::new();
    let (context, gate) = gated(FaultPlan::default());
    let (path, data) = folder.file("n", 100 * 4096);
    let file = open(&context, &path);
    let buffer = alloc(&context, 100 * 4096);
    let pipeline = Pipeline::open(&context, &outstanding(64)).expect("opens");
    // The first two keep the engine busy; the others wait and are handed over together.
    for index in (0..2).chain((2..42).rev()) {
        let at = index * 4096;
        let request = read(&file, at, &buffer, at, 4096);
        pipeline.submit(request, None).expect("taken");
    }
    assert_eq!(pipeline.info().batches, 2);
    open_up(&gate);
    let done = pipeline.drain().expect("drained");
    assert!(done.iter().all(|d| bytes_of(d) == 4096) && done.len() == 42);
    assert!(bytes(&buffer)[..42 * 4096] == data[..42 * 4096]);
    // Backwards there is nothing to join: each goes on where the one after it begins.
    let info = pipeline.info();
    assert_eq!((info.coalesced, info.transfers), (0, 42));

    shut(&gate);
    for index in 0..42 {
        let at = index * 4096;
        let request = read(&file, at, &buffer, at, 4096);
        pipeline.submit(request, None).expect("taken");
    }
    open_up(&gate);
    pipeline.drain().expect("drained");
    let after = pipeline.info();
    assert_eq!(after.coalesced - info.coalesced, 40);
    assert_eq!(after.transfers - info.transfers, 3, "1, 1 and 40");
    // The engine's own account counts transfers.
    let engine = context.metrics().read;
    assert_eq!((engine.operations, engine.bytes), (45, 84 * 4096));
}

#[test]
fn neighbours_in_the_file_alone_share_a_batch() {
    let folder = Folder::new();
    let (context, gate) = gated(FaultPlan::default());
    let (path, data) = folder.file("b", 64 * 4096);
    let file = open(&context, &path);
    let buffer = alloc(&context, 64 * 4096);
    let pipeline = Pipeline::open(&context, &outstanding(64)).expect("opens");
    let mirrored = |index: u64| (31 - index) * 4096;
    for index in 0..32u64 {
        let request = read(&file, index * 4096, &buffer, mirrored(index), 4096);
        pipeline.submit(request, None).expect("taken");
    }
    open_up(&gate);
    let done = pipeline.drain().expect("drained");
    assert!(done.iter().all(|d| bytes_of(d) == 4096));
    for index in 0..32usize {
        let to = mirrored(index as u64) as usize;
        assert!(bytes(&buffer)[to..to + 4096] == data[index * 4096..][..4096]);
    }
    let info = pipeline.info();
    assert_eq!((info.coalesced, info.transfers, info.batches), (0, 32, 3));
}

#[test]
fn what_is_joined_has_a_limit() {
    let folder = Folder::new();
    let (path, _) = folder.file("l", 64 * 4096);
    for (limit, transfers) in [(1, 34), (3 * 4096, 2 + 11), (8 * 4096, 2 + 4)] {
        let (context, gate) = gated(FaultPlan::default());
        let file = open(&context, &path);
        let buffer = alloc(&context, 64 * 4096);
        let config = PipelineConfig {
            coalesce_bytes: limit,
            ..outstanding(64)
        };
        let pipeline = Pipeline::open(&context, &config).expect("opens");
        for index in 0..34u64 {
            let at = index * 4096;
            let request = read(&file, at, &buffer, at, 4096);
            pipeline.submit(request, None).expect("taken");
        }
        open_up(&gate);
        pipeline.drain().expect("drained");
        assert_eq!(pipeline.info().transfers, transfers, "limit {limit}");
    }
}

#[test]
fn a_short_read_is_shared_out_exactly() {
    let folder = Folder::new();
    let (context, gate) = gated(FaultPlan::default());
    let (path, data) = folder.file("s", 4096 * 5 + 100);
    let file = open(&context, &path);
    let buffer = alloc(&context, 64 * 4096);
    let pipeline = Pipeline::open(&context, &outstanding(64)).expect("opens");
    for index in 0..10u64 {
        let at = index * 4096;
        let request = read(&file, at, &buffer, at, 4096);
        pipeline.submit(request, None).expect("taken");
    }
    open_up(&gate);
    let mut done = pipeline.drain().expect("drained");
    done.sort_by_key(|d| d.id);
    let sizes: Vec<u64> = done.iter().map(bytes_of).collect();
    assert_eq!(sizes, [4096, 4096, 4096, 4096, 4096, 100, 0, 0, 0, 0]);
    assert_eq!(pipeline.info().coalesced, 8);
    assert!(bytes(&buffer)[..data.len()] == data);
}

#[test]
fn one_bad_neighbour_does_not_spoil_the_others() {
    let folder = Folder::new();
    let (path, data) = folder.file("e", 64 * 4096);
    let plan = FaultPlan {
        io_error_at: Some(9 * 4096 + 1..9 * 4096 + 2),
        ..FaultPlan::default()
    };
    let (context, gate) = gated(plan.clone());
    let (file, other) = (open(&context, &path), alloc(&context, 10));
    let buffer = alloc(&context, 64 * 4096);
    let pipeline = Pipeline::open(&context, &outstanding(64)).expect("opens");
    for index in 0..20u64 {
        let at = index * 4096;
        let request = read(&file, at, &buffer, at, 4096);
        pipeline.submit(request, None).expect("taken");
    }
    let refused = pipeline.submit(read(&file, 0, &other, 4, 7), None);
    assert_eq!(refused.expect_err("too long").kind(), ErrorKind::OutOfRange);
    gate.set_plan(plan);
    let mut done = pipeline.drain().expect("drained");
    done.sort_by_key(|d| d.id);
    assert_eq!(done.len(), 20);
    for (index, done) in done.iter().enumerate() {
        if index == 9 {
            let error = done.result.as_ref().expect_err("EIO");
            assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
            continue;
        }
        assert_eq!(bytes_of(done), 4096, "request {index}");
        let at = index * 4096;
        assert!(bytes(&buffer)[at..at + 4096] == data[at..at + 4096]);
    }
    let info = pipeline.info();
    assert!(info.coalesced > 0 && info.failed == 1, "{info:?}");
}

#[test]
fn a_request_that_the_engine_refuses_has_its_own_answer() {
    let folder = Folder::new();
    let (path, _) = folder.file("r", 64 * 4096);
    let (context, gate) = gated(FaultPlan::default());
    let stranger = common::context();
    let file = open(&context, &path);
    let foreign = open(&stranger, &path);
    let buffer = alloc(&context, 64 * 4096);
    let pipeline = Pipeline::open(&context, &outstanding(64)).expect("opens");
    for index in 0..12u64 {
        let of = if index == 7 { &foreign } else { &file };
        let mut request = read(of, index * 4096, &buffer, index * 4096, 4096);
        if index == 5 {
            request.operation = Operation::Write;
        }
        pipeline.submit(request, None).expect("taken");
    }
    open_up(&gate);
    let mut done = pipeline.drain().expect("drained");
    done.sort_by_key(|d| d.id);
    let kinds: Vec<Option<ErrorKind>> = done
        .iter()
        .map(|d| d.result.as_ref().err().map(gds_rs::Error::kind))
        .collect();
    for (index, kind) in kinds.iter().enumerate() {
        let want = match index {
            5 => Some(ErrorKind::ReadOnly),
            7 => Some(ErrorKind::InvalidArgument),
            _ => None,
        };
        assert_eq!(*kind, want, "request {index}");
    }
}

#[test]
fn a_full_pipeline_waits_or_says_so() {
    let folder = Folder::new();
    let (context, gate) = gated(FaultPlan::default());
    let (path, _) = folder.file("p", 64 * 4096);
    let file = open(&context, &path);
    let buffer = alloc(&context, 64 * 4096);
    let pipeline = Pipeline::open(&context, &outstanding(3)).expect("opens");
    let request = |index: u64| read(&file, index * 8192, &buffer, index * 8192, 4096);
    for index in 0..3 {
        pipeline.try_submit(request(index)).expect("there is room");
    }
    let error = pipeline.try_submit(request(3)).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Pending);
    let pause = Some(Duration::from_millis(1));
    assert_eq!(
        pipeline.submit(request(3), pause).expect_err("full").kind(),
        ErrorKind::Pending
    );
    assert_eq!(
        pipeline.wait_one(pause).expect_err("not yet").kind(),
        ErrorKind::Pending
    );
    open_up(&gate);
    for index in 3..20 {
        pipeline
            .submit(request(index), None)
            .expect("room in the end");
        assert!(pipeline.info().outstanding <= 3);
    }
    let mut ids = Vec::new();
    while let Some(done) = pipeline.wait_one(MINUTE).expect("over in the end") {
        assert_eq!(bytes_of(&done), 4096);
        ids.push(done.id);
    }
    ids.sort_unstable();
    assert_eq!(
        ids,
        (1..=20).collect::<Vec<u64>>(),
        "refused ones took no number"
    );
}

#[test]
fn callbacks_are_called_exactly_once_on_the_pipelines_thread() {
    let folder = Folder::new();
    let context = context();
    let (path, data) = folder.file("c", 200 * 1000);
    let file = open(&context, &path);
    let buffer = alloc(&context, 200 * 1000);
    let calls: Arc<Vec<AtomicU32>> = Arc::new((0..200).map(|_| AtomicU32::new(0)).collect());
    let sum = Arc::new(AtomicU64::new(0));
    let pipeline = Pipeline::open(&context, &outstanding(16)).expect("opens");
    for index in 0..200u64 {
        let (calls, sum) = (calls.clone(), sum.clone());
        let callback: Callback = Box::new(move |id, result| {
            assert_eq!(id, index + 1);
            let name = std::thread::current().name().map(str::to_owned);
            assert_eq!(name.as_deref(), Some("gds-pipeline"));
            sum.fetch_add(result.as_ref().expect("read").bytes, SeqCst);
            calls[index as usize].fetch_add(1, SeqCst);
            assert!(index % 10 != 3, "contained");
        });
        let request = read(&file, index * 1000, &buffer, index * 1000, 1000);
        pipeline
            .submit(calling(request, callback), None)
            .expect("taken");
    }
    assert!(
        pipeline.drain().expect("drained").is_empty(),
        "callbacks were told"
    );
    assert!(calls.iter().all(|calls| calls.load(SeqCst) == 1));
    assert_eq!(sum.load(SeqCst), 200_000);
    assert!(bytes(&buffer) == data);
    let info = pipeline.info();
    assert_eq!((info.callback_panics, info.completed), (20, 200));
}

#[test]
fn a_callback_may_submit_the_next_request_and_never_waits() {
    let folder = Folder::new();
    let context = context();
    let (path, data) = folder.file("k", 50 * 4096);
    let file = open(&context, &path);
    let buffer = alloc(&context, 50 * 4096);
    let pipeline = Arc::new(Pipeline::open(&context, &outstanding(1)).expect("opens"));
    let refusals = Arc::new(AtomicU32::new(0));

    fn go(on: &Arc<Pipeline>, file: &File, to: &Buffer, index: u64, refusals: &Arc<AtomicU32>) {
        if index == 50 {
            return;
        }
        let at = index * 4096;
        let (pipeline, f, b, r) = (on.clone(), file.clone(), to.clone(), refusals.clone());
        let callback: Callback = Box::new(move |_, result| {
            assert_eq!(result.as_ref().expect("read").bytes, 4096);
            go(&pipeline, &f, &b, index + 1, &r);
            let waits = [
                pipeline.drain().err(),
                pipeline.submit(read(&f, 0, &b, 0, 1), None).err(),
            ];
            if waits
                .iter()
                .flatten()
                .all(|e| e.kind() == ErrorKind::Pending)
            {
                r.fetch_add(1, SeqCst);
            }
        });
        let request = calling(read(file, at, to, at, 4096), callback);
        on.submit(request, None).expect("there is room");
    }
    go(&pipeline, &file, &buffer, 0, &refusals);
    while pipeline.info().completed < 50 {
        pipeline.drain().expect("drained");
    }
    assert!(bytes(&buffer) == data);
    assert_eq!(refusals.load(SeqCst), 50);
}

#[test]
fn no_file_waits_for_all_the_work_of_another() {
    let folder = Folder::new();
    let (context, gate) = gated(FaultPlan::default());
    let (long, _) = folder.file("long", 200 * 4096);
    let (short, _) = folder.file("short", 20 * 4096);
    let (long, short) = (open(&context, &long), open(&context, &short));
    let buffer = alloc(&context, 200 * 4096);
    let config = PipelineConfig {
        coalesce_bytes: 1,
        max_outstanding: 256,
        ..PipelineConfig::default()
    };
    let pipeline = Pipeline::open(&context, &config).expect("opens");
    let order = Arc::new(Mutex::new(Vec::new()));
    let submit = |file: &File, name: char, index: u64| {
        let order = order.clone();
        let callback: Callback = Box::new(move |_, _| order.lock().unwrap().push(name));
        let at = index * 4096;
        let request = calling(read(file, at, &buffer, at, 4096), callback);
        pipeline.submit(request, None).expect("taken");
    };
    for index in 0..200 {
        submit(&long, 'L', index);
    }
    for index in 0..20 {
        submit(&short, 's', index);
    }
    open_up(&gate);
    pipeline.drain().expect("drained");
    let order = order.lock().unwrap().clone();
    assert_eq!(order.len(), 220);
    // Two go at once. The third batch holds all of the short file, and may be overtaken by the
    // fourth, which holds what is left of the long one.
    let first = order.iter().position(|name| *name == 's').expect("it ran");
    assert!(first <= 3 + 90, "the short file began as number {first}");
    let turns: String = order[first - 1..first + 39].iter().collect();
    assert_eq!(turns, "Ls".repeat(20), "one turn each");
}

#[test]
fn dropping_cancels_what_has_not_started_and_calls_back_all() {
    let folder = Folder::new();
    let (path, _) = folder.file("d", 100 * 4096);
    let (context, _) = gated(FaultPlan::default());
    let file = open(&context, &path);
    let buffer = alloc(&context, 100 * 4096);
    let config = PipelineConfig {
        coalesce_bytes: 1,
        ..outstanding(100)
    };
    let pipeline = Pipeline::open(&context, &config).expect("opens");
    let (good, cancelled) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    for index in 0..100u64 {
        let (good, cancelled) = (good.clone(), cancelled.clone());
        let callback: Callback = Box::new(move |_, result| {
            match result {
                Ok(done) => assert_eq!(done.bytes, 4096),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            }
            let count = if result.is_ok() { good } else { cancelled };
            count.fetch_add(1, SeqCst);
        });
        let request = read(&file, index * 4096, &buffer, index * 4096, 4096);
        pipeline
            .submit(calling(request, callback), None)
            .expect("taken");
    }
    drop(pipeline);
    let (good, cancelled) = (good.load(SeqCst), cancelled.load(SeqCst));
    assert_eq!(good + cancelled, 100);
    assert!(cancelled > 0, "a hundred slow reads were not all over");
    let seen = bytes(&buffer).to_vec();
    std::thread::sleep(Duration::from_millis(60));
    assert!(bytes(&buffer) == seen, "nothing is under way any more");
}

#[test]
fn a_pipeline_may_be_dropped_by_its_callback() {
    let folder = Folder::new();
    let (path, _) = folder.file("o", 4096);
    let context = context();
    let file = open(&context, &path);
    let buffer = alloc(&context, 4096);
    let pipeline = Arc::new(Pipeline::open(&context, &outstanding(4)).expect("opens"));
    let (told, tell) = (Arc::new(AtomicU32::new(0)), pipeline.clone());
    let count = told.clone();
    let callback: Callback = Box::new(move |_, _| {
        while Arc::strong_count(&tell) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(tell);
        count.fetch_add(1, SeqCst);
    });
    let request = calling(read(&file, 0, &buffer, 0, 4096), callback);
    pipeline.submit(request, None).expect("taken");
    drop(pipeline);
    while told.load(SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn many_threads_share_a_pipeline() {
    let folder = Folder::new();
    let context = context();
    let (path, data) = folder.file("m", 8 * 100_000);
    let file = open(&context, &path);
    let buffer = alloc(&context, 8 * 100_000);
    let pipeline = Pipeline::open(&context, &outstanding(8)).expect("opens");
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (pipeline, file, buffer) = (&pipeline, &file, &buffer);
            scope.spawn(move || {
                for index in 0..100 {
                    let at = thread * 100_000 + index * 1000;
                    let request = read(file, at, buffer, at, 1000);
                    pipeline.submit(request, None).expect("taken");
                }
            });
        }
    });
    let done = pipeline.drain().expect("drained");
    assert_eq!(done.iter().map(bytes_of).sum::<u64>(), 800_000);
    assert!(bytes(&buffer) == data);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let context = context();
    let kind = |config: &PipelineConfig| Pipeline::open(&context, config).expect_err("no").kind();
    assert_eq!(kind(&outstanding(4097)), ErrorKind::InvalidConfig);
    let strange = PipelineConfig {
        options: Options {
            stream: Some(gds_rs::engine::Stream(0)),
            ..Options::default()
        },
        ..PipelineConfig::default()
    };
    assert_eq!(kind(&strange), ErrorKind::InvalidConfig);
}
