//! Pieces of a plan into ranges that are read at once.
//!
//! Two ways to read neighbours together. Straight: the destination has the distances of the file,
//! so one read brings them all, and what stands between them in the file lands in what is padding
//! of the destination. Gathered: small pieces with other distances are read as one range into
//! scratch memory and copied apart. A piece is in one range; nothing is read twice.

use super::{Piece, Plan};

/// Pieces up to this are gathered, bytes: a read of more costs no more than its bytes.
const SMALL: u64 = 64 << 10;
/// Largest range that is gathered at once, bytes.
pub(super) const GATHER_MAX: u64 = 1 << 20;

/// The ranges of a plan.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// Read straight into the destination: one or more pieces each, with the bytes between them.
    pub(super) straight: Vec<Piece>,
    /// Read into scratch memory.
    pub(super) gathered: Vec<Gather>,
    /// What the gathered ranges are copied apart into: `Gather::runs` are indexes of this.
    pub(super) runs: Vec<Piece>,
    /// Bytes that are wanted.
    pub(super) bytes: u64,
}

/// A range that is read into scratch memory and copied apart.
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) file_offset: u64,
    pub(super) size: u64,
    pub(super) runs: std::ops::Range<usize>,
}

/// How a plan is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outline {
    /// Pieces of the plan.
    pub pieces: u64,
    /// Bytes that are wanted.
    pub bytes: u64,
    /// Ranges that are read straight into the destination.
    pub straight: u64,
    /// Ranges that are read into scratch memory and copied apart.
    pub gathered: u64,
    /// Bytes of all ranges: those wanted, and those between them.
    pub read_bytes: u64,
}

