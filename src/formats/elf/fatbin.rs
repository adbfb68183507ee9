//! Containers of device code that nvcc writes: `.nv_fatbin` and `__nv_relfatbin` of programs, and
//! files of their own.
//!
//! NVIDIA documents no layout. These facts are those that cuda-fatbin-decompression
//! (github.com/n-eiling/cuda-fatbin-decompression, fatbin-decompress.h) and the fatbinary crate
//! found, and that files of nvcc 13.0 were seen to hold. All numbers are little-endian.
//!
//! | at | bytes | header of a container |
//! |----|-------|-----------------------|
//! |  0 |     4 | 0xba55ed50 |
//! |  4 |     2 | version, 1 |
//! |  6 |     2 | bytes of this header, 16 |
//! |  8 |     8 | bytes of the entries behind it |
//!
//! | at | bytes | header of an entry |
//! |----|-------|--------------------|
//! |  0 |     2 | 1 PTX, 2 cubin; others are listed as they are |
//! |  4 |     4 | bytes of this header, 64 or more |
//! |  8 |     8 | bytes of what follows it, padded |
//! | 16 |     4 | bytes of that which are compressed, 0 when it is not |
//! | 24 |     4 | minor and major version of the code, 2 bytes each |
//! | 28 |     4 | architecture: 90 for sm_90 |
//! | 32 |     8 | where in the header its name is, and the name's bytes, 4 bytes each |
//! | 40 |     8 | flags: 0x2000 compressed by LZ4, 0x8000 by Zstandard |
//! | 56 |     8 | bytes of it when it is decompressed |

use std::path::Path;
use std::sync::Arc;

use super::compress::{Encoding, Stream};
use super::file::Elf;
use super::raw::corrupted;
use crate::error::Result;
use crate::formats::{MemorySource, Source};

const MAGIC: u32 = 0xba55_ed50;
const CONTAINER: u64 = 16;
const ENTRY: u64 = 64;
const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;
/// Sections that hold containers.
const SECTIONS: [&[u8]; 2] = [b".nv_fatbin", b"__nv_relfatbin"];
/// A cubin that is larger when it is decompressed is not opened, bytes.
const CUBIN_MAX: u64 = 256 << 20;
/// Bytes that are looked through at once for the next container, at first and at most.
const WINDOW: (u64, u64) = (64, 64 << 10);

/// What an entry of a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FatbinKind {
    /// PTX, as text.
    Ptx,
    /// A cubin: an ELF file for the device.
    Cubin,
    /// Something else.
    Unknown(u16),
}

/// Device code for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatbinEntry {
    /// What it is.
    pub kind: FatbinKind,
    /// Where its header is in the file, bytes.
    pub offset: u64,
    /// Where its bytes are in the file.
    pub data_offset: u64,
    /// Bytes in the file, without padding where that is known.
    pub data_size: u64,
    /// Bytes when it is decompressed; 0 when it is not compressed.
    pub decompressed_size: u64,
    /// Compressed by "lz4" or "zstd".
    pub compression: Option<&'static str>,
    /// 90 for sm_90.
    pub arch: u32,
    /// Version of the code: of PTX that of its language.
    pub version: (u16, u16),
    /// Flags as they are in the file.
    pub flags: u64,
    /// Its name; most have none.
    pub name: Vec<u8>,
}

impl FatbinEntry {
    /// Opens a cubin; `None` for what is none, or is compressed by LZ4 or to more than 256 MiB.
    /// One that is compressed by Zstandard is decompressed in ordinary memory. Offsets in errors
    /// are those in the cubin.
    ///
    /// # Errors
    /// As `Elf::open`, and `Corrupted` when it cannot be decompressed to the size that it says.
    pub fn open_cubin(&self, source: &Arc<dyn Source>) -> Result<Option<Elf>> {
        if self.kind != FatbinKind::Cubin {
            return Ok(None);
        }
        match self.compression {
            None => {
                let inner = source.clone();
                let (offset, size) = (self.data_offset, self.data_size);
                let part = Within {
                    inner,
                    offset,
                    size,
                };
                Elf::open(Arc::new(part)).map(Some)
            }
            Some("zstd") if self.decompressed_size <= CUBIN_MAX => {
                let stream = Stream {
                    encoding: Encoding::Zstd,
                    offset: self.data_offset,
                    stored: self.data_size,
                    size: self.decompressed_size,
                    align: 1,
                };
                stream.check(&**source)?;
                let mut bytes = Vec::new();
                stream.decode_to(&**source, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })?;
                let name = source.path().to_string_lossy().into_owned();
                Elf::open(Arc::new(MemorySource::new(bytes, &name))).map(Some)
            }
            Some(_) => Ok(None),
        }
    }
}

/// A part of a source that is a file of its own.
#[derive(Debug)]
struct Within {
    inner: Arc<dyn Source>,
    offset: u64,
    size: u64,
}

impl Source for Within {
    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(corrupted(self, offset, "a part passes the end of a cubin"));
        }
        self.inner.read(self.offset + offset, into)
    }
}

/// A container: the same code for several architectures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatbin {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Its version.
    pub version: u16,
    /// Bytes, with its header.
    pub size: u64,
    /// What it holds.
    pub entries: Vec<FatbinEntry>,
}

impl Fatbin {
    /// The containers of a file of containers.
    ///
    /// # Errors
    /// `Corrupted` with the offset.
    pub fn read_file(source: &dyn Source) -> Result<Vec<Self>> {
        read_range(source, 0, source.size())
    }

