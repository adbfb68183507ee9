//! What the official crate says, as errors of this library; and its panics.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::errors::ParquetError;

use crate::error::{Error, ErrorKind, Result};

/// Bytes of the file are not what they must be.
pub(super) fn corrupted(path: &Path, offset: u64, what: &str) -> Error {
    let message = format!("{} at byte {offset}: {what}", path.display());
    Error::new(ErrorKind::Corrupted, message)
        .with_path(path)
        .with_offset(offset)
}

/// Something that does not work although the file is not to blame.
pub(super) fn failed(path: &Path, what: &str, why: impl Display) -> Error {
    let message = format!("{what} of {}: {why}", path.display());
    Error::new(ErrorKind::Internal, message).with_path(path)
}

/// An error of the crate while it did `what` with bytes from `offset` on.
fn said(path: &Path, offset: u64, what: &str, error: ParquetError) -> Error {
    let error = match error {
        // Our own, that went through the crate.
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => return *own,
            Err(other) => ParquetError::External(other),
        },
        other => other,
    };
    let kind = match &error {
        ParquetError::NYI(_) => ErrorKind::NotSupported,
        _ => ErrorKind::Corrupted,
    };
    let text = error.to_string();
    let text = text.strip_prefix("Parquet error: ").unwrap_or(&text);
    let message = format!("{what} of {} from byte {offset} on: {text}", path.display());
    Error::new(kind, message)
        .with_path(path)
        .with_offset(offset)
}

/// Lets the crate do `what` with bytes of the file from `offset` on.
///
/// The crate checks what it reads, but not all: on some damaged files it panics (an assertion, a
/// subtraction that passes zero, a slice that ends before it begins). Such a panic says no more
/// than that the file is damaged, and what it leaves behind is dropped here, so it ends as an
/// error.
pub(super) fn attempt<T>(
    path: &Path,
    offset: u64,
    what: &str,
    work: impl FnOnce() -> parquet::errors::Result<T>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(said(path, offset, what, error)),
        Err(payload) => {
            let text = text_of(&*payload);
            let message = format!(
                "{what} of {} from byte {offset} on: the decoder gave up ({text}); the file is \
                 damaged",
                path.display()
            );
            let error = Error::new(ErrorKind::Corrupted, message);
            Err(error.with_path(path).with_offset(offset))
        }
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_an_offset() {
        let path = Path::new("a file");
        let result: Result<()> = attempt(path, 7, "decode a page", || panic!("index {}", 3));
        let error = result.expect_err("it panicked");
        assert_eq!(
            (error.kind(), error.offset()),
            (ErrorKind::Corrupted, Some(7))
        );
        assert!(error.message().contains("index 3"), "{error}");
    }

    #[test]
    fn errors_of_this_library_come_back_as_they_went_in() {
        let path = Path::new("a file");
        let inner = Error::new(ErrorKind::NoSpace, "full");
        let wrapped = ParquetError::External(Box::new(inner));
        let error = attempt::<()>(path, 0, "x", || Err(wrapped)).expect_err("it failed");
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::NoSpace, "full")
        );
        let nyi = ParquetError::NYI("later".into());
        let error = attempt::<()>(path, 0, "x", || Err(nyi)).expect_err("it failed");
        assert_eq!(error.kind(), ErrorKind::NotSupported);
    }
}
