//! DLPack: memory that PyTorch, CuPy, JAX and NumPy take over without a copy.

use core::ffi::c_void;
use std::ptr;

use super::convert;
use super::error::{Failure, Outcome};
use super::guard::{guard, guard_void};
use super::handle;
use super::status::gds_status_t;
use super::tensor::selection_of;
use super::types::{
    GDS_DLPACK_BYTES, GDS_DLPACK_READ_ONLY, gds_buffer_t, gds_dlpack_t, gds_dlpack_view_t,
    gds_tensor_part_t, gds_tensors_t,
};
use crate::base::limits;
use crate::engine::Buffer;
use crate::formats::exchange::dlpack::{VERSION, View};
use crate::formats::tensor::Dtype;

// The layout of dlpack.h 1.x on machines of 64 bits.
const _: () = assert!(size_of::<gds_dlpack_view_t>() == 48 && size_of::<gds_dlpack_t>() == 80);

/// What a managed tensor keeps. The struct that others see is a field, and its address theirs.
struct Managed {
    tensor: gds_dlpack_t,
    shape: Box<[i64]>,
    strides: Box<[i64]>,
    buffer: Buffer,
}

/// Show memory of a buffer as a tensor that somebody else takes over.
///
/// @param offset      of the first element in the buffer, bytes.
/// @param dtype       a gds_dtype_t. 0 with GDS_DLPACK_BYTES.
/// @param shape       elements along each dimension, the dense one last; with
///                    GDS_DLPACK_BYTES one dimension, the bytes.
/// @param dimensions  up to 64.
/// @param flags       GDS_DLPACK_READ_ONLY, GDS_DLPACK_BYTES.
/// @param tensor_out  its deleter is called once. Keeps the memory.
/// @return GDS_STATUS_NOT_SUPPORTED: a type that DLPack cannot say (6 bits, ggml's blocks, 4
///         bits with an odd last dimension), or memory that the type is not aligned to: take
///         the bytes; GDS_STATUS_OUT_OF_RANGE: it passes the end of the buffer;
///         GDS_STATUS_INVALID_ARGUMENT; GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_buffer_dlpack(
    buffer: *const gds_buffer_t,
    offset: u64,
    dtype: i32,
    shape: *const u64,
    dimensions: u32,
    flags: u32,
    tensor_out: *mut *mut gds_dlpack_t,
) -> gds_status_t {
    guard(|| {
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_pointer(tensor_out, "tensor_out")?;
        let most = limits::TENSOR_DIMENSIONS_MAX as u64;
        // SAFETY: the caller gives `dimensions` numbers.
        let shape = unsafe { convert::array(shape, u64::from(dimensions), most, "shape")? };
        check_flags(flags)?;
        let view = match (flags & GDS_DLPACK_BYTES != 0, shape) {
            (true, [size]) if dtype == 0 => View::bytes(&buffer, offset, *size)?,
            (true, _) => {
                let text = "GDS_DLPACK_BYTES takes dtype 0 and one dimension".to_owned();
                return Err(Failure::argument(text));
            }
            (false, shape) => View::new(&buffer, offset, dtype_of(dtype)?, shape)?,
        };
        // SAFETY: checked above.
        unsafe { tensor_out.write(managed(&buffer, view, flags)) };
        Ok(())
    })
}

/// Show a tensor, or a part of one, that was loaded into a buffer.
///
/// @param part        which one; the shape is that of the part.
/// @param buffer      what it was loaded into.
/// @param offset      where it stands there, as gds_tensor_place_t says, bytes.
/// @param flags       as for gds_buffer_dlpack().
/// @param tensor_out  its deleter is called once. Keeps the memory.
/// @return as gds_buffer_dlpack() and gds_tensors_plan().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_tensors_dlpack(
    tensors: *const gds_tensors_t,
    part: *const gds_tensor_part_t,
    buffer: *const gds_buffer_t,
    offset: u64,
    flags: u32,
    tensor_out: *mut *mut gds_dlpack_t,
) -> gds_status_t {
    guard(|| {
        let object = handle::borrow(tensors, "tensors")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_pointer(tensor_out, "tensor_out")?;
        // SAFETY: the caller gives one part.
        let part = unsafe { convert::array(part, 1, 1, "part")? };
        check_flags(flags)?;
        let selection = selection_of((0, &part[0]))?;
        let (dtype, part) = object.tensors.part_of(selection)?;
        let view = match flags & GDS_DLPACK_BYTES != 0 {
            true => View::bytes(&buffer, offset, part.size)?,
            false => View::new(&buffer, offset, dtype, &part.shape)?,
        };
        // SAFETY: checked above.
        unsafe { tensor_out.write(managed(&buffer, view, flags)) };
        Ok(())
    })
}

fn check_flags(flags: u32) -> Outcome {
    match flags & !(GDS_DLPACK_READ_ONLY | GDS_DLPACK_BYTES) {
        0 => Ok(()),
        _ => {
            let text = format!("flags are {flags:#x}; only GDS_DLPACK_* of this header are known");
            Err(Failure::argument(text))
        }
    }
}

fn dtype_of(number: i32) -> Outcome<Dtype> {
    let found = u32::try_from(number).ok().and_then(Dtype::from_number);
    found.ok_or_else(|| Failure::argument(format!("dtype is {number}; it is no gds_dtype_t")))
}

/// A managed tensor that its deleter frees.
fn managed(buffer: &Buffer, view: View, flags: u32) -> *mut gds_dlpack_t {
    let mut made = Box::new(Managed {
        tensor: gds_dlpack_t {
            version_major: VERSION.0,
            version_minor: VERSION.1,
            manager_ctx: ptr::null_mut(),
            deleter: Some(delete),
            flags: u64::from(flags & GDS_DLPACK_READ_ONLY),
            tensor: gds_dlpack_view_t {
                data: ptr::with_exposed_provenance_mut(view.address as usize),
                device_type: view.device_type,
                device_id: view.device_id,
                ndim: view.shape.len() as i32,
                code: view.code,
                bits: view.bits,
                lanes: view.lanes,
                shape: ptr::null_mut(),
                strides: ptr::null_mut(),
                byte_offset: 0,
            },
        },
        shape: view.shape.into(),
        strides: view.strides.into(),
        buffer: buffer.clone(),
    });
    if !made.shape.is_empty() {
        made.tensor.tensor.shape = made.shape.as_mut_ptr();
        made.tensor.tensor.strides = made.strides.as_mut_ptr();
    }
    let raw = Box::into_raw(made);
    // SAFETY: just made, and nobody else has it yet.
    unsafe {
        (*raw).tensor.manager_ctx = raw.cast::<c_void>();
        &raw mut (*raw).tensor
    }
}

/// Frees a managed tensor, and its memory with the last that uses it. Any thread.
unsafe extern "C" fn delete(tensor: *mut c_void) {
    // In a forked child the threads that the memory's context would wait for do not exist.
    if tensor.is_null() || handle::is_forked() {
        return;
    }
    guard_void(|| {
        // SAFETY: the caller gives what `managed` made, once.
        let made = unsafe {
            let tensor = tensor.cast::<gds_dlpack_t>();
            Box::from_raw((*tensor).manager_ctx.cast::<Managed>())
        };
        drop(made.buffer);
    });
}
