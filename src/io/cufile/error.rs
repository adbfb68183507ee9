//! What libcufile's answers mean.
//!
//! Its documentation says that a failed transfer returns -1 with errno, or a negative cuFile code.
//! What it does is return -1 with the cuFile code in errno, or -1 with an errno that may be left
//! over from something else, so an errno that says nothing is reported as cuFile's failure.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

use super::sys::{OpError, Status};

/// The CUDA call inside libcufile failed; the CUresult is beside it.
pub const CUDA_DRIVER_ERROR: i32 = 5011;
/// The file is not registered, or its device has no complete udev record.
pub const HANDLE_NOT_REGISTERED: i32 = 5027;
/// The descriptor is registered already.
pub const HANDLE_ALREADY_REGISTERED: i32 = 5028;

const BASE: i64 = 5000;
const ERRNO_MAX: i64 = 4095;

/// A code, its name in cufile.h, its meaning, and whether it says that cuFile cannot be used for
/// this file or machine (rather than that one call failed).
type Row = (i32, &'static str, &'static str, bool);

const ROWS: [Row; 48] = [
    (
        5001,
        "CU_FILE_DRIVER_NOT_INITIALIZED",
        "nvidia-fs is not loaded",
        true,
    ),
    (
        5002,
        "CU_FILE_DRIVER_INVALID_PROPS",
        "invalid property",
        false,
    ),
    (
        5003,
        "CU_FILE_DRIVER_UNSUPPORTED_LIMIT",
        "property out of range",
        false,
    ),
    (
        5004,
        "CU_FILE_DRIVER_VERSION_MISMATCH",
        "nvidia-fs has another version",
        true,
    ),
    (
        5005,
        "CU_FILE_DRIVER_VERSION_READ_ERROR",
        "nvidia-fs did not tell its version",
        true,
    ),
    (
        5006,
        "CU_FILE_DRIVER_CLOSING",
        "the driver is shutting down",
        true,
    ),
    (
        5007,
        "CU_FILE_PLATFORM_NOT_SUPPORTED",
        "not supported on this platform",
        true,
    ),
    (
        5008,
        "CU_FILE_IO_NOT_SUPPORTED",
        "not supported on this file",
        true,
    ),
    (
        5009,
        "CU_FILE_DEVICE_NOT_SUPPORTED",
        "not supported on this GPU",
        true,
    ),
    (5010, "CU_FILE_NVFS_DRIVER_ERROR", "nvidia-fs failed", false),
    (
        5011,
        "CU_FILE_CUDA_DRIVER_ERROR",
        "a CUDA call failed",
        false,
    ),
    (
        5012,
        "CU_FILE_CUDA_POINTER_INVALID",
        "invalid device pointer",
        false,
    ),
    (
        5013,
        "CU_FILE_CUDA_MEMORY_TYPE_INVALID",
        "invalid kind of memory",
        false,
    ),
    (
        5014,
        "CU_FILE_CUDA_POINTER_RANGE_ERROR",
        "the range passes its allocation",
        false,
    ),
    (
        5015,
        "CU_FILE_CUDA_CONTEXT_MISMATCH",
        "another CUDA context",
        false,
    ),
    (
        5016,
        "CU_FILE_INVALID_MAPPING_SIZE",
        "past the largest pinned size",
        false,
    ),
    (
        5017,
        "CU_FILE_INVALID_MAPPING_RANGE",
        "past the registered memory",
        false,
    ),
    (
        5018,
        "CU_FILE_INVALID_FILE_TYPE",
        "unsupported file type",
        true,
    ),
    (
        5019,
        "CU_FILE_INVALID_FILE_OPEN_FLAG",
        "unsupported open flags",
        true,
    ),
    (
        5020,
        "CU_FILE_DIO_NOT_SET",
        "the descriptor has no O_DIRECT",
        true,
    ),
    (5022, "CU_FILE_INVALID_VALUE", "invalid arguments", false),
    (
        5023,
        "CU_FILE_MEMORY_ALREADY_REGISTERED",
        "the memory is registered already",
        false,
    ),
    (
        5024,
        "CU_FILE_MEMORY_NOT_REGISTERED",
        "the memory is not registered",
        false,
    ),
    (
        5025,
        "CU_FILE_PERMISSION_DENIED",
        "no permission for the driver or file",
        true,
    ),
    (
        5026,
        "CU_FILE_DRIVER_ALREADY_OPEN",
        "the driver is open already",
        false,
    ),
    (
        5027,
        "CU_FILE_HANDLE_NOT_REGISTERED",
        "the file is not registered",
        true,
    ),
    (
        5028,
        "CU_FILE_HANDLE_ALREADY_REGISTERED",
        "the descriptor is registered already",
        false,
    ),
    (5029, "CU_FILE_DEVICE_NOT_FOUND", "no GPU was found", true),
    (5030, "CU_FILE_INTERNAL_ERROR", "internal error", false),
    (
        5031,
        "CU_FILE_GETNEWFD_FAILED",
        "no new file descriptor",
        false,
    ),
    (
        5033,
        "CU_FILE_NVFS_SETUP_ERROR",
        "the driver could not be set up",
        true,
    ),
    (
        5034,
        "CU_FILE_IO_DISABLED",
        "disabled for this file in cufile.json",
        true,
    ),
    (
        5035,
        "CU_FILE_BATCH_SUBMIT_FAILED",
        "the batch was not submitted",
        false,
    ),
    (
        5036,
        "CU_FILE_GPU_MEMORY_PINNING_FAILED",
        "GPU memory could not be pinned",
        false,
    ),
    (5037, "CU_FILE_BATCH_FULL", "the batch is full", false),
    (
        5038,
        "CU_FILE_ASYNC_NOT_SUPPORTED",
        "stream calls are not supported",
        true,
    ),
    (
        5039,
        "CU_FILE_INTERNAL_BATCH_SETUP_ERROR",
        "the batch could not be set up",
        false,
    ),
    (
        5040,
        "CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR",
        "the batch was not submitted",
        false,
    ),
    (
        5041,
        "CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR",
        "the batch has no status",
        false,
    ),
    (
        5042,
        "CU_FILE_INTERNAL_BATCH_CANCEL_ERROR",
        "the batch was not cancelled",
        false,
    ),
    (5043, "CU_FILE_NOMEM_ERROR", "out of memory", false),
    (5044, "CU_FILE_IO_ERROR", "I/O error", false),
    (
        5045,
        "CU_FILE_INTERNAL_BUF_REGISTER_ERROR",
        "the memory could not be registered",
        false,
    ),
    (
        5046,
        "CU_FILE_HASH_OPR_ERROR",
        "internal table error",
        false,
    ),
    (
        5047,
        "CU_FILE_INVALID_CONTEXT_ERROR",
        "invalid CUDA context",
        false,
    ),
    (
        5048,
        "CU_FILE_NVFS_INTERNAL_DRIVER_ERROR",
        "nvidia-fs failed",
        false,
    ),
    (
        5049,
        "CU_FILE_BATCH_NOCOMPAT_ERROR",
        "batches need compat mode here",
        true,
    ),
    // The end mark of 1.15 and later. Its value was another in every generation before.
    (5050, "CU_FILE_IO_MAX_ERROR", "end of the codes", false),
];

