//! What the shared library shows to the loader: its names, its soname, what it needs, its flags.

mod abi_common;

use std::path::Path;
use std::process::Command;

use abi_common::{declared_functions, library, list, run, soname};

fn readelf(library: &Path, part: &str) -> String {
    run(Command::new("readelf").args(["--wide", part]).arg(library))
}

#[test]
fn exported_names_are_those_of_the_list_and_of_the_header() {
    let names = run(Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library()));
    let mut exported: Vec<String> = names
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(String::from)
        .collect();
    exported.sort();
    assert_eq!(
        exported,
        list("symbols.txt"),
        "names are added, never removed"
    );
    assert_eq!(
        exported,
        declared_functions(),
        "the header and the library differ"
    );
}

#[test]
fn the_soname_is_that_of_the_version_and_the_code_stays_mapped() {
    let dynamic = readelf(library(), "--dynamic");
    assert!(
        dynamic.contains(&format!("Library soname: [{}]", soname())),
        "{dynamic}"
    );
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn the_library_starts_where_neither_cuda_nor_cufile_is() {
    let dynamic = readelf(library(), "--dynamic");
    let needed: Vec<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .collect();
    assert!(!needed.is_empty(), "libc at least: {dynamic}");
    let plain = [
        "libc.so.6",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "libdl.so.2",
        "ld-",
    ];
    for line in needed {
        assert!(plain.iter().any(|name| line.contains(name)), "{line}");
    }
}
