//! The kernel that computes and compares CRC32C.

use super::lazy::Code;

/// `gds_crc32c_chunks`.
pub(super) const CRC32C: Code<1> = Code {
    ptx: include_str!("../../../kernels/ptx/crc32c.ptx"),
    entries: [c"gds_crc32c_chunks"],
    name: "the CRC kernel",
    threads: 512,
    // Each makes its tables when it starts: more than fit would cost time.
    blocks_per_multiprocessor: 2,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_fits_the_device_and_never_is_empty() {
        assert_eq!(CRC32C.blocks(132, 1), 1);
        assert_eq!(CRC32C.blocks(132, 100), 100);
        assert_eq!(CRC32C.blocks(132, 2000), 132);
        assert_eq!(CRC32C.blocks(132, 132 * 16 + 1), 133);
        assert_eq!(CRC32C.blocks(132, 1 << 40), 264);
        assert_eq!(CRC32C.blocks(1, u64::MAX), 2);
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
