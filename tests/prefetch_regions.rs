//! Ranges of files mapped to device memory: found again, held, evicted, written, never lost.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use gds_rs::ErrorKind;
use gds_rs::config::Config;
use gds_rs::engine::{Context, File, OpenMode};
use gds_rs::io::fault::{Fault, FaultPlan};
use gds_rs::io::posix::Posix;
use gds_rs::prefetch::{Region, RegionConfig, Regions};

const PAGE: u64 = 4096;

fn regions(context: &Context, limit_bytes: u64) -> Regions {
    Regions::open(context, RegionConfig { limit_bytes }).expect("regions open")
}

fn open_both(context: &Context, path: &Path) -> File {
    let mode = OpenMode {
        read: true,
        write: true,
        ..OpenMode::read_only()
    };
    context.open_file(path, mode).expect("the file opens")
}

/// The memory of a region of the host device.
#[allow(clippy::mut_from_ref)]
fn memory(region: &Region) -> &mut [u8] {
    // SAFETY: device memory of these tests is host memory, and no other thread looks.
    unsafe { std::slice::from_raw_parts_mut(region.address() as *mut u8, region.size() as usize) }
}

fn change(region: &Region, at: u64, bytes: &[u8]) {
    let at = at as usize;
    memory(region)[at..at + bytes.len()].copy_from_slice(bytes);
}

fn on_disk(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("the file can be read")
}

/// A context whose files fail as the plan says.
fn faulty(plan: FaultPlan) -> (Context, Arc<Fault>) {
    let fault = Arc::new(Fault::new(Arc::new(Posix), plan));
    let config = Config {
        max_retries: 0,
        ..small_config()
    };
    (context_over(config, fault.clone()), fault)
}

#[test]
fn a_region_holds_exactly_the_range_that_was_asked_for() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 100_000);
    let context = context();
    let file = open(&context, &path);
    let regions = regions(&context, 0);
    for (offset, size) in [(0, 100_000), (5000, 1), (4095, 8194), (777, 50_000)] {
        let region = regions.map(&file, offset, size).expect("map");
        assert_eq!((region.offset(), region.size()), (offset, size));
        assert_eq!(region.valid_bytes(), size);
        assert!(memory(&region) == &data[offset as usize..(offset + size) as usize]);
        let (address, start, length) = region.aligned();
        assert_eq!(region.address() - address, offset - start);
        assert!(start.is_multiple_of(PAGE) && length.is_multiple_of(PAGE));
        assert!(start <= offset && offset + size <= start + length);
    }
}

#[test]
fn the_same_range_of_the_same_file_is_the_same_region() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let context = context();
    let regions = regions(&context, 0);
    let first = regions.map(&open(&context, &path), 100, 9000).expect("map");
    // Another open of the file is the same file.
    let second = regions.map(&open(&context, &path), 100, 9000).expect("map");
    assert_eq!(first.address(), second.address());
    let (other_path, _) = folder.file("g", 50_000);
    let other = regions
        .map(&open(&context, &other_path), 100, 9000)
        .expect("map");
    assert_ne!(first.address(), other.address());
    let stats = regions.stats();
    assert_eq!((stats.loads, stats.hits, stats.regions), (2, 1, 2));
    drop(first);
    assert_eq!(regions.stats().held_regions, 2, "the second still holds it");
    drop(second);
    drop(other);
    let stats = regions.stats();
    assert_eq!((stats.held_regions, stats.held_bytes), (0, 0));
    assert_eq!(stats.regions, 2, "they stay until room is needed");
    let again = regions.map(&open(&context, &path), 100, 9000).expect("map");
    assert_eq!(regions.stats().loads, 2);
    drop(again);
}

