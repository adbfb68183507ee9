//! The CUDA device: the contract of the room over the driver API.
//!
//! Every method makes the device's primary context current while it runs and puts the caller's
//! back on every path; where the context already is current nothing is pushed. No method panics,
//! whatever the driver lacks or answers.

mod context;
mod crc;
mod decompress;
mod driver;
mod kernels;
mod lazy;
mod parquet;
mod pointer;

use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::fmt;
use std::ptr;

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUevent, CUstream};
use parking_lot::Mutex;

use self::context::{Entered, Primary};
use self::driver::code;
use self::kernels::CopyKernel;
use self::lazy::LazyKernel;
use super::{
    CopyPiece, CrcWork, DecompressWork, Device, DeviceInfo, Event, LibraryJob, LibraryNeeds,
    LibraryWork, Nvcomp, ParquetStep, ParquetWork, PointerInfo, Stream, StreamControl, nvcomp,
    pages,
};
use crate::error::{Error, ErrorKind, Result};

pub(super) use self::driver::Driver;

/// Longest device name that is asked for, with its NUL.
const NAME_MAX: usize = 256;

/// One GPU, opened.
pub(super) struct CudaDevice {
    driver: &'static Driver,
    info: DeviceInfo,
    primary: Primary,
    copy_kernel: CopyKernel,
    crc_kernel: LazyKernel<1>,
    decompress_kernel: LazyKernel<2>,
    parquet_kernels: LazyKernel<6>,
    /// Pinned memory that is ours and registered, where the driver's own was not page-aligned.
    registered: Mutex<BTreeSet<usize>>,
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice")
            .field("info", &self.info)
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}

/// The driver's handle of an ordinal.
fn handle(driver: &Driver, ordinal: i32) -> Result<CUdevice> {
    if !(0..driver.count).contains(&ordinal) {
        let text = format!(
            "open CUDA device {ordinal}: this process sees {} device(s), ordinals 0 to {}; pick \
             one of those or look at CUDA_VISIBLE_DEVICES",
            driver.count,
            driver.count - 1
        );
        return Err(Error::new(ErrorKind::NoDevice, text));
    }
    let mut device = 0;
    // SAFETY: the handle is written to a live integer.
    let result = unsafe { (driver.f.cuDeviceGet)(&mut device, ordinal) };
    driver.check(result, || format!("open CUDA device {ordinal}"))?;
    Ok(device)
}

fn attribute(driver: &Driver, device: CUdevice, which: CUdevice_attribute) -> Result<i32> {
    let mut value = 0;
    // SAFETY: the value is written to a live integer; `device` is from cuDeviceGet.
    let result = unsafe { (driver.f.cuDeviceGetAttribute)(&mut value, which, device) };
    driver.check(result, || format!("ask CUDA device {device} for {which:?}"))?;
    Ok(value)
}

/// What a device is, without a context on it.
pub(super) fn describe(driver: &Driver, ordinal: i32) -> Result<DeviceInfo> {
    use CUdevice_attribute as A;
    let device = handle(driver, ordinal)?;
    let mut name = [0_u8; NAME_MAX];
    // SAFETY: the buffer has the size that is passed.
    let result =
        unsafe { (driver.f.cuDeviceGetName)(name.as_mut_ptr().cast(), NAME_MAX as i32, device) };
    driver.check(result, || format!("ask CUDA device {ordinal} for its name"))?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"CUDA device");
    let mut memory = 0;
    // SAFETY: the size is written to a live integer.
    let result = unsafe { (driver.f.cuDeviceTotalMem_v2)(&mut memory, device) };
    driver.check(result, || {
        format!("ask CUDA device {ordinal} for its memory")
    })?;
    let has = |which| attribute(driver, device, which).map(|v| v != 0);
    let major = attribute(
        driver,
        device,
        A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
    )?;
    let minor = attribute(
        driver,
        device,
        A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    )?;
    let compute_capability = 10 * major + minor;
    Ok(DeviceInfo {
        ordinal,
        name: name.to_string_lossy().into_owned(),
        memory_bytes: memory as u64,
        driver_version: driver.version(),
        compute_capability,
        register_read_only: has(A::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED)?,
        stream_order: compute_capability >= kernels::COMPUTE_CAPABILITY_MIN,
    })
}

