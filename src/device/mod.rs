//! Device memory, pinned memory, copies, streams, events and the copy kernels.
//!
//! One trait, [`Device`], with two implementations: `cuda` (cudarc over libcuda, loaded at run
//! time) and `host` (the same contract on plain memory, so that everything runs without a GPU).
//! The room never opens a file and never decides a path. Invariants: the CUDA context is the
//! device's primary context; the caller's current context is what it was when a call returns; a
//! copy is ordered by its stream alone. Guarded by the conformance suite
//! `tests/device_conformance*.rs`, which runs over every implementation, by
//! `tests/device_driver_faults.rs` (drivers that hang, are old or see nothing) and by
//! `tests/device_kernel_host.rs` and `tests/device_kernel_crc.rs` (the kernels, byte for byte,
//! without a GPU).

mod cuda;
mod host;
mod kept;
pub mod nvcomp;
mod open;
mod pages;
mod work;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::error::{Error, ErrorKind, Result};

pub use nvcomp::{LibraryJob, LibraryNeeds, LibraryVerdict, LibraryWork, Nvcomp};
pub use open::{host, list, open, open_auto};
pub use pages::HostPages;
pub use work::{
    CrcRange, CrcVerdict, CrcWork, DecompressChunk, DecompressCodec, DecompressStatus,
    DecompressWork, ParquetColumn, ParquetConversion, ParquetEncoding, ParquetLevels, ParquetNest,
    ParquetNode, ParquetPage, ParquetStatus, ParquetStep, ParquetWork, SNAPPY_BLOCK, SNAPPY_WHOLE,
};

/// What kind of memory a pointer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// Device memory: only the device may touch it. On the host device, ordinary memory.
    Device,
    /// Host memory that the device can copy from and to without a staging copy.
    Pinned,
    /// Unified memory that moves between host and device on its own.
    Managed,
    /// Ordinary host memory that the driver does not know.
    Pageable,
}

/// What is known of a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointerInfo {
    /// Its kind.
    pub kind: MemoryKind,
    /// Start of its allocation, or the pointer itself where the driver does not know.
    pub base: u64,
    /// Bytes of its allocation from `base`, or 0 where the driver does not know.
    pub size: u64,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// CUDA ordinal, or `config::DEVICE_HOST`.
    pub ordinal: i32,
    /// Its name ("NVIDIA H200", "host").
    pub name: String,
    /// Device memory in bytes (host: physical memory).
    pub memory_bytes: u64,
    /// Highest CUDA version that the driver serves (12080 = 12.8), 0 on the host.
    pub driver_version: i32,
    /// Compute capability, major * 10 + minor, 0 on the host.
    pub compute_capability: i32,
    /// Whether read-only file mappings can be registered for DMA.
    pub register_read_only: bool,
    /// Whether transfers can be ordered in a caller's stream.
    pub stream_order: bool,
}

/// A stream: an order of copies and kernels. On CUDA the CUstream, on the host a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream(pub usize);

/// A mark in a stream. On CUDA the CUevent, on the host a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event(pub usize);

/// One piece of a gather or scatter copy. The layout is shared with `kernels/copy_pieces.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CopyPiece {
    /// Source address (pinned memory for scatter, device memory for gather).
    pub source: u64,
    /// Destination address.
    pub destination: u64,
    /// Bytes to copy, any alignment.
    pub size: u64,
}

/// Blocks of the kernel behind `Device::stream_move`, and words of its progress.
pub const STREAM_MOVE_BLOCKS: usize = 16;

/// What the host and `Device::stream_move` tell each other. The layout is shared with
/// `kernels/copy_pieces.cu`, which says what the fields mean; after the launch both sides use
/// them by atomic loads and stores only.
#[derive(Debug)]
#[repr(C)]
pub struct StreamControl {
    /// Set by the device: the stream has come to the kernel.
    pub started: AtomicU32,
    /// Set by the host: nothing comes after what is published.
    pub closed: AtomicU32,
    /// Set by the host: entries that may be copied.
    pub published: AtomicU64,
    /// Entries of the ring, a power of two.
    pub capacity: u64,
    /// Address of the ring of [`StreamEntry`].
    pub ring: u64,
    /// Address of `STREAM_MOVE_BLOCKS` words: entries that a block has copied, or `u64::MAX` once
    /// it has ended.
    pub progress: u64,
}

