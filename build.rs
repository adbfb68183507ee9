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

    #[cfg(feature = "abi-check")]
    layout::generate();
}

/// The test program of `tests/abi_layout.rs`: ctest2 reads src/ffi/types and writes C and Rust
/// that compare every struct and constant with the header.
#[cfg(feature = "abi-check")]
mod layout {
    use std::path::{Path, PathBuf};

    pub fn generate() {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let types = out.join("abi_types.rs");
        std::fs::write(&types, all_types()).expect("OUT_DIR is writable");
        let mut config = ctest2::TestGenerator::new();
        config
            .header("gds_rs.h")
            .include("include")
            // The structs have a typedef of their own name; ctest2 does not know f64.
            .type_name(|name, _, _| if name == "f64" { "double" } else { name }.to_owned())
            // A function pointer has no sign; a handle has no layout.
            .skip_signededness(|name| name.ends_with("_fn") || name == "gds_cuda_stream_t")
            .skip_struct(|name| OPAQUE.contains(&name))
            .out_dir(&out);
        config.generate(&types, "abi_layout.rs");
        // Edition 2024 refuses the `extern` blocks that ctest2 writes.
        let path = out.join("abi_layout.rs");
        let text = std::fs::read_to_string(&path).expect("ctest2 wrote it");
        let text = text
            .replace("\nextern \"C\" {", "\nunsafe extern \"C\" {")
            .replace(
                "            extern \"C\" {",
                "            unsafe extern \"C\" {",
            );
        std::fs::write(&path, text).expect("OUT_DIR is writable");
    }

    /// Types that C sees by name alone.
    const OPAQUE: &[&str] = &[
        "gds_array_t",
        "gds_cache_t",
        "gds_context_t",
        "gds_file_t",
        "gds_buffer_t",
        "gds_ticket_t",
        "gds_reader_t",
        "gds_pipeline_t",
        "gds_writer_t",
        "gds_prefetch_t",
        "gds_region_set_t",
        "gds_region_t",
    ];

    /// src/ffi/types as one file, without what only a crate of many files needs.
    fn all_types() -> String {
        println!("cargo::rerun-if-changed=src/ffi/types");
        println!("cargo::rerun-if-changed=include/gds_rs.h");
        let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new("src/ffi/types"))
            .expect("the types are there")
            .map(|entry| entry.expect("an entry can be read").path())
            .filter(|path| !path.ends_with("mod.rs"))
            .collect();
        files.sort();
        let mut all = String::from("use core::ffi::{c_char, c_void};\n");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source file is text");
            for line in text
                .lines()
                .filter(|l| !l.starts_with("//!") && !l.starts_with("use "))
            {
                all.push_str(line);
                all.push('\n');
            }
        }
        all
    }
}