/// Every code that this library knows by name, with its name in cufile.h.
pub fn names() -> impl Iterator<Item = (i32, &'static str)> {
    ROWS.iter().map(|row| (row.0, row.1))
}

fn advice(code: i32) -> &'static str {
    match code {
        5001 | 5004 | 5005 => "load nvidia-fs, or leave allow_compat_mode true in cufile.json",
        5006 => "the process is ending; stop submitting",
        5007 | 5008 | 5009 | 5018 | 5029 | 5049 => "let this transfer take the bounce path",
        5019 | 5020 => "open the file with O_DIRECT",
        5010 | 5048 => "look at the kernel's log for nvidia-fs",
        5012..=5015 => "give memory of the device and context that were opened",
        5016 | 5036 => "register less memory at once, or raise max_device_pinned_mem_size_kb",
        5017 => "stay inside the registered memory",
        5023 => "register each piece of memory once",
        5024 => "register the memory first, and give its base",
        5025 => "check the permissions of the file and of /dev/nvidia-fs*",
        5027 => "check that /run/udev/data has ID_FS_USAGE and ID_FS_TYPE for its device",
        5028 => "a descriptor was closed before it was deregistered; deregister first",
        5031 => "raise `ulimit -n`",
        5033 => "check that the CUDA driver works (nvidia-smi), then nvidia-fs",
        5034 => "cufile.json turns cuFile off for this file",
        5038 => "turn on execution.parallel_io in cufile.json",
        5037 | 5039..=5043 => "wait for earlier batches and try again",
        _ => "set CUFILE_LOGFILE_PATH to a file to see cuFile's own log",
    }
}

