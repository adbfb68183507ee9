//! Files of both classes and byte orders, put together by hand, are read as they were written.

#![allow(clippy::print_stderr)]

mod elf_support;

use elf_support::build::{File, Part, SHAPES, everything};
use elf_support::{open_bytes, readelf};
use gds_rs::formats::elf::{Class, Elf};

fn opened(file: &File) -> Elf {
    open_bytes(&file.build()).expect("a sound file opens")
}

fn numbered(elf: &Elf, name: &str) -> u32 {
    elf.section_named(name)
        .unwrap_or_else(|| panic!("{name} is there"))
        .index
}

#[test]
fn every_table_is_read_in_every_class_and_byte_order() {
    for (class, order) in SHAPES {
        let elf = opened(&everything(class, order));
        let header = elf.header();
        assert_eq!(
            (header.class, header.order, header.entry),
            (class, order, 0x1234)
        );
        let text = elf.section_named(".text").expect("there");
        assert_eq!(elf.bytes(text).expect("read"), b"what is done");
        assert_eq!((text.address, text.flags), (0x1000, 6));
        let bss = elf.section_named(".bss").expect("there");
        assert!(bss.is_nobits() && bss.size == 4096 && elf.bytes(bss).expect("none").is_empty());

        let symbols = elf.symbols(numbered(&elf, ".dynsym")).expect("symbols");
        assert_eq!(symbols.len(), 4);
        let shown: Vec<_> = symbols
            .iter()
            .map(|s| {
                let s = s.expect("a symbol");
                let version = s.version.map(|v| (v.name.to_vec(), v.is_default));
                (
                    s.name.to_vec(),
                    s.value,
                    s.size,
                    s.kind,
                    s.binding,
                    s.section,
                    version,
                )
            })
            .collect();
        let version = |name: &[u8], is_default| Some((name.to_vec(), is_default));
        assert_eq!(
            shown[1],
            (
                b"first".to_vec(),
                0x1000,
                12,
                2,
                1,
                1,
                version(b"V_1", true)
            )
        );
        assert_eq!(
            shown[2],
            (b"second".to_vec(), 0, 0, 2, 1, 0, version(b"V_2", false))
        );
        assert_eq!(
            shown[3],
            (
                b"first".to_vec(),
                9,
                0,
                1,
                1,
                0xfff1,
                version(b"V_1", false)
            )
        );
        let plain = elf.symbols(numbered(&elf, ".symtab")).expect("symbols");
        assert_eq!(plain.get(1).expect("there").version, None);
        assert_eq!(
            plain.get(4).unwrap_err().kind(),
            gds_rs::ErrorKind::OutOfRange
        );

        let notes = elf.notes(numbered(&elf, ".note.one")).expect("notes");
        let shown: Vec<_> = notes
            .iter()
            .map(|n| (n.owner, n.kind, n.descriptor.len()))
            .collect();
        assert_eq!(shown, [(&b"GNU"[..], 3, 20), (b"three", 9, 0)]);
        let notes = elf.notes(numbered(&elf, ".note.eight")).expect("notes");
        let shown: Vec<_> = notes.iter().map(|n| n.descriptor.to_vec()).collect();
        assert_eq!(shown, [vec![1; 12], vec![2; 16]]);
        assert_eq!(elf.build_id().expect("read"), Some(vec![0xab; 20]));
        assert_eq!(elf.segment_notes(2).expect("notes").len(), 2);

        let dynamic = elf.dynamic().expect("read").expect("there");
        assert_eq!(dynamic.entries().len(), 6, "up to the first end");
        assert_eq!(dynamic.needed(&elf).expect("names"), [b"libx.so"]);
        assert_eq!(dynamic.soname(&elf).expect("a name"), Some(&b"libx.so"[..]));
        assert_eq!(
            dynamic.run_path(&elf).expect("a path"),
            Some(&b"/opt/lib"[..])
        );

        let rel = elf
            .relocations(numbered(&elf, ".rel.dyn"))
            .expect("relocations");
        let shown: Vec<_> = rel
            .iter()
            .map(|r| (r.offset, r.symbol, r.kind, r.addend))
            .collect();
        assert_eq!(shown, [(0x2000, 1, 2, None), (0x2008, 0, 3, None)]);
        let rela = elf
            .relocations(numbered(&elf, ".rela.dyn"))
            .expect("relocations");
        let shown: Vec<_> = rela
            .iter()
            .map(|r| (r.offset, r.symbol, r.kind, r.addend))
            .collect();
        assert_eq!(shown, [(0x2010, 2, 2, Some(5)), (0x2018, 1, 2, Some(-7))]);

        let relr = elf
            .relocations(numbered(&elf, ".relr.dyn"))
            .expect("relocations");
        let word: u64 = if class == Class::Elf64 { 8 } else { 4 };
        let bits = word * 8 - 1;
        let mut want = vec![0x2000, 0x2000 + word, 0x2000 + 3 * word];
        want.extend((0..bits).map(|bit| 0x2000 + word * (1 + bits + bit)));
        want.extend([0x2000 + word * (1 + 2 * bits), 0x9000, 0x9000 + 2 * word]);
        let shown: Vec<_> = relr.iter().map(|r| r.offset).collect();
        assert_eq!(
            (shown.as_slice(), relr.len()),
            (want.as_slice(), want.len() as u64)
        );
        for (index, offset) in want.iter().enumerate() {
            assert_eq!(relr.get(index as u64).map(|r| r.offset), Some(*offset));
        }
        assert_eq!(relr.get(want.len() as u64), None);
    }
}

