//! Broken drivers are told apart, named with what to do, and never hang or abort the caller.
//!
//! Each test runs itself again in a child process whose loader finds a libcuda of the test's
//! making first (`tests/fixtures/fake_libcuda.c`); the driver is examined once a process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(
    clippy::print_stdout,
    reason = "a child tells its parent that it came to the end"
)]

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gds_rs::ErrorKind;
use gds_rs::config::{DEVICE_AUTO, DEVICE_HOST};
use gds_rs::device;

const CHILD: &str = "GDS_TEST_DRIVER_CHILD";
const LONG: Duration = Duration::from_secs(60);

/// What the child's loader finds under libcuda's names.
enum Fake<'a> {
    /// A file that is no library.
    Garbage,
    /// A build of the fixture: version, body of cuInit, all functions or not.
    Built(u32, &'a str, bool),
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn make(folder: &Path, fake: &Fake) {
    let library = folder.join("libcuda.so");
    match fake {
        Fake::Garbage => std::fs::write(&library, "this is not a library\n").unwrap(),
        Fake::Built(version, init, functions) => {
            let output = cc::Build::new()
                .target(&target())
                .host(&target())
                .opt_level(0)
                .cargo_metadata(false)
                .get_compiler()
                .to_command()
                .arg(format!("-DFAKE_VERSION={version}"))
                .arg(format!("-DFAKE_INIT={init}"))
                .arg(format!("-DFAKE_FUNCTIONS={}", i32::from(*functions)))
                .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
                .arg(&library)
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fake_libcuda.c"))
                .output()
                .expect("the C compiler runs");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    // Every name that may be tried, so that no real driver of this machine is found instead.
    for name in [
        "libcuda.so.1",
        "libcuda.so.12",
        "libcuda.so.11",
        "libcuda.so.10",
    ] {
        std::fs::copy(&library, folder.join(name)).unwrap();
    }
}

/// Runs `body` in a child of this test, whose driver is `fake`.
fn with_driver(test: &str, fake: Fake, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some_and(|v| v == test) {
        body();
        println!("the child is done");
        return;
    }
    let folder: PathBuf = [
        env!("CARGO_TARGET_TMPDIR"),
        &format!("{test}_{}", std::process::id()),
    ]
    .iter()
    .collect();
    std::fs::create_dir_all(&folder).unwrap();
    make(&folder, &fake);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, test)
        .env("LD_LIBRARY_PATH", &folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > LONG {
            child.kill().unwrap();
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    std::fs::remove_dir_all(&folder).ok();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("the child is done"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Opening device 0 must fail so; AUTO must then be the host, and tell the same.
fn expect(timeout: Duration, kind: ErrorKind, words: &[&str]) {
    let error = device::open(0, timeout).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    for word in words {
        assert!(
            error.message().contains(word),
            "{word:?} is not in: {error}"
        );
    }
    assert!(device::open(DEVICE_AUTO, timeout).unwrap().is_host());
    let (host, why) = device::open_auto(timeout);
    assert!(host.is_host());
    assert_eq!(why.expect("a reason").kind(), kind);
    let (devices, why) = device::list(timeout);
    assert_eq!(
        devices.iter().map(|d| d.ordinal).collect::<Vec<_>>(),
        [DEVICE_HOST]
    );
    assert_eq!(why.expect("a reason").kind(), kind);
}

#[test]
fn a_missing_driver_is_named_with_what_to_install() {
    with_driver(
        "a_missing_driver_is_named_with_what_to_install",
        Fake::Garbage,
        || {
            let words = [
                "libcuda.so.1",
                "install the NVIDIA driver",
                "GDS_DEVICE=host",
            ];
            expect(LONG, ErrorKind::DriverMissing, &words);
        },
    );
}

#[test]
fn an_old_driver_is_named_with_both_versions() {
    let fake = Fake::Built(11_040, "return 0;", false);
    with_driver("an_old_driver_is_named_with_both_versions", fake, || {
        expect(
            LONG,
            ErrorKind::DriverTooOld,
            &["CUDA 11.4", "CUDA 12.0", "525", "libcuda.so"],
        );
    });
}

#[test]
fn a_driver_without_devices_says_so() {
    let fake = Fake::Built(12_080, "return 100;", false);
    with_driver("a_driver_without_devices_says_so", fake, || {
        expect(
            LONG,
            ErrorKind::NoDevice,
            &["CUDA_ERROR_NO_DEVICE", "CUDA_VISIBLE_DEVICES"],
        );
        assert_eq!(device::open(0, LONG).unwrap_err().cuda(), 100);
    });
}

#[test]
fn the_toolkits_stub_is_not_a_driver() {
    let fake = Fake::Built(12_080, "return 34;", false);
    with_driver("the_toolkits_stub_is_not_a_driver", fake, || {
        expect(LONG, ErrorKind::DriverMissing, &["stub", "LD_LIBRARY_PATH"]);
    });
}

#[test]
fn a_function_that_is_missing_is_named() {
    let fake = Fake::Built(12_080, "return 0;", false);
    with_driver("a_function_that_is_missing_is_named", fake, || {
        expect(
            LONG,
            ErrorKind::DriverTooOld,
            &["it has no cuDeviceGetCount"],
        );
    });
}

#[test]
fn a_hung_driver_ends_at_the_deadline() {
    let fake = Fake::Built(12_080, "for (;;) pause();", false);
    with_driver("a_hung_driver_ends_at_the_deadline", fake, || {
        let timeout = Duration::from_millis(200);
        let began = Instant::now();
        expect(
            timeout,
            ErrorKind::DriverTimeout,
            &["200 ms", "GDS_PROBE_TIMEOUT_MS"],
        );
        assert!(
            began.elapsed() >= timeout,
            "the deadline was not waited for"
        );
    });
}

#[test]
fn a_late_answer_is_used_by_the_next_to_ask() {
    let fake = Fake::Built(12_080, "sleep(1); return 100;", false);
    with_driver("a_late_answer_is_used_by_the_next_to_ask", fake, || {
        let error = device::open(0, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DriverTimeout, "{error:?}");
        expect(LONG, ErrorKind::NoDevice, &["CUDA_ERROR_NO_DEVICE"]);
    });
}

/// A function of the fake driver, by name.
fn fake_function(name: &str) -> *mut c_void {
    let name = CString::new(name).unwrap();
    // SAFETY: a NUL-terminated name; the library is loaded and stays so.
    let library = unsafe { libc::dlopen(c"libcuda.so".as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null());
    // SAFETY: an open library and a NUL-terminated name.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!symbol.is_null(), "{name:?}");
    symbol
}

/// Calls a function of the fake driver that takes nothing.
fn ask(name: &str) -> i32 {
    // SAFETY: the fixture's functions that are asked for take nothing and return an int.
    let f: extern "C" fn() -> i32 = unsafe { std::mem::transmute(fake_function(name)) };
    f()
}

/// The context that is current on this thread.
fn current() -> usize {
    // SAFETY: the fixture's signature.
    let f: extern "C" fn(&mut usize) -> i32 =
        unsafe { std::mem::transmute(fake_function("cuCtxGetCurrent")) };
    let mut context = 0;
    assert_eq!(f(&mut context), 0);
    context
}

#[test]
fn an_ordinal_beyond_the_count_names_the_count() {
    let fake = Fake::Built(12_080, "return 0;", true);
    with_driver("an_ordinal_beyond_the_count_names_the_count", fake, || {
        let error = device::open(2, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoDevice);
        assert!(
            error.message().contains("2 device(s), ordinals 0 to 1"),
            "{error}"
        );
        let (devices, trouble) = device::list(LONG);
        let ordinals: Vec<_> = devices.iter().map(|d| d.ordinal).collect();
        assert_eq!(ordinals, [0, 1, DEVICE_HOST]);
        assert_eq!(devices[1].name, "Fake 1");
        assert_eq!(
            (devices[0].compute_capability, devices[0].driver_version),
            (90, 12_080)
        );
        assert!(trouble.is_none());
        let error = device::open(-3, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    });
}

#[test]
fn the_callers_context_comes_back_on_every_path() {
    let fake = Fake::Built(12_080, "return 0;", true);
    with_driver("the_callers_context_comes_back_on_every_path", fake, || {
        let device = device::open(0, LONG).unwrap();
        // SAFETY: the fixture's signature.
        let set: extern "C" fn(usize) -> i32 =
            unsafe { std::mem::transmute(fake_function("cuCtxSetCurrent")) };
        for before in [0, 0x5150] {
            if before != 0 {
                assert_eq!(set(before), 0);
            }
            let depth = ask("fake_depth");
            let error = device.memory_alloc(4096).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfDeviceMemory, "{error:?}");
            assert!(
                error.message().contains("77 of 1048576 bytes are free"),
                "{error}"
            );
            let event = device.event_create().unwrap();
            let error = device.event_query(event).unwrap_err();
            assert_eq!((error.kind(), error.cuda()), (ErrorKind::Cuda, 123_456));
            assert!(error.message().contains("CUDA error 123456"), "{error}");
            let kind = device.pointer_info(4096).unwrap().kind;
            assert_eq!(kind, device::MemoryKind::Pageable);
            let error = device.pointer_info(1 << 20).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidPointer);
            assert!(error.message().contains("device 1"), "{error}");
            assert_eq!((current(), ask("fake_depth")), (before, depth));
        }
        device.adopt_thread().unwrap();
        let ours = current();
        assert!(ours != 0 && ours != 0x5150);
        assert_eq!(
            device.memory_alloc(1).unwrap_err().kind(),
            ErrorKind::OutOfDeviceMemory
        );
        assert_eq!((current(), ask("fake_depth")), (ours, 1));
    });
}

#[test]
fn one_device_is_shared_and_released_with_its_last_user() {
    let fake = Fake::Built(12_080, "return 0;", true);
    with_driver(
        "one_device_is_shared_and_released_with_its_last_user",
        fake,
        || {
            let first = device::open(1, LONG).unwrap();
            let second = device::open(1, LONG).unwrap();
            assert_eq!(ask("fake_retained"), 1);
            drop(first);
            assert_eq!(ask("fake_retained"), 1);
            drop(second);
            assert_eq!(ask("fake_retained"), 0);
            let again = device::open(1, LONG).unwrap();
            assert_eq!((again.info().ordinal, ask("fake_retained")), (1, 1));
        },
    );
}
