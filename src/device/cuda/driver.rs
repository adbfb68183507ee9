//! libcuda as a table of functions, loaded at run time through cudarc.
//!
//! cudarc finds and opens the library, and its bindings pin every signature here at compile time.
//! Its own entry points are not called: they panic where a symbol is missing, and they return a
//! Rust enum, for which a code from a newer driver would be undefined behaviour. Here a missing
//! symbol is an error that names it, and a result is a plain integer.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_void};
use std::path::PathBuf;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUjit_option,
    CUmodule, CUpointer_attribute, CUstream,
};

use crate::error::{Error, ErrorKind, Result};

/// Oldest driver that is served: CUDA 12.0, whose interfaces do not change within a major version.
pub(in crate::device) const VERSION_MIN: i32 = 12_000;

/// Codes that are told apart; all others are reported by name.
pub(super) mod code {
    use cudarc::driver::sys::CUresult;

    pub(in crate::device::cuda) const SUCCESS: i32 = CUresult::CUDA_SUCCESS as i32;
    pub(in crate::device::cuda) const INVALID_VALUE: i32 =
        CUresult::CUDA_ERROR_INVALID_VALUE as i32;
    pub(in crate::device::cuda) const OUT_OF_MEMORY: i32 =
        CUresult::CUDA_ERROR_OUT_OF_MEMORY as i32;
    pub(in crate::device::cuda) const STUB: i32 = CUresult::CUDA_ERROR_STUB_LIBRARY as i32;
    pub(in crate::device::cuda) const UNAVAILABLE: i32 =
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE as i32;
    pub(in crate::device::cuda) const NO_DEVICE: i32 = CUresult::CUDA_ERROR_NO_DEVICE as i32;
    pub(in crate::device::cuda) const NO_IMAGE: i32 = CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU as i32;
    pub(in crate::device::cuda) const OPERATING_SYSTEM: i32 =
        CUresult::CUDA_ERROR_OPERATING_SYSTEM as i32;
    pub(in crate::device::cuda) const NOT_READY: i32 = CUresult::CUDA_ERROR_NOT_READY as i32;
    pub(in crate::device::cuda) const ALREADY_REGISTERED: i32 =
        CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED as i32;
    pub(in crate::device::cuda) const NOT_SUPPORTED: i32 =
        CUresult::CUDA_ERROR_NOT_SUPPORTED as i32;
    pub(in crate::device::cuda) const SYSTEM_NOT_READY: i32 =
        CUresult::CUDA_ERROR_SYSTEM_NOT_READY as i32;
    pub(in crate::device::cuda) const MISMATCH: i32 =
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH as i32;
}

/// Declares the table, its loading, and a check of every signature against cudarc's.
macro_rules! driver_functions {
    ($($name:ident($($kind:ty),* $(,)?);)*) => {
        /// The functions of libcuda that this room calls. Loaded once, never unloaded.
        #[allow(non_snake_case, reason = "the names are NVIDIA's")]
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($kind),*) -> i32,)*
        }

        impl Functions {
            fn load(library: &Library) -> Result<Self> {
                $(let _: unsafe fn($($kind),*) -> sys::CUresult = sys::$name;)*
                Ok(Self {
                    $($name: {
                        let symbol = library.symbol(concat!(stringify!($name), "\0"))?;
                        // SAFETY: cudarc's bindings, made from NVIDIA's header, have this
                        // signature (checked above); CUresult is a C enum, an i32.
                        unsafe {
                            std::mem::transmute::<
                                *const c_void,
                                unsafe extern "C" fn($($kind),*) -> i32,
                            >(symbol)
                        }
                    },)*
                })
            }
        }
    };
}

driver_functions! {
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, CUdevice);
    cuDeviceTotalMem_v2(*mut usize, CUdevice);
    cuDeviceGetAttribute(*mut c_int, CUdevice_attribute, CUdevice);
    cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    cuDevicePrimaryCtxRelease_v2(CUdevice);
    cuCtxGetCurrent(*mut CUcontext);
    cuCtxSetCurrent(CUcontext);
    cuCtxPushCurrent_v2(CUcontext);
    cuCtxPopCurrent_v2(*mut CUcontext);
    cuMemAlloc_v2(*mut CUdeviceptr, usize);
    cuMemFree_v2(CUdeviceptr);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemGetAddressRange_v2(*mut CUdeviceptr, *mut usize, CUdeviceptr);
    cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    cuMemFreeHost(*mut c_void);
    cuMemHostRegister_v2(*mut c_void, usize, c_uint);
    cuMemHostUnregister(*mut c_void);
    cuPointerGetAttributes(c_uint, *mut CUpointer_attribute, *mut *mut c_void, CUdeviceptr);
    cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
    cuMemsetD8Async(CUdeviceptr, c_uchar, usize, CUstream);
    cuStreamCreate(*mut CUstream, c_uint);
    cuStreamDestroy_v2(CUstream);
    cuStreamSynchronize(CUstream);
    cuStreamWaitEvent(CUstream, CUevent, c_uint);
    cuEventCreate(*mut CUevent, c_uint);
    cuEventDestroy_v2(CUevent);
    cuEventRecord(CUevent, CUstream);
    cuEventQuery(CUevent);
    cuEventSynchronize(CUevent);
    cuModuleLoadDataEx(
        *mut CUmodule, *const c_void, c_uint, *mut CUjit_option, *mut *mut c_void,
    );
    cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    cuModuleUnload(CUmodule);
    cuLaunchKernel(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream,
        *mut *mut c_void, *mut *mut c_void,
    );
}

