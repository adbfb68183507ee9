//! Parquet files as the header shows them.

use core::ffi::{c_char, c_void};

/// A Parquet file: its footer, read once. May be used from many threads at once. Made by
/// gds_parquet_open(), given back to gds_parquet_close().
#[derive(Debug)]
pub struct gds_parquet_t {
    _private: [u8; 0],
}

/// A key of an encrypted column.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_key_t {
    /// The column by its name in the file ("a.list.element"), NUL-terminated. NULL: the
    /// key is for what has this key metadata in the file, the footer too.
    pub column: *const c_char,
    /// Key metadata, when column is NULL.
    pub metadata: *const c_void,
    /// Bytes of it.
    pub metadata_bytes: u64,
    /// The key.
    pub key: *const c_void,
    /// Bytes of it: 16 or 32.
    pub key_bytes: u64,
}

/// Keys of an encrypted file. Start from GDS_PARQUET_KEYS_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_keys_t {
    /// sizeof(gds_parquet_keys_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// The key of the footer. NULL: it is among `keys`.
    pub footer_key: *const c_void,
    /// Bytes of it: 16 or 32.
    pub footer_key_bytes: u64,
    /// Keys of columns. NULL: none.
    pub keys: *const gds_parquet_key_t,
    /// How many.
    pub key_count: u64,
    /// What identifies the file, where the file itself does not hold it (AAD prefix).
    /// NULL: it does.
    pub aad_prefix: *const c_void,
    /// Bytes of it.
    pub aad_prefix_bytes: u64,
}

/// What a file says of itself. Start from GDS_PARQUET_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_info_t {
    /// sizeof(gds_parquet_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// Columns that hold values: the leaves of the schema.
    pub columns: u32,
    /// Rows in all.
    pub rows: u64,
    /// Row groups.
    pub row_groups: u64,
    /// Bytes of the footer, the length and the magic included.
    pub footer_bytes: u64,
    /// Pairs of texts that the writer added.
    pub key_values: u64,
    /// Version that the writer wrote.
    pub version: i32,
    /// 1 when the footer is encrypted, else 0.
    pub is_footer_encrypted: u32,
    /// Who wrote it; "" when it does not say. Valid until gds_parquet_close().
    pub created_by: *const c_char,
}

/// A column of the schema. Start from GDS_PARQUET_COLUMN_INIT. Texts are valid until
/// gds_parquet_close().
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_column_t {
    /// sizeof(gds_parquet_column_t) as the caller compiled it.
    pub struct_size: u32,
    /// Bytes of a value of fixed length, else 0.
    pub type_length: u32,
    /// Number of its top-level column.
    pub root: u32,
    /// Highest definition level: 0 when nothing can be null.
    pub max_definition: u32,
    /// Highest repetition level: 0 when it is in no list.
    pub max_repetition: u32,
    /// Zero.
    pub reserved: u32,
    /// Its name, with the names of its groups before it: "a.list.element".
    pub name: *const c_char,
    /// How values are stored: "INT64", "BYTE_ARRAY", ...
    pub physical: *const c_char,
    /// What they mean, or "": "String", "Decimal(10, 2)", ...
    pub logical: *const c_char,
}

/// A row group. Start from GDS_PARQUET_ROW_GROUP_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_row_group_t {
    /// sizeof(gds_parquet_row_group_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Rows.
    pub rows: u64,
    /// Rows of the groups before it.
    pub first_row: u64,
    /// Bytes of all columns before compression.
    pub bytes: u64,
    /// Bytes of all columns in the file.
    pub compressed_bytes: u64,
}

/// gds_parquet_chunk_t: it has a dictionary.
pub const GDS_PARQUET_CHUNK_DICTIONARY: u32 = 1;
/// gds_parquet_chunk_t: where its pages lie is known.
pub const GDS_PARQUET_CHUNK_OFFSET_INDEX: u32 = 2;
/// gds_parquet_chunk_t: smallest and largest values of its pages are known.
pub const GDS_PARQUET_CHUNK_COLUMN_INDEX: u32 = 4;
/// gds_parquet_chunk_t: it has a bloom filter.
pub const GDS_PARQUET_CHUNK_BLOOM_FILTER: u32 = 8;
/// gds_parquet_chunk_t: it is encrypted.
pub const GDS_PARQUET_CHUNK_ENCRYPTED: u32 = 16;

