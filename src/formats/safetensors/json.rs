//! The JSON header, taken apart without believing it: no duplicate keys, strings where strings
//! belong, numbers that are offsets.

use std::collections::BTreeMap;
use std::fmt;

use serde_core::de::{Deserialize, Visitor};
use serde_core::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess};

use crate::base::limits::TENSOR_DIMENSIONS_MAX;
use crate::formats::tensor::Dtype;

/// The key of what is no tensor.
const METADATA: &str = "__metadata__";

/// An entry of the header.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// Begin and end in the data, bytes.
    pub(super) offsets: (u64, u64),
}

/// All that a header holds.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Why a header was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) message: String,
    /// Where in the text, bytes.
    pub(super) at: usize,
    /// The text may be right for a newer version of the format.
    pub(super) unknown: bool,
}

/// Takes a header apart. Memory: at most 16 bytes for each of `text`.
pub(super) fn parse(text: &str) -> Result<Header, Refused> {
    let mut reading = Reading::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = (&mut reading).deserialize(&mut deserializer);
    match read.and_then(|()| deserializer.end()) {
        Ok(()) => Ok(reading.header),
        Err(error) => Err(Refused {
            at: place_of(text, error.line(), error.column()),
            message: error.to_string(),
            unknown: reading.unknown,
        }),
    }
}

/// An object of texts by name, such as the `weight_map` of an index.
pub(super) fn texts<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_map(Texts(what))
}

/// The place of a line and column, from 1, in bytes.
pub(super) fn place_of(text: &str, line: usize, column: usize) -> usize {
    let lines = text.split_inclusive('\n').take(line.saturating_sub(1));
    let before: usize = lines.map(str::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

#[derive(Default)]
struct Reading {
    header: Header,
    unknown: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Reading {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Reading {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                if has_metadata {
                    return Err(A::Error::custom("the key __metadata__ is there twice"));
                }
                has_metadata = true;
                self.header.metadata = map.next_value_seed(Texts("__metadata__"))?;
                continue;
            }
            let unknown = &mut self.unknown;
            let (dtype, shape, offsets) = map.next_value_seed(Fields { unknown })?;
            self.header.entries.push(Entry {
                name,
                dtype,
                shape,
                offsets,
            });
        }
        Ok(())
    }
}

struct Texts(&'static str);

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = BTreeMap<String, String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as an object of strings", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value::<String>()?;
            if texts.contains_key(&key) {
                let what = format!("the key {key:?} of {} is there twice", self.0);
                return Err(A::Error::custom(what));
            }
            texts.insert(key, value);
        }
        Ok(texts)
    }
}

/// dtype, shape and data_offsets of a tensor, each once. Other fields are passed over.
struct Fields<'a> {
    unknown: &'a mut bool,
}

type FieldValues = (Dtype, Vec<u64>, (u64, u64));

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = FieldValues;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = FieldValues;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key::<String>()? {
            let twice = match field.as_str() {
                "dtype" => {
                    let name = map.next_value::<String>()?;
                    let Some(known) = Dtype::of_safetensors(&name) else {
                        *self.unknown = true;
                        return Err(A::Error::custom(format!("unknown dtype {name:?}")));
                    };
                    dtype.replace(known).is_some()
                }
                "shape" => shape.replace(map.next_value::<Shape>()?.0).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<Offsets>()?.0).is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
            };
            if twice {
                return Err(A::Error::custom(format!(
                    "the field {field} is there twice"
                )));
            }
        }
        match (dtype, shape, offsets) {
            (Some(dtype), Some(shape), Some(offsets)) => Ok((dtype, shape, offsets)),
            (None, ..) => Err(A::Error::missing_field("dtype")),
            (_, None, _) => Err(A::Error::missing_field("shape")),
            _ => Err(A::Error::missing_field("data_offsets")),
        }
    }
}

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = list.next_element::<u64>()? {
                    if shape.len() == TENSOR_DIMENSIONS_MAX {
                        let what = format!("more than {TENSOR_DIMENSIONS_MAX} dimensions");
                        return Err(A::Error::custom(what));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Numbers)
    }
}

struct Offsets((u64, u64));

impl<'de> Deserialize<'de> for Offsets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <(u64, u64)>::deserialize(deserializer).map(Self)
    }
}
