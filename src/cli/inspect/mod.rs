//! `gds inspect FILE`: what a file of a known format holds, without reading its contents.
//!
//! A file a format: each gives lines for people and an object for programs.

#[cfg(feature = "arrow")]
mod arrow;
mod elf;
#[cfg(feature = "parquet")]
mod parquet;
mod tensors;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use super::output::{Outcome, bytes_text, say, say_json};
use crate::engine::{Context, File};
use crate::error::{Error, ErrorKind};
use crate::formats::{FileSource, Format, detect};
use crate::io::OpenMode;

/// Arguments of `gds inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A safetensors file or its index, a GGUF file, an ELF file, an Arrow file or
    /// stream, a Parquet file
    file: PathBuf,
    /// Print everything, however long: all tensors, all values, all symbols, and the kernels of
    /// the device code in a program
    #[arg(long)]
    all: bool,
}

/// What a format says of a file.
#[derive(Debug)]
struct Report {
    /// For people, without the line of the file itself.
    lines: Vec<String>,
    /// For programs: the members of the JSON object beside those of every format.
    json: Value,
}

/// Metadata needs no device: the file is opened on the host unless one was asked for.
fn open(global: &Global, path: &std::path::Path) -> Outcome<(Context, File)> {
    let mut config = global.config()?;
    if global.device.is_none() {
        config.gpu_device = crate::config::DEVICE_HOST;
    }
    let context = Context::open(config)?;
    let file = context.open_file(path, OpenMode::read_only())?;
    Ok((context, file))
}

pub(super) fn run(global: &Global, args: &InspectArgs) -> Outcome {
    let (_context, file) = open(global, &args.file)?;
    let source = FileSource::new(&file)?;
    let detected = detect(&source)?;
    let all = args.all || global.json;
    // A file a format, an arm a format.
    let report = match detected.format {
        Format::Safetensors | Format::SafetensorsIndex | Format::Gguf => {
            tensors::report(&file, all)?
        }
        Format::Elf => elf::report(&file, args.all)?,
        #[cfg(feature = "arrow")]
        Format::ArrowFile | Format::ArrowStream => arrow::report(&file, all)?,
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::report(&file, all)?,
        Format::Unknown => return Err(unknown(&args.file).into()),
        other => Report {
            lines: vec![format!(
                "{other} is recognised by its first bytes, and not read further"
            )],
            json: json!({}),
        },
    };
    let size = file.size()?;
    if global.json {
        let mut object = json!({
            "file": args.file.to_string_lossy(),
            "format": detected.format.name(),
            "bytes": size,
            "complete": detected.has_tail,
        });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, report.json) {
            object.extend(more);
        }
        return say_json(&object);
    }
    let cut = if detected.has_tail {
        ""
    } else {
        ", without its end: the file is cut"
    };
    let first = format!(
        "{}: {}, {size} bytes ({}){cut}",
        args.file.display(),
        detected.format,
        bytes_text(size)
    );
    // In one piece: a system call a line takes longer than the rest.
    let lines: Vec<String> = std::iter::once(first).chain(report.lines).collect();
    say(lines.join("\n"))
}

pub(super) fn unknown(path: &std::path::Path) -> Error {
    let message = format!(
        "{}: its contents are of no format that is known here; `gds read` moves any file",
        path.display()
    );
    Error::new(ErrorKind::NotSupported, message).with_path(path)
}
