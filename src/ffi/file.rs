//! Files: open, ask, sync.

use core::ffi::{c_char, c_int};

use super::convert::{self, AbiStruct, StructOut};
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle::{self, Handle};
use super::status::gds_status_t;
use super::types::{
    GDS_FILE_CREATE, GDS_FILE_EXCLUSIVE, GDS_FILE_READ, GDS_FILE_TRUNCATE, GDS_FILE_WRITE,
    gds_context_t, gds_file_info_t, gds_file_kind_t, gds_file_t,
};
use crate::engine::File;
use crate::io::{FileKind, OpenMode};

impl Handle for gds_file_t {
    type Object = File;
    const TAG: u32 = 0x4744_0002;
    const NAME: &'static str = "gds_file_t";
    const HELD: bool = true;
}

// SAFETY: repr(C) without padding, begins with `struct_size`, integers only.
unsafe impl AbiStruct for gds_file_info_t {
    const NAME: &'static str = "gds_file_info_t";
    fn initial() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            flags: 0,
            sized: 0,
            size: 0,
            direct_offset_alignment: 0,
            direct_memory_alignment: 0,
            block_size: 0,
            device_major: 0,
            device_minor: 0,
            reserved: 0,
            file_system: [0; 32],
            direct_reason: [0; 256],
        }
    }
}

const _: () = assert!(size_of::<gds_file_info_t>() == 336);

/// Open a regular file or block device.
///
/// Never blocks on a FIFO. Direct I/O is used where the file system has it, and done without
/// where it has not; gds_explain() tells. Any thread.
///
/// @param path      NUL-terminated, any bytes.
/// @param flags     GDS_FILE_READ, GDS_FILE_WRITE or both, and GDS_FILE_CREATE,
///                  GDS_FILE_TRUNCATE, GDS_FILE_EXCLUSIVE.
/// @param file_out  give it to gds_file_close() once. Keeps the context.
/// @return GDS_STATUS_NOT_FOUND; GDS_STATUS_PERMISSION_DENIED; GDS_STATUS_READ_ONLY: the
///         file system is; GDS_STATUS_UNSUPPORTED_FILE: a directory, FIFO, socket or
///         character device; GDS_STATUS_NO_SPACE; GDS_STATUS_IO: os_error tells;
///         GDS_STATUS_INVALID_ARGUMENT: NULL, an empty path, unknown or contradicting flags;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_file_open(
    context: *const gds_context_t,
    path: *const c_char,
    flags: u32,
    file_out: *mut *mut gds_file_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(file_out, "file_out")?;
        // SAFETY: the caller gives a NUL-terminated text.
        let path = unsafe { convert::path(path, "path")? };
        let file = context.open_file(path, mode_of(flags)?)?;
        // SAFETY: checked above.
        unsafe { file_out.write(handle::open(file)?) };
        Ok(())
    })
}

/// Use a file that the caller has opened. The descriptor stays the caller's and may be
/// closed.
///
/// The file is opened again with the same access, so the position and the flags of the
/// descriptor (O_APPEND, O_DIRECT, O_NONBLOCK) do not matter; where that is forbidden, the
/// descriptor is duplicated. As ever with POSIX record locks, those that the process holds
/// on the file are lost at gds_file_close().
///
/// @param file_out  give it to gds_file_close() once. Keeps the context.
/// @return GDS_STATUS_INVALID_ARGUMENT: not an open descriptor, or NULL;
///         GDS_STATUS_UNSUPPORTED_FILE: not a regular file or block device; GDS_STATUS_IO;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_file_from_fd(
    context: *const gds_context_t,
    fd: c_int,
    file_out: *mut *mut gds_file_t,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        convert::check_pointer(file_out, "file_out")?;
        let file = context.file_from_fd(fd)?;
        // SAFETY: checked above.
        unsafe { file_out.write(handle::open(file)?) };
        Ok(())
    })
}

/// Close a file. NULL and closed handles are fine.
///
/// Tickets that use it keep it open until they are done. Says nothing of lost writes: call
/// gds_file_sync() before where that matters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_file_close(file: *mut gds_file_t) {
    guard_void(|| handle::close(file));
}

/// Tell how many bytes a file has now.
///
/// @return GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_file_size(
    file: *const gds_file_t,
    size_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        convert::check_pointer(size_out, "size_out")?;
        let size = file.size()?;
        // SAFETY: checked above.
        unsafe { size_out.write(size) };
        Ok(())
    })
}

