//! Memory that direct I/O takes: whole blocks at a block's alignment.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use parking_lot::Mutex;

use super::BLOCK;
use crate::error::{Error, ErrorKind, Result};

/// Sizes of memory that is kept for the next one who needs as much: the system's fresh pages cost
/// as long as reading a fast disk into them.
const KEPT_MIN: usize = 64 << 10;
const KEPT_MAX: usize = 1 << 20;
/// How many pieces are kept at most, in the whole process.
const KEPT: usize = 16;

/// Memory that nobody uses at the moment.
static SPARE: Mutex<Vec<Blocks>> = Mutex::new(Vec::new());

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
        let size = len.max(1).checked_next_multiple_of(BLOCK);
        if size.is_some_and(|size| (KEPT_MIN..=KEPT_MAX).contains(&size)) {
            let mut spare = SPARE.lock();
            let fits = |blocks: &Blocks| Some(blocks.layout.size()) == size;
            if let Some(at) = spare.iter().position(fits) {
                return Ok(spare.swap_remove(at));
            }
        }
        Self::new(len)
    }

    /// Gives what is kept for later back to the system.
    pub fn trim() {
        // Taken out first: each piece looks for a place among them when it drops.
        let spare = std::mem::take(&mut *SPARE.lock());
        for blocks in spare {
            blocks.free();
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
        if (KEPT_MIN..=KEPT_MAX).contains(&self.layout.size()) {
            let mut spare = SPARE.lock();
            if spare.len() < KEPT {
                // Its new owner; this one is gone when the call ends.
                spare.push(Self {
                    pointer: self.pointer,
                    layout: self.layout,
                });
                return;
            }
        }
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
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
        let size = KEPT_MIN + 3 * BLOCK;
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
}
