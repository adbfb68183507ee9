//! Arrays as the structs of the Arrow C interfaces, without a copy.
//!
//! Every struct holds what its own buffers need and the structs of its children, so that a child
//! may be moved out and outlive its parent. `release` may run on any thread.

use core::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{DataType, Schema};

use super::error::{Failure, Outcome};
use super::types::{ArrowArray, ArrowDeviceArray, ArrowSchema};
use crate::engine::{Context, MemoryKind};
use crate::error::{Error, ErrorKind};
use crate::formats::{Array, Batch, Slice};

const _: () = assert!(size_of::<FFI_ArrowSchema>() == size_of::<ArrowSchema>());
const _: () = assert!(align_of::<FFI_ArrowSchema>() == align_of::<ArrowSchema>());

/// Ordinary memory.
pub(super) const CPU: i32 = 1;
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;
const CUDA_MANAGED: i32 = 13;

/// What an exported array holds until it is released.
struct Held {
    _buffers: Vec<Option<Slice>>,
    addresses: Vec<*const c_void>,
    /// The last buffer of a view type: sizes of the ones before, in host memory.
    _sizes: Option<Box<[i64]>>,
    children: Vec<*mut ArrowArray>,
    dictionary: *mut ArrowArray,
}

/// What is nobody's: a stream that has ended.
pub(super) fn released() -> ArrowArray {
    ArrowArray {
        length: 0,
        null_count: 0,
        offset: 0,
        n_buffers: 0,
        n_children: 0,
        buffers: ptr::null_mut(),
        children: ptr::null_mut(),
        dictionary: ptr::null_mut(),
        release: None,
        private_data: ptr::null_mut(),
    }
}

/// The schema as a struct of C; its own `release` frees it.
pub(super) fn schema(schema: &Schema) -> Outcome<FFI_ArrowSchema> {
    FFI_ArrowSchema::try_from(schema).map_err(|error| {
        let text = format!("export the schema: {error}; rename the column");
        Failure::argument(text)
    })
}

/// Writes the schema where the caller wants it.
///
/// # Safety
/// `place` is aligned and writable; what is there is overwritten.
pub(super) unsafe fn write_schema(from: &Schema, place: *mut ArrowSchema) -> Outcome {
    let exported = schema(from)?;
    // SAFETY: both are the ArrowSchema of the specification, and the caller's promise.
    unsafe { place.cast::<FFI_ArrowSchema>().write(exported) };
    Ok(())
}

/// A batch as a struct array of its columns.
pub(super) fn batch(batch: &Batch) -> Outcome<ArrowArray> {
    batch.columns.iter().try_for_each(check)?;
    let children = batch.columns.iter().map(array).collect();
    let parts = Parts {
        length: batch.rows,
        null_count: Some(0),
        offset: 0,
        buffers: vec![None],
        sizes: None,
        children,
        dictionary: None,
    };
    Ok(parts.export())
}

/// Arrow's structs hold signed numbers. Seen before anything is made, so that nothing leaks.
fn check(array: &Array) -> Outcome {
    let largest = array
        .len
        .max(array.offset)
        .max(array.null_count.unwrap_or(0));
    if i64::try_from(largest).is_err() {
        let text = "an array is too long for Arrow's structs";
        return Err(Error::new(ErrorKind::OutOfRange, text).into());
    }
    let mut inner = array.children.iter().chain(array.dictionary.as_deref());
    inner.try_for_each(check)
}

/// A batch, and which device it is on.
pub(super) fn device_batch(from: &Batch, context: &Context) -> Outcome<ArrowDeviceArray> {
    let (device_type, device_id) = device_of(from, context);
    Ok(device_array(batch(from)?, device_type, device_id))
}

/// What an ended stream of device arrays gives, or a batch with its device.
pub(super) fn device_array(array: ArrowArray, kind: i32, id: i64) -> ArrowDeviceArray {
    ArrowDeviceArray {
        array,
        device_id: id,
        device_type: kind,
        sync_event: ptr::null_mut(),
        reserved: [0; 3],
    }
}

/// Type and number of the device that holds device memory of this context.
pub(super) fn device(context: &Context) -> (i32, i64) {
    if context.device().is_host() {
        return (CPU, -1);
    }
    (CUDA, i64::from(context.device().info().ordinal))
}