/// One entry of the ring of a [`StreamControl`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct StreamEntry {
    /// Address of [`CopyPiece`]s in pinned memory.
    pub pieces: u64,
    /// How many.
    pub count: u64,
}

/// A device and its memory. Every method may be called from many threads at once.
///
/// Addresses are plain integers: nothing here borrows. The `unsafe` methods name what the caller
/// must hold.
pub trait Device: Send + Sync + fmt::Debug {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;

    /// Whether device memory is ordinary memory that the processor may read and write.
    fn is_host(&self) -> bool;

    /// Readies the calling thread for many calls (sets the primary context once). For threads of
    /// this library only: it does not put the earlier context back.
    ///
    /// # Errors
    /// `Cuda` when the context cannot be made current.
    fn adopt_thread(&self) -> Result<()>;

    /// Allocates `size` bytes of device memory (aligned to 4096 at least on the host, to 256 on
    /// CUDA). `size` 0 is an `InvalidArgument`.
    ///
    /// # Errors
    /// `OutOfDeviceMemory` saying how much was asked for and how much is free.
    fn memory_alloc(&self, size: u64) -> Result<u64>;

    /// Frees device memory.
    ///
    /// # Safety
    /// `address` is from `memory_alloc` of this device, not yet freed, and no copy uses it.
    unsafe fn memory_free(&self, address: u64, size: u64);

    /// Free and total device memory, bytes.
    ///
    /// # Errors
    /// `Cuda` when the driver does not say.
    fn memory_free_total(&self) -> Result<(u64, u64)>;

    /// Allocates pinned host memory, aligned to 4096, zeroed.
    ///
    /// # Errors
    /// `OutOfHostMemory` with the size, and what to lower.
    fn pinned_alloc(&self, size: usize) -> Result<*mut u8>;

    /// Frees pinned host memory.
    ///
    /// # Safety
    /// `pointer` is from `pinned_alloc(size)` of this device, not yet freed, and no copy uses it.
    unsafe fn pinned_free(&self, pointer: *mut u8, size: usize);

    /// Pins the caller's memory (page-aligned; `read_only` for read-only file mappings).
    ///
    /// # Safety
    /// The range is mapped and stays mapped until `host_unregister`.
    ///
    /// # Errors
    /// `Cuda` or `OutOfHostMemory` when the driver refuses; `NotSupported` where `read_only` is.
    unsafe fn host_register(&self, pointer: *mut u8, size: usize, read_only: bool) -> Result<()>;

    /// Undoes `host_register`.
    ///
    /// # Safety
    /// `pointer` was registered and no copy uses it.
    unsafe fn host_unregister(&self, pointer: *mut u8);

    /// What a pointer names. Never touches the memory.
    ///
    /// # Errors
    /// `InvalidPointer` for device memory of another device.
    fn pointer_info(&self, address: u64) -> Result<PointerInfo>;

    /// Makes a stream that does not synchronise with the default stream.
    ///
    /// # Errors
    /// `Cuda`.
    fn stream_create(&self) -> Result<Stream>;

    /// Destroys a stream; work in it still completes.
    ///
    /// # Safety
    /// `stream` is from `stream_create` and is not used again.
    unsafe fn stream_destroy(&self, stream: Stream);

    /// Waits until everything in the stream is done.
    ///
    /// # Errors
    /// `Cuda`, which may be an earlier asynchronous failure.
    fn stream_synchronize(&self, stream: Stream) -> Result<()>;

