//! Link arguments of the shared library. Users need nothing else from a build script.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    let minor = std::env::var("CARGO_PKG_VERSION_MINOR").unwrap_or_default();
    // Before 1.0 every minor version may break the ABI, so the minor is part of the soname.
    let soname = if major == "0" {
        format!("libgds_rs.so.0.{minor}")
    } else {
        format!("libgds_rs.so.{major}")
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // Threads and atfork handlers of ours may outlive a dlclose: the code must stay mapped.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");

    #[cfg(feature = "abi-check")]
    {
        layout::generate();
        cufile::generate();
    }
}

/// The test program of `tests/abi_layout.rs`: ctest2 reads src/ffi/types and writes C and Rust
/// that compare every struct and constant with the header.
#[cfg(feature = "abi-check")]
mod layout {
    use std::path::{Path, PathBuf};

    pub fn generate() {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let types = out.join("abi_types.rs");
        std::fs::write(&types, all_types()).expect("OUT_DIR is writable");
        let mut config = ctest2::TestGenerator::new();
        config
            .header("gds_rs.h")
            .include("include")
            // The structs have a typedef of their own name; ctest2 does not know f64.
            // Those of Arrow have none.
            .type_name(|name, _, _| match name {
                "f64" => "double".to_owned(),
                of_arrow if of_arrow.starts_with("Arrow") => format!("struct {of_arrow}"),
                name => name.to_owned(),
            })
            // A function pointer has no sign; a handle has no layout.
            .skip_signededness(|name| name.ends_with("_fn") || name == "gds_cuda_stream_t")
            // The header of Arrow names no type of its function pointers.
            .skip_type(|name| name.starts_with("arrow_"))
            .skip_field_type(|name, _| name.starts_with("Arrow"))
            // They free what they hold, which no test has put there.
            .skip_roundtrip(|name| name.starts_with("Arrow"))
            .skip_struct(|name| OPAQUE.contains(&name))
            .out_dir(&out);
        config.generate(&types, "abi_layout.rs");
        for_this_edition(&out.join("abi_layout.rs"), "");
    }

    /// Rewrites what ctest2 wrote: edition 2024 refuses its `extern` blocks. Appends `more`.
    pub fn for_this_edition(path: &Path, more: &str) {
        let text = std::fs::read_to_string(path).expect("ctest2 wrote it");
        let text = text
            .replace("\nextern \"C\" {", "\nunsafe extern \"C\" {")
            .replace(
                "            extern \"C\" {",
                "            unsafe extern \"C\" {",
            );
        std::fs::write(path, text + more).expect("OUT_DIR is writable");
    }

    /// Types that C sees by name alone.
    const OPAQUE: &[&str] = &[
        "gds_array_t",
        "gds_arrow_t",
        "gds_cache_t",
        "gds_columns_t",
        "gds_context_t",
        "gds_file_t",
        "gds_buffer_t",
        "gds_ticket_t",
        "gds_parquet_t",
        "gds_reader_t",
        "gds_pipeline_t",
        "gds_writer_t",
        "gds_prefetch_t",
        "gds_region_set_t",
        "gds_region_t",
        "gds_plan_t",
        "gds_tensors_t",
        "gds_elf_t",
        "gds_elf_plan_t",
        "gds_kv_t",
        "gds_kv_batch_t",
        "gds_kv_device_t",
        "gds_kv_scan_t",
        "gds_kv_snapshot_t",
        "gds_kv_writer_t",
    ];

    /// src/ffi/types as one file, without what only a crate of many files needs.
    fn all_types() -> String {
        println!("cargo::rerun-if-changed=src/ffi/types");
        println!("cargo::rerun-if-changed=include/gds_rs.h");
        let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new("src/ffi/types"))
            .expect("the types are there")
            .map(|entry| entry.expect("an entry can be read").path())
            .filter(|path| !path.ends_with("mod.rs"))
            .collect();
        files.sort();
        let mut all = String::from("use core::ffi::{c_char, c_void};\n");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source file is text");
            for line in text
                .lines()
                .filter(|l| !l.starts_with("//!") && !l.starts_with("use "))
            {
                all.push_str(line);
                all.push('\n');
            }
        }
        all
    }
}

/// The test program of `tests/cufile_ctest.rs`: ctest2 reads src/io/cufile/sys.rs and writes C and
/// Rust that compare it with NVIDIA's own cufile.h.
///
/// What ctest2 reads is sys.rs's text, reduced to what its parser knows; what it compares are the
/// types that rustc made of sys.rs. Which function has which function type is read off library.rs,
/// so what is compared is what is loaded. Only names are stated here.
///
/// Left to `tests/cufile_layout.rs`:
/// - `DSTATUS`, a table, and error.rs's codes: ctest2 knows constants of plain types only;
/// - versions before the newest, which lack some of what sys.rs states.
///
/// Signs are left out: libcufile's enums are `unsigned` to gcc only because none has a negative
/// enumerator yet, and ours are newtypes of `i32`, which a sign test cannot be written for.
#[cfg(feature = "abi-check")]
mod cufile {
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    const SYS: &str = "src/io/cufile/sys.rs";
    const LIBRARY: &str = "src/io/cufile/library.rs";
    const HEADERS: &str = ".deps/cufile";
    /// The first version that has all of sys.rs, as 1000 * major + minor.
    const COMPLETE: u32 = 1020;

