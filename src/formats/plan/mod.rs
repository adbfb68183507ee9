//! Which ranges of a file go where in a buffer, and how they are read.
//!
//! Pieces that are neighbours in the file are read together: straight into the destination where
//! it mirrors the file, through a little scratch memory where it does not (`ranges` decides, `load`
//! carries out). What does not fit into memory at once comes in windows (`window`).

mod load;
mod ranges;
mod started;
mod window;

use crate::base::{align_down, align_up, is_aligned};
use crate::engine::{Buffer, Context, File, Options, Ticket};
use crate::error::{Error, ErrorKind, Result};

pub use load::{Load, ReadOptions};
pub use ranges::Outline;
pub use started::Started;
pub use window::{Window, WindowPart};

/// Reads around the page cache land in place where destination and file offset leave the same
/// rest by this.
const DIRECT: u64 = 4096;
/// Pieces smaller than this are not moved apart for it.
const DIRECT_MIN: u64 = 64 << 10;

/// A range of a file and its place in the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file, bytes.
    pub file_offset: u64,
    /// Bytes.
    pub size: u64,
    /// Offset in the destination, bytes.
    pub to_offset: u64,
}

/// Ranges of one file and where each goes in one destination. Made by a reader of a format, or
/// piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pieces: Vec<Piece>,
    size: u64,
}

impl Plan {
    /// Nothing to read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range behind all others, at a multiple of `align` (a power of two); its offset in
    /// the destination.
    ///
    /// # Errors
    /// `OutOfRange` when the destination would pass what can be addressed.
    pub fn push(&mut self, file_offset: u64, size: u64, align: u64) -> Result<u64> {
        let to_offset = align_up(self.size, align).unwrap_or(u64::MAX);
        self.push_at(file_offset, size, to_offset)?;
        Ok(to_offset)
    }

    /// As `push`, and where the piece is large and the file offset allows, at an offset that
    /// leaves the same rest by 4096 as the file's: read around the page cache into host memory,
    /// it lands in place. Costs at most 4095 bytes of padding.
    ///
    /// # Errors
    /// As `push`.
    pub fn push_congruent(&mut self, file_offset: u64, size: u64, align: u64) -> Result<u64> {
        if size < DIRECT_MIN || align > DIRECT || !is_aligned(file_offset, align) {
            return self.push(file_offset, size, align);
        }
        let rest = file_offset - align_down(file_offset, DIRECT);
        let base = align_down(self.size, DIRECT).saturating_add(rest);
        let to_offset = match base < self.size {
            true => base.saturating_add(DIRECT),
            false => base,
        };
        self.push_at(file_offset, size, to_offset)?;
        Ok(to_offset)
    }

    /// Adds a range at this offset of the destination. Places of pieces must not overlap.
    ///
    /// # Errors
    /// As `push`.
    pub fn push_at(&mut self, file_offset: u64, size: u64, to_offset: u64) -> Result<()> {
        let end = to_offset.checked_add(size);
        let (Some(end), Some(_)) = (end, file_offset.checked_add(size)) else {
            let message = format!(
                "plan {size} bytes from {file_offset} to {to_offset}: that passes what can be \
                 addressed"
            );
            return Err(Error::new(ErrorKind::OutOfRange, message).with_offset(file_offset));
        };
        self.size = self.size.max(end);
        if size > 0 {
            self.pieces.push(Piece {
                file_offset,
                size,
                to_offset,
            });
        }
        Ok(())
    }

    /// The pieces, as they were added.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Bytes of the destination.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are wanted of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|p| p.size).sum()
    }

    /// Starts to read all pieces into `to`, from `to_offset` on. Neighbours are read together
    /// where the destination mirrors the file; bytes of the destination between them are
    /// unspecified then. `Load::read` also gathers small pieces.
    ///
    /// # Errors
    /// `OutOfRange` when they do not fit; `Corrupted` when the file ends before they do; what
    /// the engine says.
    pub fn submit(
        &self,
        context: &Context,
        file: &File,
        to: &Buffer,
        to_offset: u64,
        options: &Options,
    ) -> Result<Ticket> {
        let options = ReadOptions {
            transfer: options.clone(),
            ..ReadOptions::default()
        };
        load::submit(context, &[(file, self)], to, to_offset, &options)
    }

    /// How it would be read with this gap, bytes.
    #[must_use]
    pub fn outline(&self, gap: u64) -> Outline {
        Outline::of(&ranges::cut(self, gap, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_at_aligned_places() {
        let mut plan = Plan::new();
        assert_eq!(plan.push(1000, 10, 64).expect("fits"), 0);
        assert_eq!(
            plan.push(7, 0, 64).expect("fits"),
            64,
            "nothing has a place too"
        );
        assert_eq!(plan.push(5, 65, 64).expect("fits"), 64);
        assert_eq!(plan.push(0, 1, 1).expect("fits"), 129);
        assert_eq!(
            (plan.pieces().len(), plan.size(), plan.bytes()),
            (3, 130, 76)
        );
        assert!(plan.push(u64::MAX, 2, 1).is_err());
        assert!(plan.push_at(0, 2, u64::MAX).is_err());
        assert_eq!(plan.size(), 130);
    }

    #[test]
    fn large_pieces_land_where_direct_reads_want_them() {
        let mut plan = Plan::new();
        assert_eq!(
            plan.push_congruent(4096 + 64, 1 << 20, 64).expect("fits"),
            64
        );
        let at = plan.push_congruent(8192 + 128, 1 << 20, 64).expect("fits");
        assert_eq!(at % 4096, 128);
        assert!((64 + (1 << 20)..64 + (1 << 20) + 4096 + 128).contains(&at));
        let small = plan.push_congruent(8192 + 128, 100, 64).expect("fits");
        assert_eq!(small, align_up(at + (1 << 20), 64).expect("fits"));
        let odd = plan.push_congruent(8, 1 << 20, 256).expect("fits");
        assert!(is_aligned(odd, 256), "what was asked for comes first");
    }
}
