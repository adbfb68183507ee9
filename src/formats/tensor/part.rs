//! Parts of tensors: a range along one dimension, such as the share of one of n devices.

use super::{Tensor, elements_of};
use crate::base::limits;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Plan;

/// A part of a tensor along one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Elements `begin..end` of this dimension.
    Range {
        /// Which dimension, from 0, the slowest.
        dimension: usize,
        /// The first element.
        begin: u64,
        /// Behind the last one.
        end: u64,
    },
    /// The share of `rank` when `of` devices share the dimension evenly. Where it does not divide
    /// evenly the first ranks have one element more (as `numpy.array_split`).
    Share {
        /// Which dimension, from 0, the slowest.
        dimension: usize,
        /// Which share, from 0.
        rank: u64,
        /// Shares in all.
        of: u64,
    },
}

/// A part of a tensor, checked: its shape and which bytes of the file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Elements along each dimension.
    pub shape: Vec<u64>,
    /// Bytes of the part.
    pub size: u64,
    /// Where its first bytes are in the file.
    first: u64,
    /// Bytes that stand together.
    run: u64,
    /// Bytes from one run to the next.
    pitch: u64,
    /// Runs.
    count: u64,
}

impl Part {
    /// The whole tensor.
    #[must_use]
    pub fn whole(tensor: &Tensor) -> Self {
        Self {
            shape: tensor.shape.clone(),
            size: tensor.size,
            first: tensor.file_offset,
            run: tensor.size,
            pitch: tensor.size,
            count: 1,
        }
    }

    /// A part along one dimension.
    ///
    /// # Errors
    /// `OutOfRange` when the tensor has no such dimension or elements; `NotSupported` when the
    /// part would begin or end within a block of its type.
    pub fn of(tensor: &Tensor, cut: Cut) -> Result<Self> {
        let (dimension, begin, end) = range_of(tensor, cut)?;
        let mut shape = tensor.shape.clone();
        let whole = shape[dimension];
        shape[dimension] = end - begin;
        let (outer, rest) = (&tensor.shape[..dimension], &tensor.shape[dimension + 1..]);
        let wrong = || beyond(tensor, "its elements cannot be counted");
        if end - begin == whole {
            return Ok(Self::whole(tensor));
        }
        if elements_of(&tensor.shape) == Some(0) || begin == end {
            let (size, count) = (0, 0);
            return Ok(Self {
                shape,
                size,
                first: tensor.file_offset,
                run: 0,
                pitch: 0,
                count,
            });
        }
        // Nothing here is zero, so what the whole tensor holds is an upper bound.
        let inner = elements_of(rest).ok_or_else(wrong)?;
        let count = elements_of(outer).ok_or_else(wrong)?;
        let bytes = |elements: u64| {
            let elements = elements.checked_mul(inner)?;
            tensor.dtype.bytes_of(elements)
        };
        let (Some(skip), Some(run), Some(pitch)) = (bytes(begin), bytes(end - begin), bytes(whole))
        else {
            let message = format!(
                "take elements {begin} to {end} of dimension {dimension} of tensor {}: they begin \
                 or end within a block of {} elements of type {}; cut at multiples of it",
                tensor.name,
                tensor.dtype.block_elements(),
                tensor.dtype
            );
            return Err(Error::new(ErrorKind::NotSupported, message));
        };
        // Runs that follow each other are one.
        let (run, pitch, count) = match run == pitch {
            true => (tensor.size, tensor.size, 1),
            false => (run, pitch, count),
        };
        Ok(Self {
            shape,
            size: run.checked_mul(count).ok_or_else(wrong)?,
            first: tensor.file_offset + skip,
            run,
            pitch,
            count,
        })
    }

