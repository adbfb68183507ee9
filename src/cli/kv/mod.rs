//! `gds kv`: puts, gets, lists and checks what a key-value store holds.
//!
//! Values of any length go through in bounded memory. Keys are the bytes of the argument, or with
//! `--hex` pairs of hexadecimal digits; they are shown the same way.

mod bench;
mod entries;
mod move_value;
mod tell;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

pub(in crate::cli) use bench::{Figure, Kinds, Remover, Setup};

use super::output::{Failure, Outcome, bytes_text, say, say_json};
use super::{Global, parse_offset, parse_size, usage};
use crate::error::{Error, ErrorKind};
use crate::kv::store::{DiskLevel, KvConfig, Store};

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    /// Make an empty store
    Create(CreateArgs),
    /// Put a value from a file or from standard input; durable when this ends
    Put(move_value::PutArgs),
    /// Write a value, or a part of one, to standard output or to a file
    Get(move_value::GetArgs),
    /// Delete keys; durable when this ends
    Del(entries::DelArgs),
    /// List keys in order
    Scan(entries::ScanArgs),
    /// Say what the store holds and how full it is
    Stats(StoreArgs),
    /// Read everything and compare it with its checksums; exit code 1 when something is wrong
    Verify(StoreArgs),
    /// Make a store that cannot be opened, or has damaged values, usable again; copy it first
    Repair(StoreArgs),
    /// Make the index durable and empty the log, so that the next opening is fast
    Checkpoint(StoreArgs),
    /// Move what is alive together and give free space back
    Compact(StoreArgs),
    /// Measure a new store, which is removed at the end
    Bench(Box<bench::BenchArgs>),
    /// Remove a store and everything in it
    Destroy(StoreArgs),
}

/// Arguments of commands that need a store and nothing else.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// The store: a file or a block device
    store: PathBuf,
}

/// Arguments of `gds kv create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The store: a file that does not exist or is empty, or a block device of zeros
    store: PathBuf,
    #[command(flatten)]
    shape: Shape,
}

/// What is fixed when a store is made, and how it is opened.
#[derive(Debug, Clone, Args)]
pub(super) struct Shape {
    /// Bytes of the whole store; 0 lets a file grow, and takes all of a block device
    #[arg(long, value_name = "SIZE", value_parser = parse_offset, default_value = "0")]
    size: u64,
    /// Bytes of the log
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M")]
    wal: u64,
    /// Bytes of a segment
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M")]
    segment: u64,
    /// How the file is reached this time
    #[arg(long, value_enum, default_value_t = LevelName::File)]
    level: LevelName,
}

/// Names of the ways to reach a store's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LevelName {
    /// By reads and writes
    File,
    /// By a mapping, in persistent memory
    Dax,
}

impl Shape {
    /// A new store of this shape; an existing one is refused.
    fn config(&self) -> KvConfig {
        KvConfig {
            size_bytes: self.size,
            wal_bytes: self.wal,
            segment_bytes: self.segment,
            create: true,
            exclusive: false,
            level: match self.level {
                LevelName::File => DiskLevel::File,
                LevelName::Dax => DiskLevel::Dax,
            },
            ..KvConfig::default()
        }
    }
}

/// Keys on the command line.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct KeyForm {
    /// Keys are given and shown as hexadecimal digits
    #[arg(long)]
    hex: bool,
}

impl KeyForm {
    /// The key that an argument means.
    fn parse(self, text: &OsStr) -> Outcome<Vec<u8>> {
        let bytes = text.as_bytes();
        if !self.hex {
            return Ok(bytes.to_vec());
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|d| d as u8);
        let digits: Option<Vec<u8>> = bytes.iter().map(digit).collect();
        match digits {
            Some(digits) if digits.len().is_multiple_of(2) => {
                Ok(digits.chunks_exact(2).map(|d| (d[0] << 4) | d[1]).collect())
            }
            _ => {
                let shown = text.to_string_lossy();
                let message = format!("'{shown}' is no key in hexadecimal: pairs of 0-9 and a-f");
                Err(usage(message))
            }
        }
    }

