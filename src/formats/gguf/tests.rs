use super::super::MemorySource;
use super::*;
use crate::error::ErrorKind;

/// Writes a header as the specification has it.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        let mut writer = Self(b"GGUF".to_vec());
        writer.u32(version).u64(tensors).u64(keys);
        writer
    }

    fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(&mut self, n: u64) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }

    fn tensor(&mut self, name: &str, shape: &[u64], kind: u32, at: u64) -> &mut Self {
        self.text(name).u32(shape.len() as u32);
        for n in shape {
            self.u64(*n);
        }
        self.u32(kind).u64(at)
    }

    /// With `data` bytes behind the padding.
    fn end(&self, align: usize, data: usize) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len().next_multiple_of(align) + data, 1);
        bytes
    }
}

fn read(bytes: Vec<u8>) -> Result<Header> {
    Header::read(&MemorySource::new(bytes, "a model"))
}

#[test]
fn keys_lists_and_tensors_are_found() {
    let mut writer = Writer::new(3, 3, 4);
    writer.text("general.alignment").u32(4).u32(64);
    writer.text("name").u32(8).text("a model");
    // A list of two lists: of texts, and of truth values.
    writer.text("nested").u32(9).u32(9).u64(2);
    writer.u32(8).u64(2).text("x\"").text("");
    writer.u32(7).u64(3).0.extend([1, 0, 1]);
    writer.text("rate").u32(6).u32(0.5f32.to_bits());
    writer.tensor("b", &[256, 2], 12, 64);
    writer.tensor("a", &[5, 3], 1, 0);
    writer.tensor("none", &[], 0, 384);
    let header = read(writer.end(64, 388)).expect("a good header");
    assert_eq!((header.version(), header.alignment()), (3, 64));
    assert_eq!(header.data_offset() % 64, 0);
    let texts: Vec<_> = header.texts().into_iter().map(|(_, value)| value).collect();
    let nested = r#"[["x\"",""],[true,false,true]]"#;
    assert_eq!(texts, ["64", "a model", nested, "0.5"]);
    assert_eq!(header.value("rate"), Some(&Value::F32(0.5)));
    let tensors = header.tensors();
    assert_eq!((tensors[0].dtype.name(), tensors[0].size), ("Q4_K", 288));
    assert_eq!(
        tensors[0].shape,
        [2, 256],
        "the dense dimension is the last one"
    );
    assert_eq!(tensors[1].file_offset, header.data_offset());
    assert_eq!((tensors[1].size, tensors[2].size), (30, 4));
}

#[test]
fn each_broken_rule_has_an_offset() {
    let key = |kind: u32, bytes: &[u8]| {
        let mut writer = Writer::new(3, 0, 1);
        writer.text("k").u32(kind).0.extend(bytes);
        writer.end(32, 0)
    };
    let tensor = |shape: &[u64], kind: u32, at: u64| {
        let mut writer = Writer::new(3, 1, 0);
        writer.tensor("t", shape, kind, at).end(32, 64)
    };
    let two = |first: u64, second: u64, name: &str| {
        let mut writer = Writer::new(3, 2, 0);
        writer
            .tensor("t", &[9], 0, first)
            .tensor(name, &[8], 0, second);
        writer.end(32, 128)
    };
    let align = |n: u32| {
        let mut writer = Writer::new(2, 0, 1);
        writer.text("general.alignment").u32(4).u32(n).end(32, 0)
    };
    let mut same = Writer::new(3, 0, 2);
    same.text("k").u32(4).u32(1).text("k").u32(4).u32(1);
    let huge = u64::MAX.to_le_bytes();
    let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let mut deep: Vec<u8> = Vec::new();
    for _ in 0..9 {
        deep.extend(list(9, 1));
    }
    deep.extend(list(0, 0));
    let corrupted = [
        b"GGML".to_vec(),
        Writer::new(0, 0, 0).0,
        Writer::new(3, u64::MAX, 0).end(32, 0),
        Writer::new(3, 0, u64::MAX).end(32, 0),
        Writer::new(3, 1 << 40, 0).end(32, 4096),
        key(13, &[]),
        key(7, &[2]),
        key(8, &huge),
        key(9, &list(0, u64::MAX)),
        key(9, &list(8, 1 << 60)),
        key(9, &list(12, 1 << 61)),
        key(9, &list(13, 1)),
        key(9, &deep),
        same.end(32, 0),
        tensor(&[1, 1, 1, 1, 1, 1, 1, 1, 1], 0, 0),
        tensor(&[255], 12, 0),
        tensor(&[128, 2], 12, 0),
        tensor(&[1 << 32, 1 << 32], 0, 0),
        tensor(&[1 << 62], 0, 0),
        tensor(&[17], 0, 0),
        tensor(&[1], 0, 4),
        tensor(&[1], 0, u64::MAX - 31),
        two(0, 32, "u"),
        two(0, 64, "t"),
        align(0),
        align(24),
        align(1 << 31),
    ];
    for (number, bytes) in corrupted.into_iter().enumerate() {
        let size = bytes.len() as u64;
        let error = read(bytes).expect_err("broken");
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{number}: {error}");
        assert!(
            error.offset().is_some_and(|at| at <= size),
            "{number}: {error}"
        );
    }
    assert!(read(two(0, 64, "u")).is_ok());
    for (version, why) in [(1, "version 1"), (3 << 24, "big-endian"), (4, "version 4")] {
        let error = read(Writer::new(version, 0, 0).0).expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::NotSupported);
        assert!(error.message().contains(why), "{error}");
    }
    let error = read(tensor(&[32], 4, 0)).expect_err("a type that is gone");
    assert_eq!(error.kind(), ErrorKind::NotSupported);
}
