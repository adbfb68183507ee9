//! Damaged and hostile files: an error with an offset, no panic, and memory that stays within a
//! stated factor of the file. The corpus of the fuzz target is replayed, and mutated.
//!
//! `GDS_FORMATS_MUTATIONS=n` mutations; `GDS_BLESS=1` writes the corpus anew.

#![allow(clippy::print_stderr)]

mod counting_memory;
mod elf_support;

use std::io::Write;
use std::path::{Path, PathBuf};

use counting_memory::most_of;
use elf_support::build::{Bytes, File, Part, SHAPES, everything, note};
use elf_support::open_bytes;
use gds_rs::ErrorKind;
use gds_rs::formats::elf::fuzzing::{Outcome, read_all};
use gds_rs::formats::elf::{Class, Elf, Tables};

/// All tables kept at once, and one more on its way, take this many times the file.
const FACTOR: isize = 16;
/// Beside it: pieces of a decoder, and a cubin that is decompressed.
const BESIDE: isize = 3 << 20;

/// Reads everything, and checks what holds for all bytes there are.
fn checked(bytes: &[u8], what: &str) -> Outcome {
    let (outcome, most) = most_of(|| read_all(bytes));
    let limit = FACTOR * bytes.len() as isize + BESIDE;
    assert!(
        most <= limit,
        "{what}: {most} bytes for a file of {}",
        bytes.len()
    );
    if let Some(error) = &outcome.error {
        let kinds = [
            ErrorKind::Corrupted,
            ErrorKind::NotSupported,
            ErrorKind::OutOfRange,
        ];
        assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
        let has_place = error.offset().is_some() && error.path().is_some();
        assert!(
            has_place || error.kind() == ErrorKind::OutOfRange,
            "{what}: {error:?}"
        );
    }
    outcome
}

fn fixture(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(root.join("tests/fixtures/elf").join(name)).expect("a fixture is read")
}

fn compressed(file: &File, method: u64) -> Part {
    let data = b"what is said again and again, ".repeat(200);
    let stream = if method == 1 {
        let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(&data).expect("memory takes it");
        to.finish().expect("memory takes it")
    } else {
        zstd::encode_all(&data[..], 3).expect("encodes")
    };
    let mut bytes = file.new_bytes();
    bytes.word(method);
    if file.class == Class::Elf64 {
        bytes.word(0);
    }
    bytes.address(data.len() as u64).address(1).raw(&stream);
    let bytes = bytes.bytes;
    Part {
        name: ".debug_info",
        kind: 1,
        flags: 1 << 11,
        bytes,
        align: 8,
        ..Part::default()
    }
}

/// Sound files that others are made of.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (class, order) in SHAPES {
        let mut file = everything(class, order);
        file.extended = seeds.len() % 2 == 1;
        let method = 1 + seeds.len() as u64 / 2;
        let part = compressed(&file, method);
        file.push(part);
        seeds.push(file.build());
    }
    for name in [
        "scale.cubin",
        "scale.fatbin",
        "scale_packed.fatbin",
        "scale_rdc.o",
    ] {
        seeds.push(fixture(name));
    }
    seeds
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(4) {
        let size = bytes.len();
        if size < 16 {
            return bytes;
        }
        // Headers are at the start and at the end.
        let at = match random.below(3) {
            0 => random.below(size.min(256)),
            1 => size - 1 - random.below(size.min(1600)),
            _ => random.below(size),
        };
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 | 3 => {
                let odd = [
                    0,
                    1,
                    0x7f,
                    0x80,
                    0xff,
                    0xffff,
                    0x7fff_ffff,
                    0xffff_ffff,
                    u64::MAX,
                ];
                let near = [
                    size as u64,
                    size as u64 - 1,
                    size as u64 + 1,
                    at as u64,
                    1 << 40,
                ];
                let values = [&odd[..], &near[..]].concat();
                let value = values[random.below(values.len())];
                let width = [1, 2, 4, 8][random.below(4)].min(size - at);
                let flip = random.below(2) == 0;
                for index in 0..width {
                    let place = if flip { index } else { width - 1 - index };
                    bytes[at + index] = (value >> (place * 8)) as u8;
                }
            }
            4 => bytes.truncate(at.max(1)),
            5 => {
                let (from, size) = (random.below(size), 1 + random.below(64));
                let copy: Vec<u8> = bytes.iter().skip(from).take(size).copied().collect();
                for (to, byte) in bytes.iter_mut().skip(at).zip(copy) {
                    *to = byte;
                }
            }
            6 => bytes
                .iter_mut()
                .skip(at)
                .take(32)
                .for_each(|byte| *byte = 0xff),
            _ => bytes
                .iter_mut()
                .skip(at)
                .take(32)
                .for_each(|byte| *byte = 0),
        }
    }
    bytes
}

