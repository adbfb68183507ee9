//! Decoding on the device: pages go there as they are in the file, and come out in the layout of
//! Arrow. For columns outside of lists and structs, whole row groups, and what the kernels know;
//! the rest, and devices without kernels, are for `decode`.

use std::collections::HashSet;
use std::path::Path;

use arrow_schema::DataType::{self, FixedSizeBinary};
use arrow_schema::{FieldRef, TimeUnit};
use parquet::basic::{Compression, Type};

use super::chunks::Chunk;
use super::decode::field_of;
use super::failure::corrupted;
use super::pages::{Page, PageKind};
use super::reader::Parquet;
use super::select::{Part, Root};
use crate::base::align_up;
use crate::engine::{
    Buffer, Compressed, Context, DecompressCodec, DecompressStatus, EncodedPage, MemoryKind,
    PageChunk, PageColumn, ParquetConversion, ParquetEncoding, ParquetStatus,
};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Slice};

/// What buffers begin at multiples of, bytes.
const ALIGN: u64 = 64;

/// A column that the device decodes: what its values become.
struct Target {
    /// Which root.
    root: usize,
    field: FieldRef,
    conversion: ParquetConversion,
    width_in: u32,
    width_out: u32,
    has_levels: bool,
    rows: u64,
}

/// The memory of a column on the device, before its strings are known.
struct Output {
    memory: Buffer,
    validity: Option<(u64, u64)>,
    /// Values, or offsets of strings.
    values: (u64, u64),
}

/// Where a part of a page lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In the decompressed memory, else in the encoded one.
    decompressed: bool,
    offset: u64,
    size: u64,
}

/// A page for the kernels.
struct Ready {
    /// Its chunk.
    chunk: usize,
    /// Its number there.
    page: usize,
    data: Place,
    levels: Option<Place>,
    encoding: ParquetEncoding,
    first: u64,
}

/// Decodes what the device can. An array a root, `None` where the host must.
pub(super) fn decode(
    parquet: &Parquet,
    context: &Context,
    parts: &[Part],
    roots: &[Root],
    chunks: &[Chunk],
) -> Result<Vec<Option<(FieldRef, Array)>>> {
    let mut made: Vec<Option<(FieldRef, Array)>> = Vec::new();
    made.resize_with(roots.len(), || None);
    if !has_kernels(context)? {
        return Ok(made);
    }
    let mut left_out = HashSet::new();
    loop {
        let mut targets = Vec::new();
        for root in (0..roots.len()).filter(|root| !left_out.contains(root)) {
            targets.extend(target(parquet, parts, roots, chunks, root)?);
        }
        if targets.is_empty() {
            return Ok(made);
        }
        let job = Job {
            path: parquet.source().path(),
            context,
            chunks,
            // Chunks stand part by part, the leaves of all roots in each.
            stride: roots.iter().map(|root| root.leaves.len()).sum(),
            before: before(roots),
            parts,
            parquet,
        };
        match job.run(&targets)? {
            Outcome::Arrays(arrays) => {
                for (target, array) in targets.into_iter().zip(arrays) {
                    made[target.root] = Some((target.field, array));
                }
                return Ok(made);
            }
            // Right, but not for the kernels: that column is for the host.
            Outcome::Without(root) => {
                left_out.insert(root);
            }
        }
    }
}

enum Outcome {
    Arrays(Vec<Array>),
    Without(usize),
}

/// Leaves of the roots before each.
fn before(roots: &[Root]) -> Vec<usize> {
    let add = |sum: &mut usize, root: &Root| {
        let own = *sum;
        *sum += root.leaves.len();
        Some(own)
    };
    roots.iter().scan(0, add).collect()
}

fn has_kernels(context: &Context) -> Result<bool> {
    let none = context.decode_pages(&[], &[], &mut |_, _| Err(unexpected()));
    match none {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotSupported => Ok(false),
        Err(error) => Err(error),
    }
}

fn unexpected() -> Error {
    Error::new(
        ErrorKind::Internal,
        "bytes of strings for a column without strings",
    )
}

/// What a column's values become on the device. `None` where the kernels do not know how.
fn target(
    parquet: &Parquet,
    parts: &[Part],
    roots: &[Root],
    chunks: &[Chunk],
    root: usize,
) -> Result<Option<Target>> {
    let [leaf] = roots[root].leaves[..] else {
        return Ok(None);
    };
    let descriptor = parquet
        .metadata()
        .file_metadata()
        .schema_descr()
        .column(leaf);
    let is_flat = descriptor.max_rep_level() == 0
        && descriptor.max_def_level() <= 1
        && descriptor.path().parts().len() == 1;
    let own = chunks.iter().filter(|chunk| chunk.plan.leaf == leaf);
    let is_whole = parts.iter().all(|part| part.rows.is_none());
    if !is_flat || !is_whole || !own.clone().all(|chunk| is_known(parquet, chunk)) {
        return Ok(None);
    }
    let field = field_of(parquet, parquet.arrow(), &roots[root])?;
    let length = u32::try_from(descriptor.type_length()).unwrap_or(0);
    let conversion = conversion(descriptor.physical_type(), length, field.data_type());
    Ok(conversion.map(|(conversion, width_in, width_out)| Target {
        root,
        field,
        conversion,
        width_in,
        width_out,
        has_levels: descriptor.max_def_level() == 1,
        rows: parts.iter().map(|part| part.count).sum(),
    }))
}

