//! Records of the file as bytes: one function a record, whatever its class and byte order.

use object::Endianness;
use object::elf::{FileHeader32, FileHeader64};
use object::pod::{self, Pod};

use super::super::Source;
use crate::error::{Error, ErrorKind, Result};

/// Headers of 32-bit files.
pub(super) type Header32 = FileHeader32<Endianness>;
/// Headers of 64-bit files.
pub(super) type Header64 = FileHeader64<Endianness>;

/// Does something with the records of a class: `by_class!(class, H => expression of H)`.
macro_rules! by_class {
    ($class:expr, $records:ident => $body:expr) => {
        match $class {
            $crate::formats::elf::Class::Elf32 => {
                type $records = $crate::formats::elf::raw::Header32;
                $body
            }
            $crate::formats::elf::Class::Elf64 => {
                type $records = $crate::formats::elf::raw::Header64;
                $body
            }
        }
    };
}
pub(super) use by_class;

/// Bytes of a record.
pub(super) const fn size_of<T>() -> u64 {
    std::mem::size_of::<T>() as u64
}

/// The record at `at`, when it is there.
pub(super) fn record<T: Pod>(bytes: &[u8], at: u64) -> Option<&T> {
    let at = usize::try_from(at).ok()?;
    let (record, _) = pod::from_bytes(bytes.get(at..)?).ok()?;
    Some(record)
}

/// What is wrong with the file, and where.
#[cold]
pub(super) fn corrupted(source: &dyn Source, offset: u64, what: impl std::fmt::Display) -> Error {
    let message = format!(
        "read the ELF file {}: {what} (offset {offset:#x}); the file is damaged",
        source.path().display()
    );
    Error::new(ErrorKind::Corrupted, message)
        .with_path(source.path())
        .with_offset(offset)
}

/// What this build cannot do with the file, and where.
#[cold]
pub(super) fn not_supported(
    source: &dyn Source,
    offset: u64,
    what: impl std::fmt::Display,
) -> Error {
    let message = format!("read the ELF file {}: {what}", source.path().display());
    Error::new(ErrorKind::NotSupported, message)
        .with_path(source.path())
        .with_offset(offset)
}

/// `count` records of `entry` bytes as one range of the file. The product is checked against the
/// file before anything is allocated.
pub(super) fn table(
    source: &dyn Source,
    offset: u64,
    count: u64,
    entry: u64,
    what: &str,
) -> Result<Vec<u8>> {
    let Some(size) = count.checked_mul(entry) else {
        let text = format!("{what} has {count} entries of {entry} bytes, which no file holds");
        return Err(corrupted(source, offset, text));
    };
    source.bytes(offset, size, what)
}

/// Refuses a table whose entries have another size than the class says.
pub(super) fn check_entry(
    source: &dyn Source,
    offset: u64,
    found: u64,
    wanted: u64,
    what: &str,
) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    let text = format!("an entry of {what} has {found} bytes; it must have {wanted}");
    Err(corrupted(source, offset, text))
}
