//! Values of GGUF's keys: numbers, texts, and lists of them, nested.

use std::fmt::Write as _;

use super::cursor::Cursor;
use crate::error::Result;

/// Lists within lists, at most.
const DEPTH_MAX: u32 = 8;
/// Bytes of a list as text, at most; what is longer ends with an ellipsis.
const TEXT_MAX: usize = 1 << 20;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named after the format's types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// UTF-8, as the format asks.
    Text(String),
    /// A text that is not UTF-8.
    Bytes(Vec<u8>),
    List(List),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A list of values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named after the format's types")]
pub enum List {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    /// Bytes that are not UTF-8 are replaced.
    Text(Vec<String>),
    List(Vec<List>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// One value, its type given by number.
pub(super) fn read(cursor: &mut Cursor<'_>, kind: u32, at: u64) -> Result<Value> {
    macro_rules! number {
        ($type:ty, $variant:ident) => {
            numbers(cursor, 1, <$type>::from_le_bytes).map(|n| Value::$variant(n[0]))
        };
    }
    match kind {
        0 => number!(u8, U8),
        1 => number!(i8, I8),
        2 => number!(u16, U16),
        3 => number!(i16, I16),
        4 => number!(u32, U32),
        5 => number!(i32, I32),
        6 => number!(f32, F32),
        7 => bools(cursor, 1).map(|b| Value::Bool(b[0])),
        8 => {
            let bytes = cursor.text("a text")?.to_vec();
            Ok(match String::from_utf8(bytes) {
                Ok(text) => Value::Text(text),
                Err(error) => Value::Bytes(error.into_bytes()),
            })
        }
        9 => list(cursor, 0).map(Value::List),
        10 => number!(u64, U64),
        11 => number!(i64, I64),
        12 => number!(f64, F64),
        _ => Err(cursor.wrong(at, format_args!("{kind} is no type of a value"))),
    }
}

fn list(cursor: &mut Cursor<'_>, depth: u32) -> Result<List> {
    let at = cursor.at();
    if depth == DEPTH_MAX {
        let what = format!("lists within lists, more than {DEPTH_MAX} deep");
        return Err(cursor.wrong(at, what));
    }
    let kind = cursor.u32("the type of a list")?;
    let count = cursor.u64("the length of a list")?;
    match kind {
        0 => numbers(cursor, count, u8::from_le_bytes).map(List::U8),
        1 => numbers(cursor, count, i8::from_le_bytes).map(List::I8),
        2 => numbers(cursor, count, u16::from_le_bytes).map(List::U16),
        3 => numbers(cursor, count, i16::from_le_bytes).map(List::I16),
        4 => numbers(cursor, count, u32::from_le_bytes).map(List::U32),
        5 => numbers(cursor, count, i32::from_le_bytes).map(List::I32),
        6 => numbers(cursor, count, f32::from_le_bytes).map(List::F32),
        7 => bools(cursor, count).map(List::Bool),
        8 => {
            let count = cursor.expect(count, 8, "texts")?;
            let mut texts = Vec::with_capacity(count);
            for _ in 0..count {
                let text = cursor.text("a text")?;
                texts.push(String::from_utf8_lossy(text).into_owned());
            }
            Ok(List::Text(texts))
        }
        9 => {
            let count = cursor.expect(count, 12, "lists")?;
            let mut lists = Vec::with_capacity(count);
            for _ in 0..count {
                lists.push(list(cursor, depth + 1)?);
            }
            Ok(List::List(lists))
        }
        10 => numbers(cursor, count, u64::from_le_bytes).map(List::U64),
        11 => numbers(cursor, count, i64::from_le_bytes).map(List::I64),
        12 => numbers(cursor, count, f64::from_le_bytes).map(List::F64),
        _ => Err(cursor.wrong(at, format_args!("{kind} is no type of a list's values"))),
    }
}

fn numbers<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    count: u64,
    from: fn([u8; N]) -> T,
) -> Result<Vec<T>> {
    let count = cursor.expect(count, N as u64, "numbers")?;
    let bytes = cursor.bytes((count * N) as u64, "numbers")?;
    Ok(bytes.as_chunks::<N>().0.iter().copied().map(from).collect())
}

fn bools(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<bool>> {
    let at = cursor.at();
    let bytes = numbers(cursor, count, u8::from_le_bytes)?;
    match bytes.iter().position(|byte| *byte > 1) {
        None => Ok(bytes.into_iter().map(|byte| byte == 1).collect()),
        Some(place) => {
            let what = format!("a truth value of {}", bytes[place]);
            Err(cursor.wrong(at + place as u64, what))
        }
    }
}

impl Value {
    /// As text; lists as JSON. Lists of more than 1 MiB of text are cut.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::U8(n) => n.to_string(),
            Self::I8(n) => n.to_string(),
            Self::U16(n) => n.to_string(),
            Self::I16(n) => n.to_string(),
            Self::U32(n) => n.to_string(),
            Self::I32(n) => n.to_string(),
            Self::F32(n) => n.to_string(),
            Self::Bool(n) => n.to_string(),
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::List(list) => {
                let mut text = String::new();
                list.write(&mut text);
                text
            }
            Self::U64(n) => n.to_string(),
            Self::I64(n) => n.to_string(),
            Self::F64(n) => n.to_string(),
        }
    }

