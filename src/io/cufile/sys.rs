//! libcufile's types, constants and function types, for x86_64 and the versions 1.7 to 1.20.
//!
//! Written by hand, because the documentation lists fields in alphabetical order and because
//! enumerations grow at the end: every foreign value is an integer in a newtype, never a Rust
//! enum, so an unknown one is a value and not undefined behaviour. `tests/cufile_layout.rs` and
//! `tests/cufile_ctest.rs` compare every size, offset and constant with NVIDIA's own header.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::mem::{offset_of, size_of};

/// `CUfileOpError`: 0, or 5001 and up. The names are in `error.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct OpError(pub i32);

/// `CUfileError_t`, returned by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Status {
    /// cuFile's code.
    pub err: OpError,
    /// CUresult; means something when `err` is 5011 only.
    pub cu_err: i32,
}

/// `CUfileHandle_t`: a token of the shape of a pointer, which must never be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct FileHandle(pub *mut c_void);

// SAFETY: the value is a number for libcufile, whose functions may be called from any thread.
unsafe impl Send for FileHandle {}
// SAFETY: as above.
unsafe impl Sync for FileHandle {}

/// `CUfileBatchHandle_t`: a token, as [`FileHandle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct BatchHandle(pub *mut c_void);

// SAFETY: a number for libcufile; who may use it at a time is decided in `batch.rs`.
unsafe impl Send for BatchHandle {}

/// `CUstream`.
pub type Stream = *mut c_void;

/// `enum CUfileFileHandleType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct HandleType(pub i32);
/// A Linux file descriptor. 0 is no valid type.
pub const HANDLE_TYPE_OPAQUE_FD: HandleType = HandleType(1);
/// A Windows handle (libcufile does not support it).
pub const HANDLE_TYPE_OPAQUE_WIN32: HandleType = HandleType(2);
/// A file system in user space, reached through `FsOps`.
pub const HANDLE_TYPE_USERSPACE_FS: HandleType = HandleType(3);

/// The union inside `CUfileDescr_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub union DescriptorHandle {
    /// Linux.
    pub fd: c_int,
    /// Windows.
    pub handle: *mut c_void,
}

impl std::fmt::Debug for DescriptorHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Which member is meant is known to the owner of the descriptor only.
        f.write_str("DescriptorHandle")
    }
}

/// `CUfileDescr_t`. Zero all of it first: libcufile follows a `fs_ops` that is not NULL.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Descriptor {
    /// What `handle` holds.
    pub kind: HandleType,
    /// The descriptor.
    pub handle: DescriptorHandle,
    /// `CUfileFSOps_t`, NULL for the kernel's file systems.
    pub fs_ops: *const c_void,
}

/// `CUfileOpcode_t`. libcufile runs an unknown value as a read, so only these two are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Opcode(pub i32);
/// File to memory.
pub const OPCODE_READ: Opcode = Opcode(0);
/// Memory to file.
pub const OPCODE_WRITE: Opcode = Opcode(1);

/// `CUfileBatchMode_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct BatchMode(pub i32);
/// The only mode.
pub const BATCH_MODE: BatchMode = BatchMode(1);

/// `CUfileIOParams_t` with its union flattened: the union has one member.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct IoParams {
    /// [`BATCH_MODE`].
    pub mode: BatchMode,
    /// Registered base, or plain memory.
    pub base: *mut c_void,
    /// Bytes.
    pub file_offset: i64,
    /// Bytes after `base`.
    pub base_offset: i64,
    /// Bytes.
    pub size: usize,
    /// The registered file.
    pub handle: FileHandle,
    /// Read or write.
    pub opcode: Opcode,
    /// Comes back in the event.
    pub cookie: *mut c_void,
}

/// `CUfileStatus_t`, one bit a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct BatchStatus(pub i32);
/// Not submitted.
pub const STATUS_WAITING: BatchStatus = BatchStatus(0x01);
/// Submitted, not finished.
pub const STATUS_PENDING: BatchStatus = BatchStatus(0x02);
/// Refused.
pub const STATUS_INVALID: BatchStatus = BatchStatus(0x04);
/// Cancelled.
pub const STATUS_CANCELED: BatchStatus = BatchStatus(0x08);
/// Finished; `ret` may be less than the size that was asked for.
pub const STATUS_COMPLETE: BatchStatus = BatchStatus(0x10);
/// Timed out.
pub const STATUS_TIMEOUT: BatchStatus = BatchStatus(0x20);
/// Failed; `ret` is negative when read as signed.
pub const STATUS_FAILED: BatchStatus = BatchStatus(0x40);

/// `CUfileIOEvents_t`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct IoEvent {
    /// From the parameters.
    pub cookie: *mut c_void,
    /// How it stands.
    pub status: BatchStatus,
    /// Bytes moved, or a negative error in the shape of a `size_t`.
    pub ret: usize,
}