    pub fn generate() {
        println!("cargo::rerun-if-changed={SYS}");
        println!("cargo::rerun-if-changed={LIBRARY}");
        println!("cargo::rerun-if-changed={HEADERS}");
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let program = out.join("cufile_ctest.rs");
        let cuda = Path::new(HEADERS).join("cuda/nvidia/cu13/include");
        let newest = newest().filter(|_| cuda.join("cuda.h").is_file());
        let Some((_, include)) = newest else {
            std::fs::write(&program, SKIPPED).expect("OUT_DIR is writable");
            return;
        };
        let text = std::fs::read_to_string(SYS).expect("a source file is text");
        let reduced = Reduced::from(&text);
        let loaded = loaded();
        let functions = reduced.functions_in_rust(&loaded);
        let types = out.join("cufile_types.rs");
        std::fs::write(&types, reduced.types.clone() + &functions).expect("OUT_DIR is writable");
        let header = functions_in_c(&loaded);
        std::fs::write(out.join("cufile_functions.h"), header).expect("OUT_DIR is writable");

        let mut config = ctest2::TestGenerator::new();
        config
            .header("sys/types.h")
            .header("time.h")
            .header("cufile_functions.h")
            .include(&out)
            .include(&include)
            .include(&cuda)
            .type_name(|name, _, _| c_type(name))
            .field_name(c_field)
            .const_cname(c_constant)
            .skip_field_type(|of, field| UNTYPED.contains(&(of, field)))
            .skip_signededness(|_| true)
            // Made here of function pointers, and never passed.
            .skip_roundtrip(|name| name == "Functions")
            .out_dir(&out);
        config.generate(&types, "cufile_ctest.rs");
        super::layout::for_this_edition(&program, &functions);
    }

    /// Counted by scripts/test as the test harness's own line is.
    const SKIPPED: &str = r#"
        fn main() {
            println!(
                "test cufile_ctest ... ignored, no cufile.h of version 1.20 or later in \
                 .deps/cufile; run scripts/fetch-cufile"
            );
            println!("test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        }
    "#;

    /// The newest fetched version that has all of sys.rs, and the folder of its cufile.h.
    fn newest() -> Option<(u32, PathBuf)> {
        std::fs::read_dir(HEADERS)
            .ok()?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let mut parts = name.split('.').map(|part| part.parse::<u32>().ok());
                let version = parts.next()?? * 1000 + parts.next()??;
                let include = entry.path().join("nvidia/cu13/include");
                let usable = version >= COMPLETE && include.join("cufile.h").is_file();
                usable.then_some((version, include))
            })
            .max()
    }

    /// sys.rs as ctest2 can read it.
    #[derive(Default)]
    struct Reduced {
        types: String,
        /// Name and definition of each function type.
        functions: Vec<(String, String)>,
    }

    impl Reduced {
        fn from(text: &str) -> Self {
            let mut reduced = Self::default();
            let mut item = String::new();
            for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
                item.push_str(line);
                item.push('\n');
                // rustfmt puts the end of an item, and of nothing inside it, into column 0.
                let outermost = line.starts_with(|c: char| !c.is_whitespace());
                if outermost && line.ends_with([';', '}']) {
                    reduced.add(&std::mem::take(&mut item));
                }
            }
            assert!(item.trim().is_empty(), "{SYS} ends inside of: {item}");
            reduced
        }

        fn add(&mut self, item: &str) {
            let lines = item.trim().lines().filter(|line| !line.starts_with("#["));
            let code = lines.collect::<Vec<_>>().join("\n");
            let after = |prefix: &str| code.strip_prefix(prefix);
            if let Some(alias) = after("pub type ") {
                let (name, definition) = alias.split_once(" = ").expect("an alias has a `=`");
                if definition.contains("fn(") {
                    let definition = definition.trim_end_matches(';').to_owned();
                    self.functions.push((name.to_owned(), definition));
                } else {
                    self.types.push_str(item);
                }
            } else if let Some(newtype) = after("pub struct ").filter(|_| code.ends_with(");")) {
                // ctest2 knows no tuple structs; `c_type` and the real type say what is compared.
                assert!(
                    item.contains("#[repr(transparent)]"),
                    "not transparent: {item}"
                );
                let (name, inner) = newtype.split_once("(pub ").expect("a newtype of one field");
                let inner = inner.trim_end_matches(");");
                writeln!(self.types, "pub type {name} = {inner};").expect("a string takes text");
            } else if after("pub struct ").is_some() || after("pub union ").is_some() {
                self.types.push_str(item);
            } else if let Some(constant) = after("pub const ") {
                if !constant.starts_with("DSTATUS:") {
                    self.types.push_str(item);
                }
            } else {
                let known = ["use ", "impl ", "unsafe impl ", "const _: () = "];
                let known = known.iter().any(|prefix| code.starts_with(prefix));
                assert!(known, "build.rs knows no such item of {SYS}: {item}");
            }
        }

