//! Who may use whom. Rooms use lower rooms only; `unsafe` lives where hardware and C are.

use std::path::{Path, PathBuf};

/// Room, and the rooms that it may use. `ffi` and `cli` may use everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("error", &[]),
    ("config", &["base", "error"]),
    ("metrics", &["base"]),
    ("device", &["base", "error", "config"]),
    ("io", &["base", "error", "config"]),
    (
        "engine",
        &["base", "error", "config", "metrics", "device", "io"],
    ),
    ("cache", &["base", "error", "config", "metrics", "engine"]),
    (
        "prefetch",
        &["base", "error", "config", "metrics", "engine", "cache"],
    ),
    (
        "formats",
        &["base", "error", "config", "metrics", "engine", "cache"],
    ),
    (
        "kv",
        &[
            "base", "error", "config", "metrics", "io", "engine", "cache",
        ],
    ),
];

/// Rooms that may hold `unsafe`; all others say `#![forbid(unsafe_code)]`.
/// engine hands buffers to the kernel and to CUDA, so its unsafe stays in the listed files.
const UNSAFE_ROOMS: &[&str] = &["device", "io", "ffi", "engine"];

/// Rooms that deny `unsafe` but for the listed files.
const UNSAFE_FILES: &[(&str, &[&str])] = &[
    ("cache", &["cache/table.rs", "cache/array/ring.rs"]),
    (
        "kv",
        &[
            "kv/disk/blocks.rs",
            "kv/disk/mapping.rs",
            "kv/store/ahead.rs",
        ],
    ),
];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("src can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn rooms() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&src).expect("inside src").to_path_buf();
            let first = inside
                .iter()
                .next()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let room = first.trim_end_matches(".rs").to_owned();
            let text = std::fs::read_to_string(&path).expect("a source file is text");
            (room, inside, text)
        })
        .collect()
}

#[test]
fn rooms_use_lower_rooms_only() {
    let mut wrong = Vec::new();
    for (room, file, text) in rooms() {
        let Some((_, may)) = MAY_USE.iter().find(|(r, _)| *r == room) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let end = used.find(|c: char| !c.is_alphanumeric() && c != '_');
                let used = &used[..end.unwrap_or(used.len())];
                let known =
                    MAY_USE.iter().any(|(r, _)| *r == used) || used == "ffi" || used == "cli";
                if known && used != room && !may.contains(&used) {
                    wrong.push(format!(
                        "{}:{}: {room} uses {used}",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_table() {
    for (room, file, _) in rooms() {
        let known = MAY_USE.iter().any(|(r, _)| *r == room)
            || ["lib", "bin", "ffi", "cli"].contains(&room.as_str());
        assert!(known, "{} belongs to no room of the table", file.display());
    }
}

#[test]
fn unsafe_lives_where_hardware_and_c_are() {
    for (room, file, text) in rooms() {
        if UNSAFE_ROOMS.contains(&room.as_str()) || ["lib", "bin"].contains(&room.as_str()) {
            continue;
        }
        let root = file.ends_with(format!("{room}.rs")) || file == Path::new(&room).join("mod.rs");
        let listed = UNSAFE_FILES.iter().find(|(r, _)| *r == room);
        let rule = match listed {
            Some(_) => "#![deny(unsafe_code)]",
            None => "#![forbid(unsafe_code)]",
        };
        if root {
            assert!(text.contains(rule), "{} must say {rule}", file.display());
        }
        let may = listed.is_some_and(|(_, files)| files.iter().any(|f| file == Path::new(f)));
        assert!(
            may || !text.contains("allow(unsafe_code"),
            "{} lets unsafe in; the table does not list it",
            file.display()
        );
    }
}

#[test]
fn every_dependency_is_justified() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (manifest, reasons) = (read("Cargo.toml"), read("docs/dependencies.md"));
    let lines: Vec<&str> = reasons.lines().filter(|l| l.starts_with("| `")).collect();
    let mut inside = false;
    let mut count = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| inside) {
            let quoted = format!("`{name}`");
            let told = lines.iter().any(|line| line.contains(&quoted));
            assert!(told, "{name} has no line in docs/dependencies.md");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} dependencies were found");
}

#[test]
fn files_are_ascii_short_and_narrow() {
    let mut wrong = Vec::new();
    for (_, file, text) in rooms() {
        let lines = text.lines().count();
        if lines > 600 {
            wrong.push(format!("{} has {lines} lines, over 600", file.display()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > 100 {
                wrong.push(format!(
                    "{}:{} is over 100 columns",
                    file.display(),
                    number + 1
                ));
            }
            if !line.is_ascii() {
                wrong.push(format!("{}:{} is not ASCII", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
