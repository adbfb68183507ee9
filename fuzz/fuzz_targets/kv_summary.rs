#![no_main]

use gds_rs::kv::selftest::fuzzing::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Err(what) = Target::Summary.run(input) {
        panic!("{what}");
    }
});