#[test]
fn a_range_inside_a_region_is_a_view_of_it() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 50_000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let whole = regions.map(&file, 1000, 30_000).expect("map");
    let part = regions.map(&file, 5000, 2000).expect("map");
    assert_eq!(part.address(), whole.address() + 4000);
    change(&part, 10, b"seen by both");
    assert_eq!(&memory(&whole)[4010..4022], b"seen by both");
    part.mark_dirty(10, 12).expect("mark");
    whole
        .mark_dirty(0, 5)
        .expect("views do not stand in each other's way");
    assert_eq!((part.dirty_bytes(), whole.dirty_bytes()), (12, 17));
    assert_eq!(regions.flush(Some(&file)).expect("flush"), 17);
    assert_eq!(&on_disk(&path)[5010..5022], b"seen by both");
}

#[test]
fn only_dirty_bytes_are_written() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("f", 50_000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let region = regions.map(&file, 3000, 20_000).expect("map");
    memory(&region).fill(0xee);
    region.mark_dirty(100, 50).expect("mark");
    region.mark_dirty(9000, 7).expect("mark");
    region.mark_dirty(120, 60).expect("mark");
    assert_eq!(region.dirty_bytes(), 87);
    assert_eq!(regions.stats().dirty_bytes, 87);
    assert_eq!(region.flush().expect("flush"), 87);
    data[3100..3180].fill(0xee);
    data[12_000..12_007].fill(0xee);
    assert!(on_disk(&path) == data);
    assert_eq!(regions.flush(None).expect("flush"), 0, "written once");
    assert_eq!(regions.stats().bytes_written, 87);
}

#[test]
fn flush_of_one_file_leaves_the_others_alone() {
    let folder = Folder::new();
    let context = context();
    let regions = regions(&context, 0);
    let files = ["a", "b"].map(|name| open_both(&context, &folder.file(name, 9000).0));
    let held = files.each_ref().map(|file| {
        let region = regions.map(file, 0, 9000).expect("map");
        region.mark_dirty(0, 100).expect("mark");
        region
    });
    assert_eq!(regions.flush(Some(&files[0])).expect("flush"), 100);
    assert_eq!((held[0].dirty_bytes(), held[1].dirty_bytes()), (0, 100));
    assert_eq!(regions.flush(None).expect("flush"), 100);
}

#[test]
fn the_least_recently_used_region_makes_room() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 64 << 10);
    let context = context();
    let file = open(&context, &path);
    let regions = regions(&context, 3 * PAGE);
    let map = |page: u64| regions.map(&file, page * PAGE, PAGE).expect("map");
    let (first, second) = (map(0), map(1));
    drop(second);
    drop(first);
    drop(map(2));
    // 1 was let go of first. Used again, it is not the next to go: 0 is.
    map(1).touch();
    drop(map(3));
    let loads = regions.stats().loads;
    drop((map(1), map(2), map(3)));
    assert_eq!(regions.stats().loads, loads, "these stayed");
    drop(map(0));
    assert_eq!(regions.stats().loads, loads + 1, "this one went");
    let stats = regions.stats();
    assert_eq!((stats.evictions, stats.mapped_bytes), (2, 3 * PAGE));
}

#[test]
fn touch_is_a_use() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 64 << 10);
    let context = context();
    let file = open(&context, &path);
    let regions = regions(&context, 2 * PAGE);
    let old = regions.map(&file, 0, PAGE).expect("map");
    let view = regions.map(&file, 0, 100).expect("map");
    drop(old);
    drop(regions.map(&file, PAGE, PAGE).expect("map"));
    view.touch();
    drop(view);
    drop(regions.map(&file, 2 * PAGE, PAGE).expect("map"));
    let loads = regions.stats().loads;
    drop(regions.map(&file, 0, PAGE).expect("map"));
    assert_eq!(regions.stats().loads, loads);
}

