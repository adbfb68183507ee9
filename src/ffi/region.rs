//! Mapped regions: ranges of files in device memory.

use core::ffi::c_void;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::types::{
    gds_context_t, gds_file_t, gds_region_config_t, gds_region_info_t, gds_region_set_t,
    gds_region_stats_t, gds_region_t,
};
use crate::prefetch::{Region, RegionConfig, RegionStats, Regions};

impl Handle for gds_region_set_t {
    type Object = Regions;
    const TAG: u32 = 0x4744_0020;
    const NAME: &'static str = "gds_region_set_t";
}

impl Handle for gds_region_t {
    type Object = Region;
    const TAG: u32 = 0x4744_0021;
    const NAME: &'static str = "gds_region_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_region_config_t {
    const NAME: &'static str = "gds_region_config_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            limit_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_region_info_t {
    const NAME: &'static str = "gds_region_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            address: 0,
            offset: 0,
            size: 0,
            valid_bytes: 0,
            dirty_bytes: 0,
            aligned_address: 0,
            aligned_offset: 0,
            aligned_size: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_region_stats_t {
    const NAME: &'static str = "gds_region_stats_t";
    fn initial() -> Self {
        stats_to_c(&RegionStats::default())
    }
}

const _: () = assert!(size_of::<gds_region_config_t>() == 16);
const _: () = assert!(size_of::<gds_region_info_t>() == 72);
const _: () = assert!(size_of::<gds_region_stats_t>() == 112);

/// Fill a configuration of regions, as GDS_REGION_CONFIG_INIT does.
///
/// @param config_out  filled as far as `size` goes, struct_size included.
/// @param size        sizeof(gds_region_config_t).
/// @return GDS_STATUS_INVALID_ARGUMENT: config_out is NULL or misaligned;
///         GDS_STATUS_STRUCT_SIZE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_config_init(
    config_out: *mut c_void,
    size: usize,
) -> gds_status_t {
    guard(|| {
        let place = config_out.cast::<gds_region_config_t>();
        // SAFETY: the caller gives `size` writable bytes.
        unsafe { convert::write_sized(place, size, gds_region_config_t::initial()) }
    })
}

/// Open a set of regions, empty at first. Any thread.
///
/// @param config   NULL: GDS_REGION_CONFIG_INIT.
/// @param set_out  give it to gds_region_set_close() once. Keeps the context.
/// @return GDS_STATUS_INVALID_CONFIG: the limit is below the alignment of the context;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_set_open(
    context: *const gds_context_t,
    config: *const gds_region_config_t,
    set_out: *mut *mut gds_region_set_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(set_out, "set_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let config = config_of(&unsafe { convert::read_optional(config)? })?;
        let set = Regions::open(&context, config)?;
        // SAFETY: checked above.
        unsafe { set_out.write(handle::open(set)?) };
        Ok(())
    })
}

/// Close a set. NULL and closed handles are fine.
///
/// Regions that are held stay usable. The last of them, or this call, writes what is dirty
/// and frees the memory; nobody is told if that write fails, so call gds_region_set_flush()
/// before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_set_close(set: *mut gds_region_set_t) {
    guard_void(|| handle::close(set));
}

/// Write what is dirty, in the order of the offsets, and wait. Not durable before
/// gds_file_sync().
///
/// What the caller's kernels write to regions must be complete before. A region never
/// changes the size of its file.
///
/// @param file       of this file only. NULL: of every file.
/// @param bytes_out  bytes written. May be NULL.
/// @return the first failure, after everything else was tried; its bytes stay dirty:
///         GDS_STATUS_FILE_CHANGED: the file has become shorter; GDS_STATUS_NO_SPACE;
///         GDS_STATUS_IO; GDS_STATUS_CUDA. Also a failed write of an earlier eviction, once.
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_set_flush(
    set: *const gds_region_set_t,
    file: *const gds_file_t,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let set = handle::borrow(set, "set")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let bytes = if file.is_null() {
            set.flush(None)?
        } else {
            set.flush(Some(&*handle::borrow(file, "file")?))?
        };
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Tell what a set has done and what it holds.
///
/// @param stats_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_set_stats(
    set: *const gds_region_set_t,
    stats_out: *mut gds_region_stats_t,
) -> gds_status_t {
    guard(|| {
        let set = handle::borrow(set, "set")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(stats_out)? };
        place.write(stats_to_c(&set.stats()));
        Ok(())
    })
}

