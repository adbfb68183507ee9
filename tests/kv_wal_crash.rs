//! The log after crashes at every moment, and on disks that lie: what was acknowledged is there,
//! what is there was committed, and damage is told from a torn end.

mod kv_support;

use std::sync::Arc;

use gds_rs::ErrorKind;
use gds_rs::base::crc::crc32c;
use gds_rs::kv::disk::{BLOCK, Blocks, Disk};
use gds_rs::kv::sim::{SimDisk, SimPlan, Survivors};
use gds_rs::kv::superblock::Superblock;
use kv_support::{Random, Rig, config, crash, recover_all, scaled};

#[test]
fn every_crash_leaves_every_acknowledged_record_and_whole_commits() {
    let mut images = 0;
    for seed in 0..scaled(6) as u64 {
        let run = crash::run(seed, 60);
        images += run
            .check_all(seed)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    println!("{images} disks");
    assert!(images > 4_000, "{images}");
}

/// A log with batches of several sizes, closed: its last batch with records is covered by the
/// empty one.
struct Quiet {
    disk: Arc<SimDisk>,
    superblock: Superblock,
    used: u64,
}

fn quiet_log() -> Quiet {
    let rig = Rig::create(64 << 10);
    for number in 0..6u8 {
        let bytes = vec![number; 100 + 1500 * usize::from(number)];
        rig.commit(number, &[&bytes, b"end"]);
    }
    let used = rig.wal.used_bytes();
    Quiet {
        disk: Arc::clone(&rig.disk),
        superblock: rig.superblock.clone(),
        used: used + BLOCK as u64 * u64::from(rig.wal.stats().trailers == 0),
    }
}

/// Recovers a disk that somebody damaged: the error, or the records.
fn recovered(superblock: &Superblock, disk: &dyn Disk) -> gds_rs::Result<Vec<kv_support::Record>> {
    let config = config(&superblock.geometry);
    recover_all(disk, &config, &superblock.wal).map(|(_, records)| records)
}

#[test]
fn a_flipped_bit_of_a_durable_batch_is_damage_and_never_an_end() {
    let rig = quiet_log();
    let whole = recovered(&rig.superblock, &*rig.disk).expect("whole");
    assert_eq!(whole.len(), 12);
    let ring = rig.superblock.geometry.wal_offset();
    let used = rig.used;
    let mut random = Random(1);
    let mut damaged = 0;
    for _ in 0..scaled(3000) {
        let offset = ring + random.below(used);
        let disk = rig.disk.copy();
        disk.flip(offset, 1 << random.below(8));
        match recovered(&rig.superblock, &disk) {
            // Padding, or the empty batch: nothing is lost.
            Ok(records) => assert_eq!(records, whole, "offset {offset}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                let at = error.offset().expect("it says where");
                assert!(at <= offset && offset - at < 16 << 10, "{at} for {offset}");
                damaged += 1;
            }
        }
    }
    assert!(damaged > scaled(1500), "{damaged}");
}

#[test]
fn a_lost_stale_or_misplaced_batch_is_damage() {
    let rig = quiet_log();
    let whole = recovered(&rig.superblock, &*rig.disk).expect("whole");
    let ring = rig.superblock.geometry.wal_offset();
    let blocks = rig.used / BLOCK as u64 - 1;
    let block_of = |number: u64| {
        let mut block = Blocks::new(BLOCK).expect("memory");
        rig.disk
            .read(ring + number * BLOCK as u64, &mut block)
            .expect("read");
        block
    };
    for block in 0..blocks {
        for source in [
            None,
            Some((block + 1) % blocks),
            Some(block.saturating_sub(1)),
        ] {
            if source == Some(block) {
                continue;
            }
            let disk = rig.disk.copy();
            let bytes = source.map_or_else(|| Blocks::new(BLOCK).expect("memory"), block_of);
            disk.corrupt(ring + block * BLOCK as u64, |b| b.copy_from_slice(&bytes));
            match recovered(&rig.superblock, &disk) {
                Ok(records) => assert_eq!(records, whole, "block {block} from {source:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}"),
            }
        }
        // Zeros over a batch's first block are always seen.
        let disk = rig.disk.copy();
        disk.corrupt(ring + block * BLOCK as u64, |b| b.fill(0));
        let error = recovered(&rig.superblock, &disk).expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Corrupted);
    }
}

