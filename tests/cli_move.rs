//! `gds cp`, `gds read` and `gds demo`: bytes arrive, and nothing else changes.

#![cfg(feature = "cli")]

mod cli_support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use cli_support::{Folder, command, fails, gds, json_of, text_of};
use gds_rs::base::crc::crc32c;

const SIZES: [usize; 6] = [0, 1, 4095, 4096, 4097, 10_000_003];

fn hex(data: &[u8]) -> String {
    format!("{:08x}", crc32c(0, data))
}

#[test]
fn cp_is_identical_for_every_size_and_chunk() {
    let folder = Folder::new();
    for size in SIZES {
        let (path, data) = folder.file("a", size);
        for chunk in ["4K", "1M", "64M"] {
            if chunk == "4K" && size > 1 << 20 {
                continue;
            }
            let (a, b) = (path.to_str().unwrap(), folder.path("b"));
            let b = b.to_str().unwrap();
            let value = json_of(&folder, &["cp", a, b, "--crc", "--chunk", chunk]);
            assert_eq!(value["bytes"], size, "{chunk}");
            assert_eq!(value["crc32c"], hex(&data), "{size} {chunk}");
            assert!(fs::read(b).unwrap() == data, "{size} {chunk}");
            assert_eq!(folder.names(), ["a", "b"]);
        }
    }
}

#[test]
fn cp_in_odd_chunks_keeps_the_order_of_bytes() {
    let folder = Folder::new();
    let (_, data) = folder.file("a", 300_001);
    let text = text_of(&folder, &["cp", "a", "b", "--chunk", "12345", "--no-sync"]);
    assert!(
        text.contains("300001 bytes") && text.contains("GB/s"),
        "{text}"
    );
    assert!(fs::read(folder.path("b")).unwrap() == data);
}

