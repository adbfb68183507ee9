//! safetensors: what the safetensors package of Python writes is loaded byte for byte, whole, in
//! parts and sharded; what it refuses is refused.

#![allow(clippy::print_stdout)]

mod common;
mod formats_support;

use std::path::Path;

use common::*;
use formats_support::{python, run_python};
use gds_rs::ErrorKind;
use gds_rs::engine::{Context, File};
use gds_rs::formats::tensor::{Cut, Layout, Selection, Tensors};
use gds_rs::formats::{Format, ReadOptions};
use serde_json::Value;

/// Writes files of all types into a folder. Prints a JSON line a file: its tensors as the package
/// reads them; their bytes, in the order of that list, go to FILE.raw.
const WRITE: &str = r#"
import json, os, random, sys
import numpy as np, safetensors
from safetensors.numpy import save_file
folder = sys.argv[1]
random.seed(7); generator = np.random.default_rng(7)
plain = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
         "float16", "float32", "float64", "complex64"]
raw = {"BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
       "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64, "BOOL": 8, "I64": 64}
def shape():
    return [random.choice([0, 1, 2, 3, 5, 8, 17, 64]) for _ in range(random.randrange(5))]
def data(kind, s):
    n = int(np.prod(s, dtype=np.int64)) * np.dtype(kind).itemsize
    a = np.frombuffer(generator.bytes(n), dtype=np.uint8)
    return (a & 1).astype(bool).reshape(s) if kind == "bool" else a.view(kind).reshape(s)
for number in range(120):
    path = os.path.join(folder, f"{number}.safetensors")
    tensors = {}
    for index in range(random.randrange(12)):
        kind = random.choice(plain)
        name = random.choice(["w", "layer.0.weight", "\u00fc\U0001f600", 'quo"te\\', "a b"]) + str(index)
        tensors[name] = data(kind, shape())
    meta = random.choice([None, {"format": "pt"}, {"a": "1", "\u00e9": "x\ny"}])
    # The package cannot write metadata without tensors.
    meta = meta if tensors else None
    save_file(tensors, path, metadata=meta)
    if number % 4 == 0:
        # Types that numpy has not, headers that the package would not write but reads.
        header, body = {}, b""
        for index in range(random.randrange(1, 6)):
            kind = random.choice(list(raw))
            s = shape() + [8]
            size = int(np.prod(s, dtype=np.int64)) * raw[kind] // 8
            header[f"r{index}"] = {"dtype": kind, "shape": s, "more": [{"x": None}],
                                   "data_offsets": [len(body), len(body) + size]}
            body += generator.bytes(size)
        names = list(header); random.shuffle(names)
        text = json.dumps({n: header[n] for n in names}, indent=random.choice([None, 1]))
        text = (text + " " * random.randrange(9)).encode()
        open(path, "wb").write(len(text).to_bytes(8, "little") + text + body)
    whole = open(path, "rb").read()
    read = safetensors.deserialize(whole)
    with safetensors.safe_open(path, framework="np") as f:
        said = f.metadata()
        kinds = {k: f.get_slice(k).get_dtype() for k in f.keys()}
    with open(path + ".raw", "wb") as out:
        for _, view in read: out.write(bytes(view["data"]))
    print(json.dumps({"file": path, "metadata": said or {}, "tensors":
        [[name, kinds[name], view["shape"], len(view["data"])] for name, view in read]}))
"#;

fn load(context: &Context, tensors: &Tensors, layout: Layout) -> Vec<Vec<u8>> {
    let (load, placed) = tensors.plan(&tensors.all(), layout).expect("planned");
    let buffer = alloc(context, load.size().max(1));
    let done = load
        .read(&buffer, 0, &ReadOptions::default())
        .expect("read");
    assert_eq!(
        done.bytes,
        tensors.tensors().iter().map(|t| t.size).sum::<u64>()
    );
    let places = placed.iter();
    places
        .map(|p| {
            if layout == Layout::default() {
                assert_eq!(p.offset % 256, 0);
            }
            bytes(&buffer)[p.offset as usize..(p.offset + p.size) as usize].to_vec()
        })
        .collect()
}

#[test]
fn what_the_package_writes_is_read_byte_for_byte() {
    let Some(python) = python("numpy, safetensors") else {
        return;
    };
    let folder = Folder::new();
    let output = run_python(&python, WRITE, &[&folder.0]);
    let context = context();
    let (mut files, mut kinds) = (0, std::collections::BTreeSet::new());
    for line in output.lines() {
        let said: Value = serde_json::from_str(line).expect("JSON");
        let Some(path) = said["file"].as_str() else {
            panic!("the oracle could not write: {said}");
        };
        files += 1;
        let path = Path::new(path);
        let file = open(&context, path);
        let tensors = Tensors::open(&file).expect("a good file");
        assert_eq!(tensors.format(), Format::Safetensors);
        let raw = std::fs::read(path.with_extension("safetensors.raw")).expect("bytes");
        let wanted = said["tensors"].as_array().expect("a list");
        assert_eq!(tensors.tensors().len(), wanted.len(), "{path:?}");
        for layout in [Layout::default(), Layout::Mirror, Layout::Packed(1)] {
            let loaded = load(&context, &tensors, layout);
            let mut at = 0;
            for one in wanted {
                let index = tensors
                    .index_of(one[0].as_str().expect("a name"))
                    .expect("there");
                let tensor = &tensors.tensors()[index];
                kinds.insert(tensor.dtype.name());
                assert_eq!(tensor.dtype.name(), one[1].as_str().expect("a type"));
                let shape: Vec<u64> = serde_json::from_value(one[2].clone()).expect("a shape");
                assert_eq!(tensor.shape, shape);
                let size = one[3].as_u64().expect("a size") as usize;
                assert!(
                    loaded[index] == raw[at..at + size],
                    "{path:?} {}",
                    tensor.name
                );
                at += size;
            }
        }
        let metadata = said["metadata"].as_object().expect("an object");
        assert_eq!(tensors.metadata().len(), metadata.len());
        for (key, value) in tensors.metadata() {
            assert_eq!(metadata[key].as_str(), Some(&**value));
        }
    }
    println!("{files} files, types {kinds:?}");
    assert!(files == 120 && kinds.len() == 22, "{kinds:?}");
}

/// A model in three files with its index; parts of its tensors as numpy cuts them.
const SHARDED: &str = r#"
import json, os, sys
import numpy as np
from safetensors.numpy import save_file
folder = sys.argv[1]
generator = np.random.default_rng(9)
map_, total = {}, 0
for number in range(3):
    name = f"model-{number + 1:05}-of-00003.safetensors"
    tensors = {}
    for index, s in enumerate([[24, 40], [7], [16, 8, 10], [2, 1000, 3]]):
        key = f"l{number}.{index}"
        tensors[key] = generator.standard_normal(s).astype("float32")
        map_[key] = name
        for axis in range(len(s)):
            for rank, part in enumerate(np.array_split(tensors[key], 4, axis=axis)):
                np.ascontiguousarray(part).tofile(os.path.join(folder, f"{key}.{axis}.{rank}"))
    save_file(tensors, os.path.join(folder, name), metadata={"format": "np"})
index = {"metadata": {"total_size": 1}, "weight_map": map_}
json.dump(index, open(os.path.join(folder, "model.safetensors.index.json"), "w"), indent=2)
"#;

#[test]
fn a_model_in_several_files_is_one_and_its_shares_are_numpys() {
    let Some(python) = python("numpy, safetensors") else {
        return;
    };
    let folder = Folder::new();
    run_python(&python, SHARDED, &[&folder.0]);
    let context = context();
    let index = open(&context, &folder.path("model.safetensors.index.json"));
    let model = Tensors::open(&index).expect("a model");
    assert_eq!(model.format(), Format::SafetensorsIndex);
    assert_eq!((model.files().len(), model.tensors().len()), (3, 12));
    let packed = load(&context, &model, Layout::default());
    assert!(
        packed == load(&context, &model, Layout::Mirror),
        "mirrored, file after file"
    );
    for rank in 0..4 {
        let mut wanted = Vec::new();
        for (tensor, t) in model.tensors().iter().enumerate() {
            for dimension in 0..t.shape.len() {
                let cut = Some(Cut::Share {
                    dimension,
                    rank,
                    of: 4,
                });
                wanted.push(Selection { tensor, cut });
            }
        }
        let (load, placed) = model.plan(&wanted, Layout::default()).expect("planned");
        let buffer = alloc(&context, load.size());
        load.read(&buffer, 0, &ReadOptions::default())
            .expect("read");
        for (selection, place) in wanted.iter().zip(&placed) {
            let Some(Cut::Share { dimension, .. }) = selection.cut else {
                panic!()
            };
            let name = &model.tensors()[selection.tensor].name;
            let part = std::fs::read(folder.path(&format!("{name}.{dimension}.{rank}")));
            let found = place.offset as usize..(place.offset + place.size) as usize;
            assert!(
                bytes(&buffer)[found] == part.expect("a part"),
                "{name} {dimension} {rank}"
            );
        }
        // The same to places of the caller.
        let targets: Vec<_> = wanted
            .iter()
            .zip(&placed)
            .filter(|(_, p)| p.size > 0)
            .map(|(s, p)| (*s, alloc(&context, p.size + 5), 5))
            .collect();
        let done = model
            .read_into(&targets, &ReadOptions::default())
            .expect("read");
        assert_eq!(done.len(), targets.len());
        for ((selection, mine, _), place) in
            targets.iter().zip(placed.iter().filter(|p| p.size > 0))
        {
            assert_eq!(selection.tensor, place.tensor);
            let found = place.offset as usize..(place.offset + place.size) as usize;
            assert!(bytes(mine)[5..] == bytes(&buffer)[found]);
        }
    }
    let strided = [Selection {
        tensor: model.index_of("l0.0").expect("there"),
        cut: Some(Cut::Share {
            dimension: 1,
            rank: 0,
            of: 2,
        }),
    }];
    let refused = model.plan(&strided, Layout::Mirror).expect_err("strided");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let near = model.index_of("l0").expect_err("no such tensor");
    assert!(near.message().contains("did you mean l0."), "{near}");

    // The index and its files differ; a file of the index is not there; the same tensor twice.
    let text = std::fs::read_to_string(index.path()).expect("the index");
    let wrong = |name: &str, text: String| {
        let path = folder.path(name);
        std::fs::write(&path, text).expect("written");
        Tensors::open(&open(&context, &path))
            .expect_err(name)
            .kind()
    };
    let moved = text.replacen("model-00001-of", "model-00002-of", 1);
    assert_eq!(wrong("moved.json", moved), ErrorKind::Corrupted);
    let gone = text.replace("model-00003-of", "model-00004-of");
    assert_eq!(wrong("gone.json", gone), ErrorKind::NotFound);
    let twice = [model.files()[0].clone(), model.files()[0].clone()];
    let error = Tensors::open_files(&twice).expect_err("twice");
    assert_eq!(error.kind(), ErrorKind::Corrupted);
}

#[test]
fn other_formats_and_none_are_told_apart() {
    let folder = Folder::new();
    let context = context();
    let kind = |name: &str, bytes: &[u8]| {
        let path = folder.path(name);
        std::fs::write(&path, bytes).expect("written");
        let file: File = open(&context, &path);
        Tensors::open(&file).expect_err(name).kind()
    };
    assert_eq!(kind("empty", b""), ErrorKind::Corrupted);
    assert_eq!(kind("short", b"1234567"), ErrorKind::Corrupted);
    assert_eq!(kind("elf", b"\x7fELF and more"), ErrorKind::NotSupported);
    assert_eq!(
        kind("text", b"hello, world, this is no tensor"),
        ErrorKind::Corrupted
    );
}
