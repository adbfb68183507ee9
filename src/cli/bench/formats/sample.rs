//! Files of known contents in each format: written, loaded into device memory, and compared with
//! what was written.

use std::fs::{self, File as StdFile};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::output::{Outcome, os_error};
use crate::cli::scratch::{mix, random_bytes};
use crate::device::MemoryKind;
use crate::engine::{Buffer, Context};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::elf::{Elf, ElfPlan, Encoding, Select};
use crate::formats::tensor::{Layout, Tensors};
use crate::formats::{FileSource, ReadOptions};
use crate::io::OpenMode;

/// Bytes compared at once.
const WINDOW: u64 = 4 << 20;
/// Bytes of a tensor.
const TENSOR: u64 = 16 << 20;
/// Rows of a batch or row group.
#[cfg(feature = "arrow")]
const GROUP: u64 = 1 << 20;
/// Bytes of a row: two columns of 8.
#[cfg(feature = "arrow")]
const ROW: u64 = 16;

/// What is written and loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    /// Tensors of random bytes.
    Safetensors,
    /// The sections of this program.
    Elf,
    /// Two columns of numbers, not compressed.
    #[cfg(feature = "arrow")]
    Arrow,
    /// The same columns, compressed with Snappy.
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Kind {
    /// Those that this build has.
    pub(in crate::cli) const ALL: &[Self] = &[
        Self::Safetensors,
        Self::Elf,
        #[cfg(feature = "arrow")]
        Self::Arrow,
        #[cfg(feature = "parquet")]
        Self::Parquet,
    ];

    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Elf => "ELF",
            #[cfg(feature = "arrow")]
            Self::Arrow => "Arrow",
            #[cfg(feature = "parquet")]
            Self::Parquet => "Parquet",
        }
    }
}

/// A file of one kind. One that was written is removed when this drops.
#[derive(Debug)]
pub(in crate::cli) struct Sample {
    kind: Kind,
    path: PathBuf,
    is_ours: bool,
}

/// What was loaded.
pub(in crate::cli) struct Loaded {
    /// Bytes in device memory that were wanted.
    pub(in crate::cli) bytes: u64,
    parts: Vec<Part>,
}

/// Bytes in device memory, and what they have to be.
struct Part {
    buffer: Buffer,
    offset: u64,
    size: u64,
    is: Content,
}

enum Content {
    /// Bytes of the file from this offset on.
    File(u64),
    /// Values of a column from this row on.
    #[cfg(feature = "arrow")]
    Column(Column, u64),
}

/// A column of the files of columns.
#[cfg(feature = "arrow")]
#[derive(Clone, Copy)]
enum Column {
    Number,
    Price,
}

#[cfg(feature = "arrow")]
impl Column {
    const ALL: [Self; 2] = [Self::Number, Self::Price];

    /// The bytes of a row's value.
    fn value(self, row: u64) -> [u8; 8] {
        match self {
            Self::Number => Self::number(row).to_le_bytes(),
            Self::Price => Self::price(row).to_le_bytes(),
        }
    }

    fn number(row: u64) -> i64 {
        (mix(row) >> 24) as i64
    }

    fn price(row: u64) -> f64 {
        (mix(row) % 10_000) as f64 / 100.0
    }
}

impl Sample {
    /// Writes a file of about `size` bytes of values to a folder, and waits for the disk. Of ELF
    /// it takes the program itself.
    pub(in crate::cli) fn write(kind: Kind, folder: &Path, size: u64) -> Outcome<Self> {
        if kind == Kind::Elf {
            let path = std::env::current_exe().map_err(|e| os_error(&e, "find this program"))?;
            return Ok(Self {
                kind,
                path,
                is_ours: false,
            });
        }
        let name = format!("gds-scratch-{}.{}", std::process::id(), kind.name());
        let path = folder.join(name.to_lowercase());
        let what = format!("write {}", path.display());
        let mut file = StdFile::create_new(&path).map_err(|e| os_error(&e, &what))?;
        // From here on the file is ours to remove.
        let sample = Self {
            kind,
            path,
            is_ours: true,
        };
        match kind {
            Kind::Safetensors => tensors(&mut file, size).map_err(|e| os_error(&e, &what))?,
            Kind::Elf => {}
            #[cfg(feature = "arrow")]
            Kind::Arrow => arrow_file(&mut file, size).map_err(|e| foreign(&what, &e))?,
            #[cfg(feature = "parquet")]
            Kind::Parquet => parquet_file(&mut file, size).map_err(|e| foreign(&what, &e))?,
        }
        file.sync_all().map_err(|e| os_error(&e, &what))?;
        Ok(sample)
    }