#[test]
fn held_regions_are_never_evicted_and_no_room_is_an_answer() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 64 << 10);
    let context = context();
    let file = open(&context, &path);
    let regions = regions(&context, 4 * PAGE);
    let held: Vec<Region> = (0..4)
        .map(|page| regions.map(&file, page * PAGE, PAGE).expect("map"))
        .collect();
    let error = regions.map(&file, 5 * PAGE, 1).expect_err("all are held");
    assert_eq!(error.kind(), ErrorKind::OutOfDeviceMemory);
    for part in [
        "limit of these regions is 16384",
        "4 regions that are held take 16384",
    ] {
        assert!(error.message().contains(part), "{error}");
    }
    for (page, region) in held.iter().enumerate() {
        let at = page * PAGE as usize;
        assert!(memory(region) == &data[at..at + PAGE as usize]);
    }
    drop(held.into_iter().next_back());
    drop(regions.map(&file, 5 * PAGE, 1).expect("there is room now"));
}

#[test]
fn a_range_above_the_limit_evicts_nothing() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 64 << 10);
    let context = context();
    let file = open(&context, &path);
    let regions = regions(&context, 2 * PAGE);
    drop(regions.map(&file, 0, PAGE).expect("map"));
    let error = regions.map(&file, 0, 3 * PAGE).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::OutOfDeviceMemory);
    assert_eq!((regions.stats().regions, regions.stats().evictions), (1, 0));
    // Unaligned ends count with the memory that they take.
    regions
        .map(&file, 1, 2 * PAGE)
        .expect_err("takes three pages");
    regions.map(&file, 1, 2 * PAGE - 1).expect("takes two");
}

#[test]
fn the_limit_is_that_of_the_configuration_unless_given() {
    let context = context();
    let config = context.config();
    let limit = config.buffer_size * 2 * u64::from(config.prefetch_slots);
    assert_eq!(regions(&context, 0).stats().limit_bytes, limit);
    assert_eq!(regions(&context, 9 << 20).stats().limit_bytes, 9 << 20);
    let small = Regions::open(&context, RegionConfig { limit_bytes: 100 });
    assert_eq!(small.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[test]
fn a_dirty_victim_is_written_before_it_makes_room() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("f", 64 << 10);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, PAGE);
    let region = regions.map(&file, 8192, PAGE).expect("map");
    change(&region, 5, b"kept");
    region.mark_dirty(5, 4).expect("mark");
    region.unmap();
    drop(regions.map(&file, 0, PAGE).expect("map"));
    data[8197..8201].copy_from_slice(b"kept");
    assert!(on_disk(&path) == data);
    let stats = regions.stats();
    assert_eq!((stats.dirty_evictions, stats.evictions), (1, 1));
}

#[test]
fn a_victim_that_cannot_be_written_is_kept_and_told_once() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 64 << 10);
    let (other_path, _) = folder.file("g", 64 << 10);
    let (context, fault) = faulty(FaultPlan::default());
    let (file, other) = (open_both(&context, &path), open(&context, &other_path));
    let regions = regions(&context, 2 * PAGE);
    let region = regions.map(&file, 8192, PAGE).expect("map");
    change(&region, 0, b"not lost");
    region.mark_dirty(0, 8).expect("mark");
    region.unmap();
    drop(regions.map(&other, 0, PAGE).expect("map"));
    fault.set_plan(FaultPlan {
        no_space_after: Some(0),
        ..FaultPlan::default()
    });
    // The dirty one is the least recently used, cannot go, and the next one goes.
    drop(
        regions
            .map(&other, PAGE, PAGE)
            .expect("another victim is found"),
    );
    let stats = regions.stats();
    assert_eq!((stats.write_errors, stats.dirty_bytes), (1, 8));
    let error = regions.map(&file, 0, PAGE).expect_err("it is told");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    fault.set_plan(FaultPlan::default());
    assert!(on_disk(&path) == data, "nothing was written so far");
    let again = regions.map(&file, 8192, PAGE).expect("told once");
    assert_eq!(&memory(&again)[..8], b"not lost");
    assert_eq!(regions.flush(Some(&file)).expect("flush"), 8);
    assert_eq!(&on_disk(&path)[8192..8200], b"not lost");
}