/// Asks libcuda for the text of a code: `cuGetErrorName` or `cuGetErrorString`.
type TextOf = unsafe extern "C" fn(i32, *mut *const c_char) -> i32;

/// libcuda, opened, version asked, not yet initialised.
struct Library {
    path: PathBuf,
    version: i32,
    name_of: TextOf,
    text_of: TextOf,
}

/// libcuda, initialised, with at least one device.
pub(in crate::device) struct Driver {
    library: Library,
    pub(super) f: Functions,
    /// Devices that the process may see.
    pub(in crate::device) count: i32,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("path", &self.library.path)
            .field("version", &self.library.version)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Library {
    fn open() -> Result<Self> {
        // SAFETY: opens and closes libraries by name; libcuda's constructors are NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::new(
                ErrorKind::DriverMissing,
                "open the CUDA driver: libcuda.so.1 is not in the loader's path; install the \
                 NVIDIA driver, put its folder into LD_LIBRARY_PATH (in a container, start it \
                 with the GPU passed through), or run on the host device (GDS_DEVICE=host)",
            ));
        }
        let version_of: unsafe extern "C" fn(*mut c_int) -> i32 = {
            let symbol = symbol_of("cuDriverGetVersion\0").ok_or_else(|| foreign("libcuda"))?;
            // SAFETY: this has been its signature in every CUDA driver.
            unsafe { std::mem::transmute(symbol) }
        };
        let path = path_of(version_of as *const c_void);
        let named = |name| symbol_of(name).ok_or_else(|| foreign(&path.display().to_string()));
        let (name_of, text_of) = (named("cuGetErrorName\0")?, named("cuGetErrorString\0")?);
        // SAFETY: both take a code and the place for a string; CUresult is a C enum, an i32.
        let (name_of, text_of) = unsafe {
            (
                std::mem::transmute::<*const c_void, TextOf>(name_of),
                std::mem::transmute::<*const c_void, TextOf>(text_of),
            )
        };
        let mut library = Self {
            path,
            version: 0,
            name_of,
            text_of,
        };
        // SAFETY: the version is written to a live integer. Needs no cuInit.
        let result = unsafe { version_of(&mut library.version) };
        library.check(result, || "ask the CUDA driver for its version".to_owned())?;
        if library.version < VERSION_MIN {
            return Err(library.too_old(&format!("it serves CUDA {}", dotted(library.version))));
        }
        Ok(library)
    }

    fn too_old(&self, why: &str) -> Error {
        let text = format!(
            "open the CUDA driver {}: {why}, and CUDA {} is the oldest that works here; install \
             NVIDIA driver 525 or newer, or run on the host device (GDS_DEVICE=host)",
            self.path.display(),
            dotted(VERSION_MIN)
        );
        Error::new(ErrorKind::DriverTooOld, text)
    }

    fn symbol(&self, name: &str) -> Result<*const c_void> {
        let missing = || self.too_old(&format!("it has no {}", name.trim_end_matches('\0')));
        symbol_of(name).ok_or_else(missing)
    }

    fn init(&self) -> Result<()> {
        let symbol = self.symbol("cuInit\0")?;
        // SAFETY: this has been its signature in every CUDA driver.
        let init: unsafe extern "C" fn(c_uint) -> i32 = unsafe { std::mem::transmute(symbol) };
        // SAFETY: flags must be 0.
        self.check(unsafe { init(0) }, || {
            format!("initialise the CUDA driver {}", self.path.display())
        })
    }

    /// The driver's name and sentence for a code.
    fn describe(&self, result: i32) -> String {
        let ask = |of: TextOf| {
            let mut text: *const c_char = std::ptr::null();
            // SAFETY: writes a pointer to a static string, or NULL for an unknown code.
            unsafe { of(result, &mut text) };
            if text.is_null() {
                return None;
            }
            // SAFETY: the driver's strings are static and NUL-terminated.
            Some(
                unsafe { CStr::from_ptr(text) }
                    .to_string_lossy()
                    .into_owned(),
            )
        };
        match (ask(self.name_of), ask(self.text_of)) {
            (Some(name), Some(text)) => format!("{name} ({text})"),
            (Some(name), None) => name,
            _ => format!("CUDA error {result}"),
        }
    }

    fn check(&self, result: i32, what: impl FnOnce() -> String) -> Result<()> {
        if result == code::SUCCESS {
            return Ok(());
        }
        let (kind, advice) = meaning(result);
        let text = format!("{}: {}{advice}", what(), self.describe(result));
        Err(Error::new(kind, text).with_cuda(result))
    }
}