    pub(in crate::cli) fn kind(&self) -> Kind {
        self.kind
    }

    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file and loads all of it into new device memory.
    pub(in crate::cli) fn load(&self, context: &Context) -> Result<Loaded> {
        let file = context.open_file(&self.path, OpenMode::read_only())?;
        let options = ReadOptions::default();
        let mut loaded = Loaded {
            bytes: 0,
            parts: Vec::new(),
        };
        match self.kind {
            Kind::Safetensors => {
                let model = Tensors::open(&file)?;
                let (load, placed) = model.plan(&model.all(), Layout::default())?;
                let buffer = context.alloc(MemoryKind::Device, load.size())?;
                load.read(&buffer, 0, &options)?;
                for place in placed {
                    let is = Content::File(model.tensors()[place.tensor].file_offset);
                    loaded.push(&buffer, place.offset, place.size, is);
                }
            }
            Kind::Elf => {
                let elf = Elf::open(Arc::new(FileSource::new(&file)?))?;
                let plan = ElfPlan::new(&elf, Select::Stored, u64::MAX)?;
                let buffer = context.alloc(MemoryKind::Device, plan.size())?;
                plan.read(&file, &buffer, 0, &options)?;
                for part in plan.parts() {
                    // What was compressed carries a checksum, which was compared.
                    if part.encoding == Encoding::Plain {
                        let is = Content::File(part.file_offset);
                        loaded.push(&buffer, part.to_offset, part.size, is);
                    }
                }
            }
            #[cfg(feature = "arrow")]
            Kind::Arrow => {
                use crate::formats::arrow::{ArrowReader, LoadOptions};
                let reader = ArrowReader::open(&file)?;
                let columns: Vec<usize> = (0..reader.schema().fields().len()).collect();
                let every = 0..reader.batch_count();
                let mut row = 0;
                for batch in reader.load(context, &columns, every, &LoadOptions::default())? {
                    row += loaded.batch(&batch?, row);
                }
            }
            #[cfg(feature = "parquet")]
            Kind::Parquet => {
                use crate::formats::parquet::{Parquet, Selection};
                let parquet = Parquet::open(&file, None)?;
                loaded.batch(&parquet.load(context, &Selection::default())?, 0);
            }
        }
        Ok(loaded)
    }

    /// Compares what is in device memory with what was written.
    pub(in crate::cli) fn verify(&self, context: &Context, loaded: &Loaded) -> Outcome {
        let what = format!("read {}", self.path.display());
        let plain = StdFile::open(&self.path).map_err(|e| os_error(&e, &what))?;
        let (mut want, mut got) = (Vec::new(), Vec::new());
        for part in &loaded.parts {
            let mut at = 0;
            while at < part.size {
                let size = WINDOW.min(part.size - at);
                want.resize(size as usize, 0);
                got.resize(size as usize, 0);
                match part.is {
                    Content::File(offset) => plain
                        .read_exact_at(&mut want, offset + at)
                        .map_err(|e| os_error(&e, &what))?,
                    #[cfg(feature = "arrow")]
                    Content::Column(column, row) => {
                        for (bytes, row) in want.chunks_mut(8).zip(row + at / 8..) {
                            bytes.copy_from_slice(&column.value(row)[..bytes.len()]);
                        }
                    }
                }
                context.download(&part.buffer, part.offset + at, &mut got)?;
                if want != got {
                    return Err(self.wrong("bytes in device memory differ").into());
                }
                at += size;
            }
        }
        Ok(())
    }

