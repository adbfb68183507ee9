//! Tensors: what safetensors and GGUF files hold, and how they come into memory.

mod dtype;
mod part;
mod set;

use std::path::Path;

pub use dtype::Dtype;
pub use part::{Cut, Part};
pub use set::{Layout, Placed, Selection, Tensors};

use crate::error::{Error, ErrorKind};

/// A tensor of a file. Dimensions are in the order of C and NumPy: the last one is dense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, unique among its file's or model's.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Elements along each dimension; none for a single value.
    pub shape: Vec<u64>,
    /// Where it begins in its file, bytes.
    pub file_offset: u64,
    /// Bytes.
    pub size: u64,
    /// Which file of a model it is in, from 0.
    pub file: usize,
}

impl Tensor {
    /// Elements in all. Checked when its file was read.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape
            .iter()
            .fold(1, |all: u64, n| all.saturating_mul(*n))
    }
}

/// Elements of a shape, multiplied in order as the reference does; `None` when that overflows.
pub(super) fn elements_of(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n))
}

/// Bytes of a dense tensor; `None` when they do not fill blocks or cannot be counted.
pub(super) fn bytes_of(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    elements_of(shape).and_then(|n| dtype.bytes_of(n))
}

/// A damaged file: what is wrong, and where.
pub(super) fn corrupted(path: &Path, offset: u64, what: impl std::fmt::Display) -> Error {
    let message = format!("read {}: {what} (at byte {offset})", path.display());
    Error::new(ErrorKind::Corrupted, message)
        .with_path(path)
        .with_offset(offset)
}

/// A file that says something this library does not know.
pub(super) fn unknown(path: &Path, offset: u64, what: impl std::fmt::Display) -> Error {
    let message = format!("read {}: {what} (at byte {offset})", path.display());
    Error::new(ErrorKind::NotSupported, message)
        .with_path(path)
        .with_offset(offset)
}
