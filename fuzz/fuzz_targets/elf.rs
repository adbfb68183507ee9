#![no_main]

use gds_rs::ErrorKind;
use gds_rs::formats::elf::fuzzing::read_all;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(error) = read_all(input).error {
        let damaged = error.kind() == ErrorKind::Corrupted;
        assert!(!damaged || error.offset().is_some(), "{error}");
    }
});
