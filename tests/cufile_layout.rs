//! Our layouts, constants and function types are those of NVIDIA's own cufile.h, for every version
//! that scripts/fetch-cufile has put into .deps/cufile.
//!
//! A small C program is made that includes the header, prints every size, offset and constant
//! that src/io/cufile/sys.rs states, and refuses to compile where a function has another type.
//! `cufile_ctest.rs` compares sys.rs itself, function types included, but with the newest version
//! only and behind a feature; this needs no feature, takes every version, and adds the codes of
//! error.rs and the table of file systems.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use gds_rs::io::cufile::{error, sys};

/// What to compare: our name, the C expression, our value, and the first version that has it.
struct Row {
    ours: String,
    c: String,
    value: i64,
    since: u32,
}

/// Struct of ours, of theirs, first version; then field of ours, of theirs.
macro_rules! layout {
    (
        $rows:ident, $since:literal,
        $ours:ident as $theirs:literal { $($field:ident = $c:literal),* }
    ) => {
        row(&mut $rows, stringify!($ours), format!("sizeof({})", $theirs),
            size_of::<sys::$ours>() as i64, $since);
        $(
            row(&mut $rows, concat!(stringify!($ours), ".", stringify!($field)),
                format!("offsetof({}, {})", $theirs, $c),
                offset_of!(sys::$ours, $field) as i64, $since);
            row(&mut $rows, concat!(stringify!($ours), ".", stringify!($field), " size"),
                format!("sizeof((({} *)0)->{})", $theirs, $c),
                field_size(|value: &sys::$ours| std::ptr::from_ref(&value.$field)), $since);
        )*
    };
}

macro_rules! constants {
    ($rows:ident, $($ours:ident $(. $inner:tt)? = $c:literal),* $(,)?) => {
        $(
            let value = i64::from(sys::$ours $(. $inner)?);
            row(&mut $rows, stringify!($ours), $c.to_owned(), value, 0);
        )*
    };
}

fn field_size<S, T>(_: impl Fn(&S) -> *const T) -> i64 {
    size_of::<T>() as i64
}

