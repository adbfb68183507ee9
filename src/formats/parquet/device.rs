//! Decoding on the device: pages go there as they are in the file, and come out in the layout of
//! Arrow. For whole row groups, and what the kernels know; the rest, and devices without kernels,
//! are for `decode`. Lists and structs have their levels read first (`shape`, `nested`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use arrow_schema::FieldRef;

use super::chunks::Chunk;
use super::decode::field_of;
use super::failure::corrupted;
use super::nested::{self, Read};
use super::pages::PageKind;
use super::reader::Parquet;
use super::select::{Part, Root};
use super::shape::Shape;
use super::target::{Able, Target, codec, encoding, targets};
use crate::base::align_up;
use crate::engine::{
    self, Buffer, Compressed, Context, DecompressCodec, DecompressStatus, EncodedPage, MemoryKind,
    Options, PageChunk, PageColumn, ParquetConversion, ParquetEncoding, ParquetStatus,
};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Plan, Slice};

/// What buffers begin at multiples of, bytes.
const ALIGN: u64 = 64;

/// The memory of a column on the device, before its strings are known.
struct Output {
    memory: Buffer,
    validity: Option<(u64, u64)>,
    /// Values, or offsets of strings.
    values: (u64, u64),
}

/// Where a part of a page lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// In the decompressed memory, else in the encoded one.
    decompressed: bool,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A page for the kernels.
pub(super) struct Ready {
    /// Its chunk.
    pub(super) chunk: usize,
    /// Its number there.
    pub(super) page: usize,
    /// It is no dictionary.
    pub(super) is_data: bool,
    pub(super) data: Place,
    /// Levels of version 2: those of repetition first.
    levels: Option<Place>,
    encoding: ParquetEncoding,
    pub(super) values: u32,
    pub(super) first: u64,
    /// Values that are not null, once the levels of a list or struct are read.
    pub(super) present: Option<u32>,
}

/// A page to decompress: root, page, from, to.
type Work = (usize, u64, DecompressCodec, Place, Place);

