//! Arguments of C to values of Rust and back: pointers, structs that grow, ranges, texts.
//!
//! Every function here checks before it reads. What cannot be checked (that a non-NULL pointer
//! names memory of the right size) is the caller's promise, stated in the header.

use core::ffi::{CStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use super::error::{Failure, Outcome};
use super::status::gds_status_t;
use crate::base::limits;
use crate::error::{Error, ErrorKind};

/// Longest struct that any version of the library will take, bytes.
const STRUCT_MAX: usize = 4096;
/// Every struct has grown, and will grow, in steps of 8 bytes.
const STRUCT_STEP: usize = 8;

/// A struct of the header that begins with `uint32_t struct_size` and may grow.
///
/// # Safety
/// repr(C) without padding, a multiple of 8 bytes, `struct_size: u32` first, and every bit
/// pattern is a value.
pub(crate) unsafe trait AbiStruct: Copy + 'static {
    /// As the header spells it.
    const NAME: &'static str;
    /// What the fields hold that an older caller does not know.
    fn initial() -> Self;
}

/// The struct of the caller; the part that an older caller lacks is as `T::initial()`.
///
/// # Safety
/// A non-NULL `source` points to a u32 and to as many readable bytes as that says.
pub(crate) unsafe fn read_struct<T: AbiStruct>(source: *const T) -> Outcome<T> {
    // SAFETY: the caller's promise.
    let size = unsafe { declared_size(source)? };
    let mut value = T::initial();
    let known = size.min(size_of::<T>());
    // SAFETY: `known` bytes are readable there and fit here, and any bytes are a value of T.
    unsafe {
        ptr::copy_nonoverlapping(source.cast::<u8>(), (&raw mut value).cast::<u8>(), known);
    }
    // SAFETY: `known <= size`, and `size` bytes are readable.
    let tail = unsafe { std::slice::from_raw_parts(source.cast::<u8>().add(known), size - known) };
    if let Some(at) = tail.iter().position(|byte| *byte != 0) {
        return Err(struct_size(format!(
            "{} has {size} bytes and byte {} is not zero; this library knows {known} of them: \
             use a newer library or leave the new fields zero",
            T::NAME,
            known + at
        )));
    }
    Ok(value)
}

/// As `read_struct`, and `T::initial()` for NULL.
///
/// # Safety
/// As `read_struct`.
pub(crate) unsafe fn read_optional<T: AbiStruct>(source: *const T) -> Outcome<T> {
    if source.is_null() {
        return Ok(T::initial());
    }
    // SAFETY: the caller's promise.
    unsafe { read_struct(source) }
}

/// A checked place of the caller for a struct.
#[derive(Debug)]
pub(crate) struct StructOut<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: AbiStruct> StructOut<T> {
    /// Checks before any work is done, so that a call fails whole.
    ///
    /// # Safety A non-NULL `pointer` points to a u32 and to as many writable bytes as that
    /// says, until the answer is dropped.
    pub(crate) unsafe fn new(pointer: *mut T) -> Outcome<Self> {
        // SAFETY: the caller's promise.
        let size = unsafe { declared_size(pointer.cast_const())? };
        Ok(Self { pointer, size })
    }

    /// As `new`; NULL means that the caller does not want it.
    ///
    /// # Safety
    /// As `new`.
    pub(crate) unsafe fn optional(pointer: *mut T) -> Outcome<Option<Self>> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        unsafe { Self::new(pointer) }.map(Some)
    }

    /// Bytes from one element of the caller's array to the next.
    pub(crate) fn stride(&self) -> usize {
        self.size
    }

    /// Fills what the caller knows of `value`; its struct_size stays.
    pub(crate) fn write(&self, value: T) {
        // SAFETY: `new` checked the pointer, and its caller promised the bytes.
        unsafe { write_bytes(self.pointer, self.size, value) };
    }
}

/// Writes as much of `value` as `size` bytes hold, with the struct_size that was written.
///
/// # Safety
/// A non-NULL `place` has `size` writable bytes.
pub(crate) unsafe fn write_sized<T: AbiStruct>(place: *mut T, size: usize, value: T) -> Outcome {
    check_pointer(place.cast_const(), T::NAME)?;
    check_size::<T>(size)?;
    // SAFETY: checked above, and the caller's promise.
    unsafe { write_bytes(place, size.min(size_of::<T>()), value) };
    Ok(())
}

/// # Safety
/// `place` is aligned and has `size` writable bytes; `size` passed `check_size`.
unsafe fn write_bytes<T: AbiStruct>(place: *mut T, size: usize, mut value: T) {
    // `check_size` keeps it far below u32::MAX.
    let stated = u32::try_from(size).unwrap_or(u32::MAX);
    // SAFETY: every AbiStruct begins with its u32 struct_size.
    unsafe { (&raw mut value).cast::<u32>().write(stated) };
    let known = size.min(size_of::<T>());
    // SAFETY: `known` bytes are there and here, and the local value cannot overlap.
    unsafe { ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), place.cast::<u8>(), known) };
}

