//! Ground: small pure helpers that every room may use and that use no other room.
//!
//! Holds alignment arithmetic, CRC32C, the monotonic clock and every MAX of the project.
//! It must never do I/O, allocate device memory or know an error type.

#![forbid(unsafe_code)]

mod align;
pub mod clock;
pub mod crc;
pub mod limits;

pub use align::{align_down, align_up, is_aligned};
