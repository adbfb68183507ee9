//! Sections and segments stand in device memory as they are in the file, decoded where they were
//! compressed. Compared with plain reads and with objcopy.

#![allow(clippy::print_stderr)]

mod common;
mod elf_support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{Folder, alloc, bytes, context, open};
use elf_support::build::{File, Part, SHAPES, everything};
use gds_rs::engine::{Buffer, Context};
use gds_rs::formats::elf::{Class, Elf, ElfPlan, Encoding, PartKind, Select};
use gds_rs::formats::{FileSource, ReadOptions};
use gds_rs::{ErrorKind, Result};

const NO_LIMIT: u64 = u64::MAX;

struct Loaded {
    elf: Elf,
    plan: ElfPlan,
    buffer: Buffer,
}

impl Loaded {
    /// The bytes of a part by the name of its section.
    fn part(&self, name: &str) -> &[u8] {
        let section = self
            .elf
            .section_named(name)
            .unwrap_or_else(|| panic!("{name} is there"));
        let of = |p: &&gds_rs::formats::elf::Part| {
            p.kind == PartKind::Section && p.index == section.index
        };
        let part = self
            .plan
            .parts()
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("{name} is loaded"));
        let at = part.to_offset as usize;
        &bytes(&self.buffer)[at..at + part.size as usize]
    }
}

fn load(context: &Context, path: &Path, select: Select<'_>) -> Result<Loaded> {
    let file = open(context, path);
    let elf = Elf::open(Arc::new(FileSource::new(&file)?))?;
    let plan = ElfPlan::new(&elf, select, NO_LIMIT)?;
    let buffer = alloc(context, plan.size().max(1) + 64);
    bytes(&buffer).fill(0xee);
    let done = plan.read(&file, &buffer, 64, &ReadOptions::default())?;
    assert_eq!(
        done.bytes,
        plan.parts().iter().map(|part| part.size).sum::<u64>()
    );
    assert!(
        bytes(&buffer)[..64].iter().all(|byte| *byte == 0xee),
        "nothing before its place"
    );
    let moved = alloc(context, plan.size().max(1));
    bytes(&moved).copy_from_slice(&bytes(&buffer)[64..64 + plan.size().max(1) as usize]);
    Ok(Loaded {
        elf,
        plan,
        buffer: moved,
    })
}

fn library() -> Option<PathBuf> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/aarch64-linux-gnu/libc.so.6",
    ];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no libc.so.6 where Debian has it");
    }
    found
}

fn has_objcopy() -> bool {
    let found = Command::new("objcopy").arg("--version").output();
    let is_there = found.is_ok_and(|out| out.status.success());
    if !is_there {
        eprintln!("skipped: no objcopy (binutils)");
    }
    is_there
}

