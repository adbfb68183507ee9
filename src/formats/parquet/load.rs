//! Columns of a file into memory of a context.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow_schema::Schema;
use bytes::Bytes;
use parking_lot::Mutex;

use super::chunks::{self, Chunk};
use super::decode::{decode, schema_of};
use super::device;
use super::fetch::{self, ChunkPlan};
use super::prune::prune;
use super::reader::Parquet;
use super::select::{self, Part, Root, Selection};
use super::target::{self, Able};
use crate::engine::Context;
use crate::error::Result;
use crate::formats::work::{side_by_side, threads};
use crate::formats::{Batch, Plan};

impl Parquet {
    /// The rows that a selection leaves, row group by row group: what was ruled out is gone.
    ///
    /// # Errors
    /// `InvalidArgument` when the selection names what is not there, `Corrupted`.
    pub fn parts(&self, selection: &Selection) -> Result<Vec<Part>> {
        let parts = select::parts(self, selection)?;
        prune(self, parts, &selection.predicates)
    }

    /// The ranges of the file that `load` would read, metadata aside, in the order of row groups
    /// and columns; each goes behind the one before.
    ///
    /// # Errors
    /// As `load`.
    pub fn plan(&self, selection: &Selection) -> Result<Plan> {
        let roots = select::roots(self, selection)?;
        let mut plan = Plan::new();
        for part in self.parts(selection)? {
            for chunk in fetch::plan_part(self, &part, &roots)? {
                for run in &chunk.runs {
                    plan.push(run.range.start, run.range.end - run.range.start, 1)?;
                }
            }
        }
        Ok(plan)
    }

    /// Reads, decodes and places a selection: one batch, whose columns are device memory of the
    /// context (ordinary memory on the host device). Strings have offsets of 32 bits, and of 64
    /// where a column is longer than 2 GiB.
    ///
    /// # Errors
    /// `InvalidArgument` when the selection names what is not there or a key is missing;
    /// `Corrupted` with the offset of the page or chunk; `OutOfHostMemory` when decoding would
    /// take more than the limit of the selection; `OutOfDeviceMemory`, also when texts that the
    /// device decodes take more than that; what the file says.
    pub fn load(&self, context: &Context, selection: &Selection) -> Result<Batch> {
        let roots = select::roots(self, selection)?;
        let parts = self.parts(selection)?;
        self.load_parts(context, &parts, &roots, selection)
    }

    /// As `load`, a batch a row group, one after the other as they are asked for: memory for one
    /// row group is enough. Strings have offsets of 32 bits in all of them; a row group that is too
    /// long for them comes in several batches.
    ///
    /// # Errors
    /// As `load`; each batch has its own.
    pub fn batches(&self, context: &Context, selection: Selection) -> Result<Batches> {
        let roots = select::roots(self, &selection)?;
        Ok(Batches {
            schema: Arc::new(schema_of(self, &roots)?),
            parts: self.parts(&selection)?.into(),
            parquet: self.clone(),
            context: context.clone(),
            roots,
            selection,
        })
    }

    fn load_parts(
        &self,
        context: &Context,
        parts: &[Part],
        roots: &[Root],
        selection: &Selection,
    ) -> Result<Batch> {
        let limit = selection.memory_limit.unwrap_or_else(free_memory);
        let able = device::able(context)?;
        let mut plans: Vec<(&Part, ChunkPlan)> = Vec::new();
        for part in parts {
            let of_part = fetch::plan_part(self, part, roots)?;
            plans.extend(of_part.into_iter().map(|plan| (part, plan)));
        }
        let mut found: Vec<Option<Chunk>> = Vec::new();
        found.resize_with(plans.len(), || None);
        if let Some(able) = able.as_ref().filter(|_| self.file().is_some()) {
            self.look(able, parts, roots, &plans, &mut found)?;
        }
        self.fetch(context, &plans, &mut found, limit)?;
        let mut chunks: Vec<Chunk> = found.into_iter().flatten().collect();
        chunks::check_cost(self, &chunks, limit)?;
        let able = able.map(|able| able.for_chunks(self, &chunks, threads(usize::MAX) as u64));
        let texts_max = selection.memory_limit.unwrap_or(u64::MAX);
        let able = able.as_ref();
        let mut made = device::decode(self, context, parts, roots, &chunks, able, texts_max)?;
        let rest: Vec<usize> = (0..roots.len()).filter(|at| made[*at].is_none()).collect();
        // What the device gave up on, the host has to see.
        let leaves: HashSet<usize> = rest
            .iter()
            .flat_map(|at| &roots[*at].leaves)
            .copied()
            .collect();
        if chunks
            .iter()
            .any(|c| c.not_read.is_some() && leaves.contains(&c.plan.leaf))
        {
            let keep = |c: Chunk| {
                let missing = c.not_read.is_some() && leaves.contains(&c.plan.leaf);
                (!missing).then_some(c)
            };
            let mut found: Vec<Option<Chunk>> = chunks.into_iter().map(keep).collect();
            self.fetch(context, &plans, &mut found, limit)?;
            chunks = found.into_iter().flatten().collect();
        }
        let columns = decode(self, context, parts, roots, &rest, &chunks, limit)?;
        drop(chunks);
        for (at, column) in rest.into_iter().zip(columns) {
            made[at] = Some(column);
        }
        let (fields, placed): (Vec<_>, Vec<_>) = made.into_iter().flatten().unzip();
        let metadata = self.schema().metadata().clone();
        Ok(Batch {
            schema: Arc::new(Schema::new_with_metadata(fields, metadata)),
            rows: parts.iter().map(|part| part.count).sum(),
            columns: placed,
        })
    }

