//! The page cache: pages of files in device memory, read once and kept while they are used.
//!
//! A hit searches the page table (`table`), pins the page by one atomic addition (`word`) and
//! returns: no lock, no allocation, no system call. Everything else happens under the lock of one
//! shard (`shard`): misses (`demand`), reads ahead (`ahead`), making room (`room`, by `policy`) and
//! writing back (`write_back`, `flusher`). The lock is never held during I/O. Arrays for kernels
//! (`array`) have pages and a table of their own.
//!
//! Invariants: a pinned page does not move or go; a page is read by one thread while all others
//! that want it sleep; a changed page goes only after it was written, and is never written twice
//! at once; when everything is pinned the answer says so. The room must not look into pages, and
//! knows no device and no file system but through the engine. Guarded by `tests/cache_*.rs`.

#![deny(unsafe_code)]

mod ahead;
pub mod array;
mod bytes;
mod config;
mod core;
mod demand;
mod files;
mod fill;
mod flusher;
mod handle;
mod host_tier;
mod key;
mod page;
pub mod policy;
mod room;
mod shard;
mod stats;
mod table;
pub mod word;
mod write_back;

pub use config::CacheConfig;
pub use handle::{Cache, Presence};
pub use page::Page;
pub use policy::PolicyKind;
pub use stats::CacheStats;