    /// Copies host memory to device memory, ordered in `stream`; asynchronous for pinned memory.
    ///
    /// # Safety
    /// Both ranges are valid and stay so, and the source unchanged, until the stream has passed.
    ///
    /// # Errors
    /// `Cuda` or `InvalidPointer`.
    unsafe fn copy_to_device(
        &self,
        destination: u64,
        source: *const u8,
        size: usize,
        stream: Stream,
    ) -> Result<()>;

    /// Copies a little host memory to device memory and waits; `stream` must be idle. Ordinary
    /// memory is as good as pinned here: the driver takes the bytes along with the command.
    ///
    /// # Safety
    /// As `copy_to_device`.
    ///
    /// # Errors
    /// As `copy_to_device`.
    unsafe fn copy_to_device_now(
        &self,
        destination: u64,
        source: *const u8,
        size: usize,
        stream: Stream,
    ) -> Result<()>;

    /// Copies device memory to host memory, ordered in `stream`; asynchronous for pinned memory.
    ///
    /// # Safety
    /// Both ranges are valid and stay so until the stream has passed.
    ///
    /// # Errors
    /// `Cuda` or `InvalidPointer`.
    unsafe fn copy_from_device(
        &self,
        destination: *mut u8,
        source: u64,
        size: usize,
        stream: Stream,
    ) -> Result<()>;

    /// Fills device memory with zeroes, ordered in `stream`.
    ///
    /// # Safety
    /// The range is valid and stays so until the stream has passed.
    ///
    /// # Errors
    /// `NotSupported` where this device cannot: copy zeroes there. `Cuda`.
    unsafe fn memory_zero(&self, address: u64, size: u64, stream: Stream) -> Result<()> {
        let _ = (address, size, stream);
        Err(no_kernel("fill memory with zeroes"))
    }

    /// Copies `count` pieces in one kernel, ordered in `stream`: pinned to device (scatter) or
    /// device to pinned (gather). On the host a loop of memcpy.
    ///
    /// # Safety
    /// `pieces` is pinned memory with `count` valid entries; it and every range stay valid and
    /// unchanged until the stream has passed.
    ///
    /// # Errors
    /// `Cuda` when the kernel cannot be loaded or launched.
    unsafe fn copy_pieces(
        &self,
        pieces: *const CopyPiece,
        count: usize,
        stream: Stream,
    ) -> Result<()>;

    /// Loads what `crc32c_chunks` needs, which otherwise its first call does. The driver may make
    /// that wait for what runs on the device.
    ///
    /// # Errors
    /// `NotSupported` where this device has no such kernel.
    fn crc32c_prepare(&self) -> Result<()>;

    /// CRC32C of many chunks of memory, as `base::crc` has it, ordered in `stream`: written, or
    /// compared with expected values, or both. On the host it is done when the call returns.
    ///
    /// # Safety
    /// Everything that `work` names is valid until the stream has passed, and nobody else writes
    /// it.
    ///
    /// # Errors
    /// `NotSupported` where this device has no such kernel: copy the memory to the host and look
    /// there. `Cuda` when it cannot be launched.
    unsafe fn crc32c_chunks(&self, work: &CrcWork, stream: Stream) -> Result<()>;

    /// Loads what `decompress_chunks` needs, as `crc32c_prepare`.
    ///
    /// # Errors
    /// `NotSupported` where this device has no such kernel: the host, for one.
    fn decompress_prepare(&self) -> Result<()> {
        Err(no_kernel("decompress"))
    }

    /// Decompresses many chunks, ordered in `stream`. What became of each is written into it;
    /// nothing outside a chunk's memory is touched whatever stands in it.
    ///
    /// # Safety
    /// Everything that `work` names is valid until the stream has passed; outputs overlap nothing,
    /// and nobody else writes.
    ///
    /// # Errors
    /// `NotSupported` where this device has no such kernel; `Cuda` when it cannot be launched.
    unsafe fn decompress_chunks(&self, work: &DecompressWork, stream: Stream) -> Result<()> {
        let _ = (work, stream);
        Err(no_kernel("decompress"))
    }

