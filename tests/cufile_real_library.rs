//! Our bindings against NVIDIA's own libcufile, on host memory, without a GPU.
//!
//! scripts/fetch-cufile fetches the library. It needs a udev record for the file's device and
//! loops for ever without /proc/modules, so each version runs in a child process with its own
//! mount namespace, where /run holds the record, and with a shim that answers /proc/modules with
//! an empty file where the kernel has none. The tests named `inside_` and `bare_` are what the
//! children run; they are ignored elsewhere.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gds_rs::io::cufile::{self, Entry, Handle, Library, StreamTransfer, sys};
use gds_rs::io::{FileDescriptors, OpenMode, Operation};
use gds_rs::{ErrorKind, Result};

const INSIDE: &str = "GDS_TEST_CUFILE_INSIDE";
/// Longest that a child may take; a library that loops is killed then.
const LIMIT: Duration = Duration::from_secs(120);
const KIB: usize = 1024;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
static const char *swap(const char *p) {
    return p && strcmp(p, "/proc/modules") == 0 ? "/dev/null" : p;
}
#define OPEN(name) int name(const char *p, int f, ...) { \
    va_list a; va_start(a, f); int m = va_arg(a, int); va_end(a); \
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); return next(swap(p), f, m); }
#define OPENAT(name) int name(int d, const char *p, int f, ...) { \
    va_list a; va_start(a, f); int m = va_arg(a, int); va_end(a); \
    int (*next)(int, const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
    return next(d, swap(p), f, m); }
#define FOPEN(name) FILE *name(const char *p, const char *m) { \
    FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, #name); return next(swap(p), m); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) FOPEN(fopen) FOPEN(fopen64)
"#;

// The parent.

/// Versions from 1.16 on, with their library: older ones need a GPU to open their driver.
fn libraries() -> Vec<(String, PathBuf)> {
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/cufile");
    let Ok(folder) = std::fs::read_dir(deps) else {
        return Vec::new();
    };
    let mut found: Vec<_> = folder
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let minor: u32 = name.strip_prefix("1.")?.split('.').next()?.parse().ok()?;
            let library = entry.path().join("nvidia/cu13/lib/libcufile.so.0");
            (minor >= 16 && library.is_file()).then_some((name, library))
        })
        .collect();
    found.sort();
    found
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("cufile-real")
        .join(name);
    let _old = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a scratch folder");
    path
}

/// `unshare` with a mount namespace, as root or as a user who becomes root inside.
fn unshare() -> Command {
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    let mut command = Command::new("unshare");
    command.arg(if root { "-m" } else { "-rm" });
    command
}

/// Why the real library cannot be run here.
fn obstacle() -> Option<&'static str> {
    if libraries().is_empty() {
        return Some("no libcufile of 1.16 or later in .deps/cufile; run scripts/fetch-cufile");
    }
    let probe = unshare()
        .args(["sh", "-c", "mount -t tmpfs tmpfs /run"])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return Some("unshare cannot make a mount namespace with a tmpfs here");
    }
    if !Path::new("/proc/modules").exists() && Command::new("gcc").arg("-v").output().is_err() {
        return Some("/proc/modules is missing, and there is no gcc to build the shim for it");
    }
    None
}

fn shim(folder: &Path) -> Option<PathBuf> {
    if Path::new("/proc/modules").exists() {
        return None;
    }
    let (source, shim) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SHIM).expect("the shim is written");
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&shim, &source])
        .arg("-ldl")
        .output()
        .expect("gcc runs");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    Some(shim)
}

