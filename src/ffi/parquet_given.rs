//! The bodies of `parquet`.

use core::ffi::{c_char, c_void};
use std::collections::HashMap;
use std::ffi::CString;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::columns_given::{name_of, on_host};
use super::convert::{self, StructOut};
use super::error::{Failure, Outcome, text};
use super::handle::{self, Handle};
use super::types::{
    ArrowArrayStream, ArrowDeviceArrayStream, ArrowSchema, GDS_PARQUET_CHUNK_BLOOM_FILTER,
    GDS_PARQUET_CHUNK_COLUMN_INDEX, GDS_PARQUET_CHUNK_DICTIONARY, GDS_PARQUET_CHUNK_ENCRYPTED,
    GDS_PARQUET_CHUNK_OFFSET_INDEX, gds_columns_t, gds_file_t, gds_parquet_chunk_t,
    gds_parquet_column_t, gds_parquet_compare_t as CompareOfC, gds_parquet_condition_t,
    gds_parquet_info_t, gds_parquet_keys_t, gds_parquet_outline_t, gds_parquet_row_group_t,
    gds_parquet_selection_t, gds_parquet_t, gds_parquet_value_t as ValueOfC,
};
use super::{arrow_export as export, arrow_stream, columns_given};
use crate::base::limits;
use crate::engine::Context;
use crate::error::{Error, ErrorKind};
use crate::formats::parquet::{
    ChunkInfo, ColumnInfo, Compare, FileInfo, Keys, Parquet, Predicate, RowGroupInfo, Selection,
    Value,
};

impl Handle for gds_parquet_t {
    type Object = Reader;
    const TAG: u32 = 0x4744_0062;
    const NAME: &'static str = "gds_parquet_t";
}

/// A reader, and what it says as C reads it.
pub struct Reader {
    parquet: Parquet,
    context: Context,
    info: FileInfo,
    created_by: CString,
    key_values: Vec<(CString, Option<CString>)>,
    columns: Vec<(ColumnInfo, [CString; 3])>,
    row_groups: Vec<RowGroupInfo>,
    /// Of the chunks that were asked for.
    chunks: Mutex<HashMap<(u64, u64), Arc<Chunk>>>,
}

struct Chunk {
    info: ChunkInfo,
    codec: CString,
    encodings: CString,
    min: Option<CString>,
    max: Option<CString>,
}

fn none_of(what: &str, index: u64, count: usize) -> Failure {
    let text = format!("{what} {index} was asked for; there are {count}, counted from 0");
    Error::new(ErrorKind::OutOfRange, text).into()
}

fn at<'a, T>(all: &'a [T], index: u64, what: &str) -> Outcome<&'a T> {
    let found = usize::try_from(index).ok().and_then(|index| all.get(index));
    found.ok_or_else(|| none_of(what, index, all.len()))
}

/// Bytes that the caller gives, and that a length of 0 makes none.
///
/// # Safety
/// `place` has `size` readable bytes.
unsafe fn bytes(place: *const c_void, size: u64, name: &str) -> Outcome<Vec<u8>> {
    let place = place.cast::<u8>();
    // SAFETY: the caller's promise.
    let given = unsafe { convert::array(place, size, limits::TEXT_MAX as u64, name)? };
    Ok(given.to_vec())
}

/// # Safety
/// As gds_parquet_open().
unsafe fn keys_of(keys: *const gds_parquet_keys_t) -> Outcome<Option<Keys>> {
    if keys.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let given = unsafe { convert::read_struct(keys)? };
    if given.reserved != 0 {
        return Err(Failure::argument("reserved of the keys must be 0"));
    }
    // SAFETY: the caller's promise.
    let mut made = unsafe {
        Keys {
            footer: bytes(given.footer_key, given.footer_key_bytes, "footer_key")?,
            aad_prefix: match given.aad_prefix.is_null() {
                true => None,
                false => Some(bytes(
                    given.aad_prefix,
                    given.aad_prefix_bytes,
                    "aad_prefix",
                )?),
            },
            ..Keys::default()
        }
    };
    // SAFETY: the caller's promise.
    let columns =
        unsafe { convert::array(given.keys, given.key_count, limits::SEGMENTS_MAX, "keys")? };
    for key in columns {
        // SAFETY: the caller's promise.
        let secret = unsafe { bytes(key.key, key.key_bytes, "key")? };
        if key.column.is_null() {
            // SAFETY: the caller's promise.
            let metadata = unsafe { bytes(key.metadata, key.metadata_bytes, "metadata")? };
            made.by_metadata.push((metadata, secret));
        } else {
            // SAFETY: the caller's promise.
            let name = unsafe { name_of(key.column, "column of a key")? };
            made.columns.push((name.to_owned(), secret));
        }
    }
    Ok(Some(made))
}