#[test]
fn cp_replaces_a_file_only_when_it_is_complete() {
    let folder = Folder::new();
    let (_, data) = folder.file("a", 5000);
    fs::write(folder.path("b"), "old and longer than nothing").unwrap();
    fs::set_permissions(folder.path("b"), fs::Permissions::from_mode(0o640)).unwrap();
    fails(&folder, 1, &["cp", "missing", "b"], &["missing"]);
    fails(&folder, 1, &["cp", ".", "b"], &["directory"]);
    assert_eq!(
        fs::read(folder.path("b")).unwrap(),
        b"old and longer than nothing"
    );
    text_of(&folder, &["cp", "a", "b"]);
    assert!(fs::read(folder.path("b")).unwrap() == data);
    let mode = fs::metadata(folder.path("b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "the target keeps its mode");
    assert_eq!(folder.names(), ["a", "b"]);
}

#[test]
fn cp_asks_for_the_space_before_it_copies() {
    let folder = Folder::new();
    let (path, _) = folder.file("huge", 1);
    let size = 8u64 << 40;
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size)
        .unwrap();
    let free = std::process::Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(&folder.0)
        .output()
        .unwrap();
    let free = String::from_utf8(free.stdout).unwrap();
    let free: u64 = free.lines().last().unwrap().trim().parse().unwrap();
    if free >= size {
        println!("skipped: {free} bytes are free here, so no file is too large");
        return;
    }
    fails(
        &folder,
        1,
        &["cp", "huge", "b"],
        &["not enough space", "8796093022208 bytes"],
    );
    assert_eq!(folder.names(), ["huge"]);
}

#[test]
fn cp_gives_a_new_file_the_mode_of_its_source() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 10);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    text_of(&folder, &["cp", "a", "b"]);
    let mode = fs::metadata(folder.path("b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn cp_follows_links_and_goes_into_folders() {
    let folder = Folder::new();
    let (_, data) = folder.file("a", 5000);
    fs::create_dir(folder.path("inside")).unwrap();
    text_of(&folder, &["cp", "a", "inside"]);
    assert!(fs::read(folder.path("inside/a")).unwrap() == data);
    fs::write(folder.path("real"), "x").unwrap();
    symlink("real", folder.path("link")).unwrap();
    text_of(&folder, &["cp", "a", "link"]);
    assert!(fs::read(folder.path("real")).unwrap() == data);
    assert!(folder.path("link").is_symlink(), "the link stays");
    symlink("nowhere", folder.path("dangling")).unwrap();
    fails(&folder, 1, &["cp", "a", "dangling"], &["symbolic link"]);
}

#[test]
fn cp_onto_itself_or_onto_a_device_is_refused() {
    let folder = Folder::new();
    let (_, data) = folder.file("a", 5000);
    symlink("a", folder.path("link")).unwrap();
    fs::hard_link(folder.path("a"), folder.path("hard")).unwrap();
    for target in ["a", "./a", "link", "hard", "."] {
        fails(&folder, 2, &["cp", "a", target], &["same file"]);
    }
    let fifo = folder.fifo("fifo");
    fails(
        &folder,
        1,
        &["cp", "a", fifo.to_str().unwrap()],
        &["no regular file"],
    );
    fails(&folder, 1, &["cp", fifo.to_str().unwrap(), "b"], &["FIFO"]);
    fails(
        &folder,
        1,
        &["cp", "a", "no/such/folder/b"],
        &["No such file"],
    );
    assert!(fs::read(folder.path("a")).unwrap() == data);
    assert_eq!(folder.names(), ["a", "fifo", "hard", "link"]);
}

#[test]
fn files_without_a_size_are_read_to_their_end() {
    let folder = Folder::new();
    let data = fs::read("/proc/version").unwrap();
    text_of(&folder, &["cp", "/proc/version", "b"]);
    assert_eq!(fs::read(folder.path("b")).unwrap(), data);
    let value = json_of(&folder, &["read", "/proc/version", "--crc"]);
    assert_eq!(value["bytes"], data.len());
    assert_eq!(value["crc32c"], hex(&data));
}

#[test]
fn read_counts_and_checks_what_it_reads() {
    let folder = Folder::new();
    for size in SIZES {
        let (path, data) = folder.file("a", size);
        let value = json_of(
            &folder,
            &["read", path.to_str().unwrap(), "--crc", "--chunk", "1M"],
        );
        assert_eq!(value["bytes"], size);
        assert_eq!(value["crc32c"], hex(&data), "{size}");
        assert_eq!(value["device"], "host");
        let path = value["path"].as_str().unwrap();
        assert_eq!(path == "none", size == 0, "{size}: {path}");
    }
}

#[test]
fn read_takes_any_range_and_refuses_one_past_the_end() {
    let folder = Folder::new();
    let (_, data) = folder.file("a", 2_000_003);
    for (offset, size) in [(0, 1), (1, 4096), (4097, 1_500_000), (2_000_002, 1)] {
        let (from, count) = (offset.to_string(), size.to_string());
        let value = json_of(
            &folder,
            &[
                "read", "a", "--crc", "--chunk", "8K", "--offset", &from, "--size", &count,
            ],
        );
        assert_eq!(
            value["crc32c"],
            hex(&data[offset..offset + size]),
            "{offset} {size}"
        );
    }
    let value = json_of(&folder, &["read", "a", "--crc", "--offset", "2000003"]);
    assert_eq!(
        (value["bytes"].as_u64(), value["crc32c"].as_str()),
        (Some(0), Some("00000000"))
    );
    fails(
        &folder,
        2,
        &["read", "a", "--offset", "2000004"],
        &["2000003 bytes"],
    );
    fails(
        &folder,
        2,
        &["read", "a", "--offset", "3", "--size", "2M"],
        &["2000000 bytes are left"],
    );
    fails(
        &folder,
        2,
        &["read", "a", "--size", "16000000T"],
        &["passes the end"],
    );
}

#[test]
fn read_refuses_what_is_no_file() {
    let folder = Folder::new();
    fails(
        &folder,
        1,
        &["read", "missing"],
        &["missing", "No such file"],
    );
    fails(&folder, 1, &["read", "."], &["directory"]);
    let fifo = folder.fifo("fifo");
    fails(&folder, 1, &["read", fifo.to_str().unwrap()], &["FIFO"]);
    fails(&folder, 1, &["read", "/dev/zero"], &["/dev/zero"]);
    let line = fails(&folder, 1, &["read", "two\nlines"], &["No such file"]);
    assert!(line.contains("two lines"), "{line}");
}

#[test]
fn demo_verifies_both_runs() {
    let folder = Folder::new();
    for size in [1, 40_000_001] {
        let (path, data) = folder.file("a", size);
        let value = json_of(&folder, &["demo", path.to_str().unwrap()]);
        assert_eq!(value["verified"], true);
        assert_eq!(value["crc32c"], hex(&data));
        let runs = value["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for (run, name) in runs.iter().zip(["cold", "warm"]) {
            assert_eq!(run["name"], name);
            assert_eq!(run["bytes"], size);
            assert!(run["seconds"].as_f64().unwrap() > 0.0);
            assert!(run["gb_per_second"].as_f64().unwrap() > 0.0);
            assert!(["host", "host-direct", "bounce"].contains(&run["path"].as_str().unwrap()));
        }
        assert_eq!(folder.names(), ["a"], "no temporary file stays");
    }
}

#[test]
fn demo_finds_a_library_of_its_own() {
    let folder = Folder::new();
    let output = gds(&folder, &["demo"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains(".so") && text.contains("verified: all "),
        "{text}"
    );
    assert!(text.contains("why not cufile: "), "{text}");
    for run in ["\ncold: ", "\nwarm: "] {
        let path = text.split(run).nth(1).and_then(|rest| rest.lines().nth(1));
        assert!(path.is_some_and(|p| p.starts_with("  path ")), "{text}");
    }
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("cold: "),
        "progress is shown"
    );
}

#[test]
fn demo_refuses_what_it_cannot_move() {
    let folder = Folder::new();
    folder.file("empty", 0);
    fails(&folder, 1, &["demo", "empty"], &["no bytes"]);
    fails(&folder, 1, &["demo", "/proc/version"], &["no bytes"]);
    fails(&folder, 1, &["demo", "missing"], &["No such file"]);
    let fifo = folder.fifo("fifo");
    fails(&folder, 1, &["demo", fifo.to_str().unwrap()], &["FIFO"]);
    folder.file("a", 10);
    let output = command(&folder)
        .args(["demo", "a"])
        .env("TMPDIR", folder.path("nowhere"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("TMPDIR"));
}
