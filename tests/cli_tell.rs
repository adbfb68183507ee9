//! `gds check` and `gds explain`: what they say of this machine and of files, good and bad.

#![cfg(feature = "cli")]

mod cli_support;

use cli_support::{Folder, fails, json_of, text_of};
use serde_json::Value;

fn item<'a>(report: &'a Value, name: &str) -> &'a Value {
    let items = report["items"].as_array().expect("a list");
    let found = items.iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no '{name}' in {report:#}"))
}

#[test]
fn check_names_everything_and_each_lack_has_a_fix() {
    let folder = Folder::new();
    let report = json_of(&folder, &["check"]);
    for name in [
        "gds",
        "host",
        "NVIDIA kernel driver",
        "libcufile",
        "/proc/modules, for cuFile",
        "disk to GPU",
        "IOMMU",
        "NVMe",
        "Linux",
        "io_uring",
        "cachestat",
        "locked memory",
        "open files",
    ] {
        assert!(
            !item(&report, name)["detail"].as_str().unwrap().is_empty(),
            "{name}"
        );
    }
    for item in report["items"].as_array().unwrap() {
        let state = item["state"].as_str().unwrap();
        assert!(["ok", "missing", "note"].contains(&state), "{item}");
        let fix = item["fix"].as_str().unwrap();
        match state {
            "missing" => assert!(!fix.is_empty(), "{item}"),
            "ok" => assert!(fix.is_empty(), "{item}"),
            _ => {}
        }
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(item(&report, "Linux")["detail"], release.trim());
}

#[test]
fn check_agrees_with_the_machine() {
    let folder = Folder::new();
    let report = json_of(&folder, &["check"]);
    let driver = std::path::Path::new("/proc/driver/nvidia/version").exists();
    let state = if driver { "ok" } else { "missing" };
    assert_eq!(item(&report, "NVIDIA kernel driver")["state"], state);
    let uring = gds_rs::io::uring::Uring::probe().is_ok();
    assert_eq!(item(&report, "io_uring")["state"] == "ok", uring);
    let (_, trouble) = gds_rs::device::list(std::time::Duration::from_secs(20));
    let items = report["items"].as_array().unwrap();
    assert_eq!(items.iter().any(|i| i["name"] == "CUDA"), trouble.is_some());
}

#[test]
fn check_looks_at_a_file_and_at_a_folder() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 5000);
    let report = json_of(&folder, &["check", path.to_str().unwrap()]);
    assert!(
        item(&report, "file")["detail"]
            .as_str()
            .unwrap()
            .contains("/a on ")
    );
    item(&report, "O_DIRECT");
    item(&report, "udev, for cuFile");
    let report = json_of(&folder, &["check", folder.0.to_str().unwrap()]);
    item(&report, "folder");
    item(&report, "O_DIRECT");
    assert_eq!(folder.names(), ["a"], "the probe is gone");
    let report = json_of(&folder, &["check", "/proc/version"]);
    assert_eq!(item(&report, "O_DIRECT")["state"], "missing");
}

#[test]
fn check_as_text_groups_its_lines() {
    let folder = Folder::new();
    let text = text_of(&folder, &["check", "."]);
    for group in ["Devices", "GPUDirect Storage", "Kernel and limits", "File"] {
        assert!(
            text.lines().any(|line| line == group),
            "{group} is not in: {text}"
        );
    }
    let known = [
        "  ok      ",
        "  missing ",
        "  note    ",
        "          to do: ",
    ];
    for line in text.lines().filter(|line| line.starts_with(' ')) {
        assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
    }
}

#[test]
fn check_of_what_is_not_there_fails() {
    let folder = Folder::new();
    fails(
        &folder,
        1,
        &["check", "nothing"],
        &["nothing", "No such file"],
    );
    let fifo = folder.fifo("fifo");
    fails(&folder, 1, &["check", fifo.to_str().unwrap()], &["FIFO"]);
}

#[test]
fn explain_tells_path_facts_and_ways() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 300_000);
    let a = path.to_str().unwrap();
    let value = json_of(&folder, &["explain", a]);
    assert_eq!(
        value["path"], "host",
        "a file just written is in the page cache"
    );
    assert_eq!(value["facts"]["size"], format!("{} bytes", data.len()));
    assert_eq!(value["facts"]["device"], "host");
    let ways = value["ways"].as_array().unwrap();
    let cufile = ways.iter().find(|way| way["path"] == "cufile").unwrap();
    assert_eq!(cufile["usable"], false, "cuFile needs a CUDA device");
    assert!(!cufile["fix"].as_str().unwrap().is_empty());
    let text = text_of(&folder, &["explain", a]);
    assert!(
        text.starts_with("path: host\n") && text.contains("cufile: not usable: "),
        "{text}"
    );
}

#[test]
fn explain_refuses_what_has_no_bytes_at_offsets() {
    let folder = Folder::new();
    fails(
        &folder,
        1,
        &["explain", "missing"],
        &["missing", "No such file"],
    );
    fails(
        &folder,
        1,
        &["explain", folder.0.to_str().unwrap()],
        &["directory"],
    );
    let fifo = folder.fifo("fifo");
    fails(&folder, 1, &["explain", fifo.to_str().unwrap()], &["FIFO"]);
    fails(&folder, 1, &["explain", "/dev/null"], &["/dev/null"]);
    let value = json_of(&folder, &["explain", "/proc/version"]);
    assert_eq!(value["facts"]["file system"], "proc");
}