impl CudaDevice {
    /// Opens a device: retains its primary context. May take long: see `open`.
    ///
    /// # Errors
    /// `NoDevice` for an ordinal that is not there, else what the driver says.
    pub(super) fn open(driver: &'static Driver, ordinal: i32) -> Result<Self> {
        let info = describe(driver, ordinal)?;
        let device = handle(driver, ordinal)?;
        let count = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = attribute(driver, device, count)?;
        Ok(Self {
            driver,
            info,
            primary: Primary::retain(driver, device)?,
            copy_kernel: CopyKernel::new(multiprocessors),
            crc_kernel: LazyKernel::new(&crc::CRC32C, multiprocessors),
            decompress_kernel: LazyKernel::new(&decompress::DECOMPRESS, multiprocessors),
            parquet_kernels: LazyKernel::new(&parquet::PARQUET, multiprocessors),
            registered: Mutex::new(BTreeSet::new()),
        })
    }

    #[inline]
    fn enter(&self) -> Result<Entered<'_>> {
        self.primary.enter()
    }

    /// Runs a call of the driver in the context and turns its result into an error.
    #[inline]
    fn call(&self, what: impl FnOnce() -> String, f: impl FnOnce() -> i32) -> Result<()> {
        let _entered = self.enter()?;
        self.driver.check(f(), what)
    }

    /// As `call` where nobody can be told: the driver refuses only what is already lost.
    fn release(&self, f: impl FnOnce() -> i32) {
        if let Ok(_entered) = self.enter() {
            f();
        }
    }

    fn empty(&self, what: &str) -> Error {
        let text =
            format!("allocate 0 bytes of {what}: nothing to allocate; ask for 1 byte at least");
        Error::new(ErrorKind::InvalidArgument, text)
    }

    /// Pinned memory of the driver's own, if it is page-aligned.
    fn pinned_from_driver(&self, size: usize) -> Result<Option<*mut u8>> {
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
        let mut pointer = ptr::null_mut();
        // SAFETY: the pointer is written to a live variable.
        let result = unsafe { (self.driver.f.cuMemHostAlloc)(&mut pointer, size, flags) };
        if result == code::OUT_OF_MEMORY {
            return Err(self.pinned_refused(size, result));
        }
        self.driver
            .check(result, || format!("allocate {size} bytes of pinned memory"))?;
        if (pointer as usize).is_multiple_of(pages::PAGE) {
            // SAFETY: `size` bytes were allocated just above. The driver does not promise zeroes.
            unsafe { ptr::write_bytes(pointer.cast::<u8>(), 0, size) };
            return Ok(Some(pointer.cast()));
        }
        // SAFETY: allocated just above, given to nobody.
        unsafe { (self.driver.f.cuMemFreeHost)(pointer) };
        Ok(None)
    }

    /// Pinned memory of the kernel's, registered with the driver.
    fn pinned_from_kernel(&self, size: usize) -> Result<*mut u8> {
        let kind = ErrorKind::OutOfHostMemory;
        let pointer = pages::map(size, kind, "pinned memory", PINNED_ADVICE)?;
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE;
        // SAFETY: the range was mapped just above.
        let result = unsafe { (self.driver.f.cuMemHostRegister_v2)(pointer.cast(), size, flags) };
        if result != code::SUCCESS {
            // SAFETY: mapped just above, given to nobody.
            unsafe { pages::unmap(pointer, size) };
            return Err(self.pinned_refused(size, result));
        }
        self.registered.lock().insert(pointer as usize);
        Ok(pointer)
    }

    fn pinned_refused(&self, size: usize, result: i32) -> Error {
        let what = || format!("allocate {size} bytes of pinned memory");
        let said = self.driver.check(result, what).err();
        let said = said.map_or_else(String::new, |e| e.message().to_owned());
        let text = format!("{said}; {PINNED_ADVICE}");
        Error::new(ErrorKind::OutOfHostMemory, text).with_cuda(result)
    }
}

const PINNED_ADVICE: &str = "lower buffer_size or io_threads, or raise `ulimit -l`";

impl Drop for CudaDevice {
    fn drop(&mut self) {
        if let Ok(_entered) = self.primary.enter() {
            self.copy_kernel.unload(self.driver);
            self.crc_kernel.unload(self.driver);
            self.decompress_kernel.unload(self.driver);
            self.parquet_kernels.unload(self.driver);
        }
    }
}

#[inline]
fn stream_of(stream: Stream) -> CUstream {
    stream.0 as CUstream
}

