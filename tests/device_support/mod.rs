//! What the tests of the device's contract share: every device that opens here, and memory and
//! streams that give themselves back.

#![allow(dead_code, clippy::missing_panics_doc)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gds_rs::config::DEVICE_HOST;
use gds_rs::device::{self, Device, Stream};

const PROBE: Duration = Duration::from_secs(60);

/// One test at a time: some look at addresses that another test could be given.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs `body` on every device; says why when there is no GPU among them.
pub fn on_every_device(body: impl Fn(&dyn Device)) {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let (devices, trouble) = device::list(PROBE);
    if let Some(error) = trouble {
        println!("skipped: CUDA: {error}");
    }
    assert_eq!(devices.last().map(|d| d.ordinal), Some(DEVICE_HOST));
    for info in devices {
        let device: Arc<dyn Device> = device::open(info.ordinal, PROBE).unwrap();
        assert_eq!(device.info(), &info);
        assert_eq!(device.is_host(), info.ordinal == DEVICE_HOST);
        println!("on {} ({})", info.name, info.ordinal);
        body(&*device);
    }
}

pub fn pattern(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Device memory that frees itself.
pub struct Memory<'a>(pub &'a dyn Device, pub u64, pub u64);

impl<'a> Memory<'a> {
    pub fn new(device: &'a dyn Device, size: usize) -> Self {
        Self(
            device,
            device.memory_alloc(size as u64).unwrap(),
            size as u64,
        )
    }

    pub fn fill(&self, bytes: &[u8], stream: Stream) {
        assert!(bytes.len() as u64 <= self.2);
        // SAFETY: both ranges are alive until the stream is synchronised.
        unsafe {
            self.0
                .copy_to_device(self.1, bytes.as_ptr(), bytes.len(), stream)
        }
        .unwrap();
        self.0.stream_synchronize(stream).unwrap();
    }

    pub fn read(&self, size: usize, stream: Stream) -> Vec<u8> {
        let mut bytes = vec![0xEE; size];
        // SAFETY: both ranges are alive until the stream is synchronised.
        unsafe {
            self.0
                .copy_from_device(bytes.as_mut_ptr(), self.1, size, stream)
        }
        .unwrap();
        self.0.stream_synchronize(stream).unwrap();
        bytes
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed once.
        unsafe { self.0.memory_free(self.1, self.2) };
    }
}

/// Pinned memory that frees itself.
pub struct Pinned<'a>(pub &'a dyn Device, pub *mut u8, pub usize);

impl<'a> Pinned<'a> {
    pub fn new(device: &'a dyn Device, size: usize) -> Self {
        Self(device, device.pinned_alloc(size).unwrap(), size)
    }

    #[allow(clippy::mut_from_ref, reason = "the test takes one slice at a time")]
    pub fn bytes(&self) -> &mut [u8] {
        // SAFETY: allocated in `new` with this size, alive while `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.1, self.2) }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed once.
        unsafe { self.0.pinned_free(self.1, self.2) };
    }
}

/// A stream that destroys itself.
pub struct Lane<'a>(pub &'a dyn Device, pub Stream);

impl<'a> Lane<'a> {
    pub fn new(device: &'a dyn Device) -> Self {
        Self(device, device.stream_create().unwrap())
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { self.0.stream_destroy(self.1) };
    }
}
