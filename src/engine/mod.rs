//! Moves bytes between files and memory. The only room that sees device and io together.
//!
//! A transfer becomes a job of pieces (`plan`); each piece takes a path: straight to host
//! memory, through pinned staging with O_DIRECT or out of the page cache, or through cuFile.
//! Small transfers run in the caller's thread (`inline`), all others on transfer threads
//! (`worker`), each with its own queue, stream and pinned slots.
//!
//! Invariants: no memory is freed or handed back while the kernel or the device may still touch
//! it (deadlines and cancels stop what has not started and wait for what has); a piece is
//! delivered once; bytes after the end of a file are never reported. The room never interprets
//! what it moves; what it decompresses and decodes it hands to kernels. Guarded by
//! `tests/engine_*.rs`.

mod buffer;
mod bytes;
mod choice;
mod context;
mod crc;
mod decode;
mod decode_nested;
mod decompress;
mod decompress_library;
mod explain;
mod file;
mod identity;
mod inline;
mod job;
mod kernel_slot;
mod order;
mod plan;
mod shared;
mod slot;
mod staging;
mod stopwatch;
mod stream;
mod ticket;
mod transfer;
mod trial;
mod worker;

pub use buffer::Buffer;
pub use context::Context;
pub use decode::{BadPage, EncodedPage, PageChunk, PageColumn, PageMemory, Part, SoFar, TakeBytes};
pub use decode_nested::{BadLevels, LevelNode, LevelPage, LevelWay, Levels, NodePlace, PageLevels};
pub use decompress::{Compressed, Decompressed, warps_pay};
pub use explain::{Explanation, Way};
pub use file::File;
pub use order::{Copy, Mark};
pub use ticket::Ticket;
pub use transfer::{Completion, Options, Path, Segment, Sequence, Transfer};

// What rooms above say to the engine, so that they need neither `device` nor `io`.
pub use crate::device::{
    DecompressCodec, DecompressStatus, HostPages, MemoryKind, ParquetConversion, ParquetEncoding,
    ParquetStatus, Stream,
};
pub use crate::io::{OpenMode, Operation};
