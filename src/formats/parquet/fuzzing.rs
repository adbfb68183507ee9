//! What the fuzz target runs: a whole file of any bytes, decoded into memory of the host device.

use std::sync::Arc;

use super::{Parquet, Selection};
use crate::config::{Config, DEVICE_HOST};
use crate::engine::Context;
use crate::error::ErrorKind;
use crate::formats::MemorySource;

/// Host memory that decoding may take in a fuzzed run, bytes.
pub const MEMORY_LIMIT: u64 = 16 << 20;

/// A context for `run`.
///
/// # Errors
/// What opening a context on the host says.
pub fn context() -> Result<Context, String> {
    let config = Config {
        gpu_device: DEVICE_HOST,
        ..Config::default()
    };
    Context::open(config).map_err(|e| e.to_string())
}

/// Opens and loads the input. Whether it was accepted.
///
/// # Errors
/// What was refused without saying where, or as something that input cannot cause.
pub fn run(context: &Context, input: &[u8]) -> Result<bool, String> {
    let source = Arc::new(MemorySource::new(input.to_vec(), "input"));
    let selection = Selection {
        memory_limit: Some(MEMORY_LIMIT),
        ..Selection::default()
    };
    let loaded = Parquet::open_source(source, None).and_then(|parquet| {
        let _ = (parquet.info(), parquet.columns(), parquet.row_groups());
        for group in 0..parquet.info().row_groups {
            for column in 0..parquet.info().columns {
                let _ = parquet.chunk(group, column);
            }
        }
        parquet.load(context, &selection)
    });
    let Err(error) = loaded else {
        return Ok(true);
    };
    match error.kind() {
        ErrorKind::Corrupted if error.offset().is_none() => Err(format!("no offset: {error}")),
        ErrorKind::Corrupted
        | ErrorKind::NotSupported
        | ErrorKind::OutOfHostMemory
        // An input that asks for keys.
        | ErrorKind::InvalidArgument => Ok(false),
        other => Err(format!("{other:?}: {error}")),
    }
}