    /// The vendor's library that decompresses what the kernel does not: nvCOMP.
    ///
    /// # Errors
    /// `NotSupported` with why this device has none, and what to do about it.
    fn library(&self) -> Result<&'static Nvcomp> {
        Err(no_kernel("decompress Zstandard or gzip"))
    }

    /// What `library_decompress` needs for chunks like these.
    ///
    /// # Errors
    /// As `library`.
    fn library_needs(&self, job: &LibraryJob) -> Result<LibraryNeeds> {
        self.library()?.needs(job, Stream(0))
    }

    /// Decompresses many chunks by the vendor's library, ordered in `stream`.
    ///
    /// # Safety
    /// Everything that `work` names is valid until the stream has passed and aligned as
    /// `library_needs` says; outputs overlap nothing, and nobody else writes. The chunks are
    /// trusted: what a damaged one does is undefined (see `nvcomp`).
    ///
    /// # Errors
    /// As `library`; `Cuda` when it cannot be launched.
    unsafe fn library_decompress(&self, work: &LibraryWork, stream: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.library()?.decompress(work, stream) }
    }

    /// Loads what `parquet_pages` needs, as `crc32c_prepare`.
    ///
    /// # Errors
    /// `NotSupported` where this device has no such kernels: the host, for one.
    fn parquet_prepare(&self) -> Result<()> {
        Err(no_kernel("decode Parquet pages"))
    }

    /// One step of decoding Parquet pages, ordered in `stream`. What became of each page is written
    /// into it; nothing outside what the page and its column name is touched, whatever stands in
    /// it.
    ///
    /// # Safety
    /// Everything that `work` names is valid until the stream has passed and as large as
    /// `kernels/parquet.cuh` says; nobody else writes it. Pages are readable to the next multiple
    /// of four bytes.
    ///
    /// # Errors
    /// `NotSupported` where this device has no such kernels; `Cuda` when one cannot be launched.
    unsafe fn parquet_pages(
        &self,
        step: ParquetStep,
        work: &ParquetWork,
        stream: Stream,
    ) -> Result<()> {
        let _ = (step, work, stream);
        Err(no_kernel("decode Parquet pages"))
    }

    /// Makes an event without timing.
    ///
    /// # Errors
    /// `Cuda`.
    fn event_create(&self) -> Result<Event>;

    /// Destroys an event.
    ///
    /// # Safety
    /// `event` is from `event_create` and is not used again.
    unsafe fn event_destroy(&self, event: Event);

    /// Marks the stream's present end.
    ///
    /// # Errors
    /// `Cuda`.
    fn event_record(&self, event: Event, stream: Stream) -> Result<()>;

    /// Whether the stream has passed the mark (a fresh event counts as passed).
    ///
    /// # Errors
    /// `Cuda`, which may be an earlier asynchronous failure.
    fn event_query(&self, event: Event) -> Result<bool>;

    /// Waits until the stream has passed the mark.
    ///
    /// # Errors
    /// As `event_query`.
    fn event_synchronize(&self, event: Event) -> Result<()>;

    /// Makes later work in `stream` wait for the mark.
    ///
    /// # Errors
    /// `Cuda`.
    fn stream_wait_event(&self, stream: Stream, event: Event) -> Result<()>;

    /// Puts a kernel into `stream` that copies what is published in `control` until it is closed.
    /// Earlier work in the stream is over when it starts, later work waits for it to end. On the
    /// host, whose streams are the calling thread, this is `NotSupported`.
    ///
    /// # Safety
    /// `control`, its ring and its progress are pinned memory of this device until every progress
    /// word has all bits set. What is published follows `copy_pieces`. Somebody will close it.
    ///
    /// # Errors
    /// `Cuda` when the kernel cannot be loaded or launched, `NotSupported` where there is none.
    unsafe fn stream_move(&self, control: *mut StreamControl, stream: Stream) -> Result<()>;
}

fn no_kernel(what: &str) -> Error {
    let message = format!("{what} on the device: it has no kernel for that");
    Error::new(ErrorKind::NotSupported, message)
}
