//! Values of a store in device memory.

use core::ffi::c_void;
use std::sync::Arc;

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::kv::{Opened, key_of, not_found};
use super::status::{self, gds_status_t};
use super::types::{
    gds_buffer_t, gds_context_t, gds_kv_device_config_t, gds_kv_device_stats_t, gds_kv_device_t,
    gds_kv_get_t, gds_kv_got_t, gds_kv_pointer_t, gds_kv_t,
};
use crate::base::limits;
use crate::error::{Error, ErrorKind};
use crate::kv::device::{DeviceConfig, DeviceStats, DeviceStore, Get, Held};

/// A device's side of a store. Keeps the store open.
#[derive(Debug)]
pub(crate) struct Attached {
    device: DeviceStore,
    _store: Arc<Opened>,
}

impl Handle for gds_kv_device_t {
    type Object = Attached;
    const TAG: u32 = 0x4744_0045;
    const NAME: &'static str = "gds_kv_device_t";
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_kv_device_config_t {
    const NAME: &'static str = "gds_kv_device_config_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            cache_bytes: 0,
        }
    }
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_kv_device_stats_t {
    const NAME: &'static str = "gds_kv_device_stats_t";
    fn initial() -> Self {
        stats_to_c(&DeviceStats::default())
    }
}

const _: () = assert!(size_of::<gds_kv_device_config_t>() == 16);
const _: () = assert!(size_of::<gds_kv_get_t>() == 48 && size_of::<gds_kv_got_t>() == 24);
const _: () = assert!(size_of::<gds_kv_pointer_t>() == 24);
const _: () = assert!(size_of::<gds_kv_device_stats_t>() == 112);

const NOTHING_HELD: gds_kv_pointer_t = gds_kv_pointer_t {
    address: std::ptr::null_mut(),
    size_bytes: 0,
    token: 0,
};

/// Bring a store and a context together: values go straight to and from its memory.
///
/// The checksums of a value are compared where its bytes land, on a GPU by a kernel: what a
/// call says arrived is what was put.
///
/// @param config      NULL: as GDS_KV_DEVICE_CONFIG_INIT.
/// @param device_out  give it to gds_kv_device_close() once. Keeps the store and the
///                    context.
/// @return GDS_STATUS_INVALID_CONFIG; GDS_STATUS_OUT_OF_DEVICE_MEMORY: lower cache_bytes;
///         what gds_file_open() answers for the store's file; GDS_STATUS_INVALID_ARGUMENT;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_open(
    kv: *const gds_kv_t,
    context: *const gds_context_t,
    config: *const gds_kv_device_config_t,
    device_out: *mut *mut gds_kv_device_t,
) -> gds_status_t {
    guard(|| {
        let store = handle::borrow(kv, "kv")?;
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(device_out, "device_out")?;
        // SAFETY: the caller gives a struct of struct_size bytes, or NULL.
        let config = config_of(&unsafe { convert::read_optional(config)? })?;
        let object = Attached {
            device: store.attach(&context, config)?,
            _store: (*store).clone(),
        };
        // SAFETY: checked above.
        unsafe { device_out.write(handle::open(object)?) };
        Ok(())
    })
}

/// Close a device's side of a store. NULL and closed handles are fine.
///
/// Its device memory is gone then: values that are held must not be used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_close(device: *mut gds_kv_device_t) {
    guard_void(|| handle::close(device));
}

/// Read a whole value into a buffer.
///
/// The bytes are in place for every stream when the call returns; work that is queued on
/// streams and uses the range must be done before.
///
/// @param buffer    of the context, of any kind.
/// @param capacity  room from buffer_offset on, bytes, within the buffer.
/// @param size_out  bytes of the value. May be NULL.
/// @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_BUFFER_TOO_SMALL: the message has
///         the size; GDS_STATUS_CORRUPTED: the disk does not hold what was written, also
///         when read a second time by the host; GDS_STATUS_OUT_OF_RANGE: the range passes
///         the buffer's end; GDS_STATUS_IO; GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT:
///         also for a buffer of another context; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED. The range holds anything then.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_get(
    device: *const gds_kv_device_t,
    key: *const c_void,
    key_size: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    capacity: u64,
    size_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_optional(size_out, "size_out")?;
        convert::check_range("buffer_offset", buffer_offset, capacity)?;
        check_room(buffer.size(), buffer_offset, capacity)?;
        let got = object.device.get_one(&Get {
            // SAFETY: the caller gives that many bytes.
            key: unsafe { key_of(key, key_size)? },
            offset: 0,
            size: capacity,
            to: &buffer,
            to_offset: buffer_offset,
        })?;
        let got = got.ok_or_else(not_found)?;
        if got.bytes < got.value_len {
            let text = format!(
                "get a value of {} bytes: capacity is {capacity}",
                got.value_len
            );
            return Err(Error::new(ErrorKind::BufferTooSmall, text).into());
        }
        // SAFETY: checked above.
        unsafe { convert::write_optional(size_out, got.value_len) };
        Ok(())
    })
}

