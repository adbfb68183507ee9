//! The copy kernel's device functions, compiled for the processor, move exactly the right bytes.
//!
//! The same source that nvcc compiles is built with the C++ compiler, and a loop stands for the
//! lanes of a warp. That build traps on a vector that is misaligned or sticks out of its piece, and
//! the memory lies between pages that cannot be touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::ffi::{CString, c_void};
use std::path::Path;

use gds_rs::device::CopyPiece;

type CopyOnHost = unsafe extern "C" fn(*const CopyPiece, u64, u64);

fn kernel() -> CopyOnHost {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "libcopy_pieces_{}_{:?}.so",
        std::process::id(),
        std::thread::current().id()
    ));
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
        .arg(root.join("kernels/copy_pieces.cu"))
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
    // SAFETY: the handle is open and the name is NUL-terminated.
    let symbol = unsafe { libc::dlsym(handle, c"gds_copy_pieces_on_host".as_ptr()) };
    assert!(!symbol.is_null());
    std::fs::remove_file(&library).ok();
    // SAFETY: the kernel source declares this function with this signature; it stays loaded.
    unsafe { std::mem::transmute::<*mut c_void, CopyOnHost>(symbol) }
}

/// Memory between two pages that cannot be touched.
struct Guarded {
    base: *mut u8,
    usable: usize,
}

impl Guarded {
    fn new(usable: usize) -> Self {
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

    fn bytes(&mut self) -> &mut [u8] {
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

fn pattern(i: usize) -> u8 {
    (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1
}

#[test]
fn every_alignment_and_size_is_copied_exactly() {
    let copy = kernel();
    let mut source = Guarded::new(3 * 4096);
    let mut target = Guarded::new(3 * 4096);
    let source_size = source.usable;
    for (i, byte) in source.bytes().iter_mut().enumerate() {
        *byte = pattern(i);
    }
    let sizes = (0..=100).chain([511, 512, 513, 4095, 4096, 4097]);
    let mut checked = 0;
    for size in sizes {
        // Up against the page before, then up against the page behind.
        let starts = (0..32).chain((0..32).map(|from| source_size - size - from));
        for start in starts {
            for to in 0..32 {
                for warps in [1, 3] {
                    let window = to + size + 64;
                    target.bytes()[..window].fill(0);
                    let piece = CopyPiece {
                        source: source.base as u64 + start as u64,
                        destination: target.base as u64 + to as u64,
                        size: size as u64,
                    };
                    // SAFETY: both ranges of the piece are mapped.
                    unsafe { copy(&piece, 1, warps) };
                    let got = &target.bytes()[..window];
                    assert!(
                        got[..to].iter().all(|b| *b == 0)
                            && got[to + size..].iter().all(|b| *b == 0),
                        "wrote outside: size {size} from {start} to {to} warps {warps}"
                    );
                    assert!(
                        got[to..to + size] == source.bytes()[start..start + size],
                        "wrong bytes: size {size} from {start} to {to} warps {warps}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 107 * 64 * 32 * 2);
}

#[test]
fn every_piece_is_copied_once_however_many_warps_there_are() {
    let copy = kernel();
    let count = 37;
    let mut source = Guarded::new(1 << 20);
    let mut target = Guarded::new(1 << 20);
    for (i, byte) in source.bytes().iter_mut().enumerate() {
        *byte = pattern(i);
    }
    let mut expected = vec![0; target.usable];
    let mut pieces = Vec::new();
    let mut at = 0;
    for i in 0..count {
        let size = 1 + i * 701;
        let from = (i * 27_001 + i) % (source.usable - size);
        pieces.push(CopyPiece {
            source: source.base as u64 + from as u64,
            destination: target.base as u64 + at as u64,
            size: size as u64,
        });
        expected[at..at + size].copy_from_slice(&source.bytes()[from..from + size]);
        at += size + 5;
    }
    for warps in [1, 2, 36, 37, 38, 74, 200, 1056] {
        target.bytes().fill(0);
        // SAFETY: every range of every piece is mapped, and destinations do not overlap.
        unsafe { copy(pieces.as_ptr(), pieces.len() as u64, warps) };
        assert!(target.bytes() == &expected[..], "{warps} warps");
    }
}