/// # Safety
/// A non-NULL `source` points to a readable u32.
unsafe fn declared_size<T: AbiStruct>(source: *const T) -> Outcome<usize> {
    check_pointer(source, T::NAME)?;
    // SAFETY: the caller's promise; alignment is checked.
    let size = unsafe { source.cast::<u32>().read() } as usize;
    check_size::<T>(size)?;
    Ok(size)
}

fn check_size<T: AbiStruct>(size: usize) -> Outcome {
    if (STRUCT_STEP..=STRUCT_MAX).contains(&size) && size.is_multiple_of(STRUCT_STEP) {
        return Ok(());
    }
    Err(struct_size(format!(
        "struct_size of {} is {size}; set it to sizeof({}), {} here",
        T::NAME,
        T::NAME,
        size_of::<T>()
    )))
}

fn struct_size(message: String) -> Failure {
    Failure::own(gds_status_t::GDS_STATUS_STRUCT_SIZE, message)
}

/// Refuses NULL and what is misaligned for T.
#[inline]
pub(crate) fn check_pointer<T>(pointer: *const T, name: &str) -> Outcome {
    if pointer.is_null() {
        return Err(Failure::null(name));
    }
    if !pointer.is_aligned() {
        return Err(misaligned(pointer.addr(), align_of::<T>(), name));
    }
    Ok(())
}

#[cold]
fn misaligned(address: usize, alignment: usize, name: &str) -> Failure {
    Failure::argument(format!(
        "{name} is {address:#x}; it must be a multiple of {alignment}"
    ))
}

/// Writes an answer where the caller wants it; NULL means that the caller does not.
///
/// # Safety
/// A non-NULL `place` is aligned and writable (`check_pointer` saw it before the work).
pub(crate) unsafe fn write_optional<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write(value) };
    }
}

/// Refuses a misaligned place; NULL is fine.
#[inline]
pub(crate) fn check_optional<T>(pointer: *const T, name: &str) -> Outcome {
    if pointer.is_null() {
        Ok(())
    } else {
        check_pointer(pointer, name)
    }
}

/// The caller's array. A count of 0 needs no memory.
///
/// # Safety
/// A non-NULL `first` points to `count` readable elements that nobody changes during 'a.
pub(crate) unsafe fn array<'a, T>(
    first: *const T,
    count: u64,
    max: u64,
    name: &str,
) -> Outcome<&'a [T]> {
    if count > max {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{name} has {count} elements, at most {max} are taken; use several calls"),
        )
        .into());
    }
    if count == 0 {
        return Ok(&[]);
    }
    check_pointer(first, name)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    // SAFETY: checked above, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// A path of the caller: NUL-terminated, not empty.
///
/// # Safety A non-NULL `text` is NUL-terminated, or readable for `TEXT_MAX` bytes, and
/// unchanged during 'a.
pub(crate) unsafe fn path<'a>(text: *const c_char, name: &str) -> Outcome<&'a Path> {
    if text.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: the caller's promise.
    let size = unsafe { libc::strnlen(text, limits::TEXT_MAX) };
    if size == limits::TEXT_MAX {
        return Err(Failure::argument(format!(
            "{name} has no NUL within {} bytes; paths are NUL-terminated",
            limits::TEXT_MAX
        )));
    }
    // SAFETY: the NUL was found above.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.is_empty() {
        return Err(Failure::argument(format!("{name} is empty; name a file")));
    }
    Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

/// A Rust text in a char array of a struct: cut to fit, NUL-terminated.
pub(crate) fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    let whole = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let size = whole.take_while(|end| *end < N).last().unwrap_or(0);
    for (to, from) in array.iter_mut().zip(&text.as_bytes()[..size]) {
        *to = *from as c_char;
    }
    array
}

/// Refuses a range whose end cannot be addressed.
#[inline]
pub(crate) fn check_range(what: &str, offset: u64, size: u64) -> Outcome {
    match offset.checked_add(size) {
        Some(end) if end <= limits::TRANSFER_SIZE_MAX => Ok(()),
        _ => Err(past_the_end(what, offset, size)),
    }
}

#[cold]
fn past_the_end(what: &str, offset: u64, size: u64) -> Failure {
    let largest = limits::TRANSFER_SIZE_MAX;
    let text = format!("{what} {offset} plus size {size} passes {largest}, the largest offset");
    let error = Error::new(ErrorKind::OutOfRange, text);
    error.with_offset(offset).into()
}

/// A field or parameter that is 0 or 1.
pub(crate) fn boolean(name: &str, value: u32) -> Outcome<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::argument(format!(
            "{name} is {value}; it must be 0 or 1"
        ))),
    }
}

/// Milliseconds of a wait; -1 is for ever.
pub(crate) fn timeout(timeout_ms: i64) -> Outcome<Option<Duration>> {
    match u64::try_from(timeout_ms) {
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
        Err(_) if timeout_ms == -1 => Ok(None),
        Err(_) => Err(Failure::argument(format!(
            "timeout_ms is {timeout_ms}; it must be -1 (for ever) or at least 0"
        ))),
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
