//! Explanations: which way a file's bytes would take, and why not a better one.

use core::ffi::c_char;

use super::convert;
use super::error::Outcome;
use super::guard::guard;
use super::handle;
use super::status::gds_status_t;
use super::types::gds_context_t;
use crate::error::{Error, ErrorKind};

/// Explain in text which way a large read of a file would take, and what each better way
/// lacks.
///
/// The file is opened for reading and asked, not read. For people; the words change between
/// versions.
///
/// @param path        NUL-terminated.
/// @param text_out    receives the text with its NUL. May be NULL if capacity is 0, to ask
///                    for the size alone.
/// @param capacity    bytes at text_out.
/// @param needed_out  bytes that the text takes, NUL included; written with
///                    GDS_STATUS_BUFFER_TOO_SMALL as well. May be NULL.
/// @return GDS_STATUS_BUFFER_TOO_SMALL: the text does not fit; what gds_file_open() answers.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_explain(
    context: *const gds_context_t,
    path: *const c_char,
    text_out: *mut c_char,
    capacity: u64,
    needed_out: *mut u64,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        // SAFETY: the caller gives a NUL-terminated text.
        let path = unsafe { convert::path(path, "path")? };
        convert::check_optional(needed_out, "needed_out")?;
        if capacity > 0 {
            convert::check_pointer(text_out.cast_const(), "text_out")?;
        }
        let text = context.explain(path)?.to_string();
        // SAFETY: checked above, and the caller gives `capacity` bytes.
        unsafe { write_text(&text, text_out, capacity, needed_out) }
    })
}

/// # Safety
/// `place` has `capacity` writable bytes; a non-NULL `needed_out` is writable and aligned.
unsafe fn write_text(
    text: &str,
    place: *mut c_char,
    capacity: u64,
    needed_out: *mut u64,
) -> Outcome {
    let needed = text.len() as u64 + 1;
    // SAFETY: the caller's promise.
    unsafe { convert::write_optional(needed_out, needed) };
    if capacity == 0 {
        return Ok(());
    }
    if capacity < needed {
        return Err(Error::new(
            ErrorKind::BufferTooSmall,
            format!("the text takes {needed} bytes and capacity is {capacity}; give more room"),
        )
        .into());
    }
    // SAFETY: `needed <= capacity` bytes are writable, and a Rust text overlaps none of them.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), place.cast::<u8>(), text.len()) };
    // SAFETY: the last of the `needed` bytes.
    unsafe { place.add(text.len()).write(0) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, room: usize) -> (i32, u64, Vec<u8>) {
        let mut memory = vec![b'#'; room + 1];
        let mut needed = 0;
        // SAFETY: `room` bytes are there.
        let outcome = unsafe {
            write_text(
                text,
                memory.as_mut_ptr().cast(),
                room as u64,
                &raw mut needed,
            )
        };
        (outcome.err().map_or(0, |f| f.status as i32), needed, memory)
    }

    #[test]
    fn a_text_is_written_whole_or_not_at_all() {
        assert_eq!(written("four", 5), (0, 5, b"four\0#".to_vec()));
        assert_eq!(written("four", 4), (5, 5, b"#####".to_vec()));
        assert_eq!(written("four", 0), (0, 5, b"#".to_vec()));
    }
}