/// Tell what a file is and what direct I/O on it wants.
///
/// @param info_out  struct_size set.
/// @return GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_STRUCT_SIZE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_file_info(
    file: *const gds_file_t,
    info_out: *mut gds_file_info_t,
) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        // SAFETY: the caller gives a struct of struct_size bytes.
        let place = unsafe { StructOut::new(info_out)? };
        place.write(info_to_c(&file)?);
        Ok(())
    })
}

/// Make what was written to a file durable, and wait for it.
///
/// Covers writes that were complete before the call, of every path. After a failure the file
/// answers GDS_STATUS_POISONED: what reached the disk is unknown, and asking again would
/// lie.
///
/// @return GDS_STATUS_IO: os_error tells; GDS_STATUS_NO_SPACE; GDS_STATUS_POISONED;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_file_sync(file: *const gds_file_t) -> gds_status_t {
    guard(|| Ok(handle::borrow(file, "file")?.sync()?))
}

/// Cut or extend a file to a size in bytes; what is added reads as zeros.
///
/// @return GDS_STATUS_READ_ONLY: opened without GDS_FILE_WRITE; GDS_STATUS_NO_SPACE: too
///         large; GDS_STATUS_OUT_OF_RANGE; GDS_STATUS_NOT_SUPPORTED: a block device;
///         GDS_STATUS_IO; GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE;
///         GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_file_set_size(file: *const gds_file_t, size: u64) -> gds_status_t {
    guard(|| {
        let file = handle::borrow(file, "file")?;
        convert::check_range("size", 0, size)?;
        Ok(file.set_size(size)?)
    })
}

fn mode_of(flags: u32) -> Outcome<OpenMode> {
    let known =
        GDS_FILE_READ | GDS_FILE_WRITE | GDS_FILE_CREATE | GDS_FILE_TRUNCATE | GDS_FILE_EXCLUSIVE;
    let has = |flag| flags & flag != 0;
    let wrong = |rule: &str| Err(Failure::argument(format!("flags are {flags:#x}; {rule}")));
    if flags & !known != 0 {
        return wrong("only the GDS_FILE_* bits of this header are known");
    }
    if !has(GDS_FILE_READ | GDS_FILE_WRITE) {
        return wrong("GDS_FILE_READ or GDS_FILE_WRITE is needed");
    }
    if has(GDS_FILE_CREATE | GDS_FILE_TRUNCATE | GDS_FILE_EXCLUSIVE) && !has(GDS_FILE_WRITE) {
        return wrong("GDS_FILE_CREATE, _TRUNCATE and _EXCLUSIVE need GDS_FILE_WRITE");
    }
    if has(GDS_FILE_EXCLUSIVE) && !has(GDS_FILE_CREATE) {
        return wrong("GDS_FILE_EXCLUSIVE needs GDS_FILE_CREATE");
    }
    Ok(OpenMode {
        read: has(GDS_FILE_READ),
        write: has(GDS_FILE_WRITE),
        create: has(GDS_FILE_CREATE),
        truncate: has(GDS_FILE_TRUNCATE),
        exclusive: has(GDS_FILE_EXCLUSIVE),
    })
}

fn info_to_c(file: &File) -> Outcome<gds_file_info_t> {
    let able = file.capabilities();
    let mode = file.mode();
    let kind = match able.kind {
        FileKind::Regular => gds_file_kind_t::GDS_FILE_KIND_REGULAR,
        FileKind::BlockDevice => gds_file_kind_t::GDS_FILE_KIND_BLOCK_DEVICE,
    };
    Ok(gds_file_info_t {
        kind: kind as i32,
        flags: u32::from(mode.read) * GDS_FILE_READ + u32::from(mode.write) * GDS_FILE_WRITE,
        sized: u32::from(able.sized),
        size: file.size()?,
        direct_offset_alignment: able.direct_offset_alignment,
        direct_memory_alignment: able.direct_memory_alignment,
        block_size: able.block_size,
        device_major: able.device_major,
        device_minor: able.device_minor,
        file_system: convert::chars(able.file_system),
        direct_reason: convert::chars(able.direct_reason.as_deref().unwrap_or("")),
        ..gds_file_info_t::initial()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_to_do_and_nothing_else() {
        let mode = mode_of(GDS_FILE_READ | GDS_FILE_WRITE | GDS_FILE_CREATE).unwrap();
        assert!(mode.read && mode.write && mode.create && !mode.truncate && !mode.exclusive);
        for flags in [0, 4, 5, 9, 17, 18, 32, 33, 0x8000_0001, u32::MAX] {
            let failure = mode_of(flags).unwrap_err();
            assert_eq!(
                failure.status,
                gds_status_t::GDS_STATUS_INVALID_ARGUMENT,
                "{flags:#x}"
            );
        }
    }
}
