//! What statistics, page indexes and bloom filters rule out.

use std::cmp::Ordering;
use std::ops::Range;

use parquet::basic::{LogicalType, Type};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::schema::types::ColumnDescriptor;

use super::info::{is_unsigned, not_negative};
use super::reader::Parquet;
use super::select::{Part, leaves_of, limit_to};
use crate::error::{Error, ErrorKind, Result};

/// How a column compares with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Equal,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
}

/// A value to compare with, as it is stored: a decimal without its point, a time as its number.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of integers and booleans.
    Integer(i64),
    /// Of unsigned integers beyond those.
    Unsigned(u64),
    /// Of floats and doubles.
    Float(f64),
    /// Of strings and bytes.
    Bytes(Vec<u8>),
}

/// A condition on a column.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// The column.
    pub column: String,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: Value,
}

/// A smallest or largest value, so that it compares with what callers give.
#[derive(Debug, Clone, PartialEq)]
enum Bound<'a> {
    Integer(i128),
    Float(f64),
    Bytes(&'a [u8]),
}

impl Bound<'_> {
    fn compare(&self, value: &Value) -> Option<Ordering> {
        match (self, value) {
            (Self::Integer(own), Value::Integer(v)) => Some(own.cmp(&i128::from(*v))),
            (Self::Integer(own), Value::Unsigned(v)) => Some(own.cmp(&i128::from(*v))),
            (Self::Float(own), Value::Float(v)) => own.partial_cmp(v),
            (Self::Bytes(own), Value::Bytes(v)) => Some((*own).cmp(v.as_slice())),
            _ => None,
        }
    }
}

/// The order of a column's values, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Signed,
    Unsigned,
    Float,
    Bytes,
}

fn order_of(column: &ColumnDescriptor) -> Option<Order> {
    let bytewise = !matches!(
        column.logical_type_ref(),
        Some(LogicalType::Decimal(_) | LogicalType::Float16)
    ) && {
        use parquet::basic::ConvertedType::{DECIMAL, INTERVAL};
        !matches!(column.converted_type(), DECIMAL | INTERVAL)
    };
    match column.physical_type() {
        Type::BOOLEAN => Some(Order::Unsigned),
        Type::INT32 | Type::INT64 if is_unsigned(column) => Some(Order::Unsigned),
        Type::INT32 | Type::INT64 => Some(Order::Signed),
        Type::FLOAT | Type::DOUBLE => Some(Order::Float),
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY if bytewise => Some(Order::Bytes),
        _ => None,
    }
}

fn bound<'a>(column: &ColumnDescriptor, bytes: &'a [u8]) -> Option<Bound<'a>> {
    let order = order_of(column)?;
    let four = || bytes.try_into().ok();
    let eight = || bytes.try_into().ok();
    Some(match (column.physical_type(), order) {
        (Type::BOOLEAN, _) => Bound::Integer((*bytes.first()?).into()),
        (Type::INT32, Order::Unsigned) => Bound::Integer(u32::from_le_bytes(four()?).into()),
        (Type::INT32, _) => Bound::Integer(i32::from_le_bytes(four()?).into()),
        (Type::INT64, Order::Unsigned) => Bound::Integer(u64::from_le_bytes(eight()?).into()),
        (Type::INT64, _) => Bound::Integer(i64::from_le_bytes(eight()?).into()),
        (Type::FLOAT, _) => Bound::Float(f32::from_le_bytes(four()?).into()),
        (Type::DOUBLE, _) => Bound::Float(f64::from_le_bytes(eight()?)),
        (_, Order::Bytes) => Bound::Bytes(bytes),
        _ => return None,
    })
}

/// Whether values from `min` to `max` may fulfil the condition. What is not known may.
fn may_match(min: Option<&Bound<'_>>, max: Option<&Bound<'_>>, predicate: &Predicate) -> bool {
    use Ordering::{Equal, Greater, Less};
    let low = min.and_then(|b| b.compare(&predicate.value));
    let high = max.and_then(|b| b.compare(&predicate.value));
    match predicate.compare {
        Compare::Equal => low != Some(Greater) && high != Some(Less),
        Compare::Less => !matches!(low, Some(Equal | Greater)),
        Compare::LessOrEqual => low != Some(Greater),
        Compare::Greater => !matches!(high, Some(Equal | Less)),
        Compare::GreaterOrEqual => high != Some(Less),
    }
}

