//! The host device with streams whose work takes as long as a test wants.

#![allow(dead_code, clippy::missing_panics_doc)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use gds_rs::config::Config;
use gds_rs::device::{
    self, CopyPiece, CrcWork, DecompressWork, Device, DeviceInfo, Event, Nvcomp, ParquetStep,
    ParquetWork, PointerInfo, Stream, StreamControl,
};
use gds_rs::engine::Context;
use gds_rs::io::Io;
use gds_rs::{Error, ErrorKind, Result};

/// Marks set in streams from here on pass when the test says so.
pub const LATE: usize = 1 << 40;

/// Kernels of the library, compiled for the processor.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    pub decompress: unsafe extern "C" fn(*const DecompressWork),
    /// One a step.
    pub parquet: [unsafe extern "C" fn(*const ParquetWork); 6],
}

/// The device. Marks in `Stream(LATE + n)` have not passed until `pass(n)`.
#[derive(Debug)]
pub struct LateDevice {
    host: Arc<dyn Device>,
    marks: Mutex<Marks>,
    has_crc_kernel: bool,
    kernels: Option<Kernels>,
    library: Option<&'static Nvcomp>,
    is_away: bool,
}

#[derive(Debug, Default)]
struct Marks {
    /// Which late stream an event was last recorded in.
    waiting: HashMap<Event, usize>,
    broken: bool,
}

impl LateDevice {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            host: device::host(),
            marks: Mutex::default(),
            has_crc_kernel: true,
            kernels: None,
            library: None,
            is_away: false,
        })
    }

    /// A device whose memory is its own: bytes come there and back by copies alone.
    pub fn away() -> Arc<Self> {
        Arc::new(Self {
            host: device::host(),
            marks: Mutex::default(),
            has_crc_kernel: true,
            kernels: None,
            library: None,
            is_away: true,
        })
    }

    /// A device that cannot compute CRCs.
    pub fn without_crc_kernel() -> Arc<Self> {
        Arc::new(Self {
            host: device::host(),
            marks: Mutex::default(),
            has_crc_kernel: false,
            kernels: None,
            library: None,
            is_away: false,
        })
    }

    /// A device whose kernels the processor runs.
    pub fn with_kernels(kernels: Kernels) -> Arc<Self> {
        Arc::new(Self {
            host: device::host(),
            marks: Mutex::default(),
            has_crc_kernel: true,
            kernels: Some(kernels),
            library: None,
            is_away: false,
        })
    }

    /// A device whose kernels the processor runs, and which has a library that decompresses.
    pub fn with_library(kernels: Kernels, library: &'static Nvcomp) -> Arc<Self> {
        Arc::new(Self {
            host: device::host(),
            marks: Mutex::default(),
            has_crc_kernel: true,
            kernels: Some(kernels),
            library: Some(library),
            is_away: false,
        })
    }

    fn kernels(&self) -> Result<&Kernels> {
        let none = || Error::new(ErrorKind::NotSupported, "there are no kernels");
        self.kernels.as_ref().ok_or_else(none)
    }

    /// A context on this device.
    pub fn context(self: &Arc<Self>, config: Config, io: Arc<dyn Io>) -> Context {
        Context::with_parts(config, self.clone(), io).expect("a context opens")
    }

    /// The late stream of this number.
    pub fn stream(number: usize) -> Stream {
        Stream(LATE + number)
    }

    /// The work in a late stream is over.
    pub fn pass(&self, number: usize) {
        let mut marks = self.marks.lock().expect("no test panicked");
        marks.waiting.retain(|_, stream| *stream != number);
    }

    /// The work in every late stream fails.
    pub fn break_down(&self) {
        self.marks.lock().expect("no test panicked").broken = true;
    }

    /// Marks that have not passed.
    pub fn waiting(&self) -> usize {
        self.marks.lock().expect("no test panicked").waiting.len()
    }
}

