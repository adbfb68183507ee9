//! Arrow IPC, file and stream: chosen columns of chosen batches into device memory.
//!
//! Metadata is verified by the official crates; which buffers of a body an array has, where they
//! go and whether they can be trusted is said here. A body that is not compressed goes from the
//! file to its place on the device without another copy; each buffer begins at a multiple of 64.
//! What is compressed is decompressed on the device where it has a kernel for that and enough to
//! do, else by threads of the host.
//!
//! Memory: metadata takes at most 16 times its size in the file. A batch takes the bytes of its
//! wanted buffers, 64 more for each and a page for each large read; buffers of a body that share
//! bytes are refused. What is compressed takes what it claims, at most 255 times its size for
//! LZ4 and 32,768 for Zstandard, beyond which no frame of theirs can go.
//!
//! Facts: arrow.apache.org/docs/format/Columnar.html and the flatbuffers of the Arrow repository.
//! Guarded by `tests/formats_arrow_*.rs`.

mod body;
mod codec;
mod index;
mod join;
mod layout;
mod load;
mod message;
mod pipe;
mod reader;
mod schema;
mod text;
mod unpack;
mod validate;

pub use body::BatchPlan;
pub use index::ArrowForm;
pub use join::to_host;
pub use load::{Batches, LoadOptions};
pub use message::Codec;
pub use pipe::ArrowPipe;
pub use reader::{ArrowReader, BatchInfo};
pub use unpack::Unpack;
pub use validate::validate;
