//! `gds read FILE`: a file, or a range of one, into device memory in bounded space.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::output::{Outcome, bytes_text, gigabytes_per_second, say, say_json};
use super::progress::Progress;
use super::pump::{self, Range};
use super::{Global, parse_chunk, parse_offset, parse_size, usage};
use crate::device::MemoryKind;
use crate::engine::{File, Options};
use crate::io::OpenMode;

/// Arguments of `gds read`.
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// A regular file or block device
    file: PathBuf,
    /// Also compute the CRC32C of what was read
    #[arg(long)]
    crc: bool,
    /// Where to begin, bytes
    #[arg(long, value_parser = parse_offset, default_value = "0")]
    offset: u64,
    /// Bytes to read; to the end of the file when not given
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Bytes read at once; twice as much device memory is used
    #[arg(long, value_parser = parse_chunk, default_value = "64M")]
    chunk: u64,
}

pub(super) fn run(global: &Global, args: &ReadArgs) -> Outcome {
    let context = global.context()?;
    let file = context.open_file(&args.file, OpenMode::read_only())?;
    let size = wanted(args, &file)?;
    let range = Range {
        file: &file,
        offset: args.offset,
        size,
        chunk: args.chunk,
        memory: MemoryKind::Device,
        options: Options {
            checksum: args.crc.then_some(true),
            ..Options::default()
        },
    };
    let began = Instant::now();
    let totals = {
        let mut progress = Progress::new("read", size.unwrap_or(0), global.quiet);
        pump::read(&context, &range, &mut progress)?
    };
    let seconds = began.elapsed().as_secs_f64();
    let rate = gigabytes_per_second(totals.bytes, seconds);
    // No bytes have the CRC32C 0.
    let crc = args
        .crc
        .then(|| format!("{:08x}", totals.crc32c.unwrap_or(0)));
    let device = &context.device().info().name;
    if global.json {
        return say_json(&json!({
            "file": args.file.to_string_lossy(),
            "device": device,
            "offset": args.offset,
            "bytes": totals.bytes,
            "seconds": seconds,
            "gb_per_second": rate,
            "path": totals.main_path().name(),
            "crc32c": crc,
            "retries": totals.retries,
            "fallbacks": totals.fallbacks,
        }));
    }
    say(format_args!(
        "{} bytes ({}) of {} to {device}",
        totals.bytes,
        bytes_text(totals.bytes),
        args.file.display()
    ))?;
    say(format_args!(
        "{seconds:.3} s, {rate:.2} GB/s, path {}",
        totals.path_text()
    ))?;
    match crc {
        Some(crc) => say(format_args!("CRC32C {crc}")),
        None => Ok(()),
    }
}

/// Bytes to read, or `None` for a file whose size only reading tells.
fn wanted(args: &ReadArgs, file: &File) -> Outcome<Option<u64>> {
    if !file.capabilities().sized {
        return Ok(args.size);
    }
    let size = file.size()?;
    let Some(left) = size.checked_sub(args.offset) else {
        return Err(usage(format!(
            "--offset {} lies past the end of {}, which has {size} bytes",
            args.offset,
            args.file.display()
        )));
    };
    match args.size {
        Some(size) if size > left => Err(usage(format!(
            "--size {size} at --offset {} passes the end of {}; {left} bytes are left there",
            args.offset,
            args.file.display()
        ))),
        Some(size) => Ok(Some(size)),
        None => Ok(Some(left)),
    }
}
