//! The kernels that decode Parquet pages.

use super::lazy::Code;

/// A function a [`crate::device::ParquetStep`], in its order.
pub(super) const PARQUET: Code<6> = Code {
    ptx: include_str!("../../../kernels/ptx/parquet.ptx"),
    entries: [
        c"gds_parquet_levels",
        c"gds_parquet_expand",
        c"gds_parquet_values",
        c"gds_parquet_gather",
        c"gds_parquet_count",
        c"gds_parquet_place",
    ],
    name: "the Parquet kernels",
    threads: 128,
    blocks_per_multiprocessor: 16,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{
        ParquetColumn, ParquetLevels, ParquetNest, ParquetNode, ParquetPage, ParquetStep,
        ParquetWork,
    };

    #[test]
    fn the_ptx_has_a_kernel_a_step_and_runs_on_old_drivers() {
        let steps = [
            ParquetStep::Levels,
            ParquetStep::Expand,
            ParquetStep::Values,
            ParquetStep::Gather,
            ParquetStep::Count,
            ParquetStep::Place,
        ];
        for (n, step) in steps.into_iter().enumerate() {
            assert_eq!(step as usize, n);
            let name = format!("{step:?}").to_lowercase();
            assert_eq!(
                PARQUET.entries[n].to_string_lossy(),
                format!("gds_parquet_{name}")
            );
            assert!(PARQUET.ptx.contains(&format!(".entry gds_parquet_{name}(")));
        }
        assert!(PARQUET.ptx.contains("\n.version 6.4\n"));
        assert!(PARQUET.ptx.contains("\n.target sm_75\n"));
    }

    #[test]
    fn the_layouts_are_those_of_the_kernel() {
        assert_eq!(size_of::<ParquetPage>(), 96);
        assert_eq!(size_of::<ParquetColumn>(), 64);
        assert_eq!(size_of::<ParquetWork>(), 48);
        assert_eq!(size_of::<ParquetNode>(), 32);
        assert_eq!(size_of::<ParquetNest>(), 24);
        assert_eq!(size_of::<ParquetLevels>(), 96);
    }
}
