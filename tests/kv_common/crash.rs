//! The crash check of the library, as the tests of the store use it.

use gds_rs::kv::sim::SimDisk;
use gds_rs::kv::store::Located;

// Not every test has crashes.
#[allow(unused_imports)]
pub use gds_rs::kv::selftest::*;

/// Reads what `located` names, past the store.
pub fn read_located(disk: &SimDisk, located: &Located) -> Vec<u8> {
    gds_rs::kv::selftest::read_located(disk, located).expect("a read")
}
