//! Every struct and constant of the header has the layout and value that Rust has. The checks are
//! written by ctest2 in build.rs; enums, which ctest2 passes over, are pinned by `abi_status.rs`.
//!
//! `cargo test --features abi-check --test abi_layout`

#![allow(bad_style, reason = "names of C, and code that ctest2 wrote")]
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "code that ctest2 wrote"
)]
#![allow(
    unused,
    improper_ctypes,
    missing_docs,
    reason = "code that ctest2 wrote"
)]
#![allow(unsafe_op_in_unsafe_fn, clippy::print_stdout, clippy::print_stderr)]

use core::ffi::{c_char, c_void};
use gds_rs::ffi::types::*;

include!(concat!(env!("OUT_DIR"), "/abi_layout.rs"));
