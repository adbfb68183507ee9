//! Damaged Arrow files: an error with an offset, whatever is wrong. No panic, no hang, and no more
//! memory than the format can fill.
//!
//! `GDS_FORMATS_MUTATIONS=n` mutations in all.

#![cfg(feature = "arrow")]
#![allow(clippy::print_stdout)]

#[path = "formats_support/arrow_drive.rs"]
mod arrow_drive;
mod common;
mod formats_support;

use std::path::Path;

use arrow_drive::drive;
use common::context;
use formats_support::{Random, mutate, mutations};

/// The corpus of the fuzz target: small files of pyarrow, of every form, codec and type.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/arrow_ipc");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("an entry can be read").path())
        .map(|path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let bytes = std::fs::read(&path).expect("a file can be read");
            (name.unwrap_or_default(), bytes)
        })
        .collect();
    files.sort();
    assert!(files.len() > 5, "{} files", files.len());
    files
}

#[test]
fn the_corpus_is_read() {
    let context = context();
    for (name, bytes) in corpus() {
        assert!(drive(&context, &bytes) > 0, "{name}");
    }
}

#[test]
fn mutations_are_answered() {
    let context = context();
    let corpus = corpus();
    let mut random = Random(0xA220);
    let mut loaded = 0;
    for round in 0..mutations() {
        let (_, bytes) = &corpus[round as usize % corpus.len()];
        // Metadata is at the start of a stream and at the end of a file.
        let mut changed = bytes.clone();
        if bytes.starts_with(b"ARROW1") && round % 2 == 0 {
            changed.reverse();
            changed = mutate(&changed, bytes.len() / 3, &mut random);
            changed.reverse();
        } else {
            changed = mutate(&changed, bytes.len() / 3, &mut random);
        }
        loaded += drive(&context, &changed);
    }
    assert!(loaded > 0, "some mutations hit nothing that matters");
}

#[test]
fn a_cut_at_every_byte_is_answered() {
    let context = context();
    for (name, bytes) in corpus() {
        let whole = drive(&context, &bytes);
        // Small ones whole, larger ones at every byte of their ends and in steps between.
        let step = (bytes.len() / 2000).max(1);
        for cut in (0..bytes.len()).filter(|cut| cut % step == 0 || bytes.len() - cut < 200) {
            let loaded = drive(&context, &bytes[..cut]);
            assert!(loaded <= whole, "{name} cut at {cut}");
            if bytes.starts_with(b"ARROW1") {
                assert_eq!(loaded, 0, "{name} cut at {cut} has no footer");
            }
        }
    }
}

#[test]
fn broken_files_of_others_are_answered() {
    let folder = match std::env::var_os("GDS_TEST_DATA") {
        Some(folder) => std::path::PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    }
    .join("arrow-testing/data");
    if !folder.exists() {
        println!("skipped: {} is not there", folder.display());
        return;
    }
    let context = context();
    let mut count = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                drive(&context, &std::fs::read(&path).expect("a file can be read"));
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count} files");
}
