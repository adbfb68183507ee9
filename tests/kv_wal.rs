//! The log: what is appended comes back, whole commits in order; tickets, marks, room, failures.

mod kv_support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use gds_rs::kv::disk::{BLOCK, Disk};
use gds_rs::kv::sim::{Change, SimDisk, SimPlan, Survivors};
use gds_rs::kv::wal::{Wal, WalConfig, record_bytes};
use gds_rs::{Error, ErrorKind};
use kv_support::{Random, Rig, append, config, disk_bytes, geometry, recover_all};

const WAL: u64 = 64 << 10;

fn payload(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (number as usize * 31 + i) as u8).collect()
}

/// A log whose commits span batches soon.
fn small_batches() -> Rig {
    let geometry = geometry(256 << 10);
    let disk = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let config = WalConfig {
        max_batch_bytes: 12 << 10,
        pending_bytes: 128 << 10,
        ..config(&geometry)
    };
    Rig::create_on(disk, geometry, config)
}

/// What the disk holds right now, through recovery.
fn recovered(rig: &Rig) -> Vec<kv_support::Record> {
    let image = rig
        .disk
        .image(rig.disk.now(), Survivors::None)
        .expect("an image");
    let config = config(&rig.superblock.geometry);
    recover_all(&image, &config, &rig.superblock.wal)
        .expect("whole")
        .1
}

#[test]
fn what_was_waited_for_comes_back_in_order() {
    let rig = Rig::create(256 << 10);
    let mut want = Vec::new();
    for number in 0..20u64 {
        let bytes = payload(number, (number as usize * 97) % 900);
        let lsn = rig.commit(number as u8, &[&bytes]);
        want.push((lsn, number as u8, bytes));
        assert_eq!(rig.wal.durable_lsn(), lsn);
    }
    let got: Vec<_> = recovered(&rig)
        .into_iter()
        .map(|r| {
            assert!(r.last);
            (r.lsn, r.kind, r.payload)
        })
        .collect();
    assert_eq!(got, want);
    assert_eq!(got[0].0, 1, "the first record is number 1");
}

#[test]
fn a_record_is_its_parts_joined_and_may_be_empty() {
    let rig = Rig::create(WAL);
    let mut append = rig
        .wal
        .begin(record_bytes(8) + record_bytes(0))
        .expect("room");
    let first = append.push(1, &[b"abc", b"", b"defgh"]).expect("fits");
    let second = append.push(2, &[]).expect("fits");
    assert_eq!(append.finish(), second);
    rig.wal.wait(second, None).expect("durable");
    let got = recovered(&rig);
    assert_eq!(
        (got[0].lsn, got[0].kind, &got[0].payload[..], got[0].last),
        (first, 1, &b"abcdefgh"[..], false)
    );
    assert_eq!(
        (got[1].lsn, got[1].kind, &got[1].payload[..], got[1].last),
        (second, 2, &b""[..], true)
    );
}

#[test]
fn a_commit_that_is_dropped_was_never_there() {
    let rig = small_batches();
    let kept = rig.append(1, &[b"kept"]).expect("room");
    {
        let mut dropped = rig.wal.begin(30_000).expect("room");
        for _ in 0..3 {
            dropped.push(9, &[&payload(0, 9_000)]).expect("fits");
        }
    }
    let next = rig.commit(1, &[b"next"]);
    assert_eq!((kept, next), (1, 2));
    let got: Vec<_> = recovered(&rig).into_iter().map(|r| r.payload).collect();
    assert_eq!(got, [b"kept".to_vec(), b"next".to_vec()]);
}

#[test]
fn a_commit_may_span_batches_and_ends_once() {
    let rig = small_batches();
    let parts: Vec<_> = (0..6).map(|n| payload(n, 9_000)).collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let lsn = rig.commit(5, &slices);
    assert_eq!(lsn, 6);
    assert!(rig.wal.stats().batches >= 6, "{:?}", rig.wal.stats());
    let got = recovered(&rig);
    assert_eq!(
        got.iter().map(|r| &r.payload).collect::<Vec<_>>(),
        parts.iter().collect::<Vec<_>>()
    );
    assert_eq!(got.iter().filter(|r| r.last).count(), 1);
    assert!(got[5].last);
}

