//! Lists and structs: which arrays Arrow has on the way to each leaf, and at which levels their
//! values begin and are there (parquet-format README.md, "Nested Encoding"; LogicalTypes.md,
//! "Lists" and "Maps"). Older forms of lists, and what the kernels do not take, have no shape.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use parquet::basic::Repetition;
use parquet::schema::types::Type;

use super::reader::Parquet;
use super::select::Root;
use super::target::conversion;
use crate::engine::{LevelNode, LevelWay, ParquetConversion};

/// Most arrays inside of each other.
const DEPTH_MAX: usize = 32;

/// An array of a column.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its number: parents come first.
    pub(super) id: usize,
    pub(super) data_type: DataType,
    pub(super) children: Vec<Node>,
    /// Which leaf it is.
    pub(super) leaf: Option<usize>,
}

/// A leaf of a column.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) field: FieldRef,
    /// Conversion, bytes of a value in the page and in the column.
    pub(super) how: (ParquetConversion, u32, u32),
    pub(super) way: LevelWay,
    /// Numbers of the nodes of its way.
    pub(super) ids: Vec<usize>,
}

impl Leaf {
    /// Whether its array has a bitmap.
    pub(super) fn may_be_null(&self) -> bool {
        let node = self.way.nodes.last();
        node.is_some_and(|node| node.valid_def > node.slot_def)
    }
}

/// A column that is a list or a struct.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) root: Node,
    pub(super) leaves: Vec<Leaf>,
}

/// Levels where the walk is.
#[derive(Debug, Clone, Copy, Default)]
struct At {
    def: u32,
    slot_def: u32,
    slot_rep: u32,
}

struct Walk<'a> {
    parquet: &'a Parquet,
    columns: &'a [usize],
    leaves: Vec<Leaf>,
    /// The nodes that are open.
    open: Vec<(usize, LevelNode)>,
    /// Names from the root.
    path: Vec<String>,
    nodes: usize,
}

/// The shape of a column of this type. `None` where it is flat or not for the kernels.
pub(super) fn shape(parquet: &Parquet, root: &Root, field: &Field) -> Option<Shape> {
    if !matches!(
        field.data_type(),
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..)
    ) {
        return None;
    }
    let schema = parquet.metadata().file_metadata().schema_descr();
    let number = schema.get_column_root_idx(*root.leaves.first()?);
    let stored = schema.root_schema().get_fields().get(number)?;
    let mut walk = Walk {
        parquet,
        columns: &root.leaves,
        leaves: Vec::new(),
        open: Vec::new(),
        path: Vec::new(),
        nodes: 0,
    };
    let root = walk.array(stored, field.data_type(), At::default())?;
    (walk.leaves.len() == walk.columns.len()).then_some(Shape {
        root,
        leaves: walk.leaves,
    })
}

impl Walk<'_> {
    fn array(&mut self, stored: &Type, wanted: &DataType, at: At) -> Option<Node> {
        if stored.get_basic_info().repetition() == Repetition::REPEATED {
            return None;
        }
        let optional = stored.get_basic_info().repetition() == Repetition::OPTIONAL;
        let at = At {
            def: at.def + u32::from(optional),
            ..at
        };
        self.node(stored, wanted, at)
    }

    /// An array whose values are there from `at.def` on.
    fn node(&mut self, stored: &Type, wanted: &DataType, at: At) -> Option<Node> {
        if self.open.len() >= DEPTH_MAX {
            return None;
        }
        let id = self.nodes;
        self.nodes += 1;
        let level = LevelNode {
            slot_def: at.slot_def,
            slot_rep: at.slot_rep,
            valid_def: at.def,
            is_list: matches!(wanted, DataType::List(_) | DataType::Map(..)),
        };
        self.open.push((id, level));
        self.path.push(stored.name().to_owned());
        let below = match wanted {
            DataType::Struct(fields) => self.fields(stored, fields.iter(), at).map(|c| (c, None)),
            DataType::List(item) => self.list(stored, item, at).map(|c| (vec![c], None)),
            DataType::Map(entries, _) => self.map(stored, entries, at).map(|c| (vec![c], None)),
            _ => self
                .leaf(stored, wanted, at)
                .map(|leaf| (Vec::new(), Some(leaf))),
        };
        self.path.pop();
        self.open.pop();
        let (children, leaf) = below?;
        Some(Node {
            id,
            data_type: wanted.clone(),
            children,
            leaf,
        })
    }

    fn fields<'f>(
        &mut self,
        stored: &Type,
        fields: impl Iterator<Item = &'f FieldRef>,
        at: At,
    ) -> Option<Vec<Node>> {
        if !stored.is_group() {
            return None;
        }
        let one = |field: &FieldRef| {
            let mut named = stored
                .get_fields()
                .iter()
                .filter(|t| t.name() == field.name());
            let child = named.next().filter(|_| named.next().is_none())?;
            self.array(child, field.data_type(), at)
        };
        let made: Option<Vec<Node>> = fields.map(one).collect();
        made.filter(|made| !made.is_empty())
    }

    /// What repeats in a list or map of three levels, and the levels of its elements.
    fn repeated<'t>(&mut self, stored: &'t Type, at: At) -> Option<(&'t Type, At)> {
        let [inner] = stored.is_group().then(|| stored.get_fields())? else {
            return None;
        };
        let repeats = inner.get_basic_info().repetition() == Repetition::REPEATED;
        let named = inner.name() == "array" || inner.name().ends_with("_tuple");
        if !repeats || !inner.is_group() || named {
            return None;
        }
        let at = At {
            def: at.def + 1,
            slot_def: at.def + 1,
            slot_rep: at.slot_rep + 1,
        };
        Some((inner, at))
    }

    fn list(&mut self, stored: &Type, item: &FieldRef, at: At) -> Option<Node> {
        let (inner, at) = self.repeated(stored, at)?;
        let [element] = inner.get_fields() else {
            return None;
        };
        self.path.push(inner.name().to_owned());
        let made = self.array(element, item.data_type(), at);
        self.path.pop();
        made
    }

    fn map(&mut self, stored: &Type, entries: &FieldRef, at: At) -> Option<Node> {
        let (inner, at) = self.repeated(stored, at)?;
        let DataType::Struct(fields) = entries.data_type() else {
            return None;
        };
        if inner.get_fields().len() != 2 || fields.len() != 2 {
            return None;
        }
        self.node(inner, entries.data_type(), at)
    }

    /// The next leaf, when it is this one.
    fn leaf(&mut self, stored: &Type, wanted: &DataType, at: At) -> Option<usize> {
        let number = self.leaves.len();
        let column = *self.columns.get(number)?;
        let schema = self.parquet.metadata().file_metadata().schema_descr();
        let descriptor = schema.column(column);
        let level = |level: i16| u32::from(level.unsigned_abs());
        let max_def = level(descriptor.max_def_level());
        let max_rep = level(descriptor.max_rep_level());
        let same = descriptor.path().parts() == &self.path[..];
        if !stored.is_primitive() || !same || (max_def, max_rep) != (at.def, at.slot_rep) {
            return None;
        }
        let length = u32::try_from(descriptor.type_length()).unwrap_or(0);
        let how = conversion(descriptor.physical_type(), length, wanted)?;
        let (ids, nodes) = self.open.iter().copied().unzip();
        self.leaves.push(Leaf {
            field: Arc::new(Field::new(stored.name(), wanted.clone(), true)),
            how,
            way: LevelWay {
                nodes,
                max_def,
                max_rep,
            },
            ids,
        });
        Some(number)
    }
}
