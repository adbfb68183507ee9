//! NVIDIA's nvCOMP, which decompresses what the kernels of this library do not: found with dlopen
//! at run time, never linked, never closed.
//!
//! nvCOMP trusts what it is given: of a damaged Zstandard or gzip stream its headers say that
//! "providing a corrupt buffer for decompression will result in undefined behavior". So it is used
//! only where `GDS_NVCOMP_LIBRARY` says so, by those who trust their files.
//!
//! Its low-level interface differs between major versions: 5.1 to 5.x and 6.x are known here
//! (nvcomp/zstd.h, nvcomp/gzip.h and nvcomp/shared_types.h of either); any other is as good as
//! none. What is passed: options of 64 bytes by value, arrays of addresses and sizes in memory of
//! the device, a stream.

use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{DecompressCodec, Stream};
use crate::error::{Error, ErrorKind, Result};

/// Says that nvCOMP may be used, and which: the path of the .so, or `auto` for the one that the
/// linker finds.
pub const LIBRARY_VARIABLE: &str = "GDS_NVCOMP_LIBRARY";
/// What `auto` tries.
const CANDIDATES: [&str; 2] = ["libnvcomp.so.6", "libnvcomp.so.5"];
/// The first version with options by value, 1000 * major + 100 * minor + patch.
const VERSION_MIN: u32 = 5100;
/// The first version that is not known.
const VERSION_END: u32 = 7000;
/// From here on the question for temporary memory takes a stream.
const VERSION_STREAM: u32 = 6000;

/// `nvcompStatus_t`.
mod status {
    pub(super) const SUCCESS: i32 = 0;
    pub(super) const NOT_SUPPORTED: i32 = 11;
    pub(super) const OUTPUT_TOO_SMALL: i32 = 15;
    pub(super) const CUDA: i32 = 1000;
}

/// Options of decompression: all zero picks the defaults of either codec.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Options {
    backend: i32,
    reserved: [u8; 60],
}

const DEFAULT: Options = Options {
    backend: 0,
    reserved: [0; 60],
};

/// `nvcompProperties_t`.
#[derive(Debug, Default)]
#[repr(C)]
struct Properties {
    version: u32,
    runtime: u32,
}

/// `nvcompAlignmentRequirements_t`.
#[derive(Debug, Default)]
#[repr(C)]
struct Alignments {
    input: usize,
    output: usize,
    temporary: usize,
}

type PropertiesFn = unsafe extern "C" fn(*mut Properties) -> i32;
type AlignmentsFn = unsafe extern "C" fn(Options, *mut Alignments) -> i32;
type Temporary5Fn = unsafe extern "C" fn(usize, usize, Options, *mut usize, usize) -> i32;
type Temporary6Fn =
    unsafe extern "C" fn(usize, usize, Options, *mut usize, usize, *mut c_void) -> i32;
type DecompressFn = unsafe extern "C" fn(
    *const u64,
    *const u64,
    *const u64,
    *mut u64,
    usize,
    *mut c_void,
    usize,
    *const u64,
    Options,
    *mut i32,
    *mut c_void,
) -> i32;

/// How memory for a launch is asked for.
#[derive(Clone, Copy)]
enum Temporary {
    Five(Temporary5Fn),
    Six(Temporary6Fn),
}

/// The functions of a codec.
#[derive(Clone, Copy)]
struct Functions {
    alignments: AlignmentsFn,
    temporary: Temporary,
    decompress: DecompressFn,
}

/// nvCOMP, loaded. Every method may be called from any thread.
pub struct Nvcomp {
    path: PathBuf,
    properties: Properties,
    zstd: Functions,
    gzip: Functions,
}

/// What the chunks of a launch are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LibraryJob {
    /// `Zstd` or `Gzip`: one for all of them.
    pub codec: DecompressCodec,
    /// How many.
    pub count: u64,
    /// Bytes that come out of the largest.
    pub largest: u64,
    /// Bytes that come out of all.
    pub total: u64,
}

/// What a launch needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LibraryNeeds {
    /// Compressed chunks begin at multiples of this.
    pub from_align: u64,
    /// Outputs begin at multiples of this.
    pub to_align: u64,
    /// Temporary memory begins at a multiple of this.
    pub temporary_align: u64,
    /// Bytes of temporary memory of the device.
    pub temporary: u64,
}

/// What `Device::library_decompress` has to do. All addresses are those of memory of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LibraryWork {
    /// `Zstd` or `Gzip`.
    pub codec: DecompressCodec,
    /// How many chunks.
    pub count: u64,
    /// Address of an address of each chunk.
    pub from: u64,
    /// Address of a u64 of each chunk's bytes.
    pub from_sizes: u64,
    /// Address of an address of each output.
    pub to: u64,
    /// Address of a u64 of each output's room, bytes.
    pub to_sizes: u64,
    /// Address of a u64 each that takes the bytes that came out.
    pub done_sizes: u64,
    /// Address of an i32 each that takes what became of it, for [`Nvcomp::verdict`].
    pub statuses: u64,
    /// Temporary memory.
    pub temporary: u64,
    /// Bytes of it.
    pub temporary_size: u64,
}

