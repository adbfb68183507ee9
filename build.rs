//! Link arguments of the shared library. Users need nothing else from a build script.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    let minor = std::env::var("CARGO_PKG_VERSION_MINOR").unwrap_or_default();
    // Before 1.0 every minor version may break the ABI, so the minor is part of the soname.
    let soname = if major == "0" {
        format!("libgds_rs.so.0.{minor}")
    } else {
        format!("libgds_rs.so.{major}")
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // Threads and atfork handlers of ours may outlive a dlclose: the code must stay mapped.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
