//! Which columns the device decodes, and what becomes of their values.

use std::collections::HashSet;

use arrow_schema::DataType::{self, FixedSizeBinary};
use arrow_schema::{FieldRef, TimeUnit};
use parquet::basic::{Compression, Type};

use super::chunks::Chunk;
use super::decode::field_of;
use super::pages::{Page, PageKind};
use super::reader::Parquet;
use super::select::{Part, Root};
use super::shape::{self, Shape};
use crate::engine::{Context, DecompressCodec, ParquetConversion, ParquetEncoding, warps_pay};
use crate::error::Result;

/// A page of so many bytes takes a warp 3 ms at most.
const SHORT: u64 = 32 << 10;

/// What the device can do: it has kernels for pages, and decompresses some codecs.
#[derive(Debug, Clone, Default)]
pub(super) struct Able(Vec<DecompressCodec>);

impl Able {
    /// What the device of a context, which has kernels, decompresses.
    pub(super) fn of(context: &Context) -> Result<Self> {
        use DecompressCodec as C;
        let mut able = Self::default();
        // Not gzip, which only nvCOMP takes: a page may have several members, at which nvCOMP 5.1
        // breaks the device's context.
        for codec in [C::Snappy, C::Lz4Block, C::Zstd] {
            if context.can_decompress(codec)? {
                able.0.push(codec);
            }
        }
        Ok(able)
    }

    /// Without what is decompressed from end to end by a warp, LZ4, or by as much of nvCOMP,
    /// Zstandard, where these pages are few and long: threads of the host, which in the end take a
    /// column each, are done with theirs sooner.
    pub(super) fn for_chunks(mut self, parquet: &Parquet, chunks: &[Chunk], threads: u64) -> Self {
        let metadata = parquet.metadata();
        let of = |chunk: &Chunk| {
            let column = metadata.row_group(chunk.row_group).column(chunk.plan.leaf);
            codec(column.compression()).flatten()
        };
        for one in [DecompressCodec::Lz4Block, DecompressCodec::Zstd] {
            let own = || chunks.iter().filter(|chunk| of(chunk) == Some(one));
            let columns: HashSet<usize> = own().map(|chunk| chunk.plan.leaf).collect();
            let pages = own().flat_map(|chunk| &chunk.pages);
            let sizes = pages.map(|page| u64::from(page.header.uncompressed));
            let (total, longest) = sizes.fold((0, 0), |(t, l): (u64, u64), s| (t + s, l.max(s)));
            let threads = threads.min(columns.len() as u64);
            if longest > SHORT && !warps_pay(total, longest, threads) {
                self.0.retain(|able| *able != one);
            }
        }
        self
    }

    /// Whether pages that are compressed so are for the device.
    fn can(&self, compression: Compression) -> bool {
        let needed = codec(compression);
        needed.is_some_and(|codec| codec.is_none_or(|codec| self.0.contains(&codec)))
    }
}

/// A leaf that the device decodes: what its values become.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Which root.
    pub root: usize,
    /// Which of its leaves.
    pub leaf: usize,
    /// Whether it is inside of a list or struct. Its rows are known when its levels are, then.
    pub nested: bool,
    pub field: FieldRef,
    pub conversion: ParquetConversion,
    pub width_in: u32,
    pub width_out: u32,
    pub has_levels: bool,
    pub rows: u64,
}

