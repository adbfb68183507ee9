//! `gds kv` and `gds selftest`: values go in and come out, keys are listed, damage is told, and
//! every refusal is one line with its exit code.

#![cfg(feature = "cli")]

mod cli_support;

use std::io::Write;
use std::process::Stdio;

use cli_support::{Folder, command, fails, gds, json_of, text_of};

/// Geometry of a small store.
const SMALL: [&str; 4] = ["--wal", "1M", "--segment", "1M"];

fn made(folder: &Folder) {
    let mut arguments = vec!["kv", "create", "s"];
    arguments.extend(SMALL);
    let text = text_of(folder, &arguments);
    assert!(
        text.contains("a store of") && text.contains("which grows"),
        "{text}"
    );
}

/// Puts what standard input gives.
fn put_bytes(folder: &Folder, key: &str, value: &[u8]) {
    let mut child = command(folder)
        .args(["-q", "kv", "put", "s", key, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(value).expect("it reads");
    drop(input);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn values_of_all_sizes_go_in_and_come_out() {
    let folder = Folder::new();
    made(&folder);
    for (key, size) in [
        ("empty", 0),
        ("small", 100),
        ("middle", 5000),
        ("large", 9_000_001),
    ] {
        let (path, data) = folder.file("value", size);
        let value = json_of(
            &folder,
            &["-q", "kv", "put", "s", key, path.to_str().unwrap()],
        );
        assert_eq!(value["bytes"], size, "{value}");
        let output = gds(&folder, &["kv", "get", "s", key]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout == data, "{key}");
        let value = json_of(&folder, &["-q", "kv", "get", "s", key, "-o", "out"]);
        assert_eq!(
            (&value["bytes"], &value["value_bytes"]),
            (&size.into(), &size.into())
        );
        assert!(std::fs::read(folder.path("out")).unwrap() == data, "{key}");
    }
    let (_, data) = folder.file("value", 9_000_001);
    let output = gds(
        &folder,
        &[
            "kv", "get", "s", "large", "--offset", "4100001", "--size", "4500000",
        ],
    );
    assert!(output.stdout == data[4_100_001..8_600_001]);
    // From standard input, whose length nobody knows.
    put_bytes(&folder, "stream", &data);
    assert!(gds(&folder, &["kv", "get", "s", "stream"]).stdout == data);
    let report = json_of(&folder, &["kv", "verify", "s"]);
    assert_eq!(
        (&report["keys"], &report["problems"]),
        (&5.into(), &0.into())
    );
    assert_eq!(folder.names(), ["out", "s", "value"]);
}

#[test]
fn keys_are_listed_in_order_and_deleted() {
    let folder = Folder::new();
    made(&folder);
    for key in ["b/2", "a", "b/1", "c"] {
        put_bytes(&folder, key, key.as_bytes());
    }
    assert_eq!(
        text_of(&folder, &["kv", "scan", "s"]),
        "a\t1\nb/1\t3\nb/2\t3\nc\t1\n"
    );
    let text = text_of(&folder, &["kv", "scan", "s", "--prefix", "b/", "--values"]);
    assert_eq!(text, "b/1\t3\tb/1\nb/2\t3\tb/2\n");
    let range = [
        "kv", "scan", "s", "--from", "b", "--to", "c", "--limit", "1",
    ];
    assert_eq!(text_of(&folder, &range), "b/1\t3\n");
    let value = json_of(
        &folder,
        &["kv", "scan", "s", "--values", "--value-max", "2"],
    );
    assert_eq!(value["keys"], 4);
    assert_eq!(value["items"][1]["key"], "b/1");
    assert_eq!(value["items"][1]["value"], "b/");
    assert_eq!(value["items"][1]["value_cut"], true);
    let text = text_of(
        &folder,
        &["kv", "scan", "s", "--hex", "--from", "62", "--limit", "1"],
    );
    assert_eq!(text, "622f31\t3\n");
    assert_eq!(
        json_of(&folder, &["kv", "del", "s", "a", "c"])["deleted"],
        2
    );
    fails(
        &folder,
        1,
        &["kv", "del", "s", "b/1", "a"],
        &["1 deleted, 1 not there", "'a'"],
    );
    text_of(&folder, &["kv", "del", "-f", "s", "a"]);
    assert_eq!(text_of(&folder, &["kv", "scan", "s"]), "b/2\t3\n");
    let empty = json_of(&folder, &["kv", "scan", "s", "--from", "x"]);
    assert_eq!(empty["items"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_store_tells_about_itself_and_is_tidied_up() {
    let folder = Folder::new();
    made(&folder);
    let (path, _) = folder.file("value", 3_000_000);
    for key in ["a", "b", "c"] {
        text_of(
            &folder,
            &["-q", "kv", "put", "s", key, path.to_str().unwrap()],
        );
    }
    let stats = json_of(&folder, &["kv", "stats", "s"]);
    assert_eq!(
        (&stats["keys"], &stats["poisoned"]),
        (&3.into(), &false.into())
    );
    assert!(
        stats["live_bytes"].as_u64().unwrap() >= 9_000_000,
        "{stats}"
    );
    assert!(stats["latency_ns"]["read"]["p99"].as_u64().is_some());
    assert!(text_of(&folder, &["kv", "stats", "s"]).contains("keys      3,"));
    text_of(&folder, &["kv", "del", "s", "a", "b"]);
    assert_eq!(json_of(&folder, &["kv", "checkpoint", "s"])["keys"], 1);
    let compacted = json_of(&folder, &["kv", "compact", "s"]);
    assert!(
        compacted["live_bytes"].as_u64().unwrap() < 4_000_000,
        "{compacted}"
    );
    text_of(&folder, &["kv", "destroy", "s"]);
    assert_eq!(folder.names(), ["value"]);
}

#[test]
fn damage_is_told_and_no_wrong_byte_comes_out() {
    let folder = Folder::new();
    made(&folder);
    let (path, data) = folder.file("value", 100_000);
    text_of(
        &folder,
        &["-q", "kv", "put", "s", "good", path.to_str().unwrap()],
    );
    let marked: Vec<u8> = (0..100_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    put_bytes(&folder, "bad", &marked);
    let mut image = std::fs::read(folder.path("s")).unwrap();
    let at = image.windows(64).position(|w| w == &marked[..64]).unwrap();
    image[at + 50_000] ^= 1;
    std::fs::write(folder.path("s"), image).unwrap();
    let output = gds(&folder, &["kv", "verify", "s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("'bad'"));
    fails(
        &folder,
        1,
        &["-q", "kv", "get", "s", "bad", "-o", "out"],
        &["bad"],
    );
    assert!(!folder.path("out").exists());
    assert!(gds(&folder, &["kv", "get", "s", "good"]).stdout == data);
    let report = json_of(&folder, &["kv", "repair", "s"]);
    assert_eq!(
        (&report["was_clean"], &report["lost"]),
        (&false.into(), &1.into()),
        "{report}"
    );
    assert_eq!(report["first_lost"][0]["key"], "bad");
    assert_eq!(json_of(&folder, &["kv", "verify", "s"])["problems"], 0);
    assert!(gds(&folder, &["kv", "get", "s", "good"]).stdout == data);
    assert!(text_of(&folder, &["kv", "repair", "s"]).contains("nothing to repair"));
}

#[test]
fn refusals_are_one_line_with_a_code() {
    let folder = Folder::new();
    fails(&folder, 1, &["kv", "get", "s", "k"], &["s"]);
    fails(&folder, 1, &["kv", "put", "s", "k", "/dev/null"], &["s"]);
    made(&folder);
    fails(&folder, 1, &["kv", "get", "s", "k"], &["no key 'k'"]);
    fails(&folder, 1, &["kv", "create", "s"], &["already"]);
    fails(&folder, 1, &["kv", "put", "s", "k", "absent"], &["absent"]);
    fails(&folder, 1, &["kv", "put", "s", "", "/dev/null"], &["key"]);
    fails(&folder, 2, &["kv", "put", "s", "k", "/"], &["folder"]);
    fails(
        &folder,
        2,
        &["kv", "get", "--hex", "s", "xy"],
        &["hexadecimal"],
    );
    fails(
        &folder,
        2,
        &["kv", "--json", "get", "s", "k"],
        &["--output"],
    );
    fails(
        &folder,
        2,
        &["kv", "create", "t", "--segment", "3M"],
        &["segment_bytes", "power of two"],
    );
    fails(
        &folder,
        2,
        &["kv", "scan", "s", "--from", "b", "--to", "a"],
        &["--from"],
    );
    // The folder of the tests is on no persistent memory.
    fails(
        &folder,
        1,
        &["kv", "create", "t", "--level", "dax"],
        &["MAP_SYNC", "-o dax"],
    );
    assert!(!folder.path("t").exists());
    fails(&folder, 1, &["kv", "create", "."], &["."]);
    fails(&folder, 1, &["kv", "create", "/dev/null"], &["/dev/null"]);
    put_bytes(&folder, "k", b"abc");
    fails(
        &folder,
        2,
        &["kv", "get", "s", "k", "--offset", "4"],
        &["past the end"],
    );
    fails(
        &folder,
        2,
        &["kv", "get", "s", "k", "--size", "4"],
        &["passes the end"],
    );
    let (path, _) = folder.file("plain", 100_000);
    for verb in [
        "stats",
        "verify",
        "repair",
        "destroy",
        "compact",
        "checkpoint",
    ] {
        fails(
            &folder,
            1,
            &["kv", verb, path.to_str().unwrap()],
            &["plain"],
        );
    }
    assert_eq!(folder.names(), ["plain", "s"]);
    let mut put = vec!["-q", "kv", "put", "--create", "u", "k", "plain"];
    put.extend(SMALL);
    text_of(&folder, &put);
    text_of(&folder, &put);
    assert_eq!(
        json_of(&folder, &["kv", "stats", "u"])["wal_ring_bytes"],
        1 << 20
    );
}

#[test]
fn a_bench_measures_beside_limits_and_leaves_nothing() {
    let folder = Folder::new();
    let mut arguments = vec![
        "-q",
        "kv",
        "bench",
        "b",
        "--seconds",
        "0.05",
        "--keys",
        "300",
    ];
    arguments.extend(["--large-total", "4M", "--threads", "1,3"]);
    arguments.extend(SMALL);
    let value = json_of(&folder, &arguments);
    let figures = value["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 10, "{value:#}");
    for figure in figures {
        assert!(figure["per_second"].as_f64().unwrap() > 0.0, "{figure}");
        let scans = figure["name"].as_str().unwrap().contains("scan");
        assert_eq!(figure["limit"].as_f64().is_some(), !scans, "{figure}");
    }
    let large = figures
        .iter()
        .find(|f| f["write_amplification"].is_number())
        .unwrap();
    assert!(
        large["write_amplification"].as_f64().unwrap() >= 1.0,
        "{large}"
    );
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    made(&folder);
    fails(&folder, 1, &["kv", "bench", "s"], &["already"]);
    assert_eq!(folder.names(), ["s"], "a store that exists is left alone");
}

#[test]
fn the_crash_check_says_what_it_looked_at() {
    let folder = Folder::new();
    let value = json_of(
        &folder,
        &["-q", "selftest", "--crash-images", "60", "--seed", "7"],
    );
    assert!(value["images"].as_u64().unwrap() >= 60, "{value}");
    assert_eq!(
        (&value["seed"], &value["failure"]),
        (&7.into(), &serde_json::Value::Null)
    );
    let text = text_of(&folder, &["-q", "selftest", "--crash-images", "5"]);
    assert!(
        text.starts_with("seed ") && text.contains("crash images of 1 workloads"),
        "{text}"
    );
    fails(&folder, 2, &["selftest", "--crash-images", "0"], &["0"]);
    fails(&folder, 2, &["selftest"], &["--crash-images"]);
}