        /// A struct with a pointer to each function, of the type that sys.rs gives it: ctest2
        /// compares fields' types, but functions only where they are linked.
        fn functions_in_rust(&self, loaded: &[(String, String)]) -> String {
            for (alias, _) in &self.functions {
                let used = loaded.iter().any(|(_, kind)| kind == alias);
                assert!(used, "{LIBRARY} loads no function of type {alias}");
            }
            let mut text = String::from("\n#[repr(C)]\npub struct Functions {\n");
            for (function, kind) in loaded {
                let found = self.functions.iter().find(|(alias, _)| alias == kind);
                let (_, definition) = found.expect("sys.rs has the type");
                writeln!(text, "    pub {function}: Option<{definition}>,")
                    .expect("a string takes text");
            }
            text.push_str("}\n");
            text
        }
    }

    /// `Functions` of the types that cufile.h gives them.
    fn functions_in_c(loaded: &[(String, String)]) -> String {
        let mut text = String::from("#include <cufile.h>\nstruct functions {\n");
        for (function, _) in loaded {
            writeln!(text, "    __typeof__(&{function}) {function};").expect("a string takes text");
        }
        text.push_str("};\n");
        text
    }

    /// Each function that is looked up in libcufile, and its type's name in sys.rs.
    fn loaded() -> Vec<(String, String)> {
        let text = std::fs::read_to_string(LIBRARY).expect("a source file is text");
        text.lines()
            .filter_map(|line| {
                let (before, after) = line.split_once("\" as sys::")?;
                let (_, function) = before.rsplit_once('"')?;
                let (kind, _) = after.split_once(')')?;
                Some((function.to_owned(), kind.to_owned()))
            })
            .collect()
    }

    /// Fields whose type is not theirs on purpose: a CUresult is handed on as a number, and the
    /// table of a file system in user space is never looked into. Place and size are compared.
    const UNTYPED: [(&str, &str); 2] = [("Status", "cu_err"), ("Descriptor", "fs_ops")];

    fn c_type(name: &str) -> String {
        match name {
            "OpError" => "CUfileOpError",
            "Status" => "CUfileError_t",
            "FileHandle" => "CUfileHandle_t",
            "BatchHandle" => "CUfileBatchHandle_t",
            "Stream" => "CUstream",
            "HandleType" => "enum CUfileFileHandleType",
            // Two that have no name in C.
            "DescriptorHandle" => "__typeof__(((CUfileDescr_t *)0)->handle)",
            "NvfsProps" => "__typeof__(((CUfileDrvProps_t *)0)->nvfs)",
            "Descriptor" => "CUfileDescr_t",
            "Opcode" => "CUfileOpcode_t",
            "BatchMode" => "CUfileBatchMode_t",
            "IoParams" => "CUfileIOParams_t",
            "BatchStatus" => "CUfileStatus_t",
            "IoEvent" => "CUfileIOEvents_t",
            "DriverProps" => "CUfileDrvProps_t",
            "IoVec" => "CUfileIOVec_t",
            "SizeParameter" => "CUFileSizeTConfigParameter_t",
            "BoolParameter" => "CUFileBoolConfigParameter_t",
            "Functions" => "struct functions",
            "timespec" => "struct timespec",
            "bool" => "bool",
            _ => panic!("no name in cufile.h is known for {name}"),
        }
        .to_owned()
    }

    fn c_field(of: &str, field: &str) -> String {
        match (of, field) {
            ("Descriptor", "kind") => "type",
            ("IoParams", "base") => "u.batch.devPtr_base",
            ("IoParams", "base_offset") => "u.batch.devPtr_offset",
            ("IoParams", "file_offset") => "u.batch.file_offset",
            ("IoParams", "size") => "u.batch.size",
            ("IoParams", "handle") => "fh",
            ("IoVec", "size") => "len",
            _ => field,
        }
        .to_owned()
    }

    fn c_constant(name: &str) -> String {
        let after = |prefix: &str| name.strip_prefix(prefix);
        if let Some(rest) = after("OPCODE_").or_else(|| after("STATUS_")) {
            format!("CUFILE_{rest}")
        } else if let Some(rest) = after("DCONTROL_") {
            format!("CU_FILE_{rest}")
        } else if let Some(rest) = after("FEATURE_") {
            format!("CU_FILE_{rest}_SUPPORTED")
        } else if name.starts_with("HANDLE_TYPE_") || name.starts_with("STREAM_") {
            format!("CU_FILE_{name}")
        } else if let Some(rest) = after("PARAMETER_") {
            let group = match rest {
                "MAX_IO_THREADS" | "MAX_REQUEST_PARALLELISM" | "PARALLEL_IO" => "EXECUTION_",
                "MAX_DIRECT_IO_SIZE_KB" | "IO_BATCHSIZE" | "ALLOW_COMPAT_MODE" => "PROPERTIES_",
                _ => "",
            };
            format!("CUFILE_PARAM_{group}{rest}")
        } else {
            assert_eq!(name, "BATCH_MODE", "no name in cufile.h is known");
            "CUFILE_BATCH".to_owned()
        }
    }
}
