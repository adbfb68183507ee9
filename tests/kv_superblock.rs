//! The superblock: two newest copies that agree count, whatever a crash or a bad disk did to the
//! others; a store that is newer than this library is refused.

mod kv_support;

use std::sync::Arc;

use gds_rs::ErrorKind;
use gds_rs::kv::disk::{BLOCK, Disk};
use gds_rs::kv::sim::{SimDisk, Survivors};
use gds_rs::kv::superblock::{Geometry, META_SEGMENTS_MAX, MetaSegment, Superblock};
use kv_support::{Random, UUID, disk_bytes, geometry, scaled};

fn made(spacing: u64) -> (Arc<SimDisk>, Superblock) {
    let geometry = Geometry {
        spacing,
        ..geometry(32 << 10)
    };
    let disk = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let mut superblock = Superblock::new(UUID, geometry, disk.size()).expect("a layout");
    superblock.create(&*disk).expect("a store");
    (disk, superblock)
}

fn read(disk: &SimDisk) -> gds_rs::Result<Superblock> {
    Superblock::read_quorum(disk)
}

/// The superblock of the next checkpoint.
fn advance(superblock: &mut Superblock, disk: &SimDisk) {
    superblock.wal.position += BLOCK as u64;
    superblock.wal.batch_no += 1;
    superblock.wal.next_lsn += 9;
    superblock.meta.push(MetaSegment {
        segment: superblock.generation,
        valid_bytes: 77,
    });
    superblock.write(disk).expect("written");
}

#[test]
fn every_field_comes_back_from_every_spacing() {
    for spacing in [4 << 10, 64 << 10, 1 << 20] {
        let (disk, mut superblock) = made(spacing);
        superblock.compat = 6;
        superblock.wal.prev_crc = 0xdead_beef;
        superblock.wal.epoch = 4;
        superblock.wal.epoch_first_batch = 3;
        advance(&mut superblock, &disk);
        assert_eq!(read(&disk).expect("whole"), superblock);
    }
}

#[test]
fn any_two_copies_are_enough_and_one_is_not() {
    for spacing in [4 << 10, 1 << 20] {
        let (disk, superblock) = made(spacing);
        for lost in 0..16u32 {
            for (zeroed, unreadable) in [(true, false), (false, false), (false, true)] {
                let disk = disk.copy();
                for copy in (0..4).filter(|copy| lost & (1 << copy) != 0) {
                    let offset = copy * spacing;
                    match zeroed {
                        _ if unreadable => disk.set_unreadable(offset, true),
                        true => disk.corrupt(offset, |b| b.fill(0)),
                        false => disk.flip(offset + 100, 4),
                    }
                }
                let found = read(&disk);
                if lost.count_ones() <= 2 {
                    assert_eq!(found.expect("two are whole"), superblock, "{lost:04b}");
                } else {
                    let kind = found.expect_err("no two are whole").kind();
                    let want = match (unreadable, zeroed && lost == 15) {
                        (true, _) => ErrorKind::Io,
                        (_, true) => ErrorKind::UnsupportedFile,
                        _ => ErrorKind::Corrupted,
                    };
                    assert_eq!(kind, want, "{lost:04b}");
                }
            }
        }
    }
}

#[test]
fn a_single_newer_copy_does_not_count() {
    let (disk, old) = made(4 << 10);
    let mut new = old.clone();
    new.generation += 1;
    new.wal.next_lsn = 500;
    let block = new.encode(2).expect("a block");
    disk.write(2 * 4096, &block).expect("written");
    assert_eq!(read(&disk).expect("three old ones"), old);
    // Nor do two that differ.
    new.wal.next_lsn = 501;
    disk.write(3 * 4096, &new.encode(3).expect("a block"))
        .expect("written");
    assert_eq!(read(&disk).expect("two old ones"), old);
}

#[test]
fn a_crash_while_it_is_written_leaves_the_old_or_the_new_one() {
    let (disk, mut superblock) = made(4 << 10);
    disk.settle();
    let mut versions = vec![(0, superblock.clone())];
    for _ in 0..4 {
        advance(&mut superblock, &disk);
        versions.push((disk.now(), superblock.clone()));
    }
    for at in 0..=disk.now() {
        let done = versions.iter().filter(|(when, _)| *when <= at).count() - 1;
        for seed in 0..scaled(20) as u64 {
            for survivors in [
                Survivors::None,
                Survivors::All,
                Survivors::Some { seed },
                Survivors::Torn { seed, unit: 512 },
                Survivors::Torn { seed, unit: 1 },
            ] {
                let image = disk.image(at, survivors).expect("an image");
                let found = read(&image).unwrap_or_else(|e| panic!("{at} {survivors:?}: {e}"));
                let next = versions.get(done + 1).map(|v| &v.1);
                assert!(
                    found == versions[done].1 || Some(&found) == next,
                    "{at} {survivors:?}"
                );
            }
        }
    }
}

#[test]
fn writing_goes_on_after_a_crash_whatever_it_left() {
    let (disk, mut superblock) = made(4 << 10);
    disk.settle();
    advance(&mut superblock, &disk);
    for at in 0..=disk.now() {
        for seed in 0..20 {
            let image = disk.image(at, Survivors::Some { seed }).expect("an image");
            let mut found = read(&image).expect("old or new");
            image.settle();
            found.wal.next_lsn = 1000;
            let before = found.clone();
            found.write(&image).expect("written");
            for second in 0..=image.now() {
                let image = image
                    .image(second, Survivors::Some { seed })
                    .expect("an image");
                let last = read(&image).expect("old or new");
                let old = last.wal.next_lsn != 1000 && last.generation == before.generation;
                assert!(old || last == found, "{at} {second}");
            }
        }
    }
}

