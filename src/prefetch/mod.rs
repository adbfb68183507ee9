//! Reads what a program will want before it asks, and keeps storage busy while it works.
//!
//! `reader` streams files through a few device buffers, chunk by chunk, and `writer` the other
//! way; `pipeline` takes single requests, joins those that touch and moves them a bounded number
//! at a time. `scheduler` watches the accesses of a file (`pattern`, `predictor`), decides how far
//! ahead to read (`window`) and has the cache read it, most urgent first (`queue`). `region` maps
//! ranges of files to device memory of their own.
//!
//! Nothing here touches device memory itself: bytes move through engine tickets alone. A buffer is
//! filled again only after its user has let go of it, and no memory is given back while a transfer
//! or a marked stream may still use it. Reading ahead is a guess: it never waits, never fails a
//! program, never takes more than an eighth of the cache, and stops where it does not pay. A
//! region that a program holds is never evicted, and what was marked dirty is never lost. Guarded
//! by `tests/prefetch_*.rs`.

#![forbid(unsafe_code)]

mod ahead;
mod chunks;
pub mod pattern;
pub mod pipeline;
mod plan;
pub mod predictor;
pub mod queue;
pub mod reader;
pub mod region;
mod requests;
pub mod scheduler;
mod streaming;
pub mod target;
pub mod window;
pub mod writer;

pub use chunks::Range;
pub use pattern::{Detector, Pattern};
pub use pipeline::{Pipeline, PipelineConfig, PipelineInfo};
pub use predictor::Predictor;
pub use reader::Reader;
pub use region::{Region, RegionConfig, RegionStats, Regions};
pub use requests::{Callback, Done, Request};
pub use scheduler::{PrefetchConfig, PrefetchStats, Prefetcher};
pub use streaming::{BufferState, Chunk, ReaderConfig, ReaderInfo, default_chunk};
pub use target::{CachedFile, Presence, Target};
pub use window::Window;
pub use writer::{Space, Writer, WriterConfig};
