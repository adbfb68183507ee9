//! Every type, field, constant and function type of src/io/cufile/sys.rs is that of NVIDIA's own
//! cufile.h, of the newest version that scripts/fetch-cufile has put into .deps/cufile. The checks
//! are written by ctest2 in build.rs, which says what is left to `cufile_layout.rs`. A type that
//! differs stops the build script at gcc's message; a size, place or value fails here.
//!
//! `cargo test --features abi-check --test cufile_ctest`

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
    missing_debug_implementations,
    reason = "code that ctest2 wrote"
)]
#![allow(unsafe_op_in_unsafe_fn, clippy::print_stdout, clippy::print_stderr)]

use std::ffi::{c_int, c_long, c_uint, c_void};

use gds_rs::io::cufile::sys::*;

include!(concat!(env!("OUT_DIR"), "/cufile_ctest.rs"));
