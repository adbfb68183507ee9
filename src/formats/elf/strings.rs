//! String tables.

use std::ffi::CStr;

use super::raw::corrupted;
use crate::error::Result;
use crate::formats::Source;

/// Names that end with a NUL, found by their offset.
#[derive(Debug, Clone, Default)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    /// Where the table begins in the file.
    offset: u64,
    /// Names that begin here or before end inside the table.
    last: usize,
}

/// Longest name, bytes. Without a limit, many names that share one end would take for ever.
const NAME_MAX: usize = 256 << 10;

impl Strings {
    /// Reads the table.
    pub(super) fn read(source: &dyn Source, offset: u64, size: u64) -> Result<Self> {
        let bytes = source.bytes(offset, size, "a string table")?;
        let last = bytes.iter().rposition(|byte| *byte == 0).unwrap_or(0);
        Ok(Self {
            bytes,
            offset,
            last,
        })
    }

    /// The string at `at`; the byte behind it is its NUL. A table that is not there holds the
    /// empty string.
    pub(super) fn get(&self, source: &dyn Source, at: u64) -> Result<&[u8]> {
        if at == 0 && self.bytes.is_empty() {
            return Ok(c"".to_bytes());
        }
        let tail = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..));
        let Some(tail) = tail.filter(|tail| !tail.is_empty()) else {
            let size = self.bytes.len();
            let text = format!("a name at {at} lies outside its string table of {size} bytes");
            return Err(corrupted(source, self.offset, text));
        };
        let head = tail.get(..NAME_MAX).unwrap_or(tail);
        match CStr::from_bytes_until_nul(head) {
            Ok(text) => Ok(text.to_bytes()),
            Err(_) => {
                let text = format!("the name at {at} of a string table does not end");
                Err(corrupted(source, self.offset.saturating_add(at), text))
            }
        }
    }

    /// Whether the name at `at` is this one, however long it is itself.
    pub(super) fn is(&self, at: u64, wanted: &[u8]) -> bool {
        if self.bytes.is_empty() {
            return wanted.is_empty();
        }
        let tail = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..));
        let rest = tail.and_then(|tail| tail.strip_prefix(wanted));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Whether a name at `at` ends inside the table, at little cost.
    pub(super) fn has(&self, at: u64) -> bool {
        match usize::try_from(at) {
            Ok(at) => at <= self.last && self.bytes.get(self.last).is_none_or(|byte| *byte == 0),
            Err(_) => false,
        }
    }

    /// Bytes that it keeps.
    pub(super) fn held(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::MemorySource;

    #[test]
    fn names_end_inside_their_table() {
        let source = MemorySource::new(b"..\0abc\0def".to_vec(), "strings");
        let strings = Strings::read(&source, 2, 8).expect("there");
        assert_eq!(strings.get(&source, 0).expect("empty"), b"");
        assert_eq!(strings.get(&source, 2).expect("a tail"), b"bc");
        assert!(strings.has(4) && !strings.has(5) && !strings.has(u64::MAX));
        assert!(strings.is(1, b"abc") && !strings.is(1, b"ab") && !strings.is(5, b"def"));
        let error = strings.get(&source, 5).expect_err("no NUL");
        assert_eq!(error.offset(), Some(7));
        assert!(strings.get(&source, 8).is_err());
        assert!(strings.get(&source, u64::MAX).is_err());
        assert_eq!(Strings::default().get(&source, 0).expect("none"), b"");
        assert!(Strings::default().get(&source, 1).is_err());
    }
}
