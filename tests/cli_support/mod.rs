//! What tests of the `gds` command share: running it on the host device, folders, files.

#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// A folder on a real disk (the build folder), removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cli-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file whose bytes depend on their position.
    pub fn file(&self, name: &str, size: usize) -> (PathBuf, Vec<u8>) {
        let data: Vec<u8> = (0..size as u64)
            .map(|i| ((i / 8 + 3).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> ((i % 8) * 8)) as u8)
            .collect();
        let path = self.path(name);
        std::fs::write(&path, &data).unwrap();
        (path, data)
    }

    /// A FIFO that nobody writes to: whoever opens it for reading the plain way hangs.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    }

    /// Names of what is in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The command on the host device, without the caller's `GDS_*` variables, in the folder.
pub fn command(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gds"));
    for (name, _) in gds_rs::config::VARIABLES {
        command.env_remove(name);
    }
    command
        .current_dir(&folder.0)
        .env("TMPDIR", &folder.0)
        .args(["--device", "host"])
        .stdin(Stdio::null());
    command
}

/// Runs the command with these arguments.
pub fn gds(folder: &Folder, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().unwrap()
}

/// Runs the command, which must do well, and gives what it printed.
pub fn text_of(folder: &Folder, arguments: &[&str]) -> String {
    let output = gds(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command with `--json`, which must do well, and gives the one object that it printed.
pub fn json_of(folder: &Folder, arguments: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(arguments);
    let text = text_of(folder, &all);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
}

/// Runs the command, which must fail with this code, nothing on standard output, and one line
/// that holds each of the words. Gives the line.
pub fn fails(folder: &Folder, code: i32, arguments: &[&str], words: &[&str]) -> String {
    let output = gds(folder, arguments);
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    for word in words {
        assert!(line.contains(word), "{arguments:?}: no '{word}' in: {line}");
    }
    // The parser of the command line answers in several lines; failures of ours are one.
    if code == 1 {
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
        assert!(line.starts_with("gds: "), "{line}");
    }
    line
}
