//! What the host says to the kernels that work on memory of the device: descriptors whose layout is
//! shared with `kernels/*.cu`.

/// One range of memory whose chunks `Device::crc32c_chunks` looks at. The layout is shared with
/// `kernels/crc32c.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CrcRange {
    /// Address, any alignment.
    pub address: u64,
    /// Bytes. The last chunk holds what is left.
    pub size: u64,
    /// Number of its first chunk, counted through all ranges.
    pub first: u64,
}

/// How CRCs compare with what was expected. The layout is shared with `kernels/crc32c.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CrcVerdict {
    /// Smallest number of a chunk that differs, `u64::MAX` for none.
    pub first_bad: u64,
    /// Chunks that differ.
    pub bad: u64,
}

impl CrcVerdict {
    /// What a verdict is before the device looks.
    pub const NONE_BAD: Self = Self {
        first_bad: u64::MAX,
        bad: 0,
    };
}

/// What `Device::crc32c_chunks` has to do. The layout is shared with `kernels/crc32c.cu`. All
/// addresses are those of memory that the device can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CrcWork {
    /// Address of `range_count` of [`CrcRange`], in the order of `first`, each with as many chunks
    /// as lie between its `first` and the next one's.
    pub ranges: u64,
    /// How many.
    pub range_count: u64,
    /// Chunks of all ranges.
    pub chunk_count: u64,
    /// Bytes of a chunk: a power of two, `limits::CRC_CHUNK_MIN` to `limits::CRC_CHUNK_MAX`.
    pub chunk_bytes: u64,
    /// Address of a u32 a chunk that takes its CRC, or 0.
    pub crcs: u64,
    /// Address of a u32 a chunk that its CRC should equal, or 0.
    pub expected: u64,
    /// With `expected`: address of a [`CrcVerdict`] in device memory that is `NONE_BAD` before.
    pub verdict: u64,
}

/// How a chunk is compressed. The numbers are those of `kernels/decompress.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DecompressCodec {
    /// One LZ4 block without a length.
    Lz4Block = 1,
    /// One LZ4 frame.
    Lz4Frame = 2,
    /// Snappy without framing.
    Snappy = 3,
    /// One Zstandard frame. Not for the kernel: for `Device::library_decompress`.
    Zstd = 4,
    /// One gzip member. Not for the kernel: for `Device::library_decompress`.
    Gzip = 5,
}

impl DecompressCodec {
    /// Whether the kernel takes it apart; else the vendor's library may.
    #[must_use]
    pub const fn is_for_the_kernel(self) -> bool {
        !matches!(self, Self::Zstd | Self::Gzip)
    }
}

/// What became of a chunk. The numbers are those of `kernels/decompress.cu`, which says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DecompressStatus {
    /// All came out.
    Ok = 0,
    /// The input ends in the middle of something.
    Truncated = 1,
    /// A match reaches before the first byte.
    Offset = 2,
    /// There is more output than was promised.
    TooLong = 3,
    /// There is less output than was promised.
    TooShort = 4,
    /// The header is none.
    Header = 5,
    /// Right, but not for the kernel.
    Unsupported = 6,
    /// There is input behind the end.
    Trailing = 7,
    /// Damaged, or not for the vendor's library, which does not say. The kernel never answers so.
    Refused = 8,
}

/// One chunk that `Device::decompress_chunks` takes apart. The layout is shared with
/// `kernels/decompress.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DecompressChunk {
    /// Address of the compressed bytes, any alignment.
    pub from: u64,
    /// How many.
    pub from_size: u64,
    /// Address of the output, any alignment.
    pub to: u64,
    /// Bytes that must come out.
    pub to_size: u64,
    /// A [`DecompressCodec`].
    pub codec: u32,
    /// Written: a [`DecompressStatus`].
    pub status: u32,
    /// Written: where in the input it ended, or went wrong.
    pub at: u64,
}