    /// Pieces that it takes to read it.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        if self.size == 0 { 0 } else { self.count }
    }

    /// Whether its bytes stand together in the file.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.count <= 1
    }

    /// Where its first byte is in the file.
    #[must_use]
    pub fn file_offset(&self) -> u64 {
        self.first
    }

    /// Adds it to a plan, its bytes packed from `to_offset` of the destination on.
    ///
    /// # Errors
    /// `OutOfRange` when the plan would have more pieces than a plan may have, or pass what can
    /// be addressed.
    pub fn add_to(&self, plan: &mut Plan, to_offset: u64) -> Result<()> {
        let pieces = (plan.pieces().len() as u64).saturating_add(self.pieces());
        if pieces > limits::PLAN_PIECES_MAX {
            let message = format!(
                "plan {pieces} pieces: a plan has at most {}; cut along an earlier dimension, or \
                 use several plans",
                limits::PLAN_PIECES_MAX
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        if self.size == 0 {
            return plan.push_at(self.first, 0, to_offset);
        }
        for index in 0..self.count {
            let from = self.first + index * self.pitch;
            plan.push_at(from, self.run, to_offset.saturating_add(index * self.run))?;
        }
        Ok(())
    }
}

fn range_of(tensor: &Tensor, cut: Cut) -> Result<(usize, u64, u64)> {
    let (Cut::Range { dimension, .. } | Cut::Share { dimension, .. }) = cut;
    let Some(whole) = tensor.shape.get(dimension).copied() else {
        let dimensions = tensor.shape.len();
        let what = format!("dimension {dimension} was asked for, it has {dimensions}");
        return Err(beyond(tensor, &what));
    };
    let (begin, end) = match cut {
        Cut::Range { begin, end, .. } => (begin, end),
        Cut::Share { rank, of, .. } if rank < of => {
            let (each, more) = (whole / of, whole % of);
            let begin = rank * each + rank.min(more);
            (begin, begin + each + u64::from(rank < more))
        }
        Cut::Share { rank, of, .. } => {
            return Err(beyond(
                tensor,
                &format!("share {rank} of {of}; shares count from 0"),
            ));
        }
    };
    if begin > end || end > whole {
        let what = format!("elements {begin} to {end} of dimension {dimension}, it has {whole}");
        return Err(beyond(tensor, &what));
    }
    Ok((dimension, begin, end))
}

fn beyond(tensor: &Tensor, what: &str) -> Error {
    let message = format!("take a part of tensor {}: {what}", tensor.name);
    Error::new(ErrorKind::OutOfRange, message)
}

#[cfg(test)]
mod tests {
    use super::super::Dtype;
    use super::*;

    fn tensor(shape: &[u64], dtype: &str) -> Tensor {
        let dtype = Dtype::all().find(|d| d.name() == dtype).expect("a type");
        let elements = elements_of(shape).expect("small");
        Tensor {
            name: "t".into(),
            dtype,
            shape: shape.to_vec(),
            file_offset: 1000,
            size: dtype.bytes_of(elements).expect("whole blocks"),
            file: 0,
        }
    }

    /// What a plain loop over all elements says the part is.
    fn slow(tensor: &Tensor, dimension: usize, begin: u64, end: u64) -> Vec<u64> {
        let inner: u64 = tensor.shape[dimension + 1..].iter().product();
        let whole = tensor.shape[dimension];
        let wanted = |e: &u64| (begin..end).contains(&(e / inner % whole));
        (0..tensor.elements()).filter(wanted).collect()
    }

    #[test]
    fn cuts_are_what_a_plain_loop_takes() {
        let tensor = tensor(&[3, 4, 5, 2], "U16");
        for dimension in 0..4 {
            let whole = tensor.shape[dimension];
            for begin in 0..=whole {
                for end in begin..=whole {
                    let cut = Cut::Range {
                        dimension,
                        begin,
                        end,
                    };
                    let part = Part::of(&tensor, cut).expect("in range");
                    let mut plan = Plan::new();
                    part.add_to(&mut plan, 64).expect("small");
                    let mut found = Vec::new();
                    let mut at = 64;
                    for piece in plan.pieces() {
                        assert_eq!(piece.to_offset, at, "packed");
                        at += piece.size;
                        let first = (piece.file_offset - 1000) / 2;
                        found.extend(first..first + piece.size / 2);
                    }
                    assert_eq!(found, slow(&tensor, dimension, begin, end), "{cut:?}");
                    assert_eq!(part.size, found.len() as u64 * 2);
                    assert_eq!(part.shape[dimension], end - begin);
                }
            }
        }
    }

    #[test]
    fn shares_are_those_of_array_split() {
        let tensor = tensor(&[10, 3], "F32");
        let mut ends = Vec::new();
        for rank in 0..4 {
            let cut = Cut::Share {
                dimension: 0,
                rank,
                of: 4,
            };
            let part = Part::of(&tensor, cut).expect("a share");
            assert!(part.is_contiguous());
            ends.push(part.shape[0]);
        }
        assert_eq!(ends, [3, 3, 2, 2]);
        for (dimension, rank, of) in [(2, 0, 1), (0, 4, 4), (0, 0, 0)] {
            let refused = Part::of(
                &tensor,
                Cut::Share {
                    dimension,
                    rank,
                    of,
                },
            );
            assert_eq!(refused.expect_err("none").kind(), ErrorKind::OutOfRange);
        }
        for (begin, end) in [(3, 2), (0, 11), (u64::MAX, u64::MAX)] {
            let cut = Cut::Range {
                dimension: 0,
                begin,
                end,
            };
            assert!(Part::of(&tensor, cut).is_err());
        }
    }

    #[test]
    fn blocks_are_not_cut_apart() {
        let quantized = tensor(&[4, 512], "Q4_K");
        let half = |begin, end| {
            Part::of(
                &quantized,
                Cut::Range {
                    dimension: 1,
                    begin,
                    end,
                },
            )
        };
        assert_eq!(half(256, 512).expect("a block").size, 4 * 144);
        assert_eq!(
            half(0, 100).expect_err("within").kind(),
            ErrorKind::NotSupported
        );
        let narrow = tensor(&[3, 2], "F4");
        let cut = Cut::Range {
            dimension: 1,
            begin: 0,
            end: 1,
        };
        assert!(Part::of(&narrow, cut).is_err(), "half a byte");
        let rows = Cut::Range {
            dimension: 0,
            begin: 1,
            end: 3,
        };
        assert_eq!(Part::of(&narrow, rows).expect("bytes").size, 2);
        let nothing = tensor(&[0, 7], "F32");
        let cut = Cut::Range {
            dimension: 1,
            begin: 2,
            end: 5,
        };
        assert_eq!(Part::of(&nothing, cut).expect("nothing").size, 0);
    }
}
