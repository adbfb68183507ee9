//! Sections and segments of ELF files into device memory.

use core::ffi::c_char;

use super::convert::{self, AbiStruct, StructOut};
use super::elf::{ElfObject, fewer, text};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::transfer::with;
use super::types::{
    GDS_ELF_PART_SECTION, GDS_ELF_PART_SEGMENT, gds_buffer_t, gds_completion_t,
    gds_elf_encoding_t as E, gds_elf_part_t, gds_elf_plan_info_t, gds_elf_plan_t,
    gds_elf_select_t as S, gds_elf_t, gds_options_t,
};
use crate::base::limits;
use crate::engine::{File, MemoryKind, Options};
use crate::formats::ReadOptions;
use crate::formats::elf::{ElfPlan, Encoding, PartKind, Select};

/// A plan, and the file that it reads.
#[derive(Debug)]
pub(crate) struct ElfPlanObject {
    plan: ElfPlan,
    file: File,
}

impl Handle for gds_elf_plan_t {
    type Object = ElfPlanObject;
    const TAG: u32 = 0x4744_0055;
    const NAME: &'static str = "gds_elf_plan_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_elf_plan_info_t {
    const NAME: &'static str = "gds_elf_plan_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            plain: 0,
            size_bytes: 0,
            file_bytes: 0,
            parts: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_elf_part_t {
    const NAME: &'static str = "gds_elf_part_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            index: 0,
            encoding: 0,
            to_offset: 0,
            size: 0,
            align: 0,
            file_offset: 0,
            file_size: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_elf_plan_info_t>() == 32);
const _: () = assert!(size_of::<gds_elf_part_t>() == 56);

/// Plan to load sections or segments, each at its alignment, compressed sections decoded.
/// Only headers of compressed sections are read.
///
/// @param select       a gds_elf_select_t.
/// @param names        with GDS_ELF_SELECT_NAMES: names of sections, where `*` stands for
///                     any bytes and `?` for one; each must be there. Parts come in the
///                     order of the file. A section without bytes in the file (.bss) is
///                     zero. Used during the call only.
/// @param count        how many names; 0 with the other selections.
/// @param limit_bytes  the most that the destination may take, 0 for no limit. What a
///                     compressed section becomes, and how far zeros go, the file alone
///                     says: give a limit for files of strangers.
/// @param plan_out     give it to gds_elf_plan_destroy() once. Keeps the file.
/// @return GDS_STATUS_NOT_FOUND: a name; GDS_STATUS_OUT_OF_RANGE: more than limit_bytes;
///         GDS_STATUS_CORRUPTED: something lies outside of the file, or cannot become as
///         large as it says; GDS_STATUS_NOT_SUPPORTED: a compression, or an alignment above
///         2 MiB; GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_plan(
    elf: *const gds_elf_t,
    select: i32,
    names: *const *const c_char,
    count: u64,
    limit_bytes: u64,
    plan_out: *mut *mut gds_elf_plan_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(plan_out, "plan_out")?;
        // SAFETY: the caller gives `count` texts.
        let plan = unsafe { plan_of(&elf, select, names, count, limit_bytes)? };
        let file = elf.file.clone();
        // SAFETY: checked above.
        unsafe { plan_out.write(handle::open(ElfPlanObject { plan, file })?) };
        Ok(())
    })
}

/// Plan to load sections or segments by their numbers, in this order.
///
/// @param kind      GDS_ELF_PART_SECTION or GDS_ELF_PART_SEGMENT.
/// @param indices   their numbers; used during the call only.
/// @param plan_out  give it to gds_elf_plan_destroy() once. Keeps the file.
/// @return GDS_STATUS_OUT_OF_RANGE: also a number; as gds_elf_plan().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_plan_parts(
    elf: *const gds_elf_t,
    kind: u32,
    indices: *const u32,
    count: u64,
    limit_bytes: u64,
    plan_out: *mut *mut gds_elf_plan_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(plan_out, "plan_out")?;
        let most = limits::PLAN_PIECES_MAX;
        // SAFETY: the caller gives `count` numbers.
        let indices = unsafe { convert::array(indices, count, most, "indices")? };
        let select = match kind {
            GDS_ELF_PART_SECTION => Select::Sections(indices),
            GDS_ELF_PART_SEGMENT => Select::Segments(indices),
            _ => {
                let text = format!("kind is {kind}; choose one of GDS_ELF_PART_*");
                return Err(Failure::argument(text));
            }
        };
        let plan = ElfPlan::new(elf.tables.file(), select, limit(limit_bytes))?;
        let file = elf.file.clone();
        // SAFETY: checked above.
        unsafe { plan_out.write(handle::open(ElfPlanObject { plan, file })?) };
        Ok(())
    })
}

