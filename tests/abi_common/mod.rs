//! What the ABI tests share: where things are, the header's functions, the built library.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The checked-in header.
pub fn header() -> String {
    std::fs::read_to_string(root().join("include/gds_rs.h")).expect("the header is checked in")
}

/// The soname that the version asks for.
pub fn soname() -> String {
    let (major, minor) = (
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
    );
    match major {
        "0" => format!("libgds_rs.so.0.{minor}"),
        _ => format!("libgds_rs.so.{major}"),
    }
}

/// Names of the functions that the header declares, sorted.
pub fn declared_functions() -> Vec<String> {
    let header = header();
    let mut names: Vec<String> = header
        .split("GDS_API")
        .skip(1)
        .filter_map(|after| {
            let name = after.split('(').next()?.rsplit([' ', '*', '\n']).next()?;
            name.starts_with("gds_").then(|| name.trim().to_owned())
        })
        .collect();
    names.sort();
    names
}

/// Lines of a checked-in list, without comments.
pub fn list(name: &str) -> Vec<String> {
    let path = root().join("tests/abi").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// A folder of this test run for what it builds.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// Runs a program and gives what it printed; panics with all of its output when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}

/// The shared library of these sources, built as users build it: without the command. It has its
/// own target folder, because the outer cargo holds the lock of its own.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = scratch("library");
        run(Command::new(env!("CARGO"))
            .args([
                "rustc",
                "--lib",
                "--crate-type",
                "cdylib",
                "--no-default-features",
                "--features",
                "parquet",
            ])
            .args(["--locked", "--quiet", "--manifest-path"])
            .arg(root().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env_remove("RUSTFLAGS"));
        // The name that the loader looks for.
        let library = target.join("debug/libgds_rs.so");
        let link = target.join("debug").join(soname());
        if !link.exists() {
            let linked = std::os::unix::fs::symlink("libgds_rs.so", &link);
            assert!(
                linked.is_ok() || link.exists(),
                "{}: {linked:?}",
                link.display()
            );
        }
        library
    })
}
