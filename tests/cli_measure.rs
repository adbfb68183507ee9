//! `gds bench` and `gds validate`: numbers are measured, files are left as they were.

#![cfg(feature = "cli")]

mod cli_support;

use std::fs;

use cli_support::{Folder, fails, gds, json_of, text_of};
use serde_json::Value;

fn cases(value: &Value) -> &Vec<Value> {
    value["cases"].as_array().expect("a list")
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

#[test]
fn every_kind_of_work_gives_numbers() {
    let folder = Folder::new();
    for (pattern, op, cache, memory) in [
        ("seq", "read", "cold", "device"),
        ("rand", "read", "warm", "host"),
        ("seq", "write", "cold", "host"),
        ("rand", "write", "warm", "device"),
    ] {
        let value = json_of(
            &folder,
            &[
                "bench",
                "io",
                "--size",
                "4M",
                "--pattern",
                pattern,
                "--op",
                op,
                "--cache",
                cache,
                "--memory",
                memory,
                "--block",
                "64K",
                "--depth",
                "3",
                "--threads",
                "2",
            ],
        );
        let case = &cases(&value)[0];
        assert_eq!(case["work"], format!("{pattern} {op}"));
        assert_eq!(
            (&case["cache"], &case["memory"]),
            (&cache.into(), &memory.into())
        );
        assert_eq!(case["bytes"], 4 << 20, "one pass visits each block once");
        assert!(
            positive(&case["gb_per_second"]) && positive(&case["iops"]),
            "{case}"
        );
        assert_eq!(case["gb_per_second_runs"].as_array().unwrap().len(), 3);
        let number = |name: &str| case[name].as_f64().unwrap();
        assert!(number("gb_per_second_min") <= number("gb_per_second"));
        assert!(number("gb_per_second") <= number("gb_per_second_max"));
        let latency = |name: &str| case["latency_ns"][name].as_u64().unwrap();
        assert!(0 < latency("p50") && latency("p50") <= latency("p99"));
        assert!(latency("p99") <= latency("p99.9") && latency("p99.9") <= latency("max"));
        assert_ne!(case["path"], "none");
    }
    assert!(folder.names().is_empty(), "the file that was made is gone");
}

#[test]
fn batches_count_every_transfer() {
    let folder = Folder::new();
    let value = json_of(
        &folder,
        &[
            "bench",
            "io",
            "--size",
            "2M",
            "--pattern",
            "rand",
            "--batch",
            "100",
            "--depth",
            "2",
            "--runs",
            "1",
        ],
    );
    let case = &cases(&value)[0];
    // 512 blocks of 4 KiB are five full batches and a part of one.
    assert_eq!(
        (&case["block"], &case["bytes"]),
        (&4096.into(), &(2 << 20).into())
    );
    let operations = case["iops"].as_f64().unwrap() * case["seconds"].as_f64().unwrap();
    assert!((operations - 512.0).abs() < 0.5, "{operations}");
}

#[test]
fn a_run_by_the_clock_goes_round_the_file() {
    let folder = Folder::new();
    let value = json_of(
        &folder,
        &[
            "bench",
            "io",
            "--size",
            "64K",
            "--block",
            "4K",
            "--seconds",
            "0.2",
            "--runs",
            "1",
        ],
    );
    let case = &cases(&value)[0];
    assert!(case["bytes"].as_u64().unwrap() > 64 << 10, "{case}");
    assert!(case["seconds"].as_f64().unwrap() >= 0.2);
}

#[test]
fn sweeps_measure_every_combination_and_draw_it() {
    let folder = Folder::new();
    let arguments = [
        "bench",
        "io",
        "--size",
        "1M",
        "--block",
        "4K..64K",
        "--depth",
        "1,2",
        "--path",
        "auto,buffered",
        "--runs",
        "1",
        "--plot",
        "plot.svg",
        "--limit",
    ];
    let text = text_of(&folder, &arguments);
    let rows = text
        .lines()
        .filter(|line| line.starts_with("seq read "))
        .count();
    assert_eq!(rows, 5 * 2 * 2, "{text}");
    assert!(text.contains("limit pread"), "{text}");
    let svg = fs::read_to_string(folder.path("plot.svg")).unwrap();
    well_formed(&svg);
    for word in [
        "auto, depth 1",
        "auto, depth 2",
        "buffered, depth 1",
        "limit: pread",
        "64K",
    ] {
        assert!(svg.contains(word), "{word} is not in the plot");
    }
    assert_eq!(folder.names(), ["plot.svg"]);
}

/// Whether tags nest, attributes are quoted and characters are escaped, as XML demands.
fn well_formed(text: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut roots = 0;
    let mut rest = text.trim_end();
    while let Some(start) = rest.find('<') {
        let before = &rest[..start];
        assert!(!before.contains('>'), "a stray > in {before}");
        for part in before.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;"];
            assert!(
                known.iter().any(|k| part.starts_with(k)),
                "an unknown entity: &{part}"
            );
        }
        let end = start + rest[start..].find('>').expect("every tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "tags nest");
            continue;
        }
        let body = tag.strip_suffix('/').unwrap_or(tag);
        assert_eq!(body.matches('"').count() % 2, 0, "quotes pair: {body}");
        for (index, piece) in body.split('"').enumerate() {
            let outside = index % 2 == 0;
            assert_eq!(
                piece.contains('='),
                outside && piece.ends_with('='),
                "{body}"
            );
        }
        roots += usize::from(open.is_empty());
        if !tag.ends_with('/') {
            let name = body.split_whitespace().next().expect("a tag has a name");
            open.push(name.to_owned());
        }
    }
    assert!(
        open.is_empty() && rest.is_empty() && roots == 1,
        "one whole root element"
    );
}

