//! Reads what a program will want before it asks, and keeps storage busy while it works.
//!
//! `reader` streams files through a few device buffers, chunk by chunk, and `writer` the other
//! way; `pipeline` takes single requests, joins those that touch and moves them a bounded number
//! at a time.
//!
//! Nothing here touches device memory itself: bytes move through engine tickets alone. A buffer is
//! filled again only after its user has let go of it, and no memory is given back while a transfer
//! or a marked stream may still use it. Guarded by `tests/prefetch_*.rs`.

#![forbid(unsafe_code)]

mod chunks;
mod requests;
mod streaming;

pub mod pipeline;
pub mod reader;
pub mod writer;

pub use chunks::Range;
pub use pipeline::{Pipeline, PipelineConfig, PipelineInfo};
pub use reader::Reader;
pub use requests::{Callback, Done, Request};
pub use streaming::{BufferState, Chunk, ReaderConfig, ReaderInfo};
pub use writer::{Space, Writer, WriterConfig};
