//! `gds load` of Arrow IPC files and streams: columns, batch after batch, so that files larger than
//! memory are loaded too.

use std::time::Instant;

use serde_json::json;

use super::LoadArgs;
use crate::cli::Global;
use crate::cli::output::{Outcome, bytes_text, gigabytes_per_second, say, say_json};
use crate::engine::{Context, File};
use crate::formats::Array;
use crate::formats::arrow::{ArrowReader, LoadOptions};

pub(super) fn run(global: &Global, args: &LoadArgs, context: &Context, file: &File) -> Outcome {
    let reader = ArrowReader::open(file)?;
    let fields = reader.schema().fields();
    let columns = match args.columns.is_empty() {
        true => (0..fields.len()).collect(),
        false => reader.columns_named(&args.columns)?,
    };
    let options = LoadOptions {
        // What others trust is looked at, on every device, unless that is not wanted.
        validate: Some(!args.no_verify),
        ..LoadOptions::default()
    };
    let began = Instant::now();
    let batches = reader.load(context, &columns, 0..reader.batch_count(), &options)?;
    let (mut rows, mut bytes, mut count) = (0, 0, 0u64);
    let schema = batches.schema().clone();
    for batch in batches {
        let batch = batch?;
        rows += batch.rows;
        count += 1;
        bytes += batch.columns.iter().map(bytes_of).sum::<u64>();
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = gigabytes_per_second(bytes, seconds);
    let device = &context.device().info().name;
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    if global.json {
        return say_json(&json!({
            "file": args.file.to_string_lossy(),
            "device": device,
            "columns": names,
            "rows": rows,
            "batches": count,
            "bytes": bytes,
            "seconds": seconds,
            "gb_per_second": rate,
            "verified": !args.no_verify,
        }));
    }
    say(format_args!(
        "{} columns, {rows} rows in {count} batches of {}: {bytes} bytes ({}) to {device}",
        names.len(),
        args.file.display(),
        bytes_text(bytes)
    ))?;
    say(format_args!("{seconds:.3} s, {rate:.2} GB/s"))?;
    match args.no_verify {
        true => Ok(()),
        false => say("verified: offsets, keys, views and texts contradict nothing"),
    }
}

/// Bytes of the buffers of a batch, without dictionaries, which batches share.
fn bytes_of(array: &Array) -> u64 {
    let own: u64 = array.buffers.iter().flatten().map(|slice| slice.size).sum();
    own + array.children.iter().map(bytes_of).sum::<u64>()
}
