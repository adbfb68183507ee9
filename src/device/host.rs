//! The device that is plain memory: the whole contract without a GPU.
//!
//! Every copy is done when the call returns, so a stream is always drained and an event has always
//! passed. What was allocated or registered is remembered, so that `pointer_info` answers for it
//! as a driver would.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::{
    CopyPiece, CrcRange, CrcVerdict, CrcWork, Device, DeviceInfo, Event, MemoryKind, PointerInfo,
    Stream, StreamControl, kept, pages,
};
use crate::base::crc;
use crate::config::DEVICE_HOST;
use crate::error::{Error, ErrorKind, Result};

/// A range that this device knows, by its start.
#[derive(Debug, Clone, Copy)]
struct Range {
    size: u64,
    kind: MemoryKind,
}

/// Plain memory with a device's manners.
#[derive(Debug)]
pub(super) struct HostDevice {
    info: DeviceInfo,
    /// Ranges by start address; they never overlap.
    ranges: RwLock<BTreeMap<u64, Range>>,
    /// The next stream or event: any number but 0 will do.
    next: AtomicUsize,
}

impl HostDevice {
    /// The device. One a process is enough: its registry then knows every allocation.
    pub(super) fn new() -> Self {
        Self {
            info: info(),
            ranges: RwLock::new(BTreeMap::new()),
            next: AtomicUsize::new(1),
        }
    }

    fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn find(&self, address: u64) -> Option<(u64, Range)> {
        let ranges = self.ranges.read();
        let (start, range) = ranges.range(..=address).next_back()?;
        (address - start < range.size).then_some((*start, *range))
    }

    fn remember(&self, address: u64, size: u64, kind: MemoryKind) {
        self.ranges.write().insert(address, Range { size, kind });
    }
}

/// What the host is as a device.
pub(super) fn info() -> DeviceInfo {
    DeviceInfo {
        ordinal: DEVICE_HOST,
        name: "host".to_owned(),
        memory_bytes: pages::machine().map_or(0, |m| m.physical),
        driver_version: 0,
        compute_capability: 0,
        register_read_only: true,
        stream_order: true,
    }
}

fn empty(what: &str) -> Error {
    let text = format!("allocate 0 bytes of {what}: nothing to allocate; ask for 1 byte at least");
    Error::new(ErrorKind::InvalidArgument, text)
}

