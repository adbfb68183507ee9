//! `gds inspect` and `gds load` of files of tensors: what they say is what the file holds.

#![cfg(feature = "cli")]

mod cli_support;

use std::fs;

use cli_support::{Folder, fails, json_of, text_of};
use serde_json::json;

/// A safetensors file of these tensors (name, type, shape, bytes).
fn safetensors(folder: &Folder, name: &str, tensors: &[(&str, &str, &[u64], usize)]) -> String {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, dtype, shape, size) in tensors {
        let tensor = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]});
        header.insert((*name).to_owned(), tensor);
        at += size;
    }
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let text = serde_json::Value::Object(header).to_string();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes.extend((0..at).map(|i| (i * 7 + i / 256) as u8));
    fs::write(folder.path(name), bytes).expect("written");
    name.to_owned()
}

fn model(folder: &Folder) -> String {
    let tensors: &[(&str, &str, &[u64], usize)] = &[
        ("layer.weight", "BF16", &[64, 96], 64 * 96 * 2),
        ("layer.bias", "F32", &[64], 256),
        ("none", "I64", &[0, 3], 0),
        ("mask", "BOOL", &[5], 5),
    ];
    safetensors(folder, "m.safetensors", tensors)
}

#[test]
fn inspect_says_what_a_file_holds() {
    let folder = Folder::new();
    let name = model(&folder);
    let value = json_of(&folder, &["inspect", &name]);
    assert_eq!(value["format"], "safetensors");
    assert_eq!(value["complete"], true);
    assert_eq!(value["tensor_bytes"], 64 * 96 * 2 + 256 + 5);
    assert_eq!(value["metadata"], json!({"format": "pt"}));
    let weight = &value["tensors"][0];
    assert_eq!(weight["name"], "layer.weight");
    assert_eq!(weight["dtype"], "BF16");
    assert_eq!(weight["shape"], json!([64, 96]));
    assert_eq!(weight["bytes"], 64 * 96 * 2);
    let text = text_of(&folder, &["inspect", &name]);
    for word in ["safetensors", "4 tensors", "BF16[64, 96]", "format: pt"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    fs::write(folder.path("z"), b"\x28\xb5\x2f\xfd....").unwrap();
    let value = json_of(&folder, &["inspect", "z"]);
    assert_eq!(value["format"], "Zstandard frame");
}

#[test]
fn load_verifies_what_arrives() {
    let folder = Folder::new();
    let name = model(&folder);
    let all = json_of(&folder, &["load", &name]);
    assert_eq!(all["verified"], true);
    assert_eq!(all["bytes"], 64 * 96 * 2 + 256 + 5);
    for tensor in all["tensors"].as_array().unwrap() {
        assert_eq!(tensor["offset"].as_u64().unwrap() % 256, 0);
    }
    let mirror = json_of(&folder, &["load", &name, "--mirror"]);
    assert_eq!(
        (&mirror["reads"], &mirror["verified"]),
        (&json!(1), &json!(true))
    );
    let names = "layer.bias,mask";
    let some = json_of(&folder, &["load", &name, "--tensors", names]);
    assert_eq!((&some["bytes"], &some["pieces"]), (&json!(261), &json!(2)));
    let share = ["load", &name, "--share", "1/4", "--dimension", "1"];
    let share = json_of(&folder, &share);
    let weight = &share["tensors"][0];
    assert_eq!(weight["shape"], json!([64, 24]));
    assert_eq!(
        share["tensors"][1]["shape"],
        json!([64]),
        "whole: it has no dimension 1"
    );
    assert!(
        share["reads"].as_u64().unwrap() < 4,
        "64 rows are gathered: {share}"
    );
    let text = text_of(&folder, &["load", &name]);
    assert!(
        text.contains("4 tensors of") && text.contains("verified"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_done_is_one_line() {
    let folder = Folder::new();
    let name = model(&folder);
    fs::write(folder.path("text"), "no tensors here").unwrap();
    fs::write(folder.path("elf"), b"ORC and so on").unwrap();
    let bytes = fs::read(folder.path(&name)).unwrap();
    fs::write(folder.path("cut"), &bytes[..bytes.len() - 1]).unwrap();
    fails(&folder, 1, &["inspect", "text"], &["no format"]);
    fails(&folder, 1, &["load", "text"], &["no format"]);
    fails(&folder, 1, &["load", "elf"], &["ORC"]);
    fails(&folder, 1, &["inspect", "missing"], &["missing"]);
    fails(&folder, 1, &["inspect", "cut"], &["cut", "mask"]);
    fails(
        &folder,
        1,
        &["load", &name, "--tensors", "bias"],
        &["did you mean layer.bias"],
    );
    fails(&folder, 2, &["load", &name, "--share", "4/4"], &["RANK/OF"]);
    let share = [
        "load",
        &name,
        "--share",
        "1/4",
        "--dimension",
        "1",
        "--mirror",
    ];
    fails(&folder, 1, &share, &["layer.weight", "pack"]);
}

#[test]
fn bench_formats_measures_what_it_wrote_and_leaves_nothing() {
    let folder = Folder::new();
    for cache in ["warm", "cold"] {
        let words = [
            "bench", "formats", "--size", "3M", "--runs", "2", "--cache", cache,
        ];
        let value = json_of(&folder, &words);
        assert_eq!(value["cache"], cache);
        let formats = value["formats"].as_array().expect("a list");
        let mut names = vec!["safetensors", "ELF"];
        names.extend(cfg!(feature = "arrow").then_some("Arrow"));
        names.extend(cfg!(feature = "parquet").then_some("Parquet"));
        let found: Vec<&str> = formats
            .iter()
            .filter_map(|f| f["format"].as_str())
            .collect();
        assert_eq!(found, names);
        for format in formats {
            assert_eq!(format["verified"], true);
            assert_eq!(format["runs"].as_array().expect("a list").len(), 2);
            for figure in ["gb_per_second", "plain_gb_per_second", "file_bytes"] {
                assert!(format[figure].as_f64().expect("a number") > 0.0, "{format}");
            }
            // Of the sections of the program nobody knows how large they are.
            if format["format"] != "ELF" {
                assert_eq!(format["bytes"], 3 << 20, "{format}");
            }
        }
        assert!(folder.names().is_empty(), "what was written is gone");
    }
}

#[test]
fn bench_formats_says_what_it_measured_and_refuses_what_it_cannot() {
    let folder = Folder::new();
    // Not a whole number of tensors, of rows or of groups.
    let text = text_of(
        &folder,
        &["bench", "formats", "--size", "17825793", "--runs", "1"],
    );
    assert_eq!(text.matches("; verified").count(), text.lines().count() - 1);
    assert!(text.contains("plain read of the file"), "{text}");
    let away = ["-q", "bench", "formats", "--dir", "nowhere"];
    fails(&folder, 1, &away, &["nowhere"]);
    fails(
        &folder,
        2,
        &["bench", "formats", "--size", "0"],
        &["--size"],
    );
    fails(
        &folder,
        2,
        &["bench", "formats", "--runs", "0"],
        &["--runs"],
    );
    assert!(folder.names().is_empty(), "a failure leaves nothing");
}
