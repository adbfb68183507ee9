//! Detection by content: files that others wrote are what their makers say, a few KiB are read,
//! and names do not matter.

#![allow(clippy::print_stdout)]

mod common;
mod formats_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use formats_support::Counting;
use gds_rs::engine::Context;
use gds_rs::formats::{FileSource, Format, detect};

fn find(context: &Context, path: &Path) -> Format {
    let file = open(context, path);
    let source = FileSource::new(&file).expect("a size");
    detect(&source).expect("a format").format
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && !path.is_symlink() {
            files(&path, into);
        } else if path.is_file() {
            into.push(path);
        }
    }
}

#[test]
fn files_of_the_corpora_are_what_their_makers_say() {
    let data = std::env::var_os("GDS_TEST_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = data.unwrap_or(beside);
    let mut all = Vec::new();
    files(&folder, &mut all);
    if all.is_empty() {
        println!("skipped: no files in {}", folder.display());
        return;
    }
    let context = context();
    let mut counts = [0; 3];
    for path in all {
        let name = path.to_string_lossy();
        // Made to be broken, or not what their ending says.
        let odd = ["fuzz", "invalid", "bad", "crash", "minimized", "LICENSE"];
        if odd.iter().any(|word| name.contains(word)) {
            continue;
        }
        let wanted = match path.extension().and_then(|e| e.to_str()) {
            Some("parquet" | "encrypted") => (0, Format::Parquet),
            Some("arrow_file") => (1, Format::ArrowFile),
            // Before version 0.15 messages had no mark that tells them from anything.
            Some("stream") if !name.contains("0.14") => (2, Format::ArrowStream),
            _ => continue,
        };
        let found = find(&context, &path);
        assert_eq!(found, wanted.1, "{name}");
        counts[wanted.0] += 1;
    }
    println!("{counts:?} Parquet files, Arrow files, Arrow streams");
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

#[test]
fn a_large_file_is_told_by_a_few_kib() {
    let folder = Folder::new();
    let (path, _) = folder.file("no_name_says_it.parquet", 8 << 20);
    let counting = Arc::new(Counting::new(gds_rs::io::best()));
    let context = context_over(small_config(), counting.clone());
    assert_eq!(find(&context, &path), Format::Unknown);
    let (reads, bytes) = counting.take();
    assert!(
        reads <= 2 && bytes <= 8192,
        "{reads} reads of {bytes} bytes"
    );
    let program = std::env::current_exe().expect("this program");
    assert_eq!(find(&context, &program), Format::Elf);
    std::fs::write(&path, b"").expect("emptied");
    assert_eq!(find(&context, &path), Format::Unknown);
}
