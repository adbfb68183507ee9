//! Every struct, enum, callback type and constant of the header, a file a header section.
//!
//! The rules that keep layouts the same for every compiler and version: fixed-width fields, no
//! bool, bitfield or enum inside a struct, no implicit padding, `struct_size` first where a struct
//! may grow. These files hold plain items in syntax of 2018, because ctest2 reads them
//! (`tests/abi_layout.rs`); asserts and conversions live with the functions.

mod array;
mod arrow;
mod arrow_c;
mod batch;
mod buffer;
mod cache;
mod columns;
mod config;
mod context;
mod device;
mod dlpack;
mod elf;
mod file;
mod format;
mod kv;
mod kv_device;
mod kv_stats;
mod parquet;
mod pipeline;
mod prefetch;
mod reader;
mod region;
mod report;
mod tensor;
mod transfer;
mod writer;

pub use array::*;
pub use arrow::*;
pub use arrow_c::*;
pub use batch::*;
pub use buffer::*;
pub use cache::*;
pub use columns::*;
pub use config::*;
pub use context::*;
pub use device::*;
pub use dlpack::*;
pub use elf::*;
pub use file::*;
pub use format::*;
pub use kv::*;
pub use kv_device::*;
pub use kv_stats::*;
pub use parquet::*;
pub use pipeline::*;
pub use prefetch::*;
pub use reader::*;
pub use region::*;
pub use report::*;
pub use tensor::*;
pub use transfer::*;
pub use writer::*;
