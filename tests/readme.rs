//! README.md keeps its word: its programs are taken out of it and run, its table is that of the
//! code, and its links lead somewhere.

mod abi_common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use abi_common::{library, root, run, scratch, soname};
use gds_rs::config::VARIABLES;

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md is checked in")
}

/// The fenced blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let fence = format!("\n```{language}\n");
    text.split(fence.as_str())
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// The only block of a language.
fn block(language: &str) -> String {
    let mut all = blocks(language);
    assert_eq!(all.len(), 1, "README.md has one {language} block");
    all.remove(0)
}

/// A prefix as `cmake --install` leaves it, with the library of these sources.
fn prefix() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let prefix = scratch("readme").join("prefix");
        let _ = std::fs::remove_dir_all(&prefix);
        let lib = prefix.join("lib");
        std::fs::create_dir_all(&lib).expect("the target folder is writable");
        let link = |to: &Path, at: PathBuf| {
            std::os::unix::fs::symlink(to, &at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
        };
        link(&root().join("include"), prefix.join("include"));
        link(library(), lib.join("libgds_rs.so"));
        link(library(), lib.join(soname()));
        prefix
    })
}

/// A folder of its own for a program, with a file to read in it.
fn folder(name: &str) -> (PathBuf, u64) {
    let folder = scratch("readme").join(name);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let data: Vec<u8> = (0..1_234_567u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(folder.join("data"), &data).expect("the target folder is writable");
    (folder, data.len() as u64)
}

fn on_host(program: &mut Command) -> Output {
    program
        .env("GDS_DEVICE", "host")
        .output()
        .unwrap_or_else(|e| panic!("{program:?}: {e}"))
}

/// Runs with a file that is there, and with one that is not.
fn check(program: impl Fn(&str) -> Command, wanted: impl Fn(&str) -> bool) {
    let good = on_host(&mut program("data"));
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success() && wanted(&text), "{good:?}");
    let bad = on_host(&mut program("missing"));
    let text = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(text.contains("missing"), "the reason is told: {text}");
}

#[test]
fn the_c_program_compiles_by_its_line_and_runs() {
    let (folder, size) = folder("c");
    std::fs::write(folder.join("first.c"), block("c")).expect("the folder is writable");
    let text = readme();
    let line = text
        .lines()
        .find(|line| line.starts_with("cc ") && line.contains("first.c"))
        .expect("README.md has the line that compiles first.c");
    run(Command::new("sh")
        .args(["-c", &line.replacen("cc ", "cc -Wall -Wextra -Werror ", 1)])
        .env("PREFIX", prefix())
        .current_dir(&folder));
    let program = |file: &str| {
        let mut command = Command::new(folder.join("first"));
        command.arg(file).current_dir(&folder);
        command
    };
    // 1 and 2 are the paths to host memory.
    let told = |path| format!("{size} bytes in device memory, path {path}\n");
    check(program, |text| text == told(1) || text == told(2));
}

#[test]
fn the_cpp_program_compiles_and_runs() {
    let (folder, size) = folder("cpp");
    std::fs::write(folder.join("first.cpp"), block("cpp")).expect("the folder is writable");
    let lib = prefix().join("lib");
    run(Command::new("g++")
        .args(["-std=c++11", "-Wall", "-Wextra", "-Werror", "first.cpp"])
        .args(["-o", "first", "-I"])
        .arg(prefix().join("include"))
        .arg(format!("-L{}", lib.display()))
        .arg("-lgds_rs")
        .arg(format!("-Wl,-rpath,{}", lib.display()))
        .current_dir(&folder));
    let program = |file: &str| {
        let mut command = Command::new(folder.join("first"));
        command.arg(file).current_dir(&folder);
        command
    };
    check(program, |text| text == format!("{size} bytes\n"));
}

#[test]
fn the_python_program_runs() {
    let (folder, size) = folder("python");
    std::fs::write(folder.join("first.py"), block("python")).expect("the folder is writable");
    let program = |file: &str| {
        let mut command = Command::new("python3");
        command.args(["first.py", file]).current_dir(&folder);
        command.env("LD_LIBRARY_PATH", prefix().join("lib"));
        command
    };
    check(program, |text| text == format!("{size} bytes\n"));
}

#[test]
fn the_table_of_variables_is_that_of_the_code() {
    let mut told: Vec<String> = readme()
        .lines()
        .filter_map(|line| line.strip_prefix("| `GDS_")?.split('`').next())
        .map(|name| format!("GDS_{name}"))
        .collect();
    told.sort();
    let mut held: Vec<String> = VARIABLES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    held.sort();
    assert_eq!(told, held);
}

#[test]
fn the_balanced_values_of_the_table_are_the_defaults() {
    let text = readme();
    let told = |name: &str| {
        let row = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("| `{name}` | ")));
        row.and_then(|row| row.split(" |").next())
            .map(str::to_owned)
    };
    let held = gds_rs::Config::default();
    let read = gds_rs::Config {
        gpu_device: 7,
        io_threads: 7,
        checksum: true,
        ..gds_rs::Config::profile(gds_rs::Profile::LowLatency)
    };
    let read = read
        .with_variables(told)
        .expect("every value is understood");
    assert_eq!(read, held);
}

#[test]
fn links_lead_somewhere() {
    let text = readme();
    let mut links = 0;
    for rest in text.split("](").skip(1) {
        let target = rest.split(')').next().unwrap_or_default();
        links += 1;
        match target.strip_prefix('#') {
            Some(heading) => assert!(
                text.lines()
                    .any(|line| line.to_lowercase() == format!("## {heading}")),
                "{target}"
            ),
            None => assert!(root().join(target).exists(), "{target} is not there"),
        }
    }
    assert!(links > 5, "the links are found");
    assert!(text.is_ascii(), "README.md is ASCII");
}
