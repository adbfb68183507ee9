//! Disks: the simulated one and a file behave alike; a file is locked, whole and named durably.

mod common;
mod kv_support;

use std::sync::Arc;

use gds_rs::ErrorKind;
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::io::{Io, OpenMode};
use gds_rs::kv::disk::{BLOCK, Blocks, DaxDisk, Disk, FileDisk};
use gds_rs::kv::sim::{SimDisk, Survivors};
use gds_rs::kv::superblock::Superblock;
use gds_rs::kv::wal::Wal;
use kv_support::noted::Noted;
use kv_support::{UUID, disk_bytes, geometry, stamp};

const SIZE: u64 = 256 << 10;

fn file(folder: &common::Folder, name: &str, io: Arc<dyn Io>) -> FileDisk {
    let disk = FileDisk::open(&folder.path(name), OpenMode::create(), io).expect("opens");
    disk.resize(SIZE).expect("grows");
    disk
}

/// What persistent memory is used through, over an ordinary file.
fn mapped(folder: &common::Folder, name: &str) -> DaxDisk {
    let file = FileDisk::open(&folder.path(name), OpenMode::create(), Arc::new(Posix));
    let disk = DaxDisk::without_durability(file.expect("opens")).expect("mapped");
    disk.resize(SIZE).expect("grows");
    disk
}

fn all(folder: &common::Folder) -> Vec<Box<dyn Disk>> {
    let shaky = FaultPlan {
        short_read: 0.3,
        short_write: 0.3,
        interrupted: 0.3,
        ..FaultPlan::default()
    };
    vec![
        Box::new(SimDisk::new(SIZE)),
        Box::new(file(folder, "posix", Arc::new(Posix))),
        Box::new(file(folder, "best", gds_rs::io::best())),
        Box::new(file(
            folder,
            "shaky",
            Arc::new(Fault::new(Arc::new(Posix), shaky)),
        )),
        Box::new(mapped(folder, "mapped")),
    ]
}

#[test]
fn what_is_written_is_read() {
    let folder = common::Folder::new();
    for disk in all(&folder) {
        disk.write(8192, &stamp(1, 3)).expect("written");
        disk.write_durable(12288, &stamp(2, 1)).expect("written");
        disk.flush().expect("flushed");
        let mut got = Blocks::new(5 * BLOCK).expect("memory");
        disk.read(4096, &mut got).expect("read");
        for (index, number) in [0, 1, 2, 1, 0].into_iter().enumerate() {
            let part = &got[index * BLOCK..(index + 1) * BLOCK];
            assert_eq!(part, &stamp(number, 1)[..], "{disk:?} block {index}");
        }
    }
}

#[test]
fn many_pieces_are_read_at_once_whole_or_not_at_all() {
    let folder = common::Folder::new();
    let size = 2 * BLOCK;
    let shaky = |inner| -> Arc<dyn Io> {
        let interrupted = 0.3;
        Arc::new(Fault::new(
            inner,
            FaultPlan {
                interrupted,
                ..FaultPlan::default()
            },
        ))
    };
    let disks: [Box<dyn Disk>; 5] = [
        Box::new(SimDisk::new(SIZE)),
        Box::new(file(&folder, "posix", Arc::new(Posix))),
        Box::new(file(&folder, "best", gds_rs::io::best())),
        Box::new(file(&folder, "shaky", shaky(Arc::new(Posix)))),
        Box::new(file(&folder, "shaky best", shaky(gds_rs::io::best()))),
    ];
    for disk in disks {
        for number in 0..32 {
            disk.write(number * size as u64, &stamp(number, 2))
                .expect("written");
        }
        // More than a queue takes, from two threads that take turns, in no order.
        for _ in 0..2 {
            let read = || {
                let mut memory = Blocks::new(32 * size).expect("memory");
                let parts = memory.chunks_mut(size).enumerate();
                let mut pieces: Vec<_> = parts
                    .map(|(n, part)| ((n * 7 % 32 * size) as u64, part))
                    .collect();
                let by_uring = disk.read_many(&mut pieces).expect("read");
                assert!(by_uring <= 32, "{disk:?}: {by_uring}");
                for (n, part) in memory.chunks(size).enumerate() {
                    assert_eq!(part, &stamp(n as u64 * 7 % 32, 2)[..], "{disk:?} {n}");
                }
            };
            read();
            std::thread::scope(|scope| scope.spawn(read).join().expect("the thread ends"));
        }
        let mut memory = Blocks::new(2 * BLOCK).expect("memory");
        let (first, second) = memory.split_at_mut(BLOCK);
        let error = disk.read_many(&mut [(0, first), (SIZE, second)]);
        let error = error.expect_err("past the end");
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{disk:?}: {error}");
        assert_eq!(disk.read_many(&mut []).expect("nothing to do"), 0);
    }
}