#[test]
fn the_check_of_plots_finds_broken_ones() {
    well_formed("<a x=\"1\"><b/>t &amp; u</a>");
    for broken in [
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a>&</a>",
        "<a x=1/>",
        "<a x=\"1/>",
        "<a/>x",
    ] {
        assert!(
            std::panic::catch_unwind(|| well_formed(broken)).is_err(),
            "{broken}"
        );
    }
}

#[test]
fn limits_are_measured_in_the_same_run() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 3_000_000);
    let a = path.to_str().unwrap();
    let value = json_of(
        &folder,
        &[
            "bench", "io", "--file", a, "--limit", "--block", "1M", "--runs", "2",
        ],
    );
    let limits = cases(&value)[0]["limits"].as_array().unwrap();
    assert!(limits.len() >= 2, "one thread and several: {limits:?}");
    for limit in limits {
        assert!(
            positive(&limit["gb_per_second"]) && positive(&limit["iops"]),
            "{limit}"
        );
    }
    assert!(
        fs::read(path).unwrap() == data,
        "a file that is read stays as it was"
    );
}

#[test]
fn a_file_that_exists_is_not_overwritten_by_mistake() {
    let folder = Folder::new();
    let (path, data) = folder.file("a", 1 << 20);
    let a = path.to_str().unwrap();
    fails(
        &folder,
        2,
        &["bench", "io", "--file", a, "--op", "write"],
        &["--overwrite"],
    );
    assert!(fs::read(&path).unwrap() == data);
    let write = [
        "bench",
        "io",
        "--file",
        a,
        "--op",
        "write",
        "--overwrite",
        "--block",
        "64K",
        "--runs",
        "1",
    ];
    text_of(&folder, &write);
    let after = fs::read(&path).unwrap();
    assert!(after.len() == data.len() && after != data);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 1 << 20);
    let a = path.to_str().unwrap();
    folder.file("empty", 0);
    let bench = |more: &[&str]| {
        let mut all = vec!["bench", "io", "--runs", "1"];
        all.extend(more);
        gds(&folder, &all)
    };
    for (more, word) in [
        (vec!["--file", a, "--block", "2M"], "does not fit"),
        (vec!["--file", a, "--size", "2M"], "asked for"),
        (vec!["--file", "empty"], "larger file"),
        (vec!["--file", "/proc/version"], "larger file"),
        (
            vec!["--file", a, "--batch", "1048576", "--depth", "4096"],
            "of memory",
        ),
    ] {
        let output = bench(&more);
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {line}");
        assert!(line.contains(word), "{more:?}: {line}");
    }
    let fifo = folder.fifo("fifo");
    for file in [".", fifo.to_str().unwrap()] {
        assert_eq!(bench(&["--file", file]).status.code(), Some(1), "{file}");
    }
}