#[test]
fn where_no_victim_can_be_written_the_answer_says_so() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 64 << 10);
    let (context, fault) = faulty(FaultPlan::default());
    let file = open_both(&context, &path);
    let regions = regions(&context, PAGE);
    let region = regions.map(&file, 0, PAGE).expect("map");
    region.mark_dirty(0, 8).expect("mark");
    drop(region);
    fault.set_plan(FaultPlan {
        io_error_at: Some(0..8),
        ..FaultPlan::default()
    });
    let error = regions.map(&file, 8192, 1).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::OutOfDeviceMemory);
    assert!(
        error.message().contains("1 regions cannot be written"),
        "{error}"
    );
    assert_eq!(regions.flush(None).unwrap_err().kind(), ErrorKind::Io);
    fault.set_plan(FaultPlan::default());
    assert_eq!(regions.flush(None).expect("flush"), 8);
}

#[test]
fn a_failed_flush_keeps_the_bytes_dirty_and_writes_the_rest() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 64 << 10);
    let (context, fault) = faulty(FaultPlan::default());
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let region = regions.map(&file, 0, 64 << 10).expect("map");
    memory(&region).fill(0x11);
    for at in [0, 20_000, 40_000] {
        region.mark_dirty(at, 100).expect("mark");
    }
    fault.set_plan(FaultPlan {
        io_error_at: Some(20_000..20_001),
        ..FaultPlan::default()
    });
    let error = regions.flush(None).expect_err("one range fails");
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Io, Some(20_000))
    );
    assert_eq!(region.dirty_bytes(), 100);
    let disk = on_disk(&path);
    assert!(
        disk[..100]
            .iter()
            .chain(&disk[40_000..40_100])
            .all(|b| *b == 0x11)
    );
    fault.set_plan(FaultPlan::default());
    assert_eq!(regions.flush(None).expect("flush"), 100);
    assert!(on_disk(&path)[20_000..20_100].iter().all(|b| *b == 0x11));
}

#[test]
fn a_failed_read_takes_no_room() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 64 << 10);
    let (context, fault) = faulty(FaultPlan {
        io_error_at: Some(0..10),
        ..FaultPlan::default()
    });
    let file = open(&context, &path);
    let regions = regions(&context, 0);
    let error = regions.map(&file, 0, 9000).expect_err("the disk fails");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(
        (regions.stats().regions, regions.stats().mapped_bytes),
        (0, 0)
    );
    fault.set_plan(FaultPlan::default());
    let region = regions.map(&file, 0, 9000).expect("map");
    assert!(memory(&region) == &data[..9000]);
}

#[test]
fn bytes_behind_the_end_of_the_file_are_zero_and_stay_unwritten() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 5000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    // Memory that was used before, so that zeros have to be put there.
    let region = regions.map(&file, 1000, 600_000).expect("map");
    assert_eq!((region.size(), region.valid_bytes()), (600_000, 4000));
    assert!(memory(&region)[..4000] == data[1000..]);
    assert!(memory(&region)[4000..].iter().all(|b| *b == 0));
    let error = region.mark_dirty(3999, 2).expect_err("behind the end");
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    region.mark_dirty(0, 4000).expect("mark");
    assert_eq!(region.flush().expect("flush"), 4000);
    assert_eq!(on_disk(&path).len(), 5000);
    let behind = regions.map(&file, 1 << 20, 10).expect("map");
    assert_eq!(behind.valid_bytes(), 0);
    assert!(memory(&behind).iter().all(|b| *b == 0));
}

#[test]
fn a_file_cut_under_a_mapping_is_not_extended() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("f", 20_000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let region = regions.map(&file, 0, 20_000).expect("map");
    memory(&region).fill(0x77);
    region.mark_dirty(9000, 4000).expect("mark");
    region.mark_dirty(15_000, 10).expect("mark");
    file.set_size(10_000).expect("cut");
    let error = region.flush().expect_err("bytes have no place");
    assert_eq!(error.kind(), ErrorKind::FileChanged);
    assert_eq!(error.offset(), Some(10_000));
    data[9000..].fill(0x77);
    assert!(
        on_disk(&path) == data[..10_000],
        "what has a place is written"
    );
    assert_eq!(region.dirty_bytes(), 3010, "the rest is kept");
    file.set_size(20_000).expect("extend");
    assert_eq!(region.flush().expect("flush"), 3010);
    let disk = on_disk(&path);
    assert!(disk[10_000..13_000].iter().all(|b| *b == 0x77));
    assert!(disk[15_000..15_010].iter().all(|b| *b == 0x77));
    assert!(disk[13_000..15_000].iter().all(|b| *b == 0));
}