impl Outline {
    pub(super) fn of(ranges: &Ranges) -> Self {
        let straight: u64 = ranges.straight.iter().map(|r| r.size).sum();
        let gathered: u64 = ranges.gathered.iter().map(|r| r.size).sum();
        Self {
            pieces: 0,
            bytes: ranges.bytes,
            straight: ranges.straight.len() as u64,
            gathered: ranges.gathered.len() as u64,
            read_bytes: straight + gathered,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.pieces += other.pieces;
        self.bytes += other.bytes;
        self.straight += other.straight;
        self.gathered += other.gathered;
        self.read_bytes += other.read_bytes;
    }
}

/// Cuts a plan into ranges: pieces with at most `gap` bytes between them go together. Without
/// `gather` only straight ranges are made.
pub(super) fn cut(plan: &Plan, gap: u64, gather: bool) -> Ranges {
    let mirrored = mirror(plan.pieces(), gap);
    let bytes = plan.bytes();
    if !gather {
        return Ranges {
            straight: mirrored,
            bytes,
            ..Ranges::default()
        };
    }
    let mut ranges = Ranges {
        bytes,
        ..Ranges::default()
    };
    let mut open: Option<Gather> = None;
    for run in mirrored {
        let joined = open.as_mut().is_some_and(|open| join(open, &run, gap));
        if joined {
            ranges.runs.push(run);
            continue;
        }
        close(&mut ranges, open.take());
        if run.size > SMALL {
            ranges.straight.push(run);
            continue;
        }
        let first = ranges.runs.len();
        open = Some(Gather {
            file_offset: run.file_offset,
            size: run.size,
            runs: first..first + 1,
        });
        ranges.runs.push(run);
    }
    close(&mut ranges, open);
    ranges
}

fn join(open: &mut Gather, run: &Piece, gap: u64) -> bool {
    let end = open.file_offset + open.size;
    let new_end = end.max(run.file_offset + run.size);
    let near = run.file_offset.saturating_sub(end) <= gap;
    if !near || run.size > SMALL || new_end - open.file_offset > GATHER_MAX {
        return false;
    }
    open.size = new_end - open.file_offset;
    open.runs.end += 1;
    true
}

/// A single run needs no scratch memory.
fn close(ranges: &mut Ranges, open: Option<Gather>) {
    let Some(open) = open else { return };
    if open.runs.len() > 1 {
        ranges.gathered.push(open);
    } else if let Some(run) = ranges.runs.pop() {
        ranges.straight.push(run);
    }
}

/// Joins pieces whose distance in the destination is that in the file, with at most `gap` bytes
/// between them that no other piece of the plan wants for itself. In the order of the file.
fn mirror(pieces: &[Piece], gap: u64) -> Vec<Piece> {
    let mut sorted = pieces.to_vec();
    sorted.sort_unstable_by_key(|p| (p.file_offset, p.to_offset));
    let mut taken: Vec<(u64, u64)> = pieces
        .iter()
        .map(|p| (p.to_offset, p.to_offset + p.size))
        .collect();
    taken.sort_unstable();
    let is_free = |begin: u64, end: u64| {
        let next = taken.partition_point(|place| place.0 < begin);
        let before = next.checked_sub(1).and_then(|index| taken.get(index));
        begin == end
            || (taken.get(next).is_none_or(|place| place.0 >= end)
                && before.is_none_or(|place| place.1 <= begin))
    };
    let mut runs: Vec<Piece> = Vec::new();
    for piece in sorted {
        if let Some(last) = runs.last_mut() {
            let (end, to_end) = (last.file_offset + last.size, last.to_offset + last.size);
            let distance = piece.file_offset.checked_sub(end);
            let same = piece.to_offset.checked_sub(to_end) == distance;
            if let Some(distance) = distance
                && same
                && distance <= gap
                && is_free(to_end, piece.to_offset)
            {
                last.size += distance + piece.size;
                continue;
            }
        }
        runs.push(piece);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pieces: &[(u64, u64, u64)]) -> Plan {
        let mut plan = Plan::new();
        for (file_offset, size, to_offset) in pieces {
            plan.push_at(*file_offset, *size, *to_offset)
                .expect("small");
        }
        plan
    }

    fn straight(pieces: &[(u64, u64, u64)], gap: u64) -> Vec<(u64, u64, u64)> {
        let ranges = cut(&plan(pieces), gap, false);
        let runs = ranges.straight.iter();
        runs.map(|r| (r.file_offset, r.size, r.to_offset)).collect()
    }

    #[test]
    fn neighbours_with_the_files_distances_are_one_range() {
        let pieces = [(300, 10, 200), (100, 50, 0), (160, 40, 60)];
        assert_eq!(
            straight(&pieces, 0),
            [(100, 50, 0), (160, 40, 60), (300, 10, 200)]
        );
        assert_eq!(straight(&pieces, 10), [(100, 100, 0), (300, 10, 200)]);
        assert_eq!(straight(&pieces, 100), [(100, 210, 0)]);
        // The hole at 50..60 belongs to another piece.
        let taken = [(100, 50, 0), (160, 40, 60), (900, 5, 52)];
        assert_eq!(straight(&taken, 100).len(), 3);
        // Other distances, and the same bytes for two places.
        assert_eq!(straight(&[(100, 50, 0), (150, 50, 64)], 100).len(), 2);
        assert_eq!(straight(&[(100, 50, 0), (100, 50, 50)], 100).len(), 2);
        assert_eq!(straight(&[(100, 50, 0), (150, 50, 50)], 0), [(100, 100, 0)]);
    }

    #[test]
    fn small_pieces_are_gathered_and_large_ones_are_not() {
        let rows: Vec<_> = (0..1000).map(|i| (i * 256, 64, i * 64)).collect();
        let outline = plan(&rows).outline(1024);
        assert_eq!((outline.straight, outline.gathered), (0, 1));
        assert_eq!(outline.read_bytes, 999 * 256 + 64);
        assert_eq!(outline.bytes, 64_000);
        let outline = plan(&rows).outline(100);
        assert_eq!(
            (outline.straight, outline.gathered),
            (1000, 0),
            "too far apart"
        );
        let large = [(0, 1 << 20, 0), ((1 << 20) + 8, 1 << 20, 1 << 21)];
        let outline = plan(&large).outline(1024);
        assert_eq!((outline.straight, outline.gathered), (2, 0));
        let many: Vec<_> = (0..100_000).map(|i| (i * 128, 100, i * 100)).collect();
        let outline = plan(&many).outline(16 << 10);
        assert!(
            outline.straight <= 1 && outline.gathered <= 14,
            "{outline:?}"
        );
    }
}