fn device_of(batch: &Batch, context: &Context) -> (i32, i64) {
    let (plain, id) = device(context);
    let kind = batch.columns.iter().find_map(first_buffer);
    let kind = match kind.map(|slice| slice.buffer.kind()) {
        _ if plain == CPU => CPU,
        None | Some(MemoryKind::Device) => plain,
        Some(MemoryKind::Pinned) => CUDA_HOST,
        Some(MemoryKind::Managed) => CUDA_MANAGED,
        Some(MemoryKind::Pageable) => return (CPU, -1),
    };
    (kind, id)
}

/// A buffer of an array or of what it is made of.
pub(super) fn first_buffer(array: &Array) -> Option<&Slice> {
    let own = array.buffers.iter().flatten().next();
    own.or_else(|| array.children.iter().find_map(first_buffer))
        .or_else(|| array.dictionary.as_deref().and_then(first_buffer))
}

struct Parts {
    length: u64,
    null_count: Option<u64>,
    offset: u64,
    buffers: Vec<Option<Slice>>,
    sizes: Option<Box<[i64]>>,
    children: Vec<ArrowArray>,
    dictionary: Option<ArrowArray>,
}

/// An array and what it is made of.
fn array(from: &Array) -> ArrowArray {
    let is_view = matches!(from.data_type, DataType::Utf8View | DataType::BinaryView);
    let size = |slice: &Option<Slice>| slice.as_ref().map_or(0, |s| s.size as i64);
    let parts = Parts {
        length: from.len,
        null_count: from.null_count,
        offset: from.offset,
        buffers: from.buffers.clone(),
        sizes: is_view.then(|| from.buffers.iter().skip(2).map(size).collect()),
        children: from.children.iter().map(array).collect(),
        dictionary: from.dictionary.as_deref().map(array),
    };
    parts.export()
}

impl Parts {
    fn export(self) -> ArrowArray {
        // `check` has seen that they fit.
        let (length, offset) = (self.length as i64, self.offset as i64);
        let null_count = self.null_count.map_or(-1, |nulls| nulls as i64);
        let address = |slice: &Option<Slice>| match slice {
            Some(slice) => slice.address() as *const c_void,
            None => ptr::null(),
        };
        let mut addresses: Vec<_> = self.buffers.iter().map(address).collect();
        if let Some(sizes) = &self.sizes {
            addresses.push(sizes.as_ptr().cast());
        }
        let boxed = |array| Box::into_raw(Box::new(array));
        let mut held = Box::new(Held {
            _buffers: self.buffers,
            addresses,
            _sizes: self.sizes,
            children: self.children.into_iter().map(boxed).collect(),
            dictionary: self.dictionary.map_or(ptr::null_mut(), boxed),
        });
        ArrowArray {
            length,
            null_count,
            offset,
            n_buffers: held.addresses.len() as i64,
            n_children: held.children.len() as i64,
            buffers: held.addresses.as_mut_ptr(),
            children: held.children.as_mut_ptr(),
            dictionary: held.dictionary,
            release: Some(release_array),
            private_data: Box::into_raw(held).cast(),
        }
    }
}

/// Frees what an array holds, unless it is released.
///
/// # Safety
/// The struct of a producer, used by nobody else.
unsafe fn release(array: &mut ArrowArray) {
    if let Some(release) = array.release {
        // SAFETY: the callback of its producer, and the caller's promise.
        unsafe { release(array) };
    }
}

/// # Safety
/// `array` is one of `export`, or a copy of one that was moved bitwise, not released yet.
unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: the caller gives a struct.
    let Some(array) = (unsafe { array.as_mut() }) else {
        return;
    };
    if array.release.take().is_none() || array.private_data.is_null() {
        return;
    }
    // SAFETY: `export` made it of a Box, and this is the one release.
    let held = unsafe { Box::from_raw(array.private_data.cast::<Held>()) };
    array.private_data = ptr::null_mut();
    // What frees device memory must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(move || {
        let dictionary = Some(held.dictionary).filter(|child| !child.is_null());
        for child in held.children.iter().copied().chain(dictionary) {
            // SAFETY: `export` made it of a Box, which nobody else uses any more.
            let mut child = unsafe { Box::from_raw(child) };
            // SAFETY: as above; one that was moved out has no release.
            unsafe { release(&mut child) };
        }
        drop(held);
    }));
}
