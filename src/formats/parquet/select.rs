//! Which columns and rows somebody wants, and what of them can be left out.

use std::ops::Range;

use super::prune::Predicate;
use super::reader::Parquet;
use crate::error::{Error, ErrorKind, Result};

/// What to load. The default is everything.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Columns by name, in this order; "a.b" is the field b of a, and "a" is all of a. All of them
    /// when `None`.
    pub columns: Option<Vec<String>>,
    /// Row groups by number, in this order. All of them when `None`.
    pub row_groups: Option<Vec<usize>>,
    /// Rows by number, counted through the whole file: ranges in ascending order. All of them when
    /// `None`. With an offset index only their pages are read.
    pub rows: Option<Vec<Range<u64>>>,
    /// Conditions that all must hold. Row groups and pages whose statistics or bloom filters say
    /// that no row can fulfil them are left out. Rows that are kept may still not fulfil them.
    pub predicates: Vec<Predicate>,
    /// Bytes of host memory that decoding may take, and of device memory that texts may take which
    /// the device decodes. When `None`, half of the host memory that is free, and what the device
    /// has.
    pub memory_limit: Option<u64>,
}

/// Rows of a row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The row group.
    pub row_group: usize,
    /// Rows of it, ascending; all of them when `None`.
    pub rows: Option<Vec<Range<u64>>>,
    /// How many rows these are.
    pub count: u64,
}

/// A top-level column, or some fields of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    /// Its columns that hold values, ascending.
    pub leaves: Vec<usize>,
}

fn wrong(parquet: &Parquet, kind: ErrorKind, what: String) -> Error {
    let path = parquet.source().path();
    let message = format!("select of {}: {what}", path.display());
    Error::new(kind, message).with_path(path)
}

/// The columns that a selection names.
pub(super) fn roots(parquet: &Parquet, selection: &Selection) -> Result<Vec<Root>> {
    let schema = parquet.metadata().file_metadata().schema_descr();
    let mut found: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut take = |leaf: usize| {
        let root = schema.get_column_root_idx(leaf);
        let at = found.iter().position(|(r, _)| *r == root);
        let at = at.unwrap_or_else(|| {
            found.push((root, Vec::new()));
            found.len() - 1
        });
        if !found[at].1.contains(&leaf) {
            found[at].1.push(leaf);
        }
    };
    let Some(names) = &selection.columns else {
        (0..schema.num_columns()).for_each(take);
        return Ok(sorted(found));
    };
    for name in names {
        let leaves = leaves_of(parquet, name);
        if leaves.is_empty() {
            let all: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
            let all: String = all.join(", ").chars().take(400).collect();
            return Err(wrong(
                parquet,
                ErrorKind::NotFound,
                format!("there is no column {name}; there are {all}"),
            ));
        }
        leaves.into_iter().for_each(&mut take);
    }
    Ok(sorted(found))
}

fn sorted(found: Vec<(usize, Vec<usize>)>) -> Vec<Root> {
    let sort = |(_, mut leaves): (usize, Vec<usize>)| {
        leaves.sort_unstable();
        Root { leaves }
    };
    found.into_iter().map(sort).collect()
}

