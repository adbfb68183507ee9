//! GGUF (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian: keys with
//! values, the tensors' names, shapes and places, and the tensors, aligned.
//!
//! Quantized blocks stay what they are: bytes for kernels that know them. Enforced: counts and
//! lengths that fit the file, keys and names that are there once, tensors that lie in the file at
//! multiples of the alignment and do not overlap. A header has at most 256 MiB.

mod cursor;
mod value;

pub use value::{List, Value};

use super::Source;
use super::tensor::{Dtype, Tensor, corrupted, elements_of, unknown};
use crate::base::align_up;
use crate::error::Result;
use cursor::Cursor;

/// Longest header, bytes: vocabularies have a few MiB.
const HEADER_MAX: u64 = 256 << 20;
/// Most dimensions of a tensor; ggml itself has 4.
const DIMENSIONS_MAX: u32 = 8;
/// Longest key or name, bytes (the specification's limit for keys).
const NAME_MAX: usize = 65_535;
/// What tensors are aligned to where no key says it, bytes.
const ALIGNMENT: u64 = 32;
/// Largest alignment that is believed, bytes.
const ALIGNMENT_MAX: u64 = 1 << 30;

/// What a GGUF file says of itself.
#[derive(Debug, Clone, Default)]
pub struct Header {
    version: u32,
    alignment: u64,
    data_offset: u64,
    values: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

impl Header {
    /// Reads and checks the header. Memory: at most 16 bytes for each of the header's.
    ///
    /// # Errors
    /// `Corrupted` with the offset where a rule of the format is broken; `NotSupported` for
    /// version 1, big-endian files and types that are newer than this library; what the source
    /// says.
    pub fn read(source: &dyn Source) -> Result<Self> {
        let path = source.path();
        let mut cursor = Cursor::new(source, HEADER_MAX);
        if cursor.bytes(4, "the magic number")? != b"GGUF" {
            return Err(corrupted(path, 0, "it does not begin with GGUF"));
        }
        let version = cursor.u32("the version")?;
        match version {
            2 | 3 => {}
            1 => {
                return Err(unknown(
                    path,
                    4,
                    "version 1 of GGUF; convert it to version 3",
                ));
            }
            _ if matches!(version.swap_bytes(), 1..=3) => {
                let what = "a big-endian GGUF; convert it (gguf_convert_endian of gguf-py)";
                return Err(unknown(path, 4, what));
            }
            0 => return Err(corrupted(path, 4, "version 0 of GGUF")),
            _ => return Err(unknown(path, 4, format_args!("version {version} of GGUF"))),
        }
        let tensors = cursor.u64("the number of tensors")?;
        let keys = cursor.u64("the number of keys")?;
        // A key has at least a length, a type and a byte, a tensor three lengths and two words.
        cursor.expect(tensors, 24, "tensors")?;
        let values = read_values(&mut cursor, keys)?;
        let alignment = alignment_of(&cursor, &values)?;
        let mut header = Self {
            version,
            alignment,
            data_offset: 0,
            values,
            tensors: Vec::new(),
        };
        let places = header.read_tensors(&mut cursor, path, tensors)?;
        header.data_offset = align_up(cursor.at(), alignment).unwrap_or(u64::MAX);
        header.place(source, &places)?;
        Ok(header)
    }

    /// Names, types and shapes; answers where each entry stands. Offsets are still those of the
    /// data.
    fn read_tensors(
        &mut self,
        cursor: &mut Cursor<'_>,
        path: &std::path::Path,
        count: u64,
    ) -> Result<Vec<u64>> {
        let count = cursor.expect(count, 24, "tensors")?;
        self.tensors.reserve_exact(count);
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            let at = cursor.at();
            let name = name(cursor, "the name of a tensor")?;
            let dimensions = cursor.u32("the number of dimensions")?;
            if dimensions > DIMENSIONS_MAX {
                let what = format!("tensor {name:?} of {dimensions} dimensions");
                return Err(cursor.wrong(at, what));
            }
            let mut shape = Vec::with_capacity(dimensions as usize);
            for _ in 0..dimensions {
                shape.push(cursor.u64("a dimension")?);
            }
            // The file has the dense dimension first.
            let dense = shape.first().copied().unwrap_or(1);
            shape.reverse();
            let kind = cursor.u32("the type of a tensor")?;
            let file_offset = cursor.u64("the place of a tensor")?;
            let Some(dtype) = Dtype::of_ggml(kind) else {
                let what = format!("tensor {name:?} has the unknown type {kind}");
                return Err(unknown(path, at, what));
            };
            let whole = dense.is_multiple_of(dtype.block_elements());
            let size = elements_of(&shape).and_then(|n| dtype.bytes_of(n));
            let (Some(size), true) = (size, whole) else {
                let what = format!("tensor {name:?} of {dtype} cannot have the shape {shape:?}");
                return Err(cursor.wrong(at, what));
            };
            places.push(at);
            self.tensors.push(Tensor {
                name,
                dtype,
                shape,
                file_offset,
                size,
                file: 0,
            });
        }
        Ok(places)
    }

