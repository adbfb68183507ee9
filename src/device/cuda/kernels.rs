//! The copy kernels, and how PTX inside the binary is handed to the driver at first use.

use std::ffi::{CStr, CString, c_void};
use std::ptr;

use cudarc::driver::sys::{CUfunction, CUmodule, CUstream};
use parking_lot::Mutex;

use super::driver::Driver;
use crate::device::{CopyPiece, STREAM_MOVE_BLOCKS, Stream, StreamControl};
use crate::error::{Error, ErrorKind, Result};

/// Made from `kernels/copy_pieces.cu` by `scripts/build-kernels`.
const COPY_PIECES_PTX: &str = include_str!("../../../kernels/ptx/copy_pieces.ptx");

/// Oldest GPU that the PTX is for, major * 10 + minor.
pub(super) const COMPUTE_CAPABILITY_MIN: i32 = 75;
/// Threads of a block: the kernel's launch bound.
const THREADS: u32 = 256;
/// Warps of a block.
const WARPS: u64 = THREADS as u64 / 32;
/// Blocks a multiprocessor holds at once, by the registers of the kernel.
const BLOCKS_PER_MULTIPROCESSOR: u64 = 2;
/// Blocks that share one piece when there are few: 32 warps, 128 KiB of reads in flight.
const BLOCKS_PER_PIECE: u64 = 4;

/// A loaded module and its function, as addresses so that threads may share them.
#[derive(Clone, Copy)]
struct Loaded {
    module: usize,
    copy_pieces: usize,
    stream_move: usize,
}

/// The copy kernel of one device.
pub(super) struct CopyKernel {
    multiprocessors: u64,
    loaded: Mutex<Option<Loaded>>,
}

impl CopyKernel {
    pub(super) fn new(multiprocessors: i32) -> Self {
        Self {
            multiprocessors: u64::try_from(multiprocessors).unwrap_or(1).max(1),
            loaded: Mutex::new(None),
        }
    }

    /// Launches the kernel for `count` pieces (more than 0). The context is current.
    ///
    /// # Safety
    /// As `Device::copy_pieces`.
    pub(super) unsafe fn launch(
        &self,
        driver: &Driver,
        pieces: *const CopyPiece,
        count: usize,
        stream: Stream,
    ) -> Result<()> {
        let function = self.loaded(driver)?.copy_pieces;
        let blocks = blocks(self.multiprocessors, count as u64);
        let mut pieces = pieces;
        let mut count = count as u64;
        let mut parameters = [
            (&raw mut pieces).cast::<c_void>(),
            (&raw mut count).cast::<c_void>(),
        ];
        let what = || format!("launch the copy kernel for {count} pieces");
        // SAFETY: the parameters are the kernel's two.
        unsafe {
            start(
                driver,
                function,
                (blocks, THREADS),
                stream,
                &mut parameters,
                what,
            )
        }
    }

    /// Launches the kernel that copies what the host publishes. The context is current.
    ///
    /// # Safety
    /// As `Device::stream_move`.
    pub(super) unsafe fn launch_move(
        &self,
        driver: &Driver,
        control: *mut StreamControl,
        stream: Stream,
    ) -> Result<()> {
        let function = self.loaded(driver)?.stream_move;
        let mut control = control;
        let mut parameters = [(&raw mut control).cast::<c_void>()];
        let what = || "put a transfer into a stream".to_owned();
        let grid = (STREAM_MOVE_BLOCKS as u32, THREADS);
        // SAFETY: the parameter is the kernel's one.
        unsafe { start(driver, function, grid, stream, &mut parameters, what) }
    }

    fn loaded(&self, driver: &Driver) -> Result<Loaded> {
        let mut loaded = self.loaded.lock();
        if let Some(there) = *loaded {
            return Ok(there);
        }
        let fresh = load(driver)?;
        *loaded = Some(fresh);
        Ok(fresh)
    }

    /// Unloads what was loaded. The context is current and nothing runs.
    pub(super) fn unload(&self, driver: &Driver) {
        if let Some(loaded) = self.loaded.lock().take() {
            unload_module(driver, loaded.module);
        }
    }
}