    /// The value as a number of tensors or bytes, where it is a whole number that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U8(n) => Some(u64::from(*n)),
            Self::U16(n) => Some(u64::from(*n)),
            Self::U32(n) => Some(u64::from(*n)),
            Self::U64(n) => Some(*n),
            Self::I8(n) => u64::try_from(*n).ok(),
            Self::I16(n) => u64::try_from(*n).ok(),
            Self::I32(n) => u64::try_from(*n).ok(),
            Self::I64(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }
}

impl List {
    /// Values in it.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(all) => all.len(),
            Self::I8(all) => all.len(),
            Self::U16(all) => all.len(),
            Self::I16(all) => all.len(),
            Self::U32(all) => all.len(),
            Self::I32(all) => all.len(),
            Self::F32(all) => all.len(),
            Self::Bool(all) => all.len(),
            Self::Text(all) => all.len(),
            Self::List(all) => all.len(),
            Self::U64(all) => all.len(),
            Self::I64(all) => all.len(),
            Self::F64(all) => all.len(),
        }
    }

    /// Whether it has no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write(&self, to: &mut String) {
        match self {
            Self::U8(all) => write_all(all, to, number),
            Self::I8(all) => write_all(all, to, number),
            Self::U16(all) => write_all(all, to, number),
            Self::I16(all) => write_all(all, to, number),
            Self::U32(all) => write_all(all, to, number),
            Self::I32(all) => write_all(all, to, number),
            Self::F32(all) => write_all(all, to, number),
            Self::Bool(all) => write_all(all, to, number),
            Self::Text(all) => write_all(all, to, |text, to| {
                to.push_str(&serde_json::Value::String(text.clone()).to_string());
            }),
            Self::List(all) => write_all(all, to, |list, to| list.write(to)),
            Self::U64(all) => write_all(all, to, number),
            Self::I64(all) => write_all(all, to, number),
            Self::F64(all) => write_all(all, to, number),
        }
    }
}

fn number(n: &impl std::fmt::Display, to: &mut String) {
    // Writing to a text cannot fail.
    let _ = write!(to, "{n}");
}

fn write_all<T>(all: &[T], to: &mut String, one: impl Fn(&T, &mut String)) {
    to.push('[');
    for (index, value) in all.iter().enumerate() {
        if index > 0 {
            to.push(',');
        }
        if to.len() > TEXT_MAX {
            to.push_str("...");
            break;
        }
        one(value, to);
    }
    to.push(']');
}
