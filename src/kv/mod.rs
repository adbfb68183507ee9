//! The durable key-value store: keys and references in memory, bytes in one file or block device.
//!
//! What is here: `disk`, the few things that a store asks of a disk, and the real ones; `sim`, a
//! disk in memory that tells what a crash may leave; `superblock`, the root of a store; `wal`,
//! the log with group commit and its recovery; `store`, index, values, checkpoints and cleaning
//! over these; `device`, values in device memory; `selftest`, the crash check that ships. Byte
//! layout: `docs/format-kv.md`.
//!
//! Invariants: what was acknowledged is there after a crash; what is recovered is a prefix of the
//! order of commits, each whole; bytes whose checksum is wrong are an error, never a result;
//! after a failed flush the store refuses writes until it is opened again. No thread spins, and an
//! idle store costs no processor time. The room must never answer bytes that it has not verified,
//! and never tries a failed sync again. Guarded by `tests/kv_*.rs`.

#![deny(unsafe_code)]

pub mod bugs;
pub mod device;
pub mod disk;
pub mod selftest;
pub mod sim;
mod sized;
pub mod store;
pub mod superblock;
mod sync;
pub mod wal;

/// The unit of every read, write and offset of a store, bytes.
pub use disk::BLOCK;
