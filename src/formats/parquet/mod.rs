//! Parquet: columns of a file, decoded into memory of a context in the layout of Arrow.
//!
//! Footer, statistics, page indexes and bloom filters are read when somebody asks, and a selection
//! of columns and rows says which pages are read at all (`select`, `prune`, `fetch`). Their bytes
//! come through the engine, are decrypted (`crypto`), their headers walked and their CRCs compared
//! (`pages`, `chunks`). Where the device has kernels they decode what they know (`target`,
//! `shape`, `device`, `nested`), and pages without a CRC go there straight from the file; the
//! official crate decodes the rest (`decode`), which is placed: piece by piece while it is decoded
//! (`straight`), and where columns are nested when it is whole (`place`). There is one layout,
//! whoever did it.
//!
//! Memory: the bytes that are read, and twice the decoded columns. Where pieces go to their place
//! at once it is less: on the host device the columns once and what one thread is ahead of another,
//! on others a piece a thread and texts whose length the file does not tell. A page of gzip may
//! make 1032 times its bytes before it is refused. What a file claims beyond the limit of the
//! selection is refused before it is allocated. On the device: the decoded columns, and for the
//! encoded bytes, the decompressed ones and what is in between some GiB at a time (`lots`), of
//! nested columns all at once.
//!
//! The format: github.com/apache/parquet-format.

mod bits;
mod chunks;
mod crypto;
mod decode;
mod deltas;
mod device;
mod failure;
mod fetch;
mod footer;
mod info;
mod load;
mod lots;
mod nested;
mod output;
mod pages;
mod place;
mod prune;
mod reader;
mod repair;
mod select;
mod shape;
mod straight;
mod target;
mod texts;
mod thrift;

#[doc(hidden)]
pub mod fuzzing;

pub use crypto::Keys;
pub use info::{ChunkInfo, ColumnInfo, FileInfo, RowGroupInfo};
pub use load::Batches;
pub use pages::{Page, PageHeader, PageKind};
pub use prune::{Compare, Predicate, Value};
pub use reader::Parquet;
pub use select::{Part, Selection};