/// Read bytes of a value into a buffer, as gds_kv_device_get().
///
/// @param offset     the first byte of the value that is wanted; past its end is fine.
/// @param size       bytes that are wanted at most.
/// @param bytes_out  bytes that arrived, fewer than size at the value's end. May be NULL.
/// @return as gds_kv_device_get(), but for GDS_STATUS_BUFFER_TOO_SMALL.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_get_range(
    device: *const gds_kv_device_t,
    key: *const c_void,
    key_size: u64,
    offset: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    bytes_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_optional(bytes_out, "bytes_out")?;
        check_room(buffer.size(), buffer_offset, size)?;
        // SAFETY: the caller gives that many bytes.
        let key = unsafe { key_of(key, key_size)? };
        let bytes = object
            .device
            .get_to(key, offset, &buffer, buffer_offset, size)?;
        let bytes = bytes.ok_or_else(not_found)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(bytes_out, bytes) };
        Ok(())
    })
}

/// Read many values, or ranges of values, at once: far faster than one by one.
///
/// Adjacent ones share a transfer, all move side by side, and their checksums are compared
/// together. Ranges of buffers must not overlap.
///
/// @param gets      at most 1,048,576.
/// @param gots_out  as many; each with its own status, as gds_kv_device_get_range() answers
///                  it.
/// @return GDS_STATUS_OK: also when some of them failed; GDS_STATUS_OUT_OF_RANGE: too many;
///         GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE: the message says which,
///         and nothing was read; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_get_many(
    device: *const gds_kv_device_t,
    gets: *const gds_kv_get_t,
    count: u64,
    gots_out: *mut gds_kv_got_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        // SAFETY: the caller gives `count` of them.
        let given = unsafe { convert::array(gets, count, limits::SEGMENTS_MAX, "gets")? };
        if count > 0 {
            convert::check_pointer(gots_out, "gots_out")?;
        }
        let mut buffers = Vec::with_capacity(given.len());
        for (index, get) in given.iter().enumerate() {
            buffers.push(handle::borrow(
                get.buffer,
                format_args!("gets[{index}].buffer"),
            )?);
        }
        let mut wanted = Vec::with_capacity(given.len());
        for (index, (get, buffer)) in given.iter().zip(&buffers).enumerate() {
            // SAFETY: the caller gives that many bytes.
            let key = unsafe { key_of(get.key, get.key_size) };
            wanted.push(Get {
                key: key.map_err(|failure| failure.at(format_args!("gets[{index}]")))?,
                offset: get.offset,
                size: get.size,
                to: buffer,
                to_offset: get.buffer_offset,
            });
        }
        for (index, answer) in object.device.get_many(&wanted).into_iter().enumerate() {
            let got = match answer {
                Ok(Some(got)) => gds_kv_got_t {
                    status: gds_status_t::GDS_STATUS_OK as i32,
                    reserved: 0,
                    value_size: got.value_len,
                    bytes: got.bytes,
                },
                Ok(None) => failed(gds_status_t::GDS_STATUS_NOT_FOUND),
                Err(error) => failed(status::of_kind(error.kind())),
            };
            // SAFETY: the caller gives room for `count` of them, and `index` is below that.
            unsafe { gots_out.add(index).write(got) };
        }
        Ok(())
    })
}

/// Put bytes of a buffer as a value, and wait until it is durable.
///
/// Work that is queued on streams and makes the bytes must be done before. The buffer may be
/// changed when the call returns.
///
/// @param buffer   of the context, of any kind.
/// @param lsn_out  the number of the change in the log. May be NULL.
/// @return as gds_kv_put(); GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end;
///         GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT: also for a buffer of another
///         context.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_put(
    device: *const gds_kv_device_t,
    key: *const c_void,
    key_size: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_optional(lsn_out, "lsn_out")?;
        // SAFETY: the caller gives that many bytes.
        let key = unsafe { key_of(key, key_size)? };
        let lsn = object.device.put_from(key, &buffer, buffer_offset, size)?;
        // SAFETY: checked above.
        unsafe { convert::write_optional(lsn_out, lsn) };
        Ok(())
    })
}

/// As gds_kv_device_put(), but does not wait; see gds_kv_put_async().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_put_async(
    device: *const gds_kv_device_t,
    key: *const c_void,
    key_size: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    size: u64,
    lsn_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_pointer(lsn_out, "lsn_out")?;
        // SAFETY: the caller gives that many bytes.
        let key = unsafe { key_of(key, key_size)? };
        let lsn = object
            .device
            .put_from_async(key, &buffer, buffer_offset, size)?;
        // SAFETY: checked above.
        unsafe { lsn_out.write(lsn) };
        Ok(())
    })
}