fn statistics_may_match(chunk: &ColumnChunkMetaData, predicate: &Predicate) -> bool {
    let Some(statistics) = chunk.statistics() else {
        return true;
    };
    let column = chunk.column_descr();
    if statistics.null_count_opt() == Some(not_negative(chunk.num_values())) {
        return false;
    }
    // The old fields were written with signed comparison, whatever the type.
    let order = order_of(column);
    let is_old = statistics.is_min_max_deprecated();
    if is_old && matches!(order, Some(Order::Bytes | Order::Unsigned)) {
        return true;
    }
    let min = statistics.min_bytes_opt().and_then(|b| bound(column, b));
    let max = statistics.max_bytes_opt().and_then(|b| bound(column, b));
    may_match(min.as_ref(), max.as_ref(), predicate)
}

/// Whether a bloom filter says that the value may be there.
fn bloom_may_match(filter: &Sbbf, column: &ColumnDescriptor, value: &Value) -> bool {
    let integer = match value {
        Value::Integer(v) => Some(i128::from(*v)),
        Value::Unsigned(v) => Some(i128::from(*v)),
        _ => None,
    };
    let unsigned = is_unsigned(column);
    match (column.physical_type(), value, integer) {
        (Type::INT32, _, Some(v)) => {
            let stored = match unsigned {
                true => u32::try_from(v).ok().map(|v| v as i32),
                false => i32::try_from(v).ok(),
            };
            stored.is_some_and(|v| filter.check(&v))
        }
        (Type::INT64, _, Some(v)) => {
            let stored = match unsigned {
                true => u64::try_from(v).ok().map(|v| v as i64),
                false => i64::try_from(v).ok(),
            };
            stored.is_some_and(|v| filter.check(&v))
        }
        // Zeroes and NaNs have several forms.
        (Type::FLOAT, Value::Float(v), _) if *v != 0.0 && !v.is_nan() => {
            let narrow = *v as f32;
            f64::from(narrow) == *v && filter.check(&narrow)
        }
        (Type::DOUBLE, Value::Float(v), _) if *v != 0.0 && !v.is_nan() => filter.check(v),
        (Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY, Value::Bytes(v), _) => {
            filter.check(v.as_slice())
        }
        _ => true,
    }
}

/// The smallest and largest value of a page; `None` in front when all of it is null.
fn page_may_match(
    index: &ColumnIndexMetaData,
    column: &ColumnDescriptor,
    page: usize,
    predicate: &Predicate,
) -> bool {
    use ColumnIndexMetaData as Index;
    if index.is_null_page(page) {
        return false;
    }
    let unsigned = is_unsigned(column);
    let wide = |v: i64, w: u64| Bound::Integer(if unsigned { w.into() } else { v.into() });
    let (min, max) = match index {
        Index::BOOLEAN(i) => (
            i.min_value(page).map(|v| Bound::Integer((*v).into())),
            i.max_value(page).map(|v| Bound::Integer((*v).into())),
        ),
        Index::INT32(i) => (
            i.min_value(page)
                .map(|v| wide((*v).into(), (*v as u32).into())),
            i.max_value(page)
                .map(|v| wide((*v).into(), (*v as u32).into())),
        ),
        Index::INT64(i) => (
            i.min_value(page).map(|v| wide(*v, *v as u64)),
            i.max_value(page).map(|v| wide(*v, *v as u64)),
        ),
        Index::FLOAT(i) => (
            i.min_value(page).map(|v| Bound::Float((*v).into())),
            i.max_value(page).map(|v| Bound::Float((*v).into())),
        ),
        Index::DOUBLE(i) => (
            i.min_value(page).map(|v| Bound::Float(*v)),
            i.max_value(page).map(|v| Bound::Float(*v)),
        ),
        Index::BYTE_ARRAY(i) | Index::FIXED_LEN_BYTE_ARRAY(i) => (
            i.min_value(page).and_then(|v| bound(column, v)),
            i.max_value(page).and_then(|v| bound(column, v)),
        ),
        Index::INT96(_) => (None, None),
    };
    may_match(min.as_ref(), max.as_ref(), predicate)
}

