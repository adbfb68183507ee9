//! `gds inspect` of Arrow IPC files and streams.

use serde_json::{Value, json};

use super::Report;
use crate::cli::output::{Outcome, bytes_text};
use crate::engine::File;
use crate::formats::arrow::{ArrowReader, BatchInfo, Codec};

/// Lines of columns, and of batches, unless all are asked for.
const LINES: usize = 40;

pub(super) fn report(file: &File, all: bool) -> Outcome<Report> {
    let reader = ArrowReader::open(file)?;
    let batches = (0..reader.batch_count())
        .map(|at| reader.batch_info(at))
        .collect::<crate::error::Result<Vec<_>>>()?;
    let rows: u64 = batches.iter().fold(0, |sum, b| sum.saturating_add(b.rows));
    let bytes: u64 = batches.iter().map(|b| b.body_bytes).sum();
    let fields = reader.schema().fields();
    let mut lines = vec![format!(
        "{rows} rows of {} columns in {} batches, {bytes} bytes ({}) of bodies, {} dictionaries, \
         metadata V{}",
        fields.len(),
        batches.len(),
        bytes_text(bytes),
        reader.dictionary_count(),
        reader.version()
    )];
    add(&mut lines, "columns", fields.iter(), all, |field| {
        let nullable = if field.is_nullable() {
            ""
        } else {
            ", not null"
        };
        format!("  {}: {}{nullable}", field.name(), field.data_type())
    });
    add(&mut lines, "batches", batches.iter(), all, |batch| {
        format!(
            "  {} rows, {} ({}) at {}",
            batch.rows,
            bytes_text(batch.body_bytes),
            codec_name(batch),
            batch.offset
        )
    });
    let columns = fields.iter().map(|field| {
        json!({
            "name": field.name(),
            "type": field.data_type().to_string(),
            "nullable": field.is_nullable(),
        })
    });
    let of_batches = batches.iter().map(|batch| {
        json!({
            "rows": batch.rows,
            "offset": batch.offset,
            "bytes": batch.body_bytes,
            "codec": codec_name(batch),
        })
    });
    let metadata: serde_json::Map<String, Value> = reader
        .schema()
        .metadata()
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let json = json!({
        "metadata_version": reader.version(),
        "rows": rows,
        "body_bytes": bytes,
        "dictionaries": reader.dictionary_count(),
        "columns": columns.collect::<Vec<_>>(),
        "batches": of_batches.collect::<Vec<_>>(),
        "metadata": metadata,
    });
    Ok(Report { lines, json })
}

fn codec_name(batch: &BatchInfo) -> &'static str {
    match batch.codec {
        None => "none",
        Some(Codec::Lz4) => "lz4",
        Some(Codec::Zstd) => "zstd",
    }
}

fn add<T>(
    lines: &mut Vec<String>,
    what: &str,
    items: impl ExactSizeIterator<Item = T>,
    all: bool,
    line: impl Fn(T) -> String,
) {
    let count = items.len();
    let shown = if all { count } else { count.min(LINES) };
    lines.push(format!("{what}:"));
    lines.extend(items.take(shown).map(line));
    if shown < count {
        lines.push(format!("  and {} more; --all shows them", count - shown));
    }
}
