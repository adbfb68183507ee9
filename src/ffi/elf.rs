//! ELF files: headers, sections, segments.

use core::ffi::{CStr, c_char};

use std::sync::Arc;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::types::{gds_elf_info_t, gds_elf_section_t, gds_elf_segment_t, gds_elf_t, gds_file_t};
use crate::base::limits;
use crate::engine::File;
use crate::error::{Error, ErrorKind};
use crate::formats::FileSource;
use crate::formats::elf::{ByteOrder, Elf, Tables};

/// A file with its tables.
#[derive(Debug)]
pub(crate) struct ElfObject {
    pub(super) tables: Tables,
    pub(super) file: File,
}

impl Handle for gds_elf_t {
    type Object = ElfObject;
    const TAG: u32 = 0x4744_0054;
    const NAME: &'static str = "gds_elf_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers.
unsafe impl AbiStruct for gds_elf_info_t {
    const NAME: &'static str = "gds_elf_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            class_bits: 0,
            big_endian: 0,
            os_abi: 0,
            abi_version: 0,
            kind: 0,
            machine: 0,
            flags: 0,
            entry: 0,
            sections: 0,
            segments: 0,
            build_id: std::ptr::null(),
            build_id_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers.
unsafe impl AbiStruct for gds_elf_section_t {
    const NAME: &'static str = "gds_elf_section_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            link: 0,
            info: 0,
            name: std::ptr::null(),
            name_bytes: 0,
            flags: 0,
            address: 0,
            offset: 0,
            size: 0,
            align: 0,
            entry_size: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_elf_segment_t {
    const NAME: &'static str = "gds_elf_segment_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            flags: 0,
            reserved: 0,
            offset: 0,
            address: 0,
            physical_address: 0,
            file_size: 0,
            memory_size: 0,
            align: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_elf_info_t>() == 72);
const _: () = assert!(size_of::<gds_elf_section_t>() == 80);
const _: () = assert!(size_of::<gds_elf_segment_t>() == 64);

/// Read the headers of an ELF file: 32 and 64 bit, either byte order.
///
/// Tables of it are read when they are asked for, and kept: together they take at most 8
/// times the size of the file. A section whose bytes lie outside of the file is no error
/// before it is read.
///
/// @param elf_out  give it to gds_elf_close() once. Keeps the file.
/// @return GDS_STATUS_CORRUPTED: no ELF file, or a damaged one, gds_last_error() has the
///         offset; GDS_STATUS_NOT_SUPPORTED: a version that is not known; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_open(
    file: *const gds_file_t,
    elf_out: *mut *mut gds_elf_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        convert::check_pointer(elf_out, "elf_out")?;
        let elf = Elf::open(Arc::new(FileSource::new(&file)?))?;
        let tables = Tables::new(elf);
        let file = file.clone();
        // SAFETY: checked above.
        unsafe { elf_out.write(handle::open(ElfObject { tables, file })?) };
        Ok(())
    })
}

/// Close a file. Pointers that it gave end with it; plans stay. NULL and closed handles are
/// fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_close(elf: *mut gds_elf_t) {
    guard_void(|| handle::close(elf));
}

/// Tell what the header says.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_info(
    elf: *const gds_elf_t,
    info_out: *mut gds_elf_info_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        let header = elf.tables.file().header();
        // A damaged note hides no other part of the header.
        let id = elf.tables.build_id().ok().flatten();
        place.write(gds_elf_info_t {
            class_bits: header.class.bits(),
            big_endian: u32::from(header.order == ByteOrder::Big),
            os_abi: header.os_abi.into(),
            abi_version: header.abi_version.into(),
            kind: header.kind.into(),
            machine: header.machine.into(),
            flags: header.flags,
            entry: header.entry,
            sections: elf.tables.file().sections().len() as u64,
            segments: elf.tables.file().segments().len() as u64,
            build_id: id.map_or(std::ptr::null(), <[u8]>::as_ptr),
            build_id_bytes: id.map_or(0, |id| id.len() as u64),
            ..gds_elf_info_t::initial()
        });
        Ok(())
    })
}

/// Tell about a section.
///
/// @param index        from 0; section 0 has no bytes.
/// @param section_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_section(
    elf: *const gds_elf_t,
    index: u64,
    section_out: *mut gds_elf_section_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(section_out)? };
        let file = elf.tables.file();
        let section = file.section(small(index))?;
        let name = file.section_name(section);
        place.write(gds_elf_section_t {
            kind: section.kind,
            link: section.link,
            info: section.info,
            name: name.as_ptr().cast(),
            name_bytes: name.len() as u64,
            flags: section.flags,
            address: section.address,
            offset: section.offset,
            size: section.size,
            align: section.align,
            entry_size: section.entry_size,
            ..gds_elf_section_t::initial()
        });
        Ok(())
    })
}

/// Find the first section of a name.
///
/// @param index_out  its number.
/// @return GDS_STATUS_NOT_FOUND; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_find_section(
    elf: *const gds_elf_t,
    name: *const c_char,
    index_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a text that ends.
        let name = unsafe { text(name, "name")? };
        convert::check_pointer(index_out, "index_out")?;
        let file = elf.tables.file();
        let section = file
            .section_named(name)
            .ok_or_else(|| not_found(file, name))?;
        // SAFETY: checked above.
        unsafe { index_out.write(section.index.into()) };
        Ok(())
    })
}

/// Tell about a segment.
///
/// @param index        from 0.
/// @param segment_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_segment(
    elf: *const gds_elf_t,
    index: u64,
    segment_out: *mut gds_elf_segment_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(segment_out)? };
        let segments = elf.tables.file().segments();
        let segment = segments.get(small(index) as usize);
        let segment = segment.ok_or_else(|| fewer(index, segments.len() as u64, "segments"))?;
        place.write(gds_elf_segment_t {
            kind: segment.kind,
            flags: segment.flags,
            offset: segment.offset,
            address: segment.address,
            physical_address: segment.physical_address,
            file_size: segment.file_size,
            memory_size: segment.memory_size,
            align: segment.align,
            ..gds_elf_segment_t::initial()
        });
        Ok(())
    })
}

/// A number of 32 bits; what does not fit is past the end of everything.
pub(super) fn small(index: u64) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

pub(super) fn fewer(index: u64, count: u64, what: &str) -> Failure {
    let text = format!("number {index} was asked for; there are {count} {what}, from 0");
    Error::new(ErrorKind::OutOfRange, text).into()
}

fn not_found(file: &Elf, name: &[u8]) -> Failure {
    let path = file.source().path();
    let name = String::from_utf8_lossy(name);
    let text = format!("no section of {} is called {name}", path.display());
    Error::new(ErrorKind::NotFound, text).with_path(path).into()
}

/// # Safety
/// A non-NULL `pointer` is NUL-terminated, or readable for `TEXT_MAX` bytes, during 'a.
pub(super) unsafe fn text<'a>(
    pointer: *const c_char,
    name: impl std::fmt::Display,
) -> Outcome<&'a [u8]> {
    if pointer.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: the caller's promise.
    let size = unsafe { libc::strnlen(pointer, limits::TEXT_MAX) };
    if size == limits::TEXT_MAX {
        let text = format!("{name} has no NUL within {} bytes", limits::TEXT_MAX);
        return Err(Failure::argument(text));
    }
    // SAFETY: the NUL was found above.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}