#[test]
fn a_new_store_is_there_after_every_crash_once_it_was_made() {
    let geometry = geometry(32 << 10);
    let disk = SimDisk::unnamed(disk_bytes(&geometry));
    // What another store left there before must not be taken for this one.
    let mut stale = Superblock::new(
        [9; 16],
        Geometry {
            spacing: 64 << 10,
            ..geometry
        },
        1 << 40,
    )
    .expect("a layout");
    stale.generation = 900;
    for copy in 1..4u32 {
        let block = stale.encode(copy).expect("a block");
        let offset = u64::from(copy) * (64 << 10);
        if offset < disk.size() {
            disk.corrupt(offset, |b| b.copy_from_slice(&block));
        }
    }
    let mut superblock = Superblock::new(UUID, geometry, disk.size()).expect("a layout");
    superblock.create(&disk).expect("a store");
    for survivors in [Survivors::None, Survivors::All, Survivors::Some { seed: 1 }] {
        let image = disk
            .image(disk.now(), survivors)
            .expect("its name is durable");
        assert_eq!(read(&image).expect("whole"), superblock);
    }
    // Even without the first copy, which tells where the others are.
    let image = disk.copy();
    image.corrupt(0, |b| b.fill(0));
    assert_eq!(read(&image).expect("three are whole"), superblock);
    assert_eq!(
        disk.image(2, Survivors::None)
            .expect_err("no name yet")
            .kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_disk_that_grows_is_larger_before_the_superblock_says_so() {
    let (disk, mut superblock) = made(4 << 10);
    disk.settle();
    let old = superblock.size_bytes;
    superblock.grow(&*disk, old + (256 << 10)).expect("grown");
    let done = disk.now();
    for at in 0..=done {
        for seed in 0..20 {
            for survivors in [Survivors::None, Survivors::Some { seed }] {
                let image = disk.image(at, survivors).expect("an image");
                let found = read(&image).unwrap_or_else(|e| panic!("{at} {survivors:?}: {e}"));
                assert!(image.size() >= found.size_bytes);
                assert!(at < done || found.size_bytes == old + (256 << 10));
            }
        }
    }
}

#[test]
fn what_is_newer_cut_or_foreign_is_refused_with_the_reason() {
    let (disk, superblock) = made(4 << 10);
    let newer = disk.copy();
    for copy in 0..4u32 {
        let mut future = superblock.clone();
        future.incompat = 1 << 40;
        let block = future.encode(copy).expect("a block");
        newer.corrupt(u64::from(copy) * 4096, |b| b.copy_from_slice(&block));
    }
    let error = read(&newer).expect_err("unknown features");
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.message().contains("0x10000000000"), "{error}");
    let cut = disk.copy();
    cut.resize(superblock.size_bytes - 4096).expect("cut");
    assert_eq!(read(&cut).expect_err("cut").kind(), ErrorKind::Corrupted);
    let empty = SimDisk::new(1 << 20);
    assert_eq!(
        read(&empty).expect_err("foreign").kind(),
        ErrorKind::UnsupportedFile
    );
    assert_eq!(
        read(&SimDisk::new(0)).expect_err("empty").kind(),
        ErrorKind::UnsupportedFile
    );
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let (_, superblock) = made(4 << 10);
    let block = superblock.encode(1).expect("a block");
    assert_eq!(Superblock::decode(&block, 4096).expect("whole"), superblock);
    assert_eq!(
        Superblock::decode(&block, 8192)
            .expect_err("misplaced")
            .kind(),
        ErrorKind::Corrupted
    );
    let mut random = Random(3);
    let mut copy = block.to_vec();
    for round in 0..scaled(4000) {
        let bit = match round {
            0..2400 => round,
            _ => random.below(BLOCK as u64 * 8) as usize,
        };
        copy[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::decode(&copy, 4096).is_err(), "bit {bit}");
        copy[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    let good = geometry(32 << 10);
    for bad in [
        Geometry {
            spacing: 5000,
            ..good
        },
        Geometry {
            spacing: 32 << 20,
            ..good
        },
        Geometry {
            wal_bytes: 4096,
            ..good
        },
        Geometry {
            wal_bytes: 32769,
            ..good
        },
        Geometry {
            segment_bytes: 100,
            ..good
        },
        Geometry {
            segment_bytes: u64::MAX - 4095,
            ..good
        },
    ] {
        let error = Superblock::new(UUID, bad, 1 << 40).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad:?}");
    }
    let small = Superblock::new(UUID, good, good.segment_offset(1) - 1).expect_err("too small");
    assert_eq!(small.kind(), ErrorKind::NoSpace);
    let mut many = Superblock::new(UUID, good, 1 << 20).expect("a layout");
    many.meta = vec![
        MetaSegment {
            segment: 1,
            valid_bytes: 2
        };
        META_SEGMENTS_MAX
    ];
    assert_eq!(
        Superblock::decode(&many.encode(0).expect("fits"), 0).expect("whole"),
        many
    );
    many.meta.push(MetaSegment {
        segment: 1,
        valid_bytes: 2,
    });
    assert_eq!(
        many.encode(0).expect_err("too many").kind(),
        ErrorKind::NoSpace
    );
}
