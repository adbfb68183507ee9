//! Structs of older and newer callers, and texts that are cut.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(8))]
struct Sample {
    struct_size: u32,
    first: u32,
    second: u64,
}

// SAFETY: repr(C), 16 bytes without padding, struct_size first, integers only.
unsafe impl AbiStruct for Sample {
    const NAME: &'static str = "sample";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            first: 11,
            second: 22,
        }
    }
}

/// A caller's struct of `size` bytes in memory that ends right behind it.
fn caller(size: usize, words: &[u64]) -> Vec<u64> {
    let mut memory = vec![0u64; size.div_ceil(8).max(1)];
    let count = memory.len().min(words.len());
    memory[..count].copy_from_slice(&words[..count]);
    memory[0] = memory[0] & !0xFFFF_FFFF | size as u64;
    memory
}

fn read(memory: &[u64]) -> Outcome<Sample> {
    // SAFETY: the memory holds as many bytes as its first word says, or that word is refused.
    unsafe { read_struct(memory.as_ptr().cast()) }
}

fn status<T>(outcome: Outcome<T>) -> i32 {
    outcome.err().map_or(0, |failure| failure.status as i32)
}

#[test]
fn an_older_caller_gets_the_defaults_of_the_tail() {
    let value = read(&caller(8, &[5 << 32])).unwrap();
    assert_eq!((value.first, value.second), (5, 22));
}

#[test]
fn a_newer_caller_is_taken_while_its_tail_is_zero() {
    let value = read(&caller(32, &[5 << 32, 6])).unwrap();
    assert_eq!((value.first, value.second), (5, 6));
    let refused = read(&caller(32, &[5 << 32, 6, 0, 1 << 56])).unwrap_err();
    assert_eq!(refused.status, gds_status_t::GDS_STATUS_STRUCT_SIZE);
    assert!(
        refused.error.message().contains("byte 31 is not zero"),
        "{}",
        refused.error
    );
}

#[test]
fn sizes_that_no_version_has_are_refused() {
    for size in [0usize, 1, 4, 7, 9, 17, 4104, 0xFFFF_FFFF] {
        let memory = vec![size as u64; 2];
        assert_eq!(
            status(read(&memory)),
            gds_status_t::GDS_STATUS_STRUCT_SIZE as i32,
            "{size}"
        );
    }
}

#[test]
fn an_answer_never_passes_the_callers_size() {
    for size in [8usize, 16, 24] {
        let mut memory = caller(size, &[]);
        memory.push(u64::MAX);
        // SAFETY: the memory holds `size` bytes.
        let place = unsafe { StructOut::<Sample>::new(memory.as_mut_ptr().cast()) }.unwrap();
        place.write(Sample {
            struct_size: 0,
            first: 1,
            second: 2,
        });
        assert_eq!(memory[0], 1 << 32 | size as u64);
        assert_eq!(
            memory.get(1).copied(),
            Some(if size >= 16 { 2 } else { u64::MAX })
        );
        assert_eq!(memory.last(), Some(&u64::MAX));
    }
}

#[test]
fn misaligned_and_null_pointers_are_refused() {
    let memory = [16u64; 3];
    let odd = memory
        .as_ptr()
        .cast::<u8>()
        .wrapping_add(4)
        .cast::<Sample>();
    // SAFETY: refused before it is read.
    assert_eq!(status(unsafe { read_struct(odd) }), 1);
    // SAFETY: as above.
    assert_eq!(status(unsafe { read_struct::<Sample>(ptr::null()) }), 1);
}

#[test]
fn texts_are_cut_between_characters() {
    let bytes = |array: [c_char; 4]| array.map(|c| c as u8);
    assert_eq!(bytes(chars("ab")), *b"ab\0\0");
    assert_eq!(bytes(chars("abcd")), *b"abc\0");
    assert_eq!(bytes(chars("ab\u{e9}")), *b"ab\0\0");
}

#[test]
fn ranges_end_at_the_largest_offset() {
    assert!(check_range("file_offset", i64::MAX as u64, 0).is_ok());
    for (offset, size) in [(1, i64::MAX as u64), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
        assert_eq!(status(check_range("file_offset", offset, size)), 4);
    }
}
