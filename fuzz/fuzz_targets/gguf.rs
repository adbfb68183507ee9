#![no_main]

use gds_rs::formats::fuzzing::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Err(what) = Target::Gguf.run(input) {
        panic!("{what}");
    }
});
