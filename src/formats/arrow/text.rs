//! Whether texts are UTF-8 and views point to what is there.

use super::validate::{Look, is_valid, unsigned, wrong_value as wrong};
use crate::error::Result;
use crate::formats::Slice;

/// Bytes of texts that are looked at together.
const CHUNK: u64 = 256 << 10;
/// Views of at most this many bytes hold them.
const INLINE: u64 = 12;

/// Texts between offsets, which are in order and inside (from the first to the last one).
pub(super) fn of_offsets<const N: usize>(look: &Look<'_>, (first, last): (u64, u64)) -> Result<()> {
    let Some(slice) = look.slice(2) else {
        return match last {
            0 => Ok(()),
            _ => Err(wrong("texts that are not there")),
        };
    };
    if utf8(look, slice, first, last)? {
        return Ok(());
    }
    // All ASCII: every offset is at the start of a character. Else look.
    let Some(offsets) = look.slice(1) else {
        return Ok(());
    };
    let mut window = Window::new(look, slice, last);
    look.values::<N>(
        offsets,
        look.array.offset,
        look.array.len + 1,
        |_, values| {
            for value in values {
                let at = unsigned(value);
                if at < last && window.byte(at)? & 0xC0 == 0x80 {
                    return Err(wrong(format!(
                        "a text begins inside of a character, at {at}"
                    )));
                }
            }
            Ok(())
        },
    )
}

/// Bytes of a buffer, some at a time, for places that rise.
struct Window<'a> {
    look: &'a Look<'a>,
    slice: &'a Slice,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(look: &'a Look<'a>, slice: &'a Slice, end: u64) -> Self {
        Self {
            look,
            slice,
            end,
            start: 0,
            bytes: Vec::new(),
        }
    }

    fn byte(&mut self, at: u64) -> Result<u8> {
        let within = at.wrapping_sub(self.start);
        if let Some(byte) = self.bytes.get(within as usize).filter(|_| at >= self.start) {
            return Ok(*byte);
        }
        self.start = at;
        let size = (self.end - at).min(CHUNK);
        self.bytes.resize(size as usize, 0);
        let from = self.slice.offset + at;
        let context = self.look.context;
        context.download(&self.slice.buffer, from, &mut self.bytes)?;
        Ok(self.bytes.first().copied().unwrap_or(0))
    }
}

/// Whether these bytes, which are UTF-8, are ASCII.
fn utf8(look: &Look<'_>, slice: &Slice, first: u64, last: u64) -> Result<bool> {
    let mut ascii = true;
    let mut bytes = Vec::new();
    let mut at = first;
    // Bytes of a character that a chunk has cut.
    let mut kept: usize = 0;
    while at < last {
        let size = (last - at).min(CHUNK) as usize;
        bytes.resize(kept + size, 0);
        let into = bytes.get_mut(kept..).unwrap_or_default();
        look.context
            .download(&slice.buffer, slice.offset + at, into)?;
        at += size as u64;
        // Most texts are, and that is seen sooner.
        if kept == 0 && bytes.is_ascii() {
            continue;
        }
        ascii = false;
        kept = match std::str::from_utf8(&bytes) {
            Ok(_) => 0,
            Err(cut) if cut.error_len().is_none() && at < last => {
                let from = cut.valid_up_to();
                bytes.drain(..from);
                bytes.len()
            }
            Err(bad) => {
                let from = at - bytes.len() as u64 + bad.valid_up_to() as u64;
                return Err(wrong(format!("a text is not UTF-8 at {from}")));
            }
        };
    }
    Ok(ascii)
}

/// Views, and what they point to.
pub(super) fn of_views(look: &Look<'_>, is_text: bool) -> Result<()> {
    let Some(views) = look.slice(1) else {
        return Err(wrong("views that are not there"));
    };
    let valid = look.valid()?;
    // Views point anywhere into their buffers, so those are wanted whole.
    let mut data: Vec<Vec<u8>> = Vec::new();
    for index in 2..look.array.buffers.len() {
        let mut bytes = Vec::new();
        if let Some(slice) = look.slice(index) {
            bytes.resize(slice.size as usize, 0);
            let context = look.context;
            context.download(&slice.buffer, slice.offset, &mut bytes)?;
        }
        data.push(bytes);
    }
    let start = look.array.offset;
    look.values::<16>(views, start, look.array.len, |at, views| {
        for (index, view) in views.iter().enumerate() {
            let index = at + index as u64;
            if is_valid(valid.as_deref(), start + index) {
                of_view(view, &data, is_text, index)?;
            } else {
                // Nobody's value, but readers in Rust follow it all the same.
                pointed_to(view, &data, index)?;
            }
        }
        Ok(())
    })
}

/// The bytes that a view points to; none when it holds them itself.
fn pointed_to<'a>(view: &[u8; 16], data: &'a [Vec<u8>], index: u64) -> Result<Option<&'a [u8]>> {
    let [size, _, buffer, offset] = parts(view);
    if u64::from(size) <= INLINE {
        return Ok(None);
    }
    let from = offset as usize;
    let found = data
        .get(buffer as usize)
        .and_then(|bytes| bytes.get(from..from.checked_add(size as usize)?));
    if found.is_none() || i32::try_from(size).is_err() {
        let what = format!("view {index}: {size} bytes at {offset} of buffer {buffer}");
        return Err(wrong(what));
    }
    Ok(found)
}

fn of_view(view: &[u8; 16], data: &[Vec<u8>], is_text: bool, index: u64) -> Result<()> {
    let [size, prefix, ..] = parts(view);
    let bytes = if let Some(bytes) = pointed_to(view, data, index)? {
        if !bytes.starts_with(&prefix.to_le_bytes()) {
            return Err(wrong(format!(
                "view {index} begins unlike what it points to"
            )));
        }
        bytes
    } else {
        let (held, rest) = view.split_at(4).1.split_at(size as usize);
        if rest.iter().any(|byte| *byte != 0) {
            return Err(wrong(format!("view {index} has bytes behind its end")));
        }
        held
    };
    if is_text && std::str::from_utf8(bytes).is_err() {
        return Err(wrong(format!("view {index} is not UTF-8")));
    }
    Ok(())
}

/// A view as its four little-endian words.
fn parts(view: &[u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(view.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}
