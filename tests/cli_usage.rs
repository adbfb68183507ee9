//! The command line of `gds`: exit codes, help, variables, and what it does when nobody listens.

#![cfg(feature = "cli")]

mod cli_support;

use std::fs::File;
use std::process::Stdio;

use cli_support::{Folder, command, fails, gds, text_of};

#[test]
fn help_and_version_are_no_failures() {
    let folder = Folder::new();
    let version = text_of(&folder, &["--version"]);
    assert_eq!(version.trim(), concat!("gds ", env!("CARGO_PKG_VERSION")));
    let help = text_of(&folder, &["--help"]);
    for word in [
        "check", "explain", "demo", "cp", "read", "bench", "validate", "--device",
    ] {
        assert!(help.contains(word), "{word} is not in: {help}");
    }
    for (name, holds) in gds_rs::config::VARIABLES {
        assert!(
            help.contains(name) && help.contains(holds),
            "{name} is not in the help"
        );
    }
    assert!(
        help.contains(gds_rs::io::cufile::LIBRARY_VARIABLE),
        "{help}"
    );
    for sub in ["check", "explain", "demo", "cp", "read", "validate"] {
        assert!(
            text_of(&folder, &[sub, "--help"]).contains("Usage: gds "),
            "{sub}"
        );
    }
    assert!(text_of(&folder, &["bench", "io", "--help"]).contains("--pattern"));
}

#[test]
fn a_wrong_command_line_is_code_2_and_does_nothing() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 4096);
    let a = path.to_str().unwrap();
    fails(&folder, 2, &[], &["Usage"]);
    fails(&folder, 2, &["fly"], &["fly"]);
    fails(&folder, 2, &["read"], &["<FILE>"]);
    fails(&folder, 2, &["read", a, "--size", "0"], &["--size"]);
    fails(&folder, 2, &["read", a, "--size", "-1"], &["-1"]);
    fails(
        &folder,
        2,
        &["read", a, "--size", "1.5M"],
        &["K, M, G or T"],
    );
    fails(
        &folder,
        2,
        &["read", a, "--size", "99999999999999T"],
        &["--size"],
    );
    fails(&folder, 2, &["read", a, "--chunk", "17"], &["4K to 16G"]);
    fails(&folder, 2, &["read", a, "--offset", "x"], &["--offset"]);
    fails(&folder, 2, &["bench"], &["io"]);
    fails(
        &folder,
        2,
        &["bench", "io", "--block", "8..4"],
        &["backwards"],
    );
    fails(
        &folder,
        2,
        &["bench", "io", "--path", "sideways"],
        &["cufile"],
    );
    fails(&folder, 2, &["bench", "io", "--runs", "0"], &["--runs"]);
    fails(
        &folder,
        2,
        &["bench", "io", "--seconds", "nan"],
        &["seconds"],
    );
    fails(&folder, 2, &["validate", "--size", "4K"], &["--size", "1M"]);
    assert_eq!(folder.names(), ["a"]);
}

#[test]
fn a_bad_device_is_refused_wherever_it_is_named() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 10);
    let a = path.to_str().unwrap();
    let run = |device: &str, variable: Option<&str>| {
        let mut gds = command(&folder);
        gds.args(["read", a]);
        if !device.is_empty() {
            gds = std::process::Command::new(env!("CARGO_BIN_EXE_gds"));
            gds.args(["read", a, "--device", device])
                .current_dir(&folder.0);
        }
        if let Some(value) = variable {
            gds.env("GDS_DEVICE", value);
        }
        let output = gds.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for device in ["gpu", "cuda:", "cuda:-1", "cuda:70000", "-5", "host:1"] {
        let (code, line) = run(device, None);
        assert_eq!(code, Some(2), "{device}: {line}");
    }
    // More devices than any machine has: not usage, but there is none.
    let (code, line) = run("cuda:999", None);
    assert_eq!(code, Some(1), "{line}");
    assert!(line.starts_with("gds: "), "{line}");
    let (code, line) = run("", Some("gpu"));
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("GDS_DEVICE=gpu"), "{line}");
}

#[test]
fn variables_set_fields_and_wrong_ones_are_usage() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 100_000);
    let run = |name: &str, value: &str| {
        let mut gds = command(&folder);
        let output = gds
            .args(["explain", "--json"])
            .arg(&path)
            .env(name, value)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text, error)
    };
    let (code, text, _) = run("GDS_IO_THREADS", "7");
    assert_eq!(code, Some(0));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["facts"]["transfer threads"], "7");
    for (name, value) in [("GDS_IO_THREADS", "many"), ("GDS_BUFFER_SIZE", "3")] {
        let (code, text, error) = run(name, value);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    // The command line wins over the environment.
    let output = command(&folder)
        .args(["check"])
        .env("GDS_DEVICE", "cuda:9")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let folder = Folder::new();
    let mut child = command(&folder)
        .args(["check", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_full_disk_under_standard_output_is_a_failure() {
    let folder = Folder::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(&folder).arg("check").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("standard output"), "{line}");
}

#[test]
fn quiet_leaves_standard_error_empty() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 9 << 20);
    let a = path.to_str().unwrap();
    let loud = gds(&folder, &["read", a]);
    assert!(
        String::from_utf8(loud.stderr)
            .unwrap()
            .contains("of 9.4 MB")
    );
    let quiet = gds(&folder, &["--quiet", "read", a]);
    assert_eq!(quiet.status.code(), Some(0));
    assert!(quiet.stderr.is_empty());
}
