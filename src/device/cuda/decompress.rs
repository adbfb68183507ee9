//! The kernel that decompresses chunks.

use super::lazy::Code;

/// `gds_decompress_chunks`, and what takes chunks apart before it.
pub(super) const DECOMPRESS: Code<2> = Code {
    ptx: include_str!("../../../kernels/ptx/decompress.ptx"),
    entries: [c"gds_decompress_chunks", c"gds_decompress_split"],
    name: "the decompression kernel",
    threads: 128,
    blocks_per_multiprocessor: 16,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_fits_the_device_and_never_is_empty() {
        assert_eq!(DECOMPRESS.blocks(132, 0), 1);
        assert_eq!(DECOMPRESS.blocks(132, 1), 1);
        assert_eq!(DECOMPRESS.blocks(132, 100), 100);
        assert_eq!(DECOMPRESS.blocks(132, 132 * 4 + 1), 133);
        assert_eq!(DECOMPRESS.blocks(132, u64::MAX), 132 * 16);
    }

    #[test]
    fn the_ptx_has_the_kernel_and_runs_on_old_drivers() {
        assert!(DECOMPRESS.ptx.contains(".entry gds_decompress_chunks("));
        assert!(DECOMPRESS.ptx.contains(".entry gds_decompress_split("));
        assert!(DECOMPRESS.ptx.contains("\n.version 6.4\n"));
        assert!(DECOMPRESS.ptx.contains("\n.target sm_75\n"));
    }

    #[test]
    fn the_layouts_are_those_of_the_kernel() {
        use crate::device::{DecompressChunk, DecompressWork};
        assert_eq!(size_of::<DecompressChunk>(), 48);
        assert_eq!(size_of::<DecompressWork>(), 32);
    }
}
