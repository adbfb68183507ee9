//! `gds kv del` and `gds kv scan`: many keys.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::ops::Bound;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::output::{Failure, Outcome, os_error, say, say_json};
use super::super::{Global, parse_size};
use super::{KeyForm, hex, keys, open};
use crate::error::{Error, ErrorKind};
use crate::kv::store::{Batch, Item};

/// Keys that a message names.
const NAMED: usize = 5;
/// Deletes of one commit.
const BATCH: usize = 64;

/// Arguments of `gds kv del`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DelArgs {
    /// The store: a file or a block device
    store: PathBuf,
    /// The keys
    #[arg(required = true)]
    keys: Vec<OsString>,
    /// A key that is not there is no failure
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    form: KeyForm,
}

/// Arguments of `gds kv scan`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ScanArgs {
    /// The store: a file or a block device
    store: PathBuf,
    /// The first key
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// The key to end before
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// Only keys that begin so
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
    /// Most keys
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Values too
    #[arg(long)]
    values: bool,
    /// Most bytes of a value that are shown
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64K")]
    value_max: u64,
    #[command(flatten)]
    form: KeyForm,
}

pub(super) fn del(global: &Global, args: &DelArgs) -> Outcome {
    let all = keys(args.form, &args.keys)?;
    let store = open(&args.store)?;
    // In order, so that a key that is named twice counts as missing the second time.
    let mut gone = std::collections::HashSet::new();
    let (there, absent): (Vec<&Vec<u8>>, Vec<&Vec<u8>>) = all
        .iter()
        .partition(|key| store.contains(key) && gone.insert(key.as_slice()));
    for part in there.chunks(BATCH) {
        let mut batch = Batch::new();
        for key in part {
            batch.delete(key);
        }
        store.write(&batch)?;
    }
    if !absent.is_empty() && !args.force {
        let named: Vec<String> = absent
            .iter()
            .take(NAMED)
            .map(|key| format!("'{}'", args.form.show(key)))
            .collect();
        let more = if absent.len() > NAMED {
            " and more"
        } else {
            ""
        };
        let message = format!(
            "delete from {}: {} deleted, {} not there: {}{more}",
            args.store.display(),
            there.len(),
            absent.len(),
            named.join(", ")
        );
        return Err(Error::new(ErrorKind::NotFound, message).into());
    }
    if global.json {
        return say_json(&json!({ "deleted": there.len(), "absent": absent.len() }));
    }
    say(format_args!("{} deleted", there.len()))
}

/// The range of keys that begin with `prefix`.
fn prefixed(prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut end = prefix.to_vec();
    // The next key that is no continuation: the last byte that can grow does.
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

pub(super) fn scan(global: &Global, args: &ScanArgs) -> Outcome {
    let key = |text: &Option<OsString>| text.as_ref().map(|t| args.form.parse(t)).transpose();
    let range = match key(&args.prefix)? {
        Some(prefix) => prefixed(&prefix),
        None => (
            key(&args.from)?.map_or(Bound::Unbounded, Bound::Included),
            key(&args.to)?.map_or(Bound::Unbounded, Bound::Excluded),
        ),
    };
    if let (Bound::Included(from), Bound::Excluded(to)) = (&range.0, &range.1)
        && from > to
    {
        return Err(super::usage("--from is a later key than --to"));
    }
    let store = open(&args.store)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut count = 0u64;
    let written = (|| {
        if global.json {
            write!(out, "{{\"items\": [")?;
        }
        for item in store.scan(range, args.limit)? {
            if global.json {
                let comma = if count == 0 { "" } else { "," };
                write!(out, "{comma}\n  {}", json_of(&item, args)?)?;
            } else {
                writeln!(out, "{}", text_of(&item, args)?)?;
            }
            count += 1;
        }
        if global.json {
            writeln!(out, "\n], \"keys\": {count}}}")?;
        }
        out.flush()?;
        Ok::<(), Stopped>(())
    })();
    match written {
        Ok(()) => Ok(()),
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            // What is still buffered has no reader either.
            let _ = out.into_parts();
            Err(Failure::Closed)
        }
        Err(Stopped::Output(error)) => Err(os_error(&error, "write to standard output")),
        Err(Stopped::Store(error)) => Err(error.into()),
    }
}

/// Why a listing stopped.
enum Stopped {
    Output(io::Error),
    Store(Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// The first bytes of a value, and whether there are more.
fn start_of(item: &Item, args: &ScanArgs) -> Result<(Vec<u8>, bool), Error> {
    let mut bytes = vec![0; item.len.min(args.value_max) as usize];
    let read = item.read(0, &mut bytes)?;
    bytes.truncate(read);
    Ok((bytes, item.len > args.value_max))
}

fn text_of(item: &Item, args: &ScanArgs) -> Result<String, Error> {
    let key = args.form.show(&item.key);
    if !args.values {
        return Ok(format!("{key}\t{}", item.len));
    }
    let (bytes, cut) = start_of(item, args)?;
    let value = args.form.show(&bytes);
    let more = if cut { "..." } else { "" };
    Ok(format!("{key}\t{}\t{value}{more}", item.len))
}

fn json_of(item: &Item, args: &ScanArgs) -> Result<Value, Error> {
    let mut object = json!({ "key_hex": hex(&item.key), "size": item.len });
    if let Ok(text) = std::str::from_utf8(&item.key) {
        object["key"] = text.into();
    }
    if args.values {
        let (bytes, cut) = start_of(item, args)?;
        match String::from_utf8(bytes) {
            Ok(text) => object["value"] = text.into(),
            Err(error) => object["value_hex"] = hex(error.as_bytes()).into(),
        }
        object["value_cut"] = cut.into();
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_has_it_not() {
        let end = |prefix: &[u8]| prefixed(prefix).1;
        assert_eq!(end(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(end(b"a\xff\xff"), Bound::Excluded(b"b".to_vec()));
        assert_eq!(end(b"\xff"), Bound::Unbounded);
        assert_eq!(end(b""), Bound::Unbounded);
    }
}
