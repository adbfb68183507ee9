//! `gds cp SRC DST`: a file through device memory into another, whole or not at all.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::output::{Outcome, bytes_text, gigabytes_per_second, os_error, say, say_json};
use super::progress::Progress;
use super::{Global, parse_chunk, pump, usage};
use crate::engine::Options;
use crate::error::{Error, ErrorKind};
use crate::io::{FileDescriptors, OpenMode};

/// Arguments of `gds cp`.
#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// A regular file or block device
    source: PathBuf,
    /// The copy, or a folder to put it into. Replaced only when the copy is complete
    target: PathBuf,
    /// Compute CRC32C on the way to the device and on the way back, and compare
    #[arg(long)]
    crc: bool,
    /// Bytes moved at once; twice as much device memory is used
    #[arg(long, value_parser = parse_chunk, default_value = "64M")]
    chunk: u64,
    /// Do not wait until the copy is durable
    #[arg(long)]
    no_sync: bool,
}

pub(super) fn run(global: &Global, args: &CopyArgs) -> Outcome {
    let context = global.context()?;
    let source = context.open_file(&args.source, OpenMode::read_only())?;
    let target = target_path(&args.source, &args.target)?;
    let size = match source.capabilities().sized {
        true => Some(source.size()?),
        false => None,
    };
    let partial = Partial::new(&target)?;
    if let Some(size) = size {
        reserve(&partial.path, size)?;
    }
    let mode = OpenMode::read_write();
    let written = context.open_file(&partial.path, mode)?;
    let options = Options {
        checksum: args.crc.then_some(true),
        ..Options::default()
    };
    let began = Instant::now();
    let (read, write) = {
        let mut progress = Progress::new("cp", size.unwrap_or(0), global.quiet);
        let files = (&source, &written);
        pump::copy(&context, files, size, args.chunk, &options, &mut progress)?
    };
    // Space that was reserved past the end goes back; the size is what was written.
    written.set_size(write.bytes)?;
    if !args.no_sync {
        written.sync()?;
    }
    check_size(&partial.path, write.bytes)?;
    partial.finish(&args.source, &target)?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = gigabytes_per_second(write.bytes, seconds);
    let crc = args
        .crc
        .then(|| format!("{:08x}", read.crc32c.unwrap_or(0)));
    if global.json {
        return say_json(&json!({
            "source": args.source.to_string_lossy(),
            "target": target.to_string_lossy(),
            "device": context.device().info().name,
            "bytes": write.bytes,
            "seconds": seconds,
            "gb_per_second": rate,
            "durable": !args.no_sync,
            "read_path": read.main_path().name(),
            "write_path": write.main_path().name(),
            "crc32c": crc,
        }));
    }
    say(format_args!(
        "{} bytes ({}) to {} by way of {}",
        write.bytes,
        bytes_text(write.bytes),
        target.display(),
        context.device().info().name
    ))?;
    say(format_args!(
        "{seconds:.3} s{}, {rate:.2} GB/s, read path {}, write path {}",
        if args.no_sync { "" } else { " with sync" },
        read.path_text(),
        write.path_text()
    ))?;
    match crc {
        Some(crc) => say(format_args!("CRC32C {crc}, equal on both ways")),
        None => Ok(()),
    }
}

/// Where the copy goes: into a folder under the source's name, and through symbolic links.
fn target_path(source: &Path, target: &Path) -> Outcome<PathBuf> {
    let mut target = target.to_path_buf();
    if target.is_dir() {
        let name = source
            .file_name()
            .ok_or_else(|| usage(format!("{} has no name to copy it under", source.display())))?;
        target.push(name);
    }
    let shown = target.display().to_string();
    if target.is_symlink() {
        target = fs::canonicalize(&target)
            .map_err(|e| os_error(&e, format!("follow the symbolic link {shown}")))?;
    }
    let Ok(there) = fs::metadata(&target) else {
        return Ok(target);
    };
    if !there.is_file() {
        let message = format!(
            "copy to {shown}: it exists and is no regular file, and a copy would replace it; \
             choose another name"
        );
        return Err(Error::new(ErrorKind::UnsupportedFile, message)
            .with_path(&target)
            .into());
    }
    let same = fs::metadata(source).is_ok_and(|s| (s.dev(), s.ino()) == (there.dev(), there.ino()));
    if same {
        return Err(usage(format!(
            "{} and {shown} are the same file",
            source.display()
        )));
    }
    Ok(target)
}

/// Takes the space first, so that a full disk answers before anything is copied.
fn reserve(path: &Path, size: u64) -> Outcome {
    let descriptors = FileDescriptors::open(path, OpenMode::read_write())?;
    match descriptors.reserve(0, size) {
        Err(error) if error.kind() == ErrorKind::NoSpace => {
            // The name that is full is a temporary one that the user has never heard of.
            let folder = path.parent().unwrap_or(path);
            let message = format!(
                "copy {size} bytes into {}: there is not enough space; free some",
                folder.display()
            );
            Err(Error::new(ErrorKind::NoSpace, message)
                .with_errno(error.errno())
                .into())
        }
        // A file system that cannot reserve still takes the copy.
        _ => Ok(()),
    }
}

fn check_size(path: &Path, bytes: u64) -> Outcome {
    let found = fs::metadata(path)
        .map_err(|e| os_error(&e, format!("look at {}", path.display())))?
        .len();
    if found == bytes {
        return Ok(());
    }
    let message = format!(
        "{} has {found} bytes although {bytes} were written; somebody else wrote to it",
        path.display()
    );
    Err(Error::new(ErrorKind::FileChanged, message)
        .with_path(path)
        .into())
}

/// The copy under a temporary name in the target's folder; removed when it is not finished.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    done: bool,
}

impl Partial {
    fn new(target: &Path) -> Outcome<Self> {
        let name = target
            .file_name()
            .ok_or_else(|| usage(format!("{} is no name for a copy", target.display())))?;
        let mut partial = name.to_os_string();
        partial.push(format!(".gds-{}.part", std::process::id()));
        let path = target.with_file_name(partial);
        fs::File::create_new(&path)
            .map_err(|e| os_error(&e, format!("create {}", path.display())))?;
        Ok(Self { path, done: false })
    }

    /// Gives the copy its permissions and its name.
    fn finish(mut self, source: &Path, target: &Path) -> Outcome {
        let like = match fs::metadata(target) {
            Ok(there) => there.mode() & 0o7777,
            Err(_) => new_mode(source),
        };
        fs::set_permissions(&self.path, fs::Permissions::from_mode(like))
            .map_err(|e| os_error(&e, format!("set the mode of {}", self.path.display())))?;
        fs::rename(&self.path, target)
            .map_err(|e| os_error(&e, format!("give the copy its name {}", target.display())))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The source's permissions, less what the process's umask forbids, as cp(1) gives them.
fn new_mode(source: &Path) -> u32 {
    let mode = match fs::metadata(source) {
        Ok(found) if found.is_file() => found.mode() & 0o777,
        _ => 0o666,
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status
        .lines()
        .find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok());
    mode & !umask.unwrap_or(0o022)
}