#[test]
fn pieces_are_read_and_written_at_once_and_each_is_answered() {
    let folder = common::Folder::new();
    let shaky = |inner| -> Arc<dyn Io> {
        let (short_write, interrupted) = (0.3, 0.3);
        Arc::new(Fault::new(
            inner,
            FaultPlan {
                short_write,
                interrupted,
                ..FaultPlan::default()
            },
        ))
    };
    let disks: [Box<dyn Disk>; 6] = [
        Box::new(SimDisk::new(SIZE)),
        Box::new(mapped(&folder, "mapped")),
        Box::new(file(&folder, "posix", Arc::new(Posix))),
        Box::new(file(&folder, "best", gds_rs::io::best())),
        Box::new(file(&folder, "shaky", shaky(Arc::new(Posix)))),
        Box::new(file(&folder, "shaky best", shaky(gds_rs::io::best()))),
    ];
    for disk in disks {
        for number in 0..64 {
            disk.write(number * BLOCK as u64, &stamp(number, 1))
                .expect("written");
        }
        // Rounds that each read what the one before wrote, more than a queue takes.
        let mut memory = [(); 2].map(|()| Blocks::new(24 * BLOCK).expect("memory"));
        for round in 0..4u64 {
            let [into, from] = &mut memory;
            let (read_at, write_at) = (round % 2 * 32, (round + 1) % 2 * 32);
            for (n, block) in from.chunks_mut(BLOCK).enumerate() {
                block.copy_from_slice(&stamp(100 * (round + 1) + n as u64, 1));
            }
            let mut reads: Vec<_> = into.chunks_mut(BLOCK).enumerate().collect();
            let mut reads: Vec<_> = reads
                .iter_mut()
                .map(|(n, part)| ((read_at + *n as u64) * BLOCK as u64, &mut **part))
                .collect();
            let writes: Vec<_> = from.chunks(BLOCK).enumerate().collect();
            let writes: Vec<_> = writes
                .iter()
                .map(|(n, part)| ((write_at + *n as u64) * BLOCK as u64, *part))
                .collect();
            let done = disk.read_and_write(&mut reads, &writes);
            assert_eq!((done.reads.len(), done.writes.len()), (24, 24));
            assert!(done.reads.iter().all(Result::is_ok), "{disk:?}: {done:?}");
            assert!(done.writes.iter().all(Result::is_ok), "{disk:?}: {done:?}");
            for (n, block) in into.chunks(BLOCK).enumerate() {
                let number = match round {
                    0 => n as u64,
                    _ => 100 * round + n as u64,
                };
                assert_eq!(block, &stamp(number, 1)[..], "{disk:?} {round} {n}");
            }
        }
        let [into, from] = &mut memory;
        let mut reads = [(0, &mut into[..BLOCK])];
        let done = disk.read_and_write(&mut reads, &[(SIZE, &from[..BLOCK]), (0, &from[..BLOCK])]);
        let errors: Vec<_> = done.writes.iter().map(|w| w.as_ref().err()).collect();
        assert_eq!(
            errors[0].map(gds_rs::Error::kind),
            Some(ErrorKind::OutOfRange)
        );
        assert!(
            done.reads[0].is_ok() && errors[1].is_none(),
            "{disk:?}: {done:?}"
        );
        let done = disk.read_and_write(&mut [], &[]);
        assert!(done.reads.is_empty() && done.writes.is_empty());
    }
}

#[test]
fn a_write_that_fails_among_many_is_not_tried_again() {
    let folder = common::Folder::new();
    let bad = 5 * BLOCK as u64;
    let plan = FaultPlan {
        io_error_at: Some(bad..bad + 1),
        ..FaultPlan::default()
    };
    for (name, io) in [
        ("posix", Arc::new(Posix) as Arc<dyn Io>),
        ("best", gds_rs::io::best()),
    ] {
        let fault = Arc::new(Fault::new(io, plan.clone()));
        let disk = file(&folder, name, fault.clone());
        let memory = stamp(1, 16);
        let pieces: Vec<_> = memory.chunks(BLOCK).enumerate().collect();
        let pieces: Vec<_> = pieces
            .iter()
            .map(|(n, part)| (*n as u64 * BLOCK as u64, *part))
            .collect();
        let done = disk.read_and_write(&mut [], &pieces);
        for (n, write) in done.writes.iter().enumerate() {
            assert_eq!(write.is_err(), n == 5, "{name} {n}: {write:?}");
        }
        assert_eq!(fault.counts().io_errors, 1, "{name}");
    }
}