impl Device for LateDevice {
    fn info(&self) -> &DeviceInfo {
        self.host.info()
    }
    fn is_host(&self) -> bool {
        !self.is_away
    }
    fn adopt_thread(&self) -> Result<()> {
        self.host.adopt_thread()
    }
    fn memory_alloc(&self, size: u64) -> Result<u64> {
        self.host.memory_alloc(size)
    }
    unsafe fn memory_free(&self, address: u64, size: u64) {
        assert_eq!(self.waiting(), 0, "memory is freed under a stream");
        // SAFETY: the caller's promise.
        unsafe { self.host.memory_free(address, size) }
    }
    fn memory_free_total(&self) -> Result<(u64, u64)> {
        self.host.memory_free_total()
    }
    fn pinned_alloc(&self, size: usize) -> Result<*mut u8> {
        self.host.pinned_alloc(size)
    }
    unsafe fn pinned_free(&self, pointer: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.host.pinned_free(pointer, size) }
    }
    unsafe fn host_register(&self, pointer: *mut u8, size: usize, read_only: bool) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.host.host_register(pointer, size, read_only) }
    }
    unsafe fn host_unregister(&self, pointer: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { self.host.host_unregister(pointer) }
    }
    fn pointer_info(&self, address: u64) -> Result<PointerInfo> {
        self.host.pointer_info(address)
    }
    fn stream_create(&self) -> Result<Stream> {
        self.host.stream_create()
    }
    unsafe fn stream_destroy(&self, stream: Stream) {
        // SAFETY: the caller's promise.
        unsafe { self.host.stream_destroy(stream) }
    }
    fn stream_synchronize(&self, stream: Stream) -> Result<()> {
        self.host.stream_synchronize(stream)
    }
    unsafe fn copy_to_device(&self, to: u64, from: *const u8, n: usize, s: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.host.copy_to_device(to, from, n, s) }
    }
    unsafe fn copy_to_device_now(
        &self,
        to: u64,
        from: *const u8,
        size: usize,
        stream: Stream,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.host.copy_to_device_now(to, from, size, stream) }
    }
    unsafe fn copy_from_device(&self, to: *mut u8, from: u64, n: usize, s: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.host.copy_from_device(to, from, n, s) }
    }
    unsafe fn copy_pieces(&self, pieces: *const CopyPiece, n: usize, s: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.host.copy_pieces(pieces, n, s) }
    }
    fn crc32c_prepare(&self) -> Result<()> {
        if !self.has_crc_kernel {
            return Err(Error::new(
                ErrorKind::NotSupported,
                "there is no CRC kernel",
            ));
        }
        self.host.crc32c_prepare()
    }
    fn decompress_prepare(&self) -> Result<()> {
        self.kernels().map(|_| ())
    }
    unsafe fn decompress_chunks(&self, work: &DecompressWork, _: Stream) -> Result<()> {
        // SAFETY: the caller's promise; the function was compiled from the kernel's source.
        unsafe { (self.kernels()?.decompress)(work) };
        Ok(())
    }
    fn library(&self) -> Result<&'static Nvcomp> {
        let none = || Error::new(ErrorKind::NotSupported, "there is no library");
        self.library.ok_or_else(none)
    }
    fn parquet_prepare(&self) -> Result<()> {
        self.kernels().map(|_| ())
    }
    unsafe fn parquet_pages(&self, step: ParquetStep, work: &ParquetWork, _: Stream) -> Result<()> {
        // SAFETY: as above.
        unsafe { (self.kernels()?.parquet[step as usize])(work) };
        Ok(())
    }
    unsafe fn crc32c_chunks(&self, work: &CrcWork, s: Stream) -> Result<()> {
        self.crc32c_prepare()?;
        // SAFETY: the caller's promise.
        unsafe { self.host.crc32c_chunks(work, s) }
    }
    fn event_create(&self) -> Result<Event> {
        self.host.event_create()
    }
    unsafe fn event_destroy(&self, event: Event) {
        // SAFETY: the caller's promise.
        unsafe { self.host.event_destroy(event) }
    }
    fn event_record(&self, event: Event, stream: Stream) -> Result<()> {
        let mut marks = self.marks.lock().expect("no test panicked");
        marks.waiting.remove(&event);
        if stream.0 >= LATE {
            marks.waiting.insert(event, stream.0 - LATE);
        }
        Ok(())
    }
    fn event_query(&self, event: Event) -> Result<bool> {
        let mut marks = self.marks.lock().expect("no test panicked");
        if marks.broken && marks.waiting.remove(&event).is_some() {
            let text = "the work of a stream failed";
            return Err(Error::new(ErrorKind::Cuda, text).with_cuda(700));
        }
        Ok(!marks.waiting.contains_key(&event))
    }
    fn event_synchronize(&self, event: Event) -> Result<()> {
        while !self.event_query(event)? {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }
    fn stream_wait_event(&self, stream: Stream, event: Event) -> Result<()> {
        self.host.stream_wait_event(stream, event)
    }
    unsafe fn stream_move(&self, control: *mut StreamControl, stream: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.host.stream_move(control, stream) }
    }
}