/// The first part of `CUfileDrvProps_t`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NvfsProps {
    /// nvidia-fs version, major; 0 without nvidia-fs.
    pub major_version: c_uint,
    /// nvidia-fs version, minor.
    pub minor_version: c_uint,
    /// Largest polled transfer, KiB.
    pub poll_thresh_size: usize,
    /// Largest piece of one transfer, KiB.
    pub max_direct_io_size: usize,
    /// Bit `1 << n` for every file system of `DSTATUS_*` that has a direct path.
    pub dstatusflags: c_uint,
    /// Bit `1 << n` for every `DCONTROL_*` that is on.
    pub dcontrolflags: c_uint,
}

/// `CUfileDrvProps_t`. Zero it first: newer versions leave fields as they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DriverProps {
    /// nvidia-fs and what it supports.
    pub nvfs: NvfsProps,
    /// Bit `1 << n` for every `FEATURE_*` that is there.
    pub fflags: c_uint,
    /// Device memory for bounce buffers, KiB.
    pub max_device_cache_size: c_uint,
    /// Of that, for one buffer, KiB.
    pub per_buffer_cache_size: c_uint,
    /// Device memory that may be pinned, KiB; saturates.
    pub max_device_pinned_mem_size: c_uint,
    /// Most entries of a batch.
    pub max_batch_io_size: c_uint,
    /// Milliseconds.
    pub max_batch_io_timeout_msecs: c_uint,
}

/// `CUfileIOVec_t` (1.20).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct IoVec {
    /// Memory.
    pub base: *mut c_void,
    /// Bytes.
    pub size: usize,
}

/// Bit numbers of `NvfsProps::dstatusflags`, with the file system each stands for.
pub const DSTATUS: [(u32, &str); 14] = [
    (0, "lustre"),
    (1, "wekafs"),
    (2, "nfs"),
    (3, "gpfs"),
    (4, "nvme"),
    (5, "nvmeof"),
    (6, "scsi"),
    (7, "scaleflux_csd"),
    (8, "nvmesh"),
    (9, "beegfs"),
    (11, "nvme_p2p"),
    (12, "scatefs"),
    (13, "virtiofs"),
    (14, "panfs"),
];
/// Bit number of `dcontrolflags`: polls for completions.
pub const DCONTROL_USE_POLL_MODE: u32 = 0;
/// Bit number of `dcontrolflags`: may fall back to POSIX I/O.
pub const DCONTROL_ALLOW_COMPAT_MODE: u32 = 1;
/// Bit number of `fflags`: batches.
pub const FEATURE_BATCH_IO: u32 = 1;
/// Bit number of `fflags`: CUDA streams.
pub const FEATURE_STREAMS: u32 = 2;
/// Bit number of `fflags`: parallel I/O.
pub const FEATURE_PARALLEL_IO: u32 = 3;
/// Bit number of `fflags`: PCI peer-to-peer DMA.
pub const FEATURE_P2P: u32 = 4;

/// The buffer offset is taken when the call is made.
pub const STREAM_FIXED_BUF_OFFSET: u32 = 1;
/// The file offset is taken when the call is made.
pub const STREAM_FIXED_FILE_OFFSET: u32 = 2;
/// The size is taken when the call is made.
pub const STREAM_FIXED_FILE_SIZE: u32 = 4;
/// Offsets and sizes are multiples of 4096.
pub const STREAM_PAGE_ALIGNED_INPUTS: u32 = 8;

/// `CUFileSizeTConfigParameter_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct SizeParameter(pub i32);
/// Threads of the pool; 0 turns it off.
pub const PARAMETER_MAX_IO_THREADS: SizeParameter = SizeParameter(2);
/// Pieces that one transfer is cut into.
pub const PARAMETER_MAX_REQUEST_PARALLELISM: SizeParameter = SizeParameter(4);
/// Largest piece, KiB.
pub const PARAMETER_MAX_DIRECT_IO_SIZE_KB: SizeParameter = SizeParameter(5);
/// Most entries of a batch.
pub const PARAMETER_IO_BATCHSIZE: SizeParameter = SizeParameter(9);

/// `CUFileBoolConfigParameter_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct BoolParameter(pub i32);
/// Falls back to POSIX I/O.
pub const PARAMETER_ALLOW_COMPAT_MODE: BoolParameter = BoolParameter(1);
/// Uses POSIX I/O only.
pub const PARAMETER_FORCE_COMPAT_MODE: BoolParameter = BoolParameter(2);
/// The pool; stream calls need it.
pub const PARAMETER_PARALLEL_IO: BoolParameter = BoolParameter(4);
/// PCI peer-to-peer DMA.
pub const PARAMETER_USE_PCIP2PDMA: BoolParameter = BoolParameter(7);

