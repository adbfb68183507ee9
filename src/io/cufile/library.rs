//! Finding libcufile, and opening its driver, once a process.
//!
//! The library is opened with dlopen at the first use and never closed; the driver is never
//! closed either, because other users of the process may hold it, and because closing it while
//! the process ends hangs or crashes inside libcufile.

use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::mem::transmute_copy;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};

use super::batch::BatchPool;
use super::error::check;
use super::gates::Roots;
use super::{sys, tune};

/// Names the libcufile to use: the path of the .so, or a name that the linker finds.
pub const LIBRARY_VARIABLE: &str = "GDS_CUFILE_LIBRARY";

/// Where it is when the linker does not know: CUDA's installers do not always tell it.
const CANDIDATES: [&str; 4] = [
    "libcufile.so.0",
    "libcufile.so",
    "/usr/local/cuda/lib64/libcufile.so.0",
    "/usr/local/cuda/targets/x86_64-linux/lib/libcufile.so.0",
];

/// The functions. Those that some version lacks are optional.
pub(super) struct Symbols {
    pub(super) handle_register: sys::HandleRegisterFn,
    pub(super) handle_deregister: sys::HandleDeregisterFn,
    pub(super) read: sys::ReadFn,
    pub(super) write: sys::WriteFn,
    pub(super) buf_register: sys::BufRegisterFn,
    pub(super) buf_deregister: sys::BufDeregisterFn,
    pub(super) driver_open: sys::DriverFn,
    pub(super) use_count: Option<sys::UseCountFn>,
    pub(super) get_properties: Option<sys::GetPropertiesFn>,
    pub(super) get_version: Option<sys::GetVersionFn>,
    pub(super) batch: Option<BatchSymbols>,
    pub(super) stream: Option<StreamSymbols>,
    pub(super) get_size: Option<sys::GetSizeFn>,
    pub(super) set_size: Option<sys::SetSizeFn>,
    pub(super) get_bool: Option<sys::GetBoolFn>,
    pub(super) set_bool: Option<sys::SetBoolFn>,
}

/// The batch functions (1.2 and later): all of them or none.
#[derive(Clone, Copy)]
pub(super) struct BatchSymbols {
    pub(super) set_up: sys::BatchSetUpFn,
    pub(super) submit: sys::BatchSubmitFn,
    pub(super) get_status: sys::BatchGetStatusFn,
    pub(super) cancel: sys::BatchCancelFn,
    pub(super) destroy: sys::BatchDestroyFn,
}

/// The stream functions (1.7 and later): all of them or none.
#[derive(Clone, Copy)]
pub(super) struct StreamSymbols {
    pub(super) read: sys::ReadAsyncFn,
    pub(super) write: sys::ReadAsyncFn,
    pub(super) register: sys::StreamRegisterFn,
    pub(super) deregister: sys::StreamDeregisterFn,
}

/// libcufile, loaded. One for the process; every method may be called from any thread.
pub struct Library {
    pub(super) symbols: Symbols,
    path: PathBuf,
    version: i32,
    process: libc::pid_t,
    driver: OnceLock<Result<()>>,
    batches: OnceLock<Result<BatchPool>>,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// libcufile, loaded at the first call; later calls answer the same. The driver is not opened.
///
/// `GDS_CUFILE_LIBRARY` names the library to use; it is read at the first call.
///
/// # Errors
/// `CuFileUnavailable` with what was tried and what to do.
pub fn load() -> Result<&'static Library> {
    static LIBRARY: OnceLock<Result<Library>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let named = std::env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty());
            named.map_or_else(load_any, |name| Library::open(Path::new(&name)))
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// What to do where the library cannot be loaded.
pub(super) fn advice() -> String {
    format!(
        "install libcufile of the CUDA toolkit, or set {LIBRARY_VARIABLE} to the path of \
         libcufile.so.0"
    )
}

fn load_any() -> Result<Library> {
    let mut tried = Vec::new();
    for candidate in CANDIDATES {
        match Library::open(Path::new(candidate)) {
            Ok(library) => return Ok(library),
            Err(error) => tried.push(error.message().to_owned()),
        }
    }
    // The linker's name says most; the fixed places only repeat that there is no such file.
    let first = tried.first().map_or("", String::as_str);
    Err(Error::new(ErrorKind::CuFileUnavailable, first))
}

