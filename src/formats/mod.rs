//! Formats: a column, a tensor or a section of a file, by its name, into device memory.
//!
//! A reader of a format looks at metadata through a [`Source`], in ordinary memory, and answers
//! with a [`Plan`]: which ranges of the file go where. The plan is read by the engine, straight to
//! its destination where the bytes are plain; what is encoded is decoded where it lands.
//!
//! Never: trust a count, a length or an offset of a file before it was checked; allocate more than
//! the file can fill; read what nobody asked for. A damaged file gives an error with the offset.
//!
//! Guarded by `tests/formats_*.rs`.

#![forbid(unsafe_code)]

#[cfg(feature = "arrow")]
mod array;
#[cfg(feature = "arrow")]
pub mod arrow;
mod detect;
pub mod elf;
pub mod exchange;
#[doc(hidden)]
pub mod fuzzing;
pub mod gguf;
#[cfg(feature = "parquet")]
pub mod parquet;
mod plan;
pub mod safetensors;
mod source;
pub mod tensor;
#[cfg(feature = "arrow")]
#[cfg_attr(not(feature = "parquet"), allow(dead_code))]
mod work;

#[cfg(feature = "arrow")]
pub use array::{Array, Batch, Slice};
pub use detect::{Detected, Format, detect};
pub use plan::{Load, Outline, Piece, Plan, ReadOptions, Started, Window, WindowPart};
pub use source::{FileSource, MemorySource, Source};
