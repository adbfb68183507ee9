//! Reads what a program will want before it asks, and keeps ranges of files in device memory.
//!
//! `scheduler` watches the accesses of a file (`pattern`, `predictor`), decides how far ahead to
//! read (`window`) and has the cache read it, most urgent first (`queue`). `region` maps ranges of
//! files to device memory of their own.
//!
//! Reading ahead is a guess: it never waits, never fails a program, never takes more than an
//! eighth of the cache, and stops where it does not pay. A region that a program holds is never
//! evicted, and what was marked dirty is never lost. Guarded by `tests/prefetch_*.rs`.

#![forbid(unsafe_code)]

mod ahead;
pub mod pattern;
mod plan;
pub mod predictor;
pub mod queue;
pub mod region;
pub mod scheduler;
pub mod target;
pub mod window;

pub use pattern::{Detector, Pattern};
pub use predictor::Predictor;
pub use region::{Region, RegionConfig, RegionStats, Regions};
pub use scheduler::{PrefetchConfig, PrefetchStats, Prefetcher};
pub use target::{CachedFile, Done, Presence, Target};
pub use window::Window;