/// The error of a cuFile code while doing `what`. `cuda` is the CUresult beside it, or 0.
///
/// The kind is `Cuda` for 5011, `CuFileUnavailable` where cuFile cannot be used for this file or
/// machine at all, else `CuFile`. Never an unknown code is lost: it is in the text and in
/// `Error::cufile`.
#[must_use]
pub fn from_code(code: i32, cuda: i32, what: impl fmt::Display) -> Error {
    let row = ROWS.iter().find(|row| row.0 == code);
    let (name, meaning, unavailable) = row
        .map_or(("a code this library does not know", "", false), |row| {
            (row.1, row.2, row.3)
        });
    let text = format!("{what}: cuFile answered {code} ({name}");
    let text = if meaning.is_empty() {
        format!("{text})")
    } else {
        format!("{text}: {meaning})")
    };
    if code == CUDA_DRIVER_ERROR {
        return Error::new(ErrorKind::Cuda, format!("{text}, CUresult {cuda}"))
            .with_cufile(code)
            .with_cuda(cuda);
    }
    let kind = if unavailable {
        ErrorKind::CuFileUnavailable
    } else {
        ErrorKind::CuFile
    };
    Error::new(kind, format!("{text}; {}", advice(code))).with_cufile(code)
}

/// A returned status while doing `what`.
///
/// # Errors
/// As [`from_code`].
pub(super) fn check(status: Status, what: impl fmt::Display) -> Result<()> {
    match status.err {
        OpError(0) => Ok(()),
        OpError(code) => Err(from_code(code, status.cu_err, what)),
    }
}

/// The result of a transfer: bytes, or an error. `errno` was read right after the call, and was
/// set to 0 before it.
///
/// # Errors
/// `CuFile` and its kin with the code, or the operating system's error.
pub fn transfer(result: isize, errno: i32, what: impl fmt::Display) -> Result<usize> {
    if let Ok(bytes) = usize::try_from(result) {
        return Ok(bytes);
    }
    let code = match result {
        -1 => i64::from(errno),
        other => (other as i64).saturating_neg(),
    };
    let Ok(small) = i32::try_from(code) else {
        let text = format!("{what}: cuFile answered {result}, which means nothing");
        return Err(Error::new(ErrorKind::CuFile, text));
    };
    if code > BASE {
        return Err(from_code(small, 0, what));
    }
    // EPERM, ENOENT and 0 come with unrelated failures (a bad pointer is answered with errno 1),
    // so they are told but not believed. As a result, -1 through errno and -2 alike.
    if code <= i64::from(libc::ENOENT) || code > ERRNO_MAX {
        let text = format!(
            "{what}: cuFile failed and left errno {code}, which it does not set reliably; check \
             the memory and the file, and set CUFILE_LOGFILE_PATH to a file to see its own log"
        );
        return Err(Error::new(ErrorKind::CuFile, text));
    }
    Err(Error::os(small, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_with_a_cufile_code_in_errno_is_that_code() {
        let error = transfer(-1, 5017, "read").expect_err("it failed");
        assert_eq!(
            (error.kind(), error.cufile(), error.errno()),
            (ErrorKind::CuFile, 5017, 0)
        );
        assert!(
            error.message().contains("CU_FILE_INVALID_MAPPING_RANGE"),
            "{error}"
        );
    }

    #[test]
    fn a_negative_cufile_code_and_a_negative_errno_are_told_apart() {
        let error = transfer(-5022, 0, "read").expect_err("it failed");
        assert_eq!((error.cufile(), error.errno()), (5022, 0));
        let error = transfer(-22, 0, "read").expect_err("it failed");
        assert_eq!((error.cufile(), error.errno()), (0, libc::EINVAL));
        let error = transfer(-1, libc::ENOSPC, "write").expect_err("it failed");
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::NoSpace, libc::ENOSPC)
        );
    }

    #[test]
    fn an_errno_that_says_nothing_is_not_believed() {
        for errno in [0, libc::EPERM, libc::ENOENT, 4999] {
            let error = transfer(-1, errno, "read").expect_err("it failed");
            assert_eq!((error.kind(), error.errno()), (ErrorKind::CuFile, 0));
        }
        assert_eq!(
            transfer(isize::MIN, 0, "read").expect_err("failed").kind(),
            ErrorKind::CuFile
        );
    }

    #[test]
    fn zero_and_short_counts_are_bytes() {
        assert_eq!(transfer(0, 2, "read").expect("no error"), 0);
        assert_eq!(transfer(5000, 2, "read").expect("no error"), 5000);
    }

    #[test]
    fn kinds_say_whether_another_path_is_needed() {
        assert_eq!(from_code(5027, 0, "x").kind(), ErrorKind::CuFileUnavailable);
        assert_eq!(from_code(5028, 0, "x").kind(), ErrorKind::CuFile);
        let error = from_code(5011, 999, "x");
        assert_eq!(
            (error.kind(), error.cuda(), error.cufile()),
            (ErrorKind::Cuda, 999, 5011)
        );
        let error = from_code(5999, 0, "x");
        assert_eq!((error.kind(), error.cufile()), (ErrorKind::CuFile, 5999));
    }

    #[test]
    fn the_table_is_sorted_and_has_no_doubles() {
        assert!(ROWS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
