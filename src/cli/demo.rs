//! `gds demo [FILE]`: a real file into device memory, cold and warm, every byte verified.

use std::fs::{self, File as StdFile};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::output::{Outcome, bytes_text, gigabytes_per_second, os_error, say, say_json};
use super::progress::{self, Progress};
use super::{Global, explain, pump};
use crate::base::crc::crc32c;
use crate::config::PathPolicy;
use crate::device::MemoryKind;
use crate::engine::{
    Buffer, Completion, Context, Explanation, File, Options, Path as Way, Transfer,
};
use crate::error::{Error, ErrorKind};
use crate::io::{OpenMode, Operation, evict, residency};

/// Device memory that is written back and compared at once, bytes.
const WINDOW: u64 = 32 << 20;

/// Arguments of `gds demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The file; the largest library of the Rust toolchain or of the system when not given
    file: Option<PathBuf>,
}

/// One way of the file into the device.
struct Run {
    name: &'static str,
    /// Part of the file that was in the page cache before, percent, where the kernel tells.
    resident: Option<u64>,
    completion: Completion,
    seconds: f64,
    crc32c: u32,
    why_not: Vec<String>,
}

pub(super) fn run(global: &Global, args: &DemoArgs) -> Outcome {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => largest_library()?,
    };
    let context = global.context()?;
    let file = context.open_file(&path, OpenMode::read_only())?;
    let (size, all) = size_to_move(&context, &file)?;
    let device = context.device().info().name.clone();
    if !global.json {
        let part = if all { "" } else { "the first part of " };
        say(format_args!(
            "{part}{} ({}) into {}",
            path.display(),
            bytes_text(size),
            if context.device().is_host() {
                "host memory: no GPU is used".to_owned()
            } else {
                format!("GPU memory: {device}")
            }
        ))?;
        if let Some(error) = global.why_host(&context) {
            say(format_args!("  why no GPU: {error}"))?;
        }
    }
    let buffer = context.alloc(MemoryKind::Device, size)?;
    let plain =
        StdFile::open(&path).map_err(|e| os_error(&e, format!("open {}", path.display())))?;
    let mut runs = Vec::new();
    for name in ["cold", "warm"] {
        if name == "cold" {
            // Where the kernel refuses, the share that was in the page cache tells.
            let _ = evict(plain.as_raw_fd());
        }
        let run = move_once(global, &context, &file, &buffer, name, &plain)?;
        if !global.json {
            say(line(&run))?;
            for text in &run.why_not {
                say(format_args!("  why not {text}"))?;
            }
        }
        runs.push(run);
    }
    if global.json {
        return say_json(&report(&path, &device, &runs));
    }
    say(format_args!(
        "verified: all {size} bytes in {} memory equal a plain read, both times; CRC32C {:08x}",
        if context.device().is_host() {
            "host"
        } else {
            "GPU"
        },
        runs[0].crc32c
    ))
}

/// Reads the whole range into the buffer, timed, then verifies it, not timed.
fn move_once(
    global: &Global,
    context: &Context,
    file: &File,
    buffer: &Buffer,
    name: &'static str,
    plain: &StdFile,
) -> Outcome<Run> {
    pump::scrub(context, buffer)?;
    let resident = residency(plain.as_raw_fd(), 0, buffer.size())
        .ok()
        .filter(|r| r.pages > 0)
        .map(|r| r.cached * 100 / r.pages);
    let explanation = context.explain(file.path())?;
    let transfer = Transfer {
        operation: Operation::Read,
        file: file.clone(),
        file_offset: 0,
        buffer: buffer.clone(),
        buffer_offset: 0,
        size: buffer.size(),
    };
    let mut bar = Progress::new(name, buffer.size(), global.quiet);
    let began = Instant::now();
    let ticket = context.submit(vec![transfer], &Options::default())?;
    let completion = progress::wait(&ticket, |done| bar.set(done))?;
    let seconds = began.elapsed().as_secs_f64();
    drop(bar);
    if completion.bytes != buffer.size() {
        let message = format!(
            "read {}: {} of {} bytes arrived; the file became shorter, try again",
            file.path().display(),
            completion.bytes,
            buffer.size()
        );
        return Err(Error::new(ErrorKind::FileChanged, message).into());
    }
    let crc32c = verify(context, buffer, plain, file.path())?;
    Ok(Run {
        name,
        resident,
        completion,
        seconds,
        crc32c,
        why_not: why_not(context, &explanation, completion.path),
    })
}

/// Writes the device's bytes to a temporary file, part by part, and compares them with a plain
/// read of the source. Gives the CRC32C of the plain bytes.
fn verify(context: &Context, buffer: &Buffer, plain: &StdFile, path: &Path) -> Outcome<u32> {
    let back = Temporary::new()?;
    let copy = context.open_file(&back.0, OpenMode::read_write())?;
    let plain_back =
        StdFile::open(&back.0).map_err(|e| os_error(&e, format!("open {}", back.0.display())))?;
    let mut crc = 0;
    let mut at = 0;
    let (mut want, mut got) = (Vec::new(), Vec::new());
    while at < buffer.size() {
        let part = WINDOW.min(buffer.size() - at);
        copy.write(0, buffer, at, part)?;
        want.resize(part as usize, 0);
        got.resize(part as usize, 0);
        plain
            .read_exact_at(&mut want, at)
            .map_err(|e| os_error(&e, format!("read {} at {at}", path.display())))?;
        plain_back
            .read_exact_at(&mut got, 0)
            .map_err(|e| os_error(&e, format!("read {}", back.0.display())))?;
        if want != got {
            let wrong = want.iter().zip(&got).position(|(a, b)| a != b).unwrap_or(0);
            let message = format!(
                "verify {}: byte {} in device memory is not what a plain read gives; the file \
                 changed meanwhile, or the machine or this program is broken",
                path.display(),
                at + wrong as u64
            );
            return Err(Error::new(ErrorKind::Corrupted, message)
                .with_path(path)
                .into());
        }
        crc = crc32c(crc, &want);
        at += part;
    }
    Ok(crc)
}

