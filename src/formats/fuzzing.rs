//! What the fuzz targets of the formats run: a parser over any bytes, and what has to hold of what
//! it accepts. `fuzz/fuzz_targets/` calls this, and `tests/formats_bad_input.rs` replays its corpus
//! and mutations of it.

use super::tensor::{Tensor, elements_of};
use super::{MemorySource, Plan, Source, detect, gguf, safetensors};
use crate::error::{Error, ErrorKind};

/// A parser under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Detection by content.
    Detect,
    /// The header of a safetensors file.
    Safetensors,
    /// The index of a model in several files.
    SafetensorsIndex,
    /// The header of a GGUF file.
    Gguf,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Detect,
        Self::Safetensors,
        Self::SafetensorsIndex,
        Self::Gguf,
    ];

    /// The name of its fuzz target and of its corpus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Detect => "formats_detect",
            Self::Safetensors => "safetensors",
            Self::SafetensorsIndex => "safetensors_index",
            Self::Gguf => "gguf",
        }
    }

    /// Parses the input. Whether it was accepted.
    ///
    /// # Errors
    /// What was accepted and breaks a rule of its format, or refused without saying where.
    pub fn run(self, input: &[u8]) -> Result<bool, String> {
        let source = MemorySource::new(input.to_vec(), "input");
        let found = match self {
            Self::Detect => detect(&source).map(|_| Ok(())),
            Self::Safetensors => safetensors::Header::read(&source).map(|header| {
                let data = source.size() - header.data_offset();
                let sum = header.tensors().iter().map(|t| t.size).sum::<u64>();
                match sum == data {
                    true => tensors(header.tensors(), source.size()),
                    false => Err(format!("{sum} bytes of tensors in {data} of data")),
                }
            }),
            Self::SafetensorsIndex => safetensors::Index::read(&source).map(|index| {
                let known = |file: &String| index.files().contains(file);
                match index.weights().values().all(known) {
                    true => Ok(()),
                    false => Err("a tensor in a file that is none of the model's".to_owned()),
                }
            }),
            Self::Gguf => gguf::Header::read(&source).map(|header| {
                let _ = header.texts();
                let align = header.alignment();
                let aligned =
                    |t: &Tensor| (t.file_offset - header.data_offset()).is_multiple_of(align);
                match header.tensors().iter().all(aligned) {
                    true => tensors(header.tensors(), source.size()),
                    false => Err("a tensor that is not aligned".to_owned()),
                }
            }),
        };
        match found {
            Ok(checked) => checked.map(|()| true),
            Err(error) => refused(&error, source.size()).map(|()| false),
        }
    }
}

/// A refusal says what is wrong and where.
fn refused(error: &Error, size: u64) -> Result<(), String> {
    let kind = matches!(error.kind(), ErrorKind::Corrupted | ErrorKind::NotSupported);
    match kind && error.offset().is_some_and(|at| at <= size) {
        true => Ok(()),
        false => Err(format!(
            "refused with {:?} at {:?}: {error}",
            error.kind(),
            error.offset()
        )),
    }
}

/// Tensors lie in the file, have the bytes of their shape and do not overlap.
fn tensors(tensors: &[Tensor], size: u64) -> Result<(), String> {
    let mut places = Vec::with_capacity(tensors.len());
    let mut plan = Plan::new();
    for tensor in tensors {
        let bytes = elements_of(&tensor.shape).and_then(|n| tensor.dtype.bytes_of(n));
        let end = tensor.file_offset.checked_add(tensor.size);
        if bytes != Some(tensor.size) || (tensor.size > 0 && end.is_none_or(|end| end > size)) {
            return Err(format!("{tensor:?} in {size} bytes"));
        }
        if tensor.size > 0 {
            places.push((tensor.file_offset, tensor.size));
            plan.push(tensor.file_offset, tensor.size, 256)
                .map_err(|e| e.to_string())?;
        }
    }
    places.sort_unstable();
    let overlap = places
        .windows(2)
        .find(|pair| pair[0].0 + pair[0].1 > pair[1].0);
    if let Some(pair) = overlap {
        return Err(format!("tensors overlap: {pair:?}"));
    }
    let outline = plan.outline(4096);
    match outline.bytes <= outline.read_bytes && outline.read_bytes <= size {
        true => Ok(()),
        false => Err(format!("{outline:?} of {size} bytes")),
    }
}
