//! Arrow IPC files, streams and pipes: cargo +nightly fuzz run arrow_ipc

#![no_main]

#[path = "../../tests/formats_support/arrow_drive.rs"]
mod arrow_drive;

use std::sync::LazyLock;

use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::engine::Context;
use libfuzzer_sys::fuzz_target;

static CONTEXT: LazyLock<Context> = LazyLock::new(|| {
    let config = Config {
        gpu_device: DEVICE_HOST,
        ..Config::default()
    };
    Context::open(config).expect("a host context opens")
});

fuzz_target!(|bytes: &[u8]| {
    arrow_drive::drive(&CONTEXT, bytes);
});
