//! `model.safetensors.index.json`: which file of a model holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::json;
use crate::base::limits::MODEL_FILES_MAX;
use crate::error;
use crate::formats::Source;
use crate::formats::detect::SAFETENSORS_HEADER_MAX;
use crate::formats::tensor::corrupted;

/// The index of a model: its files, and the file of each tensor.
#[derive(Debug, Clone, Default)]
pub struct Index {
    files: Vec<String>,
    weights: BTreeMap<String, String>,
}

impl Index {
    /// Reads and checks the index. Memory: the file, and at most 16 bytes for each of its own.
    ///
    /// # Errors
    /// `Corrupted` with the offset: no JSON, no `weight_map`, a key that is there twice, a file
    /// that is no plain name (the files of a model lie beside its index); what the source says.
    pub fn read(source: &dyn Source) -> error::Result<Self> {
        let (path, size) = (source.path(), source.size());
        if size > SAFETENSORS_HEADER_MAX {
            let what = format!("an index of {size} bytes; {SAFETENSORS_HEADER_MAX} are the most");
            return Err(corrupted(path, 0, what));
        }
        let bytes = source.bytes(0, size, "the index")?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| corrupted(path, e.valid_up_to() as u64, "the index is not UTF-8"))?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let weights = Whole
            .deserialize(&mut deserializer)
            .and_then(|map| deserializer.end().map(|()| map))
            .map_err(|error| {
                let at = json::place_of(text, error.line(), error.column());
                corrupted(path, at as u64, format!("the index: {error}"))
            })?;
        let files: BTreeSet<&String> = weights.values().collect();
        if files.len() > MODEL_FILES_MAX {
            let what = format!(
                "{} files; a model has at most {MODEL_FILES_MAX}",
                files.len()
            );
            return Err(corrupted(path, 0, what));
        }
        if let Some(name) = files.iter().find(|name| !is_plain(name)) {
            let what = format!("{name:?} is no name of a file beside the index");
            return Err(corrupted(path, 0, what));
        }
        let files = files.into_iter().cloned().collect();
        Ok(Self { files, weights })
    }

    /// Names of the files, sorted. They lie beside the index.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The file of each tensor.
    #[must_use]
    pub fn weights(&self) -> &BTreeMap<String, String> {
        &self.weights
    }
}

/// An index comes from whoever made the model: it must not reach into other folders.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

struct Whole;

impl<'de> DeserializeSeed<'de> for Whole {
    type Value = BTreeMap<String, String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut weights = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "weight_map" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if weights.is_some() {
                return Err(A::Error::custom("the key weight_map is there twice"));
            }
            weights = Some(map.next_value_seed(Map)?);
        }
        weights.ok_or_else(|| A::Error::missing_field("weight_map"))
    }
}

struct Map;

impl<'de> DeserializeSeed<'de> for Map {
    type Value = BTreeMap<String, String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        json::texts(deserializer, "weight_map")
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::MemorySource;
    use super::*;

    fn read(text: &str) -> error::Result<Index> {
        Index::read(&MemorySource::new(text.as_bytes().to_vec(), "an index"))
    }

    #[test]
    fn files_and_weights_are_found() {
        let text = r#"{"metadata": {"total_size": 12, "more": [1, {"a": null}]},
            "weight_map": {"a": "two", "b": "one", "c": "two"}}"#;
        let index = read(text).expect("an index");
        assert_eq!(index.files(), ["one", "two"]);
        assert_eq!(index.weights()["c"], "two");
    }

    #[test]
    fn what_is_no_index_says_where() {
        for (text, at) in [
            ("", 0),
            ("[]", 0),
            ("{}", 1),
            (r#"{"weight_map": {"a": 1}}"#, 21),
            (r#"{"weight_map": {}, "weight_map": {}}"#, 0),
            (r#"{"weight_map": {"a": "x", "a": "y"}}"#, 0),
            (r#"{"weight_map": {"a": "../x"}}"#, 0),
            (r#"{"weight_map": {"a": ""}}"#, 0),
            ("{\"weight_map\": {}}\n\n x", 21),
        ] {
            let error = read(text).expect_err(text);
            let place = error.offset().expect("an offset");
            assert!(place >= at && place <= text.len() as u64, "{text}: {error}");
        }
        let deep = format!("{{\"x\": {}", "[".repeat(100_000));
        assert!(read(&deep).is_err(), "depth is limited");
    }
}