#[inline]
fn event_of(event: Event) -> CUevent {
    event.0 as CUevent
}

impl Device for CudaDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn is_host(&self) -> bool {
        false
    }

    fn adopt_thread(&self) -> Result<()> {
        self.primary.adopt()
    }

    fn memory_alloc(&self, size: u64) -> Result<u64> {
        if size == 0 {
            return Err(self.empty("device memory"));
        }
        let mut address = 0;
        let what = || format!("allocate {size} bytes on CUDA device {}", self.info.ordinal);
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        // SAFETY: the address is written to a live variable.
        let result = self.call(what, || unsafe {
            (self.driver.f.cuMemAlloc_v2)(&mut address, bytes)
        });
        let Err(error) = result else {
            return Ok(address);
        };
        // Near the end of the address space the driver calls the size invalid, not too large.
        let too_large = error.cuda() == code::INVALID_VALUE && size > self.info.memory_bytes;
        if error.kind() != ErrorKind::OutOfDeviceMemory && !too_large {
            return Err(error);
        }
        let free = self.memory_free_total().map_or_else(
            |_| "free memory is unknown".to_owned(),
            |(free, total)| format!("{free} of {total} bytes are free"),
        );
        let text = format!("{}; {free}; free buffers or ask for less", error.message());
        Err(Error::new(ErrorKind::OutOfDeviceMemory, text).with_cuda(error.cuda()))
    }

    unsafe fn memory_free(&self, address: u64, _size: u64) {
        // SAFETY: the caller hands back an allocation of this device.
        self.release(|| unsafe { (self.driver.f.cuMemFree_v2)(address) });
    }

    fn memory_free_total(&self) -> Result<(u64, u64)> {
        let (mut free, mut total) = (0, 0);
        let what = || format!("ask CUDA device {} for its free memory", self.info.ordinal);
        // SAFETY: both sizes are written to live variables.
        self.call(what, || unsafe {
            (self.driver.f.cuMemGetInfo_v2)(&mut free, &mut total)
        })?;
        Ok((free as u64, total as u64))
    }

    fn pinned_alloc(&self, size: usize) -> Result<*mut u8> {
        if size == 0 {
            return Err(self.empty("pinned memory"));
        }
        // Whole pages: the driver packs smaller pieces closer than a page.
        let mapped = pages::mapped_size(size);
        let Some(mapped) = mapped.filter(|m| pages::machine().is_ok_and(|t| *m as u64 <= t.total))
        else {
            return Err(self.pinned_refused(size, code::OUT_OF_MEMORY));
        };
        let _entered = self.enter()?;
        // Memory on huge pages is pinned and copied with less work than the driver's own.
        if mapped >= pages::HUGE_PAGE
            && let Ok(pointer) = self.pinned_from_kernel(mapped)
        {
            return Ok(pointer);
        }
        match self.pinned_from_driver(mapped)? {
            Some(pointer) => Ok(pointer),
            None => self.pinned_from_kernel(mapped),
        }
    }

    unsafe fn pinned_free(&self, pointer: *mut u8, size: usize) {
        if !self.registered.lock().remove(&(pointer as usize)) {
            // SAFETY: from cuMemHostAlloc; the caller hands it back once.
            self.release(|| unsafe { (self.driver.f.cuMemFreeHost)(pointer.cast()) });
            return;
        }
        // SAFETY: registered by `pinned_from_kernel`; the caller hands it back once.
        self.release(|| unsafe { (self.driver.f.cuMemHostUnregister)(pointer.cast()) });
        // SAFETY: mapped by `pinned_from_kernel` with this size rounded to pages.
        unsafe { pages::unmap(pointer, size) };
    }

    unsafe fn host_register(&self, pointer: *mut u8, size: usize, read_only: bool) -> Result<()> {
        let what = || format!("register {size} bytes at {pointer:p} for CUDA");
        if read_only && !self.info.register_read_only {
            let text = format!(
                "{}: this driver cannot register read-only mappings; copy through pinned memory",
                what()
            );
            return Err(Error::new(ErrorKind::NotSupported, text));
        }
        let only = if read_only {
            sys::CU_MEMHOSTREGISTER_READ_ONLY
        } else {
            0
        };
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | only;
        // SAFETY: the caller promises a mapped range that stays so.
        let result = self.call(what, || unsafe {
            (self.driver.f.cuMemHostRegister_v2)(pointer.cast(), size, flags)
        });
        let Err(error) = result else { return Ok(()) };
        if error.kind() != ErrorKind::OutOfDeviceMemory {
            return Err(error);
        }
        let text = format!("{}; raise `ulimit -l` or register less", error.message());
        Err(Error::new(ErrorKind::OutOfHostMemory, text).with_cuda(error.cuda()))
    }

    unsafe fn host_unregister(&self, pointer: *mut u8) {
        // SAFETY: the caller registered it and no copy uses it.
        self.release(|| unsafe { (self.driver.f.cuMemHostUnregister)(pointer.cast()) });
    }

    fn pointer_info(&self, address: u64) -> Result<PointerInfo> {
        let _entered = self.enter()?;
        pointer::info(self.driver, self.info.ordinal, address)
    }

    fn stream_create(&self) -> Result<Stream> {
        let mut stream = ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        let what = || "create a stream".to_owned();
        // SAFETY: the stream is written to a live variable.
        self.call(what, || unsafe {
            (self.driver.f.cuStreamCreate)(&mut stream, flags)
        })?;
        Ok(Stream(stream as usize))
    }

    unsafe fn stream_destroy(&self, stream: Stream) {
        // SAFETY: the caller hands back a stream of this device.
        self.release(|| unsafe { (self.driver.f.cuStreamDestroy_v2)(stream_of(stream)) });
    }

    fn stream_synchronize(&self, stream: Stream) -> Result<()> {
        // SAFETY: a stream of this device, or the default stream.
        self.call(
            || "wait for a stream".to_owned(),
            || unsafe { (self.driver.f.cuStreamSynchronize)(stream_of(stream)) },
        )
    }

    unsafe fn copy_to_device(
        &self,
        destination: u64,
        source: *const u8,
        size: usize,
        stream: Stream,
    ) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        let what = || format!("copy {size} bytes from host {source:p} to device {destination:#x}");
        // SAFETY: the caller holds both ranges until the stream has passed.
        let result = self.call(what, || unsafe {
            let source = source.cast::<c_void>();
            (self.driver.f.cuMemcpyHtoDAsync_v2)(destination, source, size, stream_of(stream))
        });
        result.map_err(pointer::refused)
    }

    unsafe fn copy_to_device_now(
        &self,
        destination: u64,
        source: *const u8,
        size: usize,
        stream: Stream,
    ) -> Result<()> {
        // Both calls find the context current, so it is pushed once.
        let _entered = self.enter()?;
        // SAFETY: the caller holds both ranges until this returns.
        unsafe { self.copy_to_device(destination, source, size, stream)? };
        self.stream_synchronize(stream)
    }

    unsafe fn memory_zero(&self, address: u64, size: u64, stream: Stream) -> Result<()> {
        let what = || format!("zero {size} bytes of device memory at {address:#x}");
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        // SAFETY: the caller holds the range until the stream has passed.
        self.call(what, || unsafe {
            (self.driver.f.cuMemsetD8Async)(address, 0, bytes, stream_of(stream))
        })
    }

    unsafe fn copy_from_device(
        &self,
        destination: *mut u8,
        source: u64,
        size: usize,
        stream: Stream,
    ) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        let what = || format!("copy {size} bytes from device {source:#x} to host {destination:p}");
        // SAFETY: the caller holds both ranges until the stream has passed.
        let result = self.call(what, || unsafe {
            let destination = destination.cast::<c_void>();
            (self.driver.f.cuMemcpyDtoHAsync_v2)(destination, source, size, stream_of(stream))
        });
        result.map_err(pointer::refused)
    }

    unsafe fn copy_pieces(
        &self,
        pieces: *const CopyPiece,
        count: usize,
        stream: Stream,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let _entered = self.enter()?;
        // SAFETY: the caller keeps the promises of `copy_pieces`; the context is current.
        unsafe { self.copy_kernel.launch(self.driver, pieces, count, stream) }
    }

    fn crc32c_prepare(&self) -> Result<()> {
        let _entered = self.enter()?;
        self.crc_kernel.functions(self.driver).map(|_| ())
    }

    unsafe fn crc32c_chunks(&self, work: &CrcWork, stream: Stream) -> Result<()> {
        if work.chunk_count == 0 {
            return Ok(());
        }
        let _entered = self.enter()?;
        let kernel = &self.crc_kernel;
        let what = || format!("launch the CRC kernel for {} chunks", work.chunk_count);
        // SAFETY: the caller keeps the promises of `crc32c_chunks`; the context is current.
        unsafe { kernel.launch(self.driver, 0, work, work.chunk_count, stream, what) }
    }

    fn decompress_prepare(&self) -> Result<()> {
        let _entered = self.enter()?;
        self.decompress_kernel.functions(self.driver).map(|_| ())
    }

    unsafe fn decompress_chunks(&self, work: &DecompressWork, stream: Stream) -> Result<()> {
        if work.count <= work.wholes {
            return Ok(());
        }
        let _entered = self.enter()?;
        let kernel = &self.decompress_kernel;
        let what = || format!("launch the decompression kernel for {} chunks", work.count);
        // SAFETY: the caller keeps the promises of `decompress_chunks`; the context is current.
        unsafe {
            if work.wholes > 0 {
                kernel.launch(self.driver, 1, work, work.wholes, stream, what)?;
            }
            kernel.launch(self.driver, 0, work, work.count - work.wholes, stream, what)
        }
    }

    fn library(&self) -> Result<&'static Nvcomp> {
        nvcomp::load()?.on_driver(self.info.driver_version)
    }

    fn library_needs(&self, job: &LibraryJob) -> Result<LibraryNeeds> {
        let _entered = self.enter()?;
        self.library()?.needs(job, Stream(0))
    }

    unsafe fn library_decompress(&self, work: &LibraryWork, stream: Stream) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller keeps the promises; the context is current.
        unsafe { self.library()?.decompress(work, stream) }
    }

    fn parquet_prepare(&self) -> Result<()> {
        let _entered = self.enter()?;
        self.parquet_kernels.functions(self.driver).map(|_| ())
    }

    unsafe fn parquet_pages(
        &self,
        step: ParquetStep,
        work: &ParquetWork,
        stream: Stream,
    ) -> Result<()> {
        if work.page_count == 0 {
            return Ok(());
        }
        let _entered = self.enter()?;
        let kernels = &self.parquet_kernels;
        let what = || format!("launch step {step:?} for {} Parquet pages", work.page_count);
        let units = work.page_count.saturating_mul(work.parts.max(1));
        // SAFETY: the caller keeps the promises of `parquet_pages`; the context is current.
        unsafe { kernels.launch(self.driver, step as usize, work, units, stream, what) }
    }

    fn event_create(&self) -> Result<Event> {
        let mut event = ptr::null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
        let what = || "create an event".to_owned();
        // SAFETY: the event is written to a live variable.
        self.call(what, || unsafe {
            (self.driver.f.cuEventCreate)(&mut event, flags)
        })?;
        Ok(Event(event as usize))
    }

    unsafe fn event_destroy(&self, event: Event) {
        // SAFETY: the caller hands back an event of this device.
        self.release(|| unsafe { (self.driver.f.cuEventDestroy_v2)(event_of(event)) });
    }

    fn event_record(&self, event: Event, stream: Stream) -> Result<()> {
        // SAFETY: an event and a stream of this device.
        self.call(
            || "record an event".to_owned(),
            || unsafe { (self.driver.f.cuEventRecord)(event_of(event), stream_of(stream)) },
        )
    }

    fn event_query(&self, event: Event) -> Result<bool> {
        let _entered = self.enter()?;
        // SAFETY: an event of this device.
        let result = unsafe { (self.driver.f.cuEventQuery)(event_of(event)) };
        if result == code::NOT_READY {
            return Ok(false);
        }
        self.driver
            .check(result, || "look at an event".to_owned())?;
        Ok(true)
    }

    fn event_synchronize(&self, event: Event) -> Result<()> {
        // SAFETY: an event of this device.
        self.call(
            || "wait for an event".to_owned(),
            || unsafe { (self.driver.f.cuEventSynchronize)(event_of(event)) },
        )
    }

    fn stream_wait_event(&self, stream: Stream, event: Event) -> Result<()> {
        // SAFETY: an event and a stream of this device; no flags.
        self.call(
            || "make a stream wait for an event".to_owned(),
            || unsafe { (self.driver.f.cuStreamWaitEvent)(stream_of(stream), event_of(event), 0) },
        )
    }

    unsafe fn stream_move(&self, control: *mut StreamControl, stream: Stream) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller keeps the control block until the kernel has ended.
        unsafe { self.copy_kernel.launch_move(self.driver, control, stream) }
    }
}
