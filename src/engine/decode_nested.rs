//! Levels of pages of columns inside of lists and structs, read on the device: how many values each
//! array on the way to the leaf has, then its validity and offsets. The values themselves are for
//! `decode_pages`, page by page, as those of a flat column.

use super::buffer::Buffer;
use super::context::Context;
use super::decode::{Part, Row, bytes_of, bytes_of_mut, status_of};
use crate::device::{
    MemoryKind, ParquetLevels, ParquetNest, ParquetNode, ParquetStatus, ParquetStep, ParquetWork,
};
use crate::error::{Error, ErrorKind, Result};

/// Most arrays on a way.
const NODES_MAX: usize = 64;
/// Highest level that a byte holds.
const LEVEL_MAX: u32 = 255;
const ALIGN: u64 = 8;

impl Row for ParquetNode {}
impl Row for ParquetNest {}
impl Row for ParquetLevels {}
impl Row for u64 {}

/// An array on the way from a root to a leaf: a value begins where the lists around it have an
/// element (`slot_def`) that is not a further one of a list inside (`slot_rep`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelNode {
    /// The definition level from which on there is a value.
    pub slot_def: u32,
    /// The highest repetition level that begins one.
    pub slot_rep: u32,
    /// The definition level from which on it is not null.
    pub valid_def: u32,
    /// Whether the next node has its elements.
    pub is_list: bool,
}

/// The way to a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelWay {
    /// From the root to the leaf.
    pub nodes: Vec<LevelNode>,
    /// Highest definition level of the leaf.
    pub max_def: u32,
    /// Highest repetition level.
    pub max_rep: u32,
}

/// A data page, decompressed.
#[derive(Debug, Clone, Copy)]
pub struct LevelPage<'a> {
    /// Which way its values go.
    pub way: usize,
    /// Its bytes: in version 1 the levels first.
    pub data: Part<'a>,
    /// Repetition and definition levels of version 2.
    pub levels: Option<[Part<'a>; 2]>,
    /// Values, nulls and empty lists.
    pub entries: u32,
}

/// What a page has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageLevels {
    /// Values of each array on its way.
    pub slots: Vec<u64>,
    /// Values of each array in the pages of the same way before it.
    pub before: Vec<u64>,
    /// Values of the leaf that are not null.
    pub present: u32,
    /// The first repetition level: 0 where a row begins.
    pub first_rep: u32,
    /// Where the values begin in the data, bytes.
    pub at: u64,
}

/// Where an array of a way goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodePlace<'a> {
    /// A bit a value in words of four bytes, all zero; none: it is not wanted.
    pub validity: Option<Part<'a>>,
    /// Offsets of four bytes, one more than values, of which the last is not written.
    pub offsets: Option<Part<'a>>,
}

/// Levels that were read, in memory of the device.
#[derive(Debug)]
pub struct Levels {
    ways: Vec<LevelWay>,
    pages: Vec<ParquetLevels>,
    found: Vec<PageLevels>,
    /// Counters, ways, nodes, pages and their numbers.
    table: Buffer,
    /// A byte an entry for either level.
    _levels: Buffer,
}

/// The first page whose levels cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLevels {
    /// Which page.
    pub page: usize,
    /// What is wrong.
    pub status: ParquetStatus,
    /// Where in the page, bytes.
    pub at: u64,
}

/// Where things lie in the table.
struct Offsets {
    nests: u64,
    nodes: u64,
    pages: u64,
    places: u64,
    size: u64,
}