    /// The key as it is shown.
    fn show(self, key: &[u8]) -> String {
        if self.hex {
            hex(key)
        } else {
            key.escape_ascii().to_string()
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(super) fn run(global: &Global, command: &KvCommand) -> Outcome {
    match command {
        KvCommand::Create(args) => create(global, args),
        KvCommand::Put(args) => move_value::put(global, args),
        KvCommand::Get(args) => move_value::get(global, args),
        KvCommand::Del(args) => entries::del(global, args),
        KvCommand::Scan(args) => entries::scan(global, args),
        KvCommand::Stats(args) => tell::stats(global, &args.store),
        KvCommand::Verify(args) => tell::verify(global, &args.store),
        KvCommand::Repair(args) => tell::repair(global, &args.store),
        KvCommand::Checkpoint(args) => checkpoint(global, &args.store),
        KvCommand::Compact(args) => compact(global, &args.store),
        KvCommand::Bench(args) => bench::run(global, args),
        KvCommand::Destroy(args) => destroy(global, &args.store),
    }
}

/// Opens a store that must be there.
fn open(path: &Path) -> Outcome<Store> {
    let config = KvConfig {
        create: false,
        ..KvConfig::default()
    };
    Ok(Store::open(path, config).map_err(|e| named(path, &e))?)
}

/// The error with the store's path in its words, which those of formats do not have.
fn named(path: &Path, error: &Error) -> Error {
    let (shown, message) = (path.display().to_string(), error.message());
    if message.contains(&shown) {
        return error.clone();
    }
    let named = Error::new(error.kind(), format!("{shown}: {message}"));
    let named = named.with_path(path).with_errno(error.errno());
    match error.offset() {
        Some(offset) => named.with_offset(offset),
        None => named,
    }
}

/// Makes a store where there is none.
fn make(path: &Path, shape: &Shape) -> Outcome<Store> {
    let config = shape.config();
    config.validate()?;
    if is_taken(path)? {
        let message = format!(
            "make a store at {}: something is there already; remove it, or use \
             `gds kv destroy` if it is a store",
            path.display()
        );
        let error = Error::new(ErrorKind::InvalidArgument, message);
        return Err(error.with_path(path).into());
    }
    Ok(Store::open(path, config).map_err(|e| named(path, &e))?)
}

/// Whether there is something that a new store would take the place of. (Opening takes the lock, so
/// what somebody makes at the same time is seen by it.)
fn is_taken(path: &Path) -> Outcome<bool> {
    let Ok(found) = std::fs::metadata(path) else {
        return Ok(false);
    };
    if found.is_file() {
        return Ok(found.len() > 0);
    }
    // A device is never empty; it may hold a store.
    let config = KvConfig {
        create: false,
        ..KvConfig::default()
    };
    match Store::open(path, config) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnsupportedFile && found.is_dir() => {
            Err(named(path, &error).into())
        }
        Err(error) if error.kind() == ErrorKind::UnsupportedFile => Ok(false),
        Err(error) => Err(named(path, &error).into()),
    }
}

fn create(global: &Global, args: &CreateArgs) -> Outcome {
    let store = make(&args.store, &args.shape)?;
    let stats = store.stats();
    if global.json {
        return say_json(&json!({
            "store": args.store.to_string_lossy(),
            "uuid": hex(&store.uuid()),
            "size_bytes": stats.size_bytes,
            "grows": args.shape.size == 0,
            "wal_bytes": stats.wal_ring_bytes,
            "segment_bytes": stats.segment_bytes,
        }));
    }
    say(format_args!(
        "{}: a store of {}{}, log {}, segments of {}",
        args.store.display(),
        bytes_text(stats.size_bytes),
        if args.shape.size == 0 {
            ", which grows"
        } else {
            ""
        },
        bytes_text(stats.wal_ring_bytes),
        bytes_text(stats.segment_bytes)
    ))
}

fn checkpoint(global: &Global, path: &Path) -> Outcome {
    let store = open(path)?;
    store.checkpoint()?;
    let (keys, used) = (store.keys(), store.stats().wal_used_bytes);
    if global.json {
        return say_json(&json!({ "keys": keys, "wal_used_bytes": used }));
    }
    say(format_args!(
        "{keys} keys are in the durable index, {used} bytes in the log"
    ))
}

fn compact(global: &Global, path: &Path) -> Outcome {
    let store = open(path)?;
    let before = store.stats();
    let freed = store.compact()?;
    let stats = store.stats();
    if global.json {
        return say_json(&json!({
            "segments_freed": freed,
            "segments_free": stats.segments_free,
            "segments": stats.segments,
            "moved_bytes": stats.gc_bytes - before.gc_bytes,
            "live_bytes": stats.live_bytes,
        }));
    }
    say(format_args!(
        "{freed} segments became free ({} of {} are), {} moved, {} alive",
        stats.segments_free,
        stats.segments,
        bytes_text(stats.gc_bytes - before.gc_bytes),
        bytes_text(stats.live_bytes)
    ))
}

fn destroy(global: &Global, path: &Path) -> Outcome {
    Store::destroy(path).map_err(|e| named(path, &e))?;
    if global.json {
        return say_json(&json!({ "destroyed": path.to_string_lossy() }));
    }
    say(format_args!("{}: the store is gone", path.display()))
}

/// There is no such key.
fn missing(path: &Path, shown: &str) -> Failure {
    let message = format!("{}: there is no key '{shown}'", path.display());
    Error::new(ErrorKind::NotFound, message)
        .with_path(path)
        .into()
}

/// The keys of several arguments.
fn keys(form: KeyForm, texts: &[OsString]) -> Outcome<Vec<Vec<u8>>> {
    texts.iter().map(|text| form.parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bytes_or_digits() {
        let (plain, digits) = (KeyForm { hex: false }, KeyForm { hex: true });
        assert_eq!(plain.parse(OsStr::new("00ff")).ok(), Some(b"00ff".to_vec()));
        assert_eq!(digits.parse(OsStr::new("00fF")).ok(), Some(vec![0, 255]));
        for bad in ["0", "0g", "0x00"] {
            let failure = digits.parse(OsStr::new(bad)).unwrap_err();
            assert_eq!(failure.code(), 2, "{bad}");
        }
        assert_eq!(plain.show(b"a\n\xff"), "a\\n\\xff");
        assert_eq!(digits.show(b"a\n"), "610a");
    }
}
