//! The little of Thrift's compact protocol that the official crate keeps to itself: headers of
//! pages, and where a footer says how it was encrypted.
//!
//! github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

/// Structs in structs that are followed. Pages and footers need five.
const DEPTH_MAX: u32 = 16;

pub(super) const TRUE: u8 = 1;
pub(super) const FALSE: u8 = 2;
pub(super) const I32: u8 = 5;
pub(super) const I64: u8 = 6;
pub(super) const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// Reads values one by one. `None` where the bytes end or make no sense.
#[derive(Debug, Clone)]
pub(super) struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The head of a field of a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub id: i16,
    pub kind: u8,
}

impl<'a> Compact<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that were read.
    pub fn position(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(size)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub fn int(&mut self) -> Option<i64> {
        let raw = self.varint()?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    pub fn i32(&mut self) -> Option<i32> {
        i32::try_from(self.int()?).ok()
    }

    pub fn binary(&mut self) -> Option<&'a [u8]> {
        let size = usize::try_from(self.varint()?).ok()?;
        self.take(size)
    }

    /// The next field of a struct whose last one was `last`; `Some(None)` at its end.
    pub fn field(&mut self, last: i16) -> Option<Option<Field>> {
        let head = self.byte()?;
        let kind = head & 0x0f;
        if head == 0 {
            return Some(None);
        }
        let delta = i16::from(head >> 4);
        let id = match delta {
            0 => i16::try_from(self.int()?).ok()?,
            _ => last.checked_add(delta)?,
        };
        Some(Some(Field { id, kind }))
    }

    pub fn skip(&mut self, kind: u8) -> Option<()> {
        self.skip_in(kind, 0)
    }

    fn skip_in(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            TRUE | FALSE => {}
            3 => {
                self.byte()?;
            }
            4..=6 => {
                self.varint()?;
            }
            7 => {
                self.take(8)?;
            }
            BINARY => {
                self.binary()?;
            }
            LIST | 10 => self.skip_list(depth)?,
            11 => self.skip_map(depth)?,
            STRUCT => {
                let mut last = 0;
                while let Some(field) = self.field(last)? {
                    last = field.id;
                    self.skip_in(field.kind, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// The head of a list: its elements and their kind.
    pub fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Some((count, head & 0x0f))
    }

    fn skip_list(&mut self, depth: u32) -> Option<()> {
        let (count, kind) = self.list()?;
        for _ in 0..count {
            self.skip_element(kind, depth)?;
        }
        Some(())
    }

    fn skip_map(&mut self, depth: u32) -> Option<()> {
        let count = self.varint()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        for _ in 0..count {
            self.skip_element(kinds >> 4, depth)?;
            self.skip_element(kinds & 0x0f, depth)?;
        }
        Some(())
    }

    /// A bool has a byte of its own in a list: a loop over a claimed count ends with the bytes.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            TRUE | FALSE => self.byte().map(|_| ()),
            _ => self.skip_in(kind, depth + 1),
        }
    }
}

/// Appends a number as the protocol writes an i32.
pub(super) fn push_i32(into: &mut Vec<u8>, value: i32) {
    let mut raw = ((value << 1) ^ (value >> 31)) as u32;
    while raw >= 0x80 {
        into.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    into.push(raw as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        for value in [0, 1, -1, 63, 64, -64, -65, 1 << 20, i32::MAX, i32::MIN] {
            let mut bytes = Vec::new();
            push_i32(&mut bytes, value);
            assert_eq!(Compact::new(&bytes).i32(), Some(value));
            for cut in 0..bytes.len() {
                assert_eq!(Compact::new(&bytes[..cut]).i32(), None);
            }
        }
        assert_eq!(Compact::new(&[0xff; 11]).varint(), None, "no end");
    }

    #[test]
    fn a_struct_in_a_struct_in_a_struct_ends_somewhere() {
        let deep = [0x1c; 1000];
        assert_eq!(Compact::new(&deep).skip(STRUCT), None);
        let long_list = [0xf5, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(Compact::new(&long_list).skip(9), None);
        let shallow = [0x1c, 0x15, 0x02, 0x00, 0x00];
        let mut reader = Compact::new(&shallow);
        assert_eq!(reader.skip(STRUCT), Some(()));
        assert_eq!(reader.position(), shallow.len());
    }
}
