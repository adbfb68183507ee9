//! Which page: how the room says it, and the one word that the page table compares.
//!
//! A name is exact: within a cache two pages never have one name at the same time, so a search
//! compares one word and nothing else. Almost every page has a near name: the index of its file,
//! which is no other open file's, and its number in the file. While a page is in the table the
//! cache holds its file open, and who searches has it open too, so an index does not change
//! hands under either of them.
//!
//! Pages from 2^40 on (4 PiB with the smallest pages), and those of files with an index from 2^23
//! on, have far names: a number that the cache gave to their stretch of 2^40 pages of that file.
//! It is asked for under a lock and never used for another stretch.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::engine::File;
use crate::error::{Error, ErrorKind, Result};

/// log2 of the pages of a stretch.
const PAGE_BITS: u32 = 40;
const PAGE_MASK: u64 = (1 << PAGE_BITS) - 1;
/// log2 of the pages of a run.
const RUN_BITS: u32 = 14;
/// Indexes and stretches that a name has room for; 0 is none.
const STRETCHES: u64 = 1 << 23;
/// Set in far names.
const FAR: u64 = 1 << 63;

/// A page in one word. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name(pub(super) u64);

impl Name {
    /// No page.
    pub(super) const NONE: Self = Self(0);

    /// The name of a page of a file with this index. None where it has a far one.
    #[inline(always)]
    pub(super) fn near(index: u32, page: u64) -> Option<Self> {
        let fits = u64::from(index) < STRETCHES && page <= PAGE_MASK;
        fits.then_some(Self(u64::from(index) << PAGE_BITS | page))
    }

    fn far(stretch: u64, page: u64) -> Self {
        Self(FAR | stretch << PAGE_BITS | (page & PAGE_MASK))
    }

    /// Spreads pages over shards and buckets by its high bits.
    ///
    /// Neighbours follow each other by the golden ratio of all places, which fills every shard and
    /// bucket as evenly as can be: a file that fits a cache then has no shard too small for its
    /// part. Each run of 2^14 pages begins at a place of its own, so that strides that the golden
    /// ratio likes less meet in no place for long.
    #[inline(always)]
    pub(super) fn hash(self) -> u64 {
        let run = (self.0 >> RUN_BITS).wrapping_mul(0xA076_1D64_78BD_642F);
        let begin = (run ^ run >> 29).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        begin.wrapping_add(self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// Which page of which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// `File::identity`, never 0 and never another file's.
    pub(super) file: u64,
    /// Offset in the file, pages.
    pub(super) page: u64,
    pub(super) name: Name,
}

impl Key {
    #[inline]
    pub(super) fn hash(self) -> u64 {
        self.name.hash()
    }
}

/// The stretches that far names name, by file and place. Each is there for good: it is a few
/// words for terabytes.
#[derive(Debug, Default)]
pub(super) struct Stretches(Mutex<HashMap<(u64, u64), u64>>);

impl Stretches {
    /// The page of a file, if it has a name: without one it is not in the table.
    pub(super) fn known(&self, file: &File, page: u64) -> Option<Key> {
        let name = Name::near(file.index(), page).or_else(|| self.far(file.identity(), page))?;
        let file = file.identity();
        Some(Key { file, page, name })
    }

    #[cold]
    fn far(&self, file: u64, page: u64) -> Option<Name> {
        let place = (file, page >> PAGE_BITS);
        let number = self.0.lock().get(&place).copied()?;
        Some(Name::far(number, page))
    }

    /// The page of a file. Gives it a name where it has none.
    ///
    /// # Errors
    /// `OutOfRange` when there are no more names.
    pub(super) fn key(&self, file: &File, page: u64) -> Result<Key> {
        let name = match Name::near(file.index(), page) {
            Some(name) => name,
            None => self.intern(file.identity(), page, STRETCHES)?,
        };
        let file = file.identity();
        Ok(Key { file, page, name })
    }

    #[cold]
    fn intern(&self, file: u64, page: u64, most: u64) -> Result<Name> {
        let mut known = self.0.lock();
        let next = known.len() as u64;
        let place = (file, page >> PAGE_BITS);
        if next >= most && !known.contains_key(&place) {
            let text = format!(
                "the cache has seen {most} stretches of files that are past 2^{PAGE_BITS} pages \
                 or were opened beside {STRETCHES} others, as many as it can tell apart; open \
                 another cache, or use larger pages"
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        Ok(Name::far(*known.entry(place).or_insert(next), page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_for_different_pages_and_never_none() {
        let stretches = Stretches::default();
        let pages = [0, 1, PAGE_MASK - 1, PAGE_MASK];
        let indexes = [1, 2, 1 << 22, STRETCHES as u32 - 1];
        let mut all: Vec<Name> = Vec::new();
        for page in pages {
            all.extend(indexes.map(|i| Name::near(i, page).expect("small")));
        }
        for page in pages.map(|p| p + PAGE_MASK + 1).into_iter().chain(pages) {
            all.extend([1, 2, u64::MAX].map(|f| stretches.intern(f, page, 9).expect("room")));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(!all.contains(&Name::NONE));
    }

    #[test]
    fn what_does_not_fit_a_near_name_has_none() {
        assert!(Name::near(STRETCHES as u32, 0).is_none());
        assert!(Name::near(u32::MAX, 0).is_none());
        assert!(Name::near(1, PAGE_MASK + 1).is_none());
        assert!(Name::near(1, u64::MAX).is_none());
    }

    #[test]
    fn a_stretch_keeps_its_name_when_no_more_are_left() {
        let stretches = Stretches::default();
        let first = stretches.intern(1, 1 << PAGE_BITS, 2).expect("room");
        let second = stretches.intern(1, 2 << PAGE_BITS, 2).expect("room");
        assert_ne!(first, second);
        let third = stretches.intern(2, 1 << PAGE_BITS, 2).expect_err("full");
        assert_eq!(third.kind(), ErrorKind::OutOfRange);
        assert_eq!(
            stretches.intern(1, 1 << PAGE_BITS, 2).expect("known"),
            first
        );
        assert_eq!(stretches.far(1, 2 << PAGE_BITS), Some(second));
        assert_eq!(stretches.far(2, 1 << PAGE_BITS), None);
    }
}
