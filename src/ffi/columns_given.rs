//! The bodies of `columns`.

use core::ffi::{CStr, c_char};
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::Schema;
use arrow_schema::ffi::FFI_ArrowSchema;

use super::convert::{self, StructOut};
use super::error::{Failure, Outcome};
use super::handle::{self, Handle};
use super::types::{
    ArrowArrayStream, ArrowDeviceArray, ArrowDeviceArrayStream, ArrowSchema,
    GDS_COLUMNS_DICTIONARY, gds_column_buffer_t, gds_column_t, gds_columns_info_t, gds_columns_t,
};
use super::{arrow_export as export, arrow_stream};
use crate::base::limits;
use crate::engine::Context;
use crate::error::{Error, ErrorKind};
use crate::formats::{Array, Batch};

/// Longest path to an array: deeper ones cannot be written in a file.
const PATH_MAX: u64 = 4096;

impl Handle for gds_columns_t {
    type Object = Columns;
    const TAG: u32 = 0x4744_0060;
    const NAME: &'static str = "gds_columns_t";
}

/// Batches of one schema.
pub struct Columns {
    context: Context,
    schema: Arc<Schema>,
    batches: Arc<Vec<Batch>>,
    texts: Texts,
}

/// Names and formats as C reads them.
struct Texts(FFI_ArrowSchema);

// SAFETY: nothing changes it between making and dropping.
unsafe impl Sync for Texts {}

/// A handle for batches, each of this schema.
#[allow(dead_code, reason = "the readers of columnar formats open it")]
pub(super) fn open(
    context: Context,
    schema: Arc<Schema>,
    batches: Vec<Batch>,
) -> Outcome<*mut gds_columns_t> {
    let texts = Texts(export::schema(&schema)?);
    handle::open(Columns {
        context,
        schema,
        batches: Arc::new(batches),
        texts,
    })
}

impl Columns {
    fn batch(&self, batch: u64) -> Outcome<&Batch> {
        let found = usize::try_from(batch)
            .ok()
            .and_then(|b| self.batches.get(b));
        found.ok_or_else(|| outside("batch", batch, self.batches.len()))
    }

    /// An array, and its texts.
    fn find(&self, batch: u64, path: &[u32]) -> Outcome<(&Array, &FFI_ArrowSchema)> {
        let batch = self.batch(batch)?;
        let Some((first, rest)) = path.split_first() else {
            return Err(Failure::argument("path_count is 0; name a column"));
        };
        let mut array = child(&batch.columns, *first, "column")?;
        let mut text = self.texts.0.child(*first as usize);
        for step in rest {
            if *step == GDS_COLUMNS_DICTIONARY {
                let (next, words) = array
                    .dictionary
                    .as_deref()
                    .zip(text.dictionary())
                    .ok_or_else(|| {
                        Error::new(ErrorKind::OutOfRange, "the array has no dictionary")
                    })?;
                (array, text) = (next, words);
            } else {
                array = child(&array.children, *step, "child")?;
                text = text.child(*step as usize);
            }
        }
        Ok((array, text))
    }

    fn next(&self) -> arrow_stream::Next {
        let (batches, mut at) = (self.batches.clone(), 0);
        Box::new(move || {
            at += 1;
            Ok(batches.get(at - 1).cloned())
        })
    }
}

fn child<'a>(arrays: &'a [Array], index: u32, what: &str) -> Outcome<&'a Array> {
    let found = arrays.get(index as usize);
    found.ok_or_else(|| outside(what, u64::from(index), arrays.len()))
}

fn outside(what: &str, index: u64, count: usize) -> Failure {
    let text = format!("{what} {index} was asked for; there are {count}, counted from 0");
    Error::new(ErrorKind::OutOfRange, text).into()
}

/// Memory behind an array, each allocation once.
fn allocations(array: &Array, into: &mut BTreeMap<u64, u64>) {
    for slice in array.buffers.iter().flatten() {
        into.insert(slice.buffer.address(), slice.buffer.size());
    }
    let inner = array.children.iter().chain(array.dictionary.as_deref());
    inner.for_each(|inner| allocations(inner, into));
}

/// # Safety
/// As gds_columns_info().
pub(super) unsafe fn info(
    columns: *const gds_columns_t,
    info_out: *mut gds_columns_info_t,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(info_out)? };
    let mut memory = BTreeMap::new();
    let arrays = columns.batches.iter().flat_map(|batch| &batch.columns);
    arrays.for_each(|array| allocations(array, &mut memory));
    place.write(gds_columns_info_t {
        struct_size: 0,
        columns: columns.schema.fields().len() as u32,
        batches: columns.batches.len() as u64,
        rows: columns.batches.iter().map(|batch| batch.rows).sum(),
        bytes: memory.values().sum(),
    });
    Ok(())
}

/// # Safety
/// As gds_columns_find().
pub(super) unsafe fn find(
    columns: *const gds_columns_t,
    name: *const c_char,
    column_out: *mut u32,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    // SAFETY: the caller's promise.
    let name = unsafe { name_of(name, "name")? };
    convert::check_pointer(column_out, "column_out")?;
    let fields = columns.schema.fields();
    let found = fields.iter().position(|field| field.name() == name);
    let index = found.ok_or_else(|| {
        let text = format!("no column is named {name:?}; names are those of the file");
        Error::new(ErrorKind::NotFound, text)
    })?;
    // SAFETY: checked above.
    unsafe { column_out.write(index as u32) };
    Ok(())
}

