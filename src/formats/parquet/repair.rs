//! Footers whose fields have other types than the format gives them.
//!
//! A writer of old gave an unused number to a field of its own; the format later gave it to
//! another. Thrift says that a field of an unexpected type is passed over. The official crate
//! takes its bytes for the expected type instead, and loses its place. So a footer that it cannot
//! read is tried again without such fields.

use super::thrift::{Compact, I32, I64, LIST, STRUCT, push_i32};

/// Where in a footer a struct stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// FileMetaData.
    File,
    /// RowGroup.
    Group,
    /// ColumnChunk.
    Chunk,
    /// ColumnMetaData.
    Metadata,
}

/// Types of the fields of ColumnMetaData, by number.
const METADATA: [u8; 18] = [
    0, I32, LIST, LIST, I32, I64, I64, I64, LIST, I64, I64, I64, STRUCT, LIST, I64, I32, STRUCT,
    STRUCT,
];

/// A footer without fields of unexpected types. `None` when there are none of them, or it makes no
/// sense.
pub(super) fn repaired(footer: &[u8]) -> Option<Vec<u8>> {
    let mut made = Vec::with_capacity(footer.len());
    let mut reader = Compact::new(footer);
    copy(&mut reader, footer, &mut made, Level::File)?;
    (made.len() < reader.position()).then_some(made)
}

fn is_expected(level: Level, id: i16, kind: u8) -> bool {
    let known = usize::try_from(id).ok().and_then(|id| METADATA.get(id));
    level != Level::Metadata || known.is_none_or(|expected| *expected == kind)
}

fn copy(reader: &mut Compact<'_>, bytes: &[u8], into: &mut Vec<u8>, level: Level) -> Option<()> {
    let (mut last, mut written) = (0, 0);
    while let Some(field) = reader.field(last)? {
        last = field.id;
        if !is_expected(level, field.id, field.kind) {
            reader.skip(field.kind)?;
            continue;
        }
        match u8::try_from(i32::from(field.id) - i32::from(written)) {
            Ok(delta @ 1..=15) => into.push(delta << 4 | field.kind),
            _ => {
                into.push(field.kind);
                push_i32(into, field.id.into());
            }
        }
        written = field.id;
        let from = reader.position();
        match (level, field.id, field.kind) {
            (Level::File, 4, LIST) => copy_list(reader, bytes, into, Level::Group)?,
            (Level::Group, 1, LIST) => copy_list(reader, bytes, into, Level::Chunk)?,
            (Level::Chunk, 3, STRUCT) => copy(reader, bytes, into, Level::Metadata)?,
            _ => {
                reader.skip(field.kind)?;
                into.extend_from_slice(bytes.get(from..reader.position())?);
            }
        }
    }
    into.push(0);
    Some(())
}

fn copy_list(
    reader: &mut Compact<'_>,
    bytes: &[u8],
    into: &mut Vec<u8>,
    level: Level,
) -> Option<()> {
    let from = reader.position();
    let (count, kind) = reader.list()?;
    into.extend_from_slice(bytes.get(from..reader.position())?);
    if kind != STRUCT {
        return None;
    }
    for _ in 0..count {
        copy(reader, bytes, into, level)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_of_unexpected_types_go() {
        // Row groups, of which one has one column, whose metadata have the fields 1, 15 and 16;
        // 15 is a list here.
        let with = [
            0x49, 0x1c, 0x19, 0x1c, 0x3c, 0x15, 2, 0xe9, 0x15, 4, 0x1c, 0, 0, 0, 0, 0,
        ];
        let without = [0x49, 0x1c, 0x19, 0x1c, 0x3c, 0x15, 2, 0xfc, 0, 0, 0, 0, 0];
        assert_eq!(repaired(&with).as_deref(), Some(&without[..]));
        assert_eq!(repaired(&without), None, "nothing to do");
        for cut in 0..with.len() {
            assert_eq!(repaired(&with[..cut]), None);
        }
    }
}
