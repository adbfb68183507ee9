//! Decoding on the device: pages go there as they are in the file, and come out in the layout of
//! Arrow. For whole row groups, and what the kernels know; the rest, and devices without kernels,
//! are for `decode`. Lists and structs have their levels read first (`shape`, `nested`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use arrow_schema::FieldRef;

use super::chunks::{Chunk, beyond};
use super::decode::field_of;
use super::failure::corrupted;
use super::lots::{LotSize, Rooms, Sent, lots, one};
use super::output::Output;
use super::pages::PageKind;
use super::reader::Parquet;
use super::select::{Part, Root};
use super::shape::Shape;
use super::target::{Able, Target, codec, encoding, targets};
use crate::base::align_up;
use crate::engine::{
    self, Buffer, Compressed, Context, DecompressCodec, DecompressStatus, EncodedPage, MemoryKind,
    Options, PageChunk, PageColumn, PageMemory, ParquetConversion, ParquetEncoding, ParquetStatus,
};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Plan, work};

/// What buffers begin at multiples of, bytes.
const ALIGN: u64 = 64;

/// Where a part of a page lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// In the decompressed memory, else in the encoded one.
    pub(super) decompressed: bool,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Place {
    /// In these buffers: the encoded bytes and the decompressed ones.
    pub(super) fn of<'a>(
        self,
        (encoded, decompressed): (&'a Buffer, &'a Buffer),
    ) -> engine::Part<'a> {
        let buffer = if self.decompressed {
            decompressed
        } else {
            encoded
        };
        (buffer, self.offset, self.size)
    }
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
    pub(super) levels: Option<Place>,
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
    texts_max: u64,
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
            texts_max,
        };
        let (nested, flat) = targets
            .into_iter()
            .partition(|target: &Target| target.nested);
        let mut without = None;
        for some in [flat, nested]
            .into_iter()
            .filter(|some: &Vec<Target>| !some.is_empty())
        {
            match job.run(some)? {
                Outcome::Arrays(arrays) => {
                    for (root, array) in arrays {
                        let field = field_of(parquet, parquet.arrow(), &roots[root])?;
                        made[root] = Some((field, array));
                    }
                }
                // Right, but not for the kernels: that column is for the host.
                Outcome::Without(root) => {
                    without = Some(root);
                    break;
                }
            }
        }
        match without {
            None => return Ok(made),
            Some(root) => {
                made.iter_mut().for_each(|made| *made = None);
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

pub(super) struct Job<'a> {
    pub(super) path: &'a Path,
    pub(super) context: &'a Context,
    pub(super) parquet: &'a Parquet,
    pub(super) parts: &'a [Part],
    pub(super) chunks: &'a [Chunk],
    pub(super) stride: usize,
    pub(super) before: Vec<usize>,
    /// Of the roots that are lists or structs.
    pub(super) shapes: HashMap<usize, Shape>,
    /// Most bytes of texts: those of a dictionary or of shared prefixes can be longer than
    /// anything in the file.
    texts_max: u64,
}

/// What became of a lot: `None`, or the root of a column that is not for the device.
type Given = Option<usize>;

/// What stays from lot to lot.
struct Going {
    memory: PageMemory,
    /// Bytes of the strings of each target, lot after lot.
    strings: Vec<Vec<(Buffer, u64)>>,
}

impl Job<'_> {
    fn run(&self, mut targets: Vec<Target>) -> Result<Outcome> {
        // Levels of lists and structs tell how long arrays are: all of them have to be there first.
        let is_nested = targets.iter().any(|target| target.nested);
        let mut outputs = match is_nested {
            true => Vec::new(),
            false => self.outputs(&targets)?,
        };
        let size = |part: usize| {
            let own = targets.iter().map(|target| self.number(target, part));
            own.map(|number| LotSize::of(&self.chunks[number])).sum()
        };
        let lots = match is_nested {
            true => one(self.parts.len(), size),
            false => lots(self.parts.len(), size),
        };
        let mut laid = None;
        let rooms = Rooms::new(self.context, &lots)?;
        let mut going = Going {
            memory: PageMemory::default(),
            strings: vec![Vec::new(); targets.len()],
        };
        let mut coming = match lots.first() {
            Some(lot) => Some(self.send(&targets, &lot.parts, rooms.encoded(0))?),
            None => None,
        };
        for (number, lot) in lots.iter().enumerate() {
            let Some(sent) = coming.take() else {
                break;
            };
            // The next one is read while this one is decoded.
            if let Some(next) = lots.get(number + 1) {
                coming = Some(self.send(&targets, &next.parts, rooms.encoded(number + 1))?);
            }
            let sent = sent.arrived(self.path)?;
            let (parts, decompressed) = (&lot.parts, rooms.decompressed());
            let mut ready = match self.decompress(&targets, parts, &sent, decompressed)? {
                Ok(ready) => ready,
                Err(root) => return Ok(Outcome::Without(root)),
            };
            let places = (&sent.buffer, decompressed);
            if is_nested {
                match self.lay(&mut targets, &mut ready, places)? {
                    Ok((all, made)) => (outputs, laid) = (all, Some(made)),
                    Err(root) => return Ok(Outcome::Without(root)),
                }
            }
            let given = self.decode(&targets, &outputs, parts, &ready, places, &mut going)?;
            if let Some(root) = given {
                return Ok(Outcome::Without(root));
            }
        }
        drop(rooms);
        if is_nested && laid.is_none() {
            // Without rows there are no levels to tell.
            return Ok(targets
                .first()
                .map_or(Outcome::Arrays(Vec::new()), |target| {
                    Outcome::Without(target.root)
                }));
        }
        let mut leaves: BTreeMap<usize, Vec<Option<Array>>> = BTreeMap::new();
        let made = outputs.into_iter().zip(going.strings);
        for ((number, target), (output, strings)) in targets.iter().enumerate().zip(made) {
            let present = going.memory.so_far(number).present;
            let array = self.array(target, output, present, strings)?;
            leaves.entry(target.root).or_default().push(Some(array));
        }
        let mut arrays = Vec::new();
        for (root, mut own) in leaves {
            let array = match (self.shapes.get(&root), &laid) {
                (Some(shape), Some(laid)) => {
                    laid.build(self.context, root, &shape.root, &mut own)?
                }
                _ => own.pop().flatten(),
            };
            let Some(array) = array else {
                return Ok(Outcome::Without(root));
            };
            arrays.push((root, array));
        }
        Ok(Outcome::Arrays(arrays))
    }

    /// Decodes a lot.
    fn decode(
        &self,
        targets: &[Target],
        outputs: &[Output],
        parts: &Range<usize>,
        ready: &[Ready],
        places: (&Buffer, &Buffer),
        going: &mut Going,
    ) -> Result<Given> {
        let part = |place: Place| place.of(places);
        let mut chunks: Vec<PageChunk<'_>> = Vec::new();
        // Which chunk each one for the kernels is, and which of its pages.
        let mut names: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        let mut ready = ready.iter().peekable();
        for (column, target) in targets.iter().enumerate() {
            for number in parts.clone().map(|part| self.number(target, part)) {
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
            .zip(outputs)
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
        let mut take_bytes = |column: usize, size: u64| {
            let space = align_up(size, ALIGN).unwrap_or(size).max(ALIGN);
            let held = going.strings.iter().flatten().map(|(_, size)| size);
            let texts = held.fold(size, |all, size| all.saturating_add(*size));
            if texts > self.texts_max {
                let kind = ErrorKind::OutOfDeviceMemory;
                return Err(beyond(self.parquet, texts, self.texts_max, kind));
            }
            let buffer = self.context.alloc(MemoryKind::Device, space)?;
            going.strings[column].push((buffer.clone(), size));
            Ok((buffer, 0))
        };
        let bad = self
            .context
            .decode_more(&mut going.memory, &columns, &chunks, &mut take_bytes);
        let bad = match bad {
            // Strings beyond offsets of 32 bits.
            Err(error) if error.kind() == ErrorKind::OutOfRange => {
                let root = targets.iter().find(|t| self.is_string(t)).map(|t| t.root);
                return root.map(Some).ok_or(error);
            }
            other => other?,
        };
        if let Some(bad) = bad {
            let (root, number, pages) = &names[bad.chunk];
            if bad.status == ParquetStatus::Unsupported {
                return Ok(Some(*root));
            }
            let page = bad.page.and_then(|page| pages.get(page)).copied();
            let page = &self.chunks[*number].pages[page.unwrap_or(0)];
            let text = format!(
                "a page does not decode: {:?}, {} bytes in",
                bad.status, bad.at
            );
            return Err(corrupted(self.path, page.offset, &text));
        }
        Ok(None)
    }

    pub(super) fn is_string(&self, target: &Target) -> bool {
        target.conversion == ParquetConversion::Bytes
    }

    /// The chunks of a column, row group after row group.
    pub(super) fn of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = usize> + 'a {
        let own = self.before[target.root] + target.leaf;
        (0..self.parts.len()).map(move |part| part * self.stride + own)
    }

    /// The chunk of a column in a part.
    pub(super) fn number(&self, target: &Target, part: usize) -> usize {
        part * self.stride + self.before[target.root] + target.leaf
    }

    /// Begins to put chunks into device memory as they are. Those whose bytes were not read yet
    /// come from the file.
    fn send(&self, targets: &[Target], parts: &Range<usize>, buffer: &Buffer) -> Result<Sent> {
        let mut starts = Vec::new();
        let mut size = 0u64;
        let mut plan = Plan::new();
        for target in targets {
            for number in parts.clone().map(|part| self.number(target, part)) {
                starts.push((number, size));
                let chunk = &self.chunks[number];
                if let Some(range) = &chunk.not_read {
                    plan.push_at(range.start, range.end - range.start, size)?;
                }
                size = size.saturating_add(LotSize::of(chunk).encoded);
            }
        }
        let file = self.parquet.file().filter(|_| !plan.pieces().is_empty());
        let ticket = match file {
            Some(file) => Some(plan.submit(self.context, file, buffer, 0, &Options::default())?),
            None => None,
        };
        let uploads = starts.iter().filter_map(|(number, at)| {
            let run = self.chunks[*number].runs.first()?;
            Some((&run.bytes[..], buffer, *at))
        });
        work::upload(self.context, &uploads.collect::<Vec<_>>())?;
        Ok(Sent {
            buffer: buffer.clone(),
            starts,
            ticket,
            wanted: plan.bytes(),
        })
    }

    /// Decompresses pages. Or the root of a column that the device cannot.
    fn decompress(
        &self,
        targets: &[Target],
        parts: &Range<usize>,
        sent: &Sent,
        memory: &Buffer,
    ) -> Result<std::result::Result<Vec<Ready>, usize>> {
        let encoded = &sent.buffer;
        let rows_before: u64 = self.parts[..parts.start].iter().map(|p| p.count).sum();
        let mut ready = Vec::new();
        let mut size = 0u64;
        let mut work: Vec<Work> = Vec::new();
        let mut starts = sent.starts.iter();
        for target in targets {
            let mut first = rows_before;
            for part in &self.parts[parts.clone()] {
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
        let list = work.iter().map(|(_, _, codec, from, to)| Compressed {
            codec: *codec,
            from: encoded,
            from_offset: from.offset,
            from_size: from.size,
            to: memory,
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
        Ok(Ok(ready))
    }
}