#[test]
fn what_is_too_large_is_refused_with_its_limit() {
    let rig = Rig::create(WAL);
    let most = rig.wal.commit_bytes_max();
    assert_eq!(
        rig.wal.begin(most + 1).expect_err("too large").kind(),
        ErrorKind::OutOfRange
    );
    let mut append = rig.wal.begin(most).expect("fits");
    let largest = vec![1; rig.wal.payload_bytes_max()];
    let error = append.push(1, &[&largest, b"x"]).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    append.push(1, &[&largest]).expect("fits");
    drop(append);
    let mut small = rig.wal.begin(record_bytes(4)).expect("fits");
    small.push(1, &[b"1234"]).expect("what was asked for");
    assert_eq!(
        small.push(1, &[b""]).expect_err("more").kind(),
        ErrorKind::OutOfRange
    );
    drop(small);
    assert_eq!(rig.wal.appended_lsn(), 0);
    assert_eq!(rig.commit(1, &[&largest]), 1);
}

#[test]
fn one_write_serves_all_who_came_while_the_disk_was_busy() {
    let geometry = geometry(1 << 20);
    let disk = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let rig = Rig::create_on(disk, geometry, config(&geometry));
    rig.disk.set_plan(SimPlan {
        delay: Duration::from_millis(20),
        ..SimPlan::default()
    });
    let first = rig.append(1, &[b"first"]).expect("room");
    while rig
        .disk
        .changes()
        .iter()
        .all(|c| !matches!(c, Change::WriteDurable { .. }))
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut last = first;
    for number in 0..500 {
        last = rig.append(1, &[&payload(number, 16)]).expect("room");
    }
    assert!(rig.wal.durable_lsn() <= first);
    rig.wal.wait(last, None).expect("durable");
    let stats = rig.wal.stats();
    assert_eq!(stats.commits, 501);
    assert!(stats.batches - stats.trailers <= 3, "{stats:?}");
    assert!(stats.commits_per_batch_max >= 400, "{stats:?}");
}

#[test]
fn many_threads_get_their_own_place_and_all_come_back() {
    let rig = Rig::create(4 << 20);
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let (rig, seen) = (&rig, &seen);
            scope.spawn(move || {
                for number in 0..50u64 {
                    let bytes = payload(number, 40);
                    let lsn = rig.commit(thread, &[&bytes, &bytes]);
                    seen.lock().unwrap().push((lsn, thread));
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    let got: Vec<_> = recovered(&rig)
        .into_iter()
        .filter(|r| r.last)
        .map(|r| (r.lsn, r.kind))
        .collect();
    assert_eq!(got, seen);
    assert_eq!(got.len(), 400);
}

#[test]
fn callbacks_come_in_order_once_each_and_late_ones_at_once() {
    let rig = Rig::create(WAL);
    let (sender, receiver) = mpsc::channel();
    let lsns: Vec<_> = (0..10)
        .map(|n| rig.append(n, &[b"x"]).expect("room"))
        .collect();
    for lsn in &lsns {
        let (sender, lsn) = (sender.clone(), *lsn);
        let call = move |outcome: gds_rs::Result<u64>| {
            sender
                .send((lsn, outcome.expect("durable")))
                .expect("a receiver");
        };
        rig.wal.on_durable(lsn, Box::new(call));
    }
    let got: Vec<_> = (0..10)
        .map(|_| {
            receiver
                .recv_timeout(Duration::from_secs(20))
                .expect("a call")
        })
        .collect();
    // Those that were durable already came on this thread, before the others.
    assert!(got.iter().all(|(lsn, durable)| durable >= lsn));
    let mut order: Vec<_> = got.iter().map(|(lsn, _)| *lsn).collect();
    order.sort_unstable();
    assert_eq!(order, lsns);
    let late = AtomicUsize::new(0);
    let late = Arc::new(late);
    let count = Arc::clone(&late);
    rig.wal.on_durable(
        lsns[0],
        Box::new(move |_| {
            count.fetch_add(1, SeqCst);
        }),
    );
    assert_eq!(late.load(SeqCst), 1);
}

#[test]
fn a_callback_that_panics_or_appends_does_no_harm() {
    let rig = Rig::create(WAL);
    let wal = Arc::clone(&rig.wal);
    rig.disk.set_plan(SimPlan {
        delay: Duration::from_millis(5),
        ..SimPlan::default()
    });
    let (sender, receiver) = mpsc::channel();
    let first = rig.append(1, &[b"a"]).expect("room");
    rig.wal.on_durable(first, Box::new(|_| panic!("by a test")));
    rig.wal.on_durable(
        first,
        Box::new(move |_| sender.send(append(&wal, 2, &[b"b"])).expect("a receiver")),
    );
    let second = receiver
        .recv_timeout(Duration::from_secs(20))
        .expect("a call")
        .expect("room");
    rig.wal.wait(second, None).expect("durable");
}

#[test]
fn waiting_ends_at_the_deadline_and_nonsense_is_refused() {
    let rig = Rig::create(WAL);
    rig.disk.set_plan(SimPlan {
        delay: Duration::from_millis(300),
        ..SimPlan::default()
    });
    let lsn = rig.append(1, &[b"slow"]).expect("room");
    let error = rig
        .wal
        .wait(lsn, Some(Instant::now()))
        .expect_err("too soon");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(
        rig.wal
            .wait(lsn + 1, None)
            .expect_err("not appended")
            .kind(),
        ErrorKind::OutOfRange
    );
    rig.wal.wait(lsn, None).expect("durable");
}

#[test]
fn a_mark_is_a_boundary_that_recovery_can_start_from() {
    let rig = Rig::create(WAL);
    assert_eq!(rig.wal.seal_mark().expect("a mark").lsn, 0);
    let before = rig.append(1, &[b"before"]).expect("room");
    let mark = rig.wal.seal_mark().expect("a mark");
    let after = rig.append(2, &[b"after"]).expect("room");
    let start = rig.wal.start_after(&mark, None).expect("durable");
    assert_eq!((mark.lsn, start.next_lsn), (before, after));
    rig.wal.wait(after, None).expect("durable");
    let image = rig.disk.copy();
    let (_, got) = recover_all(&image, &config(&rig.superblock.geometry), &start).expect("whole");
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].lsn, got[0].kind), (after, 2));
    // When nothing is under way it is known at once, as often as it is asked for.
    let quiet = rig.wal.seal_mark().expect("a mark");
    assert_eq!(
        rig.wal.start_after(&quiet, None).expect("known").next_lsn,
        after + 1
    );
    assert_eq!(
        rig.wal.start_after(&quiet, None).expect("known").next_lsn,
        after + 1
    );
}