/// An empty file in the system's temporary folder, removed when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Outcome<Self> {
        let name = format!("gds-demo-{}.tmp", std::process::id());
        let path = std::env::temp_dir().join(name);
        StdFile::create_new(&path).map_err(|e| {
            let what = format!("create {} (TMPDIR chooses the folder)", path.display());
            os_error(&e, what)
        })?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Bytes to move, and whether that is the whole file: it need not fit into the device.
fn size_to_move(context: &Context, file: &File) -> Outcome<(u64, bool)> {
    let size = file.size()?;
    if size == 0 || !file.capabilities().sized {
        let message = format!(
            "move {}: it has no bytes to move; choose a larger file",
            file.path().display()
        );
        return Err(Error::new(ErrorKind::UnsupportedFile, message).into());
    }
    let (free, _) = context.device().memory_free_total()?;
    let fits = (free / 2).max(WINDOW);
    Ok((size.min(fits), size <= fits))
}

fn line(run: &Run) -> String {
    let resident = match run.resident {
        Some(percent) => format!(", {percent} % of it was in the page cache"),
        None => String::new(),
    };
    format!(
        "{}: {} bytes in {:.3} s, {:.2} GB/s{resident}\n  path {}: {}",
        run.name,
        run.completion.bytes,
        run.seconds,
        gigabytes_per_second(run.completion.bytes, run.seconds),
        run.completion.path,
        in_words(run.completion.path)
    )
}

/// What a path is, for someone who sees its name for the first time.
fn in_words(path: Way) -> &'static str {
    match path {
        Way::None => "nothing moved",
        Way::Host => "out of the page cache into host memory",
        Way::HostDirect => "O_DIRECT, around the page cache, straight into host memory",
        Way::Bounce => "O_DIRECT, around the page cache, into staging memory and on from there",
        Way::PageCache => "out of the page cache into staging memory and on from there",
        Way::CuFile => "NVIDIA's cuFile",
    }
}

/// Each way that ranks above the one taken, and what stood against it in this run.
fn why_not(context: &Context, explanation: &Explanation, taken: Way) -> Vec<String> {
    let above = explanation.ways.iter().take_while(|way| way.path != taken);
    above
        .map(|way| match way.path {
            Way::CuFile if context.device().is_host() => {
                "cufile: it moves bytes into GPU memory, and no GPU is used".to_owned()
            }
            _ if way.usable && context.config().path != PathPolicy::Auto => {
                format!("{}: GDS_PATH asks for another path", way.path)
            }
            Way::Host | Way::PageCache => {
                format!("{}: most of the file was not in the page cache", way.path)
            }
            _ => explain::line(way),
        })
        .collect()
}

fn report(path: &Path, device: &str, runs: &[Run]) -> serde_json::Value {
    json!({
        "file": path.to_string_lossy(),
        "device": device,
        "verified": true,
        "crc32c": format!("{:08x}", runs[0].crc32c),
        "runs": runs.iter().map(|run| json!({
            "name": run.name,
            "bytes": run.completion.bytes,
            "seconds": run.seconds,
            "gb_per_second": gigabytes_per_second(run.completion.bytes, run.seconds),
            "path": run.completion.path.name(),
            "resident_percent": run.resident,
            "why_not": run.why_not,
        })).collect::<Vec<_>>(),
    })
}

/// The largest library of the Rust toolchain, else of the system.
fn largest_library() -> Outcome<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let toolchains = home.map(|home| home.join(".rustup/toolchains"));
    let folders = [
        sysroot().map(|root| root.join("lib")),
        toolchains,
        Some(PathBuf::from("/usr/lib")),
        Some(PathBuf::from("/lib")),
    ];
    for folder in folders.into_iter().flatten() {
        let mut largest = None;
        search(&folder, 0, &mut largest);
        if let Some((_, path)) = largest {
            return Ok(path);
        }
    }
    let message = "find a library to move: there is none; give a file: gds demo FILE";
    Err(Error::new(ErrorKind::NotFound, message).into())
}

fn sysroot() -> Option<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

/// Finds the largest shared library that is a file of its own and may be read.
fn search(folder: &Path, depth: u32, largest: &mut Option<(u64, PathBuf)>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        // Of the entry itself, so that symbolic links lead nowhere.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        let path = entry.path();
        if found.is_dir() && depth < 8 {
            search(&path, depth + 1, largest);
        } else if found.is_file()
            && entry.file_name().to_string_lossy().contains(".so")
            && largest.as_ref().is_none_or(|(size, _)| found.len() > *size)
            && StdFile::open(&path).is_ok()
        {
            *largest = Some((found.len(), path));
        }
    }
}