    /// Whether a file begins with a container.
    #[must_use]
    pub fn is_one(first: &[u8]) -> bool {
        number(first, 0, 4) == Some(MAGIC.into())
    }

    /// The containers in the sections of an ELF file.
    ///
    /// # Errors
    /// `Corrupted` with the offset.
    pub fn read_elf(file: &Elf) -> Result<Vec<Self>> {
        let (mut found, mut budget) = (Vec::new(), file.budget());
        for section in file.sections().iter().filter(|s| !s.is_nobits()) {
            if SECTIONS.iter().any(|name| file.is_named(section, name)) {
                budget.take(file, section.size)?;
                let end = section.offset.checked_add(section.size);
                let Some(end) = end.filter(|end| *end <= file.source().size()) else {
                    let at = file.header_of(section.index);
                    let text = "device code passes the end of the file";
                    return Err(corrupted(file.source(), at, text));
                };
                found.append(&mut read_range(file.source(), section.offset, end)?);
            }
        }
        Ok(found)
    }
}

/// Containers between two places, one behind the other with zeros between them.
fn read_range(source: &dyn Source, start: u64, end: u64) -> Result<Vec<Fatbin>> {
    let mut found = Vec::new();
    let mut at = start;
    while let Some(next) = skip_zeros(source, at, end)? {
        // They are aligned to 8 bytes; a magic has no zero at its ends.
        let container = read_one(source, next, end)?;
        at = next + container.size;
        found.push(container);
    }
    Ok(found)
}

/// The first byte from `at` on that is not zero.
fn skip_zeros(source: &dyn Source, at: u64, end: u64) -> Result<Option<u64>> {
    let (mut at, mut window) = (at, WINDOW.0);
    while at < end {
        let bytes = source.bytes(at, window.min(end - at), "device code")?;
        window = WINDOW.1;
        match bytes.iter().position(|byte| *byte != 0) {
            Some(skip) => return Ok(Some(at + skip as u64)),
            None => at += bytes.len() as u64,
        }
    }
    Ok(None)
}

/// A number of `size` bytes, the lowest first.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(size)?)?;
    Some(
        part.iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

fn field(bytes: &[u8], at: usize, size: usize) -> u64 {
    // The records were read whole.
    number(bytes, at, size).unwrap_or(0)
}

fn read_one(source: &dyn Source, at: u64, end: u64) -> Result<Fatbin> {
    let cut = || corrupted(source, at, "a container of device code is cut");
    if end - at < CONTAINER {
        return Err(cut());
    }
    let bytes = source.bytes(at, CONTAINER, "a container of device code")?;
    if field(&bytes, 0, 4) != u64::from(MAGIC) {
        let text = format!(
            "{:#010x} is no container of device code",
            field(&bytes, 0, 4)
        );
        return Err(corrupted(source, at, text));
    }
    let header = field(&bytes, 6, 2);
    let size = field(&bytes, 8, 8);
    let stop = at
        .checked_add(header)
        .and_then(|first| first.checked_add(size));
    let Some(stop) = stop.filter(|stop| header >= CONTAINER && *stop <= end) else {
        return Err(cut());
    };
    let mut entries = Vec::new();
    let mut place = at + header;
    while place < stop {
        let (entry, next) = read_entry(source, place, stop)?;
        entries.push(entry);
        place = next;
    }
    Ok(Fatbin {
        offset: at,
        version: field(&bytes, 4, 2) as u16,
        size: stop - at,
        entries,
    })
}

/// An entry, and where the next one is.
fn read_entry(source: &dyn Source, at: u64, stop: u64) -> Result<(FatbinEntry, u64)> {
    let cut = || corrupted(source, at, "an entry of device code is cut");
    if stop - at < ENTRY {
        return Err(cut());
    }
    let bytes = source.bytes(at, ENTRY, "an entry of device code")?;
    let (header, padded) = (field(&bytes, 4, 4), field(&bytes, 8, 8));
    let data = at.checked_add(header);
    let next = data.and_then(|data| data.checked_add(padded));
    let (Some(data_offset), Some(next)) = (data, next.filter(|next| *next <= stop)) else {
        return Err(cut());
    };
    if header < ENTRY {
        let text = format!("the header of an entry of device code has {header} bytes");
        return Err(corrupted(source, at, text));
    }
    let flags = field(&bytes, 40, 8);
    let compression = match flags {
        _ if flags & FLAG_ZSTD != 0 => Some("zstd"),
        _ if flags & FLAG_LZ4 != 0 => Some("lz4"),
        _ => None,
    };
    let stored = field(&bytes, 16, 4);
    let (name_at, name_size) = (field(&bytes, 32, 4), field(&bytes, 36, 4));
    if name_at + name_size > header {
        return Err(corrupted(
            source,
            at,
            "the name of an entry of device code lies outside",
        ));
    }
    let entry = FatbinEntry {
        kind: match field(&bytes, 0, 2) as u16 {
            1 => FatbinKind::Ptx,
            2 => FatbinKind::Cubin,
            other => FatbinKind::Unknown(other),
        },
        offset: at,
        data_offset,
        data_size: if compression.is_some() && stored > 0 {
            stored.min(padded)
        } else {
            padded
        },
        decompressed_size: field(&bytes, 56, 8),
        compression,
        arch: field(&bytes, 28, 4) as u32,
        version: (field(&bytes, 26, 2) as u16, field(&bytes, 24, 2) as u16),
        flags,
        name: source.bytes(at + name_at, name_size, "a name")?,
    };
    Ok((entry, next))
}