/// # Safety
/// As gds_parquet_open().
pub(super) unsafe fn open(
    file: *const gds_file_t,
    keys: *const gds_parquet_keys_t,
    parquet_out: *mut *mut gds_parquet_t,
) -> Outcome {
    let file = handle::borrow(file, "file")?;
    convert::check_pointer(parquet_out, "parquet_out")?;
    // SAFETY: the caller's promise.
    let keys = unsafe { keys_of(keys)? };
    let parquet = Parquet::open(&file, keys)?;
    let info = parquet.info();
    let word = |word: &str| text(word.as_bytes());
    let pairs = info.key_values.iter();
    let columns = parquet.columns().into_iter().map(|column| {
        let words = [&column.name, &column.physical, &column.logical].map(|w| word(w));
        (column, words)
    });
    let object = Reader {
        created_by: word(info.created_by.as_deref().unwrap_or_default()),
        key_values: pairs
            .map(|(k, v)| (word(k), v.as_deref().map(word)))
            .collect(),
        columns: columns.collect(),
        row_groups: parquet.row_groups(),
        chunks: Mutex::default(),
        context: file.context(),
        info,
        parquet,
    };
    // SAFETY: checked above.
    unsafe { parquet_out.write(handle::open(object)?) };
    Ok(())
}

/// # Safety
/// As gds_parquet_info().
pub(super) unsafe fn info(
    parquet: *const gds_parquet_t,
    info_out: *mut gds_parquet_info_t,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(info_out)? };
    let info = &parquet.info;
    place.write(gds_parquet_info_t {
        struct_size: 0,
        columns: info.columns as u32,
        rows: info.rows,
        row_groups: info.row_groups as u64,
        footer_bytes: info.footer_bytes,
        key_values: info.key_values.len() as u64,
        version: info.version,
        is_footer_encrypted: info.is_footer_encrypted.into(),
        created_by: parquet.created_by.as_ptr(),
    });
    Ok(())
}

/// # Safety
/// As gds_parquet_key_value().
pub(super) unsafe fn key_value(
    parquet: *const gds_parquet_t,
    index: u64,
    key_out: *mut *const c_char,
    value_out: *mut *const c_char,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    convert::check_pointer(key_out, "key_out")?;
    convert::check_pointer(value_out, "value_out")?;
    let (key, value) = at(&parquet.key_values, index, "pair")?;
    // SAFETY: checked above.
    unsafe {
        key_out.write(key.as_ptr());
        value_out.write(pointer(value.as_ref()));
    }
    Ok(())
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// # Safety
/// As gds_parquet_column().
pub(super) unsafe fn column(
    parquet: *const gds_parquet_t,
    column: u64,
    column_out: *mut gds_parquet_column_t,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(column_out)? };
    let (info, [name, physical, logical]) = at(&parquet.columns, column, "column")?;
    place.write(gds_parquet_column_t {
        struct_size: 0,
        type_length: info.type_length,
        root: info.root as u32,
        max_definition: info.max_definition,
        max_repetition: info.max_repetition,
        reserved: 0,
        name: name.as_ptr(),
        physical: physical.as_ptr(),
        logical: logical.as_ptr(),
    });
    Ok(())
}

/// # Safety
/// As gds_parquet_row_group().
pub(super) unsafe fn row_group(
    parquet: *const gds_parquet_t,
    row_group: u64,
    row_group_out: *mut gds_parquet_row_group_t,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(row_group_out)? };
    let info = at(&parquet.row_groups, row_group, "row group")?;
    place.write(gds_parquet_row_group_t {
        struct_size: 0,
        reserved: 0,
        rows: info.rows,
        first_row: info.first_row,
        bytes: info.bytes,
        compressed_bytes: info.compressed_bytes,
    });
    Ok(())
}

