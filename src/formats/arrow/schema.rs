//! The schema, and the tree that bodies are read by: types with the ids of their dictionaries.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_ipc::{Endianness, Field as IpcField, Type};
use arrow_schema::{DataType, Field, Schema, UnionMode};

use super::message::{corrupted, unsupported};
use crate::error::Result;

/// A type as bodies hold it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) data_type: DataType,
    /// Which dictionary the values are keys of, and its type.
    pub(super) dictionary: Option<(i64, Arc<Node>)>,
    pub(super) children: Vec<Node>,
}

/// What a file says of its columns.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) schema: Arc<Schema>,
    pub(super) nodes: Vec<Node>,
    /// The type of each dictionary.
    pub(super) dictionaries: HashMap<i64, Arc<Node>>,
}

/// Deepest nesting of types: what metadata of 64 levels can hold.
const DEPTH_MAX: u32 = 64;

impl Columns {
    /// Takes the schema out of verified metadata.
    pub(super) fn new(schema: arrow_ipc::Schema<'_>, path: &Path, offset: u64) -> Result<Self> {
        let wrong = |why: String| corrupted(path, offset, format!("the schema: {why}"));
        match schema.endianness() {
            Endianness::Little => {}
            Endianness::Big => {
                let what = "its values are big-endian, which no GPU of this library is; write it \
                            again on a little-endian machine";
                return Err(unsupported(path, offset, what));
            }
            other => return Err(wrong(format!("endianness {}", other.0))),
        }
        let fields = schema.fields().ok_or_else(|| wrong("no fields".into()))?;
        for field in &fields {
            check_unions(field, 0).map_err(wrong)?;
        }
        let converted =
            arrow_ipc::convert::try_fb_to_schema(schema).map_err(|why| wrong(why.to_string()))?;
        let pairs = fields.iter().zip(converted.fields());
        let nodes = pairs
            .map(|(ipc, field)| node(ipc, field.data_type(), 0))
            .collect::<std::result::Result<Vec<_>, String>>()
            .map_err(wrong)?;
        let mut dictionaries = HashMap::new();
        for node in &nodes {
            gather(node, &mut dictionaries).map_err(wrong)?;
        }
        Ok(Self {
            schema: Arc::new(converted),
            nodes,
            dictionaries,
        })
    }
}

/// A union without ids has one for each child, and there are 128.
fn check_unions(field: IpcField<'_>, depth: u32) -> std::result::Result<(), String> {
    if depth > DEPTH_MAX {
        return Err("it is nested too deeply".into());
    }
    let Some(children) = field.children() else {
        return Ok(());
    };
    if field.type_type() == Type::Union && children.len() > 128 {
        return Err(format!("a union of {} types", children.len()));
    }
    children
        .iter()
        .try_for_each(|child| check_unions(child, depth + 1))
}

fn node(
    field: IpcField<'_>,
    data_type: &DataType,
    depth: u32,
) -> std::result::Result<Node, String> {
    if depth > DEPTH_MAX {
        return Err("it is nested too deeply".into());
    }
    if let (Some(dictionary), DataType::Dictionary(_, values)) = (field.dictionary(), data_type) {
        let values = node_of_values(field, values, depth)?;
        return Ok(Node {
            data_type: data_type.clone(),
            dictionary: Some((dictionary.id(), Arc::new(values))),
            children: Vec::new(),
        });
    }
    node_of_values(field, data_type, depth)
}

fn node_of_values(
    field: IpcField<'_>,
    data_type: &DataType,
    depth: u32,
) -> std::result::Result<Node, String> {
    check_type(data_type)?;
    let inner: Vec<&Arc<Field>> = children_of(data_type);
    let given = field.children();
    let count = given.as_ref().map_or(0, |children| children.len());
    // Types without children may have an empty list of them, and some writers leave more there.
    if count < inner.len() {
        return Err(format!("{data_type} with {count} children"));
    }
    let children = given.iter().flat_map(|children| children.iter()).zip(inner);
    Ok(Node {
        data_type: data_type.clone(),
        dictionary: None,
        children: children
            .map(|(ipc, field)| node(ipc, field.data_type(), depth + 1))
            .collect::<std::result::Result<_, _>>()?,
    })
}

/// Fields that a type is made of, in the order of their arrays.
pub(super) fn children_of(data_type: &DataType) -> Vec<&Arc<Field>> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field],
        DataType::Struct(fields) => fields.iter().collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field).collect(),
        DataType::RunEndEncoded(ends, values) => vec![ends, values],
        _ => Vec::new(),
    }
}

/// What the conversion lets through and the format forbids.
fn check_type(data_type: &DataType) -> std::result::Result<(), String> {
    let fault = match data_type {
        DataType::FixedSizeBinary(width) | DataType::FixedSizeList(_, width) if *width < 0 => {
            Some("a negative width")
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => None,
            _ => Some("a map whose entries are not pairs"),
        },
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 | DataType::Int32 | DataType::Int64 => None,
            _ => Some("run ends that are not 16, 32 or 64 bit integers"),
        },
        DataType::Union(fields, UnionMode::Dense | UnionMode::Sparse) => {
            (fields.len() > 128).then_some("a union of over 128 types")
        }
        _ => None,
    };
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

/// Notes the type of each dictionary. Two columns may share one, of one type.
fn gather(node: &Node, into: &mut HashMap<i64, Arc<Node>>) -> std::result::Result<(), String> {
    if let Some((id, values)) = &node.dictionary {
        let known = into.entry(*id).or_insert_with(|| values.clone());
        if known != values {
            return Err(format!("two types for dictionary {id}"));
        }
        gather(values, into)?;
    }
    node.children
        .iter()
        .try_for_each(|child| gather(child, into))
}