/// Bring a value into device memory for later; it stays while there is room.
///
/// @return as gds_kv_device_get_ptr().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_cache(
    device: *const gds_kv_device_t,
    key: *const c_void,
    key_size: u64,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        // SAFETY: the caller gives that many bytes.
        let there = object.device.cache(unsafe { key_of(key, key_size)? })?;
        there.then_some(()).ok_or_else(not_found)
    })
}

/// Hold a value in device memory; it is read and verified where it is not there yet.
///
/// It is the value as it is now: a later put does not change these bytes, and the next call
/// gives the new value. The bytes are in place for every stream when the call returns, and
/// must not be changed. Kernels that use them must be done before they are released.
///
/// @param pointer_out  give it to gds_kv_device_release() once.
/// @return GDS_STATUS_NOT_FOUND: no such key; GDS_STATUS_ALL_PINNED: what is held leaves no
///         room, release some; GDS_STATUS_OUT_OF_DEVICE_MEMORY: the value is larger than
///         cache_bytes; GDS_STATUS_NOT_SUPPORTED: cache_bytes is 0; GDS_STATUS_TIMED_OUT: it
///         is put faster than it can be read; GDS_STATUS_CORRUPTED; GDS_STATUS_IO;
///         GDS_STATUS_CUDA; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_get_ptr(
    device: *const gds_kv_device_t,
    key: *const c_void,
    key_size: u64,
    pointer_out: *mut gds_kv_pointer_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        convert::check_pointer(pointer_out, "pointer_out")?;
        // SAFETY: the caller gives that many bytes.
        let held = object
            .device
            .get_device_ptr(unsafe { key_of(key, key_size)? })?;
        let held = held.ok_or_else(not_found)?;
        // SAFETY: checked above.
        unsafe { pointer_out.write(pointer_to_c(held)) };
        Ok(())
    })
}

/// Release a value that is held, from any thread. It may go from now on.
///
/// @param pointer  as gds_kv_device_get_ptr() filled it; set to "nothing is held". That is
///                 fine too.
/// @return GDS_STATUS_INVALID_ARGUMENT: NULL or released before, as far as can be told;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_release(
    device: *const gds_kv_device_t,
    pointer: *mut gds_kv_pointer_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        convert::check_pointer(pointer, "pointer")?;
        // SAFETY: checked above.
        let held = unsafe { &mut *pointer };
        if held.token != 0 {
            object.device.release(held.token)?;
            *held = NOTHING_HELD;
        }
        Ok(())
    })
}

/// Tell what a device's side of a store has counted.
///
/// @param stats_out  struct_size set.
/// @return GDS_STATUS_INVALID_ARGUMENT, GDS_STATUS_INVALID_HANDLE, GDS_STATUS_STRUCT_SIZE,
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_kv_device_stats(
    device: *const gds_kv_device_t,
    stats_out: *mut gds_kv_device_stats_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(device, "device")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(stats_out)? };
        place.write(stats_to_c(&object.device.stats()));
        Ok(())
    })
}

fn config_of(given: &gds_kv_device_config_t) -> Outcome<DeviceConfig> {
    if given.reserved != 0 {
        let text = format!("reserved is {}; it must be 0", given.reserved);
        return Err(Error::new(ErrorKind::InvalidConfig, text).into());
    }
    Ok(DeviceConfig {
        cache_bytes: given.cache_bytes,
    })
}

fn check_room(buffer_size: u64, offset: u64, size: u64) -> Outcome {
    if offset
        .checked_add(size)
        .is_some_and(|end| end <= buffer_size)
    {
        return Ok(());
    }
    let text = format!("{size} bytes at offset {offset} pass the end of a buffer of {buffer_size}");
    Err(Failure::own(gds_status_t::GDS_STATUS_OUT_OF_RANGE, text))
}

fn failed(status: gds_status_t) -> gds_kv_got_t {
    gds_kv_got_t {
        status: status as i32,
        reserved: 0,
        value_size: 0,
        bytes: 0,
    }
}

fn pointer_to_c(held: Held) -> gds_kv_pointer_t {
    gds_kv_pointer_t {
        address: held.address() as *mut c_void,
        size_bytes: held.len(),
        token: held.into_token(),
    }
}

fn stats_to_c(stats: &DeviceStats) -> gds_kv_device_stats_t {
    gds_kv_device_stats_t {
        struct_size: 0,
        reserved: 0,
        gets: stats.gets,
        bytes_read: stats.bytes_read,
        transfers: stats.transfers,
        chunks_verified: stats.chunks_verified,
        rereads: stats.rereads,
        puts: stats.puts,
        bytes_written: stats.bytes_written,
        hits: stats.hits,
        misses: stats.misses,
        evictions: stats.evictions,
        resident: stats.resident,
        held: stats.held,
        cache_used_bytes: stats.cache_used_bytes,
    }
}
