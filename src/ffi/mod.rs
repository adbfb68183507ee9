//! The C ABI: check, convert, call, convert back. `include/gds_rs.h` is generated from here.
//!
//! A file per section of the header, spelled alike in both languages. The room holds no logic of
//! its own: a body that grows past 15 lines belongs to a room below. Every body runs in `guard`,
//! so no panic crosses; every handle goes through `handle`, so a wrong one is answered and not
//! followed; every struct goes through `convert`, so callers may be older or newer. What a caller
//! must promise is in the header's text, which is written for the reader of C, not of Rust.
//! `docs/abi.md` says what will never change. Guarded by `tests/header.rs`, `tests/abi_*.rs`,
//! `tests/ffi_misuse.rs` and the tests beside `handle`, `guard`, `convert` and `log`.

// The text of each function is the header's; its safety contract stands there in C terms.
#![allow(clippy::missing_safety_doc)]
// Names are those of C.
#![allow(non_camel_case_types)]

#[cfg(feature = "arrow")]
mod arrow_export;
#[cfg(feature = "arrow")]
mod arrow_given;
#[cfg(not(feature = "arrow"))]
mod arrow_none;
#[cfg(feature = "arrow")]
mod arrow_stream;
#[cfg(feature = "arrow")]
mod columns_given;
#[cfg(not(feature = "arrow"))]
mod columns_none;
mod convert;
mod guard;
mod handle;
mod held;
#[cfg(feature = "parquet")]
mod parquet_given;
#[cfg(not(feature = "parquet"))]
mod parquet_none;

pub mod array;
pub mod arrow;
pub mod batch;
pub mod buffer;
pub mod cache;
pub mod columns;
pub mod config;
pub mod context;
pub mod crc;
pub mod device;
pub mod dlpack;
pub mod elf;
pub mod elf_plan;
pub mod elf_tables;
pub mod error;
pub mod explain;
pub mod file;
pub mod format;
pub mod kv;
pub mod kv_commit;
pub mod kv_device;
pub mod kv_report;
pub mod kv_scan;
pub mod kv_writer;
pub mod log;
pub mod parquet;
pub mod pipeline;
pub mod prefetch;
pub mod reader;
pub mod region;
pub mod status;
pub mod tensor;
pub mod ticket;
pub mod transfer;
pub mod types;
pub mod version;
pub mod writer;
