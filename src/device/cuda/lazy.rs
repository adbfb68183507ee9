//! Kernels that are loaded at first use: a module's functions, and what became of loading it.

use std::ffi::{CStr, c_void};

use parking_lot::Mutex;

use super::driver::Driver;
use super::kernels::{load_module, start, unload_module};
use crate::device::Stream;
use crate::error::{Error, ErrorKind, Result};

/// What is loaded.
pub(super) struct Code<const N: usize> {
    /// Made by `scripts/build-kernels`.
    pub(super) ptx: &'static str,
    /// Its functions, each of which takes one structure by value.
    pub(super) entries: [&'static CStr; N],
    /// What messages call it.
    pub(super) name: &'static str,
    /// Threads of a block: the kernel's launch bound.
    pub(super) threads: u32,
    /// Blocks a multiprocessor holds at once, by the registers of the kernel. More would only wait.
    pub(super) blocks_per_multiprocessor: u64,
}

impl<const N: usize> Code<N> {
    /// Blocks for work of which each warp takes one unit: a unit a block while there are few, no
    /// more than fit at once.
    pub(super) fn blocks(&self, multiprocessors: u64, units: u64) -> u32 {
        let room = multiprocessors * self.blocks_per_multiprocessor;
        let spread = units.min(multiprocessors);
        let warps = u64::from(self.threads) / 32;
        let blocks = units.div_ceil(warps).max(spread).clamp(1, room);
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }
}

/// What became of loading.
#[derive(Clone)]
enum State<const N: usize> {
    Unused,
    /// Module and functions, as addresses so that threads may share them.
    Loaded(usize, [usize; N]),
    /// The driver does not take it, and would not later.
    Refused(Error),
}

/// The kernels of a module, for one device.
pub(super) struct LazyKernel<const N: usize> {
    code: &'static Code<N>,
    /// Multiprocessors of the device, 1 at least.
    multiprocessors: u64,
    state: Mutex<State<N>>,
}

impl<const N: usize> LazyKernel<N> {
    pub(super) fn new(code: &'static Code<N>, multiprocessors: i32) -> Self {
        Self {
            code,
            multiprocessors: u64::try_from(multiprocessors).unwrap_or(1).max(1),
            state: Mutex::new(State::Unused),
        }
    }

    /// Launches one of the functions for so many units, a warp a unit. The context is current.
    ///
    /// # Safety
    /// `work` is the structure that the function takes, and what it names is as the function wants
    /// it.
    pub(super) unsafe fn launch<T: Copy>(
        &self,
        driver: &Driver,
        entry: usize,
        work: &T,
        units: u64,
        stream: Stream,
        what: impl Fn() -> String,
    ) -> Result<()> {
        let function = self.functions(driver)?[entry];
        let mut work = *work;
        let mut parameters = [(&raw mut work).cast::<c_void>()];
        let blocks = self.code.blocks(self.multiprocessors, units);
        let grid = (blocks, self.code.threads);
        // SAFETY: the parameter is the kernel's one, by value.
        unsafe { start(driver, function, grid, stream, &mut parameters, what) }
    }

    /// The functions, loaded. The context is current.
    ///
    /// # Errors
    /// `NotSupported` when the driver does not take it; `OutOfDeviceMemory`, which may pass.
    pub(super) fn functions(&self, driver: &Driver) -> Result<[usize; N]> {
        let mut state = self.state.lock();
        match &*state {
            State::Loaded(_, functions) => return Ok(*functions),
            State::Refused(error) => return Err(error.clone()),
            State::Unused => {}
        }
        match load_module(driver, self.code.ptx, self.code.name, self.code.entries) {
            Ok((module, functions)) => {
                *state = State::Loaded(module, functions);
                Ok(functions)
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