impl Reader {
    fn chunk(&self, row_group: u64, column: u64) -> Outcome<Arc<Chunk>> {
        at(&self.row_groups, row_group, "row group")?;
        at(&self.columns, column, "column")?;
        let mut known = self.chunks.lock();
        if let Some(chunk) = known.get(&(row_group, column)) {
            return Ok(chunk.clone());
        }
        let info = self.parquet.chunk(row_group as usize, column as usize);
        let info = info.ok_or_else(|| none_of("column", column, self.columns.len()))?;
        let word = |word: &String| text(word.as_bytes());
        let chunk = Arc::new(Chunk {
            codec: word(&info.codec),
            encodings: text(info.encodings.join(",").as_bytes()),
            min: info.min.as_ref().map(word),
            max: info.max.as_ref().map(word),
            info,
        });
        known.insert((row_group, column), chunk.clone());
        Ok(chunk)
    }
}

/// # Safety
/// As gds_parquet_chunk().
pub(super) unsafe fn chunk(
    parquet: *const gds_parquet_t,
    row_group: u64,
    column: u64,
    chunk_out: *mut gds_parquet_chunk_t,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(chunk_out)? };
    let chunk = parquet.chunk(row_group, column)?;
    let info = &chunk.info;
    let flags = [
        (info.has_dictionary, GDS_PARQUET_CHUNK_DICTIONARY),
        (info.has_offset_index, GDS_PARQUET_CHUNK_OFFSET_INDEX),
        (info.has_column_index, GDS_PARQUET_CHUNK_COLUMN_INDEX),
        (info.has_bloom_filter, GDS_PARQUET_CHUNK_BLOOM_FILTER),
        (info.is_encrypted, GDS_PARQUET_CHUNK_ENCRYPTED),
    ];
    let flags = flags.iter().filter(|(is, _)| *is);
    place.write(gds_parquet_chunk_t {
        struct_size: 0,
        flags: flags.fold(0, |all, (_, flag)| all | flag),
        file_offset: info.offset,
        compressed_bytes: info.compressed_bytes,
        bytes: info.bytes,
        values: info.values,
        nulls: info.nulls.unwrap_or(u64::MAX),
        distinct: info.distinct.unwrap_or(u64::MAX),
        codec: chunk.codec.as_ptr(),
        encodings: chunk.encodings.as_ptr(),
        min: pointer(chunk.min.as_ref()),
        max: pointer(chunk.max.as_ref()),
    });
    Ok(())
}

/// # Safety
/// As gds_parquet_schema().
pub(super) unsafe fn schema(
    parquet: *const gds_parquet_t,
    schema_out: *mut ArrowSchema,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    convert::check_pointer(schema_out, "schema_out")?;
    // SAFETY: checked above.
    unsafe { export::write_schema(parquet.parquet.schema(), schema_out) }
}

/// # Safety
/// A non-NULL selection is a struct of struct_size bytes whose pointers are valid.
unsafe fn selection_of(selection: *const gds_parquet_selection_t) -> Outcome<Selection> {
    // SAFETY: the caller's promise.
    let given = unsafe { convert::read_optional(selection)? };
    if given.reserved != 0 {
        return Err(Failure::argument("reserved of the selection must be 0"));
    }
    let most = limits::SEGMENTS_MAX;
    // SAFETY: the caller's promise.
    let (names, groups, rows, conditions) = unsafe {
        (
            convert::array(given.columns, given.column_count, most, "columns")?,
            convert::array(given.row_groups, given.row_group_count, most, "row_groups")?,
            convert::array(given.rows, given.row_range_count, most, "rows")?,
            convert::array(given.conditions, given.condition_count, most, "conditions")?,
        )
    };
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        // SAFETY: the caller's promise.
        let name = unsafe { name_of(*name, "a name in columns")? };
        columns.push(name.to_owned());
    }
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(rows.len());
    for range in rows {
        let end = range.first.checked_add(range.count);
        let end = end.ok_or_else(|| Failure::argument("a range of rows has no end"))?;
        ranges.push(range.first..end);
    }
    let mut predicates = Vec::with_capacity(conditions.len());
    for condition in conditions {
        // SAFETY: the caller's promise.
        predicates.push(unsafe { predicate(condition)? });
    }
    let number = |group: &u64| usize::try_from(*group).unwrap_or(usize::MAX);
    Ok(Selection {
        columns: (!given.columns.is_null()).then_some(columns),
        row_groups: (!given.row_groups.is_null()).then(|| groups.iter().map(number).collect()),
        rows: (!given.rows.is_null()).then_some(ranges),
        predicates,
        memory_limit: (given.memory_limit != 0).then_some(given.memory_limit),
    })
}

