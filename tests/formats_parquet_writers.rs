//! Files of other writers, value by value what pyarrow reads: pyarrow over codecs, encodings, page
//! versions, nulls, page index, CRC and encryption; DuckDB; tpchgen-cli.
//!
//! `GDS_PARQUET_PRODUCT=full` for the whole product.

#![cfg(feature = "parquet")]
#![allow(clippy::print_stdout)]

mod parquet_support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gds_rs::formats::parquet::{Keys, Selection};
use parquet_support::common::{Folder, context};
use parquet_support::{Random, open, python, record_batch, run, write_arrow};

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The keys that a line of the list tells.
fn keys_of(how: &str) -> Option<Keys> {
    let how: serde_json::Value = serde_json::from_str(how).expect("JSON");
    let key = how.get("key")?.as_str().expect("text");
    let prefix = how.get("aad").and_then(|v| v.as_str());
    Some(Keys {
        footer: from_hex(key),
        aad_prefix: prefix.map(|p| p.as_bytes().to_vec()),
        ..Keys::default()
    })
}

/// A few ranges of rows, ascending.
fn some_rows(rows: u64, random: &mut Random) -> Vec<std::ops::Range<u64>> {
    let mut made = Vec::new();
    let mut at = 0;
    for _ in 0..3 {
        let start = at + random.below((rows - at) / 2 + 1);
        let end = start + random.below((rows - start) / 2 + 1);
        if start < end {
            made.push(start..end);
        }
        at = end;
    }
    made
}

/// Loads every file of a list, whole and in part, and lets pyarrow compare.
fn compare_all(python: &Path, folder: &Folder, list: &str) -> String {
    let context = context();
    let mut random = Random(5);
    let mut pairs = String::new();
    let mut count = 0;
    for line in list.lines() {
        let (path, how) = line.split_once('\t').expect("a path and how");
        let path = PathBuf::from(path);
        let parquet = open(&context, &path, keys_of(how));
        let parquet = parquet.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let rows = parquet.info().rows;
        let names: Vec<String> = parquet.columns().iter().map(|c| c.name.clone()).collect();
        let name = &names[random.below(names.len() as u64) as usize];
        let root = name.split('.').next().expect("a name").to_owned();
        let ranges = some_rows(rows, &mut random);
        let whole = Selection::default();
        let part = Selection {
            columns: Some(vec![names[0].clone(), root.clone()]),
            rows: Some(ranges.clone()),
            ..Selection::default()
        };
        let rows: Vec<String> = ranges
            .iter()
            .map(|r| format!("[{}, {}]", r.start, r.end))
            .collect();
        let first = names[0].split('.').next().expect("a name");
        let more = format!(
            "\"columns\": [\"{first}\", \"{root}\"], \"rows\": [{}]",
            rows.join(", ")
        );
        let how = how.trim_end().trim_end_matches('}');
        let comma = if how.len() > 1 { ", " } else { "" };
        let part_how = format!("{how}{comma}{more}}}");
        let mut cases = vec![(whole, format!("{how}}}"))];
        if !ranges.is_empty() {
            cases.push((part, part_how));
        }
        for (selection, how) in cases {
            let batch = parquet.load(&context, &selection);
            let batch = batch.unwrap_or_else(|e| panic!("{} {how}: {e}", path.display()));
            let arrow = folder.path(&format!("{count}.arrow"));
            write_arrow(&arrow, &record_batch(&context, &batch));
            writeln!(pairs, "{}\t{}\t{how}", path.display(), arrow.display()).expect("text");
            count += 1;
        }
    }
    let names = folder.path("pairs");
    fs::write(&names, pairs).expect("a list");
    run(python, "compare.py", &[&names])
}

#[test]
fn what_pyarrow_writes_is_read_as_pyarrow_reads_it() {
    let Some(python) = python() else {
        return;
    };
    let folder = Folder::new();
    let made = folder.path("made");
    fs::create_dir(&made).expect("a folder");
    let how = std::env::var("GDS_PARQUET_PRODUCT").unwrap_or_default();
    let list = run(
        &python,
        "make.py",
        &[Path::new("product"), &made, Path::new(&how)],
    );
    let said = compare_all(&python, &folder, &list);
    println!("{said}");
    assert!(said.contains(", 0 that pyarrow does not read"), "{said}");
}

#[test]
fn what_duckdb_and_tpchgen_write_is_read_as_pyarrow_reads_it() {
    let Some(python) = python() else {
        return;
    };
    let folder = Folder::new();
    let made = folder.path("made");
    fs::create_dir(&made).expect("a folder");
    let list = run(&python, "make.py", &[Path::new("writers"), &made]);
    if list.is_empty() {
        println!("skipped: neither duckdb nor tpchgen-cli is there");
        return;
    }
    println!("{}", compare_all(&python, &folder, &list));
}