/// Runs objcopy; false when this build of it cannot do that.
fn objcopy(arguments: &[&str], from: &Path, to: &Path) -> bool {
    let out = Command::new("objcopy")
        .args(arguments)
        .arg(from)
        .arg(to)
        .output();
    let out = out.expect("objcopy runs");
    if !out.status.success() {
        eprintln!(
            "skipped: objcopy {arguments:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    out.status.success()
}

#[test]
fn sections_of_a_library_are_its_bytes_each_at_its_alignment() {
    let Some(path) = library() else {
        return;
    };
    let whole = std::fs::read(&path).expect("the library is read");
    let context = context();
    for select in [Select::Stored, Select::Allocated] {
        let loaded = load(&context, &path, select).expect("loads");
        let parts = loaded.plan.parts();
        assert!(parts.len() > 20 && loaded.plan.is_plain());
        for part in parts {
            assert_eq!(part.to_offset % part.align, 0);
            let section = loaded.elf.section(part.index).expect("there");
            let (from, to) = (section.offset as usize, part.to_offset as usize);
            let size = section.size as usize;
            assert_eq!(
                bytes(&loaded.buffer)[to..to + size],
                whole[from..from + size]
            );
        }
    }
}

#[test]
fn sections_are_what_objcopy_takes_out() {
    let (Some(path), true) = (library(), has_objcopy()) else {
        return;
    };
    let folder = Folder::new();
    let names = [".text", ".rodata", ".dynstr", ".data"];
    let wanted: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let loaded = load(&context(), &path, Select::Names(&wanted)).expect("loads");
    for name in names {
        let out = folder.path("section");
        assert!(objcopy(
            &["-O", "binary", "--only-section", name],
            &path,
            &out
        ));
        let out = std::fs::read(out).expect("objcopy wrote it");
        assert!(out == loaded.part(name), "{name}");
    }
}

#[test]
fn loads_stand_as_a_loader_would_put_them() {
    let Some(path) = library() else {
        return;
    };
    let whole = std::fs::read(&path).expect("the library is read");
    let loaded = load(&context(), &path, Select::Loads).expect("loads");
    let parts = loaded.plan.parts();
    assert!(parts.len() >= 3 && parts.iter().any(|part| part.size > part.file_size));
    for part in parts {
        let memory = &bytes(&loaded.buffer)[part.to_offset as usize..][..part.size as usize];
        let (read, zero) = memory.split_at(part.file_size as usize);
        assert_eq!(read, &whole[part.file_offset as usize..][..read.len()]);
        assert!(zero.iter().all(|byte| *byte == 0));
    }
}

/// A part of this test itself that has debug sections, and those sections as they are.
fn debug_file(folder: &Folder) -> Option<(PathBuf, Vec<String>)> {
    let own = std::env::current_exe().expect("this program has a path");
    let path = folder.path("debug");
    let keep = [
        "--only-section=.debug_line",
        "--only-section=.debug_str",
        "--only-section=.comment",
    ];
    if !has_objcopy() || !objcopy(&keep, &own, &path) {
        return None;
    }
    let elf = Elf::open(elf_support::PlainSource::open(&path).expect("opens")).expect("ELF");
    let names = [".debug_line", ".debug_str"];
    let there = names
        .iter()
        .filter(|name| elf.section_named(name).is_some_and(|s| s.size > 4096));
    let there: Vec<String> = there.map(|name| (*name).to_owned()).collect();
    if there.is_empty() {
        eprintln!("skipped: this test was built without debug sections");
        return None;
    }
    Some((path, there))
}

#[test]
fn compressed_debug_sections_are_what_objcopy_decompresses() {
    let folder = Folder::new();
    let Some((path, names)) = debug_file(&folder) else {
        return;
    };
    let context = context();
    for (method, encoding) in [
        ("zlib", Encoding::Zlib),
        ("zlib-gnu", Encoding::Zlib),
        ("zstd", Encoding::Zstd),
    ] {
        let (packed, plain) = (folder.path("packed"), folder.path("plain"));
        let option = format!("--compress-debug-sections={method}");
        if !objcopy(&[&option], &path, &packed) {
            continue;
        }
        assert!(objcopy(&["--decompress-debug-sections"], &packed, &plain));
        let loaded = load(&context, &packed, Select::Stored).expect("loads");
        let count = loaded
            .plan
            .parts()
            .iter()
            .filter(|part| part.encoding == encoding)
            .count();
        assert_eq!(count, names.len(), "{method}: compressed sections are seen");
        let want = load(&context, &plain, Select::Stored).expect("loads");
        assert!(want.plan.is_plain());
        for name in &names {
            let old = name.replace(".debug", ".zdebug");
            let name_there = if method == "zlib-gnu" {
                old.as_str()
            } else {
                name.as_str()
            };
            assert!(
                loaded.part(name_there) == want.part(name),
                "{method} {name}"
            );
        }
    }
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// A compressed section with its header.
fn packed(file: &File, method: u64, size: u64, stream: &[u8]) -> Part {
    let mut bytes = file.new_bytes();
    bytes.word(method);
    if file.class == Class::Elf64 {
        bytes.word(0);
    }
    bytes.address(size).address(64).raw(stream);
    Part {
        name: ".debug_info",
        kind: 1,
        flags: 1 << 11,
        bytes: bytes.bytes,
        align: 8,
        ..Part::default()
    }
}

fn load_one(part: Part, file: &File) -> Result<Vec<u8>> {
    let mut file = file.clone();
    let name = part.name;
    file.push(part);
    let folder = Folder::new();
    let path = folder.path("file");
    std::fs::write(&path, file.build()).expect("a file can be written");
    let loaded = load(&context(), &path, Select::Names(&[name.as_bytes()]))?;
    let align = loaded.plan.parts()[0].align;
    assert!(
        name != ".debug_info" || align == 64,
        "what the compression header says"
    );
    Ok(loaded.part(name).to_vec())
}

#[test]
fn compressed_sections_are_decoded_in_every_class_and_byte_order() {
    // More than is moved at once.
    let data = common::pattern((1 << 20) + 5000, 5);
    for (class, order) in SHAPES {
        let file = File::new(class, order);
        let size = data.len() as u64;
        let zlib = packed(&file, 1, size, &deflated(&data));
        assert!(load_one(zlib, &file).expect("loads") == data);
        let stream = zstd::encode_all(&data[..], 1).expect("encodes");
        let zstd = packed(&file, 2, size, &stream);
        assert!(load_one(zstd, &file).expect("loads") == data);
        let mut old = b"ZLIB\0\0\0\0".to_vec();
        old.extend((0..4).rev().map(|place| (size >> (place * 8)) as u8));
        // Two streams behind each other, as linkers left them.
        old.extend(deflated(&data[..1000]));
        old.extend(deflated(&data[1000..]));
        let old = Part {
            name: ".zdebug_info",
            kind: 1,
            bytes: old,
            align: 1,
            ..Part::default()
        };
        assert!(load_one(old, &file).expect("loads") == data);
        let plain = b"ZLIP: no header".to_vec();
        let not = Part {
            name: ".zdebug_x",
            kind: 1,
            bytes: plain.clone(),
            ..Part::default()
        };
        assert!(load_one(not, &file).expect("loads") == plain);
    }
}

#[test]
fn compressed_sections_that_lie_are_found() {
    let data = common::pattern(100_000, 3);
    let file = File::new(SHAPES[2].0, SHAPES[2].1);
    let size = data.len() as u64;
    let zlib = deflated(&data);
    let zstd = zstd::encode_all(&data[..], 1).expect("encodes");
    let cut = |stream: &[u8], less: usize| stream[..stream.len() - less].to_vec();
    let flipped = |stream: &[u8]| {
        let mut stream = stream.to_vec();
        let at = stream.len() - 1;
        stream[at] ^= 1;
        stream
    };
    let mut longer = deflated(&data);
    longer.extend(b"what else is there");
    let cases = [
        ("too long", 1, size - 1, zlib.clone()),
        ("too short", 1, size + 1, zlib.clone()),
        ("cut", 1, size, cut(&zlib, 1000)),
        ("cut in its checksum", 1, size, cut(&zlib, 1)),
        ("wrong checksum", 1, size, flipped(&zlib)),
        ("more behind it", 1, size, longer),
        (
            "no stream",
            1,
            size,
            b"what is no stream, and yet is long enough".repeat(100),
        ),
        ("nothing", 1, size, Vec::new()),
        ("too long", 2, size - 1, zstd.clone()),
        ("too short", 2, size + 1, zstd.clone()),
        ("cut", 2, size, cut(&zstd, 1000)),
        (
            "no stream",
            2,
            size,
            b"what is no stream, and yet is long enough".repeat(100),
        ),
        ("more than can be", 1, 1 << 60, zlib.clone()),
        ("more than can be", 2, 1 << 60, zstd.clone()),
    ];
    for (what, method, size, stream) in cases {
        let error = load_one(packed(&file, method, size, &stream), &file).expect_err(what);
        assert_eq!(
            error.kind(),
            ErrorKind::Corrupted,
            "{what} {method}: {error}"
        );
        assert!(
            error.offset().is_some() && error.path().is_some(),
            "{what}: {error}"
        );
    }
    let error = load_one(packed(&file, 3, size, &zlib), &file).expect_err("no such method");
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    let short = Part {
        bytes: vec![1, 0, 0, 0],
        ..packed(&file, 1, size, &zlib)
    };
    let error = load_one(short, &file).expect_err("no header");
    assert_eq!(error.kind(), ErrorKind::Corrupted);
}

#[test]
fn zeros_stay_zeros_where_neighbours_are_read_together() {
    // Two segments whose places mirror the file, with zeros between them in memory only: what
    // stands there in the file must not come along.
    let mut file = File::new(SHAPES[2].0, SHAPES[2].1);
    let part = |name, fill: u8, size: usize| Part {
        name,
        kind: 1,
        flags: 2,
        bytes: vec![fill; size],
        align: 16,
        ..Part::default()
    };
    file.push(part(".one", 1, 1024));
    file.push(part(".between", 2, 1024));
    file.push(part(".two", 3, 1024));
    file.segments = vec![(1, 6, 0, 1024), (1, 4, 2, 0)];
    let folder = Folder::new();
    let path = folder.path("file");
    std::fs::write(&path, file.build()).expect("a file can be written");
    for _ in 0..20 {
        let loaded = load(&context(), &path, Select::Loads).expect("loads");
        let want = [vec![1; 1024], vec![0; 1024], vec![3; 1024]].concat();
        assert!(bytes(&loaded.buffer)[..3072] == want);
    }
}

#[test]
fn what_is_selected_is_loaded_and_nothing_else() {
    let file = everything(SHAPES[1].0, SHAPES[1].1);
    let folder = Folder::new();
    let path = folder.path("file");
    std::fs::write(&path, file.build()).expect("a file can be written");
    let context = context();
    let names_of = |loaded: &Loaded| -> Vec<String> {
        let name = |index| {
            loaded
                .elf
                .section_name(loaded.elf.section(index).expect("there"))
        };
        let parts = loaded.plan.parts().iter();
        parts
            .map(|p| String::from_utf8_lossy(name(p.index)).into_owned())
            .collect()
    };
    let names: [&[u8]; 3] = [b".rel?.dyn", b".b*", b".text"];
    let loaded = load(&context, &path, Select::Names(&names)).expect("loads");
    assert_eq!(
        names_of(&loaded),
        [".text", ".bss", ".rela.dyn", ".relr.dyn"]
    );
    assert!(
        loaded.part(".bss").iter().all(|byte| *byte == 0),
        "as a program finds it"
    );
    let loaded = load(&context, &path, Select::Sections(&[3, 1])).expect("loads");
    assert_eq!(
        names_of(&loaded),
        [".bss", ".text"],
        "in the order that was asked for"
    );
    assert_eq!(loaded.plan.parts()[1].to_offset, 4096);
    let loaded = load(&context, &path, Select::Segments(&[2])).expect("loads");
    assert_eq!(loaded.plan.parts()[0].kind, PartKind::Segment);

    let kind = |select| {
        load(&context, &path, select)
            .map(drop)
            .expect_err("refused")
            .kind()
    };
    assert_eq!(
        kind(Select::Names(&[b".text", b".nothing"])),
        ErrorKind::NotFound
    );
    assert_eq!(kind(Select::Sections(&[1000])), ErrorKind::OutOfRange);
    assert_eq!(kind(Select::Segments(&[4])), ErrorKind::OutOfRange);
    let plain = elf_support::PlainSource::open(&path).expect("opens");
    let elf = Elf::open(plain).expect("ELF");
    let refused = ElfPlan::new(&elf, Select::Names(&[b".bss"]), 4095).expect_err("too large");
    assert_eq!(refused.kind(), ErrorKind::OutOfRange);
    assert!(ElfPlan::new(&elf, Select::Names(&[b".bss"]), 4096).is_ok());
}

#[test]
fn sections_that_pass_the_end_of_the_file_are_refused_before_they_are_read() {
    let mut file = everything(SHAPES[2].0, SHAPES[2].1);
    file.push(Part {
        name: ".long",
        kind: 1,
        size: Some(1 << 40),
        ..Part::default()
    });
    file.push(Part {
        name: ".odd",
        kind: 1,
        bytes: vec![1; 8],
        align: 24,
        ..Part::default()
    });
    let folder = Folder::new();
    let path = folder.path("file");
    std::fs::write(&path, file.build()).expect("a file can be written");
    let refused = |name: &[u8]| {
        let error = load(&context(), &path, Select::Names(&[name])).map(drop);
        let error = error.expect_err("refused");
        assert!(error.offset().is_some());
        error.kind()
    };
    assert_eq!(refused(b".long"), ErrorKind::Corrupted);
    assert_eq!(refused(b".odd"), ErrorKind::NotSupported);
}
