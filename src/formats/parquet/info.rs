//! What a file says of itself, in words and numbers for people and for callers of C.

use std::fmt::Write as _;

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

/// A file.
#[derive(Debug, Clone)]
pub struct FileInfo {
    /// Rows in all.
    pub rows: u64,
    /// Row groups.
    pub row_groups: usize,
    /// Columns that hold values: the leaves of the schema.
    pub columns: usize,
    /// The version that the writer wrote.
    pub version: i32,
    /// Who wrote it.
    pub created_by: Option<String>,
    /// The footer is encrypted.
    pub is_footer_encrypted: bool,
    /// Bytes of the footer, the length and the magic included.
    pub footer_bytes: u64,
    /// What the writer added.
    pub key_values: Vec<(String, Option<String>)>,
}

/// A column of the schema.
#[derive(Debug, Clone)]
pub struct ColumnInfo {
    /// Its name, with the names of its groups before it: "a.list.element".
    pub name: String,
    /// How values are stored: "INT64", "BYTE_ARRAY", ...
    pub physical: String,
    /// What they mean, or nothing: "String", "Decimal(10, 2)", ...
    pub logical: String,
    /// Bytes of a value of a fixed length, else 0.
    pub type_length: u32,
    /// Its top-level column.
    pub root: usize,
    /// Highest definition level: 0 when nothing can be null.
    pub max_definition: u32,
    /// Highest repetition level: 0 when it is in no list.
    pub max_repetition: u32,
}

/// A row group.
#[derive(Debug, Clone)]
pub struct RowGroupInfo {
    /// Rows.
    pub rows: u64,
    /// Rows of the groups before it.
    pub first_row: u64,
    /// Bytes of all columns before compression.
    pub bytes: u64,
    /// Bytes of all columns in the file.
    pub compressed_bytes: u64,
}

/// A column of a row group.
#[derive(Debug, Clone)]
pub struct ChunkInfo {
    /// Where its pages begin in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub compressed_bytes: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// Values, nulls included.
    pub values: u64,
    /// How pages are compressed: "SNAPPY", ...
    pub codec: String,
    /// How values and levels are encoded.
    pub encodings: Vec<String>,
    /// It has a dictionary page.
    pub has_dictionary: bool,
    /// Where its pages lie is known (offset index).
    pub has_offset_index: bool,
    /// Smallest and largest values of pages are known (column index).
    pub has_column_index: bool,
    /// It has a bloom filter.
    pub has_bloom_filter: bool,
    /// It is encrypted.
    pub is_encrypted: bool,
    /// Nulls, where the writer counted.
    pub nulls: Option<u64>,
    /// Different values, where the writer counted.
    pub distinct: Option<u64>,
    /// Smallest value, as text.
    pub min: Option<String>,
    /// Largest value, as text.
    pub max: Option<String>,
}

/// Longest text of a value in statistics, characters.
const TEXT_MAX: usize = 64;