impl Library {
    fn open(name: &Path) -> Result<Self> {
        let unavailable = |what: String| {
            let (name_shown, fix) = (name.display(), advice());
            let text = format!("cannot load libcufile ({name_shown}): {what}; {fix}");
            Error::new(ErrorKind::CuFileUnavailable, text).with_path(name)
        };
        let text = CString::new(name.as_os_str().as_bytes())
            .map_err(|_| unavailable("the path holds a NUL".to_owned()))?;
        // SAFETY: text is a NUL-terminated string.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(unavailable(dl_error()));
        }
        // SAFETY: handle is a loaded library, which is never closed.
        let symbols = unsafe { Symbols::find(handle) }.map_err(|symbol| {
            unavailable(format!(
                "it has no {symbol}, so it is no libcufile or too old"
            ))
        })?;
        let mut version = 0;
        if let Some(get_version) = symbols.get_version {
            // SAFETY: version outlives the call.
            let status = unsafe { get_version(&raw mut version) };
            check(status, "ask libcufile for its version")?;
        }
        let path = path_of(symbols.read as *const c_void).unwrap_or_else(|| name.to_path_buf());
        Ok(Self {
            symbols,
            path,
            version,
            // SAFETY: getpid has no preconditions.
            process: unsafe { libc::getpid() },
            driver: OnceLock::new(),
            batches: OnceLock::new(),
        })
    }

    /// 1000 * major + 10 * minor: 1150 is 1.15. 0 for a version that cannot tell (before 1.8).
    #[must_use]
    pub fn version(&self) -> i32 {
        self.version
    }

    /// The file that was loaded.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the driver unless it is open: sets the parameters, then waits for cuFileDriverOpen,
    /// which takes up to a second the first time. Every other call does this by itself.
    ///
    /// # Errors
    /// `CuFileUnavailable` where cuFile would hang or abort (see `gates`), `Forked` in a child of
    /// the process that loaded the library, else what the driver answered; the same each time.
    pub fn open_driver(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::new(
                ErrorKind::Forked,
                "cuFile was loaded before this process was forked, and does not survive that; \
                 start the process afresh (exec) before it reads",
            ));
        }
        self.driver.get_or_init(|| self.first_open()).clone()
    }

    /// Whether this process was forked from the one that loaded the library: then libcufile must
    /// not be called, not even to give something back.
    pub(super) fn is_forked(&self) -> bool {
        // SAFETY: getpid has no preconditions.
        unsafe { libc::getpid() != self.process }
    }

    fn first_open(&self) -> Result<()> {
        for gate in Roots::default().fatal(self.version) {
            if !gate.passed {
                let text = format!("open cuFile's driver: {}; {}", gate.detail, gate.fix);
                return Err(Error::new(ErrorKind::CuFileUnavailable, text));
            }
        }
        let _quiet = tune::quiet();
        tune::parameters(&self.symbols);
        // SAFETY: the checks above rule out the known hang and abort.
        let status = unsafe { (self.symbols.driver_open)() };
        check(
            status,
            format_args!("open the driver of {}", self.path.display()),
        )
    }

    /// How often the driver is open in this process (by us and by others). 0 when it is closed,
    /// `None` for a library that cannot tell.
    #[must_use]
    pub fn use_count(&self) -> Option<i64> {
        // SAFETY: a plain getter.
        self.symbols.use_count.map(|count| unsafe { count() })
    }

    /// What the driver can do and how it is set up.
    ///
    /// # Errors
    /// As [`Library::open_driver`]; `NotSupported` for a library without the call.
    pub fn properties(&self) -> Result<sys::DriverProps> {
        self.open_driver()?;
        let Some(get_properties) = self.symbols.get_properties else {
            return Err(self.lacks("cuFileDriverGetProperties"));
        };
        // Zeroed, because fields may be left as they were; larger than today's struct, because a
        // later version may write more.
        let mut room = [sys::DriverProps::default(); 147];
        const _: () = assert!(147 * size_of::<sys::DriverProps>() >= 8192);
        // SAFETY: room holds the struct, and outlives the call.
        let status = unsafe { get_properties(room.as_mut_ptr()) };
        check(status, "ask cuFile for its properties")?;
        Ok(room[0])
    }

    /// A number of cuFile's configuration.
    ///
    /// # Errors
    /// As [`Library::open_driver`]; `NotSupported` before 1.14.
    pub fn size_parameter(&self, parameter: sys::SizeParameter) -> Result<usize> {
        self.open_driver()?;
        let get = self
            .symbols
            .get_size
            .ok_or_else(|| self.lacks("cuFileGetParameterSizeT"))?;
        let mut value = 0;
        // SAFETY: value outlives the call.
        let status = unsafe { get(parameter, &raw mut value) };
        check(
            status,
            format_args!("ask cuFile for parameter {}", parameter.0),
        )?;
        Ok(value)
    }

    /// A switch of cuFile's configuration.
    ///
    /// # Errors
    /// As [`Library::size_parameter`].
    pub fn bool_parameter(&self, parameter: sys::BoolParameter) -> Result<bool> {
        self.open_driver()?;
        let get = self
            .symbols
            .get_bool
            .ok_or_else(|| self.lacks("cuFileGetParameterBool"))?;
        let mut value = false;
        // SAFETY: value outlives the call; C's bool is one byte of 0 or 1.
        let status = unsafe { get(parameter, &raw mut value) };
        check(
            status,
            format_args!("ask cuFile for switch {}", parameter.0),
        )?;
        Ok(value)
    }

    /// The process's pool of batches.
    ///
    /// # Errors
    /// As [`Library::open_driver`]; `NotSupported` for a library without batches.
    pub fn batches(&'static self) -> Result<&'static BatchPool> {
        self.open_driver()?;
        self.batches
            .get_or_init(|| BatchPool::new(self))
            .as_ref()
            .map_err(Clone::clone)
    }

    pub(super) fn lacks(&self, symbol: &str) -> Error {
        let text = format!(
            "{} (version {}) has no {symbol}; use a later libcufile",
            self.path.display(),
            self.version
        );
        Error::new(ErrorKind::NotSupported, text)
    }
}

