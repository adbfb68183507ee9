//! Which library this is, and whether a header fits it.

use core::ffi::{CStr, c_char};

use super::error::Failure;
use super::guard::guard;
use super::status::gds_status_t;

/// A decimal number of Cargo's environment.
const fn number(text: &str) -> u32 {
    let digits = text.as_bytes();
    let (mut value, mut at) = (0, 0);
    while at < digits.len() {
        value = value * 10 + (digits[at] - b'0') as u32;
        at += 1;
    }
    value
}

const MAJOR: u32 = number(env!("CARGO_PKG_VERSION_MAJOR"));
const MINOR: u32 = number(env!("CARGO_PKG_VERSION_MINOR"));
const PATCH: u32 = number(env!("CARGO_PKG_VERSION_PATCH"));
/// As GDS_RS_VERSION_NUMBER in the header.
const NUMBER: u32 = MAJOR * 10_000 + MINOR * 100 + PATCH;
const _: () = assert!(MINOR < 100 && PATCH < 100);

const STRING: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version has no NUL"),
    };

/// The version of the library that runs: major * 10000 + minor * 100 + patch.
///
/// GDS_RS_VERSION_NUMBER is the same number of the header. Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn gds_version() -> u32 {
    NUMBER
}

/// The version of the library that runs as a text, "0.1.0". Never NULL; static.
#[unsafe(no_mangle)]
pub extern "C" fn gds_version_string() -> *const c_char {
    STRING.as_ptr()
}

/// Check that a program built with the header of `header_version` may use this library.
///
/// Programs that dlopen the library call this first; linked programs are held to it by the
/// soname. Before 1.0 major and minor must be equal, from 1.0 on the major; and the library
/// must not be older than the header.
///
/// @param header_version  GDS_RS_VERSION_NUMBER.
/// @return GDS_STATUS_ABI_MISMATCH: it may not; the message names both versions.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn gds_check_abi(header_version: u32) -> gds_status_t {
    guard(|| {
        if fits(header_version, NUMBER) {
            return Ok(());
        }
        let (major, rest) = (header_version / 10_000, header_version % 10_000);
        Err(Failure::own(
            gds_status_t::GDS_STATUS_ABI_MISMATCH,
            format!(
                "the program was built with gds_rs.h {major}.{}.{} and runs with library {}; \
                 install the library of the header, or build again",
                rest / 100,
                rest % 100,
                env!("CARGO_PKG_VERSION")
            ),
        ))
    })
}

fn fits(header: u32, library: u32) -> bool {
    let series = |version: u32| {
        let major = version / 10_000;
        (major, if major == 0 { version / 100 } else { 0 })
    };
    series(header) == series(library) && header <= library
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_fits_its_own_series_and_no_newer_one() {
        assert!(fits(NUMBER, NUMBER));
        assert!(
            fits(100, 103) && !fits(103, 100),
            "0.1.0 on 0.1.3, not back"
        );
        assert!(!fits(100, 200) && !fits(200, 100), "0.1 and 0.2");
        assert!(
            fits(10_000, 10_203) && !fits(10_203, 10_000),
            "1.0.0 on 1.2.3, not back"
        );
        assert!(!fits(9_900, 10_000) && !fits(10_000, 20_000));
    }
}