    /// Turns places in the data into places in the file, and checks them.
    fn place(&mut self, source: &dyn Source, places: &[u64]) -> Result<()> {
        let (path, size) = (source.path(), source.size());
        for (tensor, at) in self.tensors.iter_mut().zip(places) {
            let begin = self.data_offset.checked_add(tensor.file_offset);
            let end = begin.and_then(|begin| begin.checked_add(tensor.size));
            let inside = end.is_some_and(|end| end <= size || tensor.size == 0);
            if !inside || !tensor.file_offset.is_multiple_of(self.alignment) {
                let what = format!(
                    "tensor {:?}: {} bytes at {} of the data, which begins at {} of {size} and is \
                     aligned to {}",
                    tensor.name, tensor.size, tensor.file_offset, self.data_offset, self.alignment
                );
                return Err(corrupted(path, *at, what));
            }
            tensor.file_offset = begin.unwrap_or(0);
        }
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        let tensors = &self.tensors;
        order.sort_by_key(|i| (tensors[*i].file_offset, tensors[*i].size));
        let overlap = order.windows(2).find(|pair| {
            let (first, next) = (&tensors[pair[0]], &tensors[pair[1]]);
            first.file_offset + first.size > next.file_offset && next.size > 0
        });
        if let Some(pair) = overlap {
            let (first, next) = (&tensors[pair[0]].name, &tensors[pair[1]].name);
            let what = format!("the tensors {first:?} and {next:?} overlap");
            return Err(corrupted(path, places[pair[1]], what));
        }
        let mut names: Vec<usize> = order;
        names.sort_by(|a, b| tensors[*a].name.cmp(&tensors[*b].name));
        let same = |pair: &&[usize]| tensors[pair[0]].name == tensors[pair[1]].name;
        if let Some(pair) = names.windows(2).find(same) {
            let what = format!("tensor {:?} is there twice", tensors[pair[1]].name);
            return Err(corrupted(path, places[pair[1]], what));
        }
        Ok(())
    }

    /// 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What tensors are aligned to in the file, bytes.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the tensors begin in the file, bytes.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The keys and their values, in the order of the file.
    #[must_use]
    pub fn values(&self) -> &[(String, Value)] {
        &self.values
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        let found = self.values.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }

    /// The keys and their values as text.
    #[must_use]
    pub fn texts(&self) -> Vec<(String, String)> {
        let all = self.values.iter();
        all.map(|(key, value)| (key.clone(), value.text()))
            .collect()
    }

    /// The tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    pub(super) fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }
}

fn name(cursor: &mut Cursor<'_>, what: &str) -> Result<String> {
    let at = cursor.at();
    let bytes = cursor.text(what)?;
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= NAME_MAX => Ok(text.to_owned()),
        _ => Err(cursor.wrong(at, format_args!("{what} is too long or not UTF-8"))),
    }
}

fn read_values(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<(String, Value)>> {
    let count = cursor.expect(count, 13, "keys")?;
    let mut values: Vec<(String, Value)> = Vec::with_capacity(count);
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        let at = cursor.at();
        let key = name(cursor, "a key")?;
        let kind = cursor.u32("the type of a value")?;
        values.push((key, value::read(cursor, kind, at)?));
        places.push(at);
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| (&values[*a].0, a).cmp(&(&values[*b].0, b)));
    let same = |pair: &&[usize]| values[pair[0]].0 == values[pair[1]].0;
    if let Some(pair) = order.windows(2).find(same) {
        let what = format!("the key {:?} is there twice", values[pair[1]].0);
        return Err(cursor.wrong(places[pair[1]], what));
    }
    Ok(values)
}

fn alignment_of(cursor: &Cursor<'_>, values: &[(String, Value)]) -> Result<u64> {
    let said = values.iter().find(|(key, _)| key == "general.alignment");
    let Some((_, value)) = said else {
        return Ok(ALIGNMENT);
    };
    match value.as_u64() {
        Some(n) if n.is_power_of_two() && n <= ALIGNMENT_MAX => Ok(n),
        _ => {
            let what = format!(
                "general.alignment is {}; it is a power of two",
                value.text()
            );
            Err(cursor.wrong(cursor.at(), what))
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
