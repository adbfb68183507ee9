//! Which bytes of a region have to be written: ranges that neither overlap nor touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of bytes, as ranges by their start.
#[derive(Debug, Default, Clone)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range; an empty one adds nothing.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        let joined: Vec<(u64, u64)> = self
            .0
            .range(..=end)
            .rev()
            .take_while(|(_, e)| **e >= start)
            .map(|(s, e)| (*s, *e))
            .collect();
        for (s, e) in joined {
            self.0.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    /// Takes a range away.
    pub(super) fn remove(&mut self, range: &Range<u64>) {
        let all = std::mem::take(self);
        for old in all.iter() {
            self.add(old.start..old.end.min(range.start));
            self.add(old.start.max(range.end)..old.end);
        }
    }

    /// The ranges, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// Whether a byte of the range is in the set.
    pub(super) fn touches(&self, range: &Range<u64>) -> bool {
        let before_end = self.0.range(..range.end).next_back();
        !range.is_empty() && before_end.is_some_and(|(_, end)| *end > range.start)
    }

    /// Bytes in the set.
    pub(super) fn total(&self) -> u64 {
        self.iter().map(|r| r.end - r.start).sum()
    }

    /// Bytes in the set that are in the range.
    pub(super) fn total_inside(&self, range: &Range<u64>) -> u64 {
        let inside = |r: Range<u64>| {
            r.end
                .min(range.end)
                .saturating_sub(r.start.max(range.start))
        };
        self.iter().map(inside).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[Range<u64>]) -> Ranges {
        let mut set = Ranges::default();
        for range in ranges {
            set.add(range.clone());
        }
        set
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let list = |ranges: &[Range<u64>]| {
            let ends = |r: Range<u64>| (r.start, r.end);
            set(ranges).iter().map(ends).collect::<Vec<_>>()
        };
        assert_eq!(list(&[5..9, 0..3]), [(0, 3), (5, 9)]);
        assert_eq!(list(&[0..3, 3..5]), [(0, 5)]);
        assert_eq!(list(&[3..5, 0..3]), [(0, 5)]);
        assert_eq!(list(&[0..2, 4..6, 8..9, 1..8]), [(0, 9)]);
        assert_eq!(list(&[0..9, 2..3]), [(0, 9)]);
        assert_eq!(list(&[4..4, 7..7]), []);
    }

    #[test]
    fn it_is_what_a_bitmap_is() {
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut ranges = Ranges::default();
            let mut bits = [false; 64];
            for _ in 0..next(12) {
                let start = next(60);
                let end = start + next(10).min(64 - start);
                ranges.add(start..end);
                bits[start as usize..end as usize].fill(true);
            }
            for at in 0..64u64 {
                assert_eq!(ranges.touches(&(at..at + 1)), bits[at as usize]);
            }
            let cut = next(40)..20 + next(40);
            ranges.remove(&cut);
            for at in cut.clone() {
                bits[at as usize] = false;
            }
            for at in 0..64u64 {
                assert_eq!(ranges.touches(&(at..at + 1)), bits[at as usize]);
            }
            assert_eq!(ranges.total_inside(&cut), 0);
            assert_eq!(ranges.total_inside(&(0..64)), ranges.total());
            let count = bits.iter().filter(|bit| **bit).count();
            assert_eq!(ranges.total(), count as u64);
            assert_eq!(ranges.is_empty(), count == 0);
        }
    }
}