/// What becomes of the leaves of a column on the device, and its shape when it is a list or struct.
/// `None` where the kernels do not know how.
pub(super) fn targets(
    parquet: &Parquet,
    able: &Able,
    parts: &[Part],
    roots: &[Root],
    chunks: &[Chunk],
    number: usize,
) -> Result<Option<(Vec<Target>, Option<Shape>)>> {
    let root = &roots[number];
    let mut own = chunks
        .iter()
        .filter(|chunk| root.leaves.contains(&chunk.plan.leaf));
    let known = |chunk| is_known(parquet, able, chunk);
    if !may_be(parquet, able, parts, root) || !own.all(known) {
        return Ok(None);
    }
    let rows = parts.iter().map(|part| part.count).sum();
    let schema = parquet.metadata().file_metadata().schema_descr();
    let field = field_of(parquet, parquet.arrow(), root)?;
    if !is_flat(parquet, root) {
        let Some(shape) = shape::shape(parquet, root, &field) else {
            return Ok(None);
        };
        let leaves = shape.leaves.iter().enumerate();
        let target = |(at, leaf): (usize, &shape::Leaf)| Target {
            root: number,
            leaf: at,
            nested: true,
            field: leaf.field.clone(),
            conversion: leaf.how.0,
            width_in: leaf.how.1,
            width_out: leaf.how.2,
            has_levels: leaf.may_be_null(),
            rows,
        };
        return Ok(Some((leaves.map(target).collect(), Some(shape))));
    }
    let descriptor = schema.column(root.leaves[0]);
    let length = u32::try_from(descriptor.type_length()).unwrap_or(0);
    let conversion = conversion(descriptor.physical_type(), length, field.data_type());
    let target = conversion.map(|(conversion, width_in, width_out)| Target {
        root: number,
        leaf: 0,
        nested: false,
        field,
        conversion,
        width_in,
        width_out,
        has_levels: descriptor.max_def_level() == 1,
        rows,
    });
    Ok(target.map(|target| (vec![target], None)))
}

/// Whether a column is neither a list nor a struct.
fn is_flat(parquet: &Parquet, root: &Root) -> bool {
    let [leaf] = root.leaves[..] else {
        return false;
    };
    let schema = parquet.metadata().file_metadata().schema_descr();
    let descriptor = schema.column(leaf);
    descriptor.max_rep_level() == 0
        && descriptor.max_def_level() <= 1
        && descriptor.path().parts().len() == 1
}

/// Whether the kernels may know how, before a page was seen.
pub(super) fn may_be(parquet: &Parquet, able: &Able, parts: &[Part], root: &Root) -> bool {
    let metadata = parquet.metadata();
    let goes = |part: &Part| {
        let group = metadata.row_group(part.row_group);
        let mut leaves = root.leaves.iter();
        part.rows.is_none() && leaves.all(|leaf| able.can(group.column(*leaf).compression()))
    };
    parts.iter().all(goes)
}

/// From how values are stored to what Arrow has: how, and the bytes of both.
pub(super) fn conversion(
    stored: Type,
    length: u32,
    wanted: &DataType,
) -> Option<(ParquetConversion, u32, u32)> {
    use DataType as D;
    use ParquetConversion::{BigEndian, Bits, Bytes, Copy, Int96, Widen};
    let made = match (stored, wanted) {
        (Type::BOOLEAN, D::Boolean) => (Bits, 0, 0),
        (Type::INT32, D::Int8 | D::UInt8) => (Copy, 4, 1),
        (Type::INT32, D::Int16 | D::UInt16) => (Copy, 4, 2),
        (Type::INT32, D::Int32 | D::UInt32 | D::Date32 | D::Time32(_)) => (Copy, 4, 4),
        (Type::INT32, D::Decimal128(..)) => (Widen, 4, 16),
        (Type::FLOAT, D::Float32) => (Copy, 4, 4),
        (Type::DOUBLE, D::Float64) => (Copy, 8, 8),
        (Type::INT64, D::Int64 | D::UInt64 | D::Timestamp(..) | D::Time64(_) | D::Duration(_)) => {
            (Copy, 8, 8)
        }
        (Type::INT64, D::Decimal128(..)) => (Widen, 8, 16),
        (Type::INT96, D::Timestamp(TimeUnit::Nanosecond, _)) => (Int96, 12, 8),
        (Type::BYTE_ARRAY, D::Utf8 | D::Binary) => (Bytes, 0, 0),
        (Type::FIXED_LEN_BYTE_ARRAY, FixedSizeBinary(size)) if *size > 0 => {
            ((*size).unsigned_abs() == length).then_some((Copy, length, length))?
        }
        (Type::FIXED_LEN_BYTE_ARRAY, D::Float16) if length == 2 => (Copy, 2, 2),
        (Type::FIXED_LEN_BYTE_ARRAY, D::Decimal128(..)) if (1..=16).contains(&length) => {
            (BigEndian, length, 16)
        }
        (Type::FIXED_LEN_BYTE_ARRAY, D::Decimal256(..)) if (1..=32).contains(&length) => {
            (BigEndian, length, 32)
        }
        _ => return None,
    };
    Some(made)
}