#[test]
fn sizes_offsets_and_memory_are_checked() {
    let folder = common::Folder::new();
    for disk in all(&folder) {
        let mut two = Blocks::new(2 * BLOCK).expect("memory");
        for (offset, from, to) in [(1, 0, 4096), (0, 0, 100), (0, 8, 4104)] {
            let write = disk.write(offset, &two[from..to]).expect_err("crooked");
            assert_eq!(write.kind(), ErrorKind::InvalidArgument);
            let read = disk.read(offset, &mut two[from..to]).expect_err("crooked");
            assert_eq!(read.kind(), ErrorKind::InvalidArgument);
        }
        for offset in [SIZE, SIZE - 4096, u64::MAX - 4095] {
            let error = disk.write_durable(offset, &two).expect_err("past the end");
            assert_eq!(error.kind(), ErrorKind::OutOfRange, "{disk:?}");
            assert_eq!(error.offset(), Some(offset));
        }
    }
}

#[test]
fn a_disk_grows_with_zeros_and_is_cut() {
    let folder = common::Folder::new();
    for disk in all(&folder) {
        disk.write(SIZE - 4096, &stamp(9, 1)).expect("written");
        disk.resize(SIZE - 4096).expect("cut");
        assert_eq!(disk.size(), SIZE - 4096);
        disk.resize(SIZE + 4096).expect("grown");
        let mut got = stamp(1, 2);
        disk.read(SIZE - 4096, &mut got).expect("read");
        assert_eq!(got.as_slice(), stamp(0, 2).as_slice(), "{disk:?}");
    }
}

#[test]
fn what_is_discarded_leaves_its_neighbours() {
    let folder = common::Folder::new();
    for disk in all(&folder) {
        disk.write(0, &stamp(5, 4)).expect("written");
        disk.discard(4096, 8192).expect("discarded");
        let mut got = Blocks::new(4 * BLOCK).expect("memory");
        disk.read(0, &mut got).expect("read");
        assert_eq!(&got[..BLOCK], &stamp(5, 1)[..]);
        assert_eq!(&got[3 * BLOCK..], &stamp(5, 1)[..]);
    }
}

#[test]
fn a_file_is_opened_by_one_at_a_time() {
    let folder = common::Folder::new();
    let first = file(&folder, "store", Arc::new(Posix));
    first.write(0, &stamp(3, 1)).expect("written");
    let truncate = OpenMode {
        truncate: true,
        ..OpenMode::create()
    };
    for mode in [OpenMode::read_write(), truncate] {
        let error =
            FileDisk::open(&folder.path("store"), mode, Arc::new(Posix)).expect_err("taken");
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::Io, libc::EWOULDBLOCK)
        );
        assert!(error.message().contains("close it"), "{error}");
    }
    assert_eq!(first.size(), SIZE, "who was refused changed nothing");
    drop(first);
    let again = FileDisk::open(
        &folder.path("store"),
        OpenMode::read_write(),
        Arc::new(Posix),
    )
    .expect("free again");
    assert_eq!(again.size(), SIZE);
    drop(again);
    let empty = FileDisk::open(&folder.path("store"), truncate, Arc::new(Posix)).expect("free");
    assert_eq!(empty.size(), 0);
}

#[test]
fn failed_writes_and_syncs_are_errors_with_the_place() {
    let folder = common::Folder::new();
    let fault = Arc::new(Fault::new(Arc::new(Posix), FaultPlan::default()));
    let disk = file(&folder, "faulty", fault.clone());
    fault.set_plan(FaultPlan {
        sync_error: 1.0,
        ..FaultPlan::default()
    });
    let error = disk
        .write_durable(8192, &stamp(1, 1))
        .expect_err("not durable");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
    assert_eq!(error.offset(), Some(8192));
    assert_eq!(error.path(), Some(folder.path("faulty").as_path()));
    assert_eq!(disk.flush().expect_err("not durable").errno(), libc::EIO);
    assert_eq!(fault.counts().sync_errors, 2, "a sync is tried once");
    fault.set_plan(FaultPlan {
        no_space_after: Some(4096),
        ..FaultPlan::default()
    });
    let error = disk.write(0, &stamp(1, 3)).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::NoSpace);
}

#[test]
fn opening_syncs_the_file_and_making_it_its_folder_too() {
    let folder = common::Folder::new();
    let real = folder.path("").canonicalize().expect("a folder");
    let path = real.join("new");
    let noted = Arc::new(Noted::over(Posix));
    drop(FileDisk::open(&path, OpenMode::create(), noted.clone()).expect("made"));
    assert_eq!(noted.synced(), [path.clone(), real]);
    drop(FileDisk::open(&path, OpenMode::read_write(), noted.clone()).expect("opened"));
    assert_eq!(noted.synced(), [path]);
}

