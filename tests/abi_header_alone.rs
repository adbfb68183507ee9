//! The headers stand alone: in every standard of C and C++, strictest warnings, included twice.

mod abi_common;

use std::path::{Path, PathBuf};
use std::process::Command;

use abi_common::{root, run, scratch};

const WARNINGS: &[&str] = &[
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wshadow",
    "-Wundef",
    "-Wcast-qual",
];

/// Uses every initializer and the pinned types, so that the macros are compiled as well.
const C_PROGRAM: &str = r#"
#include "gds_rs.h"
#include "gds_rs.h"

struct CUstream_st;
typedef struct CUstream_st *cudaStream_t;

int main(void)
{
    gds_config_t config = GDS_CONFIG_INIT;
    gds_device_info_t device = GDS_DEVICE_INFO_INIT;
    gds_metrics_t metrics = GDS_METRICS_INIT;
    gds_performance_t performance = GDS_PERFORMANCE_INIT;
    gds_file_info_t file = GDS_FILE_INFO_INIT;
    gds_buffer_info_t buffer = GDS_BUFFER_INFO_INIT;
    gds_options_t options = GDS_OPTIONS_INIT;
    gds_completion_t completion = GDS_COMPLETION_INIT;
    uint32_t flags = GDS_FILE_READ | GDS_FILE_WRITE;
    cudaStream_t stream = options.stream;
    gds_cuda_stream_t same = stream;
    char status_is_int32[sizeof(gds_status_t) == sizeof(int32_t) ? 1 : -1];
    status_is_int32[0] = 0;
    config.path = GDS_PATH_POLICY_DIRECT;
    return config.struct_size != sizeof config || device.struct_size != sizeof device ||
           metrics.struct_size != sizeof metrics || file.struct_size != sizeof file ||
           performance.struct_size != sizeof performance || same != NULL || flags != 3 ||
           buffer.struct_size != sizeof buffer || completion.struct_size != sizeof completion ||
           GDS_RS_VERSION_NUMBER < GDS_RS_VERSION_MINOR || status_is_int32[0] != 0;
}
"#;

const CPP_PROGRAM: &str = r#"
#include "gds_rs_cache.hpp"
#include "gds_rs_kv.hpp"
#include "gds_rs_stream.hpp"
#include "gds_rs.hpp"
#include "gds_rs.hpp"
#include "gds_rs.h"

static_assert(sizeof(gds::context) == sizeof(void *), "a handle is a pointer");
static_assert(sizeof(gds::file) == sizeof(void *), "a handle is a pointer");
static_assert(sizeof(gds::buffer) == sizeof(void *), "a handle is a pointer");
static_assert(sizeof(gds::ticket) == sizeof(void *), "a handle is a pointer");
static_assert(noexcept(gds_version()), "C functions do not throw");

int main()
{
    return gds::error(GDS_STATUS_NO_SPACE, "full").status() == GDS_STATUS_NO_SPACE ? 0 : 1;
}
"#;

fn compile(compiler: &str, standard: &str, source: &Path) {
    let output: PathBuf = source.with_extension(format!("{compiler}.{standard}.o"));
    run(Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args(WARNINGS)
        .arg("-I")
        .arg(root().join("include"))
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(output));
}

fn source(name: &str, text: &str) -> PathBuf {
    let path = scratch("header_alone").join(name);
    std::fs::write(&path, text).expect("the target folder is writable");
    path
}

#[test]
fn every_standard_of_c() {
    let source = source("alone.c", C_PROGRAM);
    for standard in ["c99", "c11", "c17", "c2x"] {
        compile("gcc", standard, &source);
    }
}

#[test]
fn every_standard_of_cpp() {
    let header = source("alone.cpp", C_PROGRAM);
    let wrapper = source("wrapper.cpp", CPP_PROGRAM);
    for standard in ["c++11", "c++14", "c++17", "c++20"] {
        compile("g++", standard, &header);
        compile("g++", standard, &wrapper);
    }
}

#[test]
fn programs_that_bring_the_structs_of_arrow_compile() {
    let header = abi_common::header();
    let from = header
        .find("#ifndef ARROW_C_DATA_INTERFACE")
        .expect("the structs");
    let to = header
        .find("/* ==== Columns")
        .expect("the section after them");
    let arrow = format!("#include <stdint.h>\n{}", &header[from..to]);
    let before = source(
        "arrow_before.c",
        &format!("{arrow}\n#include \"gds_rs.h\"\n"),
    );
    let after = source(
        "arrow_after.c",
        &format!("#include \"gds_rs.h\"\n{arrow}\n"),
    );
    for path in [&before, &after] {
        compile("gcc", "c99", path);
        compile("gcc", "c17", path);
    }
}

#[test]
fn the_usage_example_of_the_header_compiles() {
    let header = abi_common::header();
    let example: String = header
        .lines()
        .skip_while(|line| !line.contains("#include <gds_rs.h>"))
        .take_while(|line| !line.contains("Conventions"))
        .map(|line| format!("{}\n", line.strip_prefix(" *     ").unwrap_or("")))
        .collect();
    assert!(example.contains("int main("), "{example}");
    compile("gcc", "c99", &source("example.c", &example));
}