/// Whether all pages of a chunk are for the kernels.
fn is_known(parquet: &Parquet, able: &Able, chunk: &Chunk) -> bool {
    let column = parquet
        .metadata()
        .row_group(chunk.row_group)
        .column(chunk.plan.leaf);
    let dictionary = chunk
        .pages
        .iter()
        .position(|p| p.header.kind == PageKind::Dictionary);
    let descriptor = column.column_descr();
    let (max_def, max_rep) = (descriptor.max_def_level(), descriptor.max_rep_level());
    let page = |page: &Page| {
        let header = &page.header;
        match header.kind {
            PageKind::Data => {
                // Levels in runs, or none.
                let defs = max_def == 0 || header.definition_encoding == 3;
                let reps = max_rep == 0 || header.repetition_encoding == 3;
                encoding(header.encoding).is_some() && defs && reps
            }
            PageKind::DataV2 => {
                encoding(header.encoding).is_some()
                    && (max_rep > 0) == (header.repetition_size > 0)
                    && (max_def > 0) == (header.definition_size > 0)
            }
            PageKind::Dictionary => matches!(header.encoding, 0 | 2),
            PageKind::Index => false,
        }
    };
    able.can(column.compression())
        && chunk.plan.pages.is_none()
        && chunk.runs.len() == 1
        && dictionary.is_none_or(|at| at == 0)
        && chunk.pages.iter().all(page)
}

/// How pages are compressed: `Some(None)` when they are not, `None` when no device takes them
/// apart.
pub(super) fn codec(compression: Compression) -> Option<Option<DecompressCodec>> {
    match compression {
        Compression::UNCOMPRESSED => Some(None),
        Compression::SNAPPY => Some(Some(DecompressCodec::Snappy)),
        Compression::LZ4_RAW => Some(Some(DecompressCodec::Lz4Block)),
        Compression::ZSTD(_) => Some(Some(DecompressCodec::Zstd)),
        Compression::GZIP(_) => Some(Some(DecompressCodec::Gzip)),
        _ => None,
    }
}

/// The kernels' word for an encoding of the format.
pub(super) fn encoding(number: i32) -> Option<ParquetEncoding> {
    Some(match number {
        0 => ParquetEncoding::Plain,
        2 | 8 => ParquetEncoding::Dictionary,
        3 => ParquetEncoding::Rle,
        5 => ParquetEncoding::DeltaBinaryPacked,
        6 => ParquetEncoding::DeltaLengthByteArray,
        7 => ParquetEncoding::DeltaByteArray,
        9 => ParquetEncoding::ByteStreamSplit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_they_fit() {
        use ParquetConversion::{BigEndian, Copy, Widen};
        let cases = [
            (Type::INT32, 0, DataType::UInt8, Some((Copy, 4, 1))),
            (
                Type::INT64,
                0,
                DataType::Decimal128(18, 2),
                Some((Widen, 8, 16)),
            ),
            (
                Type::FIXED_LEN_BYTE_ARRAY,
                9,
                DataType::Decimal128(20, 2),
                Some((BigEndian, 9, 16)),
            ),
            (
                Type::FIXED_LEN_BYTE_ARRAY,
                17,
                DataType::Decimal128(38, 2),
                None,
            ),
            (Type::FIXED_LEN_BYTE_ARRAY, 5, FixedSizeBinary(4), None),
            (Type::INT32, 0, DataType::Int64, None),
        ];
        for (stored, length, wanted, expected) in cases {
            assert_eq!(conversion(stored, length, &wanted), expected, "{wanted}");
        }
    }
}
