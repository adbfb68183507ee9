//! Columns inside of lists and structs on the device: their levels are read there, the arrays on
//! the way to the leaves laid, and the leaves decoded as flat columns with a value for each place.

use std::collections::HashMap;

use super::device::Ready;
use super::shape::{Node, Shape};
use super::target::Target;
use crate::base::align_up;
use crate::engine::{
    Buffer, Context, LevelPage, LevelWay, Levels, MemoryKind, NodePlace, ParquetStatus, Part,
};
use crate::error::Result;
use crate::formats::{Array, Slice};

const ALIGN: u64 = 64;

/// The bytes of a page, and repetition and definition levels of version 2.
pub(super) type Bytes<'a> = (Part<'a>, Option<[Part<'a>; 2]>);

/// What came of reading levels.
pub(super) enum Read<'a> {
    /// All of them.
    Levels(Box<Nested<'a>>),
    /// This root is for the host.
    Without(usize),
    /// This chunk and page, what is wrong, and where.
    Bad(usize, usize, ParquetStatus, u64),
}

/// The levels of all columns that are lists or structs.
pub(super) struct Nested<'a> {
    /// None where there are no such columns.
    levels: Option<Levels>,
    pages: Vec<LevelPage<'a>>,
    /// Which target each way leads to.
    targets: Vec<usize>,
}

/// The memory of a list or struct.
struct Laid {
    memory: Buffer,
    validity: Option<(u64, u64)>,
    offsets: Option<(u64, u64)>,
    len: u64,
}

/// The memory of all lists and structs, by root and number.
pub(super) struct Arrays(HashMap<(usize, usize), Laid>);

/// Reads the levels of the pages of `ready`, whose bytes `page` tells. `of` says which target a
/// chunk is of, and how many rows it must have. Afterwards `ready` has places for a flat column,
/// and `targets` their rows.
pub(super) fn read<'a>(
    context: &Context,
    shapes: &HashMap<usize, Shape>,
    targets: &mut [Target],
    ready: &mut [Ready],
    of: &HashMap<usize, (usize, u64)>,
    page: &dyn Fn(&Ready) -> Bytes<'a>,
) -> Result<Read<'a>> {
    let (mut ways, mut own): (Vec<LevelWay>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut way_of: HashMap<usize, usize> = HashMap::new();
    for (number, target) in targets.iter().enumerate().filter(|(_, t)| t.nested) {
        let Some(leaf) = shapes
            .get(&target.root)
            .and_then(|s| s.leaves.get(target.leaf))
        else {
            return Ok(Read::Without(target.root));
        };
        way_of.insert(number, ways.len());
        ways.push(leaf.way.clone());
        own.push(number);
    }
    if ways.is_empty() {
        return Ok(Read::Levels(Box::new(Nested {
            levels: None,
            pages: Vec::new(),
            targets: own,
        })));
    }
    let mut pages = Vec::new();
    // Which of `ready` each page is.
    let mut names = Vec::new();
    for (at, ready) in ready.iter().enumerate().filter(|(_, r)| r.is_data) {
        let Some(way) = of.get(&ready.chunk).and_then(|(t, _)| way_of.get(t)) else {
            continue;
        };
        let (data, levels) = page(ready);
        pages.push(LevelPage {
            way: *way,
            data,
            levels,
            entries: ready.values,
        });
        names.push(at);
    }
    let levels = match context.read_levels(&ways, &pages)? {
        Ok(levels) => levels,
        Err(bad) => {
            let ready = &ready[names[bad.page]];
            return Ok(Read::Bad(ready.chunk, ready.page, bad.status, bad.at));
        }
    };
    if let Some(root) = contradiction(&levels, shapes, targets, &own) {
        return Ok(Read::Without(root));
    }
    // Rows of each chunk, and whether it begins with one.
    let mut rows: HashMap<usize, u64> = HashMap::new();
    for (found, at) in levels.pages().iter().zip(&names) {
        let page = &mut ready[*at];
        let (target, _) = of[&page.chunk];
        let first = !rows.contains_key(&page.chunk);
        *rows.entry(page.chunk).or_default() += found.slots.first().copied().unwrap_or(0);
        let values = found.slots.last().copied().unwrap_or(0);
        if first && found.first_rep != 0 || found.at > page.data.size {
            return Ok(Read::Without(targets[target].root));
        }
        page.values = u32::try_from(values).unwrap_or(u32::MAX);
        page.first = found.before.last().copied().unwrap_or(0);
        page.present = Some(found.present);
        page.data.offset += found.at;
        page.data.size -= found.at;
    }
    for (chunk, (target, wanted)) in of {
        let found = rows.get(chunk).copied().unwrap_or(0);
        if targets[*target].nested && found != *wanted {
            return Ok(Read::Without(targets[*target].root));
        }
    }
    for (total, number) in levels.totals().iter().zip(&own) {
        targets[*number].rows = total.last().copied().unwrap_or(0);
    }
    Ok(Read::Levels(Box::new(Nested {
        levels: Some(levels),
        pages,
        targets: own,
    })))
}

/// A root whose leaves do not agree about the arrays that they share, or are too long.
fn contradiction(
    levels: &Levels,
    shapes: &HashMap<usize, Shape>,
    targets: &[Target],
    own: &[usize],
) -> Option<usize> {
    let mut lengths: HashMap<(usize, usize), u64> = HashMap::new();
    for (total, number) in levels.totals().iter().zip(own) {
        let target = &targets[*number];
        let ids = &shapes[&target.root].leaves[target.leaf].ids;
        for (id, len) in ids.iter().zip(total) {
            let known = lengths.entry((target.root, *id)).or_insert(*len);
            if known != len || *len >= i32::MAX as u64 {
                return Some(target.root);
            }
        }
    }
    None
}