#[test]
fn a_mark_under_the_commit_lock_splits_commits_there() {
    let rig = Rig::create(WAL);
    let first = rig.append(1, &[b"old"]).expect("room");
    let mut append = rig.wal.begin(record_bytes(3)).expect("room");
    let mark = append.mark().expect("before the first record");
    append.push(2, &[b"new"]).expect("fits");
    assert_eq!(
        append.mark().expect_err("inside").kind(),
        ErrorKind::InvalidArgument
    );
    let second = append.finish();
    assert_eq!((mark.lsn, second), (first, first + 1));
    let mut only_mark = rig.wal.begin(0).expect("room");
    let again = only_mark.mark().expect("a mark");
    drop(only_mark);
    assert_eq!(again.lsn, second);
    rig.wal.start_after(&again, None).expect("durable");
    let start = rig.wal.start_after(&mark, None).expect("durable");
    assert_eq!(start.next_lsn, second);
}

#[test]
fn the_ring_goes_round_and_round() {
    let mut rig = Rig::create(32 << 10);
    let mut random = Random(7);
    let mut want: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut checkpoints = 0;
    for number in 0..300u64 {
        let bytes = payload(number, random.below(5_000) as usize);
        if rig.wal.used_bytes() > 12 << 10 {
            rig.checkpoint();
            checkpoints += 1;
            want.clear();
        }
        let lsn = rig.commit(1, &[&bytes]);
        want.push((lsn, bytes));
    }
    assert!(checkpoints > 20 && rig.superblock.wal.position > 10 * (32 << 10));
    let got: Vec<_> = recovered(&rig)
        .into_iter()
        .map(|r| (r.lsn, r.payload))
        .collect();
    assert_eq!(got, want);
}

#[test]
fn an_opened_log_goes_on_where_it_ended() {
    let rig = Rig::create(WAL);
    rig.commit(1, &[b"one"]);
    let mut disk = Arc::clone(&rig.disk);
    drop(rig);
    for round in 2..6u64 {
        let (rig, recovered, records) = Rig::open(disk).expect("whole");
        assert_eq!(records.len() as u64, round - 1);
        assert_eq!(recovered.next.epoch as u64, round - 1);
        assert_eq!(rig.commit(1, &[b"more"]), round);
        disk = Arc::new(
            rig.disk
                .image(rig.disk.now(), Survivors::None)
                .expect("an image"),
        );
    }
}