/// What nvCOMP says of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibraryVerdict {
    /// It came out.
    Done,
    /// It does not fit its output.
    TooLong,
    /// Not for this version.
    Unsupported,
    /// It is damaged, or of a kind that nvCOMP does not know: it does not say.
    Refused,
}

impl fmt::Debug for Nvcomp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nvcomp({self})")
    }
}

impl fmt::Display for Nvcomp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.properties.version;
        let (major, minor, patch) = (version / 1000, version / 100 % 10, version % 100);
        write!(f, "nvCOMP {major}.{minor}.{patch}, {}", self.path.display())
    }
}

/// nvCOMP as `GDS_NVCOMP_LIBRARY` has it at the first call; later calls answer the same.
///
/// # Errors
/// `NotSupported` where it is not asked for, not found, or of an unknown version, with what to do.
pub fn load() -> Result<&'static Nvcomp> {
    static LIBRARY: OnceLock<Result<Nvcomp>> = OnceLock::new();
    let first = || match std::env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty()) {
        None => Err(Error::new(
            ErrorKind::NotSupported,
            format!(
                "nvCOMP is not asked for: Zstandard is decompressed on the host; for \
                 files that you trust, set {LIBRARY_VARIABLE} to `auto` or to the path of \
                 libnvcomp.so.5"
            ),
        )),
        Some(name) if name == "auto" => any(),
        Some(name) => Nvcomp::open(Path::new(&name)),
    };
    LIBRARY.get_or_init(first).as_ref().map_err(Clone::clone)
}

fn any() -> Result<Nvcomp> {
    let mut first = None;
    for name in CANDIDATES {
        match Nvcomp::open(Path::new(name)) {
            Ok(library) => return Ok(library),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| unusable(Path::new("auto"), "there is none")))
}

fn unusable(path: &Path, why: impl fmt::Display) -> Error {
    let text = format!(
        "nvCOMP ({}) is not used: {why}; install nvCOMP 5.1 to 6.x for your CUDA (the wheel \
         nvidia-libnvcomp-cu13) and set {LIBRARY_VARIABLE} to its libnvcomp.so.5",
        path.display()
    );
    Error::new(ErrorKind::NotSupported, text).with_path(path)
}

/// A function of the library.
///
/// # Safety
/// `handle` is a library that stays loaded, and `F` is a pointer to a function with the signature
/// that it has there.
unsafe fn symbol<F: Copy>(handle: *mut c_void, path: &Path, name: &str) -> Result<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let text = CString::new(name).map_err(|_| unusable(path, "a name with a NUL"))?;
    // SAFETY: an open library and a NUL-terminated name.
    let found = unsafe { libc::dlsym(handle, text.as_ptr()) };
    if found.is_null() {
        return Err(unusable(path, format!("it has no {name}")));
    }
    // SAFETY: the caller's promise; a pointer to a function is as large as one to data.
    Ok(unsafe { std::mem::transmute_copy(&found) })
}

