//! Parquet files: cargo +nightly fuzz run parquet

#![no_main]

use std::sync::OnceLock;

use gds_rs::engine::Context;
use gds_rs::formats::parquet::fuzzing;
use libfuzzer_sys::fuzz_target;

static CONTEXT: OnceLock<Context> = OnceLock::new();

/// The crates that decode panic at some bad input, which the library answers as damage: only
/// panics of its own code are a finding.
fn begin() -> Context {
    let finding = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or("", |place| place.file());
        if !place.contains("/index.crates.io-") {
            finding(info);
        }
    }));
    fuzzing::context().unwrap_or_else(|e| panic!("{e}"))
}

fuzz_target!(|input: &[u8]| {
    if let Err(what) = fuzzing::run(CONTEXT.get_or_init(begin), input) {
        panic!("{what}");
    }
});
