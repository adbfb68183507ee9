//! gds_rs moves bytes between storage and device memory as fast as the machine allows: with
//! GPUDirect Storage, without it, and with no GPU at all.
//!
//! The C ABI (`include/gds_rs.h`) is the product; these modules are the rooms behind it and the
//! Rust API. Rooms use lower rooms only; `tests/layers.rs` enforces it.

pub mod base;
pub mod cache;
pub mod config;
pub mod device;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod formats;
pub mod io;
pub mod kv;
pub mod metrics;
pub mod prefetch;

pub use config::{Config, Profile};
pub use error::{Error, ErrorKind, Result};

#[cfg(feature = "cli")]
pub mod cli;