/// A column of a row group. Start from GDS_PARQUET_CHUNK_INIT. Texts are valid until
/// gds_parquet_close().
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_chunk_t {
    /// sizeof(gds_parquet_chunk_t) as the caller compiled it.
    pub struct_size: u32,
    /// GDS_PARQUET_CHUNK_*.
    pub flags: u32,
    /// Where its pages begin in the file.
    pub file_offset: u64,
    /// Bytes in the file.
    pub compressed_bytes: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// Values, nulls included.
    pub values: u64,
    /// Nulls; UINT64_MAX where the writer did not count.
    pub nulls: u64,
    /// Different values; UINT64_MAX where the writer did not count.
    pub distinct: u64,
    /// How pages are compressed: "SNAPPY", ...
    pub codec: *const c_char,
    /// How values and levels are encoded, with commas between: "PLAIN,RLE".
    pub encodings: *const c_char,
    /// Smallest value as text; NULL when it is not known.
    pub min: *const c_char,
    /// Largest value as text; NULL when it is not known.
    pub max: *const c_char,
}

/// How a column compares with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_parquet_compare_t {
    /// Equal.
    GDS_PARQUET_EQUAL = 1,
    /// Less.
    GDS_PARQUET_LESS = 2,
    /// Less or equal.
    GDS_PARQUET_LESS_OR_EQUAL = 3,
    /// Greater.
    GDS_PARQUET_GREATER = 4,
    /// Greater or equal.
    GDS_PARQUET_GREATER_OR_EQUAL = 5,
}

/// Which field of a condition holds its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_parquet_value_t {
    /// integer: of integers and booleans; of decimals without their point, of times.
    GDS_PARQUET_INTEGER = 1,
    /// The bits of integer, without a sign.
    GDS_PARQUET_UNSIGNED = 2,
    /// number: of floats and doubles.
    GDS_PARQUET_NUMBER = 3,
    /// bytes: of strings and bytes.
    GDS_PARQUET_BYTES = 4,
}

/// A condition: what statistics, page indexes and bloom filters rule out is left out. What
/// is loaded may still not fulfil it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_condition_t {
    /// The column by its name in the file, NUL-terminated.
    pub column: *const c_char,
    /// A gds_parquet_compare_t.
    pub compare: i32,
    /// A gds_parquet_value_t.
    pub kind: i32,
    /// The value, when kind says so.
    pub integer: i64,
    /// The value, when kind says so.
    pub number: f64,
    /// The value, when kind says so.
    pub bytes: *const c_void,
    /// How many bytes.
    pub byte_count: u64,
}

/// Rows that follow each other.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_rows_t {
    /// The first one, counted through the file from 0.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What to load. Start from GDS_PARQUET_SELECTION_INIT or gds_parquet_selection_init().
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_selection_t {
    /// sizeof(gds_parquet_selection_t) as the caller compiled it. Set by the initializers.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Names of columns, each NUL-terminated, in the order wanted; "a.b" is the field b of
    /// a. NULL: all columns.
    pub columns: *const *const c_char,
    /// How many names. 0 with NULL.
    pub column_count: u64,
    /// Row groups by number from 0, in the order wanted. NULL: all of them.
    pub row_groups: *const u64,
    /// How many. 0 with NULL.
    pub row_group_count: u64,
    /// Rows, ascending, without overlap. NULL: all of them.
    pub rows: *const gds_parquet_rows_t,
    /// How many ranges. 0 with NULL.
    pub row_range_count: u64,
    /// Conditions that all must hold. NULL: none.
    pub conditions: *const gds_parquet_condition_t,
    /// How many. 0 with NULL.
    pub condition_count: u64,
    /// Bytes of host memory that decoding may take, and of device memory that texts may
    /// take which the device decodes. 0: half of the host memory that is free, and what the
    /// device has.
    pub memory_limit: u64,
}

/// What a selection would read. Start from GDS_PARQUET_OUTLINE_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_parquet_outline_t {
    /// sizeof(gds_parquet_outline_t) as the caller compiled it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Rows that are left.
    pub rows: u64,
    /// Row groups that are left.
    pub row_groups: u64,
    /// Bytes of pages that would be read.
    pub read_bytes: u64,
}