/// Runs the tests that begin with `prefix` in a namespace, and answers what they printed.
fn run_inside(name: &str, library: &Path, prefix: &str, record: bool, with_shim: bool) -> String {
    let folder = scratch(&format!("{prefix}{name}"));
    let device = std::fs::metadata(&folder)
        .expect("the scratch folder")
        .dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let mut script = String::from("mount -t tmpfs tmpfs /run && mkdir -p /run/udev/data && ");
    if record {
        script.push_str(&format!(
            "printf 'E:ID_FS_USAGE=filesystem\\nE:ID_FS_TYPE=ext4\\n' \
             > /run/udev/data/b{major}:{minor} && "
        ));
    }
    script.push_str("exec env ${SHIM:+LD_PRELOAD=\"$SHIM\"} \"$0\" \"$@\"");
    let shim = shim(&folder).filter(|_| with_shim);
    let output = File::create(folder.join("output")).expect("a file");
    let mut child = unshare()
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().expect("this test's file"))
        .args(["--ignored", "--test-threads=1", "--nocapture", prefix])
        .current_dir(&folder)
        .env(INSIDE, &folder)
        .env(cufile::LIBRARY_VARIABLE, library)
        .env("SHIM", shim.unwrap_or_default())
        .env_remove("CUFILE_LOGFILE_PATH")
        .env_remove("CUFILE_ENV_PATH_JSON")
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a second descriptor"))
        .stderr(output)
        .process_group(0)
        .spawn()
        .expect("unshare starts");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break Some(status);
        }
        if start.elapsed() > LIMIT {
            // SAFETY: the group was made for this child, which is not reaped yet.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            child.wait().expect("a killed child ends");
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = std::fs::read_to_string(folder.join("output")).expect("output");
    let status = status.unwrap_or_else(|| panic!("{name}: still running after {LIMIT:?}\n{text}"));
    assert!(status.success(), "{name}: {status}\n{text}");
    assert!(
        !folder.join("cufile.log").exists(),
        "{name} left cufile.log behind\n{text}"
    );
    text
}

/// How many tests of this file begin with `prefix`, so that a filter that finds none fails.
fn count(prefix: &str) -> usize {
    include_str!("cufile_real_library.rs")
        .lines()
        .filter(|line| line.starts_with(&format!("fn {prefix}")))
        .count()
}

fn passed(text: &str, prefix: &str) {
    let line = format!("test result: ok. {} passed", count(prefix));
    assert!(
        text.contains(&line),
        "not every test of {prefix} ran:\n{text}"
    );
}

#[test]
fn the_genuine_library_does_what_our_bindings_expect() {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return;
    }
    for (version, library) in libraries() {
        passed(
            &run_inside(&version, &library, "inside_", true, true),
            "inside_",
        );
        println!(
            "libcufile {version}: {} tests passed on host memory",
            count("inside_")
        );
    }
}

#[test]
fn a_missing_record_is_refused_by_the_genuine_library_as_the_gate_says() {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return;
    }
    let device = std::fs::metadata(env!("CARGO_TARGET_TMPDIR"))
        .expect("the folder")
        .dev();
    if libc::major(device) == 0 {
        println!("skipped: the build folder is on no block device, so cuFile needs no record");
        return;
    }
    for (version, library) in libraries() {
        passed(
            &run_inside(&version, &library, "norecord_", false, true),
            "norecord_",
        );
    }
}

#[test]
fn a_kernel_without_modules_is_refused_before_the_library_hangs() {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return;
    }
    if Path::new("/proc/modules").exists() {
        println!("skipped: this kernel has /proc/modules, and nothing can hide it");
        return;
    }
    for (version, library) in libraries() {
        passed(
            &run_inside(&version, &library, "nomodules_", true, false),
            "nomodules_",
        );
    }
}

// The children.

/// The child's folder; `None` (with a word) when somebody runs the ignored tests by hand.
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn inside() -> Option<PathBuf> {
    let folder = std::env::var_os(INSIDE).map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: runs only as a child of the tests above");
    }
    folder
}

fn library() -> &'static Library {
    cufile::load().expect("the genuine library loads")
}

/// Bytes that differ from place to place.
fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn open(folder: &Path, name: &str, flags: i32) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags)
        .open(folder.join(name))
        .expect("a test file")
}

/// Memory that begins at this many bytes after a page.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl Memory {
    fn new(size: usize, after_page: usize) -> Self {
        let bytes = vec![0_u8; size + 2 * 4096];
        let start = bytes.as_ptr().align_offset(4096) + after_page;
        Self { bytes, start, size }
    }
}