/// Give a plan back. NULL and destroyed handles are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_plan_destroy(plan: *mut gds_elf_plan_t) {
    guard_void(|| handle::close(plan));
}

/// Tell what a plan reads.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_plan_info(
    plan: *const gds_elf_plan_t,
    info_out: *mut gds_elf_plan_info_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(plan, "plan")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        place.write(gds_elf_plan_info_t {
            plain: u32::from(object.plan.is_plain()),
            size_bytes: object.plan.size(),
            file_bytes: object.plan.bytes(),
            parts: object.plan.parts().len() as u64,
            ..gds_elf_plan_info_t::initial()
        });
        Ok(())
    })
}

/// Tell about a part of a plan.
///
/// @param index     from 0, in the order of their places.
/// @param part_out  struct_size set.
/// @return GDS_STATUS_OUT_OF_RANGE: there are fewer; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_plan_part(
    plan: *const gds_elf_plan_t,
    index: u64,
    part_out: *mut gds_elf_part_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(plan, "plan")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(part_out)? };
        let parts = object.plan.parts();
        let part = parts.get(usize::try_from(index).unwrap_or(usize::MAX));
        let part = part.ok_or_else(|| fewer(index, parts.len() as u64, "parts"))?;
        place.write(gds_elf_part_t {
            kind: match part.kind {
                PartKind::Section => GDS_ELF_PART_SECTION,
                PartKind::Segment => GDS_ELF_PART_SEGMENT,
            },
            index: part.index,
            encoding: encoding_to_c(part.encoding) as i32,
            to_offset: part.to_offset,
            size: part.size,
            align: part.align,
            file_offset: part.file_offset,
            file_size: part.file_size,
            ..gds_elf_part_t::initial()
        });
        Ok(())
    })
}

/// Load everything that a plan names, and wait: plain bytes by the engine as gds_plan_read()
/// does, compressed ones meanwhile by threads of their own. Bytes of the destination between
/// parts are unspecified afterwards.
///
/// A decoder takes 1.3 MiB of host memory and its window: 32 KiB for zlib; for Zstandard 8
/// MiB, or as much as the section becomes, up to 128 MiB. At most 16 work at a time.
///
/// @param buffer          of the file's context; the plan's size_bytes fit behind the
///                        offset.
/// @param buffer_offset   where the destination begins in the buffer, bytes.
/// @param options         NULL: as the context says. With a stream the memory is touched
///                        after what is in it now. No checksum is computed.
/// @param completion_out  struct_size set; its bytes are those that came to be in memory.
///                        May be NULL.
/// @return GDS_STATUS_CORRUPTED: also for compressed bytes that are damaged, or become more
///         or less than they say; as gds_plan_read().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_plan_read(
    plan: *const gds_elf_plan_t,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    options: *const gds_options_t,
    completion_out: *mut gds_completion_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(plan, "plan")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        let run = |options: &Options| {
            let options = ReadOptions {
                transfer: options.clone(),
                ..ReadOptions::default()
            };
            let (plan, file) = (&object.plan, &object.file);
            Ok(plan.read(file, &buffer, buffer_offset, &options)?)
        };
        // SAFETY: the caller gives structs of struct_size bytes, or NULL.
        unsafe { with(options, completion_out, run) }
    })
}