#[test]
fn a_refused_path_is_said_and_never_measured_under_another_name() {
    let folder = Folder::new();
    let (path, _) = folder.file("a", 1 << 20);
    let a = path.to_str().unwrap();
    let both = [
        "bench",
        "io",
        "--file",
        a,
        "--block",
        "64K",
        "--path",
        "cufile,buffered",
    ];
    let value = json_of(&folder, &both);
    assert!(
        cases(&value)[0]["refused"]
            .as_str()
            .unwrap()
            .contains("cuFile")
    );
    assert!(positive(&cases(&value)[1]["gb_per_second"]));
    let output = gds(
        &folder,
        &[
            "bench", "io", "--file", a, "--block", "64K", "--path", "cufile",
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .starts_with("gds: ")
    );
}

#[test]
fn a_stream_is_measured_beside_the_bulk_read() {
    let folder = Folder::new();
    let (path, data) = folder.file("s", 3_000_001);
    let path = path.to_str().unwrap();
    for cache in ["warm", "cold"] {
        let arguments = [
            "bench",
            "stream",
            path,
            "--chunk",
            "256K",
            "--buffers",
            "3",
            "--cache",
            cache,
            "--runs",
            "2",
        ];
        let value = json_of(&folder, &arguments);
        assert_eq!(
            (&value["chunks"], &value["buffers"]),
            (&12.into(), &3.into())
        );
        assert_eq!(value["crc32c"], gds_rs::base::crc::crc32c(0, &data));
        let readings = value["readings"].as_array().unwrap();
        assert_eq!(readings.len(), 3);
        for reading in readings {
            assert!(positive(&reading["gb_per_second"]) && positive(&reading["of_bulk"]));
            assert_eq!(reading["runs"].as_array().unwrap().len(), 2);
        }
        assert!(positive(&value["limits"][0]["gb_per_second"]));
    }
    let text = text_of(&folder, &["bench", "stream", path, "--runs", "1"]);
    assert!(text.contains("1 chunks of 64M in 2 buffers"), "{text}");
    assert!(
        text.contains("of the bulk read") && text.contains("limit: pread"),
        "{text}"
    );
    fails(
        &folder,
        2,
        &["bench", "stream", path, "--buffers", "1"],
        &["--buffers"],
    );
    fails(&folder, 1, &["bench", "stream", "nowhere"], &["nowhere"]);
}

#[test]
fn a_cache_is_measured_beside_what_bounds_it() {
    let folder = Folder::new();
    let (path, data) = folder.file("c", 2_000_001);
    let file = path.to_str().unwrap();
    let all = |policy: &'static str| {
        let mut words = vec!["bench", "cache", file, "--policy", policy];
        words.extend(["--device-bytes", "1M", "--host-bytes", "256K"]);
        words.extend(["--threads", "2", "--runs", "1", "--seconds", "0.1"]);
        words
    };
    for policy in ["dueling", "clock", "lru"] {
        let value = json_of(&folder, &all(policy));
        assert_eq!(value["policy"], policy);
        assert_eq!(value["page_bytes"], 4096);
        let rows = |name: &str| value[name].as_array().expect(name).clone();
        let threads: Vec<Value> = rows("hits").iter().map(|h| h["threads"].clone()).collect();
        assert_eq!(threads, [1, 2]);
        for hit in rows("hits") {
            assert!(positive(&hit["ns"]) && positive(&hit["plain_ns"]), "{hit}");
            let resident = hit["resident"].as_u64().unwrap();
            assert!((1..=256).contains(&resident), "{hit}");
            assert!(hit["single_ns"]["p50"].as_u64() <= hit["single_ns"]["p99"].as_u64());
        }
        for (miss, cache) in rows("misses").iter().zip(["warm", "cold"]) {
            assert_eq!(miss["cache"], cache);
            assert!(positive(&miss["pages_per_second"]), "{miss}");
            assert!(positive(&miss["limits"][0]["pages_per_second"]), "{miss}");
        }
        assert_eq!(rows("misses").len(), 2);
        let traces = rows("traces");
        assert_eq!(traces.len(), 4);
        for trace in &traces {
            let (rate, bound) = (trace["hit_rate"].as_f64(), trace["bound"].as_f64());
            assert!(rate <= bound && bound < Some(1.0), "{trace}");
        }
        // The set fits: what misses is the first access and the noise.
        let set = traces.iter().find(|t| t["name"] == "working set").unwrap();
        assert!(set["hit_rate"].as_f64() > Some(0.9), "{set}");
        // What a cache cannot hold and sees in a circle is what plain recency loses.
        let circle = traces
            .iter()
            .find(|t| t["name"] == "loop of 110 %")
            .unwrap();
        match policy {
            "dueling" => assert!(circle["hit_rate"].as_f64() > Some(0.2), "{circle}"),
            "lru" => assert!(circle["hit_rate"].as_f64() < Some(0.2), "{circle}"),
            _ => {}
        }
    }
    let text = text_of(&folder, &all("dueling"));
    for words in [
        "hit and release, x2",
        "misses, cold file",
        "hits of at most",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(fs::read(path).unwrap() == data, "it is only read");
}

#[test]
fn a_cache_that_makes_no_sense_is_refused() {
    let folder = Folder::new();
    let (path, _) = folder.file("c", 1 << 20);
    let file = path.to_str().unwrap();
    for (more, word) in [
        (["--policy", "fifo"], "dueling, clock or lru"),
        (["--page", "5000"], "page_size"),
        (["--page", "4M"], "page_size"),
        (["--page", "8G"], "too large"),
        (["--device-bytes", "1K"], "device_bytes"),
        (["--threads", "0"], "--threads"),
    ] {
        let mut words = vec!["bench", "cache", file];
        words.extend(more);
        fails(&folder, 2, &words, &[word]);
    }
    fails(&folder, 1, &["bench", "cache", "nowhere"], &["nowhere"]);
    folder.file("empty", 0);
    fails(&folder, 2, &["bench", "cache", "empty"], &["larger file"]);
}

#[test]
fn validate_judges_every_target_by_what_it_measured() {
    let folder = Folder::new();
    let value = json_of(
        &folder,
        &[
            "validate",
            "--dir",
            ".",
            "--size",
            "8M",
            "--runs",
            "1",
            "--seconds",
            "0.1",
        ],
    );
    let targets = value["targets"].as_array().unwrap();
    let columns = usize::from(cfg!(feature = "arrow")) + usize::from(cfg!(feature = "parquet"));
    assert_eq!(targets.len(), 34 + columns);
    for (name, unit) in [
        ("cache hit, mean", "ns"),
        ("cache hit, 8 threads, p99", "ns"),
        ("cache misses a second, 4 KiB", "pages/s"),
        ("array pages a second, 4 KiB", "pages/s"),
        ("cache hits, working set", "percent"),
        ("ELF sections, page cache", "GB/s"),
        ("log commits a second", "per second"),
        ("durable put, p99", "us"),
        ("bytes written, large values", "bytes per byte"),
    ] {
        let row = targets.iter().find(|target| target["name"] == name);
        assert_eq!(row.expect(name)["unit"], unit, "{name}");
    }
    for target in targets {
        assert!(
            positive(&target["target"]) && positive(&target["measured"]),
            "{target}"
        );
        let number = |name: &str| target[name].as_f64().unwrap();
        let met = match target["unit"].as_str().unwrap() {
            "us" | "ns" | "bytes per byte" => number("measured") <= number("target"),
            _ => number("measured") >= number("target"),
        };
        assert_eq!(target["met"], met, "{target}");
        assert_eq!(target["verdict"] == "met", met, "{target}");
        if target["unit"] != "times" {
            assert!(positive(&target["limit"]), "{target}");
        }
    }
    assert!(folder.names().is_empty(), "the temporary file is gone");
}

#[test]
fn validate_of_a_folder_that_is_not_there_fails() {
    let folder = Folder::new();
    fails(
        &folder,
        1,
        &["-q", "validate", "--dir", "nowhere"],
        &["nowhere"],
    );
    let (path, _) = folder.file("a", 10);
    fails(
        &folder,
        1,
        &["-q", "validate", "--dir", path.to_str().unwrap()],
        &["directory"],
    );
}