/// From how values are stored to what Arrow has: how, and the bytes of both.
fn conversion(
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
fn is_known(parquet: &Parquet, chunk: &Chunk) -> bool {
    let column = parquet
        .metadata()
        .row_group(chunk.row_group)
        .column(chunk.plan.leaf);
    let codec = codec(column.compression());
    let dictionary = chunk
        .pages
        .iter()
        .position(|p| p.header.kind == PageKind::Dictionary);
    let page = |page: &Page| {
        let header = &page.header;
        match header.kind {
            PageKind::Data => {
                // Levels in runs, or none.
                let levels = column.column_descr().max_def_level() == 0;
                encoding(header.encoding).is_some() && (levels || header.definition_encoding == 3)
            }
            PageKind::DataV2 => {
                let levels = column.column_descr().max_def_level() == 1;
                encoding(header.encoding).is_some()
                    && header.repetition_size == 0
                    && levels == (header.definition_size > 0)
            }
            PageKind::Dictionary => matches!(header.encoding, 0 | 2),
            PageKind::Index => false,
        }
    };
    codec.is_some()
        && chunk.plan.pages.is_none()
        && chunk.runs.len() == 1
        && dictionary.is_none_or(|at| at == 0)
        && chunk.pages.iter().all(page)
}

/// How pages are compressed: `Some(None)` when they are not, `None` when the device cannot.
fn codec(compression: Compression) -> Option<Option<DecompressCodec>> {
    match compression {
        Compression::UNCOMPRESSED => Some(None),
        Compression::SNAPPY => Some(Some(DecompressCodec::Snappy)),
        Compression::LZ4_RAW => Some(Some(DecompressCodec::Lz4Block)),
        _ => None,
    }
}

/// The kernels' word for an encoding of the format.
fn encoding(number: i32) -> Option<ParquetEncoding> {
    Some(match number {
        0 => ParquetEncoding::Plain,
        2 | 8 => ParquetEncoding::Dictionary,
        3 => ParquetEncoding::Rle,
        5 => ParquetEncoding::DeltaBinaryPacked,
        6 => ParquetEncoding::DeltaLengthByteArray,
        9 => ParquetEncoding::ByteStreamSplit,
        _ => return None,
    })
}

struct Job<'a> {
    path: &'a Path,
    context: &'a Context,
    parquet: &'a Parquet,
    parts: &'a [Part],
    chunks: &'a [Chunk],
    stride: usize,
    before: Vec<usize>,
}