/// Codec of a chunk of Snappy that the kernel shall take apart, for `at` parts of
/// [`SNAPPY_BLOCK`] bytes from number `status` on. The parts have a codec that is none before; when
/// one does not come out well, nothing is known of the chunk.
pub const SNAPPY_WHOLE: u32 = 16;
/// Bytes that those who compress with Snappy do for themselves.
pub const SNAPPY_BLOCK: u64 = 65536;

/// What `Device::decompress_chunks` has to do. The layout is shared with `kernels/decompress.cu`.
/// All addresses are those of memory that the device can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DecompressWork {
    /// Address of [`DecompressChunk`]s.
    pub chunks: u64,
    /// How many.
    pub count: u64,
    /// Address of two u64 that are 0 before.
    pub next: u64,
    /// Chunks that come first, whose codec is [`SNAPPY_WHOLE`].
    pub wholes: u64,
}

/// How the values of a page are encoded, as the kernels tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ParquetEncoding {
    /// One after the other.
    Plain = 0,
    /// A width, then indices into the dictionary.
    Dictionary = 1,
    /// Booleans in runs.
    Rle = 2,
    /// Packed differences.
    DeltaBinaryPacked = 3,
    /// Packed lengths, then all bytes.
    DeltaLengthByteArray = 4,
    /// First bytes of all values, then second bytes, and so on.
    ByteStreamSplit = 5,
    /// Packed lengths of what is shared with the string before, packed lengths of the rest, and
    /// all rests.
    DeltaByteArray = 6,
}

/// From what stands in a page to what stands in a column; `kernels/parquet.cuh` says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ParquetConversion {
    /// The bytes as they are, or the lower ones of them.
    Copy = 0,
    /// Little-endian integers to wider ones.
    Widen = 1,
    /// Big-endian integers to little-endian ones that are as wide or wider.
    BigEndian = 2,
    /// INT96 to nanoseconds since 1970.
    Int96 = 3,
    /// One bit each.
    Bits = 4,
    /// Offsets and bytes.
    Bytes = 5,
}

/// What became of a page; `kernels/parquet.cuh` says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ParquetStatus {
    /// All is there.
    Ok = 0,
    /// The page ends in the middle of something.
    Truncated = 1,
    /// A run of no values, or a width that cannot be.
    Run = 2,
    /// An index that the dictionary has not.
    Index = 3,
    /// The header of packed deltas is none.
    Deltas = 4,
    /// A length that cannot be.
    Length = 5,
    /// Right, but not for the kernels.
    Unsupported = 6,
}

/// One decompressed page. The layout and the meaning are those of `gds_parquet_page` in
/// `kernels/parquet.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ParquetPage {
    /// Address of its bytes.
    pub data: u64,
    /// How many.
    pub data_size: u64,
    /// Address of the definition levels of version 2, or 0.
    pub levels: u64,
    /// Their bytes.
    pub levels_size: u64,
    /// Which column of the work.
    pub column: u32,
    /// A [`ParquetEncoding`].
    pub encoding: u32,
    /// Values, nulls included.
    pub values: u32,
    /// 1 where there are definition levels; 2 where they were read before.
    pub has_levels: u32,
    /// Place of its first value in the column.
    pub first: u64,
    /// Address of 8 bytes a value, of a bit for bits, or 0 where the encoding needs none.
    pub scratch: u64,
    /// Bytes of the column's strings before it.
    pub bytes_before: u64,
    /// Written: bytes of its strings.
    pub bytes: u64,
    /// Written: values that are not null.
    pub present: u32,
    /// Written: a [`ParquetStatus`].
    pub status: u32,
    /// Written: where in the page it went wrong.
    pub at: u64,
}