#[test]
fn discarded_bytes_are_not_written_and_the_file_is_read_again() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 20_000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let region = regions.map(&file, 0, 20_000).expect("map");
    memory(&region).fill(0x77);
    region.mark_dirty(0, 20_000).expect("mark");
    file.set_size(10_000).expect("cut");
    region.discard();
    assert_eq!(region.dirty_bytes(), 0);
    assert_eq!(regions.flush(None).expect("flush"), 0);
    region.unmap();
    let again = regions.map(&file, 0, 20_000).expect("map");
    assert_eq!(again.valid_bytes(), 10_000);
    assert!(memory(&again)[..10_000] == data[..10_000]);
    assert!(memory(&again)[10_000..].iter().all(|b| *b == 0));
}

#[test]
fn a_region_that_nobody_holds_is_read_again_when_the_file_has_grown() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 5000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    drop(regions.map(&file, 0, 8000).expect("map"));
    std::fs::write(&path, pattern(8000, 3)).expect("the file grows");
    let region = regions.map(&file, 0, 8000).expect("map");
    assert_eq!(region.valid_bytes(), 8000);
    assert!(memory(&region) == pattern(8000, 3));
}

#[test]
fn neighbours_in_one_page_are_regions_of_their_own() {
    let folder = Folder::new();
    let (path, mut data) = folder.file("f", 20_000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let left = regions.map(&file, 0, 5000).expect("map");
    let right = regions.map(&file, 5000, 5000).expect("map");
    memory(&left).fill(1);
    memory(&right).fill(2);
    left.mark_dirty(0, 5000).expect("mark");
    right.mark_dirty(0, 5000).expect("no byte is in both");
    assert_eq!(regions.flush(None).expect("flush"), 10_000);
    data[..5000].fill(1);
    data[5000..10_000].fill(2);
    assert!(on_disk(&path) == data, "neither wrote over the other");
}

#[test]
fn an_overlapping_region_sees_what_was_marked_before() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 20_000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let left = regions.map(&file, 0, 8000).expect("map");
    change(&left, 6000, b"newest");
    left.mark_dirty(6000, 6).expect("mark");
    let right = regions.map(&file, 4000, 8000).expect("map");
    assert_eq!(&memory(&right)[2000..2006], b"newest");
    assert_ne!(left.address() + 4000, right.address(), "two copies");
}

#[test]
fn bytes_that_two_held_regions_share_cannot_be_marked() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 20_000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let left = regions.map(&file, 0, 8000).expect("map");
    let right = regions.map(&file, 4000, 8000).expect("map");
    for (region, at) in [(&left, 4000), (&right, 3999)] {
        let error = region.mark_dirty(at, 1).expect_err("both have it");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("unmap that one first"), "{error}");
    }
    left.mark_dirty(3999, 1).expect("only this has it");
    right.mark_dirty(4000, 1).expect("only this has it");
    right.unmap();
    change(&left, 7000, b"mine");
    left.mark_dirty(7000, 4).expect("the other is let go of");
    // Its copy is behind now, so it is not found again; what it had dirty is written.
    let right = regions.map(&file, 4000, 8000).expect("map");
    assert_eq!(&memory(&right)[3000..3004], b"mine");
    regions.flush(None).expect("flush");
    assert_eq!(regions.stats().dirty_bytes, 0);
    assert_eq!(&on_disk(&path)[7000..7004], b"mine");
}

