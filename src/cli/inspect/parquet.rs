//! `gds inspect` of Parquet files.

use serde_json::{Value, json};

use super::Report;
use crate::cli::output::{Outcome, bytes_text};
use crate::engine::File;
use crate::formats::FileSource;
use crate::formats::parquet::{ChunkInfo, ColumnInfo, Parquet, RowGroupInfo};

/// Lines of columns and row groups, unless all are asked for.
const LINES: usize = 40;
/// Characters of a value in one line.
const WIDTH: usize = 60;

pub(super) fn report(file: &File, all: bool) -> Outcome<Report> {
    if Parquet::is_encrypted(&FileSource::new(file)?)? {
        return Ok(Report {
            lines: vec!["the footer is encrypted: without its key nothing is known".to_owned()],
            json: json!({ "encrypted_footer": true }),
        });
    }
    let parquet = Parquet::open(file, None)?;
    let (info, columns, groups) = (parquet.info(), parquet.columns(), parquet.row_groups());
    let most = if all { usize::MAX } else { LINES };
    let mut lines = vec![format!(
        "{} rows in {} row groups, {} columns, footer {}",
        info.rows,
        info.row_groups,
        info.columns,
        bytes_text(info.footer_bytes)
    )];
    if let Some(writer) = &info.created_by {
        lines.push(format!("written by {writer}"));
    }
    lines.push("columns:".to_owned());
    for (number, column) in columns.iter().enumerate().take(most) {
        lines.push(column_line(&parquet, number, column));
    }
    rest(&mut lines, columns.len(), most);
    lines.push("row groups:".to_owned());
    for (number, group) in groups.iter().enumerate().take(most) {
        lines.push(format!(
            "  {number}: {} rows, {} of {}",
            group.rows,
            bytes_text(group.compressed_bytes),
            bytes_text(group.bytes)
        ));
    }
    rest(&mut lines, groups.len(), most);
    if !info.key_values.is_empty() {
        lines.push("metadata:".to_owned());
        for (key, value) in &info.key_values {
            let value = value.as_deref().unwrap_or_default();
            let text = if all { value.to_owned() } else { short(value) };
            lines.push(format!("  {key}: {text}"));
        }
    }
    let pairs = info.key_values.iter().map(|(k, v)| (k.clone(), json!(v)));
    let pairs: serde_json::Map<_, _> = pairs.collect();
    Ok(Report {
        lines,
        json: json!({
            "rows": info.rows,
            "version": info.version,
            "created_by": info.created_by,
            "encrypted_footer": false,
            "footer_bytes": info.footer_bytes,
            "metadata": pairs,
            "columns": columns.iter().map(column_json).collect::<Vec<_>>(),
            "row_groups": groups.iter().enumerate().map(|(number, group)| {
                group_json(&parquet, number, group, columns.len())
            }).collect::<Vec<_>>(),
        }),
    })
}

fn rest(lines: &mut Vec<String>, count: usize, most: usize) {
    if count > most {
        lines.push(format!("  and {} more (--all prints them)", count - most));
    }
}

/// A column, with what its chunks are like: sizes of all, codec and encodings of the first.
fn column_line(parquet: &Parquet, number: usize, column: &ColumnInfo) -> String {
    let groups = parquet.info().row_groups;
    let chunks = (0..groups).filter_map(|group| parquet.chunk(group, number));
    let (mut compressed, mut bytes, mut nulls) = (0u64, 0u64, Some(0u64));
    for chunk in chunks {
        compressed = compressed.saturating_add(chunk.compressed_bytes);
        bytes = bytes.saturating_add(chunk.bytes);
        nulls = nulls.zip(chunk.nulls).map(|(a, b)| a.saturating_add(b));
    }
    let mut line = format!("  {}: {}", column.name, column.physical);
    if !column.logical.is_empty() {
        line.push_str(&format!(" {}", column.logical));
    }
    if let Some(first) = parquet.chunk(0, number) {
        line.push_str(&format!(", {}, {}", first.codec, first.encodings.join("+")));
        if first.is_encrypted {
            line.push_str(", encrypted");
        }
    }
    line.push_str(&format!(
        ", {} of {}",
        bytes_text(compressed),
        bytes_text(bytes)
    ));
    if let Some(nulls) = nulls.filter(|_| groups > 0) {
        line.push_str(&format!(", {nulls} nulls"));
    }
    line
}

fn column_json(column: &ColumnInfo) -> Value {
    json!({
        "name": column.name,
        "physical_type": column.physical,
        "logical_type": column.logical,
        "type_length": column.type_length,
        "root": column.root,
        "max_definition_level": column.max_definition,
        "max_repetition_level": column.max_repetition,
    })
}

fn group_json(parquet: &Parquet, number: usize, group: &RowGroupInfo, columns: usize) -> Value {
    let chunks = (0..columns).filter_map(|column| parquet.chunk(number, column));
    json!({
        "rows": group.rows,
        "first_row": group.first_row,
        "bytes": group.bytes,
        "compressed_bytes": group.compressed_bytes,
        "columns": chunks.map(|chunk| chunk_json(&chunk)).collect::<Vec<_>>(),
    })
}

fn chunk_json(chunk: &ChunkInfo) -> Value {
    json!({
        "offset": chunk.offset,
        "compressed_bytes": chunk.compressed_bytes,
        "bytes": chunk.bytes,
        "values": chunk.values,
        "codec": chunk.codec,
        "encodings": chunk.encodings,
        "dictionary": chunk.has_dictionary,
        "offset_index": chunk.has_offset_index,
        "column_index": chunk.has_column_index,
        "bloom_filter": chunk.has_bloom_filter,
        "encrypted": chunk.is_encrypted,
        "nulls": chunk.nulls,
        "distinct": chunk.distinct,
        "min": chunk.min,
        "max": chunk.max,
    })
}

fn short(value: &str) -> String {
    let mut text: String = value.chars().take(WIDTH).collect();
    if text.len() < value.len() {
        text.push_str("...");
    }
    text.replace(['\n', '\r'], " ")
}
