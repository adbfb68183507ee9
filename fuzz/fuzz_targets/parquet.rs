#![no_main]

use std::sync::OnceLock;

use gds_rs::engine::Context;
use gds_rs::formats::parquet::fuzzing;
use libfuzzer_sys::fuzz_target;

static CONTEXT: OnceLock<Context> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let context = CONTEXT.get_or_init(|| fuzzing::context().unwrap_or_else(|e| panic!("{e}")));
    if let Err(what) = fuzzing::run(context, input) {
        panic!("{what}");
    }
});