pub(super) fn not_negative(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn file(metadata: &ParquetMetaData, encrypted: bool, footer_bytes: u64) -> FileInfo {
    let file = metadata.file_metadata();
    let pairs = file.key_value_metadata().into_iter().flatten();
    FileInfo {
        rows: not_negative(file.num_rows()),
        row_groups: metadata.num_row_groups(),
        columns: file.schema_descr().num_columns(),
        version: file.version(),
        created_by: file.created_by().map(str::to_owned),
        is_footer_encrypted: encrypted,
        footer_bytes,
        key_values: pairs.map(|p| (p.key.clone(), p.value.clone())).collect(),
    }
}

pub(super) fn column(descriptor: &ColumnDescriptor, root: usize) -> ColumnInfo {
    let logical = match (descriptor.logical_type_ref(), descriptor.converted_type()) {
        (Some(logical), _) => logical_name(logical),
        (None, ConvertedType::NONE) => String::new(),
        (None, converted) => converted.to_string(),
    };
    let fixed = descriptor.physical_type() == Type::FIXED_LEN_BYTE_ARRAY;
    ColumnInfo {
        name: descriptor.path().string(),
        physical: descriptor.physical_type().to_string(),
        logical,
        type_length: match fixed {
            true => u32::try_from(descriptor.type_length()).unwrap_or(0),
            false => 0,
        },
        root,
        max_definition: descriptor.max_def_level().unsigned_abs().into(),
        max_repetition: descriptor.max_rep_level().unsigned_abs().into(),
    }
}

fn logical_name(logical: &LogicalType) -> String {
    match logical {
        LogicalType::Decimal(d) => format!("Decimal({}, {})", d.precision, d.scale),
        LogicalType::Integer(i) => {
            let sign = if i.is_signed { "Int" } else { "UInt" };
            format!("{sign}{}", i.bit_width)
        }
        LogicalType::Timestamp(t) => format!("Timestamp({:?})", t.unit),
        LogicalType::Time(t) => format!("Time({:?})", t.unit),
        other => {
            let text = format!("{other:?}");
            let end = text.find(['(', '{', ' ']).unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}

pub(super) fn chunk(column: &ColumnChunkMetaData, offset: u64) -> ChunkInfo {
    let statistics = column.statistics();
    let text = |bytes: Option<&[u8]>| bytes.map(|b| value_text(column, b));
    ChunkInfo {
        offset,
        compressed_bytes: not_negative(column.compressed_size()),
        bytes: not_negative(column.uncompressed_size()),
        values: not_negative(column.num_values()),
        codec: codec_name(column),
        encodings: column.encodings().map(|e| e.to_string()).collect(),
        has_dictionary: column.dictionary_page_offset().is_some(),
        has_offset_index: column.offset_index_offset().is_some(),
        has_column_index: column.column_index_offset().is_some(),
        has_bloom_filter: column.bloom_filter_offset().is_some(),
        is_encrypted: column.crypto_metadata().is_some(),
        nulls: statistics.and_then(Statistics::null_count_opt),
        distinct: statistics.and_then(Statistics::distinct_count_opt),
        min: text(statistics.and_then(Statistics::min_bytes_opt)),
        max: text(statistics.and_then(Statistics::max_bytes_opt)),
    }
}

fn codec_name(column: &ColumnChunkMetaData) -> String {
    let text = column.compression().to_string();
    let end = text.find('(').unwrap_or(text.len());
    text[..end].to_owned()
}

/// A value of statistics as text.
fn value_text(column: &ColumnChunkMetaData, bytes: &[u8]) -> String {
    let descriptor = column.column_descr();
    let four = bytes.try_into().ok();
    let eight = bytes.try_into().ok();
    let unsigned = is_unsigned(descriptor);
    let text = match (descriptor.physical_type(), four, eight) {
        (Type::BOOLEAN, ..) => bytes.first().map(|b| (*b != 0).to_string()),
        (Type::INT32, Some(four), _) if unsigned => Some(u32::from_le_bytes(four).to_string()),
        (Type::INT32, Some(four), _) => Some(i32::from_le_bytes(four).to_string()),
        (Type::FLOAT, Some(four), _) => Some(f32::from_le_bytes(four).to_string()),
        (Type::INT64, _, Some(eight)) if unsigned => Some(u64::from_le_bytes(eight).to_string()),
        (Type::INT64, _, Some(eight)) => Some(i64::from_le_bytes(eight).to_string()),
        (Type::DOUBLE, _, Some(eight)) => Some(f64::from_le_bytes(eight).to_string()),
        (Type::BYTE_ARRAY, ..) if is_text(descriptor) => Some(
            String::from_utf8_lossy(bytes)
                .chars()
                .take(TEXT_MAX)
                .collect(),
        ),
        _ => None,
    };
    text.unwrap_or_else(|| {
        let mut hex = String::from("0x");
        for byte in bytes.iter().take(TEXT_MAX / 2) {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    })
}

fn is_text(column: &ColumnDescriptor) -> bool {
    use LogicalType::{Enum, Json, String};
    matches!(column.logical_type_ref(), Some(String | Enum | Json))
        || matches!(
            column.converted_type(),
            ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON
        )
}

/// Whether integers of the column have no sign.
pub(super) fn is_unsigned(column: &ColumnDescriptor) -> bool {
    use ConvertedType::{UINT_8, UINT_16, UINT_32, UINT_64};
    match column.logical_type_ref() {
        Some(LogicalType::Integer(integer)) => !integer.is_signed,
        _ => matches!(
            column.converted_type(),
            UINT_8 | UINT_16 | UINT_32 | UINT_64
        ),
    }
}
