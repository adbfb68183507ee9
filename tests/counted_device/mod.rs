//! The device double of `late_device`, which counts the pages that one step of the kernels gets.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gds_rs::device::ParquetWork;
use gds_rs::engine::Context;

use crate::format_kernels::format_kernels;
use crate::late_device::LateDevice;
use crate::parquet_support::common::small_config;

type Step = unsafe extern "C" fn(*const ParquetWork);

static COUNTED: OnceLock<Step> = OnceLock::new();

/// Pages that the step got so far.
pub static PAGES: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn counted(work: *const ParquetWork) {
    // SAFETY: as the caller promises to the step itself.
    unsafe {
        PAGES.fetch_add((*work).page_count, Relaxed);
        COUNTED.get().unwrap()(work);
    }
}

/// A context on such a device; step `number` is counted, the same one in all of a program.
pub fn device(number: usize) -> Context {
    let mut kernels = format_kernels();
    COUNTED.get_or_init(|| kernels.parquet[number]);
    kernels.parquet[number] = counted;
    LateDevice::with_kernels(kernels).context(small_config(), gds_rs::io::best())
}
