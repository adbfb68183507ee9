//! Tables of ELF files, entry by entry: symbols, notes, dynamic entries, relocations, device code.

use super::convert::{self, AbiStruct, StructOut};
use super::elf::{ElfObject, fewer, small};
use super::error::Outcome;
use super::guard::guard;
use super::handle;
use super::status::gds_status_t;
use super::types::{
    GDS_ELF_DEVICE_CODE_CUBIN, GDS_ELF_DEVICE_CODE_PTX, gds_elf_device_code_t, gds_elf_dynamic_t,
    gds_elf_kernel_t, gds_elf_note_t, gds_elf_relocation_t, gds_elf_symbol_t, gds_elf_t,
};
use crate::formats::elf::{DynamicTable, FatbinKind};

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers.
unsafe impl AbiStruct for gds_elf_symbol_t {
    const NAME: &'static str = "gds_elf_symbol_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            binding: 0,
            other: 0,
            section: 0,
            in_section: 0,
            name: std::ptr::null(),
            name_bytes: 0,
            version: std::ptr::null(),
            version_bytes: 0,
            value: 0,
            size: 0,
            version_is_default: 0,
            reserved: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers.
unsafe impl AbiStruct for gds_elf_note_t {
    const NAME: &'static str = "gds_elf_note_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            owner: std::ptr::null(),
            owner_bytes: 0,
            descriptor: std::ptr::null(),
            descriptor_bytes: 0,
            offset: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers.
unsafe impl AbiStruct for gds_elf_dynamic_t {
    const NAME: &'static str = "gds_elf_dynamic_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            tag: 0,
            value: 0,
            name: std::ptr::null(),
            name_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_elf_relocation_t {
    const NAME: &'static str = "gds_elf_relocation_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            symbol: 0,
            has_addend: 0,
            offset: 0,
            info: 0,
            addend: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers and raw pointers.
unsafe impl AbiStruct for gds_elf_kernel_t {
    const NAME: &'static str = "gds_elf_kernel_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            arch: 0,
            section: 0,
            registers: 0,
            name: std::ptr::null(),
            name_bytes: 0,
            code_bytes: 0,
            parameter_bytes: 0,
            shared_bytes: 0,
            constant_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_elf_device_code_t {
    const NAME: &'static str = "gds_elf_device_code_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            arch: 0,
            compression: 0,
            version_major: 0,
            version_minor: 0,
            container_offset: 0,
            offset: 0,
            size: 0,
            decompressed_size: 0,
            flags: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_elf_symbol_t>() == 80);
const _: () = assert!(size_of::<gds_elf_note_t>() == 48);
const _: () = assert!(size_of::<gds_elf_dynamic_t>() == 40);
const _: () = assert!(size_of::<gds_elf_relocation_t>() == 40);
const _: () = assert!(size_of::<gds_elf_kernel_t>() == 64);
const _: () = assert!(size_of::<gds_elf_device_code_t>() == 64);

/// Count the symbols of a section, the first one (which is empty) included.
///
/// @return GDS_STATUS_OUT_OF_RANGE: no such section;
///         GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_symbol_count(
    elf: *const gds_elf_t,
    section: u64,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(count_out, "count_out")?;
        let count = elf.tables.symbols(small(section))?.len();
        // SAFETY: checked above.
        unsafe { count_out.write(count) };
        Ok(())
    })
}

/// Tell about a symbol.
///
/// @param section  its number; of type SYMTAB (2) or DYNSYM (11).
/// @param index    from 0.
/// @param symbol_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
///         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_symbol(
    elf: *const gds_elf_t,
    section: u64,
    index: u64,
    symbol_out: *mut gds_elf_symbol_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(symbol_out)? };
        let table = elf.tables.symbols(small(section))?;
        let symbol = table.get(index)?;
        let version = symbol.version;
        place.write(gds_elf_symbol_t {
            kind: symbol.kind.into(),
            binding: symbol.binding.into(),
            other: symbol.other.into(),
            section: symbol.section,
            in_section: u32::from(symbol.is_in_section),
            name: symbol.name.as_ptr().cast(),
            name_bytes: symbol.name.len() as u64,
            version: version.map_or(std::ptr::null(), |v| v.name.as_ptr().cast()),
            version_bytes: version.map_or(0, |v| v.name.len() as u64),
            value: symbol.value,
            size: symbol.size,
            version_is_default: u32::from(version.is_some_and(|v| v.is_default)),
            ..gds_elf_symbol_t::initial()
        });
        Ok(())
    })
}