fn row(rows: &mut Vec<Row>, ours: &str, c: String, value: i64, since: u32) {
    rows.push(Row {
        ours: ours.to_owned(),
        c,
        value,
        since,
    });
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    layout!(rows, 0, Status as "CUfileError_t" { err = "err", cu_err = "cu_err" });
    layout!(rows, 0, Descriptor as "CUfileDescr_t" {
        kind = "type", handle = "handle", fs_ops = "fs_ops"
    });
    layout!(rows, 0, IoParams as "CUfileIOParams_t" {
        mode = "mode", base = "u.batch.devPtr_base", file_offset = "u.batch.file_offset",
        base_offset = "u.batch.devPtr_offset", size = "u.batch.size", handle = "fh",
        opcode = "opcode", cookie = "cookie"
    });
    layout!(rows, 0, IoEvent as "CUfileIOEvents_t" {
        cookie = "cookie", status = "status", ret = "ret"
    });
    layout!(rows, 0, DriverProps as "CUfileDrvProps_t" {
        nvfs = "nvfs", fflags = "fflags", max_device_cache_size = "max_device_cache_size",
        per_buffer_cache_size = "per_buffer_cache_size",
        max_device_pinned_mem_size = "max_device_pinned_mem_size",
        max_batch_io_size = "max_batch_io_size",
        max_batch_io_timeout_msecs = "max_batch_io_timeout_msecs"
    });
    row(
        &mut rows,
        "NvfsProps",
        "sizeof(((CUfileDrvProps_t *)0)->nvfs)".into(),
        size_of::<sys::NvfsProps>() as i64,
        0,
    );
    for (field, offset) in [
        ("major_version", offset_of!(sys::NvfsProps, major_version)),
        ("minor_version", offset_of!(sys::NvfsProps, minor_version)),
        (
            "poll_thresh_size",
            offset_of!(sys::NvfsProps, poll_thresh_size),
        ),
        (
            "max_direct_io_size",
            offset_of!(sys::NvfsProps, max_direct_io_size),
        ),
        ("dstatusflags", offset_of!(sys::NvfsProps, dstatusflags)),
        ("dcontrolflags", offset_of!(sys::NvfsProps, dcontrolflags)),
    ] {
        row(
            &mut rows,
            &format!("NvfsProps.{field}"),
            format!("offsetof(CUfileDrvProps_t, nvfs.{field})"),
            offset as i64,
            0,
        );
    }
    row(
        &mut rows,
        "DescriptorHandle",
        "sizeof(((CUfileDescr_t *)0)->handle)".into(),
        size_of::<sys::DescriptorHandle>() as i64,
        0,
    );
    row(
        &mut rows,
        "FileHandle",
        "sizeof(CUfileHandle_t)".into(),
        size_of::<sys::FileHandle>() as i64,
        0,
    );
    row(
        &mut rows,
        "BatchHandle",
        "sizeof(CUfileBatchHandle_t)".into(),
        size_of::<sys::BatchHandle>() as i64,
        0,
    );
    layout!(rows, 1020, IoVec as "CUfileIOVec_t" { base = "base", size = "len" });
    constants!(
        rows,
        HANDLE_TYPE_OPAQUE_FD.0 = "CU_FILE_HANDLE_TYPE_OPAQUE_FD",
        HANDLE_TYPE_OPAQUE_WIN32.0 = "CU_FILE_HANDLE_TYPE_OPAQUE_WIN32",
        HANDLE_TYPE_USERSPACE_FS.0 = "CU_FILE_HANDLE_TYPE_USERSPACE_FS",
        OPCODE_READ.0 = "CUFILE_READ",
        OPCODE_WRITE.0 = "CUFILE_WRITE",
        BATCH_MODE.0 = "CUFILE_BATCH",
        STATUS_WAITING.0 = "CUFILE_WAITING",
        STATUS_PENDING.0 = "CUFILE_PENDING",
        STATUS_INVALID.0 = "CUFILE_INVALID",
        STATUS_CANCELED.0 = "CUFILE_CANCELED",
        STATUS_COMPLETE.0 = "CUFILE_COMPLETE",
        STATUS_TIMEOUT.0 = "CUFILE_TIMEOUT",
        STATUS_FAILED.0 = "CUFILE_FAILED",
        DCONTROL_USE_POLL_MODE = "CU_FILE_USE_POLL_MODE",
        DCONTROL_ALLOW_COMPAT_MODE = "CU_FILE_ALLOW_COMPAT_MODE",
        FEATURE_BATCH_IO = "CU_FILE_BATCH_IO_SUPPORTED",
        FEATURE_STREAMS = "CU_FILE_STREAMS_SUPPORTED",
        FEATURE_PARALLEL_IO = "CU_FILE_PARALLEL_IO_SUPPORTED",
        STREAM_FIXED_BUF_OFFSET = "CU_FILE_STREAM_FIXED_BUF_OFFSET",
        STREAM_FIXED_FILE_OFFSET = "CU_FILE_STREAM_FIXED_FILE_OFFSET",
        STREAM_FIXED_FILE_SIZE = "CU_FILE_STREAM_FIXED_FILE_SIZE",
        STREAM_PAGE_ALIGNED_INPUTS = "CU_FILE_STREAM_PAGE_ALIGNED_INPUTS",
        PARAMETER_MAX_IO_THREADS.0 = "CUFILE_PARAM_EXECUTION_MAX_IO_THREADS",
        PARAMETER_MAX_REQUEST_PARALLELISM.0 = "CUFILE_PARAM_EXECUTION_MAX_REQUEST_PARALLELISM",
        PARAMETER_MAX_DIRECT_IO_SIZE_KB.0 = "CUFILE_PARAM_PROPERTIES_MAX_DIRECT_IO_SIZE_KB",
        PARAMETER_IO_BATCHSIZE.0 = "CUFILE_PARAM_PROPERTIES_IO_BATCHSIZE",
        PARAMETER_ALLOW_COMPAT_MODE.0 = "CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE",
        PARAMETER_FORCE_COMPAT_MODE.0 = "CUFILE_PARAM_FORCE_COMPAT_MODE",
        PARAMETER_PARALLEL_IO.0 = "CUFILE_PARAM_EXECUTION_PARALLEL_IO",
        PARAMETER_USE_PCIP2PDMA.0 = "CUFILE_PARAM_USE_PCIP2PDMA",
    );
    let p2p = i64::from(sys::FEATURE_P2P);
    row(
        &mut rows,
        "FEATURE_P2P",
        "CU_FILE_P2P_SUPPORTED".into(),
        p2p,
        1018,
    );
    for (bit, name) in sys::DSTATUS {
        let c = format!("CU_FILE_{}_SUPPORTED", name.to_uppercase());
        // Bits that came after 1.15 mean nothing to it.
        let since = match name {
            "virtiofs" => 1018,
            "panfs" => 1020,
            _ => 0,
        };
        row(&mut rows, "DSTATUS", c, i64::from(bit), since);
    }
    for (code, name) in error::names() {
        row(&mut rows, name, name.to_owned(), i64::from(code), 0);
    }
    rows
}

