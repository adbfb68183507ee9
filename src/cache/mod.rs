//! Pages of files kept in device memory.
//!
//! This room keeps what was read for the next time it is wanted. It must never open a file or
//! touch a device itself: all I/O and all copies go through `engine`.

#![deny(unsafe_code)]

pub mod policy;