/// Launches a function with a grid of so many blocks of so many threads.
///
/// # Safety
/// `parameters` are those of the function.
pub(super) unsafe fn start(
    driver: &Driver,
    function: usize,
    (blocks, threads): (u32, u32),
    stream: Stream,
    parameters: &mut [*mut c_void],
    what: impl Fn() -> String,
) -> Result<()> {
    // SAFETY: the function was loaded in the current context; the driver copies the parameters
    // during the call.
    let result = unsafe {
        (driver.f.cuLaunchKernel)(
            function as CUfunction,
            blocks,
            1,
            1,
            threads,
            1,
            1,
            0,
            stream.0 as CUstream,
            parameters.as_mut_ptr(),
            ptr::null_mut(),
        )
    };
    driver.check(result, what)
}

/// Blocks for `count` pieces: a warp a piece, more warps for few, no more than fit at once.
fn blocks(multiprocessors: u64, count: u64) -> u32 {
    let room = multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
    let shared = count.saturating_mul(BLOCKS_PER_PIECE).min(multiprocessors);
    let blocks = count.div_ceil(WARPS).max(shared).min(room);
    u32::try_from(blocks).unwrap_or(u32::MAX)
}

fn load(driver: &Driver) -> Result<Loaded> {
    let names = [c"gds_copy_pieces", c"gds_stream_move"];
    let (module, [copy_pieces, stream_move]) =
        load_module(driver, COPY_PIECES_PTX, "the copy kernel", names)?;
    Ok(Loaded {
        module,
        copy_pieces,
        stream_move,
    })
}

/// Loads PTX into the current context: its module and functions, as addresses.
pub(super) fn load_module<const N: usize>(
    driver: &Driver,
    ptx: &str,
    what: &str,
    names: [&CStr; N],
) -> Result<(usize, [usize; N])> {
    let internal = |e| Error::new(ErrorKind::Internal, format!("load {what}: {e}"));
    let text = CString::new(ptx).map_err(internal)?;
    let mut module: CUmodule = ptr::null_mut();
    // SAFETY: NUL-terminated PTX, no options.
    let result = unsafe {
        (driver.f.cuModuleLoadDataEx)(
            &mut module,
            text.as_ptr().cast(),
            0,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    driver.check(result, || format!("load {what}"))?;
    let mut functions = [0; N];
    for (place, name) in functions.iter_mut().zip(names) {
        let mut function: CUfunction = ptr::null_mut();
        // SAFETY: the module was loaded just above; the name is NUL-terminated.
        let result =
            unsafe { (driver.f.cuModuleGetFunction)(&mut function, module, name.as_ptr()) };
        let what = || format!("find {} in its module", name.to_string_lossy());
        if let Err(error) = driver.check(result, what) {
            unload_module(driver, module as usize);
            return Err(error);
        }
        *place = function as usize;
    }
    Ok((module as usize, functions))
}

/// Unloads what `load_module` gave, once. The context is current and nothing of it runs.
pub(super) fn unload_module(driver: &Driver, module: usize) {
    // SAFETY: loaded by `load_module`, and nothing uses it.
    unsafe { (driver.f.cuModuleUnload)(module as CUmodule) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_fits_the_device_and_never_is_empty() {
        assert_eq!(blocks(132, 1), 4);
        assert_eq!(blocks(132, 16), 64);
        assert_eq!(blocks(132, 200), 132);
        assert_eq!(blocks(132, 1600), 200);
        assert_eq!(blocks(132, 1 << 40), 264);
        assert_eq!(blocks(1, u64::MAX), 2);
    }

    #[test]
    fn the_ptx_has_the_kernel_and_runs_on_old_drivers() {
        assert!(COPY_PIECES_PTX.contains(".entry gds_copy_pieces("));
        assert!(COPY_PIECES_PTX.contains(".entry gds_stream_move("));
        assert!(COPY_PIECES_PTX.contains("\n.version 6.4\n"));
        assert!(COPY_PIECES_PTX.contains("\n.target sm_75\n"));
    }
}
