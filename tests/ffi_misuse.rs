//! The C and C++ programs that misuse and use the ABI, built with strict warnings and run against
//! the shared library on the host device.

mod abi_common;

use std::path::PathBuf;
use std::process::Command;

use abi_common::{library, root, run, scratch};

/// Builds a program of the source tree and links it as a user would.
fn build(compiler: &str, standard: &str, source: &str, more: &[&str]) -> PathBuf {
    let source = root().join(source);
    let name = source.file_stem().expect("a source has a name");
    let program = scratch("programs").join(name);
    let folder = library().parent().expect("the library is in a folder");
    run(Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args([
            "-g",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-Wconversion",
            "-Wshadow",
        ])
        .args(more)
        .arg("-I")
        .arg(root().join("include"))
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(folder)
        .arg("-lgds_rs")
        .arg(format!("-Wl,-rpath,{}", folder.display())));
    program
}

#[test]
fn misuse_is_answered() {
    let program = build("gcc", "c11", "c_examples/abi_misuse.c", &[]);
    let text = run(Command::new(program).env_remove("GDS_DEVICE"));
    assert!(text.contains(" 0 wrong"), "{text}");
}

#[test]
fn misuse_of_a_cache_is_answered() {
    let program = build("gcc", "c11", "c_examples/cache_misuse.c", &[]);
    let text = run(Command::new(program).env_remove("GDS_DEVICE"));
    assert!(text.contains(" 0 wrong"), "{text}");
}

#[test]
fn misuse_of_an_array_is_answered() {
    let program = build("g++", "c++17", "c_examples/array_misuse.cpp", &["-pthread"]);
    let text = run(Command::new(program).env_remove("GDS_DEVICE"));
    assert!(text.contains(" 0 wrong"), "{text}");
}

#[test]
fn misuse_of_a_store_is_answered() {
    let program = build("gcc", "c11", "c_examples/kv_misuse.c", &[]);
    let text = run(Command::new(program).env_remove("GDS_DEVICE"));
    assert!(text.contains(" 0 wrong"), "{text}");
}

#[test]
fn the_examples_of_a_store_find_every_value() {
    for (name, end) in [
        ("kv_basic", " 0 problems"),
        ("kv_async", "every commit was there"),
        ("kv_device", "every value was what it should be"),
    ] {
        let program = build("gcc", "c11", &format!("c_examples/{name}.c"), &[]);
        let text = run(Command::new(program).env("GDS_DEVICE", "host"));
        assert!(text.contains(end), "{text}");
    }
}

#[test]
fn the_example_of_a_cache_finds_its_records() {
    let program = build("gcc", "c11", "c_examples/cache_pages.c", &[]);
    let text = run(Command::new(program).env("GDS_DEVICE", "host"));
    assert!(
        text.contains("every record was what it should be"),
        "{text}"
    );
}

#[test]
fn the_example_of_elf_files_verifies_what_it_loads() {
    let program = build("gcc", "c11", "c_examples/elf_sections.c", &[]);
    let text = run(Command::new(program)
        .env("GDS_DEVICE", "host")
        .current_dir(scratch("elf_sections")));
    assert!(text.contains("every byte is that of the file"), "{text}");
}

#[test]
fn the_cpp_wrapper_closes_and_throws() {
    let program = build("g++", "c++11", "tests/abi/raii.cpp", &[]);
    run(Command::new(program).env_remove("GDS_DEVICE"));
}
