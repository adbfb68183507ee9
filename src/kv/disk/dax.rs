//! Persistent memory as a disk: the file is mapped past the page cache, reads and writes are
//! copies, and a write is durable when its cache lines are written back. No call goes to the
//! kernel but for a change of the size.

use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};

use parking_lot::RwLock;

use super::mapping::Mapping;
use super::{BLOCK, Disk, FileDisk, check, named};
use crate::error::{Error, ErrorKind, Result};

/// A disk over a file that is mapped. The file system must keep its files in persistent memory
/// (`-o dax`) and promise that a mapping needs no sync (`MAP_SYNC`).
///
/// All of the file has its blocks from the start, so that no store can find the file system full.
/// What the memory cannot read any more (a media error) ends the process with SIGBUS, as for every
/// mapping.
#[derive(Debug)]
pub struct DaxDisk {
    file: FileDisk,
    synced: bool,
    /// None while the file is empty.
    mapping: RwLock<Option<Mapping>>,
    /// The size changed since the last flush.
    resized: AtomicBool,
}

impl DaxDisk {
    /// Maps the file of `file`.
    ///
    /// # Errors
    /// As `probe`; `NoSpace` when the file has holes and no room for them.
    pub fn open(file: FileDisk) -> Result<Self> {
        Self::probe(&file)?;
        Self::with(file, true)
    }

    /// Whether `file` can be mapped so that written lines are durable. Changes nothing.
    ///
    /// # Errors
    /// `NotSupported`, with what is missing.
    pub fn probe(file: &FileDisk) -> Result<()> {
        // An empty file can be mapped too.
        let probe = Mapping::new(descriptor(file), BLOCK, true);
        probe.map(drop).map_err(|errno| refused(file, errno))
    }

    /// As `open` over any mapping at all: what it does is the same, and nothing it writes is
    /// durable. For tests on machines without persistent memory.
    ///
    /// # Errors
    /// As `open`.
    #[doc(hidden)]
    pub fn without_durability(file: FileDisk) -> Result<Self> {
        Self::with(file, false)
    }

    fn with(file: FileDisk, synced: bool) -> Result<Self> {
        let size = file.size();
        file.descriptors().reserve(0, size)?;
        let disk = Self {
            mapping: RwLock::new(None),
            file,
            synced,
            // The blocks that were reserved are durable with the first flush.
            resized: AtomicBool::new(true),
        };
        disk.map(&mut disk.mapping.write(), size)?;
        disk.flush()?;
        Ok(disk)
    }

    fn map(&self, mapping: &mut Option<Mapping>, size: u64) -> Result<()> {
        *mapping = None;
        if size == 0 {
            return Ok(());
        }
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        let mapped = Mapping::new(descriptor(&self.file), len, self.synced);
        *mapping = Some(mapped.map_err(|errno| {
            let path = self.file.descriptors().path();
            Error::os(errno, format!("map {size} bytes of {}", path.display())).with_path(path)
        })?);
        Ok(())
    }

    /// Does `copy` with the mapping, which says whether the range is inside.
    fn with_mapping(
        &self,
        what: &str,
        offset: u64,
        copy: impl FnOnce(&Mapping) -> bool,
    ) -> Result<()> {
        if self.mapping.read().as_ref().is_some_and(copy) {
            return Ok(());
        }
        // It became smaller since it was checked.
        let message = format!("{what} at {offset}: it is past the end of the mapped file");
        Err(named(
            self,
            Error::new(ErrorKind::OutOfRange, message),
            offset,
        ))
    }
}

fn descriptor(file: &FileDisk) -> RawFd {
    file.descriptors().buffered()
}

fn refused(file: &FileDisk, errno: i32) -> Error {
    let path = file.descriptors().path();
    let missing = if errno == libc::ENOSYS {
        "this processor has no known instruction that writes cache lines back (x86-64 has)"
    } else {
        "its file system does not map files with MAP_SYNC. It must be ext4 or xfs, mounted with \
         '-o dax', on a persistent memory device (/dev/pmem0; the kernel makes one of ordinary \
         memory when it is booted with memmap=nn!ss, say memmap=4G!12G)"
    };
    let message = format!(
        "open {} as persistent memory: {missing}; or open it as an ordinary file",
        path.display()
    );
    Error::new(ErrorKind::NotSupported, message)
        .with_errno(errno)
        .with_path(path)
}

impl Disk for DaxDisk {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn resize(&self, size: u64) -> Result<()> {
        let size = crate::base::align_down(size, BLOCK as u64);
        // Nobody copies while the file and its mapping change.
        let mut mapping = self.mapping.write();
        self.file.descriptors().reserve(0, size)?;
        self.file.resize(size)?;
        self.resized.store(true, Release);
        self.map(&mut mapping, size)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        check(self, "read", offset, into)?;
        self.with_mapping("read", offset, |mapping| mapping.read(offset, into))
    }

    /// Durable at once.
    fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        check(self, "write", offset, from)?;
        self.with_mapping("write", offset, |mapping| mapping.write(offset, from))
    }

    fn write_durable(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.write(offset, from)
    }

    fn flush(&self) -> Result<()> {
        if self.resized.swap(false, AcqRel) {
            return self.file.flush().inspect_err(|_| {
                self.resized.store(true, Release);
            });
        }
        Ok(())
    }

    fn sync_name(&self) -> Result<()> {
        self.file.sync_name()
    }

    // What is discarded would need room again, and a store that finds none ends the process: the
    // blocks stay.

    fn path(&self) -> Option<&Path> {
        Some(self.file.descriptors().path())
    }
}
