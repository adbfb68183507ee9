//! Device code is listed: kernels of cubins, and the entries of containers in programs and in
//! files of their own. The files were made by nvcc (tests/fixtures/elf/scale.cu says how).

mod elf_support;

use std::path::PathBuf;
use std::sync::Arc;

use elf_support::{PlainSource, open_bytes};
use gds_rs::ErrorKind;
use gds_rs::formats::elf::{Cubin, Elf, Fatbin, FatbinKind, Tables};
use gds_rs::formats::{MemorySource, Source};

fn source(name: &str) -> Arc<dyn Source> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    PlainSource::open(&root.join("tests/fixtures/elf").join(name)).expect("a fixture opens")
}

fn names(cubin: &Cubin) -> Vec<String> {
    let name = |kernel| String::from_utf8_lossy(cubin.name(kernel).expect("a name")).into_owned();
    cubin.kernels.iter().map(name).collect()
}

#[test]
fn kernels_of_a_cubin_are_listed_with_what_ptxas_said_of_them() {
    let elf = Elf::open(source("scale.cubin")).expect("opens");
    let tables = Tables::new(elf);
    let cubin = tables.cubin().expect("reads").expect("a cubin");
    assert_eq!(cubin.arch, 90);
    assert_eq!(names(cubin), ["_Z3addPfPKfi", "scale"]);
    let [add, scale] = cubin.kernels[..] else {
        panic!("two kernels");
    };
    // ptxas -v: 10 registers and 256 bytes of shared memory, and 8 registers. From sm_90 on
    // another 1 KiB is the system's.
    assert_eq!((add.registers, add.shared_size), (Some(10), 256 + 1024));
    assert_eq!((scale.registers, scale.shared_size), (Some(8), 0));
    assert_eq!(
        (add.parameter_size, scale.parameter_size),
        (Some(20), Some(16))
    );
    let text = tables.file().section_named(".text.scale").expect("there");
    assert_eq!((scale.section, scale.code_size), (text.index, text.size));
    assert!(scale.constant_size >= 16);
    let library = open_bytes(
        &elf_support::build::everything(
            gds_rs::formats::elf::Class::Elf64,
            gds_rs::formats::elf::ByteOrder::Big,
        )
        .build(),
    );
    assert!(
        Cubin::read(&library.expect("opens"))
            .expect("reads")
            .is_none()
    );
}

#[test]
fn containers_in_files_of_their_own_are_listed() {
    let plain = source("scale.fatbin");
    let found = Fatbin::read_file(&*plain).expect("reads");
    let [fatbin] = &found[..] else {
        panic!("one container");
    };
    assert_eq!(
        (fatbin.offset, fatbin.version, fatbin.size),
        (0, 1, plain.size())
    );
    let shown: Vec<_> = fatbin
        .entries
        .iter()
        .map(|e| (e.kind, e.arch, e.compression))
        .collect();
    assert_eq!(shown.len(), 3);
    assert!(shown.contains(&(FatbinKind::Cubin, 80, None)));
    assert!(shown.contains(&(FatbinKind::Cubin, 120, None)));
    let ptx = fatbin
        .entries
        .iter()
        .find(|e| e.kind == FatbinKind::Ptx)
        .expect("PTX");
    assert_eq!((ptx.arch, ptx.version.0), (75, 9));
    for entry in fatbin
        .entries
        .iter()
        .filter(|e| e.kind == FatbinKind::Cubin)
    {
        let elf = entry
            .open_cubin(&plain)
            .expect("opens")
            .expect("not compressed");
        let cubin = Cubin::read(&elf).expect("reads").expect("a cubin");
        assert_eq!(cubin.arch, entry.arch, "the header says the same");
        assert_eq!(names(&cubin), ["_Z3addPfPKfi", "scale"]);
    }
    let packed = source("scale_packed.fatbin");
    let found = Fatbin::read_file(&*packed).expect("reads");
    let entries = &found[0].entries;
    assert!(
        entries
            .iter()
            .all(|e| e.compression == Some("zstd") && e.decompressed_size > 0)
    );
    let cubin = entries
        .iter()
        .find(|e| e.kind == FatbinKind::Cubin)
        .expect("a cubin");
    let elf = cubin
        .open_cubin(&packed)
        .expect("opens")
        .expect("decompressed");
    assert_eq!(elf.source().size(), cubin.decompressed_size);
    assert_eq!(
        names(&Cubin::read(&elf).expect("reads").expect("a cubin")).len(),
        2
    );
}

#[test]
fn containers_in_programs_are_found_in_their_sections() {
    for (name, compression) in [("scale_host.o", None), ("scale_rdc.o", Some("zstd"))] {
        let source = source(name);
        let elf = Elf::open(source.clone()).expect("opens");
        let found = Fatbin::read_elf(&elf).expect("reads");
        assert_eq!(found.len(), 1, "{name}");
        let cubins = found[0]
            .entries
            .iter()
            .filter(|e| e.kind == FatbinKind::Cubin);
        let cubins: Vec<_> = cubins.collect();
        assert_eq!(cubins.len(), 1, "{name}");
        assert_eq!(
            (cubins[0].arch, cubins[0].compression),
            (90, compression),
            "{name}"
        );
        let inner = cubins[0]
            .open_cubin(&source)
            .expect("opens")
            .expect("known");
        assert_eq!(
            Cubin::read(&inner).expect("reads").expect("a cubin").arch,
            90
        );
    }
}

#[test]
fn containers_behind_each_other_are_found_and_what_is_none_is_said() {
    let one = std::fs::read(source("scale_packed.fatbin").path()).expect("read");
    let mut bytes = one.clone();
    bytes.extend([0; 8]);
    bytes.extend(&one);
    bytes.extend([0; 100_000]);
    let memory = |bytes: &[u8]| MemorySource::new(bytes.to_vec(), "in memory");
    let found = Fatbin::read_file(&memory(&bytes)).expect("reads");
    let offsets: Vec<u64> = found.iter().map(|fatbin| fatbin.offset).collect();
    assert_eq!(offsets, [0, one.len() as u64 + 8]);
    bytes.extend(b"something else of 16 bytes");
    let error = Fatbin::read_file(&memory(&bytes)).expect_err("not a container");
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert_eq!(error.offset(), Some(bytes.len() as u64 - 26));
    // An entry of a kind that nobody knows is listed.
    let mut bytes = one.clone();
    bytes[16] = 0x40;
    let found = Fatbin::read_file(&memory(&bytes)).expect("reads");
    assert_eq!(found[0].entries[0].kind, FatbinKind::Unknown(0x40));
    for size in 1..one.len() {
        let result = Fatbin::read_file(&memory(&one[..size]));
        assert_eq!(
            result.expect_err("cut").kind(),
            ErrorKind::Corrupted,
            "{size}"
        );
    }
}
