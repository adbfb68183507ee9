//! `gds inspect` of safetensors and GGUF files.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Report;
use crate::cli::output::{Outcome, bytes_text};
use crate::engine::File;
use crate::formats::tensor::{Tensor, Tensors};

/// Lines of tensors, and of values, unless all are asked for.
const LINES: usize = 40;
/// Characters of a value in one line.
const WIDTH: usize = 60;

pub(super) fn report(file: &File, all: bool) -> Outcome<Report> {
    let model = Tensors::open(file)?;
    let tensors = model.tensors();
    let bytes: u64 = tensors.iter().map(|t| t.size).sum();
    let elements: u64 = tensors
        .iter()
        .fold(0, |sum, t| sum.saturating_add(t.elements()));
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for tensor in tensors {
        let (count, size) = kinds.entry(tensor.dtype.name()).or_default();
        *count += 1;
        *size += tensor.size;
    }
    let files: Vec<String> = model
        .files()
        .iter()
        .map(|f| f.path().display().to_string())
        .collect();
    let mut lines = vec![format!(
        "{} tensors in {} file(s), {elements} elements, {bytes} bytes ({})",
        tensors.len(),
        files.len(),
        bytes_text(bytes)
    )];
    for (name, (count, size)) in &kinds {
        lines.push(format!("  {name}: {count} tensors, {}", bytes_text(*size)));
    }
    add(
        &mut lines,
        "metadata",
        model.metadata(),
        all,
        |(key, value)| {
            format!(
                "  {key}: {}",
                if all { value.clone() } else { short(value) }
            )
        },
    );
    add(&mut lines, "tensors", tensors, all, |tensor| {
        format!(
            "  {}  {}{:?}  {} bytes",
            tensor.name, tensor.dtype, tensor.shape, tensor.size
        )
    });
    let said = model.metadata().iter();
    let said: serde_json::Map<_, _> = said.map(|(k, v)| (k.clone(), json!(v))).collect();
    Ok(Report {
        lines,
        json: json!({
            "files": files,
            "tensor_bytes": bytes,
            "elements": elements,
            "metadata": said,
            "tensors": tensors.iter().map(object).collect::<Vec<_>>(),
        }),
    })
}

fn object(tensor: &Tensor) -> Value {
    json!({
        "name": tensor.name,
        "dtype": tensor.dtype.name(),
        "shape": tensor.shape,
        "file": tensor.file,
        "offset": tensor.file_offset,
        "bytes": tensor.size,
    })
}

/// Adds a line an item, the first of them only unless all are wanted.
fn add<T>(
    lines: &mut Vec<String>,
    what: &str,
    items: &[T],
    all: bool,
    line: impl Fn(&T) -> String,
) {
    if items.is_empty() {
        return;
    }
    lines.push(format!("{what}:"));
    let count = if all { items.len() } else { LINES };
    lines.extend(items.iter().take(count).map(line));
    if items.len() > count {
        lines.push(format!(
            "  and {} more (--all prints them)",
            items.len() - count
        ));
    }
}

fn short(value: &str) -> String {
    let mut text: String = value.chars().take(WIDTH).collect();
    if text.len() < value.len() {
        text.push_str("...");
    }
    text.replace(['\n', '\r'], " ")
}