/// Load sections or segments into new memory of the device, and wait.
///
/// As gds_elf_plan(), gds_buffer_alloc() and gds_elf_plan_read() together.
///
/// @param plan_out    tells what stands where; give it to gds_elf_plan_destroy() once.
/// @param buffer_out  give it to gds_buffer_free() once.
/// @return as those; GDS_STATUS_INVALID_ARGUMENT also when there are no bytes to load.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_elf_load(
    elf: *const gds_elf_t,
    select: i32,
    names: *const *const c_char,
    count: u64,
    limit_bytes: u64,
    plan_out: *mut *mut gds_elf_plan_t,
    buffer_out: *mut *mut gds_buffer_t,
) -> gds_status_t {
    guard(|| {
        let elf = handle::borrow(elf, "elf")?;
        convert::check_pointer(plan_out, "plan_out")?;
        convert::check_pointer(buffer_out, "buffer_out")?;
        // SAFETY: the caller gives `count` texts.
        let plan = unsafe { plan_of(&elf, select, names, count, limit_bytes)? };
        if plan.size() == 0 {
            return Err(Failure::argument("there are no bytes to load"));
        }
        let file = elf.file.clone();
        let buffer = file.context().alloc(MemoryKind::Device, plan.size())?;
        plan.read(&file, &buffer, 0, &ReadOptions::default())?;
        let (plan, buffer) = both(handle::open(ElfPlanObject { plan, file })?, buffer)?;
        // SAFETY: checked above.
        unsafe {
            plan_out.write(plan);
            buffer_out.write(buffer);
        }
        Ok(())
    })
}

/// A handle of the buffer beside that of its plan, or neither.
fn both(
    plan: *mut gds_elf_plan_t,
    buffer: crate::engine::Buffer,
) -> Outcome<(*mut gds_elf_plan_t, *mut gds_buffer_t)> {
    match handle::open(buffer) {
        Ok(buffer) => Ok((plan, buffer)),
        Err(failure) => {
            handle::close(plan);
            Err(failure)
        }
    }
}

fn limit(bytes: u64) -> u64 {
    match bytes {
        0 => limits::TRANSFER_SIZE_MAX,
        some => some,
    }
}

/// # Safety
/// A non-NULL `names` points to `count` texts that end.
unsafe fn plan_of(
    elf: &ElfObject,
    select: i32,
    names: *const *const c_char,
    count: u64,
    limit_bytes: u64,
) -> Outcome<ElfPlan> {
    // SAFETY: the caller's promise.
    let given = unsafe { convert::array(names, count, limits::PLAN_PIECES_MAX, "names")? };
    let mut names = Vec::with_capacity(given.len());
    for (index, name) in given.iter().enumerate() {
        // SAFETY: the caller's promise.
        names.push(unsafe { text(*name, format_args!("names[{index}]"))? });
    }
    let select = match select_of(select)? {
        S::GDS_ELF_SELECT_NAMES if names.is_empty() => {
            return Err(Failure::argument("count is 0; name at least one section"));
        }
        S::GDS_ELF_SELECT_NAMES => Select::Names(&names),
        _ if !names.is_empty() => {
            let text = format!("count is {count}; it must be 0 with this selection");
            return Err(Failure::argument(text));
        }
        S::GDS_ELF_SELECT_STORED => Select::Stored,
        S::GDS_ELF_SELECT_ALLOCATED => Select::Allocated,
        S::GDS_ELF_SELECT_LOADS => Select::Loads,
    };
    Ok(ElfPlan::new(elf.tables.file(), select, limit(limit_bytes))?)
}

fn select_of(number: i32) -> Outcome<S> {
    let all = [
        S::GDS_ELF_SELECT_NAMES,
        S::GDS_ELF_SELECT_STORED,
        S::GDS_ELF_SELECT_ALLOCATED,
        S::GDS_ELF_SELECT_LOADS,
    ];
    let found = all.into_iter().find(|select| *select as i32 == number);
    found.ok_or_else(|| {
        Failure::argument(format!(
            "select is {number}; choose one of GDS_ELF_SELECT_*"
        ))
    })
}

fn encoding_to_c(encoding: Encoding) -> E {
    match encoding {
        Encoding::Plain => E::GDS_ELF_ENCODING_PLAIN,
        Encoding::Zlib => E::GDS_ELF_ENCODING_ZLIB,
        Encoding::Zstd => E::GDS_ELF_ENCODING_ZSTD,
        Encoding::Zero => E::GDS_ELF_ENCODING_ZERO,
    }
}