/// Where the values of pages go. The layout and the meaning are those of `gds_parquet_column` in
/// `kernels/parquet.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ParquetColumn {
    /// Address of the values, or of the bytes of strings.
    pub values: u64,
    /// Address of the validity bitmap, zero before and in whole words; 0 without nulls.
    pub validity: u64,
    /// Address of the 32-bit offsets of strings, or 0.
    pub offsets: u64,
    /// Address of the dictionary's values, or of a string's place and size each.
    pub dictionary: u64,
    /// How many.
    pub dictionary_count: u64,
    /// Address of the bytes of the dictionary's strings.
    pub dictionary_bytes: u64,
    /// A [`ParquetConversion`].
    pub conversion: u32,
    /// Bytes of a value in the page.
    pub width_in: u32,
    /// Bytes of a value in the column.
    pub width_out: u32,
    /// 0.
    pub reserved: u32,
}

/// The step of decoding pages; a launch each, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParquetStep {
    /// Validity, and how many values there are.
    Levels,
    /// What must be read from its beginning.
    Expand,
    /// Values that have a width to their places.
    Values,
    /// Strings to their places.
    Gather,
    /// Of columns inside of lists and structs, before all others: how many values each array on the
    /// way has. `pages` are [`ParquetLevels`] and `columns` [`ParquetNest`].
    Count,
    /// As `Count`, once these were added up: validity and offsets of each of these arrays.
    Place,
}

/// An array on the way to a leaf. The layout and the meaning are those of `gds_parquet_node` in
/// `kernels/parquet_nested.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ParquetNode {
    /// Address of the validity bitmap, zero before and in whole words; or 0.
    pub validity: u64,
    /// Address of the 32-bit offsets of a list, or 0.
    pub offsets: u64,
    /// A value begins where the definition level is at least this,
    pub slot_def: u32,
    /// and the repetition level at most this.
    pub slot_rep: u32,
    /// It is valid from this definition level on.
    pub valid_def: u32,
    /// 1 where the next node has its elements.
    pub is_list: u32,
}

/// The way to a leaf. The layout and the meaning are those of `gds_parquet_nest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ParquetNest {
    /// Address of [`ParquetNode`]s, from the root to the leaf.
    pub nodes: u64,
    /// How many.
    pub node_count: u32,
    /// Highest definition level, at most 255.
    pub max_def: u32,
    /// Highest repetition level, at most 255.
    pub max_rep: u32,
    /// 0.
    pub reserved: u32,
}

/// The levels of a page. The layout and the meaning are those of `gds_parquet_nested_page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ParquetLevels {
    /// Address of its bytes: in version 1 the levels first.
    pub data: u64,
    /// How many.
    pub data_size: u64,
    /// Address of the repetition levels of version 2.
    pub reps: u64,
    /// Their bytes.
    pub reps_size: u64,
    /// Address of the definition levels of version 2.
    pub defs: u64,
    /// Their bytes.
    pub defs_size: u64,
    /// Address of two bytes an entry.
    pub levels: u64,
    /// Address of a u64 a node: how many values the page has, then how many are before it.
    pub places: u64,
    /// Which way of the work.
    pub nest: u32,
    /// Entries: values, nulls and empty lists.
    pub entries: u32,
    /// 1 for a page of version 2.
    pub version_2: u32,
    /// Written: values of the leaf that are not null.
    pub present: u32,
    /// Written: a [`ParquetStatus`].
    pub status: u32,
    /// Written: the first repetition level.
    pub first_rep: u32,
    /// Written: where in the page it went wrong, or where the values begin.
    pub at: u64,
}

/// What `Device::parquet_pages` has to do. The layout is shared with `kernels/parquet.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ParquetWork {
    /// Address of [`ParquetPage`]s.
    pub pages: u64,
    /// How many.
    pub page_count: u64,
    /// Address of [`ParquetColumn`]s.
    pub columns: u64,
    /// How many.
    pub column_count: u64,
    /// Address of a u64 that is 0 before.
    pub next: u64,
    /// Parts of a page, each of which a warp does for itself, where a step has such; 0 as 1.
    pub parts: u64,
}
