//! The Arrow C Data, Stream and Device interfaces, as arrow.apache.org/docs/format/ lays them down.
//! The header has them as every program of Arrow does, in guards, so that they may be there twice.

use core::ffi::{c_char, c_void};

/// Frees what a schema holds.
pub type arrow_schema_release_fn = Option<unsafe extern "C" fn(schema: *mut ArrowSchema)>;
/// Frees what an array holds.
pub type arrow_array_release_fn = Option<unsafe extern "C" fn(array: *mut ArrowArray)>;
/// Writes the schema of a stream.
pub type arrow_stream_schema_fn = Option<
    unsafe extern "C" fn(stream: *mut ArrowArrayStream, schema_out: *mut ArrowSchema) -> i32,
>;
/// Writes the next array of a stream; a released one at the end.
pub type arrow_stream_next_fn =
    Option<unsafe extern "C" fn(stream: *mut ArrowArrayStream, array_out: *mut ArrowArray) -> i32>;
/// What went wrong last in a stream.
pub type arrow_stream_error_fn =
    Option<unsafe extern "C" fn(stream: *mut ArrowArrayStream) -> *const c_char>;
/// Frees what a stream holds.
pub type arrow_stream_release_fn = Option<unsafe extern "C" fn(stream: *mut ArrowArrayStream)>;
/// Writes the schema of a stream.
pub type arrow_device_stream_schema_fn = Option<
    unsafe extern "C" fn(stream: *mut ArrowDeviceArrayStream, schema_out: *mut ArrowSchema) -> i32,
>;
/// Writes the next array of a stream; a released one at the end.
pub type arrow_device_stream_next_fn = Option<
    unsafe extern "C" fn(
        stream: *mut ArrowDeviceArrayStream,
        array_out: *mut ArrowDeviceArray,
    ) -> i32,
>;
/// What went wrong last in a stream.
pub type arrow_device_stream_error_fn =
    Option<unsafe extern "C" fn(stream: *mut ArrowDeviceArrayStream) -> *const c_char>;
/// Frees what a stream holds.
pub type arrow_device_stream_release_fn =
    Option<unsafe extern "C" fn(stream: *mut ArrowDeviceArrayStream)>;

/// A type, with its name.
#[derive(Debug)]
#[repr(C)]
pub struct ArrowSchema {
    /// The type, as a format string.
    pub format: *const c_char,
    /// Its name, or NULL.
    pub name: *const c_char,
    /// Key-value pairs, or NULL.
    pub metadata: *const c_char,
    /// ARROW_FLAG_*.
    pub flags: i64,
    /// Types that it is made of.
    pub n_children: i64,
    /// The types.
    pub children: *mut *mut ArrowSchema,
    /// What keys stand for, or NULL.
    pub dictionary: *mut ArrowSchema,
    /// Frees it; NULL: it is released.
    pub release: arrow_schema_release_fn,
    /// Of the producer.
    pub private_data: *mut c_void,
}

/// Values of a type.
#[derive(Debug)]
#[repr(C)]
pub struct ArrowArray {
    /// Values.
    pub length: i64,
    /// Nulls, -1 when nobody counted.
    pub null_count: i64,
    /// Values of the buffers before the first one.
    pub offset: i64,
    /// Buffers.
    pub n_buffers: i64,
    /// Arrays that it is made of.
    pub n_children: i64,
    /// The buffers.
    pub buffers: *mut *const c_void,
    /// The arrays.
    pub children: *mut *mut ArrowArray,
    /// What keys stand for, or NULL.
    pub dictionary: *mut ArrowArray,
    /// Frees it; NULL: it is released.
    pub release: arrow_array_release_fn,
    /// Of the producer.
    pub private_data: *mut c_void,
}

/// Values in the memory of a device.
#[derive(Debug)]
#[repr(C)]
pub struct ArrowDeviceArray {
    /// The values; their buffers are addresses of the device.
    pub array: ArrowArray,
    /// Which device of its type; -1 for the processor.
    pub device_id: i64,
    /// ARROW_DEVICE_*.
    pub device_type: i32,
    /// What to wait for before use; NULL: nothing.
    pub sync_event: *mut c_void,
    /// Zero.
    pub reserved: [i64; 3],
}

/// Arrays of one type, one after the other, in ordinary memory.
#[derive(Debug)]
#[repr(C)]
pub struct ArrowArrayStream {
    /// Writes the type; answers 0 or an errno.
    pub get_schema: arrow_stream_schema_fn,
    /// Writes the next array; answers 0 or an errno.
    pub get_next: arrow_stream_next_fn,
    /// What went wrong, or NULL.
    pub get_last_error: arrow_stream_error_fn,
    /// Frees it; NULL: it is released.
    pub release: arrow_stream_release_fn,
    /// Of the producer.
    pub private_data: *mut c_void,
}

/// Arrays of one type, one after the other, in the memory of a device.
#[derive(Debug)]
#[repr(C)]
pub struct ArrowDeviceArrayStream {
    /// ARROW_DEVICE_*.
    pub device_type: i32,
    /// Writes the type; answers 0 or an errno.
    pub get_schema: arrow_device_stream_schema_fn,
    /// Writes the next array; answers 0 or an errno.
    pub get_next: arrow_device_stream_next_fn,
    /// What went wrong, or NULL.
    pub get_last_error: arrow_device_stream_error_fn,
    /// Frees it; NULL: it is released.
    pub release: arrow_device_stream_release_fn,
    /// Of the producer.
    pub private_data: *mut c_void,
}
