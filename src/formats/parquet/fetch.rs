//! Which bytes of a file a selection needs, and how they come into memory.

use std::ops::Range;

use bytes::Bytes;

use super::pages::{Run, Start};
use super::prune::rows_of_pages;
use super::reader::{Parquet, has_dictionary};
use super::select::{Part, Root};
use crate::engine::{Context, HostPages};
use crate::error::{Error, ErrorKind, Result};

/// Largest piece that is read as one, bytes.
const PIECE_MAX: u64 = 64 << 20;
/// Pieces of at least this many bytes get a place that direct I/O reads without a copy.
const LARGE: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// Data pages of one chunk that are wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Their bytes in the file.
    pub range: Range<u64>,
    /// What the range begins with.
    pub start: Start,
}

/// What is wanted of one column chunk.
#[derive(Debug, Clone)]
pub(super) struct ChunkPlan {
    pub leaf: usize,
    /// Runs in ascending order. One for the whole chunk when `pages` is `None`.
    pub runs: Vec<Wanted>,
    /// The pages, when only some are read: by number, with first row.
    pub pages: Option<Vec<PagePlace>>,
}

/// A page by its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct PagePlace {
    pub offset: u64,
    pub size: u64,
    pub first_row: u64,
}

/// What is wanted of one column chunk for some rows.
pub(super) fn plan_chunk(parquet: &Parquet, part: &Part, leaf: usize) -> Result<ChunkPlan> {
    let chunk = parquet.chunk_range(part.row_group, leaf)?;
    let group = parquet.metadata().row_group(part.row_group);
    let has_dictionary = has_dictionary(group.column(leaf));
    let whole = |range| {
        let page = 0;
        let start = Start {
            has_dictionary,
            page,
        };
        Wanted { range, start }
    };
    let Some(rows) = &part.rows else {
        return Ok(ChunkPlan {
            leaf,
            runs: vec![whole(chunk)],
            pages: None,
        });
    };
    let locations = parquet.page_locations(part.row_group, leaf)?;
    let Some(locations) = locations.filter(|l| !l.is_empty()) else {
        return Ok(ChunkPlan {
            leaf,
            runs: vec![whole(chunk)],
            pages: None,
        });
    };
    let mut runs = Vec::new();
    let first = locations[0].offset.unsigned_abs();
    if first > chunk.start {
        runs.push(Wanted {
            range: chunk.start..first,
            start: Start {
                has_dictionary: true,
                page: 0,
            },
        });
    }
    let of_pages = rows_of_pages(&locations, group.num_rows().unsigned_abs());
    let mut at = 0;
    for (number, (place, own)) in locations.iter().zip(of_pages).enumerate() {
        while at < rows.len() && rows[at].end <= own.start {
            at += 1;
        }
        if at == rows.len() || rows[at].start >= own.end {
            continue;
        }
        let offset = place.offset.unsigned_abs();
        let end = offset + u64::from(place.compressed_page_size.unsigned_abs());
        runs.push(Wanted {
            range: offset..end,
            start: Start {
                has_dictionary: false,
                page: number,
            },
        });
    }
    let places = locations.iter().map(|l| PagePlace {
        offset: l.offset.unsigned_abs(),
        size: l.compressed_page_size.unsigned_abs().into(),
        first_row: l.first_row_index.unsigned_abs(),
    });
    Ok(ChunkPlan {
        leaf,
        runs,
        pages: Some(places.collect()),
    })
}

/// What is wanted of a row group, a plan a column.
pub(super) fn plan_part(parquet: &Parquet, part: &Part, roots: &[Root]) -> Result<Vec<ChunkPlan>> {
    let leaves = roots.iter().flat_map(|root| &root.leaves);
    leaves
        .map(|leaf| plan_chunk(parquet, part, *leaf))
        .collect()
}

/// Reads ranges. What touches is read in one piece.
pub(super) fn read(
    parquet: &Parquet,
    context: &Context,
    wanted: &[Range<u64>],
) -> Result<Vec<Bytes>> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|at| (wanted[*at].start, wanted[*at].end));
    let mut pieces: Vec<Range<u64>> = Vec::new();
    // The piece that each range lies in.
    let mut homes = vec![0; wanted.len()];
    for at in order {
        let range = &wanted[at];
        match pieces.last_mut() {
            Some(last)
                if range.start <= last.end
                    && (range.end <= last.end || range.end - last.start <= PIECE_MAX) =>
            {
                last.end = last.end.max(range.end);
            }
            _ => pieces.push(range.clone()),
        }
        homes[at] = pieces.len() - 1;
    }
    let memory = read_pieces(parquet, context, &pieces)?;
    let slice = |(range, home): (&Range<u64>, usize)| {
        let start = pieces[home].start;
        memory[home].slice((range.start - start) as usize..(range.end - start) as usize)
    };
    Ok(wanted.iter().zip(homes).map(slice).collect())
}

fn read_pieces(parquet: &Parquet, context: &Context, pieces: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let Some(file) = parquet.file() else {
        let read = |piece: &Range<u64>| {
            let size = piece.end - piece.start;
            parquet
                .source()
                .bytes(piece.start, size, "column chunks")
                .map(Bytes::from)
        };
        return pieces.iter().map(read).collect();
    };
    // One allocation for all of them, where each lies as far into a page as in the file: so direct
    // reads need no copy.
    let mut places = Vec::with_capacity(pieces.len());
    let mut total: u64 = 0;
    for piece in pieces {
        let size = piece.end - piece.start;
        let at = match size >= LARGE {
            true => total.next_multiple_of(PAGE) + piece.start % PAGE,
            false => total,
        };
        places.push(at as usize..(at + size) as usize);
        total = at + size;
    }
    let mut memory = HostPages::new(total as usize).map_err(|error| {
        let path = parquet.source().path();
        let message = format!("read {}: {}", path.display(), error.message());
        Error::new(ErrorKind::OutOfHostMemory, message).with_path(path)
    })?;
    let mut parts = Vec::with_capacity(pieces.len());
    let (mut rest, mut done) = (memory.as_mut(), 0);
    for (piece, place) in pieces.iter().zip(&places) {
        let (own, behind) = rest.split_at_mut(place.end - done);
        parts.push((piece.start, &mut own[place.start - done..]));
        (rest, done) = (behind, place.end);
    }
    context.read_into(file, parts)?;
    let memory = Bytes::from_owner(memory);
    let slice = |place: Range<usize>| memory.slice(place);
    Ok(places.into_iter().map(slice).collect())
}

/// Bytes of a plan, as runs.
pub(super) fn runs_of(plan: &ChunkPlan, bytes: impl Iterator<Item = Bytes>) -> Vec<Run> {
    let pairs = plan.runs.iter().zip(bytes);
    let run = |(wanted, bytes): (&Wanted, Bytes)| Run {
        offset: wanted.range.start,
        bytes,
    };
    pairs.map(run).collect()
}
