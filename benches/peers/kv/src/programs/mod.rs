//! What is measured.

pub mod durable;
pub mod large;
pub mod reads;
pub mod recover;
pub mod timeseries;
pub mod tpcc;
pub mod ycsb;