#[test]
fn a_full_ring_makes_committers_wait_and_then_says_so() {
    let geometry = geometry(32 << 10);
    let disk = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let config = WalConfig {
        stall: Duration::from_millis(50),
        ..config(&geometry)
    };
    let mut rig = Rig::create_on(disk, geometry, config);
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    rig.wal.on_pressure(Box::new(move || {
        count.fetch_add(1, SeqCst);
    }));
    let mut written = 0;
    let error = loop {
        match rig.append(1, &[&[0; 3000]]) {
            Ok(lsn) => rig.wal.wait(lsn, None).expect("what was let in is written"),
            Err(error) => break error,
        }
        written += 1;
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.message().contains("wal_bytes"), "{error}");
    assert_eq!(written, 7, "8 blocks, one of them for the empty batch");
    assert!(
        calls.load(SeqCst) >= 2,
        "more than half used, and a committer waited"
    );
    let stalls = rig.wal.stats().stalls;
    assert!(stalls >= 1);
    // The last block takes the empty batch. Who only wants the lock between two commits may hold up
    // the checkpoint that makes room: it must not wait for room.
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while rig.wal.used_bytes() < 32 << 10 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(rig.wal.begin(0).expect("nothing needs no room"));
    assert_eq!(rig.wal.stats().stalls, stalls);
    // It is not broken: room lets commits in again, also those that wait already.
    std::thread::scope(|scope| {
        let wal = Arc::clone(&rig.wal);
        let waiting = scope.spawn(move || {
            for _ in 0..100 {
                if let Ok(lsn) = append(&wal, 2, &[&[0; 3000]]) {
                    return wal.wait(lsn, None);
                }
            }
            Err(Error::new(ErrorKind::TimedOut, "never"))
        });
        std::thread::sleep(Duration::from_millis(20));
        rig.checkpoint();
        waiting.join().expect("no panic").expect("durable");
    });
    assert!(rig.wal.used_bytes() <= 3 * BLOCK as u64);
}

#[test]
fn a_slow_disk_bounds_what_waits() {
    let geometry = geometry(1 << 20);
    let disk = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let config = WalConfig {
        max_batch_bytes: 8192,
        pending_bytes: 16384,
        stall: Duration::from_millis(30),
        ..config(&geometry)
    };
    let rig = Rig::create_on(disk, geometry, config);
    rig.disk.set_plan(SimPlan {
        delay: Duration::from_millis(500),
        ..SimPlan::default()
    });
    let mut last = 0;
    let error = loop {
        match rig.append(1, &[&[0; 2000]]) {
            Ok(lsn) => last = lsn,
            Err(error) => break error,
        }
        assert!(rig.wal.stats().pending_bytes <= 16384);
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    rig.wal
        .wait(last, None)
        .expect("what was let in becomes durable");
}

#[test]
fn a_failed_write_ends_the_log_and_is_never_tried_again() {
    for flush in [false, true] {
        let rig = Rig::create(WAL);
        let good = rig.commit(1, &[b"good"]);
        let plan = match flush {
            true => SimPlan {
                flush_error: 1.0,
                ..SimPlan::default()
            },
            false => SimPlan {
                write_error: 1.0,
                ..SimPlan::default()
            },
        };
        rig.disk.set_plan(plan);
        let mut append = rig.wal.begin(record_bytes(3)).expect("room");
        append.push(2, &[b"bad"]).expect("fits");
        append.set_has_data();
        let bad = append.finish();
        let error = rig.wal.wait(bad, None).expect_err("not durable");
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::Poisoned, libc::EIO)
        );
        assert!(rig.wal.is_poisoned());
        let called = Arc::new(Mutex::new(None));
        let place = Arc::clone(&called);
        rig.wal.on_durable(
            bad,
            Box::new(move |outcome| *place.lock().unwrap() = Some(outcome)),
        );
        let outcome = called.lock().unwrap().take().expect("called at once");
        assert_eq!(outcome.expect_err("failed").kind(), ErrorKind::Poisoned);
        rig.disk.set_plan(SimPlan::default());
        let before = rig.disk.now();
        assert_eq!(
            rig.append(1, &[b"x"]).expect_err("over").kind(),
            ErrorKind::Poisoned
        );
        assert_eq!(
            rig.wal.seal_mark().expect_err("over").kind(),
            ErrorKind::Poisoned
        );
        // What is durable stays known.
        rig.wal.wait(good, None).expect("durable");
        assert_eq!(rig.wal.durable_lsn(), good);
        let disk = Arc::clone(&rig.disk);
        drop(rig);
        assert_eq!(disk.now(), before, "nothing was written any more");
        let (_, _, records) = Rig::open(disk).expect("opens again");
        assert_eq!(records[0].payload, b"good");
    }
}

