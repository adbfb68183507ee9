//! CRCs of memory, computed where it is.

use super::convert;
use super::error::Outcome;
use super::guard::guard;
use super::handle;
use super::status::gds_status_t;
use super::types::{gds_buffer_t, gds_context_t};
use crate::error::{Error, ErrorKind};

/// CRC32C (Castagnoli) of each chunk of a range of a buffer, computed where the bytes are:
/// device memory by a kernel, host memory by the processor.
///
/// Waits, in a stream of its own: work that is queued on CUDA streams and makes the bytes
/// must be done before. From many threads at once. The first call loads the kernel, which
/// the driver may make wait for what runs on the device; each thread that was ever inside
/// keeps 1 MiB of device and of pinned memory for the next call.
///
/// @param buffer       any kind of memory.
/// @param offset       of the range in the buffer, bytes; any alignment.
/// @param size         bytes; 0 is fine. The last chunk holds what is left.
/// @param chunk_bytes  a power of two, 512 to 1048576.
/// @param crcs_out     receives one value a chunk.
/// @param count        values that crcs_out has room for.
/// @return GDS_STATUS_OUT_OF_RANGE: the range passes the buffer's end;
///         GDS_STATUS_BUFFER_TOO_SMALL: fewer than one value a chunk;
///         GDS_STATUS_INVALID_ARGUMENT: NULL, another chunk_bytes, a buffer of another
///         context; GDS_STATUS_OUT_OF_HOST_MEMORY; GDS_STATUS_CUDA;
///         GDS_STATUS_INVALID_HANDLE; GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_crc32c(
    context: *const gds_context_t,
    buffer: *const gds_buffer_t,
    offset: u64,
    size: u64,
    chunk_bytes: u64,
    crcs_out: *mut u32,
    count: u64,
) -> gds_status_t {
    guard(|| {
        let context = handle::borrow(context, "context")?;
        let buffer = handle::borrow(buffer, "buffer")?;
        convert::check_pointer(crcs_out, "crcs_out")?;
        check_count(size, chunk_bytes, count)?;
        let crcs = context.crc32c_chunks(&buffer, offset, size, chunk_bytes)?;
        // SAFETY: checked above, and the caller gives `count` values, no fewer than there are.
        unsafe { crcs_out.copy_from_nonoverlapping(crcs.as_ptr(), crcs.len()) };
        Ok(())
    })
}

/// Whether there is room for one value a chunk. A `chunk_bytes` that cannot be is for the engine.
fn check_count(size: u64, chunk_bytes: u64, count: u64) -> Outcome {
    let chunks = size.div_ceil(chunk_bytes.max(1));
    if !chunk_bytes.is_power_of_two() || count >= chunks {
        return Ok(());
    }
    let text = format!(
        "{size} bytes have {chunks} chunks of {chunk_bytes} bytes and count is {count}; give room \
         for one value a chunk"
    );
    Err(Error::new(ErrorKind::BufferTooSmall, text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_one_value_a_chunk_is_enough() {
        for (size, chunk, count) in [(0, 512, 0), (1, 512, 1), (512, 512, 1), (513, 512, 2)] {
            assert!(check_count(size, chunk, count).is_ok());
            assert!(count == 0 || check_count(size, chunk, count - 1).is_err());
        }
        assert!(check_count(u64::MAX, 512, u64::MAX >> 9).is_err());
        // Not answered here: the engine says what a chunk may be.
        assert!(check_count(4096, 0, 0).is_ok() && check_count(4096, 100, 0).is_ok());
    }
}