/// `cuFileHandleRegister`.
pub type HandleRegisterFn = unsafe extern "C" fn(*mut FileHandle, *mut Descriptor) -> Status;
/// `cuFileHandleDeregister`.
pub type HandleDeregisterFn = unsafe extern "C" fn(FileHandle);
/// `cuFileRead`: handle, base, size, file offset, base offset.
pub type ReadFn = unsafe extern "C" fn(FileHandle, *mut c_void, usize, i64, i64) -> isize;
/// `cuFileWrite`.
pub type WriteFn = unsafe extern "C" fn(FileHandle, *const c_void, usize, i64, i64) -> isize;
/// `cuFileBufRegister`: base, bytes, flags.
pub type BufRegisterFn = unsafe extern "C" fn(*const c_void, usize, c_int) -> Status;
/// `cuFileBufDeregister`.
pub type BufDeregisterFn = unsafe extern "C" fn(*const c_void) -> Status;
/// `cuFileDriverOpen` and `cuFileDriverClose`.
pub type DriverFn = unsafe extern "C" fn() -> Status;
/// `cuFileUseCount`.
pub type UseCountFn = unsafe extern "C" fn() -> c_long;
/// `cuFileDriverGetProperties`.
pub type GetPropertiesFn = unsafe extern "C" fn(*mut DriverProps) -> Status;
/// `cuFileBatchIOSetUp`.
pub type BatchSetUpFn = unsafe extern "C" fn(*mut BatchHandle, c_uint) -> Status;
/// `cuFileBatchIOSubmit`: handle, count, parameters, flags (0).
pub type BatchSubmitFn = unsafe extern "C" fn(BatchHandle, c_uint, *mut IoParams, c_uint) -> Status;
/// `cuFileBatchIOGetStatus`: handle, least count, in: room and out: events, events, timeout.
pub type BatchGetStatusFn = unsafe extern "C" fn(
    BatchHandle,
    c_uint,
    *mut c_uint,
    *mut IoEvent,
    *mut libc::timespec,
) -> Status;
/// `cuFileBatchIOCancel`.
pub type BatchCancelFn = unsafe extern "C" fn(BatchHandle) -> Status;
/// `cuFileBatchIODestroy`.
pub type BatchDestroyFn = unsafe extern "C" fn(BatchHandle);
/// `cuFileReadAsync`: handle, base, size, file offset, base offset, bytes read, stream. The
/// pointers are followed when the stream gets there, not when the call is made.
pub type ReadAsyncFn = unsafe extern "C" fn(
    FileHandle,
    *mut c_void,
    *mut usize,
    *mut i64,
    *mut i64,
    *mut isize,
    Stream,
) -> Status;
/// `cuFileStreamRegister`.
pub type StreamRegisterFn = unsafe extern "C" fn(Stream, c_uint) -> Status;
/// `cuFileStreamDeregister`.
pub type StreamDeregisterFn = unsafe extern "C" fn(Stream) -> Status;
/// `cuFileGetVersion`.
pub type GetVersionFn = unsafe extern "C" fn(*mut c_int) -> Status;
/// `cuFileGetParameterSizeT` (1.14).
pub type GetSizeFn = unsafe extern "C" fn(SizeParameter, *mut usize) -> Status;
/// `cuFileSetParameterSizeT` (1.14), before the driver is opened.
pub type SetSizeFn = unsafe extern "C" fn(SizeParameter, usize) -> Status;
/// `cuFileGetParameterBool` (1.14).
pub type GetBoolFn = unsafe extern "C" fn(BoolParameter, *mut bool) -> Status;
/// `cuFileSetParameterBool` (1.14).
pub type SetBoolFn = unsafe extern "C" fn(BoolParameter, bool) -> Status;

const _: () = {
    assert!(size_of::<Status>() == 8 && offset_of!(Status, cu_err) == 4);
    assert!(size_of::<Descriptor>() == 24 && offset_of!(Descriptor, handle) == 8);
    assert!(offset_of!(Descriptor, fs_ops) == 16);
    assert!(size_of::<IoParams>() == 64 && offset_of!(IoParams, base) == 8);
    assert!(offset_of!(IoParams, file_offset) == 16 && offset_of!(IoParams, base_offset) == 24);
    assert!(offset_of!(IoParams, size) == 32 && offset_of!(IoParams, handle) == 40);
    assert!(offset_of!(IoParams, opcode) == 48 && offset_of!(IoParams, cookie) == 56);
    assert!(size_of::<IoEvent>() == 24 && offset_of!(IoEvent, ret) == 16);
    assert!(size_of::<NvfsProps>() == 32 && size_of::<DriverProps>() == 56);
    assert!(offset_of!(DriverProps, fflags) == 32 && size_of::<IoVec>() == 16);
};