#[test]
fn poison_wakes_all_who_wait() {
    let rig = Rig::create(WAL);
    rig.disk.set_plan(SimPlan {
        delay: Duration::from_millis(100),
        ..SimPlan::default()
    });
    rig.append(1, &[b"under way"]).expect("room");
    let later = rig.append(1, &[b"later"]).expect("room");
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| rig.wal.wait(later, None)))
            .collect();
        std::thread::sleep(Duration::from_millis(10));
        rig.wal.poison(&Error::new(ErrorKind::Io, "by a test"));
        for thread in waiting {
            if let Err(error) = thread.join().expect("no panic") {
                assert_eq!(error.kind(), ErrorKind::Poisoned);
                assert!(error.message().contains("by a test"));
            }
        }
    });
    assert_eq!(
        rig.append(1, &[b"x"]).expect_err("over").kind(),
        ErrorKind::Poisoned
    );
}

#[test]
fn dropping_it_writes_what_is_pending_and_answers_the_rest() {
    let rig = Rig::create(WAL);
    rig.disk.set_plan(SimPlan {
        delay: Duration::from_millis(5),
        ..SimPlan::default()
    });
    for number in 0..50u8 {
        rig.append(number, &[b"x"]).expect("room");
    }
    let outcome = Arc::new(Mutex::new(None));
    let place = Arc::clone(&outcome);
    rig.wal
        .on_durable(1000, Box::new(move |o| *place.lock().unwrap() = Some(o)));
    let disk = Arc::clone(&rig.disk);
    let superblock = rig.superblock.clone();
    drop(rig);
    let outcome = outcome.lock().unwrap().take().expect("called");
    assert_eq!(
        outcome.expect_err("never appended").kind(),
        ErrorKind::Cancelled
    );
    let image = disk.image(disk.now(), Survivors::None).expect("an image");
    let (_, got) =
        recover_all(&image, &config(&superblock.geometry), &superblock.wal).expect("whole");
    assert_eq!(got.len(), 50);
}

#[test]
fn an_idle_log_writes_one_empty_batch_and_no_more() {
    let rig = Rig::create(WAL);
    rig.commit(1, &[b"x"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.wal.stats().trailers == 0 {
        assert!(Instant::now() < deadline, "no empty batch came");
        std::thread::sleep(Duration::from_millis(2));
    }
    let now = rig.disk.now();
    std::thread::sleep(Duration::from_millis(80));
    assert_eq!(rig.disk.now(), now);
    assert_eq!(rig.wal.stats().trailers, 1);
    assert_eq!(rig.wal.durable_lsn(), 1);
    // Records after it are found.
    rig.commit(2, &[b"y"]);
    assert_eq!(recovered(&rig).len(), 2);
}

#[test]
fn data_is_flushed_once_before_the_batch_that_names_it() {
    let rig = Rig::create(WAL);
    let before = rig.disk.changes().len();
    rig.commit(1, &[b"no data"]);
    let mut append = rig.wal.begin(record_bytes(1)).expect("room");
    append.set_has_data();
    append.push(1, &[b"d"]).expect("fits");
    let lsn = append.finish();
    rig.wal.wait(lsn, None).expect("durable");
    let kinds: Vec<_> = rig.disk.changes()[before..]
        .iter()
        .map(|c| match c {
            Change::Flush => 'f',
            Change::WriteDurable { .. } => 'w',
            _ => '?',
        })
        .take(3)
        .collect();
    assert_eq!(kinds, ['w', 'f', 'w']);
}

#[test]
fn settings_and_starts_that_cannot_be_are_refused() {
    let geometry = geometry(WAL);
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let good = config(&geometry);
    let start = Rig::create(WAL).superblock.wal;
    let refuse = |config: WalConfig| {
        Wal::start(Arc::clone(&disk), config, start)
            .expect_err("refused")
            .kind()
    };
    for config in [
        WalConfig {
            size: 7 * BLOCK as u64,
            ..good.clone()
        },
        WalConfig {
            size: good.size + 1,
            ..good.clone()
        },
        WalConfig {
            offset: 5,
            ..good.clone()
        },
        WalConfig {
            max_batch_bytes: 100,
            ..good.clone()
        },
        WalConfig {
            max_batch_bytes: good.size as usize / 2,
            ..good.clone()
        },
        WalConfig {
            pending_bytes: 10,
            ..good.clone()
        },
    ] {
        assert_eq!(refuse(config), ErrorKind::InvalidConfig);
    }
    let beyond = WalConfig {
        offset: 1 << 30,
        ..good.clone()
    };
    assert_eq!(refuse(beyond), ErrorKind::Corrupted);
}
