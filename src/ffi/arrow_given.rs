//! The bodies of `arrow`.

use core::ffi::c_char;
use std::ffi::CString;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use super::columns_given::{name_of, on_host};
use super::convert::{self, StructOut};
use super::error::{Failure, Outcome, text};
use super::handle::{self, Handle};
use super::transfer::{options_of, switch};
use super::types::{
    ArrowArrayStream, ArrowDeviceArrayStream, ArrowSchema, gds_arrow_batch_t,
    gds_arrow_codec_t as CodecOfC, gds_arrow_form_t as FormOfC, gds_arrow_info_t,
    gds_arrow_selection_t, gds_arrow_t, gds_buffer_t, gds_columns_t, gds_context_t, gds_file_t,
    gds_plan_t,
};
use super::{arrow_export as export, arrow_stream, columns_given};
use crate::base::limits;
use crate::engine::{Context, Options};
use crate::error::{Error, ErrorKind};
use crate::formats::Load;
use crate::formats::arrow::{
    ArrowForm, ArrowPipe, ArrowReader, BatchPlan, Batches, Codec, LoadOptions,
};

/// Most batches that may be on their way at once.
const AHEAD_MAX: u32 = 64;
/// Bytes of the allocations that the batches of gds_arrow_load() share.
const ALLOCATION: u64 = 256 << 20;

impl Handle for gds_arrow_t {
    type Object = Reader;
    const TAG: u32 = 0x4744_0061;
    const NAME: &'static str = "gds_arrow_t";
}

/// A reader, and the names of its columns as C reads them.
pub struct Reader {
    reader: ArrowReader,
    context: Context,
    names: Vec<CString>,
}

/// What a selection says.
struct Chosen {
    /// None: all.
    names: Option<Vec<String>>,
    first: u64,
    count: u64,
    load: LoadOptions,
    /// How far to read ahead was not said.
    default_ahead: bool,
}

/// # Safety
/// As gds_arrow_open().
pub(super) unsafe fn open(file: *const gds_file_t, arrow_out: *mut *mut gds_arrow_t) -> Outcome {
    let file = handle::borrow(file, "file")?;
    convert::check_pointer(arrow_out, "arrow_out")?;
    let reader = ArrowReader::open(&file)?;
    let fields = reader.schema().fields().iter();
    let object = Reader {
        names: fields.map(|field| text(field.name().as_bytes())).collect(),
        context: file.context(),
        reader,
    };
    // SAFETY: checked above.
    unsafe { arrow_out.write(handle::open(object)?) };
    Ok(())
}

/// # Safety
/// As gds_arrow_info().
pub(super) unsafe fn info(arrow: *const gds_arrow_t, info_out: *mut gds_arrow_info_t) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(info_out)? };
    let form = match arrow.reader.form() {
        ArrowForm::File => FormOfC::GDS_ARROW_FORM_FILE,
        ArrowForm::Stream => FormOfC::GDS_ARROW_FORM_STREAM,
    };
    place.write(gds_arrow_info_t {
        struct_size: 0,
        form: form as i32,
        version: arrow.reader.version(),
        columns: arrow.names.len() as u32,
        batches: arrow.reader.batch_count() as u64,
        dictionaries: arrow.reader.dictionary_count() as u64,
    });
    Ok(())
}

/// # Safety
/// As gds_arrow_batch().
pub(super) unsafe fn batch(
    arrow: *const gds_arrow_t,
    batch: u64,
    batch_out: *mut gds_arrow_batch_t,
) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    // SAFETY: the caller's promise.
    let place = unsafe { StructOut::new(batch_out)? };
    let index = usize::try_from(batch).unwrap_or(usize::MAX);
    let info = arrow.reader.batch_info(index)?;
    let codec = match info.codec {
        None => CodecOfC::GDS_ARROW_CODEC_NONE,
        Some(Codec::Lz4) => CodecOfC::GDS_ARROW_CODEC_LZ4,
        Some(Codec::Zstd) => CodecOfC::GDS_ARROW_CODEC_ZSTD,
    };
    place.write(gds_arrow_batch_t {
        struct_size: 0,
        codec: codec as i32,
        rows: info.rows,
        file_offset: info.offset,
        body_bytes: info.body_bytes,
    });
    Ok(())
}

/// # Safety
/// As gds_arrow_column_name().
pub(super) unsafe fn column_name(
    arrow: *const gds_arrow_t,
    column: u64,
    name_out: *mut *const c_char,
    size_out: *mut u64,
) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    convert::check_pointer(name_out, "name_out")?;
    convert::check_optional(size_out, "size_out")?;
    let name = usize::try_from(column)
        .ok()
        .and_then(|at| arrow.names.get(at));
    let name = name.ok_or_else(|| {
        let count = arrow.names.len();
        let text = format!("column {column} was asked for; there are {count}, counted from 0");
        Error::new(ErrorKind::OutOfRange, text)
    })?;
    // SAFETY: checked above.
    unsafe { name_out.write(name.as_ptr()) };
    // SAFETY: checked above.
    unsafe { convert::write_optional(size_out, name.as_bytes().len() as u64) };
    Ok(())
}

