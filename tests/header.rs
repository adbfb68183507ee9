//! `include/gds_rs.h` is what src/ffi says. `GDS_BLESS=1 cargo test --test header` rewrites it.
//!
//! cbindgen orders by kind, so it runs once per section; the template puts the sections in the
//! order in which a user meets them.

mod abi_common;

use std::path::Path;

use abi_common::{declared_functions, root};

/// Sections of the template and the sources that make them, types first.
const SECTIONS: &[(&str, &[&str])] = &[
    ("status", &["status.rs"]),
    ("version", &["version.rs"]),
    ("report", &["types/report.rs", "error.rs", "log.rs"]),
    ("config", &["types/config.rs", "config.rs"]),
    ("device", &["types/device.rs", "device.rs"]),
    ("context", &["types/context.rs", "context.rs"]),
    ("file", &["types/file.rs", "file.rs"]),
    ("buffer", &["types/buffer.rs", "buffer.rs"]),
    ("transfer", &["types/transfer.rs", "transfer.rs"]),
    ("ticket", &["ticket.rs"]),
    ("batch", &["types/batch.rs", "batch.rs"]),
    ("crc", &["crc.rs"]),
    ("cache", &["types/cache.rs", "cache.rs"]),
    ("array", &["types/array.rs", "array.rs"]),
    ("reader", &["types/reader.rs", "reader.rs"]),
    ("writer", &["types/writer.rs", "writer.rs"]),
    ("pipeline", &["types/pipeline.rs", "pipeline.rs"]),
    ("prefetch", &["types/prefetch.rs", "prefetch.rs"]),
    ("region", &["types/region.rs", "region.rs"]),
    ("format", &["types/format.rs", "format.rs"]),
    ("tensor", &["types/tensor.rs", "tensor.rs"]),
    (
        "elf",
        &["types/elf.rs", "elf.rs", "elf_tables.rs", "elf_plan.rs"],
    ),
    ("dlpack", &["types/dlpack.rs", "dlpack.rs"]),
    (
        "kv",
        &[
            "types/kv.rs",
            "kv.rs",
            "kv_commit.rs",
            "kv_writer.rs",
            "kv_scan.rs",
        ],
    ),
    ("kv_report", &["types/kv_stats.rs", "kv_report.rs"]),
    ("kv_device", &["types/kv_device.rs", "kv_device.rs"]),
    ("columns", &["types/columns.rs", "columns.rs"]),
    ("arrow", &["types/arrow.rs", "arrow.rs"]),
    ("parquet", &["types/parquet.rs", "parquet.rs"]),
    ("explain", &["explain.rs"]),
];

/// The structs of the Arrow C interfaces.
const ARROW_STRUCTS: &[&str] = &[
    "ArrowSchema",
    "ArrowArray",
    "ArrowDeviceArray",
    "ArrowArrayStream",
    "ArrowDeviceArrayStream",
];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The part of the header that some sources make.
fn section(sources: &[&str]) -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml"))
        .expect("cbindgen.toml can be read");
    // Types that no function of the section mentions are left out unless they are named.
    for name in sources.iter().flat_map(|source| public_types(source)) {
        config.export.include.push(name);
    }
    // Written by hand in the template, in the guards of the specification, without a typedef.
    for name in ARROW_STRUCTS {
        let of_c = format!("struct {name}");
        config.export.rename.insert((*name).to_owned(), of_c);
    }
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in sources {
        builder = builder.with_src(root().join("src/ffi").join(source));
    }
    let mut text = Vec::new();
    builder
        .generate()
        .expect("cbindgen reads the sources")
        .write(&mut text);
    tidy(&String::from_utf8(text).expect("cbindgen writes text"))
}

fn public_types(source: &str) -> Vec<String> {
    let text = read(&root().join("src/ffi").join(source));
    let named = |line: &str| {
        let rest = ["pub struct ", "pub enum ", "pub type "]
            .iter()
            .find_map(|start| line.strip_prefix(start))?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        Some(rest[..end].to_owned())
    };
    text.lines().filter_map(named).collect()
}

/// cbindgen's text as a person would set it. The template opens `extern "C"` once and names
/// what an enum is made of; attributes of C++ stand before those of GNU.
fn tidy(text: &str) -> String {
    let text = text
        .replace(
            "#ifdef __cplusplus\nextern \"C\" {\n#endif // __cplusplus\n",
            "",
        )
        .replace(
            "#ifdef __cplusplus\n}  // extern \"C\"\n#endif  // __cplusplus\n",
            "",
        );
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut tidied: Vec<String> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        at += match lines[at] {
            line if line.starts_with("GDS_API") => declaration(&lines[at..], &mut tidied),
            line if line.starts_with("enum ") => enum_start(&lines[at..], &mut tidied),
            "#ifndef __cplusplus" => enum_end(&lines[at..]),
            line if line.trim() == "/**" => comment(&lines[at..], &mut tidied),
            line => {
                // Every type has a typedef of its own name.
                let line = match line.starts_with("typedef struct") {
                    true => line.to_owned(),
                    false => line.replace("struct gds_", "gds_"),
                };
                if !(line.is_empty() && tidied.last().is_none_or(String::is_empty)) {
                    tidied.push(line);
                }
                1
            }
        };
    }
    tidied.join("\n").trim().to_owned()
}