#[test]
fn a_crash_keeps_what_was_flushed_and_only_that_for_sure() {
    let disk = SimDisk::new(SIZE);
    disk.write(0, &stamp(1, 1)).expect("written");
    disk.flush().expect("flushed");
    disk.write(4096, &stamp(2, 1)).expect("written");
    // Makes itself durable, and nothing else.
    disk.write_durable(8192, &stamp(3, 1)).expect("written");
    let block = |survivors, number: u64| {
        let image = disk.image(disk.now(), survivors).expect("an image");
        let mut got = Blocks::new(BLOCK).expect("memory");
        image.read(number * 4096, &mut got).expect("read");
        u64::from_le_bytes(got[..8].try_into().expect("8"))
    };
    let three = |survivors| [0, 1, 2].map(|number| block(survivors, number));
    assert_eq!(three(Survivors::None), [1, 0, 3]);
    assert_eq!(three(Survivors::All), [1, 2, 3]);
    let some: Vec<_> = (0..20)
        .map(|seed| three(Survivors::Some { seed }))
        .collect();
    assert!(some.contains(&[1, 0, 3]) && some.contains(&[1, 2, 3]));
    assert!(some.iter().all(|s| s[0] == 1 && s[2] == 3));
    let early = disk.image(1, Survivors::None).expect("an image");
    let mut got = stamp(7, 1);
    early.read(0, &mut got).expect("read");
    assert_eq!(got[0], 0, "begun and not ended");
}

#[test]
fn torn_writes_are_torn_at_their_unit() {
    let disk = SimDisk::new(SIZE);
    disk.write(0, &stamp(u64::MAX, 4)).expect("written");
    let mut mixed = 0;
    for (unit, step) in [(512, 512), (4096, 4096), (1, 1)] {
        for seed in 0..30 {
            let image = disk
                .image(disk.now(), Survivors::Torn { seed, unit })
                .expect("an image");
            let mut got = Blocks::new(4 * BLOCK).expect("memory");
            image.read(0, &mut got).expect("read");
            for piece in got.chunks_exact(step) {
                assert!(piece.iter().all(|b| *b == piece[0]), "torn inside {unit}");
            }
            let there = got.iter().filter(|b| **b == 0xff).count();
            mixed += usize::from(there > 0 && there < got.len());
        }
    }
    assert!(mixed > 40, "{mixed}");
}

/// Makes a store on a disk, writes, opens it again and looks.
fn comes_back(open: impl Fn() -> Arc<dyn Disk>) {
    let geometry = geometry(64 << 10);
    let disk = open();
    let mut superblock = Superblock::new(UUID, geometry, disk.size()).expect("a layout");
    superblock.create(&*disk).expect("made");
    let config = kv_support::config(&geometry);
    let wal = Wal::start(disk, config.clone(), superblock.wal).expect("a log");
    for number in 0..5u8 {
        let lsn = kv_support::append(&wal, number, &[&[number; 100]]).expect("room");
        wal.wait(lsn, None).expect("durable");
    }
    drop(wal);
    let disk = open();
    let found = Superblock::read_quorum(&*disk).expect("whole");
    assert_eq!(found, superblock);
    let (_, records) = kv_support::recover_all(&*disk, &config, &found.wal).expect("whole");
    let kinds: Vec<_> = records.iter().map(|r| r.kind).collect();
    assert_eq!(kinds, [0, 1, 2, 3, 4]);
}

#[test]
fn a_store_on_a_file_comes_back() {
    let folder = common::Folder::new();
    let path = folder.path("whole");
    comes_back(|| {
        let io = gds_rs::io::best();
        let disk = FileDisk::open(&path, OpenMode::create(), io).expect("opens");
        disk.resize(disk_bytes(&geometry(64 << 10))).expect("grows");
        Arc::new(disk)
    });
}

/// Overwrites the start of the device that `GDS_TEST_BLOCK_DEVICE` names.
#[test]
fn a_store_on_a_block_device_comes_back() {
    let Some(path) = std::env::var_os("GDS_TEST_BLOCK_DEVICE") else {
        println!("skipped: GDS_TEST_BLOCK_DEVICE names no block device that may be overwritten");
        return;
    };
    comes_back(|| {
        let io = gds_rs::io::best();
        let disk = FileDisk::open(path.as_ref(), OpenMode::create(), io).expect("opens");
        let error = disk.resize(1 << 20).expect_err("fixed");
        assert_eq!(error.kind(), ErrorKind::NotSupported);
        disk.discard(1 << 20, 1 << 20).expect("given back, or not");
        assert!(disk.is_direct());
        Arc::new(disk)
    });
}