/// # Safety
/// As gds_arrow_schema().
pub(super) unsafe fn schema(arrow: *const gds_arrow_t, schema_out: *mut ArrowSchema) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    convert::check_pointer(schema_out, "schema_out")?;
    // SAFETY: checked above.
    unsafe { export::write_schema(arrow.reader.schema(), schema_out) }
}

/// # Safety
/// As gds_arrow_load().
pub(super) unsafe fn load(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    columns_out: *mut *mut gds_columns_t,
) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    convert::check_pointer(columns_out, "columns_out")?;
    // SAFETY: the caller's promise.
    let mut chosen = unsafe { Chosen::new(selection)? };
    if chosen.default_ahead {
        // All of them will stand in memory together, and what is compressed is faster together.
        chosen.load.ahead = AHEAD_MAX as usize;
    }
    chosen.load.allocation = ALLOCATION;
    let loaded = chosen.load(&arrow.reader, &arrow.context)?;
    let schema = loaded.schema().clone();
    let batches = loaded.collect::<crate::error::Result<Vec<_>>>()?;
    let opened = columns_given::open(arrow.context.clone(), schema, batches)?;
    // SAFETY: checked above.
    unsafe { columns_out.write(opened) };
    Ok(())
}

/// # Safety
/// As gds_arrow_plan().
pub(super) unsafe fn plan(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    batch: u64,
    plan_out: *mut *mut gds_plan_t,
    size_out: *mut u64,
) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    convert::check_pointer(plan_out, "plan_out")?;
    convert::check_pointer(size_out, "size_out")?;
    // SAFETY: the caller's promise.
    let chosen = unsafe { Chosen::new(selection)? };
    let (plan, _) = chosen.plan(&arrow.reader, batch)?;
    let size = plan.size().max(64);
    let file = arrow.reader.file().ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            "a reader of the C interface has a file",
        )
    })?;
    let load = Load::new(file, plan.plan().clone());
    // SAFETY: checked above.
    unsafe { plan_out.write(handle::open(load)?) };
    // SAFETY: checked above.
    unsafe { size_out.write(size) };
    Ok(())
}

/// # Safety
/// As gds_arrow_columns().
pub(super) unsafe fn columns(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    batch: u64,
    buffer: *const gds_buffer_t,
    buffer_offset: u64,
    columns_out: *mut *mut gds_columns_t,
) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    let buffer = handle::borrow(buffer, "buffer")?;
    convert::check_pointer(columns_out, "columns_out")?;
    // SAFETY: the caller's promise.
    let chosen = unsafe { Chosen::new(selection)? };
    let (plan, columns) = chosen.plan(&arrow.reader, batch)?;
    let reader = &arrow.reader;
    let batch = reader.batch_in(&plan, &columns, &buffer, buffer_offset, &chosen.load)?;
    let schema = batch.schema.clone();
    let opened = columns_given::open(arrow.context.clone(), schema, vec![batch])?;
    // SAFETY: checked above.
    unsafe { columns_out.write(opened) };
    Ok(())
}

/// # Safety
/// As gds_arrow_stream().
pub(super) unsafe fn stream(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    convert::check_pointer(stream_out, "stream_out")?;
    // SAFETY: the caller's promise.
    let chosen = unsafe { Chosen::new(selection)? };
    let mut loaded = chosen.load(&arrow.reader, &arrow.context)?;
    let schema = loaded.schema().clone();
    export::schema(&schema)?;
    let next = Box::new(move || loaded.next_batch());
    let stream = arrow_stream::device(schema, arrow.context.clone(), next);
    // SAFETY: checked above.
    unsafe { stream_out.write(stream) };
    Ok(())
}

/// # Safety
/// As gds_arrow_host_stream().
pub(super) unsafe fn host_stream(
    arrow: *const gds_arrow_t,
    selection: *const gds_arrow_selection_t,
    stream_out: *mut ArrowArrayStream,
) -> Outcome {
    let arrow = handle::borrow(arrow, "arrow")?;
    convert::check_pointer(stream_out, "stream_out")?;
    on_host(&arrow.context)?;
    // SAFETY: the caller's promise.
    let chosen = unsafe { Chosen::new(selection)? };
    let mut loaded = chosen.load(&arrow.reader, &arrow.context)?;
    let schema = loaded.schema().clone();
    export::schema(&schema)?;
    let next = Box::new(move || loaded.next_batch());
    let stream = arrow_stream::host(schema, arrow.context.clone(), next);
    // SAFETY: checked above.
    unsafe { stream_out.write(stream) };
    Ok(())
}

