//! Every file of parquet-testing: value by value what pyarrow reads, the encrypted ones with their
//! keys, and the broken ones with a status.

#![cfg(feature = "parquet")]
#![allow(clippy::print_stdout)]

mod parquet_support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use gds_rs::error::ErrorKind;
use gds_rs::formats::parquet::{Compare, Keys, Predicate, Selection, Value};
use parquet_support::common::{Folder, context};
use parquet_support::{data, files_below, load, open, python, record_batch, run, write_arrow};

/// Files that no reader can read, with what is wrong with them.
const BROKEN: &[&str] = &[
    // Its checksums are wrong on purpose.
    "corrupt-checksum",
    // Its dictionary page is not what its header says.
    "nation.dict-malformed",
];

fn is_broken(path: &Path) -> bool {
    let name = path.to_string_lossy();
    BROKEN.iter().any(|broken| name.contains(broken))
}

#[test]
fn every_file_has_the_values_that_pyarrow_reads() {
    let (Some(root), Some(python)) = (data("parquet-testing"), python()) else {
        return;
    };
    let (context, folder) = (context(), Folder::new());
    let mut list = String::new();
    let mut failed = Vec::new();
    let mut count = 0;
    for below in ["data", "variant", "shredded_variant"] {
        for path in files_below(&root.join(below), &[".parquet"]) {
            if is_broken(&path) {
                continue;
            }
            match load(&context, &path, None) {
                Ok(batch) => {
                    let arrow = folder.path(&format!("{count}.arrow"));
                    write_arrow(&arrow, &record_batch(&context, &batch));
                    writeln!(list, "{}\t{}", path.display(), arrow.display()).expect("text");
                    count += 1;
                }
                Err(error) => failed.push(format!("{}: {error}", path.display())),
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let names = folder.path("list");
    fs::write(&names, list).expect("a list");
    let said = run(&python, "compare.py", &[&names]);
    println!("{count} files: {said}");
}

#[test]
fn a_wrong_page_checksum_is_found_with_the_offset_of_the_page() {
    let Some(root) = data("parquet-testing/data") else {
        return;
    };
    let context = context();
    let mut found = 0;
    for path in files_below(&root, &["corrupt-checksum.parquet"]) {
        let error = load(&context, &path, None).expect_err("its checksum is wrong");
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        assert!(error.message().contains("CRC"), "{error}");
        // The first page of the first column, behind the magic.
        assert_eq!(error.offset(), Some(4), "{error}");
        found += 1;
    }
    assert!(found > 0, "there is one");
    for path in files_below(&root, &["checksum.parquet"]) {
        if !is_broken(&path) {
            load(&context, &path, None).expect("its checksums are right");
        }
    }
}

#[test]
fn broken_files_are_answered_with_a_status() {
    let Some(root) = data("parquet-testing") else {
        return;
    };
    let context = context();
    let mut files = files_below(&root.join("bad_data"), &[".parquet"]);
    let malformed = root.join("data/nation.dict-malformed.parquet");
    files.extend(malformed.exists().then_some(malformed));
    for path in files {
        match load(&context, &path, None) {
            Ok(batch) => println!("{} has {} rows after all", path.display(), batch.rows),
            Err(error) => {
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Corrupted | ErrorKind::OutOfHostMemory
                    ),
                    "{}: {error}",
                    path.display()
                );
                println!("{error}");
            }
        }
    }
}

/// Digits from `first` on, and a last one: the README of parquet-testing gives the digits as
/// numbers, the files have their letters.
fn key(size: usize, first: u8, last: u8) -> Vec<u8> {
    let mut key: Vec<u8> = (0..size as u8).map(|i| b'0' + (first + i) % 10).collect();
    key[size - 1] = b'0' + last;
    key
}

fn keys_128() -> Keys {
    Keys {
        footer: key(16, 0, 5),
        columns: vec![
            ("double_field".into(), key(16, 1, 0)),
            ("float_field".into(), key(16, 1, 1)),
        ],
        ..Keys::default()
    }
}

fn keys_256() -> Keys {
    let names = [
        "double_field",
        "float_field",
        "boolean_field",
        "int32_field",
        "ba_field",
        "flba_field",
        "int64_field.list.element",
        "int96_field",
    ];
    let columns = names.iter().zip(2..);
    Keys {
        footer: key(32, 0, 1),
        columns: columns
            .map(|(name, last)| ((*name).into(), key(32, 1, last)))
            .collect(),
        ..Keys::default()
    }
}

/// The keys of a file by its name.
fn keys_of(path: &Path) -> Keys {
    let text = path.to_string_lossy();
    let mut keys = if text.contains("aes256") {
        keys_256()
    } else {
        keys_128()
    };
    if text.contains("disable_aad_storage") || text.contains("footer_aad") {
        keys.aad_prefix = Some(b"tester".to_vec());
    }
    keys
}

fn encrypted() -> Vec<std::path::PathBuf> {
    let root = data("parquet-testing/data");
    let files = root.map(|root| files_below(&root, &[".parquet.encrypted"]));
    let mut files = files.unwrap_or_default();
    // Its keys lie in another file, wrapped by a service.
    files.retain(|path| !path.to_string_lossy().contains("external_key_material"));
    files
}

#[test]
fn encrypted_files_open_with_their_keys() {
    let context = context();
    for path in encrypted() {
        let batch = load(&context, &path, Some(keys_of(&path)));
        let batch = batch.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let batch = record_batch(&context, &batch);
        assert!(batch.num_rows() > 0, "{}", path.display());
        if path.to_string_lossy().contains("bloom_filter") {
            continue;
        }
        // As read-configurations-test.cc of Arrow C++ checks them: values depend on the row.
        use arrow_array::cast::AsArray as _;
        use arrow_array::types::{Float32Type, Float64Type};
        let floats = batch.column_by_name("float_field").expect("a column");
        let floats = floats.as_primitive::<Float32Type>();
        let doubles = batch.column_by_name("double_field").expect("a column");
        let doubles = doubles.as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let number = row as f32;
            assert_eq!(
                floats.value(row),
                number * 1.1,
                "{} row {row}",
                path.display()
            );
            let wide = row as f64 * 1.111_111_1;
            assert!(
                (doubles.value(row) - wide).abs() < 1e-9,
                "{} row {row}",
                path.display()
            );
        }
    }
}