    fn wrong(&self, how: &str) -> Error {
        let text = format!(
            "verify {}: {how} from what was written; the machine or this program is broken",
            self.path.display()
        );
        Error::new(ErrorKind::Corrupted, text).with_path(&self.path)
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Loaded {
    fn push(&mut self, buffer: &Buffer, offset: u64, size: u64, is: Content) {
        self.bytes += size;
        self.parts.push(Part {
            buffer: buffer.clone(),
            offset,
            size,
            is,
        });
    }

    /// The values of the two columns from `row` on; how many rows they are.
    #[cfg(feature = "arrow")]
    fn batch(&mut self, batch: &crate::formats::Batch, row: u64) -> u64 {
        for (array, column) in batch.columns.iter().zip(Column::ALL) {
            // The first buffer says which values are null: none is.
            if let Some(Some(values)) = array.buffers.get(1) {
                let size = values.size.min(batch.rows * 8);
                let is = Content::Column(column, row);
                self.push(&values.buffer, values.offset, size, is);
            }
        }
        batch.rows
    }
}

/// A safetensors file of tensors of random bytes.
fn tensors(file: &mut StdFile, size: u64) -> std::io::Result<()> {
    let size = size / 8 * 8;
    let mut header = serde_json::Map::new();
    let mut begin = 0;
    while begin < size {
        let end = size.min(begin + TENSOR);
        let tensor = serde_json::json!({
            "dtype": "I64", "shape": [(end - begin) / 8], "data_offsets": [begin, end],
        });
        header.insert(format!("tensor.{:05}", begin / TENSOR), tensor);
        begin = end;
    }
    let mut text = serde_json::Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().wrapping_neg() % 8));
    file.write_all(&(text.len() as u64).to_le_bytes())?;
    file.write_all(text.as_bytes())?;
    let mut block = random_bytes(TENSOR as usize);
    for number in 0..size.div_ceil(TENSOR) {
        // Each tensor differs from the others.
        block[..8].copy_from_slice(&mix(number).to_le_bytes());
        let part = TENSOR.min(size - number * TENSOR);
        file.write_all(&block[..part as usize])?;
    }
    Ok(())
}

/// The rows of a file of columns, group after group.
#[cfg(feature = "arrow")]
fn groups(size: u64) -> impl Iterator<Item = arrow_array::RecordBatch> {
    use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
    let rows = (size / ROW).max(1);
    (0..rows.div_ceil(GROUP)).filter_map(move |group| {
        let range = group * GROUP..rows.min((group + 1) * GROUP);
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(
            range.clone().map(Column::number),
        ));
        let prices: ArrayRef = Arc::new(Float64Array::from_iter_values(range.map(Column::price)));
        // Columns of one length and no nulls: always a batch.
        RecordBatch::try_from_iter([("number", numbers), ("price", prices)]).ok()
    })
}

#[cfg(feature = "arrow")]
fn arrow_file(file: &mut StdFile, size: u64) -> std::result::Result<(), arrow_schema::ArrowError> {
    let mut groups = groups(size).peekable();
    let Some(schema) = groups.peek().map(arrow_array::RecordBatch::schema) else {
        return Ok(());
    };
    let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &schema)?;
    groups.try_for_each(|group| writer.write(&group))?;
    writer.finish()
}

#[cfg(feature = "parquet")]
fn parquet_file(
    file: &mut StdFile,
    size: u64,
) -> std::result::Result<(), parquet::errors::ParquetError> {
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    let mut groups = groups(size).peekable();
    let Some(schema) = groups.peek().map(arrow_array::RecordBatch::schema) else {
        return Ok(());
    };
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties))?;
    groups.try_for_each(|group| writer.write(&group))?;
    writer.close().map(|_| ())
}

/// What a writer that is not ours says.
#[cfg(feature = "arrow")]
fn foreign(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("{what}: {error}"))
}