/// Count the relocations of a section; of RELR the places that it stands for.
///
/// @return GDS_STATUS_OUT_OF_RANGE: no such section;
///         GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_relocation_count(
    elf: *const gds_elf_t,
    section: u64,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(count_out, "count_out")?;
        let count = elf.tables.relocations(small(section))?.len();
        // SAFETY: checked above.
        unsafe { count_out.write(count) };
        Ok(())
    })
}

/// Tell about a relocation.
///
/// @param section  its number; of type REL (9), RELA (4) or RELR (19).
/// @param index    from 0.
/// @param relocation_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
///         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_relocation(
    elf: *const gds_elf_t,
    section: u64,
    index: u64,
    relocation_out: *mut gds_elf_relocation_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(relocation_out)? };
        let table = elf.tables.relocations(small(section))?;
        let found = table.get(index);
        let found = found.ok_or_else(|| fewer(index, table.len(), "relocations"))?;
        place.write(gds_elf_relocation_t {
            kind: found.kind,
            symbol: found.symbol,
            has_addend: u32::from(found.addend.is_some()),
            offset: found.offset,
            info: found.info,
            addend: found.addend.unwrap_or(0),
            ..gds_elf_relocation_t::initial()
        });
        Ok(())
    })
}

/// Count the notes: of all sections, or of the segments where no section has any.
///
/// @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_note_count(
    elf: *const gds_elf_t,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(count_out, "count_out")?;
        let count = elf
            .tables
            .notes()?
            .iter()
            .map(|table| table.len() as u64)
            .sum();
        // SAFETY: checked above.
        unsafe { count_out.write(count) };
        Ok(())
    })
}

/// Tell about a note.
///
/// @param index  from 0.
/// @param note_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
///         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_note(
    elf: *const gds_elf_t,
    index: u64,
    note_out: *mut gds_elf_note_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(note_out)? };
        let tables = elf.tables.notes()?;
        let mut at = index;
        let found = tables.iter().find_map(|table| {
            let count = table.len() as u64;
            if at < count {
                return table.get(usize::try_from(at).unwrap_or(usize::MAX));
            }
            at -= count;
            None
        });
        let count = tables.iter().map(|table| table.len() as u64).sum();
        let note = found.ok_or_else(|| fewer(index, count, "notes"))?;
        place.write(gds_elf_note_t {
            kind: note.kind,
            owner: note.owner.as_ptr(),
            owner_bytes: note.owner.len() as u64,
            descriptor: note.descriptor.as_ptr(),
            descriptor_bytes: note.descriptor.len() as u64,
            offset: note.offset,
            ..gds_elf_note_t::initial()
        });
        Ok(())
    })
}

/// Count the entries of the dynamic section, the one that ends it included.
///
/// @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_dynamic_count(
    elf: *const gds_elf_t,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(count_out, "count_out")?;
        let count = elf
            .tables
            .dynamic()?
            .map_or(0, |table| table.entries().len() as u64);
        // SAFETY: checked above.
        unsafe { count_out.write(count) };
        Ok(())
    })
}

/// Tell about an entry of the dynamic section.
///
/// @param index  from 0.
/// @param entry_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
///         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_dynamic(
    elf: *const gds_elf_t,
    index: u64,
    entry_out: *mut gds_elf_dynamic_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(entry_out)? };
        let table = elf.tables.dynamic()?;
        let entries = table.map_or(&[][..], DynamicTable::entries);
        let entry = entries.get(usize::try_from(index).unwrap_or(usize::MAX));
        let (Some(table), Some(entry)) = (table, entry) else {
            return Err(fewer(index, entries.len() as u64, "dynamic entries"));
        };
        let name = table.name(elf.tables.file(), entry)?;
        place.write(gds_elf_dynamic_t {
            tag: entry.tag,
            value: entry.value,
            name: name.map_or(std::ptr::null(), |name| name.as_ptr().cast()),
            name_bytes: name.map_or(0, |name| name.len() as u64),
            ..gds_elf_dynamic_t::initial()
        });
        Ok(())
    })
}

