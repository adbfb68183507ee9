//! Memory that direct I/O takes: whole blocks at a block's alignment.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

use super::BLOCK;
use crate::error::{Error, ErrorKind, Result};

/// Largest memory that is kept for the next one who needs as much: the system's fresh pages cost
/// as long as reading a fast disk into them.
const KEPT_MAX: usize = 1 << 20;
/// Pieces smaller than this, pages of small values most of all, do not crowd larger ones out.
const LARGE: usize = 64 << 10;
/// How many pieces of each kind are kept at most, in the whole process.
const KEPT: usize = 16;

/// Memory that nobody uses at the moment.
type Spare = Mutex<Vec<Blocks>>;
static SMALL: Spare = Mutex::new(Vec::new());
static SPARE: Spare = Mutex::new(Vec::new());

/// Where memory of `size` bytes is kept.
fn spare_of(size: usize) -> Option<&'static Spare> {
    match size {
        ..LARGE => Some(&SMALL),
        LARGE..=KEPT_MAX => Some(&SPARE),
        _ => None,
    }
}

/// Block-aligned memory of whole blocks, zero at first.
pub struct Blocks {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory alone, as a Box<[u8]> does.
unsafe impl Send for Blocks {}
// SAFETY: shared references only read.
unsafe impl Sync for Blocks {}

impl Blocks {
    /// Zeroed memory of `len` bytes, rounded up to whole blocks (one at least).
    ///
    /// # Errors
    /// `OutOfHostMemory`.
    pub fn new(len: usize) -> Result<Self> {
        let failed = || {
            let message = format!("allocate {len} bytes for blocks: the system has no memory left");
            Error::new(ErrorKind::OutOfHostMemory, message)
        };
        let size = len
            .max(1)
            .checked_next_multiple_of(BLOCK)
            .ok_or_else(failed)?;
        let layout = Layout::from_size_align(size, BLOCK).map_err(|_| failed())?;
        // SAFETY: the layout's size is not zero.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(failed)?;
        Ok(Self { pointer, layout })
    }

    /// As `new`, but it may hold anything: memory that others have used.
    ///
    /// # Errors
    /// As `new`.
    pub fn used(len: usize) -> Result<Self> {
        let size = len.max(1).checked_next_multiple_of(BLOCK).unwrap_or(len);
        if let Some(spare) = spare_of(size) {
            let mut spare = spare.lock();
            let fits = |blocks: &Blocks| blocks.layout.size() == size;
            // The last that came is the likeliest to lie in the processor's cache.
            if let Some(at) = spare.iter().rposition(fits) {
                return Ok(spare.remove(at));
            }
        }
        Self::new(len)
    }

    /// Gives what is kept for later back to the system.
    pub fn trim() {
        // Taken out first: each piece looks for a place among them when it drops.
        for spare in [&SMALL, &SPARE] {
            let spare = std::mem::take(&mut *spare.lock());
            for blocks in spare {
                blocks.free();
            }
        }
    }

    fn free(self) {
        let blocks = std::mem::ManuallyDrop::new(self);
        // SAFETY: allocated with this layout, freed once: it does not drop.
        unsafe { dealloc(blocks.pointer.as_ptr(), blocks.layout) };
    }

    /// A copy of `bytes`, padded with zeros to whole blocks.
    ///
    /// # Errors
    /// As `new`.
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut blocks = Self::used(bytes.len())?;
        let (head, tail) = blocks.split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        tail.fill(0);
        Ok(blocks)
    }

    /// All of it.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: allocated and initialised with this size, owned by self.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.layout.size()) }
    }

    /// All of it, to change.
    #[inline]
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // Its new owner; this one is gone when the call ends.
        let kept = Self {
            pointer: self.pointer,
            layout: self.layout,
        };
        let Some(spare) = spare_of(kept.layout.size()) else {
            return kept.free();
        };
        let mut spare = spare.lock();
        // The one that lay here longest: sizes that nobody asks for do not stay.
        let oldest = (spare.len() >= KEPT).then(|| spare.remove(0));
        spare.push(kept);
        drop(spare);
        if let Some(oldest) = oldest {
            oldest.free();
        }
    }
}

/// Blocks that nobody changes any more; copies are the same memory. What is read needs no look at
/// the count of its owners.
#[derive(Clone)]
pub struct SharedBlocks {
    pointer: NonNull<u8>,
    len: usize,
    _owner: Arc<Blocks>,
}

// SAFETY: as `Blocks`, which it owns; nobody has it to change.
unsafe impl Send for SharedBlocks {}
// SAFETY: shared references only read.
unsafe impl Sync for SharedBlocks {}

impl From<Blocks> for SharedBlocks {
    fn from(blocks: Blocks) -> Self {
        Self {
            pointer: blocks.pointer,
            len: blocks.layout.size(),
            _owner: Arc::new(blocks),
        }
    }
}

impl Deref for SharedBlocks {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the owner's memory, which lives as long and is not changed.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl fmt::Debug for SharedBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBlocks({} bytes)", self.len)
    }
}

impl Deref for Blocks {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl DerefMut for Blocks {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({} bytes)", self.layout.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_whole_and_zero() {
        for (asked, size) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192)] {
            let mut blocks = Blocks::new(asked).expect("memory");
            assert_eq!(blocks.as_ptr() as usize % BLOCK, 0);
            assert_eq!(blocks.as_slice(), vec![0; size]);
            blocks[size - 1] = 1;
        }
        let copy = Blocks::copy_of(&[7; 5000]).expect("memory");
        assert_eq!(&copy[..5000], [7; 5000]);
        assert_eq!(&copy[5000..], [0; 3192]);
    }

    #[test]
    fn used_memory_has_one_owner_and_copies_of_it_are_padded() {
        let size = LARGE + 3 * BLOCK;
        let held: Vec<Blocks> = (0..2 * KEPT)
            .map(|_| Blocks::used(size).expect("memory"))
            .collect();
        let mut places: Vec<usize> = held.iter().map(|b| b.as_ptr() as usize).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 2 * KEPT);
        for mut blocks in held {
            blocks.fill(9);
        }
        assert!(SPARE.lock().len() <= KEPT);
        let copy = Blocks::copy_of(&vec![7; size - 100]).expect("memory");
        assert_eq!(copy.len(), size);
        assert!(copy[size - 100..].iter().all(|b| *b == 0));
        let fresh = Blocks::new(size).expect("memory");
        assert!(fresh.iter().all(|b| *b == 0));
    }

    #[test]
    fn shared_blocks_hold_their_memory_until_the_last_copy_goes() {
        let size = 7 * BLOCK;
        let shared = SharedBlocks::from(Blocks::copy_of(&vec![5; size]).expect("memory"));
        let copy = shared.clone();
        drop(shared);
        let others: Vec<Blocks> = (0..2 * KEPT)
            .map(|_| Blocks::used(size).expect("memory"))
            .collect();
        assert!(others.iter().all(|b| b.as_ptr() != copy.as_ptr()));
        assert_eq!(&*copy, vec![5; size]);
        drop(others);
        assert!(SMALL.lock().len() <= KEPT);
    }
}