impl std::ops::Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.size]
    }
}

impl std::ops::DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.size]
    }
}

/// A registered file of this many bytes of the pattern.
fn registered(folder: &Path, name: &str, size: usize, flags: i32) -> Handle {
    std::fs::write(folder.join(name), pattern(size)).expect("a test file");
    library()
        .register(open(folder, name, flags).as_raw_fd())
        .expect("it is registered")
}

/// Reads into host memory, which is named by its address (see `Handle::read`).
fn read(handle: &Handle, into: &mut [u8], size: usize, file: u64, memory: u64) -> Result<usize> {
    assert!(memory as usize + size <= into.len());
    // SAFETY: the slice holds what is asked for.
    unsafe { handle.read(into.as_mut_ptr() as u64 + memory, size, file, 0) }
}

/// Takes every free descriptor number under `number`, so that it is the next one to be given.
fn occupy_below(number: i32) -> Vec<File> {
    let mut taken = Vec::new();
    loop {
        let file = File::open("/dev/null").expect("it opens");
        if file.as_raw_fd() >= number {
            assert_eq!(file.as_raw_fd(), number, "it was free");
            return taken;
        }
        taken.push(file);
    }
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_driver_opens_quietly_and_tells_about_itself() {
    if inside().is_none() {
        return;
    }
    let library = library();
    assert!(library.version() >= 1160, "{library:?}");
    assert!(library.path().ends_with("libcufile.so.0"), "{library:?}");
    library.open_driver().expect("the driver opens");
    library.open_driver().expect("and stays open");
    assert!(library.use_count().expect("it tells") >= 1);
    assert_eq!(
        std::env::var_os("CUFILE_LOGFILE_PATH"),
        None,
        "the environment is as before"
    );
    let properties = library.properties().expect("properties");
    assert_eq!(properties.max_batch_io_size, 128);
    assert_eq!(
        properties.nvfs.major_version, 0,
        "no nvidia-fs here: {properties:?}"
    );
    let threads = library
        .size_parameter(sys::PARAMETER_MAX_IO_THREADS)
        .expect("a number");
    assert!(threads > 0);
    assert!(
        library
            .bool_parameter(sys::PARAMETER_PARALLEL_IO)
            .expect("a switch")
    );
    let error = library
        .size_parameter(sys::SizeParameter(999))
        .expect_err("no such parameter");
    assert!(error.cufile() > 5000, "{error:?}");
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_gates_pass_for_a_device() {
    let Some(folder) = inside() else { return };
    std::fs::write(folder.join("gates"), pattern(100)).expect("a file");
    let file = FileDescriptors::open(&folder.join("gates"), OpenMode::read_only()).expect("opens");
    let gates = cufile::gates(file.capabilities(), true);
    assert!(gates.iter().all(|gate| gate.passed), "{gates:#?}");
    assert!(
        gates.iter().any(|gate| gate.detail.contains("version 1.")),
        "{gates:#?}"
    );
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_reads_and_writes_at_any_offset_size_and_pointer() {
    let Some(folder) = inside() else { return };
    let size = 2 * 1024 * KIB + 777;
    let wanted = pattern(size);
    for (name, flags, after_page) in [
        ("direct", libc::O_DIRECT, 0),
        ("odd", libc::O_DIRECT, 5),
        ("buffered", 0, 0),
    ] {
        let handle = registered(&folder, name, size, flags);
        let mut memory = Memory::new(size + 8192, after_page);
        for (file, count, at) in [
            (0, 4096, 0),
            (7, 100, 3),
            (4096, 1024 * KIB, 1),
            (511, 513, 63),
            (8192, 4096, 8192),
            (0, size, 0),
        ] {
            memory.fill(0xEE);
            let got = read(&handle, &mut memory, count, file as u64, at as u64).expect("a read");
            assert_eq!(got, count, "{name}: {count} at {file}");
            assert_eq!(
                memory[at..at + count],
                wanted[file..file + count],
                "{name}: {file}"
            );
            assert!(
                memory[at + count..].iter().all(|&byte| byte == 0xEE),
                "{name}: past the end"
            );
            assert!(
                memory[..at].iter().all(|&byte| byte == 0xEE),
                "{name}: before the start"
            );
        }
        let text = pattern(5000);
        // SAFETY: text holds the bytes from 11 on.
        let wrote = unsafe { handle.write(text.as_ptr() as u64, 4321, 12_345, 11) };
        assert_eq!(wrote.expect("a write"), 4321, "{name}");
        let mut back = vec![0_u8; 4321];
        open(&folder, name, 0)
            .read_exact_at(&mut back, 12_345)
            .expect("read back");
        assert_eq!(back, text[11..11 + 4321], "{name}");
    }
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_ends_of_files_are_short_counts() {
    let Some(folder) = inside() else { return };
    let handle = registered(&folder, "short", 5000, libc::O_DIRECT);
    let mut memory = vec![0_u8; 8192];
    assert_eq!(read(&handle, &mut memory, 8192, 0, 0).expect("short"), 5000);
    assert_eq!(memory[..5000], pattern(5000));
    assert_eq!(
        read(&handle, &mut memory, 4096, 5000, 0).expect("at the end"),
        0
    );
    assert_eq!(
        read(&handle, &mut memory, 4096, 1 << 30, 0).expect("past the end"),
        0
    );
    assert_eq!(read(&handle, &mut memory, 0, 0, 0).expect("nothing"), 0);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_registered_memory_is_named_by_its_base() {
    let Some(folder) = inside() else { return };
    let handle = registered(&folder, "registered", 64 * KIB, libc::O_DIRECT);
    let mut memory = vec![0_u8; 64 * KIB];
    let base = memory.as_mut_ptr() as u64;
    // SAFETY: memory outlives the registration.
    let buffer = unsafe { library().buffer_register(base, 64 * KIB) }.expect("registered");
    assert_eq!((buffer.base(), buffer.size()), (base, 64 * KIB));
    // SAFETY: inside the registered memory.
    let got = unsafe { handle.read(base, 4096, 8192, 16_384) };
    assert_eq!(got.expect("a read"), 4096);
    assert_eq!(memory[16_384..20_480], pattern(64 * KIB)[8192..12_288]);
    // SAFETY: libcufile refuses what passes the registered memory.
    let error = unsafe { handle.read(base, 4096, 0, 64 * KIB as u64 - 100) }.expect_err("past it");
    assert_eq!(
        (error.cufile(), error.kind()),
        (5017, ErrorKind::CuFile),
        "{error:?}"
    );
    // SAFETY: as above.
    let error = unsafe { library().buffer_register(base, 64 * KIB) }.expect_err("a second time");
    assert_eq!(error.cufile(), 5023, "{error:?}");
    buffer.deregister().expect("given back");
    // SAFETY: as above.
    drop(unsafe { library().buffer_register(base, 64 * KIB) }.expect("free to register again"));
    // SAFETY: as above; dropping gave it back.
    drop(unsafe { library().buffer_register(base, 64 * KIB) }.expect("and again"));
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_errors_are_decoded() {
    let Some(folder) = inside() else { return };
    let library = library();
    for path in [Path::new("/dev/null"), &folder] {
        let file = File::open(path).expect("it opens");
        let error = library.register(file.as_raw_fd()).expect_err("not a file");
        assert_eq!(error.cufile(), 5018, "{error:?}");
        assert_eq!(error.kind(), ErrorKind::CuFileUnavailable);
    }
    let error = library.register(-1).expect_err("no descriptor");
    assert_eq!(
        (error.errno(), error.cufile()),
        (libc::EBADF, 0),
        "{error:?}"
    );
    let error = library.register(1 << 20).expect_err("no descriptor");
    assert_eq!(
        (error.errno(), error.cufile()),
        (libc::EBADF, 0),
        "{error:?}"
    );

    let handle = registered(&folder, "errors", 8192, 0);
    // SAFETY: nothing is mapped there; libcufile answers an error.
    let error = unsafe { handle.read(0x1000, 4096, 0, 0) }.expect_err("not memory");
    assert!(
        matches!(error.kind(), ErrorKind::CuFile | ErrorKind::InvalidPointer),
        "{error:?}"
    );
    assert_eq!(error.offset(), Some(0));
    let mut memory = [0_u8; 16];
    let error = read(&handle, &mut memory, 16, u64::MAX - 8, 0).expect_err("past every file");
    assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error:?}");
    // SAFETY: refused before anything is touched.
    let error = unsafe { library.buffer_register(0, 10) }.expect_err("no memory");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_one_file_can_be_registered_twice_and_a_number_is_free_again() {
    let Some(folder) = inside() else { return };
    let file = open(&folder, "twice", 0);
    file.write_all_at(&pattern(4096), 0).expect("written");
    let first = library().register(file.as_raw_fd()).expect("once");
    let second = library().register(file.as_raw_fd()).expect("twice");
    drop(file);
    let mut memory = vec![0_u8; 4096];
    assert_eq!(
        read(&first, &mut memory, 4096, 0, 0).expect("by the first"),
        4096
    );
    let number = first.fd();
    std::fs::write(folder.join("other"), pattern(100)).expect("a test file");
    let other = open(&folder, "other", 0);
    drop(first);
    // The number goes to another file at once: what is read must be that file.
    let below = occupy_below(number);
    let other = library()
        .register(other.as_raw_fd())
        .expect("the other file");
    assert_eq!(other.fd(), number, "the lowest free number is used again");
    drop(below);
    assert_eq!(
        read(&other, &mut memory, 4096, 0, 0).expect("the other file"),
        100
    );
    assert_eq!(
        read(&second, &mut memory, 4096, 0, 0).expect("by the second"),
        4096
    );
    assert_eq!(memory, pattern(4096));
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_a_descriptor_closed_under_its_handle_is_answered_with_5028() {
    let Some(folder) = inside() else { return };
    let handle = std::mem::ManuallyDrop::new(registered(&folder, "poisoned", 100, 0));
    let file = open(&folder, "poisoned", 0);
    // SAFETY: the handle is never dropped, so nobody closes the number a second time.
    assert_eq!(unsafe { libc::close(handle.fd()) }, 0);
    let below = occupy_below(handle.fd());
    let error = library()
        .register(file.as_raw_fd())
        .expect_err("the number is poisoned");
    assert_eq!(
        (error.cufile(), error.kind()),
        (5028, ErrorKind::CuFile),
        "{error:?}"
    );
    assert!(error.message().contains("deregister"), "{error}");
    // Keeps the number from the tests that follow.
    let keeper = File::open("/dev/null").expect("it opens").into_raw_fd();
    assert_eq!(keeper, handle.fd());
    drop(below);
}

fn entry(handle: &Arc<Handle>, memory: &mut [u8], at: usize, file: u64, size: usize) -> Entry {
    assert!(at + size <= memory.len());
    Entry {
        operation: Operation::Read,
        handle: Arc::clone(handle),
        base: memory.as_mut_ptr() as u64,
        base_offset: at as u64,
        host: true,
        file_offset: file,
        size,
    }
}

fn run_batch(entries: Vec<Entry>) -> Vec<Result<usize>> {
    let pool = library().batches().expect("a pool");
    let count = entries.len();
    // SAFETY: the callers' memory outlives this call, which waits for the end.
    let mut batch = unsafe { pool.submit(entries) }.expect("submitted");
    assert!(
        batch.wait(Duration::from_secs(30)).expect("waited"),
        "{batch:?}"
    );
    assert!(batch.is_done());
    assert_eq!(batch.results().len(), count);
    batch
        .results()
        .iter()
        .map(|result| result.clone().expect("over"))
        .collect()
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_batches_read_write_and_tell_short_counts() {
    let Some(folder) = inside() else { return };
    for after_page in [0, 512, 3] {
        batches_read_and_write(&folder, after_page);
    }
}

fn batches_read_and_write(folder: &Path, after_page: usize) {
    let size = 100 * KIB + 2862;
    let wanted = pattern(size);
    let handle = Arc::new(registered(folder, "batch", size, libc::O_DIRECT));
    let mut memory = Memory::new(128 * KIB, after_page);
    // The same few batches are used again and again.
    for round in 0..20 {
        memory.fill(0);
        let results = run_batch(vec![
            entry(&handle, &mut memory, 0, 0, 4096),
            entry(&handle, &mut memory, 4096, 50_000, 8191),
            entry(&handle, &mut memory, 16_384, 100 * KIB as u64, 4096),
            entry(&handle, &mut memory, 32_768, 1 << 30, 4096),
        ]);
        let counts: Vec<_> = results.into_iter().map(|r| r.expect("no error")).collect();
        assert_eq!(counts, [4096, 8191, 2862, 0], "round {round}");
        assert_eq!(memory[..4096], wanted[..4096]);
        assert_eq!(memory[4096..4096 + 8191], wanted[50_000..50_000 + 8191]);
        assert_eq!(memory[16_384..16_384 + 2862], wanted[100 * KIB..]);
    }
    let text = pattern(9000);
    let mut write = entry(&handle, &mut memory, 0, 20_000, 5000);
    write.operation = Operation::Write;
    write.base = text.as_ptr() as u64;
    write.base_offset = 4000;
    assert_eq!(*run_batch(vec![write])[0].as_ref().expect("written"), 5000);
    let mut back = vec![0_u8; 5000];
    open(folder, "batch", 0)
        .read_exact_at(&mut back, 20_000)
        .expect("read back");
    assert_eq!(back, text[4000..]);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_full_batches_keep_every_entry_apart() {
    let Some(folder) = inside() else { return };
    for after_page in [0, 16] {
        full_batches(&folder, after_page);
    }
}

fn full_batches(folder: &Path, after_page: usize) {
    let most = library().batches().expect("a pool").entries_max();
    assert_eq!(most, 128);
    let handle = Arc::new(registered(folder, "many", most * 4096, libc::O_DIRECT));
    let mut memory = Memory::new(most * 4096, after_page);
    for _ in 0..10 {
        memory.fill(0);
        // Backwards in memory, so that an event given to the wrong entry shows.
        let entries = (0..most)
            .map(|at| {
                entry(
                    &handle,
                    &mut memory,
                    (most - 1 - at) * 4096,
                    at as u64 * 4096,
                    4096 - at,
                )
            })
            .collect();
        for (at, result) in run_batch(entries).into_iter().enumerate() {
            assert_eq!(result.expect("no error"), 4096 - at);
        }
        let wanted = pattern(most * 4096);
        for at in 0..most {
            let (from, to) = (at * 4096, (most - 1 - at) * 4096);
            assert_eq!(
                memory[to..to + 4096 - at],
                wanted[from..from + 4096 - at],
                "entry {at}"
            );
        }
    }
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_batches_refuse_what_would_hang_or_confuse() {
    let Some(folder) = inside() else { return };
    let pool = library().batches().expect("a pool");
    let handle = Arc::new(registered(&folder, "refused", 8192, 0));
    let mut memory = vec![0_u8; 1 << 20];
    let good = entry(&handle, &mut memory, 0, 0, 4096);
    let with = |change: fn(&mut Entry)| {
        let mut bad = good.clone();
        change(&mut bad);
        vec![good.clone(), bad]
    };
    for (entries, kind, text) in [
        (vec![], ErrorKind::InvalidArgument, "1 to 128"),
        (
            vec![good.clone(); 129],
            ErrorKind::InvalidArgument,
            "1 to 128",
        ),
        (
            with(|bad| bad.size = 0),
            ErrorKind::InvalidArgument,
            "entry 1",
        ),
        (
            with(|bad| bad.base = 0),
            ErrorKind::InvalidArgument,
            "entry 1",
        ),
        (
            with(|bad| bad.file_offset = u64::MAX),
            ErrorKind::OutOfRange,
            "entry 1",
        ),
        (
            vec![entry(&handle, &mut memory, 0, 0, 1 << 20); 65],
            ErrorKind::InvalidArgument,
            "fewer",
        ),
    ] {
        // SAFETY: refused before anything is started.
        let error = unsafe { pool.submit(entries) }.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(text), "{error}");
    }
    // The bounce buffers that a batch takes are free again only when it is over.
    assert_eq!(pool.admissible(vec![1 << 20; 100]), 64);
    let whole = vec![entry(&handle, &mut memory, 0, 0, 1 << 20); 64];
    // SAFETY: memory outlives the batch; reads of the same bytes may overlap.
    let mut batch = unsafe { pool.submit(whole) }.expect("submitted");
    assert_eq!(pool.admissible([1 << 20]), 0);
    // SAFETY: refused before anything is started.
    let error = unsafe { pool.submit(vec![entry(&handle, &mut memory, 0, 0, 1 << 20)]) };
    assert_eq!(
        error.expect_err("no buffer is free").kind(),
        ErrorKind::Pending
    );
    assert!(batch.wait(Duration::from_secs(30)).expect("waited"));
    drop(batch);
    assert_eq!(pool.admissible(vec![1 << 20; 100]), 64);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_unfinished_batches_are_parked_and_come_back() {
    let Some(folder) = inside() else { return };
    let pool = library().batches().expect("a pool");
    let handle = Arc::new(registered(&folder, "parked", 1 << 20, libc::O_DIRECT));
    let mut memory = vec![0_u8; 16 << 20];
    for _ in 0..50 {
        let entries = (0..16)
            .map(|at| entry(&handle, &mut memory, at << 20, 0, 1 << 20))
            .collect();
        // SAFETY: memory lives until nothing is parked.
        drop(unsafe { pool.submit(entries) }.expect("submitted"));
        let start = Instant::now();
        while pool.quarantined() > 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "{pool:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(
        Arc::strong_count(&handle),
        1,
        "no batch holds the file any more"
    );
    assert_eq!(pool.admissible(vec![1 << 20; 100]), 64);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_cancelled_batches_end_and_can_be_followed_by_others() {
    let Some(folder) = inside() else { return };
    let pool = library().batches().expect("a pool");
    let handle = Arc::new(registered(&folder, "cancelled", 1 << 20, libc::O_DIRECT));
    let mut memory = Memory::new(16 << 20, 0);
    for _ in 0..20 {
        let entries = (0..16)
            .map(|at| entry(&handle, &mut memory, at << 20, 0, 1 << 20))
            .collect();
        // SAFETY: memory outlives the batch, which is over before the loop goes on.
        let mut batch = unsafe { pool.submit(entries) }.expect("submitted");
        let over = batch.cancel().expect("cancelled");
        assert!(
            over || batch.wait(Duration::from_secs(30)).expect("waited"),
            "{batch:?}"
        );
        for result in batch.results() {
            match result.as_ref().expect("over") {
                Ok(bytes) => assert_eq!(*bytes, 1 << 20),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}"),
            }
        }
        drop(batch);
        memory.fill(0);
        let results = run_batch(vec![entry(&handle, &mut memory, 1 << 20, 4096, 8192)]);
        assert_eq!(*results[0].as_ref().expect("no error"), 8192);
        assert_eq!(
            memory[1 << 20..(1 << 20) + 8192],
            pattern(1 << 20)[4096..12_288]
        );
        assert!(
            memory[..1 << 20].iter().all(|&byte| byte == 0),
            "a cancelled read came late"
        );
    }
    assert_eq!(Arc::strong_count(&handle), 1);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_a_failed_submission_is_told_and_the_pool_goes_on() {
    let Some(folder) = inside() else { return };
    let handle = Arc::new(registered(&folder, "failed", 8192, 0));
    let mut memory = vec![0_u8; 8192];
    let good = entry(&handle, &mut memory, 0, 0, 4096);
    let bad = Entry {
        base: 0x1000,
        ..good.clone()
    };
    let pool = library().batches().expect("a pool");
    // SAFETY: nothing is mapped at the bad address; libcufile refuses it, and memory outlives it.
    let error = unsafe { pool.submit(vec![good.clone(), bad]) }.expect_err("refused by libcufile");
    assert!([5035, 5040].contains(&error.cufile()), "{error:?}");
    assert_eq!(pool.admissible(vec![4096; 200]), 128);
    assert_eq!(*run_batch(vec![good])[0].as_ref().expect("no error"), 4096);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_stream_transfers_without_a_device_answer_an_error() {
    let Some(folder) = inside() else { return };
    let handle = Arc::new(registered(&folder, "stream", 8192, 0));
    let mut memory = vec![0_u8; 8192];
    let base = memory.as_mut_ptr() as u64;
    for operation in [Operation::Read, Operation::Write] {
        // SAFETY: memory outlives the call, and without a device nothing is put on a stream.
        let error = unsafe { StreamTransfer::submit(&handle, operation, 0, base, 4096, 0, 0) }
            .expect_err("there is no device");
        assert!(error.cufile() > 5000, "{error:?}");
    }
    // SAFETY: refused before anything is touched.
    let error = unsafe { library().stream_register(0, 16) }.expect_err("an unknown flag");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_many_threads_may_register_and_read_at_once() {
    let Some(folder) = inside() else { return };
    let size = 256 * KIB;
    let shared = registered(&folder, "threads", size, libc::O_DIRECT);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (folder, shared) = (&folder, &shared);
            scope.spawn(move || {
                let mut memory = vec![0_u8; size];
                for round in 0..20 {
                    let own = registered(folder, &format!("own-{number}"), 1000 + round, 0);
                    let got = read(&own, &mut memory, 4096, 0, 0).expect("the own file");
                    assert_eq!(got, 1000 + round);
                    let got = read(shared, &mut memory, size, 0, 0).expect("the shared file");
                    assert_eq!(got, size);
                    assert_eq!(memory, pattern(size));
                }
            });
        }
    });
}

#[test]
#[ignore = "run by the_genuine_library_does_what_our_bindings_expect"]
fn inside_a_forked_child_is_refused() {
    let Some(folder) = inside() else { return };
    let file = open(&folder, "fork", 0);
    library().open_driver().expect("the driver opens");
    // SAFETY: the child calls only what glibc keeps usable after a fork, then ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let kind = library()
            .register(file.as_raw_fd())
            .err()
            .map(|error| error.kind());
        let code = i32::from(kind != Some(ErrorKind::Forked));
        // SAFETY: ends without running what the parent owns.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: status outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "status {status:#x}"
    );
}

#[test]
#[ignore = "run by a_missing_record_is_refused_by_the_genuine_library_as_the_gate_says"]
fn norecord_registering_fails_and_the_gate_tells_why() {
    let Some(folder) = inside() else { return };
    std::fs::write(folder.join("file"), pattern(100)).expect("a file");
    let file = FileDescriptors::open(&folder.join("file"), OpenMode::read_only()).expect("opens");
    let gates = cufile::gates(file.capabilities(), true);
    let failed: Vec<_> = gates
        .iter()
        .filter(|gate| !gate.passed)
        .map(|gate| gate.name)
        .collect();
    assert_eq!(failed, ["udev"], "{gates:#?}");
    let error = library().register(file.buffered()).expect_err("no record");
    assert_eq!(error.cufile(), 5027, "{error:?}");
    assert_eq!(error.kind(), ErrorKind::CuFileUnavailable);
    assert!(error.message().contains("ID_FS_USAGE"), "{error}");
}

#[test]
#[ignore = "run by a_kernel_without_modules_is_refused_before_the_library_hangs"]
fn nomodules_opening_is_refused_at_once() {
    let Some(folder) = inside() else { return };
    let file = open(&folder, "file", 0);
    let error = library().register(file.as_raw_fd()).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::CuFileUnavailable, "{error:?}");
    assert!(error.message().contains("/proc/modules"), "{error}");
    assert_eq!(library().use_count(), Some(0), "the driver was not touched");
}
