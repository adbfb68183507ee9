//! The memory of columns that the device decodes: flat ones, and what the levels of lists and
//! structs tell of; and the arrays that come of it.

use std::collections::HashMap;

use super::device::{Job, Place, Ready};
use super::failure::corrupted;
use super::lots::joined;
use super::nested::{self, Arrays, Read};
use super::target::Target;
use crate::base::align_up;
use crate::engine::{self, Buffer, MemoryKind, ParquetConversion};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::{Array, Slice};

/// What buffers begin at multiples of, bytes.
const ALIGN: u64 = 64;

/// The memory of a column on the device, before its strings are known.
pub(super) struct Output {
    pub memory: Buffer,
    pub validity: Option<(u64, u64)>,
    /// Values, or offsets of strings.
    pub values: (u64, u64),
}

impl Job<'_> {
    pub(super) fn outputs(&self, targets: &[Target]) -> Result<Vec<Output>> {
        targets.iter().map(|target| self.output(target)).collect()
    }

    /// Reads levels, and lays what they tell of. Or the root of a column that is for the host.
    pub(super) fn lay(
        &self,
        targets: &mut [Target],
        ready: &mut [Ready],
        places: (&Buffer, &Buffer),
    ) -> Result<std::result::Result<(Vec<Output>, Arrays), usize>> {
        let part = |place: Place| place.of(places);
        let mut nested = match self.read_levels(targets, ready, &part)? {
            Read::Levels(nested) => nested,
            Read::Without(root) => return Ok(Err(root)),
            Read::Bad(number, page, status, at) => {
                let page = &self.chunks[number].pages[page];
                let text = format!("levels of a page do not decode: {status:?}, {at} bytes in");
                return Err(corrupted(self.path, page.offset, &text));
            }
        };
        let outputs = self.outputs(targets)?;
        let laid = nested.lay(self.context, &self.shapes, targets, &|number| {
            let output = &outputs[number];
            output.validity.map(|(at, size)| (&output.memory, at, size))
        })?;
        Ok(Ok((outputs, laid)))
    }

    /// Reads the levels of lists and structs.
    pub(super) fn read_levels<'b>(
        &self,
        targets: &mut [Target],
        ready: &mut [Ready],
        part: &dyn Fn(Place) -> engine::Part<'b>,
    ) -> Result<Read<'b>> {
        let mut of = HashMap::new();
        for (number, target) in targets.iter().enumerate() {
            let chunks = self.of(target).zip(self.parts);
            of.extend(chunks.map(|(chunk, part)| (chunk, (number, part.count))));
        }
        let page = |ready: &Ready| {
            let header = &self.chunks[ready.chunk].pages[ready.page].header;
            let levels = ready.levels.map(|levels| {
                let reps = u64::from(header.repetition_size).min(levels.size);
                let (defs, size) = (levels.offset + reps, levels.size - reps);
                [
                    part(Place {
                        size: reps,
                        ..levels
                    }),
                    part(Place {
                        offset: defs,
                        size,
                        ..levels
                    }),
                ]
            });
            (part(ready.data), levels)
        };
        nested::read(self.context, &self.shapes, targets, ready, &of, &page)
    }

    /// Memory for a column: validity and bits are zero.
    pub(super) fn output(&self, target: &Target) -> Result<Output> {
        let words = 4 * target.rows.div_ceil(32);
        let padded = |size: u64| align_up(size, ALIGN).unwrap_or(u64::MAX);
        let too_long = || {
            let text = format!(
                "decode {} rows: that passes what can be addressed",
                target.rows
            );
            Error::new(ErrorKind::OutOfRange, text)
        };
        let values = match target.conversion {
            ParquetConversion::Bits => words,
            ParquetConversion::Bytes => 4 * (target.rows + 1),
            _ => target
                .rows
                .checked_mul(u64::from(target.width_out))
                .ok_or_else(too_long)?,
        };
        let validity = if target.has_levels { padded(words) } else { 0 };
        let size = validity.checked_add(padded(values)).ok_or_else(too_long)?;
        let memory = self.context.alloc(MemoryKind::Device, size.max(ALIGN))?;
        let is_bits = target.conversion == ParquetConversion::Bits;
        let zero = if is_bits { size } else { validity };
        self.context.zero(&memory, 0, zero)?;
        if self.is_string(target) {
            // Without rows no page writes the offset that is there all the same.
            self.context.upload(&[(&[0; 4], &memory, validity)])?;
        }
        Ok(Output {
            validity: target.has_levels.then_some((0, words)),
            values: (validity, values),
            memory,
        })
    }

    pub(super) fn array(
        &self,
        target: &Target,
        output: Output,
        present: u64,
        strings: Vec<(Buffer, u64)>,
    ) -> Result<Array> {
        let nulls = match output.validity {
            Some(_) => target.rows.saturating_sub(present),
            None => 0,
        };
        let slice = |(offset, size): (u64, u64)| Slice {
            buffer: output.memory.clone(),
            offset,
            size,
        };
        let mut buffers = vec![
            output.validity.filter(|_| nulls > 0).map(slice),
            Some(slice(output.values)),
        ];
        if self.is_string(target) {
            let (buffer, size) = joined(self.context, strings)?;
            let offset = 0;
            buffers.push(Some(Slice {
                buffer,
                offset,
                size,
            }));
        }
        Ok(Array {
            data_type: target.field.data_type().clone(),
            len: target.rows,
            null_count: Some(nulls),
            offset: 0,
            buffers,
            children: Vec::new(),
            dictionary: None,
        })
    }
}