/// # Safety
/// As gds_arrow_stream_fd().
pub(super) unsafe fn stream_fd(
    context: *const gds_context_t,
    fd: i32,
    selection: *const gds_arrow_selection_t,
    stream_out: *mut ArrowDeviceArrayStream,
) -> Outcome {
    let context = handle::borrow(context, "context")?;
    convert::check_pointer(stream_out, "stream_out")?;
    // SAFETY: the caller's promise.
    let chosen = unsafe { Chosen::new(selection)? };
    if chosen.first != 0 || chosen.count != 0 {
        let text =
            "first_batch and batch_count must be 0: a pipe is read from its start to its end";
        return Err(Failure::argument(text));
    }
    let pipe = std::fs::File::from(duplicate(fd)?);
    let mut pipe = ArrowPipe::open(&context, pipe, &format!("fd {fd}"), &chosen.load)?;
    if let Some(names) = &chosen.names {
        pipe.choose(names)?;
    }
    let schema = pipe.schema().clone();
    export::schema(&schema)?;
    let next = Box::new(move || pipe.next_batch());
    let stream = arrow_stream::device(schema, context.clone(), next);
    // SAFETY: checked above.
    unsafe { stream_out.write(stream) };
    Ok(())
}

/// The caller's descriptor, as one of our own.
fn duplicate(fd: i32) -> Outcome<std::os::fd::OwnedFd> {
    if fd < 0 {
        return Err(Failure::argument(format!(
            "fd is {fd}; give an open descriptor"
        )));
    }
    // SAFETY: it is used for the call alone; a closed one is answered with EBADF.
    let given = unsafe { BorrowedFd::borrow_raw(fd) };
    given.as_fd().try_clone_to_owned().map_err(|why| {
        let errno = why.raw_os_error().unwrap_or(libc::EBADF);
        Error::os(errno, format!("duplicate descriptor {fd}")).into()
    })
}

impl Chosen {
    /// # Safety
    /// A non-NULL selection is a struct of struct_size bytes whose pointers are valid.
    unsafe fn new(selection: *const gds_arrow_selection_t) -> Outcome<Self> {
        // SAFETY: the caller's promise.
        let given = unsafe { convert::read_optional(selection)? };
        if given.reserved != 0 || given.ahead > AHEAD_MAX {
            return Err(Failure::argument(format!(
                "reserved is {} and ahead is {}; they must be 0, and at most {AHEAD_MAX}",
                given.reserved, given.ahead
            )));
        }
        // SAFETY: the caller's promise.
        let names = unsafe {
            convert::array(
                given.columns,
                given.column_count,
                limits::SEGMENTS_MAX,
                "columns",
            )?
        };
        let names = names.iter().map(|name| {
            // SAFETY: the caller's promise.
            let name = unsafe { name_of(*name, "a name in columns")? };
            Ok(name.to_owned())
        });
        let names = names.collect::<Outcome<Vec<_>>>()?;
        let options = if given.options.is_null() {
            Options::default()
        } else {
            // SAFETY: the caller's promise.
            let options = unsafe { convert::read_struct(given.options)? };
            options_of(&options)?
        };
        let plain = LoadOptions::default();
        Ok(Self {
            names: (!given.columns.is_null()).then_some(names),
            first: given.first_batch,
            count: given.batch_count,
            load: LoadOptions {
                validate: switch("validate", given.validate)?,
                ahead: if given.ahead == 0 {
                    plain.ahead
                } else {
                    given.ahead as usize
                },
                options,
                ..plain
            },
            default_ahead: given.ahead == 0,
        })
    }

    fn columns(&self, reader: &ArrowReader) -> Outcome<Vec<usize>> {
        Ok(match &self.names {
            Some(names) => reader.columns_named(names)?,
            None => (0..reader.schema().fields().len()).collect(),
        })
    }

    /// What reads the columns of one batch, and which they are.
    fn plan(&self, reader: &ArrowReader, batch: u64) -> Outcome<(BatchPlan, Vec<usize>)> {
        if self.first != 0 || self.count != 0 {
            let text = "first_batch and batch_count must be 0: the batch has its own argument";
            return Err(Failure::argument(text));
        }
        let columns = self.columns(reader)?;
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        Ok((reader.plan(batch, &columns)?, columns))
    }

    fn load(&self, reader: &ArrowReader, context: &Context) -> Outcome<Batches> {
        let columns = self.columns(reader)?;
        let batches = self.batches(reader.batch_count())?;
        Ok(reader.load(context, &columns, batches, &self.load)?)
    }

    fn batches(&self, all: usize) -> Outcome<Range<usize>> {
        let end = match self.count {
            0 => Some(all as u64),
            count => self.first.checked_add(count),
        };
        let end = end.filter(|end| *end <= all as u64 && self.first <= *end);
        let end = end.ok_or_else(|| {
            let text = format!(
                "batches {} to {} of {all} were asked for",
                self.first,
                self.first.saturating_add(self.count)
            );
            Error::new(ErrorKind::OutOfRange, text)
        })?;
        Ok(self.first as usize..end as usize)
    }
}