    /// Looks at the headers of the columns whose pages can go straight to the device.
    fn look(
        &self,
        able: &Able,
        parts: &[Part],
        roots: &[Root],
        plans: &[(&Part, ChunkPlan)],
        found: &mut [Option<Chunk>],
    ) -> Result<()> {
        let stride: usize = roots.iter().map(|root| root.leaves.len()).sum();
        // The metadata say no sooner than the pages.
        let may_be = |root: &Root| vec![target::may_be(self, able, parts, root); root.leaves.len()];
        let may_be: Vec<bool> = roots.iter().flat_map(may_be).collect();
        let bytes = plans.iter().flat_map(|(_, plan)| &plan.runs);
        let bytes = bytes.map(|run| run.range.end - run.range.start).sum();
        let all: Vec<Mutex<Option<Chunk>>> = plans.iter().map(|_| Mutex::new(None)).collect();
        side_by_side(plans.len(), bytes, |at| {
            let (part, plan) = &plans[at];
            if may_be[at % stride] {
                *all[at].lock() = chunks::look(self, part, plan)?;
            }
            Ok(())
        })?;
        let mut before = 0;
        for (number, root) in roots.iter().enumerate() {
            let first = before;
            before += root.leaves.len();
            let leaves = first..before;
            let own: Vec<usize> = (0..parts.len())
                .flat_map(|part| leaves.clone().map(move |leaf| part * stride + leaf))
                .collect();
            let mut looked = Vec::with_capacity(own.len());
            for at in &own {
                match all[*at].lock().take() {
                    Some(chunk) => looked.push(chunk),
                    None => break,
                }
            }
            let is_all = looked.len() == own.len();
            if is_all && target::targets(self, able, parts, roots, &looked, number)?.is_some() {
                for (at, chunk) in own.into_iter().zip(looked) {
                    found[at] = Some(chunk);
                }
            }
        }
        Ok(())
    }

    /// Reads the chunks that were not found yet, and checks them.
    fn fetch(
        &self,
        context: &Context,
        plans: &[(&Part, ChunkPlan)],
        found: &mut [Option<Chunk>],
        limit: u64,
    ) -> Result<()> {
        let missing: Vec<usize> = (0..plans.len()).filter(|at| found[*at].is_none()).collect();
        let ranges = missing.iter().flat_map(|at| &plans[*at].1.runs);
        let ranges: Vec<_> = ranges.map(|run| run.range.clone()).collect();
        let wanted = ranges
            .iter()
            .fold(0u64, |sum, r| sum.saturating_add(r.end - r.start));
        if wanted > limit {
            return Err(chunks::too_large(self, wanted, limit));
        }
        let mut bytes = fetch::read(self, context, &ranges)?.into_iter();
        let mut takes = Vec::with_capacity(missing.len());
        for at in &missing {
            let own: Vec<Bytes> = bytes.by_ref().take(plans[*at].1.runs.len()).collect();
            takes.push((own, Mutex::new(None)));
        }
        side_by_side(missing.len(), wanted, |number| {
            let (part, plan) = &plans[missing[number]];
            let (own, made) = &takes[number];
            let chunk = chunks::prepare(self, part, plan.clone(), own.iter().cloned())?;
            *made.lock() = Some(chunk);
            Ok(())
        })?;
        for (at, (_, made)) in missing.into_iter().zip(takes) {
            found[at] = made.into_inner();
        }
        Ok(())
    }
}

/// Row groups that follow each other, decoded when they are asked for.
#[derive(Debug)]
pub struct Batches {
    parquet: Parquet,
    context: Context,
    selection: Selection,
    roots: Vec<Root>,
    schema: Arc<Schema>,
    parts: VecDeque<Part>,
}

impl Batches {
    /// Names and types of the columns of each batch.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        loop {
            let part = self.parts.pop_front()?;
            let only = std::slice::from_ref(&part);
            let loaded = self
                .parquet
                .load_parts(&self.context, only, &self.roots, &self.selection);
            match loaded {
                // Its strings needed longer offsets than all others: in two halves they do not.
                Ok(batch) if batch.schema.fields() != self.schema.fields() && part.count > 1 => {
                    let (first, second) = select::halves(part);
                    self.parts.push_front(second);
                    self.parts.push_front(first);
                }
                other => return Some(other),
            }
        }
    }
}

/// Half of the memory that the machine can give without swapping.
fn free_memory() -> u64 {
    const DEFAULT: u64 = 4 << 30;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    let kib: Option<u64> = words.and_then(|word| word.parse().ok());
    kib.map_or(DEFAULT, |kib| kib.saturating_mul(1024) / 2)
}