/// Map a range of a file to device memory, contiguous, and hold it there. Blocks while it is
/// read.
///
/// Any offset and size are taken. The same range of the same file, by whatever handle, is
/// the same memory and is not read again; a range inside a mapped one is a view of it.
/// Ranges that overlap otherwise have a copy each: what is dirty in the one is written
/// before the other is read, and bytes in both cannot be marked dirty while both are held.
/// Where the limit is reached, regions that nobody holds make room, the least recently used
/// first; dirty ones are written before.
///
/// @param file        of the context of the set; open for writing if it is to be marked.
/// @param size        bytes, at least 1. Behind the end of the file they are zero.
/// @param region_out  give it to gds_region_unmap() once. Keeps the set and the file.
/// @return GDS_STATUS_OUT_OF_DEVICE_MEMORY: it does not fit beside what is held, the message
///         names the limit and the bytes; GDS_STATUS_OUT_OF_RANGE; what gds_read() answers;
///         a failed write of an earlier eviction of this file, once;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_map(
    set: *const gds_region_set_t,
    file: *const gds_file_t,
    offset: u64,
    size: u64,
    region_out: *mut *mut gds_region_t,
) -> gds_status_t {
    guard(|| {
        let set = handle::borrow(set, "set")?;
        let file = handle::borrow(file, "file")?;
        convert::check_pointer(region_out, "region_out")?;
        let region = set.map(&file, offset, size)?;
        // SAFETY: checked above.
        unsafe { region_out.write(handle::open(region)?) };
        Ok(())
    })
}

/// Tell where the first byte of a region is. Kernels and cudaMemcpy take the address.
///
/// @param address_out  valid until the region is unmapped.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_address(
    region: *const gds_region_t,
    address_out: *mut *mut c_void,
) -> gds_status_t {
    guard(|| {
        let region = handle::borrow(region, "region")?;
        convert::check_pointer(address_out, "address_out")?;
        let address = usize::try_from(region.address())
            .map_err(|_| Failure::argument("the address does not fit a pointer"))?;
        // SAFETY: checked above.
        unsafe { address_out.write(std::ptr::with_exposed_provenance_mut(address)) };
        Ok(())
    })
}

/// Tell what a region is.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_info(
    region: *const gds_region_t,
    info_out: *mut gds_region_info_t,
) -> gds_status_t {
    guard(|| {
        let region = handle::borrow(region, "region")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        place.write(info_to_c(&region));
        Ok(())
    })
}

/// Count as a use of a region: the least recently used one makes room first, once it is
/// unmapped.
///
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_touch(region: *const gds_region_t) -> gds_status_t {
    guard(|| {
        handle::borrow(region, "region")?.touch();
        Ok(())
    })
}

/// Say that bytes of a region were changed: they will be written, at the latest before the
/// memory is used for something else. Nothing is written now.
///
/// @param offset  in the region, bytes.
/// @param size    bytes; offset plus size is at most valid_bytes of gds_region_info(): a
///                region never extends its file.
/// @return GDS_STATUS_READ_ONLY: the file that it was mapped by is not open for writing;
///         GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_INVALID_ARGUMENT: another region that is held
///         has its own copy of these bytes, unmap that first, or NULL; a failed write of an
///         earlier eviction of this file, once; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED. Nothing is marked then.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_mark_dirty(
    region: *const gds_region_t,
    offset: u64,
    size: u64,
) -> gds_status_t {
    guard(|| Ok(handle::borrow(region, "region")?.mark_dirty(offset, size)?))
}

/// Write what is dirty in the memory of a region, and wait, as gds_region_set_flush() does.
///
/// @param bytes_out  bytes written. May be NULL.
/// @return as gds_region_set_flush().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_flush(
    region: *const gds_region_t,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let region = handle::borrow(region, "region")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        let bytes = region.flush()?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Give up what is dirty in a region: it will not be written.
///
/// The memory keeps its bytes for those who hold it; who maps the range later gets what the
/// file has.
///
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_discard(region: *const gds_region_t) -> gds_status_t {
    guard(|| {
        handle::borrow(region, "region")?.discard();
        Ok(())
    })
}

/// Let go of a region. NULL and unmapped handles are fine.
///
/// It stays in device memory, dirty or not, until room is needed, and is found there when it
/// is mapped again. CUDA work of the caller that uses the memory must be done before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_region_unmap(region: *mut gds_region_t) {
    guard_void(|| handle::close(region));
}

fn config_of(given: &gds_region_config_t) -> Outcome<RegionConfig> {
    if given.reserved != 0 {
        return Err(Failure::argument(format!(
            "reserved of gds_region_config_t is {}; it must be 0",
            given.reserved
        )));
    }
    Ok(RegionConfig {
        limit_bytes: given.limit_bytes,
    })
}

fn info_to_c(region: &Region) -> gds_region_info_t {
    let (aligned_address, aligned_offset, aligned_size) = region.aligned();
    gds_region_info_t {
        address: region.address(),
        offset: region.offset(),
        size: region.size(),
        valid_bytes: region.valid_bytes(),
        dirty_bytes: region.dirty_bytes(),
        aligned_address,
        aligned_offset,
        aligned_size,
        ..gds_region_info_t::initial()
    }
}

fn stats_to_c(stats: &RegionStats) -> gds_region_stats_t {
    gds_region_stats_t {
        struct_size: 0,
        reserved: 0,
        limit_bytes: stats.limit_bytes,
        mapped_bytes: stats.mapped_bytes,
        held_bytes: stats.held_bytes,
        dirty_bytes: stats.dirty_bytes,
        regions: stats.regions,
        held_regions: stats.held_regions,
        loads: stats.loads,
        hits: stats.hits,
        evictions: stats.evictions,
        dirty_evictions: stats.dirty_evictions,
        bytes_read: stats.bytes_read,
        bytes_written: stats.bytes_written,
        write_errors: stats.write_errors,
    }
}
