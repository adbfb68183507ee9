//! Footers whose fields have other types than the format gives them.
//!
//! Thrift says that a field of an unexpected type is passed over; a writer of old gave an unused
//! number to a field of its own, and the format later gave it to another. The official crate takes
//! its bytes for the expected type instead and loses its place, and what it then reads as a count
//! it may allocate. So it gets footers without such fields.

use super::thrift::{BINARY, Compact, FALSE, I32, I64, LIST, STRUCT, TRUE, push_i32};

const BOOL: u8 = TRUE;
const BYTE: u8 = 3;
const I16: u8 = 4;
const DOUBLE: u8 = 7;

/// A field: its number, its type, and what it or its elements hold.
type Known = (i16, u8, Option<&'static Shape>);

/// The fields of a struct (parquet.thrift), as far as the crate reads them.
struct Shape(&'static [Known]);

const EMPTY: &Shape = &Shape(&[]);

const FILE: &Shape = &Shape(&[
    (1, I32, None),
    (2, LIST, Some(ELEMENT)),
    (3, I64, None),
    (4, LIST, Some(GROUP)),
    (5, LIST, Some(PAIR)),
    (6, BINARY, None),
    (7, LIST, Some(ORDER)),
    (8, STRUCT, Some(ALGORITHM)),
    (9, BINARY, None),
]);
const ELEMENT: &Shape = &Shape(&[
    (1, I32, None),
    (2, I32, None),
    (3, I32, None),
    (4, BINARY, None),
    (5, I32, None),
    (6, I32, None),
    (7, I32, None),
    (8, I32, None),
    (9, I32, None),
    (10, STRUCT, Some(LOGICAL)),
]);
const LOGICAL: &Shape = &Shape(&[
    (1, STRUCT, Some(EMPTY)),
    (2, STRUCT, Some(EMPTY)),
    (3, STRUCT, Some(EMPTY)),
    (4, STRUCT, Some(EMPTY)),
    (5, STRUCT, Some(DECIMAL)),
    (6, STRUCT, Some(EMPTY)),
    (7, STRUCT, Some(TIME)),
    (8, STRUCT, Some(TIME)),
    (10, STRUCT, Some(INTEGER)),
    (11, STRUCT, Some(EMPTY)),
    (12, STRUCT, Some(EMPTY)),
    (13, STRUCT, Some(EMPTY)),
    (14, STRUCT, Some(EMPTY)),
    (15, STRUCT, Some(EMPTY)),
    (16, STRUCT, Some(VARIANT)),
    (17, STRUCT, Some(GEOMETRY)),
    (18, STRUCT, Some(GEOMETRY)),
    (19, STRUCT, Some(EMPTY)),
]);
const DECIMAL: &Shape = &Shape(&[(1, I32, None), (2, I32, None)]);
const TIME: &Shape = &Shape(&[(1, BOOL, None), (2, STRUCT, Some(UNIT))]);
const UNIT: &Shape = &Shape(&[
    (1, STRUCT, Some(EMPTY)),
    (2, STRUCT, Some(EMPTY)),
    (3, STRUCT, Some(EMPTY)),
]);
const INTEGER: &Shape = &Shape(&[(1, BYTE, None), (2, BOOL, None)]);
const VARIANT: &Shape = &Shape(&[(1, BYTE, None)]);
const GEOMETRY: &Shape = &Shape(&[(1, BINARY, None), (2, I32, None)]);
const GROUP: &Shape = &Shape(&[
    (1, LIST, Some(CHUNK)),
    (2, I64, None),
    (3, I64, None),
    (4, LIST, Some(SORTING)),
    (5, I64, None),
    (6, I64, None),
    (7, I16, None),
]);
const SORTING: &Shape = &Shape(&[(1, I32, None), (2, BOOL, None), (3, BOOL, None)]);
const CHUNK: &Shape = &Shape(&[
    (1, BINARY, None),
    (2, I64, None),
    (3, STRUCT, Some(METADATA)),
    (4, I64, None),
    (5, I32, None),
    (6, I64, None),
    (7, I32, None),
    (8, STRUCT, Some(CRYPTO)),
    (9, BINARY, None),
]);
const METADATA: &Shape = &Shape(&[
    (1, I32, None),
    (2, LIST, None),
    (3, LIST, None),
    (4, I32, None),
    (5, I64, None),
    (6, I64, None),
    (7, I64, None),
    (8, LIST, Some(PAIR)),
    (9, I64, None),
    (10, I64, None),
    (11, I64, None),
    (12, STRUCT, Some(STATISTICS)),
    (13, LIST, Some(ENCODING)),
    (14, I64, None),
    (15, I32, None),
    (16, STRUCT, Some(SIZES)),
    (17, STRUCT, Some(GEOSPATIAL)),
]);
const STATISTICS: &Shape = &Shape(&[
    (1, BINARY, None),
    (2, BINARY, None),
    (3, I64, None),
    (4, I64, None),
    (5, BINARY, None),
    (6, BINARY, None),
    (7, BOOL, None),
    (8, BOOL, None),
    (9, I64, None),
]);
const ENCODING: &Shape = &Shape(&[(1, I32, None), (2, I32, None), (3, I32, None)]);
const SIZES: &Shape = &Shape(&[(1, I64, None), (2, LIST, None), (3, LIST, None)]);
const GEOSPATIAL: &Shape = &Shape(&[(1, STRUCT, Some(BOX)), (2, LIST, None)]);
const BOX: &Shape = &Shape(&[
    (1, DOUBLE, None),
    (2, DOUBLE, None),
    (3, DOUBLE, None),
    (4, DOUBLE, None),
    (5, DOUBLE, None),
    (6, DOUBLE, None),
    (7, DOUBLE, None),
    (8, DOUBLE, None),
]);
const PAIR: &Shape = &Shape(&[(1, BINARY, None), (2, BINARY, None)]);
const ORDER: &Shape = &Shape(&[(1, STRUCT, Some(EMPTY)), (2, STRUCT, Some(EMPTY))]);
const ALGORITHM: &Shape = &Shape(&[(1, STRUCT, Some(GCM)), (2, STRUCT, Some(GCM))]);
const GCM: &Shape = &Shape(&[(1, BINARY, None), (2, BINARY, None), (3, BOOL, None)]);
const CRYPTO: &Shape = &Shape(&[(1, STRUCT, Some(EMPTY)), (2, STRUCT, Some(KEY))]);
const KEY: &Shape = &Shape(&[(1, LIST, None), (2, BINARY, None)]);

/// The same footer without fields of unexpected types. `None` when it makes no sense at all.
pub(super) fn repaired(footer: &[u8]) -> Option<Vec<u8>> {
    let mut made = Vec::with_capacity(footer.len());
    let mut reader = Compact::new(footer);
    copy(&mut reader, footer, &mut made, FILE)?;
    Some(made)
}

fn copy(reader: &mut Compact<'_>, bytes: &[u8], into: &mut Vec<u8>, shape: &Shape) -> Option<()> {
    let (mut last, mut written) = (0, 0);
    while let Some(field) = reader.field(last)? {
        last = field.id;
        let kind = if field.kind == FALSE {
            BOOL
        } else {
            field.kind
        };
        let known = shape.0.iter().find(|(id, ..)| *id == field.id);
        // What nobody knows is passed over by both; in a struct without fields it is not.
        let goes = known.map_or(!shape.0.is_empty(), |(_, expected, _)| *expected == kind);
        if !goes {
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
        match (known.and_then(|(.., inner)| *inner), field.kind) {
            (Some(inner), STRUCT) => copy(reader, bytes, into, inner)?,
            (Some(inner), LIST) => copy_list(reader, bytes, into, inner)?,
            _ => {
                let from = reader.position();
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
    inner: &Shape,
) -> Option<()> {
    let from = reader.position();
    let (count, kind) = reader.list()?;
    into.extend_from_slice(bytes.get(from..reader.position())?);
    // An empty list may say any type.
    if kind != STRUCT && count > 0 {
        return None;
    }
    for _ in 0..count {
        copy(reader, bytes, into, inner)?;
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
        assert_eq!(repaired(&without).as_deref(), Some(&without[..]));
        for cut in 0..with.len() {
            assert_eq!(repaired(&with[..cut]), None);
        }
    }

    #[test]
    fn a_number_of_children_that_is_none_goes() {
        // A schema of one element whose field 5 is an i64.
        let with = [0x29, 0x1c, 0x56, 2, 0, 0];
        let without = [0x29, 0x1c, 0, 0];
        assert_eq!(repaired(&with).as_deref(), Some(&without[..]));
    }
}