impl Offsets {
    fn new(ways: &[LevelWay], pages: &[LevelPage<'_>]) -> Self {
        let nodes: usize = ways.iter().map(|way| way.nodes.len()).sum();
        let numbers: usize = pages.iter().map(|page| ways[page.way].nodes.len()).sum();
        let nests_at = ALIGN;
        let nodes_at = nests_at + (size_of::<ParquetNest>() * ways.len()) as u64;
        let pages_at = nodes_at + (size_of::<ParquetNode>() * nodes) as u64;
        let places_at = pages_at + (size_of::<ParquetLevels>() * pages.len()) as u64;
        Self {
            nests: nests_at,
            nodes: nodes_at,
            pages: pages_at,
            places: places_at,
            size: places_at + (8 * numbers) as u64,
        }
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

impl Context {
    /// Reads the levels of pages by a kernel, a warp a page, and waits. Pages of a way are in
    /// order. Takes device memory of two bytes an entry while the answer lives.
    ///
    /// # Errors
    /// As `decode_pages`.
    pub fn read_levels(
        &self,
        ways: &[LevelWay],
        pages: &[LevelPage<'_>],
    ) -> Result<std::result::Result<Levels, BadLevels>> {
        self.device().parquet_prepare()?;
        for way in ways {
            let levels = way.max_def.max(way.max_rep);
            if !(1..=NODES_MAX).contains(&way.nodes.len()) || levels > LEVEL_MAX {
                let text = format!("read levels up to {levels} of {} arrays", way.nodes.len());
                return Err(Error::new(ErrorKind::NotSupported, text));
            }
        }
        if let Some(page) = pages.iter().find(|page| page.way >= ways.len()) {
            return Err(invalid(format!(
                "read levels of way {}: there is none",
                page.way
            )));
        }
        let offsets = Offsets::new(ways, pages);
        let table = self.alloc(MemoryKind::Device, offsets.size)?;
        let entries: u64 = pages.iter().map(|page| u64::from(page.entries)).sum();
        let levels = self.alloc(MemoryKind::Device, (2 * entries).max(1))?;
        let mut rows = Vec::with_capacity(pages.len());
        let (mut level, mut place) = (levels.address(), table.address() + offsets.places);
        for page in pages {
            let part = |part: Part<'_>| Ok((self.check_part(part, 0, 1)?, part.2));
            let data: (u64, u64) = part(page.data)?;
            let [reps, defs] = match page.levels {
                Some([reps, defs]) => [part(reps)?, part(defs)?],
                None => [(0, 0); 2],
            };
            rows.push(ParquetLevels {
                data: data.0,
                data_size: data.1,
                reps: reps.0,
                reps_size: reps.1,
                defs: defs.0,
                defs_size: defs.1,
                levels: level,
                places: place,
                nest: page.way as u32,
                entries: page.entries,
                version_2: u32::from(page.levels.is_some()),
                ..ParquetLevels::default()
            });
            level += 2 * u64::from(page.entries);
            place += 8 * ways[page.way].nodes.len() as u64;
        }
        let mut made = Levels {
            ways: ways.to_vec(),
            pages: rows,
            found: Vec::new(),
            table,
            _levels: levels,
        };
        let none = vec![Vec::new(); ways.len()];
        made.run(self, &offsets, ParquetStep::Count, &none, None)?;
        let bad = made.pages.iter().position(|page| page.status != 0);
        if let Some(page) = bad {
            return Ok(Err(BadLevels {
                page,
                status: status_of(made.pages[page].status),
                at: made.pages[page].at,
            }));
        }
        made.find(self, &offsets)?;
        Ok(Ok(made))
    }

    /// Writes validity and offsets of the arrays of each way to where `places` says, a row a way
    /// and a place a node. `pages` are those that were read.
    ///
    /// # Errors
    /// As `decode_pages`.
    pub fn place_levels(
        &self,
        levels: &mut Levels,
        pages: &[LevelPage<'_>],
        places: &[Vec<NodePlace<'_>>],
    ) -> Result<()> {
        if pages.len() != levels.pages.len() || places.len() != levels.ways.len() {
            return Err(invalid(
                "place levels of other pages than were read".to_owned(),
            ));
        }
        let totals = levels.totals();
        let mut nodes = Vec::new();
        for ((way, places), totals) in levels.ways.iter().zip(places).zip(&totals) {
            if places.len() != way.nodes.len() {
                return Err(invalid("place levels: a place a node is needed".to_owned()));
            }
            let mut own = Vec::new();
            for ((node, place), slots) in way.nodes.iter().zip(places).zip(totals) {
                let words = 4 * slots.div_ceil(32);
                let part = |part: Option<Part<'_>>, needed| {
                    part.map_or(Ok(0), |part| self.check_part(part, needed, ALIGN))
                };
                own.push(ParquetNode {
                    validity: part(place.validity, words)?,
                    offsets: part(place.offsets, 4 * (slots + 1))?,
                    ..row_of(node)
                });
            }
            nodes.push(own);
        }
        let offsets = Offsets::new(&levels.ways, pages);
        let before: Vec<u64> = levels.found.iter().flat_map(|p| p.before.clone()).collect();
        levels.run(self, &offsets, ParquetStep::Place, &nodes, Some(&before))
    }
}

fn row_of(node: &LevelNode) -> ParquetNode {
    ParquetNode {
        slot_def: node.slot_def,
        slot_rep: node.slot_rep,
        valid_def: node.valid_def,
        is_list: u32::from(node.is_list),
        ..ParquetNode::default()
    }
}

impl Levels {
    /// What each page has, in their order.
    #[must_use]
    pub fn pages(&self) -> &[PageLevels] {
        &self.found
    }

    /// Values of each array of each way.
    #[must_use]
    pub fn totals(&self) -> Vec<Vec<u64>> {
        let mut totals: Vec<Vec<u64>> = self
            .ways
            .iter()
            .map(|way| vec![0; way.nodes.len()])
            .collect();
        for (page, found) in self.pages.iter().zip(&self.found) {
            let total = totals[page.nest as usize].iter_mut();
            total
                .zip(&found.slots)
                .for_each(|(sum, slots)| *sum += slots);
        }
        totals
    }

    /// Sends the tables and launches a step; `before` a number a page and node. Waits, and reads
    /// the pages back.
    fn run(
        &mut self,
        context: &Context,
        offsets: &Offsets,
        step: ParquetStep,
        nodes: &[Vec<ParquetNode>],
        before: Option<&[u64]>,
    ) -> Result<()> {
        if self.pages.is_empty() {
            return Ok(());
        }
        let table = &self.table;
        let mut all = Vec::new();
        let mut nests = Vec::new();
        for (way, own) in self.ways.iter().zip(nodes) {
            nests.push(ParquetNest {
                nodes: table.address() + offsets.nodes + size_of_val(&all[..]) as u64,
                node_count: way.nodes.len() as u32,
                max_def: way.max_def,
                max_rep: way.max_rep,
                reserved: 0,
            });
            match own.is_empty() {
                true => all.extend(way.nodes.iter().map(row_of)),
                false => all.extend(own),
            }
        }
        context.upload(&[
            (&[0; ALIGN as usize], table, 0),
            (bytes_of(&nests), table, offsets.nests),
            (bytes_of(&all), table, offsets.nodes),
            (bytes_of(&self.pages), table, offsets.pages),
            (bytes_of(before.unwrap_or(&[])), table, offsets.places),
        ])?;
        let work = ParquetWork {
            pages: table.address() + offsets.pages,
            page_count: self.pages.len() as u64,
            columns: table.address() + offsets.nests,
            column_count: nests.len() as u64,
            next: table.address(),
            parts: 1,
        };
        let shared = &context.inner().shared;
        let slot = shared.kernels.take(&shared.device)?;
        let (device, stream) = (&*shared.device, slot.stream.get());
        // SAFETY: the tables name ranges that were checked against what the kernels touch, of
        // buffers that the caller and this object hold until the stream was waited for, here or,
        // after a failure, when the slot is given back.
        let launched = unsafe { device.parquet_pages(step, &work, stream) };
        let done = launched.and_then(|()| device.stream_synchronize(stream));
        shared.kernels.settle(device, slot, done.is_err());
        done?;
        context.download(table, offsets.pages, bytes_of_mut(&mut self.pages))
    }

    /// Reads what was counted, and adds it up.
    fn find(&mut self, context: &Context, offsets: &Offsets) -> Result<()> {
        let count = (offsets.size - offsets.places) / 8;
        let mut numbers = vec![0u64; count as usize];
        context.download(&self.table, offsets.places, bytes_of_mut(&mut numbers))?;
        let mut sums: Vec<Vec<u64>> = self
            .ways
            .iter()
            .map(|way| vec![0; way.nodes.len()])
            .collect();
        let mut numbers = numbers.into_iter();
        for page in &self.pages {
            let sum = &mut sums[page.nest as usize];
            let slots: Vec<u64> = numbers.by_ref().take(sum.len()).collect();
            let before = sum.clone();
            sum.iter_mut()
                .zip(&slots)
                .for_each(|(sum, slots)| *sum += slots);
            self.found.push(PageLevels {
                slots,
                before,
                present: page.present,
                first_rep: page.first_rep,
                at: page.at,
            });
        }
        Ok(())
    }
}
