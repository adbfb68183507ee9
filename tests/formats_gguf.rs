//! GGUF: what the gguf package of Python writes is read as that package reads it.

#![allow(clippy::print_stdout)]

mod common;
mod formats_support;

use std::path::Path;

use common::*;
use formats_support::{python, run_python};
use gds_rs::formats::gguf::Header;
use gds_rs::formats::tensor::{Layout, Tensors};
use gds_rs::formats::{FileSource, Format, ReadOptions};
use serde_json::Value;

/// Writes models with keys of all types and tensors of all types into a folder. Prints a JSON line
/// a file, as the package's own reader has it; the tensors' bytes go to FILE.raw.
const WRITE: &str = r#"
import json, os, random, sys
import numpy as np, gguf
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFValueType as V
folder = sys.argv[1]
random.seed(3); generator = np.random.default_rng(3)
kinds = list(GGML_QUANT_SIZES)
def text(): return random.choice(["", "a", "\u00e9\U0001f600", "line\nline", 'quo"te']) * random.randrange(3)
for number in range(60):
    path = os.path.join(folder, f"{number}.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    align = random.choice([None, 8, 32, 64, 4096])
    if align: writer.add_custom_alignment(align)
    numbers = [("add_uint8", 255), ("add_int8", -128), ("add_uint16", 65535), ("add_int16", -3),
               ("add_uint32", 2**32 - 1), ("add_int32", -2**31), ("add_uint64", 2**64 - 1),
               ("add_int64", -2**63), ("add_float32", 1.5), ("add_float64", 0.1), ("add_bool", True)]
    for index in range(random.randrange(20)):
        add, value = random.choice(numbers)
        getattr(writer, add)(f"n.{index}", value)
    writer.add_string("s", text())
    writer.add_array("words", [text() for _ in range(random.randrange(1, 300))])
    writer.add_array("scores", [float(x) for x in range(random.randrange(1, 9))])
    writer.add_array("ids", list(range(-random.randrange(1, 500), 0)))
    writer.add_array("bools", [True, False, True])
    writer.add_array("nested", [[1, 2], [3]])
    for index in range(random.randrange(8)):
        kind = random.choice(kinds)
        block, size = GGML_QUANT_SIZES[kind]
        rows = [random.choice([1, 2, 3, 7]) for _ in range(random.randrange(3))]
        blocks = random.choice([1, 2, 5])
        data = np.frombuffer(generator.bytes(int(np.prod(rows, dtype=np.int64)) * blocks * size), dtype=np.uint8)
        writer.add_tensor(f"blk.{index}.{kind.name}", data.reshape(rows + [blocks * size]), raw_dtype=kind)
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
    reader = gguf.GGUFReader(path)
    fields = {}
    for key, field in reader.fields.items():
        if key.startswith("GGUF."): continue
        try: fields[key] = field.contents()
        except Exception: fields[key] = None
        if V.ARRAY in field.types[:1] and V.ARRAY in field.types[1:]: fields[key] = "nested"
        elif isinstance(fields[key], (np.generic,)): fields[key] = fields[key].item()
    with open(path + ".raw", "wb") as out:
        for t in reader.tensors: out.write(t.data.tobytes())
    print(json.dumps({"file": path, "alignment": int(reader.alignment), "data": int(reader.data_offset),
        "fields": fields, "tensors": [[t.name, t.tensor_type.name, [int(n) for n in t.shape][::-1],
            int(t.data_offset), int(t.n_bytes)] for t in reader.tensors]}))
"#;

/// Whether our text of a value is the package's value.
fn is_same(text: &str, said: &Value) -> bool {
    match said {
        Value::String(said) => text == said,
        Value::Bool(said) => text == said.to_string(),
        Value::Array(_) => {
            let found: Value = serde_json::from_str(text).expect("a list is JSON");
            let (Value::Array(found), Value::Array(said)) = (&found, said) else {
                return false;
            };
            let same = |(a, b): (&Value, &Value)| a == b || a.as_f64() == b.as_f64();
            found.len() == said.len() && found.iter().zip(said).all(same)
        }
        Value::Number(said) if said.is_f64() => text.parse::<f64>().ok() == said.as_f64(),
        Value::Number(said) => text == said.to_string(),
        _ => false,
    }
}

#[test]
fn what_the_package_writes_is_read_as_it_reads_it() {
    let Some(python) = python("numpy, gguf") else {
        return;
    };
    let folder = Folder::new();
    let output = run_python(&python, WRITE, &[&folder.0]);
    let context = context();
    let (mut files, mut kinds) = (0, std::collections::BTreeSet::new());
    for line in output.lines() {
        let said: Value = serde_json::from_str(line).expect("JSON");
        let path = Path::new(said["file"].as_str().expect("a path"));
        let file = open(&context, path);
        let header = Header::read(&FileSource::new(&file).expect("a size")).expect("a header");
        assert_eq!(Some(header.alignment()), said["alignment"].as_u64());
        assert_eq!(Some(header.data_offset()), said["data"].as_u64());
        let fields = said["fields"].as_object().expect("an object");
        assert_eq!(header.values().len(), fields.len(), "{path:?}");
        for (key, value) in header.texts() {
            match key.as_str() {
                "nested" => assert_eq!(value, "[[1,2],[3]]"),
                _ => assert!(
                    is_same(&value, &fields[&key]),
                    "{key}: {value} {}",
                    fields[&key]
                ),
            }
        }
        let model = Tensors::open(&file).expect("a model");
        assert_eq!(model.format(), Format::Gguf);
        let wanted = said["tensors"].as_array().expect("a list");
        assert_eq!(model.tensors().len(), wanted.len());
        let raw = std::fs::read(path.with_extension("gguf.raw")).expect("bytes");
        for layout in [Layout::default(), Layout::Mirror] {
            let (load, placed) = model.plan(&model.all(), layout).expect("planned");
            let buffer = alloc(&context, load.size().max(1));
            load.read(&buffer, 0, &ReadOptions::default())
                .expect("read");
            let mut at = 0;
            for (place, one) in placed.iter().zip(wanted) {
                let tensor = &model.tensors()[place.tensor];
                kinds.insert(tensor.dtype.name());
                assert_eq!(Some(tensor.name.as_str()), one[0].as_str());
                assert_eq!(Some(tensor.dtype.name()), one[1].as_str());
                let shape: Vec<u64> = serde_json::from_value(one[2].clone()).expect("a shape");
                assert_eq!(tensor.shape, shape, "{}", tensor.name);
                assert_eq!(Some(tensor.file_offset), one[3].as_u64());
                assert_eq!(Some(tensor.size), one[4].as_u64(), "{}", tensor.name);
                let found = place.offset as usize..(place.offset + place.size) as usize;
                let size = tensor.size as usize;
                assert!(
                    bytes(&buffer)[found] == raw[at..at + size],
                    "{}",
                    tensor.name
                );
                at += size;
            }
        }
        files += 1;
    }
    println!("{files} files, {} types: {kinds:?}", kinds.len());
    assert!(files == 60 && kinds.len() > 30, "{kinds:?}");
}