/// Decodes what the device can. An array a root, `None` where the host must.
pub(super) fn decode(
    parquet: &Parquet,
    context: &Context,
    parts: &[Part],
    roots: &[Root],
    chunks: &[Chunk],
    able: Option<&Able>,
) -> Result<Vec<Option<(FieldRef, Array)>>> {
    let mut made: Vec<Option<(FieldRef, Array)>> = Vec::new();
    made.resize_with(roots.len(), || None);
    let Some(able) = able else {
        return Ok(made);
    };
    let mut left_out = HashSet::new();
    loop {
        let mut all = Vec::new();
        let mut shapes = HashMap::new();
        for root in (0..roots.len()).filter(|root| !left_out.contains(root)) {
            if let Some((own, shape)) = targets(parquet, able, parts, roots, chunks, root)? {
                all.extend(own);
                shapes.extend(shape.map(|shape| (root, shape)));
            }
        }
        let targets = all;
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
            shapes,
        };
        match job.run(targets)? {
            Outcome::Arrays(arrays) => {
                for (root, array) in arrays {
                    let field = field_of(parquet, parquet.arrow(), &roots[root])?;
                    made[root] = Some((field, array));
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
    /// Of each root.
    Arrays(Vec<(usize, Array)>),
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

/// What the device can do; none where it has no kernels for pages.
pub(super) fn able(context: &Context) -> Result<Option<Able>> {
    let none = context.decode_pages(&[], &[], &mut |_, _| Err(unexpected()));
    match none {
        Ok(_) => Able::of(context).map(Some),
        Err(error) if error.kind() == ErrorKind::NotSupported => Ok(None),
        Err(error) => Err(error),
    }
}

fn unexpected() -> Error {
    Error::new(
        ErrorKind::Internal,
        "bytes of strings for a column without strings",
    )
}

struct Job<'a> {
    path: &'a Path,
    context: &'a Context,
    parquet: &'a Parquet,
    parts: &'a [Part],
    chunks: &'a [Chunk],
    stride: usize,
    before: Vec<usize>,
    /// Of the roots that are lists or structs.
    shapes: HashMap<usize, Shape>,
}

impl Job<'_> {
    fn run(&self, mut targets: Vec<Target>) -> Result<Outcome> {
        let (encoded, starts) = self.send(&targets)?;
        let (mut ready, decompressed) = match self.decompress(&targets, &encoded, &starts)? {
            Ok(done) => done,
            Err(root) => return Ok(Outcome::Without(root)),
        };
        let part = |place: Place| {
            let buffer = if place.decompressed {
                &decompressed
            } else {
                &encoded
            };
            (buffer, place.offset, place.size)
        };
        let mut nested = match self.read_levels(&mut targets, &mut ready, &part)? {
            Read::Levels(nested) => nested,
            Read::Without(root) => return Ok(Outcome::Without(root)),
            Read::Bad(number, page, status, at) => {
                let page = &self.chunks[number].pages[page];
                let text = format!("levels of a page do not decode: {status:?}, {at} bytes in");
                return Err(corrupted(self.path, page.offset, &text));
            }
        };
        let outputs = targets.iter().map(|target| self.output(target));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let laid = nested.lay(self.context, &self.shapes, &targets, &|number| {
            let output = &outputs[number];
            output.validity.map(|(at, size)| (&output.memory, at, size))
        })?;
        let targets = &targets[..];
        let mut chunks: Vec<PageChunk<'_>> = Vec::new();
        // Which chunk each one for the kernels is, and which of its pages.
        let mut names: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        let mut ready = ready.iter().peekable();
        for (column, target) in targets.iter().enumerate() {
            for number in self.of(target) {
                let mut made = PageChunk {
                    column,
                    dictionary: None,
                    pages: Vec::new(),
                };
                let mut pages = Vec::new();
                while let Some(page) = ready.next_if(|page| page.chunk == number) {
                    let header = &self.chunks[number].pages[page.page].header;
                    if header.kind == PageKind::Dictionary {
                        made.dictionary = Some((part(page.data), header.values));
                        continue;
                    }
                    pages.push(page.page);
                    made.pages.push(EncodedPage {
                        data: part(page.data),
                        levels: page.levels.filter(|_| !target.nested).map(part),
                        has_levels: target.has_levels,
                        present: page.present,
                        encoding: page.encoding,
                        values: page.values,
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
        let mut leaves: BTreeMap<usize, Vec<Option<Array>>> = BTreeMap::new();
        for ((target, output), strings) in targets.iter().zip(outputs).zip(strings) {
            let array = self.array(target, output, strings)?;
            leaves.entry(target.root).or_default().push(Some(array));
        }
        let mut arrays = Vec::new();
        for (root, mut own) in leaves {
            let array = match self.shapes.get(&root) {
                Some(shape) => laid.build(self.context, root, &shape.root, &mut own)?,
                None => own.pop().flatten(),
            };
            let Some(array) = array else {
                return Ok(Outcome::Without(root));
            };
            arrays.push((root, array));
        }
        Ok(Outcome::Arrays(arrays))
    }

    /// Reads the levels of lists and structs.
    fn read_levels<'b>(
        &self,
        targets: &mut [Target],
        ready: &mut [Ready],
        part: &dyn Fn(Place) -> engine::Part<'b>,
    ) -> Result<Read<'b>> {
        let mut of = HashMap::new();
        for (number, target) in targets.iter().enumerate() {
            let chunks = self.of(target).zip(self.parts);
            of.extend(chunks.map(|(chunk, part)| (chunk, (number, part.count))));
        }
        let page = |ready: &Ready| {
            let header = &self.chunks[ready.chunk].pages[ready.page].header;
            let levels = ready.levels.map(|levels| {
                let reps = u64::from(header.repetition_size).min(levels.size);
                let (defs, size) = (levels.offset + reps, levels.size - reps);
                [
                    part(Place {
                        size: reps,
                        ..levels
                    }),
                    part(Place {
                        offset: defs,
                        size,
                        ..levels
                    }),
                ]
            });
            (part(ready.data), levels)
        };
        nested::read(self.context, &self.shapes, targets, ready, &of, &page)
    }

    fn is_string(&self, target: &Target) -> bool {
        target.conversion == ParquetConversion::Bytes
    }

    /// The chunks of a column, row group after row group.
    fn of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = usize> + 'a {
        let own = self.before[target.root] + target.leaf;
        (0..self.parts.len()).map(move |part| part * self.stride + own)
    }

    /// Puts the chunks into device memory as they are; where each begins. Those whose bytes were
    /// not read yet come from the file.
    fn send(&self, targets: &[Target]) -> Result<(Buffer, Vec<(usize, u64)>)> {
        let mut starts = Vec::new();
        let mut size = 0u64;
        let mut plan = Plan::new();
        for number in targets.iter().flat_map(|target| self.of(target)) {
            starts.push((number, size));
            let chunk = &self.chunks[number];
            let bytes = match &chunk.not_read {
                Some(range) => {
                    plan.push_at(range.start, range.end - range.start, size)?;
                    range.end - range.start
                }
                None => chunk.runs.first().map_or(0, |run| run.bytes.len() as u64),
            };
            let end = size.checked_add(bytes).and_then(|end| end.checked_add(8));
            size = end.and_then(|end| align_up(end, ALIGN)).unwrap_or(u64::MAX);
        }
        let buffer = self.context.alloc(MemoryKind::Device, size.max(ALIGN))?;
        let file = self.parquet.file().filter(|_| !plan.pieces().is_empty());
        let options = Options::default();
        let ticket = match file {
            Some(file) => Some(plan.submit(self.context, file, &buffer, 0, &options)?),
            None => None,
        };
        let uploads = starts.iter().filter_map(|(number, at)| {
            let run = self.chunks[*number].runs.first()?;
            Some((&run.bytes[..], &buffer, *at))
        });
        let uploaded = self.context.upload(&uploads.collect::<Vec<_>>());
        if let Some(ticket) = ticket {
            let done = ticket.wait(None)?;
            if done.bytes < plan.bytes() {
                let message = format!("read {}: it became shorter", self.path.display());
                return Err(Error::new(ErrorKind::FileChanged, message).with_path(self.path));
            }
        }
        uploaded.map(|()| (buffer, starts))
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
        let mut work: Vec<Work> = Vec::new();
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
                        PageKind::DataV2 => {
                            u64::from(header.definition_size) + u64::from(header.repetition_size)
                        }
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
                        is_data,
                        data,
                        levels,
                        encoding: encoding(header.encoding).unwrap_or(ParquetEncoding::Plain),
                        values: header.values,
                        first,
                        present: None,
                    });
                    if is_data {
                        first += u64::from(header.values);
                    }
                }
                if !target.nested && first - chunk_first != part.count {
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
            false => match self.context.decompress(&list) {
                // No memory for the library's work.
                Err(error) if error.kind() == ErrorKind::NotSupported => {
                    let of_library = |w: &&Work| !w.2.is_for_the_kernel();
                    let root = work.iter().find(of_library).map(|w| w.0);
                    return root.map(Err).ok_or(error);
                }
                done => done?,
            },
        };
        for ((root, offset, codec, ..), done) in work.iter().zip(done) {
            match done.status {
                DecompressStatus::Ok => {}
                // The library does not say what is wrong, and knows less than the host.
                _ if !codec.is_for_the_kernel() => return Ok(Err(*root)),
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