/// A name that the caller gives: UTF-8, NUL-terminated; it may be empty.
///
/// # Safety
/// A non-NULL `text` is NUL-terminated, or readable for `TEXT_MAX` bytes, and unchanged during 'a.
pub(super) unsafe fn name_of<'a>(text: *const c_char, name: &str) -> Outcome<&'a str> {
    if text.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: the caller's promise.
    let size = unsafe { libc::strnlen(text, limits::TEXT_MAX) };
    if size == limits::TEXT_MAX {
        let max = limits::TEXT_MAX;
        return Err(Failure::argument(format!(
            "{name} has no NUL within {max} bytes"
        )));
    }
    // SAFETY: the NUL was found above.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|_| Failure::argument(format!("{name} is not UTF-8, as names of columns are")))
}

/// # Safety
/// As gds_columns_column().
pub(super) unsafe fn column(
    columns: *const gds_columns_t,
    batch: u64,
    path: *const u32,
    path_count: u64,
    column_out: *mut gds_column_t,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    // SAFETY: the caller's promise.
    let path = unsafe { convert::array(path, path_count, PATH_MAX, "path")? };
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(column_out)? };
    let (array, text) = columns.find(batch, path)?;
    place.write(gds_column_t {
        struct_size: 0,
        buffers: array.buffers.len() as u32,
        children: array.children.len() as u32,
        has_dictionary: u32::from(array.dictionary.is_some()),
        length: array.len,
        null_count: array.null_count.map_or(-1, |nulls| nulls as i64),
        offset: array.offset,
        // Both are texts of C inside: a NUL follows.
        name: text
            .name()
            .map_or(c"".as_ptr(), |name| name.as_ptr().cast()),
        format: text.format().as_ptr().cast(),
    });
    Ok(())
}

/// # Safety
/// As gds_columns_buffer().
pub(super) unsafe fn buffer(
    columns: *const gds_columns_t,
    batch: u64,
    path: *const u32,
    path_count: u64,
    buffer: u32,
    buffer_out: *mut gds_column_buffer_t,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    // SAFETY: the caller's promise.
    let path = unsafe { convert::array(path, path_count, PATH_MAX, "path")? };
    convert::check_pointer(buffer_out, "buffer_out")?;
    let (array, _) = columns.find(batch, path)?;
    let count = array.buffers.len();
    let slice = array.buffers.get(buffer as usize);
    let slice = slice.ok_or_else(|| outside("buffer", u64::from(buffer), count))?;
    let answer = gds_column_buffer_t {
        address: slice.as_ref().map_or(0, |slice| slice.address()),
        size: slice.as_ref().map_or(0, |slice| slice.size),
    };
    // SAFETY: checked above.
    unsafe { buffer_out.write(answer) };
    Ok(())
}

/// # Safety
/// As gds_columns_schema().
pub(super) unsafe fn schema(
    columns: *const gds_columns_t,
    schema_out: *mut ArrowSchema,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    convert::check_pointer(schema_out, "schema_out")?;
    // SAFETY: checked above.
    unsafe { export::write_schema(&columns.schema, schema_out) }
}

/// # Safety
/// As gds_columns_export().
pub(super) unsafe fn export(
    columns: *const gds_columns_t,
    batch: u64,
    array_out: *mut ArrowDeviceArray,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    convert::check_pointer(array_out, "array_out")?;
    let array = export::device_batch(columns.batch(batch)?, &columns.context)?;
    // SAFETY: checked above.
    unsafe { array_out.write(array) };
    Ok(())
}

/// # Safety
/// As gds_columns_stream().
pub(super) unsafe fn export_stream(
    columns: *const gds_columns_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    convert::check_pointer(stream_out, "stream_out")?;
    let (schema, context) = (columns.schema.clone(), columns.context.clone());
    let stream = arrow_stream::device(schema, context, columns.next());
    // SAFETY: checked above.
    unsafe { stream_out.write(stream) };
    Ok(())
}

/// # Safety
/// As gds_columns_host_stream().
pub(super) unsafe fn export_host_stream(
    columns: *const gds_columns_t,
    stream_out: *mut ArrowArrayStream,
) -> Outcome {
    let columns = handle::borrow(columns, "columns")?;
    convert::check_pointer(stream_out, "stream_out")?;
    on_host(&columns.context)?;
    let (schema, context) = (columns.schema.clone(), columns.context.clone());
    let stream = arrow_stream::host(schema, context, columns.next());
    // SAFETY: checked above.
    unsafe { stream_out.write(stream) };
    Ok(())
}

/// Refuses what only the host device can do.
pub(super) fn on_host(context: &Context) -> Outcome {
    if context.device().is_host() {
        return Ok(());
    }
    let text = "columns in device memory cannot be a stream of host arrays; export a stream of \
                device arrays, or open the context on GDS_DEVICE_HOST";
    Err(Error::new(ErrorKind::NotSupported, text).into())
}