impl Job<'_> {
    fn run(&self, targets: &[Target]) -> Result<Outcome> {
        let (encoded, starts) = self.send(targets)?;
        let (ready, decompressed) = match self.decompress(targets, &encoded, &starts)? {
            Ok(done) => done,
            Err(root) => return Ok(Outcome::Without(root)),
        };
        let outputs = targets.iter().map(|target| self.output(target));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let part = |place: Place| {
            let buffer = if place.decompressed {
                &decompressed
            } else {
                &encoded
            };
            (buffer, place.offset, place.size)
        };
        let mut chunks: Vec<PageChunk<'_>> = Vec::new();
        // Which chunk each one for the kernels is, and which of its pages.
        let mut names: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        for (column, target) in targets.iter().enumerate() {
            for number in self.of(target) {
                let own = ready.iter().filter(|r| r.chunk == number);
                let mut made = PageChunk {
                    column,
                    dictionary: None,
                    pages: Vec::new(),
                };
                let mut pages = Vec::new();
                for page in own {
                    let header = &self.chunks[number].pages[page.page].header;
                    if header.kind == PageKind::Dictionary {
                        made.dictionary = Some((part(page.data), header.values));
                        continue;
                    }
                    pages.push(page.page);
                    made.pages.push(EncodedPage {
                        data: part(page.data),
                        levels: page.levels.map(part),
                        has_levels: target.has_levels,
                        encoding: page.encoding,
                        values: header.values,
                        first: page.first,
                    });
                }
                names.push((target.root, number, pages));
                chunks.push(made);
            }
        }
        let columns = targets
            .iter()
            .zip(&outputs)
            .map(|(target, output)| PageColumn {
                conversion: target.conversion,
                width_in: target.width_in,
                width_out: target.width_out,
                rows: target.rows,
                validity: output.validity.map(|(at, size)| (&output.memory, at, size)),
                values: self.is_string(target).then_some(()).map_or(
                    Some((&output.memory, output.values.0, output.values.1)),
                    |()| None,
                ),
                offsets: self.is_string(target).then_some((
                    &output.memory,
                    output.values.0,
                    output.values.1,
                )),
            });
        let columns: Vec<_> = columns.collect();
        let mut strings: Vec<Option<(Buffer, u64)>> = vec![None; targets.len()];
        let bad = self
            .context
            .decode_pages(&columns, &chunks, &mut |column, size| {
                let space = align_up(size, ALIGN).unwrap_or(size).max(ALIGN);
                let buffer = self.context.alloc(MemoryKind::Device, space)?;
                strings[column] = Some((buffer.clone(), size));
                Ok((buffer, 0))
            });
        let bad = match bad {
            // Strings beyond offsets of 32 bits.
            Err(error) if error.kind() == ErrorKind::OutOfRange => {
                let root = targets.iter().find(|t| self.is_string(t)).map(|t| t.root);
                return root.map(Outcome::Without).ok_or(error);
            }
            other => other?,
        };
        if let Some(bad) = bad {
            let (root, number, pages) = &names[bad.chunk];
            if bad.status == ParquetStatus::Unsupported {
                return Ok(Outcome::Without(*root));
            }
            let page = bad.page.and_then(|page| pages.get(page)).copied();
            let page = &self.chunks[*number].pages[page.unwrap_or(0)];
            let text = format!(
                "a page does not decode: {:?}, {} bytes in",
                bad.status, bad.at
            );
            return Err(corrupted(self.path, page.offset, &text));
        }
        let zipped = targets.iter().zip(outputs).zip(strings);
        let arrays = zipped.map(|((target, output), strings)| self.array(target, output, strings));
        Ok(Outcome::Arrays(arrays.collect::<Result<Vec<_>>>()?))
    }

    fn is_string(&self, target: &Target) -> bool {
        target.conversion == ParquetConversion::Bytes
    }

    /// The chunks of a column, row group after row group.
    fn of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = usize> + 'a {
        (0..self.parts.len()).map(|part| part * self.stride + self.before[target.root])
    }

    /// Puts the chunks into device memory as they are; where each begins.
    fn send(&self, targets: &[Target]) -> Result<(Buffer, Vec<(usize, u64)>)> {
        let mut starts = Vec::new();
        let mut size = 0u64;
        for number in targets.iter().flat_map(|target| self.of(target)) {
            starts.push((number, size));
            let bytes = self.chunks[number]
                .runs
                .first()
                .map_or(0, |run| run.bytes.len());
            size = align_up(size + bytes as u64 + 8, ALIGN).unwrap_or(u64::MAX);
        }
        let buffer = self.context.alloc(MemoryKind::Device, size.max(ALIGN))?;
        let uploads = starts.iter().filter_map(|(number, at)| {
            let run = self.chunks[*number].runs.first()?;
            Some((&run.bytes[..], &buffer, *at))
        });
        self.context.upload(&uploads.collect::<Vec<_>>())?;
        Ok((buffer, starts))
    }

    /// Decompresses pages where they are. Or the root of a column that the device cannot.
    fn decompress(
        &self,
        targets: &[Target],
        encoded: &Buffer,
        starts: &[(usize, u64)],
    ) -> Result<std::result::Result<(Vec<Ready>, Buffer), usize>> {
        let mut ready = Vec::new();
        let mut size = 0u64;
        // Pages to decompress: root, page, from, to.
        let mut work: Vec<(usize, u64, DecompressCodec, Place, Place)> = Vec::new();
        let mut starts = starts.iter();
        for target in targets {
            let mut first = 0;
            for part in self.parts {
                let Some((number, start)) = starts.next() else {
                    break;
                };
                let chunk = &self.chunks[*number];
                let column = self.parquet.metadata().row_group(chunk.row_group);
                let codec = codec(column.column(chunk.plan.leaf).compression()).flatten();
                let chunk_first = first;
                for (at, page) in chunk.pages.iter().enumerate() {
                    let header = &page.header;
                    let levels_size = match header.kind {
                        PageKind::DataV2 => u64::from(header.definition_size),
                        _ => 0,
                    };
                    let body = start + page.body_at;
                    let here = Place {
                        decompressed: false,
                        offset: body + levels_size,
                        size: u64::from(header.size) - levels_size,
                    };
                    let levels = (levels_size > 0).then_some(Place {
                        decompressed: false,
                        offset: body,
                        size: levels_size,
                    });
                    let uncompressed = u64::from(header.uncompressed) - levels_size;
                    let data = match codec.filter(|_| header.is_compressed) {
                        Some(codec) if uncompressed > 0 => {
                            let to = Place {
                                decompressed: true,
                                offset: size,
                                size: uncompressed,
                            };
                            size = align_up(size + uncompressed + 4, 8).unwrap_or(u64::MAX);
                            work.push((target.root, page.offset, codec, here, to));
                            to
                        }
                        Some(_) => Place { size: 0, ..here },
                        None => here,
                    };
                    let is_data = header.kind != PageKind::Dictionary;
                    ready.push(Ready {
                        chunk: *number,
                        page: at,
                        data,
                        levels,
                        encoding: encoding(header.encoding).unwrap_or(ParquetEncoding::Plain),
                        first,
                    });
                    if is_data {
                        first += u64::from(header.values);
                    }
                }
                if first - chunk_first != part.count {
                    let found = first - chunk_first;
                    let text = format!("a column has {found} rows where {} must be", part.count);
                    let offset = chunk.runs.first().map_or(0, |run| run.offset);
                    return Err(corrupted(self.path, offset, &text));
                }
            }
        }
        let memory = self.context.alloc(MemoryKind::Device, size.max(ALIGN))?;
        let list = work.iter().map(|(_, _, codec, from, to)| Compressed {
            codec: *codec,
            from: encoded,
            from_offset: from.offset,
            from_size: from.size,
            to: &memory,
            to_offset: to.offset,
            to_size: to.size,
        });
        let list: Vec<_> = list.collect();
        let done = match list.is_empty() {
            true => Vec::new(),
            false => self.context.decompress(&list)?,
        };
        for ((root, offset, ..), done) in work.iter().zip(done) {
            match done.status {
                DecompressStatus::Ok => {}
                DecompressStatus::Unsupported => return Ok(Err(*root)),
                other => {
                    let text = format!(
                        "a page does not decompress: {other:?}, {} bytes in",
                        done.at
                    );
                    return Err(corrupted(self.path, *offset, &text));
                }
            }
        }
        Ok(Ok((ready, memory)))
    }

    /// Memory for a column: validity and bits are zero.
    fn output(&self, target: &Target) -> Result<Output> {
        let words = 4 * target.rows.div_ceil(32);
        let padded = |size: u64| align_up(size, ALIGN).unwrap_or(u64::MAX);
        let too_long = || {
            let text = format!(
                "decode {} rows: that passes what can be addressed",
                target.rows
            );
            Error::new(ErrorKind::OutOfRange, text)
        };
        let values = match target.conversion {
            ParquetConversion::Bits => words,
            ParquetConversion::Bytes => 4 * (target.rows + 1),
            _ => target
                .rows
                .checked_mul(u64::from(target.width_out))
                .ok_or_else(too_long)?,
        };
        let validity = if target.has_levels { padded(words) } else { 0 };
        let size = validity.checked_add(padded(values)).ok_or_else(too_long)?;
        let memory = self.context.alloc(MemoryKind::Device, size.max(ALIGN))?;
        let is_bits = target.conversion == ParquetConversion::Bits;
        let zero = if is_bits { size } else { validity };
        let zeroes = vec![0; usize::try_from(zero).unwrap_or(0)];
        let none_yet = [0; 4];
        let mut uploads = vec![(&zeroes[..], &memory, 0)];
        if self.is_string(target) {
            // Without rows no page writes the offset that is there all the same.
            uploads.push((&none_yet[..], &memory, validity));
        }
        self.context.upload(&uploads)?;
        Ok(Output {
            validity: target.has_levels.then_some((0, words)),
            values: (validity, values),
            memory,
        })
    }

    fn array(
        &self,
        target: &Target,
        output: Output,
        strings: Option<(Buffer, u64)>,
    ) -> Result<Array> {
        let mut nulls = 0;
        if let Some((at, size)) = output.validity {
            let mut bits = vec![0; usize::try_from(size).unwrap_or(0)];
            self.context.download(&output.memory, at, &mut bits)?;
            let ones: u64 = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
            nulls = target.rows.saturating_sub(ones);
        }
        let slice = |(offset, size): (u64, u64)| Slice {
            buffer: output.memory.clone(),
            offset,
            size,
        };
        let mut buffers = vec![
            output.validity.filter(|_| nulls > 0).map(slice),
            Some(slice(output.values)),
        ];
        if self.is_string(target) {
            let (buffer, size) = match strings {
                Some(there) => there,
                None => (self.context.alloc(MemoryKind::Device, ALIGN)?, 0),
            };
            let offset = 0;
            buffers.push(Some(Slice {
                buffer,
                offset,
                size,
            }));
        }
        Ok(Array {
            data_type: target.field.data_type().clone(),
            len: target.rows,
            null_count: Some(nulls),
            offset: 0,
            buffers,
            children: Vec::new(),
            dictionary: None,
        })
    }
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