/// Our function types, spelled in C: the program does not compile where one differs.
const FUNCTIONS: [(&str, &str); 23] = [
    (
        "cuFileHandleRegister",
        "CUfileError_t(CUfileHandle_t *, CUfileDescr_t *)",
    ),
    ("cuFileHandleDeregister", "void(CUfileHandle_t)"),
    (
        "cuFileRead",
        "ssize_t(CUfileHandle_t, void *, size_t, int64_t, int64_t)",
    ),
    (
        "cuFileWrite",
        "ssize_t(CUfileHandle_t, const void *, size_t, int64_t, int64_t)",
    ),
    (
        "cuFileBufRegister",
        "CUfileError_t(const void *, size_t, int)",
    ),
    ("cuFileBufDeregister", "CUfileError_t(const void *)"),
    ("cuFileDriverOpen", "CUfileError_t(void)"),
    ("cuFileUseCount", "long(void)"),
    (
        "cuFileDriverGetProperties",
        "CUfileError_t(CUfileDrvProps_t *)",
    ),
    (
        "cuFileBatchIOSetUp",
        "CUfileError_t(CUfileBatchHandle_t *, unsigned)",
    ),
    (
        "cuFileBatchIOSubmit",
        "CUfileError_t(CUfileBatchHandle_t, unsigned, CUfileIOParams_t *, unsigned)",
    ),
    (
        "cuFileBatchIOGetStatus",
        "CUfileError_t(CUfileBatchHandle_t, unsigned, unsigned *, CUfileIOEvents_t *, \
      struct timespec *)",
    ),
    ("cuFileBatchIOCancel", "CUfileError_t(CUfileBatchHandle_t)"),
    ("cuFileBatchIODestroy", "void(CUfileBatchHandle_t)"),
    (
        "cuFileReadAsync",
        "CUfileError_t(CUfileHandle_t, void *, size_t *, int64_t *, int64_t *, ssize_t *, \
         CUstream)",
    ),
    (
        "cuFileWriteAsync",
        "CUfileError_t(CUfileHandle_t, void *, size_t *, int64_t *, int64_t *, ssize_t *, \
         CUstream)",
    ),
    ("cuFileStreamRegister", "CUfileError_t(CUstream, unsigned)"),
    ("cuFileStreamDeregister", "CUfileError_t(CUstream)"),
    ("cuFileGetVersion", "CUfileError_t(int *)"),
    (
        "cuFileGetParameterSizeT",
        "CUfileError_t(CUFileSizeTConfigParameter_t, size_t *)",
    ),
    (
        "cuFileSetParameterSizeT",
        "CUfileError_t(CUFileSizeTConfigParameter_t, size_t)",
    ),
    (
        "cuFileGetParameterBool",
        "CUfileError_t(CUFileBoolConfigParameter_t, bool *)",
    ),
    (
        "cuFileSetParameterBool",
        "CUfileError_t(CUFileBoolConfigParameter_t, bool)",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The fetched versions, as 1000 * major + minor, and the folder with cufile.h.
fn headers() -> Vec<(u32, PathBuf)> {
    let Ok(folder) = std::fs::read_dir(root().join(".deps/cufile")) else {
        return Vec::new();
    };
    let mut found: Vec<_> = folder
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let mut parts = name.split('.').map(|part| part.parse::<u32>().ok());
            let version = parts.next()?? * 1000 + parts.next()??;
            let include = entry.path().join("nvidia/cu13/include");
            include
                .join("cufile.h")
                .is_file()
                .then_some((version, include))
        })
        .collect();
    found.sort();
    found
}

