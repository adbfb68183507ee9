//! The kernels that work on what formats hold, as processor code, for `late_device`.

#![allow(clippy::missing_panics_doc, clippy::must_use_candidate)]

use std::ffi::{CStr, c_void};

use gds_rs::device::{DecompressWork, ParquetWork};

use crate::kernel_support::compiled;
use crate::late_device::Kernels;

/// The kernels that work on what formats hold, as processor code.
pub fn format_kernels() -> Kernels {
    let step = |name: &CStr| {
        let symbol = compiled("parquet.cu", name);
        // SAFETY: the source declares this function with this signature; it stays loaded.
        unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const ParquetWork)>(symbol)
        }
    };
    let decompress = compiled("decompress.cu", c"gds_decompress_chunks_on_host");
    Kernels {
        // SAFETY: as above.
        decompress: unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const DecompressWork)>(
                decompress,
            )
        },
        parquet: [
            step(c"gds_parquet_levels_on_host"),
            step(c"gds_parquet_expand_on_host"),
            step(c"gds_parquet_values_on_host"),
            step(c"gds_parquet_gather_on_host"),
            step(c"gds_parquet_count_on_host"),
            step(c"gds_parquet_place_on_host"),
        ],
    }
}