/// Count the kernels of a cubin; 0 for other files.
///
/// @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_kernel_count(
    elf: *const gds_elf_t,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(count_out, "count_out")?;
        let count = elf
            .tables
            .cubin()?
            .map_or(0, |cubin| cubin.kernels.len() as u64);
        // SAFETY: checked above.
        unsafe { count_out.write(count) };
        Ok(())
    })
}

/// Tell about a kernel of a cubin.
///
/// @param index  from 0.
/// @param kernel_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
///         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_kernel(
    elf: *const gds_elf_t,
    index: u64,
    kernel_out: *mut gds_elf_kernel_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(kernel_out)? };
        let cubin = elf.tables.cubin()?;
        let kernels = cubin.map_or(&[][..], |cubin| &cubin.kernels);
        let kernel = kernels.get(usize::try_from(index).unwrap_or(usize::MAX));
        let (Some(cubin), Some(kernel)) = (cubin, kernel) else {
            return Err(fewer(index, kernels.len() as u64, "kernels"));
        };
        let name = cubin.name(kernel)?;
        place.write(gds_elf_kernel_t {
            arch: cubin.arch,
            section: kernel.section,
            registers: kernel.registers.unwrap_or(0),
            name: name.as_ptr().cast(),
            name_bytes: name.len() as u64,
            code_bytes: kernel.code_size,
            parameter_bytes: kernel.parameter_size.unwrap_or(0).into(),
            shared_bytes: kernel.shared_size,
            constant_bytes: kernel.constant_size,
            ..gds_elf_kernel_t::initial()
        });
        Ok(())
    })
}

/// Count the pieces of device code that a program carries for NVIDIA's devices.
///
/// @return GDS_STATUS_CORRUPTED: gds_last_error() has the offset; GDS_STATUS_IO;
///         GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_device_code_count(
    elf: *const gds_elf_t,
    count_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(count_out, "count_out")?;
        let count = device_code_count(&elf)?;
        // SAFETY: checked above.
        unsafe { count_out.write(count) };
        Ok(())
    })
}

/// Tell about a piece of device code that a program carries.
///
/// @param index  from 0.
/// @param code_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_CORRUPTED: gds_last_error()
///         has the offset; GDS_STATUS_IO; GDS_STATUS_OUT_OF_HOST_MEMORY;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_device_code(
    elf: *const gds_elf_t,
    index: u64,
    code_out: *mut gds_elf_device_code_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(code_out)? };
        let mut all = elf.tables.fatbins()?.iter().flat_map(|container| {
            container
                .entries
                .iter()
                .map(move |entry| (container, entry))
        });
        let found = all.nth(usize::try_from(index).unwrap_or(usize::MAX));
        let Some((container, entry)) = found else {
            return Err(fewer(
                index,
                device_code_count(&elf)?,
                "pieces of device code",
            ));
        };
        place.write(gds_elf_device_code_t {
            kind: match entry.kind {
                FatbinKind::Ptx => GDS_ELF_DEVICE_CODE_PTX,
                FatbinKind::Cubin => GDS_ELF_DEVICE_CODE_CUBIN,
                FatbinKind::Unknown(other) => other.into(),
            },
            arch: entry.arch,
            compression: match entry.compression {
                None => 0,
                Some("lz4") => 1,
                Some(_) => 2,
            },
            version_major: entry.version.0.into(),
            version_minor: entry.version.1.into(),
            container_offset: container.offset,
            offset: entry.data_offset,
            size: entry.data_size,
            decompressed_size: entry.decompressed_size,
            flags: entry.flags,
            ..gds_elf_device_code_t::initial()
        });
        Ok(())
    })
}

fn device_code_count(elf: &ElfObject) -> Outcome<u64> {
    let containers = elf.tables.fatbins()?.iter();
    Ok(containers
        .map(|container| container.entries.len() as u64)
        .sum())
}
