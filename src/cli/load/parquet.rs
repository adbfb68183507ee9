//! `gds load` of Parquet files: columns, decoded.

use std::time::Instant;

use serde_json::json;

use super::LoadArgs;
use crate::cli::Global;
use crate::cli::output::{Outcome, bytes_text, gigabytes_per_second, say, say_json};
use crate::engine::{Context, File};
use crate::formats::Array;
use crate::formats::parquet::{Parquet, Selection};

pub(super) fn run(global: &Global, args: &LoadArgs, context: &Context, file: &File) -> Outcome {
    let parquet = Parquet::open(file, None)?;
    let selection = Selection {
        columns: (!args.columns.is_empty()).then(|| args.columns.clone()),
        ..Selection::default()
    };
    let read = parquet.plan(&selection)?.bytes();
    let began = Instant::now();
    let batch = parquet.load(context, &selection)?;
    let seconds = began.elapsed().as_secs_f64();
    let device = &context.device().info().name;
    let bytes: u64 = batch.columns.iter().map(size).sum();
    let rate = gigabytes_per_second(bytes, seconds);
    let fields = batch.schema.fields();
    if global.json {
        let columns = fields.iter().zip(&batch.columns).map(|(field, column)| {
            json!({
                "name": field.name(),
                "type": field.data_type().to_string(),
                "nulls": column.null_count,
                "bytes": size(column),
            })
        });
        return say_json(&json!({
            "file": args.file.to_string_lossy(),
            "format": "parquet",
            "device": device,
            "rows": batch.rows,
            "read_bytes": read,
            "memory_bytes": bytes,
            "seconds": seconds,
            "gb_per_second": rate,
            "columns": columns.collect::<Vec<_>>(),
        }));
    }
    say(format_args!(
        "{} columns of {}: {} rows, {} of pages decoded to {} on {device}",
        batch.columns.len(),
        args.file.display(),
        batch.rows,
        bytes_text(read),
        bytes_text(bytes)
    ))?;
    for (field, column) in fields.iter().zip(&batch.columns) {
        let nulls = column.null_count.unwrap_or(0);
        let kind = field.data_type();
        let bytes = bytes_text(size(column));
        say(format_args!(
            "  {}: {kind}, {nulls} nulls, {bytes}",
            field.name()
        ))?;
    }
    say(format_args!("{seconds:.3} s, {rate:.2} GB/s of columns"))
}

/// Bytes of an array and of what it is made of.
fn size(array: &Array) -> u64 {
    let own: u64 = array.buffers.iter().flatten().map(|slice| slice.size).sum();
    let inner = array.children.iter().chain(array.dictionary.as_deref());
    inner.map(size).fold(own, u64::saturating_add)
}
