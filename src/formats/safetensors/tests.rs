use super::super::MemorySource;
use super::super::tensor::Dtype;
use super::*;
use crate::error::ErrorKind;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

fn read(bytes: Vec<u8>) -> Result<Header> {
    Header::read(&MemorySource::new(bytes, "tensors"))
}

fn tensor(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

#[test]
fn tensors_come_in_the_order_of_the_file() {
    let header = format!(
        r#"{{{},"__metadata__":{{"format":"pt"}},{},{},{}}}   "#,
        tensor("later", "F32", "[2,3]", 2, 26),
        tensor("first", "BF16", "[]", 0, 2),
        tensor("empty", "I64", "[4,0]", 2, 2),
        tensor("narrow", "F6_E2M3", "[8]", 26, 32)
    );
    let data = 8 + header.len() as u64;
    let read = read(file(&header, 32)).expect("a good header");
    let found: Vec<_> = read
        .tensors()
        .iter()
        .map(|t| (&*t.name, t.file_offset))
        .collect();
    let wanted = [("first", 0), ("empty", 2), ("later", 2), ("narrow", 26)];
    assert_eq!(found, wanted.map(|(name, at)| (name, data + at)));
    assert_eq!(read.tensors()[2].shape, [2, 3]);
    assert_eq!(Some(read.tensors()[0].dtype), Dtype::of_safetensors("BF16"));
    assert_eq!(read.metadata()["format"], "pt");
    assert_eq!(read.data_offset(), data);
    assert_eq!(self::read(file("{}", 0)).expect("empty").tensors().len(), 0);
}

#[test]
fn each_broken_rule_is_corrupted_with_an_offset() {
    let one = |dtype: &str, shape: &str, begin, end| {
        format!("{{{}}}", tensor("a", dtype, shape, begin, end))
    };
    let two = |b: (u64, u64), c: (u64, u64)| {
        let (b, c) = (
            tensor("b", "U8", "[4]", b.0, b.1),
            tensor("c", "U8", "[4]", c.0, c.1),
        );
        format!("{{{b},{c}}}")
    };
    let cases = [
        (" {}".to_owned(), 0, "does not begin with"),
        ("[]".to_owned(), 0, "does not begin with"),
        ("{".to_owned(), 0, "EOF"),
        ("{} x".to_owned(), 0, "trailing"),
        ("{\"a\":1}".to_owned(), 0, "an object of dtype"),
        (
            format!("{{{0},{0}}}", tensor("a", "U8", "[0]", 0, 0)),
            0,
            "twice",
        ),
        (r#"{"__metadata__":{"a":1}}"#.to_owned(), 0, "string"),
        (
            r#"{"__metadata__":{"a":"b","a":"b"}}"#.to_owned(),
            0,
            "twice",
        ),
        (
            r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(),
            0,
            "twice",
        ),
        (
            r#"{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}"#.to_owned(),
            1,
            "twice",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1]}}"#.to_owned(),
            1,
            "data_offsets",
        ),
        (one("U8", "[1.5]", 0, 1), 1, "u64"),
        (one("U8", "[-1]", 0, 1), 1, "u64"),
        (one("U8", "[4]", 0, 5), 5, "shape"),
        (one("F32", "[4]", 0, 4), 4, "shape"),
        (one("F4", "[3]", 0, 1), 1, "shape"),
        (one("U8", "[4294967296,4294967296]", 0, 0), 0, "shape"),
        (one("F64", "[2305843009213693952]", 0, 0), 0, "shape"),
        (one("U8", "[4]", 4, 0), 4, "bytes 4 to 0"),
        (one("U8", "[9]", 0, 9), 8, "bytes 0 to 9"),
        (one("U8", "[4]", 1, 5), 5, "hole"),
        (one("U8", "[4]", 0, 4), 5, "end at"),
        (two((0, 4), (5, 9)), 9, "hole"),
        (two((0, 4), (3, 7)), 8, "overlaps"),
        (two((0, 4), (0, 4)), 8, "overlaps"),
        (
            one("U8", &format!("[{}1]", "1,".repeat(64)), 0, 1),
            1,
            "dimensions",
        ),
    ];
    for (header, data, why) in cases {
        let size = 8 + header.len() as u64 + data as u64;
        let error = read(file(&header, data)).expect_err(&header);
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{header}: {error}");
        assert!(error.message().contains(why), "{header}: {error}");
        assert!(
            error.offset().is_some_and(|at| at <= size),
            "{header}: {error}"
        );
        assert!(error.path().is_some());
    }
}

#[test]
fn lengths_are_checked_before_anything_is_allocated() {
    for length in [3, 100_000_000, 100_000_001, u64::MAX / 2, u64::MAX] {
        let mut bytes = file("{}", 0);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(read(bytes).expect_err("long").kind(), ErrorKind::Corrupted);
    }
    let mut bad_utf8 = file("{\"a\": \"  \"}", 0);
    bad_utf8[15] = 0xff;
    assert_eq!(read(bad_utf8).expect_err("no UTF-8").offset(), Some(15));
}

#[test]
fn a_type_from_the_future_is_not_supported() {
    let header = format!("{{{}}}", tensor("a", "F2", "[4]", 0, 1));
    let error = read(file(&header, 1)).expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.message().contains("F2"), "{error}");
}
