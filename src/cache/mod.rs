//! Pages of files in device memory.
#![deny(unsafe_code)]

pub mod array;
