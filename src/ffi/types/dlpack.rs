//! DLPack's managed tensor as the header shows it.

use core::ffi::c_void;

/// Gives a managed tensor back, once, from any thread: a pointer to the gds_dlpack_t.
pub type gds_dlpack_deleter_fn = Option<unsafe extern "C" fn(tensor: *mut c_void)>;

/// The tensor may not be written to.
pub const GDS_DLPACK_READ_ONLY: u32 = 1;
/// Show plain bytes, one dimension of unsigned 8-bit numbers, whatever the type is.
pub const GDS_DLPACK_BYTES: u32 = 2;

/// Memory with a type and a shape: DLTensor of dlpack.h. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_dlpack_view_t {
    /// The first element; a device address for device memory. NULL without elements.
    pub data: *mut c_void,
    /// DLDeviceType: 1 host, 2 CUDA, 3 pinned, 13 managed.
    pub device_type: i32,
    /// The device's number.
    pub device_id: i32,
    /// Dimensions.
    pub ndim: i32,
    /// DLDataTypeCode.
    pub code: u8,
    /// Bits of a lane.
    pub bits: u8,
    /// Lanes of an element.
    pub lanes: u16,
    /// Elements along each dimension.
    pub shape: *mut i64,
    /// Elements from one to the next along each dimension.
    pub strides: *mut i64,
    /// 0.
    pub byte_offset: u64,
}

/// A tensor that somebody else takes over: DLManagedTensorVersioned of dlpack.h, and cast to
/// it. Python takes it in a PyCapsule named "dltensor_versioned". This struct never changes.
///
/// It keeps its memory, also when the buffer's handle and the context are closed, until
/// whoever has it calls `deleter` with it, once, from any thread.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_dlpack_t {
    /// 1.
    pub version_major: u32,
    /// At least 1.
    pub version_minor: u32,
    /// The library's.
    pub manager_ctx: *mut c_void,
    /// Gives it back.
    pub deleter: gds_dlpack_deleter_fn,
    /// DLPACK_FLAG_BITMASK_READ_ONLY, or 0.
    pub flags: u64,
    /// The memory.
    pub tensor: gds_dlpack_view_t,
}