impl Device for HostDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn is_host(&self) -> bool {
        true
    }

    fn adopt_thread(&self) -> Result<()> {
        Ok(())
    }

    fn memory_alloc(&self, size: u64) -> Result<u64> {
        if size == 0 {
            return Err(empty("device memory (host)"));
        }
        let kind = ErrorKind::OutOfDeviceMemory;
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        let pointer = kept::alloc(
            bytes,
            kind,
            "device memory (host)",
            "free buffers or ask for less",
        )?;
        self.remember(pointer as u64, size, MemoryKind::Device);
        Ok(pointer as u64)
    }

    unsafe fn memory_free(&self, address: u64, size: u64) {
        self.ranges.write().remove(&address);
        // SAFETY: the caller hands back one allocation of `memory_alloc(size)`.
        unsafe { kept::free(address as *mut u8, size as usize) };
    }

    fn memory_free_total(&self) -> Result<(u64, u64)> {
        let machine = pages::machine()?;
        Ok((machine.free, machine.physical))
    }

    fn pinned_alloc(&self, size: usize) -> Result<*mut u8> {
        if size == 0 {
            return Err(empty("pinned memory (host)"));
        }
        let kind = ErrorKind::OutOfHostMemory;
        let pointer = pages::map(
            size,
            kind,
            "pinned memory (host)",
            "lower buffer_size or io_threads",
        )?;
        self.remember(pointer as u64, size as u64, MemoryKind::Pinned);
        Ok(pointer)
    }

    unsafe fn pinned_free(&self, pointer: *mut u8, size: usize) {
        self.ranges.write().remove(&(pointer as u64));
        // SAFETY: the caller hands back one allocation of `pinned_alloc(size)`, a mapping.
        unsafe { pages::unmap(pointer, size) };
    }

    unsafe fn host_register(&self, pointer: *mut u8, size: usize, _read_only: bool) -> Result<()> {
        let start = pointer as u64;
        let what = format!("register {size} bytes at {start:#x}");
        if pointer.is_null() || size == 0 || start.checked_add(size as u64).is_none() {
            let text = format!("{what}: not a range of memory; pass a mapped range");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let mut ranges = self.ranges.write();
        let before = ranges.range(..start + size as u64).next_back();
        if let Some((other, range)) = before.filter(|(other, range)| **other + range.size > start) {
            let text = format!(
                "{what}: {} bytes at {other:#x} are registered or allocated here; \
                 unregister them first",
                range.size
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let kind = MemoryKind::Pinned;
        ranges.insert(
            start,
            Range {
                size: size as u64,
                kind,
            },
        );
        Ok(())
    }

    unsafe fn host_unregister(&self, pointer: *mut u8) {
        self.ranges.write().remove(&(pointer as u64));
    }

    fn pointer_info(&self, address: u64) -> Result<PointerInfo> {
        Ok(match self.find(address) {
            Some((base, range)) => PointerInfo {
                kind: range.kind,
                base,
                size: range.size,
            },
            None => PointerInfo {
                kind: MemoryKind::Pageable,
                base: address,
                size: 0,
            },
        })
    }

    fn stream_create(&self) -> Result<Stream> {
        Ok(Stream(self.number()))
    }

    unsafe fn stream_destroy(&self, _stream: Stream) {}

    fn stream_synchronize(&self, _stream: Stream) -> Result<()> {
        Ok(())
    }

    unsafe fn copy_to_device(
        &self,
        destination: u64,
        source: *const u8,
        size: usize,
        _stream: Stream,
    ) -> Result<()> {
        // SAFETY: the caller holds both ranges; `copy` allows them to overlap.
        unsafe { ptr::copy(source, destination as *mut u8, size) };
        Ok(())
    }

    unsafe fn copy_to_device_now(
        &self,
        destination: u64,
        source: *const u8,
        size: usize,
        stream: Stream,
    ) -> Result<()> {
        // SAFETY: as the caller promises; the host copies at once.
        unsafe { self.copy_to_device(destination, source, size, stream) }
    }

    unsafe fn copy_from_device(
        &self,
        destination: *mut u8,
        source: u64,
        size: usize,
        _stream: Stream,
    ) -> Result<()> {
        // SAFETY: the caller holds both ranges; `copy` allows them to overlap.
        unsafe { ptr::copy(source as *const u8, destination, size) };
        Ok(())
    }

    unsafe fn copy_pieces(
        &self,
        pieces: *const CopyPiece,
        count: usize,
        _stream: Stream,
    ) -> Result<()> {
        for index in 0..count {
            // SAFETY: the caller promises `count` valid entries.
            let piece = unsafe { *pieces.add(index) };
            let (from, to) = (piece.source as *const u8, piece.destination as *mut u8);
            // SAFETY: the caller promises that the ranges of every piece are valid.
            unsafe { ptr::copy(from, to, piece.size as usize) };
        }
        Ok(())
    }

    fn crc32c_prepare(&self) -> Result<()> {
        Ok(())
    }

    unsafe fn crc32c_chunks(&self, work: &CrcWork, _stream: Stream) -> Result<()> {
        let mut verdict = CrcVerdict::NONE_BAD;
        for index in 0..work.range_count as usize {
            // SAFETY: the caller promises `range_count` valid entries.
            let range = unsafe { *(work.ranges as *const CrcRange).add(index) };
            // SAFETY: the caller promises that the range is valid and that nobody writes it.
            let bytes = unsafe {
                std::slice::from_raw_parts(range.address as *const u8, range.size as usize)
            };
            for (i, chunk) in bytes.chunks(work.chunk_bytes as usize).enumerate() {
                let number = range.first as usize + i;
                let crc = crc::crc32c(0, chunk);
                if work.crcs != 0 {
                    // SAFETY: the caller promises a word a chunk.
                    unsafe { (work.crcs as *mut u32).add(number).write(crc) };
                }
                // SAFETY: as above, where the address is not 0.
                let differs = work.expected != 0
                    && unsafe { (work.expected as *const u32).add(number).read() } != crc;
                if differs {
                    verdict.first_bad = verdict.first_bad.min(number as u64);
                    verdict.bad += 1;
                }
            }
        }
        if work.expected != 0 {
            // SAFETY: the caller promises a verdict there.
            unsafe { (work.verdict as *mut CrcVerdict).write(verdict) };
        }
        Ok(())
    }

    fn event_create(&self) -> Result<Event> {
        Ok(Event(self.number()))
    }

    unsafe fn event_destroy(&self, _event: Event) {}

    fn event_record(&self, _event: Event, _stream: Stream) -> Result<()> {
        Ok(())
    }

    fn event_query(&self, _event: Event) -> Result<bool> {
        Ok(true)
    }

    fn event_synchronize(&self, _event: Event) -> Result<()> {
        Ok(())
    }

    fn stream_wait_event(&self, _stream: Stream, _event: Event) -> Result<()> {
        Ok(())
    }

    unsafe fn stream_move(&self, _control: *mut StreamControl, _stream: Stream) -> Result<()> {
        Err(Error::new(
            ErrorKind::NotSupported,
            "a stream of the host device is the calling thread: wait for the transfer there",
        ))
    }
}