#[test]
fn sound_files_are_read_whole() {
    for (index, seed) in seeds().iter().enumerate() {
        let outcome = checked(seed, "a sound file");
        assert!(outcome.error.is_none(), "{index}: {:?}", outcome.error);
        assert!(outcome.entries > 2, "{index}");
        assert_eq!(outcome.decoded, if index < 4 { 6000 } else { 0 }, "{index}");
    }
}

#[test]
fn mutations_give_errors_with_their_places() {
    let count = std::env::var("GDS_FORMATS_MUTATIONS")
        .ok()
        .and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(2000);
    let seeds = seeds();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut wrong, mut most) = (0, 0);
    for number in 0..count {
        let seed = &seeds[number % seeds.len()];
        let bytes = mutate(&mut random, seed);
        let what = format!("mutation {number}");
        let (outcome, took) = most_of(|| checked(&bytes, &what));
        most = most.max(took);
        wrong += usize::from(outcome.error.is_some());
    }
    eprintln!("{count} mutations, {wrong} of them refused, at most {most} bytes");
    assert!(wrong > count / 4, "mutations do damage");
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    for (class, order) in SHAPES {
        let whole = everything(class, order).build();
        for size in 0..whole.len() {
            let outcome = checked(&whole[..size], "a cut file");
            assert!(outcome.error.is_some(), "{class:?} {order:?} cut to {size}");
        }
    }
    for name in ["scale.cubin", "scale_packed.fatbin"] {
        let whole = fixture(name);
        for size in 0..whole.len() {
            checked(&whole[..size], name);
        }
    }
}

#[test]
fn the_corpus_of_the_fuzz_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/elf");
    if std::env::var_os("GDS_BLESS").is_some() {
        for (index, seed) in seeds().iter().enumerate() {
            std::fs::write(folder.join(format!("made-{index}")), seed).expect("written");
        }
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("there")
        .map(|entry| entry.expect("one").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8, "the corpus is there");
    for path in files {
        let bytes = std::fs::read(&path).expect("read");
        checked(&bytes, &path.display().to_string());
    }
}

fn refused(bytes: &[u8], what: &str) -> gds_rs::Error {
    let (result, most) = most_of(|| open_bytes(bytes));
    assert!(most < 1 << 16, "{what}: {most} bytes");
    let error = result.map(drop).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{what}: {error}");
    assert!(error.offset().is_some(), "{what}");
    error
}

/// Writes a number of 8 bytes, the lowest first.
fn put(bytes: &mut [u8], at: usize, size: usize, value: u64) {
    for index in 0..size {
        bytes[at + index] = (value >> (index * 8)) as u8;
    }
}

/// Places in the header of a 64-bit file.
const SHOFF: usize = 40;
const PHOFF: usize = 32;
const PHNUM: usize = 56;
const SHENTSIZE: usize = 58;
const SHNUM: usize = 60;
const SHSTRNDX: usize = 62;

