//! `gds inspect` and `gds load` of ELF files.

#![cfg(feature = "cli")]

mod cli_support;

use cli_support::{Folder, fails, json_of, text_of};

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/elf/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn inspect_tells_what_a_program_carries_for_devices() {
    let folder = Folder::new();
    let text = text_of(&folder, &["inspect", &fixture("scale_host.o")]);
    let whole = text_of(&folder, &["inspect", &fixture("scale_host.o"), "--all"]);
    for part in [
        "64 bit, little endian, REL, X86_64",
        ".nv_fatbin",
        "cubin sm_90",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let kernel =
        "kernel scale sm_90: 512 bytes of code, 8 registers, 16 bytes of parameters, 0 shared";
    assert!(!text.contains("kernel scale"), "{text}");
    assert!(whole.contains(kernel), "{whole}");
    let report = json_of(&folder, &["inspect", &fixture("scale_host.o")]);
    assert_eq!(report["format"], "ELF");
    assert_eq!(report["header"]["class"], 64);
    let entries = report["device_code"][0]["entries"]
        .as_array()
        .expect("a list");
    assert!(
        entries
            .iter()
            .any(|entry| entry["kind"] == "cubin" && entry["arch"] == 90)
    );
    let symbols = &report["symbol_tables"][0];
    assert!(symbols["count"].as_u64() > Some(10) && symbols["symbols"].is_null());
    let all = json_of(&folder, &["inspect", &fixture("scale_host.o"), "--all"]);
    let list = all["symbol_tables"][0]["symbols"]
        .as_array()
        .expect("a list");
    assert_eq!(Some(list.len() as u64), symbols["count"].as_u64());
    let cubin = json_of(&folder, &["inspect", &fixture("scale.cubin")]);
    assert_eq!(
        (cubin["arch"].as_u64(), &cubin["kernels"][1]["name"]),
        (Some(90), &"scale".into())
    );
}

#[test]
fn load_brings_the_sections_that_were_named() {
    let folder = Folder::new();
    let arguments = ["load", &fixture("scale_host.o"), "--sections", ".text,.nv*"];
    let report = json_of(&folder, &arguments);
    let sections = report["sections"].as_array().expect("a list");
    let names: Vec<_> = sections.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, [".text", ".nv_fatbin", ".nvFatBinSegment"]);
    assert_eq!(report["verified"], true);
    let text = text_of(&folder, &["load", &fixture("scale.cubin")]);
    assert!(text.contains("verified"), "{text}");
    let arguments = ["load", &fixture("scale.cubin"), "--sections", ".none"];
    fails(&folder, 1, &arguments, &["no section", ".none"]);
}

#[test]
fn damaged_files_are_told_with_the_offset() {
    let folder = Folder::new();
    let whole = std::fs::read(fixture("scale.cubin")).expect("read");
    let path = folder.path("cut");
    std::fs::write(&path, &whole[..whole.len() - 100]).expect("written");
    let path = path.display().to_string();
    fails(&folder, 1, &["inspect", &path], &["headers", "damaged"]);
}
