//! Memory that direct I/O takes: whole blocks at a block's alignment. The only file of this room
//! with `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::BLOCK;
use crate::error::{Error, ErrorKind, Result};

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

    /// A copy of `bytes`, padded with zeros to whole blocks.
    ///
    /// # Errors
    /// As `new`.
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut blocks = Self::new(bytes.len())?;
        blocks[..bytes.len()].copy_from_slice(bytes);
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
}
