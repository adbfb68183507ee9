//! The examples of the formats: the program in C finds every tensor, Python gets tensors by DLPack
//! and columns as arrays, without a copy, and keeps them when everything else is closed.

#![allow(clippy::print_stdout)]

mod abi_common;
mod formats_support;

use std::path::Path;
use std::process::Command;

use abi_common::{library, root, run, scratch};
use formats_support::{python, run_python};

/// A file with types that numpy takes by DLPack, dimensions without elements and none at all.
const WRITE: &str = r#"
import sys
import numpy as np
from safetensors.numpy import save_file
g = np.random.default_rng(1)
save_file({"w": g.standard_normal((300, 40)).astype("f4"), "e": np.zeros((0, 3), "i8"),
           "s": np.array(3.5), "h": g.standard_normal(7).astype("f2"),
           "b": np.array([True, False]), "c": g.standard_normal(4).astype("c8"),
           "u": np.arange(5, dtype="u2")}, sys.argv[1])
"#;

/// Columns of every type of number that the example knows, with others between them: strings,
/// nulls, and more row groups than one. Some are dictionaries in the file.
const WRITE_COLUMNS: &str = r#"
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
g, n = np.random.default_rng(1), 30_000
pq.write_table(pa.table({
    "i": g.integers(0, 1 << 30, n).astype("i4"), "text": [f"row {i}" for i in range(n)],
    "l": np.arange(n), "f": g.random(n).astype("f4"), "d": np.round(g.random(n), 1),
    "nulls": pa.array(g.random(n), mask=g.random(n) < 0.1)}), sys.argv[1], row_group_size=7_001)
"#;

#[test]
fn the_c_example_finds_every_tensor() {
    let folder = scratch("formats_examples");
    std::fs::create_dir_all(&folder).expect("a folder");
    let program = folder.join("tensors_load");
    let mut compile = Command::new("gcc");
    compile
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-I",
        ])
        .arg(root().join("include"))
        .arg(root().join("c_examples/tensors_load.c"))
        .arg("-o")
        .arg(&program)
        .arg(library())
        .arg(format!(
            "-Wl,-rpath,{}",
            library().parent().expect("a folder").display()
        ));
    run(&mut compile);
    let example = || {
        let mut command = Command::new(&program);
        command.env("GDS_DEVICE", "host").current_dir(&folder);
        command
    };
    let text = run(&mut example());
    assert!(
        text.contains("2 tensors") && text.contains("verified"),
        "{text}"
    );
    assert!(
        !folder.join("tensors_load.safetensors").exists(),
        "its sample is removed"
    );
    let text = run(example().arg(library()));
    assert!(text.contains("ELF") && text.contains("verified"), "{text}");
}

#[test]
fn python_gets_tensors_without_a_copy() {
    let Some(python) = python("numpy, safetensors") else {
        return;
    };
    let folder = scratch("formats_examples_python");
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("sample.safetensors");
    run_python(&python, WRITE, &[&path]);
    example(&python, &path, "7 tensors");
}

#[test]
fn python_gets_columns_without_a_copy() {
    let Some(python) = python("numpy, pyarrow") else {
        return;
    };
    let folder = scratch("formats_examples_columns");
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("sample.parquet");
    run_python(&python, WRITE_COLUMNS, &[&path]);
    example(&python, &path, "4 columns");
}

/// Runs the example, which compares what it got, and looks for what it says.
fn example(python: &Path, file: &Path, says: &str) {
    let mut example = Command::new(python);
    example
        .arg(root().join("c_examples/python_formats.py"))
        .arg(file)
        .env("GDS_DEVICE", "host")
        .env("GDS_RS_LIBRARY", library());
    let text = run(&mut example);
    println!("{text}");
    assert!(text.contains(says) && text.contains("verified"), "{text}");
}

#[test]
fn the_example_in_python_stays_short() {
    let path = root().join("c_examples/python_formats.py");
    let text = std::fs::read_to_string(path).expect("the example");
    assert!(text.lines().count() <= 150, "at most 150 lines");
}