impl Nested<'_> {
    /// Lays lists and structs, and writes validity and offsets of all arrays. `leaf` says where the
    /// bitmap of a target is.
    pub(super) fn lay<'b>(
        &mut self,
        context: &Context,
        shapes: &HashMap<usize, Shape>,
        targets: &[Target],
        leaf: &dyn Fn(usize) -> Option<Part<'b>>,
    ) -> Result<Arrays> {
        let Some(levels) = &mut self.levels else {
            return Ok(Arrays(HashMap::new()));
        };
        let totals = levels.totals();
        let mut laid: HashMap<(usize, usize), Laid> = HashMap::new();
        // Which way writes each array: the first that has it.
        let mut writes: Vec<Vec<bool>> = Vec::new();
        for (number, total) in self.targets.iter().zip(&totals) {
            let target = &targets[*number];
            let leaf = &shapes[&target.root].leaves[target.leaf];
            let mut own = Vec::new();
            for (at, (node, id)) in leaf.way.nodes.iter().zip(&leaf.ids).enumerate() {
                let inner = at + 1 < leaf.ids.len();
                let key = (target.root, *id);
                own.push(inner && !laid.contains_key(&key));
                if own[at] {
                    let below = total.get(at + 1).copied().unwrap_or(0);
                    let nullable = node.valid_def > node.slot_def;
                    let elements = node.is_list.then_some(below);
                    laid.insert(key, Laid::new(context, total[at], nullable, elements)?);
                }
            }
            writes.push(own);
        }
        let mut places: Vec<Vec<NodePlace<'_>>> = Vec::new();
        for (number, own) in self.targets.iter().zip(&writes) {
            let target = &targets[*number];
            let ids = &shapes[&target.root].leaves[target.leaf].ids;
            let place = |(id, writes): (&usize, &bool)| {
                let laid = laid.get(&(target.root, *id)).filter(|_| *writes);
                laid.map_or_else(NodePlace::default, Laid::place)
            };
            let mut row: Vec<NodePlace<'_>> = ids.iter().zip(own).map(place).collect();
            if let Some(last) = row.last_mut() {
                last.validity = leaf(*number);
            }
            places.push(row);
        }
        context.place_levels(levels, &self.pages, &places)?;
        drop(places);
        Ok(Arrays(laid))
    }
}

impl Laid {
    /// Memory for so many values: a bitmap of zeroes, offsets whose last is there.
    fn new(context: &Context, len: u64, nullable: bool, elements: Option<u64>) -> Result<Self> {
        let padded = |size: u64| align_up(size, ALIGN).unwrap_or(u64::MAX);
        let words = 4 * len.div_ceil(32);
        let bitmap = if nullable { padded(words) } else { 0 };
        let ends = elements.map_or(0, |_| 4 * (len + 1));
        let size = bitmap.saturating_add(padded(ends)).max(ALIGN);
        let memory = context.alloc(MemoryKind::Device, size)?;
        let zeroes = vec![0; usize::try_from(bitmap).unwrap_or(0)];
        let last = (elements.unwrap_or(0) as u32).to_le_bytes();
        let mut uploads = vec![(&zeroes[..], &memory, 0)];
        if elements.is_some() {
            uploads.push((&last[..], &memory, bitmap + 4 * len));
        }
        context.upload(&uploads)?;
        Ok(Self {
            validity: nullable.then_some((0, words)),
            offsets: elements.map(|_| (bitmap, ends)),
            len,
            memory,
        })
    }

    fn place(&self) -> NodePlace<'_> {
        let part = |range: Option<(u64, u64)>| range.map(|(at, size)| (&self.memory, at, size));
        NodePlace {
            validity: part(self.validity),
            offsets: part(self.offsets),
        }
    }
}

impl Arrays {
    /// The array of a root, whose leaves are decoded.
    pub(super) fn build(
        &self,
        context: &Context,
        root: usize,
        node: &Node,
        leaves: &mut Vec<Option<Array>>,
    ) -> Result<Option<Array>> {
        if let Some(leaf) = node.leaf {
            return Ok(leaves.get_mut(leaf).and_then(Option::take));
        }
        let Some(laid) = self.0.get(&(root, node.id)) else {
            return Ok(None);
        };
        let mut children = Vec::new();
        for child in &node.children {
            match self.build(context, root, child, leaves)? {
                Some(child) => children.push(child),
                None => return Ok(None),
            }
        }
        let mut nulls = 0;
        if let Some((at, size)) = laid.validity {
            let mut bits = vec![0; usize::try_from(size).unwrap_or(0)];
            context.download(&laid.memory, at, &mut bits)?;
            let ones: u64 = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
            nulls = laid.len.saturating_sub(ones);
        }
        let slice = |(offset, size): (u64, u64)| Slice {
            buffer: laid.memory.clone(),
            offset,
            size,
        };
        let mut buffers = vec![laid.validity.filter(|_| nulls > 0).map(slice)];
        buffers.extend(laid.offsets.map(|range| Some(slice(range))));
        Ok(Some(Array {
            data_type: node.data_type.clone(),
            len: laid.len,
            null_count: Some(nulls),
            offset: 0,
            buffers,
            children,
            dictionary: None,
        }))
    }
}