impl Nvcomp {
    /// Loads this one; it stays loaded.
    ///
    /// # Errors
    /// `NotSupported` with why it is not used.
    pub fn open(path: &Path) -> Result<Self> {
        let text = CString::new(path.as_os_str().as_bytes());
        let text = text.map_err(|_| unusable(path, "the path holds a NUL"))?;
        // SAFETY: a NUL-terminated path; who named the library answers for its constructors.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure it gives a NUL-terminated string, or NULL.
            let why = unsafe { libc::dlerror() };
            let why = match why.is_null() {
                true => "it does not load".to_owned(),
                // SAFETY: as above.
                false => unsafe { CStr::from_ptr(why) }
                    .to_string_lossy()
                    .into_owned(),
            };
            return Err(unusable(path, why));
        }
        let mut properties = Properties::default();
        // SAFETY: this has been its signature since nvCOMP 2.4; what it writes is two numbers.
        let answer = unsafe {
            let ask: PropertiesFn = symbol(handle, path, "nvcompGetProperties")?;
            ask(&raw mut properties)
        };
        let version = properties.version;
        if answer != status::SUCCESS || !(VERSION_MIN..VERSION_END).contains(&version) {
            let why = format!("it answers {answer} and version {version} to nvcompGetProperties");
            return Err(unusable(path, why));
        }
        // SAFETY: the version was looked at, so the signatures are those of its headers.
        let codec = |name| unsafe { Functions::find(handle, path, name, version) };
        Ok(Self {
            zstd: codec("Zstd")?,
            gzip: codec("Gzip")?,
            path: path.to_path_buf(),
            properties,
        })
    }

    /// Itself, where the driver serves the CUDA that it was built with.
    ///
    /// # Errors
    /// `NotSupported`, naming both.
    pub fn on_driver(&self, driver_version: i32) -> Result<&Self> {
        let needed = self.properties.runtime / 1000;
        if u32::try_from(driver_version).is_ok_and(|version| version / 1000 >= needed) {
            return Ok(self);
        }
        let why = format!(
            "it is for CUDA {needed}, and the driver serves {}",
            driver_version / 1000
        );
        Err(unusable(&self.path, why))
    }

    fn functions(&self, codec: DecompressCodec) -> Result<&Functions> {
        match codec {
            DecompressCodec::Zstd => Ok(&self.zstd),
            DecompressCodec::Gzip => Ok(&self.gzip),
            other => Err(unusable(
                &self.path,
                format!("it is not asked for {other:?}"),
            )),
        }
    }

    /// What a launch of such chunks needs. The context of the device is current.
    ///
    /// # Errors
    /// `NotSupported` where nvCOMP does not say.
    pub fn needs(&self, job: &LibraryJob, stream: Stream) -> Result<LibraryNeeds> {
        let functions = self.functions(job.codec)?;
        let mut alignments = Alignments::default();
        // SAFETY: what is written is three numbers.
        let answer = unsafe { (functions.alignments)(DEFAULT, &raw mut alignments) };
        self.check(answer, || {
            format!("ask for the alignments of {:?}", job.codec)
        })?;
        let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let (count, largest, total) = (size(job.count), size(job.largest), size(job.total));
        let mut bytes = 0;
        // SAFETY: what is written is a number.
        let answer = unsafe {
            match functions.temporary {
                Temporary::Five(ask) => ask(count, largest, DEFAULT, &raw mut bytes, total),
                Temporary::Six(ask) => {
                    let stream = stream.0 as *mut c_void;
                    ask(count, largest, DEFAULT, &raw mut bytes, total, stream)
                }
            }
        };
        self.check(answer, || format!("ask for the memory of {job:?}"))?;
        let align = |align: usize| (align as u64).max(1);
        Ok(LibraryNeeds {
            from_align: align(alignments.input),
            to_align: align(alignments.output),
            temporary_align: align(alignments.temporary),
            temporary: bytes as u64,
        })
    }

    /// Decompresses chunks, ordered in `stream`. The context of the device is current.
    ///
    /// # Safety
    /// As `Device::library_decompress`.
    ///
    /// # Errors
    /// `Cuda` or `NotSupported` where nvCOMP does not begin.
    pub unsafe fn decompress(&self, work: &LibraryWork, stream: Stream) -> Result<()> {
        let functions = self.functions(work.codec)?;
        // SAFETY: the caller keeps the promises, which are those of nvCOMP.
        let answer = unsafe {
            (functions.decompress)(
                work.from as *const u64,
                work.from_sizes as *const u64,
                work.to_sizes as *const u64,
                work.done_sizes as *mut u64,
                work.count as usize,
                work.temporary as *mut c_void,
                work.temporary_size as usize,
                work.to as *const u64,
                DEFAULT,
                work.statuses as *mut i32,
                stream.0 as *mut c_void,
            )
        };
        self.check(answer, || {
            format!("decompress {} chunks of {:?}", work.count, work.codec)
        })
    }

    /// What a status of a chunk means.
    #[must_use]
    pub fn verdict(status: i32) -> LibraryVerdict {
        match status {
            status::SUCCESS => LibraryVerdict::Done,
            status::OUTPUT_TOO_SMALL => LibraryVerdict::TooLong,
            status::NOT_SUPPORTED => LibraryVerdict::Unsupported,
            _ => LibraryVerdict::Refused,
        }
    }

    fn check(&self, answer: i32, what: impl Fn() -> String) -> Result<()> {
        let kind = match answer {
            status::SUCCESS => return Ok(()),
            status::CUDA => ErrorKind::Cuda,
            _ => ErrorKind::NotSupported,
        };
        let text = format!("{} by {self}: it answers {answer}", what());
        Err(Error::new(kind, text))
    }
}

impl Functions {
    /// # Safety
    /// `handle` is nvCOMP of this version.
    unsafe fn find(handle: *mut c_void, path: &Path, codec: &str, version: u32) -> Result<Self> {
        let name = |rest| format!("nvcompBatched{codec}Decompress{rest}");
        // SAFETY: the signatures of nvcomp/zstd.h and nvcomp/gzip.h in that version.
        unsafe {
            Ok(Self {
                alignments: symbol(handle, path, &name("GetRequiredAlignments"))?,
                temporary: match version < VERSION_STREAM {
                    true => Temporary::Five(symbol(handle, path, &name("GetTempSizeAsync"))?),
                    false => Temporary::Six(symbol(handle, path, &name("GetTempSize"))?),
                },
                decompress: symbol(handle, path, &name("Async"))?,
            })
        }
    }
}
