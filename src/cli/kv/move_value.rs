//! `gds kv put` and `gds kv get`: one value, of any length, in bounded memory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::super::output::say_json;
use super::super::output::{Failure, Outcome, bytes_text, gigabytes_per_second, os_error, say};
use super::super::progress::Progress;
use super::super::{Global, parse_offset, parse_size, usage};
use super::{KeyForm, Shape, make, missing, open};
use crate::kv::store::Store;

/// Bytes that are moved at a time: whole runs of a long value.
const PART: usize = 4 << 20;

/// Arguments of `gds kv put`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PutArgs {
    /// The store: a file or a block device
    store: PathBuf,
    /// The key
    key: OsString,
    /// A file with the value, or - for standard input
    file: PathBuf,
    /// Make the store where there is none, of the shape below
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    form: KeyForm,
}

/// Arguments of `gds kv get`.
#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    /// The store: a file or a block device
    store: PathBuf,
    /// The key
    key: OsString,
    /// Where to write the value; standard output when not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where in the value to begin, bytes
    #[arg(long, value_parser = parse_offset, default_value = "0")]
    offset: u64,
    /// Bytes to get; to the end of the value when not given
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn put(global: &Global, args: &PutArgs) -> Outcome {
    let key = args.form.parse(&args.key)?;
    let (mut source, hint): (Box<dyn Read>, u64) = if args.file == Path::new("-") {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let what = || format!("open {}", args.file.display());
        let file = File::open(&args.file).map_err(|e| os_error(&e, what()))?;
        let found = file.metadata().map_err(|e| os_error(&e, what()))?;
        if found.is_dir() {
            return Err(usage(format!("{} is a folder", args.file.display())));
        }
        (Box::new(file), found.len())
    };
    let absent = !args.store.exists();
    let store = match args.create && absent {
        true => make(&args.store, &args.shape)?,
        false => open(&args.store)?,
    };
    let began = Instant::now();
    let mut writer = store.put_writer(&key, hint)?;
    {
        let mut progress = Progress::new("put", hint, global.quiet);
        let mut part = vec![0; PART];
        loop {
            let size = fill(&mut *source, &mut part)
                .map_err(|e| os_error(&e, format!("read {}", args.file.display())))?;
            writer.write(&part[..size])?;
            progress.set(writer.len());
            if size < part.len() {
                break;
            }
        }
    }
    let bytes = writer.len();
    let lsn = writer.commit()?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = gigabytes_per_second(bytes, seconds);
    if global.json {
        return say_json(&json!({
            "bytes": bytes,
            "lsn": lsn,
            "seconds": seconds,
            "gb_per_second": rate,
        }));
    }
    let shown = args.form.show(&key);
    say(format_args!(
        "'{shown}': {} durable in {seconds:.3} s, {rate:.2} GB/s",
        bytes_text(bytes)
    ))
}

/// Reads until the part is full or the source ends.
fn fill(source: &mut dyn Read, part: &mut [u8]) -> io::Result<usize> {
    let mut size = 0;
    while size < part.len() {
        match source.read(&mut part[size..]) {
            Ok(0) => break,
            Ok(more) => size += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size)
}

pub(super) fn get(global: &Global, args: &GetArgs) -> Outcome {
    if global.json && args.output.is_none() {
        return Err(usage(
            "--json needs --output: the value takes standard output",
        ));
    }
    let key = args.form.parse(&args.key)?;
    let shown = args.form.show(&key);
    let store = open(&args.store)?;
    let Some(len) = store.len_of(&key) else {
        return Err(missing(&args.store, &shown));
    };
    let Some(left) = len.checked_sub(args.offset) else {
        let text = format!(
            "--offset {} lies past the end of '{shown}': {len} bytes",
            args.offset
        );
        return Err(usage(text));
    };
    let size = args.size.unwrap_or(left);
    if size > left {
        return Err(usage(format!(
            "--size {size} at --offset {} passes the end of '{shown}'; {left} bytes are left there",
            args.offset
        )));
    }
    let wanted = Wanted {
        store: &store,
        key: &key,
        offset: args.offset,
        size,
    };
    let Some(path) = &args.output else {
        let mut out = io::stdout().lock();
        wanted.write_to(&mut out, &mut |_| {}, "standard output")?;
        return match out.flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(os_error(&error, "write to standard output"))
            }
            _ => Ok(()),
        };
    };
    let began = Instant::now();
    let mut progress = Progress::new("get", size, global.quiet);
    write_file(path, &wanted, &mut |done| progress.set(done))?;
    drop(progress);
    let seconds = began.elapsed().as_secs_f64();
    let rate = gigabytes_per_second(size, seconds);
    if global.json {
        return say_json(&json!({
            "value_bytes": len,
            "offset": args.offset,
            "bytes": size,
            "seconds": seconds,
            "gb_per_second": rate,
            "file": path.to_string_lossy(),
        }));
    }
    say(format_args!(
        "'{shown}': {} to {} in {seconds:.3} s, {rate:.2} GB/s",
        bytes_text(size),
        path.display()
    ))
}

/// A range of a value.
struct Wanted<'a> {
    store: &'a Store,
    key: &'a [u8],
    offset: u64,
    size: u64,
}

impl Wanted<'_> {
    fn write_to(&self, out: &mut dyn Write, tell: &mut dyn FnMut(u64), name: &str) -> Outcome {
        // The value as it is now, whatever is put while it is written.
        let snapshot = self.store.snapshot()?;
        let most = self.size.min(PART as u64) as usize;
        let mut part = vec![0; most];
        let mut done = 0;
        while done < self.size {
            let size = (self.size - done).min(most as u64) as usize;
            let read = snapshot.get_into(self.key, self.offset + done, &mut part[..size])?;
            if read != Some(size) {
                return Err(usage("the value became shorter while it was read"));
            }
            match out.write_all(&part[..size]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(Failure::Closed);
                }
                Err(error) => return Err(os_error(&error, format!("write to {name}"))),
            }
            done += size as u64;
            tell(done);
        }
        Ok(())
    }
}

/// Writes to a file that is whole or not there; to a device or pipe as it comes.
fn write_file(path: &Path, wanted: &Wanted<'_>, tell: &mut dyn FnMut(u64)) -> Outcome {
    let name = path.display().to_string();
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        let opened = fs::OpenOptions::new().write(true).open(path);
        let mut file = opened.map_err(|e| os_error(&e, format!("open {name}")))?;
        return wanted.write_to(&mut file, tell, &name);
    }
    let Some(last) = path.file_name() else {
        return Err(usage(format!("{name} is no name for a file")));
    };
    let mut partial = last.to_os_string();
    partial.push(format!(".gds-{}.part", std::process::id()));
    let partial = path.with_file_name(partial);
    let made = File::create_new(&partial);
    let mut file = made.map_err(|e| os_error(&e, format!("create {}", partial.display())))?;
    let result = wanted.write_to(&mut file, tell, &name).and_then(|()| {
        file.sync_all()
            .and_then(|()| fs::rename(&partial, path))
            .map_err(|e| os_error(&e, format!("finish {name}")))
    });
    if result.is_err() {
        let _ = fs::remove_file(&partial);
    }
    result
}
