//! safetensors (github.com/huggingface/safetensors, README "Format"): a u64 length, that many
//! bytes of JSON, and the tensors one after the other.
//!
//! Every rule is enforced: the header has at most 100,000,000 bytes and begins with a brace; no
//! key is there twice; `__metadata__` holds strings only; the tensors, in the order of their
//! offsets, begin at 0, leave no hole, do not overlap and end where the file ends; each has just
//! the bytes of its shape and type. What is allowed too: tensors without elements, tensors without
//! dimensions, blanks behind the header, fields of a tensor that nobody knows.

mod index;
mod json;

use std::collections::BTreeMap;

pub use index::Index;

use super::Source;
use super::detect::SAFETENSORS_HEADER_MAX;
use super::tensor::{Tensor, corrupted, elements_of, unknown};
use crate::error::Result;

/// Bytes of the length before the header.
const LENGTH: u64 = 8;

/// What a safetensors file says of itself.
#[derive(Debug, Clone, Default)]
pub struct Header {
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
    data_offset: u64,
}

impl Header {
    /// Reads and checks the header. Memory: the header, and at most 16 bytes for each of its own.
    ///
    /// # Errors
    /// `Corrupted` with the offset when a rule of the format is broken; `NotSupported` for types
    /// that are newer than this library; what the source says.
    pub fn read(source: &dyn Source) -> Result<Self> {
        let (path, size) = (source.path(), source.size());
        let length = source.bytes(0, LENGTH, "the length of the header")?;
        let length = u64::from_le_bytes(*length.first_chunk().unwrap_or(&[0; 8]));
        if length > SAFETENSORS_HEADER_MAX {
            let what = format!(
                "its header claims {length} bytes, a safetensors header has at most \
                 {SAFETENSORS_HEADER_MAX}"
            );
            return Err(corrupted(path, 0, what));
        }
        let text = source.bytes(LENGTH, length, "the header")?;
        if text.first() != Some(&b'{') {
            return Err(corrupted(path, LENGTH, "its header does not begin with {"));
        }
        let text = std::str::from_utf8(&text).map_err(|error| {
            let at = LENGTH + error.valid_up_to() as u64;
            corrupted(path, at, "its header is not UTF-8")
        })?;
        let header = json::parse(text).map_err(|refused| {
            let at = LENGTH + refused.at as u64;
            let what = format!("its header: {}", refused.message);
            match refused.unknown {
                true => unknown(path, at, what),
                false => corrupted(path, at, what),
            }
        })?;
        let data_offset = LENGTH + length;
        let tensors = check(source, header.entries, data_offset)?;
        let end = tensors
            .last()
            .map_or(data_offset, |t| t.file_offset + t.size);
        if end != size {
            let what = format!("its tensors end at {end}, the file at {size}");
            return Err(corrupted(path, end.min(size), what));
        }
        Ok(Self {
            tensors,
            metadata: header.metadata,
            data_offset,
        })
    }

    /// The tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What `__metadata__` holds.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Where the tensors begin in the file, bytes.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    pub(super) fn into_parts(self) -> (Vec<Tensor>, BTreeMap<String, String>) {
        (self.tensors, self.metadata)
    }
}

/// Sorts the entries by their place and checks each against its shape and those around it.
fn check(source: &dyn Source, mut entries: Vec<json::Entry>, data: u64) -> Result<Vec<Tensor>> {
    let path = source.path();
    let limit = source.size() - data;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let what = format!("tensor {:?} is there twice", pair[0].name);
        return Err(corrupted(path, LENGTH, what));
    }
    entries.sort_by_key(|entry| entry.offsets);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut at = 0;
    for entry in entries {
        let (begin, end) = entry.offsets;
        let wrong = |what: String| {
            let what = format!("tensor {:?}: {what}", entry.name);
            corrupted(path, data.saturating_add(begin.min(limit)), what)
        };
        if end < begin || end > limit {
            let what = format!("bytes {begin} to {end} of data that has {limit}");
            return Err(wrong(what));
        }
        if begin != at {
            let what = if begin < at {
                "overlaps the one"
            } else {
                "leaves a hole behind what is"
            };
            return Err(wrong(format!(
                "it begins at {begin} and {what} before, to {at}"
            )));
        }
        let size = elements_of(&entry.shape).and_then(|n| entry.dtype.bytes_of(n));
        if size != Some(end - begin) {
            let what = format!(
                "{} bytes are not what shape {:?} of {} takes",
                end - begin,
                entry.shape,
                entry.dtype
            );
            return Err(wrong(what));
        }
        at = end;
        tensors.push(Tensor {
            name: entry.name,
            dtype: entry.dtype,
            shape: entry.shape,
            file_offset: data + begin,
            size: end - begin,
            file: 0,
        });
    }
    Ok(tensors)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
