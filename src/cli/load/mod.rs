//! `gds load FILE`: named parts of a file of a known format into device memory, verified.
//!
//! A file a format: each says what is wanted as a `Load`, and which bytes of the file have to
//! stand where afterwards. Loading, timing and verifying are the same for all.

#[cfg(feature = "arrow")]
mod arrow;
mod elf;
#[cfg(feature = "parquet")]
mod parquet;
mod tensors;

use std::fs::File as StdFile;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::output::{
    Outcome, bytes_text, gigabytes_per_second, os_error, paths_text, say, say_json,
};
use super::{Global, inspect};
use crate::device::MemoryKind;
use crate::engine::{Buffer, Context, File};
use crate::error::{Error, ErrorKind};
use crate::formats::{FileSource, Format, Load, ReadOptions, detect};
use crate::io::OpenMode;

/// Bytes compared at once.
const WINDOW: u64 = 8 << 20;

/// Arguments of `gds load`.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// A safetensors file or its index, a GGUF file, an ELF file, an Arrow file or
    /// stream, a Parquet file
    file: PathBuf,
    /// Names of tensors, with commas between them; all when not given
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tensors: Vec<String>,
    /// Names of sections, with commas between them, `*` for any letters; all that the file has
    /// bytes of when not given
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    sections: Vec<String>,
    /// Names of columns, with commas between them; all when not given
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Vec<String>,
    /// Only this share of each tensor, as RANK/OF, along --dimension
    #[arg(long, value_name = "RANK/OF", value_parser = parse_share)]
    share: Option<(u64, u64)>,
    /// The dimension that is shared, from 0, the slowest
    #[arg(long, default_value_t = 0)]
    dimension: usize,
    /// Put the tensors as the file has them, instead of one after the other at multiples of 256
    #[arg(long)]
    mirror: bool,
    /// Do not compare what arrived with a plain read
    #[arg(long)]
    no_verify: bool,
}

/// What a format wants to be loaded.
struct Wanted {
    load: Load,
    /// "3 tensors"
    what: String,
    json: Value,
}

pub(super) fn run(global: &Global, args: &LoadArgs) -> Outcome {
    let context = global.context()?;
    let file = context.open_file(&args.file, OpenMode::read_only())?;
    let detected = detect(&FileSource::new(&file)?)?;
    // A file a format, an arm a format.
    let wanted = match detected.format {
        Format::Safetensors | Format::SafetensorsIndex | Format::Gguf => {
            tensors::wanted(&file, args)?
        }
        Format::Elf => return elf::run(global, args, &context, &file),
        #[cfg(feature = "arrow")]
        Format::ArrowFile | Format::ArrowStream => {
            return arrow::run(global, args, &context, &file);
        }
        #[cfg(feature = "parquet")]
        Format::Parquet => return parquet::run(global, args, &context, &file),
        Format::Unknown => return Err(inspect::unknown(&args.file).into()),
        other => {
            let message = format!("{} is {other}, which is not loaded", args.file.display());
            return Err(Error::new(ErrorKind::NotSupported, message).into());
        }
    };
    plain(global, args, &context, &wanted)
}

/// Loads what goes into memory as the file has it, and verifies it.
fn plain(global: &Global, args: &LoadArgs, context: &Context, wanted: &Wanted) -> Outcome {
    let load = &wanted.load;
    let options = ReadOptions::default();
    let outline = load.outline(options.gap);
    let buffer = context.alloc(MemoryKind::Device, load.size().max(1))?;
    let began = Instant::now();
    let done = load.read(&buffer, 0, &options)?;
    let seconds = began.elapsed().as_secs_f64();
    if !args.no_verify {
        verify(context, load, &buffer)?;
    }
    let rate = gigabytes_per_second(done.bytes, seconds);
    let device = &context.device().info().name;
    if global.json {
        let mut object = json!({
            "file": args.file.to_string_lossy(),
            "device": device,
            "bytes": done.bytes,
            "memory_bytes": load.size(),
            "seconds": seconds,
            "gb_per_second": rate,
            "path": done.path.name(),
            "pieces": outline.pieces,
            "reads": outline.straight + outline.gathered,
            "read_bytes": outline.read_bytes,
            "verified": !args.no_verify,
        });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, wanted.json.clone()) {
            object.extend(more);
        }
        return say_json(&object);
    }
    say(format_args!(
        "{} of {}: {} bytes ({}) to {device}",
        wanted.what,
        args.file.display(),
        done.bytes,
        bytes_text(done.bytes)
    ))?;
    say(format_args!(
        "{seconds:.3} s, {rate:.2} GB/s, path {}, {} ranges of {}",
        paths_text(done.paths),
        outline.straight + outline.gathered,
        bytes_text(outline.read_bytes)
    ))?;
    match args.no_verify {
        true => Ok(()),
        false => say("verified: every byte equals a plain read of the file"),
    }
}

/// Compares every piece in device memory with what a plain read of its file gives.
fn verify(context: &Context, load: &Load, buffer: &Buffer) -> Outcome {
    let (mut want, mut got) = (Vec::new(), Vec::new());
    for (file, plan) in load.parts() {
        let plain = open_plainly(file)?;
        for piece in plan.pieces() {
            let mut at = 0;
            while at < piece.size {
                let part = WINDOW.min(piece.size - at);
                want.resize(part as usize, 0);
                got.resize(part as usize, 0);
                let offset = piece.file_offset + at;
                plain.read_exact_at(&mut want, offset).map_err(|e| {
                    os_error(&e, format!("read {} at {offset}", file.path().display()))
                })?;
                context.download(buffer, piece.to_offset + at, &mut got)?;
                if want != got {
                    let message = format!(
                        "verify {}: bytes from {offset} on in device memory are not what a plain \
                         read gives; the file changed meanwhile, or the machine or this program \
                         is broken",
                        file.path().display()
                    );
                    let error = Error::new(ErrorKind::Corrupted, message);
                    return Err(error.with_path(file.path()).with_offset(offset).into());
                }
                at += part;
            }
        }
    }
    Ok(())
}

fn open_plainly(file: &File) -> Outcome<StdFile> {
    let path = file.path();
    StdFile::open(path).map_err(|e| os_error(&e, format!("open {}", path.display())))
}

fn parse_share(text: &str) -> Result<(u64, u64), String> {
    let parts = text
        .split_once('/')
        .map(|(rank, of)| (rank.parse(), of.parse()));
    match parts {
        Some((Ok(rank), Ok(of))) if rank < of => Ok((rank, of)),
        _ => Err("a share is RANK/OF, as 0/8 to 7/8".to_owned()),
    }
}