#[test]
fn hostile_counts_are_refused_before_memory_is_taken() {
    let sound = everything(SHAPES[2].0, SHAPES[2].1).build();
    let damaged = |places: &[(usize, usize, u64)]| {
        let mut bytes = sound.clone();
        places
            .iter()
            .for_each(|(at, size, value)| put(&mut bytes, *at, *size, *value));
        bytes
    };
    let table = u64::from_le_bytes(sound[SHOFF..SHOFF + 8].try_into().unwrap()) as usize;
    let (size, link) = (table + 32, table + 40);
    refused(
        &damaged(&[(SHNUM, 2, 0), (size, 8, 1 << 32)]),
        "2^32 sections",
    );
    refused(
        &damaged(&[(SHNUM, 2, 0), (size, 8, u32::MAX.into())]),
        "2^32 - 1 sections",
    );
    refused(
        &damaged(&[(SHNUM, 2, 0), (size, 8, u64::MAX)]),
        "2^64 - 1 sections",
    );
    refused(&damaged(&[(SHNUM, 2, 0xff00)]), "65280 sections");
    refused(&damaged(&[(PHNUM, 2, 0xfffe)]), "65534 segments");
    refused(
        &damaged(&[(PHNUM, 2, 0xffff), (table + 44, 4, u32::MAX.into())]),
        "2^32 segments",
    );
    refused(
        &damaged(&[(PHOFF, 8, u64::MAX - 7)]),
        "segments at the end of all",
    );
    refused(
        &damaged(&[(SHOFF, 8, u64::MAX - 7)]),
        "sections at the end of all",
    );
    refused(
        &damaged(&[(SHOFF, 8, sound.len() as u64)]),
        "sections behind the end",
    );
    refused(&damaged(&[(SHENTSIZE, 2, 0)]), "sections of no bytes");
    refused(&damaged(&[(SHENTSIZE, 2, 63)]), "sections of 63 bytes");
    refused(&damaged(&[(SHSTRNDX, 2, 500)]), "names nowhere");
    refused(
        &damaged(&[(SHSTRNDX, 2, 0xffff), (link, 4, u32::MAX.into())]),
        "names nowhere",
    );
    refused(&damaged(&[(SHSTRNDX, 2, 1)]), "names in code");
    let strings = table + 64 * 16;
    refused(
        &damaged(&[(strings + 32, 8, u64::MAX)]),
        "names without an end",
    );
    refused(&damaged(&[(strings + 32, 8, 5)]), "names that are cut");
    refused(
        &damaged(&[(strings + 24, 8, u64::MAX)]),
        "names at the end of all",
    );
    refused(
        &damaged(&[(table + 64, 4, u32::MAX.into())]),
        "a name nowhere",
    );
    let error = refused(b"\x7fELF", "a magic alone");
    assert_eq!(error.offset(), Some(0));
    refused(b"", "nothing");
    refused(&damaged(&[(4, 1, 3)]), "class 3");
    refused(&damaged(&[(5, 1, 0)]), "byte order 0");
}

fn with_part(part: Part) -> (Elf, u32) {
    let mut file = File::new(SHAPES[2].0, SHAPES[2].1);
    let strings = Part {
        name: ".strtab",
        kind: 3,
        bytes: b"\0name".to_vec(),
        ..Part::default()
    };
    file.push(strings);
    let index = file.push(part);
    (
        open_bytes(&file.build()).expect("the headers are sound"),
        index,
    )
}

