//! What the tests of the kernels share: their source compiled for the processor, and memory between
//! pages that cannot be touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(dead_code, clippy::missing_panics_doc, clippy::missing_safety_doc)]

use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::sync::Mutex;

/// A function of a kernel's source, compiled with the C++ compiler, once a process. It stays loaded.
pub fn compiled(source: &'static str, function: &CStr) -> *mut c_void {
    static LOADED: Mutex<Vec<(&str, usize)>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(|e| e.into_inner());
    let handle = match loaded.iter().find(|(of, _)| *of == source) {
        Some((_, handle)) => *handle,
        None => {
            let handle = library(source) as usize;
            loaded.push((source, handle));
            handle
        }
    };
    // SAFETY: the handle is open and the name is NUL-terminated.
    let symbol = unsafe { libc::dlsym(handle as *mut c_void, function.as_ptr()) };
    assert!(!symbol.is_null());
    symbol
}

fn library(source: &str) -> *mut c_void {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = format!("libkernel_{}_{source}.so", std::process::id());
    // The folder is missing where the test program was built elsewhere.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).expect("a folder for the compiled kernels");
    let library = folder.join(name);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiler = cc::Build::new()
        .cpp(true)
        .target(&target)
        .host(&target)
        .opt_level(1)
        .cargo_metadata(false)
        .get_compiler();
    let output = compiler
        .to_command()
        .args([
            "-x",
            "c++",
            "-std=c++17",
            "-shared",
            "-fPIC",
            "-fno-strict-aliasing",
        ])
        .args([
            "-fsanitize=alignment,shift",
            "-fsanitize-undefined-trap-on-error",
        ])
        .args(["-Wall", "-Wextra", "-Werror"])
        .arg(root.join("kernels").join(source))
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
    // SAFETY: the path is a NUL-terminated string, and the library has no constructors.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{} loads", library.display());
    std::fs::remove_file(&library).ok();
    handle
}

/// Memory between two pages that cannot be touched.
pub struct Guarded {
    pub base: *mut u8,
    pub usable: usize,
}

impl Guarded {
    pub fn new(usable: usize) -> Self {
        let usable = usable.next_multiple_of(4096);
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                usable + 2 * 4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: the second page of that mapping.
        let base = unsafe { base.cast::<u8>().add(4096) };
        // SAFETY: the first page of that mapping, then its last.
        let guarded = unsafe {
            [base.sub(4096), base.add(usable)]
                .map(|p| libc::mprotect(p.cast(), 4096, libc::PROT_NONE))
        };
        assert_eq!(guarded, [0, 0]);
        Self { base, usable }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable and writable for `usable` bytes and lives with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.usable) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, unmapped once.
        unsafe { libc::munmap(self.base.sub(4096).cast(), self.usable + 2 * 4096) };
    }
}