#[test]
fn headers_with_right_checksums_and_wrong_words_do_no_harm() {
    let rig = quiet_log();
    let whole = recovered(&rig.superblock, &*rig.disk).expect("whole");
    let ring = rig.superblock.geometry.wal_offset();
    let mut random = Random(11);
    let (mut refused, mut same) = (0, 0);
    for _ in 0..scaled(4000) {
        let disk = rig.disk.copy();
        let block = random.below(rig.used / BLOCK as u64);
        let word = 4 * random.below(16) as usize;
        let value = match random.below(4) {
            0 => random.below(40) as u32,
            1 => u32::MAX - random.below(5000) as u32,
            2 => 1 << random.below(32),
            _ => random.next() as u32,
        };
        let records = random.below(4) == 0;
        disk.corrupt(ring + block * BLOCK as u64, |bytes| {
            if bytes[..4] != *b"GWAL" {
                return;
            }
            // Now and then a record's header, under a right checksum of a one-block body.
            let at = if records { 64 } else { word };
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let len = u32::from_le_bytes(bytes[56..60].try_into().expect("4")) as usize;
            if let Some(body) = bytes.get(64..64 + len.min(1 << 20)) {
                let crc = crc32c(0, body);
                bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            }
            bytes[4..8].fill(0);
            let crc = crc32c(0, &bytes[..64]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        });
        match recovered(&rig.superblock, &disk) {
            Ok(records) => {
                // A changed kind or payload under a right checksum is what was written.
                assert_eq!(records.len(), whole.len());
                same += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                refused += 1;
            }
        }
    }
    assert!(
        refused > scaled(500) && same > scaled(500),
        "{refused} {same}"
    );
}

#[test]
fn a_torn_last_batch_is_the_end_of_the_log() {
    let rig = Rig::create(64 << 10);
    rig.commit(1, &[b"whole"]);
    let before = rig.disk.now();
    rig.commit(2, &[&[5; 10_000]]);
    let mut torn = 0;
    for seed in 0..200 {
        let survivors = Survivors::Torn { seed, unit: 512 };
        let image = rig.disk.image(before + 1, survivors).expect("an image");
        let config = config(&rig.superblock.geometry);
        let (found, records) =
            recover_all(&image, &config, &rig.superblock.wal).expect("a torn tail is no damage");
        if records.len() == 1 {
            torn += usize::from(found.torn_at.is_some());
            assert_eq!(found.next.next_lsn, 2);
        }
    }
    assert!(torn > 20, "{torn}");
}

#[test]
fn what_an_opening_has_read_must_stay_readable() {
    let rig = Rig::create(64 << 10);
    rig.commit(1, &[b"one"]);
    let crashed = rig
        .disk
        .image(rig.disk.now(), Survivors::None)
        .expect("an image");
    let (rig, _, records) = Rig::open(Arc::new(crashed)).expect("whole");
    assert_eq!(records.len(), 1);
    let disk = rig.disk.copy();
    disk.flip(rig.superblock.geometry.wal_offset() + 70, 1);
    let error =
        recovered(&rig.superblock, &disk).expect_err("no later batch, and damage all the same");
    assert_eq!(error.kind(), ErrorKind::Corrupted);
}

#[test]
fn a_ring_that_cannot_be_read_is_refused() {
    let rig = quiet_log();
    let ring = rig.superblock.geometry.wal_offset();
    for block in [0, 2, 15] {
        let disk = rig.disk.copy();
        disk.set_unreadable(ring + block * BLOCK as u64, true);
        let error = recovered(&rig.superblock, &disk).expect_err("unreadable");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, libc::EIO));
    }
}

#[test]
fn disks_that_fail_lose_nothing_that_was_acknowledged() {
    let mut failures = 0;
    for seed in 0..scaled(150) as u64 {
        let mut random = Random(seed);
        let rig = Rig::create(64 << 10);
        let plan = SimPlan {
            seed,
            write_error: random.below(20) as f64 / 100.0,
            flush_error: random.below(20) as f64 / 100.0,
            ..SimPlan::default()
        };
        rig.disk.set_plan(plan);
        let mut acked = 0;
        for number in 0..12u64 {
            let bytes = vec![number as u8; random.below(3000) as usize];
            let Ok(lsn) = rig.append(number as u8, &[&bytes]) else {
                break;
            };
            match rig.wal.wait(lsn, None) {
                Ok(()) => acked = lsn,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Poisoned),
            }
        }
        failures += rig.disk.failures();
        let at = rig.disk.now();
        let survivors = Survivors::Torn { seed, unit: 512 };
        let disk = rig.disk.image(at, survivors).expect("an image");
        let (_, _, records) =
            Rig::open(Arc::new(disk)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(records.len() as u64 >= acked, "seed {seed}");
        for (record, number) in records.iter().zip(0u64..) {
            assert_eq!((record.lsn, u64::from(record.kind)), (number + 1, number));
            assert!(record.payload.iter().all(|b| u64::from(*b) == number));
        }
    }
    assert!(failures > 20, "{failures}");
}