#[test]
fn hostile_tables_are_refused() {
    let corrupted = |error: gds_rs::Error| {
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        assert!(error.offset().is_some(), "{error}");
    };
    let symbols = |size, entry_size, link| Part {
        name: ".symtab",
        kind: 2,
        bytes: vec![5; 48],
        size: Some(size),
        entry_size,
        link,
        ..Part::default()
    };
    for (size, entry, link) in [
        (1 << 50, 24, 1),
        (u64::MAX, 24, 1),
        (48, 0, 1),
        (48, 23, 1),
        (47, 24, 1),
        (48, 24, 9),
    ] {
        let (elf, index) = with_part(symbols(size, entry, link));
        let (result, most) = most_of(|| elf.symbols(index));
        corrupted(result.expect_err("refused"));
        assert!(most < 1 << 16, "{most}");
    }
    let (elf, index) = with_part(symbols(48, 24, 1));
    corrupted(
        elf.symbols(index)
            .expect("a table")
            .get(1)
            .expect_err("a name nowhere"),
    );
    // "name" has no NUL behind it: names of two symbols there do not end.
    let mut bytes = Bytes::new(SHAPES[2].0, SHAPES[2].1);
    bytes.word(1).raw(&[0; 20]);
    let (elf, index) = with_part(Part {
        bytes: bytes.bytes,
        ..symbols(24, 24, 1)
    });
    corrupted(
        elf.symbols(index)
            .expect("a table")
            .get(0)
            .expect_err("a name without an end"),
    );

    let relocations = |size, entry_size| Part {
        name: ".rela",
        kind: 4,
        bytes: vec![0; 48],
        size: Some(size),
        entry_size,
        ..Part::default()
    };
    for (size, entry) in [(1 << 50, 24), (48, 0), (48, 16), (47, 24)] {
        let (elf, index) = with_part(relocations(size, entry));
        corrupted(elf.relocations(index).expect_err("refused"));
    }

    let mut cases = Vec::new();
    for (owner, text) in [
        (u64::from(u32::MAX), 0),
        (0, u64::from(u32::MAX)),
        (4, 1000),
        (1000, 4),
    ] {
        let mut bytes = Bytes::new(SHAPES[2].0, SHAPES[2].1);
        note(&mut bytes, b"GNU\0", 1, b"text", 4);
        bytes.word(owner).word(text).word(1).raw(&[0; 8]);
        cases.push((bytes.bytes, 4));
    }
    cases.push((vec![1; 11], 4));
    cases.push((vec![0; 24], 16));
    cases.push((vec![0; 24], 1 << 40));
    for (bytes, align) in cases {
        let part = Part {
            name: ".note",
            kind: 7,
            bytes,
            align,
            ..Part::default()
        };
        let (elf, index) = with_part(part);
        corrupted(elf.notes(index).expect_err("refused"));
    }
    let empty = Part {
        name: ".note",
        kind: 7,
        align: 4,
        ..Part::default()
    };
    let (elf, index) = with_part(empty);
    assert!(elf.notes(index).expect("no notes").is_empty());
    // Notes of no bytes but their header.
    let none = Part {
        name: ".note",
        kind: 7,
        bytes: vec![0; 1200],
        align: 4,
        ..Part::default()
    };
    let (elf, index) = with_part(none);
    assert_eq!(elf.notes(index).expect("notes").len(), 100);
}

#[test]
fn lists_of_versions_that_never_end_are_refused() {
    // Every entry names 65535 others, each one byte behind the last.
    let mut needed = Bytes::new(SHAPES[2].0, SHAPES[2].1);
    for _ in 0..20_000 {
        needed.half(1).half(0xffff).word(0).word(1).word(1);
    }
    let mut file = everything(SHAPES[2].0, SHAPES[2].1);
    let place = file
        .parts
        .iter()
        .position(|p| p.name == ".gnu.version_r")
        .expect("there");
    file.parts[place].bytes = needed.bytes;
    let elf = open_bytes(&file.build()).expect("opens");
    let symbols = elf.section_named(".dynsym").expect("there").index;
    let error = elf.symbols(symbols).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Corrupted);
}

#[test]
fn tables_that_overlap_a_thousand_times_are_not_all_kept() {
    let mut file = File::new(SHAPES[2].0, SHAPES[2].1);
    let strings = Part {
        name: ".strtab",
        kind: 3,
        bytes: vec![0; 8],
        ..Part::default()
    };
    file.push(strings);
    let first = file.push(Part {
        name: ".symtab",
        kind: 2,
        bytes: vec![0; 24 * 10_000],
        link: 1,
        entry_size: 24,
        ..Part::default()
    });
    for _ in 0..1000 {
        file.push(Part {
            kind: 2,
            link: 1,
            entry_size: 24,
            ..Part::default()
        });
    }
    let mut bytes = file.build();
    // All of them are the first one.
    let table = u64::from_le_bytes(bytes[SHOFF..SHOFF + 8].try_into().unwrap()) as usize;
    let range = table + 64 * first as usize + 24;
    let range: [u8; 16] = bytes[range..range + 16].try_into().unwrap();
    for index in 1..=1000 {
        let at = table + 64 * (first as usize + index) + 24;
        bytes[at..at + 16].copy_from_slice(&range);
    }
    let tables = Tables::new(open_bytes(&bytes).expect("opens"));
    let (kept, most) = most_of(|| {
        let all = (first..=first + 1000).map(|index| tables.symbols(index));
        all.take_while(Result::is_ok).count()
    });
    assert!((2..20).contains(&kept), "{kept}");
    assert!(most < FACTOR * bytes.len() as isize, "{most}");
    assert!(tables.symbols(first).is_ok(), "what is kept is still there");
    let error = tables.symbols(first + 1000).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    checked(&bytes, "tables that overlap");
}
