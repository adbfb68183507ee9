//! Arrow against others: what pyarrow reads of the same files, value by value, and what nanoarrow,
//! polars and duckdb make of the arrays that go out. Through the C interface, on the host device.
//!
//! The comparing is done by `formats_support/arrow_oracle.py`; it needs Python with pyarrow, and
//! says why it was skipped.

#![cfg(feature = "arrow")]
#![allow(clippy::print_stdout)]

mod common;
mod formats_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::Folder;
use formats_support::python;

/// The shared library that was built with this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a program has a path");
    test.with_file_name("libgds_rs.so")
}

/// Runs the oracle, and gives how many comparisons it made.
fn oracle(python: &Path, mode: &str, folder: &Path) -> u64 {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats_support/arrow_oracle.py");
    let output = Command::new(python)
        .arg(script)
        .arg(library())
        .arg(mode)
        .arg(folder)
        .output()
        .expect("Python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{errors}", output.status);
    let last = text.lines().last().unwrap_or_default();
    println!("{last}");
    let count = last
        .strip_prefix("compared ")
        .and_then(|rest| rest.split(',').next());
    count
        .and_then(|count| count.parse().ok())
        .expect("the last line counts")
}

#[test]
fn files_of_the_corpus_hold_what_pyarrow_reads() {
    let folder = match std::env::var_os("GDS_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    }
    .join("arrow-testing/data");
    if !folder.exists() {
        println!("skipped: {} is not there", folder.display());
        return;
    }
    if let Some(python) = python("pyarrow") {
        assert!(oracle(&python, "corpus", &folder) >= 60);
    }
}

#[test]
fn files_of_pyarrow_hold_what_was_written() {
    if let Some(python) = python("pyarrow") {
        let folder = Folder::new();
        // GDS_FORMATS_PRODUCT=product: all of them, which takes minutes.
        let mode = std::env::var("GDS_FORMATS_PRODUCT").unwrap_or_else(|_| "sample".to_owned());
        assert!(oracle(&python, &mode, &folder.0) >= 50);
    }
}

#[test]
fn others_import_what_goes_out() {
    if let Some(python) = python("pyarrow, nanoarrow, polars, duckdb") {
        let folder = Folder::new();
        assert_eq!(oracle(&python, "consumers", &folder.0), 5);
    }
}
