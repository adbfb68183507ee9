//! Which ranges of a file go where in a buffer.

use crate::base::align_up;
use crate::engine::{Buffer, Context, File, Operation, Options, Ticket, Transfer};
use crate::error::{Error, ErrorKind, Result};

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

    /// Starts to read all pieces into `to`, from `to_offset` on.
    ///
    /// # Errors
    /// `OutOfRange` when they do not fit; what the engine says.
    pub fn submit(
        &self,
        context: &Context,
        file: &File,
        to: &Buffer,
        to_offset: u64,
        options: &Options,
    ) -> Result<Ticket> {
        let transfers = self.pieces.iter().map(|piece| Transfer {
            operation: Operation::Read,
            file: file.clone(),
            file_offset: piece.file_offset,
            buffer: to.clone(),
            buffer_offset: to_offset.saturating_add(piece.to_offset),
            size: piece.size,
        });
        context.submit(transfers.collect(), options)
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
}