/// The rows of each page, from where the pages begin.
pub(super) fn rows_of_pages(pages: &[PageLocation], rows: u64) -> Vec<Range<u64>> {
    let starts = pages.iter().map(|p| not_negative(p.first_row_index));
    let ends = pages
        .iter()
        .skip(1)
        .map(|p| not_negative(p.first_row_index));
    starts.zip(ends.chain([rows])).map(|(a, b)| a..b).collect()
}

/// The column that a condition is about.
fn leaf(parquet: &Parquet, predicate: &Predicate) -> Result<usize> {
    match leaves_of(parquet, &predicate.column).as_slice() {
        [leaf] => Ok(*leaf),
        found => {
            let (kind, what) = match found.len() {
                0 => (ErrorKind::NotFound, "there is no such column"),
                _ => (
                    ErrorKind::InvalidArgument,
                    "it is a group; name one of its fields",
                ),
            };
            let path = parquet.source().path();
            let message = format!(
                "condition on {} of {}: {what}",
                predicate.column,
                path.display()
            );
            Err(Error::new(kind, message).with_path(path))
        }
    }
}

/// Leaves out what cannot fulfil the conditions.
pub(super) fn prune(
    parquet: &Parquet,
    parts: Vec<Part>,
    predicates: &[Predicate],
) -> Result<Vec<Part>> {
    let mut kept = parts;
    for predicate in predicates {
        let leaf = leaf(parquet, predicate)?;
        let mut next = Vec::with_capacity(kept.len());
        for part in kept {
            if let Some(part) = prune_part(parquet, part, leaf, predicate)? {
                next.push(part);
            }
        }
        kept = next;
    }
    Ok(kept)
}

fn prune_part(
    parquet: &Parquet,
    part: Part,
    leaf: usize,
    predicate: &Predicate,
) -> Result<Option<Part>> {
    let group = parquet.metadata().row_group(part.row_group);
    let chunk = group.column(leaf);
    if !statistics_may_match(chunk, predicate) {
        return Ok(None);
    }
    if predicate.compare == Compare::Equal
        && let Some(filter) = parquet.bloom_filter(part.row_group, leaf)?
        && !bloom_may_match(&filter, chunk.column_descr(), &predicate.value)
    {
        return Ok(None);
    }
    let Some(index) = parquet.column_index(part.row_group, leaf)? else {
        return Ok(Some(part));
    };
    let Some(pages) = parquet.page_locations(part.row_group, leaf)? else {
        return Ok(Some(part));
    };
    if index.num_pages() != pages.len() as u64 {
        return Ok(Some(part));
    }
    let rows = rows_of_pages(&pages, not_negative(group.num_rows()));
    let column = chunk.column_descr();
    let kept = rows.into_iter().enumerate();
    let kept = kept.filter(|(page, _)| page_may_match(&index, column, *page, predicate));
    let part = limit_to(part, kept.map(|(_, rows)| rows).collect());
    Ok((part.count > 0).then_some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_match_is_left_out() {
        let (min, max) = (Bound::Integer(10), Bound::Integer(20));
        let may = |compare, value| {
            let column = String::new();
            let value = Value::Integer(value);
            let predicate = Predicate {
                column,
                compare,
                value,
            };
            may_match(Some(&min), Some(&max), &predicate)
        };
        let cases = [
            (Compare::Equal, 9, false),
            (Compare::Equal, 10, true),
            (Compare::Equal, 20, true),
            (Compare::Equal, 21, false),
            (Compare::Less, 10, false),
            (Compare::Less, 11, true),
            (Compare::LessOrEqual, 9, false),
            (Compare::LessOrEqual, 10, true),
            (Compare::Greater, 20, false),
            (Compare::Greater, 19, true),
            (Compare::GreaterOrEqual, 21, false),
            (Compare::GreaterOrEqual, 20, true),
        ];
        for (compare, value, expected) in cases {
            assert_eq!(may(compare, value), expected, "{compare:?} {value}");
        }
    }

    #[test]
    fn what_is_not_a_number_rules_nothing_out() {
        let nan = Bound::Float(f64::NAN);
        let predicate = Predicate {
            column: String::new(),
            compare: Compare::Equal,
            value: Value::Float(1.0),
        };
        assert!(may_match(Some(&nan), Some(&nan), &predicate));
        assert!(may_match(None, None, &predicate));
        let other = Bound::Bytes(b"x");
        assert!(may_match(Some(&other), Some(&other), &predicate));
    }
}
