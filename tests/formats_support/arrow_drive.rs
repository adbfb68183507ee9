// Everything that can be done with untrusted bytes of Arrow. Shared with fuzz/fuzz_targets.

use std::sync::Arc;

use arrow_schema::DataType;
use gds_rs::engine::Context;
use gds_rs::error::ErrorKind;
use gds_rs::formats::arrow::{ArrowPipe, ArrowReader, LoadOptions, Unpack, to_host};
use gds_rs::formats::{Array, MemorySource};

/// Batches are loaded while they are smaller than this, bytes.
const LOADED_MAX: u64 = 16 << 20;
/// What a Zstandard frame can become, the most of all.
const EXPANSION: u64 = 33_000;

fn has_null_views(array: &Array) -> bool {
    let is_view = matches!(array.data_type, DataType::Utf8View | DataType::BinaryView);
    let mut inner = array.children.iter().chain(array.dictionary.as_deref());
    is_view && array.null_count != Some(0) || inner.any(has_null_views)
}

/// Opens the bytes, plans and loads all batches, checks them. Panics where a promise is broken.
/// Batches that were loaded.
pub fn drive(context: &Context, bytes: &[u8]) -> usize {
    let source = Arc::new(MemorySource::new(bytes.to_vec(), "bytes"));
    let reader = match ArrowReader::from_source(source) {
        Ok(reader) => reader,
        Err(error) => {
            let kind = error.kind();
            let told = matches!(kind, ErrorKind::Corrupted | ErrorKind::NotSupported);
            assert!(told && error.offset().is_some(), "{error:?}");
            return 0;
        }
    };
    let columns: Vec<usize> = (0..reader.schema().fields().len()).collect();
    let mut loaded = 0;
    for batch in 0..reader.batch_count().min(16) {
        let Ok(plan) = reader.plan(batch, &columns) else {
            continue;
        };
        // 64 bytes of padding for each buffer, which takes 16 in the metadata.
        let most = bytes.len() as u64 * EXPANSION + (1 << 20);
        assert!(
            plan.size() <= most,
            "{} bytes make {}",
            bytes.len(),
            plan.size()
        );
        if plan.size() > LOADED_MAX {
            continue;
        }
        let options = LoadOptions {
            validate: Some(true),
            // Where the device decompresses; elsewhere the host does.
            unpack: Unpack::Device,
            ..LoadOptions::default()
        };
        let Ok(mut batches) = reader.load(context, &columns, batch..batch + 1, &options) else {
            continue;
        };
        if let Ok(Some(batch)) = batches.next_batch() {
            loaded += 1;
            for column in &batch.columns {
                // What passed our checks passes those of the official crate, which also looks at
                // what the schema promises of nulls, and closer at views of nulls.
                if has_null_views(column) {
                    continue;
                }
                if let Err(error) = to_host(context, column) {
                    assert!(error.message().contains("non-nullable"), "{error}");
                }
            }
        }
    }
    let all = loaded == reader.batch_count();
    if all && !bytes.starts_with(b"ARROW1") && bytes.len() < 1 << 20 {
        let options = LoadOptions {
            unpack: Unpack::Device,
            ..LoadOptions::default()
        };
        let bytes = std::io::Cursor::new(bytes.to_vec());
        if let Ok(pipe) = ArrowPipe::open(context, bytes, "pipe", &options) {
            let count = pipe.take(16).filter(Result::is_ok).count();
            assert_eq!(count, loaded, "of a pipe, and of a reader");
        }
    }
    loaded
}
