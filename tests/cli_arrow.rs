//! `gds inspect` and `gds load` of Arrow files: what they say is what the file holds.

#![cfg(all(feature = "cli", feature = "arrow"))]

mod cli_support;

use cli_support::{Folder, fails, json_of, text_of};

fn corpus(name: &str) -> String {
    format!(
        "{}/fuzz/corpus/arrow_ipc/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

#[test]
fn inspect_says_what_a_file_holds() {
    let folder = Folder::new();
    let value = json_of(&folder, &["inspect", &corpus("nested-lz4.stream")]);
    assert_eq!(value["format"], "Arrow IPC stream");
    assert_eq!(
        (&value["rows"], &value["metadata_version"]),
        (&9.into(), &5.into())
    );
    assert_eq!(
        value["columns"][3]["type"],
        "RunEndEncoded(non-null Int32, Utf8)"
    );
    assert_eq!(value["batches"][1]["rows"], 4);
    assert_eq!(value["batches"][0]["codec"], "lz4");
    let text = text_of(&folder, &["inspect", &corpus("plain-None.file")]);
    for word in [
        "Arrow IPC file",
        "9 rows of 44 columns in 2 batches",
        "Int8",
        "and 4 more",
    ] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn load_gives_chosen_columns() {
    let folder = Folder::new();
    for name in [
        "plain-None.stream",
        "dictionaries-zstd.file",
        "views-lz4.stream",
    ] {
        let all = json_of(&folder, &["load", &corpus(name)]);
        assert_eq!((&all["rows"], &all["verified"]), (&9.into(), &true.into()));
        let some = json_of(&folder, &["load", &corpus(name), "--columns", "1,0"]);
        assert_eq!(some["columns"], serde_json::json!(["1", "0"]));
        assert!(some["bytes"].as_u64() < all["bytes"].as_u64());
    }
    let name = corpus("plain-None.stream");
    let arguments = ["load", &name, "--columns", "none"];
    fails(&folder, 1, &arguments, &["no column is named"]);
}