#[test]
fn readelf_says_the_same_of_files_built_by_hand() {
    if !readelf::is_there() {
        eprintln!("skipped: no readelf (binutils)");
        return;
    }
    for (class, order) in SHAPES {
        for extended in [false, true] {
            let file = File {
                extended,
                ..everything(class, order)
            };
            let name = format!(
                "gds-elf-{class:?}-{order:?}-{extended}-{}",
                std::process::id()
            );
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            std::fs::write(&path, file.build()).expect("a file can be written");
            let text = readelf::text(&path);
            std::fs::remove_file(&path).expect("it was there");
            let agreed = readelf::compare(&opened(&file), &text);
            let agreed = agreed.unwrap_or_else(|why| panic!("{class:?} {order:?}: {why}\n{text}"));
            assert!(agreed.symbols == 8 && agreed.notes == 4, "{agreed:?}");
            assert!(agreed.dynamic == 6 && agreed.relocations > 40, "{agreed:?}");
            assert!(agreed.sections == 17 && agreed.segments == 4, "{agreed:?}");
        }
    }
}

#[test]
fn counts_that_do_not_fit_are_in_section_0() {
    for (class, order) in SHAPES {
        let mut file = everything(class, order);
        file.extended = true;
        let elf = opened(&file);
        assert_eq!(elf.sections().len(), file.parts.len() + 2);
        assert_eq!(elf.segments().len(), 4);
        assert_eq!(elf.section_name(&elf.sections()[1]), b".text");
    }
}

#[test]
fn sections_of_symbols_that_do_not_fit_are_in_a_table_of_their_own() {
    for (class, order) in SHAPES {
        let mut file = File::new(class, order);
        let strings = file.push(Part {
            name: ".strtab",
            kind: 3,
            bytes: b"\0far\0".to_vec(),
            ..Part::default()
        });
        let mut bytes = file.new_bytes();
        file.symbol(&mut bytes, 0, 0, 0, 0, 0);
        file.symbol(&mut bytes, 1, 0, 0, 0x10, 0xffff);
        let entry_size = bytes.bytes.len() as u64 / 2;
        let symbols = file.push(Part {
            name: ".symtab",
            kind: 2,
            bytes: bytes.bytes,
            link: strings,
            entry_size,
            ..Part::default()
        });
        let without = opened(&file);
        let error = without
            .symbols(symbols)
            .expect("a table")
            .get(1)
            .unwrap_err();
        assert_eq!(error.kind(), gds_rs::ErrorKind::Corrupted);
        assert!(error.offset().is_some());
        let mut bytes = file.new_bytes();
        bytes.word(0).word(70_000);
        file.push(Part {
            name: ".symtab_shndx",
            kind: 18,
            bytes: bytes.bytes,
            link: symbols,
            entry_size: 4,
            ..Part::default()
        });
        let elf = opened(&file);
        let table = elf.symbols(symbols).expect("a table");
        let symbol = table.get(1).expect("a symbol");
        assert_eq!((symbol.section, symbol.is_in_section), (70_000, true));
    }
}

#[test]
fn names_of_the_dynamic_linker_are_found_without_sections() {
    for (class, order) in SHAPES {
        let file = everything(class, order);
        let mut bytes = file.build();
        // The loader's view: no section headers, the strings where DT_STRTAB says.
        let at = if class == Class::Elf64 { 40 } else { 32 };
        bytes[at..at + if class == Class::Elf64 { 8 } else { 4 }].fill(0);
        let at = if class == Class::Elf64 { 60 } else { 48 };
        bytes[at..at + 4].fill(0);
        let elf = open_bytes(&bytes).expect("opens");
        assert!(elf.sections().is_empty());
        assert_eq!(elf.build_id().expect("read"), Some(vec![0xab; 20]));
        let dynamic = elf.dynamic().expect("read").expect("there");
        assert_eq!(dynamic.entries().len(), 6);
        // 0x3000 is in no segment: its names are not there, and that is said.
        assert!(dynamic.needed(&elf).is_err());
    }
}
