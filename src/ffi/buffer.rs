//! Buffers: memory allocated here, or the caller's.

use core::ffi::c_void;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::types::{gds_buffer_info_t, gds_buffer_t, gds_context_t, gds_memory_kind_t as Kind};
use crate::device::MemoryKind;
use crate::engine::Buffer;

impl Handle for gds_buffer_t {
    type Object = Buffer;
    const TAG: u32 = 0x4744_0003;
    const NAME: &'static str = "gds_buffer_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_buffer_info_t {
    const NAME: &'static str = "gds_buffer_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            address: 0,
            size: 0,
        }
    }
}

const _: () = assert!(size_of::<gds_buffer_info_t>() == 24);

/// Allocate memory.
///
/// Device memory is aligned to 256 bytes at least, pinned memory to 4096. Contents of device
/// memory are undefined, of pinned memory zero. Any thread.
///
/// @param kind        GDS_MEMORY_DEVICE or GDS_MEMORY_PINNED.
/// @param size        bytes, at least 1.
/// @param buffer_out  give it to gds_buffer_free() once. Keeps the context.
/// @return GDS_STATUS_OUT_OF_DEVICE_MEMORY or GDS_STATUS_OUT_OF_HOST_MEMORY: the message
///         says how much is free or what to lower; GDS_STATUS_CUDA;
///         GDS_STATUS_INVALID_ARGUMENT: size 0 or too large, another kind, NULL;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_alloc(
    context: *const gds_context_t,
    kind: i32,
    size: u64,
    buffer_out: *mut *mut gds_buffer_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(buffer_out, "buffer_out")?;
        let buffer = context.alloc(kind_of(kind)?, size)?;
        // SAFETY: checked above.
        unsafe { buffer_out.write(handle::open(buffer)?) };
        Ok(())
    })
}

/// Use the caller's memory: device (of the context's device), pinned, managed or pageable.
///
/// The kind is found out; nothing is pinned or copied. Pageable memory goes to the device
/// through staging memory; gds_buffer_register() saves that copy for memory that is used
/// often.
///
/// @param address     stays valid until the buffer is freed and every ticket that uses it is
///                    done.
/// @param size        bytes, at least 1.
/// @param buffer_out  give it to gds_buffer_free() once; that leaves the memory alone.
/// @return GDS_STATUS_INVALID_POINTER: memory of another device, unmapped, or fewer bytes
///         than size; GDS_STATUS_OUT_OF_RANGE: address plus size passes the end of memory;
///         GDS_STATUS_INVALID_ARGUMENT: NULL, size 0; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_wrap(
    context: *const gds_context_t,
    address: *mut c_void,
    size: u64,
    buffer_out: *mut *mut gds_buffer_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(buffer_out, "buffer_out")?;
        let address = address_of(address)?;
        // SAFETY: the caller keeps the memory valid, as the header asks.
        let buffer = unsafe { context.wrap(address, size)? };
        // SAFETY: checked above.
        unsafe { buffer_out.write(handle::open(buffer)?) };
        Ok(())
    })
}

/// As gds_buffer_wrap(), and pin pageable memory so that the device reaches it without a
/// copy.
///
/// Pinning costs about as much as copying the memory once, and counts against `ulimit -l`
/// where that applies. Memory that is pinned already, or of the device, is taken as it is.
///
/// @param address     stays mapped until the buffer is unregistered and every ticket that
///                    uses it is done.
/// @param size        bytes, at least 1.
/// @param buffer_out  give it to gds_buffer_unregister() or gds_buffer_free() once.
/// @return as gds_buffer_wrap(), and GDS_STATUS_OUT_OF_HOST_MEMORY or GDS_STATUS_CUDA: the
///         driver cannot pin it.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_register(
    context: *const gds_context_t,
    address: *mut c_void,
    size: u64,
    buffer_out: *mut *mut gds_buffer_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(buffer_out, "buffer_out")?;
        let address = address_of(address)?;
        // SAFETY: the caller keeps the memory mapped, as the header asks.
        let buffer = unsafe { context.register(address, size)? };
        // SAFETY: checked above.
        unsafe { buffer_out.write(handle::open(buffer)?) };
        Ok(())
    })
}

/// Free a buffer. NULL and freed handles are fine.
///
/// What the library allocated or pinned is given back once no ticket uses it any more. CUDA
/// work of the caller that uses the memory must be done before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_free(buffer: *mut gds_buffer_t) {
    guard_void(|| handle::close(buffer));
}

/// The same as gds_buffer_free(), by the name that pairs with gds_buffer_register().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_unregister(buffer: *mut gds_buffer_t) {
    guard_void(|| handle::close(buffer));
}

/// Tell where a buffer is. A device address for device memory: kernels and cudaMemcpy take
/// it.
///
/// @param address_out  valid until the buffer is freed.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_address(
    buffer: *const gds_buffer_t,
    address_out: *mut *mut c_void,
) -> gds_status_t {
    guard(|| {
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_pointer(address_out, "address_out")?;
        let address = std::ptr::with_exposed_provenance_mut(to_usize(buffer.address())?);
        // SAFETY: checked above.
        unsafe { address_out.write(address) };
        Ok(())
    })
}

/// Tell what a buffer is.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_info(
    buffer: *const gds_buffer_t,
    info_out: *mut gds_buffer_info_t,
) -> gds_status_t {
    guard(|| {
        let buffer = handle::borrow(buffer, "buffer")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        place.write(gds_buffer_info_t {
            kind: kind_to_c(buffer.kind()) as i32,
            address: buffer.address(),
            size: buffer.size(),
            ..gds_buffer_info_t::initial()
        });
        Ok(())
    })
}

fn address_of(address: *mut c_void) -> Outcome<u64> {
    if address.is_null() {
        return Err(Failure::null("address"));
    }
    Ok(address.expose_provenance() as u64)
}

fn to_usize(address: u64) -> Outcome<usize> {
    usize::try_from(address).map_err(|_| Failure::argument("the address does not fit a pointer"))
}

fn kind_of(kind: i32) -> Outcome<MemoryKind> {
    match kind {
        _ if kind == Kind::GDS_MEMORY_DEVICE as i32 => Ok(MemoryKind::Device),
        _ if kind == Kind::GDS_MEMORY_PINNED as i32 => Ok(MemoryKind::Pinned),
        _ => Err(Failure::argument(format!(
            "kind is {kind}; memory is allocated as GDS_MEMORY_DEVICE or GDS_MEMORY_PINNED, and \
             other memory is given to gds_buffer_wrap()"
        ))),
    }
}

fn kind_to_c(kind: MemoryKind) -> Kind {
    match kind {
        MemoryKind::Device => Kind::GDS_MEMORY_DEVICE,
        MemoryKind::Pinned => Kind::GDS_MEMORY_PINNED,
        MemoryKind::Managed => Kind::GDS_MEMORY_MANAGED,
        MemoryKind::Pageable => Kind::GDS_MEMORY_PAGEABLE,
    }
}
