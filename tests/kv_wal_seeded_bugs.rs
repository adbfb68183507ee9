//! The crash tests find the mistakes that are built into the log and the superblock on purpose.
//!
//! One test, since a mistake is switched on for the whole process.

mod common;
mod kv_support;

use std::sync::Arc;

use gds_rs::io::OpenMode;
use gds_rs::io::posix::Posix;
use gds_rs::kv::bugs::{Bug, turn_off, turn_on};
use gds_rs::kv::disk::{Disk, FileDisk};
use gds_rs::kv::sim::{SimDisk, Survivors};
use gds_rs::kv::superblock::Superblock;
use kv_support::{Random, Rig, UUID, crash, disk_bytes, geometry, recover_all};

/// A check says what is wrong.
type Check = fn() -> Result<(), String>;

/// Crashes of the log at every moment.
fn log_crashes() -> Result<(), String> {
    (0..4).try_for_each(|seed| crash::run(seed, 60).check_all(seed).map(drop))
}

/// A new store is there after a crash, once it was made.
fn new_store() -> Result<(), String> {
    let geometry = geometry(32 << 10);
    let disk = SimDisk::unnamed(disk_bytes(&geometry));
    let mut superblock = Superblock::new(UUID, geometry, disk.size()).map_err(|e| e.to_string())?;
    superblock.create(&disk).map_err(|e| e.to_string())?;
    let image = disk
        .image(disk.now(), Survivors::None)
        .map_err(|e| e.to_string())?;
    Superblock::read_quorum(&image)
        .map(drop)
        .map_err(|e| e.to_string())
}

/// A store opens after a crash while its disk grows.
fn growth() -> Result<(), String> {
    let geometry = geometry(32 << 10);
    let disk = SimDisk::new(disk_bytes(&geometry));
    let mut superblock = Superblock::new(UUID, geometry, disk.size()).map_err(|e| e.to_string())?;
    superblock.create(&disk).map_err(|e| e.to_string())?;
    disk.settle();
    superblock
        .grow(&disk, disk.size() + (64 << 10))
        .map_err(|e| e.to_string())?;
    for at in 0..=disk.now() {
        let image = disk.image(at, Survivors::None).map_err(|e| e.to_string())?;
        Superblock::read_quorum(&image).map_err(|e| format!("crash at {at}: {e}"))?;
    }
    Ok(())
}

/// Flipped bits of batches and of superblocks are never taken for data.
fn flips() -> Result<(), String> {
    let rig = Rig::create(64 << 10);
    for number in 0..6u8 {
        rig.commit(number, &[&[number; 3000]]);
    }
    let (disk, superblock) = (Arc::clone(&rig.disk), rig.superblock.clone());
    drop(rig);
    let config = kv_support::config(&superblock.geometry);
    let good = recover_all(&*disk, &config, &superblock.wal)
        .map_err(|e| e.to_string())?
        .1;
    let mut random = Random(5);
    for _ in 0..500 {
        let copy = disk.copy();
        copy.flip(config.offset + random.below(20 << 10), 1 << random.below(8));
        let found = recover_all(&copy, &config, &superblock.wal);
        if found.is_ok_and(|(_, records)| records != good) {
            return Err("a flipped bit of the log was answered as data".to_owned());
        }
        let block = superblock.encode(0).map_err(|e| e.to_string())?;
        let mut bytes = block.to_vec();
        bytes[random.below(320) as usize] ^= 1 << random.below(8);
        if Superblock::decode(&bytes, 0).is_ok_and(|found| found != superblock) {
            return Err("a flipped bit of a superblock was believed".to_owned());
        }
    }
    Ok(())
}

/// What opening a file for a new store syncs, by path.
fn synced_folder() -> Result<(), String> {
    let folder = common::Folder::new();
    let noted = Arc::new(kv_support::noted::Noted::over(Posix));
    let path = folder.path("new");
    FileDisk::open(&path, OpenMode::create(), noted.clone()).map_err(|e| e.to_string())?;
    match noted.synced().iter().any(|p| p.is_dir()) {
        true => Ok(()),
        false => Err("the folder of a new file was not synced".to_owned()),
    }
}

#[test]
fn each_mistake_is_found_and_without_it_nothing_is() {
    let cases: [(Bug, Check); 8] = [
        (Bug::SkippedFlush, log_crashes),
        (Bug::AckBeforePrefix, log_crashes),
        (Bug::NoEpochBump, log_crashes),
        (Bug::MissingDirSync, new_store),
        (Bug::MissingDirSync, synced_folder),
        (Bug::HeaderBeforeExtension, growth),
        (Bug::ChecksumSkipped, flips),
        (Bug::ChecksumSkipped, log_crashes),
    ];
    for (bug, check) in cases {
        check().unwrap_or_else(|e| panic!("without {bug:?}: {e}"));
        turn_on(bug);
        let found = std::panic::catch_unwind(check);
        turn_off(bug);
        match found {
            Ok(Err(what)) => println!("{bug:?}: {what}"),
            Ok(Ok(())) => panic!("{bug:?} went unnoticed"),
            Err(_) => panic!("{bug:?} was not noticed but ended in a panic"),
        }
    }
}