impl Symbols {
    /// Looks every function up; the error is the name of the first that is missing.
    ///
    /// # Safety
    /// `library` is a handle of dlopen that is never closed.
    unsafe fn find(library: *mut c_void) -> std::result::Result<Self, &'static str> {
        // Each use names the type of the function beside its name; both come from cufile.h, and
        // build.rs reads them here for `tests/cufile_ctest.rs`.
        macro_rules! optional {
            ($name:literal as $kind:ty) => {
                // SAFETY: libcufile declares the function with this type, and stays loaded.
                unsafe { symbol::<$kind>(library, concat!($name, "\0").as_bytes()) }
            };
        }
        macro_rules! needed {
            ($name:literal as $kind:ty) => {
                optional!($name as $kind).ok_or($name)?
            };
        }
        let batch = || {
            Some(BatchSymbols {
                set_up: optional!("cuFileBatchIOSetUp" as sys::BatchSetUpFn)?,
                submit: optional!("cuFileBatchIOSubmit" as sys::BatchSubmitFn)?,
                get_status: optional!("cuFileBatchIOGetStatus" as sys::BatchGetStatusFn)?,
                cancel: optional!("cuFileBatchIOCancel" as sys::BatchCancelFn)?,
                destroy: optional!("cuFileBatchIODestroy" as sys::BatchDestroyFn)?,
            })
        };
        let stream = || {
            Some(StreamSymbols {
                read: optional!("cuFileReadAsync" as sys::ReadAsyncFn)?,
                write: optional!("cuFileWriteAsync" as sys::ReadAsyncFn)?,
                register: optional!("cuFileStreamRegister" as sys::StreamRegisterFn)?,
                deregister: optional!("cuFileStreamDeregister" as sys::StreamDeregisterFn)?,
            })
        };
        Ok(Self {
            handle_register: needed!("cuFileHandleRegister" as sys::HandleRegisterFn),
            handle_deregister: needed!("cuFileHandleDeregister" as sys::HandleDeregisterFn),
            read: needed!("cuFileRead" as sys::ReadFn),
            write: needed!("cuFileWrite" as sys::WriteFn),
            buf_register: needed!("cuFileBufRegister" as sys::BufRegisterFn),
            buf_deregister: needed!("cuFileBufDeregister" as sys::BufDeregisterFn),
            driver_open: needed!("cuFileDriverOpen" as sys::DriverFn),
            use_count: optional!("cuFileUseCount" as sys::UseCountFn),
            get_properties: optional!("cuFileDriverGetProperties" as sys::GetPropertiesFn),
            get_version: optional!("cuFileGetVersion" as sys::GetVersionFn),
            batch: batch(),
            stream: stream(),
            get_size: optional!("cuFileGetParameterSizeT" as sys::GetSizeFn),
            set_size: optional!("cuFileSetParameterSizeT" as sys::SetSizeFn),
            get_bool: optional!("cuFileGetParameterBool" as sys::GetBoolFn),
            set_bool: optional!("cuFileSetParameterBool" as sys::SetBoolFn),
        })
    }
}

/// One function of a loaded library.
///
/// # Safety
/// `library` is a handle of dlopen, `name` ends in NUL, and `T` is the function's pointer type.
unsafe fn symbol<T: Copy>(library: *mut c_void, name: &[u8]) -> Option<T> {
    const { assert!(size_of::<T>() == size_of::<*mut c_void>()) };
    let name = CStr::from_bytes_with_nul(name).ok()?;
    // SAFETY: library is loaded and name is terminated.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller vouches that T is the type of the function at this address.
    Some(unsafe { transmute_copy::<*mut c_void, T>(&address) })
}

fn dl_error() -> String {
    // SAFETY: dlerror answers NULL or a string that lives until this thread's next dl call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the linker gave no reason".to_owned();
    }
    // SAFETY: text is not NULL and NUL-terminated.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// The file that the code at `address` was loaded from.
fn path_of(address: *const c_void) -> Option<PathBuf> {
    // SAFETY: all-zero is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: info outlives the call; any address may be asked for.
    let found = unsafe { libc::dladdr(address, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dli_fname is a NUL-terminated string of the loaded library.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}