#[test]
fn an_encrypted_bloom_filter_is_asked() {
    let context = context();
    let mut paths = encrypted();
    paths.retain(|path| path.to_string_lossy().contains("bloom_filter"));
    for path in paths {
        let parquet = open(&context, &path, Some(keys_of(&path))).expect("opened");
        let group = parquet.row_groups()[0].clone();
        let count = |value: f64| {
            let selection = Selection {
                predicates: vec![Predicate {
                    column: "double_field".into(),
                    compare: Compare::Equal,
                    value: Value::Float(value),
                }],
                ..Selection::default()
            };
            let parts = parquet.parts(&selection).expect("pruned");
            parts.iter().map(|part| part.count).sum::<u64>()
        };
        let batch = parquet
            .load(&context, &Selection::default())
            .expect("loaded");
        let batch = record_batch(&context, &batch);
        use arrow_array::cast::AsArray as _;
        let doubles = batch.column_by_name("double_field").expect("a column");
        let doubles = doubles.as_primitive::<arrow_array::types::Float64Type>();
        for value in doubles.values().iter().take(20) {
            assert!(count(*value) > 0, "{value} is there");
        }
        let (low, high) = (doubles.value(0), doubles.value(batch.num_rows() - 1));
        let others = (1..100).map(|i| low + (high - low) * f64::from(i) / 99.7);
        let absent = others.filter(|value| !doubles.values().contains(value));
        let (all, left): (Vec<f64>, Vec<f64>) = absent.partition(|value| count(*value) == 0);
        assert!(
            all.len() > left.len(),
            "{} rows, {} kept",
            group.rows,
            left.len()
        );
    }
}

#[test]
fn encrypted_files_fail_clearly_with_wrong_keys() {
    let context = context();
    for path in encrypted() {
        let name = path.display();
        let mut wrong = keys_of(&path);
        wrong.footer[3] ^= 1;
        for (_, key) in &mut wrong.columns {
            key[3] ^= 1;
        }
        let error = load(&context, &path, Some(wrong)).expect_err("wrong keys");
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{name}: {error}");
        assert!(error.message().contains("key"), "{name}: {error}");
        let short = Keys {
            footer: vec![1; 5],
            ..Keys::default()
        };
        assert!(
            load(&context, &path, Some(short)).is_err(),
            "{name}: a key of 5 bytes"
        );
        let error = load(&context, &path, None).expect_err("no keys");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}: {error}");
        assert!(error.message().contains("key"), "{name}: {error}");
        if keys_of(&path).aad_prefix.is_some() {
            let mut other = keys_of(&path);
            other.aad_prefix = Some(b"other".to_vec());
            let error = load(&context, &path, Some(other)).expect_err("a wrong prefix");
            assert!(error.message().contains("AAD"), "{name}: {error}");
        }
    }
}