fn program(rows: &[Row]) -> String {
    let mut c = String::from(
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <sys/types.h>\n\
         #include <time.h>\n#include <cufile.h>\n",
    );
    for (name, kind) in FUNCTIONS {
        let (answer, arguments) = kind.split_once('(').expect("a function type");
        writeln!(
            c,
            "_Static_assert(__builtin_types_compatible_p(__typeof__({name}), \
             {answer} ({arguments}), \"{name} has another type\");"
        )
        .expect("a string takes text");
    }
    c.push_str("int main(void) {\n");
    for row in rows {
        writeln!(c, "    printf(\"%lld\\n\", (long long)({}));", row.c)
            .expect("a string takes text");
    }
    c.push_str("    return 0;\n}\n");
    c
}

#[test]
fn layouts_constants_and_functions_are_those_of_the_genuine_header() {
    let headers = headers();
    let cuda = root().join(".deps/cufile/cuda/nvidia/cu13/include");
    if headers.is_empty() || !cuda.join("cuda.h").is_file() {
        println!("skipped: no cufile.h in .deps/cufile; run scripts/fetch-cufile");
        return;
    }
    if Command::new("gcc").arg("--version").output().is_err() {
        println!("skipped: there is no gcc");
        return;
    }
    for (version, include) in headers {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cufile-{version}"));
        std::fs::create_dir_all(&scratch).expect("a scratch folder");
        let rows: Vec<_> = rows()
            .into_iter()
            .filter(|row| row.since <= version)
            .collect();
        std::fs::write(scratch.join("layout.c"), program(&rows)).expect("the program is written");
        let built = Command::new("gcc")
            .args(["-std=gnu11", "-O0", "layout.c", "-o", "layout"])
            .arg("-I")
            .arg(&include)
            .arg("-I")
            .arg(&cuda)
            .current_dir(&scratch)
            .output()
            .expect("gcc runs");
        let complaints = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "version {version}:\n{complaints}");
        let ran = Command::new(scratch.join("layout"))
            .output()
            .expect("the program runs");
        let text = String::from_utf8(ran.stdout).expect("numbers");
        let theirs: Vec<i64> = text.lines().map(|l| l.parse().expect("a number")).collect();
        assert_eq!(
            theirs.len(),
            rows.len(),
            "version {version}: a line for each comparison"
        );
        let wrong: Vec<_> = rows
            .iter()
            .zip(theirs)
            .filter(|(row, theirs)| row.value != *theirs)
            .map(|(row, theirs)| format!("{} = {}, but {} = {theirs}", row.ours, row.value, row.c))
            .collect();
        assert!(wrong.is_empty(), "version {version}:\n{}", wrong.join("\n"));
        println!("version {version}: {} comparisons agree", rows.len());
    }
}

#[test]
fn everything_that_sys_states_is_compared() {
    let text = std::fs::read_to_string(root().join("src/io/cufile/sys.rs")).expect("sys.rs");
    let names: Vec<_> = rows().into_iter().map(|row| row.ours).collect();
    let mut missing = Vec::new();
    let mut inside = "";
    for line in text.lines() {
        let word = |prefix: &str| {
            line.strip_prefix(prefix)?
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
        };
        if let Some(name) = word("pub struct ").or_else(|| word("pub union ")) {
            // Newtypes over one integer have a layout that only their users state.
            inside = if line.ends_with('{') { name } else { "" };
            if !inside.is_empty() && !names.iter().any(|n| n == name) {
                missing.push(name.to_owned());
            }
        } else if let Some(field) = word("    pub ").filter(|_| !inside.is_empty()) {
            let full = format!("{inside}.{field}");
            if inside != "DescriptorHandle" && !names.contains(&full) {
                missing.push(full);
            }
        } else if let Some(name) = word("pub const ")
            && !names.iter().any(|n| n == name)
        {
            missing.push(name.to_owned());
        }
    }
    assert!(
        missing.is_empty(),
        "not compared with the header: {missing:?}"
    );
}
