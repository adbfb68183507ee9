//! What tests of arrays share: kernels for the host device.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::ffi::{CString, c_void};
use std::path::Path;
use std::sync::OnceLock;

fn library() -> *mut c_void {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    let build = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("libarray_host_{}.so", std::process::id()));
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let compiler = cc::Build::new()
            .cpp(true)
            .target(&target)
            .host(&target)
            .opt_level(2)
            .cargo_metadata(false)
            .get_compiler();
        let output = compiler
            .to_command()
            .args(["-std=c++17", "-shared", "-fPIC", "-pthread", "-Wall"])
            .args(["-Wextra", "-Werror", "-Wno-unused-function"])
            .arg(format!("-I{}", root.join("include").display()))
            .arg(root.join("tests/fixtures/array_host.cpp"))
            .arg("-o")
            .arg(&library)
            .output()
            .expect("the C++ compiler runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let path = CString::new(library.to_string_lossy().as_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated, and the library has no constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{} loads", library.display());
        std::fs::remove_file(&library).ok();
        handle as usize
    };
    *LIBRARY.get_or_init(build) as *mut c_void
}

/// A function of tests/fixtures/array_host.cpp; `F` is its type there.
pub fn kernel<F: Copy>(name: &str) -> F {
    let name = CString::new(name).unwrap();
    // SAFETY: the handle stays open and the name is NUL-terminated.
    let symbol = unsafe { libc::dlsym(library(), name.as_ptr()) };
    assert!(!symbol.is_null(), "{name:?}");
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    // SAFETY: the caller names the function's type; it stays loaded.
    unsafe { std::mem::transmute_copy(&symbol) }
}
