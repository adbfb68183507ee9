//! What the rooms above the engine stand on: copies between buffers, marks in streams, and one
//! number for one file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::{Folder, alloc, bytes, context, open, pattern};
use gds_rs::engine::{Copy, MemoryKind, Stream};
use gds_rs::error::ErrorKind;

#[test]
fn copies_move_exactly_their_ranges() {
    let context = context();
    let (from, to) = (alloc(&context, 1 << 20), alloc(&context, 1 << 20));
    let data = pattern(1 << 20, 7);
    bytes(&from).copy_from_slice(&data);
    bytes(&to).fill(0xA5);
    let copy = |from_offset, to_offset, size| Copy {
        from: from.clone(),
        from_offset,
        to: to.clone(),
        to_offset,
        size,
    };
    let copies = [copy(3, 70_001, 200_000), copy(900_000, 0, 1), copy(5, 5, 0)];
    context.copy(&copies).unwrap();
    let got = bytes(&to);
    assert_eq!(got[0], data[900_000]);
    assert_eq!(got[70_001..270_001], data[3..200_003]);
    assert!(got[1..70_001].iter().all(|&b| b == 0xA5));
    assert!(got[270_001..].iter().all(|&b| b == 0xA5));
}

#[test]
fn a_copy_with_more_pieces_than_a_launch_holds_is_whole() {
    let context = context();
    let (from, to) = (alloc(&context, 1 << 20), alloc(&context, 1 << 20));
    let data = pattern(1 << 20, 9);
    bytes(&from).copy_from_slice(&data);
    // Back to front, 64 bytes each: 16384 pieces.
    let copies: Vec<Copy> = (0..1 << 14)
        .map(|i| Copy {
            from: from.clone(),
            from_offset: i * 64,
            to: to.clone(),
            to_offset: (1 << 20) - (i + 1) * 64,
            size: 64,
        })
        .collect();
    context.copy(&copies).unwrap();
    for (mirrored, original) in bytes(&to).chunks(64).rev().zip(data.chunks(64)) {
        assert_eq!(mirrored, original);
    }
}

#[test]
fn a_copy_outside_a_buffer_or_context_is_refused_and_moves_nothing() {
    let (here, there) = (context(), context());
    let (a, b, foreign) = (alloc(&here, 4096), alloc(&here, 4096), alloc(&there, 4096));
    bytes(&b).fill(1);
    let copy = |to: &gds_rs::engine::Buffer, to_offset, size| Copy {
        from: a.clone(),
        from_offset: 0,
        to: to.clone(),
        to_offset,
        size,
    };
    let fails = |copies: &[Copy]| here.copy(copies).unwrap_err().kind();
    assert_eq!(fails(&[copy(&b, 1, 4096)]), ErrorKind::OutOfRange);
    assert_eq!(fails(&[copy(&b, u64::MAX, 2)]), ErrorKind::OutOfRange);
    assert_eq!(
        fails(&[copy(&b, 0, 64), copy(&foreign, 0, 64)]),
        ErrorKind::InvalidArgument
    );
    assert!(bytes(&b).iter().all(|&byte| byte == 1));
}

#[test]
fn a_mark_passes_and_can_be_set_again() {
    let context = context();
    let mark = context.mark().unwrap();
    assert!(mark.has_passed().unwrap(), "never set counts as passed");
    for _ in 0..3 {
        mark.set(Stream(0)).unwrap();
        mark.wait().unwrap();
        assert!(mark.has_passed().unwrap());
        mark.hold(Stream(0)).unwrap();
    }
}

#[test]
fn all_names_of_a_file_share_a_number_while_one_is_open() {
    let folder = Folder::new();
    let (path, _) = folder.file("one", 4096);
    let (other_path, _) = folder.file("two", 4096);
    let link = folder.path("link");
    std::fs::hard_link(&path, &link).unwrap();
    let (first, second) = (context(), context());
    let one = open(&first, &path);
    let same = open(&second, &link);
    let other = open(&first, &other_path);
    assert_eq!(one.identity(), same.identity());
    assert_ne!(one.identity(), other.identity());
    assert_ne!(one.identity(), 0);
    let number = one.identity();
    drop((one, same));
    assert_ne!(open(&first, &path).identity(), number, "not used again");
    assert_eq!(first.alloc(MemoryKind::Pinned, 1).unwrap().size(), 1);
}