#[test]
fn a_read_only_file_cannot_be_marked_until_it_is_mapped_for_writing() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 20_000);
    let context = context();
    let regions = regions(&context, 0);
    let reader = regions.map(&open(&context, &path), 0, 9000).expect("map");
    let error = reader.mark_dirty(0, 1).expect_err("read only");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    let writer = regions
        .map(&open_both(&context, &path), 0, 9000)
        .expect("map");
    assert_eq!(reader.address(), writer.address());
    change(&writer, 0, b"x");
    writer.mark_dirty(0, 1).expect("mark");
    assert_eq!(regions.flush(None).expect("flush"), 1);
    assert_eq!(on_disk(&path)[0], b'x');
}

#[test]
fn bad_ranges_are_answered() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 5000);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 0);
    let kind = |offset, size| regions.map(&file, offset, size).unwrap_err().kind();
    assert_eq!(kind(0, 0), ErrorKind::InvalidArgument);
    assert_eq!(kind(u64::MAX, 2), ErrorKind::OutOfRange);
    assert_eq!(kind(i64::MAX as u64, 1), ErrorKind::OutOfRange);
    assert_eq!(kind(0, i64::MAX as u64), ErrorKind::OutOfDeviceMemory);
    let region = regions.map(&file, 0, 5000).expect("map");
    let mark = |offset, size| region.mark_dirty(offset, size).map_err(|e| e.kind());
    assert_eq!(mark(u64::MAX, 2), Err(ErrorKind::OutOfRange));
    assert_eq!(mark(5001, 0), Err(ErrorKind::OutOfRange));
    assert_eq!(mark(5000, 0), Ok(()));
    let stranger = common::context();
    let error = regions
        .map(&open(&stranger, &path), 1, 4)
        .expect_err("another context");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("another context"), "{error}");
}

#[test]
fn what_is_dirty_at_the_end_is_written() {
    let folder = Folder::new();
    let (path, _) = folder.file("f", 5000);
    let context = context();
    let file = open_both(&context, &path);
    let set = regions(&context, 0);
    let region = set.map(&file, 0, 5000).expect("map");
    drop(set);
    change(&region, 0, b"last");
    region
        .mark_dirty(0, 4)
        .expect("the region keeps all it needs");
    drop(region);
    assert_eq!(&on_disk(&path)[..4], b"last");
}

#[test]
fn many_threads_map_the_same_ranges_and_read_each_once() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 64 << 10);
    let context = context();
    let file = open(&context, &path);
    let regions = regions(&context, 0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for page in 0..16u64 {
                    let region = regions.map(&file, page * PAGE, PAGE).expect("map");
                    let at = (page * PAGE) as usize;
                    assert!(memory(&region) == &data[at..at + PAGE as usize]);
                }
            });
        }
    });
    let stats = regions.stats();
    assert_eq!((stats.loads, stats.hits), (16, 48));
}

#[test]
fn many_threads_under_pressure_lose_nothing() {
    let folder = Folder::new();
    let (path, data) = folder.file("f", 64 << 10);
    let context = context();
    let file = open_both(&context, &path);
    let regions = regions(&context, 4 * PAGE);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (regions, file) = (&regions, &file);
            scope.spawn(move || {
                // Each adds one to bytes of its own, over and over, through evictions.
                for round in 0..150u64 {
                    let page = (round * 7 + thread * 3) % 16;
                    let at = page * PAGE + thread * 64;
                    let region = regions.map(file, at, 64).expect("map");
                    let byte = &mut memory(&region)[0];
                    *byte = byte.wrapping_add(1);
                    region.mark_dirty(0, 1).expect("mark");
                }
            });
        }
    });
    regions.flush(None).expect("flush");
    assert!(regions.stats().dirty_evictions > 0);
    let disk = on_disk(&path);
    for thread in 0..3u64 {
        for page in 0..16u64 {
            let at = (page * PAGE + thread * 64) as usize;
            let rounds = (0..150u64).filter(|r| (r * 7 + thread * 3) % 16 == page);
            let wanted = data[at].wrapping_add(rounds.count() as u8);
            assert_eq!(disk[at], wanted, "thread {thread}, page {page}");
        }
    }
}