/// A comment of one line on one line. Gives the lines used.
fn comment(lines: &[&str], tidied: &mut Vec<String>) -> usize {
    let indent = &lines[0][..lines[0].len() - 3];
    match lines[1].trim().strip_prefix("* ") {
        Some(text) if lines[2].trim() == "*/" && indent.len() + text.len() <= 85 => {
            tidied.push(format!("{indent}/** {text} */"));
            3
        }
        _ => {
            tidied.push(lines[0].to_owned());
            1
        }
    }
}

/// `enum x` with the lines that give it its type in C++ and C23.
fn enum_start(lines: &[&str], tidied: &mut Vec<String>) -> usize {
    let name = lines[0].trim_start_matches("enum ");
    assert_eq!(
        (lines[2].trim(), lines[4].trim()),
        (": int32_t", "{"),
        "{name}"
    );
    tidied.push(format!(
        "GDS_ENUM(gds_{}) {{",
        name.trim_start_matches("gds_")
    ));
    5
}

/// The typedef that follows an enum; GDS_ENUM has made it.
fn enum_end(lines: &[&str]) -> usize {
    let end = lines
        .iter()
        .position(|line| *line == "#endif // __cplusplus");
    end.expect("the typedef of an enum ends") + 1
}

/// A function on one line, or its parameters below each other's start.
fn declaration(lines: &[&str], tidied: &mut Vec<String>) -> usize {
    let used = lines
        .iter()
        .position(|line| line.ends_with(';'))
        .expect("a function ends")
        + 1;
    let text = lines[..used].join(" ").replace("struct gds_", "gds_");
    let words = text
        .split_whitespace()
        .filter(|w| !["GDS_API", "GDS_NODISCARD"].contains(w));
    let text = words.collect::<Vec<_>>().join(" ");
    let must_use = lines[..used]
        .iter()
        .any(|line| line.contains("GDS_NODISCARD"));
    let mut line = if must_use {
        tidied.push("GDS_NODISCARD GDS_API".to_owned());
        String::new()
    } else {
        "GDS_API ".to_owned()
    };
    let (head, tail) = text.split_once('(').expect("a function has parameters");
    line = format!("{line}{head}(");
    let indent = " ".repeat(line.len());
    let (parameters, end) = tail.rsplit_once(") ").expect("GDS_NOEXCEPT follows");
    let count = parameters.split(", ").count();
    for (index, parameter) in parameters.split(", ").enumerate() {
        let part = if index + 1 == count {
            format!("{parameter}) {end}")
        } else {
            format!("{parameter},")
        };
        let space = usize::from(!line.ends_with('('));
        if line.trim().is_empty() || line.len() + space + part.len() <= 92 {
            if space == 1 && !line.trim().is_empty() {
                line.push(' ');
            }
        } else {
            tidied.push(std::mem::replace(&mut line, indent.clone()));
        }
        line.push_str(&part);
    }
    tidied.push(line);
    used
}

fn generated() -> String {
    let number = |name: &str| name.parse::<u32>().expect("a version is made of numbers");
    let major = number(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = number(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = number(env!("CARGO_PKG_VERSION_PATCH"));
    let mut text = read(&root().join("src/ffi/gds_rs.h.in"))
        .replace("@MAJOR@", &major.to_string())
        .replace("@MINOR@", &minor.to_string())
        .replace("@PATCH@", &patch.to_string())
        .replace(
            "@NUMBER@",
            &(major * 10_000 + minor * 100 + patch).to_string(),
        )
        .replace("@SONAME@", &abi_common::soname());
    for (name, sources) in SECTIONS {
        let place = format!("@{name}@\n");
        assert_eq!(
            text.matches(&place).count(),
            1,
            "the template has {place} once"
        );
        text = text.replace(&place, &format!("{}\n", section(sources)));
    }
    text
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = root().join("include/gds_rs.h");
    let wanted = generated();
    if std::env::var_os("GDS_BLESS").is_some() {
        std::fs::create_dir_all(root().join("include")).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = read(&path);
    let line = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        found == wanted,
        "include/gds_rs.h differs from src/ffi, first at line {}; GDS_BLESS=1 rewrites it",
        line.map_or(found.lines().count().min(wanted.lines().count()), |l| l) + 1
    );
}

#[test]
fn every_exported_function_is_in_the_header() {
    let mut sources = String::new();
    for entry in std::fs::read_dir(root().join("src/ffi")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            sources.push_str(&read(&path));
        }
    }
    let mut exported: Vec<String> = sources
        .lines()
        .filter_map(|line| line.split("extern \"C\" fn gds_").nth(1))
        .map(|rest| format!("gds_{}", rest.split('(').next().unwrap_or("")))
        .collect();
    exported.sort();
    assert_eq!(exported, declared_functions());
}

#[test]
fn the_headers_are_narrow_ascii_and_explained() {
    for name in [
        "gds_rs.h",
        "gds_rs.hpp",
        "gds_rs_cache.hpp",
        "gds_rs_kv.hpp",
        "gds_rs_stream.hpp",
    ] {
        is_narrow_ascii_and_explained(&format!("include/{name}"));
    }
}

fn is_narrow_ascii_and_explained(name: &str) {
    let text = read(&root().join(name));
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        assert!(line.len() <= 92, "{at} has {} columns", line.len());
        assert!(line.is_ascii() && !line.contains('\t'), "{at}: {line}");
        let opens = line.starts_with("GDS_API") || line.starts_with("GDS_NODISCARD");
        assert!(
            !opens || before.ends_with("*/"),
            "{at} has no comment above: {line}"
        );
        before = line;
    }
}