/// The columns that hold values of a column or of a group.
pub(super) fn leaves_of(parquet: &Parquet, name: &str) -> Vec<usize> {
    let schema = parquet.metadata().file_metadata().schema_descr();
    let is_wanted = |leaf: &usize| {
        let path = schema.column(*leaf).path().string();
        path.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    (0..schema.num_columns()).filter(is_wanted).collect()
}

/// The rows that a selection names, before anything is pruned.
pub(super) fn parts(parquet: &Parquet, selection: &Selection) -> Result<Vec<Part>> {
    let groups = parquet.metadata().row_groups();
    let mut first = 0u64;
    let starts: Vec<Range<u64>> = groups
        .iter()
        .map(|group| {
            let start = first;
            first += group.num_rows().unsigned_abs();
            start..first
        })
        .collect();
    let numbers = match &selection.row_groups {
        Some(numbers) => numbers.clone(),
        None => (0..groups.len()).collect(),
    };
    if let Some(rows) = &selection.rows {
        let in_order = rows.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let in_file = rows.iter().all(|r| r.start <= r.end && r.end <= first);
        if !in_order || !in_file {
            let what = format!("row ranges must ascend and end with row {first}");
            return Err(wrong(parquet, ErrorKind::OutOfRange, what));
        }
    }
    let mut parts = Vec::with_capacity(numbers.len());
    for number in numbers {
        let Some(own) = starts.get(number) else {
            let what = format!("there is no row group {number}; there are {}", groups.len());
            return Err(wrong(parquet, ErrorKind::OutOfRange, what));
        };
        let part = match &selection.rows {
            None => whole(number, own.end - own.start),
            Some(rows) => some(number, own, rows),
        };
        if part.count > 0 {
            parts.push(part);
        }
    }
    Ok(parts)
}

fn whole(row_group: usize, count: u64) -> Part {
    Part {
        row_group,
        rows: None,
        count,
    }
}

/// What of `rows`, counted through the file, lies in a row group.
fn some(row_group: usize, own: &Range<u64>, rows: &[Range<u64>]) -> Part {
    let local = rows.iter().filter_map(|range| {
        let start = range.start.max(own.start);
        let end = range.end.min(own.end);
        (start < end).then(|| start - own.start..end - own.start)
    });
    limit_to(whole(row_group, own.end - own.start), local.collect())
}

/// The rows of a part that lie in `ranges` too, which ascend.
pub(super) fn limit_to(part: Part, ranges: Vec<Range<u64>>) -> Part {
    let all = 0..part.count;
    let old = part.rows.as_deref().unwrap_or(std::slice::from_ref(&all));
    let total = part.count;
    let mut made: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    for range in old {
        while at < ranges.len() && ranges[at].end <= range.start {
            at += 1;
        }
        let mut next = at;
        while next < ranges.len() && ranges[next].start < range.end {
            let start = ranges[next].start.max(range.start);
            let end = ranges[next].end.min(range.end);
            match made.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ if start < end => made.push(start..end),
                _ => {}
            }
            next += 1;
        }
    }
    let count = made.iter().map(|r| r.end - r.start).sum();
    let is_whole = part.rows.is_none() && count == total;
    Part {
        row_group: part.row_group,
        rows: (!is_whole).then_some(made),
        count,
    }
}

/// The first and the second half of a part of more than one row.
pub(super) fn halves(part: Part) -> (Part, Part) {
    let all = 0..part.count;
    let rows = part.rows.as_deref().unwrap_or(std::slice::from_ref(&all));
    let mut first: Vec<Range<u64>> = Vec::new();
    let mut second: Vec<Range<u64>> = Vec::new();
    let half = part.count / 2;
    let mut seen = 0;
    for range in rows {
        let size = range.end - range.start;
        let cut = range.start + half.saturating_sub(seen).min(size);
        if range.start < cut {
            first.push(range.start..cut);
        }
        if cut < range.end {
            second.push(cut..range.end);
        }
        seen += size;
    }
    let of = |rows, count| Part {
        row_group: part.row_group,
        rows: Some(rows),
        count,
    };
    (of(first, half), of(second, part.count - half))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

    use super::*;

    #[test]
    fn ranges_meet() {
        let part = whole(3, 100);
        let some = limit_to(part.clone(), vec![10..20, 20..30, 90..200]);
        assert_eq!(some.rows, Some(vec![10..30, 90..100]));
        assert_eq!(some.count, 30);
        let fewer = limit_to(some, vec![0..11, 15..16, 29..95]);
        assert_eq!(fewer.rows, Some(vec![10..11, 15..16, 29..30, 90..95]));
        assert_eq!(limit_to(part.clone(), vec![0..100]), part);
        assert_eq!(limit_to(part, vec![]).count, 0);
    }

    #[test]
    fn halves_are_all_of_it() {
        let (a, b) = halves(whole(1, 101));
        assert_eq!((a.rows, a.count), (Some(vec![0..50]), 50));
        assert_eq!((b.rows, b.count), (Some(vec![50..101]), 51));
        let (a, b) = halves(limit_to(whole(1, 100), vec![3..5, 10..14, 90..91]));
        assert_eq!((a.rows, a.count), (Some(vec![3..5, 10..11]), 3));
        assert_eq!((b.rows, b.count), (Some(vec![11..14, 90..91]), 4));
    }

    #[test]
    fn rows_of_the_file_become_rows_of_a_group() {
        let part = some(1, &(100..200), &[0..101, 150..160, 199..300]);
        assert_eq!(part.rows, Some(vec![0..1, 50..60, 99..100]));
    }
}
