//! The kernel that computes and compares CRC32C.

use super::lazy::Code;

/// `gds_crc32c_chunks`.
pub(super) const CRC32C: Code<1> = Code {
    ptx: include_str!("../../../kernels/ptx/crc32c.ptx"),
    entries: [c"gds_crc32c_chunks"],
    name: "the CRC kernel",
    threads: 512,
};

/// Chunks that a block has in work: one a warp.
const WARPS: u64 = CRC32C.threads as u64 / 32;
/// Blocks a multiprocessor holds at once, by the registers of the kernel. Each makes its tables
/// when it starts, so more blocks than fit would cost time.
const BLOCKS_PER_MULTIPROCESSOR: u64 = 2;

/// Blocks for `chunks`: one chunk a block while there are few, no more than fit at once.
pub(super) fn blocks(multiprocessors: u64, chunks: u64) -> u32 {
    let room = multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
    let spread = chunks.min(multiprocessors);
    let blocks = chunks.div_ceil(WARPS).max(spread).clamp(1, room);
    u32::try_from(blocks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_fits_the_device_and_never_is_empty() {
        assert_eq!(blocks(132, 1), 1);
        assert_eq!(blocks(132, 100), 100);
        assert_eq!(blocks(132, 2000), 132);
        assert_eq!(blocks(132, 132 * 16 + 1), 133);
        assert_eq!(blocks(132, 1 << 40), 264);
        assert_eq!(blocks(1, u64::MAX), 2);
    }

    #[test]
    fn the_ptx_has_the_kernel_and_runs_on_old_drivers() {
        assert!(CRC32C.ptx.contains(".entry gds_crc32c_chunks("));
        assert!(CRC32C.ptx.contains("\n.version 6.4\n"));
        assert!(CRC32C.ptx.contains("\n.target sm_75\n"));
    }

    #[test]
    fn the_layouts_are_those_of_the_kernel() {
        use crate::device::{CrcRange, CrcVerdict, CrcWork};
        assert_eq!(size_of::<CrcRange>(), 24);
        assert_eq!(size_of::<CrcVerdict>(), 16);
        assert_eq!(size_of::<CrcWork>(), 56);
    }
}
