//! The kernel that computes and compares CRC32C, loaded at first use.

use std::ffi::c_void;

use parking_lot::Mutex;

use super::driver::Driver;
use super::kernels::{load_module, start, unload_module};
use crate::device::{CrcWork, Stream};
use crate::error::{Error, ErrorKind, Result};

/// Made from `kernels/crc32c.cu` by `scripts/build-kernels`.
const CRC32C_PTX: &str = include_str!("../../../kernels/ptx/crc32c.ptx");

/// Threads of a block: the kernel's launch bound.
const THREADS: u32 = 512;
/// Chunks that a block has in work: one a warp.
const WARPS: u64 = THREADS as u64 / 32;
/// Blocks a multiprocessor holds at once, by the registers of the kernel. Each makes its tables
/// when it starts, so more blocks than fit would cost time.
const BLOCKS_PER_MULTIPROCESSOR: u64 = 2;

/// What became of loading.
#[derive(Clone)]
enum State {
    Unused,
    /// Module and function, as addresses so that threads may share them.
    Loaded(usize, usize),
    /// The driver does not take it, and would not later.
    Refused(Error),
}

/// The CRC kernel of one device.
pub(super) struct CrcKernel {
    multiprocessors: u64,
    state: Mutex<State>,
}

impl CrcKernel {
    pub(super) fn new(multiprocessors: i32) -> Self {
        Self {
            multiprocessors: u64::try_from(multiprocessors).unwrap_or(1).max(1),
            state: Mutex::new(State::Unused),
        }
    }

    /// Launches the kernel for one chunk at least. The context is current.
    ///
    /// # Safety
    /// As `Device::crc32c_chunks`.
    pub(super) unsafe fn launch(
        &self,
        driver: &Driver,
        work: &CrcWork,
        stream: Stream,
    ) -> Result<()> {
        let function = self.function(driver)?;
        let grid = (blocks(self.multiprocessors, work.chunk_count), THREADS);
        let mut work = *work;
        let mut parameters = [(&raw mut work).cast::<c_void>()];
        let what = || format!("launch the CRC kernel for {} chunks", work.chunk_count);
        // SAFETY: the parameter is the kernel's one, by value.
        unsafe { start(driver, function, grid, stream, &mut parameters, what) }
    }

    /// The function, loaded. The context is current.
    ///
    /// # Errors
    /// `NotSupported` when the driver does not take it; `OutOfDeviceMemory`, which may pass.
    pub(super) fn function(&self, driver: &Driver) -> Result<usize> {
        let mut state = self.state.lock();
        match &*state {
            State::Loaded(_, function) => return Ok(*function),
            State::Refused(error) => return Err(error.clone()),
            State::Unused => {}
        }
        let names = [c"gds_crc32c_chunks"];
        match load_module(driver, CRC32C_PTX, "the CRC kernel", names) {
            Ok((module, [function])) => {
                *state = State::Loaded(module, function);
                Ok(function)
            }
            Err(error) if error.kind() == ErrorKind::OutOfDeviceMemory => Err(error),
            Err(error) => {
                let error = Error::new(ErrorKind::NotSupported, error.message().to_owned())
                    .with_cuda(error.cuda());
                *state = State::Refused(error.clone());
                Err(error)
            }
        }
    }

    /// Unloads what was loaded. The context is current and nothing runs.
    pub(super) fn unload(&self, driver: &Driver) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Unused);
        if let State::Loaded(module, _) = state {
            unload_module(driver, module);
        }
    }
}

/// Blocks for `chunks`: one chunk a block while there are few, no more than fit at once.
fn blocks(multiprocessors: u64, chunks: u64) -> u32 {
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
        assert!(CRC32C_PTX.contains(".entry gds_crc32c_chunks("));
        assert!(CRC32C_PTX.contains("\n.version 6.4\n"));
        assert!(CRC32C_PTX.contains("\n.target sm_75\n"));
    }

    #[test]
    fn the_layouts_are_those_of_the_kernel() {
        use crate::device::{CrcRange, CrcVerdict};
        assert_eq!(size_of::<CrcRange>(), 24);
        assert_eq!(size_of::<CrcVerdict>(), 16);
        assert_eq!(size_of::<CrcWork>(), 56);
    }
}
