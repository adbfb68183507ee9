//! One version everywhere: Cargo.toml, the header's parts, its composed number, the library.

mod abi_common;

use std::ffi::CStr;

use abi_common::header;
use gds_rs::ffi::status::gds_status_t;
use gds_rs::ffi::version::{gds_check_abi, gds_version, gds_version_string};

fn define(name: &str) -> String {
    let header = header();
    let start = format!("#define GDS_RS_{name} ");
    let line = header.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("the header defines GDS_RS_{name}"))
        .trim_matches('"')
        .to_owned()
}

fn number(name: &str) -> u32 {
    define(name).parse().expect("a number")
}

#[test]
fn header_cargo_and_library_agree() {
    let (major, minor, patch) = (
        number("VERSION_MAJOR"),
        number("VERSION_MINOR"),
        number("VERSION_PATCH"),
    );
    assert_eq!(
        format!("{major}.{minor}.{patch}"),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        number("VERSION_NUMBER"),
        major * 10_000 + minor * 100 + patch
    );
    assert_eq!(gds_version(), number("VERSION_NUMBER"));
    // SAFETY: never NULL, NUL-terminated, static.
    let text = unsafe { CStr::from_ptr(gds_version_string()) };
    assert_eq!(text.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    assert_eq!(define("SONAME"), abi_common::soname());
}

#[test]
fn the_library_takes_its_own_header_and_no_other_series() {
    let own = number("VERSION_NUMBER");
    assert_eq!(gds_check_abi(own), gds_status_t::GDS_STATUS_OK);
    for other in [0, own + 1, own + 100, own + 10_000, u32::MAX] {
        assert_eq!(
            gds_check_abi(other),
            gds_status_t::GDS_STATUS_ABI_MISMATCH,
            "{other}"
        );
    }
}