/// # Safety
/// The pointers of the condition are valid.
unsafe fn predicate(condition: &gds_parquet_condition_t) -> Outcome<Predicate> {
    // SAFETY: the caller's promise.
    let column = unsafe { name_of(condition.column, "column of a condition")? };
    let compare = match condition.compare {
        c if c == CompareOfC::GDS_PARQUET_EQUAL as i32 => Compare::Equal,
        c if c == CompareOfC::GDS_PARQUET_LESS as i32 => Compare::Less,
        c if c == CompareOfC::GDS_PARQUET_LESS_OR_EQUAL as i32 => Compare::LessOrEqual,
        c if c == CompareOfC::GDS_PARQUET_GREATER as i32 => Compare::Greater,
        c if c == CompareOfC::GDS_PARQUET_GREATER_OR_EQUAL as i32 => Compare::GreaterOrEqual,
        other => {
            let text = format!("compare is {other}; give a gds_parquet_compare_t");
            return Err(Failure::argument(text));
        }
    };
    let value = match condition.kind {
        k if k == ValueOfC::GDS_PARQUET_INTEGER as i32 => Value::Integer(condition.integer),
        k if k == ValueOfC::GDS_PARQUET_UNSIGNED as i32 => {
            Value::Unsigned(condition.integer as u64)
        }
        k if k == ValueOfC::GDS_PARQUET_NUMBER as i32 => Value::Float(condition.number),
        k if k == ValueOfC::GDS_PARQUET_BYTES as i32 => {
            // SAFETY: the caller's promise.
            Value::Bytes(unsafe { bytes(condition.bytes, condition.byte_count, "bytes")? })
        }
        other => {
            let text = format!("kind is {other}; give a gds_parquet_value_t");
            return Err(Failure::argument(text));
        }
    };
    Ok(Predicate {
        column: column.to_owned(),
        compare,
        value,
    })
}

/// # Safety
/// As gds_parquet_outline().
pub(super) unsafe fn outline(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    outline_out: *mut gds_parquet_outline_t,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(outline_out)? };
    // SAFETY: the caller's promise.
    let selection = unsafe { selection_of(selection)? };
    let parts = parquet.parquet.parts(&selection)?;
    let plan = parquet.parquet.plan(&selection)?;
    place.write(gds_parquet_outline_t {
        struct_size: 0,
        reserved: 0,
        rows: parts.iter().map(|part| part.count).sum(),
        row_groups: parts.len() as u64,
        read_bytes: plan.bytes(),
    });
    Ok(())
}

/// # Safety
/// As gds_parquet_load().
pub(super) unsafe fn load(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    columns_out: *mut *mut gds_columns_t,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    convert::check_pointer(columns_out, "columns_out")?;
    // SAFETY: the caller's promise.
    let selection = unsafe { selection_of(selection)? };
    let batch = parquet.parquet.load(&parquet.context, &selection)?;
    let schema = batch.schema.clone();
    let opened = columns_given::open(parquet.context.clone(), schema, vec![batch])?;
    // SAFETY: checked above.
    unsafe { columns_out.write(opened) };
    Ok(())
}

/// # Safety
/// As gds_parquet_stream().
pub(super) unsafe fn stream(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    convert::check_pointer(stream_out, "stream_out")?;
    // SAFETY: the caller's promise.
    let selection = unsafe { selection_of(selection)? };
    let mut batches = parquet.parquet.batches(&parquet.context, selection)?;
    let schema = batches.schema().clone();
    export::schema(&schema)?;
    let next = Box::new(move || batches.next().transpose());
    let stream = arrow_stream::device(schema, parquet.context.clone(), next);
    // SAFETY: checked above.
    unsafe { stream_out.write(stream) };
    Ok(())
}

/// # Safety
/// As gds_parquet_host_stream().
pub(super) unsafe fn host_stream(
    parquet: *const gds_parquet_t,
    selection: *const gds_parquet_selection_t,
    stream_out: *mut ArrowArrayStream,
) -> Outcome {
    let parquet = handle::borrow(parquet, "parquet")?;
    convert::check_pointer(stream_out, "stream_out")?;
    on_host(&parquet.context)?;
    // SAFETY: the caller's promise.
    let selection = unsafe { selection_of(selection)? };
    let mut batches = parquet.parquet.batches(&parquet.context, selection)?;
    let schema = batches.schema().clone();
    export::schema(&schema)?;
    let next = Box::new(move || batches.next().transpose());
    let stream = arrow_stream::host(schema, parquet.context.clone(), next);
    // SAFETY: checked above.
    unsafe { stream_out.write(stream) };
    Ok(())
}
