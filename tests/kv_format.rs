//! Bytes on disk do not change unnoticed: a superblock and a log of this version, as they were
//! when the version was made. `GDS_BLESS=1` writes them anew (for a new version only).

mod kv_support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gds_rs::kv::disk::{Blocks, Disk};
use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::superblock::{MetaSegment, Superblock};
use gds_rs::kv::wal::WalConfig;
use kv_support::{Rig, config, disk_bytes, geometry, recover_all};

const SUPERBLOCK: usize = 4096;
const RING: usize = 16 << 10;

/// One superblock and the ring's first blocks.
fn made() -> (Superblock, Vec<u8>) {
    let geometry = geometry(32 << 10);
    let disk = Arc::new(SimDisk::new(disk_bytes(&geometry)));
    let config = WalConfig {
        idle: Duration::from_secs(3600),
        ..config(&geometry)
    };
    let mut rig = Rig::create_on(disk, geometry, config);
    rig.commit(1, &[b"first"]);
    rig.commit(2, &[b"second", b"", &[7; 5000]]);
    rig.superblock.compat = 5;
    rig.superblock.meta = vec![MetaSegment {
        segment: 3,
        valid_bytes: 8192,
    }];
    let mut bytes = rig.superblock.encode(0).expect("a block").to_vec();
    let mut ring = Blocks::new(RING).expect("memory");
    rig.disk
        .read(geometry.wal_offset(), &mut ring)
        .expect("read");
    bytes.extend_from_slice(&ring);
    (rig.superblock.clone(), bytes)
}

#[test]
fn what_version_1_wrote_is_what_is_written_and_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kv_version_1.bin");
    let (superblock, bytes) = made();
    if std::env::var_os("GDS_BLESS").is_some() {
        std::fs::write(&path, &bytes).expect("written");
    }
    let golden = std::fs::read(&path).expect("the golden file");
    assert!(
        golden == bytes,
        "the format changed: it needs a new version"
    );
    let (head, ring) = golden.split_at(SUPERBLOCK);
    assert_eq!(Superblock::decode(head, 0).expect("whole"), superblock);
    let disk = SimDisk::new(disk_bytes(&superblock.geometry));
    let ring = Blocks::copy_of(ring).expect("memory");
    disk.write(superblock.geometry.wal_offset(), &ring)
        .expect("written");
    let (_, records) =
        recover_all(&disk, &config(&superblock.geometry), &superblock.wal).expect("whole");
    let got: Vec<_> = records
        .iter()
        .map(|r| (r.lsn, r.kind, r.payload.len(), r.last))
        .collect();
    assert_eq!(
        got,
        [
            (1, 1, 5, true),
            (2, 2, 6, false),
            (3, 2, 0, false),
            (4, 2, 5000, true)
        ]
    );
    // As docs/format-kv.md says.
    assert_eq!(&golden[..8], b"GDSKVSB1");
    assert_eq!(golden[12], 1);
    assert_eq!(
        &golden[256..272],
        [3, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(&golden[SUPERBLOCK..SUPERBLOCK + 4], b"GWAL");
    assert_eq!(
        &golden[SUPERBLOCK + 64..SUPERBLOCK + 77],
        b"\x05\0\0\0\x01\x01\0\0first"
    );
}
