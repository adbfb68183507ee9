//! `gds load` of ELF files: sections, decoded where they are compressed.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::{LoadArgs, WINDOW, open_plainly};
use crate::base::limits;
use crate::cli::Global;
use crate::cli::output::{Outcome, bytes_text, gigabytes_per_second, os_error, say, say_json};
use crate::device::MemoryKind;
use crate::engine::{Buffer, Context, File};
use crate::error::{Error, ErrorKind};
use crate::formats::elf::{Elf, ElfPlan, Encoding, Part, Select};
use crate::formats::{FileSource, ReadOptions};

pub(super) fn run(global: &Global, args: &LoadArgs, context: &Context, file: &File) -> Outcome {
    let elf = Elf::open(Arc::new(FileSource::new(file)?))?;
    let names: Vec<&[u8]> = args.sections.iter().map(|name| name.as_bytes()).collect();
    let select = match names.is_empty() {
        true => Select::Stored,
        false => Select::Names(&names),
    };
    let plan = ElfPlan::new(&elf, select, limits::TRANSFER_SIZE_MAX)?;
    let buffer = context.alloc(MemoryKind::Device, plan.size().max(1))?;
    let began = Instant::now();
    let done = plan.read(file, &buffer, 0, &ReadOptions::default())?;
    let seconds = began.elapsed().as_secs_f64();
    if !args.no_verify {
        verify(context, file, &plan, &buffer)?;
    }
    let is_packed = |part: &&Part| matches!(part.encoding, Encoding::Zlib | Encoding::Zstd);
    let packed = plan.parts().iter().filter(is_packed).count();
    let rate = gigabytes_per_second(done.bytes, seconds);
    let device = &context.device().info().name;
    if global.json {
        let sections = plan.parts().iter().map(|part| object(&elf, part));
        return say_json(&json!({
            "file": args.file.to_string_lossy(),
            "format": "ELF",
            "device": device,
            "bytes": done.bytes,
            "memory_bytes": plan.size(),
            "file_bytes": plan.bytes(),
            "seconds": seconds,
            "gb_per_second": rate,
            "path": done.path.name(),
            "compressed": packed,
            "verified": !args.no_verify,
            "sections": sections.collect::<Vec<_>>(),
        }));
    }
    say(format_args!(
        "{} sections of {}: {} bytes ({}) to {device}, {packed} of them decompressed",
        plan.parts().len(),
        args.file.display(),
        done.bytes,
        bytes_text(done.bytes)
    ))?;
    say(format_args!(
        "{seconds:.3} s, {rate:.2} GB/s of {} in the file, path {}",
        bytes_text(plan.bytes()),
        done.path.name()
    ))?;
    match args.no_verify {
        true => Ok(()),
        false => say("verified: every plain byte equals a plain read of the file"),
    }
}

fn object(elf: &Elf, part: &Part) -> serde_json::Value {
    let name = elf
        .section(part.index)
        .map(|section| elf.section_name(section));
    json!({
        "name": String::from_utf8_lossy(name.unwrap_or_default()),
        "offset": part.to_offset,
        "bytes": part.size,
        "file_bytes": part.file_size,
        "encoding": match part.encoding {
            Encoding::Plain => "plain",
            Encoding::Zlib => "zlib",
            Encoding::Zstd => "zstd",
            Encoding::Zero => "zero",
        },
    })
}

/// Compares what is plain with a plain read. Compressed sections were checked when they were
/// decoded, by their size and the checksum of their stream.
fn verify(context: &Context, file: &File, plan: &ElfPlan, buffer: &Buffer) -> Outcome {
    let plain = open_plainly(file)?;
    let (mut want, mut got) = (Vec::new(), Vec::new());
    for piece in plan.plain().pieces() {
        let mut at = 0;
        while at < piece.size {
            let part = WINDOW.min(piece.size - at);
            want.resize(part as usize, 0);
            got.resize(part as usize, 0);
            let offset = piece.file_offset + at;
            plain
                .read_exact_at(&mut want, offset)
                .map_err(|e| os_error(&e, format!("read {} at {offset}", file.path().display())))?;
            context.download(buffer, piece.to_offset + at, &mut got)?;
            if want != got {
                let text = format!(
                    "verify {}: bytes from {offset} on in device memory are not what a plain read \
                     gives; the file changed meanwhile, or the machine or this program is broken",
                    file.path().display()
                );
                let error = Error::new(ErrorKind::Corrupted, text);
                return Err(error.with_path(file.path()).with_offset(offset).into());
            }
            at += part;
        }
    }
    Ok(())
}