impl Driver {
    /// Opens and initialises libcuda. May take long or hang: see `open::driver` for the deadline.
    ///
    /// # Errors
    /// `DriverMissing`, `DriverTooOld`, `NoDevice` or `Cuda`, each with what to do.
    pub(in crate::device) fn open() -> Result<Self> {
        let library = Library::open()?;
        library.init()?;
        let f = Functions::load(&library)?;
        let mut driver = Self {
            library,
            f,
            count: 0,
        };
        let mut count = 0;
        // SAFETY: the count is written to a live integer.
        let result = unsafe { (driver.f.cuDeviceGetCount)(&mut count) };
        driver.check(result, || "count CUDA devices".to_owned())?;
        driver.count = count;
        if count < 1 {
            return driver
                .check(code::NO_DEVICE, || "count CUDA devices".to_owned())
                .map(|()| driver);
        }
        Ok(driver)
    }

    /// Highest CUDA version that the driver serves (12080 = 12.8).
    pub(in crate::device) fn version(&self) -> i32 {
        self.library.version
    }

    /// Turns a result into an error that says `what` was being done.
    #[inline]
    pub(super) fn check(&self, result: i32, what: impl FnOnce() -> String) -> Result<()> {
        self.library.check(result, what)
    }
}

/// What a code means to a caller, and what to do.
fn meaning(result: i32) -> (ErrorKind, &'static str) {
    match result {
        code::OUT_OF_MEMORY => (ErrorKind::OutOfDeviceMemory, ""),
        code::NO_DEVICE => (
            ErrorKind::NoDevice,
            "; look at `nvidia-smi` and CUDA_VISIBLE_DEVICES, or run on the host device \
             (GDS_DEVICE=host)",
        ),
        code::STUB => (
            ErrorKind::DriverMissing,
            "; this is the toolkit's stub: take its stubs folder out of LD_LIBRARY_PATH",
        ),
        code::MISMATCH => (
            ErrorKind::DriverTooOld,
            "; the kernel module and libcuda are of different versions: reboot, or reinstall the \
             driver",
        ),
        code::SYSTEM_NOT_READY => (
            ErrorKind::Cuda,
            "; start nvidia-fabricmanager and try again",
        ),
        code::UNAVAILABLE => (
            ErrorKind::Cuda,
            "; another process may hold the device in exclusive mode: look at `nvidia-smi`",
        ),
        code::OPERATING_SYSTEM => (
            ErrorKind::Cuda,
            "; the kernel refused: look at `ulimit -l` and the kernel's log",
        ),
        code::ALREADY_REGISTERED => (
            ErrorKind::InvalidArgument,
            "; use the registration that is there, or undo it first",
        ),
        code::NOT_SUPPORTED => (ErrorKind::NotSupported, ""),
        code::NO_IMAGE => (
            ErrorKind::NotSupported,
            "; the kernels of this library need compute capability 7.5 or higher",
        ),
        // Codes that every later call on the device repeats.
        700 | 702 | 710 | 714..=719 => (
            ErrorKind::Cuda,
            "; an earlier kernel or copy of this process broke the device's context: find it with \
             compute-sanitizer, then restart the process",
        ),
        _ => (ErrorKind::Cuda, ""),
    }
}

fn foreign(path: &str) -> Error {
    let text = format!(
        "open the CUDA driver: {path} lacks what every CUDA driver has; take it out of the \
         loader's path"
    );
    Error::new(ErrorKind::DriverMissing, text)
}

/// A symbol of libcuda by its NUL-terminated name.
fn symbol_of(name: &str) -> Option<*const c_void> {
    // SAFETY: only called after the library was seen to open.
    let library = unsafe { sys::culib() };
    // SAFETY: read as an address only; callers give it the type that NVIDIA's header has.
    let symbol = unsafe { library.get::<*const c_void>(name.as_bytes()) }.ok()?;
    Some(*symbol).filter(|s| !s.is_null())
}

/// The file that an address was loaded from.
fn path_of(address: *const c_void) -> PathBuf {
    // SAFETY: plain data, for which zero bytes are valid.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for; `info` is writable.
    if unsafe { libc::dladdr(address, &mut info) } == 0 || info.dli_fname.is_null() {
        return PathBuf::from("libcuda.so.1");
    }
    // SAFETY: on success the name is a NUL-terminated string of the loader.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    PathBuf::from(name.to_string_lossy().into_owned())
}

/// 12080 as "12.8".
fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
